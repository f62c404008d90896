"""Fine-grained manifold distillation (arXiv 2107.01378): patches lie towards one another as the guide's do.

Cosines of features are matched in place of features, so that widths may differ and nothing is projected. Per matched
block, F (B, N, D) of either net with rows of length 1, G the same as (N, B, D), f a draw of K of its B N rows:

    patch   mean over (B, N, N) of ( F_T F_T^T - F_S F_S^T )^2        within an image
    sample  mean over (N, B, B) of ( G_T G_T^T - G_S G_S^T )^2        one place across images
    random  mean over (K, K)    of ( f_T f_T^T - f_S f_S^T )^2        the same rows of both nets, drawn anew
    L       = (1 - alpha) L_task + alpha L_KD + beta mean_l ( 4 patch + 0.1 sample + 0.2 random )

Residual streams share one large direction, beside which all cosines are near 1: the mean over tokens is taken off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config import Recipe
from lab.methods import features
from lab.methods.base import Method, Roles, Step
from lab.options import Positive, Share, Weight

if TYPE_CHECKING:
    from lab.guides import Guide


@dataclass
class Manifold(Method):
    """Match the cosines between patches, within images and across them, with those of a larger network."""

    name: ClassVar[str] = "manifold"
    paper: ClassVar[str] = "arXiv 2107.01378, section 3"
    needs: ClassVar[frozenset[str]] = frozenset({"guide"})

    beta: Positive = 0.1  # weight of the three terms together; with 1, as published, a small student is worse
    patch: Weight = 4.0  # of the patches of an image; the published weights
    sample: Weight = 0.1  # of one place across images
    random: Weight = 0.2  # of a random draw of all patches
    rows: int = 192  # patches in that draw
    center: bool = True  # without the mean over an image's tokens
    alpha: Share = 0.0  # share of the guide's image in what the student's is to be; the teacher's has the rest

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch + self.sample + self.random == 0:
            raise ValueError("patch, sample and random must not all be 0: nothing would be compared")
        if self.rows < 2:
            raise ValueError(f"rows must be at least 2, for patches are compared with one another; got {self.rows}")

    def why_not(self, recipe: Recipe) -> str | None:
        why = features.why_not(recipe.student)
        return why and f"method manifold matches blocks of two networks, the student is {why}"

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        self._map = features.block_map(student.config.depth, roles.guide.config.depth)
        self._grams = Grams()
        return student

    def compile(self) -> None:
        self._grams.compile()

    def taps(self, student: nn.Module, guide: Guide | None) -> tuple[set[str], set[str]]:
        links = features.block_map(student.config.depth, getattr(guide.config, "depth", 0))
        sides = [c.image_size // c.patch for c in (student.config, guide.config)]
        if max(sides) % min(sides):
            raise ValueError(f"the student has {sides[0]} x {sides[0]} tokens and the guide {sides[1]} x {sides[1]}; "
                             "method manifold merges neighbours only where one divides the other")  # fmt: skip
        return {f"block{i}" for i in range(len(links))}, {f"block{i}" for i in links}

    def objective_weight(self, progress: float) -> float:
        return 1 - self.alpha

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        if self.alpha:
            toward = step.toward(step.guide_prediction)
            terms["output"] = self.alpha * torch.stack([*toward.values()]).sum()
        found = [self._block(step.taps[f"block{mine}"], step.guide_taps[f"block{theirs}"], step.rng)
                 for mine, theirs in enumerate(self._map)]  # fmt: skip
        weights = {"patch": self.patch, "sample": self.sample, "random": self.random}
        means = torch.stack(found).mean(0)
        return terms | {name: self.beta * w * mean for (name, w), mean in zip(weights.items(), means) if w}

    def _block(self, mine: Tensor, theirs: Tensor, rng: torch.Generator) -> Tensor:
        """The three terms (3,) of one block's tensors (B, N, D)."""
        tokens = min(mine.shape[1], theirs.shape[1])
        mine, theirs = merge(mine, tokens), merge(theirs.detach(), tokens)
        if self.center:
            mine, theirs = (x - x.mean(1, keepdim=True) for x in (mine, theirs))
        return self._grams(mine, theirs, draw(len(mine) * tokens, self.rows, rng))


class Grams(nn.Module):
    """The three terms, of one block's tensors (B, N, D_S) and (B, N, D_T) and the rows that are drawn; (3,)."""

    def forward(self, mine: Tensor, theirs: Tensor, rows: Tensor) -> Tensor:
        mine, theirs = F.normalize(mine, dim=-1), F.normalize(theirs, dim=-1)
        views = [(mine, theirs), (mine.transpose(0, 1), theirs.transpose(0, 1)),
                 (mine.flatten(0, 1)[rows], theirs.flatten(0, 1)[rows])]  # fmt: skip
        return torch.stack([(t @ t.mT - s @ s.mT).square().mean() for s, t in views])


def draw(count: int, rows: int, rng: torch.Generator) -> Tensor:
    """At most `rows` of `count` numbers, in a random order."""
    return torch.randperm(count, generator=rng, device=rng.device)[:rows]


def merge(x: Tensor, tokens: int) -> Tensor:
    """(B, n n, D) -> (B, m m, D n^2/m^2) for `tokens` = m m: the channels of each square of neighbours side by side."""
    B, N, D = x.shape
    if N == tokens:
        return x
    n, m = math.isqrt(N), math.isqrt(tokens)
    x = x.view(B, m, n // m, m, n // m, D).transpose(2, 3)  # (B, m, m, n/m, n/m, D)
    return x.reshape(B, tokens, -1)
