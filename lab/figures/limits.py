"""Threshold lines: where a budget ends on a chart's axes, and what lies beyond it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from lab.choose import COSTS
from lab.figures.look import GREY


def draw_limits(figure: go.Figure, limits: Mapping[str, float], *, x: str | None = None, y: str | None = None,
                log_x: bool = False, log_y: bool = False) -> go.Figure:  # fmt: skip
    """A dashed line, named, at the limit of each axis whose quantity is limited; the figure itself is given back.

    `limits` is `Budget.limits`: column of COSTS -> value; x and y are the columns that the axes show.
    """
    line = dict(color=GREY, width=1, dash="dash")
    # On a logarithmic axis an annotation stands at the logarithm, a line at the value.
    if x in limits:
        figure.add_vline(x=limits[x], line=line)
        figure.add_annotation(x=np.log10(limits[x]) if log_x else limits[x], y=1, yref="paper", text=_said(x, limits),
                              showarrow=False, xanchor="left", yanchor="top", xshift=4)  # fmt: skip
    if y in limits:
        figure.add_hline(y=limits[y], line=line)
        figure.add_annotation(y=np.log10(limits[y]) if log_y else limits[y], x=0, xref="paper", text=_said(y, limits),
                              showarrow=False, xanchor="left", yanchor="bottom", xshift=4)  # fmt: skip
    return figure


def _said(column: str, limits: Mapping[str, float]) -> str:
    return f"limit {limits[column]:g} {COSTS[column].unit}"
