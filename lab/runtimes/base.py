"""What a runtime gives, what those that read files share, and the session of all torch runtimes."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from lab import artefacts, deploy, diffusion, export
from lab.config import NetConfig, unknown, why_not_folded
from lab.data import ImageSpec
from lab.devices import predict
from lab.diffusion import SOLVER
from lab.results import Run
from lab.weights import load_student, spec_of_run

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}  # of the torch runtimes


class Session(Protocol):
    """A network opened by a runtime: `session(z, y)` gives images, numpy in and numpy out.

    What that call does in one go can be done in parts, so that the network is timed without the
    way there and back: `place` checks the inputs and brings them to the device in the runtime's own
    form, `run` is the network alone and returns when the work is done, `fetch` brings the image to
    the host. Enter the session (`with session:`) around them: that pins its threads and restores
    the process's own afterwards. A denoiser's session is its whole sampler.
    """

    config: NetConfig
    spec: ImageSpec
    evaluations: int  # of the network for one image; 1 for a one-step student
    threads: int
    weights_mb: float  # in memory, as computed with
    version: str  # of the runtime
    flags: list[str]  # settings that change the speed, for the report
    builds: bool  # whether `build` does anything
    artefact_sha256: str | None  # of the exported file that it runs; None where it runs the run's own weights

    def __enter__(self) -> Session: ...
    def __exit__(self, *_: object) -> None: ...
    def place(self, z: np.ndarray, y: np.ndarray | None) -> tuple[Any, ...]:
        """Inputs for `run`. Raises ValueError for a wrong shape or a class out of range."""
        ...

    def build(self, inputs: tuple[Any, ...]) -> None:
        """Compile, or build an engine, for inputs such as these."""
        ...

    def run(self, inputs: tuple[Any, ...]) -> Any: ...
    def fetch(self, output: Any) -> np.ndarray:
        """(B, C, H, W) float32, about [-1, 1]."""
        ...

    def __call__(self, z: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """Images (B, C, H, W) float32 of unit noise of that shape and classes (B,)."""
        ...


class Runtime(Protocol):
    """A way to run networks; one file of lab/runtimes each, whose RUNTIME is one of these."""

    name: str
    precisions: tuple[str, ...]  # that it can compute in, the reference first
    exports: bool  # whether it reads a file of its own, not the run's weights
    # ALONE: str, where its file needs neither torch nor the lab: a program that opens and draws it (lab/footprint.py)

    def missing(self) -> str | None:
        """None if it works here, else one sentence why not."""
        ...

    def why_not(self, config: NetConfig, precision: str | None = None) -> str | None:
        """None if it can run networks of this shape, in this precision where one is given, else a sentence why not."""
        ...

    def export(self, run: Run, precision: str = "fp32", *, force: bool = False, solver: str = SOLVER) -> Path:
        """Make what `open` reads, unless it is there for these weights or `force` is given; gives its folder.

        The solver is for denoisers. Raises ValueError for an unknown precision or a network that it can't run.
        """
        ...

    def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "fp32",
             solver: str = SOLVER) -> Session:  # fmt: skip
        """A session. threads None = as many as the process has now; the solver is that of `export`."""
        ...


@runtime_checkable
class Tells(Protocol):
    """A runtime that tells how long it took over each operation."""

    def parts(self, folder: Path, z: np.ndarray, y: np.ndarray | None, *, threads: int | None = None,
              precision: str = "fp32", calls: int = 50) -> Parts:  # fmt: skip
        """Where the time of drawing these images goes, by its own account."""
        ...


@runtime_checkable
class Particular(Protocol):
    """A runtime that runs networks with some weights alone, whatever their shape."""

    def why_not_run(self, run: Run) -> str | None:
        """None if it can run this run's network, else a sentence why not."""
        ...


def why_not(runtime: Runtime, run: Run, precision: str | None = None) -> str | None:
    """None if a runtime can run a run in a precision, by its shape and by its weights, else a sentence why not."""
    if why := runtime.why_not(run.config, precision):
        return why
    return runtime.why_not_run(run) if isinstance(runtime, Particular) else None


