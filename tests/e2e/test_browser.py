"""What a person does in the app, in headless Chromium on a results folder of files alone.

    make test SLOW=1 ARGS=tests/e2e

One server and one browser for all of it. Skipped where playwright (extra `dev`) or a Chromium is not installed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from conftest import TINY_UNET
from dashboard.conftest import LABEL, add_neighbours, make_store

from lab import jobs
from lab.choose import METRICS, QUANTITIES
from lab.config import Recipe, Use
from lab.results import Run, Store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
BrowserContext, Page = playwright.BrowserContext, playwright.Page
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"),
]
PAGES = ["", "tradeoff", "paper", "gallery", "devices", "try_it", "runs", "export"]
SHIP = re.compile(r"^\s*Ship ")
HEADLINE = "[data-testid=stHeading]"
PATIENCE_MS = 30_000
NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 900}
SCREEN = {"width": 1440, "height": 900}
# What a control holds: its text, and the values and states of all that one can type into, slide or press in it.
HELD = """keys => keys.map(key => {
  const box = document.querySelector(`.st-key-${CSS.escape(key)}`);
  if (!box) return null;
  const parts = [...box.querySelectorAll("input, [role=slider], [aria-checked]")];
  const held = parts.map(p => [p.value, p.checked, p.getAttribute("aria-valuenow"), p.getAttribute("aria-checked")]);
  return parts.length ? JSON.stringify([box.textContent, held]) : null;
})"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = make_store(tmp_path_factory.mktemp("e2e") / "results", students=6)
    for run in store.runs():
        if (run.path / "student.json").exists():
            (run.path / "student.safetensors").touch()  # Try it offers what has weights; nothing is drawn here
            add_neighbours(run, [0.1] * 64 if run.recipe.teacher else None, [1.0] * 64)
    return store


@pytest.fixture(scope="module")
def address(store: Store) -> Iterator[str]:
    from benchmarks.pages import ROOT, served

    with served(ROOT / "app.py", store.root) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    from benchmarks.pages import FLAGS

    with playwright.sync_playwright() as tool:
        made = tool.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = made.new_context()  # one for all tabs, so that the app's code is loaded once
        context.set_default_timeout(PATIENCE_MS)
        yield context
        made.close()


@contextlib.contextmanager
def tab(browser: BrowserContext, size: dict[str, int] = WIDE) -> Iterator[Page]:
    """A tab, and so a session of Streamlit, of its own."""
    page = browser.new_page()
    page.set_viewport_size(size)
    yield page
    page.close()


def settled(page: Page) -> None:
    """Wait for the end of the script and for every control's code to be loaded."""
    from benchmarks.pages import settled as script_ended

    page.locator(HEADLINE).first.wait_for()
    script_ended(page)
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")


def until(page: Page, said: str, arg: object = None) -> None:
    """Wait for a JavaScript expression to become true."""
    page.wait_for_function(said, arg=arg)


def answer(page: Page) -> str:
    """The student that the first page would ship."""
    return page.locator(HEADLINE).filter(has_text=SHIP).inner_text().removeprefix("Ship ").strip()


def another_answer(page: Page, than: str) -> str:
    """Wait for another student than this one."""
    page.locator(HEADLINE).filter(has_text=re.compile(rf"^\s*Ship (?!{re.escape(than)}\s*$)")).wait_for()
    settled(page)
    return answer(page)


# --- around every page ---


def test_a_page_that_ends_early_has_its_sidebar(browser: BrowserContext, store: Store, tmp_path: Path):
    from benchmarks.pages import ROOT, served

    shutil.copytree(store.root, tmp_path / "untimed", ignore=shutil.ignore_patterns("devices"))
    with served(ROOT / "app.py", tmp_path / "untimed") as address, tab(browser) as page:
        page.goto(f"{address}/devices")
        settled(page)
        page.get_by_text("No device report yet").wait_for()
        page.locator("[data-testid=stSidebar]").get_by_text("Data set").wait_for()


# --- choosing -----------------------------------------------------------------------------------


def test_a_tighter_budget_gives_another_student_and_the_gallery_shows_its_images(browser: BrowserContext, address: str):
    with tab(browser) as page:
        page.goto(address)
        settled(page)
        before = answer(page)
        limit = page.locator(".st-key-params_m input")
        limit.fill("0.096")
        limit.press("Enter")
        chosen = another_answer(page, before)
        assert parse_qs(urlsplit(page.url).query)["params_m"] == ["0.096"]
        page.get_by_role("link", name="Gallery").click()
        page.get_by_role("heading", name="The same noise").wait_for()
        settled(page)
        if chosen not in page.locator(".st-key-models").inner_text().split():
            page.locator(".st-key-models input").click()
            page.get_by_role("option", name=chosen, exact=True).click()
        page.locator(".pictures .title").filter(has_text=chosen).wait_for()
        assert page.locator(".pictures .tile:not(.missing)").count() > 20


