"""What trainings logged, as curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from lab.config import unknown
from lab.figures.look import COLOURS, GREY, LINES, TEMPLATE, finite, log_ticks, safe

CURVE_POINTS = 2000


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
            x=xs[kept], y=ys[kept], name=safe(name), mode="lines" if len(kept) > 1 else "markers",
            line={"color": color, "dash": LINES[k % len(LINES)], "width": 2},
            hovertemplate="%{y:.4g} at %{x:,.4~s}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=[xs[low]], y=[ys[low]], name=f"{safe(name)}, lowest", showlegend=False, mode="markers",
            marker={"color": color, "size": 9, "symbol": "diamond"},
            hovertemplate="lowest: %{y:.4g} at %{x:,.4~s}<extra>" + safe(name).replace("%{", "% {") + "</extra>",
        )  # fmt: skip
    if mark is not None:
        figure.add_vline(x=mark, line={"color": GREY, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title=names[x], rangemode="tozero")
    ticks = log_ticks([y for trace in figure.data for y in trace.y])
    figure.update_yaxes(title=term or "loss (sum of its terms, mean of 50 updates)", type="log",
                        tickvals=ticks, ticktext=[f"{t:.10g}" for t in ticks])  # fmt: skip
    return figure.update_layout(template=TEMPLATE, height=380)


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
            at, numbers = finite(row.get(x)), [finite(v) for v in values]
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
