from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest

from lab import choose
from lab.choose import Budget, memory, recommend
from lab.config import DiTConfig
from lab.devices import predict
from lab.results import report_row, reports_of, table_of


def students(*rows: tuple[str, float, float], **columns: object) -> pd.DataFrame:
    """A store's table with students (shape, params in millions, fd) of one protocol and a teacher."""
    frame = pd.DataFrame(
        [
            {
                "run": f"toy-{shape}-pairs-{k:08d}",
                "label": f"toy-{shape}-pairs-{k:08d}",
                "data": "toy",
                "shape": shape,
                "method": "pairs",
                "role": "student",
                "state": "done",
                "family": "dit",
                "teacher": "master",
                "time": False,
                "aliases": [],
                "params": params * 1e6,
                "macs_image": params * 1e8,
                "file_mb": 2 * params,
                "fd": fd,
                "fd_low": fd - 0.05,
                "fd_high": fd + 0.05,
                "fd_reference": "toy train",
                "extractor": "cnn-1",
                "samples": 1000.0,
                "eval_seed": 7.0,
                "weights_sha256": f"hash-{shape}",
                "hide": False,
            }
            for k, (shape, params, fd) in enumerate(rows)
        ]
    )
    teacher = {"run": "toy-master", "label": "toy-master", "data": "toy", "shape": "unet", "method": "denoise",
               "role": "teacher", "state": "done", "family": "unet", "time": True, "aliases": ["master"],
               "params": 5e6, "fd": 1.0, "fd_reference": "toy train", "extractor": "cnn-1", "samples": 1000.0,
               "eval_seed": 7.0, "weights_sha256": "hash-master", "hide": False}  # fmt: skip
    frame = pd.concat([frame, pd.DataFrame([teacher])], ignore_index=True)
    return table_of(frame.assign(**columns))


def timed(shape: str, ms: float, **changes: object) -> dict[str, object]:
    """A row of the store's reports."""
    return {
        "report_id": f"{shape}-{ms}-{changes}", "created_utc": "2026-11-20T10:00:00Z", "provenance": "measured",
        "device.name": "bench", "software.runtime": "eager", "state.threads": 2, "state.throttled": False,
        "model.model_id": f"toy-{shape}", "model.weights_sha256": f"hash-{shape}", "model.precision": "fp32",
        "workload.scope": "core", "workload.batch": 1, "timing.p50": ms, "timing.p50_ci95": [ms * 0.9, ms * 1.1],
        "timing.p90": ms * 2, "timing.p99": ms * 3, "checks.output_ok": True, "grade": "C",
    } | changes  # fmt: skip


SMALL, MIDDLE, LARGE = ("small", 0.1, 3.0), ("middle", 0.3, 2.0), ("large", 1.0, 1.5)
TABLE = students(SMALL, MIDDLE, LARGE)
REPORTS = reports_of([timed("small", 0.5), timed("middle", 1.0), timed("large", 2.0), timed("master", 40.0)])
NONE = reports_of([])


def name(row: dict[str, object] | None) -> object:
    return row and row["name"]


# Two trainings of one form: `other` differs in its weights alone.
TWINS = pd.concat([TABLE, TABLE.iloc[[0]].assign(run="toy-other", label="other", fd=2.9, weights_sha256="hash-other")],
                  ignore_index=True)  # fmt: skip


def lent(*reports: dict[str, object], table: pd.DataFrame = TWINS) -> pd.Series:
    """The row of `other` under these reports."""
    found = choose.candidates(table, reports_of([*reports]), Budget(device="bench", threads=2, estimated=True))
    return found.set_index("run").loc["toy-other"]


def test_a_network_that_was_not_timed_has_the_float32_timings_of_another_of_its_form() -> None:
    row = lent(timed("small", 0.5), timed("small", 0.6, **{"created_utc": "2026-11-21T10:00:00Z"}), timed("large", 2.0))
    assert (row["latency_ms"], row["timed_as"], row["timings"]) == (0.6, "toy-small", 2)
    assert row["latency_low"] == pytest.approx(0.45) and row["latency_high"] == pytest.approx(0.66)
    answer = recommend(TWINS, reports_of([timed("small", 0.5), timed("middle", 1.0)]), Budget(latency_ms=0.7))
    assert name(answer.pick) == "other" and answer.pick["timed_as"] == "toy-small"
    assert "of toy-small, a network of the same form" in choose.timing_said(answer.pick)
    owner = answer.candidates.set_index("run").loc["toy-small-pairs-00000000"]
    assert (owner["latency_ms"], owner["timed_as"]) == (0.5, "")
    assert "same form" not in choose.timing_said(owner.to_dict())


def test_its_own_timing_comes_before_a_lent_one_and_a_lent_one_before_an_estimate() -> None:
    guess = timed("other", 0.1, provenance="estimated", grade="F")
    assert lent(timed("small", 0.5), timed("other", 0.9))[["latency_ms", "timed_as"]].tolist() == [0.9, ""]
    assert lent(timed("small", 0.5), guess)[["latency_ms", "timed_as"]].tolist() == [0.5, "toy-small"]
    assert lent(guess)["latency_ms"] == 0.1
    second = pd.concat([TWINS, TWINS.iloc[[-1]].assign(run="toy-second", label="second", weights_sha256="hash-second")])
    both = [guess, timed("second", 0.1, provenance="estimated", grade="F")]
    budget = Budget(device="bench", threads=2, estimated=True)
    found = choose.candidates(second, reports_of([timed("small", 0.5), *both]), budget)
    assert found.set_index("run")["latency_ms"].dropna().to_dict() == dict.fromkeys(
        ["toy-small-pairs-00000000", "toy-other", "toy-second"], 0.5)  # fmt: skip
    # nor is a guess of another network lent
    assert math.isnan(lent(timed("small", 0.1, provenance="estimated", grade="F"), timed("large", 2.0))["latency_ms"])


def test_what_rounds_a_network_is_not_lent() -> None:
    rounded = {"model.precision": "int8", "checks.max_abs_vs_ref": 0.01}
    assert lent(timed("small", 0.5), timed("small", 0.3, **rounded))["latency_ms"] == 0.5
    assert math.isnan(lent(timed("small", 0.3, **rounded), timed("large", 2.0))["latency_ms"])


