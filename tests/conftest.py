"""Tiny nets and a finished digits teacher that many tests share."""

from __future__ import annotations

import copy
import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lab import experiment
from lab.config import DiTConfig, NetConfig, Recipe, UNetConfig, Use, config_to_json
from lab.results import Store

DATA = Path(__file__).parent / "data"
TINY_UNET = UNetConfig(image_size=8, widths=(8, 16), attention=(), groups=4)
TINY_DIT = DiTConfig(image_size=8, patch=4, depth=2, width=16, heads=2)
TINY_TEACHER = Recipe(
    data="digits", student=TINY_UNET, methods=(Use("denoise"),), steps=6, batch=32, optimizer="adamw", lr=2e-3
)
TINY_STUDENT = Recipe(
    data="digits", teacher="tiny", pairs=300, solver="dpmpp2m-4", student=TINY_DIT, steps=12, batch=16,
    optimizer="muon", lr=5e-3, schedule="linear", warmup=100, clip=1.0, ema=0.998,
)  # fmt: skip


def student_facts(net: NetConfig, **changes: Any) -> dict[str, Any]:
    """What a run's student.json holds at least."""
    spec = {"data": "digits", "size": net.image_size, "channels": net.channels, "num_classes": net.num_classes,
            "class_names": []}  # fmt: skip
    return {"config": config_to_json(net), "spec": spec, "weights_sha256": "cd", "file_mb": 0.5} | changes


def artefact_facts(student: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What artefact.json holds of a file that was made of a student."""
    return {"runtime": "onnxruntime", "precision": "fp32", "weights_sha256": student["weights_sha256"], "files": {},
            "bytes": 9, "seconds": 1.0, "created_utc": "2026-11-20T10:00:00+00:00", "versions": {},
            "config": student["config"], "spec": student["spec"], "images": 64, "max_abs": 0.2, "mean_abs": 0.01,
            "perceptual": 0.003, "perceptual_by": "cnn"} | changes  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def modules_stay() -> None:
    """Collections of garbage, of which each timing asks for several, look no more through all that was imported."""
    gc.collect()
    gc.freeze()


FOOTPRINT = (321.5, "peak resident memory of a fresh process")


@pytest.fixture(autouse=True)
def no_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timings ask a process of its own for its memory, which takes seconds; tests/test_footprint.py tries that."""
    from lab import footprint

    monkeypatch.setattr(footprint, "peak", lambda *_, **__: FOOTPRINT)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture(scope="session")
def taught_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one tiny teacher called `tiny` and its first shard of pairs."""
    from lab import pairs

    torch.set_num_threads(1)
    store = Store(tmp_path_factory.mktemp("taught"))
    run = experiment.run(TINY_TEACHER, store, measure=False)
    store.name_teacher("tiny", run.id)
    pairs.ensure(store, pairs.pair_set(store, "tiny", TINY_STUDENT.solver), TINY_STUDENT.pairs)
    return store.root


@pytest.fixture
def taught(taught_root: Path, tmp_path: Path) -> Store:
    """A copy of it that a test may change."""
    import shutil

    shutil.copytree(taught_root, tmp_path / "taught")
    return Store(tmp_path / "taught")


def stop_at(monkeypatch: pytest.MonkeyPatch, *updates: int) -> None:
    """This process is asked to stop after these updates, counted over all trainings from here on."""
    from lab import train

    original, seen = train.update_ema, []

    def stopping(*args: Any) -> None:
        original(*args)
        seen.append(1)
        if len(seen) in updates:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train, "update_ema", stopping)


class CudaEvent:
    """An event of torch.cuda that tells half of the host's time, so that a report's two clocks can be told apart."""

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: object) -> None:
        self.at = time.perf_counter_ns()

    def synchronize(self) -> None:
        """Nothing: the CPU has done its work already."""

    def elapsed_time(self, end: CudaEvent) -> float:
        return (end.at - self.at) / 2e6


@pytest.fixture
def torch_cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a timing asks of torch.cuda, on a machine without it; gives what was asked."""
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "Event", CudaEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: asked.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: 2_500_000)
    return asked


def changed(report: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of a report with values at places such as timing__p50."""
    found = copy.deepcopy(report)
    for place, value in changes.items():
        *path, last = place.split("__")
        inner = found
        for name in path:
            inner = inner[name]
        inner[last] = value
    return found
