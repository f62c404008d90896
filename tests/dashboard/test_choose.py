from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from conftest import changed
from dashboard.conftest import LABEL, add_report, add_student, report
from streamlit.delta_generator import DeltaGenerator
from streamlit.testing.v1 import AppTest

from lab import choose
from lab.results import Store

APP = Path(__file__).parents[2] / "app.py"


def page(**query: str) -> AppTest:
    """The page with its fold open, unless `why` says otherwise."""
    at = AppTest.from_file(str(APP), default_timeout=30)
    for name, value in ({"why": "true"} | query).items():
        at.query_params[name] = value
    at.run()
    assert not at.exception, at.exception
    return at


def text(at: AppTest) -> str:
    return " ".join(e.value for e in [*at.header, *at.markdown, *at.caption, *at.warning, *at.info]).replace("\\", "")


def sentence(at: AppTest) -> str:
    """The answer as it is read: the heading, then the figures, without what each means."""
    (figures,) = at.get("html")
    body = re.sub(r"<style>.*?</style>|<span.*?</span>", "", figures.proto.body, flags=re.DOTALL)
    return f"{at.header[0].value}: {html.unescape(re.sub('<.*?>', '', body))}".replace("\\", "")


def test_the_page_opens_with_a_recommendation(demo: Store) -> None:
    at = page()
    assert at.header[0].value.startswith("Ship d")
    assert "What you lose" in text(at) and "How sure" in text(at)
    assert len(at.get("plotly_chart")) == 1
    assert len(at.get("image")) == 2  # the pick, its teacher
    assert "1 run without a measured value" in text(at)


