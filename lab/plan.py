"""Before any work: what is wrong with a recipe, and the jobs that it asks for."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from lab import data, diffusion, guides, teachers
from lab.config import NetConfig, Recipe, TeacherName, Use, check_fields, config_to_json
from lab.data import ImageSpec
from lab.methods import METHODS, Method, create, options_of
from lab.places import if_there
from lab.results import Store
from lab.weights import spec_of_run

SHAPES = {"digits": (1, 8, 10), "fashion-mnist": (1, 28, 10), "cifar10": (3, 32, 10)}  # channels, side, classes
STAGE = "stage:"  # before the number of an earlier recipe of a plan
PAIRS = frozenset({"pairs", "path"})  # the needs that a teacher's pairs meet
GUIDE = frozenset({"guide", "denoiser"})  # a guide that the loop asks, and one that the method asks itself


@dataclass(frozen=True)
class Job:
    """A resolved recipe with its methods, and its images as far as they are known without reading any."""

    recipe: Recipe
    methods: list[Method]
    spec: ImageSpec | None

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(m.needs for m in self.methods))


def check(recipe: Recipe, store: Store) -> list[str]:
    """Everything that is wrong with a recipe, as sentences; empty if it can run."""
    return _Planner(store).check(recipe)


def resolve(recipe: Recipe, store: Store) -> Recipe:
    """The recipe with its rate and every method option written out, and all runs and data by their lasting names.

    Raises ValueError listing everything that is wrong.
    """
    return _Planner(store).job(recipe).recipe


def plan(recipe: Recipe, store: Store) -> list[Job]:
    """The jobs that a recipe asks for, in order; a later one may build on an earlier one, which need not have run.

    Raises ValueError listing everything that is wrong with the first of them that can't run.
    """
    return _Planner(store).plan(recipe)


class _Planner:
    """The store as it will be: what an earlier stage makes is there by its recipe."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ahead: dict[str, Recipe] = {}  # id -> the resolved recipe of an earlier stage

    def plan(self, recipe: Recipe) -> list[Job]:
        stages = self._stages(recipe)
        if stages is None:
            earlier = [job for name in (recipe.guide, *recipe.start) if name for job in self._begun(name)]
            return [*earlier, self._keep(self.job(recipe))]
        jobs: list[Job] = []
        made: list[str] = []  # the id that each stage ends with
        for stage in stages:
            jobs += self.plan(_named(stage, made))
            made.append(jobs[-1].recipe.id)
        return jobs

    def _stages(self, recipe: Recipe) -> list[Recipe] | None:
        """What a method of the recipe makes of it; None where the recipe itself is what is to be run."""
        if not (planner := self._planning(recipe)):
            return None
        if wrong := self.check(recipe, planned=True):
            raise ValueError("\n".join(wrong))
        stages = planner.plan(recipe)
        return None if stages == [recipe] else stages

    def _begun(self, name: str) -> list[Job]:
        """The jobs of a run that another one builds on, where it was begun and has not ended: they come first."""
        try:
            run = self.store.get(name)
            begun = run.id not in self.ahead and self._unfinished(name) not in (None, "running")
        except (LookupError, ValueError):  # said where the recipe is checked
            return []
        return self.plan(run.recipe) if begun else []

    def _planning(self, recipe: Recipe) -> Method | None:
        for use in recipe.methods:
            if (kind := METHODS.get(use.method)) and kind.plan is not Method.plan:
                return create(use)
        return None

    def _keep(self, job: Job) -> Job:
        self.ahead[job.recipe.id] = job.recipe
        return job

    def job(self, recipe: Recipe) -> Job:
        recipe = recipe.in_kind()  # clip=0 and clip=0.0 have to be one run
        if wrong := self.check(recipe):
            raise ValueError("\n".join(wrong))
        methods = [create(use) for use in recipe.methods]
        resolved = dataclasses.replace(
            recipe, data=data.lasting(recipe.data), methods=tuple(Use(m.name, options_of(m)) for m in methods),
            teacher=self._lasting(recipe.teacher), guide=self._id(recipe.guide) if recipe.guide else None,
            start=tuple(map(self._id, recipe.start)), lr=recipe.default_lr if recipe.lr is None else recipe.lr,
        )  # fmt: skip
        needs = set().union(*(m.needs for m in methods))
        return Job(resolved, methods, self.spec(resolved, needs))

    # --- names ---

    def _id(self, name: str) -> str:
        """A run's id; the new run itself may fit the name that was given."""
        plain = name.removeprefix("run:")
        return plain if plain in self.ahead else self.store.get(name).id

    def _lasting(self, teacher: str | None) -> str | None:
        if teacher is None or (name := TeacherName.parse(teacher)).source in self.ahead:
            return teacher
        return f"run:{self._id(teacher)}" if name.is_run else teachers.resolve(teacher, self.store)

    def _recipe(self, name: str) -> Recipe:
        """Of a run by name, made or to be made. Raises LookupError for none."""
        return self.ahead.get(name.removeprefix("run:")) or self.store.get(name).recipe

    def _config(self, name: str) -> NetConfig:
        """Of the network that a run ships, or will by its recipe. Raises LookupError for no run."""
        if (found := self.ahead.get(name.removeprefix("run:"))) is None:
            return self.store.get(name).config
        config = found.student
        for use in found.methods:
            config = create(use).ships(config)
        return config

    def _unfinished(self, name: str) -> str | None:
        """The state of a run that has no finished network and is not about to get one."""
        if name.removeprefix("run:") in self.ahead:
            return None
        run = self.store.get(name)
        return None if isinstance(run.read("student"), dict) else run.status().state

    # --- what the images are ---

    def spec(self, recipe: Recipe, needs: set[str] | frozenset[str]) -> ImageSpec | None:
        """What the images will be, as far as it is known without reading any; None where it isn't."""
        student = recipe.student
        if needs & PAIRS and recipe.teacher:
            name = TeacherName.parse(recipe.teacher)
            if name.kind == "pipeline":  # it has its own classes, and does not say what it was trained on
                known = self._of_data(recipe)
                return known and dataclasses.replace(known, num_classes=student.num_classes)
            if name.kind == "callable":
                return teachers.registered(recipe.teacher).spec
            if name.source in self.ahead:
                theirs = self.ahead[name.source]
                return self.spec(theirs, set().union(*(create(use).needs for use in theirs.methods)))
            run = self.store.get(recipe.teacher)
            return spec_of_run(run) if isinstance(run.read("student"), dict) else None
        return self._of_data(recipe)

    def _of_data(self, recipe: Recipe) -> ImageSpec | None:
        if recipe.data.startswith("folder:"):  # its pictures are made to fit
            root = if_there(recipe.data.removeprefix("folder:"))
            if not root.is_dir():
                return None
            shape = recipe.student.channels, recipe.student.image_size, len(data.folder_classes(root))
        elif (shape := SHAPES.get(recipe.data)) is None:
            return None
        channels, size, classes = shape
        return ImageSpec(data=recipe.data, size=size, channels=channels, num_classes=classes)

    # --- what is wrong ---

    def check(self, recipe: Recipe, *, planned: bool = False) -> list[str]:
        """Everything that is wrong, as sentences; `planned`: a method still makes its own recipes of this one."""
        methods, wrong = [], check_fields(recipe)
        for use in recipe.methods:
            try:
                methods.append(create(use))
            except ValueError as error:
                wrong.append(str(error))
        wrong += self._check_methods(recipe, methods)
        if not (recipe.data.startswith("folder:") or recipe.data in data.DATASETS):
            wrong.append(f"unknown data set {recipe.data!r}; known: {', '.join([*data.DATASETS, 'folder:<path>'])}")
        for solver in {recipe.solver, recipe.drawn_by}:
            try:
                diffusion.solver_of(solver)
            except ValueError as error:
                wrong.append(str(error))
        if recipe.sampler and not recipe.student.time:
            wrong.append(f"sampler is {recipe.sampler}, and a one-step student has nothing to solve; leave it out")
        needs = set().union(*(m.needs for m in methods))
        wrong += self._check_teacher(recipe, needs)
        try:
            spec = self.spec(recipe, needs)
        except (LookupError, ValueError):  # said above
            spec = None
        wrong += misfits(recipe, spec)
        if planned:
            return wrong
        return wrong + self._check_guide(recipe, methods, needs) + self._check_start(recipe, read="starts" in needs)

    def _check_methods(self, recipe: Recipe, methods: list[Method]) -> list[str]:
        wrong = [why for m in methods if (why := m.why_not(recipe))]
        for method in methods:
            for key, value in options_of(method).items():
                if isinstance(value, float) and not math.isfinite(value):
                    wrong.append(f"{method.name}.{key} must be a finite number, got {value}")
        objectives = [m.name for m in methods if m.objective]
        fits = len(objectives) == 1 or (not objectives and recipe.steps == 0)
        if not fits and len(methods) == len(recipe.methods):
            known = ", ".join(sorted(n for n, m in METHODS.items() if m.objective))
            wrong.append(f"a recipe that trains needs one objective ({known}), got {len(objectives)}: "
                         f"{', '.join(objectives) or 'none'}")  # fmt: skip
        twice = sorted({m.name for m in methods if [n.name for n in methods].count(m.name) > 1})
        wrong += [f"method {name} stands twice in this recipe; name it once, with all its options" for name in twice]
        planning = [m.name for m in methods if type(m).plan is not Method.plan]
        if len(planning) > 1:
            wrong.append(f"{' and '.join(planning)} both plan runs; run the first, then name it as guide or start")
        return wrong

    def _check_teacher(self, recipe: Recipe, needs: set[str]) -> list[str]:
        wrong = []
        if needs & PAIRS and not recipe.pairs:
            wrong.append("this recipe learns from pairs; set pairs to how many (100000, say)")
        if not recipe.teacher:
            if needs & PAIRS:
                wrong.append(f"method {recipe.methods[0].method} learns from a teacher; set teacher to an alias, "
                             "run:<id>, pipeline:<folder> or callable:<name>")  # fmt: skip
            return wrong
        name = TeacherName.parse(recipe.teacher)
        if name.kind == "pipeline":
            return wrong
        try:
            taught = teachers.registered(recipe.teacher).spec.data if name.kind == "callable" else (
                self._recipe(recipe.teacher).data)  # fmt: skip
        except (LookupError, ValueError) as error:
            return [*wrong, str(error)]
        if needs & PAIRS and data.lasting(recipe.data) != data.lasting(taught):
            wrong.append(f"data is {recipe.data!r}, but teacher {recipe.teacher} draws images of {taught!r}; "
                         f"set data to {taught!r}")  # fmt: skip
        return wrong + (self._untaught(recipe, "teacher", recipe.teacher) if name.is_run else [])

    def _untaught(self, recipe: Recipe, role: str, name: str) -> list[str]:
        """Classes that a student would be told or shown and that a network it learns from never was, as sentences."""
        theirs, wrong = self._recipe(name), []
        if recipe.student.num_classes and not theirs.student.num_classes:
            wrong.append(f"student.num_classes is {recipe.student.num_classes}, but {role} {name} is told no "
                         "class, so that none decides its images; set it to 0")  # fmt: skip
        if theirs.classes is not None and (recipe.classes is None or not set(recipe.classes) <= set(theirs.classes)):
            known = ", ".join(map(str, theirs.classes))
            got = "all" if recipe.classes is None else list(recipe.classes)
            wrong.append(f"{role} {name} has learned the classes {known} alone; set classes to some of them, "
                         f"got {got}")  # fmt: skip
        return wrong

    def _check_guide(self, recipe: Recipe, methods: list[Method], needs: set[str]) -> list[str]:
        asking = [m for m in methods if m.needs & GUIDE]
        whom = {need: m.name for m in asking for need in m.needs & GUIDE}
        if len(whom) == len(GUIDE) and not recipe.student.time:
            return [f"method {whom['guide']} asks a one-step net beside the student and {whom['denoiser']} a denoiser, "
                    f"and a recipe has one guide; leave {whom['denoiser']} out, then start a recipe with it alone from "
                    "that run"]  # fmt: skip
        if not recipe.guide:
            return [f"method {m.name} asks a network beside the student; set guide to a run" for m in asking[:1]]
        if not asking:
            return [f"guide is {recipe.guide}, but no method of this recipe asks it; leave it out"]
        try:
            if state := self._unfinished(recipe.guide):
                return [f"guide {recipe.guide} has no finished network yet; its state is {state!r}"]
            config, student = self._config(recipe.guide), recipe.student
        except (LookupError, ValueError) as error:
            return [str(error)]
        wrong = [
            f"guide {recipe.guide} has {name} {theirs}, the student has {mine}; both are asked about the same images"
            for name in ("image_size", "channels")
            if (theirs := getattr(config, name)) != (mine := getattr(student, name))
        ]
        if config.num_classes > student.num_classes:
            wrong.append(f"guide {recipe.guide} wants a class of {config.num_classes} for every image, the student's "
                         f"num_classes is {student.num_classes}")  # fmt: skip
        if "guide" in needs and config.time != student.time:
            one, other = ("a denoiser", "a one-step net") if config.time else ("a one-step net", "a denoiser")
            wrong.append(f"guide {recipe.guide} is {one} and the student {other}: they can't be asked the same; take a "
                         f"guide with student.time {str(student.time).lower()}")  # fmt: skip
        if "denoiser" in needs and not config.time:
            wrong.append(f"guide {recipe.guide} is a one-step net; {asking[0].name} asks a denoiser, such as a teacher")
        wrong += self._untaught(recipe, "guide", recipe.guide)
        return wrong or _check_taps(recipe, config, asking)

    def _check_start(self, recipe: Recipe, *, read: bool) -> list[str]:
        """What is wrong with the runs that a recipe starts from; `read`: a method takes what it needs out of them."""
        wrong = []
        if read and not recipe.start:
            wrong.append("this recipe begins with another run's weights; set start to a run")
        if len(recipe.start) > 1 and not read:
            wrong.append(f"start names {len(recipe.start)} runs ({', '.join(recipe.start)}), but no method of this "
                         "recipe joins several; name one")  # fmt: skip
        for name in recipe.start:
            try:
                state = self._unfinished(name)
                theirs, mine = config_to_json(self._config(name)), config_to_json(recipe.student)
            except (LookupError, ValueError) as error:
                wrong.append(str(error))
                continue
            if state:
                wrong.append(f"start {name} has no finished network yet; its state is {state!r}")
            unlike = [k for k in mine | theirs if mine.get(k) != theirs.get(k)]
            if unlike and not read:
                wrong.append(f"start {name} has {unlike[0]} {theirs.get(unlike[0])}, the student has "
                             f"{mine.get(unlike[0])}; weights go into a network of the same shape only")  # fmt: skip
        return wrong


