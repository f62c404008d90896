"""The README of a pack: what to type on the board, in order. Plain text, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def readme(facts: Mapping[str, Any], left_out: Sequence[str]) -> str:
    """The README for a pack's manifest; `left_out` says which networks are not in it, and why."""
    parts = [_head(facts), BOARDS[facts["target"]](facts), _run(facts), _networks(facts, left_out), BACK]
    return "\n".join(parts)


def _head(facts: Mapping[str, Any]) -> str:
    model, (channels, height, width) = facts["model"], facts["reference"]["z"]["shape"][1:]
    calls = model.get("nfe", 1)
    return f"""# {model["model_id"]}

A network of {model["params"]:,} parameters ({model["params_deployed"]:,} as deployed here), noise
{channels} x {height} x {width} in, one image of that size out, {calls} evaluation{"s" * (calls > 1)}.
`runner.py` times it on this device and writes one JSON report. It needs Python 3.10 or newer, its standard library, and
one of onnxruntime, torch or trtexec; nothing is sent anywhere.
"""


def trtexec(file: str, shape: Sequence[int], *, classes: bool) -> tuple[str, str]:
    """What builds and times the engine of an ONNX file for one image (C, H, W), in TensorRT 10.x and in 11.x."""
    shapes = f"--shapes=z:{'x'.join(map(str, [1, *shape]))}{',y:1' * classes}"
    rest = f"{shapes} --useSpinWait --percentile=50,90,99"
    return f"trtexec --onnx={file} --stronglyTyped {rest}", f"trtexec --onnx={file} {rest}"


COREML_NOTE = ("Written after the documentation of Core ML Tools 8 and newer, whose reader of torch.export is in beta; "
               "it was not tried here, where the package is missing.")  # fmt: skip


def coreml(shape: Sequence[int], *, classes: bool) -> str:
    """Python that makes a Core ML package for one image (C, H, W) of a model.pt2, and draws with it on a Mac."""
    z, y = f"torch.zeros(1, {', '.join(map(str, shape))})", ", torch.tensor([0])" if classes else ","
    given = '{"z": np.random.randn(*z.shape).astype(np.float32)'
    given += ', "y": np.array([0], np.int32)}' if classes else "}"
    return f"""import coremltools as ct  # 8.0 or newer; converting works on Linux, too
import numpy as np
import torch

network = torch.export.load("model.pt2").module()  # your own file only: the format can carry code
z = {z}
program = torch.export.export(network, (z{y})).run_decompositions({{}})  # one image: Core ML likes shapes fixed
model = ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17,
                   compute_precision=ct.precision.FLOAT32)  # FLOAT16 for the Neural Engine: then compare the images
model.save("student.mlpackage")
print(model.predict({given}))  # on a Mac
"""


def _jetson(facts: Mapping[str, Any]) -> str:
    reference = facts["reference"]
    ten, eleven = trtexec("model-fp16.onnx", reference["z"]["shape"][1:], classes="y" in reference)
    return f"""## 1. Set the board

A figure of a Jetson means nothing without its power mode. Modes have names; their numbers differ between firmwares,
so look the number of a name up on this board:

```bash
sudo nvpmodel -q                            # the mode it is in, by name
grep POWER_MODEL /etc/nvpmodel.conf         # every mode: ID=<number> NAME=<name>, such as 15W, 25W, MAXN_SUPER
sudo nvpmodel -m <number of that name>      # some changes want a restart
sudo jetson_clocks                          # fixes the clocks at the highest that this mode allows
sudo jetson_clocks --show
sudo swapoff -a                             # swap in use makes a report a D; a restart brings it back
```

The runner starts `tegrastats` itself where it is there, and notes clocks, temperature and power while it measures
(VDD_IN; on an AGX Orin, which has no such rail, VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0); with `sudo` it also sees what
only root may read. By hand: `sudo tegrastats --interval 200`. Before it warms up it watches the idle board for two
seconds: energy is told gross, and net of what the board draws anyway.

Run it outside of a container: inside, the board's name and its power mode are hidden, and a report of a Jetson without
its mode is a D.

Without the runner, the same engine by trtexec (on a Jetson: /usr/src/tensorrt/bin/trtexec). The precision stands in
the ONNX file itself, so one file serves both:

```bash
# TensorRT 10.x (JetPack 6 and 7)
{ten}
# TensorRT 11.x: typing is always strong and the flag is gone
{eleven}
```
"""


def _rpi(_: Mapping[str, Any]) -> str:
    return """## 1. Set the board

```bash
echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor   # the mode by its name
echo $(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq) | \\
  sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_min_freq                     # fixes the clocks
vcgencmd get_throttled                       # 0x0: neither too hot nor too weakly supplied since it was switched on;
                                             # else restart it, or a report can't tell whether it happened again
sudo swapoff -a                              # swap in use makes a report a D
python3 -m venv venv && . venv/bin/activate && pip install onnxruntime
```

Use the board's own power supply and a fan: a report in which the board was throttled is graded D.
"""


def _cpu(_: Mapping[str, Any]) -> str:
    return """## 1. Set the machine

```bash
echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor   # where there is one
sudo swapoff -a                              # swap in use makes a report a D
python3 -m venv venv && . venv/bin/activate && pip install onnxruntime              # or torch
```

Close what else is running: a publishable report is refused while the load is above half of the CPUs.
"""


BOARDS = {"jetson": _jetson, "rpi": _rpi, "cpu": _cpu}


def _run(facts: Mapping[str, Any]) -> str:
    publishable = "--preset publishable" + (" --runtime trtexec" if facts["target"] == "jetson" else "")
    return f"""## 2. Run

```bash
python3 runner.py --preset quick             # about 10 seconds; the first runtime that is here
python3 runner.py {publishable}       # three minutes and the pauses between
python3 runner.py --help                     # batch, threads, precision, scope, a runtime by name
```

It verifies every file against `manifest.json`, holds the images against `reference/`, and says if they are wrong. The
report also names the versions of what it ran on, the load, and the five busiest processes by their names, never by
their arguments; `--ambient 21` adds the temperature of the room. A batch that needs more memory than is free is
refused before the board swaps, with an estimate of what it needs; from 80 % on there is a warning.
"""


def _networks(facts: Mapping[str, Any], left_out: Sequence[str]) -> str:
    lines = ["## 3. What is in here", "", "| file | for | precision | largest difference from the right images |",
             "|---|---|---|---|"]  # fmt: skip
    for network in facts["networks"]:
        runs = "onnxruntime, trtexec" if network["kind"] == "onnx" else "torch, by model_torch.py"
        far = f"{network['max_abs']:.2g}" if "max_abs" in network else "see the report"
        lines.append(f"| `{network['file']}` | {runs} | {', '.join(network['precisions'])} | {far} |")
    lines += ["", *(f"{why[0].upper()}{why[1:]}." for why in left_out)]
    lines.append("Images lie in [-1, 1]. `reference/*.bin` are plain little-endian numbers, shapes in the manifest.")
    return "\n".join(lines) + "\n"


BACK = """## 4. Bring it back

Copy the report to a machine with the lab: `python -m lab import report-*.json`. There it is checked, graded from A to F
with the reasons, and joins its run by the hash of the weights.
"""
