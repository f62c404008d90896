"""A DiT block that computes less where that does: heads and channels by noise level, tokens by place (DyDiT).

    z_a = R_a c, z_m = R_m c                      c (B, D): the time; the class of a one-step student, which has none
    M_a = [1, bin(z_a)]  M_m = [1, bin(z_m)]      (B, H): the first head and the first group of channels always act
    x   = x + g1 proj(heads M_a)                  attention sees every token
    s   = bin(MLP(x))                             (B, N, 1)
    x   = x + s g2 fc2(GELU(fc1(LN x) M_m))       group j: channels j M/H to (j+1) M/H - 1

bin(z) is 1[z > 0]; in training u = sigmoid((z + G1 - G2) / 5) with Gumbel noise G, 1[u > 0.5] with the gradient of u.
The block multiplies by its masks, which saves nothing; `fast` gives the same network with sliced weights and gathered
tokens, for eager torch. arXiv 2410.03456, section 3. B batch, N tokens, D width, H heads, M channels of the MLP.
"""

from __future__ import annotations

import copy
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.config import DiTConfig
from lab.models.blocks import adaln
from lab.models.layers import Condition, modulate, self_attention
from lab.models.taps import Taps

TAU = 5.0  # of the Gumbel sigmoid
WIDTH_BIAS, TOKEN_BIAS = 15.0, 35.0  # of the routers at the start: everything acts
SHRINK = 16  # D over the hidden width of the tokens' router


def gumbel_sigmoid(z: Tensor, e1: Tensor, e2: Tensor, tau: float = TAU) -> Tensor:
    """Draws of 0 and 1 from logits and two Exp(1) noises of one shape; the gradient is that of the sigmoid."""
    u = ((z - e1.log() + e2.log()) / tau).sigmoid()
    return (u > 0.5).to(u).detach() + (u - u.detach())


def decide(z: Tensor, *, draw: bool) -> Tensor:
    """Float32 zeros and ones of logits: drawn, or exactly 1[z > 0]."""
    z = z.float()
    if not draw:
        return (z > 0).to(z)
    return gumbel_sigmoid(z, *(torch.empty_like(z).exponential_() for _ in range(2)))


def routed_by(cond: Condition) -> Tensor:
    """What the width goes by, (B, D): the time alone; without one the class, or the constant of neither."""
    if cond.time is not None:
        return cond.time
    return cond.sum if cond.label is None else cond.label


class Block(adaln.Block):
    """An adaLN block whose heads, groups of channels and tokens act or not. Taps: its masks, beside a DiT block's."""

    taps: ClassVar[tuple[str, ...]] = (*adaln.Block.taps, "heads", "groups", "tokens")

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        D, H = config.width, config.heads
        # No lab Linear: what edits the weights of a block leaves its decisions alone, and AdamW trains them.
        self.head_router, self.group_router = nn.Linear(D, H - 1), nn.Linear(D, H - 1)
        self.token_router = token_router(D)

    @property
    def routers(self) -> tuple[nn.Module, ...]:
        return self.head_router, self.group_router, self.token_router

    def initialise(self) -> None:
        super().initialise()
        nn.init.constant_(self.head_router.bias, WIDTH_BIAS)
        nn.init.constant_(self.group_router.bias, WIDTH_BIAS)
        nn.init.constant_(self.token_router[-1].bias, TOKEN_BIAS)

    def widths(self, cond: Condition, *, draw: bool = False) -> Tensor:
        """Which heads and which groups of channels act: (B, 2, H) of zeros and ones."""
        told = routed_by(cond)
        z = torch.stack([self.head_router(told), self.group_router(told)], 1)
        return F.pad(decide(z, draw=draw), (1, 0), value=1.0)

    def forward(self, x: Tensor, cond: Condition, taps: Taps | None = None, index: int = 0, full: bool = False
                ) -> Tensor:  # fmt: skip
        """(B, N, D) -> (B, N, D); `full`: as if every mask were 1."""
        sh1, sc1, g1, sh2, sc2, g2 = self.modulation(F.silu(cond.sum)).chunk(6, -1)
        heads, groups = (None, None) if full else self.widths(cond, draw=self.training).unbind(1)
        h = self_attention(self.attn.qkv(modulate(x, sh1, sc1)), self.attn.heads, taps, index)
        x = x + g1.unsqueeze(1) * self.attn.proj(h if full else masked(h, heads))
        h = self.mlp.fc1(modulate(x, sh2, sc2))
        h = g2.unsqueeze(1) * self.mlp.fc2(self.mlp.activation(h if full else masked(h, groups)))
        if not full:
            tokens = decide(self.token_router(x), draw=self.training)  # (B, N, 1)
            h = h * tokens.to(h.dtype)
        x = x + h
        if taps is not None:
            taps.put(f"block{index}", x)
            for name, mask in () if full else (("heads", heads), ("groups", groups), ("tokens", tokens)):
                taps.put(f"{name}{index}", mask)
        return x


def token_router(width: int) -> nn.Sequential:
    """(B, N, D) -> (B, N, 1): above 0 a token goes through the MLP."""
    inner = max(1, width // SHRINK)
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, 1))


def masked(h: Tensor, mask: Tensor) -> Tensor:
    """h (B, N, H k) times mask (B, H), each value for k channels in a row."""
    return (h.unflatten(-1, (mask.shape[1], -1)) * mask.to(h.dtype)[:, None, :, None]).flatten(-2)


