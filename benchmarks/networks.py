"""Which networks the benchmarks time, and what they say of the machine that they ran on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable
from types import TracebackType

import numpy as np
import torch
from torch import nn

from lab import choose, diffusion, export
from lab.config import DiTConfig, Recipe, Use, why_not_plain
from lab.data import ImageSpec
from lab.devices import runner
from lab.experiment import commit
from lab.models.dit import DiT
from lab.results import Run, Store
from lab.runtimes.openvino import core
from lab.weights import is_whole, save_student

SHAPES = {
    "64x4": DiTConfig(width=64, depth=4, heads=4), "128x6": DiTConfig(width=128, depth=6, heads=4),
    "256x8": DiTConfig(width=256, depth=8, heads=8),
}  # fmt: skip
SPEC = ImageSpec(data="noise", size=28, channels=1, num_classes=10)
PACKAGES = ("torch", "diffusers", "onnx", "onnxruntime", "openvino", "nncf")


def random_student(config: DiTConfig, seed: int = 0) -> DiT:
    """A student as if it were trained: from zero, its gates would let nothing of the blocks through to the image."""
    torch.manual_seed(seed)
    net = DiT(config).eval().requires_grad_(False)
    for layer in [*(block.adaln for block in net.blocks), net.final_adaln, net.head]:
        nn.init.xavier_uniform_(layer.weight)
    if net.label is not None:
        nn.init.normal_(net.label.weight)  # a class that shows
    return net


def random_run(store: Store, config: DiTConfig, seed: int = 0) -> Run:
    """Such a student as a run, so that every runtime can read it."""
    run = store.open(Recipe(data="digits", student=config, methods=(Use("denoise"),), steps=0, seed=seed))
    save_student(run, random_student(config, seed), SPEC)
    return run


# --- graphs by a runtime's own interface, past lab/runtimes ------------------------------------------


def inputs(batch: int) -> dict[str, np.ndarray]:
    """Noise and classes of a batch under the names that every graph of ours has."""
    z, _ = diffusion.noise_of(range(batch), SPEC.shape, 0)
    return {export.NOISE: z.numpy(), export.CLASSES: diffusion.sheet_classes(batch, SPEC.num_classes).numpy()}


def onnxruntime_call(graph: bytes, batch: int, threads: int) -> Callable[[], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    given = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in inputs(batch).items()}
    return lambda: session.run_with_ort_values([export.IMAGE], given)[0].numpy()


def openvino_call(graph: bytes, batch: int, threads: int) -> Callable[[], np.ndarray]:
    import openvino

    model = core().read_model(graph)
    model.reshape({name: list(value.shape) for name, value in inputs(batch).items()})
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads),
                "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
    request = core().compile_model(model, "CPU", settings).create_infer_request()
    for name, value in inputs(batch).items():
        request.set_tensor(name, openvino.Tensor(value))

    def call() -> np.ndarray:
        request.start_async()
        request.wait()
        return request.get_tensor(export.IMAGE).data

    return call


ONNX_CALLS = {"onnxruntime": onnxruntime_call, "openvino": openvino_call}


# --- what is committed --------------------------------------------------------------------------


def one_step(store: Store) -> list[Run]:
    """Every finished one-step student that can be deployed."""
    return [run for run in store.runs() if is_whole(run) and not why_not_plain(run.config)]


def teachers(store: Store) -> list[Run]:
    """The denoisers that have a name."""
    found = [store.get(alias) for alias in dict.fromkeys(store.teachers().values())]
    return [run for run in found if is_whole(run) and run.config.time]


def front(store: Store) -> list[Run]:
    """The students that no other beats in distance at their parameters or at their multiply-adds; all while nothing is
    measured.
    """
    runs = {run.id: run for run in one_step(store)}
    if not runs:
        return []
    found = choose.candidates(store.table(), store.reports(), choose.Budget())
    on = choose.front(found, ["params_m", "fd"]) | choose.front(found, ["macs_m", "fd"])
    chosen = [runs[name] for name in found["run"][on] if name in runs]
    return chosen or list(runs.values())


# --- the machine --------------------------------------------------------------------------------


class Threads:
    """torch's number of threads while it is entered; may be entered again."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> Threads:
        self._before = torch.get_num_threads()
        torch.set_num_threads(self.count)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        torch.set_num_threads(self._before)


def machine() -> dict[str, object]:
    """What decides a time beside the code: device, system, versions. Not how fast a fan turns just now."""
    device = {name: value for name, value in runner.HERE.device().items() if name != "cooling"}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)}
    return {"device": device, "os": runner.HERE.os_name(), "python": platform.python_version(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(), "versions": versions}  # fmt: skip


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


__all__ = ["ONNX_CALLS", "PACKAGES", "SHAPES", "SPEC", "Threads", "commit", "front", "machine", "one_step",
           "random_run", "random_student", "teachers"]  # fmt: skip
