"""What every runtime must do, whichever file it stands in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lab import diffusion, experiment, runtimes
from lab.results import Run, Store
from lab.runtimes import Session
from lab.teachers import EdmTeacher
from lab.weights import load_student, spec_of_run
from tests.conftest import TINY_STUDENT

BATCH = 4
# Compiling takes 10 s and more for each network and batch.
EVERY = [pytest.param(name, marks=pytest.mark.slow) if name == "compiled" else name for name in runtimes.names()]


@pytest.fixture(scope="module")
def runs(taught_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A one-step student, an unconditional one and a denoiser."""
    import shutil

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("runtimes") / "results"
    shutil.copytree(taught_root, root)
    store = Store(root)
    unconditional = TINY_STUDENT.with_(student__num_classes=0)
    return {
        "student": experiment.run(TINY_STUDENT, store, measure=False),
        "unconditional": experiment.run(unconditional, store, measure=False),
        "denoiser": store.get("tiny"),
    }


def opened(name: str, run: Run, **options: object) -> Session:
    try:
        runtime = runtimes.get(name)
    except LookupError as why:
        pytest.skip(str(why))
    path = runtime.export(load_student(run), spec_of_run(run), run.path)
    return runtime.open(path, **options)


def inputs(run: Run, batch: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    z, _ = diffusion.noise_of(range(batch), spec_of_run(run).shape, 0)
    return z.numpy(), np.arange(batch) % 10


@pytest.fixture(scope="module", params=EVERY)
def session(request: pytest.FixtureRequest, runs: dict[str, Run]) -> Session:
    return opened(request.param, runs["student"], threads=1)


def test_its_images_are_those_of_the_network(session: Session, runs: dict[str, Run]) -> None:
    z, y = inputs(runs["student"])
    with torch.inference_mode():
        expected = load_student(runs["student"])(torch.from_numpy(z), None, torch.from_numpy(y)).numpy()
    found = session(z, y)
    assert found.dtype == np.float32 and found.shape == z.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_image_does_not_depend_on_the_batch_around_it(session: Session, runs: dict[str, Run]) -> None:
    z, y = inputs(runs["student"], 64)
    whole = session(z, y)
    for part in (1, 4):
        np.testing.assert_allclose(session(z[:part], y[:part]), whole[:part], atol=1e-5)


def test_the_parts_give_what_the_whole_gives(session: Session, runs: dict[str, Run]) -> None:
    z, y = inputs(runs["student"])
    with session:
        placed = session.place(z, y)
        session.build(placed)
        found = session.fetch(session.run(placed))
    np.testing.assert_array_equal(found, session(z, y))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z, y: (z[:, :, :-1], y), r"noise must be \(B, 1, 8, 8\), got \(4, 1, 7, 8\)"),
        (lambda z, y: (z[0], y), r"noise must be \(B, 1, 8, 8\), got \(1, 8, 8\)"),
        (lambda z, y: (z[:0], y[:0]), r"noise must be .* got \(0, 1, 8, 8\)"),
        (lambda z, y: (z, y + 8), r"class 10 is out of range; this network has classes 0 to 9"),
        (lambda z, y: (z, y - 1), r"class -1 is out of range"),
        (lambda z, y: (z, y[:2]), r"classes must be 4 whole numbers, one for every image, got int64 \(2,\)"),
        (lambda z, y: (z, y / 2), r"classes must be 4 whole numbers"),
        (lambda z, y: (z, None), r"wants a class for every image, 0 to 9"),
    ],
)
def test_wrong_inputs_are_refused_in_a_sentence(
    session: Session, runs: dict[str, Run], change: Callable[..., tuple], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        session(*change(*inputs(runs["student"])))


def test_threads_are_pinned_while_it_works_and_given_back(session: Session) -> None:
    torch.set_num_threads(2)
    with session:
        assert session.threads == 1 and torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", EVERY)
def test_an_unconditional_network_takes_no_class(name: str, runs: dict[str, Run]) -> None:
    session = opened(name, runs["unconditional"])
    z, y = inputs(runs["unconditional"])
    assert session(z).shape == z.shape
    with pytest.raises(ValueError, match="unconditional"):
        session(z, y)


@pytest.mark.parametrize("name", EVERY)
def test_a_denoisers_session_is_its_whole_sampler(name: str, runs: dict[str, Run]) -> None:
    run = runs["denoiser"]
    session = opened(name, run, solver="heun-3")
    z, y = inputs(run)
    teacher = EdmTeacher(load_student(run), spec_of_run(run), name="", solver="heun-3", dtype="float32")
    assert session.evaluations == 5
    np.testing.assert_allclose(
        session(z, y), teacher.sample(torch.from_numpy(z), torch.from_numpy(y)).images, atol=1e-3
    )


@pytest.mark.parametrize("name", EVERY)
def test_an_unknown_precision_is_refused(name: str, runs: dict[str, Run]) -> None:
    with pytest.raises(ValueError, match=r"unknown precision .* 'fp7'"):
        opened(name, runs["student"], precision="fp7")


def test_bf16_is_near_fp32_and_not_the_same(runs: dict[str, Run]) -> None:
    z, y = inputs(runs["student"])
    exact, coarse = (opened("eager", runs["student"], precision=p)(z, y) for p in ("fp32", "bf16"))
    assert 0 < np.abs(exact - coarse).max() < 0.1


def test_an_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown runtime 'eagre'; did you mean 'eager'\? Known: .*compiled, eager"):
        runtimes.get("eagre")


def test_a_runtime_that_is_not_here_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LookupError, match=r"^runtime compiled needs a C\+\+ compiler"):
        runtimes.get("compiled")


def test_every_file_of_the_folder_is_a_runtime_of_its_name() -> None:
    folder = Path(runtimes.__file__).parent
    files = {f.stem for f in folder.glob("*.py")} - {"__init__", "base"}
    assert set(runtimes.names()) == files
