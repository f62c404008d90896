"""Move what is drawn towards the data, class by class, in the space of a perceptual net's features.

Regression on pairs leaves a small student between its teacher's images; a loss between distributions closes part of
that gap. In every map of features, generated samples are attracted by the teacher's (positives) and repelled by one
another (negatives); the student regresses on its own features moved by that drift. The features are the perceptual
net's, never those of the net that measures. Drifting (arXiv 2602.04770), after its published `drift_loss`:

    Y = [sg g; p],  D_ij = ||sg g_i - y_j||,  c = mean D of the class,  q = max(c / sqrt(S), 1e-3)
    A = sqrt(max(softmax_j(-D / c R) softmax_i(-D / c R), 1e-6)),  other classes and a sample's own place left out
    C_ij = +A_ij sum over negatives of A_i  for positives,  -A_ij sum over positives of A_i  for negatives
    F_i = sum over R of (sum_j C_ij y~_j - (sum_j C_ij) g~_i) / rms,  y~ = y / q
    L = mean (g~ - sg(g~ + F))^2,  summed over maps

A batch of all classes has few samples of each, and the repulsion of so few is noise: so a batch has few classes. L is
about 20 whatever the student draws, F being of unit size even where the drawn are the positives' equals, while the
pairs' loss is 0.1: of weights that let it decide, images take a grid that these features do not see.

Ours: scales c by class (the published code takes one of the whole batch), and the features, of which it has more.

G generated samples, P positives, S dimensions of a map's feature, B batch, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lab import features
from lab.config import Recipe
from lab.methods.base import Method, Roles, Step
from lab.options import Count, Weight, Whole

LEAST = 1e-3  # of a scale
SHARE = 1e-6  # least product of the two softmaxes
Featured = tuple[Tensor, Tensor]  # features (P, S) and their classes (P,)
OUT = 100.0  # added to a sample's distance to itself, in units of the mean distance


@dataclass
class Drifting(Method):
    """Move drawn images towards the teacher's, class by class, in perceptual features."""

    name: ClassVar[str] = "drifting"
    paper: ClassVar[str] = "arXiv 2602.04770"
    needs: ClassVar[frozenset[str]] = frozenset({"pairs"})

    weight: Weight = 0.015
    positives: Count = 32  # images of the teacher a class, of the last batches
    radii: tuple[float, ...] = (0.02, 0.05, 0.2)  # of attraction, in mean distances
    classes: Whole = 4  # of a batch, so that each has enough samples to repel one another; 0: as the pairs come
    first: int = 1  # the perceptual net's first stage that is looked at

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radii or min(self.radii) <= 0:
            raise ValueError(f"radii must all be above 0, got {list(self.radii)}")

    def why_not(self, recipe: Recipe) -> str | None:
        if recipe.student.time:
            return "method drifting moves the images of a one-step student; set student.time to false"
        if recipe.data not in features.known():
            return (f"method drifting looks through a small net of the data's own, and {recipe.data} has none; it has "
                    f"them for {', '.join(features.known())}")  # fmt: skip
        return None

    def batch_classes(self) -> int:
        return self.classes

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        self._net = features.load(roles.spec.data, "perceptual").to(roles.device)
        if self.first >= (stages := len(self._net.convs)):
            raise ValueError(f"first must be below the {stages} stages of the net, got {self.first}")
        self._classes = max(student.config.num_classes, 1)
        with torch.no_grad():
            looks = self._looks(torch.zeros(1, *roles.spec.shape, device=roles.device))
        # A ring of the last positives, kept with the state, so that a resumed run has the same.
        sizes = [look.shape[1] for look in looks]
        self.own["ring"] = Ring(self._classes, self.positives, sizes)
        return student

    def loss(self, step: Step) -> dict[str, Tensor]:
        y = step.inputs.y if step.inputs.y is not None else torch.zeros(len(step.prediction), dtype=torch.int64)
        drawn = self._looks(step.prediction)
        with torch.no_grad():
            self.own["ring"].put(self._looks(step.inputs.target), y)
        terms = []
        for g, p in zip(drawn, self.own["ring"].kept()):
            F = drift(g.detach(), y, p, self.radii)
            scale = F.scale[:, None]
            terms.append((g / scale - (g.detach() / scale + F.moved)).square().mean())
        return {"drift": self.weight * torch.stack(terms).sum()}

    def _looks(self, images: Tensor) -> list[Tensor]:
        """Of every stage from `first` on its means, deviations and means of quarters over space; [(B, S)]."""
        found = []
        for m in self._net.stages(images)[self.first :]:
            flat = m.flatten(2)
            deviation = (flat.var(2, unbiased=False) + 1e-6).sqrt()
            found += [flat.mean(2), deviation, nn.functional.adaptive_avg_pool2d(m, 2).flatten(1)]
        return found


