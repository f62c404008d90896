"""What a DiT of plain blocks costs, in closed form: a search asks for thousands, and every run is held to it.

Any other network is counted as it stands (lab/cost.py). No torch here.

N tokens, D width, M hidden width of the MLP, L blocks, p patch, C channels, K labels.
"""

from __future__ import annotations

import dataclasses

from lab.config import DiTConfig, NetConfig, why_not_plain

FREQUENCIES = 128  # of the timestep features; 256 numbers, cosines first
# Rows of the table of conditions of the deployed form (lab/deploy.py).
PER_BLOCK = 6  # of a block of adaLN: shift, 1 + scale, gate of attention, then of the MLP
FINAL = 2  # shift, 1 + scale before the head


def of_dit(config: NetConfig) -> dict[str, int]:
    """`params` and `macs`, of a one-step net with `params_deployed` and `macs_deployed`; {} of any other network."""
    if not isinstance(config, DiTConfig) or why_not_plain(dataclasses.replace(config, time=False)):
        return {}
    found = {"params": dit_params(config), "macs": dit_macs(config)}
    return found if config.time else found | _deployed(config)


def dit_params(config: DiTConfig) -> int:
    """Parameters of a DiT; a block has 18 D^2 + 15 D at M = 4 D."""
    D, M, p = config.width, config.hidden, config.patch
    out = config.out_channels or config.channels
    labels = config.num_classes + config.null_class
    embed = config.channels * p**2 * D + D
    time = 2 * FREQUENCIES * D + D + D**2 + D if config.time else 0
    constant = D if not labels and not config.time else 0
    attention, mlp, adaln = 4 * D**2 + 4 * D, 2 * D * M + M + D, 6 * D**2 + (12 if config.adaln_norm else 6) * D
    final = 2 * D**2 + 2 * D + D * p**2 * out + p**2 * out
    return embed + time + labels * D + constant + config.depth * (attention + mlp + adaln) + final


def dit_macs(config: DiTConfig) -> int:
    """MACs of a DiT; a block has 12 N D^2 + 2 N^2 D + 6 D^2 at M = 4 D."""
    N, D, M, p = config.tokens, config.width, config.hidden, config.patch
    out = config.out_channels or config.channels
    embed = N * config.channels * p**2 * D
    time = 2 * FREQUENCIES * D + D**2 if config.time else 0
    attention, mlp, adaln = 4 * N * D**2 + 2 * N**2 * D, 2 * N * D * M, 6 * D**2
    final = 2 * D**2 + N * D * p**2 * out
    return embed + time + config.depth * (attention + mlp + adaln) + final


def _deployed(config: DiTConfig) -> dict[str, int]:
    """The same of the deployed form of a one-step DiT: adaLN is a table of 6 L + 2 rows."""
    D, M, p, L = config.width, config.hidden, config.patch, config.depth
    inputs, outputs = config.channels * p**2, (config.out_channels or config.channels) * p**2
    table = rows_of(config) * (PER_BLOCK * L + FINAL) * D
    block = 4 * D**2 + 4 * D + 2 * D * M + M + D
    params = inputs * D + config.tokens * D + table + L * block + D * outputs + outputs
    without = 2 * D**2 + L * 6 * D**2  # the adaLN layers, of one row each
    return {"params_deployed": params, "macs_deployed": dit_macs(config) - without}


def rows_of(config: DiTConfig) -> int:
    """K: a row for every class and the null class; one for an unconditional net."""
    return config.num_classes + config.null_class or 1
