"""What the machine does around a measurement: clocks, temperature, power, memory, throttling."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from lab.devices.runner.jetson import module_rails, tegrastats, watts_of
from lab.devices.runner.machine import LIVE_BITS, PAST_BITS, Machine
from lab.devices.runner.quiet import Before

SAMPLE_S = 0.2  # of the side channel
COOL_C, COOL_CAP_S, PAUSE_S = 3.0, 300.0, 10.0  # between the sessions of one measurement
BELOW_MAX, SELDOM = 0.97, 0.01  # a fixed clock that is below 97 % of its own in more than 1 % of the looks throttles


class SideChannel:
    """Clocks, temperature, power and memory, sampled by a thread while it is entered and not paused."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        names = ("cpu_mhz", "gpu_mhz", "emc_mhz", "temp_c", "power_w", "free_mb", "throttle_word")
        self.seen: dict[str, list[float]] = {name: [] for name in names}
        self._when: dict[str, list[float]] = {name: [] for name in names}  # monotonic seconds of each of them
        self._lock = threading.Lock()
        self.rail = machine.power_rail()
        self.paused = False
        self._ended = threading.Event()
        self._told: dict[str, float] = {}  # by tegrastats, which knows what only root may read elsewhere
        self._tegrastats: subprocess.Popen | None = None

    def __enter__(self) -> SideChannel:
        self._listen()
        self._sample()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()
        if self._tegrastats:
            self._tegrastats.terminate()
            try:
                self._tegrastats.wait(5)
            except subprocess.TimeoutExpired:
                self._tegrastats.kill()
                self._tegrastats.wait()
            self._listener.join(2.0)
            self._tegrastats.stdout.close()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        if self.paused:
            return
        for name, values in self.seen.items():
            value = getattr(self.machine, name)()
            if (value := self._told.get(name) if value is None else value) is not None:
                with self._lock:
                    values.append(float(value))
                    self._when[name].append(time.monotonic())

    def only_last(self, seconds: float, since: float) -> None:
        """Forget what was seen after `since` but for its last seconds: a process loads and warms up before them."""
        start = time.monotonic() - seconds
        with self._lock:
            for name, values in self.seen.items():
                kept = [(at, v) for at, v in zip(self._when[name], values) if not since <= at < start]
                self._when[name][:], values[:] = [at for at, _ in kept], [v for _, v in kept]

    def _listen(self) -> None:
        """Start tegrastats where it is, and keep the last of what it tells."""
        path = self.machine.command("tegrastats") if self.machine.family == "jetson" else None
        if not path:
            return
        self._tegrastats = subprocess.Popen(
            [path, "--interval", str(round(SAMPLE_S * 1000))], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, errors="replace",
        )  # fmt: skip
        first = threading.Event()
        self._listener = threading.Thread(target=self._hear, args=(first,), daemon=True)
        self._listener.start()
        first.wait(2.0)  # so that the first look already has it

    def _hear(self, first: threading.Event) -> None:
        for line in self._tegrastats.stdout:
            self._told = tegrastats(line)
            self.rail = self.rail or "+".join(module_rails(watts_of(line))) or None
            first.set()
        first.set()

    def summary(self, name: str) -> dict[str, float] | None:
        """min, mean, max; None if the machine does not tell."""
        values, digits = self.seen[name], 3 if name == "power_w" else 1  # less the idle power, little of it is left
        if not values:
            return None
        found = {"min": min(values), "mean": statistics.fmean(values), "max": max(values)}
        return {end: round(value, digits) for end, value in found.items()}

    def below(self, highest: dict[str, float]) -> bool | None:
        """Whether one of these clocks was below its highest more than seldom; None if none is told."""
        shares = [statistics.fmean(v < BELOW_MAX * mhz for v in self.seen[name])
                  for name, mhz in highest.items() if self.seen[name]]  # fmt: skip
        return max(shares) > SELDOM if shares else None


def idle_w(machine: Machine, sleep: Callable[[float], None] = time.sleep) -> float | None:
    """The power that the board draws before any work of ours, over two seconds; None if it does not tell."""
    if machine.power_w() is None and not (machine.family == "jetson" and machine.command("tegrastats")):
        return None
    with SideChannel(machine) as side:
        if side.seen["power_w"]:
            sleep(10 * SAMPLE_S)
    power = side.summary("power_w")
    return power and power["mean"]


