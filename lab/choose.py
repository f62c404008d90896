"""Which student to ship: a budget and the store's tables in, a recommendation with its reason out. No torch here.

    from lab.choose import Budget, recommend
    from lab.results import Store
    store = Store()
    print(recommend(store.table(), store.reports(), Budget(params_m=0.35, latency_ms=1.0)).text)

Only values of one protocol (extractor, samples, reference, seed) are compared, and only latencies of one
device, batch, thread count and scope; what was left out is named. Sizes are those of what is shipped.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lab.config import JSON, unknown
from lab.devices import predict
from lab.devices.report import FAMILIES_WITH_POWER_MODES


@dataclass(frozen=True)
class Quantity:
    """A column that can be compared: what it is called, its unit, and which way is better."""

    title: str
    unit: str = ""
    more_is_better: bool = False

    def say(self, value: float) -> str:
        return f"{number(value)} {self.unit}".rstrip()


METRICS = {
    "fd": Quantity("Frechet distance"),
    "kid": Quantity("Kernel distance"),
    "fd_teacher": Quantity("Frechet distance to the teacher"),
    "precision": Quantity("Precision", more_is_better=True),
    "recall": Quantity("Recall", more_is_better=True),
    "class_accuracy": Quantity("Class accuracy", more_is_better=True),
    "teacher_l1": Quantity("L1 to the teacher's image"),
    "teacher_perceptual": Quantity("Perceptual distance to the teacher's image"),
}
COSTS = {
    "params_m": Quantity("Parameters", "M"),
    "latency_ms": Quantity("Latency", "ms"),
    "memory_mb": Quantity("Memory", "MB"),
    "file_mb": Quantity("File", "MB"),
    "macs_m": Quantity("MACs per image", "M"),
}
# Of what is shipped, which is what a budget is held against: the deployed form (lab/deploy.py) where a network has one,
# else the network itself. Size -> as trained, and where `Store.table()` has both and in which unit.
AS_TRAINED = {"params_m": "params_trained_m", "file_mb": "file_trained_mb", "macs_m": "macs_trained_m"}
_SIZES = {"params_m": ("params", "params_deployed", 1e6), "file_mb": ("file_mb", "file_mb_deployed", 1.0),
          "macs_m": ("macs_image", "macs_deployed", 1e6)}  # fmt: skip
SIZES_SAID = ("Parameters, file and MACs are those of what is shipped: the deployed form, in which the conditioning is "
              "folded into a table.")  # fmt: skip
QUANTITIES = METRICS | COSTS | {
    trained: Quantity(f"{COSTS[name].title} as trained", COSTS[name].unit) for name, trained in AS_TRAINED.items()
} | {
    "speed_up": Quantity("Times faster than its teacher", more_is_better=True),
    "depth": Quantity("Depth"),
    "width": Quantity("Width"),
    "train_seconds": Quantity("Training", "s"),
}  # fmt: skip

PERCENTILES = ("p50", "p90", "p99")
SCOPES = ("core", "e2e")
# The metrics are those of the weights as floating point numbers; an int8 engine draws other images.
FLOATING = ("fp32", "tf32", "fp16", "bf16")
EXACT = ("fp32", "tf32")  # of any other precision it must be known how far its images are off
COARSE = ("int8", "int8-static", "w8a16", "w4a16", "w4a32", "ternary")
PRECISIONS = ("float", "any", *FLOATING, *COARSE)  # float: the fastest of FLOATING, any: of all
WEAK = ("D", "E", "F")  # grades: in doubt, published by others, estimated
ESTIMATED = "F"
# How memory.method begins where a peak was asked for in vain (lab/footprint.py), and what stands in it where the peak
# is that of a process which may have done other things before, as all of the lab's own timings did once.
NOT_TOLD, LONG_PROCESS = "not told", "the lab's own process"

# How far its images are off, of which only the first is always known.
_OFF = ("off_max", "off_mean", "off_perceptual", "off_images")
# `precision` is a metric, so the number format of a timing is `timed_dtype`.
_TIMED = [
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
    "report_id",
    *_OFF,
]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the device allows, and under which conditions it is looked at. None: no limit, or `settle` fills it in."""

    params_m: float | None = None  # millions of parameters of what is shipped, as all sizes here
    latency_ms: float | None = None  # for one batch
    memory_mb: float | None = None  # of the device's memory while it runs, runtime and all
    file_mb: float | None = None  # of its weights in half precision
    macs_m: float | None = None  # millions of multiply-adds per image
    device: str | None = None
    runtime: str = "fastest"  # or one by name
    batch: int = 1
    threads: int | None = None
    scope: str = "core"  # the network alone; e2e = from noise to an image on the host
    precision: str = "float"  # of the timings; `any` also takes coarser ones, which draw other images, or one by name
    percentile: str = "p50"
    metric: str = "fd"
    protocol: str | None = None  # as `protocols` says it
    method: str | None = None  # students of this one alone, as `method_short` of `Store.table()` says it
    weak: bool = False  # also use timings that were throttled or are of grade D or E, not only those that vary
    estimated: bool = False  # also use estimates (grade F), for networks that were not timed

    def __post_init__(self) -> None:
        wrong = []
        for name, known in [("percentile", PERCENTILES), ("metric", METRICS), ("scope", SCOPES),
                            ("precision", PRECISIONS)]:  # fmt: skip
            if getattr(self, name) not in known:
                wrong.append(unknown(name, getattr(self, name), known))
        for name in COSTS:
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                wrong.append(f"{name} must be above 0, got {limit}")
        if self.batch < 1:
            wrong.append(f"batch must be at least 1, got {self.batch}")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def limits(self) -> dict[str, float]:
        """The costs that are limited, by column."""
        return {name: getattr(self, name) for name in COSTS if getattr(self, name) is not None}

    @property
    def said(self) -> str:
        """The limits in words, e.g. `at most 0.35 M parameters and 1 ms`."""
        parts = [_limit(name, limit, self) for name, limit in self.limits.items()]
        return "at most " + _listed(parts) if parts else "no limit"


