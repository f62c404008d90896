"""How far a timing can be trusted, by what its report says about its own making."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.config import JSON
from lab.devices.report.times import is_checked

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
