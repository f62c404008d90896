"""Which training recipe for one-step pairs is best at a small compute budget? Successive halving.

    python benchmarks/search.py --teacher fashion --out results/benchmarks/search.json

Each stage compares changes to the best recipe so far on the 64x4 student at equal wall-clock: all
candidates for the first rung's seconds, the better half for the next, and so on. A candidate's
images per second count: a slower step gets fewer updates. Stop it at any time and run it again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import clocked

from lab.config import DiTConfig, Recipe, Use
from lab.experiment import Machine
from lab.results import Store, write_json

BASE = Recipe(
    data="fashion-mnist", teacher="fashion", pairs=100_000, student=DiTConfig(), methods=(Use("pairs"),),
    batch=64, optimizer="muon", lr=5e-3,
)  # fmt: skip

STAGES: dict[str, dict[str, dict]] = {
    "optimizer, rate and batch": {
        f"{optimizer} {lr:g} batch {batch}": {"optimizer": optimizer, "lr": lr, "batch": batch}
        for optimizer, lr, batch in [
            ("muon", 2e-3, 32), ("muon", 5e-3, 32), ("muon", 8e-3, 32),
            ("muon", 5e-3, 64), ("muon", 8e-3, 64), ("muon", 1.2e-2, 64),
            ("muon", 8e-3, 128), ("muon", 1.6e-2, 128),
            ("adamw", 2e-3, 32), ("adamw", 3e-3, 64), ("adamw", 2e-3, 128),
        ]
    },
    "schedule, average and clipping": {
        "as before": {}, "cosine": {"schedule": "cosine"}, "constant": {"schedule": "constant"},
        "ema 0.99": {"ema": 0.99}, "ema 0.995": {"ema": 0.995}, "ema 0.999": {"ema": 0.999},
        "no clipping": {"clip": 0.0}, "beta2 0.999": {"betas": (0.9, 0.999)}, "beta2 0.95": {"betas": (0.9, 0.95)},
    },
    "loss": {
        "l1": {}, "l2": {"methods": (Use("pairs", {"l1": 0.0, "l2": 1.0}),)},
        "l1 + l2": {"methods": (Use("pairs", {"l2": 0.5}),)},
        "perceptual 0.1, last 35 %": {"methods": (Use("pairs", {"perceptual": 0.1, "perceptual_from": 0.65}),)},
        "perceptual 0.3, last 35 %": {"methods": (Use("pairs", {"perceptual": 0.3, "perceptual_from": 0.65}),)},
        "perceptual 0.1": {"methods": (Use("pairs", {"perceptual": 0.1}),)},
        "perceptual 0.5": {"methods": (Use("pairs", {"perceptual": 0.5}),)},
    },
    "precision": {"float32": {}, "bfloat16": {"dtype": "bfloat16"}},
}  # fmt: skip
RUNGS_S = (60.0, 150.0, 300.0)  # seconds of training; the better half goes on


def search(base: Recipe, store: Store, machine: Machine, out: Path) -> Recipe:
    """Every stage in turn; writes all rows and the winners to `out`."""
    report = {"base": base.to_json(), "rungs_s": RUNGS_S, "stages": []}
    for stage, candidates in STAGES.items():
        base, rows = halve(base, candidates, store, machine)
        report["stages"].append({"stage": stage, "rows": rows, "winner": rows[-1]["name"]})
        report["best"] = base.to_json()
        write_json(out, report)
        print(f"\n{stage}\n{clocked.table(rows, COLUMNS)}", flush=True)
    return base


COLUMNS = ["name", "budget_s", "images_s", "updates", "teacher_l1", "fd"]


def halve(base: Recipe, candidates: dict[str, dict], store: Store, machine: Machine) -> tuple[Recipe, list[dict]]:
    """Successive halving by distance; the last row is the winner's."""
    alive, rows = dict(candidates), []
    for seconds in RUNGS_S:
        scores = {}
        for name, changes in alive.items():
            row = clocked.run(name, base.with_(**changes), seconds, store, machine)
            rows.append(row)
            scores[name] = row["fd"]
            print(clocked.table([row], COLUMNS).splitlines()[1], flush=True)
        best = sorted(alive, key=scores.__getitem__)
        alive = {name: alive[name] for name in best[: max(1, len(best) // 2)]}
    rows.append(next(r for r in rows[::-1] if r["name"] == best[0]))
    return base.with_(**candidates[best[0]]), rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="fashion")
    parser.add_argument("--results", default="results", help="where the teacher and its pairs lie")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/search.json"))
    args = parser.parse_args()
    store = Store(args.results)
    winner = search(BASE.with_(teacher=args.teacher), store, Machine(), args.out)
    print(winner.to_json())
