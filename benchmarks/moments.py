"""Does matching the moments of a batch's features bring a finished student nearer to the real images?

    python benchmarks/moments.py d2w48h4p4m224 --pairs 40960 --out results/benchmarks/moments.json

A student trained on L1 and the perceptual term draws features that vary less than the teacher's, for what it can't
tell it averages. Here it trains on for 1,500 updates, once as before and with a term more: the gap between the mean and
the covariance of pooled features of its images and of the teacher's of the same noises. The features are those of the
perceptual net, so that the distance, which looks through another net, is a fair judge. Rows of `out` are kept.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import clocked
import torch
from torch import Tensor

from lab import experiment, metrics
from lab.experiment import Compute, commit
from lab.perceptual import FeatureDistance
from lab.results import Store, read_json, write_json

UPDATES = 1_500
SETTINGS = [  # weight, decay of the running gap, learning rate
    (0.0, 0.97, 3e-3), (0.0, 0.97, 1e-3), (0.004, 0.97, 3e-3), (0.004, 0.9, 3e-3), (0.02, 0.9, 3e-3),
    (0.02, 0.97, 1e-3), (0.1, 0.97, 4e-4),
]  # fmt: skip
COLUMNS = ["weight", "decay", "lr", "fd", "fd_teacher", "teacher_l1", "precision", "recall"]
PLAIN = FeatureDistance.forward


def with_moments(weight: float, decay: float) -> Callable[[FeatureDistance, Tensor, Tensor], Tensor]:
    """The perceptual distance plus `weight` times the gap of the moments, over the perceptual term's own weight.

    The gap is a running mean, and the loss its inner product with the batch's moments: the square of one batch's gap
    would mostly be the noise of 64 images, and less noise is less variance, the contrary of what is wanted.
    """
    running: list[Tensor] = []

    def forward(self: FeatureDistance, a: Tensor, b: Tensor) -> Tensor:
        distance = PLAIN(self, a, b)
        if not weight or not torch.is_grad_enabled():
            return distance
        mine, theirs = (torch.cat([m.mean((2, 3)) for m in self.net.stages(x)], 1) for x in (a, b))  # (B, D)
        if not running:
            running.extend([theirs.var(0).mean().sqrt().detach(), torch.zeros(()), torch.zeros(()), torch.ones(())])
        scale, mean_gap, cov_gap, rest = running
        (m, C), (m_T, C_T) = (moments(x / scale) for x in (mine, theirs))
        mean_gap = decay * mean_gap + (1 - decay) * (m - m_T).detach()
        cov_gap = decay * cov_gap + (1 - decay) * (C - C_T).detach()
        running[1:] = [mean_gap, cov_gap, decay * rest]
        gap = 2 * ((mean_gap * m).sum() + (cov_gap * C).sum()) / (1 - decay * rest) / len(m)
        return distance + weight / 0.3 * gap

    return forward


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of features (B, D)."""
    return features.mean(0), torch.cov(features.T)


def trained_on(store: Store, name: str, pairs: int, weight: float, decay: float, lr: float) -> dict[str, float]:
    """One row: the student after UPDATES more, in a results folder of its own that is thrown away."""
    run = store.get(name)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Store(Path(folder))
        for source in (run, store.get(run.recipe.teacher)):
            shutil.copytree(source.path, scratch.root / "runs" / source.id)
        for shared in ("pairs", ".cache"):
            (scratch.root / shared).symlink_to((store.root / shared).absolute())
        recipe = run.recipe.with_(start=(run.id,), pairs=pairs, steps=UPDATES, keep=(), lr=lr)
        with mock.patch.object(FeatureDistance, "forward", with_moments(weight, decay)):
            done = experiment.run(recipe, scratch, compute=Compute(compile=False), measure=False)
        values = metrics.evaluate(done, scratch)["values"]
    return {"weight": weight, "decay": decay, "lr": lr} | {k: values[k]["value"] for k in COLUMNS[3:]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", help="id, part of one, or label")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/moments.json"))
    parser.add_argument("--pairs", type=int, help="noise-image pairs to train on with; default: those of the student")
    args = parser.parse_args()
    store = Store()
    before = read_json(args.out) or {}
    run = store.get(args.student)
    made_of = {"student": run.id, "pairs": args.pairs or run.recipe.pairs, "updates": UPDATES}
    rows = before["rows"] if before and all(before.get(key) == value for key, value in made_of.items()) else []
    for setting in SETTINGS:
        if setting not in [(r["weight"], r["decay"], r["lr"]) for r in rows]:
            rows.append(trained_on(store, run.id, made_of["pairs"], *setting))
            write_json(args.out, made_of | {"rows": rows, "commit": commit()})
    print(clocked.table(rows, COLUMNS))
