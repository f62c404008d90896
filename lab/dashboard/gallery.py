"""What do the pictures look like, same noise and same class?"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from lab import choose, figures, jobs, sheets
from lab.dashboard import drawing, frame, pictures
from lab.results import Run

TITLE = "Gallery"
ORDER = 30
ICON = ":material/photo_library:"
URL = "/gallery"

MOST = 6  # models beside each other
FIRST = 4  # of them when the page opens
MODES = {"grid": "Grid", "swipe": "Swipe", "blink": "Blink", "difference": "Difference",
         "nearest": "Nearest real images", "learn": "Watch it learn"}  # fmt: skip
BY_SEED, FIRST_APART, NEAR_TEACHER, FAR_TEACHER, NEAR_REAL = ORDERS = (
    "by seed", "farthest from the first", "closest to the teacher", "farthest from the teacher",
    "closest to a real image",
)  # fmt: skip
GAIN = 2.0  # of the difference picture
TILE_PX = 112  # how large an image is shown at first
SHEET = 64  # images that are drawn at once


def in_order(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Teachers first, then pinned runs, then the front of size and FD, then the rest; and the names to begin with.

    One begins with a teacher, the pinned runs and students along the whole front, from small to large.
    """
    student = runs["role"] == "student"
    on_front = student & choose.front(runs[["params_m", "fd"]].where(student), ["params_m", "fd"])
    rank = np.select([~student, runs["pin"], on_front], [0, 1, 2], 3)
    runs = runs.assign(rank=rank).sort_values(["rank", "params_m", "fd"], kind="stable").reset_index(drop=True)
    teachers, pinned, front, rest = (runs["name"][runs["rank"] == k].tolist() for k in range(4))
    first = [*teachers[:1], *pinned][:FIRST]
    free = FIRST - len(first)
    spread = np.unique(np.linspace(0, len(front) - 1, min(free, len(front))).round().astype(int))
    first += [front[k] for k in spread]
    first += rest[: FIRST - len(first)]
    return runs, first


def class_names(runs: Sequence[Run]) -> list[str]:
    """Names of the classes, by the first run that knows them; [] where images have no class."""
    for run in runs:
        if student := run.read("student"):
            spec = student["spec"]
            return spec["class_names"] or [str(k) for k in range(spec["num_classes"])]
    return []


def make_command(run: Run, first: int = 0) -> str:
    """What makes the samples of a run that has none, or draws other noises than those that are kept."""
    if not (run.path / "student.safetensors").exists():
        return jobs.command(run)
    if first:
        drawn = f"python -m lab sample {run.id} --seed {first} --out samples-{first}.png"
        return jobs.on(run.path.parent.parent, drawn)
    return jobs.sample_command(run)


def draw_here(runs: Sequence[Run], names: Sequence[str], first: int, reports: pd.DataFrame) -> bool:
    """Draw the noises from `first` on by each run's fastest runtime and keep them for this session; False: not all."""
    whole, kept = True, st.session_state.setdefault("drawn_here", {})
    for run, name in zip(runs, names):
        classes = len(class_names([run]))
        seeds = range(first, first + SHEET)
        y = [seed % classes for seed in seeds] if classes else None
        try:
            with st.spinner(f"{name} draws {SHEET} images ..."):
                made = drawing.generate(run, seeds, y, reports)
        except drawing.FAULTS as error:
            st.error(frame.plain(f"{name}: {drawing.sentence(error, SHEET)}"))
            whole = False
            continue
        sheet = sheets.Samples(made.images, np.array(y or [0] * SHEET), np.array(seeds))
        kept[run.id, first, weights_of(run)] = (sheet, made.said)
    return whole


def sheets_of(runs: Sequence[Run], first: int) -> tuple[list[sheets.Samples | None], list[str]]:
    """Each run's images of the noises from `first` on, and by which runtime they were drawn; "" where they are kept."""
    drawn = st.session_state.get("drawn_here", {})
    found, said = [], []
    for run in runs:
        kept = pictures.samples(run) if first == 0 else None
        sheet, by = (kept, "") if kept is not None else drawn.get((run.id, first, weights_of(run)), (None, ""))
        found.append(sheet)
        said.append(by)
    return found, said


def weights_of(run: Run) -> str:
    return (run.read("student") or {}).get("weights_sha256", "")


def by_difference(found: Sequence[sheets.Samples | None], chosen: list[int]) -> list[int]:
    """Places in order of how far the models lie apart from the first one, farthest first."""
    first, *others = [f.images.astype(np.float32) for f in found if f is not None]
    apart = sum((np.abs(o - first).mean((1, 2, 3)) for o in others if o.shape == first.shape), np.zeros(len(first)))
    return sorted(chosen, key=lambda k: -apart[k] if k < len(apart) else 0.0)


