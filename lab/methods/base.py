"""What a compression method may do: at most a few small hooks, never the loop, files or optimizer."""

from __future__ import annotations

import copy
import dataclasses
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from lab.config import JSON, Recipe, Use, cast, unknown
from lab.data import Batch, ImageSpec
from lab.models.dit import Linear
from lab.models.taps import Taps

if TYPE_CHECKING:
    from lab.teachers import Teacher

METHODS: dict[str, type[Method]] = {}


@dataclass
class Question:
    """What the student is asked at one step."""

    x: Tensor  # (B, C, H, W)  input, already noised
    sigma: Tensor | None  # (B,)  noise level of x; None for a one-step student
    y: Tensor | None  # (B,) int64  class
    target: Tensor  # (B, C, H, W)  the clean image it should give
    weight: Tensor  # (B,)  weight of each sample in the main loss


@dataclass
class Step:
    """One question with the answers; what a loss may look at."""

    question: Question
    answer: Tensor  # (B, C, H, W)  the student's clean image
    taps: Taps  # the student's inner tensors, as wanted
    teacher_answer: Tensor | None  # None if no method needs the teacher in the loop
    teacher_taps: Taps | None
    progress: float  # 0 at the first step, towards 1 at the last
    rng: torch.Generator  # seeded by run seed and step, so that a resumed run draws the same


@dataclass
class Finished:
    """A run that another one starts from: its plain network and its recipe."""

    recipe: Recipe
    student: nn.Module


@dataclass
class Method:
    """A compression method. Override only what it needs; each hook does nothing by default."""

    name: ClassVar[str] = ""  # "" = an abstract helper, not listed
    paper: ClassVar[str] = ""  # "arXiv 2502.14226, Section 3.2"
    asks: ClassVar[bool] = False  # True: it draws the question. One per recipe
    edits: ClassVar[bool] = False  # True: it edits weights, so it is prepared after part-swappers
    needs: ClassVar[frozenset[str]] = frozenset()  # of {"pairs", "path", "teacher_denoise", "teacher_blocks", "starts"}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls) and cls.name:
            if cls.name in METHODS:
                raise TypeError(f"two methods are called {cls.name!r}: {METHODS[cls.name]} and {cls}")
            METHODS[cls.name] = cls

    def __post_init__(self) -> None:
        self.own = nn.ModuleDict()  # modules trained beside the student and thrown away after

    def refuses(self, recipe: Recipe) -> str | None:
        """Why this method can't do a recipe, as a sentence; asked before any work. None if it can."""
        return None

    def conditions(self, recipe: Recipe) -> dict[str, JSON]:
        """What this machine decides of the loss and no option says; kept in env.json."""
        return {}

    def plan(self, recipe: Recipe) -> list[Recipe]:
        """The runs to do, in order."""
        return [recipe]

    def prepare(self, student: nn.Module, spec: ImageSpec, teacher: Teacher | None,
                starts: list[Finished]) -> nn.Module:  # fmt: skip
        """Edit weights, swap sub-modules, make `own`."""
        return student

    def compile(self) -> None:
        """Compile what `loss` calls; asked where the loop compiles the student."""

    def wants(self, student: nn.Module, teacher: Teacher | None) -> tuple[set[str], set[str]]:
        """Names of the taps of the student and of the teacher that `loss` looks at."""
        return set(), set()

    def question(self, batch: Batch, rng: torch.Generator) -> Question:
        """Only where `asks` is True."""
        raise NotImplementedError(f"method {self.name!r} asks no question")

    def loss(self, step: Step) -> dict[str, Tensor]:
        """Named scalars, already weighted."""
        return {}

    def after_step(self, student: nn.Module, progress: float) -> None:
        """Anneal a temperature, count something."""

    def finish(self, student: nn.Module) -> nn.Module:
        """Undo wrappers: the plain network to ship."""
        return student


def create(use: Use) -> Method:
    """A method from a recipe's entry; ValueError names an unknown method, option or wrong value."""
    if use.method not in METHODS:
        raise ValueError(unknown("method", use.method, METHODS))
    cls = METHODS[use.method]
    hints = typing.get_type_hints(cls)
    fields = [f.name for f in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, value in use.options.items():
        if key not in fields:
            raise ValueError(unknown(f"option of method {use.method}", key, fields))
        values[key] = cast(hints[key], value, f"{use.method}.{key}")
    return cls(**values)


def options_of(method: Method) -> dict[str, JSON]:
    """Every option of a method written out, defaults too."""
    plain = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


@torch.no_grad()
def finish(student: nn.Module, methods: list[Method]) -> nn.Module:
    """The plain network to ship: a folded copy with every method undone; the live one is untouched."""
    plain = copy.deepcopy(student)
    for module in plain.modules():
        if isinstance(module, Linear):
            module.fold()
    for method in reversed(methods):
        plain = method.finish(plain)
    return plain.eval()
