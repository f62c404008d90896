"""What this machine has for the lab, what it lacks, and the command that mends it. Nothing is fetched.

Every package is imported where it is looked at: one that is missing or broken is a row, and the rest is still told.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import compiler, locks
from lab.devices.runner import HERE
from lab.places import at_home, default_root

if TYPE_CHECKING:
    from lab.results import Store

REQUIREMENTS = Path(__file__).parent.parent / "requirements.txt"
INSTALL = "python -m pip install -r requirements.txt"
ONE_BUILD = "install torch and torchvision of one build, from one place"
# What an import raises: of a package that is not here, whose libraries don't load, or that was made for another one.
BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError)
EDGE = ("onnx", "onnxruntime", "onnxscript", "openvino", "tensorrt")  # optional runtimes
DISK_GB = 5  # 100,000 pairs of 28x28, their runs and a cache of samples


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    state: str  # fine, note (something is left out), wrong (the lab can't work)
    found: str
    mend: str = ""


def examine(results: Store | Path | str | None = None) -> list[Finding]:
    """Everything that the lab needs, in the order in which it would fail; of a store or the folder of one."""
    software = [_python(), *_packages(), _torchvision()]
    root = _root(results)
    return [*software, _device(), _compiler(), _memory(), *_data(), *_weights(), _results(root), *_faults(root),
            _locks(root), _disk(root), _edge()]  # fmt: skip


def _root(results: Store | Path | str | None) -> Path:
    """The results folder, without lab.results, which can't be imported without pandas."""
    if results is None:
        return default_root()
    return at_home(results, "the results folder") if isinstance(results, (str, Path)) else results.root


def _why(error: BaseException) -> str:
    """The first line of an error: some packages explain themselves at length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _unusable(check: str, what: str, error: BaseException) -> Finding:
    """A row of something that a package is needed for, which can't be imported."""
    mend = INSTALL if isinstance(error, ModuleNotFoundError) else ONE_BUILD
    return Finding(check, "wrong", f"{what} can't be imported: {_why(error)}", mend)


