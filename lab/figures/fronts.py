"""Size, speed and quality against each other, with the front that no other student beats.

The marker's shape says the method as its colour does, its area the parameters, and a hollow grey marker what does not
fit. A latency that nobody measured is hollow with a dot, has its interval and is called estimated; one that others
published or that is graded D is hollow and says so. Values measured under different conditions are refused, not drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab import choose
from lab.choose import METRICS, QUANTITIES
from lab.figures.limits import draw_limits
from lab.figures.look import (
    COLOURS,
    GREY,
    GUESS,
    MANY,
    SHAPES_3D,
    TEMPLATE,
    TEXT,
    axis_of,
    diameters,
    error_bars,
    mark_of,
    safe,
)
from lab.figures.names import places_of_names
from lab.figures.twins import method_names
from lab.figures.words import axis_title, hover, shortened, upright

# What a hover box says of a row; the whole row of thousands would take as long as the rest of the chart.
_HOVERED = (
    "name", "shape", "method", "fd", "fd_low", "fd_high", "class_accuracy", "class_accuracy_low", "class_accuracy_high",
    *choose.AS_TRAINED, *choose.AS_TRAINED.values(), "latency_ms", "latency_low", "latency_high", "percentile",
    "runtime", "timed_dtype", "grade", "provenance", "speed_up", "timed_as", "why_not", "teacher_value", "beside",
)  # fmt: skip
OVER, BEATEN = "over the budget", "other methods, beaten"
RING = 12  # pixels by which the mark of the pick is larger than its point
_DEVICE = ("device", "batch", "threads", "scope", "percentile")


def tradeoff(frame: pd.DataFrame, x: str, y: str, *, pick: str | None = None, runner_up: str | None = None,
             knee: str | None = None, baseline: str | None = None, teacher: pd.DataFrame | None = None,
             limits: Mapping[str, float] = MappingProxyType({}), log_x: bool = False, log_y: bool = False,
             methods: Sequence[str] = (), winners: bool = False) -> go.Figure:  # fmt: skip
    """One quantity against another over rows of `choose.candidates`, with the front no other student beats.

    `teacher` is a frame of rows of `choose.with_latency`; `limits` those of a budget, drawn where an axis shows what
    they limit. Every point's customdata is its run id; `pick`, `knee` and `baseline` are ringed. `methods` are all that
    there are, where the rows are of some: each keeps its colour and shape. With `winners` those without a point on
    the front are grey and share one line of the legend. Raises ValueError where the rows' values may not be compared.
    """
    _refuse_mixed(pd.concat([frame, teacher]) if teacher is not None else frame, (x, y))
    shown = frame.dropna(subset=[x, y])
    doubt = _doubt(shown) if "latency_ms" in (x, y) else pd.Series("", index=shown.index)
    # In one block, of which rows are taken for every trace; sound ones first, as the legend shows the first mark.
    shown = shown.iloc[np.argsort(doubt.ne(""), kind="stable")].copy()
    doubt = doubt.reindex(shown.index)
    fits = shown["fits"] if "fits" in shown else pd.Series(True, index=shown.index)
    figure = go.Figure()
    # The front is of what may be chosen: a staircase, since what lies between two points does not exist.
    line = shown[fits & choose.front_of(shown[fits], x, y).reindex(shown.index, fill_value=False)].sort_values(x)
    if len(line) > 1:
        figure.add_scatter(x=line[x], y=line[y], mode="lines", name="front", hoverinfo="skip",
                           line=dict(color=GREY, width=1.5, dash="dot", shape="hv"))  # fmt: skip
    guess = doubt == GUESS
    names = method_names(shown)
    labels, ringed = _labels(shown, guess), {baseline: RING + 20, pick: RING, knee: RING + 6}
    named = places_of_names(shown, line, x, y, first=[pick, knee, runner_up], labels=labels, ringed=ringed,
                            limit=limits.get(x), heights=[] if teacher is None else teacher[y], log_x=log_x,
                            log_y=log_y)  # fmt: skip
    # Beside a ring its own name stands.
    beside = {run: place for run, place in named.items() if run not in (pick, knee)}
    many, on_line = len(shown) > MANY, shown.index.isin(line.index)

    def points(these: pd.Series, hollow: pd.Series, **how: object) -> None:
        pale = these & many & ~on_line
        for some in (pale, these & ~pale):
            if some.any():
                _points(figure, shown[some], x, y, labels=labels, shapes=shapes[some] + hollow[some],
                        many=some is pale, showlegend=some is pale or not pale.any(), **how)  # fmt: skip

    marks = _marks(frame, methods)
    shapes = shown["method"].map({method: shape for method, (shape, _) in marks.items()})
    hollow = doubt.map(HOLLOW)
    # What is over the budget is one line of the legend for all methods, which leaves the chart its room.
    points(~fits, hollow.replace("", "-open"), name=OVER, colour=GREY)
    beaten = winners & fits & ~shown["method"].isin(shown.loc[[*line.index], "method"])
    points(beaten, hollow, name=BEATEN, colour=GREY, named=beside)
    for method, rows in shown[fits & ~beaten].groupby("method"):
        points(shown.index.isin(rows.index), hollow, name=names[rows.index[0]], colour=marks[method][1], named=beside)
    for mark in dict.fromkeys(filter(None, hollow[fits])):  # once, not for each method: a phone has no room for that
        whose = [why for why in HOLLOW if HOLLOW[why] == mark and (doubt[fits] == why).any()]
        figure.add_scatter(x=[None], y=[None], mode="markers", name=" or ".join(whose), hoverinfo="skip",
                           marker=dict(symbol=f"circle{mark}", color=GREY, size=9, line=dict(width=1.5)))  # fmt: skip
    _ring(figure, shown[shown["run"] == pick], x, y, name="the pick", shape="circle-open", colour=COLOURS[1],
          more=RING, labels=labels, named=named if pick != knee else {})  # fmt: skip
    _ring(figure, shown[shown["run"] == knee], x, y, name="the knee", shape="diamond-open", colour=COLOURS[2],
          more=RING + 6, labels=labels, named=named)  # fmt: skip
    _ring(figure, shown[shown["run"] == baseline], x, y, name="the baseline", shape="square-open", colour=COLOURS[3],
          more=RING + 12, labels=labels, named={})  # fmt: skip
    if teacher is not None:
        _teacher(figure, teacher, x, y, log_x=log_x, log_y=log_y, students=shown)
    draw_limits(figure, limits, x=x, y=y, log_x=log_x, log_y=log_y)
    figure.update_xaxes(title=axis_title(shown, x), **axis_of(shown, x, log=log_x))
    figure.update_yaxes(title=upright(axis_title(shown, y)), **axis_of(shown, y, log=log_y))
    return figure.update_layout(template=TEMPLATE, height=480 if winners else 560)  # the legend of all methods is long


def recommended(answer: choose.Recommendation, *, baseline: Mapping[str, object] | None = None,
                methods: Sequence[str] = ()) -> go.Figure:  # fmt: skip
    """Quality against latency, or against parameters where nothing is timed, with all that an answer says marked.

    `baseline` is a row of `answer.everyone`, which hover boxes compare with; `methods` as of `tradeoff`.
    """
    rows, metric = answer.candidates, answer.budget.metric
    if baseline is not None:
        rows = rows.assign(beside=choose.beside(rows, baseline, [metric, *choose.COSTS]))
    marked = {"pick": answer.pick, "runner_up": answer.runner_up, "knee": answer.knee, "baseline": baseline}
    return tradeoff(rows, choose.against(rows), metric, teacher=answer.teachers, limits=answer.budget.limits,
                    log_x=True, log_y=_of_ratios(rows, metric), methods=methods, winners=True,
                    **{what: (row or {}).get("run") for what, row in marked.items()})  # fmt: skip


def _of_ratios(rows: pd.DataFrame, metric: str) -> bool:
    """Whether values of a metric are compared by their ratios, as distances are: one bad run hides no good ones."""
    return not choose.METRICS[metric].more_is_better and bool(rows[metric].dropna().gt(0).all())


def tradeoff_3d(frame: pd.DataFrame, x: str, y: str, z: str, *, pick: str | None = None, log: Sequence[str] = (),
                methods: Sequence[str] = ()) -> go.Figure:  # fmt: skip
    """Three quantities at once; `log` names those with a logarithmic axis. Raises ValueError as `tradeoff`.

    Colour and shape are the method's where `methods`, all that there are, are several; what is beaten is hollow.
    """
    _refuse_mixed(frame, (x, y, z))
    shown = frame.dropna(subset=[x, y, z])
    more = [c for c in (x, y, z) if QUANTITIES[c].more_is_better]
    on = choose.front(shown, [c for c in (x, y, z) if c not in more], more)
    figure = go.Figure()
    doubt = _doubt(shown).ne("") & ("latency_ms" in (x, y, z))
    ways = [(on & ~doubt, "on the front", COLOURS[0], "circle"),
            (~on & ~doubt, "beaten by another", GREY, "circle-open")]  # fmt: skip
    if doubt.any():  # few shapes are known here
        ways += [(on & doubt, "on the front, not measured or graded D", COLOURS[0], "diamond-open"),
                 (~on & doubt, "beaten, not measured or graded D", GREY, "diamond-open")]  # fmt: skip
    kinds = [(shown[way], *how) for way, *how in ways]
    marks, names = _marks(frame, methods), method_names(shown)
    if len(marks) > 1:
        kinds = [(rows, f"{names[rows.index[0]]}, {said}", colour, shape + "-open" * said.startswith("beaten"))
                 for (method, (_, colour)), shape in zip(marks.items(), itertools.cycle(SHAPES_3D))
                 for of, said, *_ in kinds if len(rows := of[of["method"] == method])]  # fmt: skip
    for rows, name, colour, shape in kinds:
        figure.add_scatter3d(
            x=rows[x], y=rows[y], z=rows[z], mode="markers+text" if len(rows) <= 20 else "markers", name=name,
            text=[safe(n) for n in rows["name"]], textfont=dict(size=11), customdata=rows[["run"]].to_numpy(),
            hovertext=[hover(row) for row in rows.to_dict("records")], hoverinfo="text",
            marker=dict(size=[14 if run == pick else 8 for run in rows["run"]], color=colour, symbol=shape),
        )  # fmt: skip
    axes = {
        a: dict(
            title=" ".join([QUANTITIES[c].title, QUANTITIES[c].unit]).rstrip(), type="log" if c in log else "linear"
        )
        for a, c in zip("xyz", (x, y, z))
    }
    return figure.update_layout(
        template=TEMPLATE, height=620, showlegend=True, scene={f"{a}axis": v for a, v in axes.items()}
    )


def projections(frame: pd.DataFrame, x: str, y: str, z: str, *, log: Sequence[str] = (), methods: Sequence[str] = (),
                baseline: str | None = None, limits: Mapping[str, float] = MappingProxyType({})
                ) -> list[go.Figure]:  # fmt: skip
    """What `tradeoff_3d` shows, two quantities at a time, each with the front of its two. Raises ValueError as it."""
    drawn = []
    for a, b in [(x, y), (z, y), (x, z)]:
        figure = tradeoff(frame, a, b, log_x=a in log, log_y=b in log, methods=methods, baseline=baseline,
                          limits=limits)  # fmt: skip
        figure.update_traces(mode="markers", selector={"mode": "markers+text"})  # too small for names and conditions
        titles = [" ".join([QUANTITIES[c].title, QUANTITIES[c].unit]).rstrip() for c in (a, b)]
        figure.update_xaxes(title=titles[0]).update_yaxes(title=titles[1])
        drawn.append(figure.update_layout(height=300, showlegend=False, font_size=12))
    return drawn


def _points(figure: go.Figure, rows: pd.DataFrame, x: str, y: str, *, name: str, shapes: pd.Series, colour: str,
            labels: Mapping[str, str], named: Mapping[str, str] | None = None, many: bool = False,
            showlegend: bool = True) -> None:  # fmt: skip
    """One trace of a chart; by WebGL if they are `many`, then without names and intervals.

    shapes: of each row's marker; the legend shows the first one's.
    """
    named, is_open = named or {}, shapes.str.contains("open")
    filled = shapes.iloc[0] if shapes.nunique() == 1 else shapes.tolist()
    shared = dict(
        x=rows[x], y=rows[y], name=name, legendgroup=name, showlegend=showlegend, customdata=rows[["run"]].to_numpy(),
        hovertext=[hover(row) for row in rows[[c for c in _HOVERED if c in rows]].to_dict("records")], hoverinfo="text",
        marker=dict(symbol=filled, color=colour, size=diameters(rows), opacity=1 if colour != GREY else 0.7,
                    line=dict(width=np.where(is_open, 1.5, 0.5), color=colour)),
        selected=dict(marker=dict(opacity=1)),
    )  # fmt: skip
    if many:  # small and pale, so that where they crowd it shows, and the front stands out
        shared["marker"] |= dict(
            size=0.6 * diameters(rows), opacity=0.4, line=dict(width=np.where(is_open, 1, 0), color=colour)
        )
        figure.add_scattergl(mode="markers", unselected=dict(marker=dict(opacity=0.2)), **shared)
        return
    figure.add_scatter(
        mode="markers+text", text=[labels[run] if run in named else "" for run in rows["run"]],
        textposition=[named.get(run, "top right") for run in rows["run"]], cliponaxis=False,
        error_x=error_bars(rows, _SPANNED.get(x, x), colour, x),
        error_y=error_bars(rows, _SPANNED.get(y, y), colour, y),
        unselected=dict(marker=dict(opacity=0.5), textfont=dict(color=TEXT)), **shared,
    )  # fmt: skip


def _marks(frame: pd.DataFrame, methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Shape and colour of each method, whole as in `Store.table()`: of those that there are, else of the frame's."""
    return {method: mark_of(k) for k, method in enumerate(sorted({*methods, *frame["method"]}))}


