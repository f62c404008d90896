"""The claim table as a page: on nothing, on the committed results, and on a folder in which files are broken."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest
from dashboard.conftest import add_student, open_page
from streamlit.testing.v1 import AppTest

from lab import claims
from lab.config import Use
from lab.results import Store, write_whole

ROOT = Path(__file__).parents[2]
MARKS = {claims.HOLDS: "green", claims.PARTLY: "orange", claims.DIFFERS: "red", claims.UNTESTED: "gray"}
page = functools.partial(open_page, "paper")


def said(at: AppTest) -> str:
    return " ".join(e.value for e in [*at.markdown, *at.caption, *at.info]).replace("\\", "")


def badges(at: AppTest) -> list[str]:
    """The words of the statuses, each drawn with an icon and in its own colour."""
    drawn = [m.value for m in at.markdown if "-badge[" in m.value]
    for text in drawn:
        status = next(status for status in claims.STATUSES if status in text)
        assert text.startswith(f":{MARKS[status]}-badge[:material/"), text
    return drawn


def test_the_committed_results_show_every_claim_with_its_status_figure_and_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAB_RESULTS", str(ROOT / "results"))
    at, found = page(), claims.table(Store(ROOT / "results"))
    assert len(badges(at)) == len(found) == len(at.expander) - 1  # and that of the sidebar
    text = said(at)
    assert all(row["claim"] in text and (row["ours"] or row["why"]) in text for _, row in found.iterrows())
    commands = "\n".join(code.value for code in at.code)
    assert all(row["command"] in commands for _, row in found.iterrows())
    assert f"Of {len(found)} claims:" in text and claims.RULE in text


def test_claims_are_filtered_by_paper_and_by_status(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAB_RESULTS", str(ROOT / "results"))
    found = claims.table(Store(ROOT / "results"))
    at = page(of="The paper")
    assert len(badges(at)) == found["paper"].eq(claims.paper.PAPER).sum()
    at.segmented_control(key="of").set_value("Its neighbours").run()
    at.button_group(key="status").set_value([claims.HOLDS]).run()
    neighbours = found[found["paper"].ne(claims.paper.PAPER)]
    assert len(badges(at)) == neighbours["status"].eq(claims.HOLDS).sum() and not at.exception


def test_an_empty_folder_names_the_first_commands_and_every_claim_waits(nothing: Store):
    at = page()
    assert set(badges(at)) == {badges(at)[0]} and claims.UNTESTED in badges(at)[0]
    assert "every claim waits for its runs" in said(at) and "python -m lab run" in at.code[0].value


def test_broken_files_cost_their_own_rows_alone(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = make_store(tmp_path, students=3)
    taught = {"methods": (Use("pairs"), Use("teaching_assistant")), "guide": f"run:{store.runs()[1].id}"}
    add_student(store, label="plain")
    cut = add_student(store, label="cut", fields=taught)
    other = "fashion-mnist-d4w40h4p4m96-pairs-dee92d7a"
    shutil.copytree(ROOT / "results" / "runs" / other, tmp_path / "runs" / other)
    write_whole(cut.path / "student.json", '{"config": 3, "facts": [')
    for name in ("arms", "dynamic"):
        write_whole(tmp_path / "benchmarks" / f"{name}.json", '{"rows": [3, {"run": "x"}, {"run": null, "ms": 1}]}')
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    assert len(badges(page())) == len(claims.CLAIMS)
