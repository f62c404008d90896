"""Device reports: one timing of one model on one device, checked and graded. No torch here.

The format is device_report.v1.json beside this file; what a schema can't say stands in `_rules`. A
grade is computed from the report each time and never stored, so nobody can type one.
"""

from __future__ import annotations

import datetime
import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.config import JSON

SCHEMA = "device_report.v1"
SCHEMA_FILE = Path(__file__).parent / f"{SCHEMA}.json"
REPORT_ID = re.compile(r"[a-z0-9_-]{8,64}")
MAX_BYTES = 1_000_000  # 4,096 raw times are about 50 kB
MAX_PROBLEMS = 10
MAX_DEPTH = 32  # Python's own limit is no guard: torch.compile raises it for the whole process
FAMILIES_WITH_POWER_MODES = ("jetson", "rpi")
CV_BEST, CV_WORST, DRIFT_BEST = 0.03, 0.10, 0.02
PUBLISHABLE_ITERS = 1024  # calls a session
GRADES = {
    "A": "publishable: three sessions, fixed clocks, no throttling, steady",
    "B": "publishable, but one session",
    "C": "good for choosing: quick, or not everything about the machine is known",
    "D": "doubtful: throttled, swapping, unsteady, unknown power mode or a wrong output",
    "E": "published by others",
    "F": "estimated",
}


# --- reading ------------------------------------------------------------------------------------


def load(path: Path | str) -> dict[str, JSON]:
    """A report from a file, checked. Raises ValueError with every problem in one sentence each."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"can't read report {path.name!r}: {error.strerror}") from None
    return parse(content, path.name)


def parse(content: bytes | str, name: str = "report") -> dict[str, JSON]:
    """A checked report from the bytes of a file that anybody may have written; ValueError else."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES / 1e6:g} MB, which no device report is")
    try:
        plain = json.loads(content, parse_constant=_no_constant)
        if _deeper(plain, MAX_DEPTH):
            raise RecursionError
        wrong = check(plain)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be a device report") from None
    except ValueError as error:  # not UTF-8, not JSON, a constant, a number of thousands of digits
        raise ValueError(f"{name} is not JSON: {error}") from None
    if wrong:
        raise ValueError(f"{name} is no {SCHEMA}: {'; '.join(wrong)}")
    return plain


def _deeper(value: JSON, levels: int) -> bool:
    """Whether a value has more than so many levels of objects and lists."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return bool(inner) and (levels == 0 or any(_deeper(v, levels - 1) for v in inner))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


# --- checking -----------------------------------------------------------------------------------


@functools.cache
def schema() -> dict[str, JSON]:
    return json.loads(SCHEMA_FILE.read_text())


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator  # a quarter of a second: only where reports come in

    return Draft202012Validator(schema())


def check(report: JSON) -> list[str]:
    """What is wrong with a report, as sentences; empty if it may be stored."""
    if not isinstance(report, Mapping):
        return [f"a report is a JSON object, got {type(report).__name__}"]
    wrong = [_sentence(error) for error, _ in zip(_validator().iter_errors(report), range(MAX_PROBLEMS))]
    # The rules read fields by name and may rely on their types only once the schema holds.
    return wrong or list(_rules(report))


def _sentence(error: Any) -> str:
    where = ".".join(map(str, error.absolute_path)) or "report"
    message = error.message if len(error.message) <= 200 else f"{error.message[:80]} ... {error.message[-80:]}"
    return f"{where}: {message}"


def _rules(report: Mapping[str, JSON]) -> Iterator[str]:
    """What the schema can't say."""
    if not REPORT_ID.fullmatch(report["report_id"]):  # "$" of the schema lets a last newline pass
        yield f"report_id must match {REPORT_ID.pattern}, got {report['report_id']!r}"
    try:
        datetime.datetime.fromisoformat(report["created_utc"])
    except ValueError:
        yield f"created_utc must be a date and time as in 2026-11-23T18:00:00+00:00, got {report['created_utc'][:40]!r}"
    if place := _not_finite(report):
        yield f"{place} is not a finite number"
        return
    timing = report["timing"]
    known = [(name, timing[name]) for name in ("min", "p50", "p90", "p99") if timing.get(name) is not None]
    for (low_name, low), (high_name, high) in zip(known, known[1:]):
        if low > high:
            yield f"timing.{low_name} is {low:g} ms, above timing.{high_name} of {high:g} ms"
    if ci := timing.get("p50_ci95"):
        if not ci[0] <= timing["p50"] <= ci[1]:
            yield f"timing.p50_ci95 [{ci[0]:g}, {ci[1]:g}] does not hold p50 {timing['p50']:g}"
    for name, found in report["state"].items():
        if isinstance(found, Mapping) and not found.get("min", -math.inf) <= found.get("max", math.inf):
            yield f"state.{name} has min {found['min']:g} above max {found['max']:g}"