def lines_of(chosen: list[int], across: int) -> list[list[int]]:
    return [chosen[i : i + across] for i in range(0, len(chosen), across)]


def neighbours_command(run: Run) -> str:
    """What makes the neighbours of a run's images."""
    if not (run.path / "student.safetensors").exists():
        return jobs.command(run)
    return f"python -m lab eval {run.id}"


def by_neighbours(
    order: str, beside: Sequence[sheets.Neighbours | None], names: Sequence[str]
) -> tuple[np.ndarray | None, str]:
    """Each noise's distance to the teacher or to a real image, (N,), and what it is of what; None: not known.

    Distances of other conditions than the first model's can't be averaged with its own: these models are named.
    """
    if order == NEAR_REAL:
        given = [(n.distance[:, 0], (n.extractor, n.reference), name) for n, name in zip(beside, names) if n]
    else:
        given = [(n.to_teacher, (n.by, n.teacher), name)
                 for n, name in zip(beside, names) if n and n.to_teacher is not None]  # fmt: skip
    if not given:
        return None, ""
    _, how, _ = given[0]
    taken = {name: values for values, other, name in given if other == how}
    if order == NEAR_REAL:
        value, what = np.min(list(taken.values()), 0), f"the least distance to a training image ({how[0]})"
    else:
        value = np.mean(list(taken.values()), 0)
        what = f"the mean perceptual distance ({how[0]}) to the image of the same noise and class by {how[1]}"
    said = f"The number under a seed is {what}, of {', '.join(taken)}."
    if apart := [name for name in names if name not in taken]:
        said += f" Not in it: {', '.join(apart)}, without such a distance."
    return value, said


def with_nearest(columns: Sequence[pictures.Column], beside: Sequence[sheets.Neighbours | None],
                 places: Sequence[int], commands: Sequence[str]) -> tuple[list[pictures.Column], int]:  # fmt: skip
    """Columns in which each image is followed by the real ones nearest to it; and how many tiles an image now has."""
    kept = min(n.index.shape[1] for n in beside if n)
    shown = []
    for c, n, command in zip(columns, beside, commands, strict=True):
        if n is None or c.images is None:
            shown.append(pictures.Column(c.title, c.caption, None, c.command if c.images is None else command))
            continue
        tiles = np.concatenate([c.images[:, None], n.real[:, :kept]], 1).reshape(-1, *c.images.shape[1:])
        said = f"{np.median(n.distance[places, 0]):.3g} from the nearest (median of those shown)"
        shown.append(pictures.Column(c.title, f"{c.caption}\n{said}".strip(), tiles, ""))
    return shown, 1 + kept


def shuffled(names: Sequence[str], shuffle: int) -> list[int]:
    """A blind order of the models: the same for the same names and number, so that a link shows what its sender saw."""
    seed = hashlib.sha256("\n".join([str(shuffle), *names]).encode()).digest()
    return np.random.default_rng(list(seed)).permutation(len(names)).tolist()


def blinded(columns: Sequence[pictures.Column], reveal: bool) -> list[pictures.Column]:
    """Columns called A, B, ... with nothing else above them, or with their own heading too."""
    letters = [chr(ord("A") + k) for k in range(len(columns))]
    return [
        pictures.Column(f"{letter}: {c.title}", c.caption, c.images, c.command) if reveal
        else pictures.Column(letter, "", c.images)
        for letter, c in zip(letters, columns)
    ]  # fmt: skip


def line_title(
    line: Sequence[int], shown: sheets.Samples, names: Sequence[str], values: np.ndarray | None = None
) -> str:
    """Seed, class and value of a line with one image, the seeds of a longer one."""
    if len(line) > 1:
        return (
            f"{shown.seeds[line[0]]} to {shown.seeds[line[-1]]}"
            if line == sorted(line)
            else "seeds " + ", ".join(map(str, line))
        )
    c = int(shown.classes[line[0]])
    said = names[c] if 0 <= c < len(names) else ""
    title = f"seed {shown.seeds[line[0]]}" + (f"\nclass {said}" if said.isdigit() else f"\n{said}" if said else "")
    return title if values is None else f"{title}\n{values[line[0]]:.3g}"


