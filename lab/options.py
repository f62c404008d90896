"""Which numbers an option of a method takes: the annotation of its field says it, and `check` holds it to that.

rate: Positive = 0.2  # of the projections' learning rate, over the recipe's
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from typing import Annotated


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; with `above` without `low` itself."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, number: float) -> bool:
        return (self.low < number if self.above else self.low <= number) and number <= self.high

    def __str__(self) -> str:
        least = f"{'above' if self.above else 'at least'} {self.low}"
        return least if self.high == math.inf else f"{least} and at most {self.high}"


Weight = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0, 1)]
SomeShare = Annotated[float, Range(0, 1, above=True)]
Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]

# What each is, in words, by its name: those who read a file do not import it.
KINDS = {name: f"{typing.get_args(kind)[0].__name__}, {typing.get_args(kind)[1]}"
         for name, kind in list(globals().items()) if typing.get_origin(kind) is Annotated}  # fmt: skip


def check(options: object) -> None:
    """Raises ValueError with the first field of a dataclass's object that lies outside its range."""
    for name, allowed in _ranges(type(options)).items():
        if getattr(options, name) not in allowed:
            raise ValueError(f"{name} must be {allowed}, got {getattr(options, name)}")


@functools.cache
def _ranges(cls: type) -> dict[str, Range]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: extra for f in dataclasses.fields(cls)
            for extra in getattr(hints[f.name], "__metadata__", ()) if isinstance(extra, Range)}  # fmt: skip
