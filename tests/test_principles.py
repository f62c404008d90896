from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from lab import cost, principles
from lab.choose import Budget, candidates
from lab.cli import main
from lab.config import DiTConfig
from lab.principles import (
    alike,
    at_images,
    effects,
    fit,
    leave_one_out,
    matters,
    most_images,
    optimum,
    predicted,
    root_mean_square,
    sizes,
    suggest,
    untried,
)
from lab.results import Store, table_of

COMMITTED = Path(__file__).parent.parent / "results"
DEPTHS, SIZES = (2, 4, 6, 8, 12, 16), (1e5, 3e5, 1e6)
B = {"constant": 0.1, "size": -0.35, "aspect": -0.2, "aspect^2": 0.06}  # of `study`, about its own centre


def study(rng: np.random.Generator, *, between: float = 0.02, within: float = 0.0, seeds: int = 1, heads: float = 0.0,
          unfinished: float = 0.0, **columns: object) -> pd.DataFrame:  # fmt: skip
    """Rows of shapes on iso-parameter curves, with known effects on the logarithm of fd and known noise."""
    rows = []
    for params in SIZES:
        for k, depth in enumerate(DEPTHS):
            width, several = (params / (18 * depth)) ** 0.5, 2.0 ** (k % 2) if heads else 4.0
            rows += [{"params": params, "depth": float(depth), "width": width, "heads": several, "seed": float(seed),
                      "shape": f"d{depth}w{width:.0f}h{several:.0f}p4", "name": f"{depth}x{width:.0f}",
                      "unfinished": bool(unfinished) and k % 3 == 0} for seed in range(seeds)]  # fmt: skip
    frame = pd.DataFrame(rows)
    size = np.log(frame["params"]) - np.log(frame["params"]).mean()
    aspect = np.log(frame["depth"] / frame["width"])
    aspect -= aspect.mean()
    of_shape = dict(zip(frame["shape"].unique(), rng.normal(0, between, frame["shape"].nunique())))
    log = (B["constant"] + B["size"] * size + B["aspect"] * aspect + B["aspect^2"] * aspect**2
           + heads * np.log(frame["heads"] / frame["heads"].mode().iloc[0]) + unfinished * frame["unfinished"]
           + frame["shape"].map(of_shape) + rng.normal(0, within, len(frame)))  # fmt: skip
    frame = frame.assign(fd=np.exp(log), label=frame["name"], data="toy", extractor="cnn", samples=1000.0)
    frame = frame.assign(eval_seed=7.0, fd_reference="train", method_short="plain", images=400.0, time=False)
    return frame.assign(**columns)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def committed() -> Store:
    return Store(COMMITTED)


def committed_rows(store: Store, images: int) -> pd.DataFrame:
    """The committed twelve, whatever is trained meanwhile."""
    table = store.table()
    table = table[~table["label"].str.contains("400k|time")]
    return alike(candidates(at_images(table, store, images), store.reports(), Budget(method="plain")))[0]


# --- the fit ---


def test_known_effects_are_recovered_where_there_is_no_noise(rng: np.random.Generator):
    found = fit(study(rng, between=1e-9, heads=-0.1, unfinished=0.15))
    assert found.terms == (*B, "heads", "unfinished")  # two numbers of heads tell no bend
    assert np.allclose(found.b, [*B.values(), -0.1, 0.15], atol=1e-6)
    said = effects(found).set_index("change")["factor"]
    assert said.iloc[0] == pytest.approx(2**-0.35) and said.iloc[1] == pytest.approx(2 ** (1.5 * -0.2))
    assert said.iloc[2] == pytest.approx(said.iloc[1] ** -2) and said.iloc[4] == pytest.approx(math.exp(0.15))


