"""python -m lab COMMAND: every step of the lab from the command line.

Exit codes: 0 done, 1 it failed, 2 the command or a name in it is wrong, 3 data or weights are not on
this machine. With --json one JSON value goes to stdout and nothing else; all else goes to stderr.
Commands import what they need when they run, so that `--help` comes at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lab.cli import device, distill, judge, look, machine, measure, report, split, sweep
from lab.cli.frame import FAILED, MISSING, OK, USAGE, Parser, Usage
from lab.cli.text import plain

LAB = Path(__file__).parent.parent
COMMANDS = (
    machine.add_doctor,
    machine.add_fetch,
    distill.add_pairs,
    distill.add_run,
    sweep.add_sweep,
    measure.add_eval,
    measure.add_sample,
    look.add_count,
    measure.add_bench,
    device.add_predict,
    measure.add_export,
    device.add_pack,
    device.add_import,
    split.add_similar,
    split.add_place,
    look.add_ls,
    measure.add_verify,
    look.add_choose,
    report.add_report,
    judge.add_claims,
    judge.add_verdicts,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    args = parser().parse_args(argv)
    for name, given in vars(args).items():  # which a shell leaves as it is in --out=~/a.png
        if isinstance(given, str) and given.startswith("~"):
            setattr(args, name, os.path.expanduser(given))
    try:
        with contextlib.redirect_stdout(sys.stderr), _notices():  # libraries print; stdout is for the answer alone
            answer = args.function(args)
        print(json.dumps(plain(answer.value), indent=1, allow_nan=False) if args.json else answer.text, flush=True)
        return answer.code
    except BrokenPipeError:  # `python -m lab ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("LAB_DEBUG") == "1":
            raise
        print(f"lab {args.command}: {_sentence(error)}", file=sys.stderr)
        return _code(error)


@contextlib.contextmanager
def _notices() -> Iterator[None]:
    """A warning of the lab as one line without its place in the code; others as they come."""
    shown = warnings.formatwarning

    def line(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> str:
        ours = category is UserWarning and Path(filename).is_relative_to(LAB)
        return f"lab: {message}\n" if ours else shown(message, category, filename, *rest)

    warnings.formatwarning = line
    try:
        yield
    finally:
        warnings.formatwarning = shown


def _code(error: BaseException) -> int:
    if isinstance(error, Usage):
        return USAGE
    ours = isinstance(error, (KeyError, IndexError))  # LookupErrors too, but faults of the lab
    return MISSING if isinstance(error, LookupError) and not ours else FAILED


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command goes on with what is already there"
    if isinstance(error, ModuleNotFoundError) and not f"{error.name}.".startswith("lab."):
        return (f"needs the package {error.name}, which {sys.executable} has not; install it by `pip install -r "
                "requirements.txt`, or use the Python of the environment that has it")  # fmt: skip
    known = (Usage, LookupError, ValueError, OSError, RuntimeError)
    text = str(error).strip()
    if text and isinstance(error, known) and type(error) not in (KeyError, IndexError):
        return text
    return f"{type(error).__name__}: {text}; LAB_DEBUG=1 shows where"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="python -m lab",
        description="Distil, measure and choose small one-step Diffusion Transformers.",
        epilog="Example: python -m lab choose --params-m 0.35 --latency-ms 1\n"
        "Help on one command: python -m lab run --help\n"
        "LAB_RESULTS names another results folder, LAB_DATA another cache, LAB_DEBUG=1 shows tracebacks.\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage or unknown name, 3 missing data or weights.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for add in COMMANDS:
        add(commands)
    return top


__all__ = ["FAILED", "MISSING", "OK", "USAGE", "main", "parser"]
