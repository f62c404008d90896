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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lab import compiler, data, diffusion, models, pairs, sheets, teachers
from lab.config import DiTConfig, Recipe, UNetConfig, Use, check_fields, config_to_json
from lab.methods import METHODS, Finished, Method, create, options_of
from lab.results import Run, Store, write_whole
from lab.sampling import generate
from lab.train import Stopped, start_state, train
from lab.weights import is_whole, load_student, save_student, spec_of_run

SNAPSHOT_SEEDS = range(16)
SHAPES = {"digits": (1, 8, 10), "fashion-mnist": (1, 28, 10), "cifar10": (3, 32, 10)}  # channels, side, classes
COMPILE_FROM_IMAGES = 50_000  # below that a compilation of 10 to 25 s does not pay on a CPU


@dataclass(frozen=True, kw_only=True)
class Machine:
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


# --- before any work ----------------------------------------------------------------------------


def check(recipe: Recipe, store: Store) -> list[str]:
    """Everything that is wrong with a recipe, as sentences; empty if it can run."""
    wrong = check_fields(recipe)
    methods = []
    for use in recipe.methods:
        try:
            methods.append(create(use))
        except ValueError as error:
            wrong.append(str(error))
    wrong += [why for m in methods if (why := m.refuses(recipe))]
    for method in methods:
        for key, value in options_of(method).items():
            if isinstance(value, float) and not math.isfinite(value):
                wrong.append(f"{method.name}.{key} must be a finite number, got {value}")
    asking = [m.name for m in methods if m.asks]
    if len(asking) != 1 and len(methods) == len(recipe.methods):
        known = ", ".join(sorted(n for n, m in METHODS.items() if m.asks))
        wrong.append(f"a recipe needs one method that asks ({known}), got {len(asking)}: "
                     f"{', '.join(asking) or 'none'}")  # fmt: skip
    planning = [m.name for m in methods if type(m).plan is not Method.plan]
    if len(planning) > 1:
        wrong.append(f"{' and '.join(planning)} both plan runs; run the first, then name it as teacher")
    if not (recipe.data.startswith("folder:") or recipe.data in data.DATASETS):
        wrong.append(f"unknown data set {recipe.data!r}; known: {', '.join([*data.DATASETS, 'folder:<path>'])}")
    needs = set().union(*(m.needs for m in methods))
    if needs & {"pairs", "path"} and not recipe.pairs:
        wrong.append("this recipe learns from pairs; set pairs to how many (100000, say)")
    if needs - {"starts"} and not recipe.teacher:
        wrong.append(f"method {recipe.methods[0].method} learns from a teacher; set teacher to an alias, "
                     "run:<id>, pipeline:<folder> or callable:<name>")  # fmt: skip
    try:
        diffusion.solver_of(recipe.solver)
    except ValueError as error:
        wrong.append(str(error))
    if recipe.teacher and not recipe.teacher.startswith("pipeline:"):
        try:
            taught = _taught(recipe.teacher, store)
        except (LookupError, ValueError) as error:
            wrong.append(str(error))
        else:
            if needs & {"pairs", "path"} and data.lasting(recipe.data) != data.lasting(taught):
                wrong.append(f"data is {recipe.data!r}, but teacher {recipe.teacher} draws images of {taught!r}; "
                             f"set data to {taught!r}")  # fmt: skip
            wrong += _untaught(recipe, store)
    wrong += _misfits(recipe, _spec_ahead(recipe, store, needs))
    return wrong + _check_start(recipe, store, read="starts" in needs)


def _taught(teacher: str, store: Store) -> str:
    """The data set whose images a run or a function draws."""
    if teacher.startswith("callable:"):
        return teachers.registered(teacher).spec.data
    return store.get(teacher).recipe.data


