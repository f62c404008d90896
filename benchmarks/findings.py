"""What results/ say: a sentence for each finding in the README, its tables in results/FINDINGS.md.

    python benchmarks/findings.py            # what they say now
    python benchmarks/findings.py --write    # put it into README.md and results/FINDINGS.md

Every figure there is one that a file of results/ holds; a finding whose file is not there yet is left out. A new one is
a function in SENTENCES or in TABLES. tests/test_repository.py holds both files to this.
"""

from __future__ import annotations

import argparse
import functools
import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from lab import arms, choose, claims, principles
from lab.choose import Budget
from lab.claims import paper
from lab.claims.evidence import within as spread_said
from lab.results import Store, read_json
from lab.verdicts import ENOUGH

ROOT = Path(__file__).parents[1]
COMMAND = "python benchmarks/findings.py --write"
BEGIN, END = f"<!-- findings: {COMMAND} -->", "<!-- /findings -->"

SAME = 0.02  # of a ratio by the second extractor of one seed, which confirms nothing

# --- the README's sentences: each with a link to its table, "" where the results do not say it ---


def deep_and_thin(store: Store) -> str:
    found, _ = shapes(store)
    if found.empty or not deepest_best(found):
        return ""
    found = found.assign(unsteady=found["unsteady"].eq(True))
    groups = [group for _, group in found.groupby("size")]
    one = groups[len(groups) // 2]
    deep, wide = one.loc[one["depth"].idxmax()], one.loc[one["depth"].idxmin()]
    timed = found["latency_ms"].notna().all()
    said = [f"{_blocks(row)} reach distance {row['fd']:.2f}"
            + f" in {row['latency_ms']:.2f} ms{' (unsteady)' * int(row['unsteady'])}" * int(timed)
            for row in (deep, wide)]  # fmt: skip
    return (f"**Deep and thin beats shallow and wide**: of {deep['size']:.1f} M trained parameters, {', '.join(said)} "
            f"({_link('all shapes', 'Shapes')}).")  # fmt: skip


def too_deep(store: Store) -> str:
    """Where deeper is no longer better: of every size the shapes that seeds don't tell from the best measured."""
    fit, best = depths(store)
    if not any(one.inside for one in best.values()):
        return ""
    said = [f"of {size:.1f} M {_size(one.best)} is the best measured"
            + ", at the edge of those tried" * (not one.inside)
            + f", and {_size(one.level[0])} to {_size(one.level[-1])} are not told apart" * (len(one.level) > 1)
            for size, one in best.items()]  # fmt: skip
    seeds = "" if math.isnan(fit.within) else f"Seeds of one shape spread by {math.sqrt(fit.within):.1%}. "
    one = next((one for one in best.values() if one.bracketed and math.isfinite(one.high)), None)
    fitted = "" if one is None else (f"A fit to all sizes together has its best at a depth/width of {one.aspect:.2f} "
                                     f"({one.low:.2f} to {one.high:.2f}) ")  # fmt: skip
    return (f"**Depth stops paying**: after {fit.rows['images'].iloc[0]:,.0f} images, at an equal number of heads, "
            f"{'; '.join(said)}. {seeds}{fitted}({_link('every shape', 'Depth')}).")  # fmt: skip


def lost_and_gained(store: Store) -> str:
    found, teacher = shapes(store)
    if found.empty or found["latency_ms"].isna().any():
        return ""
    best, fastest = found.loc[found["fd"].idxmin()], found.loc[found["latency_ms"].idxmin()]
    said = [f"{_blocks(row)} are {row['speed_up']:,.0f} times as fast as their teacher at "
            f"{row['fd'] / teacher['fd']:.1f} times its distance" for row in (best, fastest)]  # fmt: skip
    return f"**A student pays for speed with distance**: {', '.join(said)} ({_link('all students', 'Shapes')})."


def precisions(store: Store) -> str:
    found = next((one for one in machines(store) if one["summary"]["distance"]), None)
    if not found:
        return ""
    forms = {one["form"]: one for one in found["summary"]["distance"]}
    kept = [form for form, one in forms.items() if one["within"] == one["students"]]
    worst = max(forms, key=lambda form: forms[form]["worst_ratio"])
    if not kept or "w4" not in worst:
        return ""
    int8 = max(one["worst_ratio"] for form, one in forms.items() if "int8" in form)
    return (f"**Half the bits change nothing, an eighth ruins it**: {_and(kept)} leaves the distance of each of "
            f"{forms[worst]['students']} students within 2%, int8 adds {int8 - 1:.1%} at most, {worst} makes it up to "
            f"{forms[worst]['worst_ratio']:.1f} times as large ({_link('every form', 'Precisions')}).")  # fmt: skip


def finish(store: Store) -> str:
    """What drifting brings to finished students, beside as many more images of the pairs alone."""
    table, found = store.table(), verdicts(store)
    found = found[found["method"].eq("drifting") & found["compute"].eq(arms.COMPUTE[0]) & found["seeds"].gt(0)
                  & found["twin"].str.endswith("plain")]  # fmt: skip
    surest = found.assign(sure=found["word"].eq("helps")).sort_values(["sure", "seeds"], ascending=False, kind="stable")
    found = surest.drop_duplicates("size")  # of two kinds of start at a size
    recall = table.set_index("run")["recall"]
    more = [recall[mine] - recall[twin] for row in found.itertuples() for mine, twin in zip(row.runs, row.twin_runs)]
    if found.empty or found["ratio"].max() >= 1 or min(more) <= 0:
        return ""
    said = [f"{row['ratio']:.2f} at {row['size']}{spread_said(row)}" for row in found.to_dict("records")]
    second = {row.size: statistics.geometric_mean(pairs) for row in found.itertuples()
              if (pairs := by_second(store, row.runs, row.twin_runs))}  # fmt: skip
    kept = [size for size, ratio in second.items() if ratio < 1 - SAME]
    seen = (f"; a second extractor sees {_and([f'{ratio:.2f} at {size}' for size, ratio in second.items()])}"
            + f", so it confirms {_and(kept)} alone" * (0 < len(kept) < len(second))) * bool(second)  # fmt: skip
    return (f"**A loss between distributions sharpens a finished student**: of the distance that "
            f"{found['images'].iloc[0]:,.0f} more images of plain training reach, as many with drifting have "
            f"{_and(said)}; they draw more variety (recall rises by {_between(more, '.2f')}){seen} "
            f"({_link('every method', 'Methods')}).")  # fmt: skip


def guidance(store: Store) -> str:
    """What the paper's methods bring in plain training's time, beside what a seed alone changes."""
    table, tried = store.table(), verdicts(store)
    tried = tried[tried["method"].str.match("teaching_assistant|multi_in_one")]
    found = tried[tried["compute"].eq(arms.COMPUTE[1]) & tried["seeds"].ge(ENOUGH)].sort_values(["size", "ratio"])
    plain = arms.arms(table)
    plain = plain[plain["plain"] & plain["fd"].notna()].groupby(["arm", "alike", "images"])["fd"]
    apart = (plain.max() / plain.min() - 1).max()
    if found.empty or not apart > 0:
        return ""
    best = found.iloc[0]
    charged = tried[tried["compute"].eq(arms.COMPUTE[2]) & tried["seeds"].gt(1) & tried["method"].eq(best["method"])
                    & tried["size"].eq(best["size"]) & tried["images"].eq(best["images"])]  # fmt: skip
    words = {"helps": "helps a small student a little", "hurts": "hurts a small student"}
    whole = "".join(f" With the time of the assistant's answers charged, the first has {row['ratio']:.2f} of it"
                    f"{spread_said(row)}."
                    for _, row in charged.iterrows())  # fmt: skip
    by_run, one = table.set_index("run"), best["runs"][0]
    work, own = by_run["images"] * by_run["macs"], by_run["guide"][one].removeprefix("run:")
    if own in work:
        whole += (f" The assistant's own training took {work[own] / work[one]:.0f} times the student's multiply-adds, "
                  "and is charged nowhere.")  # fmt: skip
    said = "; ".join(
        f"at {row['size']} `{row['method']}` has {row['ratio']:.2f} of its distance ({row['low']:.2f} to "
        f"{row['high']:.2f}, {row['seeds']} seeds: {row['word']})"
        for _, row in found.iterrows()
    )
    title = words.get(best["word"], "decides little")
    return (f"**A larger DiT as teaching assistant {title}**: in plain training's time, the assistant's own left out, "
            f"{said}.{whole} Two seeds of plain training alone are up to {apart:.0%} apart "
            f"({_link('every method', 'Methods')}).")  # fmt: skip


def baseline(store: Store) -> str:
    """A plain DiT beside the GET of its size, in equal time and after as many images."""
    cells, table = paper.over_get(evidence(store)), store.table().set_index("run")
    cells = cells[cells["method"].eq("plain")]
    timed = cells[cells["compute"].eq(arms.COMPUTE[2])].sort_values("seeds", ascending=False, kind="stable")
    if timed.empty:
        return ""
    best = timed.iloc[0]
    shape = cells["runs"].map(lambda runs: table.loc[runs[0], "shape"])
    alike = cells[cells["compute"].eq(arms.COMPUTE[0]) & shape.eq(shape[best.name])].nlargest(1, "images")
    one, seen = table.loc[best["runs"][0]], table.loc[best["twin_runs"][0], "images"]
    short = f"{one['depth']:.0f}x{one['width']:.0f}"
    title = "is nearer than GET" if best["ratio"] < 1 else "is no nearer than GET"
    after = "".join(f"; after {row['images']:,.0f} images each {row['ratio']:.2f}{spread_said(row)}"
                    for _, row in alike.iterrows())  # fmt: skip
    return (f"**In equal time a plain DiT {title}, the paper's baseline as we read it**: at {best['size']} "
            f"{short} has {best['ratio']:.2f} of its distance{spread_said(best)}, for "
            f"{best['images']:,.0f} images to {seen:,.0f}{after} ({_link('every method', 'Methods')}).")  # fmt: skip


def neighbours(store: Store) -> str:
    """The ideas of the neighbouring papers, each beside plain training of as many images."""
    found = verdicts(store)
    others = found["method"].str.match(r"teaching_assistant|multi_in_one|get|dmd|.*drifting|.*\(")
    found = found[~others & found["compute"].eq(arms.COMPUTE[0]) & found["seeds"].gt(0)]
    if found.empty:
        return ""
    sure = found[found["word"].eq("helps")]["method"].unique()
    found = found.assign(best=found.groupby("method")["ratio"].transform("min")).sort_values(["best", "params"])
    said = "; ".join(
        f"`{method}` has "
        + _and([f"{row['ratio']:.2f} at {row['size']}{spread_said(row)}" for _, row in mine.iterrows()])
        for method, mine in found.groupby("method", sort=False)
    )
    return (f"**Of the neighbouring papers' ideas, six seeds speak for {_and(list(sure) or ['none'])}**: of plain "
            f"training's distance after as many images, {said} ({_link('every method', 'Methods')}).")  # fmt: skip


SENTENCES: Sequence[Callable[[Store], str]] = (
    deep_and_thin, too_deep, lost_and_gained, precisions, finish, guidance, baseline, neighbours,
)  # fmt: skip

# --- what the results hold, for sentences and tables ---


def evidence(store: Store) -> claims.Evidence:
    """What claims are judged by, read once."""
    return _evidence(store.root, store.stamp())


@functools.lru_cache(maxsize=1)
def _evidence(root: Path, stamp: int) -> claims.Evidence:
    return claims.Evidence(Store(root))


def verdicts(store: Store) -> pd.DataFrame:
    """The verdict on each arm, worked out once."""
    return evidence(store).verdicts


def shapes(store: Store) -> tuple[pd.DataFrame, pd.Series]:
    """The students that differ in shape alone (method pairs, as many images), smallest first, and their teacher."""
    table = choose.complete(store.table())
    found = choose.candidates(table, store.reports(), Budget())
    if found.empty:
        return found, pd.Series(dtype=float)
    found = found[found["method"] == "pairs"]
    found = found[found["images"] == found["images"].max()]
    teacher = table[table["role"] == "teacher"].iloc[0]
    return found.assign(size=found["params_trained_m"].round(1)).sort_values(["size", "depth"]), teacher


def depths(store: Store) -> tuple[principles.Fit | None, dict[float, principles.Optimum]]:
    """What is fitted to plain shapes at the images that most have seen, and the best depth/width of every size."""
    fit, _ = paper.fitted(evidence(store))
    return fit, paper.optima(fit) if fit else {}


def deepest_best(found: pd.DataFrame) -> bool:
    """Whether of each size the deepest student is the nearest to the real images."""
    return all(one.loc[one["depth"].idxmax(), "fd"] == one["fd"].min() for _, one in found.groupby("size"))


def scales(store: Store) -> list[tuple[dict, dict]]:
    """For each student whose noise was scaled: its row as it is, and that of the least distance."""
    rows = (read_json(store.root / "benchmarks" / "noise_scale.json") or {}).get("rows", [])
    by_run: dict[str, list[dict]] = {}
    for row in rows:
        by_run.setdefault(row["run"], []).append(row)
    return [(next(row for row in mine if row["scale"] == 1), min(mine, key=lambda row: row["fd"]))
            for mine in by_run.values()]  # fmt: skip


def by_second(store: Store, runs: Sequence[str], twins: Sequence[str]) -> list[float]:
    """The ratios of distances by the second extractor, of the pairs that it measured."""
    pairs = [[_second(store, run) for run in pair] for pair in zip(runs, twins)]
    return [mine / theirs for mine, theirs in pairs if mine and theirs]


def _second(store: Store, run: str) -> float | None:
    """A run's distance by the second extractor."""
    found = [read_json(path) for path in (store.root / "runs" / run).glob("metrics-*.json")]
    return found[0]["values"]["fd"]["value"] if found else None


def machines(store: Store) -> list[dict]:
    """All machines that were measured: latency.json of the last one, latency-<which>.json of others."""
    paths = sorted((store.root / "benchmarks").glob("latency*.json"))
    return [found for path in paths if (found := read_json(path))]


# --- the tables of results/FINDINGS.md: a heading first, nothing where their file is not there ---


def deep(store: Store) -> list[str]:
    """A line for each size: its shapes from shallow to deep, and where the best one lies by the fit."""
    fit, best = depths(store)
    if fit is None:
        return []
    rows, sizes = [], paper.budgets(fit.rows)
    for size, one in best.items():
        shapes = fit.rows[sizes.eq(size)].groupby(["depth", "width", "heads"])["fd"].agg(["mean", "size"])
        said = [f"{depth:.0f}x{width:.0f} {mean:.2f}" + f" of {heads:.0f} heads" * (heads != fit.heads)
                + f" ({count} trainings)" * (count > 1)
                for (depth, width, heads), mean, count in shapes.itertuples(name=None)]  # fmt: skip
        sure = f" ({one.low:.2f} to {one.high:.2f})" if math.isfinite(one.high) else ""
        fitted = f"{one.aspect:.2f}{sure}" if one.bracketed else "not between those"
        rows.append([f"{size:.1f}", "; ".join(said), fitted, "yes" if one.inside else "no"])
    what = (
        f"Plain students after {fit.rows['images'].iloc[0]:,.0f} images, of {fit.heads:.0f} heads where no other "
        "number is said, and the depth/width of the least distance by a fit to all of them, at an equal number of "
        "heads. (`python -m lab sweep recipes/sweeps/design-space.json`, `python -m lab claims depth-width`)"
    )
    head = ["trained, M", "distances, from shallow to deep", "best depth/width (95 %)", "worse on both sides"]
    return ["## Depth", "", what, "", *markdown(head, rows)]


def students(store: Store) -> list[str]:
    """A line for each student that can be compared, smallest first."""
    found, teacher = shapes(store)
    if found.empty:
        return []
    timed = found["latency_ms"].notna().all()
    rows = []
    for row in found.to_dict("records"):
        rows.append([f"{row['depth']:.0f} x {row['width']:.0f}", f"{row['params_train'] / 1e6:.2f}",
                     f"{row['params_deployed'] / 1e6:.2f}",
                     f"{row['fd']:.2f} ({row['fd_low']:.2f} to {row['fd_high']:.2f})",
                     f"{row['fd'] / teacher['fd']:.1f}"])  # fmt: skip
        if timed:
            rows[-1] += [f"{row['latency_ms']:.2f} by {row['runtime']}", f"{row['speed_up']:,.0f}"]
    head = ["depth x width", "trained, M", "deployed, M", "distance to real images (95 %)", "over the teacher's"]
    head += ["one image, ms", "times as fast as the teacher"] if timed else []
    commands = ["benchmarks/students.py"] + (["benchmarks/measure.py"] if timed else [])
    what = [
        "Deep and thin beats shallow and wide:" * deepest_best(found),
        f"{len(rows)} students on Fashion-MNIST, each trained on {found['images'].iloc[0]:,.0f} images of the same",
        f"pairs. Their teacher, a U-Net of {teacher['params'] / 1e6:.1f} M that is evaluated",
        f"{teacher['evaluations']:.0f} times an image, has {teacher['fd']:.3f}.",
        f"Distances are Fréchet distances of {teacher['samples']:,.0f} samples through",
        f"the classifier in lab/assets. ({', '.join(f'`python {command}`' for command in commands)})",
    ]
    if timed:
        one, shaky = found.iloc[0], int(found["unsteady"].eq(True).sum())
        what.append(
            f"Times: {one['device']}, {choose.threads_said(one['threads'])}, medians of whole networks as they "
            f"are deployed; {shaky} of the {len(found)} vary by more than a tenth from call to call (grade D)."
        )
    return ["## Shapes", "", " ".join(filter(None, what)), "", *markdown(head, rows)]


def methods(store: Store) -> list[str]:
    """A line for each method that was paired with plain, and each way in which their compute was equal."""
    found, rows = verdicts(store), []
    for row in found[found["word"] != arms.UNTESTED].to_dict("records"):
        within = f" ({row['low']:.2f} to {row['high']:.2f})" if row["seeds"] > 1 else ""
        timed = [f"{row[name]:{form}}" if pd.notna(row[name]) else "not timed"
                 for name, form in (("update_ratio", ".2f"), ("guide_seconds", ".0f"))]  # fmt: skip
        second = by_second(store, row["runs"], row["twin_runs"])
        seen = "not measured" if not second else f"{statistics.geometric_mean(second):.2f}" + (
            f" (of {len(second)})" * (len(second) < row["seeds"]))  # fmt: skip
        of = f" of {row['trained']:.0f} training" * (row["trained"] < row["seeds"])
        rows.append([f"{row['size']} {row['method']}", row["twin"], f"{row['images']:,.0f}", row["compute"],
                     f"{row['ratio']:.2f}{within}", seen, f"{row['seeds']}{of}", row["word"], *timed])  # fmt: skip
    if not rows:
        return []
    head = ["student", "beside", "images", "at", "distance over its (95 %)", "by the second extractor", "seeds",
            "verdict", "update over its", "guide, s"]  # fmt: skip
    return ["## Methods", "", "Students beside the plain ones that share the rest of their recipe, paired by seed. "
            f"{claims.RULE} Updates are timed in turns (`benchmarks/arms.py`); "
            f"equal wall-clock is within {arms.CLOSE:.0%}. (`python -m lab verdicts`)", "",
            *markdown(head, rows)]  # fmt: skip


def combined(store: Store) -> list[str]:
    """For each size the nearest student of pairs alone, and what all methods together reach from there."""
    table = choose.complete(store.table())
    known = choose.candidates(table, store.reports(), Budget()).dropna(subset=["latency_ms", "file_mb"])
    plains, teacher = shapes(store)
    if known.empty or plains.empty:
        return []
    second = _second(store, teacher["run"])
    rows = []
    for size, some in plains.groupby("size"):
        plain = some.loc[some["fd"].idxmin()]
        alike = known[(known["params_trained_m"] / size - 1).abs().le(0.1)]
        best, equal = alike.loc[alike["fd"].idxmin()], known[known["fd"].le(plain["fd"])]
        small, fast = equal.loc[equal["file_mb"].idxmin()], equal.loc[equal["latency_ms"].idxmin()]
        rows.append([f"{size:.1f} M", *(_reached(store, row, teacher["fd"], second) for row in (plain, best)),
                     *(f"{row['name']}: {row['file_mb']:.3f} MB, {row['latency_ms']:.2f} ms, {row['fd']:.2f}"
                       for row in (plain, small, fast))])  # fmt: skip
    head = ["trained", "pairs alone, the nearest", "all methods, the nearest", "pairs alone, as shipped",
            "smallest file at no more distance", "fastest at no more distance"]  # fmt: skip
    by = "the classifier's Fréchet distance" + ", in brackets by the second extractor" * bool(second)
    return ["## Sizes", "", f"Distances over the teacher's, {by}; then file, milliseconds of one image and distance. "
            "Smallest and fastest are of all sizes; a name with a seed is the best of several. (`python -m lab sweep` "
            "on finishes.json, many-step.json and combinations.json of recipes/sweeps)", "",
            *markdown(head, rows)]  # fmt: skip


def _reached(store: Store, row: pd.Series, teacher: float, second: float | None) -> str:
    """A student's distance over its teacher's, by both extractors where both measured it."""
    mine = _second(store, row["run"])
    return f"{row['name']}: {row['fd'] / teacher:.1f}" + (f" ({mine / second:.1f})" if mine and second else "")


def recipe(store: Store) -> list[str]:
    found = read_json(store.root / "benchmarks" / "recipe.json")
    if not found:
        return []
    said = {"published": "the published pair recipe", "adamw": "AdamW with batch 128 at its best rate"}
    parts = [f"{ratio:.2f} of that of {said[rival]} ({found['chosen'][rival]}; by seed "
             f"{', '.join(f'{r:.2f}' for r in found['ratio_by_seed'][rival])})"
             for rival, ratio in found["ratio"].items()]  # fmt: skip
    own = ", ".join(f"{fd:.2f}" for fd in found["fd"]["lab"])
    return ["## Recipe", "", f"After {found['seconds'] / 60:.0f} minutes a run on {found['pairs']:,} pairs the default "
            f"recipe's distance ({own}) is {' and '.join(parts)}. "
            f"(`python benchmarks/recipe.py --pairs {found['pairs']}`)"]  # fmt: skip


def search(store: Store) -> list[str]:
    """The stages of the search: what won its last rung, what came next, what was worst in its first."""
    found = read_json(store.root / "benchmarks" / "search.json")
    if not found:
        return []
    rows = []
    for stage in found["stages"]:
        by_length: dict[float, list[dict]] = {}
        for row in stage["rows"]:
            by_length.setdefault(row["budget_s"], []).append(row)
        first, last = (sorted(by_length[length], key=lambda row: row["fd"])
                       for length in (min(by_length), max(by_length)))  # fmt: skip
        rows.append([stage["stage"], f"{max(by_length):.0f}", *map(_named, (last[0], last[-1], first[-1]))])
    processors = sorted({row["env"]["cpu_capability"] for stage in found["stages"] for row in stage["rows"]})
    apart = f" Stages ran on processors of {' and of '.join(processors)}." if len(processors) > 1 else ""
    return ["## Search", "", "For the default recipe, 4 x 64: candidates of a stage for "
            f"{found['rungs_s'][0]:.0f} seconds each, the best of them for longer. Distance in brackets.{apart} "
            "(`python benchmarks/search.py`)", "",
            *markdown(["stage", "seconds", "best", "other of its last rung", "worst of its first"], rows)]  # fmt: skip


def noise_scale(store: Store) -> list[str]:
    tried = scales(store)
    parts = [f"{_shape(plain['run'])} from {plain['fd']:.2f} to {best['fd']:.2f} at {best['scale']:g}"
             for plain, best in tried]  # fmt: skip
    runs = " ".join(_part(plain["run"]) for plain, _ in tried)
    return parts and ["## Less noise", "", "A student's input multiplied by a number below one, which folds into its "
                      f"first layer: {'; '.join(parts)}. Precision rises and recall falls on the way: it is a trade, "
                      f"and no committed student has made it. (`python benchmarks/noise_scale.py {runs}`)"]  # fmt: skip


def moments(store: Store) -> list[str]:
    found = read_json(store.root / "benchmarks" / "moments.json")
    if not found:
        return []
    plain = min(row["fd"] for row in found["rows"] if not row["weight"])
    best = min((row for row in found["rows"] if row["weight"]), key=lambda row: row["fd"])
    return ["## Moments", "",
            f"Matching the mean and covariance of features for {found['updates']:,} more updates brings "
            f"{_shape(found['student'])} to {best['fd']:.2f} (weight {best['weight']:g}), as many without it to "
            f"{plain:.2f}. "
            f"(`python benchmarks/moments.py {_part(found['student'])} --pairs {found['pairs']}`)"]  # fmt: skip


def training(store: Store) -> list[str]:
    found = read_json(store.root / "benchmarks" / "train_throughput.json")
    if not found:
        return []
    rows = [[_turned(row["shape"]), f"{row['batch']}", row["dtype"], f"{row['lab images/s']:,.0f}",
             *(f"{row[f'lab / {rival}']:.2f} ({row[f'lab / {rival} spread'][0]:.2f} to "
               f"{row[f'lab / {rival} spread'][1]:.2f})" for rival in ("diffusers", "diffusers compiled"))]
            for row in found["rows"]]  # fmt: skip
    head = ["depth x width", "batch", "dtype", "images/s", "over diffusers, eager", "over it compiled"]
    lines = ["## Training speed", "",
             "A whole update, over diffusers' `DiTTransformer2DModel` with plain AdamW in the same "
             f"run. (`python benchmarks/train_throughput.py`, {found['threads']} threads)", "",
             *markdown(head, rows)]  # fmt: skip
    for why in found["left_out"]:
        lines += ["", f"{why[0].upper()}{why[1:]}."]
    return lines


def latency(store: Store) -> list[str]:
    """One table of all machines."""
    measured = machines(store)
    if not measured:
        return []
    compared = any(found["summary"]["distance"] for found in measured)
    rows = []
    for found in measured:
        for one in found["summary"]["batch1"]:
            bests = map(_times, [one["fastest_fp32"], one["plain_fp32"]])
            rows.append([_turned(one["shape"]), _instructions(found), f"{one['threads']}", *bests])
            if compared:
                rows[-1].append(_times(one["fastest_right"]) if found["summary"]["distance"] else "not measured")
    head = ["depth x width", "processor", "threads", "in float32", "torch's own ONNX export, not folded"]
    head += ["any form of equal distance"] * compared
    named = "; ".join(f"{_instructions(found)}: {found['machine']['device']['name']}" for found in measured)
    lines = ["## CPUs", "", "One image, random weights: how many times as fast as diffusers' eager DiT of the same "
             f"shape on the same processor. ({named}; `python benchmarks/latency.py --seconds "
             f"{measured[0]['seconds']:g}`)", "", *markdown(head, rows)]  # fmt: skip
    if compared:
        lines += ["", "A form is of equal distance where it changes that of no student on the front by more than 2 %; "
                      "of the larger shapes here none is trained."]  # fmt: skip
    lines += _shares(measured)
    for found in measured:
        if said := _of_machine(found["summary"]):
            lines += ["", f"On the processor with {_instructions(found)}: {' '.join(said)}"]
    return lines


def _shares(measured: Sequence[dict]) -> list[str]:
    """A table of what each processor and number of threads reaches of its own peak at batch 16."""
    columns, rows = [], {}
    for found in measured:
        for one in found["summary"]["batch16"]:
            if one["best"]:
                column = f"{_instructions(found)}, {choose.threads_said(one['threads'])}"
                columns += [column] * (column not in columns)
                share = f"{one['best']['of_peak']:.0%} ({one['best']['form'].split()[0]})"
                rows.setdefault((_turned(one["shape"]), one["precision"]), {})[column] = share
    if not rows:
        return []
    cells = [
        [*which, *(shares.get(column, "not measured") for column in columns)] for which, shares in sorted(rows.items())
    ]
    return ["", "At batch 16, what the best runtime reaches of the machine's own peak for a product of that precision:",
            "", *markdown(["depth x width", "precision", *columns], cells)]  # fmt: skip


def _instructions(found: dict) -> str:
    return found["machine"]["cpu_capability"]


def _of_machine(said: dict) -> list[str]:
    """What folding gives, where it was measured."""
    lines = []
    if folds := said["fold"]:
        smaller = [1 - one["bytes_after"] / one["bytes_before"] for one in folds]
        faster = [one["times_faster"] for one in folds]
        lines.append(f"Folding the conditioning into a table per class takes {min(smaller):.0%} to {max(smaller):.0%} "
                     f"off a student's file, with the same images to 1e-5, and makes one image {min(faster):.2f} to "
                     f"{max(faster):.2f} times as fast in plain PyTorch.")  # fmt: skip
    return lines


def coarse(store: Store) -> list[str]:
    """What each coarse form does to the distance of the students on the front."""
    found = next((one for one in machines(store) if one["summary"]["distance"]), None)
    if not found:
        return []
    rows = [[one["form"], f"{one['within']} of {one['students']}", f"{one['median_ratio'] - 1:+.1%}",
             f"{one['worst_ratio'] - 1:+.1%}"] for one in found["summary"]["distance"]]  # fmt: skip
    return ["## Precisions", "", "What a coarse form does to the distance of the students on the front, against their "
            f"float32. (processor with {_instructions(found)}; `python benchmarks/latency.py`)", "",
            *markdown(["form", "students within 2%", "median change", "worst"], rows)]  # fmt: skip


def graphs(store: Store) -> list[str]:
    """For each rewriting and batch the range of what it gives over shapes."""
    found = read_json(store.root / "benchmarks" / "graphs.json")
    if not found:
        return []
    times: dict[str, dict[int, list[float]]] = {}
    for row in found["rows"]:
        what = f"{row['rewriting'].replace('_', ' ')} in {row['runtime']}"
        times.setdefault(what, {}).setdefault(row["batch"], []).append(row["times_faster"])
    parts = [f"{what} " + ", ".join(f"{min(some):.2f} to {max(some):.2f} at batch {batch}"
                                    for batch, some in by.items()) for what, by in times.items()]  # fmt: skip
    return ["## Graphs", "",
            f"How many times as fast a rewriting makes a graph, over three shapes: {'; '.join(parts)}. "
            f"(`python benchmarks/graphs.py --seconds {found['conditions']['seconds']:g}`)"]  # fmt: skip


def prediction(store: Store) -> list[str]:
    found = read_json(store.root / "benchmarks" / "predict.json")
    if not found:
        return []
    forms = f"{len(found['rows'])} form{'s' * (len(found['rows']) > 1)}"
    return ["## Prediction", "", f"The roofline, fitted on some students' timings, is off by "
            f"{found['median_of_medians']:.0%} (median over {forms} of runtime, precision and threads) for students "
            "that it was not fitted on. (`python benchmarks/predict.py`)"]  # fmt: skip


def pages(store: Store) -> list[str]:
    found = read_json(store.root / "benchmarks" / "pages.json")
    if not found:
        return []
    seconds, ratio = found["seconds"], found["first chart, app / one chart"]["median"]
    switch = max(one["median"] for name, one in seconds.items() if name.startswith("to page"))
    return ["## App", "", f"On these results in headless Chromium: headline after "
            f"{seconds['app: headline']['median']:.1f} s in a fresh tab, first chart after "
            f"{seconds['app: chart']['median']:.1f} s ({ratio:.2f} times a page of one chart), slowest page switch "
            f"{switch:.2f} s, redraw {seconds['redraw']['median']:.2f} s. (`python benchmarks/pages.py`)"]  # fmt: skip


TABLES: Sequence[Callable[[Store], list[str]]] = (
    students, deep, methods, combined, noise_scale, coarse, recipe, search, moments, latency, prediction, graphs,
    training, pages,
)  # fmt: skip


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]]


