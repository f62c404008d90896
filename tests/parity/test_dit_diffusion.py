"""Our DiT's embeddings, guidance, DDIM and loss with a learned variance against facebookresearch/DiT."""

from __future__ import annotations

import pytest
import torch

from lab import ddpm, diffusion
from lab.config import DiTConfig
from lab.ddpm import Schedule
from lab.models.dit import DiT, from_published
from lab.teachers import CallableTeacher, DiscreteDenoiser

CONFIG = DiTConfig(image_size=8, channels=4, out_channels=8, null_class=True, time=True, patch=2, depth=2, width=64)
NULL = 10


@pytest.fixture
def net(arrays) -> DiT:
    state = {k[3:]: v for k, v in arrays("dit_forward.npz").items() if k.startswith("sd.")}
    net = DiT(CONFIG)
    net.load_state_dict(from_published(state))
    return net.eval().requires_grad_(False)


def test_embeddings_and_the_count_of_parameters_are_the_published_ones(arrays, net):
    file, features = arrays("dit_forward.npz"), []
    net.time.fc1.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    torch.testing.assert_close(net.time(file["t"]), file["t_emb"], atol=1e-5, rtol=0)
    # A frequency that is one float32 off, as another machine's exp may have it, moves an angle of t = 999 by 6e-5.
    torch.testing.assert_close(features[0], file["t_freq"], atol=1e-4, rtol=0)
    torch.testing.assert_close(net.label(file["y"]), file["y_emb"], atol=1e-5, rtol=0)
    assert sum(p.numel() for p in net.parameters()) + net.positions.numel() == file["nparams"]


def test_guidance_is_the_published_one_in_three_channels(arrays, net):
    file, half = arrays("dit_forward.npz"), 2
    x, t, y = (file[f"cfg_{name}"][:half] for name in ("x", "t", "y"))
    found = diffusion.guided(net, x, t, y, null=NULL, scale=float(file["cfg_scale"]))
    torch.testing.assert_close(found, file["cfg_out"][:half], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, :3], file["cfg_out"][half:, :3], atol=1e-5, rtol=0)
    free = net(x, t, file["cfg_y"][half:])
    torch.testing.assert_close(free[:, 3:], file["cfg_out"][half:, 3:], atol=1e-5, rtol=0)


def test_a_guided_teacher_moves_its_first_three_channels_away_from_no_class(arrays, net):
    file, a = arrays("dit_diffusion.npz"), Schedule().alphas_cumprod
    x, sigma, y = file["ddim_zT"], Schedule().sigmas[[400, 400]], file["ddim_y"]
    plain, free, guided = (
        DiscreteDenoiser(net, a, "epsilon", guidance=scale)(x, sigma, labels)
        for scale, labels in [(1.0, y), (1.0, torch.full_like(y, NULL)), (2.5, y)]
    )
    torch.testing.assert_close(guided[:, :3], (free + 2.5 * (plain - free))[:, :3], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(guided[:, 3], plain[:, 3], atol=1e-4, rtol=1e-5)
    assert (guided - plain)[:, :3].abs().max() > 0.1
    teacher = CallableTeacher(lambda x, s, y: x, None, "ddim-10", guidance=2.5)
    assert teacher.evaluations == 20 and CallableTeacher(lambda x, s, y: x, None, "ddim-10").evaluations == 10


def test_the_schedule_is_the_published_one(arrays):
    file, mine = arrays("dit_diffusion.npz"), Schedule()
    torch.testing.assert_close(mine.betas, file["betas"], atol=1e-12, rtol=0)
    torch.testing.assert_close(mine.alphas_cumprod, file["alphas_cumprod"], atol=1e-12, rtol=0)
    torch.testing.assert_close(mine.posterior_log_variance, file["posterior_log_variance_clipped"], atol=1e-12, rtol=0)
    again = Schedule(file["betas"])
    torch.testing.assert_close(again.alphas_cumprod, file["alphas_cumprod"], atol=1e-12, rtol=0)


def test_timesteps_are_thinned_out_as_published(arrays):
    file = arrays("dit_diffusion.npz")
    strided = ddpm.spaced(10, ddim=True)
    assert strided == file["ddim10_timestep_map"].tolist() and ddpm.spaced(10) == file["p10_timestep_map"].tolist()
    torch.testing.assert_close(Schedule().alphas_cumprod[strided], file["ddim10_alphas_cumprod"], atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="1000 timesteps can't be thinned out to 600 at a whole stride"):
        ddpm.spaced(600, ddim=True)


def test_both_terms_of_the_loss_are_the_published_ones(arrays, net):
    file, schedule = arrays("dit_diffusion.npz"), Schedule()
    x_t = schedule.noised(file["x0"], file["t"], file["noise"])
    torch.testing.assert_close(x_t, file["x_t"], atol=1e-6, rtol=0)
    out = net(x_t, file["t"], file["y"])
    losses = schedule.losses(out, file["x0"], x_t, file["t"], file["noise"])
    torch.testing.assert_close(losses["mse"], file["mse"], atol=1e-5, rtol=0)
    torch.testing.assert_close(losses["vb"], file["vb"], atol=1e-5, rtol=0)
    torch.testing.assert_close(sum(losses.values()), file["loss"], atol=1e-5, rtol=0)


def test_the_variational_term_teaches_the_variance_alone(arrays, net):
    file = arrays("dit_diffusion.npz")
    out = net(file["x_t"], file["t"], file["y"]).requires_grad_()
    Schedule().vb(out, file["x0"], file["x_t"], file["t"]).sum().backward()
    assert out.grad[:, :4].abs().max() == 0 and (out.grad[:, 4:].abs().amax((1, 2, 3)) > 0).all()


def test_a_published_dit_as_a_teacher_draws_the_images_of_its_own_ddim(arrays, net):
    file, schedule = arrays("dit_diffusion.npz"), Schedule()
    denoise = DiscreteDenoiser(net, file["alphas_cumprod"], "epsilon")
    levels = schedule.sigmas[ddpm.spaced(10, ddim=True)].flip(0)
    z = file["ddim_zT"].double() / (1 - file["ddim10_alphas_cumprod"][-1]).sqrt()  # sigma z is x_t / sqrt(a_t)
    sigmas = torch.cat([levels, levels.new_zeros(1)])
    with torch.no_grad():
        found = diffusion.ddim(lambda x, s: denoise(x, s, file["ddim_y"]), z, sigmas).float()
    torch.testing.assert_close(found, file["ddim_out"], atol=1e-3, rtol=1e-4)
