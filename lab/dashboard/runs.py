"""What runs, what has finished, and how do two recipes differ?"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from lab import choose, figures, jobs
from lab.config import (
    DTYPES,
    FAMILIES,
    JSON,
    OPTIMIZERS,
    SCHEDULES,
    DiTConfig,
    Recipe,
    TeacherName,
    Use,
    config_to_json,
)
from lab.dashboard import frame, pictures
from lab.results import Run, Store, plain_cells

TITLE = "Runs"
ORDER = 50
ICON = ":material/format_list_bulleted:"
URL = "/runs"

MOST = 6  # runs beside each other
DATA = ("digits", "fashion-mnist", "cifar10")
LIVE = 8  # unfinished runs that are shown in full
SMOKE = "python -m lab run --data digits --method denoise --unet 16,32 --steps 500 --name-teacher digits-teacher"
C = st.column_config
COLUMNS: dict[str, Any] = {
    "name": C.TextColumn("Run", pinned=True, width=130),
    "state": C.TextColumn("State"),
    "data": C.TextColumn("Data"),
    "method": C.TextColumn("Method"),
    "shape": C.TextColumn("Shape"),
    "evaluations": C.NumberColumn("Evaluations", help="Passes of the network for one image"),
    "params_m": C.NumberColumn("Parameters (M)", format="%.3f", help=choose.SIZES_SAID),
    "params_trained_m": C.NumberColumn("as trained (M)", format="%.3f", help="Parameters before deployment"),
    "fd": C.NumberColumn("FD", format="%.3f", help="Frechet distance; lower is better"),
    "kid": C.NumberColumn("KID", format="%.4f"),
    "fd_teacher": C.NumberColumn("FD to teacher", format="%.3f"),
    "class_accuracy": C.NumberColumn("Class accuracy", format="%.3f"),
    "teacher_l1": C.NumberColumn("L1 to teacher", format="%.4f"),
    "protocol": C.TextColumn("Measured with"),
    "done": C.ProgressColumn("Done", min_value=0, max_value=1, format="percent"),
    "images": C.NumberColumn("Images", format="localized"),
    "minutes": C.NumberColumn("Training (min)", format="%.1f"),
    "file_mb": C.NumberColumn("File (MB)", format="%.2f", help=choose.SIZES_SAID),
    "file_trained_mb": C.NumberColumn("File as trained (MB)", format="%.2f"),
    "macs_m": C.NumberColumn("MACs per image (M)", format="%.1f", help=choose.SIZES_SAID),
    "macs_trained_m": C.NumberColumn("MACs per image as trained (M)", format="%.1f"),
    "lr": C.NumberColumn("Rate", format="%.2e"),
    "batch": C.NumberColumn("Batch"),
    "optimizer": C.TextColumn("Optimizer"),
    "seed": C.NumberColumn("Seed"),
    "teacher": C.TextColumn("Teacher"),
    "pin": C.CheckboxColumn("Pinned"),
    "hide": C.CheckboxColumn("Hidden"),
    "notes": C.TextColumn("Notes", width="large"),
    "error": C.TextColumn("Error", width="large"),
    "run": C.TextColumn("Id", width="large"),
}
BESIDE = {"fd": "fd_better", "params_m": "params_better"}  # that are held against the baseline
COLUMNS |= {name: C.NumberColumn(f"{COLUMNS[of]['label']}, % better", format="%+.0f",
                                 help="Than the baseline of the sidebar; below 0 it is worse")
            for of, name in BESIDE.items()}  # fmt: skip
FIRST = ["name", "state", "data", "method", "evaluations", "params_m", "params_trained_m", "fd", "done", "images",
         "minutes", "notes"]  # fmt: skip
STATES = ["running", "queued", "stale", "stopped", "failed", "done", "unreadable"]


# --- the table ----------------------------------------------------------------------------------


def listed(table: pd.DataFrame, words: str, *, hidden: bool) -> pd.DataFrame:
    """The runs that hold all words in name, id, data, method, state or notes: pinned first, then the best."""
    shown = table if hidden else table[~table["hide"]]
    text = pd.Series("", index=shown.index, dtype=str)
    for column in ("name", "run", "data", "method", "state", "notes"):
        text += " " + shown[column].str.lower()
    for word in words.lower().split():
        shown = shown[text[shown.index].str.contains(word, regex=False)]
    shown = shown.assign(
        **choose.shipped(shown), minutes=shown["train_seconds"] / 60, done=(shown["step"] / shown["steps"]).clip(0, 1),
        rank=shown["state"].map({s: k for k, s in enumerate(STATES)}).fillna(len(STATES)),
    )  # fmt: skip
    order = shown.sort_values(["pin", "fd", "rank", "run"], ascending=[False, True, True, True], kind="stable")
    return order.reset_index(drop=True)


def against_baseline(shown: pd.DataFrame, everyone: pd.DataFrame) -> pd.DataFrame:
    """The runs with how much better than the baseline each is in quality and size, in %; as they are without one."""
    base = frame.baseline(everyone.assign(**choose.shipped(everyone)))
    if base is None:
        return shown
    shares = 100 * choose.better_by(shown, base, list(BESIDE))
    return shown.assign(**{BESIDE[column]: shares[column] for column in BESIDE})


def time_said(seconds: float) -> str:
    """A duration as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# --- what runs now ------------------------------------------------------------------------------