@pytest.mark.parametrize("column", ["data", "evaluations", "depth", "heads", "net", "macs_deployed", "num_classes"])
def test_a_network_of_another_form_lends_nothing(column: str) -> None:
    changed = "another" if column in ("data", "net") else 3
    values = TWINS[column].astype(object).where(TWINS["run"].ne("toy-other"), changed)
    table = TWINS.assign(**{column: values.astype(TWINS[column].dtype)})
    assert math.isnan(lent(timed("small", 0.5), timed("large", 2.0), table=table)["latency_ms"])


# --- what is shipped ----------------------------------------------------------------------------


def test_a_size_limit_is_held_against_what_is_shipped_with_the_trained_figure_beside_it() -> None:
    folded = TABLE.assign(params_deployed=0.7 * TABLE["params"], macs_deployed=0.9 * TABLE["macs_image"],
                          file_mb_deployed=0.7 * TABLE["file_mb"])  # fmt: skip
    assert name(recommend(TABLE, NONE, Budget(params_m=0.25)).pick) == "small"
    answer = recommend(folded, NONE, Budget(params_m=0.25))
    assert name(answer.pick) == "middle"
    assert "0.210 M parameters (0.300 as trained)" in answer.headline and choose.SIZES_SAID in answer.text
    told = {"params_m": 0.21, "params_trained_m": 0.3, "file_mb": 0.42, "file_trained_mb": 0.6, "macs_m": 27,
            "macs_trained_m": 30}  # fmt: skip
    assert {column: answer.to_json()["pick"][column] for column in told} == pytest.approx(told)
    for size, trained in choose.AS_TRAINED.items():
        assert name(recommend(folded, NONE, Budget(**{size: told[size] * 1.01})).pick) == "middle"
        assert name(recommend(folded, NONE, Budget(**{size: told[size] * 0.99})).pick) == "small"
        assert trained in choose.QUANTITIES


def test_a_network_without_a_deployed_form_ships_as_it_was_trained() -> None:
    partly = TABLE.assign(params_deployed=[np.nan, 0.2e6, np.nan, np.nan])
    found = choose.candidates(partly, NONE, Budget()).set_index("shape")
    assert found["params_m"].tolist() == pytest.approx([0.1, 0.2, 1.0])
    answer = recommend(partly, NONE, Budget(params_m=0.15))
    assert answer.headline == "Ship small: FD 3.00 (2.95 to 3.05), 0.100 M parameters, 0.200 MB."
    assert choose.SIZES_SAID not in answer.text


# --- the front ----------------------------------------------------------------------------------


def beaten(values: np.ndarray, k: int) -> bool:
    return any((other <= values[k]).all() and (other < values[k]).any() for other in values)


@pytest.mark.parametrize("seed", range(5))
def test_the_front_holds_no_dominated_point_and_leaves_out_no_other(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 8, (60, 3))
    frame = pd.DataFrame(values, columns=["a", "b", "c"])
    expected = [not beaten(values, k) for k in range(len(values))]
    assert choose.front(frame, ["a", "b", "c"]).tolist() == expected


def test_what_is_maximised_counts_the_other_way() -> None:
    frame = pd.DataFrame({"cost": [1, 2, 2], "good": [1, 3, 2]})
    assert choose.front(frame, ["cost"], ["good"]).tolist() == [True, True, False]


def test_equal_points_share_the_front_and_a_missing_value_is_not_on_it() -> None:
    frame = pd.DataFrame({"a": [1, 1, math.nan], "b": [1, 1, 0]})
    assert choose.front(frame, ["a", "b"]).tolist() == [True, True, False]


def test_the_front_does_not_depend_on_the_order_of_rows() -> None:
    frame = pd.DataFrame(np.random.default_rng(0).integers(0, 6, (200, 3)), columns=["a", "b", "c"])
    shuffled = frame.sample(frac=1, random_state=1)
    assert choose.front(shuffled, ["a"], ["b", "c"]).sort_index().equals(choose.front(frame, ["a"], ["b", "c"]))


def test_a_front_of_two_thousand_is_found_whole() -> None:
    t = np.linspace(0, 1, 2000)
    assert choose.front(pd.DataFrame({"a": t, "b": 1 - t}), ["a", "b"]).all()


def test_the_knee_is_where_a_bent_front_turns() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 100.0], "y": [100.0, 90.0, 1.5, 1.0]})
    assert choose.knee(frame, "x", "y") == 2
    assert choose.knee(frame.iloc[:2], "x", "y") is None


def test_a_front_of_a_metric_where_more_is_better_has_its_knee_too() -> None:
    frame = pd.DataFrame({"params_m": [1.0, 2.0, 3.0, 100.0], "class_accuracy": [0.1, 0.2, 0.9, 0.95]})
    assert choose.knee(frame, "params_m", "class_accuracy") == 2


def test_the_knee_of_what_fits_is_named_with_what_it_costs() -> None:
    answer = recommend(students(("a", 0.1, 3.0), ("b", 0.2, 1.1), ("c", 1.0, 1.0), ("d", 2.0, 0.9)), NONE, Budget())
    assert (name(answer.pick), name(answer.knee)) == ("d", "b")
    assert answer.bend.startswith("b (FD 1.10 (1.05 to 1.15), 0.200 M parameters, 0.400 MB) is the knee of the front")
    assert "for the parameters they save" in answer.bend and answer.bend in answer.text
    assert json.loads(json.dumps(answer.to_json()))["knee"]["name"] == "b"
    few = recommend(TABLE, NONE, Budget(params_m=0.35))
    assert few.knee is None and few.bend == ""


def test_a_volume_is_that_of_the_boxes_without_what_they_share() -> None:
    assert choose.hypervolume(np.array([[1.0, 2.0]]), [3.0, 5.0]) == 6.0
    assert choose.hypervolume(np.array([[1.0, 3.0], [2.0, 1.0]]), [4.0, 4.0]) == 3 + 6 - 2
    assert choose.hypervolume(np.array([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]), [2.0, 2.0, 2.0]) == 4 + 2 - 1
    outside = np.array([[1.0, 3.0], [2.0, 1.0], [0.0, 4.0], [5.0, 0.0], [3.0, 3.0], [2.0, 1.0]])
    assert choose.hypervolume(outside, [4.0, 4.0]) == 7.0  # beyond the reference, beaten, twice the same
    assert choose.hypervolume(np.zeros((0, 2)), [1.0, 1.0]) == 0.0
    with pytest.raises(ValueError, match="reference"):
        choose.hypervolume(np.zeros((3, 2)), [1.0, 1.0, 1.0])


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_a_volume_agrees_with_inclusion_and_exclusion(columns: int, seed: int) -> None:
    points = np.random.default_rng(seed).random((7, columns))
    expected = sum(
        (-1) ** (count + 1) * np.prod(1 - np.max(some, axis=0))
        for count in range(1, 8) for some in itertools.combinations(points, count)
    )  # fmt: skip
    assert choose.hypervolume(points, [1.0] * columns) == pytest.approx(expected)


