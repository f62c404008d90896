"""Tables in, plotly figures out: pure, the same for pages and notebooks. No torch here.

Colour is never alone: the marker's shape says the method too, its area the parameters, and a hollow grey
marker what does not fit. A latency that nobody measured is hollow with a dot, has its interval and is called
estimated; one that others published or that is graded D is hollow and says so. Values measured under different
conditions are refused, not drawn.
"""

from __future__ import annotations

import contextlib
import html
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image, ImageDraw, ImageFont
from plotly.subplots import make_subplots

from lab import choose, jobs
from lab.choose import METRICS, QUANTITIES, number
from lab.config import Recipe, unknown
from lab.results import OBJECTIVES, Run
from lab.sheets import read_samples

# Okabe and Ito's palette; each is told from the others, and from white and near-black, by the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "hexagon")
SHAPES_3D = ("circle", "square", "diamond")  # all that are hollow, too, there
GREY = "#8C8C8C"
TEXT = "#76808C"  # reads on white and on near-black, for where no theme sets its own

TEMPLATE = go.layout.Template(
    layout=dict(
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", colorway=COLOURS,
        font=dict(size=14, color=TEXT), margin=dict(l=8, r=8, t=24, b=8), hovermode="closest",
        xaxis=dict(automargin=True, gridcolor="rgba(128,128,128,0.22)", zeroline=False, ticks="outside"),
        yaxis=dict(automargin=True, gridcolor="rgba(128,128,128,0.22)", zeroline=False, ticks="outside"),
        legend=dict(orientation="h", yanchor="bottom", y=1.02, xanchor="left", x=0, itemsizing="constant"),
    )
)  # fmt: skip

MOST_NAMES = 8  # beside markers; the rest is in the hover box
MANY = 300  # points from which on all but the front are drawn by WebGL, without their intervals
# What a hover box says of a row; the whole row of thousands would take as long as the rest of the chart.
_HOVERED = (
    "name", "shape", "method", "fd", "fd_low", "fd_high", "class_accuracy", "class_accuracy_low", "class_accuracy_high",
    *choose.AS_TRAINED, *choose.AS_TRAINED.values(), "latency_ms", "latency_low", "latency_high", "percentile",
    "runtime", "timed_dtype", "grade", "provenance", "speed_up", "why_not",
)  # fmt: skip
NARROW_PX = 270  # the width of a plot on a phone, where a name must not be cut off
RING = 12  # pixels by which the mark of the pick is larger than its point
GUESS = "estimated"
_DEVICE = ("device", "batch", "threads", "scope", "percentile")


# --- size, speed and quality --------------------------------------------------------------------


def tradeoff(frame: pd.DataFrame, x: str, y: str, *, pick: str | None = None, runner_up: str | None = None,
             knee: str | None = None, teacher: pd.DataFrame | None = None, limit: float | None = None,
             log_x: bool = False, log_y: bool = False, methods: Sequence[str] = ()) -> go.Figure:  # fmt: skip
    """One quantity against another over rows of `choose.candidates`, with the front no other student beats.

    `teacher` is a frame of rows of `choose.with_latency`; `limit` the budget on x. Every point's customdata is
    its run id; `pick` and `knee` are ringed. `methods` are all that there are, where the rows are of some: each keeps
    its colour and shape. Raises ValueError where the rows' values may not be compared.
    """
    _refuse_mixed(pd.concat([frame, teacher]) if teacher is not None else frame, (x, y))
    shown = frame.dropna(subset=[x, y])
    fits = shown["fits"] if "fits" in shown else pd.Series(True, index=shown.index)
    figure = go.Figure()
    # The front is of what may be chosen: a staircase, since what lies between two points does not exist.
    line = shown[fits & choose.front_of(shown[fits], x, y).reindex(shown.index, fill_value=False)].sort_values(x)
    if len(line) > 1:
        figure.add_scatter(x=line[x], y=line[y], mode="lines", name="front", hoverinfo="skip",
                           line=dict(color=GREY, width=1.5, dash="dot", shape="hv"))  # fmt: skip
    doubt = _doubt(shown) if "latency_ms" in (x, y) else pd.Series("", index=shown.index)
    guess = doubt == GUESS
    names = method_names(shown)
    labels, ringed = _labels(shown, guess), {pick: RING, knee: RING + 6}
    named = _named(shown, line, x, y, first=[pick, knee, runner_up], labels=labels, ringed=ringed, limit=limit,
                   heights=[] if teacher is None else teacher[y], log_x=log_x, log_y=log_y)  # fmt: skip
    beside = {run: place for run, place in named.items() if run not in ringed}  # of the others a ring bears the name
    many = len(shown) > MANY

    def points(rows: pd.DataFrame, **how: object) -> None:
        before = pd.Series(many, index=rows.index) & ~rows.index.isin(line.index)
        _points(figure, rows[before], x, y, labels=labels, many=True, **how)
        _points(figure, rows[~before], x, y, labels=labels, showlegend=not before.any(), **how)

    for method, (shape, colour) in _marks(frame, methods).items():
        mine = shown["method"] == method
        said = names[mine].max()  # they are alike
        for why, hollow in HOLLOW.items():
            rows, ending = shown[mine & (doubt == why)], f", {why}" if why else ""
            if rows.empty:
                continue
            points(rows[fits[rows.index]], name=said + ending, shape=shape + hollow, colour=colour, named=beside)
            points(rows[~fits[rows.index]], name=f"{said}, over the budget{ending}", colour=GREY,
                   shape=shape + (hollow or "-open"))  # fmt: skip
    _ring(figure, shown[shown["run"] == pick], x, y, name="the pick", shape="circle-open", colour=COLOURS[1],
          more=RING, labels=labels, named=named if pick != knee else {})  # fmt: skip
    _ring(figure, shown[shown["run"] == knee], x, y, name="the knee", shape="diamond-open", colour=COLOURS[2],
          more=RING + 6, labels=labels, named=named)  # fmt: skip
    if teacher is not None:
        _teacher(figure, teacher, x, y, log_x=log_x, log_y=log_y, students=shown)
    if limit is not None:
        figure.add_vline(x=limit, line=dict(color=GREY, width=1, dash="dash"))
        # On a logarithmic axis an annotation stands at the logarithm, a line at the value.
        figure.add_annotation(x=np.log10(limit) if log_x else limit, y=1, yref="paper", text=f"limit {limit:g}",
                              showarrow=False, xanchor="left", yanchor="top", xshift=4)  # fmt: skip
    figure.update_xaxes(title=axis_title(shown, x), **_axis(shown, x, log=log_x))
    figure.update_yaxes(title=axis_title(shown, y), **_axis(shown, y, log=log_y))
    return figure.update_layout(template=TEMPLATE, height=480)


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
            text=[_safe(n) for n in rows["name"]], textfont=dict(size=11), customdata=rows[["run"]].to_numpy(),
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


