from __future__ import annotations

import pytest
import torch
from conftest import TINY_DIT

from lab import models, optim
from lab.config import Recipe
from lab.optim import Muon, Optimizer, orthogonalise, rate


def test_muon_equals_torchs_on_plain_matrices():
    torch.manual_seed(0)
    shapes = [(16, 16), (48, 16), (16, 48)]
    mine = [torch.nn.Parameter(torch.randn(s)) for s in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in mine]
    a = Muon([{"params": [p], "matrices": 1} for p in mine])
    for group in a.param_groups:
        group["lr"] = 0.02
    b = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for p, q in zip(mine, theirs):
            q.grad = p.grad = torch.randn(p.shape)
        before = [p.detach().clone() for p in mine]
        a.step()
        b.step()
        for p, q, old in zip(mine, theirs, before):
            mine_moved, theirs_moved = (p - old).detach(), (q - old).detach()
            # torch iterates in bfloat16, ours in the gradient's own precision: a few per cent
            assert (mine_moved - theirs_moved).norm() < 0.05 * theirs_moved.norm()


def test_stacked_maps_are_orthogonalised_one_by_one():
    torch.manual_seed(0)
    stacked = torch.nn.Parameter(torch.randn(24, 8))
    apart = [torch.nn.Parameter(c.clone()) for c in stacked.detach().chunk(3)]
    stacked.grad = torch.randn(24, 8)
    for p, g in zip(apart, stacked.grad.chunk(3)):
        p.grad = g.clone()
    for muon in (Muon([{"params": [stacked], "matrices": 3}]), Muon([{"params": [p], "matrices": 1} for p in apart])):
        for group in muon.param_groups:
            group["lr"] = 0.1
        muon.step()
    torch.testing.assert_close(stacked.detach(), torch.cat([p.detach() for p in apart]))


def test_orthogonalising_brings_singular_values_near_one():
    G = torch.randn(5, 12, 20, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalise(G))
    assert 0.6 < values.min() and values.max() < 1.3


def test_muon_takes_block_matrices_and_adamw_the_rest():
    net = models.build(TINY_DIT)
    parts = Optimizer([net], Recipe()).parts
    muon = {id(p) for g in parts["muon"].param_groups for p in g["params"]}
    assert muon == {id(m.weight) for b in net.blocks for m in (b.attn.qkv, b.attn.proj, b.mlp.fc1, b.mlp.fc2)}
    adamw = {id(p) for g in parts["adamw"].param_groups for p in g["params"]}
    assert muon | adamw == {id(p) for p in net.parameters()} and not muon & adamw
    assert list(Optimizer([net], Recipe(optimizer="adamw")).parts) == ["adamw"]


def test_a_module_with_lr_scale_trains_at_its_own_rate():
    net = models.build(TINY_DIT)
    net.label.lr_scale = 10.0
    optimizer = Optimizer([net], Recipe(optimizer="adamw"))
    optimizer.set_lr(0.5)
    rates = {id(p): g["lr"] for part in optimizer.parts.values() for g in part.param_groups for p in g["params"]}
    assert rates[id(net.label.weight)] == 5.0 and rates[id(net.head.weight)] == 0.5


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_warms_up_and_follows_its_schedule(schedule):
    recipe = Recipe(steps=100, warmup=10, lr=1.0, schedule=schedule)
    rates = [rate(recipe, s) for s in range(100)]
    assert rates[0] == pytest.approx(0.1, abs=0.01) and rates[9] > 0.97
    end = {"linear": 0.02, "cosine": 0.0003, "constant": 1.0}[schedule]
    assert rates[-1] == pytest.approx(end, rel=0.3)
    if schedule == "linear":
        assert rates[50] == 1.0 and rates[75] == pytest.approx(0.5)


@pytest.mark.parametrize("rows, columns", [(16, 32), (16, 64), (16, 16)])
def test_a_long_matrix_is_orthogonalised_by_its_gram_matrix_alone_as_well(
    rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optim, "fast_bfloat16", lambda device: False)
    G = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0))
    G[1] = G[1][:, :1] * G[1][:1]  # of rank one
    (a, b, c), X = optim.NS_COEFFICIENTS, G.double() / G.double().flatten(1).norm(dim=1).view(-1, 1, 1)
    for _ in range(optim.NS_STEPS):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    assert torch.allclose(orthogonalise(G).double(), X, atol=2e-4)
