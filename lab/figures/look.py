"""How every figure looks: colours, shapes, axes, intervals.

Colour is never alone: a shape, a dash or a pattern says the same.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

# Okabe and Ito's palette; each is told from the others, and from white and near-black, by the colour-blind.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "hexagon")
SHAPES_3D = ("circle", "square", "diamond")  # all that are hollow, too, there
LINES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
PATTERNS = ("", "/", "x", ".", "-", "+")
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
GUESS = "estimated"


def mark_of(k: int) -> tuple[str, str]:
    """Shape and colour of the k-th kind of points; 36 differ, since each round pairs them anew."""
    return SHAPES[(k + k // len(COLOURS)) % len(SHAPES)], COLOURS[k % len(COLOURS)]


def diameters(rows: pd.DataFrame) -> np.ndarray:
    """Marker diameters whose area grows with the parameters, between 9 and 26 pixels."""
    params = rows["params_m"].fillna(0.1).to_numpy(float)
    return np.clip(22 * np.sqrt(np.maximum(params, 0)), 9, 26)


def guessed(rows: pd.DataFrame) -> pd.Series:
    return rows["provenance"].eq("estimated")


def error_bars(rows: pd.DataFrame, name: str, colour: str, column: str | None = None) -> dict[str, object] | None:
    """Error bars from <name>_low to <name>_high around a column, which is called like them unless said otherwise."""
    if f"{name}_low" not in rows or not rows[f"{name}_low"].notna().any():
        return None
    middle = rows[column or name]
    up, down = rows[f"{name}_high"] - middle, middle - rows[f"{name}_low"]
    return dict(type="data", symmetric=False, array=up, arrayminus=down, color=colour, thickness=1.2, width=3)


def axis_of(rows: pd.DataFrame, column: str, *, log: bool) -> dict[str, object]:
    """A linear axis, or a logarithmic one whose ticks are written out: plotly would show bare leading digits."""
    values = rows[column][rows[column] > 0]
    if not log or values.empty:
        return {"type": "linear"}
    low, high = float(values.min()), float(values.max())
    steps = (1, 1.5, 2, 3, 4, 5, 7) if high <= 12 * low else (1, 2, 5) if high <= 1000 * low else (1,)
    powers = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 3)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]}


def log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2, 5, 10, ... around some positive values; only powers of ten where they span more than three decades."""
    if not len(values):
        return []
    low, high = math.log10(min(values)), math.log10(max(values))
    steps = (1, 2, 5) if high - low <= 3 else (1,)
    return [float(f"{m}e{k}") for k in range(math.floor(low) - 1, math.ceil(high) + 1) for m in steps]


def only_value(frame: pd.DataFrame, column: str) -> object | None:
    values = frame[column].dropna().unique() if column in frame else []
    return values[0] if len(values) == 1 else None


def safe(text: str) -> str:
    return html.escape(text, quote=False)


def finite(value: object) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        return None
    return float(value)
