"""What the pages share: the store read once per change, and what the sidebar chose. No torch here.

A page begins with

    view = frame.view()         # runs and reports of the chosen data set, protocol and device
    runs = view.measured        # rows that may be compared with each other

and never reads the results folder's tables itself.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from lab import choose, jobs
from lab.results import Run, Store, as_csv, default_root, faults_said

# A teacher and a student on the embedded digits: what an empty page offers.
FIRST_RUN = """python -m lab run --data digits --method denoise --unet 16,32 --steps 500 --name-teacher digits-teacher
python -m lab run --data digits --teacher digits-teacher --pairs 2000 --steps 500"""
HATCH = "\N{SQUARE WITH UPPER RIGHT TO LOWER LEFT FILL}"
# Mark, as the charts of latencies draw it (lab/figures), word and meaning of each provenance.
PROVENANCE = (
    ("\N{BLACK CIRCLE}", "measured", "on this machine by the lab; hollow where it is graded D"),
    ("\N{BLACK CIRCLE}", "imported", "on a board by the pack's runner.py; hollow where it is graded D"),
    ("\N{WHITE CIRCLE}", "published", "by others, grade E; hollow"),
    ("\N{CIRCLED DOT OPERATOR}", "estimated", "measured by nobody, grade F; hollow with a dot"),
)
EVERY = "every method"  # of the filter by method
NO_BASELINE = "none"
JUDGED = ("runs", "pairs", "sweeps", "devices", "devices/blocks", "devices/cards")  # held to the schema
RECHECK_S = 10  # an editor may change a file in its place, which its folder does not show


def store() -> Store:
    """The results folder: LAB_RESULTS, or the one beside the package."""
    return Store(default_root())


def all_runs() -> pd.DataFrame:
    """Every run, hidden ones too, with the columns `protocol` and `name`; read again when a file has changed."""
    root = store().root
    table = _runs(str(root), _files(str(root), _stamp(root, "runs"))).copy(deep=False)
    for place, run in table["run"][table["state"] == "running"].items():  # a process that is killed changes no file
        table.loc[place, "state"] = Run(root / "runs" / run).status().state
    return table


def all_reports() -> pd.DataFrame:
    """Every device report."""
    root = store().root
    return _reports(str(root), hash((_stamp(root, "devices"), _exports(root)))).copy(deep=False)


def all_blocks() -> pd.DataFrame:
    """The times of every student that was timed part by part."""
    root = store().root
    return _blocks(str(root), _stamp(root, "devices/blocks"))


def tell_unreadable(*words: str) -> None:
    """Name the files of the results folder that do not hold and have one of these words in their path."""
    root = store().root
    faults = _faults(str(root), hash((*(_stamp(root, folder) for folder in JUDGED), _exports(root))))
    if said := faults_said({name: wrong for name, wrong in faults.items() if any(word in name for word in words)}):
        st.caption(plain(said))


@st.cache_data(max_entries=4, ttl=RECHECK_S, show_spinner=False)
def _faults(root: str, stamp: int) -> dict[str, str]:
    return Store(root).faults()


@st.cache_data(max_entries=4, ttl=RECHECK_S, show_spinner=False)
def _files(root: str, stamp: int) -> int:
    return Store(root).stamp()


# As they are: unpickling thousands of rows takes too long, and what is handed out is a copy that copies on write.
@st.cache_resource(max_entries=4, show_spinner=False)
def _runs(root: str, files: int) -> pd.DataFrame:
    return _in_one_block(choose.complete(Store(root).table()))


@st.cache_resource(max_entries=4, show_spinner=False)
def _reports(root: str, stamp: int) -> pd.DataFrame:
    return _in_one_block(Store(root).reports())


def _in_one_block(table: pd.DataFrame) -> pd.DataFrame:
    """With text as Python's own, each word once: rows are taken a hundred times for a page, and pandas takes its
    columns of text, of which there are dozens, one by one.
    """
    text = {name: [sys.intern(said) if type(said) is str else said for said in column]
            for name, column in table.select_dtypes("string").items()}  # fmt: skip
    return table.assign(**{name: pd.Series(said, table.index, dtype=object) for name, said in text.items()}).copy()


@st.cache_data(max_entries=4, show_spinner=False)
def _blocks(root: str, stamp: int) -> pd.DataFrame:
    return Store(root).blocks()


def clear() -> None:
    """Forget what was read, for tests that put other tables in its place."""
    _files.clear()
    _runs.clear()
    _reports.clear()
    _blocks.clear()
    _faults.clear()


@contextlib.contextmanager
def one_look() -> Iterator[None]:
    """While it lasts the folders' names and times are read once: a page asks for them several times, and there are
    thousands.
    """
    st.session_state["stamps"] = {}
    try:
        yield
    finally:
        st.session_state.pop("stamps", None)


def _once(look: Callable[..., int]) -> Callable[..., int]:
    """A stamp that is taken once in `one_look`, and outside of it each time."""

    @functools.wraps(look)
    def looked(*of: Path | str) -> int:
        kept = st.session_state.get("stamps")
        if kept is None:
            return look(*of)
        key = (look.__name__, *map(str, of))
        if key not in kept:
            kept[key] = look(*of)
        return kept[key]

    return looked


@_once
def _stamp(root: Path, folder: str) -> int:
    """Of names and times of a folder's entries. Files are replaced whole, which touches the folder they are in.

    One number, since Streamlit takes a second to tell thousands of names and times apart.
    """
    found = []
    for path in (root / folder, root / "teachers.json"):
        if path.exists():
            found.append((path.name, path.stat().st_mtime_ns))
    if (root / folder).is_dir():
        with os.scandir(root / folder) as entries:
            found += sorted((e.name, e.stat().st_mtime_ns) for e in entries)
    return hash(tuple(found))


@_once
def _exports(root: Path) -> int:
    """Of names and times of the runs' exported files, of which reports say how far their images are off."""
    found = []
    if (root / "runs").is_dir():
        with os.scandir(root / "runs") as runs:
            for run in runs:
                with contextlib.suppress(OSError):
                    found.append((run.name, os.stat(f"{run.path}/export").st_mtime_ns))
    return hash(tuple(sorted(found)))


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
    stamp: int  # another one where the results folder is another or has changed

    @property
    def measured(self) -> pd.DataFrame:
        """The runs whose metrics were made under the chosen protocol: these may be compared."""
        return self.runs[self.runs["protocol"] == (self.protocol or None)]


