"""Every page in headless Chromium: what its address restores, and how it stands on a screen, light and dark."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from dashboard.conftest import LABEL
from e2e.conftest import BROWSER, NARROW, SCREEN, TAUGHT, settled, tab

from lab.choose import METRICS, QUANTITIES
from lab.results import Store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
BrowserContext, Page = playwright.BrowserContext, playwright.Page
pytestmark = BROWSER
PAGES = ["", "tradeoff", "design_space", "methods", "paper", "gallery", "devices", "try_it", "runs", "export"]
DARK = "rgb(18, 22, 28)"  # the background of .streamlit/config.toml
LEAST_CONTRAST = 3  # as WCAG 2.2 asks for of large text and of controls (1.4.3, 1.4.11)
# What a control holds: its text, and the values and states of all that one can type into, slide or press in it.
HELD = """keys => keys.map(key => {
  const box = document.querySelector(`.st-key-${CSS.escape(key)}`);
  if (!box) return null;
  const parts = [...box.querySelectorAll("input, [role=slider], [aria-checked]")];
  const held = parts.map(p => [p.value, p.checked, p.getAttribute("aria-valuenow"), p.getAttribute("aria-checked")]);
  return parts.length ? JSON.stringify([box.textContent, held]) : null;
})"""
# Text that contrasts less with what it stands on than it should, with the ratio; what is disabled may.
FAINT = """least => {
  const pixel = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  const parts = colour => {  // as a pixel shows it, however it is written
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data].map((c, k) => k < 3 ? c : c / 255);
  };
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((c, k) => a * c + (1 - a) * under[k]);
  const light = colour => colour.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + [0.2126, 0.7152, 0.0722][k] * c, 0);
  const page = parts(getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor), faint = {};
  // What is painted at a place: a slider's value, say, is within its knob and stands above it.
  const at = (x, y, layers) => layers.filter(({ box }) => box.left <= x && x <= box.right && box.top <= y &&
    y <= box.bottom).reduce((under, { colour }) => over(colour, under), page);
  const look = (node, layers, opacity) => {
    for (const el of node.children) {
      const style = getComputedStyle(el), box = el.getBoundingClientRect();
      if (style.display === "none" || style.visibility === "hidden" || el.matches(":disabled, [aria-disabled=true]")) {
        continue;
      }
      const all = [...layers, { box, colour: parts(style.backgroundColor) }], seen = opacity * style.opacity;
      const text = [...el.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join(" ").trim();
      if (text && box.width > 1 && box.height > 1) {
        const [r, g, b, a = 1] = parts(el instanceof SVGElement ? style.fill : style.color);
        const on = at(box.left + box.width / 2, box.top + box.height / 2, all);
        const [dark, bright] = [light(over([r, g, b, a * seen], on)), light(on)].sort((x, y) => x - y);
        const ratio = (bright + 0.05) / (dark + 0.05);
        if (a * seen && ratio < least) faint[text.slice(0, 40)] = Math.round(10 * ratio) / 10;
      }
      look(el.shadowRoot ?? el, all, seen);
    }
  };
  look(document.body, [], 1);
  return faint;
}"""


def until(page: Page, said: str, arg: object = None) -> None:
    """Wait for a JavaScript expression to become true."""
    page.wait_for_function(said, arg=arg)


# --- links --------------------------------------------------------------------------------------

LINKS = {  # page and view -> control -> what the URL says of it, in the words that the page shows
    "choose": ("", {
        "params_m": "0.4", "latency_ms": "2", "file_mb": "3", "macs_m": "50", "metric": METRICS["kid"].title,
        "runtime": "compiled", "precision": "any", "batch": "16", "percentile": "p90", "scope": "e2e", "weak": "true",
        "estimated": "true",
    }),
    "tradeoff": ("tradeoff", {
        "view": "3-D", "x": QUANTITIES["params_m"].title, "y": QUANTITIES["kid"].title,
        "z": QUANTITIES["file_mb"].title, "log_x": "false", "log_y": "false",
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
    "methods": ("methods", {"of": "teaching_assistant", "compute": "wall-clock"}),
    "devices": ("devices", {
        "every_device": "true", "timed_runtime": "compiled", "timed_batch": "16",
        "timed_percentile": "p90", "timed_students": [LABEL],
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


# --- how it stands on a screen ------------------------------------------------------------------


def test_a_page_that_ends_early_has_its_sidebar(browser: BrowserContext, store: Store, tmp_path: Path):
    from benchmarks.pages import ROOT, served

    shutil.copytree(store.root, tmp_path / "untimed", ignore=shutil.ignore_patterns("devices"))
    with served(ROOT / "app.py", tmp_path / "untimed") as (address, _), tab(browser) as page:
        page.goto(f"{address}/devices")
        settled(page)
        page.get_by_text("No device report yet").wait_for()
        page.locator("[data-testid=stSidebar]").get_by_text("Data set").wait_for()


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


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path or "choose")
def test_a_page_fits_a_phone_and_its_text_is_seen_in_the_dark(browser: BrowserContext, address: str, path: str):
    with tab(browser, NARROW, "dark") as page:
        page.goto(f"{address}/{path}")
        settled(page)
        page.wait_for_timeout(300)  # what a chart asks for after it is drawn
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        app = page.locator("[data-testid=stApp]")
        assert app.evaluate("app => getComputedStyle(app).backgroundColor") == DARK
        assert page.evaluate(FAINT, LEAST_CONTRAST) == {}


@pytest.mark.parametrize("path", ["gallery", "methods"])
def test_two_models_beside_each_other_fit_a_phone_with_their_captions(browser: BrowserContext, address: str, path: str):
    query = urlencode([("models", LABEL), ("models", TAUGHT), ("of", "teaching_assistant")])
    with tab(browser, NARROW) as page:
        page.goto(f"{address}/{path}?{query}")
        settled(page)
        heads = page.locator(".pictures thead th:not(:empty)")
        heads.nth(1).wait_for()
        boxes = [heads.nth(k).bounding_box() for k in range(2)]
        frame = page.locator(".pictures .scroll").first.bounding_box()
        assert all(frame["x"] <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"] for box in boxes)
