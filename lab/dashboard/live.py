"""What runs now, with its progress, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from lab import jobs
from lab.dashboard import frame
from lab.results import Run, Store

LIVE = 8  # unfinished runs that are shown in full
STATES = ["running", "queued", "stale", "stopped", "failed", "done", "unreadable"]


def time_said(seconds: float) -> str:
    """A duration as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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
def panel(store: Store) -> None:
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


def act(action: Callable[[Run], None], run: Run) -> None:
    """Start or stop a run's process; what went wrong is shown beside the run."""
    refused: dict[str, str] = st.session_state.setdefault("refused_runs", {})
    refused.pop(run.id, None)
    try:
        action(run)
    except (OSError, ValueError, LookupError) as error:
        refused[run.id] = str(error)
