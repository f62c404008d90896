"""Which device reports answer a budget, and the one latency that they give each network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd

from lab.choose.quantities import Budget
from lab.devices import predict
from lab.devices.report import FAMILIES_WITH_POWER_MODES
from lab.precisions import EXACT, FLOATING

WEAK = ("D", "E", "F")  # grades: in doubt, published by others, estimated
ESTIMATED = "F"
# How memory.method begins where a peak was asked for in vain (lab/footprint.py), and what stands in it where the peak
# is that of a process which may have done other things before, as all of the lab's own timings did once.
NOT_TOLD, LONG_PROCESS = "not told", "the lab's own process"

# How far its images are off, of which only the first is always known.
OFF = ("off_max", "off_mean", "off_perceptual", "off_images")
# `precision` is a metric, so the number format of a timing is `timed_dtype`.
TIMED = [
    "weights_sha256",
    "latency_ms",
    "latency_low",
    "latency_high",
    "runtime",
    "timed_dtype",
    "latency_p90",
    "latency_cv",
    "timings",
    "unsteady",
    "grade",
    "provenance",
    "device",
    "batch",
    "threads",
    "scope",
    "gpu",
    "memory_mb",
    "memory_method",
    "timed_file_mb",
    "report_id",
    "timed_as",
    *OFF,
]


def thread_counts(reports: pd.DataFrame) -> list[int]:
    """The numbers of CPU threads of the timings, most common first, those of estimates alone last.

    What ran on a GPU has no say: its time does not depend on them, and it is kept whichever number is chosen.
    """
    known = reports["state.threads"][~_on_gpu(reports)].dropna()
    guess, found = estimated(reports).reindex(known.index), []
    for counts in (known[~guess].value_counts(), known[guess].value_counts()):
        found += sorted(counts.index, key=lambda threads: (-counts[threads], threads))
    return [int(threads) for threads in dict.fromkeys(found)]


def devices(reports: pd.DataFrame) -> pd.Series:
    """What each report's device is called here: its name, with the power mode where a family has several."""
    name, mode = reports["device.name"], reports["state.power_mode"]
    several = reports["device.family"].isin(FAMILIES_WITH_POWER_MODES) & mode.notna()
    return name.where(~several, name.astype(str) + ", " + mode.astype(str))


def devices_by_trust(reports: pd.DataFrame) -> list[str]:
    """Every device that has reports: that of the most steady timings first (grades A to C), then that of the most."""
    counted = pd.DataFrame({"device": devices(reports), "steady": ~reports["grade"].isin(WEAK),
                            "measured": ~estimated(reports), "reports": 1})  # fmt: skip
    return list(counted.groupby("device").sum().sort_values(
        ["steady", "measured", "reports"], ascending=False, kind="stable").index)  # fmt: skip


