"""Plain torch: every operation as it comes. The reference that all other runtimes are held against."""

from __future__ import annotations

from pathlib import Path

from lab.config import NetConfig
from lab.diffusion import SOLVER
from lab.models.blocks.dynamic import fast
from lab.precisions import FORMS
from lab.results import Run
from lab.runtimes.base import TorchSession, check_precision


class EagerSession(TorchSession):
    """Where a network leaves out what does not act, it is not computed: the graph may depend on values here."""

    form = staticmethod(fast)


class Eager:
    name = "eager"
    precisions = FORMS[name]
    exports = False

    def missing(self) -> str | None:
        return None

    def why_not(self, config: NetConfig, precision: str | None = None) -> str | None:
        return None

    def export(self, run: Run, precision: str = "fp32", *, force: bool = False, solver: str = SOLVER) -> Path:
        """Nothing to make: the run's own weights are what it reads."""
        check_precision(self, precision)
        return run.path

    def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "fp32",
             solver: str = SOLVER) -> EagerSession:  # fmt: skip
        return EagerSession(path, device=device, threads=threads, precision=precision, solver=solver)


RUNTIME = Eager()
