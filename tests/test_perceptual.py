from dataclasses import replace

import pytest
import torch

from lab import data, features, perceptual
from lab.data import ImageSpec
from lab.diffusion import from_uint8

DIGITS = ImageSpec(data="digits", size=8, channels=1, num_classes=10)
PHOTOS = ImageSpec(data="folder:x", size=32, channels=3, num_classes=0)


@pytest.fixture
def digits() -> torch.Tensor:
    return from_uint8(data.load("digits", "test").images[:16])


def test_equal_images_are_at_distance_zero(digits) -> None:
    assert perceptual.load(DIGITS)(digits, digits.clone()).abs().max() == 0


def test_the_distance_is_per_sample_and_symmetric(digits) -> None:
    distance, other = perceptual.load(DIGITS), digits.flip(0)
    forth, back = distance(digits, other), distance(other, digits)
    assert forth.shape == (16,)
    assert torch.equal(forth, back)
    assert torch.allclose(distance(digits[3:4], other[3:4]), forth[3:4], atol=1e-6)


def test_a_stronger_blur_is_farther(digits) -> None:
    distance, blurred, found = perceptual.load(DIGITS), digits, []
    for _ in range(3):
        blurred = torch.nn.functional.avg_pool2d(blurred, 3, 1, 1, count_include_pad=False)
        found.append(distance(blurred, digits).mean().item())
    assert found == sorted(found)
    assert found[0] > 0


def test_the_gradient_reaches_the_image_and_not_the_net(digits) -> None:
    net = perceptual.FeatureDistance(features.load("digits", "perceptual"))
    x = (0.9 * digits).requires_grad_(True)
    net(x, digits).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in net.parameters())


def test_a_flat_image_has_a_finite_gradient() -> None:
    x = torch.zeros(2, 1, 8, 8, requires_grad=True)
    perceptual.load(DIGITS)(x, torch.full((2, 1, 8, 8), -1.0)).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_it_is_the_written_formula(digits) -> None:
    net, other = features.load("digits", "perceptual"), digits.flip(0)
    expected = torch.zeros(16)
    for m, n in zip(net.stages(digits), net.stages(other)):
        m = m / (m.pow(2).sum(1, keepdim=True) + perceptual.EPS).sqrt()
        n = n / (n.pow(2).sum(1, keepdim=True) + perceptual.EPS).sqrt()
        expected += ((m - n) ** 2).sum(1).flatten(1).mean(1) / len(net.convs)
    assert torch.allclose(perceptual.load(DIGITS)(digits, other), expected, atol=1e-6)


def test_bfloat16_autocast_changes_it_little_and_keeps_the_gradient(digits) -> None:
    distance, x = perceptual.load(DIGITS), digits.flip(0).requires_grad_(True)
    exact = distance(x, digits)
    with torch.autocast("cpu", torch.bfloat16):
        found = distance(x, digits)
    found.sum().backward()
    assert torch.allclose(found, exact, rtol=0.05)
    assert torch.isfinite(x.grad).all()


def test_it_traces_without_a_graph_break(digits) -> None:
    traced = torch.compile(perceptual.load(DIGITS), backend="eager", fullgraph=True)
    assert torch.allclose(traced(digits, digits.flip(0)), perceptual.load(DIGITS)(digits, digits.flip(0)), atol=1e-6)


def test_the_name_carries_the_nets_hash() -> None:
    assert perceptual.name(DIGITS) == features.name("digits", "perceptual")
    assert perceptual.name(DIGITS) != features.name("digits", "metric")


@pytest.mark.parametrize(("file", "expected"), [("vgg16-397923af.pth", "lpips-vgg"),
                                                ("alexnet-owt-7be5be79.pth", "lpips-alex")])  # fmt: skip
def test_lpips_is_taken_where_its_weights_lie(tmp_path, monkeypatch, file: str, expected: str) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / file).touch()
    assert perceptual.name(PHOTOS) == expected
    assert perceptual.name(DIGITS).startswith("digits-cnn-")
    with pytest.raises(LookupError, match="16x16"):
        perceptual.name(replace(PHOTOS, size=16))


def test_without_weights_the_error_says_what_is_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(LookupError, match=r"vgg16-397923af\.pth or alexnet-owt-7be5be79\.pth"):
        perceptual.load(PHOTOS)
