"""The Diffusion Transformer (arXiv 2212.09748): raw net F(x, t, y), denoiser or one-step student.

B batch, N tokens, D width, H heads, d = D/H, p patch, C channels. Three seams keep every method out
of this file: `Linear` (weight edits), `taps` (inner tensors), `student.blocks` (replaceable parts).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.config import DiTConfig
from lab.models.taps import Taps

FREQUENCIES = 128  # of the timestep features; 256 numbers, cosines first
EPS = 1e-6  # of every layer norm
FEW_TOKENS = 256  # up to which a CPU is quicker with attention's scores written out


class Linear(nn.Linear):
    """nn.Linear whose weight passes through a list of edits before use; fold() makes it plain again.

    An edit is a module weight -> weight. One with `last = True` (a quantiser) stays behind all
    others; one with `temporary = True` (an adapter of a search) is dropped by fold, not merged.
    `matrices` counts the maps stacked in its rows (q, k, v are 3): Muon orthogonalises each alone; 0: none, for AdamW.
    """

    def __init__(self, in_dim: int, out_dim: int, matrices: int = 1) -> None:
        super().__init__(in_dim, out_dim)
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
        lasting = nn.ModuleList(e for e in self.edits if not getattr(e, "temporary", False))
        self.edits = lasting
        self.weight.copy_(self.weight_now())
        self.edits = nn.ModuleList()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight_now(), self.bias)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LN(x) (1 + scale) + shift; x (B, N, D), the others (B, D)."""
    h = F.layer_norm(x, x.shape[-1:], eps=EPS)
    return h * (1 + scale).unsqueeze(1) + shift.unsqueeze(1)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v of (B, H, N, d) tensors.

    Compiled for a CPU in float32, few tokens go through two batched products with the softmax fused between: torch's
    fused attention takes twice as long there, forward and backward (benchmarks/attention.py).
    """
    few = q.shape[-2] <= FEW_TOKENS and q.device.type == "cpu" and q.dtype == torch.float32
    if not few or not torch.compiler.is_dynamo_compiling() or torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    scores = scale * q @ k.mT  # (B, H, N, N)
    e = (scores - scores.amax(-1, keepdim=True).detach()).exp()  # softmax does not change with the shift
    return e @ v / e.sum(-1, keepdim=True)


class Attention(nn.Module):
    """Multi-head self-attention; `cond` is there for parts that replace this one."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, matrices=3)  # rows are [q; k; v], each H heads of d
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, cond: Tensor, taps: Taps | None = None, index: int = 0) -> Tensor:
        """(B, N, D), (B, D) -> (B, N, D)."""
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        if taps is not None:
            taps.put(f"q{index}", q)  # (B, H, N, d)
            taps.put(f"k{index}", k)
            taps.put(f"v{index}", v)
            if taps.wants(f"attn{index}"):
                scores = q @ k.mT / math.sqrt(q.shape[-1])
                taps.put(f"attn{index}", scores.softmax(-1))  # (B, H, N, N)
        out = attend(q, k, v, 1 / math.sqrt(D // self.heads))
        return self.proj(out.transpose(1, 2).reshape(B, N, D))


def gelu(x: Tensor) -> Tensor:
    """Tanh-GELU (arXiv 1606.08415); compiled, as the equal x sigmoid(2u), whose exp vectorises twice as well."""
    if torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting():
        return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x))
    return F.gelu(x, approximate="tanh")


class MLP(nn.Module):
    """Two linear layers with a tanh-GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class Block(nn.Module):
    """A DiT block with adaLN-zero conditioning (arXiv 2212.09748, section 3.2)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.attn = Attention(config.width, config.heads)
        self.mlp = MLP(config.width, config.hidden)
        # For AdamW: with few classes its gradient has a rank as low, and an orthogonal step would be noise elsewhere.
        self.adaln = Linear(config.width, 6 * config.width, matrices=0)

    def forward(self, x: Tensor, cond: Tensor, taps: Taps | None = None, index: int = 0) -> Tensor:
        """x (B, N, D), cond (B, D) -> (B, N, D)."""
        sh1, sc1, g1, sh2, sc2, g2 = self.adaln(F.silu(cond)).chunk(6, -1)
        x = x + g1.unsqueeze(1) * self.attn(modulate(x, sh1, sc1), cond, taps, index)
        x = x + g2.unsqueeze(1) * self.mlp(modulate(x, sh2, sc2))
        if taps is not None:
            taps.put(f"block{index}", x)
        return x


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


