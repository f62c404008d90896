"""The command that does many runs: sweep."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cli.frame import (
    FAILED,
    OK,
    Answer,
    Usage,
    as_usage,
    command,
    compute_of,
    count_of,
    machine_options,
    open_store,
    would,
)
from lab.cli.text import table_text

if TYPE_CHECKING:
    from lab.results import Store
    from lab.sweep import Entry, Place, Sweep


def add_sweep(commands: Any) -> None:
    made = command(
        commands, sweep, "do every recipe of a file, each once; the same command goes on where it was stopped",
        "sweep shapes.json --dry-run",
        "sweep shapes.json --workers 2",
        "sweep shapes.json --on ray --address auto --cpus 4",
        takes="FILE",
    )  # fmt: skip
    made.add("file", metavar="FILE", help="JSON: a list of recipes, or {base, axes, within, iso, sample or search}")
    made.add("--name", help="of results/sweeps/<name>.json (default: the file's)")
    made.add("--dry-run", action="store_true", help="say which runs there would be and how far each is")
    made.add("--workers", type=count_of(1), help="runs at a time (default 1; on Ray what the cluster has room for)")
    made.add("--no-measure", action="store_true", help="leave the distances to `python -m lab eval`")
    made.add("--compile", action=argparse.BooleanOptionalAction, help="torch.compile (default: where it pays)")
    machine_options(made)
    ray = made.add_argument_group("on a cluster")
    ray.add_argument("--on", choices=["here", "ray"], default="here", help="processes here (default), or tasks of Ray")
    ray.add_argument("--address", help="of a Ray cluster (default: the one that is there, else one is begun here)")
    ray.add_argument("--cpus", type=count_of(1), default=1, help="CPUs, and threads, of one run there (default 1)")
    shared = "a results folder that every node sees, to read pairs from; else each node makes them"
    ray.add_argument("--shared", default="", metavar="FOLDER", help=shared)


def sweep(args: argparse.Namespace) -> Answer:
    from lab import sweep as sweeps
    from lab.config import text_of

    store, file = open_store(args, new=True), Path(args.file)
    if not file.is_file():
        raise Usage(f"there is no sweep file {args.file!r}")
    compute_of(args)  # a device that is not here is told before any work
    with as_usage():
        text = text_of(file)
        try:
            found = sweeps.read(text, args.name or file.stem)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        if not found.total:
            raise ValueError(_nothing(found))
        sweeps.check_record(found, store)
    if args.dry_run:
        return _planned(found, store)
    with contextlib.closing(_place(args, store, found)) as place:
        whole = sweeps.carry_out(found, store, place)
    states = Counter(entry.state for entry in found.entries)
    if not whole:
        raise RuntimeError(f"stopped; {states['done']} of {found.total} runs are done, and the same command goes on")
    return _told(found, states, store)


def _nothing(found: Sweep) -> str:
    """Why there is nothing to do."""
    if not found.dropped:
        return f"sweep {found.name} has no recipe"
    first = found.dropped[0]
    at = ", ".join(f"{axis}={value}" for axis, value in first["at"].items())
    return f"every point of sweep {found.name} is out of budget ({len(found.dropped)}); of {at}, {first['why']}"


def _place(args: argparse.Namespace, store: Store, found: Sweep) -> Place:
    if args.on == "here":
        from lab.sweep import Here

        return Here(store, args.workers or 1, _options(args))
    from lab.cluster import OnRay, Orders

    shared = str(Path(args.shared).resolve()) if args.shared else ""
    orders = Orders(device=args.device, compile=args.compile, measure=not args.no_measure, shared=shared)
    return OnRay(store, address=args.address, cpus=args.cpus, orders=orders, search=found.search is not None,
                 at_once=args.workers or 0)  # fmt: skip


def _options(args: argparse.Namespace) -> list[str]:
    """The options of `run` for one of several processes, which share the cores."""
    threads = args.threads or (max(1, (os.cpu_count() or 1) // args.workers) if (args.workers or 1) > 1 else 0)
    given = ["--device", args.device, "--threads", str(threads)] + ["--no-measure"] * args.no_measure
    if args.compile is not None:
        given.append("--compile" if args.compile else "--no-compile")
    return given


def _planned(found: Sweep, store: Store) -> Answer:
    """What would be done, without doing it."""
    from lab import cost, sweep
    from lab.results import Run

    if found.search:
        value = [{"would": f"search {found.total} of {len(found.search.space):,} points", "name": found.name}]
        return would(value)
    rows = []
    for entry in found.entries:
        row = {"run": "", "shape": "", "params": None, "images": None, "state": entry.state, "label": entry.label,
               "before": "", "why": entry.why}  # fmt: skip
        rows.append(row)
        if entry.recipe is None:
            continue
        try:
            *before, last = sweep.stages_of(entry.recipe, store)
        except (ValueError, LookupError) as error:
            row |= {"state": "refused", "why": str(error)}
            continue
        row |= {"run": last.id, "shape": last.student.shape, "params": cost.of_config(last.student)["params"],
                "images": last.images, "state": Run(store.root / "runs" / last.id).status().state,
                "before": [r.id for r in before]}  # fmt: skip
    answer = would(rows)
    left = f"\n{len(found.dropped)} points are out of budget" if found.dropped else ""
    return Answer(answer.value, answer.text + left, FAILED if any(r["why"] for r in rows) else OK)


def _told(found: Sweep, states: Counter[str], store: Store) -> Answer:
    """What became of a sweep; those that are not done, or not measured, at the end with the reason."""
    record = store.root / "sweeps" / f"{found.name}.json"
    value = {"name": found.name, "record": str(record), "states": dict(states), "dropped": len(found.dropped),
             "runs": [entry.row() for entry in found.entries]}  # fmt: skip
    lines = [f"{states['done']} of {found.total} runs are done; {shlex.quote(str(record))} lists them"]
    if found.dropped:
        lines.append(f"{len(found.dropped)} points were out of budget")
    if told := [e for e in found.entries if e.why or e.state != "done"]:
        lines += ["", table_text([{"run": _named(e), "state": e.state, "why": e.why} for e in told])]
    return Answer(value, "\n".join(lines), OK if states["done"] == found.total else FAILED)


def _named(entry: Entry) -> str:
    shown = entry.run or entry.label or ", ".join(f"{k}={v}" for k, v in entry.at.items())
    return shown or (entry.recipe.id if entry.recipe else "no recipe")
