"""What a device should need for a student that nobody timed there, as an interval. No torch here.

A roofline of the deployed form (lab/deploy.py), operation by operation: each costs a launch, and then
what its arithmetic or its bytes take, whichever dominates (a p-norm of the two). A device is a `Card`;
where it has timings, `fit` learns five numbers from them, else they are known to a range only.
An estimate is never a measurement: its report is graded F and left out unless asked for.

B batch, N tokens, D width, M hidden width of the MLP, H heads, d = D/H, L blocks, p patch, C channels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab import precisions
from lab.config import JSON, DiTConfig, NetConfig, cast, config_from_json, config_to_json, unknown, why_not_plain
from lab.counts import FINAL, PER_BLOCK
from lab.devices.report import LARGEST, SCHEMA
from lab.results import Run, now, read_json, write_json
from lab.schema import shown

CARDS_FILE = Path(__file__).parent / "cards.json"
POWER = 2  # of the norm that joins arithmetic and bytes: infinite is the sharp roofline, 1 the sum
PRECISIONS = {name: row.work for name, row in precisions.PRECISIONS.items() if row.work}
FLOATS = {"int8": "fp32"}  # what the products without weights are computed in
LEAST_SPREAD = 0.05  # of a fitted interval: other runs of the same timing are not nearer than that
TRUSTED = ("A", "B", "C")  # grades of the timings that a fit may learn from
MOST_FITTED = 64  # timings of a fit
FEWEST_FITTED, FEWEST_SHAPES = 10, 4  # below which five rates meet every timing, and promise too narrow an interval


# --- the work -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """One step of the net: a matrix product, or a pass over its data."""

    part: str  # of the net, e.g. blocks.0.attention
    flops: float  # of products alone, as in lab/cost.py
    bytes: float  # weights, inputs and outputs, each once
    weights: float = 0.0  # of these bytes: what every call reads anew from far away
    size: float = 0.0  # harmonic mean of a product's three sides; 0 for a pass
    precision: str = "fp32"  # that it is computed in


@dataclass(frozen=True)
class Work:
    """All that one call of the deployed net has to do, in order."""

    operations: tuple[Operation, ...]

    @property
    def ops(self) -> int:
        return len(self.operations)

    @property
    def flops(self) -> float:
        return sum(op.flops for op in self.operations)

    @property
    def bytes(self) -> float:
        return sum(op.bytes for op in self.operations)

    def parts(self) -> dict[str, tuple[float, float]]:
        """(flops, bytes) of each part of the net, in order."""
        found: dict[str, tuple[float, float]] = {}
        for op in self.operations:
            flops, bytes_ = found.get(op.part, (0.0, 0.0))
            found[op.part] = (flops + op.flops, bytes_ + op.bytes)
        return found


@functools.lru_cache(maxsize=512)
def work(config: DiTConfig, batch: int = 1, precision: str = "fp32") -> Work:
    """The work of a one-step student's deployed form, in closed form.

    Raises ValueError for another network, an impossible shape or an unknown precision.
    """
    if why := why_not_plain(config):
        raise ValueError(f"{config.shape} can't be predicted: {why}")
    if wrong := config.check():
        raise ValueError("; ".join(wrong))
    if precision not in PRECISIONS:
        raise ValueError(unknown("precision", precision, PRECISIONS))
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    return Work(tuple(_operations(config, batch, *PRECISIONS[precision])))


def _operations(config: DiTConfig, B: int, of_weight: float, of_value: float, computed: str) -> Iterator[Operation]:
    N, D, M, H, p = config.tokens, config.width, config.hidden, config.heads, config.patch
    inputs, outputs = config.channels * p**2, (config.out_channels or config.channels) * p**2
    floats = FLOATS.get(computed, computed)

    def product(part: str, rows: int, inner: int, cols: int, *, count: int = 1, weights: bool = True,
                kept: bool = False) -> Operation:  # fmt: skip
        """`count` products (rows, inner) x (inner, cols); `kept`: in floating point whatever the precision."""
        flops = 2.0 * count * rows * inner * cols
        coarse = weights and not kept
        matrix = count * inner * cols * (of_weight if coarse else of_value)
        bytes_ = matrix + count * rows * (inner + cols) * of_value
        size = 3 / (1 / rows + 1 / inner + 1 / cols)
        return Operation(part, flops, bytes_, matrix if weights else 0.0, size, computed if coarse else floats)

    def once(part: str, values: float) -> Operation:
        """A pass that reads and writes so many values in all."""
        return Operation(part, 0.0, values * of_value, precision=floats)

    tokens = B * N * D
    yield once("table", 2 * B * (PER_BLOCK * config.depth + FINAL) * D)
    yield once("embed", 2 * B * N * inputs)  # patches
    yield product("embed", B * N, inputs, D, kept=True)
    yield once("embed", 2 * tokens + N * D)  # + positions
    for i in range(config.depth):
        name = f"blocks.{i}"
        yield once(f"{name}.norm1", 2 * tokens)
        yield product(f"{name}.attention", B * N, D, 3 * D)
        yield once(f"{name}.attention", 6 * tokens)  # q, k, v by heads
        yield product(f"{name}.attention", N, D // H, N, count=B * H, weights=False)
        yield once(f"{name}.attention", 2 * B * H * N * N)  # softmax
        yield product(f"{name}.attention", N, N, D // H, count=B * H, weights=False)
        yield once(f"{name}.attention", 2 * tokens)  # heads back to tokens
        yield product(f"{name}.attention", B * N, D, D)
        yield once(f"{name}.sum1", 3 * tokens)  # x + gate h
        yield once(f"{name}.norm2", 2 * tokens)
        yield product(f"{name}.mlp", B * N, D, M)
        yield once(f"{name}.mlp", 2 * B * N * M)  # GELU
        yield product(f"{name}.mlp", B * N, M, D, kept=of_weight == 1)  # lab/int8.py leaves it in floating point
        yield once(f"{name}.sum2", 3 * tokens)
    yield once("head", 2 * tokens)
    yield product("head", B * N, D, outputs, kept=True)
    yield once("head", 2 * B * N * outputs)  # patches back to an image


# --- cards --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """How much of a card a runtime gets."""

    launch: float = 1.0  # times the card's launch overhead
    efficiency: float = 0.7  # share of the peak that a large product reaches
    half: float = 32.0  # size of a product at which it reaches half of that
    memory: float = 0.8  # share of the bandwidth at which weights come; above 1 where they stay in a cache
    cache: float = 2.0  # the same of activations, which the operation before has just written


# What runtimes get of a device that nobody timed: a stated range, between the best and the worst that
# well-made and careless engines of small nets reach. The middle of an estimate is their geometric mean.
BEST = Rates(launch=0.5, efficiency=0.9, half=8.0, memory=1.5, cache=6.0)
WORST = Rates(launch=2.0, efficiency=0.4, half=64.0, memory=0.5, cache=0.75)
# Where a fit starts, and to where it is drawn, a little, while there are few timings.
START = Rates()
PRIOR = 0.05  # the weight of that pull: a factor of e is as bad as a relative error of 5 %


@dataclass(frozen=True)
class Tuned:
    """What a fit learned, and from what."""

    rates: Rates
    spread: float  # an estimate's interval is its middle divided and multiplied by this
    timings: int
    runtime: str
    precision: str


@dataclass(frozen=True)
class Card:
    """What a device can do at most, each figure with its source."""

    name: str
    family: str
    memory_mb: int
    peak: Mapping[str, float]  # GFLOP/s by precision, of dense products
    bandwidth: float  # GB/s
    launch_us: float  # of one operation
    sources: Mapping[str, str]  # figure -> where it is from
    mode: str | None = None  # the power mode
    threads: int | None = None
    names: str | None = None  # pattern of what device reports call it; None = its name
    gpu: bool = False  # of the GPU of a chip, which has CPUs, too
    tuned: Tuned | None = field(default=None)

    @property
    def title(self) -> str:
        threads = [f"{self.threads} thread{'s' if self.threads > 1 else ''}"] if self.threads else []
        return ", ".join([self.name, *([self.mode] if self.mode else []), *threads])

    def is_of(self, name: str, mode: object = None, gpu: object = None) -> bool:
        """Whether it is of the device, power mode and GPU (None: the CPU) of a report.

        A card for one power mode says nothing about the device in another; one without a mode, such as a computer's
        whose governor is its mode, is for all of them.
        """
        return self.is_of_board(name, mode) and self.gpu == isinstance(gpu, str)

    def is_of_board(self, name: str, mode: object = None) -> bool:
        """Whether it is of something on the device of a report in its power mode, be it the GPU or the CPU."""
        named = re.fullmatch(self.names, name) is not None if self.names else name == self.name
        return named and self.mode in (None, mode)

    def rate(self, precision: str) -> float:
        """GFLOP/s of a precision. Raises ValueError for one that the device does not have."""
        if precision not in self.peak:
            raise ValueError(f"{self.title} has no peak for {precision}; its card has {', '.join(sorted(self.peak))}")
        return self.peak[precision]


def card_from_json(plain: JSON, where: str = "card") -> Card:
    """A card from its JSON. Raises ValueError for a wrong field, or a figure that is not above 0 or has no source."""
    needed = [f.name for f in dataclasses.fields(Card) if f.default is dataclasses.MISSING]
    if not isinstance(plain, dict) or (missing := [name for name in needed if name not in plain]):
        raise ValueError(f"{where} is no device card" + (f": it lacks {', '.join(missing)}" if plain else ""))
    card: Card = cast(Card, plain, where)
    figures = {"bandwidth": card.bandwidth, "launch_us": card.launch_us}
    figures |= {f"peak.{precision}": value for precision, value in card.peak.items()}
    for name, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < LARGEST:
            raise ValueError(f"{where}.{name} must be a number above 0, got {repr(value)[:40]}")
        if not card.sources.get(name):
            raise ValueError(f"{where}.{name} has no source; give one in {where}.sources[{name!r}]")
    try:
        re.compile(card.names or "")
    except re.error as error:
        raise ValueError(f"{where}.names is {shown(card.names)}, no pattern: {error}") from None
    return card


def cards(root: Path | None = None) -> dict[str, Card]:
    """Every card by its key: those of the lab, and with a results folder also the machines measured there."""
    found = dict(_own_cards())
    for path in sorted((root / "devices" / "cards").glob("*.json")) if root else []:
        with contextlib.suppress(ValueError):  # `Store.faults` names it
            found[path.stem] = card_from_json(read_json(path), path.name)
    return found


def card_fault(path: Path) -> str | None:
    """What keeps a measured card from being read; None if nothing does."""
    try:
        card_from_json(read_json(path), "it")
    except ValueError as error:
        return str(error)
    return None


@functools.cache
def _own_cards() -> dict[str, Card]:
    return {key: card_from_json(plain, key) for key, plain in json.loads(CARDS_FILE.read_text()).items()}


def card_of(key: str, root: Path | None = None) -> Card:
    """A card by its key. Raises ValueError with the nearest keys."""
    known = cards(root)
    if key not in known:
        raise ValueError(unknown("device card", key, known))
    return known[key]


def key_of(card: Card) -> str:
    """A card's file name: its device, mode and threads in small letters."""
    words = "".join(c if c.isalnum() else " " for c in card.title.lower())
    return "-".join(words.split())


