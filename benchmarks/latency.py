"""How fast are the students on this machine, and how much of it do they use? In turns A B B A, one and two threads.

    python benchmarks/latency.py --out results/benchmarks/latency.json
    python benchmarks/latency.py --parts batch1 --seconds 0.1 --shapes 64x4 --threads 1 --out /tmp/latency.json

batch1    diffusers' DiTTransformer2DModel, eager, over every runtime and precision of ours: medians' ratio and its
          95 % interval. Weights are random, as if trained; a form whose images are wrong is fast and useless, and a
          coarse one counts where `distance` says so for every student.
plain     the same for torch's own ONNX export of the network, its conditioning not folded: what a runtime alone gives.
batch16   share of the machine's GEMM peak of that precision, the product taking turns with the network.
fold      file and latency of every committed student before and after its conditioning is folded, runtime eager.
distance  what coarse precisions do to the distance of the students on the front, on the evaluation's own seeds.

A precision without instructions on this machine (bf16 on many) is left out, with the figures that say so. What stands
in --out under the same conditions is not done again; the file is written whole after every row.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from networks import ONNX_CALLS, SHAPES, Threads, commit, front, inputs, machine, one_step, random_run, random_student

from lab import artefacts, bench, deploy, diffusion, export, metrics, runtimes
from lab.config import DiTConfig
from lab.devices import predict, runner
from lab.devices.runner import Comparison, Preset
from lab.results import Run, Store, now, read_json, write_json
from lab.runtimes import Session
from lab.weights import load_student, spec_of_run

FORMS = {  # what is timed of each runtime; float16 has no instructions on a CPU
    "eager": ("fp32", "bf16"), "compiled": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "int8", "int8-static", "w4a32"), "openvino": ("fp32", "bf16", "int8"),
}  # fmt: skip
PEAK_OF = {"fp32": "fp32", "bf16": "bf16", "int8": "int8", "int8-static": "int8"}
AIMS = {"64x4": 7.0, "128x6": 5.3, "256x8": 3.4}  # times as fast as diffusers in float32, at batch 1
AIM_COARSE = 8.0
AIMS_OF_PEAK = {("64x4", "fp32"): 0.7, ("128x6", "fp32"): 0.85, ("256x8", "fp32"): 0.85, ("256x8", "bf16"): 0.7}
WITHIN = 0.02  # of the float32 student's distance: then a coarse precision keeps the images
IMAGES_AT_ONCE = 250
KEYS = ("part", "shape", "run", "threads", "runtime", "precision", "samples")


class Result:
    """The rows so far and what they say, in one file that is written whole after each."""

    def __init__(self, out: Path, conditions: dict[str, object]) -> None:
        self.out, self.conditions = out, conditions
        before = read_json(out)
        same = isinstance(before, dict) and all(before.get(k) == v for k, v in conditions.items())
        self.rows: list[dict] = before["rows"] if same else []
        self.left_out: list[str] = before["left_out"] if same else []

    def has(self, **key: object) -> bool:
        return any(all(row.get(k) == key.get(k) for k in KEYS) for row in self.rows)

    def add(self, row: dict[str, object]) -> None:
        self.rows.append(row | {"commit": commit(), "load_avg": runner.HERE.load(), "made": now()})
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        self.write()

    def leave_out(self, why: str) -> None:
        if why not in self.left_out:
            self.left_out.append(why)
            print(why, flush=True)
            self.write()

    @contextlib.contextmanager
    def or_left_out(self, what: str) -> Iterator[None]:
        """What fails is left out with its reason: other rows are to come, and runtimes have errors of their own."""
        try:
            yield
        except Exception as error:
            said = next(iter(str(error).splitlines()), "")
            self.leave_out(f"{what}: {type(error).__name__}: {said}")

    def write(self) -> None:
        write_json(self.out, self.conditions | {"made": now(), "commit": commit(), "summary": summary(self.rows),
                                                "left_out": self.left_out, "rows": self.rows})  # fmt: skip


# --- what is timed ------------------------------------------------------------------------------


def diffusers_call(config: DiTConfig, batch: int) -> Callable[[], object]:
    """diffusers' own DiT of the same shape, as its users run it."""
    from diffusers import DiTTransformer2DModel

    net = DiTTransformer2DModel(
        num_attention_heads=config.heads, attention_head_dim=config.width // config.heads, in_channels=config.channels,
        out_channels=config.channels, num_layers=config.depth, sample_size=config.image_size, patch_size=config.patch,
        num_embeds_ada_norm=config.num_classes, norm_eps=1e-6,
    ).eval().requires_grad_(False)  # fmt: skip
    z, t = torch.randn(batch, config.channels, config.image_size, config.image_size), torch.zeros(batch).long()
    y = torch.arange(batch) % config.num_classes

    @torch.inference_mode()
    def call() -> object:
        return net(z, t, y).sample

    return call