def _untaught(recipe: Recipe, store: Store) -> list[str]:
    """Classes that a student would be told or shown and that its teacher, a run, never was, as sentences."""
    if recipe.teacher.startswith("callable:"):
        return []
    theirs, wrong = store.get(recipe.teacher).recipe, []
    if recipe.student.num_classes and not theirs.student.num_classes:
        wrong.append(f"student.num_classes is {recipe.student.num_classes}, but teacher {recipe.teacher} is told no "
                     "class, so that none decides its images; set it to 0")  # fmt: skip
    if theirs.classes is not None and (recipe.classes is None or not set(recipe.classes) <= set(theirs.classes)):
        known = ", ".join(map(str, theirs.classes))
        got = "all" if recipe.classes is None else list(recipe.classes)
        wrong.append(f"teacher {recipe.teacher} has learned the classes {known} alone; set classes to some of them, "
                     f"got {got}")  # fmt: skip
    return wrong


def _spec_ahead(recipe: Recipe, store: Store, needs: set[str]) -> data.ImageSpec | None:
    """What the images will be, as far as it is known without reading any; None where it isn't."""
    if needs & {"pairs", "path"} and recipe.teacher and not recipe.teacher.startswith("pipeline:"):
        try:
            return teachers.spec_of(recipe.teacher, store)
        except (LookupError, ValueError):
            return None
    if recipe.data.startswith("folder:"):  # its pictures are made to fit
        root = Path(recipe.data.removeprefix("folder:")).expanduser()
        if not root.is_dir():
            return None
        channels, size, classes = recipe.student.channels, recipe.student.image_size, len(data.folder_classes(root))
    elif recipe.data in SHAPES:
        channels, size, classes = SHAPES[recipe.data]
    else:
        return None
    if needs & {"pairs", "path"}:  # a pipeline has its own classes
        classes = recipe.student.num_classes
    return data.ImageSpec(data=recipe.data, size=size, channels=channels, num_classes=classes)


def _misfits(recipe: Recipe, spec: data.ImageSpec | None) -> list[str]:
    """Where the student's input is not the data's image, as sentences."""
    if spec is None:
        return []
    student = recipe.student
    wrong = [
        f"student.{name} is {mine}, the images of {spec.data} have {theirs}"
        for name, mine, theirs in [("image_size", student.image_size, spec.size),
                                   ("channels", student.channels, spec.channels)]
        if mine != theirs
    ]  # fmt: skip
    outside = [c for c in recipe.classes or () if c >= spec.num_classes]
    if outside and spec.num_classes:
        wrong.append(f"classes names {outside[0]}, {spec.data} has 0 to {spec.num_classes - 1}")
    if student.num_classes not in (0, spec.num_classes):
        wrong.append(f"student.num_classes is {student.num_classes}, {spec.data} has {spec.num_classes} "
                     "(0 makes an unconditional net)")  # fmt: skip
    return wrong


def _check_start(recipe: Recipe, store: Store, *, read: bool) -> list[str]:
    """What is wrong with the runs that a recipe starts from; `read`: a method takes what it needs out of them."""
    wrong = []
    if read and not recipe.start:
        wrong.append("this recipe begins with another run's weights; set start to a run")
    if len(recipe.start) > 1 and not read:
        wrong.append(f"start names {len(recipe.start)} runs ({', '.join(recipe.start)}), but no method of this recipe "
                     "joins several; name one")  # fmt: skip
    for name in recipe.start:
        try:
            run = store.get(name)
            theirs, mine = config_to_json(run.recipe.student), config_to_json(recipe.student)
        except (LookupError, ValueError) as error:
            wrong.append(str(error))
            continue
        if not isinstance(run.read("student"), dict):
            wrong.append(f"start {name} has no finished network yet; its state is {run.status().state!r}")
        unlike = [k for k in mine | theirs if mine.get(k) != theirs.get(k)]
        if unlike and not read:
            wrong.append(f"start {name} has {unlike[0]} {theirs.get(unlike[0])}, the student has "
                         f"{mine.get(unlike[0])}; weights go into a network of the same shape only")  # fmt: skip
    return wrong


def resolve(recipe: Recipe, store: Store) -> Recipe:
    """The recipe with its rate and every method option written out, data, teacher and start by their lasting names.

    Raises ValueError listing everything that is wrong.
    """
    recipe = Recipe.from_json(recipe.to_json())  # clip=0 and clip=0.0 are one recipe and have to be one run
    if wrong := check(recipe, store):
        raise ValueError("\n".join(wrong))
    uses = tuple(Use(use.method, options_of(create(use))) for use in recipe.methods)
    teacher = teachers.resolve(recipe.teacher, store) if recipe.teacher else None
    start = tuple(store.get(name).id for name in recipe.start)  # the new run itself may fit the name that was given
    lr = recipe.default_lr if recipe.lr is None else recipe.lr
    return dataclasses.replace(
        recipe, data=data.lasting(recipe.data), methods=uses, teacher=teacher, start=start, lr=lr
    )


