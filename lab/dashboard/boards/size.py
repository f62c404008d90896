"""Time against size: which shapes are slower than their size says, and where their time goes."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from lab import choose, figures
from lab.dashboard import frame
from lab.dashboard.boards.conditions import CELL, CONDITIONS, conditions, of_students
from lab.dashboard.boards.full import card_table
from lab.devices import compare, predict
from lab.devices.predict import Card

MOST_SAID = 3  # students whose parts get a sentence
NO_CARD = "This device has no card, so nothing says why. This measures the one of the machine it is typed on:"


def size(rows: pd.DataFrame) -> None:
    """Measured milliseconds against parameters or multiply-adds, and which shapes are slower than that says."""
    with st.container(border=True):
        with st.grid(min_column_width=CELL):
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


def roofline(first: pd.Series) -> tuple[Card | None, str]:
    """The card that says why, of the device of a report; or None and a sentence on what is lacking."""
    card, precision = compare.card_for(predict.cards(frame.store().root).values(), first), first["model.precision"]
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
