from __future__ import annotations

import gzip
import os
import struct
import zlib

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


def test_a_cache_of_other_arrays_is_made_again(pictures, tmp_path):
    whole = data.load(f"folder:{pictures}", size=16)
    caches = sorted((tmp_path / "cache" / "folders").glob("*.npz"))
    assert caches
    for pixels, labels in [((3,), 3), ((20, 3, 8, 8), 20), ((18, 3, 16, 16), 3)]:
        for cache in caches:
            np.savez(cache, images=np.zeros(pixels, np.uint8), labels=np.zeros(labels, int), skipped=np.zeros(0, str))
        assert torch.equal(data.load(f"folder:{pictures}", size=16).images, whole.images)


@pytest.mark.parametrize("replace", ["write", "rename", "link"])
def test_a_picture_of_equal_size_and_time_in_anothers_place_is_read_anew(plain, tmp_path, replace):
    plain.mkdir()
    place, new = plain / "0.bmp", tmp_path / "new.bmp"
    for file, turn in ((place, 1), (new, -1)):
        Image.fromarray((RAMP * 255).astype(np.uint8)[:, ::turn]).save(file)
        os.utime(file, (1e9, 1e9))
    if replace == "link":
        place.rename(tmp_path / "old.bmp")
        place.symlink_to(tmp_path / "old.bmp")
    assert data.load(f"folder:{plain}", size=8).images[0, 0, 0, 0] < 20
    if replace == "write":  # as `cp -p` does
        place.write_bytes(new.read_bytes())
        os.utime(place, (1e9, 1e9))
    elif replace == "rename":
        new.rename(place)
    else:
        place.unlink()
        place.symlink_to(new)
    assert data.load(f"folder:{plain}", size=8).images[0, 0, 0, 0] > 200


def test_a_picture_whose_time_alone_changed_comes_from_the_cache(pictures, monkeypatch):
    first = data.load(f"folder:{pictures}", size=16)
    for file in pictures.rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    monkeypatch.setattr(data, "folder_classes", lambda root: ("cats", "dogs"))
    monkeypatch.setattr(data, "_picture", None)
    assert torch.equal(data.load(f"folder:{pictures}", size=16).images, first.images)


def test_what_is_no_file_and_what_is_no_picture_is_not_read(plain):
    tree(plain, "a/0.png")
    (plain / "a" / "1.txt").touch()
    os.mkfifo(plain / "a" / "2.png")
    (plain / "a" / "3.png").symlink_to("/dev/zero")
    with pytest.warns(UserWarning, match=r"3 files left out.*1\.txt, a/2\.png, a/3\.png"):
        assert len(data.load(f"folder:{plain}", size=8).images) == 1


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
    tree(root, "test/cats/a.png")
    assert len(data.load(f"folder:{root}", size=8).images) == 20
    assert len(data.load(f"folder:{root}", "test", size=8).images) == 1


def test_class_names_come_from_train_so_that_labels_agree(pictures, tmp_path):
    root = tmp_path / "split"
    for split, names in (("train", ("a", "b", "c")), ("test", ("a", "c", "d"))):
        tree(root, *(f"{split}/{name}/0.png" for name in names))
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


def test_what_a_desktop_hides_in_a_class_is_no_picture_of_it(pictures):
    (pictures / "cats" / ".thumbnails").mkdir()
    Image.new("RGB", (9, 9)).save(pictures / "cats" / ".thumbnails" / "00.png")
    assert data.load(f"folder:{pictures}", size=8).labels.bincount().tolist() == [9, 9]


def test_a_folder_of_pictures_alone_leaves_nothing_out(pictures, recwarn):
    assert data.load(f"folder:{pictures / 'cats'}", size=8).class_names == () and not recwarn.list