@pytest.mark.slow
@pytest.mark.parametrize(("within", "seeds"), [(0.0, 1), (0.03, 3)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(within: float, seeds: int):
    rng, truth, held, new = np.random.default_rng(1), np.array([*B.values()]), [], []
    for _ in range(150):
        found = fit(study(rng, between=0.04, within=within, seeds=seeds))
        held.append(np.abs(found.b - truth) <= found.t * np.sqrt(np.diag(found.cov)))
        other = study(rng, between=0.04, within=within).iloc[[8]]
        guess = predicted(found, other).iloc[0]
        new.append(guess["low"] <= other["fd"].iloc[0] <= guess["high"])
    assert 0.90 <= np.mean(held) <= 0.99 and 0.90 <= np.mean(new) <= 1.0


def test_one_training_a_shape_is_ordinary_least_squares_and_says_that_seeds_are_not_measured(rng: np.random.Generator):
    rows = study(rng)
    found = fit(rows)
    assert math.isnan(found.within) and "not measured" in found.seeds and found.dof == len(rows) - 4
    assert math.sqrt(found.between) == pytest.approx(0.02, rel=0.5)


def test_several_seeds_are_the_mixed_model_of_statsmodels(rng: np.random.Generator):
    rows = study(rng, between=0.05, within=0.03, seeds=4)
    found = fit(rows)
    size = np.log(rows["params"]) - found.centre[0]
    aspect = np.log(rows["depth"] / rows["width"]) - found.centre[1]
    X = np.stack([np.ones(len(rows)), size, aspect, aspect**2], 1)
    theirs = sm.MixedLM(np.log(rows["fd"].to_numpy()), X, groups=rows["shape"].to_numpy()).fit(reml=True)
    assert np.allclose(found.b, theirs.fe_params, atol=1e-4)
    assert found.within == pytest.approx(theirs.scale, rel=0.02)
    assert found.between == pytest.approx(float(np.ravel(theirs.cov_re)[0]), rel=0.05)
    assert found.dof == 18 - 4, "seeds of one shape tell the terms no more than it does"


def test_seeds_of_one_shape_tell_the_spread_of_seeds(rng: np.random.Generator):
    rows = study(rng, between=0.01, within=0.05, seeds=6)
    one = rows["shape"] == rows["shape"].iloc[0]
    found = fit(rows[one | (rows["seed"] == 0)])
    assert math.sqrt(found.within) == pytest.approx(0.05, rel=0.6) and "Seeds spread by" in found.seeds


# --- refusals ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.iloc[:6], "6 shapes with a fd are too few to fit 4 coefficients"),
        (lambda r: r.iloc[:0], "no shape has a fd"),
        (lambda r: r.assign(extractor=["a", "b"] * 9), "extractor is a for"),
        (lambda r: r.assign(images=[400.0, 800.0] * 9), "several images"),
        (lambda r: r.assign(method_short=["plain", "reparam"] * 9), "several method_short"),
        (lambda r: r.assign(lr=[0.01, 0.02] * 9), "several lr"),
        (lambda r: pd.concat([r, r.iloc[:1]]), "of seed 0 is there twice"),
        (lambda r: r.assign(depth=2.0, width=r["depth"].iloc[0] * 20), "differ too little"),
    ],
)
def test_rows_that_can_not_be_fitted_are_refused(rng: np.random.Generator, change, words: str):
    with pytest.raises(ValueError, match=words):
        fit(change(study(rng)))


def test_a_setting_may_differ_where_that_is_said(rng: np.random.Generator):
    rows = study(rng, lr=[0.01, 0.02] * 9)
    assert fit(rows, differ=["lr"]).dof == 14
    with pytest.raises(ValueError, match="unknown term 'width'"):
        fit(rows, terms=["width"])


def test_alike_keeps_the_most_common_training_and_names_what_it_left_out(rng: np.random.Generator):
    rows = study(rng, lr=[0.01] * 15 + [0.02] * 3)
    rows.loc[0, "method_short"], rows.loc[1, "shape"] = "reparam", "d4w40h4p4time"
    kept, said = alike(rows)
    assert len(kept) == 13 and len(said) == 1 and "3 of another lr than 0.01" in said[0]
    assert alike(rows.iloc[:0])[0].empty