def save_card(card: Card, root: Path) -> Path:
    """Keep a measured card in a results folder; gives its file."""
    path = root / "devices" / "cards" / f"{key_of(card)}.json"
    write_json(path, dataclasses.asdict(card))
    return path


# --- the estimate -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """Milliseconds of one call."""

    low: float
    p50: float
    high: float

    def __str__(self) -> str:
        return f"{self.p50:.3g} ms ({self.low:.3g} to {self.high:.3g})"


def estimate(card: Card, config: DiTConfig, batch: int = 1, precision: str = "fp32") -> Estimate:
    """What one call should take: of a fitted card with the spread of the fit, else with the range of BEST to WORST."""
    arrays = _arrays(card, work(config, batch, precision))
    if card.tuned is None:
        low, high = _ms(arrays, BEST), _ms(arrays, WORST)
        return Estimate(low, math.sqrt(low * high), high)
    if card.tuned.precision != precision:
        raise ValueError(f"{card.title} was fitted on {card.tuned.precision}, which says nothing about {precision}")
    p50 = _ms(arrays, card.tuned.rates)
    return Estimate(p50 / card.tuned.spread, p50, p50 * card.tuned.spread)


def parts(card: Card, config: DiTConfig, batch: int = 1, precision: str = "fp32") -> dict[str, float]:
    """Estimated milliseconds of each part of the net, in order."""
    found = work(config, batch, precision)
    times = _times(_arrays(card, found), card.tuned.rates if card.tuned else START)
    split = dict.fromkeys(found.parts(), 0.0)
    for op, ms in zip(found.operations, times):
        split[op.part] += float(ms)
    return split