def test_a_folder_of_too_few_pictures_for_a_test_split_says_so(pictures):
    for name in ("cats", "dogs"):
        for i in range(4, 10):
            next((pictures / name).glob(f"{i:02d}.*")).unlink()
    root = f"folder:{pictures}"
    assert len(data.load(root, size=8).images) == 8
    with pytest.raises(data.MissingData, match="has 8 pictures, and the test split is every tenth"):
        data.load(root, "test", size=8)


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_pictures_is_an_error(tmp_path, make, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    if make:
        (tmp_path / "empty").mkdir()
    with pytest.raises(data.MissingData, match="no readable picture" if make else "does not exist"):
        data.load(f"folder:{tmp_path / 'empty'}")


def test_class_names_are_known_without_the_pictures(pictures):
    assert data.class_names("digits") == data.load("digits").class_names
    assert data.class_names(f"folder:{pictures}") == data.load(f"folder:{pictures}").class_names
    assert data.class_names("folder:nowhere") == data.class_names("nothing") == ()


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


# --- what strangers' folders hold ---


def tree(root, *files):
    """Pictures at places below a folder, each of other pixels."""
    rng = np.random.default_rng(0)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(root / file)
    return root


@pytest.fixture
def plain(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    return tmp_path / "plain"


RAMP = np.linspace(0.05, 0.95, 8)[None, :].repeat(8, 0)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.png", (RAMP * 65535).astype(np.uint16)),
        ("a.tif", (RAMP * 65535).astype(np.uint16)),
        ("a.tif", (RAMP * 65535).astype(np.int32)),
        ("a.tif", RAMP.astype(np.float32)),
    ],
)
def test_grey_of_more_than_eight_bits_is_the_same_ramp(tmp_path, name, values):
    Image.fromarray(values).save(tmp_path / name)
    found = data._picture(tmp_path / name, 8, 1)[0, 0]
    assert np.abs(found.astype(int) - RAMP[0] * 255).max() <= 1


@pytest.mark.parametrize("values", [(RAMP * 4095).astype(np.uint16), (RAMP * 1e6).astype(np.int32), RAMP * 255, -RAMP])
def test_grey_whose_white_is_not_known_is_left_out(tmp_path, values):
    Image.fromarray(values.astype(np.float32) if values.dtype == np.float64 else values).save(tmp_path / "a.tif")
    assert data._picture(tmp_path / "a.tif", 8, 1) is None


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white_whatever_colour_they_hide(tmp_path, mode):
    picture = Image.new("RGBA", (8, 8), (0, 255, 0, 0))
    picture.paste((10, 10, 10, 255), (0, 0, 4, 8))
    if mode == "P":
        picture = picture.convert("RGB").quantize(4)
        picture.save(tmp_path / "a.png", transparency=picture.getpixel((7, 0)))
    else:
        picture.convert(mode).save(tmp_path / "a.png")
    found = data._picture(tmp_path / "a.png", 8, 3)
    assert found[:, 0, 0].tolist() == [10] * 3 and found[:, 7, 7].tolist() == [255] * 3


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.tif", ((1 - RAMP) * 65535).astype(np.uint16)),
        ("a.tif", (1 - RAMP).astype(np.float32)),
        ("a.tif", ((1 - RAMP) * 255).astype(np.uint8)),
    ],
)
def test_a_tiff_whose_white_is_zero_is_no_negative(tmp_path, name, values):
    # PIL turns 8 bits round as it writes, and leaves the others as they are.
    Image.fromarray(255 - values if values.dtype == np.uint8 else values).save(tmp_path / name, tiffinfo={262: 0})
    with Image.open(tmp_path / name) as opened:
        assert opened.tag_v2[262] == 0
    found = data._picture(tmp_path / name, 8, 1)[0, 0]
    assert np.abs(found.astype(int) - RAMP[0] * 255).max() <= 1


def test_grey_of_sixteen_bits_with_a_sign_is_left_out(tmp_path):
    values = (RAMP * 32767).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={339: 2})  # SampleFormat: signed
    assert data._picture(tmp_path / "a.tif", 8, 1) is None


def png(depth: int, row: list[list[int]], clear: list[int]) -> bytes:
    """A square PNG of equal rows without alpha; a pixel is one grey value or three, that of `clear` is transparent."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    bits = "".join(f"{value:0{depth}b}" for pixel in row for value in pixel)
    rows = (b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")) * len(row)
    head = struct.pack(">IIBBBBB", len(row), len(row), depth, 2 if len(clear) == 3 else 0, 0, 0, 0)
    chunks = {
        b"IHDR": head,
        b"tRNS": struct.pack(f">{len(clear)}H", *clear),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in chunks.items())


@pytest.mark.parametrize(("depth", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)])
def test_the_transparent_value_of_a_png_is_white_at_every_depth(tmp_path, depth, channels):
    seen, clear = [0] * channels, [max(2**depth // 3, 1)] * channels
    (tmp_path / "a.png").write_bytes(png(depth, [seen] * 4 + [clear] * 4, clear))
    found = data._picture(tmp_path / "a.png", 8, channels)
    assert (found[..., 4:] == 255).all() and (found[..., :4] == 0).all()


def odd_exif(orientation: int) -> bytes:
    """Orientation and a width that is text, little endian."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack("<HHI4s", 0x0100, 2, 4, b"abc\0")
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_with_odd_exif_is_read_upright(tmp_path, orientation):
    from PIL import ImageOps

    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "good.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "odd.png", exif=odd_exif(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "good.png"))).transpose(2, 0, 1)
    for name in ("good.png", "odd.png"):
        assert np.array_equal(data._picture(tmp_path / name, 8, 3), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "packed.tif"])