class Ring(nn.Module):
    """The features of the last images of every class; buffers, so that they are part of a run's state."""

    def __init__(self, classes: int, count: int, sizes: list[int]) -> None:
        super().__init__()
        self.sizes, self.count = sizes, count
        self.register_buffer("store", torch.zeros(classes, count, sum(sizes)))
        self.register_buffer("held", torch.zeros(classes, dtype=torch.int64))  # how many were ever put

    @torch.no_grad()
    def put(self, looks: list[Tensor], y: Tensor) -> None:
        rows = torch.cat(looks, 1)
        for k in y.unique().tolist():
            mine = rows[y == k][-self.count :]
            at = (self.held[k] + torch.arange(len(mine), device=rows.device)) % self.count
            self.store[k, at] = mine
            self.held[k] += len(mine)

    def kept(self) -> list[tuple[Tensor, Tensor]]:
        """Of every look what is held (P, S), and its classes (P,)."""
        there = torch.arange(self.count, device=self.store.device)[None] < self.held[:, None]
        rows, classes = self.store[there], there.nonzero()[:, 0]
        return [(part, classes) for part in rows.split(self.sizes, 1)]


@dataclass
class Drift:
    """Where samples are to move, in units of `scale`."""

    moved: Tensor  # (G, S)
    scale: Tensor  # (G,)


def force(A: Tensor, positive: Tensor, points: Tensor, g: Tensor) -> Tensor:
    """Where the positives among points (J, S) draw g (G, S) to and the others drive it from, by affinities A (G, J)."""
    C = torch.where(positive, A * (A * ~positive).sum(1, keepdim=True), -A * (A * positive).sum(1, keepdim=True))
    return C @ points - C.sum(1, keepdim=True) * g


@torch.no_grad()
def drift(g: Tensor, y: Tensor, positives: Featured, radii: tuple[float, ...]) -> Drift:
    """The drift of features g (G, S) of classes y (G,) among positives (P, S)."""
    p, classes = positives
    count = len(g)
    everything = torch.cat([g, p])  # (G + P, S)
    same = y[:, None] == torch.cat([y, classes])[None]  # (G, G + P)
    D = torch.cdist(g, everything)
    own = torch.eye(count, len(everything), dtype=torch.bool, device=g.device)
    c = (D * same).sum(1) / same.sum(1)  # a sample's own class; its own place counts 0
    per_class = torch.zeros(int(y.max()) + 1, device=g.device, dtype=g.dtype)
    sizes = torch.bincount(y, minlength=len(per_class)).clamp_min(1)
    c = (per_class.index_add(0, y, c) / sizes)[y]  # (G,)
    q = (c / g.shape[1] ** 0.5).clamp_min(LEAST)
    near = D / c.clamp_min(LEAST)[:, None] + OUT * own
    near = near.masked_fill(~same, torch.inf)
    positive = torch.arange(len(everything), device=g.device) >= count
    moved = torch.zeros_like(g)
    for radius in radii:
        logits = -near / radius
        rows, columns = logits.softmax(1), logits.softmax(0).nan_to_num(0.0)  # a positive of a class that is not drawn
        A = (rows * columns).clamp_min(SHARE).sqrt() * same
        F = force(A, positive, everything, g) / q[:, None]
        moved += F / F.square().mean().clamp_min(1e-8).sqrt()
    return Drift(moved, q)
