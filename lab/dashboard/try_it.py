"""Generate now, on this machine, and see how long it takes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from lab import choose
from lab.dashboard import frame, pictures
from lab.results import Run, Store, read_json

if TYPE_CHECKING:
    from lab.sampling import Student

TITLE = "Try it"
ORDER = 40
ICON = ":material/draw:"
URL = "/try_it"

LOOK = {"iters": 5, "seconds": 1.0, "warmup_iters": 5, "warmup_s": 0.2, "warmup_cap_s": 1.0}  # enough for a look
IN_TURN = "all in turn"
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")  # as CUDA and the CPU say it


@dataclass(frozen=True)
class Ready:
    """A network in memory, with what it cost to get there."""

    student: Student
    load_ms: float
    first_ms: float  # one image, right after loading


@dataclass(frozen=True)
class Drawn:
    """Images, and how long it took to make them: from noise seeds to uint8 in memory."""

    images: np.ndarray  # (N, C, H, W) uint8
    finite: bool
    ready: Ready
    timing: Mapping[str, Any]  # of a device report: p50, p50_ci95, p90, min, iters, all images together

    @property
    def ms(self) -> float:
        return self.timing["p50"]

    @property
    def spread(self) -> str:
        t = self.timing
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


# --- torch, only behind the button --------------------------------------------------------------


@st.cache_resource(show_spinner="Loading torch, once per server ...")
def torch_of() -> tuple[float, int, threading.Lock]:
    """What the import took (ms), torch's own number of threads, and the lock: two generations would slow each other."""
    began = time.perf_counter()
    import torch

    import lab.sampling  # noqa: F401 - its import is part of the cold start

    return 1e3 * (time.perf_counter() - began), torch.get_num_threads(), threading.Lock()


@st.cache_resource(max_entries=2, show_spinner=False)
def ready(run_path: str, stamp: tuple[int, int], device: str, threads: int) -> Ready:
    """A run's network in memory, in eval mode; raises ValueError where the device is not there."""
    import torch

    from lab import sampling

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch sees no CUDA device on this machine; choose cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("torch sees no Apple GPU on this machine; choose cpu")
    run = Run(Path(run_path))
    began = time.perf_counter()
    student = sampling.load(run.id, Store(run.path.parent.parent), device)
    loaded = time.perf_counter()
    draw(student, [0], None)
    return Ready(student, 1e3 * (loaded - began), 1e3 * (time.perf_counter() - loaded))


def draw(student: Student, seeds: Sequence[int], classes: Sequence[int] | None) -> tuple[np.ndarray, bool]:
    """uint8 images (N, C, H, W) on the host, and whether all were finite."""
    import torch

    from lab import diffusion

    z, drawn = diffusion.noise_of(seeds, student.spec.shape, student.spec.num_classes)
    images = student(z, drawn if classes is None else torch.tensor(classes))
    finite = bool(torch.isfinite(images).all())
    return diffusion.to_uint8(images.nan_to_num()).cpu().numpy(), finite


def generate(run: Run, seeds: Sequence[int], classes: Sequence[int] | None, *, device: str, threads: int) -> Drawn:
    """Images of a run and their times; the number of threads is put back afterwards."""
    import torch

    from lab.devices import runner

    _, own_threads, lock = torch_of()
    weights = (run.path / "student.safetensors").stat()
    with lock:
        torch.set_num_threads(threads or own_threads)
        try:
            made = ready(str(run.path), (weights.st_mtime_ns, weights.st_size), device, threads)
            images, finite = draw(made.student, seeds, classes)
            preset = runner.Preset("look", **LOOK)
            timed = runner.time_calls(lambda: draw(made.student, seeds, classes), preset, runner.preflight(preset))
        finally:
            torch.set_num_threads(own_threads)
    return Drawn(images, finite, made, timed.timing)


def sentence(error: Exception, count: int) -> str:
    """What went wrong, and what to do."""
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, MemoryError) or any(words in said.lower() for words in NO_MEMORY):
        return f"Out of memory with {count} images at once. Try {max(1, count // 2)}."
    return str(error) if isinstance(error, LookupError | ValueError) else said


# --- the page -----------------------------------------------------------------------------------


def spec_of(run: Run) -> dict[str, object]:
    """data, size, channels, num_classes, class_names of a run's images, as its student.json says."""
    student = read_json(run.path / "student.json")
    spec = student.get("spec") if isinstance(student, dict) else None
    return spec if isinstance(spec, dict) else {}


def teacher_of(row: pd.Series, table: pd.DataFrame) -> str | None:
    """The name of the run that taught this one, if it is among those that can draw here."""
    taught = str(row["teacher"] or "")
    for name, other in table.iterrows():
        aliases = other["aliases"] if isinstance(other.get("aliases"), list) else []
        if taught == f"run:{other['run']}" or taught in aliases:
            return str(name)
    return None


def code(run_id: str, seed: int, count: int, label: int | None, device: str, threads: int) -> str:
    """The same in Python."""
    lines = ["import lab", "from lab import figures", ""]
    if threads:
        lines[0] = "import torch\n\nimport lab"
        lines.insert(2, f"\ntorch.set_num_threads({threads})")
    where = "" if device == "cpu" else f', device="{device}"'
    y = f"[k % student.spec.num_classes for k in range({count})]" if label is None else str(label)
    lines += [
        f'student = lab.load("{run_id}"{where})',
        f"images = student.sample(range({seed}, {seed + count}), y={y})  # uint8 ({count}, C, H, W)",
        f"figures.side_by_side([images], [student.run.label], rows=range({count}), across={min(8, count)})",
    ]
    return "\n".join(lines)


