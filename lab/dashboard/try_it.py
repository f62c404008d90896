"""Generate now, on this machine, and see how long it takes; walk between noises and classes."""

from __future__ import annotations

import functools
import os
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from lab import choose
from lab.dashboard import drawing, frame, pictures, walking
from lab.dashboard.drawing import AUTO, FORMS, Drawn
from lab.results import Run, stamp

TITLE = "Try it"
ORDER = 40
ICON = ":material/draw:"
URL = "/try_it"

IN_TURN = "all in turn"
WALK_PX = 140  # two beside each other on a phone
MOST_WALKING = 4  # models beside each other, each drawn anew at every step


def spread(drawn: Drawn) -> str:
    t = drawn.timing
    return f"{t['iters']} repeats after warm-up, fastest {ms_said(t['min'])}, 90 % within {ms_said(t['p90'])}"


def faster(mine: Drawn, theirs: Drawn) -> str:
    """How many times faster, with the range that the two medians' 95 % intervals allow."""
    (low, high), (their_low, their_high) = mine.timing["p50_ci95"], theirs.timing["p50_ci95"]
    ratio, least, most = (choose.number(r) for r in (theirs.ms / mine.ms, their_low / high, their_high / low))
    said = f"{ratio} times ({least} to {most})"
    return said if their_low > high or their_high < low else f"{said}: neither is shown to be faster"


def ms_said(ms: float) -> str:
    return f"{ms / 1e3:.2f} s" if ms >= 1000 else f"{ms:.3g} ms"


class Asked(NamedTuple):
    """What was asked for."""

    model: str
    label: str
    count: int
    seed: int
    device: str
    threads: int
    runtime: str
    precision: str


# --- the page -----------------------------------------------------------------------------------


def spec_of(run: Run) -> dict[str, object]:
    """data, size, channels, num_classes, class_names of a run's images, as its student.json says."""
    return (run.read("student") or {}).get("spec", {})


def class_names(run: Run) -> list[str]:
    """What a run's classes are called; [] of images without."""
    spec = spec_of(run)
    return [str(c) for c in spec.get("class_names") or range(int(spec.get("num_classes") or 0))]


def teacher_of(row: pd.Series, table: pd.DataFrame) -> str | None:
    """The name of the run that taught this one, if it is among those that can draw here."""
    taught = str(row["teacher"] or "")
    for name, other in table.iterrows():
        aliases = other["aliases"] if isinstance(other.get("aliases"), list) else []
        if taught == f"run:{other['run']}" or taught in aliases:
            return str(name)
    return None


def code(run_id: str, seed: int, count: int, label: int | None, device: str, threads: int, form: str) -> str:
    """The same in Python; `form` is a runtime and a precision, or AUTO."""
    more = (f", threads={threads}" if threads else "") + ("" if device == "cpu" else f', device="{device}"')
    runtime, _, precision = form.partition(" ")
    how = f"fastest(run, batch={count}{more})" if form == AUTO else f'named(run, "{runtime}", "{precision}"{more})'
    y = "" if label is None else f", y={label}"
    return "\n".join([
        "import lab", "from lab import fastest, figures", "", f'run = lab.Store().get("{run_id}")',
        f"drawn = fastest.{how}",
        f"images = drawn.sample(range({seed}, {seed + count}){y})  # uint8 ({count}, C, H, W)",
        f"figures.side_by_side([images], [run.label], rows=range({count}), across={min(8, count)})",
    ])  # fmt: skip


def show(was: Asked, drawn: dict[str, Drawn], took: float, zoom: int) -> None:
    """Times and images of the chosen model, and of its teacher beside it."""
    mine, *others = drawn.values()
    for who, made in drawn.items():
        if not made.finite:
            st.error(f"The images of {frame.plain(who)} hold NaN or infinite values: its weights are broken, or "
                     f"numbers overflow on {was.device}. Check with `python -m lab verify`.")  # fmt: skip
    load, first = mine.ready.load_ms, mine.ready.first_ms
    tiles = st.columns(4)
    tiles[0].metric(
        "Cold start", ms_said(load + first), border=True,
        help=f"Loading {ms_said(load)} and the first image {ms_said(first)}, taken when this network was loaded. "
             f"Importing torch took {ms_said(drawing.torch_of()[0])}, once per server.",
    )  # fmt: skip
    tiles[1].metric(
        "Warm", ms_said(mine.ms), border=True,
        help=f"All {was.count} together: median of {spread(mine)}. From noise seeds to uint8 images in memory.",
    )  # fmt: skip
    tiles[2].metric("Per image", ms_said(mine.ms / was.count), border=True)
    for theirs in others:
        tiles[3].metric(
            "Speed-up", f"{choose.number(theirs.ms / mine.ms)}x", border=True,
            help=f"Over the teacher: {faster(mine, theirs)}. It took {ms_said(theirs.ms)}, median of {spread(theirs)}.",
        )  # fmt: skip
    for who, made in drawn.items():
        if not made.ready.drawer.right and made.finite:
            st.warning(f"{frame.plain(who)} draws other images by {made.form} than its network does: "
                       f"{made.ready.drawer.off:.2g} off on average, in [-1, 1].")  # fmt: skip
    by = "; ".join(f"{who} by {made.said}" for who, made in drawn.items())
    st.caption(
        frame.plain(f"First images {took:.1f} s after the press. Drawn on {was.device}: {by}.")
        + f" Warm: {was.count} at once, median of {spread(mine)}, with noise and conversion to uint8. The timer is "
        "that of `python -m lab bench`, but for a second only: a quick look on a machine that may be busy."
    )
    names = {who: f"{ms_said(d.ms)} warm\n{d.form}" for who, d in drawn.items()}
    show_images({who: d.images for who, d in drawn.items()}, names, was.seed, zoom=zoom, key="drawn_pictures")


