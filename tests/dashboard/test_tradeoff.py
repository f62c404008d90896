from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from conftest import changed
from dashboard.conftest import LABEL, add_report, add_student, report
from streamlit.testing.v1 import AppTest

from lab import choose
from lab.choose import Budget
from lab.results import Store

APP = Path(__file__).parents[2] / "app.py"


def page(selected: str | None = None, **state: str) -> AppTest:
    at = AppTest.from_file(str(APP), default_timeout=30).run()
    for name, value in state.items():
        at.session_state[name] = value
    if selected:
        at.session_state["tradeoff_chart"] = {"selection": {"points": [{"customdata": [selected]}]}}
    at.switch_page("lab/dashboard/tradeoff.py").run()
    assert not at.exception, at.exception
    return at


def text(at: AppTest) -> str:
    return " ".join(e.value for e in [*at.markdown, *at.caption, *at.warning, *at.info]).replace("\\", "")


def run_of(store: Store, shape: str) -> str:
    table = store.table()
    return table.loc[(table["shape"] == shape) & (table["state"] == "done"), "run"].iloc[0]


def test_the_chart_comes_with_its_conditions_and_its_command(demo: Store) -> None:
    at = page()
    assert len(at.get("plotly_chart")) == 1
    assert "10,000 samples" in text(at) and "2 threads" in text(at) and "1 run without a measured value" in text(at)
    assert at.code[-1].value.endswith("python -m lab choose")


def test_a_selected_point_says_who_beats_it(demo: Store) -> None:
    found = choose.candidates(demo.table(), demo.reports(), Budget())
    front = choose.front(found, ["latency_ms", "fd"])
    said = text(page(selected=found.loc[~front, "run"].iloc[0]))
    assert "Beaten by" in said
    assert "On the front" in text(page(selected=found.loc[front, "run"].iloc[0]))


def test_the_axes_can_be_changed(demo: Store) -> None:
    at = page(x="params_m", y="class_accuracy")
    assert at.selectbox(key="x").value == "params_m" and len(at.get("plotly_chart")) == 1


def test_an_axis_is_logarithmic_unless_a_value_has_no_place_there(demo: Store) -> None:
    def kinds() -> tuple[str | None, str | None]:
        (chart,) = [json.loads(c.proto.spec) for c in page(y="recall").get("plotly_chart")]
        return tuple(chart["layout"][axis].get("type") for axis in ("xaxis", "yaxis"))

    assert kinds() == ("log", "log")
    run = demo.get("fashion-mnist-d4w64h4p4-pairs")
    metrics = run.read("metrics")
    metrics["values"]["recall"]["value"] = 0.0
    run.write("metrics", metrics)
    x, y = kinds()
    assert x == "log" and y != "log"


@pytest.mark.parametrize(("x", "title"), [
    ("params_m", "Parameters (M, as deployed)"), ("params_trained_m", "Parameters as trained (M)"),
    ("file_trained_mb", "File as trained (MB)"), ("macs_m", "MACs per image (M, as deployed)"),
])  # fmt: skip
def test_sizes_can_be_drawn_as_deployed_and_as_trained(demo: Store, x: str, title: str) -> None:
    at = page(x=x)
    (chart,) = [json.loads(c.proto.spec) for c in at.get("plotly_chart")]
    assert chart["layout"]["xaxis"]["title"]["text"] == title
    assert (choose.SIZES_SAID in text(at)) == (x in choose.AS_TRAINED)


@pytest.mark.parametrize("view, charts, tables", [("2-D", 1, 0), ("3-D", 4, 0), ("Table", 0, 1)])
def test_each_view_is_shown_alone(demo: Store, view: str, charts: int, tables: int) -> None:
    at = page(view=view)
    assert (len(at.get("plotly_chart")), len(at.dataframe)) == (charts, tables)


def test_without_timings_the_three_axes_still_differ(untimed: Store) -> None:
    at = page(view="3-D")
    assert [at.selectbox(key=axis).value for axis in "xyz"] == ["params_m", "fd", "macs_m"]


def test_the_table_is_best_first_and_marks_the_front(demo: Store) -> None:
    shown = page(view="Table").dataframe[0].value
    assert shown["fd"].is_monotonic_increasing and shown["on_front"].any() and not shown["on_front"].all()


def test_a_student_whose_latency_was_published_bears_its_sign_in_the_table(
    make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, students=3)
    plain = changed(report(store.get(LABEL), ms=0.01, runtime="tensorrt"), provenance="published",
                    source={"citation": "somebody"})  # fmt: skip
    add_report(store, plain)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    assert LABEL in set(page(view="Table").dataframe[0].value["name"])
    at = page(view="Table")
    at.toggle(key="weak").set_value(True).run()
    assert f"\N{WHITE CIRCLE} {LABEL}" in set(at.dataframe[0].value["name"])
    assert "Latencies: \N{WHITE CIRCLE} published" in text(at)


def test_values_of_two_teachers_are_refused_with_a_sentence(
    make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, students=3)
    odd = add_student(store, depth=9)
    metrics = odd.read("metrics")
    metrics["values"]["fd_teacher"]["reference"] = "another teacher, 10,000 images"
    odd.write("metrics", metrics)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    at = page(y="fd_teacher")
    assert "can't share an axis" in text(at) and "another teacher" in text(at)
    assert not at.get("plotly_chart")
    both = at.selectbox(key="split_fd_teacher").options
    assert len(both) == 2 and "another teacher" in both[1]
    at.selectbox(key="split_fd_teacher").select_index(0).run()
    assert not at.exception and len(at.get("plotly_chart")) == 1 and not at.warning
    assert "Left out: 1 student not of the protocol chosen above." in text(at)
    assert "another teacher" not in " ".join(c.value for c in at.caption)


def test_the_hypervolume_names_its_reference(demo: Store) -> None:
    said = text(page())
    assert "Hypervolume of the front: 0." in said and "a tenth of each range behind the worst" in said
    assert ", Parameters" not in said.split("reference ")[1].split("(linear")[0]
    assert "Parameters" in text(page(view="3-D")).split("reference ")[1].split("(linear")[0]


def test_an_empty_folder_prints_the_command(nothing: Store) -> None:
    at = page()
    assert "python -m lab run " in at.code[0].value


def test_every_page_tells_its_place_without_being_imported() -> None:
    shown = {}
    for path in (APP.parent / "lab" / "dashboard").glob("*.py"):
        names = {
            n.targets[0].id: n.value.value
            for n in ast.parse(path.read_text()).body
            if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant) and isinstance(n.targets[0], ast.Name)
        }
        if "TITLE" in names:
            assert {"ORDER", "ICON", "URL"} <= set(names), path.name
            shown[names["URL"]] = path.name
    assert shown["/"] == "choose.py" and shown["/tradeoff"] == "tradeoff.py"