def unfinished(store: Store) -> list[Run]:
    """Runs that are not done and can be read, running ones first. A done run stays done: it is asked once a session."""
    settled: set[str] = st.session_state.setdefault("settled_runs", set())
    found = []
    for run in store.runs():
        if run.id in settled:
            continue
        state = run.status().state
        if state == "done":
            settled.add(run.id)
        elif run.fault() is None:
            found.append((STATES.index(state), run))
    return [run for _, run in sorted(found, key=lambda pair: (pair[0], pair[1].id))]


@st.fragment(run_every="2s")
def live(store: Store) -> None:
    """Unfinished runs with their progress and what can be done; the page is drawn anew when a run changes state."""
    runs = unfinished(store)
    states = tuple((run.id, run.status().state) for run in runs)
    if st.session_state.setdefault("live_states", states) != states:
        st.session_state["live_states"] = states
        st.rerun(scope="app")
    for run in runs[:LIVE]:
        with st.container(border=True):
            one(run)
    if (more := len(runs) - LIVE) > 0:
        st.caption(f"{more} more unfinished runs are in the table below.")


def one(run: Run) -> None:
    """One unfinished run."""
    status, now = run.status(), jobs.progress(run)
    pid = jobs.process_of(run)
    started = st.session_state.get("started_runs", {}).get(run.id)
    stopping = run.id in st.session_state.get("stopping_runs", ())
    starting = started is not None and not stopping and status.state != "running" and jobs.alive(started)
    left, right = st.columns([5, 1], vertical_alignment="center")
    with left:
        state = "starting" if starting else status.state
        st.markdown(f"**{frame.plain(run.label)}** {frame.plain(state)}" + (f", process {pid}" if pid else ""))
        speed = f", {now.images_per_s:,.0f} images/s" if now.images_per_s and status.state == "running" else ""
        to_go = f", {time_said(now.eta_s)} to go" if now.eta_s is not None and status.state == "running" else ""
        st.progress(now.share, f"{now.step:,} of {now.steps:,} updates, {now.images:,} images{speed}{to_go}")
        for wrong in (status.error, st.session_state.get("refused_runs", {}).get(run.id)):
            if wrong:
                st.error(frame.plain(wrong))
        if status.state == "running" and stopping:
            st.caption("Asked to stop: it saves its state and ends after the update it is in.")
        elif status.state == "running" and not now.step and (said := jobs.last_words(run, 1)):
            st.caption(frame.plain(said))  # making pairs, compiling
        if starting:
            st.caption(f"Process {started} is loading; its first update follows.")
        elif status.resumable:
            if status.state == "stale":
                st.caption("Stopped, resumable: its process is gone. It goes on where it last saved.")
            st.code(jobs.command(run), language="bash", wrap_lines=True)
            if started is not None and (said := jobs.last_words(run)):
                st.caption("The process ended; its last words:")
                st.code(said, language=None, wrap_lines=True)
    with right:
        if status.state == "running":
            about = "Saves its state and ends; it can go on later." if pid else "It does not run on this machine."
            st.button("Stop", key=f"stop-{run.id}", disabled=pid is None, width="stretch", help=about,
                      on_click=act, args=(end, run))  # fmt: skip
        elif status.resumable and not starting:
            word = "Start" if status.state == "queued" else "Resume"
            st.button(word, key=f"resume-{run.id}", width="stretch", on_click=act, args=(begin, run))


def begin(run: Run) -> None:
    st.session_state.setdefault("started_runs", {})[run.id] = jobs.start(run)
    st.session_state.get("stopping_runs", set()).discard(run.id)


def end(run: Run) -> None:
    jobs.stop(run)
    st.session_state.setdefault("stopping_runs", set()).add(run.id)


