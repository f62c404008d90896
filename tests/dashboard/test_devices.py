from __future__ import annotations

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import artefact_facts, changed
from dashboard.conftest import LABEL, add_report, report
from streamlit.testing.v1 import AppTest

from lab.config import DiTConfig, Recipe, config_to_json
from lab.results import Run, Store, write_json

APP = Path(__file__).parents[2] / "app.py"
BENCH = "test bench CPU"


def page(state: dict[str, object] | None = None, **query: str | list[str]) -> AppTest:
    at = AppTest.from_file(str(APP), default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = value
    for name, value in (state or {}).items():
        at.session_state[name] = value
    at.switch_page("lab/dashboard/devices.py").run()
    assert not at.exception, at.exception
    return at


def text(at: AppTest) -> str:
    elements = [*at.title, *at.subheader, *at.markdown, *at.caption, *at.info, *at.warning, *at.error, *at.success]
    return "\n".join(e.value for e in elements).replace("\\", "")


def charts(at: AppTest) -> list[dict]:
    return [json.loads(c.proto.spec) for c in at.get("plotly_chart")]


def names(at: AppTest) -> set[str]:
    return {trace.get("name") for chart in charts(at) for trace in chart["data"]}


@pytest.fixture
def store(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three students and reports of them that a test may change."""
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path / "results"))
    return make_store(tmp_path / "results", students=3)


@pytest.fixture
def run(store: Store) -> Run:
    return store.get(LABEL)


# --- timings ------------------------------------------------------------------------------------


def test_the_page_opens_with_a_chart_and_every_report_with_its_grade_and_why(demo: Store) -> None:
    at = page()
    assert names(at) >= {"eager fp32", "compiled fp32"}
    table = at.dataframe[0].value
    assert (table["workload.batch"] == 1).all() and (table["workload.scope"] == "core").all()
    assert set(table["grade"]) == {"C"} and all(
        "preset quick, not publishable" in reasons for reasons in table["reasons"]
    )
    assert table["timing.p50"].is_monotonic_increasing
    mine = table[table["name"] == LABEL]
    assert (mine["params_m"] < mine["params_trained_m"]).all() and (mine["file_mb"] < mine["file_trained_mb"]).all()
    assert "of each condition the best graded, newest one" in text(at)


@pytest.mark.parametrize(
    ("key", "value", "column", "found"),
    [("timed_runtime", "compiled", "software.runtime", {"compiled"}), ("timed_batch", "16", "workload.batch", {16}),
     ("timed_scope", "e2e", "workload.scope", {"e2e"}), ("timed_threads", "2", "state.threads", {2}),
     ("timed_precision", "fp32", "model.precision", {"fp32"}), ("timed_students", LABEL, "name", {LABEL})],
)  # fmt: skip
def test_every_condition_is_read_from_the_url(demo: Store, key: str, value: str, column: str, found: set) -> None:
    at = page(**{key: value})
    assert set(at.dataframe[0].value[column]) == found
    widget = at.multiselect(key=key) if key == "timed_students" else at.selectbox(key=key)
    assert widget.value == ([value] if key == "timed_students" else value)


def test_the_percentile_orders_chart_and_table(store: Store, run: Run) -> None:
    add_report(store, changed(report(run, ms=0.01), timing__p99=99.0))
    assert page().dataframe[0].value["timing.p50"].iloc[0] == 0.01
    at = page(timed_percentile="p99")
    assert at.dataframe[0].value["timing.p50"].iloc[-1] == 0.01


def test_conditions_that_no_report_meets_are_said(demo: Store) -> None:
    at = page(timed_runtime="compiled", timed_batch="16", timed_scope="e2e")
    assert "No report under these conditions" in text(at) and not at.dataframe


def test_other_devices_are_shown_where_they_are_asked_for(store: Store, run: Run) -> None:
    add_report(store, report(run, ms=3.0, device="my board"))
    assert set(page().dataframe[0].value["device"]) == {BENCH}
    at = page(every_device="true")
    assert set(at.dataframe[0].value["device"]) == {BENCH, "my board"}
    assert set(page(device="my board").dataframe[0].value["device"]) == {"my board"}


# --- one report, two reports --------------------------------------------------------------------


def test_a_row_of_the_table_is_shown_in_full(store: Store, run: Run) -> None:
    times = [1_000_000 + k for k in range(300)]
    plain = changed(report(run, ms=1.0, samples_ns=times), energy={"mj_per_image": 4.2, "net_of_idle": False,
                                                                     "rail": "VDD_IN"})  # fmt: skip
    add_report(store, plain)
    at = page()
    place = at.dataframe[0].value["report_id"].tolist().index(plain["report_id"])
    at = page({"timings_table": {"selection": {"rows": [place]}}})
    assert at.multiselect(key="reports").value == [plain["report_id"]]
    tiles = {m.label: m.value for m in at.metric}
    assert tiles.pop("Weights").endswith(" MB") and tiles == {
        "p50": "1.00 ms", "p90": "1.10 ms", "p99": "1.40 ms", "Varies (CV)": "2.0%", "Drift": "+0.1%",
        "Peak memory": "300 MB", "Energy per image": "4.20 mJ",
    }  # fmt: skip
    assert "grade C" in text(at) and "- preset quick, not publishable" in text(at)
    assert "300 of 2,000 calls are kept" in text(at)
    assert {"one call", "median of a third"} <= names(at)
    assert [bar["y"] for bar in charts(at)[-1]["data"]] == [["load", "first", "steady"]]
    assert "| state threads | 2 |" in text(at)


def test_a_report_is_read_from_the_url_and_an_unknown_one_is_ignored(demo: Store) -> None:
    known = demo.reports()["report_id"].iloc[0]
    assert page(reports=known).multiselect(key="reports").value == [known]
    assert page(reports="../../etc/passwd").multiselect(key="reports").value == []


def test_single_times_of_an_unknown_number_of_calls_are_drawn(store: Store, run: Run) -> None:
    plain = changed(report(run, ms=1.0, samples_ns=[1_000_000] * 9), provenance="published", timing__iters=None,
                    source={"citation": "somebody"})  # fmt: skip
    add_report(store, plain)
    assert "9 calls are kept." in text(page(reports=plain["report_id"]))


def test_a_report_need_not_know_its_number_of_threads(store: Store) -> None:
    for path in (store.root / "devices").glob("*.json"):
        plain = json.loads(path.read_text())
        del plain["state"]["threads"]
        path.write_text(json.dumps(plain))
    page()


def test_chosen_reports_share_a_chart_of_their_times_and_strips_of_their_machines_state(store: Store, run: Run) -> None:
    chosen = []
    for k, ms in enumerate([1.0, 2.0, 3.0]):
        plain = changed(report(run, ms=ms, samples_ns=[round(ms * 1e6) + j for j in range(200)]),
                        state__cpu_mhz={"min": 900.0, "mean": 1000.0 + k, "max": 1100.0})  # fmt: skip
        add_report(store, plain)
        chosen.append(plain["report_id"])
    at = page(reports=[*chosen, next(r for r in store.reports()["report_id"] if r not in chosen)])
    spread, state = (next(c for c in charts(at) if words in c["layout"]["yaxis"].get("title", {}).get("text", "")
                          or words in json.dumps(c["layout"].get("annotations")))
                     for words in ("share of the calls", "CPU (MHz)"))  # fmt: skip
    assert len(spread["data"]) == len(state["data"]) == 3
    assert "1 of 4 chosen reports keep no single times" in text(at)
    assert not at.metric  # more than two are not shown in full


def test_a_report_without_single_times_says_so(demo: Store) -> None:
    assert "keeps no single times" in text(page(reports=demo.reports()["report_id"].iloc[0]))


def test_two_reports_are_a_ratio_with_its_interval_and_what_differs(store: Store, run: Run) -> None:
    slow, quick = report(run, ms=2.0), report(run, ms=1.0, runtime="compiled", batch=16)
    for plain in (slow, quick):
        add_report(store, plain)
    at = page(reports=[slow["report_id"], quick["report_id"]])
    said = text(at)
    assert "The first takes 2.00 times (1.90 to 2.10) as long as the second: the second is faster." in said
    assert "| runtime | eager | compiled |" in said and "| batch | 1 | 16 |" in said
    near = report(run, ms=2.02)
    add_report(store, near)
    said = text(page(reports=[slow["report_id"], near["report_id"]]))
    assert "neither is shown to be faster" in said and "They share every condition" in said


def test_a_broken_report_is_named_and_breaks_nothing(store: Store) -> None:
    (store.root / "devices" / "cut.json").write_text('{"schema": "device_report.v1", "timing": {')
    (store.root / "devices" / "empty-one.json").write_text('{"schema": "device_report.v1"}')
    said = text(page())
    assert "2 files can't be read" in said and "empty-one.json: report_id is missing" in said


def test_a_doubtful_report_is_kept_shown_hollow_and_named(store: Store, run: Run) -> None:
    add_report(store, report(run, ms=0.05, throttled=True))
    at = page()
    table = at.dataframe[0].value
    assert table["grade"].iloc[0] == "D" and "the device was throttled" in list(table["reasons"].iloc[0])
    assert "No recommendation rests on those graded D" in text(at)


def test_a_published_timing_bears_its_sign_in_the_table(store: Store, run: Run) -> None:
    plain = changed(report(run, ms=0.01), provenance="published", source={"citation": "somebody"})
    add_report(store, plain)
    at = page()
    names = at.dataframe[0].value.set_index("report_id")["name"]
    assert (
        names.pop(plain["report_id"]) == f"\N{WHITE CIRCLE} {LABEL}"
        and not names.str.startswith("\N{WHITE CIRCLE}").any()
    )
    assert "In the table \N{WHITE CIRCLE} published" in text(at)


def test_two_thousand_reports_are_shown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.dashboard import frame

    found, _ = store.read_reports()
    copies = [found.assign(report_id=found["report_id"] + f"-{k}") for k in range(2000 // len(found) + 1)]
    many = pd.concat(copies, ignore_index=True)
    monkeypatch.setattr(Store, "read_reports", lambda self: (many, {}))
    frame.clear()
    at = page(timed_batch="all", timed_scope="all")
    frame.clear()
    assert len(many) >= 2000 and len(at.dataframe[0].value) == len(many)


# --- precisions ---------------------------------------------------------------------------------


@pytest.fixture
def coarse(store: Store, run: Run) -> Store:
    """One student in float32, and in int8 with what its images lose, faster and slower than that."""
    for precision, ms in [("fp32", 1.0), ("int8", 0.5), ("w4a32", 1.5)]:
        plain = report(run, ms=ms, runtime="onnxruntime", precision=precision)
        add_report(store, changed(plain, checks__max_abs_vs_ref=0.25))
    facts = artefact_facts(run.read("student"), precision="int8")
    write_json(run.path / "export" / "onnxruntime-int8" / "artefact.json", facts)
    return store


def test_precisions_stand_side_by_side_with_what_they_pay_and_lose(coarse: Store) -> None:
    at = page(devices="Precisions")
    assert at.selectbox(key="timed_student").value == LABEL
    said = text(at)
    assert "int8 in onnxruntime pays: 2.00 times (1.90 to 2.10) as fast as fp32. Its images are 0.0100 off on" in said
    assert "w4a32 in onnxruntime does not pay: 0.667 times" in said and "at most 0.250 off" in said
    assert {"fp32", "int8", "w4a32"} <= names(at)


def test_a_student_in_one_precision_alone_says_how_to_time_others(demo: Store) -> None:
    at = page(devices="Precisions", timed_student="d4w64h4p4")
    assert at.selectbox(key="timed_student").value == "d4w64h4p4" and names(at) >= {"fp32"}
    assert "Only one precision of this student is timed here" in text(at)
    assert at.code[0].value.endswith("--runtime onnxruntime,openvino --precision fp32,bf16,int8")


def test_a_slow_machines_fp32_is_no_reference_for_a_fast_ones_int8(coarse: Store, run: Run) -> None:
    add_report(coarse, report(run, ms=9.0, runtime="onnxruntime", device="my board"))
    at = page(devices="Precisions", every_device="true")
    assert "Device: choose one above" in text(at) and "pays" not in text(at)
    at = page(devices="Precisions", every_device="true", timed_device="my board")
    assert "Only one precision of this student is timed here" in text(at)


def test_mixed_batches_do_not_stand_beside_each_other(coarse: Store) -> None:
    assert "can't stand beside each other" in text(page(devices="Precisions", timed_batch="all"))


# --- size ---------------------------------------------------------------------------------------


def test_size_and_time_are_drawn_with_the_residuals(demo: Store) -> None:
    at = page(devices="Size")
    assert {"measured", "what its size says", "over what its size says"} <= names(at)
    assert "times what its" in text(at) and "M parameters say" in text(at)
    assert "This device has no card" in text(at)
    assert at.code[0].value.endswith("python -m lab predict d4w64h4p4 --device here --threads 2")


def test_with_a_card_the_roofline_says_why(store: Store) -> None:
    shapes = [(2, 32), (2, 64), (4, 96), (8, 128), (16, 32), (12, 48)]
    for k, (batch, (depth, width)) in enumerate(itertools.product((1, 16), shapes)):
        config = DiTConfig(depth=depth, width=width)
        made = store.open(Recipe(student=config, seed=k % len(shapes)))
        plain = changed(report(store.get(LABEL), ms=0.05 * depth + batch * depth * width**2 / 2e5, batch=batch),
                        model__config=config_to_json(config), model__weights_sha256=f"{k % len(shapes)}" * 64,
                        model__model_id=made.id, model__params=18 * depth * width**2,
                        model__macs=300 * depth * width**2,
                        device__name="a machine", report_id=f"made-up-{k}")  # fmt: skip
        add_report(store, plain)
    card = {"name": "a machine", "family": "x86_cpu", "memory_mb": 8000, "peak": {"fp32": 100.0}, "bandwidth": 20.0,
            "launch_us": 2.0, "threads": 2,
            "sources": {"peak.fp32": "measured", "bandwidth": "measured", "launch_us": "measured"}}  # fmt: skip
    write_json(store.root / "devices" / "cards" / "a-machine-2-threads.json", card)
    at = page(devices="Size", device="a machine")
    assert {"mostly overhead", "over the roofline"} <= names(at)
    assert "of its time goes to starting its" in text(at) and "fitted on 12 timings of eager" in text(at)
    at = page(devices="Size", device="a machine", size_by="Multiply-adds")
    assert "M multiply-adds say" in text(at)
    (store.root / "devices" / "cards" / "broken.json").write_text("{}")
    assert "devices/cards/broken.json: it is no device card" in text(page(devices="Size", device="a machine"))


def test_measured_parts_say_where_the_time_goes_or_which_command_measures_them(store: Store) -> None:
    at = page(devices="Size")
    assert "Nothing is kept of the parts of these students: batch 1, 2 threads" in text(at)
    command = "python benchmarks/measure.py --steps blocks --block-batch 1 --threads 2"
    assert any(c.value.endswith(command) for c in at.code)
    run = store.get(LABEL)
    parts = [{"part": part, "ms": ms, "share": ms, "flops": 9.0, "bytes": 9.0, "of_peak": 0.1, "of_bandwidth": 0.1,
              "roofline_ms": 0.1, "limit": "overhead"}
             for part, ms in [("embed", 0.1), ("blocks.0.attention", 0.6), ("blocks.0.mlp", 0.3)]]  # fmt: skip
    kept = {"schema": "device_blocks.v1", "created_utc": "2026-11-20T10:00:00+00:00", "card": {},
            "device": {"name": BENCH, "family": "x86_cpu"}, "state": {"threads": 2},
            "model": {"model_id": run.id, "config": {}, "weights_sha256": "0", "precision": "fp32"},
            "workload": {"scope": "core", "batch": 1, "nfe": 1}, "calls": 9, "whole_ms": 1.0, "of_roofline": 0.3,
            "software": {"runtime": "eager", "runtime_version": "2"}, "parts": parts}  # fmt: skip
    store.add_blocks("some-blocks", kept)
    store.add_blocks("cut-blocks", {"schema": "device_blocks.v1", "parts": [{}]})
    at = page(devices="Size")
    assert f"{LABEL}: 60% of 1.00 ms go to attention, and 100% pass where neither" in text(at)
    assert {"attention", "MLP", "ends"} <= names(at)
    told = kept | {
        "software": {"runtime": "onnxruntime", "runtime_version": "1"},
        "whole_ms": 1.2,
        "parts": [parts[0] | {"part": "head", "ms": 0.2}, *parts],
    }
    store.add_blocks("told-blocks", told)
    at = page(devices="Size")
    assert at.get("button_group") and "60% of 1.00 ms go to attention" in text(at)
    at.session_state["parts_form"] = "onnxruntime fp32"
    assert "50% of 1.20 ms go to attention" in text(at.run()) and "own account" in text(at)


@pytest.mark.parametrize(("changes", "said"), [
    ({"workload__scope": "e2e"}, "what the network alone needs: choose core"),
    ({"model__precision": "bf16"}, "The device's card has no peak for bf16"),
])  # fmt: skip
def test_a_card_that_says_nothing_of_these_timings_is_said_to_be_so(
    store: Store, run: Run, changes: dict[str, str], said: str
) -> None:
    sources = dict.fromkeys(["peak.fp32", "bandwidth", "launch_us"], "measured")
    card = {"name": "a machine", "family": "x86_cpu", "memory_mb": 8000, "peak": {"fp32": 100.0}, "bandwidth": 20.0,
            "launch_us": 2.0, "sources": sources}  # fmt: skip
    write_json(store.root / "devices" / "cards" / "a-machine.json", card)
    add_report(store, changed(report(run, ms=1.0, device="a machine"), **changes))
    at = page(devices="Size", device="a machine")
    assert said in text(at) and "has no card" not in text(at)


def test_doubtful_timings_say_nothing_about_size(store: Store) -> None:
    for path in (store.root / "devices").glob("*.json"):
        plain = json.loads(path.read_text())
        plain["state"]["throttled"] = True
        path.write_text(json.dumps(plain))
    assert "No sound timing under these conditions" in text(page(devices="Size"))


# --- elsewhere ----------------------------------------------------------------------------------


def test_estimates_are_hollow_called_estimated_and_kept_as_grade_f(store: Store) -> None:
    at = page(devices="Other devices", estimated_students=[LABEL], cards=["raspberry-pi-5"])
    assert "estimated, F" in text(at) and "Nobody has measured any of these." in text(at)
    (chart,) = charts(at)
    assert chart["data"][-1]["marker"]["symbol"] == ["circle-open-dot"]
    assert f"predict {store.get(LABEL).id} --device raspberry-pi-5 --precision fp32" in at.code[0].value
    next(b for b in at.button if b.label == "Keep these estimates").click().run()
    assert not at.exception and "They are kept" in text(at)
    (kept,) = store.reports().query("provenance == 'estimated'").to_dict("records")
    assert (kept["grade"], kept["device.name"]) == ("F", "Raspberry Pi 5")


def test_a_precision_that_a_card_lacks_is_a_sentence(store: Store) -> None:
    asked = {"estimated_students": LABEL, "cards": "laptop-i5-1240p", "estimated_precision": "fp16"}
    at = page(devices="Other devices", **asked)
    assert "has no peak for fp16" in at.warning[0].value.replace("\\", "")


def test_what_others_published_is_grey_of_grade_e_and_comparable_with_nothing(demo: Store) -> None:
    said = text(page(devices="Other devices"))
    assert "Grade E. None of these is comparable" in said.replace("*", "")
    assert "(nan)" not in said and ":gray[SnapFusion, as written up by Paperspace]" in said
    assert ":gray[iPhone 16 Pro Max]" in said and "(https://arxiv.org/abs/2601.08303)" in said


# --- a report from a board ----------------------------------------------------------------------


def brought(at: AppTest, *files: tuple[str, bytes]) -> AppTest:
    at.file_uploader(key="brought").set_value([(name, content, "application/json") for name, content in files])
    next(b for b in at.button if b.label == "Check, grade and keep").click().run()
    assert not at.exception, at.exception
    return at


def test_a_report_is_uploaded_graded_kept_and_seen(store: Store, run: Run) -> None:
    plain = changed(report(run, ms=4.0, device="my board"), device__family="jetson", state__power_mode="15W")
    at = brought(page(devices="Bring a report"), ("orin.json", json.dumps(plain).encode()))
    (said,) = [e.value.replace("\\", "") for e in at.success]
    assert said.startswith(f"orin.json: 4 ms p50 on my board; kept; it joins {LABEL}. Grade C:\n")
    assert "\n- preset quick, not publishable" in said
    assert store.report(plain["report_id"])["provenance"] == "imported"
    assert "my board, 15W" in at.selectbox(key="device").options
    again = brought(at, ("orin.json", json.dumps(plain).encode()))
    assert "it is here already, nothing changed" in again.success[0].value


def test_a_throttled_report_is_kept_but_graded_down(store: Store, run: Run) -> None:
    plain = report(run, ms=4.0, device="my board", throttled=True)
    at = brought(page(devices="Bring a report"), ("hot.json", json.dumps(plain).encode()))
    said = at.warning[0].value.replace("\\", "")
    assert said.endswith("Grade D:\n\n- the device was throttled") and "left out of recommendations" in said
    assert store.report(plain["report_id"])


def test_every_file_that_is_none_gets_its_sentence_and_nothing_is_kept(store: Store, run: Run) -> None:
    before = sorted(p.name for p in (store.root / "devices").iterdir())
    good = json.dumps(report(run, ms=4.0, device="my board")).encode()
    at = brought(page(devices="Bring a report"), ("a.json", b"{"), ("b.json", b"[" * 100_000), ("good.json", good))
    said = [e.value.replace("\\", "") for e in at.error]
    assert said[0].startswith("a.json is not JSON") and said[1].startswith("b.json is nested too deeply")
    assert said[2] == "none of the 3 files was stored"
    assert sorted(p.name for p in (store.root / "devices").iterdir()) == before


def test_no_file_is_said(demo: Store) -> None:
    at = page(devices="Bring a report")
    next(b for b in at.button if b.label == "Check, grade and keep").click().run()
    assert at.error[0].value == "No file was chosen\\."


def test_the_way_to_a_report_is_in_order_with_the_runner_to_read(demo: Store) -> None:
    at = page(devices="Bring a report")
    commands = [c.value for c in at.code]
    assert "python -m lab pack fashion-mnist-d" in commands[0] and "--target jetson" in commands[0]
    assert commands[1].startswith("unzip student.zip") and commands[2] == "python3 runner.py --preset publishable"
    assert "python -m lab import " in commands[3]
    said = text(at)
    steps = [said.index(f"**{k}. ") for k in range(1, 5)]
    assert steps == sorted(steps)
    assert "Download runner.py to read it" in [b.label for b in at.get("download_button")]
    assert at.get("page_link")


def test_without_a_report_the_guide_and_what_is_known_elsewhere_stand_there(untimed: Store) -> None:
    at = page()
    assert "No device report yet" in at.info[0].value and at.file_uploader
    assert "estimated, F" in text(at) and "Grade E." in text(at)


def test_an_empty_folder_shows_the_way_from_the_first_run_on(nothing: Store) -> None:
    at = page()
    assert "python -m lab run " in at.code[0].value and "python -m lab pack RUN" in at.code[1].value
    assert "No finished one-step student to estimate yet" in text(at) and "Grade E." in text(at)


def test_a_name_is_text_wherever_it_stands(store: Store, run: Run) -> None:
    run.set_notes(label="<b>x</b> [y](http://z)")
    at = page(reports=store.reports().query("`model.model_id` == @run.id")["report_id"].iloc[0])
    assert not any("<b>x" in e.value.replace(r"\<", "") for e in [*at.subheader, *at.markdown, *at.caption])
    assert "<b>x" not in json.dumps(charts(at)).replace("\\u003c", "<")
