from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lab import data


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder with two classes, 10 pictures each, of several kinds; and a cache of its own."""
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    root = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)
            suffix, mode = [("jpg", "RGB"), ("png", "RGBA"), ("png", "L")][i % 3]
            Image.fromarray(pixels).convert(mode).save(root / name / f"{i:02d}.{suffix}")
    return root


def test_digits_are_embedded_and_split():
    train, test = data.load("digits"), data.load("digits", "test")
    assert train.images.shape[1:] == (1, 8, 8) and len(train.images) + len(test.images) == 1797
    assert train.images.dtype == torch.uint8 and train.images.max() == 255
    assert set(train.labels.tolist()) == set(range(10))
    spec = data.spec_of("digits", train)
    assert spec.shape == (1, 8, 8) and spec.num_classes == 10 and 0.5 < spec.sigma_data < 0.9


@pytest.mark.slow
@pytest.mark.skipif(not data.DEBIAN_FASHION.exists(), reason="Debian package dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_the_published_set():
    train, test = data.load("fashion-mnist"), data.load("fashion-mnist", "test")
    assert train.images.shape == (60_000, 1, 28, 28) and test.images.shape == (10_000, 1, 28, 28)
    assert train.labels.bincount().tolist() == [6000] * 10
    assert data.spec_of("fashion-mnist", train).sigma_data == pytest.approx(0.706, abs=1e-3)


def test_a_folder_gives_resized_pictures_with_labels_from_sub_folders(pictures):
    train, test = (data.load(f"folder:{pictures}", split, size=16) for split in ("train", "test"))
    assert train.images.shape == (18, 3, 16, 16) and test.images.shape == (2, 3, 16, 16)
    assert train.class_names == ("cats", "dogs") and train.labels.bincount().tolist() == [9, 9]
    assert data.load(f"folder:{pictures}", size=8, channels=1).images.shape == (18, 1, 8, 8)


def test_a_folder_is_read_from_the_cache_the_second_time_and_anew_when_it_changed(pictures):
    first = data.load(f"folder:{pictures}", size=16)
    second = data.load(f"folder:{pictures}", size=16)
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
    (pictures / "dogs" / "09.jpg").unlink()
    left = [len(data.load(f"folder:{pictures}", split, size=16).images) for split in ("train", "test")]
    assert sum(left) == 19


def test_broken_and_foreign_files_are_named_and_skipped(pictures):
    (pictures / "cats" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (pictures / "cats" / "notes.txt").write_text("not a picture")
    cut = (pictures / "cats" / "00.jpg").read_bytes()
    (pictures / "cats" / "cut.jpg").write_bytes(cut[: len(cut) // 3])
    for _ in range(2):  # the second time from the cache
        found = data.load(f"folder:{pictures}", size=16)
        assert sorted(s.rsplit("/", 1)[1] for s in found.skipped) == ["broken.png", "cut.jpg", "notes.txt"]
        assert len(found.images) == 18


def test_own_splits_of_a_folder_are_used(pictures, tmp_path):
    root = tmp_path / "split"
    root.mkdir()
    pictures.rename(root / "train")
    (root / "test" / "cats").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(root / "test" / "cats" / "a.png")
    assert len(data.load(f"folder:{root}", size=8).images) == 20
    assert len(data.load(f"folder:{root}", "test", size=8).images) == 1


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_pictures_is_an_error(tmp_path, make, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    if make:
        (tmp_path / "empty").mkdir()
    with pytest.raises(data.MissingData, match="no readable picture" if make else "does not exist"):
        data.load(f"folder:{tmp_path / 'empty'}")


def test_unknown_names_and_wrong_sizes_are_sentences():
    with pytest.raises(ValueError, match="unknown data set 'digit'; did you mean 'digits'"):
        data.load("digit")
    with pytest.raises(ValueError, match="digits has images of 8x8, the recipe's net takes 28x28"):
        data.load("digits", size=28)


def test_a_missing_download_says_how_to_get_it(tmp_path, monkeypatch):
    import torchvision

    def refuse(*_, **__):
        raise RuntimeError("no network")

    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", refuse)
    with pytest.raises(data.MissingData, match=r"CIFAR10 is not on this machine.*no network.*folder:<path>"):
        data.load("cifar10")


def test_batches_are_a_function_of_seed_and_step():
    whole = torch.cat([data.order(10, 4, seed=3, step=s) for s in range(5)])
    assert sorted(whole[:10].tolist()) == sorted(whole[10:].tolist()) == list(range(10))
    assert torch.equal(data.order(10, 4, seed=3, step=4), whole[16:])
    assert not torch.equal(whole[:10], torch.cat([data.order(10, 4, seed=4, step=s) for s in range(3)])[:10])
    images = data.load("digits")
    stream = data.stream(images, batch=8, seed=1)
    next(stream)
    assert torch.equal(next(stream).image, next(data.stream(images, batch=8, seed=1, start=1)).image)
