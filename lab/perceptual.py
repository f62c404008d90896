"""A perceptual distance for training and measuring: LPIPS, or its shape on a small net of lab/assets.

Data with a net of its own (digits, Fashion-MNIST) uses that one. LPIPS (arXiv 1801.03924, Eq. 1) serves
other colour images of at least 32 pixels where the weights of its backbone lie on this machine; `fetch`
brings them, nothing else here downloads. All else borrows the net of Fashion-MNIST. `name` says which,
for the conditions of a training or a measurement: values by different names are not comparable.
"""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab import features
from lab.data import ImageSpec, MissingData
from lab.features import FeatureNet
from lab.places import at_home

EPS = 1e-2  # of a squared feature norm; LPIPS has 1e-10, which lets a dark patch's gradient grow to 1e5
LPIPS_SIDE = 32  # pixels; below that the backbone's last stages have no room
# LPIPS's name of a backbone -> torchvision's file of its weights; the paper's choice first (GET's code too).
BACKBONES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
LENDER, LENDER_SIDE = "fashion-mnist", 28  # whose net other images borrow, and the pixels it was trained on


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


class Borrowed(nn.Module):
    """The distance by a net of other, grey data: every channel is a grey image, and their mean counts.

    Smaller images are enlarged to what the net was trained on; larger ones stay as they are, for it is
    convolutions alone, and shrinking would hide from it what is to be seen.
    """

    def __init__(self, distance: FeatureDistance, side: int) -> None:
        super().__init__()
        self.distance, self.side = distance, side

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(B, C, H, W), (B, C, H, W) -> (B,)."""
        return self.distance(self.grey(a), self.grey(b)).view(a.shape[0], a.shape[1]).mean(1)

    def grey(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B * C, 1, H, W), enlarged where H is below `side`."""
        x = x.flatten(0, 1).unsqueeze(1)
        if x.shape[-1] < self.side:
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear")
        return x


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


def weights_dir() -> Path:
    """Where torch keeps the weights that it downloads, those of LPIPS and Inception too.

    Raises ValueError where that is below a home and none is known.
    """
    return at_home(torch.hub.get_dir(), "torch's folder of weights (TORCH_HOME)") / "checkpoints"


def backbone() -> str | None:
    """The LPIPS backbone whose weights lie in torch's cache, or None."""
    with contextlib.suppress(ValueError):
        return next((name for name, file in BACKBONES.items() if (weights_dir() / file).exists()), None)
    return None


def fetch() -> None:
    """Bring the weights of LPIPS's first backbone to this machine (528 MB); LPIPS's own come with its package.

    Raises MissingData where they can't be had or the file that is here is broken.
    """
    from torchvision.models import VGG16_Weights

    path = weights_dir() / BACKBONES["vgg"]
    try:
        VGG16_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # urllib's errors too
        if path.exists():
            raise MissingData(f"{path} is broken ({error}); delete it and fetch it again") from error
        raise MissingData(
            f"LPIPS needs {path.name} (torchvision's VGG-16) and its download failed ({error}). Either give a network "
            f"connection, or put the file into {path.parent}; without it images without a net of their own borrow "
            f"that of {LENDER}"
        ) from error


def name(spec: ImageSpec) -> str:
    """Which distance `load` gives for such images.

    E.g. `fashion-mnist-cnn-1a2b3c4d` (a net of the data's own), `lpips-vgg`, or `fashion-mnist-cnn-1a2b3c4d-borrowed`.
    """
    if spec.data in features.known():
        return features.name(spec.data, "perceptual")
    if spec.channels == 3 and spec.size >= LPIPS_SIDE and (found := backbone()):
        return f"lpips-{found}"
    return f"{features.name(LENDER, 'perceptual')}-borrowed"


def load(spec: ImageSpec) -> Distance:
    """The per-sample distance of such images, the one that `name` names."""
    found = name(spec)
    if found.startswith("lpips-"):
        return Distance(Lpips(found.removeprefix("lpips-")))
    if found.endswith("-borrowed"):
        return Distance(Borrowed(FeatureDistance(features.load(LENDER, "perceptual")), LENDER_SIDE))
    return Distance(FeatureDistance(features.load(spec.data, "perceptual")))
