"""What a runtime gives of a pack's network, and whether it has room for it."""

from __future__ import annotations

import argparse
import math
import sys
from array import array
from dataclasses import dataclass, field
from typing import Any

from lab.devices.runner.calls import Timed
from lab.devices.runner.machine import BOARDS, Machine
from lab.devices.runner.memory import check_fit
from lab.devices.runner.pack import Pack
from lab.devices.runner.quiet import Before

CUDA_MB = 1000.0  # of a board: a CUDA context and the libraries; a guess, for no board was at hand


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


def as_device(machine: Machine, name: str, memory_mb: int) -> dict[str, Any]:
    """What a report's `device` says of the GPU that did the work: one with a card of its own is the device."""
    if machine.family in BOARDS:
        return {"gpu": name}
    return {"family": "nvidia_dgpu", "name": name, "gpu": name, "memory_mb": memory_mb}
