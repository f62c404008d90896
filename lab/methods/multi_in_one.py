"""Several blocks of an assistant, or several steps of the teacher, in one block of the student.

Two readings of the Multi-In-One of arXiv 2502.14226, whose section on the method could not be reached. The first three
variants learn from an assistant, L_T blocks, cut into a group G_l for each of the student's L_S; h^T_last(G_l) is the
last of a group, LN0 a norm without scale or shift:

    all    L = mean_l mean_{k in G_l} mse( LN0(P_lk h^S_l), LN0(sg h^T_k) )             a projection for each block
    agg    L = mean_l mse( LN0(P_l h^S_l), sum_{k in G_l} a_lk LN0(sg h^T_k) )          a_l = softmax(s_l)
    inc    L = mean_l mse( LN0(P_l (h^S_l - h^S_l-1)), LN0(sg (h^T_last(G_l) - h^T_last(G_l-1))) )     h_-1 = tokens

The fourth needs none. The teacher's own estimates along its path, noisy to clean, are what the blocks come to in turn:

    path   L = sum_l 2^(l + 1 - L_S) L1( H_l h^S_l, xhat_j(l) )         H_l = unpatchify(Linear(LN0)), thrown away

L_S = L_T makes `all` and `agg` the teaching assistant's loss. B batch, N tokens, D_S and D_T widths, K targets a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab import diffusion
from lab.config import JSON, DiTConfig, Recipe
from lab.methods import features
from lab.methods.assistant import Assisted
from lab.methods.base import Roles, Step
from lab.models.layers import unpatchify
from lab.options import Weight, Whole

if TYPE_CHECKING:
    from lab.guides import Guide


@dataclass
class MultiInOne(Assisted):
    """Match each block with a whole group of a larger DiT's, or with a step of the teacher's path."""

    name: ClassVar[str] = "multi_in_one"
    paper: ClassVar[str] = "arXiv 2502.14226 (our readings)"

    variant: Literal["all", "agg", "inc", "path"] = "all"  # of a group: its blocks, mean, sum; or the teacher's path
    mix: Literal["trained", "uniform"] = "trained"  # agg's mean; uniform can't turn to the easiest block
    entropy: Weight = 0.01  # weight of the trained mean's entropy, which is rewarded
    levels: Whole = 0  # path's steps of the teacher; 0 = one for each block. Students of equal levels share their pairs

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "path":
            self.needs = frozenset({"path"})  # and nobody beside the student

    def why_not(self, recipe: Recipe) -> str | None:
        if self.variant != "path":
            return super().why_not(recipe)
        if not isinstance(recipe.student, DiTConfig) or recipe.student.time:
            return "variant path of multi_in_one teaches a one-step DiT; set student.time to false"
        if self.assistant:
            return f"variant path of multi_in_one asks no assistant, and {self.assistant} is named; leave it out"
        if not self.pair:
            return "variant path of multi_in_one has the teacher's image alone; set pair above 0"
        return None

    def plan(self, recipe: Recipe) -> list[Recipe]:
        return [recipe] if self.variant == "path" else super().plan(recipe)

    def path(self, recipe: Recipe) -> int:
        """One estimate for each block, as far as the solver makes them."""
        if self.variant != "path":
            return 0
        return min(self.levels or recipe.student.depth, diffusion.solver_of(recipe.solver)[1] - 1)

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        if not self.features:
            return student
        mine = student.config
        if self.variant == "path":
            self.own["heads"] = Heads(mine)
        else:
            theirs = roles.guide.config
            self._groups = features.groups(mine.depth, theirs.depth)
            trained = self.mix == "trained" and self.variant == "agg"
            self.own["groups"] = Groups(self._groups, mine.width, theirs.width, every=self.variant == "all",
                                        mixed=self.variant == "agg", trained=trained, norm=self.norm)  # fmt: skip
        for module in self.own.values():
            module.lr_scale = self.rate
        return student

    def compile(self) -> None:
        for module in self.own.values():
            module.compile()

    def taps(self, student: nn.Module, guide: Guide | None) -> tuple[set[str], set[str]]:
        if not self.features:
            return set(), set()
        mine = {f"block{i}" for i in range(student.config.depth)}
        if self.variant == "path":
            return mine, set()
        groups = features.groups(student.config.depth, getattr(guide.config, "depth", 0))
        if self.variant == "inc":
            return mine | {"tokens"}, {"tokens"} | {f"block{group[-1]}" for group in groups}
        return mine, {f"block{i}" for group in groups for i in group}

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {} if self.variant == "path" else super().loss(step)
        if not (weight := self.weight(step.progress)):
            return terms
        if self.variant == "path":
            return terms | {"path": weight * self._path(step)}
        terms["features"] = weight * self.own["groups"](*self._matched(step))
        if self.own["groups"].trained and self.entropy:
            terms["entropy"] = -self.entropy * self.own["groups"].entropy()
        return terms

    def _matched(self, step: Step) -> tuple[list[Tensor], list[list[Tensor]]]:
        """For each of the student's blocks its tensor (B, N, D_S), and those (B, N, D_T) that it is to match."""
        mine, theirs = step.taps, step.guide_taps
        if self.variant != "inc":
            return ([mine[f"block{i}"] for i in range(len(self._groups))],
                    [[theirs[f"block{k}"] for k in group] for group in self._groups])  # fmt: skip
        ours = [mine["tokens"], *(mine[f"block{i}"] for i in range(len(self._groups)))]
        ends = [theirs["tokens"], *(theirs[f"block{group[-1]}"] for group in self._groups)]
        return ([b - a for a, b in zip(ours, ours[1:])], [[b - a] for a, b in zip(ends, ends[1:])])

    def _path(self, step: Step) -> Tensor:
        path = step.inputs.path
        if path is None:
            raise ValueError("variant path of multi_in_one wants pairs that were kept with their path, these were not")
        return self.own["heads"]([step.taps[f"block{i}"] for i in range(len(self.own["heads"]))], path)

    def facts(self, student: nn.Module) -> dict[str, JSON]:
        """Of a trained mean: its weights by group, and their mean entropy in nats."""
        groups = self.own["groups"] if "groups" in self.own else None
        if groups is None or not groups.trained:
            return {}
        mix = [[round(a, 4) for a in scores.softmax(0).tolist()] for scores in groups.scores]
        return {"mix": mix, "entropy": round(groups.entropy().item(), 4)}


