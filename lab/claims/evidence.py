"""What a claim is, what was found of it, and the results that claims are judged by."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from lab import arms, choose
from lab.choose import Budget
from lab.config import JSON
from lab.results import Run, Store, read_json
from lab.verdicts import ENOUGH, counted

HOLDS, PARTLY, DIFFERS, UNTESTED = STATUSES = ("holds", "partly", "does not hold", "not tested")
OUR_READING = "our reading"
DETAILS = ("method", "size", "compute", "images", "twin", "ratio", "low", "high", "seeds", "word")  # of a verdict


@dataclass(frozen=True)
class Finding:
    """What the results say of a claim."""

    status: str = UNTESTED
    ours: str = ""  # our figure in words; "" where there is none
    value: float = math.nan  # it as a number, where it is one
    low: float = math.nan  # of its 95 % interval; nan where none is known
    high: float = math.nan
    runs: tuple[str, ...] = ()  # ids
    why: str = ""  # what is missing, or why ours differs
    details: tuple[dict[str, JSON], ...] = ()  # the figures behind it, a row each


@dataclass(frozen=True)
class Claim:
    """What a paper says, and how the lab judges it."""

    name: str
    paper: str
    text: str
    source: str  # where it is said
    reading: str  # whose words these are: `abstract`, `repository`, or OUR_READING
    published: str  # the paper's figure; "" where none is quoted
    command: str  # what makes the first runs that it needs
    judge: Callable[[Evidence], Finding]


@dataclass
class Evidence:
    """A results folder, read once for all claims."""

    store: Store
    table: pd.DataFrame = field(default=None)  # of `Store.table()`, by default read from the store, as the next
    reports: pd.DataFrame = field(default=None)

    def __post_init__(self) -> None:
        self.table = choose.complete(self.store.table() if self.table is None else self.table)
        self.table = self.table[~self.table["hide"]].reset_index(drop=True)
        self.reports = self.store.reports() if self.reports is None else self.reports

    @functools.cached_property
    def calibration(self) -> JSON:
        return arms.calibration(self.store)

    @functools.cached_property
    def verdicts(self) -> pd.DataFrame:
        return arms.verdicts(self.table, self.calibration)

    @functools.cached_property
    def by_run(self) -> pd.DataFrame:
        return self.table.set_index("run", drop=False)

    def done(self, method: str) -> pd.DataFrame:
        """The finished students of a method, those of the least distance first."""
        has = [method in methods.split("+") for methods in self.table["method"]]
        rows = self.table[pd.Series(has, self.table.index, dtype=bool) & self.table["state"].eq("done")]
        return rows.sort_values("fd", kind="stable")

    def facts(self, run: str, method: str) -> dict[str, JSON]:
        """What a method found while a run trained; {} for nothing."""
        found = Run(self.store.root / "runs" / run).facts.get(method)
        return found if isinstance(found, dict) else {}

    def run_of(self, name: str) -> pd.Series | None:
        """The row of a run by the lasting name that a recipe keeps of it; None where it is not in the table."""
        name = str(name).removeprefix("run:")
        return self.by_run.loc[name] if name in self.by_run.index else None

    @functools.cached_property
    def packed_mb(self) -> dict[str, float]:
        """run -> MB of its file of two bits a ternary weight, where that was made and timed."""
        files = self.reports[self.reports["model.precision"].eq("ternary")]
        return files.groupby("model.model_id")["model.file_mb"].min().to_dict()

    def latency_ms(self, batch: int) -> pd.Series:
        """run -> median milliseconds of the network by its fastest right runtime; nan where it was not timed."""
        frame = choose.with_latency(
            self.table, self.reports, choose.settle(self.table, self.reports, Budget(batch=batch))
        )
        return frame.set_index("run")["latency_ms"]

    def benchmark(self, name: str, runs: Collection[str]) -> dict[str, JSON]:
        """What a benchmark left in results/benchmarks of one of these runs (<name>*.json); {} where it timed none."""
        found = (read_json(path) for path in sorted((self.store.root / "benchmarks").glob(f"{name}*.json")))
        return next((one for one in found if isinstance(one, dict) and one.get("run") in runs), {})


def alone(found: pd.DataFrame, method: str) -> pd.DataFrame:
    """The rows of `arms.verdicts` of a method by itself, whatever its options."""
    return found[found["method"].str.replace(r" \(.*", "", regex=True).eq(method)]


def within(row: pd.Series) -> str:
    """` (0.88 to 0.95, 6 seeds)`."""
    seeds = counted(row["seeds"], row["trained"])
    return f" ({row['low']:.2f} to {row['high']:.2f}, {seeds})" if pd.notna(row["low"]) else f" ({seeds})"


def of_words(words: Sequence[str], *, whole: bool) -> str:
    """The status of a claim that something helps, by the verdicts on it; `whole`: nothing that it takes is missing."""
    if words and all(word == "helps" for word in words):
        return HOLDS if whole else PARTLY
    if "helps" in words:
        return PARTLY
    return DIFFERS if words and all(word in ("hurts", "no difference") for word in words) else UNTESTED


def judged(cells: pd.DataFrame, missing: Mapping[str, str], against: str) -> Finding:
    """The finding of verdict rows, of which the best arm of each size and compute
    speaks, and the least of those is the figure.

    missing: place -> why it is not decided there; against: what the distance is a multiple of. Rows of fewer than
    ENOUGH seeds decide nothing; where there are no others, the status is UNTESTED.
    """
    paired = cells[cells["seeds"].gt(0)]
    if paired.empty:
        return Finding(why=because(missing))
    sure = paired[paired["seeds"].ge(ENOUGH)]
    shown = sure if len(sure) else paired[paired["seeds"].eq(paired["seeds"].max())]
    best = shown.loc[shown.groupby(["size", "compute"], sort=False)["ratio"].idxmin()]
    head = best.loc[best["ratio"].idxmax()]  # the least that can be said for it
    still = {f"{row['size']}, {row['compute']}": f"open after {row['seeds']} seeds"
             for _, row in best[best["word"].eq("open")].iterrows()}  # fmt: skip
    ours = f"{head['ratio']:.2f} times {against}{within(head)}, {head['method']} at {head['size']}, {head['compute']}"
    details = tuple(row[list(DETAILS)].to_dict() for _, row in paired.iterrows())
    runs = tuple(dict.fromkeys(run for side in ("runs", "twin_runs") for ids in best[side] for run in ids))
    return Finding(of_words(best["word"].tolist() if len(sure) else [], whole=not missing), ours, head["ratio"],
                   head["low"], head["high"], runs, because(still | missing), details)  # fmt: skip


def because(reasons: Mapping[str, str]) -> str:
    """Reasons by place as one text, each of them once."""
    places: dict[str, list[str]] = {}
    for place, why in reasons.items():
        places.setdefault(why, []).append(place)
    return "; ".join(f"{', '.join(where)}: {why}" for why, where in places.items())


def too_few(seeds: int) -> str:
    """What so few seeds tell, beside how many it takes."""
    if not seeds:
        return f"none of {ENOUGH} paired seeds"
    tell = f"an interval, for a sign-flip test of {seeds} can't fall under {2 / 2**seeds:.2g}"
    return f"{seeds} of {ENOUGH} paired seeds tell a direction {'alone' if seeds == 1 else f'and {tell}'}"
