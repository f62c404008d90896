"""How fast on real boards, and how far each figure can be trusted."""

from __future__ import annotations

import contextlib
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from lab import choose, figures
from lab.choose import number
from lab.dashboard import frame
from lab.devices import bundle, compare, predict
from lab.devices.incoming import import_contents
from lab.devices.predict import Card
from lab.devices.report import GRADES
from lab.results import Run, plain_cells

TITLE = "Devices"
ORDER = 35
ICON = ":material/speed:"
URL = "/devices"

VIEWS = ("Timings", "Precisions", "Size", "Other devices", "Bring a report")
ALL = "all"
MOST = 6  # reports whose times are drawn into one chart
IN_FULL = 2  # of them shown in full
MOST_ESTIMATED = 6  # students beside each other
MOST_SAID = 3  # students whose parts get a sentence
FIRST_CARDS = ("jetson-orin-nano-15w", "raspberry-pi-5")
# Key in the URL -> label, column of a report.
CONDITIONS = {
    "timed_device": ("Device", "device"),
    "timed_runtime": ("Runtime", "software.runtime"), "timed_precision": ("Precision", "model.precision"),
    "timed_batch": ("Batch", "workload.batch"), "timed_threads": ("Threads", "state.threads"),
    "timed_scope": ("Timed", "workload.scope"),
}  # fmt: skip
FORM = ("timed_runtime", "timed_precision")  # stand beside each other where precisions are compared
OPEN = ("timed_device", *FORM)  # these begin with all of them
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


# --- controls -----------------------------------------------------------------------------------


