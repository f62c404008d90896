"""Times a callable on the machine it runs on. One file, Python >= 3.10, the standard library alone.

The protocol: look at the machine first (`preflight`), warm up until two windows of 20 calls agree,
time every single call on a monotonic clock, leave no outlier out, and say how sure the median is
(`time_calls`). Two contenders are timed in turns, A B B A, so that both meet the same disturbances
(`compare`). Where the machine tells its clocks, temperature, swap, throttling and load, they are
kept beside the figures; what it does not tell is None, never a guess.

Times are integer nanoseconds inside and milliseconds in the result.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import math
import os
import platform
import random
import re
import statistics
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

NAME, VERSION = "edge-dit-lab", "1.0"
MAX_SAMPLES = 4096  # raw times kept in a report; more are thinned evenly
MAX_LOAD_PER_CPU = 0.5
WINDOW, AGREE = 20, 0.02  # warm when the medians of two windows of calls differ by at most 2 %
SAMPLE_S = 0.2  # of the side channel
COOL_C, COOL_CAP_S, PAUSE_S = 3.0, 300.0, 10.0  # between the sessions of one measurement
RESAMPLES = 1000
BLOCKS = 32  # of consecutive calls, the unit that the bootstrap of the median draws
TURN_S = 0.05  # how long one contender runs before the other has its turn
CPUS_READ = 8  # reading the clock of each of 128 cores five times a second would itself be load

Clock = Callable[[], int]  # nanoseconds
T = TypeVar("T")


class Refused(RuntimeError):
    """The machine is in no state for a publishable figure; the message says why."""


@dataclass(frozen=True)
class Preset:
    """How long to warm up and to measure."""

    name: str = "custom"
    iters: int = 100  # at least so many calls a session,
    seconds: float = 5.0  # and at least so long
    warmup_iters: int = 50
    warmup_s: float = 3.0
    warmup_cap_s: float = 60.0
    sessions: int = 1  # with a cool-down between them

    @property
    def known_as(self) -> str:
        """The name that a report carries: other numbers than the preset's own are custom, whatever their name."""
        return self.name if PRESETS.get(self.name) == self else "custom"

    def __post_init__(self) -> None:
        if self.iters < 1 or self.sessions < 1:
            raise ValueError(f"a preset needs iters and sessions of at least 1, got {self.iters} and {self.sessions}")


PRESETS = {
    "quick": Preset("quick"),
    "publishable": Preset("publishable", iters=1024, seconds=60.0, sessions=3),  # MLPerf's single-stream floor
}


