"""Small networks that share out the classes, each pruned by what its own classes need (ED-ViT), and one that routes.

A class-conditional one-step network is cut into M experts: expert m has the classes C_m, and the blocks' heads and
groups of MLP channels that matter least to their images are sliced off. It is taught again by the pairs of its classes
and by the network that it was cut from. The paper fuses a classifier's features; a generator is told the label, so the
experts' fusion is a choice (our transfer of arXiv 2410.11650):

    I_m(u)  = E_{z, y in C_m} mse( G(z, y), G(z, y) with unit u zeroed )      MLP groups first, then heads without them
    G'(z,y) = G_m(y)(z, local(y))

An expert's size alone compares with nothing: `facts` and cost.json give the sum beside it. In training an expert knows
its classes by their own numbers, and the rows of the others in its label table go when it is joined.

M experts, K classes, B batch, L blocks, H heads of width d, a group is hidden / H channels, D width.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from lab import deploy, export
from lab.config import JSON, DiTConfig, NetConfig, Recipe, RoutedConfig, Use
from lab.data import ImageSpec
from lab.methods.base import Method, Roles, Step, beside, options_of
from lab.models.dit import DiT
from lab.models.layers import Linear
from lab.models.routed import Routed
from lab.models.taps import Taps
from lab.options import Share
from lab.results import write_json, write_whole

IMAGES = 256  # by which units are ranked; noises of one seed, the classes in turn
ROUNDS = 50  # of k-means at most; it stands still long before
KINDS = ("mlp", "heads")  # of units, in the order in which they are pruned
Kept = dict[str, list[list[int]]]  # kind -> the units of each block that stay, in order


# --- which classes belong together --------------------------------------------------------------


def similar(net: DiT, experts: int) -> tuple[int, ...]:
    """A `table` of experts of like classes, by the features of a network that knows them all."""
    return clusters(class_means(net), experts)


@torch.no_grad()
def class_means(net: DiT) -> Tensor:
    """The mean feature of the last block over images and tokens of each class, (K, D)."""
    means = []
    name = f"block{net.config.depth - 1}"
    for y in range(net.config.num_classes):
        taps = Taps([name])
        net(*_drawn(net, (y,)), taps)
        means.append(taps[name].mean((0, 1)))
    return torch.stack(means)


def apart(means: Tensor) -> Tensor:
    """How far class means (K, D) lie from one another, (K, K), in units of a mean pair's distance."""
    distance = torch.cdist(means.double(), means.double()).cpu()
    pairs = distance[~torch.eye(len(means), dtype=torch.bool)]
    return distance / pairs.mean().clamp_min(torch.finfo(pairs.dtype).tiny) if len(pairs) else distance


