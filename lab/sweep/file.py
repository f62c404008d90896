"""A sweep file: a JSON list of recipes, or of {"recipe": ..., "label": ..., "notes": ...}, or a space.

    {"base": {...}, "axes": {"student.depth": [2, 4], "seed": [0, 1]}, "within": {"params_m": [0.29, 0.31]},
     "iso": {"params_m": [0.1, 0.3], "depths": [2, 4, 8], "heads": [4, 2]},
     "sample": {"n": 20, "seed": 0}     or     "search": {"trials": 40, "seed": 0, "device": "..."}}

All but base may be left out. A file of results/sweeps is one, too: that sweep goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lab.config import JSON, LARGEST_NET, MAX_SEED, DiTConfig, Recipe, config_to_json, parse_json, unknown
from lab.results import ID, Store, read_to_change
from lab.sweep.entries import Entry, Sweep, entry_of
from lab.sweep.search import Search
from lab.sweep.space import TOLERANCE, Space, iso

ISO = ("depth", "width", "heads", "mlp_hidden")  # of a student, that iso chooses
MOST_RUNS = 10_000  # of a sample or a search
MOST_POINTS, MOST_DRAWN = 100_000, 10**15  # of a grid that is gone through, and of one that is drawn from
MOST_M, MOST_HEADS = 1000, 1024  # of iso: all widths of a budget are looked at, in steps of the heads


def read(text: str, name: str) -> Sweep:
    """The sweep of a file's text. Raises ValueError for what is no sweep; an entry that is no recipe is kept as such.

    A recipe that can't be read stands among the entries with its reason: one bad one must not stop the others.
    """
    if not ID.fullmatch(name):
        raise ValueError(f"a sweep's name must match {ID.pattern}, got {name!r}")
    try:
        asked = parse_json(text)
    except ValueError as error:
        raise ValueError(f"a sweep must be JSON: {error}") from None
    except RecursionError:
        raise ValueError("a sweep must be JSON: it is nested too deeply") from None
    if isinstance(asked, dict) and "asked" in asked:
        asked = asked["asked"]
    if isinstance(asked, list):
        return Sweep(name, asked, [_entry(plain) for plain in asked])
    if isinstance(asked, dict):
        return _of_space(name, asked)
    raise ValueError(f"a sweep must be a list of recipes, or an object with base and axes; got {type(asked).__name__}")


def check_record(sweep: Sweep, store: Store) -> None:
    """Raises ValueError where results/sweeps/<name>.json is another file's, or can't be read: it would be lost.

    A file that was changed since goes on as long as some recipe, or for a search the base, is as it was.
    """
    path = store.root / "sweeps" / f"{sweep.name}.json"
    kept = read_to_change(path, "sweep")
    if not any(row["run"] for row in kept.get("runs", ())) or kept["asked"] == sweep.asked:
        return
    if not _recipes(sweep) & _recorded(kept["asked"], sweep.name):
        raise ValueError(f"{path} lists the runs of another file, which has no recipe in common with this one; --name "
                         "gives this sweep a name of its own")  # fmt: skip


def _recorded(asked: JSON, name: str) -> set[str]:
    try:
        return _recipes(read(json.dumps(asked), name))
    except ValueError:  # an older lab took it
        return set()


def _recipes(sweep: Sweep) -> set[str]:
    found = [sweep.search.space.base] if sweep.search else [entry.recipe for entry in sweep.entries]
    return {recipe.to_json() for recipe in found if recipe}


def _entry(plain: JSON) -> Entry:
    told = plain if isinstance(plain, dict) and "recipe" in plain else {"recipe": plain}
    try:
        if stray := sorted(set(told) - {"recipe", "label", "notes"}):
            raise ValueError(unknown("field of an entry", stray[0], ("recipe", "label", "notes")))
        label, notes = told.get("label", ""), told.get("notes", "")
        if not isinstance(label, str) or not isinstance(notes, str):
            raise ValueError(f"label and notes must be text, got {label!r} and {notes!r}")
        return Entry(Recipe.from_json(json.dumps(told["recipe"])), label, notes)
    except ValueError as error:
        return Entry(None, state="refused", why=str(error))


def _of_space(name: str, asked: Mapping[str, Any]) -> Sweep:
    known = ("base", "axes", "within", "iso", "sample", "search")
    if stray := sorted(set(asked) - set(known)):
        raise ValueError(unknown("field of a sweep", stray[0], known))
    if not all(isinstance(asked.get(k, {}), dict) for k in known) or "base" not in asked:
        raise ValueError(f"{', '.join(known)} of a sweep must be objects, and base be there")
    if "sample" in asked and "search" in asked:
        raise ValueError("a sweep has either sample or search")
    base = Recipe.from_json(json.dumps(asked["base"]))
    space = Space(base, _axes(asked, base)).within(**asked.get("within", {}))
    space.check()
    points = math.prod(map(len, space.axes.values()))
    most = MOST_DRAWN if {"search", "sample"} & set(asked) else MOST_POINTS
    if points > most:
        raise ValueError(f"the axes have {points:,} points, at most {most:,} can be gone through; leave some values "
                         "out, or draw some by sample or search")  # fmt: skip
    if "search" in asked:
        return Sweep(name, asked, [], search=Search(space, name, **_numbers(asked["search"], "search", "trials")))
    sweep, drawn = Sweep(name, asked, []), "sample" in asked
    sample = _numbers(asked["sample"], "sample", "n") if drawn else {}
    for at in space.drawn(**sample) if drawn else map(space.point, range(points)):
        if isinstance(found := entry_of(space, at), Entry):
            sweep.entries.append(found)
        elif not drawn:
            sweep.dropped.append({"at": at, "why": found})
        if drawn and len(sweep.entries) == sample["n"]:
            break
    return sweep


def _axes(asked: Mapping[str, Any], base: Recipe) -> dict[str, Sequence[JSON]]:
    """The axes of a file; `iso` is one of whole shapes."""
    axes = dict(asked.get("axes", {}))
    if "iso" in asked:
        given = {"heads": [4]} | asked["iso"]
        if set(given) != {"params_m", "depths", "heads"} or not isinstance(base.student, DiTConfig):
            raise ValueError(f"iso must have params_m and depths, may have heads, and shapes a DiT; got {asked['iso']}")
        budgets, depths, heads = (of if isinstance(of, list) else [of] for of in (
            given["params_m"], given["depths"], given["heads"]))  # fmt: skip
        if not all(type(b) in (int, float) and 0 < b <= MOST_M for b in budgets):
            raise ValueError(f"iso.params_m must be millions of parameters, above 0 and at most {MOST_M:,}; got "
                             f"{given['params_m']!r}")  # fmt: skip
        for name, numbers, low, most in [("depths", depths, 0, LARGEST_NET["depth"]), ("heads", heads, 1, MOST_HEADS)]:
            if not all(type(n) is int and low <= n <= most for n in numbers):
                raise ValueError(f"iso.{name} must be whole numbers from {low} to {most:,}, got {given[name]!r}")
        shapes = [s for b in budgets for s in iso(round(b * 1e6), depths, heads=heads, base=base.student)]
        if not shapes:
            raise ValueError(f"iso: no shape of depths {depths} and heads {heads} has {given['params_m']} M parameters "
                             f"within {TOLERANCE:.0%}; try other depths or heads")  # fmt: skip
        if own := sorted({*axes} & {"student", *(f"student.{name}" for name in ISO)}):
            raise ValueError(f"iso chooses {', '.join(ISO)}, and so does the axis {own[0]}; leave one of them out")
        axes = {"student": [{k: config_to_json(s)[k] for k in ISO}
                            for s in shapes]} | axes  # fmt: skip
    return axes


def _numbers(given: Mapping[str, JSON], where: str, count: str) -> dict[str, Any]:
    known = (count, "seed", *(["device"] if where == "search" else []))
    if stray := sorted(set(given) - set(known)):
        raise ValueError(unknown(f"field of {where}", stray[0], known))
    for key, low, most in [(count, 1, MOST_RUNS), ("seed", 0, MAX_SEED)]:
        if type(number := given.get(key, 0)) is not int or not low <= number <= most:
            raise ValueError(f"{where}.{key} must be a whole number from {low} to {most:,}, got {given.get(key)!r}")
    if not isinstance(given.get("device"), (str, type(None))):
        raise ValueError(f"{where}.device must be the name of a device's card, got {given['device']!r}")
    return {"seed": 0} | given
