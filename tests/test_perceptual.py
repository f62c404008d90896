from dataclasses import replace

import pytest
import torch

from lab import data, features, perceptual
from lab.data import ImageSpec, MissingData
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
    assert perceptual.name(replace(PHOTOS, size=16)).endswith("-borrowed")
    assert perceptual.name(replace(PHOTOS, channels=1)).endswith("-borrowed")


@pytest.fixture
def no_weights(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))


@pytest.mark.parametrize(("side", "channels"), [(8, 3), (16, 1), (32, 3), (40, 2)])
def test_images_without_a_net_borrow_one_that_the_gradient_goes_through(no_weights, side: int, channels: int) -> None:
    distance = perceptual.load(replace(PHOTOS, size=side, channels=channels))
    a, b = torch.rand(2, 3, channels, side, side) * 2 - 1
    a.requires_grad_(True)
    found = distance(a, b)
    found.sum().backward()
    assert found.shape == (3,) and found.min() > 0 and torch.equal(found, distance(b, a))
    assert (a.grad.abs().flatten(2).sum(2) > 0).all() and distance(a, a).abs().max() == 0
    assert torch.allclose(distance(a[1:2], b[1:2]), found[1:2], atol=1e-6)


def test_a_change_of_colour_alone_is_seen(no_weights) -> None:
    a = torch.rand(2, 3, 32, 32) * 2 - 1
    assert perceptual.load(PHOTOS)(a, a.flip(1)).min() > 0.01


def test_a_borrowed_net_is_named_unlike_its_use_on_data_of_its_own(no_weights) -> None:
    own = perceptual.name(ImageSpec(data="fashion-mnist", size=28, channels=1, num_classes=10))
    assert perceptual.name(PHOTOS) == f"{own}-borrowed"


def test_a_borrowed_net_on_grey_images_of_its_size_is_the_plain_distance(no_weights) -> None:
    fashion = ImageSpec(data="fashion-mnist", size=28, channels=1, num_classes=10)
    a, b = torch.rand(2, 5, 1, 28, 28)
    assert torch.equal(perceptual.load(replace(fashion, data="folder:x"))(a, b), perceptual.load(fashion)(a, b))


def test_a_borrowed_net_traces_without_a_graph_break(no_weights) -> None:
    a, b = torch.rand(2, 2, 3, 16, 16)
    small = replace(PHOTOS, size=16)
    traced = torch.compile(perceptual.load(small), backend="eager", fullgraph=True)
    assert torch.allclose(traced(a, b), perceptual.load(small)(a, b), atol=1e-6)


def test_weights_that_can_not_be_fetched_are_named_with_their_place(no_weights, monkeypatch, tmp_path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(MissingData, match=r"needs vgg16-397923af\.pth .*no network.*put the file into"):
        perceptual.fetch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"half")
    with pytest.raises(MissingData, match=r"vgg16-397923af\.pth is broken .*delete it"):
        perceptual.fetch()