def clusters(means: Tensor, count: int) -> tuple[int, ...]:
    """The cluster of each row of (K, D) by k-means of equal sizes, which differ by one at most; no chance in it.

    It begins with the row farthest from the middle and goes on with the one farthest from those taken; each round
    assigns rows to places of clusters at the least sum of squared distances.
    """
    from scipy.optimize import linear_sum_assignment

    means = means.double().cpu()
    if not 1 <= count <= len(means):
        raise ValueError(f"{len(means)} classes make from 1 to {len(means)} groups, got {count}")
    taken = [int((means - means.mean(0)).square().sum(1).argmax())]
    while len(taken) < count:
        taken.append(int(torch.cdist(means, means[taken]).min(1).values.argmax()))
    centres, found = means[taken], None
    sure = count * (len(means) // count)  # so many places are filled in any case, then one more of some clusters
    places = torch.arange(sure + count * (sure < len(means))) % count  # the cluster of each place
    for _ in range(ROUNDS):
        distance = torch.cdist(means, centres).square()[:, places]
        nobody = torch.zeros(len(places) - len(means), len(places), dtype=distance.dtype)  # rows for those left empty
        nobody[:, :sure] = 1 + distance.sum()
        filled = linear_sum_assignment(torch.cat([distance, nobody]).numpy())[1]
        now = places[filled[: len(means)]]
        if found is not None and torch.equal(now, found):
            break
        found = now
        centres = torch.stack([means[found == at].mean(0) for at in range(count)])
    return tuple(found.tolist())


# --- what an expert keeps -----------------------------------------------------------------------


def pruned(config: DiTConfig, share: float) -> DiTConfig:
    """The shape that is left when this share of heads and of MLP groups is gone; at least one of each stays."""
    heads = max(1, round((1 - share) * config.heads))
    if heads == config.heads:
        return config
    group = config.hidden // config.heads
    return dataclasses.replace(config, heads=heads, head_dim=_head_dim(config), mlp_hidden=heads * group)


def _head_dim(config: DiTConfig) -> int:
    return config.head_dim or config.width // config.heads


def _drawn(net: nn.Module, classes: Sequence[int]) -> tuple[Tensor, None, Tensor]:
    """Noises of one seed with these classes in turn, as a network's inputs."""
    config, device = net.config, net.positions.device
    shape = (IMAGES, config.channels, config.image_size, config.image_size)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([*itertools.islice(itertools.cycle(classes), IMAGES)])
    return z.to(device), None, y.to(device)


def _columns(net: DiT, kind: str) -> tuple[list[Linear], int]:
    """Of each block the layer that reads units of a kind, and how many of its columns a unit has."""
    if kind == "mlp":
        return [block.mlp.fc2 for block in net.blocks], net.config.hidden // net.config.heads
    return [block.attn.proj for block in net.blocks], _head_dim(net.config)


@torch.no_grad()
def importance(net: DiT, kind: str, classes: Sequence[int]) -> Tensor:
    """(L, H): how far images of these classes move, mean squared, when a unit is zeroed; leaves the net as it is."""
    inputs = _drawn(net, classes)
    whole = net(*inputs)
    layers, size = _columns(net, kind)
    found = torch.zeros(len(layers), net.config.heads)
    for at, layer in enumerate(layers):
        for unit in range(net.config.heads):
            columns = layer.weight[:, unit * size : (unit + 1) * size]
            before = columns.clone()
            columns.zero_()
            found[at, unit] = (net(*inputs) - whole).square().mean()
            columns.copy_(before)
    return found


@torch.no_grad()
def masked(net: DiT, kept: Kept) -> DiT:
    """A copy in which the units that don't stay say nothing."""
    net = copy.deepcopy(net)
    for kind, blocks in kept.items():
        layers, size = _columns(net, kind)
        for layer, units in zip(layers, blocks):
            gone = sorted({*range(net.config.heads)} - {*units})
            layer.weight[:, _places(gone, size)] = 0
    return net


def _places(units: Sequence[int], size: int, start: int = 0) -> list[int]:
    """The rows or columns of units of so many."""
    return [start + unit * size + i for unit in units for i in range(size)]


def choose(net: DiT, count: int, classes: Sequence[int]) -> Kept:
    """The `count` units of each kind and block that matter most to the images of these classes."""
    kept: Kept = {}
    for kind in KINDS:
        scores = importance(masked(net, kept), kind, classes)
        kept[kind] = [sorted(row.argsort(descending=True, stable=True)[:count].tolist()) for row in scores]
    return kept


def sliced(net: DiT, kept: Kept) -> dict[str, Tensor]:
    """The weights of the smaller network that computes what `masked` does."""
    state = {name: value.detach().clone() for name, value in net.state_dict().items()}
    size, group = _head_dim(net.config), net.config.hidden // net.config.heads
    for at, (heads, groups) in enumerate(zip(kept["heads"], kept["mlp"])):
        each = net.config.heads * size  # rows of q, of k, of v
        qkv = [row for part in range(3) for row in _places(heads, size, part * each)]
        rows = {"attn.qkv": qkv, "mlp.fc1": _places(groups, group)}
        columns = {"attn.proj": _places(heads, size), "mlp.fc2": _places(groups, group)}
        for name, places in rows.items():
            for part in ("weight", "bias"):
                state[f"blocks.{at}.{name}.{part}"] = state[f"blocks.{at}.{name}.{part}"][places]
        for name, places in columns.items():
            state[f"blocks.{at}.{name}.weight"] = state[f"blocks.{at}.{name}.weight"][:, places]
    return state


@dataclass
class ClassExpert(Method):
    """Slice a trained network down to the student's shape by what some classes need, and teach it by the whole one."""

    name: ClassVar[str] = "class_expert"
    paper: ClassVar[str] = "arXiv 2410.11650 (our transfer)"
    needs: ClassVar[frozenset[str]] = frozenset({"starts", "guide"})

    classes: tuple[int, ...] = ()  # by whose images units are ranked, the recipe's own; () = all
    output: Share = 0.5  # weight of the guide's images; the objective has the rest

    def why_not(self, recipe: Recipe) -> str | None:
        if self.classes != (recipe.classes or ()):
            return (f"class_expert.classes is {list(self.classes)} and the recipe's classes are "
                    f"{list(recipe.classes or ())}; an expert is ranked and taught by the same")  # fmt: skip
        return why_not_cut(self.name, recipe.student)

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        base, mine = roles.starts[0].net, student.config
        if why := _why_not_of(mine, base.config):
            raise ValueError(f"method class_expert can't cut {roles.starts[0].recipe.id} to {mine.shape}: {why}")
        self._kept = choose(base, mine.heads, self.classes or range(mine.num_classes))
        student.load_state_dict(sliced(base, self._kept))
        return student

    def objective_weight(self, progress: float) -> float:
        return 1 - self.output

    def loss(self, step: Step) -> dict[str, Tensor]:
        if not self.output:
            return {}
        return {"output": self.output * torch.stack([*step.toward(step.guide_prediction).values()]).sum()}

    def facts(self, student: nn.Module) -> dict[str, JSON]:
        return {"kept": self._kept}


def why_not_cut(method: str, config: NetConfig) -> str | None:
    """Why a network can't be an expert or be cut into some; None if it can."""
    if not isinstance(config, DiTConfig) or config.block != "adaln" or config.adaln_norm:
        return f"method {method} cuts DiTs of plain adaLN blocks, the student is of shape {config.shape}"
    if config.time or config.null_class or not config.num_classes:
        return (f"method {method} cuts a one-step network that is always told a class; set student.time and "
                "null_class to false, and num_classes above 0")  # fmt: skip
    if not config.check() and config.hidden % config.heads:
        return (f"method {method} cuts the MLP into as many groups as there are heads, {config.heads}, of which "
                f"{config.hidden} channels are no multiple")  # fmt: skip
    return None


def _why_not_of(mine: DiTConfig, base: NetConfig) -> str | None:
    """Why a shape is no slice of another, as a clause; None if it is."""
    if why := why_not_cut("class_expert", base):
        return why
    if mine.heads > base.heads:
        return f"it has {base.heads} heads, fewer than {mine.heads}"
    want = dataclasses.replace(base, heads=mine.heads, head_dim=_head_dim(base),
                               mlp_hidden=mine.heads * (base.hidden // base.heads))  # fmt: skip
    have = dataclasses.replace(mine, head_dim=_head_dim(mine), mlp_hidden=mine.hidden)
    unlike = [f.name for f in dataclasses.fields(want) if getattr(want, f.name) != getattr(have, f.name)]
    return f"{unlike[0]} would be {getattr(want, unlike[0])}, not {getattr(have, unlike[0])}" if unlike else None


# --- the plan, and what it ends with ------------------------------------------------------------


@dataclass
class ClassSplit(Method):
    """Split a network into smaller experts of some classes each, teach them, and join them behind a router."""

    name: ClassVar[str] = "class_split"
    paper: ClassVar[str] = "arXiv 2410.11650 (our transfer)"
    needs: ClassVar[frozenset[str]] = frozenset({"starts"})

    experts: int = 4
    table: tuple[int, ...] = ()  # the expert of each class; () = in turn; `similar` makes one of like classes
    prune: float = 0.5  # share of heads, and of MLP channels, that an expert loses
    recover: Share = 0.15  # updates of an expert, over the recipe's
    output: Share = 0.5  # weight of the whole network's images in them; the objective has the rest

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.prune < 1:
            raise ValueError(f"prune must lie in [0, 1), got {self.prune}")

    def why_not(self, recipe: Recipe) -> str | None:
        if isinstance(recipe.student, RoutedConfig):
            return self._why_not_joined(recipe)
        if why := why_not_cut(self.name, recipe.student):
            return why
        if recipe.classes is not None:
            return "method class_split shares out all classes; leave the recipe's classes out"
        if len(recipe.start) != 1:
            return f"method class_split cuts one trained network; set start to its run, got {len(recipe.start)} runs"
        if recipe.student.check():  # told elsewhere
            return None
        part = pruned(recipe.student, self.prune)
        for other in beside(recipe, self.name):
            if other.name == ClassExpert.name:
                return "method class_split makes a class_expert of each of its parts; leave class_expert out"
            if other.ships(part) != part and type(other).plan is Method.plan:  # else told where plans meet
                return (f"method class_split joins experts of the shape that it cut, and {other.name} leaves another; "
                        "leave it out, or set it to keep the shape, as ternary.norm=false does")  # fmt: skip
        return next(iter(self.routed(recipe.student).check()), None)

    def _why_not_joined(self, recipe: Recipe) -> str | None:
        if recipe.steps:
            return f"method class_split joins trained experts, which trains nothing; set steps to 0, not {recipe.steps}"
        if len(recipe.start) != recipe.student.experts:
            return f"method class_split joins {recipe.student.experts} experts, start names {len(recipe.start)} runs"
        return None

    def routed(self, config: DiTConfig) -> RoutedConfig:
        """The shape of the joined network."""
        names = {f.name for f in dataclasses.fields(RoutedConfig)}
        part = pruned(config, self.prune)
        shared = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.name in names}
        return RoutedConfig(**shared, experts=self.experts, table=self.table)

    def plan(self, recipe: Recipe) -> list[Recipe]:
        """A run for each expert, then their join, which is built and measured alone."""
        if isinstance(recipe.student, RoutedConfig):
            return [recipe]
        whole, part = self.routed(recipe.student), pruned(recipe.student, self.prune)
        as_it_was = self.experts == 1 and part == recipe.student
        steps = 0 if as_it_was else round(self.recover * recipe.steps)
        rest = [use for use in recipe.methods if use.method != self.name]
        experts = []
        for classes in whole.groups:
            expert = Use(ClassExpert.name, options_of(ClassExpert(classes, self.output)))
            experts.append(dataclasses.replace(recipe, student=part, classes=classes, methods=(*rest, expert), keep=(),
                                               steps=steps, guide=recipe.guide or recipe.start[0]))  # fmt: skip
        stages = tuple(f"stage:{at}" for at in range(len(experts)))
        mine = Use(self.name, options_of(self))
        return [*experts, dataclasses.replace(recipe, student=whole, start=stages, methods=(mine,), steps=0, pairs=0,
                                              guide=None, keep=())]  # fmt: skip

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        """The experts' weights in the joined network, each with the rows of its own classes."""
        if not isinstance(student, Routed):
            return student
        for classes, expert, start in zip(student.config.groups, student.experts, roles.starts):
            if start.recipe.classes != classes:
                raise ValueError(f"run {start.recipe.id} has the classes {list(start.recipe.classes or ())}, the "
                                 f"expert in its place is to draw {list(classes)}")  # fmt: skip
            state = start.net.state_dict()
            expert.load_state_dict(state | {"label.weight": state["label.weight"][list(classes)]})
        return student

    def facts(self, student: nn.Module) -> dict[str, JSON]:
        if not isinstance(student, Routed):
            return {}
        sizes = [sum(p.numel() for p in expert.parameters()) for expert in student.experts]
        return {"classes": [list(group) for group in student.config.groups], "params": sizes,
                "params_sum": sum(sizes), "params_request": max(sizes)}  # fmt: skip


# --- devices ------------------------------------------------------------------------------------


def assign(sizes: Sequence[float], memories: Sequence[float], unit: str = "") -> list[int]:
    """The device of each expert: the largest that is left goes where most room is left.

    Sizes and memories in one unit, which the error names. Raises ValueError for an expert that fits nowhere then.
    """
    if not memories:
        raise ValueError("there is no device to put an expert on")
    room, places = [*memories], [0] * len(sizes)
    for expert in sorted(range(len(sizes)), key=lambda at: -sizes[at]):
        device = max(range(len(room)), key=room.__getitem__)
        if sizes[expert] > room[device]:
            raise ValueError(f"expert {expert} takes {sizes[expert]:.4g}{unit}, the most room that is left is "
                             f"{room[device]:.4g}{unit}, on device {device}")  # fmt: skip
        room[device] -= sizes[expert]
        places[expert] = device
    return places


def part_files(net: Routed, spec: ImageSpec) -> list[bytes]:
    """Each expert as an ONNX file: its noise and local labels in, images out."""
    files = []
    for expert in net.experts:
        ready = deploy.deploy(expert)
        part = dataclasses.replace(spec, num_classes=expert.config.num_classes, class_names=())
        files.append(export.graph(ready, part).SerializeToString())
    return files


def export_parts(net: Routed, files: Sequence[bytes], places: Sequence[int], folder: Path) -> list[Path]:
    """A folder for each device that has experts, with their files and which classes each draws; gives the folders."""
    folders = {device: folder / f"device{device}" for device in sorted({*places})}
    for device, path in folders.items():
        mine = [at for at, place in enumerate(places) if place == device]
        for at in mine:
            write_whole(path / f"expert{at}.onnx", files[at])
        said = {f"expert{at}.onnx": {"classes": list(net.config.groups[at]), "bytes": len(files[at])} for at in mine}
        write_json(path / "experts.json", said)
    return [*folders.values()]
