"""Edge DiT Lab: design small one-step Diffusion Transformers by distillation, and choose among them.

The public names load on first use, so that `import lab.results` stays free of torch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOMES = {
    "DiTConfig": "lab.config",
    "UNetConfig": "lab.config",
    "Recipe": "lab.config",
    "Use": "lab.config",
    "Run": "lab.results",
    "Store": "lab.results",
    "Budget": "lab.choose",
    "recommend": "lab.choose",
    "Compute": "lab.experiment",
    "run": "lab.experiment",
    "generate": "lab.sampling",
    "load": "lab.sampling",
    "sample": "lab.sampling",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lab' has no attribute {name!r}; it gives {', '.join(_HOMES)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
