"""What `lab doctor` says of a machine on which the lab can't run: every row, with the mend."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lab import doctor, experiment, results

ROOT = Path(__file__).parent.parent
ROWS = ["python", "torch", "pandas", "torchvision", "device", "compiler", "memory", "lpips weights",
        "inception weights", "results", "disk", "edge runtimes"]  # fmt: skip
MISSING = 'raise ModuleNotFoundError("No module named {0!r}", name={0!r})'
LIBRARY = "libcudart.so.12: cannot open shared object file"
IN_TWO_LINES = "numpy.dtype size changed, may indicate binary incompatibility\\nand much advice"


def without(folder: Path, package: str, code: str, *call: str) -> subprocess.CompletedProcess:
    """Run Python where the package of that name does nothing but this."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(code.format(package) + "\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "LAB_RESULTS": str(folder / "none")}
    return subprocess.run([sys.executable, *call], env=env, capture_output=True, text=True)


@pytest.mark.parametrize(("code", "words", "mend"), [
    (MISSING, "torch can't be imported: No module named 'torch'", doctor.INSTALL),
    (f"raise OSError({LIBRARY!r})", f"torch can't be imported: {LIBRARY}", doctor.ONE_BUILD),
])  # fmt: skip
def test_without_torch_every_row_is_told_with_the_mend(tmp_path: Path, code: str, words: str, mend: str) -> None:
    done = without(tmp_path, "torch", code, "-m", "lab", "doctor", "--json")
    found = {row["check"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 1 and set(ROWS) <= set(found), done.stderr
    assert (found["device"]["state"], found["device"]["found"], found["device"]["mend"]) == ("wrong", words, mend)
    assert found["data sets"]["mend"] == found["lpips weights"]["mend"] == found["torchvision"]["mend"] == mend
    assert found["results"]["state"] == "fine" and found["disk"]["state"] in ("fine", "note")


@pytest.mark.parametrize(("code", "words"), [
    (MISSING, "No module named 'pandas'"),
    (f'raise ValueError("{IN_TWO_LINES}")', "numpy.dtype size changed, may indicate binary incompatibility"),
])  # fmt: skip
def test_without_pandas_the_results_alone_can_not_be_read(tmp_path: Path, code: str, words: str) -> None:
    done = without(tmp_path, "pandas", code, "-m", "lab", "doctor", "--json")
    assert done.returncode == 1, done.stderr
    found = {row["check"]: row for row in json.loads(done.stdout)}
    assert set(ROWS) <= set(found) and found["device"]["state"] == "fine"
    assert found["results"]["state"] == "wrong" and found["results"]["mend"] == doctor.INSTALL
    assert found["results"]["found"] == f"{tmp_path / 'none'} can't be read: {words}"


def test_the_results_folder_is_that_of_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("", str(tmp_path)):
        monkeypatch.setenv("LAB_RESULTS", folder)
        assert doctor._root(None) == results.default_root()
    assert doctor._root(results.Store(tmp_path)) == doctor._root(tmp_path) == doctor._root(str(tmp_path)) == tmp_path


def test_a_file_in_the_place_of_the_results_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "runs.json").write_text("{}")
    (row,) = [row for row in doctor.examine(tmp_path / "runs.json") if row.check == "results"]
    assert (row.state, row.found) == ("wrong", f"{tmp_path / 'runs.json'} is a file")


def test_a_bare_python_has_all_rows(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"LAB_RESULTS": str(tmp_path)}
    done = subprocess.run([sys.executable, "-S", "-m", "lab", "doctor", "--json"], env=env, cwd=ROOT,
                          capture_output=True, text=True)  # fmt: skip
    found = {row["check"]: row for row in json.loads(done.stdout or "[]")}
    assert done.returncode == 1 and {"python", "tqdm", "locks", "disk"} <= set(found), done.stderr
    assert (found["tqdm"]["state"], found["tqdm"]["found"]) == ("wrong", "not installed")
    for command in ("ls", "run"):  # what needs more says so
        done = subprocess.run([sys.executable, "-S", "-m", "lab", command], env=env, cwd=ROOT, capture_output=True,
                              text=True)  # fmt: skip
        assert done.returncode == 1 and "needs the package " in done.stderr and "requirements.txt" in done.stderr


def test_what_a_system_without_locks_cannot_do_is_said(tmp_path: Path, monkeypatch) -> None:
    assert doctor._locks(tmp_path).state == "fine"
    monkeypatch.setattr(doctor.locks, "fcntl", None)
    found = doctor._locks(tmp_path / "not" / "there")
    assert (found.state, "fcntl" in found.found) == ("note", True) and found.mend


@pytest.mark.parametrize(("mb", "said"), [(1, "unknown"), (3000, "3.1 GB"), (16_000, "16.8 GB")])
def test_the_memory_of_a_machine_is_read_in_one_place(monkeypatch: pytest.MonkeyPatch, mb: int, said: str) -> None:
    monkeypatch.setattr(doctor.HERE, "memory_mb", lambda: mb)
    assert experiment._memory(torch.device("cpu")) == (math.inf if mb == 1 else mb * 2**20)
    assert doctor._memory().found == said
