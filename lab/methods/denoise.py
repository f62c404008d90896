"""EDM denoising of real images (arXiv 2206.00364): trains teachers and many-step students."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lab.config import JSON, Recipe
from lab.data import Batch
from lab.diffusion import draw_sigma, loss_weight
from lab.methods.base import Inputs, Method, Roles, Step
from lab.options import Count


@dataclass
class Denoise(Method):
    """Learn D(x + sigma n; sigma) = x from data."""

    name: ClassVar[str] = "denoise"
    paper: ClassVar[str] = "arXiv 2206.00364, Eq. 2 and Table 1"
    objective: ClassVar[bool] = True

    added_later: ClassVar[dict[str, JSON]] = {"strata": 1}

    label_drop: float = 0.1  # share of labels replaced by the null class, where the net has one
    strata: Count = 1  # equally likely parts of the noise levels, of which the samples of a batch take one in turn

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_drop < 1:
            raise ValueError(f"label_drop must lie in [0, 1), got {self.label_drop}")

    def why_not(self, recipe: Recipe) -> str | None:
        if recipe.batch % self.strata:
            return f"batch is {recipe.batch}, which {self.strata} strata of noise levels do not divide"
        return None if recipe.student.time else "method denoise needs a net with time; set student.time to true"

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        config = student.config
        self.sigma_data = roles.spec.sigma_data
        self.null = config.num_classes if config.null_class else None
        return student

    def inputs(self, batch: Batch, rng: torch.Generator) -> Inputs:
        x0, y = batch.image, batch.y
        sigma = draw_sigma(len(x0), rng, self.strata)
        noise = torch.randn(x0.shape, generator=rng, device=x0.device)
        if self.null is not None and y is not None:
            dropped = torch.rand(len(y), generator=rng, device=x0.device) < self.label_drop
            y = torch.where(dropped, self.null, y)
        x = x0 + sigma.view(-1, 1, 1, 1) * noise
        return Inputs(x=x, sigma=sigma, y=y, target=x0, weight=loss_weight(sigma, self.sigma_data))

    def distance(self, step: Step, target: Tensor) -> dict[str, Tensor]:
        error = (step.prediction - target).square().mean((1, 2, 3))
        return {"mse": (step.inputs.weight * error).mean()}
