"""Which solver makes the pairs? Distance to 35-evaluation Heun against speed, and what uint8 costs.

    python benchmarks/solvers.py --teacher fashion --out results/benchmarks/solvers.json

Every row samples the same noises and classes. `l1` is the mean absolute difference to Heun's images in
float32 in [-1, 1]; `fd` is the distance between the two sets, `fd_real` to the real train split. The rows
`heun-18 as uint8` and `as float16` are the reference itself, stored.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import clocked
import torch

from lab import diffusion, metrics, teachers
from lab.experiment import commit
from lab.results import Store, write_json

REFERENCE = "heun-18"
SOLVERS = [
    "heun-18",
    "heun-10",
    "heun-6",
    "dpmpp2m-16",
    "dpmpp2m-12",
    "dpmpp2m-10",
    "dpmpp2m-8",
    "dpmpp2m-6",
    "dpmpp2m-5",
]
BATCH = 256


@torch.inference_mode()
def draw(teacher: teachers.Teacher, count: int) -> tuple[torch.Tensor, float]:
    """Float images (N, C, H, W) on the evaluation's seeds, and images per second."""
    images, began = [], time.perf_counter()
    for start in range(0, count, BATCH):
        seeds = range(diffusion.EVAL_SEED + start, diffusion.EVAL_SEED + min(start + BATCH, count))
        z, y = diffusion.noise_of(seeds, teacher.spec.shape, teacher.spec.num_classes)
        images.append(teacher.sample(z, y).images)
    return torch.cat(images), count / (time.perf_counter() - began)


def main(store: Store, teacher: str, count: int, out: Path) -> None:
    run = store.get(teacher)
    extractor = metrics.extractor_of(run.recipe.data)
    real, real_name = metrics.real_features(run.recipe, store, extractor)
    reference, _ = draw(teachers.load(teacher, store, solver=REFERENCE, dtype="float32"), count)
    theirs = metrics.extract(diffusion.to_uint8(reference), extractor)
    rows = []

    def add(name: str, dtype: str, images: torch.Tensor, speed: float) -> None:
        mine = metrics.extract(diffusion.to_uint8(images), extractor)
        rows.append({
            "solver": name, "dtype": dtype, "evaluations": diffusion.evaluations(name.split()[0]), "images_s": speed,
            "l1": (images - reference).abs().mean().item(), "fd": metrics.fd(mine, theirs),
            "fd_real": metrics.fd(mine, real),
        })  # fmt: skip
        print(clocked.table(rows[-1:], [*rows[-1]]).splitlines()[1], flush=True)
        write_json(out, {"rows": rows, "samples": count, "extractor": extractor, "reference": real_name,
                         "teacher": run.id, "commit": commit(), "torch": torch.__version__,
                         "threads": torch.get_num_threads()})  # fmt: skip

    add(f"{REFERENCE} as uint8", "float32", diffusion.from_uint8(diffusion.to_uint8(reference)), 0.0)
    add(f"{REFERENCE} as float16", "float32", reference.half().float(), 0.0)
    for name in SOLVERS:
        for dtype in ("float32", "bfloat16") if name in ("heun-18", "dpmpp2m-8") else ("bfloat16",):
            add(name, dtype, *draw(teachers.load(teacher, store, solver=name, dtype=dtype), count))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="fashion")
    parser.add_argument("--results", default="results")
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/solvers.json"))
    args = parser.parse_args()
    main(Store(args.results), args.teacher, args.count, args.out)
