"""What may be stored as a device report: by its schema, and by what a schema can't say."""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab import schema as schemas
from lab.config import JSON
from lab.devices.report.times import SHORTEST_MS, contradictions
from lab.schema import shown

SCHEMA = "device_report.v1"
SCHEMA_FILE = Path(__file__).parent.parent / f"{SCHEMA}.json"
REPORT_ID = re.compile(r"[a-z0-9_-]{8,64}")
MAX_PROBLEMS = 10
LARGEST = 1e15
LONGEST_MS = 86_400_000.0  # of one call: a day
CLOCKS_APART = 0.01  # by how much a GPU's clock and the host's may differ
ROUNDED_S = 0.001  # of a duration
PAUSE_S = 1.0  # a host takes no longer from one call of trtexec to the next
MAY_BE_NEGATIVE = re.compile(r"timing\.drift|state\.temp_c\..*|state\.ambient_c|model\.config\..*")


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


def fault(report: JSON, name: str | None = None) -> str | None:
    """What keeps a stored report from being read, as a sentence; None if nothing does. `name` is that of its file.

    It looks at each field by itself (lab.schema): `check`, which is for what comes in, takes seconds for a thousand
    reports.
    """
    if not isinstance(report, Mapping):
        return "it is no JSON object"
    if report.get("schema") != SCHEMA:
        return f"its schema is {shown(str(report.get('schema')))}, not {SCHEMA!r}"
    if wrong := schemas.fault(report, schema(), schema()):
        return wrong
    if name is not None and report["report_id"] != name:
        return f"it calls itself {shown(report['report_id'])}, which is not its file's name"
    return next(itertools.chain(_time_rules(report), _signs(report), _figure_rules(report)), None)


def _sentence(error: Any) -> str:
    where = ".".join(map(str, error.absolute_path)) or "report"
    message = error.message if len(error.message) <= 200 else f"{error.message[:80]} ... {error.message[-80:]}"
    return f"{where}: {message.encode('ascii', 'backslashreplace').decode()}"


def _rules(report: Mapping[str, JSON]) -> Iterator[str]:
    """What the schema can't say."""
    if not REPORT_ID.fullmatch(report["report_id"]):  # "$" of the schema lets a last newline pass
        yield f"report_id must match {REPORT_ID.pattern}, got {report['report_id']!r}"
    yield from _time_rules(report)
    if wrong := list(_number_rules(report)):
        yield from wrong[:MAX_PROBLEMS]
        return
    yield from _figure_rules(report)
    yield from _times_rules(report["timing"])


def _time_rules(report: Mapping[str, JSON]) -> Iterator[str]:
    if time_of(created := report["created_utc"]) is None:
        yield f"created_utc must be a date and time as in 2026-11-23T18:00:00+00:00, got {shown(created)}"


def time_of(text: JSON) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def _signs(report: Mapping[str, JSON]) -> Iterator[str]:
    """`_number_rules` of what pages show, without the thousands of single times."""
    for part in ("timing", "memory", "energy", "workload"):
        for name, value in (report.get(part) or {}).items():
            if type(value) in (int, float) and value < 0 and not MAY_BE_NEGATIVE.fullmatch(f"{part}.{name}"):
                yield f"{part}.{name} is negative: {value:g}"


def _number_rules(report: Mapping[str, JSON]) -> Iterator[str]:
    for place, value in leaves(report):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if isinstance(value, float) and not math.isfinite(value):  # such as 1e999, which reads as infinite
            yield f"{shown(place)[1:-1]} is not a finite number"
        elif abs(value) > LARGEST:
            yield f"{shown(place)[1:-1]} is beyond {LARGEST:g}"
        elif value < 0 and not MAY_BE_NEGATIVE.fullmatch(place):
            yield f"{shown(place)[1:-1]} is negative: {value:g}"


def _times_rules(timing: Mapping[str, Any]) -> Iterator[str]:
    cv, std, mean = (timing.get(name) for name in ("cv", "std", "mean"))
    if None not in (cv, std, mean) and abs(cv * mean - std) > 0.05 * std + SHORTEST_MS:
        yield f"timing.cv is {cv:g}, but std {std:g} over mean {mean:g} is not"
    elif wrong := next(contradictions(timing), None):
        yield wrong  # one wrong figure makes others wrong, and the first says it


