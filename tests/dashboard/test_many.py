"""Two thousand runs: the pages that show all of them still open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dashboard.conftest import SHAPES, make_store
from streamlit.testing.v1 import AppTest

from lab.config import DiTConfig, Recipe
from lab.results import Store

APP = Path(__file__).parents[2] / "app.py"
RUNS = 2000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A student of each shape as the other tests have it, and others by seed."""
    from benchmarks.synthetic import fill

    store = make_store(tmp_path_factory.mktemp("many"), students=len(SHAPES))
    fill(store, RUNS - len(store.runs()), timed=1)
    return store


@pytest.mark.parametrize("name", ["runs", "tradeoff", "gallery"])
def test_a_page_of_two_thousand_runs_opens(name: str, many: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAB_RESULTS", str(many.root))
    at = AppTest.from_file(str(APP), default_timeout=120)
    at.switch_page(f"lab/dashboard/{name}.py").run()
    assert not at.exception, at.exception
    assert at.title[0].value and not at.error
    if name == "runs":
        assert len(at.dataframe[0].value) == len(many.runs())


def test_a_page_looks_at_the_folder_once(many: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAB_RESULTS", str(many.root))
    looked, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(Path(path).name) or scandir(path))
    at = AppTest.from_file(str(APP), default_timeout=120)
    at.run()
    assert not at.exception
    looked.clear()
    at.run()
    assert sorted(name for name in looked if name in ("runs", "devices")) == ["devices", "runs", "runs"]  # and exports


def test_a_run_that_is_written_changed_or_gone_shows_at_once_among_them(many: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAB_RESULTS", str(many.root))
    at = AppTest.from_file(str(APP), default_timeout=120)
    at.switch_page("lab/dashboard/runs.py").run()
    before = len(at.dataframe[0].value)
    new = many.open(Recipe(data="fashion-mnist", student=DiTConfig(depth=9)))
    assert len(at.run().dataframe[0].value) == before + 1
    new.set_notes(label="a new one")
    assert at.run().dataframe[0].value["name"].str.endswith("a new one").any()
    (new.path / "recipe.json").unlink()
    assert len(at.run().dataframe[0].value) == before
