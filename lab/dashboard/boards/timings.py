"""Device reports under some conditions, as a chart and a table."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lab import choose, figures
from lab.dashboard import frame
from lab.dashboard.boards.conditions import CELL, CONDITIONS, conditions, of_students
from lab.dashboard.boards.full import in_full
from lab.devices import compare
from lab.results import plain_cells

MOST = 6  # reports whose times are drawn into one chart
C = st.column_config
COLUMNS: dict[str, Any] = {
    "name": C.TextColumn("Student", pinned=True),
    "grade": C.TextColumn("Grade"),
    "reasons": C.ListColumn("Why this grade", width="medium"),
    "timing.p50": C.NumberColumn("p50 (ms)", format="%.3f"),
    "low": C.NumberColumn("from", format="%.3f", help="95 % interval of the median"),
    "high": C.NumberColumn("to", format="%.3f", help="95 % interval of the median"),
    "timing.p90": C.NumberColumn("p90 (ms)", format="%.3f"),
    "timing.p99": C.NumberColumn("p99 (ms)", format="%.3f"),
    "timing.iqr": C.NumberColumn("IQR (ms)", format="%.3f", help="Between the quarters: the middle half of the calls"),
    "timing.wall.p50": C.NumberColumn(
        "p50 by the wall (ms)", format="%.3f", help="The host's time of a call, where the others are the GPU's own"
    ),
    "beside": C.NumberColumn("% better", format="%+.0f", help="p50 than the baseline's fastest; below 0: slower"),
    "timing.wall.p90": C.NumberColumn("p90 by the wall (ms)", format="%.3f"),
    "software.runtime": C.TextColumn("Runtime"),
    "model.precision": C.TextColumn("Precision"),
    "workload.batch": C.NumberColumn("Batch"),
    "state.threads": C.NumberColumn("Threads"),
    "workload.scope": C.TextColumn("Timed", help="core: the network alone; e2e: from noise to an image"),
    "timing.cv": C.NumberColumn("Varies (CV)", format="percent", help="Standard deviation over mean"),
    "timing.drift": C.NumberColumn("Drift", format="percent", help="Median of the last third over the first, less 1"),
    "timing.load_ms": C.NumberColumn("Load (ms)", format="%.1f"),
    "timing.build_ms": C.NumberColumn("Build (ms)", format="%.1f"),
    "timing.first_ms": C.NumberColumn("First (ms)", format="%.2f"),
    "memory.process_peak_mb": C.NumberColumn(
        "Peak memory (MB)",
        format="%.0f",
        help="As the report read it; one that was read in the lab's own process holds "
        "what ran before, and Choose does not go by it",
    ),
    "params_m": C.NumberColumn("Parameters (M)", format="%.3f", help=choose.SIZES_SAID),
    "params_trained_m": C.NumberColumn("as trained (M)", format="%.3f", help="Parameters before deployment"),
    "file_mb": C.NumberColumn("File (MB)", format="%.3f", help="In half precision, or as timed if smaller"),
    "file_trained_mb": C.NumberColumn("File as trained (MB)", format="%.3f"),
    "macs_m": C.NumberColumn("MACs per image (M)", format="%.1f", help=choose.SIZES_SAID),
    "macs_trained_m": C.NumberColumn("MACs per image as trained (M)", format="%.1f"),
    "energy.mj_per_image": C.NumberColumn("Energy (mJ per image)", format="%.3f", help="All that the rail gave"),
    "energy.mj_per_image_net": C.NumberColumn(
        "net of idle (mJ)", format="%.3f", help="Less what the device draws at rest"
    ),
    "provenance": C.TextColumn("Provenance"),
    "device": C.TextColumn("Device"),
    "runner.preset": C.TextColumn("Preset"),
    "created_utc": C.TextColumn("When (UTC)"),
    "report_id": C.TextColumn("Report", width="large"),
}


def timings(rows: pd.DataFrame) -> None:
    """The reports under some conditions as a chart and a table, and one or two of them in full."""
    everyone = rows
    with st.container(border=True), st.grid(min_column_width=CELL):
        rows = of_students(conditions(rows, list(CONDITIONS)))
        percentile = st.selectbox("Order by", choose.PERCENTILES, key="timed_percentile", bind="query-params")
    if rows.empty:
        st.info("No report under these conditions; choose other ones above.")
    else:
        drawn = compare.best(rows, ["device", "name", "form", "workload.batch", "state.threads", "workload.scope"])
        chart = latencies(beside_baseline(drawn), percentile)
        st.plotly_chart(chart, key="timings_chart", config={"displaylogo": False},
                        alt=f"Latencies of {len(drawn)} timings, the fastest by {percentile} first")  # fmt: skip
        st.caption(frame.plain(drawn_said(drawn, rows, percentile)))
        table = beside_baseline(rows).sort_values(f"timing.{percentile}", kind="stable").reset_index(drop=True)
        table["reasons"] = [list(reasons) for reasons in table["grade_reasons"]]
        columns = [c for c in COLUMNS if c in table and table[c].notna().any()]
        picked = st.dataframe(
            plain_cells(table[columns].assign(name=frame.unmeasured(table["name"], table["provenance"]))),
            hide_index=True, column_config=COLUMNS, on_select="rerun", selection_mode="multi-row",
            key="timings_table", height=min(36 * (len(table) + 1) + 2, 400), alt="Every report under these conditions",
        )  # fmt: skip
        # Rows picked in the table go into the box below, which the URL keeps.
        places = [r for r in picked.selection.rows if r < len(table)][:MOST]
        if places != st.session_state.setdefault("picked_reports", []):
            st.session_state["picked_reports"] = places
            st.session_state["reports"] = table["report_id"].iloc[places].tolist()
    chosen = st.multiselect(
        f"In full: one report, or two against each other; up to {MOST} in one chart", everyone["report_id"].tolist(),
        key="reports", max_selections=MOST, bind="query-params", placeholder="choose rows above, or reports here",
    )  # fmt: skip
    found = everyone.set_index("report_id", drop=False).loc[chosen]
    in_full(found)


def latencies(rows: pd.DataFrame, percentile: str = "p50") -> go.Figure:
    """The chart of `figures.latencies`, with the line where the budget of the page Choose ends."""
    chart = figures.latencies(rows, percentile)
    return figures.draw_limits(chart, frame.limits(), x="latency_ms", log_x=chart.layout.xaxis.type == "log")


def beside_baseline(rows: pd.DataFrame) -> pd.DataFrame:
    """Reports with how much faster than the baseline's fastest sound one under the same conditions each is, in %."""
    base = frame.baseline(rows)
    if base is None:
        return rows
    alike = ["device", "workload.batch", "state.threads", "workload.scope"]
    its = rows[(rows["name"] == base["name"]) & ~choose.weak(rows)].groupby(alike, dropna=False)["timing.p50"].min()
    of = pd.Series(its.reindex(pd.MultiIndex.from_frame(rows[alike])).to_numpy(), index=rows.index)
    return rows.assign(beside=100 * (1 - rows["timing.p50"] / of), baseline=base["name"])


def drawn_said(drawn: pd.DataFrame, rows: pd.DataFrame, percentile: str) -> str:
    """What stands in the chart and what does not, in sentences."""
    known = drawn[f"timing.{percentile}"].notna().sum()
    said = [f"{len(rows)} reports of {rows['name'].nunique()} students; of each condition the best graded, newest one."]
    if known > figures.MOST_TIMINGS:
        said.append(f"The {figures.MOST_TIMINGS} fastest of {known} are drawn, the table has all.")
    if known < len(drawn):
        said.append(f"{len(drawn) - known} know no {percentile}, so they are not drawn.")
    if drawn["grade"].isin(figures.DOUBTFUL).any():
        said.append("Hollow markers: graded D, or not measured here.")
    if rows["provenance"].isin(("published", "estimated")).any():
        said.append(f"In the table {frame.UNMEASURED}.")
    if weak := sorted(set(rows["grade"][choose.weak(rows)])):
        but = " for more than their times' variation" if "D" in weak else ""
        said.append(f"No recommendation rests on those graded {', '.join(weak)}{but} unless one is asked for.")
    if rows["unsteady"].any():
        said.append("One that rests on a D for variation alone says how much it varies.")
    return " ".join(said)
