"""Two contenders timed in turns, A B B A, so that both meet the same disturbances."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from lab.devices.runner.calls import Clock, once_by_wall, warm_up
from lab.devices.runner.preset import Preset
from lab.devices.runner.summary import MAX_SAMPLES, bootstrap, ms, thin

TURN_S = 0.05  # how long one contender runs before the other has its turn
# Between the two: onnxruntime's threads spin for up to 40 ms after their last work, torch's for 5 to 11 ms, on the
# cores that the next one needs. Its clocks and caches have cooled then, and its own threads sleep.
SETTLE_S, WAKE_S = 0.06, 0.01


@dataclass(frozen=True)
class Comparison:
    """How many times longer `a` takes than `b`, from turns A B B A."""

    ratio: float  # median of a over median of b; above 1: b is faster
    ci95: tuple[float, float]  # by bootstrap over whole rounds, so that a drift common to both cancels
    a_ms: float
    b_ms: float
    rounds: int

    @property
    def faster(self) -> str | None:
        """Which of them, a or b; None while the interval holds 1, for then neither is shown to be faster."""
        if self.ci95[0] <= 1 <= self.ci95[1]:
            return None
        return "b" if self.ci95[0] > 1 else "a"

    def __str__(self) -> str:
        interval = f"a takes {self.ratio:.3f} times as long as b (95 %: {self.ci95[0]:.3f} to {self.ci95[1]:.3f})"
        verdict = f"{self.faster} is faster" if self.faster else "neither is shown to be faster"
        return f"{interval}, {self.a_ms:.3f} against {self.b_ms:.3f} ms, {self.rounds} rounds: {verdict}"


def compare(a: Callable[[], object], b: Callable[[], object], preset: Preset, *,
            around: tuple[AbstractContextManager, AbstractContextManager] = (nullcontext(), nullcontext()),
            clock: Clock = time.perf_counter_ns, sleep: Callable[[float], None] = time.sleep
            ) -> Comparison:  # fmt: skip
    """Time two callables in turns; `around` is entered for the turn of each (a thread count, say).

    Before the other has its turn nothing runs for SETTLE_S, and the first WAKE_S of each turn are not timed, unless a
    single call lasts longer than a turn.
    """
    contenders = [(a, around[0]), (b, around[1])]
    for call, context in contenders:
        with context:
            warm_up(call, preset, clock)
    rounds: list[tuple[list[int], list[int]]] = []
    ran, start = 1, clock()
    # Eight rounds at least: an interval drawn from fewer means little.
    while len(rounds) < 8 or clock() - start < preset.seconds * 1e9 or _fewest(rounds) < preset.iters:
        times: tuple[list[int], list[int]] = ([], [])
        for who in (0, 1, 1, 0):
            if who != ran:
                sleep(SETTLE_S)
            call, context = contenders[(ran := who)]  # bare, it is no syntax before Python 3.10
            with context:
                times[who].extend(_turn(call, preset.iters, clock))
        rounds.append(times)
    few = max(2, MAX_SAMPLES // len(rounds))  # a bootstrap of every single time would take minutes
    low, high = bootstrap([tuple(thin(t, few) for t in r) for r in rounds], _ratio)
    ratio = _ratio(rounds)
    medians = [ms(statistics.median(itertools.chain(*(r[who] for r in rounds)))) for who in (0, 1)]
    return Comparison(ratio, (min(low, ratio), max(high, ratio)), *medians, len(rounds))


def _turn(call: Callable[[], object], most: int, clock: Clock) -> list[int]:
    """The times of one turn of about TURN_S, which starts when the caches no longer hold what the other one left."""
    start, first = clock(), once_by_wall(call, clock)
    if first >= TURN_S * 1e9:
        return [first]
    while clock() - start < WAKE_S * 1e9:
        call()
    start, times = clock(), []
    while not times or (len(times) < most and clock() - start < TURN_S * 1e9):
        times.append(once_by_wall(call, clock))
    return times


def _fewest(rounds: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
    """How many times the contender with fewer of them has."""
    return min(sum(len(r[who]) for r in rounds) for who in (0, 1))


def _ratio(rounds: Sequence[tuple[Sequence[int], Sequence[int]]]) -> float:
    a, b = (statistics.median(itertools.chain(*(r[who] for r in rounds))) for who in (0, 1))
    return a / b
