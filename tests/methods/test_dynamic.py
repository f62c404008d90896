from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT
from methods.test_contract import SPEC, filled
from torch import Tensor, nn

from lab import data, deploy, diffusion, experiment, models, runtimes
from lab.config import DiTConfig, Recipe, Use
from lab.data import Batch
from lab.methods import Roles, create, finish
from lab.methods.dynamic import sort
from lab.models.blocks.dynamic import FastBlock, fast, share_of_work
from lab.models.taps import Taps
from lab.results import Store
from lab.train import Networks, start_state, update
from lab.weights import load_student, save_student

PLAIN = dataclasses.replace(TINY_DIT, patch=2, heads=4)  # 16 tokens
ONE_STEP = dataclasses.replace(PLAIN, block="dynamic")
DENOISER = dataclasses.replace(ONE_STEP, time=True, null_class=True)
SHAPES = {"one-step": ONE_STEP, "denoiser": DENOISER, "unconditional": dataclasses.replace(ONE_STEP, num_classes=0),
          "heads": dataclasses.replace(ONE_STEP, head_dim=6, mlp_hidden=40)}  # fmt: skip
MASKS = ("heads", "groups", "tokens")


def undecided(config: DiTConfig) -> nn.Module:
    """A finished network whose masks differ by time or class and by token."""
    net = filled(models.build(config))
    with torch.no_grad():
        for block in net.blocks:
            for part in (net.embed, block.adaln, net.time.fc2 if net.time else net.label or block.adaln):
                part.weight.normal_(std=0.3)
            for router in (block.head_router, block.group_router, block.token_router[0]):
                for p in router.parameters():
                    p.normal_(std=0.5)
            nn.init.ones_(block.token_router[-1].weight)
            nn.init.constant_(block.token_router[-1].bias, -0.2)
    return net.eval()


def inputs(config: DiTConfig, count: int = 12) -> tuple[Tensor, Tensor | None, Tensor | None]:
    torch.manual_seed(1)
    t = torch.linspace(-1.5, 1.0, count) if config.time else None
    return torch.randn(count, 1, 8, 8), t, torch.arange(count) % 10 if config.num_classes else None


def masks_of(net: nn.Module, *given: Tensor | None) -> list[Tensor]:
    """Of heads, groups and tokens, each (B, L, ...)."""
    taps = Taps(net.tap_names)
    net(*given, taps)
    return [torch.stack([taps[f"{name}{i}"] for i in range(net.config.depth)], 1) for name in MASKS]


# --- the block ----------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [False, True])
def test_with_every_mask_at_one_it_is_the_plain_network_bit_for_bit(time):
    plain = filled(models.build(dataclasses.replace(PLAIN, time=time))).eval()
    method = create(Use("dynamic", {"sort": False}))
    net = method.prepare(plain, Roles(SPEC)).eval()
    given = inputs(net.config)
    assert all((mask == 1).all() for mask in masks_of(net, *given))
    assert torch.equal(net(*given), plain(*given))
    for block in net.blocks:
        nn.init.constant_(block.token_router[-1].bias, -35.0)
    assert not torch.equal(net(*given), plain(*given)) and torch.equal(net(*given, full=True), plain(*given))


@pytest.mark.parametrize("training", [False, True])
def test_the_first_head_and_the_first_group_always_act(training):
    net = undecided(DENOISER).train(training)
    for block in net.blocks:
        for router in block.routers[:2]:
            nn.init.constant_(router.bias, -100.0)
    heads, groups, _ = masks_of(net, *inputs(DENOISER))
    for mask in (heads, groups):
        assert (mask[..., 0] == 1).all() and (mask[..., 1:] == 0).all()


def test_the_width_goes_by_time_alone_and_without_one_by_class():
    net = undecided(DENOISER)
    x, t, _ = inputs(DENOISER)
    first, second = (masks_of(net, x, t, torch.full((12,), y)) for y in (0, 10))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert len(torch.stack(first[:2], 2).unique(dim=0)) > 1
    by_class = masks_of(undecided(ONE_STEP), x[:1].expand(10, -1, -1, -1), None, torch.arange(10))
    assert len(torch.stack(by_class[:2], 2).unique(dim=0)) > 1


def test_in_training_masks_are_drawn_anew_and_reach_the_routers():
    net = undecided(DENOISER).train()
    given = inputs(DENOISER)
    first, second = masks_of(net, *given), masks_of(net, *given)
    assert all(set(mask.unique().tolist()) == {0.0, 1.0} for mask in first)
    assert not torch.equal(first[2], second[2])
    sum(mask.mean() for mask in first).backward()
    assert all(p.grad.abs().max() > 0 for b in net.blocks for r in b.routers[:2] for p in r.parameters())