def show_images(images: dict[str, np.ndarray], captions: dict[str, str], seed: int, *, zoom: int, key: str) -> None:
    """Images (N, C, H, W) of one model, or of it and its teacher, on the noises from `seed` on."""
    count = len(next(iter(images.values())))
    across = 8 if count > 8 and len(images) == 1 else min(count, 4)
    lines = [list(range(i, min(i + across, count))) for i in range(0, count, across)]
    titles = [f"{seed + line[0]}" + (f" to {seed + line[-1]}" if len(line) > 1 else "") for line in lines]
    columns = [pictures.Column(name if k == 0 else f"{name} (teacher)", captions[name], images[name])
               for k, name in enumerate(images)]  # fmt: skip
    pictures.show(columns, lines, titles, zoom=zoom, key=key)


def zoom_for(side: int, px: int = 64) -> int:
    return max(1, round(px / side))


@st.fragment
def walk() -> None:
    """Students between two noises and two classes, drawn anew wherever the sliders stand."""
    able = [n for n, role, time in zip(table["name"], table["role"], table["time"]) if not (role == "teacher" and time)]
    first = sorted(able, key=lambda other: other != name)[:MOST_WALKING]
    chosen = st.multiselect("Models", able, first, max_selections=MOST_WALKING, key="walk_models", bind="query-params")
    if not chosen:
        st.info("Choose at least one student.")
        return
    runs = [Run(view.store.root / "runs" / table.loc[n]["run"]) for n in chosen]
    classes = class_names(runs[0])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        seeds = tuple(st.number_input(f"{end} noise", 0, 2**31, k, key=f"walk_seed_{k}", bind="query-params", width=140)
                      for k, end in enumerate(("From", "To")))  # fmt: skip
        ends = {"noise": (f"noise {seeds[0]}", f"noise {seeds[1]}")}
        of = (0, 0)
        if classes:
            said = [st.selectbox(f"{end} class", classes, k, key=f"walk_class_{k}", bind="query-params", width=160)
                    for k, end in enumerate(("From", "To"))]  # fmt: skip
            of, ends["label"] = tuple(classes.index(s) for s in said), tuple(said)
    sizes = choose.shipped(table)["params_m"]
    captions = [f"{choose.brief(sizes[n])} M parameters" for n in chosen]
    try:
        walks = [drawing.walk(str(run.path), stamp(run.path / "student.safetensors")) for run in runs]
        draw = [functools.partial(walk.images, seeds, of) for walk in walks]
        walking.show(draw, chosen, captions, ends, zoom=zoom_for(walks[0].spec.size, WALK_PX), key="walk_pictures")
    except drawing.FAULTS as error:
        st.error(frame.plain(drawing.sentence(error, 1)))
        return
    st.caption("Between two noises the way is an arc, on which their variance stays; between two classes their "
               "embeddings are mixed. No student was trained on either.")  # fmt: skip


view = frame.view()
drawing.imports()  # while the page is read, so that whoever presses need not wait for them
st.title("Draw now, on this machine")
table = view.runs
if len(table):
    drawable = [(view.store.root / "runs" / r / "student.safetensors").exists() for r in table["run"]]
    table = table[pd.Series(drawable, index=table.index) & (table["state"] == "done")]
if table.empty:
    frame.empty("No finished network to draw with yet. This trains one:",
                "python -m lab run recipes/fashion-teacher.json --name-teacher fashion-teacher")  # fmt: skip
table = table.assign(late=table["role"] == "teacher").sort_values(
    ["late", "pin", "fd"], ascending=[True, False, True], kind="stable").set_index("name", drop=False)  # fmt: skip

