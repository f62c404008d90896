"""Does the form by hand of lab/deploy.py pay? It against the same plain DiT as its module alone says, A B B A.

    python benchmarks/general.py --out results/benchmarks/general.json

By hand: `Deployed`, and the graph that lab/runtimes writes of it. General: `OneStep`, and what torch's exporter makes
of it, as every other network goes out. A ratio above 1: by hand is quicker. float32, batch 1, one thread. A row that
is in the file already, of the same machine and versions, is not measured again.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from networks import ONNX_CALLS, SHAPES, SPEC, inputs, machine, random_student
from torch import nn

from lab import deploy, export
from lab.devices import runner
from lab.devices.runner import Preset
from lab.experiment import commit
from lab.results import read_json, write_json
from lab.runtimes.openvino import open_gelu

HOW = {"onnxruntime": {"own_attention": True, "class_norm": True}, "openvino": {"open_gelu": open_gelu()}}
RUNTIMES = ("onnxruntime", "openvino", "eager")


@functools.cache
def nets(shape: str) -> dict[str, nn.Module]:
    student = random_student(SHAPES[shape])
    return {"hand": deploy.deploy(student), "general": deploy.OneStep(student)}


def call_of(runtime: str, net: nn.Module) -> Callable[[], np.ndarray]:
    if runtime != "eager":
        return ONNX_CALLS[runtime](export.graph(net, SPEC, **HOW[runtime]).SerializeToString(), 1, 1)
    given = [torch.from_numpy(value) for value in inputs(1).values()]
    return torch.inference_mode()(lambda: net(*given).numpy())


def measure(shape: str, runtime: str, preset: Preset) -> dict:
    """One row: the general form's median time over that of the form by hand."""
    hand, general = (call_of(runtime, nets(shape)[form]) for form in ("hand", "general"))
    apart = float(np.abs(hand() - general()).max())
    found = runner.compare(general, hand, preset)
    return {"shape": shape, "runtime": runtime, "times_faster": found.ratio, "ci95": list(found.ci95),
            "general_ms": found.a_ms, "hand_ms": found.b_ms, "rounds": found.rounds, "apart": apart}  # fmt: skip


def main(shapes: list[str], names: list[str], preset: Preset, out: Path | None) -> None:
    conditions = {"machine": machine(), "seconds": preset.seconds}
    kept = (read_json(out) or {}) if out else {}
    rows = kept.get("rows", []) if kept.get("conditions") == conditions else []
    for shape, runtime in itertools.product(shapes, names):
        row = next((row for row in rows if (row["shape"], row["runtime"]) == (shape, runtime)), None)
        if row is None:
            rows.append(row := measure(shape, runtime, preset))
            if out:
                write_json(out, {"conditions": conditions, "rows": rows, "commit": commit()})
        low, high = row["ci95"]
        print(f"{shape} {runtime}: {row['times_faster']:.3f} ({low:.3f} to {high:.3f}), general "
              f"{row['general_ms']:.3f} ms, by hand {row['hand_ms']:.3f}, {row['rounds']} rounds, images "
              f"{row['apart']:.1g} apart", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    main(args.shapes.split(","), args.runtimes.split(","),
         Preset(iters=20, seconds=args.seconds, warmup_iters=5, warmup_s=0.1, warmup_cap_s=args.seconds),
         args.out)  # fmt: skip
