"""Networks by name: `lab.load` and `lab.sample`."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY_STUDENT

from lab import diffusion, experiment, metrics
from lab.results import Store
from lab.sampling import load, sample
from lab.weights import load_student, save_student, spec_of_run


@pytest.fixture
def drawn(taught: Store) -> Store:
    """A store with the tiny teacher and a finished student labelled `small`."""
    run = experiment.run(TINY_STUDENT, taught, measure=False)
    run.set_notes(label="small")
    return taught


def test_a_loaded_student_gives_images_of_noise_and_class(drawn: Store):
    student = load("small", drawn)
    z, y = diffusion.noise_of(range(3), student.spec.shape, student.spec.num_classes)
    images = student(z, y)
    assert images.shape == (3, 1, 8, 8) and images.abs().max() <= 1


def test_a_teacher_is_loaded_like_a_student(drawn: Store):
    teacher = load("tiny", drawn)
    z, y = diffusion.noise_of(range(2), teacher.spec.shape, teacher.spec.num_classes)
    assert teacher(z, y).shape == (2, 1, 8, 8)


def test_image_k_depends_on_seed_k_alone(drawn: Store):
    together = sample("small", range(5), y=3, store=drawn)
    alone = sample("small", [4], y=3, store=drawn)
    assert torch.equal(together[4:], alone) and together.dtype == torch.uint8


def test_one_class_stands_for_all(drawn: Store):
    assert torch.equal(sample("small", range(3), y=2, store=drawn), sample("small", range(3), y=[2, 2, 2], store=drawn))


@pytest.mark.parametrize(
    ("y", "said"), [(10, "classes lie in 0 to 9, got 10"), ([1, 2], r"of shape \(3,\)"), (-1, "got -1 to -1")]
)
def test_a_class_that_there_is_not_is_refused(drawn: Store, y, said: str):
    with pytest.raises(ValueError, match=said):
        sample("small", range(3), y=y, store=drawn)


def test_a_missing_class_is_refused(drawn: Store):
    with pytest.raises(ValueError, match="draws classes"):
        load("small", drawn)(torch.randn(2, 1, 8, 8))


def test_noise_of_another_size_is_refused(drawn: Store):
    with pytest.raises(ValueError, match=r"noise must be \(B, 1, 8, 8\)"):
        load("small", drawn)(torch.randn(2, 1, 28, 28), torch.tensor([1, 2]))


def test_an_unknown_name_names_the_nearest(drawn: Store):
    with pytest.raises(LookupError, match="did you mean 'small'"):
        load("smal", drawn)


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_a_network_with_broken_weights_draws_nothing_and_is_named(drawn: Store, name: str):
    run = drawn.get(name)
    net = load_student(run)
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    save_student(run, net, spec_of_run(run))
    for ask in (lambda: sample(name, range(2), store=drawn), lambda: metrics.evaluate(run, drawn, samples=8)):
        with pytest.raises(ValueError, match=f"{run.id}: .*not finite"):
            ask()
