"""Rows of the store's table that can be compared: of one protocol, with their costs in the units of a budget."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pandas as pd

from lab.choose.quantities import AS_TRAINED, COSTS, Budget, number
from lab.choose.timing import TIMED, devices_by_trust, estimated, thread_counts, timings, under
from lab.config import JSON

_SIZES = {"params_m": ("params", "params_deployed", 1e6), "file_mb": ("file_mb", "file_mb_deployed", 1.0),
          "macs_m": ("macs_image", "macs_deployed", 1e6)}  # fmt: skip
# What decides what a network computes for an image, once its weights are given.
_FORM = ("data", "evaluations", "family", "time", "patch", "depth", "width", "heads", "mlp_hidden", "num_classes",
         "net", "shape", "params_deployed", "macs_deployed")  # fmt: skip


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """The store's table with `protocol` and a short `name`; may be empty."""
    if "protocol" in table and "name" in table:
        return table
    return table.assign(protocol=protocols(table), name=names(table))


def protocols(table: pd.DataFrame, metric: str = "fd") -> pd.Series:
    """What each row's metric was measured with, in words; "" where it was not. Equal words may be compared."""
    known = table[metric].notna() & table["samples"].notna()
    how = zip(known, *(table[column] for column in (f"{metric}_reference", "extractor", "samples", "eval_seed")))
    said = [_protocol(*conditions) if measured else "" for measured, *conditions in how]
    return pd.Series(said, index=table.index, dtype=str)


@functools.lru_cache(maxsize=256)  # a page asks ten times of thousands of rows
def _protocol(reference: str, extractor: str, samples: float, seed: float) -> str:
    seeded = "seed not recorded" if pd.isna(seed) else f"seed {seed:.0f}"
    return f"{extractor}, {samples:,.0f} samples, against {reference}, {seeded}"


def protocol_for(table: pd.DataFrame, protocol: str, metric: str) -> str:
    """A metric's own protocol beside that of the Frechet distance: of the same extractor, samples and seed.

    Its reference may be another (class accuracy has none of images); where there are several, as of two teachers, the
    one of most students. "" where nothing is measured so.
    """
    table = complete(table)
    alike = ["extractor", "samples", "eval_seed"]
    if metric == "fd":
        return protocol
    chosen = table.loc[table["protocol"] == protocol, alike].drop_duplicates()
    same = pd.MultiIndex.from_frame(table[alike]).isin(pd.MultiIndex.from_frame(chosen))
    said = protocols(table, metric)[same & is_student(table) & ~table["hide"]]
    return _most(said[said != ""]) or ""


def names(table: pd.DataFrame) -> pd.Series:
    """A short name that tells the rows apart: the label a person gave, else shape, else with method, else with id."""
    shape = table["shape"].where(table["shape"] != "", table["run"])
    method = shape + " " + table["method"]
    whole = method + " " + table["run"].str[-8:]  # results.short_name: nobody gave it
    given = table["label"].where((table["label"] != table["run"]) & (table["label"] != whole), "")
    name = shape.where(~_twice(shape), method)
    name = name.where(~_twice(name), whole)
    said = given.where(given != "", name).astype(str)
    return said.where(~_twice(said), said + " " + table["run"].str[-8:])  # two runs may bear one label


