"""A larger DiT of the student's family as an assistant, whose features guide the student's.

A U-Net teacher has no blocks that answer to a DiT's, so a DiT is trained on its pairs first: the teaching assistant.
Our reading of arXiv 2502.14226, whose section on the method could not be reached.

    m(l)   = round((l + 1) L_T / L_S) - 1                      last block to last block
    L_feat = mean_l mse( LN0(P_l h^S_l), LN0(sg h^T_m(l)) )     (B, N, D_T)
    L      = w_pair dist(S, x) + w_out dist(S, sg T) + w_feat (1 - s/S_total) L_feat
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from lab.methods import features
from lab.methods.assistant import Assisted
from lab.methods.base import Roles, Step

if TYPE_CHECKING:
    from lab.guides import Guide


@dataclass
class TeachingAssistant(Assisted):
    """Match blocks and images of a larger DiT that was taught by the same teacher."""

    name: ClassVar[str] = "teaching_assistant"
    paper: ClassVar[str] = "arXiv 2502.14226 (our reading)"

    def prepare(self, student: nn.Module, roles: Roles) -> nn.Module:
        mine, theirs = student.config, roles.guide.config
        self._map = features.block_map(mine.depth, theirs.depth)
        if self.features:
            layers = [features.projection(mine.width, theirs.width) for _ in self._map]
            self.own["projections"] = nn.ModuleList(layers)
            self.own["projections"].lr_scale = self.rate
        return student

    def taps(self, student: nn.Module, guide: Guide | None) -> tuple[set[str], set[str]]:
        links = features.block_map(student.config.depth, getattr(guide.config, "depth", 0))
        if not self.features:
            return set(), set()
        return {f"block{i}" for i in range(len(links))}, {f"block{i}" for i in links}

    def loss(self, step: Step) -> dict[str, Tensor]:
        terms = super().loss(step)
        if weight := self.weight(step.progress):
            pairs = [(project(step.taps[f"block{mine}"]), step.guide_taps[f"block{theirs}"])
                     for mine, (project, theirs) in enumerate(zip(self.own["projections"], self._map))]  # fmt: skip
            terms["features"] = weight * features.stacked([features.gap(s, t, self.norm) for s, t in pairs])
        return terms
