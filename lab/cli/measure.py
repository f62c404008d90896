"""Commands that measure runs: eval, sample, bench, verify."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cli.frame import (
    FAILED,
    MISSING,
    OK,
    Answer,
    Usage,
    as_usage,
    command,
    compute_of,
    count_of,
    dry_run_option,
    finished,
    get_run,
    list_of,
    machine_options,
    one_of,
    open_store,
    out_file,
    would,
)
from lab.cli.text import table_text
from lab.precisions import TOLERANCES

if TYPE_CHECKING:
    from lab.results import Run, Store
    from lab.sampling import Student


def add_eval(commands: Any) -> None:
    made = command(commands, eval_, "measure runs: distances from their kept weights, and neighbours of the images",
                    "eval d4w64h4p4", "eval d4w64h4p4 --samples 2000 --force --json",
                    "eval 12x40 12x64 --extractor fashion-mnist-vit", takes="[RUN ...]")  # fmt: skip
    made.add("runs", nargs="*", metavar="RUN", help="ids, starts of ids, labels or aliases; default: all finished runs")
    made.add("--samples", type=count_of(2), help="how many samples (default: by the pinned protocol of the data)")
    made.add("--seed", type=count_of(0), help="first noise seed (default: by the pinned protocol)")
    said = "distance, precision and recall by another net, such as fashion-mnist-vit, kept beside the first"
    made.add("--extractor", metavar="NAME", help=said)
    made.add(
        "--force", action="store_true", help="measure again, and write over what was measured under other conditions"
    )
    dry_run_option(made)
    machine_options(made)


def eval_(args: argparse.Namespace) -> Answer:
    from lab import metrics, neighbours

    store, compute = open_store(args), compute_of(args)
    chosen = {k: getattr(args, k) for k in ("samples", "seed") if getattr(args, k) is not None}
    value, rows = {}, []
    runs = finished(store, args.runs)
    with as_usage():  # before the long work
        by = {found.id: args.extractor and metrics.extractor_named(args.extractor, found.recipe.data) for found in runs}
        asked = {found.id: metrics.conditions(found, extractor=by[found.id], **chosen) for found in runs}
        there = {found.id: metrics.measured(found, asked[found.id], force=args.force) for found in runs}
    if args.dry_run:
        return would([{"run": found.label, **_asked(asked[found.id]), "would": "nothing, it is measured" if
                       there[found.id] else "measure it"} for found in runs])  # fmt: skip
    runs, left_out = _with_weights(runs)
    for found in runs:
        value[found.id] = metrics.evaluate(found, store, force=args.force, extractor=by[found.id],
                                           device=compute.torch_device(), **chosen)  # fmt: skip
        if not args.extractor:
            neighbours.ensure(found, store, force=args.force, device=compute.torch_device())
        rows += [
            {"run": found.label, "metric": name, "value": m["value"], "against": m.get("reference", "")}
            for name, m in value[found.id]["values"].items()
        ]
    return Answer(value, table_text(rows) + _agreement(runs, value) + left_out, FAILED if left_out else OK)


def _with_weights(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """The runs whose networks can be loaded, and a line that names the others; why is told at once.

    Raises what loading the last one raised where no network can be.
    """
    from lab.weights import load_student

    sound, broken, last = [], {}, None
    for found in runs:
        try:
            load_student(found)
            sound.append(found)
        except (LookupError, ValueError, OSError) as error:
            broken[found.label] = last = error
    if last and not sound:
        raise last
    for label, error in broken.items():
        print(f"{label} is left out: {error}", file=sys.stderr)
    return sound, f"\n\nleft out, for their networks can't be loaded: {', '.join(broken)}" if broken else ""


def _agreement(runs: Sequence[Run], value: Mapping[str, Any]) -> str:
    """Whether another extractor than the data's own ranks the runs as that does, where both have measured several."""
    both = [(first["values"]["fd"]["value"], second["values"]["fd"]["value"], first["extractor"], second["extractor"])
            for run in runs if isinstance(first := run.read("metrics"), dict) and (second := value[run.id])
            and "fd" in first["values"] and "fd" in second["values"]
            and all(first.get(name) == second[name] for name in ("weights_sha256", "samples", "seed"))]  # fmt: skip
    names = {row[2:] for row in both}
    if len(both) < 2 or len(names) != 1 or len(set(*names)) == 1:
        return ""
    pairs = list(itertools.combinations(both, 2))
    alike = sum((a[0] < b[0]) == (a[1] < b[1]) for a, b in pairs)
    first, second = both[0][2:]
    return f"\n\n{second} puts {alike} of {len(pairs)} pairs of these runs in the same order as {first}"