def preset_of(preset: str | Preset) -> Preset:
    """A preset by name, or the numbers as given."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}. Known: {', '.join(PRESETS)}, or a Preset with numbers of its own")
    return PRESETS[preset]


# --- the machine --------------------------------------------------------------------------------


class Machine:
    """What an operating system says about its machine; `root` is another tree in tests."""

    def __init__(self, root: Path | str = "/") -> None:
        self.root = Path(root)
        self.cpus = os.cpu_count() or 1

    def text(self, path: str) -> str:
        """A file's content without its ends, "" where there is none."""
        try:
            return (self.root / path).read_text(errors="replace").strip(" \t\n\0")
        except OSError:
            return ""

    def number(self, path: str) -> float | None:
        try:
            return float(self.text(path))
        except ValueError:
            return None

    def numbers(self, pattern: str, *, most: int | None = None) -> list[float]:
        paths = sorted(p.relative_to(self.root) for p in self.root.glob(pattern))[:most]
        return [n for n in (self.number(str(p)) for p in paths) if n is not None]

    # --- who it is ---

    def device(self) -> dict[str, Any]:
        """The `device` part of a report."""
        board = self.text("proc/device-tree/model")
        return {"family": self._family(board), "name": board or self._cpu_name(), "soc": None, "gpu": None,
                "memory_mb": self.memory_mb(), "cooling": None}  # fmt: skip

    def _family(self, board: str) -> str:
        if re.search("jetson|nvidia", board, re.I):
            return "jetson"
        if "raspberry pi" in board.lower():
            return "rpi"
        if platform.system() == "Darwin":
            return "mac"
        return "x86_cpu" if platform.machine().lower() in ("x86_64", "amd64") else "other"

    def _cpu_name(self) -> str:
        found = re.search(r"^model name\s*:\s*(.+)$", self.text("proc/cpuinfo"), re.M)
        name = found[1].strip() if found else platform.processor() or platform.machine() or "unknown"
        return f"{name}, {self.cpus} CPUs"

    def memory_mb(self) -> int:
        """Physical memory; 1 where it is not told, because the report's format wants a number."""
        if kb := self._meminfo("MemTotal"):
            return int(kb // 1024)
        with suppress(ValueError, OSError, AttributeError):
            return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20)
        return 1

    def os_name(self) -> str:
        found = re.search(r'^PRETTY_NAME="?([^"\n]+)', self.text("etc/os-release"), re.M)
        return ", ".join(filter(None, [found and found[1], f"{platform.system()} {platform.release()}"]))

    # --- the state it is in ---

    def load(self) -> float | None:
        """The load average of the last minute: processes that run or wait."""
        with suppress(ValueError, IndexError):
            return float(self.text("proc/loadavg").split()[0])
        with suppress(OSError, AttributeError):
            return os.getloadavg()[0] if self.root == Path("/") else None
        return None

    def swap_mb(self) -> float | None:
        total, free = self._meminfo("SwapTotal"), self._meminfo("SwapFree")
        return None if total is None or free is None else round((total - free) / 1024, 1)

    def _meminfo(self, key: str) -> float | None:
        found = re.search(rf"^{key}:\s*(\d+)", self.text("proc/meminfo"), re.M)
        return float(found[1]) if found else None

    def governors(self) -> list[str]:
        paths = self.root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
        return sorted({self.text(str(p.relative_to(self.root))) for p in paths} - {""})

    def clocks_locked(self) -> bool | None:
        """Whether the lowest and the highest CPU clock allowed are the same; None where it is not told."""
        low = self.numbers("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_min_freq")
        high = self.numbers("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_max_freq")
        return low == high if low and len(low) == len(high) else None

    def cpu_mhz(self) -> float | None:
        """The mean clock of the first CPUs just now."""
        khz = self.numbers("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq", most=CPUS_READ)
        mhz = [k / 1000 for k in khz] or [float(m) for m in re.findall(
            r"^cpu MHz\s*:\s*([\d.]+)", self.text("proc/cpuinfo"), re.M)]  # fmt: skip
        return statistics.fmean(mhz) if mhz else None

    def temp_c(self) -> float | None:
        """The hottest thermal zone."""
        found = [t / 1000 for t in self.numbers("sys/class/thermal/thermal_zone*/temp") if t > 0]
        return max(found) if found else None

    def throttles(self) -> float | None:
        """How often the CPUs were slowed for heat since boot; None where it is not counted."""
        counts = self.numbers("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")
        return sum(counts) if counts else None

    def busy_s(self) -> float | None:
        """CPU seconds that all processes together have used since boot."""
        fields = self.text("proc/stat").split("\n")[0].split()[1:9]
        if len(fields) < 8:
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


HERE = Machine()


@dataclass(frozen=True)
class Before:
    """The machine before any work of ours: afterwards the load would be our own."""

    load: float | None
    swap_mb: float | None


def preflight(preset: Preset, machine: Machine = HERE) -> Before:
    """Load and swap now. Raises Refused if the preset is publishable and the machine is not quiet."""
    before = Before(machine.load(), machine.swap_mb())
    if preset.name == "publishable" and (why := not_quiet(before, machine.cpus)):
        raise Refused(f"no publishable timing now: {'; '.join(why)}. Wait, or take the quick preset")
    return before