def _not_finite(value: JSON, place: str = "") -> str:
    """The place of a number such as 1e999, which reads as infinite; "" if there is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return place
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return next((found for key, inner in items if (found := _not_finite(inner, f"{place}.{key}".lstrip(".")))), "")


# --- grading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grade:
    """How far a timing can be trusted, and why not further."""

    letter: str  # A to F
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.letter}: {'; '.join(self.reasons)}"


def grade(report: Mapping[str, JSON]) -> Grade:
    """The grade of a report by what it says about its own making; a missing statement counts as unknown."""
    provenance = report.get("provenance")
    if provenance == "estimated":
        return Grade("F", ("estimated, not measured",))
    if provenance == "published":
        return Grade("E", ("published by others",))
    for letter, reasons in [("D", _doubts(report)), ("C", _gaps(report))]:
        if reasons:
            return Grade(letter, tuple(reasons))
    if (sessions := _part(report, "timing").get("sessions") or 0) < 3:
        return Grade("B", (f"{sessions} of 3 sessions",))
    return Grade("A", (GRADES["A"],))


def _part(report: Mapping[str, JSON], name: str) -> Mapping[str, Any]:
    found = report.get(name)
    return found if isinstance(found, Mapping) else {}


def _doubts(report: Mapping[str, JSON]) -> list[str]:
    """What makes it a D."""
    state, timing, family = _part(report, "state"), _part(report, "timing"), _part(report, "device").get("family")
    found = []
    if _part(report, "checks").get("output_ok") is False:
        found.append("the output is wrong")
    if state.get("throttled"):
        found.append("the device was throttled")
    if state.get("swap_mb"):
        found.append(f"{state['swap_mb']:g} MB of swap were in use")
    if (cv := timing.get("cv")) is not None and cv > CV_WORST:
        found.append(f"the times vary by {cv:.1%} (CV), above {CV_WORST:.0%}")
    if family in FAMILIES_WITH_POWER_MODES and not state.get("power_mode"):
        found.append(f"the power mode is unknown, and a {family} has several")
    return found


def _gaps(report: Mapping[str, JSON]) -> list[str]:
    """What keeps it at a C."""
    state, timing = _part(report, "state"), _part(report, "timing")
    found = []
    if (preset := _part(report, "runner").get("preset")) != "publishable":
        found.append(f"preset {preset}, not publishable")
    elif (calls := (timing.get("iters") or 0) // (timing.get("sessions") or 1)) < PUBLISHABLE_ITERS:
        found.append(f"{calls} calls a session, publishable are {PUBLISHABLE_ITERS}")
    if not state.get("power_mode"):
        found.append("the power mode is unknown")
    if (locked := state.get("clocks_locked")) is not True:
        found.append("the clocks were not fixed" if locked is False else "it is unknown whether the clocks were fixed")
    if state.get("throttled") is None:
        found.append("it is unknown whether it was throttled")
    for name, words, limit in [("cv", "the times vary by {:.1%} (CV)", CV_BEST),
                               ("drift", "the times drift by {:+.1%}", DRIFT_BEST)]:  # fmt: skip
        value = timing.get(name)
        if value is None:
            found.append(f"{name} is unknown")
        elif abs(value) > limit:
            found.append(f"{words.format(value)}, above {limit:.0%}")
    return found