def test_the_covered_share_does_not_depend_on_units_and_knows_which_way_is_better() -> None:
    frame = pd.DataFrame({"params_m": [1.0, 2.0, 3.0], "class_accuracy": [0.7, 0.9, 0.9], "fd": [3.0, 1.0, np.nan]})
    share, corner = choose.covered(frame, ["params_m", "class_accuracy"])
    assert share == pytest.approx((1.1 * 0.1 + 0.6 * 1.0) / 1.21)
    assert corner == {"params_m": pytest.approx(3.2), "class_accuracy": pytest.approx(0.68)}
    assert choose.covered(frame.assign(params_m=frame["params_m"] * 1e6), ["params_m", "class_accuracy"])[0] == share
    assert choose.covered(frame.iloc[:1], ["params_m", "class_accuracy"]) is None
    assert choose.covered(frame.iloc[1:], ["params_m", "class_accuracy"]) is None  # nothing to trade


def test_a_point_is_beaten_by_those_that_are_better_on_all_axes() -> None:
    frame = choose.candidates(students(SMALL, ("worse", 0.2, 3.5)), NONE, Budget())
    worse = frame.loc[frame["shape"] == "worse", "run"].iloc[0]
    assert choose.dominators(frame, worse, ["params_m", "fd"])["shape"].tolist() == ["small"]


# --- the pick -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits, pick",
    [({}, "large"), ({"params_m": 0.35}, "middle"), ({"latency_ms": 0.7}, "small"), ({"file_mb": 0.6}, "middle"),
     ({"macs_m": 10}, "small"), ({"params_m": 0.3, "latency_ms": 1.0}, "middle")],
)  # fmt: skip
def test_the_pick_is_the_best_that_fits_and_a_limit_includes_its_value(limits: dict[str, float], pick: str) -> None:
    answer = recommend(TABLE, REPORTS, Budget(**limits))
    assert name(answer.pick) == pick
    assert answer.headline.startswith(f"Ship {pick}: FD ")


def test_runs_without_latency_count_while_no_latency_is_asked() -> None:
    assert name(recommend(TABLE, NONE, Budget(params_m=0.35)).pick) == "middle"
    answer = recommend(TABLE, REPORTS[REPORTS["model.model_id"] != "toy-middle"], Budget(params_m=0.35))
    assert name(answer.pick) == "middle" and answer.pick["latency_ms"] is None
    assert any("1 student not timed" in sentence and "middle" in sentence for sentence in answer.left_out)


def test_an_untimed_student_never_fits_a_latency() -> None:
    answer = recommend(TABLE, REPORTS[REPORTS["model.model_id"] != "toy-middle"], Budget(latency_ms=5))
    assert name(answer.pick) == "large"
    assert "latency not known" in answer.candidates.set_index("name").loc["middle", "why_not"]


def test_the_percentile_decides_what_fits() -> None:
    assert name(recommend(TABLE, REPORTS, Budget(latency_ms=1.2)).pick) == "middle"
    assert name(recommend(TABLE, REPORTS, Budget(latency_ms=1.2, percentile="p90")).pick) == "small"


def test_a_metric_where_more_is_better_picks_the_highest() -> None:
    table = TABLE.assign(class_accuracy=[0.9, 0.8, 0.7, 0.99], class_accuracy_reference="asked classes")
    answer = recommend(table, REPORTS, Budget(metric="class_accuracy"))
    assert name(answer.pick) == "small"
    assert "highest class accuracy" in answer.reason


def test_the_pick_does_not_depend_on_the_order_of_the_rows() -> None:
    table = students(("a", 0.3, 2.0), ("b", 0.2, 2.0), ("c", 0.3, 2.0))
    picks = {
        name(recommend(table.iloc[list(order)], NONE, Budget()).pick) for order in itertools.permutations(range(4))
    }
    assert picks == {"b"}  # the smaller of equals


def test_nothing_that_fits_gives_the_nearest_miss_per_limit() -> None:
    answer = recommend(TABLE, REPORTS, Budget(params_m=0.2, latency_ms=0.4))
    assert answer.pick is None
    assert answer.headline == "Nothing fits at most 0.2 M parameters and 0.4 ms p50."
    # Parameters alone can't be the miss: no student is faster than 0.4 ms.
    assert answer.misses[["limit", "name"]].values.tolist() == [["latency_ms", "small"]]
    assert "0.100 ms (25%) over" in answer.reason


def test_limits_that_none_meets_even_alone_still_name_the_nearest() -> None:
    answer = recommend(TABLE, REPORTS, Budget(params_m=0.05, latency_ms=0.1))
    assert answer.misses[["limit", "name"]].values.tolist() == [["params_m", "small"], ["latency_ms", "small"]]


def test_the_next_step_of_a_limit_is_the_cheapest_better_student() -> None:
    answer = recommend(TABLE, REPORTS, Budget(params_m=0.2))
    step = answer.marginal[answer.marginal["change"] == "raise"].iloc[0]
    assert (step["limit"], step["name"], step["to"]) == ("params_m", "middle", 0.3)
    assert step["gain"] == pytest.approx(1.0) and step["gain_per_unit"] == pytest.approx(10.0)


def test_lowering_a_limit_below_the_pick_shows_what_is_lost() -> None:
    answer = recommend(TABLE, REPORTS, Budget(params_m=0.35))
    step = answer.marginal[answer.marginal["change"] == "lower"].iloc[0]
    assert (step["name"], step["gain"]) == ("small", pytest.approx(-1.0))


# --- how sure -----------------------------------------------------------------------------------


