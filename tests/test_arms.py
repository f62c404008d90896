from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lab import arms
from lab.arms import COMPUTE, UNTESTED, calibration, verdicts
from lab.config import DiTConfig, Recipe, Use
from lab.results import Store, columns_of, table_of, write_json
from lab.verdicts import compare, spread

IMAGES, WALL, GUIDED = COMPUTE
FD = dict(enumerate([1.50, 1.53, 1.47, 1.55, 1.49, 1.52]))
GAINS = [0.90, 0.92, 0.89, 0.91, 0.93, 0.90]
BASE = {
    "data": "toy", "teacher": "run:unet", "pairs": 10.0, "batch": 64.0, "role": "student", "state": "done",
    "extractor": "cnn", "samples": 1000.0, "eval_seed": 7.0, "fd_reference": "train", "family": "dit", "patch": 4.0,
    "depth": 4.0, "width": 40.0, "heads": 4.0, "mlp_hidden": 96.0, "shape": "d4w40h4p4m96", "params": 1.0e5,
}  # fmt: skip
GET = {"family": "get", "depth": 2.0, "width": 32.0, "shape": "getd2w32h4p4g3x6", "params": 0.97e5, "heads": 4.0}


def run(method: str = "plain", seed: int = 0, factor: float = 1.0, steps: int = 6250, options: dict | None = None,
        **columns: object) -> dict[str, object]:  # fmt: skip
    extra = {} if method == "plain" else {method: options or {}}
    guide = "run:big" if method in ("teaching_assistant", "multi_in_one") else ""
    name = f"{method}-{columns.get('shape', '4x40')}-{steps}-{json.dumps(options)}-{seed}{columns.get('start', '')}"
    row = BASE | {"method_short": method, "options": json.dumps({"pairs": {"l1": 1.0}} | extra), "guide": guide}
    return row | {"run": name, "seed": float(seed), "steps": float(steps), "images": 64.0 * steps,
                  "fd": FD.get(seed, 1.5) * factor} | columns  # fmt: skip


def seeds(method: str = "plain", factors: list[float] | None = None, **more: object) -> list[dict[str, object]]:
    return [run(method, seed, f, **more) for seed, f in enumerate(factors or [1.0] * 6)]


def of(rows: list[dict[str, object]], calibration: object = None, **where: object) -> pd.Series:
    found = verdicts(table_of(rows), calibration)
    for name, value in where.items():
        found = found[found[name] == value]
    assert len(found) == 1, found
    return found.iloc[0]


def timed(*rows: tuple[dict[str, object], float, float]) -> dict[str, object]:
    return {"rows": [{"run": row["run"], "ms": 10.0 * over, "over_plain": over, "guide_seconds": guide}
                     for row, over, guide in rows]}  # fmt: skip


def test_runs_of_the_same_seed_are_paired_at_equal_images_and_get_the_verdict_of_verdicts():
    found = of(seeds() + seeds("teaching_assistant", GAINS), compute=IMAGES)
    assert (found["word"], found["seeds"], found["size"], found["twin"]) == ("helps", 6, "4x40", "4x40 plain")
    mine = {seed: FD[seed] * gain for seed, gain in enumerate(GAINS)}
    wanted = compare(mine, FD, cov=spread(list(FD.values())))
    assert all(
        found[name] == pytest.approx(getattr(wanted, name)) for name in ("ratio", "low", "high", "p_t", "margin")
    )
    assert (
        found["runs"][2] == "teaching_assistant-4x40-6250-null-2" and found["twin_runs"][2] == "plain-4x40-6250-null-2"
    )


@pytest.mark.parametrize("other", [{"pairs": 20.0}, {"lr": 0.1}, {"depth": 5.0, "params": 1.1e5},
                                   {"images": 5.0}, {"seed": 9.0}, {"samples": 10.0},
                                   {"start": ["big"]}])  # fmt: skip
def test_a_plain_run_that_differs_by_more_than_the_method_is_no_twin(other: dict[str, object]):
    found = of([run(), run("ternary", **other)], compute=IMAGES, method="ternary")
    assert found["word"] == UNTESTED and found["seeds"] == 0 and "no plain " in found["why_not"]


