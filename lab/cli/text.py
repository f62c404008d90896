"""What a command found as lines for a person, or as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

# The columns of a run that a person wants first.
RUN_COLUMNS = ("label", "role", "state", "shape", "method", "evaluations", "params", "params_deployed",
               "file_mb", "file_mb_deployed", "macs_image", "macs_deployed", "images", "fd", "kid",
               "class_accuracy")  # fmt: skip


def some(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {k: row[k] for k in names if k in row and not empty(row[k])}


def empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def cell(value: Any) -> str:
    """A value as a person reads it: four figures, nothing for a missing one."""
    if empty(value):
        return ""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if float(value) == int(value):
        return f"{int(value):,}"
    return f"{float(value):.4g}"


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as text in columns, numbers to the right."""
    if not rows:
        return "nothing found"
    names = list(rows[0])
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells)]
    right = [all(empty(r.get(n)) or hasattr(r.get(n), "__float__") for r in rows) for n in names]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right)).rstrip()
        for line in [names, *cells]
    ]
    return "\n".join(lines)


def record_text(row: Mapping[str, Any]) -> str:
    """One row as lines of name and value."""
    width = max(map(len, row))
    return "\n".join(f"{name.ljust(width)}  {cell(value)}" for name, value in row.items())


def plain(value: Any) -> Any:
    """A value that JSON can hold: no NaN, no numpy, no Path."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(v) for v in value]
    if hasattr(value, "item"):  # a numpy number
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
