"""The students that no other beats: fronts, their knee, and how much they cover."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from lab.choose.quantities import QUANTITIES


def front(frame: pd.DataFrame, minimise: Sequence[str], maximise: Sequence[str] = ()) -> pd.Series:
    """Which rows no other row beats: none is at least as good in all columns and better in one.

    Equal rows are all on the front; a row with a missing value is not.
    """
    if frame.empty:
        return pd.Series(dtype=bool, index=frame.index)
    values = np.column_stack(
        [frame[c].to_numpy(float) for c in minimise] + [-frame[c].to_numpy(float) for c in maximise]
    )
    on = ~np.isnan(values).any(1)
    known = np.flatnonzero(on)
    kept, count = np.empty_like(values[known]), 0
    # Sorted so, no row is beaten by a later one, and who is beaten is so by one of the front: that alone is looked at.
    for k in known[np.lexsort(values[known].T[::-1])]:
        before = kept[:count]
        on[k] = not ((before <= values[k]).all(1) & (before < values[k]).any(1)).any()
        if on[k]:
            kept[count], count = values[k], count + 1
    return pd.Series(on, index=frame.index)


def front_of(frame: pd.DataFrame, x: str, y: str) -> pd.Series:
    """The front of two columns, each in its better direction."""
    more = [c for c in (x, y) if c in QUANTITIES and QUANTITIES[c].more_is_better]
    return front(frame, [c for c in (x, y) if c not in more], more)


def knee(frame: pd.DataFrame, x: str, y: str) -> Hashable | None:
    """The index of the front's point farthest on the better side of the line between its ends; None for fewer than
    three points.

    `x` is a cost, of which less is better. Both axes are logarithmic where all values are positive, as costs are.
    """
    points = frame[front_of(frame, x, y)].sort_values(x)
    if len(points) < 3:
        return None
    columns = [points[c].to_numpy(float) for c in (x, y)]
    u, v = (np.log(c) if (c > 0).all() else c for c in columns)
    if u[0] == u[-1] or v[0] == v[-1]:
        return None
    below = 1 - (u - u[0]) / (u[-1] - u[0]) - (v - v[-1]) / (v[0] - v[-1])
    return points.index[int(below.argmax())] if below.max() > 0 else None


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """The exact volume between points (N, D), all minimised, and a reference point (D,) that is worse than they are.

    What some point is at least as good as in every column counts once (Zitzler and Thiele 1998); a point that is not
    better than the reference in every column adds nothing. D is 1 or more.
    """
    points, reference = np.asarray(points, float), np.asarray(reference, float)
    if points.ndim != 2 or points.shape[1:] != reference.shape:
        raise ValueError(f"hypervolume needs points (N, D) and a reference (D,), got {points.shape}, {reference.shape}")
    points = points[(points < reference).all(1)]
    if not len(points):
        return 0.0
    points = points[points[:, -1].argsort()]
    thick = np.diff(points[:, -1], append=reference[-1])  # slabs, in each of which the points below it count
    if points.shape[1] == 1:
        return float(thick.sum())
    if points.shape[1] == 2:
        return float((thick * (reference[0] - np.minimum.accumulate(points[:, 0]))).sum())
    slabs = (hypervolume(points[: k + 1, :-1], reference[:-1]) * t for k, t in enumerate(thick) if t > 0)
    return float(sum(slabs))


BEYOND = 0.1  # of an axis' range: how far the reference lies behind the worst row, so that the front's ends count too


def covered(frame: pd.DataFrame, columns: Sequence[str]) -> tuple[float, dict[str, float]] | None:
    """The share of a box that the front covers, in [0, 1], and the box's reference corner by column.

    The box reaches from the best value of each column to a tenth of its range behind the worst, on linear scales. None
    where a column has fewer than two different values among the rows that know all of them.
    """
    values = frame[list(columns)].dropna().to_numpy(float)
    sign = np.array([-1.0 if c in QUANTITIES and QUANTITIES[c].more_is_better else 1.0 for c in columns])
    if len(values) < 2 or not (np.ptp(values, 0) > 0).all():
        return None
    best, worst = (values * sign).min(0), (values * sign).max(0)
    scaled = pd.DataFrame((values * sign - best) / (worst - best))
    volume = hypervolume(scaled[front(scaled, list(scaled))].to_numpy(), [1 + BEYOND] * len(sign))
    corner = sign * (worst + BEYOND * (worst - best))
    return volume / (1 + BEYOND) ** len(sign), dict(zip(columns, corner.tolist()))


def against(frame: pd.DataFrame) -> str:
    """The cost that quality is held against: latency, or parameters where nothing is timed."""
    return "latency_ms" if frame["latency_ms"].notna().any() else "params_m"


def dominators(frame: pd.DataFrame, run: str, minimise: Sequence[str], maximise: Sequence[str] = ()) -> pd.DataFrame:
    """The rows that are at least as good as `run` in every column and better in one."""
    me = frame[frame["run"] == run]
    if me.empty:
        return frame.iloc[:0]
    better = pd.Series(True, index=frame.index)
    strictly = pd.Series(False, index=frame.index)
    for columns, sign in [(minimise, 1), (maximise, -1)]:
        for column in columns:
            gap = sign * (frame[column] - me[column].iloc[0])
            better &= gap <= 0
            strictly |= gap < 0
    return frame[better & strictly]
