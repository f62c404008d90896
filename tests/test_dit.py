from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from conftest import DATA, TINY_DIT

from lab import models
from lab.config import DiTConfig
from lab.models.dit import DiT, Linear, from_diffusers, from_published
from lab.models.layers import attend
from lab.models.taps import Taps


@pytest.fixture(scope="module")
def published():
    file = dict(np.load(DATA / "parity" / "dit_forward.npz"))
    config = DiTConfig(
        image_size=8, channels=4, out_channels=8, num_classes=10, null_class=True, time=True, patch=2, depth=2, width=64
    )
    net = DiT(config)
    net.load_state_dict(from_published({k[3:]: torch.from_numpy(v) for k, v in file.items() if k.startswith("sd.")}))
    return net.eval(), {k: torch.from_numpy(v) for k, v in file.items() if not k.startswith("sd.") and v.ndim}


def test_output_and_inner_tensors_equal_the_published_dit(published):
    net, file = published
    taps = Taps(["tokens", "block0", "block1"])
    out = net(file["x"], file["t"], file["y"], taps)
    for mine, theirs in [(out, "out"), *((taps[k], k) for k in ("tokens", "block0", "block1"))]:
        torch.testing.assert_close(mine, file[theirs], atol=1e-5, rtol=0)


def test_a_diffusers_dit_loads_and_gives_the_same_output(published):
    from diffusers import DiTTransformer2DModel

    _, file = published
    torch.manual_seed(0)
    theirs = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=10, norm_eps=1e-6,
    ).eval()  # fmt: skip
    for i, block in enumerate(theirs.transformer_blocks):  # as in every published checkpoint
        if i:
            block.norm1.emb.load_state_dict(theirs.transformer_blocks[0].norm1.emb.state_dict())
    net = DiT(published[0].config).eval()
    net.load_state_dict(from_diffusers(theirs.state_dict()))
    with torch.no_grad():
        expected = theirs(file["x"], file["t"], file["y"]).sample
        torch.testing.assert_close(net(file["x"], file["t"], file["y"]), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1


def test_a_one_step_student_has_no_timestep_parameters():
    names = [n for n, _ in models.build(TINY_DIT).named_parameters()]
    assert not [n for n in names if n.startswith("time")]
    assert [n for n, _ in models.build(DiTConfig(time=True)).named_parameters() if n.startswith("time")]


def test_the_first_output_is_zero():
    net = models.build(TINY_DIT)
    assert net(torch.randn(2, 1, 8, 8), None, torch.tensor([0, 9])).abs().max() == 0


@pytest.mark.parametrize(
    "config",
    [
        DiTConfig(image_size=8, patch=8, depth=1, width=16, heads=1),  # one token
        DiTConfig(image_size=6, patch=2, depth=1, width=24, heads=3, mlp_hidden=40, num_classes=1, channels=3),
        DiTConfig(image_size=8, patch=4, depth=0, width=8, heads=2, num_classes=0),
        DiTConfig(image_size=8, patch=2, depth=1, width=8, heads=2, num_classes=0, time=True),
    ],
)
def test_every_knob_is_free(config):
    net = models.build(config)
    t = torch.zeros(3) if config.time else None
    y = torch.zeros(3, dtype=torch.int64) if config.num_classes else None
    out = net(torch.randn(3, config.channels, config.image_size, config.image_size), t, y)
    assert out.shape == (3, config.channels, config.image_size, config.image_size)
    out.square().sum().backward()


def test_an_impossible_shape_is_refused_with_every_reason():
    with pytest.raises(ValueError, match=r"width 30 is not a multiple of heads 4.*not a multiple of 4"):
        models.build(DiTConfig(width=30))


def test_explicit_attention_equals_the_fused_one(published):
    net, file = published
    taps = Taps(["attn0", "q0", "k0", "v0"])
    net(file["x"], file["t"], file["y"], taps)
    fused = torch.nn.functional.scaled_dot_product_attention(taps["q0"], taps["k0"], taps["v0"])
    torch.testing.assert_close(taps["attn0"] @ taps["v0"], fused, atol=1e-5, rtol=1e-5)


def test_nothing_is_kept_that_nobody_asked_for():
    taps = Taps(["block1"])
    models.build(TINY_DIT)(torch.randn(1, 1, 8, 8), None, torch.tensor([3]), taps)
    assert list(taps.kept) == ["block1"]
    with pytest.raises(LookupError, match="no tap 'attn0' was kept; kept: block1"):
        taps["attn0"]


def test_attention_with_its_scores_written_out_equals_the_fused_one_and_its_gradient():
    def gradients(call):
        torch.manual_seed(0)
        q, k, v = (torch.randn(2, 3, 9, 8, requires_grad=True) for _ in range(3))
        out = call(q, k, v, 8**-0.5)
        (out * torch.randn_like(out)).sum().backward()
        return out, q.grad, k.grad, v.grad

    graphs = []
    written = torch.compile(attend, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    for mine, fused in zip(gradients(written), gradients(attend)):
        torch.testing.assert_close(mine, fused, atol=1e-5, rtol=1e-5)
    assert "scaled_dot_product" not in graphs[0].code


class Double(torch.nn.Module):
    def forward(self, w):
        return 2 * w


class Round(torch.nn.Module):
    last = True

    def forward(self, w):
        return w.round()


def test_a_quantiser_sees_the_sum_of_all_other_edits():
    linear = Linear(4, 3)
    linear.edit(Round())
    linear.edit(Double())
    x = torch.randn(5, 4)
    expected = torch.nn.functional.linear(x, (2 * linear.weight).round(), linear.bias)
    torch.testing.assert_close(linear(x), expected)
    with pytest.raises(ValueError, match="takes one quantiser"):
        linear.edit(Round())


def test_folding_keeps_the_output_and_leaves_the_live_net_alone():
    linear = Linear(4, 3)
    linear.edit(Double())
    x = torch.randn(5, 4)
    before, copied = linear(x), copy.deepcopy(linear)
    copied.fold()
    assert len(copied.edits) == 0 and len(linear.edits) == 1
    torch.testing.assert_close(copied(x), before)
    torch.testing.assert_close(linear(x), before)


def test_folding_drops_a_temporary_edit():
    linear = Linear(4, 3)
    weight = linear.weight.clone()
    adapter = Double()
    adapter.temporary = True
    linear.edit(adapter)
    linear.fold()
    assert torch.equal(linear.weight, weight)
