"""Which run is the plain twin of which, and what a legend calls a method."""

from __future__ import annotations

import pandas as pd

from lab.results import OBJECTIVES


def method_names(rows: pd.DataFrame) -> pd.Series:
    """What a legend calls each row's methods: those beside the objective, or `plain`, where that tells them apart."""
    short, whole = rows["method_short"], rows["method"]
    alike = whole.groupby(short).transform("nunique") > 1
    return short.where(~alike & (whole.nunique() > 1), whole)


# What a run shares with the one that was trained like it but without a guide and without the methods beside its
# objective: columns of `Store.table()`.
TWIN = ["data", "teacher", "solver", "sampler", "pairs", "shape", "images", "batch", "optimizer", "lr", "schedule",
        "ema", "dtype", "seed"]  # fmt: skip


def plain_twins(table: pd.DataFrame) -> dict[str, str]:
    """Run -> its plain twin, for rows of `Store.table()` that have a guide or other methods than their objective."""
    key = table[[*TWIN, "method"]].astype(str).apply(tuple, axis=1) if len(table) else pd.Series(dtype=object)
    plain = (table["guide"] == "") & (table["method_short"] == "plain")
    twins = dict(zip(key[plain], table["run"][plain]))
    found = {}
    for run, (*alike, methods) in zip(table["run"][~plain], key[~plain]):
        objective = "+".join(name for name in methods.split("+") if name in OBJECTIVES)
        found[run] = twins.get((*alike, objective))
    return {run: twin for run, twin in found.items() if twin}


def beside_twins(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table, each with its plain twin behind it where the table has one; none stands twice."""
    twins = plain_twins(table)
    runs = dict.fromkeys(run for own in rows["run"] for run in (own, twins.get(own)) if run)
    return table.set_index("run", drop=False).loc[list(runs)].reset_index(drop=True)
