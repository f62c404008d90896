"""The arms of a comparison: runs that differ by their method alone, and the verdict on each. No torch here.

    store = Store()
    print(verdicts(store.table(), calibration(store)))

An arm is a method with its options and guide on one shape, over the seeds it was trained with. Its twin is the plain
arm that shares the rest of the recipe; that of another family (GET) is a plain DiT of its size, each at a rate of its
own, and so is that of a shape that no plain run has, as a pruned network's: one of its depth and heads where there is
one, trained from nothing, while the images of the arm's start are not counted. A pair is one run of each of the same
seed, and where they go on from a run of the same one, at

    equal images      as many images seen
    wall-clock        as many seconds of training: updates times the seconds of one, which benchmarks/arms.py measured
                      of all arms in turns; within CLOSE
    with the guide    as that, with the seconds of the guide's answers on all pairs charged to the arm alone
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from lab.choose import complete
from lab.config import JSON, Recipe
from lab.results import OBJECTIVES, Store, columns_of, read_json, table_of
from lab.verdicts import ENOUGH, Verdict, compare, holm, spread

COMPUTE = ("equal images", "wall-clock", "with the guide")
CLOSE = 0.05  # of the seconds: two timings of one arm differ by 3 % and more, and 5 % more training brings 1 %
NEAR = 0.05  # of the parameters: networks of one size, as in principles
TIMES = (1e-6, 1e12)  # milliseconds, seconds and ratios beyond are of no clock, and their products of no float
UNTESTED = "not tested"
# What the recipes of an arm and its twin share, beside the start, the options of the objective and the shape.
ALIKE = ["data", "classes", "teacher", "solver", "sampler", "pairs", "batch", "optimizer", "lr", "betas", "warmup",
         "schedule", "clip", "ema", "dtype"]  # fmt: skip
SHAPE = ["family", "time", "patch", "depth", "width", "heads", "mlp_hidden", "num_classes"]
BY_METHOD = ("block", "adaln_norm")  # of a network, that a method may set, whose name tells it
# Of `arms`, what a pairing and its verdict need.
USED = ("run", "seed", "fd", "shape", "params", "images", "steps", "guide", "protocol", "method", "plain", "arm",
        "form", "alike", "fresh", "work", "anew", "begun", "family", "time", "depth", "width", "heads",
        "num_classes")  # fmt: skip
Clock = Mapping[tuple[str, str], tuple[float, float]]  # of `clock`
COLUMNS = ("method", "size", "shape", "params", "images", "compute", "twin", "update_ratio", "guide_seconds", "runs",
           "twin_runs", "why_not", *(f.name for f in dataclasses.fields(Verdict)))  # fmt: skip


def calibration(store: Store) -> JSON:
    """The rows of all that benchmarks/arms.py left in a results folder (arms*.json); None where it was not run."""
    found = [read_json(path) for path in sorted((store.root / "benchmarks").glob("arms*.json"))]
    found = [one for one in found if isinstance(one, dict) and isinstance(one.get("rows"), list)]
    rows = [row | {"threads": one.get("threads")} for one in found for row in one["rows"] if isinstance(row, dict)]
    return {"rows": rows} if found else None


def arms(table: pd.DataFrame, calibration: JSON = None) -> pd.DataFrame:
    """The students of `Store.table()` that were trained, with `method` (a name, and the options and guide that tell
    arms of one name apart), `alike` (equal where recipes differ by the method and the seed alone, those of the runs
    that they start from, too), `fresh` (`alike` of that recipe without a start), `work` and `anew` (those of any rate),
    `begun` (the runs that it starts from), `arm` and `plain`. With them the recipes whose updates were timed and which
    were not trained, which have no metric.
    """
    timed = [columns_of(recipe, recipe.student) | {"run": recipe.id, "role": "student"}
             for recipe in {one.id: one for one in _timed(calibration)}.values()  # several files may have timed it
             if recipe.id not in set(table["run"])]  # fmt: skip
    table = complete(table_of([*table.to_dict("records"), *timed]) if timed else table)
    rows = table[table["role"].eq("student") & ~table["hide"] & table["images"].gt(0)].copy()
    uses = [json.loads(text) if text else {} for text in rows["options"]]
    goal = [{name: use for name, use in one.items() if name in OBJECTIVES} for one in uses]
    starts, none = [*map(_starts, rows["start"])], [()] * len(rows)
    rows["begun"] = [" ".join(start) for start in starts]
    kind = _kinds(table)
    kinds = [[*map(kind, start)] for start in starts]
    unrated = [name for name in ALIKE if name != "lr"]
    for name, of, these in (("alike", ALIKE, kinds), ("fresh", ALIKE, none), ("work", unrated, kinds),
                            ("anew", unrated, none)):  # fmt: skip
        rows[name] = [json.dumps([*map(str, row), start, one], sort_keys=True)
                      for row, start, one in zip(rows[of].to_numpy(), these, goal)]  # fmt: skip
    label = dict(zip(table["run"], table["name"]))
    parts = [
        {f"{name}.{option}": value for name, use in one.items() if name not in OBJECTIVES
         for option, value in use.items()}
        | {"guide": label.get(guide.removeprefix("run:"), guide)}
        for one, guide in zip(uses, rows["guide"])
    ]  # fmt: skip
    # A start that was never measured is a stage of the same plan, whose methods come first.
    stages = table[table["fd"].isna() & table["method_short"].ne("plain")].set_index("run")["method_short"]
    taught = ["+".join([*(stages[run] for run in start[:1] if run in stages), methods])
              for start, methods in zip(starts, rows["method_short"])]  # fmt: skip
    names = [_name(*row) for row in zip(rows["family"], rows["shape"], taught)]
    rows["plain"] = [name == "plain" and not part["guide"] for name, part in zip(names, parts)]
    nets = [_apart_from_method(net, methods) for net, methods in zip(rows["net"], rows["method_short"])]
    rows["form"] = [" ".join(map(str, shape)) for shape in rows[SHAPE].to_numpy()]
    rows["arm"] = [json.dumps(named, sort_keys=True) for named in zip(names, rows["form"], nets, parts)]
    # What has a twin of another family has a rate of its own, and several rates were tried.
    told = [part if family == "dit" or math.isnan(lr) else part | {"rate": lr}
            for part, family, lr in zip(parts, rows["family"], rows["lr"])]  # fmt: skip
    rows["method"] = _apart(names, rows["time"], told, rows["fd"].fillna(math.inf))
    return rows


def _apart_from_method(net: str, methods: str) -> dict[str, JSON]:
    """What tells a network from others of its shape, but for what its methods made of it."""
    return {k: v for k, v in (json.loads(net) if net else {}).items() if methods == "plain" or k not in BY_METHOD}


def _starts(said: object) -> tuple[str, ...]:
    """The runs that a row starts from; a frame may have no value there."""
    return tuple(said) if isinstance(said, (list, tuple)) else ()


def _kinds(table: pd.DataFrame) -> Callable[[str], str]:
    """Of a run's id: its recipe but for the seed, and those of its starts, as a text; the id where it is not known."""
    rows, names = table.set_index("run"), [*ALIKE, *SHAPE, "net", "steps", "options", "guide"]

    @functools.cache
    def kind(run: str) -> str:
        if run not in rows.index:
            return run
        row = rows.loc[run]
        said = [*map(str, row[names]), *map(kind, _starts(row["start"]))]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    return kind


