"""The conditions of timings that a reader chooses among: select boxes, and the rows under them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

ALL = "all"
# Key in the URL -> label, column of a report.
CONDITIONS = {
    "timed_device": ("Device", "device"),
    "timed_runtime": ("Runtime", "software.runtime"), "timed_precision": ("Precision", "model.precision"),
    "timed_batch": ("Batch", "workload.batch"), "timed_threads": ("Threads", "state.threads"),
    "timed_scope": ("Timed", "workload.scope"),
}  # fmt: skip
FORM = ("timed_runtime", "timed_precision")  # stand beside each other where precisions are compared
CELL = 115  # pixels: the least width of a box; seven stand in a row on a desk, two on a phone
OPEN = ("timed_device", *FORM)  # these begin with all of them


def conditions(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Select boxes for conditions, and the rows under them; none for the device where there is but one."""
    chosen = {}
    for key in keys:
        label, column = CONDITIONS[key]
        if column == "device" and rows[column].nunique() < 2:
            continue
        known = _known(rows[column])
        first = 0 if key in OPEN or not known else known.index(_first(rows[column])) + 1
        chosen[column] = st.selectbox(label, [ALL, *known], first, key=key, bind="query-params")
    for column, value in chosen.items():
        if value != ALL:
            rows = rows[rows[column].map(_word) == value]
    return rows


def _known(values: pd.Series) -> list[str]:
    return [_word(value) for value in sorted(values.dropna().unique())]


def _first(values: pd.Series) -> str:
    """Batch 1 and scope core where they are there, else what is most common."""
    words = values.dropna().map(_word)
    return next((w for w in ("1", "core") if values.name != "state.threads" and (words == w).any()), words.mode()[0])


def _word(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, (int, float, np.number)) else str(value)


def of_students(rows: pd.DataFrame) -> pd.DataFrame:
    """A box for students; all of them while it is empty."""
    names = list(rows["name"].value_counts().index)
    chosen = st.multiselect("Students", names, key="timed_students", bind="query-params",
                            placeholder=f"all {len(names)}")  # fmt: skip
    return rows[rows["name"].isin(chosen)] if chosen else rows
