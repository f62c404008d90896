"""Attention transfer as MTDVocaLiST does it (arXiv 2210.15563): who looks at whom, and which values lie together.

Per matched block, of queries, keys and values (B, h, N, d) of either net; both relations are N x N, so that widths may
differ where heads and tokens do not:

    A = Q K^T / sqrt(d)      KL_qk = KL( softmax(A_T / tau) || softmax(A_S / tau) )
    R = V V^T / sqrt(d)      KL_vv = KL( softmax(R_T / tau) || softmax(R_S / tau) )         mean over (B, h, rows)
    L_l = tau^2 ( lambda_qk KL_qk + lambda_vv KL_vv )
    fixed         L = L_task + mean_l L_l
    uncertainty   L = e^-s_0 L_task / 2 + s_0 / 2 + sum_l ( e^-s_l L_l / 2 + s_l / 2 )      s trained, from 0

The reference's mean is over all entries, 1/N of this one, and it cuts logits off at 1e-5, which flattens the guide's;
it trains w = e^(s/2) with log(1 + w^2) in the place of s/2, which may reach 0. `reference` is for comparisons with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.config import JSON, NetConfig, Recipe
from lab.methods import features
from lab.methods.base import Method, Roles, Step
from lab.options import Positive, Weight, Whole

if TYPE_CHECKING:
    from lab.guides import Guide

FLOOR = 1e-5  # of the reference's logits


@dataclass
class AttentionTransfer(Method):
    """Match who attends to whom, and which values are alike, with a larger network, block by block."""

    name: ClassVar[str] = "attention_transfer"
    paper: ClassVar[str] = "arXiv 2210.15563"
    needs: ClassVar[frozenset[str]] = frozenset({"guide"})

    lambda_qk: Weight = 0.1  # weight of the attention's distributions
    lambda_vv: Weight = 0.1  # weight of the values' relations
    temperature: Positive = 1.0  # of both distributions
    relation_heads: Whole = 0  # heads that both widths are cut into again (MiniLMv2); 0 = those of attention, if equal
    uncertainty: bool = False  # train the weights of task and blocks too
    reference: bool = False  # as its public code: mean over entries, logits from 1e-5 on, weights that may reach 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambda_qk + self.lambda_vv == 0:
            raise ValueError("lambda_qk and lambda_vv must not both be 0: nothing would be transferred")

    def why_not(self, recipe: Recipe) -> str | None:
        why = features.why_not(recipe.student)
        return why and f"method attention_transfer matches attention of two transformers, the student is {why}"

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        self._map = features.block_map(student.config.depth, roles.guide.config.depth)
        self._relations = Relations(self.temperature, self.relation_heads, reference=self.reference)
        if self.uncertainty:
            self.own["weights"] = Uncertainty(1 + len(self._map), reference=self.reference)
        return student

    def compile(self) -> None:
        self._relations.compile()

    def taps(self, student: nn.Module, guide: Guide | None) -> tuple[set[str], set[str]]:
        links = features.block_map(student.config.depth, getattr(guide.config, "depth", 0))
        self._check(student.config, guide.config)
        kinds = ("q", "k") * (self.lambda_qk > 0) + ("v",) * (self.lambda_vv > 0)
        return {f"{k}{i}" for i in range(len(links)) for k in kinds}, {f"{k}{i}" for i in links for k in kinds}

    def _check(self, mine: NetConfig, theirs: NetConfig) -> None:
        """Raises ValueError where the relations of two networks are not of one shape."""
        tokens = [(c.image_size // c.patch) ** 2 for c in (mine, theirs)]
        if tokens[0] != tokens[1]:
            raise ValueError(f"the student has {tokens[0]} tokens and the guide {tokens[1]}; method attention_transfer "
                             "compares relations of equally many: give both one patch")  # fmt: skip
        if not self.relation_heads and mine.heads != theirs.heads:
            raise ValueError(f"the student has {mine.heads} heads and the guide {theirs.heads}; set "
                             "attention_transfer.relation_heads to a number that divides both widths")  # fmt: skip
        widths = [c.heads * (getattr(c, "head_dim", None) or c.width // c.heads) for c in (mine, theirs)]
        if self.relation_heads and any(width % self.relation_heads for width in widths):
            raise ValueError(f"relation_heads {self.relation_heads} must divide the widths of both attentions, "
                             f"{widths[0]} and {widths[1]}")  # fmt: skip

    def objective_weight(self, progress: float) -> float | Tensor:
        return self.own["weights"].factors()[0] if self.uncertainty else 1.0

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        factors = self.own["weights"].factors()[1:] if self.uncertainty else 1 / len(self._map)
        for pair, weight in (("qk", self.lambda_qk), ("vv", self.lambda_vv)):
            if weight:
                a, b = pair
                found = [self._relations(step.taps[f"{a}{mine}"], step.taps[f"{b}{mine}"],
                                         step.guide_taps[f"{a}{theirs}"], step.guide_taps[f"{b}{theirs}"])
                         for mine, theirs in enumerate(self._map)]  # fmt: skip
                terms[pair] = weight * (factors * torch.stack(found)).sum()
        if self.uncertainty:
            terms["weights"] = self.own["weights"].penalty()
        return terms

    def facts(self, student: nn.Module) -> dict[str, JSON]:
        """The trained weights of the task and of each block."""
        if "weights" not in self.own:
            return {}
        return {"weights": [round(w, 4) for w in self.own["weights"].factors().tolist()]}


class Relations(nn.Module):
    """tau^2 KL of the relations of one block of two networks, from tensors (B, h, N, d) such as queries and keys."""

    def __init__(self, temperature: float, heads: int, *, reference: bool) -> None:
        super().__init__()
        self.temperature, self.heads, self.reference = temperature, heads, reference

    def forward(self, a: Tensor, b: Tensor, their_a: Tensor, their_b: Tensor) -> Tensor:
        theirs = self._scores(their_a.detach(), their_b.detach())
        return divergence(theirs, self._scores(a, b), self.temperature, by_entry=self.reference, floor=self.reference)

    def _scores(self, a: Tensor, b: Tensor) -> Tensor:
        return relation(*(split(x, self.heads) if self.heads else x for x in (a, b)))


def split(x: Tensor, heads: int) -> Tensor:
    """(B, h, N, d) -> (B, heads, N, h d / heads): heads side by side and cut again."""
    return x.transpose(1, 2).flatten(2).unflatten(2, (heads, -1)).transpose(1, 2)


def relation(a: Tensor, b: Tensor) -> Tensor:
    """a b^T / sqrt(d), by the net's own d: (..., N, d) twice -> (..., N, N)."""
    return a @ b.mT / math.sqrt(a.shape[-1])


