"""Doing a sweep: its entries in turn wherever there is room, each once; a signal stops it in order."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from tqdm import tqdm

from lab import experiment, locks
from lab.config import Recipe
from lab.results import Busy, Run, Store
from lab.sweep.entries import Entry, Sweep
from lab.sweep.file import check_record

POLL_S = 1.0  # how often the bar moves and a signal is looked for


class Place(Protocol):
    """Where runs are done."""

    at_once: int  # how many entries it is given at a time

    def submit(self, entry: Entry, stages: Sequence[Recipe]) -> Future[str]:
        """Do an entry's unfinished runs; the future gives "" or what went wrong."""
        ...

    def progress(self) -> float:
        """How much of the entries at work is done, one for each."""
        ...

    def stop(self) -> None:
        """Have everything at work end soon, in order."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


def carry_out(sweep: Sweep, store: Store, place: Place, *, ended: Callable[[Entry], object] = lambda entry: None
              ) -> bool:  # fmt: skip
    """Do what is left of a sweep; gives False if it was stopped by SIGINT or SIGTERM, the runs at work in order.

    An entry whose runs are all done is skipped; one that fails is told in its row and stops no other. Entries are
    planned one by one as their turn comes, so with one worker an entry may name the run of an earlier one. Raises Busy
    if another process does this sweep, ValueError where the record of its name is another file's or can't be read.
    """
    check_record(sweep, store)
    done_before = sweep.search.open(store.root) if sweep.search else 0
    waiting: dict[Future[str], tuple[Any, Entry]] = {}
    queue = sweep.search.entries(sweep.total - done_before) if sweep.search else ((None, e) for e in sweep.entries)
    count = done_before

    def end(trial: Any, entry: Entry) -> None:
        nonlocal count
        count += 1
        if trial is not None:
            sweep.search.tell(trial, entry, store)
            sweep.entries.append(entry)
        sweep.write(store)
        ended(entry)

    with _alone(sweep, store), _stoppable() as stopping, _bar(sweep.total, done_before) as bar:
        sweep.write(store)
        while True:
            while len(waiting) < place.at_once and not stopping.is_set() and (item := next(queue, None)):
                if future := _begin(item[1], store, place):
                    waiting[future] = item
                    sweep.write(store)  # its runs are known now
                else:
                    bar.initial += 1  # took no time
                    end(*item)
            if not waiting:
                break
            if stopping.is_set():
                place.stop()
            for future in concurrent.futures.wait(waiting, POLL_S, concurrent.futures.FIRST_COMPLETED).done:
                trial, entry = waiting.pop(future)
                _conclude(entry, store, future, stopped=stopping.is_set())
                end(trial, entry)
            bar.n = count + place.progress()
            bar.update(0)
        sweep.write(store)
        return not stopping.is_set()


def _begin(entry: Entry, store: Store, place: Place) -> Future[str] | None:
    """The future of an entry's work; None if there is none to do, which its state says."""
    if entry.recipe is None:
        return None
    try:
        stages = stages_of(entry.recipe, store)
    except (ValueError, LookupError) as error:
        entry.state, entry.why = "refused", str(error)
        return None
    entry.stages = tuple(stage.id for stage in stages)
    if all(is_done(store, name) for name in entry.stages):
        entry.state = "done"
        _annotate(entry, store)
        return None
    return place.submit(entry, stages)


def is_done(store: Store, name: str) -> bool:
    return Run(store.root / "runs" / name).said().state == "done"


def _conclude(entry: Entry, store: Store, future: Future[str], *, stopped: bool) -> None:
    """What became of an entry, by its runs' folders."""
    why = repr(error) if (error := future.exception()) else future.result()
    status = Run(store.root / "runs" / entry.run).status()
    entry.why = status.error if status.state == "done" else why or status.error
    entry.state = "done" if status.state == "done" else "stopped" if stopped else "failed"
    if entry.state == "done":
        _annotate(entry, store)


def _annotate(entry: Entry, store: Store) -> None:
    """Label and notes of the file into notes.json, where nobody has written any since."""
    run = Run(store.root / "runs" / entry.run)
    before = run.notes
    told = {k: v for k in ("label", "notes") if (v := getattr(entry, k)) and not before[k]}
    try:
        if told:
            run.set_notes(**told)
    except ValueError as error:  # notes that can't be read
        entry.why = str(error)


@contextlib.contextmanager
def _alone(sweep: Sweep, store: Store) -> Iterator[None]:
    """Hold the sweep's lock, in which stands who does."""
    path = store.root / "sweeps" / f"{sweep.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as lock:
        try:
            locks.take(lock)
        except BlockingIOError:
            raise Busy(
                f"sweep {sweep.name} is the work of process {path.read_text()}; wait for it or stop it"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextlib.contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set the event; a second one interrupts."""
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def act(*_: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    old = {s: signal.signal(s, act) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


def _bar(total: int, done: int) -> tqdm:
    """Counts runs, those at work by the part that is done; time left by the mean of this sitting."""
    every = 1 if sys.stderr.isatty() else 60  # a log need not be told each second
    shown = "{desc} {n:.1f}/{total} {percentage:3.0f}%|{bar:20}| {elapsed}, {remaining} left"
    return tqdm(total=total, initial=done, desc="runs", smoothing=0, miniters=0, mininterval=every, bar_format=shown)


def stages_of(recipe: Recipe, store: Store) -> list[Recipe]:
    """The resolved runs that a recipe takes, in order. Raises ValueError or LookupError where it can't be."""
    return [getattr(job, "recipe", job) for job in experiment.plan(recipe, store)]