def columns_of(
    rows: pd.DataFrame, runs: Sequence[Run], found: Sequence[sheets.Samples | None], first: int
) -> list[pictures.Column]:
    """The models as columns, with parameters, FD and milliseconds above each, and how they compare to the baseline."""
    base = frame.baseline(table)
    beside = [""] * len(rows) if base is None else choose.beside(rows, base, ("fd", "params_m", "latency_ms"))
    return [
        pictures.Column(row["name"] + (" (teacher)" if row["role"] == "teacher" else ""),
                        f"{figures.caption(row)}\n{said}".strip(), None if f is None else f.images,
                        make_command(run, first))
        for row, said, run, f in zip(rows.to_dict("records"), beside, runs, found, strict=True)
    ]  # fmt: skip


def as_differences(columns: list[pictures.Column]) -> list[pictures.Column]:
    """The first column as it is, the others as their signed difference from it."""
    reference = columns[0].images
    shown = [columns[0]]
    for c in columns[1:]:
        if c.images is None or reference is None or c.images.shape != reference.shape:
            shown.append(pictures.Column(c.title, c.caption, None, c.command))
            continue
        apart = np.abs(c.images.astype(np.float32) - reference).mean() / 127.5
        shown.append(pictures.Column(c.title, f"{c.caption}\nmean difference {apart:.3f} of [-1, 1]".strip(),
                                     figures.difference(c.images, reference, GAIN)))  # fmt: skip
    return shown


# --- the page -----------------------------------------------------------------------------------

view = frame.view()
finished = view.runs[view.runs["state"] == "done"] if len(view.runs) else view.runs
st.title("The same noise, drawn by each model")
if finished.empty:
    frame.empty("No finished run to look at yet. This trains a teacher; its students follow.",
                "python -m lab run recipes/fashion-teacher.json --name-teacher fashion-teacher")  # fmt: skip

# FD of another protocol can't stand beside these.
finished = finished.assign(fd=finished["fd"].where(finished["protocol"] == view.protocol))
budget = choose.Budget(device=view.device or None, protocol=view.protocol or None)
# Left open, the number of threads would be each network's fastest, and a student's not its teacher's.
budget = choose.settle(view.runs, view.reports, budget)
table, _ = in_order(choose.with_latency(finished, view.reports, budget))
held = frame.held("method", frame.methods(table))
of_method = table[(table["method_short"] == held) | (table["role"] == "teacher") | (held in ("", frame.EVERY))]
chosen = st.multiselect(
    f"Models, 2 to {MOST}: the first one is what the others are compared with", of_method["name"].tolist(),
    default=in_order(of_method)[1], max_selections=MOST, key="models", bind="query-params",
)  # fmt: skip
with st.container(horizontal=True, vertical_alignment="bottom"):
    frame.method_control(view)
    twins = figures.plain_twins(table)
    paired = twins and st.toggle("Each beside its plain twin", key="twins", bind="query-params",
                                 help="Trained like it on as many images, without a guide")  # fmt: skip
if not chosen:
    st.info("Choose at least one model.")
    frame.end()
base = frame.baseline(table)
if base is not None and base["name"] in chosen:  # the first one is what the others are compared with
    chosen = sorted(chosen, key=lambda name: name != base["name"])
rows = table.set_index("name", drop=False).loc[chosen]
if paired:
    rows = figures.beside_twins(rows, table).head(MOST).set_index("name", drop=False)
    chosen = rows.index.tolist()
runs = [Run(view.store.root / "runs" / r) for r in rows["run"]]
frame.footer(rows, "\n".join(f"python -m lab sample {run.id} --out {run.id}.png" for run in runs), "gallery")
found = [pictures.samples(run) for run in runs]
names = class_names(runs)
shown = next((f for f in found if f is not None), None)

mode = st.segmented_control("View", list(MODES), default="grid", required=True, format_func=MODES.get, key="gallery",
                            bind="query-params")  # fmt: skip
