"""Which runtime draws a run's images fastest on this machine, of those that draw them right.

    from lab import fastest
    drawn = fastest.fastest(lab.Store().get("d4w64h4p4"), batch=16)
    print(drawn.said)
    images = drawn.sample(range(16), y=9)

What was timed here decides; while some runtime was not, a trial of a moment does. Whatever a report says, no
runtime is taken whose images are not the network's own: they are compared before it is handed over.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from lab import artefacts, bench, choose, diffusion
from lab.choose import number
from lab.devices import predict, runner
from lab.devices.runner import Preset
from lab.results import Run, Store
from lab.runtimes import RUNTIMES, Session, get
from lab.runtimes.base import check_threads, why_not

# Compiling takes 10 to 60 s for each network and batch: nothing for somebody who waits, unless it was asked for.
SLOW_TO_BUILD = ("compiled",)
TRIAL = Preset("trial", iters=3, seconds=0.1)
TRIAL_BATCH = 64  # at most, so that a trial stays one of a moment
CHECKED = 4  # images that are held against the network's own
LAST = "eager"  # what is left where nothing else works; it needs no package and no file


@dataclass(frozen=True)
class Drawer:
    """A network opened by a runtime, its images compared with the network's own."""

    run: Run
    session: Session
    runtime: str
    precision: str
    device: str
    why: str  # it was taken, as a clause
    right: bool  # whether its images are the network's own, as far as its precision can draw them
    off: float  # mean difference from them, in [-1, 1]; infinite where they are no numbers
    passed_over: tuple[str, ...] = ()  # a sentence for every one that would have come first

    @property
    def form(self) -> str:
        return f"{self.runtime} {self.precision}"

    @property
    def said(self) -> str:
        """Which runtime, why, and how far its images are off; one line."""
        far = f"its images are {'' if self.right else 'wrong, '}{self.off:.2g} from the network's own on average"
        far = "its images are not finite" if math.isinf(self.off) else far
        return f"{self.form}, {self.session.threads} thread{'s' * (self.session.threads > 1)}: {self.why}; {far}"

    def reopened(self) -> Session:
        """The network opened once more by the same runtime: what that takes is a cold start."""
        return _opened(self.run, self.runtime, self.precision, self.session.threads, self.device)

    def images(self, seeds: Sequence[int], y: Sequence[int] | int | None = None) -> np.ndarray:
        """Float images (N, C, H, W), about [-1, 1]; y: one class for all, a list, or None: all in turn."""
        z, _ = diffusion.noise_of(seeds, self.session.spec.shape, 0)
        labels = self.session.config.num_classes
        if not labels:
            y = None
        elif y is None:
            y = [k % labels for k in range(len(seeds))]
        classes = None if y is None else np.broadcast_to(np.asarray(y, np.int64), (len(seeds),))
        return self.session(z.numpy(), classes)

    def sample(self, seeds: Sequence[int], y: Sequence[int] | int | None = None) -> np.ndarray:
        """The same as uint8."""
        found = torch.from_numpy(self.images(seeds, y))
        return diffusion.to_uint8(found.nan_to_num()).numpy()


# --- one that was named -------------------------------------------------------------------------


def named(run: Run, runtime: str, precision: str | None = None, *, threads: int | None = None, device: str = "cpu"
          ) -> Drawer:  # fmt: skip
    """The run by this runtime, in its first precision unless one is given; its images are compared, not refused.

    Raises LookupError with one sentence where a package or the weights are missing, ValueError for a wrong name, a
    network that the runtime can't run, or weights that were changed.
    """
    _weights(run)
    backend = get(runtime)
    precision = precision or backend.precisions[0]
    if why := why_not(backend, run, precision):
        raise ValueError(f"runtime {runtime} can't run {run.label}: {why}")
    found = _opened(run, runtime, precision, threads, device)
    return _drawer(run, found, runtime, precision, "as asked for", _Right(run, device))


def _weights(run: Run) -> str:
    student = run.read("student")
    if not isinstance(student, dict):
        raise LookupError(f"run {run.id} has no finished network yet; its state is {run.status().state!r}")
    return student["weights_sha256"]


def _opened(run: Run, runtime: str, precision: str, threads: int | None, device: str) -> Session:
    backend = get(runtime)
    path = backend.export(run, precision, solver=run.recipe.drawn_by)
    return backend.open(path, device=device, threads=threads, precision=precision, solver=run.recipe.drawn_by)


class _Right:
    """The network's own images of a few noises, drawn when they are first asked for."""

    def __init__(self, run: Run, device: str) -> None:
        self.run, self.device = run, device
        self._image: np.ndarray | None = None

    def off(self, session: Session, precision: str) -> tuple[bool, float]:
        """(whether a session's images pass, their mean difference)."""
        if self._image is None:
            self._image = bench.reference(self.run, session, CHECKED, self.device, self.run.recipe.drawn_by)
        image = session(*bench.fixed_inputs(session, CHECKED))
        ok = bench.checks(image, self._image, precision)["output_ok"]
        return ok, float(np.abs(image - self._image).mean()) if np.isfinite(image).all() else math.inf


def _drawer(run: Run, session: Session, runtime: str, precision: str, why: str, right: _Right,
            passed_over: Sequence[str] = ()) -> Drawer:  # fmt: skip
    ok, off = right.off(session, precision)
    return Drawer(run, session, runtime, precision, right.device, why, ok, off, tuple(passed_over))