# --- with less to compute -----------------------------------------------------------------------


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("alike", [False, True])
def test_slices_and_gathered_tokens_give_the_images_of_the_masks(config, alike):
    net = undecided(config)
    x, t, y = inputs(config)
    t = t[3].expand(12) if alike and config.time else t
    y = y[3].expand(12) if alike and config.num_classes and not config.time else y
    with torch.no_grad():
        masks, expected = masks_of(net, x, t, y), net(x, t, y)
        assert all(0 < mask.mean() < 1 for mask in masks)
        torch.testing.assert_close(fast(net)(x, t, y), expected, atol=1e-5, rtol=1e-5)
    assert (len({*masks[0].flatten(1).unbind()}) > 1) or alike or not config.num_classes


def test_it_multiplies_with_what_acts_alone_and_leaves_the_network_as_it_is():
    net = undecided(DENOISER)
    x, t, y = inputs(DENOISER, 1)
    heads, groups, _ = masks_of(net, x, t, y)
    quick = fast(net)
    quick(x, t, y)
    for index, block in enumerate(quick.blocks):
        (slices,) = block._slices.values()
        assert slices.heads == heads[0, index].sum() and len(slices.qkv[0]) == 3 * 4 * slices.heads
        assert len(slices.fc1[0]) == 16 * groups[0, index].sum()
    assert not any(isinstance(block, FastBlock) for block in net.blocks)
    plain = models.build(PLAIN)
    assert fast(plain) is plain


@pytest.mark.parametrize("config", [ONE_STEP, DENOISER], ids=["one-step", "denoiser"])
def test_eager_torch_runs_it_so_and_draws_the_same_images(config, tmp_path):
    run = Store(tmp_path / "results").open(Recipe(student=config, solver="dpmpp2m-2"))
    save_student(run, undecided(config), SPEC)
    z, y = diffusion.noise_of(range(8), SPEC.shape, 10)
    with torch.no_grad():
        expected = deploy.deploy(load_student(run), SPEC, "dpmpp2m-2")(z, y)
    session = runtimes.get("eager").open(run.path, solver="dpmpp2m-2")
    assert any(isinstance(part, FastBlock) for part in session.net.modules())
    scale = max(1.0, float(expected.abs().max()))
    assert np.abs(session(z.numpy(), y.numpy()) - expected.numpy()).max() <= 1e-5 * scale


# --- the work -----------------------------------------------------------------------------------


def test_the_work_is_counted_as_published():
    config = DiTConfig(image_size=32, channels=4, patch=2, depth=2, width=1152, heads=16)
    one, none, tokens = torch.ones(3, 2, 16), torch.zeros(3, 2, 16), torch.ones(3, 2, 256, 1)
    attention, mlp = 1.50995, 2.71791  # GMACs of a block of XL/2
    assert share_of_work(config, one, one, tokens).tolist() == [1.0] * 3
    assert share_of_work(config, one, none, tokens).tolist() == pytest.approx([attention / (attention + mlp)] * 3)
    half = share_of_work(config, none, one, tokens / 2)
    assert half.tolist() == pytest.approx([mlp / 2 / (attention + mlp)] * 3)


def test_training_brings_the_work_to_the_target_over_all_levels():
    """On 1,000 images that training has not seen, noised over all levels, within 2 % of lambda."""
    uses = Use("denoise", {"strata": 4}), Use("dynamic", {"complete": 0.0, "warm": 0.3})
    recipe = Recipe(student=dataclasses.replace(PLAIN, time=True), methods=uses, steps=400, batch=64, lr=5e-3,
                    optimizer="adamw", warmup=10)  # fmt: skip
    torch.manual_seed(0)
    methods, net = [create(use) for use in uses], models.build(recipe.student)
    for method in methods:
        net = method.prepare(net, Roles(SPEC))
    nets, state, rng = Networks(net, methods, SPEC.sigma_data), start_state(net, methods, recipe), seed(0)
    images = torch.from_numpy(np.load(data.__file__.replace("data.py", "assets/digits.npz"))["images"])
    images = images.float().view(-1, 1, 8, 8) / images.max() * 2 - 1
    classes = torch.zeros(len(images)).long()
    net.train()
    for _ in range(recipe.steps):
        drawn = torch.randint(1400, (64,), generator=rng)
        update(state, nets, recipe, Batch(images[drawn], classes[drawn]))
    shipped = finish(state.ema, methods)
    held = torch.arange(1000) % (len(images) - 1400) + 1400
    sigma = diffusion.draw_sigma(1000, rng, strata=250)
    x = images[held] + sigma.view(-1, 1, 1, 1) * torch.randn(1000, 1, 8, 8, generator=rng)
    taps = Taps(shipped.tap_names)
    with torch.no_grad():
        diffusion.Denoiser(shipped, SPEC.sigma_data)(x, sigma, classes[held], taps)
    masks = [torch.stack([taps[f"{name}{i}"] for i in (0, 1)], 1) for name in MASKS]
    assert share_of_work(shipped.config, *masks).mean().item() == pytest.approx(0.5, rel=0.02)
    assert 0.4 < methods[1].facts(shipped)["work"] < 0.6


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_noise_levels_in_strata_cover_a_batch_evenly_and_one_stratum_is_as_before():
    sigma = diffusion.draw_sigma(4000, seed(0), strata=4)
    z = (sigma.log() - diffusion.P_MEAN) / diffusion.P_STD
    quarter = (torch.special.ndtr(z) * 4).floor().long()
    assert torch.equal(quarter, torch.arange(4000) % 4)
    assert z.mean().abs() < 0.02 and (z.std() - 1).abs() < 0.03
    before = (diffusion.P_MEAN + diffusion.P_STD * torch.randn(8, generator=seed(3))).exp()
    assert torch.equal(diffusion.draw_sigma(8, seed(3)), before)
    recipe = Recipe(student=DENOISER, batch=30)
    assert "30, which 4 strata" in create(Use("denoise", {"strata": 4})).why_not(recipe)