def check_inputs(z: np.ndarray, y: np.ndarray | None, config: NetConfig, spec: ImageSpec) -> None:
    """Raises ValueError where noise (B, C, H, W) or classes (B,) do not fit the network."""
    if z.ndim != 4 or z.shape[1:] != spec.shape or not len(z):
        raise ValueError(f"noise must be (B, {', '.join(map(str, spec.shape))}), got {z.shape}")
    if not config.num_classes:
        if y is not None:
            raise ValueError("this network is unconditional: give no classes")
        return
    labels = config.num_classes + config.null_class
    if y is None:
        raise ValueError(f"this network wants a class for every image, 0 to {labels - 1}")
    if y.shape != (len(z),) or y.dtype.kind not in "iu":
        raise ValueError(f"classes must be {len(z)} whole numbers, one for every image, got {y.dtype} {y.shape}")
    if outside := [int(c) for c in y if not 0 <= c < labels]:
        raise ValueError(f"class {outside[0]} is out of range; this network has classes 0 to {labels - 1}")


def check_precision(runtime: Runtime, precision: str, config: NetConfig | None = None) -> None:
    """Raises ValueError for a precision that a runtime does not have, or not for this network."""
    if precision not in runtime.precisions:
        raise ValueError(unknown(f"precision of runtime {runtime.name}", precision, runtime.precisions))
    if config is not None and (why := runtime.why_not(config, precision)):
        raise ValueError(why)


def missing_packages(runtime: Runtime, *packages: str) -> str | None:
    """None if all of them are installed, else one sentence with the command that installs the rest."""
    gone = [name for name in packages if importlib.util.find_spec(name) is None]
    if not gone:
        return None
    return f"runtime {runtime.name} needs {' and '.join(gone)}; pip install {' '.join(gone)}"


