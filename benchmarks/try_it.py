"""How long does a person wait for the first image, and how fast does a walk follow the slider? In headless Chromium.

    python benchmarks/try_it.py --models 8x48,12x40,4x64,2x88 --out results/benchmarks/try_it.json

Each round starts a server of its own, opens Try it, and presses Generate as soon as the page stands: seconds to the
first image of the student. Then, in the same tab, a slider is moved at every repaint of the browser for some seconds:
pictures of all models a second. At last it rests: seconds until the ways through its new place are drawn by all models
and are in the browser. The load of the machine is kept with the figures.

Needs playwright and a Chromium (--chromium, Debian's by default).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from pathlib import Path
from urllib.parse import urlencode

from pages import FLAGS, HEADLINE, PATIENCE_MS, ROOT, served, settled
from playwright.sync_api import Page, sync_playwright

from lab.experiment import commit
from lab.results import default_root, write_json

DRAWN = ".pictures .tile:not(.missing)"
# Moves the slider of the noises up and down until the time is over; gives the pictures that came meanwhile.
MOVE = """async (root, seconds) => {
  const slider = root.querySelector("input");
  const before = Number(root.dataset.frames ?? 0), began = performance.now();
  for (let k = 0; performance.now() - began < 1000 * seconds; k++) {
    slider.value = Math.abs((k / 50) % 2 - 1);
    slider.dispatchEvent(new Event("input"));
    await new Promise(requestAnimationFrame);
  }
  return (Number(root.dataset.frames ?? 0) - before) / ((performance.now() - began) / 1000);
}"""


def first_image(page: Page) -> float:
    """Seconds from the press to the student's images."""
    button = page.get_by_role("button", name="Generate")
    began = time.perf_counter()
    button.click()
    page.locator(DRAWN).first.wait_for(timeout=PATIENCE_MS)
    return time.perf_counter() - began


def frames_a_second(page: Page, seconds: float) -> float:
    settled(page)
    page.locator(".walk canvas").first.wait_for(timeout=PATIENCE_MS)
    walk = page.locator(".walk")  # in a shadow of its own, which a locator looks into
    walk.evaluate(MOVE, 1.0)  # the first frames find cold caches
    return walk.evaluate(MOVE, seconds)


def new_ways(page: Page) -> float:
    """Seconds from the slider's rest at another place to pictures along both ways through it."""
    walk = page.locator(".walk")
    began = time.perf_counter()
    walk.locator("input").first.fill("0.75")
    page.locator(".walk[data-at^='0.75 ']").wait_for(timeout=PATIENCE_MS)
    return time.perf_counter() - began


def main(results: Path, chromium: str, models: list[str], *, rounds: int, seconds: float) -> dict:
    waits, rates, ways, loads = [], [], [], []
    query = urlencode([("model", models[0]), ("walk", "true"), ("also_teacher", "false")]
                      + [("walk_models", name) for name in models])  # fmt: skip
    with sync_playwright() as tool:
        for _ in range(rounds):
            with served(ROOT / "app.py", results) as (address, _):
                browser = tool.chromium.launch(executable_path=chromium, args=FLAGS)
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                page.goto(f"{address}/try_it")
                page.locator(HEADLINE).first.wait_for(timeout=PATIENCE_MS)
                settled(page)
                waits.append(first_image(page))
                page.goto(f"{address}/try_it?{query}")
                loads.append(os.getloadavg()[0])
                rates.append(frames_a_second(page, seconds))
                ways.append(new_ways(page))
                browser.close()
    return {
        "seconds to the first image": {"median": statistics.median(waits), "slowest": max(waits)},
        "frames a second": {"median": statistics.median(rates), "slowest": min(rates), "models": models},
        "seconds to new ways": {"median": statistics.median(ways), "slowest": max(ways)},
        "rounds": rounds, "load": loads, "processors": os.cpu_count(), "nice": os.nice(0), "commit": commit(),
        "python": platform.python_version(), "machine": platform.machine(),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=default_root(), help="the results folder that is shown")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument(
        "--models", default="8x48,12x40,4x64,2x88", help="students by name, the first one is drawn with"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of the walk")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/try_it.json"))
    args = parser.parse_args()
    report = main(args.results.absolute(), args.chromium, args.models.split(","), rounds=args.rounds,
                  seconds=args.seconds)  # fmt: skip
    for what in ("seconds to the first image", "frames a second", "seconds to new ways"):
        print(f"{what:28s} {report[what]['median']:.2f}, slowest {report[what]['slowest']:.2f}")
    print(f"load {report['load']} on {report['processors']} processors, nice {report['nice']}")
    write_json(args.out, report)
