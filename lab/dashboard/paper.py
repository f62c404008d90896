"""Which claims of the paper and of its neighbours hold on these results."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from lab import arms, claims
from lab.dashboard import frame
from lab.results import Store

TITLE = "Paper"
ORDER = 28
ICON = ":material/fact_check:"
URL = "/paper"

# Icon and colour of a status, whose word always stands beside them.
MARKS = {
    claims.HOLDS: (":material/check_circle:", "green"),
    claims.PARTLY: (":material/contrast:", "orange"),
    claims.DIFFERS: (":material/cancel:", "red"),
    claims.UNTESTED: (":material/radio_button_unchecked:", "gray"),
}
PAPERS = {"All": "", "The paper": claims.paper.PAPER, "Its neighbours": ""}


@st.cache_data(max_entries=8, ttl=frame.RECHECK_S, show_spinner=False)
def judged(changed: int, root: str, _runs: pd.DataFrame, _reports: pd.DataFrame) -> pd.DataFrame:
    return claims.table(Store(root), _runs, _reports)


def summary(found: pd.DataFrame) -> str:
    """How many claims are of each status, in a sentence."""
    counts = found["status"].value_counts()
    said = [f"{counts[status]} {status}" for status in claims.STATUSES if status in counts]
    return f"Of {len(found)} claims: {', '.join(said)}."


def row(claim: dict) -> None:
    """A claim beside what these results say of it; the rest behind a fold."""
    icon, colour = MARKS[claim["status"]]
    whose = " · ".join(filter(None, (claim["paper"], claim["published"], claim["reading"])))
    with st.container(border=True, gap="xsmall"):
        status, said, ours = st.columns([2, 5, 6])
        status.badge(claim["status"], icon=icon, color=colour)
        said.markdown(f"**{frame.plain(claim['claim'])}**  \n:small[:gray[{frame.plain(whose)}]]")
        ours.markdown(frame.plain(claim["ours"]) or f":gray[{frame.plain(claim['why'])}]")
        with st.expander(_fold(claim), type="compact"):
            _details(claim)


def _fold(claim: dict) -> str:
    runs = len(claim["runs"])
    return f"{runs} run{'s' * (runs != 1)}, reason and command" if runs else "What would test it"


def _details(claim: dict) -> None:
    st.markdown(frame.plain(f"Source: {claim['source']}."))
    if claim["why"]:
        st.markdown(frame.plain(f"Why {claim['status']}: {claim['why']}"))
    if claim["details"]:
        st.dataframe(pd.DataFrame(list(claim["details"])), hide_index=True, key=f"details-{claim['name']}",
                     alt=f"The figures behind {claim['name']}")  # fmt: skip
    frame.show_command(claim["command"])


view = frame.view()
st.title("Which claims hold here?", anchor=False)
found = judged(view.stamp, str(view.store.root), view.runs, view.reports)
if view.measured.empty:
    st.info("No finished and measured run yet, so every claim waits for its runs. These make a teacher and a plain "
            "student on the embedded digits:", icon=":material/hourglass_empty:")  # fmt: skip
    frame.show_command(frame.FIRST_RUN)
st.markdown(frame.plain(summary(found)))
with st.container(horizontal=True, vertical_alignment="bottom"):
    of = st.segmented_control("Claims of", PAPERS, default="All", required=True, key="of", bind="query-params")
    status = st.pills("Status", claims.STATUSES, selection_mode="multi", key="status", bind="query-params")
mine = found["paper"].eq(PAPERS["The paper"])
shown = found if of == "All" else found[mine if of == "The paper" else ~mine]
shown = shown[shown["status"].isin(status)] if status else shown
for claim in shown.to_dict("records"):
    row(claim)
if shown.empty:
    st.caption("No claim is of this status.")
st.caption(frame.plain(
    f"Method and result sections of {claims.paper.PAPER} could not be reached: what it claims is its abstract's, the "
    "equations are our reading, and no number of it is quoted. Figures of its neighbours are of other networks, data "
    f"and machines. {claims.RULE} Compared {arms.COMPUTE[2]}, the seconds of a guide's answers are charged to the arm "
    "that asks it."
))  # fmt: skip
frame.footer(shown.drop(columns="details"), "python -m lab claims", "claims")
