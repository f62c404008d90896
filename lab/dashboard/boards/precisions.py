"""All precisions of one student side by side, with what each costs in images."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from lab import figures
from lab.choose import number
from lab.dashboard import frame
from lab.dashboard.boards.conditions import CELL, CONDITIONS, FORM, conditions
from lab.devices import compare


def precisions(rows: pd.DataFrame) -> None:
    """All precisions of one student side by side, with what each costs in images."""
    with st.container(border=True), st.grid(min_column_width=CELL):
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