def _python() -> Finding:
    return Finding("python", "fine", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> list[Finding]:
    return [_package(line) for line in required() if not line.startswith("torchvision")]


def required(path: Path = REQUIREMENTS) -> list[str]:
    """The lines of requirements.txt that name a package; empty where the lab was installed without it."""
    if not path.exists():
        return []
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def _package(line: str) -> Finding:
    name, bounds = re.fullmatch(r"([\w.-]+)(.*)", line).groups()
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "wrong", "not installed", INSTALL)
    for relation, bound in re.findall(r"(>=|<)\s*([\d.]+)", bounds):
        if (_release(version) >= _release(bound)) != (relation == ">="):
            return Finding(name, "note", f"{version}, tried with {bounds}", f"python -m pip install '{line}'")
    return Finding(name, "fine", version)


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version without trailing zeros, so that 3.0 equals 3."""
    numbers = [int(n) for n in re.match(r"\d+(\.\d+)*", version)[0].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _torchvision() -> Finding:
    # Its compiled part fits exactly one torch; a CUDA build beside a CPU torch fails on import.
    try:
        found = importlib.import_module("torchvision")
    except BROKEN as error:
        return _unusable("torchvision", "it", error)
    return Finding("torchvision", "fine", found.__version__)


def _device() -> Finding:
    try:
        import torch
    except BROKEN as error:
        return _unusable("device", "torch", error)
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} CPUs, {torch.backends.cpu.get_cpu_capability()}"
    if torch.cuda.is_available():
        return Finding("device", "fine", f"{torch.cuda.get_device_name()} (cuda); {threads}")
    if torch.backends.mps.is_available():
        return Finding("device", "fine", f"mps; {threads}")
    return Finding("device", "fine", f"cpu; {threads}")


def _compiler() -> Finding:
    if why := compiler.missing():
        said, _, mend = why.rpartition("; ")
        return Finding("compiler", "note", f"torch.compile needs {said}; a CPU works without it, only slower", mend)
    return Finding("compiler", "fine", "torch.compile has its C++ compiler")


def _memory() -> Finding:
    if (mb := HERE.memory_mb()) == 1:  # it is not told
        return Finding("memory", "note", "unknown")
    total = mb * 2**20 / 1e9
    if total < 4:
        return Finding("memory", "note", f"{total:.1f} GB", "measure new runs on fewer samples, which compare among "
                       "themselves only: python -m lab eval RUN --samples 2000")  # fmt: skip
    return Finding("memory", "fine", f"{total:.1f} GB")


def _data() -> list[Finding]:
    try:
        from lab import data
    except BROKEN as error:
        return [_unusable("data sets", "lab.data", error)]
    found = []
    for name in data.DATASETS:
        try:
            fault = data.fault(name)
        except BROKEN:  # a torchvision that can't be imported has a row of its own
            fault = "its files can't be checked without torchvision", ""
        found.append(Finding(name, "note", *fault) if fault else Finding(name, "fine", "on this machine"))
    return found


def _weights() -> list[Finding]:
    try:
        from lab import metrics, perceptual
    except BROKEN as error:
        return [_unusable(f"{name} weights", "lab.metrics", error) for name in ("lpips", "inception")]
    try:
        folder, lpips = perceptual.weights_dir(), perceptual.backbone()
    except ValueError as error:  # no home
        return [Finding("lpips and inception weights", "note", str(error), "export TORCH_HOME=FOLDER")]
    return [
        Finding("lpips weights", "fine", perceptual.BACKBONES[lpips]) if lpips else
        Finding("lpips weights", "note", f"not in {folder}; images without a net of their own borrow that of "
                f"{perceptual.LENDER}", "python -m lab fetch lpips"),
        Finding("inception weights", "fine", metrics.INCEPTION_FILE) if (folder / metrics.INCEPTION_FILE).exists() else
        Finding("inception weights", "note", f"not in {folder}; natural images can't be measured without",
                "python -m lab fetch inception"),
    ]  # fmt: skip


def _results(root: Path) -> Finding:
    if root.exists() and not root.is_dir():
        return Finding("results", "wrong", f"{root} is a file", "name a folder by --results or LAB_RESULTS")
    folder = root if root.exists() else root.absolute().parent
    if not os.access(folder, os.W_OK):
        return Finding("results", "wrong", f"{folder} can't be written", "name another folder by --results")
    try:
        from lab.results import Store
    except BROKEN as error:
        return Finding("results", "wrong", f"{root} can't be read: {_why(error)}", INSTALL)
    store = Store(root)
    runs = store.runs()
    done = sum(isinstance(run.read("student"), dict) for run in runs)
    teachers = [alias for alias, target in store.teachers().items() if (store.root / "runs" / target).exists()]
    broken = [alias for alias in store.teachers() if alias not in teachers]
    found = f"{store.root}: {len(runs)} runs, {done} finished; teachers: {', '.join(teachers) or 'none'}"
    if broken:
        return Finding("results", "note", found, f"teachers.json names runs that are not there: {', '.join(broken)}")
    return Finding("results", "fine", found)


def _faults(root: Path) -> list[Finding]:
    """A row for each file of the results folder that can't be read."""
    try:
        from lab.results import Store
    except BROKEN:  # said by the row of the results
        return []
    return [Finding("unreadable", "note", f"{place}: {wrong}", "mend the file or move it away; all else stands without")
            for place, wrong in Store(root).faults().items()]  # fmt: skip


def _locks(root: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=_there(root)) as file:
            if locks.take(file):
                return Finding("locks", "fine", "a run is worked on by one process at a time")
    except OSError:  # said by the row of the results
        return Finding("locks", "note", f"{_there(root)} can't be written")
    why = f"{platform.system()} has no fcntl" if locks.fcntl is None else f"the file system of {_there(root)} has none"
    return Finding("locks", "note", f"{why}: two processes may work on one run and spoil it", "start each run once, or "
                   "name a local folder by --results")  # fmt: skip


def _there(root: Path) -> Path:
    """The folder, or the nearest around it that there is."""
    return next(p for p in [root.absolute(), *root.absolute().parents] if p.exists())


def _disk(root: Path) -> Finding:
    folder = _there(root)
    free = shutil.disk_usage(folder).free / 1e9
    if free < DISK_GB:
        return Finding(
            "disk", "note", f"{free:.1f} GB free at {folder}", f"a study's pairs and caches take {DISK_GB} GB"
        )
    return Finding("disk", "fine", f"{free:.1f} GB free at {folder}")


def _edge() -> Finding:
    there = [name for name in EDGE if importlib.util.find_spec(name)]
    if len(there) == len(EDGE):
        return Finding("edge runtimes", "fine", ", ".join(there))
    lacking = ", ".join(name for name in EDGE if name not in there)
    return Finding("edge runtimes", "note", f"{', '.join(there) or 'none'}; optional and not here: {lacking}",
                   "python -m pip install -e '.[edge]' (tensorrt: its maker's package)")  # fmt: skip
