"""Small frozen classifiers that measure images: two per data set for metrics, another for losses.

The metric's net and the perceptual loss's net of a data set differ in shape and seed, so that no
student is trained on the very features it is measured by. The second net is a transformer where those
are convolutions: a ranking that it confirms is no habit of one net. They lie in lab/assets as fp16 weights
with a JSON of their making beside them (benchmarks/train_feature_nets.py); their sha256 is part of
every metric's conditions, so they are never trained again under the same name.

B batch, C channels, H = W image side, D features, N tokens.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from lab.config import JSON, unknown
from lab.results import read_json

ASSETS = Path(__file__).parent / "assets"

Purpose = Literal["metric", "perceptual", "second"]
MEASURING: tuple[Purpose, ...] = ("metric", "second")  # those that no loss looks through


class FeatureNet(nn.Module):
    """Convolutions with ReLU, a mean over space, a linear classifier; input in [-1, 1]."""

    def __init__(self, channels: int, convs: list[list[int]], num_classes: int) -> None:
        super().__init__()
        inputs = [channels, *(width for width, _, _ in convs)]
        self.convs = nn.ModuleList(
            nn.Conv2d(c, width, kernel, stride, kernel // 2) for c, (width, kernel, stride) in zip(inputs, convs)
        )
        self.head = nn.Linear(inputs[-1], num_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        """The maps after each convolution, (B, C, H, W) -> [(B, D_k, H_k, W_k)]."""
        maps = []
        for conv in self.convs:
            x = F.relu(conv(x))
            maps.append(x)
        return maps

    def features(self, x: Tensor) -> Tensor:
        """The mean over space of the last map, (B, C, H, W) -> (B, D)."""
        return self.stages(x)[-1].mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, (B, C, H, W) -> (B, K)."""
        return self.head(self.features(x))


class TokenNet(nn.Module):
    """Overlapping patches by convolutions, a small transformer, a mean over tokens, a linear classifier."""

    def __init__(self, channels: int, side: int, convs: list[list[int]], depth: int, heads: int, num_classes: int
                 ) -> None:  # fmt: skip
        """`side` of the images, in [-1, 1]; `convs` are (width, kernel, stride), the last as wide as the tokens."""
        super().__init__()
        inputs, width = [channels, *(width for width, _, _ in convs)], convs[-1][0]
        self.convs = nn.ModuleList(
            nn.Conv2d(c, width, kernel, stride, kernel // 2) for c, (width, kernel, stride) in zip(inputs, convs)
        )
        for _, _, stride in convs:
            side = -(-side // stride)
        self.positions = nn.Parameter(torch.zeros(side * side, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The mean over tokens of the last block, normed; (B, C, H, W) -> (B, D)."""
        for conv in self.convs:
            x = F.gelu(conv(x))
        x = x.flatten(2).mT + self.positions  # (B, N, D)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(1)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, (B, C, H, W) -> (B, K)."""
        return self.head(self.features(x))


FAMILIES: dict[str, type[FeatureNet | TokenNet]] = {"cnn": FeatureNet, "vit": TokenNet}


def known() -> list[str]:
    """The data sets that have nets of their own."""
    return sorted(path.name.removesuffix("-metric.json") for path in ASSETS.glob("*-metric.json"))


def facts(data: str, purpose: Purpose = "metric") -> dict[str, JSON]:
    """How a net was made: architecture, data, seed, epochs, test_accuracy, sha256, command.

    Raises LookupError for data without one.
    """
    found = read_json(ASSETS / f"{data}-{purpose}.json")
    if not isinstance(found, dict):
        raise LookupError(unknown(f"{purpose} net for data", data, known()))
    return found


def name(data: str, purpose: Purpose = "metric") -> str:
    """What stands in conditions, e.g. `fashion-mnist-cnn-1a2b3c4d`: data, family and the file's sha256."""
    made = facts(data, purpose)
    return f"{data}-{made.get('family', 'cnn')}-{str(made['sha256'])[:8]}"


def measuring() -> dict[str, tuple[str, Purpose]]:
    """The nets that measure, by name: data and purpose of each."""
    pairs = [(data, purpose) for data in known() for purpose in MEASURING]
    return {name(*pair): pair for pair in pairs if (ASSETS / "{}-{}.json".format(*pair)).exists()}


def load(data: str, purpose: Purpose = "metric") -> FeatureNet | TokenNet:
    """The frozen net of a data set, float32, channels last, in eval mode.

    Raises LookupError for data without one, ValueError if its file is not the one that was recorded.
    """
    made = facts(data, purpose)
    path = ASSETS / f"{data}-{purpose}.safetensors"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != made["sha256"]:
        raise ValueError(f"{path.name} does not have the sha256 that {data}-{purpose}.json records")
    net = FAMILIES[made.get("family", "cnn")](**made["architecture"])
    net.load_state_dict({k: v.float() for k, v in load_tensors(content).items()})
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
