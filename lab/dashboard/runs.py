"""What runs, what has finished, and how do two recipes differ?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from lab import choose, figures
from lab.dashboard import frame, live, new_run, pictures
from lab.results import Run, plain_cells

TITLE = "Runs"
ORDER = 50
ICON = ":material/format_list_bulleted:"
URL = "/runs"

MOST = 6  # runs beside each other
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
        rank=shown["state"].map({s: k for k, s in enumerate(live.STATES)}).fillna(len(live.STATES)),
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
live.panel(store)
frame.tell_unreadable("runs/", "pairs/", "sweeps/", "teachers.json")
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
        new_run.form(store, table)
