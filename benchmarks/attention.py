"""Where does attention with its scores written out beat torch's fused one? Milliseconds, compiled, on the CPU.

    python benchmarks/attention.py

Forward, and forward with backward, of the two forms of lab.models.layers.attend, in turns; medians. The batch falls
with the tokens, so that all rows do the same products.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.models import layers

HEADS, ROUNDS = 4, 30


def written(qkv: Tensor) -> Tensor:
    """(B, N, 3, H, d) as a block's qkv layer gives it -> (B, H, N, d)."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return layers.attend(q, k, v, qkv.shape[-1] ** -0.5)


def fused(qkv: Tensor) -> Tensor:
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v)


def timed(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of each call, in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for round in range(ROUNDS + 5):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if round >= 5:
                found[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    layers.FEW_TOKENS = 10**6  # the written form, whatever the size
    forms = {"written": written, "fused": fused}
    print(f"tokens   d  batch   forward: {', '.join(forms)}; with backward: the same")
    for tokens, d in [(4, 16), (16, 16), (49, 16), (49, 32), (64, 16), (196, 16), (196, 32), (256, 32), (784, 16)]:
        torch._dynamo.reset()
        batch = max(1, 64 * 49**2 // tokens**2)
        compiled = {name: torch.compile(f) for name, f in forms.items()}
        qkv = torch.randn(batch, tokens, 3, HEADS, d, requires_grad=True)
        with torch.no_grad():
            forward = timed({name: lambda f=f, qkv=qkv: f(qkv) for name, f in compiled.items()})
        both = timed({name: lambda f=f, qkv=qkv: f(qkv).sum().backward() for name, f in compiled.items()})
        numbers = "    ".join("  ".join(f"{found[name]:7.2f}" for name in forms) for found in (forward, both))
        print(f"{tokens:6d} {d:3d} {batch:6d}    {numbers}", flush=True)


if __name__ == "__main__":
    main()