def sessions(run: Run, threads: int, batch: int, result: Result, slow: dict[str, str]
             ) -> Iterator[tuple[str, str, Callable[[], Session]]]:  # fmt: skip
    """Runtime, precision and what opens it, built for the batch; a sentence for each that is not here."""
    for name, precisions in FORMS.items():
        runtime = runtimes.RUNTIMES[name]
        if why := runtime.missing():
            result.leave_out(why)
            continue
        for precision in precisions:
            if precision in slow:
                result.leave_out(slow[precision])
                continue

            def opened(runtime: runtimes.Runtime = runtime, precision: str = precision) -> Session:
                session = runtime.open(runtime.export(run, precision), threads=threads, precision=precision)
                with session:
                    session.build(session.place(*bench.fixed_inputs(session, batch)))
                return session

            yield name, precision, opened


def images_of(run: Run, session: Session, runtime: str, precision: str, batch: int) -> dict[str, object]:
    """How far the images that are timed are from the network's own, and whether that will do.

    Of a runtime with files on the 64 noises of a sheet, too, as its artefact says.
    """
    image, right = session(*bench.fixed_inputs(session, batch)), bench.reference(run, session, batch, "cpu", "")
    apart = np.abs(image - right)
    far, ok = [float(apart.max()), float(apart.mean())], bench.checks(image, right, precision)["output_ok"]
    if runtimes.get(runtime).exports:
        facts = artefacts.read(run.path / "export" / f"{runtime}-{precision}")
        far = [max(far[0], facts["max_abs"]), max(far[1], facts["mean_abs"])]
        largest, mean = bench.TOLERANCES[precision]
        ok = ok and far[0] <= largest and far[1] <= mean
    return {"images_right": ok, "max_abs": far[0], "mean_abs": far[1]}


@contextlib.contextmanager
def quiet() -> Iterator[dict[str, object]]:
    """Begins when the machine is quiet; afterwards `flags` says how much of it others used meanwhile."""
    state: dict[str, object] = {"began_quiet": runner.wait_until_quiet()}
    watch = runner.Watch(runner.HERE, runner.Before(runner.HERE.load(), runner.HERE.swap_mb()))
    with watch:
        yield state
    state["flags"] = watch.flags()


def compared(found: Comparison) -> dict[str, object]:
    return {"ratio": found.ratio, "ci95": list(found.ci95), "a_ms": found.a_ms, "b_ms": found.b_ms,
            "rounds": found.rounds}  # fmt: skip


# --- the parts ----------------------------------------------------------------------------------


