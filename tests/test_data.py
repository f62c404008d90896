from __future__ import annotations

import gzip

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


def test_class_names_come_from_train_so_that_labels_agree(pictures, tmp_path):
    root = tmp_path / "split"
    for split, names in (("train", ("a", "b", "c")), ("test", ("a", "c", "d"))):
        for name in names:
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(root / split / name / "0.png")
    train = data.load(f"folder:{root}", size=8)
    with pytest.warns(UserWarning, match="1 file left out"):
        test = data.load(f"folder:{root}", "test", size=8)
    assert train.class_names == test.class_names == ("a", "b", "c")
    assert train.labels.tolist() == [0, 1, 2] and test.labels.tolist() == [0, 2]
    assert test.skipped == [str(root / "test" / "d" / "0.png")]


def test_an_empty_sub_folder_is_no_class_and_what_lies_beside_the_classes_is_told(pictures):
    (pictures / "birds").mkdir()
    (pictures / "zebras").mkdir()
    (pictures / "zebras" / "notes.txt").write_text("none yet")
    for i in range(4):
        Image.new("RGB", (9, 9)).save(pictures / f"loose{i}.png")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"5 files left out.*: loose0\.png, loose1\.png, loose2\.png, \.\.\."):
            found = data.load(f"folder:{pictures}", size=8)
        assert found.class_names == ("cats", "dogs") and len(found.skipped) == 5


def test_a_folder_of_pictures_alone_leaves_nothing_out(pictures, recwarn):
    assert data.load(f"folder:{pictures / 'cats'}", size=8).class_names == () and not recwarn.list


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


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache and no way to fill it; no Debian package either. Gives the names that were to be fetched."""
    from torchvision.datasets import CIFAR10, FashionMNIST

    asked = []

    def refuse(dataset):
        asked.append(type(dataset).__name__)
        raise RuntimeError("no network")

    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    monkeypatch.setattr(data, "DEBIAN_FASHION", tmp_path / "nowhere")
    for dataset in (CIFAR10, FashionMNIST):
        monkeypatch.setattr(dataset, "download", refuse)
    return asked


def test_a_missing_download_says_how_to_get_it(offline):
    with pytest.raises(data.MissingData, match=r"CIFAR10 is not on this machine.*no network.*folder:<path>"):
        data.load("cifar10")
    found, mend = data.fault("cifar10")
    assert found.startswith("not on this machine") and mend == "python -m lab fetch cifar10"


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08\x00 cut off"])
def test_a_download_that_was_cut_off_is_named_and_fetched_again(offline, tmp_path, content):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(content)
    (raw / "train-images-idx3-ubyte").write_bytes(content)  # unpacked: torchvision would take it for good
    for _ in range(2):
        with pytest.raises(data.MissingData, match=r"not whole.*train-images-idx3-ubyte\.gz broken.*no network"):
            data.load("fashion-mnist")
    assert offline == ["FashionMNIST"] * 2 and not (raw / "train-images-idx3-ubyte").exists()
    assert data.fault("fashion-mnist")[0].endswith("train-images-idx3-ubyte.gz and 3 more")


def test_a_half_unpacked_cifar10_is_fetched_again(offline, tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
    with pytest.raises(data.MissingData, match=r"CIFAR10 is not whole.*data_batch_1 broken"):
        data.load("cifar10")
    assert offline == ["CIFAR10"] and "data_batch_1 and 6 more" in data.fault("cifar10")[0]


def test_a_broken_file_of_the_debian_package_is_named_with_its_mend(offline, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN_FASHION", tmp_path)
    for stem, count in (("train", 3), ("t10k", 2)):
        for kind, sizes in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            head = bytes([0, 0, 8, len(sizes)]) + b"".join(n.to_bytes(4, "big") for n in sizes)
            (tmp_path / f"{stem}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + bytes(int(np.prod(sizes)))))
    assert data.fault("fashion-mnist") is None and data.load("fashion-mnist").images.shape == (3, 1, 28, 28)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(data.MissingData, match=r"train-images-idx3-ubyte\.gz is absent or broken; apt-get install"):
        data.load("fashion-mnist")
    assert data.fault("fashion-mnist")[1] == data.DEBIAN_MEND
    assert len(data.load("fashion-mnist", "test").images) == 2 and not offline


def test_batches_are_a_function_of_seed_and_step():
    whole = torch.cat([data.order(10, 4, seed=3, step=s) for s in range(5)])
    assert sorted(whole[:10].tolist()) == sorted(whole[10:].tolist()) == list(range(10))
    assert torch.equal(data.order(10, 4, seed=3, step=4), whole[16:])
    assert not torch.equal(whole[:10], torch.cat([data.order(10, 4, seed=4, step=s) for s in range(3)])[:10])
    images = data.load("digits")
    stream = data.stream(images, batch=8, seed=1)
    next(stream)
    assert torch.equal(next(stream).image, next(data.stream(images, batch=8, seed=1, start=1)).image)
