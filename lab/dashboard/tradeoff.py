"""How size, speed and quality trade against each other."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from lab import choose, figures
from lab.choose import COSTS, METRICS, QUANTITIES, number
from lab.dashboard import frame
from lab.results import plain_cells

TITLE = "Trade-off"
ORDER = 20
ICON = ":material/scatter_plot:"
URL = "/tradeoff"

VIEWS = ("2-D", "3-D", "Table")
COLUMNS = ("name", "method", "evaluations", *choose.AS_TRAINED, *choose.AS_TRAINED.values(), "latency_ms", "runtime",
           "grade", "speed_up", *METRICS, "fd_low", "fd_high", "on_front", "run")  # fmt: skip


def axes(rows: pd.DataFrame, names: str) -> list[str]:
    """Choosers for the quantities of the axes `xy` or `xyz`."""
    known = [q for q in QUANTITIES if rows[q].notna().any()]
    timed = "latency_ms" in known
    first = {"x": "latency_ms" if timed else "params_m", "y": "fd", "z": "params_m" if timed else "macs_m"}
    chosen = []
    for axis in names:
        at = known.index(first[axis]) if first[axis] in known else 0
        chosen.append(
            st.selectbox(
                f"Axis {axis}", known, at, key=axis, bind="query-params", format_func=lambda q: QUANTITIES[q].title
            )
        )
    return chosen


def split(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The rows of one protocol for each metric on an axis: those of several are not mixed, a control chooses one."""
    for column in dict.fromkeys(c for c in columns if c in METRICS):
        said = choose.protocols(rows, column)
        known = [p for p in said.value_counts().index if p]
        if len(known) > 1:
            chosen = st.selectbox(
                f"{METRICS[column].title}, one protocol of {len(known)}", known, index=None, key=f"split_{column}",
                bind="query-params", placeholder="choose which is drawn",
            )  # fmt: skip
            if chosen:
                rows = rows[said == chosen]
    return rows


def ends(rows: pd.DataFrame, x: str, y: str) -> str:
    """The front of two axes in a sentence: how many students, and the first and the last of them."""
    front = rows[rows["on_front"]].sort_values(x)
    if len(front) < 2:
        return ""
    first, last = front.iloc[0], front.iloc[-1]
    here = ", ".join(f"{QUANTITIES[c].title} {QUANTITIES[c].say(first[c])}" for c in (x, y))
    there = ", ".join(QUANTITIES[c].say(last[c]) for c in (x, y))
    return (f"{len(front)} of {len(rows)} students are on the front, from {first['name']} ({here}) "
            f"to {last['name']} ({there}).")  # fmt: skip


def covered(rows: pd.DataFrame, columns: list[str]) -> str:
    """The hypervolume of the front, and against what."""
    found = choose.covered(rows, columns)
    if found is None or len(set(columns)) < len(columns):
        return ""
    share, corner = found
    place = ", ".join(f"{QUANTITIES[c].title} {QUANTITIES[c].say(value)}" for c, value in corner.items())
    return (
        f"Hypervolume of the front: {share:.3f} of the box from the best value on each axis to the "
        f"reference {place}, a tenth of each range behind the worst student drawn (linear scales). "
        "It compares sets of students only where the box is the same."
    )


def explain(rows: pd.DataFrame, run: str, *axes: str) -> None:
    """Which students beat the selected one on all axes, or that none does."""
    row = rows[rows["run"] == run]
    if row.empty:
        return
    row = row.iloc[0]
    more = [c for c in axes if QUANTITIES[c].more_is_better]
    better = choose.dominators(rows, run, [c for c in axes if c not in more], more)
    values = ", ".join(f"{QUANTITIES[q].title} {QUANTITIES[q].say(row[q])}" for q in axes if pd.notna(row[q]))
    every = "both" if len(axes) == 2 else "all three"
    with st.container(border=True):
        st.markdown(f"**{frame.plain(row['name'])}**: {frame.plain(values)}")
        if better.empty:
            st.markdown(f"On the front: no other student is at least as good on {every} axes and better on one.")
            return
        listed = [f"{b['name']} ({', '.join(number(b[c]) for c in axes)})" for b in better.head(5).to_dict("records")]
        more_than = f" and {len(better) - 5} more" if len(better) > 5 else ""
        st.markdown(f"Beaten by {frame.plain(', '.join(listed))}{more_than}.")


def selected(key: str) -> str | None:
    """The run id of the point that was clicked."""
    points = (st.session_state.get(key) or {}).get("selection", {}).get("points", [])
    data = points[0].get("customdata") if points else None
    return data[0] if isinstance(data, (list, tuple)) else data


view = frame.view()
st.title("How do size, speed and quality trade?", anchor=False)
if view.measured.empty:
    frame.empty("No finished and measured run yet. This makes a small one on the embedded digits:", frame.FIRST_RUN)

with st.container(border=True):
    shape = st.segmented_control("View", VIEWS, default="2-D", required=True, key="view", bind="query-params",
                                 label_visibility="collapsed")  # fmt: skip
    places, switches = st.grid(3, min_column_width=140), st.container(horizontal=True, vertical_alignment="bottom")
    with st.expander("Timing conditions", icon=":material/tune:"):
        frame.conditions_controls(view)
