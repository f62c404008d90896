"""What the networks are built with: layers, attention, tables of positions; no network, no block.

B batch, N tokens, D width, H heads, d width of a head, p patch, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.models.taps import Taps

EPS = 1e-6  # of every layer norm
FEW_TOKENS = 256  # up to which a CPU is quicker with attention's scores written out


class Linear(nn.Linear):
    """nn.Linear whose weight passes through a list of edits before use; fold() makes it plain again.

    An edit is a module weight -> weight. One with `last = True` (a quantiser) stays behind all
    others; one with `temporary = True` (an adapter of a search) is dropped by fold, not merged;
    one with a method `merged`, weight -> weight, is folded by that, in more digits than it trains in.
    `matrices` counts the maps stacked in its rows (q, k, v are 3): Muon orthogonalises each alone; 0: none, for AdamW.
    """

    def __init__(self, in_dim: int, out_dim: int, matrices: int = 1, bias: bool = True) -> None:
        super().__init__(in_dim, out_dim, bias)
        self.matrices = matrices
        self.edits = nn.ModuleList()

    def edit(self, new: nn.Module) -> None:
        """Add an edit; two with `last = True` are a ValueError."""
        closed = bool(len(self.edits)) and getattr(self.edits[-1], "last", False)
        if closed and getattr(new, "last", False):
            raise ValueError(
                f"a linear layer takes one quantiser, it has {type(self.edits[-1]).__name__} "
                f"and was given {type(new).__name__}"
            )
        self.edits.insert(len(self.edits) - closed, new)

    def weight_now(self) -> Tensor:
        w = self.weight
        for e in self.edits:
            w = e(w)
        return w

    @torch.no_grad()
    def fold(self) -> None:
        """Merge the edits into the weight; the output stays the same."""
        w = self.weight
        for e in self.edits:
            w = w if getattr(e, "temporary", False) else getattr(e, "merged", e)(w)
        self.weight.copy_(w)
        self.edits = nn.ModuleList()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_now(), self.bias)


def block_linears(net: nn.Module, names: Iterable[str]) -> dict[str, Linear]:
    """The linear layers of a network's blocks that bear one of these names (`fc1`, `qkv`), by their full name.

    Raises ValueError for a name that no layer of the blocks bears.
    """
    found = {f"blocks.{at}": m for at, m in net.blocks.named_modules() if isinstance(m, Linear)}
    known = {at.rpartition(".")[2] for at in found}
    if lacking := sorted(set(names) - known):
        raise ValueError(f"no linear layer of the blocks is called {lacking[0]!r}; there are "
                         f"{', '.join(sorted(known)) or 'none'}")  # fmt: skip
    return {at: m for at, m in found.items() if at.rpartition(".")[2] in set(names)}


@torch.no_grad()
def initialise(net: nn.Module) -> None:
    """What every transformer here starts from: Xavier's linear layers and patches, biases of 0, small labels."""
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(net.embed.weight.flatten(1))
    nn.init.zeros_(net.embed.bias)
    if net.label is not None:
        nn.init.normal_(net.label.weight, std=0.02)


class Condition(NamedTuple):
    """What a block is told beside its tokens: embeddings (B, D) of what the network has, and their sum."""

    time: Tensor | None
    label: Tensor | None
    sum: Tensor  # a learned constant where there is neither


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(x) (1 + scale) + shift; x (B, N, D), the others (B, D)."""
    h = F.layer_norm(x, x.shape[-1:], eps=EPS)
    return h * (1 + scale).unsqueeze(1) + shift.unsqueeze(1)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """softmax(scale q k^T + bias) v of (B, H, N, d) tensors; bias (H, N, N).

    Compiled for a CPU in float32, few tokens go through two batched products with the softmax fused between: torch's
    fused attention takes twice as long there, forward and backward (benchmarks/attention.py).
    """
    few = q.shape[-2] <= FEW_TOKENS and q.device.type == "cpu" and q.dtype == torch.float32
    if not few or not torch.compiler.is_dynamo_compiling() or torch.compiler.is_exporting():
        mask = None if bias is None else bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    scores = scale * q @ k.mT  # (B, H, N, N)
    scores = scores if bias is None else scores + bias
    e = (scores - scores.amax(-1, keepdim=True).detach()).exp()  # softmax does not change with the shift
    return e @ v / e.sum(-1, keepdim=True)


def self_attention(qkv: Tensor, heads: int, taps: Taps | None = None, index: int = 0,
                   bias: Tensor | None = None) -> Tensor:  # fmt: skip
    """softmax(q k^T / sqrt(d) + bias) v of stacked [q; k; v] (B, N, 3 H d) -> (B, N, H d); bias (H, N, N).

    Taps: `q<i>`, `k<i>`, `v<i>` (B, H, N, d), and the probabilities `attn<i>` (B, H, N, N).
    """
    B, N, width = qkv.shape
    q, k, v = qkv.view(B, N, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    if taps is not None:
        taps.put(f"q{index}", q)
        taps.put(f"k{index}", k)
        taps.put(f"v{index}", v)
        if taps.wants(f"attn{index}"):
            scores = q @ k.mT / math.sqrt(q.shape[-1])
            taps.put(f"attn{index}", (scores if bias is None else scores + bias).softmax(-1))
    out = attend(q, k, v, 1 / math.sqrt(width // (3 * heads)), bias)
    return out.transpose(1, 2).reshape(B, N, width // 3)


def gelu(x: Tensor) -> Tensor:
    """Tanh-GELU (arXiv 1606.08415); compiled, as the equal x sigmoid(2u), whose exp vectorises twice as well."""
    if torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting():
        return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x))
    return F.gelu(x, approximate="tanh")


class MLP(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor] = gelu) -> None:
        super().__init__()
        self.activation = activation
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


def position_table(width: int, side: int) -> Tensor:
    """Fixed 2-D sin-cos positions, (1, side * side, width); the first half encodes the column."""
    i = torch.arange(width // 4, dtype=torch.float64)
    omega = 1 / 10000 ** (i / (width / 4))
    place = torch.arange(side, dtype=torch.float64)[:, None] * omega  # (side, width/4)
    one = torch.cat([place.sin(), place.cos()], -1)  # (side, width/2)
    table = torch.cat([one.repeat(side, 1), one.repeat_interleave(side, 0)], -1)
    return table.float()[None]


def unpatchify(x: Tensor, side: int, patch: int) -> Tensor:
    """(B, side*side, p*p*C) -> (B, C, side*p, side*p)."""
    x = x.view(x.shape[0], side, side, patch, patch, -1).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(x.shape[0], -1, side * patch, side * patch)