def plan(recipe: Recipe, store: Store) -> list[Recipe]:
    """The resolved runs that a recipe asks for, in order."""
    recipe = resolve(recipe, store)
    for use in recipe.methods:
        planned = create(use).plan(recipe)
        if planned != [recipe]:
            return [resolve(r, store) for r in planned]
    return [recipe]


# --- the run ------------------------------------------------------------------------------------


def run(recipe: Recipe, store: Store | None = None, *, machine: Machine = Machine(), measure: bool = True) -> Run:
    """Do a recipe and everything it needs first; gives its run.

    A finished run is returned as it is, a stopped one goes on. Raises ValueError for a recipe that
    can't run, Busy if another process works on it, Stopped after SIGINT or SIGTERM (state saved).
    """
    store = store or Store()
    for planned in plan(recipe, store):
        done = _run_one(planned, store, machine, measure)
    return done


def _run_one(recipe: Recipe, store: Store, machine: Machine, measure: bool) -> Run:
    run = store.open(recipe)
    if run.status().state == "done":
        return run
    with run.working(), _on_signal(_interrupt):
        _record(run, machine, recipe)
        started = run.status().started or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        run.set_status(state="running", steps=recipe.steps, started=started, error="")
        try:
            if not is_whole(run):
                _train(run, recipe, store, machine)
            _after(run, store, machine, measure)
        except (Stopped, KeyboardInterrupt):
            run.set_status(state="stopped")
            raise
        except BaseException as error:
            run.set_status(state="failed", error=f"{type(error).__name__}: {error}")
            write_whole(run.path / "traceback.txt", traceback.format_exc())
            raise
        (run.path / "state.pt").unlink(missing_ok=True)
        (run.path / "traceback.txt").unlink(missing_ok=True)
        run.set_status(state="done", step=recipe.steps)
    return run


def _train(run: Run, recipe: Recipe, store: Store, machine: Machine) -> None:
    device = machine.torch_device()
    methods = sorted((create(use) for use in recipe.methods), key=lambda m: m.edits)
    needs = set().union(*(m.needs for m in methods))
    batches, spec = _source(recipe, store, needs, device)
    teacher = None
    if needs & {"teacher_denoise", "teacher_blocks"}:
        teacher = teachers.load(recipe.teacher, store, solver=recipe.solver, device=device)

    torch.manual_seed(recipe.seed)
    student = models.build(recipe.student)
    starts = [Finished(store.get(s).recipe, load_student(store.get(s))) for s in recipe.start]
    if starts and starts[0].recipe.student == recipe.student:
        student.load_state_dict(starts[0].student.state_dict())
    for method in methods:
        student = method.prepare(student, spec, teacher, starts)
    student.to(device)
    for method in methods:
        method.own.to(device)

    stop = threading.Event()
    with _on_signal(stop.set):  # the loop saves its state before it leaves
        plain = train(
            run, start_state(student, methods, recipe), recipe=recipe, methods=methods, teacher=teacher,
            batches=batches, spec=spec, device=device, compiled=machine.compiles(recipe, notice=True), stop=stop,
            picture=lambda net, images: snapshot(run, net, spec, images, device),
        )  # fmt: skip
    save_student(run, plain, spec)