def test_a_picture_of_any_format_is_turned_once(tmp_path, name, orientation):
    stored = np.repeat(np.repeat(np.arange(0, 240, 15, dtype=np.uint8).reshape(4, 4), 8, 0), 8, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    packed = {"compression": "tiff_lzw"} if name == "packed.tif" else {}
    how = {"a.jpg": {"quality": 100}, "a.webp": {"lossless": True}}.get(name, packed)
    Image.fromarray(stored).save(tmp_path / name, exif=exif, **how)
    # where row 0 and column 0 of what is stored are to be seen, as the EXIF standard numbers it
    upright = [stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1],
               stored.T, stored.T[:, ::-1], stored.T[::-1, ::-1], stored.T[::-1]]  # fmt: skip
    found = data._picture(tmp_path / name, 32, 1)[0]
    assert np.abs(found.astype(int) - upright[orientation - 1]).max() <= 2


def test_a_decoder_that_trips_leaves_out_its_file_alone(plain, monkeypatch):
    tree(plain, "a/0.png", "a/1.png")
    monkeypatch.setattr(data, "_eight_bits", lambda p: p if p.filename.endswith("0.png") else [][0])
    with pytest.warns(UserWarning, match="a/1.png"):
        assert len(data.load(f"folder:{plain}").images) == 1


@pytest.mark.parametrize(
    ("train", "test"), [("train", "val"), ("train", "Valid"), ("training", "testing"), ("Train", "Test"),
                        ("train", "validation"), ("train", "dev"), ("train", "development"), ("train", "holdout"),
                        ("train", "hold-out"), ("train", "eval"), ("Train", "Validation"), ("train_set", "test_set"),
                        ("training_data", "test_data"), ("trainset", "testset"), ("Training Images", "Test Images"),
                        ("train_dataset", "held_out_dataset"), ("train2017", "val2017"), ("seg_train", "seg_test"),
                        ("TrainData", "TestData"), ("ILSVRC2012_img_train", "ILSVRC2012_img_val")],
)  # fmt: skip
def test_splits_have_many_names(plain, train, test):
    tree(plain, *(f"{train}/{c}/{i}.png" for c in ("cat", "dog") for i in range(3)), f"{test}/dog/0.png")
    found = {split: data.load(f"folder:{plain}", split, size=8) for split in ("train", "test")}
    assert found["train"].class_names == data.folder_classes(plain) == ("cat", "dog")
    assert found["train"].labels.tolist() == [0, 0, 0, 1, 1, 1] and found["test"].labels.tolist() == [1]


def test_a_third_split_is_named_and_two_of_a_kind_are_refused(plain):
    tree(plain, "train/a/0.png", "val/a/1.png", "test/a/2.png")
    with pytest.warns(UserWarning, match="val/a/1.png"):
        assert len(data.load(f"folder:{plain}", "test", size=8).images) == 1
    (plain / "test").rename(plain / "validation")
    with pytest.raises(ValueError, match="val and validation"):
        data.load(f"folder:{plain}")


def test_what_lies_beside_splits_is_told_and_makes_no_classes_of_them(plain):
    tree(plain, "Train/a/0.png", "Train/b/0.png", "Test/a/1.png", "masks/a/0.png")
    (plain / "annotations").mkdir()
    (plain / "annotations" / "train.json").touch()
    with pytest.warns(UserWarning, match="2 files left out.*: annotations/train.json, masks/a/0.png"):
        assert data.load(f"folder:{plain}", size=8).class_names == ("a", "b")


@pytest.mark.parametrize("names", [("TRAIN", "TESTS"), ("trains", "tests"), ("trn", "tst")])
def test_splits_in_the_plural_and_in_short_are_splits(plain, names):
    tree(plain, *(f"{name}/{c}/0.png" for name in names for c in ("cat", "dog")))
    assert data.load(f"folder:{plain}", "test", size=8).class_names == ("cat", "dog")


