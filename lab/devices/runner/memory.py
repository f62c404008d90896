"""Whether a batch fits into memory, and how much a process took."""

from __future__ import annotations

import platform
from typing import Any

from lab.devices.runner.errors import TooLarge

# Times what the largest operation reads and writes: onnxruntime took 1.4 to 1.6 times that above the opened network,
# torch 2.0 to 3.0 (x86, 256 to 1,024 images of 28 x 28, DiTs of 4 x 64 and 2 x 256).
LIVE = 3.0
TIGHT = 0.8  # of the free memory, from where on a batch is warned of


def check_fit(batch: int, free_mb: float | None, *, base_mb: float, weights_mb: float, activations: int,
              beside: float = 0.0) -> str | None:  # fmt: skip
    """A warning where a batch takes most of the free memory, as a sentence; None where it does not.

    What it needs is estimated as the runtime itself, the weights twice (as read, and as computed with), and for each
    image LIVE times the `activations` that its largest operation reads and writes, numbers of 4 bytes, and some bytes
    `beside` them. Raises TooLarge where that is more than is free.
    """
    if free_mb is None:
        return None
    each_mb = (LIVE * 4 * activations + beside) / 1e6
    fixed_mb = base_mb + 2 * weights_mb
    needs_mb = fixed_mb + batch * each_mb
    if needs_mb > free_mb:
        most = int((free_mb - fixed_mb) / each_mb)
        would = f"a batch of {most} would fit" if most > 0 else "a single image would not fit either"
        raise TooLarge(
            f"batch {batch} does not fit: it needs about {needs_mb:,.0f} MB ({base_mb:,.0f} for the runtime, "
            f"{2 * weights_mb:,.0f} for weights, {batch * each_mb:,.0f} for activations and images), and "
            f"{free_mb:,.0f} MB are free; {would}"
        )
    if needs_mb > TIGHT * free_mb:
        return f"batch {batch} is tight: it needs about {needs_mb:,.0f} of the {free_mb:,.0f} MB that are free"
    return None


def process_peak_mb() -> float | None:
    """Peak resident memory of this process in MB; None where it is not told."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resident_mb(resource.getrusage(resource.RUSAGE_SELF))


def resident_mb(used: Any) -> float:
    return round(used.ru_maxrss / 2**20 if platform.system() == "Darwin" else used.ru_maxrss / 1024, 1)
