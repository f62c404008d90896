from __future__ import annotations

import pytest
import torch
from conftest import TINY_DIT
from methods.test_contract import SPEC, batch

from lab import models
from lab.config import DiTConfig, Recipe, UNetConfig, Use
from lab.data import ImageSpec
from lab.methods import Roles, create
from lab.optim import Optimizer
from lab.train import Networks


def one_step(method, student, b, progress=0.0):
    rng = torch.Generator()
    return Networks(student, [method], 0.7).look(method.inputs(b, rng), progress=progress, rng=rng)


def test_the_first_loss_is_the_mean_size_of_the_targets():
    method = create(Use("pairs", {"l2": 2.0}))
    student = method.prepare(models.build(TINY_DIT), Roles(SPEC))
    b = batch()
    losses = method.loss(one_step(method, student, b))
    assert losses["l1"].item() == pytest.approx(float(b.image.abs().mean()), rel=1e-5)
    assert losses["l2"].item() == pytest.approx(2 * float(b.image.square().mean()), rel=1e-5)


def test_a_term_of_weight_zero_is_not_there_and_none_at_all_is_refused():
    method = create(Use("pairs", {"perceptual": 0.0}))
    student = method.prepare(models.build(TINY_DIT), Roles(SPEC))
    assert list(method.loss(one_step(method, student, batch()))) == ["l1"]
    with pytest.raises(ValueError, match="must not all be 0"):
        create(Use("pairs", {"l1": 0.0, "perceptual": 0.0}))
    with pytest.raises(ValueError, match=r"perceptual_from 0\.2 leaves no loss before it"):
        create(Use("pairs", {"l1": 0.0, "perceptual_from": 0.2}))


def test_recipes_that_it_cannot_do_are_refused_before_any_work():
    method = create(Use("pairs"))
    assert "one-step student" in method.why_not(Recipe(student=UNetConfig()))
    assert method.why_not(Recipe()) is None


def test_the_conditions_name_the_perceptual_distance_that_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    method, plain = create(Use("pairs")), create(Use("pairs", {"perceptual": 0.0}))
    photographs = ImageSpec(data="folder:photographs", size=32, channels=3, num_classes=10)
    assert plain.conditions(photographs) == {}
    borrowed = method.conditions(photographs)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").touch()
    assert borrowed["perceptual"].endswith("-borrowed")
    assert method.conditions(photographs) == {"perceptual": "lpips-vgg"}


def test_the_perceptual_term_begins_where_it_is_told():
    method = create(Use("pairs", {"perceptual": 0.5, "perceptual_from": 0.6}))
    student = method.prepare(models.build(TINY_DIT), Roles(SPEC))
    assert "perceptual" not in method.loss(one_step(method, student, batch(), progress=0.5))
    found = method.loss(one_step(method, student, batch(), progress=0.6))
    assert found["perceptual"].item() > 0


def trained(noise, image, y, steps, config):
    """A student trained on the given pairs in full batches; its last loss."""
    from lab.data import Batch

    torch.manual_seed(0)
    method = create(Use("pairs", {"perceptual": 0.0}))
    student = method.prepare(models.build(config), Roles(SPEC))
    optimizer = Optimizer([student], Recipe(optimizer="adamw"))
    for step in range(steps):
        optimizer.set_lr(3e-3 * min(1.0, 2 * (1 - step / steps)))
        pick = torch.randperm(len(noise))[:64]
        loss = method.loss(one_step(method, student, Batch(image[pick], y[pick], noise[pick])))["l1"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_a_student_learns_64_pairs_by_heart():
    rng = torch.Generator().manual_seed(0)
    noise, y = torch.randn(64, 1, 8, 8, generator=rng), torch.randint(10, (64,), generator=rng)
    image = torch.tanh(noise.flip(2) + noise.roll(1, 3))
    loss = trained(noise, image, y, 1000, DiTConfig(image_size=8, patch=2, depth=2, width=32, heads=2))
    assert loss < 0.02


@pytest.mark.slow
def test_wrongly_paired_noise_teaches_no_more_than_the_mean_image():
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(10_000, 1, 8, 8, generator=rng)
    y = torch.zeros(10_000, dtype=torch.int64)
    image = torch.tanh(noise.flip(2) + noise.roll(1, 3))
    config = DiTConfig(image_size=8, patch=4, depth=1, width=16, heads=2)
    right = trained(noise, image, y, 300, config)
    wrong = trained(noise, image[torch.randperm(10_000, generator=rng)], y, 300, config)
    mean = float((image - image.median(0).values).abs().mean())
    assert wrong > 0.97 * mean > right
