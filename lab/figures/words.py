"""What a chart of students says in words: the titles of its axes, its conditions, its hover boxes."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lab import choose
from lab.choose import METRICS, QUANTITIES, number
from lab.figures.look import GUESS, MANY, only_value, safe


def axis_title(frame: pd.DataFrame, column: str) -> str:
    """A quantity's name with its unit, its conditions and which way is better, e.g. for an axis."""
    quantity, extra = QUANTITIES[column], []
    if column in METRICS and (samples := only_value(frame, "samples")) is not None:
        extra.append(f"{samples:,.0f} samples")
    if column == "latency_ms" and len(frame):
        extra += [f"ms, {only_value(frame, 'percentile') or 'p50'}"] + [
            f"batch {b:.0f}" for b in [only_value(frame, "batch")] if b
        ]
    elif quantity.unit:
        extra.append(quantity.unit)
    if column in choose.AS_TRAINED:
        extra.append("as deployed")
    if column in METRICS:
        extra.append("higher is better" if quantity.more_is_better else "lower is better")
    return f"{quantity.title} ({', '.join(extra)})" if extra else quantity.title


def shortened(name: str, letters: int = 20) -> str:
    """A name for a place beside a mark; the box that the mark opens has it whole."""
    return name if len(name) <= letters else f"{name[: letters - 1].rstrip(' ,')}…"


def upright(title: str) -> str:
    """An axis title in two lines, name and brackets, since a vertical axis is short on a phone."""
    return title.replace(" (", "<br>(", 1)


def conditions(frame: pd.DataFrame, left_out: Sequence[str] = (), metric: str = "fd") -> str:
    """How a figure's values were measured, in sentences, with what was left out and why."""
    said = [f"{METRICS[metric].title}: {p}." for p in sorted(set(choose.protocols(frame, metric)) - {""})]
    if frame[f"{metric}_low"].notna().any():
        bars = "bars, of the front alone, are" if len(frame) > MANY else "bars are"
        said[-1:] = [f"{said[-1][:-1]}; {bars} 95 % intervals."] if said else []
    timed = frame.dropna(subset=["latency_ms"])
    if len(timed):
        threads = _counts(timed["threads"].dropna().map(choose.threads_said).astype(str))
        graded = _counts("grade " + timed["grade"][timed["grade"] != ""]) or "not graded"
        parts = [_counts(timed["device"]), _counts(timed["runtime"]), _counts(timed["timed_dtype"]),
                 _counts(timed["batch"].map("batch {:.0f}".format)), threads, _counts(timed["scope"]), graded,
                 _counts(timed["provenance"])]  # fmt: skip
        lent = timed["timed_as"].ne("").sum() if "timed_as" in timed else 0
        parts += [f"{lent} lent by a network of the same form"] * bool(lent)
        spanned = "latency_low" in timed and (timed["latency_low"].notna() & timed["provenance"].ne(GUESS)).any()
        spans = "; intervals of measured ones span those of all timings of that form and grade" if spanned else ""
        said.append(f"Latency {only_value(timed, 'percentile') or ''}: ".replace(" :", ":")
                    + ", ".join(p for p in parts if p) + spans + ".")  # fmt: skip
    return " ".join([*said, *left_out])


def hover(row: dict[str, object]) -> str:
    """The facts of one row as a hover box; labels are people's text, so escaped."""
    lines = [
        f"<b>{safe(str(row['name']))}</b>",
        safe(str(row["method"]) if row["name"] == row["shape"] else f"{row['shape']}, {row['method']}"),
    ]
    for column in ("fd", "class_accuracy"):
        if _known(row, column):
            low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
            ci = f" ({number(low)} to {number(high)})" if _known(row, f"{column}_low") else ""
            raw = f"{METRICS[column].title} {number(row[column])}{ci}"
            times = choose.times_teacher(row, column) if column == "fd" and _known(row, "teacher_value") else None
            lines.append(raw if times is None else f"{choose.brief(times)} times its teacher's distance: {raw}")
    lines += [choose.size_said(row, size) for size in choose.AS_TRAINED if _known(row, size)]
    if _known(row, "latency_ms"):
        grade = f", grade {row['grade']}" if row["grade"] else ""
        said = GUESS if choose.is_estimate(row) else row["runtime"]
        form = f" {row['timed_dtype']}" if row["timed_dtype"] not in choose.EXACT else ""
        span = f" ({number(row['latency_low'])} to {number(row['latency_high'])})" if _known(row, "latency_low") else ""
        lent = ", of a network of the same form" if row.get("timed_as") else ""
        lines.append(f"{number(row['latency_ms'])} ms {row['percentile']}{span}, {said}{form}{grade}{lent}")
    if _known(row, "speed_up"):
        lines.append(f"{number(row['speed_up'])} times as fast as its teacher")
    if row.get("beside"):
        lines.append(safe(row["beside"]))
    if row.get("why_not"):
        lines.append(safe(f"Over the budget: {row['why_not']}"))
    return "<br>".join(line for line in lines if line)


def _counts(values: pd.Series) -> str:
    """The values in words, each with its count where there are several: `compiled (11), eager (3)`."""
    counts = values[values != ""].value_counts()
    return counts.index[0] if len(counts) == 1 else ", ".join(f"{v} ({n})" for v, n in counts.items())


def _known(row: dict[str, object], column: str) -> bool:
    value = row.get(column)
    return value is not None and value == value  # NaN alone is not equal to itself; pandas.isna takes ten times as long
