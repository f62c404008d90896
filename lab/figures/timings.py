"""Device reports: how long calls took, how steadily, and in which state the device was."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab import choose
from lab.choose import number
from lab.figures.curves import CURVE_POINTS, lttb
from lab.figures.look import (
    COLOURS,
    GREY,
    GUESS,
    LINES,
    PATTERNS,
    SHAPES,
    TEMPLATE,
    TEXT,
    axis_of,
    error_bars,
    guessed,
    log_ticks,
    mark_of,
    only_value,
    safe,
)
from lab.figures.words import shortened

MOST_TIMINGS = 30  # below each other
DOUBTFUL = ("D", "E", "F")
STAGES = {"timing.load_ms": "load", "timing.build_ms": "build", "timing.first_ms": "first", "timing.p50": "steady"}
ECDF_POINTS = 400
# Column of a report's state without its .min, .mean and .max -> what it is called, and its unit.
STATE = {"state.cpu_mhz": ("CPU", "MHz"), "state.gpu_mhz": ("GPU", "MHz"), "state.emc_mhz": ("Memory", "MHz"),
         "state.temp_c": ("Temperature", "\N{DEGREE SIGN}C"), "state.power_w": ("Power", "W")}  # fmt: skip
UNPAID = ("does not pay", "not shown to pay")


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
        shape, colour = mark_of(k)
        hollow = mine["grade"].isin(DOUBTFUL)
        guess = guessed(mine)
        symbols = [f"{shape}-open-dot" if g else f"{shape}-open" if h else shape for g, h in zip(guess, hollow)]
        spread = mine.rename(columns={"low": "p50_low", "high": "p50_high"})
        figure.add_scatter(
            x=mine["timing.p50"], y=mine["label"], mode="markers", name=safe(form), customdata=mine[["report_id"]],
            hovertext=[timing_hover(row) for row in mine.to_dict("records")], hoverinfo="text",
            error_x=error_bars(spread, "p50", colour, "timing.p50"),
            marker=dict(symbol=symbols, size=11, color=colour, line=dict(width=1.5, color=colour)),
        )  # fmt: skip
    spread = rows[["timing.p50", "timing.p99"]].stack()
    log = bool(len(spread)) and spread.max() > 12 * spread.min()
    figure.update_xaxes(title="ms per call: p50, then | p90 and | p99",
                        **axis_of(pd.DataFrame({"ms": spread}), "ms", log=log))  # fmt: skip
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
        who = shortened(row["name"], 26)  # or a phone has no room for the marks
        who = f"{who}, {row['device']}" if rows["device"].nunique() > 1 else who
        parts = [row["form"], *(conditions[c](row[c]) for c in differing if pd.notna(row[c]))]
        parts.append(f"{GUESS}, F" if row["grade"] == choose.ESTIMATED else row["grade"])
        said.append(f"{safe(who)}<br>{safe(', '.join(parts))}")
    times = Counter(said)
    return [label if times[label] == 1 else f"{label} {run[-4:]}" for label, run in zip(said, rows["report_id"])]


def timing_hover(row: Mapping[str, object]) -> str:
    """The facts of one report as a hover box."""
    within = f" ({number(row['low'])} to {number(row['high'])})" if pd.notna(row["low"]) else ""
    lines = [f"<b>{safe(str(row['name']))}</b>", safe(f"{row['form']} on {row['device']}"),
             f"p50 {number(row['timing.p50'])} ms{within}"]  # fmt: skip
    slow_end = {name: row[f"timing.{name}"] for name in ("p90", "p99")}
    lines += [f"{name} {number(ms)} ms" for name, ms in slow_end.items() if pd.notna(ms)]
    if pd.notna(row.get("beside")) and row["baseline"] != row["name"]:
        lines.append(safe(f"{choose.better_said(row['beside'] / 100)} than {row['baseline']}"))
    threads = f", {choose.threads_said(row['state.threads'])}" if pd.notna(row["state.threads"]) else ""
    lines.append(f"batch {row['workload.batch']:.0f}{threads}, {row['workload.scope']}")
    lines.append(f"grade {row['grade']}:")
    return "<br>".join([*lines, *(f"- {safe(reason)}" for reason in row["grade_reasons"])])


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
            x=ms[kept], y=(kept + 1) / len(ms), mode="lines", name=safe(name),
            line=dict(shape="hv", width=2, color=COLOURS[k % len(COLOURS)], dash=LINES[k % len(LINES)]),
            hovertemplate="%{y:.1%} within %{x:.4g} ms<extra>%{fullData.name}</extra>",
        )  # fmt: skip
        fastest, slowest = min(fastest, ms[0]), max(slowest, ms[-1])
    for share in (0.5, 0.9, 0.99):
        figure.add_hline(y=share, line=dict(color=GREY, width=1, dash="dot"), annotation_text=f"p{100 * share:.0f}",
                         annotation_position="bottom right")  # fmt: skip
    log = bool(slowest > 5 * fastest)
    figure.update_xaxes(title="ms per call" + ", logarithmic" * log,
                        **axis_of(pd.DataFrame({"ms": [fastest, slowest]}), "ms", log=log))  # fmt: skip
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
    rail = only_value(rows, "state.power_rail") if name == "state.power_w" else None
    return safe(f"{word} ({unit}{', ' + rail if rail else ''})")


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
    ticks = log_ticks(values)
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
            text=[number(v) + " estimated" * g for v, g in zip(mine["timing.p50"], guessed(mine))],
            hovertext=[timing_hover(row) for row in mine.to_dict("records")], hoverinfo="text",
            error_y=error_bars(spread, "p50", GREY, "timing.p50"),
            marker=dict(color=["rgba(0,0,0,0)" if g else colour for g in guessed(mine)],
                        line=dict(color=colour, width=1.5),
                        pattern=dict(shape=["/" if v in UNPAID else "" for v in mine["verdict"]])),
        )  # fmt: skip
    figure.update_yaxes(title="milliseconds per call, p50", rangemode="tozero")
    return figure.update_layout(template=TEMPLATE, height=380, barmode="group")
