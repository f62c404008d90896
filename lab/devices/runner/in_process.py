"""The network of a pack by a runtime of this process: ONNX Runtime or torch."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import time
import warnings
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.devices.runner.calls import CudaEvents, time_calls
from lab.devices.runner.errors import Broken, Missing, Refused
from lab.devices.runner.found import CUDA_MB, Found, as_device, room_for
from lab.devices.runner.machine import BOARDS, Machine
from lab.devices.runner.memory import process_peak_mb
from lab.devices.runner.pack import Pack
from lab.devices.runner.preset import Preset
from lab.devices.runner.quiet import Before


class OnnxRuntime:
    """The network by ONNX Runtime on the CPU."""

    name, reported, kind, precision = "onnxruntime", "onnxruntime", "onnx", "fp32"
    scopes, devices = ("core", "e2e"), ("cpu",)

    @staticmethod
    def room(before: Before, machine: Machine, options: argparse.Namespace) -> tuple[float | None, float]:
        """(free MB where it works, MB that the runtime itself takes there)."""
        return before.free_mb, 60.0  # with numpy, x86

    @staticmethod
    def missing(machine: Machine) -> str | None:
        return None if importlib.util.find_spec("onnxruntime") else "onnxruntime: pip install onnxruntime"

    def __init__(self, pack: Pack, path: Path, options: argparse.Namespace) -> None:
        import numpy
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads = options.threads, 1
        settings.log_severity_level = 3  # errors alone
        try:
            self.session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common class; an old one does not know the opset
            raise Broken(f"onnxruntime {onnxruntime.__version__} can't open {path.name}: {str(error)[:300]}") from None
        self.numpy, self.values_of = numpy, onnxruntime.OrtValue
        self.version, self.flags, self.gpu, self.software = onnxruntime.__version__, [], None, {}
        self.shape, self.image_shape = pack.shape, pack.image_shape

    def value(self, numbers: Any) -> Any:
        return self.values_of.ortvalue_from_numpy(numbers)

    def place(self, z: array, y: array | None) -> Any:
        """Inputs and memory for the images, bound, as in the lab: names that are looked up anew take time each call.

        The inputs go along: up to version 1.23, the last for Python 3.10, a binding keeps none of them, and would read
        memory that is free again.
        """
        noise = self.numpy.frombuffer(z, dtype=self.numpy.float32).reshape(-1, *self.shape)
        kept = {"z": self.value(noise)}
        if y is not None:
            kept["y"] = self.value(self.numpy.frombuffer(y, dtype=self.numpy.int64))
        bound = self.session.io_binding()
        for name, value in kept.items():
            bound.bind_ortvalue_input(name, value)
        shape = [len(noise), *self.image_shape]
        image = self.values_of.ortvalue_from_shape_and_type(shape, self.numpy.float32)
        bound.bind_ortvalue_output("image", image)
        return bound, image, kept

    def run(self, inputs: Any) -> Any:
        bound, image, _ = inputs
        self.session.run_with_iobinding(bound)
        return image

    def values(self, output: Any) -> array:
        return array("f", output.numpy().tobytes())

    def drawing(self, z: array, y: array | None) -> Callable[[], object]:
        """A callable from drawing the noise to bytes of pixels."""
        numpy, rng, inputs = self.numpy, self.numpy.random.default_rng(0), self.place(z, y)
        shape = (len(z) // math.prod(self.shape), *self.shape)

        def image() -> Any:
            noise = self.value(rng.standard_normal(shape, dtype=numpy.float32))  # named, so it lives until the end
            inputs[0].bind_ortvalue_input("z", noise)
            return numpy.clip(numpy.rint(self.run(inputs).numpy() * 127.5 + 127.5), 0, 255).astype(numpy.uint8)

        return image

    def events(self) -> CudaEvents | None:
        return None

    def peak_mb(self) -> float | None:
        return None


def imported_torch() -> Any:
    """torch; that it has no numpy need not be said, for nothing here needs it."""
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import torch

    return torch


class Torch:
    """The network by model_torch.py of the pack, on the CPU or a GPU."""

    name, reported, kind, precision = "torch", "eager", "torch", "fp32"
    scopes, devices = ("core", "e2e"), ("cpu", "cuda")

    @staticmethod
    def room(before: Before, machine: Machine, options: argparse.Namespace) -> tuple[float | None, float]:
        torch = imported_torch()
        if options.device == "cpu" or not torch.cuda.is_available():
            return before.free_mb, 500.0  # x86
        if machine.family in BOARDS:
            return before.free_mb, CUDA_MB
        return torch.cuda.mem_get_info()[0] / 1e6, 200.0  # a card's own; its context is there already

    @staticmethod
    def missing(machine: Machine) -> str | None:
        return None if importlib.util.find_spec("torch") else "torch: pip install torch, or the board's own wheel"

    def __init__(self, pack: Pack, path: Path, options: argparse.Namespace) -> None:
        torch = imported_torch()
        place = importlib.util.spec_from_file_location("model_torch", pack.folder / "model_torch.py")
        module = importlib.util.module_from_spec(place)
        place.loader.exec_module(module)
        torch.set_num_threads(options.threads)
        there = torch.cuda.is_available()
        if options.device == "cuda" and not there:
            raise Missing("torch sees no CUDA device here; --device cpu times the CPU")
        self.on = "cuda" if there and options.device != "cpu" else "cpu"
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[options.precision]
        self.net, self.torch, self.shape = module.opened(path, self.on, dtype), torch, pack.shape
        self.flags = ["folded conditioning"] if path.suffix == ".safetensors" else []
        self.version, self.gpu = torch.__version__, None
        self.software = cuda_versions(torch) if self.on == "cuda" else {}
        if self.on == "cuda":
            gpu = torch.cuda.get_device_properties(0)
            self.gpu = gpu.name, gpu.total_memory >> 20
            torch.cuda.reset_peak_memory_stats()

    def place(self, z: array, y: array | None) -> Any:
        noise = self.torch.frombuffer(bytearray(z), dtype=self.torch.float32).reshape(-1, *self.shape)
        classes = None if y is None else self.torch.frombuffer(bytearray(y), dtype=self.torch.int64).to(self.on)
        return noise.to(self.on), classes

    def launch(self, inputs: Any) -> Any:
        """`run` that on a GPU does not wait for the end of the work."""
        return self.net(*inputs)

    def events(self) -> CudaEvents | None:
        return CudaEvents(self.torch, self.on) if self.on == "cuda" else None

    def run(self, inputs: Any) -> Any:
        image = self.launch(inputs)
        if self.on == "cuda":
            self.torch.cuda.synchronize()
        return image

    def values(self, output: Any) -> array:
        return array("f", output.cpu().flatten().tolist())

    def drawing(self, z: array, y: array | None) -> Callable[[], object]:
        torch, (noise, classes) = self.torch, self.place(z, y)

        def image() -> Any:
            output = self.run((torch.randn(noise.shape, device=self.on), classes))
            return output.mul(127.5).add(127.5).round().clamp(0, 255).to(torch.uint8).cpu()

        return image

    def peak_mb(self) -> float | None:
        return round(self.torch.cuda.max_memory_allocated() / 1e6, 3) if self.on == "cuda" else None


def cuda_versions(torch: Any) -> dict[str, str | None]:
    """CUDA and cuDNN as torch has them, which need not be the system's."""
    number = torch.backends.cudnn.version() or 0  # 90300 is 9.3.0, 8902 is 8.9.2
    major, rest = divmod(number, 10_000 if number >= 10_000 else 1_000)
    return {"cuda": torch.version.cuda, "cudnn": f"{major}.{rest // 100}.{rest % 100}" if number else None}


