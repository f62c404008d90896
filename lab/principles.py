"""Depth, width and heads at a fixed size: their effects on distance and latency, and the best shape untried.

    rows = choose.candidates(at_images(store.table(), store, 800_000), store.reports(), Budget(method="plain"))
    distance = fit(rows, "fd")
    print(effects(distance), leave_one_out(distance), optimum(distance, 300_000).sentence)

y = log distance (or log latency), P parameters, L depth, D width, h heads; aspect is L / D:
    y = b0 + b1 log P + b2 log L/D + b3 (log L/D)^2 [+ b4 log P log L/D + b5 log h + b6 (log h)^2 + b7 log h log L/D
        + b8 unfinished] + shape + seed
Logs of P and L/D are centred, those of h are over the heads of most. Where shapes were trained with several seeds,
`shape` is a random effect and `seed` what seeds add (REML); else both are one residual, and it is said that the seeds'
spread is not measured. No torch here.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lab import counts
from lab.choose import COSTS, Budget, candidates, number, settle
from lab.config import JSON, DiTConfig, unknown
from lab.results import METRIC_NAMES, Run, Store, same_conditions

# Of a few sets of terms those that predict a shape that was left out best on the committed twelve, whose own errors of
# leaving one out are a little flattered by that.
DISTANCE = ("size", "aspect", "aspect^2")
LATENCY = ("size", "aspect", "size x aspect")
HEADS = ("heads", "heads^2", "heads x aspect")
LEVEL = 0.95
APART = 2.0  # of the difference of two trainings, within which shapes are not told apart
SPARE = 3  # shapes beyond the terms, below which an interval says nothing
FEW = 2  # shapes with other heads than most, below which their effect is not theirs
MANY = 6  # and from which it may bend, and differ with the aspect: more heads help a wide network more than a thin one
NEAR = 0.05  # shapes of one budget lie so near it: sweep.TOLERANCE either way
STEP = 1.25  # of a limit, for the marginal prices
MULTIPLE = 8  # of a suggested width, as in sweep.iso
PLAIN = re.compile(r"d\d+w\d+h\d+p\d+(m\d+)?")  # a DiT of plain blocks, as DiTConfig.shape names it
# What must be the same of all trainings; seeds may differ.
TRAINING = ("data", "classes", "method_short", "images", "teacher", "guide", "solver", "pairs", "patch", "batch",
            "optimizer", "lr", "betas", "warmup", "schedule", "clip", "ema", "dtype", "start", "num_classes",
            "net")  # fmt: skip
TIMING = ("device", "batch", "scope", "percentile")


# --- rows ---------------------------------------------------------------------------------------


def at_images(table: pd.DataFrame, store: Store, images: int) -> pd.DataFrame:
    """The runs of `Store.table()` as they were after so many images: finished there, or by a checkpoint on the way.

    Others are left out. `unfinished` is True for a checkpoint, whose rate had not yet fallen to zero; of its metrics
    only the Frechet distance is known.
    """
    rows = []
    for _, row in table.iterrows():
        if row["images"] == images:
            rows.append(row.to_dict() | {"unfinished": False})
        elif (found := _checkpoint(store, row["run"], images)) is not None:
            blank = {f"{m}{end}": math.nan for m in METRIC_NAMES for end in ("", "_low", "_high")}
            rows.append(row.to_dict() | blank | found | {"images": float(images), "unfinished": True})
    return pd.DataFrame(rows, columns=[*table.columns, "unfinished"])


def _checkpoint(store: Store, run: str, images: int) -> dict[str, JSON] | None:
    kept = (Run(store.root / "runs" / run).own_metrics() or {}).get("checkpoints", {})
    if (found := kept.get(str(images), {}).get("fd")) is None:
        return None
    low, high = found.get("ci95") or (math.nan, math.nan)
    return {"fd": found["value"], "fd_low": low, "fd_high": high, "fd_reference": found["reference"]}


def most_images(table: pd.DataFrame) -> int:
    """The number of images at which the most shapes are known, finished or on the way; of several the largest."""
    seen = [(int(n), row["shape"]) for _, row in table.iterrows() if not math.isnan(row["images"])
            for n in {row["images"], *(row["keep"] or ())}]  # fmt: skip
    if not seen:
        raise ValueError("no run says how many images it was trained on")
    counts = pd.DataFrame(seen).drop_duplicates()[0].value_counts()
    return int(max(counts[counts == counts.max()].index))


def alike(rows: pd.DataFrame, method: str = "plain") -> tuple[pd.DataFrame, list[str]]:
    """The one-step DiTs of plain blocks and one method that were trained as most of these were, and what was left out.

    Rows as of `choose.candidates`. Of settings in which trainings differ the most common one is kept (of several the
    one met first), one setting after the other.
    """
    kept = rows[rows["method_short"].eq(method) & _plain_blocks(rows) & ~rows["time"]]
    said = []
    for name in (n for n in TRAINING if _column(rows, n) in rows):
        values = kept[_column(rows, name)].map(str)
        if values.nunique() < 2:
            continue
        most = values.value_counts().index[0]
        others = kept[values != most]
        said.append(f"Left out: {len(others)} of another {name} than {most} ({', '.join(others['name'][:3])}).")
        kept = kept[values == most]
    if "unfinished" in kept:  # a checkpoint on the way is no second training of its seed
        trained = pd.Series([*zip(kept["shape"], kept["seed"])], index=kept.index, dtype=object)
        on_the_way = kept["unfinished"].astype(bool)
        kept = kept[~(on_the_way & trained.isin({*trained[~on_the_way]}))]
    return kept, said


def _plain_blocks(rows: pd.DataFrame) -> pd.Series:
    return pd.Series([PLAIN.fullmatch(shape) is not None for shape in rows["shape"]], index=rows.index, dtype=bool)


def _column(rows: pd.DataFrame, name: str) -> str:
    """`choose.with_latency` calls the batch of the training so; its `batch` is that of the timing."""
    return "train_batch" if name == "batch" and "train_batch" in rows else name


# --- the fit ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """What was fitted to the logarithm of a column, and how sure it is."""

    what: str
    terms: tuple[str, ...]  # the first is the constant
    rows: pd.DataFrame
    centre: tuple[float, float]  # mean log parameters, mean log aspect
    heads: float  # of most shapes
    b: np.ndarray
    cov: np.ndarray  # of b
    between: float  # variance of shapes about the fit; with seeds' own where those are not known
    within: float  # variance of seeds; nan where no shape has several
    notes: tuple[str, ...] = ()

    @property
    def dof(self) -> int:
        """Shapes beyond the terms: several seeds of one shape tell the terms no more than it does."""
        return self.rows["shape"].nunique() - len(self.terms)

    @property
    def t(self) -> float:
        from scipy import stats

        return float(stats.t.ppf((1 + LEVEL) / 2, self.dof))

    @property
    def seeds(self) -> str:
        """The seeds' spread in a sentence."""
        if math.isnan(self.within):
            return "The seeds' spread is not measured on its own: every shape has one training."
        several = self.rows.groupby("shape").size()
        return (f"Seeds spread by {math.sqrt(self.within):.1%} ({(several > 1).sum()} shapes with several trainings), "
                f"shapes about the fit by {math.sqrt(self.between):.1%}.")  # fmt: skip