def settle(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> Budget:
    """The budget with protocol, device and threads filled in where they were left open: the most common ones, and of
    devices that of the most timings that can be trusted."""
    if budget.protocol is None:
        found = complete(table)
        said = protocols(found, budget.metric)[is_student(found) & ~found["hide"]]
        budget = dataclasses.replace(budget, protocol=_most(said[said != ""]))
    if len(reports) and not budget.estimated:
        reports = reports[~estimated(reports)]  # nor may they settle what is looked at
    if budget.device is None:
        budget = dataclasses.replace(budget, device=next(iter(devices_by_trust(reports)), None))
    if budget.threads is None and len(reports):
        counts = thread_counts(reports[under(reports, budget)])
        budget = dataclasses.replace(budget, threads=counts[0] if counts else None)
    return budget


def candidates(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """The students that may be compared, each with its latency, speed-up over its teacher, and whether it `fits`.

    Added columns: those of `shipped`, latency_ms and its conditions, teacher_ms, teacher_runtime, teacher_dtype,
    teacher_gpu, speed_up, teacher_value (the teacher's metric), fits, why_not.
    """
    table = complete(table)
    budget = settle(table, reports, budget)
    return comparable(with_latency(table, reports, budget), budget)


def comparable(frame: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """The students among the rows of `with_latency` that share the budget's protocol, and its method if it has one."""
    same = (protocols(frame, budget.metric) == (budget.protocol or None)) & ~frame["hide"] & of_method(frame, budget)
    frame = frame[same & is_student(frame)].reset_index(drop=True)
    frame["why_not"] = _why_not(frame, budget)
    frame["fits"] = frame["why_not"] == ""
    # In few blocks: a chart takes rows a hundred times, and pandas takes columns of text and added ones one by one.
    return frame.astype({name: object for name in frame.select_dtypes("string")}).copy()


def with_latency(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """Every row of the table, teachers too, with its costs in the units of a budget and its latency."""
    frame = complete(table)
    frame = frame.assign(**shipped(frame))
    frame = frame.drop(columns=[c for c in TIMED[1:] if c in frame and c != "batch"])
    own, form_of = frame["weights_sha256"], forms(frame)
    form = own.map(form_of)
    sizes = {who: mb for who, mb in zip([*own, *form], [*frame["file_mb"]] * 2) if isinstance(who, str)}
    found = timings(reports, budget, sizes, form_of).rename(columns={"weights_sha256": "timed_by"})
    measured = found["timed_by"][found["provenance"] != "estimated"]
    frame["timed_by"] = own.where(own.isin(measured) | ~form.isin(measured), form)
    frame = frame.rename(columns={"batch": "train_batch"}).merge(found, "left", on="timed_by").drop(columns="timed_by")
    frame["file_mb"] = frame[["file_mb", "timed_file_mb"]].astype(float).min(axis=1)
    by_run = frame.drop_duplicates("run").set_index("run")
    named = dict(zip(frame["run"], frame["name"]))
    frame["timed_as"] = [named.get(run, run) for run in frame["timed_as"].fillna("")]
    teacher = frame["teacher"].map(_teacher_ids(frame))
    same = protocols(by_run, budget.metric) == (budget.protocol or None)
    frame["teacher_run"] = teacher
    frame["teacher_ms"] = teacher.map(by_run["latency_ms"]).astype(float)
    for column, name in [("teacher_runtime", "runtime"), ("teacher_dtype", "timed_dtype"), ("teacher_gpu", "gpu")]:
        frame[column] = teacher.map(by_run[name])
    frame["teacher_value"] = teacher.map(by_run[budget.metric].where(same)).astype(float)
    frame["percentile"] = budget.percentile
    # Nothing is so many times as fast as a guess.
    guess = frame["provenance"].eq("estimated") | teacher.map(by_run["provenance"]).eq("estimated")
    frame["speed_up"] = (frame["teacher_ms"] / frame["latency_ms"]).where(~guess)
    return frame


def forms(table: pd.DataFrame) -> dict[str, str]:
    """The weights of `Store.table()` -> a name for the form that they fill: one where two differ in weights alone."""
    known = table.dropna(subset="weights_sha256")
    numbers = known.groupby(list(_FORM), dropna=False, sort=False).ngroup()
    return dict(zip(known["weights_sha256"], "form " + numbers.astype(str)))


def shipped(table: pd.DataFrame) -> pd.DataFrame:
    """params_m, file_mb, macs_m (per image) of what each row of `Store.table()` ships, and of it as it was trained:
    params_trained_m, file_trained_mb, macs_trained_m.
    """
    sizes = {}
    for name, (trained, deployed, unit) in _SIZES.items():
        own, folded = table[trained] / unit, table[deployed] / unit
        sizes |= {name: folded.where(folded.notna(), own), AS_TRAINED[name]: own}
    return pd.DataFrame(sizes, index=table.index)


def of_method(table: pd.DataFrame, budget: Budget) -> pd.Series:
    return table["method_short"].eq(budget.method) if budget.method else pd.Series(True, index=table.index)


def size_as_trained(row: dict[str, JSON], name: str) -> float | None:
    """What a size of `shipped` was before deployment; None where that changed nothing, or where it is not known."""
    trained = row.get(AS_TRAINED.get(name, ""))
    return None if trained is None or pd.isna(trained) or trained == row.get(name) else trained


def is_student(table: pd.DataFrame) -> pd.Series:
    # A one-step network that teaches another is a student still.
    return ~((table["role"] == "teacher") & table["time"])


def _teacher_ids(table: pd.DataFrame) -> dict[str, str]:
    """What a recipe may call its teacher -> run id."""
    ids = {f"run:{run}": run for run in table["run"]}
    for run, aliases in zip(table["run"], table["aliases"]):
        ids |= {alias: run for alias in aliases or ()}
    return ids


def _why_not(frame: pd.DataFrame, budget: Budget) -> list[str]:
    """The limits that each row breaks, in words; "" where it fits."""
    said: list[list[str]] = [[] for _ in range(len(frame))]
    for name, limit in budget.limits.items():
        for parts, value in zip(said, frame[name].tolist()):
            if math.isnan(value):
                parts.append(f"{COSTS[name].title.lower()} not known")
            elif value > limit:
                parts.append(f"{number(value)} {COSTS[name].unit} is above {limit:g}")
    return [", ".join(parts) for parts in said]


def _most(values: pd.Series) -> str | float | None:
    counts = values.value_counts()
    return None if counts.empty else sorted(counts.index[counts == counts.iloc[0]])[0]


def as_json(row: pd.Series) -> dict[str, JSON]:
    """A row as JSON: NaN is None, numpy's numbers are Python's."""
    plain = {}
    for key, value in row.items():
        value = value.item() if isinstance(value, np.generic) else value
        missing = (
            value is None
            or value is pd.NA
            or value is pd.NaT
            or (isinstance(value, float) and not math.isfinite(value))
        )
        plain[str(key)] = None if missing else value
    return plain


def _twice(column: pd.Series) -> pd.Series:
    return column.duplicated(keep=False)
