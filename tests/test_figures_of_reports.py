from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from lab import figures


def traces(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data}


def timings(count: int = 3, **columns: object) -> pd.DataFrame:
    """Rows of compare.named, from fast to slow."""
    k = np.arange(count)
    frame = pd.DataFrame({
        "report_id": [f"report-{i:04d}" for i in k], "name": [f"n{i}" for i in k], "form": "eager fp32", "run": "",
        "device": "bench", "timing.p50": 1.0 + k, "low": 0.9 + k, "high": 1.1 + k, "timing.p90": 1.2 + k,
        "timing.p99": 1.5 + k, "timing.load_ms": 20.0, "timing.build_ms": np.nan, "timing.first_ms": 5.0,
        "workload.batch": 1, "state.threads": 2, "workload.scope": "core", "grade": "C", "provenance": "measured",
        "grade_reasons": [("preset quick, not publishable",)] * count, "model.precision": "fp32",
        "runtime": "eager", "verdict": "reference",
    })  # fmt: skip
    return frame.assign(**columns)


def test_timings_stand_below_each_other_the_fastest_first_with_their_interval() -> None:
    figure = figures.latencies(timings(form=["a", "b", "a"]))
    drawn = traces(figure)
    assert list(drawn["a"].x) == [1.0, 3.0] and [r for (r,) in drawn["a"].customdata] == ["report-0000", "report-0002"]
    assert list(drawn["a"].error_x.array) == pytest.approx([0.1, 0.1])
    assert list(figure.layout.yaxis.categoryarray)[-1].startswith("n0")
    assert drawn["a"].marker.color != drawn["b"].marker.color and drawn["a"].marker.symbol != drawn["b"].marker.symbol
    assert "grade C:<br>- preset quick, not publishable" in drawn["b"].hovertext[0]


def test_no_two_of_many_forms_share_shape_and_colour() -> None:
    drawn = traces(figures.latencies(timings(20, form=[f"form {k}" for k in range(20)])))
    marks = {(trace.marker.color, *trace.marker.symbol) for name, trace in drawn.items() if "form" in (name or "")}
    assert len(marks) == 20


def test_what_is_doubtful_is_hollow_and_what_nobody_measured_says_so() -> None:
    frame = timings(grade=["A", "D", "F"], provenance=["measured", "measured", "estimated"])
    figure = figures.latencies(frame)
    assert list(traces(figure)["eager fp32"].marker.symbol) == ["circle", "circle-open", "circle-open-dot"]
    assert [label.endswith("estimated, F") for label in figure.layout.yaxis.categoryarray] == [True, False, False]


def test_a_percentile_orders_and_leaves_out_what_does_not_know_it() -> None:
    frame = timings(**{"timing.p99": [9.0, 8.0, np.nan]})
    drawn = traces(figures.latencies(frame, "p99"))["eager fp32"]
    assert list(drawn.x) == [2.0, 1.0]


def test_two_thousand_timings_are_cut_to_what_can_be_read() -> None:
    assert len(traces(figures.latencies(timings(2000)))["eager fp32"].x) == figures.MOST_TIMINGS


def test_labels_name_the_conditions_in_which_rows_differ_and_are_never_alike() -> None:
    said = figures.timing_labels(timings(name="n", **{"workload.batch": [1, 16, 16], "state.threads": [2, 2, np.nan]}))
    ends = [", batch 1, 2 threads, C", ", batch 16, 2 threads, C", ", batch 16, C"]
    assert [s.split("fp32")[1] for s in said] == ends
    assert len(set(figures.timing_labels(timings(name="n")))) == 3


def test_kept_times_show_every_session_s_thirds_and_the_slowest_calls() -> None:
    steady = np.full(3000, 1_000_000)
    steady[2000:] = 1_500_000
    steady[1234] = 90_000_000
    figure = figures.over_time(steady.tolist(), sessions=2)
    drawn = traces(figure)
    assert 90.0 in drawn["one call"].y and len(drawn["one call"].x) <= figures.CURVE_POINTS
    thirds = [trace for trace in figure.data if trace.name == "median of a third"]
    assert len(thirds) == 6 and thirds[0].y[0] == 1.0 and thirds[-1].y[0] == 1.5
    assert figure.layout.yaxis.range[1] < 3 and len(figure.layout.shapes) == 1
    assert len(figures.over_time([]).data) == 2


def test_stages_leave_out_what_a_report_does_not_know() -> None:
    (bar,) = figures.stages(timings(1)).data
    assert list(bar.y) == ["load", "first", "steady"] and list(bar.x) == [20.0, 5.0, 1.0]
    two = figures.stages(timings(2)).data
    assert two[0].marker.pattern.shape != two[1].marker.pattern.shape


def test_precisions_that_do_not_pay_are_hatched() -> None:
    verdicts = ["reference", "not shown to pay", "pays"]
    frame = timings(verdict=verdicts, **{"model.precision": ["fp32", "fp16", "int8"]})
    drawn = traces(figures.precisions(frame))
    assert [drawn[p].marker.pattern.shape[0] for p in ("fp32", "fp16", "int8")] == ["", "/", ""]
    assert list(drawn["int8"].error_y.array) == pytest.approx([0.1])