def test_a_guide_that_was_timed_beside_a_slower_plain_arm_costs_as_many_of_its_updates():
    """Two calibrations, the second on a machine of half the speed: 80 s of the guide there are 40 s on the first."""
    plain, ta = run(), run("teaching_assistant")
    table = [plain, ta, run(steps=12500, factor=0.8), run(steps=16500, factor=0.7)]
    slow = timed((plain, 1.0, 0.0), (ta, 2.0, 80.0))["rows"]
    known = {"rows": [row | {"ms": 2 * row["ms"]} for row in slow] + timed((plain, 1.0, 0.0))["rows"]}
    found = verdicts(table_of(table), known).set_index("compute")
    assert found["ratio"].to_dict() == pytest.approx({IMAGES: 1.0, WALL: 1 / 0.8, GUIDED: 1 / 0.7})
    assert found.loc[GUIDED, "guide_seconds"] == pytest.approx(40.0)


def test_what_was_timed_by_other_threads_than_plain_is_not_brought_to_its_clock(tmp_path: Path):
    plain, ta = run(), run("teaching_assistant")
    (tmp_path / "benchmarks").mkdir()
    write_json(tmp_path / "benchmarks" / "arms-a.json", timed((plain, 1.0, 0.0), (ta, 2.0, 80.0)) | {"threads": 2})
    write_json(tmp_path / "benchmarks" / "arms-b.json", timed((plain, 1.0, 0.0)) | {"threads": 1})
    known = calibration(Store(tmp_path))
    table = table_of([plain, ta, run(steps=12500, factor=0.8)])
    found = verdicts(table, known).set_index("compute")
    assert found["seeds"].to_dict() == {IMAGES: 1, WALL: 0, GUIDED: 0}
    assert found.loc[WALL, "why_not"].startswith("its updates are not timed")
    for row in known["rows"]:
        row["threads"] = 1
    assert verdicts(table, known).set_index("compute").loc[WALL, "seeds"] == 1


@pytest.mark.parametrize("rest", [{"iterations": 1}, {"tied": 2}])
def test_networks_of_one_shape_that_differ_in_the_rest_are_arms_of_their_own(rest: dict[str, object]):
    """In whatever order: neither set of seeds takes the other's place."""
    net = {"iterations": 6, "tied": 3}
    here = seeds(factors=[0.8] * 6, **GET, net=json.dumps(net))
    there = seeds(factors=[1.6] * 6, **GET | {"net": json.dumps(net | rest)})
    there = [row | {"run": row["run"] + "other"} for row in there]
    for rows in (here + there, there + here):
        found = verdicts(table_of(seeds() + rows)).query("compute == @IMAGES")
        assert sorted(found["ratio"]) == pytest.approx([0.8, 1.6])


def test_an_unconditional_run_is_no_twin_of_one_with_classes():
    mine = run("ternary", num_classes=10.0)
    found = of([run(num_classes=0.0), mine], compute=IMAGES)
    assert found["word"] == UNTESTED
    assert of([run(num_classes=0.0), run(num_classes=10.0, run="a", factor=2.0), mine], compute=IMAGES)["ratio"] == 0.5


def test_a_method_that_renames_the_shape_is_on_the_clock_of_the_plain_arm_it_was_timed_beside():
    """Timed at twice plain's time on a machine of half the speed: 3,125 of its updates take plain's 6,250's time."""
    recipe = Recipe(data="toy", teacher="run:unet", pairs=10, student=DiTConfig(depth=4, width=40, heads=4))
    told = {"recipe": plain(recipe)}
    one, other = run(), run("dynamic", steps=3125, factor=1.4, shape="d4w40h4p4m96dynamic")
    slow = timed((one, 1.0, 0.0), (other, 2.0, 0.0))["rows"]
    known = {"rows": [row | told | {"ms": 2 * row["ms"]} for row in slow] + [timed((one, 1.0, 0.0))["rows"][0] | told]}
    found = of([one, other], known, compute=WALL)
    assert found["ratio"] == pytest.approx(1.4) and found["update_ratio"] == pytest.approx(2.0)


