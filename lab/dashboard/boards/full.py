"""A report in full, or two against each other: grade and why, times in order, the state of the machine."""

from __future__ import annotations

import contextlib
import html
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from lab import choose, figures
from lab.choose import number
from lab.dashboard import frame
from lab.devices import compare, predict
from lab.devices.predict import Card
from lab.devices.report import GRADES

IN_FULL = 2  # reports that are shown in full beside each other


def in_full(found: pd.DataFrame) -> None:
    """The chosen reports: what sets two apart, how their times are spread, each of them, cold and warm."""
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
    if card := compare.card_for(predict.cards(frame.store().root).values(), row):
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
