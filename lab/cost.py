"""What a network costs: parameters, multiply-accumulates, bytes; nothing is run.

A multiply-accumulate (MAC) is two floating-point operations; only matrix products, convolutions and
attention count, as in the published DiT tables. One evaluation of one image unless said otherwise.

A one-step DiT costs less in its deployed form (lab/deploy.py), so it has both figures.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lab import counts, deploy, diffusion, models
from lab.config import JSON, DiTConfig, NetConfig, RoutedConfig, why_not_folded
from lab.results import Run


def of_config(config: NetConfig) -> dict[str, int]:
    """`params` and `macs` of a shape, with `params_deployed` and `macs_deployed` where it has a form by hand.

    Counted (`counted`); of a DiT of plain blocks in closed form, in a hundredth of a millisecond (lab/counts.py).
    Raises ValueError for an impossible shape.
    """
    if wrong := config.check():
        raise ValueError("; ".join(wrong))
    return counts.of_dit(config) or counted(config)


def of_run(run: Run) -> dict[str, JSON]:
    """A finished run's cost.json, of the network that it ships; `macs_image` counts every evaluation of an image.

    `params_train`: how many parameters were trained, those of edits and of what was thrown away among them.
    """
    config, student = run.config, run.read("student")
    if not isinstance(student, dict):
        raise LookupError(f"run {run.id} has no finished network yet; its state is {run.status().state!r}")
    cost = of_config(config)
    evaluations = diffusion.evaluations(run.recipe.drawn_by) if config.time else 1
    ready = {k: v for k, v in cost.items() if k.endswith("_deployed")}
    request = {k: v for k, v in cost.items() if k == "params_request"}  # of all that are kept, those that an image asks
    if ready:
        ready["file_mb_deployed"] = deployed_mb(config)
    return {
        "params": cost["params"],
        "params_train": student.get("params_train", cost["params"]),  # older runs trained what they ship
        "macs": cost["macs"],
        "evaluations": evaluations,
        "macs_image": cost["macs"] * evaluations,
        "file_mb": student["file_mb"],
        **ready,
        **request,
    }


def in_bytes(counted: dict[str, int]) -> dict[str, int]:
    """The counts with the parameters' bytes in half precision, without a file's header, as `bytes_fp16`[_deployed]."""
    return counted | {k.replace("params", "bytes_fp16"): 2 * v for k, v in counted.items() if k.startswith("params")}


def deployed_mb(config: DiTConfig | RoutedConfig) -> float:
    """Megabytes of the deployed form as a file in half precision, or of all experts' files, to the byte."""
    if isinstance(config, RoutedConfig):
        return sum(map(deployed_mb, config.parts))
    return len(deploy.file_bytes(deploy.Folded(config))) / 1e6


@functools.lru_cache(maxsize=256)
def _counted(config: NetConfig) -> dict[str, int]:
    if isinstance(config, RoutedConfig):  # all experts are kept, one draws an image
        parts = [of_config(part) for part in config.parts]
        whole = {k: (sum if k.startswith("params") else max)(part[k] for part in parts) for k in parts[0]}
        return whole | {"params_request": max(part["params"] for part in parts)}
    with torch.device("meta"):
        found = _count(models.build(config), *_inputs(config))
        if not why_not_folded(config):
            z, _, y = _inputs(config)
            found |= {f"{k}_deployed": v for k, v in _count(deploy.Folded(config), z, y).items()}
    return found


def _inputs(config: NetConfig) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """x, t and y of one image, on the meta device: no memory, no arithmetic."""
    with torch.device("meta"):
        x = torch.empty(1, config.channels, config.image_size, config.image_size)
        return x, torch.empty(1) if config.time else None, torch.empty(1).long() if config.num_classes else None


def _count(net: nn.Module, *inputs: Tensor | None) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():  # on the CPU it would give attention 0
        net.eval().requires_grad_(False)(*inputs)
    return {"params": sum(p.numel() for p in net.parameters()), "macs": counter.get_total_flops() // 2}


def counted(config: NetConfig) -> dict[str, int]:
    """What `of_config` gives, as torch's flop counter sees networks of this shape; for any family."""
    try:
        return dict(_counted(config))
    except RuntimeError as error:  # of sizes that overflow
        raise ValueError(f"a network of shape {config.shape} can't be counted: {error}") from error


class _Largest(TorchDispatchMode):
    """The most values that one operation reads and writes, the network's own left out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.found, self.own = 0, {v.untyped_storage()._cdata for v in (*net.parameters(), *net.buffers())}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        values = [v for v in tree_leaves((args, kwargs, out)) if isinstance(v, Tensor)]
        if not func.is_view:
            moved = sum(v.numel() for v in values if v.untyped_storage()._cdata not in self.own)
            self.found = max(self.found, moved)
        return out


@functools.lru_cache(maxsize=256)
def activations(config: NetConfig) -> int:
    """How many values a network's largest operation reads and writes for one image, its weights left out.

    With attention's scores written out, as runtimes do that have no kernel of their own for it.
    """
    if isinstance(config, RoutedConfig):
        return activations(config.parts[0])
    with torch.device("meta"), torch.no_grad():
        net = models.build(config).eval()
        with _Largest(net) as largest, sdpa_kernel(SDPBackend.MATH):
            net(*_inputs(config))
    return largest.found