def divergence(theirs: Tensor, mine: Tensor, temperature: float = 1.0, *, by_entry: bool = False,
               floor: bool = False) -> Tensor:  # fmt: skip
    """tau^2 KL(softmax(theirs / tau) || softmax(mine / tau)) of logits (..., N, N): a scalar, mean over rows.

    The reference's are the mean over entries, and logits below 1e-5 raised to it.
    """
    if floor:
        theirs, mine = theirs.clamp_min(FLOOR), mine.clamp_min(FLOOR)
    log_p, log_q = ((x / temperature).log_softmax(-1) for x in (theirs, mine))
    rows = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    return temperature**2 * rows.mean() / (rows.shape[-1] if by_entry else 1)


class Uncertainty(nn.Module):
    """Trained weights of losses, by how uncertain each is; the task's comes first."""

    def __init__(self, count: int, *, reference: bool) -> None:
        super().__init__()
        self.reference = reference
        self.scale = nn.Parameter(torch.ones(count) if reference else torch.zeros(count))  # w, or the log-variance s

    def factors(self) -> Tensor:
        return 1 / (2 * self.scale.square()) if self.reference else (-self.scale).exp() / 2

    def penalty(self) -> Tensor:
        return (self.scale.square().log1p() if self.reference else self.scale / 2).sum()
