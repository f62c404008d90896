from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from lab import choose, figures
from lab.choose import Budget
from lab.results import reports_of, table_of


def rows(count: int = 3, **columns: object) -> pd.DataFrame:
    """Candidates from cheap and poor to dear and good, with the teacher's columns."""
    k = np.arange(count)
    frame = pd.DataFrame({
        "run": [f"run-{i}" for i in k], "name": [f"n{i}" for i in k], "shape": [f"d{i}" for i in k], "method": "pairs",
        "method_short": "plain",
        "params_m": 0.1 * (k + 1), "macs_m": 5.0 * (k + 1), "latency_ms": 0.2 * (k + 1), "fd": 3.0 - 0.5 * k,
        "fd_low": 2.9 - 0.5 * k, "fd_high": 3.2 - 0.5 * k, "fd_reference": "toy train", "extractor": "cnn-1",
        "samples": 1000.0, "eval_seed": 7.0, "runtime": "eager", "timed_dtype": "fp32", "grade": "C", "device": "bench",
        "batch": 1.0, "threads": 2.0, "scope": "core", "percentile": "p50", "provenance": "measured", "speed_up": 20.0,
        "fits": True, "why_not": "",
    })  # fmt: skip
    return frame.assign(**columns)


def traces(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data}


def test_every_point_carries_its_run_and_its_error() -> None:
    drawn = traces(figures.tradeoff(rows(), "latency_ms", "fd"))["pairs"]
    assert [run for (run,) in drawn.customdata] == ["run-0", "run-1", "run-2"]
    assert list(drawn.x) == pytest.approx([0.2, 0.4, 0.6])
    assert list(drawn.error_y.array) == pytest.approx([0.2] * 3) and list(drawn.error_y.arrayminus) == pytest.approx(
        [0.1] * 3
    )


def test_the_front_line_passes_only_points_that_none_beats_and_that_fit() -> None:
    frame = rows(5, fd=[3.0, 2.0, 2.5, 1.5, 1.0], fits=[True] * 4 + [False])
    line = traces(figures.tradeoff(frame, "latency_ms", "fd"))["front"]
    assert list(line.y) == [3.0, 2.0, 1.5]


def test_what_does_not_fit_is_grey_and_hollow_not_only_grey() -> None:
    drawn = traces(figures.tradeoff(rows(fits=[True, True, False]), "latency_ms", "fd"))
    over = drawn["over the budget"]
    assert (over.marker.color, over.marker.symbol) == (figures.GREY, "circle-open")
    assert len(over.x) == 1 and len(drawn["pairs"].x) == 2


def test_two_methods_differ_in_shape_and_in_colour() -> None:
    drawn = traces(figures.tradeoff(rows(method=["pairs", "pairs", "ternary"]), "params_m", "fd"))
    one, two = drawn["pairs"].marker, drawn["ternary"].marker
    assert one.symbol != two.symbol and one.color != two.color


def test_all_that_is_over_the_budget_is_one_trace_in_which_each_method_keeps_its_shape() -> None:
    frame = rows(5, method=["pairs", "ternary", "pairs", "ternary", "pairs"], fits=[True] * 2 + [False] * 3)
    drawn = traces(figures.tradeoff(frame, "params_m", "fd"))
    over, shape = drawn["over the budget"], drawn["ternary"].marker.symbol
    assert over.marker.symbol == ("circle-open", f"{shape}-open", "circle-open")
    assert [run for (run,) in over.customdata] == ["run-2", "run-3", "run-4"] and over.showlegend


def test_where_winners_are_told_the_methods_without_one_share_a_line_of_the_legend() -> None:
    frame = rows(5, method=["pairs", "ternary", "pairs", "manifold", "pairs"], fd=[3.0, 3.1, 2.0, 2.5, 1.5])
    drawn = traces(figures.tradeoff(frame, "latency_ms", "fd", winners=True))
    assert set(drawn) == {"front", "pairs", "other methods, beaten"}
    beaten = drawn["other methods, beaten"]
    assert [run for (run,) in beaten.customdata] == ["run-1", "run-3"] and beaten.marker.color == figures.GREY
    assert len({*beaten.marker.symbol}) == 2 and not any("open" in symbol for symbol in beaten.marker.symbol)


TAUGHT = {"method": ["pairs", "pairs", "pairs+ternary"], "method_short": ["plain", "plain", "ternary"]}


