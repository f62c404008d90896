"""How long does a person wait for the app, and what memory does it take? In headless Chromium, on a results folder.

    python benchmarks/pages.py --out results/benchmarks/pages.json
    python benchmarks/pages.py --runs 5000 --out results/benchmarks/pages-5000.json  # among so many synthetic ones

The first tab of a new server. Then in turns: the first page in a fresh tab with an empty cache, to its sentence and to
its first chart, and a Streamlit page of one title, one field and one plotly chart likewise. Then, in a tab of each: a
limit typed into the field, to the end of the redraw. Then every page by the navigation, to its headline. Medians over
the rounds, with the slowest. The server's memory is read when every page has been open but Try it, which imports torch.

Needs playwright and a Chromium (--chromium, Debian's by default).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright

from lab.experiment import commit
from lab.results import default_root, write_json

ROOT = Path(__file__).parent.parent
ONE_CHART = """import plotly.express as px
import streamlit as st
st.title("One chart")
limit = st.number_input("Max parameters", value=1.0, format="%g")
st.plotly_chart(px.scatter(x=[1, 2, limit], y=[3, 1, 2]))
"""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# A page of one chart may run for less than a frame, which nobody sees who looks at every frame.
WATCH = """() => {
  const app = document.querySelector('[data-testid=stApp]');
  window.hasRun = false;
  new MutationObserver((_, watch) => {
    if (app.getAttribute('data-test-script-state') === 'running') { window.hasRun = true; watch.disconnect(); }
  }).observe(app, {attributes: true, attributeFilter: ['data-test-script-state']});
}"""
HEADLINE = "[data-testid=stHeading]"
CHART = ".js-plotly-plot .scatterlayer .trace"  # not one of nothing
PATIENCE_MS = 120_000
REST_MS = 500  # before typing: a page that has just been opened takes its address's values over what is typed meanwhile
LIMIT = "Max parameters"  # the start of a label of the first page's number fields
LIMITS = ("0.3", "0.12", "1.1")  # none is the one that the page suggests: that would be no change
WITH_TORCH = "Try it"


class Server(NamedTuple):
    """A Streamlit app in a process of its own."""

    address: str
    pid: int

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory now and at its peak, as Linux tells them."""
        said = Path(f"/proc/{self.pid}/status").read_text()
        now, peak = (int(re.search(rf"{name}:\s+(\d+) kB", said)[1]) / 1024 for name in ("VmRSS", "VmHWM"))
        return now, peak


@contextlib.contextmanager
def served(script: Path, results: Path) -> Iterator[Server]:
    """A Streamlit app on a results folder, up; what pages import comes with the first visit."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}", "--server.headless=true",
               "--browser.gatherUsageStats=false", "--server.fileWatcherType=none"]  # fmt: skip
    app = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"LAB_RESULTS": str(results)},
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/_stcore/health"):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"{script.name} does not answer at {address} after a minute")
        yield Server(address, app.pid)
    finally:
        app.terminate()
        app.wait()


def fresh_tab(browser: Browser, address: str) -> dict[str, float]:
    """Seconds to the headline and to the first chart in a tab with an empty cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    began = time.perf_counter()
    page.goto(address, wait_until="commit")
    found = {}
    for what, selector in [("headline", HEADLINE), ("chart", CHART)]:
        page.locator(selector).first.wait_for(timeout=PATIENCE_MS)
        found[what] = time.perf_counter() - began
    context.close()
    return found


def open_page(browser: Browser, address: str) -> Page:
    """A tab whose page has been drawn to its end."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.locator(CHART).first.wait_for(timeout=PATIENCE_MS)
    settled(page)
    return page


def settled(page: Page) -> None:
    """Wait until the script has run to its end and nothing on the page is of an earlier run."""
    page.wait_for_function(
        "document.querySelector('[data-testid=stApp]').getAttribute('data-test-script-state') === 'notRunning'"
        " && !document.querySelector('[data-stale=true]')",
        timeout=PATIENCE_MS,
    )


def timed(act: Callable[[], object], until: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    until()
    return time.perf_counter() - began


def by_navigation(page: Page, leaving_out: str = "") -> dict[str, float]:
    """Seconds from a click on every page's name to its headline."""
    found = {}
    links = page.locator("[data-testid=stSidebarNavLink]")
    for k in [*range(1, links.count()), 0]:
        old = page.locator(HEADLINE).first.inner_text()
        name = links.nth(k).inner_text().strip().splitlines()[-1]  # before it stands its icon's
        if name == leaving_out:
            continue

        def new_headline(old: str = old) -> None:
            page.wait_for_function(
                "old => { const now = document.querySelector('[data-testid=stHeading]');"
                " return now && now.innerText !== old && !now.closest('[data-stale=true]'); }",
                arg=old, timeout=PATIENCE_MS,
            )  # fmt: skip

        found[name] = timed(links.nth(k).click, new_headline)
        settled(page)
    return found


