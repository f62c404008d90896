"""GET's student and the plain ViT."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import TINY_STUDENT
from safetensors.torch import load_file

from lab import cost, models, weights
from lab.config import GETConfig, Recipe, config_from_json, config_to_json
from lab.models.taps import Taps
from lab.optim import Optimizer

TINY = GETConfig(image_size=8, patch=4, depth=2, width=16, heads=2, iterations=3)
VIT = dataclasses.replace(TINY, iterations=0)
UNCONDITIONAL = dataclasses.replace(TINY, num_classes=0, channels=3, tied=2, tied_hidden=24, mlp_hidden=40)
SHAPES = {"get": TINY, "vit": VIT, "unconditional": UNCONDITIONAL}


def as_if_trained(config: GETConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    net = models.build(config)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return net.eval()


def inputs(config: GETConfig, count: int = 3) -> tuple[torch.Tensor, None, torch.Tensor | None]:
    torch.manual_seed(1)
    z = torch.randn(count, config.channels, config.image_size, config.image_size)
    return z, None, torch.arange(count) if config.num_classes else None


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_first_image_is_zero_and_every_tap_is_put(config: GETConfig) -> None:
    net = models.build(config)
    taps, given = Taps(net.tap_names), inputs(config)
    image = net(*given, taps)
    assert image.shape == given[0].shape and image.abs().max() == 0
    assert taps.kept.keys() == net.tap_names and f"block{len(net.blocks) - 1}" in net.tap_names
    assert not [name for name, _ in net.named_parameters() if "time" in name]


def test_the_group_is_the_iteration_of_its_equation() -> None:
    net, given = as_if_trained(TINY), inputs(TINY)
    taps = Taps(["tokens", "block1", "block4"])
    net(*given, taps)
    said = net.label(given[2])[:, None]
    x = net.blocks[1](net.blocks[0](taps["tokens"], said), said)
    torch.testing.assert_close(x, taps["block1"])
    u = net.inject(x).split(48, -1)
    z = torch.zeros_like(x)
    for _ in range(3):
        for j in range(3):
            z = net.blocks[2 + j](z, said + u[j])
    torch.testing.assert_close(z, taps["block4"])


def test_iterations_take_work_and_no_parameters() -> None:
    once, twice, many = (cost.counted(dataclasses.replace(TINY, iterations=i)) for i in (1, 2, 6))
    assert once["params"] == twice["params"] == many["params"]
    N, D, M = TINY.tokens, TINY.width, TINY.group_hidden
    group = TINY.tied * (4 * N * D**2 + 2 * N**2 * D + 2 * N * D * M)
    assert twice["macs"] - once["macs"] == group and many["macs"] - once["macs"] == 5 * group
    vit = cost.counted(VIT)
    assert once["macs"] - vit["macs"] == group + N * D * 3 * D * TINY.tied


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_muon_finds_each_matrix_of_a_block_once(config: GETConfig) -> None:
    net = as_if_trained(config)
    net(*inputs(config)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    groups = Optimizer([net], Recipe(student=config, lr=0.1)).parts["muon"].param_groups
    assert {g["params"][0] for g in groups} == {linear.weight for linear in net.linears()}
    assert len(groups) == 4 * len(net.blocks) and {g["matrices"] for g in groups} == {1, 3}


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_programs_give_the_same_images(config: GETConfig) -> None:
    net, given = as_if_trained(config), inputs(config)
    whole = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(*given), net(*given), atol=1e-5, rtol=1e-5)
    batch = torch.export.Dim("B", max=64)
    shapes = tuple(None if v is None else {0: batch} for v in given)
    program = torch.export.export(net, given, dynamic_shapes=shapes).module()
    more = inputs(config, 7)
    torch.testing.assert_close(program(*more), net(*more), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_a_file_holds_every_weight_once_and_gives_it_back(config: GETConfig, tmp_path) -> None:
    net = as_if_trained(config)
    for p in net.parameters():
        p.data = p.data.half().float()  # as files hold them; the table of positions keeps its digits
    weights.write_weights(net, tmp_path / "net.safetensors")
    assert weights._not_rebuilt(net) is None
    back = models.build(config_from_json(config_to_json(config))).eval()
    back.load_state_dict({k: v.float() for k, v in load_file(tmp_path / "net.safetensors").items()})
    assert torch.equal(back(*inputs(config)), net(*inputs(config)))


def test_shapes_are_told_apart_by_their_words() -> None:
    assert TINY.shape == "getd2w16h2p4g3x3" and VIT.shape == "vitd2w16h2p4"
    assert UNCONDITIONAL.shape == "getd2w16h2p4m40g2x3m24"
    recipe = dataclasses.replace(TINY_STUDENT, student=TINY)
    assert Recipe.from_json(recipe.to_json()) == recipe and "getd2w16h2p4g3x3" in recipe.id


@pytest.mark.parametrize(
    ("change", "said"),
    [({"iterations": -1}, "iterations must be at least 0, got -1"), ({"tied": 0}, "tied must be at least 1, got 0"),
     ({"tied_hidden": 0}, "tied_hidden must be at least 1, got 0"), ({"width": 18}, "not a multiple of 4"),
     ({"heads": 3}, "width 16 is not a multiple of heads 3"), ({"patch": 3}, "not a multiple of patch 3")],
)  # fmt: skip
def test_an_impossible_shape_is_refused(change: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        models.build(dataclasses.replace(TINY, **change))
