"""Ternary weights: every matrix of the blocks is {-1, 0, 1} times one learned scale (TerDiT, arXiv 2405.14854).

    gamma = mean |W|      Q = clip(round(W / (gamma + 1e-6)), -1, 1)      y = x (alpha Q)^T + b
    dL/dW = dL/dQ = alpha dL/d(alpha Q)         straight through: no 1/gamma, no mask, no gradient of gamma

W (o, i) is what is trained and averaged; Q is taken anew of the averaged W. All but the matrices of the blocks stays
in full precision: embeddings, final adaLN, head, norms, biases, alphas. A ternary adaLN layer makes its values large,
so an RMSNorm stands behind it, which is part of the network that is shipped (`DiTConfig.adaln_norm`).

Ours: alpha begins at mean |W|, so that alpha Q is near W; Xavier's mean |W| where W begins at zero, for with alpha 0
such a layer would get no gradient. The norm's weight begins below 1: the first update of a zero adaLN layer sets all
of Q at once, and the norm makes a modulation of RMS 1 of that.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lab.config import JSON, NetConfig, Recipe, unknown
from lab.methods.base import Method, Roles, Step, why_no_layers
from lab.models.blocks.adaln import adaln_norm
from lab.models.layers import Linear, block_linears
from lab.options import Positive, Weight
from lab.packing import ternary_parts

LAYERS = ("qkv", "proj", "fc1", "fc2", "adaln", "cond")
BITS = {"ternary": 2, "rest": 16}  # of a weight in the packed file (lab/packing.py)


@dataclass
class Ternary(Method):
    """Train with weights of three values, -a, 0 and a, which a file keeps in 2 bits each."""

    name: ClassVar[str] = "ternary"
    paper: ClassVar[str] = "arXiv 2405.14854"
    edits: ClassVar[bool] = True
    quantises: ClassVar[bool] = True

    layers: tuple[str, ...] = ("qkv", "proj", "fc1", "fc2", "adaln")  # of every block, those that are to be ternary
    norm: bool = True  # RMSNorm behind adaLN layers that are ternary
    norm_start: Positive = 0.1  # of its weight; the published one begins at 1
    rate: Positive = 0.1  # of the alphas' learning rate, over the recipe's
    kd: Weight = 0.0  # weight of the mean squared difference to the guide's image (a full-precision twin's); 0 = none

    def __post_init__(self) -> None:
        super().__post_init__()
        self.needs = frozenset({"guide"}) if self.kd else frozenset()
        if wrong := [name for name in self.layers if name not in LAYERS]:
            raise ValueError(unknown("layer of ternary", wrong[0], LAYERS))
        if not self.layers:
            raise ValueError(f"layers must name some of {', '.join(LAYERS)}, got none")

    def why_not(self, recipe: Recipe) -> str | None:
        if why := why_no_layers(recipe.student, self.layers):
            return f"method ternary edits linear layers of blocks, the student is {why}"
        if self.norm and "adaln" in self.layers and not hasattr(recipe.student, "adaln_norm"):
            return (f"method ternary puts a norm behind adaLN layers, for which a network of family "
                    f"{recipe.student.family} has no place; set ternary.norm to false")  # fmt: skip
        return None

    def ships(self, config: NetConfig) -> NetConfig:
        if self.norm and "adaln" in self.layers:
            return dataclasses.replace(config, adaln_norm=True)
        return config

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        for layer in block_linears(student, self.layers).values():
            layer.edit(ThreeValues(layer, self.rate))
        shipped = self.ships(student.config)
        for block in student.blocks if shipped != student.config else ():
            block.adaln_norm = adaln_norm(shipped.width)
            nn.init.constant_(block.adaln_norm.weight, self.norm_start)
        student.config = shipped
        return student

    def loss(self, step: Step) -> dict[str, Tensor]:
        if not self.kd:
            return {}
        apart = (step.prediction - step.guide_prediction).square().mean((1, 2, 3))
        return {"kd": self.kd * (step.inputs.weight * apart).mean()}

    def facts(self, student: nn.Module) -> dict[str, JSON]:
        """Bits by kind of weight, the layers that are ternary with their alphas, and those that are not."""
        layers = block_linears(student, self.layers)
        whole = [name for name, m in student.named_modules()
                 if isinstance(m, (nn.Linear, nn.Conv2d, nn.Embedding)) and name not in layers]  # fmt: skip
        alphas = [ternary_parts(layer.weight)[1].item() for layer in layers.values()]
        return {"bits": BITS, "layers": [*layers], "alphas": alphas, "full_precision": whole}


def ternary(w: Tensor) -> Tensor:
    """Q of W (o, i), with the gradient of W's."""
    fixed = w.detach()
    q = (fixed / (fixed.abs().mean() + 1e-6)).round().clamp(-1, 1)  # round: half to even
    return q + (w - fixed)  # w + (q - w) would miss q by a digit


class ThreeValues(nn.Module):
    """An edit: alpha Q of a layer's weight."""

    last = True  # it sees what all other edits have made of the weight

    def __init__(self, layer: Linear, rate: float = 1.0) -> None:
        super().__init__()
        self.lr_scale = rate
        own = layer.weight_now().detach()
        start, values = own.abs().mean(), own.abs().unique()
        if start == 0:
            start = torch.full_like(start, math.sqrt(6 / sum(own.shape)) / 2)
        elif len(values) <= 2:  # a finished ternary layer goes on as it is
            start = values[-1].clone()
        self.alpha = nn.Parameter(start)

    def forward(self, w: Tensor) -> Tensor:
        return self.alpha * ternary(w)
