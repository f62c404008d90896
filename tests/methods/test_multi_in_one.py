from __future__ import annotations

import copy
import dataclasses
import itertools
import os
import pickle
import signal

import numpy as np
import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT
from methods.test_contract import PATH, SPEC, batch, filled

from lab import experiment, guides, models, train
from lab.config import Use
from lab.methods import METHODS, Roles, create, features, finish
from lab.methods.multi_in_one import level_map
from lab.results import Store
from lab.train import Networks, Stopped
from lab.weights import load_student

DEEP = dataclasses.replace(TINY_DIT, depth=5, width=32)


def networks(guide=DEEP, name: str = "multi_in_one", **options) -> Networks:
    """A student of two blocks beside a guide, all of whose weights come from one seed."""
    methods = [create(Use("pairs", {"perceptual": 0.0})), create(Use(name, options))]
    torch.manual_seed(0)
    asked = guides.Guide("guide", filled(models.build(guide)), SPEC) if "guide" in methods[1].needs else None
    torch.manual_seed(2)
    student = filled(models.build(TINY_DIT))
    torch.manual_seed(3)
    for method in methods:
        student = method.prepare(student, Roles(SPEC, asked))
    return Networks(student, methods, SPEC.sigma_data, asked)


def look(nets: Networks, progress: float = 0.0):
    rng = torch.Generator().manual_seed(0)
    return nets.look(nets.objective.inputs(batch(), rng), progress=progress, rng=rng)


def values(nets: Networks, progress: float = 0.0) -> dict[str, float]:
    return {k.partition("/")[2]: v.item() for k, v in nets.losses(look(nets, progress)).items()}


def norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def projected(nets: Networks, block: int, x: np.ndarray) -> np.ndarray:
    """(K, B, N, D_T) by numpy."""
    layer = nets.methods[1].own["groups"].projections[block]
    weights = layer.weight.detach().double().numpy().reshape(layer.count, -1, x.shape[-1])
    biases = layer.bias.detach().double().numpy().reshape(layer.count, -1)
    return np.stack([x @ w.T + b for w, b in zip(weights, biases)])


def tensors(taps) -> dict[str, np.ndarray]:
    return {name: x.detach().double().numpy() for name, x in taps.kept.items()}