def level_map(blocks: int, count: int) -> list[int]:
    """j(l) = ceil((l + 1) J / L_S) - 1: the teacher's step for each block; the last for the last."""
    return [-(-(block + 1) * count // blocks) - 1 for block in range(blocks)]


class Projections(nn.Module):
    """K maps D_S -> D_T of one tensor as a single product: (B, N, D_S) -> (B, N, K, D_T)."""

    def __init__(self, count: int, mine: int, theirs: int) -> None:
        super().__init__()
        layers = [features.projection(mine, theirs) for _ in range(count)]
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers]))
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias).unflatten(-1, (self.count, -1))


class Groups(nn.Module):
    """The feature loss of a student's blocks against groups of another network's.

    `every`: one projection for each block of a group; `mixed`: one for their mean, whose weights may be `trained`.
    """

    def __init__(self, groups: list[range], mine: int, theirs: int, *, every: bool, mixed: bool, trained: bool,
                 norm: str = "token") -> None:  # fmt: skip
        super().__init__()
        self.norm = norm
        self.projections = nn.ModuleList(Projections(len(group) if every else 1, mine, theirs) for group in groups)
        self.mixed, self.trained = mixed, trained
        sizes = [len(group) for group in groups] if mixed else []
        self.scores = nn.ParameterList(nn.Parameter(torch.zeros(size), requires_grad=trained) for size in sizes)

    def forward(self, mine: list[Tensor], theirs: list[list[Tensor]]) -> Tensor:
        """Tensors (B, N, D_S) of the blocks, and for each those (B, N, D_T) to match -> scalar."""
        terms = []
        for block, (project, x, targets) in enumerate(zip(self.projections, mine, theirs)):
            u, v = features.matched(project(x), torch.stack(targets, 2), self.norm)  # (B, N, K, D_T)
            if self.mixed:
                v = (self.scores[block].softmax(0)[:, None] * v).sum(2, keepdim=True)
            terms.append((u - v).square().mean())
        return features.stacked(terms)

    def entropy(self) -> Tensor:
        """H(a_l) in nats, mean over groups."""
        return features.stacked([-(s.softmax(0) * s.log_softmax(0)).sum() for s in self.scores])


class Heads(nn.Module):
    """An image out of every block, by a norm and a linear layer of its own."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.side, self.patch = config.image_size // config.patch, config.patch
        out = config.patch**2 * config.channels
        self.layers = nn.ModuleList(nn.Linear(config.width, out) for _ in range(config.depth))
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def __len__(self) -> int:
        return len(self.layers)

    def forward(self, blocks: list[Tensor], path: Tensor) -> Tensor:
        """Tensors (B, N, D) of the blocks, estimates (B, J, C, H, W) noisy to clean -> scalar."""
        found = zip(self.layers, blocks, level_map(len(blocks), path.shape[1]))
        gaps = [(unpatchify(layer(features.norm(x)), self.side, self.patch) - path[:, level]).abs().mean()
                for layer, x, level in found]  # fmt: skip
        weights = [0.5 ** (len(gaps) - 1 - block) for block in range(len(gaps))]
        return torch.stack([w * gap for w, gap in zip(weights, gaps)]).sum()