@dataclass(frozen=True)
class Recommendation:
    """What to ship and why. Rows are plain dicts without NaN: what is missing is None."""

    budget: Budget  # settled: device, threads and protocol are filled in
    candidates: pd.DataFrame
    pick: dict[str, JSON] | None = None
    runner_up: dict[str, JSON] | None = None
    best: dict[str, JSON] | None = None  # the best student, whatever it costs
    teacher: dict[str, JSON] | None = None
    knee: dict[str, JSON] | None = None  # of the front of what fits; None where the front does not bend
    headline: str = ""
    reason: str = ""
    loses: str = ""
    sure: str = ""
    bend: str = ""  # what the knee is, in a sentence
    marginal: pd.DataFrame = field(default_factory=pd.DataFrame)  # what one step more or less of each limit changes
    misses: pd.DataFrame = field(default_factory=pd.DataFrame)  # where nothing fits: the nearest per limit
    left_out: list[str] = field(default_factory=list)
    everyone: pd.DataFrame = field(default_factory=pd.DataFrame)  # rows of `with_latency`; not part of the JSON

    @property
    def text(self) -> str:
        """The whole answer as plain lines."""
        sizes = SIZES_SAID if self.pick and size_as_trained(self.pick, "params_m") is not None else ""
        lines = [self.headline, self.reason, self.loses, self.sure, self.bend, sizes, *self.left_out]
        return "\n".join(line for line in lines if line)

    def to_json(self) -> dict[str, JSON]:
        plain = dataclasses.asdict(dataclasses.replace(self, everyone=pd.DataFrame()))
        del plain["everyone"]
        for name in ("candidates", "marginal", "misses"):
            plain[name] = [_plain(row) for _, row in getattr(self, name).iterrows()]
        return plain


# --- rows that can be compared ------------------------------------------------------------------


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """The store's table with `protocol` and a short `name`; may be empty."""
    if "protocol" in table and "name" in table:
        return table
    return table.assign(protocol=protocols(table), name=names(table))


def protocols(table: pd.DataFrame, metric: str = "fd") -> pd.Series:
    """What each row's metric was measured with, in words; "" where it was not. Equal words may be compared."""
    needed = (metric, f"{metric}_reference", "extractor", "samples", "eval_seed")
    said = [
        "" if pd.isna(value) or pd.isna(samples) else
        f"{extractor}, {samples:,.0f} samples, against {reference}, "
        + ("seed not recorded" if pd.isna(seed) else f"seed {seed:.0f}")
        for value, reference, extractor, samples, seed in zip(*(table[column] for column in needed))
    ]  # fmt: skip
    return pd.Series(said, index=table.index, dtype=str)


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
    said = protocols(table, metric)[same & _students(table) & ~table["hide"]]
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
        said = protocols(found, budget.metric)[_students(found) & ~found["hide"]]
        budget = dataclasses.replace(budget, protocol=_most(said[said != ""]))
    if len(reports) and not budget.estimated:
        reports = reports[~_estimated(reports)]  # nor may they settle what is looked at
    if budget.device is None:
        budget = dataclasses.replace(budget, device=next(iter(devices_by_trust(reports)), None))
    if budget.threads is None and len(reports):
        counts = thread_counts(reports[_at(reports, budget)])
        budget = dataclasses.replace(budget, threads=counts[0] if counts else None)
    return budget


