"""What does not hold in a JSON value by a JSON Schema, fast enough for thousands of files. No torch here.

It knows the words that the lab's two schemas are written in (results.v1.json, devices/device_report.v1.json): type,
const, enum, required, properties, additionalProperties, propertyNames, items, minItems, maxItems, minimum, maximum,
exclusiveMinimum and references to $defs. Others, such as those that bind fields of a report to one another, are for the
package jsonschema, which `lab.devices.report.check` holds a report against when it comes in: that takes seconds for a
thousand of them. As in any JSON of the lab, infinity and NaN are no numbers, and a whole number has at most 64 bits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lab.config import JSON

Rule = Mapping[str, Any]
WHOLE = 2**63
_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "number": (int, float), "integer": (int,),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip


def fault(value: JSON, rule: Rule, root: Rule) -> str | None:
    """The first thing that does not hold, as a clause that names its place; None if all holds.

    `root` is the whole schema, in whose $defs references are looked up.
    """
    return next(_faults(value, rule, root["$defs"], ""), None)


def _faults(value: JSON, rule: Rule, defs: Mapping[str, Rule], place: str) -> Iterator[str]:
    if "$ref" in rule:
        rule = defs[rule["$ref"].rpartition("/")[2]]
    if wrong := _wrong(value, rule):
        yield f"{place or 'it'} is {shown(_said(value))}, {wrong}"
    elif isinstance(value, dict):
        known, others = rule.get("properties", {}), rule.get("additionalProperties", True)
        for key in rule.get("required", ()):
            if key not in value:
                yield f"{_in(place, key)} is missing"
        for key, inner in value.items():
            if key in known:
                yield from _faults(inner, known[key], defs, _in(place, key))
            elif others is False or not re.search(rule.get("propertyNames", {}).get("pattern", ""), key):
                yield f"{_in(place, shown(key))} is no field of it"
            elif others is not True:
                yield from _faults(inner, others, defs, _in(place, shown(key)[1:-1]))
    elif isinstance(value, list):
        if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
            yield f"{place} has {len(value)} values"
        if inner := rule.get("items"):
            for k, item in enumerate(value):
                yield from _faults(item, inner, defs, _in(place, str(k)))


def _wrong(value: JSON, rule: Rule) -> str | None:
    """What a value itself is not, whatever it holds."""
    if "const" in rule and value != rule["const"]:
        return f"not {rule['const']!r}"
    if "enum" in rule and (not isinstance(value, str) or value not in rule["enum"]):
        return f"not one of {', '.join(rule['enum'])}"
    if kind := rule.get("type"):
        kinds = [kind] if isinstance(kind, str) else kind
        if not any(type(value) in _KINDS[k] for k in kinds) or endless(value):
            return f"not {' or '.join(kinds)}"
    if type(value) in (int, float):
        if value < rule.get("minimum", value):
            return f"below {rule['minimum']}"
        if value > rule.get("maximum", value):
            return f"above {rule['maximum']}"
        if value <= rule.get("exclusiveMinimum", -math.inf):
            return f"not above {rule['exclusiveMinimum']}"
    return None


def endless(value: JSON) -> bool:
    """Whether it is a number that is none here: infinite, NaN, or whole and of more than 64 bits."""
    return abs(value) >= WHOLE if type(value) is int else type(value) is float and not math.isfinite(value)


def _in(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _said(value: JSON) -> str:
    return json.dumps(value)[:80] if isinstance(value, (list, dict)) else str(value)[:80]


def shown(text: str) -> str:
    """Text in quotes that is safe to print: ASCII alone, control characters escaped, not long."""
    return ascii(text if len(text) <= 60 else f"{text[:40]}...{text[-17:]}")