def batch1(store: Store, result: Result, preset: Preset, shapes: list[str], threads: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        nets = Store(folder)
        for count in threads:
            slow = bench.slow_precisions(card(count))
            for shape in shapes:
                run, theirs = random_run(nets, SHAPES[shape]), diffusers_call(SHAPES[shape], 1)
                for name, precision, opened in sessions(run, count, 1, result, slow):
                    key = {"part": "batch1", "shape": shape, "threads": count, "runtime": name, "precision": precision}
                    if result.has(**key):
                        continue
                    with result.or_left_out(f"{name} {precision} of {shape}"):
                        session = opened()
                        call = bench.call_of(session, "core", 1)
                        with quiet() as state:
                            found = runner.compare(theirs, call, preset, around=(Threads(count), session))
                        result.add(key | compared(found) | state | images_of(run, session, name, precision, 1))


def plain(store: Store, result: Result, preset: Preset, shapes: list[str], threads: list[int]) -> None:
    try:
        graphs = {shape: plain_graph(SHAPES[shape]) for shape in shapes}
    except ImportError as error:
        result.leave_out(f"plain: torch's ONNX export needs {error.name}; python -m pip install {error.name}")
        return
    for count in threads:
        for shape, (name, opened) in itertools.product(shapes, ONNX_CALLS.items()):
            key = {"part": "plain", "shape": shape, "threads": count, "runtime": name, "precision": "fp32"}
            if not result.has(**key):
                with result.or_left_out(f"{name} of {shape}, plain"):
                    theirs, call = diffusers_call(SHAPES[shape], 1), opened(graphs[shape], 1, count)
                    with quiet() as state:
                        found = runner.compare(theirs, call, preset, around=(Threads(count), contextlib.nullcontext()))
                    result.add(key | compared(found) | state)


def plain_graph(config: DiTConfig) -> bytes:
    """torch's ONNX export of the network as it was trained, for batch 1."""
    z, y = (torch.from_numpy(value) for value in inputs(1).values())
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of the exporter about itself
        path = Path(folder) / "plain.onnx"
        torch.onnx.export(random_student(config), (z, None, y), path, dynamo=True, external_data=False, verbose=False,
                          input_names=[export.NOISE, export.CLASSES], output_names=[export.IMAGE])  # fmt: skip
        return path.read_bytes()


def batch16(store: Store, result: Result, preset: Preset, shapes: list[str], threads: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        nets = Store(folder)
        for count in threads:
            slow = bench.slow_precisions(card(count))
            with Threads(count):
                products = {p: bench.product(p, count) for p in {*PEAK_OF.values()} - {*slow}}
            for shape in shapes:
                run = random_run(nets, SHAPES[shape])
                for name, precision, opened in sessions(run, count, 16, result, slow):
                    product = products.get(PEAK_OF.get(precision, ""))
                    key = {"part": "batch16", "shape": shape, "threads": count, "runtime": name, "precision": precision}
                    if product is None or result.has(**key):
                        continue
                    with result.or_left_out(f"{name} {precision} of {shape}"):
                        session = opened()
                        call = bench.call_of(session, "core", 16)
                        with quiet() as state:
                            found = runner.compare(product.call, call, preset, around=(Threads(count), session))
                        flops = predict.work(SHAPES[shape], 16, precision).flops
                        shares = [r * flops / product.flops for r in (found.ratio, *found.ci95)]
                        result.add(key | {
                            "of_peak": shares[0], "of_peak_ci95": shares[1:], "ms": found.b_ms,
                            "gflops": flops / found.b_ms / 1e6, "peak_gflops": product.flops / found.a_ms / 1e6,
                            "peak_by": f"{product.by}, product of {product.side} cubed", "rounds": found.rounds,
                        } | state | images_of(run, session, name, precision, 16))  # fmt: skip


def fold(store: Store, result: Result, preset: Preset, shapes: list[str], threads: list[int]) -> None:
    for run in one_step(store):
        for count in threads:
            key = {"part": "fold", "shape": run.recipe.student.shape, "run": run.id, "threads": count,
                   "runtime": "eager", "precision": "fp32"}  # fmt: skip
            if result.has(**key):
                continue
            folded, whole = (runtimes.get("eager").open(run.path, threads=count) for _ in range(2))
            whole.net = deploy.OneStep(load_student(run)).requires_grad_(False)
            with quiet() as state:
                found = bench.compare(whole, folded, preset=preset)
            before = (run.path / "student.safetensors").stat().st_size
            after = len(deploy.file_bytes(folded.net))
            result.add(key | {"bytes_before": before, "bytes_after": after, "bytes_ratio": after / before}
                       | compared(found) | state)  # fmt: skip


def distance(store: Store, result: Result, preset: Preset, shapes: list[str], threads: list[int], samples: int | None
             ) -> None:  # fmt: skip
    count = max(threads)
    slow = bench.slow_precisions(card(count))
    for run in front(store):
        exact: dict[str, float] = {}
        for name, precision, _ in sessions(run, count, 1, result, slow):
            key = {"part": "distance", "shape": run.recipe.student.shape, "run": run.id, "threads": count,
                   "runtime": name, "precision": precision, "samples": samples or samples_of(run)}  # fmt: skip
            if precision == "fp32" or not runtimes.RUNTIMES[name].exports or result.has(**key):
                continue
            with result.or_left_out(f"{run.label} by {name} {precision}"):
                if name not in exact:
                    exact[name] = fd_of(run, store, name, "fp32", count, samples)
                fd = fd_of(run, store, name, precision, count, samples)
                ratio = fd / exact[name]
                result.add(key | {"fd": fd, "fd_fp32": exact[name], "ratio": ratio, "within": ratio <= 1 + WITHIN})


def samples_of(run: Run) -> int:
    return metrics.SAMPLES.get(run.recipe.data, metrics.DEFAULT_SAMPLES)


def fd_of(run: Run, store: Store, runtime: str, precision: str, threads: int, samples: int | None) -> float:
    """Frechet distance of the images that this runtime draws on the evaluation's seeds."""
    backend, recipe, spec = runtimes.get(runtime), run.recipe, spec_of_run(run)
    extractor = metrics.extractor_of(recipe.data)
    real, _ = metrics.real_features(recipe, store, extractor)
    seeds = range(diffusion.EVAL_SEED, diffusion.EVAL_SEED + (samples or samples_of(run)))
    chosen = metrics.labels(recipe, spec, seeds)
    session = backend.open(backend.export(run, precision), threads=threads, precision=precision)
    images = []
    for start in range(0, len(seeds), IMAGES_AT_ONCE):
        some = slice(start, start + IMAGES_AT_ONCE)
        z, y = diffusion.noise_of(seeds[some], spec.shape, spec.num_classes)
        y = y if chosen is None else chosen[some]
        told = y.numpy() if run.recipe.student.num_classes else None
        images.append(diffusion.to_uint8(torch.from_numpy(session(z.numpy(), told))))
    return metrics.fd(metrics.extract(torch.cat(images), extractor), real)


PARTS = {"distance": distance, "batch1": batch1, "plain": plain, "batch16": batch16, "fold": fold}


@functools.cache
def card(threads: int) -> predict.Card:
    """This machine's, measured now: one that lies in a folder is of another day."""
    return bench.card(threads)


# --- what the rows say --------------------------------------------------------------------------


def summary(rows: list[dict]) -> dict[str, list[dict]]:
    """For each shape and number of threads the fastest form, and each student's fold."""
    return {"batch1": list(_batch1(rows)), "batch16": list(_batch16(rows)), "fold": _fold(rows),
            "distance": _distance(rows)}  # fmt: skip


def _groups(rows: list[dict], part: str, *columns: str) -> Iterator[tuple[tuple, list[dict]]]:
    mine = [row for row in rows if row["part"] == part]
    for group in dict.fromkeys(tuple(row[c] for c in columns) for row in mine):
        yield group, [row for row in mine if tuple(row[c] for c in columns) == group]


def _batch1(rows: list[dict]) -> Iterator[dict]:
    kept = {form["form"] for form in _distance(rows) if form["within"] == form["students"]}
    for (shape, threads), mine in _groups(rows, "batch1", "shape", "threads"):
        right = [row for row in mine if row["images_right"]
                 and (row["precision"] == "fp32" or f"{row['runtime']} {row['precision']}" in kept)]  # fmt: skip
        exact = [row for row in right if row["precision"] == "fp32"]
        wrong = [f"{row['runtime']} {row['precision']}" for row in mine if not row["images_right"]]
        bare = [row for row in rows if row["part"] == "plain" and (row["shape"], row["threads"]) == (shape, threads)]
        yield {"shape": shape, "threads": threads, "fastest_fp32": _named(exact), "aim_fp32": AIMS.get(shape),
               "plain_fp32": _named(bare), "fastest_right": _named(right), "aim_right": AIM_COARSE,
               "wrong": wrong}  # fmt: skip


def _named(rows: list[dict]) -> dict | None:
    if not rows:
        return None
    best = max(rows, key=lambda row: row["ratio"])
    return {"form": f"{best['runtime']} {best['precision']}", "times_faster": best["ratio"], "ci95": best["ci95"],
            "ms": best["b_ms"], "diffusers_ms": best["a_ms"]}  # fmt: skip


def _batch16(rows: list[dict]) -> Iterator[dict]:
    coarse = [row | {"peak": PEAK_OF[row["precision"]]} for row in rows if row["part"] == "batch16"]
    for (shape, threads, peak), mine in _groups(coarse, "batch16", "shape", "threads", "peak"):
        right = [row for row in mine if row["images_right"]]
        best = max(right, key=lambda row: row["of_peak"], default=None)
        yield {"shape": shape, "threads": threads, "precision": peak, "aim": AIMS_OF_PEAK.get((shape, peak)),
               "best": best and {"form": f"{best['runtime']} {best['precision']}", "of_peak": best["of_peak"],
                                 "ci95": best["of_peak_ci95"], "ms": best["ms"]}}  # fmt: skip


def _fold(rows: list[dict]) -> list[dict]:
    return [{"run": row["run"], "threads": row["threads"], "bytes_before": row["bytes_before"],
             "bytes_after": row["bytes_after"], "ms_before": row["a_ms"], "ms_after": row["b_ms"],
             "times_faster": row["ratio"], "ci95": row["ci95"]} for row in rows if row["part"] == "fold"]  # fmt: skip


def _distance(rows: list[dict]) -> list[dict]:
    return [{"form": " ".join(form), "students": len(mine), "within": sum(row["within"] for row in mine),
             "worst_ratio": max(row["ratio"] for row in mine),
             "median_ratio": float(np.median([row["ratio"] for row in mine]))}
            for form, mine in _groups(rows, "distance", "runtime", "precision")]  # fmt: skip


# --- the command --------------------------------------------------------------------------------


def preset_of(seconds: float) -> Preset:
    """A comparison of so many seconds; below five of them for a look only."""
    brief = seconds < 5
    return Preset(iters=3 if brief else 100, seconds=seconds, warmup_iters=2 if brief else 50,
                  warmup_s=min(3.0, seconds), warmup_cap_s=max(1.0, min(60.0, 10 * seconds)))  # fmt: skip


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--results", help="results folder with the committed students")
    made.add_argument("--out", type=Path, default=Path("results/benchmarks/latency.json"))
    made.add_argument("--parts", default=",".join(PARTS))
    made.add_argument("--shapes", default=",".join(SHAPES))
    made.add_argument("--threads", default="1,2")
    made.add_argument("--seconds", type=float, default=20.0, help="of each comparison")
    made.add_argument("--samples", type=int, help="of distance (default: by the pinned protocol of the data)")
    args = made.parse_args()
    for kind, wanted, known in [("part", args.parts, PARTS), ("shape", args.shapes, SHAPES)]:
        if unknown := [name for name in wanted.split(",") if name not in known]:
            raise SystemExit(f"unknown {kind} {unknown[0]!r}; known: {', '.join(known)}")
    threads = [int(count) for count in args.threads.split(",")]
    result = Result(args.out, {"machine": machine(), "seconds": args.seconds})
    if (load := runner.HERE.load() or 0.0) > runner.MAX_LOAD_PER_CPU * runner.HERE.cpus:
        print(f"the load is {load:.2f}: ratios hold, milliseconds are a busy machine's", flush=True)
    for name in args.parts.split(","):
        more = {"samples": args.samples} if name == "distance" else {}
        PARTS[name](Store(args.results), result, preset_of(args.seconds), args.shapes.split(","), threads, **more)
    result.write()
    for shape in summary(result.rows)["batch1"]:
        fp32, right = shape["fastest_fp32"], shape["fastest_right"]
        for what, best, aim in [("float32", fp32, shape["aim_fp32"]), ("right images", right, shape["aim_right"])]:
            said = f"{best['form']}, {best['times_faster']:.2f} times as fast as diffusers" if best else "none"
            print(f"{shape['shape']}, {shape['threads']} threads, {what}: {said}; aim {aim or math.nan:g}")


if __name__ == "__main__":
    main()