def act(action: typing.Callable[[Run], None], run: Run) -> None:
    """Start or stop a run's process; what went wrong is shown beside the run."""
    refused: dict[str, str] = st.session_state.setdefault("refused_runs", {})
    refused.pop(run.id, None)
    try:
        action(run)
    except (OSError, ValueError, LookupError) as error:
        refused[run.id] = str(error)


# --- a new run ----------------------------------------------------------------------------------


@st.cache_resource(show_spinner="Loading the methods ...")
def laboratory() -> tuple[types.ModuleType, types.ModuleType]:
    """lab.experiment and lab.methods: they load torch, so only an open form asks for them."""
    from lab import experiment, methods

    return experiment, methods


@st.cache_data(max_entries=16, show_spinner=False)
def image_of(root: str, data: str, teacher: str | None) -> dict[str, int] | None:
    """image_size, channels and num_classes of a recipe's images; None where they can't be known before the run."""
    from lab import data as data_sets
    from lab import weights

    try:
        if teacher and TeacherName.parse(teacher).is_run:
            spec = weights.spec_of_run(Store(root).get(teacher))
        elif teacher or data.startswith("folder:"):
            return None
        else:
            spec = data_sets.spec_of(data, data_sets.load(data))
    except (LookupError, ValueError, OSError):
        return None
    return {"image_size": spec.size, "channels": spec.channels, "num_classes": spec.num_classes}


def comments(cls: type) -> dict[str, str]:
    """The comment beside each field of a dataclass, inherited ones too: the same words in code and form."""
    sources = "\n".join(inspect.getsource(base) for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base))
    found = re.findall(r"^ +(\w+): [^#\n]*#\s*(.+)$", sources, re.MULTILINE)
    return {name: said[0].upper() + said[1:] for name, said in found}


def field(name: str, hint: Any, value: JSON, help: str | None, key: str,
          choices: tuple[str, ...] | None = None) -> JSON:  # fmt: skip
    """A widget for one field of a dataclass; gives the value as JSON."""
    if choices is not None:
        options = list(dict.fromkeys([*choices, *([value] if isinstance(value, str) else [])]))
        index = options.index(value) if value in options else None
        return st.selectbox(
            name, options, index, key=key, help=help, accept_new_options=name in ("data", "teacher"), placeholder="none"
        )
    if hint is bool:
        return st.checkbox(name, bool(value), key=key, help=help)
    if hint is int:
        return int(st.number_input(name, value=int(value), step=1, key=key, help=help))
    if hint is float:
        step = 10.0 ** math.floor(math.log10(abs(value))) if value else 0.1
        return float(st.number_input(name, value=float(value), step=step, format="%g", key=key, help=help))
    if hint is str:
        return st.text_input(name, str(value), key=key, help=help)
    text = st.text_input(name, json.dumps(value), key=key, help=f"{help or name} (as JSON: null, [1, 2], ...)")
    try:
        return json.loads(text or "null")
    except ValueError:
        return text


def fields(
    cls: type,
    values: Mapping[str, JSON],
    key: str,
    choices: Mapping[str, tuple[str, ...]] = types.MappingProxyType({}),
    leave_out: tuple[str, ...] = (),
) -> dict[str, JSON]:
    """Widgets for all fields of a dataclass, four in a row."""
    hints, said, made = typing.get_type_hints(cls), comments(cls), {}
    names = [f.name for f in dataclasses.fields(cls) if f.name not in leave_out]
    grid = st.grid(min_column_width=170)
    for name in names:
        with grid:
            made[name] = field(name, hints[name], values.get(name), said.get(name), f"{key}-{name}", choices.get(name))
    return made


def first_values(store: Store, base: str | None) -> dict[str, Any]:
    """The recipe that the form begins with: a run's, or a small student of the first teacher, or a small teacher."""
    if base:
        return json.loads(Run(store.root / "runs" / base).recipe.to_json())
    for alias in store.teachers():
        try:
            return json.loads(Recipe(data=store.get(alias).recipe.data, teacher=alias, pairs=4096).to_json())
        except (LookupError, OSError, ValueError):
            continue  # an alias whose run is gone or unreadable
    return json.loads(Recipe(methods=(Use("denoise"),), student=DiTConfig(time=True), steps=500).to_json())


