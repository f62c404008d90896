"""The only training loop."""

from __future__ import annotations

import copy
import io
import threading
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from lab import diffusion
from lab.config import Recipe
from lab.data import Batch
from lab.guides import Answers, Guide
from lab.methods import Inputs, Method, Step, finish
from lab.models.taps import Taps
from lab.optim import Optimizer, rate
from lab.recorder import Recorder, Stopped
from lab.results import Run, write_whole


class Diverged(RuntimeError):
    """The loss or the gradient is not finite; raised before the optimizer's step."""


@dataclass
class State:
    """All that a stopped run needs to go on as if it had not been stopped."""

    student: nn.Module
    own: nn.ModuleList  # the methods' train-only modules
    ema: nn.Module
    optimizer: Optimizer
    step: int = 0
    seconds: float = 0.0

    def save(self, run: Run) -> None:
        buffer = io.BytesIO()
        parts = {k: getattr(self, k).state_dict() for k in ("student", "ema", "optimizer")}
        torch.save(parts | {"own": _trained(self.own), "step": self.step, "seconds": self.seconds}, buffer)
        write_whole(run.path / "state.pt", buffer.getvalue())

    def load(self, run: Run, device: torch.device) -> None:
        """Raises ValueError where the file is not a state of this network."""
        path = run.path / "state.pt"
        try:
            with zipfile.ZipFile(path) as file:
                if spoilt := file.testzip():  # torch.load takes a tensor of which a bit has turned
                    raise zipfile.BadZipFile(f"{spoilt} is spoilt")
            saved = torch.load(path, map_location=device, weights_only=True)
            if type(saved["step"]) is not int or not 0 <= saved["step"] <= run.recipe.steps:
                raise ValueError(f"step is {saved['step']!r}, of {run.recipe.steps}")
            for k in ("student", "ema", "optimizer"):
                getattr(self, k).load_state_dict(saved[k])
            self.own.load_state_dict(saved["own"], strict=False)
            self.step, self.seconds = saved["step"], saved["seconds"]
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # torch, zipfile and pickle each have their own for a file that is cut off
            raise ValueError(f"{path} is no state that this run can go on from ({type(error).__name__}); delete it, "
                             "and the run begins again with its first update") from error  # fmt: skip


def _trained(own: nn.ModuleList) -> dict[str, Tensor]:
    """A state dict without frozen parameters: a network that a method only asks is no state."""
    frozen = {id(p) for p in own.parameters() if not p.requires_grad}
    return {k: v.detach() for k, v in own.state_dict(keep_vars=True).items() if id(v) not in frozen}


def start_state(student: nn.Module, methods: list[Method], recipe: Recipe) -> State:
    own = nn.ModuleList(method.own for method in methods)
    ema = copy.deepcopy(student).requires_grad_(False)
    return State(student, own, ema, Optimizer([student, own], recipe))


@dataclass
class Networks:
    """Whom the loop asks at every update, and what it wants to hear."""

    student: nn.Module
    methods: list[Method]
    sigma_data: float
    guide: Guide | None = None
    answers: Answers | None = None  # what the guide says to the pairs, where that is kept
    bfloat16: bool = False  # autocast of the forward passes; losses are in float32

    def __post_init__(self) -> None:
        self.objective = next((m for m in self.methods if m.objective), None)
        self._taps = [(m, m.taps(self.student, self.guide)) for m in self.methods]
        self.mine, self.theirs = _together(taps for _, taps in self._taps)
        self.asks_guide = any("guide" in m.needs for m in self.methods)

    def compile(self) -> None:
        """In place, but for a guide whose answers are kept."""
        for part in (self.student, *self.methods, *([self.guide] if self.guide and self.answers is None else [])):
            part.compile()

    def look(self, inputs: Inputs, *, progress: float, rng: torch.Generator, images: int = 0) -> Step:
        """The student's and the guide's answers to the same inputs, as far as a method still looks at them."""
        mine, theirs = _together(taps for m, taps in self._taps if m.asks(progress))
        asked = any("guide" in m.needs and m.asks(progress) for m in self.methods)
        taps = Taps(mine)
        prediction = self._ask(inputs, taps if mine else None).float()
        guide_prediction, guide_taps = None, Taps()
        if asked and self.answers is not None and inputs.index is not None:
            guide_prediction, guide_taps = self.answers.at(inputs.index, inputs.x.device, theirs)
        elif asked:
            guide_taps = Taps(theirs)
            with self._autocast(inputs.x.device):
                guide_prediction = self.guide(inputs.x, inputs.sigma, inputs.y, guide_taps if theirs else None)
        return Step(inputs, prediction, taps.float(), guide_prediction, guide_taps.float(), progress, rng, images,
                    self.objective, lambda **mode: self._ask(inputs, None, **mode))  # fmt: skip

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Every method's terms by name, `method/term`; an objective of weight 0 is not worked out."""
        weights = [weight for m in self.methods if (weight := m.objective_weight(step.progress)) != 1.0]
        without = any(not isinstance(weight, Tensor) and weight == 0 for weight in weights)  # a learned one is asked on
        looking = [m for m in self.methods if not (without and m is self.objective)]
        found = {f"{m.name}/{key}": value for m in looking for key, value in m.loss(step).items()}
        for weight in weights:
            mine = f"{self.objective.name}/"
            found = {k: weight * v if k.startswith(mine) else v for k, v in found.items()}
        return found

    def _ask(self, inputs: Inputs, taps: Taps | None, **mode: object) -> Tensor:
        with self._autocast(inputs.x.device):
            if inputs.sigma is None:
                return self.student(inputs.x, None, inputs.y, taps, **mode)
            return diffusion.Denoiser(self.student, self.sigma_data)(inputs.x, inputs.sigma, inputs.y, taps, **mode)

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16)


