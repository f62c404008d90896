"""Recipes that differ in some fields: a grid, a random choice, shapes of one size; out of budget is left out."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab import cost, counts
from lab.config import JSON, DiTConfig, Recipe, unknown

TOLERANCE = 0.03  # of a budget of parameters
USUAL_RATIO = 4  # of the MLP's hidden width to the width
TRIES = 200  # shapes that a sample or a search looks at for each one that it wants


def iso(params: int, depths: Sequence[int], *, heads: int | Sequence[int] = 4, base: DiTConfig | None = None
        ) -> list[DiTConfig]:  # fmt: skip
    """One shape for each depth, with a finished net of `params` parameters to 3 %; a depth where none is, is left out.

    Width D is a multiple of 8 and of the heads, D / heads at least 8, and the MLP's hidden width is a multiple of 8
    from 2 D to 6 D. At each width the hidden width is that nearest the budget; of the widths, that with the hidden
    width nearest 4 D. Of several heads the first that gives a shape is taken.
    """
    several = [heads] if isinstance(heads, int) else heads
    found = [next(filter(None, (_at_depth(params, depth, h, base or DiTConfig()) for h in several)), None)
             for depth in depths]  # fmt: skip
    return [shape for shape in found if shape is not None]


def _at_depth(params: int, depth: int, heads: int, base: DiTConfig) -> DiTConfig | None:
    step, fitting = math.lcm(8, heads), []
    for width in itertools.count(max(step, -(-8 * heads // step) * step), step):
        shapes = [dataclasses.replace(base, depth=depth, width=width, heads=heads, mlp_hidden=hidden)
                  for hidden in range(2 * width, 6 * width + 1, 8)]  # fmt: skip
        sizes = [counts.dit_params(shape) for shape in shapes]
        if sizes[0] > (1 + TOLERANCE) * params:  # and so is every wider one
            break
        off, shape = min(zip((abs(n - params) / params for n in sizes), shapes), key=lambda pair: pair[0])
        if off <= TOLERANCE:
            fitting.append(shape)
    if not fitting:
        return None
    shape = min(fitting, key=lambda s: abs(math.log(s.hidden / s.width / USUAL_RATIO)))
    usual = shape.hidden == USUAL_RATIO * shape.width  # written as by everybody else, for the id
    return dataclasses.replace(shape, mlp_hidden=None) if usual else shape


@dataclass(frozen=True)
class Space:
    """Recipes that differ in some fields; out of budget is known before anything is built.

    An axis is a field of the recipe (`seed`), of its student (`student.depth`) or an option of a method that the base
    uses (`methods.pairs.l1`). A value that is an object changes the fields that it names: {"depth": 4, "width": 40}.
    """

    base: Recipe
    axes: Mapping[str, Sequence[JSON]] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def within(self, /, **limits: float | Sequence[float]) -> Space:
        """Only shapes with costs in these ranges, in millions: params_m=(0.29, 0.31), macs_m=20 (at most).

        params_deployed_m and macs_deployed_m count the deployed form. Raises ValueError for another name or no range.
        """
        known = ("params_m", "macs_m", "params_deployed_m", "macs_deployed_m")
        found = dict(self.limits)
        for name, given in limits.items():
            if name not in known:
                raise ValueError(unknown("limit", name, known))
            ends = list(given) if isinstance(given, (list, tuple)) else [0.0, given]
            if len(ends) != 2 or not all(map(_is_number, ends)) or not ends[0] <= ends[1]:
                raise ValueError(f"{name} must be the most, or the least and the most, got {given!r}")
            found[name] = tuple(ends)
        return dataclasses.replace(self, limits=found)

    def __len__(self) -> int:
        """Points of the grid, in budget or not."""
        return math.prod(len(values) for values in self.axes.values())

    def point(self, index: int) -> dict[str, JSON]:
        """The index-th point of the grid; the last axis changes fastest."""
        at = {}
        for name, values in reversed(self.axes.items()):
            index, place = divmod(index, len(values))
            at[name] = values[place]
        return {name: at[name] for name in self.axes}

    def recipe(self, at: Mapping[str, JSON]) -> Recipe:
        """The base with the values of a point, in any order. Raises ValueError for what is no field or no recipe."""
        recipe = self.base
        for within in (False, True):  # a whole student or all methods first: other axes name what is within them
            if names := [name for name in at if ("." in name) is within]:
                plain = json.loads(recipe.to_json())
                for name in names:
                    _put(plain, name, at[name])
                recipe = Recipe.from_json(json.dumps(plain))
        return recipe

    def check(self) -> None:
        """Raises ValueError for an axis that no point can have; one within another axis is seen at each point."""
        for name, values in self.axes.items():
            if not isinstance(values, (list, tuple)) or not values:
                raise ValueError(f"axis {name} must be a list of at least one value, got {values!r:.60}")
            if name.partition(".")[0] not in self.axes or "." not in name:
                _put(json.loads(self.base.to_json()), name, values[0])

    def why_not(self, recipe: Recipe) -> str:
        """Why a shape is left out, as a sentence; "" for one that is in."""
        if wrong := recipe.student.check():
            return "; ".join(wrong)
        found = cost.of_config(recipe.student) if self.limits else {}
        for name, (low, high) in self.limits.items():
            millions = found.get(name.removesuffix("_m"), math.nan) / 1e6
            if not low <= millions <= high:
                return f"{name} is {millions:.4g}, wanted is {low:g} to {high:g}"
        return ""

    def grid(self) -> list[Recipe]:
        """Every recipe that is in."""
        return [r for i in range(len(self)) if not self.why_not(r := self.recipe(self.point(i)))]

    def sample(self, n: int, seed: int = 0) -> list[Recipe]:
        """`n` different points that are in, drawn at random; fewer where there are not so many."""
        recipes = map(self.recipe, self.drawn(n, seed))
        return list(itertools.islice((recipe for recipe in recipes if not self.why_not(recipe)), n))

    def drawn(self, n: int, seed: int = 0) -> Iterator[dict[str, JSON]]:
        """Different points in a random order, as many as are looked at for `n` that are in."""
        order = random.Random(seed).sample(range(len(self)), min(len(self), TRIES * n))
        return map(self.point, order)


def _is_number(value: JSON) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)  # larger ones may be no float


def _put(plain: dict[str, Any], name: str, value: JSON) -> None:
    """Set a field by its dotted name; an object changes the fields it names."""
    *path, last = name.split(".")
    if path[:1] == ["methods"] and len(path) == 2:
        uses = {use["method"]: use["options"] for use in plain["methods"]}
        if path[1] not in uses:
            raise ValueError(f"axis {name}: {unknown('method of the base', path[1], uses)}")
        place = uses[path[1]]
    elif path in ([], ["student"]):
        place = plain[path[0]] if path else plain
        if last not in place:
            raise ValueError(f"axis {name}: {unknown('field', last, place)}")
    else:
        raise ValueError(f"axis {name} is no field: seed, student.depth and methods.pairs.l1 are such names")
    merges = isinstance(value, Mapping) and isinstance(place.get(last), Mapping)
    merges = merges and value.get("family", place[last].get("family")) == place[last].get("family")
    place[last] = {**place[last], **value} if merges else value
