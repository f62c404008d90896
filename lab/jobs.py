"""Runs and other commands as processes: start one, stop one, see how far it is. No torch here.

A job is not kept anywhere of its own: the run's folder says all (status.json, log.jsonl), so any
page or terminal finds it again, also after the one that started it is gone. Of other commands (`begin`),
which take seconds, what they leave behind says that they were done.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.results import Run

HERE = Path(__file__).parent.parent
TAIL_BYTES = 8192  # about 30 lines of a log
RATE_LINES = 10  # logged lines over which a speed is taken
_children: dict[int, subprocess.Popen] = {}
_commands: dict[Path, subprocess.Popen] = {}  # by log, so that every page of this process sees them


@dataclass(frozen=True)
class Progress:
    """How far a run is, by the last lines of its log."""

    step: int
    steps: int
    images: int
    images_per_s: float | None  # over the last ten logged lines; None before two of them
    eta_s: float | None

    @property
    def share(self) -> float:
        return min(1.0, self.step / self.steps) if self.steps else 0.0


def progress(run: Run) -> Progress:
    """Step, speed and time to go; the log is newer than status.json, which is written once a minute."""
    status, rows = run.status(), tail(run.path / "log.jsonl")
    last = rows[-1] if rows else {"step": 0.0, "images": 0.0, "seconds": 0.0}
    step = max(status.step, int(last["step"]))
    images_per_s = eta_s = None
    if len(rows) > 1:
        first = rows[-RATE_LINES:][0]
        steps, seconds = last["step"] - first["step"], last["seconds"] - first["seconds"]
        if steps > 0 and seconds > 0:
            images_per_s = (last["images"] - first["images"]) / seconds
            eta_s = max(0, status.steps - step) * seconds / steps
    return Progress(step, status.steps, int(last["images"]), images_per_s, eta_s)


def tail(path: Path) -> list[dict[str, float]]:
    """The last whole lines of a log that hold step, images and seconds."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    rows = [_row(line) for line in (lines[1:] if size > TAIL_BYTES else lines)]
    return [r for r in rows if r is not None]


def _row(line: bytes) -> dict[str, float] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    wanted = ("step", "images", "seconds")
    if not isinstance(row, Mapping) or not all(isinstance(row.get(k), (int, float)) for k in wanted):
        return None
    return row if all(math.isfinite(row[k]) for k in wanted) else None


# --- the process --------------------------------------------------------------------------------


def on(root: Path, commands: str) -> str:
    """Commands of the lab, one a line, so that they work on this results folder from wherever they are typed."""
    if root.resolve() == (HERE / "results").resolve():
        return commands
    named = f"LAB_RESULTS={shlex.quote(str(root.absolute()))}"
    return "\n".join(f"{named} {line}" if line.startswith("python ") else line for line in commands.split("\n"))


def command(run: Run) -> str:
    """What starts or resumes a run in a terminal, from the repository's folder."""
    return on(run.path.parent.parent, f"python -m lab run {shlex.quote(_shown(run.path / 'recipe.json'))}")


def sample_command(run: Run, name: str = "samples.npz") -> str:
    """What makes a run's file of samples (samples.npz, or samples.png as a picture) where pages and figures look for
    it; what goes on with the run where its weights are not here."""
    if not (run.path / "student.safetensors").exists():
        return command(run)
    out = shlex.quote(_shown(run.path / name))
    return on(run.path.parent.parent, f"python -m lab sample {run.id} --out {out}")


def _shown(path: Path) -> str:
    """A path as seen from the repository's folder."""
    return str(path.relative_to(HERE) if path.is_relative_to(HERE) else path)


def start(run: Run) -> int:
    """Start or resume a run as a process that outlives this one; gives its pid. Its output goes to process.log.

    Raises ValueError if the run is finished or being worked on.
    """
    status = run.status()
    if not status.resumable:
        raise ValueError(
            f"run {run.id} is {status.state}; only one that is queued, stopped, stale or failed can be started"
        )
    child = process(["run", str(run.path.resolve() / "recipe.json")], run.path / "process.log",
                    run.path.resolve().parent.parent, "ab")  # fmt: skip
    _children[child.pid] = child
    return child.pid


def process(words: Sequence[str], log: Path, root: Path, mode: str) -> subprocess.Popen:
    """`python -m lab` with these words on a results folder, its output into a log."""
    with open(log, mode) as out:
        return subprocess.Popen(
            [sys.executable, "-m", "lab", *words], cwd=HERE, env=os.environ | {"LAB_RESULTS": str(root)},
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def begin(words: Sequence[str], log: Path, root: Path) -> None:
    """Start another command of the lab, with a log that names it; no change while one of that log is at work."""
    if working(log):
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    _commands[log] = process(words, log, root.resolve(), "wb")


def working(log: Path) -> bool:
    """Whether the command of this log is at work."""
    return log in _commands and _commands[log].poll() is None


def failed(log: Path) -> str | None:
    """What the command of this log said last, if it ended with an error; None else."""
    if log not in _commands or working(log) or _commands[log].returncode == 0:
        return None
    return tail_of(log, 1) or f"it ended with code {_commands[log].returncode} and said nothing"


def alive(pid: int) -> bool:
    """Whether a process that `start` gave is still there."""
    return pid in _children and _children[pid].poll() is None  # poll also lets an ended child go


def stop(run: Run) -> int:
    """Ask a running run to save its state and end; gives the pid that was asked.

    Raises LookupError if no process on this machine works on it: a pid alone may long belong to another.
    """
    pid = process_of(run)
    if pid is None:
        raise LookupError(f"no process on this machine works on run {run.id}; it is {run.status().state}")
    os.kill(pid, signal.SIGTERM)
    return pid


def process_of(run: Run) -> int | None:
    """The pid that status.json names, if that process holds the run's lock file open; else None."""
    pid = run.said().pid
    if pid <= 1 or pid == os.getpid():
        return None
    lock = run.path / "lock"
    try:
        if Path("/proc/self/fd").is_dir():
            opened = [os.stat(fd.path) for fd in os.scandir(f"/proc/{pid}/fd") if os.path.exists(fd.path)]
            mine = os.stat(lock)
            return pid if any((o.st_ino, o.st_dev) == (mine.st_ino, mine.st_dev) for o in opened) else None
        # No /proc (macOS): lsof lists who has a file open.
        found = subprocess.run(["lsof", "-t", str(lock)], capture_output=True, text=True).stdout.split()
        return pid if str(pid) in found else None
    except OSError:
        return None


def last_words(run: Run, lines: int = 12) -> str:
    """The end of what the process wrote, with progress bars reduced to their last state."""
    return tail_of(run.path / "process.log", lines)


def tail_of(log: Path, lines: int) -> str:
    """The last lines of a log of words; "" where there is none."""
    try:
        text = log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
    said = [line.rstrip().split("\r")[-1] for line in text.split("\n") if line.strip()]
    return "\n".join(said[-lines:])
