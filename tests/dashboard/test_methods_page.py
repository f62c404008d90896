from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from dashboard.conftest import add_student, open_page, text

from lab.catalogue import methods
from lab.cli import parser
from lab.config import Use
from lab.results import Store, write_whole

ROOT = Path(__file__).parents[2]
TAUGHT = "4x64 TA"
page = functools.partial(open_page, "methods")


@pytest.fixture
def taught(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A plain student and one that an assistant taught on the same seed, at 0.8 of its distance."""
    store = make_store(tmp_path, students=3)
    plain = add_student(store)
    ta = add_student(store, label=TAUGHT, fields={"methods": (Use("pairs"), Use("teaching_assistant")),
                                                  "guide": f"run:{store.runs()[1].id}"})  # fmt: skip
    for run, fd in [(plain, 2.0), (ta, 1.6)]:
        metrics = run.read("metrics")
        metrics["values"]["fd"] |= {"value": fd, "ci95": [fd - 0.1, fd + 0.1]}
        run.write("metrics", metrics)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    return store


def test_every_registered_method_is_listed_with_its_idea_paper_and_options(demo: Store) -> None:
    said = text(page())
    for entry in methods().values():
        assert f"**{entry.name}**" in said and entry.idea in said and entry.paper in said
        for option in entry.options:
            assert f"| {option.name} | {option.kind} | {option.default} |" in said


def test_a_pair_has_its_verdict_chart_and_images_of_the_same_noise(taught: Store) -> None:
    at = page()
    assert "**better in direction**: 0.800 times the distance" in text(at)
    (drawn,) = json.loads(at.get("plotly_chart")[0].proto.spec)["data"]
    assert drawn["name"] == "better in direction" and drawn["marker"]["symbol"] == "circle-open"
    (sheet,) = [json.loads(c.proto.json) for c in at.get("bidi_component")]
    assert sheet["columns"][0]["title"] == TAUGHT and len(sheet["columns"]) == 2
    assert "not timed beside plain yet" in text(at)


def test_variants_of_a_method_are_drawn_where_they_are_asked_for(taught: Store) -> None:
    other = add_student(taught, fields={"methods": (Use("pairs"), Use("teaching_assistant", {"output": 0.0})),
                                        "guide": f"run:{taught.runs()[1].id}"})  # fmt: skip
    assert other.id != taught.get(TAUGHT).id

    def drawn(**asked: str) -> int:
        (chart,) = page(**asked).get("plotly_chart")
        return sum(len(trace["y"]) for trace in json.loads(chart.proto.spec)["data"])

    assert (drawn(), drawn(variants="true"), drawn(of="teaching_assistant")) == (1, 2, 2)
    short, whole = text(page()), text(page(variants="true"))
    assert "1 variant more of other options" in short and "1 variant" not in whole
    assert (short.count("times the distance of"), whole.count("times the distance of")) == (1, 2)


def test_training_cost_is_that_of_updates_timed_in_turns(taught: Store) -> None:
    runs = {row["method_short"]: row["run"] for _, row in taught.table().iterrows() if row["depth"] == 4}
    rows = [{"run": runs["plain"], "ms": 10.0, "over_plain": 1.0, "guide_seconds": 0.0},
            {"run": runs["teaching_assistant"], "ms": 13.0, "over_plain": 1.3, "guide_seconds": 40.0}]  # fmt: skip
    write_whole(taught.root / "benchmarks" / "arms.json", json.dumps({"rows": rows}))
    assert "1.30 times the seconds of a plain update, and 40.0 s of its guide's answers" in text(page())


def test_the_filter_leaves_one_method(taught: Store) -> None:
    said = text(page(of="ternary"))
    assert "**ternary**" in said and "**manifold**" not in said and "ternary does not have a run beside" in said
    assert "better in direction" in text(page(of="teaching_assistant"))


def test_a_method_without_a_pair_prints_a_command_that_makes_one(demo: Store) -> None:
    at = page()
    made = [code.value for code in at.code if "--method pairs," in code.value]
    without = [entry for entry in methods().values() if not entry.objective]
    assert len(made) == len(without)
    for command in made:
        parser().parse_args(command.split("python -m lab ")[1].split())
    assert "--guide" in next(command for command in made if "pairs,manifold" in command)


def test_an_empty_folder_lists_the_methods_and_prints_the_command(nothing: Store) -> None:
    at = page()
    assert "python -m lab run --data digits" in at.code[0].value and "**ternary**" in text(at)
    assert not at.get("plotly_chart")


def test_a_pair_of_which_one_cannot_be_read_is_no_pair(taught: Store) -> None:
    write_whole(taught.get(TAUGHT).path / "metrics.json", '{"values": [')
    at = page()
    assert "none of" in text(at) and not at.get("plotly_chart")


def test_the_committed_results_have_a_verdict_on_teaching_assistant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_RESULTS", raising=False)
    at = page(of="teaching_assistant")
    assert "times the distance of 4x40 plain" in text(at) and len(at.get("plotly_chart")) == 1
    assert len(json.loads(at.get("bidi_component")[0].proto.json)["columns"]) == 2
