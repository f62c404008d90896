"""Thousands of runs that nobody trained, to see whether the pages stay fast among them.

    python benchmarks/synthetic.py /tmp/many --runs 5000

Copies a results folder and fills it up: each new run is a finished student of it under another seed, with weights, a
distance and timings of its own; its other files are hard links. Nothing is trained, and none of it is a result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lab.choose import EXACT
from lab.results import Run, Store, default_root

SHARED = ("status.json", "cost.json", "env.json", "log.jsonl", "samples.npz", "samples.png")
FIRST_SEED = 1000  # above those of real runs, of which some differ by their seed alone
SPREAD = 0.1  # standard deviation of the logarithms of distances and times, of one shape


def copied(results: Path, to: Path) -> Store:
    """A results folder whose files are hard links to those of another: pages replace files whole, so those stay."""
    shutil.copytree(results, to, copy_function=os.link, ignore=shutil.ignore_patterns(".cache", "pairs"))
    return Store(to)


def fill(store: Store, count: int, *, timed: int = 2) -> None:
    """Add runs to a store, in turn of each finished student that it has; `timed` are the reports of each at most."""
    table, reports = store.table(), store.reports()
    done = table[table["state"].eq("done") & table["role"].eq("student") & table["fd"].notna()]
    students = [Run(store.root / "runs" / run) for run in done["run"]]
    alike = reports[reports["model.precision"].isin(EXACT) & reports["workload.batch"].eq(1)
                    & reports["workload.scope"].eq("core")]  # fmt: skip
    alike = alike.sort_values("timing.p50").drop_duplicates(["model.weights_sha256", "software.runtime"])
    of = {weights: [store.report(report) for report in rows["report_id"][:timed]]
          for weights, rows in alike.groupby("model.weights_sha256")}  # fmt: skip
    rng = np.random.default_rng(0)
    for k in range(count):
        run = students[k % len(students)]
        _add(store, run, FIRST_SEED + k, of.get(run.read("student")["weights_sha256"], []), rng)


def _add(store: Store, of: Run, seed: int, reports: Sequence[dict], rng: np.random.Generator) -> None:
    recipe = of.recipe.with_(seed=seed)
    run = Run(store.root / "runs" / recipe.id)
    run.path.mkdir()
    weights = hashlib.sha256(run.id.encode()).hexdigest()
    student, metrics = (of.read(name) | {"weights_sha256": weights} for name in ("student", "metrics"))
    distance, slower = np.exp(rng.normal(0, SPREAD, 2))
    fd = metrics["values"]["fd"]
    fd["value"] *= distance
    fd["ci95"] = [end * distance for end in fd["ci95"]]
    # Without lab.results.write_whole: to wait for the disk at each of tens of thousands takes minutes.
    (run.path / "recipe.json").write_text(recipe.to_json())
    (run.path / "student.json").write_text(json.dumps(student))
    (run.path / "metrics.json").write_text(json.dumps(metrics))
    for name in SHARED:
        if (of.path / name).exists():
            os.link(of.path / name, run.path / name)
    for k, report in enumerate(reports):
        name, timing = f"{run.id[-8:]}-synthetic-{seed}-{k}", report["timing"]
        times = {key: timing[key] * slower for key in ("p50", "p90", "p99", "min", "mean", "std") if timing.get(key)}
        plain = report | {
            "report_id": name, "timing": timing | times | {"p50_ci95": [end * slower for end in timing["p50_ci95"]]},
            "model": report["model"] | {"model_id": run.id, "weights_sha256": weights},
        }  # fmt: skip
        (store.root / "devices" / f"{name}.json").write_text(json.dumps(plain))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("to", type=Path, help="a folder that is not there yet")
    parser.add_argument("--results", type=Path, default=default_root(), help="the results folder that is copied")
    parser.add_argument("--runs", type=int, default=5000, help="in all")
    args = parser.parse_args()
    store = copied(args.results, args.to)
    fill(store, args.runs - len(store.runs()))
    print(f"{len(store.runs()):,} runs and {len(store.reports()):,} reports in {args.to}")
