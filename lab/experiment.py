"""The whole life of one run: check, plan, train, finish, measure. Everything else calls this."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
import math
import os
import platform
import signal
import subprocess
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lab import compiler, data, diffusion, guides, models, pairs, sheets, teachers
from lab.config import DiTConfig, Recipe, TeacherName, UNetConfig, Use
from lab.devices import runner
from lab.methods import Finished, Roles
from lab.plan import PAIRS, SHAPES, Job, check, misfits, plan, resolve
from lab.results import Run, Store, write_whole
from lab.sampling import generate
from lab.train import Networks, State, Stopped, start_state, train
from lab.weights import is_whole, load_student, save_student, spec_of_run

SNAPSHOT_SEEDS = range(16)
COMPILE_FROM_IMAGES = 50_000  # below that a compilation of 10 to 25 s does not pay on a CPU


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where a run runs; recorded in env.json, outside the recipe's id."""

    device: str = "auto"  # auto, cpu, cuda, mps
    threads: int = 0  # 0 = as many as torch takes
    compile: bool | None = None  # None = where it pays; never where there is no compiler

    def torch_device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    def compiles(self, recipe: Recipe, *, notice: bool = False) -> bool:
        """Whether training is compiled; with `notice`, one is given where only a compiler lacks."""
        wanted = self.compile if self.compile is not None else recipe.images >= COMPILE_FROM_IMAGES
        return wanted and compiler.can_compile(self.torch_device(), "training" if notice else "")


# --- the run ------------------------------------------------------------------------------------


def run(recipe: Recipe, store: Store | None = None, *, compute: Compute = Compute(), measure: bool = True) -> Run:
    """Do a recipe and everything it needs first; gives its run.

    A finished run is returned as it is, a stopped one goes on. Raises ValueError for a recipe that
    can't run, Busy if another process works on it, Stopped after SIGINT or SIGTERM (state saved).
    """
    store = store or Store()
    jobs = plan(recipe, store)
    for job in jobs:
        store.open(job.recipe)  # so that the last of a plan can be told to go on, wherever it was stopped
    for job in jobs:
        done = run_job(job, store, compute=compute, measure=measure)
    return done


def run_job(job: Job, store: Store, *, compute: Compute = Compute(), measure: bool = True) -> Run:
    """One job of a plan, whose earlier ones are done; as `run`."""
    run = store.open(job.recipe)
    if run.status().state == "done":
        return run
    with run.working(), _on_signal(_interrupt):
        _record(run, compute, job)
        started = run.status().started or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        run.set_status(state="running", steps=job.recipe.steps, started=started, error="")
        try:
            if not is_whole(run):
                _train(run, job, store, compute)
            _after(run, store, compute, measure)
        except (Stopped, KeyboardInterrupt):
            run.set_status(state="stopped")
            raise
        except BaseException as error:
            run.set_status(state="failed", error=f"{type(error).__name__}: {error}")
            write_whole(run.path / "traceback.txt", traceback.format_exc())
            raise
        (run.path / "state.pt").unlink(missing_ok=True)
        (run.path / "traceback.txt").unlink(missing_ok=True)
        run.set_status(state="done", step=job.recipe.steps)
    return run


@dataclass(frozen=True)
class Assembled:
    """All that a job trains with."""

    state: State
    nets: Networks
    batches: Callable[[int], Iterator[data.Batch]]  # from a batch number on
    spec: data.ImageSpec


def assemble(job: Job, store: Store, device: torch.device, *, compiled: bool = False) -> Assembled:
    """A job's networks at the start of its training, with its data; makes pairs and a guide's answers that are missing.

    `compiled`: a guide whose answers are made here is compiled for that.
    """
    recipe = job.recipe
    batches, spec, reader = _source(job, store, device)
    guide = guides.load(store.get(recipe.guide), device) if recipe.guide else None
    starts = [_finished(store.get(name), device) for name in recipe.start]
    methods = sorted(job.methods, key=lambda m: m.edits)

    torch.manual_seed(recipe.seed)
    student = models.build(recipe.student)
    if starts and "starts" not in job.needs:
        student.load_state_dict(starts[0].net.state_dict())
    for method in methods:
        student = method.prepare(student, Roles(spec, guide, starts, device, recipe.drawn_by))
    student.to(device)
    for method in methods:
        method.own.to(device)
    nets = Networks(student, methods, spec.sigma_data, guide, bfloat16=recipe.dtype == "bfloat16")
    if reader is not None and nets.asks_guide and not guide.config.time:
        if compiled:
            guide.compile()
        answers = guides.Answers(store.root, guide, reader.pairs.what.id)
        if answers.ensure(nets.theirs, recipe.pairs, reader.inputs, device):
            nets.answers = answers
            return Assembled(start_state(student, methods, recipe), nets, lambda at: answers.ahead(batches(at)), spec)
    return Assembled(start_state(student, methods, recipe), nets, batches, spec)


