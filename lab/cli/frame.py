"""What every command shares: its options, its answer, and how it finds store, machine and runs."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cli.text import table_text

if TYPE_CHECKING:
    from lab.experiment import Compute
    from lab.results import Run, Store

OK, FAILED, USAGE, MISSING = 0, 1, 2, 3


class Usage(Exception):
    """What was asked for can't be meant; the message says what could be."""


@dataclass
class Answer:
    """What a command found: a value for --json, and the same for a person."""

    value: Any
    text: str
    code: int = OK


class Parser(argparse.ArgumentParser):
    def add(self, *names: str, **options: Any) -> Parser:
        """add_argument that can be chained."""
        self.add_argument(*names, **options)
        return self


def command(commands: Any, function: Callable[[argparse.Namespace], Answer], help: str, *examples: str,
             takes: str = "") -> Parser:  # fmt: skip
    """One command named like its function, with the options that all have; `takes` names its arguments."""
    name = function.__name__.removesuffix("_")
    made = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog="Example" + "s" * (len(examples) > 1) + ":\n" + "\n".join(f"  python -m lab {e}" for e in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"python -m lab {name} {takes}".rstrip() + " [options]",
    )
    made.set_defaults(function=function)
    made.add("--results", metavar="FOLDER", help="results folder (default: LAB_RESULTS, or results/ of the lab)")
    made.add("--json", action="store_true", help="one JSON value on stdout and nothing else there")
    return made


def machine_options(made: Parser) -> Parser:
    made.add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="default: auto")
    return made.add("--threads", type=count_of(0), default=0, help="CPU threads (default 0: as many as torch takes)")


def dry_run_option(made: Parser) -> Parser:
    return made.add("--dry-run", action="store_true", help="say what would be made, and make nothing")


def would(rows: Sequence[Mapping[str, Any]]) -> Answer:
    """What --dry-run found: a row for each thing, with what `would` be done about it."""
    return Answer(list(rows), table_text(rows) + "\n\n--dry-run: nothing was done")


def count_of(low: int) -> Callable[[str], int]:
    """An argparse type: a whole number of at least `low`."""

    def whole(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < low:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {low}, got {text!r}")
        return int(text)

    return whole


def image_options(made: Any) -> None:
    """What a network's shape word does not say: the images that it is for."""
    made.add("--size", type=count_of(1), help="image side of a shape (default 28)")
    made.add("--channels", type=count_of(1), help="of a shape (default 1)")
    made.add("--classes", type=count_of(0), help="of a shape (default 10; 0 = unconditional)")


def image_of(args: argparse.Namespace) -> dict[str, int]:
    """The fields of a shape that `image_options` give."""
    return {"image_size": 28, "channels": 1, "num_classes": 10} | image_told(args)


def image_told(args: argparse.Namespace) -> dict[str, int]:
    """Those of them that were typed."""
    typed = {"image_size": args.size, "channels": args.channels, "num_classes": args.classes}
    return {name: value for name, value in typed.items() if value is not None}


def positive(text: str) -> float:
    """An argparse type: a number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")


def one_of(*known: str) -> Callable[[str], str]:
    """An argparse type: one of some words."""

    def word(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"must be {' or '.join(known)}, got {text!r}")
        return text

    return word


def list_of(kind: Callable[[str], Any], *, or_none: bool = False) -> Callable[[str], tuple]:
    """An argparse type: values separated by commas, at least one unless there may be none."""

    def several(text: str) -> tuple:
        said = {int: "whole numbers", float: "numbers"}.get(kind, "values")
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts and not or_none:
            raise argparse.ArgumentTypeError(f"must be {said} separated by commas, at least one, got {text!r}")
        try:
            return tuple(map(kind, parts))
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {said} separated by commas, got {text!r}") from None

    return several


def out_file(name: str, *endings: str) -> Path:
    """The file that --out names; another kind of file, and a folder, are usage errors before any work."""
    if Path(name).suffix not in endings:
        raise Usage(f"--out must end with {' or '.join(endings)}, got {name!r}")
    if Path(name).is_dir():
        raise Usage(f"--out {name!r} is a folder; name a file")
    return Path(name)


def open_store(args: argparse.Namespace, *, new: bool = False) -> Store:
    """The results folder of a command; one that is not there is an error unless it may be `new`."""
    from lab.results import Store

    if args.results and not new and not Path(args.results).exists():
        raise Usage(f"results folder {args.results!r} does not exist")
    store = Store(args.results)
    if store.root.exists() and not store.root.is_dir():
        raise Usage(f"results folder {str(store.root)!r} is a file; --results and LAB_RESULTS name folders")
    return store


def compute_of(args: argparse.Namespace, compile: bool | None = None) -> Compute:
    import torch

    from lab.experiment import Compute

    threads = args.threads if isinstance(args.threads, int) else 0  # `bench` sets each of several itself
    if threads:
        torch.set_num_threads(threads)
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if args.device in there and not there[args.device]():
        raise Usage(f"device {args.device!r} is not on this machine; --device auto takes what there is")
    return Compute(device=args.device, threads=threads, compile=compile)


def get_run(store: Store, name: str) -> Run:
    """A run by name; an unknown one is a usage error with the nearest names."""
    try:
        return store.get(name)
    except LookupError as error:
        raise Usage(str(error)) from None


def finished(store: Store, names: Sequence[str]) -> list[Run]:
    """The named runs, or every run with a finished network."""
    if names:
        return [get_run(store, name) for name in names]
    runs = [r for r in store.runs() if isinstance(r.read("student"), dict) and r.readable]
    if not runs:
        raise LookupError(f"no finished run in {store.root}; start with `python -m lab run --help`")
    return runs


@contextlib.contextmanager
def as_usage() -> Iterator[None]:
    """A ValueError in here means that the request was wrong."""
    try:
        yield
    except ValueError as error:
        raise Usage(str(error)) from error