def view() -> View:
    """The runs and reports that the sidebar chose; known before the sidebar is drawn."""
    runs, reports = _visible(), all_reports()
    options = _options(runs, reports)
    data, protocol, device = (held(key, options[key]) for key in ("data", "protocol", "device"))
    runs = runs[runs["data"] == data].reset_index(drop=True)
    root = store().root
    files = _files(str(root), _stamp(root, "runs"))
    stamp = hash((str(root), files, _stamp(root, "devices"), _exports(root)))
    return View(store=store(), data=data, protocol=protocol, device=device, runs=runs, reports=reports, stamp=stamp)


def sidebar() -> None:
    """The shared controls. app.py draws them after the page, so that its first sentence need not wait for them."""
    options = _options(_visible(), all_reports())
    with st.sidebar:
        _select("Data set", "data", options, "No run yet")
        _select(
            "Protocol of the metrics",
            "protocol",
            options,
            "Nothing measured yet",
            help="Extractor, sample count, reference and seed. Only values of one protocol are compared.",
        )
        _select("Device of the timings", "device", options, "Nothing timed yet",
                help="The machine on which the latencies were measured.")  # fmt: skip
        _select("Baseline", "baseline", options, "No finished run yet",
                help="Tables, charts and galleries show how much better or worse a run is than this one.")  # fmt: skip
        if said := st.session_state.get("budget_said"):
            st.badge(plain(f"Budget: {said}"), icon=":material/target:", color="gray", help="As the page Choose has it")
        if store().root.resolve() == (jobs.HERE / "results").resolve():
            st.info("**Demo data.** The results that come with the lab, and what was run beside them. LAB_RESULTS "
                    "names a folder of your own.", icon=":material/science:")  # fmt: skip
        with st.expander("Where figures come from", icon=":material/verified:"):
            st.markdown("\n".join(f"- {mark} **{word}**: {plain(said)}" for mark, word, said in PROVENANCE))
        st.caption("Results: `" + _short(store().root) + "`")


def _options(runs: pd.DataFrame, reports: pd.DataFrame) -> dict[str, list[str]]:
    """What each of the sidebar's boxes offers: the most frequent first, of devices the best timed."""
    data = _by_count(runs, "data")
    chosen = runs[runs["data"] == held("data", data)]
    done = chosen["name"][chosen["state"] == "done"].tolist()
    return {"data": data, "protocol": _by_count(chosen, "protocol"), "device": choose.devices_by_trust(reports),
            "baseline": [NO_BASELINE, *done] if done else []}  # fmt: skip


def baseline(rows: pd.DataFrame) -> dict[str, object] | None:
    """The row of the run that is the baseline; None where there is none, or it is not among these rows."""
    found = rows[rows["name"] == st.session_state.get("baseline", st.query_params.get("baseline"))]
    return found.iloc[0].to_dict() if len(found) else None


def set_baseline(name: str, data: str) -> None:
    """Make a run the baseline of every page; the address keeps it."""
    st.session_state["data"], st.session_state["baseline"] = data, name


