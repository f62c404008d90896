"""Many recipes from one file: a grid, a random choice, a search; here or on a Ray cluster, each done once.

A sweep file is a JSON list of recipes, or of {"recipe": ..., "label": ..., "notes": ...}, or a space:

    {"base": {...}, "axes": {"student.depth": [2, 4], "seed": [0, 1]}, "within": {"params_m": [0.29, 0.31]},
     "iso": {"params_m": [0.1, 0.3], "depths": [2, 4, 8], "heads": [4, 2]},
     "sample": {"n": 20, "seed": 0}     or     "search": {"trials": 40, "seed": 0, "device": "..."}}

All but base may be left out. results/sweeps/<name>.json says what was asked and which runs came of it; whether
a run is done stands in its own folder, so the same sweep started again goes on where it was.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from lab import cost, experiment, jobs
from lab.config import JSON, DiTConfig, Recipe, config_to_json, once, unknown
from lab.devices import predict
from lab.results import ID, Run, Store, now, write_json

POLL_S = 1.0  # how often the bar moves and a signal is looked for
TOLERANCE = 0.03  # of a budget of parameters
USUAL_RATIO = 4  # of the MLP's hidden width to the width
TRIES = 200  # shapes that a sample or a search looks at for each one that it wants


# --- the space ----------------------------------------------------------------------------------


def iso(params: int, depths: Sequence[int], *, heads: int | Sequence[int] = 4, base: DiTConfig | None = None
        ) -> list[DiTConfig]:  # fmt: skip
    """One shape for each depth, with a finished net of `params` parameters to 3 %; a depth where none is, is left out.

    Width D is a multiple of 8 and of the heads, D / heads at least 8, and the MLP's hidden width is a multiple of 8
    from 2 D to 6 D. At each width the hidden width is that nearest the budget; of the widths, that with the hidden
    width nearest 4 D. Of several heads the first that gives a shape is taken.
    """
    several = [heads] if isinstance(heads, int) else heads
    found = [next(filter(None, (_at_depth(params, depth, h, base or DiTConfig()) for h in several)), None)
             for depth in depths]  # fmt: skip
    return [shape for shape in found if shape is not None]


def _at_depth(params: int, depth: int, heads: int, base: DiTConfig) -> DiTConfig | None:
    step, fitting = math.lcm(8, heads), []
    for width in itertools.count(max(step, -(-8 * heads // step) * step), step):
        shapes = [dataclasses.replace(base, depth=depth, width=width, heads=heads, mlp_hidden=hidden)
                  for hidden in range(2 * width, 6 * width + 1, 8)]  # fmt: skip
        counts = [cost.dit_params(shape) for shape in shapes]
        if counts[0] > (1 + TOLERANCE) * params:  # and so is every wider one
            break
        off, shape = min(zip((abs(n - params) / params for n in counts), shapes), key=lambda pair: pair[0])
        if off <= TOLERANCE:
            fitting.append(shape)
    if not fitting:
        return None
    shape = min(fitting, key=lambda s: abs(math.log(s.hidden / s.width / USUAL_RATIO)))
    usual = shape.hidden == USUAL_RATIO * shape.width  # written as by everybody else, for the id
    return dataclasses.replace(shape, mlp_hidden=None) if usual else shape


@dataclass(frozen=True)
class Space:
    """Recipes that differ in some fields; out of budget is known before anything is built.

    An axis is a field of the recipe (`seed`), of its student (`student.depth`) or an option of a method that the base
    uses (`methods.pairs.l1`). A value that is an object changes the fields that it names: {"depth": 4, "width": 40}.
    """

    base: Recipe
    axes: Mapping[str, Sequence[JSON]] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def within(self, **limits: float | Sequence[float]) -> Space:
        """Only shapes with costs in these ranges, in millions: params_m=(0.29, 0.31), macs_m=20 (at most).

        params_deployed_m and macs_deployed_m count the deployed form. Raises ValueError for another name or no range.
        """
        known = ("params_m", "macs_m", "params_deployed_m", "macs_deployed_m")
        found = dict(self.limits)
        for name, given in limits.items():
            if name not in known:
                raise ValueError(unknown("limit", name, known))
            ends = [0.0, given] if isinstance(given, (int, float)) else list(given)
            if len(ends) != 2 or not all(isinstance(e, (int, float)) for e in ends) or not ends[0] <= ends[1]:
                raise ValueError(f"{name} must be the most, or the least and the most, got {given!r}")
            found[name] = tuple(ends)
        return dataclasses.replace(self, limits=found)

    def __len__(self) -> int:
        """Points of the grid, in budget or not."""
        return math.prod(len(values) for values in self.axes.values())

    def point(self, index: int) -> dict[str, JSON]:
        """The index-th point of the grid; the last axis changes fastest."""
        at = {}
        for name, values in reversed(self.axes.items()):
            index, place = divmod(index, len(values))
            at[name] = values[place]
        return {name: at[name] for name in self.axes}

    def recipe(self, at: Mapping[str, JSON]) -> Recipe:
        """The base with the values of a point. Raises ValueError for what is no field."""
        plain = json.loads(self.base.to_json())
        for name, value in at.items():
            _put(plain, name, value)
        return Recipe.from_json(json.dumps(plain))

    def why_not(self, recipe: Recipe) -> str:
        """Why a shape is left out, as a sentence; "" for one that is in."""
        if wrong := recipe.student.check():
            return "; ".join(wrong)
        found = cost.of_config(recipe.student) if self.limits else {}
        for name, (low, high) in self.limits.items():
            millions = found.get(name.removesuffix("_m"), math.nan) / 1e6
            if not low <= millions <= high:
                return f"{name} is {millions:.4g}, wanted is {low:g} to {high:g}"
        return ""

    def grid(self) -> list[Recipe]:
        """Every recipe that is in."""
        return [r for i in range(len(self)) if not self.why_not(r := self.recipe(self.point(i)))]

    def sample(self, n: int, seed: int = 0) -> list[Recipe]:
        """`n` different points that are in, drawn at random; fewer where there are not so many."""
        return [self.recipe(at) for at in self._drawn(n, seed)]

    def _drawn(self, n: int, seed: int) -> list[dict[str, JSON]]:
        order = random.Random(seed).sample(range(len(self)), min(len(self), TRIES * n))
        fits = (at for at in map(self.point, order) if not self.why_not(self.recipe(at)))
        return list(itertools.islice(fits, n))


def _put(plain: dict[str, Any], name: str, value: JSON) -> None:
    """Set a field by its dotted name; an object changes the fields it names."""
    *path, last = name.split(".")
    if path[:1] == ["methods"] and len(path) == 2:
        uses = {use["method"]: use["options"] for use in plain["methods"]}
        if path[1] not in uses:
            raise ValueError(f"axis {name}: {unknown('method of the base', path[1], uses)}")
        place = uses[path[1]]
    elif path in ([], ["student"]):
        place = plain[path[0]] if path else plain
        if last not in place:
            raise ValueError(f"axis {name}: {unknown('field', last, place)}")
    else:
        raise ValueError(f"axis {name} is no field: seed, student.depth and methods.pairs.l1 are such names")
    merges = isinstance(value, Mapping) and isinstance(place.get(last), Mapping)
    merges = merges and value.get("family", place[last].get("family")) == place[last].get("family")
    place[last] = {**place[last], **value} if merges else value


# --- a sweep ------------------------------------------------------------------------------------


@dataclass
class Entry:
    """One recipe of a sweep and how far it is."""

    recipe: Recipe | None  # None: it could not be read
    label: str = ""
    notes: str = ""
    at: Mapping[str, JSON] = field(default_factory=dict)  # its point of the space
    state: str = "queued"  # queued | done | failed | stopped | refused: no run could be made of it
    why: str = ""
    stages: tuple[str, ...] = ()  # ids of the runs that it takes, the last one its own

    @property
    def run(self) -> str:
        return self.stages[-1] if self.stages else ""

    def row(self) -> dict[str, JSON]:
        told = {k: v for k, v in vars(self).items() if k in ("label", "at", "why") and v}
        return {"run": self.run, "state": self.state, "stages": list(self.stages)} | told


@dataclass
class Sweep:
    """What was asked, and the entries that came of it; those of a search come as it goes on."""

    name: str
    asked: JSON
    entries: list[Entry]
    dropped: list[dict[str, JSON]] = field(default_factory=list)  # points out of budget, with the reason
    search: Search | None = None

    @property
    def total(self) -> int:
        return self.search.trials if self.search else len(self.entries)

    def write(self, store: Store) -> None:
        """results/sweeps/<name>.json"""
        value = {"name": self.name, "asked": self.asked, "when": now(), "runs": [e.row() for e in self.entries],
                 "dropped": self.dropped}  # fmt: skip
        if self.search and self.search.study:
            value["front"] = self.search.front()
        write_json(store.root / "sweeps" / f"{self.name}.json", value)


def read(text: str, name: str) -> Sweep:
    """The sweep of a file's text. Raises ValueError for what is no sweep; an entry that is no recipe is kept as such.

    A recipe that can't be read stands among the entries with its reason: one bad one must not stop the others.
    """
    if not ID.fullmatch(name):
        raise ValueError(f"a sweep's name must match {ID.pattern}, got {name!r}")
    try:
        asked = json.loads(text, object_pairs_hook=once)
    except ValueError as error:
        raise ValueError(f"a sweep must be JSON: {error}") from None
    if isinstance(asked, list):
        return Sweep(name, asked, [_entry(plain) for plain in asked])
    if isinstance(asked, dict):
        return _of_space(name, asked)
    raise ValueError(f"a sweep must be a list of recipes, or an object with base and axes; got {type(asked).__name__}")


def _entry(plain: JSON) -> Entry:
    told = plain if isinstance(plain, dict) and "recipe" in plain else {"recipe": plain}
    try:
        if stray := sorted(set(told) - {"recipe", "label", "notes"}):
            raise ValueError(unknown("field of an entry", stray[0], ("recipe", "label", "notes")))
        label, notes = told.get("label", ""), told.get("notes", "")
        if not isinstance(label, str) or not isinstance(notes, str):
            raise ValueError(f"label and notes must be text, got {label!r} and {notes!r}")
        return Entry(Recipe.from_json(json.dumps(told["recipe"])), label, notes)
    except ValueError as error:
        return Entry(None, state="refused", why=str(error))


def _of_space(name: str, asked: Mapping[str, Any]) -> Sweep:
    known = ("base", "axes", "within", "iso", "sample", "search")
    if stray := sorted(set(asked) - set(known)):
        raise ValueError(unknown("field of a sweep", stray[0], known))
    if not all(isinstance(asked.get(k, {}), dict) for k in known) or "base" not in asked:
        raise ValueError(f"{', '.join(known)} of a sweep must be objects, and base be there")
    if "sample" in asked and "search" in asked:
        raise ValueError("a sweep has either sample or search")
    base = Recipe.from_json(json.dumps(asked["base"]))
    space = Space(base, _axes(asked, base)).within(**asked.get("within", {}))
    if not len(space) or not all(isinstance(values, list) for values in space.axes.values()):
        raise ValueError("every axis must be a list of at least one value")
    space.recipe(space.point(0))  # the names of the axes
    if "search" in asked:
        return Sweep(name, asked, [], search=Search(space, name, **_numbers(asked["search"], "search", "trials")))
    if "sample" in asked:
        drawn = space._drawn(**_numbers(asked["sample"], "sample", "n"))
        return Sweep(name, asked, [Entry(space.recipe(at), at=at) for at in drawn])
    sweep = Sweep(name, asked, [])
    for at in map(space.point, range(len(space))):
        try:
            recipe = space.recipe(at)
        except ValueError as error:
            sweep.entries.append(Entry(None, at=at, state="refused", why=str(error)))
            continue
        if why := space.why_not(recipe):
            sweep.dropped.append({"at": at, "why": why})
        else:
            sweep.entries.append(Entry(recipe, at=at))
    return sweep


def _axes(asked: Mapping[str, Any], base: Recipe) -> dict[str, Sequence[JSON]]:
    """The axes of a file; `iso` is one of whole shapes."""
    axes = dict(asked.get("axes", {}))
    if "iso" in asked:
        given = {"heads": [4]} | asked["iso"]
        if set(given) != {"params_m", "depths", "heads"} or not isinstance(base.student, DiTConfig):
            raise ValueError(f"iso must have params_m and depths, may have heads, and shapes a DiT; got {asked['iso']}")
        budgets = given["params_m"] if isinstance(given["params_m"], list) else [given["params_m"]]
        shapes = [s for b in budgets for s in iso(round(b * 1e6), given["depths"], heads=given["heads"],
                                                  base=base.student)]  # fmt: skip
        axes = {"student": [{k: config_to_json(s)[k] for k in ("depth", "width", "heads", "mlp_hidden")}
                            for s in shapes]} | axes  # fmt: skip
    return axes


def _numbers(given: Mapping[str, JSON], where: str, count: str) -> dict[str, Any]:
    known = (count, "seed", *(["device"] if where == "search" else []))
    if stray := sorted(set(given) - set(known)):
        raise ValueError(unknown(f"field of {where}", stray[0], known))
    if any(type(given.get(k, 0)) is not int for k in (count, "seed")) or given.get(count, 0) < 1:
        raise ValueError(f"{where} needs {count}, a whole number of at least 1, and its seed is one; got {given}")
    return dict(given)


def stages_of(recipe: Recipe, store: Store) -> list[Recipe]:
    """The resolved runs that a recipe takes, in order. Raises ValueError or LookupError where it can't be."""
    return [getattr(job, "recipe", job) for job in experiment.plan(recipe, store)]


