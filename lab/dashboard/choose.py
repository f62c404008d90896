"""Which student to ship for a budget: the first page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from lab import choose, figures, jobs
from lab.choose import COSTS, METRICS, Budget, Recommendation, number, short
from lab.dashboard import frame
from lab.results import Run

TITLE = "Choose"
ORDER = 10
ICON = ":material/target:"
URL = "/"

STRIP = 8  # images shown of each


def load_charts() -> DeltaGenerator:
    """A place with a chart of nothing in a session's first run, to be emptied before the real one.

    What draws charts is the largest thing that a browser loads, and it begins when it is told of one: told of this one,
    it loads while the answer is worked out.
    """
    place = st.empty()
    if not st.session_state.get("charts_loaded"):
        st.session_state["charts_loaded"] = True
        place.plotly_chart(
            {"data": [{"type": "bar"}]}, height=1, config={"staticPlot": True}, key="no_chart", alt="loading charts"
        )
    return place


def headline(answer: Recommendation) -> None:
    """The answer in words, before anything slower is drawn."""
    if answer.pick is None:
        st.header(frame.plain(answer.headline), anchor=False)
        st.warning(frame.plain(answer.reason), icon=":material/straighten:")
        return
    st.header(f"Ship {frame.plain(answer.pick['name'])}", anchor=False)
    st.markdown(f"**{frame.plain(choose.facts(answer.pick, answer.budget))}.** {frame.plain(answer.reason)}")
    for said, words in [("What you lose", answer.loses), ("How sure", answer.sure), ("Knee", answer.bend)]:
        if words:
            st.markdown(f"**{said}.** {frame.plain(words)}")


def figures_row(answer: Recommendation) -> None:
    """The pick's values as large figures."""
    pick, metric = answer.pick, answer.budget.metric
    cells = [(METRICS[metric].title, number(pick[metric]), _to_teacher(answer), None)]
    for name in COSTS:
        if pick[name] is not None:
            title = COSTS[name].title
            trained = choose.size_as_trained(pick, name)
            if name == "latency_ms":
                guess = choose.is_estimate(pick)
                title = "Estimated latency" if guess else f"{title} {answer.budget.percentile}"
            # There is room for one note, and the limits stand right below.
            note = _limit(answer.budget, name) if trained is None else f"trained {number(trained)}"
            # What else was in the process decides the figure: torch takes ten times what a bare runtime does.
            method = pick["memory_method"] if name == "memory_mb" else None
            how = frame.plain(f"As read: {method}.") if method else None
            cells.append((title, COSTS[name].say(pick[name]), note, how))
    if pick["speed_up"] is not None:
        cells.append(("Speed-up", f"{number(pick['speed_up'])}x", f"teacher {number(pick['teacher_ms'])} ms", None))
    with st.grid(min_column_width=130):
        for title, value, note, how in cells:
            st.metric(title, value, note, delta_color="off", delta_arrow="off", border=True, help=how)


def _limit(budget: Budget, name: str) -> str:
    return f"limit {budget.limits[name]:g}" if name in budget.limits else "no limit"


def _to_teacher(answer: Recommendation) -> str | None:
    value = (answer.teacher or {}).get(answer.budget.metric)
    return None if value is None else f"teacher {number(value)}"


def marginal(answer: Recommendation) -> None:
    """What one step more or less of each limit would change."""
    st.subheader("What one step more or less changes", anchor=False)
    if answer.marginal.empty:
        st.caption("Set a limit to see what raising or lowering it would buy.")
        return
    metric, now = short(answer.budget.metric), answer.pick[answer.budget.metric]
    named = names_of(answer)
    rows = [
        (f"{row.change} {COSTS[row.limit].title.lower()} to {COSTS[row.limit].say(row.to)} {row.note}".rstrip(),
         named[row.run], f"{number(row.value)} ({row.value - now:+.2g})")
        for row in answer.marginal.itertuples()
    ]  # fmt: skip
    frame.small_table(["If you", "you ship", metric], rows)


def names_of(answer: Recommendation) -> dict[str, str]:
    """Run -> its name, with a sign where its latency was not measured."""
    found = answer.candidates
    return dict(zip(found["run"], frame.unmeasured(found["name"], found["provenance"])))


def misses(answer: Recommendation) -> None:
    """Per limit the student that comes nearest."""
    st.subheader("Nearest misses", anchor=False)
    named = names_of(answer)
    rows = [
        (COSTS[row.limit].title, COSTS[row.limit].say(row.allowed), COSTS[row.limit].say(row.needed), named[row.run],
         number(row.value))
        for row in answer.misses.dropna(subset=["run"]).itertuples()
    ]  # fmt: skip
    if rows:
        frame.small_table(["Limit", "allowed", "needed", "nearest", short(answer.budget.metric)], rows)


def strips(answer: Recommendation) -> None:
    """The same noises drawn by the pick, the runner-up and the teacher."""
    st.subheader("Same noise, same class", anchor=False)
    for what, row in [("pick", answer.pick), ("runner-up", answer.runner_up), ("teacher", answer.teacher)]:
        if row is None:
            continue
        path = view.store.root / "runs" / row["run"] / "samples.png"
        caption = f"{frame.plain(row['name'])}, {what}: {frame.plain(choose.facts(row, answer.budget))}"
        if path.exists() and (picture := _strip(str(path), path.stat().st_mtime_ns)) is not None:
            st.image(
                picture,
                width="stretch",
                output_format="PNG",
                alt=f"{STRIP} images of the {what}",
            )
            st.caption(caption)
        else:
            st.caption(f"{caption}. No sheet yet:")
            st.code(jobs.sample_command(Run(path.parent), path.name), language="bash", wrap_lines=True)


