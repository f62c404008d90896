"""How much better or worse than a baseline: differences in per cent, told so that + is better in every quantity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from lab.choose.quantities import COSTS, METRICS, QUANTITIES, brief, percent, short
from lab.choose.rows import protocols
from lab.config import JSON

SAME = 0.005  # a smaller share is not told as a difference
_TIMED = ("latency_ms", "memory_mb")
_CONDITIONS = ("device", "batch", "threads", "scope")


def better_by(rows: pd.DataFrame, base: Mapping[str, JSON], columns: Sequence[str]) -> pd.DataFrame:
    """The share by which each row is better than the baseline; (N, columns), below 0 where worse.

    Of what less of is better 1 - value / baseline, of the rest value / baseline - 1: halving a time is 0.5, doubling it
    -1. NaN where either is not known, where the baseline is 0, and for values that may not be compared: metrics of
    another protocol, times and memory under other conditions. `rows` and `base` are of `choose.with_latency`.
    """
    base_row = pd.DataFrame([dict(base)])
    found = {}
    for column in columns:
        value, of = rows[column].astype(float), base.get(column)
        alike = pd.Series(True, index=rows.index)
        if column in METRICS:
            alike = protocols(rows, column) == protocols(base_row, column).iloc[0]
        elif column in _TIMED:
            for name in _CONDITIONS:
                alike &= rows[name].isna() if pd.isna(base.get(name)) else rows[name] == base[name]
        if of is None or pd.isna(of) or not of:
            found[column] = pd.Series(math.nan, index=rows.index)
            continue
        share = value / float(of) - 1
        found[column] = (share if QUANTITIES[column].more_is_better else -share).where(alike)
    return pd.DataFrame(found, index=rows.index)


def better_said(share: float | None) -> str:
    """A share of `better_by` in words: `9 % better`, `20 % worse`, `3.3 times worse`, `equal`; "" where not known."""
    if share is None or pd.isna(share):
        return ""
    if abs(share) < SAME:
        return "equal"
    said = percent(abs(share)) if abs(share) < 1 else f"{brief(1 + abs(share))} times"
    return f"{said} {'better' if share > 0 else 'worse'}"


def beside(rows: pd.DataFrame, base: Mapping[str, JSON], columns: Sequence[str]) -> pd.Series:
    """Of each row its differences from the baseline in a sentence; "" for the baseline itself and where none is known.

    E.g. `Against 4x64: FD 9 % better, latency 20 % worse`.
    """
    shares = better_by(rows, base, columns)
    names = {c: short(c) if c in METRICS else COSTS[c].title.lower() for c in columns}
    said = []
    for run, *row in zip(rows["run"], *(shares[c] for c in columns)):
        parts = [f"{names[c]} {words}" for c, share in zip(columns, row) if (words := better_said(share))]
        said.append(f"Against {base['name']}: {', '.join(parts)}" if parts and run != base["run"] else "")
    return pd.Series(said, index=rows.index, dtype=object)
