"""The Diffusion Transformer (arXiv 2212.09748): raw net F(x, t, y), denoiser or one-step student.

B batch, N tokens, D width, p patch, C channels. Three seams keep every method out of this file: `Linear` (weight
edits), `taps` (inner tensors), `student.blocks` (replaceable parts). Its blocks are of one kind of lab/models/blocks.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.config import DiTConfig
from lab.counts import FREQUENCIES
from lab.models.blocks import BLOCKS
from lab.models.layers import Condition, Linear, initialise, modulate, position_table, unpatchify
from lab.models.taps import Taps


class TimeEmbedding(nn.Module):
    """MLP of cos||sin features of a timestep: (B,) -> (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(2 * FREQUENCIES, width)
        self.fc2 = Linear(width, width)
        # Kept with the weights: diffusers' port of the same network spaces them differently.
        self.register_buffer("frequencies", frequencies(FREQUENCIES))

    def forward(self, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * self.frequencies
        return self.fc2(F.silu(self.fc1(torch.cat([angles.cos(), angles.sin()], -1))))


def frequencies(intervals: int) -> Tensor:
    """1e4^(-i / intervals), i = 0..127; published DiT has 128 intervals, diffusers' DiT 127; (128,)."""
    return torch.exp(-math.log(1e4) * torch.arange(FREQUENCIES, dtype=torch.float32) / intervals)


class DiT(nn.Module):
    """F(x, t, y, taps=None): a denoiser's raw net with `time`, else z -> image in one step.

    Taps: `tokens` before the first block, and of every block what its class names, such as `block<i>`.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        D, p = config.width, config.patch
        out = config.out_channels or config.channels
        self.embed = nn.Conv2d(config.channels, D, p, p)
        self.time = TimeEmbedding(D) if config.time else None
        labels = config.num_classes + config.null_class
        self.label = nn.Embedding(labels, D) if labels else None
        # Unconditional and one-step: a learned constant stands for what cond would say.
        self.cond = nn.Parameter(torch.zeros(D)) if not labels and not config.time else None
        kind = BLOCKS[config.block]
        self.blocks = nn.ModuleList(kind(config) for _ in range(config.depth))
        self.final_adaln = Linear(D, 2 * D)
        self.head = Linear(D, p * p * out)
        self.register_buffer("positions", position_table(D, config.image_size // p), persistent=False)
        self.tap_names = frozenset(["tokens"] + [f"{k}{i}" for i in range(config.depth) for k in kind.taps])
        self._initialise()

    def _initialise(self) -> None:
        initialise(self)
        if self.time is not None:
            nn.init.normal_(self.time.fc1.weight, std=0.02)
            nn.init.normal_(self.time.fc2.weight, std=0.02)
        for block in self.blocks:
            block.initialise()
        for linear in (self.final_adaln, self.head):  # zero: the first output is exactly 0
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def linears(self) -> list[Linear]:
        """Every linear layer inside the blocks; what weight edits and Muon act on."""
        return [m for m in self.blocks.modules() if isinstance(m, Linear)]

    def condition(self, t: Tensor | None, y: Tensor | None, batch: int) -> Condition:
        """The time and label embeddings that this net has, each (B, D), and their sum."""
        time = None if self.time is None else self.time(t)
        label = None if self.label is None else self.label(y)
        parts = [part for part in (time, label) if part is not None]
        return Condition(time, label, sum(parts) if parts else self.cond.expand(batch, -1))

    def forward(self, x: Tensor, t: Tensor | None, y: Tensor | None, taps: Taps | None = None, **mode: object
                ) -> Tensor:  # fmt: skip
        """(B, C, H, W), (B,) or None, (B,) or None -> (B, C_out, H, W); `mode` goes to the blocks."""
        cond = self.condition(t, y, x.shape[0])  # len would fix the batch of an export
        x = self.embed(x).flatten(2).mT + self.positions  # (B, N, D)
        if taps is not None:
            taps.put("tokens", x)
        for index, block in enumerate(self.blocks):
            x = block(x, cond, taps, index, **mode)
        shift, scale = self.final_adaln(F.silu(cond.sum)).chunk(2, -1)
        p = self.config.patch
        return unpatchify(self.head(modulate(x, shift, scale)), self.config.image_size // p, p)


# --- key maps -----------------------------------------------------------------------------------

_PUBLISHED = {  # ours -> facebookresearch/DiT
    "embed.": "x_embedder.proj.", "time.fc1.": "t_embedder.mlp.0.", "time.fc2.": "t_embedder.mlp.2.",
    "label.": "y_embedder.embedding_table.", "final_adaln.": "final_layer.adaLN_modulation.1.",
    "head.": "final_layer.linear.", ".adaln.": ".adaLN_modulation.1.",
}  # fmt: skip


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under facebookresearch/DiT's parameter names, under ours."""
    ours = {}
    for name, value in state.items():
        if name == "pos_embed":
            continue
        for mine, theirs in _PUBLISHED.items():
            name = name.replace(theirs, mine)
        ours[name] = value
    return ours | {"time.frequencies": frequencies(FREQUENCIES)}


_DIFFUSERS = {  # ours -> diffusers' DiTTransformer2DModel
    "embed.": "pos_embed.proj.", "head.": "proj_out_2.", "final_adaln.": "proj_out_1.",
    ".mlp.fc1.": ".ff.net.0.proj.", ".mlp.fc2.": ".ff.net.2.", ".adaln.": ".norm1.linear.",
    ".attn.proj.": ".attn1.to_out.0.", "blocks.": "transformer_blocks.",
}  # fmt: skip
_EMBEDDERS = {  # diffusers keeps one copy of the embedders in every block
    "time.fc1.": "timestep_embedder.linear_1.", "time.fc2.": "timestep_embedder.linear_2.",
    "label.": "class_embedder.embedding_table.",
}  # fmt: skip


def from_diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A DiTTransformer2DModel's state dict under our names; its blocks share one embedder.

    Raises ValueError if the embedders of two blocks differ: our net has one.
    """
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "pos_embed.pos_embed":
            continue
        if ".norm1.emb." in name:
            name = name.split(".norm1.emb.")[1]
            for mine, theirs in _EMBEDDERS.items():
                name = name.replace(theirs, mine)
            if name in ours and not torch.equal(ours[name], value):
                raise ValueError(f"the diffusers DiT has a different {name} in every block; ours has one")
        for mine, theirs in _DIFFUSERS.items():
            name = name.replace(theirs, mine)
        ours[name] = value
    for i in {n.split(".")[1] for n in ours if n.startswith("blocks.")}:
        for part in ("weight", "bias"):
            qkv = [ours.pop(f"blocks.{i}.attn1.to_{k}.{part}") for k in "qkv"]
            ours[f"blocks.{i}.attn.qkv.{part}"] = torch.cat(qkv)
    return ours | {"time.frequencies": frequencies(FREQUENCIES - 1)}
