"""Ternary networks on disk: four weights a byte, one scale a layer, the rest in half precision (arXiv 2405.14854).

    u = Q + 1, R = o/4:   byte[r, c] = u[r] << 6 | u[R + r] << 4 | u[2R + r] << 2 | u[3R + r]     Q (o, i) of -1, 0, 1

The layout of TerDiT's kernels. A file is a safetensors file with `<layer>.packed` (o/4, i) and `<layer>.alpha` in the
place of `<layer>.weight`; it takes memory on disk alone, for `read_packed` gives the network as it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from lab import models
from lab.config import JSON, config_from_json, config_to_json
from lab.results import write_whole
from lab.weights import sha256, tensors_of

SHIFTS = (6, 4, 2, 0)  # of the four quarters of the rows
KIND = "ternary"  # the entry of a file's metadata with the network's config


def pack(q: Tensor) -> Tensor:
    """Q (o, i) of -1, 0, 1 -> bytes (ceil(o/4), i); rows up to a multiple of 4 are filled with zeros."""
    u = F.pad(q, (0, 0, 0, -len(q) % 4)).to(torch.int16) + 1
    quarters = u.unflatten(0, (4, -1))
    return sum(quarter << shift for quarter, shift in zip(quarters, SHIFTS)).to(torch.uint8)


def unpack(packed: Tensor, rows: int | None = None) -> Tensor:
    """The inverse, in float32; `rows` o where it is no multiple of 4."""
    u = torch.cat([packed.to(torch.int16) >> shift & 3 for shift in SHIFTS])
    return (u - 1).float()[:rows]


def ternary_parts(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Q and alpha of a weight whose values are -alpha, 0 and alpha. Raises ValueError for any other."""
    alpha = weight.abs().max()
    q = weight.sign()
    if not torch.equal(alpha * q, weight):
        raise ValueError(f"a ternary weight has the values -a, 0 and a; this one has {len(weight.unique())} values")
    return q, alpha


def packed_bytes(net: nn.Module, layers: Sequence[str], dtype: torch.dtype = torch.float16) -> bytes:
    """A finished network as a file whose layers of these names are packed, and whose rest is of `dtype`.

    Raises ValueError for a layer that is not ternary.
    """
    tensors = tensors_of(net, dtype)
    for name in layers:
        try:
            q, alpha = ternary_parts(tensors.pop(f"{name}.weight"))
        except ValueError as error:
            raise ValueError(f"layer {name} can't be packed: {error}") from None
        tensors |= {f"{name}.packed": pack(q), f"{name}.alpha": alpha}
    return to_bytes(tensors, metadata={KIND: json.dumps(config_to_json(net.config))})


def write_packed(net: nn.Module, facts: Mapping[str, JSON], path: Path, dtype: torch.dtype = torch.float16) -> str:
    """Write a finished network by what its method ternary found of it (`layers`); gives the file's sha256."""
    write_whole(path, packed_bytes(net, facts["layers"], dtype))
    return sha256(path)


def read_packed(path: Path) -> nn.Module:
    """The network of a file that `write_packed` wrote, in float32 and eval mode. Raises ValueError for any other."""
    try:
        with safe_open(path, "pt") as file:
            plain = (file.metadata() or {}).get(KIND)
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no safetensors file: {error}") from None
    if plain is None:
        raise ValueError(f"{path.name} holds no packed network; `lab.packing.write_packed` writes one")
    net = models.build(config_from_json(json.loads(plain)))
    tensors = load_file(path)
    for name in [key.removesuffix(".packed") for key in tensors if key.endswith(".packed")]:
        rows, alpha = len(net.get_submodule(name).weight), tensors.pop(f"{name}.alpha").float()
        tensors[f"{name}.weight"] = alpha * unpack(tensors.pop(f"{name}.packed"), rows)
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return net.eval()
