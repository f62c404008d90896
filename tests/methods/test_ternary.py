from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT
from methods.test_contract import SPEC, batch, filled
from torch import nn

from lab import cost, deploy, experiment, guides, models, packing
from lab.config import UNetConfig, Use, why_not_plain
from lab.methods import Roles, create, finish
from lab.methods.ternary import ThreeValues, ternary
from lab.models.layers import Linear, block_linears
from lab.optim import Optimizer
from lab.train import Networks, start_state, update_ema
from lab.weights import load_student

DECLARED = ["embed", "label", "final_adaln", "head"]  # kept in full precision
NORMED = dataclasses.replace(TINY_DIT, adaln_norm=True)
Z, Y = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 5, 9])


def networks(student: nn.Module | None = None, guide: nn.Module | None = None, more: tuple = (), **options) -> Networks:
    student = student or filled(models.build(TINY_DIT))
    uses = (Use("pairs", {"perceptual": 0.0}), *more, Use("ternary", options))
    methods = [create(use) for use in uses]
    guide = guide and guides.Guide("guide", guide, SPEC)
    for method in methods:
        student = method.prepare(student, Roles(SPEC, guide))
    return Networks(student, methods, SPEC.sigma_data, guide)


def losses(nets: Networks) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return nets.losses(nets.look(nets.objective.inputs(batch(), rng), progress=0.0, rng=rng))


def trained(nets: Networks, steps: int, lr: float = 5e-3) -> list[float]:
    """The sum of the losses before every update."""
    descent, seen = Optimizer([nets.student], TINY_STUDENT), []
    descent.set_lr(lr)
    for _ in range(steps):
        descent.zero_grad()
        total = sum(losses(nets).values())
        total.backward()
        descent.step()
        seen.append(total.item())
    return seen


def edit_of(layer: Linear) -> ThreeValues:
    return next(edit for edit in layer.edits if isinstance(edit, ThreeValues))


def test_every_layer_has_exactly_three_values_after_training_and_after_averaging():
    nets = networks()
    state = start_state(nets.student, nets.methods, TINY_STUDENT)
    trained(nets, 5)
    update_ema(state.ema, nets.student, 0.5, 100)
    for live in (nets.student, state.ema):
        net = finish(live, nets.methods)
        for name, layer in block_linears(net, nets.methods[-1].layers).items():
            alpha = edit_of(live.get_submodule(name)).alpha
            assert torch.equal(layer.weight.unique(), torch.stack([-alpha, 0 * alpha, alpha]).sort().values), name
            latent = live.get_submodule(name).weight  # Q of the averaged weights, not averaged Qs
            assert torch.equal(layer.weight, alpha * ternary(latent))


def test_what_stays_in_full_precision_is_what_is_declared():
    nets = networks()
    net = finish(nets.student, nets.methods)
    facts = json.loads(json.dumps(nets.methods[-1].facts(net)))
    assert facts["full_precision"] == DECLARED
    few = {name for name, m in net.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Embedding))
           and len(m.weight.unique()) <= 3}  # fmt: skip
    assert few == set(facts["layers"]) and len(few) == 5 * TINY_DIT.depth
    assert facts["alphas"] == [net.get_submodule(name).weight.max().item() for name in facts["layers"]]
    assert facts["bits"] == {"ternary": 2, "rest": 16}


def test_fewer_layers_and_no_norm_leave_the_plain_shape():
    nets = networks(layers=("fc1", "fc2"))
    net = finish(nets.student, nets.methods)
    assert net.config == TINY_DIT
    assert networks(norm=False).student.config == TINY_DIT


def test_alpha_begins_where_three_values_are_near_the_weights():
    nets = networks(models.build(TINY_DIT))
    for name, layer in block_linears(nets.student, ["qkv", "fc2"]).items():
        alpha = edit_of(layer).alpha
        torch.testing.assert_close(alpha.detach(), layer.weight.detach().abs().mean(), msg=name)
    adaln = nets.student.blocks[0].adaln
    assert adaln.weight_now().abs().max() == 0 and edit_of(adaln).alpha > 0.05
    assert nets.student(Z, None, Y).abs().max() == 0  # the first output, as of a plain student


def test_a_zero_layer_wakes_up_and_the_loss_falls():
    torch.manual_seed(0)
    nets = networks(models.build(TINY_DIT))
    seen = trained(nets, 60)
    assert seen[-1] < 0.7 * seen[0]
    assert all(block.adaln.weight_now().abs().max() > 0 for block in nets.student.blocks)
    assert all(0 < edit_of(layer).alpha for layer in nets.student.linears())


def test_a_quantiser_sees_what_a_product_makes():
    nets = networks(more=(Use("reparam"),))
    layer = nets.student.blocks[0].mlp.fc1
    expected = edit_of(layer).alpha * ternary(layer.edits[0](layer.weight))
    assert torch.equal(layer.weight_now(), expected) and len(finish(nets.student, nets.methods).blocks) == 2
    with pytest.raises(ValueError, match="takes one quantiser"):
        layer.edit(ThreeValues(layer))


def test_alphas_train_beside_muon_at_their_own_rate():
    nets = networks(rate=0.25)
    descent = Optimizer([nets.student], TINY_STUDENT)
    rates = {id(p): g["lr_scale"] for g in descent.parts["adamw"].param_groups for p in g["params"]}
    assert all(rates[id(edit_of(layer).alpha)] == 0.25 for layer in nets.student.linears())
    muon = {id(g["params"][0]) for g in descent.parts["muon"].param_groups}
    assert id(nets.student.blocks[0].attn.qkv.weight) in muon


