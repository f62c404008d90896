from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT
from methods.test_contract import SPEC, batch, filled
from torch import nn

from lab import cost, experiment, models
from lab.config import UNetConfig, Use
from lab.methods import Roles, create, finish
from lab.methods.reparam import LAYERS, Parallel, Serial, rank
from lab.models.layers import Linear, block_linears
from lab.optim import Optimizer
from lab.train import Networks

PLAIN = tuple(layer for layer in LAYERS if layer != "cond")  # which a time block has
FORMS = pytest.mark.parametrize("form", ["serial", "parallel"])
Z, Y = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 5, 9])


def networks(student: nn.Module | None = None, **options) -> Networks:
    student = student or filled(models.build(TINY_DIT))
    methods = [create(Use("pairs", {"perceptual": 0.0})), create(Use("reparam", options))]
    for method in methods:
        student = method.prepare(student, Roles(SPEC))
    return Networks(student, methods, SPEC.sigma_data)


def trained(nets: Networks, steps: int = 30, optimizer: str = "muon") -> Networks:
    descent = Optimizer([nets.student], TINY_STUDENT.with_(optimizer=optimizer))
    descent.set_lr(5e-3)
    for _ in range(steps):
        rng = torch.Generator().manual_seed(0)
        losses = nets.losses(nets.look(nets.objective.inputs(batch(), rng), progress=0.0, rng=rng))
        descent.zero_grad()
        sum(losses.values()).backward()
        descent.step()
    return nets


def factors(nets: Networks) -> list[nn.Parameter]:
    return [p for n, p in nets.student.named_parameters() if ".edits." in n]


@FORMS
def test_the_start_is_the_function_of_the_plain_student(form):
    plain = filled(models.build(TINY_DIT))
    expected = plain(Z, None, Y)
    nets = networks(plain, form=form, layers=PLAIN)
    torch.testing.assert_close(nets.student(Z, None, Y), expected, atol=1e-6, rtol=0)


@FORMS
@pytest.mark.parametrize("preserve", [True, False])
def test_every_factor_gets_a_gradient_at_the_first_or_second_update(form, preserve):
    nets = networks(form=form, layers=PLAIN, preserve=preserve)
    before = [p.detach().clone() for p in factors(nets)]
    trained(nets, steps=2)
    assert before and all((p != old).any() for p, old in zip(factors(nets), before))