@st.fragment
def new_run(store: Store, table: pd.DataFrame) -> None:
    """A form made from the fields of recipe, network and methods; what is wrong with them stands below."""
    experiment, methods = laboratory()
    readable = table[table["state"] != "unreadable"]
    names = dict(zip(readable["run"], readable["name"]))
    base = st.selectbox("Begin with the recipe of", list(names), None, key="new_base", format_func=names.get,
                        placeholder="a small default")  # fmt: skip
    made = first_values(store, base)
    key = f"new-{base}"

    left, right = st.columns(2)
    with left:
        made["data"] = field(
            "data", str, made["data"], "digits, fashion-mnist, cifar10 or folder:<path>", f"{key}-data", DATA
        )
    with right:
        about = "An alias, run:<id> or pipeline:<folder>; none = learn from the data"
        made["teacher"] = field("teacher", str, made["teacher"], about, f"{key}-teacher", tuple(store.teachers()))
    image = image_of(str(store.root), made["data"] or "", made["teacher"])
    key += f"-{made['data']}-{made['teacher']}"

    st.markdown("**Network**")
    student = made["student"]
    family = st.segmented_control(
        "family", list(FAMILIES), default=student["family"], required=True, key=f"{key}-family"
    )
    values = config_to_json(FAMILIES[family]()) | (student if student["family"] == family else {}) | (image or {})
    made["student"] = {"family": family} | fields(FAMILIES[family], values, f"{key}-{family}")

    st.markdown("**Methods**")
    given = {use["method"]: use["options"] for use in made["methods"]}
    known = [m for m in given if m in methods.METHODS]
    chosen = st.multiselect(
        "methods", sorted(methods.METHODS), known, key=f"{key}-methods", label_visibility="collapsed"
    )
    made["methods"] = []
    for name in chosen:
        cls = methods.METHODS[name]
        st.caption(f"{name}: {frame.plain((cls.__doc__ or '').splitlines()[0])} {frame.plain(cls.paper)}")
        options = dataclasses.asdict(methods.create(Use(name))) | given.get(name, {})
        made["methods"].append({"method": name, "options": fields(cls, options, f"{key}-{name}")})

    st.markdown("**Training**")
    made |= fields(Recipe, made, key, {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "dtype": DTYPES},
                   leave_out=("data", "teacher", "student", "methods"))  # fmt: skip
    verdict(experiment, store, made)


def verdict(experiment: types.ModuleType, store: Store, made: Mapping[str, Any]) -> None:
    """What is wrong with a recipe, or its id, its command and the button that starts it."""
    try:
        recipe = Recipe.from_json(json.dumps(made))
        wrong = experiment.check(recipe, store)
    except ValueError as error:
        recipe, wrong = None, [str(error)]
    if wrong:
        st.warning("\n".join(f"- {frame.plain(said)}" for said in wrong))
        return
    planned = experiment.plan(recipe, store)
    run = Run(store.root / "runs" / planned[-1].recipe.id)
    first = f", after {len(planned) - 1} other runs" if len(planned) > 1 else ""
    st.caption(f"{recipe.images:,} images in {recipe.steps:,} updates{first}; its id will be {frame.plain(run.id)}.")
    if run.path.exists() and not run.status().resumable:
        st.info(f"This run is there already, {run.status().state}: equal recipes are the same run.")
    elif st.button("Start this run", type="primary", icon=":material/play_arrow:", key="start_new"):
        for job in planned:
            store.open(job.recipe)
        act(begin, run)
        st.rerun(scope="app")
    st.download_button(
        "Save the recipe", recipe.to_json() + "\n", f"{run.id}.json", "application/json", on_click="ignore"
    )


# --- side by side -------------------------------------------------------------------------------


def curves(runs: Mapping[str, Run]) -> None:
    """Learning curves of some runs, and each one's lowest point."""
    logs = {name: pictures.log_of(run) for name, run in runs.items()}
    terms = figures.terms(logs)
    if not terms:
        st.info("No readable log yet: a run writes its first line after 50 updates.")
        return
    with st.container(horizontal=True):
        term = st.selectbox("Value", terms, key="term", bind="query-params", width=240)
        axis = st.selectbox("Against", ["images", "seconds", "step"], key="axis", bind="query-params", width=160)
    figure = figures.learning_curves(logs, x=axis, term=term)
    st.plotly_chart(
        figure, key="run_curves", config={"displaylogo": False}, alt=f"{term} of the chosen runs over training"
    )
    said = []
    for name, log in logs.items():
        xs, ys = figures.curve(log, axis, term)
        if len(ys):
            said.append(
                {"Run": name, "lowest": ys.min(), f"at {axis}": xs[ys.argmin()], "last": ys[-1], "lines": len(ys)}
            )
    st.dataframe(plain_cells(pd.DataFrame(said)), hide_index=True, width="content", key="lowest")
    if silent := [name for name in logs if name not in [row["Run"] for row in said]]:
        st.caption(f"Without {frame.plain(term)} in the log, so not drawn: {frame.plain(', '.join(silent))}.")