def fit(rows: pd.DataFrame, what: str = "fd", *, terms: Sequence[str] | None = None, differ: Collection[str] = ()
        ) -> Fit:  # fmt: skip
    """Fit the logarithm of `fd`, another distance, or `latency_ms` over shapes; rows as of `alike`.

    `terms` beside the constant: some of size, aspect, aspect^2, size x aspect, heads, heads^2, heads x aspect,
    unfinished; by default DISTANCE or LATENCY, with those of heads and unfinished where the rows can tell their effect.
    `differ`: settings of TRAINING that may.
    Raises ValueError where rows can't be compared, or are too few.
    """
    known = ("size", "aspect", "aspect^2", "size x aspect", *HEADS, "unfinished")
    for name in terms or ():
        if name not in known:
            raise ValueError(unknown("term", name, known))
    own = rows["timed_as"].eq("") if what == "latency_ms" and "timed_as" in rows else True
    rows = rows[rows[what].gt(0) & own].reset_index(drop=True)  # what was lent says nothing that its owner doesn't
    if "unfinished" not in rows:
        rows = rows.assign(unfinished=False)
    _refuse_mixed(rows, what, differ)
    notes = []
    if terms is None:
        terms = (*(LATENCY if what == "latency_ms" else DISTANCE), *_told(rows, what, notes))
    names, shapes = ("constant", *terms), rows["shape"].nunique()
    if shapes < len(names) + SPARE:
        raise ValueError(f"{shapes} shapes with a {what} are too few to fit {len(names)} coefficients "
                         f"({', '.join(names)}); at least {len(names) + SPARE} are needed")  # fmt: skip
    heads = float(rows["heads"].mode().iloc[0])
    centre = (float(np.log(rows["params"]).mean()), float(np.log(rows["depth"] / rows["width"]).mean()))
    X = _matrix(rows, names, centre, heads)
    if np.linalg.matrix_rank(X) < len(names):
        raise ValueError(f"these {shapes} shapes differ too little to tell apart the effects of {', '.join(terms)}")
    found = _estimate(X, np.log(rows[what].to_numpy(float)), rows["shape"].to_numpy())
    return Fit(what, names, rows, centre, heads, *found, tuple(notes))