# --- what it costs ------------------------------------------------------------------------------


def share_of_work(config: DiTConfig, heads: Tensor, groups: Tensor, tokens: Tensor) -> Tensor:
    """Multiply-accumulates of the blocks over those of the complete ones, for each sample: (B,).

    Masks of all L blocks: heads, groups (B, L, H), tokens (B, L, N, 1). AdaLN and routers are left out, as published.
    """
    N, D, M = config.tokens, config.width, config.hidden
    inner = config.heads * (config.head_dim or D // config.heads)
    attention, mlp = 4 * N * D * inner + 2 * N**2 * inner, 2 * N * D * M
    work = attention * heads.mean(-1) + mlp * groups.mean(-1) * tokens.mean((-2, -1))  # (B, L)
    return work.mean(-1) / (attention + mlp)


# --- with less to compute -----------------------------------------------------------------------


class Slices(NamedTuple):
    """Weights and biases of what acts, and how many heads do."""

    heads: int
    qkv: tuple[Tensor, Tensor]
    proj: tuple[Tensor, Tensor]
    fc1: tuple[Tensor, Tensor]
    fc2: tuple[Tensor, Tensor]


class FastBlock(nn.Module):
    """A finished block that multiplies with the heads and channels that act alone, and gathers the tokens that do.

    Widths go by few conditions, the levels of a solver or the classes, so their slices are kept. Taps: `block` alone.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block
        self._slices: dict[tuple[bool, ...], Slices] = {}  # by which heads and groups act

    @torch.no_grad()
    def forward(self, x: Tensor, cond: Condition, taps: Taps | None = None, index: int = 0) -> Tensor:
        """(B, N, D) -> (B, N, D), as the block in eval mode."""
        said = self.block.modulation(F.silu(cond.sum)).unsqueeze(1)
        widths = self.block.widths(cond).flatten(1) > 0
        alike = len(x) == 1 or bool((widths == widths[:1]).all())  # as at every step of a solver
        kinds, kind = (widths[:1], None) if alike else widths.unique(dim=0, return_inverse=True)
        if alike:
            x = self._run(x, said, self._of(kinds[0]))
        else:
            parts = [(kind == k).nonzero()[:, 0] for k in range(len(kinds))]
            runs = [self._run(x[rows], said[rows], self._of(pattern)) for rows, pattern in zip(parts, kinds)]
            x = torch.cat(runs)[torch.cat(parts).argsort()]
        if taps is not None:
            taps.put(f"block{index}", x)
        return x

    def _run(self, x: Tensor, said: Tensor, w: Slices) -> Tensor:
        """Samples of one width: x (B, N, D), said (B, 1, 6 D)."""
        sh1, sc1, g1, sh2, sc2, g2 = said.squeeze(1).chunk(6, -1)
        h = self_attention(F.linear(modulate(x, sh1, sc1), *w.qkv), w.heads)
        x = x + g1.unsqueeze(1) * F.linear(h, *w.proj)
        at = (self.block.token_router(x).float().flatten() > 0).nonzero()[:, 0]
        B, N, D = x.shape
        activation = self.block.mlp.activation
        if len(at) == B * N:
            return x + g2.unsqueeze(1) * F.linear(activation(F.linear(modulate(x, sh2, sc2), *w.fc1)), *w.fc2)
        flat, whose = x.reshape(-1, D), at // N
        h = F.linear(modulate(flat[at].unsqueeze(1), sh2[whose], sc2[whose]), *w.fc1)
        h = g2[whose] * F.linear(activation(h), *w.fc2).squeeze(1)
        return flat.index_add(0, at, h.to(x.dtype)).view(B, N, D)

    def _of(self, pattern: Tensor) -> Slices:
        key = tuple(pattern.tolist())
        if key not in self._slices:
            self._slices[key] = self._cut(*pattern.chunk(2))
        return self._slices[key]

    def _cut(self, heads: Tensor, groups: Tensor) -> Slices:
        """The slices for heads and groups (H,) of booleans."""
        attn, mlp, H = self.block.attn, self.block.mlp, len(heads)
        qkv, proj, fc1, fc2 = (layer.weight_now().detach() for layer in (attn.qkv, attn.proj, mlp.fc1, mlp.fc2))
        inner = heads.repeat_interleave(proj.shape[1] // H)
        rows, channels = inner.repeat(3), groups.repeat_interleave(len(fc1) // H)
        return Slices(int(heads.sum()), (qkv[rows], attn.qkv.bias.detach()[rows]),
                      (proj[:, inner].contiguous(), attn.proj.bias.detach()),
                      (fc1[channels], mlp.fc1.bias.detach()[channels]),
                      (fc2[:, channels].contiguous(), mlp.fc2.bias.detach()))  # fmt: skip


def fast(net: nn.Module) -> nn.Module:
    """The same images with less to compute, of a finished network of dynamic blocks; any other network as it is.

    Its graph depends on the values: for eager torch alone. It keeps copies of the weights, so move it before it runs.
    """
    if getattr(net.config, "block", None) != "dynamic":
        return net
    made = copy.copy(net)
    made._modules = dict(net._modules)
    made.blocks = nn.ModuleList(FastBlock(block) for block in net.blocks)
    return made.eval()
