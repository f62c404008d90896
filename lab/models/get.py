"""GET's student and the ViT it is held against (arXiv 2401.08639): one-step nets z -> image that never hear of time.

    block:  x = x + proj(attention(qkv(LN(x)) + e_y + u));  x = x + fc2(GELU(fc1(LN(x))))       exact GELU, affine norms
    ViT:    `depth` blocks, u = 0
    GET:    the same, then u_1 .. u_n = Linear(D -> 3Dn)(x), and from z = 0 a group of n blocks applied `iterations`
            times over, u_j in block j; the head reads the last z

e_y is one row of a table (K, 3D) for all tokens and blocks. The published net begins with random tokens, so that its
image is a random function of the noise; here they are zeros. It also prices every iterate in training, here the last.

B batch, N tokens, D width, K classes, n blocks of the group.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.config import GETConfig
from lab.models.layers import EPS, MLP, Linear, initialise, position_table, self_attention, unpatchify
from lab.models.taps import Taps


class Attention(nn.Module):
    """Multi-head self-attention with something added to its q, k and v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, matrices=3)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, added: Tensor | None, taps: Taps | None = None, index: int = 0) -> Tensor:
        """(B, N, D), (B, N or 1, 3D) -> (B, N, D)."""
        qkv = self.qkv(x)
        qkv = qkv if added is None else qkv + added
        return self.proj(self_attention(qkv, self.heads, taps, index))


class Block(nn.Module):
    """A ViT's block; `added` as in the attention."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.attn = Attention(width, heads)
        self.mlp = MLP(width, hidden, F.gelu)

    def forward(self, x: Tensor, added: Tensor | None = None, taps: Taps | None = None, index: int = 0) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.attn(self.norm1(x), added, taps, index)
        x = x + self.mlp(self.norm2(x))
        if taps is not None:
            taps.put(f"block{index}", x)
        return x


class GET(nn.Module):
    """image = net(z, None, y, taps).

    `blocks` are the `depth` untied ones, then the group's, each held once. Taps: `tokens`, and `block<i>`, `attn<i>`,
    `q<i>`, `k<i>`, `v<i>` of every block; the group's are those of its last iteration.
    """

    def __init__(self, config: GETConfig) -> None:
        super().__init__()
        self.config = config
        D, p = config.width, config.patch
        self.embed = nn.Conv2d(config.channels, D, p, p)
        self.label = nn.Embedding(config.num_classes, 3 * D) if config.num_classes else None
        group = config.tied if config.iterations else 0
        hidden = [config.hidden] * config.depth + [config.group_hidden] * group
        self.blocks = nn.ModuleList(Block(D, config.heads, width) for width in hidden)
        self.inject = Linear(D, 3 * D * group, matrices=3 * group, bias=False) if group else None
        self.norm = nn.LayerNorm(D, eps=EPS)
        self.head = Linear(D, p * p * config.channels)
        self.register_buffer("positions", position_table(D, config.image_size // p), persistent=False)
        names = [f"{kind}{i}" for i in range(len(hidden)) for kind in ("block", "attn", "q", "k", "v")]
        self.tap_names = frozenset(["tokens", *names])
        self._initialise()

    def _initialise(self) -> None:
        initialise(self)
        nn.init.zeros_(self.head.weight)  # the first image is exactly 0

    def linears(self) -> list[Linear]:
        """Every linear layer inside the blocks; what weight edits and Muon act on."""
        return [m for m in self.blocks.modules() if isinstance(m, Linear)]

    def forward(self, x: Tensor, t: Tensor | None, y: Tensor | None, taps: Taps | None = None) -> Tensor:
        """(B, C, H, W), None, (B,) or None -> (B, C, H, W)."""
        said = None if self.label is None else self.label(y).unsqueeze(1)  # (B, 1, 3D)
        x = self.embed(x).flatten(2).mT + self.positions  # (B, N, D)
        if taps is not None:
            taps.put("tokens", x)
        blocks = list(enumerate(self.blocks))
        for index, block in blocks[: self.config.depth]:
            x = block(x, said, taps, index)
        if self.inject is not None:
            parts = self.inject(x).chunk(self.config.tied, -1)
            group = [(u if said is None else u + said, *part) for u, part in zip(parts, blocks[self.config.depth :])]
            x = torch.zeros_like(x)
            for _ in range(self.config.iterations):
                for added, index, block in group:
                    x = block(x, added, taps, index)
        p = self.config.patch
        return unpatchify(self.head(self.norm(x)), self.config.image_size // p, p)