# --- the fastest --------------------------------------------------------------------------------


def fastest(run: Run, reports: pd.DataFrame | None = None, *, batch: int = 1, threads: int | None = None,
            device: str = "cpu", precisions: Sequence[str] = choose.FLOATING) -> Drawer:  # fmt: skip
    """The run by the runtime that is fastest here for this batch, of those whose images are right.

    Floating point unless told otherwise: a network's metrics are those of its weights as they are. `reports` None:
    those of the run's own results folder. Raises LookupError for a run without weights, ValueError for weights that
    were changed.
    """
    weights, count = _weights(run), check_threads(threads)
    reports = Store(run.path.parent.parent).reports() if reports is None else reports
    right, passed_over = _Right(run, device), []
    forms = _forms(run, precisions, device)
    timed = _timed(reports, weights, device, batch, count, forms)
    sessions: dict[tuple[str, str], Session] = {}
    if {name for name, _ in forms} <= {name for name, _ in timed}:
        why = {form: f"fastest of {len(timed)} timed here, {number(ms)} ms" for form, ms in timed.items()}
    else:
        timed = _tried(run, forms, batch, count, device, sessions, passed_over)
        why = {form: f"fastest of {len(timed)} tried just now, {number(ms)} ms" for form, ms in timed.items()}
    if len(timed) == 1:
        why = dict.fromkeys(timed, "the only one here for such a network")
    for form in sorted(timed, key=timed.__getitem__):
        try:
            session = sessions.get(form) or _opened(run, *form, count, device)
            found = _drawer(run, session, *form, why[form], right, passed_over)
        except Exception as error:  # whatever breaks in one runtime, another may work
            passed_over.append(_sentence(form, error))
            continue
        if found.right:
            return found
        passed_over.append(f"{found.form} draws other images than the network, {found.off:.2g} off on average")
    session = _opened(run, LAST, "fp32", count, device)
    return _drawer(run, session, LAST, "fp32", "nothing else draws them here", right, passed_over)


def _forms(run: Run, precisions: Sequence[str], device: str) -> list[tuple[str, str]]:
    """Every runtime that is here, does not keep one waiting and can run this network, with its precisions."""
    found = []
    for name, runtime in RUNTIMES.items():
        elsewhere = runtime.exports and torch.device(device).type != "cpu"
        if name in SLOW_TO_BUILD or elsewhere or runtime.missing():
            continue
        found += [(name, p) for p in runtime.precisions if p in precisions and not why_not(runtime, run, p)
                  and not _slow_to_make(run, name, p)]  # fmt: skip
    return found


def _slow_to_make(run: Run, runtime: str, precision: str) -> bool:
    """Whether a file would have to be made first that takes up to a minute: a solver's, all its evaluations traced."""
    makes = run.config.time and RUNTIMES[runtime].exports
    return makes and not artefacts.fresh(run, runtime, precision, run.recipe.drawn_by)


def _timed(reports: pd.DataFrame, weights: str, device: str, batch: int, threads: int,
           forms: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:  # fmt: skip
    """Milliseconds by form in this machine's own trusted reports, at the batch that is nearest to this one."""
    if reports.empty:
        return {}
    facts = bench.device_facts(device)
    wanted = {"model.weights_sha256": weights, "device.name": facts["name"], "device.gpu": facts["gpu"],
              "state.threads": threads, "workload.scope": "core", "provenance": "measured",
              "checks.output_ok": True}  # fmt: skip
    here = reports[reports["grade"].isin(predict.TRUSTED)]
    for column, value in wanted.items():
        here = here[here[column].isna() if value is None else here[column] == value]
    if here.empty:
        return {}
    distance = np.log(here["workload.batch"].astype(float) / batch).abs()
    here = here[distance == distance.min()].sort_values("created_utc")
    found = {(row["software.runtime"], row["model.precision"]): float(row["timing.p50"])
             for row in here.to_dict("records")}  # fmt: skip
    return {form: ms for form, ms in found.items() if form in forms}


def _tried(run: Run, forms: Sequence[tuple[str, str]], batch: int, threads: int, device: str,
           sessions: dict[tuple[str, str], Session], passed_over: list[str]
           ) -> dict[tuple[str, str], float]:  # fmt: skip
    """Milliseconds of a trial of every runtime in float32; a single one is not tried. Fills `sessions`."""
    exact = [form for form in forms if form[1] == "fp32"]
    if len(exact) == 1:
        return {exact[0]: math.nan}
    found = {}
    for form in exact:
        try:
            sessions[form] = session = _opened(run, *form, threads, device)
            found[form] = _moment(session, min(batch, TRIAL_BATCH))
        except Exception as error:  # as above: its package, its file or its kernels
            passed_over.append(_sentence(form, error))
    return found


def _moment(session: Session, batch: int) -> float:
    """Milliseconds of a call, the median of a moment after the first."""
    with session:
        inputs = session.place(*bench.fixed_inputs(session, batch))
        session.build(inputs)
        session.run(inputs)
        return statistics.median(runner.sample(lambda: session.run(inputs), TRIAL)) / 1e6


def _sentence(form: tuple[str, str], error: Exception) -> str:
    said: Any = str(error).splitlines()
    return f"{' '.join(form)} does not work here: {said[0] if said else type(error).__name__}"
