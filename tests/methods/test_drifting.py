from __future__ import annotations

import pytest
import torch
from conftest import TINY_DIT
from methods import test_contract as contract

from lab.config import Recipe, Use
from lab.methods import create
from lab.methods.drifting import Ring, drift, force

RADII = (0.02, 0.05, 0.2)


def some(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_drift_points_from_the_drawn_to_the_positives():
    g, p = some(24, 0), some(24, 1, shift=3.0)
    y = torch.zeros(24, dtype=torch.int64)
    found = drift(g, y, (p, y), (0.2,))
    there = torch.nn.functional.cosine_similarity(found.moved.mean(0), torch.ones(5), dim=0)
    assert there > 0.9


def test_the_force_is_none_where_both_sets_are_one_and_turns_where_they_change_places():
    g, p = some(24, 0), some(16, 1)
    near = (-torch.cdist(g, torch.cat([g, g]))).exp()
    positive = torch.arange(48) >= 24
    assert force(near, positive, torch.cat([g, g]), g).abs().max() < 1e-4
    A, positive = (-torch.cdist(g, torch.cat([g, p]))).exp(), torch.arange(40) >= 24
    there = force(A, positive, torch.cat([g, p]), g)
    assert there.abs().max() > 0.1 and torch.equal(force(A, ~positive, torch.cat([g, p]), g), -there)


def test_moving_along_it_brings_one_set_over_the_other():
    g, p = some(48, 0), some(48, 1, shift=2.0)
    y = torch.zeros(48, dtype=torch.int64)
    before = (g.mean(0) - p.mean(0)).norm()
    for _ in range(200):
        found = drift(g, y, (p, y), RADII)
        g = g + 0.1 * found.scale[:, None] * found.moved
    assert (g.mean(0) - p.mean(0)).norm() < 0.3 * before
    assert 0.5 < g.std() / p.std() < 2.0


def test_classes_do_not_see_one_another():
    g, p = some(12, 0), some(12, 1)
    y = torch.arange(12) % 2
    both = drift(g, y, (p, y), RADII)
    far = p.clone()
    far[y == 1] += 50.0
    moved = drift(g, y, (far, y), (0.2,)).moved[y == 0] / drift(g, y, (p, y), (0.2,)).moved[y == 0]
    assert torch.allclose(moved, moved[0, 0].expand_as(moved), rtol=1e-3)  # but for the common rms
    assert both.moved.isfinite().all()


def test_a_class_without_positives_or_alone_does_not_move_by_a_number_that_is_none():
    g = some(3, 0)
    found = drift(g, torch.tensor([0, 1, 1]), (some(4, 1), torch.tensor([2, 2, 0, 0])), RADII)
    assert found.moved.isfinite().all() and torch.all(found.moved[1:] == 0)


def test_the_ring_keeps_the_last_of_each_class_and_is_state():
    ring = Ring(2, 3, [2, 1])
    rows = torch.arange(15.0).view(5, 3)
    ring.put([rows[:, :2], rows[:, 2:]], torch.tensor([0, 0, 0, 0, 1]))
    (first, classes), (second, _) = ring.kept()
    assert classes.tolist() == [0, 0, 0, 1] and sorted(second[:, 0].tolist()) == [5.0, 8.0, 11.0, 14.0]
    again = Ring(2, 3, [2, 1])
    again.load_state_dict(ring.state_dict())
    assert torch.equal(again.kept()[0][0], first)


def test_it_moves_the_student():
    nets, _ = contract.prepared("drifting")
    step = contract.look(nets)
    nets.losses(step)["drifting/drift"].backward()
    assert any(p.grad.abs().max() > 0 for p in nets.student.head.parameters())


@pytest.mark.parametrize(("options", "part"), [
    ({"weight": -1.0}, "weight must be at least 0"), ({"positives": 0}, "positives must be at least 1"),
    ({"classes": -1}, "classes must be at least 0"),
    ({"radii": []}, "radii must all be above 0"),
])  # fmt: skip
def test_options_that_can_not_be_meant_are_refused(options, part):
    with pytest.raises(ValueError, match=part):
        create(Use("drifting", options))


def test_data_without_a_net_of_their_own_are_refused():
    said = create(Use("drifting")).why_not(Recipe(data="cifar10", student=TINY_DIT))
    assert "cifar10 has none" in said