@FORMS
@pytest.mark.parametrize("layers", [("fc1",), PLAIN])
def test_what_is_shipped_computes_what_was_trained_and_is_plain(form, layers):
    nets = trained(networks(form=form, layers=layers, expansion=2))
    net, live = finish(nets.student, nets.methods), nets.student.eval()
    for name, layer in block_linears(live, layers).items():
        x = torch.randn(5, layer.in_features)
        torch.testing.assert_close(net.get_submodule(name)(x), layer(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(net(Z, None, Y), live(Z, None, Y), atol=1e-5, rtol=0)
    plain = models.build(TINY_DIT)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    assert net.config == TINY_DIT and cost.of_config(net.config) == cost.of_config(TINY_DIT)
    for layer in block_linears(net, layers).values():
        assert rank(layer.weight) == min(layer.weight.shape)


def test_factors_are_multiplied_in_float64():
    torch.manual_seed(0)
    layer = Linear(64, 64)
    layer.edit(edit := Serial(layer, 4, preserve=False))
    expected = (edit.second.double() @ edit.first.double()).float()
    layer.fold()
    assert torch.equal(layer.weight, expected)


def test_averaged_factors_are_merged_and_not_averaged_products():
    """The product of two means is not the mean of two products."""
    one, other = (filled(networks().student) for _ in range(2))
    with torch.no_grad():
        for mine, theirs in zip(one.parameters(), other.parameters()):
            mine.lerp_(theirs + 0.1, 0.5)
    edit = one.blocks[0].mlp.fc1.edits[0]
    net = finish(one, [])
    torch.testing.assert_close(net.blocks[0].mlp.fc1.weight, edit.second @ edit.first, atol=1e-6, rtol=0)


def test_factors_drawn_anew_have_a_product_as_large_as_one_matrix():
    torch.manual_seed(0)
    layer = Linear(256, 256)
    nn.init.xavier_uniform_(layer.weight)
    for kind in (Serial, Parallel):
        w = kind(layer, 2, preserve=False)(layer.weight)
        assert w.std().item() == pytest.approx(1 / 16, rel=0.1)


def test_a_layer_that_begins_at_zero_still_does():
    for form in ("serial", "parallel"):
        nets = networks(models.build(TINY_DIT), form=form, layers=("adaln",), preserve=False)
        assert all(layer.weight_now().abs().max() == 0 for layer in block_linears(nets.student, ["adaln"]).values())


def test_the_product_is_worked_out_in_full_precision_under_autocast():
    layer = Linear(16, 16)
    layer.edit(edit := Serial(layer, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert edit(layer.weight).dtype == torch.float32


def test_muon_trains_the_factors_and_leaves_adaln_to_adamw_and_the_base_alone():
    nets = networks(layers=("qkv", "adaln"), rate=0.5)
    descent = Optimizer([nets.student], TINY_STUDENT)
    groups = {id(g["params"][0]): g for g in descent.parts["muon"].param_groups}
    block = nets.student.blocks[0]
    qkv, adaln = block.attn.qkv.edits[0], block.adaln.edits[0]
    assert groups[id(qkv.second)]["matrices"] == 3 and groups[id(qkv.first)]["matrices"] == 1
    assert groups[id(qkv.first)]["lr_scale"] == 0.5
    adamw = {id(p): g["lr_scale"] for g in descent.parts["adamw"].param_groups for p in g["params"]}
    assert adamw[id(adaln.first)] == adamw[id(adaln.second)] == 0.5
    assert id(block.attn.qkv.weight) not in {id(p) for p in descent.parameters}


def test_a_quantiser_sees_the_product_whichever_came_first():
    class Sign(nn.Module):
        last = True

        def forward(self, w):
            return w.sign()

    for first in (True, False):
        layer = Linear(8, 8)
        edits = [Sign(), Serial(layer, 2)]
        for edit in edits if first else edits[::-1]:
            layer.edit(edit)
        assert torch.equal(layer.weight_now(), edits[1](layer.weight).sign())


def test_a_run_trains_more_than_it_ships(taught):
    uses = (Use("pairs"), Use("reparam", {"expansion": 4}))
    run = experiment.run(TINY_STUDENT.with_(methods=uses), taught, measure=False)
    student, D, M = run.read("student"), TINY_DIT.width, TINY_DIT.hidden
    shipped = cost.of_config(TINY_DIT)["params"]
    # W1 (4D, D) and W2 (M, 4D) in the place of W (M, D)
    assert student["params_train"] == shipped + TINY_DIT.depth * (4 * D * D + M * 4 * D - M * D)
    assert run.read("cost")["params"] == shipped and run.config == TINY_DIT
    assert student["facts"]["reparam"]["rank"] == {f"blocks.{i}.mlp.fc1": D for i in range(TINY_DIT.depth)}


@pytest.mark.parametrize(("options", "part"), [
    ({"form": "row"}, "unknown reparam.form"), ({"layers": ["fc3"]}, "unknown layer"), ({"layers": []}, "got none"),
    ({"expansion": 0}, "expansion must be at least 1"), ({"rate": 0.0}, "rate must be above 0"),
])  # fmt: skip
def test_options_that_can_not_be_meant_are_refused(options, part):
    with pytest.raises(ValueError, match=part):
        create(Use("reparam", options))


def test_a_student_without_blocks_is_refused(taught):
    uses = (Use("pairs"), Use("reparam"))
    unet = TINY_STUDENT.with_(methods=uses, student=UNetConfig(image_size=8, widths=(8, 16), groups=4))
    assert any("the student is a unet of no blocks" in said for said in experiment.check(unet, taught))
    with pytest.raises(ValueError, match="no linear layer of the blocks is called 'fc9'"):
        block_linears(models.build(dataclasses.replace(TINY_DIT, depth=1)), ["fc9"])