def projections(frame: pd.DataFrame, x: str, y: str, z: str, *, log: Sequence[str] = (), methods: Sequence[str] = ()
                ) -> list[go.Figure]:  # fmt: skip
    """What `tradeoff_3d` shows, two quantities at a time, each with the front of its two. Raises ValueError as it."""
    drawn = []
    for a, b in [(x, y), (z, y), (x, z)]:
        figure = tradeoff(frame, a, b, log_x=a in log, log_y=b in log, methods=methods)
        figure.update_traces(mode="markers", selector={"mode": "markers+text"})  # too small for names and conditions
        titles = [" ".join([QUANTITIES[c].title, QUANTITIES[c].unit]).rstrip() for c in (a, b)]
        figure.update_xaxes(title=titles[0]).update_yaxes(title=titles[1])
        drawn.append(figure.update_layout(height=300, showlegend=False, font_size=12))
    return drawn


def axis_title(frame: pd.DataFrame, column: str) -> str:
    """A quantity's name with its unit, its conditions and which way is better, e.g. for an axis."""
    quantity, extra = QUANTITIES[column], []
    if column in METRICS and (samples := _only(frame, "samples")) is not None:
        extra.append(f"{samples:,.0f} samples")
    if column == "latency_ms" and len(frame):
        extra += [f"ms, {_only(frame, 'percentile') or 'p50'}"] + [
            f"batch {b:.0f}" for b in [_only(frame, "batch")] if b
        ]
    elif quantity.unit:
        extra.append(quantity.unit)
    if column in choose.AS_TRAINED:
        extra.append("as deployed")
    if column in METRICS:
        extra.append("higher is better" if quantity.more_is_better else "lower is better")
    return f"{quantity.title} ({', '.join(extra)})" if extra else quantity.title


def conditions(frame: pd.DataFrame, left_out: Sequence[str] = (), metric: str = "fd") -> str:
    """How a figure's values were measured, in sentences, with what was left out and why."""
    said = [f"{METRICS[metric].title}: {p}." for p in sorted(set(choose.protocols(frame, metric)) - {""})]
    if frame[f"{metric}_low"].notna().any():
        bars = "bars, of the front alone, are" if len(frame) > MANY else "bars are"
        said[-1:] = [f"{said[-1][:-1]}; {bars} 95 % intervals."] if said else []
    timed = frame.dropna(subset=["latency_ms"])
    if len(timed):
        threads = _counts(timed["threads"].dropna().map(choose.threads_said).astype(str))
        graded = _counts("grade " + timed["grade"][timed["grade"] != ""]) or "not graded"
        parts = [_counts(timed["device"]), _counts(timed["runtime"]), _counts(timed["timed_dtype"]),
                 _counts(timed["batch"].map("batch {:.0f}".format)), threads, _counts(timed["scope"]), graded,
                 _counts(timed["provenance"])]  # fmt: skip
        spanned = "latency_low" in timed and (timed["latency_low"].notna() & timed["provenance"].ne(GUESS)).any()
        spans = "; intervals of measured ones span those of all timings of that form and grade" if spanned else ""
        said.append(f"Latency {_only(timed, 'percentile') or ''}: ".replace(" :", ":")
                    + ", ".join(p for p in parts if p) + spans + ".")  # fmt: skip
    return " ".join([*said, *left_out])


def hover(row: dict[str, object]) -> str:
    """The facts of one row as a hover box; labels are people's text, so escaped."""
    lines = [
        f"<b>{_safe(str(row['name']))}</b>",
        _safe(str(row["method"]) if row["name"] == row["shape"] else f"{row['shape']}, {row['method']}"),
    ]
    for column in ("fd", "class_accuracy"):
        if _known(row, column):
            low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
            ci = f" ({number(low)} to {number(high)})" if _known(row, f"{column}_low") else ""
            lines.append(f"{METRICS[column].title} {number(row[column])}{ci}")
    lines += [choose.size_said(row, size) for size in choose.AS_TRAINED if _known(row, size)]
    if _known(row, "latency_ms"):
        grade = f", grade {row['grade']}" if row["grade"] else ""
        said = GUESS if choose.is_estimate(row) else row["runtime"]
        form = f" {row['timed_dtype']}" if row["timed_dtype"] not in choose.EXACT else ""
        span = f" ({number(row['latency_low'])} to {number(row['latency_high'])})" if _known(row, "latency_low") else ""
        lines.append(f"{number(row['latency_ms'])} ms {row['percentile']}{span}, {said}{form}{grade}")
    if _known(row, "speed_up"):
        lines.append(f"{number(row['speed_up'])} times as fast as its teacher")
    if row.get("why_not"):
        lines.append(_safe(f"Over the budget: {row['why_not']}"))
    return "<br>".join(line for line in lines if line)


def _points(figure: go.Figure, rows: pd.DataFrame, x: str, y: str, *, name: str, shape: str, colour: str,
            labels: Mapping[str, str], named: Mapping[str, str] | None = None, many: bool = False,
            showlegend: bool = True) -> None:  # fmt: skip
    """One trace of a chart; by WebGL if they are `many`, then without names and intervals."""
    if rows.empty:
        return
    named = named or {}
    shared = dict(
        x=rows[x], y=rows[y], name=name, legendgroup=name, showlegend=showlegend, customdata=rows[["run"]].to_numpy(),
        hovertext=[hover(row) for row in rows[[c for c in _HOVERED if c in rows]].to_dict("records")], hoverinfo="text",
        marker=dict(symbol=shape, color=colour, size=_sizes(rows), opacity=1 if colour != GREY else 0.7,
                    line=dict(width=1.5 if "open" in shape else 0.5, color=colour)),
        selected=dict(marker=dict(opacity=1)),
    )  # fmt: skip
    if many:  # small and pale, so that where they crowd it shows, and the front stands out
        shared["marker"] |= dict(
            size=0.6 * _sizes(rows), opacity=0.4, line=dict(width=1 if "open" in shape else 0, color=colour)
        )
        figure.add_scattergl(mode="markers", unselected=dict(marker=dict(opacity=0.2)), **shared)
        return
    figure.add_scatter(
        mode="markers+text", text=[labels[run] if run in named else "" for run in rows["run"]],
        textposition=[named.get(run, "top right") for run in rows["run"]], cliponaxis=False,
        error_x=_bars(rows, _SPANNED.get(x, x), colour, x), error_y=_bars(rows, _SPANNED.get(y, y), colour, y),
        unselected=dict(marker=dict(opacity=0.5), textfont=dict(color=TEXT)), **shared,
    )  # fmt: skip


