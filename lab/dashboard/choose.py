"""Which student to ship for a budget: the first page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import streamlit as st
from PIL import Image

from lab import choose, figures
from lab.choose import COSTS, METRICS, Budget, Recommendation, number, short
from lab.dashboard import frame

TITLE = "Choose"
ORDER = 10
ICON = ":material/target:"
URL = "/"

STRIP = 8  # images shown of each


def headline(answer: Recommendation) -> None:
    """The answer in words, before anything slower is drawn."""
    if answer.pick is None:
        st.header(frame.plain(answer.headline), anchor=False)
        st.warning(frame.plain(answer.reason), icon=":material/straighten:")
        return
    st.header(f"Ship {frame.plain(answer.pick['name'])}", anchor=False)
    st.markdown(f"**{frame.plain(choose.facts(answer.pick, answer.budget))}.** {frame.plain(answer.reason)}")
    for said, words in [("What you lose", answer.loses), ("How sure", answer.sure)]:
        st.markdown(f"**{said}.** {frame.plain(words)}")


def figures_row(answer: Recommendation) -> None:
    """The pick's values as large figures."""
    pick, metric = answer.pick, answer.budget.metric
    cells = [(METRICS[metric].title, number(pick[metric]), _to_teacher(answer))]
    for name in ("params_m", "latency_ms", "file_mb", "macs_m"):
        if pick[name] is not None:
            title = f"{COSTS[name].title} {answer.budget.percentile}" if name == "latency_ms" else COSTS[name].title
            cells.append((title, COSTS[name].say(pick[name]), _limit(answer.budget, name)))
    if pick["speed_up"] is not None:
        cells.append(("Speed-up", f"{number(pick['speed_up'])}x", f"teacher {number(pick['teacher_ms'])} ms"))
    with st.grid(min_column_width=130):
        for title, value, note in cells:
            st.metric(title, value, note, delta_color="off", delta_arrow="off", border=True)


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
    rows = [
        {"If you": f"{row.change} {COSTS[row.limit].title.lower()} to {COSTS[row.limit].say(row.to)}",
         "you ship": frame.plain(row.name_), metric: f"{number(row.value)} ({row.value - now:+.2g})"}
        for row in answer.marginal.rename(columns={"name": "name_"}).itertuples()
    ]  # fmt: skip
    st.table(pd.DataFrame(rows), hide_index=True, border="horizontal", alt="What one step more or less changes")


def misses(answer: Recommendation) -> None:
    """Per limit the student that comes nearest."""
    st.subheader("Nearest misses", anchor=False)
    rows = [
        {"Limit": f"{COSTS[row.limit].title}, {COSTS[row.limit].say(row.allowed)}", "nearest": frame.plain(row.name_),
         "needs": COSTS[row.limit].say(row.needed), short(answer.budget.metric): number(row.value)}
        for row in answer.misses.dropna(subset=["run"]).rename(columns={"name": "name_"}).itertuples()
    ]  # fmt: skip
    if rows:
        st.table(pd.DataFrame(rows), hide_index=True, border="horizontal", alt="The student that comes nearest to each limit")


def strips(answer: Recommendation) -> None:
    """The same noises drawn by the pick, the runner-up and the teacher."""
    st.subheader("Same noise, same class", anchor=False)
    for what, row in [("pick", answer.pick), ("runner-up", answer.runner_up), ("teacher", answer.teacher)]:
        if row is None:
            continue
        path = view.store.root / "runs" / row["run"] / "samples.png"
        caption = f"{frame.plain(row['name'])}, {what}: {frame.plain(choose.facts(row, answer.budget))}"
        if path.exists():
            st.image(_strip(str(path), path.stat().st_mtime_ns), width="stretch", alt=f"{STRIP} images of the {what}")
            st.caption(caption)
        else:
            st.caption(f"{caption}. No sheet yet: `python -m lab sample {row['run']}`")


