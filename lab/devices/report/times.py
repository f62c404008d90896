"""The figures of a report held against the single times that it keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

SHORTEST_MS = 1e-6  # of one call: a nanosecond
MAX_SAMPLES = 4096  # single times of a report; runner.py thins the sessions evenly where there were more
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
SURE = 5  # standard errors of a rank: how far a percentile of all times may lie from that of some of them
TAIL = 0.05  # of the times at either end: few and far off, so that some of them say little of all


def is_checked(timing: Mapping[str, Any]) -> bool:
    """Whether a report keeps enough single times for its figures to be held against them."""
    return _kept(timing) != "few"


def _kept(timing: Mapping[str, Any]) -> str:
    """How many of its single times a report keeps: `all`, `many` (as runner.py thins them) or `few`."""
    kept, calls, sessions = len(timing.get("samples_ns") or ()), timing.get("iters") or 0, timing.get("sessions") or 1
    if not kept or not calls:
        return "few"
    return "all" if kept == calls else "many" if kept >= MAX_SAMPLES // sessions else "few"


def contradictions(timing: Mapping[str, Any]) -> Iterator[str]:
    """Where a report's figures contradict its single times.

    Where it keeps all of them the figures are computed anew, as runner.py does, and must agree but for their rounding.
    Where it keeps some, a percentile of all must lie within SURE standard errors of its rank among these; all calls may
    vary more than these do (the slowest are rare) but hardly less than those of them that are neither quick nor slow.
    """
    if not (raw := timing.get("samples_ns")):
        return
    if min(raw) < 1:
        yield f"timing.samples_ns holds a time of {min(raw)} ns; a call takes at least a nanosecond"
        return
    ms = np.array(raw) / 1e6
    if (calls := timing.get("iters")) is not None and calls < len(ms):
        yield f"timing.samples_ns holds {len(ms)} times, and timing.iters says that {calls} were taken"
    if not ms.min() - SHORTEST_MS <= timing["p50"] <= ms.max() + SHORTEST_MS:
        yield (f"timing.p50 of {timing['p50']:g} ms is not among its own times, which are {ms.min():g} to "
               f"{ms.max():g} ms")  # fmt: skip
    kept = _kept(timing)
    if kept == "all":
        yield from _whole_rules(timing, ms)
    elif kept == "many":
        yield from _thinned_rules(timing, ms)


def _whole_rules(timing: Mapping[str, Any], ms: np.ndarray) -> Iterator[str]:
    mean, std = ms.mean(), ms.std()
    found = {name: np.quantile(ms, q) for name, q in PERCENTILES.items()}
    found |= {"min": ms.min(), "mean": mean, "std": std, "cv": std / mean,
              "iqr": np.subtract(*np.quantile(ms, [0.75, 0.25]))}  # fmt: skip
    # The runner rounds to nanoseconds, ratios to five digits, and divides what is rounded.
    rounding = dict.fromkeys(found, SHORTEST_MS) | {"cv": 1e-5 + SHORTEST_MS * (1 + std / mean) / mean}
    if timing.get("sessions") == 1:  # of several nothing says where one ends
        found["drift"], rounding["drift"] = _drift(ms), 1e-5
    for name, value in found.items():
        said = timing.get(name)
        if said is not None and abs(said - value) > rounding[name]:
            unit = "" if name in ("cv", "drift") else " ms"
            yield f"timing.{name} is {said:g}{unit}, but that of its {len(ms)} times is {value:g}{unit}"


def _thinned_rules(timing: Mapping[str, Any], ms: np.ndarray) -> Iterator[str]:
    of = f"of the {len(ms)} times that it keeps"
    for name, q in PERCENTILES.items():
        low, high = _between(ms, q)
        if (said := timing.get(name)) is not None and not low - SHORTEST_MS <= said <= high + SHORTEST_MS:
            yield f"timing.{name} is {said:g} ms, but by those {of} it is between {low:g} and {high:g} ms"
    if (said := timing.get("min")) is not None and said > ms.min() + SHORTEST_MS:
        yield f"timing.min is {said:g} ms, but the least {of} is {ms.min():g} ms"
    end = int(TAIL * len(ms))
    middle = np.sort(ms)[end : len(ms) - end]
    least = 0.9 * math.sqrt(1 - 2 * TAIL) * middle.std()
    for name, bound, unit in [("std", least, " ms"), ("cv", least / ms.mean(), "")]:
        # The mean of all may be above that of some, and the ratio below: by no more than std says, which is looked at.
        if (said := timing.get(name)) is not None and said < bound - SHORTEST_MS:
            yield (f"timing.{name} is {said:g}{unit}, but {1 - 2 * TAIL:.0%} {of} alone vary by "
                   f"{bound / 0.9:g}{unit}")  # fmt: skip
    yield from _drift_rules(timing, ms)


def _drift_rules(timing: Mapping[str, Any], ms: np.ndarray) -> Iterator[str]:
    said, sessions = timing.get("drift"), timing.get("sessions") or 1
    each = MAX_SAMPLES // sessions
    if said is None or each < 3 or len(ms) != sessions * each:  # a shorter session: nothing says where it ends
        return
    spans = []
    for session in ms.reshape(sessions, each):
        (first_low, first_high), (last_low, last_high) = (
            _between(third, 0.5) for third in (session[: each // 3], session[-(each // 3) :])
        )
        spans.append((last_low / first_high - 1, last_high / first_low - 1))
    # It is that of the session that drifts most, so no other may drift more for sure.
    least = max(0.0 if low <= 0 <= high else min(abs(low), abs(high)) for low, high in spans)
    if not any(low - 1e-5 <= said <= high + 1e-5 for low, high in spans) or abs(said) < least - 1e-5:
        told = " or ".join(f"{low:+.2%} to {high:+.2%}" for low, high in spans)
        yield f"timing.drift is {said:+.2%}, but by the {len(ms)} times that it keeps it is {told}"


def _between(ms: np.ndarray, q: float) -> np.ndarray:
    """Where a percentile of all calls lies by some of them, drawn evenly: SURE standard errors of its rank around."""
    apart = SURE * math.sqrt(q * (1 - q) / len(ms))
    return np.quantile(ms, np.clip([q - apart, q + apart], 0, 1))


def _drift(ms: np.ndarray) -> float:
    """Median of the last third over that of the first, less 1."""
    third = len(ms) // 3
    return float(np.median(ms[-third:]) / np.median(ms[:third]) - 1) if third else 0.0