def test_equal_seconds_are_updates_times_what_they_take_and_the_guide_comes_on_top():
    plain, ta = run(), run("teaching_assistant")
    table = [plain, ta, run(steps=12500, factor=0.8), run(steps=16500, factor=0.7)]
    known = timed((plain, 1.0, 0.0), (ta, 2.0, 40.0))  # 62.5 s, and 125 s with 40 more of the guide
    found = verdicts(table_of(table), known).set_index("compute")
    assert found["ratio"].to_dict() == pytest.approx({IMAGES: 1.0, WALL: 1 / 0.8, GUIDED: 1 / 0.7})
    assert set(found["update_ratio"]) == {2.0} and set(found["guide_seconds"]) == {40.0}


def test_equal_seconds_wait_for_both_arms_to_be_timed():
    plain, ta = run(), run("teaching_assistant")
    for known, said in [(None, "its updates are not timed"), (timed((ta, 2.0, 0.0)), "its twin's updates are not"),
                        (timed((plain, 1.0, 0.0), (ta, 2.0, 0.0)), "no plain run within 5% of its seconds"),
                        ({"rows": [{"odd": 1}]}, "its updates are not timed")]:  # fmt: skip
        found = of([plain, ta], known, compute=WALL)
        assert found["word"] == UNTESTED and said in found["why_not"]


@pytest.mark.parametrize("wrong", [
    {"run": ["x"]}, {"run": None}, *({name: value} for name in ("ms", "over_plain", "guide_seconds")
    for value in (-2, math.nan, math.inf, 10**400, 1e308, True, "1", None)),
    {"ms": 0}, {"over_plain": 0}, {"ms": 5e-324},
])  # fmt: skip
def test_a_wrong_row_of_a_calibration_is_passed_over(wrong: dict[str, object]):
    plain, ta = run(), run("teaching_assistant")
    known = timed((plain, 1.0, 0.0), (ta, 1.0, 0.0))
    assert of([plain, ta], known, compute=WALL)["seeds"] == 1
    known["rows"][1] |= wrong
    found = of([plain, ta], known, compute=WALL)
    assert found["word"] == UNTESTED and "its updates are not timed" in found["why_not"]
    known["rows"].insert(0, {"run": ta["run"], "ms": 10.0, "over_plain": 1.0, "guide_seconds": 0.0})
    assert of([plain, ta], known, compute=WALL)["seeds"] == 1


def test_an_arm_is_calibrated_by_a_recipe_that_was_timed_and_never_trained():
    recipe = Recipe(data="toy", teacher="run:unet", pairs=10, student=DiTConfig(depth=4, width=40, heads=4), steps=9)
    ternary = recipe.with_(methods=(Use("pairs"), Use("ternary")))
    known = {"rows": [{"run": r.id, "ms": 10.0, "over_plain": over, "guide_seconds": 0.0, "recipe": plain(r)}
                      for r, over in [(recipe, 1.0), (ternary, 2.0)]]}  # fmt: skip
    rows = [run() | columns(recipe) | {"fd": 1.5}, run("ternary") | columns(recipe, "ternary", steps=4) | {"fd": 1.4}]
    known["rows"] *= 2  # by two files
    assert of(rows, known, compute=WALL)["word"] == UNTESTED  # 4 updates of 2 are no 9 of 1
    rows[1] |= columns(recipe, "ternary", steps=4.5)
    assert of(rows, known, compute=WALL)["ratio"] == pytest.approx(1.4 / 1.5)


def plain(recipe: Recipe) -> dict[str, object]:
    return json.loads(recipe.to_json())


def columns(recipe: Recipe, *methods: str, steps: float = 9) -> dict[str, object]:
    made = recipe.with_(methods=(Use("pairs"), *map(Use, methods)))
    return columns_of(made, made.student) | {"steps": steps, "images": steps * made.batch}


