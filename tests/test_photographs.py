"""The whole way on photographs: CIFAR-10 as JPEG files through `folder:`, teacher, pairs, student, images."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch

from lab import data, experiment, pairs, sampling
from lab.config import DiTConfig, Recipe, UNetConfig, Use
from lab.diffusion import from_uint8
from lab.results import Store

# train/<class>/0000.jpg, test/<class>/0000.jpg; beside a checkout, or where LAB_CIFAR10_JPEG says
ZIP = Path(os.environ.get("LAB_CIFAR10_JPEG") or Path(__file__).parents[2] / "shared" / "data" / "cifar10-jpeg.zip")
TRAIN, TEST = 300, 50  # of each class
IMAGES = {"image_size": 32, "channels": 3, "num_classes": 10}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A part of the set, unpacked, as the name of a data set."""
    if not ZIP.is_file():
        pytest.skip("no CIFAR-10 as JPEG files: neither LAB_CIFAR10_JPEG nor ../shared/data/cifar10-jpeg.zip is there")
    folder = tmp_path_factory.mktemp("cifar10")
    with zipfile.ZipFile(ZIP) as packed:
        for name in packed.namelist():
            split, number = name.split("/")[0], Path(name).stem
            if name.endswith(".jpg") and int(number) < (TRAIN if split == "train" else TEST):
                packed.extract(name, folder)
    return f"folder:{folder}"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.slow
def test_a_folder_of_jpeg_files_is_cifar10(photographs: str, recwarn: pytest.WarningsRecorder) -> None:
    train, test = (data.load(photographs, split) for split in ("train", "test"))
    assert train.class_names == test.class_names == data.CIFAR_CLASSES
    assert train.images.shape == (10 * TRAIN, 3, 32, 32) and test.images.shape == (10 * TEST, 3, 32, 32)
    assert train.labels.bincount().tolist() == [TRAIN] * 10 and not train.skipped and not recwarn.list
    # of the published set: mean 0.491, 0.482, 0.447 of 1 in red, green, blue
    mean = train.images.double().mean((0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx([0.491, 0.482, 0.447], abs=0.02)
    assert data.spec_of(photographs, train).sigma_data == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_photographs_go_through_teacher_pairs_and_student_with_the_default_loss(
    photographs: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))  # no LPIPS, whatever lies on this machine
    monkeypatch.setattr(pairs, "SHARD", 512)
    unet = UNetConfig(**IMAGES, widths=(8, 16), attention=(), groups=4)
    how = {"batch": 16, "warmup": 0, "ema": 0.9}
    teacher = experiment.run(Recipe(data=photographs, student=unet, methods=(Use("denoise"),), steps=40,
                                    optimizer="adamw", lr=1e-2, **how), store, measure=False)  # fmt: skip
    store.name_teacher("photographs", teacher.id)
    dit = DiTConfig(**IMAGES, patch=4, depth=2, width=32, heads=2)
    run = experiment.run(Recipe(data=photographs, teacher="photographs", pairs=512, solver="dpmpp2m-4", student=dit,
                                steps=60, **how), store, measure=False)  # fmt: skip
    reader = pairs.Reader(pairs.Pairs(store.root, pairs.pair_set(store, "photographs", "dpmpp2m-4")), 512,
                          shape=(3, 32, 32), num_classes=10)  # fmt: skip
    target = next(reader.stream(batch=256, seed=0)).image
    images = sampling.load(run.id, store).sample(range(20))
    assert run.log_rows()[-1]["pairs/l1"] < 0.8 * target.abs().mean() and run.log_rows()[-1]["pairs/perceptual"] > 0
    assert images.shape == (20, 3, 32, 32) and from_uint8(images).std() > 0.05
    assert run.read("env")["sittings"][0]["perceptual"].endswith("-borrowed")
