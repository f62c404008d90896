"""The only training loop."""

from __future__ import annotations

import copy
import io
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm.auto import tqdm

from lab import diffusion
from lab.config import Recipe
from lab.data import Batch, ImageSpec
from lab.methods import Method, Question, Step, finish
from lab.models.taps import Taps
from lab.optim import Optimizer, rate
from lab.results import Run, write_whole
from lab.weights import write_weights

LOG_EVERY = 50  # updates
SAVE_EVERY_S = 60.0
SNAPSHOTS = 10  # pictures of the same noises on the way, and one of the start


class Diverged(RuntimeError):
    """The loss or the gradient is not finite; raised before the optimizer's step."""


class Stopped(Exception):  # not an error: the state is saved and the run goes on later
    """Somebody asked the run to stop."""


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
        parts = {k: getattr(self, k).state_dict() for k in ("student", "own", "ema", "optimizer")}
        torch.save(parts | {"step": self.step, "seconds": self.seconds}, buffer)
        write_whole(run.path / "state.pt", buffer.getvalue())

    def load(self, run: Run, device: torch.device) -> None:
        saved = torch.load(run.path / "state.pt", map_location=device, weights_only=True)
        for k in ("student", "own", "ema", "optimizer"):
            getattr(self, k).load_state_dict(saved[k])
        self.step, self.seconds = saved["step"], saved["seconds"]


def start_state(student: nn.Module, methods: list[Method], recipe: Recipe) -> State:
    own = nn.ModuleList(method.own for method in methods)
    ema = copy.deepcopy(student).requires_grad_(False)
    return State(student, own, ema, Optimizer([student, own], recipe))


def answer(question: Question, student: nn.Module, teacher: object, wanted: tuple[set[str], set[str]],
           *, sigma_data: float, progress: float, rng: torch.Generator) -> Step:  # fmt: skip
    """Ask the student, and the teacher where a method wants its taps."""
    mine, theirs = wanted
    taps = Taps(mine) if mine else None
    q = question
    if q.sigma is None:
        x0 = student(q.x, None, q.y, taps)
    else:
        x0 = diffusion.Denoiser(student, sigma_data)(q.x, q.sigma, q.y, taps)
    teacher_taps, teacher_x0 = Taps(theirs), None
    if theirs:
        with torch.no_grad():
            teacher_x0 = teacher.answer(q.x, q.sigma, q.y, teacher_taps)
    return Step(q, x0.float(), taps or Taps(), teacher_x0, teacher_taps, progress, rng)


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


def train(
    run: Run,
    state: State,
    *,
    recipe: Recipe,
    methods: list[Method],
    teacher: object,
    batches: Callable[[int], Iterator[Batch]],  # from batch number `start` on
    spec: ImageSpec,
    device: torch.device,
    compiled: bool,
    stop: threading.Event,
    picture: Callable[[nn.Module, int], None],  # draws a snapshot: (plain network, images seen)
) -> nn.Module:
    """Run a recipe to its end and give the plain network to ship; resumes where state.pt stands.

    Raises Stopped once `stop` is set (the state is saved) and Diverged on a loss that is not finite.
    """
    asker = next(m for m in methods if m.asks)
    wanted = tuple(set().union(*(w[i] for w in [m.wants(state.student, teacher) for m in methods])) for i in (0, 1))
    student = state.student.train()
    if (run.path / "state.pt").exists():
        state.load(run, device)
    run.rewind_log(state.step)  # also where there is no state: a first attempt may have left lines
    if compiled:
        student.compile()
        for method in methods:
            method.compile()

    shots = {round(recipe.steps * i / SNAPSHOTS) for i in range(SNAPSHOTS + 1)}
    stream = batches(state.step)
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=device))
    logged, began, saved = state.step, time.monotonic() - state.seconds, time.monotonic()
    bar = tqdm(total=recipe.steps, initial=state.step, desc=run.id[-40:], unit="step", mininterval=1, smoothing=0.05)
    if state.step == 0:
        picture(finish(state.ema, methods), 0)

    while state.step < recipe.steps:
        progress = state.step / recipe.steps
        rng = seeded(recipe.seed, state.step, device)  # a resumed run draws the same noise

        question = asker.question(next(stream).to(device), rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.dtype == "bfloat16"):
            step = answer(question, student, teacher, wanted, sigma_data=spec.sigma_data, progress=progress, rng=rng)

        losses = {f"{m.name}/{key}": value for m in methods for key, value in m.loss(step).items()}
        total = torch.stack([*losses.values()]).sum()
        if not torch.isfinite(total):
            terms = ", ".join(f"{k} {v.item():.4g}" for k, v in losses.items())
            raise Diverged(f"loss is {total.item()} at step {state.step} of {run.id}; terms: {terms}")

        state.optimizer.zero_grad()
        total.backward()
        grad_norm = clip_grad_norm_(state.optimizer.parameters, recipe.clip or float("inf"))
        if not torch.isfinite(grad_norm):
            raise Diverged(f"gradient norm is {grad_norm.item()} at step {state.step} of {run.id}")
        state.optimizer.set_lr(rate(recipe, state.step))
        state.optimizer.step()
        for method in methods:
            method.after_step(student, progress)
        update_ema(state.ema, student, recipe.ema, state.step)
        state.step += 1
        state.seconds = time.monotonic() - began

        for key, value in (losses | {"grad_norm": grad_norm}).items():
            sums[key] += value.detach()
        bar.update()
        if state.step % LOG_EVERY == 0 or state.step == recipe.steps:
            means = {k: v.item() / (state.step - logged) for k, v in sums.items()}
            logged = state.step
            sums.clear()
            run.log(step=state.step, images=state.step * recipe.batch, seconds=round(state.seconds, 2),
                    lr=rate(recipe, state.step - 1), **means)  # fmt: skip
            bar.set_postfix({k.split("/")[-1]: f"{v:.4g}" for k, v in means.items() if "/" in k})
        if state.step in shots:
            picture(finish(state.ema, methods), state.step * recipe.batch)
        if (images := state.step * recipe.batch) in recipe.keep:
            write_weights(finish(state.ema, methods), run.path / f"at-{images}.safetensors")
        if stop.is_set() or time.monotonic() - saved > SAVE_EVERY_S:
            state.save(run)
            run.set_status(step=state.step, seconds=round(state.seconds, 1))
            saved = time.monotonic()
            if stop.is_set() and state.step < recipe.steps:
                raise Stopped(f"stopped at step {state.step} of {recipe.steps}")
    bar.close()
    run.set_status(step=state.step, seconds=round(state.seconds, 1))
    return finish(state.ema, methods)
