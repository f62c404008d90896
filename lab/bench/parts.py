"""Where a student's time goes, part by part, beside what the machine's card allows."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from lab import deploy
from lab.bench.machine import card, card_here, glance, was_quiet
from lab.bench.timing import device_facts, fixed_inputs, weights_of
from lab.config import JSON, config_to_json, why_not_plain
from lab.counts import FINAL, PER_BLOCK
from lab.deploy import Deployed, normed
from lab.devices import predict
from lab.devices.predict import Card
from lab.results import BLOCKS_SCHEMA, Run, Store, now
from lab.runtimes import Session
from lab.runtimes import get as runtime_of
from lab.runtimes.base import Tells, check_threads

OVERHEAD = 0.25  # of the roofline: a part that reaches less is held up by neither arithmetic nor memory


@dataclass(frozen=True)
class Blocks:
    """Where a call's time goes; `table` has a row for each part of the net, in order.

    Its columns: part, ms (median), share (of all parts), flops, bytes, of_peak and of_bandwidth (shares of what the
    card can do; none for a part of no measurable time), roofline_ms (the least that the card allows), limit
    (arithmetic, memory or overhead).
    """

    table: pd.DataFrame
    whole_ms: float  # median of the call in one go
    card: Card
    batch: int
    precision: str
    threads: int
    version: str  # of the runtime

    @property
    def of_roofline(self) -> float:
        """What share of the whole call the card's arithmetic and memory would need at their best."""
        return float(self.table["roofline_ms"].sum()) / self.whole_ms


def blocks(run: Run, *, runtime: str = "eager", batch: int = 1, threads: int | None = None, precision: str = "fp32",
           calls: int = 200, beside: Card | None = None) -> Blocks:  # fmt: skip
    """Time every part of a student's deployed net inside whole calls, beside what the card allows.

    Eager is timed part by part; other runtimes say it themselves, and join parts. The card is measured anew unless one
    is given to stand `beside`. Raises ValueError for a denoiser, an unknown precision or a runtime that does not tell
    its parts, LookupError for a run without weights or a runtime that is not here.
    """
    weights_of(run)
    if why := why_not_plain(run.config):
        raise ValueError(why)
    if batch < 1 or calls < 1:
        raise ValueError(f"batch and calls must be at least 1, got {batch} and {calls}")
    backend = runtime_of(runtime)
    if not (isinstance(backend, Tells) or backend.name == "eager"):
        raise ValueError(f"runtime {runtime} does not tell how long each part takes")
    path = backend.export(run, precision)
    session = backend.open(path, threads=threads, precision=precision)
    ceiling = beside or card(session.threads)
    with session, torch.inference_mode():
        inputs = fixed_inputs(session, batch)
        if isinstance(backend, Tells):
            found = backend.parts(path, *inputs, threads=session.threads, precision=precision, calls=calls)
            times, whole_ms = {name: 1e3 * seconds for name, seconds in found.seconds.items()}, 1e3 * found.whole
        else:
            names, each, whole = _timed_parts(session, session.place(*inputs), calls)
            times = dict(zip(names, (np.median(each, axis=0) / 1e6).tolist()))
            whole_ms = float(np.median(whole)) / 1e6
    rows = [_roofline(name, ms, ceiling, session.config, batch, precision) for name, ms in times.items()]
    table = pd.DataFrame(rows)
    table.insert(2, "share", table["ms"] / table["ms"].sum())
    return Blocks(table, whole_ms, ceiling, batch, precision, session.threads, session.version)