# --- the method ---------------------------------------------------------------------------------


def test_the_target_falls_from_one_and_stays():
    method = create(Use("dynamic", {"target": 0.6, "warm": 0.5}))
    assert [method.target_at(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1.0, 0.8, 0.6, 0.6])


def test_the_heads_and_channels_of_the_largest_weights_come_first_and_the_function_stays():
    net = undecided(dataclasses.replace(ONE_STEP, mlp_hidden=40))
    block, given = net.blocks[0], inputs(ONE_STEP)
    with torch.no_grad():
        block.attn.proj.weight[:, 8:12] *= 20  # of the third head
        expected = net(*given, full=True)
        before = block.attn.proj.weight[:, 8:12].clone()
        sort(block)
        torch.testing.assert_close(net(*given, full=True), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(block.attn.proj.weight[:, :4], before)
    size = block.mlp.fc1.weight.norm(dim=1) * block.mlp.fc2.weight.norm(dim=0)
    assert (size.diff() <= 1e-6).all()


def test_it_starts_from_a_plain_run_and_says_what_acted(taught):
    plain = TINY_STUDENT.with_(student=PLAIN)
    base = experiment.run(plain, taught, measure=False)
    options = {"target": 0.7, "complete": 0.5, "rate": 0.5}
    recipe = plain.with_(methods=(Use("pairs"), Use("dynamic", options)), start=(base.id,), seed=2)
    run = experiment.run(recipe, taught, measure=False)
    facts = run.facts["dynamic"]
    assert run.config == ONE_STEP and facts["target"] == 0.7 and 0 < facts["work"] <= 1
    assert [len(facts[name]) for name in MASKS] == [2, 2, 2]
    again = recipe.with_(student=ONE_STEP, start=(run.id,), seed=3)  # a second stage, of the routers that it has
    assert experiment.run(again, taught, measure=False).config == ONE_STEP


def test_the_complete_network_is_trained_in_the_first_part_alone():
    method, pairs = create(Use("dynamic", {"complete": 0.5})), create(Use("pairs"))
    net = filled(models.build(PLAIN))
    for each in (pairs, method):
        net = each.prepare(net, Roles(SPEC))
    nets = Networks(net, [pairs, method], SPEC.sigma_data)
    z = torch.randn(4, 1, 8, 8)
    given = pairs.inputs(Batch(z.tanh(), torch.arange(4), z), seed(0))
    early, late = (method.loss(nets.look(given, progress=p, rng=seed(0))) for p in (0.4, 0.6))
    assert early.keys() == {"work", "full_l1", "full_perceptual"} and late.keys() == {"work"}
    (early["full_l1"] + early["full_perceptual"]).backward()
    assert all(p.grad is None for block in net.blocks for router in block.routers for p in router.parameters())
    assert net.blocks[0].mlp.fc1.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("change", "part"), [
    ({"student__block": "time"}, "the student is of time blocks"),
    ({"student__heads": 1}, "at least 2 heads"),
    ({"student__mlp_hidden": 42}, "mlp_hidden 42"),
    ({"methods": (Use("pairs"), Use("dynamic"), Use("depth_pruning"))}, "do depth_pruning first"),
])  # fmt: skip
def test_a_student_that_can_not_be_routed_is_refused(change, part):
    recipe = TINY_STUDENT.with_(student=PLAIN, methods=(Use("pairs"), Use("dynamic"))).with_(**change)
    assert part in create(Use("dynamic")).why_not(recipe)