def _part(run: str) -> str:
    """The part of a run's id that names its shape, by which a command finds it."""
    return run.split("-")[-3]


def _shape(run: str) -> str:
    depth, width = re.search(r"-d(\d+)w(\d+)h", run).groups()
    return f"{depth} x {width}"


def _turned(shape: str) -> str:
    """64x4, width first, as depth x width."""
    width, depth = shape.split("x")
    return f"{depth} x {width}"


def _named(row: dict) -> str:
    return f"{row['name']} ({row['fd']:.2f})"


def _times(best: dict | None) -> str:
    if best is None:
        return "none"
    low, high = best["ci95"]
    return f"{best['times_faster']:.1f} ({low:.1f} to {high:.1f}), {best['ms']:.2f} ms, {best['form']}"


def _blocks(row: pd.Series) -> str:
    return f"{row['depth']:.0f} blocks of width {row['width']:.0f}"


def _size(name: str) -> str:
    """4x40 of `4x40 plain 400k`."""
    return re.match("[0-9]+x[0-9]+", name)[0]


def _link(said: str, heading: str) -> str:
    """A link from the README to a heading of FINDINGS.md, as GitHub names it."""
    return f"[{said}](results/FINDINGS.md#{heading.lower().replace(' ', '-')})"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _between(values: Sequence[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def sentences(store: Store) -> str:
    """The README's findings as a Markdown list, between their marks."""
    said = "\n".join(f"- {said}" for finding in SENTENCES if (said := finding(store)))
    return "\n\n".join(filter(None, [BEGIN, said, END]))


def tables(store: Store) -> str:
    """The whole of results/FINDINGS.md."""
    head = (f"# Findings\n\nMade by `{COMMAND}` out of the files of this folder. The [README](../README.md#words) "
            "explains the words.")  # fmt: skip
    parts = ["\n".join(lines) for finding in TABLES if (lines := finding(store))]
    return "\n\n".join([head, *parts]) + "\n"


def within(readme: str, found: str) -> str:
    """The README with its findings replaced."""
    return re.sub(r"<!-- findings.*?<!-- /findings -->", lambda _: found, readme, flags=re.DOTALL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into README.md and results/FINDINGS.md")
    args = parser.parse_args()
    store = Store(ROOT / "results")
    short, long = sentences(store), tables(store)
    if args.write:
        (ROOT / "README.md").write_text(within((ROOT / "README.md").read_text(), short))
        (store.root / "FINDINGS.md").write_text(long)
    print(f"{short}\n\n{long}", end="")
