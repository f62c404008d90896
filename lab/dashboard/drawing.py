"""Images drawn here and now, for the pages that draw: by the fastest runtime that draws them right, or by one that was
named. Torch and the runtimes come in only when something is drawn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from lab import precisions
from lab.results import Run, Stamp, stamp

if TYPE_CHECKING:
    from lab.fastest import Drawer
    from lab.walk import Walk

AUTO = "fastest"
FORMS = {name: known for name, known in precisions.FORMS.items() if name != "torch-export"}  # that one only exports
LOOK = {"iters": 5, "seconds": 1.0, "warmup_iters": 5, "warmup_s": 0.2, "warmup_cap_s": 1.0}  # enough for a look
BATCHES = (1, 16, 64)  # for which a fastest runtime is looked for; others take that of the nearest
FAULTS = (RuntimeError, ValueError, LookupError, MemoryError, OSError)  # that drawing may end in, for `sentence`
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")  # as CUDA and the CPU say it


@dataclass(frozen=True)
class Ready:
    """A network opened by a runtime, with what it cost to get there."""

    drawer: Drawer
    load_ms: float
    first_ms: float  # one image, right after loading; with what the runtime builds for it


@dataclass(frozen=True)
class Drawn:
    """Images, and how long it took to make them: from noise seeds to uint8 in memory."""

    images: np.ndarray  # (N, C, H, W) uint8
    finite: bool
    ready: Ready
    timing: Mapping[str, Any]  # of a device report: p50, p50_ci95, p90, min, iters, all images together; {} if untimed

    @property
    def ms(self) -> float:
        return self.timing["p50"]

    @property
    def form(self) -> str:
        return self.ready.drawer.form

    @property
    def said(self) -> str:
        """By which runtime and why, and what was passed over on the way."""
        drawer = self.ready.drawer
        return ". ".join([drawer.said, *(f"Passed over: {why}" for why in drawer.passed_over)])


class Imports(threading.Thread):
    """Torch and what draws with it, imported beside the page: it opens without them, and whoever presses finds them."""

    def __init__(self) -> None:
        super().__init__(name="imports", daemon=True)
        self.ms = 0.0

    def run(self) -> None:
        began = time.perf_counter()
        with contextlib.suppress(ImportError):  # it is raised again, with a place to stand, where something is drawn
            import lab.fastest  # noqa: F401 - its import is part of the cold start
        self.ms = 1e3 * (time.perf_counter() - began)


@st.cache_resource(show_spinner=False)
def imports() -> Imports:
    """The imports, begun by the first who asks; `is_alive` says whether they go on."""
    begun = Imports()
    begun.start()
    return begun


@st.cache_resource(show_spinner="Loading torch, once per server ...")
def torch_of() -> tuple[float, int, threading.Lock]:
    """What the import took (ms), torch's own number of threads, and the lock: two generations would slow each other."""
    begun = imports()
    begun.join()
    import torch

    return begun.ms, torch.get_num_threads(), threading.Lock()


def generate(run: Run, seeds: Sequence[int], classes: Sequence[int] | None, reports: pd.DataFrame, *,
             runtime: str = AUTO, precision: str = "fp32", device: str = "cpu", threads: int = 0, timed: bool = False
             ) -> Drawn:  # fmt: skip
    """Images of a run, and their times if wanted; threads 0 = torch's own number, which is put back afterwards.

    Raises LookupError with one sentence for a missing package, ValueError for a device or a network that can't be,
    RuntimeError and MemoryError where memory ends.
    """
    import torch

    from lab import diffusion
    from lab.devices import runner

    _, own_threads, lock = torch_of()
    _check_device(device)
    near = min(BATCHES, key=lambda batch: abs(np.log(batch / len(seeds))))
    with lock:
        try:
            made = ready(str(run.path), stamp(run.path / "student.safetensors"), runtime, precision, device,
                         threads or own_threads, near if runtime == AUTO else 0, reports)  # fmt: skip
            images = torch.from_numpy(made.drawer.images(seeds, classes))
            timing = {}
            if timed:
                preset = runner.Preset("look", **LOOK)
                call = lambda: made.drawer.sample(seeds, classes)  # noqa: E731
                timing = runner.time_calls(call, preset, runner.preflight(preset)).timing
        finally:
            torch.set_num_threads(own_threads)
    finite = bool(torch.isfinite(images).all())
    return Drawn(diffusion.to_uint8(images.nan_to_num()).numpy(), finite, made, timing)


def at_once(run: Run, seeds: Sequence[int], classes: Sequence[int] | None, *, runtime: str = AUTO,
            precision: str = "fp32", device: str = "cpu", threads: int = 0) -> np.ndarray:  # fmt: skip
    """uint8 images (N, C, H, W) for somebody who waits: by plain torch, which has nothing to make or to find out,
    unless a runtime was named. Raises as `generate`.
    """
    _, own_threads, lock = torch_of()
    import torch

    from lab import fastest

    _check_device(device)
    form = ("eager", "fp32") if runtime == AUTO else (runtime, precision)
    with lock:
        try:
            return fastest.named(run, *form, threads=threads or own_threads, device=device).sample(seeds, classes)
        finally:
            torch.set_num_threads(own_threads)


@st.cache_resource(max_entries=16, show_spinner=False)
def walk(run_path: str, stamp: Stamp) -> Walk:
    """A run's student between noises and classes; the stamp is that of its weights."""
    torch_of()
    from lab.walk import Walk

    return Walk(Run(Path(run_path)))


@st.cache_resource(max_entries=2, show_spinner=False)
def ready(run_path: str, stamp: Stamp, runtime: str, precision: str, device: str, threads: int, near: int,
          _reports: pd.DataFrame) -> Ready:  # fmt: skip
    """A run's network, opened; which runtime that is was decided before the clock starts."""
    from lab import fastest

    run = Run(Path(run_path))
    if runtime == AUTO:
        chosen = fastest.fastest(run, _reports, batch=near, threads=threads, device=device)
    else:
        chosen = fastest.named(run, runtime, precision, threads=threads, device=device)
    began = time.perf_counter()
    drawer = dataclasses.replace(chosen, session=chosen.reopened())
    loaded = time.perf_counter()
    drawer.sample([0])
    return Ready(drawer, 1e3 * (loaded - began), 1e3 * (time.perf_counter() - loaded))


def _check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch sees no CUDA device on this machine; choose cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("torch sees no Apple GPU on this machine; choose cpu")


def sentence(error: Exception, count: int) -> str:
    """What went wrong, and what to do."""
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, MemoryError) or any(words in said.lower() for words in NO_MEMORY):
        return f"Out of memory with {count} images at once. Try {max(1, count // 2)}."
    return str(error) if isinstance(error, LookupError | ValueError) else said
