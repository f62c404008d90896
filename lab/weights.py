"""Finished networks on disk: safetensors for the weights, JSON for what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import safe_open, save
from torch import Tensor, nn

from lab import models
from lab.config import JSON, config_from_json, config_to_json
from lab.data import ImageSpec
from lab.results import Run, write_whole

FLOATS = (torch.float16, torch.bfloat16, torch.float32)  # in which a file may hold what a network has in float32


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_weights(net: nn.Module, path: Path) -> str:
    """Half-precision weights as safetensors; gives the file's sha256.

    Everything that is measured afterwards reads this file back, so a figure belongs to the weights
    that are kept, not to the float32 ones that are not.
    """
    write_whole(path, save(tensors_of(net)))
    return sha256(path)


def tensors_of(net: nn.Module, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """What a file of the network holds; buffers as they are, for one may be a table that needs its digits."""
    cast = {name for name, _ in net.named_parameters()}
    return {k: (v.to(dtype) if k in cast else v).detach().cpu().contiguous() for k, v in net.state_dict().items()}


def save_student(run: Run, net: nn.Module, spec: ImageSpec, *, facts: dict[str, JSON] | None = None,
                 params_train: int | None = None) -> None:  # fmt: skip
    """student.safetensors and student.json of a run; `facts` are what its methods found, method -> facts.

    Raises ValueError for a network that its own config does not rebuild: nobody could load it.
    """
    if wrong := _not_rebuilt(net):
        raise ValueError(f"the finished network of run {run.id} can't be built again from its config: {wrong}")
    # A crash in between must not leave the facts of other weights: student.json comes last and says that all is there.
    (run.path / "student.json").unlink(missing_ok=True)
    digest = write_weights(net, run.path / "student.safetensors")
    run.write("student", {
        "config": config_to_json(net.config), "spec": asdict(spec) | {"class_names": list(spec.class_names)},
        "weights_sha256": digest, "weights_dtype": "float16",
        "file_mb": (run.path / "student.safetensors").stat().st_size / 1e6,
        **({"params_train": params_train} if params_train is not None else {}), **({"facts": facts} if facts else {}),
    })  # fmt: skip


def _not_rebuilt(net: nn.Module) -> str | None:
    """Where a network's tensors are not those of its config's, as a clause."""
    with torch.device("meta"):
        return _apart(net.state_dict(), models.build(net.config).state_dict())


def _apart(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """The first of some tensors that is not as the network's own, as a clause; None if all are."""
    for name in sorted(found.keys() | wanted.keys()):
        if (mine := _kind(found.get(name))) != (theirs := _kind(wanted.get(name))):
            return f"{name} is {mine}, and the network's is {theirs}"
    return None


def _kind(value: Tensor | None) -> str:
    if value is None:
        return "absent"
    dtype = "a float of 16 or 32 bits" if value.dtype in FLOATS else str(value.dtype).removeprefix("torch.")
    return f"{dtype} {tuple(value.shape)}"


def opened(path: Path, file: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and what it says of itself. Raises ValueError for another file."""
    try:
        with safe_open(path, "pt") as found:
            return {name: found.get_tensor(name) for name in found.keys()}, found.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{file or path.name} is no safetensors file: {error}") from None


def fill(net: nn.Module, tensors: Mapping[str, Tensor], file: str) -> nn.Module:
    """The network with the tensors of a file in float32, in eval mode. ValueError names the file and what is not its
    own: torch would take whole numbers for weights, and says shapes alone.
    """
    if wrong := _apart(tensors, net.state_dict()):
        raise ValueError(f"{file}: {wrong}")
    if spoilt := [name for name, value in tensors.items() if not value.isfinite().all()]:
        raise ValueError(f"{file}: values of {spoilt[0]} are not finite numbers")
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return net.eval()


def is_whole(run: Run) -> bool:
    """Whether a run's network was written to its end."""
    return isinstance(run.read("student"), dict) and (run.path / "student.safetensors").exists()


def spec_of_run(run: Run) -> ImageSpec:
    """What a run's images are, without its data set at hand."""
    plain = run.read("student")
    if not isinstance(plain, dict):
        raise LookupError(f"run {run.id} has no finished network yet; its state is {run.status().state!r}")
    return ImageSpec(**plain["spec"] | {"class_names": tuple(plain["spec"]["class_names"])})


def load_student(run: Run, *, images: int | None = None, device: str | torch.device = "cpu") -> nn.Module:
    """A run's plain network in float32 and eval mode; `images` names a checkpoint kept on the way.

    Raises LookupError if the run has no such weights, ValueError if the file was changed since or is of another net.
    """
    plain = run.read("student")
    path = run.path / ("student.safetensors" if images is None else f"at-{images}.safetensors")
    if not isinstance(plain, dict) or not path.exists():
        what = "finished network" if images is None else f"checkpoint at {images} images"
        raise LookupError(f"run {run.id} has no {what}; its state is {run.status().state!r}")
    file = f"{path.name} of run {run.id}"
    if images is None and sha256(path) != plain["weights_sha256"]:
        raise ValueError(f"{file} does not have the sha256 that student.json records")
    return fill(models.build(config_from_json(plain["config"])), opened(path, file)[0], file).to(device)
