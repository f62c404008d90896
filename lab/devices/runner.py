"""Times a network on the machine it runs on. One file, Python >= 3.10, the standard library alone.

The protocol: look at the machine first (`preflight`), warm up until two windows of 20 calls agree,
time every single call on a monotonic clock, leave no outlier out, and say how sure the median is
(`time_calls`). What runs on a CUDA device is timed by the device's own clock, with the host's beside
it. Two contenders are timed in turns, A B B A, with a rest before each change, so that both meet the
same disturbances and neither is the other's (`compare`). Where the machine tells its clocks,
temperature, power, memory, swap, throttling and load, they are kept beside the figures; what it does
not tell is None, never a guess.

In an unpacked pack (`python -m lab pack`) this file is a command: it verifies the pack's checksums, runs
the network by onnxruntime, torch or trtexec, whichever is there, holds its images against the
pack's, and writes one device report: `python3 runner.py --preset quick`, or `--help`.

Times are integer nanoseconds inside and milliseconds in the result.
"""

from __future__ import annotations

import argparse
import functools
import gc
import hashlib
import importlib
import importlib.util
import itertools
import json
import math
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

# Before 3.8 this line is the one that Python shows as wrong, so it says itself what would be right.
if (python := sys.version_info) < (3, 10):  # runner.py needs Python 3.10 or newer: apt-get install python3.10
    sys.exit(f"runner.py needs Python 3.10 or newer, this is {python[0]}.{python[1]}; try: python3.10 runner.py")