def timings(reports: pd.DataFrame, budget: Budget, file_mb: Mapping[str, float] | None = None,
            forms: Mapping[str, str] = MappingProxyType({})) -> pd.DataFrame:  # fmt: skip
    """One latency per network under the budget's conditions, with the memory that it took: per runtime, precision and
    processor (CPU or GPU) the best graded, of those the publishable one, of those the newest; then the fastest of those
    within the budget's memory and file, if any is. `timings` is how many there are of that form and grade, and
    latency_low and latency_high span them all: on a shared machine two medians lie further apart than the error of
    either. Memory does not turn on how long the timing was: where that report does not tell it, the newest one of the
    same form does.

    An estimate stands only for a network that was not timed. `file_mb` says the size of each network's weights, which
    may be shipped in the place of the file that was timed (timed_file_mb). `forms` names the form that each network's
    weights fill: a form has a row, too, by its name among the hashes, and there `timed_as` says whose timing it is.
    """
    here = reports[under(reports, budget) & sound(reports, budget)]
    called = devices(here)
    if budget.device is not None and len(own := called[~estimated(here)].unique()) == 1:
        called = pd.Series(own[0], index=here.index)  # an estimate from a card of the board is one for the board
    ci = here["timing.p50_ci95"] if budget.percentile == "p50" else pd.Series(None, index=here.index)
    found = pd.DataFrame({
        "weights_sha256": here["model.weights_sha256"],
        "latency_ms": here[f"timing.{budget.percentile}"],
        "latency_low": [pair[0] if isinstance(pair, list) else math.nan for pair in ci],
        "latency_high": [pair[1] if isinstance(pair, list) else math.nan for pair in ci],
        "runtime": here["software.runtime"].replace("unknown", ""), "timed_dtype": here["model.precision"],
        "latency_p90": here["timing.p90"], "latency_cv": here["timing.cv"],
        "unsteady": unsteady(here),
        "grade": here["grade"].fillna(""), "provenance": here["provenance"],
        "device": called, "batch": here["workload.batch"],
        "threads": here["state.threads"].where(~_on_gpu(here)),  # of the CPU that only starts its work
        "scope": here["workload.scope"], "report_id": here["report_id"], "when": here["created_utc"],
        "gpu": here["device.gpu"].fillna(""), "memory_mb": memory(here),
        "memory_method": here["memory.method"], "timed_file_mb": here["artefact.bytes"] / 1e6, "quick": quick(here),
        "timed_as": "", "of": here["model.model_id"].fillna(""),
    })  # fmt: skip
    found = _with_forms(found.join(off(here)), forms)
    found = found.dropna(subset=["weights_sha256", "latency_ms"]).sort_values("when", ascending=False, kind="stable")
    timed = set(found["weights_sha256"][found["provenance"] != "estimated"])
    found = found[(found["provenance"] != "estimated") | ~found["weights_sha256"].isin(timed)]
    form = ["weights_sha256", "runtime", "timed_dtype", "gpu"]
    alike = found.groupby([*form, "grade"])
    found["timings"] = alike["latency_ms"].transform("size")
    for end, of in [("latency_low", "min"), ("latency_high", "max")]:
        own = found[end].where(found["timings"] == 1, found[end].fillna(found["latency_ms"]))
        found[end] = own.groupby([found[key] for key in (*form, "grade")]).transform(of)
    found = _memory_of_form(found, form).sort_values(["grade", "quick"], kind="stable").drop_duplicates(form)
    found["over"] = False if budget.memory_mb is None else ~found["memory_mb"].le(budget.memory_mb)
    if budget.file_mb is not None:
        weights = found["weights_sha256"].map(file_mb or {})
        found["over"] |= ~(weights.le(budget.file_mb) | found["timed_file_mb"].le(budget.file_mb))
    return found.sort_values(["over", "latency_ms"], kind="stable").drop_duplicates("weights_sha256")[TIMED]


def _with_forms(found: pd.DataFrame, forms: Mapping[str, str]) -> pd.DataFrame:
    """Timings, and those in float32 once more as their form's.

    The time of float32 arithmetic does not turn on its numbers. What rounds a network loses as its weights are, so
    those timings stay with their own.
    """
    exact = found[(found["provenance"] != "estimated") & found["timed_dtype"].isin(EXACT)]
    lent = exact.assign(weights_sha256=exact["weights_sha256"].map(forms), timed_as=exact["of"])
    return pd.concat([found, lent[lent["weights_sha256"].notna()]], ignore_index=True)


def _memory_of_form(found: pd.DataFrame, form: list[str]) -> pd.DataFrame:
    """Timings, the newest first, with the memory of their form where they do not tell it themselves."""
    known = found.dropna(subset=["memory_mb"]).drop_duplicates(form)
    other = found[form].merge(known[[*form, "memory_mb", "memory_method"]], how="left", on=form).set_index(found.index)
    told = found["memory_mb"].notna() | other["memory_mb"].isna()
    return found.assign(**{name: found[name].where(told, other[name]) for name in ("memory_mb", "memory_method")})


def memory(reports: pd.DataFrame) -> pd.Series:
    """How much of the system's memory each timed process took at its most, in MB; NaN where no report says it.

    One that was made in the lab's own long process does not say it: that keeps what ran in it before, up to hundreds of
    megabytes beside a network of one or two, and what the machine had less free meanwhile leaves out the rest.

    The process's resident memory. Where a GPU did the work it has not all, for a board's GPU takes of the same memory:
    what torch allocated there is added, and what the machine had less free counts where that is more. Elsewhere that
    difference has nothing else in it than what others did meanwhile. A graphics card's own memory is not in it.
    """
    names = ("process_peak_mb", "allocator_peak_mb", "system_delta_mb")
    peak, allocated, less = (reports[f"memory.{name}"] for name in names)
    on_gpu, unified = reports["device.gpu"].notna(), reports["device.unified_memory"].eq(True)
    own = peak + allocated.where(on_gpu & unified).fillna(0.0)
    found = pd.concat([own, less.where(on_gpu | peak.isna())], axis=1).max(axis=1)
    method = reports["memory.method"].fillna("")
    return found.where(~in_long_process(method) & ~method.str.startswith(NOT_TOLD))


