"""EDM's raw network F as a small U-Net: diffusers' UNet2DModel with our forward signature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lab.config import UNetConfig
from lab.models.taps import Taps


class UNet(nn.Module):
    """F(x, t, y) of a denoiser; t is EDM's c_noise, ln(sigma)/4. Gives no taps."""

    tap_names: frozenset[str] = frozenset()

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        from diffusers import UNet2DModel  # two seconds to import: only where a U-Net is built

        self.config = config
        down = ["AttnDownBlock2D" if i in config.attention else "DownBlock2D" for i in range(len(config.widths))]
        self.net = UNet2DModel(
            sample_size=config.image_size,
            in_channels=config.channels,
            out_channels=config.channels,
            layers_per_block=config.layers,
            block_out_channels=config.widths,
            down_block_types=tuple(down),
            up_block_types=tuple(b.replace("Down", "Up") for b in reversed(down)),
            norm_num_groups=config.groups,
            attention_head_dim=min(config.widths[-1], 32),
            num_class_embeds=config.num_classes or None,
        )
        # EDM starts the last layer at zero, so that training begins at F = 0.
        nn.init.zeros_(self.net.conv_out.weight)
        nn.init.zeros_(self.net.conv_out.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None, taps: Taps | None = None) -> Tensor:
        """(B, C, H, W), (B,), (B,) -> (B, C, H, W)."""
        # 100: diffusers spaces its sinusoids for timesteps 0..999; c_noise lies in about [-1.6, 1.1].
        x = x.contiguous(memory_format=torch.channels_last)
        labels = y if self.config.num_classes else None  # labelled data may train an unconditional net
        return self.net(x, 100.0 * t, class_labels=labels).sample.contiguous()
