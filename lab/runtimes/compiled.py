"""torch.compile: the network as one compiled graph for one batch size. Building takes 10 to 60 s."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lab import compiler
from lab.config import NetConfig, RoutedConfig
from lab.diffusion import SOLVER
from lab.precisions import FORMS
from lab.results import Run
from lab.runtimes.base import TorchSession, check_precision


class CompiledSession(TorchSession):
    builds = True

    def __init__(self, folder: Path, *, device: str, threads: int | None, precision: str, solver: str) -> None:
        import torch._inductor.compile_fx  # noqa: F401 - takes seconds, which are no part of building

        super().__init__(folder, device=device, threads=threads, precision=precision, solver=solver)
        # fullgraph: an error instead of a silent fall back to eager. isolate_recompiles: torch keeps
        # eight graphs for a forward function and then gives up; each session has its own eight.
        # Of a solver one evaluation is compiled, not all of them one after the other.
        part = self.net.net if self.config.time else self.net
        part.compile(fullgraph=True, dynamic=False, isolate_recompiles=True)

    def build(self, inputs: tuple[Tensor, Tensor | None]) -> None:
        """One call, which compiles; whether torch's cache on disk had the graph already is a flag."""
        from torch._dynamo.utils import counters

        before = counters["inductor"]["fxgraph_cache_hit"]
        self.run(inputs)
        warm = counters["inductor"]["fxgraph_cache_hit"] > before
        self.flags.append(f"build_cache={'warm' if warm else 'cold'}")


class Compiled:
    name = "compiled"
    precisions = FORMS[name]
    exports = False

    def missing(self) -> str | None:
        why = None if torch.cuda.is_available() else compiler.missing()
        return why and f"runtime compiled needs {why}"

    def why_not(self, config: NetConfig, precision: str | None = None) -> str | None:
        if isinstance(config, RoutedConfig):
            return (f"runtime compiled takes one graph, and this network's way through its {config.experts} experts "
                    "depends on the classes; take another runtime, or the runs that it was joined from")  # fmt: skip
        return None

    def export(self, run: Run, precision: str = "fp32", *, force: bool = False, solver: str = SOLVER) -> Path:
        """Nothing to make: it compiles the run's own weights when they are first used."""
        check_precision(self, precision, run.config)
        return run.path

    def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "fp32",
             solver: str = SOLVER) -> CompiledSession:  # fmt: skip
        return CompiledSession(path, device=device, threads=threads, precision=precision, solver=solver)


RUNTIME = Compiled()
