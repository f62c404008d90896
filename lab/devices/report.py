"""Device reports: one timing of one model on one device, checked and graded. No torch here.

The format is device_report.v1.json beside this file; what a schema can't say stands in `_rules`. A
grade is computed from the report each time and never stored, so nobody can type the letter. The
figures that it rests on are held against the report's own single times, and without those it is a C
at best; what a report says of its machine (power mode, clocks, throttling, swap) stays its own word.
A report from a file (`load`, `parse`) may have been written by anybody: what it says is printed and
shown on pages and kept in tables later, so its text is held to plain characters, too.
"""

from __future__ import annotations

import datetime
import errno
import functools
import json
import math
import os
import re
import stat
import statistics
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import schema as schemas
from lab.config import JSON, LARGEST_NET
from lab.schema import shown

SCHEMA = "device_report.v1"
SCHEMA_FILE = Path(__file__).parent / f"{SCHEMA}.json"
REPORT_ID = re.compile(r"[a-z0-9_-]{8,64}")
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", re.ASCII)
MAX_BYTES = 1_000_000  # 4,096 raw times are about 50 kB
MAX_PROBLEMS = 10
MAX_DEPTH = 32  # Python's own limit is no guard: torch.compile raises it for the whole process
MAX_VALUES = 5_000  # 4,096 raw times, and room for a model's config
MAX_DIGITS = 16  # of a whole number: nanoseconds of three months
LARGEST = 1e15
MAX_TEXT = 200  # characters
SHORTEST_MS, LONGEST_MS = 1e-6, 86_400_000.0  # of one call: a nanosecond, a day
CLOCKS_APART = 0.01  # by how much a GPU's clock and the host's may differ
MAY_BE_NEGATIVE = re.compile(r"timing\.drift|state\.temp_c\..*|state\.ambient_c|model\.config\..*")
# Nothing in a name needs them, and a page or a plot would read them as markup.
MARKUP = frozenset("<>`[]{}\\$")
FORMULA = frozenset("=+-@")  # what a spreadsheet takes for the beginning of one, in a table that was saved as CSV
MAX_SAMPLES = 4096  # single times of a report; runner.py thins the sessions evenly where there were more
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
SURE = 5  # standard errors of a rank: how far a percentile of all times may lie from that of some of them
TAIL = 0.05  # of the times at either end: few and far off, so that some of them say little of all
FAMILIES_WITH_POWER_MODES = ("jetson", "rpi")
CV_BEST, CV_WORST, DRIFT_BEST = 0.03, 0.10, 0.02
VARY = "the times vary"
PUBLISHABLE_ITERS = 1024  # calls a session
PUBLISHABLE_S, SHORTEST_S = 60, 50  # of a session; the sum of its calls is a little less than it lasted
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
    """A report from a file, checked. Raises ValueError with what is wrong, in one sentence."""
    path = Path(path)
    try:
        content = _content(path)
    except OSError as error:
        why = "it is a link; give the file itself" if error.errno == errno.ELOOP else error.strerror
        raise ValueError(f"can't read report {shown(path.name)}: {why}") from None
    return parse(content, path.name)


def _content(path: Path) -> bytes:
    """The beginning of a plain file, a little more than a report may have; OSError for anything else."""
    # Without these flags a link would be followed and a named pipe waited for.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a folder" if stat.S_ISDIR(mode) else "it is no plain file")
        with open(file, "rb", closefd=False) as opened:
            return opened.read(MAX_BYTES + 1)
    finally:
        os.close(file)


def parse(content: bytes | str, name: str = "report") -> dict[str, JSON]:
    """A checked report from the bytes of a file that anybody may have written; ValueError else."""
    name = shown(name)[1:-1]
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES / 1e6:g} MB, which no device report is")
    try:
        plain = json.loads(_text(content), parse_constant=_no_constant, parse_int=_whole, object_pairs_hook=_unique)
        if _deeper(plain, MAX_DEPTH):
            raise RecursionError
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be a device report") from None
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if wrong := check(plain) or list(_foreign(plain)):
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{name} is no {SCHEMA}: {'; '.join(wrong[:3])}{more}")
    return plain


def _text(content: bytes | str) -> str:
    if isinstance(content, str):
        return content
    if not content.strip():
        raise ValueError("it is empty")
    try:
        return content.decode("utf-8")  # json.loads would also take UTF-16 and UTF-32
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text, byte {error.start} is 0x{content[error.start]:02x}") from None


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"it holds a whole number of {len(digits.lstrip('-'))} digits, at most {MAX_DIGITS} are read")
    return int(digits)


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    found = dict(pairs)
    if len(found) < len(pairs):  # two readers of one file must not see two values
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return found


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
    if not SHORTEST_MS <= report["timing"]["p50"] <= LONGEST_MS:
        return f"timing.p50 is {report['timing']['p50']:g} ms"
    return None


