"""Which training recipe for one-step pairs is best at a small compute budget? Successive halving.

    python benchmarks/search.py --teacher fashion --out results/benchmarks/search.json

Each stage compares changes to the best recipe so far on the 64x4 student at equal wall-clock: all
candidates for the first rung's seconds, the best third (at least two) for the next. A candidate's
images per second count: a slower step gets fewer updates. Stop it at any time and run it again: a stage
that `out` holds is not done again, and within a stage no row is. The last stage asks what changes when a
run is as long as those of the committed students.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import clocked
import torch
from torch import Tensor, nn

from lab import optim
from lab.config import DiTConfig, Recipe, Use
from lab.experiment import Compute
from lab.models.dit import DiT, Linear
from lab.perceptual import FeatureDistance, unit
from lab.results import Store, read_json, write_json

BASE = Recipe(
    data="fashion-mnist", teacher="fashion", pairs=100_000, student=DiTConfig(),
    methods=(Use("pairs", {"perceptual": 0.0}),), batch=64, optimizer="muon", lr=5e-3,
)  # fmt: skip

STAGES: dict[str, dict[str, dict]] = {
    "optimizer, rate and batch": {
        f"{optimizer} {lr:g} batch {batch}": {"optimizer": optimizer, "lr": lr, "batch": batch}
        for optimizer, lr, batch in [
            ("muon", 4e-3, 32), ("muon", 8e-3, 32), ("muon", 5e-3, 64), ("muon", 8e-3, 64), ("muon", 1.2e-2, 64),
            ("muon", 1.2e-2, 32), ("muon", 8e-3, 16), ("muon", 1.2e-2, 128), ("adamw", 2e-3, 32), ("adamw", 3e-3, 64),
        ]
    },
    "loss": {
        "l1": {}, "l2": {"methods": (Use("pairs", {"l1": 0.0, "l2": 1.0, "perceptual": 0.0}),)},
        "l1 + l2": {"methods": (Use("pairs", {"l2": 0.5, "perceptual": 0.0}),)},
        **{
            f"perceptual {weight:g}{late}": {"methods": (Use("pairs", {"perceptual": weight} | options),)}
            for weight, late, options in [
                (0.3, "", {}), (1.0, "", {}), (3.0, "", {}), (1.0, ", last half", {"perceptual_from": 0.5}),
                (3.0, ", last half", {"perceptual_from": 0.5}),
            ]
        },
    },
    "schedule, average and clipping": {
        "as before": {}, "cosine": {"schedule": "cosine"}, "constant": {"schedule": "constant"},
        "ema 0.99": {"ema": 0.99}, "ema 0.9995": {"ema": 0.9995},
        "no clipping": {"clip": 0.0}, "beta2 0.95": {"betas": (0.9, 0.95)},
    },
    "network": {
        "adaLN by Muon": {}, "head with a 3x3 convolution": {}, "head not from zero": {}, "adaLN by AdamW": {},
        # Elsewhere its products are thousands of times slower.
        **({"bfloat16": {"dtype": "bfloat16"}} if optim.fast_bfloat16("cpu") else {}),
    },
    "perceptual distance": {
        "as before": {}, "pooled features too": {},
        "pooled features too, weight 1": {"methods": (Use("pairs", {"perceptual": 1.0}),)},
    },
    "at length": {
        "as before": {}, "perceptual 1": {"methods": (Use("pairs", {"perceptual": 1.0}),)},
        "pooled features too, weight 1": {"methods": (Use("pairs", {"perceptual": 1.0}),)},
    },
}  # fmt: skip
# Ideas that the library has no knob for: a change of code, in force while the candidate trains and is measured.
PATCHES: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "head with a 3x3 convolution": lambda: _built(lambda net: setattr(net, "head", ConvHead(net.config))),
    "head not from zero": lambda: _built(lambda net: nn.init.xavier_uniform_(net.head.weight)),
    "adaLN by Muon": lambda: mock.patch.object(optim, "_block_matrices", _with_adaln),
    "pooled features too": lambda: mock.patch.object(FeatureDistance, "forward", _with_pooled),
    "pooled features too, weight 1": lambda: mock.patch.object(FeatureDistance, "forward", _with_pooled),
}
RUNGS_S = (60.0, 180.0)  # seconds of training; the best third goes on
TIE = 0.05  # in distance: less than that is no reason to change anything
ONE_RUNG_S = {"perceptual distance": (180.0,), "at length": (300.0,)}


class ConvHead(nn.Module):
    """The linear head, then a residual 3x3 convolution on the image, which sees across the patches' borders."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.linear = Linear(config.width, config.patch**2 * config.channels)
        self.conv = nn.Conv2d(config.channels, config.channels, 3, padding=1)
        self.patch, self.side = config.patch, config.image_size // config.patch
        for p in self.parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, p*p*C)."""
        s, p = self.side, self.patch
        x = self.linear(x)
        image = x.view(len(x), s, s, p, p, -1).permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, s * p, s * p)
        seams = self.conv(image).view(len(x), -1, s, p, s, p).permute(0, 2, 4, 3, 5, 1)
        return x + seams.reshape(x.shape)


def _built(change: Callable[[DiT], object]) -> contextlib.AbstractContextManager:
    """Every DiT that is built gets the change; also the one that the weights are read into."""
    plain = DiT.__init__

    def changed(self: DiT, config: DiTConfig) -> None:
        plain(self, config)
        change(self)

    return mock.patch.object(DiT, "__init__", changed)


def _with_pooled(self: FeatureDistance, a: Tensor, b: Tensor) -> Tensor:
    """The distance of the maps and, as one stage more, of the last one's mean over space."""
    mine, theirs = self.net.stages(a), self.net.stages(b)
    for maps in (mine, theirs):
        maps.append(maps[-1].mean((2, 3), keepdim=True))
    return torch.stack([(unit(m) - unit(n)).square().sum(1).mean((1, 2)) for m, n in zip(mine, theirs)]).mean(0)


