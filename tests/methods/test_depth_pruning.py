from __future__ import annotations

import math

import pytest
import torch
from conftest import TINY_STUDENT
from methods.test_contract import SPEC, filled

from lab import cost, experiment, models
from lab.config import Use
from lab.methods import Roles, create, finish
from lab.methods.depth_pruning import Gates, mask, masked_gap
from lab.optim import Optimizer
from lab.weights import load_student

DEEP = TINY_STUDENT.with_(student__depth=4)


def searching(**given) -> tuple:
    method = create(Use("depth_pruning", {"phase": "search"} | given))
    student = filled(models.build(DEEP.student))
    return method, method.prepare(student, Roles(SPEC))


def test_exactly_so_many_of_each_group_act_for_every_sample():
    gates = Gates(4, 2).train()
    drawn = gates(500)
    assert drawn.shape == (500, 4) and torch.equal(drawn.sum(1), torch.full((500,), 2.0))


def test_before_anything_is_decided_every_option_is_drawn_as_often():
    torch.manual_seed(0)
    drawn = Gates(4, 2).train()(6000).detach()
    counts = torch.stack([(drawn == option).all(1).sum() for option in Gates(4, 2).options]).double()
    assert (counts - 1000).abs().max() < 3 * math.sqrt(6000 * 1 / 6 * 5 / 6)


def test_gradients_reach_the_logits_of_options_that_were_not_drawn():
    torch.manual_seed(0)
    gates = Gates(4, 2).train()
    (gates(8) * torch.rand(8, 4)).sum().backward()
    assert (gates.logits.grad != 0).all()


def test_what_is_left_has_the_chosen_blocks_with_the_weights_that_they_had():
    method, student = searching()
    before = {k: v.clone() for k, v in student.blocks[1].inner[1].state_dict().items() if "edits" not in k}
    for linear in student.linears():
        linear.edits[0].B.data.normal_()
    student.blocks[0].gates.logits.data = torch.tensor([0.0, 0.1])
    student.blocks[1].gates.logits.data = torch.tensor([0.0, 0.3])
    net = finish(student, [method])
    assert method.facts(net)["kept"] == [1, 3] and len(net.blocks) == 2 == net.config.depth
    assert all(torch.equal(v, before[k]) for k, v in net.blocks[1].state_dict().items())
    whole = cost.of_config(DEEP.student)["params"]
    assert whole - cost.of_config(net.config)["params"] == 2 * sum(v.numel() for v in before.values())


def test_only_gates_and_adapters_are_trained_and_the_gates_faster():
    method, student = searching(rate=0.01, gate_rate=0.1)
    optimizer = Optimizer([student, method.own], TINY_STUDENT)
    optimizer.set_lr(1.0)
    rates = {id(p): g["lr"] for part in optimizer.parts.values() for g in part.param_groups for p in g["params"]}
    assert rates[id(student.blocks[0].gates.logits)] == 0.1
    assert rates[id(student.linears()[0].edits[0].A)] == 0.01
    assert id(student.linears()[0].weight) not in rates and id(student.head.weight) not in rates


def test_the_temperature_falls_over_the_run():
    method, student = searching()
    seen = []
    for progress in (0.0, 0.5, 1.0):
        method.after_step(student, progress)
        seen.append(student.blocks[0].gates.tau.item())
    assert seen == pytest.approx([4.0, 2.05, 0.1])


def test_one_command_searches_prunes_and_teaches(taught):
    base = experiment.run(DEEP, taught, measure=False)
    recipe = DEEP.with_(methods=(Use("pairs"), Use("depth_pruning", {"search": 0.5})), start=(base.id,), seed=2)
    run = experiment.run(recipe, taught, measure=False)
    search = taught.get(run.recipe.start[0])
    kept = search.facts["depth_pruning"]["kept"]
    assert len(kept) == 2 and kept[0] in (0, 1) and kept[1] in (2, 3)
    assert search.recipe.steps == 6 and search.config.depth == 2 and search.recipe.student.depth == 4
    assert run.recipe.guide == base.id and run.config.depth == 2
    assert [use.method for use in run.recipe.methods] == ["pairs", "masked_features"]
    left, whole = load_student(search), load_student(base)
    assert torch.equal(left.blocks[0].mlp.fc1.weight, whole.blocks[kept[0]].mlp.fc1.weight)


@pytest.mark.parametrize(("change", "part"), [
    ({"student__depth": 3}, "student.depth is 3, which groups of 2 blocks do not make up"),
    ({"start": ()}, "cuts a trained network; set start to its run"),
])  # fmt: skip
def test_a_network_that_can_not_be_pruned_so_is_refused(taught, change, part):
    base = experiment.run(DEEP, taught, measure=False)
    recipe = DEEP.with_(methods=(Use("pairs"), Use("depth_pruning")), start=(base.id,)).with_(**change)
    assert any(part in said for said in experiment.check(recipe, taught))


def test_massive_activations_are_masked_on_their_own_side_or_on_both():
    torch.manual_seed(0)
    mine, theirs = torch.randn(2, 16, 8), torch.randn(2, 16, 8)
    theirs[0, 3, 4] = -400.0
    assert mask(theirs)[0, 3, 4] == 0 and mask(theirs)[1].mean() > 0.9
    both, own = masked_gap(mine, theirs, both=True), masked_gap(mine, theirs, both=False)
    assert both[0] < own[0] < 10  # a side alone is drawn to 0 where the other is masked
    assert masked_gap(theirs, theirs, both=False).max() == 0
