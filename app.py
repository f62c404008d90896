"""The app's frame: `streamlit run app.py` finds the pages in lab/dashboard and runs the one that is open.

A page is a file with the constants TITLE, ORDER, ICON and URL ("/" is the first page, which is found under
its file's name, too). They are read with ast, so that listing the pages imports none of them.

The server imports this file once for its `app`; for each visit it is run as a script.
"""

from __future__ import annotations

import ast
from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

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


def visit() -> None:
    """The open page, and what stands around every page."""
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


def at_an_address(request: Request) -> HTMLResponse:
    """Streamlit's own HTML for an address of one of the pages, told where the server is.

    Else the browser looks for it below the page's address first, writes two 404s into its console, and waits.
    """
    html = (Path(st.__file__).parent / "static" / "index.html").read_text()
    here = '<script>window.__streamlit = {BACKEND_BASE_URL: new URL(".", location.href).href}</script>'
    return HTMLResponse(html.replace("<head>", f"<head>{here}", 1), headers={"Cache-Control": "no-cache"})


if __name__ == "__main__":
    visit()
else:
    app = st.App(__file__, routes=[Route(f"/{path.stem}", at_an_address) for path in PAGES.glob("*.py")])
