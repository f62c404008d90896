"""Images on the way between two noises and between two classes, drawn by one-step students.

    steps = Walk(lab.Store().get("4x64"))
    images = steps.images(seeds=(0, 1), classes=(3, 9), places=[(0.0, 0.0), (0.5, 0.25)])  # uint8 (2, C, H, W)

z noise (C, H, W) of unit variance, e embedding (D,) of a class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

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
    """A student that draws any place between two noises and two classes; an image takes one evaluation."""

    def __init__(self, run: Run) -> None:
        """Raises ValueError for a network that draws in several steps, LookupError for a run without weights."""
        if run.config.time:
            raise ValueError(f"{run.label} draws an image in several steps; a walk needs a one-step student")
        self.run, self.spec, self.net = run, spec_of_run(run), load_student(run).requires_grad_(False)
        # A routed network has an expert for a class or for the other, and no embedding between them.
        self.mixes = isinstance(self.net, DiT) and self.net.label is not None

    @torch.inference_mode()
    def images(self, seeds: tuple[int, int], classes: tuple[int, int], places: Sequence[tuple[float, float]]
               ) -> np.ndarray:  # fmt: skip
        """uint8 (N, C, H, W) at places (share of the way between the noises, between the classes), each from 0 to 1.

        Between two classes their embeddings are mixed; where a network can't, the nearer class is drawn.
        """
        a, b = diffusion.noise_of(seeds, self.spec.shape, 0)[0]
        z = torch.stack([between(a, b, noise) for noise, _ in places])
        shares = torch.tensor([label for _, label in places])
        if self.mixes:  # each place has a row of its own in the table of embeddings
            first, second = self.net.label.weight[list(classes)]
            rows = {"label.weight": torch.lerp(first, second, shares[:, None])}
            drawn = torch.func.functional_call(self.net, rows, (z, None, torch.arange(len(places))))
        else:
            y = torch.where(shares < 0.5, *classes) if self.net.config.num_classes else None
            drawn = self.net(z, None, y)
        return diffusion.to_uint8(drawn).numpy()
