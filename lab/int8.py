"""A deployed network made ready for products of 8 bits, so that its images stay where they are.

Three things, found by benchmarks/int8.py. Ranges of single channels are evened out: what enters a product is divided,
and its weights multiplied, by a factor for each channel (SmoothQuant, arXiv 2211.10438), which folds into the table's
rows or into the rows of v and changes nothing in floating point. Weights are rounded one column after the other, each
rounding's error being made good by the columns to come (GPTQ, arXiv 2210.17323). The second product of an MLP stays in
floating point: no factor folds through GELU, whose outputs have the widest range of all.

D width, K columns of a matrix; products are y = W x, W (out, K).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lab import cost
from lab.config import DiTConfig
from lab.counts import PER_BLOCK
from lab.data import ImageSpec
from lab.deploy import Deployed
from lab.diffusion import noise_of

LAYERS = ("qkv", "proj", "fc1")  # of a block: what is computed in 8 bits
ALPHA = 0.75  # how far ranges move from inputs (0) to weights (1)
DAMP = 0.01  # of the mean square of an input, added to each for a stable inverse
# Noise on which int8 is calibrated: no sheet, measurement or training pair draws these seeds.
CALIBRATION_SEED, CALIBRATION_IMAGES = 500_000, 256


def prepared(net: Deployed, spec: ImageSpec, top: int) -> Deployed:
    """The network with even ranges and weights that are whole multiples, -top to top, of their row's step."""
    return rounded(smoothed(net, spec), spec, top)


@torch.no_grad()
def smoothed(net: Deployed, spec: ImageSpec, alpha: float = ALPHA) -> Deployed:
    """The same network, equal to rounding, whose products see inputs of more even channels."""
    inputs, net, D = inputs_of(net, spec), copy.deepcopy(net), net.config.width
    for index, block in enumerate(net.blocks):
        for name, at in (("qkv", 0), ("fc1", 3)):  # rows of shift and scale before it
            factor = _factor(inputs[index, name], getattr(block, name), alpha)
            first = PER_BLOCK * index + at
            net.table[:, first : first + 2] /= factor
            getattr(block, name).weight *= factor
        factor = _factor(inputs[index, "proj"], block.proj, alpha)
        block.qkv.weight[2 * D :] /= factor[:, None]  # attention mixes tokens, never channels of v
        block.qkv.bias[2 * D :] /= factor
        block.proj.weight *= factor
    return net


def _factor(x: Tensor, layer: nn.Linear, alpha: float) -> Tensor:
    """SmoothQuant's factors, (K,), with a geometric mean of one."""
    largest, weight = (v.abs().amax(0).clamp_min(1e-5) for v in (x, layer.weight))
    factor = largest**alpha / weight ** (1 - alpha)
    return factor / factor.log().mean().exp()


@torch.no_grad()
def rounded(net: Deployed, spec: ImageSpec, top: int) -> Deployed:
    """The network with the weights of LAYERS on a grid, which a quantiser of that many steps finds again."""
    inputs, net = inputs_of(net, spec), copy.deepcopy(net)
    for (index, name), x in inputs.items():
        layer = getattr(net.blocks[index], name)
        layer.weight.copy_(gptq(layer.weight, x.double().T @ x.double() / len(x), top))
    return net


def gptq(weight: Tensor, gram: Tensor, top: int) -> Tensor:
    """A matrix (out, K) rounded to whole multiples of each row's largest weight / top; gram: E[x x^T], (K, K).

    The largest weight of a row stays as it is, so that its step can be read off it.
    """
    left, K = weight.double().clone(), weight.shape[1]
    gram = gram + DAMP * gram.diag().mean() * torch.eye(K, dtype=gram.dtype, device=gram.device)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True)
    largest, at = left.abs().max(1)
    step, sign = largest.clamp_min(1e-12) / top, left.gather(1, at[:, None])[:, 0].sign()
    found = torch.zeros_like(left)
    for k in range(K):
        near = (left[:, k] / step).round().clamp(-top, top)
        found[:, k] = torch.where(at == k, sign * top, near) * step
        error = (left[:, k] - found[:, k]) / upper[k, k]
        left[:, k:] -= error[:, None] * upper[k, k:]
    return found.to(weight.dtype)


@torch.no_grad()
def inputs_of(net: Deployed, spec: ImageSpec) -> dict[tuple[int, str], Tensor]:
    """What enters each product of LAYERS on the noise of calibration: (block, layer) -> rows (B*N, K)."""
    found: dict[tuple[int, str], list[Tensor]] = {}

    def keep(at: tuple[int, str]) -> Any:
        return lambda _, given: found.setdefault(at, []).append(given[0].flatten(0, -2))

    layers = [((i, name), getattr(block, name)) for i, block in enumerate(net.blocks) for name in LAYERS]
    hooks = [layer.register_forward_pre_hook(keep(at)) for at, layer in layers]
    try:
        for z, y in calibration(spec, net.config.num_classes):
            net(z, y)
    finally:
        for hook in hooks:
            hook.remove()
    return {at: torch.cat(parts) for at, parts in found.items()}


def calibration(spec: ImageSpec, num_classes: int, batch: int = 32) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches of noise and drawn classes, on seeds of their own."""
    for start in range(0, CALIBRATION_IMAGES, batch):
        seeds = range(CALIBRATION_SEED + start, CALIBRATION_SEED + start + batch)
        yield noise_of(seeds, spec.shape, num_classes)


def share(config: DiTConfig) -> float:
    """What part of the deployed network's multiply-adds LAYERS are, 0 to 1."""
    D, M = config.width, config.hidden
    return config.depth * config.tokens * (4 * D**2 + D * M) / cost.of_config(config)["macs_deployed"]


__all__ = ["LAYERS", "calibration", "gptq", "inputs_of", "prepared", "rounded", "share", "smoothed"]
