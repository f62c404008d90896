"""What a compression method may do: at most a few small hooks, never the loop, files or optimizer."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from lab import diffusion, models, options
from lab.config import JSON, NetConfig, Recipe, Use, cast, unknown
from lab.data import Batch, ImageSpec
from lab.models.layers import Linear, block_linears
from lab.models.taps import Taps

if TYPE_CHECKING:
    from lab.guides import Guide

METHODS: dict[str, type[Method]] = {}
# pairs (with the teacher's path); a guide that the loop asks, one that denoises and the method asks; runs to start from
NEEDS = frozenset({"pairs", "path", "guide", "denoiser", "starts"})


@dataclass
class Inputs:
    """What student and guide are given at one step."""

    x: Tensor  # (B, C, H, W)  already noised; a one-step student's is unit noise
    sigma: Tensor | None  # (B,)  noise level of x; None for a one-step student
    y: Tensor | None  # (B,) int64  class
    target: Tensor  # (B, C, H, W)  the clean image that the objective wants
    weight: Tensor  # (B,)  weight of each sample in the objective
    index: Tensor | None = None  # (B,) int64  numbers of the pairs, where x is their noise as it is: answers are kept
    path: Tensor | None = None  # (B, K, C, H, W)  the teacher's estimates, noisy to clean


@dataclass
class Step:
    """One update's inputs with what the networks made of them; what a loss may look at. All in float32."""

    inputs: Inputs
    prediction: Tensor  # (B, C, H, W)  the student's clean image
    taps: Taps  # the student's inner tensors, as wanted
    guide_prediction: Tensor | None  # None where no method needs a guide
    guide_taps: Taps
    progress: float  # 0 at the first step, towards 1 at the last
    rng: torch.Generator  # seeded by run seed and step, so that a resumed run draws the same
    images: int = 0  # seen before this step
    objective: Method | None = None  # the recipe's; `toward` measures by its distance
    ask: Callable[..., Tensor] | None = None  # the student on these inputs, (**mode) -> prediction

    def toward(self, target: Tensor) -> dict[str, Tensor]:
        """The objective's own distance, term by term and weighted as there, of the prediction to another target."""
        return self.objective.distance(self, target)

    def again(self, **mode: Any) -> Tensor:
        """The same inputs through the student once more; `mode` goes to its forward (a full pass, say)."""
        return self.ask(**mode).float()


@dataclass
class Finished:
    """A run that another one starts from: its recipe, its finished network, and what its methods found."""

    recipe: Recipe
    net: nn.Module  # on the run's device, in eval mode
    facts: dict[str, JSON] = field(default_factory=dict)  # method -> what its `facts` gave


@dataclass
class Roles:
    """The networks around a student, by role, and what the images are."""

    spec: ImageSpec
    guide: Guide | None = None  # a frozen network that is asked beside the student
    starts: list[Finished] = field(default_factory=list)  # the runs that the recipe starts from
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    sampler: str = diffusion.SOLVER  # how the student draws, if it denoises


