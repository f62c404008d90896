"""What this machine can do at its best: its card, on which estimates and the ceilings of a net's parts rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from lab import export
from lab.devices import predict, runner
from lab.devices.predict import Card
from lab.devices.runner import Preset
from lab.results import Store, now
from lab.runtimes.base import check_threads

GEMM = 1024  # side of the square product whose speed is called the peak
SMALL_GEMM = 256  # the same where the processor has no instructions for a precision, and so takes seconds for it
COPIED_MB = 256  # more than caches hold
EACH_S = 0.5  # for each figure of a card


def card(threads: int | None = None) -> Card:
    """What this machine's CPU can do: products by precision, memory, the start of one operation. Takes two seconds."""
    before, count = torch.get_num_threads(), check_threads(threads)
    torch.set_num_threads(count)
    try:
        with torch.inference_mode():
            products = {name: found for name in PRODUCTS if (found := product(name, count)) is not None}
            source, target = torch.ones(2, COPIED_MB * 250_000)
            copied = 2 * source.numel() * source.element_size()
            bandwidth = copied / _best_s(lambda: target.copy_(source)) / 1e9
            one = torch.zeros(1)
            launch_us = _best_s(lambda: [one.add_(1) for _ in range(100)]) * 1e4
    finally:
        torch.set_num_threads(before)
    here, when = runner.HERE.device(), f"measured {now()[:10]} with torch {torch.__version__}, {count} threads"
    sources = {f"peak.{name}": f"{when}: product of {found.side} cubed by {found.by}, best of {EACH_S} s"
               for name, found in products.items()}  # fmt: skip
    sources |= {"bandwidth": f"{when}: copy of {COPIED_MB} MB, reads and writes, best of {EACH_S} s",
                "launch_us": f"{when}: an addition to one number, best of {EACH_S} s"}  # fmt: skip
    return Card(name=here["name"], family=here["family"], memory_mb=here["memory_mb"], threads=count,
                peak={name: float(f"{found.gflops:.4g}") for name, found in products.items()},
                bandwidth=round(bandwidth, 2), launch_us=round(launch_us, 3), sources=sources)  # fmt: skip


def glance() -> runner.Before:
    """Load and swap before something is measured."""
    return runner.Before(runner.HERE.load(), runner.HERE.swap_mb())


def was_quiet(before: runner.Before) -> bool:
    """Whether what was measured since may be kept: a busy machine's figures would stand for ever."""
    return not runner.not_quiet(before, runner.HERE.cpus)


def card_here(store: Store, threads: int | None = None) -> Card:
    """This machine's card out of the store; where it is not there it is measured, and kept if the machine is quiet."""
    if known := known_card(store, threads):
        return known
    before = glance()
    found = card(threads)
    if was_quiet(before):
        predict.save_card(found, store.root)
    return found


def known_card(store: Store, threads: int | None = None) -> Card | None:
    """This machine's card where it lies in the store."""
    here = runner.HERE.device()["name"], check_threads(threads)
    return next((c for c in predict.cards(store.root).values() if (c.name, c.threads) == here), None)


@dataclass(frozen=True)
class Product:
    """The quickest product of two square matrices that is here in one precision."""

    call: Callable[[], object]
    side: int
    by: str  # whose it is
    gflops: float

    @property
    def flops(self) -> float:
        return 2.0 * self.side**3


def product(precision: str, threads: int) -> Product | None:
    """The product whose speed is called this machine's peak; None where nobody here has one.

    torch must have this number of threads already; the others are told.
    """
    found = [tried for by, make in PRODUCTS[precision].items() if (tried := _tried(by, make, threads)) is not None]
    return max(found, key=lambda tried: tried.gflops, default=None)


def _tried(by: str, make: Callable[[int, int], Callable[[], object]], threads: int) -> Product | None:
    try:
        small = make(SMALL_GEMM, threads)
        small()
    except Exception:  # it is not here or has no such product; onnxruntime's errors have no class in common
        return None
    quick = _best_s(small, EACH_S / 5) * (GEMM / SMALL_GEMM) ** 3 < EACH_S
    side = GEMM if quick else SMALL_GEMM
    call = make(side, threads) if quick else small
    call()
    return Product(call, side, by, 2.0 * side**3 / _best_s(call) / 1e9)


def slow_precisions(card: Card) -> dict[str, str]:
    """Precisions that a machine has no instructions for, each with a sentence: they take longer than fp32."""
    slow = [name for name in ("bf16",) if card.peak.get(name, math.inf) < card.peak["fp32"]]
    return {name: f"{name} is left out: its products reach {card.peak[name]:g} GFLOP/s on {card.title}, those of fp32 "
                  f"{card.peak['fp32']:g}" for name in slow}  # fmt: skip


def _torch_product(dtype: torch.dtype) -> Callable[[int, int], Callable[[], object]]:
    def make(side: int, threads: int) -> Callable[[], object]:
        a, b = torch.ones(2, side, side, dtype=dtype)
        if dtype == torch.int8:
            return lambda: torch._int_mm(a, b)
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    return make


def _onnx_product(kind: str, dtype: type) -> Callable[[int, int], Callable[[], object]]:
    """By onnxruntime, whose int8 uses the processor's instructions where torch's is a plain loop.

    The left matrix of whole numbers is uint8, as activations are: with AVX2 alone int8 there takes six times as long.
    """

    def make(side: int, threads: int) -> Callable[[], object]:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        of = {np.float32: (TensorProto.FLOAT, TensorProto.FLOAT), np.uint8: (TensorProto.UINT8, TensorProto.INT32)}
        a, c = (helper.make_tensor_value_info(n, t, [side, side]) for n, t in zip("ac", of[dtype]))
        b = numpy_helper.from_array(np.ones((side, side), np.int8 if dtype == np.uint8 else dtype), "b")
        graph = helper.make_graph([helper.make_node(kind, ["a", "b"], ["c"])], "product", [a], [c], [b])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", export.OPSET)], ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        inputs = {"a": onnxruntime.OrtValue.ortvalue_from_numpy(np.ones((side, side), dtype))}
        return lambda: session.run_with_ort_values(["c"], inputs)

    return make


# precision -> who has such a product -> (side, threads) -> a call of it
PRODUCTS: dict[str, dict[str, Callable[[int, int], Callable[[], object]]]] = {
    "fp32": {"torch": _torch_product(torch.float32), "onnxruntime": _onnx_product("MatMul", np.float32)},
    "bf16": {"torch": _torch_product(torch.bfloat16)},
    "int8": {"torch": _torch_product(torch.int8), "onnxruntime": _onnx_product("MatMulInteger", np.uint8)},
}


def _best_s(call: Callable[[], object], seconds: float | None = None) -> float:
    """Seconds of the fastest call: a peak is what was possible, not what others left over."""
    return min(runner.sample(call, Preset(iters=3, seconds=EACH_S if seconds is None else seconds))) / 1e9
