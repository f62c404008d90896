from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import TINY_STUDENT, TINY_UNET

from lab import diffusion, models
from lab.config import Recipe, Use
from lab.data import ImageSpec
from lab.results import Run, Store
from lab.walk import Walk, between
from lab.weights import load_student, save_student

SPEC = ImageSpec(data="digits", size=8, channels=1, num_classes=10)


@pytest.fixture
def run(store: Store) -> Run:
    """A student with weights of chance; its gates are open, so that noise and class both act."""
    torch.manual_seed(0)
    run = store.open(TINY_STUDENT)
    net = models.build(TINY_STUDENT.student)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_student(run, net, SPEC)
    return run


def alone(run: Run, seed: int, y: int) -> np.ndarray:
    z, _ = diffusion.noise_of([seed], SPEC.shape, 0)
    with torch.inference_mode():
        return diffusion.to_uint8(load_student(run)(z, None, torch.tensor([y]))[0]).numpy()


def test_the_ends_of_a_walk_are_the_student_s_own_images(run: Run):
    walk = Walk(run)
    corners = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    images = walk.images((3, 8), (2, 7), corners)
    for image, (noise, label) in zip(images, corners, strict=True):
        own = alone(run, (3, 8)[int(noise)], (2, 7)[int(label)])
        assert np.abs(image.astype(int) - own).max() <= 1  # a batch of four may round another way
        assert own.std() > 1


def test_between_two_classes_lies_another_image_that_nears_the_second(run: Run):
    walk = Walk(run)
    images = walk.images((3, 3), (2, 7), [(0.5, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]).astype(float)
    apart = [np.abs(image - images[-1]).mean() for image in images]
    assert apart == sorted(apart, reverse=True) and apart[0] > apart[2] > 0
    assert np.abs(walk.images((3, 3), (2, 2), [(0.5, 0.5)])[0] - images[0]).max() <= 1


def test_a_noise_on_the_way_has_the_variance_of_its_ends():
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 64, 64, generator=rng)
    assert between(a, b, 0.0).equal(a) and torch.allclose(between(a, b, 1.0), b, atol=1e-6)
    assert between(a, b, 0.5).var().item() == pytest.approx(1.0, abs=0.05)  # of the straight mean it is 0.5
    assert between(a, a, 0.3).equal(a)


def test_a_network_of_several_steps_is_refused_by_name(store: Store):
    run = store.open(Recipe(data="digits", student=TINY_UNET, methods=(Use("denoise"),), steps=2))
    with pytest.raises(ValueError, match="several steps; a walk needs a one-step student"):
        Walk(run)
