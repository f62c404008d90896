"""What a sweep on Ray costs beside the runs themselves: 1,000 runs that do nothing, seconds each.

    python benchmarks/sweep_overhead.py --out results/benchmarks/sweep_overhead.json

A run that does nothing is a recipe of 0 updates that is not measured: a tiny network is built and saved, its
samples drawn, its folder sent back from a node of a local cluster and put into the results. The same runs
one after another in this process, a few of them, say how much of that is the run's own.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import socket
import statistics
import tempfile
import time
from pathlib import Path

from lab import experiment, sweep
from lab.cluster import OnRay, Orders
from lab.config import DiTConfig, Recipe, Use
from lab.results import Store, write_json

NETWORK = DiTConfig(image_size=8, patch=4, depth=1, width=8, heads=1, time=True)
NOTHING = Recipe(data="digits", student=NETWORK, methods=(Use("denoise"),), solver="dpmpp2m-2", steps=0)
ALONE = 20  # runs in this process


def recipes(count: int, first: int = 0) -> list[Recipe]:
    return [NOTHING.with_(seed=first + seed) for seed in range(count)]


def ports() -> dict[str, int]:
    """Ports for a node's agents: where Ray has to wait for those they choose, a busy machine does not start in time."""
    names = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    with contextlib.ExitStack() as open_now:
        sockets = [open_now.enter_context(socket.socket()) for _ in names]
        for one in sockets:
            one.bind(("", 0))
        return {name: one.getsockname()[1] for name, one in zip(names, sockets)}


def on_cluster(count: int, nodes: int) -> dict[str, float]:
    """Seconds of a sweep on a local cluster of so many nodes with one CPU each, from its start to its last run."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **ports()})
    for _ in range(nodes):
        cluster.add_node(num_cpus=1, **ports())
    cluster.wait_for_nodes()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        place = OnRay(store, address=cluster.address, orders=Orders(measure=False, compile=False))
        try:
            ready = sweep.Sweep("warm", None, [sweep.Entry(r) for r in recipes(nodes, first=count)])
            begun = time.perf_counter()
            sweep.carry_out(ready, store, place)  # nodes start their processes, which load torch
            start_s = time.perf_counter() - begun
            many = sweep.Sweep("nothing", None, [sweep.Entry(r) for r in recipes(count)])
            begun = time.perf_counter()
            if not sweep.carry_out(many, store, place):
                raise SystemExit("stopped")
            total_s = time.perf_counter() - begun
        finally:
            place.close()
            ray.shutdown()
            cluster.shutdown()
    lost = [entry.why for entry in many.entries if entry.state != "done"]
    assert not lost, f"{len(lost)} of {count} runs failed; the first: {lost[0]}"
    return {"runs": count, "nodes": nodes, "start_s": start_s, "total_s": total_s, "per_run_s": total_s / count}


def alone() -> float:
    """Seconds of one such run in this process, median."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe in recipes(ALONE):
            begun = time.perf_counter()
            experiment.run(recipe, Store(folder), measure=False)
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    found = {"what": "runs of 0 updates on a local Ray cluster", **on_cluster(args.runs, args.nodes)}
    found |= {"alone_s": alone(), "machine": platform.machine(), "python": platform.python_version(),
              "commit": experiment.commit()}  # fmt: skip
    print(f"{found['runs']} runs on {found['nodes']} nodes: {found['per_run_s']:.3f} s a run, of which "
          f"{found['alone_s']:.3f} s would be its own in one process")  # fmt: skip
    if args.out:
        write_json(args.out, found)