def test_distillation_from_a_full_precision_twin_needs_a_guide_and_only_then():
    assert create(Use("ternary")).needs == frozenset() and create(Use("ternary", {"kd": 0.5})).needs == {"guide"}
    twin = filled(models.build(TINY_DIT))
    nets = networks(guide=twin, kd=0.5)
    rng = torch.Generator().manual_seed(0)
    step = nets.look(nets.objective.inputs(batch(), rng), progress=0.0, rng=rng)
    expected = 0.5 * (step.prediction - step.guide_prediction).square().mean()
    torch.testing.assert_close(nets.losses(step)["ternary/kd"], expected)
    assert "ternary/kd" not in losses(networks())


# --- the norm behind adaLN ----------------------------------------------------------------------


def test_a_student_with_the_norm_deploys_by_hand_and_is_counted():
    net = filled(models.build(NORMED)).eval()
    assert why_not_plain(NORMED) is None and isinstance(deploy.deploy(net), deploy.Deployed)
    torch.testing.assert_close(deploy.deploy(net)(Z, Y), net(Z, None, Y), atol=1e-5, rtol=1e-4)
    assert cost.of_config(NORMED) == cost.counted(NORMED)
    assert cost.of_config(NORMED)["params_deployed"] == cost.of_config(TINY_DIT)["params_deployed"]
    half = net.half()
    assert half(Z.half(), None, Y).dtype == torch.float16


def test_the_norm_stays_out_of_ids_until_it_is_asked_for():
    assert TINY_STUDENT.with_(student__adaln_norm=False).id == TINY_STUDENT.id
    assert TINY_STUDENT.with_(student=NORMED).id != TINY_STUDENT.id
    said = dataclasses.replace(TINY_DIT, block="time", adaln_norm=True).check()
    assert len(said) == 1 and "no such layer" in said[0]


def test_a_student_that_has_the_norm_already_keeps_its_weights():
    net = filled(models.build(NORMED))
    before = net.blocks[0].adaln_norm.weight.detach().clone()
    assert torch.equal(networks(net).student.blocks[0].adaln_norm.weight, before)


def test_a_finished_student_goes_on_with_the_images_that_it_has():
    nets = networks()
    trained(nets, 3)
    net = finish(nets.student, nets.methods).half().float()  # as its file has it
    before = net(Z, None, Y)
    again = networks(net)
    torch.testing.assert_close(again.student.eval()(Z, None, Y), before, atol=1e-6, rtol=0)
    assert trained(again, 3)[-1] > 0 and not torch.equal(again.student.eval()(Z, None, Y), before)


# --- on disk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 12), (4, 1), (7, 5), (1, 3)])
def test_unpacking_gives_what_was_packed(shape):
    q = torch.randint(-1, 2, shape).float()
    packed = packing.pack(q)
    assert packed.dtype == torch.uint8 and packed.shape == (-(-shape[0] // 4), shape[1])
    assert torch.equal(packing.unpack(packed, shape[0]), q)


def test_packing_gives_the_network_that_was_trained():
    nets = networks(filled(models.build(dataclasses.replace(TINY_DIT, mlp_hidden=30))))  # no multiple of 4
    trained(nets, 3)
    net, live = finish(nets.student, nets.methods), nets.student.eval()
    packed = packing.packed(net)
    assert [name for name, m in packed.named_modules() if isinstance(m, packing.PackedLinear)] == [
        *nets.methods[-1].facts(net)["layers"]]  # fmt: skip
    torch.testing.assert_close(packed(Z, None, Y), live(Z, None, Y), atol=1e-6, rtol=0)


def test_a_run_of_it_ships_the_norm_and_packs_to_equal_images(taught, tmp_path):
    twin = experiment.run(TINY_STUDENT.with_(steps=4), taught, measure=False)
    uses = (Use("pairs"), Use("ternary", {"kd": 0.5}))
    run = experiment.run(TINY_STUDENT.with_(methods=uses, guide=twin.id), taught, measure=False)
    assert run.recipe.student == TINY_DIT and run.config == NORMED
    student, net = run.read("student"), load_student(run)
    # trained beside what is shipped: an alpha a layer
    assert student["params_train"] == cost.of_config(NORMED)["params"] + 5 * TINY_DIT.depth
    (tmp_path / "net.safetensors").write_bytes(packing.file_bytes(packing.packed(net)))
    again = packing.load(tmp_path / "net.safetensors", models.build(run.config))
    torch.testing.assert_close(again(Z, None, Y), net(Z, None, Y), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("options", "part"), [
    ({"layers": ["fc3"]}, "unknown layer"), ({"layers": []}, "got none"), ({"kd": -1.0}, "kd must be at least 0"),
    ({"rate": 0.0}, "rate must be above 0"), ({"norm_start": 0.0}, "norm_start must be above 0"),
])  # fmt: skip
def test_options_that_can_not_be_meant_are_refused(options, part):
    with pytest.raises(ValueError, match=part):
        create(Use("ternary", options))


def test_students_without_such_layers_are_refused(taught):
    uses = (Use("pairs"), Use("ternary"))
    unet = TINY_STUDENT.with_(methods=uses, student=UNetConfig(image_size=8, widths=(8, 16), groups=4))
    assert any("the student is a unet of no blocks" in said for said in experiment.check(unet, taught))
    time = TINY_STUDENT.with_(methods=uses, student__block="time")
    assert any("is called 'adaln'" in said for said in experiment.check(time, taught))
    other = time.with_(methods=(Use("pairs"), Use("ternary", {"layers": ["qkv", "cond"]})))
    assert experiment.check(other, taught) == []
