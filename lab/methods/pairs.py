"""One-step distillation on noise-image pairs (the GET setting of arXiv 2401.08639)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lab import perceptual
from lab.config import JSON, Recipe
from lab.data import Batch, ImageSpec
from lab.methods.base import Inputs, Method, Roles, Step
from lab.options import Share, Weight


@dataclass
class Pairs(Method):
    """Map the teacher's noise to the teacher's image in one step."""

    name: ClassVar[str] = "pairs"
    paper: ClassVar[str] = "arXiv 2401.08639, section 3"
    objective: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    l1: Weight = 1.0  # weight of the mean absolute difference
    l2: Weight = 0.0  # weight of the mean squared difference
    perceptual: Weight = 0.3  # weight of the perceptual distance
    perceptual_from: Share = 0.0  # share of the run after which the perceptual term acts

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l1 + self.l2 + self.perceptual == 0:
            raise ValueError("l1, l2 and perceptual must not all be 0: nothing would say what the image is to be")
        if self.perceptual_from and not self.l1 + self.l2:
            raise ValueError(f"perceptual_from {self.perceptual_from} leaves no loss before it: "
                             "set l1 or l2 above 0, or perceptual_from to 0")  # fmt: skip

    def why_not(self, recipe: Recipe) -> str | None:
        if recipe.student.time:
            return "method pairs trains a one-step student; set student.time to false"
        return None

    def conditions(self, spec: ImageSpec) -> dict[str, JSON]:
        return {"perceptual": perceptual.name(spec)} if self.perceptual else {}

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        self._distance = perceptual.load(roles.spec) if self.perceptual else None
        return student

    def compile(self) -> None:
        if self._distance is not None:
            self._distance.compile()

    def inputs(self, batch: Batch, rng: torch.Generator) -> Inputs:
        weight = torch.ones(len(batch.noise), device=batch.noise.device)
        return Inputs(x=batch.noise, sigma=None, y=batch.y, target=batch.image, weight=weight, index=batch.index,
                      path=batch.path)  # fmt: skip

    def distance(self, step: Step, target: Tensor) -> dict[str, Tensor]:
        each = step.inputs.weight
        weight = each.view(-1, 1, 1, 1)
        difference = step.prediction - target
        terms = {}
        if self.l1:
            terms["l1"] = self.l1 * (weight * difference.abs()).mean()
        if self.l2:
            terms["l2"] = self.l2 * (weight * difference.square()).mean()
        if self._distance is not None and step.progress >= self.perceptual_from:
            terms["perceptual"] = self.perceptual * (each * self._distance(step.prediction, target)).mean()
        return terms