def in_long_process(methods: pd.Series) -> pd.Series:
    return methods.fillna("").str.contains(LONG_PROCESS, regex=False)


def off(reports: pd.DataFrame) -> pd.DataFrame:
    """How far the images of what was timed are from the float32 network's, in [-1, 1]: off_max, off_mean, ...

    By the file that was timed, on the common noises, else by the images of the timing, of which only the largest
    difference is known (off_images is NaN then). 0 in float32.
    """
    names = {"off_max": "max_abs", "off_mean": "mean_abs", "off_perceptual": "perceptual", "off_images": "images"}
    found = pd.DataFrame({column: reports[f"artefact.{name}"] for column, name in names.items()})
    found["off_max"] = found["off_max"].fillna(reports["checks.max_abs_vs_ref"])
    exact = reports["model.precision"].isin(EXACT)
    for column in ("off_max", "off_mean"):
        found[column] = found[column].where(~exact, 0.0)
    return found


def under(reports: pd.DataFrame, budget: Budget) -> pd.Series:
    """Which reports were made under the budget's conditions."""
    kept = (reports["workload.batch"] == budget.batch) & (reports["workload.scope"] == budget.scope)
    if budget.precision != "any":
        kept &= reports["model.precision"].isin(FLOATING if budget.precision == "float" else [budget.precision])
    if budget.device is not None:
        kept &= on(reports, budget.device)
    if budget.threads is not None:
        kept &= ~of_other_threads(reports, budget.threads)
    if budget.runtime != "fastest":
        kept &= reports["software.runtime"] == budget.runtime
    return kept


def on(reports: pd.DataFrame, device: str) -> pd.Series:
    """Which reports are of a device, with the estimates from a card of it; its name alone is enough while it was timed
    in one power mode.
    """
    known = devices(reports)
    named = known == device
    if not named.any():
        named = reports["device.name"] == device
        if known[named].nunique() > 1:
            modes = "; ".join(sorted(known[named].unique()))
            raise ValueError(f"device {device!r} was timed in several power modes; choose one of: {modes}")
    guess = estimated(reports)
    real = reports[named & ~guess]
    if not guess.any() or real.empty:
        return named
    boards = set(zip(real["device.name"], real["state.power_mode"]))
    return named | predict.of_boards(reports[guess], boards).reindex(reports.index, fill_value=False)


def _on_gpu(reports: pd.DataFrame) -> pd.Series:
    return reports["device.gpu"].notna()


def of_other_threads(reports: pd.DataFrame, threads: int) -> pd.Series:
    """Which reports are of another number of CPU threads; a GPU's time does not depend on it, whatever it says."""
    said = reports["state.threads"]
    return said.notna() & (said != threads) & ~_on_gpu(reports)


def sound(reports: pd.DataFrame, budget: Budget) -> pd.Series:
    """Which reports can be trusted. A wrong image is never allowed: it makes an engine fast and useless."""
    right = reports["checks.output_ok"].ne(False)
    guess = estimated(reports)
    return right & ~unseen(reports) & (~weak(reports) | guess | budget.weak) & (~guess | budget.estimated)


def weak(reports: pd.DataFrame) -> pd.Series:
    """Which reports no recommendation rests on unasked: throttled ones and grades D, E and F.

    A D for its times' variation alone is not among them (report.Grade.unsteady); the answer says how much it varies.
    """
    graded = reports["grade"].isin(WEAK) & ~unsteady(reports)
    return reports["state.throttled"].eq(True) | graded


def unsteady(reports: pd.DataFrame) -> pd.Series:
    """Which reports are a D for their times' variation alone."""
    return reports["unsteady"].eq(True)


def quick(reports: pd.DataFrame) -> pd.Series:
    """Which reports are of another preset than the publishable one, which of two of one grade is the better founded."""
    return reports["runner.preset"] != "publishable"


def unseen(reports: pd.DataFrame) -> pd.Series:
    """Which reports say how fast a rounded network is while nobody knows what its images lose."""
    return off(reports)["off_max"].isna()


def estimated(reports: pd.DataFrame) -> pd.Series:
    return reports["grade"].eq(ESTIMATED) | reports["provenance"].eq("estimated")
