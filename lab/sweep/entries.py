"""What a sweep is asked for and how far each of its recipes is; what results/sweeps/<name>.json keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lab.config import JSON, Recipe
from lab.results import Store, now, write_json

if TYPE_CHECKING:
    from lab.sweep.search import Search
    from lab.sweep.space import Space


@dataclass
class Entry:
    """One recipe of a sweep and how far it is."""

    recipe: Recipe | None  # None: it could not be read
    label: str = ""
    notes: str = ""
    at: Mapping[str, JSON] = field(default_factory=dict)  # its point of the space
    state: str = "queued"  # queued | done | failed | stopped | refused: no run could be made of it
    why: str = ""
    stages: tuple[str, ...] = ()  # ids of the runs that it takes, the last one its own

    @property
    def run(self) -> str:
        return self.stages[-1] if self.stages else ""

    def row(self) -> dict[str, JSON]:
        told = {k: v for k, v in vars(self).items() if k in ("label", "at", "why") and v}
        return {"run": self.run, "state": self.state, "stages": list(self.stages)} | told


def entry_of(space: Space, at: Mapping[str, JSON]) -> Entry | str:
    """The entry of a point, a refused one where that is no recipe; why it is left out where it is out of budget."""
    try:
        recipe = space.recipe(at)
        return space.why_not(recipe) or Entry(recipe, at=at)
    except ValueError as error:
        return Entry(None, at=at, state="refused", why=str(error))


@dataclass
class Sweep:
    """What was asked, and the entries that came of it; those of a search come as it goes on."""

    name: str
    asked: JSON
    entries: list[Entry]
    dropped: list[dict[str, JSON]] = field(default_factory=list)  # points out of budget, with the reason
    search: Search | None = None

    @property
    def total(self) -> int:
        return self.search.trials if self.search else len(self.entries)

    def write(self, store: Store) -> None:
        """results/sweeps/<name>.json"""
        value = {"name": self.name, "asked": self.asked, "when": now(), "runs": [e.row() for e in self.entries],
                 "dropped": self.dropped}  # fmt: skip
        if self.search and self.search.study:
            value["front"] = self.search.front()
        write_json(store.root / "sweeps" / f"{self.name}.json", value)
