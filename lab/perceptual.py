"""A perceptual distance for training and measuring: LPIPS, or its shape on a small net of lab/assets.

LPIPS (arXiv 1801.03924, Eq. 1) serves colour images of at least 32 pixels where the weights of its
backbone already lie on this machine; nothing is downloaded here. Data with a net of its own
(digits, Fashion-MNIST) uses that one. `name` says which, for the conditions of a measurement.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lab import features
from lab.data import ImageSpec
from lab.features import FeatureNet

EPS = 1e-2  # of a squared feature norm; LPIPS has 1e-10, which lets a dark patch's gradient grow to 1e5
LPIPS_SIDE = 32  # pixels; below that the backbone's last stages have no room
# LPIPS's name of a backbone -> torchvision's file of its weights; the paper's choice first (GET's code too).
BACKBONES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


class FeatureDistance(nn.Module):
    """Squared difference of unit-length features, averaged over space and stages of a frozen net."""

    def __init__(self, net: FeatureNet) -> None:
        super().__init__()
        self.net = net.requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, C, H, W), (B, C, H, W) -> (B,); 0 for equal images, symmetric."""
        stages = zip(self.net.stages(a), self.net.stages(b))
        gaps = [(unit(m) - unit(n)).square().sum(1).mean((1, 2)) for m, n in stages]
        return torch.stack(gaps).mean(0)


def unit(m: Tensor) -> Tensor:
    """Feature vectors of unit length at every place, in float32; (B, D, H, W)."""
    m = m.float()
    return m * torch.rsqrt(m.square().sum(1, keepdim=True) + EPS)


class Lpips(nn.Module):
    """LPIPS by its package, per sample."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        import lpips

        self.net = lpips.LPIPS(net=backbone, verbose=False).requires_grad_(False).eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, 3, H, W), (B, 3, H, W) -> (B,)."""
        return self.net(a, b).flatten()


class Distance:
    """Images in [-1, 1], (B, C, H, W) twice -> (B,), on whatever device they are; the gradient flows to both."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net  # frozen

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        if next(self.net.parameters()).device != a.device:
            self.net.to(a.device)
        return self.net(a, b)

    def compile(self) -> None:
        self.net.compile()


def backbone() -> str | None:
    """The LPIPS backbone whose weights lie in torch's cache, or None."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return next((name for name, file in BACKBONES.items() if (folder / file).exists()), None)


def name(spec: ImageSpec) -> str:
    """Which distance `load` gives for such images, e.g. `lpips-vgg` or `fashion-mnist-cnn-1a2b3c4d`.

    Raises LookupError for images without one.
    """
    if spec.data in features.known():
        return features.name(spec.data, "perceptual")
    if spec.channels == 3 and spec.size >= LPIPS_SIDE and (found := backbone()):
        return f"lpips-{found}"
    raise LookupError(
        f"no perceptual distance for {spec.channels}-channel {spec.size}x{spec.size} images of {spec.data!r}: "
        f"{', '.join(features.known())} have nets of their own; LPIPS takes 3 channels of at least {LPIPS_SIDE} "
        f"pixels and needs {' or '.join(BACKBONES.values())} (torchvision's) in {torch.hub.get_dir()}/checkpoints"
    )


def load(spec: ImageSpec) -> Distance:
    """The per-sample distance of such images. Raises LookupError for images without one."""
    found = name(spec)
    own = not found.startswith("lpips-")
    return Distance(
        FeatureDistance(features.load(spec.data, "perceptual")) if own else Lpips(found.removeprefix("lpips-"))
    )
