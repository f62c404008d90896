"""A recommendation in words: each function gives a sentence, or "" where there is nothing to say."""

from __future__ import annotations

import dataclasses

import pandas as pd

from lab.choose.quantities import COSTS, METRICS, Budget, joined, number, short, threads_said
from lab.choose.rows import as_json, complete, is_student, of_method, protocols, size_as_trained
from lab.choose.timing import (
    ESTIMATED,
    LONG_PROCESS,
    OFF,
    estimated,
    in_long_process,
    of_other_threads,
    sound,
    under,
    unseen,
)
from lab.config import JSON
from lab.precisions import EXACT


def size_said(row: dict[str, JSON], name: str) -> str:
    """A size of `shipped` in words, e.g. `0.213 M parameters (0.303 as trained)`."""
    trained, unit = size_as_trained(row, name), {"params_m": "M parameters", "file_mb": "MB", "macs_m": "M MACs"}[name]
    return f"{number(row[name])} {unit}" + (f" ({number(trained)} as trained)" if trained is not None else "")


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
    off_max, off_mean, perceptual, count = (row.get(name) for name in OFF)
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
    twin = [f"of {row['timed_as']}, a network of the same form"] if row.get("timed_as") else []
    said = [row["provenance"], row["runtime"], row["timed_dtype"], f"batch {row['batch']:.0f}", *threads, *grade, *twin]
    return ", ".join(part for part in said if part)


def reason(fitting: pd.DataFrame, found: pd.DataFrame, budget: Budget) -> str:
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
        second = as_json(fitting.iloc[1])
        said += f" Next: {second['name']}, {facts(second, budget)}."
    return said


def loses(pick: dict[str, JSON], best: dict[str, JSON], teacher: dict[str, JSON] | None, budget: Budget) -> str:
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


def sure(fitting: pd.DataFrame, budget: Budget) -> str:
    metric, pick = budget.metric, as_json(fitting.iloc[0])
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
    cheapest = as_json(fitting.loc[order.idxmin()])
    count = f"{len(tied)} other{'s' if len(tied) > 1 else ''}"
    said = f"A tie within the error with {count} ({joined(list(tied['name'][:3]), more=len(tied) - 3)}): "
    if cheapest["run"] == pick["run"]:
        return said + f"{pick['name']} is also the cheapest of them, at {_costs(pick)}."
    return said + f"{cheapest['name']} is the cheapest of them, at {_costs(cheapest)} instead of {_costs(pick)}."


def remembers(pick: dict[str, JSON], budget: Budget) -> str:
    """How the memory was read, where it is limited: a process with all of torch in it says little of a small one."""
    method = pick.get("memory_method")
    return f"Its memory is {method}." if "memory_mb" in budget.limits and method else ""


def bend(bent: dict[str, JSON] | None, pick: dict[str, JSON], cost: str, budget: Budget) -> str:
    if bent is None:
        return ""
    who = "It is itself" if bent["run"] == pick["run"] else f"{bent['name']} ({facts(bent, budget)}) is"
    noun = COSTS[cost].title.lower()
    return (f"{who} the knee of the front within the budget: cheaper students lose more for the {noun} they save than "
            f"dearer ones gain for the {noun} they add.")  # fmt: skip


def guessed(pick: dict[str, JSON]) -> str:
    if not is_estimate(pick):
        return ""
    between = ""
    if pick.get("latency_low") is not None:
        between = f", {number(pick['latency_low'])} to {number(pick['latency_high'])} ms"
    return f"Its latency is an estimate{between} (grade {ESTIMATED}): nobody has timed it there."


def varies(pick: dict[str, JSON]) -> str:
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


def left_out_of(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget, found: pd.DataFrame) -> list[str]:
    """What is not compared and why, each a sentence with a count and names; `found` are the candidates of a settled
    budget.
    """
    table = complete(table)
    unread = table["state"].eq("unreadable")
    students = table[is_student(table) & ~unread]
    said_by = protocols(students, budget.metric)
    said = [
        _counted(table[unread]["name"], "run", "that can't be read"),
        _counted(students[(said_by == "") & ~students["hide"]]["name"], "run", "without a measured value"),
        _counted(students[(said_by != "") & (said_by != budget.protocol) & ~students["hide"]]["name"], "run",
                 "measured by another protocol"),
        _counted(students[students["hide"]]["name"], "run", "hidden"),
        _counted(students[~of_method(students, budget) & (said_by != "") & ~students["hide"]]["name"], "student",
                 f"of another method than {budget.method}"),
        _counted(found[found["latency_ms"].isna()]["name"], "student", f"not timed ({conditions_said(budget)})")
        if len(reports) or "latency_ms" in budget.limits else "",
    ]  # fmt: skip
    if "memory_mb" in budget.limits:
        silent = found[found["latency_ms"].notna() & found["memory_mb"].isna()]
        long = in_long_process(silent["memory_method"])
        said.append(_counted(silent[~long]["name"], "student", "of which no report says the memory"))
        said.append(_counted(silent[long]["name"], "student", f"whose memory was read in {LONG_PROCESS}, which keeps "
                             "what ran before; time again to know it"))  # fmt: skip
    if len(reports):
        here = reports[under(reports, budget)]
        by_hash = table.drop_duplicates("weights_sha256").set_index("weights_sha256")["name"]
        whose = here["model.weights_sha256"].map(by_hash).fillna(here["model.model_id"])
        if budget.threads is not None:
            others = reports[under(reports, dataclasses.replace(budget, threads=None))]
            others = others[of_other_threads(others, budget.threads) & sound(others, budget)]
            said.append(_counted(others["model.weights_sha256"].map(by_hash).dropna(), "timing",
                                 f"on the CPU with another number of threads than {budget.threads}"))  # fmt: skip
        broken = here["checks.output_ok"].eq(False)
        said.append(_counted(whose[broken], "timing", "that drew a wrong image"))
        guess, blind = estimated(here), ~broken & unseen(here)
        said.append(_counted(whose[blind], "timing", "of a precision whose loss of images nobody measured"))
        unsound = ~broken & ~blind & ~sound(here, budget)
        said.append(_counted(whose[unsound & ~guess], "timing", "throttled or of grade D or E for more than variation"))
        said.append(_counted(whose[unsound & guess], "estimate", "that nobody measured"))
        silent = guess & ~unsound & ~blind & here[f"timing.{budget.percentile}"].isna()
        said.append(_counted(whose[silent], "estimate", f"of p50, which says nothing about {budget.percentile}"))
    return [sentence for sentence in said if sentence]


def _counted(who: pd.Series, noun: str, why: str) -> str:
    if not len(who):
        return ""
    named = list(dict.fromkeys(who))
    listed = joined(named[:3], more=len(named) - 3)
    return f"Left out: {len(who)} {noun}{'s' if len(who) > 1 else ''} {why} ({listed})."


def conditions_said(budget: Budget) -> str:
    threads = [threads_said(budget.threads)] if budget.threads is not None else []
    runtime = [] if budget.runtime == "fastest" else [budget.runtime]
    return ", ".join([budget.device or "no device", *runtime, f"batch {budget.batch}", *threads, budget.scope])


def _interval(row: dict[str, JSON], metric: str) -> str:
    low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
    return "" if low is None or high is None else f" ({number(low)} to {number(high)})"


def _costs(row: dict[str, JSON]) -> str:
    said = [COSTS[name].say(row[name]) for name in ("params_m", "latency_ms") if row.get(name) is not None]
    if row.get("latency_ms") is not None and is_estimate(row):
        said[-1] += " estimated"
    return ", ".join(said) or "unknown cost"
