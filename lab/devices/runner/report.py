"""The device report (device_report.v1) of one timing, and its parts."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import statistics
import time
from array import array
from pathlib import Path
from typing import Any

from lab.devices.runner.found import Found
from lab.devices.runner.in_process import Torch
from lab.devices.runner.machine import Machine
from lab.devices.runner.pack import Pack
from lab.devices.runner.preset import Preset
from lab.devices.runner.texts import plain
from lab.devices.runner.trtexec import TrtExec

NAME, VERSION = "edge-dit-lab", "1.9"


def energy_of(state: dict[str, Any], timing: dict[str, Any], batch: int, *, period_ms: float | None = None
              ) -> dict[str, Any] | None:  # fmt: skip
    """The `energy` part of a report: millijoules of an image; None where no rail tells the power.

    mj_per_image is gross, the mean power of the rail times the time that a call takes of the wall clock, for the power
    was drawn between the GPU's works, too. That is `period_ms` where it is given: from one call to the next over all
    of them, as with trtexec, which queues calls so that their copies overlap. Else it is the median call, by the wall
    where there are two clocks. mj_per_image_net is the same less the idle power, None where that is not known or not
    below the mean.
    """
    power, rail, idle = state["power_w"], state["power_rail"], state.get("idle_power_w")
    if not power or not rail:
        return None
    ms = ((timing.get("wall") or timing)["p50"] if period_ms is None else period_ms) / batch
    net = None if idle is None or idle >= power["mean"] else round((power["mean"] - idle) * ms, 6)
    return {"mj_per_image": round(power["mean"] * ms, 6), "net_of_idle": False, "mj_per_image_net": net, "rail": rail}


def own_sha256() -> str:
    """Of the one file that a pack carries, so that a report says which protocol made it."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def checked(pack: Pack, image: array, options: argparse.Namespace) -> dict[str, Any]:
    """Whether these are the pack's images: the `checks` part of a report."""
    right = pack.rows("image", options.batch)
    finite = len(image) == len(right) and all(map(math.isfinite, image))
    if not finite:
        return {"output_ok": False, "max_abs_vs_ref": None, "image_sha256": None}
    apart = [abs(a - b) for a, b in zip(image, right)]
    largest, mean = pack.facts["tolerances"][options.precision]
    pixels = bytes(min(255, max(0, round(value * 127.5 + 127.5))) for value in image)
    return {
        "output_ok": max(apart) <= largest and statistics.fmean(apart) <= mean, "max_abs_vs_ref": max(apart),
        "image_sha256": hashlib.sha256(pixels).hexdigest(),
    }  # fmt: skip


def report_of(pack: Pack, runtime: Any, found: Found, options: argparse.Namespace, preset: Preset, machine: Machine,
              idle: float | None) -> dict[str, Any]:  # fmt: skip
    """The device report (device_report.v1) of one timing."""
    network, model = pack.network(runtime.kind, options.precision), pack.facts["model"]
    threads = None if runtime is TrtExec else options.threads  # CPU threads mean nothing to an engine
    state = found.timed.state | {"threads": threads, "idle_power_w": idle, "ambient_c": options.ambient}
    _, height, width = pack.image_shape
    versions = machine.versions() | {name: version for name, version in found.software.items() if version}
    return with_id(plain({
        "schema": "device_report.v1", "created_utc": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "provenance": "measured",
        "runner": {"name": NAME, "version": VERSION, "sha256": own_sha256(), "preset": preset.known_as},
        "device": machine.device() | found.device,
        "software": {
            "os": machine.os_name(), **versions, "python": platform.python_version(),
            "torch": found.version if runtime is Torch else None, "runtime": runtime.reported,
            "runtime_version": found.version, "flags": found.flags,
        },
        "state": state,
        "model": {
            "model_id": model["model_id"], "config": model["config"], "weights_sha256": model["weights_sha256"],
            "artifact_sha256": pack.facts["files"][network["file"]]["sha256"], "params": model["params"],
            "macs": model["macs"], "file_mb": pack.facts["files"][network["file"]]["bytes"] / 1e6,
            "precision": options.precision,
        },
        "workload": {"scope": options.scope, "batch": options.batch, "height": height, "width": width,
                     "nfe": model.get("nfe", 1)},
        "timing": found.timed.timing | found.cold,
        "memory": found.memory,
        "energy": energy_of(state, found.timed.timing, options.batch, period_ms=found.period_ms),
        "checks": checked(pack, found.image, options),
    }))  # fmt: skip


def with_id(report: dict[str, Any]) -> dict[str, Any]:
    """With a report_id by content: which run, how it was timed, and a digest of everything."""
    model, work, threads = report["model"], report["workload"], report["state"]["threads"]
    digest = hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()[:12]
    words = [model["model_id"][-8:], report["software"]["runtime"], model["precision"], f"b{work['batch']}",
             *([] if threads is None else [f"t{threads}"]), work["scope"], digest]  # fmt: skip
    return {"schema": report["schema"], "report_id": "-".join(words).lower().replace("+", "_")} | report
