"""Trains the six small classifiers of lab/assets that metrics and the perceptual loss look through.

    python benchmarks/train_feature_nets.py fashion-mnist metric
    python benchmarks/train_feature_nets.py digits perceptual --out somewhere/else

Fashion-MNIST's metric nets take some minutes on one core, the others seconds to a minute. One
thread and a stored seed make a training repeatable on one kind of processor; the files in lab/assets
are what counts, and their sha256 stands in every metric, so this is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from lab import data
from lab.config import JSON
from lab.diffusion import from_uint8
from lab.features import ASSETS, FAMILIES, FeatureNet, TokenNet
from lab.results import write_json, write_whole


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one net is made."""

    convs: tuple[tuple[int, int, int], ...]  # (width, kernel, stride) of each convolution
    seed: int
    epochs: int
    shift: int  # augmentation: each image moves by up to this many pixels
    flip: bool  # and is mirrored half of the time
    depth: int = 0  # transformer blocks behind the convolutions; 0 = a net of convolutions alone
    heads: int = 4  # of those
    batch: int = 128
    lr: float = 0.1  # of SGD with Nesterov momentum 0.9, one cycle; of AdamW where there are transformer blocks
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05

    @property
    def family(self) -> str:
        return "vit" if self.depth else "cnn"

    def architecture(self, images: data.Images) -> dict[str, JSON]:
        """What the net is built with."""
        _, channels, side, _ = images.images.shape
        tokens = {"side": side, "depth": self.depth, "heads": self.heads} if self.depth else {}
        return {"channels": channels, "convs": [list(c) for c in self.convs], "num_classes": len(images.class_names),
                **tokens}  # fmt: skip

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        if self.depth:
            return torch.optim.AdamW(net.parameters(), self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(net.parameters(), self.lr, 0.9, weight_decay=self.weight_decay, nesterov=True)

    @property
    def optimizer_said(self) -> str:
        kind = "AdamW" if self.depth else "SGD, Nesterov momentum 0.9"
        return f"{kind}, one cycle to {self.lr}, weight decay {self.weight_decay}"


PLANS = {
    ("fashion-mnist", "metric"): Plan(convs=((24, 3, 1), (48, 3, 2), (96, 3, 2), (128, 3, 2), (128, 3, 1)), seed=1,
                                      epochs=10, shift=1, flip=True, weight_decay=2e-4, label_smoothing=0.0),
    ("fashion-mnist", "perceptual"): Plan(convs=((24, 5, 2), (48, 3, 2)), seed=2, epochs=10, shift=2, flip=True),
    ("digits", "metric"): Plan(convs=((32, 3, 1), (64, 3, 2), (128, 3, 1)), seed=3, epochs=40, shift=1, flip=False),
    ("digits", "perceptual"): Plan(convs=((16, 3, 1), (32, 3, 2)), seed=4, epochs=40, shift=1, flip=False),
    ("fashion-mnist", "second"): Plan(convs=((32, 5, 2), (96, 3, 2)), depth=2, seed=5, epochs=6, shift=2, flip=True,
                                      lr=2e-3, weight_decay=0.05),
    ("digits", "second"): Plan(convs=((32, 3, 1), (64, 3, 2)), depth=2, seed=6, epochs=40, shift=1, flip=False,
                               lr=2e-3, weight_decay=0.05),
}  # fmt: skip


class TrainingNet(nn.Module):
    """A FeatureNet with batch norms between its convolutions, which `folded` merges into them."""

    def __init__(self, plain: FeatureNet) -> None:
        super().__init__()
        self.plain = plain
        self.norms = nn.ModuleList(nn.BatchNorm2d(conv.out_channels) for conv in plain.convs)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.plain.convs, self.norms):
            x = F.relu(norm(conv(x)))
        return self.plain.head(x.mean((2, 3)))

    @torch.no_grad()
    def folded(self) -> FeatureNet:
        """The same function in eval mode without batch norms."""
        for conv, norm in zip(self.plain.convs, self.norms):
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            conv.weight.mul_(scale.view(-1, 1, 1, 1))
            conv.bias.copy_((conv.bias - norm.running_mean) * scale + norm.bias)
        return self.plain


def augment(x: Tensor, plan: Plan, rng: torch.Generator) -> Tensor:
    """Shifted (edges filled with the lowest value) and mirrored images; (B, C, H, W) -> the same."""
    B, _, H, W = x.shape
    s = plan.shift
    padded = F.pad(x, (s, s, s, s), value=-1.0)
    dy, dx = torch.randint(2 * s + 1, (2, B, 1), generator=rng)
    rows, columns = dy + torch.arange(H), dx + torch.arange(W)
    if plan.flip:
        mirrored = torch.rand(B, 1, generator=rng) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    b = torch.arange(B).view(B, 1, 1)
    return padded[b, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def train(images: data.Images, plan: Plan, title: str) -> FeatureNet | TokenNet:
    torch.manual_seed(plan.seed)
    rng = torch.Generator().manual_seed(plan.seed)
    plain = FAMILIES[plan.family](**plan.architecture(images))
    net = (plain if plan.depth else TrainingNet(plain)).to(memory_format=torch.channels_last)
    steps = plan.epochs * (len(images.images) // plan.batch)
    optimizer = plan.optimizer(net)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.lr, steps, pct_start=0.2)
    for step in tqdm(range(steps), desc=title, unit="step", mininterval=5):
        index = data.order(len(images.images), plan.batch, plan.seed, step)
        x = augment(from_uint8(images.images[index]), plan, rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            scores = net(x)
        loss = F.cross_entropy(scores.float(), images.labels[index], label_smoothing=plan.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
    return net.eval() if plan.depth else net.eval().folded()


@torch.inference_mode()
def accuracy(net: FeatureNet | TokenNet, images: data.Images) -> float:
    right = [net(from_uint8(x)).argmax(1) == y for x, y in zip(images.images.split(500), images.labels.split(500))]
    return torch.cat(right).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted({d for d, _ in PLANS}))
    parser.add_argument("purpose", choices=sorted({purpose for _, purpose in PLANS}))
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    plan, began = PLANS[args.data, args.purpose], time.process_time()
    images = data.load(args.data, "train")
    net = train(images, plan, f"{args.data} {args.purpose}")
    seconds = time.process_time() - began
    tensors = {k: v.half().contiguous() for k, v in net.state_dict().items()}
    net.load_state_dict({k: v.float() for k, v in tensors.items()})  # measured as it is stored
    content = save(tensors)
    path = args.out / f"{args.data}-{args.purpose}.safetensors"
    write_whole(path, content)
    made = {
        "data": args.data, "purpose": args.purpose, "split": "train", "images": len(images.images),
        "family": plan.family, "architecture": plan.architecture(images),
        "seed": plan.seed, "epochs": plan.epochs, "batch": plan.batch,
        "optimizer": plan.optimizer_said,
        "label_smoothing": plan.label_smoothing, "augmentation": {"shift": plan.shift, "flip": plan.flip},
        "training_dtype": "bfloat16", "weights_dtype": "float16",
        "test_accuracy": round(accuracy(net, data.load(args.data, "test")), 4),
        "sha256": hashlib.sha256(content).hexdigest(), "cpu_seconds": round(seconds), "torch": torch.__version__,
        "command": f"python benchmarks/train_feature_nets.py {args.data} {args.purpose}",
    }  # fmt: skip
    write_json(path.with_suffix(".json"), made)
    print(f"{path.name}: test accuracy {made['test_accuracy']:.4f}, {len(content) / 1e3:.0f} kB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