def conditions(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Select boxes for conditions, and the rows under them; none for the device where there is but one."""
    chosen = {}
    with st.grid(min_column_width=130):
        for key in keys:
            label, column = CONDITIONS[key]
            if column == "device" and rows[column].nunique() < 2:
                continue
            known = _known(rows[column])
            first = 0 if key in OPEN or not known else known.index(_first(rows[column])) + 1
            chosen[column] = st.selectbox(label, [ALL, *known], first, key=key, bind="query-params")
    for column, value in chosen.items():
        if value != ALL:
            rows = rows[rows[column].map(_word) == value]
    return rows


def _known(values: pd.Series) -> list[str]:
    return [_word(value) for value in sorted(values.dropna().unique())]


def _first(values: pd.Series) -> str:
    """Batch 1 and scope core where they are there, else what is most common."""
    words = values.dropna().map(_word)
    return next((w for w in ("1", "core") if values.name != "state.threads" and (words == w).any()), words.mode()[0])


def _word(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, (int, float, np.number)) else str(value)


def of_students(rows: pd.DataFrame) -> pd.DataFrame:
    """A box for students; all of them while it is empty."""
    names = list(rows["name"].value_counts().index)
    chosen = st.multiselect("Students", names, key="timed_students", bind="query-params",
                            placeholder=f"all {len(names)}")  # fmt: skip
    return rows[rows["name"].isin(chosen)] if chosen else rows


# --- timings ------------------------------------------------------------------------------------


def timings(rows: pd.DataFrame) -> None:
    """The reports under some conditions as a chart and a table, and one or two of them in full."""
    everyone = rows
    with st.container(border=True):
        rows = of_students(conditions(rows, list(CONDITIONS)))
        percentile = st.segmented_control("Order by", choose.PERCENTILES, default="p50", required=True,
                                          key="timed_percentile", bind="query-params")  # fmt: skip
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
    if len(found) == 2:
        against(found)
    if len(found):
        spread(found)
    if len(found) <= IN_FULL:
        for column, (_, row) in zip(st.columns(max(1, len(found)), gap="medium"), found.iterrows()):
            with column:
                whole(row)
    if len(found):
        st.markdown("**Cold and warm**")
        st.plotly_chart(figures.stages(found), key="stages_chart", config={"displaylogo": False},
                        alt="Milliseconds of loading, building, the first call and a steady one")  # fmt: skip


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


def against(found: pd.DataFrame) -> None:
    """The ratio of two reports, and in what they differ."""
    a, b = found.to_dict("records")
    st.subheader(frame.plain(compare.ratio_said(a, b)), anchor=False)
    apart = compare.differences(a, b)
    names = ("first", "second")
    for said, row in zip(names, (a, b)):
        st.markdown(f"The {said}: {frame.plain(row['name'])}, {frame.plain(row['report_id'])}")
    if len(apart):
        frame.small_table(["differs in", *names], apart.values.tolist())
    else:
        st.caption("They share every condition, so the ratio is that of two moments of one thing.")
    st.caption("The interval is what the two medians' 95 % intervals allow together. Two reports are two moments of a "
               "machine: `lab.bench.compare` times two networks in turns.")  # fmt: skip


def spread(found: pd.DataFrame) -> None:
    """How the single times of some reports are spread, and the state of their machines meanwhile."""
    raw = {}
    for label, report_id in zip(figures.timing_labels(found), found["report_id"]):
        with contextlib.suppress(LookupError):  # gone since the table was read
            raw[html.unescape(label.replace("<br>", ", "))] = (
                frame.store().report(report_id)["timing"].get("samples_ns")
            )
    if kept := {label: samples for label, samples in raw.items() if samples}:
        st.markdown("**How the single times are spread**")
        st.plotly_chart(figures.ecdf(kept), key="ecdf_chart", config={"displaylogo": False},
                        alt=f"Share of the calls within a time, of {len(kept)} reports")  # fmt: skip
        st.caption("A steady timing is a wall; a step to the right is other work on the machine, or a lower clock.")
    if silent := len(found) - len(kept):
        st.caption(f"{silent} of {len(found)} chosen reports keep no single times, so they are not in such a chart.")
    if (drawn := figures.states(found)) is not None:
        st.markdown("**Clocks, temperature and power meanwhile**")
        st.plotly_chart(drawn, key="states_chart", config={"displaylogo": False},
                        alt="Lowest, mean and highest clocks, temperature and power of the chosen reports")  # fmt: skip


def whole(row: pd.Series) -> None:
    """One report: its grade and why, its figures, its times in order, and the state of the machine."""
    st.subheader(f"{frame.plain(row['name'])}: grade {row['grade']}", anchor=False)
    st.markdown(f"{frame.plain(row['form'])} on {frame.plain(row['device'])}. {GRADES[row['grade']].capitalize()}."
                + "".join(f"\n- {frame.plain(reason)}" for reason in row["grade_reasons"]))  # fmt: skip
    if sizes := [choose.size_said(row, size) for size in choose.AS_TRAINED if pd.notna(row[size])]:
        st.caption(frame.plain(f"{', '.join(sizes)}."))
    try:
        report = frame.store().report(row["report_id"])
    except LookupError as gone:
        st.warning(frame.plain(str(gone)))
        return
    tiles(row)
    timing = report["timing"]
    if raw := timing.get("samples_ns"):
        st.plotly_chart(
            figures.over_time(raw, timing.get("sessions") or 1), key=f"times-{row['report_id']}",
            config={"displaylogo": False}, alt="The times that the report keeps, in order",
        )  # fmt: skip
        of_all = f" of {timing['iters']:,} calls" if timing["iters"] else " calls"
        st.caption(f"{len(raw):,}{of_all} are kept. A slope is drift, steps and spikes are other "
                   "work on the machine or its clocks.")  # fmt: skip
    else:
        st.caption("The report keeps no single times, so only its summary can be shown.")
    with st.expander("Device, software and state"):
        frame.small_table(["", ""], facts(report))
        st.download_button("Download this report", json.dumps(report) + "\n", f"{row['report_id']}.json",
                           "application/json", on_click="ignore", key=f"get-{row['report_id']}")  # fmt: skip
    if card := compare.card_for(predict.cards(view.store.root).values(), row):
        with st.expander("The device's card"):
            card_table(card)


def tiles(row: pd.Series) -> None:
    within = f"{number(row['low'])} to {number(row['high'])}" if pd.notna(row["low"]) else None
    cells = [("p50", row["timing.p50"], "{} ms", within), ("p90", row["timing.p90"], "{} ms", None),
             ("p99", row["timing.p99"], "{} ms", None), ("p50 by the wall", row.get("timing.wall.p50"), "{} ms", None),
             ("Middle half (IQR)", row.get("timing.iqr"), "{} ms", None)]  # fmt: skip
    cells = [(title, form.format(number(value)), note) for title, value, form, note in cells if pd.notna(value)]
    for title, column in [("Varies (CV)", "timing.cv"), ("Drift", "timing.drift")]:
        if pd.notna(row[column]):
            cells.append((title, f"{row[column]:{'+' * (title == 'Drift')}.1%}", None))
    memory = [("Peak memory", "memory.process_peak_mb"), ("Weights", "memory.weights_mb")]
    cells += [(title, f"{number(row[column])} MB", None) for title, column in memory if pd.notna(row[column])]
    if pd.notna(row["energy.mj_per_image"]):
        net, rail = row["energy.mj_per_image_net"], row["energy.rail"]
        beside = [rail] * pd.notna(rail) + [f"{number(net)} mJ net of idle"] * pd.notna(net)
        cells.append(("Energy per image", f"{number(row['energy.mj_per_image'])} mJ", ", ".join(beside)))
    if pd.notna(row["off_max"]) and row["model.precision"] not in choose.EXACT:
        cells.append(("Images off by at most", number(row["off_max"]), "of [-1, 1]"))
    with st.grid(min_column_width=140):
        for title, value, note in cells:
            st.metric(title, value, note, delta_color="off", delta_arrow="off", border=True)


def facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a report says of device, software, state, workload and check, in words; what it does not say is left out."""
    rows = []
    for part in ("device", "software", "state", "workload", "timing", "memory", "energy", "checks", "runner", "source"):
        for name, value in (report.get(part) or {}).items():
            if value is None or value == [] or name == "samples_ns":
                continue
            if isinstance(value, Mapping):
                value = ", ".join(f"{k} {v:g}" for k, v in value.items())
            elif isinstance(value, list):
                value = ", ".join(map(str, value))
            elif isinstance(value, float):
                value = f"{value:.6g}"
            rows.append((f"{part} {name.replace('_', ' ')}", str(value)))
    model = report["model"]
    rows += [(f"model {k.replace('_', ' ')}", str(v)) for k, v in model.items() if k != "config" and v is not None]
    return [*rows, ("provenance", report["provenance"]), ("created", report["created_utc"])]


def card_table(card: Card) -> None:
    """What a device can do at most, each figure with its source."""
    rows = [(f"peak {precision}", f"{value:,.0f} GFLOP/s", card.sources[f"peak.{precision}"])
            for precision, value in card.peak.items()]  # fmt: skip
    rows += [("memory", f"{card.bandwidth:g} GB/s", card.sources["bandwidth"]),
             ("start of an operation", f"{card.launch_us:g} microseconds", card.sources["launch_us"])]  # fmt: skip
    st.markdown(f"**{frame.plain(card.title)}**, {card.memory_mb:,} MB")
    frame.small_table(["", "at most", "from"], rows)


# --- precisions of one student ------------------------------------------------------------------


def precisions(rows: pd.DataFrame) -> None:
    """All precisions of one student side by side, with what each costs in images."""
    with st.container(border=True):
        rows = conditions(rows, [key for key in CONDITIONS if key not in FORM])
        # The one with most to compare comes first.
        names = list(rows.groupby("name")["form"].nunique().sort_values(ascending=False, kind="stable").index)
        if not names:
            st.info("No report under these conditions; choose other ones above.")
            return
        name = st.selectbox("Student", names, key="timed_student", bind="query-params")
    mine = rows[rows["name"] == name]
    if len(mixed := [label for key, (label, column) in CONDITIONS.items() if key not in FORM
                     and mine[column].nunique() > 1]):  # fmt: skip
        st.warning(f"{' and '.join(mixed)}: choose one above; timings of different ones can't stand beside each other.")
        return
    table = compare.precisions(mine)
    chart = figures.draw_limits(figures.precisions(table), frame.limits(), y="latency_ms")
    st.plotly_chart(chart, key="precisions_chart", config={"displaylogo": False},
                    alt=f"Latency of {name} by runtime and precision")  # fmt: skip
    for row in table.to_dict("records"):
        if said := compare.pays_said(row):
            mark = {"pays": ":material/check:", "does not pay": ":material/close:"}.get(row["verdict"], "")
            st.markdown(f"{mark} {frame.plain(said)}".strip())
    if table["model.precision"].nunique() < 2:
        st.info("Only one precision of this student is timed here. This times the others:")
        frame.show_command(f"python -m lab bench {table['run'].iloc[0] or name} --runtime onnxruntime,openvino "
                           "--precision fp32,bf16,int8")  # fmt: skip
    frame.small_table(
        ["runtime", "precision", "p50 ms", "times fp32", "verdict", "images off", "at most", "perceptual", "grade"],
        [(r["runtime"], r["model.precision"],
          _number(r["timing.p50"]) + " estimated" * (r["provenance"] == "estimated"), _number(r["speed_up"]),
          r["verdict"] or "no fp32", _number(r["off_mean"]), _number(r["off_max"]), _number(r["off_perceptual"]),
          r["grade"]) for r in table.to_dict("records")],
    )  # fmt: skip
    st.caption("Times fp32: as fast as fp32 of the same runtime, by the medians; a verdict needs an interval that "
               "excludes 1. Images off: mean and largest difference from the network's own float32 images, of [-1, 1], "
               "on the common noises; of a file that is not known here only the largest, of the images that were timed."
               )  # fmt: skip


def _number(value: float) -> str:
    return "" if pd.isna(value) else "0" if value == 0 else number(value)


# --- size ---------------------------------------------------------------------------------------


def size(rows: pd.DataFrame) -> None:
    """Measured milliseconds against parameters or multiply-adds, and which shapes are slower than that says."""
    with st.container(border=True):
        rows = of_students(conditions(rows, list(CONDITIONS)))
        by = st.segmented_control("Size", list(compare.SIZES), default="params_m", required=True, key="size_by",
                                  format_func={"params_m": "Parameters", "macs_m": "Multiply-adds"}.get,
                                  bind="query-params")  # fmt: skip
    rows = rows[rows["provenance"].isin(("measured", "imported")) & ~choose.weak(rows)]
    if rows.empty:
        st.info("No sound timing under these conditions; choose other ones above.")
        return
    # One thing at a time: the condition of which most is known.
    keys = ["runtime", *(column for _, column in CONDITIONS.values())]
    most = rows.groupby(keys, dropna=False)["name"].nunique().idxmax()
    for column, value in zip(keys, most):
        rows = rows[rows[column].isna() if pd.isna(value) else rows[column] == value]
    first = rows.iloc[0]
    said = f"{first['form']} on {first['device']}, batch {first['workload.batch']:.0f}, {first['workload.scope']}"
    card, why_not = roofline(first)
    table = compare.sizes(rows, by, card)
    chart = figures.draw_limits(figures.size_and_time(table, by), frame.limits(), x=by, y="latency_ms", log_x=True,
                                log_y=True)  # fmt: skip
    st.plotly_chart(chart, key="size_chart", config={"displaylogo": False},
                    alt=f"Milliseconds against size of {len(table)} students")  # fmt: skip
    threads = "" if pd.isna(first["state.threads"]) else f", {choose.threads_said(first['state.threads'])}"
    st.caption(frame.plain(f"{said}{threads}: {len(table)} one-step students, their size that of the deployed form. "
                           "Where a condition is left open, it is the one of which most is known."))  # fmt: skip
    slow = table[table["than_size"] > compare.SLOWER]
    if len(table) and table["by_size"].isna().all():
        st.info(f"Fewer than {compare.FEWEST_SHAPES} sizes are timed so: no line can be drawn through them.")
    elif slow.empty:
        st.markdown(f"No shape takes more than {compare.SLOWER:g} times what its size says.")
    for row in slow.head(figures.MOST_NAMES).to_dict("records"):
        st.markdown(f"- {frame.plain(compare.slow_said(row, by))}")
    if why_not:
        st.info(why_not)
    if why_not == NO_CARD:
        threads = "" if pd.isna(first["state.threads"]) else f" --threads {first['state.threads']:.0f}"
        frame.show_command(f"python -m lab predict d4w64h4p4 --device here{threads}")
    if table["than_size"].notna().any():
        st.plotly_chart(figures.residuals(table), key="residuals_chart", config={"displaylogo": False},
                        alt="Measured over expected time of each student")  # fmt: skip
    if card:
        basis = (f"fitted on {card.tuned.timings} timings of {card.tuned.runtime}" if card.tuned
                 else "the card alone, not fitted on any timing")  # fmt: skip
        st.caption(frame.plain(f"Roofline: {basis}, operation by operation; see lab/devices/predict.py."))
        with st.expander("The device's card"):
            card_table(card)
    by_part(table, first)


NO_CARD = "This device has no card, so nothing says why. This measures the one of the machine it is typed on:"


def roofline(first: pd.Series) -> tuple[Card | None, str]:
    """The card that says why, of the device of a report; or None and a sentence on what is lacking."""
    card, precision = compare.card_for(predict.cards(view.store.root).values(), first), first["model.precision"]
    if card is None:
        return None, NO_CARD
    if first["workload.scope"] != "core":
        return None, "The device's card says what the network alone needs: choose core above, and it says why."
    if precision not in predict.PRECISIONS or predict.PRECISIONS[precision][2] not in card.peak:
        return None, f"The device's card has no peak for {precision}, so nothing says why."
    try:
        return predict.fitted(card, frame.all_reports(), runtime=first["software.runtime"], precision=precision), ""
    except ValueError:  # too little for a fit: the card alone
        return card, ""


def by_part(sizes: pd.DataFrame, first: pd.Series) -> None:
    """Measured milliseconds of the parts of these students on the device of a report, beside the least it allows."""
    batch, threads = first["workload.batch"], first["state.threads"]
    if pd.isna(threads) or isinstance(first.get("device.gpu"), str):  # they are timed on the CPU
        return
    st.subheader("Where the time goes, part by part", anchor=False)
    blocks, forms = frame.all_blocks(), compare.parted(frame.all_blocks(), first["device.name"], batch, threads)
    form, told = ("eager", "fp32"), f"{first['software.runtime']} {first['model.precision']}"
    if len(forms) > 1:
        words = st.segmented_control("Run by", list(forms), default=told if told in forms else next(iter(forms)),
                                     required=True, key="parts_form")  # fmt: skip
        form = forms[words]
    table = compare.parts(blocks, first["device.name"], batch, threads, *form)
    table = table.assign(name=table["run"].map(dict(zip(sizes["run"], sizes["name"])))).dropna(subset=["name"])
    said = f"batch {batch:.0f}, {choose.threads_said(threads)}"
    if table.empty:
        st.info(f"Nothing is kept of the parts of these students: {said}. This times them, on that machine and while "
                "it is quiet:")  # fmt: skip
        frame.show_command(
            f"python benchmarks/measure.py --steps blocks --block-batch {batch:.0f} --threads {threads:.0f}"
        )
        return
    names = [name for name in sizes["name"] if name in set(table["name"])][: figures.MOST_PARTED]
    table = table.set_index("name").loc[names].reset_index()
    st.plotly_chart(figures.parts(table), key="parts_chart", config={"displaylogo": False},
                    alt=f"Measured and least milliseconds by kind of part of {len(names)} students")  # fmt: skip
    for name in names[:MOST_SAID]:
        st.markdown(f"- {frame.plain(compare.parts_said(name, table[table['name'] == name]))}")
    account = ("timed part by part" if form[0] == "eager" else
               "by the runtime's own account; what it joined counts for the part whose name it kept")  # fmt: skip
    st.caption(f"{' '.join(form)}, {account}, {said}; {len(names)} students, the slowest for its size first. At its "
               "best: what the machine's fastest product and its memory need for the same arithmetic and bytes. Sums: "
               "the gates and what a block adds; ends: the embedding and the head.")  # fmt: skip


# --- what was not measured here -----------------------------------------------------------------


def elsewhere(runs: pd.DataFrame) -> None:
    """Estimates for devices that have a card, and what others have published."""
    st.subheader("Estimated from device cards", anchor=False)
    able = runs[runs["state"].eq("done") & runs["family"].eq("dit") & ~runs["time"]] if len(runs) else runs
    if able.empty:
        st.info("No finished one-step student to estimate yet; a shape can be estimated without one:")
        frame.show_command("python -m lab predict d4w64h4p4 --device raspberry-pi-5")
    else:
        estimated(able)
    st.subheader("Published by others", anchor=False)
    note, table = compare.published()
    st.markdown(f"**Grade E.** {frame.plain(note)}")
    rows = []
    for row in table.to_dict("records"):
        source = frame.plain(row["source"])
        cells = [f":gray[{frame.plain(row[c])}]" for c in ("system", "device", "said", "task")]
        linked = f"[{source}]({row['url']})" if isinstance(row["url"], str) else f":gray[{source}]"
        rows.append([*cells, linked, ":gray[E]"])
    titles = ["System", "Device", "Published", "Task", "Source", "Grade"]
    st.markdown("\n".join("| " + " | ".join(line) + " |" for line in [titles, ["---"] * len(titles), *rows]))


def estimated(able: pd.DataFrame) -> None:
    known = predict.cards(view.store.root)
    able = able.sort_values("fd", kind="stable")
    names = dict(zip(able["name"], able["run"]))
    with st.container(border=True):
        first = [key for key in FIRST_CARDS if key in known]
        keys = st.multiselect("Cards", list(known), first, key="cards", bind="query-params")
        chosen = st.multiselect("Students", list(names), list(names)[:2], key="estimated_students",
                                max_selections=MOST_ESTIMATED, bind="query-params")  # fmt: skip
        left, right = st.columns(2)
        known_as = list(predict.PRECISIONS)
        precision = left.selectbox("Precision", known_as, key="estimated_precision", bind="query-params")
        batch = right.number_input("Batch", 1, 1024, 1, key="estimated_batch", bind="query-params")
    runs = {name: Run(view.store.root / "runs" / names[name]) for name in chosen}
    made, skipped = compare.estimates([known[key] for key in keys], runs, frame.all_reports(), batch=batch,
                                      precision=precision)  # fmt: skip
    for said in skipped:
        st.warning(frame.plain(said))
    if not made:
        st.info("Choose a card and a student.")
        return
    rows = compare.as_rows(made, frame.all_runs())
    st.plotly_chart(latencies(rows), key="estimates_chart", config={"displaylogo": False},
                    alt=f"{len(rows)} estimated latencies with their intervals")  # fmt: skip
    frame.small_table(
        ["Student", "Device", "Estimated ms", "from", "to", "Grade"],
        [(r["name"], r["device"], number(r["timing.p50"]), number(r["low"]), number(r["high"]), "estimated, F")
         for r in rows.to_dict("records")],
    )  # fmt: skip
    notes = rows.groupby("source.note", sort=False)["device"].unique()
    st.caption(frame.plain("Nobody has measured any of these. "
                           + " ".join(f"{', '.join(where)}: {note}." for note, where in notes.items())))  # fmt: skip
    new = [report for report in made if not (view.store.root / "devices" / f"{report['report_id']}.json").exists()]
    st.button("Keep these estimates", on_click=keep, args=(new,), disabled=not new, icon=":material/save:",
              help="As reports of grade F, so that the page Choose can use them where that is asked for")  # fmt: skip
    if not new:
        st.caption("They are kept: Choose uses them with the switch Estimated latencies too.")
    lines = [f"python -m lab predict {run.id} --device {key} --precision {precision} --batch {batch} --keep"
             for run in runs.values() for key in keys]  # fmt: skip
    frame.show_command("\n".join(lines))


def keep(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        view.store.add_report(report)


# --- a report from a board ----------------------------------------------------------------------


def guide(runs: pd.DataFrame) -> None:
    """The way from a student to a report of a board, in steps with their commands."""
    students = runs[runs["state"].eq("done") & runs["family"].eq("dit") & ~runs["time"]] if len(runs) else runs
    run = students["run"].iloc[0] if len(students) else "RUN"
    if students.empty:
        st.markdown("**0. A student to time.** There is none yet; this makes a small one on the embedded digits.")
        frame.show_command(frame.FIRST_RUN)
    st.markdown("**1. Here: pack a student** for the board (jetson, rpi or cpu). The zip holds its networks, the "
                "images that they must draw, and runner.py, which times them.")  # fmt: skip
    frame.show_command(f"python -m lab pack {run} --target jetson --out student.zip")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(
            "lab/dashboard/export.py", label="Make the pack on the page Export", icon=":material/deployed_code:"
        )
        st.download_button("Download runner.py to read it", bundle.bundled, "runner.py", "text/x-python",
                           on_click="ignore", key="get_runner", icon=":material/download:",
                           help="One file of the standard library; it runs inside a pack")  # fmt: skip
    st.markdown("**2. On the board: unpack it and read README.md**, which says how to set power mode and clocks. It "
                "needs Python 3.10 and one of onnxruntime, torch or trtexec, and sends nothing anywhere.")  # fmt: skip
    st.code("unzip student.zip -d student && cd student", language="bash", wrap_lines=True)
    st.markdown("**3. On the board: time it.** A first look takes seconds with --preset quick; grades A and B need "
                "publishable, some minutes on a quiet board.")  # fmt: skip
    st.code("python3 runner.py --preset publishable", language="bash", wrap_lines=True)
    st.markdown("**4. Here again: import the report**, below or in a terminal.")
    frame.show_command("python -m lab import report-*.json")
    st.caption("This machine itself is timed by `python -m lab bench`.")


def bring() -> None:
    """Upload of reports; each is checked, graded and kept, or refused with a sentence."""
    with st.form("bring", clear_on_submit=True):
        st.file_uploader("Reports that runner.py wrote", type="json", accept_multiple_files=True, key="brought")
        st.form_submit_button("Check, grade and keep", on_click=take, icon=":material/upload_file:")
    for kind, lines in st.session_state.get("arrivals", []):
        said = "\n".join([frame.plain(lines[0]), "", *(f"- {frame.plain(line)}" for line in lines[1:])])
        {"error": st.error, "warning": st.warning, "success": st.success}[kind](said)
    st.caption("A report that was throttled, swapped or drew wrong images is kept, graded D with the reason, and no "
               "recommendation rests on it. A report that is here already is no change. Of several files all are kept, "
               "or none.")  # fmt: skip


def take() -> None:
    """Import what was uploaded; what became of each file is shown when the page is drawn again."""
    files = st.session_state.get("brought") or []
    try:
        found = import_contents([(file.name, file.getvalue()) for file in files], frame.store())
    except (OSError, ValueError) as error:
        st.session_state["arrivals"] = [("error", line.split("; ")) for line in str(error).splitlines()]
        return
    said = []
    for arrival in found:
        report, weak = arrival.report, arrival.grade.letter in choose.WEAK
        ms, device = report["timing"]["p50"], report["device"]["name"]
        state = "kept" if arrival.new else "it is here already, nothing changed"
        end = "; left out of recommendations" if arrival.left_out else ""
        whose = f"; it joins {arrival.run}" if arrival.run else "; no run here has these weights, so it joins none yet"
        what = f"{arrival.file}: {ms:g} ms p50 on {device}; {state}{end}{whose}. Grade {arrival.grade.letter}:"
        said.append(("warning" if weak else "success", [what, *arrival.grade.reasons]))
    st.session_state["arrivals"] = said or [("error", ["No file was chosen."])]


# --- the page -----------------------------------------------------------------------------------

view = frame.view()
st.title("How fast on real boards, and can it be trusted?", anchor=False)
rows = compare.named(view.reports, frame.all_runs())
if len(rows):
    rows = rows[rows["data"].isin(("", view.data))] if view.data else rows
frame.tell_unreadable("devices/", "/export/")
if rows.empty:
    st.info("No device report yet. This is the way to one; estimates and what others published stand below.",
            icon=":material/hourglass_empty:")  # fmt: skip
    guide(view.runs)
    bring()
    elsewhere(view.runs)
    frame.end()

frame.footer(rows, "python -m lab bench --batch 1,16,64 --runtime eager,compiled", "devices")
shown = st.segmented_control("View", VIEWS, default=VIEWS[0], required=True, key="devices", bind="query-params",
                             label_visibility="collapsed")  # fmt: skip
if shown in VIEWS[:3]:
    every = st.toggle("Every device", key="every_device", bind="query-params",
                      help="Else those of the device that the sidebar names")  # fmt: skip
    here = rows if every else rows[rows["device"] == view.device]
    if not every:
        st.caption(frame.plain(f"Device: {view.device}."))
    if here.empty:
        st.info("No report of this device for this data set; the sidebar chooses another one.")
        frame.end()
    {VIEWS[0]: timings, VIEWS[1]: precisions, VIEWS[2]: size}[shown](here)
elif shown == VIEWS[3]:
    elsewhere(view.runs)
else:
    guide(view.runs)
    bring()
