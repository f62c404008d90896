"""Device reports from elsewhere: read from files that anybody may have written, graded, and stored. No torch here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.choose import WEAK
from lab.config import JSON
from lab.devices.report import Grade, grade, is_checked, load, parse
from lab.results import Run, Store, read_json
from lab.schema import shown


@dataclass(frozen=True)
class Arrival:
    """One report that was brought in."""

    file: str
    report: dict[str, Any]  # as it is stored
    new: bool  # False: it was there already, and nothing changed
    grade: Grade
    run: str | None  # the label of the run with these weights; None while there is none here

    @property
    def left_out(self) -> str | None:
        """Why no recommendation will rest on it; None if one may."""
        kept = self.grade.letter not in WEAK or self.grade.unsteady
        return None if kept else "; ".join(self.grade.reasons)


def import_reports(files: Sequence[Path | str], store: Store, *, dry_run: bool = False) -> list[Arrival]:
    """Check report files and store them; a report that is there already is no change.

    What was measured elsewhere becomes `imported`, without its drift where too few single times show it; what was
    published or estimated stays so. Raises ValueError with a sentence for every file that can't be taken, and then
    stores none of them.
    """
    return _import([(Path(file).name, functools.partial(load, file)) for file in files], store, dry_run=dry_run)


def import_contents(contents: Sequence[tuple[str, bytes]], store: Store, *, dry_run: bool = False) -> list[Arrival]:
    """The same of files that are in memory: (name, content)."""
    readers = [(name, functools.partial(parse, content, name)) for name, content in contents]
    return _import(readers, store, dry_run=dry_run)


def _import(readers: Sequence[tuple[str, Callable[[], dict[str, JSON]]]], store: Store, *, dry_run: bool
            ) -> list[Arrival]:  # fmt: skip
    found, wrong, runs = [], [], _runs(store)
    for name, read in readers:
        try:
            report = _as_imported(read())
            _hold(report, runs.get(report["model"]["weights_sha256"]), name)
            found.append((name, report, _is_new(report, store, [r for _, r, _ in found])))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        others = f"\nnone of the {len(readers)} files was stored" if len(readers) > 1 else ""
        raise ValueError("\n".join(wrong) + others)
    if not dry_run:
        for _, report, new in found:
            if new:
                store.add_report(report)
    known = [runs.get(report["model"]["weights_sha256"]) for _, report, _ in found]
    return [Arrival(file, report, new, grade(report), run and run.label)
            for (file, report, new), run in zip(found, known)]  # fmt: skip


def _as_imported(report: dict[str, JSON]) -> dict[str, JSON]:
    if report["provenance"] not in ("measured", "imported"):
        return report
    timing = report["timing"]
    if not is_checked(timing):
        # The table of reports is without single times: a drift that is not known keeps it at a C there, too.
        timing = timing | {"drift": None, "samples_ns": timing.get("samples_ns")}
    return report | {"provenance": "imported", "timing": timing}


def _is_new(report: dict[str, JSON], store: Store, before: Sequence[dict[str, JSON]]) -> bool:
    """Whether nothing of its id is there yet. Raises ValueError if something else bears its id."""
    path = store.root / "devices" / f"{report['report_id']}.json"
    there = [r for r in before if r["report_id"] == report["report_id"]]
    if path.exists():
        there.append(read_json(path))
    if any(not isinstance(other, dict) or _as_imported(other) != report for other in there):
        raise ValueError(f"another report is already called {report['report_id']!r}; "
                         "the one that is there stays, give the new one an id of its own")  # fmt: skip
    return not there


def _runs(store: Store) -> dict[str, Run]:
    """sha256 of weights -> the run."""
    facts = [(run, run.read("student")) for run in store.runs()]
    return {plain["weights_sha256"]: run for run, plain in facts if isinstance(plain, dict)}


def _hold(report: Mapping[str, Any], run: Run | None, file: str) -> None:
    """Raises ValueError where a report tells another network than the run here that has its weights."""
    if run is None:
        return
    told, ours = report["model"]["config"], run.read("student")["config"]
    if apart := [name for name in ours if name in told and told[name] != ours[name]]:
        said = ", ".join(f"{name} {shown(str(told[name]))}, not {ours[name]}" for name in apart[:3])
        raise ValueError(f"{shown(file)[1:-1]}: its weights are those of {run.label}, and model.config says {said}")
