"""Where things lie that a person names: paths with ~, the results folder. The standard library alone, for doctor."""

from __future__ import annotations

import os
from pathlib import Path


def at_home(told: str | Path, what: str) -> Path:
    """A path that may begin with ~. Raises ValueError, with `what` it is, where no such home is known."""
    try:
        return Path(told).expanduser()
    except RuntimeError:  # ~ without a home, ~name of nobody
        raise ValueError(f"{what} is {str(told)!r}, and no such home is known; give the whole path") from None


def if_there(told: str) -> Path:
    """A path that may begin with ~; the home of nobody stays as it is told, which is no folder."""
    return Path(os.path.expanduser(told))


def default_root() -> Path:
    """LAB_RESULTS, or the results folder beside the package."""
    return at_home(os.environ.get("LAB_RESULTS") or Path(__file__).parent.parent / "results", "LAB_RESULTS")
