"""The timing protocol, on a clock of its own where its lengths matter."""

from __future__ import annotations

import ast
import hashlib
import itertools
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onefile import runner

from lab.devices import bundle

PRESETS, Before, Machine, Preset, Refused = (
    getattr(runner, name) for name in ("PRESETS", "Before", "Machine", "Preset", "Refused")
)
SHORT = Preset(iters=8, seconds=0.0, warmup_iters=2, warmup_s=0.0, warmup_cap_s=1.0)
QUIET = Before(load=0.1, swap_mb=0.0)


class FakeClock:
    """A clock that only moves when a call says how long it took."""

    def __init__(self) -> None:
        self.now = 0
        self.calls = 0

    def __call__(self) -> int:
        return self.now

    def call(self, times_ms: Iterable[float]) -> Callable[[], None]:
        times = iter(times_ms)

        def spend() -> None:
            self.calls += 1
            self.now += round(next(times) * 1e6)

        return spend

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def tree(root: Path, **files: str) -> Machine:
    """A machine that is a few files; `__` in a name stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    machine = Machine(root)
    machine.cpus = 2
    return machine


# --- who it is ---


@pytest.mark.parametrize(("told", "name"), [
    ("model name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: 17\n", "AMD EPYC (family 25, model 17), 2 CPUs"),
    ("cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n", "AMD EPYC (family 25, model 1), 2 CPUs"),
    ("model name\t: AMD EPYC 7763\ncpu family\t: 25\nmodel\t\t: 1\n", "AMD EPYC 7763, 2 CPUs"),
    ("model name\t: AMD EPYC\n", "AMD EPYC, 2 CPUs"),
    ("model name\t: Intel(R) Xeon(R) Processor @ 2.50GHz\ncpu family\t: 6\nmodel\t\t: 85\n",
     "Intel(R) Xeon(R) Processor @ 2.50GHz (family 6, model 85), 2 CPUs"),
    ("model name\t: AMD Ryzen Embedded 8-Core Processor\ncpu family\t: 23\nmodel\t\t: 96\n",
     "AMD Ryzen Embedded 8-Core Processor (family 23, model 96), 2 CPUs"),
    ("Model Name\t\t: Loongson-3A5000\nCPU Family\t\t: Loongson-64bit\n", "Loongson-3A5000, 2 CPUs"),
])  # fmt: skip
def test_processors_of_one_name_are_told_apart_by_family_and_model(told: str, name: str, tmp_path: Path) -> None:
    assert tree(tmp_path, proc__cpuinfo=told).device()["name"] == name


# --- warm-up and measurement ---


def test_warm_up_goes_on_until_two_windows_agree(clock: FakeClock) -> None:
    falling = itertools.chain((100 * 0.98**i for i in range(150)), itertools.repeat(5.0))
    calls, converged = runner.warm_up(clock.call(falling), PRESETS["quick"], clock)
    assert converged and 170 < calls < 1000


def test_warm_up_lasts_fifty_calls_and_three_seconds(clock: FakeClock) -> None:
    assert runner.warm_up(clock.call(itertools.repeat(10.0)), PRESETS["quick"], clock) == (300, True)
    assert runner.warm_up(clock.call(itertools.repeat(100.0)), PRESETS["quick"], clock) == (50, True)


def test_warm_up_that_never_settles_stops_at_the_cap_and_says_so(clock: FakeClock) -> None:
    growing = (10 * 1.01**i for i in itertools.count())
    _, converged = runner.warm_up(clock.call(growing), PRESETS["quick"], clock)
    assert not converged and 60 <= clock.now / 1e9 < 62


@pytest.mark.parametrize(("ms", "iters"), [(1.0, 5000), (200.0, 100)])
def test_quick_measures_a_hundred_calls_and_five_seconds(clock: FakeClock, ms: float, iters: int) -> None:
    assert len(runner.sample(clock.call(itertools.repeat(ms)), PRESETS["quick"], clock)) == iters


def test_publishable_measures_three_sessions_of_a_minute_with_a_pause_between(clock: FakeClock, tmp_path: Path) -> None:
    slept: list[float] = []
    found = runner.time_calls(clock.call(itertools.repeat(40.0)), PRESETS["publishable"], QUIET,
                              machine=tree(tmp_path), clock=clock, sleep=slept.append)  # fmt: skip
    assert found.timing["sessions"] == 3
    assert found.timing["iters"] == 3 * 1500
    assert len(found.timing["samples_ns"]) <= runner.MAX_SAMPLES
    assert slept == [runner.PAUSE_S, runner.PAUSE_S]


def test_cool_down_waits_until_the_machine_is_as_cool_as_before(tmp_path: Path) -> None:
    machine = tree(tmp_path, sys__class__thermal__thermal_zone0__temp="70000")
    zone = tmp_path / "sys/class/thermal/thermal_zone0/temp"
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        zone.write_text(str(70000 - 1000 * len(slept)))

    runner.cool_down(machine, 50.0, sleep)
    assert len(slept) == 17  # 70 - 17 = 53, within 3 degrees of 50


def test_the_garbage_collector_is_back_after_a_call_that_fails() -> None:
    import gc

    def broken() -> None:
        raise OSError("no such device")

    with pytest.raises(OSError, match="no such device"):
        runner.sample(broken, SHORT)
    assert gc.isenabled()


# --- a GPU's clock ---


class FakeGpu:
    """torch of a machine whose GPU works on while the host goes on; both by the clock of a test."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.busy_until, self.cuda = clock, 0, self
        self.on: set[str] = set()

    def current_stream(self, device: str) -> str:
        return f"stream of {device}"

    def launch(self, host_ms: float, gpu_ms: float) -> None:
        """The host needs some time to start a piece of work, and does not wait for it."""
        self.clock.now += round(host_ms * 1e6)
        self.busy_until = max(self.busy_until, self.clock.now) + round(gpu_ms * 1e6)

    def Event(self, *, enable_timing: bool) -> FakeEvent:
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, self.at = gpu, 0

    def record(self, stream: str) -> None:
        self.gpu.on.add(stream)
        self.at = max(self.gpu.busy_until, self.gpu.clock.now)

    def synchronize(self) -> None:
        self.gpu.clock.now = max(self.gpu.clock.now, self.at) + 250_000  # until the host is awake again

    def elapsed_time(self, end: FakeEvent) -> float:
        return (end.at - self.at) / 1e6