# --- a search -----------------------------------------------------------------------------------


class Search:
    """An Optuna study over a space for three things at once: distance, deployed parameters and latency, all small.

    Latency is what a device's card says (lab/devices/predict.py), or the MACs where no device is named. The study lies
    in results/sweeps/<name>.journal and goes on from there; a changed space begins another one in the same file.
    """

    def __init__(self, space: Space, name: str, *, trials: int, seed: int = 0, device: str | None = None) -> None:
        self.space, self.name, self.trials, self.seed, self.device = space, name, trials, seed, device
        self.study: Any = None
        self.runs: dict[int, str] = {}  # trial -> run

    def open(self, root: Path) -> int:
        """Begin or go on; gives how many trials are behind it."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.trial import TrialState

        if self.device:
            predict.card_of(self.device, root)
        (root / "sweeps").mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        plain = json.dumps([self.space.base.to_json(), dict(self.space.axes), self.device])
        title = f"{self.name}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"
        storage = JournalStorage(JournalFileBackend(str(root / "sweeps" / f"{self.name}.journal")))
        before = {s.study_name: s.n_trials for s in optuna.get_all_study_summaries(storage)}
        self.study = optuna.create_study(
            storage=storage, study_name=title, directions=["minimize"] * 3, load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=self.seed + before.get(title, 0), constant_liar=True),
        )  # fmt: skip
        for trial in self.study.get_trials(states=[TrialState.RUNNING]):  # when it was stopped
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.params)
        past = [t for t in self.study.get_trials(deepcopy=False) if "run" in t.user_attrs]
        self.runs = {t.number: t.user_attrs["run"] for t in past}
        return len(past)

    def entries(self, left: int) -> Iterator[tuple[Any, Entry]]:
        """The next points that are in budget, each asked for when it is wanted."""
        from optuna.distributions import CategoricalDistribution
        from optuna.trial import TrialState

        kinds = {name: CategoricalDistribution([json.dumps(v) for v in values])
                 for name, values in self.space.axes.items()}  # fmt: skip
        for _ in range(TRIES * left):
            if left <= 0:
                return
            trial = self.study.ask(kinds)
            at = {name: json.loads(text) for name, text in trial.params.items()}
            if self.space.why_not(recipe := self.space.recipe(at)):
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            left -= 1
            yield trial, Entry(recipe, at=at)

    def tell(self, trial: Any, entry: Entry, store: Store) -> None:
        """What came of a trial. One that was stopped is left open, and asked for again."""
        from optuna.trial import TrialState

        if entry.state == "stopped":
            return
        trial.set_user_attr("run", entry.run)
        self.runs[trial.number] = entry.run
        values = self.values(store.root, entry)
        if values is None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, values)

    def values(self, root: Path, entry: Entry) -> tuple[float, float, float] | None:
        """(distance, deployed parameters, ms or MACs); None where the run has no distance."""
        metrics = Run(root / "runs" / entry.run).read("metrics") if entry.state == "done" else None
        if not isinstance(metrics, dict) or "fd" not in metrics["values"]:
            return None
        config = entry.recipe.student
        found = cost.of_config(config)
        latency = float(found.get("macs_deployed", found["macs"]))
        if self.device and predict.is_predictable(config):
            latency = predict.estimate(predict.card_of(self.device, root), config).p50
        return metrics["values"]["fd"]["value"], float(found.get("params_deployed", found["params"])), latency

    def front(self) -> list[str]:
        """The runs that no other one beats in all three."""
        return sorted({self.runs[t.number] for t in self.study.best_trials if t.number in self.runs})


# --- doing it -----------------------------------------------------------------------------------


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
    planned one by one as their turn comes, so with one worker an entry may name the run of an earlier one.
    """
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

    with _stoppable() as stopping, _bar(sweep.total, done_before) as bar:
        sweep.write(store)
        while True:
            while len(waiting) < place.at_once and not stopping.is_set() and (item := next(queue, None)):
                if future := _begin(item[1], store, place):
                    waiting[future] = item
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
    if told:
        run.set_notes(**told)


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


# --- here ---------------------------------------------------------------------------------------


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