def _told(rows: pd.DataFrame, what: str, notes: list[str]) -> list[str]:
    """Which of heads and unfinished have an effect that these rows can tell; `notes` says why one that varies can't."""
    shapes, terms = rows.drop_duplicates("shape"), []
    odd = shapes[shapes["heads"] != shapes["heads"].mode().iloc[0]] if len(shapes) else shapes
    if len(odd) >= MANY and shapes["heads"].nunique() > 2 and what != "latency_ms":
        terms += HEADS
    elif len(odd) >= FEW:
        terms.append("heads")
    elif len(odd):
        notes.append(f"Heads are not held fixed: {odd['name'].iloc[0]} has {odd['heads'].iloc[0]:.0f}, the others "
                     f"{shapes['heads'].mode().iloc[0]:.0f}; one shape can't tell their effect.")  # fmt: skip
    if what == "latency_ms":
        return terms
    if rows["unfinished"].nunique() > 1:
        terms.append("unfinished")
    elif rows["unfinished"].any():
        notes.append("All are checkpoints on the way, at a rate that had not fallen yet; so are the predictions.")
    return terms


def _refuse_mixed(rows: pd.DataFrame, what: str, differ: Collection[str]) -> None:
    if rows.empty:
        raise ValueError(f"no shape has a {what}")
    timed = what == "latency_ms"
    for _, other in [] if timed else rows.iloc[1:].iterrows():
        if why := same_conditions(rows.iloc[0], other, what):
            raise ValueError(why)
    for name in TIMING if timed else TRAINING:
        column = name if timed else _column(rows, name)
        if column in rows and name not in differ and len(found := rows[column].map(str).unique()) > 1:
            raise ValueError(f"{what} of several {name} can't be fitted together: {', '.join(found[:3])}; choose one")
    twice = rows[rows.duplicated(["shape", "seed", "unfinished"])]
    if len(twice) and not timed:
        raise ValueError(f"{twice['name'].iloc[0]} of seed {twice['seed'].iloc[0]:.0f} is there twice; choose one of "
                         "the two, they are no two seeds")  # fmt: skip


def _matrix(rows: pd.DataFrame, terms: Sequence[str], centre: tuple[float, float], heads: float) -> np.ndarray:
    """(rows, terms)"""
    size = np.log(rows["params"].to_numpy(float)) - centre[0]
    aspect = np.log(rows["depth"].to_numpy(float) / rows["width"].to_numpy(float)) - centre[1]
    unfinished = rows["unfinished"].to_numpy(float) if "unfinished" in rows else np.zeros(len(rows))
    more = np.log(rows["heads"].to_numpy(float) / heads)
    columns = {"constant": np.ones(len(rows)), "size": size, "aspect": aspect, "aspect^2": aspect**2,
               "size x aspect": size * aspect, "heads": more, "heads^2": more**2, "heads x aspect": more * aspect,
               "unfinished": unfinished}  # fmt: skip
    return np.stack([columns[name] for name in terms], 1)


