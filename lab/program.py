"""A deployed network as a program of torch.export: one .pt2 file for what converts or compiles torch's own graphs.

It is a file to hand on (Core ML Tools, ExecuTorch, AOTInductor), not a way to run networks here: nothing of the lab
reads a .pt2 but the one that it has just written, to hold its images against the network's own. The format can carry
code, so a file of strangers must never be loaded.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lab import artefacts, diffusion, export
from lab.config import NetConfig, RoutedConfig, unknown
from lab.data import ImageSpec
from lab.pack_readme import COREML_NOTE, coreml
from lab.precisions import FORMS
from lab.results import Run, write_whole

NAME, FILE, README = "torch-export", "model.pt2", "README.md"
PRECISIONS = FORMS[NAME]
DRAWN = 32  # images at a time; programs of diffusers' U-Nets take less than 64


class TorchExport:
    """The side of a runtime that makes files: what `lab export` and the page Export need."""

    name, precisions, exports = NAME, PRECISIONS, True

    def missing(self) -> str | None:
        return None

    def why_not(self, config: NetConfig, precision: str | None = None) -> str | None:
        if isinstance(config, RoutedConfig):
            return (f"a program of {NAME} would be for batches with images of every one of the {config.experts} "
                    "experts; export the runs that it was joined from, or to onnxruntime")  # fmt: skip
        return None

    def export(self, run: Run, precision: str = "fp32", *, force: bool = False, solver: str = diffusion.SOLVER
               ) -> Path:  # fmt: skip
        """Make the file, unless it is there for these weights or `force` is given; gives its folder.

        Raises ValueError for another precision than fp32, or a network that has no such program.
        """
        if why := self.why_not(run.config):
            raise ValueError(why)
        if precision not in PRECISIONS:
            raise ValueError(unknown(f"precision of {NAME}", precision, PRECISIONS))
        return artefacts.ensure(run, NAME, precision, write=_write, open=_own_images, force=force,
                                solver=solver, versions={"torch": torch.__version__})  # fmt: skip


def _write(net: nn.Module, spec: ImageSpec, folder: Path) -> None:
    program = export.program(net, spec)
    torch.export.save(program, folder / FILE)
    write_whole(folder / README, _readme(net, spec, program).encode())


def most(program: torch.export.ExportedProgram) -> int | None:
    """The largest batch of a program; None where it takes any."""
    largest = min((limit.upper for limit in program.range_constraints.values()), default=math.inf)
    return int(largest) if largest < 2**31 else None


def _readme(net: nn.Module, spec: ImageSpec, program: torch.export.ExportedProgram) -> str:
    inputs = f"noise z, float32 (B, {', '.join(map(str, spec.shape))})"
    inputs += ", and classes y, int64 (B,)" if net.config.num_classes else ""
    batches = f"batches B up to {limit}" if (limit := most(program)) else "any batch B"
    return f"""# {net.config.shape} as a program of torch.export

`{FILE}` maps {inputs}, to images of about [-1, 1] in one call, for {batches}. Made by torch
{torch.__version__}; load it with `torch.export.load`, which trusts the file: load no strangers' ones.

## Core ML

{COREML_NOTE}

```python
{coreml(spec.shape, classes=net.config.num_classes > 0)}```
"""


def _own_images(folder: Path) -> artefacts.Images:
    """Of the file that was written a moment ago."""
    network = torch.export.load(folder / FILE).module()

    @torch.inference_mode()
    def images(z: np.ndarray, y: np.ndarray | None) -> np.ndarray:
        parts = [torch.split(torch.from_numpy(v), DRAWN) for v in (z, y) if v is not None]
        return torch.cat([network(*some) for some in zip(*parts)]).numpy()

    return images


TARGET = TorchExport()

__all__ = ["NAME", "PRECISIONS", "TARGET", "most"]
