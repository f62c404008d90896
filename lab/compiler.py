"""The C++ compiler through which torch.compile makes code for a CPU: is it on this machine?"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def missing() -> str | None:
    """None if torch finds its C++ compiler here, else what is needed, why it is not here, and what mends that.

    It calls CXX where that is set, else clang++ on a Mac and g++ elsewhere (torch._inductor.config.cpp.cxx).
    """
    asked = os.environ.get("CXX")
    default = "clang++" if sys.platform == "darwin" else "g++"
    command = (shlex.split(asked) if asked else [default])[:1]
    if command and shutil.which(command[0]):
        return None
    wanted = f"CXX names {asked!r}, which is not there" if asked else f"no {default} is here"
    if other := next((name for name in ("g++", "clang++", "c++") if shutil.which(name)), None):
        return f"a C++ compiler, and {wanted}; set CXX={other}, which is"
    mend = "xcode-select --install" if sys.platform == "darwin" else "apt-get install g++"
    return f"a C++ compiler, and {wanted}; {mend}"


def can_compile(device: str | torch.device, what: str = "") -> bool:
    """Whether torch.compile works for a device here; where it doesn't, a notice says that `what` goes on without.

    Code for a GPU is made by another compiler, which torch brings along.
    """
    why = missing() if str(device).split(":")[0] == "cpu" else None
    if why and what:
        warnings.warn(f"{what} goes on uncompiled, which is only slower; torch.compile needs {why}", stacklevel=3)
    return why is None
