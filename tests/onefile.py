"""`runner`: the runner as a pack carries it, in one file, imported from outside the lab."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

from lab.devices.bundle import bundled

FOLDER = tempfile.TemporaryDirectory()  # goes when the tests end
FILE = Path(FOLDER.name) / "runner.py"
FILE.write_bytes(bundled())
place = importlib.util.spec_from_file_location("runner", FILE)
runner = sys.modules["runner"] = importlib.util.module_from_spec(place)  # known first: dataclasses look themselves up
place.loader.exec_module(runner)
