"""ONNX Runtime on the CPU: one file for every batch, in float32, int8 or with weights of 4 bits."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from lab import artefacts, export, int8
from lab.config import JSON, NetConfig, why_not_plain
from lab.data import ImageSpec
from lab.diffusion import SOLVER
from lab.precisions import FORMS
from lab.results import Run, write_whole
from lab.runtimes.base import FileSession, Parts, check_precision, in_turns, missing_packages

FILE = "model.onnx"
ERRORS_ONLY = 3  # of its log


class OnnxSession(FileSession):
    weights = FILE
    builds = False  # the graph is optimised while it is opened

    def __init__(self, runtime: OnnxRuntime, folder: Path, *, device: str, threads: int | None, precision: str,
                 solver: str = SOLVER, profile: Path | None = None) -> None:  # fmt: skip
        """profile: the start of a file's name to which every operation's time is written."""
        import onnxruntime

        super().__init__(runtime, folder, device=device, threads=threads, precision=precision, solver=solver)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = ERRORS_ONLY
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        self.version = onnxruntime.__version__
        try:
            self.session = onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise self.failed(f"open {folder.name}/{FILE}", error) from error

    def place(self, z: np.ndarray, y: np.ndarray | None) -> tuple[Any, ...]:
        """Inputs and memory for the image, bound: looking names up in each call is a tenth of a small net.

        The inputs go along: up to version 1.23 a binding keeps none of them, and would read memory that is free again.
        """
        from onnxruntime import OrtValue

        bound = self.session.io_binding()
        kept = {name: OrtValue.ortvalue_from_numpy(value) for name, value in self.checked(z, y).items()}
        for name, value in kept.items():
            bound.bind_ortvalue_input(name, value)
        image = OrtValue.ortvalue_from_shape_and_type([len(z), *self.session.get_outputs()[0].shape[1:]], np.float32)
        bound.bind_ortvalue_output(export.IMAGE, image)
        return bound, image, kept

    def build(self, inputs: tuple[Any, ...]) -> None:
        """Nothing: one session serves every batch."""

    def run(self, inputs: tuple[Any, ...]) -> Any:
        bound, image, _ = inputs
        try:
            self.session.run_with_iobinding(bound)
        except Exception as error:
            raise self.failed("run the network", error) from error
        return image

    def failed(self, what: str, error: Exception) -> RuntimeError:
        """Its own errors have no class in common but Exception, so nobody could expect them."""
        return RuntimeError(f"onnxruntime {self.version} can't {what}: {error}")

    def fetch(self, output: Any) -> np.ndarray:
        return np.array(output.numpy())  # a copy: the next call writes into the same memory


class OnnxRuntime:
    name = "onnxruntime"
    precisions = FORMS[name]
    exports = True
    ALONE = f"""
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
options.log_severity_level = {ERRORS_ONLY}
session = onnxruntime.InferenceSession(folder + "/{FILE}", options, providers=["CPUExecutionProvider"])
kinds = {{"tensor(float)": "float32", "tensor(int64)": "int64"}}
inputs = {{x.name: numpy.zeros([batch, *x.shape[1:]], kinds[x.type]) for x in session.get_inputs()}}
for _ in range(draws):
    session.run(None, inputs)
"""

    def missing(self) -> str | None:
        return missing_packages(self, "onnx", "onnxruntime", "onnx_ir", "onnxscript")

    def why_not(self, config: NetConfig, precision: str | None = None) -> str | None:
        return export.why_not(config, precision)

    def export(self, run: Run, precision: str = "fp32", *, force: bool = False, solver: str = SOLVER) -> Path:
        import onnx
        import onnxruntime

        check_precision(self, precision, run.config)

        def write(net: nn.Module, spec: ImageSpec, folder: Path) -> None:
            if precision == "fp32":  # the quantisers know products, not an operator that holds one
                graph = export.graph(net, spec, own_attention=True, class_norm=True)
                write_whole(folder / FILE, graph.SerializeToString())
            else:
                export.to_onnx(net, spec, folder / FILE, precision)

        versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}

        def more(folder: Path) -> dict[str, JSON]:
            prepared = precision in ("int8", "int8-static") and not why_not_plain(run.config)
            share = {"int8_macs": int8.share(run.config)} if prepared else {}
            return share | {"opset": export.opsets(folder / FILE)}

        return artefacts.ensure(run, self.name, precision, write=write, force=force, versions=versions, more=more,
                                solver=solver, open=lambda folder: self.open(folder, threads=1, precision=precision,
                                                                             solver=solver))  # fmt: skip

    def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "fp32",
             solver: str = SOLVER) -> OnnxSession:  # fmt: skip
        return OnnxSession(self, path, device=device, threads=threads, precision=precision, solver=solver)

    def parts(self, folder: Path, z: np.ndarray, y: np.ndarray | None, *, threads: int | None = None,
              precision: str = "fp32", calls: int = 50) -> Parts:  # fmt: skip
        """Where the time of drawing these images goes, by its own profiler, which counts in whole microseconds."""
        with tempfile.TemporaryDirectory() as made:
            session = OnnxSession(self, folder, device="cpu", threads=threads, precision=precision,
                                  profile=Path(made) / "profile")  # fmt: skip
            plain = self.open(folder, threads=threads, precision=precision)
            whole = [seconds for seconds, _ in in_turns(plain, session, z, y, calls)]
            events = json.loads(Path(session.session.end_profiling()).read_text())
        ran = [(e["name"].removesuffix("_kernel_time"), e["dur"] / 1e6) for e in sorted(events, key=lambda e: e["ts"])
               if e["cat"] == "Node" and e["name"].endswith("_kernel_time")]  # fmt: skip
        each = len(ran) // len(whole)
        found = [ran[i * each : (i + 1) * each] for i in range(len(whole))]
        return Parts.of(session.config, found[-calls:], whole[-calls:])


RUNTIME = OnnxRuntime()
