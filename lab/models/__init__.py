"""Networks by their shape: `build(config)` gives the net for any config of lab.config."""

from torch import nn

from lab.config import DiTConfig, GETConfig, NetConfig, RoutedConfig


def build(config: NetConfig) -> nn.Module:
    """A freshly initialised network; raises ValueError with every problem of an impossible shape."""
    if wrong := config.check():
        raise ValueError("; ".join(wrong))
    # Imported where they are built: a page that asks for one network waits for no other.
    if isinstance(config, DiTConfig):
        from lab.models.dit import DiT as Net
    elif isinstance(config, GETConfig):
        from lab.models.get import GET as Net
    elif isinstance(config, RoutedConfig):
        from lab.models.routed import Routed as Net
    else:
        from lab.models.unet import UNet as Net
    return Net(config)
