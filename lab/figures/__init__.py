"""Tables and sheets in, pictures out: pure, the same for pages and notebooks. No torch here.

One file a subject; `from lab import figures` has all that pages and notebooks draw.
"""

from lab.figures.curves import CURVE_POINTS, curve, learning_curves, lttb, terms
from lab.figures.design import budgets, heads, iso, over_seeds
from lab.figures.factors import factors, verdicts
from lab.figures.fronts import projections, recommended, tradeoff, tradeoff_3d
from lab.figures.limits import draw_limits
from lab.figures.look import GREY, MOST_NAMES
from lab.figures.recipes import config_difference
from lab.figures.sheets import EMPTY, caption, difference, side_by_side
from lab.figures.sizes import MOST_PARTED, parts, residuals, size_and_time
from lab.figures.timings import (
    DOUBTFUL,
    ECDF_POINTS,
    MOST_TIMINGS,
    ecdf,
    latencies,
    over_time,
    precisions,
    stages,
    states,
    timing_labels,
)
from lab.figures.twins import beside_twins, method_names, plain_twins
from lab.figures.words import axis_title, conditions, hover

__all__ = [
    "CURVE_POINTS", "DOUBTFUL", "ECDF_POINTS", "EMPTY", "GREY", "MOST_NAMES", "MOST_PARTED", "MOST_TIMINGS",
    "axis_title", "beside_twins", "budgets", "caption", "conditions", "config_difference", "curve", "difference",
    "draw_limits", "ecdf", "factors", "heads", "hover", "iso", "latencies", "learning_curves", "lttb",
    "method_names", "over_seeds", "over_time", "parts", "plain_twins", "precisions", "projections", "recommended",
    "residuals", "side_by_side", "size_and_time", "stages", "states", "terms", "timing_labels", "tradeoff",
    "tradeoff_3d", "verdicts",
]  # fmt: skip