def _asked(conditions: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in conditions.items() if k in ("extractor", "samples", "seed")}


def add_sample(commands: Any) -> None:
    made = command(
        commands,
        sample,
        "draw images with a run's network as one PNG (or .npz)",
        "sample d4w64h4p4 --count 64 --out sheet.png",
        "sample fashion --seed 7 --count 8 --class 9 --json",
        takes="RUN",
    )
    made.add("run", metavar="RUN", help="an id, a start of one, a label or a teacher's alias")
    made.add("--count", type=count_of(1), default=64, help="how many images (default 64)")
    made.add("--seed", type=count_of(0), default=0, help="the first noise seed; image k has seed SEED + k (default 0)")
    made.add("--class", dest="label", metavar="CLASS", help="a class by number or name (default: all in turn)")
    made.add("--columns", type=count_of(1), default=8, help="images per row (default 8)")
    made.add("--out", default="samples.png", metavar="FILE", help="where to write, .png or .npz (default samples.png)")
    dry_run_option(made)
    machine_options(made)


def sample(args: argparse.Namespace) -> Answer:
    import io

    import numpy as np

    from lab import diffusion, sheets
    from lab.results import write_whole
    from lab.sampling import load

    out = out_file(args.out, ".png", ".npz")
    store, compute = open_store(args), compute_of(args)
    student = load(get_run(store, args.run).id, store, device=compute.torch_device())
    seeds = range(args.seed, args.seed + args.count)
    if seeds[-1] > diffusion.MAX_SEED:
        raise Usage(f"noise seeds go up to {diffusion.MAX_SEED}, and {args.count} images from {args.seed} on would "
                    f"need {seeds[-1]}")  # fmt: skip
    y = _classes(args, student, 1 if args.dry_run else args.count)
    if args.dry_run:
        return would([{"run": student.run.label, "images": args.count, "seeds": f"{seeds[0]} to {seeds[-1]}",
                       "would": f"write {'over ' * out.exists()}{out}"}])  # fmt: skip
    images = student.sample(seeds, y).numpy()
    if out.suffix == ".png":
        write_whole(out, sheets.png(images, args.columns))
    else:
        told, buffer = {} if y is None else {"classes": np.array(y)}, io.BytesIO()
        np.savez_compressed(buffer, images=images, seeds=np.array(seeds), **told)
        write_whole(out, buffer.getvalue())
    value = {"run": student.run.id, "file": str(out), "seeds": [seeds[0], seeds[-1]], "classes": y}
    return Answer(value, f"{args.count} images of {student.run.label} (noise seeds {seeds[0]} to {seeds[-1]}) in {out}")


def _classes(args: argparse.Namespace, student: Student, count: int) -> list[int] | None:
    """One class for all, or every class in turn; None for a network that is not told one."""
    from lab import data

    spec = student.spec
    if not student.net.config.num_classes:
        if args.label is not None:
            raise Usage(f"{student.run.label} is told no class (its num_classes is 0); leave --class out")
        return None
    if args.label is None:
        return [k % spec.num_classes for k in range(count)]
    with as_usage():
        names = spec.class_names or tuple(map(str, range(spec.num_classes)))
        return [data.class_number(args.label, names)] * count


def add_bench(commands: Any) -> None:
    made = command(commands, bench, "time runs on this machine and keep device reports",
                    "bench fashion d4w64h4p4 --batch 1,16,64 --runtime eager,compiled",
                    "bench --runtime onnxruntime,openvino --precision fp32,int8",
                    "bench --preset publishable --threads 2", takes="[RUN ...]")  # fmt: skip
    made.add("runs", nargs="*", metavar="RUN", help="default: all finished runs")
    made.add("--runtime", type=list_of(str), default=("eager",), help="comma separated (default eager)")
    made.add("--precision", type=list_of(str), default=("fp32",),
             help="fp32, bf16, int8, ..., comma separated; each runtime takes those it has (default fp32)")  # fmt: skip
    made.add("--batch", type=list_of(count_of(1)), default=(1,), help="comma separated (default 1)")
    made.add("--scope", type=list_of(one_of("core", "e2e")), default=("core",),
             help="core (the network alone), e2e (noise to image) or both, comma separated (default core)")  # fmt: skip
    made.add("--preset", choices=["quick", "publishable"], default="quick", help="default quick")
    made.add("--force", action="store_true", help="time again what has a report already")
    dry_run_option(made)
    made.add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="default: auto")
    made.add("--threads", type=list_of(count_of(1)), default=(None,),
             help="CPU threads, comma separated (default: as many as torch takes)")  # fmt: skip
    made.add("--ambient", type=celsius, metavar="C", help="the room's temperature in degrees Celsius, for the reports")


