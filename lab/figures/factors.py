"""Factors on a quantity, each with its interval beside 1: effects of a change, verdicts on methods."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.choose import number
from lab.figures.look import COLOURS, GREY, TEMPLATE, mark_of, safe

COARSE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
FINE = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 3)
FINEST = (0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15)
# The words of `verdicts.Verdict`: shape and colour of each; hollow is what was not decided.
VERDICTS = {
    "helps": ("circle", COLOURS[2]), "no difference": ("square", GREY), "hurts": ("diamond", COLOURS[1]),
    "open": ("square-open", GREY), "better in direction": ("circle-open", COLOURS[2]),
    "worse in direction": ("diamond-open", COLOURS[1]),
}  # fmt: skip


def factors(rows: pd.DataFrame, title: str, marks: Mapping[str, tuple[str, str]] | None = None) -> go.Figure:
    """Rows below each other as they come: `label`, `factor`, its interval `low` to `high` (nan where it is not known),
    and `kind`, which has a shape and a colour, of `marks` where they are given. A row's `hover` stands in its box.
    """
    figure = go.Figure()
    labels = [safe(label).replace(" (", "<br>(").replace(", ", ",<br>") for label in rows["label"]]
    rows = rows.assign(label=labels)
    for k, kind in enumerate(dict.fromkeys(rows["kind"])):
        mine = rows[rows["kind"] == kind]
        shape, colour = (marks or {}).get(kind) or mark_of(k)
        spans = None
        if mine["low"].notna().any():
            spans = dict(type="data", symmetric=False, array=mine["high"] - mine["factor"], thickness=1.5, width=4,
                         arrayminus=mine["factor"] - mine["low"], color=colour)  # fmt: skip
        figure.add_scatter(
            x=mine["factor"], y=mine["label"], mode="markers", name=safe(kind), error_x=spans, hoverinfo="text",
            hovertext=mine["hover"] if "hover" in mine else [_said(row) for row in mine.to_dict("records")],
            marker=dict(symbol=shape, color=colour, size=11, line=dict(width=1.5, color=colour)),
        )  # fmt: skip
    figure.add_vline(x=1, line=dict(color=GREY, width=1.5))
    ends = pd.concat([rows["factor"], rows["low"], rows["high"], pd.Series([0.94, 1.06])]).dropna().clip(lower=1e-3)
    low, high = float(ends.min()), float(ends.max())
    ticks = FINEST if max(high, 1 / low) < 1.18 else FINE if max(high, 1 / low) < 3.3 else COARSE
    around = 0.08 * np.log10(high / low) + 0.01  # room for marks at the ends
    figure.update_xaxes(title=title, type="log", range=[np.log10(low) - around, np.log10(high) + around],
                        tickvals=ticks, ticktext=[f"{t:g}" for t in ticks])  # fmt: skip
    figure.update_yaxes(categoryorder="array", categoryarray=list(dict.fromkeys(labels))[::-1], tickfont=dict(size=12))
    row = max(46, *(16 * (label.count("<br>") + 1) + 8 for label in labels), 0)  # pixels: a label may be of many lines
    return figure.update_layout(template=TEMPLATE, height=120 + row * max(1, len(set(labels))), showlegend=True)


def verdicts(rows: pd.DataFrame) -> go.Figure:
    """Rows of `arms.verdicts` that have a pair, the best first: distance over the plain twin's, with its interval."""
    rows = rows.sort_values("ratio")
    labels = [f"{row.method} ({row.size} on {row.images / 1e3:g} k images)" for row in rows.itertuples()]
    boxes = [f"<b>{safe(row.method)}</b>, {row.size}<br>{row.word}: {number(row.ratio)} times {safe(row.twin)}"
             + (f" ({number(row.low)} to {number(row.high)})" if pd.notna(row.low) else "")
             + f"<br>{row.seeds} paired seed{'s' if row.seeds > 1 else ''}" for row in rows.itertuples()]  # fmt: skip
    said = rows.assign(label=labels, factor=rows["ratio"], kind=rows["word"], hover=boxes)
    return factors(said, "distance over the plain twin's", VERDICTS)


def _said(row: Mapping[str, object]) -> str:
    within = f" ({number(row['low'])} to {number(row['high'])})" if pd.notna(row["low"]) else ""
    return f"<b>{row['label']}</b><br>{safe(str(row['kind']))}: {number(row['factor'])} times{within}"
