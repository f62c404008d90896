from __future__ import annotations

import math
import types

import numpy as np
import pytest
import torch
from conftest import DATA

from lab import diffusion


@pytest.fixture(scope="module")
def edm():
    return {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(DATA / "edm_heun.npz").items()}


def gaussian(mu: torch.Tensor, sd: float = 0.5):
    """The exact denoiser of data N(mu, sd^2)."""

    def D(x, sigma):
        s2 = sigma.view(-1, 1, 1, 1) ** 2
        return (sd**2 * x + s2 * mu) / (sd**2 + s2)

    return D


@pytest.mark.parametrize("steps", [18, 6])
def test_heun_equals_edms_sampler(edm, steps):
    out = diffusion.heun(gaussian(edm["mu"]), edm["z"], diffusion.karras_sigmas(steps))
    torch.testing.assert_close(out, edm[f"out_{steps}"], atol=1e-10, rtol=0)


def test_noise_levels_are_edms(edm):
    torch.testing.assert_close(diffusion.karras_sigmas(18)[:-1], edm["t_steps_18"].double(), atol=1e-10, rtol=0)


def test_ddim_steps_along_the_line_of_its_estimate_and_ends_at_the_last_one(edm):
    D = gaussian(edm["mu"])
    one = D(80 * edm["z"].double(), torch.full((2,), 80.0)).float()
    torch.testing.assert_close(diffusion.solve(D, edm["z"], "ddim-1")[0], one, atol=1e-5, rtol=0)
    sigmas = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    x = 3 * edm["z"].double()
    middle = x + (1 - 3) * (x - D(x, torch.full((2,), 3.0))) / 3  # Euler's step of dx/dsigma
    torch.testing.assert_close(diffusion.ddim(D, edm["z"], sigmas), D(middle, torch.ones(2)), atol=1e-10, rtol=0)


def test_the_error_of_ddim_falls_at_first_order(edm):
    errors = [(diffusion.solve(gaussian(edm["mu"]), edm["z"], f"ddim-{n}")[0] - edm["exact_ode"]).abs().mean()
              for n in (64, 128)]  # fmt: skip
    assert 0.85 < math.log2(errors[0] / errors[1]) < 1.15


def test_levels_of_few_ddim_steps_are_those_of_twice_as_many_and_begin_and_end_as_edms():
    for n in (1, 2, 4):
        few, more = diffusion.sigmas_of(f"ddim-{n}"), diffusion.sigmas_of(f"ddim-{2 * n}")
        assert len(few) == n + 1 and few[0] == pytest.approx(80) and few[-1] == 0
        torch.testing.assert_close(few, more[::2], atol=1e-9, rtol=0)
    assert diffusion.sigmas_of("ddim-2")[1] == pytest.approx(2.515, abs=1e-3)  # ((80^(1/7) + 0.002^(1/7)) / 2)^7


@pytest.mark.parametrize("solver", [diffusion.dpmpp2m, diffusion.heun])
def test_the_error_against_the_exact_ode_falls_at_second_order(edm, solver):
    errors = [
        (solver(gaussian(edm["mu"]), edm["z"], diffusion.karras_sigmas(n)) - edm["exact_ode"]).abs().mean()
        for n in (64, 128)
    ]
    assert 1.8 < math.log2(errors[0] / errors[1]) < 2.3


def test_preconditioning_is_edms_table_1():
    class Same(torch.nn.Module):
        def forward(self, x, t, y, taps=None):
            self.seen = x, t
            return torch.ones_like(x)

    net, sd = Same(), 0.7
    x, sigma = torch.randn(2, 1, 3, 3), torch.tensor([0.1, 5.0])
    out = diffusion.Denoiser(net, sd)(x, sigma, None)
    s = sigma.view(-1, 1, 1, 1)
    torch.testing.assert_close(out, sd**2 / (s**2 + sd**2) * x + s * sd / (s**2 + sd**2).sqrt())
    torch.testing.assert_close(net.seen[0], x / (s**2 + sd**2).sqrt())
    torch.testing.assert_close(net.seen[1], sigma.log() / 4)


def test_the_loss_of_an_untrained_net_is_one_at_every_noise_level():
    # D = c_skip x with F = 0, so weight * E|D - x0|^2 = 1 for data of standard deviation sd (EDM, app. B.6).
    sd = 0.7
    rng = torch.Generator().manual_seed(0)
    x0 = sd * torch.randn(20_000, generator=rng, dtype=torch.float64)
    for sigma in (0.02, 0.5, 10.0):
        x = x0 + sigma * torch.randn(20_000, generator=rng, dtype=torch.float64)
        error = (sd**2 / (sigma**2 + sd**2) * x - x0).square().mean()
        assert float(diffusion.loss_weight(torch.tensor(sigma), sd) * error) == pytest.approx(1, rel=0.05)


