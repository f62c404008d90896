"""Measured times beside what size, roofline and parts say that they should be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.choose import number
from lab.figures.look import COLOURS, GREY, MOST_NAMES, PATTERNS, SHAPES, TEMPLATE, axis_of, safe
from lab.figures.timings import MOST_TIMINGS

CAUSE_COLOURS = {"overhead": COLOURS[4], "arithmetic": COLOURS[0], "memory": COLOURS[2]}
MOST_PARTED = 8  # students whose parts are drawn


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
            text=[safe(n) if n in named else "" for n in mine["name"]], cliponaxis=False,
            textposition=["top right" if size < middle else "top left" for size in mine[by]],
            hovertext=[size_hover(row) for row in mine.to_dict("records")], hoverinfo="text",
            customdata=mine[["run"]],
            marker=dict(size=12, color=colour, symbol=symbols, line=dict(width=1.5, color=colour)),
        )  # fmt: skip
    title = "Parameters (M, as deployed)" if by == "params_m" else "Multiply-adds per image (M, as deployed)"
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title=title, **axis_of(table, by, log=True))
    figure.update_yaxes(title="milliseconds per call, p50", **axis_of(table, "ms", log=True))
    return figure.update_layout(template=TEMPLATE, height=420)


def size_hover(row: Mapping[str, object]) -> str:
    lines = [f"<b>{safe(str(row['name']))}</b>", f"{number(row['ms'])} ms, {number(row['params_m'])} M parameters"]
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
                y=there["name"].map(safe), x=there[column] - 1, base=1, orientation="h", name=name,
                text=[number(v) for v in there[column]], hoverinfo="text", textposition="outside", cliponaxis=False,
                marker=dict(color=colour, pattern=dict(shape=pattern)),
            )  # fmt: skip
    figure.add_vline(x=1, line=dict(color=GREY, width=1))
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="measured time, times the expected")
    figure.update_yaxes(categoryorder="array", categoryarray=rows["name"].map(safe)[::-1], tickfont=dict(size=12))
    figure.update_layout(margin=dict(r=44))  # for the figure beside the longest bar
    return figure.update_layout(template=TEMPLATE, height=130 + 34 * max(1, len(rows)), barmode="group")


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
                hovertext=[f"<b>{safe(name)}</b><br>{kind}: {number(ms)} ms {said}"
                           for name, ms in zip(mine["name"], mine[column])],
                marker=dict(color=COLOURS[k % len(COLOURS)], opacity=0.5 if down else 1.0, line=dict(width=0),
                            pattern=dict(shape=PATTERNS[k % len(PATTERNS)], fillmode="overlay", solidity=0.25,
                                         fgcolor="rgba(255,255,255,0.8)")),
            )  # fmt: skip
    figure.update_xaxes(title="ms per call: measured, below at its best", rangemode="tozero")
    figure.update_yaxes(tickvals=[at + 0.42 for at in place.values()], ticktext=[safe(name) for name in names],
                        range=[2.4 * len(names) - 0.9, -0.6], tickfont=dict(size=12), showgrid=False)  # fmt: skip
    return figure.update_layout(template=TEMPLATE, height=130 + 52 * max(1, len(names)), barmode="stack",
                                showlegend=True)  # fmt: skip
