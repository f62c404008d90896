"""Ways to run a network, one file each; a file's RUNTIME is found by scanning this folder."""

import importlib
import pkgutil

from lab.config import unknown
from lab.runtimes.base import Runtime, Session, check_inputs

_found = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__) if m.name != "base"]
RUNTIMES: dict[str, Runtime] = {module.RUNTIME.name: module.RUNTIME for module in _found}


def names() -> list[str]:
    """Every runtime that the lab knows, whether or not its package is here."""
    return sorted(RUNTIMES)


def get(name: str) -> Runtime:
    """A runtime by name. Raises ValueError for an unknown one, LookupError for one that can't work here."""
    if name not in RUNTIMES:
        raise ValueError(unknown("runtime", name, RUNTIMES))
    if why := RUNTIMES[name].missing():
        raise LookupError(why)
    return RUNTIMES[name]


__all__ = ["RUNTIMES", "Runtime", "Session", "check_inputs", "get", "names"]
