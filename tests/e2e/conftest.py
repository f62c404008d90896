"""One server and one browser for all journeys, on a results folder of files alone.

    make test SLOW=1 ARGS=tests/e2e

A test fails when its tab showed an exception, wrote an error to the console or asked another host for anything. They
are skipped where playwright (extra `dev`) or a Chromium is not installed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from dashboard.conftest import add_neighbours, add_student, make_store

from lab.config import Use
from lab.results import Store

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"),
]
HEADLINE = "[data-testid=stHeading]"
PATIENCE_MS = 30_000
NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}
SCREEN = {"width": 1440, "height": 900}
TAUGHT = "taught by an assistant"  # a run with a plain twin


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = make_store(tmp_path_factory.mktemp("e2e") / "results", students=6)
    add_student(store)
    add_student(store, label=TAUGHT, fields={"methods": (Use("pairs"), Use("teaching_assistant")),
                                             "guide": f"run:{store.runs()[1].id}"})  # fmt: skip
    for run in store.runs():
        if (run.path / "student.json").exists():
            (run.path / "student.safetensors").touch()  # Try it offers what has weights; nothing is drawn of these
            add_neighbours(run, [0.1] * 64 if run.recipe.teacher else None, [1.0] * 64)
    return store


@pytest.fixture(scope="session")
def address(store: Store) -> Iterator[str]:
    from benchmarks.pages import ROOT, served

    with served(ROOT / "app.py", store.root) as server:
        yield server.address


@pytest.fixture(scope="session")
def browser() -> Iterator[BrowserContext]:
    from playwright.sync_api import sync_playwright

    from benchmarks.pages import FLAGS

    with sync_playwright() as tool:
        made = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = made.new_context()  # one for all tabs, so that the app's code is loaded once
        context.set_default_timeout(PATIENCE_MS)
        yield context
        made.close()


@contextlib.contextmanager
def tab(browser: BrowserContext, size: dict[str, int] = WIDE, scheme: str = "light") -> Iterator[Page]:
    """A tab, and so a session of Streamlit, of its own, in which nothing may go wrong."""
    page = browser.new_page()
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)
    wrong: list[str] = []
    hosts: set[str | None] = set()
    page.on("console", lambda said: wrong.append(f"{said.text} ({said.location})") if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: hosts.add(urlsplit(asked.url).hostname))
    page.on("websocket", lambda opened: hosts.add(urlsplit(opened.url).hostname))
    try:
        yield page
        wrong += page.locator("[data-testid=stException]").all_inner_texts()
    finally:
        page.close()
    assert wrong == [] and hosts <= {"127.0.0.1", None}  # None: data: and blob:


def settled(page: Page) -> None:
    """Wait for the end of the script and for every control's code to be loaded."""
    from benchmarks.pages import settled as script_ended

    page.locator(HEADLINE).first.wait_for()
    script_ended(page)
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")


def tab_to(page: Page, selector: str, presses: int = 80) -> None:
    """Press Tab until something within `selector` has the focus."""
    for _ in range(presses):
        page.keyboard.press("Tab")
        if page.evaluate("s => !!document.activeElement.closest(s)", selector):
            return
    raise AssertionError(f"{presses} presses of Tab do not lead to {selector}")


def saved(page: Page, button: str) -> bytes:
    """What a button lets one download."""
    with page.expect_download() as waited:
        page.get_by_role("button", name=button).click()
    return Path(waited.value.path()).read_bytes()