def show(was: Asked, drawn: dict[str, Drawn], zoom: int) -> None:
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
             f"Importing torch took {ms_said(torch_of()[0])}, once per server.",
    )  # fmt: skip
    tiles[1].metric(
        "Warm", ms_said(mine.ms), border=True,
        help=f"All {was.count} together: median of {mine.spread}. From noise seeds to uint8 images in memory.",
    )  # fmt: skip
    tiles[2].metric("Per image", ms_said(mine.ms / was.count), border=True)
    for theirs in others:
        tiles[3].metric(
            "Speed-up", f"{choose.number(theirs.ms / mine.ms)}x", border=True,
            help=f"Over the teacher: {faster(mine, theirs)}. It took {ms_said(theirs.ms)}, median of {theirs.spread}.",
        )  # fmt: skip
    threads = was.threads or torch_of()[1]
    where = f"{was.device}, {threads} thread{'s' * (threads > 1)}, runtime eager"
    st.caption(
        f"Warm: {was.count} at once, median of {mine.spread}; {where}, one-step students in float32, denoisers in "
        "bfloat16, with noise and conversion to uint8. The timer is that of `python -m lab bench`, but for a second "
        "only: a quick look on a machine that may be busy."
    )
    across = 8 if was.count > 8 and not others else min(was.count, 4)
    lines = [list(range(i, min(i + across, was.count))) for i in range(0, was.count, across)]
    titles = [f"{was.seed + line[0]}" + (f" to {was.seed + line[-1]}" if len(line) > 1 else "") for line in lines]
    names = [name if name == was.model else f"{name} (teacher)" for name in drawn]
    columns = [pictures.Column(n, f"{ms_said(d.ms)} warm", d.images) for n, d in zip(names, drawn.values())]
    pictures.show(columns, lines, titles, zoom=zoom, key="drawn_pictures")


view = frame.view()
st.title("Draw now, on this machine")
table = view.runs
if len(table):
    drawable = [(view.store.root / "runs" / r / "student.safetensors").exists() for r in table["run"]]
    table = table[pd.Series(drawable, index=table.index) & (table["state"] == "done")]
if table.empty:
    frame.empty("No finished network to draw with yet. This trains one:",
                "python -m lab run recipes/fashion-teacher.json --name-teacher fashion-teacher")  # fmt: skip
fd = pd.to_numeric(table.get("fd", pd.Series(index=table.index)), errors="coerce")
table = table.assign(fd=fd, late=table["role"] == "teacher").sort_values(
    ["late", "pin", "fd"], ascending=[True, False, True], kind="stable").set_index("name", drop=False)  # fmt: skip

left, right = st.columns([2, 5], gap="large")
with left:
    name = st.selectbox("Model", table.index.tolist(), key="model", bind="query-params")
    row = table.loc[name]
    run = Run(view.store.root / "runs" / row["run"])
    spec = spec_of(run)
    classes = [str(c) for c in spec.get("class_names") or range(int(spec.get("num_classes") or 0))]
    label = st.selectbox("Class", [IN_TURN, *classes], key="draw_class", bind="query-params") if classes else IN_TURN
    a, b = st.columns(2)
    count = a.number_input("Images", 1, 1024, 16, key="count", bind="query-params")
    seed = b.number_input("First seed", 0, 2**31, 0, key="seed", bind="query-params",
                          help="Image k is drawn from noise seed (first seed + k), in whatever company.")  # fmt: skip
    device = a.selectbox("Device", ["cpu", "cuda", "mps"], key="device_here", bind="query-params")
    threads = b.number_input("Threads", 0, os.cpu_count() or 1, 0, key="threads_here", bind="query-params",
                             help="0 = as many as torch takes by itself.")  # fmt: skip
    teacher = teacher_of(row, table)
    also = teacher is not None and st.checkbox("Also run the teacher", True, key="also_teacher", bind="query-params")
    pressed = st.button("Generate", type="primary", icon=":material/draw:", width="stretch")
    zoom = st.slider(
        "Zoom", 1, 16, max(1, round(64 / int(spec.get("size") or 28))), key="draw_zoom", bind="query-params"
    )

chosen = None
if classes:
    chosen = [k % len(classes) if label == IN_TURN else classes.index(label) for k in range(count)]
asked = Asked(name, label, count, seed, device, threads)
with right:
    if pressed:
        st.session_state.pop("drawn", None)
        seeds = range(seed, seed + count)
        try:
            with st.spinner("Drawing ..."):
                drawn = {name: generate(run, seeds, chosen, device=device, threads=threads)}
                if also:
                    other = Run(view.store.root / "runs" / table.loc[teacher]["run"])
                    drawn[teacher] = generate(other, seeds, chosen, device=device, threads=threads)
            st.session_state["drawn"] = (asked, drawn)
        except (RuntimeError, ValueError, LookupError, MemoryError, OSError) as error:
            st.error(frame.plain(sentence(error, count)))
    if "drawn" in st.session_state:
        was, drawn = st.session_state["drawn"]
        if was != asked:
            st.warning("The settings have changed since this was drawn: press Generate again.")
        show(was, drawn, zoom)
    elif not pressed:
        st.info("Press **Generate**. The first time also loads torch, which takes seconds; this page opens without it.")

with st.expander("The same in Python and in a terminal"):
    st.code(
        code(row["run"], seed, count, None if label == IN_TURN else classes.index(label), device, threads),
        language="python",
    )
    more = ("" if label == IN_TURN else f" --class {classes.index(label)}") + f" --device {device}"
    st.code(
        f"python -m lab sample {row['run']} --count {count} --seed {seed}{more} --out samples.png",
        language="bash",
    )
