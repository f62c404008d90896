"""The command that writes a report to hand on."""

from __future__ import annotations

import argparse
from typing import Any

from lab.cli.frame import Answer, command, dry_run_option, open_store, out_file, would
from lab.cli.look import answer_of, budget_options


def add_report(commands: Any) -> None:
    made = command(commands, report, "write the answer for a budget, with all that stands behind it, as one HTML file",
                   "report --params-m 0.35 --latency-ms 1",
                   "report --latency-ms 2 --batch 16 --out two-ms.html")  # fmt: skip
    budget_options(made)
    made.add("--out", default="report.html", metavar="FILE", help="where to write, .html (default report.html)")
    dry_run_option(made)


def report(args: argparse.Namespace) -> Answer:
    """It is written where nothing fits, too, and then says what comes nearest, and where some files can't be read,
    which it names; 3 if nothing is measured.
    """
    from lab import report as reports
    from lab.choose import sentence
    from lab.experiment import commit
    from lab.results import faults_said, write_whole

    store, out = open_store(args), out_file(args.out, ".html")
    answer = answer_of(args, store)
    content = reports.html(store, answer, commit=commit()).encode()
    if args.dry_run:
        return would([{"report": answer.headline, "would": f"write {'over ' * out.exists()}{out}"}])
    write_whole(out, content)
    unread = store.unread()
    found = {"file": str(out), "bytes": len(content), "sentence": sentence(answer), "unread": unread}
    said = [found["sentence"], f"{out}: {len(content) / 1e6:.1f} MB, opens offline", faults_said(unread)]
    return Answer(found, "\n".join(filter(None, said)))
