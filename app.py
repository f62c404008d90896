"""The app's frame: `streamlit run app.py` finds the pages in lab/dashboard and runs the one that is open.

A page is a file with the constants TITLE, ORDER, ICON and URL ("/" is the first page). They are read
with ast, so that listing the pages imports none of them.
"""

from __future__ import annotations

import ast
from pathlib import Path

import streamlit as st

from lab.dashboard import frame

PAGES = Path(__file__).parent / "lab" / "dashboard"
CONSTANTS = ("TITLE", "ORDER", "ICON", "URL")


def constants(path: Path) -> dict[str, str | int] | None:
    """A page's TITLE, ORDER, ICON and URL; None for a file that is not a page."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found |= {t.id: node.value.value for t in node.targets if isinstance(t, ast.Name)}
    return found if all(name in found for name in CONSTANTS) else None


def pages() -> list[st.Page]:
    """The pages, by ORDER."""
    listed = [(found, path) for path in PAGES.glob("*.py") if (found := constants(path))]
    return [
        st.Page(path, title=c["TITLE"], icon=c["ICON"], default=c["URL"] == "/", url_path=c["URL"].strip("/") or None)
        for c, path in sorted(listed, key=lambda pair: (pair[0]["ORDER"], pair[1].name))
    ]


st.set_page_config(page_title="Edge DiT Lab", page_icon=frame.icon(), layout="wide")
page = st.navigation(pages())
try:
    page.run()
finally:  # also where a page ends itself by st.stop
    frame.sidebar()
