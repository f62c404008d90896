"""Which products of a student may be of 8 bits, and what does each way there cost its images?

    python benchmarks/int8.py d4w64h4p4 d12w40h4p4m104 d6w96h4p4
    python benchmarks/int8.py d4w64h4p4 --samples 500 --forms plain,prepared --out /tmp/int8.json   # a look only

For every student and form: how far its images are from those in float32 on the same noise (mean and largest
difference, perceptual distance), its Frechet distance over theirs, and how much of the multiply-adds is of 8 bits.
Files are of the real quantisers, run by the real runtimes; activations whose range is found at run time share it with
as many images as are drawn at once. What stands in --out under the same conditions is not done again; the file is
written whole after every row.

plain            dynamic: weights per channel in 7 bits, activations by their range at run time; all of the blocks
eight-bits       plain with weights of 8 bits, whose sums overflow without VNNI
per-tensor       plain with one step for a whole matrix
no-*             plain, but for one layer of each block, the first block or the last one
smoothed         plain of a network whose channels were evened out (SmoothQuant, folded)
rounded          plain of a network whose weights were rounded one after the other (GPTQ)
prepared         the lab's int8 in onnxruntime: smoothed, rounded, and without the MLPs' second product
prepared-all     the same with it
static-*         ranges of activations fixed by calibration: plain, prepared (the lab's int8-static), by percentile
blocks           weights and activations in blocks of 32 of 8 bits: nearest to the images, and no faster than float32
openvino-*       OpenVINO by NNCF: plain (with its own smoothing and bias correction), prepared (the lab's int8)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import commit, machine

from lab import cost, deploy, diffusion, export, int8, metrics, perceptual, runtimes
from lab.data import ImageSpec
from lab.deploy import Deployed
from lab.results import Run, Store, now, read_json, write_json
from lab.runtimes import openvino as openvino_file
from lab.weights import load_student, spec_of_run

ALL = ("qkv", "proj", "fc1", "fc2")
AT_ONCE = 250
WITHIN = 0.02  # of the float32 student's distance: then a form keeps the images
PERCEPTUAL = 256  # images
SCHEMA = "int8.v1"


@dataclass(frozen=True)
class Form:
    """A way to 8 bits: what is done to the network beforehand, which layers of which blocks, and by what."""

    make: Callable[..., Any]  # (net, spec, kept names) -> what draws images, (z, y) -> numpy
    prepare: Callable[[Deployed, ImageSpec], Deployed] = lambda net, spec: net
    layers: tuple[str, ...] = ALL
    without: tuple[int, ...] = ()  # blocks, from the end where negative

    def coarse(self, net: Deployed) -> list[str]:
        left = [i for i in range(len(net.blocks)) if i not in {b % len(net.blocks) for b in self.without}]
        return [f"blocks.{i}.{'mlp' if name.startswith('fc') else 'attn'}.{name}" for i in left for name in self.layers]

    def share(self, net: Deployed) -> float:
        """Of the multiply-adds that are of 8 bits."""
        matrices = [layer.rsplit(".", 3) for layer in self.coarse(net)]
        weights = sum(getattr(net.blocks[int(index)], name).weight.numel() for _, index, _, name in matrices)
        return weights * net.config.tokens / cost.of_config(net.config)["macs_deployed"]


# --- how files are made -------------------------------------------------------------------------


def drawn_by_onnxruntime(model: Any) -> Callable:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda z, y: session.run(None, {"z": z} | ({} if y is None else {"y": y}))[0]


def graph(net: Deployed, spec: ImageSpec, coarse: list[str], *, gemm: bool) -> tuple[Any, list[str]]:
    """The float32 graph and the products in it that stay so."""
    model = export.graph_of(net, spec, gemm=gemm)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    kept = [n.name for n in model.graph.node if n.op_type in ("MatMul", "Gemm") and n.name not in coarse]
    return model, kept


def dynamic(net: Deployed, spec: ImageSpec, coarse: list[str], *, per_channel: bool = True, seven_bits: bool = True
            ) -> Callable:  # fmt: skip
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, kept = graph(net, spec, coarse, gemm=False)
    return drawn_by_onnxruntime(export._through_file(lambda out: quantize_dynamic(
        model, out, op_types_to_quantize=["MatMul"], per_channel=per_channel, weight_type=QuantType.QInt8,
        nodes_to_exclude=kept, reduce_range=seven_bits)))  # fmt: skip


def static(net: Deployed, spec: ImageSpec, coarse: list[str], *, method: str = "MinMax") -> Callable:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model, kept = graph(net, spec, coarse, gemm=True)
    return drawn_by_onnxruntime(export._through_file(lambda out: quantize_static(
        model, out, export._Calibration(spec, net.config.num_classes), quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Gemm"], per_channel=True, weight_type=QuantType.QInt8, activation_type=QuantType.QInt8,
        nodes_to_exclude=kept, calibrate_method=CalibrationMethod[method], reduce_range=True,
        extra_options={"ActivationSymmetric": True, "OpTypesToExcludeOutputQuantization": ["Gemm"]})))  # fmt: skip


def blocks(net: Deployed, spec: ImageSpec, coarse: list[str]) -> Callable:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model, kept = graph(net, spec, coarse, gemm=False)
    quantiser = MatMulNBitsQuantizer(model, bits=8, block_size=export.BLOCK_SIZE, is_symmetric=True, accuracy_level=4,
                                     nodes_to_exclude=kept)  # fmt: skip
    quantiser.process()
    return drawn_by_onnxruntime(quantiser.model.model)


def by_nncf(net: Deployed, spec: ImageSpec, coarse: list[str], *, as_it_comes: bool) -> Callable:
    nncf, core = openvino_file._nncf(), openvino_file.core()
    plain = export.graph_of(net, spec, open_gelu=openvino_file.open_gelu())
    model = core.read_model(plain.SerializeToString())
    if as_it_comes:
        kept = export.kept_float(plain) + [export.LOOKUP] * bool(net.config.num_classes)
        batches = list(export.calibration(spec, net.config.num_classes))
        model = nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches),
                              model_type=nncf.ModelType.TRANSFORMER, ignored_scope=nncf.IgnoredScope(names=kept),
                              advanced_parameters=nncf.AdvancedQuantizationParameters(
                                  overflow_fix=nncf.OverflowFix.ENABLE))  # fmt: skip
    else:
        model = openvino_file._int8(model, net, spec)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda z, y: compiled({"z": z} | ({} if y is None else {"y": y}))["image"]


def _rounded(net: Deployed, spec: ImageSpec) -> Deployed:
    return int8.rounded(net, spec, export.SEVEN_BITS_TOP)


def _prepared(net: Deployed, spec: ImageSpec) -> Deployed:
    return int8.prepared(net, spec, export.SEVEN_BITS_TOP)


FORMS = {
    "plain": Form(dynamic), "eight-bits": Form(partial(dynamic, seven_bits=False)),
    "per-tensor": Form(partial(dynamic, per_channel=False)),
    **{f"no-{name}": Form(dynamic, layers=tuple(layer for layer in ALL if layer != name)) for name in ALL},
    "no-first": Form(dynamic, without=(0,)), "no-last": Form(dynamic, without=(-1,)),
    "smoothed": Form(dynamic, int8.smoothed), "rounded": Form(dynamic, _rounded),
    "prepared": Form(dynamic, _prepared, int8.LAYERS), "prepared-all": Form(dynamic, _prepared),
    "static-plain": Form(static), "static-prepared": Form(static, _prepared, int8.LAYERS),
    "static-percentile": Form(partial(static, method="Percentile"), _prepared, int8.LAYERS),
    "blocks": Form(blocks),
    "openvino-plain": Form(partial(by_nncf, as_it_comes=True)),
    "openvino-prepared": Form(partial(by_nncf, as_it_comes=False), _prepared, int8.LAYERS),
}  # fmt: skip


# --- what it costs ------------------------------------------------------------------------------


class Student:
    """A student's images in float32 on the evaluation's noises, and what images are held against."""

    def __init__(self, run: Run, store: Store, samples: int) -> None:
        recipe, self.run, self.spec = run.recipe, run, spec_of_run(run)
        self.net = deploy.deploy(load_student(run))
        self.extractor = metrics.extractor_of(recipe.data)
        self.real, _ = metrics.real_features(recipe, store, self.extractor)
        seeds = range(diffusion.EVAL_SEED, diffusion.EVAL_SEED + samples)
        self.z, y = diffusion.noise_of(seeds, self.spec.shape, self.spec.num_classes)
        chosen = metrics.labels(recipe, self.spec, seeds)
        self.y = (y if chosen is None else chosen) if recipe.student.num_classes else None
        self.apart = perceptual.load(self.spec)
        with torch.inference_mode():
            self.exact = self.images(lambda z, y: self.net(*_tensors(z, y)).numpy())
        self.fd = self.distance(self.exact)

    def images(self, draw: Callable) -> torch.Tensor:
        parts = [slice(start, start + AT_ONCE) for start in range(0, len(self.z), AT_ONCE)]
        found = [draw(self.z[at].numpy(), None if self.y is None else self.y[at].numpy()) for at in parts]
        return torch.from_numpy(np.concatenate(found))

    def distance(self, images: torch.Tensor) -> float:
        return metrics.fd(metrics.extract(diffusion.to_uint8(images), self.extractor), self.real)

    def row(self, form: Form) -> dict[str, object]:
        found = self.images(form.make(form.prepare(self.net, self.spec), self.spec, form.coarse(self.net)))
        difference = (found - self.exact).abs()
        fd = self.distance(found)
        with torch.inference_mode():
            apart = self.apart(found[:PERCEPTUAL], self.exact[:PERCEPTUAL]).mean()
        return {"share": form.share(self.net), "fd": fd, "fd_fp32": self.fd, "ratio": fd / self.fd,
                "within": fd <= self.fd * (1 + WITHIN), "mean_abs": float(difference.mean()),
                "max_abs": float(difference.max()), "perceptual": float(apart)}  # fmt: skip


def _tensors(z: np.ndarray, y: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.from_numpy(z), None if y is None else torch.from_numpy(y)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("runs", nargs="+", metavar="RUN")
    made.add_argument("--results", help="results folder with the committed students")
    made.add_argument("--samples", type=int, default=10_000)
    made.add_argument("--forms", type=lambda text: text.split(","), default=list(FORMS), help="comma separated")
    made.add_argument("--out", type=Path, default=Path("results/benchmarks/int8.json"))
    args = made.parse_args()
    if unknown := [name for name in args.forms if name not in FORMS]:
        made.error(f"unknown form {unknown[0]!r}; known: {', '.join(FORMS)}")
    for name in ("onnxruntime", "openvino"):
        if why := runtimes.RUNTIMES[name].missing():
            made.error(why)
    store = Store(args.results)
    conditions = {"schema": SCHEMA, "machine": machine(), "at_once": AT_ONCE,
                  "calibration": [int8.CALIBRATION_SEED, int8.CALIBRATION_IMAGES]}  # fmt: skip
    before = read_json(args.out)
    same = isinstance(before, dict) and all(before.get(k) == v for k, v in conditions.items())
    rows = before["rows"] if same else []
    for run in [store.get(name) for name in args.runs]:
        digest, student = run.read("student")["weights_sha256"], None
        for name in args.forms:
            key = {"run": run.id, "weights_sha256": digest, "form": name, "samples": args.samples}
            if any(all(row.get(k) == v for k, v in key.items()) for row in rows):
                continue
            student = student or Student(run, store, args.samples)
            rows.append(key | student.row(FORMS[name]) | {"commit": commit(), "made": now()})
            write_json(args.out, conditions | {"made": now(), "commit": commit(), "rows": rows})
            row = rows[-1]
            print(f"{run.label:18s} {name:18s} {row['share']:4.0%} of the MACs; distance x {row['ratio']:.3f}, "
                  f"mean {row['mean_abs']:.4f}, largest {row['max_abs']:.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
