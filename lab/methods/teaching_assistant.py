"""A larger DiT of the student's family as an assistant, whose features guide the student's.

A U-Net teacher has no blocks that answer to a DiT's, so a DiT is trained on its pairs first: the teaching assistant.
Our reading of arXiv 2502.14226, whose section on the method could not be reached.

    m(l)   = round((l + 1) L_T / L_S) - 1                      last block to last block
    L_feat = mean_l mse( LN0(P_l h^S_l), LN0(sg h^T_m(l)) )     (B, N, D_T)
    L      = w_pair dist(S, x) + w_out dist(S, sg T) + w_feat (1 - s/S_total) L_feat
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from lab.config import JSON, DiTConfig, Recipe, Use
from lab.methods import features
from lab.methods.base import Method, Roles, Step

if TYPE_CHECKING:
    from lab.guides import Guide


@dataclass
class TeachingAssistant(Method):
    """Match blocks and images of a larger DiT that was taught by the same teacher."""

    name: ClassVar[str] = "teaching_assistant"
    paper: ClassVar[str] = "arXiv 2502.14226 (our reading)"
    needs: ClassVar[frozenset[str]] = frozenset({"guide"})
    added_later: ClassVar[dict[str, JSON]] = {"assistant": None}  # a name for the recipe's guide, where it is kept

    assistant: str | None = None  # the run that assists; None = the recipe's guide, or one that is trained first
    depth: int = 12  # blocks of an assistant that is trained first, at least the student's
    width: int = 64  # of its tokens, at least the student's
    pair: float = 1.0  # weight of the teacher's image
    output: float = 0.5  # weight of the assistant's image
    features: float = 1.0  # weight of its blocks, at the start
    until: float = 1.0  # share of the run after which they have faded out
    rate: float = 0.2  # of the projections' learning rate, over the recipe's

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pair", "output", "features"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.pair + self.output <= 0:
            raise ValueError("pair and output must not both be 0: nothing would say what the image is to be")
        if not 0 < self.until <= 1:
            raise ValueError(f"until must lie in (0, 1], got {self.until}")
        if not self.rate > 0:
            raise ValueError(f"rate must be above 0, got {self.rate}")

    def why_not(self, recipe: Recipe) -> str | None:
        if not isinstance(recipe.student, DiTConfig):
            return (f"method teaching_assistant matches blocks of two DiTs, the student is of family "
                    f"{recipe.student.family}")  # fmt: skip
        if recipe.guide and self.assistant not in (None, recipe.guide):
            return (f"guide is {recipe.guide} and teaching_assistant.assistant {self.assistant}: they are one; "
                    "leave one out")  # fmt: skip
        return None

    def plan(self, recipe: Recipe) -> list[Recipe]:
        """The assistant first, where none is named: a plain student of the same pairs that sees twice the images."""
        if recipe.guide and self.assistant is None:
            return [recipe]
        uses = tuple(use if use.method != self.name else self._without_name(use) for use in recipe.methods)
        if guide := recipe.guide or self.assistant:
            return [dataclasses.replace(recipe, methods=uses, guide=guide)]
        student = recipe.student
        width = max(self.width, student.width)
        shape = dataclasses.replace(student, depth=max(self.depth, student.depth), width=width, mlp_hidden=None,
                                    heads=student.heads if width % student.heads == 0 else 4)  # fmt: skip
        others = tuple(use for use in recipe.methods if use.method == "pairs") or (Use("pairs"),)
        first = dataclasses.replace(recipe, student=shape, methods=others, steps=2 * recipe.steps, keep=())
        return [first, dataclasses.replace(recipe, methods=uses, guide="stage:0")]

    def _without_name(self, use: Use) -> Use:
        return Use(use.method, {k: v for k, v in use.options.items() if k != "assistant"})

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        mine, theirs = student.config, roles.guide.config
        self._map = features.block_map(mine.depth, theirs.depth)
        if self.features:
            layers = [features.projection(mine.width, theirs.width) for _ in self._map]
            self.own["projections"] = nn.ModuleList(layers)
            self.own["projections"].lr_scale = self.rate
        return student

    def taps(self, student: nn.Module, guide: Guide | None) -> tuple[set[str], set[str]]:
        links = features.block_map(student.config.depth, guide.config.depth)
        if not self.features:
            return set(), set()
        return {f"block{i}" for i in range(len(links))}, {f"block{i}" for i in links}

    def objective_weight(self, progress: float) -> float:
        return self.pair

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = {}
        if self.output:
            toward = step.toward(step.guide_prediction)
            terms["output"] = self.output * torch.stack([*toward.values()]).sum()
        if self.features and (weight := self.features * features.fade(step.progress, self.until)):
            pairs = [(project(step.taps[f"block{mine}"]), step.guide_taps[f"block{theirs}"])
                     for mine, (project, theirs) in enumerate(zip(self.own["projections"], self._map))]  # fmt: skip
            terms["features"] = weight * features.stacked([features.gap(s, t) for s, t in pairs])
        return terms
