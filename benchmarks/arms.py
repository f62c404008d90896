"""How long an update of every arm of a comparison takes, and so how many updates are equal wall-clock.

    python benchmarks/arms.py recipes/sweeps/teaching-assistant.json
    python benchmarks/arms.py recipes/sweeps/teaching-assistant.json --seconds 20 --rounds 5

The arms are the recipes of a sweep file. They take turns, compiled, on the same machine, in the order of the file and
back: a round is so many seconds of each, and a ratio is taken within a round. `steps` are those of the plain arm's
wall-clock: with the recipe of each shape that has the objective alone as the measure, how many updates every other arm
has in the same time.
A guide's answers are made before; their seconds stand beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from networks import commit, machine

from lab import sweep
from lab.data import Batch
from lab.experiment import Assembled, assemble, plan
from lab.plan import Job
from lab.results import Store, write_json
from lab.train import update

WARM = 20  # updates: compilation, allocator, caches


class Arm:
    """A recipe whose updates are timed."""

    def __init__(self, job: Job, label: str, store: Store) -> None:
        self.job, self.label = job, label
        self.made: Assembled = assemble(job, store, torch.device("cpu"), compiled=True)
        self.made.state.student.train()
        self.made.nets.compile()
        self.stream: Iterator[Batch] = self.made.batches(0)
        self.ms: list[float] = []  # of an update, by round
        for _ in range(WARM):
            self._update()

    def _update(self) -> None:
        update(self.made.state, self.made.nets, self.job.recipe, next(self.stream))

    def turn(self, seconds: float) -> None:
        count, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            self._update()
            count += 1
        self.ms.append(1000 * took / count)


def rows_of(arms: list[Arm]) -> list[dict]:
    """Of every arm its median update, and the updates that fit into its plain twin's time."""
    rows = []
    for arm in arms:
        recipe = arm.job.recipe
        plain = next((a for a in arms if a.job.recipe.student == recipe.student and not a.job.recipe.guide
                      and len(a.job.recipe.methods) == 1), arm)  # fmt: skip
        ratios = sorted(mine / theirs for mine, theirs in zip(arm.ms, plain.ms))
        ratio = statistics.median(ratios)
        answers = arm.made.nets.answers
        rows.append({
            "label": arm.label, "run": recipe.id, "ms": round(statistics.median(arm.ms), 3),
            "over_plain": round(ratio, 4),
            "over_plain_spread": [round(ratios[0], 4), round(ratios[-1], 4)], "updates": recipe.steps,
            "updates_in_the_plain_time": round(plain.job.recipe.steps / ratio),
            "guide_seconds": round(answers.seconds, 1) if answers else 0.0, "recipe": json.loads(recipe.to_json()),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each arm in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/arms.json"))
    args = parser.parse_args()
    store = Store(args.results)
    found = sweep.read(args.sweep.read_text(), args.sweep.stem)
    arms = []
    torch._dynamo.config.recompile_limit = 8 * (1 + len(found.entries))  # all arms share the code of their network
    for entry in found.entries:
        job = plan(entry.recipe, store)[-1]
        arms.append(Arm(job, entry.label, store))
    for number in range(args.rounds):
        for arm in arms[:: 1 if number % 2 == 0 else -1]:
            arm.turn(args.seconds)
    rows = rows_of(arms)
    for row in rows:
        print(row)
    write_json(args.out, {"machine": machine(), "seconds": args.seconds, "rounds": args.rounds, "rows": rows,
                          "threads": torch.get_num_threads(), "commit": commit()})  # fmt: skip


if __name__ == "__main__":
    main()
