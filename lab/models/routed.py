"""One-step DiTs that share out the classes (arXiv 2410.11650, as routing): image = experts[m(y)](z, local(y)).

A label is known before anything is computed, so exactly one expert runs for an image; a batch of mixed labels is
gathered by expert. B batch, M experts, K classes.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from lab.config import RoutedConfig
from lab.models.dit import DiT
from lab.models.layers import Linear
from lab.models.taps import Taps


class Routed(nn.Module):
    """image = net(z, None, y, taps); taps are those of an expert."""

    def __init__(self, config: RoutedConfig) -> None:
        super().__init__()
        self.config = config
        self.experts = nn.ModuleList(DiT(part) for part in config.parts)
        local = [config.groups[m].index(y) for y, m in enumerate(config.routes)]
        self.register_buffer("route", torch.tensor(config.routes), persistent=False)  # (K,) m(y)
        self.register_buffer("local", torch.tensor(local), persistent=False)  # (K,) y among the classes of m(y)
        self.tap_names = self.experts[0].tap_names

    @property
    def blocks(self) -> nn.ModuleList:
        """Those of all experts, one expert after the other."""
        return nn.ModuleList(block for expert in self.experts for block in expert.blocks)

    def linears(self) -> list[Linear]:
        """Every linear layer inside the blocks; what weight edits and Muon act on."""
        return [linear for expert in self.experts for linear in expert.linears()]

    def forward(self, x: Tensor, t: Tensor | None, y: Tensor, taps: Taps | None = None) -> Tensor:
        """(B, C, H, W), None, (B,) -> (B, C, H, W)."""
        route, local = self.route[y], self.local[y]
        rows, images, kept = [], [], defaultdict(list)
        for number, expert in enumerate(self.experts):
            mine = (route == number).nonzero()[:, 0]
            if not torch.compiler.is_exporting() and not len(mine):
                continue
            noted = None if taps is None else Taps(taps.wanted)
            rows.append(mine)
            images.append(expert(x[mine], None, local[mine], noted))
            for name, value in noted.kept.items() if noted else ():
                kept[name].append(value)
        back = torch.cat(rows).argsort()
        for name, values in kept.items():
            taps.put(name, torch.cat(values)[back])
        return torch.cat(images)[back]