FIRST_SCREEN = [".figures", "[data-testid=stImage]", ".st-key-params_m", ".st-key-choose_chart .js-plotly-plot"]


@pytest.mark.parametrize("size", [SCREEN, NARROW], ids=["wide", "phone"])
def test_sentence_images_controls_and_chart_stand_in_this_order_on_the_first_screen(
    browser: BrowserContext, address: str, size: dict[str, int]
):
    with tab(browser, size) as page:
        page.goto(address)
        settled(page)
        page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
        boxes = [page.locator(selector).first.bounding_box() for selector in FIRST_SCREEN]
        if size is SCREEN:
            assert all(box["y"] + box["height"] <= size["height"] for box in boxes)
        else:
            assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)
            assert all(box["x"] >= 0 and box["x"] + box["width"] <= size["width"] for box in boxes)


def test_a_figure_of_the_sentence_says_what_it_means_by_tab_alone(browser: BrowserContext, address: str):
    with tab(browser) as page:
        page.goto(address)
        settled(page)
        meaning = page.locator(".figures abbr").filter(has_text="times its teacher").locator("+ [role=tooltip]")
        assert not meaning.is_visible()
        tab_to(page, ".figures abbr:nth-of-type(3)")
        meaning.wait_for()
        assert "Frechet distance" in meaning.inner_text()


def test_a_baseline_is_kept_in_the_address_and_told_on_the_next_page(browser: BrowserContext, address: str):
    with tab(browser) as page:
        page.goto(f"{address}/?baseline=d4w44h4p4")
        settled(page)
        page.get_by_role("link", name="Gallery").click()
        page.get_by_role("heading", name="The same noise").wait_for()
        settled(page)
        assert parse_qs(urlsplit(page.url).query)["baseline"] == ["d4w44h4p4"]
        page.locator(".pictures .caption").filter(has_text="Against d4w44h4p4: FD").first.wait_for()


# --- links --------------------------------------------------------------------------------------

LINKS = {  # page and view -> control -> what the URL says of it, in the words that the page shows
    "choose": ("", {
        "params_m": "0.4", "latency_ms": "2", "file_mb": "3", "macs_m": "50", "metric": METRICS["kid"].title,
        "runtime": "compiled", "precision": "any", "batch": "16", "percentile": "p90", "scope": "e2e", "weak": "true",
        "estimated": "true",
    }),
    "tradeoff": ("tradeoff", {
        "view": "3-D", "x": QUANTITIES["params_m"].title, "y": QUANTITIES["kid"].title,
        "z": QUANTITIES["file_mb"].title, "log_x": "false", "log_y": "true",
    }),
    "gallery": ("gallery", {
        "models": [LABEL, "d4w44h4p4", "d2w64h4p4"], "gallery": "Difference", "zoom": "6", "class": "4",
        "noises": "40", "across": "2", "order": "farthest from the teacher", "blind": "true", "shuffle": "7",
        "reveal": "true",
    }),
    "gallery-swipe": ("gallery", {
        "gallery": "Swipe", "models": [LABEL, "d4w44h4p4", "d2w64h4p4"], "a": "d2w64h4p4", "b": LABEL, "sheet": "4",
    }),
    "gallery-learn": ("gallery", {"gallery": "Watch it learn", "moment": "6,400", "learn_zoom": "5"}),
    "gallery-nearest": ("gallery", {
        "gallery": "Nearest real images", "near_zoom": "4", "order": "closest to a real image",
    }),
    "try_it": ("try_it", {
        "model": "d4w44h4p4", "draw_class": "3", "count": "4", "seed": "12", "threads_here": "1",
        "runtime_here": "eager", "also_teacher": "false", "draw_zoom": "5",
    }),
    "runs": ("runs", {
        "find": "pairs", "hidden": "true", "compare": [LABEL, "d4w44h4p4"], "term": "grad_norm", "axis": "seconds",
        "columns": ["State", "FD"],
    }),
}  # fmt: skip


def held(page: Page, keys: list[str]) -> dict[str, str | None]:
    """What the controls hold that are drawn, open or folded away."""
    return dict(zip(keys, page.evaluate(HELD, keys)))


@pytest.fixture(scope="module")
def unlinked(browser: BrowserContext, address: str) -> Callable[[str], dict[str, str | None]]:
    """What a page's controls hold without a link."""

    @functools.cache
    def of(path: str) -> dict[str, str | None]:
        with tab(browser) as page:
            page.goto(f"{address}/{path}")
            settled(page)
            return held(page, sorted({key for other, query in LINKS.values() if other == path for key in query}))

    return of


