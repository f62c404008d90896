"""Kinds of block of a DiT, one file each: `DiTConfig.block` names the file, whose class is `Block`.

A block is built from the config and called as block(x, condition, taps, index), tokens (B, N, D) to tokens. It names
the inner tensors it gives in `taps`, and sets in `initialise` what is not to begin as every Linear does.
"""

import importlib
import pkgutil

from torch import nn

BLOCKS: dict[str, type[nn.Module]] = {
    found.name: importlib.import_module(f"{__name__}.{found.name}").Block for found in pkgutil.iter_modules(__path__)
}

__all__ = ["BLOCKS"]
