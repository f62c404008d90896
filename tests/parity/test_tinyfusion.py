"""Our gates and masked features against VainF/TinyFusion."""

from __future__ import annotations

import torch
from torch import nn

from lab import models
from lab.config import DiTConfig
from lab.ddpm import Schedule
from lab.methods.depth_pruning import Group, MaskedFeatures, gumbel_onehot, masked_gap, options
from lab.models.dit import from_published


def test_decided_gates_give_the_output_of_the_published_net_and_of_the_pruned_one_bit_for_bit(arrays) -> None:
    file = arrays("tinyfusion_gate.npz")
    assert torch.equal(options(4, 2), file["options_2_4"]) and torch.equal(options(2, 1), file["options_1_2"])
    state = {k.removeprefix("sd."): v for k, v in file.items() if k.startswith("sd.")}
    logits = [state.pop(f"gumbel_gates.{i}")[0] for i in (0, 1)]
    config = DiTConfig(image_size=8, channels=4, null_class=True, time=True, patch=2, depth=6, width=32, heads=4)
    net = models.build(config)
    net.load_state_dict(from_published(state))
    blocks, kept = [*net.blocks], file["kept_layers"].tolist()
    groups = [Group(blocks[:4], 2), Group(blocks[4:], 1)]
    for group, mine in zip(groups, logits):
        group.gates.logits.data.copy_(mine)
        group.gates.tau.fill_(0.1)
    net.blocks = nn.ModuleList(groups)
    with torch.no_grad():
        drawn, chosen = net.train()(file["x"], file["t"], file["y"]), net.eval()(file["x"], file["t"], file["y"])
        net.blocks = nn.ModuleList(blocks[i] for i in kept)
        pruned = net(file["x"], file["t"], file["y"])
    assert groups[0].gates.kept() == kept[:2] and [4 + i for i in groups[1].gates.kept()] == kept[2:]
    torch.testing.assert_close(drawn, file["out"], atol=1e-5, rtol=0)
    assert torch.equal(drawn, pruned) and torch.equal(chosen, pruned)


def test_a_draw_and_its_gradient_are_those_of_the_published_gate(arrays) -> None:
    file = arrays("tinyfusion_maskedkd.npz")
    logits = file["gate_logits"].clone().requires_grad_()
    scaled = float(file["gate_scaling"]) * logits.expand(3, -1)
    onehot = gumbel_onehot(scaled, file["gate_exp_noise"], float(file["gate_tau"]))
    assert torch.equal(onehot, file["gate_onehot"])
    kept = onehot @ options(4, 2)
    assert torch.equal(kept, file["gate_mask"])
    (kept * file["gate_weight"]).sum().backward()
    torch.testing.assert_close(logits.grad, file["gate_grad"], atol=1e-4, rtol=0)


def test_the_masked_gap_is_the_published_one(arrays) -> None:
    file = arrays("tinyfusion_maskedkd.npz")
    links = file["target_layers"].tolist()
    gaps = [masked_gap(mine, file["teacher_feats"][at], both=False) for mine, at in zip(file["student_feats"], links)]
    torch.testing.assert_close(torch.stack(gaps).mean(0), file["feat_loss"], atol=1e-5, rtol=1e-6)


def test_the_whole_loss_of_recovery_with_its_variational_terms_is_the_published_one(arrays) -> None:
    """As `masked_features` weights it: the objective has what the guide's output leaves, the features their own."""
    file, schedule = arrays("tinyfusion_maskedkd.npz"), Schedule()
    x0, t, out, guide = (file[name] for name in ("x0", "t", "student_out", "teacher_out"))
    x_t = schedule.noised(x0, t, file["noise"])
    own = schedule.losses(out, x0, x_t, t, file["noise"])
    taught = {"mse": (out - guide)[:, :4].square().mean((1, 2, 3)), "vb": schedule.vb(out, x0, x_t, t, teacher=guide)}
    for mine, theirs in [(own["mse"], "mse"), (own["vb"], "vb"), (taught["vb"], "vb_kd"), (sum(own.values()), "gt"),
                         (sum(taught.values()), "kd_loss")]:  # fmt: skip
        torch.testing.assert_close(mine, file[theirs], atol=1e-5, rtol=0)
    method = MaskedFeatures(output=float(file["alpha_kd"]), features=float(file["beta_feat"]))
    whole = (method.objective_weight(0.0) * sum(own.values()) + method.output * sum(taught.values())
             + method.features * file["feat_loss"])  # fmt: skip
    torch.testing.assert_close(whole, file["loss"], atol=1e-5, rtol=0)