def _train(run: Run, job: Job, store: Store, compute: Compute) -> None:
    device, compiled = compute.torch_device(), compute.compiles(job.recipe, notice=True)
    _check_room(job.recipe, device)
    made, stop = assemble(job, store, device, compiled=compiled), threading.Event()
    with _on_signal(stop.set):  # the loop saves its state before it leaves
        net = train(
            run, made.state, made.nets, recipe=job.recipe, batches=made.batches, device=device, compiled=compiled,
            stop=stop, picture=lambda net, images: snapshot(run, net, made.spec, images, device),
        )  # fmt: skip
    facts = {method.name: found for method in made.nets.methods if (found := method.facts(net))}
    if made.nets.answers is not None:  # which this run needed, whoever made them
        facts["guide"] = {"seconds": round(made.nets.answers.seconds, 3)}
    params = sum(p.numel() for p in made.state.optimizer.parameters)
    save_student(run, net, made.spec, facts=facts, params_train=params)


def _check_room(recipe: Recipe, device: torch.device) -> None:
    """Raises ValueError where a training can't fit: weights, gradients, momentum and average are as large as each
    other, and the largest operation's values are held for each image of a batch.
    """
    from lab import cost

    config = recipe.student
    least = 4 * (4 * cost.of_config(config)["params"] + recipe.batch * cost.activations(config))
    room = _memory(device)
    if least > room:
        raise ValueError(f"{config.shape} with batch {recipe.batch:,} takes {least / 1e9:,.1f} GB or more to train, "
                         f"and {device} has {room / 1e9:,.1f}; make depth, width or batch smaller")  # fmt: skip