def limits() -> dict[str, float]:
    """The limits that the page Choose last had in this session, by column of `choose.COSTS`."""
    return st.session_state.get("budget_limits", {})


def held(key: str, options: Sequence[str]) -> str:
    """What the select box of this key holds, whether it is drawn already or not: from the session, else the URL."""
    value = st.session_state.get(key, st.query_params.get(key))
    return value if value in options else options[0] if options else ""


def held_number(key: str, default: float | None) -> float | None:
    """What the number field of this key holds."""
    if key in st.session_state:
        return st.session_state[key]
    try:
        value = float(st.query_params.get(key, ""))
    except ValueError:
        return default
    return value if 0 <= value < math.inf else default


def held_switch(key: str) -> bool:
    """What the switch of this key, off by default, holds."""
    return bool(st.session_state.get(key, st.query_params.get(key, "").lower() == "true"))


# --- the conditions of the timings, for the pages that compare latencies ------------------------


def conditions(view: View, metric: str) -> choose.Budget:
    """The conditions that `conditions_controls` holds, as a budget without limits."""
    chosen = {key: held(key, known) for key, known in _timing_options(view).items()}
    threads, method = chosen.pop("threads"), held("method", methods(view.runs))
    return choose.Budget(
        **chosen | {"batch": int(chosen["batch"])}, threads=int(threads) if threads else None, metric=metric,
        method=None if method in ("", EVERY) else method,
        device=view.device or None, weak=held_switch("weak"), estimated=held_switch("estimated"),
        protocol=choose.protocol_for(view.runs, view.protocol, metric) if view.protocol else None,
    )  # fmt: skip


def methods(runs: pd.DataFrame) -> list[str]:
    """What the filter by method offers: EVERY, then the methods of the students; [] where there is but one."""
    known = sorted(runs.loc[runs["role"] == "student", "method_short"].unique())
    return [EVERY, *known] if len(known) > 1 else []


def method_control(view: View) -> None:
    """The filter by method, where there are several."""
    if known := methods(view.runs):
        st.selectbox("Method", known, key="method", bind="query-params", width=220,
                     help="Methods beside the objective; plain: none")  # fmt: skip


def conditions_controls(view: View) -> None:
    """Controls for the conditions under which latencies are compared."""
    options = _timing_options(view)
    help = {"runtime": "fastest: each student with the runtime it is fastest on",
            "precision": f"float: the fastest of {', '.join(choose.FLOATING)}; any: coarser ones too, such as int8. "
                         "What the images lose stands beside the answer",
            "percentile": "p50 is the median, p99 the slow end",
            "scope": "core: the network alone; e2e: from noise to an image"}  # fmt: skip
    labels = {"runtime": "Runtime", "precision": "Precision", "batch": "Batch", "threads": "Threads",
              "percentile": "Latency", "scope": "Timed"}  # fmt: skip
    with st.grid(min_column_width=150):
        for key, label in labels.items():
            if options[key]:
                st.selectbox(label, options[key], key=key, bind="query-params", help=help.get(key))
        st.toggle("Weak timings too", key="weak", bind="query-params",
                  help="Throttled ones, grades D for more than variation and E (published by others)")  # fmt: skip
        st.toggle("Estimated latencies too", key="estimated", bind="query-params",
                  help="Grade F, for students that nobody timed under these conditions; drawn hollow and called "
                       "estimated. The page Devices makes them")  # fmt: skip


def _timing_options(view: View) -> dict[str, list[str]]:
    here = view.reports
    if len(here) and view.device:  # estimates for a board have its card's name
        here = here[choose.on(here, view.device) if held_switch("estimated") else choose.devices(here) == view.device]
    found = {"runtime": ["fastest"], "precision": ["float"], "batch": ["1"], "threads": []}
    if len(here):
        found["runtime"] += sorted(here["software.runtime"].unique())
        there = set(here["model.precision"])
        found["precision"] += ["any"] + [p for p in choose.PRECISIONS if p in there]
        found["batch"] = [str(b) for b in sorted(here["workload.batch"].unique())]
        found["threads"] = [str(threads) for threads in choose.thread_counts(here)]
    return found | {"percentile": list(choose.PERCENTILES), "scope": list(choose.SCOPES)}


@st.cache_data(max_entries=1, show_spinner=False)
def icon() -> Image.Image:
    """The browser tab's picture: patches, blue on white. Drawn, since a named icon is fetched from another host."""
    picture = np.full((32, 32, 3), 255, np.uint8)
    for row, column, colour in [(0, 0, "0072B2"), (0, 1, "56B4E9"), (1, 0, "009E73"), (1, 1, "E69F00")]:
        picture[2 + 15 * row : 15 + 15 * row, 2 + 15 * column : 15 + 15 * column] = list(bytes.fromhex(colour))
    return Image.fromarray(picture)


