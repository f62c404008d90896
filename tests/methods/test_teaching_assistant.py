from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT, stop_at
from methods.test_contract import SPEC, batch, filled

from lab import experiment, guides, models
from lab.config import UNetConfig, Use
from lab.methods import Roles, create, features, finish
from lab.optim import Optimizer
from lab.results import Store
from lab.train import Networks, Stopped

DEEP = dataclasses.replace(TINY_DIT, depth=5, width=32)


def networks(guide: torch.nn.Module, student: torch.nn.Module, **options) -> Networks:
    methods = [create(Use("pairs", {"perceptual": 0.0})), create(Use("teaching_assistant", options))]
    guide = guides.Guide("guide", guide, SPEC)
    for method in methods:
        student = method.prepare(student, Roles(SPEC, guide))
    return Networks(student, methods, SPEC.sigma_data, guide)


def losses(nets: Networks, progress: float = 0.0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return nets.losses(nets.look(nets.objective.inputs(batch(), rng), progress=progress, rng=rng))


@pytest.mark.parametrize(("student", "guide", "found"), [
    (4, 12, [2, 5, 8, 11]), (8, 12, [1, 2, 4, 5, 7, 8, 10, 11]), (3, 3, [0, 1, 2]), (1, 7, [6]), (3, 4, [0, 2, 3]),
])  # fmt: skip
def test_the_block_map_rises_and_ends_at_the_last_block(student, guide, found):
    assert features.block_map(student, guide) == found
    assert [g for group in features.groups(student, guide) for g in group] == list(range(guide))


def test_a_student_that_is_a_copy_of_its_assistant_has_nothing_to_learn_of_it():
    net = filled(models.build(TINY_DIT))
    found = losses(networks(net, copy.deepcopy(net)))
    assert found["teaching_assistant/features"].item() < 1e-10
    assert found["teaching_assistant/output"].item() == 0


def test_the_terms_are_those_of_the_formula():
    """Worked out by numpy from the taps."""
    torch.manual_seed(0)
    nets = networks(filled(models.build(DEEP)), filled(models.build(TINY_DIT)), output=0.25, features=2.0, pair=0.5)
    rng = torch.Generator().manual_seed(0)
    step = nets.look(nets.objective.inputs(batch(), rng), progress=0.25, rng=rng)
    found = {k: v.item() for k, v in nets.losses(step).items()}

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

    gaps = []
    for mine, (theirs, layer) in enumerate(zip([2, 4], nets.methods[1].own["projections"])):
        x = step.taps[f"block{mine}"].detach().double().numpy()
        u = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        v = step.guide_taps[f"block{theirs}"].double().numpy()
        gaps.append(((norm(u) - norm(v)) ** 2).mean())
    assert found["teaching_assistant/features"] == pytest.approx(2.0 * 0.75 * np.mean(gaps), rel=1e-4)
    apart = (step.prediction - step.guide_prediction).abs().mean().item()
    assert found["teaching_assistant/output"] == pytest.approx(0.25 * apart, rel=1e-5)
    assert found["pairs/l1"] == pytest.approx(
        0.5 * (step.prediction - step.inputs.target).abs().mean().item(), rel=1e-5
    )


def test_features_by_place_compare_what_tells_images_apart():
    """By numpy; and what all images share, or a channel's scale, makes no difference."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 5, 3), torch.randn(6, 5, 4)
    normed = (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    v = (normed - normed.mean(0)).double().numpy()
    v = v / np.sqrt((v**2).mean((0, 1)) + 1e-6)
    mine, theirs = features.matched(x, y, "place")
    np.testing.assert_allclose(theirs.numpy(), v, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine, x - x.mean(0))
    torch.testing.assert_close(features.matched(x + torch.randn(5, 3), 3 * y, "place")[0], mine)
    torch.testing.assert_close(features.matched(x, 3 * y, "place")[1], theirs, rtol=1e-4, atol=1e-5)
    centred = normed - normed.mean(0)
    torch.testing.assert_close(features.matched(x, y, "centre")[1], centred / centred.square().mean().sqrt())
    alike = features.matched(x, y[:1].expand(6, 5, 4), "place")[1]
    assert alike.abs().max() < 1e-2  # nothing to learn of features that are the same for all images


def test_features_fade_to_nothing_and_weights_of_zero_leave_their_terms_out():
    nets = networks(filled(models.build(DEEP)), filled(models.build(TINY_DIT)), until=0.5)
    assert "teaching_assistant/features" in losses(nets, 0.49) and "teaching_assistant/features" not in losses(
        nets, 0.5
    )
    plain = networks(filled(models.build(DEEP)), filled(models.build(TINY_DIT)), features=0.0, output=0.0)
    assert set(losses(plain)) == {"pairs/l1"} and not list(plain.methods[1].own.parameters())


def test_what_no_term_looks_at_is_not_worked_out(monkeypatch):
    """An objective of weight 0 draws the inputs alone; a guide whose features have faded out is not asked."""
    nets = networks(filled(models.build(DEEP)), filled(models.build(TINY_DIT)), output=0.0, until=0.5)
    rng = torch.Generator().manual_seed(0)
    inputs = nets.objective.inputs(batch(), rng)
    assert nets.look(inputs, progress=0.49, rng=rng).guide_taps.kept
    monkeypatch.setattr(guides.Guide, "__call__", lambda *_: pytest.fail("asked"))
    late = nets.look(inputs, progress=0.5, rng=rng)
    assert late.guide_prediction is None and not late.taps.kept and set(nets.losses(late)) == {"pairs/l1"}
    monkeypatch.undo()
    nets = networks(filled(models.build(DEEP)), filled(models.build(TINY_DIT)), pair=0.0, output=1.0, features=0.0)
    assert set(losses(nets)) == {"teaching_assistant/output"}


def test_the_feature_loss_falls_within_200_updates():
    torch.manual_seed(0)
    nets = networks(filled(models.build(DEEP)), models.build(TINY_DIT))
    optimizer = Optimizer([nets.student, nets.methods[1].own], TINY_STUDENT)
    optimizer.set_lr(2e-3)
    first = losses(nets)["teaching_assistant/features"].item()
    for _ in range(200):
        optimizer.zero_grad()
        sum((found := losses(nets)).values()).backward()
        optimizer.step()
    assert found["teaching_assistant/features"].item() < 0.5 * first


def test_what_is_shipped_has_the_keys_and_the_size_of_the_plain_student():
    nets = networks(filled(models.build(DEEP)), filled(models.build(TINY_DIT)))
    net = finish(nets.student, nets.methods)
    shapes = {k: v.shape for k, v in models.build(TINY_DIT).state_dict().items()}
    assert {k: v.shape for k, v in net.state_dict().items()} == shapes


def test_without_a_named_assistant_one_is_trained_first_and_both_go_on_where_they_were_stopped(taught, monkeypatch):
    uses = (Use("pairs"), Use("teaching_assistant", {"depth": 3, "width": 32}))
    recipe = TINY_STUDENT.with_(methods=uses)
    jobs = experiment.plan(recipe, taught)
    first, second = (job.recipe for job in jobs)
    assert (first.student.depth, first.student.width, first.steps) == (3, 32, 2 * recipe.steps)
    assert second.guide == first.id and second.student == recipe.student
    expected = experiment.run(recipe, Store(taught.root), measure=False)
    assert taught.get(first.id).status().state == "done" and expected.id == second.id
    weights = (expected.path / "student.safetensors").read_bytes()
    assert expected.read("student")["facts"]["guide"]["seconds"] > 0
    for run in (expected, taught.get(first.id)):
        for path in sorted(run.path.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()

    stop_at(monkeypatch, 5, 5 + 19 + 4)  # in the first stage, then in the second
    for stage in (first, second):
        with pytest.raises(Stopped):
            experiment.run(recipe, taught, measure=False)
        assert taught.get(stage.id).status().state == "stopped"
    # the last stage's own recipe is enough to go on, as the command that a stopped run tells says
    again = experiment.run(taught.get(second.id).recipe, taught, measure=False)
    assert (again.path / "student.safetensors").read_bytes() == weights


def test_a_named_assistant_is_the_recipe_s_guide(taught):
    guide = experiment.run(TINY_STUDENT.with_(student=DEEP, steps=2), taught, measure=False)
    by_option = TINY_STUDENT.with_(methods=(Use("pairs"), Use("teaching_assistant", {"assistant": guide.id})))
    by_guide = TINY_STUDENT.with_(methods=(Use("pairs"), Use("teaching_assistant")), guide=guide.id)
    (one,), (other,) = experiment.plan(by_option, taught), experiment.plan(by_guide, taught)
    assert one.recipe.id == other.recipe.id and one.recipe.guide == guide.id
    needless = Use("teaching_assistant", {"depth": 7})  # of an assistant that is there
    (third,) = experiment.plan(by_guide.with_(methods=(Use("pairs"), needless)), taught)
    assert third.recipe.id == one.recipe.id


@pytest.mark.parametrize(("options", "part"), [
    ({"pair": -1.0}, "pair must be at least 0"), ({"pair": 0.0, "output": 0.0}, "must not both be 0"),
    ({"until": 0.0}, "until must be above 0 and at most 1"), ({"rate": 0.0}, "rate must be above 0"),
])  # fmt: skip
def test_options_that_can_not_be_meant_are_refused(options, part):
    with pytest.raises(ValueError, match=part):
        create(Use("teaching_assistant", options))


def test_a_guide_that_is_shallower_or_a_student_of_another_family_is_refused(taught):
    guide = experiment.run(TINY_STUDENT.with_(steps=2), taught, measure=False)
    uses = (Use("pairs"), Use("teaching_assistant"))
    deeper = TINY_STUDENT.with_(methods=uses, guide=guide.id, student__depth=3)
    with pytest.raises(ValueError, match="the student has 3 blocks and the guide 2"):
        experiment.run(deeper, taught, measure=False)
    unet = TINY_STUDENT.with_(methods=uses, student=UNetConfig(image_size=8, widths=(8, 16), groups=4), guide=guide.id)
    assert any("of family unet" in said for said in experiment.check(unet, taught))
