"""How long an update of every arm of a comparison takes, and so how many updates are equal wall-clock.

    python benchmarks/arms.py recipes/sweeps/teaching-assistant.json
    python benchmarks/arms.py recipes/sweeps/teaching-assistant.json --seconds 5 --rounds 20
    python benchmarks/arms.py recipes/sweeps/teaching-assistant.json --guides  # in the file that is there, those alone

The arms are the recipes of a sweep file. They take turns, compiled, on the same machine, in the order of the file and
back: a round is so many seconds of each, and a ratio is taken within a round. Rounds are short, for others' load comes
and goes in bursts, and go on until the median ratio of every arm is known within KNOWN, or there are --most.
`steps` are those of the plain arm's wall-clock: with the recipe of each shape that has the objective alone as the
measure, how many updates every other arm has in the same time.
A guide's answers are made before; beside stand the seconds of one pass that makes all that an arm reads of them, from
what a batch takes in the same rounds.
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

from lab import guides, sweep
from lab.data import Batch
from lab.experiment import Assembled, assemble, plan
from lab.models.taps import Taps
from lab.plan import Job
from lab.results import Store, read_json, write_json
from lab.train import update

KNOWN = 0.03  # of a ratio: how far its median may lie off
WARM = 20  # updates: compilation, allocator, caches
STRIDE = 0.381966  # of a run between two updates that are timed, so that they spread over all of it


class Arm:
    """A recipe whose updates are timed."""

    def __init__(self, job: Job, label: str, store: Store) -> None:
        self.job, self.label = job, label
        self.made: Assembled = assemble(job, store, torch.device("cpu"), compiled=True)
        self.made.state.student.train()
        self.made.nets.compile()
        self.stream: Iterator[Batch] = self.made.batches(0)
        self.count = 0
        self.ms: list[float] = []  # of an update, by round
        self.passes: list[float] = []  # seconds of the guide's answers to all pairs, by round
        self.asks = self.made.nets.answers is not None
        if self.asks:
            self.made.nets.guide.compile()
            self._ask()

    def warm(self) -> None:
        for _ in range(WARM):
            self._update()

    def _ask(self) -> float:
        """Seconds in which the guide answers one batch, and the answers are read from it."""
        config, nets = self.made.nets.guide.config, self.made.nets
        x = torch.randn(guides.BATCH, config.channels, config.image_size, config.image_size)
        y = torch.zeros(len(x), dtype=torch.int64) if config.num_classes else None
        began, taps = time.perf_counter(), Taps(nets.theirs)
        found = [nets.guide(x, None, y, taps), *taps.kept.values()]
        for value in found:
            value.to(torch.float16).numpy()
        return time.perf_counter() - began

    def _update(self) -> None:
        """One update, of any part of the run: what a method asks for may end before the run does."""
        self.count += 1
        self.made.state.step = int(self.job.recipe.steps * (self.count * STRIDE % 1))
        update(self.made.state, self.made.nets, self.job.recipe, next(self.stream))

    def ask(self, seconds: float) -> None:
        if not self.asks:
            return
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            self._ask()
            count += 1
        pairs = self.job.recipe.pairs / guides.BATCH
        self.passes.append(pairs * (time.perf_counter() - began) / count)

    def turn(self, seconds: float) -> None:
        count, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            self._update()
            count += 1
        self.ms.append(1000 * took / count)

    @property
    def guide_seconds(self) -> float:
        return round(statistics.median(self.passes), 1) if self.asks else 0.0


def ratios(arm: Arm, arms: list[Arm]) -> tuple[Arm, list[float]]:
    """An arm's plain one, itself where there is none, and its updates' times over that one's, by round, sorted."""
    recipe = arm.job.recipe
    plain = next((a for a in arms if a.job.recipe.student == recipe.student and not a.job.recipe.guide
                  and len(a.job.recipe.methods) == 1), arm)  # fmt: skip
    return plain, sorted(mine / theirs for mine, theirs in zip(arm.ms, plain.ms))


def sure(arms: list[Arm]) -> bool:
    """Whether the median of every arm's ratios is known within KNOWN: by the notch of a box plot, 1.57 times the middle
    half's width over the root of the rounds, which is about its 95 % interval (McGill, Tukey and Larsen, 1978).
    """
    for arm in arms:
        low, middle, high = statistics.quantiles(found := ratios(arm, arms)[1], n=4)
        if 1.57 * (high - low) / len(found) ** 0.5 > KNOWN * middle:
            return False
    return True


def rows_of(arms: list[Arm]) -> list[dict]:
    """Of every arm its median update, and the updates that fit into its plain twin's time."""
    rows = []
    for arm in arms:
        recipe = arm.job.recipe
        plain, found = ratios(arm, arms)
        ratio = statistics.median(found)
        rows.append({
            "label": arm.label, "run": recipe.id, "ms": round(statistics.median(arm.ms), 3),
            "over_plain": round(ratio, 4),
            "over_plain_spread": [round(found[0], 4), round(found[-1], 4)], "updates": recipe.steps,
            "updates_in_the_plain_time": round(plain.job.recipe.steps / ratio),
            "guide_seconds": arm.guide_seconds, "recipe": json.loads(recipe.to_json()),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each arm in a round")
    parser.add_argument("--rounds", type=int, default=12, help="at least, from 2 on")
    parser.add_argument("--most", type=int, default=60, help="rounds, however far apart the ratios are")
    parser.add_argument("--guides", action="store_true", help="keep the updates' times of --out, time the guides alone")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/arms.json"))
    args = parser.parse_args()
    store = Store(args.results)
    found = sweep.read(args.sweep.read_text(), args.sweep.stem)
    arms = []
    torch._dynamo.config.recompile_limit = 8 * (1 + len(found.entries))  # all arms share the code of their network
    for entry in found.entries:
        job = plan(entry.recipe, store)[-1]
        arms.append(Arm(job, entry.label, store))
        if not args.guides:
            arms[-1].warm()
    for number in range(args.most):
        if number >= max(args.rounds, 2) and (args.guides or sure(arms)):
            break
        for arm in arms[:: 1 if number % 2 == 0 else -1]:
            arm.ask(args.seconds)
            if not args.guides:
                arm.turn(args.seconds)
    if args.guides:
        kept, seconds = read_json(args.out), {arm.job.recipe.id: arm.guide_seconds for arm in arms}
        rows = [row | {"guide_seconds": seconds.get(row["run"], row["guide_seconds"])} for row in kept["rows"]]
        write_json(args.out, kept | {"rows": rows, "guides_commit": commit()})
        return
    rows = rows_of(arms)
    for row in rows:
        print(row)
    write_json(args.out, {"machine": machine(), "seconds": args.seconds, "rounds": len(arms[0].ms), "rows": rows,
                          "threads": torch.get_num_threads(), "commit": commit()})  # fmt: skip


if __name__ == "__main__":
    main()
