"""Which student to ship: a budget and the store's tables in, a recommendation with its reason out. No torch here.

    from lab.choose import Budget, recommend
    from lab.results import Store
    store = Store()
    print(recommend(store.table(), store.reports(), Budget(params_m=0.35, latency_ms=1.0)).text)

Only values of one protocol (extractor, samples, reference, seed) are compared, and only latencies of one
device, batch, thread count and scope; what was left out is named. Sizes are those of what is shipped.
"""

from lab.choose.baseline import beside, better_by, better_said
from lab.choose.fronts import against, covered, dominators, front, front_of, hypervolume, knee
from lab.choose.prose import facts, images_off_said, images_said, is_estimate, left_out_of, size_said, timing_said
from lab.choose.quantities import (
    AS_TRAINED,
    COSTS,
    METRICS,
    PERCENTILES,
    PRECISIONS,
    QUANTITIES,
    SCOPES,
    SIZES_SAID,
    Budget,
    Quantity,
    brief,
    number,
    percent,
    short,
    threads_said,
)
from lab.choose.recommendation import Recommendation, command, recommend, start
from lab.choose.rows import (
    candidates,
    complete,
    names,
    protocol_for,
    protocols,
    settle,
    shipped,
    size_as_trained,
    with_latency,
)
from lab.choose.sentence import Figure, in_short, sentence, times_teacher
from lab.choose.timing import (
    ESTIMATED,
    WEAK,
    devices,
    devices_by_trust,
    memory,
    off,
    on,
    quick,
    thread_counts,
    timings,
    unsteady,
    weak,
)
from lab.precisions import COARSE, EXACT, FLOATING

__all__ = [
    "AS_TRAINED", "COARSE", "COSTS", "ESTIMATED", "EXACT", "FLOATING", "METRICS", "PERCENTILES", "PRECISIONS",
    "QUANTITIES", "SCOPES", "SIZES_SAID", "WEAK", "Budget", "Figure", "Quantity", "Recommendation", "against", "beside",
    "better_by", "better_said", "brief", "candidates", "command", "complete", "covered", "devices", "devices_by_trust",
    "dominators", "facts", "front", "front_of", "hypervolume", "images_off_said", "images_said", "in_short",
    "is_estimate", "knee", "left_out_of", "memory", "names", "number", "off", "on", "percent", "protocol_for",
    "protocols", "quick", "recommend", "sentence", "settle", "shipped", "short", "size_as_trained", "size_said",
    "start", "thread_counts", "threads_said", "times_teacher", "timing_said", "timings", "unsteady", "weak",
    "with_latency",
]  # fmt: skip
