"""A network made ready for products of 8 bits."""

from __future__ import annotations

import pytest
import torch

from lab import cost, deploy, export, int8, runtimes
from lab.config import DiTConfig
from lab.data import ImageSpec
from lab.deploy import Deployed
from lab.models.dit import DiT
from lab.results import Store
from lab.weights import load_student, spec_of_run

CONFIG = DiTConfig(image_size=8, patch=2, depth=2, width=32, heads=2)
SPEC = ImageSpec(data="toy", size=8, channels=1, num_classes=10)


def as_if_trained(config: DiTConfig) -> Deployed:
    """With an input channel ten times as wide as the others, as trained networks have."""
    torch.manual_seed(0)
    student = DiT(config)
    for p in student.parameters():
        p.data += 0.1 * torch.randn_like(p)
    net = deploy.deploy(student)
    net.table[:, 1::3, 3] *= 10  # scales of LN
    return net


@pytest.fixture(scope="module")
def net() -> Deployed:
    return as_if_trained(CONFIG)


def ratio(net: Deployed, layer: str) -> float:
    """Of the largest channel's range to a middle one's, in the first block."""
    ranges = int8.inputs_of(net, SPEC)[0, layer].abs().amax(0)
    return float(ranges.max() / ranges.median())


def test_even_ranges_change_no_image(net: Deployed) -> None:
    z, y = torch.randn(5, 1, 8, 8), torch.tensor([0, 3, 9, 3, 1])
    even = int8.smoothed(net, SPEC)
    torch.testing.assert_close(even(z, y), net(z, y), atol=1e-5, rtol=1e-5)
    for layer in ("qkv", "fc1"):
        assert ratio(even, layer) < 0.5 * ratio(net, layer)


@pytest.mark.parametrize("top", [63, 64, 127])
def test_rounded_weights_are_whole_multiples_of_the_step_that_the_largest_one_gives(net: Deployed, top: int) -> None:
    ready = int8.rounded(net, SPEC, top)
    for block, before in zip(ready.blocks, net.blocks):
        for name in int8.LAYERS:
            weight = getattr(block, name).weight
            steps = weight / (weight.abs().amax(1, keepdim=True) / top)
            assert (steps - steps.round()).abs().max() < 1e-3 and steps.abs().max() < top + 1e-3
        torch.testing.assert_close(block.fc2.weight, before.fc2.weight, atol=0, rtol=0)


def test_later_columns_make_the_rounding_of_earlier_ones_good() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 24, generator=rng) @ torch.randn(24, 24, generator=rng)  # correlated, as activations are
    weight = torch.randn(40, 24, generator=rng)
    found = int8.gptq(weight, x.double().T @ x.double() / len(x), 16)
    step = weight.abs().amax(1, keepdim=True) / 16
    plain = (weight / step).round() * step
    assert (x @ (found - weight).T).square().mean() < 0.7 * (x @ (plain - weight).T).square().mean()


def test_quantisers_find_the_grid_again(net: Deployed) -> None:
    """Nothing is rounded a second time: the file's weights are those that were prepared, to the last step."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    ready = int8.prepared(net, SPEC, export.SEVEN_BITS_TOP)
    found = {v.name: onnx.numpy_helper.to_array(v) for v in export.PRECISIONS["int8"](net, SPEC).graph.initializer}
    for index, block in enumerate(ready.blocks):
        name, weight = f"blocks.{index}.mlp.fc1.weight", block.fc1.weight.T
        again = torch.from_numpy(found[f"{name}_quantized"] * found[f"{name}_scale"])
        torch.testing.assert_close(again, weight, atol=1e-6, rtol=1e-5)


def test_the_share_of_multiply_adds_in_8_bits_is_that_of_the_layers(net: Deployed) -> None:
    layers = sum(getattr(block, name).weight.numel() for block in net.blocks for name in int8.LAYERS)
    assert int8.share(CONFIG) == layers * CONFIG.tokens / cost.of_config(CONFIG)["macs_deployed"]
    assert 0.4 < int8.share(CONFIG) < 2 / 3


def test_an_unconditional_network_and_one_without_blocks_are_prepared(net: Deployed) -> None:
    for config in (DiTConfig(image_size=8, num_classes=0, patch=2, depth=1, width=16, heads=2),
                   DiTConfig(image_size=8, num_classes=0, patch=8, depth=0, width=8, heads=1)):  # fmt: skip
        spec, plain = ImageSpec(data="toy", size=8, channels=1, num_classes=0), as_if_trained(config)
        z = torch.randn(2, 1, 8, 8)
        torch.testing.assert_close(int8.prepared(plain, spec, 127)(z), plain(z), atol=0.1, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("form", [("onnxruntime", "int8"), ("onnxruntime", "int8-static"), ("openvino", "int8")])
def test_a_committed_students_images_stay_within_a_grey_level(form: tuple[str, str], tmp_path) -> None:
    import shutil

    from lab.artefacts import read
    from lab.results import Run

    source = Store("results").get("d4w64h4p4")
    run = Run(shutil.copytree(source.path, tmp_path / source.id, ignore=shutil.ignore_patterns("export")))
    try:
        facts = read(runtimes.get(form[0]).export(run, form[1]))
    except LookupError as why:
        pytest.skip(str(why))
    assert facts["mean_abs"] < 2 / 255 and facts["int8_macs"] == pytest.approx(int8.share(run.recipe.student))
    assert load_student(run).config == run.recipe.student and spec_of_run(run).size == 28
