"""OpenVINO on the CPU: a network compiled for each batch size, in float32, bfloat16 or int8 by NNCF."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lab import artefacts, export, int8
from lab.config import NetConfig, why_not_plain
from lab.data import ImageSpec
from lab.deploy import Deployed
from lab.diffusion import SOLVER
from lab.precisions import FORMS, HINTS
from lab.results import Run
from lab.runtimes.base import FileSession, Parts, check_precision, in_turns, missing_packages

FILE, WEIGHTS = "model.xml", "model.bin"


@functools.cache
def core() -> Any:
    """This process's one openvino.Core.

    A Core sets the thread's stack for signal handlers aside and puts back the one before when it goes. Of two that
    overlap, the second puts back the first one's, which is gone: the next Ctrl-C would be a segmentation fault.
    """
    import openvino

    return openvino.Core()


class OpenVinoSession(FileSession):
    weights = WEIGHTS
    builds = True

    def __init__(self, runtime: OpenVino, folder: Path, *, device: str, threads: int | None, precision: str,
                 solver: str) -> None:  # fmt: skip
        import openvino

        super().__init__(runtime, folder, device=device, threads=threads, precision=precision, solver=solver)
        self.model = core().read_model(folder / FILE)
        self.version = openvino.__version__
        self.precision = precision
        self.settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(self.threads),
                         "INFERENCE_PRECISION_HINT": HINTS[precision]}  # fmt: skip
        self.flags.append("static_batch")
        self.requests: dict[int, Any] = {}  # batch -> compiled network
        self.given: dict[int, Any] = {}  # batch -> the inputs that it was given last

    def place(self, z: np.ndarray, y: np.ndarray | None) -> tuple[Any, ...]:
        import openvino

        return ({name: openvino.Tensor(value) for name, value in self.checked(z, y).items()},)

    def build(self, inputs: tuple[Any, ...]) -> None:
        """Compile for the batch of these inputs: shapes that are known need no work while it runs.

        Raises LookupError on a processor that does not compute in this precision.
        """
        shapes = {name: list(tensor.shape) for name, tensor in inputs[0].items()}
        model = self.model.clone()
        model.reshape(shapes)
        compiled = core().compile_model(model, "CPU", self.settings)
        # A hint is no order: without bfloat16 instructions the plugin takes float32 and says so here alone.
        if (took := compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()) != HINTS[self.precision]:
            raise LookupError(f"{self.precision} of runtime openvino needs a processor that computes in "
                              f"{HINTS[self.precision]}; on this one it takes {took}: take precision fp32")  # fmt: skip
        batch = shapes[export.NOISE][0]
        self.requests[batch], self.given[batch] = compiled.create_infer_request(), None

    def run(self, inputs: tuple[Any, ...]) -> Any:
        """By the request's own parts: `infer` looks inputs and outputs up anew, a tenth of a small net's call."""
        batch = inputs[0][export.NOISE].shape[0]
        if batch not in self.requests:
            self.build(inputs)
        request = self.requests[batch]
        if self.given[batch] is not inputs[0]:
            for name, tensor in inputs[0].items():
                request.set_tensor(name, tensor)
            self.given[batch] = inputs[0]
        request.start_async()
        request.wait()
        return request

    def fetch(self, output: Any) -> np.ndarray:
        return np.array(output.get_tensor(export.IMAGE).data)  # a copy: the next call writes into the same memory


class OpenVino:
    name = "openvino"
    precisions = FORMS[name]
    exports = True
    ALONE = f"""
import numpy, openvino
core = openvino.Core()
model = core.read_model(folder + "/{FILE}")
shapes = {{x.get_any_name(): [batch, *(d.get_length() for d in list(x.partial_shape)[1:])] for x in model.inputs}}
model.reshape(shapes)
kinds = {{x.get_any_name(): x.element_type.to_dtype() for x in model.inputs}}
settings = {{"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": {HINTS!r}[precision]}}
request = core.compile_model(model, "CPU", settings).create_infer_request()
inputs = {{name: numpy.zeros(shape, kinds[name]) for name, shape in shapes.items()}}
for _ in range(draws):
    request.infer(inputs)
