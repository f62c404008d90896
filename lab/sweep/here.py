"""Runs of a sweep as processes of this machine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from tqdm import tqdm

from lab import jobs
from lab.config import Recipe
from lab.results import Run, Store
from lab.sweep.entries import Entry

LOOK_S = 1.0  # between two looks at a run that another process does


class Here:
    """Runs as `python -m lab run` processes of this machine; `options` are those of that command."""

    def __init__(self, store: Store, workers: int = 1, options: Sequence[str] = ()) -> None:
        self.store, self.at_once, self.options = store, workers, options
        self.pool = concurrent.futures.ThreadPoolExecutor(workers)  # of threads that wait for a process each
        self.children: dict[subprocess.Popen, list[Run]] = {}
        self.stages: dict[str, threading.Lock] = defaultdict(threading.Lock)  # two entries may share one
        self.stopped, self.lock = False, threading.Lock()
        self.told: set[str] = set()  # runs of other processes for which it has said that it waits

    def submit(self, entry: Entry, stages: Sequence[Recipe]) -> Future[str]:
        runs = [Run(self.store.root / "runs" / stage.id) for stage in stages]
        first = next(stage for stage, run in zip(stages, runs) if run.said().state != "done")
        log = self.store.open(first).path / "process.log"
        return self.pool.submit(self._do, entry.recipe, runs, log)

    def _do(self, recipe: Recipe, runs: Sequence[Run], log: Path) -> str:
        with contextlib.ExitStack() as held, tempfile.TemporaryDirectory(prefix="lab-sweep-") as folder:
            for run in sorted(runs, key=lambda run: run.id):
                held.enter_context(self.stages[run.id])
            self._wait_for(runs)
            if all(run.said().state == "done" for run in runs):
                return ""
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

    def _wait_for(self, runs: Sequence[Run]) -> None:
        """A sweep that was killed leaves the process of its run at work: that one is to come to its end first."""
        while not self.stopped and (busy := [run for run in runs if run.status().state == "running"]):
            if busy[0].id not in self.told:
                self.told.add(busy[0].id)
                tqdm.write(f"lab sweep: run {busy[0].id} is the work of process {busy[0].said().pid}; waiting for it",
                           sys.stderr)  # fmt: skip
            time.sleep(LOOK_S)

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
