"""The claims of arXiv 2502.14226. Its method and result sections could not be reached: no number of it is quoted, and
what its principles, Teaching Assistant and Multi-In-One are is our reading of abstract, introduction and summaries.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from lab import arms, choose, principles
from lab.arms import COMPUTE
from lab.choose import Budget
from lab.claims.evidence import (
    DIFFERS,
    HOLDS,
    OUR_READING,
    PARTLY,
    UNTESTED,
    Claim,
    Evidence,
    Finding,
    alone,
    judged,
    too_few,
)
from lab.verdicts import ENOUGH, holm

PAPER = "arXiv 2502.14226"
ALL_RUNS = "python benchmarks/students.py"
STUDENT = "python -m lab run --teacher fashion --pairs 100000 --depth 4 --width 40 --mlp 96 --steps 6250"


def fitted(evidence: Evidence) -> tuple[principles.Fit | None, str]:
    """The fit of the distance over plain shapes at the images that most of them have seen; else why there is none."""
    try:
        images = principles.most_images(evidence.table)
        rows = principles.at_images(evidence.table, evidence.store, images)
        rows = choose.candidates(rows, evidence.reports, Budget(method="plain"))
        return principles.fit(principles.alike(rows)[0]), ""
    except ValueError as error:
        return None, str(error)


def optima(fit: principles.Fit) -> dict[float, principles.Optimum]:
    """The best depth/width of every size of which shapes were fitted, by millions of parameters."""
    sizes = fit.rows.groupby(budgets(fit.rows))["params"].median()
    return {float(size): principles.optimum(fit, float(params)) for size, params in sizes.items()}


def _effect(fit: principles.Fit, change: str) -> pd.Series:
    found = principles.effects(fit)
    return found[found["change"].str.startswith(change)].iloc[0]


def depth_and_width(evidence: Evidence) -> Finding:
    """Holds where the aspect surely matters at a fixed size, and every size has its best shape between others."""
    fit, why = fitted(evidence)
    if fit is None:
        return Finding(why=why)
    matters = principles.matters(fit, ("aspect", "aspect^2", "size x aspect")) < 1 - principles.LEVEL
    row = _effect(fit, "depth x2")
    best = optima(fit).values()
    off = principles.root_mean_square(principles.leave_one_out(fit))
    open_ends = [one.sentence for one in best if not one.bracketed]
    thin = ["Summaries of the paper recommend balanced shapes; of these the deep and thin are better."]
    status = UNTESTED if not matters else HOLDS if not open_ends and not math.isnan(fit.within) else PARTLY
    ours = (f"depth x2 at equal size: {row['factor']:.2f} times the distance ({row['low']:.2f} to {row['high']:.2f}); "
            f"a shape left out is predicted within {off:.0%}")  # fmt: skip
    return Finding(status, ours, row["factor"], row["low"], row["high"], tuple(fit.rows["run"]),
                   " ".join([*thin * int(row["high"] < 1), *open_ends, *fit.notes, fit.seeds]),
                   tuple(principles.effects(fit).to_dict("records")))  # fmt: skip


def heads(evidence: Evidence) -> Finding:
    """Holds where a doubling of the heads surely matters at a fixed shape."""
    fit, why = fitted(evidence)
    if fit is None or "heads" not in fit.terms:
        return Finding(why=why or " ".join(fit.notes) or "no two plain shapes differ from the others in heads")
    found = principles.effects(fit)
    rows = found[found["change"].str.startswith("heads x2")].to_dict("records")
    row = rows[0]
    sure = any(not one["low"] <= 1 <= one["high"] for one in rows)
    ours = "; ".join(f"{one['change']}: {one['factor']:.2f} times the distance ({one['low']:.2f} to {one['high']:.2f})"
                     for one in rows)  # fmt: skip
    return Finding(HOLDS if sure else UNTESTED, ours, row["factor"], row["low"], row["high"], tuple(fit.rows["run"]),
                   fit.seeds if sure else f"the interval holds 1. {fit.seeds}", tuple(rows))  # fmt: skip


def budgets(rows: pd.DataFrame) -> pd.Series:
    """0.1, 0.3, 1.0: millions of parameters as they are trained, by which students are of one budget."""
    return (rows["params"] / 1e6).round(1)


def trade_off(evidence: Evidence) -> Finding:
    """Holds where more parameters are nearer, and of every size the nearest student is surely not the fastest.

    Else two of the three quantities would be one.
    """
    rows = choose.candidates(evidence.table, evidence.reports, Budget(method="plain"))
    rows = rows.dropna(subset=["fd", "latency_ms"])
    if rows.empty:
        return Finding(why="no plain student was both measured and timed")
    rows = rows[rows["images"].eq(rows["images"].max()) & rows["family"].eq("dit")]
    details, sure = [], []
    for size, some in rows.groupby(budgets(rows)):
        near, fast = some.loc[some["fd"].idxmin()], some.loc[some["latency_ms"].idxmin()]
        if some["shape"].nunique() > 1:
            sure.append(bool(near["fd_high"] < fast["fd_low"] and fast["latency_high"] < near["latency_low"]))
        details.append({"size": f"{size:.1f} M", "nearest": near["name"], "fastest": fast["name"],
                        "distance": fast["fd"] / near["fd"], "time": near["latency_ms"] / fast["latency_ms"],
                        "fd": near["fd"]})  # fmt: skip
    if len(details) < 2 or not sure:
        return Finding(why="two sizes, with two shapes each, are the least that tell three quantities apart")
    larger = bool(np.all(np.diff([one["fd"] for one in details]) < 0))
    best, quick = rows.loc[rows["fd"].idxmin()], rows.loc[rows["latency_ms"].idxmin()]
    status = HOLDS if larger and all(sure) else PARTLY if larger or any(sure) else DIFFERS
    times = [one["time"] for one in details]
    ours = (f"{quick['name']} is {best['latency_ms'] / quick['latency_ms']:.1f} times as fast as {best['name']} at "
            f"{quick['fd'] / best['fd']:.1f} times its distance; of one size the nearest takes {min(times):.1f} to "
            f"{max(times):.1f} times the fastest's time")  # fmt: skip
    why = "" if all(sure) else f"of {sure.count(False)} of {len(sure)} sizes the intervals leave it open"
    return Finding(status, ours, quick["fd"] / best["fd"], runs=tuple(rows["run"]), why=why, details=tuple(details))


def helps(method: str) -> Callable[[Evidence], Finding]:
    """The judge of a method beside its plain twin: it must help at equal images and at equal wall-clock."""

    def judge(evidence: Evidence) -> Finding:
        rows = alone(evidence.verdicts, method)
        missing = {} if len(rows) else {f"{method} beside plain": too_few(0)}
        for compute in dict.fromkeys(rows["compute"]):
            mine = rows[rows["compute"].eq(compute)]
            if (seeds := int(mine["seeds"].max())) < ENOUGH:
                missing[compute] = too_few(seeds) if seeds else mine["why_not"].iloc[0]
        return judged(rows, missing, "the distance of plain")

    return judge


def over_get(evidence: Evidence) -> pd.DataFrame:
    """Every DiT arm over the GET of its size, at equal images and equal wall-clock, guides charged to their arms:
    rows as of `arms.verdicts`, whose `size` is the budget. GET at its best rate: of the most seeds, of those the one of
    the least mean distance.
    """
    rows = arms.arms(evidence.table, evidence.calibration)
    clock, found = arms.clock(rows, evidence.calibration), []
    rows = arms.slim(rows)
    for _, group in rows[rows["protocol"] != ""].groupby(["work", "protocol"], sort=False):
        get, dit = (group[group["family"].eq(family)] for family in ("get", "dit"))
        for _, mine in dit.groupby(["alike", "arm"], sort=False):
            near = get[(get["params"] / mine["params"].iloc[0] - 1).abs().le(arms.NEAR)]
            rates = [some for _, some in near.groupby("alike")]
            near = max(rates, key=lambda some: (some["seed"].nunique(), -some["fd"].mean()), default=near)
            for compute in (COMPUTE[0], COMPUTE[2]):
                found += [(mine, compute, pair) for pair in arms.pairings(mine, near, compute, clock)]
    cells = pd.DataFrame([{"method": mine["method"].iloc[0], "size": f"{budgets(mine).iloc[0]:.1f} M",
                           "compute": compute, "images": pair.mine["images"].iloc[0], "twin": "GET",
                           "runs": tuple(pair.mine["run"]), "twin_runs": tuple(pair.twin["run"]),
                           **vars(pair.verdict())} for mine, compute, pair in found],
                         columns=list(arms.COLUMNS))  # fmt: skip
    for _, some in cells[cells["seeds"].ge(ENOUGH)].groupby(["size", "compute"]):
        for at, p in holm({str(at): p for at, p in some["p_t"].items()}).items():
            again = found[int(at)][2].verdict(p)
            cells.loc[int(at), ["p_t", "word"]] = again.p_t, again.word
    return cells


def better_than_get(evidence: Evidence) -> Finding:
    cells = over_get(evidence)
    plain = arms.arms(evidence.table)
    plain = plain[plain["plain"] & plain["protocol"].ne("")]
    sizes = [f"{size:.1f} M" for size, some in plain.groupby(budgets(plain)) if some["shape"].nunique() > 1]
    missing = {} if sizes else {"any size": too_few(0)}
    for size in sizes:
        seeds = {at: max([0, *cells.loc[cells["size"].eq(size) & cells["compute"].eq(at), "seeds"]])
                 for at in (COMPUTE[0], COMPUTE[2])}  # fmt: skip
        few = {at: too_few(many) for at, many in seeds.items() if many < ENOUGH}
        missing |= {size: few[COMPUTE[0]]} if len({*seeds.values()}) == 1 and few else {
            f"{size} {at}": why for at, why in few.items()}  # fmt: skip
    return judged(cells, missing, "GET's distance")


CLAIMS = (
    Claim("depth-width", PAPER, "At a given size, principles say how deep and how wide a one-step DiT should be.",
          "abstract; summaries recommend balanced shapes", OUR_READING, "", ALL_RUNS, depth_and_width),
    Claim("heads", PAPER, "At a given size, a principle says how many heads to take.", "abstract", OUR_READING, "",
          "python -m lab run --teacher fashion --pairs 100000 --depth 4 --width 40 --mlp 96 --heads 2 --steps 12500",
          heads),
    Claim("trade-off", PAPER, "Quality, size and speed trade against each other, all three.", "abstract", "abstract",
          "", f"{ALL_RUNS} && python benchmarks/measure.py", trade_off),
    Claim("teaching-assistant", PAPER, "Features of a larger DiT of the same family teach a student better.",
          "abstract; equations are ours", OUR_READING, "",
          f"{STUDENT} --method pairs,teaching_assistant --guide 12x64", helps("teaching_assistant")),
    Claim("multi-in-one", PAPER, "Several blocks of a larger DiT in one block of the student teach it better.",
          "abstract; equations are ours", OUR_READING, "",
          f"{STUDENT} --method pairs,multi_in_one --guide 12x64", helps("multi_in_one")),
    Claim("better-than-get", PAPER, "At each budget the students are better than the GET baseline.",
          "abstract, of a baseline; that it is GET is ours", OUR_READING, "",
          "python -m lab run --teacher fashion --pairs 100000 --family get --depth 3 --width 32 --steps 6250",
          better_than_get),
)  # fmt: skip