def _memory(device: torch.device) -> float:
    """Bytes of a device's memory; inf where the system doesn't tell."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    mb = runner.HERE.memory_mb()
    return mb * 2.0**20 if mb > 1 else math.inf


def _finished(run: Run, device: torch.device) -> Finished:
    return Finished(run.recipe, load_student(run, device=device).requires_grad_(False), run.facts)


def _source(job: Job, store: Store, device: torch.device
            ) -> tuple[Callable[[int], Iterator[data.Batch]], data.ImageSpec, pairs.Reader | None]:  # fmt: skip
    """The stream of batches from any step on, what its images are, and the pairs that they come from."""
    recipe = job.recipe
    if job.needs & PAIRS:
        keep = max(method.path(recipe) for method in job.methods)
        what = pairs.pair_set(store, recipe.teacher, recipe.solver, keep=keep)
        spec = teachers.spec_of(recipe.teacher, store)
        if TeacherName.parse(recipe.teacher).kind == "pipeline":
            # A pipeline does not say what it was trained on; the recipe does, and is held to it as far as it goes.
            spec = dataclasses.replace(spec, data=recipe.data)
            with contextlib.suppress(data.MissingData):
                data.load(recipe.data, "train", size=spec.size, channels=spec.channels)
        _fits(recipe, spec)
        made = pairs.ensure(store, what, recipe.pairs, device=device)
        reader = pairs.Reader(made, recipe.pairs, shape=spec.shape, num_classes=spec.num_classes).only(recipe.classes)
        classes = max(method.batch_classes() for method in job.methods)
        return lambda start: reader.stream(
            batch=recipe.batch, seed=recipe.seed, start=start, classes=classes), spec, reader  # fmt: skip
    if recipe.start and not any(method.objective for method in job.methods):  # nothing is learned
        return lambda start: iter(()), spec_of_run(store.get(recipe.start[0])), None
    images = data.load(recipe.data, "train", size=recipe.student.image_size, channels=recipe.student.channels)
    spec = data.spec_of(recipe.data, images)
    _fits(recipe, spec)
    images = data.choose_classes(images, recipe.classes)
    return lambda start: data.stream(images, batch=recipe.batch, seed=recipe.seed, start=start), spec, None


def _fits(recipe: Recipe, spec: data.ImageSpec) -> None:
    """Raises ValueError where the student's input is not the data's image; `check` may not have known it."""
    if wrong := misfits(recipe, spec):
        raise ValueError("\n".join(wrong))


def _after(run: Run, store: Store, compute: Compute, measure: bool) -> None:
    """Cost, metrics and sheet of a finished network; also for a run stopped in between."""
    from lab import cost

    device = compute.torch_device()
    net, spec = load_student(run, device=device), spec_of_run(run)
    run.write("cost", cost.of_run(run))
    sheet(run, net, spec, device)
    if measure:
        from lab import metrics, neighbours  # a second or two to import

        try:
            metrics.evaluate(run, store, device=device)
            neighbours.ensure(run, store, device=device)
        except (KeyError, IndexError):  # LookupErrors too, but faults of ours
            raise
        except LookupError as error:  # real images or an extractor's weights are not here; the network is
            run.set_status(error=f"not measured: {error}")


def digits_student(store: Store, *, steps: int = 600) -> Run:
    """A tiny one-step student on the 8x8 digits with its teacher, `digits-teacher`: what a notebook shows its steps on
    where nothing is trained yet. Takes seconds.
    """
    kept = dict(data="digits", steps=steps, batch=64)
    unet = UNetConfig(image_size=8, widths=(16, 32), attention=(), groups=4)
    teacher = Recipe(student=unet, methods=(Use("denoise"),), optimizer="adamw", lr=2e-3, **kept)
    made = run(teacher, store)
    if "digits-teacher" not in store.teachers():
        store.name_teacher("digits-teacher", made.id)
    dit = DiTConfig(image_size=8, patch=2, depth=2, width=32, heads=2)
    return run(Recipe(teacher=f"run:{made.id}", pairs=4096, student=dit, **kept), store)


# --- pictures -----------------------------------------------------------------------------------


def snapshot(run: Run, net: nn.Module, spec: data.ImageSpec, images: int, device: torch.device) -> None:
    """The 16 common noises as the network draws them now: snapshots/<images seen>.png, 8 x 2."""
    y = diffusion.sheet_classes(len(SNAPSHOT_SEEDS), net.config.num_classes)
    drawn, _ = generate(net, spec, SNAPSHOT_SEEDS, y=y, solver=run.recipe.drawn_by, device=device)
    write_whole(run.path / "snapshots" / f"{images}.png", sheets.png(drawn.numpy(), 8))


def sheet(run: Run, net: nn.Module, spec: data.ImageSpec, device: torch.device) -> None:
    """samples.npz and samples.png: the 64 common noises with classes 0, 1, 2, ... in turn if the net takes one."""
    seeds = diffusion.SHEET_SEEDS
    y = diffusion.sheet_classes(len(seeds), net.config.num_classes)
    drawn, _ = generate(net, spec, seeds, y=y, solver=run.recipe.drawn_by, device=device)
    buffer = io.BytesIO()
    told = {} if y is None else {"classes": y.numpy()}
    np.savez_compressed(buffer, images=drawn.numpy(), seeds=np.array(seeds), **told)
    write_whole(run.path / "samples.npz", buffer.getvalue())
    write_whole(run.path / "samples.png", sheets.png(drawn.numpy(), 8))


# --- the record ---------------------------------------------------------------------------------


def _record(run: Run, compute: Compute, job: Job) -> None:
    """One entry in env.json for every sitting: what the figures of this run were made with."""
    if compute.threads:
        torch.set_num_threads(compute.threads)
    found = run.read("env")
    sittings = found["sittings"] if isinstance(found, dict) else []
    spec = job.spec or data.ImageSpec(data=job.recipe.data, size=job.recipe.student.image_size,
                                      channels=job.recipe.student.channels, num_classes=0)  # fmt: skip
    conditions = {name: value for method in job.methods for name, value in method.conditions(spec).items()}
    conditions |= _pictures(job)
    if sittings and (run.path / "state.pt").exists():
        _check_conditions(run, sittings[-1], conditions)
    sittings.append({
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "from_step": run.status().step, "commit": commit(), "python": platform.python_version(),
        "torch": torch.__version__, "device": str(compute.torch_device()), "threads": torch.get_num_threads(),
        "compiled": compute.compiles(job.recipe), "machine": platform.machine(), "cpus": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **conditions,
    })  # fmt: skip
    run.write("env", {"sittings": sittings})


def _pictures(job: Job) -> dict[str, str]:
    """A digest of the pictures of a folder that a job learns from; a known data set's are always the same."""
    recipe = job.recipe
    if job.needs & PAIRS or not recipe.data.startswith("folder:"):
        return {}
    with contextlib.suppress(data.MissingData), warnings.catch_warnings(action="ignore"):  # told where they are wanted
        images = data.load(recipe.data, size=recipe.student.image_size, channels=recipe.student.channels)
        return {"pictures": data.digest(images)[:8]}
    return {}


def _check_conditions(run: Run, before: dict[str, object], here: dict[str, object]) -> None:
    """Raises ValueError where a run would go on by another loss than it began with."""
    for name, value in here.items():
        if before.get(name, value) != value:
            raise ValueError(f"run {run.id} has learned with {name} {before[name]} up to step {run.status().step}, and "
                             f"this machine has {value} for it now. Go on where {before[name]} is, or remove "
                             f"{run.path} to begin anew")  # fmt: skip


def commit() -> str:
    """The commit of this code, with `-dirty` if tracked files differ from it; "" outside git."""
    here = Path(__file__).parent.parent
    try:
        head = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "-C", here, "status", "--porcelain", "-uno", "--", "lab", "app.py"],
                               capture_output=True, text=True, check=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("-dirty" if dirty.stdout.strip() else "")


@contextlib.contextmanager
def _on_signal(act: Callable[[], object]) -> Iterator[None]:
    """SIGINT and SIGTERM do this for a while, where this is the thread that gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {s: signal.signal(s, lambda *_: act()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


def _interrupt() -> None:
    raise KeyboardInterrupt


__all__ = ["SHAPES", "Compute", "assemble", "check", "commit", "digits_student", "plan", "resolve", "run", "run_job"]