def _with_adaln(modules: list[nn.Module]) -> dict[nn.Parameter, int]:
    blocks = [block for module in modules for block in getattr(module, "blocks", [])]
    return BLOCK_MATRICES(modules) | {block.adaln.weight: 6 for block in blocks}


BLOCK_MATRICES = optim._block_matrices


def search(base: Recipe, store: Store, compute: Compute, out: Path) -> Recipe:
    """Every stage in turn; writes all rows and the winners to `out`."""
    report = read_json(out) or {"base": base.to_json(), "rungs_s": RUNGS_S, "stages": []}
    done = {stage["stage"]: stage["winner"] for stage in report["stages"]}
    for stage, candidates in STAGES.items():
        if stage in done:
            base = base.with_(**candidates[done[stage]])
            continue
        base, rows = halve(base, candidates, store, compute, ONE_RUNG_S.get(stage, RUNGS_S))
        report["stages"].append({"stage": stage, "rows": rows, "winner": rows[-1]["name"]})
        report["best"] = base.to_json()
        write_json(out, report)
        print(f"\n{stage}\n{clocked.table(rows, COLUMNS)}", flush=True)
    return base


COLUMNS = ["name", "budget_s", "images_s", "updates", "teacher_l1", "fd"]


def halve(base: Recipe, candidates: dict[str, dict], store: Store, compute: Compute, rungs_s: tuple[float, ...]
          ) -> tuple[Recipe, list[dict]]:  # fmt: skip
    """Successive halving by distance, by thirds; the last row is the winner's."""
    alive, rows = dict(candidates), []
    for seconds in rungs_s:
        scores = {}
        for name, changes in alive.items():
            recipe = base.with_(**changes)
            if name in PATCHES:  # same recipe, other code: a rate of its own in the tenth digit gives it its own id
                recipe = recipe.with_(lr=recipe.lr * (1 + 1e-9 * (1 + [*PATCHES].index(name))))
            with PATCHES.get(name, contextlib.nullcontext)():
                row = clocked.run(name, recipe, seconds, store, compute)
            rows.append(row)
            scores[name] = row["fd"]
            print(clocked.table([row], COLUMNS).splitlines()[1], flush=True)
        best = sorted(alive, key=scores.__getitem__)
        alive = {name: alive[name] for name in best[: max(2, len(best) // 3)]}
    winner = best[0]
    if scores.get("as before", float("inf")) < scores[winner] + TIE:
        winner = "as before"
    rows.append(next(r for r in rows[::-1] if r["name"] == winner))
    return base.with_(**candidates[winner]), rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="fashion")
    parser.add_argument("--results", default="results", help="where the teacher and its pairs lie")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/search.json"))
    args = parser.parse_args()
    store = Store(args.results)
    winner = search(BASE.with_(teacher=args.teacher), store, Compute(compile=True), args.out)
    print(winner.to_json())