def thread_counts(reports: pd.DataFrame) -> list[int]:
    """The numbers of CPU threads of the timings, most common first, those of estimates alone last.

    What ran on a GPU has no say: its time does not depend on them, and it is kept whichever number is chosen.
    """
    known = reports["state.threads"][~_on_gpu(reports)].dropna()
    guess, found = _estimated(reports).reindex(known.index), []
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
                            "measured": ~_estimated(reports), "reports": 1})  # fmt: skip
    return list(counted.groupby("device").sum().sort_values(
        ["steady", "measured", "reports"], ascending=False, kind="stable").index)  # fmt: skip


def timings(reports: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """One latency per network under the budget's conditions, with the memory that it took: per runtime, precision and
    processor (CPU or GPU) the best graded, of those the publishable one, of those the newest; then the fastest of those
    within the budget's memory, if any is. `timings` is how many there are of that form and grade, and latency_low and
    latency_high span them all: on a shared machine two medians lie further apart than the error of either. Memory does
    not turn on how long the timing was: where that report does not tell it, the newest one of the same form does.

    An estimate stands only for a network that was not timed.
    """
    here = reports[_at(reports, budget) & _sound(reports, budget)]
    called = devices(here)
    if budget.device is not None and len(own := called[~_estimated(here)].unique()) == 1:
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
        "memory_method": here["memory.method"], "quick": quick(here),
    })  # fmt: skip
    found = found.join(off(here))
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
    return found.sort_values(["over", "latency_ms"], kind="stable").drop_duplicates("weights_sha256")[_TIMED]


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
    return found.where(~_in_long_process(method) & ~method.str.startswith(NOT_TOLD))


def _in_long_process(methods: pd.Series) -> pd.Series:
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