def celsius(text: str) -> float:
    from lab.devices.runner import AMBIENT_C

    with contextlib.suppress(ValueError):
        if AMBIENT_C[0] <= float(text) <= AMBIENT_C[1]:
            return float(text)
    raise argparse.ArgumentTypeError("must be degrees Celsius between {:g} and {:g}, got {!r}".format(*AMBIENT_C, text))


NOTHING_TO_TIME = "nothing to time: every one has a report under these conditions; --force times them again"


def bench(args: argparse.Namespace) -> Answer:
    from lab import bench as timing

    store, compute = open_store(args), compute_of(args)
    with as_usage():
        timing.forms_of(args.runtime, args.precision)
    chosen = dict(
        runtimes=args.runtime, precisions=args.precision, batches=args.batch, scopes=args.scope, threads=args.threads,
        preset=args.preset, device=str(compute.torch_device()), force=args.force,
    )  # fmt: skip
    if args.dry_run:
        rows = [{**vars(t), "run": t.run.label, "would": "time it"}
                for t in timing.plan(finished(store, args.runs), store, **chosen)]  # fmt: skip
        return would(rows) if rows else Answer([], NOTHING_TO_TIME)
    asked = {t.run.id: t.run for t in timing.plan(finished(store, args.runs), store, **chosen)}
    runs, left_out = _with_weights([*asked.values()])
    made = timing.sweep(runs, store, **chosen, ambient=args.ambient) if runs else []
    text = table_text([_timing(report, store) for report in made]) if made else NOTHING_TO_TIME
    return Answer(made, text + left_out, FAILED if left_out else OK)