def test_groups_are_a_partition_of_the_guide_s_blocks():
    for student, guide in itertools.product(range(1, 7), range(6, 14)):
        groups = features.groups(student, guide)
        assert [k for group in groups for k in group] == list(range(guide)) and len(groups) == student
        assert all(len(group) >= guide // student for group in groups)


@pytest.mark.parametrize("by", ["token", "place", "centre"])
@pytest.mark.parametrize("variant", ["all", "agg"])
def test_at_equal_depth_it_is_the_teaching_assistant_exactly(variant, by):
    guide = dataclasses.replace(DEEP, depth=TINY_DIT.depth)
    found = values(networks(guide, variant=variant, entropy=0.0, norm=by), 0.25)
    expected = values(networks(guide, "teaching_assistant", norm=by), 0.25)
    assert found == pytest.approx(expected, rel=1e-6) and set(found) == {"l1", "output", "features"}


def test_every_block_of_a_group_is_matched_by_a_projection_of_its_own():
    nets = networks()
    step, terms = look(nets, 0.25), []
    mine, theirs = tensors(step.taps), tensors(step.guide_taps)
    for block, group in enumerate([[0, 1], [2, 3, 4]]):
        u = norm(projected(nets, block, mine[f"block{block}"]))
        terms.append(np.mean([((u[i] - norm(theirs[f"block{k}"])) ** 2).mean() for i, k in enumerate(group)]))
    assert values(nets, 0.25)["features"] == pytest.approx(0.75 * np.mean(terms), rel=1e-4)


@pytest.mark.parametrize("mix", ["trained", "uniform"])
def test_the_mean_of_a_group_has_weights_whose_entropy_is_told(mix):
    nets = networks(variant="agg", mix=mix, entropy=0.1)
    own = nets.methods[1].own["groups"]
    with torch.no_grad():
        own.scores[1].copy_(torch.tensor([0.5, -1.0, 0.0]))
    a = [np.full(2, 0.5), np.exp([0.5, -1.0, 0.0]) / np.exp([0.5, -1.0, 0.0]).sum()]
    step = look(nets)
    mine, theirs = tensors(step.taps), tensors(step.guide_taps)
    terms = []
    for block, group in enumerate([[0, 1], [2, 3, 4]]):
        target = sum(w * norm(theirs[f"block{k}"]) for w, k in zip(a[block], group))
        terms.append(((norm(projected(nets, block, mine[f"block{block}"])[0]) - target) ** 2).mean())
    found = values(nets)
    assert found["features"] == pytest.approx(np.mean(terms), rel=1e-4)
    entropy = np.mean([-(p * np.log(p)).sum() for p in a])
    trained = mix == "trained"
    assert found.get("entropy") == (pytest.approx(-0.1 * entropy, rel=1e-5) if trained else None)
    sum(nets.losses(step).values()).backward()
    assert all((p.grad is not None) == trained for p in own.scores)
    facts = nets.methods[1].facts(nets.student)
    assert facts == ({"mix": [[0.5, 0.5], pytest.approx(a[1], abs=1e-4)], "entropy": pytest.approx(entropy, abs=1e-4)}
                     if trained else {})  # fmt: skip


def test_what_a_group_adds_is_matched_from_the_tokens_on():
    nets = networks(variant="inc")
    step, terms = look(nets), []
    mine, theirs = tensors(step.taps), tensors(step.guide_taps)
    for block, (name, before, end, start) in enumerate([("block0", "tokens", "block1", "tokens"),
                                                        ("block1", "block0", "block4", "block1")]):  # fmt: skip
        u = norm(projected(nets, block, mine[name] - mine[before])[0])
        terms.append(((u - norm(theirs[end] - theirs[start])) ** 2).mean())
    assert values(nets)["features"] == pytest.approx(np.mean(terms), rel=1e-4)


def test_blocks_come_to_the_teacher_s_steps_in_turn_with_nobody_beside_the_student():
    nets = networks(variant="path", features=2.0)
    assert not nets.asks_guide and METHODS["multi_in_one"].needs == {"guide"}
    step = look(nets, 0.5)
    mine, path = tensors(step.taps), batch().path.double().numpy()
    gaps = []
    for block, level in enumerate([1, 2]):  # of the three that were kept: the last for the last
        layer = nets.methods[1].own["heads"].layers[block]
        out = norm(mine[f"block{block}"]) @ layer.weight.detach().double().numpy().T
        image = out.reshape(-1, 2, 2, 4, 4, 1).transpose(0, 5, 1, 3, 2, 4).reshape(-1, 1, 8, 8)
        gaps.append(np.abs(image - path[:, level]).mean())
    found = values(nets, 0.5)
    assert found["path"] == pytest.approx(2.0 * 0.5 * (0.5 * gaps[0] + gaps[1]), rel=1e-4)
    assert set(found) == {"l1", "path"}


@pytest.mark.parametrize(("blocks", "count", "found"), [
    (4, 4, [0, 1, 2, 3]), (2, PATH, [1, 2]), (6, 3, [0, 0, 1, 1, 2, 2]), (3, 1, [0, 0, 0]), (3, 7, [2, 4, 6]),
])  # fmt: skip
def test_the_teacher_s_steps_rise_with_the_blocks_and_end_at_the_last(blocks, count, found):
    assert level_map(blocks, count) == found


@pytest.mark.parametrize("variant", ["all", "agg", "inc", "path"])
def test_what_is_shipped_has_the_keys_and_the_size_of_the_plain_student_and_all_that_is_trained_learns(variant):
    nets = networks(variant=variant)
    sum(nets.losses(look(nets)).values()).backward()
    own = nets.methods[1].own
    assert list(own.parameters()) and all(p.grad is not None for p in own.parameters())
    net = finish(nets.student, nets.methods)
    shapes = {k: v.shape for k, v in models.build(TINY_DIT).state_dict().items()}
    assert {k: v.shape for k, v in net.state_dict().items()} == shapes


def test_terms_fade_and_weights_of_zero_leave_them_out():
    nets = networks(until=0.5)
    assert "features" in values(nets, 0.49) and "features" not in values(nets, 0.5)
    plain = networks(features=0.0, output=0.0)
    assert set(values(plain)) == {"l1"} and not list(plain.methods[1].own.parameters())


def test_a_method_that_was_asked_to_compile_copies_and_pickles():
    nets = networks()
    method = nets.methods[1]
    before = values(nets)
    method.compile()
    for again in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert values(dataclasses.replace(nets, methods=[nets.methods[0], again])) == before


def test_a_path_is_kept_with_the_pairs_and_ends_at_the_image_and_its_run_goes_on_where_it_was_stopped(
    taught, monkeypatch
):
    use = Use("multi_in_one", {"variant": "path", "levels": 2})
    recipe = TINY_STUDENT.with_(methods=(Use("pairs"), use), steps=8, keep=())
    (job,) = experiment.plan(recipe, taught)
    assert job.recipe.guide is None and [m.path(job.recipe) for m in job.methods] == [0, 2]
    seen, original = [], train.Networks.look

    def looking(self, inputs, **rest):
        seen.append(inputs)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, inputs, **rest)

    monkeypatch.setattr(train.Networks, "look", looking)
    with pytest.raises(Stopped):
        experiment.run(recipe, taught, measure=False)
    found = experiment.run(recipe, taught, measure=False)
    assert seen[0].path.shape == (16, 2, 1, 8, 8) and torch.equal(seen[0].path[:, -1], seen[0].target)
    other = Store(taught.root)
    weights = load_student(found).state_dict()
    for path in sorted(found.path.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    again = load_student(experiment.run(recipe, other, measure=False)).state_dict()
    assert all(torch.equal(weights[k], again[k]) for k in weights)


@pytest.mark.parametrize(("options", "part"), [
    ({"variant": "al"}, "multi_in_one.variant 'al'; did you mean 'all'"), ({"mix": "even"}, "multi_in_one.mix 'even'"),
    ({"entropy": -1.0}, "entropy must be at least 0"), ({"levels": -1}, "levels must be at least 0"),
    ({"norm": "batch"}, "multi_in_one.norm 'batch'"),
])  # fmt: skip
def test_options_that_can_not_be_meant_are_refused(options, part):
    with pytest.raises(ValueError, match=part):
        create(Use("multi_in_one", options))


@pytest.mark.parametrize(("options", "changes", "part"), [
    ({"variant": "path"}, {"student__time": True}, "teaches a one-step DiT"),
    ({"variant": "path", "assistant": "somebody"}, {}, "asks no assistant"),
    ({"variant": "path", "pair": 0.0}, {}, "set pair above 0"),
])  # fmt: skip
def test_where_the_path_can_not_teach_it_says_why(options, changes, part):
    recipe = TINY_STUDENT.with_(methods=(Use("pairs"), Use("multi_in_one", options)), **changes)
    assert part in create(recipe.methods[1]).why_not(recipe)
