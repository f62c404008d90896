"""Device reports side by side: whose they are, how two differ, what a precision pays, which shapes cost too much.

Works on rows of `Store.reports()`, for pages and notebooks alike. No torch here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lab import choose
from lab.choose import number
from lab.config import JSON
from lab.devices import predict
from lab.devices.predict import Card
from lab.results import Run, report_row, reports_of

PUBLISHED_FILE = Path(__file__).parent / "published.json"
# What two timings must share to be of one thing, and how it is called.
CONDITIONS = {
    "name": "student", "device": "device", "device.gpu": "GPU", "software.runtime": "runtime",
    "model.precision": "precision", "workload.batch": "batch", "state.threads": "threads", "workload.scope": "scope",
    "workload.nfe": "evaluations", "runner.preset": "preset",
    "state.clocks_locked": "clocks fixed", "software.runtime_version": "runtime version",
}  # fmt: skip
# The sizes that a report says of the network as it was trained: column and unit.
_SAID_SIZES = {"params_m": ("model.params", 1e6), "macs_m": ("model.macs", 1e6), "file_mb": ("model.file_mb", 1.0)}
SLOWER = 1.10  # times what its size says, from which on a shape is named
FEWEST_SHAPES = 3  # of different size, below which no line is drawn through them


def named(reports: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The reports with name, run, data and the sizes (`choose.shipped`) of the run with their weights, device, runtime,
    form, low, high and off_*.

    The form is runtime and precision, as far as they are known; the runtime says so where it ran on the GPU of a chip
    whose CPU bears the same name. Of weights that no run here has, the name is the
    model's id, run and data are "", and the sizes are those that the report says.
    """
    found = reports.reset_index(drop=True)
    if found.empty:
        return found
    runs = choose.complete(runs)
    runs = runs[runs["weights_sha256"] != ""].drop_duplicates("weights_sha256").set_index("weights_sha256")
    weights, ci, gpu = found["model.weights_sha256"], found["timing.p50_ci95"], found["device.gpu"]
    on_gpu = gpu.notna() & (gpu != found["device.name"])  # a card of its own is the device
    runtime = found["software.runtime"].replace("unknown", "") + np.where(on_gpu, " on GPU", "")
    mine = {name: weights.map(runs[name]).astype(object) for name in ("name", "run", "data")}
    sizes = {name: weights.map(size) for name, size in choose.shipped(runs).items()}
    for size, (column, unit) in _SAID_SIZES.items():
        said = found[column] / unit
        sizes |= {name: sizes[name].fillna(said) for name in (size, choose.AS_TRAINED[size])}
    sizes["file_mb"] = pd.concat([sizes["file_mb"], found["artefact.bytes"] / 1e6], axis=1).min(axis=1)
    return found.assign(
        **sizes,
        name=mine["name"].where(mine["name"].notna(), found["model.model_id"]).astype(str),
        **{name: mine[name].where(mine[name].notna(), "").astype(str) for name in ("run", "data")},
        device=choose.devices(found).astype(str),
        runtime=runtime,
        form=(runtime + " " + found["model.precision"]).str.strip(),
        low=[pair[0] if isinstance(pair, list) else math.nan for pair in ci],
        high=[pair[1] if isinstance(pair, list) else math.nan for pair in ci],
    ).join(choose.off(found))


def at(rows: pd.DataFrame, **conditions: object) -> pd.DataFrame:
    """The rows whose columns (`.` written as `__`) have these values; None leaves a column open."""
    for column, value in conditions.items():
        if value is not None:
            rows = rows[rows[column.replace("__", ".")] == value]
    return rows


