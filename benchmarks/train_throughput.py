"""How fast is the lab's training step? Images/s over diffusers' DiT with a plain AdamW loop.

    python benchmarks/train_throughput.py --out results/benchmarks/train_throughput.json

The same shape, batch and dtype, interleaved in one process (A B B A ...), medians of rounds with their
spread. Ours is the loop's own step with L1 alone, as theirs: batch from pairs, compiled forward and
backward, gradient norm, Muon and AdamW, EMA. Theirs is eager, as its users run it, without EMA or
clipping; a compiled one is timed too and reported beside it. bfloat16 is left out where the processor
has no instructions for it: it would take longer than float32.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from lab import bench, data, diffusion, models
from lab.config import DiTConfig, Recipe, Use
from lab.data import Batch, ImageSpec
from lab.experiment import commit
from lab.methods import Roles, create
from lab.results import write_json
from lab.train import Networks, start_state, update

SHAPES = {"64x4": DiTConfig(), "128x6": DiTConfig(width=128, depth=6, heads=4)}
SPEC = ImageSpec(data="noise", size=28, channels=1, num_classes=10, sigma_data=0.7)
PAIRS = 4096


def batches(batch: int) -> Iterator[Batch]:
    """Pairs as the lab reads them: uint8 images, their noise in memory."""
    images = torch.randint(0, 256, (PAIRS, 1, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (PAIRS,))
    noise, _ = diffusion.noise_of(range(PAIRS), SPEC.shape, 10)
    for step in itertools.count():
        index = data.order(PAIRS, batch, 0, step)
        yield Batch(diffusion.from_uint8(images[index]), labels[index], noise[index])


def ours(config: DiTConfig, batch: int, dtype: str) -> Callable[[], None]:
    """One update of lab.train.train."""
    recipe = Recipe(student=config, batch=batch, dtype=dtype, methods=(Use("pairs", {"perceptual": 0.0}),))
    recipe = recipe.with_(lr=recipe.default_lr)
    method = create(recipe.methods[0])
    student = method.prepare(models.build(config), Roles(SPEC)).train()
    state = start_state(student, [method], recipe)
    nets = Networks(student, [method], SPEC.sigma_data, bfloat16=dtype == "bfloat16")
    nets.compile()
    stream = batches(batch)

    def step() -> None:
        update(state, nets, recipe, next(stream))

    return step


def theirs(config: DiTConfig, batch: int, dtype: str, *, compiled: bool) -> Callable[[], None]:
    """One update of DiTTransformer2DModel with AdamW on the same pairs."""
    from diffusers import DiTTransformer2DModel

    net = DiTTransformer2DModel(
        num_attention_heads=config.heads, attention_head_dim=config.width // config.heads, in_channels=config.channels,
        out_channels=config.channels, num_layers=config.depth, sample_size=config.image_size, patch_size=config.patch,
        num_embeds_ada_norm=config.num_classes, norm_eps=1e-6,
    ).train()  # fmt: skip
    if compiled:
        net.compile()
    optimizer, stream = torch.optim.AdamW(net.parameters(), lr=1e-4), batches(batch)
    t = torch.zeros(batch, dtype=torch.int64)

    def step() -> None:
        pair = next(stream)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            out = net(pair.noise, t, pair.y).sample
        optimizer.zero_grad(set_to_none=True)
        F.l1_loss(out.float(), pair.image).backward()
        optimizer.step()

    return step


def race(steps: dict[str, Callable[[], None]], *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Updates per second of each rival in each round; the order turns round every time."""
    for step in steps.values():
        for _ in range(5):  # compilation, allocator, caches
            step()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for r in range(rounds):
        for name in list(steps)[:: 1 if r % 2 == 0 else -1]:
            count, began = 0, time.perf_counter()
            while (took := time.perf_counter() - began) < seconds:
                steps[name]()
                count += 1
            found[name].append(count / took)
    return found


def main(out: Path, *, rounds: int, seconds: float) -> None:
    rows, slow = [], bench.slow_precisions(bench.card())
    dtypes = ("float32", "bfloat16") if "bf16" not in slow else ("float32",)
    for dtype, (shape, config), batch in itertools.product(dtypes, SHAPES.items(), (64, 128)):
        torch._dynamo.reset()
        torch.manual_seed(0)
        speeds = race(
            {"lab": ours(config, batch, dtype), "diffusers": theirs(config, batch, dtype, compiled=False),
             "diffusers compiled": theirs(config, batch, dtype, compiled=True)}, rounds=rounds, seconds=seconds,
        )  # fmt: skip
        row = {"shape": shape, "batch": batch, "dtype": dtype}
        row |= {f"{name} images/s": batch * statistics.median(v) for name, v in speeds.items()}
        for rival in ("diffusers", "diffusers compiled"):
            ratios = sorted(a / b for a, b in zip(speeds["lab"], speeds[rival]))
            row |= {f"lab / {rival}": statistics.median(ratios), f"lab / {rival} spread": [ratios[0], ratios[-1]]}
        rows.append(row)
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        write_json(out, {"rows": rows, "rounds": rounds, "seconds": seconds, "commit": commit(),
                         "left_out": [*slow.values()], "torch": torch.__version__,
                         "threads": torch.get_num_threads(), "machine": platform.machine()})  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/train_throughput.json"))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    main(args.out, rounds=args.rounds, seconds=args.seconds)
