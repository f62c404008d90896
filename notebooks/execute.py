"""Run every notebook from a fresh kernel, at smoke size, as many at a time as there are cores; 1 if one failed.

`make notebooks` runs all and writes nothing. One at full size, keeping its outputs:

    .venv/bin/python notebooks/execute.py --full --write notebooks/00_quickstart.ipynb
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

HERE = Path(__file__).parent
TIMEOUT_S = 600  # of one cell
MOST = 4  # kernels at a time: each holds torch


def with_smoke(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy that sets `smoke = True` behind its cell tagged `parameters`."""
    copy = nbformat.from_dict(notebook)
    places = [i for i, cell in enumerate(copy.cells) if "parameters" in cell.metadata.get("tags", [])]
    if len(places) != 1:
        raise ValueError(f"a notebook needs one cell tagged `parameters`, found {len(places)}")
    copy.cells.insert(places[0] + 1, nbformat.v4.new_code_cell("smoke = True"))
    return copy


def execute(path: Path, *, smoke: bool, write: bool) -> str:
    """Run one notebook; gives its error, or "" if it had none."""
    notebook = nbformat.read(path, as_version=4)
    run = with_smoke(notebook) if smoke else notebook
    try:
        NotebookClient(run, timeout=TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": HERE}}).execute()
    except (CellExecutionError, CellTimeoutError) as error:
        return str(error)
    if write:
        nbformat.write(run, path)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of this folder")
    parser.add_argument("--full", action="store_true", help="at full size")
    parser.add_argument("--write", action="store_true", help="keep the outputs in the file; needs --full")
    args = parser.parse_args()
    if args.write and not args.full:
        parser.error("--write needs --full: smoke outputs are not worth keeping")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else the kernel warns about frozen modules
    paths = args.notebooks or sorted(HERE.glob("*.ipynb"))
    at_a_time = min(os.cpu_count() or 1, len(paths), MOST)
    if at_a_time > 1:  # a thread each, for kernels that share the cores would wait for one another
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // at_a_time)))

    def one(path: Path) -> str:
        began = time.monotonic()
        error = execute(path, smoke=not args.full, write=args.write)
        print(f"{path.name}: {'failed' if error else 'ran'} in {time.monotonic() - began:.0f} s", flush=True)
        if error:
            print(error, file=sys.stderr)
        return error

    with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
        return int(any([*pool.map(one, paths)]))


if __name__ == "__main__":
    sys.exit(main())
