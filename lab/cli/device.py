"""Commands about other devices: pack a run for one, import its reports."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lab.cli.frame import Answer, Usage, command, get_run, open_store
from lab.cli.text import table_text

if TYPE_CHECKING:
    from lab.devices.incoming import Arrival

TARGETS = ("cpu", "jetson", "rpi")  # of lab.pack, which needs torch; a test holds them equal


def add_pack(commands: Any) -> None:
    made = command(
        commands, pack, "pack a run as one zip that times it on another device",
        "pack d4w64h4p4 --target jetson", "pack d4w64h4p4 --target rpi --out student-pi.zip",
        takes="RUN --target DEVICE",
    )  # fmt: skip
    made.add("run", metavar="RUN", help="an id, a start of one, or a label; a one-step student")
    made.add("--target", choices=TARGETS, required=True, help="which board's commands the README of the pack gives")
    made.add("--out", metavar="FILE", help="where to write (default <run>-<target>.zip)")


def pack(args: argparse.Namespace) -> Answer:
    from lab import pack as packs

    if args.out and not args.out.endswith(".zip"):
        raise Usage(f"--out must end with .zip, got {args.out!r}")
    run = get_run(open_store(args), args.run)
    if why := packs.refusal(run):
        raise Usage(why)
    made = packs.pack(run, args.target, args.out or f"{run.id}-{args.target}.zip")
    value = {"run": run.id, "target": args.target, "file": str(made.path), "mb": round(made.mb, 3),
             "sha256": made.sha256, "files": made.files}  # fmt: skip
    text = (f"{made.path} ({made.mb:.2f} MB, {len(made.files)} files). On the device:\n"
            f"  unzip {made.path.name} -d {made.path.stem} && cd {made.path.stem} && python3 runner.py --preset quick\n"
            "and here again: python -m lab import report-*.json")  # fmt: skip
    return Answer(value, text)


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