def not_quiet(before: Before, cpus: int) -> list[str]:
    """What stands against a publishable figure, as clauses."""
    why = []
    if before.swap_mb:
        why.append(f"{before.swap_mb:g} MB of swap are in use, which must be 0")
    if before.load is not None and before.load > MAX_LOAD_PER_CPU * cpus:
        why.append(f"the load is {before.load:.2f} on {cpus} CPUs, at most {MAX_LOAD_PER_CPU * cpus:g} is allowed")
    return why


class SideChannel:
    """Clocks and temperature, sampled by a thread while it is entered."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.seen: dict[str, list[float]] = {"cpu_mhz": [], "temp_c": []}
        self._ended = threading.Event()

    def __enter__(self) -> SideChannel:
        self._sample()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        for name, values in self.seen.items():
            if (value := getattr(self.machine, name)()) is not None:
                values.append(value)

    def summary(self, name: str) -> dict[str, float] | None:
        """min, mean, max; None if the machine does not tell."""
        values = self.seen[name]
        if not values:
            return None
        return {"min": round(min(values), 1), "mean": round(statistics.fmean(values), 1), "max": round(max(values), 1)}


# --- measuring ----------------------------------------------------------------------------------


@dataclass
class Timed:
    """What `time_calls` found: the parts `timing` and `state` of a report, and remarks for its flags."""

    timing: dict[str, Any]
    state: dict[str, Any]
    flags: list[str] = field(default_factory=list)


def time_calls(call: Callable[[], object], preset: Preset, before: Before, *, machine: Machine = HERE,
               clock: Clock = time.perf_counter_ns, sleep: Callable[[float], None] = time.sleep) -> Timed:  # fmt: skip
    """Warm up and time a callable that returns only when its work is done."""
    throttled, cool = machine.throttles(), machine.temp_c()
    warmup_iters, converged = warm_up(call, preset, clock)
    sessions: list[Sequence[int]] = []
    busy, own, began = machine.busy_s(), time.process_time(), time.monotonic()
    with SideChannel(machine) as side:
        for session in range(preset.sessions):
            if session:
                cool_down(machine, cool, sleep)
            sessions.append(sample(call, preset, clock))
    flags = [f"governor={g}" for g in machine.governors()]
    wall = time.monotonic() - began
    if busy is not None and wall > SAMPLE_S:  # the kernel counts in hundredths of a second
        others = ((machine.busy_s() or busy) - busy - (time.process_time() - own)) / wall
        flags.append(f"cpus_used_by_others={max(others, 0):.2f}")
    timing = {"unit": "ms", "clock": "wall_sync", "warmup_iters": warmup_iters, "warmup_converged": converged}
    state = {
        "power_mode": None, "clocks_locked": machine.clocks_locked(), "cpu_mhz": side.summary("cpu_mhz"),
        "temp_c": side.summary("temp_c"), "swap_mb": _larger(before.swap_mb, machine.swap_mb()),
        "load_avg": before.load, "throttled": None if throttled is None else (machine.throttles() or 0) > throttled,
    }  # fmt: skip
    return Timed(timing | summary(sessions), state, flags)


def _larger(a: float | None, b: float | None) -> float | None:
    return max((x for x in (a, b) if x is not None), default=None)


def warm_up(call: Callable[[], object], preset: Preset, clock: Clock = time.perf_counter_ns) -> tuple[int, bool]:
    """(calls made, whether the last two windows agreed before the cap)."""
    times: list[int] = []
    start = clock()
    while True:
        times.append(_once(call, clock))
        elapsed = (clock() - start) / 1e9
        if len(times) >= preset.warmup_iters and elapsed >= preset.warmup_s and _steady(times):
            return len(times), True
        if elapsed >= preset.warmup_cap_s:
            return len(times), False


def _steady(times: list[int]) -> bool:
    if len(times) < 2 * WINDOW:
        return False
    last, previous = statistics.median(times[-WINDOW:]), statistics.median(times[-2 * WINDOW : -WINDOW])
    return abs(last / previous - 1) <= AGREE


def _once(call: Callable[[], object], clock: Clock) -> int:
    start = clock()
    call()
    return max(clock() - start, 1)


def sample(call: Callable[[], object], preset: Preset, clock: Clock = time.perf_counter_ns) -> array:
    """The time of every call of one session, in ns; the garbage collector waits, as in timeit."""
    times, limit = array("q"), int(preset.seconds * 1e9)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = clock()
        while len(times) < preset.iters or clock() - start < limit:
            times.append(_once(call, clock))
    finally:
        if collecting:
            gc.enable()
    return times


def cool_down(machine: Machine, target: float | None, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until the machine is as cool as before the first session, at most COOL_CAP_S."""
    sleep(PAUSE_S)
    waited = PAUSE_S
    while target is not None and waited < COOL_CAP_S and (machine.temp_c() or target) > target + COOL_C:
        sleep(1.0)
        waited += 1.0


