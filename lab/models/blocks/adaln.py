"""The DiT block: adaLN-zero conditioning (arXiv 2212.09748, section 3.2)."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from lab.config import DiTConfig
from lab.models.layers import MLP, Condition, Linear, modulate, self_attention
from lab.models.taps import Taps


class Attention(nn.Module):
    """Multi-head self-attention; `cond` is there for parts that replace this one."""

    def __init__(self, width: int, heads: int, head_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * (head_dim or width // heads)
        self.qkv = Linear(width, 3 * inner, matrices=3)  # rows are [q; k; v], each H heads of d
        self.proj = Linear(inner, width)

    def forward(self, x: Tensor, cond: Condition, taps: Taps | None = None, index: int = 0) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.proj(self_attention(self.qkv(x), self.heads, taps, index))


def adaln_norm(width: int) -> nn.RMSNorm:
    """RMSNorm of what an adaLN layer says, (B, 6 D): weights of three values make it large (arXiv 2405.14854)."""
    return nn.RMSNorm(6 * width, eps=1e-5)


class Block(nn.Module):
    """x + g1 Attn(LN(x) (1 + sc1) + sh1), then the same of the MLP; shifts, scales and gates of SiLU(time + class)."""

    taps: ClassVar[tuple[str, ...]] = ("block", "attn", "q", "k", "v")

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.attn = Attention(config.width, config.heads, config.head_dim)
        self.mlp = MLP(config.width, config.hidden)
        # For AdamW: with few classes its gradient has a rank as low, and an orthogonal step would be noise elsewhere.
        self.adaln = Linear(config.width, 6 * config.width, matrices=0)
        self.adaln_norm = adaln_norm(config.width) if config.adaln_norm else None

    def initialise(self) -> None:
        """Zero gates: the block starts as the identity."""
        nn.init.zeros_(self.adaln.weight)
        nn.init.zeros_(self.adaln.bias)

    def modulation(self, cond: Tensor) -> Tensor:
        """SiLU of the condition (B, D) -> shift, scale, gate of attention, then of the MLP, (B, 6 D)."""
        said = self.adaln(cond)
        return said if self.adaln_norm is None else self.adaln_norm(said.to(self.adaln_norm.weight.dtype))

    def forward(self, x: Tensor, cond: Condition, taps: Taps | None = None, index: int = 0) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        sh1, sc1, g1, sh2, sc2, g2 = self.modulation(F.silu(cond.sum)).chunk(6, -1)
        x = x + g1.unsqueeze(1) * self.attn(modulate(x, sh1, sc1), cond, taps, index)
        x = x + g2.unsqueeze(1) * self.mlp(modulate(x, sh2, sc2))
        if taps is not None:
            taps.put(f"block{index}", x)
        return x
