from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT, TINY_UNET
from methods.test_contract import SPEC, batch, filled

from lab import guides, models
from lab.config import Use
from lab.methods import Roles, create, finish
from lab.methods.attention_transfer import divergence, relation, split
from lab.train import Networks

DEEP = dataclasses.replace(TINY_DIT, depth=5, width=32)  # of as many heads, each twice as wide
HEADS = dataclasses.replace(DEEP, heads=4)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def networks(guide=DEEP, student=None, **options) -> Networks:
    methods = [create(Use("pairs", {"perceptual": 0.0})), create(Use("attention_transfer", options))]
    torch.manual_seed(0)
    asked = guides.Guide("guide", filled(models.build(guide)) if student is None else student, SPEC)
    torch.manual_seed(2)
    net = filled(models.build(TINY_DIT))
    if student is not None:
        net.load_state_dict(student.state_dict())
    for method in methods:
        method.prepare(net, Roles(SPEC, asked))
    return Networks(net, methods, SPEC.sigma_data, asked)


def look(nets: Networks):
    rng = torch.Generator().manual_seed(0)
    return nets.look(nets.objective.inputs(batch(), rng), progress=0.0, rng=rng)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("options", [{}, {"relation_heads": 4}, {"temperature": 2.0}, {"reference": True}])
def test_a_copy_of_the_guide_has_neither_loss_nor_gradient(options):
    nets = networks(student=filled(models.build(TINY_DIT)), **options)
    terms = nets.methods[1].loss(look(nets))
    assert set(terms) == {"qk", "vv"} and all(abs(v.item()) < 1e-7 for v in terms.values())
    sum(terms.values()).backward()
    grads = [p.grad.abs().max() for p in nets.student.parameters() if p.grad is not None]
    assert grads and max(grads) < 1e-6


def test_the_terms_are_those_of_the_formula():
    """Worked out by numpy from the taps, for heads of two widths."""
    nets = networks(lambda_qk=2.0, lambda_vv=0.5, temperature=1.5)
    step = look(nets)

    def kl(names: str, mine: int, theirs: int) -> float:
        p, q = (softmax(np.matmul(x, y.swapaxes(-1, -2)) / math.sqrt(x.shape[-1]) / 1.5) for x, y in [
            [taps[f"{n}{i}"].detach().double().numpy() for n in names]
            for taps, i in ((step.guide_taps, theirs), (step.taps, mine))
        ])  # fmt: skip
        return 1.5**2 * (p * np.log(p / q)).sum(-1).mean()

    found = {k: v.item() for k, v in nets.losses(step).items()}
    for names, weight in (("qk", 2.0), ("vv", 0.5)):
        expected = weight * np.mean([kl(names, 0, 2), kl(names, 1, 4)])
        assert found[f"attention_transfer/{names}"] == pytest.approx(expected, rel=1e-4, abs=1e-8)
    assert set(found) == {"pairs/l1", "attention_transfer/qk", "attention_transfer/vv"}


def test_it_is_never_negative_and_a_row_s_constant_or_a_rotation_of_values_changes_nothing():
    for seed in range(20):
        assert divergence(normal(2, 3, 5, 5, seed=seed), normal(2, 3, 5, 5, seed=seed + 100)) >= 0
    theirs, mine = normal(2, 3, 5, 5), normal(2, 3, 5, 5, seed=1)
    shifted = divergence(theirs + normal(2, 3, 5, 1, seed=2), mine + normal(2, 3, 5, 1, seed=3))
    torch.testing.assert_close(shifted, divergence(theirs, mine))
    v, rotation = normal(2, 3, 5, 4), torch.linalg.qr(normal(4, 4)).Q
    torch.testing.assert_close(relation(v @ rotation, v @ rotation), relation(v, v), atol=1e-5, rtol=1e-5)


