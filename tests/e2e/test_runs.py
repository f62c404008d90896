"""Work that is started from the page Runs is found again by another page of another server, is stopped and goes on."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.conftest import BROWSER, PATIENCE_MS, settled, tab

from lab import jobs
from lab.results import Run, Store

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = BROWSER
LOADING_MS = 4 * PATIENCE_MS  # of a process that loads torch
LONG = {"steps": "49000", "batch": "1"}  # minutes of work, of so few images that nothing is compiled


@contextlib.contextmanager
def visited(browser: BrowserContext, results: Path, query: str = "") -> Iterator[Page]:
    """The page, of a server of its own that is killed when the tab is closed."""
    from benchmarks.pages import ROOT, served

    with served(ROOT / "app.py", results) as server:
        try:
            with tab(browser) as page:
                page.set_default_timeout(LOADING_MS)
                page.goto(f"{server.address}/runs{query}")
                yield page
        finally:
            os.kill(server.pid, signal.SIGKILL)


def begin(page: Page, button: str, *, seeds: str = "") -> None:
    """Fill the form for a new run, or for a sweep of seeds, and start it."""
    for name, value in LONG.items():
        settled(page)
        page.locator(f"input[aria-label={name}]").fill(value)
        page.locator(f"input[aria-label={name}]").press("Enter")
    if seeds:
        settled(page)
        page.locator("[class*=-vary] input").click()
        page.keyboard.type("seed")  # the list is longer than what the page holds of it
        page.get_by_role("option", name="seed", exact=True).click()
        page.keyboard.press("Escape")
        page.get_by_role("textbox", name="Values of seed").fill(seeds)
        page.get_by_role("textbox", name="Values of seed").press("Enter")
    settled(page)
    page.locator(f".st-key-{button} button").click()


def at_work(page: Page, said: str, key: str) -> None:
    """Wait for all that a page shows of work: process, speed, time to go, curve, newest grid, and how to stop it."""
    page.get_by_text(said).first.wait_for()
    page.get_by_text(re.compile(r"updates, .* images/s, .* to go")).first.wait_for()
    page.locator(f".st-key-curve-{key} .scatterlayer .trace").first.wait_for()
    page.locator(".pictures .tile:not(.missing)").nth(15).wait_for()
    page.locator(f".st-key-stop-{key} button:enabled").first.wait_for()


def press(page: Page, word: str, key: str, *, then: str) -> None:
    settled(page)  # a run that changes its state has the page drawn anew
    page.locator(f".st-key-{word}-{key} button").first.click()
    page.locator(f".st-key-{then}-{key} button:enabled").first.wait_for()


def until(said: Callable[[], object]) -> None:
    end = time.monotonic() + LOADING_MS / 1000
    while not said():
        assert time.monotonic() < end
        time.sleep(0.1)


def last_step(run: Run) -> int:
    rows = run.log_rows()
    return int(rows[-1]["step"]) if rows else 0


@contextlib.contextmanager
def nothing_left(store: Store) -> Iterator[None]:
    """Kill what still works on a sweep or a run."""
    try:
        yield
    finally:
        sweeps = [(jobs.process_of_sweep, path) for path in store.sweeps()]
        for find, of in [*sweeps, *((jobs.process_of, run) for run in store.runs())]:
            if (pid := find(of)) is not None:
                os.kill(pid, signal.SIGKILL)
            until(lambda find=find, of=of: find(of) is None)


def test_a_run_survives_a_refresh_and_a_killed_server_and_is_stopped_and_resumed(
    browser: BrowserContext, tmp_path: Path
):
    store = Store(tmp_path)
    with nothing_left(store):
        with visited(browser, tmp_path, "?new=true") as page:
            begin(page, "start_new")
            until(store.runs)
            (run,) = store.runs()
            at_work(page, "running, process", run.id)
            pid = jobs.process_of(run)
            page.reload()
            at_work(page, f"running, process {pid}", run.id)
        step = last_step(run)
        until(lambda: last_step(run) > step)  # without any server
        with visited(browser, tmp_path) as page:
            at_work(page, f"running, process {pid}", run.id)
            press(page, "stop", run.id, then="resume")
            step = run.status().step
            assert run.status().state == "stopped" and step > 0 and jobs.process_of(run) is None
            press(page, "resume", run.id, then="stop")
            until(lambda: last_step(run) > step)
            at_work(page, f"running, process {jobs.process_of(run)}", run.id)
            assert jobs.process_of(run) != pid
            assert [sitting["from_step"] for sitting in run.read("env")["sittings"]] == [0, step]


def test_a_sweep_survives_a_killed_server_and_is_stopped_and_resumed(browser: BrowserContext, tmp_path: Path):
    store, record, key = Store(tmp_path), tmp_path / "sweeps" / "digits-seed.json", "sweep-digits-seed"
    with nothing_left(store):
        with visited(browser, tmp_path, "?new=true") as page:
            begin(page, "start_sweep", seeds="0, 1, 2")
            at_work(page, "Sweep digits-seed running, process", key)
            pid = jobs.process_of_sweep(record)
        with visited(browser, tmp_path) as page:
            at_work(page, f"Sweep digits-seed running, process {pid}", key)
            press(page, "stop", key, then="resume")
            (run,) = store.runs()
            step = run.status().step
            assert run.status().state == "stopped" and step > 0 and jobs.process_of(run) is None
            assert [row["state"] for row in store.sweeps()[record]["runs"]] == ["stopped", "queued", "queued"]
            press(page, "resume", key, then="stop")
            until(lambda: last_step(run) > step)
            at_work(page, f"Sweep digits-seed running, process {jobs.process_of_sweep(record)}", key)
            press(page, "stop", key, then="resume")
            assert jobs.process_of_sweep(record) is None and jobs.process_of(run) is None