def test_on_a_gpu_its_own_clock_is_the_headline_and_the_hosts_stands_beside(clock: FakeClock, tmp_path: Path) -> None:
    gpu = FakeGpu(clock)
    lasts = itertools.chain([50.0], itertools.cycle([1.0, 1.0, 2.0]))  # the first one is the warm-up
    preset = Preset(iters=9, seconds=0.0, warmup_iters=1, warmup_s=0.0, warmup_cap_s=0.0001)
    found = runner.time_calls(lambda: gpu.launch(0.1, next(lasts)), preset, QUIET, machine=tree(tmp_path), clock=clock,
                              events=runner.CudaEvents(gpu, "cuda:1")).timing  # fmt: skip
    assert (found["clock"], found["p50"], found["p99"], found["iters"]) == ("cuda_event", 1.1, 2.1, 9)
    wall = found["wall"]
    assert (wall["min"], wall["p50"], wall["p99"]) == (1.35, 1.35, 2.35)
    assert (wall["mean"], wall["iqr"]) == (pytest.approx(1.35 + 1 / 3, abs=1e-6), 1.0)
    assert found["duration_s"] == pytest.approx(sum([1.35, 1.35, 2.35]) * 3 / 1000, abs=1e-3)
    assert gpu.on == {"stream of cuda:1"} and max(found["samples_ns"]) == 2_100_000


def test_on_a_cpu_there_is_one_clock(clock: FakeClock, tmp_path: Path) -> None:
    found = runner.time_calls(clock.call(itertools.repeat(1.0)), SHORT, QUIET, machine=tree(tmp_path), clock=clock)
    assert found.timing["clock"] == "wall_sync" and "wall" not in found.timing


# --- does it fit? ---

NEEDS = {"base_mb": 100.0, "weights_mb": 50.0, "activations": 250_000}  # 3 MB an image


