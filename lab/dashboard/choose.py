"""Which student to ship for a budget: the first page."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab import choose, figures, jobs, sheets
from lab.choose import COSTS, METRICS, Budget, Recommendation, number, short
from lab.dashboard import frame, meaning
from lab.dashboard import pictures as kept
from lab.results import Run

TITLE = "Choose"
ORDER = 10
ICON = ":material/target:"
URL = "/"

ACROSS, DOWN = 4, 2  # images shown of each model
CHART_PX = 400  # high, so that it ends where a screen of 900 pixels does


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
    """The answer in one sentence, before anything slower is drawn."""
    if answer.pick is None:
        st.header(frame.plain(answer.headline), anchor=False)
        st.warning(frame.plain(answer.reason), icon=":material/straighten:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.header(f"Ship {frame.plain(answer.pick['name'])}", anchor=False, width="content")
        meaning.sentence(choose.in_short(answer))


def why(answer: Recommendation, command: str) -> None:
    """What stands behind the answer: details, conditions, the timing's origin, and the command that gives the same."""
    if answer.pick:
        details(answer)
    st.caption(choose.SIZES_SAID)
    rows = pd.concat([answer.candidates, answer.teachers])
    st.caption(frame.plain(figures.conditions(rows, answer.left_out, answer.budget.metric)))
    if answer.pick:
        timing = choose.timing_said(answer.pick)
        weights = (answer.pick["weights_sha256"] or "")[:12]
        st.caption(frame.plain(f"Run {answer.pick['run']}, weights {weights}"
                               + (f"; latency {timing}." if timing else ".")))  # fmt: skip
    st.subheader("The same answer in a terminal", anchor=False)
    frame.show_command(command)


def details(answer: Recommendation) -> None:
    """What the pick loses, how sure that is and where it comes from; what one step more or less would change."""
    st.markdown(f"**{frame.plain(choose.facts(answer.pick, answer.budget))}.** {frame.plain(answer.reason)}")
    for said, words in [("What you lose", answer.loses), ("How sure", answer.sure), ("Knee", answer.bend)]:
        if words:
            st.markdown(f"**{said}.** {frame.plain(words)}")
    tiles(answer)
    marginal(answer)


def tiles(answer: Recommendation) -> None:
    """The pick's values as large figures, each with what it means and how much better it is than the baseline."""
    pick, metric = answer.pick, answer.budget.metric
    base = frame.baseline(answer.everyone)
    shares = {}
    if base is not None and base["run"] != pick["run"]:
        row = answer.everyone[answer.everyone["run"] == pick["run"]]
        shares = choose.better_by(row, base, [metric, *COSTS]).iloc[0].to_dict()
    times, quality = choose.times_teacher(pick, metric), METRICS[metric]
    better = "Higher is better." if quality.more_is_better else "Lower is better; 0 is no difference."
    cells = [(quality.title, number(pick[metric]), None, metric, better)]
    if times is not None:
        cells = [
            (
                f"Teacher's {short(metric)}",
                f"{choose.brief(times)}x",
                f"{number(pick[metric])} itself",
                metric,
                f"{quality.title} in times its teacher's {number(pick['teacher_value'])}. {better}",
            )
        ]
    for name in COSTS:
        if pick[name] is not None:
            title = COSTS[name].title
            trained = choose.size_as_trained(pick, name)
            if name == "latency_ms":
                guess = choose.is_estimate(pick)
                title = "Estimated latency" if guess else f"{title} {answer.budget.percentile}"
            # There is room for one note.
            note = _limit(answer.budget, name) if trained is None else f"trained {number(trained)}"
            # What else was in the process decides the figure: torch takes ten times what a bare runtime does.
            method = pick["memory_method"] if name == "memory_mb" else None
            how = f"As read: {method}." if method else MEANING[name]
            cells.append((title, COSTS[name].say(pick[name]), note, name, how))
    if pick["speed_up"] is not None:
        cells.append(("Speed-up", f"{number(pick['speed_up'])}x", f"teacher {number(pick['teacher_ms'])} ms", None,
                      "Times as fast as its teacher, each by the fastest form that it was timed in."))  # fmt: skip
    with st.grid(min_column_width=140):
        for title, value, note, column, how in cells:
            delta, colour = note, "off"
            if words := choose.better_said(shares.get(column)):
                delta, colour = words, "green" if "better" in words else "red"
                colour = "off" if words == "equal" else colour
            st.metric(title, value, delta, delta_color=colour, delta_arrow="off", border=True, help=frame.plain(how))
    if shares:
        st.caption(frame.plain(f"Better and worse: than {base['name']}, the baseline."))


def _limit(budget: Budget, name: str) -> str:
    return f"limit {budget.limits[name]:g}" if name in budget.limits else "no limit"


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
         named[row.run], choose.better_said(row.gain / now if now else None), number(row.value))
        for row in answer.marginal.itertuples()
    ]  # fmt: skip
    frame.small_table(["If you", "you ship", "which is", metric], rows)


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


