"""Ternary networks packed: four weights a byte, one scale a matrix, the rest in half precision (arXiv 2405.14854).

    u = Q + 1, R = ceil(o/4):
    byte[r, c] = u[r] << 6 | u[R + r] << 4 | u[2R + r] << 2 | u[3R + r]     Q (o, i) of -1, 0, 1

The layout of TerDiT's kernels. What is saved is the file and memory: products are still those of floating point
numbers, of digits that are unpacked layer by layer.

A file is a safetensors file with one tensor for each dtype, in the order of the network's state: a header that names
every tensor would be a tenth of a small network's file.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from lab.weights import fill, opened, tensors_of

PER_BYTE = 4
SHIFTS = (6, 4, 2, 0)  # of the four quarters of the rows
GROUPS = (1, 3)  # scales of a matrix: q's rows, which attention's own scale may stand in, have another than k's and v's
KIND = "ternary"  # the entry of a file's metadata: packed layer -> how many scales it has


def pack(q: Tensor) -> Tensor:
    """Q (o, i) of -1, 0, 1 -> bytes (ceil(o/4), i); rows up to a multiple of 4 are filled with zeros."""
    u = F.pad(q, (0, 0, 0, -len(q) % PER_BYTE)).to(torch.int16) + 1
    quarters = u.unflatten(0, (PER_BYTE, -1))
    return sum(quarter << shift for quarter, shift in zip(quarters, SHIFTS)).to(torch.uint8)


def unpack(packed: Tensor, rows: int | None = None) -> Tensor:
    """The inverse, in float32; `rows` o where it is no multiple of 4."""
    u = torch.cat([packed.to(torch.int16) >> shift & 3 for shift in SHIFTS])
    return (u - 1).float()[:rows]


def ternary_parts(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """Q (o, i) and the scale alpha (1,) of a matrix of the values -alpha, 0 and alpha; alpha (3,) where each third of
    its rows has one of its own. None for any other matrix.
    """
    q = weight.sign()
    for groups in GROUPS:
        if len(weight) % groups == 0:
            alpha = weight.unflatten(0, (groups, -1)).abs().amax((1, 2))
            if torch.equal(_of_rows(alpha, len(weight))[:, None] * q, weight):
                return q, alpha
    return None


def _of_rows(alpha: Tensor, rows: int) -> Tensor:
    return alpha.repeat_interleave(rows // len(alpha))


# --- at work ------------------------------------------------------------------------------------


class PackedLinear(nn.Module):
    """x -> alpha (x Q^T) + bias, with a Q that is unpacked for each product."""

    def __init__(self, in_features: int, out_features: int, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.out_features = out_features
        self.register_buffer("packed", torch.zeros(-(-out_features // PER_BYTE), in_features, dtype=torch.uint8))
        self.register_buffer("alpha", torch.zeros(groups))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        every = torch.arange(256, dtype=torch.uint8)
        self.register_buffer("digits", unpack(every[None]), persistent=False)  # (4, 256) of every byte

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        q = self.digits.index_select(1, self.packed.int().flatten()).view(-1, x.shape[-1])[: self.out_features]
        y = F.linear(x, q) * _of_rows(self.alpha, self.out_features)
        return y if self.bias is None else y + self.bias


def packed(net: nn.Module) -> nn.Module:
    """A copy of a finished or deployed network in which every ternary matrix is packed.

    Raises ValueError for a network that has none.
    """
    net = copy.deepcopy(net).requires_grad_(False)
    found = {name: parts for name, layer in net.named_modules()
             if isinstance(layer, nn.Linear) and (parts := ternary_parts(layer.weight))}  # fmt: skip
    if not any(alpha.any() for _, alpha in found.values()):
        raise ValueError("no matrix of this network has the values -a, 0 and a alone; method ternary trains such")
    for name, (q, alpha) in found.items():
        bias = net.get_submodule(name).bias
        layer = _emptied(net, name, len(alpha))
        layer.packed, layer.alpha = pack(q), alpha
        if bias is not None:
            layer.bias.copy_(bias)
    return net


def count(net: nn.Module) -> int:
    """How many weights of a network are packed."""
    return sum(m.packed.shape[1] * m.out_features for m in net.modules() if isinstance(m, PackedLinear))


def _emptied(net: nn.Module, name: str, groups: int) -> PackedLinear:
    """The packed layer that takes the place of a linear one."""
    old = net.get_submodule(name)
    layer = PackedLinear(old.in_features, old.out_features, groups, bias=old.bias is not None)
    net.set_submodule(name, layer.requires_grad_(False))
    return layer


# --- on disk ------------------------------------------------------------------------------------


def file_bytes(net: nn.Module) -> bytes:
    """What `packed` gave, as a file: digits in 2 bits, scales in float32, all other parameters in half precision."""
    groups = {name: len(m.alpha) for name, m in net.named_modules() if isinstance(m, PackedLinear)}
    flat = {dtype: torch.cat([v.flatten() for v in part.values()])
            for dtype, part in _by_dtype(tensors_of(net)).items()}  # fmt: skip
    return to_bytes(flat, metadata={KIND: json.dumps(groups, separators=(",", ":"))})


def load(path: Path, net: nn.Module) -> nn.Module:
    """The packed network of a file, in float32 and eval mode. It is built into `net`, an unpacked one of its shape.

    Raises ValueError for a file that `file_bytes` did not write.
    """
    flat, said = opened(path)
    if KIND not in said:
        raise ValueError(f"{path.name} holds no packed network; `lab.packing.file_bytes` writes one")
    for name, count in json.loads(said[KIND]).items():
        _emptied(net, name, count)
    parts, state = _by_dtype(tensors_of(net)), {}
    for dtype, part in parts.items():
        sizes = [v.numel() for v in part.values()]
        if dtype not in flat or flat[dtype].shape != (sum(sizes),) or str(flat[dtype].dtype) != f"torch.{dtype}":
            raise ValueError(f"{path.name} does not hold the network's {sum(sizes):,} numbers of {dtype}")
        values = flat[dtype].split(sizes)
        state |= {name: v.view(like.shape) for (name, like), v in zip(part.items(), values)}
    return fill(net, state, path.name).requires_grad_(False)


def _by_dtype(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        parts.setdefault(str(value.dtype).removeprefix("torch."), {})[name] = value
    return parts
