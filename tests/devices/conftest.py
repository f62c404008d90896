"""A finished student without a training, and its packs unpacked."""

from __future__ import annotations

import gc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from lab import pack
from lab.config import DiTConfig, Recipe
from lab.data import ImageSpec
from lab.models.dit import DiT
from lab.results import Run, Store
from lab.weights import save_student

CONFIG = DiTConfig(image_size=8, patch=4, depth=2, width=16, heads=2)


def finished(root: Path, config: DiTConfig = CONFIG, **more: object) -> Run:
    """A run whose network has numbers in all of its layers, those that begin at zero among them."""
    torch.manual_seed(0)
    run = Store(root).open(Recipe(student=config, steps=0, **more))
    net = DiT(config).eval().requires_grad_(False)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.15)
    spec = ImageSpec(data="digits", size=config.image_size, channels=config.channels, num_classes=config.num_classes)
    save_student(run, net, spec)
    run.set_status(state="done")
    return run


@pytest.fixture(scope="module", autouse=True)
def imported_for_good() -> Iterator[None]:
    """A timing collects garbage before it begins: among what torch and pytest have loaded, it takes half a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(tmp_path_factory.mktemp("finished") / "results")


@pytest.fixture(scope="session")
def zips(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The packs of that run, by target."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("packs")
    return {target: pack.pack(finished_run, target, folder / f"{target}.zip").path for target in pack.TARGETS}


@pytest.fixture
def unpacked(zips: dict[str, Path], tmp_path: Path) -> Path:
    """The pack for a Jetson in a folder of its own."""
    with zipfile.ZipFile(zips["jetson"]) as archive:
        archive.extractall(tmp_path / "pack")
    return tmp_path / "pack"
