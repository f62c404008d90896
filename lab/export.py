"""A deployed network as a program of torch.export and as an ONNX file: noise and classes in, image out, for any batch.

Any network is traced by torch (`program`, `traced`). The graph of a folded student is written node by node, for it has
few kinds of them: what an exporter puts around them (shape arithmetic for the batch, casts, decomposed norms) costs
more than a small net's own work at batch 1 (benchmarks/general.py). Every node there has the name of the layer it
stands for.

Opset 20 has GELU and layer norm as operators; ONNX Runtime, OpenVINO and TensorRT 10 read it. Where a
runtime is quicker with other nodes for the same numbers, a keyword of `graph_of` says so
(benchmarks/graphs.py); files for more than one runtime have none of them.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lab import int8
from lab.config import NetConfig, unknown, why_not_plain
from lab.data import ImageSpec
from lab.deploy import Deployed, DeployedBlock, DeployedDynamicBlock, DeployedTimeBlock, Folded
from lab.models.layers import EPS
from lab.results import write_whole

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 20, 9  # IR 9 came with opset 20; what onnx writes by default is newer than TensorRT 10 reads
ORT_DOMAIN = "com.microsoft"  # of operators that ONNX Runtime alone has
NOISE, CLASSES, IMAGE = "z", "y", "image"  # float32 (B, C, H, W), int64 (B,), float32 (B, C_out, H, W)
LOOKUP = "table.rows"  # the node that takes a class's rows from the table; some quantisers would coarsen it, too
BLOCK_SIZE = 32  # weights that share a scale in 4-bit
# Without instructions for int8 (VNNI) a processor adds pairs of products in 16 bits, which products of 8 bits overflow:
# the images are then wrong by a fifth of their range. Weights of 7 bits never do.
SEVEN_BITS, SEVEN_BITS_TOP = {"reduce_range": True}, 64  # onnxruntime's whole numbers are then -64 to 64


# --- of any network -----------------------------------------------------------------------------


def program(net: nn.Module, spec: ImageSpec) -> torch.export.ExportedProgram:
    """The program of a deployed network: (z, y) -> image, z alone if it is unconditional, for any batch.

    A network whose own code tells batches apart (diffusers' U-Nets do at 64) is for those on the side of a batch of 2:
    see `range_constraints` of the program.
    """
    given = _given(net, spec)
    batches = {name: {0: torch.export.Dim.DYNAMIC} for name in given}
    return torch.export.export(net, tuple(given.values()), dynamic_shapes=batches)


def _given(net: nn.Module, spec: ImageSpec) -> dict[str, Tensor]:
    """Inputs to trace with; of two, for a batch of one would be a constant."""
    classes = {CLASSES: torch.tensor([0, 0])} if net.config.num_classes else {}
    return {NOISE: torch.zeros(2, *spec.shape)} | classes


def traced(net: nn.Module, spec: ImageSpec) -> ModelProto:
    """Any deployed network as a float32 ONNX model, by torch's exporter."""
    from onnx_ir.passes import common

    given = _given(net, spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it deprecates and decides is nobody's business here
        made = torch.onnx.export(program(net, spec), tuple(given.values()), dynamo=True, opset_version=OPSET,
                                 input_names=list(given), output_names=[IMAGE], verbose=False)  # fmt: skip
    common.ClearMetadataAndDocStringPass()(made.model)  # paths of this machine among it
    model = made.model_proto
    model.ir_version = IR_VERSION
    del model.graph.value_info[:]
    _share(model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _share(model: ModelProto) -> None:
    """Keep one of each constant: the exporter transposes a solver's weights anew for every evaluation."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    alike = {v.name: first.setdefault((v.data_type, tuple(v.dims), v.raw_data), v.name)
             for v in model.graph.initializer}  # fmt: skip
    for node in model.graph.node:
        node.input[:] = [alike.get(name, name) for name in node.input]
    kept = [v for v in model.graph.initializer if alike[v.name] == v.name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


# --- of a folded student ------------------------------------------------------------------------


class Graph:
    """Nodes and constants of an ONNX graph, added in the order in which they run."""

    def __init__(self, dtype: torch.dtype, *, gemm: bool = False, own_attention: bool = False, open_gelu: bool = False,
                 class_norm: bool = False) -> None:  # fmt: skip
        self.dtype, self.gemm, self.own_attention, self.open_gelu = dtype, gemm, own_attention, open_gelu
        self.class_norm = class_norm
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, name: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; gives the name of its output, or a list of them."""
        from onnx import helper

        out = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), out, name, **attributes))
        return name if outputs == 1 else out

    def constant(self, name: str, value: Tensor | list[int] | int) -> str:
        """Tensors in the graph's own precision, whole numbers as int64."""
        plain = value.to(self.dtype) if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.int64)
        self.constants[name] = plain.cpu().numpy()
        return name

    def reshape(self, name: str, x: str, shape: list[int]) -> str:
        """-1 stands for the batch, so that no shape is computed when it runs."""
        return self.node("Reshape", name, x, self.constant(f"{name}.shape", shape))

    def linear(self, name: str, x: str, layer: nn.Linear) -> str:
        """Product with a constant matrix, plus bias; (rows, in) -> (rows, out)."""
        kind = "Gemm" if self.gemm else "MatMul"
        x = self.node(kind, name, x, self.constant(f"{name}.weight", layer.weight.T.contiguous()))
        return x if layer.bias is None else self.node("Add", f"{name}.+", x, self.constant(f"{name}.bias", layer.bias))


