"""Commands that judge: claims, verdicts."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from lab.cli.frame import Answer, Usage, command, open_store
from lab.cli.text import cell, table_text

WIDTH = 100  # characters of a line


def add_claims(commands: Any) -> None:
    made = command(commands, claims, "judge the claims of the papers by the runs in the results folder", "claims",
                   "claims teaching-assistant tinyfusion", "claims --json", takes="[NAME ...]")  # fmt: skip
    made.add("names", nargs="*", metavar="NAME", help="these alone, with source, reason and commands")


def claims(args: argparse.Namespace) -> Answer:
    from lab import claims
    from lab.config import unknown

    known = [claim.name for claim in claims.CLAIMS]
    if wrong := [name for name in args.names if name not in known]:
        raise Usage(unknown("claim", wrong[0], known))
    found = claims.table(open_store(args))
    found = found[found["name"].isin(args.names or known)]
    rows = [row | {"runs": list(row["runs"])} for row in found.to_dict("records")]
    if args.names:
        return Answer(rows, "\n\n".join(_whole(row) for row in rows))
    said = [{"claim": row["name"], "status": row["status"], "our figure, or what is missing": row["ours"] or row["why"],
             "runs": str(len(row["runs"]))} for row in rows]  # fmt: skip
    more = "python -m lab claims NAME says who claims it, why ours differs, and what makes the runs again."
    return Answer(rows, "\n".join([wrapped(said), "", *textwrap.wrap(claims.RULE, WIDTH), more]))


def _whole(row: Mapping[str, Any]) -> str:
    """One claim, a name and its text a line, commands and figures behind it below."""
    names = ("name", "claim", "paper", "source", "reading", "published", "ours", "status", "why")
    lines = [
        line
        for name in names
        if row[name]
        for line in textwrap.wrap(row[name], WIDTH, initial_indent=name.ljust(11), subsequent_indent=" " * 11)
    ]
    figures = ["", table_text(row["details"])] if row["details"] else []
    return "\n".join([*lines, *figures, "", row["command"]])


def add_verdicts(commands: Any) -> None:
    command(commands, verdicts, "hold every method against its plain twin, by paired seeds", "verdicts",
            "verdicts --json")  # fmt: skip


def verdicts(args: argparse.Namespace) -> Answer:
    from lab import arms, claims
    from lab.verdicts import counted

    store = open_store(args)
    rows = arms.verdicts(store.table(), arms.calibration(store)).to_dict("records")
    if not rows:
        return Answer([], f"no run of a method beside the objective in {store.root}")
    said = [{name: cell(row[name]) for name in ("method", "size", "images", "compute")}
            | {"ratio": cell(row["ratio"]), "95 %": f"{row['low']:.2f} to {row['high']:.2f}" * (row["seeds"] > 1),
               "pairs": counted(row["seeds"], row["trained"]), "verdict": row["word"]}
            for row in rows if row["seeds"]]  # fmt: skip
    rule = f"ratio: distance over plain's, below 1 is better. {claims.RULE}"
    notes = [line for note in [*_without_a_pair(rows), rule] for line in ["", *textwrap.wrap(note, WIDTH)]]
    return Answer(rows, "\n".join([wrapped(said) if said else "no method has a pair", *notes]))


def _without_a_pair(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence for each reason why there is no pair, with the arms that it holds for."""
    arms: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if not row["seeds"]:
            arms.setdefault((row["compute"], row["why_not"]), []).append(f"{row['method']} at {row['size']}")
    return [f"No pair at {compute}, {why}: {', '.join(dict.fromkeys(names))}."
            for (compute, why), names in arms.items()]  # fmt: skip


def wrapped(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows in columns, the widest of which are wrapped so that no line is longer than WIDTH."""
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    while (over := sum(w + 2 for w in widths.values()) - 2 - WIDTH) > 0:
        *_, second, widest = [0, *sorted(widths, key=widths.__getitem__)]
        widths[widest] -= min(over, max(1, widths[widest] - widths.get(second, 0)))
    lines = []
    for row in [dict(zip(names, names)), *rows]:
        cells = {name: textwrap.wrap(row[name], widths[name]) or [""] for name in names}
        for at in range(max(map(len, cells.values()))):
            parts = [(cells[name][at] if at < len(cells[name]) else "").ljust(widths[name]) for name in names]
            lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
