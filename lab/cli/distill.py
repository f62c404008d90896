"""Commands that make runs: pairs, run."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cli.frame import (
    MISSING,
    Answer,
    Parser,
    Usage,
    as_usage,
    command,
    compute_of,
    count_of,
    dry_run_option,
    get_run,
    list_of,
    machine_options,
    open_store,
    would,
)
from lab.cli.text import RUN_COLUMNS, record_text, some

if TYPE_CHECKING:
    from lab.config import Recipe
    from lab.plan import Job
    from lab.results import Store


def add_pairs(commands: Any) -> None:
    made = command(
        commands,
        pairs,
        "make a teacher's noise-image pairs; goes on where it was stopped",
        "pairs fashion --count 100000",
        "pairs fashion --count 4096 --solver heun-18",
        takes="TEACHER --count N",
    )
    made.add("teacher", metavar="TEACHER", help="an alias of teachers.json, a run, or pipeline:<folder or hub id>")
    made.add("--count", type=count_of(1), required=True, help="at least so many; whole shards are made")
    made.add("--solver", default="dpmpp2m-8", help="name-steps: dpmpp2m-8 (default), heun-18, ...")
    made.add("--keep", type=count_of(0), default=0, help="estimates kept along each path (default 0)")
    dry_run_option(made)
    machine_options(made)


def pairs(args: argparse.Namespace) -> Answer:
    from lab import pairs as pair_sets
    from lab.config import TeacherName

    store, compute = open_store(args), compute_of(args)
    if TeacherName.parse(args.teacher).is_run:
        get_run(store, args.teacher)
    with as_usage():
        what = pair_sets.pair_set(store, args.teacher, args.solver, keep=args.keep)
        missing = len(pair_sets.Pairs(store.root, what).missing(args.count))
    if args.dry_run:
        todo = f"make {missing} shard{'s' * (missing > 1)} of {pair_sets.SHARD} pairs" if missing else "nothing"
        return would([{"id": what.id, "pairs": args.count, "would": todo,
                       "folder": str(pair_sets.Pairs(store.root, what).path)}])  # fmt: skip
    try:
        made = pair_sets.ensure(store, what, args.count, device=compute.torch_device())
    except KeyboardInterrupt:
        raise RuntimeError(f"stopped; finished shards are kept in {store.root / 'pairs' / what.id} and the same "
                           "command goes on with the next one") from None  # fmt: skip
    shards = sorted(made.path.glob("*.npz"))
    value = {"id": what.id, "folder": str(made.path), "pairs": len(shards) * pair_sets.SHARD, "made_now": missing,
             "mb": round(sum(s.stat().st_size for s in shards) / 1e6, 1)}  # fmt: skip
    return Answer(value, f"{value['pairs']} pairs ({value['mb']} MB, {missing} shards made now) in {made.path}")


# Options of `run` that are fields of a Recipe, with how to read them; the same for its student.
RECIPE_OPTIONS: dict[str, Callable[[str], Any]] = {
    "data": str, "teacher": str, "pairs": count_of(0), "solver": str, "sampler": str, "steps": count_of(0),
    "batch": count_of(1), "optimizer": str, "lr": float, "betas": list_of(float), "warmup": count_of(0),
    "schedule": str, "clip": float, "ema": float, "dtype": str, "classes": list_of(str),
    "start": list_of(str, or_none=True), "guide": str, "keep": list_of(int, or_none=True), "seed": int,
}  # fmt: skip
STUDENT_OPTIONS: dict[str, Callable[[str], Any]] = {  # those that a network of its family has
    "depth": count_of(0), "width": count_of(0), "heads": count_of(0), "patch": count_of(0), "mlp_hidden": count_of(0),
    "head_dim": count_of(0), "block": str, "iterations": count_of(0), "tied": count_of(0),
}  # fmt: skip
RECIPE_HELP = {
    "data": "digits, fashion-mnist, cifar10 or folder:<path>; default: those of the run that teaches",
    "teacher": "an alias of teachers.json, a run, or pipeline:<folder or hub id>",
    "pairs": "how many of the teacher's pairs to learn from",
    "solver": "how the pairs are made: name-steps, such as heun-18",
    "sampler": "how a denoising student draws, such as ddim-4; default: as the pairs are made",
    "steps": "updates; 0 = build and measure only",
    "batch": "images per update",
    "optimizer": "muon or adamw",
    "lr": "learning rate (default 0.012 where Muon trains a DiT, 0.006 for GET, else 0.001)",
    "betas": "of AdamW, comma separated",
    "warmup": "updates over which the rate rises",
    "schedule": "linear (to zero over the second half), constant or cosine",
    "clip": "largest gradient norm; 0 = no clipping",
    "ema": "decay of the averaged weights",
    "dtype": "float32 or bfloat16",
    "classes": "train on these classes only, by name or number, comma separated",
    "start": "runs whose weights this one begins with, comma separated",
    "guide": "a run whose network is asked beside the student (teaching_assistant and others)",
    "keep": "images seen at which a checkpoint is kept, comma separated",
    "seed": "of weights, batches and noise",
}
STUDENT_HELP = {
    "depth": "blocks", "width": "of a token", "heads": "of attention", "patch": "side of a token in pixels",
    "mlp_hidden": "hidden width of the MLP; default 4 x width", "head_dim": "width of a head; default width / heads",
    "block": "kind of a DiT's blocks: adaln (default), time, ...",
    "iterations": "of GET's tied blocks (default 6); 0 = a plain ViT", "tied": "how many blocks those are (default 3)",
}  # fmt: skip


def add_run(commands: Any) -> None:
    made = command(
        commands, run, "do one recipe to its end; goes on if it was stopped, does nothing if it is done",
        "run recipes/fashion-teacher.json --name-teacher fashion",
        "run --teacher fashion --pairs 100000 --depth 4 --width 64 --steps 12500",
        "run --teacher fashion --pairs 4096 --option pairs.l1=0.5 --option pairs.l2=1 --dry-run",
        "run --data digits --method denoise --unet 16,32 --steps 500 --name-teacher digits-teacher",
        takes="[RECIPE]",
    )  # fmt: skip
    made.add(
        "recipe", nargs="?", metavar="RECIPE", help="a recipe file or the name of a run; options change its fields"
    )
    made.add("--dry-run", action="store_true", help="print the recipe, its id, its cost and what would be done")
    made.add("--name-teacher", metavar="ALIAS", help="afterwards enter the run in teachers.json under this alias")
    made.add("--no-measure", action="store_true", help="leave the distances to `python -m lab eval`")
    made.add("--compile", action=argparse.BooleanOptionalAction, help="torch.compile (default: where it pays)")
    machine_options(made)
    _recipe_options(made)


def _recipe_options(made: Parser) -> None:
    from lab.config import DiTConfig, Recipe

    fields = made.add_argument_group("fields of the recipe")
    for name, kind in RECIPE_OPTIONS.items():
        default = getattr(Recipe, name)
        said = f" (default {default})" if isinstance(default, (int, float, str)) and default and name != "data" else ""
        fields.add_argument(f"--{name}", type=kind, metavar="X", help=RECIPE_HELP[name] + said)
    fields.add_argument("--method", type=list_of(str), metavar="NAMES", help="comma separated (default pairs)")
    fields.add_argument("--option", action="append", default=[], metavar="METHOD.NAME=X", help="an option of a method")
    student = made.add_argument_group("the student")
    student.add_argument("--family", choices=("dit", "get"), help="dit (default), or get: GET's student, a plain ViT")
    for name, kind in STUDENT_OPTIONS.items():
        default = getattr(DiTConfig, name, None)
        said = f" (default {default})" if isinstance(default, int) else ""
        flag = "mlp" if name == "mlp_hidden" else name.replace("_", "-")
        student.add_argument(f"--{flag}", dest=name, type=kind, metavar="KIND" if kind is str else "N",
                             help=STUDENT_HELP[name] + said)  # fmt: skip
    student.add_argument("--unet", type=list_of(int), metavar="WIDTHS", help="a U-Net of these widths (teachers)")
    student.add_argument("--time", action="store_true", help="a DiT that takes a noise level (a denoiser)")
    student.add_argument("--size", type=count_of(1), metavar="N", help="image side for folder: data (default 32)")


def run(args: argparse.Namespace) -> Answer:
    from lab import experiment, jobs
    from lab.train import Stopped

    store, compute = open_store(args, new=True), compute_of(args, args.compile)
    with as_usage():
        planned = experiment.plan(recipe_of(args, store), store)
        if args.name_teacher:
            store.check_alias(args.name_teacher, planned[-1].recipe.id)
    if args.dry_run:
        return _planned(planned, store)
    try:
        for job in planned:
            store.open(job.recipe)  # so that the last of them can be told to go on, wherever it was stopped
        for job in planned:
            done = experiment.run_job(job, store, compute=compute, measure=not args.no_measure)
    except (Stopped, KeyboardInterrupt):
        stopped, last = store.open(job.recipe), store.open(planned[-1].recipe)
        raise RuntimeError(f"stopped at step {stopped.status().step} of {job.recipe.steps}; go on with: "
                           f"{' '.join([jobs.command(last), *_besides(args)])}") from None  # fmt: skip
    if args.name_teacher:
        with as_usage():
            store.name_teacher(args.name_teacher, done.id)
    table = store.table()
    row = table[table["run"] == done.id].to_dict("records")[0]
    named = f"\nteacher {args.name_teacher!r} is now this run" if args.name_teacher else ""
    text = record_text(some(row, RUN_COLUMNS)) + f"\nfolder: {done.path}{named}"
    if (error := done.status().error) and not args.no_measure:
        return Answer(row, f"{text}\n{error}\n`python -m lab eval {done.id}` measures it once that is here", MISSING)
    return Answer(row, text)


def _besides(args: argparse.Namespace) -> list[str]:
    """The options that were given and are no part of the recipe, as they are typed."""
    given = ["--no-measure"] * args.no_measure
    if args.compile is not None:
        given.append("--compile" if args.compile else "--no-compile")
    for name in ("name_teacher", "device", "threads"):
        if (value := getattr(args, name)) not in (None, "auto", 0):
            given += [f"--{name.replace('_', '-')}", shlex.quote(str(value))]
    return given


def recipe_of(args: argparse.Namespace, store: Store) -> Recipe:
    """The recipe that the arguments describe.

    Raises Usage or ValueError for what can't be meant, LookupError for data that are not here.
    """
    from lab.config import Recipe, Use

    if args.recipe:
        for option, value in [("--family", args.family), ("--unet", args.unet), ("--time", args.time),
                              ("--size", args.size)]:  # fmt: skip
            if value:
                raise Usage(f"{option} belongs to a recipe that is made here, {args.recipe} is one already; "
                            "change its student there")  # fmt: skip
    recipe = _recipe_file(args.recipe, store) if args.recipe else _recipe_for_data(args, store)
    changes = {k: getattr(args, k) for k in RECIPE_OPTIONS if getattr(args, k) is not None}
    shape = {k: getattr(args, k) for k in STUDENT_OPTIONS if getattr(args, k) is not None}
    if foreign := [k for k in shape if not hasattr(recipe.student, k)]:
        raise Usage(f"--{foreign[0].removesuffix('_hidden').replace('_', '-')} is nothing that the student of this "
                    f"recipe has, a network of family {recipe.student.family}")  # fmt: skip
    classes = changes.pop("classes", None)
    recipe = recipe.with_(**changes, **{f"student__{k}": v for k, v in shape.items()})
    if classes is not None:
        recipe = recipe.with_(classes=_class_numbers(classes, recipe, store))
    options = _method_options(args.option)
    uses = [Use(name) for name in args.method] if args.method else list(recipe.methods)
    if stray := set(options) - {use.method for use in uses}:
        raise Usage(f"--option names method {min(stray)!r}, the recipe uses {', '.join(u.method for u in uses)}")
    uses = [Use(use.method, {**use.options, **options.get(use.method, {})}) for use in uses]
    made = Recipe(**{**vars(recipe), "methods": tuple(uses)})
    return made.in_kind()  # options are held to the same kinds as a file's fields


def _class_numbers(labels: Sequence[str], recipe: Recipe, store: Store) -> tuple[int, ...]:
    """The classes that are meant, as the network that teaches numbers them, or the data."""
    from lab import data, weights
    from lab.config import TeacherName

    names = ()
    if recipe.teacher and TeacherName.parse(recipe.teacher).is_run:
        names = weights.spec_of_run(get_run(store, recipe.teacher)).class_names
    names = names or data.class_names(recipe.data) or tuple(map(str, range(recipe.student.num_classes)))
    return tuple(data.class_number(label, names) for label in labels)


def _recipe_file(name: str, store: Store) -> Recipe:
    from lab.config import Recipe

    path = Path(name)
    if path.is_dir():
        path = path / "recipe.json"
    if path.is_file():
        return Recipe.read(path)
    if path.suffix == ".json":
        raise Usage(f"there is no recipe file {name!r}")
    return get_run(store, name).recipe


def _recipe_for_data(args: argparse.Namespace, store: Store) -> Recipe:
    """The default recipe with a student that fits the teacher's images and classes, or the data's."""
    from lab import data, weights
    from lab.config import DiTConfig, GETConfig, Recipe, TeacherName, UNetConfig

    if args.teacher and args.size:
        raise Usage(f"--size is for folder: data that nobody teaches; {args.teacher} decides it for its students")
    classes, told = None, True
    if args.teacher and TeacherName.parse(args.teacher).is_run:
        teacher = get_run(store, args.teacher)
        spec, name = weights.spec_of_run(teacher), args.data or teacher.recipe.data
        classes, told = teacher.recipe.classes, teacher.recipe.student.num_classes > 0
    elif args.teacher:
        from lab import teachers

        if not args.data:
            raise Usage(f"{args.teacher} does not say which images it was trained on; name with --data what its "
                        f"students are measured against: {', '.join([*data.DATASETS, 'folder:<path>'])}")  # fmt: skip
        spec, name = teachers.load(args.teacher, store).spec, args.data
    else:
        name = args.data or "digits"
        if args.dry_run and (fault := data.fault(name)):
            raise data.MissingData(f"{name} is {fault[0]}; {fault[1]} brings it, --dry-run fetches nothing")
        spec = data.spec_of(name, data.load(name, "train", size=args.size))
    image = {"image_size": spec.size, "channels": spec.channels, "num_classes": spec.num_classes * told}
    if sum(map(bool, (args.unet, args.time, args.family == "get"))) > 1:
        raise Usage("--unet, --time and --family get are three kinds of network; give one of them")
    if args.unet:
        student = UNetConfig(**image, widths=args.unet, attention=(len(args.unet) - 1,))
    else:
        student = GETConfig(**image) if args.family == "get" else DiTConfig(**image, time=args.time)
    return Recipe(data=name, classes=classes, student=student)


def _method_options(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`pairs.l1=0.5` as {"pairs": {"l1": 0.5}}; a value is read as JSON where it is JSON."""
    options: dict[str, dict[str, Any]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        method, dot, option = name.partition(".")
        if not (equals and dot and method and option):
            raise Usage(f"--option must be METHOD.NAME=VALUE, such as pairs.l1=0.5; got {text!r}")
        try:
            read = json.loads(value)
        except json.JSONDecodeError:
            read = value
        options.setdefault(method, {})[option] = read
    return options


def _planned(planned: Sequence[Job], store: Store) -> Answer:
    """What `run` would do, without doing it."""
    from lab import cost, pairs
    from lab.results import Run

    value, texts = [], []
    for recipe in (job.recipe for job in planned):
        state = Run(store.root / "runs" / recipe.id).status().state
        what, missing = None, 0
        if recipe.pairs and recipe.teacher and not _made_before(recipe, planned):
            what = pairs.pair_set(store, recipe.teacher, recipe.solver)
            with as_usage():
                missing = len(pairs.Pairs(store.root, what).missing(recipe.pairs))
        entry = {
            "id": recipe.id,
            "state": state,
            "recipe": json.loads(recipe.to_json()),
            "images": recipe.images,
            "cost": cost.of_config(recipe.student),
            "pairs": what and what.id,
            "shards_to_make": missing,
        }
        value.append(entry)
        would = {**entry["cost"], "would do": _todo(recipe, state, missing)}
        texts.append(record_text({"id": recipe.id, "state": state, **would}) + "\n" + recipe.to_json())
    return Answer(value if len(value) > 1 else value[0], "\n\n".join(texts))


def _made_before(recipe: Recipe, planned: Sequence[Job]) -> bool:
    """Whether the teacher is an earlier stage, so that nothing can be said of its pairs yet."""
    return recipe.teacher in {f"run:{job.recipe.id}" for job in planned}


def _todo(recipe: Recipe, state: str, missing: int) -> str:
    """What is left of a run, in words."""
    if state == "done":
        return "nothing, it is finished"
    if state == "running":
        return "nothing, another process works on it"
    shards = f"; {missing} shard{'s' * (missing > 1)} of pairs first" if missing else ""
    return f"{recipe.steps} updates, {recipe.images:,} images{shards}"