def graph_of(net: Folded, spec: ImageSpec, dtype: torch.dtype = torch.float32, *, gemm: bool = False,
             own_attention: bool = False, open_gelu: bool = False, class_norm: bool = False) -> ModelProto:  # fmt: skip
    """The network as an ONNX model that computes in this dtype; inputs and output stay float32 and int64.

    gemm: products as Gemm instead of MatMul nodes; which of the two a quantiser knows differs.
    own_attention: q, k, v and attention as the one operator that ONNX Runtime has for them and nobody else reads.
    open_gelu: GELU in single operations, which keeps a runtime from drawing it into the product before.
    class_norm: the class's scale and shift as those of the LayerNormalization itself, one pass instead of three; ONNX
    allows it (they broadcast), ONNX Runtime computes it since 1.21, others know vectors alone.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    g = Graph(dtype, gemm=gemm, own_attention=own_attention, open_gelu=open_gelu, class_norm=class_norm)
    wide = dtype == torch.float32
    z = NOISE if wide else g.node("Cast", "z.half", NOISE, to=TensorProto.FLOAT16)
    out = _network(g, net, z)
    g.node("Identity" if wide else "Cast", IMAGE, out, **({} if wide else {"to": TensorProto.FLOAT}))
    maps = net.config.out_channels or net.config.channels
    inputs = [helper.make_tensor_value_info(NOISE, TensorProto.FLOAT, ["batch", *spec.shape])]
    if net.config.num_classes:
        inputs.append(helper.make_tensor_value_info(CLASSES, TensorProto.INT64, ["batch"]))
    image = helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, ["batch", maps, spec.size, spec.size])
    constants = [numpy_helper.from_array(value, name) for name, value in g.constants.items()]
    graph = helper.make_graph(g.nodes, net.config.shape, inputs, [image], constants)
    opsets = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(ORT_DOMAIN, 1)] if own_attention else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    checker.check_model(model, full_check=True)
    return model


def _network(g: Graph, net: Folded, z: str) -> str:
    """Folded.forward as nodes; gives the image's name."""
    config = net.config
    N, D, p, side = config.tokens, config.width, config.patch, config.image_size // config.patch
    x = g.reshape("patches.cut", z, [-1, config.channels, side, p, side, p])
    x = g.node("Transpose", "patches", x, perm=[0, 2, 4, 1, 3, 5])
    x = g.linear("embed", g.reshape("patches.flat", x, [-1, config.channels * p * p]), net.embed)
    x = g.reshape("embed.tokens", x, [-1, N, D])
    x = g.node("Add", "positions.+", x, g.constant("positions", net.positions))
    rows = _rows(g, net)
    for index, block in enumerate(net.blocks):
        told = rows[block.rows * index : block.rows * (index + 1)]
        x = WRITERS[type(block)](g, f"blocks.{index}", block, x, told, N, D)
    x = g.linear("head", _normed(g, "final", x, *rows[-2:], D), net.head)
    x = g.reshape("image.cut", x, [-1, side, side, p, p, (config.out_channels or config.channels)])
    x = g.node("Transpose", "image.tiled", x, perm=[0, 5, 1, 3, 2, 4])
    return g.reshape("image.whole", x, [-1, config.out_channels or config.channels, side * p, side * p])