def test_overlapping_intervals_are_a_tie_and_the_cheaper_is_named() -> None:
    answer = recommend(students(("a", 0.3, 2.0), ("b", 0.2, 2.05)), NONE, Budget())
    assert name(answer.pick) == "a"
    assert answer.sure.startswith("A tie within the error with 1 other (b)")
    assert "b is the cheapest of them, at 0.200 M instead of 0.300 M" in answer.sure


def test_intervals_apart_are_no_tie() -> None:
    assert "overlaps no other's" in recommend(TABLE, NONE, Budget()).sure


def test_without_an_interval_nothing_is_claimed() -> None:
    answer = recommend(TABLE.assign(fd_low=math.nan, fd_high=math.nan), NONE, Budget())
    assert answer.sure == "The error of FD was not measured, so the order may be chance."


def test_what_is_lost_is_said_against_the_best_student_and_the_teacher() -> None:
    answer = recommend(TABLE, REPORTS, Budget(params_m=0.35))
    assert "Against the best student, large (1.00 M, 2.00 ms): FD 2.00 instead of 1.50." in answer.loses
    assert (
        "Against its teacher: FD 2.00, 2.00 times 1.00. It is 40.0 times as fast as its teacher: "
        "1.00 ms by eager fp32, its teacher 40.0 ms by eager fp32." in answer.loses
    )


def test_a_speed_up_names_the_form_of_both_networks() -> None:
    faster = [timed("middle", 0.5, **{"software.runtime": "onnxruntime"}),
              timed("master", 20.0, **{"software.runtime": "compiled"})]  # fmt: skip
    answer = recommend(TABLE, pd.concat([REPORTS, reports_of(faster)]), Budget(params_m=0.35))
    assert "0.500 ms by onnxruntime fp32, its teacher 20.0 ms by compiled fp32." in answer.loses


def test_a_pick_is_held_against_its_own_teacher_whoever_taught_the_others() -> None:
    other = TABLE.iloc[[3]].assign(run="toy-other", label="toy-other", aliases=[["other"]], fd=0.5, weights_sha256="o",
                                   shape="another")  # fmt: skip
    table = pd.concat([TABLE.assign(teacher=["master", "other", "master", None]), other], ignore_index=True)
    answer = recommend(table, REPORTS, Budget(params_m=0.35))
    assert (name(answer.pick), answer.teacher["run"]) == ("middle", "toy-other")
    assert "Against its teacher: FD 2.00, 4.00 times 0.500." in answer.loses
    assert answer.pick["teacher_value"] == 0.5 and answer.pick["speed_up"] is None  # it was not timed
    assert recommend(table, REPORTS, Budget(params_m=0.01)).teacher["run"] == "toy-master"  # of the best student


# --- equal conditions ---------------------------------------------------------------------------


def test_another_protocol_is_left_out_and_named() -> None:
    table = TABLE.assign(samples=[1000.0, 1000.0, 500.0, 1000.0])
    answer = recommend(table, REPORTS, Budget())
    assert name(answer.pick) == "middle"
    assert "Left out: 1 run measured by another protocol (large)." in answer.left_out


def test_a_metric_has_a_protocol_of_its_own_beside_that_of_the_distance() -> None:
    table = choose.complete(TABLE.assign(samples=[500.0, 1000.0, 1000.0, 1000.0], class_accuracy=0.9,
                                         class_accuracy_reference="classes asked for"))  # fmt: skip
    few, many = (next(p for p in table["protocol"] if f" {n} samples" in p) for n in ("500", "1,000"))
    assert choose.protocol_for(table, few, "fd") == few
    assert choose.protocol_for(table, few, "class_accuracy") == "cnn-1, 500 samples, against classes asked for, seed 7"
    assert " 1,000 samples, against classes" in choose.protocol_for(table, many, "class_accuracy")
    assert choose.protocol_for(table, few, "kid") == ""


def test_a_protocol_whose_seed_was_not_recorded_has_the_metric_of_no_seed() -> None:
    table = choose.complete(TABLE.assign(eval_seed=[math.nan, math.nan, 7.0, 7.0], kid=0.1, kid_reference="toy train"))
    assert choose.protocol_for(table, table["protocol"][0], "kid").endswith("seed not recorded")


def test_a_teacher_measured_otherwise_is_not_compared() -> None:
    answer = recommend(TABLE.assign(samples=[1000.0, 1000.0, 1000.0, 500.0]), REPORTS, Budget())
    assert answer.teacher is None and "teacher: FD" not in answer.loses


def test_a_hidden_run_is_not_recommended() -> None:
    answer = recommend(TABLE.assign(hide=[False, False, True, False]), REPORTS, Budget())
    assert name(answer.pick) == "middle" and "Left out: 1 run hidden (large)." in answer.left_out


def test_a_wrong_image_is_never_counted_as_fast() -> None:
    broken = timed("large", 0.01, **{"software.runtime": "compiled", "checks.output_ok": False})
    for weak in (False, True):
        answer = recommend(TABLE, pd.concat([REPORTS, reports_of([broken])]), Budget(weak=weak))
        assert answer.pick["latency_ms"] == 2.0
        assert "Left out: 1 timing that drew a wrong image (large)." in answer.left_out


@pytest.mark.parametrize("flaw", [{"state.throttled": True}, {"grade": "D"}, {"grade": "E"}])
def test_weak_timings_count_only_where_allowed(flaw: dict[str, object]) -> None:
    reports = reports_of([timed("small", 0.5), timed("large", 0.3, **flaw)])
    assert name(recommend(TABLE, reports, Budget(latency_ms=1)).pick) == "small"
    assert name(recommend(TABLE, reports, Budget(latency_ms=1, weak=True)).pick) == "large"


def test_a_timing_that_only_varies_counts_and_the_answer_says_how_much() -> None:
    shaky = {"grade": "D", "unsteady": True, "timing.cv": 0.23, "timing.p90": 0.5}
    twice = [timed("large", ms, **shaky, created_utc=f"2026-01-0{day}T00:00:00+00:00")
             for day, ms in [(1, 0.4), (2, 0.3)]]  # fmt: skip
    answer = recommend(TABLE, reports_of([timed("small", 0.5), *twice]), Budget(latency_ms=1))
    assert name(answer.pick) == "large" and answer.pick["latency_ms"] == 0.3
    assert "varies by 23% from call to call (grade D): one in ten takes 0.500 ms or more" in answer.sure
    assert "2 timings with their errors span 0.270 to 0.440 ms" in answer.sure and answer.pick["latency_high"] >= 0.4
    steady = recommend(TABLE, reports_of([timed("large", 0.6), *twice]), Budget(latency_ms=1))
    assert steady.pick["latency_ms"] == 0.6 and "varies" not in steady.sure
    hot = reports_of([timed("small", 0.5), twice[0] | {"state.throttled": True}])
    assert name(recommend(TABLE, hot, Budget(latency_ms=1)).pick) == "small"


