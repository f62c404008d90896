"""Commands about other devices: pack a run for one, import its reports, estimate what it would need."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cli.frame import (
    Answer,
    Usage,
    as_usage,
    command,
    count_of,
    dry_run_option,
    get_run,
    image_of,
    image_options,
    image_told,
    list_of,
    open_store,
    out_file,
    would,
)
from lab.cli.text import table_text
from lab.precisions import TARGETS

if TYPE_CHECKING:
    from lab.config import DiTConfig
    from lab.devices.incoming import Arrival
    from lab.devices.predict import Card
    from lab.results import Run, Store


def add_pack(commands: Any) -> None:
    made = command(
        commands, pack, "pack a run as one zip that times it on another device",
        "pack d4w64h4p4 --target jetson", "pack d4w64h4p4 --target rpi --out student-pi.zip",
        takes="RUN --target DEVICE",
    )  # fmt: skip
    made.add("run", metavar="RUN", help="an id, a start of one, or a label")
    made.add("--target", choices=TARGETS, required=True, help="which board's commands the README of the pack gives")
    made.add("--out", metavar="FILE", help="where to write (default <run>-<target>.zip)")
    dry_run_option(made)


def pack(args: argparse.Namespace) -> Answer:
    from lab import pack as packs

    asked = args.out and out_file(args.out, ".zip")
    run = get_run(open_store(args), args.run)
    out = asked or Path(f"{run.id}-{args.target}.zip")
    if args.dry_run:
        return would([{"run": run.label, "target": args.target, "precisions": packs.TARGETS[args.target],
                       "would": f"write {'over ' * out.exists()}{out}"}])  # fmt: skip
    made = packs.pack(run, args.target, out)
    value = {"run": run.id, "target": args.target, "file": str(made.path), "mb": round(made.mb, 3),
             "sha256": made.sha256, "files": made.files, "left_out": made.left_out}  # fmt: skip
    text = (f"{made.path} ({made.mb:.2f} MB, {len(made.files)} files). On the device:\n"
            f"  unzip {made.path.name} -d {made.path.stem} && cd {made.path.stem} && python3 runner.py --preset quick\n"
            "and here again: python -m lab import report-*.json")  # fmt: skip
    return Answer(value, "\n".join([text, *made.left_out]))


def add_import(commands: Any) -> None:
    made = command(commands, import_, "check, grade and keep device reports that were made elsewhere",
                    "import report-orin.json", "import reports/*.json --dry-run", takes="FILE [FILE ...]")  # fmt: skip
    made.add("files", nargs="+", metavar="FILE", help="reports that runner.py of a pack wrote; all are kept, or none")
    made.add("--dry-run", action="store_true", help="check and grade, keep nothing")


def import_(args: argparse.Namespace) -> Answer:
    from lab.devices.incoming import import_reports

    for name in args.files:
        if not os.path.lexists(name):
            raise Usage(f"there is no file {name!a}")
    found = import_reports(args.files, open_store(args, new=True), dry_run=args.dry_run)
    rows = [_row(arrival, dry_run=args.dry_run) for arrival in found]
    return Answer(rows, _said(found, rows))


def _row(arrival: Arrival, *, dry_run: bool) -> dict[str, Any]:
    report = arrival.report
    state = "already here, nothing changed" if not arrival.new else "would be kept" if dry_run else "kept"
    return {
        "report": report["report_id"], "device": report["device"]["name"], "runtime": report["software"]["runtime"],
        "precision": report["model"]["precision"], "batch": report["workload"]["batch"],
        "p50_ms": report["timing"]["p50"], "grade": arrival.grade.letter, "reasons": list(arrival.grade.reasons),
        "left_out": arrival.left_out is not None, "run": arrival.run, "state": state,
    }  # fmt: skip


def _said(found: Sequence[Arrival], rows: Sequence[dict[str, Any]]) -> str:
    lines = [table_text([{k: v for k, v in row.items() if k not in ("reasons", "left_out")} for row in rows]), ""]
    for arrival in found:
        end = "; left out of recommendations" if arrival.left_out else ""
        lines.append(f"{arrival.report['report_id']}: grade {arrival.grade}{end}")
        if arrival.run is None:
            lines.append(f"{arrival.report['report_id']}: no run here has these weights, so it joins none yet")
    return "\n".join(lines)


SHAPE = re.compile(r"d(\d+)w(\d+)h(\d+)p(\d+)(?:m(\d+))?")
HERE = "here"


def add_predict(commands: Any) -> None:
    made = command(
        commands, predict, "estimate the latency of a student on a device that is not at hand",
        "predict d4w64h4p4 --device jetson-orin-nano-15w --precision fp16",
        "predict d6w128h4p4 --device here --runtime onnxruntime --batch 1,16",
        takes="RUN|SHAPE",
    )  # fmt: skip
    made.add("what", metavar="RUN|SHAPE", help="a one-step student, or a shape such as d4w64h4p4 or d4w64h4p4m128")
    made.add("--device", metavar="CARD", default=HERE, help="a device's card, e.g. raspberry-pi-5 (default: here)")
    made.add("--runtime", help="fit on the timings of this one (default: of the runtime with most on that device)")
    made.add("--precision", default="fp32", help="default fp32")
    made.add("--batch", type=list_of(count_of(1)), default=(1,), help="comma separated (default 1)")
    made.add("--threads", type=count_of(1), help="of this machine's card (default: as many as torch takes)")
    image_options(made)
    made.add("--keep", action="store_true", help="also keep the estimates as device reports, grade F")


def predict(args: argparse.Namespace) -> Answer:
    from lab.devices import predict as prediction

    store = open_store(args, new=True)
    run, config = _subject(args, store)
    with as_usage():
        card = prediction.fitted(_card(args, store), store.reports(), runtime=args.runtime, precision=args.precision,
                                 but=config)  # fmt: skip
        model = prediction.model_of(run) if run else {}
        made = [prediction.as_report(card, config, batch, args.precision, model=model) for batch in args.batch]
    if args.keep:
        for report in made:
            store.add_report(report)
    basis = made[0]["source"]["note"]
    text = f"{table_text([_estimate(r, card) for r in made])}\n\nestimated, grade F: {basis}"
    return Answer(made, text)


def _subject(args: argparse.Namespace, store: Store) -> tuple[Run | None, DiTConfig]:
    """The run that was named, or None, and its shape."""
    from lab.config import DiTConfig

    found = SHAPE.fullmatch(args.what)
    try:
        run = get_run(store, args.what)
    except Usage:
        if not found:
            raise
    else:
        told = image_told(args)
        other = [name for name, value in told.items() if value != getattr(run.config, name)]
        if not other:
            return run, run.config
        if not found:
            raise Usage(f"{other[0]} of {args.what!r} is {getattr(run.config, other[0])}, not {told[other[0]]}; "
                        "a shape such as d4w64h4p4 may be of any images")  # fmt: skip
    depth, width, heads, patch, mlp = (part and int(part) for part in found.groups())
    made = DiTConfig(depth=depth, width=width, heads=heads, patch=patch, mlp_hidden=mlp, **image_of(args))
    if wrong := made.check():
        raise Usage("; ".join(wrong))
    return None, made


def _card(args: argparse.Namespace, store: Store) -> Card:
    if args.device == HERE:
        from lab.bench import card_here

        return card_here(store, args.threads)
    from lab.devices.predict import card_of

    return card_of(args.device, store.root)


def _estimate(report: dict[str, Any], card: Card) -> dict[str, Any]:
    low, high = report["timing"]["p50_ci95"]
    return {"net": report["model"]["model_id"], "device": card.title, "runtime": report["software"]["runtime"],
            "precision": report["model"]["precision"], "batch": report["workload"]["batch"], "low ms": low,
            "p50 ms": report["timing"]["p50"], "high ms": high}  # fmt: skip
