from __future__ import annotations

import pytest
import torch
from methods import test_contract as contract

from lab import diffusion
from lab.config import Use
from lab.methods import create


def test_where_both_denoisers_agree_the_student_is_left_alone():
    nets, _ = contract.prepared("dmd")
    losses = nets.losses(contract.look(nets))  # the copy has learned nothing yet
    assert losses["dmd/match"].item() == 0 and losses["dmd/fake"].item() > 0


def test_the_student_moves_from_what_the_copy_says_to_what_the_teacher_says():
    nets, _ = contract.prepared("dmd")
    method = nets.methods[-1]
    with torch.no_grad():
        for p in method.own["fake"].parameters():
            p.add_(0.1 * torch.randn_like(p))
    step = contract.look(nets)
    x = step.prediction
    x.retain_grad()
    rng = step.rng.get_state()
    method.loss(step)["match"].backward()
    step.rng.set_state(rng)

    sigma = diffusion.draw_sigma(len(x), step.rng)
    x_t = (x + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=step.rng)).detach()
    with torch.no_grad():
        f = diffusion.Denoiser(method.own["fake"], 0.7)(x_t, sigma, step.inputs.y)
        r = nets.guide(x_t, sigma, step.inputs.y)
        w = 1 / (x - r).abs().mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(x.grad, 0.3 * w * (f - r) / x.numel(), rtol=1e-3, atol=1e-7)


def test_the_student_is_moved_every_so_often_and_the_copy_always_learns():
    nets, _ = contract.prepared("dmd")
    nets.methods[-1].every = 5
    rng = torch.Generator().manual_seed(0)
    for update, there in [(0, True), (1, False), (5, True)]:
        inputs = nets.objective.inputs(contract.batch(), rng)
        found = nets.losses(nets.look(inputs, progress=0.0, rng=rng, images=update * 4))
        assert ("dmd/match" in found) == there and "dmd/fake" in found


@pytest.mark.parametrize(("options", "part"), [
    ({"weight": -1.0}, "weight must be at least 0"), ({"every": 0}, "every must be at least 1"),
    ({"rate": 0.0}, "rate must be above 0"),
])  # fmt: skip
def test_options_that_can_not_be_meant_are_refused(options, part):
    with pytest.raises(ValueError, match=part):
        create(Use("dmd", options))
