"""The figures of many times of one call: median with its interval, percentiles, spread, drift."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

MAX_SAMPLES = 4096  # raw times kept in a report; more are thinned evenly
RESAMPLES = 1000
BLOCKS = 32  # of consecutive calls, the unit that the bootstrap of the median draws

T = TypeVar("T")


def summary(sessions: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The figures of a report's `timing` part from all times of all sessions, none left out."""
    times = list(itertools.chain(*sessions))
    found, (low, high) = spread(times), map(ms, median_ci(sessions))
    kept = [thin(s, MAX_SAMPLES // len(sessions)) for s in sessions]
    return {
        "iters": len(times), "duration_s": round(sum(times) / 1e9, 3), "sessions": len(sessions), **found,
        "p50_ci95": [min(low, found["p50"]), max(high, found["p50"])], "cv": round(found["std"] / found["mean"], 5),
        "drift": round(drift(sessions), 5), "samples_ns": [int(t) for t in itertools.chain(*kept)],
    }  # fmt: skip


def spread(times: Sequence[int]) -> dict[str, float]:
    """Median and percentiles, mean, standard deviation and interquartile range of times in ns; in ms."""
    times = sorted(times)
    mean = statistics.fmean(times)
    return {
        "p50": ms(statistics.median(times)), "p90": ms(percentile(times, 0.9)), "p99": ms(percentile(times, 0.99)),
        "min": ms(times[0]), "mean": ms(mean),
        "std": ms(math.sqrt(statistics.fmean((t - mean) ** 2 for t in times))),
        "iqr": ms(percentile(times, 0.75) - percentile(times, 0.25)),
    }  # fmt: skip


def ms(ns: float) -> float:
    return round(ns / 1e6, 6)


def percentile(ordered: Sequence[int], q: float) -> float:
    """Linear between the two nearest ranks."""
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def thin(times: Sequence[int], most: int) -> Sequence[int]:
    """At most `most` of them, evenly spread over time."""
    if len(times) <= most:
        return times
    return [times[i * len(times) // most] for i in range(most)]


def drift(sessions: Sequence[Sequence[int]]) -> float:
    """Median of the last third over that of the first, less 1; of the session where it is largest."""
    found = [0.0]
    for times in sessions:
        if third := len(times) // 3:
            found.append(statistics.median(times[-third:]) / statistics.median(times[:third]) - 1)
    return max(found, key=abs)


def median_ci(sessions: Sequence[Sequence[int]]) -> tuple[float, float]:
    """95 % interval of the median by bootstrap over blocks of consecutive calls.

    Neighbouring calls are disturbed together (another process, a change of clock); drawing them one
    by one, as if they were independent, would promise too narrow an interval.
    """
    blocks = []
    for times in sessions:
        times = thin(times, MAX_SAMPLES // len(sessions))
        length = max(1, len(times) // BLOCKS)
        blocks += [sorted(times[i : i + length]) for i in range(0, len(times), length)]
    return bootstrap(blocks, lambda drawn: statistics.median(sorted(itertools.chain(*drawn))))


def bootstrap(units: Sequence[T], statistic: Callable[[list[T]], float], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a statistic over units drawn with replacement."""
    rng = random.Random(seed)
    values = sorted(statistic(rng.choices(units, k=len(units))) for _ in range(RESAMPLES))
    return values[round(0.025 * (RESAMPLES - 1))], values[round(0.975 * (RESAMPLES - 1))]
