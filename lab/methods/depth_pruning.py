"""Which blocks of a network to keep, learned, and how to teach the shorter one that is left (TinyFusion).

Search: the L blocks are cut into groups of M; of each group one of the C(M, N) ways to keep N is drawn for every
sample, by a straight-through Gumbel softmax over learned logits g, while a LoRA update of the blocks' frozen linear
layers (the published one: of all) learns beside it: the choice minimises the loss after recovery, not that of cutting.

    onehot = gumbel_softmax(s g, tau, hard),  m = onehot O                        O (C(M, N), M), rows in order
    x      = m block(x) + (1 - m) x,          tau linear 4 -> 0.1,  s = 100

The blocks of the most likely options, with their own weights, are the start of the second stage, in which the whole
network guides the short one: its prediction, and its blocks without massive activations. A quantiser has a third stage.

    L_rep = mean_l mean( (M_S f_S - M_T sg f_T)^2 ),   M = 1[ |f - mean f| < 2 std f ]     per sample over (N, D)

arXiv 2412.01199, sections 3.2 and 3.3. B batch, N tokens, D width.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab import models
from lab.config import JSON, DiTConfig, NetConfig, Recipe, Use
from lab.methods import features
from lab.methods.base import METHODS, Method, Roles, Step, beside, create
from lab.models.layers import Condition
from lab.models.taps import Taps
from lab.options import Positive, Share, SomeShare, Weight

if TYPE_CHECKING:
    from lab.guides import Guide

LOGIT = 0.02  # of every option at the start
SCALE = 100.0  # s
TAU = (4.0, 0.1)  # at the first and the last step
RANK, ALPHA = 8, 16  # of the LoRA update


def options(of: int, keep: int) -> Tensor:
    """O: the ways to keep so many of a group, (C(M, N), M), in lexicographic order of the kept blocks."""
    rows = [[float(i in kept) for i in range(of)] for kept in itertools.combinations(range(of), keep)]
    return torch.tensor(rows)


def gumbel_onehot(logits: Tensor, noise: Tensor, tau: Tensor | float) -> Tensor:
    """One-hot draws (B, K) of logits (B, K) and Exp(1) noise (B, K); the gradient is that of the softmax."""
    y = ((logits - noise.log()) / tau).softmax(-1)
    hard = F.one_hot(y.argmax(-1), y.shape[-1]).to(y)
    return hard.detach() + (y - y.detach())


class Group(nn.Module):
    """Some blocks of which so many act, drawn anew for every sample; in eval mode those that are most likely."""

    def __init__(self, blocks: list[nn.Module], keep: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList(blocks)
        self.gates = Gates(len(blocks), keep)

    def forward(self, x: Tensor, cond: Condition, taps: Taps | None = None, index: int = 0) -> Tensor:
        mask = self.gates(x.shape[0])  # (B, M)
        for at, block in enumerate(self.inner):
            m = mask[:, at].view(-1, 1, 1)
            x = m * block(x, cond, taps, index * len(self.inner) + at) + (1 - m) * x
        return x


class Gates(nn.Module):
    """The logits of a group's options."""

    lr_scale = 1.0

    def __init__(self, of: int, keep: int) -> None:
        super().__init__()
        self.register_buffer("options", options(of, keep), persistent=False)
        self.logits = nn.Parameter(torch.full((len(self.options),), LOGIT))
        self.register_buffer("tau", torch.tensor(TAU[0]))

    def forward(self, batch: int) -> Tensor:
        """(B, M) of ones and zeros."""
        if not self.training:
            return self.options[self.logits.argmax()].expand(batch, -1)
        noise = torch.empty(batch, len(self.logits), device=self.logits.device).exponential_()
        return gumbel_onehot(SCALE * self.logits.expand(batch, -1), noise, self.tau) @ self.options

    def kept(self) -> list[int]:
        return self.options[self.logits.argmax()].nonzero()[:, 0].tolist()

    def confidence(self) -> float:
        return (SCALE * self.logits).softmax(-1).max().item()


