"""What public reference code gave: small files of arrays, in tests/data/parity or the folder that LAB_PARITY names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("LAB_PARITY", Path(__file__).parents[1] / "data" / "parity"))


@pytest.fixture(scope="session")
def arrays() -> Callable[[str], dict[str, Tensor]]:
    """The arrays of a file by name; the test is skipped where the file is not."""

    def read(name: str) -> dict[str, Tensor]:
        if not (path := FOLDER / name).exists():
            pytest.skip(f"{path} is not here; LAB_PARITY names the folder of such files")
        with np.load(path) as file:
            return {key: torch.from_numpy(np.asarray(value)) for key, value in file.items()}

    return read