def _name(family: str, shape: str, methods: str) -> str:
    """Family or kind of block before the methods, where they are not a plain DiT's: `time blocks+manifold`."""
    parts = [] if methods == "plain" else methods.split("+")
    if family != "dit":
        parts.insert(0, "vit" if shape.startswith("vit") else family)
    elif (kind := re.sub(r".*p\d+(m\d+)?", "", shape)) and kind not in parts:
        parts.insert(0, f"{kind} blocks")
    return "+".join(parts) or "plain"


def _apart(names: Sequence[str], many: Sequence[bool], parts: Sequence[Mapping[str, JSON]], fd: Sequence[float]
           ) -> list[str]:  # fmt: skip
    """The names, with those options behind them in which an arm differs from the most common one of its name: of those
    of as many runs, the one of the least mean distance. Students of many steps (`many`) have their own.
    """
    rows = [*zip(zip(names, many), parts)]
    tried: dict[tuple[str, bool], dict[str, list[float]]] = {}  # the distances of each form, by its name
    for (kind, part), distance in zip(rows, fd):
        tried.setdefault(kind, {}).setdefault(json.dumps(part, sort_keys=True), []).append(distance)
    usual = {kind: json.loads(max(forms, key=lambda form: (len(forms[form]), -sum(forms[form]) / len(forms[form]))))
             for kind, forms in tried.items()}  # fmt: skip
    return [kind[0] + _differs(part, usual[kind]) for kind, part in rows]