JETSON = {"device.name": "NVIDIA Jetson Orin Nano Developer Kit", "device.family": "jetson",
          "state.power_mode": "15W"}  # fmt: skip
ON_GPU = JETSON | {"device.gpu": "Orin", "software.runtime": "tensorrt"}
GUESS = {"provenance": "estimated", "grade": "F", "software.runtime": "unknown"}


def test_memory_is_what_the_report_of_the_same_conditions_says() -> None:
    told = REPORTS.assign(**{"memory.process_peak_mb": [90.0, 140.0, 400.0, 500.0],
                             "memory.system_delta_mb": [None, 160.0, 20.0, None],
                             "device.gpu": [None, "a GPU", None, None]})  # fmt: skip
    answer = recommend(TABLE, told, Budget(memory_mb=160))
    assert (name(answer.pick), answer.pick["memory_mb"]) == ("middle", 160.0)  # the larger of the two
    assert "Its memory is" not in answer.sure  # no report says how it was read
    read = recommend(TABLE, told.assign(**{"memory.method": "a process with torch"}), Budget(memory_mb=160))
    assert "Its memory is a process with torch." in read.sure
    assert "160 MB of memory" in answer.headline and "at most 160 MB of memory" in answer.reason
    assert answer.candidates.set_index("name").loc["large", "why_not"] == "400 MB is above 160"
    assert "Nearest on memory: small with 90.0 MB" in recommend(TABLE, told, Budget(memory_mb=80)).reason
    other = told.assign(**{"workload.batch": [1, 16, 1, 1]})
    answer = recommend(TABLE, other, Budget(memory_mb=160))
    assert name(answer.pick) == "small"
    assert "memory not known" in answer.candidates.set_index("name").loc["middle", "why_not"]


def test_what_others_took_meanwhile_is_no_memory_of_a_network_on_the_cpu() -> None:
    reports = reports_of({
        "memory.process_peak_mb": [400.0, 400.0, 400.0, None], "memory.allocator_peak_mb": [None, 30.0, 30.0, None],
        "memory.system_delta_mb": [900.0, 20.0, 20.0, 70.0], "device.gpu": [None, "Orin", "RTX 4090", None],
        "device.unified_memory": [None, True, None, None],
    })  # fmt: skip
    # A graphics card has memory of its own; where no process tells its own, the machine's is all that is known.
    assert memory(reports).tolist() == [400.0, 430.0, 400.0, 70.0]


LONG = {"memory.method": "ru_maxrss of the lab's own process, torch and all, since it began"}
FRESH = {"memory.method": "peak resident memory of a fresh process with onnxruntime alone that draws 3 times"}


def test_the_peak_of_a_process_that_did_other_things_before_is_no_memory_of_a_network() -> None:
    reports = reports_of({
        "memory.process_peak_mb": [880.0, 400.0, 62.0, None], "memory.allocator_peak_mb": [None, 30.0, None, None],
        "memory.system_delta_mb": [5.0, 20.0, 300.0, 70.0], "device.gpu": [None, "Orin", None, None],
        "device.unified_memory": [None, True, None, None],
        "memory.method": [*[LONG["memory.method"]] * 2, FRESH["memory.method"], "not told: a fresh process failed"],
    })  # fmt: skip
    assert memory(reports).isna().tolist() == [True, True, False, True] and memory(reports)[2] == 62.0


def test_students_whose_memory_was_read_in_a_long_process_are_left_out_with_the_reason() -> None:
    peak = {"memory.process_peak_mb": 90.0}
    reports = reports_of([timed("small", 0.5, **peak, **FRESH), timed("middle", 1.0, **peak, **LONG),
                            timed("large", 2.0)])  # fmt: skip
    answer = recommend(TABLE, reports, Budget(memory_mb=100))
    assert name(answer.pick) == "small" and answer.pick["memory_mb"] == 90.0
    assert ("Left out: 1 student whose memory was read in the lab's own process, which keeps what ran before; time "
            "again to know it (middle).") in answer.left_out  # fmt: skip
    assert "Left out: 1 student of which no report says the memory (large)." in answer.left_out
    assert not any("memory" in said for said in recommend(TABLE, reports, Budget()).left_out)
    again = pd.concat([reports, reports_of([timed("middle", 1.1, **peak, **FRESH, created_utc="2026-12-01")])])
    assert name(recommend(TABLE, again, Budget(memory_mb=100)).pick) == "middle"


def test_a_better_graded_timing_without_a_memory_has_that_of_another_of_its_form() -> None:
    silent = timed("small", 0.5, grade="A", **{"memory.process_peak_mb": 880.0}, **LONG)
    reports = reports_of([
        silent,
        timed("small", 0.6, grade="B", **{"memory.process_peak_mb": 63.0}, **FRESH),
        timed("small", 0.7, grade="B", created_utc="2026-11-19", **{"memory.process_peak_mb": 70.0}, **FRESH),
        timed("small", 0.8, **{"memory.process_peak_mb": 20.0, "model.precision": "int8"}, **FRESH),
    ])  # fmt: skip
    pick = recommend(TABLE, reports, Budget(memory_mb=100)).pick
    assert (pick["latency_ms"], pick["memory_mb"], pick["memory_method"]) == (0.5, 63.0, FRESH["memory.method"])
    alone = reports_of([silent, timed("small", 0.6, batch=4, **{"workload.batch": 4}, **FRESH)])
    assert recommend(TABLE, alone, Budget(memory_mb=100)).pick is None


def test_a_student_whose_memory_no_report_says_never_fits_a_limit_on_it() -> None:
    answer = recommend(TABLE, REPORTS, Budget(memory_mb=1e6))
    assert answer.pick is None and "No student has its memory told by a report" in answer.reason
    told = REPORTS.assign(**{"memory.process_peak_mb": [90.0, 140.0, None, 500.0]})
    answer = recommend(TABLE, told, Budget(memory_mb=1000))
    assert name(answer.pick) == "middle"
    assert "Left out: 1 student of which no report says the memory (large)." in answer.left_out


