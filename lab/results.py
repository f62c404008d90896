"""The results folder: runs as plain files, written whole or not at all. No torch here.

results/runs/<id>/   recipe.json  status.json  env.json  log.jsonl  student.safetensors  student.json
                     cost.json  metrics.json  samples.npz  samples.png  snapshots/*.png
                     neighbours.json  neighbours.png
                     at-<images>.safetensors  notes.json            while it trains: state.pt  lock
results/teachers.json            alias -> run id
results/pairs/<id>/              pairs.json and shards (the shards stay out of git)
results/sweeps/<name>.json       what a sweep was asked for, and its runs
results/devices/<report>.json    every timing, made here or on a board
results/devices/blocks/*.json    where a student's time goes, part by part, beside what the machine allows

Every JSON file is held to its definition in results.v1.json when it is read (a recipe to lab.config, a device report
to its own schema). What does not hold is as if it were not there, makes its run unreadable if it is one of those that
the table is made of, and is named by `Store.faults`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import marshal
import math
import os
import platform
import re
import sys
import threading
import time
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from lab import locks, schema
from lab.config import (
    JSON,
    Loose,
    NetConfig,
    Recipe,
    check_fields,
    config_from_json,
    config_to_json,
    parse_json,
    unknown,
)
from lab.counts import of_dit
from lab.places import at_home, default_root

HEARTBEAT_S = 10
STALE_S = 60
# what numpy raises for a file of arrays that is not there, empty, cut off or spoilt
UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, SyntaxError,
              TypeError, MemoryError, tokenize.TokenError)  # fmt: skip
GLANCE_S = 0.2  # a reader of the status holds a lock for microseconds: who wants it tries for so long
_status_lock = threading.Lock()  # the heart beats in a thread of its own
ID = re.compile(r"[a-z0-9][a-z0-9+_-]{0,127}")
SCHEMA_FILE = Path(__file__).parent / "results.v1.json"
BLOCKS_SCHEMA = "device_blocks.v1"
# Columns that a network's configuration has of its own; what else tells networks apart is in the column `net`.
NET = ("family", "patch", "depth", "width", "heads", "mlp_hidden", "num_classes")
RESHAPED = frozenset({"depth", "block", "adaln_norm"})  # of it, what a method may have changed; a depth gets less alone
OBJECTIVES = ("pairs", "denoise", "progressive")  # with the main loss; lab.methods has them too, but needs torch
PLAIN = ("pairs", "denoise")  # that a student is trained by where nothing is said: "plain" by itself
METRIC_NAMES = ("fd", "kid", "precision", "recall", "class_accuracy", "fd_teacher", "teacher_l1", "teacher_perceptual")
# What `Store.table()` always has, in this order: column -> dtype. Text is "" and a flag False where nothing is known.
TABLE = {
    name: dtype
    for dtype, names in (
        ("str", "run label data"), ("object", "classes"), ("str", "teacher guide solver sampler"), ("float64", "pairs"),
        ("object", "start"), ("float64", "steps batch images"), ("str", "optimizer"), ("float64", "lr"),
        ("object", "betas"), ("float64", "warmup"), ("str", "schedule"), ("float64", "clip ema"), ("str", "dtype"),
        ("object", "keep"), ("float64", "seed"), ("str", "family"), ("bool", "time"),
        ("float64", "patch depth width heads mlp_hidden num_classes"),
        ("str", "net shape method method_short options role"),
        ("object", "aliases"), ("str", "state"), ("float64", "step train_seconds"), ("str", "error notes"),
        ("bool", "pin hide"), ("float64", "params params_train macs evaluations macs_image file_mb params_deployed"),
        ("float64", "macs_deployed file_mb_deployed"), ("str", "weights_sha256 weights_dtype extractor"),
        ("float64", "samples eval_seed"),
        *(pair for metric in METRIC_NAMES
          for pair in (("float64", f"{metric} {metric}_low {metric}_high"), ("str", f"{metric}_reference"))),
    )
    for name in names.split()
}  # fmt: skip
# What a row of `Store.table()` is made of, beside the recipe; and the other JSON files of a run.
_ROW_FILES = ("status", "notes", "cost", "student", "metrics")
_MORE_FILES = ("env", "neighbours")
_KINDS = {"teachers.json": "teachers", "pairs/*/pairs.json": "pairs", "devices/blocks/*.json": "blocks",
          "sweeps/*.json": "sweep"}  # fmt: skip
_KEPT_ROWS = 2**15  # of runs, and of reports: a few KB each
# Of artefact.json: how far the images of a file are from those of the network that it was made of, and by what.
_DISTANCES = ("images", "max_abs", "mean_abs", "perceptual", "perceptual_by")


def methods_of(recipe: Recipe) -> str:
    """All methods in their order, e.g. `pairs+teaching_assistant`."""
    return "+".join(use.method for use in recipe.methods)


def short_name(shape: str, methods: str, run_id: str) -> str:
    """What a run without a label is called: no other is called so."""
    return f"{shape} {methods} {run_id[-8:]}"


class Busy(RuntimeError):
    """Another process works on this run."""


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_whole(path: Path, content: bytes | str) -> None:
    """Replace a file in one move, so that a reader or a crash, of the machine too, never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(part, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # else the name may be on the disk before what it names
        os.replace(part, path)
    except BaseException:  # a full disk
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: JSON) -> None:
    write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, parse: Callable[[str], JSON] = parse_json) -> JSON:
    """The file's content, or None where there is no such file or it is not JSON."""
    return _read(path, parse)[0]