def by_calls(pack: Pack, runtime: Any, options: argparse.Namespace, preset: Preset, before: Before,
             machine: Machine) -> Found:  # fmt: skip
    """Time a runtime that runs in this process. Raises Broken with its own words where it fails."""
    try:
        return _by_calls(pack, runtime, options, preset, before, machine)
    except (Broken, Missing, Refused, OSError):
        raise
    except Exception as error:  # of whatever class: onnxruntime's have none in common, torch's are many
        raise Broken(f"{runtime.name} failed: {type(error).__name__}: {str(error)[:300]}") from None


def _by_calls(pack: Pack, runtime: Any, options: argparse.Namespace, preset: Preset, before: Before,
              machine: Machine) -> Found:  # fmt: skip
    room_for(pack, runtime, options, before, machine)
    path = pack.folder / pack.network(runtime.kind, options.precision)["file"]
    start = time.perf_counter_ns()
    opened = runtime(pack, path, options)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    z, y = pack.rows("z", options.batch), pack.rows("y", options.batch)
    inputs = opened.place(z, y)
    call = (lambda: opened.run(inputs)) if options.scope == "core" else opened.drawing(z, y)
    start = time.perf_counter_ns()
    call()
    first_ms = (time.perf_counter_ns() - start) / 1e6
    events = opened.events() if options.scope == "core" else None  # from noise to bytes is the host's time alone
    timed = time_calls((lambda: opened.launch(inputs)) if events else call, preset, before, events=events,
                       machine=machine)  # fmt: skip
    return Found(
        timed, opened.values(opened.run(inputs)), opened.version, [*opened.flags, *timed.flags],
        {"load_ms": round(load_ms, 3), "build_ms": None, "first_ms": round(first_ms, 3)},
        {"method": "ru_maxrss of the whole process", "weights_mb": round(path.stat().st_size / 1e6, 3),
         "process_peak_mb": process_peak_mb(), "allocator_peak_mb": opened.peak_mb(),
         "system_delta_mb": timed.system_mb}, as_device(machine, *opened.gpu) if opened.gpu else {}, opened.software,
    )  # fmt: skip