def _sentence(error: Any) -> str:
    where = ".".join(map(str, error.absolute_path)) or "report"
    message = error.message if len(error.message) <= 200 else f"{error.message[:80]} ... {error.message[-80:]}"
    return f"{where}: {message.encode('ascii', 'backslashreplace').decode()}"


def _rules(report: Mapping[str, JSON]) -> Iterator[str]:
    """What the schema can't say."""
    if not REPORT_ID.fullmatch(report["report_id"]):  # "$" of the schema lets a last newline pass
        yield f"report_id must match {REPORT_ID.pattern}, got {report['report_id']!r}"
    if _time(created := report["created_utc"]) is None:
        yield f"created_utc must be a date and time as in 2026-11-23T18:00:00+00:00, got {shown(created)}"
    if wrong := list(_number_rules(report)):
        yield from wrong[:MAX_PROBLEMS]
        return
    yield from _timing_rules(report["timing"])
    yield from _energy_rules(report.get("energy") or {})
    for name, found in report["state"].items():
        if isinstance(found, Mapping) and not found.get("min", -math.inf) <= found.get("max", math.inf):
            yield f"state.{name} has min {found['min']:g} above max {found['max']:g}"


def _time(text: JSON) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


def _number_rules(report: Mapping[str, JSON]) -> Iterator[str]:
    for place, value in _leaves(report):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        text = shown(place)[1:-1]
        if isinstance(value, float) and not math.isfinite(value):  # such as 1e999, which reads as infinite
            yield f"{text} is not a finite number"
        elif abs(value) > LARGEST:
            yield f"{text} is beyond {LARGEST:g}"
        elif value < 0 and not MAY_BE_NEGATIVE.fullmatch(place):
            yield f"{text} is negative: {value:g}"


def _timing_rules(timing: Mapping[str, Any]) -> Iterator[str]:
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
    cv, std, mean = (timing.get(name) for name in ("cv", "std", "mean"))
    if None not in (cv, std, mean) and abs(cv * mean - std) > 0.05 * std + SHORTEST_MS:
        yield f"timing.cv is {cv:g}, but std {std:g} over mean {mean:g} is not"
    elif wrong := next(_sample_rules(timing), None):
        yield wrong  # one wrong figure makes others wrong, and the first says it


# --- figures against the times they are of ------------------------------------------------------


def _kept(timing: Mapping[str, Any]) -> str:
    """How many of its single times a report keeps: `all`, `many` (as runner.py thins them) or `few`."""
    kept, calls, sessions = len(timing.get("samples_ns") or ()), timing.get("iters") or 0, timing.get("sessions") or 1
    if not kept or not calls:
        return "few"
    return "all" if kept == calls else "many" if kept >= MAX_SAMPLES // sessions else "few"


def _sample_rules(timing: Mapping[str, Any]) -> Iterator[str]:
    """Where a report's figures contradict its single times.

    Where it keeps all of them the figures are computed anew, as runner.py does, and must agree but for their rounding.
    Where it keeps some, a percentile of all must lie within SURE standard errors of its rank among these; all calls may
    vary more than these do (the slowest are rare) but hardly less than those of them that are neither quick nor slow.
    """
    if not (raw := timing.get("samples_ns")):
        return
    ms = [t / 1e6 for t in raw]
    ordered = sorted(ms)
    if (calls := timing.get("iters")) is not None and calls < len(ms):
        yield f"timing.samples_ns holds {len(ms)} times, and timing.iters says that {calls} were taken"
    if not ordered[0] - SHORTEST_MS <= timing["p50"] <= ordered[-1] + SHORTEST_MS:
        yield (f"timing.p50 of {timing['p50']:g} ms is not among its own times, which are {ordered[0]:g} to "
               f"{ordered[-1]:g} ms")  # fmt: skip
    kept = _kept(timing)
    if kept == "all":
        yield from _whole_rules(timing, ms, ordered)
    elif kept == "many":
        yield from _thinned_rules(timing, ms, ordered)