@dataclass
class Method:
    """A compression method. Override only what it needs; each hook does nothing by default.

    What `finish` leaves must be rebuilt by `models.build(net.config)`: architecture is config, compression is
    training. What a method trains and throws away stands in `own`; a frozen network does not belong there.
    """

    name: ClassVar[str] = ""  # "" = an abstract helper, not listed
    paper: ClassVar[str] = ""  # "arXiv 2502.14226, Section 3.2"
    objective: ClassVar[bool] = False  # True: it draws the inputs and has the main loss. One per recipe
    edits: ClassVar[bool] = False  # True: it edits weights, so it is prepared after part-swappers
    quantises: ClassVar[bool] = False  # True: it leaves few values of the weights: the last of a plan
    needs: ClassVar[frozenset[str]] = frozenset()  # some of NEEDS
    # Options that came after runs of this method were kept, with the value that means "as before": while they hold it
    # they stay out of the recipe, so that old ids stay true. The value never changes.
    added_later: ClassVar[dict[str, JSON]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls) and cls.name:
            if cls.name in METHODS:
                raise TypeError(f"two methods are called {cls.name!r}: {METHODS[cls.name]} and {cls}")
            METHODS[cls.name] = cls

    def __post_init__(self) -> None:
        options.check(self)
        self.own = nn.ModuleDict()  # modules trained beside the student and thrown away after

    # --- before any work ---

    def why_not(self, recipe: Recipe) -> str | None:
        """Why this method can't do a recipe, as a sentence. None if it can."""
        return None

    def plan(self, recipe: Recipe) -> list[Recipe]:
        """The runs to do, in order. A later one names an earlier one as `stage:<number>` (guide, start, teacher)."""
        return [recipe]

    def ships(self, config: NetConfig) -> NetConfig:
        """The shape that is left of a student of this shape: what a later stage of a plan builds on."""
        return config

    def conditions(self, spec: ImageSpec) -> dict[str, JSON]:
        """What this machine decides of the loss and no option says; kept in env.json."""
        return {}

    def path(self, recipe: Recipe) -> int:
        """How many estimates along the teacher's path it wants with each pair."""
        return 0

    def batch_classes(self) -> int:
        """Of how many classes it wants each batch of pairs to be; 0: as they come."""
        return 0

    # --- the run ---

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        """Edit weights, swap parts, make `own`; gives the network to train."""
        return student

    def compile(self) -> None:
        """Compile what `loss` calls; asked where the loop compiles the student."""

    def taps(self, student: nn.Module, guide: Guide | None) -> tuple[set[str], set[str]]:
        """Names of the taps of the student and of the guide that `loss` looks at; asked after `prepare`, and before
        any work with networks that have shapes alone.
        """
        return set(), set()

    def asks(self, progress: float) -> bool:
        """Whether `loss` looks at its taps, and at the guide's answers, at this share of the run."""
        return True

    def inputs(self, batch: Batch, rng: torch.Generator) -> Inputs:
        """Only of an objective."""
        raise NotImplementedError(f"method {self.name!r} is no objective and draws no inputs")

    def distance(self, step: Step, target: Tensor) -> dict[str, Tensor]:
        """Named scalars, weighted: how far the prediction is from a target. Only of an objective."""
        raise NotImplementedError(f"method {self.name!r} is no objective and has no distance")

    def loss(self, step: Step) -> dict[str, Tensor]:
        """Named scalars, weighted."""
        return step.toward(step.inputs.target) if self.objective else {}

    def objective_weight(self, progress: float) -> float:
        """A factor of the objective's loss, where this method takes some of its place."""
        return 1.0

    def after_step(self, student: nn.Module, progress: float) -> None:
        """Anneal a temperature, count something."""

    # --- after it ---

    def finish(self, student: nn.Module) -> nn.Module:
        """Undo wrappers: the network to ship."""
        return student

    def facts(self, student: nn.Module) -> dict[str, JSON]:
        """What is known of the finished network and no weight says: what a search found, bits of the weights."""
        return {}


def why_no_layers(config: NetConfig, names: Iterable[str]) -> str | None:
    """Why the blocks of a network have no linear layers of these names to edit, as a clause; None if they have."""
    if not hasattr(config, "depth"):
        return f"a {config.family} of no blocks"
    if config.check():  # told elsewhere
        return None
    with torch.device("meta"):
        net = models.build(config)
    try:
        block_linears(net, names)
    except ValueError as error:
        return f"one in which {error}"
    return None


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


def beside(recipe: Recipe, name: str) -> list[Method]:
    """A recipe's methods but one; what can't be made of its entry is told elsewhere."""
    found = []
    for use in recipe.methods:
        if use.method != name:
            with contextlib.suppress(ValueError):
                found.append(create(use))
    return found


def options_of(method: Method) -> dict[str, JSON]:
    """The options of a method as a recipe keeps them: written out, defaults too, but for `added_later` ones."""
    plain = {f.name: getattr(method, f.name) for f in dataclasses.fields(method)}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}
    later = method.added_later
    return {k: v for k, v in plain.items() if k not in later or v != later[k]}


@torch.no_grad()
def finish(student: nn.Module, methods: list[Method]) -> nn.Module:
    """The network to ship: a folded copy with every method undone; the live one is untouched."""
    plain = copy.deepcopy(student)
    for module in plain.modules():
        if isinstance(module, Linear):
            module.fold()
    for method in reversed(methods):
        plain = method.finish(plain)
    return plain.eval()
