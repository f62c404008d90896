"""What do the lab's Muon and AdamW cost a step, against torch's own? Milliseconds, interleaved.

    python benchmarks/optimizer.py

`lab` orthogonalises q, k and v one by one, all matrices of a shape in one batched product; `torch` is
torch.optim.Muon on the same weights, stacked, plus AdamW, as its users have it;
`adamw` is fused AdamW on everything.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import torch

from lab import models
from lab.config import DiTConfig, Recipe
from lab.optim import Optimizer

SHAPES = {"64x4": DiTConfig(), "128x6": DiTConfig(width=128, depth=6), "48x12": DiTConfig(width=48, depth=12)}


def ours(config: DiTConfig, optimizer: str) -> Callable[[], None]:
    net = models.build(config)
    found = Optimizer([net], Recipe(student=config, optimizer=optimizer))
    found.set_lr(1e-4)
    return _with_gradients(net, found.step)


def torchs(config: DiTConfig) -> Callable[[], None]:
    net = models.build(config)
    matrices = [linear.weight for linear in net.linears() if linear.matrices]
    chosen = {id(p) for p in matrices}
    rest = [p for p in net.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=1e-4, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=1e-4, fused=True)

    def step() -> None:
        muon.step()
        adamw.step()

    return _with_gradients(net, step)


def _with_gradients(net: torch.nn.Module, step: Callable[[], None]) -> Callable[[], None]:
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    return step


if __name__ == "__main__":
    for name, config in SHAPES.items():
        rivals = {"lab": ours(config, "muon"), "torch": torchs(config), "adamw": ours(config, "adamw")}
        times: dict[str, list[float]] = {rival: [] for rival in rivals}
        for _, (rival, step) in itertools.product(range(60), rivals.items()):
            began = time.perf_counter()
            step()
            times[rival].append(1e3 * (time.perf_counter() - began))
        print(name, {rival: f"{statistics.median(t[10:]):.2f} ms" for rival, t in times.items()})
