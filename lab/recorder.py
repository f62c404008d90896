"""What a training leaves while it runs: its log, pictures, checkpoints, state and progress bar."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lab.config import Recipe
from lab.optim import rate
from lab.results import Run
from lab.weights import write_weights

if TYPE_CHECKING:
    from lab.train import State

LOG_EVERY = 50  # updates
SAVE_EVERY_S = 60.0
SNAPSHOTS = 10  # pictures of the same noises on the way, and one of the start


class Stopped(Exception):  # not an error: the state is saved and the run goes on later
    """Somebody asked the run to stop."""


class Recorder:
    """Called after every update; the loop itself knows no file."""

    def __init__(self, run: Run, recipe: Recipe, state: State, *, stop: threading.Event,
                 finished: Callable[[], nn.Module],  # the network to ship, as it stands
                 picture: Callable[[nn.Module, int], None],  # draws a snapshot: (finished network, images seen)
                 ) -> None:  # fmt: skip
        self.run, self.recipe, self.state, self.stop = run, recipe, state, stop
        self.finished, self.picture = finished, picture
        run.rewind_log(state.step)  # also where there is no state: a first attempt may have left lines
        self.shots = {round(recipe.steps * i / SNAPSHOTS) for i in range(SNAPSHOTS + 1)}
        self.sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        self.logged, self.saved = state.step, time.monotonic()
        self.began = time.monotonic() - state.seconds
        self.bar = tqdm(total=recipe.steps, initial=state.step, desc=run.id[-40:], unit="step", mininterval=1,
                        smoothing=0.05)  # fmt: skip
        if state.step == 0:
            picture(finished(), 0)

    def update(self, values: Mapping[str, Tensor]) -> None:
        """After update number `state.step`, with its losses. Raises Stopped once `stop` is set; the state is saved."""
        state, recipe = self.state, self.recipe
        state.seconds = time.monotonic() - self.began
        for key, value in values.items():
            self.sums[key] = self.sums[key].to(value.device) + value.detach()
        self.bar.update()
        if state.step % LOG_EVERY == 0 or state.step == recipe.steps:
            self._log()
        if state.step in self.shots:
            self.picture(self.finished(), state.step * recipe.batch)
        if (images := state.step * recipe.batch) in recipe.keep:
            write_weights(self.finished(), self.run.path / f"at-{images}.safetensors")
        if self.stop.is_set() or time.monotonic() - self.saved > SAVE_EVERY_S:
            self._save()

    def close(self) -> None:
        self.bar.close()
        self.run.set_status(step=self.state.step, seconds=round(self.state.seconds, 1))

    def _log(self) -> None:
        state, recipe = self.state, self.recipe
        means = {k: v.item() / (state.step - self.logged) for k, v in self.sums.items()}
        self.logged = state.step
        self.sums.clear()
        self.run.log(step=state.step, images=state.step * recipe.batch, seconds=round(state.seconds, 2),
                     lr=rate(recipe, state.step - 1), **means)  # fmt: skip
        self.bar.set_postfix({k.split("/")[-1]: f"{v:.4g}" for k, v in means.items() if "/" in k})

    def _save(self) -> None:
        self.state.save(self.run)
        self.run.set_status(step=self.state.step, seconds=round(self.state.seconds, 1))
        self.saved = time.monotonic()
        if self.stop.is_set() and self.state.step < self.recipe.steps:
            raise Stopped(f"stopped at step {self.state.step} of {self.recipe.steps}")
