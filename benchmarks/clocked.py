"""Recipes of equal wall-clock: how many updates fit into so many seconds on this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import shutil

from lab import experiment, metrics
from lab.config import Recipe
from lab.experiment import Compute
from lab.results import Run, Store, read_json, write_json

SAME_WORK = {"seed": 0, "lr": 1e-3, "ema": 0.999, "betas": (0.9, 0.999)}
TRIAL_STEPS = 200  # the first window, LOG_EVERY of them, holds the compilation


def speed(recipe: Recipe, store: Store, compute: Compute) -> float:
    """Images per second of the loop on this recipe, in the best window of a short run that is thrown away.

    The best and not the mean: what else the machine does must not decide how many updates a recipe gets.
    """
    trial = dataclasses.replace(recipe, steps=TRIAL_STEPS, keep=(), seed=recipe.seed + 1_000_000)
    shutil.rmtree(store.root / "runs" / experiment.resolve(trial, store).id, ignore_errors=True)
    run = experiment.run(trial, store, compute=compute, measure=False)
    rows = run.log_rows()
    shutil.rmtree(run.path)
    return max((b["images"] - a["images"]) / (b["seconds"] - a["seconds"]) for a, b in itertools.pairwise(rows))


def fitted(recipe: Recipe, seconds: float, images_s: float) -> Recipe:
    """The recipe with as many updates as `seconds` hold; warm-up at most a tenth of them."""
    steps = max(1, round(seconds * images_s / recipe.batch))
    return dataclasses.replace(recipe, steps=steps, warmup=min(recipe.warmup, steps // 10))


def plan(recipe: Recipe, store: Store, compute: Compute, tries: int = 1) -> float:
    """`speed` of the recipe, the best of `tries`, measured once: what a stopped run goes on with.

    Recipes that differ in `SAME_WORK` alone compute the same and share one figure, so that the machine's mood
    favours none of them. Asked for every rival before any trains, the speeds are of one stretch, and the
    trainings may share the machine: their updates are counted, not their seconds.
    """
    path = store.root / "rows" / f"{_key(dataclasses.replace(recipe, **SAME_WORK).to_json())}.plan.json"
    kept = read_json(path) or {"images_s": 0.0, "tries": 0}
    while kept["tries"] < tries:
        found = speed(recipe, store, compute)
        kept = {"images_s": max(found, kept["images_s"]), "tries": kept["tries"] + 1}
        write_json(path, kept)
    return kept["images_s"]


def run(name: str, recipe: Recipe, seconds: float, store: Store, compute: Compute) -> dict[str, object]:
    """One row of a table: the recipe trained for `seconds` and measured. A finished row is not done again."""
    path = store.root / "rows" / f"{_key(f'{recipe.to_json()}|{seconds}')}.json"
    if (row := read_json(path)) is None:
        images_s = plan(recipe, store, compute)
        done = experiment.run(fitted(recipe, seconds, images_s), store, compute=compute, measure=False)
        row = _row(name, done, store, seconds, images_s)
        write_json(path, row)
    return row | {"name": name}  # a candidate of one stage may be another's `as before`


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _row(name: str, done: Run, store: Store, seconds: float, images_s: float) -> dict[str, object]:
    found, last = metrics.evaluate(done, store), done.log_rows()[-1]
    return {
        "name": name, "run": done.id, "seed": done.recipe.seed, "budget_s": seconds, "trained_s": last["seconds"],
        "images_s": round(images_s, 1), "updates": last["step"], "images": last["images"],
        "fd": found["values"]["fd"]["value"], "teacher_l1": found["values"]["teacher_l1"]["value"],
        "loss": {k: v for k, v in last.items() if "/" in k}, "extractor": found["extractor"],
        "samples": found["samples"], "env": done.read("env")["sittings"][-1],
    }  # fmt: skip


def table(rows: list[dict], columns: list[str]) -> str:
    """Rows as aligned text."""
    cells = [columns] + [[f"{r[c]:.4g}" if isinstance(r[c], float) else str(r[c]) for c in columns] for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)) for row in cells)
