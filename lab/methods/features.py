"""What feature losses share: which block answers to which, projections to a guide's width, norms without a scale.

L_S, L_T blocks of student and guide, D_S, D_T their widths, B batch, N tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.config import NetConfig

EPS = 1e-6  # of the norm


def block_map(student: int, guide: int) -> list[int]:
    """m(l) = round((l + 1) L_T / L_S) - 1: the guide's block for each of the student's; the last for the last.

    Raises ValueError for a guide that is shallower than the student.
    """
    _check(student, guide)
    return [int((block + 1) * guide / student + 0.5) - 1 for block in range(student)]


def groups(student: int, guide: int) -> list[range]:
    """G_l = floor(l L_T / L_S) .. floor((l + 1) L_T / L_S) - 1: the guide's blocks, cut into one group for each of the
    student's. Raises ValueError for a guide that is shallower than the student.
    """
    _check(student, guide)
    return [range(block * guide // student, (block + 1) * guide // student) for block in range(student)]


def _check(student: int, guide: int) -> None:
    if not 1 <= student <= guide:
        raise ValueError(f"the student has {student} blocks and the guide {guide}; a feature loss needs at least one "
                         "of the student's and as many of the guide's")  # fmt: skip


def why_not(student: NetConfig) -> str | None:
    """Why a network has no features to match, as a clause; None if it has."""
    return None if getattr(student, "depth", 0) else f"a {student.family} of no blocks"


def projection(student: int, guide: int) -> nn.Linear:
    """D_S -> D_T: the identity where the widths are equal, Xavier's start elsewhere."""
    layer = nn.Linear(student, guide)
    if student == guide:
        nn.init.eye_(layer.weight)
    else:
        nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def norm(x: Tensor) -> Tensor:
    """LN0: (B, N, D) over D, without scale or shift. Residual streams hold activations of many times their spread."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def matched(x: Tensor, y: Tensor, by: str = "token") -> tuple[Tensor, Tensor]:
    """Features (B, N, .., D) of student and guide as a loss compares them; the second has no gradient.

    token    LN0 of both
    place    LN0 of the guide's; then both without their mean over the batch at each place, and the guide's with every
             channel at variance 1 (ours). Much of a normed residual stream is one and the same for all images, and
             this leaves what tells them apart.
    centre   as place, the guide's by one scale for all channels (ours): those that hardly differ stay small
    """
    if by == "token":
        return norm(x), norm(y.detach())
    y = norm(y.detach())
    y = y - y.mean(0)
    power = y.square().mean((0, 1)) if by == "place" else y.square().mean()
    return x - x.mean(0), y * torch.rsqrt(power + EPS)


def gap(x: Tensor, y: Tensor, by: str = "token") -> Tensor:
    """Mean squared difference of features (B, N, D) as `matched`."""
    u, v = matched(x, y, by)
    return (u - v).square().mean()


def fade(progress: float, until: float = 1.0) -> float:
    """1 at the first step, linearly to 0 at `until`, as TinyFusion's feature term (arXiv 2412.01199)."""
    return max(0.0, 1.0 - progress / until)


def stacked(terms: list[Tensor]) -> Tensor:
    """Mean over blocks."""
    return torch.stack(terms).mean()
