"""What a network costs: parameters, multiply-accumulates, bytes; nothing is allocated or run.

A multiply-accumulate (MAC) is two floating-point operations; only matrix products, convolutions and
attention count, as in the published DiT tables. One evaluation of one image unless said otherwise.

N tokens, D width, M hidden width of the MLP, L blocks, p patch, C channels, K labels.
"""

from __future__ import annotations

import functools

import torch
from torch.utils.flop_counter import FlopCounterMode

from lab import diffusion, models
from lab.config import JSON, DiTConfig, NetConfig
from lab.models.dit import FREQUENCIES
from lab.results import Run


def of_config(config: NetConfig) -> dict[str, int]:
    """`params` and `macs` of a shape. Raises ValueError for an impossible one."""
    if wrong := config.check():
        raise ValueError("; ".join(wrong))
    if isinstance(config, DiTConfig):
        return {"params": dit_params(config), "macs": dit_macs(config)}
    return counted(config)


def of_run(run: Run) -> dict[str, JSON]:
    """A finished run's cost.json; `macs_image` counts every evaluation that one image takes."""
    recipe, student = run.recipe, run.read("student")
    if not isinstance(student, dict):
        raise LookupError(f"run {run.id} has no finished network yet; its state is {run.status().state!r}")
    cost = of_config(recipe.student)
    evaluations = diffusion.evaluations(recipe.solver) if recipe.student.time else 1
    return {
        "params": cost["params"],
        "params_train": cost["params"],  # no method yet trains more than it ships
        "macs": cost["macs"],
        "evaluations": evaluations,
        "macs_image": cost["macs"] * evaluations,
        "file_mb": student["file_mb"],
    }


def bytes_fp16(config: NetConfig) -> int:
    """Bytes of the parameters in half precision, without a file's header."""
    return 2 * of_config(config)["params"]


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


@functools.lru_cache(maxsize=256)
def _counted(config: NetConfig) -> tuple[int, int]:
    # On the meta device: no memory, no arithmetic, and on the CPU the counter gives attention 0.
    with torch.device("meta"):
        net = models.build(config).eval().requires_grad_(False)
        x = torch.empty(1, config.channels, config.image_size, config.image_size)
        t = torch.empty(1) if config.time else None
        y = torch.empty(1, dtype=torch.int64) if config.num_classes else None
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(x, t, y)
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


def counted(config: NetConfig) -> dict[str, int]:
    """`params` and `macs` as torch's flop counter sees a network of this shape; for any family."""
    params, macs = _counted(config)
    return {"params": params, "macs": macs}
