from __future__ import annotations

import pytest
import torch

from lab import deploy
from lab.config import DiTConfig
from lab.models.dit import DiT
from lab.runtimes.packed import PackedLinear, pack, packed_net, packed_state

CONFIG = DiTConfig(image_size=8, patch=2, depth=2, width=12, heads=2)


def ternary_net() -> deploy.Deployed:
    torch.manual_seed(0)
    student = DiT(CONFIG)
    for p in student.parameters():
        p.data += 0.1 * torch.randn_like(p)
    for linear in student.linears():
        linear.weight.data = 0.07 * linear.weight.data.sign() * (linear.weight.data.abs() > 0.05)
    return deploy.deploy(student)


@pytest.mark.parametrize("columns", [4, 5, 7, 12])
def test_a_packed_product_equals_the_plain_one(columns: int) -> None:
    weight = torch.randint(-1, 2, (6, columns)) * torch.rand(6, 1)
    layer = PackedLinear(columns, 6)
    layer.packed, layer.scale = pack(weight)
    x = torch.randn(3, columns)
    torch.testing.assert_close(layer(x), x @ weight.T)
    assert layer.packed.shape == (6, -(-columns // 4)) and layer.packed.dtype == torch.uint8


def test_bytes_are_two_bits_a_digit_first_digit_highest() -> None:
    packed, scale = pack(torch.tensor([[-0.5, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]))
    assert packed.tolist() == [[0b00011010], [0b01010101]] and scale.tolist() == [0.5, 0.0]


def test_a_packed_network_draws_the_same_images_from_an_eighth_of_the_bytes() -> None:
    net = ternary_net()
    state = packed_state(net)
    packed = packed_net(CONFIG)
    packed.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    z, y = torch.randn(4, 1, 8, 8), torch.tensor([0, 3, 7, 9])
    torch.testing.assert_close(packed(z, y), net(z, y), atol=2e-3, rtol=0)  # the rest stands in half precision
    matrix = "blocks.0.fc1"
    assert state[f"{matrix}.packed"].nbytes * 8 == net.blocks[0].fc1.weight.half().nbytes


def test_a_network_that_is_not_ternary_is_refused_by_name() -> None:
    net = ternary_net()
    net.blocks[1].proj.weight[2, 3] = 0.01
    with pytest.raises(ValueError, match=r"in blocks\.1\.proj a row has more than the values -a, 0 and a"):
        packed_state(net)
