"""Our plain ViT against locuslab/get's models/vit.py; its GET needs torchdeq and has no fixture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lab import models
from lab.config import GETConfig

NAMES = {"x_embedder.proj.": "embed.", "y_embedder.embedding_table.": "label.", "final_layer.norm_final.": "norm.",
         "final_layer.linear.": "head."}  # fmt: skip


def ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under our names."""
    for theirs, mine in NAMES.items():
        state = {name.replace(theirs, mine): value for name, value in state.items()}
    return state


@pytest.mark.parametrize(("prefix", "out", "classes"), [("sdu.", "out_uncond", 0), ("sdc.", "out_cond", 10)])
def test_the_vit_equals_the_published_one(arrays, prefix: str, out: str, classes: int) -> None:
    file = arrays("get_vit.npz")
    net = models.build(GETConfig(image_size=8, channels=3, num_classes=classes, patch=2, depth=2, width=32, heads=4,
                                 iterations=0))  # fmt: skip
    state = {name.removeprefix(prefix): value for name, value in file.items() if name.startswith(prefix)}
    torch.testing.assert_close(net.positions, state.pop("pos_embed"))
    net.load_state_dict(ours(state))
    count = sum(p.numel() for p in net.parameters()) + net.positions.numel()  # theirs counts the fixed positions
    assert count == int(file["nparams_cond" if classes else "nparams_uncond"])
    image = net(file["z"], None, file["y"] if classes else None)
    torch.testing.assert_close(image, file[out], atol=1e-5, rtol=0)
