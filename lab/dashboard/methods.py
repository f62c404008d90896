"""What each method does, what it is set by, whether it helps, and what it costs to train."""

from __future__ import annotations

import re

import pandas as pd
import streamlit as st

from lab import arms, catalogue, figures
from lab.choose import number
from lab.dashboard import frame, pictures
from lab.results import Run, Store
from lab.verdicts import counted

TITLE = "Methods"
ORDER = 26
ICON = ":material/experiment:"
URL = "/methods"

TILES, ACROSS, TILE_PX = 8, 2, 56  # images of each, two beside each other: a run and its twin fit on a phone
# What a run by a method takes beside the method's name, by what the method needs.
NEEDED = {"guide": "--guide {larger}", "denoiser": "--guide {teacher}", "starts": "--start {larger}"}


@st.cache_data(max_entries=1, show_spinner=False)
def entries(changed: tuple[int, ...]) -> dict[str, catalogue.Entry]:
    return catalogue.methods()


@st.cache_data(max_entries=8, ttl=frame.RECHECK_S, show_spinner=False)
def verdicts(stamp: int, protocol: str, root: str, _runs: pd.DataFrame) -> pd.DataFrame:
    return arms.verdicts(_runs, arms.calibration(Store(root)))


def of_method(found: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of `arms.verdicts` in whose arm this method is."""
    return found[pd.Series([name in re.split(r"\+| \(", said) for said in found["method"]], found.index, dtype=bool)]


def answer(found: pd.DataFrame, of: str, compute: str) -> str:
    """How many were tried, and what came of it, in one sentence."""
    paired = found[found["word"] != arms.UNTESTED]
    if paired.empty:
        return f"At {compute} {of} a run beside its plain twin yet."
    words = ", ".join(f"{n} {word}" for word, n in paired["word"].value_counts().items())
    best = paired.loc[paired["ratio"].idxmin()]
    within = f", {number(best['low'])} to {number(best['high'])}" if pd.notna(best["low"]) else ""
    return (f"Beside plain twins at {compute}: {words}; the best is {best['method']} on {best['size']} with "
            f"{number(best['ratio'])} times the distance ({counted(best['seeds'], best['trained'])}"
            f"{within}).")  # fmt: skip


def cost(rows: pd.DataFrame) -> str:
    """Seconds of an update over plain's, where they were timed beside each other."""
    timed = rows.dropna(subset=["update_ratio"]).drop_duplicates(["method", "size"])
    if timed.empty:
        return "Training cost: not timed beside plain yet (benchmarks/arms.py)."
    said = "; ".join(f"{number(row.update_ratio)} times the seconds of a plain update"
                     + (f", and {number(row.guide_seconds)} s of its guide's answers" if row.guide_seconds > 0 else "")
                     + f" ({row.method}, {row.size})" for row in timed.itertuples())  # fmt: skip
    return f"Training cost: {said}."


def commands(entry: catalogue.Entry, students: pd.DataFrame, teacher: str) -> str:
    """What makes a run by a method beside the plain one that is there; "" where no plain one is."""
    plain = students[students["method_short"].eq("plain") & students["family"].eq("dit") & ~students["time"]]
    if plain.empty:
        return ""
    base = plain.sort_values(["params", "images"]).iloc[0]
    larger = plain.loc[plain["params"].idxmax(), "run"]
    beside = [NEEDED[need].format(larger=larger, teacher=teacher) for need in sorted(entry.needs) if need in NEEDED]
    return " ".join([f"python -m lab run {base['run']} --method pairs,{entry.name}", *beside])


def plainly(rows: pd.DataFrame) -> pd.DataFrame:
    """Those whose options are the most common ones of their method."""
    return rows[~rows["method"].str.contains(" (", regex=False)]


def card(entry: catalogue.Entry, mine: pd.DataFrame, runs: pd.DataFrame, *, every: bool) -> None:
    """One method; without `every`, its variants are counted where it has more than those."""
    with st.container(border=True):
        st.markdown(f"**{frame.plain(entry.name)}** :gray[{frame.plain(entry.paper)}]")
        st.markdown(f"{frame.plain(entry.idea)}  \n:gray[{frame.plain(entry.about)}]")
        paired = mine[mine["word"] != arms.UNTESTED]
        short = plainly(paired)
        told = paired if every or short.empty else short
        for row in told.sort_values("ratio").itertuples():
            span = f" ({number(row.low)} to {number(row.high)})" if pd.notna(row.low) else ""
            st.markdown(f"**{row.word}**: {number(row.ratio)} times the distance of {frame.plain(row.twin)}{span}, "
                        f"{counted(row.seeds, row.trained)}, {frame.plain(row.method)}, "
                        f"{row.images:,.0f} images")  # fmt: skip
        if more := len(paired) - len(told):
            st.caption(f"{more} variant{'s' if more > 1 else ''} more of other options: see Variants above.")
        command = ""
        if entry.objective:
            st.caption("An objective: others are added to it, so it has no plain twin.")
        elif paired.empty:
            tried = mine.loc[mine["why_not"] != "", "why_not"]
            st.caption(frame.plain("No pair of runs yet" + (f": {tried.iloc[0]}." if len(tried) else ".")))
            command = commands(entry, runs[runs["role"] == "student"], _teacher(runs))
        else:
            st.caption(frame.plain(cost(told)))
        with st.expander(f"{len(entry.options)} options" + (", and what makes a pair" if command else ""),
                         icon=":material/tune:"):  # fmt: skip
            if command:
                frame.show_command(command)
            if entry.options:
                frame.small_table(["option", "type", "default", "meaning"],
                                  [(o.name, o.kind, o.default, o.meaning) for o in entry.options])  # fmt: skip
        if len(paired):
            best = told.loc[told["ratio"].idxmin()]
            samples(runs, best["runs"][0], best["twin_runs"][0], entry.name)


def _teacher(runs: pd.DataFrame) -> str:
    """What taught most students."""
    named = runs.loc[runs["teacher"] != "", "teacher"].mode()
    return named.iloc[0] if len(named) else "TEACHER"


def samples(runs: pd.DataFrame, run: str, twin: str, name: str) -> None:
    """Images of a run and of its plain twin, of the same noises."""
    rows = runs.set_index("run", drop=False).loc[[run, twin]]
    found = [Run(view.store.root / "runs" / one) for one in rows["run"]]
    sheets = [pictures.samples(one) for one in found]
    columns = [
        pictures.Column(label, figures.caption(row), None if sheet is None else sheet.images,
                        f"python -m lab sample {one.id}")
        for label, row, one, sheet in zip(rows["name"], rows.to_dict("records"), found, sheets)
    ]  # fmt: skip
    there = [sheet for sheet in sheets if sheet is not None]
    zoom = max(1, round(TILE_PX / there[0].images.shape[-1])) if there else 2
    lines = [range(first, first + ACROSS) for first in range(0, TILES, ACROSS)]
    pictures.show(columns, lines, [", ".join(map(str, line)) for line in lines], zoom=zoom, key=f"samples-{name}")


view = frame.view()
st.title("What does each method do, and does it help?", anchor=False)
known = entries(tuple(path.stat().st_mtime_ns for path in sorted(catalogue.FOLDER.glob("*.py"))))
if view.measured.empty:
    st.info("No finished and measured run yet, so no method is compared with its plain twin. These make a teacher and "
            "a plain student on the embedded digits:", icon=":material/hourglass_empty:")  # fmt: skip
    frame.show_command(frame.FIRST_RUN)
# Also what was never measured: a stage before, whose method is part of the name.
alike = view.runs[view.runs["protocol"].isin(["", view.protocol])]
found = verdicts(view.stamp, view.protocol, str(view.store.root), alike)
with st.container(horizontal=True, vertical_alignment="bottom"):
    name = st.selectbox("Method", [frame.EVERY, *known], key="of", bind="query-params", width=260)
    compute = st.segmented_control("Compared at", arms.COMPUTE, default=arms.COMPUTE[0], required=True, key="compute",
                                   bind="query-params")  # fmt: skip
    every = name != frame.EVERY or st.toggle(
        "Variants", key="variants", bind="query-params",
        help="Also those whose options are not the most common ones of their method. One method shows all of its own.",
    )  # fmt: skip
mine = found if name == frame.EVERY else of_method(found, name)
mine = mine[mine["compute"] == compute]
looked = mine if every else plainly(mine)
of = f"none of {len(known)} methods has" if name == frame.EVERY else f"{name} does not have"
st.markdown(frame.plain(answer(looked, of, compute)))
paired = looked[looked["word"] != arms.UNTESTED]
if len(paired):
    st.plotly_chart(figures.verdicts(paired), key="verdicts", config={"displaylogo": False},
                    alt=f"The distance of {len(paired)} arms over their plain twins'")  # fmt: skip
    st.caption("Left of 1 is better. Filled: decided by six paired seeds or more (paired t and sign-flip test agree, "
               "or the interval lies within the seeds' margin). Hollow: a direction, or open. Bars are 95 % "
               "intervals.")  # fmt: skip
listed = [(entry, of_method(mine, entry.name)) for entry in known.values() if name in (frame.EVERY, entry.name)]
for entry, rows in sorted(listed, key=lambda one: one[1]["word"].eq(arms.UNTESTED).all()):  # with a verdict first
    card(entry, rows, view.runs, every=every)
frame.footer(mine, "python -m lab ls", "methods")