def test_a_checkpoint_on_the_way_is_no_second_training_of_its_seed(rng: np.random.Generator):
    rows = study(rng)
    early = rows.assign(fd=rows["fd"] * 1.1, unfinished=True)
    early.loc[0, "seed"] = 1.0
    kept, _ = alike(pd.concat([rows, early], ignore_index=True))
    assert len(kept) == len(rows) + 1 and kept[kept["unfinished"]]["shape"].tolist() == [rows["shape"][0]]


def test_the_effect_of_heads_may_bend_and_differ_with_the_aspect(rng: np.random.Generator):
    rows = study(rng, between=1e-9)
    rows["heads"] = [(4.0, 1.0, 8.0, 4.0, 2.0, 4.0)[k % 6] for k in range(len(rows))]
    more = np.log(rows["heads"] / 4)
    aspect = np.log(rows["depth"] / rows["width"])
    rows["fd"] *= np.exp(-0.07 * more + 0.06 * more**2 + 0.05 * more * (aspect - aspect.mean()))
    found = fit(rows)
    assert found.terms == (*B, "heads", "heads^2", "heads x aspect")
    assert np.allclose(found.b, [*B.values(), -0.07, 0.06, 0.05], atol=1e-6)
    said, double = effects(found).set_index("change")["factor"], math.log(2)
    assert said["heads x2 to 4, same shape"] == pytest.approx(math.exp(-0.07 * double - 0.06 * double**2))
    assert said["heads x2 to 8, same shape"] == pytest.approx(math.exp(-0.07 * double + 0.06 * double**2))
    assert optimum(found, 1e5).aspect == pytest.approx(optimum(fit(study(rng, between=1e-9)), 1e5).aspect, rel=1e-6)


def test_heads_of_one_shape_alone_have_no_effect_that_could_be_told(rng: np.random.Generator):
    rows = study(rng)
    rows.loc[3, "heads"] = 2.0
    found = fit(rows)
    assert "heads" not in found.terms and rows["name"][3] in found.notes[0]


# --- leaving one out, the optimum, the curves ---


@pytest.mark.parametrize("seeds", [1, 2])
def test_leaving_one_out_is_refitting_without_it(rng: np.random.Generator, seeds: int):
    rows = study(rng, within=0.02, seeds=seeds)
    found = fit(rows)
    errors = leave_one_out(found)
    assert len(errors) == rows["shape"].nunique()
    shape = rows["shape"].unique()[7]
    mine = rows[rows["shape"] == shape]
    by_hand = predicted(fit(rows[rows["shape"] != shape]), mine).iloc[0]  # about another centre: the same surface
    assert errors.loc[7, "predicted"] == pytest.approx(by_hand["value"], rel=1e-4)
    assert errors.loc[7, "low"] == pytest.approx(by_hand["low"], rel=1e-3)
    assert errors.loc[7, "value"] == pytest.approx(math.exp(np.log(mine["fd"]).mean()))
    off = np.log(errors["predicted"] / errors["value"])
    assert root_mean_square(errors) == pytest.approx(math.exp(np.sqrt(np.mean(off**2))) - 1)


def test_an_optimum_between_tried_shapes_is_bracketed(rng: np.random.Generator):
    rows = study(rng, between=0.003)
    at = math.exp(np.log(rows["depth"] / rows["width"]).mean() + 0.2 / (2 * 0.06))
    found = optimum(fit(rows), 1e5)
    assert found.aspect == pytest.approx(at, rel=0.1) and found.low < at < found.high
    assert found.tried[0] < found.aspect < found.tried[1] and found.bracketed and found.inside


