"""Students of few evaluations: one step of theirs is several of a denoiser's (progressive distillation).

A student that draws by DDIM in n steps, at noise levels s_0 > ... > s_n = 0, learns where a guide's path leads from
one of its levels to the next. Its own step ends there if it says D*:

    x  = x_0 + s_i e                                            x_0 real, e unit noise, i of 0 .. n - 1
    D* = ( x' - (s_{i+1} / s_i) x ) / ( 1 - s_{i+1} / s_i )     x' the guide's state at s_{i+1}, when it starts at x
    L  = lambda(s_i) mean( D_S(x; s_i) - D* )^2                 lambda of EDM, which is the published SNR + 1

A guide that draws by DDIM itself, in m steps, is followed along its own levels, m / n of them in one of the student's:
with m = 2 n that is the published halving, to be done again from the student's weights. Any other guide is right at
every level and is followed by DPM-Solver++(2S), two evaluations a step (arXiv 2211.01095, Algorithm 1). Heun's method
draws worse in as few steps; tried in short: 8 of a DiT of 2 blocks, 1,000 digits, distance 2.19 against 1.42.

Not consistency distillation (arXiv 2303.01469), whose student draws new noise between its evaluations: exports, packs,
pairs and sheets would all have to carry it. Here the first noise alone decides the image, and the student is a denoiser
with a solver like every other. The price is a training for each number of evaluations.

arXiv 2202.00512, Algorithm 2, with DDIM in EDM's variables. B batch, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lab import diffusion
from lab.config import Recipe
from lab.data import Batch
from lab.methods.base import Inputs, Method, Roles, Step

FIXED = "ddim"  # the solver whose students are right at their own noise levels alone


@dataclass
class Progressive(Method):
    """Take several steps of a denoiser's path in one."""

    name: ClassVar[str] = "progressive"
    paper: ClassVar[str] = "arXiv 2202.00512, Algorithm 2"
    objective: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"denoiser"})

    path: int = 8  # steps from noise to image by which a guide is followed that is right at every level

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path < 2:
            raise ValueError(f"path must be at least 2 steps, got {self.path}")

    def why_not(self, recipe: Recipe) -> str | None:
        if not recipe.student.time:
            return "method progressive trains a net with time; set student.time to true"
        if not recipe.drawn_by.startswith(f"{FIXED}-"):
            return (f"method progressive trains a student that draws by {FIXED} in few steps; set sampler to "
                    f"{FIXED}-4, say, got {recipe.drawn_by}")  # fmt: skip
        return None

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        self._guide, self._sigma_data = roles.guide, roles.spec.sigma_data
        self._told = bool(roles.guide.config.num_classes)
        self._steps = diffusion.solver_of(roles.sampler)[1]
        kind, count = diffusion.solver_of(roles.guide.solver)
        self._second_order = kind is not diffusion.ddim
        whole = self.path if self._second_order else count
        if whole % self._steps or whole <= self._steps:
            how = f"guide {roles.guide.name} draws by {roles.guide.solver}"
            how = f"path is {whole} steps" if self._second_order else how
            raise ValueError(f"method progressive makes one step of several, and {how}, which {roles.sampler} does not "
                             f"divide; take {2 * self._steps}")  # fmt: skip
        self._each = whole // self._steps
        self._levels = diffusion.ddim_sigmas(whole).to(roles.device, diffusion.widest(roles.device))
        return student

    def inputs(self, batch: Batch, rng: torch.Generator) -> Inputs:
        x0 = batch.image
        at = self._each * torch.randint(self._steps, (len(x0),), generator=rng, device=x0.device)
        sigma = self._levels[at].float()
        x = x0 + sigma.view(-1, 1, 1, 1) * torch.randn(x0.shape, generator=rng, device=x0.device)
        return Inputs(x=x, sigma=sigma, y=batch.y, target=self.target(x, at, batch.y),
                      weight=diffusion.loss_weight(sigma, self._sigma_data))  # fmt: skip

    @torch.no_grad()
    def target(self, x: Tensor, at: Tensor, y: Tensor | None) -> Tensor:
        """D* (B, C, H, W) of noisy images at levels of the guide by number, (B,)."""
        state = start = x.to(self._levels.dtype)  # at sigma 80 the image is a small difference of large numbers
        for step in range(self._each):
            state = self._follow(state, at + step, y)
        s, end = (self._levels[i].view(-1, 1, 1, 1) for i in (at, at + self._each))
        return ((state - end / s * start) / (1 - end / s)).to(x.dtype)

    def _follow(self, x: Tensor, at: Tensor, y: Tensor | None) -> Tensor:
        """The guide's state one of its levels on."""
        s, s_next = (self._levels[i].view(-1, 1, 1, 1) for i in (at, at + 1))
        D = self._ask(x, s, y)
        if self._second_order:  # but for the step to 0, which has no middle in ln(sigma)
            middle = (s * s_next).sqrt()
            there = self._ask(diffusion.ddim_step(x, D, s, middle), middle.clamp(min=diffusion.SIGMA_MIN), y)
            D = torch.where(s_next > 0, there, D)
        return diffusion.ddim_step(x, D, s, s_next)

    def _ask(self, x: Tensor, s: Tensor, y: Tensor | None) -> Tensor:
        return self._guide(x.float(), s.flatten().float(), y if self._told else None).to(x.dtype)

    def distance(self, step: Step, target: Tensor) -> dict[str, Tensor]:
        error = (step.prediction - target).square().mean((1, 2, 3))
        return {"mse": (step.inputs.weight * error).mean()}
