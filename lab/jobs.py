"""Runs and other commands as processes: start one, stop one, see how far it is. No torch here.

A job is not kept anywhere of its own: the run's folder says all (status.json, log.jsonl, process.pid), so any
page or terminal finds it again, also after the one that started it is gone; and so of a sweep's files. Of other
commands (`begin`), which take seconds, what they leave behind says that they were done.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.results import Run, log_row, write_whole

HERE = Path(__file__).parent.parent
TAIL_BYTES = 8192  # about 30 lines of a log
RATE_LINES = 10  # logged lines over which a speed is taken
_children: dict[Path, subprocess.Popen] = {}  # by log, so that every page of this process sees them


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
    rows = [log_row(line) for line in (lines[1:] if size > TAIL_BYTES else lines)]
    return [row for row in rows if row is not None and {"step", "images", "seconds"} <= row.keys()]


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


def sweep_command(record: Path) -> str:
    """What goes on with a sweep in a terminal, by its file in results/sweeps."""
    return on(record.parent.parent, f"python -m lab sweep {shlex.quote(_shown(record))}")


def sample_command(run: Run) -> str:
    """What makes a run's samples.npz where pages and figures look for it; what goes on with the run where its weights
    are not here."""
    if not (run.path / "student.safetensors").exists():
        return command(run)
    out = shlex.quote(_shown(run.path / "samples.npz"))
    return on(run.path.parent.parent, f"python -m lab sample {run.id} --out {out}")


def _shown(path: Path) -> str:
    """A path as seen from the repository's folder."""
    return str(path.relative_to(HERE) if path.is_relative_to(HERE) else path)


def start(run: Run) -> int:
    """Start or resume a run as a process that outlives this one; gives its pid. Its output goes to process.log.

    Raises ValueError if the run is finished or being worked on.
    """
    status, pid = run.status(), process_of(run)
    if pid or not status.resumable:
        raise ValueError(
            f"run {run.id} is {f'the work of process {pid}' if pid else status.state}; only one that is queued, "
            "stopped, stale or failed can be started"
        )
    words = ["run", str(run.path.resolve() / "recipe.json")]
    return process(words, run.path / "process.log", run.path.resolve().parent.parent, "ab").pid


def start_sweep(record: Path, workers: int) -> int:
    """Begin or go on with the sweep of a file in results/sweeps, so many runs at a time, as `start` does with a run."""
    if pid := process_of_sweep(record):
        raise ValueError(f"sweep {record.stem} is the work of process {pid}")
    words = ["sweep", str(record.resolve()), "--workers", str(workers)]
    return process(words, record.with_suffix(".log"), record.resolve().parent.parent, "ab").pid


def process(words: Sequence[str], log: Path, root: Path, mode: str) -> subprocess.Popen:
    """`python -m lab` with these words on a results folder, its output into a log; beside that its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, mode) as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "lab", *words], cwd=HERE, env=os.environ | {"LAB_RESULTS": str(root)},
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    write_whole(log.with_suffix(".pid"), str(child.pid))
    _children[log] = child
    return child


def begin(words: Sequence[str], log: Path, root: Path) -> None:
    """Start another command of the lab, with a log that names it; no change while one of that log is at work."""
    if not at_work(log):
        process(words, log, root.resolve(), "wb")


def at_work(log: Path) -> int | None:
    """The pid of the command that writes this log, whoever started it; None once it has ended."""
    if log in _children:
        return _children[log].pid if _children[log].poll() is None else None  # poll also lets an ended child go
    pid = _pid_in(log.with_suffix(".pid"))
    return pid if _holds(pid, log) else None


def failed(log: Path) -> str | None:
    """What the command of this log said last, if this process started it and it ended with an error; None else."""
    if log not in _children or not _children[log].poll():
        return None
    return tail_of(log, 1) or f"it ended with code {_children[log].returncode} and said nothing"


def stop(run: Run) -> int:
    """Ask a run's process to save its state and end; gives the pid that was asked.

    Raises LookupError if no process on this machine works on it: a pid alone may long belong to another.
    """
    return _ask(process_of(run), f"run {run.id}; it is {run.status().state}")


def stop_sweep(record: Path) -> int:
    """Ask a sweep's process to have its runs save their state and to end, as `stop` does."""
    return _ask(process_of_sweep(record), f"sweep {record.stem}")


def _ask(pid: int | None, whose: str) -> int:
    if pid is None:
        raise LookupError(f"no process on this machine works on {whose}")
    os.kill(pid, signal.SIGTERM)
    return pid


def process_of(run: Run) -> int | None:
    """The pid of the process that works on a run, or that was started for it and does not yet; None without one."""
    return _worker(run.said().pid, run.path / "lock", run.path / "process.log")


def process_of_sweep(record: Path) -> int | None:
    """The same of a sweep, by its file in results/sweeps: a sweep writes its pid into its lock."""
    lock = record.with_suffix(".lock")
    return _worker(_pid_in(lock), lock, record.with_suffix(".log"))


def _worker(pid: int, lock: Path, log: Path) -> int | None:
    """The process of this pid if it holds the lock file open; else the log's, which has yet to take the lock.

    One that had the lock and let it go has said how it ended, and is about to.
    """
    if _holds(pid, lock):
        return pid
    loading = at_work(log)
    return loading if loading != pid else None


def _pid_in(file: Path) -> int:
    """The pid that a file holds; 0 for none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _holds(pid: int, file: Path) -> bool:
    """Whether a process, and not this one, has a file open."""
    if pid <= 1 or pid == os.getpid():
        return False
    try:
        if Path("/proc/self/fd").is_dir():
            opened = [os.stat(fd.path) for fd in os.scandir(f"/proc/{pid}/fd") if os.path.exists(fd.path)]
            mine = os.stat(file)
            return any((o.st_ino, o.st_dev) == (mine.st_ino, mine.st_dev) for o in opened)
        # No /proc (macOS): lsof lists who has a file open.
        found = subprocess.run(["lsof", "-t", str(file)], capture_output=True, text=True).stdout.split()
        return str(pid) in found
    except OSError:
        return False


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
