"""What an experiment is: frozen dataclasses that are JSON and carry an id by content. No torch here.

Equal recipes are the same run, so everything that decides the weights stands in `Recipe`; the
device, the number of threads and compilation stay outside and are recorded in the run's env.json.
"""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
import sys
import types
import typing
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]

# Sizes are gone through block by block, patch by patch and class by class, and no page is to wait for that.
LARGEST_NET = {"image_size": 65_536, "depth": 1_000, "iterations": 1_000, "tied": 1_000, "layers": 100,
               "num_classes": 100_000, "experts": 100}  # fmt: skip
# A field added after the defaults froze stands here with the value that means "as before it
# existed"; while it holds that value it stays out of the id, so that old ids stay true.
ADDED_LATER: dict[tuple[str, str], JSON] = {
    ("recipe", "guide"): None, ("recipe", "sampler"): None, ("dit", "block"): "adaln", ("dit", "head_dim"): None,
    ("dit", "adaln_norm"): False,
}  # fmt: skip


@functools.cache
def block_kinds() -> list[str]:
    """The kinds of block that there are, by their files: importing them would take torch."""
    return sorted(path.stem for path in (Path(__file__).parent / "models" / "blocks").glob("[!_]*.py"))


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """The knobs of a Diffusion Transformer."""

    family: ClassVar[str] = "dit"
    image_size: int = 28  # pixels, or latent cells, per side; a multiple of patch
    channels: int = 1
    out_channels: int | None = None  # None = channels; 2 x channels when a variance is learned
    num_classes: int = 10  # 0 = unconditional
    null_class: bool = False  # one more label, for guidance
    time: bool = False  # True: takes a noise level; False: one-step, no timestep parameters at all
    patch: int = 4
    depth: int = 4
    width: int = 64  # a multiple of 4 (position table) and of heads
    heads: int = 4
    mlp_hidden: int | None = None  # None = 4 x width
    block: str = "adaln"  # a file of lab/models/blocks
    head_dim: int | None = None  # width of a head; None = width / heads
    adaln_norm: bool = False  # RMSNorm after the adaLN layers of adaln blocks

    @property
    def hidden(self) -> int:
        return self.mlp_hidden or 4 * self.width

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch) ** 2

    @property
    def shape(self) -> str:
        """Depth, width, heads and patch as one word, e.g. `d4w64h4p4`."""
        mlp = f"m{self.mlp_hidden}" if self.mlp_hidden not in (None, 4 * self.width) else ""
        usual = self.head_dim is None or (self.heads and self.head_dim == self.width // self.heads)
        head = "" if usual else f"x{self.head_dim}"
        kind = self.block if self.block != "adaln" else ""
        return f"d{self.depth}w{self.width}h{self.heads}{head}p{self.patch}{mlp}{kind}"

    def check(self) -> list[str]:
        """Everything that is wrong with this shape, as sentences."""
        if wrong := _too_small(self, depth=0):
            return wrong
        if self.block not in block_kinds():
            wrong = [unknown("kind of block", self.block, block_kinds())]
        wrong += _uneven(self, self.head_dim)
        if self.block == "dynamic" and (self.heads < 2 or self.hidden % self.heads):
            wrong.append(f"dynamic blocks need at least 2 heads and an MLP of as many groups of channels, got "
                         f"{self.heads} heads and mlp_hidden {self.hidden}")  # fmt: skip
        if self.adaln_norm and self.block not in ("adaln", "dynamic"):
            wrong.append(f"adaln_norm is of adaln blocks; blocks of kind {self.block} have no such layer")
        if self.out_channels not in (None, self.channels, 2 * self.channels):
            wrong.append(f"out_channels must be channels ({self.channels}), or twice that for a variance, got "
                         f"{self.out_channels}")  # fmt: skip
        if self.null_class and not self.num_classes:
            wrong.append("null_class needs num_classes above 0: an unconditional net has no label")
        return wrong


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A denoising U-Net (diffusers' UNet2DModel); always takes a noise level."""

    family: ClassVar[str] = "unet"
    time: ClassVar[bool] = True
    image_size: int = 28  # halved between levels, so a multiple of 2 ** (levels - 1)
    channels: int = 1
    num_classes: int = 10  # 0 = unconditional
    widths: tuple[int, ...] = (32, 64, 64)  # channels of each level, finest first
    layers: int = 1  # residual blocks per level
    attention: tuple[int, ...] = (2,)  # levels with self-attention
    groups: int = 8  # of the group norms

    @property
    def null_class(self) -> bool:
        return False

    @property
    def shape(self) -> str:
        return "unet" + "x".join(map(str, self.widths))

    def check(self) -> list[str]:
        """Everything that is wrong with this shape, as sentences."""
        wrong = []
        cell = 2 ** (len(self.widths) - 1)
        if not self.widths or min(self.widths) < 1 or self.image_size < 1 or self.channels < 1:
            wrong.append("widths, image_size and channels of a U-Net must all be at least 1")
        elif not 1 <= self.layers <= LARGEST_NET["layers"] or self.num_classes < 0:
            wrong.append(f"layers of a U-Net must be from 1 to {LARGEST_NET['layers']} and num_classes at least 0, got "
                         f"{self.layers} and {self.num_classes}")  # fmt: skip
        elif self.image_size % cell:
            wrong.append(f"image_size {self.image_size} is not a multiple of {cell}, "
                         f"which {len(self.widths)} levels need")  # fmt: skip
        for width in self.widths:
            if self.groups < 1 or width % self.groups:
                wrong.append(f"U-Net width {width} is not a multiple of groups {self.groups}")
        if extra := [a for a in self.attention if not 0 <= a < len(self.widths)]:
            wrong.append(f"attention names level {extra[0]}, the levels are 0 to "
                         f"{len(self.widths) - 1}")  # fmt: skip
        return wrong


@dataclass(frozen=True, kw_only=True)
class GETConfig:
    """A transformer that is told the class in its attention: GET's student, or the plain ViT; always one step."""

    family: ClassVar[str] = "get"
    time: ClassVar[bool] = False
    null_class: ClassVar[bool] = False
    out_channels: ClassVar[int | None] = None
    image_size: int = 28  # a multiple of patch
    channels: int = 1
    num_classes: int = 10  # 0 = unconditional
    patch: int = 4
    depth: int = 4  # blocks with weights of their own
    width: int = 64  # a multiple of 4 (position table) and of heads
    heads: int = 4
    mlp_hidden: int | None = None  # of those blocks; None = 4 x width
    iterations: int = 6  # of the group of blocks behind them, whose weights every iteration shares; 0 = a plain ViT
    tied: int = 3  # blocks of the group
    tied_hidden: int | None = None  # of its blocks; None = 6 x width

    @property
    def hidden(self) -> int:
        return self.mlp_hidden or 4 * self.width

    @property
    def group_hidden(self) -> int:
        return self.tied_hidden or 6 * self.width

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch) ** 2

    @property
    def shape(self) -> str:
        """As a DiT's, and the group as blocks x iterations: `getd2w64h4p4g3x6`; `vitd4w64h4p4`."""
        mlp = f"m{self.mlp_hidden}" if self.hidden != 4 * self.width else ""
        word = f"d{self.depth}w{self.width}h{self.heads}p{self.patch}{mlp}"
        if not self.iterations:
            return f"vit{word}"
        return f"get{word}g{self.tied}x{self.iterations}" + (
            f"m{self.tied_hidden}" if self.group_hidden != 6 * self.width else "")  # fmt: skip

    def check(self) -> list[str]:
        """Everything that is wrong with this shape, as sentences."""
        return _too_small(self, depth=0, iterations=0, tied=1) or _uneven(self)


@dataclass(frozen=True, kw_only=True)
class RoutedConfig:
    """One-step DiTs of one shape, each of which draws some of the classes: an image costs one of them."""

    family: ClassVar[str] = "routed"
    time: ClassVar[bool] = False
    null_class: ClassVar[bool] = False
    out_channels: ClassVar[int | None] = None
    image_size: int = 28  # a multiple of patch
    channels: int = 1
    num_classes: int = 10
    patch: int = 4
    depth: int = 4  # of each expert, as all that follows
    width: int = 64  # a multiple of 4 (position table) and of heads
    heads: int = 4
    mlp_hidden: int | None = None  # None = 4 x width
    head_dim: int | None = None  # width of a head; None = width / heads
    experts: int = 2
    table: tuple[int, ...] = ()  # the expert of each class; () = in turn

    @property
    def routes(self) -> tuple[int, ...]:
        """The expert of each class."""
        return self.table or tuple(y % self.experts for y in range(self.num_classes))

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The classes of each expert; the place of one among them is what the expert knows it by."""
        return tuple(tuple(y for y, m in enumerate(self.routes) if m == n) for n in range(self.experts))

    @property
    def parts(self) -> tuple[DiTConfig, ...]:
        """The shape of each expert."""
        return tuple(self.part(len(group)) for group in self.groups)

    def part(self, classes: int) -> DiTConfig:
        """The shape of an expert of so many classes."""
        names = ("image_size", "channels", "patch", "depth", "width", "heads", "mlp_hidden", "head_dim")
        return DiTConfig(num_classes=classes, **{name: getattr(self, name) for name in names})

    @property
    def hidden(self) -> int:
        return self.mlp_hidden or 4 * self.width

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch) ** 2

    @property
    def shape(self) -> str:
        """How many experts there are of which shape: `r4d4w64h2x16p4`."""
        return f"r{self.experts}{self.part(self.num_classes).shape}"

    def check(self) -> list[str]:
        """Everything that is wrong with this shape, as sentences."""
        if wrong := _too_small(self, depth=0, num_classes=1, experts=1) or _uneven(self, self.head_dim):
            return wrong
        if len(self.routes) != self.num_classes:
            return [f"table names an expert for {len(self.routes)} classes, there are {self.num_classes}"]
        if outside := [m for m in self.routes if not 0 <= m < self.experts]:
            return [f"table names expert {outside[0]}, the experts are 0 to {self.experts - 1}"]
        idle = [n for n, group in enumerate(self.groups) if not group]
        return [f"expert {n} has none of the {self.num_classes} classes" for n in idle[:1]]


def _too_small(config: DiTConfig | GETConfig | RoutedConfig, **lows: int) -> list[str]:
    """What is wrong with counts: each at least 1, but those named here and the classes, and of no endless network."""
    lows = {"image_size": 1, "channels": 1, "num_classes": 0, "patch": 1, "width": 1, "heads": 1, **lows}
    optional = ("mlp_hidden", "tied_hidden", "head_dim")
    lows |= {name: 1 for name in optional if getattr(config, name, None) is not None}
    wrong = [f"{name} must be at least {low}, got {getattr(config, name)}" for name, low in lows.items()
             if getattr(config, name) < low]  # fmt: skip
    return wrong + [f"{name} must be at most {most:,}, got {getattr(config, name):,}"
                    for name, most in LARGEST_NET.items() if getattr(config, name, 0) > most]  # fmt: skip


def _uneven(config: DiTConfig | GETConfig | RoutedConfig, head_dim: int | None = None) -> list[str]:
    """What does not divide in a transformer of square patches."""
    wrong = []
    if head_dim is None and config.width % config.heads:
        near = [w for w in multiples_near(config.width, config.heads) if w > 0]
        wrong.append(f"width {config.width} is not a multiple of heads {config.heads}; "
                     f"nearest: {', '.join(map(str, near))}")  # fmt: skip
    if config.width % 4:
        wrong.append(f"width {config.width} is not a multiple of 4, which the sin-cos position table needs")
    if config.image_size % config.patch:
        divisors = [p for p in range(1, config.image_size + 1) if config.image_size % p == 0]
        wrong.append(f"image_size {config.image_size} is not a multiple of patch {config.patch}; "
                     f"possible patches: {', '.join(map(str, divisors))}")  # fmt: skip
    return wrong


NetConfig = DiTConfig | UNetConfig | GETConfig | RoutedConfig
FAMILIES: dict[str, type] = {c.family: c for c in (DiTConfig, UNetConfig, GETConfig, RoutedConfig)}


def why_not_plain(config: NetConfig) -> str | None:
    """Why a network is no one-step DiT of plain blocks, which int8 and the prediction of latency know; else None."""
    kind = _unlike(config, ("adaln",), wide_heads=())
    return kind and f"only a one-step DiT of plain adaLN blocks is known operation by operation; this network is {kind}"


def why_not_folded(config: NetConfig) -> str | None:
    """Why lab/deploy.py has no form by hand of a network, in which what depends on the class alone is a table."""
    kind = _unlike(config, ("adaln", "time", "dynamic"), wide_heads=("adaln", "dynamic"))
    return kind and f"only a one-step DiT of adaLN, time or dynamic blocks can be folded; this network is {kind}"


def _unlike(config: NetConfig, blocks: tuple[str, ...], wide_heads: tuple[str, ...]) -> str | None:
    """What keeps a network from being a one-step DiT of these blocks; `wide_heads`: those with heads of any width."""
    if not isinstance(config, DiTConfig):
        return f"of family {config.family}"
    if config.time:
        return "a denoiser"
    if config.block not in blocks:
        return f"of {config.block} blocks"
    if config.block not in wide_heads and config.head_dim not in (None, config.width / config.heads):
        return f"of heads as wide as {config.head_dim}"
    return None


@dataclass(frozen=True)
class TeacherName:
    """Who makes pairs: a run (by alias or id), a diffusers pipeline (folder or hub id), or a registered function."""

    kind: Literal["run", "pipeline", "callable"]
    source: str
    mark: str = ""  # the first digits of a hash of what it is, in the lasting name of a pipeline or a function

    @classmethod
    def parse(cls, text: str) -> TeacherName:
        """`fashion`, `run:<id>`, `pipeline:<source>[@<mark>]`, `callable:<name>[@<mark>]`."""
        kind, colon, source = text.partition(":")
        if not colon or kind not in ("pipeline", "callable"):
            return cls("run", text.removeprefix("run:"))
        found = re.fullmatch(r"(.*?)(?:@([0-9a-f]{8}))?", source, re.DOTALL)
        return cls(kind, found[1], found[2] or "")

    @property
    def is_run(self) -> bool:
        return self.kind == "run"

    def __str__(self) -> str:
        return f"{self.kind}:{self.source}" + (f"@{self.mark}" if self.mark else "")


@dataclass(frozen=True)
class Use:
    """One method in a recipe, by name, with its options."""

    method: str
    options: Mapping[str, JSON] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.method, json.dumps(dict(self.options), sort_keys=True)))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run. Teachers are runs too (method `denoise`)."""

    data: str = "digits"  # digits, fashion-mnist, cifar10, folder:<path>
    classes: tuple[int, ...] | None = None  # train on these classes only; None = all
    teacher: str | None = None  # who made the pairs, and the reference: as TeacherName.parse reads it
    pairs: int = 0  # how many pairs of the teacher; 0 = none needed
    solver: str = "dpmpp2m-8"  # how the pairs were made
    sampler: str | None = None  # how a denoising student draws; None = as the pairs were made
    guide: str | None = None  # a run (or alias) whose frozen network is asked beside the student; None = nobody
    student: NetConfig = DiTConfig()
    start: tuple[str, ...] = ()  # ids of runs whose weights this one begins with
    methods: tuple[Use, ...] = (Use("pairs"),)
    steps: int = 2000  # updates; 0 = build and measure only
    batch: int = 64
    optimizer: str = "muon"  # muon: block matrices by Muon, the rest AdamW; or adamw
    lr: float | None = None  # None = default_lr
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100  # updates over which the rate rises from zero
    schedule: str = "linear"  # to zero over the second half; or constant, cosine
    clip: float = 1.0  # largest gradient norm; 0 = no clipping
    ema: float = 0.998  # with a ramp: min(ema, (step+1)/(step+20))
    dtype: str = "float32"  # or bfloat16: autocast of the forward pass
    keep: tuple[int, ...] = ()  # images seen at which a checkpoint of the EMA is kept
    seed: int = 0

    @property
    def images(self) -> int:
        """How many images training sees."""
        return self.steps * self.batch

    @property
    def drawn_by(self) -> str:
        """The solver by which a denoising student draws."""
        return self.sampler or self.solver

    @property
    def id(self) -> str:
        """Readable and unique by content, e.g. `digits-d4w64h4p4-pairs-9bffdd2f`."""
        plain = _drop_later_defaults(_plain(self))
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
        methods = "+".join(use.method for use in self.methods)
        return f"{_slug(self.data)}-{self.student.shape}-{_slug(methods)}-{digest}"

    @property
    def default_lr(self) -> float:
        """The rate that `lr` None stands for; experiment.resolve writes it out.

        Of GET, 2x40+3x6 at 79,552 images: at 1.2e-2 three of six seeds diverge (distance 4.0 to 6.0, the others 2.6 to
        2.7), at 6e-3 none does (2.7 to 2.9), at 3e-3 one seed reaches 3.4.
        """
        if self.optimizer != "muon" or self.student.family == "unet":
            return 1e-3
        return 6e-3 if self.student.family == "get" else 1.2e-2

    def to_json(self) -> str:
        return json.dumps(_plain(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Reads what `to_json` wrote, or what a person wrote by hand; left-out fields are default.

        Raises ValueError naming the field for an unknown name or a value of the wrong kind.
        """
        try:
            plain = parse_json(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"a recipe must be JSON: {error}") from None
        except RecursionError:
            raise ValueError("a recipe must be JSON: it is nested too deeply") from None
        return _build(cls, plain, "recipe")

    def in_kind(self) -> Recipe:
        """The same with each value of its field's kind, as of a file: clip=0 and clip=0.0 are one recipe.

        Raises ValueError naming the field for a value of the wrong kind.
        """
        return _build(Recipe, json.loads(self.to_json()), "recipe")

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The recipe in a file.

        Raises OSError where it can't be opened, and ValueError naming the file and what is wrong with it.
        """
        text = text_of(path)
        try:
            return cls.from_json(text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def with_(self, **changes: Any) -> Recipe:
        """A copy with fields changed; `student__depth=6` reaches into the student."""
        inner = {k.split("__", 1)[1]: changes.pop(k) for k in [*changes] if k.startswith("student__")}
        student = dataclasses.replace(changes.pop("student", self.student), **inner)
        return dataclasses.replace(self, student=student, **changes)

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{k}</td><td>{v}</td></tr>" for k, v in _plain(self).items())
        return f"<b>{self.id}</b><table>{rows}</table>"


SCHEDULES = ("linear", "constant", "cosine")
OPTIMIZERS = ("muon", "adamw")
DTYPES = ("float32", "bfloat16")
MAX_SEED = 2**31 - 1  # torch's CPU generator takes 32 bits, of which an update's is odd: larger ones repeat others


def check_fields(recipe: Recipe) -> list[str]:
    """What is wrong with a recipe's own fields; methods and data are checked by experiment.check."""
    wrong = list(recipe.student.check())
    for name, value, known in [("schedule", recipe.schedule, SCHEDULES),
                               ("optimizer", recipe.optimizer, OPTIMIZERS),
                               ("dtype", recipe.dtype, DTYPES)]:  # fmt: skip
        if value not in known:
            wrong.append(unknown(name, value, known))
    for name, low in [("steps", 0), ("batch", 1), ("pairs", 0), ("warmup", 0), ("clip", 0)]:
        if getattr(recipe, name) < low:
            wrong.append(f"{name} must be at least {low}, got {getattr(recipe, name)}")
    if recipe.lr is not None and not 0 < recipe.lr < math.inf:
        wrong.append(f"lr must be above 0 and finite, got {recipe.lr}")
    if not math.isfinite(recipe.clip):
        wrong.append(f"clip must be a finite number (0 = no clipping), got {recipe.clip}")
    if not 0 <= recipe.ema < 1:
        wrong.append(f"ema must lie in [0, 1), got {recipe.ema}")
    if not all(0 <= beta < 1 for beta in recipe.betas):
        wrong.append(f"betas must lie in [0, 1), got {recipe.betas}")
    if not 0 <= recipe.seed <= MAX_SEED:
        wrong.append(f"seed must be from 0 to {MAX_SEED}, got {recipe.seed}")
    if getattr(recipe.student, "out_channels", None) not in (None, recipe.student.channels):
        wrong.append(f"student.out_channels is {recipe.student.out_channels}, but no method learns a variance; leave "
                     f"it out, or give {recipe.student.channels}")  # fmt: skip
    for images in recipe.keep if recipe.batch >= 1 else ():
        if images < recipe.batch or images % recipe.batch or images > recipe.images:
            wrong.append(f"keep names {images} images, which must be a multiple of batch "
                         f"{recipe.batch} up to {recipe.images}")  # fmt: skip
    if recipe.classes is not None:
        known = recipe.student.num_classes or math.inf  # an unconditional student sees some classes and is told none
        if not recipe.classes or not all(0 <= c < known for c in recipe.classes):
            some = f"some of 0 to {known - 1}" if recipe.student.num_classes else "whole numbers from 0 on"
            wrong.append(f"classes must be {some}, got {list(recipe.classes)}")
        if twice := [c for c in recipe.classes if recipe.classes.count(c) > 1]:  # it would be measured twice as often
            wrong.append(f"classes must name each class once, got {list(recipe.classes)} with {twice[0]} repeated")
    return wrong


def unknown(what: str, given: str, known: typing.Iterable[str]) -> str:
    """One sentence for a name that is not known, with the nearest ones that are."""
    known = sorted(known)
    near = difflib.get_close_matches(str(given), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    listed = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"unknown {what} {given!r}{hint} Known: {listed or 'none'}"


def multiples_near(value: int, of: int) -> list[int]:
    """The multiples of `of` around `value`."""
    return [value // of * of, (value // of + 1) * of]


def config_from_json(plain: Mapping[str, JSON]) -> NetConfig:
    """A network's shape from its JSON, by its `family` tag."""
    plain = dict(plain)
    family = plain.pop("family", "dit")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(unknown("network family", str(family), FAMILIES))
    return _build(FAMILIES[family], plain, family)


def config_to_json(config: NetConfig) -> dict[str, JSON]:
    return _plain(config)


# --- dataclass <-> JSON -------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        tag = {"family": value.family} if type(value) in FAMILIES.values() else {}
        return tag | {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def _drop_later_defaults(plain: dict[str, Any]) -> dict[str, Any]:
    family = plain["student"]["family"]
    for (owner, name), value in ADDED_LATER.items():
        holder = plain if owner == "recipe" else plain["student"] if owner == family else {}
        if name in holder and holder[name] == value:
            del holder[name]
    return plain


_hints = functools.cache(typing.get_type_hints)  # most of the time of reading a recipe, and always the same


def text_of(path: Path) -> str:
    """What stands in a file, of UTF-8 or, with its mark, UTF-16, as editors write it. ValueError names another file."""
    content = path.read_bytes()
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (at byte {error.start}); save it as UTF-8") from None


class Loose(ValueError):
    """What Python takes for JSON and others do not: a name that stands there twice, a number that is none."""


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises Loose where another reader would refuse it or see another value."""
    found = json.loads(text, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite)
    if "\\ud" in text.lower():
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Loose("it holds half a character, which no page and no terminal can show") from None
    return found


def _finite(text: str) -> float:
    if not math.isfinite(found := float(text)):  # NaN, Infinity, 1e999
        raise Loose(f"it holds {text[:60]}, which is no finite number")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose names each stand there once: else the last would win without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = sorted(repr(name)[1:-1][:60] for name, n in Counter(name for name, _ in pairs).items() if n > 1)
        raise Loose(f"{', '.join(twice)} stands there more than once")
    return found


def _build(cls: type, plain: Any, where: str) -> Any:
    if not isinstance(plain, Mapping):
        raise ValueError(f"{where} must be a JSON object, got {type(plain).__name__}")
    hints = _hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for name in plain:
        if name not in names:
            raise ValueError(unknown(f"field of {where}", name, names))
    for f in dataclasses.fields(cls):
        if f.name not in plain and f.default is f.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where} lacks the field {f.name!r}")
    return cls(**{name: cast(hints[name], value, f"{where}.{name}") for name, value in plain.items()})


def cast(hint: Any, value: Any, where: str) -> Any:
    """A JSON value as the type `hint` of a dataclass field asks; ValueError names the place."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint == NetConfig:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a JSON object with a `family`, got {value!r}")
        return config_from_json(value)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return cast(next(a for a in args if a is not type(None)), value, where)
    if origin is Literal:
        if value not in args:
            raise ValueError(unknown(where, value, args))
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(inner) == len(value):
            return tuple(cast(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(inner, value)))
    if dataclasses.is_dataclass(hint):
        return _build(hint, {"method": value} if isinstance(value, str) else value, where)
    if origin is not None and isinstance(value, Mapping):
        return dict(value)
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:  # NaN is not either
        return float(value)
    if hint in (int, str, bool) and type(value) is hint and not (hint is int and abs(value) >= 2**63):
        return value
    if hint is int and type(value) is int:
        raise ValueError(f"{where} must lie below 2^63, got {value}")
    raise ValueError(f"{where} must be {_wanted(hint)}, got {value!r}")


def _wanted(hint: Any) -> str:
    """A type in the words of a recipe's writer, who may know no Python."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return "a list" if args[-1] is Ellipsis else f"a list of {len(args)}"
    words = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false"}
    return words.get(hint, "a JSON object")


def _slug(text: str) -> str:
    kept = "".join(c if (c.isascii() and c.isalnum()) or c in "+-" else "-" for c in text.lower())  # as results.ID asks
    return kept.strip("-")[-40:].strip("-")