def _read(path: Path, parse: Callable[[str], JSON] = parse_json) -> tuple[JSON, str | None]:
    """The file's content, and why it can't be read as a clause; None and None where there is no such file."""
    try:
        return parse(path.read_text()), None
    except Loose as error:
        return None, str(error)
    except OSError as error:
        return None, f"it can't be opened ({error.strerror})" if path.exists() else None
    except (ValueError, RecursionError):
        return None, "it is no JSON object" if path.exists() else None


@functools.cache
def files_schema() -> dict[str, JSON]:
    """results.v1.json: a definition for each kind of file."""
    return json.loads(SCHEMA_FILE.read_text())


def look(path: Path, kind: str) -> tuple[dict[str, JSON] | None, str | None]:
    """The object in a file of a kind of results.v1.json, and what is wrong with it as a clause: one of them is None.

    Both are where there is no such file.
    """
    plain, wrong = _read(path)
    if wrong or (plain is None and not path.exists()):
        return None, wrong
    wrong = schema.fault(plain, files_schema()["$defs"][kind], files_schema())
    if wrong is None and kind in ("student", "artefact"):
        wrong = next(_shape_faults(plain["config"], plain["spec"]), None)
    if wrong is None and kind == "metrics":
        wrong = next(_interval_faults(plain), None)
    return (None, wrong) if wrong else (plain, None)


