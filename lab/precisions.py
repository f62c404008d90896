"""What a network is computed in: one row a precision, from which every other list of them follows. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

RUNTIMES = ("eager", "compiled", "onnxruntime", "openvino", "packed", "torch-export")
DEVICES = ("cpu", "jetson", "rpi")  # kinds of them that a pack is made for
# How far the images that were timed may be from the finished network's in float32: largest and mean difference
# in [-1, 1]. float16 keeps 11 bits of every number, bfloat16 8. OpenVINO keeps the residuals in it, too: its images of
# trained students are up to 0.15 and 0.005 away, and no distance grew by more than 1 % (benchmarks/latency.py, part
# distance); of random networks of width 128 and 256 up to 0.06 and 0.012, for which no distance is known: 0.02 lets
# them pass and is a tenth of what a wrong image has. Rounding to 8 or 4 bits moves every pixel a little: the mean may
# be 0.03, half of what the best small student is away from its teacher's images (L1 0.054), and one patch may not be
# another patch (0.5). Another class or noise, or a constant, has a mean above 0.2.
FEW_BITS = (0.5, 0.03)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One of them. What the lab does not do with it is empty or None."""

    said: str = ""
    floating: bool = False  # a run's metrics hold for it: its weights are the run's own; an int8 engine draws others
    tolerance: tuple[float, float] | None = None  # as above
    # Bytes of a weight, bytes of an activation, and what products with weights are computed in.
    work: tuple[float, float, str] | None = None
    runtimes: tuple[str, ...] = ()
    # To OpenVINO, whose files of fp32 and bf16 are the same; int8 stands in the graph, the rest of it is float32. Said
    # for float32, too: left alone, the CPU plugin takes bfloat16 wherever the processor has it.
    hint: str | None = None
    packs: tuple[str, ...] = ()  # kinds of device that get an ONNX file of it


PRECISIONS = {
    "fp32": Precision(
        said="float32", floating=True, tolerance=(1e-3, 1e-4), work=(4, 4, "fp32"), hint="f32",
        runtimes=("eager", "compiled", "onnxruntime", "openvino", "torch-export"), packs=DEVICES,
    ),
    "tf32": Precision(floating=True, work=(4, 4, "tf32")),
    "fp16": Precision(
        said="float16 inside the file, casts at both ends", floating=True, tolerance=(0.03, 0.003), work=(2, 2, "fp16"),
        runtimes=("onnxruntime",), packs=DEVICES,
    ),
    "bf16": Precision(
        said="computed in bfloat16", floating=True, tolerance=(0.2, 0.02), work=(2, 2, "bf16"), hint="bf16",
        runtimes=("eager", "compiled", "openvino"),
    ),
    # TensorRT reads int8 only with its ranges fixed beforehand; on CPUs ranges found at run time cut nothing off, are
    # as near to the images and about as fast.
    "int8": Precision(
        said="8-bit weights and activations but for what GELU gives", tolerance=FEW_BITS, work=(1, 4, "int8"),
        hint="f32", runtimes=("onnxruntime", "openvino"), packs=("cpu", "rpi"),
    ),
    "int8-static": Precision(
        said="the same, ranges of activations fixed beforehand", tolerance=FEW_BITS, work=(1, 4, "int8"),
        runtimes=("onnxruntime",), packs=("jetson",),
    ),
    "w8a16": Precision(),  # this and the next in reports from elsewhere alone
    "w4a16": Precision(),
    "w4a32": Precision(
        said="4-bit weights, computed in float32", tolerance=FEW_BITS, work=(0.5, 4, "int8"), runtimes=("onnxruntime",),
    ),
    "ternary": Precision(
        said="weights of three values, four to a byte", floating=True, tolerance=(0.03, 0.003), runtimes=("packed",),
    ),
}  # fmt: skip
EXACT = ("fp32", "tf32")  # of any other precision it must be known how far its images are off
FLOATING = tuple(name for name, row in PRECISIONS.items() if row.floating)
COARSE = tuple(name for name, row in PRECISIONS.items() if not row.floating)
TOLERANCES = {name: row.tolerance for name, row in PRECISIONS.items() if row.tolerance}
HINTS = {name: row.hint for name, row in PRECISIONS.items() if row.hint}
# Runtime -> its precisions, the reference first; and of which ONNX files a pack for a kind of device has.
FORMS = {runtime: tuple(p for p, row in PRECISIONS.items() if runtime in row.runtimes) for runtime in RUNTIMES}
TARGETS = {device: tuple(p for p, row in PRECISIONS.items() if device in row.packs) for device in DEVICES}