NAME, VERSION = "edge-dit-lab", "1.8"
MAX_SAMPLES = 4096  # raw times kept in a report; more are thinned evenly
MAX_LOAD_PER_CPU = 0.5
WINDOW, AGREE = 20, 0.02  # warm when the medians of two windows of calls differ by at most 2 %
SAMPLE_S = 0.2  # of the side channel
COOL_C, COOL_CAP_S, PAUSE_S = 3.0, 300.0, 10.0  # between the sessions of one measurement
RESAMPLES = 1000
BLOCKS = 32  # of consecutive calls, the unit that the bootstrap of the median draws
TURN_S = 0.05  # how long one contender runs before the other has its turn
# Between the two: onnxruntime's threads spin for up to 40 ms after their last work, torch's for 5 to 11 ms, on the
# cores that the next one needs. Its clocks and caches have cooled then, and its own threads sleep.
SETTLE_S, WAKE_S = 0.06, 0.01
LOOK_S, BUSIEST, LONGEST_NAME = 0.2, 5, 63  # how long processes are watched, how many are named; no name is longer
AMBIENT_C = (-40.0, 85.0)  # what a room, a car or a mast can have
CPUS_READ = 8  # reading the clock of each of 128 cores five times a second would itself be load
BELOW_MAX, SELDOM = 0.97, 0.01  # a fixed clock that is below 97 % of its own in more than 1 % of the looks throttles
# What together is a whole Jetson module, by the names that boards give it; see `module_rails`.
RAILS = (("VDD_IN",), ("POM_5V_IN",), ("VIN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
         ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"))  # fmt: skip
DUMMY = re.compile("PMIC", re.IGNORECASE)  # thermal zones that are no thermometer: 100 C on a Nano, TX2 and Xavier
LIVE_BITS, PAST_BITS = 0xF, 0xF0000  # of a Raspberry Pi's word: what holds it back now, and what has since boot
CGROUPS = ("sys/fs/cgroup", "sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")  # of version 2, and of version 1
COMMAND_FOLDERS = ("usr/bin", "usr/sbin", "usr/src/tensorrt/bin")  # trtexec of a JetPack stands in the last

Clock = Callable[[], int]  # nanoseconds
Once = Callable[[Callable[[], object], Clock], int]  # makes one call and gives its time in ns
T = TypeVar("T")


class Refused(RuntimeError):
    """The machine is in no state for a publishable figure; the message says why."""


class TooLarge(Refused):
    """A batch needs more memory than is free: the machine would swap, or the runtime end."""


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
        here = os.environ.get("PATH", "").split(os.pathsep) if self.root == Path("/") else []
        self._commands = os.pathsep.join([*here, *(str(self.root / folder) for folder in COMMAND_FOLDERS)])

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

    def find(self, pattern: str) -> list[str]:
        """The paths below the root that fit, in order."""
        return sorted(str(p.relative_to(self.root)) for p in self.root.glob(pattern))

    def command(self, name: str) -> str | None:
        """Where a command is, None if it is not here."""
        return shutil.which(name, path=self._commands)

    def told(self, name: str, *args: str) -> str:
        """What a command prints, "" where there is none or it fails."""
        if not (path := self.command(name)):
            return ""
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run([path, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors="replace", timeout=10)  # fmt: skip
            return done.stdout if done.returncode == 0 else ""
        return ""

    # --- who it is ---

    def device(self) -> dict[str, Any]:
        """The `device` part of a report."""
        chips = [part for part in self.text("proc/device-tree/compatible").split("\0") if part]
        return {
            "family": self.family, "name": self._board or self._unnamed(), "soc": chips[-1] if chips else None,
            "gpu": None, "memory_mb": self.memory_mb(), "cooling": self._fan(),
        } | ({"unified_memory": True} if self.family in BOARDS else {})  # fmt: skip

    @functools.cached_property
    def _board(self) -> str:
        """What the board calls itself. Docker hides the device tree; newer kernels tell its model elsewhere, too."""
        if model := self.text("proc/device-tree/model"):
            return model
        return self.text("sys/devices/soc0/machine") if self._tegra else ""

    @functools.cached_property
    def _tegra(self) -> bool:
        """Whether kernel or system are NVIDIA's for its boards, which is told in a container without a device tree."""
        return "tegra" in self.text("proc/sys/kernel/osrelease") or bool(self.text("etc/nv_tegra_release"))

    def _unnamed(self) -> str:
        """A name where no board tells one. A Jetson's processor and GPU are called as those of other boards are."""
        return "NVIDIA Jetson (board unknown)" if self.family == "jetson" else self._cpu_name()

    @functools.cached_property
    def family(self) -> str:
        board = self._board
        if re.search("jetson|nvidia", board, re.I) or self._tegra:
            return "jetson"
        if "raspberry pi" in board.lower():
            return "rpi"
        if platform.system() == "Darwin":
            return "mac"
        return "x86_cpu" if platform.machine().lower() in ("x86_64", "amd64") else "other"

    def _cpu_name(self) -> str:
        """What the processor calls itself. Many hosts of virtual machines call all they have by one name without a
        number ("AMD EPYC"); its family and model then tell apart processors of other instructions and speed."""
        told = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.*\S)", self.text("proc/cpuinfo"), re.M))
        name = told.get("model name") or platform.processor() or platform.machine() or "unknown"
        # An ARM has no name, or that of the whole architecture; who made it and which of its parts it is say which.
        parts = re.findall(r"^(CPU implementer|CPU part|uarch|cpu)\s*:\s*(.*\S)", self.text("proc/cpuinfo"), re.M)
        if parts:
            name += f" ({', '.join(dict.fromkeys(f'{what.lower()} {which}' for what, which in parts))})"
        elif not re.search(r"\d", name) and {"cpu family", "model"} <= told.keys():
            name += f" (family {told['cpu family']}, model {told['model']})"
        return f"{name}, {self.cpus} CPUs"

    def _fan(self) -> str | None:
        """A fan's setting; None if no fan tells one, which is not to say that there is none."""
        fans = [self.text(path) for path in self.find("sys/class/hwmon/hwmon*/pwm[0-9]")]
        return f"fan, pwm {fans[0]} of 255" if fans and fans[0] else None

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

    def versions(self) -> dict[str, str | None]:
        """l4t, jetpack, cuda, cudnn and tensorrt of a report's `software` part, as files and dpkg tell them."""
        l4t = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", self.text("etc/nv_tegra_release"))
        cuda = re.search(r'"cuda"\s*:\s*{[^}]*"version"\s*:\s*"([\d.]+)"', self.text("usr/local/cuda/version.json"))
        jetpack = self.told("dpkg-query", "-W", "-f=${Version}", "nvidia-jetpack") if l4t else ""
        return {"l4t": f"{l4t[1]}.{l4t[2]}" if l4t else None, "jetpack": jetpack.strip() or None,
                "cuda": cuda[1] if cuda else None, "cudnn": self._package("libcudnn"),
                "tensorrt": self._package("libnvinfer")}  # fmt: skip

    def _package(self, name: str) -> str | None:
        """The version of an installed library whose packages bear its own version, as libcudnn9-cuda-12 does."""
        said = self.told("dpkg-query", "-W", "-f=${Package} ${Version}\n", f"{name}[0-9]*")
        found = re.search("^" + name + r"\d\S* (?:\d+:)?(\d+(?:\.\d+){1,2})", said, re.M)
        return found[1] if found else None

    # --- the state it is in ---

    def power_mode(self) -> str | None:
        """The mode by name, never by number: ids differ between firmwares. Elsewhere the CPUs' governor."""
        if self.family != "jetson":
            return f"governor {'+'.join(names)}" if (names := self.governors()) else None
        if said := re.search(r"NV Power Mode:\s*(\S+)", self.told("nvpmodel", "-q")):
            return said[1]
        # Without the right to ask, what nvpmodel wrote down itself.
        number = re.search(r"pmode:0*(\d+)", self.text("var/lib/nvpmodel/status"))
        modes = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", self.text("etc/nvpmodel.conf"))
        return dict(modes).get(number[1]) if number else None

    def load(self) -> float | None:
        """The load average of the last minute: processes that run or wait."""
        with suppress(ValueError, IndexError):
            return float(self.text("proc/loadavg").split()[0])
        with suppress(OSError, AttributeError):
            return os.getloadavg()[0] if self.root == Path("/") else None
        return None

    def busiest(self, sleep: Callable[[float], None] = time.sleep) -> list[str] | None:
        """The processes that use most CPU just now, at most five and ours not among them; None where it is not told.

        Their names alone: a command line may hold what is nobody's business.
        """
        before = self._cpu_ticks()
        if not before:
            return None
        sleep(LOOK_S)
        used: Counter[str] = Counter()
        for pid, (name, ticks) in self._cpu_ticks().items():
            if pid in before and pid != os.getpid() and ticks > before[pid][1]:
                used[name] += ticks - before[pid][1]
        return [name for name, _ in used.most_common(BUSIEST)]

    def _cpu_ticks(self) -> dict[int, tuple[str, int]]:
        """Name and CPU time of every process. A process names itself, in whatever characters it likes."""
        found = {}
        for path in self.root.glob("proc/[0-9]*/stat"):
            start, _, end = self.text(str(path.relative_to(self.root))).rpartition(")")
            pid, _, name = start.partition(" (")
            with suppress(ValueError, IndexError):  # it has ended meanwhile
                user, system = end.split()[11:13]
                found[int(pid)] = (_plain(name)[:LONGEST_NAME].strip() or "unnamed", int(user) + int(system))
        return found

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
        """Whether the lowest and the highest clock allowed are the same, of CPUs and GPU; None where it is not told."""
        low = self.numbers("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_min_freq")
        high = self.numbers("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_max_freq")
        if not low or len(low) != len(high):
            return None
        gpu = [self.number(f"{self._gpu}/{end}_freq") for end in ("min", "max")] if self._gpu else [0, 0]
        return low == high and gpu[0] == gpu[1]

    @functools.cached_property
    def _gpu(self) -> str | None:
        """The folder of the GPU's clock."""
        names = [p for p in self.find("sys/class/devfreq/*") if re.search(r"gpu|ga10b|gv11b|gp10b|gm20b", p)]
        return names[0] if names else None

    def gpu_mhz(self) -> float | None:
        hz = self.number(f"{self._gpu}/cur_freq") if self._gpu else None
        return None if hz is None else hz / 1e6

    def highest_mhz(self) -> dict[str, float]:
        """The highest clock that the mode allows, of gpu_mhz and cpu_mhz, where it is told."""
        khz = self.numbers("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_max_freq", most=CPUS_READ)
        hz = self.number(f"{self._gpu}/max_freq") if self._gpu else None
        return ({"gpu_mhz": hz / 1e6} if hz else {}) | ({"cpu_mhz": statistics.fmean(khz) / 1000} if khz else {})

    def emc_mhz(self) -> float | None:
        """The clock of the memory; only root may read it there."""
        hz = self.number("sys/kernel/debug/bpmp/debug/clk/emc/rate") if self.family == "jetson" else None
        return None if hz is None else hz / 1e6

    @functools.cached_property
    def _rails(self) -> dict[str, tuple[str, str]]:
        """Rail -> (path of its millivolts, path of its milliamperes), of those that make up the whole module."""
        told: dict[str, tuple[str, str]] = {}
        for path in self.find("sys/class/hwmon/hwmon*/in[0-9]*_label"):
            volts = path.replace("_label", "_input")
            told.setdefault(self.text(path), (volts, re.sub(r"/in(\d+)_input$", r"/curr\1_input", volts)))
        return {name: told[name] for name in module_rails(told)}

    def power_rail(self) -> str | None:
        """The rail whose power `power_w` is, A+B where it is a sum."""
        return "+".join(self._rails) or None

    def power_w(self) -> float | None:
        """What the whole module draws; None unless all of its rails tell."""
        told = [(self.number(volts), self.number(amperes)) for volts, amperes in self._rails.values()]
        if not told or any(None in pair for pair in told):
            return None
        return sum(volts * amperes for volts, amperes in told) / 1e6

    def free_mb(self) -> float | None:
        """Memory that a program could still have."""
        kb = self._meminfo("MemAvailable")
        return None if kb is None else kb / 1024

    def cpu_mhz(self) -> float | None:
        """The mean clock of the first CPUs just now."""
        khz = self.numbers("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq", most=CPUS_READ)
        mhz = [k / 1000 for k in khz] or [float(m) for m in re.findall(
            r"^cpu MHz\s*:\s*([\d.]+)", self.text("proc/cpuinfo"), re.M)]  # fmt: skip
        return statistics.fmean(mhz) if mhz else None

    def temp_c(self) -> float | None:
        """The hottest thermal zone that is a thermometer."""
        zones = [z for z in self.find("sys/class/thermal/thermal_zone*") if not DUMMY.search(self.text(f"{z}/type"))]
        return max((t / 1000 for z in zones if (t := self.number(f"{z}/temp") or 0) > 0), default=None)

    def throttles(self) -> float | None:
        """How often the machine was slowed for heat or want of power since boot; None where it is not counted."""
        counts = self.numbers("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")
        counts += self.numbers("sys/class/hwmon/hwmon*/oc[0-9]*_event_cnt")  # a Jetson's over-current events
        if self.quota() is not None:  # a container's share of the CPUs, which it waits for once it is used up
            told = re.findall(r"^nr_throttled (\d+)", "\n".join(self.text(f"{g}/cpu.stat") for g in self._groups), re.M)
            counts += map(float, told)
        return sum(counts) if counts else None

    @functools.cached_property
    def _groups(self) -> list[str]:
        """Folders of the control groups whose CPU this process shares, of version 2 and 1, the innermost first."""
        found = []
        for line in [*self.text("proc/self/cgroup").split("\n"), "0::/", "1:cpu:/"]:
            _, kinds, path = [*line.split(":", 2), "", ""][:3]
            if kinds and "cpu" not in kinds.split(","):
                continue
            inner = Path(path.strip("/"))
            for group in (inner, *inner.parents):  # in a container its own is the root, whatever it is called outside
                found += [str(Path(base) / group) for base in (CGROUPS[1:] if kinds else CGROUPS[:1])]
        return [group for group in dict.fromkeys(found) if (self.root / group).is_dir()]

    def quota(self) -> float | None:
        """How many CPUs the process may use at a time, of its control groups; None where they set no limit."""
        told = []
        for group in self._groups:
            limit = self.text(f"{group}/cpu.max").split() or [self.text(f"{group}/cpu.cfs_{end}_us")
                                                              for end in ("quota", "period")]  # fmt: skip
            with suppress(ValueError, ZeroDivisionError):  # "max", or no file
                told.append(float(limit[0]) / float(limit[1]))
        return min((share for share in told if share > 0), default=None)  # -1 is none in version 1

    def threads(self) -> int:
        """How many threads have a CPU each: those that this process may run on, of which a quota pays for a part."""
        here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else self.cpus
        return max(1, min(here, int(self.quota() or here)))

    @functools.cached_property
    def _throttle_file(self) -> str | None:
        """soc/soc:firmware up to a Raspberry Pi 4, soc@107c000000/soc@107c000000:firmware on a 5."""
        return next(iter(self.find("sys/devices/platform/soc*/soc*:firmware/get_throttled")), None)

    def throttle_word(self) -> int | None:
        """What a Raspberry Pi's firmware says of throttling (LIVE_BITS, PAST_BITS) as sysfs has it."""
        return _hex(self.text(self._throttle_file)) if self._throttle_file else None

    def asked_throttle_word(self) -> int | None:
        """The same, by vcgencmd where sysfs has it not: a process of its own, so not five times a second."""
        word = self.throttle_word()
        if word is None and self.family == "rpi":
            word = _hex(self.told("vcgencmd", "get_throttled").strip().removeprefix("throttled="))
        return word

    def busy_s(self) -> float | None:
        """CPU seconds that all processes together have used since boot."""
        fields = self.text("proc/stat").split("\n")[0].split()[1:9]
        if len(fields) < 8:
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _hex(text: str) -> int | None:
    with suppress(ValueError):
        return int(text, 16)
    return None


BOARDS = ("jetson", "rpi")
HERE = Machine()


@dataclass(frozen=True)
class Before:
    """The machine before any work of ours: afterwards the load would be our own."""

    load: float | None
    swap_mb: float | None
    free_mb: float | None = None
    busiest: list[str] | None = None  # processes; `look` asks, which takes a moment


def preflight(preset: Preset, machine: Machine = HERE) -> Before:
    """Load and swap now. Raises Refused if the preset is publishable and the machine is not quiet."""
    before = Before(machine.load(), machine.swap_mb(), machine.free_mb())
    if preset.name == "publishable" and (why := not_quiet(before, machine.cpus)):
        busiest = f". Busiest: {', '.join(names)}" if (names := machine.busiest()) else ""
        raise Refused(f"no publishable timing now: {'; '.join(why)}{busiest}. Wait, or take the quick preset")
    return before


def look(preset: Preset, machine: Machine = HERE) -> Before:
    """`preflight` that also says which processes are busy."""
    return replace(preflight(preset, machine), busiest=machine.busiest())


def not_quiet(before: Before, cpus: int) -> list[str]:
    """What stands against a publishable figure, as clauses."""
    why = []
    if before.swap_mb:
        why.append(f"{before.swap_mb:g} MB of swap are in use, which must be 0")
    if before.load is not None and before.load > MAX_LOAD_PER_CPU * cpus:
        why.append(f"the load is {before.load:.2f} on {cpus} CPUs, at most {MAX_LOAD_PER_CPU * cpus:g} is allowed")
    return why


def module_rails(told: Collection[str]) -> tuple[str, ...]:
    """The rails whose power together is what a whole Jetson module draws, of those that are told; () if they are not.

    Most modules have one such rail. An AGX Orin has none: its VIN_SYS_5V0 feeds memory, inputs and outputs alone
    (jetson_stats issue 344). There the sum counts, as in jetson_stats: of the GPU's, the CPUs' and that rail. Its
    fourth channel, VDDQ_VDD2_1V8AO, lies behind the same 5 V; jetson_stats adds it, tegrastats of JetPack 6 does not
    even list it, and here it would count twice.
    """
    return next((rails for rails in RAILS if set(rails) <= set(told)), ())


def _watts(line: str) -> dict[str, float]:
    """The power of every rail in a line of tegrastats, now/mean; JetPack 4 leaves the unit out."""
    return {name: float(mw) / 1000 for name, mw in re.findall(r"\b([A-Z]\w+) (\d+)(?:mW|/\d+(?=\s|$))", line)}


def tegrastats(line: str) -> dict[str, float]:
    """What one line of tegrastats tells, under the names of SideChannel."""
    cpus = re.search(r"\bCPU \[([^]]*)\]", line)
    mhz = [float(m) for m in re.findall(r"@(\d+)", cpus[1])] if cpus else []
    degrees = [float(c) for name, c in re.findall(r"(\w+)@(-?[\d.]+)C\b", line) if not DUMMY.search(name)]
    watts = _watts(line)
    found = {
        "cpu_mhz": statistics.fmean(mhz) if mhz else None,
        "gpu_mhz": _first(r"GR3D_FREQ (?:\d+%)?@\[?(\d+)", line),
        "emc_mhz": _first(r"EMC_FREQ \d+%@(\d+)", line),
        "temp_c": max((c for c in degrees if c > 0), default=None),
        "power_w": sum(watts[name] for name in module_rails(watts)),
    }
    return {name: value for name, value in found.items() if value}  # 0 is what may not be read, or is not told


def _first(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text)
    return float(found[1]) if found else None


class SideChannel:
    """Clocks, temperature, power and memory, sampled by a thread while it is entered and not paused."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        names = ("cpu_mhz", "gpu_mhz", "emc_mhz", "temp_c", "power_w", "free_mb", "throttle_word")
        self.seen: dict[str, list[float]] = {name: [] for name in names}
        self._when: dict[str, list[float]] = {name: [] for name in names}  # monotonic seconds of each of them
        self._lock = threading.Lock()
        self.rail = machine.power_rail()
        self.paused = False
        self._ended = threading.Event()
        self._told: dict[str, float] = {}  # by tegrastats, which knows what only root may read elsewhere
        self._tegrastats: subprocess.Popen | None = None

    def __enter__(self) -> SideChannel:
        self._listen()
        self._sample()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()
        if self._tegrastats:
            self._tegrastats.terminate()
            try:
                self._tegrastats.wait(5)
            except subprocess.TimeoutExpired:
                self._tegrastats.kill()
                self._tegrastats.wait()
            self._listener.join(2.0)
            self._tegrastats.stdout.close()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        if self.paused:
            return
        for name, values in self.seen.items():
            value = getattr(self.machine, name)()
            if (value := self._told.get(name) if value is None else value) is not None:
                with self._lock:
                    values.append(float(value))
                    self._when[name].append(time.monotonic())

    def only_last(self, seconds: float, since: float) -> None:
        """Forget what was seen after `since` but for its last seconds: a process loads and warms up before them."""
        start = time.monotonic() - seconds
        with self._lock:
            for name, values in self.seen.items():
                kept = [(at, v) for at, v in zip(self._when[name], values) if not since <= at < start]
                self._when[name][:], values[:] = [at for at, _ in kept], [v for _, v in kept]

    def _listen(self) -> None:
        """Start tegrastats where it is, and keep the last of what it tells."""
        path = self.machine.command("tegrastats") if self.machine.family == "jetson" else None
        if not path:
            return
        self._tegrastats = subprocess.Popen(
            [path, "--interval", str(round(SAMPLE_S * 1000))], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, errors="replace",
        )  # fmt: skip
        first = threading.Event()
        self._listener = threading.Thread(target=self._hear, args=(first,), daemon=True)
        self._listener.start()
        first.wait(2.0)  # so that the first look already has it

    def _hear(self, first: threading.Event) -> None:
        for line in self._tegrastats.stdout:
            self._told = tegrastats(line)
            self.rail = self.rail or "+".join(module_rails(_watts(line))) or None
            first.set()
        first.set()

    def summary(self, name: str) -> dict[str, float] | None:
        """min, mean, max; None if the machine does not tell."""
        values, digits = self.seen[name], 3 if name == "power_w" else 1  # less the idle power, little of it is left
        if not values:
            return None
        found = {"min": min(values), "mean": statistics.fmean(values), "max": max(values)}
        return {end: round(value, digits) for end, value in found.items()}

    def below(self, highest: dict[str, float]) -> bool | None:
        """Whether one of these clocks was below its highest more than seldom; None if none is told."""
        shares = [statistics.fmean(v < BELOW_MAX * mhz for v in self.seen[name])
                  for name, mhz in highest.items() if self.seen[name]]  # fmt: skip
        return max(shares) > SELDOM if shares else None


class Watch:
    """What the machine does around a measurement: enter it, measure, then ask for `state`."""

    def __init__(self, machine: Machine, before: Before) -> None:
        self.machine, self.before = machine, before
        self.side = SideChannel(machine)
        self.cool, self._throttles = machine.temp_c(), machine.throttles()  # before the warm-up, which heats
        self._word, self._last_words = machine.asked_throttle_word(), []

    def __enter__(self) -> Watch:
        self._busy, self._own, self._began = self.machine.busy_s(), _own_cpu_s(), time.monotonic()
        self.side.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.side.__exit__()
        self._wall = time.monotonic() - self._began
        self._others = None if self._busy is None else (self.machine.busy_s() or self._busy) - self._busy - (
            _own_cpu_s() - self._own)  # fmt: skip

    def cool_down(self, sleep: Callable[[float], None]) -> None:
        self.side.paused = True
        cool_down(self.machine, self.cool, sleep)
        self.side.paused = False

    def session_over(self) -> None:
        """Ask a Raspberry Pi while it is still hot: where sysfs does not tell, nobody looked while it worked."""
        if (word := self.machine.asked_throttle_word()) is not None:
            self._last_words.append(word)

    def throttled(self) -> bool | None:
        """Whether it was slowed down meanwhile; None if the machine has no means to tell.

        A clock that is not fixed falls when there is little to do, too, so that says nothing. Nor does a Raspberry
        Pi's: scaling_cur_freq stays where it was asked to be while the firmware runs slower (raspberrypi/linux#2986).
        """
        counted = None if self._throttles is None else (self.machine.throttles() or 0) > self._throttles
        fixed = self.machine.family == "jetson" and self.machine.clocks_locked() is True
        slow = self.side.below(self.machine.highest_mhz()) if fixed else None
        known = [sign for sign in (counted, slow, self._held_back()) if sign is not None]
        return any(known) if known else None

    def _held_back(self) -> bool | None:
        """Whether a Raspberry Pi's words show that it was throttled meanwhile; None where they leave it open.

        A bit of the past that was set before can't be set again, so only looks all along say no then; one at the end
        of a session can but say yes.
        """
        seen = [int(word) for word in self.side.seen["throttle_word"]]
        before = PAST_BITS if self._word is None else self._word
        words = [*seen, *self._last_words]
        # Each beside the one before it: some kernels clear the past when it is read (raspberrypi/linux#2397).
        if any(word & LIVE_BITS or word & ~last & PAST_BITS for last, word in zip([before, *words], words)):
            return True
        return False if seen or (words and not before & PAST_BITS) else None

    def state(self) -> dict[str, Any]:
        """The `state` part of a report."""
        machine = self.machine
        mode = machine.power_mode()
        cap = re.search(r"(\d+)W(?![0-9A-Za-z])", mode or "")
        return {
            "power_mode": mode, "power_cap_w": float(cap[1]) if cap else None, "clocks_locked": machine.clocks_locked(),
            **{name: self.side.summary(name) for name in ("cpu_mhz", "gpu_mhz", "emc_mhz", "temp_c", "power_w")},
            "power_rail": self.side.rail, "swap_mb": _larger(self.before.swap_mb, machine.swap_mb()),
            "load_avg": self.before.load, "top_processes": self.before.busiest, "throttled": self.throttled(),
        }  # fmt: skip

    def flags(self) -> list[str]:
        found = [f"governor={g}" for g in self.machine.governors()]
        if self._others is not None and self._wall > SAMPLE_S:  # the kernel counts in hundredths of a second
            found.append(f"cpus_used_by_others={max(self._others / self._wall, 0):.2f}")
        return found

    def system_mb(self) -> float | None:
        """By how much the machine's free memory fell since before any work of ours."""
        if self.before.free_mb is None or not self.side.seen["free_mb"]:
            return None
        return round(max(self.before.free_mb - min(self.side.seen["free_mb"]), 0.0), 1)


def _own_cpu_s() -> float:
    """CPU seconds of this process and of those that it started and saw end."""
    return sum(os.times()[:4])


# --- measuring ----------------------------------------------------------------------------------


@dataclass
class Timed:
    """What `time_calls` found: the parts `timing` and `state` of a report, and remarks for its flags."""

    timing: dict[str, Any]
    state: dict[str, Any]
    flags: list[str] = field(default_factory=list)
    system_mb: float | None = None  # by how much the machine's free memory fell


class CudaEvents:
    """Times calls by the GPU's own clock, with two events around their work, and by the host's beside it.

    Such a call only starts work: what is timed ends when the GPU has done it. An event tells time to half a
    microsecond.
    """

    def __init__(self, torch: Any, device: Any) -> None:
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._stream = torch.cuda.current_stream(device)
        self.wall = array("q")  # the host's time of every call, in ns

    def once(self, call: Callable[[], object], clock: Clock) -> int:
        """The GPU's time of a call, in ns; it stands in the place of `_once`."""
        start = clock()
        self._start.record(self._stream)
        call()
        self._end.record(self._stream)
        self._end.synchronize()
        self.wall.append(max(clock() - start, 1))
        return max(round(self._start.elapsed_time(self._end) * 1e6), 1)


def time_calls(call: Callable[[], object], preset: Preset, before: Before, *, events: CudaEvents | None = None,
               machine: Machine = HERE, clock: Clock = time.perf_counter_ns,
               sleep: Callable[[float], None] = time.sleep) -> Timed:  # fmt: skip
    """Warm up and time a callable that returns only when its work is done.

    With `events` it only starts work on their GPU: the figures are then the GPU's, and `wall` has the host's.
    """
    watch, once = Watch(machine, before), events.once if events else _once
    warmup_iters, converged = warm_up(call, preset, clock, once)
    sessions: list[Sequence[int]] = []
    with watch:
        for session in range(preset.sessions):
            if session:
                watch.cool_down(sleep)
            sessions.append(sample(call, preset, clock, once))
            watch.session_over()
    timing = {"unit": "ms", "clock": "wall_sync", "warmup_iters": warmup_iters, "warmup_converged": converged}
    timing |= summary(sessions)
    if events:
        wall = events.wall[-timing["iters"] :]
        timing |= {"clock": "cuda_event", "duration_s": round(sum(wall) / 1e9, 3), "wall": spread(wall)}
    return Timed(timing, watch.state(), watch.flags(), watch.system_mb())


def _larger(a: float | None, b: float | None) -> float | None:
    return max((x for x in (a, b) if x is not None), default=None)


def _once(call: Callable[[], object], clock: Clock) -> int:
    start = clock()
    call()
    return max(clock() - start, 1)


def warm_up(call: Callable[[], object], preset: Preset, clock: Clock = time.perf_counter_ns, once: Once = _once
            ) -> tuple[int, bool]:  # fmt: skip
    """(calls made, whether the last two windows agreed before the cap)."""
    times: list[int] = []
    start = clock()
    while True:
        times.append(once(call, clock))
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


def sample(call: Callable[[], object], preset: Preset, clock: Clock = time.perf_counter_ns, once: Once = _once
           ) -> array:  # fmt: skip
    """The time of every call of one session, in ns; the garbage collector waits, as in timeit."""
    times, limit = array("q"), int(preset.seconds * 1e9)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = clock()
        while len(times) < preset.iters or clock() - start < limit:
            times.append(once(call, clock))
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
    times = list(itertools.chain(*sessions))
    found, (low, high) = spread(times), map(_ms, median_ci(sessions))
    kept = [thin(s, MAX_SAMPLES // len(sessions)) for s in sessions]
    return {
        "iters": len(times), "duration_s": round(sum(times) / 1e9, 3), "sessions": len(sessions), **found,
        "p50_ci95": [min(low, found["p50"]), max(high, found["p50"])], "cv": round(found["std"] / found["mean"], 5),
        "drift": round(drift(sessions), 5), "samples_ns": [int(t) for t in itertools.chain(*kept)],
    }  # fmt: skip


def spread(times: Sequence[int]) -> dict[str, float]:
    """Median and percentiles, mean, standard deviation and interquartile range of times in ns; in ms."""
    times = sorted(times)
    mean = statistics.fmean(times)
    return {
        "p50": _ms(statistics.median(times)), "p90": _ms(percentile(times, 0.9)), "p99": _ms(percentile(times, 0.99)),
        "min": _ms(times[0]), "mean": _ms(mean),
        "std": _ms(math.sqrt(statistics.fmean((t - mean) ** 2 for t in times))),
        "iqr": _ms(percentile(times, 0.75) - percentile(times, 0.25)),
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
            clock: Clock = time.perf_counter_ns, sleep: Callable[[float], None] = time.sleep
            ) -> Comparison:  # fmt: skip
    """Time two callables in turns; `around` is entered for the turn of each (a thread count, say).

    Before the other has its turn nothing runs for SETTLE_S, and the first WAKE_S of each turn are not timed, unless a
    single call lasts longer than a turn.
    """
    contenders = [(a, around[0]), (b, around[1])]
    for call, context in contenders:
        with context:
            warm_up(call, preset, clock)
    rounds: list[tuple[list[int], list[int]]] = []
    ran, start = 1, clock()
    # Eight rounds at least: an interval drawn from fewer means little.
    while len(rounds) < 8 or clock() - start < preset.seconds * 1e9 or _fewest(rounds) < preset.iters:
        times: tuple[list[int], list[int]] = ([], [])
        for who in (0, 1, 1, 0):
            if who != ran:
                sleep(SETTLE_S)
            call, context = contenders[(ran := who)]  # bare, it is no syntax before Python 3.10
            with context:
                times[who].extend(_turn(call, preset.iters, clock))
        rounds.append(times)
    few = max(2, MAX_SAMPLES // len(rounds))  # a bootstrap of every single time would take minutes
    low, high = bootstrap([tuple(thin(t, few) for t in r) for r in rounds], _ratio)
    ratio = _ratio(rounds)
    medians = [_ms(statistics.median(itertools.chain(*(r[who] for r in rounds)))) for who in (0, 1)]
    return Comparison(ratio, (min(low, ratio), max(high, ratio)), *medians, len(rounds))


def _turn(call: Callable[[], object], most: int, clock: Clock) -> list[int]:
    """The times of one turn of about TURN_S, which starts when the caches no longer hold what the other one left."""
    start, first = clock(), _once(call, clock)
    if first >= TURN_S * 1e9:
        return [first]
    while clock() - start < WAKE_S * 1e9:
        call()
    start, times = clock(), []
    while not times or (len(times) < most and clock() - start < TURN_S * 1e9):
        times.append(_once(call, clock))
    return times


def _fewest(rounds: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
    """How many times the contender with fewer of them has."""
    return min(sum(len(r[who]) for r in rounds) for who in (0, 1))


def _ratio(rounds: Sequence[tuple[Sequence[int], Sequence[int]]]) -> float:
    a, b = (statistics.median(itertools.chain(*(r[who] for r in rounds))) for who in (0, 1))
    return a / b


# --- does it fit? -------------------------------------------------------------------------------

# Times what the largest operation reads and writes: onnxruntime took 1.4 to 1.6 times that above the opened network,
# torch 2.0 to 3.0 (x86, 256 to 1,024 images of 28 x 28, DiTs of 4 x 64 and 2 x 256).
LIVE = 3.0
TIGHT = 0.8  # of the free memory, from where on a batch is warned of


def check_fit(batch: int, free_mb: float | None, *, base_mb: float, weights_mb: float, activations: int,
              beside: float = 0.0) -> str | None:  # fmt: skip
    """A warning where a batch takes most of the free memory, as a sentence; None where it does not.

    What it needs is estimated as the runtime itself, the weights twice (as read, and as computed with), and for each
    image LIVE times the `activations` that its largest operation reads and writes, numbers of 4 bytes, and some bytes
    `beside` them. Raises TooLarge where that is more than is free.
    """
    if free_mb is None:
        return None
    each_mb = (LIVE * 4 * activations + beside) / 1e6
    fixed_mb = base_mb + 2 * weights_mb
    needs_mb = fixed_mb + batch * each_mb
    if needs_mb > free_mb:
        most = int((free_mb - fixed_mb) / each_mb)
        would = f"a batch of {most} would fit" if most > 0 else "a single image would not fit either"
        raise TooLarge(
            f"batch {batch} does not fit: it needs about {needs_mb:,.0f} MB ({base_mb:,.0f} for the runtime, "
            f"{2 * weights_mb:,.0f} for weights, {batch * each_mb:,.0f} for activations and images), and "
            f"{free_mb:,.0f} MB are free; {would}"
        )
    if needs_mb > TIGHT * free_mb:
        return f"batch {batch} is tight: it needs about {needs_mb:,.0f} of the {free_mb:,.0f} MB that are free"
    return None


# --- energy -------------------------------------------------------------------------------------


def idle_w(machine: Machine, sleep: Callable[[float], None] = time.sleep) -> float | None:
    """The power that the board draws before any work of ours, over two seconds; None if it does not tell."""
    if machine.power_w() is None and not (machine.family == "jetson" and machine.command("tegrastats")):
        return None
    with SideChannel(machine) as side:
        if side.seen["power_w"]:
            sleep(10 * SAMPLE_S)
    power = side.summary("power_w")
    return power and power["mean"]


def energy_of(state: dict[str, Any], timing: dict[str, Any], batch: int, *, period_ms: float | None = None
              ) -> dict[str, Any] | None:  # fmt: skip
    """The `energy` part of a report: millijoules of an image; None where no rail tells the power.

    mj_per_image is gross, the mean power of the rail times the time that a call takes of the wall clock, for the power
    was drawn between the GPU's works, too. That is `period_ms` where it is given: from one call to the next over all
    of them, as with trtexec, which queues calls so that their copies overlap. Else it is the median call, by the wall
    where there are two clocks. mj_per_image_net is the same less the idle power, None where that is not known or not
    below the mean.
    """
    power, rail, idle = state["power_w"], state["power_rail"], state.get("idle_power_w")
    if not power or not rail:
        return None
    ms = ((timing.get("wall") or timing)["p50"] if period_ms is None else period_ms) / batch
    net = None if idle is None or idle >= power["mean"] else round((power["mean"] - idle) * ms, 6)
    return {"mj_per_image": round(power["mean"] * ms, 6), "net_of_idle": False, "mj_per_image_net": net, "rail": rail}


# --- small things a report also wants -----------------------------------------------------------


def process_peak_mb() -> float | None:
    """Peak resident memory of this process in MB; None where it is not told."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return _peak_mb(resource.getrusage(resource.RUSAGE_SELF))


def _peak_mb(used: Any) -> float:
    return round(used.ru_maxrss / 2**20 if platform.system() == "Darwin" else used.ru_maxrss / 1024, 1)


def own_sha256() -> str:
    """Of this file, so that a report says which protocol made it."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


# --- a pack -------------------------------------------------------------------------------------

PACK_FORMAT = "edge-dit-pack.v1"
OK, FAILED, USAGE, MISSING = 0, 1, 2, 3  # exit codes


class Broken(RuntimeError):
    """The pack, or the network in it, is not as it was made; the message says what."""


class Missing(LookupError):
    """What the command needs is not on this machine; the message says what would do."""


class Usage(Exception):
    """What was asked for can't be done by this pack; the message says what can."""


@dataclass(frozen=True)
class Pack:
    """An unpacked pack: a network in several forms, its noises and images, and what it is."""

    folder: Path
    facts: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Pack:
        try:
            facts = json.loads((folder / "manifest.json").read_text())
        except (OSError, ValueError) as error:
            raise Missing(f"no readable manifest.json beside {Path(__file__).name}: {error}. Run it where a pack was "
                          "unpacked; `python -m lab pack` makes one") from None  # fmt: skip
        if facts.get("format") != PACK_FORMAT:
            raise Broken(f"manifest.json is of format {facts.get('format')!r}, this runner reads {PACK_FORMAT!r}")
        return cls(folder, facts)

    def verify(self) -> None:
        """Raises Broken if a file is not the one that was packed."""
        for name, packed in self.facts["files"].items():
            path = self.folder / name
            if not path.is_file():
                raise Broken(f"{name} of the pack is missing; unpack it again")
            if hashlib.sha256(path.read_bytes()).hexdigest() != packed["sha256"]:
                raise Broken(f"{name} is not the file that was packed, its sha256 differs; copy and unpack it again")

    def network(self, kind: str, precision: str) -> dict[str, Any]:
        """The file that holds the network for a kind of runtime (onnx, torch) in a precision."""
        for found in self.facts["networks"]:
            if found["kind"] == kind and precision in found["precisions"]:
                return found
        known = sorted({p for found in self.facts["networks"] if found["kind"] == kind for p in found["precisions"]})
        raise Usage(f"the pack has no {kind} network in {precision!r}; it has {', '.join(known)}")

    @property
    def shape(self) -> list[int]:
        """(C, H, W) of the noise."""
        return self.facts["reference"]["z"]["shape"][1:]

    @property
    def image_shape(self) -> list[int]:
        return self.facts["reference"]["image"]["shape"][1:]

    def rows(self, name: str, batch: int) -> array | None:
        """The first `batch` noises (z), classes (y) or images of the reference; over again where it has fewer."""
        if (kept := self.facts["reference"].get(name)) is None:  # y of an unconditional network
            return None
        values = array({"float32": "f", "int64": "q"}[kept["dtype"]])
        values.frombytes((self.folder / kept["file"]).read_bytes())
        if sys.byteorder == "big":
            values.byteswap()
        size = math.prod(kept["shape"][1:])
        found = array(values.typecode)
        for row in range(batch):
            start = row % kept["shape"][0] * size
            found.extend(values[start : start + size])
        return found


@dataclass
class Found:
    """What a runtime gave: times, images, and what a report says about it."""

    timed: Timed
    image: array  # of the reference's noises
    version: str
    flags: list[str]
    cold: dict[str, Any]
    memory: dict[str, Any]
    device: dict[str, Any] = field(default_factory=dict)  # where another chip than the CPU did the work
    software: dict[str, str | None] = field(default_factory=dict)  # versions that it knows better than the system
    period_ms: float | None = None  # from one call to the next, where that is not the time of a call


CUDA_MB = 1000.0  # of a board: a CUDA context and the libraries; a guess, for no board was at hand


def room_for(pack: Pack, runtime: Any, options: argparse.Namespace, before: Before, machine: Machine) -> None:
    """Says where memory will be tight. Raises TooLarge where the batch does not fit; packs before 1.5 don't tell."""
    if (activations := pack.facts["model"].get("activations")) is None:
        return
    network = pack.network(runtime.kind, options.precision)
    free_mb, base_mb = runtime.room(before, machine, options)
    warning = check_fit(
        options.batch, free_mb, base_mb=base_mb, weights_mb=pack.facts["files"][network["file"]]["bytes"] / 1e6,
        activations=activations, beside=100 * math.prod(pack.image_shape),  # images as Python's numbers, to compare
    )  # fmt: skip
    if warning:
        print(f"runner.py: {warning}", file=sys.stderr)


class OnnxRuntime:
    """The network by ONNX Runtime on the CPU."""

    name, reported, kind, precision = "onnxruntime", "onnxruntime", "onnx", "fp32"
    scopes, devices = ("core", "e2e"), ("cpu",)

    @staticmethod
    def room(before: Before, machine: Machine, options: argparse.Namespace) -> tuple[float | None, float]:
        """(free MB where it works, MB that the runtime itself takes there)."""
        return before.free_mb, 60.0  # with numpy, x86

    @staticmethod
    def missing(machine: Machine) -> str | None:
        return None if importlib.util.find_spec("onnxruntime") else "onnxruntime: pip install onnxruntime"

    def __init__(self, pack: Pack, path: Path, options: argparse.Namespace) -> None:
        import numpy
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads = options.threads, 1
        settings.log_severity_level = 3  # errors alone
        try:
            self.session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class; an old one does not know the opset
            raise Broken(f"onnxruntime {onnxruntime.__version__} can't open {path.name}: {str(error)[:300]}") from None
        self.numpy, self.values_of = numpy, onnxruntime.OrtValue
        self.version, self.flags, self.gpu, self.software = onnxruntime.__version__, [], None, {}
        self.shape, self.image_shape = pack.shape, pack.image_shape

    def value(self, numbers: Any) -> Any:
        return self.values_of.ortvalue_from_numpy(numbers)

    def place(self, z: array, y: array | None) -> Any:
        """Inputs and memory for the images, bound, as in the lab: names that are looked up anew take time each call.

        The inputs go along: up to version 1.23, the last for Python 3.10, a binding keeps none of them, and would read
        memory that is free again.
        """
        noise = self.numpy.frombuffer(z, dtype=self.numpy.float32).reshape(-1, *self.shape)
        kept = {"z": self.value(noise)}
        if y is not None:
            kept["y"] = self.value(self.numpy.frombuffer(y, dtype=self.numpy.int64))
        bound = self.session.io_binding()
        for name, value in kept.items():
            bound.bind_ortvalue_input(name, value)
        shape = [len(noise), *self.image_shape]
        image = self.values_of.ortvalue_from_shape_and_type(shape, self.numpy.float32)
        bound.bind_ortvalue_output("image", image)
        return bound, image, kept

    def run(self, inputs: Any) -> Any:
        bound, image, _ = inputs
        self.session.run_with_iobinding(bound)
        return image

    def values(self, output: Any) -> array:
        return array("f", output.numpy().tobytes())

    def drawing(self, z: array, y: array | None) -> Callable[[], object]:
        """A callable from drawing the noise to bytes of pixels."""
        numpy, rng, inputs = self.numpy, self.numpy.random.default_rng(0), self.place(z, y)
        shape = (len(z) // math.prod(self.shape), *self.shape)

        def image() -> Any:
            noise = self.value(rng.standard_normal(shape, dtype=numpy.float32))  # named, so it lives until the end
            inputs[0].bind_ortvalue_input("z", noise)
            return numpy.clip(numpy.rint(self.run(inputs).numpy() * 127.5 + 127.5), 0, 255).astype(numpy.uint8)

        return image

    def events(self) -> CudaEvents | None:
        return None

    def peak_mb(self) -> float | None:
        return None


def imported_torch() -> Any:
    """torch; that it has no numpy need not be said, for nothing here needs it."""
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import torch

    return torch


class Torch:
    """The network by model_torch.py of the pack, on the CPU or a GPU."""

    name, reported, kind, precision = "torch", "eager", "torch", "fp32"
    scopes, devices = ("core", "e2e"), ("cpu", "cuda")

    @staticmethod
    def room(before: Before, machine: Machine, options: argparse.Namespace) -> tuple[float | None, float]:
        torch = imported_torch()
        if options.device == "cpu" or not torch.cuda.is_available():
            return before.free_mb, 500.0  # x86
        if machine.family in BOARDS:
            return before.free_mb, CUDA_MB
        return torch.cuda.mem_get_info()[0] / 1e6, 200.0  # a card's own; its context is there already

    @staticmethod
    def missing(machine: Machine) -> str | None:
        return None if importlib.util.find_spec("torch") else "torch: pip install torch, or the board's own wheel"

    def __init__(self, pack: Pack, path: Path, options: argparse.Namespace) -> None:
        torch = imported_torch()
        place = importlib.util.spec_from_file_location("model_torch", pack.folder / "model_torch.py")
        module = importlib.util.module_from_spec(place)
        place.loader.exec_module(module)
        torch.set_num_threads(options.threads)
        there = torch.cuda.is_available()
        if options.device == "cuda" and not there:
            raise Missing("torch sees no CUDA device here; --device cpu times the CPU")
        self.on = "cuda" if there and options.device != "cpu" else "cpu"
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[options.precision]
        self.net, self.torch, self.shape = module.opened(path, self.on, dtype), torch, pack.shape
        self.flags = ["folded conditioning"] if path.suffix == ".safetensors" else []
        self.version, self.gpu = torch.__version__, None
        self.software = cuda_versions(torch) if self.on == "cuda" else {}
        if self.on == "cuda":
            gpu = torch.cuda.get_device_properties(0)
            self.gpu = gpu.name, gpu.total_memory >> 20
            torch.cuda.reset_peak_memory_stats()

    def place(self, z: array, y: array | None) -> Any:
        noise = self.torch.frombuffer(bytearray(z), dtype=self.torch.float32).reshape(-1, *self.shape)
        classes = None if y is None else self.torch.frombuffer(bytearray(y), dtype=self.torch.int64).to(self.on)
        return noise.to(self.on), classes

    def launch(self, inputs: Any) -> Any:
        """`run` that on a GPU does not wait for the end of the work."""
        return self.net(*inputs)

    def events(self) -> CudaEvents | None:
        return CudaEvents(self.torch, self.on) if self.on == "cuda" else None

    def run(self, inputs: Any) -> Any:
        image = self.launch(inputs)
        if self.on == "cuda":
            self.torch.cuda.synchronize()
        return image

    def values(self, output: Any) -> array:
        return array("f", output.cpu().flatten().tolist())

    def drawing(self, z: array, y: array | None) -> Callable[[], object]:
        torch, (noise, classes) = self.torch, self.place(z, y)

        def image() -> Any:
            output = self.run((torch.randn(noise.shape, device=self.on), classes))
            return output.mul(127.5).add(127.5).round().clamp(0, 255).to(torch.uint8).cpu()

        return image

    def peak_mb(self) -> float | None:
        return round(self.torch.cuda.max_memory_allocated() / 1e6, 3) if self.on == "cuda" else None


def cuda_versions(torch: Any) -> dict[str, str | None]:
    """CUDA and cuDNN as torch has them, which need not be the system's."""
    number = torch.backends.cudnn.version() or 0  # 90300 is 9.3.0, 8902 is 8.9.2
    major, rest = divmod(number, 10_000 if number >= 10_000 else 1_000)
    return {"cuda": torch.version.cuda, "cudnn": f"{major}.{rest // 100}.{rest % 100}" if number else None}


def _gpu(machine: Machine, name: str, memory_mb: int) -> dict[str, Any]:
    """What a report's `device` says of the GPU that did the work: one with a card of its own is the device."""
    if machine.family in BOARDS:
        return {"gpu": name}
    return {"family": "nvidia_dgpu", "name": name, "gpu": name, "memory_mb": memory_mb}


def by_calls(pack: Pack, runtime: Any, options: argparse.Namespace, preset: Preset, before: Before,
             machine: Machine) -> Found:  # fmt: skip
    """Time a runtime that runs in this process. Raises Broken with its own words where it fails."""
    try:
        return _by_calls(pack, runtime, options, preset, before, machine)
    except (Broken, Missing, Refused, OSError):
        raise
    except Exception as error:  # of whatever class: onnxruntime's have none in common, torch's are many
        raise Broken(f"{runtime.name} failed: {type(error).__name__}: {str(error)[:300]}") from None


def _by_calls(pack: Pack, runtime: Any, options: argparse.Namespace, preset: Preset, before: Before,
              machine: Machine) -> Found:  # fmt: skip
    room_for(pack, runtime, options, before, machine)
    path = pack.folder / pack.network(runtime.kind, options.precision)["file"]
    start = time.perf_counter_ns()
    opened = runtime(pack, path, options)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    z, y = pack.rows("z", options.batch), pack.rows("y", options.batch)
    inputs = opened.place(z, y)
    call = (lambda: opened.run(inputs)) if options.scope == "core" else opened.drawing(z, y)
    start = time.perf_counter_ns()
    call()
    first_ms = (time.perf_counter_ns() - start) / 1e6
    events = opened.events() if options.scope == "core" else None  # from noise to bytes is the host's time alone
    timed = time_calls((lambda: opened.launch(inputs)) if events else call, preset, before, events=events,
                       machine=machine)  # fmt: skip
    return Found(
        timed, opened.values(opened.run(inputs)), opened.version, [*opened.flags, *timed.flags],
        {"load_ms": round(load_ms, 3), "build_ms": None, "first_ms": round(first_ms, 3)},
        {"method": "ru_maxrss of the whole process", "weights_mb": round(path.stat().st_size / 1e6, 3),
         "process_peak_mb": process_peak_mb(), "allocator_peak_mb": opened.peak_mb(),
         "system_delta_mb": timed.system_mb}, _gpu(machine, *opened.gpu) if opened.gpu else {}, opened.software,
    )  # fmt: skip


class TrtExec:
    """The network by TensorRT, through trtexec: an engine is built on the board and timed by CUDA events."""

    name, reported, kind, precision = "trtexec", "tensorrt", "onnx", "fp16"
    scopes, devices = ("core",), ("cuda",)

    @staticmethod
    def room(before: Before, machine: Machine, options: argparse.Namespace) -> tuple[float | None, float]:
        return before.free_mb if machine.family in BOARDS else None, CUDA_MB  # a card's own is not told

    @staticmethod
    def missing(machine: Machine) -> str | None:
        return None if machine.command("trtexec") else "trtexec: part of TensorRT, on a Jetson of the JetPack"


def trt_version(banner: str) -> tuple[int, int, int]:
    """10.3.0 of `[TensorRT v100300]`, 8.6.2 of `[TensorRT v8602]`. Raises Broken where there is no such word."""
    found = re.search(r"\[TensorRT v(\d+)\]", banner)
    if not found:
        raise Broken(f"trtexec does not tell its version: {banner.strip()[-200:]!r}")
    number, step = int(found[1]), 100 if len(found[1]) > 4 else 10
    return number // (100 * step), number // 100 % step, number % 100


def trt_command(path: str, version: tuple[int, int, int], pack: Pack, options: argparse.Namespace) -> list[str]:
    """The beginning of every trtexec call: the shapes, and what the version wants to be told about types."""
    if version[0] < 10:
        raise Missing(f"trtexec is of TensorRT {'.'.join(map(str, version))}; the pack needs 10 or newer, for its ONNX "
                      "files are of opset 20 and hold their precision themselves")  # fmt: skip
    classes = f",y:{options.batch}" if pack.facts["reference"].get("y") else ""
    shapes = f"--shapes=z:{'x'.join(map(str, [options.batch, *pack.shape]))}{classes}"
    # 11 knows no other typing and has no such flag; TF32 would round what is called fp32.
    return [path, shapes, *(["--stronglyTyped"] if version[0] == 10 else []),
            *(["--noTF32"] if options.precision == "fp32" else [])]  # fmt: skip


def by_trtexec(pack: Pack, runtime: Any, options: argparse.Namespace, preset: Preset, before: Before,
               machine: Machine) -> Found:  # fmt: skip
    """Build an engine and time it; one process for each session."""
    path, network = machine.command("trtexec"), pack.network("onnx", options.precision)
    room_for(pack, runtime, options, before, machine)
    version = trt_version(_told(path, ["--help"])[0])
    command = trt_command(path, version, pack, options)
    with tempfile.TemporaryDirectory() as name, Watch(machine, before) as watch:
        folder = Path(name)
        engine, times, output = folder / "engine", folder / "times.json", folder / "output.json"
        watch.side.paused = True  # building is no part of what is timed
        start = time.perf_counter_ns()
        said, _ = _told(command[0], [f"--onnx={pack.folder / network['file']}", *command[1:],
                                     f"--saveEngine={engine}", "--skipInference"])  # fmt: skip
        build_ms = (time.perf_counter_ns() - start) / 1e6
        loads = []
        for part in ("z", "y"):
            if (rows := pack.rows(part, options.batch)) is not None:
                (folder / part).write_bytes(rows.tobytes())
                loads.append(f"{part}:{folder / part}")
        sessions: list[Sequence[int]] = []
        waits: list[int] = []  # how long a host waits for each call
        lasted: list[float | None] = []
        peaks: list[float | None] = []
        for session in range(preset.sessions):
            if session:
                watch.cool_down(time.sleep)
            watch.side.paused, began = False, time.monotonic()
            ran, peak_mb = _told(command[0], [
                f"--loadEngine={engine}", *command[1:], f"--loadInputs={','.join(loads)}", "--useSpinWait",
                f"--warmUp={round(preset.warmup_s * 1000)}", f"--duration={math.ceil(preset.seconds)}",
                f"--iterations={preset.iters}", "--percentile=50,90,99", f"--exportTimes={times}",
                f"--exportOutput={output}",
            ], limit_s=600 + 3 * preset.seconds)  # fmt: skip
            watch.session_over()
            watch.side.paused = True
            watch.side.only_last(preset.seconds, began)  # its start draws less power than its work
            sessions.append(trt_times(times.read_text()))
            waits += trt_times(times.read_text(), "latencyMs")
            lasted.append(_first(r"queries over ([\d.]+) s", ran))
            peaks.append(peak_mb)
        image = trt_output(output.read_text())
        weights_mb = round(engine.stat().st_size / 1e6, 3)
    timing = {"unit": "ms", "clock": "cuda_event", "warmup_iters": None, "warmup_converged": None}
    timing |= summary(sessions) | {"wall": spread(waits)}
    period_ms = None
    if None not in lasted:  # the GPU's own times leave out the copies between them
        timing["duration_s"], period_ms = round(sum(lasted), 3), sum(lasted) * 1000 / len(waits)
    timed = Timed(timing, watch.state(), watch.flags(), watch.system_mb())
    loaded, device = _first(r"Engine deserialized in ([\d.]+) sec", ran), re.search(r"Selected Device: (.+)", said)
    memory = _first(r"Device Global Memory: (\d+) MiB", said)
    return Found(
        timed, image, ".".join(map(str, version)),
        ["trtexec", "useSpinWait", *(part.lstrip("-") for part in command[2:]), *timed.flags],
        {"load_ms": None if loaded is None else round(loaded * 1000, 3), "build_ms": round(build_ms, 3),
         "first_ms": None},
        {"method": "ru_maxrss of trtexec while it times; weights_mb is the engine", "weights_mb": weights_mb,
         "process_peak_mb": max((mb for mb in peaks if mb is not None), default=None),
         "system_delta_mb": timed.system_mb},
        _gpu(machine, device[1].strip(), int(memory or machine.memory_mb())) if device else {},
        {"tensorrt": ".".join(map(str, version))}, period_ms,
    )  # fmt: skip


def _told(path: str, args: Sequence[str], *, limit_s: float = 3600.0) -> tuple[str, float | None]:
    """What trtexec prints, and its peak memory in MB. Raises Broken with its own words where it fails."""
    with tempfile.TemporaryFile() as printed:  # a pipe would have to be emptied meanwhile
        process = subprocess.Popen([path, *args], stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT)
        try:
            peak_mb = _ended(process, limit_s)
        except subprocess.TimeoutExpired:
            raise Broken(f"trtexec did not end within {limit_s:g} s") from None
        finally:
            if process.returncode is None:  # nor may it run on when somebody interrupts us
                process.kill()
                process.wait()
        printed.seek(0)
        said = printed.read().decode(errors="replace")
    if process.returncode:
        errors = [line for line in said.splitlines() if "[E]" in line] or said.splitlines()[-3:]
        raise Broken(f"trtexec failed with exit code {process.returncode}: {' '.join(errors[:3])[:600]}")
    return said, peak_mb


def _ended(process: subprocess.Popen, limit_s: float) -> float | None:
    """Waits for the end of a process; gives its own peak resident memory in MB, None where that is not told.

    RUSAGE_CHILDREN would tell the largest of all that have ended, and building an engine takes more than running it.
    Linux counts in what we had ourselves when we started it, a few ten MB, far less than CUDA takes.
    """
    if not hasattr(os, "wait4"):  # Windows
        process.wait(limit_s)
        return None
    end = time.monotonic() + limit_s
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return _peak_mb(used)
        if time.monotonic() > end:
            raise subprocess.TimeoutExpired(process.args, limit_s)
        time.sleep(0.02)


def trt_times(text: str, name: str = "computeMs") -> list[int]:
    """One time of every call in --exportTimes' JSON, in ns.

    computeMs is the GPU's work, latencyMs what trtexec prints as the host's latency: that and the copies in and out.
    """
    try:
        found = [max(round(call[name] * 1e6), 1) for call in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise Broken(f"trtexec's times can't be read: {error!r}") from None
    if not found:
        raise Broken("trtexec wrote no times")
    return found


def trt_output(text: str) -> array:
    """The images of --exportOutput's JSON."""
    try:
        found = {tensor["name"]: tensor["values"] for tensor in json.loads(text)}
        return array("f", found["image"])
    except (ValueError, TypeError, KeyError) as error:  # a NaN is written so that it is no JSON
        raise Broken(f"trtexec's images can't be read: {error!r}") from None


RUNTIMES = {runtime.name: runtime for runtime in (OnnxRuntime, Torch, TrtExec)}


def choose_runtime(options: argparse.Namespace, machine: Machine) -> Any:
    """The runtime that was asked for, or the first that is here and can do what was asked for.

    Raises Usage for what none can do, Missing where nothing that can is here.
    """
    order = ["onnxruntime", "torch", "trtexec"]
    if machine.family == "jetson" and options.device != "cpu":
        order = ["trtexec", "torch", "onnxruntime"]
    wanted = order if options.runtime == "auto" else [options.runtime]
    able = [RUNTIMES[name] for name in wanted if options.scope in RUNTIMES[name].scopes
            and (options.device == "auto" or options.device in RUNTIMES[name].devices)]  # fmt: skip
    if not able:
        raise Usage(f"{' and '.join(wanted)} can't time scope {options.scope} on device {options.device}")
    lacking = [runtime.missing(machine) for runtime in able]
    for runtime, why in zip(able, lacking):
        if why is None:
            return runtime
    raise Missing(f"no runtime for this is here. Any one of these would do: {'; '.join(lacking)}")


def checked(pack: Pack, image: array, options: argparse.Namespace) -> dict[str, Any]:
    """Whether these are the pack's images: the `checks` part of a report."""
    right = pack.rows("image", options.batch)
    finite = len(image) == len(right) and all(map(math.isfinite, image))
    if not finite:
        return {"output_ok": False, "max_abs_vs_ref": None, "image_sha256": None}
    apart = [abs(a - b) for a, b in zip(image, right)]
    largest, mean = pack.facts["tolerances"][options.precision]
    pixels = bytes(min(255, max(0, round(value * 127.5 + 127.5))) for value in image)
    return {
        "output_ok": max(apart) <= largest and statistics.fmean(apart) <= mean, "max_abs_vs_ref": max(apart),
        "image_sha256": hashlib.sha256(pixels).hexdigest(),
    }  # fmt: skip


def report_of(pack: Pack, runtime: Any, found: Found, options: argparse.Namespace, preset: Preset, machine: Machine,
              idle: float | None) -> dict[str, Any]:  # fmt: skip
    """The device report (device_report.v1) of one timing."""
    network, model = pack.network(runtime.kind, options.precision), pack.facts["model"]
    threads = None if runtime is TrtExec else options.threads  # CPU threads mean nothing to an engine
    state = found.timed.state | {"threads": threads, "idle_power_w": idle, "ambient_c": options.ambient}
    _, height, width = pack.image_shape
    versions = machine.versions() | {name: version for name, version in found.software.items() if version}
    return with_id(_plain({
        "schema": "device_report.v1", "created_utc": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "provenance": "measured",
        "runner": {"name": NAME, "version": VERSION, "sha256": own_sha256(), "preset": preset.known_as},
        "device": machine.device() | found.device,
        "software": {
            "os": machine.os_name(), **versions, "python": platform.python_version(),
            "torch": found.version if runtime is Torch else None, "runtime": runtime.reported,
            "runtime_version": found.version, "flags": found.flags,
        },
        "state": state,
        "model": {
            "model_id": model["model_id"], "config": model["config"], "weights_sha256": model["weights_sha256"],
            "artifact_sha256": pack.facts["files"][network["file"]]["sha256"], "params": model["params"],
            "macs": model["macs"], "file_mb": pack.facts["files"][network["file"]]["bytes"] / 1e6,
            "precision": options.precision,
        },
        "workload": {"scope": options.scope, "batch": options.batch, "height": height, "width": width,
                     "nfe": model.get("nfe", 1)},
        "timing": found.timed.timing | found.cold,
        "memory": found.memory,
        "energy": energy_of(state, found.timed.timing, options.batch, period_ms=found.period_ms),
        "checks": checked(pack, found.image, options),
    }))  # fmt: skip


def _plain(value: Any) -> Any:
    """The same with texts that may be shown anywhere: plain ASCII, no markup, not long."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return re.sub(r"[^ -~]|[<>`\[\]{}\\$]", " ", value).strip()[:200] if isinstance(value, str) else value


def with_id(report: dict[str, Any]) -> dict[str, Any]:
    """With a report_id by content: which run, how it was timed, and a digest of everything."""
    model, work, threads = report["model"], report["workload"], report["state"]["threads"]
    digest = hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()[:12]
    words = [model["model_id"][-8:], report["software"]["runtime"], model["precision"], f"b{work['batch']}",
             *([] if threads is None else [f"t{threads}"]), work["scope"], digest]  # fmt: skip
    return {"schema": report["schema"], "report_id": "-".join(words).lower().replace("+", "_")} | report


# --- the command --------------------------------------------------------------------------------


def parser(machine: Machine = HERE) -> argparse.ArgumentParser:
    def at_least_1(text: str) -> int:
        if not text.isdigit() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
        return int(text)

    def celsius(text: str) -> float:
        with suppress(ValueError):
            if AMBIENT_C[0] <= float(text) <= AMBIENT_C[1]:
                return float(text)
        low, high = AMBIENT_C
        raise argparse.ArgumentTypeError(f"must be degrees Celsius between {low:g} and {high:g}, got {text!r}")

    cpus = machine.threads()
    made = argparse.ArgumentParser(
        prog="runner.py",
        description="Time the network of this pack on this machine and write one device report.",
        epilog="""Examples:
  python3 runner.py --preset quick
  python3 runner.py --preset publishable --runtime trtexec --precision fp16
  python3 runner.py --runtime onnxruntime --threads 4 --batch 16 --out report-b16.json
Exit codes: 0 done, 1 it failed or the images are wrong, 2 wrong usage, 3 no runtime or no pack here.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--preset", choices=[*PRESETS], default="quick", help="quick: seconds; publishable: minutes")
    made.add_argument("--runtime", choices=["auto", *RUNTIMES], default="auto", help="default: the first that is here")
    made.add_argument(
        "--precision",
        default="auto",
        metavar="P",
        help="fp32, fp16, bf16, int8, ...: what the pack has (default fp16 for trtexec, else fp32)",
    )
    made.add_argument("--batch", type=at_least_1, default=1, help="images at once (default 1)")
    made.add_argument("--threads", type=at_least_1, default=cpus, help=f"CPU threads (default {cpus}, all there are)")
    made.add_argument(
        "--scope",
        choices=["core", "e2e"],
        default="core",
        help="core: the network alone (default); e2e: from drawing noise to bytes of pixels",
    )
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    made.add_argument("--iters", type=at_least_1, help="at least so many calls a session, for a preset of your own")
    made.add_argument("--seconds", type=float, help="at least so long a session, for a preset of your own")
    made.add_argument("--ambient", type=celsius, metavar="C", help="the room's temperature in degrees, for the report")
    made.add_argument("--out", metavar="FILE", help="the report (default report-<id>.json in this folder)")
    return made


def preset_from(options: argparse.Namespace) -> Preset:
    """The named preset, or one with numbers of its own, which is then called custom."""
    preset = PRESETS[options.preset]
    if options.iters is not None:
        preset = replace(preset, name="custom", iters=options.iters)
    if options.seconds is not None:
        preset = replace(preset, name="custom", seconds=options.seconds,
                         warmup_s=min(preset.warmup_s, options.seconds))  # fmt: skip
    return preset


def main(argv: Sequence[str] | None = None, *, folder: Path | None = None, machine: Machine = HERE) -> int:
    """The command; gives its exit code."""
    options = parser(machine).parse_args(argv)
    try:
        pack = Pack.read(folder or Path(__file__).resolve().parent)
        pack.verify()
        check_out(Path(options.out or "."))  # now, not when minutes of timing would be lost
        runtime, preset = choose_runtime(options, machine), preset_from(options)
        options.precision = runtime.precision if options.precision == "auto" else options.precision
        pack.network(runtime.kind, options.precision)
        before = look(preset, machine)
        what = f"{runtime.name}, {options.precision}, batch {options.batch}"
        what += "" if runtime is TrtExec else f", {options.threads} threads"
        print(f"{what}: warming up, then {preset.sessions} x {preset.seconds:g} s ...", file=sys.stderr)
        idle = idle_w(machine)
        measure = by_trtexec if runtime is TrtExec else by_calls
        report = report_of(pack, runtime, measure(pack, runtime, options, preset, before, machine), options, preset,
                           machine, idle)  # fmt: skip
        path = Path(options.out or f"report-{report['report_id']}.json")
        _write(path, json.dumps(report, allow_nan=False) + "\n")
    except Usage as error:
        return _said(error, USAGE)
    except Missing as error:
        return _said(error, MISSING)
    except (Broken, Refused, OSError) as error:
        return _said(error, FAILED)
    timing, right = report["timing"], report["checks"]["output_ok"]
    print(f"p50 {timing['p50']:.3f} ms (95 %: {timing['p50_ci95'][0]:.3f} to {timing['p50_ci95'][1]:.3f}), p90 "
          f"{timing['p90']:.3f} ms, p99 {timing['p99']:.3f} ms, {timing['iters']} calls; the images are "
          f"{'right' if right else 'WRONG'}\n{path}: bring it to the lab and run `python -m lab import`")  # fmt: skip
    return OK if right else FAILED


def _said(error: Exception, code: int) -> int:
    print(f"runner.py: {error}", file=sys.stderr)
    return code


def check_out(path: Path) -> None:
    """Raises Usage where no report can be written: to that file, or somewhere in that folder if it is `.`."""
    folder = path.parent
    if path != Path(".") and path.is_dir():
        raise Usage(f"can't write the report to {path}: it is a folder; give --out the name of a file")
    if not folder.is_dir():
        raise Usage(f"can't write the report to {path}: there is no folder {folder}; make it first")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Usage(f"can't write the report into {folder.resolve()}: {error.strerror}; --out takes it to another "
                    "place") from None  # fmt: skip


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    part.write_text(text)
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
