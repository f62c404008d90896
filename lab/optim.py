"""The optimizer of the loop: Muon for matrices inside blocks, AdamW for the rest, one state_dict."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lab.config import Recipe
from lab.models.dit import Linear

MOMENTUM = 0.95  # Nesterov; Muon's published default
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Muon's quintic Newton-Schulz iteration
NS_STEPS = 5


def orthogonalise(G: Tensor) -> Tensor:
    """U V^T of each matrix in G (K, rows, columns), rows <= columns, by Newton-Schulz iteration.

    In bfloat16, as published, where the machine multiplies it fast: only the direction counts. In full precision the
    iteration of a long matrix needs its Gram matrix alone, for every step is a polynomial of that: half the work.
    Source: Keller Jordan, "Muon: an optimizer for hidden layers", the algorithm of torch.optim.Muon.
    """
    a, b, c = NS_COEFFICIENTS
    X = G / G.flatten(1).norm(dim=1).clamp_min(1e-7).view(-1, 1, 1)
    fast = fast_bfloat16(G.device.type)
    if not fast and G.shape[2] >= 2 * G.shape[1]:
        return _polynomial(X @ X.mT) @ X
    X = X.to(torch.bfloat16 if fast else G.dtype)
    for _ in range(NS_STEPS):
        A = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(A, A, A, beta=b, alpha=c), X, beta=a)
    return X.to(G.dtype)


def _polynomial(A: Tensor) -> Tensor:
    """The product of the iteration's factors aI + bA + cA^2 for Gram matrices A (K, rows, rows), which all commute."""
    a, b, c = NS_COEFFICIENTS
    Q = None
    for step in range(NS_STEPS):
        M = torch.baddbmm(A, A, A, beta=b, alpha=c)
        M.diagonal(dim1=1, dim2=2).add_(a)
        Q = M if Q is None else M @ Q
        if step < NS_STEPS - 1:
            A = M @ A @ M
    return Q


@functools.cache
def fast_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 run on instructions of their own; elsewhere they are many times slower."""
    if device != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon's update, with stacked maps (q, k, v) orthogonalised one by one.

    All matrices of one shape go through the iteration together: on a CPU the many small products of
    a narrow transformer cost two to four times as much one after another (benchmarks/optimizer.py).
    The step is scaled by 0.2 sqrt(max(rows, columns)), so that AdamW's rates fit (arXiv 2502.16982).
    """

    def __init__(self, params: Iterable[dict]) -> None:
        super().__init__(params, {"lr": 0.0, "matrices": 1})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        groups = [group for group in self.param_groups if group["params"][0].grad is not None]
        params = [group["params"][0] for group in groups]  # each has a group of its own
        grads = [p.grad for p in params]
        buffers = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - MOMENTUM)
        stacks: dict[tuple[int, int, float], list] = defaultdict(list)
        for group, p, update in zip(groups, params, torch._foreach_lerp(grads, buffers, MOMENTUM)):
            for target, G in zip(p.chunk(group["matrices"]), update.chunk(group["matrices"])):
                turned = G.shape[0] > G.shape[1]
                G = G.mT if turned else G
                stacks[(*G.shape, group["lr"])].append((G, target.mT if turned else target))
        for (_, columns, lr), entries in stacks.items():
            updates = orthogonalise(torch.stack([G for G, _ in entries]))
            torch._foreach_sub_([target for _, target in entries], list(updates), alpha=lr * 0.2 * math.sqrt(columns))


class Optimizer:
    """Muon and AdamW behind one step, one rate and one state_dict."""

    def __init__(self, modules: list[nn.Module], recipe: Recipe) -> None:
        rates = _rates(modules)
        matrices = _block_matrices(modules) if recipe.optimizer == "muon" else {}
        rest = [p for p in rates if p not in matrices]
        self.parameters = list(rates)
        self.parts: dict[str, torch.optim.Optimizer] = {}
        if matrices:
            self.parts["muon"] = Muon({"params": [p], "matrices": k, "lr_scale": rates[p]} for p, k in matrices.items())
        if rest:
            groups = [{"params": [p for p in rest if rates[p] == r], "lr_scale": r} for r in sorted({*rates.values()})]
            self.parts["adamw"] = torch.optim.AdamW(
                [g for g in groups if g["params"]], lr=0.0, betas=recipe.betas, weight_decay=0.0, fused=True
            )

    def set_lr(self, lr: float) -> None:
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = lr * group["lr_scale"]

    def zero_grad(self) -> None:
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def rate(recipe: Recipe, step: int) -> float:
    """The learning rate of update `step` (0-based): warm-up, then the recipe's schedule."""
    warm = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    done = step / recipe.steps
    if recipe.schedule == "linear":
        return recipe.lr * warm * min(1.0, 2 * (1 - done))
    if recipe.schedule == "cosine":
        return recipe.lr * warm * (1 + math.cos(math.pi * done)) / 2
    return recipe.lr * warm


def _rates(modules: list[nn.Module]) -> dict[nn.Parameter, float]:
    """Each trained parameter with its rate's factor: `lr_scale` of the nearest module that has one."""
    rates: dict[nn.Parameter, float] = {}

    def visit(module: nn.Module, scale: float) -> None:
        scale = getattr(module, "lr_scale", scale)
        for p in module.parameters(recurse=False):
            if p.requires_grad:
                rates.setdefault(p, scale)
        for child in module.children():
            visit(child, scale)

    for module in modules:
        visit(module, 1.0)
    return rates


def _block_matrices(modules: list[nn.Module]) -> dict[nn.Parameter, int]:
    """Weights of Linear layers inside `blocks`, with the number of maps stacked in each.

    AdaLN, gates, tables, embeddings, norms and the head stay with AdamW (benchmarks/search.py, stage `network`).
    An edit of a weight says in `matrices` which of its own parameters are matrices too, name -> maps stacked in it;
    its others go to AdamW, at its `lr_scale`.
    """
    found = {}
    for module in modules:
        for block in getattr(module, "blocks", []):
            for linear in block.modules():
                if isinstance(linear, Linear) and linear.matrices:
                    found[linear.weight] = linear.matrices
                for edit in linear.edits if isinstance(linear, Linear) else ():
                    for name, count in getattr(edit, "matrices", {}).items():
                        found[edit.get_parameter(name)] = count
    return {p: count for p, count in found.items() if p.requires_grad}
