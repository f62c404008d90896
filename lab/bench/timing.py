"""Times runs of the store on this machine and keeps each timing as a device report.

A one-step student is timed as its network, a denoising teacher as its whole sampler. Scope `core`
is the network alone on noise that lies on the device; `e2e` goes from drawing the noise to a uint8
image on the host. On a CUDA device the network alone is timed by the device's clock, with the host's beside it. The
protocol itself is devices/runner/, the same that times a board.
"""

from __future__ import annotations

import hashlib
import itertools
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from lab import artefacts, cost, diffusion, footprint
from lab.config import JSON, config_to_json, unknown
from lab.devices import bundle, runner
from lab.devices.report import SCHEMA
from lab.devices.runner import Comparison, Preset
from lab.precisions import TOLERANCES
from lab.results import Run, Store, now
from lab.runtimes import Session
from lab.runtimes import get as runtime_of
from lab.runtimes.base import why_not

SCOPES = ("core", "e2e")


# --- what is timed ------------------------------------------------------------------------------


def fixed_inputs(session: Session, batch: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Noise and classes of the first `batch` images of a sheet."""
    z, _ = diffusion.noise_of(range(batch), session.spec.shape, 0)
    y = diffusion.sheet_classes(batch, session.config.num_classes)
    return z.numpy(), None if y is None else y.numpy()


def call_of(session: Session, scope: str, batch: int) -> Callable[[], object]:
    """The callable that a timing of this scope repeats."""
    if scope not in SCOPES:
        raise ValueError(unknown("scope", scope, SCOPES))
    z, y = fixed_inputs(session, batch)
    if scope == "core":
        inputs = session.place(z, y)
        return lambda: session.run(inputs)
    rng = np.random.default_rng(0)

    def image() -> np.ndarray:
        noise = rng.standard_normal(z.shape, dtype=np.float32)
        return _uint8(session.fetch(session.run(session.place(noise, y))))

    return image


def _cuda(session: Session) -> torch.device | None:
    """The CUDA device that a session runs on, if it does."""
    device = getattr(session, "device", None)  # of torch's alone: the others run on the CPU
    return device if device is not None and device.type == "cuda" else None


def _uint8(image: np.ndarray) -> np.ndarray:
    """diffusion.to_uint8 without torch, which a board may not have."""
    return np.clip(np.rint(image * 127.5 + 127.5), 0, 255).astype(np.uint8)


# --- one timing ---------------------------------------------------------------------------------


def measure(run: Run, store: Store, *, runtime: str = "eager", batch: int = 1, threads: int | None = None,
            scope: str = "core", preset: str | Preset = "quick", device: str = "cpu", precision: str = "fp32",
            solver: str | None = None, ambient: float | None = None) -> dict[str, JSON]:  # fmt: skip
    """Time a finished run and store the report, which it gives.

    A denoiser's solver None = the run's own; threads None = as many as torch takes now; ambient: the room's
    temperature in degrees Celsius. Raises ValueError for a wrong name, LookupError for a run without weights or a
    runtime that is not here, Refused for a publishable preset while the machine is busy, TooLarge for a batch that
    does not fit in the memory that is free.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    if scope not in SCOPES:
        raise ValueError(unknown("scope", scope, SCOPES))
    chosen, backend, solver = runner.preset_of(preset), runtime_of(runtime), solver or run.recipe.drawn_by
    before = runner.look(chosen)
    idle = runner.idle_w(runner.HERE)
    weights_of(run)
    if why := _why_not(run, runtime, precision):
        raise ValueError(why)
    _check_fit(run, batch, device, before)
    path = backend.export(run, precision, solver=solver)

    def opened() -> Session:
        return backend.open(path, device=device, threads=threads, precision=precision, solver=solver)

    opened()  # untimed: it imports the runtime's packages, which takes seconds once in a process
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    session, load_ms = _timed(opened)
    with session:
        inputs = session.place(*fixed_inputs(session, batch))
        _, build_ms = _timed(lambda: session.build(inputs))
        call = call_of(session, scope, batch)
        _, first_ms = _timed(call)
        cuda = _cuda(session)
        # From noise to an image is the host's time alone.
        events = runner.CudaEvents(torch, cuda) if cuda and scope == "core" else None
        timed = runner.time_calls((lambda: session.launch(inputs)) if events else call, chosen, before,
                                  events=events)  # fmt: skip
        allocator_mb = round(torch.cuda.max_memory_allocated(cuda) / 1e6, 3) if cuda else None
        image = session.fetch(session.run(inputs))
    state = timed.state | {"threads": session.threads, "idle_power_w": idle, "ambient_c": ambient}
    cold = {"load_ms": load_ms, "build_ms": build_ms if session.builds else None, "first_ms": first_ms}
    peak_mb, method = footprint.peak(backend, path, batch=batch, threads=session.threads, precision=precision,
                                     device=device, solver=solver)  # fmt: skip
    memory = {
        "method": method, "weights_mb": round(session.weights_mb, 3), "allocator_peak_mb": allocator_mb,
        "process_peak_mb": peak_mb, "system_delta_mb": timed.system_mb,
    }  # fmt: skip
    versions = runner.HERE.versions()
    if torch.device(device).type == "cuda":
        versions |= {name: version for name, version in runner.cuda_versions(torch).items() if version}
    report = runner.with_id({
        "schema": SCHEMA, "created_utc": now(), "provenance": "measured",
        "runner": {"name": runner.NAME, "version": runner.VERSION, "sha256": bundle.sha256(),
                   "preset": chosen.known_as},
        "device": device_facts(device),
        "software": {
            "os": runner.HERE.os_name(), **versions, "python": platform.python_version(), "torch": torch.__version__,
            "runtime": runtime, "runtime_version": session.version, "flags": session.flags + timed.flags,
        },
        "state": state,
        "model": _model(run, session, precision),
        "workload": {"scope": scope, "batch": batch, "height": session.spec.size, "width": session.spec.size,
                     "nfe": session.evaluations},
        "timing": timed.timing | cold,
        "memory": memory,
        "energy": runner.energy_of(state, timed.timing, batch),
        "checks": checks(image, reference(run, session, batch, device, solver), precision),
    })  # fmt: skip
    store.add_report(report)
    return report


BESIDE_MB = 200.0  # of a runtime beside torch, which is in the process already


def _check_fit(run: Run, batch: int, device: str, before: runner.Before) -> None:
    """Warns where memory will be tight. Raises TooLarge where a batch does not fit."""
    free_mb = before.free_mb
    if torch.device(device).type == "cuda" and runner.HERE.family not in runner.BOARDS:  # a card has its own
        free_mb = torch.cuda.mem_get_info(device)[0] / 1e6
    weights_mb = 4e-6 * cost.of_config(run.config)["params"]
    if warning := runner.check_fit(batch, free_mb, base_mb=BESIDE_MB, weights_mb=weights_mb,
                                   activations=cost.activations(run.config)):  # fmt: skip
        warnings.warn(warning, stacklevel=3)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """(what it gives, milliseconds)."""
    start = time.perf_counter_ns()
    found = call()
    return found, round((time.perf_counter_ns() - start) / 1e6, 3)


def device_facts(device: str) -> dict[str, JSON]:
    """The `device` part of a report for a torch device of this machine; `gpu` is the one that does the work."""
    facts, kind = runner.HERE.device(), torch.device(device).type
    if kind == "mps":
        return facts | {"gpu": "Apple GPU"}
    if kind != "cuda":
        return facts
    gpu = torch.cuda.get_device_properties(device)
    if facts["family"] == "jetson":
        return facts | {"gpu": gpu.name}
    return facts | {"family": "nvidia_dgpu", "name": gpu.name, "gpu": gpu.name, "memory_mb": gpu.total_memory >> 20}


def _model(run: Run, session: Session, precision: str) -> dict[str, JSON]:
    student, cost = run.read("student"), run.read("cost")
    known = cost if isinstance(cost, dict) else {}
    return {
        "model_id": run.id, "config": config_to_json(session.config), "weights_sha256": student["weights_sha256"],
        "artifact_sha256": session.artefact_sha256, "params": known.get("params"), "macs": known.get("macs"),
        "file_mb": session.weights_mb if session.artefact_sha256 else student["file_mb"], "precision": precision,
    }  # fmt: skip


def reference(run: Run, session: Session, batch: int, device: str, solver: str) -> np.ndarray:
    """The finished network's images of the same inputs; made after the timing, so that they cost no memory there."""
    return artefacts.reference(run, *fixed_inputs(session, batch), device, solver)


def checks(image: np.ndarray, reference: np.ndarray, precision: str) -> dict[str, JSON]:
    """Whether images are the right ones: the `checks` part of a report."""
    apart = np.abs(image - reference)
    furthest, mean = float(apart.max()), float(apart.mean())
    finite = bool(np.isfinite(image).all())
    largest_allowed, mean_allowed = TOLERANCES[precision]
    return {
        "output_ok": finite and furthest <= largest_allowed and mean <= mean_allowed,
        "max_abs_vs_ref": furthest if finite else None,
        "image_sha256": hashlib.sha256(_uint8(image).tobytes()).hexdigest() if finite else None,
    }


# --- many timings -------------------------------------------------------------------------------


def sweep(runs: Iterable[Run], store: Store, *, runtimes: Sequence[str] = ("eager",), batches: Sequence[int] = (1,),
          threads: Sequence[int | None] = (None,), scopes: Sequence[str] = ("core",), preset: str | Preset = "quick",
          device: str = "cpu", precisions: Sequence[str] = ("fp32",), solver: str | None = None, force: bool = False,
          ambient: float | None = None) -> list[dict[str, JSON]]:  # fmt: skip
    """Time every combination that has no report of this machine yet, with a progress bar; gives the new reports.

    Left out are precisions that a runtime does not have, or not for a network. Networks of the same weights are timed
    once. `force` times also what is there. Runtimes that read files are timed on the CPU, where they run, whatever the
    device. Raises ValueError for a runtime, a precision or a run of which then nothing is left. A batch that does not
    fit in memory is left out with a sentence; raises TooLarge if nothing else was there to time.
    """
    chosen = runner.preset_of(preset)
    todo = plan(runs, store, runtimes=runtimes, batches=batches, threads=threads, scopes=scopes, preset=chosen,
                device=device, precisions=precisions, solver=solver, force=force)  # fmt: skip
    new, too_large = [], None
    with tqdm(todo, desc="timing", unit="timings") as bar:
        for timing in bar:
            bar.set_postfix_str(f"{timing.run.label[-30:]} {timing.runtime} {timing.precision} b{timing.batch} "
                                f"t{timing.threads} {timing.scope}")  # fmt: skip
            if chosen.name == "publishable":
                runner.wait_until_quiet()  # the last timing's own load is still in the average
            try:
                new.append(measure(**vars(timing), store=store, preset=chosen, solver=solver, ambient=ambient))
            except runner.TooLarge as error:
                too_large = error
                bar.write(f"{timing.run.label} by {timing.runtime} is left out: {error}", file=sys.stderr)
    if too_large and not new:
        raise too_large
    return new


@dataclass(frozen=True)
class Timing:
    """One timing to do."""

    run: Run
    runtime: str
    precision: str
    batch: int
    threads: int
    scope: str
    device: str


def plan(runs: Iterable[Run], store: Store, *, runtimes: Sequence[str], batches: Sequence[int],
         threads: Sequence[int | None], scopes: Sequence[str], preset: str | Preset, device: str,
         precisions: Sequence[str], solver: str | None = None, force: bool = False) -> list[Timing]:  # fmt: skip
    """What `sweep` would time, in its order."""
    known_as, forms = runner.preset_of(preset).known_as, forms_of(runtimes, precisions)
    there = set() if force else _there(store.reports())
    todo = []
    every = itertools.product(forms, batches, threads, scopes, _runnable(runs, forms))
    for (runtime, precision), batch, count, scope, run in every:
        count = count or torch.get_num_threads()
        on = "cpu" if runtime_of(runtime).exports else device
        here = device_facts(on)
        key = (weights_of(run), _evaluations(run, solver), here["name"], here["gpu"], runtime, precision, batch, count,
               scope, known_as)  # fmt: skip
        if key in there or _why_not(run, runtime, precision):
            continue
        there.add(key)
        todo.append(Timing(run, runtime, precision, batch, count, scope, on))
    return todo


def forms_of(runtimes: Sequence[str], precisions: Sequence[str]) -> list[tuple[str, str]]:
    """Every runtime with those of the precisions that it has; one that is not here ends it before the first timing.

    Raises ValueError for a precision that none of them has and for a runtime that has none of them.
    """
    found = [(name, p) for name in runtimes for p in precisions if p in runtime_of(name).precisions]
    for name in {*runtimes} - {name for name, _ in found}:
        raise ValueError(f"runtime {name} has none of the precisions {', '.join(precisions)}; "
                         f"it has {', '.join(runtime_of(name).precisions)}")  # fmt: skip
    for precision in {*precisions} - {p for _, p in found}:
        known = dict.fromkeys(p for name in runtimes for p in runtime_of(name).precisions)
        raise ValueError(unknown(f"precision of {' and '.join(runtimes)}", precision, known))
    return found


def _runnable(runs: Iterable[Run], forms: Sequence[tuple[str, str]]) -> list[Run]:
    """The runs that can be run in some of the forms. Raises ValueError where none is left."""
    given = list(runs)
    for run in given:
        weights_of(run)
    kept = [run for run in given if any(not _why_not(run, *form) for form in forms)]
    if given and not kept:
        raise ValueError(_why_not(given[0], *forms[0]))
    return kept


def _why_not(run: Run, runtime: str, precision: str) -> str | None:
    """Why a runtime can't run a run in a precision, as a sentence; None if it can."""
    why = why_not(runtime_of(runtime), run, precision)
    return why and f"runtime {runtime} can't run {run.label}: {why}"


_KEY = ["model.weights_sha256", "workload.nfe", "device.name", "device.gpu", "software.runtime", "model.precision",
        "workload.batch", "state.threads", "workload.scope", "runner.preset"]  # fmt: skip


def _there(reports: pd.DataFrame) -> set[tuple]:
    """The conditions under which something has been timed here, a pack's runner on the same device not counting."""
    rows = reports.loc[reports["provenance"] == "measured", _KEY].itertuples(index=False)
    return {tuple(None if pd.isna(value) else value for value in row) for row in rows}


def weights_of(run: Run) -> str:
    """The sha256 of a run's weights. Raises LookupError for a run without."""
    student = run.read("student")
    if not isinstance(student, dict):
        raise LookupError(f"run {run.id} has no finished network to time; its state is {run.status().state!r}")
    return student["weights_sha256"]


def _evaluations(run: Run, solver: str | None) -> int:
    return diffusion.evaluations(solver or run.recipe.drawn_by) if run.config.time else 1


# --- two sessions against each other ------------------------------------------------------------


def compare(a: Session, b: Session, *, batch: int = 1, scope: str = "core", preset: str | Preset = "quick"
            ) -> Comparison:  # fmt: skip
    """How many times longer session `a` takes than `b`, in turns A B B A; "faster" only if the interval excludes 1."""
    calls = []
    for session in (a, b):
        with session:
            session.build(session.place(*fixed_inputs(session, batch)))
            calls.append(call_of(session, scope, batch))
    return runner.compare(*calls, runner.preset_of(preset), around=(a, b))
