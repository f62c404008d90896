"""Our dynamic blocks, their Gumbel sigmoid and the loss of the work against alibaba-damo-academy/DyDiT."""

from __future__ import annotations

import torch

from lab import models
from lab.config import DiTConfig
from lab.methods.dynamic import Dynamic
from lab.models.blocks.dynamic import fast, gumbel_sigmoid, share_of_work
from lab.models.dit import from_published
from lab.models.taps import Taps

CONFIG = DiTConfig(image_size=8, channels=4, null_class=True, time=True, patch=2, depth=2, width=32, heads=4,
                   block="dynamic")  # fmt: skip
ROUTERS = {".attn_rate.router.": ".head_router.", ".mlp_rate.router.": ".group_router.",
           ".token_selection.mlp_head.": ".token_router."}  # fmt: skip


def published(file: dict[str, torch.Tensor]) -> torch.nn.Module:
    state = {}
    for name, value in file.items():
        if name.startswith("sd."):
            for theirs, mine in ROUTERS.items():
                name = name.replace(theirs, mine)
            state[name.removeprefix("sd.")] = value
    net = models.build(CONFIG)
    net.load_state_dict(from_published(state))
    return net.eval()


def masks_of(net: torch.nn.Module, *given: torch.Tensor) -> list[torch.Tensor]:
    """Of heads, groups and tokens, each (B, L, ...), and the output."""
    taps = Taps(net.tap_names)
    out = net(*given, taps)
    return [torch.stack([taps[f"{name}{i}"] for i in (0, 1)], 1) for name in ("heads", "groups", "tokens")] + [out]


def test_masks_and_outputs_are_those_of_the_published_net(arrays) -> None:
    file = arrays("dydit.npz")
    net, given = published(file), (file["x"], file["t"], file["y"])
    with torch.no_grad():
        heads, groups, tokens, out = masks_of(net, *given)
        assert torch.equal(heads, file["attn_mask"]) and torch.equal(groups, file["mlp_mask"])
        assert torch.equal(tokens, file["token_select"])
        torch.testing.assert_close(out, file["out"], atol=1e-5, rtol=0)
        torch.testing.assert_close(net(*given, full=True), file["complete_out"], atol=1e-5, rtol=0)
        torch.testing.assert_close(fast(net)(*given), file["out"], atol=1e-5, rtol=0)


def test_the_work_and_its_loss_are_the_published_ones(arrays) -> None:
    file = arrays("dydit.npz")
    with torch.no_grad():
        *masks, _ = masks_of(published(file), file["x"], file["t"], file["y"])
    work = share_of_work(CONFIG, *masks).mean()
    torch.testing.assert_close(work, file["flops_ratio"], atol=1e-6, rtol=0)
    method = Dynamic(target=float(file["target_ratio"]), weight=float(file["loss_weight"]))
    loss = method.weight * (work - method.target_at(1.0)).square()
    torch.testing.assert_close(loss, file["flops_loss"], atol=1e-6, rtol=0)


def test_a_draw_and_its_gradient_are_the_published_ones(arrays) -> None:
    file = arrays("dydit.npz")
    z = file["gs_logits"].clone().requires_grad_()
    mask = gumbel_sigmoid(z, file["gs_e1"], file["gs_e2"], float(file["gs_tau"]))
    assert torch.equal(mask, file["gs_mask"])
    (mask * file["gs_out_weight"]).sum().backward()
    torch.testing.assert_close(z.grad, file["gs_grad_logits"], atol=1e-6, rtol=0)