def _shape_faults(plain: Mapping[str, JSON], spec: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the network that a file is of, and with what it says of its images."""
    try:
        config = config_from_json(plain)
    except ValueError as error:
        yield f"config: {error}"
        return
    yield from (f"config: {wrong}" for wrong in config.check())
    if (spec["size"], spec["channels"]) != (config.image_size, config.channels):
        yield f"spec is of {spec['channels']}x{spec['size']}x{spec['size']} images, and config of others"
    if (named := len(spec["class_names"])) not in (0, spec["num_classes"]):
        yield f"spec.class_names has {named} names for {spec['num_classes']} classes"


def _interval_faults(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Which values of a run, and of the checkpoints it kept, lie outside their own intervals."""
    kept = {f"checkpoints.{seen}": values for seen, values in metrics.get("checkpoints", {}).items()}
    for place, values in {"values": metrics["values"], **kept}.items():
        for name, found in values.items():
            low, high = found.get("ci95") or (-math.inf, math.inf)
            if not low <= found["value"] <= high:
                yield f"{place}.{schema.shown(name)[1:-1]} is {found['value']}, outside its ci95 of {low} to {high}"


def read_to_change(path: Path, kind: str) -> dict[str, JSON]:
    """The object in a file that is to be written again, {} where there is no file.

    Raises ValueError for a file that can't be read: to write over it would lose what it held.
    """
    found, wrong = look(path, kind)
    if wrong:
        raise ValueError(f"{path} can't be read, {wrong}; mend it or move it away")
    return found or {}


@dataclass(frozen=True)
class Status:
    """Where a run stands."""

    state: str = "queued"  # queued | running | stopped | done | failed; `stale` is read, never written
    step: int = 0
    steps: int = 0
    started: str = ""
    heartbeat: float = 0.0  # seconds since 1970
    seconds: float = 0.0  # of work, over all sittings
    pid: int = 0
    error: str = ""

    @classmethod
    def of(cls, plain: Mapping[str, JSON] | None) -> Status:
        """What a status.json says."""
        return cls(**{f.name: plain[f.name] for f in dataclasses.fields(cls) if plain and f.name in plain})

    @property
    def resumable(self) -> bool:
        return self.state in ("queued", "stale", "stopped", "failed")


class Run:
    """A folder under results/runs; keeps no state of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    def __repr__(self) -> str:
        return f"Run({self.id})"

    @property
    def recipe(self) -> Recipe:
        return Recipe.read(self.path / "recipe.json")

    @property
    def config(self) -> NetConfig:
        """The network that the run ships, which a method may have cut from the one it trained (student.json).

        Before there are weights: the one that the recipe asks for.
        """
        found = self.read("student")
        return config_from_json(found["config"]) if found else self.recipe.student

    @property
    def facts(self) -> dict[str, JSON]:
        """What the methods found while training (the depths that a search kept, bits of the weights); {} for none."""
        return (self.read("student") or {}).get("facts", {})

    def read(self, name: str) -> dict[str, JSON] | None:
        """metrics, cost, env, student, notes, status, neighbours; None while there is none that holds (`faults`).

        `metrics-<extractor>` is what a second extractor measured.
        """
        return look(self.path / f"{name}.json", name.partition("-")[0])[0]

    def own_metrics(self) -> dict[str, JSON] | None:
        """metrics.json where it is of the weights that the run ships; of other ones they say nothing of it (`faults`).

        A run whose weights are not here keeps what was measured of it.
        """
        found, student = self.read("metrics"), self.read("student")
        return None if _of_others(found, student) else found

    @property
    def readable(self) -> bool:
        """Whether its recipe can be read, without which nothing can be done with it."""
        with contextlib.suppress(ValueError, OSError):
            return self.recipe is not None
        return False

    def fault(self) -> str | None:
        """What makes the run unreadable: the first file of its row that does not hold, and why; None if all do."""
        row = marshal.loads(_row_of_files(*_stamped(self)))
        return row["error"] if row["state"] == "unreadable" else None

    def faults(self) -> dict[str, str]:
        """Every file of the run that does not hold, those of exported artefacts too -> what is wrong with it."""
        rest = _MORE_FILES if self.fault() is None else (*_ROW_FILES, *_MORE_FILES)
        found = {f"{name}.json": _fault_of(self.path / f"{name}.json", name) for name in rest}
        found |= {p.name: _fault_of(p, "metrics") or _weights_fault(p) for p in self.path.glob("metrics*.json")}
        found |= {f"export/{p.parent.name}/{p.name}": _fault_of(p, "artefact") for p in self._artefact_files()}
        if wrong := self.fault():
            name = next((f"{name}.json" for name in _ROW_FILES if wrong.startswith(f"{name}.json: ")), "recipe.json")
            found[name] = wrong.removeprefix(f"{self.path}/").removeprefix(f"{name}: ")
        return {name: wrong for name, wrong in found.items() if wrong}

    def write(self, name: str, value: JSON) -> None:
        write_json(self.path / f"{name}.json", value)

    # --- status ---

    def status(self) -> Status:
        """Where it stands; a run that is said to be running and is not reads as stale.

        A killed process has let go of the lock, which this machine sees at once. Where the process is another
        machine's, or the file system has no locks, only the heart tells, after STALE_S.
        """
        status = self.said()
        if status.state != "running":
            return status
        if self._abandoned():
            status = self.said()  # it may have ended meanwhile, in good order
            return dataclasses.replace(status, state="stale") if status.state == "running" else status
        silent = time.time() - status.heartbeat > STALE_S
        return dataclasses.replace(status, state="stale") if silent else status

    def said(self) -> Status:
        """What status.json says, true or not."""
        return Status.of(self.read("status"))

    def _abandoned(self) -> bool:
        """Whether this machine made the lock and no process holds it."""
        try:
            with open(self.path / "lock", errors="replace") as lock:
                if lock.read().strip() not in ("", platform.node()):  # synchronised from another machine
                    return False
                return locks.take(lock, shared=True)
        except OSError:  # held, or never made
            return False

    def set_status(self, **changes: JSON) -> None:
        with _status_lock:
            self._write_status(changes)

    def _write_status(self, changes: Mapping[str, JSON]) -> None:
        known = asdict(Status()) | (self.read("status") or {})
        self.write("status", known | dict(changes) | {"heartbeat": time.time(), "pid": os.getpid()})

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Hold the run's lock and let its heart beat; raises Busy if another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "lock", "a+") as lock:
            if not self._take(lock):
                warnings.warn(f"{self.path} is on a file system without locks: see to it that no other process works "
                              f"on run {self.id}", stacklevel=3)  # fmt: skip
            lock.truncate(0)
            lock.write(platform.node())
            lock.flush()
            ended = threading.Event()
            thread = threading.Thread(target=self._beat, args=(ended,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()

    def _take(self, lock: TextIO) -> bool:
        until = time.monotonic() + GLANCE_S
        while True:
            try:
                return locks.take(lock)
            except BlockingIOError:
                if time.monotonic() > until:
                    pid = self.said().pid
                    raise Busy(f"run {self.id} is being worked on by process {pid}; wait for it or stop it") from None
            time.sleep(GLANCE_S / 10)

    def _beat(self, ended: threading.Event) -> None:
        # A thread, because a first compile may last longer than STALE_S.
        while not ended.wait(HEARTBEAT_S):
            with _status_lock:
                if self.said().state == "running":
                    self._write_status({})

    # --- log ---

    def log(self, **values: float) -> None:
        """Append one line to log.jsonl."""
        with open(self.path / "log.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")

    def log_rows(self) -> list[dict[str, float]]:
        """The lines of log.jsonl; those that can't be read are left out."""
        return self.read_log()[0]

    def read_log(self) -> tuple[list[dict[str, float]], int]:
        """The lines of log.jsonl, and how many of them are no numbers by name: a crash or a disk spoiled them."""
        rows, wrong, content = [], 0, b""
        with contextlib.suppress(OSError):
            content = (self.path / "log.jsonl").read_bytes()
        for line in content.splitlines():
            row = log_row(line)
            rows += [row] if row is not None else []
            wrong += row is None
        return rows, wrong

    def rewind_log(self, step: int) -> None:
        """Forget the lines after `step`: the resumed run will write them again."""
        rows, wrong = self.read_log()
        if wrong:
            warnings.warn(f"{wrong} lines of {self.path / 'log.jsonl'} can't be read and are left out", stacklevel=2)
        kept = [json.dumps(r) + "\n" for r in rows if r.get("step", 0) <= step]
        write_whole(self.path / "log.jsonl", "".join(kept))

    # --- what a person says about it ---

    @property
    def notes(self) -> dict[str, JSON]:
        """label, notes, pin, hide; kept where no hash sees them."""
        return {"label": "", "notes": "", "pin": False, "hide": False} | (self.read("notes") or {})

    def set_notes(self, **changes: JSON) -> None:
        """Change some of them. Raises ValueError for a notes.json that can't be read."""
        self.write("notes", self.notes | read_to_change(self.path / "notes.json", "notes") | changes)

    @property
    def label(self) -> str:
        """What a person calls it, else its shape, methods and hash, e.g. `d4w64h4p4 pairs 9bffdd2f`."""
        named_by = ("notes", "recipe", "student")
        return _label_of_files(str(self.path), tuple(stamp(f"{self.path}/{name}.json") for name in named_by))

    def artefacts(self) -> dict[tuple[str, str], dict[str, JSON]]:
        """(runtime, precision) -> what is known of the files made of these weights, how far their images are off too.

        Files that were made of other weights are left out.
        """
        paths = self._artefact_files()
        student, found = self.read("student") if paths else None, {}
        for facts in (look(path, "artefact")[0] for path in paths):
            if facts and student and facts["weights_sha256"] == student["weights_sha256"]:
                found[facts["runtime"], facts["precision"]] = facts
        return found

    def _artefact_files(self) -> list[Path]:
        """Those of whole artefacts: of one that is being made the images are not yet compared."""
        return [p for p in sorted((self.path / "export").glob("*/artefact.json")) if p.parent.suffix != ".tmp"]

    def snapshots(self) -> list[tuple[int, Path]]:
        """(images seen, picture) of the same 16 noises, in order."""
        found = [(int(p.stem), p) for p in (self.path / "snapshots").glob("*.png") if p.stem.isdecimal()]
        return sorted(found)

    def _repr_html_(self) -> str:
        return f"<b>{self.label}</b> {self.status().state}<br>{self.recipe._repr_html_()}"


Stamp = tuple[int, int, int] | None


def stamp(path: Path | str) -> Stamp:
    """What changes when a file does; None where there is none. Change time, since mtime may be set back by a copy."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ctime_ns, found.st_ino, found.st_size


def log_row(line: bytes) -> dict[str, float] | None:
    """A line of log.jsonl; None for one that is no finite numbers by name, of an update that there can be."""
    try:
        row = parse_json(line.decode())
    except (ValueError, RecursionError):
        return None
    sound = isinstance(row, dict) and all(type(v) in (int, float) and not schema.endless(v) for v in row.values())
    return row if sound and type(step := row.get("step", 0)) is int and step >= 0 else None


class Store:
    """The results folder."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = at_home(root, "the results folder") if root is not None else default_root()

    def open(self, recipe: Recipe) -> Run:
        """The run of a resolved recipe: makes the folder, or returns the one that is there."""
        run = Run(self.root / "runs" / recipe.id)
        if not (run.path / "recipe.json").exists():
            write_whole(run.path / "recipe.json", recipe.to_json() + "\n")
        return run

    def get(self, name: str) -> Run:
        """A run by id, teacher alias, label, or an unambiguous start or part of an id (its shape, its hash).

        Raises LookupError with the nearest names, or with how many runs a name fits and a few of them; and for a run
        that can't be read, with the file and what is wrong with it.
        """
        run = self._find(name)
        if wrong := run.fault():
            raise LookupError(f"run {run.id} can't be read, {wrong}; mend the file or move it away")
        return run

    def _find(self, name: str) -> Run:
        runs = {run.id: run for run in self.runs()}
        name = name.removeprefix("run:")
        if name in runs:
            return runs[name]
        if (alias := self.teachers().get(name)) in runs:
            return runs[alias]
        matches = [r for r in runs.values() if r.label == name]
        matches = matches or [r for r in runs.values() if r.id.startswith(name) or f"-{name}-" in f"-{r.id}-"]
        if len(matches) == 1 and name:
            return matches[0]
        if len(matches) > 1 and name:
            raise LookupError(f"{name!r} fits {len(matches)} runs{_told_apart(matches)}")
        labels = [r.label for r in runs.values()]
        raise LookupError(unknown("run", name, [*runs, *labels, *self.teachers()]))

    def runs(self) -> list[Run]:
        """Every folder that holds a readable recipe, by id."""
        folder = self.root / "runs"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        return [Run(folder / n) for n in names if ID.fullmatch(n) and os.path.exists(f"{folder}/{n}/recipe.json")]

    def teachers(self) -> dict[str, str]:
        """alias -> run id; of a teachers.json that does not hold what does."""
        found = read_json(self.root / "teachers.json")
        return {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}

    def check_alias(self, alias: str, run_id: str) -> None:
        """Raises ValueError for an alias that `name_teacher` would refuse: recipes name runs by it, and must go on to
        mean the same.
        """
        if not ID.fullmatch(alias):
            raise ValueError(f"a teacher's alias must match {ID.pattern}, got {alias!r}")
        read_to_change(self.root / "teachers.json", "teachers")
        runs = {run.id: run for run in self.runs()}
        if (other := runs.get(self.teachers().get(alias, run_id))) and other.id != run_id:
            raise ValueError(f"teacher {alias!r} is {other.label} ({other.id}), and recipes mean it by that name; give "
                             "another one")  # fmt: skip
        if others := [run.id for run in runs.values() if run.label == alias and run.id != run_id]:
            raise ValueError(f"{alias!r} is the label of {others[0]}; give another name")

    def name_teacher(self, alias: str, run_id: str) -> None:
        run_id = self.get(run_id).id
        self.check_alias(alias, run_id)
        path = self.root / "teachers.json"
        write_json(path, read_to_change(path, "teachers") | {alias: run_id})

    def sweeps(self) -> dict[Path, dict[str, JSON]]:
        """Every file of a sweep that holds, and what it says."""
        found = {path: look(path, "sweep")[0] for path in sorted((self.root / "sweeps").glob("*.json"))}
        return {path: plain for path, plain in found.items() if plain}

    # --- tables ---

    def add_report(self, report: Mapping[str, JSON]) -> str:
        """Check a device report and store it; gives its id. The same report_id twice is no change.

        Raises ValueError with everything that is wrong with it.
        """
        from lab.devices.report import check

        if wrong := check(report):
            raise ValueError("; ".join(wrong))
        path = self.root / "devices" / f"{report['report_id']}.json"
        if not path.exists():
            # No indent: a line for each of thousands of raw times helps nobody.
            write_whole(path, json.dumps(report, allow_nan=False) + "\n")
        return path.stem

    def report(self, report_id: str) -> dict[str, JSON]:
        """One device report whole, with its raw times. Raises LookupError where there is none that can be read."""
        from lab.devices.report import REPORT_ID, fault

        plain = read_json(self.root / "devices" / f"{report_id}.json") if REPORT_ID.fullmatch(report_id) else None
        if fault(plain):
            raise LookupError(f"there is no device report {report_id!r} in {self.root}")
        return plain

    def reports(self) -> pd.DataFrame:
        """One row per device report (lab/devices/device_report.v1.json), flattened with dots, with its grade.

        `grade` is A to F, `grade_reasons` a tuple of clauses and `unsteady` true of a D for its times' variation alone;
        all are computed here, never read. `artefact.*` is
        what is known of the files that were timed (artefact.json): their bytes, and how far their images are off.
        """
        return self.read_reports()[0]

    def read_reports(self) -> tuple[pd.DataFrame, dict[str, str]]:
        """`reports()`, and of every file that is no whole report its name and what is wrong with it."""
        rows, faults = [], {}
        known: dict[str, dict[tuple[str, str], dict[str, JSON]]] = {}
        for path in sorted((self.root / "devices").glob("*.json")):
            row, wrong = _report(str(path), stamp(path))
            if wrong:
                faults[path.name] = wrong
                continue
            rows.append(marshal.loads(row))
            artefact = self._artefact_of(rows[-1], known)
            rows[-1] |= {f"artefact.{name}": value for name, value in artefact.items()}
        return reports_of(rows), faults

    def _artefact_of(self, row: Mapping[str, JSON], known: dict[str, dict[tuple[str, str], dict[str, JSON]]]
                     ) -> dict[str, JSON]:  # fmt: skip
        """How large the file is that a report timed and how far its images are off, if known; `known` is a cache.

        The file is that of the report's sha256, on whatever board it ran; else the one of its runtime and precision,
        and for an estimate any of its precision.
        """
        run_id = str(row["model.model_id"])
        if run_id not in known:
            known[run_id] = Run(self.root / "runs" / run_id).artefacts() if ID.fullmatch(run_id) else {}
        sha256, runtime, precision = (row.get(k) for k in ("model.artifact_sha256", "software.runtime",
                                                           "model.precision"))  # fmt: skip
        mine = [f for f in known[run_id].values() if f["precision"] == precision]
        mine = [f for f in mine if f["weights_sha256"] == row["model.weights_sha256"]]
        same = [f for f in mine if sha256 and sha256 in [x["sha256"] for x in f["files"].values()]]
        same = same or [f for f in mine if f["runtime"] == runtime or row["provenance"] == "estimated"]
        return {name: same[0].get(name) for name in ("bytes", *_DISTANCES)} if same else {}

    def add_blocks(self, name: str, blocks: Mapping[str, JSON]) -> None:
        """Keep the times of a student's parts (lab.bench.keep_blocks) under a name, in the place of what was there."""
        write_json(self.root / "devices" / "blocks" / f"{name}.json", blocks)

    def read_blocks(self, name: str) -> dict[str, JSON] | None:
        """What was kept under a name; None where there is nothing, or no such times."""
        return look(self.root / "devices" / "blocks" / f"{name}.json", "blocks")[0]

    def blocks(self) -> pd.DataFrame:
        """One row per part of every student that was timed by its parts, in the net's order.

        The part's own columns (part, ms, share, flops, bytes, of_peak, of_bandwidth, roofline_ms, limit) beside whose
        it is and how it was timed, under the names of `reports()`, and whole_ms and of_roofline of the call in one go.
        """
        rows = []
        for path in sorted((self.root / "devices" / "blocks").glob("*.json")):
            if (plain := self.read_blocks(path.stem)) is not None:
                shared = _flat({k: v for k, v in plain.items() if k not in ("parts", "card")})
                rows += [shared | part for part in plain["parts"]]
        return pd.DataFrame(rows)

    def stamp(self) -> int:
        """A number that is another one when a file that `table` is made of has changed, and in this process alone."""
        return hash((*map(_stamped, self.runs()), stamp(self.root / "teachers.json")))

    def table(self) -> pd.DataFrame:
        """One row per run: recipe, status, cost, metrics with their conditions, in the columns of TABLE.

        Of a broken run few of them are known. Latencies are in `reports()`, which joins by `weights_sha256` =
        `model.weights_sha256`.
        """
        aliases = self.teachers()
        rows = [_row(run, aliases) for run in self.runs()]
        taught_by = {row.get("teacher") for row in rows}
        for row in rows:  # also where teachers.json can't be read: no student is chosen that is everybody's teacher
            if not row.get("teacher") and f"run:{row['run']}" in taught_by:
                row["role"] = "teacher"
        return table_of(rows)

    def faults(self) -> dict[str, str]:
        """Every file of the folder that does not hold, by its path in it -> what is wrong with it.

        Nothing else is touched by it: `table` has its run as unreadable, all other tables are without it. Metrics of
        other weights than the run's are named too; its run is one that is not measured.
        """
        from lab.devices.predict import card_fault

        found = {f"runs/{run.id}/{name}": wrong for run in self.runs() for name, wrong in run.faults().items()}
        for pattern, kind in _KINDS.items():
            paths = {p.relative_to(self.root).as_posix(): p for p in sorted(self.root.glob(pattern))}
            found |= {place: wrong for place, p in paths.items() if (wrong := _fault_of(p, kind))}
        cards = sorted((self.root / "devices" / "cards").glob("*.json"))
        found |= {f"devices/cards/{p.name}": wrong for p in cards if (wrong := card_fault(p))}
        reports = sorted((self.root / "devices").glob("*.json"))
        return found | {f"devices/{p.name}": wrong for p in reports if (wrong := _report(str(p), stamp(p))[1])}

    def unread(self) -> dict[str, str]:
        """Those of `faults` that an answer is made without: files of runs, of timings, and the teachers' names."""
        places = ("runs/", "devices/", "teachers.json")
        return {place: wrong for place, wrong in self.faults().items() if place.startswith(places)}


def faults_said(faults: Mapping[str, str], shown: int = 5) -> str:
    """How many files of a results folder do not hold, and which; "" where all do."""
    if not faults:
        return ""
    told = [f"{name}: {wrong}" for name, wrong in faults.items()][:shown]
    told += [f"and {len(faults) - shown} more, which python -m lab doctor lists"] * (len(faults) > shown)
    return f"{len(faults)} file{'s' * (len(faults) > 1)} can't be read; all else stands without. {'; '.join(told)}."


def _told_apart(runs: Sequence[Run], shown: int = 5) -> str:
    """A few of these runs with what of their recipes differs and no id says, and how one of them is named."""
    some = runs[:: -(-len(runs) // shown)]  # neighbours by id are the most alike
    rows = [_row(run, {}) for run in some]
    names = ("teacher", "pairs", "images", "lr", "seed")
    told = [name for name in names if len({row.get(name) for row in rows}) > 1]
    listed = [
        ", ".join([f"{run.label} ({run.id})", *(f"{name} {row[name]}" for name in told if row.get(name) is not None)])
        for run, row in zip(some, rows)
    ]
    more = len(some) < len(runs)
    return (f"{', such as' if more else ':'} {'; '.join(listed)}. Name one by its label or the end of its id"
            + ", `python -m lab ls --columns run,label` lists them" * more)  # fmt: skip


def _fault_of(path: Path, kind: str) -> str | None:
    """What is wrong with a file; it is read once as long as its stamp stays the same."""
    return _kept_fault(str(path), kind, stamp(path))


@functools.lru_cache(maxsize=_KEPT_ROWS)
def _kept_fault(path: str, kind: str, stamp: Stamp) -> str | None:
    return look(Path(path), kind)[1]


def _weights_fault(path: Path) -> str | None:
    """Why a file of metrics is not its run's; as `_fault_of`."""
    return _kept_weights_fault(str(path), stamp(path), stamp(path.with_name("student.json")))


@functools.lru_cache(maxsize=_KEPT_ROWS)
def _kept_weights_fault(path: str, *stamps: Stamp) -> str | None:
    file = Path(path)
    if not _of_others(look(file, "metrics")[0], look(file.with_name("student.json"), "student")[0]):
        return None
    by = file.stem.removeprefix("metrics").replace("-", " --extractor ", 1)
    return f"its metrics are of other weights; python -m lab eval {file.parent.name}{by} measures it"


def _of_others(metrics: Mapping[str, JSON] | None, student: Mapping[str, JSON] | None) -> bool:
    """Whether a run's metrics are of other weights than its student.json."""
    return bool(metrics and student and metrics["weights_sha256"] != student["weights_sha256"])


def plain_cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table that a spreadsheet may open: text that it would take for a formula begins with an apostrophe."""
    from lab.devices.report import is_formula

    def plain(cell: object) -> object:
        if not isinstance(cell, str):
            return cell
        cell = cell.replace("\r\n", "\n").replace("\r", "\n")  # which alone would begin a line, unquoted
        return f"'{cell}" if is_formula(cell) else cell

    text = table.select_dtypes(["object", "string"])
    return table.assign(**{name: text[name].map(plain) for name in text}).rename(columns=plain)


def as_csv(table: pd.DataFrame) -> str:
    """Comma separated values without the index; labels and notes in it are what people typed."""
    return plain_cells(table).to_csv(index=False)


def table_of(rows: pd.DataFrame | Sequence[Mapping[str, JSON]]) -> pd.DataFrame:
    """Rows with what is known of runs as `Store.table()` has them: all columns of TABLE, others behind them."""
    table = _typed(rows, TABLE)
    return table.assign(**{name: table[name].fillna("") for name, dtype in TABLE.items() if dtype == "str"})


def reports_of(rows: pd.DataFrame | Sequence[Mapping[str, JSON]]) -> pd.DataFrame:
    """Flat device reports (`report_row`) as `Store.reports()` has them: all that the format knows, others behind it."""
    return _typed(rows, report_columns())


@functools.cache
def report_columns() -> dict[str, str]:
    """What `Store.reports()` always has, by the format's own schema and in its order: column -> dtype."""
    from lab.devices.report import schema

    kinds = {"string": "str", "number": "float64", "integer": "float64"}
    found = {}

    def walk(rule: Mapping[str, JSON], place: str, needed: bool) -> None:
        rule = schema()["$defs"][rule["$ref"].rpartition("/")[2]] if "$ref" in rule else rule
        kind = rule.get("type", "string")  # of an enum or a const
        first = kind[0] if isinstance(kind, list) else kind
        needed = needed and kind == first
        if "properties" not in rule or place == "model.config":
            found[place] = "int64" if needed and first == "integer" else kinds.get(first, "object")
            return
        for name, inner in rule["properties"].items():
            walk(inner, f"{place}.{name}".lstrip("."), needed and name in rule.get("required", ()))

    walk(schema(), "", True)
    del found["timing.samples_ns"]
    return found | {"grade": "str", "grade_reasons": "object", "unsteady": "bool", "artefact.bytes": "float64",
                    "artefact.images": "float64",
                    "artefact.max_abs": "float64", "artefact.mean_abs": "float64", "artefact.perceptual": "float64",
                    "artefact.perceptual_by": "str"}  # fmt: skip


def _typed(rows: pd.DataFrame | Sequence[Mapping[str, JSON]], columns: Mapping[str, str]) -> pd.DataFrame:
    """All columns in their order and of their types, then what else the rows have and some row knows."""
    found = pd.DataFrame(rows)
    made = {name: _column(found.get(name), dtype, found.index) for name, dtype in columns.items()}
    return pd.DataFrame(made | {name: found[name] for name in found if name not in made and found[name].notna().any()},
                        index=found.index)  # fmt: skip


def _column(values: pd.Series | None, dtype: str, index: pd.Index) -> pd.Series:
    """A column of a type; what is missing is NaN, None among objects, False among flags."""
    if values is None:
        values = pd.Series(None, index=index, dtype=object)
    if dtype != "object" and values.dtype == dtype:
        return values
    if dtype in ("float64", "int64"):  # the second is of what no report may lack
        numbers = pd.to_numeric(values, errors="coerce")
        return numbers.astype("float64" if numbers.isna().any() else dtype)
    if dtype == "str":
        return values.astype("str")
    return values.astype(object).where(values.notna(), False if dtype == "bool" else None).astype(dtype)


def report_row(report: Mapping[str, JSON]) -> dict[str, JSON]:
    """A device report flattened with dots, with its grade, the reasons of it and whether it is unsteady alone."""
    from lab.devices.report import grade

    found = grade(report)
    return _flat(report) | {"grade": found.letter, "grade_reasons": found.reasons, "unsteady": found.unsteady}


@functools.lru_cache(maxsize=_KEPT_ROWS)
def _report(path: str, stamp: Stamp) -> tuple[bytes, str | None]:
    """The row of a report's file, and what is wrong with it; read once as long as its stamp stays the same."""
    from lab.devices.report import fault

    plain, wrong = _read(Path(path))
    if isinstance(plain, dict) and isinstance(timing := plain.get("timing"), dict):
        timing.pop("samples_ns", None)
    wrong = wrong or fault(plain, Path(path).stem)
    return (b"", wrong) if wrong else (_packed(report_row(plain)), None)


def _row(run: Run, aliases: Mapping[str, str]) -> dict[str, JSON]:
    """The columns of one run; unreadable files give an `error` instead of an exception."""
    row = marshal.loads(_row_of_files(*_stamped(run)))
    if row["state"] == "unreadable":
        return row
    if row["state"] == "running":  # is it? No file says so
        row["state"] = run.status().state
    row["role"] = "teacher" if run.id in aliases.values() else "student"
    row["aliases"] = [a for a, target in aliases.items() if target == run.id]
    return row


def _stamped(run: Run) -> tuple[str, tuple[Stamp, ...]]:
    """A run's folder, and the stamps of the files of its row."""
    return str(run.path), tuple(stamp(f"{run.path}/{name}.json") for name in ("recipe", *_ROW_FILES))


@functools.lru_cache(maxsize=_KEPT_ROWS)
def _label_of_files(path: str, stamps: tuple[Stamp, ...]) -> str:
    """Read once as long as their stamps stay the same: to find one run by its label, those of all are looked at."""
    run = Run(Path(path))
    given = run.notes["label"]
    with contextlib.suppress(OSError, ValueError):
        return given or short_name(run.config.shape, methods_of(run.recipe), run.id)
    return given or run.id


@functools.lru_cache(maxsize=_KEPT_ROWS)
def _row_of_files(path: str, stamps: tuple[Stamp, ...]) -> bytes:
    """What the files of a run say of it; read once as long as their stamps stay the same.

    Each file has columns of its own, so that no key of it takes the place of another's. One that does not hold makes
    the row unreadable, and is named in its error.
    """
    run, found, wrong = Run(Path(path)), {}, None
    try:
        recipe = run.recipe
        wrong = next((f"recipe.json: {said}" for said in check_fields(recipe)), None)
        if wrong is None and recipe.id != run.id:  # which is made of all that decides a run
            wrong = f"recipe.json: it is that of {recipe.id}, and no longer this run's"
    except (OSError, ValueError) as error:
        wrong = str(error)
    for name in _ROW_FILES:
        found[name], fault = look(run.path / f"{name}.json", name)
        wrong = wrong or (fault and f"{name}.json: {fault}")
    row: dict[str, JSON] = {"run": run.id, "label": run.id}
    if wrong := wrong or next(_disagreements(recipe, found["student"], found["cost"]), None):
        return _packed(row | {"state": "unreadable", "error": wrong})
    status, config = Status.of(found["status"]), (found["student"] or {}).get("config")
    net = recipe.student if config is None else config_from_json(config)
    row |= columns_of(recipe, net) | {
        "role": "",  # of teachers.json, as the next
        "aliases": [],
        "state": status.state,
        "step": status.step,
        "train_seconds": status.seconds,
        "error": status.error,
    }
    notes = {"label": "", "notes": "", "pin": False, "hide": False} | (found["notes"] or {})
    row |= {k: notes[k] for k in ("notes", "pin", "hide")}
    row["label"] = notes["label"] or short_name(net.shape, methods_of(recipe), run.id)
    for name in ("cost", "student"):
        mine = files_schema()["$defs"][name]["properties"]
        row |= {k: v for k, v in (found[name] or {}).items() if k in mine and not isinstance(v, (dict, list))}
    own = None if _of_others(found["metrics"], found["student"]) else found["metrics"]
    return _packed(row | _metric_columns(own))


def _disagreements(recipe: Recipe, student: Mapping[str, JSON] | None, cost: Mapping[str, JSON] | None
                   ) -> Iterator[str]:  # fmt: skip
    """What student.json and cost.json say of another network than the run's."""
    if student is None:
        return
    net = config_from_json(student["config"])
    mine, asked = config_to_json(net), config_to_json(recipe.student)
    for name in sorted({*mine, *asked} - RESHAPED):
        if mine.get(name) != asked.get(name):
            yield f"student.json: config.{name} is {mine.get(name)}, and {asked.get(name)} in recipe.json"
    if mine.get("depth", 0) > asked.get("depth", 0):
        yield f"student.json: config.depth is {mine['depth']}, above the {asked['depth']} of recipe.json"
    if cost is None:
        return
    due = of_dit(net)
    if "macs" in cost and "evaluations" in cost:
        due["macs_image"] = cost["macs"] * cost["evaluations"]
    of = f"of the {net.shape} of student.json"
    for name, value in due.items():
        if cost.get(name) in (None, value):
            continue
        if mine.get("depth") != asked.get("depth"):  # that is the odder of the two
            yield f"student.json: {value:.10g} is the {name} {of}, and {cost[name]:.10g} is it in cost.json"
        else:
            yield f"cost.json: {name} is {cost[name]:.10g}, and {value:.10g} {of}"


def columns_of(recipe: Recipe, net: NetConfig) -> dict[str, JSON]:
    """What a recipe says of its run, and of the network that is left of its student."""
    row = {k: v for k, v in json.loads(recipe.to_json()).items() if k not in ("student", "methods")}
    config = config_to_json(net)
    row |= {k: config.get(k) for k in NET}
    if net.family != "unet":
        row["mlp_hidden"] = net.hidden
        if config.get("head_dim") == net.width // max(net.heads, 1):
            config["head_dim"] = None  # the usual one, told
    rest = {k: v for k, v in config.items() if k not in (*NET, "time", "image_size", "channels")}
    return row | {
        "net": json.dumps(rest, sort_keys=True),
        "shape": net.shape,
        "time": net.time,
        "method": methods_of(recipe),
        "method_short": "+".join(use.method for use in recipe.methods if use.method not in PLAIN) or "plain",
        "options": json.dumps({use.method: dict(use.options) for use in recipe.methods}, sort_keys=True),
        "images": recipe.images,
    }


def _packed(row: Mapping[str, JSON]) -> bytes:
    """A row as it is kept, for marshal.loads: a quarter of a dict's size, and each reader's lists are its own.

    Text is interned, which marshal keeps: thousands of rows share what they say alike.
    """
    return marshal.dumps({sys.intern(k): sys.intern(v) if type(v) is str else v for k, v in row.items()})


def _metric_columns(metrics: Mapping[str, JSON] | None) -> dict[str, JSON]:
    """fd, fd_low, fd_high, fd_reference, ...; the conditions all values share as columns of their own."""
    if metrics is None:
        return {}
    row = {"extractor": metrics["extractor"], "samples": metrics["samples"], "eval_seed": metrics["seed"]}
    for name in METRIC_NAMES:
        if found := metrics["values"].get(name):
            row |= {name: found["value"], f"{name}_reference": found["reference"]}
            if ci := found.get("ci95"):
                row[f"{name}_low"], row[f"{name}_high"] = ci
    return row


def same_conditions(a: Mapping[str, JSON], b: Mapping[str, JSON], metric: str = "fd") -> str | None:
    """Why two rows of `Store.table()` can't be compared by a metric, as a sentence; None if they can."""
    for row in (a, b):
        if pd.isna(row.get(metric)):
            return f"{row['label']} has no {metric}"
    for name in ("data", "extractor", "samples", "eval_seed", f"{metric}_reference"):
        mine, theirs = a.get(name), b.get(name)
        if mine != theirs and not (pd.isna(mine) and pd.isna(theirs)):
            return f"{metric} can't be compared: {name} is {mine} for {a['label']} and {theirs} for {b['label']}"
    return None


def _flat(plain: Mapping[str, JSON], prefix: str = "") -> dict[str, JSON]:
    row: dict[str, JSON] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" != "model.config":
            row |= _flat(value, f"{prefix}{key}.")
        else:
            row[f"{prefix}{key}"] = value
    return row
