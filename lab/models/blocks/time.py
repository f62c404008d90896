"""DiffiT's block: what is said stands in the projections of attention, not in adaLN (arXiv 2312.02139, TMSA).

    q = x W_qs + c W_qc   k = x W_ks + c W_kc   v = x W_vs + c W_vc        c (B, D): time + class, for every token
    x = x + softmax(q k^T / sqrt(d) + Bias) v W_o  of LN(x);  x = x + MLP(LN(x))

A one-step student has no time, so c is its class. Norms have an affine; Bias (H, N, N) is learned by relative position,
(2 side - 1)^2 values a head, so it ties a network to one number of tokens. The softmax does not see c W_kc: what it
adds to a row of scores is one number.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lab.config import DiTConfig
from lab.models.layers import EPS, MLP, Condition, Linear, self_attention
from lab.models.taps import Taps


class TimeAttention(nn.Module):
    """Multi-head self-attention of a grid's tokens whose q, k and v are each told the condition."""

    def __init__(self, width: int, heads: int, side: int, *, head_dim: int | None = None, told: int | None = None
                 ) -> None:  # fmt: skip
        """`side` of the grid; `told`: width of the condition, None = `width`."""
        super().__init__()
        self.heads = heads
        inner = heads * (head_dim or width // heads)
        self.qkv = Linear(width, 3 * inner, matrices=3)
        self.cond = Linear(told or width, 3 * inner, matrices=0, bias=False)  # for AdamW, as adaLN's
        self.proj = Linear(inner, width)
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        self.register_buffer("places", relative_places(side), persistent=False)

    def forward(self, x: Tensor, cond: Condition, taps: Taps | None = None, index: int = 0) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        qkv = self.qkv(x) + self.cond(cond.sum).unsqueeze(1)
        bias = self.table[self.places].permute(2, 0, 1)  # (H, N, N)
        return self.proj(self_attention(qkv, self.heads, taps, index, bias))


class Block(nn.Module):
    """x + TMSA(LN(x)), then x + MLP(LN(x))."""

    taps: ClassVar[tuple[str, ...]] = ("block", "attn", "q", "k", "v")

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        D, side = config.width, config.image_size // config.patch
        self.norm1, self.norm2 = nn.LayerNorm(D, eps=EPS), nn.LayerNorm(D, eps=EPS)
        self.attn = TimeAttention(D, config.heads, side, head_dim=config.head_dim)
        self.mlp = MLP(D, config.hidden)

    def initialise(self) -> None:
        nn.init.trunc_normal_(self.attn.table, std=0.02)

    def forward(self, x: Tensor, cond: Condition, taps: Taps | None = None, index: int = 0) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.attn(self.norm1(x), cond, taps, index)
        x = x + self.mlp(self.norm2(x))
        if taps is not None:
            taps.put(f"block{index}", x)
        return x


def relative_places(side: int) -> Tensor:
    """(N, N): the bias table's row for tokens i, j of a square grid: (dy + s - 1) (2s - 1) + dx + s - 1, as in Swin;
    dy, dx rows and columns from j to i.
    """
    i = torch.arange(side * side)
    dy = (i // side)[:, None] - i // side
    dx = (i % side)[:, None] - i % side
    return (dy + side - 1) * (2 * side - 1) + dx + side - 1
