"""A search of a space by Optuna, for distance, size and latency at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab import cost
from lab.devices import predict
from lab.results import Run, Store
from lab.sweep.entries import Entry, entry_of
from lab.sweep.space import TRIES, Space


class Search:
    """An Optuna study over a space for three things at once: distance, deployed parameters and latency, all small.

    Latency is what a device's card says (lab/devices/predict.py), or the MACs where no device is named. The study lies
    in results/sweeps/<name>.journal and goes on from there; a changed space begins another one in the same file.
    """

    def __init__(self, space: Space, name: str, *, trials: int, seed: int = 0, device: str | None = None) -> None:
        self.space, self.name, self.trials, self.seed, self.device = space, name, trials, seed, device
        self.study: Any = None
        self.runs: dict[int, str] = {}  # trial -> run

    def open(self, root: Path) -> int:
        """Begin or go on; gives how many trials are behind it."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.trial import TrialState

        if self.device:
            predict.card_of(self.device, root)
        (root / "sweeps").mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        plain = json.dumps([self.space.base.to_json(), dict(self.space.axes), self.device])
        title = f"{self.name}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"
        storage = JournalStorage(JournalFileBackend(str(root / "sweeps" / f"{self.name}.journal")))
        before = {s.study_name: s.n_trials for s in optuna.get_all_study_summaries(storage)}
        self.study = optuna.create_study(
            storage=storage, study_name=title, directions=["minimize"] * 3, load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=self.seed + before.get(title, 0), constant_liar=True),
        )  # fmt: skip
        for trial in self.study.get_trials(states=[TrialState.RUNNING]):  # when it was stopped
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.params)
        past = [t for t in self.study.get_trials(deepcopy=False) if "run" in t.user_attrs]
        self.runs = {t.number: t.user_attrs["run"] for t in past}
        return len(past)

    def entries(self, left: int) -> Iterator[tuple[Any, Entry]]:
        """The next points that are in budget, each asked for when it is wanted."""
        from optuna.distributions import CategoricalDistribution
        from optuna.trial import TrialState

        kinds = {name: CategoricalDistribution([json.dumps(v) for v in values])
                 for name, values in self.space.axes.items()}  # fmt: skip
        for _ in range(TRIES * left):
            if left <= 0:
                return
            trial = self.study.ask(kinds)
            at = {name: json.loads(text) for name, text in trial.params.items()}
            if isinstance(found := entry_of(self.space, at), str):
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            left -= 1
            yield trial, found

    def tell(self, trial: Any, entry: Entry, store: Store) -> None:
        """What came of a trial. One that was stopped is left open, and asked for again."""
        from optuna.trial import TrialState

        if entry.state == "stopped":
            return
        trial.set_user_attr("run", entry.run)
        self.runs[trial.number] = entry.run
        values = self.values(store.root, entry)
        if values is None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, values)

    def values(self, root: Path, entry: Entry) -> tuple[float, float, float] | None:
        """(distance, deployed parameters, ms or MACs); None where the run has no distance."""
        run = Run(root / "runs" / entry.run)
        metrics = run.own_metrics() if entry.state == "done" else None
        if not isinstance(metrics, dict) or "fd" not in metrics["values"]:
            return None
        config = run.config  # of what is shipped
        found = cost.of_config(config)
        latency = float(found.get("macs_deployed", found["macs"]))
        if self.device and predict.is_predictable(config):
            latency = predict.estimate(predict.card_of(self.device, root), config).p50
        return metrics["values"]["fd"]["value"], float(found.get("params_deployed", found["params"])), latency

    def front(self) -> list[str]:
        """The runs that no other one beats in all three."""
        return sorted({self.runs[t.number] for t in self.study.best_trials if t.number in self.runs})