def check_threads(threads: int | None) -> int:
    """How many threads None stands for. Raises ValueError for less than one."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    return threads or torch.get_num_threads()


# --- the parts of a call ---


@dataclass(frozen=True)
class Parts:
    """Where a call's time goes by a runtime's own account, medians of several calls."""

    seconds: dict[str, float]  # of every part of the net, in order and named as in bench.steps
    whole: float  # seconds of a call that nobody watches, taken in turns with those that are

    @classmethod
    def of(cls, config: NetConfig, calls: Sequence[Iterable[tuple[str, float]]], whole: Sequence[float]) -> Parts:
        """From (name, seconds) of every operation of each call, in the order in which they ran, warm-up left out.

        An operation that the runtime made itself, and so has no name of the graph's, stands under the part of the
        next one that has; only the table, which may be read at any time, is passed over.
        """
        found: dict[str, list[float]] = {name: [] for name in predict.work(config).parts()}
        for operations in calls:
            sums, before = dict.fromkeys(found, 0.0), 0.0
            for name, seconds in operations:
                part = part_of(name)
                if part is None:
                    before += seconds
                elif part == "table":
                    sums[part] += seconds
                else:
                    sums[part] += seconds + before
                    before = 0.0
            sums["head"] += before
            for name, seconds in sums.items():
                found[name].append(seconds)
        return cls({name: statistics.median(v) for name, v in found.items()}, statistics.median(whole))


def in_turns(plain: Session, watched: Session, z: np.ndarray, y: np.ndarray | None, calls: int
             ) -> Iterator[tuple[float, Any]]:  # fmt: skip
    """Seconds of a call that nobody watches and what the watched one gave, `calls` times after a tenth as warm-up."""
    inputs, same = watched.place(z, y), plain.place(z, y)
    for _ in range(max(3, calls // 10) + calls):
        start = time.perf_counter()
        plain.run(same)
        yield time.perf_counter() - start, watched.run(inputs)


HALVES = {"attn": ("norm1", "attention", "sum1"), "mlp": ("norm2", "mlp", "sum2")}
ENDS = {"table": "table", "z": "embed", "patches": "embed", "embed": "embed", "positions": "embed",
        "final": "head", "head": "head", "image": "head"}  # fmt: skip


def part_of(name: str) -> str | None:
    """The part of the net that an operation of export.graph_of belongs to, whatever a runtime appends to its name."""
    if not (at := re.match(r"blocks\.(\d+)\.(attn|mlp)\.(\w+?)(_q|_quant)?\b(\.in)?", name)):
        return ENDS.get(re.split(r"[._/]", name)[0])
    norm, middle, end = HALVES[at[2]]
    if at[3] in ("norm", "scale", "shift", "rows"):
        middle = norm
    elif at[3] in ("gate", "tokens", "sum") and not at[5]:
        middle = end
    return f"blocks.{at[1]}.{middle}"


class FileSession:
    """The part of a session that all runtimes share which read files and run on the CPU alone."""

    weights: str  # the file that holds them

    def __init__(self, runtime: Runtime, folder: Path, *, device: str, threads: int | None, precision: str,
                 solver: str) -> None:  # fmt: skip
        check_precision(runtime, precision)
        if torch.device(device).type != "cpu":
            raise ValueError(f"runtime {runtime.name} runs on the CPU here, not on {device!r}; give device cpu")
        facts = artefacts.read(folder)
        self.config, self.spec = artefacts.shape_of(facts)
        self.threads = check_threads(threads)
        self.weights_mb = facts["files"][self.weights]["bytes"] / 1e6
        self.artefact_sha256 = facts["files"][self.weights]["sha256"]
        self.flags = [] if why_not_folded(self.config) else ["deployed"]
        self.evaluations = 1
        if self.config.time:
            if facts["solver"] != solver:
                raise ValueError(f"{folder.name} was made with solver {facts['solver']}, not {solver}: export it again")
            self.flags, self.evaluations = [f"solver={solver}"], diffusion.evaluations(solver)

    def __enter__(self) -> FileSession:
        return self  # its threads are its own

    def __exit__(self, *_: object) -> None:
        """Nothing to restore."""

    def checked(self, z: np.ndarray, y: np.ndarray | None) -> dict[str, np.ndarray]:
        """The inputs under their names in the graph. Raises ValueError for what does not fit."""
        z, y = np.ascontiguousarray(z, np.float32), None if y is None else np.asarray(y)
        check_inputs(z, y, self.config, self.spec)
        return {export.NOISE: z} | ({} if y is None else {export.CLASSES: np.ascontiguousarray(y, np.int64)})

    def __call__(self, z: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        with self:
            return self.fetch(self.run(self.place(z, y)))


class TorchSession:
    """A run's deployed network in torch; `compiled` adds compilation to it."""

    builds = False
    artefact_sha256 = None
    form = staticmethod(lambda net: net)  # of the finished network, where a runtime has another for the same images

    def __init__(self, folder: Path, *, device: str, threads: int | None, precision: str, solver: str) -> None:
        if precision not in PRECISIONS:
            raise ValueError(unknown("precision of a torch runtime", precision, PRECISIONS))
        run = Run(folder)
        self.threads = check_threads(threads)
        self.spec, self.device, self.dtype = spec_of_run(run), torch.device(device), PRECISIONS[precision]
        self.net = deploy.deploy(self.form(load_student(run, device=device)), self.spec, solver)
        self.config, self.version = self.net.config, torch.__version__
        self.weights_mb = sum(p.numel() * p.element_size() for p in self.net.parameters()) / 1e6
        self.evaluations = diffusion.evaluations(solver) if self.config.time else 1
        self.flags = ["deployed"] if isinstance(self.net, deploy.Folded) else []
        if self.config.time:
            self.flags.append(f"solver={solver}")
        if precision == "bf16":
            self.flags.append("autocast")

    def __enter__(self) -> TorchSession:
        self._before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
        torch.set_num_threads(self.threads)
        # Left alone, a GPU's convolutions round float32 to TF32, and a U-Net's fp32 would be another than a DiT's.
        torch.backends.cudnn.allow_tf32 = False
        return self

    def __exit__(self, *_: object) -> None:
        threads, torch.backends.cudnn.allow_tf32 = self._before
        torch.set_num_threads(threads)

    def place(self, z: np.ndarray, y: np.ndarray | None) -> tuple[Tensor, Tensor | None]:
        z, y = np.asarray(z, np.float32), None if y is None else np.asarray(y)
        check_inputs(z, y, self.config, self.spec)
        classes = None if y is None else torch.from_numpy(y.astype(np.int64)).to(self.device)
        return torch.from_numpy(z).to(self.device), classes

    def build(self, inputs: tuple[Tensor, Tensor | None]) -> None:
        """Nothing: eager torch has no engine."""

    @torch.inference_mode()
    def launch(self, inputs: tuple[Tensor, Tensor | None]) -> Tensor:
        """`run` that on a GPU does not wait for the end of the work."""
        with self._autocast():
            return self.net(*inputs)

    def run(self, inputs: tuple[Tensor, Tensor | None]) -> Tensor:
        image = self.launch(inputs)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return image

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def fetch(self, output: Tensor) -> np.ndarray:
        return output.float().cpu().numpy()

    def __call__(self, z: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        with self:
            return self.fetch(self.run(self.place(z, y)))
