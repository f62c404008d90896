"""Numbers found in texts, and texts that may be shown anywhere."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any


def hexadecimal(text: str) -> int | None:
    with suppress(ValueError):
        return int(text, 16)
    return None


def number_in(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text)
    return float(found[1]) if found else None


def plain(value: Any) -> Any:
    """The same with texts that may be shown anywhere: plain ASCII, no markup, not long."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return re.sub(r"[^ -~]|[<>`\[\]{}\\$]", " ", value).strip()[:200] if isinstance(value, str) else value