@pytest.mark.parametrize("name", LINKS)
def test_a_link_restores_every_control(
    name: str, browser: BrowserContext, address: str, unlinked: Callable[[str], dict[str, str | None]]
):
    path, query = LINKS[name]
    keys = list(query)
    with tab(browser) as page:
        page.goto(f"{address}/{path}?{urlencode(query, doseq=True)}")
        settled(page)
        until(page, f"keys => ({HELD})(keys).every(Boolean)", keys)
        linked, url = held(page, keys), page.url
    plain = unlinked(path)
    assert [key for key in keys if linked[key] == plain[key]] == [], "these came up as in a page without a link"
    kept = parse_qs(urlsplit(url).query)
    wanted = {key: value if isinstance(value, list) else [value] for key, value in query.items()}
    assert {k: kept.get(k) for k in keys} == wanted  # Streamlit takes what it can't use out of the address


# --- a job --------------------------------------------------------------------------------------


def test_a_job_goes_on_when_the_page_that_started_it_is_loaded_anew(
    browser: BrowserContext, address: str, store: Store
):
    from lab import experiment

    recipe = Recipe(data="digits", student=TINY_UNET, methods=(Use("denoise"),), steps=1_000_000, batch=8)
    run = store.open(experiment.resolve(recipe, store))
    button = {word: f".st-key-{word}-{run.id} button" for word in ("resume", "stop")}
    try:
        with tab(browser) as page:
            page.goto(f"{address}/runs")
            page.locator(button["resume"]).first.click()
            page.locator(f"{button['stop']}:enabled").first.wait_for()
            pid = jobs.process_of(run)
            page.reload()
            page.get_by_text(f"running, process {pid}").first.wait_for()
            page.locator(f"{button['stop']}:enabled").first.click()
            page.locator(button["resume"]).first.wait_for()
        assert pid is not None and run.status().state == "stopped" and jobs.process_of(run) is None
    finally:
        _end(run)
        shutil.rmtree(run.path)


def _end(run: Run) -> None:
    """No process of this run is left."""
    if (pid := jobs.process_of(run)) is not None:
        os.kill(pid, signal.SIGKILL)
    for _ in range(100):
        if jobs.process_of(run) is None:
            return
        time.sleep(0.1)


# --- every page ---------------------------------------------------------------------------------


@dataclass
class Visit:
    """What a page did on a telephone's screen."""

    wide: int = 0  # pixels of the page, of NARROW's
    errors: list[str] = field(default_factory=list)  # of the console, and uncaught ones
    hosts: set[str] = field(default_factory=set)  # asked for anything
    exceptions: int = 0  # shown by Streamlit


@pytest.fixture(scope="module")
def visits(browser: BrowserContext, address: str) -> dict[str, Visit]:
    return {path or "choose": visit(browser, f"{address}/{path}") for path in PAGES}


def visit(browser: BrowserContext, url: str) -> Visit:
    made = Visit()
    with tab(browser, NARROW) as page:
        page.on("console", lambda said: made.errors.append(said.text) if _wrong(said) else None)
        page.on("pageerror", lambda error: made.errors.append(str(error)))
        page.on("request", lambda asked: made.hosts.add(urlsplit(asked.url).hostname or ""))
        page.on("websocket", lambda opened: made.hosts.add(urlsplit(opened.url).hostname or ""))
        page.goto(url)
        settled(page)
        page.wait_for_timeout(300)  # what a chart asks for after it is drawn
        made.wide = page.evaluate("document.documentElement.scrollWidth")
        made.exceptions = page.locator("[data-testid=stException]").count()
    return made


def _wrong(said: object) -> bool:
    """An error of the console, but for the two files that Streamlit looks for under a page's own address first."""
    url = urlsplit(said.location.get("url", ""))
    looked_for = url.path.count("/") > 2 and url.path.endswith(("/_stcore/health", "/_stcore/host-config"))
    return said.type == "error" and not looked_for


def test_no_page_is_wider_than_a_telephone(visits: dict[str, Visit]):
    assert {name: v.wide for name, v in visits.items() if v.wide > NARROW["width"]} == {}


def test_no_page_writes_an_error_to_the_console(visits: dict[str, Visit]):
    assert {name: v.errors for name, v in visits.items() if v.errors or v.exceptions} == {}


def test_no_page_asks_another_host_for_anything(visits: dict[str, Visit]):
    assert set.union(*(v.hosts for v in visits.values())) <= {"127.0.0.1", ""}  # "": data: and blob:


# --- without a mouse ----------------------------------------------------------------------------


def tab_to(page: Page, selector: str, presses: int = 80) -> None:
    """Press Tab until something within `selector` has the focus."""
    for _ in range(presses):
        page.keyboard.press("Tab")
        if page.evaluate("s => !!document.activeElement.closest(s)", selector):
            return
    raise AssertionError(f"{presses} presses of Tab do not lead to {selector}")


def test_a_student_is_chosen_and_its_images_compared_blind_by_keyboard_alone(browser: BrowserContext, address: str):
    with tab(browser) as page:
        page.goto(address)
        settled(page)
        before = answer(page)
        tab_to(page, ".st-key-params_m input")
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type("0.096")
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