@st.cache_data(max_entries=64, show_spinner=False)
def _strip(path: str, changed: int) -> Image.Image:
    """The first images of a sheet of eight columns, enlarged without smoothing."""
    sheet = Image.open(Path(path))
    size = sheet.width // STRIP
    row = sheet.crop((0, 0, sheet.width, size))
    zoom = max(1, 128 // size)
    return row.resize((row.width * zoom, row.height * zoom), Image.Resampling.NEAREST)


def limits(start: Budget) -> dict[str, float | None]:
    """The budget's controls. 0 is no limit, as is an empty field where none is suggested."""
    follow(start)
    found = {}
    with st.grid(4, min_column_width=140):
        for name, label, step in [("params_m", "Parameters, at most (M)", 0.05), ("latency_ms", "Latency, at most (ms)", 0.1),
                                  ("file_mb", "File, at most (MB)", 0.1), ("macs_m", "MACs per image, at most (M)", 1.0)]:  # fmt: skip
            found[name] = st.number_input(label, min_value=0.0, value=getattr(start, name), step=step, format="%g", key=name,
                                          bind="query-params", placeholder="no limit", help="0 lifts the limit") or None  # fmt: skip
    return found


def follow(start: Budget) -> None:
    """Suggested limits that nobody changed follow the data: those of another data set may fit nothing."""
    of = (start.protocol, start.device, start.metric)
    last = st.session_state.get("suggested")
    if last and last["of"] != of:
        for name in COSTS:
            if st.session_state.get(name) == last["limits"].get(name):
                st.session_state[name] = getattr(start, name)
    st.session_state["suggested"] = {"of": of, "limits": start.limits}


view = frame.view()
st.title("Which student to ship?", anchor=False)
if view.runs.empty:
    frame.empty("No run in the results folder yet. This makes a small one on the embedded digits:",
                "python -m lab run recipes/digits-student.json")  # fmt: skip
if view.measured.empty:
    frame.empty(f"No run on {view.data} is finished and measured yet. Go on with a run, or measure one that is finished:",
                "python -m lab ls\npython -m lab eval RUN")  # fmt: skip

said = st.container()
with st.container(border=True):
    boxes = st.container()
    with st.expander("Quality measure and timing conditions", icon=":material/tune:"):
        metric = st.selectbox("Quality", [m for m in METRICS if m in view.measured and view.measured[m].notna().any()],
                              format_func=lambda m: METRICS[m].title, key="metric", bind="query-params")  # fmt: skip
        conditions = frame.conditions(view, metric)
    with boxes:
        asked = limits(choose.start(view.runs, view.reports, conditions))
answer = choose.recommend(view.runs, view.reports, dataclasses.replace(conditions, **asked))
with said:
    headline(answer)
    if answer.pick:
        figures_row(answer)

rows = answer.candidates
if rows.empty:
    st.stop()
teacher = choose.with_latency(view.runs, view.reports, answer.budget)
teacher = teacher[teacher["run"] == (answer.teacher or {}).get("run")]
timed = rows["latency_ms"].notna().any()
x = "latency_ms" if timed else "params_m"
chart = figures.tradeoff(
    rows, x, answer.budget.metric, teacher=teacher, limit=answer.budget.limits.get(x), log_x=True,
    pick=(answer.pick or {}).get("run"), runner_up=(answer.runner_up or {}).get("run"),
)  # fmt: skip
left, right = st.columns([3, 2], gap="medium")
with left:
    st.plotly_chart(chart, key="choose_chart", config={"displaylogo": False},
                    alt=f"{METRICS[answer.budget.metric].title} against {COSTS[x].title.lower()} of {len(rows)} students")  # fmt: skip
    st.caption(frame.plain(figures.conditions(pd.concat([rows, teacher]), answer.left_out, answer.budget.metric)))
with right:
    if answer.pick:
        marginal(answer)
    else:
        misses(answer)
    st.subheader("The same answer in a terminal", anchor=False)
    st.code(choose.command(frame.all_runs(), view.reports, answer.budget), language="bash", wrap_lines=True)
if answer.pick:
    strips(answer)
    timing = choose.timing_said(answer.pick)
    st.caption(frame.plain(f"Run {answer.pick['run']}, weights {answer.pick['weights_sha256'][:12]}" + (f"; latency {timing}." if timing else ".")))
