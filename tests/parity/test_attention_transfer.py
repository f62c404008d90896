"""Our terms against xjchenGit/MTDVocaLiST's distiller; its logits of `va` alone have a floor."""

from __future__ import annotations

import torch
from torch import Tensor

from lab.methods.attention_transfer import Uncertainty, divergence, relation

KINDS = ("fus", "av", "va")


def layer(file: dict[str, Tensor], kind: str, index: int) -> tuple[Tensor, Tensor]:
    """KL_qk and KL_vv of one layer as the reference has them."""
    qk = divergence(*(file[f"{who}_{kind}_qk"][index] for who in ("tea", "stu")), by_entry=True, floor=kind == "va")
    values = (file[f"{who}_{kind}_v"][index] for who in ("tea", "stu"))
    return qk, divergence(*(relation(v, v) for v in values), by_entry=True)


def test_single_terms_equal_the_published_ones_by_entry_and_by_row(arrays) -> None:
    file = arrays("mtd_loss.npz")
    qk, vv = layer(file, "fus", 0)
    torch.testing.assert_close(qk, file["fus0_qk_kl_meanelem"], atol=1e-6, rtol=0)
    torch.testing.assert_close(vv, file["fus0_vv_kl_meanelem"], atol=1e-6, rtol=0)
    theirs, mine = (file[f"{who}_fus_qk"][0] for who in ("tea", "stu"))
    torch.testing.assert_close(divergence(theirs, mine), file["fus0_qk_kl_perrow"], atol=1e-6, rtol=0)
    torch.testing.assert_close(divergence(theirs, mine), theirs.shape[-1] * qk)
    values = [file[f"{who}_fus_v"][0] for who in ("tea", "stu")]
    found = divergence(*(relation(v, v) for v in values))
    torch.testing.assert_close(found, file["fus0_vv_kl_perrow"], atol=1e-6, rtol=0)


def test_the_sum_with_trained_weights_and_its_gradients_equal_the_published_ones(arrays) -> None:
    file = arrays("mtd_loss.npz")
    weights = Uncertainty(13, reference=True)
    weights.scale.data.copy_(file["params"])
    logits = file["stu_fus_qk"].requires_grad_()
    losses = [sum(layer(file, kind, index)) for kind in KINDS for index in range(4)]
    total = (weights.factors() * torch.stack([file["logit_loss"], *losses])).sum() + weights.penalty()
    torch.testing.assert_close(total, file["loss_sum"], atol=1e-5, rtol=0)
    total.backward()
    torch.testing.assert_close(weights.scale.grad, file["grad_params"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits.grad, file["grad_stu_fus_qk"], atol=1e-6, rtol=0)
