"""Our terms against Hao840/manifold-distillation's losses.py."""

from __future__ import annotations

import torch

from lab.methods.manifold import Grams, merge


def test_each_term_of_a_layer_equals_the_published_one(arrays) -> None:
    file = arrays("manifold_loss.npz")
    found = Grams()(file["Fs"][0], file["Ft"][0], file["perm"][: int(file["K"])])
    expected = torch.stack([file["layer_patch"], file["layer_sample"], file["layer_rand"]])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_weighted_sum_over_layers_and_its_gradients_equal_the_published_ones(arrays) -> None:
    file = arrays("manifold_loss.npz")
    mine, rows = file["Fs"].requires_grad_(), file["perm"][: int(file["K"])]
    pairs = zip(file["s_ids"].tolist(), file["t_ids"].tolist())
    means = torch.stack([Grams()(mine[s], file["Ft"][t], rows) for s, t in pairs]).mean(0)
    weighted = means * torch.stack([file["w_patch"], file["w_sample"], file["w_rand"]]).float()
    expected = torch.stack([file["mf_patch"], file["mf_sample"], file["mf_rand"]])
    torch.testing.assert_close(weighted, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(weighted.sum(), file["mf_total"], atol=1e-6, rtol=0)
    weighted.sum().backward()
    for layer in (0, 2):
        torch.testing.assert_close(mine.grad[layer], file[f"grad_Fs{layer}"], atol=1e-6, rtol=0)


def test_merged_neighbours_equal_the_published_ones(arrays) -> None:
    file = arrays("manifold_loss.npz")
    assert torch.equal(merge(file["Ft"][0], 4), file["merged_to_4"])