def test_a_shape_of_more_heads_is_no_neighbour_in_depth_over_width(rng: np.random.Generator):
    """Three more of the best shape that differ in heads, each far better or worse, say nothing of the aspect."""
    rows = study(rng, between=0.005)
    best = rows[rows["params"].eq(1e5)].sort_values("fd").iloc[0]
    more = [
        best.to_dict()
        | {
            "heads": heads,
            "fd": best["fd"] * (heads / 4) ** -0.4,
            "name": f"of {heads:.0f}",
            "shape": best["shape"].replace("h4", f"h{heads:.0f}"),
        }
        for heads in (1.0, 2.0, 8.0)
    ]
    found, alone = (optimum(fit(some), 1e5) for some in (pd.concat([rows, pd.DataFrame(more)]), rows))
    assert (found.best, found.bracketed, alone.bracketed) == (alone.best, True, True)
    edge = rows[rows["depth"].le(best["depth"])]
    assert not optimum(fit(pd.concat([edge, pd.DataFrame(more)])), 1e5).bracketed


def test_terms_are_tested_together_by_one_f_test(rng: np.random.Generator):
    found = fit(study(rng))
    model = sm.OLS(
        np.log(found.rows["fd"]), principles._matrix(found.rows, found.terms, found.centre, found.heads)
    ).fit()
    R = np.eye(len(found.terms))[[found.terms.index(name) for name in ("aspect", "aspect^2")]]
    assert matters(found, ("aspect", "aspect^2")) == pytest.approx(float(model.f_test(R).pvalue), rel=1e-6)


def test_an_optimum_at_the_edge_is_not_bracketed_and_said_so(rng: np.random.Generator):
    rows = study(rng, between=0.003)
    found = optimum(fit(rows[rows["depth"] <= 6]), 1e5)
    assert (
        not found.bracketed and not found.inside and found.best.startswith("6x") and "not bracketed" in found.sentence
    )
    none = optimum(fit(rows), 5e6)
    assert not none.bracketed and "no shape of this size" in none.sentence


def test_a_curve_that_is_not_surely_bent_has_its_optimum_anywhere(rng: np.random.Generator):
    rows = study(rng, between=0.5)
    found = optimum(fit(rows), 1e5)
    assert found.low == 0 and found.high > 1e6


@pytest.mark.slow
def test_fiellers_interval_holds_the_optimum_about_as_often_as_it_says():
    rng, held = np.random.default_rng(2), []
    for _ in range(150):
        rows = study(rng, between=0.05)
        at = math.exp(np.log(rows["depth"] / rows["width"]).mean() + 0.2 / (2 * 0.06))
        found = optimum(fit(rows), 1e5)
        held.append(found.low <= at <= found.high)
    assert 0.90 <= np.mean(held) <= 0.99


def test_a_shape_beyond_those_tried_is_flagged(rng: np.random.Generator):
    found = fit(study(rng))
    shapes = pd.DataFrame({"params": [3e5, 9e6, 3e5], "depth": [4.0, 4.0, 40.0], "width": [64.0, 350.0, 20.0],
                           "heads": [4.0, 4.0, 16.0]})  # fmt: skip
    beyond = predicted(found, shapes)["beyond"]
    assert beyond[0] == "" and "parameters" in beyond[1] and "depth 40" in beyond[2] and "16 heads" in beyond[2]


# --- shapes and their sizes ---


@pytest.mark.parametrize("classes", [0, 10])
def test_sizes_are_those_of_the_torch_code(classes: int):
    config = DiTConfig(depth=3, width=48, heads=4, mlp_hidden=136, num_classes=classes, channels=3)
    mine, theirs = sizes(config), cost.of_config(config)
    assert mine["params"] == theirs["params"] and mine["params_m"] == theirs["params_deployed"] / 1e6
    assert mine["macs_m"] == theirs["macs_deployed"] / 1e6
    assert mine["file_mb"] == pytest.approx(cost.deployed_mb(config), rel=0.03)