def _named(stage: Recipe, made: list[str]) -> Recipe:
    """A stage of a plan with the ids of those before it in the place of `stage:<number>`."""

    def name(text: str | None) -> str | None:
        return made[int(text.removeprefix(STAGE))] if text and text.startswith(STAGE) else text

    teacher = f"run:{name(stage.teacher)}" if (stage.teacher or "").startswith(STAGE) else stage.teacher
    return dataclasses.replace(stage, teacher=teacher, guide=name(stage.guide), start=tuple(map(name, stage.start)))


def _check_taps(recipe: Recipe, config: NetConfig, asking: list[Method]) -> list[str]:
    """Taps that a method would look at and that a network of that shape has not, as sentences."""
    wrong = []
    student, guide = (guides.by_shape(role, c) for role, c in (("student", recipe.student), ("guide", config)))
    for method in asking:
        try:
            mine, theirs = method.taps(student.net, guide)
        except ValueError as error:
            wrong.append(str(error))
            continue
        for who, wanted, has in [("the student", mine, student.tap_names),
                                 (f"guide {recipe.guide}", theirs, guide.tap_names)]:  # fmt: skip
            if lacking := sorted(wanted - has):
                wrong.append(f"method {method.name} looks at {lacking[0]} of {who}, which has "
                             f"{', '.join(sorted(has)[:12]) or 'no inner tensors to look at'}")  # fmt: skip
    return wrong


def misfits(recipe: Recipe, spec: ImageSpec | None) -> list[str]:
    """Where the student's input is not the data's image, as sentences."""
    if spec is None:
        return []
    student = recipe.student
    wrong = [
        f"student.{name} is {mine}, the images of {spec.data} have {theirs}"
        for name, mine, theirs in [("image_size", student.image_size, spec.size),
                                   ("channels", student.channels, spec.channels)]
        if mine != theirs
    ]  # fmt: skip
    outside = [c for c in recipe.classes or () if c >= spec.num_classes]
    if outside and spec.num_classes:
        wrong.append(f"classes names {outside[0]}, {spec.data} has 0 to {spec.num_classes - 1}")
    if student.num_classes not in (0, spec.num_classes):
        wrong.append(f"student.num_classes is {student.num_classes}, {spec.data} has {spec.num_classes} "
                     "(0 makes an unconditional net)")  # fmt: skip
    return wrong