def pictures(answer: Recommendation) -> None:
    """The same noises drawn by the pick and by its teacher."""
    pick, teacher = answer.pick, answer.teacher or {}
    for what, row in [(f"{pick['name']}, the pick", pick), ("Its teacher, the same noise and class", teacher)]:
        if not row:
            continue
        run = Run(view.store.root / "runs" / row["run"])
        sheet = kept.samples(run)
        st.caption(frame.plain(what + (": no sheet yet." if sheet is None else "")))
        if sheet is None:
            st.code(jobs.sample_command(run), language="bash", wrap_lines=True)
        else:
            st.image(_first_images(sheet.images), width="stretch", output_format="PNG",
                     alt=f"{ACROSS * DOWN} images: {what}")  # fmt: skip


def _first_images(images: np.ndarray) -> np.ndarray:
    """The first images of a sheet (N, C, H, W), tiled and enlarged without smoothing."""
    tiled = sheets.tile(images[: ACROSS * DOWN], ACROSS)
    zoom = max(1, 128 // images.shape[-1])
    return tiled.repeat(zoom, 0).repeat(zoom, 1)


LIMITS = {"params_m": ("Max parameters (M)", 0.05), "latency_ms": ("Max latency (ms)", 0.1),
          "memory_mb": ("Max memory (MB)", 10.0), "file_mb": ("Max file (MB)", 0.1),
          "macs_m": ("Max MACs (M)", 1.0)}  # fmt: skip
FIRST = ("params_m", "latency_ms", "memory_mb")  # the others are folded away
MEANING = {"params_m": "Weights of what is shipped, in millions.",
           "latency_ms": "For one batch on the device of the timings.",
           "memory_mb": "The system's memory while it runs, runtime and all, as device reports say it.",
           "file_mb": "The weights that are shipped, in half precision or in the file that was timed, the smaller.",
           "macs_m": "Multiply-adds for one image by what is shipped."}  # fmt: skip


def controls(start: Budget) -> None:
    """The limits, and folded below them the rarer ones and the conditions. 0 is no limit, as is an empty field."""

    def limit(name: str) -> None:
        label, step = LIMITS[name]
        st.number_input(label, min_value=0.0, value=getattr(start, name), step=step, format="%g", key=name,
                        bind="query-params", placeholder="no limit", help=f"{MEANING[name]} 0 lifts the limit"
                        )  # fmt: skip

    with st.container(border=True):
        with st.grid(len(FIRST), min_column_width=130):
            for name in FIRST:
                limit(name)
        with st.expander("More limits, quality measure, timing conditions", icon=":material/tune:"):
            with st.grid(min_column_width=150):
                for name in [n for n in LIMITS if n not in FIRST]:
                    limit(name)
                st.selectbox(
                    "Quality", metrics, format_func=lambda m: METRICS[m].title, key="metric", bind="query-params"
                )
            frame.method_control(view)
            frame.conditions_controls(view)


@st.cache_data(max_entries=16, show_spinner=False)
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
    """Quality against latency, or against parameters where nothing is timed."""
    rows, methods = answer.candidates, measured.loc[measured["role"] == "student", "method"].unique()
    drawn = figures.recommended(answer, baseline=frame.baseline(answer.everyone), methods=methods)
    st.plotly_chart(
        drawn.update_layout(height=CHART_PX),
        key="choose_chart",
        config={"displaylogo": False},
        alt=f"{METRICS[answer.budget.metric].title} against {COSTS[choose.against(rows)].title.lower()} of {len(rows)} "
        "students",
    )


view = frame.view()
if view.measured.empty:
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

# What is sent first is seen first: the sentence, then the chart, then the rest. On a phone the columns stand below each
# other: sentence, images, controls, chart.
loading.empty()
headline(answer)
left, right = st.columns([2, 3], gap="medium")
with right:
    boxes, drawing = st.container(), st.container()
if len(answer.candidates):
    with drawing:
        chart(answer)
with boxes:
    controls(suggested)
with left:
    if answer.pick:
        pictures(answer)
    elif len(answer.candidates):
        misses(answer)
command = choose.command(frame.all_runs(), view.reports, answer.budget)
# What is behind the fold comes when it is opened: a browser fetches a part of its own for each kind of element.
fold = st.expander("What it loses, how sure that is, where it comes from", icon=":material/fact_check:", key="why",
                   on_change="rerun", bind="query-params")  # fmt: skip
if fold.open:
    with fold:
        why(answer, command)
frame.footer(answer.candidates, command, "choose")
# For every page: its sidebar says the budget, its charts show where that ends.
st.session_state["budget_said"], st.session_state["budget_limits"] = answer.budget.said, answer.budget.limits
