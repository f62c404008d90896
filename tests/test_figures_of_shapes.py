"""Curves over depth and heads, and factors beside 1."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from lab import figures
from lab.figures.factors import VERDICTS


def shapes(*of: tuple[int, int, float], **columns: object) -> pd.DataFrame:
    """Depth, width and distance of some shapes of four heads, one training each."""
    frame = pd.DataFrame(of, columns=["depth", "width", "fd"]).astype(float)
    frame["run"] = [f"run-{k}" for k in range(len(frame))]
    frame["name"] = [f"{d:.0f}x{w:.0f}" for d, w in zip(frame["depth"], frame["width"])]
    frame["shape"] = "d" + frame["name"] + "h4"
    return frame.assign(**{
        "params": 18 * frame["depth"] * frame["width"] ** 2, "mlp_hidden": 4 * frame["width"], "heads": 4.0,
        "seed": 0.0, "images": 4e5, "steps": 6250.0, "unfinished": False, "fd_low": frame["fd"] - 0.1,
        "fd_high": frame["fd"] + 0.1, "samples": 1000.0, "teacher_value": 0.5, "lr": 0.01,
    } | columns)  # fmt: skip


def points(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.mode != "lines"]


def traces(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in points(figure)}


def test_trainings_that_differ_in_their_seed_alone_are_one_row_with_mean_and_range():
    rows = shapes((4, 40, 1.5), (4, 40, 1.7), (4, 40, 1.6), (8, 28, 1.2), seed=[0.0, 1.0, 2.0, 0.0])
    found = figures.over_seeds(rows).set_index("name")
    one, alone = found.loc["4x40"], found.loc["8x28"]
    assert (one["seeds"], one["fd_least"], one["fd_most"]) == (3, 1.5, 1.7) and one["fd"] == pytest.approx(1.6)
    assert one["runs"] == ("run-0", "run-1", "run-2")
    assert alone["seeds"] == 1 and math.isnan(alone["fd_least"]) and alone["fd"] == 1.2


@pytest.mark.parametrize("apart", [{"lr": [0.01, 0.02]}, {"images": [4e5, 8e5]}, {"unfinished": [False, True]}])
def test_another_recipe_or_another_number_of_images_is_no_seed(apart: dict[str, list]):
    assert figures.over_seeds(shapes((4, 40, 1.5), (4, 40, 1.7), **apart))["seeds"].tolist() == [1, 1]


def test_no_row_is_no_row_over_seeds():
    assert figures.over_seeds(shapes((4, 40, math.nan))).empty


def test_sizes_near_one_another_are_of_one_budget():
    sizes = pd.Series([303_384, 97_376, 994_032, 300_888, 101_880, 150_000], index=list("abcdef"))
    assert figures.budgets(sizes).to_dict() == {"a": 3e5, "b": 1e5, "c": 1e6, "d": 3e5, "e": 1e5, "f": 1.5e5}


def test_a_budget_is_a_line_through_the_best_of_each_depth_and_every_training_a_point():
    rows = figures.over_seeds(shapes((2, 90, 1.6), (4, 64, 1.2), (4, 64, 1.1), (8, 45, 1.0), (2, 160, 0.9),
                                     lr=[1.0, 1.0, 2.0, 1.0, 1.0]))  # fmt: skip
    figure = figures.iso(rows)
    (line,) = [trace for trace in figure.data if trace.mode == "lines"]
    assert (list(line.x), list(line.y)) == ([2.0, 4.0, 8.0], [1.6, 1.1, 1.0])
    drawn = traces(figure)
    assert list(drawn) == ["0.3 M parameters", "0.9 M parameters"]
    one, other = drawn.values()
    assert list(one.y) == [1.6, 1.2, 1.1, 1.0] and [run for (run,) in one.customdata] == [f"run-{k}" for k in range(4)]
    assert one.marker.color != other.marker.color and one.marker.symbol != other.marker.symbol
    assert "2.00 times its teacher's" in one.hovertext[3] and list(figure.layout.xaxis.tickvals) == [2, 4, 8]


def test_bars_are_the_range_over_seeds_and_no_interval_of_one_training():
    rows = shapes((4, 40, 1.4), (4, 40, 1.6), (8, 28, 1.2), seed=[0.0, 1.0, 0.0])
    (drawn,) = traces(figures.iso(figures.over_seeds(rows))).values()
    assert list(drawn.error_y.array) == pytest.approx([0.1, np.nan], nan_ok=True)
    assert "mean of 2 seeds (1.40 to 1.60)" in drawn.hovertext[0] and "one training" in drawn.hovertext[1]
    (drawn,) = traces(figures.iso(figures.over_seeds(rows[1:]))).values()
    assert drawn.error_y.array is None


def test_checkpoints_on_the_way_are_dashed_and_hollow():
    rows = shapes((2, 90, 1.6), (4, 64, 1.2), (2, 90, 1.3), (4, 64, 1.0), images=[4e5, 4e5, 8e5, 8e5],
                  unfinished=[True, True, False, False])  # fmt: skip
    figure = figures.iso(figures.over_seeds(rows))
    assert [trace.line.dash for trace in figure.data if trace.mode == "lines"] == ["solid", "dash"]
    finished, on_the_way = points(figure)
    assert (finished.marker.symbol, on_the_way.marker.symbol) == ("circle", "circle-open")
    assert (finished.showlegend, on_the_way.showlegend) == (True, False)
    assert finished.legendgroup == on_the_way.legendgroup == finished.name == "0.3 M parameters"
    assert "after 400 k images, on the way" in on_the_way.hovertext[0] and "the way" not in finished.hovertext[0]


def test_finished_trainings_on_fewer_images_are_dotted_and_small():
    rows = shapes((2, 90, 1.6), (4, 64, 1.2), (2, 90, 1.3), (4, 64, 1.0), images=[4e5, 4e5, 8e5, 8e5])
    figure = figures.iso(figures.over_seeds(rows))
    assert [trace.line.dash for trace in figure.data if trace.mode == "lines"] == ["solid", "dot"]
    assert [trace.marker.size for trace in points(figure)] == [10, 7]


def test_the_suggested_shape_is_a_star_called_estimated_with_its_interval():
    pick = {"name": "6x52", "depth": 6, "fd": 0.9, "fd_low": 0.8, "fd_high": 1.1}
    figure = figures.iso(figures.over_seeds(shapes((2, 90, 1.6), (4, 64, 1.2))), pick)
    star = traces(figure)["6x52, estimated"]
    assert (star.marker.symbol, star.x, star.y) == ("star-open-dot", (6,), (0.9,))
    assert list(star.error_y.array) + list(star.error_y.arrayminus) == pytest.approx([0.2, 0.1])
    assert "trained by nobody" in star.hovertext[0] and list(figure.layout.xaxis.tickvals) == [2, 4, 6]


def test_heads_have_a_line_for_each_shape_that_was_trained_with_several():
    rows = figures.over_seeds(shapes((4, 64, 1.2), (4, 64, 1.1), (4, 64, 1.3), (8, 45, 1.0), heads=[4.0, 1.0, 8.0, 4.0],
                                     options=["a", "b", "c", "a"]))  # fmt: skip
    (line,) = figures.heads(rows).data
    assert (list(line.x), list(line.y), line.name) == ([1, 4, 8], [1.1, 1.2, 1.3], "4x64, 400 k images")
    assert figures.heads(figures.over_seeds(shapes((4, 64, 1.2), (8, 45, 1.0)))) is None


def effects(**columns: object) -> pd.DataFrame:
    frame = pd.DataFrame({"label": ["depth x2, same size (width / 1.41)", "size x2"], "factor": [0.8, 0.6],
                          "low": [0.7, 0.5], "high": [0.95, 0.72], "kind": ["distance", "distance"]})  # fmt: skip
    return frame.assign(**columns)


def test_factors_stand_below_each_other_beside_1_with_their_intervals():
    figure = figures.factors(effects(), "times")
    (drawn,) = figure.data
    assert list(drawn.x) == [0.8, 0.6] and list(drawn.error_x.array) == pytest.approx([0.15, 0.12])
    assert figure.layout.yaxis.categoryarray == ("size x2", "depth x2,<br>same size<br>(width / 1.41)")
    assert figure.layout.shapes[0].x0 == 1 and figure.layout.xaxis.type == "log"


def test_kinds_of_factors_differ_in_shape_and_colour_and_one_without_an_interval_has_no_bar():
    one, two = figures.factors(effects(kind=["distance", "latency"], low=np.nan, high=np.nan), "times").data
    assert one.marker.symbol != two.marker.symbol and one.marker.color != two.marker.color
    assert one.error_x.array is None


def arms(**columns: object) -> pd.DataFrame:
    frame = pd.DataFrame({"method": ["ternary", "<b>TA</b>"], "size": "4x40", "images": 4e5, "ratio": [1.2, 0.9],
                          "low": [1.1, np.nan], "high": [1.3, np.nan], "seeds": [6, 1], "twin": "4x40 plain",
                          "word": ["hurts", "better in direction"]})  # fmt: skip
    return frame.assign(**columns)


def test_verdicts_are_drawn_best_first_each_word_by_its_own_mark():
    figure = figures.verdicts(arms())
    better, hurts = figure.data
    assert (better.name, hurts.name) == ("better in direction", "hurts")
    assert [(t.marker.symbol, t.marker.color) for t in figure.data] == [VERDICTS[t.name] for t in figure.data]
    assert (
        hurts.hovertext[0].endswith("6 paired seeds") and "1.20 times 4x40 plain (1.10 to 1.30)" in hurts.hovertext[0]
    )
    assert better.y[0].startswith("&lt;b&gt;TA") and better.hovertext[0].endswith("1 paired seed")


def test_rows_are_as_high_as_the_longest_label():
    short, long = (figures.verdicts(arms(method=[name, "ternary"])).layout.height for name in
                   ("manifold", "manifold (norm place, output 0, pair 0, until 0.3)"))  # fmt: skip
    assert long - short == 2 * (16 * 6 + 8 - 46)  # six lines instead of two, in two rows