side = shown.images.shape[-1] if shown is not None else 28
with st.container(horizontal=True, vertical_alignment="bottom"):
    px, zoom_key = {"learn": (TILE_PX // 2, "learn_zoom"), "nearest": (TILE_PX // 2, "near_zoom")}.get(
        mode, (TILE_PX, "zoom")
    )
    zoom = st.slider("Zoom", 1, 16, max(1, round(px / side)), key=zoom_key, bind="query-params", width=150,
                     help="Screen pixels per image pixel")  # fmt: skip
    if mode != "learn":
        label = st.selectbox("Class", ["all", *names], key="class", bind="query-params", width=150) if names else "all"
        count = st.select_slider("Noises", [5, 10, 20, 40, 64], 20, key="noises", bind="query-params", width=150)
        start, across_key = (1, "across") if mode in ("grid", "difference", "nearest") else (8, "sheet")
        across = st.slider("Images per line", 1, 8, start, key=across_key, bind="query-params", width=140)
        order = st.selectbox("Order", ORDERS, key="order", bind="query-params", width=220)
        first_noise = st.number_input("First noise", 0, 2**31, 0, key="noise", bind="query-params", width=150,
                                      help=f"Of {SHEET}; from 0 on they are kept, others are drawn here")  # fmt: skip
        blind = st.toggle("Blind", key="blind", bind="query-params", help="Names hidden, the models in another order")
        if blind:
            # Whoever shuffles again has not seen the answer yet.
            st.number_input("Shuffle", 0, 9999, 0, key="shuffle", bind="query-params", width=130,
                            on_change=lambda: st.session_state.update(reveal=False))  # fmt: skip
            st.toggle("Reveal", key="reveal", bind="query-params")


@st.fragment
def learn() -> None:
    """The snapshots of the chosen runs at one point of their training, and the curves beside them."""
    shots = {run.id: run.snapshots() for run in runs}
    moments = sorted({images for found in shots.values() for images, _ in found})
    if len(moments) < 2:
        st.info("The chosen runs kept no snapshots on the way. A run keeps about ten while it trains.")
        return
    moment = st.select_slider(
        "Images seen", moments, moments[-1], format_func=lambda n: f"{n:,}", key="moment", bind="query-params"
    )
    left, right = st.columns([3, 2], gap="medium")
    with left:
        for row, run in zip(rows.to_dict("records"), runs):
            shot = _shot(row, run, shots[run.id], moment)
            pictures.show(
                [shot], [range(8), range(8, 16)], ["seeds 0 to 7", "8 to 15"], zoom=zoom, key=f"shots-{run.id}"
            )
    with right:
        logs = {row["name"]: pictures.log_of(run) for row, run in zip(rows.to_dict("records"), runs)}
        terms = figures.terms(logs)
        if not terms:
            st.info("The chosen runs have no readable log.")
            return
        term = st.selectbox("Curve", terms, key="curve", bind="query-params")
        figure = figures.learning_curves(logs, term=term, mark=moment)
        st.plotly_chart(figure, key="curves", config={"displaylogo": False}, alt=f"Learning curves of {term}")
        if silent := [name for name, log in logs.items() if not len(figures.curve(log, "images", term)[0])]:
            st.caption(frame.plain(f"Without {term} in the log, so not drawn: {', '.join(silent)}."))


def _shot(row: dict[str, object], run: Run, shots: list[tuple[int, Path]], moment: int) -> pictures.Column:
    """The last snapshot up to a moment."""
    past = [(images, path) for images, path in shots if images <= moment]
    if not past:
        return pictures.Column(str(row["name"]), "no snapshot so early")
    return pictures.snapshot(str(row["name"]), *past[-1])


if mode == "learn":
    learn()
    frame.end()


def without(order: str) -> None:
    """Say that the distances of an order are not there, and what makes them."""
    if first_noise:
        st.info(f"Distances and real images are kept beside the noises 0 to {SHEET - 1} alone; "
                "with First noise at 0 they are here.")  # fmt: skip
        return
    asked = [k for k, run in enumerate(runs) if order == NEAR_REAL or run.recipe.teacher]
    if not asked:
        st.info("None of the chosen models has a teacher to be compared with; choose a student above.")
        return
    asked = [k for k in asked if beside[k] is None]
    if not asked:
        st.info("There is no perceptual distance for images of this kind (lab/perceptual.py says for which there is).")
        return
    st.info("How far these images lie from their teacher's and from real ones is not kept yet. "
            "This works it out, once for each model:")  # fmt: skip
    frame.show_command("\n".join(neighbours_command(runs[k]) for k in asked))


found, here = sheets_of(runs, first_noise)
absent = [k for k, run in enumerate(runs) if found[k] is None and (run.path / "student.safetensors").exists()]
if absent:
    left, right = st.columns([1, 3], vertical_alignment="center")
    if left.button("Draw them here", icon=":material/draw:", type="primary"):
        if draw_here([runs[k] for k in absent], [chosen[k] for k in absent], first_noise, view.reports):
            st.rerun()  # without the button
        found, here = sheets_of(runs, first_noise)
    elif first_noise:
        right.caption(f"The noises {first_noise} to {first_noise + SHEET - 1} are kept of no run.")
    else:
        right.caption(frame.plain(f"No images are kept of {', '.join(chosen[k] for k in absent)}."))
shown = next((f for f in found if f is not None), None)
places = list(range(SHEET if shown is None else len(shown.images)))
if label != "all" and shown is not None:
    places = [k for k in places if int(shown.classes[k]) == names.index(label)]
beside = [pictures.neighbours(run, f) for run, f in zip(runs, found)]
values, said = None, []
if order == FIRST_APART and shown is not None:
    places = by_difference(found, places)
    said.append(f"In order of the mean absolute difference in grey levels from {chosen[0]}, summed over the others.")
elif order != BY_SEED and shown is not None:
    values, of_what = by_neighbours(order, beside, chosen)
    if values is None:
        without(order)
    else:
        places = sorted(places, key=lambda k: -values[k] if order == FAR_TEACHER else values[k])
        said.append(of_what)
lines = lines_of(places[:count], across)
titles = ([line_title(line, shown, names, values) for line in lines] if shown is not None
          else [str(line[0]) for line in lines])  # fmt: skip
columns = columns_of(rows, runs, found, first_noise)
if values is not None and order != NEAR_REAL:
    columns = [replace(c, caption=f"{c.caption}\n{n.to_teacher[places[:count]].mean():.3g} from its teacher's images "
                                  "(mean of those shown)".strip())
               if n is not None and n.to_teacher is not None else c for c, n in zip(columns, beside)]  # fmt: skip
if mode == "nearest":
    if not any(beside):
        without(NEAR_REAL)
        frame.end()
    columns, tiles = with_nearest(columns, beside, places[:count], [neighbours_command(run) for run in runs])
    lines = [[tiles * k + j for k in line for j in range(tiles)] for line in lines]
    told = next(n for n in beside if n)
    said.append(
        f"Each image is followed by the {tiles - 1} nearest to it of the {told.reference}, by Euclidean distance in "
        f"the space of {told.extractor}, not by pixels. A real image of the test split lies {told.usual:.3g} from its "
        f"nearest one (median of {told.usual_of:,}); a model that copied its training images would lie much nearer."
    )
if blind:
    columns = blinded([columns[k] for k in shuffled(chosen, st.session_state["shuffle"])], st.session_state["reveal"])
if mode == "difference":
    columns = as_differences(columns)
if mode in ("swipe", "blink"):
    if len(columns) < 2:
        st.info("Swipe and blink need two models; choose one more above.")
        frame.end()
    with st.container(horizontal=True):
        # Blind, they go by their letters, and under other keys: a name in the URL would tell.
        options, prefix = ([c.title[0] for c in columns], "blind_") if blind else (chosen, "")
        a = st.selectbox("Left" if mode == "swipe" else "First", options, 0, key=f"{prefix}a", bind="query-params",
                         width=240)  # fmt: skip
        b = st.selectbox("Right" if mode == "swipe" else "Second", options, 1, key=f"{prefix}b", bind="query-params",
                         width=240)  # fmt: skip
    columns = [columns[options.index(a)], columns[options.index(b)]]

drawn_as = mode if mode in ("swipe", "blink") else "grid"
pictures.show(columns, lines, titles, zoom=zoom, mode=drawn_as, key=f"pictures-{mode}")


def as_png() -> bytes:
    """What is shown, as one picture."""
    picture = figures.side_by_side(
        [c.images for c in columns], [c.title for c in columns], [c.caption for c in columns],
        rows=[k for line in lines for k in line], across=len(lines[0]) if lines else 1,
        row_titles=[t.replace("\n", ", ") for t in titles], zoom=zoom,
    )  # fmt: skip
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


file_name = re.sub(r"[^a-z0-9]+", "-", f"gallery-{view.data}-{mode}".lower()) + ".png"
st.download_button(
    "Download this picture", as_png, file_name, "image/png", icon=":material/download:", on_click="ignore"
)
said.insert(
    0, "Image k comes from noise seed k and class k mod 10 in every model, drawn with the kept half-precision weights."
)
said += [f"{name} was drawn here by {by}." for name, by in zip(chosen, here) if by]
if mode == "difference":
    said.append(f"White: equal to {columns[0].title}; orange: brighter; blue: darker.")
    said.append(f"Full colour from {255 / GAIN:.0f} of 255 grey levels on.")
if rows["latency_ms"].notna().any():
    timed = rows[rows["latency_ms"].notna()]
    said.append(
        "Milliseconds: "
        + "; ".join(f"{row['name']} {choose.timing_said(row)}" for row in timed.to_dict("records"))
        + "."
    )
st.caption(frame.plain(" ".join(said)))
