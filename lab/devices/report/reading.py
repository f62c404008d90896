"""A report from a file that anybody may have written: what it says is printed, shown on pages and kept in tables later,
so that its text is held to plain characters, too.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab.config import JSON, LARGEST_NET
from lab.devices.report.rules import SCHEMA, check, leaves, time_of
from lab.schema import shown

UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", re.ASCII)
MAX_BYTES = 1_000_000  # 4,096 raw times are about 50 kB
MAX_DEPTH = 32  # Python's own limit is no guard: torch.compile raises it for the whole process
MAX_VALUES = 5_000  # 4,096 raw times, and room for a model's config
MAX_DIGITS = 16  # of a whole number: nanoseconds of three months
MAX_TEXT = 200  # characters
# Nothing in a name needs them, and a page or a plot would read them as markup.
MARKUP = frozenset("<>`[]{}\\$")
FORMULA = frozenset("=+-@")  # what a spreadsheet takes for the beginning of one, in a table that was saved as CSV


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


def _foreign(report: Mapping[str, JSON]) -> Iterator[str]:
    """What may not stand in a report that was written elsewhere: it will be printed, plotted and compared by date."""
    if (count := sum(1 for _ in leaves(report))) > MAX_VALUES:
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
    elif time_of(created) > tomorrow:
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
