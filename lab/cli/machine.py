"""Commands about this machine: doctor, fetch."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from lab.cli.frame import (
    FAILED,
    OK,
    Answer,
    Usage,
    command,
    dry_run_option,
    would,
)
from lab.cli.text import table_text

# What `fetch` knows besides data sets, and the images that these weights look at.
WEIGHTS = {"inception": "299x299x3", "lpips": "colour from 32x32"}


def add_doctor(commands: Any) -> None:
    command(commands, doctor, "check this machine: versions, devices, disk, data, results", "doctor", "doctor --json")


def doctor(args: argparse.Namespace) -> Answer:
    from lab.doctor import examine

    found = examine(args.results)  # as a path: reading results takes packages whose lack is to be told
    rows = [{"check": f.check, "state": f.state, "found": f.found} for f in found]
    mends = [f"{f.check}: {f.mend}" for f in found if f.mend]
    text = table_text(rows) + ("\n\n" + "\n".join(mends) if mends else "")
    return Answer([vars(f) for f in found], text, FAILED if any(f.state == "wrong" for f in found) else OK)


def add_fetch(commands: Any) -> None:
    made = command(commands, fetch, "bring data sets and weights to this machine, with checksums",
                    "fetch fashion-mnist", "fetch cifar10 inception lpips", takes="NAME [NAME ...]")  # fmt: skip
    made.add(
        "names",
        nargs="+",
        metavar="NAME",
        help="digits, fashion-mnist, cifar10, folder:<path>; inception, lpips (weights for distances of natural "
        "images and for the perceptual term, 91 and 528 MB)",
    )
    dry_run_option(made)


def fetch(args: argparse.Namespace) -> Answer:
    from lab import data
    from lab.config import unknown

    known = [*data.DATASETS, *WEIGHTS]
    for name in args.names:
        if name not in known and not name.startswith("folder:"):
            raise Usage(unknown("data set", name, [*known, "folder:<path>"]))
    if args.dry_run:
        return would([{"name": name, "would": _would_fetch(name)} for name in args.names])
    rows = [_fetch_one(name) for name in args.names]
    return Answer(rows, table_text(rows))


def _would_fetch(name: str) -> str:
    from lab import data

    if name.startswith("folder:"):
        return "read its pictures"
    if name in WEIGHTS:
        from lab import metrics, perceptual

        file = (
            perceptual.weights_dir() / {"inception": metrics.INCEPTION_FILE, "lpips": perceptual.BACKBONES["vgg"]}[name]
        )
        return "nothing, it is here" if file.exists() else f"download {file}"
    fault = data.fault(name)
    return f"download it: {fault[0]}" if fault else "nothing, it is here"


def _fetch_one(name: str) -> dict[str, Any]:
    from lab import data

    if name in WEIGHTS:
        from lab import metrics, perceptual

        if name == "inception":
            metrics.create(metrics.INCEPTION, "cpu")
        else:
            perceptual.fetch()
        return {"name": name, "train": "", "test": "", "size": WEIGHTS[name], "classes": "", "skipped": ""}
    train = data.load(name, "train")
    try:
        test = len(data.load(name, "test").images)
    except data.MissingData as error:
        if not name.startswith("folder:"):
            raise
        test = 0  # a few pictures can be learned from, and are measured against none
        warnings.warn(str(error), stacklevel=2)
    _, channels, side, _ = train.images.shape
    return {
        "name": name, "train": len(train.images), "test": test, "size": f"{side}x{side}x{channels}",
        "classes": len(train.class_names), "skipped": len(train.skipped),
    }  # fmt: skip
