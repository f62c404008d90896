"""How well does the roofline predict students that it was not fitted on? Median error on the held-out half.

    python -m lab bench --runtime onnxruntime,openvino --batch 1,16,64 --threads 1,2   # times them first
    python benchmarks/predict.py --out results/benchmarks/predict.json

The shapes that were timed on this machine are split in two, several times; the rates are fitted on
one half and the other half is predicted, for each runtime, precision and number of threads. A split
is by shape: a student at batch 16 is never predicted from itself at batch 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path

import numpy as np

from lab.bench import card_here
from lab.config import DiTConfig
from lab.devices import predict, runner
from lab.devices.predict import Card, Measured
from lab.experiment import commit
from lab.results import Store, now, write_json

SPLITS = 10
LEAST_SHAPES = 2 * predict.FEWEST_SHAPES  # as many to learn from as a fit needs, and as many to predict


@dataclasses.dataclass(frozen=True)
class Guess:
    """One held-out timing and what was predicted for it."""

    shape: str
    batch: int
    ms: float
    predicted_ms: float
    inside: bool  # of the interval
    split: int

    @property
    def error(self) -> float:
        return abs(self.predicted_ms / self.ms - 1)


def shape_of(config: DiTConfig) -> DiTConfig:
    """What decides a latency: not how many classes there are."""
    return dataclasses.replace(config, num_classes=0, null_class=False)


def held_out(card: Card, timings: list[Measured], runtime: str, precision: str, splits: int = SPLITS) -> list[Guess]:
    """Predictions of every split's second half from its first."""
    shapes = sorted({shape_of(t.config) for t in timings}, key=lambda c: (c.shape, c.image_size, c.channels))
    found = []
    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(shapes))
        learned = {shapes[i] for i in order[: len(shapes) // 2]}
        fitted = predict.fit(card, [t for t in timings if shape_of(t.config) in learned], runtime=runtime,
                             precision=precision)  # fmt: skip
        for t in timings:
            if shape_of(t.config) not in learned:
                said = predict.estimate(fitted, t.config, t.batch, precision)
                found.append(Guess(t.config.shape, t.batch, t.ms, said.p50, said.low <= t.ms <= said.high, split))
    return found


def row(card: Card, timings: list[Measured], runtime: str, precision: str) -> dict[str, object]:
    """One line of the table: the median error over all held-out timings, and how the splits' medians spread."""
    found = held_out(card, timings, runtime, precision)
    by_split = [statistics.median(g.error for g in found if g.split == s) for s in range(SPLITS)]
    return {
        "runtime": runtime, "precision": precision, "threads": card.threads,
        "shapes": len({shape_of(t.config) for t in timings}), "timings": len(timings),
        "median_error": round(statistics.median(g.error for g in found), 4),
        "of_splits": [round(min(by_split), 4), round(max(by_split), 4)],
        "p90_error": round(float(np.quantile([g.error for g in found], 0.9)), 4),
        "inside_interval": round(sum(g.inside for g in found) / len(found), 3),
        "by_batch": {str(b): round(statistics.median(g.error for g in found if g.batch == b), 4)
                     for b in sorted({g.batch for g in found})},
    }  # fmt: skip


def measured(store: Store, out: Path) -> float:
    """Every runtime, precision and number of threads of this machine that is known well enough; gives the median error.

    Raises LookupError where nothing is.
    """
    reports = store.reports()
    if len(reports):  # a card is measured of this machine, also for the number of threads of another one's report
        reports = reports[reports["device.name"] == runner.HERE.device()["name"]]
    if reports.empty:
        raise LookupError(f"no timing of this machine in {store.root}; `python -m lab bench` makes them")
    rows, cards = [], {}
    columns = ["software.runtime", "model.precision", "state.threads"]
    for runtime, precision, threads in sorted(set(reports[columns].dropna().itertuples(index=False, name=None))):
        card = card_here(store, int(threads))
        timings = predict.measured(reports, card, runtime, precision)
        few = len(timings) < 2 * predict.FEWEST_FITTED or len({shape_of(t.config) for t in timings}) < LEAST_SHAPES
        if few or precision not in predict.PRECISIONS:
            continue
        rows.append(row(card, timings, runtime, precision))
        cards[predict.key_of(card)] = dataclasses.asdict(card)
        print(rows[-1], flush=True)
    if not rows:
        grades = ", ".join(predict.TRUSTED)
        raise LookupError(f"fewer than {LEAST_SHAPES} shapes have timings of grade {grades} under the same conditions")
    middle = statistics.median(r["median_error"] for r in rows)
    print(f"median of the {len(rows)} medians: {middle:.1%}")
    write_json(out, {"made": now(), "commit": commit(), "splits": SPLITS, "median_of_medians": middle, "rows": rows,
                     "cards": cards})  # fmt: skip
    return middle


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--results", help="results folder")
    made.add_argument("--out", type=Path, default=Path("results/benchmarks/predict.json"))
    args = made.parse_args()
    try:
        measured(Store(args.results), args.out)
    except LookupError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
