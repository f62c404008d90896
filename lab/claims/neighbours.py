"""The headline of each neighbour of arXiv 2502.14226, and what the lab's own runs of the same idea give.

The published figures are of other networks, data and machines: a claim holds where ours reach the published ratios,
partly where one of them goes the same way, less far or alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from lab.arms import COMPUTE
from lab.claims.evidence import DIFFERS, HOLDS, PARTLY, UNTESTED, Claim, Evidence, Finding, alone, within
from lab.verdicts import ENOUGH

GUIDED = "python -m lab run --teacher fashion --pairs 100000 --depth 4 --width 40 --mlp 96 --steps 6250 --guide 12x64"
FLOAT32 = 4  # bytes of a weight


def _reached(*ours_and_theirs: tuple[float, float]) -> str:
    """The status of ratios above 1, each beside the published one."""
    ours = [mine for mine, _ in ours_and_theirs]
    if any(math.isnan(mine) for mine in ours):
        return UNTESTED
    if all(mine >= theirs for mine, theirs in ours_and_theirs):
        return HOLDS
    return PARTLY if max(ours) > 1 else DIFFERS


def _none(method: str) -> Finding:
    return Finding(why=f"no finished run of {method}")


def _distance(mine: pd.Series, other: pd.Series, of: str) -> str:
    """What a run's distance is of another's; "" where they were not measured alike."""
    if mine["protocol"] != other["protocol"] or not mine["protocol"]:
        return ""
    return f"; {mine['fd'] / other['fd']:.2f} times {of}'s distance"


def _beside_plain(evidence: Evidence, method: str) -> pd.Series | None:
    """The verdict at equal images on a method by itself, of the most seeds, of those the best; None for no pair."""
    rows = alone(evidence.verdicts, method)
    rows = rows[rows["compute"].eq(COMPUTE[0]) & rows["seeds"].gt(0)]
    return None if rows.empty else rows.sort_values(["seeds", "ratio"], ascending=[False, True]).iloc[0]


def _whole(evidence: Evidence, row: pd.Series, *methods: str) -> tuple[pd.Series | None, list[pd.Series]]:
    """The first run of a chain of starts that is of none of these methods, and those before it, the last first."""
    chain = [row]
    while (starts := chain[-1]["start"]) and (found := evidence.run_of(starts[0])) is not None:
        if not set(methods) & set(found["method"].split("+")):
            return found, chain
        chain.append(found)
    return None, chain


def depth_pruning(evidence: Evidence) -> Finding:
    """The time of the whole network over that of the shortened one, and the images of search and recovery over its."""
    for _, row in evidence.done("masked_features").iterrows():
        whole, chain = _whole(evidence, row, "depth_pruning", "masked_features")
        if whole is None or not any("depth_pruning" in one["method"].split("+") for one in chain):
            continue
        ms = evidence.latency_ms(16)
        speed = ms[whole["run"]] / ms[row["run"]]
        share = sum(one["images"] for one in chain) / whole["images"]
        said = "not timed" if math.isnan(speed) else f"{speed:.2f} times the speed of {whole['name']} at batch 16"
        ours = f"{said}, at {share:.0%} of its images" + _distance(row, whole, whole["name"])
        why = f"{row['name']} or {whole['name']} was not timed at batch 16" if math.isnan(speed) else ""
        return Finding(_reached((speed, 2.0), (1 / share, 1 / 0.07)), ours, speed, why=why,
                       runs=(whole["run"], *(one["run"] for one in reversed(chain))))  # fmt: skip
    return _none("depth_pruning with its recovery")


def dynamic(evidence: Evidence) -> Finding:
    """The share of the work that is left out, and the time of the complete network over that of the slices."""
    rows = evidence.done("dynamic")
    if rows.empty:
        return _none("dynamic")
    timed = evidence.benchmark("dynamic", {*rows["run"], *rows["name"]})
    fits = rows["run"].eq(timed.get("run")) | rows["name"].eq(timed.get("run"))
    row = rows[fits].iloc[0] if any(fits) else rows.iloc[0]
    work = float(evidence.facts(row["run"], "dynamic").get("work", math.nan))
    speed = timed["ms"]["complete"] / timed["ms"]["slices"] if any(fits) else math.nan
    said = "not timed" if math.isnan(speed) else f"{speed:.2f} times the speed of the complete network"
    whole = evidence.run_of((row["start"] or [""])[0])
    ours = f"-{1 - work:.0%} of the work, {said}" + ("" if whole is None else _distance(row, whole, whole["name"]))
    why = "python benchmarks/dynamic.py has not timed it" if math.isnan(speed) else ""
    return Finding(_reached((1 / work, 1 / 0.49), (speed, 1.73)), ours, speed, runs=(row["run"],), why=why)


def ternary(evidence: Evidence) -> Finding:
    """The bytes of what is shipped in float32 over those of its packed file, or where none is known, of all weights
    over those of the file that training left.
    """
    rows = evidence.done("ternary").dropna(subset=["file_mb"])
    if rows.empty:
        return _none("ternary")
    packed = rows["run"].map(evidence.packed_mb)
    ratio = (FLOAT32 / 1e6 * rows["params_deployed"] / packed).fillna(FLOAT32 / 1e6 * rows["params"] / rows["file_mb"])
    row, best = rows.loc[ratio.idxmax()], ratio.max()
    plain = _beside_plain(evidence, "ternary")
    beside = "" if plain is None else (f"; at {plain['size']} {plain['ratio']:.2f} times plain's distance"
                                       f"{within(plain)}")  # fmt: skip
    why = "what is not in the blocks is kept in half precision, which is more of a small network" if best < 14 else ""
    return Finding(_reached((best, 14.0)), f"file {best:.1f} times smaller than in float32 ({row['name']}){beside}",
                   best, runs=(row["run"],), why=why)  # fmt: skip


def class_split(evidence: Evidence) -> Finding:
    """Of one request: the whole network's parameters, and its time, over those of the expert that answers."""
    for _, row in evidence.done("class_split").iterrows():
        whole, chain = _whole(evidence, row, "class_split", "class_expert")
        request = evidence.facts(row["run"], "class_split").get("params_request")
        if whole is None or not request:
            continue
        ms = evidence.latency_ms(1)
        size, speed = whole["params"] / request, ms[whole["run"]] / ms[row["run"]]
        timed = "not timed" if math.isnan(speed) else f"{speed:.2f} times as fast"
        ours = (
            f"a request's expert is {size:.2f} times smaller than {whole['name']}, {timed}; all experts together "
            f"{row['params'] / whole['params']:.2f} times its size" + _distance(row, whole, whole["name"])
        )
        why = "a generator of ten classes and 0.1 to 1 M has less to spare than a ViT classifier of 86 M"
        return Finding(_reached((size, 34.1), (speed, 28.9)), ours, size, why=why,
                       runs=(whole["run"], *chain[-1]["start"], row["run"]))  # fmt: skip
    return _none("class_split")


