"""Re-parameterisation: a linear layer trains as more than one matrix and is shipped as one (arXiv 2411.09339).

After the high-rank factorisation of a light transformer, whose text beyond the abstract could not be reached: a layer
in series before the MLP, no non-linearity between, multiplied out afterwards. A bias of it would be redundant.

    serial    y = W2 (W1 x) + b                W1 (e, i), W2 (o, e), e = rho i >= i, so that no rank is lost
              W = W2 W1
    parallel  W = W0 diag(s0) + sum_k=1..rho Wk diag(sk) + g 1[o = i]             W (o, i), s (i,): our reading

i and o are a layer's inputs and outputs, rho its `expansion`. No norm stands inside: it depends on data, and could not
be multiplied out. Small nets alone gain by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lab.config import JSON, Recipe, unknown
from lab.methods.base import Method, Roles, why_no_layers
from lab.models.layers import Linear, block_linears
from lab.options import Count, Positive

LAYERS = ("fc1", "fc2", "qkv", "proj", "adaln", "cond")
RANK_TOLERANCE = 1e-6  # of the largest singular value


@dataclass
class Reparam(Method):
    """Train the MLP's first layer as a product of larger matrices, and multiply them out at the end."""

    name: ClassVar[str] = "reparam"
    paper: ClassVar[str] = "arXiv 2411.09339 (our reading)"
    edits: ClassVar[bool] = True

    layers: tuple[str, ...] = ("fc1",)  # of every block: some of fc1, fc2, qkv, proj, adaln (time blocks: cond)
    form: Literal["serial", "parallel"] = "serial"  # two matrices in a row, the paper's; or parallel: a sum of branches
    expansion: Count = 2  # rho: inner width over the inputs; of the parallel form, branches beside the layer's own
    preserve: bool = True  # begin as the function that the plain layer is; False: with factors drawn anew
    rate: Positive = 1.0  # of the factors' learning rate, over the recipe's: it acts faster on a product

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := [name for name in self.layers if name not in LAYERS]:
            raise ValueError(unknown("layer of reparam", wrong[0], LAYERS))
        if not self.layers:
            raise ValueError(f"layers must name some of {', '.join(LAYERS)}, got none")

    def why_not(self, recipe: Recipe) -> str | None:
        why = why_no_layers(recipe.student, self.layers)
        return why and f"method reparam edits linear layers of blocks, the student is {why}"

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        kind = Serial if self.form == "serial" else Parallel
        for layer in block_linears(student, self.layers).values():
            layer.edit(kind(layer, self.expansion, preserve=self.preserve, rate=self.rate))
        return student

    def facts(self, student: nn.Module) -> dict[str, JSON]:
        """The numerical rank of every layer that was multiplied out; full unless training has made it collapse."""
        layers = block_linears(student, self.layers)
        return {"rank": {name: rank(layer.weight) for name, layer in layers.items()}}


def rank(weight: Tensor) -> int:
    return int(torch.linalg.matrix_rank(weight.detach().cpu().double(), rtol=RANK_TOLERANCE))


# --- edits --------------------------------------------------------------------------------------


class Product(nn.Module):
    """An edit whose weight is worked out of factors: in float32 where it trains, in float64 where it is merged."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.lr_scale = rate
        self.matrices: dict[str, int] = {}  # of its own parameters, those for Muon

    def product(self, w: Tensor, cast: Callable[[Tensor], Tensor]) -> Tensor:
        """The weight (o, i) in place of w, of factors that go through `cast` first."""
        raise NotImplementedError

    def forward(self, w: Tensor) -> Tensor:
        with torch.autocast(w.device.type, enabled=False):  # bfloat16 would lose two digits more than a plain layer's
            return self.product(w, Tensor.float)

    def merged(self, w: Tensor) -> Tensor:
        return self.product(w, lambda factor: factor.detach().cpu().double()).to(w)  # some devices have no float64


class Serial(Product):
    """W2 W1 in the place of a layer's weight, which is frozen."""

    def __init__(self, layer: Linear, expansion: int, *, preserve: bool = True, rate: float = 1.0) -> None:
        super().__init__(rate)
        o, i = layer.weight.shape
        e = expansion * i
        own = layer.weight.detach()
        first, second = own.new_empty(e, i).normal_(std=1 / math.sqrt(i)), own.new_zeros(o, e)
        if preserve:  # R of W1 = [1; R] is not zero, through which the zeros of W2 = [W, 0] get a gradient
            first[:i], second[:, :i] = torch.eye(i), own
        elif own.any():  # a layer that begins at zero still does
            second.normal_(std=1 / math.sqrt(e))
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)
        if layer.matrices:
            self.matrices = {"first": 1, "second": layer.matrices}
        layer.weight.requires_grad_(False)

    def product(self, w: Tensor, cast: Callable[[Tensor], Tensor]) -> Tensor:
        return cast(self.second) @ cast(self.first)


class Parallel(Product):
    """W0 diag(s0) + sum_k Wk diag(sk) + g 1, W0 the layer's own weight."""

    def __init__(self, layer: Linear, expansion: int, *, preserve: bool = True, rate: float = 1.0) -> None:
        super().__init__(rate)
        o, i = layer.weight.shape
        own = layer.weight.detach()
        preserve = preserve or not own.any()  # a layer that begins at zero still does
        branches = own.new_empty(expansion, o, i).normal_(std=1 / math.sqrt(i))
        scales = own.new_zeros(expansion + 1, i)  # zero scales get a gradient through branches that are not
        scales[: 1 if preserve else None] = 1 if preserve else 1 / math.sqrt(expansion + 1)
        self.branches, self.scales = nn.ParameterList(b.clone() for b in branches), nn.Parameter(scales)
        self.identity = nn.Parameter(own.new_zeros(())) if o == i else None
        if layer.matrices:
            self.matrices = {f"branches.{k}": layer.matrices for k in range(expansion)}

    def product(self, w: Tensor, cast: Callable[[Tensor], Tensor]) -> Tensor:
        s = cast(self.scales)
        whole = cast(w) * s[0] + sum(cast(b) * s[k] for k, b in enumerate(self.branches, 1))
        if self.identity is not None:
            whole = whole + cast(self.identity) * torch.eye(len(whole), dtype=whole.dtype, device=whole.device)
        return whole