budget = choose.settle(view.runs, view.reports, frame.conditions(view, "fd"))
rows = choose.candidates(view.runs, view.reports, budget)
if rows.empty:
    frame.empty("No student is measured under this protocol; the sidebar chooses another.", "python -m lab ls")
with places:
    x, y, *z = axes(rows, "xyz" if shape == "3-D" else "xy")
with switches:
    log_x = st.toggle("Logarithmic x", value=True, key="log_x", bind="query-params")
    log_y = st.toggle("Logarithmic y", value=True, key="log_y", bind="query-params")
    frame.method_control(view)

out = choose.left_out_of(view.runs, view.reports, budget, rows)
found, rows = len(rows), split(rows, [x, y, *z])
apart = found - len(rows)
log_x, log_y = (on and bool(rows[c].dropna().gt(0).all()) for c, on in [(x, log_x), (y, log_y)])  # 0 has no place there
rows["on_front"] = choose.front_of(rows, x, y)
measured = view.measured
methods = measured.loc[measured["role"] == "student", "method"].unique()
teacher = choose.with_latency(measured[measured["run"].isin(rows["teacher_run"].dropna())], view.reports, budget)
drawn = [*dict.fromkeys([x, y, *z, *COSTS])]
comparable = [c for c in drawn if c in METRICS or c in COSTS]
base = frame.baseline(pd.concat([rows, teacher]))
if base is not None:
    rows["beside"] = choose.beside(rows, base, comparable)
marked = {"baseline": (base or {}).get("run"), "limits": frame.limits(), "methods": methods}
volume = ""
try:
    if shape == "2-D":
        chart = figures.tradeoff(rows, x, y, teacher=teacher, log_x=log_x, log_y=log_y, **marked)
        st.plotly_chart(
            chart,
            key="tradeoff_chart",
            on_select="rerun",
            selection_mode="points",
            config={"displaylogo": False},
            alt=f"{QUANTITIES[y].title} against {QUANTITIES[x].title} of {len(rows)} students",
        )
        if run := selected("tradeoff_chart"):
            explain(rows, run, x, y)
        else:
            st.caption(frame.plain(f"{ends(rows, x, y)} Click a point to see which students beat it."))
    elif shape == "3-D":
        log = [c for c, on in [(x, log_x), (y, log_y)] if on]
        st.plotly_chart(
            figures.tradeoff_3d(rows, x, y, z[0], log=log, methods=methods),
            key="tradeoff_3d",
            config={"displaylogo": False},
            alt=f"{QUANTITIES[x].title}, {QUANTITIES[y].title} and {QUANTITIES[z[0]].title} of {len(rows)} students",
        )
        small = figures.projections(rows, x, y, z[0], log=log, **marked)
        for k, (column, drawn) in enumerate(zip(st.columns(3), small)):
            column.plotly_chart(
                drawn,
                key=f"projection_{k}",
                on_select="rerun",
                selection_mode="points",
                config={"displaylogo": False},
                alt=f"Two of the three axes, of {len(rows)} students",
            )
        run = next(filter(None, (selected(f"projection_{k}") for k in range(len(small)))), None)
        if run:
            explain(rows, run, x, y, z[0])
        else:
            st.caption("Two axes at a time, each with its front. Click a point to see which students beat it on all.")
    if shape != "Table":
        volume = covered(rows, [x, y, *z])
except ValueError as mixed:
    st.warning(frame.plain(str(mixed)), icon=":material/block:")
table = rows.sort_values(y, ascending=not QUANTITIES[y].more_is_better)[list(COLUMNS)]
if shape == "Table":
    shown = table.assign(name=frame.unmeasured(table["name"], rows["provenance"].reindex(table.index)))
    if base is not None:
        shares = 100 * choose.better_by(rows.loc[table.index], base, comparable)
        shown = shown.join(shares.rename(columns={c: f"{QUANTITIES[c].title}, % better" for c in comparable}))
    titles = {c: st.column_config.Column(f"{q.title} ({q.unit})" if q.unit else q.title) for c, q in QUANTITIES.items()}
    st.dataframe(plain_cells(shown), hide_index=True, column_config=titles, key="tradeoff_table",
                 alt="Every student with its costs and qualities")  # fmt: skip
    if base is not None:
        st.caption(frame.plain(f"% better: than {base['name']}, the baseline; below 0 it is worse."))
    if rows["provenance"].isin(("published", "estimated")).any():
        st.caption(f"Latencies: {frame.UNMEASURED}.")
if apart:
    out = [*out, f"Left out: {apart} student{'s' if apart > 1 else ''} not of the protocol chosen above."]
if shape == "Table" or {x, y, *z} & set(choose.AS_TRAINED):
    out = [choose.SIZES_SAID, *out]
with st.expander("How it was measured, and what is left out", icon=":material/fact_check:"):
    if volume:
        st.caption(frame.plain(volume))
    st.caption(frame.plain(figures.conditions(pd.concat([rows, teacher]), out)))
frame.footer(table, choose.command(frame.all_runs(), view.reports, budget), "tradeoff")