def test_of_a_student_s_runtimes_the_fastest_within_the_memory_counts() -> None:
    reports = reports_of(
        [
            timed("small", 1.0, **{"memory.process_peak_mb": 400.0}),
            timed("small", 2.0, **{"memory.process_peak_mb": 80.0, "software.runtime": "onnxruntime"}),
        ]
    )
    assert recommend(TABLE, reports, Budget(latency_ms=5)).pick["latency_ms"] == 1.0
    answer = recommend(TABLE, reports, Budget(latency_ms=5, memory_mb=100))
    assert (answer.pick["latency_ms"], answer.pick["runtime"]) == (2.0, "onnxruntime")
    assert recommend(TABLE, reports, Budget(latency_ms=1.5, memory_mb=100)).pick is None


def test_estimates_count_only_where_asked_for_whatever_else_is_allowed() -> None:
    reports = reports_of([timed("small", 0.5), timed("large", 0.3, **GUESS)])
    for weak in (False, True):
        answer = recommend(TABLE, reports, Budget(latency_ms=1, weak=weak))
        assert name(answer.pick) == "small"
        assert any("1 estimate that nobody measured" in said for said in answer.left_out)
    assert name(recommend(TABLE, reports, Budget(latency_ms=1, estimated=True)).pick) == "large"


def test_an_estimate_never_stands_before_a_timing_of_the_same_network() -> None:
    reports = reports_of([timed("small", 0.5), timed("small", 0.1, **GUESS)])
    (found,) = choose.timings(reports, Budget(estimated=True)).to_dict("records")
    assert found["latency_ms"] == 0.5 and found["provenance"] == "measured"


def test_estimates_do_not_settle_the_device() -> None:
    reports = reports_of([timed("small", 0.5), *(timed(n, 0.1, **GUESS | {"device.name": "card"})
                                                   for n in ("small", "large"))])  # fmt: skip
    for estimated in (False, True):
        assert choose.settle(TABLE, reports, Budget(estimated=estimated)).device == "bench"
    only = reports[reports["device.name"] == "card"]
    assert choose.settle(TABLE, only, Budget(estimated=True)).device == "card"


def estimates(key: str, *shapes: str) -> list[dict[str, object]]:
    """Rows of the store, of kept estimates from a card of the lab."""
    card = predict.card_of(key)
    return [report_row(predict.as_report(card, DiTConfig(), model={"weights_sha256": f"hash-{shape}"}))
            | {"report_id": f"{key}-{shape}"} for shape in shapes]  # fmt: skip


PI = {"device.name": "Raspberry Pi 5 Model B Rev 1.0", "device.family": "rpi", "state.threads": 4,
      "state.power_mode": "governor performance"}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "board", "called"),
    [("jetson-orin-nano-15w", JETSON, "NVIDIA Jetson Orin Nano Developer Kit, 15W"),
     ("jetson-orin-nano-15w", ON_GPU, "NVIDIA Jetson Orin Nano Developer Kit, 15W"),
     ("raspberry-pi-5", PI, "Raspberry Pi 5 Model B Rev 1.0, governor performance")],
)  # fmt: skip
def test_estimates_from_a_card_stand_for_what_was_not_timed_on_the_board_itself(
    key: str, board: dict[str, object], called: str
) -> None:
    reports = reports_of([timed("small", 90.0, **board), *estimates(key, "small", "middle", "large")])
    for asked in (Budget(estimated=True), Budget(estimated=True, device=called),
                  Budget(estimated=True, device=board["device.name"])):  # fmt: skip
        answer = recommend(TABLE, reports, asked)
        rows = answer.candidates.set_index("name")
        assert rows["provenance"].to_dict() == {"small": "measured", "middle": "estimated", "large": "estimated"}
        assert rows["grade"].to_dict() == {"small": "C", "middle": "F", "large": "F"}
        assert set(rows["device"]) == {called}  # else no chart would draw them on one axis
        assert rows.loc["small", "latency_ms"] == 90.0 and "nobody has timed it there" in answer.sure
    answer = recommend(TABLE, reports, Budget(device=called))
    assert set(answer.candidates["latency_ms"].dropna()) == {90.0}
    assert any("3 estimates that nobody measured" in said for said in answer.left_out)


@pytest.mark.parametrize("other", [
    JETSON | {"state.power_mode": "25W"}, JETSON | {"device.name": "NVIDIA Jetson AGX Orin Developer Kit"},
    {"device.name": "bench", "state.power_mode": "15W"},
])  # fmt: skip
def test_estimates_from_a_card_say_nothing_of_another_mode_or_board(other: dict[str, object]) -> None:
    reports = reports_of([timed("small", 9.0, **other), *estimates("jetson-orin-nano-15w", "middle", "large")])
    answer = recommend(TABLE, reports, Budget(estimated=True))
    assert set(answer.candidates["latency_ms"].dropna()) == {9.0}


def test_many_estimates_do_not_settle_the_threads_of_a_board_that_was_timed() -> None:
    reports = reports_of([timed("small", 9.0, **PI | {"state.threads": 1}),
                            *estimates("raspberry-pi-5", "small", "middle", "large")])  # fmt: skip
    answer = recommend(TABLE, reports, Budget(estimated=True))
    assert answer.budget.threads == 1 and set(answer.candidates["latency_ms"].dropna()) == {9.0}
    assert any("3 timings on the CPU with another number of threads than 1" in said for said in answer.left_out)
    assert choose.thread_counts(reports) == [1, 4]


def test_the_device_of_the_most_steady_timings_is_the_first() -> None:
    shaky = {"device.name": "cloud", "grade": "D", "unsteady": True}
    reports = reports_of([timed("small", 0.5), *(timed(n, 0.1, **shaky) for n in ("small", "large"))])
    assert choose.devices_by_trust(reports) == ["bench", "cloud"]
    assert choose.settle(TABLE, reports, Budget()).device == "bench"
    assert choose.devices_by_trust(reports[:0]) == []


# --- precisions that draw other images ---

COARSE = {"model.precision": "int8", "software.runtime": "onnxruntime"}
LOSS = {"artefact.max_abs": 0.2, "artefact.mean_abs": 0.01, "artefact.perceptual": 0.003, "artefact.images": 64}


