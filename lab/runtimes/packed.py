"""Ternary students with their weights packed: four to a byte on disk and in memory, unpacked layer by layer.

A ternary matrix (arXiv 2405.14854) has the values -a, 0 and a in each row. What is saved is memory and the file: a
product still works with floating point numbers, so that it takes no less time than eager's.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from lab import artefacts, export
from lab.config import NetConfig, why_not_plain
from lab.data import ImageSpec
from lab.deploy import Deployed
from lab.diffusion import SOLVER
from lab.results import Run, write_whole
from lab.runtimes.base import FileSession, check_precision

FILE = "model.safetensors"
PER_BYTE = 4
LAYERS = ("qkv", "proj", "fc1", "fc2")  # of a block: the matrices that are ternary
DIGITS = np.array(np.meshgrid(*[[-1, 0, 1, 0]] * PER_BYTE, indexing="ij"), np.float32).reshape(PER_BYTE, -1).T


def pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A ternary matrix (rows, columns) as its digits, uint8 (rows, columns / 4), and each row's a, (rows,).

    Two bits a digit, the first of a byte's four in its highest ones; 0, 1, 2 stand for -1, 0, 1. Raises ValueError
    where a row has another value.
    """
    scale = weight.abs().amax(1)
    if not ((weight == 0) | (weight.abs() == scale[:, None])).all():
        raise ValueError("a row has more than the values -a, 0 and a")
    digits = (weight.sign() + 1).to(torch.uint8)
    digits = F.pad(digits, (0, -digits.shape[1] % PER_BYTE), value=1).view(len(digits), -1, PER_BYTE)
    return (digits << torch.tensor([6, 4, 2, 0], dtype=torch.uint8)).sum(-1, dtype=torch.uint8), scale


class PackedLinear(nn.Module):
    """x -> a (x digits^T) + bias with digits that are unpacked for each product."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.register_buffer("packed", torch.zeros(out_dim, math.ceil(in_dim / PER_BYTE), dtype=torch.uint8))
        self.register_buffer("scale", torch.zeros(out_dim))
        self.register_buffer("bias", torch.zeros(out_dim))
        self.register_buffer("digits", torch.from_numpy(DIGITS.copy()), persistent=False)  # of every byte, (256, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        digits = self.digits[self.packed.int()].flatten(1)[:, : self.in_dim]
        return F.linear(x, digits) * self.scale + self.bias


def packed_net(config: NetConfig) -> Deployed:
    """An empty deployed network whose blocks hold packed matrices."""
    net = Deployed(config)
    for block in net.blocks:
        for name in LAYERS:
            layer = getattr(block, name)
            setattr(block, name, PackedLinear(layer.in_features, layer.out_features))
    return net.eval().requires_grad_(False)


def packed_state(net: Deployed) -> dict[str, Tensor]:
    """What `packed_net` loads. Raises ValueError naming the first matrix that is not ternary."""
    state = {name: value.half() for name, value in net.state_dict().items()}
    for index, block in enumerate(net.blocks):
        for name in LAYERS:
            where, layer = f"blocks.{index}.{name}", getattr(block, name)
            try:
                packed, scale = pack(layer.weight)
            except ValueError as error:
                raise ValueError(f"runtime packed runs ternary networks: in {where} {error}") from None
            del state[f"{where}.weight"]
            state |= {f"{where}.packed": packed, f"{where}.scale": scale, f"{where}.bias": layer.bias}
    return {name: value.contiguous() for name, value in state.items()}


class PackedSession(FileSession):
    weights = FILE
    builds = False

    def __init__(self, runtime: Packed, folder: Path, *, device: str, threads: int | None, precision: str,
                 solver: str) -> None:  # fmt: skip
        super().__init__(runtime, folder, device=device, threads=threads, precision=precision, solver=solver)
        state = load_file(folder / FILE)
        self.net = packed_net(self.config)
        self.net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
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
    precisions = ("ternary",)
    exports = True

    def missing(self) -> str | None:
        return None

    def why_not(self, config: NetConfig, precision: str | None = None) -> str | None:
        why = why_not_plain(config)
        return why and f"runtime packed unpacks the layers of plain students: {why}"

    def export(self, run: Run, precision: str = "ternary", *, force: bool = False, solver: str = SOLVER) -> Path:
        """Raises ValueError also for a student that is not ternary."""
        check_precision(self, precision, run.config)

        def write(net: Deployed, spec: ImageSpec, folder: Path) -> None:
            write_whole(folder / FILE, to_bytes(packed_state(net)))

        return artefacts.ensure(run, self.name, precision, write=write, force=force,
                                versions={"packed": "1", "torch": torch.__version__},
                                open=lambda folder: self.open(folder, threads=1, precision=precision))  # fmt: skip

    def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "ternary",
             solver: str = SOLVER) -> PackedSession:  # fmt: skip
        return PackedSession(self, path, device=device, threads=threads, precision=precision, solver=solver)


RUNTIME = Packed()