CAUSES = ("overhead", "arithmetic", "memory")


def causes(card: Card, config: DiTConfig, batch: int = 1, precision: str = "fp32") -> dict[str, float]:
    """Shares of the estimated time by what it goes to: starting operations, their arithmetic, their bytes.

    An operation's time beyond its start counts for whichever of arithmetic and bytes takes longer.
    """
    arrays, rates = _arrays(card, work(config, batch, precision)), card.tuned.rates if card.tuned else START
    arithmetic, moving = _limits(arrays, rates)
    overhead = rates.launch * arrays[0]
    rest = _times(arrays, rates) - overhead
    spent = [overhead.sum(), rest[arithmetic >= moving].sum(), rest[arithmetic < moving].sum()]
    return {name: float(ms / sum(spent)) for name, ms in zip(CAUSES, spent)}


def _arrays(card: Card, found: Work) -> tuple[np.ndarray, ...]:
    """Per operation, in ms: launch, arithmetic at the peak, weights and activations at the bandwidth; and 1 / size."""
    ops = found.operations
    launch = np.full(len(ops), card.launch_us / 1e3)
    flops = np.array([op.flops / card.rate(op.precision) / 1e6 if op.flops else 0.0 for op in ops])
    weights = np.array([op.weights / card.bandwidth / 1e6 for op in ops])
    values = np.array([(op.bytes - op.weights) / card.bandwidth / 1e6 for op in ops])
    return launch, flops, weights, values, np.array([1 / op.size if op.size else 0.0 for op in ops])


