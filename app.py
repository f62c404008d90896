"""The app's frame: `streamlit run app.py` finds the pages in lab/dashboard and runs the one that is open.

A page is a file with the constants TITLE, ORDER, ICON and URL ("/" is the first page, which is found under
its file's name, too). They are read with ast, so that listing the pages imports none of them.
"""

from __future__ import annotations

import ast
from pathlib import Path

import streamlit as st

from lab.dashboard import frame

PAGES = Path(__file__).parent / "lab" / "dashboard"
CONSTANTS = ("TITLE", "ORDER", "ICON", "URL")


@st.cache_data(max_entries=64, show_spinner=False)
def constants(path: Path, changed: int) -> dict[str, str | int] | None:
    """A page's TITLE, ORDER, ICON and URL; None for a file that is not a page."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found |= {t.id: node.value.value for t in node.targets if isinstance(t, ast.Name)}
    return found if all(name in found for name in CONSTANTS) else None


def pages() -> list[st.Page]:
    """The pages, by ORDER."""
    listed = [(found, path) for path in PAGES.glob("*.py") if (found := constants(path, path.stat().st_mtime_ns))]
    listed.sort(key=lambda pair: (pair[0]["ORDER"], pair[1].name))
    return [st.Page(path, title=c["TITLE"], icon=c["ICON"], default=c["URL"] == "/", url_path=c["URL"].strip("/"))
            for c, path in listed]  # fmt: skip


def by_its_name(first: st.Page) -> st.Page:
    """An address that is typed or old: the first page is at /, and Streamlit knows no other one for it."""

    def lead_there() -> None:
        st.switch_page(first, query_params={key: st.query_params.get_all(key) for key in st.query_params})

    of = {path: constants(path, path.stat().st_mtime_ns) for path in PAGES.glob("*.py")}
    name = next(path.stem for path, found in of.items() if found and found["URL"] == "/")
    return st.Page(lead_there, title=first.title, url_path=name, visibility="hidden")


st.set_page_config(page_title="Edge DiT Lab", page_icon=frame.icon(), layout="wide")
shown = pages()
page = st.navigation([*shown, by_its_name(next(p for p in shown if p.url_path == ""))])
st.session_state.pop("footer", None)
with frame.one_look():
    try:
        page.run()
    except frame.Ended:
        pass
    finally:  # also where a page fails
        frame.draw_footer()
        frame.sidebar()