def _whole_rules(timing: Mapping[str, Any], ms: Sequence[float], ordered: Sequence[float]) -> Iterator[str]:
    mean, std = statistics.fmean(ms), statistics.pstdev(ms)
    found = {name: _percentile(ordered, q) for name, q in PERCENTILES.items()}
    found |= {"min": ordered[0], "mean": mean, "std": std, "cv": std / mean,
              "iqr": _percentile(ordered, 0.75) - _percentile(ordered, 0.25)}  # fmt: skip
    # The runner rounds to nanoseconds, ratios to five digits, and divides what is rounded.
    rounding = dict.fromkeys(found, SHORTEST_MS) | {"cv": 1e-5 + SHORTEST_MS * (1 + std / mean) / mean}
    if timing.get("sessions") == 1:  # of several nothing says where one ends
        found["drift"], rounding["drift"] = _drift(ms), 1e-5
    for name, value in found.items():
        said = timing.get(name)
        if said is not None and abs(said - value) > rounding[name]:
            unit = "" if name in ("cv", "drift") else " ms"
            yield f"timing.{name} is {said:g}{unit}, but that of its {len(ms)} times is {value:g}{unit}"


def _thinned_rules(timing: Mapping[str, Any], ms: Sequence[float], ordered: Sequence[float]) -> Iterator[str]:
    of = f"of the {len(ms)} times that it keeps"
    for name, q in PERCENTILES.items():
        low, high = _between(ordered, q)
        if (said := timing.get(name)) is not None and not low - SHORTEST_MS <= said <= high + SHORTEST_MS:
            yield f"timing.{name} is {said:g} ms, but by those {of} it is between {low:g} and {high:g} ms"
    if (said := timing.get("min")) is not None and said > ordered[0] + SHORTEST_MS:
        yield f"timing.min is {said:g} ms, but the least {of} is {ordered[0]:g} ms"
    end = int(TAIL * len(ordered))
    middle = ordered[end : len(ordered) - end]
    least = 0.9 * math.sqrt(1 - 2 * TAIL) * statistics.pstdev(middle)
    for name, bound, unit in [("std", least, " ms"), ("cv", least / statistics.fmean(ms), "")]:
        # The mean of all may be above that of some, and the ratio below: by no more than std says, which is looked at.
        if (said := timing.get(name)) is not None and said < bound - SHORTEST_MS:
            yield (f"timing.{name} is {said:g}{unit}, but {1 - 2 * TAIL:.0%} {of} alone vary by "
                   f"{bound / 0.9:g}{unit}")  # fmt: skip
    yield from _drift_rules(timing, ms)