def _rows(g: Graph, net: Folded) -> list[str]:
    """The names of the table's rows, each (B, 1, D); constants (1, 1, D) for an unconditional net."""
    if not net.config.num_classes:
        return [g.constant(f"table.{i}", row[None, None]) for i, row in enumerate(net.table[0])]
    table = g.node("Gather", LOOKUP, g.constant("table", net.table), CLASSES, axis=0)
    count = net.table.shape[1]
    return g.node("Split", "table.split", table, outputs=count, axis=1, num_outputs=count)


def _normed(g: Graph, name: str, x: str, shift: str, scale: str, width: int) -> str:
    """LN(x) scale + shift, as rows for a product: (B, N, D) -> (B*N, D)."""
    if g.class_norm:
        x = g.node("LayerNormalization", f"{name}.norm", x, scale, shift, axis=-1, epsilon=EPS)
        return g.reshape(f"{name}.rows", x, [-1, width])
    one = g.constant("one", torch.ones(width))
    x = g.node("LayerNormalization", f"{name}.norm", x, one, axis=-1, epsilon=EPS)
    x = g.node("Mul", f"{name}.scale", x, scale)
    return g.reshape(f"{name}.rows", g.node("Add", f"{name}.shift", x, shift), [-1, width])


def _block(g: Graph, name: str, block: DeployedBlock, x: str, rows: list[str], N: int, D: int) -> str:
    """DeployedBlock.forward; x (B, N, D) -> (B, N, D)."""
    shift1, scale1, gate1, shift2, scale2, gate2 = rows
    h = _attention(g, f"{name}.attn", block, _normed(g, f"{name}.attn", x, shift1, scale1, D), N, D)
    x = _gated(g, f"{name}.attn", x, h, gate1, N, D)
    h = g.linear(f"{name}.mlp.fc1", _normed(g, f"{name}.mlp", x, shift2, scale2, D), block.fc1)
    h = g.linear(f"{name}.mlp.fc2", _gelu(g, f"{name}.mlp.gelu", h), block.fc2)
    return _gated(g, f"{name}.mlp", x, h, gate2, N, D)


def _time_block(g: Graph, name: str, block: DeployedTimeBlock, x: str, rows: list[str], N: int, D: int) -> str:
    """DeployedTimeBlock.forward; x (B, N, D) -> (B, N, D)."""
    query, mixed = rows

    def norm(name: str, x: str) -> str:
        one, zero = g.constant("one", torch.ones(D)), g.constant("zero", torch.zeros(D))
        x = g.node("LayerNormalization", f"{name}.norm", x, one, zero, axis=-1, epsilon=EPS)
        return g.reshape(f"{name}.rows", x, [-1, D])

    at = g.constant("places", block.places.flatten().tolist())
    bias = g.node("Gather", f"{name}.attn.bias", g.constant(f"{name}.attn.table", block.bias), at, axis=1)
    bias = g.node("Reshape", f"{name}.attn.bias.grid", bias, g.constant("places.shape", [block.heads, N, N]))
    h = _attention(g, f"{name}.attn", block, norm(f"{name}.attn", x), N, D, query=query, bias=bias)
    x = g.node("Add", f"{name}.attn.sum", x, g.reshape(f"{name}.attn.tokens", h, [-1, N, D]))
    x = g.node("Add", f"{name}.attn.mixed", x, mixed)
    h = _gelu(g, f"{name}.mlp.gelu", g.linear(f"{name}.mlp.fc1", norm(f"{name}.mlp", x), block.fc1))
    h = g.linear(f"{name}.mlp.fc2", h, block.fc2)
    return g.node("Add", f"{name}.mlp.sum", x, g.reshape(f"{name}.mlp.tokens", h, [-1, N, D]))


