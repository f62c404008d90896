"""What does leaving out heads, channels and tokens save? Milliseconds of one evaluation, in eager torch.

    python benchmarks/dynamic.py --run <run of method dynamic> --out results/benchmarks/dynamic.json

Three forms of one network in turns: the complete one, the masks (which save nothing) and the slices with gathered
tokens, at every noise level of the solver; medians, beside the share of the work that acts and how far the images of
slices and masks are apart. Without --run a 128x6 network of drawn routers: half of the heads and of the groups of
channels act, and about half of the tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from networks import machine
from torch import Tensor, nn

from lab import diffusion, models
from lab.config import JSON, DiTConfig
from lab.models.blocks.dynamic import fast, share_of_work
from lab.models.taps import Taps
from lab.results import Store, write_json
from lab.weights import load_student

SHAPE = DiTConfig(depth=6, width=128, heads=8, time=True, block="dynamic")
WARM = 3


def drawn(config: DiTConfig) -> nn.Module:
    """A network in which the first half of the heads and of the channels act, and about half of the tokens."""
    torch.manual_seed(0)
    net = models.build(config)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.02 * torch.randn_like(p))
        for block in net.blocks:
            for router in (block.head_router, block.group_router):
                router.weight.zero_()
                router.bias.copy_(torch.where(torch.arange(config.heads - 1) < config.heads // 2 - 1, 1.0, -1.0))
            first, _, last = block.token_router
            first.weight.zero_()
            first.weight[0].normal_()
            first.bias.zero_()
            last.weight.fill_(1.0)
            last.bias.fill_(-1e-3)
    return net.eval()


def share_of(net: nn.Module, *given: Tensor | None) -> float:
    """Of the blocks' work, that which acts on these inputs."""
    taps = Taps(net.tap_names)
    net(*given, taps)
    masks = [torch.stack([taps[f"{name}{i}"] for i in range(net.config.depth)], 1)
             for name in ("heads", "groups", "tokens")]  # fmt: skip
    return share_of_work(net.config, *masks).mean().item()


def timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each call, in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for round in range(WARM + rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if round >= WARM:
                found[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(times) for name, times in found.items()}


@torch.inference_mode()
def rows_of(net: nn.Module, batch: int, solver: str, rounds: int) -> list[dict[str, JSON]]:
    """One row for every noise level of the solver, or one of a one-step network."""
    config, quick = net.config, fast(net)
    sigmas = diffusion.sigmas_of(solver)[:-1].tolist() if config.time else [None]
    z, y = diffusion.noise_of(range(batch), (config.channels, config.image_size, config.image_size), config.num_classes)
    rows = []
    for sigma in sigmas:
        t = None if sigma is None else torch.full((batch,), sigma).log() / 4
        given = (z, t, y)
        apart = (quick(*given) - net(*given)).abs().max().item()
        calls = {"complete": lambda g=given: net(*g, full=True), "masks": lambda g=given: net(*g),
                 "slices": lambda g=given: quick(*g)}  # fmt: skip
        rows.append({"sigma": sigma, "work": share_of(net, *given), "apart": apart, "ms": timed(calls, rounds)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a finished run of method dynamic; without one a network of drawn routers")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--solver", default=diffusion.SOLVER)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net = load_student(Store().get(args.run)) if args.run else drawn(SHAPE)
    rows = rows_of(net, args.batch, args.solver, args.rounds)
    print("  sigma   work  complete ms  masks ms  slices ms  speed-up   apart")
    for row in rows:
        ms = row["ms"]
        print(f"{row['sigma'] or 0:7.3f}  {row['work']:5.3f}  {ms['complete']:11.2f}  {ms['masks']:8.2f}  "
              f"{ms['slices']:9.2f}  {ms['complete'] / ms['slices']:8.2f}  {row['apart']:.1e}")  # fmt: skip
    whole = {form: sum(row["ms"][form] for row in rows) for form in rows[0]["ms"]}
    work = statistics.mean(row["work"] for row in rows)
    print(f"in all: {whole['complete'] / whole['slices']:.2f} times as fast at {work:.3f} of the work")
    if args.out:
        found = {"shape": net.config.shape, "run": args.run, "batch": args.batch, "threads": args.threads,
                 "solver": args.solver, "rounds": args.rounds, "work": work, "ms": whole, "rows": rows}  # fmt: skip
        write_json(args.out, {"machine": machine()} | found)


if __name__ == "__main__":
    main()
