"""Is the lab's default recipe better than the published one, and than well-tuned AdamW, at equal wall-clock?

    python benchmarks/recipe.py --seconds 600 --seeds 3 --out results/benchmarks/recipe.json

One-step pair distillation of the 0.3 M student on the same pairs with the same loss terms, interleaved
seed by seed. The speed of every recipe is measured first, the best of three turns on a machine left quiet;
a run then has as many updates as the seconds hold at that speed, so what shares the machine later costs
time, not updates. Rivals: (a) the published pair recipe (AdamW 1e-4 constant, batch 128, with a warm-up, the
better EMA of 0.999 and 0.9999); (b) AdamW with batch 128 at the best rate of 3e-4, 1e-3, 2e-3; both choose
on the first seed. Prints distances and their ratios; at most 0.5 and 0.8 is what the lab aims for.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import clocked

from lab.config import DiTConfig, Recipe
from lab.experiment import Compute
from lab.results import Store, write_json

LAB = Recipe(data="fashion-mnist", teacher="fashion", pairs=100_000, student=DiTConfig())
PUBLISHED = {"optimizer": "adamw", "lr": 1e-4, "betas": (0.9, 0.999), "batch": 128, "schedule": "constant", "clip": 0.0}
ADAMW = {"optimizer": "adamw", "batch": 128}
CHOICES = {
    "lab": {"default": {}},
    "published": {f"ema {ema}": PUBLISHED | {"ema": ema} for ema in (0.999, 0.9999)},
    "adamw": {f"lr {lr:g}": ADAMW | {"lr": lr} for lr in (3e-4, 1e-3, 2e-3)},
}
TURNS = 3  # in which the speeds are measured
COLUMNS = ["name", "seed", "images_s", "updates", "trained_s", "teacher_l1", "fd"]


def compare(store: Store, compute: Compute, *, seconds: float, seeds: int, base: Recipe, out: Path) -> dict:
    """All rows, the chosen variants, and the ratios of mean distances; written to `out` after every run."""
    rows, chosen = [], {}

    def row(rival: str, variant: str, seed: int) -> dict:
        found = clocked.run(
            f"{rival} {variant}", base.with_(seed=seed, **CHOICES[rival][variant]), seconds, store, compute
        )
        rows.append(found)
        print(clocked.table([found], COLUMNS).splitlines()[1], flush=True)
        return found

    for tries in range(1, TURNS + 1):
        for variants in CHOICES.values():
            for options in variants.values():
                clocked.plan(base.with_(**options), store, compute, tries)
    for rival, variants in CHOICES.items():
        scores = {variant: row(rival, variant, 0)["fd"] for variant in variants}
        chosen[rival] = min(scores, key=scores.__getitem__)
    for seed in range(1, seeds):
        for rival, variant in chosen.items():
            row(rival, variant, seed)
            write_json(out, report(rows, chosen, seconds, base.pairs))
    write_json(out, report(rows, chosen, seconds, base.pairs))
    return report(rows, chosen, seconds, base.pairs)


def report(rows: list[dict], chosen: dict[str, str], seconds: float, pairs: int) -> dict:
    """The mean distance of each rival's chosen variant over the seeds, and the lab's over it."""
    fds = {r: [row["fd"] for row in rows if row["name"] == f"{r} {v}"] for r, v in chosen.items()}
    ratios = {r: mean(fds["lab"]) / mean(f) for r, f in fds.items() if r != "lab"}
    by_seed = {r: [a / b for a, b in zip(fds["lab"], f)] for r, f in fds.items() if r != "lab"}
    return {"seconds": seconds, "pairs": pairs, "chosen": chosen, "fd": fds, "ratio": ratios, "ratio_by_seed": by_seed,
            "rows": rows}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher", default="fashion")
    parser.add_argument("--pairs", type=int, default=LAB.pairs, help="that all rivals learn from (default 100000)")
    parser.add_argument("--results", default="results", help="where the teacher and its pairs lie")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/recipe.json"))
    args = parser.parse_args()
    found = compare(
        Store(args.results), Compute(compile=True), seconds=args.seconds, seeds=args.seeds,
        base=LAB.with_(teacher=args.teacher, pairs=args.pairs), out=args.out,
    )  # fmt: skip
    for rival, ratio in found["ratio"].items():
        each = ", ".join(f"{r:.3f}" for r in found["ratio_by_seed"][rival])
        print(f"lab / {rival} ({found['chosen'][rival]}): {ratio:.3f} (by seed {each})")
