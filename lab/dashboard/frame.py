"""What the pages share: the store read once per change, and what the sidebar chose. No torch here.

A page begins with

    view = frame.view()         # runs and reports of the chosen data set, protocol and device
    runs = view.measured        # rows that may be compared with each other

and never reads the results folder's tables itself.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from lab import choose
from lab.results import Store, default_root

RECHECK_S = 60  # a running run turns stale without any file changing


def store() -> Store:
    """The results folder: LAB_RESULTS, or the one beside the package."""
    return Store(default_root())


def all_runs() -> pd.DataFrame:
    """Every run, hidden ones too, with the columns `protocol` and `name`; read again when a folder has changed."""
    root = store().root
    return _runs(str(root), _stamp(root, "runs"))


def all_reports() -> pd.DataFrame:
    """Every device report."""
    root = store().root
    return _reports(str(root), _stamp(root, "devices"))


@st.cache_data(max_entries=4, ttl=RECHECK_S, show_spinner=False)
def _runs(root: str, stamp: tuple[tuple[str, int], ...]) -> pd.DataFrame:
    table = Store(root).table()
    return choose.complete(table)


@st.cache_data(max_entries=4, show_spinner=False)
def _reports(root: str, stamp: tuple[tuple[str, int], ...]) -> pd.DataFrame:
    return Store(root).reports()


def clear() -> None:
    """Forget what was read, for tests that put other tables in its place."""
    _runs.clear()
    _reports.clear()


def _stamp(root: Path, folder: str) -> tuple[tuple[str, int], ...]:
    """Names and times of a folder's entries. Files are replaced whole, which touches the folder they are in."""
    found = []
    for path in (root / folder, root / "teachers.json"):
        if path.exists():
            found.append((path.name, path.stat().st_mtime_ns))
    if (root / folder).is_dir():
        with os.scandir(root / folder) as entries:
            found += sorted((e.name, e.stat().st_mtime_ns) for e in entries)
    return tuple(found)


# --- the sidebar --------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """What the sidebar chose. Frames are copies: a page may add columns."""

    store: Store
    data: str  # "" while there is no run
    protocol: str  # "" while nothing is measured
    device: str  # "" while nothing is timed
    runs: pd.DataFrame  # the data set's runs but for hidden ones, measured or not, teachers too
    reports: pd.DataFrame  # of every device

    @property
    def measured(self) -> pd.DataFrame:
        """The runs whose metrics were made under the chosen protocol: these may be compared."""
        if self.runs.empty or not self.protocol:
            return self.runs.iloc[:0]
        return self.runs[self.runs.protocol == self.protocol]


def sidebar() -> None:
    """The shared controls: data set, protocol of the metrics, device. app.py draws them before each page."""
    runs, reports = _visible(), all_reports()
    with st.sidebar:
        _select("Data set", "data", _by_count(runs, "data"), "No run yet")
        shown = runs[runs["data"] == st.session_state.get("data")] if not runs.empty else runs
        _select(
            "Protocol of the metrics", "protocol", _by_count(shown, "protocol"), "Nothing measured yet",
            help="Extractor, sample count, reference and seed. Only values of one protocol are compared.",
        )  # fmt: skip
        _select(
            "Device of the timings", "device", _by_count(reports, "device.name"), "Nothing timed yet",
            help="The machine on which the latencies were measured.",
        )  # fmt: skip
        st.caption("Results: `" + _short(store().root) + "`")


def view() -> View:
    """The runs and reports that the sidebar chose."""
    runs = _visible()
    data = st.session_state.get("data") or ""
    if not runs.empty:
        runs = runs[runs["data"] == data].reset_index(drop=True)
    return View(
        store=store(), data=data, protocol=st.session_state.get("protocol") or "",
        device=st.session_state.get("device") or "", runs=runs, reports=all_reports(),
    )  # fmt: skip


# --- the conditions of the timings, for the pages that compare latencies ------------------------


def conditions(view: View, metric: str) -> choose.Budget:
    """Controls for the conditions under which values are compared, as a budget without limits."""
    here = view.reports
    here = here[here["device.name"] == view.device] if len(here) else here
    runtimes = ["fastest", *sorted(here["software.runtime"].unique())] if len(here) else ["fastest"]
    batches = [str(b) for b in sorted(here["workload.batch"].unique())] if len(here) else ["1"]
    threads = [f"{t:.0f}" for t in here["state.threads"].dropna().value_counts().index] if len(here) else []
    with st.grid(min_column_width=150):
        runtime = _bound("Runtime", runtimes, "runtime", help="fastest: each student with the runtime it is fastest on")
        batch = _bound("Batch", batches, "batch")
        thread = _bound("Threads", threads, "threads") if threads else None
        percentile = _bound("Latency", list(choose.PERCENTILES), "percentile", help="p50 is the median, p99 the slow end")
        scope = _bound("Timed", list(choose.SCOPES), "scope", help="core: the network alone; e2e: from noise to an image")
        weak = st.toggle("Weak timings too", key="weak", bind="query-params",
                         help="Throttled ones and grades D (unstable), E (published by others) and F (estimated)")  # fmt: skip
    return choose.Budget(
        device=view.device or None, runtime=runtime, batch=int(batch), threads=int(thread) if thread else None,
        percentile=percentile, scope=scope, weak=weak, metric=metric,
        protocol=view.protocol if metric == "fd" and view.protocol else None,
    )  # fmt: skip


def _bound(label: str, options: list[str], key: str, help: str | None = None) -> str:
    return st.selectbox(label, options, key=key, bind="query-params", help=help)


@st.cache_data(max_entries=1, show_spinner=False)
def icon() -> Image.Image:
    """The browser tab's picture: patches, blue on white. Drawn, since a named icon is fetched from another host."""
    picture = np.full((32, 32, 3), 255, np.uint8)
    for row, column, colour in [(0, 0, "0072B2"), (0, 1, "56B4E9"), (1, 0, "009E73"), (1, 1, "E69F00")]:
        picture[2 + 15 * row : 15 + 15 * row, 2 + 15 * column : 15 + 15 * column] = list(bytes.fromhex(colour))
    return Image.fromarray(picture)


# --- small things -------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text in which nothing is markdown: labels are what people typed."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~$:])", r"\\\1", text)


def empty(what: str, command: str) -> None:
    """Say what is missing and the command that makes it, then end the page."""
    st.info(what, icon=":material/hourglass_empty:")
    st.code(command, language="bash")
    st.stop()


def _visible() -> pd.DataFrame:
    runs = all_runs()
    return runs[~runs["hide"].astype(bool)].reset_index(drop=True) if not runs.empty else runs


def _select(label: str, key: str, options: list[str], nothing: str, help: str | None = None) -> None:
    if options:
        st.selectbox(label, options, key=key, bind="query-params", help=help)
    else:
        st.session_state.pop(key, None)
        st.selectbox(label, [nothing], disabled=True, help=help)


def _by_count(frame: pd.DataFrame, column: str) -> list[str]:
    """The values of a column, most frequent first; those of finished runs count first."""
    if column not in frame:
        return []
    done = frame["state"].eq("done") if "state" in frame else pd.Series(True, index=frame.index)
    weight = 1 + 1000 * done
    counts = weight.groupby(frame[column]).sum().drop("", errors="ignore")
    return list(counts.sort_values(ascending=False, kind="stable").index)


def _short(path: Path) -> str:
    """The folder's last two names: a screenshot should not show a person's home."""
    return "/".join(path.absolute().parts[-2:])