# Why a latency is drawn hollow, and by which marker; the sidebar of the pages says the same.
HOLLOW = {"": "", "graded D": "-open", "published": "-open", GUESS: "-open-dot"}


def _doubt(rows: pd.DataFrame) -> pd.Series:
    """A key of HOLLOW for each row: whose latency it is, where it was not measured or is graded D."""
    said = [GUESS if p == "estimated" else "published" if p == "published" else "graded D" if g == "D" else ""
            for p, g in zip(rows["provenance"], rows["grade"])]  # fmt: skip
    return pd.Series(said, index=rows.index, dtype=object)


# Columns whose interval is not called after them.
_SPANNED = {"latency_ms": "latency"}


def _ring(figure: go.Figure, rows: pd.DataFrame, x: str, y: str, *, name: str, shape: str, colour: str,
          more: int, labels: Mapping[str, str], named: Mapping[str, str]) -> None:  # fmt: skip
    """A hollow mark around a point, `more` pixels larger, with the point's name beside it."""
    if len(rows):
        figure.add_scatter(
            x=rows[x], y=rows[y], mode="markers+text", name=name, hoverinfo="skip", cliponaxis=False,
            text=[labels[run] if run in named else "" for run in rows["run"]],
            textposition=[named.get(run, "top right") for run in rows["run"]],
            marker=dict(symbol=shape, size=diameters(rows) + more, color=colour, line=dict(width=2.5)),
        )  # fmt: skip