# --- the end of a page --------------------------------------------------------------------------


def footer(data: pd.DataFrame, command: str, name: str) -> None:
    """What every page ends with: its link, its data as files called `name`, and the command that gives the same.

    A page says it once, wherever it knows its data; app.py draws it last, also where the page ends early.
    """
    st.session_state["footer"] = (data, command, name)


def draw_footer() -> None:
    """The footer of the page that has just been drawn, if it said one."""
    data, command, name = st.session_state.pop("footer", (None, "", ""))
    if data is None:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover("Copy link", icon=":material/link:"):
            st.code(link(), language=None, wrap_lines=True)
            st.caption("This page as it stands: data set, filters and axes are in the address.")
        for label, write, ending, mime in [
            ("Download data (CSV)", lambda: as_csv(data), "csv", "text/csv"),
            ("Parquet", lambda: as_parquet(data), "parquet", "application/vnd.apache.parquet"),
        ]:
            st.download_button(label, write, f"{name}.{ending}", mime, on_click="ignore", key=f"footer-{ending}",
                               icon=":material/download:")  # fmt: skip
        with st.popover("Show the command", icon=":material/terminal:"):
            show_command(command)


def link() -> str:
    """The address of this page with all its controls."""
    query = urllib.parse.urlencode([(k, v) for k in st.query_params for v in st.query_params.get_all(k)])
    return (st.context.url or "") + (f"?{query}" if query else "")


def as_parquet(data: pd.DataFrame) -> bytes:
    """A table as a Parquet file; in a column of several kinds every value is written as JSON."""
    plain = data.copy()
    for column in plain.select_dtypes("object", exclude="str"):
        if pd.api.types.infer_dtype(plain[column], skipna=True) not in ("string", "boolean", "empty"):
            missing = [not isinstance(v, (list, tuple, dict)) and pd.isna(v) for v in plain[column]]
            plain[column] = [None if m else json.dumps(v, default=str) for m, v in zip(missing, plain[column])]
    return plain.to_parquet(index=False)


def hatched(names: pd.Series, states: pd.Series) -> pd.Series:
    """Names of runs in a table, hatched where the run is not done: a sign, so that no colour is needed."""
    return names.where(states == "done", HATCH + " " + names)


def unmeasured(names: pd.Series, provenance: pd.Series) -> pd.Series:
    """Names in a table of timings, with the sign of `PROVENANCE` where a figure was not measured: others published it,
    or it is estimated.
    """
    signs = provenance.map({word: sign for sign, word, _ in PROVENANCE if word in ("published", "estimated")})
    return names.where(signs.isna(), signs.astype(str) + " " + names)


UNMEASURED = "; ".join(f"{sign} {word}" for sign, word, _ in PROVENANCE if word in ("published", "estimated"))


# --- small things -------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text in which nothing is markdown: labels are what people typed."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~$:])", r"\\\1", text)


def small_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A few rows as text: a data frame's viewer would hold up a chart."""
    lines = [titles, ["---"] * len(titles), *([plain(cell) for cell in row] for row in rows)]
    st.markdown("\n".join("| " + " | ".join(line) + " |" for line in lines))


def empty(what: str, command: str) -> None:
    """Say what is missing and the command that makes it, then end the page."""
    st.info(what, icon=":material/hourglass_empty:")
    show_command(command)
    end()


class Ended(Exception):
    """A page has said all that it can; app.py catches it and draws what stands around every page."""


def end() -> NoReturn:
    """End the page here. After st.stop a browser would be sent no footer and no sidebar either."""
    raise Ended


def show_command(command: str) -> None:
    """Commands of the lab, one a line, with a button that copies them; they name the results folder that is shown."""
    st.code(jobs.on(store().root, command), language="bash", wrap_lines=True)


def _visible() -> pd.DataFrame:
    runs = all_runs()
    return runs[~runs["hide"]].reset_index(drop=True) if runs["hide"].any() else runs


def _select(label: str, key: str, options: dict[str, list[str]], nothing: str, help: str | None = None) -> None:
    if options[key]:
        st.selectbox(label, options[key], key=key, bind="query-params", help=help)
    else:
        st.session_state.pop(key, None)
        st.selectbox(label, [nothing], disabled=True, help=help)


def _by_count(frame: pd.DataFrame, column: str) -> list[str]:
    """The values of a column, most frequent first; those of finished runs count first."""
    weight = 1 + 1000 * frame["state"].eq("done")
    counts = weight.groupby(frame[column]).sum().drop("", errors="ignore")
    return list(counts.sort_values(ascending=False, kind="stable").index)


def _short(path: Path) -> str:
    """The folder's last two names: a screenshot should not show a person's home."""
    return "/".join(path.absolute().parts[-2:])
