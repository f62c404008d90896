from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT, TINY_UNET
from methods.test_contract import SPEC, batch, filled

from lab import guides, models
from lab.config import Use
from lab.methods import Roles, create
from lab.methods.manifold import Grams, draw
from lab.train import Networks

DEEP = dataclasses.replace(TINY_DIT, depth=5, width=32)
B, N, D = 3, 4, 6


def tensors(seed: int = 0, width: int = D) -> torch.Tensor:
    return torch.randn(B, N, width, generator=torch.Generator().manual_seed(seed))


def networks(guide: torch.nn.Module, student: torch.nn.Module, **options) -> Networks:
    methods = [create(Use("pairs", {"perceptual": 0.0})), create(Use("manifold", options))]
    asked = guides.Guide("guide", guide, SPEC)
    for method in methods:
        student = method.prepare(student, Roles(SPEC, asked))
    return Networks(student, methods, SPEC.sigma_data, asked)


def losses(nets: Networks, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return nets.losses(nets.look(nets.objective.inputs(batch(), rng), progress=0.0, rng=rng))


def test_a_rotation_and_lengths_of_rows_change_nothing():
    theirs, rows = tensors(), draw(B * N, 5, torch.Generator().manual_seed(1))
    rotation = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(2))).Q
    lengths = 0.1 + torch.rand(B, N, 1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(Grams()(theirs, theirs, rows), torch.zeros(3))
    assert Grams()(lengths * theirs @ rotation, theirs, rows).max() < 1e-12


def test_every_term_lies_between_0_and_4_the_latter_for_opposite_cosines():
    rows = torch.arange(B * N)
    for seed in range(20):
        assert all(0 <= term <= 4 for term in Grams()(tensors(seed), tensors(seed + 100, 9), rows))
    one = torch.ones(2, 1, 3)
    apart = torch.stack([one[0], -one[1]])
    assert Grams()(one, apart, torch.arange(2)).tolist() == pytest.approx([0, 2, 2])  # half of the entries are 4


def test_the_order_of_a_batch_does_not_matter():
    mine, theirs, rows = tensors(1), tensors(2, 9), draw(B * N, 5, torch.Generator().manual_seed(1))
    order = torch.tensor([2, 0, 1])
    mapped = torch.argsort(order)[rows // N] * N + rows % N
    torch.testing.assert_close(Grams()(mine[order], theirs[order], mapped), Grams()(mine, theirs, rows))


def test_as_many_rows_as_there_are_patches_give_the_whole_manifold():
    mine, theirs = tensors(1), tensors(2, 9)
    rows = draw(B * N, 10_000, torch.Generator().manual_seed(1))
    assert sorted(rows.tolist()) == list(range(B * N))

    def cosines(x: torch.Tensor) -> np.ndarray:
        flat = x.reshape(B * N, -1).double().numpy()
        flat = flat / np.sqrt((flat**2).sum(1, keepdims=True))
        return np.array([[(a * b).sum() for a in flat] for b in flat])

    gaps = ((cosines(theirs) - cosines(mine)) ** 2).reshape(B, N, B, N)
    found = Grams()(mine, theirs, rows).tolist()
    patch = np.mean([gaps[b, :, b] for b in range(B)])
    sample = np.mean([gaps[:, n, :, n] for n in range(N)])
    assert found == pytest.approx([patch, sample, gaps.mean()], rel=1e-5)


def test_rows_of_zeros_have_a_gradient():
    mine = tensors(1)
    mine[0, 1] = 0
    mine.requires_grad_()
    Grams()(mine, tensors(2), torch.arange(B * N)).sum().backward()
    assert mine.grad.isfinite().all()


@pytest.mark.parametrize("center", [False, True])
def test_a_copy_of_the_guide_has_nothing_to_learn_of_it_and_a_shared_direction_hides_the_rest(center):
    torch.manual_seed(0)
    net = filled(models.build(TINY_DIT))
    found = losses(networks(net, filled(models.build(TINY_DIT)), center=center, alpha=0.5))
    assert found["manifold/output"].item() > 0 and found["manifold/patch"].item() > 0
    copied = models.build(TINY_DIT)
    copied.load_state_dict(net.state_dict())
    found = losses(networks(net, copied, center=center, alpha=0.5))
    assert [v.item() for k, v in found.items() if "manifold" in k] == [0] * 4
    mine, theirs = tensors(1) + 100, tensors(2) + 100
    method = networks(net, copied, center=center).methods[1]
    terms = method._block(mine, theirs, torch.Generator().manual_seed(0))
    assert (terms.min() > 1e-3) == center


def test_rows_are_drawn_by_the_step_and_weights_of_zero_leave_terms_out():
    torch.manual_seed(0)
    guide, student = filled(models.build(DEEP)), filled(models.build(TINY_DIT))
    one, same, other = (losses(networks(guide, student, rows=3), seed)["manifold/random"] for seed in (0, 0, 1))
    assert one == same != other
    found = losses(networks(guide, student, sample=0.0, random=0.0, alpha=0.0))
    assert set(found) == {"pairs/l1", "manifold/patch"}


def test_weights_are_those_of_the_formula():
    torch.manual_seed(0)
    guide, student = filled(models.build(DEEP)), filled(models.build(TINY_DIT))
    plain = losses(networks(guide, student, beta=1.0, patch=1.0, sample=1.0, random=1.0, alpha=0.5))
    found = losses(networks(guide, student, beta=2.0, alpha=0.25))
    factors = {"pairs/l1": 1.5, "manifold/output": 0.5, "manifold/patch": 8.0, "manifold/sample": 0.2,
               "manifold/random": 0.4}  # fmt: skip
    assert {k: v.item() for k, v in found.items()} == pytest.approx(
        {k: f * plain[k].item() for k, f in factors.items()}
    )


def test_neighbours_are_merged_where_the_guide_has_more_tokens():
    finer = dataclasses.replace(DEEP, patch=2)
    found = losses(networks(filled(models.build(finer)), filled(models.build(TINY_DIT))))
    assert all(v.isfinite() and v > 0 for v in found.values())


def test_tokens_that_do_not_divide_and_students_without_blocks_are_refused():
    method = create(Use("manifold"))
    student = guides.by_shape("student", dataclasses.replace(TINY_DIT, image_size=24, patch=8))
    guide = guides.by_shape("guide", dataclasses.replace(DEEP, image_size=24, patch=6))
    with pytest.raises(ValueError, match="3 x 3 tokens and the guide 4 x 4"):
        method.taps(student.net, guide)
    with pytest.raises(ValueError, match="the guide 0"):
        method.taps(student.net, guides.by_shape("guide", TINY_UNET))
    assert "a unet of no blocks" in method.why_not(TINY_STUDENT.with_(student=TINY_UNET))


@pytest.mark.parametrize(("options", "part"), [
    ({"patch": -1.0}, "patch must be at least 0"), ({"patch": 0.0, "sample": 0.0, "random": 0.0}, "must not all be 0"),
    ({"beta": 0.0}, "beta must be above"), ({"rows": 1}, "rows must be at least 2"), ({"alpha": 1.5}, "alpha must"),
])  # fmt: skip
def test_options_that_can_not_be_meant_are_refused(options, part):
    with pytest.raises(ValueError, match=part):
        create(Use("manifold", options))
