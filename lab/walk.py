"""Images on the way between two noises and between two classes, drawn by one-step students.

    steps = Walk(lab.Store().get("4x64"))
    image = steps.image(seeds=(0, 1), classes=(3, 9), noise=0.5, label=0.25)   # uint8 (C, H, W)

z noise (C, H, W) of unit variance, e embedding (D,) of a class.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lab import diffusion
from lab.models.dit import DiT
from lab.results import Run
from lab.weights import load_student, spec_of_run


def between(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Spherical interpolation of two noises of one shape (Shoemake 1985): a at share 0, b at 1.

    Noises of many numbers are nearly orthogonal, and their straight mean has half their variance, which no student has
    seen; on the arc the variance stays.
    """
    x, y = a.double().flatten(), b.double().flatten()
    angle = torch.arccos((x @ y / (x.norm() * y.norm())).clamp(-1, 1))
    if angle < 1e-6:
        return a
    return (((1 - share) * angle).sin() * a + (share * angle).sin() * b).div(angle.sin()).float()


class Walk:
    """A student that draws any point between two noises and two classes; one image takes one evaluation."""

    def __init__(self, run: Run) -> None:
        """Raises ValueError for a network that draws in several steps, LookupError for a run without weights."""
        if run.config.time:
            raise ValueError(f"{run.label} draws an image in several steps; a walk needs a one-step student")
        self.run, self.spec, self.net = run, spec_of_run(run), load_student(run).requires_grad_(False)
        self.classes = self.net.config.num_classes
        # A class between two has a row of its own, behind all others; a routed network has a class or the other.
        self.mixes = isinstance(self.net, DiT) and self.net.label is not None
        if self.mixes:
            rows = self.net.label.weight.detach()
            self.between = len(rows)
            self.net.label = nn.Embedding.from_pretrained(torch.cat([rows, rows[:1]]))
        self.noises: dict[int, Tensor] = {}

    @torch.inference_mode()
    def image(self, seeds: tuple[int, int], classes: tuple[int, int], noise: float, label: float) -> np.ndarray:
        """uint8 (C, H, W) at the shares `noise` and `label` of the way, each from 0 to 1.

        Between two classes their embeddings are mixed; where a network has none, the nearer class is drawn.
        """
        z = between(self._noise(seeds[0]), self._noise(seeds[1]), noise)
        y = torch.tensor([self._class(classes, label)]) if self.classes else None
        return diffusion.to_uint8(self.net(z[None], None, y)[0]).numpy()

    def _noise(self, seed: int) -> Tensor:
        if seed not in self.noises:
            self.noises[seed] = diffusion.noise_of([seed], self.spec.shape, 0)[0][0]
        return self.noises[seed]

    def _class(self, classes: tuple[int, int], share: float) -> int:
        a, b = classes
        if not self.mixes or share in (0, 1) or a == b:
            return b if share >= 0.5 else a
        rows = self.net.label.weight
        rows[self.between] = torch.lerp(rows[a], rows[b], share)
        return self.between
