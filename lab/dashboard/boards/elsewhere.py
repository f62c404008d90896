"""What was not measured here: estimates for devices that have a card, and what others have published."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from lab.choose import number
from lab.dashboard import frame
from lab.dashboard.boards.timings import latencies
from lab.devices import compare, predict
from lab.results import Run

MOST_ESTIMATED = 6  # students beside each other
FIRST_CARDS = ("jetson-orin-nano-15w", "raspberry-pi-5")


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
    known = predict.cards(frame.store().root)
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
    runs = {name: Run(frame.store().root / "runs" / names[name]) for name in chosen}
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
    new = [report for report in made if not (frame.store().root / "devices" / f"{report['report_id']}.json").exists()]
    st.button("Keep these estimates", on_click=keep, args=(new,), disabled=not new, icon=":material/save:",
              help="As reports of grade F, so that the page Choose can use them where that is asked for")  # fmt: skip
    if not new:
        st.caption("They are kept: Choose uses them with the switch Estimated latencies too.")
    lines = [f"python -m lab predict {run.id} --device {key} --precision {precision} --batch {batch} --keep"
             for run in runs.values() for key in keys]  # fmt: skip
    frame.show_command("\n".join(lines))


def keep(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        frame.store().add_report(report)
