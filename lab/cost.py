"""What a network costs: parameters, multiply-accumulates, bytes; nothing is run.

A multiply-accumulate (MAC) is two floating-point operations; only matrix products, convolutions and
attention count, as in the published DiT tables. One evaluation of one image unless said otherwise.

A one-step DiT costs less in its deployed form (lab/deploy.py), so it has both figures.

N tokens, D width, M hidden width of the MLP, L blocks, p patch, C channels, K labels.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lab import deploy, diffusion, models
from lab.config import JSON, DiTConfig, NetConfig
from lab.models.dit import FREQUENCIES
from lab.results import Run


def of_config(config: NetConfig) -> dict[str, int]:
    """`params` and `macs` of a shape, with `params_deployed` and `macs_deployed` where it has that form.

    Raises ValueError for an impossible shape.
    """
    if wrong := config.check():
        raise ValueError("; ".join(wrong))
    if not isinstance(config, DiTConfig):
        return counted(config)
    found = {"params": dit_params(config), "macs": dit_macs(config)}
    return found if deploy.refusal(config) else found | deployed(config)


def of_run(run: Run) -> dict[str, JSON]:
    """A finished run's cost.json; `macs_image` counts every evaluation that one image takes."""
    recipe, student = run.recipe, run.read("student")
    if not isinstance(student, dict):
        raise LookupError(f"run {run.id} has no finished network yet; its state is {run.status().state!r}")
    cost = of_config(recipe.student)
    evaluations = diffusion.evaluations(recipe.solver) if recipe.student.time else 1
    ready = {k: v for k, v in cost.items() if k.endswith("_deployed")}
    if ready:
        ready["file_mb_deployed"] = deployed_mb(recipe.student)
    return {
        "params": cost["params"],
        "params_train": cost["params"],  # no method yet trains more than it ships
        "macs": cost["macs"],
        "evaluations": evaluations,
        "macs_image": cost["macs"] * evaluations,
        "file_mb": student["file_mb"],
        **ready,
    }


def in_bytes(counted: dict[str, int]) -> dict[str, int]:
    """The counts with the parameters' bytes in half precision, without a file's header, as `bytes_fp16`[_deployed]."""
    return counted | {k.replace("params", "bytes_fp16"): 2 * v for k, v in counted.items() if k.startswith("params")}


def dit_params(config: DiTConfig) -> int:
    """Parameters of a DiT in closed form; a block has 18 D^2 + 15 D at M = 4 D."""
    D, M, p = config.width, config.hidden, config.patch
    out = config.out_channels or config.channels
    labels = config.num_classes + config.null_class
    embed = config.channels * p**2 * D + D
    time = 2 * FREQUENCIES * D + D + D**2 + D if config.time else 0
    constant = D if not labels and not config.time else 0
    attention, mlp, adaln = 4 * D**2 + 4 * D, 2 * D * M + M + D, 6 * D**2 + 6 * D
    final = 2 * D**2 + 2 * D + D * p**2 * out + p**2 * out
    return embed + time + labels * D + constant + config.depth * (attention + mlp + adaln) + final


def dit_macs(config: DiTConfig) -> int:
    """MACs of a DiT in closed form; a block has 12 N D^2 + 2 N^2 D + 6 D^2 at M = 4 D."""
    N, D, M, p = config.tokens, config.width, config.hidden, config.patch
    out = config.out_channels or config.channels
    embed = N * config.channels * p**2 * D
    time = 2 * FREQUENCIES * D + D**2 if config.time else 0
    attention, mlp, adaln = 4 * N * D**2 + 2 * N**2 * D, 2 * N * D * M, 6 * D**2
    final = 2 * D**2 + N * D * p**2 * out
    return embed + time + config.depth * (attention + mlp + adaln) + final


def deployed(config: DiTConfig) -> dict[str, int]:
    """`params_deployed` and `macs_deployed` of a one-step DiT in closed form: adaLN is a table of 6 L + 2 rows."""
    N, D, M, p, L = config.tokens, config.width, config.hidden, config.patch, config.depth
    inputs, outputs = config.channels * p**2, (config.out_channels or config.channels) * p**2
    table = deploy.rows_of(config) * (deploy.PER_BLOCK * L + deploy.FINAL) * D
    block = 4 * D**2 + 4 * D + 2 * D * M + M + D
    params = inputs * D + N * D + table + L * block + D * outputs + outputs
    macs = N * inputs * D + L * (4 * N * D**2 + 2 * N**2 * D + 2 * N * D * M) + N * D * outputs
    return {"params_deployed": params, "macs_deployed": macs}


def deployed_mb(config: DiTConfig) -> float:
    """Megabytes of the deployed form as a file in half precision, to the byte."""
    return len(deploy.file_bytes(deploy.Deployed(config))) / 1e6


@functools.lru_cache(maxsize=256)
def _counted(config: NetConfig) -> dict[str, int]:
    # On the meta device: no memory, no arithmetic, and on the CPU the counter gives attention 0.
    with torch.device("meta"):
        x = torch.empty(1, config.channels, config.image_size, config.image_size)
        t = torch.empty(1) if config.time else None
        y = torch.empty(1, dtype=torch.int64) if config.num_classes else None
        found = _count(models.build(config), x, t, y)
        if not deploy.refusal(config):
            found |= {f"{k}_deployed": v for k, v in _count(deploy.Deployed(config), x, y).items()}
    return found


def _count(net: nn.Module, *inputs: Tensor | None) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval().requires_grad_(False)(*inputs)
    return {"params": sum(p.numel() for p in net.parameters()), "macs": counter.get_total_flops() // 2}


def counted(config: NetConfig) -> dict[str, int]:
    """What `of_config` gives, as torch's flop counter sees networks of this shape; for any family."""
    return dict(_counted(config))