def _estimate(X: np.ndarray, y: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """b, its covariance, and the variances between shapes and within them, by restricted maximum likelihood.

    Within is nan where no shape has several rows: then it is ordinary least squares.
    """
    import statsmodels.api as sm
    from scipy.optimize import minimize_scalar

    same = (shapes[:, None] == shapes[None, :]).astype(float)
    if same.sum() == len(y):
        found = sm.OLS(y, X).fit()
        return found.params, found.cov_params(), float(found.scale), math.nan

    def criterion(log_ratio: float) -> float:  # -2 log restricted likelihood, the scale profiled out
        V = np.eye(len(y)) + math.exp(log_ratio) * same
        VX, Vy = np.linalg.solve(V, X), np.linalg.solve(V, y)
        information = X.T @ VX
        squares = y @ Vy - VX.T @ y @ np.linalg.solve(information, X.T @ Vy)
        return (len(y) - X.shape[1]) * math.log(squares) + sum(np.linalg.slogdet(m)[1] for m in (V, information))

    ratio = math.exp(minimize_scalar(criterion, bounds=(-12, 12), method="bounded").x)
    found = sm.GLS(y, X, sigma=np.eye(len(y)) + ratio * same).fit()
    return found.params, found.cov_params(), float(found.scale * ratio), float(found.scale)


# --- what it says -------------------------------------------------------------------------------


def effects(fit: Fit) -> pd.DataFrame:
    """What one change does at the middle of the shapes: factor on the quantity, its interval and p value."""
    from scipy import stats

    double = math.log(2)
    # P is about 18 L D^2: at a fixed size a depth x2 is a width / 1.41, so an aspect x2.83.
    bent = "heads^2" in fit.terms  # then the next doubling does not do what the last one did
    doublings = {f"heads x2 to {fit.heads:.0f}, same shape": {"heads": double, "heads^2": -(double**2)},
                 f"heads x2 to {2 * fit.heads:.0f}, same shape": {"heads": double, "heads^2": double**2}}  # fmt: skip
    changes = {"size x2, same depth/width": {"size": double},
               "depth x2, same size (width / 1.41)": {"aspect": 1.5 * double},
               "width x2, same size (depth / 4)": {"aspect": -3 * double},
               **(doublings if bent else {"heads x2, same shape": {"heads": double}}),
               "stopped on the way, not finished": {"unfinished": 1.0}}  # fmt: skip
    rows = []
    for change, steps in changes.items():
        if not set(steps) <= set(fit.terms):
            continue
        step = np.array([steps.get(name, 0.0) for name in fit.terms])
        gain, error = float(step @ fit.b), math.sqrt(step @ fit.cov @ step)
        low, high = gain - fit.t * error, gain + fit.t * error
        rows.append({"change": change, "factor": math.exp(gain), "low": math.exp(low), "high": math.exp(high),
                     "p": float(2 * stats.t.sf(abs(gain) / error, fit.dof))})  # fmt: skip
    return pd.DataFrame(rows)


def matters(fit: Fit, names: Collection[str]) -> float:
    """The p value that none of these terms has an effect: one F test of them together (Wald)."""
    from scipy import stats

    at = [k for k, name in enumerate(fit.terms) if name in names]
    b, cov = fit.b[at], fit.cov[np.ix_(at, at)]
    return float(stats.f.sf(b @ np.linalg.solve(cov, b) / len(at), len(at), fit.dof))


def predicted(fit: Fit, shapes: pd.DataFrame) -> pd.DataFrame:
    """`value` of shapes (depth, width, heads, params), with `low` and `high` for one training of each (one timing),
    `mean_low` and `mean_high` for the fitted curve, and `beyond`: why a shape lies outside of what was tried, or "".
    """
    X = _matrix(shapes, fit.terms, fit.centre, fit.heads)
    y, error = X @ fit.b, np.sqrt(np.einsum("ij,jk,ik->i", X, fit.cov, X))
    new = np.sqrt(error**2 + fit.between + (0.0 if math.isnan(fit.within) else fit.within))
    ends = {"low": y - fit.t * new, "high": y + fit.t * new,
            "mean_low": y - fit.t * error, "mean_high": y + fit.t * error}  # fmt: skip
    found = {"value": np.exp(y)} | {name: np.exp(end) for name, end in ends.items()}
    return pd.DataFrame(found | {"beyond": _beyond(fit, shapes, X)}, index=shapes.index)


def _beyond(fit: Fit, shapes: pd.DataFrame, X: np.ndarray) -> list[str]:
    """Outside the range of one quantity, or farther than any tried shape from all of them together (leverage)."""
    tried = _matrix(fit.rows, fit.terms, fit.centre, fit.heads)
    inverse = np.linalg.inv(tried.T @ tried)
    leverage, most = ((m @ inverse * m).sum(1) for m in (X, tried))
    ranges = {"parameters": lambda r: r["params"], "depth": lambda r: r["depth"], "depth/width": _aspect}
    said: list[list[str]] = [[] for _ in range(len(shapes))]
    for name, of in ranges.items():
        low, high = of(fit.rows).min(), of(fit.rows).max()
        for parts, value in zip(said, of(shapes).tolist()):
            if not low <= value <= high:
                parts.append(f"{name} {number(value)} is beyond {number(low)} to {number(high)}")
    for parts, heads in zip(said, shapes["heads"].tolist()):
        if heads not in set(fit.rows["heads"]):
            parts.append(f"nobody tried {heads:.0f} heads")
    for parts, value in zip(said, leverage):
        if not parts and value > most.max():
            parts.append("farther from all shapes tried than any of those")
    return ["; ".join(parts) for parts in said]


def _aspect(rows: pd.DataFrame) -> pd.Series:
    return rows["depth"] / rows["width"]


def leave_one_out(fit: Fit) -> pd.DataFrame:
    """Every shape predicted by a fit to all others: value (over its seeds), predicted, low, high, error (of the value)
    and whether the interval holds it. `root_mean_square` says one figure of it.
    """
    rows = []
    for shape, mine in fit.rows.groupby("shape", sort=False):
        rest = fit.rows[fit.rows["shape"] != shape]
        X, y = _matrix(rest, fit.terms, fit.centre, fit.heads), np.log(rest[fit.what].to_numpy(float))
        if np.linalg.matrix_rank(X) < len(fit.terms):
            raise ValueError(f"without {mine['name'].iloc[0]} the effects of {', '.join(fit.terms[1:])} can't be told "
                             "apart, so there is no error of leaving it out")  # fmt: skip
        b, cov, between, within = _estimate(X, y, rest["shape"].to_numpy())
        other = dataclasses.replace(fit, rows=rest, b=b, cov=cov, between=between, within=within)
        guess = predicted(other, mine.iloc[:1]).iloc[0]
        value = math.exp(np.log(mine[fit.what]).mean())
        rows.append({"name": mine["name"].iloc[0], "value": value, "predicted": guess["value"], "low": guess["low"],
                     "high": guess["high"], "error": guess["value"] / value - 1,
                     "held": guess["low"] <= value <= guess["high"], "beyond": guess["beyond"]})  # fmt: skip
    return pd.DataFrame(rows)


def root_mean_square(errors: pd.DataFrame) -> float:
    """The error of `leave_one_out` as a share of the value, from the logarithms' root mean square."""
    off = np.log(errors["predicted"] / errors["value"])
    return math.expm1(math.sqrt((off**2).mean()))


@dataclass(frozen=True)
class Optimum:
    """The best depth/width at a size, by the fit."""

    params: float
    aspect: float  # nan where the fit has no least value
    low: float  # 95 % by Fieller; 0 and inf where the curve is not surely bent
    high: float
    tried: tuple[float, float]  # aspects of the shapes of this size, nan for none
    best: str  # the shape of this size with the least value
    inside: bool  # shapes on both sides of the best one are worse
    bracketed: bool  # that, and the fitted one lies between tried shapes, too
    level: tuple[str, ...]  # the best shape and those that a training of other seeds may put before it, by aspect
    sentence: str


def optimum(fit: Fit, params: float) -> Optimum:
    """The depth/width of the least value at a size: where the slope is 0; its interval: where it may be."""
    b, s = dict(zip(fit.terms, fit.b)), math.log(params) - fit.centre[0]
    bend = b.get("aspect^2", 0.0)
    mid = -(b.get("aspect", 0.0) + b.get("size x aspect", 0.0) * s) / (2 * bend) if bend > 0 else math.nan
    low, high = _fieller(fit, s)
    aspect, low, high = (math.exp(min(end + fit.centre[1], 700)) for end in (mid, low, high))
    here = fit.rows[(np.log(fit.rows["params"] / params)).abs() <= math.log1p(NEAR)]
    # Of the heads that most have, and finished: the aspect alone is to be told.
    rest = [k for k, name in enumerate(fit.terms) if name in (*HEADS, "unfinished")]
    other = _matrix(here, fit.terms, fit.centre, fit.heads)[:, rest] @ fit.b[rest]
    here = here.assign(aspect=_aspect(here), log=np.log(here[fit.what]) - other)
    shapes = here.groupby(["depth", "width"]).agg(
        name=("name", "first"), aspect=("aspect", "first"), log=("log", "mean")
    )
    shapes = shapes.sort_values("aspect")
    ends = (shapes["aspect"].min(), shapes["aspect"].max())
    best = int(shapes["log"].argmin()) if len(shapes) else 0
    inside = 0 < best < len(shapes) - 1
    bracketed = inside and ends[0] < aspect < ends[1]
    name = str(shapes["name"].iloc[best]) if len(shapes) else ""
    apart = APART * math.sqrt(2 * fit.within) if fit.within > 0 else 0.0  # of two trainings
    level = tuple(shapes.loc[shapes["log"] <= shapes["log"].min() + apart, "name"])
    edge = "" if not len(shapes) else "thinnest" if best == len(shapes) - 1 else "widest" if best == 0 else ""
    return Optimum(params, aspect, low, high, ends, name, inside, bracketed, level,
                   _optimum_said(params, aspect, low, high, ends, name, edge, bracketed))  # fmt: skip


def _fieller(fit: Fit, s: float) -> tuple[float, float]:
    """Where the slope in aspect, (0, 1, 2 x, s) on the terms, is within its error of 0; all, where that is no interval.

    (u.b + x v.b)^2 <= t^2 (u + x v)' cov (u + x v), a quadratic in x.
    """
    u = np.array([{"aspect": 1.0, "size x aspect": s}.get(name, 0.0) for name in fit.terms])
    v = np.array([2.0 * (name == "aspect^2") for name in fit.terms])
    spread = fit.t**2 * fit.cov
    a, half, c = (p @ fit.b * (q @ fit.b) - p @ spread @ q for p, q in ((v, v), (u, v), (u, u)))
    inside = half**2 - a * c
    if a <= 0 or inside < 0:
        return -math.inf, math.inf
    return (-half - math.sqrt(inside)) / a, (-half + math.sqrt(inside)) / a


def _optimum_said(params: float, aspect: float, low: float, high: float, ends: tuple[float, float], best: str,
                  edge: str, bracketed: bool) -> str:  # fmt: skip
    size = f"At {number(params / 1e6)} M parameters "
    if math.isnan(aspect):
        said = size + "the fit has no best depth/width"
    else:
        width = (params / (18 * aspect)) ** (1 / 3)
        sure = f"{number(low)} to {number(high)}" if math.isfinite(high) and high < 1e6 else "it may be anywhere"
        said = size + (f"the fitted best depth/width is {number(aspect)} ({sure}), about {aspect * width:.0f} deep and "
                       f"{width:.0f} wide")  # fmt: skip
    if not best:
        return said + "; no shape of this size was tried."
    tried = f"{number(ends[0])} to {number(ends[1])} was tried"
    if bracketed:
        return said + f"; bracketed: {tried}, and {best} is better than its neighbours on both sides."
    why = f"{best}, the {edge} of them, is the best" if edge else (
        f"{best} is the best of them, with worse ones on both sides")  # fmt: skip
    return said + f"; not bracketed: {tried}, and {why}."


# --- a shape to try next ------------------------------------------------------------------------


def sizes(config: DiTConfig) -> dict[str, float]:
    """`params` as trained, and of the deployed form params_m, file_mb (without a file's header) and macs_m.

    Of a one-step DiT of plain blocks.
    """
    found = counts.of_dit(dataclasses.replace(config, time=False))
    deployed = found["params_deployed"] / 1e6
    return {"params": found["params"], "params_m": deployed, "file_mb": 2 * deployed,
            "macs_m": found["macs_deployed"] / 1e6}  # fmt: skip


def untried(rows: pd.DataFrame, base: DiTConfig) -> pd.DataFrame:
    """Shapes between those of `rows` that are not among them: every depth, widths by MULTIPLE, the MLP 4 wide, the
    heads of most; with `sizes` and `shape`.
    """
    heads = int(rows["heads"].mode().iloc[0])
    step, found = math.lcm(MULTIPLE, heads), []
    for depth in range(int(rows["depth"].min()), int(rows["depth"].max()) + 1):
        for width in range(step, int(rows["width"].max()) + 1, step):
            config = dataclasses.replace(base, depth=depth, width=width, heads=heads, mlp_hidden=None)
            found.append({"shape": config.shape, "name": f"{depth}x{width}", "depth": depth, "width": width,
                          "heads": heads} | sizes(config))  # fmt: skip
    tried = set(zip(rows["depth"], rows["width"], rows["heads"]))
    return pd.DataFrame([row for row in found if (row["depth"], row["width"], row["heads"]) not in tried])


@dataclass(frozen=True)
class Suggestion:
    """The untrained shape that should do best within a budget: an estimate, never a measurement."""

    pick: dict[str, JSON] | None
    images: int
    reason: str
    prices: pd.DataFrame = field(default_factory=pd.DataFrame)
    errors: dict[str, float] = field(default_factory=dict)  # of leaving one out, as shares
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole as plain lines, without the prices."""
        said = [f"Leaving one shape out, {what} is missed by {error:.1%}." for what, error in self.errors.items()]
        return "\n".join(["Estimated, not trained: " + self.reason, *said, *self.notes])

    def to_json(self) -> dict[str, JSON]:
        return {"estimated": True, "pick": self.pick, "images": self.images, "reason": self.reason,
                "prices": self.prices.to_dict("records"), "leave_one_out": self.errors,
                "notes": list(self.notes)}  # fmt: skip


def suggest(table: pd.DataFrame, reports: pd.DataFrame, store: Store, budget: Budget) -> Suggestion:
    """The best untrained shape within a budget, learnt from the students trained alike (of the budget's method, plain
    if it has none) at the number of images that most of them have.

    Raises ValueError where the students are too few or the budget asks for what is not predicted.
    """
    if budget.metric != "fd":
        raise ValueError(f"only fd is known of checkpoints and predicted, not {budget.metric}")
    method = budget.method or "plain"
    budget = dataclasses.replace(settle(table, reports, budget), method=method)
    of = table[table["method_short"].eq(method) & table["role"].eq("student")]
    if of.empty:
        raise ValueError(f"no student of {method} is trained")
    images = most_images(of)
    rows, left_out = alike(candidates(at_images(table, store, images), reports, budget), method)
    distance = fit(rows, "fd")
    time = _latency(rows, budget, notes := [])
    base = Run(store.root / "runs" / distance.rows["run"].iloc[0]).config
    shapes = _foreseen(untried(distance.rows, base), distance, time)
    limits = {name: limit for name, limit in budget.limits.items() if name in shapes}
    notes += [f"{COSTS[name].title} of an untrained shape is not predicted." for name in budget.limits.keys() - limits]
    fits = {"distance": distance} | ({"latency": time} if time else {})
    notes = [*distance.notes, *left_out, *notes, distance.seeds, _edges(distance, limits)]
    pick = _least(shapes, limits)
    return Suggestion(
        None if pick is None else {k: _plain(v) for k, v in pick.items()}, images,
        _reason(pick, shapes, distance, limits, images), _prices(pick, shapes, distance, limits),
        {what: root_mean_square(leave_one_out(found)) for what, found in fits.items()},
        tuple(note for note in notes if note),
    )  # fmt: skip


def _latency(rows: pd.DataFrame, budget: Budget, notes: list[str]) -> Fit | None:
    """The fit of the latency, None where the shapes timed are too few; that is an error where it is limited."""
    try:
        return fit(rows, "latency_ms")
    except ValueError as error:
        if budget.latency_ms is not None:
            raise
        notes.append(f"Latency is not predicted: {error}.")
        return None


def _foreseen(shapes: pd.DataFrame, distance: Fit, time: Fit | None) -> pd.DataFrame:
    """Untried shapes with fd and, where it can be told, latency_ms, each with its interval."""
    names = {"value": "fd", "low": "fd_low", "high": "fd_high"}
    shapes = shapes.join(predicted(distance, shapes)[[*names, "beyond"]].rename(columns=names))
    if time is None:
        return shapes
    names = {"value": "latency_ms", "low": "latency_low", "high": "latency_high"}
    guess = predicted(time, shapes)
    shapes = shapes.join(guess[[*names]].rename(columns=names))
    return shapes.assign(beyond=shapes["beyond"].where(shapes["beyond"] != "", guess["beyond"]))


def _least(shapes: pd.DataFrame, limits: dict[str, float]) -> pd.Series | None:
    """The shape of the least distance within limits, none beyond what was tried."""
    kept = shapes[shapes["beyond"] == ""]
    for name, limit in limits.items():
        kept = kept[kept[name] <= limit]
    return None if kept.empty else kept.loc[kept["fd"].idxmin()]


def _reason(pick: pd.Series | None, shapes: pd.DataFrame, distance: Fit, limits: dict[str, float], images: int) -> str:
    said = " and ".join(f"{limit:g} {COSTS[name].unit}" for name, limit in limits.items())
    within = f"within {said}" if said else "without a limit"
    if pick is None:
        return f"no shape {within} lies between those that were tried."
    costs = f"{number(pick['params_m'])} M parameters"
    if "latency_ms" in pick:
        costs += (f", {number(pick['latency_ms'])} ms ({number(pick['latency_low'])} to "
                  f"{number(pick['latency_high'])})")  # fmt: skip
    lines = [f"{pick['name']} with {pick['heads']} heads is the best of {(shapes['beyond'] == '').sum()} untrained "
             f"shapes {within}: FD {number(pick['fd'])} ({number(pick['fd_low'])} to {number(pick['fd_high'])}), "
             f"{costs}, after {images:,} images."]  # fmt: skip
    trained = distance.rows
    for name, limit in limits.items():
        trained = trained[trained[name] <= limit]
        if name == "latency_ms" and pick["latency_high"] > limit:
            lines.append(f"It may need more than {limit:g} ms.")
    if len(trained):
        lines.append(_against(pick, trained.loc[trained["fd"].idxmin()], distance))
    return " ".join(lines)


def _against(pick: pd.Series, best: pd.Series, distance: Fit) -> str:
    """The estimate beside the best student trained alike within the same limits."""
    said = f"The best trained alike, {best['name']}, has {number(best['fd'])}"
    if pick["fd_low"] <= best["fd"] <= pick["fd_high"]:
        return said + ", within that interval: training it may gain nothing."
    return said + (", more than that: it should be better." if best["fd"] > pick["fd_high"] else ", less: it is worse.")


def _edges(distance: Fit, limits: dict[str, float]) -> str:
    """Whether the best aspect is known at the largest size within the limit."""
    rows = distance.rows
    inside = rows[rows["params_m"] <= limits.get("params_m", math.inf)]
    return optimum(distance, float(inside["params"].max())).sentence if len(inside) else ""


def _prices(pick: pd.Series | None, shapes: pd.DataFrame, distance: Fit, limits: dict[str, float]) -> pd.DataFrame:
    """What a step more of each limit, or less than the pick needs, gives: the best untrained shape there, and its
    distance over the pick's.

    `low` and `high` are of the two fitted values' ratio; `gain_per_unit` is of the distance, below 0 what is lost.
    """
    rows = []
    for name, limit in limits.items() if pick is not None else ():
        need = float(pick[name])
        for change, start, to in (("raise", limit, limit * STEP), ("lower", need, need / STEP)):
            other = _least(shapes, limits | {name: to})
            if other is None:
                continue
            X = _matrix(pd.DataFrame([other, pick]), distance.terms, distance.centre, distance.heads)
            step = X[0] - X[1]
            mid, error = float(step @ distance.b), distance.t * math.sqrt(step @ distance.cov @ step)
            gain = float(pick["fd"] - other["fd"])
            rows.append({"change": change, "limit": name, "from": start, "to": to, "note": "estimated",
                         "name": other["name"], "value": float(other["fd"]), "gain": gain,
                         "gain_per_unit": gain / abs(to - start), "ratio": math.exp(mid),
                         "low": math.exp(mid - error), "high": math.exp(mid + error)})  # fmt: skip
    return pd.DataFrame(rows)


def _plain(value: object) -> JSON:
    return value.item() if isinstance(value, np.generic) else value
