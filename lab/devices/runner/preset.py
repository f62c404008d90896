"""How long to warm up and to measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """How long to warm up and to measure."""

    name: str = "custom"
    iters: int = 100  # at least so many calls a session,
    seconds: float = 5.0  # and at least so long
    warmup_iters: int = 50
    warmup_s: float = 3.0
    warmup_cap_s: float = 60.0
    sessions: int = 1  # with a cool-down between them

    @property
    def known_as(self) -> str:
        """The name that a report carries: other numbers than the preset's own are custom, whatever their name."""
        return self.name if PRESETS.get(self.name) == self else "custom"

    def __post_init__(self) -> None:
        if self.iters < 1 or self.sessions < 1:
            raise ValueError(f"a preset needs iters and sessions of at least 1, got {self.iters} and {self.sessions}")


PRESETS = {
    "quick": Preset("quick"),
    "publishable": Preset("publishable", iters=1024, seconds=60.0, sessions=3),  # MLPerf's single-stream floor
}


def preset_of(preset: str | Preset) -> Preset:
    """A preset by name, or the numbers as given."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}. Known: {', '.join(PRESETS)}, or a Preset with numbers of its own")
    return PRESETS[preset]
