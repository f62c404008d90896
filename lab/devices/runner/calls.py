"""Times every single call of a callable, after a warm-up, with the state of the machine meanwhile."""

from __future__ import annotations

import gc
import statistics
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.devices.runner.machine import HERE, Machine
from lab.devices.runner.preset import Preset
from lab.devices.runner.quiet import Before
from lab.devices.runner.summary import spread, summary
from lab.devices.runner.watch import Watch

WINDOW, AGREE = 20, 0.02  # warm when the medians of two windows of calls differ by at most 2 %

Clock = Callable[[], int]  # nanoseconds
Once = Callable[[Callable[[], object], Clock], int]  # makes one call and gives its time in ns


@dataclass
class Timed:
    """What `time_calls` found: the parts `timing` and `state` of a report, and remarks for its flags."""

    timing: dict[str, Any]
    state: dict[str, Any]
    flags: list[str] = field(default_factory=list)
    system_mb: float | None = None  # by how much the machine's free memory fell


class CudaEvents:
    """Times calls by the GPU's own clock, with two events around their work, and by the host's beside it.

    Such a call only starts work: what is timed ends when the GPU has done it. An event tells time to half a
    microsecond.
    """

    def __init__(self, torch: Any, device: Any) -> None:
        self._start, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._stream = torch.cuda.current_stream(device)
        self.wall = array("q")  # the host's time of every call, in ns

    def once(self, call: Callable[[], object], clock: Clock) -> int:
        """The GPU's time of a call, in ns; it stands in the place of `once_by_wall`."""
        start = clock()
        self._start.record(self._stream)
        call()
        self._end.record(self._stream)
        self._end.synchronize()
        self.wall.append(max(clock() - start, 1))
        return max(round(self._start.elapsed_time(self._end) * 1e6), 1)


def time_calls(call: Callable[[], object], preset: Preset, before: Before, *, events: CudaEvents | None = None,
               machine: Machine = HERE, clock: Clock = time.perf_counter_ns,
               sleep: Callable[[float], None] = time.sleep) -> Timed:  # fmt: skip
    """Warm up and time a callable that returns only when its work is done.

    With `events` it only starts work on their GPU: the figures are then the GPU's, and `wall` has the host's.
    """
    watch, once = Watch(machine, before), events.once if events else once_by_wall
    warmup_iters, converged = warm_up(call, preset, clock, once)
    sessions: list[Sequence[int]] = []
    with watch:
        for session in range(preset.sessions):
            if session:
                watch.cool_down(sleep)
            sessions.append(sample(call, preset, clock, once))
            watch.session_over()
    timing = {"unit": "ms", "clock": "wall_sync", "warmup_iters": warmup_iters, "warmup_converged": converged}
    timing |= summary(sessions)
    if events:
        wall = events.wall[-timing["iters"] :]
        timing |= {"clock": "cuda_event", "duration_s": round(sum(wall) / 1e9, 3), "wall": spread(wall)}
    return Timed(timing, watch.state(), watch.flags(), watch.system_mb())


def once_by_wall(call: Callable[[], object], clock: Clock) -> int:
    start = clock()
    call()
    return max(clock() - start, 1)


def warm_up(call: Callable[[], object], preset: Preset, clock: Clock = time.perf_counter_ns, once: Once = once_by_wall
            ) -> tuple[int, bool]:  # fmt: skip
    """(calls made, whether the last two windows agreed before the cap)."""
    times: list[int] = []
    start = clock()
    while True:
        times.append(once(call, clock))
        elapsed = (clock() - start) / 1e9
        if len(times) >= preset.warmup_iters and elapsed >= preset.warmup_s and _steady(times):
            return len(times), True
        if elapsed >= preset.warmup_cap_s:
            return len(times), False


def _steady(times: list[int]) -> bool:
    if len(times) < 2 * WINDOW:
        return False
    last, previous = statistics.median(times[-WINDOW:]), statistics.median(times[-2 * WINDOW : -WINDOW])
    return abs(last / previous - 1) <= AGREE


def sample(call: Callable[[], object], preset: Preset, clock: Clock = time.perf_counter_ns, once: Once = once_by_wall
           ) -> array:  # fmt: skip
    """The time of every call of one session, in ns; the garbage collector waits, as in timeit."""
    times, limit = array("q"), int(preset.seconds * 1e9)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = clock()
        while len(times) < preset.iters or clock() - start < limit:
            times.append(once(call, clock))
    finally:
        if collecting:
            gc.enable()
    return times
