"""The best student within a budget, what a step more would buy, and the nearest misses where none fits."""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass, field

import pandas as pd

from lab.choose import prose
from lab.choose.fronts import against, knee
from lab.choose.quantities import COSTS, METRICS, SIZES_SAID, Budget, number, short
from lab.choose.rows import as_json, candidates, comparable, complete, protocols, settle, size_as_trained, with_latency
from lab.config import JSON


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
    def teachers(self) -> pd.DataFrame:
        """The row of `everyone` that is the teacher's; none where it is not measured alike."""
        return self.everyone[self.everyone["run"] == (self.teacher or {}).get("run")]

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
            plain[name] = [as_json(row) for _, row in getattr(self, name).iterrows()]
        return plain


def start(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> Budget:
    """The budget with limits at a round figure above the median shape, where a choice is hardest: a shape that was
    trained in many ways counts once.
    """
    found = candidates(table, reports, budget).drop_duplicates("shape")
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


def recommend(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> Recommendation:
    """The best student within the budget, with its reason, or the nearest misses where none fits."""
    table = complete(table)
    budget = settle(table, reports, budget)
    rows = with_latency(table, reports, budget)
    found = _best_first(comparable(rows, budget), budget)
    left_out = prose.left_out_of(table, reports, budget, found)
    if found.empty:
        who = f"No student of {budget.method}" if budget.method else "No student"
        how = f"by the protocol {budget.protocol}" if budget.protocol else f"by {budget.metric} yet"
        reason = f"{who} is measured {how}."
        return Recommendation(budget, found, headline="Nothing to choose from.", reason=reason, left_out=left_out,
                              everyone=rows)  # fmt: skip
    fitting = found[found.fits]
    best = as_json(found.iloc[0])
    if fitting.empty:
        misses = _misses(found, budget)
        return Recommendation(
            budget, found, best=best, teacher=_teacher(rows, budget, best), headline=f"Nothing fits {budget.said}.",
            reason=" ".join(misses["sentence"]), misses=misses, left_out=left_out, everyone=rows,
        )  # fmt: skip
    pick = as_json(fitting.iloc[0])
    teacher = _teacher(rows, budget, pick)
    runner_up = as_json(fitting.iloc[1]) if len(fitting) > 1 else None
    cost = against(found)
    turn = knee(fitting, cost, budget.metric)
    bent = None if turn is None else as_json(fitting.loc[turn])
    return Recommendation(
        budget, found, pick, runner_up, best, teacher, bent,
        headline=f"Ship {pick['name']}: {prose.facts(pick, budget)}.",
        reason=prose.reason(fitting, found, budget),
        loses=" ".join(filter(None, [prose.loses(pick, best, teacher, budget), prose.images_said(pick)])),
        sure=" ".join(filter(None, [prose.sure(fitting, budget), prose.guessed(pick), prose.varies(pick),
                                    prose.remembers(pick, budget)])),
        bend=prose.bend(bent, pick, cost, budget), marginal=_marginal(found, pick, budget), left_out=left_out,
        everyone=rows,
    )  # fmt: skip


def _best_first(found: pd.DataFrame, budget: Budget) -> pd.DataFrame:
    """By the metric; equal ones by parameters, then by name, so that the answer never depends on the folder's order."""
    up = not METRICS[budget.metric].more_is_better
    return found.sort_values([budget.metric, "params_m", "name"], ascending=[up, True, True]).reset_index(drop=True)


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
        "note": "estimated" if name == "latency_ms" and prose.is_estimate(row) else "",
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
            rows = [{"sentence": f"No student {lacks} under these conditions ({prose.conditions_said(budget)})."}]
    return pd.DataFrame(rows, columns=["limit", "allowed", "needed", "over", "run", "name", "value", "sentence"])


def _miss(row: pd.Series, name: str, limit: float, budget: Budget) -> dict[str, JSON]:
    value, unit = float(row[name]), COSTS[name].unit
    over = value - limit
    guess = " (estimated)" if name == "latency_ms" and prose.is_estimate(row) else ""
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


def _teacher(rows: pd.DataFrame, budget: Budget, student: dict[str, JSON]) -> dict[str, JSON] | None:
    """The row of a student's own teacher, if the store has it measured alike."""
    rows = rows[rows["run"] == student["teacher_run"]]
    rows = rows[protocols(rows, budget.metric) == budget.protocol]
    return as_json(rows.iloc[0]) if len(rows) else None
