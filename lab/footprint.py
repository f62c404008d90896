"""How much memory a network takes where nothing else is: the peak of a fresh process that opens it and draws.

The process that times networks has held others before, and torch besides: its own peak tells of those. A runtime that
reads files names in ALONE the program that such a process needs, without torch and without the lab; of the others
the lab itself is part of what runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lab.config import JSON
from lab.runtimes import Runtime

LIMIT_S = 180.0  # a compilation in it takes up to a minute
DRAWS = 3

# The names of its one argument, an object, are the program's variables.
BEFORE = "import json, sys\nglobals().update(json.loads(sys.argv[1]))\n"
LAB = """
from pathlib import Path
import numpy
from lab import runtimes
session = runtimes.get(runtime).open(Path(folder), device=device, threads=threads, precision=precision, solver=solver)
noise = numpy.zeros((batch, *session.spec.shape), "float32")
classes = numpy.zeros(batch, "int64") if session.config.num_classes else None
with session:
    inputs = session.place(noise, classes)
    session.build(inputs)
    for _ in range(draws):
        session.fetch(session.run(inputs))
"""
# VmHWM is this program's alone; ru_maxrss begins with what the process was that started it.
AFTER = """
try:
    said = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    peak = int(said[0].split()[1]) / 1024
except (OSError, IndexError):
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
print(peak)
"""


def peak(runtime: Runtime, folder: Path, *, batch: int, threads: int, precision: str, device: str = "cpu",
         solver: str = "dpmpp2m-8") -> tuple[float | None, str]:  # fmt: skip
    """Peak resident memory in MB of a process that draws `batch` images with what `runtime.export` made, and in words
    what was in it; None with the reason where it could not be told.
    """
    alone = getattr(runtime, "ALONE", None)
    given: dict[str, JSON] = {
        "folder": str(folder.resolve()), "batch": batch, "threads": threads, "precision": precision, "device": device,
        "solver": solver, "runtime": runtime.name, "draws": DRAWS,
    }  # fmt: skip
    what = f"a fresh process with {f'{runtime.name} alone' if alone else 'torch and the lab'} that draws {DRAWS} times"
    if sys.platform == "win32":
        return None, f"not told: {what} can't be asked for its peak on Windows"
    here = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run([sys.executable, "-c", f"{BEFORE}{alone or LAB}{AFTER}", json.dumps(given)],
                              env=os.environ | here, capture_output=True, text=True, timeout=LIMIT_S)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"not told: {what} failed: {error}"
    if done.returncode:
        return None, f"not told: {what} failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}"
    return round(float(done.stdout.split()[-1]), 1), f"peak resident memory of {what}"