def test_a_batch_that_does_not_fit_is_refused_with_the_numbers_and_what_would_fit() -> None:
    with pytest.raises(runner.TooLarge, match=re.escape(
        "batch 1000 does not fit: it needs about 3,200 MB (100 for the runtime, 100 for weights, 3,000 for activations "
        "and images), and 2,000 MB are free; a batch of 600 would fit"
    )):  # fmt: skip
        runner.check_fit(1000, 2000.0, **NEEDS)
    runner.check_fit(600, 2000.0, **NEEDS)
    with pytest.raises(runner.TooLarge, match="a single image would not fit either"):
        runner.check_fit(1, 202.0, **NEEDS)
    with pytest.raises(runner.TooLarge):
        runner.check_fit(600, 2000.0, **NEEDS, beside=1.0)


def test_a_batch_that_takes_most_of_the_memory_is_warned_of() -> None:
    assert runner.check_fit(466, 2000.0, **NEEDS) is None
    said = runner.check_fit(468, 2000.0, **NEEDS)
    assert said == "batch 468 is tight: it needs about 1,604 of the 2,000 MB that are free"
    assert runner.check_fit(10**9, None, **NEEDS) is None  # where nobody tells what is free


# --- statistics ---


def test_figures_equal_numpys() -> None:
    rng = random.Random(1)
    times = [int(rng.lognormvariate(13, 0.3)) for _ in range(1001)]
    found, ms = runner.summary([times]), np.array(times) / 1e6
    for name, value in [("p50", np.median(ms)), ("p90", np.quantile(ms, 0.9)), ("p99", np.quantile(ms, 0.99)),
                        ("min", ms.min()), ("mean", ms.mean()), ("std", ms.std()),
                        ("iqr", np.quantile(ms, 0.75) - np.quantile(ms, 0.25))]:  # fmt: skip
        assert found[name] == pytest.approx(value, abs=2e-6), name
    assert found["cv"] == pytest.approx(ms.std() / ms.mean(), abs=1e-5)


def test_no_outlier_is_left_out() -> None:
    found = runner.summary([[1_000_000] * 99 + [500_000_000]])
    assert found["mean"] == pytest.approx(5.99)
    assert max(found["samples_ns"]) == 500_000_000


