"""Whether the machine is quiet enough for a figure that others may quote."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from lab.devices.runner.errors import Refused
from lab.devices.runner.machine import HERE, Machine
from lab.devices.runner.preset import Preset

MAX_LOAD_PER_CPU = 0.5


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
