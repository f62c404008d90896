"""Which ONNX graph is quicker for which runtime? The rewritings of lab/export.py against the plain graph, A B B A.

    python benchmarks/graphs.py --out results/benchmarks/graphs.json
    python benchmarks/graphs.py --cpu-time     # on a busy machine: by the CPU time of this process, not the clock

`own_attention` is one operator of ONNX Runtime for q, k, v and attention, `open_gelu` GELU in single operations,
`class_norm` the class's scale and shift inside LayerNormalization.
A ratio above 1: the rewriting is quicker. float32, one thread. A row that is in the file already, of the same
machine and versions, is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from networks import ONNX_CALLS, SHAPES, SPEC, machine, random_student

from lab import deploy, export
from lab.devices import runner
from lab.devices.runner import Preset
from lab.experiment import commit
from lab.results import read_json, write_json

REWRITINGS = {"onnxruntime": ("own_attention", "open_gelu", "class_norm"), "openvino": ("open_gelu",)}


def measure(shape: str, runtime: str, how: str, batch: int, preset: Preset, clock: Callable[[], int]) -> dict:
    """One row: the plain graph's median time over the rewritten one's."""
    net = deploy.deploy(random_student(SHAPES[shape]))
    plain, other = (ONNX_CALLS[runtime](export.graph_of(net, SPEC, **options).SerializeToString(), batch, 1)
                    for options in ({}, {how: True}))  # fmt: skip
    apart = float(np.abs(plain() - other()).max())
    found = runner.compare(plain, other, preset, clock=clock)
    return {"shape": shape, "runtime": runtime, "rewriting": how, "batch": batch, "times_faster": found.ratio,
            "ci95": list(found.ci95), "plain_ms": found.a_ms, "ms": found.b_ms, "rounds": found.rounds,
            "apart": apart}  # fmt: skip


def main(shapes: list[str], batches: list[int], preset: Preset, clock: Callable[[], int], out: Path | None) -> None:
    conditions = {"machine": machine(), "seconds": preset.seconds, "clock": clock.__name__}
    kept = (read_json(out) or {}) if out else {}
    rows = kept.get("rows", []) if kept.get("conditions") == conditions else []
    for shape, (runtime, rewritings), batch in itertools.product(shapes, REWRITINGS.items(), batches):
        for how in rewritings:
            key = {"shape": shape, "runtime": runtime, "rewriting": how, "batch": batch}
            row = next((row for row in rows if row.items() >= key.items()), None)
            if row is None:
                rows.append(row := measure(shape, runtime, how, batch, preset, clock))
                if out:
                    write_json(out, {"conditions": conditions, "rows": rows, "commit": commit()})
            low, high = row["ci95"]
            print(f"{shape} batch {batch} {runtime} {how}: {row['times_faster']:.3f} ({low:.3f} to {high:.3f}), "
                  f"{row['plain_ms']:.3f} -> {row['ms']:.3f} ms, {row['rounds']} rounds, images {row['apart']:.1g} "
                  "apart", flush=True)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    main(args.shapes.split(","), [int(b) for b in args.batch.split(",")],
         Preset(iters=20, seconds=args.seconds, warmup_iters=5, warmup_s=0.1, warmup_cap_s=args.seconds),
         time.process_time_ns if args.cpu_time else time.perf_counter_ns, args.out)  # fmt: skip
