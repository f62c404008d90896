"""Kinds of block: found by their files, exchangeable, each told time, class and their sum."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import TINY_DIT

from lab import models, weights
from lab.config import DiTConfig, Recipe, block_kinds, config_from_json, config_to_json
from lab.models.blocks import BLOCKS
from lab.models.blocks.time import Block as TimeBlock
from lab.models.layers import Condition
from lab.models.taps import Taps
from lab.optim import Optimizer

ONE_STEP = dataclasses.replace(TINY_DIT, block="time")
DENOISER = dataclasses.replace(ONE_STEP, time=True)
UNCONDITIONAL = dataclasses.replace(ONE_STEP, num_classes=0)
WIDE_HEADS = dataclasses.replace(TINY_DIT, heads=3, head_dim=12)
SHAPES = {"one-step": ONE_STEP, "denoiser": DENOISER, "unconditional": UNCONDITIONAL,
          "time and head_dim": dataclasses.replace(WIDE_HEADS, block="time"), "head_dim": WIDE_HEADS}  # fmt: skip


def inputs(config: DiTConfig, count: int = 3) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    torch.manual_seed(1)
    x = torch.randn(count, config.channels, config.image_size, config.image_size)
    t = torch.rand(count) if config.time else None
    return x, t, torch.arange(count) if config.num_classes else None


def as_if_trained(config: DiTConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    net = models.build(config)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return net.eval()


def of_time(told: int = 16, tokens: int = 4) -> tuple[TimeBlock, torch.Tensor]:
    """A block of random weights, and tokens (2, N, 16)."""
    torch.manual_seed(0)
    block = TimeBlock(dataclasses.replace(DENOISER, width=told))
    for p in block.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return block, torch.randn(2, tokens, told)


def said(block: TimeBlock, scale: float = 1.0) -> Condition:
    time = scale * torch.randn(2, block.attn.cond.in_features)
    return Condition(time, None, time)


def test_the_kinds_are_the_files() -> None:
    assert list(BLOCKS) == block_kinds() and {"adaln", "time"} <= {*BLOCKS}
    with pytest.raises(ValueError, match="unknown kind of block 'tame'; did you mean 'time'"):
        models.build(DiTConfig(block="tame"))


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("time", [False, True])
def test_every_kind_puts_the_taps_that_it_names_and_starts_at_zero(kind: str, time: bool) -> None:
    config = dataclasses.replace(TINY_DIT, block=kind, time=time)
    net, taps = models.build(config), None
    taps = Taps(net.tap_names)
    assert net(*inputs(config), taps).abs().max() == 0
    assert taps.kept.keys() == net.tap_names and "block1" in net.tap_names


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_gradients_reach_every_parameter_and_muon_finds_the_matrices(config: DiTConfig) -> None:
    net = as_if_trained(config)
    net(*inputs(config)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    matrices = {p for group in Optimizer([net], Recipe(student=config, lr=0.1)).parts["muon"].param_groups
                for p in group["params"]}  # fmt: skip
    assert matrices == {linear.weight for linear in net.linears() if linear.matrices}
    assert len(matrices) == 4 * config.depth


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_programs_and_files_give_the_same_images(config: DiTConfig, tmp_path) -> None:
    net, given = as_if_trained(config), inputs(config)
    expected = net(*given)
    whole = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(*given), expected, atol=1e-4, rtol=1e-4)
    batch = torch.export.Dim("B", max=64)
    shapes = tuple(None if v is None else {0: batch} for v in given)
    program = torch.export.export(net, given, dynamic_shapes=(*shapes, None)[:3]).module()
    more = inputs(config, 7)
    torch.testing.assert_close(program(*more), net(*more), atol=1e-4, rtol=1e-4)
    assert weights._not_rebuilt(net) is None
    assert config_from_json(config_to_json(config)) == config


def test_heads_may_be_wider_than_their_share() -> None:
    net = models.build(WIDE_HEADS)
    assert net.blocks[0].attn.qkv.weight.shape == (3 * 3 * 12, 16) and net.blocks[0].attn.proj.weight.shape == (16, 36)
    taps = Taps(["q0"])
    net(*inputs(WIDE_HEADS), taps)
    assert taps["q0"].shape == (3, 3, 4, 12)
    assert WIDE_HEADS.shape == "d2w16h3x12p4"
    same = dataclasses.replace(TINY_DIT, head_dim=8)
    assert same.shape == TINY_DIT.shape  # the same network
    assert DiTConfig(head_dim=0).check() == ["head_dim must be at least 1, got 0"]


def test_what_was_added_stays_out_of_older_ids() -> None:
    plain = Recipe(student=TINY_DIT)
    assert plain.with_(student__block="adaln", student__head_dim=None).id == plain.id
    others = {plain.with_(student__block="time").id, plain.with_(student__head_dim=4).id}
    assert len({plain.id, *others}) == 3


# --- the time block, methods.md section 7 ----------------------------------------------------------


def test_without_its_weights_the_condition_is_not_heard() -> None:
    block, x = of_time()
    assert not torch.equal(block(x, said(block)), block(x, said(block)))
    torch.nn.init.zeros_(block.attn.cond.weight)
    assert torch.equal(block(x, said(block)), block(x, said(block)))


def test_attention_changes_with_the_condition_and_its_rows_sum_to_one() -> None:
    block, x = of_time()
    first, second = Taps(["attn0"]), Taps(["attn0"])
    block(x, said(block), first)
    block(x, said(block), second)
    assert (first["attn0"] - second["attn0"]).abs().max() > 0.01
    torch.testing.assert_close(first["attn0"].sum(-1), torch.ones(2, 2, 4))


def test_what_is_told_to_the_keys_does_not_count() -> None:
    block, x = of_time()
    block, x = block.double(), x.double()
    told = Condition(*(v if v is None else v.double() for v in said(block)))
    block(x, told).square().sum().backward()
    q, k, v = block.attn.cond.weight.grad.chunk(3)
    assert k.norm() < 1e-6 * q.norm() and k.norm() < 1e-6 * v.norm()


@pytest.mark.parametrize(("width", "heads", "patch"), [(16, 2, 4), (32, 4, 2)])
def test_a_block_has_the_parameters_of_its_formula(width: int, heads: int, patch: int) -> None:
    config = dataclasses.replace(DENOISER, width=width, heads=heads, patch=patch)
    D, s = width, config.image_size // patch
    attention = 4 * D**2 + 4 * D + 3 * D * D + (2 * s - 1) ** 2 * heads
    mlp, norms = 8 * D**2 + 5 * D, 4 * D
    counts = [sum(p.numel() for p in BLOCKS[kind](config).parameters()) for kind in ("time", "adaln")]
    assert counts == [attention + mlp + norms, 18 * D**2 + 15 * D]


def test_an_image_depends_on_class_and_time() -> None:
    net = as_if_trained(dataclasses.replace(DENOISER, num_classes=3))
    x = torch.randn(1, 1, 8, 8)
    images = [net(x, torch.tensor([t]), torch.tensor([y])) for t, y in [(0.1, 0), (0.9, 0), (0.1, 1)]]
    assert (images[0] - images[1]).abs().max() > 1e-3 and (images[0] - images[2]).abs().max() > 1e-3


def test_written_attention_hears_the_bias() -> None:
    """Compiled for a CPU the scores are written out: the same images as of the fused product."""
    block, x = of_time()
    told = said(block)
    graphs = []
    written = torch.compile(block, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    torch.testing.assert_close(written(x, told), block(x, told), atol=1e-5, rtol=1e-5)
    assert "scaled_dot_product" not in graphs[0].code
