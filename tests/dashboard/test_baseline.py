"""A run as the baseline of every page, and the budget's limits on every chart of the same unit."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from dashboard.conftest import open_page
from streamlit.testing.v1 import AppTest

from lab.results import Store

APP = Path(__file__).parents[2] / "app.py"
BASE = "d4w64h4p4"
page = functools.partial(open_page, timeout=60)


def chart(at: AppTest, key: str) -> dict:
    return next(json.loads(c.proto.spec) for c in at.get("plotly_chart") if key in c.proto.id)


def test_a_run_is_set_as_the_baseline_and_stays_it_on_the_next_page(demo: Store) -> None:
    at = page("runs", compare=[BASE])
    assert "fd_better" not in at.dataframe[0].value
    at.button(key=f"baseline-{demo.get('fashion-mnist-d4w64h4p4-pairs').id}").click().run()
    assert not at.exception and at.selectbox(key="baseline").value == BASE
    table = at.dataframe[0].value.set_index("name")
    assert table.loc[BASE, "fd_better"] == 0 and table["fd_better"].max() > 0 > table["fd_better"].min()
    assert table.loc["d12w80h4p4", "fd_better"] > 0 > table.loc["d12w80h4p4", "params_better"]
    at.switch_page("lab/dashboard/tradeoff.py").run()
    assert at.selectbox(key="baseline").value == BASE


def test_the_baseline_of_a_link_is_marked_on_the_trade_off_and_told_in_its_hover_boxes(demo: Store) -> None:
    traces = chart(page("tradeoff", baseline=BASE), "tradeoff_chart")["data"]
    assert "the baseline" in {t.get("name") for t in traces}
    hovers = [h for t in traces for h in t.get("hovertext") or []]
    said = [h for h in hovers if f"Against {BASE}: " in h]
    assert len(said) == 13 and all(" better" in h or " worse" in h or " equal" in h for h in said)
    table = page("tradeoff", baseline=BASE, view="Table").dataframe[0].value.set_index("name")
    assert table.loc[BASE, "Frechet distance, % better"] == 0
    assert table.loc["d12w80h4p4", "Frechet distance, % better"] > 0 > table.loc["d12w80h4p4", "Parameters, % better"]


def test_the_gallery_begins_with_the_baseline_and_says_how_the_others_compare(demo: Store) -> None:
    at = page("gallery", models=["d12w80h4p4", BASE], baseline=BASE)
    (data,) = [json.loads(c.proto.json) for c in at.get("bidi_component")]
    first, second = data["columns"]
    assert first["title"] == BASE and not any("Against" in line for line in first["caption"])
    assert any(line.startswith(f"Against {BASE}: FD ") and "latency" in line for line in second["caption"])


def test_the_timings_are_held_against_the_baseline_of_the_same_conditions(demo: Store) -> None:
    at = page("devices", baseline=BASE)
    table = at.dataframe[0].value
    own = table[table["name"] == BASE].iloc[0]
    assert own["beside"] == 0
    other = table[(table["name"] != BASE) & table["beside"].notna()].iloc[0]
    assert other["beside"] == 100 * (1 - other["timing.p50"] / own["timing.p50"])


def test_the_budget_s_limits_stand_on_every_chart_of_their_unit(demo: Store) -> None:
    at = AppTest.from_file(str(APP), default_timeout=60)
    at.query_params["params_m"], at.query_params["latency_ms"] = "0.3", "1.5"
    at.run()
    assert [a["text"] for a in chart(at, "choose_chart")["layout"]["annotations"]].count("limit 1.5 ms") == 1
    for name, key in [("tradeoff", "tradeoff_chart"), ("devices", "timings_chart")]:
        at.switch_page(f"lab/dashboard/{name}.py").run()
        assert not at.exception, at.exception
        assert "limit 1.5 ms" in [a["text"] for a in chart(at, key)["layout"]["annotations"]]
