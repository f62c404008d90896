"""A deployed student as a program of torch.export: one .pt2 file for what converts or compiles torch's own graphs.

It is a file to hand on (Core ML Tools, ExecuTorch, AOTInductor), not a way to run networks here: nothing of the lab
reads a .pt2 but the one that it has just written, to hold its images against the network's own. The format can carry
code, so a file of strangers must never be loaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lab import artefacts, deploy
from lab.config import NetConfig, unknown
from lab.data import ImageSpec
from lab.deploy import Deployed
from lab.pack_readme import COREML_NOTE, coreml
from lab.results import Run, write_whole

NAME, FILE, README = "torch-export", "model.pt2", "README.md"
PRECISIONS = ("fp32",)
BATCHES = 65_536  # at most; the program is for any number of images up to it


class TorchExport:
    """The side of a runtime that makes files: what `lab export` and the page Export need."""

    name, precisions, exports = NAME, PRECISIONS, True

    def missing(self) -> str | None:
        return None

    def refuses(self, config: NetConfig) -> str | None:
        return deploy.refusal(config)

    def export(self, run: Run, precision: str = "fp32", *, force: bool = False) -> Path:
        """Make the file, unless it is there for these weights or `force` is given; gives its folder.

        Raises ValueError for another precision than fp32 or a network without a deployed form.
        """
        if precision not in PRECISIONS:
            raise ValueError(unknown(f"precision of {NAME}", precision, PRECISIONS))
        return artefacts.ensure(run, NAME, precision, write=_write, open=_own_images, force=force,
                                versions={"torch": torch.__version__})  # fmt: skip


def exported(net: Deployed, spec: ImageSpec) -> torch.export.ExportedProgram:
    """The program of a network: (z, y) -> image, z alone if it is unconditional; for any batch."""
    batch = torch.export.Dim("batch", min=1, max=BATCHES)
    given: dict[str, torch.Tensor] = {"z": torch.zeros(2, *spec.shape)}  # of two: a batch of one would be a constant
    if net.config.num_classes:
        given["y"] = torch.tensor([0, 0])
    shapes = {"z": {0: batch}, "y": {0: batch} if "y" in given else None}
    return torch.export.export(net, tuple(given.values()), dynamic_shapes={name: shapes[name] for name in given})


def _write(net: Deployed, spec: ImageSpec, folder: Path) -> None:
    torch.export.save(exported(net, spec), folder / FILE)
    write_whole(folder / README, _readme(net, spec).encode())


def _readme(net: Deployed, spec: ImageSpec) -> str:
    inputs = f"noise z, float32 (B, {', '.join(map(str, spec.shape))})"
    inputs += ", and classes y, int64 (B,)" if net.config.num_classes else ""
    return f"""# {net.config.shape} as a program of torch.export

`{FILE}` maps {inputs}, to images of about [-1, 1] in one evaluation, for any batch B. Made by torch
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
        return network(*[torch.from_numpy(v) for v in (z, y) if v is not None]).numpy()

    return images


TARGET = TorchExport()

__all__ = ["NAME", "PRECISIONS", "TARGET", "exported"]