def test_a_student_of_another_family_is_held_against_plain_dits_of_its_size():
    large = {"shape": "d12w64h4p4", "depth": 12.0, "width": 64.0, "params": 1e6}
    found = of([*seeds(), run(**large), *seeds(factors=[1.2 + gain for gain in GAINS], **GET)], compute=IMAGES)
    assert (found["method"], found["word"], found["twin"], found["size"]) == ("get", "hurts", "4x40 plain", "2x32")
    alone = of([run(**large), run(**GET)], compute=IMAGES)
    assert alone["word"] == UNTESTED and "within 5% of its parameters" in alone["why_not"]


def test_a_shape_that_no_plain_run_has_is_held_against_one_of_its_size_depth_and_heads_from_nothing():
    pruned = run("ternary", factor=1.2, start=["12x40"], mlp_hidden=104.0, params=1.03e5)
    deeper = run(factor=0.5, shape="d8w24h4p4", depth=8.0, width=24.0)
    more_heads = run(factor=0.6, shape="d4w40h8p4m96", heads=8.0)
    found = of([run(), deeper, more_heads, pruned], compute=IMAGES)
    assert found["ratio"] == pytest.approx(1.2) and found["twin"] == "4x40 plain"
    assert of([deeper, pruned], compute=IMAGES)["twin"] == "8x24 plain"  # none of its depth
    same_shape_of_another_start = run(mlp_hidden=104.0, params=1.03e5, start=["8x24"])
    assert of([run(), same_shape_of_another_start, pruned], compute=IMAGES)["word"] == UNTESTED


def test_a_stage_before_that_was_never_measured_gives_its_method_s_name_and_a_measured_start_does_not():
    search, whole = run("depth_pruning", fd=math.nan), run("ternary", seed=1)
    found = verdicts(table_of([run(), search, whole, *(
        run("masked_features", start=[start["run"]], mlp_hidden=hidden, seed=seed)
        for seed, (start, hidden) in enumerate([(search, 104.0), (whole, 108.0)])
    )]))  # fmt: skip
    assert {"depth_pruning+masked_features", "masked_features"} <= set(found["method"])


def test_arms_of_one_method_are_told_apart_by_what_differs_from_the_most_common_one():
    usual = {"variant": "all", "features": 1.0}
    later = usual | {"norm": "place"}  # an option that came after the others were kept
    others = [run("multi_in_one", options=one) for one in (later, {"variant": "agg", "features": 0.0})]
    found = verdicts(table_of([run(), *others, *(run("multi_in_one", options=usual, seed=seed) for seed in (0, 1))]))
    assert set(found["method"]) == {"multi_in_one", "multi_in_one (norm place)",
                                    "multi_in_one (features 0, variant agg)"}  # fmt: skip


def test_of_two_arms_of_as_many_runs_the_one_of_the_least_distance_has_the_bare_name():
    heavy, light = (run("manifold", factor=f, options={"beta": beta}) for beta, f in ((1.0, 1.5), (0.1, 1.1)))
    assert set(verdicts(table_of([run(), heavy, light]))["method"]) == {"manifold", "manifold (beta 1)"}


def test_several_methods_of_one_shape_are_corrected_for_by_holm_where_they_have_seeds_enough():
    one, two = seeds("manifold", GAINS), seeds("reparam", [0.97, 0.99, 1.01, 0.98, 0.96, 1.0])
    alone = [of(seeds() + some, compute=IMAGES)["p_t"] for some in (one, two)]
    both = verdicts(table_of(seeds() + one + two + [run("ternary", factor=0.5)]))
    both = both[both["compute"] == IMAGES].set_index("method")
    assert both["p_t"][["manifold", "reparam"]].tolist() == pytest.approx([2 * alone[0], alone[1]])
    assert math.isnan(both["p_t"]["ternary"]) and both["word"]["ternary"] == "better in direction"


def test_blocks_of_another_kind_are_a_method_beside_the_plain_ones():
    found = of([run(), run(factor=0.9, shape="d4w40h4p4m96time")], compute=IMAGES)
    assert (found["method"], found["twin"]) == ("time blocks", "4x40 plain")


