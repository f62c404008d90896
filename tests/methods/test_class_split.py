from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT
from methods.test_contract import SPEC, filled

from lab import cost, deploy, experiment, export, models, program, sampling
from lab.cli import FAILED, OK, USAGE, main
from lab.config import RoutedConfig, Use, config_from_json, config_to_json
from lab.diffusion import noise_of
from lab.methods import Finished, Roles, create
from lab.methods.class_split import (
    ClassSplit,
    assign,
    choose,
    clusters,
    export_parts,
    importance,
    masked,
    part_files,
    pruned,
    similar,
    sliced,
)
from lab.models.taps import Taps
from lab.weights import load_student

FOUR_HEADS = dataclasses.replace(TINY_DIT, heads=4, mlp_hidden=32)
ROUTED = RoutedConfig(image_size=8, patch=4, depth=2, width=16, heads=2, experts=3)


def net_of(config) -> torch.nn.Module:
    return filled(models.build(config)).eval()


def inputs(classes: list[int]) -> tuple[torch.Tensor, None, torch.Tensor]:
    z, _ = noise_of(range(len(classes)), (1, 8, 8), 0)
    return z, None, torch.tensor(classes)


def splitting(store, **given):
    base = experiment.run(TINY_STUDENT, store, measure=False)
    use = Use("class_split", {"experts": 2, "recover": 0.1} | given)
    return base, TINY_STUDENT.with_(methods=(Use("pairs"), use), start=(base.id,), seed=2)


# --- groups ---


@pytest.mark.parametrize("table", [(), (0, 1, 1, 1, 0, 2, 2, 2, 0, 0)])
def test_every_class_has_one_expert_and_one_place_there(table):
    config = dataclasses.replace(ROUTED, table=table)
    assert not config.check() and sorted(y for group in config.groups for y in group) == list(range(10))
    net = models.build(config)
    for m, group in enumerate(config.groups):
        assert net.route[list(group)].tolist() == [m] * len(group) and config.parts[m].num_classes == len(group)
        assert net.local[list(group)].tolist() == list(range(len(group)))
    assert config_from_json(config_to_json(config)) == config


@pytest.mark.parametrize(("table", "experts", "part"), [
    ((0, 1), 2, "names an expert for 2 classes, there are 10"), ((0,) * 9 + (3,), 3, "names expert 3"),
    ((0,) * 10, 2, "expert 1 has none of the 10 classes"), ((), 11, "expert 10 has none"), ((), 0, "at least 1"),
])  # fmt: skip
def test_a_table_that_leaves_something_out_is_a_sentence(table, experts, part):
    (said,) = dataclasses.replace(ROUTED, table=table, experts=experts).check()
    assert part in said


def test_like_classes_come_together_in_groups_of_equal_size():
    middles = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    truth = [0, 1, 2, 2, 1, 0, 0, 2, 1, 1]
    means = middles[truth] + 0.1 * torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    found = clusters(means, 3)
    assert found == clusters(means, 3)
    assert sorted(map(found.count, range(3))) == [3, 3, 4]
    pairs = [(a, b) for a in range(10) for b in range(a)]
    assert sum((truth[a] == truth[b]) != (found[a] == found[b]) for a, b in pairs) == 0
    assert sorted(map(similar(net_of(TINY_DIT), 4).count, range(4))) == [2, 2, 3, 3]
    with pytest.raises(ValueError, match="make from 1 to 10 groups, got 11"):
        clusters(means, 11)


# --- pruning ---


@pytest.mark.parametrize(("share", "heads"), [(0.0, 4), (0.25, 3), (0.5, 2), (0.7, 1), (0.99, 1)])
def test_what_stays_is_the_share_asked_for_and_at_least_one(share, heads):
    part = pruned(FOUR_HEADS, share)
    assert part.heads == heads and part.hidden == 8 * heads and not part.check()
    assert abs(heads - 4 * (1 - share)) <= 1
    D, M, inner, p, L = 16, 8 * heads, 4 * heads, 4, 2
    block = 3 * inner * D + 3 * inner + inner * D + D + 2 * D * M + M + D + 6 * D * D + 6 * D
    ends = p * p * D + D + 10 * D + 2 * D * D + 2 * D + D * p * p + p * p
    assert cost.of_config(part)["params"] == L * block + ends == sum(p.numel() for p in models.build(part).parameters())


