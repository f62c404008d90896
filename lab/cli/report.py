"""The command that writes a report to hand on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lab.cli.frame import Answer, Usage, command, dry_run_option, open_store, would
from lab.cli.look import answer_of, budget_options


def add_report(commands: Any) -> None:
    made = command(commands, report, "write the answer for a budget, with all that stands behind it, as one HTML file",
                   "report --params-m 0.35 --latency-ms 1",
                   "report --latency-ms 2 --batch 16 --out two-ms.html")  # fmt: skip
    budget_options(made)
    made.add("--out", default="report.html", metavar="FILE", help="where to write, .html (default report.html)")
    dry_run_option(made)


def report(args: argparse.Namespace) -> Answer:
    """It is written where nothing fits, too, and then says what comes nearest."""
    if not args.out.endswith(".html"):
        raise Usage(f"--out must end with .html, got {args.out!r}")
    store, out = open_store(args), Path(args.out)
    answer = answer_of(args, store)
    if args.dry_run:
        return would([{"report": answer.headline, "would": f"write {out}"}])
    from lab import report as reports
    from lab.choose import sentence
    from lab.experiment import commit
    from lab.results import write_whole

    content = reports.html(store, answer, commit=commit()).encode()
    write_whole(out, content)
    found = {"file": str(out), "bytes": len(content), "sentence": sentence(answer)}
    return Answer(found, f"{found['sentence']}\n{out}: {len(content) / 1e6:.1f} MB, opens offline")
