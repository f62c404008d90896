"""What methods share that learn from an assistant: a larger DiT of the student's family, taught by the same teacher.

Two runs, where none is named: the assistant first, a plain student that sees twice the images; then the student.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lab.config import JSON, DiTConfig, Recipe, Use
from lab.methods import features
from lab.methods.base import METHODS, Method, Step
from lab.options import Positive, SomeShare, Weight


@dataclass
class Assisted(Method):
    """Abstract: learns from an assistant's image and blocks, beside the teacher's image."""

    needs: ClassVar[frozenset[str]] = frozenset({"guide"})
    # `assistant` is a name for the recipe's guide, where it is kept.
    added_later: ClassVar[dict[str, JSON]] = {"assistant": None, "norm": "token"}

    assistant: str | None = None  # the run that assists; None = the recipe's guide, or one that is trained first
    depth: int = 12  # blocks of an assistant that is trained first, at least the student's
    width: int = 64  # of its tokens, at least the student's
    pair: Weight = 1.0  # weight of the teacher's image
    output: Weight = 0.5  # weight of the assistant's image
    features: Weight = 1.0  # weight of its blocks, at the start
    until: SomeShare = 1.0  # share of the run after which they have faded out
    rate: Positive = 0.2  # of the projections' learning rate, over the recipe's
    norm: Literal["token", "place", "centre"] = "token"  # else what differs in a batch: by channel, or whole

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pair + self.output <= 0:
            raise ValueError("pair and output must not both be 0: nothing would say what the image is to be")

    def why_not(self, recipe: Recipe) -> str | None:
        if not isinstance(recipe.student, DiTConfig):
            return (f"method {self.name} matches blocks of two DiTs, the student is of family "
                    f"{recipe.student.family}")  # fmt: skip
        if recipe.guide and self.assistant not in (None, recipe.guide):
            return (f"guide is {recipe.guide} and {self.name}.assistant {self.assistant}: they are one; "
                    "leave one out")  # fmt: skip
        if self.norm != "token" and self.features and recipe.batch < 2:
            return f"norm {self.norm} of {self.name} compares the images of a batch, and batch is {recipe.batch}"
        return None

    def plan(self, recipe: Recipe) -> list[Recipe]:
        """The assistant first, where none is named: a plain student of the same pairs that sees twice the images."""
        uses = tuple(use if use.method != self.name else _of_any_assistant(use) for use in recipe.methods)
        if guide := recipe.guide or self.assistant:
            return [dataclasses.replace(recipe, methods=uses, guide=guide)]
        student = recipe.student
        width = max(self.width, student.width)
        shape = dataclasses.replace(student, depth=max(self.depth, student.depth), width=width, mlp_hidden=None,
                                    heads=student.heads if width % student.heads == 0 else 4)  # fmt: skip
        objective = tuple(use for use in recipe.methods if METHODS[use.method].objective) or (Use("pairs"),)
        first = dataclasses.replace(recipe, student=shape, methods=objective, steps=2 * recipe.steps, keep=())
        return [first, dataclasses.replace(recipe, methods=uses, guide="stage:0")]

    def objective_weight(self, progress: float) -> float:
        return self.pair

    def weight(self, progress: float) -> float:
        """Of the term that matches blocks."""
        return self.features * features.fade(progress, self.until)

    def asks(self, progress: float) -> bool:
        return bool(self.output or self.weight(progress))

    def loss(self, step: Step) -> dict[str, Tensor]:
        """The term of the assistant's image; a method adds that of its blocks."""
        if not self.output:
            return {}
        toward = step.toward(step.guide_prediction)
        return {"output": self.output * torch.stack([*toward.values()]).sum()}


def _of_any_assistant(use: Use) -> Use:
    """Without what says which assistant, or what one would be like: the recipe's guide does, and a run has one id."""
    return Use(use.method, {k: v for k, v in use.options.items() if k not in ("assistant", "depth", "width")})
