"""What can be compared: the quantities with their units, and the budget that limits them."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from lab.config import unknown
from lab.precisions import COARSE, FLOATING


@dataclass(frozen=True)
class Quantity:
    """A column that can be compared: what it is called, its unit, and which way is better."""

    title: str
    unit: str = ""
    more_is_better: bool = False

    def say(self, value: float) -> str:
        return f"{number(value)} {self.unit}".rstrip()


METRICS = {
    "fd": Quantity("Frechet distance"),
    "kid": Quantity("Kernel distance"),
    "fd_teacher": Quantity("Frechet distance to the teacher"),
    "precision": Quantity("Precision", more_is_better=True),
    "recall": Quantity("Recall", more_is_better=True),
    "class_accuracy": Quantity("Class accuracy", more_is_better=True),
    "teacher_l1": Quantity("L1 to the teacher's image"),
    "teacher_perceptual": Quantity("Perceptual distance to the teacher's image"),
}
COSTS = {
    "params_m": Quantity("Parameters", "M"),
    "latency_ms": Quantity("Latency", "ms"),
    "memory_mb": Quantity("Memory", "MB"),
    "file_mb": Quantity("File", "MB"),
    "macs_m": Quantity("MACs per image", "M"),
}
# Of what is shipped, which is what a budget is held against: the deployed form (lab/deploy.py) where a network has one,
# else the network itself. Size -> as trained, and where `Store.table()` has both and in which unit.
AS_TRAINED = {"params_m": "params_trained_m", "file_mb": "file_trained_mb", "macs_m": "macs_trained_m"}
SIZES_SAID = ("Parameters, file and MACs are those of what is shipped: the deployed form, in which the conditioning is "
              "folded into a table.")  # fmt: skip
QUANTITIES = METRICS | COSTS | {
    trained: Quantity(f"{COSTS[name].title} as trained", COSTS[name].unit) for name, trained in AS_TRAINED.items()
} | {
    "speed_up": Quantity("Times faster than its teacher", more_is_better=True),
    "evaluations": Quantity("Evaluations per image"),
    "depth": Quantity("Depth"),
    "width": Quantity("Width"),
    "train_seconds": Quantity("Training", "s"),
}  # fmt: skip

PERCENTILES = ("p50", "p90", "p99")
SCOPES = ("core", "e2e")
PRECISIONS = ("float", "any", *FLOATING, *COARSE)  # float: the fastest of FLOATING, any: of all


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the device allows, and under which conditions it is looked at. None: no limit, or `settle` fills it in."""

    params_m: float | None = None  # millions of parameters of what is shipped, as all sizes here
    latency_ms: float | None = None  # for one batch
    memory_mb: float | None = None  # of the device's memory while it runs, runtime and all
    file_mb: float | None = None  # of its weights in half precision, or of the file that is run where that is smaller
    macs_m: float | None = None  # millions of multiply-adds per image
    device: str | None = None
    runtime: str = "fastest"  # or one by name
    batch: int = 1
    threads: int | None = None
    scope: str = "core"  # the network alone; e2e = from noise to an image on the host
    precision: str = "float"  # of the timings; `any` also takes coarser ones, which draw other images, or one by name
    percentile: str = "p50"
    metric: str = "fd"
    protocol: str | None = None  # as `protocols` says it
    method: str | None = None  # students of this one alone, as `method_short` of `Store.table()` says it
    weak: bool = False  # also use timings that were throttled or are of grade D or E, not only those that vary
    estimated: bool = False  # also use estimates (grade F), for networks that were not timed

    def __post_init__(self) -> None:
        wrong = []
        for name, known in [("percentile", PERCENTILES), ("metric", METRICS), ("scope", SCOPES),
                            ("precision", PRECISIONS)]:  # fmt: skip
            if getattr(self, name) not in known:
                wrong.append(unknown(name, getattr(self, name), known))
        for name in COSTS:
            limit = getattr(self, name)
            if limit is not None and not (_is_number(limit) and limit > 0):
                wrong.append(f"{name} must be a number above 0, got {limit!r}")
        for name in ("batch", "threads"):
            count = getattr(self, name)
            if count is not None and not (_is_number(count) and count >= 1 and count % 1 == 0):
                wrong.append(f"{name} must be a whole number of at least 1, got {count!r}")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def limits(self) -> dict[str, float]:
        """The costs that are limited, by column."""
        return {name: getattr(self, name) for name in COSTS if getattr(self, name) is not None}

    @property
    def said(self) -> str:
        """The limits in words, e.g. `at most 0.35 M parameters and 1 ms`."""
        parts = [_limit(name, limit, self) for name, limit in self.limits.items()]
        return "at most " + joined(parts) if parts else "no limit"


def number(value: float) -> str:
    """Three figures, e.g. 0.0842, 2.91, 38.0, 1,240."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")


def brief(value: float) -> str:
    """Two figures, e.g. 0.21, 4.9, 38, 1,240."""
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:#.2g}".rstrip(".")


def percent(share: float) -> str:
    """E.g. `9 %`; one figure more below 1 %."""
    return f"{100 * share:.0f} %" if abs(share) >= 0.0095 else f"{100 * share:.1g} %"


def threads_said(count: float) -> str:
    return f"{count:.0f} thread{'' if count == 1 else 's'}"


def short(metric: str) -> str:
    """A metric's name inside a sentence."""
    return {"fd": "FD", "kid": "KID", "fd_teacher": "FD to the teacher"}.get(metric, METRICS[metric].title.lower())


def _limit(name: str, limit: float, budget: Budget) -> str:
    noun = {"params_m": " parameters", "macs_m": " MACs", "latency_ms": f" {budget.percentile}",
            "memory_mb": " of memory", "file_mb": " of weights"}[name]  # fmt: skip
    return f"{limit:g} {COSTS[name].unit}{noun}"


def joined(parts: list[str], more: int = 0) -> str:
    if more > 0:
        return ", ".join(parts) + f" and {more} more"
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