def _labels(rows: pd.DataFrame, guess: pd.Series) -> dict[str, str]:
    """Run -> its name as a chart shows it."""
    said = [safe(shortened(name)) + (f", {GUESS}" if g else "") for name, g in zip(rows["name"], guess)]
    return dict(zip(rows["run"], said))


def _teacher(figure: go.Figure, teacher: pd.DataFrame, x: str, y: str, *, log_x: bool, log_y: bool,
             students: pd.DataFrame) -> None:  # fmt: skip
    """A dashed line at the teacher's height, and a star on it unless it lies far beyond the students."""
    # A teacher forty times slower would squeeze all students into one corner.
    reach = (4 if log_x else 2) * students[x].max()
    for _, row in teacher.dropna(subset=[y]).iterrows():
        figure.add_hline(y=row[y], line=dict(color=COLOURS[4], width=1.2, dash="dash"))
        if row[x] <= reach:
            continue
        far = f", {QUANTITIES[x].say(row[x])} (beyond this axis)" if pd.notna(row[x]) else ""
        height = np.log10(row[y]) if log_y else row[y]  # an annotation's place on a logarithmic axis is its logarithm
        figure.add_annotation(
            x=1, xref="paper", y=height, text=f"teacher{far}", showarrow=False, xanchor="right", yanchor="bottom"
        )
    rows = teacher.dropna(subset=[x, y])
    rows = rows[rows[x] <= reach]
    if len(rows):
        figure.add_scatter(
            x=rows[x], y=rows[y], mode="markers+text", name="teacher", customdata=rows[["run"]].to_numpy(),
            text=["teacher"] * len(rows), textposition="top left",
            hovertext=[hover(row) for row in rows.to_dict("records")], hoverinfo="text",
            marker=dict(symbol="star", size=16, color=COLOURS[4]),
        )  # fmt: skip


def _refuse_mixed(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    for column in columns:
        if column in METRICS:
            found = sorted(set(choose.protocols(frame.dropna(subset=[column]), column)) - {""})
            _only_one(found, f"{METRICS[column].title} values of different protocols")
        elif column in ("latency_ms", "speed_up", "memory_mb"):
            timed = frame.dropna(subset=["latency_ms"])
            for name in _DEVICE:
                found = sorted(map(str, timed[name].dropna().unique())) if name in timed else []
                _only_one(found, f"latencies of different {name}")


def _only_one(found: list[str], what: str) -> None:
    if len(found) > 1:
        raise ValueError(f"{what} can't share an axis; choose one of: {'; '.join(found)}")
