"""A run as one zip that times itself on a board: networks, noises and images to compare with, checksums, a runner.

What runs there is devices/runner/ as one file, the code that times runs here, so a board's report and this
machine's are made by one protocol. Equal runs give equal zips, byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from lab import artefacts, cost, deploy, diffusion, export
from lab.config import JSON, config_to_json, unknown
from lab.data import ImageSpec
from lab.devices import bundle, model_torch, runner
from lab.pack_readme import readme
from lab.precisions import TARGETS, TOLERANCES
from lab.results import Run, write_whole
from lab.runtimes import RUNTIMES
from lab.weights import load_student, spec_of_run

TORCH_PRECISIONS = ("fp32", "fp16", "bf16")  # that model_torch.py computes in
REFERENCE_IMAGES = 16  # a larger batch has them several times
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can name, so that its bytes depend on its content alone


@dataclass(frozen=True)
class Packed:
    """A pack that was written."""

    path: Path
    sha256: str
    mb: float
    files: tuple[str, ...]
    left_out: tuple[str, ...]  # a sentence for every network whose images are too far from the right ones


def pack(run: Run, target: str, out: Path | str) -> Packed:
    """Write a finished network as a zip for a kind of device; a denoiser with the solver of its recipe.

    Raises ValueError for an unknown target, LookupError for a run without weights and where onnx or onnxruntime is
    missing.
    """
    if target not in TARGETS:
        raise ValueError(unknown("target", target, TARGETS))
    if why := RUNTIMES["onnxruntime"].missing():
        raise LookupError(why)
    net = deploy.deploy(load_student(run), spec_of_run(run), run.recipe.drawn_by)
    reference = reference_of(run)
    files, networks, left_out = reference.files(), [], []
    quiet = not net.config.time  # a denoiser's whole sampler is traced for each, which may take minutes
    for precision in tqdm(TARGETS[target], desc=f"ONNX files of {run.label}", unit="files", disable=quiet):
        if why := export.why_not(net.config, precision):
            left_out.append(f"{precision} is left out: {why}")
            continue
        content, far = _onnx(run, net, precision, reference)
        if why := _too_far(precision, *far):
            left_out.append(why)
            continue
        files[f"model-{precision}.onnx"] = content
        networks.append({"kind": "onnx", "file": f"model-{precision}.onnx", "precisions": [precision],
                         "max_abs": far[0], "mean_abs": far[1]})  # fmt: skip
    name, content, precisions = _for_torch(net, spec_of_run(run))
    files[name] = content
    networks.append({"kind": "torch", "file": name, "precisions": precisions})
    files |= {"runner.py": bundle.bundled(), "model_torch.py": Path(model_torch.__file__).read_bytes()}
    facts: dict[str, JSON] = {
        "format": runner.PACK_FORMAT, "target": target, "model": _model(run, net), "networks": networks,
        "reference": reference.facts(), "tolerances": {p: list(TOLERANCES[p]) for p in _precisions(networks)},
    }  # fmt: skip
    files["README.md"] = readme(facts, left_out).encode()
    facts["files"] = {name: {"sha256": hashlib.sha256(files[name]).hexdigest(), "bytes": len(files[name])}
                      for name in sorted(files)}  # fmt: skip
    files["manifest.json"] = (json.dumps(facts, indent=1, allow_nan=False) + "\n").encode()
    content = zipped(files)
    write_whole(Path(out), content)
    return Packed(Path(out), hashlib.sha256(content).hexdigest(), len(content) / 1e6, tuple(sorted(files)),
                  tuple(left_out))  # fmt: skip


def _for_torch(net: nn.Module, spec: ImageSpec) -> tuple[str, bytes, list[str]]:
    """The file that model_torch.py reads, its name and its precisions: weights, or a program where it knows none."""
    if isinstance(net, deploy.Deployed):
        return "deployed.safetensors", deploy.file_bytes(net, torch.float32), list(TORCH_PRECISIONS)
    content = io.BytesIO()
    torch.export.save(export.program(net, spec), content)
    return "model.pt2", content.getvalue(), ["fp32"]


def zipped(files: dict[str, bytes]) -> bytes:
    """Files as a zip whose bytes follow from names and content alone; stored, for weights do not shrink."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr = 3, 0o644 << 16  # as on Unix, wherever it is made
            archive.writestr(info, files[name])
    return out.getvalue()


def _model(run: Run, net: nn.Module) -> dict[str, JSON]:
    """What a report will say of the model, and what the runner needs to know whether a batch fits (`activations`).

    `params` and `macs` are those of the finished network, as in bench.
    """
    counted, student = cost.of_config(net.config), run.read("student")
    evaluations = diffusion.evaluations(run.recipe.drawn_by) if net.config.time else 1
    return {
        "model_id": run.id, "config": config_to_json(net.config), "weights_sha256": student["weights_sha256"],
        "params": counted["params"], "macs": counted["macs"],
        "params_deployed": counted.get("params_deployed", counted["params"]),
        "activations": cost.activations(net.config), **({"nfe": evaluations} if net.config.time else {}),
    }  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """Noises, classes and the finished network's images, that a board's images are held against."""

    z: np.ndarray
    y: np.ndarray | None
    image: np.ndarray

    def files(self) -> dict[str, bytes]:
        return {f"reference/{name}.bin": values.tobytes() for name, values in self._arrays()}

    def facts(self) -> dict[str, JSON]:
        return {name: {"file": f"reference/{name}.bin", "dtype": values.dtype.name, "shape": list(values.shape)}
                for name, values in self._arrays()}  # fmt: skip

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        """Little-endian and in order, as the runner reads them."""
        given = [("z", self.z), ("y", self.y), ("image", self.image)]
        return [(name, np.ascontiguousarray(v, v.dtype.newbyteorder("<"))) for name, v in given if v is not None]


def reference_of(run: Run) -> Reference:
    """The first noises and classes of the common sheet."""
    z = diffusion.noise_of(range(REFERENCE_IMAGES), spec_of_run(run).shape, 0)[0].numpy()
    classes = diffusion.sheet_classes(len(z), run.config.num_classes)
    y = None if classes is None else classes.numpy()
    return Reference(z, y, artefacts.reference(run, z, y, solver=run.recipe.drawn_by))


def _onnx(run: Run, net: nn.Module, precision: str, reference: Reference) -> tuple[bytes, tuple[float, float]]:
    """An ONNX file, and the largest and the mean difference of its images from the finished network's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export.to_onnx(net, spec_of_run(run), path, precision)
        apart = np.abs(_images(path, reference.z, reference.y) - reference.image)
        return path.read_bytes(), (float(apart.max()), float(apart.mean()))


def _images(path: Path, z: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {export.NOISE: z} | ({} if y is None else {export.CLASSES: y}))[0]


def _too_far(precision: str, largest: float, mean: float) -> str | None:
    if largest <= TOLERANCES[precision][0] and mean <= TOLERANCES[precision][1]:
        return None
    return (f"{precision} is left out: its images are {mean:.3g} from the right ones on average and {largest:.3g} at "
            f"most, allowed are {TOLERANCES[precision][1]:g} and {TOLERANCES[precision][0]:g}")  # fmt: skip


def _precisions(networks: Sequence[dict[str, JSON]]) -> list[str]:
    return sorted({precision for network in networks for precision in network["precisions"]})


__all__ = ["TARGETS", "Packed", "pack", "zipped"]
