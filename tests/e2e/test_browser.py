"""What a person does in the app, from the first page to the end of each journey, in headless Chromium."""

from __future__ import annotations

import io
import json
import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from conftest import TINY_STUDENT, TINY_TEACHER
from dashboard.conftest import LABEL, report
from e2e.conftest import BROWSER, HEADLINE, PATIENCE_MS, saved, settled, tab, tab_to
from PIL import Image

from lab.results import Run, Store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
BrowserContext, Page = playwright.BrowserContext, playwright.Page
pytestmark = BROWSER
SHIP = re.compile(r"^\s*Ship ")
BASE = "d4w44h4p4"


def answer(page: Page) -> str:
    """The student that the first page would ship."""
    return page.locator(HEADLINE).filter(has_text=SHIP).inner_text().removeprefix("Ship ").strip()


def another_answer(page: Page, than: str) -> str:
    """Wait for another student than this one."""
    page.locator(HEADLINE).filter(has_text=re.compile(rf"^\s*Ship (?!{re.escape(than)}\s*$)")).wait_for()
    settled(page)
    return answer(page)


# --- choosing -----------------------------------------------------------------------------------


def test_a_tighter_budget_gives_another_student_whose_images_the_gallery_shows_and_saves(
    browser: BrowserContext, address: str
):
    with tab(browser) as page:
        page.goto(address)
        settled(page)
        before = answer(page)
        limit = page.locator(".st-key-params_m input")
        limit.fill("0.112")
        limit.press("Enter")
        chosen = another_answer(page, before)
        assert parse_qs(urlsplit(page.url).query)["params_m"] == ["0.112"]
        page.get_by_role("link", name="Gallery").click()
        page.get_by_role("heading", name="The same noise").wait_for()
        settled(page)
        if chosen not in page.locator(".st-key-models").inner_text().split():
            page.locator(".st-key-models input").click()
            page.get_by_role("option", name=chosen, exact=True).click()
        page.locator(".pictures .title").filter(has_text=chosen).wait_for()
        assert page.locator(".pictures .tile:not(.missing)").count() > 20
        picture = Image.open(io.BytesIO(saved(page, "Download this picture")))
        assert picture.format == "PNG" and min(picture.size) > 28 * 20


def test_a_student_is_chosen_and_its_images_compared_blind_by_keyboard_alone(browser: BrowserContext, address: str):
    with tab(browser) as page:
        page.goto(address)
        settled(page)
        before = answer(page)
        tab_to(page, ".st-key-params_m input")
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type("0.112")
        page.keyboard.press("Enter")
        another_answer(page, before)
        tab_to(page, "[data-testid=stSidebarNavLink][href$=gallery]", 160)
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="The same noise").wait_for()
        settled(page)
        tab_to(page, ".st-key-blind input, .st-key-blind label")
        page.keyboard.press("Space")
        titles = playwright.expect(page.locator(".pictures .title"))
        titles.to_have_text(["A", "B", "C", "D"], timeout=PATIENCE_MS)
        tab_to(page, ".st-key-reveal input, .st-key-reveal label")
        page.keyboard.press("Space")
        titles.to_have_text([re.compile(f"^{letter}: .") for letter in "ABCD"], timeout=PATIENCE_MS)


def test_a_figure_of_the_sentence_says_what_it_means_by_tab_alone(browser: BrowserContext, address: str):
    with tab(browser) as page:
        page.goto(address)
        settled(page)
        meaning = page.locator(".figures abbr").filter(has_text="times its teacher").locator("+ [role=tooltip]")
        assert not meaning.is_visible()
        tab_to(page, ".figures abbr:nth-of-type(3)")
        meaning.wait_for()
        assert "Frechet distance" in meaning.inner_text()


def test_a_baseline_that_is_set_in_the_sidebar_is_told_of_on_the_next_page(browser: BrowserContext, address: str):
    with tab(browser) as page:
        page.goto(address)
        settled(page)
        page.locator(".st-key-baseline input").click()
        page.get_by_role("option", name=BASE, exact=True).click()
        page.locator(".js-plotly-plot").get_by_text("the baseline").first.wait_for()
        page.get_by_role("link", name="Gallery").click()
        page.get_by_role("heading", name="The same noise").wait_for()
        settled(page)
        assert parse_qs(urlsplit(page.url).query)["baseline"] == [BASE]
        page.locator(".pictures .caption").filter(has_text=f"Against {BASE}: FD").first.wait_for()


# --- devices and drawing ------------------------------------------------------------------------


def test_a_report_from_a_board_is_brought_in_graded_and_among_the_timings(
    browser: BrowserContext, address: str, store: Store
):
    brought = report(store.get(LABEL), ms=7.5, device="a board") | {"report_id": "from-a-board"}
    try:
        with tab(browser) as page:
            page.goto(f"{address}/devices?devices=Bring+a+report")
            settled(page)
            file = {"name": "report.json", "mimeType": "application/json", "buffer": json.dumps(brought).encode()}
            with page.expect_response(lambda answer: "/upload_file/" in answer.url):
                page.locator("input[type=file]").set_input_files(file)
            page.get_by_role("button", name="Check, grade and keep").click()
            said = page.locator("[data-testid=stAlert]").filter(has_text="7.5 ms p50 on a board; kept")
            said.wait_for()
            assert "Grade C" in said.inner_text()
            page.goto(f"{address}/devices?every_device=true")
            settled(page)
            page.locator(".st-key-timed_device input").click()
            page.get_by_role("option", name="a board", exact=True).wait_for()
    finally:
        (store.root / "devices" / "from-a-board.json").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def drawn(store: Store) -> Run:
    """A student that can draw, of 8x8 digits."""
    from lab import experiment, pairs

    teacher = experiment.run(TINY_TEACHER, store, measure=False)
    store.name_teacher("tiny", teacher.id)
    pairs.ensure(store, pairs.pair_set(store, "tiny", TINY_STUDENT.solver), TINY_STUDENT.pairs)
    return experiment.run(TINY_STUDENT, store, measure=False)


def test_images_are_drawn_here_and_timed(browser: BrowserContext, address: str, drawn: Run):
    asked = {"data": "digits", "model": drawn.label, "count": 4, "runtime_here": "eager", "threads_here": 1,
             "also_teacher": "false"}  # fmt: skip
    with tab(browser) as page:
        page.goto(f"{address}/try_it?{urlencode(asked)}")
        settled(page)
        page.get_by_role("button", name="Generate").click()
        page.get_by_text("First images ").wait_for(timeout=2 * PATIENCE_MS)
        settled(page)
        assert page.locator(".pictures .tile:not(.missing)").count() == 4
        assert float(page.locator("[data-testid=stMetricValue]").nth(1).inner_text().split()[0]) > 0
