"""ONNX Runtime on the CPU: one file for every batch, in float32, int8 or with weights of 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lab import artefacts, deploy, export
from lab.config import NetConfig
from lab.data import ImageSpec
from lab.deploy import Deployed
from lab.results import Run
from lab.runtimes.base import FileSession, check_precision, missing_packages

FILE = "model.onnx"
ERRORS_ONLY = 3  # of its log


class OnnxSession(FileSession):
    weights = FILE
    builds = False  # the graph is optimised while it is opened

    def __init__(self, runtime: OnnxRuntime, folder: Path, *, device: str, threads: int | None, precision: str) -> None:
        import onnxruntime

        super().__init__(runtime, folder, device=device, threads=threads, precision=precision)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = ERRORS_ONLY
        self.session = onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])
        self.version = onnxruntime.__version__

    def place(self, z: np.ndarray, y: np.ndarray | None) -> tuple[Any, ...]:
        from onnxruntime import OrtValue

        return ({name: OrtValue.ortvalue_from_numpy(value) for name, value in self.checked(z, y).items()},)

    def build(self, inputs: tuple[Any, ...]) -> None:
        """Nothing: one session serves every batch."""

    def run(self, inputs: tuple[Any, ...]) -> Any:
        return self.session.run_with_ort_values([export.IMAGE], inputs[0])[0]

    def fetch(self, output: Any) -> np.ndarray:
        return output.numpy()


class OnnxRuntime:
    name = "onnxruntime"
    precisions = tuple(export.PRECISIONS)
    exports = True

    def missing(self) -> str | None:
        return missing_packages(self, "onnx", "onnxruntime", "onnx_ir")

    def refuses(self, config: NetConfig) -> str | None:
        return deploy.refusal(config)

    def export(self, run: Run, precision: str = "fp32", *, force: bool = False) -> Path:
        import onnx
        import onnxruntime

        check_precision(self, precision)

        def write(net: Deployed, spec: ImageSpec, folder: Path) -> None:
            export.to_onnx(net, spec, folder / FILE, precision)

        versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
        return artefacts.ensure(run, self.name, precision, write=write, force=force, versions=versions,
                                open=lambda folder: self.open(folder, threads=1, precision=precision))  # fmt: skip

    def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "fp32",
             solver: str = "dpmpp2m-8") -> OnnxSession:  # fmt: skip
        return OnnxSession(self, path, device=device, threads=threads, precision=precision)


RUNTIME = OnnxRuntime()
