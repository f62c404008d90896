"""A finished network as what is shipped: a module (z, y) -> image in one call.

Any network has that form, with its own forward inside: `OneStep`, and `Sampler` for a denoiser, whose ODE is solved
in the call. A one-step DiT of plain blocks is written out by hand instead, for it takes less: all that does not depend
on the noise is worked out beforehand. Without a timestep the only thing that conditions the blocks is the class, so
what their adaLN layers say is one of few rows: `Deployed.table` holds it for every class, exactly, and the embeddings
and the adaLN layers, a third of a block, are gone. The position table and the embedding's bias are one constant, the
scale of attention stands in the weights of q, and patches are cut by a matrix product.

B batch, N tokens, D width, H heads, d = D/H, K rows of the table, L blocks, p patch, C channels.
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from lab import diffusion
from lab.config import ADDED_LATER, DiTConfig, config_from_json, config_to_json, why_not_plain
from lab.data import ImageSpec
from lab.models.blocks.adaln import Attention, Block
from lab.models.dit import DiT
from lab.models.layers import EPS, MLP, Linear, attend, gelu
from lab.results import write_whole
from lab.weights import sha256

PER_BLOCK = 6  # rows of a block: shift, 1 + scale, gate of attention, then of the MLP
FINAL = 2  # shift, 1 + scale before the head
# What a DiT is built with; the norm is of what stands in the table.
PLAIN = (DiT, Block, Attention, MLP, Linear, nn.Conv2d, nn.Embedding, nn.ModuleList, nn.RMSNorm)


class DeployedBlock(nn.Module):
    """A DiT block that is told what its adaLN layer would say."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        D, M = config.width, config.hidden
        self.heads = config.heads
        self.qkv = nn.Linear(D, 3 * D)  # rows are [q / sqrt(d); k; v]
        self.proj = nn.Linear(D, D)
        self.fc1 = nn.Linear(D, M)
        self.fc2 = nn.Linear(M, D)

    def forward(self, x: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        """(B, N, D), six of (B or 1, 1, D) -> (B, N, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = rows
        x = x + gate1 * self.attend(normed(x, shift1, scale1))
        return x + gate2 * self.fc2(gelu(self.fc1(normed(x, shift2, scale2))))

    def attend(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        out = attend(q, k, v, 1.0)  # (B, H, N, d)
        return self.proj(out.transpose(1, 2).reshape(B, N, D))


class Deployed(nn.Module):
    """image = deployed(z, y): a plain one-step student's image, with less to compute and to keep."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        D, p = config.width, config.patch
        out = config.out_channels or config.channels
        self.embed = nn.Linear(config.channels * p * p, D, bias=False)
        self.positions = nn.Parameter(torch.zeros(config.tokens, D))  # and the bias of the embedding
        self.table = nn.Parameter(torch.zeros(rows_of(config), PER_BLOCK * config.depth + FINAL, D))
        self.blocks = nn.ModuleList(DeployedBlock(config) for _ in range(config.depth))
        self.head = nn.Linear(D, p * p * out)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Unit noise (B, C, H, W) and classes (B,), or None of an unconditional net -> image (B, C_out, H, W)."""
        table = self.table if y is None else self.table[y]
        rows = table.split(1, dim=1)  # (B or 1, 1, D) each
        x = self.embed(self.patches(z)) + self.positions  # (B, N, D)
        for index, block in enumerate(self.blocks):
            x = block(x, rows[PER_BLOCK * index : PER_BLOCK * (index + 1)])
        return self.image(self.head(normed(x, *rows[-FINAL:])))

    def patches(self, z: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, C*p*p)."""
        p, side = self.config.patch, self.config.image_size // self.config.patch
        x = z.view(z.shape[0], -1, side, p, side, p).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(z.shape[0], side * side, -1)

    def image(self, x: Tensor) -> Tensor:
        """(B, N, p*p*C) -> (B, C, H, W)."""
        p, side = self.config.patch, self.config.image_size // self.config.patch
        x = x.view(x.shape[0], side, side, p, p, -1).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(x.shape[0], -1, side * p, side * p)


def normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(x) scale + shift; the 1 of adaLN's 1 + scale stands in the table."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * scale + shift


def rows_of(config: DiTConfig) -> int:
    """K: a row for every class and the null class; one for an unconditional net."""
    return config.num_classes + config.null_class or 1


# --- from a finished network ---------------------------------------------------------------------


class OneStep(nn.Module):
    """image = net(z, y): a one-step network of any kind, as it is."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.config, self.net = net.config, net

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(z, None, y)


class Sampler(nn.Module):
    """image = sampler(z, y): a denoiser with the solver of its ODE around it, as teachers.EdmTeacher computes it."""

    def __init__(self, net: nn.Module, sigma_data: float, solver: str) -> None:
        super().__init__()
        self.config, self.net, self.solver = net.config, diffusion.Denoiser(net, sigma_data), solver
        self.sigmas = diffusion.sigmas_of(solver).tolist()  # constants of an export

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return self.net(x.float(), sigma.float(), y).float()

        return diffusion.solve(denoise, z, self.solver, sigmas=self.sigmas)[0]


def is_plain(net: nn.Module) -> bool:
    """Whether a network is a one-step DiT of plain blocks in which no part of another kind stands."""
    parts = (part for name, part in net.named_modules() if ".edits." not in name)
    return why_not_plain(net.config) is None and all(type(part) in PLAIN for part in parts)


@torch.no_grad()
def deploy(net: nn.Module, spec: ImageSpec | None = None, solver: str = diffusion.SOLVER) -> nn.Module:
    """What is shipped of a finished network, with equal output: (z, y) -> image. The network is left as it is.

    The spec and the solver are for denoisers; raises ValueError for a denoiser without a spec.
    """
    plain, net = is_plain(net), copy.deepcopy(net).eval().requires_grad_(False)
    for layer in net.modules():
        if isinstance(layer, Linear):
            layer.fold()
    if plain:
        return _written_out(net)
    if not net.config.time:
        return OneStep(net).eval()
    if spec is None:
        raise ValueError("a denoiser is deployed with its solver, which needs to know its images: give their spec")
    return Sampler(net, spec.sigma_data, solver).eval()


def _written_out(student: DiT) -> Deployed:
    """The form by hand of a plain student without edits."""
    config = student.config
    net = Deployed(config).to(student.head.weight)
    net.embed.weight.copy_(student.embed.weight.flatten(1))
    net.positions.copy_(student.positions[0] + student.embed.bias)
    net.table.copy_(table_of(student))
    for mine, theirs in zip(net.blocks, student.blocks):
        pairs = [(mine.qkv, theirs.attn.qkv), (mine.proj, theirs.attn.proj),
                 (mine.fc1, theirs.mlp.fc1), (mine.fc2, theirs.mlp.fc2)]  # fmt: skip
        for layer, source in pairs:
            layer.weight.copy_(source.weight)
            layer.bias.copy_(source.bias)
        for q in (mine.qkv.weight[: config.width], mine.qkv.bias[: config.width]):
            q /= math.sqrt(config.width // config.heads)
    net.head.load_state_dict(student.head.state_dict())
    return net.eval().requires_grad_(False)


def table_of(student: DiT) -> Tensor:
    """What all adaLN layers say to every class, their scales plus one; (K, 6 L + 2, D)."""
    config, layers = student.config, [*(block.modulation for block in student.blocks), student.final_adaln]
    classes = torch.arange(rows_of(config), device=student.head.weight.device)
    cond = F.silu(student.condition(None, classes, len(classes)).sum)
    table = torch.cat([layer(cond).unflatten(-1, (-1, config.width)) for layer in layers], dim=1)
    scales = [PER_BLOCK * block + at for block in range(config.depth) for at in (1, 4)]
    table[:, [*scales, PER_BLOCK * config.depth + 1]] += 1
    return table


# --- on disk ------------------------------------------------------------------------------------


def file_bytes(net: Deployed, dtype: torch.dtype = torch.float16) -> bytes:
    """The net as a safetensors file that says its own shape."""
    tensors = {name: p.detach().to("cpu", dtype).contiguous() for name, p in net.state_dict().items()}
    plain = config_to_json(net.config)  # without what was added since, so that a file has as many bytes as it ever had
    shape = {k: v for k, v in plain.items() if ("dit", k) not in ADDED_LATER or ADDED_LATER["dit", k] != v}
    return to_bytes(tensors, metadata={"deployed": json.dumps(shape)})


def save(net: Deployed, path: Path, dtype: torch.dtype = torch.float16) -> str:
    """Write the net, in half precision unless told otherwise; gives the file's sha256."""
    write_whole(path, file_bytes(net, dtype))
    return sha256(path)


def load(path: Path) -> Deployed:
    """A net that `save` wrote, in float32. Raises ValueError for any other file."""
    try:
        with safe_open(path, "pt") as file:
            plain = (file.metadata() or {}).get("deployed")
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no safetensors file: {error}") from None
    if plain is None:
        raise ValueError(f"{path.name} holds no deployed network; `lab.deploy.save` writes one")
    net = Deployed(config_from_json(json.loads(plain)))
    net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return net.eval().requires_grad_(False)