def test_noise_depends_on_the_seed_alone():
    z, y = diffusion.noise_of([5, 6, 7, 8], (1, 4, 4), 10)
    z2, y2 = diffusion.noise_of([7, 5], (1, 4, 4), 10)
    assert torch.equal(z2, z[[2, 0]]) and torch.equal(y2, y[[2, 0]])
    assert z.std() > 0.5 and not torch.equal(z[0], z[1])


def test_the_seeds_of_sheets_measurements_and_pairs_do_not_meet():
    bounds = [0, diffusion.SHEET_SEEDS.stop, diffusion.EVAL_SEED, diffusion.REFERENCE_SEED, diffusion.PAIR_SEED]
    assert bounds == sorted(bounds)
    assert diffusion.REFERENCE_SEED - diffusion.EVAL_SEED >= 100_000 <= diffusion.PAIR_SEED - diffusion.REFERENCE_SEED


def test_solve_keeps_estimates_from_noisy_to_clean(edm):
    D = gaussian(edm["mu"])
    images, path = diffusion.solve(D, edm["z"], "dpmpp2m-6", keep=3)
    assert path.shape == (2, 3, *images.shape[1:])
    torch.testing.assert_close(path[:, -1], images)
    distances = [(path[:, k] - images).abs().mean() for k in range(3)]
    assert distances == sorted(distances, reverse=True)


def test_where_a_device_has_no_float64_the_state_stays_on_the_cpu(edm, monkeypatch):
    D, to, went = gaussian(edm["mu"]), torch.Tensor.to, []

    def like_mps(x, *args, **options):
        if not args or str(args[0]) != "mps":
            return to(x, *args, **options)
        assert x.dtype != torch.float64, "MPS has no float64"
        went.append(x)
        return x

    monkeypatch.setattr(torch.Tensor, "to", like_mps)
    z = types.SimpleNamespace(device=torch.device("mps"), cpu=lambda: edm["z"])
    images, path = diffusion.solve(D, z, "heun-5", keep=2)
    expected, _ = diffusion.solve(lambda x, s: D(x.float(), s.float()), edm["z"], "heun-5")
    assert torch.equal(images, expected) and torch.equal(path[:, -1], path[:, 1]) and len(went) == 2 * 9 + 2


@pytest.mark.parametrize(("name", "count"), [("heun-18", 35), ("dpmpp2m-8", 8)])
def test_evaluations_are_counted_right(edm, name, count):
    calls = []

    def D(x, sigma):
        calls.append(1)
        return gaussian(edm["mu"])(x, sigma)

    diffusion.solve(D, edm["z"], name)
    assert len(calls) == count == diffusion.evaluations(name)


@pytest.mark.parametrize("name", ["euler-8", "heun", "heun-1", "dpmpp2m-x", "ddim-0", "heun-\N{SUPERSCRIPT TWO}",
                                  "heun-018", "ddim-1000000000"])  # fmt: skip
def test_an_unknown_solver_is_named(name):
    with pytest.raises(ValueError, match="unknown solver"):
        diffusion.solver_of(name)


def test_quantising_rounds_to_the_nearest():
    assert diffusion.to_uint8(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(diffusion.to_uint8(diffusion.from_uint8(levels)), levels)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64])
def test_a_seed_whose_noise_would_be_anothers_is_refused(seed):
    with pytest.raises(ValueError, match=f"4294967295, got {seed}"):
        diffusion.noise_of([0, seed], (1, 2, 2), 0)
    diffusion.noise_of([2**32 - 1], (1, 2, 2), 0)


@pytest.mark.parametrize(("seeds", "said"), [([], "no noise seeds"), ([1.5], "whole numbers, got 1.5"),
                                             (["a"], "whole numbers, got 'a'")])  # fmt: skip
def test_what_is_no_seed_draws_nothing(seeds, said):
    with pytest.raises(ValueError, match=said):
        diffusion.noise_of(seeds, (1, 2, 2), 0)
    assert torch.equal(*(diffusion.noise_of([seed], (1, 2, 2), 0)[0] for seed in (3, np.int64(3))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_quantised(value):
    with pytest.raises(ValueError, match="1 of 3 values"):
        diffusion.to_uint8(torch.tensor([0.0, value, 1.0]))
