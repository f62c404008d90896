"""A finished network as what is shipped: a module (z, y) -> image in one call.

Any network has that form, with its own forward inside: `OneStep`, and `Sampler` for a denoiser, whose ODE is solved
in the call. A one-step DiT is written out by hand instead, for it takes less: all that does not depend on the noise is
worked out beforehand. Without a timestep the only thing that conditions the blocks is the class, so what their layers
are told is one of few rows: `Folded.table` holds it for every class, exactly, and the embeddings and the layers that
say it, a third of a block of adaLN, are gone; of a dynamic block it says which heads and channels act, too. The table
of positions and the embedding's bias are one constant, the scale of attention stands in the weights of q, and patches
are cut by a matrix product. A routed net keeps each expert so.

B batch, N tokens, D width, H heads of d channels, K rows of the table, L blocks, p patch, C channels.
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from lab import diffusion
from lab.config import ADDED_LATER, DiTConfig, config_from_json, config_to_json, why_not_folded, why_not_plain
from lab.counts import FINAL, PER_BLOCK, rows_of
from lab.data import ImageSpec
from lab.models.blocks import adaln, dynamic, time
from lab.models.dit import DiT
from lab.models.layers import EPS, MLP, Condition, Linear, attend, gelu
from lab.models.routed import Routed
from lab.results import write_whole
from lab.weights import fill, opened, sha256

# What a DiT is built with; the norm of adaLN is of what stands in the table, that of a time block in its products.
PARTS = (DiT, MLP, Linear, nn.Conv2d, nn.Embedding, nn.ModuleList)
KINDS = {"adaln": (*PARTS, adaln.Block, adaln.Attention, nn.RMSNorm),
         "time": (*PARTS, time.Block, time.TimeAttention, nn.LayerNorm),
         "dynamic": (*PARTS, dynamic.Block, adaln.Attention, nn.RMSNorm, nn.Linear, nn.Sequential, nn.ReLU)
         }  # fmt: skip


class FoldedBlock(nn.Module):
    """The four products of a block; each kind adds what it does with the rows that it is told."""

    rows: ClassVar[int]

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        D, M, self.heads = config.width, config.hidden, config.heads
        inner = config.heads * (config.head_dim or D // config.heads)
        self.qkv = nn.Linear(D, 3 * inner)  # rows are [q / sqrt(d); k; v]
        self.proj = nn.Linear(inner, D)
        self.fc1 = nn.Linear(D, M)
        self.fc2 = nn.Linear(M, D)

    @torch.no_grad()
    def take(self, source: nn.Module) -> None:
        """The weights of a block without edits."""
        pairs = [(self.qkv, source.attn.qkv), (self.proj, source.attn.proj),
                 (self.fc1, source.mlp.fc1), (self.fc2, source.mlp.fc2)]  # fmt: skip
        for layer, theirs in pairs:
            layer.weight.copy_(theirs.weight)
            layer.bias.copy_(theirs.bias)
        inner = self.proj.in_features
        for q in (self.qkv.weight[:inner], self.qkv.bias[:inner]):
            q /= math.sqrt(inner // self.heads)


class DeployedBlock(FoldedBlock):
    """A DiT block that is told what its adaLN layer would say."""

    rows = PER_BLOCK

    def forward(self, x: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        """(B, N, D), six of (B or 1, 1, D) -> (B, N, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = rows
        x = x + gate1 * self.attend(normed(x, shift1, scale1))
        return x + gate2 * self.fc2(gelu(self.fc1(normed(x, shift2, scale2))))

    def attend(self, x: Tensor, acts: Tensor | None = None) -> Tensor:
        """(B, N, D), which heads act (B or 1, H) -> (B, N, D)."""
        B, N, _ = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = attend(q, k, v, 1.0)  # (B, H, N, d)
        out = out if acts is None else out * acts[:, :, None, None]
        return self.proj(out.transpose(1, 2).reshape(B, N, -1))

    @staticmethod
    @torch.no_grad()
    def said(source: adaln.Block, cond: Condition) -> Tensor:
        """What the block is told under each of K conditions (K, D), its scales plus one; (K, 6, D)."""
        rows = source.modulation(F.silu(cond.sum)).unflatten(-1, (PER_BLOCK, -1)).clone()
        rows[:, [1, 4]] += 1
        return rows


class DeployedDynamicBlock(DeployedBlock):
    """A block of lab/models/blocks/dynamic.py: two rows more, whose first H values say which heads and which groups of
    channels act. Which tokens do is found out as ever. It multiplies by its masks, which saves nothing.
    """

    rows = PER_BLOCK + 2

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        self.router = dynamic.token_router(config.width)

    def forward(self, x: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        """(B, N, D), eight of (B or 1, 1, D) -> (B, N, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2, heads, groups = rows
        heads, groups = (row[:, 0, : self.heads] for row in (heads, groups))
        x = x + gate1 * self.attend(normed(x, shift1, scale1), heads)
        h = self.fc2(dynamic.masked(gelu(self.fc1(normed(x, shift2, scale2))), groups))
        return x + gate2 * h * (self.router(x) > 0).to(h.dtype)

    @torch.no_grad()
    def take(self, source: dynamic.Block) -> None:
        """The weights of a block without edits."""
        super().take(source)
        self.router.load_state_dict(source.token_router.state_dict())

    @staticmethod
    @torch.no_grad()
    def said(source: dynamic.Block, cond: Condition) -> Tensor:
        """What the block is told under each of K conditions (K, D); (K, 8, D)."""
        acts = source.widths(cond)  # (K, 2, H)
        room = cond.sum.shape[-1] - acts.shape[-1]
        return torch.cat([DeployedBlock.said(source, cond), F.pad(acts, (0, room))], 1)


class DeployedTimeBlock(FoldedBlock):
    """A block of lab/models/blocks/time.py that is told two rows: what to add to every q, and to attention's output.

    Under one condition c W_kc adds the same to all scores of a query, which the softmax does not see, and c W_vc the
    same to every mix, so W_o c W_vc to what attention gives. The norms' scales and shifts stand in the products.
    """

    rows = 2

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        side = config.image_size // config.patch
        self.bias = nn.Parameter(torch.zeros(config.heads, (2 * side - 1) ** 2))
        self.register_buffer("places", time.relative_places(side), persistent=False)

    def forward(self, x: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
        """(B, N, D), two of (B or 1, 1, D) -> (B, N, D)."""
        query, mixed = rows
        B, N, D = x.shape
        q, k, v = self.qkv(F.layer_norm(x, (D,), eps=EPS)).chunk(3, -1)
        q, k, v = (part.view(B, N, self.heads, -1).transpose(1, 2) for part in (q + query, k, v))
        out = attend(q, k, v, 1.0, self.bias[:, self.places])  # (B, H, N, d)
        x = x + self.proj(out.transpose(1, 2).reshape(B, N, -1)) + mixed
        return x + self.fc2(gelu(self.fc1(F.layer_norm(x, (D,), eps=EPS))))

    @torch.no_grad()
    def take(self, source: time.Block) -> None:
        """The weights of a block without edits."""
        super().take(source)
        self.bias.copy_(source.attn.table.T)
        for layer, norm in ((self.qkv, source.norm1), (self.fc1, source.norm2)):
            layer.bias += layer.weight @ norm.bias
            layer.weight *= norm.weight

    @staticmethod
    @torch.no_grad()
    def said(source: time.Block, cond: Condition) -> Tensor:
        """What the block is told under each of K conditions (K, D); (K, 2, D)."""
        attn = source.attn
        q, _, v = attn.cond(cond.sum).chunk(3, -1)
        return torch.stack([q / math.sqrt(q.shape[-1] // attn.heads), v @ attn.proj.weight.T], 1)


# Of the blocks that can be written out.
FORMS = {"adaln": DeployedBlock, "time": DeployedTimeBlock, "dynamic": DeployedDynamicBlock}


class Folded(nn.Module):
    """image = net(z, y): a one-step DiT's image, with less to compute and to keep."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        D, p = config.width, config.patch
        out = config.out_channels or config.channels
        self.embed = nn.Linear(config.channels * p * p, D, bias=False)
        self.positions = nn.Parameter(torch.zeros(config.tokens, D))  # and the bias of the embedding
        form = FORMS[config.block]
        self.table = nn.Parameter(torch.zeros(rows_of(config), form.rows * config.depth + FINAL, D))
        self.blocks = nn.ModuleList(form(config) for _ in range(config.depth))
        self.head = nn.Linear(D, p * p * out)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Unit noise (B, C, H, W) and classes (B,), or None of an unconditional net -> image (B, C_out, H, W)."""
        table = self.table if y is None else self.table[y]
        rows = table.split(1, dim=1)  # (B or 1, 1, D) each
        x = self.embed(self.patches(z)) + self.positions  # (B, N, D)
        for index, block in enumerate(self.blocks):
            x = block(x, rows[block.rows * index : block.rows * (index + 1)])
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


class Deployed(Folded):
    """That of a plain student, which int8, the prediction of latency and the boards know operation by operation."""


def form_of(config: DiTConfig) -> Folded:
    """The empty form of a shape."""
    return (Folded if why_not_plain(config) else Deployed)(config)


def normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(x) scale + shift; the 1 of adaLN's 1 + scale stands in the table."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * scale + shift


# --- from a finished network ---------------------------------------------------------------------


class OneStep(nn.Module):
    """image = net(z, y): a one-step network of any kind, as it is."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.config, self.net = net.config, net

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.net(z, None, y)


class Expert(nn.Module):
    """A written-out expert, called as a network is."""

    def __init__(self, net: Folded) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: None, y: Tensor, taps: None = None) -> Tensor:
        return self.net(x, y)


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


def can_fold(net: nn.Module) -> bool:
    """Whether a network is a one-step DiT of blocks that FORMS has, in which no part of another kind stands."""
    if why_not_folded(net.config):
        return False
    known = KINDS[net.config.block]
    return all(type(part) in known for name, part in net.named_modules() if ".edits." not in name)


@torch.no_grad()
def deploy(net: nn.Module, spec: ImageSpec | None = None, solver: str = diffusion.SOLVER) -> nn.Module:
    """What is shipped of a finished network, with equal output: (z, y) -> image. The network is left as it is.

    The spec and the solver are for denoisers; raises ValueError for a denoiser without a spec.
    """
    folds, net = can_fold(net), copy.deepcopy(net).eval().requires_grad_(False)
    for layer in net.modules():
        if isinstance(layer, Linear):
            layer.fold()
    if folds:
        return _written_out(net)
    if isinstance(net, Routed) and all(map(can_fold, net.experts)):
        net.experts = nn.ModuleList(Expert(_written_out(expert)) for expert in net.experts)
    if not net.config.time:
        return OneStep(net).eval()
    if spec is None:
        raise ValueError("a denoiser is deployed with its solver, which needs to know its images: give their spec")
    return Sampler(net, spec.sigma_data, solver).eval()


def _written_out(student: DiT) -> Folded:
    """The form by hand of a student without edits."""
    config = student.config
    net = form_of(config).to(student.head.weight)
    net.embed.weight.copy_(student.embed.weight.flatten(1))
    net.positions.copy_(student.positions[0] + student.embed.bias)
    net.table.copy_(table_of(student))
    for mine, theirs in zip(net.blocks, student.blocks):
        mine.take(theirs)
    net.head.load_state_dict(student.head.state_dict())
    return net.eval().requires_grad_(False)


def table_of(student: DiT) -> Tensor:
    """What all blocks and the last norm are told under every class; (K, rows of a block x L + 2, D)."""
    config = student.config
    classes = torch.arange(rows_of(config), device=student.head.weight.device)
    cond = student.condition(None, classes, len(classes))
    final = student.final_adaln(F.silu(cond.sum)).unflatten(-1, (FINAL, -1)).clone()
    final[:, 1] += 1
    return torch.cat([*(FORMS[config.block].said(block, cond) for block in student.blocks), final], 1)


# --- on disk ------------------------------------------------------------------------------------


def file_bytes(net: Folded, dtype: torch.dtype = torch.float16) -> bytes:
    """The net as a safetensors file that says its own shape."""
    tensors = {name: p.detach().to("cpu", dtype).contiguous() for name, p in net.state_dict().items()}
    plain = config_to_json(net.config)  # without what was added since, so that a file has as many bytes as it ever had
    shape = {k: v for k, v in plain.items() if ("dit", k) not in ADDED_LATER or ADDED_LATER["dit", k] != v}
    return to_bytes(tensors, metadata={"deployed": json.dumps(shape)})


def save(net: Folded, path: Path, dtype: torch.dtype = torch.float16) -> str:
    """Write the net, in half precision unless told otherwise; gives the file's sha256."""
    write_whole(path, file_bytes(net, dtype))
    return sha256(path)


def load(path: Path) -> Folded:
    """A net that `save` wrote, in float32. Raises ValueError for any other file."""
    tensors, said = opened(path)
    if "deployed" not in said:
        raise ValueError(f"{path.name} holds no deployed network; `lab.deploy.save` writes one")
    return fill(form_of(config_from_json(json.loads(said["deployed"]))), tensors, path.name).requires_grad_(False)
