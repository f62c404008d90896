"""Where names stand beside the points of a chart, so that they cover nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from lab import choose
from lab.figures.look import MOST_NAMES, diameters

NARROW_PX = 270  # the width of a plot on a phone, where a name must not be cut off
# A chart's size on the screen is not known here: names are kept apart as on a narrow one, in pixels.
PLOT_PX, LETTER_PX, LINE_PX = (400, 320), 7.0, 16.0
CLASH = 1000  # what one name on another costs, more than all that a name may cover
CUT = 100  # what a name without its end costs: rather it lies on a few points


def places_of_names(shown: pd.DataFrame, line: pd.DataFrame, x: str, y: str, *, first: Sequence[str | None],
                    labels: Mapping[str, str], ringed: Mapping[str, int], heights: Sequence[float], limit: float | None,
                    log_x: bool, log_y: bool) -> dict[str, str]:  # fmt: skip
    """Run -> where its name stands: those in `first`, unless it would cover another name, and of the front those whose
    names cover nothing.

    `ringed` says by how many pixels a run's mark is larger, `heights` which values of y are drawn besides the rows'.
    """
    across, up = _pixels(shown[x], [], log_x, PLOT_PX[0]), _pixels(shown[y], heights, log_y, PLOT_PX[1])
    radius = pd.Series(diameters(shown) / 2, shown.index) + np.array([ringed.get(run, 0) for run in shown["run"]]) / 2
    left, right = across(shown[x]) - radius, across(shown[x]) + radius
    low, high = [f"{y}_low", f"{y}_high"] if {f"{y}_low", f"{y}_high"} <= set(shown) else [y, y]
    bottom = np.fmin(up(shown[low]), up(shown[y]) - radius)
    top = np.fmax(up(shown[high]), up(shown[y]) + radius)
    marks, texts = np.column_stack([left, right, bottom, top]).reshape(-1, 4), np.empty((0, 4))
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
            place: CLASH * _overlaps(box, texts)
            + 2 * _overlaps(box, marks)
            + CUT * _cut_off(at[0], box)
            + (wall is not None and _overlaps(box, wall))
            for place, box in boxes.items()
        }
        place = min(hits, key=hits.get)
        if not hits[place] or (run in first and hits[place] < CLASH):
            named[run] = place
            texts = np.vstack([texts, boxes[place]])
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
