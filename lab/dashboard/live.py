"""What runs now, with its progress, and what can be done with it. Found by what is on disk alone: whoever started a run
or a sweep, a page that is opened later, by another server too, shows it and can stop it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean

import streamlit as st

from lab import figures, jobs
from lab.config import JSON
from lab.dashboard import frame, pictures
from lab.results import ID, Run, Status, Store

LIVE = 8  # unfinished runs that are shown in full
CURVES = 6  # of a sweep, the newest ones
CURVE_PX = 240
TILE_PX = 28  # of an image of the newest sample grid
LINES = 3  # of a process's last words, and of a sweep's reasons
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
    """Unfinished sweeps and runs with their progress; the page is drawn anew when a run changes state."""
    runs = unfinished(store)
    states = tuple((run.id, run.status().state) for run in runs)
    if st.session_state.setdefault("live_states", states) != states:
        st.session_state["live_states"] = states
        st.rerun(scope="app")
    for path, record in store.sweeps().items():
        members = Members(store, record)
        pid = jobs.process_of_sweep(path)
        if pid or members.left:
            with st.container(border=True):
                sweep(path, members, pid)
        if pid:  # its runs are shown there, and are its own to stop
            runs = [run for run in runs if run.id not in members.begun]
    for run in runs[:LIVE]:
        with st.container(border=True):
            one(run)
    if (more := len(runs) - LIVE) > 0:
        st.caption(f"{more} more unfinished runs are in the table below.")


# --- a run --------------------------------------------------------------------------------------


def one(run: Run) -> None:
    """One unfinished run."""
    status, pid = run.status(), jobs.process_of(run)
    starting = pid is not None and status.state != "running"
    left, right = st.columns([5, 1], vertical_alignment="center")
    with left:
        head(run.label, "starting" if starting else status.state, pid)
        meter(run, status)
        if status.error:
            st.error(frame.plain(status.error))
        if starting:
            st.caption("Its process is loading, or does a run that it needs first.")
        elif status.resumable:
            at_rest(jobs.command(run), jobs.last_words(run, LINES), stale=status.state == "stale")
        elif not jobs.progress(run).step and (said := jobs.last_words(run, 1)):
            st.caption(frame.plain(said))  # making pairs, compiling
    with right:
        if pid or status.state == "running":
            stop_button(run.id, jobs.stop, run, pid)
        else:
            word = "Start" if status.state == "queued" else "Resume"
            st.button(word, key=f"resume-{run.id}", width="stretch", on_click=act, args=(jobs.start, run))
    watch({run.label: run}, run.id, at_work=pid is not None or status.state == "running")


def head(name: str, state: str, pid: int | None) -> None:
    st.markdown(f"**{frame.plain(name)}** {frame.plain(state)}" + (f", process {pid}" if pid else ""))


def meter(run: Run, status: Status, name: str = "") -> None:
    """How far a run is; how fast and how long still, while it runs."""
    now = jobs.progress(run)
    running = pace(now.images_per_s, now.eta_s) if status.state == "running" else ""
    told = f"{now.step:,} of {now.steps:,} updates, {now.images:,} images{running}"
    st.progress(now.share, frame.plain(name) + told)


def pace(images_per_s: float | None, seconds: float | None) -> str:
    """Images a second and time to go, where they are known."""
    speed = f", {images_per_s:,.0f} images/s" if images_per_s else ""
    return speed + (f", {time_said(seconds)} to go" if seconds is not None else "")


def at_rest(command: str, said: str, *, stale: bool = False) -> None:
    """What goes on with something that has no process, and the last that its process said."""
    if stale:
        st.caption("Stopped, resumable: its process is gone. It goes on where it last saved.")
    st.code(command, language="bash", wrap_lines=True)
    if said:
        st.caption("Its last process's last words:")
        st.code(said, language=None, wrap_lines=True)


def stop_button(key: str, action: Callable, of: Run | Path, pid: int | None) -> None:
    about = "Saves its state and ends; it can go on later." if pid else "It does not run on this machine."
    st.button("Stop", key=f"stop-{key}", disabled=pid is None, width="stretch", help=about, on_click=act,
              args=(action, of))  # fmt: skip


def watch(runs: Mapping[str, Run], key: str, *, at_work: bool) -> None:
    """The loss of named runs so far in one chart, while there is more to come, and the newest sample grid of them."""
    logs = {name: rows for name, run in runs.items() if at_work and (rows := pictures.log_of(run))}
    shots = [(path.stat().st_mtime, name, images, path) for name, run in runs.items()
             for images, path in run.snapshots()[-1:]]  # fmt: skip
    places = iter(st.columns([3, 2], vertical_alignment="center"))
    if terms := figures.terms(logs):
        figure = figures.learning_curves(logs, term=terms[0])
        figure.update_layout(height=CURVE_PX, margin={"t": 10, "b": 10}, showlegend=len(logs) > 1)
        with next(places):
            st.plotly_chart(figure, key=f"curve-{key}", config={"displaylogo": False}, alt=f"{terms[0]} so far")
    if shots:
        _, name, images, path = max(shots)
        shot = pictures.snapshot(name, images, path)
        side = shot.images.shape[-1] if shot.images is not None else TILE_PX
        with next(places):
            pictures.show([shot], [range(8), range(8, 16)], ["", ""], zoom=max(1, round(TILE_PX / side)),
                          key=f"grid-{key}")  # fmt: skip


def act(action: Callable[..., object], *args: object) -> bool:
    """Start or stop a process; whether that could be, and a note if not."""
    try:
        action(*args)
    except (OSError, ValueError, LookupError) as error:
        st.toast(frame.plain(str(error)), icon=":material/error:", duration="infinite")
        return False
    if action in (jobs.stop, jobs.stop_sweep):
        st.toast("Asked to stop: it saves its state and ends after the update it is in.", duration="long")
    return True


# --- a sweep ------------------------------------------------------------------------------------


class Members:
    """The runs of a sweep's record, as they stand in their folders now."""

    def __init__(self, store: Store, record: Mapping[str, JSON]) -> None:
        self.rows = record["runs"]
        runs = [Run(store.root / "runs" / name) for row in self.rows for name in row["stages"]]
        self.begun = {run.id: run for run in runs if ID.fullmatch(run.id) and run.path.is_dir()}  # all that they take
        self.said = {name: run.status() for name, run in self.begun.items()}
        self.states = Counter(self.said[row["run"]].state if row["run"] in self.said else row["state"]
                              for row in self.rows)  # fmt: skip
        self.running = [run for run in self.begun.values() if self.said[run.id].state == "running"]

    @property
    def left(self) -> int:
        """How many are neither done nor refused."""
        return len(self.rows) - self.states["done"] - self.states["refused"]

    def named(self) -> dict[str, Run]:
        """Those that have begun, in order, each by what sets it apart in the sweep."""
        points = {row["run"]: point(row.get("at", {})) for row in self.rows}
        return {points.get(run.id) or run.label: run for run in self.begun.values()}

    def progress(self) -> tuple[float, float, float | None]:
        """The share that is done, images a second of all that run, and seconds to go by the mean of a run."""
        nows = [jobs.progress(run) for run in self.running]
        left = self.left - sum(now.share for now in nows)
        whole = [status.seconds for status in self.said.values() if status.state == "done" and status.seconds]
        whole += [now.eta_s / (1 - now.share) for now in nows if now.eta_s and now.share < 1]
        to_go = mean(whole) * left / len(nows) if whole and nows else None
        return 1 - left / max(1, len(self.rows)), sum(now.images_per_s or 0 for now in nows), to_go


