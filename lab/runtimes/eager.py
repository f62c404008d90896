"""Plain torch: every operation as it comes. The reference that all other runtimes are held against."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lab.data import ImageSpec
from lab.runtimes.base import TorchSession


class Eager:
    name = "eager"

    def missing(self) -> str | None:
        return None

    def export(self, student: nn.Module, spec: ImageSpec, folder: Path) -> Path:
        """Nothing to make: the run's own weights are what it reads."""
        return folder

    def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "fp32",
             solver: str = "dpmpp2m-8") -> TorchSession:  # fmt: skip
        return TorchSession(path, device=device, threads=threads, precision=precision, solver=solver)


RUNTIME = Eager()
