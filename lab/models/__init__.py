"""Networks by their shape: `build(config)` gives the net for any config of lab.config."""

from torch import nn

from lab.config import DiTConfig, NetConfig


def build(config: NetConfig) -> nn.Module:
    """A freshly initialised network; raises ValueError with every problem of an impossible shape."""
    if wrong := config.check():
        raise ValueError("; ".join(wrong))
    if isinstance(config, DiTConfig):
        from lab.models.dit import DiT

        return DiT(config)
    from lab.models.unet import UNet

    return UNet(config)