def test_the_interval_holds_the_median_and_narrows_with_more_calls() -> None:
    rng = random.Random(2)
    widths = []
    for count in (100, 4000):
        times = [int(rng.gauss(1e6, 1e5)) for _ in range(count)]
        low, high = runner.median_ci([times])
        assert low <= statistics.median(times) <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_disturbances_that_last_widen_the_interval() -> None:
    rng = random.Random(3)
    level = [1e6 * rng.choice([1.0, 1.4]) for _ in range(20)]
    together = [int(rng.gauss(level[i // 100], 1e4)) for i in range(2000)]
    apart = rng.sample(together, len(together))
    widths = [high - low for low, high in (runner.median_ci([together]), runner.median_ci([apart]))]
    assert widths[0] > 1.5 * widths[1]


def test_the_same_times_give_the_same_interval() -> None:
    times = [random.Random(4).randrange(10**6, 2 * 10**6) for _ in range(300)]
    assert runner.median_ci([times]) == runner.median_ci([times])


def test_drift_is_that_of_the_worst_session() -> None:
    level, rising = [1_000_000] * 90, [1_000_000] * 30 + [1_050_000] * 30 + [1_100_000] * 30
    assert runner.drift([level]) == 0
    assert runner.drift([level, rising]) == pytest.approx(0.1)
    assert runner.drift([rising[::-1], level]) == pytest.approx(1 / 1.1 - 1)


def test_thinning_keeps_times_evenly_over_the_whole_measurement() -> None:
    kept = runner.thin(range(100_000), 4096)
    assert len(kept) == 4096 and kept[0] == 0 and kept[-1] > 99_900
    assert {b - a for a, b in itertools.pairwise(kept)} <= {24, 25}


def test_one_call_is_enough_for_every_figure() -> None:
    found = runner.summary([[2_000_000]])
    assert found["p50"] == found["p99"] == 2.0 and found["p50_ci95"] == [2.0, 2.0]
    assert found["drift"] == found["iqr"] == 0


# --- comparing ---


def test_twice_as_slow_is_found(clock: FakeClock) -> None:
    rng = random.Random(5)
    a = clock.call(rng.gauss(2.0, 0.2) for _ in itertools.count())
    b = clock.call(rng.gauss(1.0, 0.1) for _ in itertools.count())
    found = runner.compare(a, b, Preset(iters=40, seconds=0.1, warmup_s=0.0), clock=clock, sleep=clock.sleep)
    assert found.faster == "b" and found.ratio == pytest.approx(2, rel=0.1)
    assert "b is faster" in str(found)


def test_equal_contenders_are_not_told_apart(clock: FakeClock) -> None:
    rng = random.Random(6)
    a, b = (clock.call(rng.gauss(1.0, 0.3) for _ in itertools.count()) for _ in "ab")
    found = runner.compare(a, b, Preset(iters=40, seconds=0.1, warmup_s=0.0), clock=clock, sleep=clock.sleep)
    assert found.faster is None and found.ci95[0] < 1 < found.ci95[1]


def test_a_drift_common_to_both_cancels(clock: FakeClock) -> None:
    """Everything slows down threefold while it is measured, far more than the 5 % between the two."""

    def slowing(base: float) -> Iterator[float]:
        while True:
            yield base * (1 + clock.now / 1e10)

    found = runner.compare(clock.call(slowing(1.05)), clock.call(slowing(1.0)),
                           Preset(iters=40, seconds=20.0, warmup_s=0.0, warmup_cap_s=0.0), clock=clock,
                           sleep=clock.sleep)  # fmt: skip
    assert found.ratio == pytest.approx(1.05, abs=0.01) and found.faster == "b"


def test_turns_are_taken_a_b_b_a_with_a_rest_before_the_other(clock: FakeClock) -> None:
    seen: list[str] = []

    def contender(name: str) -> Callable[[], None]:
        spend = clock.call(itertools.repeat(20.0))
        return lambda: (seen.append(name), spend())

    def sleep(seconds: float) -> None:
        assert seconds == runner.SETTLE_S
        seen.append(".")

    one_call = Preset(iters=1, seconds=0.0, warmup_iters=0, warmup_s=0.0, warmup_cap_s=0.0)
    found = runner.compare(contender("a"), contender("b"), one_call, clock=clock, sleep=sleep)
    # Warmed up first; a turn's first call is not timed.
    assert "".join(seen) == "ab." + found.rounds * "aa.bbbb.aa"


def test_threads_that_spin_on_after_a_turn_do_not_slow_the_other(clock: FakeClock) -> None:
    """After each of its calls `a` keeps the cores for 40 ms, as onnxruntime does; both need the same on idle ones."""
    rng, spins_until = random.Random(7), 0

    def spinning() -> None:
        nonlocal spins_until
        clock.now += round(rng.gauss(1e6, 1e5))
        spins_until = clock.now + 40_000_000

    def plain() -> None:
        clock.now += round(rng.gauss(1e6, 1e5) * (2 if clock.now < spins_until else 1))

    preset = Preset(iters=40, seconds=5.0, warmup_s=0.0)
    assert runner.compare(spinning, plain, preset, clock=clock, sleep=clock.sleep).ratio == pytest.approx(1, abs=0.01)
    biased = runner.compare(spinning, plain, preset, clock=clock, sleep=lambda _: None)
    assert biased.faster == "a" and biased.ratio < 0.98  # without the rest


def test_what_wakes_up_after_the_rest_is_not_timed(clock: FakeClock) -> None:
    """`b` is three times as slow for 8 ms after it has rested: its own threads sleep and the clocks are low."""
    awake_at, last = 0, 0

    def waking() -> None:
        nonlocal awake_at, last
        if clock.now - last > 20_000_000:
            awake_at = clock.now + 8_000_000
        clock.now += 3_000_000 if clock.now < awake_at else 1_000_000
        last = clock.now

    times: list[int] = []
    for _ in range(2):
        times += runner._turn(waking, 100, clock)
        clock.sleep(0.06)
    assert set(times) == {1_000_000}


def test_a_call_longer_than_a_turn_is_a_turn(clock: FakeClock) -> None:
    a, b = (clock.call(itertools.repeat(ms)) for ms in (3000.0, 1000.0))
    found = runner.compare(
        a, b, Preset(iters=4, seconds=0.0, warmup_iters=0, warmup_cap_s=0.0), clock=clock, sleep=clock.sleep
    )
    assert (found.ratio, found.rounds, clock.calls) == (3.0, 8, 2 + 8 * 4)


# --- the machine ---


def test_publishable_is_refused_on_a_busy_or_swapping_machine(tmp_path: Path) -> None:
    machine = tree(tmp_path, proc__loadavg="1.50 1 1 1/100 4242",
                   proc__meminfo="MemTotal: 4096000 kB\nSwapTotal: 2048000 kB\nSwapFree: 1024000 kB")  # fmt: skip
    with pytest.raises(Refused, match=r"1000 MB of swap .* the load is 1\.50 on 2 CPUs, at most 1 is allowed"):
        runner.preflight(PRESETS["publishable"], machine)
    assert runner.preflight(PRESETS["quick"], machine) == Before(1.5, 1000.0)


def test_publishable_is_allowed_on_a_quiet_machine(tmp_path: Path) -> None:
    machine = tree(tmp_path, proc__loadavg="0.90 1 1 1/100 4242", proc__meminfo="SwapTotal: 0 kB\nSwapFree: 0 kB")
    assert runner.preflight(PRESETS["publishable"], machine) == Before(0.9, 0.0)


def test_waiting_for_quiet_ends_when_the_load_has_gone(tmp_path: Path) -> None:
    machine = tree(tmp_path, proc__loadavg="1.50 1 1 1/100 1")
    assert not runner.wait_until_quiet(machine, cap_s=3, sleep=lambda _: None)
    assert runner.wait_until_quiet(machine, sleep=lambda _: tree(tmp_path, proc__loadavg="0.2 1 1 1/100 1"))


def test_numbers_of_ones_own_are_not_called_publishable() -> None:
    assert PRESETS["publishable"].known_as == "publishable"
    assert Preset("publishable", iters=1).known_as == "custom"


def test_clocks_temperature_and_governor_come_from_sysfs(tmp_path: Path, clock: FakeClock) -> None:
    cpu = "sys__devices__system__cpu__cpu{}__cpufreq__scaling_{}"
    told = {"cur_freq": "1500000", "min_freq": "1800000", "max_freq": "1800000", "governor": "performance\n"}
    files = {cpu.format(i, name): text for i in (0, 1) for name, text in told.items()}
    machine = tree(tmp_path, **files, sys__class__thermal__thermal_zone0__temp="51500",
                   sys__class__thermal__thermal_zone1__temp="48000")  # fmt: skip
    found = runner.time_calls(clock.call(itertools.repeat(1.0)), SHORT, QUIET, machine=machine, clock=clock)
    assert found.state["cpu_mhz"] == {"min": 1500.0, "mean": 1500.0, "max": 1500.0}
    assert found.state["temp_c"]["max"] == 51.5
    assert found.state["clocks_locked"] is True and "governor=performance" in found.flags


def test_what_a_machine_does_not_tell_is_none(tmp_path: Path, clock: FakeClock) -> None:
    state = runner.time_calls(clock.call(itertools.repeat(1.0)), SHORT, Before(None, None), machine=tree(tmp_path),
                              clock=clock).state  # fmt: skip
    assert set(state.values()) == {None}


def test_a_throttle_counter_that_rises_while_measuring_is_throttling(tmp_path: Path, clock: FakeClock) -> None:
    machine = tree(tmp_path, sys__devices__system__cpu__cpu0__thermal_throttle__core_throttle_count="7")
    counter = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    steady = clock.call(itertools.repeat(1.0))
    assert runner.time_calls(steady, SHORT, QUIET, machine=machine, clock=clock).state["throttled"] is False

    def hot() -> None:
        steady()
        counter.write_text("8")

    assert runner.time_calls(hot, SHORT, QUIET, machine=machine, clock=clock).state["throttled"] is True


@pytest.mark.parametrize(
    ("model", "family"),
    [("NVIDIA Jetson Orin Nano Developer Kit\0", "jetson"), ("Raspberry Pi 5 Model B Rev 1.0\0", "rpi")],
)
def test_a_board_is_known_by_its_device_tree(tmp_path: Path, model: str, family: str) -> None:
    facts = tree(tmp_path, **{"proc__device-tree__model": model, "proc__meminfo": "MemTotal: 8000000 kB"}).device()
    assert (facts["family"], facts["name"], facts["memory_mb"]) == (family, model.strip("\0"), 7812)


# --- one file that stands alone ---


def test_the_runner_imports_the_standard_library_alone_and_runtimes_only_where_they_are_used() -> None:
    source = ast.parse(Path(runner.__file__).read_text())

    def imported(nodes: Iterable[ast.AST]) -> set[str]:
        names = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        return {name.split(".")[0] for name in names}

    assert imported(source.body) <= sys.stdlib_module_names
    assert imported(list(ast.walk(source))) - sys.stdlib_module_names == {"numpy", "onnxruntime", "torch"}


def test_the_runner_reads_as_python_3_10() -> None:
    ast.parse(Path(runner.__file__).read_text(), feature_version=(3, 10))


def test_the_runner_works_away_from_the_lab(tmp_path: Path) -> None:
    (tmp_path / "runner.py").write_text(Path(runner.__file__).read_text())
    script = (
        "import runner; p = runner.Preset(iters=5, seconds=0, warmup_iters=1, warmup_s=0, warmup_cap_s=0.1);"
        "t = runner.time_calls(lambda: sum(range(1000)), p, runner.preflight(p)); print(t.timing['iters'])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "5", done.stderr


def test_the_one_file_has_every_definition_of_the_modules_as_it_stands_there() -> None:
    assert {path.stem for path in bundle.FOLDER.glob("*.py")} == {"__init__", *bundle.MODULES}
    there = {ast.dump(node) for node in ast.parse(Path(runner.__file__).read_text()).body}
    for name in bundle.MODULES:
        _title, *body = ast.parse((bundle.FOLDER / f"{name}.py").read_text()).body
        mine = [node for node in body if not isinstance(node, (ast.Import, ast.ImportFrom))]
        assert mine and not [node.lineno for node in mine if ast.dump(node) not in there], f"{name}.py"


def test_reports_of_this_machine_and_of_boards_name_the_same_file() -> None:
    assert bundle.sha256() == runner.own_sha256() == hashlib.sha256(bundle.bundled()).hexdigest()


HEAD = "from __future__ import annotations\nfrom time import sleep\n"


@pytest.mark.parametrize(("second", "why"), [
    ("a = 2", "b.py can't be bundled: a.py gives the name a to something else"),
    ("def sleep(): ...", "b.py can't be bundled: another module imports the name sleep"),
    ("import statistics as s", "b.py can't be bundled: in one file `import statistics as s` has no meaning"),
    ("from lab.devices.runner import a", "b.py can't be bundled: in one file `from lab.devices.runner import a` has"),
])  # fmt: skip
def test_modules_that_one_file_can_not_hold_are_refused(second: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        bundle.bundle({"__init__": '"""Both."""', "a": f'"""A."""\n{HEAD}a = 1', "b": f'"""B."""\n{HEAD}{second}'})


def test_a_file_of_two_modules_has_each_import_once_and_none_of_its_own() -> None:
    second = f'"""B."""\n{HEAD}import sys\nfrom lab.devices.runner.a import a\n\nb = a + 1'
    made = bundle.bundle({"__init__": '"""Both."""', "a": f'"""A."""\n{HEAD}\na = 1', "b": second}).decode()
    assert [line for line in made.splitlines() if "import" in line and line[0] != "#"] == [
        "from __future__ import annotations", "import sys", "from time import sleep"]  # fmt: skip
    assert made.startswith('"""Both.') and "# A.\n\na = 1\n\n\n# B.\n\nb = a + 1\n" in made