@pytest.mark.parametrize("names", [("learn", "proof"), ("Prüfung", "Übung"), ("te", "tr"), ("cat", "dog", "fox")])
def test_folders_that_hold_the_same_folders_are_classes_with_a_word(plain, names):
    tree(plain, *(f"{name}/{inner}/0.png" for name in names for inner in ("a", "b")))
    with pytest.warns(UserWarning, match=f"{', '.join(names)} are taken as classes, and each holds a, b;"):
        assert data.load(f"folder:{plain}", size=8).class_names == names


def test_a_folder_around_splits_is_told(plain):
    tree(plain, *(f"data/{split}/{c}/0.png" for split in ("train", "test") for c in ("cat", "dog")))
    with pytest.raises(ValueError, match=r"data is all in it and holds splits \(train, test\); read .*/data$"):
        data.load(f"folder:{plain}", size=8)
    assert data.load(f"folder:{plain}/data", size=8).class_names == ("cat", "dog")


@pytest.mark.parametrize(("mode", "bits"), [("RGB", 12), ("LA", 12), ("I;16", 14)])
def test_pictures_of_fewer_bits_than_their_files_say_are_told(plain, mode, bits):
    brightest = round((2**bits - 1) // 63 * 63 / 2**16 * 255) if mode == "I;16" else 15
    levels = np.arange(64).reshape(8, 8) * ((2**bits - 1) // 63)
    for k in range(3):
        (plain / "a").mkdir(parents=True, exist_ok=True)
        if mode == "I;16":
            Image.fromarray(levels.astype(np.uint16)).save(plain / "a" / f"{k}.png")
        else:  # what PIL makes of a PNG of 16 bits in several channels: the upper eight
            eight = (levels >> 8).astype(np.uint8)
            bands = (eight,) * 3 if mode == "RGB" else (eight, np.full_like(eight, 255))
            Image.fromarray(np.stack(bands, 2), mode).save(plain / "a" / f"{k}.png")
    with pytest.warns(UserWarning, match=f"no pixel of 3 pictures is brighter than {brightest} of 255"):
        data.load(f"folder:{plain}", "train", size=8, channels=1)


@pytest.mark.parametrize(
    "names", [("bus", "car", "train"), ("invalid", "valid"), ("car", "test_tube", "train_station"),
              ("control", "test"), ("blue_train", "red_train"), ("data", "set"), ("testbed", "training_bras")],
)  # fmt: skip
def test_a_class_that_is_called_like_a_split_is_a_class(plain, names):
    tree(plain, *(f"{name}/0.png" for name in names))
    assert data.load(f"folder:{plain}").class_names == names


@pytest.mark.parametrize(
    ("names", "lacking"), [(("train",), "test on"), (("train", "training_set"), "test on"), (("test",), "train on"),
                           (("dev", "test"), "train on")],
)  # fmt: skip
def test_splits_of_which_one_is_missing_are_no_classes(plain, names, lacking):
    tree(plain, *(f"{name}/cat/0.png" for name in names))
    with pytest.raises(ValueError, match=rf"\({', '.join(names)}\) and none like one to {lacking};.*/{names[0]}\)"):
        data.load(f"folder:{plain}", size=8)
    assert data.load(f"folder:{plain / names[0]}", size=8).class_names == ("cat",)


def colours(root, *files, mode="RGB", colour=0):
    """Pictures that are one colour all over."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (9, 9), colour).save(root / file)


@pytest.mark.parametrize(
    ("mode", "colour", "name"),
    [("RGB", 0, "x.png"), ("L", 128, "x.jpg"), ("RGBA", (0, 255, 0, 0), "x.png"), ("I;16", 0, "x.png"),
     ("RGB", (9, 200, 30), "x.gif")],
)  # fmt: skip
def test_pictures_of_one_colour_are_told_by_count_and_name_where_they_are_more_than_a_few(plain, mode, colour, name):
    tree(plain, *(f"cat/{i}.png" for i in range(9)))
    (plain / "cat" / "0.txt").touch()  # so that names and pictures are not numbered alike
    colours(plain, f"cat/{name}", mode=mode, colour=colour)
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match=rf"plain: 1 of 10 pictures are one colour all over, such as cat/{name}; "):
            assert len(data.load(f"folder:{plain}", size=8).images) == 9


def test_a_few_pictures_of_one_colour_are_pictures_like_others(plain, recwarn):
    tree(plain, *(f"sea/{i:03d}.png" for i in range(199)))
    colours(plain, "sea/200.png", "sea/201.png", colour=(0, 0, 90))
    assert len(data.load(f"folder:{plain}", size=8).images) == 181 and "2 of 201" not in str(recwarn.list)
    colours(plain, "fog/0.png", colour=(200, 200, 200))
    with pytest.warns(UserWarning, match=r"3 of 202 pictures are .*, such as fog/0\.png \(all of fog\)"):
        data.load(f"folder:{plain}", size=8)


def test_a_folder_of_single_colours_alone_is_no_data_to_learn_from_but_a_test_split_of_them_is_told(plain):
    for i, split in enumerate(("train/cat", "train/dog", "test/cat")):
        colours(plain, *(f"{split}/{k}.png" for k in range(3)), colour=(i, 0, 0))
    with pytest.raises(ValueError, match=r"all over, such as train/cat/0\.png; there is nothing to learn from them"):
        data.load(f"folder:{plain}", size=8)
    with pytest.warns(UserWarning, match=r"3 of 3 pictures are one colour all over.*\(all of cat\)"):
        assert len(data.load(f"folder:{plain}", "test", size=8).images) == 3


def test_names_in_latin1_are_read_and_can_be_printed(plain):
    tree(plain, "a/0.png", "b/0.png")
    os.rename(plain / "a" / "0.png", os.fsencode(plain / "a") + b"/caf\xe9.png")
    os.rename(plain / "b", os.fsencode(plain) + b"/caf\xe9")
    (plain / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xe9.txt")).touch()
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning) as told:
            found = data.load(f"folder:{plain}", size=8)
        assert found.labels.tolist() == [0, 1] and all(name.isprintable() for name in found.class_names)
        str(told[0].message).encode()


def test_a_class_of_broken_files_is_none_and_its_files_are_named(plain):
    tree(plain, "a/0.png", "c/0.png")
    (plain / "b").mkdir()
    (plain / "b" / "x.png").touch()
    with pytest.warns(UserWarning, match="b/x.png"):
        found = data.load(f"folder:{plain}")
    assert found.class_names == data.folder_classes(plain) == ("a", "c") and found.labels.tolist() == [0, 1]


def test_links_are_followed_once_and_those_to_nothing_are_named(plain, tmp_path):
    tree(plain, "a/0.png")
    tree(tmp_path / "elsewhere", "1.png", "2.png")
    (plain / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (plain / "a" / "again").symlink_to(plain / "a")
    (plain / "a" / "gone.png").symlink_to(tmp_path / "gone.png")
    with pytest.warns(UserWarning, match="1 file left out.*gone.png"):
        assert len(data.load(f"folder:{plain}", size=8).images) == 3


def test_a_link_to_a_folder_above_brings_no_picture_of_another_class(plain):
    tree(plain, "a/0.png", "b/1.png", "b/2.png")
    (plain / "a" / "up").symlink_to(plain)
    assert data.load(f"folder:{plain}", size=8).labels.tolist() == [0, 1, 1]


def test_folders_beside_pictures_without_classes_are_named(plain):
    tree(plain, "train/0.png", "train/1.png", "test/2.png", "test/cat/3.png")
    with pytest.warns(UserWarning, match="1 file left out.*test/cat/3.png"):
        assert len(data.load(f"folder:{plain}", "test", size=8).images) == 1


@pytest.mark.parametrize("path", ["", "~nobody_of_this_name/pictures"])
def test_a_folder_that_nobody_has_is_missing_and_named(path):
    with pytest.raises(data.MissingData, match=f"image folder '{path}' does not exist"):
        data.load(f"folder:{path}")
    assert data.class_names("folder:~nobody_of_this_name") == ()
    assert data.lasting(f"folder:{path}").startswith("folder:/")


def test_a_cache_that_cannot_be_written_or_read_is_no_error(plain, tmp_path, monkeypatch):
    tree(plain, "a/0.png")
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="LAB_DATA"):
        assert len(data.load(f"folder:{plain}").images) == 1
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    data.load(f"folder:{plain}")
    kept = next((tmp_path / "cache" / "folders").iterdir())
    whole = kept.read_bytes()
    for content in (b"PK", b"", whole[:200], whole[:-30], whole.replace(b"\x93NUMPY", b"\x93mumpy")):
        kept.write_bytes(content)
        assert len(data.load(f"folder:{plain}").images) == 1
        assert kept.read_bytes() == whole  # and is kept again


@pytest.mark.parametrize(("told", "found"), [("", ".cache/edge-dit-lab"), ("~/x", "x")])
def test_a_cache_is_below_home_and_never_in_a_folder_called_tilde(monkeypatch, tmp_path, told, found):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LAB_DATA", told)
    assert data.cache_dir() == tmp_path / found