def _together(taps: Iterable[tuple[Collection[str], Collection[str]]]) -> tuple[frozenset[str], frozenset[str]]:
    """The taps of the student and of the guide that any of several methods wants."""
    mine, theirs = [*zip(*taps)] or [(), ()]
    return frozenset().union(*mine), frozenset().union(*theirs)


def seeded(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one update; also seeds the global one, for what draws there (dropout)."""
    mixed = (seed * 1_000_003 + step) * 2 + 1
    torch.manual_seed(mixed)
    return torch.Generator(device).manual_seed(mixed)


@torch.no_grad()
def update_ema(ema: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """ema += (1 - d) (student - ema) with d = min(decay, (step+1)/(step+20)); buffers are copied."""
    d = min(decay, (step + 1) / (step + 20))
    torch._foreach_lerp_(list(ema.parameters()), list(student.parameters()), 1 - d)
    for mine, live in zip(ema.buffers(), student.buffers()):
        mine.copy_(live)


def update(state: State, nets: Networks, recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """One update of the student, the methods' modules and the average; gives the losses and the gradient's norm.

    Raises Diverged, before anything is changed, where one of them is not finite.
    """
    device = batch.image.device
    progress, images = state.step / recipe.steps, state.step * recipe.batch
    rng = seeded(recipe.seed, state.step, device)  # a resumed run draws the same noise

    inputs = nets.objective.inputs(batch, rng)
    losses = nets.losses(nets.look(inputs, progress=progress, rng=rng, images=images))
    total = torch.stack([*losses.values()]).sum()
    if not torch.isfinite(total):
        terms = ", ".join(f"{k} {v.item():.4g}" for k, v in losses.items())
        raise Diverged(f"loss is {total.item()} at step {state.step} of {recipe.id}; terms: {terms}")

    state.optimizer.zero_grad()
    total.backward()
    grad_norm = clip_grad_norm_(state.optimizer.parameters, recipe.clip or float("inf"))
    if not torch.isfinite(grad_norm):
        raise Diverged(f"gradient norm is {grad_norm.item()} at step {state.step} of {recipe.id}")
    state.optimizer.set_lr(rate(recipe, state.step))
    state.optimizer.step()
    for method in nets.methods:
        method.after_step(state.student, progress)
    update_ema(state.ema, state.student, recipe.ema, state.step)
    state.step += 1
    return losses | {"grad_norm": grad_norm}


def train(
    run: Run,
    state: State,
    nets: Networks,
    *,
    recipe: Recipe,
    batches: Callable[[int], Iterator[Batch]],  # from batch number `start` on
    device: torch.device,
    compiled: bool,
    stop: threading.Event,
    picture: Callable[[nn.Module, int], None],  # draws a snapshot: (finished network, images seen)
) -> nn.Module:
    """Run a recipe to its end and give the network to ship; resumes where state.pt stands.

    Raises Stopped once `stop` is set (the state is saved) and Diverged on a loss that is not finite.
    """
    state.student.train()
    if (run.path / "state.pt").exists():
        state.load(run, device)
    if compiled:
        nets.compile()
    record = Recorder(run, recipe, state, stop=stop, finished=lambda: finish(state.ema, nets.methods), picture=picture)
    stream = batches(state.step)
    while state.step < recipe.steps:
        record.update(update(state, nets, recipe, next(stream).to(device)))
    record.close()
    return finish(state.ema, nets.methods)


__all__ = ["Diverged", "Networks", "State", "Stopped", "seeded", "start_state", "train", "update", "update_ema"]
