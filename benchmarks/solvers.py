"""Which solver makes the pairs? Distance to 35-evaluation Heun against speed, and what uint8 costs.

    python benchmarks/solvers.py --teacher fashion --out results/benchmarks/solvers.json

Every row samples the same noises and classes, by the teacher as it makes pairs. `l1` is the mean absolute
difference to Heun's images in float32 in [-1, 1]; `fd` is the distance between the two sets, `fd_real` to the real
train split. The rows `heun-18 as uint8` and `as float16` are the reference itself, stored: their `fd` is that to
the images before they were stored, which the extractor then sees unrounded. Every other row is rounded to uint8, as
all images are that a distance is measured on. bfloat16 is left out where the processor emulates it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import clocked
import torch
from networks import machine

from lab import diffusion, metrics, optim, teachers
from lab.experiment import commit
from lab.results import Store, read_json, write_json

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
def draw(teacher: teachers.Teacher, count: int) -> torch.Tensor:
    """Float images (N, C, H, W) on the evaluation's seeds."""
    images = []
    for start in range(0, count, BATCH):
        seeds = range(diffusion.EVAL_SEED + start, diffusion.EVAL_SEED + min(start + BATCH, count))
        z, y = diffusion.noise_of(seeds, teacher.spec.shape, teacher.spec.num_classes)
        images.append(teacher.sample(z, y).images)
    return torch.cat(images)


@torch.inference_mode()
def unrounded(images: torch.Tensor, extractor: str) -> torch.Tensor:
    """Features (N, D) float64 of float images (N, C, H, W) in [-1, 1], which torch-fidelity takes as uint8 only."""
    net = metrics.create(extractor, "cpu").net
    return torch.cat([net.features(part).double() for part in images.split(BATCH)])


def race(rivals: dict[str, teachers.Teacher], *, rounds: int = 3, count: int = 128) -> dict[str, list[float]]:
    """Images per second of every rival in each round, interleaved; one batch of `count`."""
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for _, (name, teacher) in itertools.product(range(rounds), rivals.items()):
        began = time.perf_counter()
        draw(teacher, count)
        found[name].append(count / (time.perf_counter() - began))
    return found


def main(store: Store, teacher: str, count: int, out: Path) -> None:
    run = store.get(teacher)
    extractor = metrics.extractor_of(run.recipe.data)
    real, real_name = metrics.real_features(run.recipe, store, extractor)
    dtypes = ("float32", "bfloat16") if optim.fast_bfloat16("cpu") else ("float32",)
    rivals = {
        f"{name} {dtype}": teachers.load(teacher, store, solver=name, dtype=dtype, thousands=True)
        for name in SOLVERS
        for dtype in dtypes
    }
    conditions = {"samples": count, "extractor": extractor, "reference": real_name, "teacher": run.id,
                  "weights_sha256": run.read("student")["weights_sha256"], "machine": machine()}  # fmt: skip
    before = read_json(out) or {}
    rows = before["rows"] if conditions.items() <= before.items() else []
    done = {row["solver"] for row in rows}

    def save() -> None:
        write_json(out, conditions | {"rows": rows, "commit": commit(), "torch": torch.__version__,
                                      "threads": torch.get_num_threads()})  # fmt: skip

    def add(name: str, images: torch.Tensor, *, stored: bool = False) -> None:
        mine = unrounded(images, extractor) if stored else metrics.extract(diffusion.to_uint8(images), extractor)
        against = unrounded(reference, extractor) if stored else theirs
        rows.append({
            "solver": name, "evaluations": diffusion.evaluations(name.split()[0]),
            "l1": (images - reference).abs().mean().item(), "fd": metrics.fd(mine, against),
            "fd_real": metrics.fd(mine, real),
        })  # fmt: skip
        print(clocked.table(rows[-1:], [*rows[-1]]).splitlines()[1], flush=True)
        save()

    if missing := [name for name in rivals if name not in done]:
        reference = draw(rivals[f"{REFERENCE} float32"], count)
        theirs = metrics.extract(diffusion.to_uint8(reference), extractor)
        if not rows:
            add(f"{REFERENCE} float32 as uint8", diffusion.from_uint8(diffusion.to_uint8(reference)), stored=True)
            add(f"{REFERENCE} float32 as float16", reference.half().float(), stored=True)
        for name in missing:
            add(name, reference if name == f"{REFERENCE} float32" else draw(rivals[name], count))

    speeds = race(rivals)
    for row in rows:
        if each := speeds.get(row["solver"]):
            row |= {"images_s": statistics.median(each), "images_s spread": [min(each), max(each)]}
    save()
    timed = [row for row in rows if "images_s" in row]
    print("\n" + clocked.table(timed, ["solver", "evaluations", "l1", "fd", "fd_real", "images_s"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="fashion")
    parser.add_argument("--results", default="results")
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/solvers.json"))
    args = parser.parse_args()
    main(Store(args.results), args.teacher, args.count, args.out)
