"""The network of a pack in plain torch, for boards that have torch and no other runtime.

One file, Python >= 3.10, torch and the standard library alone (a bare torch has no numpy). It computes
what lab/deploy.py's Deployed does, from the file that it writes: patches, a table instead of
conditioning, blocks of attention and MLP, pixels. A network of another kind stands in a program of
torch.export, which this file only opens.

B batch, N tokens, D width, H heads, p patch, C channels.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
import torch.nn.functional as F

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # as safetensors names them
EPS = 1e-6  # of every layer norm


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors, metadata) of a file: eight bytes of length, so much JSON, then the numbers."""
    content = path.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:start])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, facts in header.items():
        first, end = facts["data_offsets"]
        flat = torch.frombuffer(bytearray(content[start + first : start + end]), dtype=DTYPES[facts["dtype"]])
        tensors[name] = flat.reshape(facts["shape"])
    return tensors, metadata


class Program:
    """image = program(z, y) of a .pt2 of torch.export, in the precision that it was written in."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        from torch.export.passes import move_to_device_pass  # with its constants, which `to` would leave behind

        self.module = move_to_device_pass(torch.export.load(path), device).module()

    @torch.inference_mode()
    def __call__(self, z: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        return self.module(z) if y is None else self.module(z, y)


def opened(path: Path, device: str, dtype: torch.dtype) -> Program | Net:
    """The network of a pack's file."""
    return Program(path, device) if path.suffix == ".pt2" else Net(path, device, dtype)


class Net:
    """image = net(z, y): unit noise (B, C, H, W) and classes (B,), or None of an unconditional net."""

    def __init__(self, path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        weights, metadata = read_safetensors(path)
        self.config = json.loads(metadata["deployed"])
        self.dtype = dtype
        self.w = {name: value.to(device, dtype) for name, value in weights.items()}

    @torch.inference_mode()
    def __call__(self, z: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        w, p, side = self.w, self.config["patch"], self.config["image_size"] // self.config["patch"]
        B = len(z)
        x = z.to(self.dtype).reshape(B, -1, side, p, side, p).permute(0, 2, 4, 1, 3, 5).reshape(B, side * side, -1)
        x = F.linear(x, w["embed.weight"]) + w["positions"]  # (B, N, D)
        rows = (w["table"] if y is None else w["table"][y]).split(1, dim=1)  # (B or 1, 1, D) each
        for i in range(self.config["depth"]):
            x = self.block(x, f"blocks.{i}", rows[6 * i : 6 * i + 6])
        x = F.linear(normed(x, *rows[-2:]), w["head.weight"], w["head.bias"])  # (B, N, p*p*C)
        x = x.reshape(B, side, side, p, p, -1).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(B, -1, side * p, side * p).float()

    def block(self, x: torch.Tensor, name: str, rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = rows
        B, N, D = x.shape
        heads = self.config["heads"]
        qkv = self.linear(f"{name}.qkv", normed(x, shift1, scale1))
        q, k, v = qkv.view(B, N, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v, scale=1.0)  # q's weights hold the scale
        x = x + gate1 * self.linear(f"{name}.proj", h.transpose(1, 2).reshape(B, N, D))
        h = F.gelu(self.linear(f"{name}.fc1", normed(x, shift2, scale2)), approximate="tanh")
        return x + gate2 * self.linear(f"{name}.fc2", h)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])


def normed(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """LN(x) scale + shift; the table's scales hold the 1 of adaLN."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * scale + shift
