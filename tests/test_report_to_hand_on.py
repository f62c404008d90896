"""The one file that a report is: it says what the pages say, asks for nothing, and holds no text that is markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dashboard.conftest import make_store
from PIL import Image

from lab import arms, choose, claims, report, sheets
from lab.choose import Budget, Recommendation, recommend
from lab.cli import FAILED, MISSING, OK, USAGE, main
from lab.results import Store

COMMITTED = Store(Path(__file__).parent.parent / "results")
BUDGET = Budget(params_m=0.35, latency_ms=1.0)
HOSTILE = "</script><img src=x onerror=alert(1)>$title & \"'<b>"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Page(HTMLParser):
    """A file's elements, each with its attributes and the text directly in it."""

    content: str
    elements: list[tuple[str, dict[str, str | None], list[str]]] = field(default_factory=list)
    open: list[list[str]] = field(default_factory=list)  # the texts of those that a tag is still to close

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in ("meta", "img", "br"):
            self.open.append(self.elements[-1][2])

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(text) for name, _, text in self.elements if name not in ("script", "style"))


def answer_of(store: Store, budget: Budget = BUDGET) -> Recommendation:
    return recommend(store.table(), store.reports(), budget)


def page_of(store: Store, budget: Budget = BUDGET) -> Page:
    return Page(report.html(store, answer_of(store, budget), commit="c0ffee"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("report"), students=8)


@pytest.fixture(scope="module")
def page(store: Store) -> Page:
    return page_of(store)


@pytest.fixture(scope="module")
def judged() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Claims and verdicts of the committed results."""
    return claims.table(COMMITTED), arms.verdicts(COMMITTED.table(), arms.calibration(COMMITTED))


@pytest.fixture(scope="module")
def committed(judged: tuple[pd.DataFrame, pd.DataFrame]) -> Page:
    with pytest.MonkeyPatch.context() as patch:  # else they are judged twice
        patch.setattr(claims, "table", lambda store, *_: judged[0] if store is COMMITTED else None)
        patch.setattr(arms, "verdicts", lambda *_: judged[1])
        return page_of(COMMITTED)


def test_the_heading_is_the_sentence_of_choose_and_its_figures_are_explained(store: Store, page: Page):
    answer = answer_of(store)
    ((_, said),) = page.all("h1")
    assert said == choose.sentence(answer) and said.startswith("Ship ")
    assert all(figure.meaning in page.text for figure in choose.in_short(answer))
    assert all(words in page.text for words in (answer.reason, answer.loses, answer.sure, *answer.left_out))


@pytest.mark.parametrize("which", ["page", "committed"])
def test_a_report_refers_to_nothing_outside_itself(which: str, request: pytest.FixtureRequest):
    page = request.getfixturevalue(which)
    for tag, attributes, _ in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "a", "base", "form")
        for name in {"src", "href", "srcset", "poster", "action", "background"} & attributes.keys():
            assert attributes[name].startswith("data:image/png;base64,"), (tag, name)
    (_, style), *_ = page.all("style")
    assert "url(" not in style and "@import" not in style
    assert str(COMMITTED.root.parent) not in page.content


def test_the_policy_lets_no_script_run_but_plotly_and_the_one_that_draws(page: Page):
    (policy,) = [a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    scripts = [text for attributes, text in page.all("script") if "type" not in attributes]
    (packed,) = [text for attributes, text in page.all("script") if attributes.get("id") == "plotly"]
    run = [gzip.decompress(base64.b64decode(packed)).decode(), *scripts]
    hashes = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in run]
    assert len(scripts) == 1 and re.findall(r"'sha256-(.*?)'", policy) == hashes
    assert policy.startswith("default-src 'none'") and "unsafe-inline" not in policy.partition("script-src")[2]


def test_the_report_of_the_committed_results_is_small_and_has_every_claim_and_verdict(committed: Page, judged):
    assert len(committed.content.encode()) < 2_500_000
    found, verdicts = judged
    assert all(row["claim"] in committed.text and (row["ours"] or row["why"]) in committed.text
               for _, row in found.iterrows())  # fmt: skip
    for row in verdicts[verdicts["seeds"].gt(1)].itertuples():
        assert f"{choose.number(row.low)} to {choose.number(row.high)}" in committed.text
    pick = answer_of(COMMITTED).pick
    assert f"Trained from seed {pick['seed']:.0f} on cpu, 2 threads, torch" in committed.text
    assert pick["weights_sha256"][:12] in committed.text and "commit c0ffee" in committed.text


def test_the_chart_has_every_student_and_the_budget(store: Store, page: Page):
    (content,) = [text for attributes, text in page.all("script") if attributes.get("type") == "application/json"]
    drawn, answer = json.loads(content), answer_of(store)
    named = {trace.get("name") for trace in drawn["data"]}
    assert {"front", "the pick"} <= named
    assert BUDGET.latency_ms in {shape["x0"] for shape in drawn["layout"]["shapes"]}
    shown = {run for trace in drawn["data"] for (run, *_) in trace.get("customdata", [])}
    assert shown >= set(answer.candidates["run"])


def test_images_of_pick_and_teacher_are_those_of_their_sheets_on_the_same_noise(store: Store, page: Page):
    answer, count = answer_of(store), report.ACROSS * report.DOWN
    grids = {a["alt"]: base64.b64decode(a["src"].partition(",")[2]) for a, _ in page.all("img")}
    for who, row in [(f"{answer.pick['name']}, the pick", answer.pick), ("Its teacher", answer.teacher)]:
        drawn = np.asarray(Image.open(io.BytesIO(grids[f"Images by {who}"])))
        sheet = sheets.read_samples(store.root / "runs" / row["run"] / "samples.npz")
        assert np.array_equal(sheets.untile(drawn, 28), sheet.images[:count])
    assert f"seeds 0 to {count - 1}" in page.text


def test_images_of_other_noises_are_not_put_beside(tmp_path: Path):
    store = make_store(tmp_path, students=4)
    path = store.root / "runs" / answer_of(store).pick["run"] / "samples.npz"
    sheet = sheets.read_samples(path)
    np.savez(path, images=sheet.images, classes=sheet.classes, seeds=sheet.seeds + 1)
    page, answer = page_of(store), answer_of(store)
    assert {a["alt"] for a, _ in page.all("img")} == {"Images by Its teacher"} | {
        f"Images by {row['name']}, {what}" for row, what in [(answer.runner_up, "the next")] if row}  # fmt: skip
    assert "Its samples are of other noises or classes." in page.text


def test_a_label_of_a_stranger_stays_text(tmp_path: Path):
    store = make_store(tmp_path, students=4)
    for run in store.runs():
        if (run.path / "student.json").exists():
            run.set_notes(label=f"{HOSTILE} {run.id[-8:]}")
    page = page_of(store)
    assert {a["src"][:15] for a, _ in page.all("img")} == {"data:image/png;"} and not page.all("b")
    assert len(page.all("script")) == 3 and HOSTILE in page.all("h1")[0][1] and HOSTILE in page.text
    assert not any("onerror" in attributes for _, attributes, _ in page.elements)


def test_where_nothing_fits_the_report_says_what_comes_nearest(store: Store):
    budget = Budget(params_m=0.001)
    page, answer = page_of(store, budget), answer_of(store, budget)
    assert page.all("h1")[0][1] == answer.headline and answer.reason in page.text


def test_the_command_writes_the_answer_of_its_budget(store: Store, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["report", "--results", str(store.root), "--params-m", "0.35", "--latency-ms", "1"]
    assert main([*asked, "--dry-run"]) == OK and not list(tmp_path.iterdir())
    capsys.readouterr()
    assert main([*asked, "--out", "told.html", "--json"]) == OK
    said = json.loads(capsys.readouterr().out)
    (path,) = tmp_path.iterdir()
    assert path.name == said["file"] == "told.html" and path.stat().st_size == said["bytes"]
    assert said["sentence"] == Page(path.read_text()).all("h1")[0][1] == choose.sentence(answer_of(store))
    assert main([*asked, "--out", "told.pdf"]) == USAGE and "must end with .html" in capsys.readouterr().err


def test_without_a_measured_run_there_is_no_report(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    for dry in ([], ["--dry-run"]):
        assert main(["report", "--results", "results", *dry]) == MISSING
        assert "nothing to report" in capsys.readouterr().err and not list(tmp_path.glob("*.html"))


def test_a_report_that_can_not_be_written_is_no_success(store: Store, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "told.html").mkdir()
    for dry in ([], ["--dry-run"]):
        assert main(["report", "--results", str(store.root), "--out", "told.html", *dry]) == USAGE
        assert "--out 'told.html' is a folder" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["report", "--results", str(store.root), "--out", "file/told.html"]) == FAILED


@pytest.mark.parametrize("command", ["report", "choose"])
def test_what_an_answer_is_made_without_is_named_in_it(command: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = make_store(tmp_path, students=2)  # one run of it is broken
    answer, others = answer_of(store), [*store.unread()]
    assert len(others) == 1 and any("1 run that can't be read" in said for said in answer.left_out)
    (store.root / "runs" / answer.pick["run"] / "notes.json").write_text("{")
    (store.root / "teachers.json").write_text("<<<<<<< HEAD")
    assert main([command, "--results", str(store.root), "--json"]) == OK
    unread = json.loads(capsys.readouterr().out)["unread"]
    assert unread.keys() == {*others, f"runs/{answer.pick['run']}/notes.json", "teachers.json"}
    assert main([command, "--results", str(store.root)]) == OK
    said = capsys.readouterr().out
    told = [said] + [Page(path.read_text()).text for path in tmp_path.glob("*.html")]
    assert all("3 files can't be read" in text and "teachers.json: it is no JSON object" in text for text in told)
    for recipe in store.root.glob("runs/*/recipe.json"):
        recipe.write_text("{")
    assert main([command, "--results", str(store.root)]) == MISSING
    assert "runs that can't be read (" in "".join(capsys.readouterr())


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_without_network_draws_it_on_a_phone(scheme: str, committed: Page, tmp_path: Path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    (tmp_path / "report.html").write_text(committed.content)
    asked, wrong = [], []
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((tmp_path / "report.html").as_uri())
        page.locator(".chart .scatterlayer .trace").first.wait_for()
        width, ground = page.evaluate(
            "[document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]"
        )
        browser.close()
    assert not wrong and [url for url in asked if not url.startswith(("data:", "blob:"))] == [asked[0]]
    assert width <= 390
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")