def _differs(part: Mapping[str, JSON], usual: Mapping[str, JSON]) -> str:
    """The options that are not the usual ones, in brackets; "" for none."""
    said = [f"{option.rpartition('.')[2]} {_value(part.get(option))}" for option in sorted({*part, *usual})
            if part.get(option) != usual.get(option)]  # fmt: skip
    return f" ({', '.join(said)})" if said else ""


def _value(value: JSON) -> str:
    """An option as a name has it; one that came later is not in an older recipe, and means what it did then."""
    return "as ever" if value is None else f"{value:g}" if isinstance(value, float) else str(value) or "none"


def clock(rows: pd.DataFrame, calibration: JSON) -> Clock:
    """(arm, work) of rows as of `arms` -> milliseconds of an update, and seconds of the guide's answers.

    Milliseconds are those of the plain arm of the student times the ratio to it, which was taken within each round. A
    guide's seconds are brought to the same clock: its row may come from another day or machine than the plain one.
    What was timed by other threads than that is left out: threads help a large guide more than a small student.
    """
    by_run = rows.set_index("run")
    known = [(by_run.loc[row["run"]], row) for row in _rows(calibration) if row["run"] in by_run.index]
    students = [_student(row, one) for row, one in known]
    plain = {student: one for student, (_, one) in zip(students, known) if one["over_plain"] == 1}
    found = {}
    for student, (row, one) in zip(students, known):
        base = plain.get(student)
        if base is not None and base.get("threads") != one.get("threads"):
            continue
        ms = one["ms"] if base is None else base["ms"] * one["over_plain"]
        found[row["arm"], row["work"]] = ms, one["guide_seconds"] * ms / one["ms"]
    return found


def _student(row: pd.Series, one: Mapping[str, JSON]) -> str:
    """What the ratio of a calibration's row is taken to the plain arm of: the recipe's student, which a method may make
    another shape of; where the row tells no recipe, its run's shape.
    """
    told = one.get("recipe")
    return json.dumps(told["student"], sort_keys=True) if isinstance(told, dict) and "student" in told else row["shape"]


def _timed(calibration: JSON) -> list[Recipe]:
    """The recipes of a calibration's rows that are told whole."""
    found = []
    for row in _rows(calibration):
        if isinstance(row.get("recipe"), dict):
            with contextlib.suppress(ValueError):
                found.append(Recipe.from_json(json.dumps(row["recipe"])))
    return found


def _rows(calibration: JSON) -> list[dict[str, JSON]]:
    """The rows of a calibration that have what it takes."""
    rows = calibration.get("rows") if isinstance(calibration, dict) else None
    return [row for row in rows or () if _whole(row)]


def _whole(row: JSON) -> bool:
    """Whether a row of arms.json has what it takes: a run's id, times above 0, seconds of a guide or none."""
    if not isinstance(row, dict) or not isinstance(row.get("run"), str):
        return False
    lows = {"ms": TIMES[0], "over_plain": TIMES[0], "guide_seconds": 0}
    return all(type(row.get(name)) in (int, float) and low <= row[name] <= TIMES[1] for name, low in lows.items())


@dataclasses.dataclass
class Pairing:
    """Runs of an arm beside those of its twin; rows as of `arms`, both indexed by the same seeds."""

    mine: pd.DataFrame
    twin: pd.DataFrame
    rest: pd.DataFrame  # all of the twin's size, whose spread over seeds sets the margin

    def verdict(self, p_t: float | None = None) -> Verdict:
        """`p_t`: as of verdicts.compare. The margin is one for all of a size: the spread of the arm of the most seeds,
        of several the one of the fewest images, whatever a comparison is made at.
        """
        groups = [some for _, some in self.rest.groupby(["images", "arm"])]
        most = max(groups, key=len)
        return compare(self.mine["fd"].to_dict(), self.twin["fd"].to_dict(), cov=spread(most["fd"].tolist()), p_t=p_t,
                       trained=self._trained())  # fmt: skip

    def _trained(self) -> int:
        """How many trainings the pairs are of: seeds of a finish are one where all go on from one run."""
        begun = self.mine["begun"]
        return begun[begun != ""].nunique() + int((begun == "").sum())