def _timing(report: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """A device report as one line."""
    from lab.devices.report import grade

    timing, work = report["timing"], report["workload"]
    return {
        "run": store.get(report["model"]["model_id"]).label, "runtime": report["software"]["runtime"],
        "precision": report["model"]["precision"], "batch": work["batch"], "threads": report["state"]["threads"],
        "scope": work["scope"], "p50 ms": timing["p50"], "p90 ms": timing["p90"], "p99 ms": timing["p99"],
        "first ms": timing["first_ms"], "grade": str(grade(report)),
    }  # fmt: skip


def add_export(commands: Any) -> None:
    made = command(commands, export, "make the files that a runtime reads, and say how far their images are off",
                    "export d4w64h4p4 --runtime onnxruntime --precision fp32,int8",
                    "export d4w64h4p4 --runtime openvino --precision int8 --json",
                    "export d4w64h4p4 --runtime torch-export", takes="RUN")  # fmt: skip
    made.add("run", metavar="RUN", help="an id, a start of one or a label; a denoiser's file holds its whole sampler, "
             "and takes minutes to make")  # fmt: skip
    made.add("--runtime", type=list_of(str), default=("onnxruntime",),
             help="onnxruntime, openvino, packed, or torch-export (a .pt2 to hand on), comma separated "
                  "(default onnxruntime)")  # fmt: skip
    made.add("--precision", type=list_of(str), default=("fp32",),
             help=f"{', '.join(TOLERANCES)}, comma separated; "
                  "each runtime takes those it has (default fp32)")  # fmt: skip
    made.add("--force", action="store_true", help="make again what is there for these weights")
    dry_run_option(made)


def export(args: argparse.Namespace) -> Answer:
    from lab import artefacts, bench, program, runtimes
    from lab.config import unknown
    from lab.runtimes.base import why_not

    def maker(name: str) -> Any:
        return program.TARGET if name == program.NAME else runtimes.get(name)

    store = open_store(args)
    found = get_run(store, args.run)
    known = [*(name for name, one in runtimes.RUNTIMES.items() if one.exports), program.NAME]
    with as_usage():
        if strange := [name for name in args.runtime if name not in (*runtimes.RUNTIMES, program.NAME)]:
            raise Usage(unknown("runtime", strange[0], known))
        timed = [name for name in args.runtime if name != program.NAME]
        forms = bench.forms_of(timed, args.precision) if timed else []
        if len(timed) < len(args.runtime):
            if program.PRECISIONS[0] not in args.precision:
                raise Usage(f"{program.NAME} has none of the precisions {', '.join(args.precision)}; it has fp32")
            forms.append((program.NAME, program.PRECISIONS[0]))
        for name in args.runtime:
            if not maker(name).exports:
                raise Usage(f"runtime {name} runs the run's own weights: there is nothing to export")
        for name, precision in forms:
            if why := why_not(maker(name), found, precision):
                raise Usage(f"{found.label}: {why}")
    if args.dry_run:
        return would([
            {"runtime": name, "precision": precision, "folder": str(artefacts.folder_of(found, name, precision)),
             "would": "nothing, it is there" if not args.force and artefacts.fresh(found, name, precision)
             else "make it"} for name, precision in forms
        ])  # fmt: skip
    made = [maker(name).export(found, precision, force=args.force, solver=found.recipe.drawn_by)
            for name, precision in forms]  # fmt: skip
    value = [{"folder": str(path), **artefacts.read(path)} for path in made]
    return Answer(value, table_text([_artefact(facts) for facts in value]))


def _artefact(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What an export made, as one line."""
    return {
        "runtime": facts["runtime"], "precision": facts["precision"], "bytes": facts["bytes"],
        "largest": facts["max_abs"], "mean": facts["mean_abs"], "perceptual": facts["perceptual"],
        "opset": ", ".join(f"{name} {version}" for name, version in facts.get("opset", {}).items()),
        "seconds": facts["seconds"], "folder": facts["folder"],
    }  # fmt: skip


def add_verify(commands: Any) -> None:
    made = command(commands, verify, "recompute what is stored: weights' hashes, distances, pairs' checksums",
                    "verify", "verify d4w64h4p4 --json", "verify --quick", takes="[RUN ...]")  # fmt: skip
    made.add("runs", nargs="*", metavar="RUN", help="default: all finished runs, and all pairs on disk")
    made.add("--quick", action="store_true", help="hashes and checksums only, no distances")
    machine_options(made)


def verify(args: argparse.Namespace) -> Answer:
    store = open_store(args)
    device = str(compute_of(args).torch_device())
    rows = [row for found in finished(store, args.runs)
            for row in _verify_run(found, store, quick=args.quick, device=device)]  # fmt: skip
    if not args.runs:
        made = sorted((store.root / "pairs").glob("*/pairs.json"))
        rows += [row for facts in made for row in _verify_pairs(facts, store, quick=args.quick)]
        rows += [
            _check(name, "file", None, None, "not made", note=wrong)
            for name, wrong in store.faults().items()
            if not name.startswith("pairs/")
        ]  # which are told above
    states = Counter(row["state"] for row in rows)
    held = "all" if states["holds"] == len(rows) else f"{states['holds']} of"
    said = [f"{held} {len(rows)} checks hold"]
    said += [f"{states[name]} {words}" for name, words in SAID.items() if states[name]]
    code = FAILED if states["differs"] else MISSING if states["not made"] else OK
    return Answer(rows, f"{table_text(rows)}\n\n{', '.join(said)}", code)


# What a check may come to besides `holds`, in words.
SAID = {"differs": "differ", "not made": "could not be made", "notice": "to know"}


def _verify_run(found: Run, store: Store, *, quick: bool, device: str) -> list[dict[str, Any]]:
    """The run's weights against their hash, and its distances recomputed from them."""
    from lab.weights import sha256

    facts, path = found.read("student"), found.path / "student.safetensors"
    if not isinstance(facts, dict):
        raise LookupError(f"run {found.id} has no finished network; its state is {found.status().state!r}")
    if not path.exists():
        return [_check(found.label, "weights", facts["weights_sha256"][:8], None, "not made",
                       note=f"{path.name} is not in {found.path}")]  # fmt: skip
    digest = sha256(path)
    same = digest == facts["weights_sha256"]
    rows = [_check(found.label, "weights", facts["weights_sha256"][:8], digest[:8], same)]
    if quick or not same:
        return rows
    if not isinstance(found.read("metrics"), dict):
        return [*rows, _check(found.label, "fd", None, None, None, note="not measured; `python -m lab eval` does")]
    kept = sorted(path.stem for path in found.path.glob("metrics*.json"))
    return rows + [_verify_distance(found, store, name, device=device) for name in kept]


def _verify_distance(found: Run, store: Store, kept: str, *, device: str) -> dict[str, Any]:
    """One line: a stored distance beside the one that the weights give now."""
    from lab import metrics

    check = "fd" + kept.removeprefix("metrics").replace("-", " by ", 1)
    try:
        checked = metrics.verify(found, store, kept=kept, device=device)
    except ValueError as error:  # the stored figure belongs to other weights or another extractor
        return _check(found.label, check, found.read(kept)["values"]["fd"]["value"], None, False, note=str(error))
    except (KeyError, IndexError):  # LookupErrors too, but faults of ours
        raise
    except LookupError as error:  # real images or an extractor's weights are not here
        return _check(found.label, check, None, None, "not made", note=str(error))
    note = f"{100 * checked.difference:.2g} % apart, allowed {100 * metrics.TOLERANCE:g} %"
    return _check(found.label, check, checked.stored, checked.recomputed, checked.ok, note=note)


def _verify_pairs(facts: Path, store: Store, *, quick: bool) -> list[dict[str, Any]]:
    """The shards on disk against their checksums; where one differs, its labels and some of its images by value.

    Without `quick` the teacher makes the first pairs again, too, shards or not: they have to be the reference's.
    """
    from lab import pairs, teachers
    from lab.config import TeacherName

    try:
        what = pairs.recorded_set(facts)
    except ValueError as error:
        return [_check(facts.parent.name, "pairs.json", None, None, False, note=str(error))]
    made, rows = pairs.Pairs(store.root, what), []
    shards = sorted(made.path.glob("*.npz"))
    differing = pairs.verify_checksums(made)
    again = not quick and made.reference.exists() and TeacherName.parse(what.teacher).is_run
    teacher = None
    if differing or again:
        try:
            teacher = teachers.load(what.teacher, store, solver=what.solver, dtype=what.dtype, thousands=True)
        except (LookupError, ValueError) as error:  # a function of another process, a pipeline that is gone
            rows.append(_check(what.id, "teacher", None, None, "not made", note=str(error)))
    if shards:
        # Other arithmetic may differ in the last place; that of which a shard says that it was made with may not.
        here = teacher and pairs.environment("cpu", teacher)
        recorded = made.facts["shards"]
        same = [name for name in differing if here and recorded.get(name[:4], {}).get("environment") == here]
        note = f"made here as recorded: {', '.join(name[:4] for name in same)}" if same else ""
        held = not differing or (False if same else None)
        rows.append(_check(what.id, "checksums", len(shards), len(shards) - len(differing), held, note=note))
    if teacher is None:
        return rows
    from tqdm.auto import tqdm

    note = f"largest difference of {pairs.BATCH} pairs, allowed {pairs.TOLERANCE} of 255"
    for name in tqdm(
        differing, desc=f"{pairs.BATCH} pairs of each shard made again", unit="shards", disable=not differing
    ):
        index = int(name[:4])
        try:
            gap, wrong = pairs.check_shard(made, teacher, index)
        except ValueError as error:
            rows.append(_check(what.id, f"shard {index:04d}", 0, None, False, note=str(error)))
            continue
        rows.append(_check(what.id, f"shard {index:04d}", 0, gap, gap <= pairs.TOLERANCE, note=note))
        rows.append(_check(what.id, f"labels {index:04d}", 0, wrong, not wrong, note="labels that no seed drew"))
    if again:
        try:
            gap = pairs.gap_to_reference(made, teacher)
        except ValueError as error:
            return [*rows, _check(what.id, "pairs made again", 0, None, False, note=str(error))]
        note = f"largest difference of {pairs.REFERENCE} pairs, allowed {pairs.TOLERANCE} of 255"
        rows.append(_check(what.id, "pairs made again", 0, gap, gap <= pairs.TOLERANCE, note=note))
    return rows


def _check(name: str, check: str, stored: Any, found: Any, ok: bool | str | None, *, note: str = "") -> dict[str, Any]:
    """One line; `ok` None is a notice, a word is the state itself."""
    state = {True: "holds", False: "differs", None: "notice"}.get(ok, ok)
    return {"name": name, "check": check, "stored": stored, "found": found, "state": state, "note": note}
