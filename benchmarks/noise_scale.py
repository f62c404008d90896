"""Does a one-step student draw better from noise that is a little smaller than what it was trained on?

    python benchmarks/noise_scale.py d8w24h2p4m128 d12w40h4p4m104 --out results/benchmarks/noise_scale.json

A student that is too small for its teacher's map lets the grain of the noise through into flat areas. Here its input is
multiplied by a number below one, which costs nothing (it folds into the patch embedding), and the evaluation is done
again on its own seeds: distance to the real images and to the teacher's, precision, recall, and the mean absolute
difference to the teacher's image of the same, unscaled noise. Rows of `out` are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import clocked
import torch

from lab import diffusion, metrics
from lab.experiment import commit
from lab.results import Run, Store, read_json, write_json
from lab.sampling import generate
from lab.weights import load_student, spec_of_run

SCALES = (1.0, 0.97, 0.94, 0.91, 0.88)
COLUMNS = ["run", "scale", "fd", "fd_teacher", "teacher_l1", "precision", "recall"]


def measured(store: Store, run: Run, scale: float) -> dict[str, object]:
    """One row, by the evaluation of the run's data."""
    recipe, spec, net = run.recipe, spec_of_run(run), load_student(run)
    net.embed.register_forward_pre_hook(lambda layer, given: (given[0] * scale,))
    count = metrics.SAMPLES.get(recipe.data, metrics.DEFAULT_SAMPLES)
    seeds = range(diffusion.EVAL_SEED, diffusion.EVAL_SEED + count)
    fresh = range(diffusion.REFERENCE_SEED, diffusion.REFERENCE_SEED + count)
    extractor = metrics.extractor_of(recipe.data)
    real, _ = metrics.real_features(recipe, store, extractor)
    images, _ = generate(net, spec, seeds, y=metrics.labels(recipe, spec, seeds))
    mine = metrics.extract(images, extractor)
    theirs = metrics.extract(metrics.teacher_images(recipe, store, fresh), extractor)
    same = metrics.teacher_images(recipe, store, seeds[: metrics.TEACHER_IMAGES])
    apart = diffusion.from_uint8(images[: len(same)]) - diffusion.from_uint8(same)
    precision, recall = metrics.precision_recall(mine, real)
    return {"run": run.id, "scale": scale, "fd": metrics.fd(mine, real), "fd_teacher": metrics.fd(mine, theirs),
            "teacher_l1": apart.abs().mean().item(), "precision": precision, "recall": recall,
            "spread": torch.cov(mine.T).trace().item(), "spread_real": torch.cov(real.T).trace().item()}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("students", nargs="+", help="ids, parts of one, or labels")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/noise_scale.json"))
    args = parser.parse_args()
    store = Store()
    rows = (read_json(args.out) or {}).get("rows", [])
    for run in map(store.get, args.students):
        for scale in SCALES:
            if (run.id, scale) not in [(row["run"], row["scale"]) for row in rows]:
                rows.append(measured(store, run, scale))
                write_json(args.out, {"rows": rows, "commit": commit()})
    print(clocked.table(rows, COLUMNS))