def annotate(run: Run, name: str, data: str) -> None:
    """Label, notes, pin and hide of a run, saved together; and the button that makes it the baseline."""
    notes = run.notes
    is_it = st.session_state.get("baseline") == name
    st.button("The baseline" if is_it else "Set as baseline", key=f"baseline-{run.id}", disabled=is_it,
              icon=":material/flag:", on_click=frame.set_baseline, args=(name, data),
              help="Tables, charts and galleries show how much better or worse a run is than it")  # fmt: skip
    with st.form(f"notes-{run.id}"):
        st.caption(frame.plain(run.id))
        label = st.text_input("Label", notes["label"], max_chars=80, key=f"label-{run.id}")
        words = st.text_area("Notes", notes["notes"], key=f"text-{run.id}", height=90)
        with st.container(horizontal=True, vertical_alignment="center"):
            pin = st.checkbox("Pin", notes["pin"], key=f"pin-{run.id}",
                              help="First here and on the pages Gallery, Try it and Export")  # fmt: skip
            hide = st.checkbox("Hide", notes["hide"], key=f"hide-{run.id}", help="On no page but this one")
            if st.form_submit_button("Save"):
                try:
                    run.set_notes(label=label.strip(), notes=words, pin=pin, hide=hide)
                except ValueError as error:
                    st.error(frame.plain(str(error)))
                else:
                    st.rerun()


# --- the page -----------------------------------------------------------------------------------

store, table = frame.store(), frame.all_runs()
st.title("Runs")
live(store)
frame.tell_unreadable("runs/", "pairs/", "teachers.json")
if table.empty:
    st.info(
        "No run yet. This trains a small teacher on the embedded digits, in about a minute:",
        icon=":material/hourglass_empty:",
    )
    frame.show_command(SMOKE)
else:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = st.text_input(
            "Find", key="find", bind="query-params", placeholder="words in name, method, data, state, notes"
        )
        hidden = st.toggle(f"Hidden ones too ({int(table['hide'].sum())})", key="hidden", bind="query-params")
    shown = against_baseline(listed(table, words, hidden=hidden), table)
    wanted = st.multiselect("Columns", list(COLUMNS), FIRST, key="columns", bind="query-params",
                            format_func=lambda c: COLUMNS[c]["label"])  # fmt: skip
    wanted = [column for of in wanted for column in (of, BESIDE.get(of))]  # each beside what it is of
    columns = [c for c in dict.fromkeys(["name", *wanted]) if c in shown]
    picked = st.dataframe(
        plain_cells(shown[columns].assign(name=frame.hatched(shown["name"], shown["state"]))), hide_index=True,
        column_config=COLUMNS, on_select="rerun", selection_mode="multi-row",
        key="runs_table", height=min(36 * (len(shown) + 1) + 2, 520), alt="All runs",
    )  # fmt: skip
    st.caption(
        f"{len(shown)} of {len(table)} runs: pinned ones first, then by FD from the best; {frame.HATCH} is not done. "
        "Choose rows to compare."
    )
    frame.footer(shown, "python -m lab ls", "runs")

    # Rows picked in the table go into the box below, which the URL keeps.
    rows = [r for r in picked.selection.rows if r < len(shown)]
    if rows != st.session_state.setdefault("picked_rows", []):
        st.session_state["picked_rows"] = rows
        st.session_state["compare"] = shown["name"].iloc[rows[:MOST]].tolist()
    chosen = st.multiselect(
        f"Compare up to {MOST}", table["name"].tolist(), key="compare", max_selections=MOST, bind="query-params",
        placeholder="choose rows above, or names here",
    )  # fmt: skip
    if chosen:
        ids = table.set_index("name")["run"]
        runs = {name: Run(store.root / "runs" / ids[name]) for name in chosen}
        learned, differs, said = st.tabs(["Learning curves", "What differs", "Label and notes"])
        with learned:
            curves(runs)
        with differs:
            frame_of = figures.config_difference(list(runs.values()))
            if frame_of.empty:
                st.info(
                    "Choose two or more runs with readable recipes: only the fields in which they differ are shown."
                )
            else:
                st.dataframe(plain_cells(frame_of), key="difference")
        with said, st.grid(min_column_width=320):
            of = table.set_index("name")["data"]
            for name, run in runs.items():
                with st.container():
                    annotate(run, name, of[name])

if st.toggle(
    "Start a new run",
    key="new",
    bind="query-params",
    help="Loads the methods, which takes a few seconds the first time",
):
    with st.container(border=True):
        new_run(store, table)
