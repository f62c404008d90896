"""The deployed form: equal output, less to keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lab import cost, deploy, models
from lab.config import DiTConfig, NetConfig, RoutedConfig, config_to_json
from lab.data import ImageSpec
from lab.models.blocks.adaln import Attention
from lab.models.dit import DiT, Linear
from lab.teachers import EdmTeacher
from tests.conftest import TINY_UNET

SHAPES = {
    "classes": DiTConfig(image_size=8, patch=2, depth=2, width=24, heads=2),
    "null class": DiTConfig(image_size=8, null_class=True, patch=4, depth=2, width=16, heads=4),
    "unconditional": DiTConfig(image_size=8, num_classes=0, patch=4, depth=2, width=16, heads=2),
    "colour": DiTConfig(image_size=8, channels=3, num_classes=3, patch=2, depth=1, width=16, heads=1, mlp_hidden=20),
    "two maps out": DiTConfig(image_size=4, channels=2, out_channels=4, patch=2, depth=1, width=16, heads=2),
    "narrow heads": DiTConfig(image_size=8, patch=2, depth=2, width=24, heads=2, head_dim=5),
    "time blocks": DiTConfig(image_size=8, patch=2, depth=2, width=24, heads=2, block="time"),
    "time blocks, unconditional": DiTConfig(image_size=8, num_classes=0, depth=2, width=16, heads=2, block="time"),
    "dynamic blocks": DiTConfig(image_size=8, patch=2, depth=2, width=24, heads=3, block="dynamic"),
    "dynamic blocks, unconditional": DiTConfig(
        image_size=8, num_classes=0, depth=2, width=16, heads=2, head_dim=3, block="dynamic"
    ),
    "no block": DiTConfig(image_size=8, patch=8, depth=0, width=8, heads=1),
}


def as_if_trained(config: DiTConfig, seed: int = 0) -> DiT:
    """A student whose zero-initialised layers, which hide all others, hold numbers."""
    torch.manual_seed(seed)
    net = DiT(config).eval().requires_grad_(False)
    for name, p in net.named_parameters():
        if p.ndim < 2 or any(part in name for part in ("adaln", "head", "label", "table", ".cond.")):
            nn.init.normal_(p, std=0.3)
    return net


def inputs(config: DiTConfig, batch: int) -> tuple[Tensor, Tensor | None]:
    z = torch.randn(batch, config.channels, config.image_size, config.image_size)
    labels = config.num_classes + config.null_class
    return z, torch.arange(batch) % labels if labels else None


@pytest.mark.parametrize("batch", [1, 4, 64])
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_deployed_net_draws_the_students_images_of_every_class(config: DiTConfig, batch: int) -> None:
    student = as_if_trained(config)
    z, y = inputs(config, batch)
    expected = student(z, None, y)
    assert expected.std() > 0.1
    torch.testing.assert_close(deploy.deploy(student)(z, y), expected, atol=1e-5, rtol=1e-5)


def test_each_class_has_a_row_of_its_own() -> None:
    config = SHAPES["null class"]
    net = deploy.deploy(as_if_trained(config))
    z = inputs(config, 1)[0].expand(11, -1, -1, -1)
    images = net(z, torch.arange(11)).flatten(1)
    assert len(net.table) == 11 and torch.pdist(images).min() > 0.01


def test_conditioning_is_gone_and_the_counts_are_those_of_the_closed_form() -> None:
    student = as_if_trained(DiTConfig())
    net = deploy.deploy(student)
    assert not [n for n, _ in net.named_parameters() if "adaln" in n or "label" in n or "cond" in n]
    found = cost.of_config(student.config)
    assert sum(p.numel() for p in net.parameters()) == found["params_deployed"] < 0.8 * found["params"]
    assert found["macs_deployed"] == found["macs"] - student.config.depth * 6 * 64**2 - 2 * 64**2


@pytest.mark.parametrize("kind", ["classes", "narrow heads", "time blocks", "dynamic blocks"])
def test_the_file_is_as_large_as_its_cost_says(tmp_path: Path, kind: str) -> None:
    config = SHAPES[kind]
    deploy.save(deploy.deploy(as_if_trained(config)), tmp_path / "net.safetensors")
    assert (tmp_path / "net.safetensors").stat().st_size == 1e6 * cost.deployed_mb(config)


def test_a_time_block_is_told_two_rows_and_loses_what_told_it() -> None:
    """A class's k is the same for every key and its v the same for every token, so neither is kept."""
    config = DiTConfig(block="time", depth=4, width=44, heads=4, mlp_hidden=96)
    net, found = deploy.deploy(as_if_trained(config)), cost.of_config(config)
    D, L, K = config.width, config.depth, config.num_classes
    assert type(net) is deploy.Folded and net.table.shape == (K, 2 * L + 2, D)
    # Gone: W_c (D, 3D) and two norms of 2 D a block, the label's table, the last adaLN layer and the embedding's bias.
    gone = L * (3 * D * D + 4 * D) + K * D + (2 * D * D + 2 * D) + D
    assert sum(p.numel() for p in net.parameters()) == found["params_deployed"]
    assert found["params_deployed"] == found["params"] - gone + net.table.numel() + net.positions.numel()
    assert found["macs_deployed"] == found["macs"] - L * 3 * D * D - 2 * D * D


