"""Times of this machine: whole images, what it can do at its best, and where a net's time goes.

Three programs over one protocol, that of devices/runner/: timing.py, machine.py and parts.py.
"""

from lab.bench.machine import PRODUCTS, Product, card, card_here, known_card, product, slow_precisions
from lab.bench.parts import Blocks, blocks, keep_blocks, steps
from lab.bench.timing import (
    SCOPES,
    TOLERANCES,
    call_of,
    checks,
    compare,
    device_facts,
    fixed_inputs,
    forms_of,
    measure,
    plan,
    reference,
    sweep,
)
from lab.devices.predict import Card
from lab.devices.runner import Comparison, Preset

__all__ = [
    "PRODUCTS", "SCOPES", "TOLERANCES", "Blocks", "Card", "Comparison", "Preset", "Product", "blocks", "call_of",
    "card", "card_here", "checks", "compare", "device_facts", "fixed_inputs", "forms_of", "keep_blocks", "known_card",
    "measure", "plan", "product", "reference", "slow_precisions", "steps", "sweep",
]  # fmt: skip