def wait_until_quiet(machine: Machine = HERE, *, cap_s: float = 300.0, sleep: Callable[[float], None] = time.sleep
                     ) -> bool:  # fmt: skip
    """Whether load and swap came down to what a publishable timing allows; our own last work counts as load."""
    waited = 0.0
    while not_quiet(Before(machine.load(), machine.swap_mb()), machine.cpus):
        if waited >= cap_s:
            return False
        sleep(1.0)
        waited += 1.0
    return True


# --- statistics ---------------------------------------------------------------------------------


def summary(sessions: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The figures of a report's `timing` part from all times of all sessions, none left out."""
    times = sorted(itertools.chain(*sessions))
    mean = statistics.fmean(times)
    std = math.sqrt(statistics.fmean((t - mean) ** 2 for t in times))
    p50 = statistics.median(times)
    low, high = median_ci(sessions)
    kept = [thin(s, MAX_SAMPLES // len(sessions)) for s in sessions]
    return {
        "iters": len(times), "duration_s": round(sum(times) / 1e9, 3), "sessions": len(sessions),
        "p50": _ms(p50), "p50_ci95": [_ms(min(low, p50)), _ms(max(high, p50))],
        "p90": _ms(percentile(times, 0.9)), "p99": _ms(percentile(times, 0.99)), "min": _ms(times[0]),
        "mean": _ms(mean), "std": _ms(std), "cv": round(std / mean, 5), "drift": round(drift(sessions), 5),
        "samples_ns": [int(t) for t in itertools.chain(*kept)],
    }  # fmt: skip


def _ms(ns: float) -> float:
    return round(ns / 1e6, 6)


def percentile(ordered: Sequence[int], q: float) -> float:
    """Linear between the two nearest ranks."""
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def thin(times: Sequence[int], most: int) -> Sequence[int]:
    """At most `most` of them, evenly spread over time."""
    if len(times) <= most:
        return times
    return [times[i * len(times) // most] for i in range(most)]


def drift(sessions: Sequence[Sequence[int]]) -> float:
    """Median of the last third over that of the first, less 1; of the session where it is largest."""
    found = [0.0]
    for times in sessions:
        if third := len(times) // 3:
            found.append(statistics.median(times[-third:]) / statistics.median(times[:third]) - 1)
    return max(found, key=abs)


def median_ci(sessions: Sequence[Sequence[int]]) -> tuple[float, float]:
    """95 % interval of the median by bootstrap over blocks of consecutive calls.

    Neighbouring calls are disturbed together (another process, a change of clock); drawing them one
    by one, as if they were independent, would promise too narrow an interval.
    """
    blocks = []
    for times in sessions:
        times = thin(times, MAX_SAMPLES // len(sessions))
        length = max(1, len(times) // BLOCKS)
        blocks += [sorted(times[i : i + length]) for i in range(0, len(times), length)]
    return bootstrap(blocks, lambda drawn: statistics.median(sorted(itertools.chain(*drawn))))


def bootstrap(units: Sequence[T], statistic: Callable[[list[T]], float], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a statistic over units drawn with replacement."""
    rng = random.Random(seed)
    values = sorted(statistic(rng.choices(units, k=len(units))) for _ in range(RESAMPLES))
    return values[round(0.025 * (RESAMPLES - 1))], values[round(0.975 * (RESAMPLES - 1))]


# --- two contenders -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """How many times longer `a` takes than `b`, from turns A B B A."""

    ratio: float  # median of a over median of b; above 1: b is faster
    ci95: tuple[float, float]  # by bootstrap over whole rounds, so that a drift common to both cancels
    a_ms: float
    b_ms: float
    rounds: int

    @property
    def faster(self) -> str | None:
        """Which of them, a or b; None while the interval holds 1, for then neither is shown to be faster."""
        if self.ci95[0] <= 1 <= self.ci95[1]:
            return None
        return "b" if self.ci95[0] > 1 else "a"

    def __str__(self) -> str:
        interval = f"a takes {self.ratio:.3f} times as long as b (95 %: {self.ci95[0]:.3f} to {self.ci95[1]:.3f})"
        verdict = f"{self.faster} is faster" if self.faster else "neither is shown to be faster"
        return f"{interval}, {self.a_ms:.3f} against {self.b_ms:.3f} ms, {self.rounds} rounds: {verdict}"


def compare(a: Callable[[], object], b: Callable[[], object], preset: Preset, *,
            around: tuple[AbstractContextManager, AbstractContextManager] = (nullcontext(), nullcontext()),
            clock: Clock = time.perf_counter_ns) -> Comparison:  # fmt: skip
    """Time two callables in turns; `around` is entered for the turn of each (a thread count, say)."""
    contenders = [(a, around[0]), (b, around[1])]
    for call, context in contenders:
        with context:
            warm_up(call, preset, clock)
    rounds: list[tuple[list[int], list[int]]] = []
    start = clock()
    # Eight rounds at least: an interval drawn from fewer means little.
    while len(rounds) < 8 or clock() - start < preset.seconds * 1e9 or _fewest(rounds) < preset.iters:
        times: tuple[list[int], list[int]] = ([], [])
        for who in (0, 1, 1, 0):
            call, context = contenders[who]
            with context:
                times[who].extend(_turn(call, preset.iters, clock))
        rounds.append(times)
    few = max(2, MAX_SAMPLES // len(rounds))  # a bootstrap of every single time would take minutes
    low, high = bootstrap([tuple(thin(t, few) for t in r) for r in rounds], _ratio)
    ratio = _ratio(rounds)
    medians = [_ms(statistics.median(itertools.chain(*(r[who] for r in rounds)))) for who in (0, 1)]
    return Comparison(ratio, (min(low, ratio), max(high, ratio)), *medians, len(rounds))


def _turn(call: Callable[[], object], most: int, clock: Clock) -> list[int]:
    """The times of one turn of about TURN_S."""
    start, first = clock(), _once(call, clock)
    if first >= TURN_S * 1e9:
        return [first]
    times = []  # without the first: the caches still held what the other one left
    while not times or (len(times) < most and clock() - start < TURN_S * 1e9):
        times.append(_once(call, clock))
    return times


def _fewest(rounds: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
    """How many times the contender with fewer of them has."""
    return min(sum(len(r[who]) for r in rounds) for who in (0, 1))


def _ratio(rounds: Sequence[tuple[Sequence[int], Sequence[int]]]) -> float:
    a, b = (statistics.median(itertools.chain(*(r[who] for r in rounds))) for who in (0, 1))
    return a / b


# --- small things a report also wants -----------------------------------------------------------


def reset_peak() -> bool:
    """Let the peak of this process's memory start anew; False where the system can't (then it is a lifetime's)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def process_peak_mb() -> float | None:
    """Peak resident memory of this process in MB; None where it is not told."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if platform.system() == "Darwin" else peak / 1024, 1)


def own_sha256() -> str:
    """Of this file, so that a report says which protocol made it."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