def test_a_coarse_timing_counts_where_it_is_asked_for_and_its_images_are_known() -> None:
    reports = reports_of([timed("small", 0.5), timed("large", 2.0), timed("large", 0.3, **COARSE, **LOSS)])
    assert name(recommend(TABLE, reports, Budget(latency_ms=1)).pick) == "small"
    for precision in ("any", "int8"):
        answer = recommend(TABLE, reports, Budget(latency_ms=1, precision=precision))
        assert (name(answer.pick), answer.pick["timed_dtype"]) == ("large", "int8")
        assert "Its latency is that of int8, its distances are those of float32." in answer.loses
        assert "0.0100 off on average and 0.200 at most (of [-1, 1], 64 noises" in answer.loses
    assert recommend(TABLE, reports, Budget(precision="any")).candidates["off_max"].notna().any()


@pytest.mark.parametrize("precision", ["int8", "bf16", "fp16", "w4a32"])
def test_a_precision_whose_loss_of_images_nobody_measured_is_never_recommended(precision: str) -> None:
    reports = reports_of([timed("small", 0.5), timed("large", 0.3, **{"model.precision": precision})])
    answer = recommend(TABLE, reports, Budget(latency_ms=1, precision="any"))
    assert name(answer.pick) == "small"
    assert any("1 timing of a precision whose loss of images nobody measured (large)" in s for s in answer.left_out)


def test_the_images_of_the_timing_itself_are_known_by_their_largest_difference() -> None:
    reports = reports_of([timed("large", 0.3, **{"model.precision": "bf16", "checks.max_abs_vs_ref": 0.02})])
    answer = recommend(TABLE, reports, Budget())
    assert answer.pick["timed_dtype"] == "bf16" and "at most 0.0200 off" in answer.loses


def test_an_estimate_is_called_one_wherever_its_latency_stands() -> None:
    reports = reports_of([timed("small", 0.5), timed("large", 0.3, **GUESS), timed("master", 40.0)])
    answer = recommend(TABLE, reports, Budget(latency_ms=1, estimated=True))
    assert "0.300 ms p50 estimated" in answer.headline
    assert answer.sure.endswith("Its latency is an estimate, 0.270 to 0.330 ms (grade F): nobody has timed it there.")
    assert answer.pick["speed_up"] is None and "times as fast" not in answer.loses
    nearest = recommend(TABLE, reports, Budget(latency_ms=0.2, estimated=True))
    assert "large with 0.300 ms (estimated)" in nearest.reason
    step = recommend(TABLE, reports, Budget(latency_ms=1, params_m=5, estimated=True)).marginal
    assert set(step["note"]) <= {"", "estimated"}


def test_an_estimate_knows_no_other_percentile_and_that_is_said() -> None:
    guess = timed("large", 0.3, **GUESS, **{"timing.p90": None})
    answer = recommend(TABLE, reports_of([timed("small", 0.5), guess]), Budget(percentile="p90", estimated=True))
    assert any("1 estimate of p50, which says nothing about p90 (large)" in said for said in answer.left_out)


def test_a_boards_gpu_does_not_hide_behind_a_newer_timing_of_its_cpu() -> None:
    board = {"device.name": "Jetson", "software.runtime": "eager"}
    both = [timed("large", 2.0, **board, **{"device.gpu": "Orin"}),
            timed("large", 9.0, **board, **{"created_utc": "2027-01-01T00:00:00+00:00"})]  # fmt: skip
    found = choose.timings(reports_of(both), Budget(device="Jetson"))
    assert found["latency_ms"].tolist() == [2.0]


@pytest.mark.parametrize("threads", [6, None])
def test_the_timings_of_a_gpu_stand_beside_those_of_any_number_of_cpu_threads(threads: int | None) -> None:
    cpu = [timed(n, 9.0, **JETSON, **{"state.threads": 1}) for n in ("small", "middle", "large")]
    gpu = [timed(n, 0.6, **ON_GPU, **{"state.threads": threads}) for n in ("small", "middle", "large", "master")]
    reports = reports_of([*cpu, *gpu])
    assert choose.settle(TABLE, reports, Budget()).threads == 1  # that of most timings, but for the GPU's
    answer = recommend(TABLE, reports, Budget(latency_ms=5))
    assert (name(answer.pick), answer.pick["latency_ms"], answer.pick["runtime"]) == ("large", 0.6, "tensorrt")
    assert not any("threads" in said for said in answer.left_out)
    assert choose.settle(TABLE, reports[reports["device.gpu"].notna()], Budget()).threads is None


def test_what_another_number_of_threads_leaves_out_is_named() -> None:
    four = [timed("large", ms, **{"state.threads": 4}) for ms in (0.1, 0.2)]
    hot = timed("small", 0.1, **{"state.threads": 4, "state.throttled": True})
    reports = pd.concat([REPORTS, reports_of([*four, hot])])
    answer = recommend(TABLE, reports, Budget())
    assert "Left out: 2 timings on the CPU with another number of threads than 2 (large)." in answer.left_out
    assert any("1 timing on the CPU" in said for said in recommend(TABLE, reports[2:5], Budget(threads=2)).left_out)


def test_a_speed_up_names_the_processor_where_one_of_the_two_ran_on_a_gpu() -> None:
    on_gpu = {"device.name": "Jetson", "device.gpu": "Orin"}
    reports = reports_of([timed("large", 2.0, **on_gpu), timed("master", 30.0, **{"device.name": "Jetson"})])
    said = recommend(TABLE, reports, Budget(device="Jetson")).loses
    assert "2.00 ms by eager fp32 on the GPU, its teacher 30.0 ms by eager fp32 on the CPU." in said


def test_a_board_in_another_power_mode_is_another_device() -> None:
    board = {"device.family": "jetson", "device.name": "Orin"}
    modes = [timed("large", ms, **board, **{"state.power_mode": mode}) for ms, mode in [(2.0, "15W"), (1.0, "25W")]]
    reports = reports_of([timed("small", 0.5), *modes])
    assert set(choose.devices(reports)) == {"bench", "Orin, 15W", "Orin, 25W"}
    assert recommend(TABLE, reports, Budget(device="Orin, 15W")).pick["latency_ms"] == 2.0
    with pytest.raises(ValueError, match="'Orin' was timed in several power modes; choose one of: Orin, 15W; Orin"):
        recommend(TABLE, reports, Budget(device="Orin"))
    assert recommend(TABLE, reports.iloc[:2], Budget(device="Orin")).pick["latency_ms"] == 2.0