def _figure_rules(report: Mapping[str, Any]) -> Iterator[str]:
    """What figures of one report say of each other, its single times left out."""
    timing = report["timing"]
    yield from _order_rules(timing, "timing")
    if wall := timing.get("wall"):
        yield from _order_rules(wall, "timing.wall")
        if timing["clock"] == "wall_sync":
            yield "timing.wall stands beside another clock's times, and timing.clock is wall_sync itself"
        elif wall["p50"] < timing["p50"] * (1 - CLOCKS_APART) - SHORTEST_MS:
            yield f"timing.wall.p50 is {wall['p50']:g} ms, less than the {timing['p50']:g} ms of the work within it"
    if ci := timing.get("p50_ci95"):
        if not ci[0] <= timing["p50"] <= ci[1]:
            yield f"timing.p50_ci95 [{ci[0]:g}, {ci[1]:g}] does not hold p50 {timing['p50']:g}"
    yield from _duration_rules(report)
    yield from _energy_rules(report.get("energy") or {})
    for name, found in report["state"].items():
        if isinstance(found, Mapping) and not found.get("min", -math.inf) <= found.get("max", math.inf):
            yield f"state.{name} has min {found['min']:g} above max {found['max']:g}"


def _duration_rules(report: Mapping[str, Any]) -> Iterator[str]:
    """duration_s is the sum of what a host waited for each call; trtexec's own has the pauses between them, too."""
    timing = report["timing"]
    lasted, calls, sessions = (timing.get(name) for name in ("duration_s", "iters", "sessions"))
    if calls is not None and sessions is not None and calls < sessions:
        yield f"timing.iters is {calls}, less than a call for each of {sessions} sessions"
    if lasted is None or not calls:
        return
    least = _mean_between(timing)[0] * calls / 1000
    if lasted < least * (1 - CLOCKS_APART) - ROUNDED_S:
        yield f"timing.duration_s is {lasted:g} s, less than the {least:g} s of its {calls:,} calls"
    waited = timing if timing["clock"] == "wall_sync" else timing.get("wall")
    if waited and report["provenance"] in ("measured", "imported"):  # others may have counted more than the calls
        most = _mean_between(waited)[1] * calls / 1000
        most += PAUSE_S * calls if report["software"]["runtime"] == "tensorrt" else 0
        if lasted > most * (1 + CLOCKS_APART) + ROUNDED_S:
            yield f"timing.duration_s is {lasted:g} s, more than the {most:g} s of its {calls:,} calls"


def _mean_between(times: Mapping[str, Any]) -> tuple[float, float]:
    """Between what the mean of calls lies: it is no further from their median than their standard deviation."""
    if (mean := times.get("mean")) is not None:
        return mean, mean
    p50, cv = times["p50"], 1.0 if times.get("cv") is None else times["cv"]
    return p50 / (1 + min(cv, 1.0)), p50 / (1 - cv) if cv < 1 else math.inf  # half of the calls take as long as p50


def _energy_rules(energy: Mapping[str, Any]) -> Iterator[str]:
    """mj_per_image is gross, or net where net_of_idle says so; mj_per_image_net stands beside a gross one alone."""
    gross, net = energy.get("mj_per_image"), energy.get("mj_per_image_net")
    if net is None:
        return
    if gross is None or energy.get("net_of_idle"):
        yield "energy.mj_per_image_net stands beside a gross energy.mj_per_image, and there is none"
    elif net > gross:
        yield f"energy.mj_per_image_net is {net:g} mJ, above the gross {gross:g} mJ of energy.mj_per_image"


def _order_rules(times: Mapping[str, Any], place: str) -> Iterator[str]:
    known = [(f"{place}.{name}", times[name]) for name in ("min", "p50", "p90", "p99") if times.get(name) is not None]
    for name, value in known:
        if not SHORTEST_MS <= value <= LONGEST_MS:
            yield f"{name} is {value:g} ms; a call takes between a nanosecond ({SHORTEST_MS:g} ms) and a day"
    for (low_name, low), (high_name, high) in zip(known, known[1:]):
        if low > high:
            yield f"{low_name} is {low:g} ms, above {high_name} of {high:g} ms"
    low, high, iqr, mean = (times.get(name) for name in ("min", "p90", "iqr", "mean"))
    if None not in (low, high, iqr) and iqr > high - low + 2 * SHORTEST_MS:  # each of them is rounded
        yield f"{place}.iqr is {iqr:g} ms, more than the {high - low:g} ms between its min and p90"
    if None not in (low, mean) and mean < low - SHORTEST_MS:
        yield f"{place}.mean is {mean:g} ms, below {place}.min of {low:g} ms"


def leaves(value: JSON, place: str = "") -> Iterator[tuple[str, JSON]]:
    """Every value that holds no others, with its place, such as timing.p50."""
    if not isinstance(value, (Mapping, list)):
        yield place, value
        return
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from leaves(inner, f"{place}.{key}".lstrip("."))
