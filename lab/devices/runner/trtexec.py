"""The network of a pack by TensorRT's trtexec, a process for each session."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import tempfile
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.devices.runner.calls import Timed
from lab.devices.runner.errors import Broken, Missing
from lab.devices.runner.found import CUDA_MB, Found, as_device, room_for
from lab.devices.runner.machine import BOARDS, Machine
from lab.devices.runner.memory import resident_mb
from lab.devices.runner.pack import Pack
from lab.devices.runner.preset import Preset
from lab.devices.runner.quiet import Before
from lab.devices.runner.summary import spread, summary
from lab.devices.runner.texts import number_in
from lab.devices.runner.watch import Watch


class TrtExec:
    """The network by TensorRT, through trtexec: an engine is built on the board and timed by CUDA events."""

    name, reported, kind, precision = "trtexec", "tensorrt", "onnx", "fp16"
    scopes, devices = ("core",), ("cuda",)

    @staticmethod
    def room(before: Before, machine: Machine, options: argparse.Namespace) -> tuple[float | None, float]:
        return before.free_mb if machine.family in BOARDS else None, CUDA_MB  # a card's own is not told

    @staticmethod
    def missing(machine: Machine) -> str | None:
        return None if machine.command("trtexec") else "trtexec: part of TensorRT, on a Jetson of the JetPack"


def trt_version(banner: str) -> tuple[int, int, int]:
    """10.3.0 of `[TensorRT v100300]`, 8.6.2 of `[TensorRT v8602]`. Raises Broken where there is no such word."""
    found = re.search(r"\[TensorRT v(\d+)\]", banner)
    if not found:
        raise Broken(f"trtexec does not tell its version: {banner.strip()[-200:]!r}")
    number, step = int(found[1]), 100 if len(found[1]) > 4 else 10
    return number // (100 * step), number // 100 % step, number % 100


def trt_command(path: str, version: tuple[int, int, int], pack: Pack, options: argparse.Namespace) -> list[str]:
    """The beginning of every trtexec call: the shapes, and what the version wants to be told about types."""
    if version[0] < 10:
        raise Missing(f"trtexec is of TensorRT {'.'.join(map(str, version))}; the pack needs 10 or newer, for its ONNX "
                      "files are of opset 20 and hold their precision themselves")  # fmt: skip
    classes = f",y:{options.batch}" if pack.facts["reference"].get("y") else ""
    shapes = f"--shapes=z:{'x'.join(map(str, [options.batch, *pack.shape]))}{classes}"
    # 11 knows no other typing and has no such flag; TF32 would round what is called fp32.
    return [path, shapes, *(["--stronglyTyped"] if version[0] == 10 else []),
            *(["--noTF32"] if options.precision == "fp32" else [])]  # fmt: skip


def by_trtexec(pack: Pack, runtime: Any, options: argparse.Namespace, preset: Preset, before: Before,
               machine: Machine) -> Found:  # fmt: skip
    """Build an engine and time it; one process for each session."""
    path, network = machine.command("trtexec"), pack.network("onnx", options.precision)
    room_for(pack, runtime, options, before, machine)
    version = trt_version(_told(path, ["--help"])[0])
    command = trt_command(path, version, pack, options)
    with tempfile.TemporaryDirectory() as name, Watch(machine, before) as watch:
        folder = Path(name)
        engine, times, output = folder / "engine", folder / "times.json", folder / "output.json"
        watch.side.paused = True  # building is no part of what is timed
        start = time.perf_counter_ns()
        said, _ = _told(command[0], [f"--onnx={pack.folder / network['file']}", *command[1:],
                                     f"--saveEngine={engine}", "--skipInference"])  # fmt: skip
        build_ms = (time.perf_counter_ns() - start) / 1e6
        loads = []
        for part in ("z", "y"):
            if (rows := pack.rows(part, options.batch)) is not None:
                (folder / part).write_bytes(rows.tobytes())
                loads.append(f"{part}:{folder / part}")
        sessions: list[Sequence[int]] = []
        waits: list[int] = []  # how long a host waits for each call
        lasted: list[float | None] = []
        peaks: list[float | None] = []
        for session in range(preset.sessions):
            if session:
                watch.cool_down(time.sleep)
            watch.side.paused, began = False, time.monotonic()
            ran, peak_mb = _told(command[0], [
                f"--loadEngine={engine}", *command[1:], f"--loadInputs={','.join(loads)}", "--useSpinWait",
                f"--warmUp={round(preset.warmup_s * 1000)}", f"--duration={math.ceil(preset.seconds)}",
                f"--iterations={preset.iters}", "--percentile=50,90,99", f"--exportTimes={times}",
                f"--exportOutput={output}",
            ], limit_s=600 + 3 * preset.seconds)  # fmt: skip
            watch.session_over()
            watch.side.paused = True
            watch.side.only_last(preset.seconds, began)  # its start draws less power than its work
            sessions.append(trt_times(times.read_text()))
            waits += trt_times(times.read_text(), "latencyMs")
            lasted.append(number_in(r"queries over ([\d.]+) s", ran))
            peaks.append(peak_mb)
        image = trt_output(output.read_text())
        weights_mb = round(engine.stat().st_size / 1e6, 3)
    timing = {"unit": "ms", "clock": "cuda_event", "warmup_iters": None, "warmup_converged": None}
    timing |= summary(sessions) | {"wall": spread(waits)}
    period_ms = None
    if None not in lasted:  # the GPU's own times leave out the copies between them
        timing["duration_s"], period_ms = round(sum(lasted), 3), sum(lasted) * 1000 / len(waits)
    timed = Timed(timing, watch.state(), watch.flags(), watch.system_mb())
    loaded, device = number_in(r"Engine deserialized in ([\d.]+) sec", ran), re.search(r"Selected Device: (.+)", said)
    memory = number_in(r"Device Global Memory: (\d+) MiB", said)
    return Found(
        timed, image, ".".join(map(str, version)),
        ["trtexec", "useSpinWait", *(part.lstrip("-") for part in command[2:]), *timed.flags],
        {"load_ms": None if loaded is None else round(loaded * 1000, 3), "build_ms": round(build_ms, 3),
         "first_ms": None},
        {"method": "ru_maxrss of trtexec while it times; weights_mb is the engine", "weights_mb": weights_mb,
         "process_peak_mb": max((mb for mb in peaks if mb is not None), default=None),
         "system_delta_mb": timed.system_mb},
        as_device(machine, device[1].strip(), int(memory or machine.memory_mb())) if device else {},
        {"tensorrt": ".".join(map(str, version))}, period_ms,
    )  # fmt: skip


def _told(path: str, args: Sequence[str], *, limit_s: float = 3600.0) -> tuple[str, float | None]:
    """What trtexec prints, and its peak memory in MB. Raises Broken with its own words where it fails."""
    with tempfile.TemporaryFile() as printed:  # a pipe would have to be emptied meanwhile
        process = subprocess.Popen([path, *args], stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT)
        try:
            peak_mb = _ended(process, limit_s)
        except subprocess.TimeoutExpired:
            raise Broken(f"trtexec did not end within {limit_s:g} s") from None
        finally:
            if process.returncode is None:  # nor may it run on when somebody interrupts us
                process.kill()
                process.wait()
        printed.seek(0)
        said = printed.read().decode(errors="replace")
    if process.returncode:
        errors = [line for line in said.splitlines() if "[E]" in line] or said.splitlines()[-3:]
        raise Broken(f"trtexec failed with exit code {process.returncode}: {' '.join(errors[:3])[:600]}")
    return said, peak_mb


def _ended(process: subprocess.Popen, limit_s: float) -> float | None:
    """Waits for the end of a process; gives its own peak resident memory in MB, None where that is not told.

    RUSAGE_CHILDREN would tell the largest of all that have ended, and building an engine takes more than running it.
    Linux counts in what we had ourselves when we started it, a few ten MB, far less than CUDA takes.
    """
    if not hasattr(os, "wait4"):  # Windows
        process.wait(limit_s)
        return None
    end = time.monotonic() + limit_s
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return resident_mb(used)
        if time.monotonic() > end:
            raise subprocess.TimeoutExpired(process.args, limit_s)
        time.sleep(0.02)


def trt_times(text: str, name: str = "computeMs") -> list[int]:
    """One time of every call in --exportTimes' JSON, in ns.

    computeMs is the GPU's work, latencyMs what trtexec prints as the host's latency: that and the copies in and out.
    """
    try:
        found = [max(round(call[name] * 1e6), 1) for call in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise Broken(f"trtexec's times can't be read: {error!r}") from None
    if not found:
        raise Broken("trtexec wrote no times")
    return found


def trt_output(text: str) -> array:
    """The images of --exportOutput's JSON."""
    try:
        found = {tensor["name"]: tensor["values"] for tensor in json.loads(text)}
        return array("f", found["image"])
    except (ValueError, TypeError, KeyError) as error:  # a NaN is written so that it is no JSON
        raise Broken(f"trtexec's images can't be read: {error!r}") from None
