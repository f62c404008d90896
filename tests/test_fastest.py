"""The runtime that draws: the fastest that is here, and never one with other images."""

from __future__ import annotations

import functools
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_STUDENT

from lab import artefacts, bench, diffusion, experiment, fastest, runtimes
from lab.devices.runner import Preset
from lab.results import Run, Store, reports_of
from lab.runtimes.base import TorchSession
from lab.runtimes.eager import Eager

NONE = reports_of([])
BRIEF = Preset(iters=3, seconds=0.0, warmup_iters=1, warmup_s=0.0, warmup_cap_s=0.01)


@pytest.fixture(scope="module")
def trained(taught_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("fastest") / "results"
    shutil.copytree(taught_root, root)
    store = Store(root)
    experiment.run(TINY_STUDENT, store, measure=False).set_notes(label="student")
    return store


@pytest.fixture
def student(trained: Store) -> Run:
    return trained.get("student")


class Wrong(TorchSession):
    """As fast as can be: every image is a constant."""

    def run(self, inputs: tuple[torch.Tensor, torch.Tensor | None]) -> torch.Tensor:
        return torch.full_like(inputs[0], 0.5)


class Quick(Eager):
    name = "quick"

    def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "fp32",
             solver: str = "dpmpp2m-8") -> TorchSession:  # fmt: skip
        return Wrong(path, device=device, threads=threads, precision=precision, solver=solver)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab with eager, and a quick one that draws something else."""
    monkeypatch.setattr(fastest, "RUNTIMES", {"eager": Eager(), "quick": Quick()})
    monkeypatch.setitem(runtimes.RUNTIMES, "quick", Quick())


@functools.cache
def measured(path: Path, batch: int) -> dict[str, Any]:
    """A report of a run, which is then in no store."""
    store = Store(path.parents[1])
    report = bench.measure(Run(path), store, threads=1, batch=batch, preset=BRIEF)
    (store.root / "devices" / f"{report['report_id']}.json").unlink()
    return report


def timed(run: Run, store: Store, runtime: str, *, ms: float, batch: int = 1, **state: object) -> None:
    """A report of this machine that says so many milliseconds."""
    report = measured(run.path, batch)
    timing = report["timing"] | {"p50": ms, "p50_ci95": [ms, ms], "p90": ms, "p99": ms, "min": ms, "mean": ms,
                                 "std": 0.0, "iqr": 0.0, "cv": 0.0, "samples_ns": None,
                                 "duration_s": ms / 1000 * report["timing"]["iters"]}  # fmt: skip
    store.add_report(report | {"report_id": f"{runtime}-{ms}-{batch}".replace(".", "_") + "-report", "timing": timing,
                               "software": report["software"] | {"runtime": runtime},
                               "state": report["state"] | {"swap_mb": 0.0, "throttled": False} | state})  # fmt: skip


# --- the fastest ---


def test_a_trial_of_a_moment_finds_one_whose_images_are_the_networks_own(student: Run) -> None:
    found = fastest.fastest(student, NONE, threads=1)
    assert found.right and found.off < 1e-5 and found.precision == "fp32" and found.runtime != "compiled"
    z, _ = diffusion.noise_of(range(5), (1, 8, 8), 0)
    expected = artefacts.reference(student, z.numpy(), np.arange(5))
    np.testing.assert_allclose(found.images(range(5)), expected, atol=1e-5)
    assert found.sample(range(5), y=3).dtype == np.uint8 and found.sample([7], y=[2]).shape == (1, 1, 8, 8)
    here = sum(not r.missing() and "fp32" in r.precisions for n, r in runtimes.RUNTIMES.items() if n != "compiled")
    assert (f"fastest of {here} tried just now" if here > 1 else "the only one here") in found.said


def test_an_image_depends_on_its_seed_alone(student: Run) -> None:
    found = fastest.named(student, "eager", threads=1)
    many, one = found.sample(range(8), y=4), found.sample([5], y=4)
    np.testing.assert_array_equal(many[5:6], one)


def test_reports_of_this_machine_decide_without_a_trial(
    student: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [n for n, r in runtimes.RUNTIMES.items() if not r.missing() and n != "compiled" and "fp32" in r.precisions]
    for k, name in enumerate(here):
        timed(student, store, name, ms=2.0 + k)
    monkeypatch.setattr(fastest, "_tried", None)
    found = fastest.fastest(student, store.reports(), threads=1)
    assert found.runtime == here[0] and f"fastest of {len(here)} timed here, 2.00 ms" in found.said


def test_the_report_of_the_nearest_batch_counts(
    student: Run, store: Store, monkeypatch: pytest.MonkeyPatch, two: None
) -> None:
    monkeypatch.setattr(Quick, "open", Eager.open)
    for batch, eager, quick in [(1, 1.0, 2.0), (16, 9.0, 4.0)]:
        timed(student, store, "eager", ms=eager, batch=batch)
        timed(student, store, "packed", ms=quick, batch=batch)
    reports = store.reports().replace({"software.runtime": {"packed": "quick"}})
    assert [fastest.fastest(student, reports, threads=1, batch=b).runtime for b in (1, 2, 64)] == [
        "eager", "eager", "quick"]  # fmt: skip


def test_a_report_that_throttled_or_of_other_threads_decides_nothing(
    student: Run, store: Store, two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for runtime in ("eager", "packed"):
        timed(student, store, runtime, ms=1.0, throttled=True)
        timed(student, store, runtime, ms=2.0, threads=7)
    reports = store.reports().replace({"software.runtime": {"packed": "quick"}})
    assert fastest._timed(reports, student.read("student")["weights_sha256"], "cpu", 1, 1,
                          [("eager", "fp32"), ("quick", "fp32")]) == {}  # fmt: skip


def test_one_that_draws_other_images_is_never_taken_however_fast(student: Run, store: Store, two: None) -> None:
    found = fastest.fastest(student, NONE, threads=1)
    assert found.runtime == "eager" and found.right
    timed(student, store, "eager", ms=5.0)
    timed(student, store, "packed", ms=0.001)
    reports = store.reports().replace({"software.runtime": {"packed": "quick"}})
    found = fastest.fastest(student, reports, threads=1)
    assert found.runtime == "eager"
    (why,) = found.passed_over
    assert why.startswith("quick fp32 draws other images than the network")


def test_one_that_breaks_is_passed_over_in_a_sentence(student: Run, two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel for this\nand a trace")

    monkeypatch.setattr(Quick, "open", broken)
    found = fastest.fastest(student, NONE, threads=1)
    assert found.runtime == "eager" and found.passed_over == ("quick fp32 does not work here: no kernel for this",)


def test_without_packages_eager_is_the_only_one(student: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    found = fastest.fastest(student, NONE, threads=1)
    assert found.runtime == "eager" and "the only one here for such a network" in found.said


def test_a_denoiser_is_drawn_by_eager_with_its_recipes_solver(trained: Store) -> None:
    run = trained.get("tiny")
    found = fastest.fastest(run, NONE, threads=1)
    assert found.form == "eager fp32" and found.right and found.session.evaluations == 8


def test_broken_weights_are_drawn_and_said_to_be_wrong(trained: Store, tmp_path: Path) -> None:
    from lab.weights import load_student, save_student, spec_of_run

    shutil.copytree(trained.root, tmp_path / "copy")
    run = Store(tmp_path / "copy").get("student")
    net = load_student(run)
    for weights in net.parameters():  # finite, but not what they make
        weights.data.fill_(6e4)
    save_student(run, net, spec_of_run(run))
    found = fastest.fastest(run, NONE, threads=1)
    assert not found.right and "not finite" in found.said and found.runtime == "eager"


def test_changed_weights_are_refused(trained: Store, tmp_path: Path) -> None:
    shutil.copytree(trained.root, tmp_path / "copy")
    run = Store(tmp_path / "copy").get("student")
    run.write("student", run.read("student") | {"weights_sha256": "0" * 64})
    for draw in (lambda: fastest.fastest(run, NONE, threads=1), lambda: fastest.named(run, "eager")):
        with pytest.raises(ValueError, match="does not have the sha256"):
            draw()


# --- one that was named ---


def test_a_named_one_is_compared_and_not_refused(student: Run, two: None) -> None:
    found = fastest.named(student, "quick", threads=1)
    assert not found.right and "wrong" in found.said


@pytest.mark.parametrize(
    ("which", "options", "error", "words"),
    [
        ("student", ("eagre",), ValueError, "unknown runtime 'eagre'"),
        ("student", ("eager", "int9"), ValueError, "unknown precision"),
        ("tiny", ("onnxruntime", "int8-static"), ValueError, r"runtime onnxruntime can't run .*int8-static"),
    ],
)
def test_what_can_not_be_is_a_sentence(
    trained: Store, which: str, options: tuple[str, ...], error: type[Exception], words: str
) -> None:
    if "onnxruntime" in options:
        pytest.importorskip("onnxruntime")
    with pytest.raises(error, match=words):
        fastest.named(trained.get(which), *options)


def test_a_missing_package_is_one_sentence(student: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(LookupError, match=r"^runtime openvino needs onnx .*; pip install onnx openvino onnxscript$"):
        fastest.named(student, "openvino")


def test_a_run_without_weights_is_a_sentence(store: Store) -> None:
    run = store.open(TINY_STUDENT)
    with pytest.raises(LookupError, match="no finished network yet"):
        fastest.fastest(run, NONE)