def _source(recipe: Recipe, store: Store, needs: set[str], device: torch.device
            ) -> tuple[Callable[[int], Iterator[data.Batch]], data.ImageSpec]:  # fmt: skip
    """The stream of batches from any step on, and what its images are."""
    size, channels = recipe.student.image_size, recipe.student.channels
    if needs & {"pairs", "path"}:
        keep = 0  # methods with "path" say how many; none does yet
        what = pairs.pair_set(store, recipe.teacher, recipe.solver, keep=keep)
        spec = teachers.spec_of(recipe.teacher, store)
        if recipe.teacher.startswith("pipeline:"):
            # A pipeline does not say what it was trained on; the recipe does, and is held to it as far as it goes.
            spec = dataclasses.replace(spec, data=recipe.data)
            with contextlib.suppress(data.MissingData):
                data.load(recipe.data, "train", size=spec.size, channels=spec.channels)
        _fits(recipe, spec)
        made = pairs.ensure(store, what, recipe.pairs, device=device)
        reader = pairs.Reader(made, recipe.pairs, shape=spec.shape, num_classes=spec.num_classes).only(recipe.classes)
        return lambda start: reader.stream(batch=recipe.batch, seed=recipe.seed, start=start), spec
    images = data.load(recipe.data, "train", size=size, channels=channels)
    spec = data.spec_of(recipe.data, images)
    _fits(recipe, spec)
    images = data.choose_classes(images, recipe.classes)
    return lambda start: data.stream(images, batch=recipe.batch, seed=recipe.seed, start=start), spec


def _fits(recipe: Recipe, spec: data.ImageSpec) -> None:
    """Raises ValueError where the student's input is not the data's image; `check` may not have known it."""
    if wrong := _misfits(recipe, spec):
        raise ValueError("\n".join(wrong))


def _after(run: Run, store: Store, machine: Machine, measure: bool) -> None:
    """Cost, metrics and sheet of a finished network; also for a run stopped in between."""
    from lab import cost, metrics, neighbours

    device = machine.torch_device()
    net, spec = load_student(run, device=device), spec_of_run(run)
    run.write("cost", cost.of_run(run))
    sheet(run, net, spec, device)
    if measure:
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
    store.name_teacher("digits-teacher", run(teacher, store).id)
    dit = DiTConfig(image_size=8, patch=2, depth=2, width=32, heads=2)
    return run(Recipe(teacher="digits-teacher", pairs=4096, student=dit, **kept), store)


# --- pictures -----------------------------------------------------------------------------------


def snapshot(run: Run, net: nn.Module, spec: data.ImageSpec, images: int, device: torch.device) -> None:
    """The 16 common noises as the network draws them now: snapshots/<images seen>.png, 8 x 2."""
    y = diffusion.sheet_classes(len(SNAPSHOT_SEEDS), net.config.num_classes)
    drawn, _ = generate(net, spec, SNAPSHOT_SEEDS, y=y, solver=run.recipe.solver, device=device)
    write_whole(run.path / "snapshots" / f"{images}.png", sheets.png(drawn.numpy(), 8))


def sheet(run: Run, net: nn.Module, spec: data.ImageSpec, device: torch.device) -> None:
    """samples.npz and samples.png: the 64 common noises with classes 0, 1, 2, ... in turn if the net takes one."""
    seeds = diffusion.SHEET_SEEDS
    y = diffusion.sheet_classes(len(seeds), net.config.num_classes)
    drawn, _ = generate(net, spec, seeds, y=y, solver=run.recipe.solver, device=device)
    buffer = io.BytesIO()
    told = {} if y is None else {"classes": y.numpy()}
    np.savez_compressed(buffer, images=drawn.numpy(), seeds=np.array(seeds), **told)
    write_whole(run.path / "samples.npz", buffer.getvalue())
    write_whole(run.path / "samples.png", sheets.png(drawn.numpy(), 8))


# --- the record ---------------------------------------------------------------------------------


def _record(run: Run, machine: Machine, recipe: Recipe) -> None:
    """One entry in env.json for every sitting: what the figures of this run were made with."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    found = run.read("env")
    sittings = found["sittings"] if isinstance(found, dict) else []
    conditions = {name: value for use in recipe.methods for name, value in create(use).conditions(recipe).items()}
    if sittings and (run.path / "state.pt").exists():
        _check_conditions(run, sittings[-1], conditions)
    sittings.append({
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "from_step": run.status().step, "commit": commit(), "python": platform.python_version(),
        "torch": torch.__version__, "device": str(machine.torch_device()), "threads": torch.get_num_threads(),
        "compiled": machine.compiles(recipe), "machine": platform.machine(), "cpus": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **conditions,
    })  # fmt: skip
    run.write("env", {"sittings": sittings})


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


__all__ = ["Machine", "check", "commit", "digits_student", "plan", "resolve", "run"]