def _mark(k: int) -> tuple[str, str]:
    """Shape and colour of the k-th kind of points; 36 differ, since each round pairs them anew."""
    return SHAPES[(k + k // len(COLOURS)) % len(SHAPES)], COLOURS[k % len(COLOURS)]


def _marks(frame: pd.DataFrame, methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Shape and colour of each method, whole as in `Store.table()`: of those that there are, else of the frame's."""
    return {method: _mark(k) for k, method in enumerate(sorted({*methods, *frame["method"]}))}


def method_names(rows: pd.DataFrame) -> pd.Series:
    """What a legend calls each row's methods: those beside the objective, or `plain`, where that tells them apart."""
    short, whole = rows["method_short"], rows["method"]
    alike = whole.groupby(short).transform("nunique") > 1
    return short.where(~alike & (whole.nunique() > 1), whole)


# What a run shares with the one that was trained like it but without a guide and without the methods beside its
# objective: columns of `Store.table()`.
TWIN = ["data", "teacher", "solver", "pairs", "shape", "images", "batch", "optimizer", "lr", "schedule", "ema", "dtype",
        "seed"]  # fmt: skip


def plain_twins(table: pd.DataFrame) -> dict[str, str]:
    """Run -> its plain twin, for rows of `Store.table()` that have a guide or other methods than their objective."""
    key = table[[*TWIN, "method"]].astype(str).apply(tuple, axis=1) if len(table) else pd.Series(dtype=object)
    plain = (table["guide"] == "") & (table["method_short"] == "plain")
    twins = dict(zip(key[plain], table["run"][plain]))
    found = {}
    for run, (*alike, methods) in zip(table["run"][~plain], key[~plain]):
        objective = "+".join(name for name in methods.split("+") if name in OBJECTIVES)
        found[run] = twins.get((*alike, objective))
    return {run: twin for run, twin in found.items() if twin}


def beside_twins(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table, each with its plain twin behind it where the table has one; none stands twice."""
    twins = plain_twins(table)
    runs = dict.fromkeys(run for own in rows["run"] for run in (own, twins.get(own)) if run)
    return table.set_index("run", drop=False).loc[list(runs)].reset_index(drop=True)


def _sizes(rows: pd.DataFrame) -> np.ndarray:
    """Marker diameters whose area grows with the parameters, between 9 and 26 pixels."""
    params = rows["params_m"].fillna(0.1).to_numpy(float)
    return np.clip(22 * np.sqrt(np.maximum(params, 0)), 9, 26)


# Why a latency is drawn hollow, and by which marker; the sidebar of the pages says the same.
HOLLOW = {"": "", "graded D": "-open", "published": "-open", GUESS: "-open-dot"}


def _doubt(rows: pd.DataFrame) -> pd.Series:
    """A key of HOLLOW for each row: whose latency it is, where it was not measured or is graded D."""
    said = [GUESS if p == "estimated" else "published" if p == "published" else "graded D" if g == "D" else ""
            for p, g in zip(rows["provenance"], rows["grade"])]  # fmt: skip
    return pd.Series(said, index=rows.index, dtype=object)


def _guessed(rows: pd.DataFrame) -> pd.Series:
    return rows["provenance"].eq("estimated")


# Columns whose interval is not called after them.
_SPANNED = {"latency_ms": "latency"}


def _bars(rows: pd.DataFrame, name: str, colour: str, column: str | None = None) -> dict[str, object] | None:
    """Error bars from <name>_low to <name>_high around a column, which is called like them unless said otherwise."""
    if f"{name}_low" not in rows or not rows[f"{name}_low"].notna().any():
        return None
    middle = rows[column or name]
    up, down = rows[f"{name}_high"] - middle, middle - rows[f"{name}_low"]
    return dict(type="data", symmetric=False, array=up, arrayminus=down, color=colour, thickness=1.2, width=3)


def _ring(figure: go.Figure, rows: pd.DataFrame, x: str, y: str, *, name: str, shape: str, colour: str,
          more: int, labels: Mapping[str, str], named: Mapping[str, str]) -> None:  # fmt: skip
    """A hollow mark around a point, `more` pixels larger, with the point's name beside it."""
    if len(rows):
        figure.add_scatter(
            x=rows[x], y=rows[y], mode="markers+text", name=name, hoverinfo="skip", cliponaxis=False,
            text=[labels[run] if run in named else "" for run in rows["run"]],
            textposition=[named.get(run, "top right") for run in rows["run"]],
            marker=dict(symbol=shape, size=_sizes(rows) + more, color=colour, line=dict(width=2.5)),
        )  # fmt: skip


def _labels(rows: pd.DataFrame, guess: pd.Series) -> dict[str, str]:
    """Run -> its name as a chart shows it."""
    said = [_safe(name) + (f", {GUESS}" if g else "") for name, g in zip(rows["name"], guess)]
    return dict(zip(rows["run"], said))


# A chart's size on the screen is not known here: names are kept apart as on a narrow one, in pixels.
PLOT_PX, LETTER_PX, LINE_PX = (400, 320), 7.0, 16.0


def _named(shown: pd.DataFrame, line: pd.DataFrame, x: str, y: str, *, first: Sequence[str | None],
           labels: Mapping[str, str], ringed: Mapping[str, int], heights: Sequence[float], limit: float | None,
           log_x: bool, log_y: bool) -> dict[str, str]:  # fmt: skip
    """Run -> where its name stands: those in `first`, and of the front those whose names cover nothing.

    `ringed` says by how many pixels a run's mark is larger, `heights` which values of y are drawn besides the rows'.
    """
    across, up = _pixels(shown[x], [], log_x, PLOT_PX[0]), _pixels(shown[y], heights, log_y, PLOT_PX[1])
    radius = pd.Series(_sizes(shown) / 2, shown.index) + np.array([ringed.get(run, 0) for run in shown["run"]]) / 2
    left, right = across(shown[x]) - radius, across(shown[x]) + radius
    low, high = [f"{y}_low", f"{y}_high"] if {f"{y}_low", f"{y}_high"} <= set(shown) else [y, y]
    bottom = np.fmin(up(shown[low]), up(shown[y]) - radius)
    top = np.fmax(up(shown[high]), up(shown[y]) + radius)
    marks = np.column_stack([left, right, bottom, top]).reshape(-1, 4)
    covered = marks
    wall = (
        np.array([[across(limit)] * 2 + [0, PLOT_PX[1]]]) if limit is not None else None
    )  # rather crossed than a point
    # No student lies on one side of the front, and its line comes from the other.
    places = ("top left", "bottom right") if choose.QUANTITIES[y].more_is_better else ("bottom left", "top right")
    places = dict.fromkeys([*places, "bottom left", "top right", "top left", "bottom right"])
    named: dict[str, str] = {}
    for run in [r for r in first if r] + list(line["run"]):
        where = np.flatnonzero(shown["run"] == run)
        if run in named or not len(where) or len(named) >= MOST_NAMES:
            continue
        row = shown.iloc[where[0]]
        at, r, wide = (across(row[x]), up(row[y])), radius.iloc[where[0]], LETTER_PX * len(labels[run])
        boxes = {place: _text_box(at, r, wide, place) for place in places}
        hits = {
            place: 2 * _overlaps(box, covered) + 4 * _cut_off(at[0], box) + (wall is not None and _overlaps(box, wall))
            for place, box in boxes.items()
        }
        place = min(hits, key=hits.get)
        if run in first or not hits[place]:
            named[run] = place
            covered = np.vstack([covered, boxes[place]])
    return named


def _pixels(values: pd.Series, others: Sequence[float], log: bool, size: int) -> Callable[[object], object]:
    """What turns a value into its distance from the left or lower edge of a plot of `size` pixels."""
    scale = np.log if log else np.asarray
    known = [v for v in [*values, *others] if pd.notna(v) and (v > 0 or not log)]
    low, high = scale(min(known, default=1.0)), scale(max(known, default=1.0))
    return lambda value: size * (0.06 + 0.88 * (scale(value) - low) / ((high - low) or 1))


def _text_box(at: tuple[float, float], radius: float, wide: float, place: str) -> np.ndarray:
    """Left, right, lower and upper edge of a name beside a mark."""
    left = at[0] - radius - wide if place.endswith("left") else at[0] + radius
    bottom = at[1] - radius - LINE_PX if place.startswith("bottom") else at[1] + radius
    return np.array([left, left + wide, bottom, bottom + LINE_PX])


def _cut_off(at: float, box: np.ndarray) -> bool:
    """Whether a name beside a mark at `at` would end outside a narrow plot and its margin."""
    middle = at * NARROW_PX / PLOT_PX[0]
    return middle + box[0] - at < -8 or middle + box[1] - at > NARROW_PX + 8


def _overlaps(box: np.ndarray, others: np.ndarray) -> int:
    left, right, low, high = others.T
    return int(((box[0] < right) & (left < box[1]) & (box[2] < high) & (low < box[3])).sum())


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


def _axis(rows: pd.DataFrame, column: str, *, log: bool) -> dict[str, object]:
    """A linear axis, or a logarithmic one whose ticks are written out: plotly would show bare leading digits."""
    values = rows[column][rows[column] > 0]
    if not log or values.empty:
        return {"type": "linear"}
    low, high = float(values.min()), float(values.max())
    steps = (1, 1.5, 2, 3, 4, 5, 7) if high <= 12 * low else (1, 2, 5) if high <= 1000 * low else (1,)
    powers = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 3)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]}


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


def _only(frame: pd.DataFrame, column: str) -> object | None:
    values = frame[column].dropna().unique() if column in frame else []
    return values[0] if len(values) == 1 else None


def _counts(values: pd.Series) -> str:
    """The values in words, each with its count where there are several: `compiled (11), eager (3)`."""
    counts = values[values != ""].value_counts()
    return counts.index[0] if len(counts) == 1 else ", ".join(f"{v} ({n})" for v, n in counts.items())


def _known(row: dict[str, object], column: str) -> bool:
    return column in row and row[column] is not None and not pd.isna(row[column])


def _safe(text: str) -> str:
    return html.escape(text, quote=False)


# --- device reports -----------------------------------------------------------------------------

MOST_TIMINGS = 30  # below each other
DOUBTFUL = ("D", "E", "F")
STAGES = {"timing.load_ms": "load", "timing.build_ms": "build", "timing.first_ms": "first", "timing.p50": "steady"}
PATTERNS = ("", "/", "x", ".", "-", "+")
CAUSE_COLOURS = {"overhead": COLOURS[4], "arithmetic": COLOURS[0], "memory": COLOURS[2]}


def latencies(rows: pd.DataFrame, percentile: str = "p50") -> go.Figure:
    """Rows of `compare.named` below each other, the fastest first: p50 with its interval, a line to p90 and p99.

    Hollow is what is graded D or was not measured here. At most MOST_TIMINGS are drawn; `percentile` orders them.
    Every point's customdata is its report's id.
    """
    rows = rows.dropna(subset=[f"timing.{percentile}"]).sort_values(f"timing.{percentile}").head(MOST_TIMINGS)
    rows = rows.assign(label=timing_labels(rows))
    figure = go.Figure()
    for row in rows.to_dict("records"):
        ends = [row[c] for c in ("timing.p50", "timing.p90", "timing.p99") if pd.notna(row[c])]
        figure.add_scatter(x=[ends[0], ends[-1]], y=[row["label"]] * 2, mode="lines", hoverinfo="skip",
                           showlegend=False, line=dict(color=GREY, width=1.5))  # fmt: skip
    for name, symbol in [("p90", "line-ns"), ("p99", "line-ns")]:
        there = rows.dropna(subset=[f"timing.{name}"])
        figure.add_scatter(
            x=there[f"timing.{name}"], y=there["label"], mode="markers", name=name, showlegend=False,
            hovertemplate=name + " %{x:.3g} ms<extra></extra>",
            marker=dict(symbol=symbol, size=11 if name == "p90" else 7, line=dict(width=2, color=GREY)),
        )  # fmt: skip
    for k, (form, mine) in enumerate(sorted(rows.groupby("form"), key=lambda pair: pair[0])):
        shape, colour = _mark(k)
        hollow = mine["grade"].isin(DOUBTFUL)
        guess = _guessed(mine)
        symbols = [f"{shape}-open-dot" if g else f"{shape}-open" if h else shape for g, h in zip(guess, hollow)]
        spread = mine.rename(columns={"low": "p50_low", "high": "p50_high"})
        figure.add_scatter(
            x=mine["timing.p50"], y=mine["label"], mode="markers", name=_safe(form), customdata=mine[["report_id"]],
            hovertext=[timing_hover(row) for row in mine.to_dict("records")], hoverinfo="text",
            error_x=_bars(spread, "p50", colour, "timing.p50"),
            marker=dict(symbol=symbols, size=11, color=colour, line=dict(width=1.5, color=colour)),
        )  # fmt: skip
    spread = rows[["timing.p50", "timing.p99"]].stack()
    log = bool(len(spread)) and spread.max() > 12 * spread.min()
    figure.update_xaxes(title="ms per call: p50, then | p90 and | p99",
                        **_axis(pd.DataFrame({"ms": spread}), "ms", log=log))  # fmt: skip
    if not log:
        figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(categoryorder="array", categoryarray=rows["label"][::-1], tickfont=dict(size=12))
    return figure.update_layout(template=TEMPLATE, height=110 + 38 * max(1, len(rows)))


def timing_labels(rows: pd.DataFrame) -> list[str]:
    """Student, form and grade of each row, and those conditions in which the rows differ; no two are alike."""
    conditions = {"workload.batch": "batch {:.0f}".format, "state.threads": choose.threads_said, "workload.scope": str}
    differing = [column for column in conditions if rows[column].nunique(dropna=False) > 1]
    said = []
    for row in rows.to_dict("records"):
        who = f"{row['name']}, {row['device']}" if rows["device"].nunique() > 1 else row["name"]
        parts = [row["form"], *(conditions[c](row[c]) for c in differing if pd.notna(row[c]))]
        parts.append(f"{GUESS}, F" if row["grade"] == choose.ESTIMATED else row["grade"])
        said.append(f"{_safe(who)}<br>{_safe(', '.join(parts))}")
    times = Counter(said)
    return [label if times[label] == 1 else f"{label} {run[-4:]}" for label, run in zip(said, rows["report_id"])]


def timing_hover(row: Mapping[str, object]) -> str:
    """The facts of one report as a hover box."""
    within = f" ({number(row['low'])} to {number(row['high'])})" if pd.notna(row["low"]) else ""
    lines = [f"<b>{_safe(str(row['name']))}</b>", _safe(f"{row['form']} on {row['device']}"),
             f"p50 {number(row['timing.p50'])} ms{within}"]  # fmt: skip
    slow_end = {name: row[f"timing.{name}"] for name in ("p90", "p99")}
    lines += [f"{name} {number(ms)} ms" for name, ms in slow_end.items() if pd.notna(ms)]
    threads = f", {choose.threads_said(row['state.threads'])}" if pd.notna(row["state.threads"]) else ""
    lines.append(f"batch {row['workload.batch']:.0f}{threads}, {row['workload.scope']}")
    lines.append(f"grade {row['grade']}:")
    return "<br>".join([*lines, *(f"- {_safe(reason)}" for reason in row["grade_reasons"])])


def over_time(samples_ns: Sequence[int], sessions: int = 1) -> go.Figure:
    """A report's kept times in the order in which they were taken, the running median, and each session's thirds.

    What drifts climbs or falls; what was disturbed has steps and spikes. Long series are thinned to 2,000 points.
    """
    ms = np.asarray(samples_ns, float) / 1e6
    at_call = np.arange(len(ms))
    shown = np.unique(np.r_[lttb(at_call, ms, CURVE_POINTS - 50), np.argsort(ms)[-50:]])  # the slowest are the story
    figure = go.Figure()
    figure.add_scatter(x=shown, y=ms[shown], mode="markers", name="one call", marker=dict(size=3, color=COLOURS[5]),
                       hovertemplate="%{y:.4g} ms<extra></extra>")  # fmt: skip
    window = max(1, len(ms) // 40)
    edges = range(0, len(ms), window)
    middles = [float(np.median(ms[k : k + window])) for k in edges]
    figure.add_scatter(x=[k + min(window, len(ms) - k) / 2 for k in edges], y=middles, mode="lines",
                       name=f"median of {window}", line=dict(color=COLOURS[0], width=2), hoverinfo="skip")  # fmt: skip
    parts = np.array_split(at_call, max(1, sessions))
    thirds = [part for session in parts if len(session) >= 3 for part in np.array_split(session, 3)]
    for k, part in enumerate(thirds):
        middle = float(np.median(ms[part]))
        figure.add_scatter(x=[part[0], part[-1]], y=[middle] * 2, mode="lines", name="median of a third",
                           showlegend=k == 0, line=dict(color=COLOURS[1], width=2, dash="dash"),
                           hovertemplate=f"median of this third: {middle:.4g} ms<extra></extra>")  # fmt: skip
    for session in parts[1:]:
        figure.add_vline(x=session[0] - 0.5, line=dict(color=GREY, width=1, dash="dot"))
    # One call in a thousand that took a hundred times as long would flatten all others.
    top = float(np.quantile(ms, 0.995)) * 1.3 if len(ms) else 1.0
    figure.update_xaxes(title="calls that were kept, in order")
    figure.update_yaxes(title="milliseconds", range=[0, top])
    return figure.update_layout(template=TEMPLATE, height=320)


ECDF_POINTS = 400
# Column of a report's state without its .min, .mean and .max -> what it is called, and its unit.
STATE = {"state.cpu_mhz": ("CPU", "MHz"), "state.gpu_mhz": ("GPU", "MHz"), "state.emc_mhz": ("Memory", "MHz"),
         "state.temp_c": ("Temperature", "\N{DEGREE SIGN}C"), "state.power_w": ("Power", "W")}  # fmt: skip


def ecdf(samples_ns: Mapping[str, Sequence[int]]) -> go.Figure:
    """The share of a report's kept times that are at most so long, a curve for each name, with lines at p50, p90, p99.

    A steady timing is a wall; a tail to the right is what p99 pays. Long series are thinned evenly in the share, with
    their slowest times whole.
    """
    figure, slowest, fastest = go.Figure(), 0.0, math.inf
    for k, (name, raw) in enumerate(samples_ns.items()):
        ms = np.sort(np.asarray(raw, float)) / 1e6
        if not len(ms):
            continue
        kept = np.unique(
            np.r_[np.linspace(0, len(ms) - 1, ECDF_POINTS).astype(int), range(max(0, len(ms) - 50), len(ms))]
        )
        figure.add_scatter(
            x=ms[kept], y=(kept + 1) / len(ms), mode="lines", name=_safe(name),
            line=dict(shape="hv", width=2, color=COLOURS[k % len(COLOURS)], dash=LINES[k % len(LINES)]),
            hovertemplate="%{y:.1%} within %{x:.4g} ms<extra>%{fullData.name}</extra>",
        )  # fmt: skip
        fastest, slowest = min(fastest, ms[0]), max(slowest, ms[-1])
    for share in (0.5, 0.9, 0.99):
        figure.add_hline(y=share, line=dict(color=GREY, width=1, dash="dot"), annotation_text=f"p{100 * share:.0f}",
                         annotation_position="bottom right")  # fmt: skip
    log = bool(slowest > 5 * fastest)
    figure.update_xaxes(title="ms per call" + ", logarithmic" * log,
                        **_axis(pd.DataFrame({"ms": [fastest, slowest]}), "ms", log=log))  # fmt: skip
    if figure.data:  # room beside the first and the last step
        ends = [0.96 * fastest, 1.04 * slowest]
        figure.update_xaxes(range=np.log10(ends).tolist() if log else ends)
    figure.update_yaxes(title="share of the calls", tickformat=".0%", range=[0, 1.02])
    return figure.update_layout(template=TEMPLATE, height=380, showlegend=True)


def states(rows: pd.DataFrame) -> go.Figure | None:
    """Clocks, temperature and power while each of a few reports was timed: from lowest to highest, a mark at the mean.

    A strip for each quantity that some report knows; None where none knows any. Rows are those of `compare.named`.
    """
    known = [name for name in STATE if f"{name}.mean" in rows and rows[f"{name}.mean"].notna().any()]
    if not known:
        return None
    labels = [label.replace("<br>", ", ") for label in timing_labels(rows)]
    strip, gap = 14 + 18 * len(rows), 62  # pixels; in the gap stand ticks and the next title
    total = len(known) * strip + (len(known) - 1) * gap
    figure = make_subplots(rows=len(known), cols=1, vertical_spacing=gap / total,
                           subplot_titles=[_state_title(rows, name) for name in known])  # fmt: skip
    for at, name in enumerate(known, 1):
        for k, (row, label) in enumerate(zip(rows.to_dict("records"), labels)):
            low, mean, high = (row.get(f"{name}.{end}") for end in ("min", "mean", "max"))
            if pd.isna(mean):
                continue
            word, unit = STATE[name]
            figure.add_scatter(
                x=[low, mean, high], y=[-k] * 3, mode="lines+markers", name=label, legendgroup=label,
                showlegend=label not in {trace.name for trace in figure.data}, hoverinfo="text",
                hovertext=f"<b>{label}</b><br>{word} {low:.4g} to {high:.4g} {unit}, mean {mean:.4g}",
                line=dict(color=COLOURS[k % len(COLOURS)], width=3),
                marker=dict(size=[9, 11, 9], color=COLOURS[k % len(COLOURS)], line=dict(width=2),
                            symbol=["line-ns-open", SHAPES[k % len(SHAPES)], "line-ns-open"]),
                row=at, col=1,
            )  # fmt: skip
    figure.update_yaxes(visible=False, range=[0.6 - len(rows), 0.6])
    top, bottom = 40 + 22 * len(rows), 36  # the legend may take a line for each report
    figure.update_layout(template=TEMPLATE, height=total + top + bottom, showlegend=True,
                         margin=dict(l=8, r=8, t=top, b=bottom), legend=dict(y=1 + 34 / total))  # fmt: skip
    return figure.update_annotations(xanchor="left", x=0, font=dict(size=13, color=TEXT))


def _state_title(rows: pd.DataFrame, name: str) -> str:
    """CPU (MHz), Power (W, VDD_IN), ..."""
    word, unit = STATE[name]
    rail = _only(rows, "state.power_rail") if name == "state.power_w" else None
    return _safe(f"{word} ({unit}{', ' + rail if rail else ''})")


def stages(rows: pd.DataFrame) -> go.Figure:
    """What each of a few reports' call costs cold and warm: load, build, first call, steady; bars on a log axis."""
    figure, labels = go.Figure(), timing_labels(rows)
    values = []
    for k, ((_, row), label) in enumerate(zip(rows.iterrows(), labels)):
        there = {said: row[column] for column, said in STAGES.items() if pd.notna(row[column]) and row[column] > 0}
        values += list(there.values())
        figure.add_bar(
            y=list(there), x=list(there.values()), orientation="h", name=label.replace("<br>", ", "),
            text=[f"{number(ms)} ms" for ms in there.values()], textposition="outside", cliponaxis=False,
            hoverinfo="text",
            marker=dict(color=COLOURS[k % len(COLOURS)], pattern=dict(shape=PATTERNS[k % len(PATTERNS)])),
        )  # fmt: skip
    ticks = _log_ticks(values)
    figure.update_xaxes(title="milliseconds, logarithmic", type="log", tickvals=ticks,
                        ticktext=[f"{t:g}" for t in ticks])  # fmt: skip
    figure.update_yaxes(categoryorder="array", categoryarray=list(STAGES.values())[::-1])
    return figure.update_layout(template=TEMPLATE, height=120 + 34 * len(STAGES), showlegend=len(rows) > 1)


def precisions(rows: pd.DataFrame) -> go.Figure:
    """Rows of `compare.precisions`: a bar per precision, a group per runtime, with 95 % intervals.

    Bars with lines across are of precisions that do not pay or are not shown to, hollow ones were estimated.
    """
    figure = go.Figure()
    known = list(dict.fromkeys(rows["model.precision"]))
    for k, precision in enumerate(known):
        mine = rows[rows["model.precision"] == precision]
        spread, colour = mine.rename(columns={"low": "p50_low", "high": "p50_high"}), COLOURS[k % len(COLOURS)]
        figure.add_bar(
            x=mine["runtime"], y=mine["timing.p50"], name=precision, textposition="outside",
            text=[number(v) + " estimated" * g for v, g in zip(mine["timing.p50"], _guessed(mine))],
            hovertext=[timing_hover(row) for row in mine.to_dict("records")], hoverinfo="text",
            error_y=_bars(spread, "p50", GREY, "timing.p50"),
            marker=dict(color=["rgba(0,0,0,0)" if g else colour for g in _guessed(mine)],
                        line=dict(color=colour, width=1.5),
                        pattern=dict(shape=["/" if v in UNPAID else "" for v in mine["verdict"]])),
        )  # fmt: skip
    figure.update_yaxes(title="milliseconds per call, p50", rangemode="tozero")
    return figure.update_layout(template=TEMPLATE, height=380, barmode="group")


UNPAID = ("does not pay", "not shown to pay")


def size_and_time(table: pd.DataFrame, by: str) -> go.Figure:
    """Rows of `compare.sizes`: measured milliseconds against a size, and the line that size alone would give.

    Filled markers lie well above the line; the shape says what most of the roofline's time goes to.
    """
    figure = go.Figure()
    line = table.dropna(subset=["by_size"]).sort_values(by)
    if len(line):
        figure.add_scatter(x=line[by], y=line["by_size"], mode="lines", name="what its size says", hoverinfo="skip",
                           line=dict(color=GREY, width=1.5, dash="dot"))  # fmt: skip
    slow = table["than_size"].gt(1.1)
    named = set(table["name"].head(MOST_NAMES // 2)) if len(line) else set()
    cause = table[list(CAUSE_COLOURS)].astype(float).fillna(-1).idxmax(axis=1) if len(table) else pd.Series(dtype=str)
    cause = cause.where(table["roofline"].notna(), "measured")
    middle = np.sqrt(table[by].min() * table[by].max()) if len(table) else 0.0
    for k, (name, mine) in enumerate(table.groupby(cause)):
        colour = CAUSE_COLOURS.get(name, COLOURS[0])
        symbols = [SHAPES[k] if s else f"{SHAPES[k]}-open" for s in slow[mine.index]]
        figure.add_scatter(
            x=mine[by], y=mine["ms"], mode="markers+text", name="measured" if name == "measured" else f"mostly {name}",
            text=[_safe(n) if n in named else "" for n in mine["name"]], cliponaxis=False,
            textposition=["top right" if size < middle else "top left" for size in mine[by]],
            hovertext=[size_hover(row) for row in mine.to_dict("records")], hoverinfo="text",
            customdata=mine[["run"]],
            marker=dict(size=12, color=colour, symbol=symbols, line=dict(width=1.5, color=colour)),
        )  # fmt: skip
    title = "Parameters (M, as deployed)" if by == "params_m" else "Multiply-adds per image (M, as deployed)"
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title=title, **_axis(table, by, log=True))
    figure.update_yaxes(title="milliseconds per call, p50", **_axis(table, "ms", log=True))
    return figure.update_layout(template=TEMPLATE, height=420)


def size_hover(row: Mapping[str, object]) -> str:
    lines = [f"<b>{_safe(str(row['name']))}</b>", f"{number(row['ms'])} ms, {number(row['params_m'])} M parameters"]
    if pd.notna(row["than_size"]):
        lines.append(f"{number(row['than_size'])} times what its size says")
    if pd.notna(row["roofline"]):
        lines.append(f"{number(row['than_roofline'])} times its roofline of {number(row['roofline'])} ms")
        lines.append(", ".join(f"{name} {row[name]:.0%}" for name in CAUSE_COLOURS))
    return "<br>".join(lines)


def residuals(table: pd.DataFrame) -> go.Figure:
    """Rows of `compare.sizes` as bars from 1: what was measured over what size says, and over the roofline."""
    rows = table.dropna(subset=["than_size"])
    rows = pd.concat([rows.head(MOST_TIMINGS // 2), rows.tail(MOST_TIMINGS // 2)]).drop_duplicates("name")
    figure = go.Figure()
    for column, name, colour, pattern in [("than_size", "over what its size says", COLOURS[1], ""),
                                          ("than_roofline", "over the roofline", COLOURS[0], "/")]:  # fmt: skip
        there = rows.dropna(subset=[column])
        if len(there):
            figure.add_bar(
                y=there["name"].map(_safe), x=there[column] - 1, base=1, orientation="h", name=name,
                text=[number(v) for v in there[column]], hoverinfo="text", textposition="outside", cliponaxis=False,
                marker=dict(color=colour, pattern=dict(shape=pattern)),
            )  # fmt: skip
    figure.add_vline(x=1, line=dict(color=GREY, width=1))
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="measured time, times the expected")
    figure.update_yaxes(categoryorder="array", categoryarray=rows["name"].map(_safe)[::-1], tickfont=dict(size=12))
    figure.update_layout(margin=dict(r=44))  # for the figure beside the longest bar
    return figure.update_layout(template=TEMPLATE, height=130 + 34 * max(1, len(rows)), barmode="group")


MOST_PARTED = 8  # students whose parts are drawn


def parts(table: pd.DataFrame) -> go.Figure:
    """Rows of `compare.parts` with a `name`: each student's measured milliseconds by kind of part.

    The paler bar below is what arithmetic and memory at their best allow for the same parts. At most MOST_PARTED
    students are drawn.
    """
    names = list(dict.fromkeys(table["name"]))[:MOST_PARTED]
    figure, place = go.Figure(), {name: 2.4 * k for k, name in enumerate(names)}
    rows = table[table["name"].isin(names)]
    for k, kind in enumerate(dict.fromkeys(rows["kind"])):
        mine = rows[rows["kind"] == kind]
        for column, down, said in [("ms", 0.0, "measured"), ("roofline_ms", 0.85, "at its best")]:
            figure.add_bar(
                y=[place[name] + down for name in mine["name"]], x=mine[column], orientation="h", width=0.8, name=kind,
                legendgroup=kind, showlegend=not down, hoverinfo="text",
                hovertext=[f"<b>{_safe(name)}</b><br>{kind}: {number(ms)} ms {said}"
                           for name, ms in zip(mine["name"], mine[column])],
                marker=dict(color=COLOURS[k % len(COLOURS)], opacity=0.5 if down else 1.0, line=dict(width=0),
                            pattern=dict(shape=PATTERNS[k % len(PATTERNS)], fillmode="overlay", solidity=0.25,
                                         fgcolor="rgba(255,255,255,0.8)")),
            )  # fmt: skip
    figure.update_xaxes(title="ms per call: measured, below at its best", rangemode="tozero")
    figure.update_yaxes(tickvals=[at + 0.42 for at in place.values()], ticktext=[_safe(name) for name in names],
                        range=[2.4 * len(names) - 0.9, -0.6], tickfont=dict(size=12), showgrid=False)  # fmt: skip
    return figure.update_layout(template=TEMPLATE, height=130 + 52 * max(1, len(names)), barmode="stack",
                                showlegend=True)  # fmt: skip


# --- pictures and curves ------------------------------------------------------------------------

EMPTY = (205, 205, 205)  # a tile that is not there
LINES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
CURVE_POINTS = 2000
INK, FAINT, PAPER = (27, 31, 36), (96, 104, 114), (255, 255, 255)


def side_by_side(
    pictures: Sequence[Run | np.ndarray | None],
    titles: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    *,
    rows: Sequence[int] = range(10),  # which images, by their place in the sheet
    row_titles: Sequence[str] | None = None,  # one for each line of the picture; None = the place
    across: int = 1,  # images of one model beside each other
    zoom: int = 4,  # screen pixels per image pixel, so every pixel stays square and sharp
) -> Image.Image:
    """Sheets of several models as one picture: a column per model, in each line the same noise and class.

    A sheet is a run (its samples.npz), an array (N, C, H, W) uint8, or None for one that is not
    there: it becomes grey tiles. Titles and captions of runs default to label, parameters and FD.
    """
    if not pictures:
        raise ValueError("side_by_side needs at least one sheet, got none")
    sheets = [_images_of(p) for p in pictures]
    there = [s for s in sheets if s is not None]
    side = there[0].shape[-1] if there else 28
    titles = titles if titles is not None else [p.label if isinstance(p, Run) else "" for p in pictures]
    captions = captions if captions is not None else [_caption_of(p) for p in pictures]
    for name, given in [("titles", titles), ("captions", captions)]:
        if len(given) != len(pictures):
            raise ValueError(f"side_by_side got {len(pictures)} sheets and {len(given)} {name}; give one for each")
    lines = [list(rows[i : i + across]) for i in range(0, len(rows), across)]
    if row_titles is None:
        row_titles = [f"{line[0]}" if across == 1 else f"{line[0]}-{line[-1]}" for line in lines]
    blocks = [_block(s, lines, across, zoom, side) for s in sheets]
    return _compose(blocks, titles, captions, row_titles, zoom * side)


def caption(facts: Mapping[str, object]) -> str:
    """Parameters, FD and milliseconds of one row of a table, as far as they are known, in a line each."""
    known = (_number(facts.get(k)) for k in ("params", "params_deployed", "fd", "latency_ms", "speed_up"))
    params, deployed, fd, ms, speed_up = known
    lines = []
    if params is not None:
        before = f" ({_count_said(params)} as trained)" if deployed else ""
        lines.append(f"{_count_said(deployed or params)} parameters{before}")
    if fd is not None:
        lines.append(f"FD {fd:.3g}")
    if ms is not None:
        lines.append(f"{ms:.3g} ms")
    if speed_up is not None and speed_up != 1:
        lines.append(f"{speed_up:.3g}x as fast as its teacher")
    return "\n".join(lines)


def _count_said(params: float) -> str:
    return f"{params / 1e6:.2f} M" if params >= 1e5 else f"{params / 1e3:.1f} k"


def difference(images: np.ndarray, reference: np.ndarray, gain: float = 2.0) -> np.ndarray:
    """Signed difference of two sheets as colours, (N, 3, H, W) uint8: white equal, orange brighter, blue darker.

    Full colour stands for 255 / gain grey levels; colour channels are averaged.
    """
    if images.shape[-2:] != reference.shape[-2:] or len(images) != len(reference):
        raise ValueError(f"two sheets of one shape are needed, got {images.shape} and {reference.shape}")
    d = (images.astype(np.float32).mean(1) - reference.astype(np.float32).mean(1)) * gain / 255
    d = d.clip(-1, 1)[:, None]
    far = np.where(d > 0, _rgb(COLOURS[1]), _rgb(COLOURS[0]))  # (N, 3, H, W)
    return np.rint(255 + (far - 255) * np.abs(d)).astype(np.uint8)


def learning_curves(
    logs: Mapping[str, Sequence[Mapping[str, float]]],
    *,
    x: str = "images",  # images, seconds, step
    term: str | None = None,  # "pairs/l1", "grad_norm", ...; None = the sum of the loss's terms
    mark: float | None = None,  # a place on the x axis
) -> go.Figure:
    """Logged values of several runs over training, with a log y axis and each run's lowest point marked.

    Long logs are thinned to 2,000 points that keep the line's shape; the lowest point is of all.
    """
    names = {"images": "images seen", "seconds": "training time (s)", "step": "updates"}
    if x not in names:
        raise ValueError(unknown("x axis of learning curves", x, names))
    if term is None:
        sums = {tuple(t for t in terms({name: rows}) if "/" in t) for name, rows in logs.items()} - {()}
        if len(sums) > 1:
            said = " and ".join(" + ".join(s) for s in sorted(sums))
            raise ValueError(f"these runs add up different loss terms: {said}; name one with term=")
    figure = go.Figure()
    for k, (name, rows) in enumerate(logs.items()):
        xs, ys = curve(rows, x, term)
        if not len(xs):
            continue
        color, low = COLOURS[k % len(COLOURS)], int(ys.argmin())
        kept = lttb(xs, np.log(ys), CURVE_POINTS)
        figure.add_scatter(
            x=xs[kept], y=ys[kept], name=_safe(name), mode="lines" if len(kept) > 1 else "markers",
            line={"color": color, "dash": LINES[k % len(LINES)], "width": 2},
            hovertemplate="%{y:.4g} at %{x:,.4~s}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=[xs[low]], y=[ys[low]], name=f"{_safe(name)}, lowest", showlegend=False, mode="markers",
            marker={"color": color, "size": 9, "symbol": "diamond"},
            hovertemplate="lowest: %{y:.4g} at %{x:,.4~s}<extra>" + _safe(name).replace("%{", "% {") + "</extra>",
        )  # fmt: skip
    if mark is not None:
        figure.add_vline(x=mark, line={"color": GREY, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title=names[x], rangemode="tozero")
    ticks = _log_ticks([y for trace in figure.data for y in trace.y])
    figure.update_yaxes(title=term or "loss (sum of its terms, mean of 50 updates)", type="log",
                        tickvals=ticks, ticktext=[f"{t:.10g}" for t in ticks])  # fmt: skip
    return figure.update_layout(template=TEMPLATE, height=380)


def _log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2, 5, 10, ... around some positive values; only powers of ten where they span more than three decades."""
    if not len(values):
        return []
    low, high = math.log10(min(values)), math.log10(max(values))
    steps = (1, 2, 5) if high - low <= 3 else (1,)
    return [float(f"{m}e{k}") for k in range(math.floor(low) - 1, math.ceil(high) + 1) for m in steps]


def terms(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """What the logs hold besides the axes: loss terms first, those of most runs first, then rate and norm."""
    axes, seen = {"step", "images", "seconds"}, Counter()
    for rows in logs.values():
        seen.update({k for row in rows if isinstance(row, Mapping) for k in row} - axes)
    return sorted(seen, key=lambda k: ("/" not in k, -seen[k], k))


def curve(rows: Sequence[Mapping[str, float]], x: str, term: str | None) -> tuple[np.ndarray, np.ndarray]:
    """The finite, positive points of a log; lines that a crash or a hand has spoilt are left out."""
    points = []
    for row in rows:
        if isinstance(row, Mapping):
            values = [row.get(term)] if term else [v for k, v in row.items() if "/" in k]
            at, numbers = _number(row.get(x)), [_number(v) for v in values]
            if at is not None and numbers and None not in numbers and sum(numbers) > 0:
                points.append((at, sum(numbers)))
    xs, ys = np.array(points, float).reshape(-1, 2).T
    return xs, ys


def lttb(x: np.ndarray, y: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` points that keep a line's shape (largest-triangle-three-buckets, Steinarsson 2013)."""
    if len(x) <= count:
        return np.arange(len(x))
    edges = np.linspace(1, len(x) - 1, count - 1).astype(int)
    kept = [0]
    for low, high, after in zip(edges[:-1], edges[1:], [*edges[2:], len(x)]):
        a, b = kept[-1], slice(high, after)  # the last point kept, the bucket that follows
        area = (x[a] - x[b].mean()) * (y[low:high] - y[a]) - (x[a] - x[low:high]) * (y[b].mean() - y[a])
        kept.append(low + int(np.abs(area).argmax()))
    return np.array([*kept, len(x) - 1])


def config_difference(runs: Sequence[Run]) -> pd.DataFrame:
    """Only the recipe fields in which runs differ: a row per field, a column per run, values as text.

    A run whose recipe can't be read is left out.
    """
    columns: dict[str, dict[str, str]] = {}
    for run in runs:
        try:
            plain = _flat_recipe(run.recipe)
        except (OSError, ValueError):
            continue
        columns[run.label if run.label not in columns else run.id] = plain
    fields = list(dict.fromkeys(name for plain in columns.values() for name in plain))
    frame = pd.DataFrame({c: [plain.get(f, "") for f in fields] for c, plain in columns.items()}, index=fields)
    return frame[frame.nunique(axis=1) > 1]


def _flat_recipe(recipe: Recipe) -> dict[str, str]:
    """student.depth, pairs.l1, ... -> value as text."""
    plain = json.loads(recipe.to_json())
    flat = {f"student.{k}": v for k, v in plain.pop("student").items()}
    methods = plain.pop("methods")
    flat = {"method": "+".join(m["method"] for m in methods)} | flat | plain
    flat |= {f"{m['method']}.{k}": v for m in methods for k, v in m["options"].items()}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in flat.items()}


def _images_of(picture: Run | np.ndarray | None) -> np.ndarray | None:
    if isinstance(picture, Run):
        found = read_samples(picture.path / "samples.npz")
        return None if found is None else found.images
    if picture is None:
        return None
    images = np.asarray(picture)
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1] not in (1, 3):
        raise ValueError(f"a sheet must be uint8 (N, 1 or 3, H, W), got {images.dtype} {images.shape}")
    return images


def _caption_of(picture: Run | np.ndarray | None) -> str:
    """What a run's own files say about it."""
    if not isinstance(picture, Run):
        return ""
    cost, metrics = picture.read("cost"), picture.read("metrics")
    facts = dict(cost) if isinstance(cost, dict) else {}
    with contextlib.suppress(KeyError, TypeError):
        facts["fd"] = metrics["values"]["fd"]["value"]
    if not (picture.path / "samples.npz").exists():
        return f"no samples; {jobs.sample_command(picture)}"
    return caption(facts)


def _block(sheet: np.ndarray | None, lines: list[list[int]], across: int, zoom: int, side: int) -> Image.Image:
    """One model's images, enlarged; grey where the sheet has none."""
    gap, tile = 2, zoom * side
    block = Image.new("RGB", (across * (tile + gap) - gap, len(lines) * (tile + gap) - gap), PAPER)
    empty = Image.new("RGB", (tile, tile), EMPTY)
    for row, line in enumerate(lines):
        for column, index in enumerate(line):
            picture = empty
            if sheet is not None and index < len(sheet):
                pixels = sheet[index].transpose(1, 2, 0)
                picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
                picture = picture.resize((tile, tile), Image.Resampling.NEAREST)
            block.paste(picture, (column * (tile + gap), row * (tile + gap)))
    return block


def _compose(blocks: list[Image.Image], titles: Sequence[str], captions: Sequence[str],
             row_titles: Sequence[str], tile: int) -> Image.Image:  # fmt: skip
    """Blocks in a row, with headings above and the lines' titles at the left."""
    big, small, pad = ImageFont.load_default(15), ImageFont.load_default(12), 14
    column = max(blocks[0].width, 132)
    heads = [_wrap(t, big, column) for t in titles]
    notes = [[w for part in c.split("\n") for w in _wrap(part, small, column)] if c else [] for c in captions]
    title_h, note_h = 20 * max(map(len, heads)), 16 * max(map(len, notes))
    left = pad + max([math.ceil(small.getlength(t)) for t in row_titles] + [0]) + pad
    top = pad + title_h + note_h + 8
    picture = Image.new("RGB", (left + len(blocks) * (column + pad), top + blocks[0].height + pad), PAPER)
    draw = ImageDraw.Draw(picture)
    for k, block in enumerate(blocks):
        x = left + k * (column + pad)
        for i, line in enumerate(heads[k]):
            draw.text((x, pad + title_h - 20 * (len(heads[k]) - i)), line, INK, big)
        for i, line in enumerate(notes[k]):
            draw.text((x, pad + title_h + 16 * i + 2), line, FAINT, small)
        picture.paste(block, (x, top))
    for i, title in enumerate(row_titles):
        draw.text((pad, top + i * (tile + 2) + tile // 2), title, FAINT, small, anchor="lm")
    return picture


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width`; a word that is too long is broken where it must."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        while font.getlength(word) > width:
            fits = next(i for i in range(len(word), 0, -1) if i == 1 or font.getlength(word[:i]) <= width)
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return [line for line in lines if line]


def _number(value: object) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        return None
    return float(value)


def _rgb(color: str) -> np.ndarray:
    """(3, 1, 1) float of #RRGGBB."""
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float32)[:, None, None]