def attention_transfer(evidence: Evidence) -> Finding:
    """The share of the guide's parameters that the student does without, and its distance over its plain twin's."""
    for _, row in evidence.done("attention_transfer").iterrows():
        guide = evidence.run_of(row["guide"])
        if guide is None:
            continue
        saved = 1 - row["params"] / guide["params"]
        plain = _beside_plain(evidence, "attention_transfer")
        beside = "" if plain is None else f"; {plain['ratio']:.2f} times plain's{within(plain)}"
        status = _reached((1 / (1 - saved), 1 / (1 - 0.835)))
        if status == HOLDS and (plain is None or plain["word"] != "helps"):
            status = PARTLY  # smaller is the shape's doing
        return Finding(status, f"-{saved:.1%} of {guide['name']}'s size{_distance(row, guide, guide['name'])}{beside}",
                       saved, runs=(row["run"], guide["run"]),
                       why="" if status == HOLDS else f"the size is the chosen shape's; that the transfer helps takes "
                       f"{ENOUGH} paired seeds")  # fmt: skip
    return _none("attention_transfer")


def reparam(evidence: Evidence) -> Finding:
    """Parameters, multiply-adds and file of what is shipped over its plain twin's: 1, or it is not free."""
    plain = _beside_plain(evidence, "reparam")
    if plain is None:
        return _none("reparam beside its plain twin")
    mine, twin = _rows(evidence, plain)
    more = {name: mine[name] / twin[name] for name in ("params", "macs", "file_mb")}
    free = all(abs(ratio - 1) < 1e-3 for ratio in more.values())  # a file's header names its method
    ours = (f"{more['params']:.3f} times plain's parameters, {more['macs']:.3f} its MACs, {more['file_mb']:.3f} its "
            f"file, {mine['params_train'] / mine['params']:.2f} times as many in training; {plain['ratio']:.2f} times "
            f"its distance{within(plain)}")  # fmt: skip
    return Finding(HOLDS if free else DIFFERS, ours, more["macs"], runs=(mine["run"], twin["run"]))


