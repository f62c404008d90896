"""Runs of a sweep as processes of this machine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from lab import jobs
from lab.config import Recipe
from lab.results import Run, Store
from lab.sweep.entries import Entry


class Here:
    """Runs as `python -m lab run` processes of this machine; `options` are those of that command."""

    def __init__(self, store: Store, workers: int = 1, options: Sequence[str] = ()) -> None:
        self.store, self.at_once, self.options = store, workers, options
        self.pool = concurrent.futures.ThreadPoolExecutor(workers)  # of threads that wait for a process each
        self.children: dict[subprocess.Popen, list[Run]] = {}
        self.stages: dict[str, threading.Lock] = defaultdict(threading.Lock)  # two entries may share one
        self.stopped, self.lock = False, threading.Lock()

    def submit(self, entry: Entry, stages: Sequence[Recipe]) -> Future[str]:
        runs = [Run(self.store.root / "runs" / stage.id) for stage in stages]
        first = next(stage for stage, run in zip(stages, runs) if run.said().state != "done")
        log = self.store.open(first).path / "process.log"
        return self.pool.submit(self._do, entry.recipe, runs, log)

    def _do(self, recipe: Recipe, runs: Sequence[Run], log: Path) -> str:
        with contextlib.ExitStack() as held, tempfile.TemporaryDirectory(prefix="lab-sweep-") as folder:
            for run in sorted(runs, key=lambda run: run.id):
                held.enter_context(self.stages[run.id])
            file = Path(folder) / "recipe.json"
            file.write_text(recipe.to_json())
            with self.lock:
                if self.stopped:
                    return "stopped before it began"
                begun = time.time()
                child = jobs.process(["run", str(file), *self.options], log, self.store.root.resolve(), "ab")
                self.children[child] = list(runs)
            code = child.wait()
            del self.children[child]
            if not code:
                return ""
            said = [s.error for run in runs if (s := run.said()).state == "failed" and s.heartbeat >= begun]
            return next(iter(said), jobs.tail_of(log, 1)) or f"it ended with code {code} and said nothing"

    def close(self) -> None:
        self.pool.shutdown()

    def progress(self) -> float:
        shares = [[1.0 if run.said().state == "done" else jobs.progress(run).share for run in runs]
                  for runs in list(self.children.values())]  # fmt: skip
        return sum(sum(s) / len(s) for s in shares)

    def stop(self) -> None:
        with self.lock:
            if not self.stopped:
                self.stopped = True
                for child in list(self.children):
                    child.send_signal(signal.SIGINT)  # it saves its state
