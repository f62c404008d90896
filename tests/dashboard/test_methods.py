"""A student's method on the pages: a filter, its colour and shape, and its plain twin beside it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from dashboard.conftest import add_student, open_page
from streamlit.testing.v1 import AppTest

from lab.config import Use
from lab.results import Store

APP = Path(__file__).parents[2] / "app.py"
PLAIN, TAUGHT = "4x64 plain", "4x64 TA"
page = functools.partial(open_page, timeout=60)


@pytest.fixture
def taught(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A few plain students, and one that an assistant taught beside its twin."""
    store = make_store(tmp_path, students=3)
    methods = Use("pairs"), Use("teaching_assistant")
    add_student(store, label=PLAIN)
    add_student(store, label=TAUGHT, fields={"methods": methods, "guide": f"run:{store.runs()[1].id}"})
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    return store


def shapes(at: AppTest) -> dict[str, str]:
    """The marker's shape of every run on a chart."""
    found = {}
    for trace in json.loads(at.get("plotly_chart")[0].proto.spec)["data"]:
        for k, (run,) in enumerate(trace.get("customdata", [])):
            symbol = trace["marker"]["symbol"]
            found[run] = (symbol if isinstance(symbol, str) else symbol[k]).split("-")[0]
    return found


def models(at: AppTest) -> list[str]:
    return [c["title"] for c in json.loads(at.get("bidi_component")[0].proto.json)["columns"]]


@pytest.mark.parametrize("name", ["tradeoff", "choose"])
def test_charts_tell_methods_apart_and_a_filter_leaves_one(taught: Store, name: str) -> None:
    drawn = shapes(page(name))
    (theirs,) = {shape for run, shape in drawn.items() if "teaching-assistant" in run}
    plain = {shape for run, shape in drawn.items() if "teaching-assistant" not in run and "unet" not in run}
    assert plain and theirs not in plain
    at = page(name, method="teaching_assistant")
    students = {run: shape for run, shape in shapes(at).items() if "unet" not in run}
    assert students and all("teaching-assistant" in run and shape == theirs for run, shape in students.items())
    assert any("--method teaching_assistant" in code.value for code in at.code) or name == "tradeoff"


def test_a_taught_student_stands_beside_its_plain_twin(taught: Store) -> None:
    assert models(page("gallery", models=TAUGHT)) == [TAUGHT]
    assert models(page("gallery", models=TAUGHT, twins="true")) == [TAUGHT, PLAIN]
    at = page("gallery", method="teaching_assistant")
    assert [m for m in models(at) if not m.endswith("(teacher)")] == [TAUGHT]


def test_a_store_of_one_method_has_no_filter(demo: Store) -> None:
    at = page("gallery")
    assert "Method" not in [box.label for box in at.selectbox] and not [t for t in at.toggle if t.key == "twins"]