def time_attention(evidence: Evidence) -> Finding:
    """Parameters over the plain block's, with the distance: fewer, in training and shipped, must be better."""
    plain = _beside_plain(evidence, "time blocks")
    if plain is None:
        return _none("time blocks beside their plain twin")
    mine, twin = _rows(evidence, plain)
    fewer, shipped = (mine[name] / twin[name] for name in ("params", "params_deployed"))
    ours = (f"{fewer:.2f} times plain's parameters" + (f" ({shipped:.2f} as shipped)" if shipped > 0 else "")
            + f" at {plain['ratio']:.2f} times its distance{within(plain)}")  # fmt: skip
    return _judged(plain, fewer < 1 and not shipped > 1, ours)


def manifold(evidence: Evidence) -> Finding:
    """The distance over plain's, of a student of the same size."""
    plain = _beside_plain(evidence, "manifold")
    if plain is None:
        return _none("manifold beside its plain twin")
    mine, twin = _rows(evidence, plain)
    same = mine["params"] / twin["params"]
    ours = f"{plain['ratio']:.2f} times plain's distance{within(plain)} at {same:.3f} times its size"
    return _judged(plain, same <= 1, ours)


def _rows(evidence: Evidence, plain: pd.Series) -> tuple[pd.Series, pd.Series]:
    """The table's rows of a comparison's first run and of its twin."""
    mine, twin = (evidence.by_run.loc[plain[side][0]] for side in ("runs", "twin_runs"))
    return mine, twin


def _judged(plain: pd.Series, cheap: bool, ours: str) -> Finding:
    """By the verdict on the distance, with its interval and all runs of both sides."""
    return Finding(_of_verdict(plain, cheap), ours, plain["ratio"], plain["low"], plain["high"],
                   (*plain["runs"], *plain["twin_runs"]), _few(plain))  # fmt: skip


def _of_verdict(row: pd.Series, cheap: bool) -> str:
    """A better student at no cost: both must be so."""
    if row["seeds"] < ENOUGH or row["word"] == "open":
        return UNTESTED
    return HOLDS if cheap and row["word"] == "helps" else PARTLY if cheap or row["word"] == "helps" else DIFFERS


def _few(row: pd.Series) -> str:
    if row["seeds"] < ENOUGH:
        return f"{row['seeds']} of {ENOUGH} paired seeds"
    return f"{row['seeds']} seeds leave it open" if row["word"] == "open" else ""


def _claim(name: str, paper: str, text: str, source: str, reading: str, published: str, command: str,
           judge: Callable[[Evidence], Finding]) -> Claim:  # fmt: skip
    return Claim(name, f"arXiv {paper}", text, source, reading, published, command, judge)


CLAIMS = (
    _claim("tinyfusion", "2412.01199", "Half of the blocks, chosen by learning, are twice as fast for little training.",
           "table of DiT-XL/2 and D14", "repository", "2x the speed at 7 % of the training",
           "python -m lab run --teacher fashion --pairs 100000 --depth 12 --width 64 --mlp 312 --steps 438 "
           "--start 12x64 --method pairs,depth_pruning", depth_pruning),
    _claim("dydit", "2410.03456", "Width by noise level and tokens by place leave out half of the work.",
           "table of DiT-XL", "repository", "-51 % FLOPs, 1.73x the speed",
           "python -m lab run --teacher fashion --time --block dynamic --depth 8 --width 80 --steps 2500 "
           "--method denoise,dynamic && python benchmarks/dynamic.py", dynamic),
    _claim("terdit", "2405.14854", "Ternary weights shrink the file.", "reviews of it", "reviews",
           "a file about 14x smaller", f"{GUIDED.removesuffix(' --guide 12x64')} --method pairs,ternary", ternary),
    _claim("ed-vit", "2410.11650", "Small networks that share out the classes are smaller and faster.", "abstract",
           "abstract", "up to 28.9x the speed and 34.1x smaller",
           "python -m lab run 12x64 --start 12x64 --method pairs,class_split", class_split),
    _claim("mtd", "2210.15563", "Attention and value relations carry a large network's work into a small one.",
           "log of the reference", "repository", "-83.5 % of the size",
           f"{GUIDED} --method pairs,attention_transfer", attention_transfer),
    _claim("reparam", "2411.09339", "Factors that only training has cost nothing at inference.", "abstract", "abstract",
           "free at inference", f"{GUIDED.removesuffix(' --guide 12x64')} --method pairs,reparam", reparam),
    _claim("diffit", "2312.02139", "Time in the attention is better than in the norms, with fewer parameters.",
           "table of ImageNet-256", "summaries", "561 M against 675 M, at a better distance",
           f"{GUIDED.removesuffix(' --guide 12x64')} --block time", time_attention),
    _claim("manifold", "2107.01378", "The manifold of a larger network's patches makes a better student at no cost.",
           "abstract", "abstract", "a better student at no cost", f"{GUIDED} --method pairs,manifold", manifold),
)  # fmt: skip