def test_a_dynamic_block_is_told_which_heads_and_groups_act_and_keeps_the_router_of_its_tokens() -> None:
    config = DiTConfig(block="dynamic", depth=4, width=40, heads=4, mlp_hidden=96)
    student = as_if_trained(config)
    net, found = deploy.deploy(student), cost.of_config(config)
    D, L, H, K = config.width, config.depth, config.heads, config.num_classes
    assert type(net) is deploy.Folded and net.table.shape == (K, 8 * L + 2, D)
    for index, block in enumerate(student.blocks):
        acts = block.widths(student.condition(None, torch.arange(K), K))  # (K, 2, H)
        told = net.table[:, 8 * index + 6 : 8 * index + 8]
        assert torch.equal(told[..., :H], acts) and not told[..., H:].any()
        assert 0 < acts.mean() < 1 and (acts != acts[:1]).any(), "they differ by the class"
        same = zip(block.token_router.parameters(), net.blocks[index].router.parameters())
        assert all(torch.equal(theirs, mine) for theirs, mine in same)
    assert sum(p.numel() for p in net.parameters()) == found["params_deployed"] < 0.85 * found["params"]


def test_every_expert_of_a_routed_net_is_folded_and_counted_so() -> None:
    config = RoutedConfig(image_size=8, num_classes=3, patch=2, depth=2, width=24, heads=2, head_dim=5, table=(1, 0, 1))
    parts, net = config.parts, models.build(config).eval()
    net.experts = nn.ModuleList(as_if_trained(part, seed) for seed, part in enumerate(parts))
    z, y = torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 2, 2, 1, 0])
    ready, found = deploy.deploy(net), cost.of_config(config)
    torch.testing.assert_close(ready(z, y), net(z, None, y), atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in ready.parameters()) == found["params_deployed"] < found["params"]
    assert found["macs_deployed"] == max(cost.of_config(part)["macs_deployed"] for part in parts) < found["macs"]


def test_weight_edits_are_folded_and_the_student_is_left_as_it_is() -> None:
    class Twice(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return 2 * w

    student = as_if_trained(SHAPES["classes"])
    for layer in (student.blocks[0].attn.qkv, student.blocks[1].adaln, student.blocks[1].mlp.fc2):
        layer.edit(Twice())
    before = {k: v.clone() for k, v in student.state_dict().items()}
    z, y = inputs(student.config, 4)
    torch.testing.assert_close(deploy.deploy(student)(z, y), student(z, None, y), atol=1e-5, rtol=1e-5)
    assert len(student.blocks[0].attn.qkv.edits) == 1
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())


@pytest.mark.parametrize("kind", ["null class", "time blocks", "dynamic blocks"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 0), (torch.float16, 0.02)])
def test_a_saved_net_comes_back(tmp_path: Path, kind: str, dtype: torch.dtype, atol: float) -> None:
    net = deploy.deploy(as_if_trained(SHAPES[kind]))
    digest = deploy.save(net, tmp_path / "net.safetensors", dtype)
    back = deploy.load(tmp_path / "net.safetensors")
    z, y = inputs(net.config, 10)
    assert back.config == net.config and len(digest) == 64
    torch.testing.assert_close(back(z, y), net(z, y), atol=atol, rtol=0)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "text").write_text("nothing")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="text is no safetensors file"):
        deploy.load(tmp_path / "text")
    with pytest.raises(ValueError, match=r"other\.safetensors holds no deployed network"):
        deploy.load(tmp_path / "other.safetensors")
    net = deploy.deploy(as_if_trained(SHAPES["classes"]))
    whole = {name: value.to(torch.int8) for name, value in net.state_dict().items()}
    save_file(whole, tmp_path / "int8.safetensors", {"deployed": json.dumps(config_to_json(net.config))})
    with pytest.raises(ValueError, match=r"int8\.safetensors: blocks\.0\.\S+ is int8 \("):
        deploy.load(tmp_path / "int8.safetensors")


DENOISERS = {
    "dit": DiTConfig(image_size=8, depth=1, width=16, heads=2, patch=4, time=True, null_class=True),
    "unconditional dit": DiTConfig(image_size=8, depth=1, width=16, heads=2, patch=4, time=True, num_classes=0),
    "unet": TINY_UNET,
}


@pytest.mark.parametrize("solver", ["dpmpp2m-3", "heun-2"])
@pytest.mark.parametrize("config", DENOISERS.values(), ids=DENOISERS)
def test_a_denoiser_is_deployed_with_its_solver_and_draws_the_teachers_images(config: NetConfig, solver: str) -> None:
    torch.manual_seed(0)
    net, spec = models.build(config), ImageSpec(data="toy", size=8, channels=1, num_classes=config.num_classes)
    for p in net.parameters():
        p.data += 0.1 * torch.randn_like(p)
    z, y = inputs(config, 3)
    with torch.no_grad():
        found = deploy.deploy(net, spec, solver)(z, y)
    expected = EdmTeacher(net, spec, name="", solver=solver).sample(z, y).images
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_a_denoiser_without_a_spec_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="give their spec"):
        deploy.deploy(DiT(DENOISERS["dit"]))


class Windowed(Attention):
    """A part of another kind, which here computes the same."""


def test_a_part_of_another_kind_is_deployed_as_it_is_with_its_edits_folded() -> None:
    class Twice(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return 2 * w

    student = as_if_trained(SHAPES["classes"])
    part = Windowed(24, 2)
    part.load_state_dict(student.blocks[1].attn.state_dict())
    plain = deploy.deploy(student)
    student.blocks[1].attn = part
    z, y = inputs(student.config, 4)
    net = deploy.deploy(student)
    assert not isinstance(net, deploy.Deployed) and net.config == student.config
    torch.testing.assert_close(net(z, y), plain(z, y), atol=1e-5, rtol=1e-5)
    part.qkv.edit(Twice())
    net = deploy.deploy(student)
    torch.testing.assert_close(net(z, y), student(z, None, y), atol=1e-5, rtol=1e-5)
    assert len(part.qkv.edits) == 1 and not any(len(m.edits) for m in net.modules() if isinstance(m, Linear))