def redraw(page: Page, value: str) -> float:
    """Seconds from Enter in a number field of the first page to the end of its redraw."""
    page.wait_for_timeout(REST_MS)
    field = page.locator(f"input[aria-label^='{LIMIT}']").first
    field.fill(value)
    page.evaluate(WATCH)

    def begun_and_settled() -> None:
        page.wait_for_function("window.hasRun", timeout=PATIENCE_MS, polling="raf")
        settled(page)

    return timed(lambda: field.press("Enter"), begun_and_settled)


def main(results: Path, chromium: str, *, rounds: int) -> dict:
    tabs: dict[str, list[dict[str, float]]] = {"app": [], "one chart": []}
    switches: dict[str, list[float]] = {}
    redraws: dict[str, list[float]] = {"redraw": [], "one chart: redraw": []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tool:
        script = Path(folder) / "one_chart.py"
        script.write_text(ONE_CHART)
        with served(ROOT / "app.py", results) as app, served(script, results) as one:
            browser = tool.chromium.launch(executable_path=chromium, args=FLAGS)
            first, _ = (fresh_tab(browser, server.address) for server in (app, one))  # with imports and all reading
            for k in range(rounds):
                for name, server in [("app", app), ("one chart", one)][:: 1 if k % 2 == 0 else -1]:
                    tabs[name].append(fresh_tab(browser, server.address))
            page, plain = (open_page(browser, server.address) for server in (app, one))
            by_navigation(page, leaving_out=WITH_TORCH)  # each page's own first imports
            memory = app.memory_mb()
            for k in range(rounds):
                for name, of in zip(redraws, (page, plain)):
                    redraws[name].append(redraw(of, LIMITS[k % len(LIMITS)]))
                for name, seconds in by_navigation(page).items():
                    switches.setdefault(name, []).append(seconds)
            browser.close()
    ratios = [a["chart"] / b["chart"] for a, b in zip(tabs["app"], tabs["one chart"])]
    seconds = {f"first tab: {what}": _some([value]) for what, value in first.items()}
    seconds |= {f"{name}: {what}": _some([tab[what] for tab in found]) for name, found in tabs.items()
                for what in ("headline", "chart")}  # fmt: skip
    seconds |= {f"to page {name}": _some(found) for name, found in switches.items()}
    seconds |= {name: _some(found) for name, found in redraws.items()}
    return {
        "runs": len(os.listdir(results / "runs")), "seconds": seconds,
        "memory (MB)": {"now": round(memory[0]), "peak": round(memory[1])},
        "first chart, app / one chart": {"median": statistics.median(ratios), "spread": [min(ratios), max(ratios)]},
        "rounds": rounds, "commit": commit(), "python": platform.python_version(), "machine": platform.machine(),
        "load": os.getloadavg()[0],
    }  # fmt: skip


def _some(found: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(found), 3), "slowest": round(max(found), 3)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=default_root(), help="the results folder that is shown")
    parser.add_argument("--runs", type=int, default=0, help="fill a copy of it up to so many runs (synthetic.py)")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/pages.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        shown = args.results.absolute()
        if args.runs:
            from synthetic import copied, fill

            shown = Path(scratch) / "results"
            fill(store := copied(args.results, shown), args.runs - len(store.runs()))
        report = main(shown, args.chromium, rounds=args.rounds)
    for what, found in report["seconds"].items():
        print(f"{what:24s} {found['median']:.2f} s, slowest {found['slowest']:.2f} s")
    ratio, memory = report["first chart, app / one chart"], report["memory (MB)"]
    print(f"first chart, app / one chart: {ratio['median']:.2f} ({ratio['spread'][0]:.2f} to {ratio['spread'][1]:.2f})")
    print(f"memory of the server of {report['runs']:,} runs: {memory['now']} MB, at its peak {memory['peak']} MB")
    write_json(args.out, report)