def best(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Of every condition the best graded report, of those the publishable one, of those the newest: as Choose does."""
    order = rows.assign(quick=choose.quick(rows)).sort_values("created_utc", ascending=False, kind="stable")
    return order.sort_values(["grade", "quick"], kind="stable").drop(columns="quick").drop_duplicates(list(by))


# --- two reports --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ratio:
    """How many times as long one timing is as another; the interval is what their two 95 % intervals allow."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def longer(self) -> bool | None:
        """Whether the first takes longer than the second; None while neither is shown to."""
        return None if not (self.low > 1 or self.high < 1) else self.low > 1

    def __str__(self) -> str:
        interval = "no interval" if math.isnan(self.low) else f"{number(self.low)} to {number(self.high)}"
        return f"{number(self.value)} times ({interval})"


def ratio(a: Mapping[str, object], b: Mapping[str, object]) -> Ratio:
    """p50 of one row of `named` over that of another."""
    return Ratio(a["timing.p50"] / b["timing.p50"], a["low"] / b["high"], a["high"] / b["low"])


def ratio_said(a: Mapping[str, object], b: Mapping[str, object]) -> str:
    """The ratio of two rows in a sentence, which claims no more than the intervals do."""
    found = ratio(a, b)
    said = f"The first takes {found} as long as the second"
    if found.longer is None:
        return said + ": neither is shown to be faster."
    return said + f": the {'second' if found.longer else 'first'} is faster."


def differences(a: Mapping[str, object], b: Mapping[str, object]) -> pd.DataFrame:
    """The conditions in which two rows differ, as text: columns condition, first, second."""
    rows = [(said, _said(a.get(column)), _said(b.get(column))) for column, said in CONDITIONS.items()]
    return pd.DataFrame([row for row in rows if row[1] != row[2]], columns=["condition", "first", "second"])


def _said(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "not known"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


# --- precisions of one student ------------------------------------------------------------------

REFERENCE = "fp32"
VERDICTS = {True: "pays", False: "does not pay", None: "not shown to pay"}
WRONG = "draws wrong images"


def precisions(rows: pd.DataFrame) -> pd.DataFrame:
    """One student's timings on one device by runtime and precision, each beside float32 of the same runtime.

    Added columns: speed_up (over float32) with speed_low and speed_high, and `verdict`: pays, does not pay, not shown
    to pay, draws wrong images, reference, or "" where that runtime has no float32 timing.
    """
    found = best(rows, ["form"])
    order = {name: k for k, name in enumerate((*choose.FLOATING, *choose.COARSE))}
    found = found.assign(order=found["model.precision"].map(order)).sort_values(["runtime", "order"])
    reference = at(found, model__precision=REFERENCE).set_index("runtime")
    added = []
    for row in found.to_dict("records"):
        if row["runtime"] not in reference.index:
            added.append((math.nan, math.nan, math.nan, ""))
            continue
        gain = ratio(reference.loc[row["runtime"]], row)
        verdict = "reference" if row["model.precision"] == REFERENCE else VERDICTS[gain.longer]
        if row.get("checks.output_ok") is False:
            verdict = WRONG
        added.append((gain.value, gain.low, gain.high, verdict))
    columns = pd.DataFrame(added, columns=["speed_up", "speed_low", "speed_high", "verdict"], index=found.index)
    return found.drop(columns="order").join(columns)


def pays_said(row: Mapping[str, object]) -> str:
    """What a precision gives and what it costs, in a sentence; "" of the reference."""
    if row["verdict"] == "reference":
        return ""
    what = f"{row['model.precision']} in {row['runtime']}"
    loses = choose.images_off_said(row)
    if not row["verdict"]:
        return f"{what} has no {REFERENCE} of the same runtime to stand beside. {loses}"
    if row["verdict"] == WRONG:
        return f"{what} {WRONG}, so its speed says nothing. {loses}"
    gain = Ratio(row["speed_up"], row["speed_low"], row["speed_high"])
    doubt = f", but graded {row['grade']}" if row["grade"] in choose.WEAK else ""
    return f"{what} {row['verdict']}: {gain} as fast as {REFERENCE}{doubt}. {loses}"


# --- parameters lie -----------------------------------------------------------------------------

SIZES = {"params_m": "M parameters", "macs_m": "M multiply-adds"}  # of what is shipped, which is what is timed


def card_for(cards: Iterable[Card], row: Mapping[str, object]) -> Card | None:
    """The card of the device that a report is of, for as many threads where it says for how many.

    One that was measured of that very device comes before one for all that are called alike.
    """
    device, threads = (row["device.name"], row.get("state.power_mode"), row.get("device.gpu")), row["state.threads"]
    fit = [card for card in cards if card.is_of(*device)
           and (card.threads is None or pd.isna(threads) or card.threads == threads)]  # fmt: skip
    return min(fit, key=lambda card: card.names is not None, default=None)


def sizes(rows: pd.DataFrame, by: str, card: Card | None) -> pd.DataFrame:
    """Shapes beside what their size says of their time, those that are slowest for it first; one form and batch.

    Columns: name, shape, ms, params_m, macs_m, by_size (a power law of `by` through all of them), than_size (measured
    over it), roofline, than_roofline, the shares overhead, arithmetic and memory of the roofline's time, operations.
    """
    found = []
    for row in best(rows, ["name"]).to_dict("records"):
        config = predict.config_in(row.get("model.config"))
        size = {name: row[name] for name in SIZES}
        if config is None or not size[by] > 0:
            continue
        entry = {"name": row["name"], "run": row["run"], "shape": config.shape, "ms": row["timing.p50"], **size}
        found.append(entry | (_roofline(card, config, int(row["workload.batch"]), row["model.precision"])))
    columns = ["name", "run", "shape", "ms", *SIZES, "roofline", *predict.CAUSES, "operations"]
    table = pd.DataFrame(found, columns=columns)
    table["by_size"] = _power_law(table[by], table["ms"])
    table["than_size"], table["than_roofline"] = table["ms"] / table["by_size"], table["ms"] / table["roofline"]
    return table.sort_values("than_size", ascending=False, kind="stable").reset_index(drop=True)


def _roofline(card: Card | None, config: predict.DiTConfig, batch: int, precision: str) -> dict[str, float]:
    if card is None:
        return {}
    estimated = predict.estimate(card, config, batch, precision).p50
    operations = predict.work(config, batch, precision).ops
    return {"roofline": estimated, "operations": operations, **predict.causes(card, config, batch, precision)}


def _power_law(x: pd.Series, y: pd.Series) -> np.ndarray:
    """y as a x^b with the a and b of least squares in the logarithms; NaN for too few different x."""
    if x.nunique() < FEWEST_SHAPES:
        return np.full(len(x), math.nan)
    slope, shift = np.polyfit(np.log(x.astype(float)), np.log(y.astype(float)), 1)
    return np.exp(slope * np.log(x.astype(float)) + shift)


def slow_said(row: Mapping[str, object], by: str) -> str:
    """Why a shape of `sizes` takes longer than its size says, in a sentence."""
    said = f"{row['name']} takes {number(row['than_size'])} times what its {number(row[by])} {SIZES[by]} say"
    if pd.isna(row["roofline"]):
        return said + "."
    cause = max(predict.CAUSES, key=lambda name: row[name])
    what = {"overhead": f"starting its {row['operations']:.0f} operations", "arithmetic": "its arithmetic",
            "memory": "moving its weights and activations"}[cause]  # fmt: skip
    left = ""
    if row["than_roofline"] > SLOWER:
        left = f"; it takes {number(row['than_roofline'])} times the roofline's {number(row['roofline'])} ms"
    elif row["than_roofline"] < 1 / SLOWER:
        left = f"; but the roofline says {number(row['roofline'])} ms, more than it takes, so take that with care"
    return f"{said}: {row[cause]:.0%} of its time goes to {what} ({cause}){left}."


# --- the parts of a net -------------------------------------------------------------------------

# Kinds of parts, as lab.bench.steps calls the parts of a block; what stands before and behind the blocks is `ends`.
KINDS = {"attention": "attention", "mlp": "MLP", "norm": "norms", "sum": "sums", "ends": "ends"}
LIMITS = {
    "overhead": "where neither arithmetic nor memory is busy: starting operations holds it up",
    "arithmetic": "where arithmetic is the limit", "memory": "where memory is the limit",
}  # fmt: skip


def parted(blocks: pd.DataFrame, device: str, batch: float, threads: float) -> dict[str, tuple[str, str]]:
    """In which forms (runtime, precision) students' parts were timed under these conditions, by `form`; eager first."""
    columns = ["device.name", "workload.batch", "state.threads", "software.runtime", "model.precision"]
    rows = blocks.reindex(columns=columns).dropna()
    rows = rows[(rows[columns[:3]] == [device, batch, threads]).all(axis=1)]
    forms = set(zip(rows["software.runtime"], rows["model.precision"]))
    return {" ".join(form): form for form in sorted(forms, key=lambda form: (form[0] != "eager", form))}


def parts(blocks: pd.DataFrame, device: str, batch: float, threads: float, runtime: str = "eager",
          precision: str = "fp32") -> pd.DataFrame:  # fmt: skip
    """Rows of `Store.blocks()` under these conditions, added up by student and kind of part.

    Columns: run, kind (a value of KINDS, in their order), ms, roofline_ms, of these ms each of LIMITS, and whole_ms of
    the student's call in one go, NaN where that is not known. Of two timings of one student the newest counts; what
    lacks a figure is left out.
    """
    conditions = {"device.name": device, "workload.batch": batch, "state.threads": threads,
                  "software.runtime": runtime, "model.precision": precision}  # fmt: skip
    needed = [*conditions, "model.model_id", "created_utc", "part", "limit", "ms", "roofline_ms"]
    rows = blocks.reindex(columns=[*needed, "whole_ms"])
    for column in ("ms", "roofline_ms", "whole_ms"):
        rows[column] = pd.to_numeric(rows[column], errors="coerce")
    rows = rows[(rows[list(conditions)] == pd.Series(conditions)).all(axis=1)].dropna(subset=needed)
    newest = rows.groupby("model.model_id")["created_utc"].transform("max")
    rows = rows[rows["created_utc"] == newest]
    last = rows["part"].astype(str).str.split(".").str[-1].str.rstrip("12")
    rows = rows.assign(run=rows["model.model_id"], kind=last.where(last.isin(list(KINDS)), "ends").map(KINDS),
                       **{limit: rows["ms"].where(rows["limit"] == limit, 0.0) for limit in LIMITS})  # fmt: skip
    added = dict.fromkeys(["ms", "roofline_ms", *LIMITS], "sum") | {"whole_ms": "first"}
    found = rows.groupby(["run", "kind"], sort=False, as_index=False).agg(added)
    return found.sort_values("kind", key=lambda kinds: kinds.map(list(KINDS.values()).index), kind="stable")


def parts_said(name: str, rows: pd.DataFrame) -> str:
    """Where one student's time goes, by its rows of `parts`.

    Timing each part takes time of its own, a microsecond or two for each operation, so that the parts of a small net
    add up to more than a call in one go; what a runtime does between them is in none.
    """
    added, whole, least = rows["ms"].sum(), rows["whole_ms"].iloc[0], rows["roofline_ms"].sum()
    kind = rows.loc[rows["ms"].idxmax()]
    limit = max(LIMITS, key=lambda limit: rows[limit].sum())
    said = (f"{name}: {kind['ms'] / added:.0%} of {number(added)} ms go to {kind['kind']}, and "
            f"{rows[limit].sum() / added:.0%} pass {LIMITS[limit]}.")  # fmt: skip
    if known := whole > 0:
        said += f" That is what its parts add up to, timed one by one; a call in one go takes {number(whole)} ms."
    return (f"{said} At its best the machine would need {number(least)} ms, "
            f"{least / (whole if known else added):.0%} of that.")  # fmt: skip


# --- what nobody measured here ------------------------------------------------------------------


def estimates(cards: Iterable[Card], runs: Mapping[str, Run], reports: pd.DataFrame, *, batch: int = 1,
              precision: str = "fp32") -> tuple[list[dict[str, JSON]], list[str]]:  # fmt: skip
    """Estimated reports of runs, grade F, for devices that have a card; and a sentence for every pair that has none."""
    made, skipped = [], []
    for card in cards:
        for name, run in runs.items():
            try:
                config = run.config
                fitted = predict.fitted(card, reports, precision=precision, but=config)
                made.append(predict.as_report(fitted, config, batch, precision, model=predict.model_of(run)))
            except (OSError, ValueError) as error:
                skipped.append(f"{name} on {card.title}: {error}")
    return made, skipped


def as_rows(reports: Sequence[Mapping[str, JSON]], runs: pd.DataFrame) -> pd.DataFrame:
    """Whole reports that are not in the store as rows of `named`."""
    return named(reports_of([report_row(report) for report in reports]), runs)


def published() -> tuple[str, pd.DataFrame]:
    """What others have published, grade E: a sentence on what it is worth, and a row each with its source."""
    plain = json.loads(PUBLISHED_FILE.read_text())
    return plain["note"], pd.DataFrame(plain["rows"]).assign(grade="E", provenance="published")
