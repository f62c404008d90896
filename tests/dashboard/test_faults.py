"""One wrong value in one file of the results folder: its run, report or artefact can't be read, and all else stands.

Every leaf of every kind of file is changed once in each way of CHANGES, and every table built. A change that the
schema refuses makes its file unreadable, which is one path for all. One that it lets pass is shown on every page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from dashboard.conftest import add_neighbours, make_store, report
from streamlit.testing.v1 import AppTest

from lab import choose
from lab.config import JSON
from lab.devices.predict import cards
from lab.results import Run, Store, read_json, write_json

APP = Path(__file__).parents[2] / "app.py"
# Each with what its address says.
PAGES: tuple[tuple[str, dict[str, str]], ...] = (
    *((name, {}) for name in ("choose", "gallery", "tradeoff", "devices", "runs", "export", "try_it")),
    *(("devices", {"devices": view, "every_device": "true"}) for view in ("Precisions", "Size", "Other devices")),
)
OUT = object()  # the leaf is left out
CHANGES: tuple[Any, ...] = ("x", [], {}, None, math.inf, OUT, 0, -1, 10**400)
# Of a run's folder, and of the folder of results. In each name {} is the run.
OF_RUN = (
    "recipe",
    "status",
    "notes",
    "student",
    "cost",
    "metrics",
    "metrics-x",
    "env",
    "neighbours",
    "export/onnxruntime-fp32/artefact",
)
OF_STORE = ("devices/{}", "devices/blocks/{}", "devices/cards/{}", "pairs/{}/pairs", "sweeps/{}")
FILES = (*(f"runs/{{}}/{name}.json" for name in OF_RUN), *(f"{name}.json" for name in OF_STORE))


BROKEN = "runs/broken-d4w64h4p4-pairs-00000000/recipe.json"  # of make_store
MANY = 120  # students of a store, all but two of them with a fault: a page is opened for so many faults at once


class Fault(NamedTuple):
    file: str  # one of FILES
    place: tuple[str | int, ...]  # keys and places in lists on the way to the leaf
    value: Any

    def apply(self, root: Path, name: str) -> None:
        """Change the file of a run (or of one of another name) in place."""
        path = root / self.file.format(name)
        plain = read_json(path)
        inner = plain
        for key in self.place[:-1]:
            inner = inner[key]
        if self.value is OUT:
            del inner[self.place[-1]]
        else:
            inner[self.place[-1]] = self.value
        path.write_text(json.dumps(plain))


def leaves(value: JSON, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Places of all that holds nothing else, and of what does: of long lists the first two."""
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:2] if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, (*place, key))


def faults_of(store: Store, file: str, name: str) -> list[Fault]:
    """Every change of every leaf of a file, and keys that are called as columns of the tables are."""
    plain = read_json(store.root / file.format(name))
    found = [Fault(file, place, value) for place in leaves(plain) for value in CHANGES]
    if file != "runs/{}/recipe.json":
        found += [Fault(file, (key,), ["x"]) for key in ("run", "state", "label", "name", "grade")]
    if "metrics" in file:
        value = {"value": 1.0, "reference": "x", "ci95": [0.5, 2.0]}
        found += [Fault(file, ("values", key), value) for key in ("run", "state", "label", "data", "pin")]
    return found


def everything(path: Path, students: int) -> tuple[Store, list[Run]]:
    """A store whose students have every kind of file."""
    store = make_store(path, students=students)
    for file in (store.root / "devices").glob("*.json"):
        file.unlink()
    runs = [run for run in store.runs() if (run.read("student") or {}).get("config", {}).get("family") == "dit"]
    for run in runs:
        (run.path / "student.safetensors").touch()  # it is offered; what draws it is not asked
        add_neighbours(run, [0.1 * k for k in range(64)], [0.2 * k for k in range(64)])
        run.write("metrics-x", run.read("metrics"))
        run.set_notes(notes="as it was", pin=run is runs[0])
        add(store, run)
    return store, runs