def test_untried_shapes_lie_between_those_tried_and_are_none_of_them(rng: np.random.Generator):
    rows = study(rng)
    rows.loc[0, ["depth", "width"]] = [4.0, 64.0]
    found = untried(rows, DiTConfig())
    assert found["depth"].between(2, 16).all() and not (found["width"] % 8).any()
    assert not found["shape"].duplicated().any()
    assert not ((found["depth"] == 4) & (found["width"] == 64)).any()


# --- the committed runs ---


@pytest.mark.parametrize("images", [400_000, 800_000])
def test_shapes_that_were_left_out_are_predicted(committed: Store, images: int, capsys: pytest.CaptureFixture):
    rows = committed_rows(committed, images)
    assert rows["shape"].nunique() >= 12
    for what, most in [("fd", 0.06), ("latency_ms", 0.25)]:
        errors = leave_one_out(fit(rows, what))
        assert np.isfinite(errors[["predicted", "low", "high", "error"]].to_numpy(float)).all()
        assert root_mean_square(errors) < most and errors["held"].mean() > 0.7
        with capsys.disabled():
            print(f"\n{what} at {images:,} images: {root_mean_square(errors):.1%} off, {errors['held'].sum()} of "
                  f"{len(errors)} within their interval")  # fmt: skip


def test_checkpoints_are_rows_of_their_own_images(committed: Store):
    table = committed.table()
    table = table[table["label"] == "12x40"]
    (late,), (early,) = (at_images(table, committed, n).to_dict("records") for n in (800_000, 400_000))
    assert not late["unfinished"] and late["fd"] == table["fd"].iloc[0]
    metrics = json.loads((COMMITTED / "runs" / early["run"] / "metrics.json").read_text())
    assert early["unfinished"] and early["fd"] == metrics["checkpoints"]["400000"]["fd"]["value"] > late["fd"]
    assert early["images"] == 400_000 and math.isnan(early["kid"]) and at_images(table, committed, 500_000).empty
    assert most_images(table) == 800_000, "of equally many the largest"


def test_a_suggestion_is_untrained_within_the_budget_and_marked_estimated(committed: Store):
    table, reports = committed.table(), committed.reports()
    budget = Budget(params_m=0.3, latency_ms=2.0)
    found = suggest(table, reports, committed, budget)
    pick = found.pick
    assert pick["shape"] not in set(table["shape"]) and pick["params_m"] <= 0.3 and pick["latency_ms"] <= 2.0
    assert pick["fd_low"] < pick["fd"] < pick["fd_high"] and found.text.startswith("Estimated") and not pick["beyond"]
    assert set(found.errors) == {"distance", "latency"} and all(0 < e < 0.3 for e in found.errors.values())
    prices = found.prices.set_index(["limit", "change"])
    assert prices.loc[("params_m", "raise"), "gain"] > 0 > prices.loc[("params_m", "lower"), "gain"]
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["estimated"] is True


def test_choose_gives_it_beside_the_best_trained_student(capsys: pytest.CaptureFixture):
    args = ["choose", "--params-m", "0.3", "--latency-ms", "2"]
    assert main([*args, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["pick"]["run"] and said["untrained"]["estimated"] and said["untrained"]["prices"]


def test_a_suggestion_is_refused_with_a_sentence(committed: Store):
    table, reports = committed.table(), committed.reports()
    with pytest.raises(ValueError, match="too few to fit"):
        suggest(table[table["label"].isin(["12x40", "4x40"])], reports, committed, Budget())
    with pytest.raises(ValueError, match="only fd"):
        suggest(table, reports, committed, Budget(metric="kid"))
    with pytest.raises(ValueError, match="no student of toy"):
        suggest(table_of(table), reports, committed, dataclasses.replace(Budget(), method="toy"))
    assert suggest(table, reports, committed, Budget(params_m=0.01)).pick is None
