"""The command: times the network of the pack that it stands in, and writes one device report."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.devices.runner.errors import Broken, Missing, Refused, Usage
from lab.devices.runner.in_process import OnnxRuntime, Torch, by_calls
from lab.devices.runner.machine import HERE, Machine
from lab.devices.runner.pack import Pack
from lab.devices.runner.preset import PRESETS, Preset
from lab.devices.runner.quiet import look
from lab.devices.runner.report import report_of
from lab.devices.runner.trtexec import TrtExec, by_trtexec
from lab.devices.runner.watch import idle_w

AMBIENT_C = (-40.0, 85.0)  # what a room, a car or a mast can have
OK, FAILED, USAGE, MISSING = 0, 1, 2, 3  # exit codes
RUNTIMES = {runtime.name: runtime for runtime in (OnnxRuntime, Torch, TrtExec)}


def choose_runtime(options: argparse.Namespace, machine: Machine) -> Any:
    """The runtime that was asked for, or the first that is here and can do what was asked for.

    Raises Usage for what none can do, Missing where nothing that can is here.
    """
    order = ["onnxruntime", "torch", "trtexec"]
    if machine.family == "jetson" and options.device != "cpu":
        order = ["trtexec", "torch", "onnxruntime"]
    wanted = order if options.runtime == "auto" else [options.runtime]
    able = [RUNTIMES[name] for name in wanted if options.scope in RUNTIMES[name].scopes
            and (options.device == "auto" or options.device in RUNTIMES[name].devices)]  # fmt: skip
    if not able:
        raise Usage(f"{' and '.join(wanted)} can't time scope {options.scope} on device {options.device}")
    lacking = [runtime.missing(machine) for runtime in able]
    for runtime, why in zip(able, lacking):
        if why is None:
            return runtime
    raise Missing(f"no runtime for this is here. Any one of these would do: {'; '.join(lacking)}")


def parser(machine: Machine = HERE) -> argparse.ArgumentParser:
    def at_least_1(text: str) -> int:
        if not text.isdigit() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
        return int(text)

    def celsius(text: str) -> float:
        with suppress(ValueError):
            if AMBIENT_C[0] <= float(text) <= AMBIENT_C[1]:
                return float(text)
        low, high = AMBIENT_C
        raise argparse.ArgumentTypeError(f"must be degrees Celsius between {low:g} and {high:g}, got {text!r}")

    cpus = machine.threads()
    made = argparse.ArgumentParser(
        prog="runner.py",
        description="Time the network of this pack on this machine and write one device report.",
        epilog="""Examples:
  python3 runner.py --preset quick
  python3 runner.py --preset publishable --runtime trtexec --precision fp16
  python3 runner.py --runtime onnxruntime --threads 4 --batch 16 --out report-b16.json
Exit codes: 0 done, 1 it failed or the images are wrong, 2 wrong usage, 3 no runtime or no pack here.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--preset", choices=[*PRESETS], default="quick", help="quick: seconds; publishable: minutes")
    made.add_argument("--runtime", choices=["auto", *RUNTIMES], default="auto", help="default: the first that is here")
    made.add_argument(
        "--precision",
        default="auto",
        metavar="P",
        help="fp32, fp16, bf16, int8, ...: what the pack has (default fp16 for trtexec, else fp32)",
    )
    made.add_argument("--batch", type=at_least_1, default=1, help="images at once (default 1)")
    made.add_argument("--threads", type=at_least_1, default=cpus, help=f"CPU threads (default {cpus}, all there are)")
    made.add_argument(
        "--scope",
        choices=["core", "e2e"],
        default="core",
        help="core: the network alone (default); e2e: from drawing noise to bytes of pixels",
    )
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    made.add_argument("--iters", type=at_least_1, help="at least so many calls a session, for a preset of your own")
    made.add_argument("--seconds", type=float, help="at least so long a session, for a preset of your own")
    made.add_argument("--ambient", type=celsius, metavar="C", help="the room's temperature in degrees, for the report")
    made.add_argument("--out", metavar="FILE", help="the report (default report-<id>.json in this folder)")
    return made


def preset_from(options: argparse.Namespace) -> Preset:
    """The named preset, or one with numbers of its own, which is then called custom."""
    preset = PRESETS[options.preset]
    if options.iters is not None:
        preset = replace(preset, name="custom", iters=options.iters)
    if options.seconds is not None:
        preset = replace(preset, name="custom", seconds=options.seconds,
                         warmup_s=min(preset.warmup_s, options.seconds))  # fmt: skip
    return preset


def main(argv: Sequence[str] | None = None, *, folder: Path | None = None, machine: Machine = HERE) -> int:
    """The command; gives its exit code."""
    options = parser(machine).parse_args(argv)
    try:
        pack = Pack.read(folder or Path(__file__).resolve().parent)
        pack.verify()
        check_out(Path(options.out or "."))  # now, not when minutes of timing would be lost
        runtime, preset = choose_runtime(options, machine), preset_from(options)
        options.precision = runtime.precision if options.precision == "auto" else options.precision
        pack.network(runtime.kind, options.precision)
        before = look(preset, machine)
        what = f"{runtime.name}, {options.precision}, batch {options.batch}"
        what += "" if runtime is TrtExec else f", {options.threads} threads"
        print(f"{what}: warming up, then {preset.sessions} x {preset.seconds:g} s ...", file=sys.stderr)
        idle = idle_w(machine)
        measure = by_trtexec if runtime is TrtExec else by_calls
        report = report_of(pack, runtime, measure(pack, runtime, options, preset, before, machine), options, preset,
                           machine, idle)  # fmt: skip
        path = Path(options.out or f"report-{report['report_id']}.json")
        _write(path, json.dumps(report, allow_nan=False) + "\n")
    except Usage as error:
        return _said(error, USAGE)
    except Missing as error:
        return _said(error, MISSING)
    except (Broken, Refused, OSError) as error:
        return _said(error, FAILED)
    timing, right = report["timing"], report["checks"]["output_ok"]
    print(f"p50 {timing['p50']:.3f} ms (95 %: {timing['p50_ci95'][0]:.3f} to {timing['p50_ci95'][1]:.3f}), p90 "
          f"{timing['p90']:.3f} ms, p99 {timing['p99']:.3f} ms, {timing['iters']} calls; the images are "
          f"{'right' if right else 'WRONG'}\n{path}: bring it to the lab and run `python -m lab import`")  # fmt: skip
    return OK if right else FAILED


def _said(error: Exception, code: int) -> int:
    print(f"runner.py: {error}", file=sys.stderr)
    return code


def check_out(path: Path) -> None:
    """Raises Usage where no report can be written: to that file, or somewhere in that folder if it is `.`."""
    folder = path.parent
    if path != Path(".") and path.is_dir():
        raise Usage(f"can't write the report to {path}: it is a folder; give --out the name of a file")
    if not folder.is_dir():
        raise Usage(f"can't write the report to {path}: there is no folder {folder}; make it first")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Usage(f"can't write the report into {folder.resolve()}: {error.strerror}; --out takes it to another "
                    "place") from None  # fmt: skip


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    part.write_text(text)
    os.replace(part, path)