def _times(arrays: tuple[np.ndarray, ...], rates: Rates) -> np.ndarray:
    """Milliseconds of each operation: launch + || flops / (peak efficiency), bytes / (bandwidth share) ||.

    The efficiency of a product of size s is rates.efficiency s / (s + rates.half).
    """
    arithmetic, moving = _limits(arrays, rates)
    return rates.launch * arrays[0] + (arithmetic**POWER + moving**POWER) ** (1 / POWER)


def _limits(arrays: tuple[np.ndarray, ...], rates: Rates) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds of each operation's arithmetic and of its bytes, each as if it were alone."""
    _, flops, weights, values, inverse = arrays
    return flops * (1 + rates.half * inverse) / rates.efficiency, weights / rates.memory + values / rates.cache


def _ms(arrays: tuple[np.ndarray, ...], rates: Rates) -> float:
    return float(_times(arrays, rates).sum())


# --- the fit ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One timing that a fit can learn from."""

    config: DiTConfig
    batch: int
    ms: float
    weights_sha256: str | None = None


def measured(reports: pd.DataFrame, card: Card, runtime: str, precision: str = "fp32") -> list[Measured]:
    """The timings of a store's reports on this card's device, mode and threads that can be trusted; scope core.

    Those whose times vary alone (report.Grade.unsteady) stand where there is no steady one of the network and batch;
    they widen the fit's intervals.
    """
    if reports.empty:
        return []
    sure, shaky = reports["grade"].isin(TRUSTED), reports.reindex(columns=["unsteady"])["unsteady"].eq(True)
    here = reports[reports["provenance"].isin(("measured", "imported")) & (sure | shaky)]
    for column, wanted in [("software.runtime", runtime), ("model.precision", precision), ("workload.scope", "core"),
                           ("workload.nfe", 1), ("state.threads", card.threads)]:  # fmt: skip
        if wanted is not None:
            here = here[here[column] == wanted] if column in here else here.iloc[:0]
    whose = here.reindex(columns=["device.name", "state.power_mode", "device.gpu"])
    here = here[np.array([card.is_of(*device) for device in whose.itertuples(index=False)], bool)]
    sure = here["grade"].isin(TRUSTED)
    alike = [here["model.weights_sha256"], here["workload.batch"]]
    here = here[sure | ~sure.groupby(alike, dropna=False).transform("any")]  # of some the weights are not known
    found = []
    for row in here.to_dict("records"):
        if (config := config_in(row.get("model.config"))) is not None:
            found.append(Measured(config, int(row["workload.batch"]), float(row["timing.p50"]),
                                  row["model.weights_sha256"]))  # fmt: skip
    return found