class Watch:
    """What the machine does around a measurement: enter it, measure, then ask for `state`."""

    def __init__(self, machine: Machine, before: Before) -> None:
        self.machine, self.before = machine, before
        self.side = SideChannel(machine)
        self.cool, self._throttles = machine.temp_c(), machine.throttles()  # before the warm-up, which heats
        self._word, self._last_words = machine.asked_throttle_word(), []

    def __enter__(self) -> Watch:
        self._busy, self._own, self._began = self.machine.busy_s(), _own_cpu_s(), time.monotonic()
        self.side.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.side.__exit__()
        self._wall = time.monotonic() - self._began
        self._others = None if self._busy is None else (self.machine.busy_s() or self._busy) - self._busy - (
            _own_cpu_s() - self._own)  # fmt: skip

    def cool_down(self, sleep: Callable[[float], None]) -> None:
        self.side.paused = True
        cool_down(self.machine, self.cool, sleep)
        self.side.paused = False

    def session_over(self) -> None:
        """Ask a Raspberry Pi while it is still hot: where sysfs does not tell, nobody looked while it worked."""
        if (word := self.machine.asked_throttle_word()) is not None:
            self._last_words.append(word)

    def throttled(self) -> bool | None:
        """Whether it was slowed down meanwhile; None if the machine has no means to tell.

        A clock that is not fixed falls when there is little to do, too, so that says nothing. Nor does a Raspberry
        Pi's: scaling_cur_freq stays where it was asked to be while the firmware runs slower (raspberrypi/linux#2986).
        """
        counted = None if self._throttles is None else (self.machine.throttles() or 0) > self._throttles
        fixed = self.machine.family == "jetson" and self.machine.clocks_locked() is True
        slow = self.side.below(self.machine.highest_mhz()) if fixed else None
        known = [sign for sign in (counted, slow, self._held_back()) if sign is not None]
        return any(known) if known else None

    def _held_back(self) -> bool | None:
        """Whether a Raspberry Pi's words show that it was throttled meanwhile; None where they leave it open.

        A bit of the past that was set before can't be set again, so only looks all along say no then; one at the end
        of a session can but say yes.
        """
        seen = [int(word) for word in self.side.seen["throttle_word"]]
        before = PAST_BITS if self._word is None else self._word
        words = [*seen, *self._last_words]
        # Each beside the one before it: some kernels clear the past when it is read (raspberrypi/linux#2397).
        if any(word & LIVE_BITS or word & ~last & PAST_BITS for last, word in zip([before, *words], words)):
            return True
        return False if seen or (words and not before & PAST_BITS) else None

    def state(self) -> dict[str, Any]:
        """The `state` part of a report."""
        machine = self.machine
        mode = machine.power_mode()
        cap = re.search(r"(?<![\d.])(\d+(?:\.\d+)?) ?W(?![0-9A-Za-z])", mode or "")
        return {
            "power_mode": mode, "power_cap_w": float(cap[1]) if cap else None, "clocks_locked": machine.clocks_locked(),
            **{name: self.side.summary(name) for name in ("cpu_mhz", "gpu_mhz", "emc_mhz", "temp_c", "power_w")},
            "power_rail": self.side.rail, "swap_mb": _larger(self.before.swap_mb, machine.swap_mb()),
            "load_avg": self.before.load, "top_processes": self.before.busiest, "throttled": self.throttled(),
        }  # fmt: skip

    def flags(self) -> list[str]:
        found = [f"governor={g}" for g in self.machine.governors()]
        if self._others is not None and self._wall > SAMPLE_S:  # the kernel counts in hundredths of a second
            found.append(f"cpus_used_by_others={max(self._others / self._wall, 0):.2f}")
        return found

    def system_mb(self) -> float | None:
        """By how much the machine's free memory fell since before any work of ours."""
        if self.before.free_mb is None or not self.side.seen["free_mb"]:
            return None
        return round(max(self.before.free_mb - min(self.side.seen["free_mb"]), 0.0), 1)


def _own_cpu_s() -> float:
    """CPU seconds of this process and of those that it started and saw end."""
    return sum(os.times()[:4])


def _larger(a: float | None, b: float | None) -> float | None:
    return max((x for x in (a, b) if x is not None), default=None)


def cool_down(machine: Machine, target: float | None, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until the machine is as cool as before the first session, at most COOL_CAP_S."""
    sleep(PAUSE_S)
    waited = PAUSE_S
    while target is not None and waited < COOL_CAP_S and (machine.temp_c() or target) > target + COOL_C:
        sleep(1.0)
        waited += 1.0
