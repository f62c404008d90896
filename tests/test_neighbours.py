"""What is kept beside each image of a sheet: distances to the teacher's image, and the nearest training images."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_STUDENT

from lab import data, diffusion, experiment, metrics, neighbours, perceptual, sheets, teachers
from lab.cli import OK, main
from lab.results import Run, Store, write_whole
from lab.sampling import draw
from lab.weights import spec_of_run


@pytest.fixture(scope="module")
def distilled_root(taught_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("neighbours") / "results"
    shutil.copytree(taught_root, root)
    store = Store(root)
    neighbours.ensure(experiment.run(TINY_STUDENT, store, measure=False), store)
    return root


@pytest.fixture
def store(distilled_root: Path, tmp_path: Path) -> Store:
    shutil.copytree(distilled_root, tmp_path / "copy")
    return Store(tmp_path / "copy")


@pytest.fixture
def run(store: Store) -> Run:
    return next(r for r in store.runs() if r.recipe.student.family == "dit")


def read(run: Run) -> sheets.Neighbours | None:
    sheet = sheets.read_samples(run.path / "samples.npz")
    return sheets.read_neighbours(run.path, sheet, run.read("student")["weights_sha256"])


def test_the_distance_is_that_to_the_teachers_image_of_the_same_noise_and_class(run, store):
    found, spec = read(run), spec_of_run(run)
    seeds = [0, 17, 63]
    teacher = teachers.load("tiny", store, solver=TINY_STUDENT.solver)
    theirs, _ = draw(teacher, seeds, y=torch.tensor([k % 10 for k in seeds]))
    mine = torch.from_numpy(sheets.read_samples(run.path / "samples.npz").images[seeds])
    expected = perceptual.load(spec)(diffusion.from_uint8(mine), diffusion.from_uint8(theirs))
    assert found.by == perceptual.name(spec) and len(found.to_teacher) == 64
    assert found.to_teacher[seeds] == pytest.approx(expected.numpy(), abs=1e-4)


def test_the_real_images_are_those_of_the_training_split_that_lie_nearest(run):
    found, train = read(run), data.load("digits", "train").images
    sheet = sheets.read_samples(run.path / "samples.npz").images
    assert np.array_equal(found.real.reshape(-1, 1, 8, 8), train.numpy()[found.index.flatten()])
    a, b = (metrics.extract(x, found.extractor) for x in (torch.from_numpy(sheet), train))
    every = torch.cdist(a, b)
    assert found.distance[:, 0] == pytest.approx(every.amin(1).numpy(), abs=1e-4)
    assert (np.diff(found.distance, axis=1) >= 0).all()
    assert f"{len(train):,} images" in found.reference


def test_a_training_image_lies_at_no_distance_from_itself(run, store):
    train = data.load("digits", "train").images[100:164].numpy()
    np.savez(run.path / "samples.npz", images=train, classes=np.arange(64) % 10, seeds=np.arange(64))
    neighbours.ensure(run, store, force=True)
    found = read(run)
    assert found.index[:, 0].tolist() == list(range(100, 164)) and found.distance[:, 0].max() < 1e-3
    assert found.usual > 0.01  # a real image that no training saw lies apart


def test_a_teacher_has_nearest_images_and_no_teacher(store):
    run = store.get("tiny")
    assert neighbours.ensure(run, store)["teacher"] is None
    assert read(run).to_teacher is None and read(run).real.shape == (64, neighbours.NEAREST, 1, 8, 8)


def test_they_are_made_once_and_again_for_other_weights_or_noises(run, store, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(neighbours, "_nearest", lambda *_: pytest.fail("made again"))
        assert neighbours.ensure(run, store) == run.read("neighbours")
    student = run.read("student")
    run.write("student", student | {"weights_sha256": "0" * 64})
    assert read(run) is None
    run.write("student", student)
    kept = sheets.read_samples(run.path / "samples.npz")
    np.savez(run.path / "samples.npz", images=kept.images, classes=kept.classes, seeds=kept.seeds + 64)
    assert read(run) is None


@pytest.mark.parametrize("broken", ["no json", "[]", '{"weights_sha256": 1}', "png"])
def test_what_can_not_be_read_counts_as_not_there(run, broken):
    if broken == "png":
        write_whole(run.path / "neighbours.png", b"cut off")
    else:
        write_whole(run.path / "neighbours.json", broken)
    assert read(run) is None


def test_distances_cut_short_count_as_not_there(run):
    facts = run.read("neighbours")
    facts["teacher"]["distance"].pop()
    run.write("neighbours", facts)
    assert read(run) is None


def test_a_run_without_a_sheet_says_what_draws_one(run, store):
    (run.path / "samples.npz").unlink()
    with pytest.raises(LookupError, match=f"python -m lab sample {run.id} --out"):
        neighbours.ensure(run, store)


def test_eval_makes_them_where_the_metrics_are_there_already(run, store, capsys):
    (run.path / "neighbours.json").unlink()
    args = ["eval", "--results", str(store.root), run.id, "--samples", "64", "--json"]
    assert main(args) == OK and read(run) is not None
    (run.path / "neighbours.json").unlink()
    assert main(args) == OK and read(run) is not None
    capsys.readouterr()


def test_a_measured_run_has_them(taught, monkeypatch):
    monkeypatch.setattr(metrics, "evaluate", functools.partial(metrics.evaluate, samples=64))
    assert read(experiment.run(TINY_STUDENT, taught)) is not None


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent.parent / "results" / "runs").glob("*")), ids=lambda p: p.name
)
def test_a_committed_run_has_those_of_its_sheet(path: Path):
    run = Run(path)
    if run.status().state != "done":
        pytest.skip(f"{run.id} is not finished")
    if not run.snapshots() or run.read("metrics") is None:
        pytest.skip(f"{run.id} serves statistics alone, or another run as its start")
    found = read(run)
    assert found is not None, f"python -m lab eval {run.id}"
    assert (found.to_teacher is None) == (run.recipe.teacher is None)