def test_the_known_precisions_are_those_of_the_reports_format() -> None:
    from lab.devices.report import schema

    known = schema()["properties"]["model"]["properties"]["precision"]["enum"]
    assert set(choose.PRECISIONS) - {"float", "any"} == set(known)


def test_a_latency_is_of_the_asked_device_batch_threads_scope_and_runtime() -> None:
    fast = [timed("large", 0.1, **{column: value}) for column, value in [
        ("device.name", "other"), ("workload.batch", 16), ("state.threads", 8), ("workload.scope", "e2e"),
        ("model.precision", "int8")]]  # fmt: skip
    reports = pd.concat([REPORTS, reports_of(fast)])
    assert recommend(TABLE, reports, Budget()).pick["latency_ms"] == 2.0
    compiled = timed("large", 0.4, **{"software.runtime": "compiled"})
    reports = pd.concat([reports, reports_of([compiled])])
    assert recommend(TABLE, reports, Budget()).pick["runtime"] == "compiled"
    assert recommend(TABLE, reports, Budget(runtime="eager")).pick["latency_ms"] == 2.0


def test_of_repeated_timings_the_best_graded_then_the_newest_counts_not_the_luckiest() -> None:
    again = [
        timed("large", 1.0, created_utc="2026-11-01T00:00:00Z"),
        timed("large", 3.0, created_utc="2026-11-25T00:00:00Z"),
    ]
    assert recommend(TABLE, pd.concat([REPORTS, reports_of(again)]), Budget()).pick["latency_ms"] == 3.0
    better = timed("large", 2.5, grade="A", created_utc="2026-10-01T00:00:00Z")
    assert recommend(TABLE, pd.concat([REPORTS, reports_of([*again, better])]), Budget()).pick["latency_ms"] == 2.5
    long = timed("large", 2.8, created_utc="2026-10-01T00:00:00Z", **{"runner.preset": "publishable"})
    assert recommend(TABLE, pd.concat([REPORTS, reports_of([*again, long])]), Budget()).pick["latency_ms"] == 2.8


def test_a_speed_up_compares_with_the_teacher_under_the_same_conditions() -> None:
    found = choose.candidates(TABLE, REPORTS, Budget()).set_index("name")
    assert found["speed_up"].to_dict() == {"small": 80.0, "middle": 40.0, "large": 20.0}
    assert choose.candidates(TABLE, REPORTS, Budget(runtime="compiled", device="bench"))["speed_up"].isna().all()


def test_the_metric_precision_is_not_mixed_up_with_a_timing() -> None:
    found = choose.candidates(TABLE.assign(precision=0.75, precision_reference="toy train"), REPORTS, Budget())
    assert found["precision"].tolist() == [0.75] * 3 and found["timed_dtype"].tolist() == ["fp32"] * 3


# --- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hole", ["", "params", "macs_image", "file_mb", "fd_low", "fd_high", "weights_sha256", "teacher", "eval_seed"]
)
def test_no_sentence_ever_holds_a_nan(hole: str) -> None:
    table = TABLE.assign(**{hole: None}) if hole else TABLE
    for budget, reports in [
        (Budget(), REPORTS),
        (Budget(), NONE),
        (Budget(params_m=0.35), REPORTS),
        (Budget(params_m=0.01, file_mb=0.01), REPORTS),
        (Budget(latency_ms=0.1), NONE),
    ]:
        answer = recommend(table, reports, budget)
        assert "nan" not in answer.text.lower() and "None" not in answer.text, (budget, answer.text)
        json.dumps(answer.to_json(), allow_nan=False)


def test_an_empty_store_gives_a_sentence() -> None:
    answer = recommend(table_of([]), NONE, Budget(params_m=1))
    assert (answer.pick, answer.headline) == (None, "Nothing to choose from.")


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"metric": "fdd"}, "unknown metric 'fdd'; did you mean 'fd'?"),
        ({"params_m": 0.0}, "params_m must be a number above 0, got 0"),
        ({"latency_ms": "2"}, "latency_ms must be a number above 0, got '2'"),
        ({"file_mb": True}, "file_mb must be a number above 0, got True"),
        ({"threads": 1.5}, "threads must be a whole number of at least 1, got 1.5"),
        ({"percentile": "p95"}, "unknown percentile 'p95'"),
        ({"batch": 0}, "batch must be a whole number of at least 1, got 0"),
        ({"precision": "int9"}, "unknown precision 'int9'; did you mean 'int8'?"),
    ],
)
def test_a_wrong_budget_is_a_sentence(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        Budget(**wrong)


def test_names_are_shapes_unless_two_share_one_or_a_person_gave_one() -> None:
    table = students(("d4", 0.1, 3.0), ("d4", 0.1, 3.1), ("d8", 0.3, 2.0), ("d2", 0.3, 2.0))
    table.loc[3, "label"] = "my favourite"
    assert choose.complete(table)["name"].tolist()[:4] == [
        "d4 pairs 00000000",
        "d4 pairs 00000001",
        "d8",
        "my favourite",
    ]


def test_the_starting_limits_lie_just_above_the_median_student() -> None:
    start = choose.start(TABLE, REPORTS, Budget())
    assert (start.params_m, start.latency_ms) == (0.35, 1.5)
    assert choose.start(TABLE, NONE, Budget()).latency_ms is None
    least = TABLE[TABLE["params_deployed"].eq(TABLE["params_deployed"].min())]
    ways = [least.assign(run=[f"{run}{k}" for run in least["run"]]) for k in range(9)]  # one shape
    assert choose.start(pd.concat([TABLE, *ways], ignore_index=True), NONE, Budget()).params_m == 0.35


def test_the_command_writes_only_what_is_not_taken_anyway() -> None:
    budget = choose.settle(TABLE, REPORTS, Budget(params_m=0.35, weak=True))
    assert choose.command(TABLE, REPORTS, budget) == "python -m lab choose --params-m 0.35 --weak"
    other = choose.settle(TABLE, REPORTS, Budget(device="my board"))
    assert choose.command(TABLE, REPORTS, other) == "python -m lab choose --device 'my board'"
