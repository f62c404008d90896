"""What all pages share: the sidebar and the end of a page."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from dashboard.conftest import open_page
from streamlit.testing.v1 import AppTest

from lab.dashboard import frame
from lab.results import Store

APP = Path(__file__).parents[2] / "app.py"
PAGES = ["choose", "tradeoff", "gallery", "devices", "runs"]
page = functools.partial(open_page, timeout=60)


def labels(at: AppTest) -> list[str]:
    return [b.label for b in at.get("download_button")]


@pytest.mark.parametrize("name", PAGES)
def test_every_page_gives_its_link_its_data_and_its_command(name: str, demo: Store) -> None:
    at = page(name, weak="true")
    assert [p.proto.popover.label for p in at.get("popover")][-2:] == ["Copy link", "Show the command"]
    assert labels(at)[-2:] == ["Download data (CSV)", "Parquet"]
    link, command = [c.value for c in at.main.code][-2:]
    assert link.endswith("?weak=true") or name == "choose"  # which AppTest opens without its query
    assert all(line.startswith(f"LAB_RESULTS={demo.root} python -m lab ") for line in command.split("\n"))


def test_a_page_that_ends_early_has_its_footer_too(demo: Store) -> None:
    assert labels(page("gallery", gallery="learn"))[-1] == "Parquet"


def test_no_page_ends_by_st_stop_after_which_a_browser_is_sent_nothing_more() -> None:
    for path in [APP, *Path(frame.__file__).parent.glob("*.py")]:
        assert "st.stop()" not in path.read_text(), path.name


def test_an_empty_page_offers_no_data_and_not_that_of_the_page_before(nothing: Store) -> None:
    assert labels(page("choose")) == []


def test_a_table_survives_parquet_whatever_its_cells_hold() -> None:
    data = pd.DataFrame(
        {"run": ["a", "b"], "fd": [1.5, None], "keep": [[1], None], "odd": [1, "x"], "on": [True, None]}
    )
    again = pd.read_parquet(io.BytesIO(frame.as_parquet(data)))
    assert again["run"].tolist() == ["a", "b"] and again["fd"][0] == 1.5
    assert again["keep"][0] == "[1]" and pd.isna(again["keep"][1]) and again["odd"].tolist() == ["1", '"x"']


def test_a_run_that_is_not_done_is_hatched(demo: Store) -> None:
    table = page("runs").dataframe[0].value
    assert (table["name"].str.startswith(frame.HATCH) == (table["state"] != "done")).all()
    assert (table["state"] != "done").any()


def sidebar(at: AppTest) -> str:
    return "\n".join(e.value for e in [*at.sidebar.markdown, *at.sidebar.info]).replace("\\", "")


def test_the_budget_of_choose_stands_beside_the_other_pages(demo: Store) -> None:
    at = page("choose", params_m="0.35", latency_ms="0")
    assert "Budget: at most 0.35 M parameters" in sidebar(at)
    at.switch_page("lab/dashboard/tradeoff.py").run()
    assert "Budget: at most 0.35 M parameters" in sidebar(at)


def test_results_that_came_with_the_lab_are_called_demo_data(demo: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Demo data" not in sidebar(page("runs"))
    monkeypatch.delenv("LAB_RESULTS")
    assert "Demo data" in sidebar(page("runs"))


def test_the_sidebar_says_what_each_mark_of_provenance_means(demo: Store) -> None:
    said = sidebar(page("runs"))
    assert all(f"{mark} **{word}**" in said for mark, word, _ in frame.PROVENANCE)
    assert {word for _, word, _ in frame.PROVENANCE} == {"measured", "imported", "published", "estimated"}


def test_tables_of_the_pages_keep_their_text_as_python_s_own() -> None:
    table = pd.DataFrame({"run": ["a", None, "c"], "fd": [1.0, 2.0, None], "hide": [True, False, True]})
    plain = frame._in_one_block(table)
    assert isinstance(table["run"].dtype, pd.StringDtype) and plain["run"].dtype == object
    assert plain["run"].isna().tolist() == [False, True, False] and plain["run"][0] == "a"
    assert plain["fd"].equals(table["fd"]) and plain["hide"].equals(table["hide"])
    assert frame._in_one_block(pd.DataFrame()).empty


def test_pages_that_compute_nothing_load_no_torch(demo: Store) -> None:
    titles = {"tradeoff": "How do", "devices": "How fast", "gallery": "The same noise", "runs": "Runs"}
    script = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        f"at = AppTest.from_file({str(APP)!r}, default_timeout=120).run()\n"
        "assert not at.exception and at.get('plotly_chart') and 'torch' not in sys.modules, 'choose'\n"
        f"for name, title in {titles}.items():\n"
        "    at.switch_page(f'lab/dashboard/{name}.py').run()\n"
        "    assert not at.exception and at.title[0].value.startswith(title), name\n"
        "    assert 'torch' not in sys.modules, f'{name} loads torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=APP.parent, env=os.environ, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
