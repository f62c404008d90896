"""Does a method help? Paired seeds, an interval, two tests that must agree, and a margin for "no difference".

Distances are compared as ratios, so as differences of logarithms; a pair is two runs of the same seed, and with it of
the same start, order of the data and noises. After "The FID Lottery" (arXiv 2606.20536) and the advice of arXiv
2511.19794.

d_i = log(distance of the method) - log(distance of its plain twin), i of n seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ENOUGH = 6  # seeds, from which a sign-flip test can reach 0.05: its smallest p is 2 / 2^n
LEVEL = 0.05
EXACT = 13  # seeds of which all signs are tried: 8,192; each seed more takes twice as long
MARGIN_COVS = 2.0  # of the seeds' coefficient of variation: how much counts as no difference


@dataclass(frozen=True)
class Verdict:
    """A method against its plain twin; a ratio below 1 is better."""

    ratio: float  # geometric mean
    low: float  # 95 % interval of the ratio, by paired t; nan for one seed
    high: float
    seeds: int
    p_t: float  # paired t test on the logarithms
    p_flip: float  # sign-flip test, exact up to EXACT seeds
    p_same: float  # TOST: that it differs by the margin or more; small = no difference
    margin: float  # as a ratio: 1.03 is 3 % either way
    word: str  # helps, hurts, no difference, open; or better / worse in direction alone
    trained: int  # trainings that the seeds are of: those of a finish that go on from one run are one

    @property
    def counted(self) -> str:
        """How many seeds, e.g. `6 seeds of 1 training`."""
        return counted(self.seeds, self.trained)

    @property
    def sentence(self) -> str:
        """The verdict with its figures, e.g. `helps: 0.91 times the distance (0.88 to 0.95, 6 seeds)`."""
        interval = f" ({self.low:.2f} to {self.high:.2f}, {self.counted})" if self.seeds > 1 else f" ({self.counted})"
        return f"{self.word}: {self.ratio:.2f} times the distance{interval}"


def counted(seeds: float, trained: float) -> str:
    """`6 seeds`, or `6 seeds of 1 training` where they go on from fewer runs."""
    of = f" of {trained:.0f} training{'s' if trained > 1 else ''}" if trained < seeds else ""
    return f"{seeds:.0f} seed{'s' if seeds > 1 else ''}{of}"


def spread(distances: Sequence[float]) -> float:
    """The coefficient of variation of one recipe's distances over its training seeds; nan for fewer than two."""
    values = np.asarray(distances, float)
    return float(values.std(ddof=1) / values.mean()) if len(values) > 1 else math.nan


def compare(method: Mapping[int, float], plain: Mapping[int, float], *, cov: float, p_t: float | None = None,
            trained: int | None = None) -> Verdict:  # fmt: skip
    """A method's distances and its plain twin's, by seed; `cov` is the spread of seeds that sets the margin.

    `p_t`: the t test's p-value corrected for several methods (`holm`), where there are several. `trained`: how many
    trainings the seeds stand for, where several go on from one; fewer than ENOUGH tell a direction alone.
    Raises ValueError where no seed is in both, or a distance is not above 0 and finite.
    """
    seeds = sorted(method.keys() & plain.keys())
    if not seeds:
        raise ValueError(f"no seed is in both: {sorted(method)} and {sorted(plain)}")
    if bad := [v for v in [*method.values(), *plain.values()] if not 0 < v < math.inf]:
        raise ValueError(f"a distance must be above 0 and finite, got {bad[0]}")
    d = np.log([method[s] / plain[s] for s in seeds])
    margin = 1 + MARGIN_COVS * cov
    low, high, p = _interval(d)
    p, flip, same = p if p_t is None else p_t, _sign_flip(d), _tost(d, math.log(margin))
    trained = len(d) if trained is None else trained
    word = _word(float(d.mean()), trained, p, flip, same)
    return Verdict(float(np.exp(d.mean())), math.exp(low), math.exp(high), len(d), p, flip, same, margin, word, trained)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of several methods, corrected for there being several (Holm, 1979)."""
    from statsmodels.stats.multitest import multipletests

    known = {name: p for name, p in p_values.items() if not math.isnan(p)}
    corrected = multipletests(list(known.values()), method="holm")[1] if known else []
    return dict(p_values) | dict(zip(known, map(float, corrected)))


def _interval(d: np.ndarray) -> tuple[float, float, float]:
    from scipy import stats

    if len(d) < 2:
        return math.nan, math.nan, math.nan
    found = stats.ttest_1samp(d, 0.0)
    low, high = found.confidence_interval(1 - LEVEL)
    return float(low), float(high), float(found.pvalue)


def _sign_flip(d: np.ndarray) -> float:
    """How often the mean with signs at random is at least as far from 0: of all signs, beyond EXACT seeds of some."""
    from scipy import stats

    if len(d) < 2:
        return math.nan
    found = stats.permutation_test((d, np.zeros_like(d)), lambda a, b, axis: (a - b).mean(axis=axis), vectorized=True,
                                   permutation_type="samples", n_resamples=2 ** min(len(d), EXACT), rng=0)  # fmt: skip
    return float(found.pvalue)


def _tost(d: np.ndarray, margin: float) -> float:
    """Two one-sided t tests against -margin and margin; the larger p."""
    from scipy import stats

    if len(d) < 2 or math.isnan(margin):
        return math.nan
    return float(max(stats.ttest_1samp(d, -margin, alternative="greater").pvalue,
                     stats.ttest_1samp(d, margin, alternative="less").pvalue))  # fmt: skip


def _word(mean: float, seeds: int, p: float, flip: float, same: float) -> str:
    if seeds < ENOUGH:
        return "open" if mean == 0 else "better in direction" if mean < 0 else "worse in direction"
    if p < LEVEL and flip < LEVEL:
        return "helps" if mean < 0 else "hurts"
    return "no difference" if same < LEVEL else "open"