def test_a_method_keeps_its_colour_and_shape_where_others_are_filtered_out() -> None:
    frame = rows(**TAUGHT)
    whole = traces(figures.tradeoff(frame, "params_m", "fd"))
    assert {"plain", "ternary"} <= set(whole)
    alone = figures.tradeoff(frame[frame["method_short"] == "ternary"], "params_m", "fd", methods=frame["method"])
    drawn = traces(alone)["pairs+ternary"].marker
    assert (drawn.symbol, drawn.color) == (whole["ternary"].marker.symbol, whole["ternary"].marker.color)


def test_three_axes_tell_methods_apart_by_colour_and_shape() -> None:
    drawn = traces(figures.tradeoff_3d(rows(**TAUGHT, fd=[2.0, 2.5, 1.5]), "latency_ms", "fd", "params_m"))
    assert set(drawn) == {"plain, on the front", "plain, beaten by another", "ternary, on the front"}
    one, two, beaten = (drawn[name].marker for name in sorted(drawn, key=lambda name: ("beaten" in name, name)))
    assert one.symbol != two.symbol and one.color != two.color
    assert (beaten.symbol, beaten.color) == (one.symbol + "-open", one.color)


def test_a_plain_twin_shares_what_decides_but_guide_and_methods() -> None:
    base = {"data": "toy", "shape": "d4", "pairs": 10, "images": 400, "seed": 0, "method": "pairs",
            "method_short": "plain"}  # fmt: skip
    guided = base | {"method": "pairs+ta", "method_short": "ta", "guide": "run:big"}
    table = table_of([base | {"run": "plain"}, base | {"run": "long", "images": 800}, guided | {"run": "ta"},
                      guided | {"run": "seed", "seed": 1}, base | {"run": "led", "guide": "run:big"}])  # fmt: skip
    assert figures.plain_twins(table) == {"ta": "plain", "led": "plain"}
    assert figures.beside_twins(table.iloc[2:4], table)["run"].tolist() == ["ta", "plain", "seed"]
    assert figures.plain_twins(table_of([])) == {}