def _dynamic_block(g: Graph, name: str, block: DeployedDynamicBlock, x: str, rows: list[str], N: int, D: int) -> str:
    """DeployedDynamicBlock.forward; x (B, N, D) -> (B, N, D)."""
    shift1, scale1, gate1, shift2, scale2, gate2, *acting = rows
    groups, M = block.heads, block.fc1.out_features
    start, end, last = (g.constant(f"acting.{k}", [v]) for k, v in (("start", 0), ("end", groups), ("axis", 2)))
    heads, channels = (
        g.node("Slice", f"{name}.{what}", row, start, end, last) for what, row in zip(("heads", "groups"), acting)
    )  # (B or 1, 1, H)
    heads = g.node("Reshape", f"{name}.heads.each", heads, g.constant("heads.shape", [-1, groups, 1, 1]))
    h = _attention(g, f"{name}.attn", block, _normed(g, f"{name}.attn", x, shift1, scale1, D), N, D, acts=heads)
    x = _gated(g, f"{name}.attn", x, h, gate1, N, D)
    h = g.linear(f"{name}.mlp.fc1", _normed(g, f"{name}.mlp", x, shift2, scale2, D), block.fc1)
    h = g.reshape(f"{name}.mlp.cut", _gelu(g, f"{name}.mlp.gelu", h), [-1, N, groups, M // groups])
    channels = g.node("Reshape", f"{name}.groups.each", channels, g.constant("groups.shape", [-1, 1, groups, 1]))
    h = g.reshape(f"{name}.mlp.flat", g.node("Mul", f"{name}.mlp.acting", h, channels), [-1, M])
    h = g.reshape(f"{name}.mlp.each", g.linear(f"{name}.mlp.fc2", h, block.fc2), [-1, N, D])
    h = g.node("Mul", f"{name}.tokens", h, _tokens(g, f"{name}.router", block.router, x, N, D))
    return _gated(g, f"{name}.mlp", x, h, gate2, N, D)


def _tokens(g: Graph, name: str, router: nn.Sequential, x: str, N: int, D: int) -> str:
    """1 for the tokens that act, else 0; x (B, N, D) -> (B, N, 1)."""
    from onnx import TensorProto

    h = g.linear(f"{name}.0", g.reshape(f"{name}.in", x, [-1, D]), router[0])
    h = g.linear(f"{name}.2", g.node("Relu", f"{name}.1", h), router[2])
    acts = g.node("Greater", f"{name}.acts", h, g.constant("nothing", torch.tensor(0.0)))
    kind = TensorProto.FLOAT if g.dtype == torch.float32 else TensorProto.FLOAT16
    return g.reshape(f"{name}.each", g.node("Cast", f"{name}.cast", acts, to=kind), [-1, N, 1])


WRITERS: dict[type[nn.Module], Callable[..., str]] = {
    DeployedBlock: _block, DeployedTimeBlock: _time_block, DeployedDynamicBlock: _dynamic_block,
}  # fmt: skip


def _gelu(g: Graph, name: str, x: str) -> str:
    """Tanh-GELU; open, as the equal x sigmoid(2 sqrt(2/pi) x (1 + 0.044715 x^2))."""
    if not g.open_gelu:
        return g.node("Gelu", name, x, approximate="tanh")
    slope = 2 * math.sqrt(2 / math.pi)
    a, b = (g.constant(f"gelu.{k}", torch.tensor(v)) for k, v in (("cubic", 0.044715 * slope), ("slope", slope)))
    u = g.node("Add", f"{name}.+", g.node("Mul", f"{name}.cubic", g.node("Mul", f"{name}.square", x, x), a), b)
    return g.node("Mul", name, x, g.node("Sigmoid", f"{name}.sigmoid", g.node("Mul", f"{name}.u", x, u)))


def _attention(g: Graph, name: str, block: DeployedBlock | DeployedTimeBlock, x: str, N: int, D: int, *,
               query: str = "", bias: str = "", acts: str = "") -> str:  # fmt: skip
    """Multi-head attention on rows (B*N, D), whose scale stands in q's weights.

    query: rows (B, 1, H d) for every q; bias (H, N, N) for the scores; acts (B, H, 1, 1) for what heads give.
    """
    d = block.proj.in_features // block.heads
    if g.own_attention and not bias and not acts:
        weight, told = block.qkv.weight.T.contiguous(), block.qkv.bias
        x = g.node("Attention", f"{name}.qkv", g.reshape(f"{name}.tokens.in", x, [-1, N, D]),
                   g.constant(f"{name}.qkv.weight", weight), g.constant(f"{name}.qkv.bias", told),
                   domain=ORT_DOMAIN, num_heads=block.heads, scale=1.0)  # fmt: skip
        return g.linear(f"{name}.proj", g.reshape(f"{name}.flat", x, [-1, block.heads * d]), block.proj)
    x = g.linear(f"{name}.qkv", x, block.qkv)
    x = g.reshape(f"{name}.heads", x, [-1, N, 3, block.heads, d])
    x = g.node("Transpose", f"{name}.turned", x, perm=[2, 0, 3, 1, 4])  # (3, B, H, N, d)
    q, k, v = (g.node("Gather", f"{name}.{part}", x, g.constant(f"{part}.at", "qkv".index(part)), axis=0)
               for part in "qkv")  # fmt: skip
    if query:
        told = g.node("Reshape", f"{name}.told", query, g.constant("told.shape", [-1, block.heads, 1, d]))
        q = g.node("Add", f"{name}.q.told", q, told)
    k = g.node("Transpose", f"{name}.k.turned", k, perm=[0, 1, 3, 2])
    scores = g.node("MatMul", f"{name}.scores", q, k)
    scores = g.node("Add", f"{name}.scores.+", scores, bias) if bias else scores
    weights = g.node("Softmax", f"{name}.softmax", scores, axis=-1)
    x = g.node("MatMul", f"{name}.mix", weights, v)  # (B, H, N, d)
    x = g.node("Mul", f"{name}.acting", x, acts) if acts else x
    x = g.node("Transpose", f"{name}.back", x, perm=[0, 2, 1, 3])
    return g.linear(f"{name}.proj", g.reshape(f"{name}.flat", x, [-1, block.heads * d]), block.proj)


def _gated(g: Graph, name: str, x: str, h: str, gate: str, N: int, D: int) -> str:
    """x + gate h; rows h (B*N, D) back to (B, N, D)."""
    h = g.node("Mul", f"{name}.gate", g.reshape(f"{name}.tokens", h, [-1, N, D]), gate)
    return g.node("Add", f"{name}.sum", x, h)


# --- precisions ---------------------------------------------------------------------------------


def to_onnx(net: nn.Module, spec: ImageSpec, path: Path, precision: str = "fp32") -> None:
    """Write a deployed network as an ONNX file of this precision, for any runtime that reads ONNX.

    fp32; fp16 (inside, with casts at both ends); int8 (weights per channel, activations by their
    range at run time); int8-static (ranges from calibration on noise, as QDQ nodes); w4a32 (weights
    in 4 bits, blocks of 32). A plain student is prepared for int8 by lab/int8.py. Raises ValueError for another
    precision and for a network that has not this one.
    """
    if precision not in PRECISIONS:
        raise ValueError(unknown("precision of an ONNX file", precision, PRECISIONS))
    if why := why_not(net.config, precision):
        raise ValueError(why)
    write_whole(path, PRECISIONS[precision](net, spec).SerializeToString())


def why_not(config: NetConfig, precision: str | None) -> str | None:
    """Why a network can't be an ONNX file of this precision, as a sentence; None if it can."""
    why = why_not_plain(config) if precision in PREPARED_ALONE else None
    return why and f"{precision} is for networks that lab/int8.py prepares: {why}"


def graph(net: nn.Module, spec: ImageSpec, **how: Any) -> ModelProto:
    """A deployed network as a float32 model: by hand, in the way that the keywords of `graph_of` say, or traced."""
    return graph_of(net, spec, **how) if isinstance(net, Folded) else traced(net, spec)


def _fp16(net: nn.Module, spec: ImageSpec) -> ModelProto:
    if isinstance(net, Folded):
        return graph_of(net, spec, torch.float16)
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(traced(net, spec), keep_io_types=True, disable_shape_infer=True)


def _int8(net: nn.Module, spec: ImageSpec) -> ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = _to_quantise(net, spec, gemm=False)
    kept = kept_in_int8(model) if isinstance(net, Deployed) else kept_float(model)
    return _through_file(lambda out: quantize_dynamic(
        model, out, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
        nodes_to_exclude=kept, **SEVEN_BITS,
    ))  # fmt: skip


def _int8_static(net: Deployed, spec: ImageSpec) -> ModelProto:
    """Symmetric and with float biases, as TensorRT demands.

    Of MatMul and Add nodes onnxruntime would make a float Gemm before it looks for int8 products.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model, noise = _to_quantise(net, spec, gemm=True), _Calibration(spec, net.config.num_classes)
    return _through_file(lambda out: quantize_static(
        model, out, noise, quant_format=QuantFormat.QDQ, op_types_to_quantize=["Gemm"], per_channel=True,
        weight_type=QuantType.QInt8, activation_type=QuantType.QInt8, nodes_to_exclude=kept_in_int8(model),
        calibrate_method=CalibrationMethod.MinMax, **SEVEN_BITS,
        # Left in floating point, an output is one pass less and no loss: what follows a product is no product.
        extra_options={"ActivationSymmetric": True, "OpTypesToExcludeOutputQuantization": ["Gemm"]},
    ))  # fmt: skip


def _w4a32(net: nn.Module, spec: ImageSpec) -> ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = graph(net, spec)
    quantiser = MatMulNBitsQuantizer(model, block_size=BLOCK_SIZE, is_symmetric=True, accuracy_level=4,
                                     nodes_to_exclude=kept_float(model))  # fmt: skip
    quantiser.process()
    return quantiser.model.model


def opsets(path: Path) -> dict[str, int]:
    """Which versions of which operator sets an ONNX file asks for; ai.onnx is the common one."""
    import onnx

    model = onnx.load(path)
    used = {node.domain for node in model.graph.node}
    return {opset.domain or "ai.onnx": opset.version for opset in model.opset_import if opset.domain in used}


PRECISIONS: dict[str, Callable[[Any, ImageSpec], ModelProto]] = {
    "fp32": graph, "fp16": _fp16, "int8": _int8, "int8-static": _int8_static, "w4a32": _w4a32,
}  # fmt: skip


PREPARED_ALONE = ("int8-static",)  # what needs the layers of a DeployedBlock


def _to_quantise(net: nn.Module, spec: ImageSpec, *, gemm: bool) -> ModelProto:
    """The float32 graph of the network, of a plain one as prepared for int8.

    With the mark of onnxruntime's pre-processing, which would find nothing to simplify in it.
    """
    net = int8.prepared(net, spec, SEVEN_BITS_TOP) if isinstance(net, Deployed) else net
    model = graph(net, spec, gemm=gemm)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return model


def kept_float(model: ModelProto) -> list[str]:
    """Products that stay in floating point: those of attention, which have no weights, the first and the last, and
    those that decide which tokens act.

    The first and the last see pixels: in int8 they would coarsen noise and image themselves, and they are small.
    """
    constants = {value.name for value in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type == "MatMul"]
    weights = [n.input[1] for n in products if n.input[1] in constants]
    pixels = {*weights[:1], *weights[-1:]}  # by their weights, which a solver uses in every evaluation
    return [n.name for n in products
            if n.input[1] not in constants or n.input[1] in pixels or ".router." in n.name]  # fmt: skip


def kept_in_int8(model: ModelProto) -> list[str]:
    """Every product but those that int8.py prepares."""
    layers = tuple(f".{layer}" for layer in int8.LAYERS)
    return [n.name for n in model.graph.node if n.op_type in ("MatMul", "Gemm") and not n.name.endswith(layers)]


def _through_file(quantise: Callable[[str], None]) -> ModelProto:
    """What a function writes to the path that it is given; onnxruntime's quantisers know no other way."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        quantise(f"{folder}/model.onnx")
        return onnx.load(f"{folder}/model.onnx")


def calibration(spec: ImageSpec, num_classes: int, batch: int = 32) -> Iterator[dict[str, np.ndarray]]:
    """The batches of int8.calibration under the graph's input names."""
    for z, y in int8.calibration(spec, num_classes, batch):
        yield {NOISE: z.numpy()} | ({} if y is None else {CLASSES: y.numpy()})


class _Calibration:
    """`calibration` as onnxruntime's CalibrationDataReader, of which it calls only this."""

    def __init__(self, spec: ImageSpec, num_classes: int) -> None:
        self.batches = calibration(spec, num_classes)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)
