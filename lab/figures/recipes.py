"""In which fields recipes differ."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from lab.config import Recipe
from lab.results import Run


def config_difference(runs: Sequence[Run]) -> pd.DataFrame:
    """Only the recipe fields in which runs differ: a row per field, a column per run, values as text.

    A run whose recipe can't be read is left out.
    """
    columns: dict[str, dict[str, str]] = {}
    for run in runs:
        try:
            plain = _flat_recipe(run.recipe)
        except (OSError, ValueError):
            continue
        columns[run.label if run.label not in columns else run.id] = plain
    fields = list(dict.fromkeys(name for plain in columns.values() for name in plain))
    frame = pd.DataFrame({c: [plain.get(f, "") for f in fields] for c, plain in columns.items()}, index=fields)
    return frame[frame.nunique(axis=1) > 1]


def _flat_recipe(recipe: Recipe) -> dict[str, str]:
    """student.depth, pairs.l1, ... -> value as text."""
    plain = json.loads(recipe.to_json())
    flat = {f"student.{k}": v for k, v in plain.pop("student").items()}
    methods = plain.pop("methods")
    flat = {"method": "+".join(m["method"] for m in methods)} | flat | plain
    flat |= {f"{m['method']}.{k}": v for m in methods for k, v in m["options"].items()}
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in flat.items()}