def test_a_finish_is_held_against_as_many_images_more_of_plain_training_from_the_same_start():
    longer, drifting = (run(m, factor=f, start=["small"]) for m, f in (("plain", 0.99), ("drifting", 0.8)))
    found = of([run(), longer, drifting], compute=IMAGES)
    assert found["ratio"] == pytest.approx(0.8 / 0.99) and found["method"] == "drifting"


def test_seeds_of_a_finish_are_trainings_of_their_own_only_where_their_starts_are():
    """Six finishes of one run tell a direction; of six runs of one recipe a verdict, each beside that of its start."""

    def finishes(starts: list[str]) -> list[dict[str, object]]:
        plain = [run(seed=k, steps=1500, start=[start]) for k, start in enumerate(starts)]
        return plain + [run("drifting", k, GAINS[k], steps=1500, start=[start]) for k, start in enumerate(starts)]

    begun = [run(seed=k) | {"run": f"start{k}"} for k in range(6)]
    one = of(begun + finishes(["start0"] * 6), compute=IMAGES, method="drifting")
    assert (one["seeds"], one["word"]) == (6, "better in direction") and one["high"] < 1
    six = of(begun + finishes([f"start{k}" for k in range(6)]), compute=IMAGES, method="drifting")
    assert (six["seeds"], six["word"], six["ratio"]) == (6, "helps", pytest.approx(one["ratio"]))
    crossed = [row | ({"start": ["start5"]} if row["method_short"] == "plain" and row["start"] == ["start0"] else {})
               for row in finishes([f"start{k}" for k in range(6)])]  # fmt: skip
    assert of(begun + crossed, compute=IMAGES, method="drifting")["seeds"] == 5
    other = [begun[0] | {"steps": 12500.0}, *begun[1:]]
    assert sorted(verdicts(table_of(other + finishes([f"start{k}" for k in range(6)])))
                  .query("compute == @IMAGES and method == 'drifting'")["seeds"]) == [1, 5]  # fmt: skip


def test_another_family_may_have_a_rate_of_its_own_which_its_name_tells():
    gets = [run(**GET, lr=rate) | {"run": f"get-{rate}", "fd": fd} for rate, fd in ((0.012, 3.0), (0.006, 1.8))]
    found = verdicts(table_of([run(lr=0.012), *gets]), timed((run(lr=0.012), 1.0, 0.0), (gets[0], 1.0, 0.0)))
    found = found[found["compute"] == WALL].set_index("method")
    assert found["ratio"].to_dict() == pytest.approx({"get": 1.2, "get (rate 0.012)": 2.0})


def test_without_seeds_of_the_plain_arm_no_margin_is_known():
    found = of(seeds()[:1] + seeds("manifold", GAINS)[:1], compute=IMAGES)
    assert np.isnan(found["margin"]) and found["seeds"] == 1


def test_what_was_timed_stands_in_one_file_or_several(tmp_path):
    one, two, three = ({"run": name} for name in "abc")
    for name, rows in [("arms", [one]), ("arms-neighbours", [two, 3, three]), ("arms-broken", {"no": "list"})]:
        write_json(tmp_path / "benchmarks" / f"{name}.json", {"rows": rows, "threads": 2})
    assert arms.calibration(Store(tmp_path)) == {"rows": [row | {"threads": 2} for row in (two, three, one)]}


def test_an_objective_of_its_own_is_no_plain_training():
    made = Recipe(
        data="toy", student=DiTConfig(time=True), methods=(Use("progressive"),), guide="run:big", sampler="ddim-4"
    )
    assert columns_of(made, made.student)["method_short"] == "progressive"
    assert columns_of(made.with_(methods=(Use("denoise"),)), made.student)["method_short"] == "plain"


def test_an_empty_folder_has_no_arm(tmp_path):
    store = Store(tmp_path)
    assert verdicts(store.table(), arms.calibration(store)).empty
    assert list(verdicts(store.table())) == list(arms.COLUMNS)