def test_the_browser_is_told_of_a_chart_while_the_answer_is_worked_out(
    demo: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, draw = [], DeltaGenerator.plotly_chart
    monkeypatch.setattr(DeltaGenerator, "plotly_chart", lambda *args, key, **how: (
        told.append((key, len(answered))), draw(*args, key=key, **how))[1])  # fmt: skip
    answered, recommend = [], choose.recommend
    monkeypatch.setattr(choose, "recommend", lambda *args: (answered.append(1), recommend(*args))[1])
    at = page()
    assert told == [("no_chart", 0)] and answered
    assert len(at.get("plotly_chart")) == 1 and "no_chart" not in at.get("plotly_chart")[0].proto.id  # it has gone
    at.run()
    assert len(told) == 1  # once for a session
    monkeypatch.setenv("LAB_RESULTS", str(demo.root / "none"))
    assert not page().get("plotly_chart") and len(told) == 1


def test_a_cut_sheet_is_left_out(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, students=2)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    for path in store.root.glob("runs/*/samples.npz"):
        path.write_bytes(path.read_bytes()[:200])
        (path.parent / "student.safetensors").touch()
    at = page()
    assert not at.get("image") and "no sheet yet" in text(at)
    assert any("LAB_RESULTS=" in c.value and c.value.endswith("samples.npz") for c in at.code)


def test_sentence_images_controls_and_chart_follow_each_other_and_the_rest_is_folded(demo: Store) -> None:
    at = page()
    kinds = [element.type for element in at.main]
    first = [kinds.index(kind) for kind in ("header", "html", "image", "number_input", "plotly_chart", "metric")]
    assert first == sorted(first)
    (fold,) = [e for e in at.expander if e.label.startswith("What it loses")]
    assert fold.metric and "How sure" in " ".join(m.value for m in fold.markdown)
    assert len(at.metric) == len(fold.metric)


def test_what_is_folded_is_not_worked_out_before_it_is_opened(demo: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    at = page(why="false")
    (fold,) = [e for e in at.expander if e.label.startswith("What it loses")]
    assert not fold.proto.expanded and not fold.metric and not at.metric and at.header[0].value.startswith("Ship ")
    at.session_state["why"] = True
    at.run()
    assert at.metric and "How sure" in text(at)


def test_the_sentence_says_size_time_and_times_the_teacher_s_distance(demo: Store) -> None:
    at = page(params_m="0.3", latency_ms="2")
    answer = choose.recommend(choose.complete(demo.table()), demo.reports(), choose.Budget(params_m=0.3, latency_ms=2))
    pick, teacher = answer.pick, answer.teacher
    assert sentence(at).startswith(
        f"Ship {pick['name']}: {choose.brief(pick['params_m'])} M parameters, {choose.brief(pick['latency_ms'])} ms "
        f"here, {choose.brief(pick['fd'] / teacher['fd'])} times its teacher's distance; one step dearer buys "
    )


def test_every_figure_of_the_sentence_and_of_the_fold_says_what_it_means(demo: Store) -> None:
    at = page()
    (figures,) = [e.proto.body for e in at.get("html")]
    assert figures.count('<abbr tabindex="0"') == figures.count('role="tooltip"') == 4
    assert "95 % interval" in figures and "Half of its calls take at most" in figures
    assert all(m.help for m in at.metric)
    assert (
        at.metric[0].label == "Teacher's FD"
        and at.metric[0].value.endswith("x")
        and at.metric[0].delta.endswith(" itself")
    )


def test_the_pick_is_held_against_the_baseline(demo: Store) -> None:
    at = page(baseline="d12w80h4p4", params_m="0.3", latency_ms="0")
    tiles = {m.label: m.delta for m in at.metric}
    assert tiles["Parameters"].endswith(" % better") and tiles["Teacher's FD"].endswith(" % worse")
    assert "Better and worse: than d12w80h4p4, the baseline." in text(at)
    (chart,) = [json.loads(c.proto.spec) for c in at.get("plotly_chart")]
    assert "the baseline" in {trace.get("name") for trace in chart["data"]}
    hovers = [h for trace in chart["data"] for h in trace.get("hovertext") or []]
    assert sum("Against d12w80h4p4: FD " in h for h in hovers) == 13  # all but itself and the teacher


def test_a_smaller_budget_changes_the_pick(demo: Store) -> None:
    at = page()
    before = at.header[0].value
    at.number_input(key="params_m").set_value(0.12).run()
    assert at.header[0].value != before
    assert "at most 0.12 M parameters" in text(at)


def test_the_pick_s_sizes_are_those_of_the_deployed_form_with_the_trained_ones_beside_them(demo: Store) -> None:
    at = page(params_m="0.3")
    sizes = {m.label: (m.value, m.delta) for m in at.metric if m.label in ("Parameters", "File", "MACs per image")}
    assert len(sizes) == 3 and all(note.startswith("trained ") for _, note in sizes.values())
    assert all(float(note.split()[1]) > float(value.split()[0]) for value, note in sizes.values())
    assert "what is shipped: the deployed form" in text(at) and "as trained)" in text(at)


def test_the_budget_is_read_from_the_url(demo: Store) -> None:
    at = page(params_m="0.12", percentile="p99")
    assert at.number_input(key="params_m").value == 0.12
    assert "ms p99" in text(at)
    assert "python -m lab choose --params-m 0.12" in at.code[0].value


def test_the_memory_limit_and_the_knee_are_on_the_page(demo: Store) -> None:
    at = page(memory_mb="200", params_m="0", latency_ms="0")
    assert at.number_input(key="memory_mb").value == 200
    assert "Nothing fits at most 200 MB of memory" in at.header[0].value.replace("\\", "")
    at = page(memory_mb="320", params_m="0", latency_ms="0")
    assert at.header[0].value.startswith("Ship ") and "300 MB of memory" in text(at) and "is the knee" in text(at)
    assert "--memory-mb 320" in at.code[0].value
    memory = next(metric for metric in at.metric if metric.label == "Memory")
    assert memory.help.replace("\\", "") == "As read: rss." and "Its memory is rss." in text(at)


def test_a_limit_of_nothing_is_no_limit(demo: Store) -> None:
    at = page(params_m="0")
    at.number_input(key="latency_ms").set_value(0.0).run()
    assert "of the 14 measured students" in text(at)


def test_nothing_fits_shows_the_nearest_miss(demo: Store) -> None:
    at = page(params_m="0.01")
    assert at.header[0].value.replace("\\", "").startswith("Nothing fits at most 0.01 M parameters")
    assert "Nearest on parameters" in text(at) and "over" in text(at)
    assert "| Parameters | 0.0100 M | 0.110 M |" in text(at)


def test_an_empty_folder_prints_the_command(nothing: Store) -> None:
    at = page()
    assert "No run in the results folder yet" in text(at)
    assert "python -m lab run " in at.code[0].value


def test_a_store_without_timings_still_recommends(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, students=3)
    for path in (store.root / "devices").glob("*.json"):
        path.unlink()
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    at = page()
    assert at.header[0].value.startswith("Ship ")
    assert "nan" not in text(at).lower()


def test_two_protocols_are_split_not_mixed(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, students=3)
    add_student(store, depth=9, width=100, samples=2000)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    at = page()
    assert len(at.selectbox(key="protocol").options) == 2
    assert "10,000 samples" in at.selectbox(key="protocol").value
    assert "measured by another protocol (d9w100h4p4)" in text(at)
    at.selectbox(key="protocol").select_index(1).run()
    assert not at.exception and "d9w100h4p4" in at.header[0].value


def test_the_chosen_protocol_holds_for_every_measure_of_quality(
    make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, students=3)
    add_student(store, depth=9, width=100, samples=2000)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    at = page(metric="kid", params_m="0", latency_ms="0")
    assert "d9w100h4p4" not in at.header[0].value
    few = next(p for p in at.selectbox(key="protocol").options if "2,000 samples" in p)
    at = page(metric="kid", params_m="0", latency_ms="0", protocol=few)
    assert "d9w100h4p4" in at.header[0].value and "3 runs measured by another protocol" in text(at)
    assert "Kernel distance: fashion-mnist-cnn-1a2b3c4d, 2,000 samples" in text(at)


def test_a_label_is_shown_as_it_was_typed(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, students=1)
    store.get(LABEL).set_notes(label="**best** [x](http://y) <b>")
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    shown = page().header[0].value
    assert shown == r"Ship \*\*best\*\* \[x\]\(http\://y\) \<b\>"


def test_a_hidden_run_leaves_the_page_at_once(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, students=2)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    at = page(params_m="0", latency_ms="0")
    first = at.header[0].value
    run = next(r for r in store.runs() if ("broken" not in r.id and r.label in first) or r.id.split("-")[2] in first)
    run.set_notes(hide=True)
    at.run()
    assert not at.exception and at.header[0].value != first


def test_a_new_report_is_seen_without_a_restart(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, students=2)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    at = page()
    assert at.selectbox(key="device").options == ["test bench CPU"]
    add_report(store, report(store.get(LABEL), ms=5.0, device="my board"))
    at.run()
    assert at.selectbox(key="device").options == ["test bench CPU", "my board"]


def test_a_coarse_timing_is_recommended_only_with_what_its_images_lose(
    make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, students=3)
    run = store.get(LABEL)
    add_report(store, changed(report(run, ms=0.01, runtime="onnxruntime", precision="int8"),
                              checks__max_abs_vs_ref=0.2))  # fmt: skip
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    asked = {"params_m": "0", "latency_ms": "0.05"}
    assert "Nothing fits" in page(**asked).header[0].value
    at = page(**asked, precision="any")
    assert at.selectbox(key="precision").value == "any" and at.selectbox(key="precision").options[:3] == [
        "float", "any", "fp32"]  # fmt: skip
    assert LABEL in at.header[0].value
    assert "Its latency is that of int8, its distances are those of float32." in text(at)
    assert "at most 0.200 off" in text(at)
    assert at.code[0].value.endswith("python -m lab choose --latency-ms 0.05 --precision any")


def keep_estimates(store: Store, card: str) -> None:
    """What a card predicts of every student, as reports in the store."""
    from lab.devices import predict

    for run in store.runs():
        if isinstance(run.read("student"), dict) and run.recipe.student.family == "dit":
            known = predict.card_of(card), run.recipe.student
            store.add_report(predict.as_report(*known, model=predict.model_of(run)))


def test_estimates_are_used_where_asked_for_and_never_look_measured(
    make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, students=3)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    keep_estimates(store, "raspberry-pi-5")
    board = {"device": "Raspberry Pi 5", "params_m": "0", "latency_ms": "0"}
    at = page(**board)
    assert not any("Estimated" in m.label for m in at.metric) and "that nobody measured" in text(at)
    at = page(**board, estimated="true")
    assert at.toggle(key="estimated").value
    assert [m.label for m in at.metric if "latency" in m.label.lower()] == ["Estimated latency"]
    assert "ms p50 estimated" in text(at) and "nobody has timed it there" in text(at)
    (chart,) = [json.loads(c.proto.spec) for c in at.get("plotly_chart")]
    assert "estimated" in {trace.get("name") for trace in chart["data"]}
    assert "| \N{CIRCLED DOT OPERATOR} " in text(page(**board | {"params_m": "0.1"}, estimated="true"))
    assert "--device 'Raspberry Pi 5'" in at.code[0].value and at.code[0].value.endswith("--estimated")


def test_kept_estimates_join_the_board_that_their_card_is_of(
    make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, students=3)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    keep_estimates(store, "jetson-orin-nano-15w")
    board, asked = "NVIDIA Jetson Orin Nano Developer Kit", {"params_m": "0", "latency_ms": "0"}
    add_report(store, changed(report(store.get("d4w44h4p4"), ms=90.0, device=board), device__family="jetson",
                              state__power_mode="15W"))  # fmt: skip
    at = page(device=f"{board}, 15W", **asked)
    assert not any("Estimated" in m.label for m in at.metric) and "3 estimates that nobody measured" in text(at)
    at = page(device=f"{board}, 15W", estimated="true", **asked)
    assert [m.label for m in at.metric if "latency" in m.label.lower()] == ["Estimated latency"]
    assert "estimated (2), measured (1)" in text(at) and "NVIDIA Jetson Orin Nano Developer Kit, 15W," in text(at)


def test_a_boards_gpu_is_chosen_whatever_the_number_of_cpu_threads(
    make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, students=3)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    jetson = {"device__family": "jetson", "state__power_mode": "15W"}
    for run in (store.get(LABEL), store.get("d4w44h4p4")):
        add_report(store, changed(report(run, ms=9.0, runtime="onnxruntime", threads=1, device="Orin"), **jetson))
        for threads in (6, 4):
            add_report(store, changed(report(run, ms=0.6, runtime="tensorrt", threads=threads, device="Orin"),
                                      **jetson, device__gpu="Orin"))  # fmt: skip
    at = page(device="Orin, 15W", params_m="0", latency_ms="5")
    assert at.selectbox(key="threads").options == ["1"]
    assert at.header[0].value.startswith("Ship ") and "0.600 ms p50" in text(at)


def test_two_thousand_runs_are_shown(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    from lab.dashboard import frame

    store = make_store(tmp_path, students=2)
    table, reports = store.table(), store.reports()
    many = pd.concat([table.assign(run=table["run"] + f"-{k}") for k in range(500)], ignore_index=True)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    monkeypatch.setattr(Store, "table", lambda self: many)
    monkeypatch.setattr(Store, "reports", lambda self: reports)
    frame.clear()
    at = page()
    frame.clear()
    assert at.header[0].value.startswith("Ship ")
