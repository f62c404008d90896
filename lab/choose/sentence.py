"""The answer in one sentence, each of its figures with what it means."""

from __future__ import annotations

from typing import NamedTuple

from lab.choose.prose import facts, is_estimate, timing_said
from lab.choose.quantities import COSTS, METRICS, Budget, brief, number, percent, short
from lab.choose.recommendation import Recommendation
from lab.choose.rows import size_as_trained
from lab.config import JSON


class Figure(NamedTuple):
    """A figure of the sentence, as it stands there, and what it means, as a hover box says it."""

    said: str
    meaning: str


def sentence(answer: Recommendation) -> str:
    """E.g. `Ship 8x48: 0.21 M parameters, 0.47 ms here, 4.9 times its teacher's distance; one step dearer buys 9 %.`

    Where nothing fits, the answer's headline.
    """
    if answer.pick is None:
        return answer.headline
    *told, step = in_short(answer)
    return f"Ship {answer.pick['name']}: {', '.join(figure.said for figure in told)}; {step.said}."


def in_short(answer: Recommendation) -> list[Figure]:
    """The pick's size, time and quality, as far as they are known, and last what one step dearer would buy."""
    pick, budget = answer.pick, answer.budget
    found = []
    if pick.get("params_m") is not None:
        trained = size_as_trained(pick, "params_m")
        more = f"; {number(trained)} M while it was trained" if trained is not None else ""
        found.append(Figure(f"{brief(pick['params_m'])} M parameters", f"{number(pick['params_m'])} million weights "
                            f"in what is shipped, its conditioning folded into a table{more}."))  # fmt: skip
    if pick.get("latency_ms") is not None:
        found.append(Figure(f"{brief(pick['latency_ms'])} ms {_where(pick)}", _latency(pick, budget)))
    found.append(_quality(pick, budget))
    return [*found, _dearer(answer)]


def times_teacher(row: dict[str, JSON], metric: str) -> float | None:
    """A row's metric over its own teacher's under the same protocol; None where either is not known or 0.

    `row` is of `choose.with_latency` or `choose.candidates`.
    """
    value, teacher = row.get(metric), row.get("teacher_value")
    return value / teacher if value is not None and teacher else None


def _where(row: dict[str, JSON]) -> str:
    """Whose clock told a latency: this machine's, another's or nobody's."""
    if is_estimate(row):
        return f"estimated for {row['device']}"
    return "here" if row.get("provenance") == "measured" else f"on {row['device']}"


def _latency(row: dict[str, JSON], budget: Budget) -> str:
    what = {"core": "of the network alone", "e2e": "from noise to an image"}[budget.scope]
    span = ""
    if row.get("latency_low") is not None and row.get("latency_high") is not None:
        span = f" ({number(row['latency_low'])} to {number(row['latency_high'])})"
    middle = "Half of its calls take" if budget.percentile == "p50" else f"{budget.percentile[1:]} % of its calls take"
    return f"{middle} at most {number(row['latency_ms'])} ms{span}, {what}, on {row['device']}: {timing_said(row)}."


def _quality(row: dict[str, JSON], budget: Budget) -> Figure:
    metric, ratio = budget.metric, times_teacher(row, budget.metric)
    noun = "distance" if metric in ("fd", "kid") else short(metric)
    low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
    span = f" (95 % interval {number(low)} to {number(high)})" if low is not None and high is not None else ""
    better = "higher is better" if METRICS[metric].more_is_better else "lower is better, 0 is no difference"
    raw = f"{METRICS[metric].title} {number(row[metric])}{span}"
    if ratio is None:
        return Figure(f"{noun} {brief(row[metric])}", f"{raw}; {better}. {budget.protocol}.")
    return Figure(f"{brief(ratio)} times its teacher's {noun}", f"{raw}, its teacher's "
                  f"{number(row['teacher_value'])}; {better}. {budget.protocol}.")  # fmt: skip


def _dearer(answer: Recommendation) -> Figure:
    """What the student would buy that needs the least more of one limit."""
    budget, value = answer.budget, answer.pick[answer.budget.metric]
    steps = answer.marginal
    steps = steps[steps["change"] == "raise"] if len(steps) else steps
    if not len(steps) or not value:
        best = answer.best["run"] == answer.pick["run"]
        why = "It is the best student that is measured." if best else "No single limit that is raised admits a better."
        return Figure("nothing dearer is better", why)
    step = steps.loc[(steps["to"] / steps["from"]).idxmin()]
    row = answer.candidates.set_index("run").loc[step["run"]].to_dict()
    return Figure(f"one step dearer buys {percent(step['gain'] / value)}", (
        f"{step['name']} needs {COSTS[step['limit']].say(step['to'])} where the limit is "
        f"{COSTS[step['limit']].say(step['from'])}, and has {facts(row, budget)}."
    ))  # fmt: skip
