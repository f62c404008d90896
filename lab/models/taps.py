"""Intermediate tensors, kept only where asked for."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


class Taps:
    """A notebook that a forward pass writes inner tensors into, by name.

    `taps.wants(name)` lets a layer skip work that nobody asked for (attention probabilities, say);
    `taps.put(name, x)` keeps x if it is wanted and does nothing otherwise.
    """

    def __init__(self, wanted: Iterable[str] = ()) -> None:
        self.wanted = frozenset(wanted)
        self.kept: dict[str, Tensor] = {}

    @classmethod
    def of(cls, kept: dict[str, Tensor]) -> Taps:
        """A notebook with these in it."""
        taps = cls(kept)
        taps.kept = dict(kept)
        return taps

    def float(self) -> Taps:
        """The same in float32, as losses are computed."""
        return Taps.of({name: x.float() for name, x in self.kept.items()})

    def wants(self, name: str) -> bool:
        return name in self.wanted

    def put(self, name: str, x: Tensor) -> None:
        if name in self.wanted:
            self.kept[name] = x

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.kept:
            raise LookupError(f"no tap {name!r} was kept; kept: {', '.join(sorted(self.kept)) or 'none'}")
        return self.kept[name]
