import dataclasses
import json

import pytest
from conftest import student_facts

from lab import cost
from lab.config import DiTConfig, Recipe, UNetConfig
from lab.results import Store

SHAPES = {
    "one-step": DiTConfig(),
    "one token, one block": DiTConfig(image_size=4, patch=4, depth=1, width=16, heads=2),
    "odd mlp": DiTConfig(image_size=8, patch=2, depth=2, width=48, heads=3, mlp_hidden=77),
    "unconditional": DiTConfig(image_size=8, num_classes=0, patch=2, depth=2, width=16, heads=2),
    "denoiser": DiTConfig(image_size=8, time=True, null_class=True, patch=4, depth=2, width=32, heads=4),
    "unconditional denoiser": DiTConfig(image_size=8, time=True, num_classes=0, patch=4, depth=1, width=16, heads=1),
    "learned variance": DiTConfig(image_size=8, channels=4, out_channels=8, patch=2, depth=2, width=64, time=True),
    "no block": DiTConfig(image_size=8, channels=3, patch=8, depth=0, width=8, heads=1),
}


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_closed_form_equals_the_flop_counter_and_the_networks_parameters(config: DiTConfig) -> None:
    assert cost.of_config(config) == cost.counted(config)


def test_a_block_has_the_published_number_of_parameters_and_macs() -> None:
    one, two = (cost.of_config(DiTConfig(depth=d)) for d in (1, 2))
    N, D = 49, 64
    assert two["params"] - one["params"] == 18 * D**2 + 15 * D
    assert two["macs"] - one["macs"] == 12 * N * D**2 + 2 * N**2 * D + 6 * D**2


def test_the_published_fixture_model_has_its_parameters() -> None:
    config = DiTConfig(image_size=8, channels=4, out_channels=8, num_classes=10, null_class=True, time=True,
                       patch=2, depth=2, width=64, heads=4)  # fmt: skip
    positions = config.tokens * config.width  # the published code counts its fixed table as a parameter
    assert cost.of_config(config)["params"] + positions == 183_200


def test_a_unet_with_attention_costs_more_macs_than_the_same_without() -> None:
    with_, without = (
        cost.of_config(UNetConfig(image_size=8, widths=(8, 8), groups=4, attention=a)) for a in ((1,), ())
    )
    assert with_["macs"] > without["macs"] > 0
    assert with_["params"] > without["params"]


def test_an_impossible_shape_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="width 100 is not a multiple of heads 3"):
        cost.of_config(DiTConfig(width=100, heads=3))


def test_half_precision_takes_two_bytes_a_parameter() -> None:
    found = cost.in_bytes(cost.of_config(DiTConfig()))
    assert found["bytes_fp16"] == 2 * found["params"] and found["bytes_fp16_deployed"] == 2 * found["params_deployed"]


@pytest.mark.parametrize(("time", "evaluations"), [(False, 1), (True, 8)])
def test_an_image_costs_every_evaluation_of_its_solver(tmp_path, time: bool, evaluations: int) -> None:
    student = DiTConfig(image_size=8, patch=4, depth=1, width=16, heads=2, time=time)
    run = Store(tmp_path).open(Recipe(student=student))
    run.write("student", student_facts(student))
    found = cost.of_run(run)
    assert found["evaluations"] == evaluations
    assert found["macs_image"] == evaluations * found["macs"]
    assert json.loads((run.path / "student.json").read_text())["file_mb"] == found["file_mb"]


def test_a_run_without_a_network_has_no_cost(tmp_path) -> None:
    run = Store(tmp_path).open(Recipe())
    with pytest.raises(LookupError, match="no finished network yet"):
        cost.of_run(run)


def test_what_was_trained_stands_beside_what_is_shipped(tmp_path) -> None:
    run = Store(tmp_path).open(Recipe(student=DiTConfig(image_size=8, patch=4, depth=1, width=16, heads=2)))
    run.write("student", student_facts(run.recipe.student, params_train=123_456))
    found = cost.of_run(run)
    assert found["params_train"] == 123_456 != found["params"]


def test_the_largest_operation_of_a_net_is_known_by_its_shape() -> None:
    wide = DiTConfig(image_size=28, patch=4, depth=4, width=64, heads=4)
    assert cost.activations(wide) == 2 * 49 * 256  # GELU reads and writes tokens x hidden width
    assert cost.activations(dataclasses.replace(wide, time=True)) == 2 * 49 * 256
    many = dataclasses.replace(wide, patch=1)
    assert cost.activations(many) == 2 * 4 * 784**2  # softmax over heads x tokens x tokens
    unet = UNetConfig(image_size=28, widths=(32, 64), attention=(1,))
    assert cost.activations(unet) == 2 * 2 * 196**2  # softmax at 14 x 14, in heads of 32 channels