left, right = st.columns([2, 5], gap="large")
with left:
    name = st.selectbox("Model", table.index.tolist(), key="model", bind="query-params")
    row = table.loc[name]
    run = Run(view.store.root / "runs" / row["run"])
    spec = spec_of(run)
    classes = class_names(run)
    label = st.selectbox("Class", [IN_TURN, *classes], key="draw_class", bind="query-params") if classes else IN_TURN
    with st.container(horizontal=True):
        count = st.number_input("Images", 1, 1024, 16, key="count", bind="query-params", width=114)
        seed = st.number_input("First seed", 0, 2**31, 0, key="seed", bind="query-params", width=114,
                               help="Image k is drawn from noise seed (first seed + k).")  # fmt: skip
    teacher = teacher_of(row, table)
    also = teacher is not None and st.checkbox("Also run the teacher", True, key="also_teacher", bind="query-params")
    pressed = st.button("Generate", type="primary", icon=":material/draw:", width="stretch")
    with st.expander("Device, runtime, zoom", icon=":material/tune:"):
        a, b = st.columns(2)
        device = a.selectbox("Device", ["cpu", "cuda", "mps"], key="device_here", bind="query-params")
        threads = b.number_input("Threads", 0, os.cpu_count() or 1, 0, key="threads_here", bind="query-params",
                                 help="0 = as many as torch takes by itself.")  # fmt: skip
        runtime = a.selectbox("Runtime", [AUTO, *FORMS], key="runtime_here", bind="query-params",
                              help="fastest: of those that draw its own images, in floating point")  # fmt: skip
        known = ["as it is fastest"] if runtime == AUTO else list(FORMS[runtime])
        precision = b.selectbox("Precision", known, key="precision_here", bind="query-params", disabled=len(known) == 1)
        zoom = st.slider("Zoom", 1, 16, zoom_for(int(spec.get("size") or 28)), key="draw_zoom", bind="query-params")

chosen = None
if classes:
    chosen = [k % len(classes) if label == IN_TURN else classes.index(label) for k in range(count)]
asked = Asked(name, label, count, seed, device, threads, runtime, precision)
with right:
    if pressed:
        pressed_at = time.perf_counter()
        st.session_state.pop("drawn", None)
        seeds = range(seed, seed + count)
        where = {"runtime": runtime, "precision": precision, "device": device, "threads": threads}
        line, place = st.empty(), st.empty()  # what is being done, and the first images while the rest is worked out
        try:
            waits = drawing.imports().is_alive()
            line.caption("Importing torch, once per server ..." if waits else f"{frame.plain(name)} draws ...")
            images = drawing.at_once(run, seeds, chosen, **where)
            took = time.perf_counter() - pressed_at
            with place.container():
                show_images({name: images}, {name: "first images"}, seed, zoom=zoom, key="first_pictures")
            line.caption(f"{count} images after {took:.1f} s. Finding the fastest runtime and timing it ...")
            drawn = {name: drawing.generate(run, seeds, chosen, view.reports, timed=True, **where)}
            if also:
                line.caption(f"{count} images after {took:.1f} s. Its teacher {frame.plain(teacher)} draws ...")
                other = Run(view.store.root / "runs" / table.loc[teacher]["run"])
                drawn[teacher] = drawing.generate(other, seeds, chosen, view.reports, timed=True, device=device,
                                                  threads=threads)  # fmt: skip
            st.session_state["drawn"] = (asked, drawn, took)
        except drawing.FAULTS as error:
            st.error(frame.plain(drawing.sentence(error, count)))
        line.empty()
        place.empty()
    if "drawn" in st.session_state:
        was, drawn, took = st.session_state["drawn"]
        if was != asked:
            st.warning("The settings have changed since this was drawn: press Generate again.")
        show(was, drawn, took, zoom)
    elif not pressed:
        st.info("Press **Generate**. Torch is loaded meanwhile, once per server.")
        if (kept := pictures.samples(run)) is not None:
            show_images({name: kept.images[:16]}, {name: "kept when it was trained"}, 0, zoom=zoom, key="kept_pictures")

if st.toggle("Walk between two noises and two classes", key="walk", bind="query-params",
             help=f"Up to {MOST_WALKING} one-step students, drawn live"):  # fmt: skip
    with st.container(border=True):
        walk()

form = AUTO if runtime == AUTO else f"{runtime} {precision}"
with st.expander("The same in Python and in a terminal"):
    st.code(
        code(row["run"], seed, count, None if label == IN_TURN else classes.index(label), device, threads, form),
        language="python",
    )
    more = ("" if label == IN_TURN else f" --class {classes.index(label)}") + f" --device {device}"
    command = f"python -m lab sample {row['run']} --count {count} --seed {seed}{more} --out samples.png"
    frame.show_command(command)
frame.footer(table.loc[[name]], command, "try_it")
