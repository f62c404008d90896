"""Run every notebook from a fresh kernel, at smoke size, and fail on the first error.

`make notebooks` runs all and writes nothing. One at full size, keeping its outputs:

    .venv/bin/python notebooks/execute.py --full --write notebooks/00_quickstart.ipynb
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent
TIMEOUT_S = 600  # of one cell


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
    except CellExecutionError as error:
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
    failed = 0
    for path in args.notebooks or sorted(HERE.glob("*.ipynb")):
        began = time.monotonic()
        error = execute(path, smoke=not args.full, write=args.write)
        print(f"{path.name}: {'failed' if error else 'ran'} in {time.monotonic() - began:.0f} s", flush=True)
        if error:
            print(error, file=sys.stderr)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
