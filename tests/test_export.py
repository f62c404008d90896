"""ONNX files of a deployed student: what stands in the graph, by precision."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from lab import deploy, export, int8
from lab.config import DiTConfig
from lab.data import ImageSpec
from lab.deploy import Deployed
from lab.models.dit import DiT
from lab.precisions import FORMS
from lab.runtimes import base

onnx = pytest.importorskip("onnx")
CONFIG = DiTConfig(image_size=8, patch=4, depth=2, width=32, heads=2)
SPEC = ImageSpec(data="toy", size=8, channels=1, num_classes=10)


@pytest.fixture(scope="module")
def net() -> Deployed:
    return deploy.deploy(as_if_trained(CONFIG))


def as_if_trained(config: DiTConfig) -> DiT:
    """A student whose zero-initialised layers hold numbers."""
    torch.manual_seed(0)
    student = DiT(config).eval()
    for p in student.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return student


def written(net: Deployed, folder: Path, precision: str) -> onnx.ModelProto:
    pytest.importorskip("onnxruntime")
    if precision == "w4a32":
        pytest.importorskip("onnx_ir")
    export.to_onnx(net, SPEC, folder / "model.onnx", precision)
    return onnx.load(folder / "model.onnx")


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}


@pytest.mark.parametrize("precision", export.PRECISIONS)
def test_every_file_takes_float_noise_and_whole_classes_and_gives_a_float_image(
    net: Deployed, tmp_path: Path, precision: str
) -> None:
    model = written(net, tmp_path, precision)
    types = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]}
    assert types == {"z": onnx.TensorProto.FLOAT, "y": onnx.TensorProto.INT64, "image": onnx.TensorProto.FLOAT}
    assert all(v.type.tensor_type.shape.dim[0].dim_param == "batch" for v in model.graph.input)
    opsets = {o.domain: o.version for o in model.opset_import}
    assert opsets[""] in range(17, 21) and model.ir_version <= 10


@pytest.mark.parametrize("how", ["", "own_attention", "class_norm", "open_gelu", "gemm"])
@pytest.mark.parametrize("classes", [10, 0])
@pytest.mark.parametrize("change", [{"block": "time"}, {"block": "dynamic"}, {"head_dim": 6}],
                         ids=["time blocks", "dynamic blocks", "narrow heads"])  # fmt: skip
def test_other_folded_nets_are_written_by_hand_too(change: dict[str, object], classes: int, how: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    student = as_if_trained(dataclasses.replace(CONFIG, num_classes=classes, **change))
    folded, spec = deploy.deploy(student), dataclasses.replace(SPEC, num_classes=classes)
    model = export.graph(folded, spec, **{how: True} if how else {})
    assert "Shape" not in kinds(model)
    z, y = torch.randn(5, 1, 8, 8), torch.arange(5)
    given = {"z": z.numpy()} | ({"y": y.numpy()} if classes else {})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = student(z, None, y if classes else None).detach().numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(session.run(None, given)[0], expected, atol=1e-5)


@pytest.mark.parametrize("block", ["time", "dynamic"])
@pytest.mark.parametrize(("precision", "far"), [("fp16", 0.01), ("int8", 0.1), ("w4a32", 0.3)])
def test_other_blocks_have_files_of_fewer_bits(tmp_path: Path, precision: str, far: float, block: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    student = as_if_trained(dataclasses.replace(CONFIG, block=block))
    model = written(deploy.deploy(student), tmp_path, precision)
    z, y = torch.randn(5, 1, 8, 8), torch.arange(5)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = student(z, None, y).detach().numpy()
    found = session.run(None, {"z": z.numpy(), "y": y.numpy()})[0]
    assert 0 < np.abs(found - expected).mean() < far * expected.std()


def test_no_shape_is_computed_while_it_runs(net: Deployed) -> None:
    found = kinds(export.graph_of(net, SPEC))
    assert not {"Shape", "Concat", "Cast", "Constant", "Expand", "Tanh", "Erf", "Conv"} & set(found)
    assert found["LayerNormalization"] == 2 * CONFIG.depth + 1 and found["Gelu"] == CONFIG.depth


def test_fp16_stands_inside_the_graph(net: Deployed, tmp_path: Path) -> None:
    model = written(net, tmp_path, "fp16")
    assert {v.dtype for v in constants(model).values()} == {np.dtype("float16"), np.dtype("int64")}
    assert kinds(model)["Cast"] == 2


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_in_int8_pixels_attention_and_what_follows_gelu_stay_in_floating_point(
    net: Deployed, tmp_path: Path, precision: str
) -> None:
    model = written(net, tmp_path, precision)
    coarse = {n for n, v in constants(model).items() if v.dtype == np.int8 and v.ndim == 2}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1")  # int8.LAYERS
    assert coarse == {f"blocks.{i}.{layer}.weight_quantized" for i in range(CONFIG.depth) for layer in layers}


def test_static_int8_is_what_tensorrt_reads(net: Deployed, tmp_path: Path) -> None:
    model = written(net, tmp_path, "int8-static")
    found = constants(model)
    zeros = [found[n.input[2]] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert zeros and all(v.dtype == np.int8 and not v.any() for v in zeros)


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_weights_of_seven_bits_overflow_no_processor(net: Deployed, tmp_path: Path, precision: str) -> None:
    found = [v for n, v in constants(written(net, tmp_path, precision)).items() if n.endswith(".weight_quantized")]
    assert found and max(np.abs(v.astype(int)).max() for v in found) <= 64


@pytest.mark.parametrize("how", ["own_attention", "open_gelu", "class_norm"])
def test_other_nodes_say_the_same_numbers(net: Deployed, how: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    z, y = torch.randn(3, 1, 8, 8), torch.tensor([0, 4, 9])
    model = export.graph_of(net, SPEC, **{how: True})
    found = kinds(model)
    depth = CONFIG.depth
    counts = {"own_attention": {"Softmax": 0, "Attention": depth}, "open_gelu": {"Gelu": 0, "Sigmoid": depth},
              "class_norm": {"Mul": 2 * depth, "LayerNormalization": 2 * depth + 1}}[how]  # fmt: skip
    assert {kind: found[kind] for kind in counts} == counts
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (image,) = session.run(None, {"z": z.numpy(), "y": y.numpy()})
    np.testing.assert_allclose(image, net(z, y).numpy(), atol=1e-5)


def test_what_goes_to_other_machines_has_no_operator_of_one_runtime(net: Deployed, tmp_path: Path) -> None:
    for precision in ("fp32", "fp16", "int8-static"):
        assert {n.domain for n in written(net, tmp_path, precision).graph.node} <= {""}


def test_few_bits_make_small_files(net: Deployed, tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16", "int8", "w4a32"):
        written(net, tmp_path, precision)
        sizes[precision] = (tmp_path / "model.onnx").stat().st_size
    assert sizes["fp32"] > sizes["fp16"] > sizes["w4a32"] and sizes["fp32"] > sizes["int8"] > sizes["w4a32"]


def test_calibration_draws_seeds_that_nothing_else_draws() -> None:
    from lab import diffusion

    drawn = range(int8.CALIBRATION_SEED, int8.CALIBRATION_SEED + int8.CALIBRATION_IMAGES)
    assert diffusion.REFERENCE_SEED + 100_000 < drawn.start and drawn.stop < diffusion.PAIR_SEED
    batches = list(export.calibration(SPEC, 10))
    assert sum(len(b["z"]) for b in batches) == len(drawn) and set(batches[0]) == {"z", "y"}
    assert set(next(export.calibration(SPEC, 0))) == {"z"}


def test_an_unknown_precision_is_a_sentence(net: Deployed, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown precision of an ONNX file 'int9'; did you mean 'int8'"):
        export.to_onnx(net, SPEC, tmp_path / "model.onnx", "int9")
    assert not list(tmp_path.iterdir())


def test_onnx_files_and_torch_know_the_precisions_that_the_table_gives_them() -> None:
    assert tuple(export.PRECISIONS) == FORMS["onnxruntime"]
    assert tuple(base.PRECISIONS) == FORMS["eager"] == FORMS["compiled"]