def position_table(width: int, side: int) -> Tensor:
    """Fixed 2-D sin-cos positions, (1, side * side, width); the first half encodes the column."""
    i = torch.arange(width // 4, dtype=torch.float64)
    omega = 1 / 10000 ** (i / (width / 4))
    place = torch.arange(side, dtype=torch.float64)[:, None] * omega  # (side, width/4)
    one = torch.cat([place.sin(), place.cos()], -1)  # (side, width/2)
    table = torch.cat([one.repeat(side, 1), one.repeat_interleave(side, 0)], -1)
    return table.float()[None]


class DiT(nn.Module):
    """F(x, t, y, taps=None): a denoiser's raw net with `time`, else z -> image in one step.

    Taps: `block<i>`, `attn<i>` and `q<i>`, `k<i>`, `v<i>` of every block, `tokens` before the first.
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
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_adaln = Linear(D, 2 * D)
        self.head = Linear(D, p * p * out)
        self.register_buffer("positions", position_table(D, config.image_size // p), persistent=False)
        self.tap_names = frozenset(
            ["tokens"] + [f"{k}{i}" for i in range(config.depth) for k in ("block", "attn", "q", "k", "v")]
        )
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.embed.weight.flatten(1))
        nn.init.zeros_(self.embed.bias)
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        if self.time is not None:
            nn.init.normal_(self.time.fc1.weight, std=0.02)
            nn.init.normal_(self.time.fc2.weight, std=0.02)
        # Zero: every block starts as the identity and the first output is exactly 0.
        for linear in [*(b.adaln for b in self.blocks), self.final_adaln, self.head]:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def linears(self) -> list[Linear]:
        """Every linear layer inside the blocks; what weight edits and Muon act on."""
        return [m for m in self.blocks.modules() if isinstance(m, Linear)]

    def condition(self, t: Tensor | None, y: Tensor | None, batch: int) -> Tensor:
        """(B, D): the sum of the time and label embeddings that this net has."""
        parts = []
        if self.time is not None:
            parts.append(self.time(t))
        if self.label is not None:
            parts.append(self.label(y))
        return sum(parts) if parts else self.cond.expand(batch, -1)

    def forward(self, x: Tensor, t: Tensor | None, y: Tensor | None, taps: Taps | None = None) -> Tensor:
        """(B, C, H, W), (B,) or None, (B,) or None -> (B, C_out, H, W)."""
        cond = self.condition(t, y, len(x))
        x = self.embed(x).flatten(2).mT + self.positions  # (B, N, D)
        if taps is not None:
            taps.put("tokens", x)
        for index, block in enumerate(self.blocks):
            x = block(x, cond, taps, index)
        shift, scale = self.final_adaln(F.silu(cond)).chunk(2, -1)
        return self.unpatchify(self.head(modulate(x, shift, scale)))

    def unpatchify(self, x: Tensor) -> Tensor:
        """(B, N, p*p*C) -> (B, C, H, W)."""
        p, side = self.config.patch, self.config.image_size // self.config.patch
        x = x.view(len(x), side, side, p, p, -1).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(len(x), -1, side * p, side * p)


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


def to_diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under DiTTransformer2DModel's names; the inverse of `from_diffusers`.

    The outputs agree if the net was trained with diffusers' timestep frequencies, which it can't store.
    """
    depth = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("blocks."))
    theirs: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "time.frequencies":
            continue
        embedder = next((v + name.removeprefix(k) for k, v in _EMBEDDERS.items() if name.startswith(k)), None)
        if embedder:
            for i in range(depth):
                theirs[f"transformer_blocks.{i}.norm1.emb.{embedder}"] = value
        elif ".attn.qkv." in name:
            i, part = name.split(".")[1], name.rsplit(".", 1)[1]
            for k, piece in zip("qkv", value.chunk(3)):
                theirs[f"transformer_blocks.{i}.attn1.to_{k}.{part}"] = piece
        else:
            for mine, other in _DIFFUSERS.items():
                name = name.replace(mine, other)
            theirs[name] = value
    return theirs