class Lora(nn.Module):
    """W + (alpha / r) B A of a search; dropped by fold."""

    temporary = True

    def __init__(self, rows: int, columns: int, rate: float) -> None:
        super().__init__()
        rank = min(RANK, rows, columns)
        self.lr_scale, self.scale = rate, ALPHA / rank
        self.A, self.B = nn.Parameter(torch.empty(rank, columns)), nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, w: Tensor) -> Tensor:
        return w + self.scale * self.B @ self.A


@dataclass
class DepthPruning(Method):
    """Learn which blocks to keep, then teach the shorter network by the whole one."""

    name: ClassVar[str] = "depth_pruning"
    paper: ClassVar[str] = "arXiv 2412.01199, section 3.2"
    edits: ClassVar[bool] = True

    keep: int = 1  # blocks of a group that stay
    of: int = 2  # blocks of a group
    phase: Literal["both", "search"] = "both"  # both: a plan of two runs
    search: SomeShare = 0.2  # updates of the search, over the recipe's
    rate: Positive = 0.02  # of the LoRA's learning rate, over the recipe's
    gate_rate: Positive = 0.2  # of the gates' learning rate, over the recipe's

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.keep < self.of:
            raise ValueError(f"keep must be from 1 to {self.of - 1}, blocks of a group of {self.of}, got {self.keep}")

    def why_not(self, recipe: Recipe) -> str | None:
        if not isinstance(recipe.student, DiTConfig):
            return f"method depth_pruning prunes the blocks of a DiT, the student is of family {recipe.student.family}"
        if recipe.student.depth % self.of:
            return (f"student.depth is {recipe.student.depth}, which groups of {self.of} blocks do not make up; take a "
                    "multiple")  # fmt: skip
        if not recipe.start:
            return "method depth_pruning cuts a trained network; set start to its run"
        for other in beside(recipe, self.name):
            if self.phase == "search" and other.edits:
                return (f"the search of depth_pruning leaves the weights as they are, and {other.name} edits them; "
                        f"leave {other.name} to a run that starts from this one")  # fmt: skip
            if self.phase == "both" and "denoiser" in other.needs and not recipe.student.time:
                return (f"method depth_pruning asks the whole network beside the short one, and {other.name} a "
                        f"denoiser; prune first, then set start of a recipe with {other.name} to that run")  # fmt: skip
        return None

    def ships(self, config: NetConfig) -> NetConfig:
        return dataclasses.replace(config, depth=config.depth * self.keep // self.of)

    def plan(self, recipe: Recipe) -> list[Recipe]:
        """The search, then the shorter network with the whole one as its guide, then what quantises it.

        Other edits of weights wait until the blocks are chosen.
        """
        if self.phase == "search":
            return [recipe]
        mine = next(use for use in recipe.methods if use.method == self.name)
        rest = [use for use in recipe.methods if use is not mine]
        masked = [use for use in rest if use.method == MaskedFeatures.name]  # as they are asked for, else by default
        quantisers = [use for use in rest if METHODS[use.method].quantises]
        later = [*masked, *(use for use in rest if METHODS[use.method].edits)]
        first = [Use(u.method, u.options | {"phase": "search"}) if u is mine else u for u in recipe.methods
                 if u not in later]  # fmt: skip
        second = [Use(MaskedFeatures.name) if u is mine else u for u in recipe.methods
                  if u not in quantisers and not (u is mine and masked)]  # fmt: skip
        steps = max(1, round(self.search * recipe.steps))
        short = dataclasses.replace(recipe, student=self.ships(recipe.student))
        stages = [self._stage(recipe, first, steps=steps, keep=())]
        if not quantisers:
            return [*stages, self._stage(short, second, start=("stage:0",))]
        stages.append(self._stage(short, second, start=("stage:0",), keep=()))
        return [*stages, self._stage(short, rest, start=("stage:1",))]

    def _stage(self, recipe: Recipe, uses: list[Use], **changes: Any) -> Recipe:
        """A recipe of these methods, beside the whole network where one of them asks a guide and none is named."""
        asked = any(create(use).needs & {"guide", "denoiser"} for use in uses)
        guide = (recipe.guide or recipe.start[0]) if asked else None
        return dataclasses.replace(recipe, methods=tuple(uses), guide=guide, **changes)

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        student.requires_grad_(False)
        for linear in student.linears():
            linear.edit(Lora(*linear.weight.shape, self.rate))
        blocks = [*student.blocks]
        student.blocks = nn.ModuleList(Group(blocks[at : at + self.of], self.keep)
                                       for at in range(0, len(blocks), self.of))  # fmt: skip
        for group in student.blocks:
            group.gates.lr_scale = self.gate_rate
        return student

    def after_step(self, student: nn.Module, progress: float) -> None:
        for group in student.blocks:
            group.gates.tau.fill_(TAU[0] + (TAU[1] - TAU[0]) * progress)

    def finish(self, student: nn.Module) -> nn.Module:
        """The blocks of the most likely options with their own weights: the LoRA is gone."""
        found = [(group, group.gates) for group in student.blocks]
        self._kept = [at * self.of + i for at, (_, gates) in enumerate(found) for i in gates.kept()]
        self._confidence = [round(gates.confidence(), 4) for _, gates in found]
        chosen = [group.inner[i] for group, gates in found for i in gates.kept()]
        net = models.build(self.ships(student.config))
        student.blocks = nn.ModuleList(chosen)
        net.load_state_dict(student.state_dict())
        return net

    def facts(self, student: nn.Module) -> dict[str, JSON]:
        return {"kept": self._kept, "confidence": self._confidence}


def mask(f: Tensor, deviations: float = 2.0) -> Tensor:
    """1 where an activation of (B, N, D) lies within so many deviations of its sample's mean, else 0."""
    over = (1, 2)
    return ((f - f.mean(over, keepdim=True)).abs() < deviations * f.std(over, keepdim=True)).to(f)


def masked_gap(mine: Tensor, theirs: Tensor, *, both: bool) -> Tensor:
    """(B,): mean squared difference of features (B, N, D) without massive activations.

    both: a place counts where neither is masked; else each side is masked alone, as in the published code, which
    draws the other side towards 0 there.
    """
    a, b = mask(mine), mask(theirs)
    if both:
        a = b = a * b
    return (a * mine - b * theirs.detach()).square().mean((1, 2))


@dataclass
class MaskedFeatures(Method):
    """Match a guide's prediction and its blocks, without massive activations."""

    name: ClassVar[str] = "masked_features"
    paper: ClassVar[str] = "arXiv 2412.01199, section 3.3"
    needs: ClassVar[frozenset[str]] = frozenset({"guide"})

    output: Share = 0.9  # weight of the guide's prediction; the objective has the rest
    features: Weight = 1e-4  # weight of its blocks, at the start; with 0.01 they are a hundred times the pairs' loss
    both: bool = False  # leave out what either side masks; False: as published, each side its own

    def why_not(self, recipe: Recipe) -> str | None:
        if self.features and (why := features.why_not(recipe.student)):
            return f"method masked_features matches blocks, and the student is {why}"
        return None

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        if self.features:
            self._map = features.block_map(student.config.depth, roles.guide.config.depth)
        return student

    def taps(self, student: nn.Module, guide: Guide | None) -> tuple[set[str], set[str]]:
        if not self.features:  # a guide of any kind, for its prediction alone
            return set(), set()
        links = features.block_map(student.config.depth, guide.config.depth)
        if student.config.width != guide.config.width:
            raise ValueError(f"method masked_features compares blocks of one width, the student's is "
                             f"{student.config.width} and the guide's {guide.config.width}; teaching_assistant has "
                             "projections")  # fmt: skip
        return {f"block{i}" for i in range(len(links))}, {f"block{i}" for i in links}

    def objective_weight(self, progress: float) -> float:
        return 1 - self.output

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        if self.output:
            terms["output"] = self.output * torch.stack([*step.toward(step.guide_prediction).values()]).sum()
        if weight := self.features * features.fade(step.progress):
            gaps = [masked_gap(step.taps[f"block{i}"], step.guide_taps[f"block{j}"], both=self.both).mean()
                    for i, j in enumerate(self._map)]  # fmt: skip
            terms["features"] = weight * features.stacked(gaps)
        return terms