def keep_blocks(run: Run, store: Store, *, runtime: str = "eager", batch: int = 1, threads: int | None = None,
                precision: str = "fp32", calls: int = 200, force: bool = False) -> dict[str, JSON]:  # fmt: skip
    """`blocks` of a run beside this machine's card, kept in the store if the machine is quiet.

    What is there of these weights is given back, unless it is of fewer calls. A plain file, so that pages show it
    without torch: Store.blocks().
    """
    count, device = check_threads(threads), device_facts("cpu")
    words = [run.id[-8:], runtime, precision, f"b{batch}", f"t{count}",
             hashlib.sha256(f"{device['name']} {weights_of(run)}".encode()).hexdigest()[:12]]  # fmt: skip
    known = None if force else store.read_blocks("-".join(words))
    if known is not None and known.get("calls", 0) >= calls:
        return known
    before = glance()  # our own work, the card's too, is a load
    found = blocks(run, runtime=runtime, batch=batch, threads=count, precision=precision, calls=calls,
                   beside=card_here(store, count))  # fmt: skip
    config = config_to_json(run.config)
    kept = {
        "schema": BLOCKS_SCHEMA, "created_utc": now(), "device": device,
        "software": {"runtime": runtime, "runtime_version": found.version},
        "state": {"threads": count, "load_avg": before.load},
        "model": {"model_id": run.id, "config": config, "weights_sha256": weights_of(run), "precision": precision},
        "workload": {"scope": "core", "batch": batch, "nfe": 1}, "calls": calls,
        "whole_ms": found.whole_ms, "of_roofline": found.of_roofline, "card": dataclasses.asdict(found.card),
        "parts": found.table.astype(object).where(found.table.notna(), None).to_dict("records"),
    }  # fmt: skip
    if was_quiet(before):
        store.add_blocks("-".join(words), kept)
    return kept


def _timed_parts(session: Session, inputs: tuple, calls: int) -> tuple[list[str], list[list[int]], list[int]]:
    """Names of the parts, ns of each in each call, and ns of calls in one go, taken in turns."""
    autocast = torch.autocast("cpu", torch.bfloat16, enabled="autocast" in session.flags)
    warmup, times, whole = max(3, calls // 10), [], []
    for _ in range(warmup + calls):
        start = time.perf_counter_ns()
        session.run(inputs)
        whole.append(time.perf_counter_ns() - start)
        with autocast:
            names, stamps = [], [time.perf_counter_ns()]
            for name, _ in steps(session.net, *inputs):
                names.append(name)
                stamps.append(time.perf_counter_ns())
        times.append([b - a for a, b in itertools.pairwise(stamps)])
    return names, times[warmup:], whole[warmup:]


def steps(net: Deployed, z: torch.Tensor, y: torch.Tensor | None) -> Iterator[tuple[str, torch.Tensor]]:
    """Deployed.forward part by part: yields each part's name, as in predict.work, with what it gave; last the image."""
    table = net.table if y is None else net.table[y]
    rows = table.split(1, dim=1)
    yield "table", table
    x = net.embed(net.patches(z)) + net.positions
    yield "embed", x
    for index, block in enumerate(net.blocks):
        shift1, scale1, gate1, shift2, scale2, gate2 = rows[PER_BLOCK * index : PER_BLOCK * (index + 1)]
        yield f"blocks.{index}.norm1", (h := normed(x, shift1, scale1))
        yield f"blocks.{index}.attention", (h := block.attend(h))
        yield f"blocks.{index}.sum1", (x := x + gate1 * h)
        yield f"blocks.{index}.norm2", (h := normed(x, shift2, scale2))
        yield f"blocks.{index}.mlp", (h := block.fc2(deploy.gelu(block.fc1(h))))
        yield f"blocks.{index}.sum2", (x := x + gate2 * h)
    yield "head", net.image(net.head(normed(x, *rows[-FINAL:])))


def _roofline(name: str, ms: float, card: Card, config: Any, batch: int, precision: str) -> dict[str, Any]:
    """One part's row: what it took, and what its arithmetic and its bytes take at the card's best."""
    flops, moved = predict.work(config, batch, precision).parts()[name]
    arithmetic = flops / card.rate(precision) / 1e6 if flops else 0.0
    memory = moved / card.bandwidth / 1e6
    roof = max(arithmetic, memory)
    limit = "arithmetic" if arithmetic > memory else "memory"
    return {"part": name, "ms": ms, "flops": flops, "bytes": moved, "of_peak": arithmetic / ms if ms else None,
            "of_bandwidth": memory / ms if ms else None, "roofline_ms": roof,
            "limit": "overhead" if roof < OVERHEAD * ms else limit}  # fmt: skip
