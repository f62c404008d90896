"""What a Jetson calls its rails, and what a line of its tegrastats tells."""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection

from lab.devices.runner.texts import number_in

# What together is a whole Jetson module, by the names that boards give it; see `module_rails`.
RAILS = (("VDD_IN",), ("POM_5V_IN",), ("VIN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
         ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"))  # fmt: skip
DUMMY = re.compile("PMIC", re.IGNORECASE)  # thermal zones that are no thermometer: 100 C on a Nano, TX2 and Xavier


def module_rails(told: Collection[str]) -> tuple[str, ...]:
    """The rails whose power together is what a whole Jetson module draws, of those that are told; () if they are not.

    Most modules have one such rail. An AGX Orin has none: its VIN_SYS_5V0 feeds memory, inputs and outputs alone
    (jetson_stats issue 344). There the sum counts, as in jetson_stats: of the GPU's, the CPUs' and that rail. Its
    fourth channel, VDDQ_VDD2_1V8AO, lies behind the same 5 V; jetson_stats adds it, tegrastats of JetPack 6 does not
    even list it, and here it would count twice.
    """
    return next((rails for rails in RAILS if set(rails) <= set(told)), ())


def watts_of(line: str) -> dict[str, float]:
    """The power of every rail in a line of tegrastats, now/mean; JetPack 4 leaves the unit out."""
    return {name: float(mw) / 1000 for name, mw in re.findall(r"\b([A-Z]\w+) (\d+)(?:mW|/\d+(?=\s|$))", line)}


def tegrastats(line: str) -> dict[str, float]:
    """What one line of tegrastats tells, under the names of SideChannel."""
    cpus = re.search(r"\bCPU \[([^]]*)\]", line)
    mhz = [float(m) for m in re.findall(r"@(\d+)", cpus[1])] if cpus else []
    degrees = [float(c) for name, c in re.findall(r"(\w+)@(-?[\d.]+)C\b", line) if not DUMMY.search(name)]
    watts = watts_of(line)
    found = {
        "cpu_mhz": statistics.fmean(mhz) if mhz else None,
        "gpu_mhz": number_in(r"GR3D_FREQ (?:\d+%)?@\[?(\d+)", line),
        "emc_mhz": number_in(r"EMC_FREQ \d+%@(\d+)", line),
        "temp_c": max((c for c in degrees if c > 0), default=None),
        "power_w": sum(watts[name] for name in module_rails(watts)),
    }
    return {name: value for name, value in found.items() if value}  # 0 is what may not be read, or is not told
