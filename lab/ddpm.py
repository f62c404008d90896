"""The discrete schedule that published DiTs are trained on, and their loss with a learned variance.

    x_t  = sqrt(a_t) x_0 + sqrt(1 - a_t) e                             arXiv 2006.11239, Eq. 4
    q    = N( mu_t(x_t, x_0), b~_t ),  p = N( mu_t(x_t, x^_0), exp(u log b_t + (1 - u) log b~_t) )      Eqs. 6 and 7
    L    = mean( (e_theta - e)^2 ) + KL(q || p) / ln 2,   u = (v + 1) / 2         arXiv 2102.09672, Eqs. 15 and 16

A network gives [e_theta; v] (B, 2 C, H, W). At t = 0 the second term is the decoder's -log p(x_0 | x_1) over 8-bit
pixels; it teaches the variance alone, for e_theta has no gradient in it. Sampling is EDM's, of
teachers.DiscreteDenoiser: `diffusion.ddim` on the levels `sigmas` of some timesteps is published DiT's DDIM.

B batch, C channels, T timesteps, t timestep (B,), a_t product of 1 - b_t, b~_t variance of the posterior q.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

BETAS = (1e-4, 0.02)  # of the first and the last of 1000 timesteps; linear between
STEPS = 1000
PIXEL = 1 / 255  # half of what lies between two values of 8 bits in [-1, 1]
TINY = 1e-12  # least probability of a pixel


class Normal(NamedTuple):
    """A normal distribution of each pixel, (B, C, H, W)."""

    mean: Tensor
    log_variance: Tensor


class Schedule:
    """Noise of T timesteps; constants in float64, (T,)."""

    def __init__(self, betas: Tensor | None = None) -> None:
        self.betas = torch.linspace(*BETAS, STEPS, dtype=torch.float64) if betas is None else betas.double()
        self.alphas_cumprod = (1 - self.betas).cumprod(0)
        before = torch.cat([self.betas.new_ones(1), self.alphas_cumprod[:-1]])
        variance = self.betas * (1 - before) / (1 - self.alphas_cumprod)  # 0 at t = 0, where its log is that of t = 1
        self.posterior_log_variance = torch.cat([variance[1:2], variance[1:]]).log()
        # mu_t = first x_0 + second x_t
        self._first = self.betas * before.sqrt() / (1 - self.alphas_cumprod)
        self._second = (1 - before) * (1 - self.betas).sqrt() / (1 - self.alphas_cumprod)

    @property
    def sigmas(self) -> Tensor:
        """EDM's noise level of every timestep, of x_t / sqrt(a_t)."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()

    def noised(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t of images and unit noise (B, C, H, W)."""
        a = self.alphas_cumprod
        return _at(a.sqrt(), t, x_0) * x_0 + _at((1 - a).sqrt(), t, x_0) * noise

    def posterior(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Normal:
        """q(x_{t-1} | x_t, x_0)."""
        mean = _at(self._first, t, x_0) * x_0 + _at(self._second, t, x_0) * x_t
        return Normal(mean, _at(self.posterior_log_variance, t, x_0).expand_as(mean))

    def reverse(self, out: Tensor, x_t: Tensor, t: Tensor) -> Normal:
        """p(x_{t-1} | x_t) of a network's output (B, 2 C, H, W)."""
        eps, v = out.chunk(2, 1)
        a = self.alphas_cumprod
        x_0 = _at((1 / a).sqrt(), t, x_t) * x_t - _at((1 / a - 1).sqrt(), t, x_t) * eps
        low, high = _at(self.posterior_log_variance, t, x_t), _at(self.betas.log(), t, x_t)
        return Normal(self.posterior(x_0, x_t, t).mean, low + (v + 1) / 2 * (high - low))

    def vb(self, out: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor, *, teacher: Tensor | None = None) -> Tensor:
        """The variational term in bits a dimension, (B,); of a teacher's output, towards its p instead of q."""
        eps, v = out.chunk(2, 1)
        p = self.reverse(torch.cat([eps.detach(), v], 1), x_t, t)
        q = self.posterior(x_0, x_t, t) if teacher is None else self.reverse(teacher.detach(), x_t, t)
        bits = torch.where(t.view(-1, 1, 1, 1) == 0, -log_likelihood(x_0, p), kl(q, p)) / math.log(2)
        return bits.mean((1, 2, 3))

    def losses(self, out: Tensor, x_0: Tensor, x_t: Tensor, t: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Both terms of L for each sample, (B,)."""
        error = (out.chunk(2, 1)[0] - noise).square().mean((1, 2, 3))
        return {"mse": error, "vb": self.vb(out, x_0, x_t, t)}


def kl(q: Normal, p: Normal) -> Tensor:
    """KL(q || p) of each pixel in nats."""
    apart = q.log_variance - p.log_variance
    return 0.5 * (apart.exp() - 1 - apart + (q.mean - p.mean).square() * (-p.log_variance).exp())


def log_likelihood(x: Tensor, p: Normal) -> Tensor:
    """ln of the probability that p gives to the 8-bit value of each pixel; the outermost have all that lies beyond."""
    apart, scale = x - p.mean, (-0.5 * p.log_variance).exp()
    above, below = normal_cdf(scale * (apart + PIXEL)), normal_cdf(scale * (apart - PIXEL))
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return mass.clamp(min=TINY).log()


def normal_cdf(x: Tensor) -> Tensor:
    """That of the unit normal distribution by the published approximation: the error function gives other digits."""
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def spaced(steps: int, *, of: int = STEPS, ddim: bool = False) -> list[int]:
    """Timesteps at equal distances, rising: from the first to the last, or (`ddim`) at a whole stride from the first.

    Raises ValueError where there are not so many.
    """
    stride = next((s for s in range(1, of) if len(range(0, of, s)) == steps), 0) if ddim else 1
    if not 2 <= steps <= of or not stride:
        raise ValueError(f"{of} timesteps can't be thinned out to {steps}{' at a whole stride' * ddim}")
    return [*range(0, of, stride)] if ddim else [round(i * (of - 1) / (steps - 1)) for i in range(steps)]


def _at(constants: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """A constant of each sample's timestep, (B, 1, 1, 1)."""
    return constants.to(like.device)[t].to(like.dtype).view(-1, 1, 1, 1)