def test_the_sliced_network_computes_what_the_masked_one_does():
    net = net_of(FOUR_HEADS)
    kept = choose(net, 2, (1, 4, 7))
    assert all(len(units) == 2 for blocks in kept.values() for units in blocks)
    small = models.build(pruned(FOUR_HEADS, 0.5)).eval()
    small.load_state_dict(sliced(net, kept))
    given = inputs([1, 4, 7, 1, 4])
    with torch.no_grad():
        right = masked(net, kept)(*given)
        torch.testing.assert_close(small(*given), right, atol=1e-5, rtol=0)
        assert (net(*given) - right).abs().max() > 1e-3


def test_a_unit_that_says_nothing_goes_first_and_looking_changes_nothing():
    net = net_of(FOUR_HEADS)
    with torch.no_grad():
        net.blocks[0].mlp.fc2.weight[:, 8:16] = 0  # group 1
        net.blocks[1].attn.proj.weight[:, 8:12] = 0  # head 2
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert importance(net, "mlp", (0, 1))[0].argmin() == 1 and importance(net, "heads", (0, 1))[1].argmin() == 2
    kept = choose(net, 3, (0, 1))
    assert kept["mlp"][0] == [0, 2, 3] and kept["heads"][1] == [0, 1, 3]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_other_classes_need_other_units():
    """Of a block whose units each answer to one class."""
    net = net_of(FOUR_HEADS)
    with torch.no_grad():
        net.label.weight.copy_(6 * torch.eye(10, 16))
        net.blocks[0].adaln.weight.normal_(generator=torch.Generator().manual_seed(3))
    scores = [importance(net, "mlp", (y,)) for y in (0, 5)]
    assert not torch.allclose(scores[0], scores[1], rtol=0.05)


@pytest.mark.parametrize(("change", "part"), [
    ({"width": 32}, "width would be 32, not 16"), ({"depth": 3}, "depth would be 3, not 2"),
    ({"heads": 1}, "fewer than 2"), ({"block": "time"}, "cuts DiTs of plain adaLN blocks"),
])  # fmt: skip
def test_a_network_that_the_student_is_no_slice_of_is_refused(change, part):
    base = TINY_STUDENT.with_(**{f"student__{k}": v for k, v in change.items()})
    roles = Roles(SPEC, None, [Finished(base, models.build(base.student))])
    with pytest.raises(ValueError, match=part):
        create(Use("class_expert")).prepare(models.build(TINY_DIT), roles)


# --- routing ---


def test_a_batch_of_mixed_labels_is_drawn_as_by_each_expert_alone():
    net = net_of(ROUTED)
    z, _, y = inputs([7, 0, 3, 5, 9, 0, 2, 4])
    taps = Taps(["block1", "tokens"])
    with torch.no_grad():
        whole = net(z, None, y, taps)
        for m, expert in enumerate(net.experts):
            rows = [at for at, label in enumerate(y.tolist()) if ROUTED.routes[label] == m]
            alone = Taps(["block1"])
            local = torch.tensor([ROUTED.groups[m].index(y[at]) for at in rows])
            assert torch.equal(whole[rows], expert(z[rows], None, local, alone))
            assert torch.equal(taps["block1"][rows], alone["block1"])
        assert net(z[:1], None, y[:1]).shape == (1, 1, 8, 8)


def test_all_experts_are_kept_and_one_is_asked():
    found = cost.of_config(ROUTED)
    sizes = [sum(p.numel() for p in expert.parameters()) for expert in models.build(ROUTED).experts]
    one = cost.of_config(TINY_DIT)
    assert found | {"params_deployed": 0} == {
        "params": sum(sizes), "params_request": max(sizes), "macs": one["macs"], "params_deployed": 0,
        "macs_deployed": one["macs_deployed"],
    }  # fmt: skip
    assert found["params_deployed"] == sum(cost.of_config(part)["params_deployed"] for part in ROUTED.parts)
    assert cost.activations(ROUTED) == cost.activations(TINY_DIT)


