"""How fast on real boards, and how far each figure can be trusted. Its views stand in boards/, one a file."""

from __future__ import annotations

import streamlit as st

from lab.dashboard import frame
from lab.dashboard.boards.bring import bring, guide
from lab.dashboard.boards.elsewhere import elsewhere
from lab.dashboard.boards.precisions import precisions
from lab.dashboard.boards.size import size
from lab.dashboard.boards.timings import timings
from lab.devices import compare

TITLE = "Devices"
ORDER = 35
ICON = ":material/speed:"
URL = "/devices"

VIEWS = ("Timings", "Precisions", "Size", "Other devices", "Bring a report")

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
    every = st.toggle(frame.plain(f"Every device, not {view.device} alone"), key="every_device", bind="query-params",
                      help="The sidebar names another one")  # fmt: skip
    here = rows if every else rows[rows["device"] == view.device]
    if here.empty:
        st.info("No report of this device for this data set; the sidebar chooses another one.")
        frame.end()
    {VIEWS[0]: timings, VIEWS[1]: precisions, VIEWS[2]: size}[shown](here)
elif shown == VIEWS[3]:
    elsewhere(view.runs)
else:
    guide(view.runs)
    bring()