def test_the_marker_grows_with_the_parameters() -> None:
    sizes = traces(figures.tradeoff(rows(params_m=[0.2, 0.5, 1.2]), "latency_ms", "fd"))["pairs"].marker.size
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize(
    "column, values, said",
    [
        ("samples", [1000.0, 1000.0, 500.0], "Frechet distance values of different protocols can't share an axis"),
        ("extractor", ["a", "b", "b"], "different protocols"),
        ("fd_reference", ["train", "test", "test"], "different protocols"),
        ("eval_seed", [0.0, 1.0, 0.0], "different protocols"),
        ("device", ["a", "b", "a"], "latencies of different device"),
        ("threads", [1.0, 2.0, 2.0], "latencies of different threads"),
        ("batch", [1.0, 16.0, 1.0], "different batch"),
    ],
)
def test_mixed_conditions_are_refused_with_the_choices(column: str, values: list[object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        figures.tradeoff(rows(**{column: values}), "latency_ms", "fd")
    with pytest.raises(ValueError, match=said):
        figures.tradeoff_3d(rows(**{column: values}), "latency_ms", "fd", "params_m")


def test_a_teacher_of_another_protocol_is_refused_too() -> None:
    with pytest.raises(ValueError, match="different protocols"):
        figures.tradeoff(rows(), "latency_ms", "fd", teacher=rows(1, samples=500.0))


def test_conditions_of_what_is_not_drawn_do_not_matter() -> None:
    figures.tradeoff(rows(device=["a", "b", "a"]), "params_m", "fd")
    figures.tradeoff(rows(samples=[1000.0, 500.0, 500.0], class_accuracy=0.9), "latency_ms", "params_m")


def test_axis_titles_carry_unit_and_sample_count() -> None:
    figure = figures.tradeoff(rows(), "latency_ms", "fd")
    assert figure.layout.xaxis.title.text == "Latency (ms, p50, batch 1)"
    assert figure.layout.yaxis.title.text == "Frechet distance<br>(1,000 samples, lower is better)"


def test_a_distant_teacher_is_a_line_with_its_value_and_a_near_one_a_star() -> None:
    near = figures.tradeoff(rows(), "latency_ms", "fd", teacher=rows(1, latency_ms=0.9, fd=1.0, run="t"))
    assert traces(near)["teacher"].marker.symbol == "star"
    far = figures.tradeoff(rows(), "latency_ms", "fd", teacher=rows(1, latency_ms=40.0, fd=1.0, run="t"))
    assert "teacher" not in traces(far)
    assert [a.text for a in far.layout.annotations] == ["teacher, 40.0 ms (beyond this axis)"]
    assert far.layout.shapes[0].y0 == 1.0


def test_the_teachers_label_stands_at_its_line_on_both_kinds_of_axis() -> None:
    for log, at in [(False, 2.5), (True, np.log10(2.5))]:
        figure = figures.tradeoff(rows(), "latency_ms", "fd", log_y=log,
                                  teacher=rows(1, latency_ms=40.0, fd=2.5, run="t"))  # fmt: skip
        assert figure.layout.shapes[0].y0 == 2.5 and figure.layout.annotations[0].y == pytest.approx(at)


def test_the_limit_stands_at_its_value_on_both_kinds_of_axis() -> None:
    for log, at in [(False, 0.5), (True, np.log10(0.5))]:
        figure = figures.tradeoff(rows(), "latency_ms", "fd", limits={"latency_ms": 0.5, "file_mb": 9}, log_x=log)
        assert len(figure.layout.shapes) == 1 and figure.layout.annotations[0].text == "limit 0.5 ms"
        assert figure.layout.shapes[0].x0 == 0.5 and figure.layout.annotations[0].x == pytest.approx(at)


def test_a_row_without_latency_is_not_drawn_on_that_axis() -> None:
    drawn = traces(figures.tradeoff(rows(latency_ms=[0.2, np.nan, 0.6]), "latency_ms", "fd"))["pairs"]
    assert [run for (run,) in drawn.customdata] == ["run-0", "run-2"]


def test_names_of_crowded_points_do_not_cover_each_other_but_the_pick_is_named() -> None:
    frame = rows(30)
    frame["fd"] = 3.0 - 0.001 * np.arange(30)
    frame["latency_ms"] = 0.2 + 0.001 * np.arange(30)
    drawn = traces(figures.tradeoff(frame, "latency_ms", "fd", pick="run-7"))
    assert drawn["the pick"].text == ("n7",) and sum(bool(t) for t in drawn["pairs"].text) == figures.MOST_NAMES - 1


def test_a_ringed_point_s_name_rather_covers_points_than_the_pick_s_name() -> None:
    """The knee and the pick beside each other, with points all around but to the lower left of both."""
    near = [(0.50, 1.45), (0.51, 1.40), *[(0.56, fd) for fd in (1.1, 1.25, 1.6, 1.75)], *[(0.45, 1.75), (0.46, 1.6)]]
    frame = rows(10, latency_ms=[0.1, *(ms for ms, _ in near), 2.0], fd=[3.0, *(fd for _, fd in near), 0.5],
                 fd_low=np.nan, fd_high=np.nan)  # fmt: skip
    found = traces(figures.tradeoff(frame, "latency_ms", "fd", pick="run-2", knee="run-1", log_x=True))
    assert [found[name].text[0] for name in ("the pick", "the knee")] == ["n2", "n1"]
    assert found["the pick"].textposition[0] == "bottom left" != found["the knee"].textposition[0]


def test_a_name_stands_where_it_covers_no_other_point() -> None:
    # To the lower left of the second, where its name would stand by itself, lies the third.
    frame = rows(4, latency_ms=[0.2, 0.6, 0.53, 1.0], fd=[3.0, 1.4, 1.33, 1.0], fd_low=np.nan, fd_high=np.nan)
    drawn = traces(figures.tradeoff(frame, "latency_ms", "fd", pick="run-1"))["the pick"]
    assert drawn.text == ("n1",) and drawn.textposition[0] != "bottom left"
    away = traces(figures.tradeoff(frame.drop(index=2), "latency_ms", "fd", pick="run-1"))["the pick"]
    assert away.textposition == ("bottom left",)


def test_a_name_rather_crosses_the_limit_s_line_than_another_point() -> None:
    frame = rows(
        5, latency_ms=[0.2, 0.6, 0.57, 0.57, 1.0], fd=[3.0, 1.4, 1.25, 1.55, 1.0], fd_low=np.nan, fd_high=np.nan
    )
    drawn = traces(figures.tradeoff(frame, "latency_ms", "fd", pick="run-1", limits={"latency_ms": 0.65}))["the pick"]
    assert drawn.textposition[0].endswith("right")


def test_a_name_does_not_end_outside_a_narrow_chart() -> None:
    # At its lower left lies another point; to its right is room on a wide screen, on one of 390 pixels there is none.
    frame = rows(4, latency_ms=[0.2, 0.9, 0.83, 1.0], fd=[3.0, 1.4, 1.33, 1.0], fd_low=np.nan, fd_high=np.nan)
    drawn = traces(figures.tradeoff(frame.assign(name="12 x 40"), "latency_ms", "fd", pick="run-1"))["the pick"]
    assert drawn.text == ("12 x 40",) and drawn.textposition == ("top left",)


def test_the_knee_is_marked_by_a_shape_of_its_own_also_where_it_is_the_pick() -> None:
    drawn = traces(figures.tradeoff(rows(4), "latency_ms", "fd", pick="run-3", knee="run-1"))
    assert drawn["the knee"].marker.symbol == "diamond-open" and list(drawn["the knee"].x) == [0.4]
    assert drawn["the pick"].text == ("n3",) and drawn["the knee"].text == ("n1",)
    both = traces(figures.tradeoff(rows(4), "latency_ms", "fd", pick="run-1", knee="run-1"))
    assert [both[name].text for name in ("the pick", "the knee")] == [("",), ("n1",)]


def test_a_label_is_text_and_never_markup() -> None:
    label = "<a href='http://x'>click</a>"
    drawn = traces(figures.tradeoff(rows(name=label), "latency_ms", "fd", pick="run-0"))["pairs"]
    assert "<a" not in "".join(drawn.text) and "<a" not in "".join(drawn.hovertext)


def test_the_hover_names_cost_speed_and_what_is_over() -> None:
    text = figures.hover(rows(why_not="0.6 ms is above 0.5").iloc[0].to_dict())
    for part in [
        "n0",
        "0.100 M parameters",
        "5.00 M MACs",
        "0.200 ms p50, eager, grade C",
        "20.0 times as fast",
        "above 0.5",
    ]:
        assert part in text
    assert "nan" not in figures.hover(rows(latency_ms=np.nan, speed_up=np.nan, macs_m=np.nan).iloc[0].to_dict())
    text = figures.hover(rows(params_trained_m=0.14, macs_trained_m=5.0).iloc[0].to_dict())
    assert "0.100 M parameters (0.140 as trained)<br>5.00 M MACs<br>" in text


def test_the_caption_says_every_condition_and_what_was_left_out() -> None:
    said = figures.conditions(rows(runtime=["eager", "compiled", "compiled"]), ["Left out: 1 run hidden (x)."])
    for part in [
        "cnn-1, 1,000 samples, against toy train, seed 7",
        "95 % intervals",
        "bench",
        "compiled (2), eager (1)",
        "batch 1",
        "2 threads",
        "grade C",
        "measured",
        "Left out: 1 run hidden (x).",
    ]:
        assert part in said


def test_the_caption_of_untimed_rows_speaks_of_no_latency() -> None:
    assert "Latency" not in figures.conditions(rows(latency_ms=np.nan))


def test_nothing_to_draw_is_an_empty_figure_not_an_error() -> None:
    assert len(figures.tradeoff(rows().iloc[:0], "latency_ms", "fd").data) == 0


def test_three_axes_mark_what_none_beats_on_all_three() -> None:
    frame = rows(3, fd=[2.0, 2.5, 1.5])
    drawn = traces(figures.tradeoff_3d(frame, "latency_ms", "fd", "params_m"))
    assert [run for (run,) in drawn["on the front"].customdata] == ["run-0", "run-2"]


def test_three_axes_have_a_front_for_each_two_of_them() -> None:
    frame = rows(3, macs_m=[5.0, 1.0, 3.0], latency_ms=[0.2, 0.4, 0.4])
    small = figures.projections(frame, "latency_ms", "fd", "macs_m", log=["latency_ms"])
    assert [(f.layout.xaxis.type, len(traces(f)["pairs"].x)) for f in small] == [("log", 3), ("linear", 3), ("log", 3)]
    assert [list(traces(f)["front"].y) for f in small] == [[3.0, 2.0], [2.5, 2.0], [5.0, 1.0]]
    with pytest.raises(ValueError, match="can't share an axis"):
        figures.projections(frame.assign(samples=[500.0, 1000.0, 500.0]), "latency_ms", "fd", "macs_m")


def test_the_candidates_of_a_store_are_drawn_as_they_come() -> None:
    table = table_of(
        {
            "run": ["a"],
            "label": ["a"],
            "shape": ["d1"],
            "method": ["pairs"],
            "params": [1e5],
            "fd": [2.0],
            "fd_reference": ["toy"],
            "extractor": ["cnn"],
            "samples": [100.0],
            "eval_seed": [0.0],
        }
    )
    found = choose.candidates(table, reports_of([]), Budget())
    assert len(traces(figures.tradeoff(found, "params_m", "fd"))["pairs"].x) == 1


# --- estimates beside measurements ---


def test_an_estimate_is_hollow_called_estimated_and_has_its_interval() -> None:
    frame = rows(provenance=["measured", "measured", "estimated"], grade=["C", "C", "F"], latency_low=[0.1, 0.3, 0.2],
                 latency_high=[0.3, 0.5, 1.9])  # fmt: skip
    drawn = traces(figures.tradeoff(frame, "latency_ms", "fd", pick="run-2"))
    points = drawn["pairs"]
    assert points.marker.symbol == ("circle", "circle", "circle-open-dot")
    assert drawn["estimated"].marker.symbol == "circle-open-dot" and drawn["estimated"].x == (None,)
    assert list(drawn["the pick"].text) == ["n2, estimated"]
    assert list(points.error_x.array) == pytest.approx([0.1, 0.1, 1.3])
    assert list(points.error_x.arrayminus) == pytest.approx([0.1, 0.1, 0.4])
    turned = traces(figures.tradeoff(frame, "fd", "latency_ms"))["pairs"]
    assert list(turned.error_y.array) == pytest.approx([0.1, 0.1, 1.3])
    assert "(0.200 to 1.90), estimated, grade F" in points.hovertext[2]
    assert "intervals of measured ones span" in figures.conditions(frame)
    over = traces(figures.tradeoff(frame.assign(fits=False), "latency_ms", "fd"))
    assert over["over the budget"].marker.symbol == ("circle-open", "circle-open", "circle-open-dot")


def test_an_estimate_does_not_matter_where_no_latency_is_drawn() -> None:
    drawn = traces(figures.tradeoff(rows(provenance="estimated"), "params_m", "fd"))
    assert len(drawn["pairs"].x) == 3 and "estimated" not in drawn


def test_the_hover_names_a_precision_that_draws_other_images() -> None:
    assert "eager int8, grade C" in figures.hover(rows(timed_dtype="int8").iloc[0].to_dict())


def test_thousands_of_points_are_one_webgl_trace_and_only_the_front_has_names_and_intervals() -> None:
    k = np.arange(2000)
    frame = rows(2000, latency_ms=0.2 + 0.001 * k, fd=np.where(k % 100 == 0, 3.0, 3.5) - 0.001 * k)
    frame = frame.assign(fd_low=frame["fd"] - 0.1, fd_high=frame["fd"] + 0.1)
    drawn = [trace for trace in figures.tradeoff(frame, "latency_ms", "fd").data if trace.name == "pairs"]
    (many,) = [trace for trace in drawn if trace.type == "scattergl"]
    (front,) = [trace for trace in drawn if trace.type == "scatter"]
    assert len(many.x) + len(front.x) == 2000 and len(front.x) <= 20
    assert many.mode == "markers" and many.error_y.array is None and len(front.error_y.array) == len(front.x)
    assert "bars, of the front alone, are 95 % intervals" in figures.conditions(frame)
    assert max(many.marker.size) < max(front.marker.size) and many.marker.opacity < front.marker.opacity
    assert any(front.text) and (many.legendgroup, front.showlegend) == (front.legendgroup, False)
    assert {trace.type for trace in figures.tradeoff(frame.head(200), "latency_ms", "fd").data} == {"scatter"}


def test_a_latency_that_is_not_sound_is_hollow_and_named_in_two_and_three_dimensions() -> None:
    frame = rows(4, provenance=["measured", "measured", "published", "estimated"], grade=["C", "D", "E", "F"])
    drawn = traces(figures.tradeoff(frame, "latency_ms", "fd"))
    assert dict(zip(drawn["pairs"].customdata[:, 0], drawn["pairs"].marker.symbol)) == dict(
        zip(frame["run"], ["circle", "circle-open", "circle-open", "circle-open-dot"])
    )
    keys = {name: trace.marker.symbol for name, trace in drawn.items() if list(trace.x) == [None]}
    assert keys == {"graded D or published": "circle-open", "estimated": "circle-open-dot"}
    turned = traces(figures.tradeoff(frame.iloc[::-1], "latency_ms", "fd"))["pairs"]
    assert turned.marker.symbol[0] == "circle"  # which the legend shows
    assert len(traces(figures.tradeoff(frame, "params_m", "fd"))["pairs"].x) == 4
    solid = traces(figures.tradeoff_3d(frame, "latency_ms", "fd", "params_m"))
    assert len(solid["on the front"].x) == 1 and len(solid["on the front, not measured or graded D"].x) == 3
    assert solid["on the front, not measured or graded D"].marker.symbol == "diamond-open"