def test_a_program_of_torch_export_is_refused_in_a_sentence():
    assert "every one of the 3 experts" in program.TARGET.why_not(ROUTED) and not program.TARGET.why_not(TINY_DIT)


def test_its_onnx_file_draws_one_image_at_a_time():
    """Where the other experts are given none."""
    onnxruntime = pytest.importorskip("onnxruntime")
    net = net_of(dataclasses.replace(ROUTED, depth=1))
    model = export.traced(deploy.deploy(net), SPEC).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for classes in ([3], [4], [5, 5], [1, 3]):
        z, _, y = inputs(classes)
        (found,) = session.run(None, {"z": z.numpy(), "y": y.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), net(z, None, y).detach(), atol=1e-5, rtol=1e-4)


# --- the plan ---


def test_one_command_cuts_teaches_and_joins(taught):
    table = (0, 1, 1, 1, 0, 0, 1, 0, 1, 0)
    base, recipe = splitting(taught, table=list(table))
    run = experiment.run(recipe, taught, measure=False)
    experts = [taught.get(name) for name in run.recipe.start]
    assert [e.recipe.classes for e in experts] == list(run.config.groups) == [(0, 4, 5, 7, 9), (1, 2, 3, 6, 8)]
    for expert in experts:
        assert expert.recipe.steps == 1 and expert.recipe.guide == base.id == expert.recipe.start[0]
        assert expert.config.heads == 1 and expert.config.hidden == 32 and expert.config.num_classes == 10
        assert len(expert.facts["class_expert"]["kept"]["heads"]) == 2
    assert run.status().state == "done" and isinstance(run.config, RoutedConfig)
    facts = run.facts["class_split"]
    assert facts["params_sum"] == sum(facts["params"]) == run.read("cost")["params"]
    assert facts["params_request"] == run.read("cost")["params_request"] < run.read("cost")["params"]
    whole, z = load_student(run), inputs([0, 4, 9])[0]
    with torch.no_grad():
        y = torch.tensor([0, 4, 9])
        assert torch.equal(whole(z, None, y), load_student(experts[0])(z, None, y))
    assert sampling.load(run.id, taught).sample(range(3)).shape == (3, 1, 8, 8)


def test_one_expert_of_which_nothing_is_cut_is_the_network_bit_for_bit(taught):
    base, recipe = splitting(taught, experts=1, prune=0.0)
    joined, whole = load_student(experiment.run(recipe, taught, measure=False)), load_student(base)
    assert all(torch.equal(v, joined.experts[0].state_dict()[k]) for k, v in whole.state_dict().items())
    with torch.no_grad():
        assert torch.equal(joined(*inputs([*range(10)])), whole(*inputs([*range(10)])))


@pytest.mark.parametrize(("change", "part"), [
    ({"student__num_classes": 0}, "always told a class"), ({"classes": (1, 2)}, "leave the recipe's classes out"),
    ({"start": ()}, "got 0 runs"), ({"student__block": "time"}, "plain adaLN blocks"),
    ({"student__mlp_hidden": 33}, "33 channels are no multiple"),
    ({"student": ROUTED}, "set steps to 0"), ({"student": ROUTED, "steps": 0}, "joins 3 experts, start names 1 runs"),
    ({"methods": (Use("pairs"), Use("class_split", {"table": [0, 1]}))}, "for 2 classes, there are 10"),
])  # fmt: skip
def test_what_can_not_be_split_is_refused(taught, change, part):
    recipe = splitting(taught)[1].with_(**change)
    assert any(part in said for said in experiment.check(recipe, taught))


def test_experts_of_other_classes_are_not_joined():
    start = Finished(TINY_STUDENT.with_(classes=(1,)), models.build(TINY_DIT))
    with pytest.raises(ValueError, match=r"has the classes \[1\]"):
        ClassSplit().prepare(models.build(ROUTED), Roles(SPEC, None, [start] * 3))


# --- devices ---