def add(store: Store, run: Run) -> None:
    """What else than its own folder's files is of a run, and a file that was made of it."""
    student, timing = run.read("student"), report(run, ms=0.4 + len(run.id) % 7 / 10, runtime="onnxruntime")
    write_json(store.root / "devices" / f"{run.id}.json", timing | {"report_id": run.id[-60:]})
    (store.root / "devices" / f"{run.id}.json").rename(store.root / "devices" / f"{run.id[-60:]}.json")
    write_json(run.path / "export" / "onnxruntime-fp32" / "artefact.json", {
        "format": 1, "run": run.id, "runtime": "onnxruntime", "precision": "fp32",
        "weights_sha256": student["weights_sha256"], "files": {"model.onnx": {"sha256": "0" * 64, "bytes": 9}},
        "bytes": 9, "seconds": 1.0, "created_utc": "2026-11-20T10:00:00+00:00", "versions": {"onnx": "1"},
        "config": student["config"], "spec": student["spec"], "opset": {"ai.onnx": 18}, "int8_macs": 0.5, "images": 64,
        "max_abs": 1e-6, "mean_abs": 1e-7, "perceptual": 1e-8, "perceptual_by": "x",
    })  # fmt: skip
    write_json(store.root / "devices" / "blocks" / f"{run.id[-60:]}.json", {
        "schema": "device_blocks.v1", "created_utc": "2026-11-20T10:00:00+00:00", "device": {"family": "x86_cpu",
        "name": "test bench CPU"}, "software": {"runtime": "eager", "runtime_version": "2"}, "state": {"threads": 2},
        "model": {"model_id": run.id, "config": student["config"], "weights_sha256": student["weights_sha256"],
                  "precision": "fp32"},
        "workload": {"scope": "core", "batch": 1, "nfe": 1}, "calls": 9, "whole_ms": 1.0, "of_roofline": 0.5,
        "card": {}, "parts": [{"part": "block 0 mlp", "ms": 1.0, "share": 1.0, "flops": 9.0, "bytes": 9.0,
                               "of_peak": 0.1, "of_bandwidth": 0.1, "roofline_ms": 0.5, "limit": "launch"}],
    })  # fmt: skip
    card = {
        "name": "test bench CPU",
        "family": "x86_cpu",
        "memory_mb": 8000,
        "peak": {"fp32": 50.0},
        "bandwidth": 10.0,
        "launch_us": 2.0,
        "sources": {"peak.fp32": "x", "bandwidth": "x", "launch_us": "x"},
    }
    write_json(store.root / "devices" / "cards" / f"{run.id[-60:]}.json", card)
    write_json(store.root / "pairs" / run.id[-60:] / "pairs.json", {
        "what": {"teacher": "x", "teacher_sha256": "0", "solver": "heun-8", "dtype": "float32", "keep": 0,
                 "first_seed": 0, "classes": None},
        "shards": {"0000": {"sha256": "0", "made": "2026", "environment": {"torch": "2"}}},
        "environment": {"torch": "2"},
    })  # fmt: skip
    write_json(store.root / "sweeps" / f"{run.id[-60:]}.json", {
        "name": "x", "asked": [{"label": "x", "recipe": {}}],
        "runs": [{"run": run.id, "state": "queued", "stages": [run.id], "at": {"seed": 1}, "why": "x"}],
    })  # fmt: skip


def name_in(file: str, run: Run) -> str:
    """What a file of FILES is called for a run: ids of reports are shorter than those of runs may be."""
    return run.id if file.startswith("runs/") else run.id[-60:]


def makes_unreadable(file: str) -> bool:
    """Whether a fault of a file is one of the whole run."""
    return file.startswith("runs/") and not any(word in file for word in ("env", "neighbours", "metrics-", "export"))


def refused(store: Store, fault: Fault, run: Run) -> bool:
    """Apply one fault, see what is named and whether the run can be read, and take it back."""
    place = fault.file.format(name_in(fault.file, run))
    kept = (store.root / place).read_text()
    fault.apply(store.root, name_in(fault.file, run))
    named = store.faults()
    of_others = {name for name, wrong in named.items() if "of other weights" in wrong}
    assert of_others <= {f"runs/{run.id}/{name}.json" for name in ("metrics", "metrics-x")}, (fault, named)
    assert not of_others or fault.place == ("weights_sha256",), (fault, named)
    assert set(named) - of_others <= {BROKEN, place}, (fault, named)
    unreadable = place in set(named) - of_others and makes_unreadable(fault.file)
    assert (run.fault() or "").endswith(named[place]) if unreadable else run.fault() is None, fault
    (store.root / place).write_text(kept)
    return place in named


def tables(store: Store) -> None:
    """Every table of a store, and the recommendation that rests on them."""
    table, reports = store.table(), store.reports()
    store.blocks(), store.sweeps(), cards(store.root), [run.label for run in store.runs()]
    choose.recommend(table, reports, choose.Budget(params_m=1.0))


@pytest.mark.timeout(900)
def test_any_wrong_value_ends_one_file_and_no_table_and_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, runs = everything(tmp_path / "one", 2)
    assert set(store.faults()) == {BROKEN}
    passed, told = [], {}
    for file in FILES:
        for fault in faults_of(store, file, name_in(file, runs[0])):
            if refused(store, fault, runs[0]):
                told[file] = fault
            else:
                passed.append(fault)
    assert set(told) == set(FILES)  # of each something is refused, and the pages see it, too
    every, left = [*told.values(), *passed], 2
    store, runs = everything(tmp_path / "many", MANY)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    for start in range(0, len(every), MANY - left):
        kept = {}
        for fault, run in zip(every[start : start + MANY - left], runs[left:]):
            path = store.root / fault.file.format(name_in(fault.file, run))
            kept[path] = path.read_text()
            fault.apply(store.root, name_in(fault.file, run))
        tables(store)
        for page, query in PAGES:
            at = AppTest.from_file(str(APP), default_timeout=120)
            for key, value in query.items():
                at.query_params[key] = value
            at.switch_page(f"lab/dashboard/{page}.py").run()
            assert not at.exception, (page, query, at.exception, every[start : start + MANY - left])
            assert at.main.children
        for path, content in kept.items():
            path.write_text(content)
