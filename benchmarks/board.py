"""How long is the way from a student to a report of another machine? A pack in an empty folder, a fresh environment.

    python benchmarks/board.py d12w40h4p4m104 --with onnxruntime,torch --out results/benchmarks/board.json

This machine plays the board: its environment holds one runtime and what that needs, nothing of the lab. Seconds of each
step: pack, make the environment (installing included), unpack, time (preset quick), import, which checks, grades and
keeps the report in the results folder. A step that fails is named, and the next runtime has its turn; the file is
written after each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from networks import commit, machine

from lab.devices.incoming import import_reports
from lab.pack import pack
from lab.results import Run, Store, write_json

T = TypeVar("T")
ALONE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}  # else the lab is in sight


def there_and_back(run: Run, store: Store, runtime: str, target: str) -> dict[str, object]:
    """One row: what each step took, and the report that came home."""
    seconds: dict[str, float] = {}

    def timed(step: str, act: Callable[[], T]) -> T:
        began = time.perf_counter()
        done = act()
        seconds[step] = round(time.perf_counter() - began, 2)
        return done

    with tempfile.TemporaryDirectory() as folder:
        home, board = Path(folder) / "home", Path(folder) / "board"
        home.mkdir()
        made = timed("pack", lambda: pack(run, target, home / "student.zip"))
        python = Path(folder) / "env" / "bin" / "python"

        def environment() -> None:
            venv.create(Path(folder) / "env", with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", runtime], check=True, env=ALONE)

        timed("environment", environment)
        listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True,
                                env=ALONE)  # fmt: skip
        timed("unpack", lambda: zipfile.ZipFile(made.path).extractall(board))
        command = [python, "runner.py", "--preset", "quick", "--runtime", runtime, "--out", "report.json"]
        timed("time", lambda: subprocess.run(command, cwd=board, check=True, stdout=sys.stderr, env=ALONE))
        (arrival,) = timed("import", lambda: import_reports([board / "report.json"], store))
    report = arrival.report
    return {"runtime": runtime, "seconds": seconds, "without environment": round(sum(seconds.values())
            - seconds["environment"], 2), "packages": [one["name"] for one in json.loads(listed.stdout)],
            "report": report["report_id"], "grade": arrival.grade.letter, "output_ok": report["checks"]["output_ok"],
            "p50": report["timing"]["p50"], "run": arrival.run}  # fmt: skip


def main(student: Run, store: Store, runtimes: list[str], target: str, out: Path) -> int:
    """A row for each runtime that came home, kept as soon as it did; 1 if one did not."""
    rows = []
    for runtime in runtimes:
        try:
            row = there_and_back(student, store, runtime, target)
        except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as error:
            print(f"{runtime}: no report came home: {_sentence(error)}", file=sys.stderr)
            continue
        rows.append(row)
        write_json(out, {"machine": machine(), "rows": rows, "commit": commit()})
        steps = ", ".join(f"{step} {s:.1f} s" for step, s in row["seconds"].items())
        print(f"{runtime}: {steps}; grade {row['grade']}, images right: {row['output_ok']}", flush=True)
    return int(len(rows) < len(runtimes))


def _sentence(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"`{' '.join(str(word) for word in error.cmd)}` ended with exit code {error.returncode}"
    return str(error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", help="id, part of one, or label")
    parser.add_argument("--with", dest="runtimes", default="onnxruntime,torch", help="what the board has; one each")
    parser.add_argument("--target", default="cpu", choices=["jetson", "rpi", "cpu"])
    parser.add_argument("--results", help="where the student lies and the reports come home to")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/board.json"))
    args = parser.parse_args()
    store = Store(args.results)
    student = store.get(args.student)
    sys.exit(main(student, store, args.runtimes.split(","), args.target, args.out))
