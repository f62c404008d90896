"""EDM preconditioning, noise by seed, and deterministic samplers (arXiv 2206.00364).

B batch, C channels, H = W image side, z unit-variance noise, x noisy image, sigma noise level,
D the denoiser: D(x, sigma, y) -> clean image. The samplers solve the probability-flow ODE
dx/dsigma = (x - D(x; sigma)) / sigma from sigma_max z down to 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lab.config import unknown
from lab.models.taps import Taps

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0  # EDM, Table 1
P_MEAN, P_STD = -1.2, 1.2  # EDM, Table 1: ln(sigma) in training

# Who uses which noise seeds. Training pairs never share a noise with a sheet or a measurement.
SHEET_SEEDS = range(0, 64)
EVAL_SEED = 100_000
REFERENCE_SEED = 300_000  # fresh teacher samples that students are measured against
PAIR_SEED = 1_000_000
MAX_SEED = 2**32 - 1  # torch's CPU generator takes 32 bits: of larger seeds, and of those below 0, it sees the last 32

DenoiseFn = Callable[[Tensor, Tensor], Tensor]  # (x (B,C,H,W), sigma (B,)) -> (B,C,H,W)


class Denoiser(nn.Module):
    """A raw network F with EDM's scaling around it (EDM, Eq. 7 and Table 1)."""

    def __init__(self, net: nn.Module, sigma_data: float) -> None:
        super().__init__()
        self.net = net
        self.sigma_data = sigma_data

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor | None, taps: Taps | None = None, **mode: object) -> Tensor:
        """D(x; sigma): (B, C, H, W), (B,), (B,) -> (B, C, H, W); `mode` goes to the network."""
        s, sd = sigma.view(-1, 1, 1, 1), self.sigma_data
        c_skip = sd**2 / (s**2 + sd**2)
        c_out = s * sd / (s**2 + sd**2).sqrt()
        c_in = 1 / (s**2 + sd**2).sqrt()
        c_noise = sigma.log() / 4
        F_x = self.net(c_in * x, c_noise, y, taps, **mode)
        return c_skip * x + c_out * F_x[:, : x.shape[1]]


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """lambda(sigma) of EDM, Table 1: makes the loss of F equal to 1 at the start for every sigma."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def draw_sigma(count: int, rng: torch.Generator, strata: int = 1) -> Tensor:
    """Training noise levels, ln(sigma) ~ N(P_mean, P_std^2); (count,). Of several strata, equally likely parts of that
    distribution, sample i takes number i mod strata.
    """
    if strata > 1:
        u = torch.rand(count, generator=rng, device=rng.device, dtype=widest(rng.device))
        u = (torch.arange(count, device=rng.device) % strata + u) / strata
        return (P_MEAN + P_STD * torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6))).exp().float()
    return (P_MEAN + P_STD * torch.randn(count, generator=rng, device=rng.device)).exp()


def guided(net: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, t: Tensor, y: Tensor, *, null: int,
           scale: float, channels: int = 3) -> Tensor:  # fmt: skip
    """Classifier-free guidance (arXiv 2207.12598, Eq. 6), F(null) + scale (F(y) - F(null)), in the first `channels`.

    net(x, t, y) -> (B, C_out, H, W) is asked once about 2 B. As in published DiT, only the first 3 channels are guided;
    of the others, a fourth of latents and the variance, what the class says stays.
    """
    told, free = net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, torch.full_like(y, null)])).chunk(2)
    return torch.cat([free[:, :channels].lerp(told[:, :channels], scale), told[:, channels:]], 1)


# --- noise by seed ------------------------------------------------------------------------------


def noise_of(seeds: Sequence[int], shape: tuple[int, int, int], num_classes: int) -> tuple[Tensor, Tensor | None]:
    """Unit noise (B, C, H, W) float32 and a drawn class (B,) int64 for each seed.

    Image k depends on seed k alone, never on the batch around it: each seed owns a generator,
    latents first, then the label (the order of arXiv 2401.08639's code). Raises ValueError for a seed beyond MAX_SEED.
    """
    if not len(seeds):
        raise ValueError("no noise seeds are given; one image is drawn for each")
    if wrong := [seed for seed in seeds if not hasattr(seed, "__index__")]:
        raise ValueError(f"noise seeds are whole numbers, got {wrong[0]!r}")
    if wrong := [seed for seed in seeds if not 0 <= seed <= MAX_SEED]:
        raise ValueError(f"noise seeds go from 0 to {MAX_SEED}, got {wrong[0]}, whose noise would be another seed's")
    z = torch.empty(len(seeds), *shape)
    y = torch.empty(len(seeds), dtype=torch.int64)
    rng = torch.Generator()
    for k, seed in enumerate(seeds):
        rng.manual_seed(int(seed))
        z[k] = torch.randn(shape, generator=rng)
        y[k] = torch.randint(max(num_classes, 1), (), generator=rng)
    return z, y if num_classes else None


def sheet_classes(count: int, num_classes: int) -> Tensor | None:
    """The classes of a sheet on the common seeds: 0, 1, 2, ... in turn; (count,)."""
    return torch.arange(count) % num_classes if num_classes else None


# --- samplers -----------------------------------------------------------------------------------


def karras_sigmas(steps: int) -> Tensor:
    """Noise levels sigma_0 > ... > sigma_{steps-1} > 0 (EDM, Eq. 5); (steps + 1,) float64."""
    if steps < 2:
        raise ValueError(f"a sampler needs at least 2 steps, got {steps}")
    i = torch.arange(steps, dtype=torch.float64)
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    sigmas = (high + i / (steps - 1) * (low - high)) ** RHO
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def ddim_sigmas(steps: int) -> Tensor:
    """EDM's noise levels with the step to 0 in the place of that to SIGMA_MIN, which of few steps would be one wasted;
    those of n are every second one of 2 n; (steps + 1,) float64.
    """
    return torch.cat([karras_sigmas(steps + 1)[:-2], torch.zeros(1, dtype=torch.float64)])


def heun(denoise: DenoiseFn, z: Tensor, sigmas: Tensor, keep: list[Tensor] | None = None) -> Tensor:
    """EDM's deterministic second-order sampler (Algorithm 1, S_churn 0); 2 steps - 1 evaluations."""
    x = sigmas[0] * z.double()  # float64: at sigma 80 a float32 step loses the image (EDM, app. D)
    for s, s_next in zip(sigmas[:-1], sigmas[1:]):
        D = _call(denoise, x, s, keep)
        d = (x - D) / s
        x_next = x + (s_next - s) * d
        if s_next > 0:
            d_next = (x_next - _call(denoise, x_next, s_next)) / s_next
            x_next = x + (s_next - s) * (d + d_next) / 2
        x = x_next
    return x


def ddim(denoise: DenoiseFn, z: Tensor, sigmas: Tensor, keep: list[Tensor] | None = None) -> Tensor:
    """DDIM without noise (arXiv 2010.02502, Eq. 12): Euler's method in EDM's variables; `steps` evaluations."""
    x = sigmas[0] * z.double()
    for s, s_next in zip(sigmas[:-1], sigmas[1:]):
        x = ddim_step(x, _call(denoise, x, s, keep), s, s_next)
    return x


def ddim_step(x: Tensor, D: Tensor, s: Tensor | float, s_next: Tensor | float) -> Tensor:
    """From noise level s to a lower one along what a denoiser says at s."""
    return s_next / s * x + (1 - s_next / s) * D


def dpmpp2m(denoise: DenoiseFn, z: Tensor, sigmas: Tensor, keep: list[Tensor] | None = None) -> Tensor:
    """DPM-Solver++(2M) (arXiv 2211.01095, Algorithm 2) in EDM's variables; `steps` evaluations."""
    x = sigmas[0] * z.double()
    D_last, h_last = None, None
    for s, s_next in zip(sigmas[:-1], sigmas[1:]):
        D = _call(denoise, x, s, keep)
        if s_next == 0:
            return D
        h = math.log(s / s_next)
        r = h_last / h if h_last else None
        D_bar = D if D_last is None else D + (D - D_last) / (2 * r)
        x = s_next / s * x - math.expm1(-h) * D_bar
        D_last, h_last = D, h
    return x


def _call(denoise: DenoiseFn, x: Tensor, sigma: Tensor | float, keep: list[Tensor] | None = None) -> Tensor:
    D = denoise(x, torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(x.shape[0])).double()
    if keep is not None:
        keep.append(D)
    return D


def widest(device: torch.device) -> torch.dtype:
    """The widest floating point numbers of a device: float64, which Apple's MPS lacks."""
    return torch.float32 if device.type == "mps" else torch.float64


SOLVERS = {"ddim": ddim, "heun": heun, "dpmpp2m": dpmpp2m}
SOLVER = "dpmpp2m-8"  # of a denoiser, unless another is named


def solver_of(name: str) -> tuple[Callable, int]:
    """The sampler and its number of steps for a name such as `heun-18`, `dpmpp2m-8` or `ddim-4`."""
    kind, _, steps = name.partition("-")
    if kind not in SOLVERS or not re.fullmatch("[1-9][0-9]{0,4}", steps) or int(steps) < (1 if kind == "ddim" else 2):
        raise ValueError(unknown("solver", name, ["heun-18", "dpmpp2m-8", "ddim-4"]) + " (name-steps)")
    return SOLVERS[kind], int(steps)


def sigmas_of(name: str) -> Tensor:
    """The noise levels of a named solver, falling to 0; (steps + 1,) float64."""
    solver, steps = solver_of(name)
    return ddim_sigmas(steps) if solver is ddim else karras_sigmas(steps)


def evaluations(name: str) -> int:
    """How often a solver calls the denoiser for one image."""
    solver, steps = solver_of(name)
    return 2 * steps - 1 if solver is heun else steps


def solve(denoise: DenoiseFn, z: Tensor, name: str, *, keep: int = 0, sigmas: Sequence[float] | None = None
          ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Samples of the ODE with a named solver, and `keep` clean-image estimates along its path.

    z (B, C, H, W) unit variance -> ((B, C, H, W) float32, (B, keep, C, H, W) float32 or None); the
    estimates run from noisy to clean and end at the last one. `sigmas`: the solver's own levels as plain numbers, for
    an export, which can't branch on tensors.
    """
    if widest(z.device) != torch.float64:  # the state, which needs it, stays on the CPU; only the network works there

        def there(x: Tensor, sigma: Tensor) -> Tensor:
            return denoise(x.float().to(z.device), sigma.float().to(z.device)).cpu()

        x, found = solve(there, z.cpu(), name, keep=keep, sigmas=sigmas)
        return x.to(z.device), None if found is None else found.to(z.device)
    solver, _ = solver_of(name)
    path: list[Tensor] | None = [] if keep else None
    x = solver(denoise, z, sigmas_of(name).to(z.device) if sigmas is None else sigmas, path).float()
    if not path:
        return x, None
    chosen = torch.linspace(0, len(path) - 1, keep + 1)[1:].round().long().tolist()
    return x, torch.stack([path[i] for i in chosen], 1).float()


def finite(images: Tensor, whose: str) -> Tensor:
    """The images as they are. Raises ValueError where some are not finite numbers: quantised, they would be black."""
    good = torch.isfinite(images)
    if not good.all():
        raise ValueError(f"{whose}: {int((~good).sum()):,} of {good.numel():,} values are not finite numbers; weights "
                         "or noise schedule are broken, or the arithmetic overflows")  # fmt: skip
    return images


def to_uint8(x: Tensor) -> Tensor:
    """[-1, 1] -> uint8 with rounding; the one place where an image is quantised. Raises ValueError for NaN and inf."""
    finite(x, "images to be kept as 8 bits")
    return (x.float() * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)


def from_uint8(x: Tensor) -> Tensor:
    return x.float() / 127.5 - 1
