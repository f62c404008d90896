"""What an operating system says about its machine: who it is, and the state it is in."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.devices.runner.jetson import DUMMY, module_rails
from lab.devices.runner.texts import hexadecimal, plain

# What a processor tells of itself beside a name: ARM, RISC-V, POWER and MIPS, s390.
PARTS = r"^(CPU implementer|CPU part|uarch|mvendorid|marchid|mimpid|cpu|cpu model)\s*:\s*(.*\S)|\b(machine) = (\S+)"
NO_MODEL = r"@.*|\bversion\b.*|\d+-(core|bit)"  # digits of a name that are none of a model's
LOOK_S, BUSIEST, LONGEST_NAME = 0.2, 5, 63  # how long processes are watched, how many are named; no name is longer
HOTTEST = 200_000  # thousandths of a degree; no chip lives to tell more
CPUS_READ = 8  # reading the clock of each of 128 cores five times a second would itself be load
LIVE_BITS, PAST_BITS = 0xF, 0xF0000  # of a Raspberry Pi's word: what holds it back now, and what has since boot
CGROUPS = ("sys/fs/cgroup", *(f"sys/fs/cgroup/{of}" for of in ("cpu", "cpu,cpuacct", "cpuacct,cpu")))  # version 2, 1
COMMAND_FOLDERS = ("usr/bin", "usr/sbin", "usr/src/tensorrt/bin")  # trtexec of a JetPack stands in the last
BOARDS = ("jetson", "rpi")


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
        text = self.text("proc/cpuinfo")
        said = re.findall(r"^(model name|cpu family|model)\s*:\s*(.*\S)", text, re.M | re.I)
        told = {what.lower(): which for what, which in said}
        name = told.get("model name") or platform.processor() or platform.machine() or "unknown"
        # An ARM has no name, or that of the whole architecture; who made it and which of its parts it is say which.
        parts = [f"{(what or kind).lower()} {which or number}"
                 for what, which, kind, number in re.findall(PARTS, text, re.M)]  # fmt: skip
        if parts:
            name += f" ({', '.join(dict.fromkeys(parts))})"
        elif not re.search(r"\d", re.sub(NO_MODEL, "", name, flags=re.I)) and {"cpu family", "model"} <= told.keys():
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
        if said := re.search(r"NV Power Mode:[ \t]*(.*\S)", self.told("nvpmodel", "-q")):
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
                found[int(pid)] = (plain(name)[:LONGEST_NAME].strip() or "unnamed", int(user) + int(system))
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
        """The hottest thermal zone that is a thermometer; one that failed may tell the largest number that there is."""
        zones = [z for z in self.find("sys/class/thermal/thermal_zone*") if not DUMMY.search(self.text(f"{z}/type"))]
        return max((t / 1000 for z in zones if 0 < (t := self.number(f"{z}/temp") or 0) < HOTTEST), default=None)

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
            with suppress(ValueError, ZeroDivisionError, IndexError):  # "max", or no file
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
        return hexadecimal(self.text(self._throttle_file)) if self._throttle_file else None

    def asked_throttle_word(self) -> int | None:
        """The same, by vcgencmd where sysfs has it not: a process of its own, so not five times a second."""
        word = self.throttle_word()
        if word is None and self.family == "rpi":
            word = hexadecimal(self.told("vcgencmd", "get_throttled").strip().removeprefix("throttled="))
        return word

    def busy_s(self) -> float | None:
        """CPU seconds that all processes together have used since boot."""
        fields = self.text("proc/stat").split("\n")[0].split()[1:9]
        if len(fields) < 8:
            return None
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


HERE = Machine()