def slim(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of `arms` that pairings need, texts as objects: every pairing copies them, and a hundred others."""
    kept = rows[[*USED]]
    return kept.astype(dict.fromkeys(kept.select_dtypes("str"), object))


def pairings(mine: pd.DataFrame, others: pd.DataFrame, compute: str, clock: Clock) -> list[Pairing]:
    """For each number of images that an arm was trained with, its pairs where it has any.

    mine: the measured runs of one arm; others: those it may be compared with. Of several other arms that of the most
    common seeds, of those the one of the least distance.
    """
    places: dict[str, list[int]] = {}  # of each other arm
    for place, arm in enumerate(others["arm"]):
        places.setdefault(arm, []).append(place)
    fresh = others[others["begun"].eq("")]
    rest = (others if fresh.empty else fresh).drop_duplicates(["arm", "images", "seed"])
    own, theirs, found = _runs(mine, compute, clock), _runs(others, compute, clock), []
    images = mine["images"].tolist()
    for count in sorted({*images}):
        some = [i for i, seen in enumerate(images) if seen == count]
        tried = [_matched([(i, *own[i]) for i in some], [(j, *theirs[j]) for j in arm], compute)
                 for arm in places.values()]  # fmt: skip
        tried = [pairs for pairs in tried if pairs]
        if tried:
            best = max(tried, key=lambda pairs: (len(pairs), -others["fd"].iloc[[j for _, j in pairs.values()]].mean()))
            a, b = (rows.iloc[[*places]].set_axis([*best])
                    for rows, places in zip((mine, others), zip(*best.values())))  # fmt: skip
            found.append(Pairing(a, b, rest))
    return found


def _matched(mine: Sequence[tuple[int, float, str, float]], theirs: Sequence[tuple[int, float, str, float]],
             compute: str) -> dict[int, tuple[int, int]]:  # fmt: skip
    """The pairs of two arms: seed -> the places of both runs; of a run: its place, and what `_runs` tells."""
    near = math.log1p(CLOSE) if compute != COMPUTE[0] else 1e-9
    pairs: dict[int, tuple[float, int, int]] = {}
    for i, seed, begun, x in mine:
        for j, other, its, y in theirs:
            same = seed == other and its in (begun, "")
            off = abs(math.log(x / y)) if same else math.inf  # nan where one is not calibrated
            if off <= near and off < pairs.get(int(seed), (math.inf, 0, 0))[0]:
                pairs[int(seed)] = (off, i, j)
    return {seed: pairs[seed][1:] for seed in sorted(pairs)}


def _runs(rows: pd.DataFrame, compute: str, clock: Clock) -> list[tuple[float, str, float]]:
    """Seed, start and `_compute` of each run."""
    return [*zip(rows["seed"].tolist(), rows["begun"].tolist(), _compute(rows, compute, clock))]


def _compute(rows: pd.DataFrame, compute: str, clock: Clock) -> list[float]:
    """Images, or seconds, of each run; nan where its arm's are not calibrated."""
    if compute == COMPUTE[0]:
        return rows["images"].tolist()
    timed = [clock.get(key, (math.nan, math.nan)) for key in zip(rows["arm"], rows["work"])]
    charged = compute == COMPUTE[2]
    return [steps * ms / 1000 + guide * charged for steps, (ms, guide) in zip(rows["steps"], timed)]


def twins_of(mine: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The plain runs, of rows that are measured alike, that an arm may be held against."""
    plain, one = rows[rows["plain"]], mine.iloc[0]
    same = plain["form"].eq(one["form"])
    if one["family"] == "dit" and same.any():
        return plain[same & plain["alike"].eq(one["alike"])]
    near = (
        plain["time"].eq(one["time"])
        & plain["num_classes"].map(str).eq(str(one["num_classes"]))
        & (plain["params"] / one["params"] - 1).abs().le(NEAR)
    )
    key = ("alike", "fresh") if one["family"] == "dit" else ("work", "anew")
    near = plain[near & plain[key[0]].eq(one[key[1]])]
    as_deep = near[near["depth"].eq(one["depth"]) & near["heads"].eq(one["heads"])]
    return near if as_deep.empty or one["family"] != "dit" else as_deep


def verdicts(table: pd.DataFrame, calibration: JSON = None) -> pd.DataFrame:
    """A row for each arm that is not plain, and each of COMPUTE: the ratio of its distance to its twin's (below 1 is
    better) with what verdicts.Verdict has of it; where there is no pair, word is UNTESTED and `why_not` says why.

    update_ratio: seconds of an update over the twin's, as calibrated; guide_seconds likewise; runs and twin_runs: ids,
    by seed. p_t is corrected by Holm over the arms of one shape and compute that have ENOUGH seeds.
    """
    rows = arms(table, calibration)
    seconds, found = clock(rows, calibration), []
    rows = slim(rows)
    for _, measured in rows[rows["protocol"] != ""].groupby("protocol", sort=False):
        for _, mine in measured[~measured["plain"]].groupby(["alike", "arm"], sort=False):
            others = twins_of(mine, measured)
            for compute in COMPUTE if mine["guide"].iloc[0] else COMPUTE[:2]:
                pairs = pairings(mine, others, compute, seconds)
                found += [(_row(pair.mine, compute, pair, seconds), pair) for pair in pairs]
                if not pairs:
                    why = _why_not(mine, others, compute, seconds)
                    found.append((_row(mine, compute, None, seconds) | {"why_not": why}, None))
    _correct(found)
    return pd.DataFrame([row for row, _ in found], columns=COLUMNS)


def _correct(found: list[tuple[dict[str, object], Pairing | None]]) -> None:
    """Holm over the arms of one shape and compute, of those whose seeds are enough for a verdict."""
    together: dict[tuple[object, ...], dict[str, float]] = {}
    for i, (row, _) in enumerate(found):
        if row["seeds"] >= ENOUGH:
            together.setdefault((row["shape"], row["compute"]), {})[str(i)] = row["p_t"]
    for p_values in together.values():
        for i, p in holm(p_values).items():
            row, pair = found[int(i)]
            row |= dataclasses.asdict(pair.verdict(p))


def _row(mine: pd.DataFrame, compute: str, pair: Pairing | None, clock: Clock) -> dict[str, object]:
    one = mine.iloc[0]
    ms, guide = clock.get((one["arm"], one["work"]), (math.nan, math.nan))
    row = {name: one[name] for name in ("method", "shape", "params", "images")}
    row |= {"size": _size(one), "compute": compute, "guide_seconds": guide, "runs": (), "twin_runs": ()}
    if pair is None:
        return row | {"twin": "", "word": UNTESTED, "seeds": 0}
    other = pair.twin.iloc[0]
    theirs, _ = clock.get((other["arm"], other["work"]), (math.nan, math.nan))
    return row | dataclasses.asdict(pair.verdict()) | {
        "twin": f"{_size(other)} {other['method']}", "update_ratio": ms / theirs, "why_not": "",
        "runs": tuple(pair.mine["run"]), "twin_runs": tuple(pair.twin["run"]),
    }  # fmt: skip


def _size(row: pd.Series) -> str:
    return f"{row['depth']:.0f}x{row['width']:.0f}"


def _why_not(mine: pd.DataFrame, others: pd.DataFrame, compute: str, clock: Clock) -> str:
    if others.empty:
        return f"no plain DiT of this recipe and start, nor of another shape within {NEAR:.0%} of its parameters"
    if compute == COMPUTE[0]:
        return "no plain run of as many images and the same seed"
    for rows, whose in ((mine, "its"), (others, "its twin's")):
        if not {*zip(rows["arm"], rows["work"])} & clock.keys():
            return f"{whose} updates are not timed beside others (benchmarks/arms.py)"
    return f"no plain run within {CLOSE:.0%} of its seconds and of the same seed"
