"""Ternary students packed: four weights to a byte on disk and in memory, unpacked layer by layer (lab/packing.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lab import artefacts, deploy, export, models, packing
from lab.config import JSON, NetConfig
from lab.data import ImageSpec
from lab.diffusion import SOLVER
from lab.precisions import FORMS
from lab.results import Run, write_whole
from lab.runtimes.base import FileSession, check_precision

FILE = "model.safetensors"


class PackedSession(FileSession):
    weights = FILE
    builds = False

    def __init__(self, runtime: Packed, folder: Path, *, device: str, threads: int | None, precision: str,
                 solver: str) -> None:  # fmt: skip
        super().__init__(runtime, folder, device=device, threads=threads, precision=precision, solver=solver)
        self.net = packing.load(folder / FILE, deploy.deploy(models.build(self.config), self.spec, solver))
        self.version = torch.__version__

    def __enter__(self) -> PackedSession:
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._threads_before)

    def place(self, z: np.ndarray, y: np.ndarray | None) -> tuple[Any, ...]:
        found = self.checked(z, y)
        return tuple(
            torch.from_numpy(found[name]) if name in found else None for name in (export.NOISE, export.CLASSES)
        )

    def build(self, inputs: tuple[Any, ...]) -> None:
        """Nothing: torch has no engine."""

    @torch.inference_mode()
    def run(self, inputs: tuple[Any, ...]) -> Any:
        return self.net(*inputs)

    def fetch(self, output: Any) -> np.ndarray:
        return output.numpy()


class Packed:
    name = "packed"
    precisions = FORMS[name]
    exports = True

    def missing(self) -> str | None:
        return None

    def why_not(self, config: NetConfig, precision: str | None = None) -> str | None:
        return None

    def why_not_run(self, run: Run) -> str | None:
        if "ternary" in run.facts:
            return None
        return f"runtime packed runs ternary networks, and {run.label} was not trained by method ternary"

    def export(self, run: Run, precision: str = "ternary", *, force: bool = False, solver: str = SOLVER) -> Path:
        """Raises ValueError also for a student that is not ternary."""
        check_precision(self, precision, run.config)
        if why := self.why_not_run(run):
            raise ValueError(why)
        weights: dict[str, JSON] = {}

        def write(net: nn.Module, spec: ImageSpec, folder: Path) -> None:
            packed = packing.packed(net)
            weights["ternary_weights"] = packing.count(packed)
            write_whole(folder / FILE, packing.file_bytes(packed))

        return artefacts.ensure(run, self.name, precision, write=write, force=force, solver=solver,
                                versions={"packed": "2", "torch": torch.__version__}, more=lambda folder: weights,
                                open=lambda folder: self.open(folder, threads=1, precision=precision,
                                                              solver=solver))  # fmt: skip

    def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "ternary",
             solver: str = SOLVER) -> PackedSession:  # fmt: skip
        return PackedSession(self, path, device=device, threads=threads, precision=precision, solver=solver)


RUNTIME = Packed()
