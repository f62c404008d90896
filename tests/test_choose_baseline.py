"""The answer in one sentence, and differences from a baseline."""

from __future__ import annotations

import math

import pytest
from test_choose import NONE, REPORTS, TABLE, timed

from lab import choose
from lab.choose import Budget, recommend
from lab.results import reports_of

ROWS = choose.with_latency(TABLE, REPORTS, choose.settle(TABLE, REPORTS, Budget()))
MIDDLE = ROWS[ROWS["name"] == "middle"].iloc[0].to_dict()


def test_the_sentence_has_size_time_times_the_teacher_and_one_step_dearer() -> None:
    answer = recommend(TABLE, REPORTS, Budget(params_m=0.35, latency_ms=1.5))
    assert choose.sentence(answer) == (
        "Ship middle: 0.30 M parameters, 1.0 ms here, 2.0 times its teacher's distance; nothing dearer is better."
    )
    answer = recommend(TABLE, REPORTS, Budget(latency_ms=1.5))
    assert choose.sentence(answer).endswith("; one step dearer buys 25 %.")  # 1.5 instead of 2.0
    assert "large needs 2.00 ms where the limit is 1.50 ms" in choose.in_short(answer)[-1].meaning


def test_the_sentence_leaves_out_what_nobody_knows() -> None:
    alone = TABLE[TABLE["role"] == "student"].reset_index(drop=True)
    said = choose.sentence(recommend(alone, NONE, Budget(params_m=0.35)))
    assert said == "Ship middle: 0.30 M parameters, distance 2.0; one step dearer buys 25 %."
    assert choose.sentence(recommend(TABLE, NONE, Budget(params_m=0.01))).startswith("Nothing fits at most 0.01 M")


def test_whose_clock_told_the_time_is_said() -> None:
    reports = reports_of([timed("middle", 1.0, provenance="imported"), timed("master", 40.0)])
    answer = recommend(TABLE, reports, Budget(params_m=0.35, latency_ms=1.5))
    assert "1.0 ms on bench, " in choose.sentence(answer)
    (time,) = [f.meaning for f in choose.in_short(answer) if " ms " in f.said]
    assert time.startswith("Half of its calls take at most 1.00 ms (0.900 to 1.10), of the network alone, on bench")


@pytest.mark.parametrize(("value", "said"), [(0.2134, "0.21"), (4.92, "4.9"), (9.96, "10"), (1240.4, "1,240")])
def test_brief_has_two_figures(value: float, said: str) -> None:
    assert choose.brief(value) == said


def test_better_is_above_zero_in_every_quantity() -> None:
    shares = choose.better_by(ROWS.assign(recall=ROWS["fd"], recall_reference="x"),
                              MIDDLE | {"recall": 2.0, "recall_reference": "x"},
                              ["fd", "latency_ms", "recall"]).set_index(ROWS["name"])  # fmt: skip
    assert shares.loc["small"].tolist() == pytest.approx([-0.5, 0.5, 0.5])  # 3.0 for 2.0, 0.5 ms for 1.0
    assert shares.loc["middle"].tolist() == [0, 0, 0]
    assert shares.loc["large"].tolist() == pytest.approx([0.25, -1.0, -0.25])


def test_values_of_other_conditions_are_not_held_against_each_other() -> None:
    assert choose.better_by(ROWS.assign(samples=500.0), MIDDLE, ["fd"])["fd"].isna().all()
    assert choose.better_by(ROWS.assign(threads=8.0), MIDDLE, ["latency_ms"])["latency_ms"].isna().all()
    assert choose.better_by(ROWS, MIDDLE | {"fd": 0.0}, ["fd"])["fd"].isna().all()
    assert choose.better_by(ROWS, MIDDLE | {"memory_mb": None}, ["memory_mb"])["memory_mb"].isna().all()


def test_differences_are_said_with_the_direction_that_is_better() -> None:
    said = dict(zip(ROWS["name"], choose.beside(ROWS, MIDDLE, ["fd", "params_m", "latency_ms"])))
    assert said["large"] == "Against middle: FD 25 % better, parameters 3.3 times worse, latency 2.0 times worse"
    assert said["middle"] == ""
    assert [choose.better_said(x) for x in (0.001, -0.2, math.nan, None)] == ["equal", "20 % worse", "", ""]