"""

    def missing(self) -> str | None:
        return missing_packages(self, "onnx", "openvino", "onnxscript")

    def why_not(self, config: NetConfig, precision: str | None = None) -> str | None:
        return None

    def export(self, run: Run, precision: str = "fp32", *, force: bool = False, solver: str = SOLVER) -> Path:
        import openvino

        check_precision(self, precision)
        versions = {"openvino": openvino.__version__}
        if precision == "int8":
            versions |= {"nncf": _nncf().__version__}

        def write(net: nn.Module, spec: ImageSpec, folder: Path) -> None:
            prepare = precision == "int8" and isinstance(net, Deployed)
            net = int8.prepared(net, spec, export.SEVEN_BITS_TOP) if prepare else net
            graph = export.graph(net, spec, open_gelu=open_gelu())
            model = core().read_model(graph.SerializeToString())
            if precision == "int8":
                model = _int8(model, net, spec, graph, prepared=prepare)
            openvino.save_model(model, folder / FILE, compress_to_fp16=False)

        prepared = precision == "int8" and not why_not_plain(run.config)
        more = {"int8_macs": int8.share(run.config)} if prepared else {}
        return artefacts.ensure(run, self.name, precision, write=write, force=force, versions=versions,
                                more=lambda folder: more, solver=solver,
                                open=lambda folder: self.open(folder, threads=1, precision=precision, solver=solver)
                                )  # fmt: skip

    def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "fp32",
             solver: str = SOLVER) -> OpenVinoSession:  # fmt: skip
        return OpenVinoSession(self, path, device=device, threads=threads, precision=precision, solver=solver)

    def parts(self, folder: Path, z: np.ndarray, y: np.ndarray | None, *, threads: int | None = None,
              precision: str = "fp32", calls: int = 50) -> Parts:  # fmt: skip
        """Where the time of drawing these images goes, by its own counters of whole microseconds.

        An operation counts for the part whose name the runtime gave it when it joined several.
        """
        session = self.open(folder, threads=threads, precision=precision)
        session.settings["PERF_COUNT"] = "YES"
        plain, whole, found = self.open(folder, threads=threads, precision=precision), [], []
        for seconds, request in in_turns(plain, session, z, y, calls):
            whole.append(seconds)
            found.append([(op.node_name, op.real_time.total_seconds()) for op in request.get_profiling_info()])
        return Parts.of(session.config, found[-calls:], whole[-calls:])


def open_gelu() -> bool:
    """Whether GELU should stand apart from the product before it.

    OpenVINO draws a GELU into that product and then has to take a kernel of its own for both, which with AVX2 alone
    reaches a third of what the plain product does.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def _nncf() -> Any:
    """The package that quantises for OpenVINO. Raises LookupError where it is not installed."""
    os.environ.setdefault("NNCF_CI", "1")  # else it reports every use to its makers over the network
    try:
        import nncf
    except ImportError:
        raise LookupError("int8 of runtime openvino needs nncf; pip install nncf") from None
    return nncf


def _int8(model: Any, net: nn.Module, spec: ImageSpec, graph: Any, *, prepared: bool) -> Any:
    """Post-training quantisation of the products that int8.py prepares; of another network, of those with weights that
    see no pixels, as NNCF does it.
    """
    nncf = _nncf()
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    batches = list(export.calibration(spec, net.config.num_classes))
    kept = export.kept_in_int8(graph) if prepared else export.kept_float(graph)
    kept += [export.LOOKUP] * bool(prepared and net.config.num_classes)
    smooth = nncf.AdvancedSmoothQuantParameters(matmul=-1) if prepared else nncf.AdvancedSmoothQuantParameters()
    ready = nncf.AdvancedQuantizationParameters(  # smoothed and rounded is what was prepared already
        overflow_fix=nncf.OverflowFix.ENABLE, disable_bias_correction=prepared, smooth_quant_alphas=smooth,
        # Left alone, it takes the mean of the batches' extremes and cuts rare patches off.
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
    )  # fmt: skip
    model = nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches),
                          model_type=nncf.ModelType.TRANSFORMER, ignored_scope=nncf.IgnoredScope(names=kept),
                          advanced_parameters=ready)  # fmt: skip
    if prepared:
        _give_weights(model, net)
    return model


def _give_weights(model: Any, net: Deployed) -> None:
    """Put the network's own whole numbers and steps where NNCF rounded them once more, to steps of 1/63.5."""
    from openvino import opset13

    for op in model.get_ops():
        path = op.get_friendly_name().split(".")  # blocks, index, part, layer
        if op.get_type_name() != "MatMul" or path[-1] not in int8.LAYERS:
            continue
        weight = getattr(net.blocks[int(path[1])], path[-1]).weight.T
        step = weight.abs().amax(0, keepdim=True).clamp_min(1e-12) / export.SEVEN_BITS_TOP
        scaled = op.input(1).get_source_output().get_node()  # whole numbers -> Convert -> times the step
        whole, by = (scaled.input(i).get_source_output().get_node() for i in (0, 1))
        assert whole.get_type_name() == "Convert" and by.get_type_name() == "Constant", op.get_friendly_name()
        given = opset13.constant((weight / step).round().to(torch.int8).numpy())
        whole.input(0).replace_source_output(given.output(0))
        scaled.input(1).replace_source_output(opset13.constant(step.numpy()).output(0))


RUNTIME = OpenVino()
