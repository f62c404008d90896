"""Against TerDiT's public code (arXiv 2405.14854): its ternary linear layer, its packing, its block."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from conftest import TINY_DIT
from torch import Tensor, nn

from lab.methods.ternary import ThreeValues, ternary
from lab.models.blocks.adaln import Block
from lab.models.layers import Linear
from lab.packing import pack, unpack


def layer_of(weight: Tensor, alpha: Tensor, bias: Tensor | None = None) -> Linear:
    layer = Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.edit(edit := ThreeValues(layer))
    with torch.no_grad():
        layer.weight.copy_(weight)
        edit.alpha.copy_(alpha.squeeze())
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def test_a_ternary_layer_gives_its_output_and_its_straight_through_gradient(arrays):
    file = arrays("terdit_ternary.npz")
    assert torch.equal(ternary(file["W"]), file["ternary"])
    torch.testing.assert_close(file["W"].abs().mean(), file["gamma"], atol=1e-6, rtol=0)
    layer = layer_of(file["W"], file["alpha"], file["bias"])
    y = layer(file["x"])
    torch.testing.assert_close(y, file["y"], atol=1e-6, rtol=0)
    y.backward(file["upstream"])
    torch.testing.assert_close(layer.weight.grad, file["grad_W"], atol=1e-6, rtol=0)
    torch.testing.assert_close(layer.edits[0].alpha.grad, file["grad_alpha"].squeeze(), atol=1e-6, rtol=0)


def test_bytes_are_laid_out_as_its_kernels_read_them(arrays):
    file = arrays("terdit_ternary.npz")
    assert torch.equal(pack(file["ternary"]), file["packed_u8"])
    assert torch.equal(unpack(file["packed_u8"]), file["ternary"])


def test_a_block_of_such_layers_gives_its_modulation_and_its_output(arrays):
    """Its backbone is Large-DiT's: RMSNorm, rotary positions, SwiGLU; modulation is that of our block."""
    file = arrays("terdit_block.npz")

    def layer(name: str) -> Linear:
        name = f"sd.{name}"
        return layer_of(file[f"{name}.weight"], file[f"{name}.alphas"], file.get(f"{name}.bias"))

    def norm(x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], file[f"sd.{name}.weight"], eps=1e-5)

    def turned(x: Tensor) -> Tensor:  # (B, N, H, d): channels 2i, 2i + 1 are a complex number
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        turns = torch.complex(file["freqs_cos"], file["freqs_sin"])[:, None]  # (N, 1, d/2)
        return torch.view_as_real(pairs * turns).flatten(-2)

    block = Block(dataclasses.replace(TINY_DIT, width=32, adaln_norm=True))
    block.adaln = layer("adaLN_modulation.1")
    block.adaln_norm.weight = nn.Parameter(file["sd.adaLN_modulation.2.weight"])
    modulation = block.modulation(F.silu(file["c"]))
    torch.testing.assert_close(modulation, file["modulation"], atol=1e-5, rtol=1e-5)

    sh1, sc1, g1, sh2, sc2, g2 = modulation.unsqueeze(1).chunk(6, -1)
    x = file["x"]
    h = norm(x, "attention_norm") * (1 + sc1) + sh1
    q, k, v = (layer(f"attention.w{part}")(h).unflatten(-1, (4, -1)) for part in "qkv")
    out = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (turned(q), turned(k), v)))
    x = x + g1 * layer("attention.wo")(out.transpose(1, 2).flatten(2))
    h = norm(x, "ffn_norm") * (1 + sc2) + sh2
    one, two, three = (layer(f"feed_forward.w{part}") for part in "123")
    x = x + g2 * two(F.silu(one(h)) * three(h))
    torch.testing.assert_close(x, file["out"], atol=1e-5, rtol=1e-5)