@st.cache_data(max_entries=64, show_spinner=False)
def _strip(path: str, changed: int) -> Image.Image | None:
    """The first images of a sheet of eight columns, enlarged without smoothing; None for a broken file."""
    try:
        sheet = Image.open(Path(path))
        size = sheet.width // STRIP
        row = sheet.crop((0, 0, sheet.width, size))
    except OSError:
        return None
    zoom = max(1, 128 // size)
    return row.resize((row.width * zoom, row.height * zoom), Image.Resampling.NEAREST)


LIMITS = {"params_m": ("Max parameters (M)", 0.05), "latency_ms": ("Max latency (ms)", 0.1),
          "memory_mb": ("Max memory (MB)", 10.0), "file_mb": ("Max file (MB)", 0.1),
          "macs_m": ("Max MACs (M)", 1.0)}  # fmt: skip
HELP = {"params_m": "Of what is shipped. ",
        "memory_mb": "The system's memory while it runs, runtime and all, as device reports say it. ",
        "file_mb": "The weights that are shipped, in half precision or in the file that was timed, the smaller. ",
        "macs_m": "Multiply-adds for one image by what is shipped. "}  # fmt: skip


def controls(start: Budget) -> None:
    """The limits, and below them the conditions. 0 is no limit, as is an empty field where none is suggested."""
    with st.container(border=True):
        with st.grid(len(LIMITS), min_column_width=140):
            for name, (label, step) in LIMITS.items():
                st.number_input(label, min_value=0.0, value=getattr(start, name), step=step, format="%g", key=name,
                                bind="query-params", placeholder="no limit",
                                help=HELP.get(name, "") + "0 lifts the limit")  # fmt: skip
        st.caption(choose.SIZES_SAID)
        frame.method_control(view)
        with st.expander("Quality measure and timing conditions", icon=":material/tune:"):
            st.selectbox("Quality", metrics, format_func=lambda m: METRICS[m].title, key="metric", bind="query-params")
            frame.conditions_controls(view)


@st.cache_data(max_entries=16, ttl=frame.RECHECK_S, show_spinner=False)
def suggested_limits(stamp: int, data: str, conditions: Budget, _runs: pd.DataFrame, _reports: pd.DataFrame) -> Budget:
    """Limits to begin with: they follow from the data and the conditions, not from what is typed into the limits."""
    return choose.start(_runs, _reports, conditions)


def follow(start: Budget) -> None:
    """Suggested limits that nobody changed follow the data: those of another data set may fit nothing."""
    of = (start.protocol, start.device, start.metric, start.method)
    last = st.session_state.get("suggested")
    if last and last["of"] != of:
        for name in COSTS:
            if name in st.session_state and st.session_state[name] == last["limits"].get(name):
                st.session_state[name] = getattr(start, name)
    st.session_state["suggested"] = {"of": of, "limits": start.limits}


def chart(answer: Recommendation) -> None:
    """Quality against latency, or against parameters where nothing is timed, with its conditions."""
    rows, metric = answer.candidates, answer.budget.metric
    teacher = answer.everyone[answer.everyone["run"] == (answer.teacher or {}).get("run")]
    x = choose.against(rows)
    drawn = figures.tradeoff(
        rows, x, metric, teacher=teacher, limit=answer.budget.limits.get(x), log_x=True,
        pick=(answer.pick or {}).get("run"), runner_up=(answer.runner_up or {}).get("run"),
        knee=(answer.knee or {}).get("run"),
        methods=measured.loc[measured["role"] == "student", "method"].unique(),
    )  # fmt: skip
    st.plotly_chart(
        drawn,
        key="choose_chart",
        config={"displaylogo": False},
        alt=f"{METRICS[metric].title} against {COSTS[x].title.lower()} of {len(rows)} students",
    )
    st.caption(frame.plain(figures.conditions(pd.concat([rows, teacher]), answer.left_out, metric)))


view = frame.view()
st.title("Which student to ship?", anchor=False)
if view.runs.empty:
    frame.empty("No run in the results folder yet. This makes a small one on the embedded digits:", frame.FIRST_RUN)
if view.measured.empty:
    frame.empty(
        f"No run on {view.data} is finished and measured yet. Go on with a run, or measure one that is finished:",
        "python -m lab ls\npython -m lab eval RUN",
    )

loading = load_charts()
measured = view.measured
metrics = [m for m in METRICS if measured[m].notna().any()]
conditions = frame.conditions(view, frame.held("metric", metrics))
suggested = suggested_limits(view.stamp, view.data, conditions, view.runs, view.reports)
follow(suggested)
asked = {name: frame.held_number(name, getattr(suggested, name)) or None for name in COSTS}
answer = choose.recommend(view.runs, view.reports, dataclasses.replace(conditions, **asked))

# What is sent first is seen first: the sentence, then the chart, then the rest.
loading.empty()
headline(answer)
cells, boxes = st.container(), st.container()
left, right = st.columns([5, 4], gap="medium")
if len(answer.candidates):
    with left:
        chart(answer)
with boxes:
    controls(suggested)
if answer.pick:
    with cells:
        figures_row(answer)
with right:
    if answer.pick:
        marginal(answer)
    elif len(answer.candidates):
        misses(answer)
    st.subheader("The same answer in a terminal", anchor=False)
    frame.show_command(command := choose.command(frame.all_runs(), view.reports, answer.budget))
frame.footer(answer.candidates, command, "choose")
st.session_state["budget_said"] = answer.budget.said  # for the sidebar of every page
if answer.pick:
    strips(answer)
    timing = choose.timing_said(answer.pick)
    weights = (answer.pick["weights_sha256"] or "")[:12]
    st.caption(
        frame.plain(f"Run {answer.pick['run']}, weights {weights}" + (f"; latency {timing}." if timing else "."))
    )
