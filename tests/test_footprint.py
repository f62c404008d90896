from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY_STUDENT

from lab import experiment, runtimes
from lab.footprint import peak  # as it is, before conftest puts a stand-in there
from lab.results import Run, Store

HOW = dict(batch=2, threads=1, precision="fp32")


@pytest.fixture
def student(taught: Store) -> Run:
    return experiment.run(TINY_STUDENT, taught, measure=False)


def test_torch_and_the_lab_are_part_of_what_runs_a_run_s_own_weights(student: Run) -> None:
    eager = runtimes.get("eager")
    mb, said = peak(eager, eager.export(student), **HOW)
    assert (
        100 < mb < 2000 and said == "peak resident memory of a fresh process with torch and the lab that draws 3 times"
    )


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_file_s_runtime_is_alone_in_its_process(name: str, student: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    runtime = runtimes.get(name)
    folder = runtime.export(student)
    whole = type(runtime).ALONE
    monkeypatch.setattr(type(runtime), "ALONE", f"{whole}assert not {{'torch', 'lab'}} & set(sys.modules)\n")
    mb, said = peak(runtime, folder, **HOW)
    assert 10 < mb < 400 and said.startswith(f"peak resident memory of a fresh process with {name} alone")
    # What was allocated in it counts, and nothing of the process that starts it.
    held = bytearray(600_000_000)
    monkeypatch.setattr(type(runtime), "ALONE", f"{whole}held = bytearray(b'x') * 200_000_000\n")
    more, _ = peak(runtime, folder, **HOW)
    assert len(held) and mb + 150 < more < mb + 250


def test_a_process_that_fails_is_told_and_no_figure_is_made_up(tmp_path: Path) -> None:
    mb, said = peak(runtimes.get("eager"), tmp_path, **HOW)
    assert mb is None and said.startswith(
        "not told: a fresh process with torch and the lab that draws 3 times failed: "
    )