def fit(card: Card, timings: Sequence[Measured], *, runtime: str = "unknown", precision: str = "fp32") -> Card:
    """The card with the rates that meet these timings best, in relative error; its intervals hold nine of ten.

    That of fewer timings than `fitted` asks for is too narrow: the rates are taken for certain.
    Raises ValueError for no timings, or one that is not above 0 ms.
    """
    from scipy import stats

    if not timings:
        raise ValueError(f"nothing to fit: no timing of {runtime} {precision} on {card.title}")
    if wrong := [t.ms for t in timings if not 0 < t.ms < math.inf]:
        raise ValueError(f"a timing must be above 0 ms, got {wrong[0]}")
    arrays = [_arrays(card, work(t.config, t.batch, precision)) for t in timings]
    rates, residuals = _least_squares(arrays, np.log([t.ms for t in timings]))
    free = max(1, len(timings) - len(dataclasses.fields(Rates)))
    t = float(stats.t.ppf(0.95, free))
    spread = math.exp(max(t * math.sqrt(float(residuals @ residuals) / free), LEAST_SPREAD))
    return dataclasses.replace(card, tuned=Tuned(rates, spread, len(timings), runtime, precision))


def fitted(card: Card, reports: pd.DataFrame, *, runtime: str | None = None, precision: str = "fp32",
           but: DiTConfig | None = None) -> Card:  # fmt: skip
    """The card fitted on what was timed on its device, but for one shape; as it is where that is too little.

    Without a runtime on that of which most is known. Raises ValueError if there is too little of one that was named.
    """
    timed = {*reports.get("software.runtime", [])}
    if runtime and runtime not in timed | {*precisions.RUNTIMES}:
        raise ValueError(unknown("runtime", runtime, timed | {*precisions.RUNTIMES}))
    names = [runtime] if runtime else sorted(timed)
    known = {name: _some([t for t in measured(reports, card, name, precision) if t.config != but]) for name in names}
    best = max(known, key=lambda name: len(known[name]), default=None)
    shapes = len({t.config for t in known[best]}) if best else 0
    if best and len(known[best]) >= FEWEST_FITTED and shapes >= FEWEST_SHAPES:
        return fit(card, known[best], runtime=best, precision=precision)
    if runtime:
        found = "too little of other shapes" if known[runtime] else "no other shape"
        raise ValueError(f"{found} was timed with {runtime} {precision} on {card.title}: {len(known[runtime])} timings "
                         f"of {shapes} shapes, and a fit needs {FEWEST_FITTED} of {FEWEST_SHAPES}; without --runtime "
                         "the card alone is used")  # fmt: skip
    return card


