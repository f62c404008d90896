"""The README's findings, out of results/: every figure there is one that a file of this folder holds.

    python benchmarks/findings.py            # what they say now
    python benchmarks/findings.py --write    # put them into README.md

A finding whose file is not there yet is left out. tests/test_repository.py holds the README to this.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import choose
from lab.choose import Budget
from lab.results import Store, read_json

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- findings: python benchmarks/findings.py --write -->", "<!-- /findings -->"


def students(store: Store) -> list[str]:
    """A line for each student that can be compared, smallest first, and what their shapes say."""
    table = choose.complete(store.table())
    found = choose.candidates(table, store.reports(), Budget())
    if found.empty:
        return []
    teacher = table[table["role"] == "teacher"].iloc[0]
    found = found.assign(size=found["params_trained_m"].round(1)).sort_values(["size", "depth"])
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
    deepest_best = all(one.loc[one["depth"].idxmax(), "fd"] == one["fd"].min() for _, one in found.groupby("size"))
    commands = ["benchmarks/students.py"] + (["benchmarks/measure.py"] if timed else [])
    what = [
        "**Deep and thin beats shallow and wide.**" if deepest_best else "**Shapes.**",
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
    return [" ".join(what), "", *markdown(head, rows)]


def recipe(store: Store) -> list[str]:
    found = read_json(store.root / "benchmarks" / "recipe.json")
    if not found:
        return []
    said = {"published": "the published pair recipe", "adamw": "AdamW with batch 128 at its best rate"}
    parts = [f"{ratio:.2f} of that of {said[rival]} ({found['chosen'][rival]}; by seed "
             f"{', '.join(f'{r:.2f}' for r in found['ratio_by_seed'][rival])})"
             for rival, ratio in found["ratio"].items()]  # fmt: skip
    own = ", ".join(f"{fd:.2f}" for fd in found["fd"]["lab"])
    return [f"**The recipe.** After {found['seconds'] / 60:.0f} minutes a run on {found['pairs']:,} pairs the default "
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
    return ["**The search** for the default recipe, 4 x 64: candidates of a stage for "
            f"{found['rungs_s'][0]:.0f} seconds each, the best of them for longer. Distance in brackets.{apart} "
            "(`python benchmarks/search.py`)", "",
            *markdown(["stage", "seconds", "best", "other of its last rung", "worst of its first"], rows)]  # fmt: skip


def noise_scale(store: Store) -> list[str]:
    rows = (read_json(store.root / "benchmarks" / "noise_scale.json") or {}).get("rows", [])
    parts, runs = [], list(dict.fromkeys(row["run"] for row in rows))
    for run in runs:
        mine = {row["scale"]: row["fd"] for row in rows if row["run"] == run}
        best = min(mine, key=mine.__getitem__)
        parts.append(f"{_shape(run)} from {mine[1.0]:.2f} to {mine[best]:.2f} at {best:g}")
    return parts and ["**Less noise, cleaner clothes.** A student's input multiplied by a number below one, which "
                      f"folds into its first layer: {'; '.join(parts)}. Precision rises and recall falls on the way: "
                      "it is a trade, and no committed student has made it. "
                      f"(`python benchmarks/noise_scale.py {' '.join(map(_part, runs))}`)"]  # fmt: skip


def moments(store: Store) -> list[str]:
    found = read_json(store.root / "benchmarks" / "moments.json")
    if not found:
        return []
    plain = min(row["fd"] for row in found["rows"] if not row["weight"])
    best = min((row for row in found["rows"] if row["weight"]), key=lambda row: row["fd"])
    return [f"**Moments.** Matching the mean and covariance of features for {found['updates']:,} more updates brings "
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
    lines = ["**Training speed**, a whole update, over diffusers' `DiTTransformer2DModel` with plain AdamW in the same "
             f"run. (`python benchmarks/train_throughput.py`, {found['threads']} threads)", "",
             *markdown(head, rows)]  # fmt: skip
    for why in found["left_out"]:
        lines += ["", f"{why[0].upper()}{why[1:]}."]
    return lines


def latency(store: Store) -> list[str]:
    """One table of all machines that were measured: latency.json of the last one, latency-<which>.json of others."""
    paths = sorted((store.root / "benchmarks").glob("latency*.json"))
    machines = [found for path in paths if (found := read_json(path))]
    if not machines:
        return []
    compared = any(found["summary"]["distance"] for found in machines)
    rows = []
    for found in machines:
        for one in found["summary"]["batch1"]:
            bests = map(_times, [one["fastest_fp32"], one["plain_fp32"]])
            rows.append([_turned(one["shape"]), _instructions(found), f"{one['threads']}", *bests])
            if compared:
                rows[-1].append(_times(one["fastest_right"]) if found["summary"]["distance"] else "not measured")
    head = ["depth x width", "processor", "threads", "in float32", "torch's own ONNX export, not folded"]
    head += ["any form of equal distance"] * compared
    named = "; ".join(f"{_instructions(found)}: {found['machine']['device']['name']}" for found in machines)
    lines = ["**On CPUs**, one image, random weights: how many times as fast as diffusers' eager DiT of the same "
             f"shape on the same processor. ({named}; `python benchmarks/latency.py --seconds "
             f"{machines[0]['seconds']:g}`)", "", *markdown(head, rows)]  # fmt: skip
    if compared:
        lines += ["", "A form is of equal distance where it changes that of no student on the front by more than 2 %; "
                      "of the larger shapes here none is trained."]  # fmt: skip
    lines += _shares(machines)
    for found in machines:
        if said := _of_machine(found["summary"]):
            lines += ["", f"On the processor with {_instructions(found)}: {' '.join(said)}"]
    return lines


def _shares(machines: Sequence[dict]) -> list[str]:
    """A table of what each processor and number of threads reaches of its own peak at batch 16."""
    columns, rows = [], {}
    for found in machines:
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
    """What folding gives and what coarse precisions cost, as far as they were measured."""
    lines = []
    if folds := said["fold"]:
        smaller = [1 - one["bytes_after"] / one["bytes_before"] for one in folds]
        faster = [one["times_faster"] for one in folds]
        lines.append(f"Folding the conditioning into a table per class takes {min(smaller):.0%} to {max(smaller):.0%} "
                     f"off a student's file, with the same images to 1e-5, and makes one image {min(faster):.2f} to "
                     f"{max(faster):.2f} times as fast in plain PyTorch.")  # fmt: skip
    kept = [f"{one['form']} at most {one['worst_ratio'] - 1:+.1%} ({one['within']} of {one['students']} within 2 %)"
            for one in said["distance"]]  # fmt: skip
    if kept:
        lines.append(f"What coarse precisions do to the distance of the students on the front: {'; '.join(kept)}.")
    return lines


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
    return [f"**Graphs.** How many times as fast a rewriting makes a graph, over three shapes: {'; '.join(parts)}. "
            f"(`python benchmarks/graphs.py --seconds {found['conditions']['seconds']:g}`)"]  # fmt: skip


def prediction(store: Store) -> list[str]:
    found = read_json(store.root / "benchmarks" / "predict.json")
    if not found:
        return []
    forms = f"{len(found['rows'])} form{'s' * (len(found['rows']) > 1)}"
    return [f"**Prediction.** The roofline, fitted on some students' timings, is off by "
            f"{found['median_of_medians']:.0%} (median over {forms} of runtime, precision and threads) for students "
            "that it was not fitted on. (`python benchmarks/predict.py`)"]  # fmt: skip


def pages(store: Store) -> list[str]:
    found = read_json(store.root / "benchmarks" / "pages.json")
    if not found:
        return []
    seconds, ratio = found["seconds"], found["first chart, app / one chart"]["median"]
    switch = max(one["median"] for name, one in seconds.items() if name.startswith("to page"))
    return [f"**The app**, on these results in headless Chromium: headline after "
            f"{seconds['app: headline']['median']:.1f} s in a fresh tab, first chart after "
            f"{seconds['app: chart']['median']:.1f} s ({ratio:.2f} times a page of one chart), slowest page switch "
            f"{switch:.2f} s, redraw {seconds['redraw']['median']:.2f} s. (`python benchmarks/pages.py`)"]  # fmt: skip


FINDINGS: Sequence[Callable[[Store], list[str]]] = (
    students, search, recipe, noise_scale, moments, training, latency, graphs, prediction, pages,
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


def text(store: Store) -> str:
    """All findings as Markdown, between their marks."""
    parts = ["\n".join(lines) for finding in FINDINGS if (lines := finding(store))]
    return "\n\n".join([BEGIN, *parts, END]) if parts else f"{BEGIN}\n{END}"


def within(readme: str, found: str) -> str:
    """The README with its findings replaced."""
    return re.sub(r"<!-- findings.*?<!-- /findings -->", lambda _: found, readme, flags=re.DOTALL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into README.md")
    args = parser.parse_args()
    said = text(Store(README.parent / "results"))
    if args.write:
        README.write_text(within(README.read_text(), said))
    print(said)