def point(at: Mapping[str, JSON]) -> str:
    """A point of a sweep's axes in words: depth 4, seed 1."""
    return ", ".join(f"{name.split('.')[-1]} {value}" for name, value in at.items())


def sweep(path: Path, members: Members, pid: int | None) -> None:
    """One sweep that is at work or has runs left."""
    share, images_per_s, seconds = members.progress()
    named, key = members.named(), f"sweep-{path.stem}"  # a sweep may be called as a run is
    left, right = st.columns([5, 1], vertical_alignment="center")
    with left:
        head(f"Sweep {path.stem}", "running" if pid else "unfinished", pid)
        told = ", ".join(f"{members.states[state]} {state}" for state in (*STATES, "refused") if members.states[state])
        st.progress(share, f"{len(members.rows)} runs: {told}{pace(images_per_s, seconds)}")
        for name, run in named.items():
            if run in members.running:
                meter(run, members.said[run.id], f"{name}: ")
        for why in [row["why"] for row in members.rows if row.get("why")][:LINES]:
            st.error(frame.plain(why))
        if not pid:
            at_rest(jobs.sweep_command(path), jobs.tail_of(path.with_suffix(".log"), LINES))
    with right:
        if pid:
            stop_button(key, jobs.stop_sweep, path, pid)
        else:
            at_once = workers(key)
            st.button("Resume", key=f"resume-{key}", width="stretch", on_click=act,
                      args=(jobs.start_sweep, path, at_once))  # fmt: skip
    if pid:
        watch(dict(list(named.items())[-CURVES:]), key, at_work=True)


def workers(key: str) -> int:
    """A field for how many runs of a sweep are done at a time."""
    return st.number_input("Runs at a time", 1, os.cpu_count(), 1, key=f"workers-{key}")
