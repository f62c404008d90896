"""Compute less where it does not hurt: fewer heads and channels by noise level, fewer tokens by place (DyDiT).

The blocks of a trained DiT get routers (lab/models/blocks/dynamic.py), which are part of what is shipped. A loss draws
the mean work F over a batch to a target that falls from 1 to lambda:

    L = L_dyn + L_full + 2 (mean_B F - lambda_s)^2       lambda_s = 1 - (1 - lambda) min(1, s / warm)
    F = sum_l ( a mean M_a + b mean M_m mean s ) / (L (a + b))       a = 4 N D^2 + 2 N^2 D, b = 8 N D^2

L_full is the objective of the same weights with every mask at 1, in the first part of a run. Method `denoise` draws
noise levels that cover a batch evenly with its option `strata` (4 as published): F depends on them. A one-step student
has no noise level, so its width goes by class (ours).

arXiv 2410.03456, sections 3.2 to 3.4. B batch, N tokens, D width, L blocks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from lab import models
from lab.config import JSON, DiTConfig, NetConfig, Recipe
from lab.methods.base import Method, Roles, Step, beside
from lab.models.blocks.dynamic import Block, share_of_work
from lab.options import Positive, Share, SomeShare

if TYPE_CHECKING:
    from lab.guides import Guide

KIND = "dynamic"  # of block
MASKS = ("heads", "groups", "tokens")
MEMORY = 0.99  # of the running means that `facts` gives


class Watch(nn.Module):
    """Running means of what was kept, over the last hundred updates or so."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.register_buffer("work", torch.ones(()))
        self.register_buffer("kept", torch.ones(len(MASKS), depth))

    @torch.no_grad()
    def see(self, work: Tensor, kept: Tensor) -> None:
        self.work.lerp_(work, 1 - MEMORY)
        self.kept.lerp_(kept, 1 - MEMORY)


@dataclass
class Dynamic(Method):
    """Learn which heads, channels and tokens to leave out, at a set share of the work."""

    name: ClassVar[str] = "dynamic"
    paper: ClassVar[str] = "arXiv 2410.03456, section 3"

    target: SomeShare = 0.5  # lambda: work of the blocks over the complete ones'
    weight: Positive = 2.0  # of the squared distance to it
    warm: Share = 0.1  # share of the run over which the target falls from 1; published 0.005 to 0.03 of longer runs
    complete: Share = 0.15  # share of the run in which the complete network is trained as well; as published at 0.5
    sort: bool = True  # first the heads and channels of the largest weights, of which the first group always acts
    rate: Positive = 1.0  # of the routers' learning rate, over the recipe's

    def why_not(self, recipe: Recipe) -> str | None:
        student = recipe.student
        if not isinstance(student, DiTConfig) or student.block not in ("adaln", KIND):
            what = f"of {student.block} blocks" if isinstance(student, DiTConfig) else f"of family {student.family}"
            return f"method dynamic gives routers to the adaLN blocks of a DiT, the student is {what}"
        if wrong := self.ships(student).check():
            return None if student.check() else f"method dynamic: {wrong[0]}"
        for other in beside(recipe, self.name):
            if other.name in ("depth_pruning", "class_expert"):
                return (f"methods dynamic and {other.name} both decide what the student's blocks are; do {other.name} "
                        "first, then set start to its run")  # fmt: skip
        return None

    def ships(self, config: NetConfig) -> NetConfig:
        return dataclasses.replace(config, block=KIND)

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        if student.config.block != KIND:
            plain, student = student, models.build(self.ships(student.config))
            missing, extra = student.load_state_dict(plain.state_dict(), strict=False)
            if extra or any("_router." not in name for name in missing):
                raise ValueError(f"method dynamic finds parts in the student that another method has put there: "
                                 f"{', '.join([*extra, *missing][:3])}")  # fmt: skip
            for block in student.blocks if self.sort else ():
                sort(block)
        for block in student.blocks:
            for router in block.routers:
                router.lr_scale = self.rate
        self.own["watch"] = Watch(student.config.depth)
        self._config = student.config
        return student

    def taps(self, student: nn.Module, guide: Guide | None) -> tuple[set[str], set[str]]:
        return {f"{name}{i}" for name in MASKS for i in range(student.config.depth)}, set()

    def target_at(self, progress: float) -> float:
        """lambda_s at a share of the run."""
        return 1 - (1 - self.target) * (min(1.0, progress / self.warm) if self.warm else 1.0)

    def loss(self, step: Step) -> dict[str, Tensor]:
        masks = [torch.stack([step.taps[f"{name}{i}"] for i in range(self._config.depth)], 1) for name in MASKS]
        work = share_of_work(self._config, *masks).mean()
        self.own["watch"].see(work, torch.stack([mask.transpose(0, 1).flatten(1).mean(1) for mask in masks]))
        terms = {"work": self.weight * (work - self.target_at(step.progress)).square()}
        if step.progress < self.complete:
            whole = dataclasses.replace(step, prediction=step.again(full=True))
            terms |= {f"full_{key}": value for key, value in whole.toward(step.inputs.target).items()}
        return terms

    def facts(self, student: nn.Module) -> dict[str, JSON]:
        """At the end of training: the share of the work, and by block those of heads, groups and tokens that acted."""
        watch = self.own["watch"]
        kept = {name: [round(v, 4) for v in row] for name, row in zip(MASKS, watch.kept.tolist())}
        return {"target": self.target, "work": round(watch.work.item(), 4)} | kept


@torch.no_grad()
def sort(block: Block) -> None:
    """Heads and channels of a block by falling magnitude of what goes in times what comes out; its function stays."""
    attn, mlp, H = block.attn, block.mlp, block.attn.heads
    value, out = attn.qkv.weight.chunk(3)[2], attn.proj.weight
    size = value.unflatten(0, (H, -1)).flatten(1).norm(dim=1) * out.unflatten(1, (H, -1)).norm(dim=(0, 2))
    places = torch.arange(len(value), device=value.device).view(H, -1)[size.argsort(descending=True, stable=True)]
    rows = (torch.arange(3, device=value.device)[:, None] * len(value) + places.flatten()).flatten()
    _permute(attn.qkv, rows=rows)
    _permute(attn.proj, columns=places.flatten())
    channels = (mlp.fc1.weight.norm(dim=1) * mlp.fc2.weight.norm(dim=0)).argsort(descending=True, stable=True)
    _permute(mlp.fc1, rows=channels)
    _permute(mlp.fc2, columns=channels)


def _permute(layer: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    if rows is not None:
        layer.weight.copy_(layer.weight[rows])
        layer.bias.copy_(layer.bias[rows])
    if columns is not None:
        layer.weight.copy_(layer.weight[:, columns])