def _drift_rules(timing: Mapping[str, Any], ms: Sequence[float]) -> Iterator[str]:
    said, sessions = timing.get("drift"), timing.get("sessions") or 1
    each = MAX_SAMPLES // sessions
    if said is None or each < 3 or len(ms) != sessions * each:  # a shorter session: nothing says where it ends
        return
    spans = []
    for start in range(0, len(ms), each):
        first, last = (sorted(ms[k : k + each // 3]) for k in (start, start + each - each // 3))
        (first_low, first_high), (last_low, last_high) = _between(first, 0.5), _between(last, 0.5)
        spans.append((last_low / first_high - 1, last_high / first_low - 1))
    # It is that of the session that drifts most, so no other may drift more for sure.
    least = max(0.0 if low <= 0 <= high else min(abs(low), abs(high)) for low, high in spans)
    if not any(low - 1e-5 <= said <= high + 1e-5 for low, high in spans) or abs(said) < least - 1e-5:
        told = " or ".join(f"{low:+.2%} to {high:+.2%}" for low, high in spans)
        yield f"timing.drift is {said:+.2%}, but by the {len(ms)} times that it keeps it is {told}"


def _percentile(ordered: Sequence[float], q: float) -> float:
    """Linear between the two nearest ranks."""
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def _between(ordered: Sequence[float], q: float) -> tuple[float, float]:
    """Where a percentile of all calls lies by some of them, drawn evenly: SURE standard errors of its rank around."""
    apart = SURE * math.sqrt(q * (1 - q) / len(ordered))
    return _percentile(ordered, max(q - apart, 0.0)), _percentile(ordered, min(q + apart, 1.0))


def _drift(ms: Sequence[float]) -> float:
    """Median of the last third over that of the first, less 1."""
    third = len(ms) // 3
    return statistics.median(ms[-third:]) / statistics.median(ms[:third]) - 1 if third else 0.0


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
    low, high, iqr = (times.get(name) for name in ("min", "p90", "iqr"))
    if None not in (low, high, iqr) and iqr > high - low + 2 * SHORTEST_MS:  # each of them is rounded
        yield f"{place}.iqr is {iqr:g} ms, more than the {high - low:g} ms between its min and p90"


def _leaves(value: JSON, place: str = "") -> Iterator[tuple[str, JSON]]:
    """Every value that holds no others, with its place, such as timing.p50."""
    if not isinstance(value, (Mapping, list)):
        yield place, value
        return
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _leaves(inner, f"{place}.{key}".lstrip("."))


# --- reports of others --------------------------------------------------------------------------


def _foreign(report: Mapping[str, JSON]) -> Iterator[str]:
    """What may not stand in a report that was written elsewhere: it will be printed, plotted and compared by date."""
    if (count := sum(1 for _ in _leaves(report))) > MAX_VALUES:
        yield f"it holds {count} values, at most {MAX_VALUES} are kept"
        return
    for key, text in _strings(report):
        if why := _no_plain_text(text, ascii_only=not key.startswith("source.")):
            yield f"{shown(key)[1:-1]} {why}"
        elif is_formula(text) and not key.rpartition(".")[2].isdigit():  # of a list a cell begins with its bracket
            yield (f"{shown(key)[1:-1]} begins with {text.lstrip()[0]!a}, which a spreadsheet would take for a "
                   "formula; begin it with a letter or a digit")  # fmt: skip
    yield from oversized(report["model"].get("config") or {})
    # Dates are compared as text, and of equal reports the newest counts: the year 9999 would do so for ever.
    created, tomorrow = report["created_utc"], datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    if not UTC.fullmatch(created):
        yield f"created_utc must be UTC as in 2026-11-23T18:00:00+00:00, got {shown(created)}"
    elif _time(created) > tomorrow:
        yield f"created_utc lies in the future: {created}"


def oversized(config: Mapping[str, JSON]) -> Iterator[str]:
    """What of a model.config no network here could be, as sentences; other kinds than numbers are not looked at."""
    for name, most in LARGEST_NET.items():
        if isinstance(value := config.get(name), (int, float)) and value > most:
            yield f"model.config.{name} is {value:g}, at most {most:,} is read"


def _strings(value: JSON, place: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a report with its place, the names of its fields among them."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, (Mapping, list)):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            here = f"{place}.{key}".lstrip(".")
            if isinstance(key, str):
                yield f"the name {here}", key
            yield from _strings(inner, here)


def _no_plain_text(text: str, *, ascii_only: bool) -> str | None:
    """What keeps text from being shown as it is, as the end of a sentence; None if nothing does."""
    if len(text) > MAX_TEXT:
        return f"has {len(text)} characters, at most {MAX_TEXT} are kept"
    for char in text:
        if not char.isprintable() or unicodedata.combining(char) or char in MARKUP or (ascii_only and char > "~"):
            return f"holds the character U+{ord(char):04X} ({unicodedata.name(char, 'no printable one')})"
    return None


def is_formula(text: str) -> bool:
    """Whether a cell of this text is one in a spreadsheet; wide forms of the signs are such signs, too."""
    return unicodedata.normalize("NFKC", text.lstrip()[:1]) in FORMULA


# --- grading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grade:
    """How far a timing can be trusted, and why not further."""

    letter: str  # A to F
    reasons: tuple[str, ...]

    @property
    def unsteady(self) -> bool:
        """Whether it is a D for nothing but its times' variation, as every timing of a shared machine is.

        What it timed is right and the device was cool: a recommendation may rest on it, saying so.
        """
        return self.letter == "D" and len(self.reasons) == 1 and self.reasons[0].startswith(VARY)

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
        found.append(f"{VARY} by {cv:.1%} (CV), above {CV_WORST:.0%}")
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
    if preset == "publishable":
        if (lasted := timing.get("duration_s")) is None:
            found.append("it is unknown how long it was timed")
        elif (seconds := lasted / (timing.get("sessions") or 1)) < SHORTEST_S:
            found.append(f"{seconds:.3g} s a session, publishable are {PUBLISHABLE_S}")
    if not state.get("power_mode"):
        found.append("the power mode is unknown")
    if (locked := state.get("clocks_locked")) is not True:
        found.append("the clocks were not fixed" if locked is False else "it is unknown whether the clocks were fixed")
    if state.get("throttled") is None:
        found.append("it is unknown whether it was throttled")
    for name, words, limit in [("cv", VARY + " by {:.1%} (CV)", CV_BEST),
                               ("drift", "the times drift by {:+.1%}", DRIFT_BEST)]:  # fmt: skip
        value = timing.get(name)
        if value is None:
            found.append(f"{name} is unknown")
        elif abs(value) > limit:
            found.append(f"{words.format(value)}, above {limit:.0%}")
    # Rows of a table of reports are without the times; what came in without them has no drift there (incoming.py).
    if "samples_ns" in timing and not is_checked(timing):
        found.append("it keeps too few of its single times to compute its figures anew")
    return found


def is_checked(timing: Mapping[str, Any]) -> bool:
    """Whether a report keeps enough single times for its figures to be held against them."""
    return _kept(timing) != "few"