def _some(timings: Sequence[Measured]) -> list[Measured]:
    """The median timing of every shape and batch, and of many shapes as many as a fit can take in a second."""
    found: dict[tuple[DiTConfig, int], list[Measured]] = {}
    for timing in timings:
        found.setdefault((timing.config, timing.batch), []).append(timing)
    medians = sorted((sorted(same, key=lambda t: t.ms)[len(same) // 2] for same in found.values()), key=lambda t: t.ms)
    places = np.linspace(0, len(medians) - 1, min(MOST_FITTED, len(medians))).round().astype(int)
    return [medians[k] for k in places]


def _least_squares(arrays: Sequence[tuple[np.ndarray, ...]], wanted: np.ndarray) -> tuple[Rates, np.ndarray]:
    """Rates and residuals: Levenberg-Marquardt on the logarithms, which keeps every rate above 0.

    A logarithm of times is a relative error, and the same for a student of 0.1 ms and one of 100.
    """
    from scipy.optimize import least_squares

    start = np.log(dataclasses.astuple(START))

    def residuals(x: np.ndarray) -> np.ndarray:
        rates = Rates(*np.exp(x))
        return np.concatenate([np.log([_ms(a, rates) for a in arrays]) - wanted, PRIOR * (x - start)])

    found = least_squares(residuals, start, method="lm")
    return Rates(*map(float, np.exp(found.x))), found.fun[: len(wanted)]


# --- as a report --------------------------------------------------------------------------------


def as_report(card: Card, config: DiTConfig, batch: int = 1, precision: str = "fp32", *,
              model: Mapping[str, JSON] | None = None) -> dict[str, JSON]:  # fmt: skip
    """The estimate as a device report; `model` has more of its model part, such as weights_sha256.

    The same estimate has the same report_id, so that keeping it twice is no change.
    """
    found, tuned = estimate(card, config, batch, precision), card.tuned
    basis = (f"fitted on {tuned.timings} timings of {tuned.runtime}" if tuned
             else "from its card alone, not fitted on any timing")  # fmt: skip
    known: dict[str, Any] = {"model_id": config.shape, "weights_sha256": None, "params": None}
    report = {
        "provenance": "estimated",
        "source": {"citation": f"roofline of {card.title}", "note": f"{basis}; the interval is its 5 % to 95 %" if tuned
                   else f"{basis}; the interval is a stated range of efficiencies"},
        "runner": {"name": "edge-dit-lab predict", "version": "1", "sha256": own_sha256(), "preset": "none"},
        "device": {"family": card.family, "name": card.name, "memory_mb": card.memory_mb},
        "software": {"os": "", "runtime": tuned.runtime if tuned else "unknown", "runtime_version": ""},
        "state": {"power_mode": card.mode, "clocks_locked": None, "swap_mb": None, "throttled": None,
                  "threads": card.threads},
        "model": known | {"config": config_to_json(config), "precision": precision} | dict(model or {}),
        "workload": {"scope": "core", "batch": batch, "nfe": 1, "height": config.image_size,
                     "width": config.image_size},
        "timing": {"unit": "ms", "clock": "unknown", "warmup_iters": None, "iters": None, "sessions": None,
                   "p50": found.p50, "p50_ci95": [found.low, found.high], "p90": None, "p99": None},
        "checks": {"output_ok": None},
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()[:24]
    return {"schema": SCHEMA, "report_id": f"estimate-{digest}", "created_utc": now()} | report


def config_in(plain: JSON) -> DiTConfig | None:
    """The one-step student that a report's model.config describes; None where it is another net, or no net at all."""
    try:
        config = config_from_json(plain) if isinstance(plain, dict) else None
    except ValueError:
        return None
    return config if config is not None and is_predictable(config) else None


def of_boards(reports: pd.DataFrame, boards: Iterable[tuple[str, object]]) -> pd.Series:
    """Which reports bear the name and mode of a card of the lab that is of one of these boards (name, power mode).

    A board calls itself otherwise than the card that its estimates are named after: `Card.names` knows how.
    """
    boards = list(boards)
    mine = {(card.name, card.mode) for card in _own_cards().values() if any(card.is_of_board(*b) for b in boards)}
    named = reports.reindex(columns=["device.name", "state.power_mode"]).itertuples(index=False)
    return pd.Series([(name, None if pd.isna(mode) else mode) in mine for name, mode in named], index=reports.index,
                     dtype=bool)  # fmt: skip


def model_of(run: Run) -> dict[str, JSON]:
    """A run's part of such a report, as far as it is finished."""
    student, cost = (found if isinstance(found := run.read(name), dict) else {} for name in ("student", "cost"))
    return {"model_id": run.id, "weights_sha256": student.get("weights_sha256"), "params": cost.get("params"),
            "macs": cost.get("macs"), "file_mb": student.get("file_mb")}  # fmt: skip


@functools.cache
def own_sha256() -> str:
    """Of this file: which model made an estimate."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def is_predictable(config: NetConfig) -> bool:
    """Whether a network has the deployed form that is predicted here, of a size that is gone through in no time."""
    if config.check() or why_not_plain(config):  # the first says of sizes that there are none to divide by
        return False
    return config.out_channels is None or config.out_channels > 0
