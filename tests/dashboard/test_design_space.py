from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from dashboard.conftest import add_student, open_page, text
from streamlit.testing.v1 import AppTest

from lab.principles import suggest
from lab.results import Store, write_whole

ROOT = Path(__file__).parents[2]
page = functools.partial(open_page, "design_space")


def chart(at: AppTest, place: int = 0) -> dict[str, dict]:
    return {t["name"]: t for t in json.loads(at.get("plotly_chart")[place].proto.spec)["data"] if "name" in t}


def test_the_sentence_tells_the_best_trained_shape_and_the_estimated_one(demo: Store) -> None:
    at = page(space_params="0.35")
    table = demo.table()
    found = table[(table["role"] == "student") & (table["params_deployed"] <= 350_000)]
    best = found.loc[found["fd"].idxmin()]
    said = text(at)
    assert f"**{best['depth']:.0f}x{best['width']:.0f}" in said or best["shape"] in said
    assert "*estimated*" in said and "after 800,000 images" in said
    star = next(trace for name, trace in chart(at).items() if name.endswith(", estimated"))
    assert star["marker"]["symbol"] == "star-open-dot"


def test_a_budget_that_nothing_fits_is_a_sentence(demo: Store) -> None:
    assert "No shape within 0.01 M parameters was trained" in text(page(space_params="0.01"))


def test_seeds_are_one_point_with_their_range(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    for seed, fd in [(101, 2.0), (102, 3.0)]:
        run = add_student(store, depth=5, width=40, seed=seed)
        metrics = run.read("metrics")
        metrics["values"]["fd"] |= {"value": fd, "ci95": [fd - 0.1, fd + 0.1]}
        run.write("metrics", metrics)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    at = page()
    shown = at.dataframe[0].value.set_index("depth").loc[5]
    assert (shown["seeds"], shown["fd"], shown["fd_least"], shown["fd_most"]) == (2, 2.5, 2.0, 3.0)


def test_heads_that_nobody_varied_print_the_commands(demo: Store) -> None:
    at = page()
    assert len(at.get("plotly_chart")) == 2 and any("--heads " in code.value for code in at.code)


def test_an_empty_folder_prints_the_commands_of_two_shapes(nothing: Store) -> None:
    at = page()
    assert at.code[0].value.count("--depth ") == 2 and not at.get("plotly_chart")


def test_too_few_shapes_are_drawn_without_a_suggestion(make_store, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_RESULTS", str(make_store(tmp_path, students=3).root))
    at = page()
    assert "a shape to try next: 3 shapes with a fd are too few" in text(at)
    assert len(at.get("plotly_chart")) == 1 and not [n for n in chart(at) if n.endswith("estimated")]


def test_a_run_that_cannot_be_read_leaves_the_others(make_store, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    broken = next(run for run in store.runs() if "-d8w32" in run.id)
    for name in ("metrics", "cost"):
        write_whole(broken.path / f"{name}.json", '{"values": {"fd": [')
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    at = page()
    assert broken.id not in {run for runs in at.dataframe[0].value["runs"] for run in runs}
    assert len(at.dataframe[0].value) == 13


def test_the_committed_results_are_drawn_at_both_numbers_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_RESULTS", raising=False)
    at = page(space_params="0.3")
    drawn = chart(at)
    assert {f"{size} M parameters" for size in ("0.1", "0.3", "1")} <= set(drawn)
    assert {400_000, 800_000} <= set(at.dataframe[0].value["images"])
    effect = chart(at, 1)
    assert {"distance", "latency"} <= set(effect)
    assert "*estimated*" in text(at) and "Leaving one shape out" in text(at)


def test_the_suggestion_is_that_of_principles(monkeypatch: pytest.MonkeyPatch) -> None:
    from lab import choose

    monkeypatch.delenv("LAB_RESULTS", raising=False)
    store = Store(ROOT / "results")
    wanted = suggest(store.table(), store.reports(), store, choose.Budget(params_m=0.3))
    assert f"**{wanted.pick['name']}**" in text(page(space_params="0.3")).split("; ", 1)[1]