def sized(**columns: object) -> pd.DataFrame:
    """Rows of compare.sizes."""
    frame = pd.DataFrame({
        "name": ["deep", "wide", "plain"], "run": ["r0", "r1", "r2"], "shape": "any", "ms": [2.0, 1.0, 0.5],
        "params_m": [0.1, 0.4, 0.05], "macs_m": [5.0, 20.0, 2.0], "by_size": [1.0, 1.1, 0.6],
        "than_size": [2.0, 0.9, 0.83], "roofline": [1.9, 1.0, 0.5], "than_roofline": [1.05, 1.0, 1.0],
        "overhead": [0.8, 0.2, 0.5], "arithmetic": [0.1, 0.7, 0.3], "memory": [0.1, 0.1, 0.2],
        "operations": [160.0, 40.0, 20.0],
    })  # fmt: skip
    return frame.assign(**columns)


def test_a_shape_above_the_line_is_filled_and_named_with_its_cause() -> None:
    drawn = traces(figures.size_and_time(sized(), "params_m"))
    assert list(drawn["what its size says"].x) == [0.05, 0.1, 0.4]
    assert list(drawn["mostly overhead"].marker.symbol) == ["square", "square-open"]
    assert list(drawn["mostly arithmetic"].marker.symbol) == ["circle-open"]
    assert drawn["mostly overhead"].text[0] == "deep"
    assert "2.00 times what its size says" in drawn["mostly overhead"].hovertext[0]


def test_without_a_card_sizes_are_only_measured() -> None:
    nothing = dict.fromkeys(("roofline", "than_roofline", "overhead", "arithmetic", "memory"), np.nan)
    assert "measured" in traces(figures.size_and_time(sized(**nothing), "macs_m"))
    assert list(traces(figures.residuals(sized(**nothing)))) == ["over what its size says"]


def test_parts_have_a_bar_for_what_was_measured_and_one_for_the_least() -> None:
    table = pd.DataFrame({"name": ["a", "a", "<b>"], "kind": ["attention", "MLP", "MLP"], "ms": [0.5, 0.25, 0.4],
                          "roofline_ms": [0.05, 0.1, 0.2]})  # fmt: skip
    figure = figures.parts(table)
    bars = {(bar.name, bar.showlegend): bar for bar in figure.data}
    assert list(bars["MLP", True].x) == [0.25, 0.4] and list(bars["MLP", False].x) == [0.1, 0.2]
    assert (np.array(bars["MLP", False].y) > np.array(bars["MLP", True].y)).all()  # below: the axis runs downwards
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    assert list(figure.layout.yaxis.ticktext) == ["a", "&lt;b&gt;"] and figure.layout.barmode == "stack"
    many = pd.concat([table.assign(name=f"s{k}") for k in range(30)])
    assert len(figures.parts(many).layout.yaxis.ticktext) == figures.MOST_PARTED


def test_residuals_are_drawn_from_one() -> None:
    drawn = traces(figures.residuals(sized()))
    assert list(drawn["over what its size says"].x) == pytest.approx([1.0, -0.1, -0.17])
    assert drawn["over the roofline"].base == 1 and drawn["over the roofline"].marker.pattern.shape == "/"


def test_no_figure_of_reports_needs_a_row() -> None:
    none, no_shape = timings(0), sized().iloc[:0]
    for figure in (figures.latencies(none), figures.stages(none), figures.precisions(none),
                   figures.size_and_time(no_shape, "params_m"), figures.residuals(no_shape)):  # fmt: skip
        assert sum(len(trace.x) for trace in figure.data if trace.x is not None) == 0


def test_a_student_s_name_in_a_figure_of_reports_is_text() -> None:
    figure = figures.latencies(timings(name="<a href='x'>y</a>"))
    assert "<a" not in figure.to_json().replace("\\u003c", "<")


def test_the_ecdf_keeps_the_share_and_the_slowest_times_of_a_long_series() -> None:
    raw = [1_000_000 + k for k in range(4000)] + [90_000_000]
    (curve,) = figures.ecdf({"<b>a</b>": raw}).data
    assert curve.name == "&lt;b&gt;a&lt;/b&gt;" and len(curve.x) <= figures.ECDF_POINTS + 50
    assert curve.x[-1] == 90.0 and curve.y[-1] == 1.0 and curve.x[-2] < 1.01
    middle = np.searchsorted(curve.y, 0.5)
    assert curve.x[middle] == pytest.approx(1.002, abs=2e-5)
    assert figures.ecdf({"a": raw}).layout.xaxis.type == "log"
    assert figures.ecdf({"a": raw[:-1], "none": []}).layout.xaxis.type == "linear"


def test_the_state_strips_show_what_reports_know_and_nothing_where_none_does() -> None:
    frame = timings(2)
    assert figures.states(frame) is None
    frame = frame.assign(**{"state.cpu_mhz.min": [900, 1000.0], "state.cpu_mhz.mean": [1000, 1200.0],
                            "state.cpu_mhz.max": [1100, 1500.0], "state.temp_c.min": [40.0, np.nan],
                            "state.temp_c.mean": [45.0, np.nan], "state.temp_c.max": [50.0, np.nan]})  # fmt: skip
    drawn = figures.states(frame)
    assert [list(trace.x) for trace in drawn.data] == [[900, 1000, 1100], [1000, 1200, 1500], [40, 45, 50]]
    assert [note.text for note in drawn.layout.annotations] == ["CPU (MHz)", "Temperature (\N{DEGREE SIGN}C)"]