def candidates(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """The students that may be compared, each with its latency, speed-up over its teacher, and whether it `fits`.

    Added columns: those of `shipped`, latency_ms and its conditions, teacher_ms, teacher_runtime, teacher_dtype,
    teacher_gpu, speed_up, teacher_value (the teacher's metric), fits, why_not.
    """
    table = complete(table)
    budget = settle(table, reports, budget)
    return _comparable(with_latency(table, reports, budget), budget)


def _comparable(frame: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """The students among the rows of `with_latency` that share the budget's protocol, and its method if it has one."""
    same = (protocols(frame, budget.metric) == (budget.protocol or None)) & ~frame["hide"] & _of_method(frame, budget)
    frame = frame[same & _students(frame)].reset_index(drop=True)
    frame["why_not"] = _why_not(frame, budget)
    frame["fits"] = frame["why_not"] == ""
    return frame


def with_latency(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """Every row of the table, teachers too, with its costs in the units of a budget and its latency."""
    frame = complete(table)
    frame = frame.assign(**shipped(frame))
    frame = frame.drop(columns=[c for c in _TIMED[1:] if c in frame and c != "batch"])
    frame = frame.rename(columns={"batch": "train_batch"}).merge(timings(reports, budget), "left", on="weights_sha256")
    by_run = frame.drop_duplicates("run").set_index("run")
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


def shipped(table: pd.DataFrame) -> pd.DataFrame:
    """params_m, file_mb, macs_m (per image) of what each row of `Store.table()` ships, and of it as it was trained:
    params_trained_m, file_trained_mb, macs_trained_m.
    """
    sizes = {}
    for name, (trained, deployed, unit) in _SIZES.items():
        own, folded = table[trained] / unit, table[deployed] / unit
        sizes |= {name: folded.where(folded.notna(), own), AS_TRAINED[name]: own}
    return pd.DataFrame(sizes, index=table.index)


def _of_method(table: pd.DataFrame, budget: Budget) -> pd.Series:
    return table["method_short"].eq(budget.method) if budget.method else pd.Series(True, index=table.index)


def size_as_trained(row: dict[str, JSON], name: str) -> float | None:
    """What a size of `shipped` was before deployment; None where that changed nothing, or where it is not known."""
    trained = row.get(AS_TRAINED.get(name, ""))
    return None if trained is None or pd.isna(trained) or trained == row.get(name) else trained


def size_said(row: dict[str, JSON], name: str) -> str:
    """A size of `shipped` in words, e.g. `0.213 M parameters (0.303 as trained)`."""
    trained, unit = size_as_trained(row, name), {"params_m": "M parameters", "file_mb": "MB", "macs_m": "M MACs"}[name]
    return f"{number(row[name])} {unit}" + (f" ({number(trained)} as trained)" if trained is not None else "")


def _students(table: pd.DataFrame) -> pd.Series:
    # A one-step network that teaches another is a student still.
    return ~((table["role"] == "teacher") & table["time"])


def _teacher_ids(table: pd.DataFrame) -> dict[str, str]:
    """What a recipe may call its teacher -> run id."""
    ids = {f"run:{run}": run for run in table["run"]}
    for run, aliases in zip(table["run"], table["aliases"]):
        ids |= {alias: run for alias in aliases or ()}
    return ids


def _at(reports: pd.DataFrame, budget: Budget) -> pd.Series:
    """Which reports were made under the budget's conditions."""
    kept = (reports["workload.batch"] == budget.batch) & (reports["workload.scope"] == budget.scope)
    if budget.precision != "any":
        kept &= reports["model.precision"].isin(FLOATING if budget.precision == "float" else [budget.precision])
    if budget.device is not None:
        kept &= on(reports, budget.device)
    if budget.threads is not None:
        kept &= ~_of_other_threads(reports, budget.threads)
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
    guess = _estimated(reports)
    real = reports[named & ~guess]
    if not guess.any() or real.empty:
        return named
    boards = set(zip(real["device.name"], real["state.power_mode"]))
    return named | predict.of_boards(reports[guess], boards).reindex(reports.index, fill_value=False)


def _on_gpu(reports: pd.DataFrame) -> pd.Series:
    return reports["device.gpu"].notna()


def _of_other_threads(reports: pd.DataFrame, threads: int) -> pd.Series:
    """Which reports are of another number of CPU threads; a GPU's time does not depend on it, whatever it says."""
    said = reports["state.threads"]
    return said.notna() & (said != threads) & ~_on_gpu(reports)


def _sound(reports: pd.DataFrame, budget: Budget) -> pd.Series:
    """Which reports can be trusted. A wrong image is never allowed: it makes an engine fast and useless."""
    right = reports["checks.output_ok"].ne(False)
    guess = _estimated(reports)
    return right & ~_blind(reports) & (~weak(reports) | guess | budget.weak) & (~guess | budget.estimated)


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


def _blind(reports: pd.DataFrame) -> pd.Series:
    """Which reports say how fast a rounded network is while nobody knows what its images lose."""
    return off(reports)["off_max"].isna()


def _estimated(reports: pd.DataFrame) -> pd.Series:
    return reports["grade"].eq(ESTIMATED) | reports["provenance"].eq("estimated")


# --- fronts -------------------------------------------------------------------------------------


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


def start(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> Budget:
    """The budget with limits at a round figure above the median student, where a choice is hardest."""
    found = candidates(table, reports, budget)
    median = found["params_m"].median()
    limited = dataclasses.replace(budget, params_m=None if pd.isna(median) else _round_above(median))
    median = found["latency_ms"].median()
    if pd.isna(median):
        return limited
    both = dataclasses.replace(limited, latency_ms=_round_above(median))
    return both if _fits(found, both.limits).any() else limited


def command(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> str:
    """The shell command that gives the same answer; what it would take by itself is not written."""
    open_ = {"device": None, "threads": None, "protocol": None}
    alone = dataclasses.asdict(settle(table, reports, dataclasses.replace(budget, **open_)))
    words = ["python -m lab choose"]
    for option in dataclasses.fields(budget):
        value = getattr(budget, option.name)
        if value == option.default or (option.name in open_ and value == alone[option.name]):
            continue
        flag = "--" + option.name.replace("_", "-")
        words.append(
            flag if value is True else f"{flag} {shlex.quote(f'{value:g}' if isinstance(value, float) else str(value))}"
        )
    return " ".join(words)


def _round_above(value: float) -> float:
    """The next of 1, 1.5, 2, 2.5, 3.5, 5, 7.5 times a power of ten above a value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(round(step * power, 12) for step in (1.5, 2, 2.5, 3.5, 5, 7.5, 10) if step * power > value)


# --- the recommendation -------------------------------------------------------------------------


def recommend(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> Recommendation:
    """The best student within the budget, with its reason, or the nearest misses where none fits."""
    table = complete(table)
    budget = settle(table, reports, budget)
    rows = with_latency(table, reports, budget)
    found = _best_first(_comparable(rows, budget), budget)
    left_out = left_out_of(table, reports, budget, found)
    if found.empty:
        who = f"No student of {budget.method}" if budget.method else "No student"
        how = f"by the protocol {budget.protocol}" if budget.protocol else f"by {budget.metric} yet"
        reason = f"{who} is measured {how}."
        return Recommendation(budget, found, headline="Nothing to choose from.", reason=reason, left_out=left_out,
                              everyone=rows)  # fmt: skip
    fitting = found[found.fits]
    best = _plain(found.iloc[0])
    if fitting.empty:
        misses = _misses(found, budget)
        return Recommendation(
            budget, found, best=best, teacher=_teacher(rows, budget, best), headline=f"Nothing fits {budget.said}.",
            reason=" ".join(misses["sentence"]), misses=misses, left_out=left_out, everyone=rows,
        )  # fmt: skip
    pick = _plain(fitting.iloc[0])
    teacher = _teacher(rows, budget, pick)
    runner_up = _plain(fitting.iloc[1]) if len(fitting) > 1 else None
    cost = against(found)
    turn = knee(fitting, cost, budget.metric)
    bent = None if turn is None else _plain(fitting.loc[turn])
    return Recommendation(
        budget, found, pick, runner_up, best, teacher, bent,
        headline=f"Ship {pick['name']}: {facts(pick, budget)}.",
        reason=_reason(fitting, found, budget),
        loses=" ".join(filter(None, [_loses(pick, best, teacher, budget), images_said(pick)])),
        sure=" ".join(filter(None, [_sure(fitting, budget), _guessed(pick), _varies(pick), _remembers(pick, budget)])),
        bend=_bend(bent, pick, cost, budget), marginal=_marginal(found, pick, budget), left_out=left_out,
        everyone=rows,
    )  # fmt: skip


def facts(row: dict[str, JSON], budget: Budget) -> str:
    """A row's metric and costs in words; what is not known is not said."""
    parts = [f"{short(budget.metric)} {number(row[budget.metric])}{_interval(row, budget.metric)}"]
    if row.get("params_m") is not None:
        parts.append(size_said(row, "params_m"))
    if row.get("latency_ms") is not None:
        parts.append(f"{number(row['latency_ms'])} ms {budget.percentile}{' estimated' * is_estimate(row)}")
    if row.get("file_mb") is not None:
        parts.append(f"{number(row['file_mb'])} MB")
    if budget.memory_mb is not None and row.get("memory_mb") is not None:
        parts.append(f"{number(row['memory_mb'])} MB of memory")
    return ", ".join(parts)


def is_estimate(row: dict[str, JSON]) -> bool:
    """Whether a row's latency is one that nobody measured."""
    return row.get("provenance") == "estimated"


def images_off_said(row: dict[str, JSON]) -> str:
    """How far the images of a timing are off, as a sentence of `off`'s columns."""
    off_max, off_mean, perceptual, count = (row.get(name) for name in _OFF)
    if off_max is None or pd.isna(off_max):
        return "How far its images are off is not known."
    if off_mean is None or pd.isna(off_mean):
        return f"Its images were at most {number(off_max)} off (of [-1, 1], those that were timed)."
    known = perceptual is not None and not pd.isna(perceptual)
    beside = f", perceptual distance {number(perceptual)}" if known else ""
    return (f"Its images are {number(off_mean)} off on average and {number(off_max)} at most "
            f"(of [-1, 1], {count:.0f} noises{beside}).")  # fmt: skip


def images_said(row: dict[str, JSON]) -> str:
    """What the images lose by the precision of a row's latency, in sentences; "" in float32 and where untimed."""
    if row.get("latency_ms") is None or row.get("timed_dtype") in EXACT:
        return ""
    return (f"Its latency is that of {row['timed_dtype']}, its distances are those of float32. "
            f"{images_off_said(row)}")  # fmt: skip


def timing_said(row: dict[str, JSON]) -> str:
    """The conditions of a row's latency, e.g. `measured, eager, batch 1, 2 threads, grade C`; "" where untimed."""
    if row.get("latency_ms") is None:
        return ""
    threads = [threads_said(row["threads"])] if row.get("threads") is not None else []
    grade = [f"grade {row['grade']}"] if row.get("grade") else ["not graded"]
    said = [row["provenance"], row["runtime"], row["timed_dtype"], f"batch {row['batch']:.0f}", *threads, *grade]
    return ", ".join(part for part in said if part)


def _best_first(found: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """By the metric; equal ones by parameters, then by name, so that the answer never depends on the folder's order."""
    up = not METRICS[budget.metric].more_is_better
    return found.sort_values([budget.metric, "params_m", "name"], ascending=[up, True, True]).reset_index(drop=True)


def _reason(fitting: pd.DataFrame, found: pd.DataFrame, budget: Budget) -> str:
    word = "highest" if METRICS[budget.metric].more_is_better else "lowest"
    of = f"the {len(found)} measured students"
    if len(fitting) < len(found):
        of = f"the {len(fitting)} students, out of {len(found)}, that need {budget.said}"
    said = f"It has the {word} {short(budget.metric)} of {of}."
    if len(found) == 1:
        said = "It is the only measured student."
    elif len(fitting) == 1:
        said = f"It is the only one of {len(found)} students that needs {budget.said}."
    if len(fitting) > 1:
        second = _plain(fitting.iloc[1])
        said += f" Next: {second['name']}, {facts(second, budget)}."
    return said


def _loses(pick: dict[str, JSON], best: dict[str, JSON], teacher: dict[str, JSON] | None, budget: Budget) -> str:
    metric, said = budget.metric, []
    if best["run"] == pick["run"]:
        said.append("Nothing against the best student: it is the best measured.")
    else:
        said.append(f"Against the best student, {best['name']} ({_costs(best)}): "
                    f"{short(metric)} {number(pick[metric])} instead of {number(best[metric])}.")  # fmt: skip
    if teacher and teacher.get(metric) is not None:
        ratio = pick[metric] / teacher[metric] if teacher[metric] else None
        times = f", {number(ratio)} times" if ratio and not METRICS[metric].more_is_better else ""
        said.append(f"Against its teacher: {short(metric)} {number(pick[metric])}{times or ' instead of'} "
                    f"{number(teacher[metric])}.")  # fmt: skip
    if pick.get("speed_up") is not None:
        # Each by the fastest form that it was timed in, so the forms belong to the figure.
        gpus = pick.get("gpu"), pick.get("teacher_gpu")
        mine = _form_said(pick["runtime"], pick["timed_dtype"], *gpus)
        theirs = _form_said(pick["teacher_runtime"], pick["teacher_dtype"], *reversed(gpus))
        said.append(f"It is {number(pick['speed_up'])} times as fast as its teacher: {number(pick['latency_ms'])} ms "
                    f"by {mine}, its teacher {number(pick['teacher_ms'])} ms by {theirs}.")  # fmt: skip
    return " ".join(said)


def _form_said(runtime: str, precision: str, gpu: str | None, other: str | None) -> str:
    """How something ran, e.g. `eager fp32 on the GPU`; the processor only where it or the other ran on a GPU."""
    said = [part for part in (runtime, precision) if part]
    if gpu or other:
        said.append("on the GPU" if gpu else "on the CPU")
    return " ".join(said)


def _sure(fitting: pd.DataFrame, budget: Budget) -> str:
    metric, pick = budget.metric, _plain(fitting.iloc[0])
    if len(fitting) == 1:
        return "There is no other to confuse it with within this budget."
    rest = fitting.iloc[1:]
    low, high = pick[f"{metric}_low"], pick[f"{metric}_high"]
    others = rest.dropna(subset=[f"{metric}_low", f"{metric}_high"])
    if low is None or high is None or others.empty:
        return f"The error of {short(metric)} was not measured, so the order may be chance."
    tied = others[(others[f"{metric}_low"] <= high) & (others[f"{metric}_high"] >= low)]
    if tied.empty:
        return (f"The 95 % interval of its {short(metric)} overlaps no other's within the budget "
                "(drawing of samples; the training seed is not in it).")  # fmt: skip
    order = _cheapness(pd.concat([fitting.iloc[:1], tied]))
    cheapest = _plain(fitting.loc[order.idxmin()])
    count = f"{len(tied)} other{'s' if len(tied) > 1 else ''}"
    said = f"A tie within the error with {count} ({_listed(list(tied['name'][:3]), more=len(tied) - 3)}): "
    if cheapest["run"] == pick["run"]:
        return said + f"{pick['name']} is also the cheapest of them, at {_costs(pick)}."
    return said + f"{cheapest['name']} is the cheapest of them, at {_costs(cheapest)} instead of {_costs(pick)}."


def _remembers(pick: dict[str, JSON], budget: Budget) -> str:
    """How the memory was read, where it is limited: a process with all of torch in it says little of a small one."""
    method = pick.get("memory_method")
    return f"Its memory is {method}." if "memory_mb" in budget.limits and method else ""


def _bend(bent: dict[str, JSON] | None, pick: dict[str, JSON], cost: str, budget: Budget) -> str:
    if bent is None:
        return ""
    who = "It is itself" if bent["run"] == pick["run"] else f"{bent['name']} ({facts(bent, budget)}) is"
    noun = COSTS[cost].title.lower()
    return (f"{who} the knee of the front within the budget: cheaper students lose more for the {noun} they save than "
            f"dearer ones gain for the {noun} they add.")  # fmt: skip


def _guessed(pick: dict[str, JSON]) -> str:
    if not is_estimate(pick):
        return ""
    between = ""
    if pick.get("latency_low") is not None:
        between = f", {number(pick['latency_low'])} to {number(pick['latency_high'])} ms"
    return f"Its latency is an estimate{between} (grade {ESTIMATED}): nobody has timed it there."


def _varies(pick: dict[str, JSON]) -> str:
    """How far to trust the latency of a timing whose calls differ much; "" of a steady one."""
    if not pick.get("unsteady"):
        return ""
    said = f"Its time varies by {pick['latency_cv']:.0%} from call to call (grade {pick['grade']})"
    if pick.get("latency_p90") is not None:
        said += f": one in ten takes {number(pick['latency_p90'])} ms or more"
    if pick["timings"] > 1 and pick.get("latency_low") is not None:
        said += (f"; {pick['timings']:.0f} timings with their errors span {number(pick['latency_low'])} to "
                 f"{number(pick['latency_high'])} ms")  # fmt: skip
    return said + "."


def _cheapness(frame: pd.DataFrame) -> pd.Series:
    """Latency where all have one, else parameters."""
    return frame["latency_ms"] if frame["latency_ms"].notna().all() else frame["params_m"]


def _marginal(found: pd.DataFrame, pick: dict[str, JSON], budget: Budget) -> pd.DataFrame:
    """The next better student if one limit is raised, and the best one left if it is lowered below the pick."""
    rows = []
    for name, limit in budget.limits.items():
        others = _fits(found, {k: v for k, v in budget.limits.items() if k != name})
        better = others & found[name].gt(limit) & _gain(found, pick, budget).gt(0)
        if better.any():
            rows.append(_step("raise", name, found.loc[found.loc[better, name].idxmin()], pick, budget))
        less = others & found[name].lt(pick[name])
        if less.any():
            rows.append(_step("lower", name, found[less].iloc[0], pick, budget))  # best first
    return pd.DataFrame(
        rows, columns=["change", "limit", "from", "to", "note", "run", "name", "value", "gain", "gain_per_unit"]
    )


def _step(change: str, name: str, row: pd.Series, pick: dict[str, JSON], budget: Budget) -> dict[str, JSON]:
    # A raised limit starts from the limit, a lowered one from what the pick needs.
    start = budget.limits[name] if change == "raise" else pick[name]
    gain = float(_gain(row, pick, budget))
    return {
        "change": change,
        "limit": name,
        "from": start,
        "to": float(row[name]),
        "note": "estimated" if name == "latency_ms" and is_estimate(row) else "",
        "run": row["run"],
        "name": row["name"],
        "value": float(row[budget.metric]),
        "gain": gain,
        "gain_per_unit": gain / (float(row[name]) - start),
    }


def _gain(rows: pd.DataFrame | pd.Series, pick: dict[str, JSON], budget: Budget) -> pd.Series | float:
    """How much better than the pick; below 0 where worse."""
    sign = 1 if METRICS[budget.metric].more_is_better else -1
    return sign * (rows[budget.metric] - pick[budget.metric])


def _misses(found: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """Per limit the student that would fit but for this one and is the least over it; else the nearest over all."""
    rows = []
    for name, limit in budget.limits.items():
        others = _fits(found, {k: v for k, v in budget.limits.items() if k != name}) & found[name].notna()
        if others.any():
            rows.append(_miss(found.loc[found.loc[others, name].idxmin()], name, limit, budget))
    if not rows:
        worst = pd.DataFrame({name: found[name] / limit for name, limit in budget.limits.items()}).max(
            axis=1, skipna=False
        )
        if worst.notna().any():
            nearest = found.loc[worst.idxmin()]
            rows = [_miss(nearest, n, v, budget) for n, v in budget.limits.items() if nearest[n] > v]
        else:
            lacks = "is timed" if found["latency_ms"].isna().all() else "has its memory told by a report"
            rows = [{"sentence": f"No student {lacks} under these conditions ({_conditions_said(budget)})."}]
    return pd.DataFrame(rows, columns=["limit", "allowed", "needed", "over", "run", "name", "value", "sentence"])


def _miss(row: pd.Series, name: str, limit: float, budget: Budget) -> dict[str, JSON]:
    value, unit = float(row[name]), COSTS[name].unit
    over = value - limit
    guess = " (estimated)" if name == "latency_ms" and is_estimate(row) else ""
    sentence = (
        f"Nearest on {COSTS[name].title.lower()}: {row['name']} with {number(value)} {unit}{guess}, "
        f"{number(over)} {unit} ({over / limit:.0%}) over, {short(budget.metric)} {number(row[budget.metric])}."
    )
    return {"limit": name, "allowed": limit, "needed": value, "over": over, "run": row["run"], "name": row["name"],
            "value": float(row[budget.metric]), "sentence": sentence}  # fmt: skip


def _fits(frame: pd.DataFrame, limits: dict[str, float]) -> pd.Series:
    kept = pd.Series(True, index=frame.index)
    for name, limit in limits.items():
        kept &= frame[name].le(limit)
    return kept


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


def _teacher(rows: pd.DataFrame, budget: Budget, student: dict[str, JSON]) -> dict[str, JSON] | None:
    """The row of a student's own teacher, if the store has it measured alike."""
    rows = rows[rows["run"] == student["teacher_run"]]
    rows = rows[protocols(rows, budget.metric) == budget.protocol]
    return _plain(rows.iloc[0]) if len(rows) else None


def left_out_of(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget, found: pd.DataFrame) -> list[str]:
    """What is not compared and why, each a sentence with a count and names; `found` are the candidates of a settled
    budget.
    """
    table = complete(table)
    students = table[_students(table)]
    said_by = protocols(students, budget.metric)
    said = [
        _counted(students[(said_by == "") & ~students["hide"]]["name"], "run", "without a measured value"),
        _counted(students[(said_by != "") & (said_by != budget.protocol) & ~students["hide"]]["name"], "run",
                 "measured by another protocol"),
        _counted(students[students["hide"]]["name"], "run", "hidden"),
        _counted(students[~_of_method(students, budget) & (said_by != "") & ~students["hide"]]["name"], "student",
                 f"of another method than {budget.method}"),
        _counted(found[found["latency_ms"].isna()]["name"], "student", f"not timed ({_conditions_said(budget)})")
        if len(reports) or "latency_ms" in budget.limits else "",
    ]  # fmt: skip
    if "memory_mb" in budget.limits:
        silent = found[found["latency_ms"].notna() & found["memory_mb"].isna()]
        long = _in_long_process(silent["memory_method"])
        said.append(_counted(silent[~long]["name"], "student", "of which no report says the memory"))
        said.append(_counted(silent[long]["name"], "student", f"whose memory was read in {LONG_PROCESS}, which keeps "
                             "what ran before; time again to know it"))  # fmt: skip
    if len(reports):
        here = reports[_at(reports, budget)]
        by_hash = table.drop_duplicates("weights_sha256").set_index("weights_sha256")["name"]
        whose = here["model.weights_sha256"].map(by_hash).fillna(here["model.model_id"])
        if budget.threads is not None:
            others = reports[_at(reports, dataclasses.replace(budget, threads=None))]
            others = others[_of_other_threads(others, budget.threads) & _sound(others, budget)]
            said.append(_counted(others["model.weights_sha256"].map(by_hash).dropna(), "timing",
                                 f"on the CPU with another number of threads than {budget.threads}"))  # fmt: skip
        broken = here["checks.output_ok"].eq(False)
        said.append(_counted(whose[broken], "timing", "that drew a wrong image"))
        guess, blind = _estimated(here), ~broken & _blind(here)
        said.append(_counted(whose[blind], "timing", "of a precision whose loss of images nobody measured"))
        unsound = ~broken & ~blind & ~_sound(here, budget)
        said.append(_counted(whose[unsound & ~guess], "timing", "throttled or of grade D or E for more than variation"))
        said.append(_counted(whose[unsound & guess], "estimate", "that nobody measured"))
        silent = guess & ~unsound & ~blind & here[f"timing.{budget.percentile}"].isna()
        said.append(_counted(whose[silent], "estimate", f"of p50, which says nothing about {budget.percentile}"))
    return [sentence for sentence in said if sentence]


def _counted(who: pd.Series, noun: str, why: str) -> str:
    if not len(who):
        return ""
    named = list(dict.fromkeys(who))
    listed = _listed(named[:3], more=len(named) - 3)
    return f"Left out: {len(who)} {noun}{'s' if len(who) > 1 else ''} {why} ({listed})."


def _conditions_said(budget: Budget) -> str:
    threads = [threads_said(budget.threads)] if budget.threads is not None else []
    runtime = [] if budget.runtime == "fastest" else [budget.runtime]
    return ", ".join([budget.device or "no device", *runtime, f"batch {budget.batch}", *threads, budget.scope])


# --- words and numbers --------------------------------------------------------------------------


def number(value: float) -> str:
    """Three figures, e.g. 0.0842, 2.91, 38.0, 1,240."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def threads_said(count: float) -> str:
    return f"{count:.0f} thread{'' if count == 1 else 's'}"


def short(metric: str) -> str:
    """A metric's name inside a sentence."""
    return {"fd": "FD", "kid": "KID", "fd_teacher": "FD to the teacher"}.get(metric, METRICS[metric].title.lower())


def _interval(row: dict[str, JSON], metric: str) -> str:
    low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
    return "" if low is None or high is None else f" ({number(low)} to {number(high)})"


def _costs(row: dict[str, JSON]) -> str:
    said = [COSTS[name].say(row[name]) for name in ("params_m", "latency_ms") if row.get(name) is not None]
    if row.get("latency_ms") is not None and is_estimate(row):
        said[-1] += " estimated"
    return ", ".join(said) or "unknown cost"


def _limit(name: str, limit: float, budget: Budget) -> str:
    noun = {"params_m": " parameters", "macs_m": " MACs", "latency_ms": f" {budget.percentile}",
            "memory_mb": " of memory", "file_mb": " of weights"}[name]  # fmt: skip
    return f"{limit:g} {COSTS[name].unit}{noun}"


def _listed(parts: list[str], more: int = 0) -> str:
    if more > 0:
        return ", ".join(parts) + f" and {more} more"
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _most(values: pd.Series) -> str | float | None:
    counts = values.value_counts()
    return None if counts.empty else sorted(counts.index[counts == counts.iloc[0]])[0]


def _plain(row: pd.Series) -> dict[str, JSON]:
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