def test_a_mean_by_row_is_the_mean_by_entry_times_the_row_and_a_floor_flattens_what_is_below():
    theirs, mine = normal(2, 3, 5, 5), normal(2, 3, 5, 5, seed=1)
    torch.testing.assert_close(divergence(theirs, mine), 5 * divergence(theirs, mine, by_entry=True))
    assert divergence(-theirs.abs(), -mine.abs() - 1, floor=True) == 0


def test_certain_rows_stay_finite():
    mine = normal(1, 1, 4, 4).requires_grad_()
    loss = divergence(1e4 * normal(1, 1, 4, 4, seed=1), mine)
    loss.backward()
    assert loss.isfinite() and mine.grad.isfinite().all()


def test_heads_are_cut_again_side_by_side():
    x = normal(2, 4, 5, 3)
    assert torch.equal(split(x, 4), x)
    assert torch.equal(split(x, 2)[:, 1], torch.cat([x[:, 2], x[:, 3]], -1))
    assert split(x, 6).shape == (2, 6, 5, 2)
    found = networks(HEADS, relation_heads=8)
    assert all(v.isfinite() and v >= 0 for v in found.losses(look(found)).values())


@pytest.mark.parametrize("reference", [False, True])
def test_trained_weights_begin_as_half_of_all_and_are_told(reference):
    plain, nets = networks(reference=reference), networks(uncertainty=True, reference=reference)
    before, found = plain.losses(look(plain)), nets.losses(look(nets))
    halves = {"pairs/l1": 0.5, "attention_transfer/qk": 1.0, "attention_transfer/vv": 1.0}  # two blocks, summed
    for key, factor in halves.items():
        assert found[key].item() == pytest.approx(factor * before[key].item(), rel=1e-5)
    assert found["attention_transfer/weights"].item() == pytest.approx(3 * math.log(2) if reference else 0)
    sum(found.values()).backward()
    scale = nets.methods[1].own["weights"].scale
    task = before["pairs/l1"].item()
    assert scale.grad[0].item() == pytest.approx(-task + 1 if reference else -task / 2 + 0.5, rel=1e-5)
    assert nets.methods[1].facts(nets.student) == {"weights": [0.5, 0.5, 0.5]} and plain.methods[1].facts(None) == {}
    shapes = {k: v.shape for k, v in models.build(TINY_DIT).state_dict().items()}
    assert {k: v.shape for k, v in finish(nets.student, nets.methods).state_dict().items()} == shapes


def test_a_weight_of_zero_leaves_its_taps_alone():
    nets = networks(lambda_vv=0.0)
    assert nets.mine == {"q0", "k0", "q1", "k1"} and nets.theirs == {"q2", "k2", "q4", "k4"}
    assert "attention_transfer/vv" not in nets.losses(look(nets))


@pytest.mark.parametrize(("guide", "options", "part"), [
    (HEADS, {}, "the student has 2 heads and the guide 4"), (HEADS, {"relation_heads": 3}, "must divide the widths"),
    (dataclasses.replace(DEEP, patch=2), {}, "the student has 4 tokens and the guide 16"), (TINY_UNET, {}, "guide 0"),
])  # fmt: skip
def test_relations_of_two_shapes_are_refused(guide, options, part):
    method = create(Use("attention_transfer", options))
    with pytest.raises(ValueError, match=part):
        method.taps(guides.by_shape("student", TINY_DIT).net, guides.by_shape("guide", guide))
    assert "a unet of no blocks" in method.why_not(TINY_STUDENT.with_(student=TINY_UNET))


@pytest.mark.parametrize(("options", "part"), [
    ({"lambda_qk": -1.0}, "lambda_qk must be at least 0"), ({"lambda_qk": 0.0, "lambda_vv": 0.0}, "must not both be 0"),
    ({"temperature": 0.0}, "temperature must be above 0"), ({"relation_heads": -1}, "relation_heads must be at least"),
])  # fmt: skip
def test_options_that_can_not_be_meant_are_refused(options, part):
    with pytest.raises(ValueError, match=part):
        create(Use("attention_transfer", options))