def test_the_largest_expert_goes_where_most_room_is():
    assert assign([3, 5, 2, 2], [8, 6]) == [1, 0, 0, 1]  # 5 to 8, 3 to 6, then 2 to either of 3
    with pytest.raises(ValueError, match=r"expert 1 takes 9, the most room that is left is 8, on device 0"):
        assign([3, 9], [8, 6])


def test_each_device_gets_the_files_of_its_experts(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net = net_of(ROUTED)
    files = part_files(net, SPEC)
    places = assign([len(file) for file in files], [10_000_000, 1_000_000])
    folders = export_parts(net, files, places, tmp_path)
    assert folders == [tmp_path / f"device{n}" for n in sorted({*places})]
    assert len(places) == 3 and sorted(p.name for p in tmp_path.rglob("*.onnx")) == [
        f"expert{m}.onnx" for m in range(3)
    ]
    z, _, y = inputs([1, 4, 7])  # of expert 1
    session = onnxruntime.InferenceSession(tmp_path / f"device{places[1]}" / "expert1.onnx",
                                           providers=["CPUExecutionProvider"])  # fmt: skip
    (found,) = session.run(None, {"z": z.numpy(), "y": net.local[y].numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net(z, None, y).detach(), atol=1e-5, rtol=1e-4)


# --- commands ---


def asked(store, capsys, command: str, *args: str) -> dict:
    assert main([command, "--results", str(store.root), *args, "--json"]) == OK
    return json.loads(capsys.readouterr().out)


def test_similar_shows_how_far_classes_are_apart_and_a_table_that_class_split_takes(taught, capsys):
    base, _ = splitting(taught)
    found = asked(taught, capsys, "similar", base.id, "--experts", "3")
    apart = torch.tensor(found["apart"])
    assert torch.equal(apart, apart.T) and apart.diagonal().abs().max() == 0
    assert apart.sum().item() / 90 == pytest.approx(1, rel=1e-4)
    assert tuple(found["table"]) == similar(load_student(base), 3)
    name, _, value = found["option"].partition("=")
    options = {"experts": 3, name.removeprefix("class_split."): [*map(int, value.split(","))]}
    assert not experiment.check(splitting(taught, **options)[1], taught)
    assert main(["similar", "--results", str(taught.root), "tiny"]) == USAGE  # a U-Net
    assert "cuts DiTs of plain adaLN blocks" in capsys.readouterr().err


def test_place_puts_experts_under_the_room_of_each_device_and_writes_one_folder_a_device(taught, tmp_path, capsys):
    pytest.importorskip("onnx")
    base, recipe = splitting(taught)
    run = experiment.run(recipe, taught, measure=False)
    args = ("place", run.id, "--devices", "raspberry-pi-5,jetson-orin-nano-7w")
    found = asked(taught, capsys, *args)
    sizes = [expert["mb"] for expert in found["experts"]]
    assert [device["room_mb"] for device in found["devices"]] == [8192, 8192] and found["folders"] == []
    assert found["request"]["mb"] == max(sizes) and found["total"]["mb"] == pytest.approx(sum(sizes))
    assert found["total"]["params"] == run.facts["class_split"]["params_sum"]
    assert found["request"]["params"] == run.facts["class_split"]["params_request"]

    room = f"{1.5 * max(sizes)},{1.4 * max(sizes)}"
    found = asked(taught, capsys, *args, "--room-mb", room, "--out", str(tmp_path / "parts"))
    assert sorted(expert["device"] for expert in found["experts"]) == [0, 1]
    assert all(device["mb"] <= device["room_mb"] for device in found["devices"])
    for expert in found["experts"]:
        file = tmp_path / "parts" / f"device{expert['device']}" / f"expert{expert['expert']}.onnx"
        assert file.stat().st_size == pytest.approx(expert["mb"] * 1e6)

    assert main([args[0], "--results", str(taught.root), *args[1:], "--room-mb", "0.001,0.001"]) == FAILED
    assert "the most room that is left is 0.001 MB, on device 0" in capsys.readouterr().err
    assert main([args[0], "--results", str(taught.root), base.id, *args[2:]]) == USAGE
    assert "has no experts to place" in capsys.readouterr().err
