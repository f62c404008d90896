"""Distribution matching as a finish of a pair student: its images move to where the teacher's are more likely.

A copy of the teacher learns to denoise the student's own images, so that the difference of the two denoisers says in
which direction a drawn image is too likely. DMD2 (arXiv 2405.14867) with the pairs' regression of DMD (arXiv
2311.18828) in the place of its discriminator.

    x = G(z, y),  x_t = x + sigma n,  r = D_teacher(x_t),  f = D_fake(x_t)                      both without gradient
    w = 1 / (mean |x - r| + 1e-6)                                                               per image
    L_G    = 0.5 mean( x - sg[x - w (f - r)] )^2
    L_fake = lambda(sigma) mean( D_fake(sg x + sigma n) - sg x )^2                              EDM's denoising loss

B batch, C channels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lab import diffusion
from lab.config import Recipe
from lab.methods.base import Method, Roles, Step
from lab.options import Count, Positive, Weight

EPS = 1e-6  # of the mean difference by which the gradient is divided


@dataclass
class Dmd(Method):
    """Move images along the difference of two denoisers: the teacher, and a copy that learns the student's images."""

    name: ClassVar[str] = "dmd"
    paper: ClassVar[str] = "arXiv 2405.14867, Eq. 1 and section 4"
    needs: ClassVar[frozenset[str]] = frozenset({"pairs", "denoiser"})

    weight: Weight = 0.3
    every: Count = 1  # updates of the copy between two of the student by it
    rate: Positive = 0.02  # of the copy's learning rate, over the recipe's

    def why_not(self, recipe: Recipe) -> str | None:
        return "method dmd finishes a one-step student; set student.time to false" if recipe.student.time else None

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        self._teacher, self._sigma_data = roles.guide, roles.spec.sigma_data
        self.own["fake"] = copy.deepcopy(roles.guide.net).requires_grad_(True)
        self.own["fake"].lr_scale = self.rate
        self._told = bool(roles.guide.config.num_classes)
        return student

    def compile(self) -> None:
        self._teacher.compile()
        self.own["fake"].compile()

    def loss(self, step: Step) -> dict[str, Tensor]:
        x, y = step.prediction, step.inputs.y if self._told else None
        fake = diffusion.Denoiser(self.own["fake"], self._sigma_data)
        sigma = diffusion.draw_sigma(len(x), step.rng)
        s = sigma.view(-1, 1, 1, 1)
        x_t = x.detach() + s * torch.randn(x.shape, generator=step.rng, device=x.device)
        f = fake(x_t, sigma, y).float()
        error = (f - x.detach()).square().mean((1, 2, 3))
        terms = {"fake": (diffusion.loss_weight(sigma, self._sigma_data) * error).mean()}
        if (step.images // len(x)) % self.every == 0:
            r = self._teacher(x_t, sigma, y)
            w = 1 / ((x.detach() - r).abs().mean((1, 2, 3), keepdim=True) + EPS)
            terms["match"] = self.weight * 0.5 * (x - (x - w * (f - r)).detach()).square().mean()
        return terms
