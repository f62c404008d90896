from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lab.verdicts import compare, holm, spread

PLAIN = dict(enumerate([1.50, 1.53, 1.47, 1.55, 1.49, 1.52]))


def times(factors):
    return {seed: PLAIN[seed] * f for seed, f in enumerate(factors)}


def test_a_method_that_is_better_for_every_seed_helps():
    found = compare(times([0.90, 0.92, 0.89, 0.91, 0.93, 0.90]), PLAIN, cov=0.02)
    assert found.word == "helps" and found.ratio == pytest.approx(0.908, abs=1e-3)
    assert found.low < found.ratio < found.high < 1
    assert found.p_flip == pytest.approx(2 / 2**6)  # the smallest that six seeds can give
    d = np.log([0.90, 0.92, 0.89, 0.91, 0.93, 0.90])
    half = stats.t.ppf(0.975, 5) * d.std(ddof=1) / math.sqrt(6)
    assert math.log(found.high) - math.log(found.ratio) == pytest.approx(half)
    assert "helps: 0.91 times the distance" in found.sentence


def test_the_other_way_round_it_hurts():
    worse = times([0.90, 0.92, 0.89, 0.91, 0.93, 0.90])
    assert compare(PLAIN, worse, cov=0.02).word == "hurts"


def test_no_difference_is_said_only_by_equivalence_and_else_it_is_open():
    assert compare(times([1.003, 0.998, 1.001, 0.997, 1.002, 1.0]), PLAIN, cov=0.02).word == "no difference"
    assert compare(times([1.2, 0.85, 1.1, 0.9, 1.15, 0.8]), PLAIN, cov=0.02).word == "open"


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_few_seeds_give_a_direction_alone(seeds):
    factors = [0.8, 0.82, 0.81, 0.79, 0.8][:seeds]
    found = compare(times(factors), PLAIN, cov=0.02)
    assert found.word == "better in direction" and found.seeds == seeds
    assert math.isnan(found.low) == (seeds == 1)


def test_one_lucky_seed_is_no_help():
    assert compare(times([0.4, 1.0, 1.0, 1.01, 0.99, 1.0]), PLAIN, cov=0.02).word == "open"


def test_several_methods_are_corrected_for():
    found = holm({"a": 0.01, "b": 0.04, "c": math.nan})
    assert (found["a"], found["b"]) == (0.02, 0.04) and math.isnan(found["c"])


def test_what_can_not_be_compared_is_refused():
    with pytest.raises(ValueError, match="no seed is in both"):
        compare({7: 1.0}, PLAIN, cov=0.02)
    for wrong in (-1.0, math.inf):
        with pytest.raises(ValueError, match=f"above 0 and finite, got {wrong}"):
            compare({0: wrong}, PLAIN, cov=0.02)
    assert spread([1.0, 1.1, 0.9]) == pytest.approx(0.1) and math.isnan(spread([1.0]))


def test_equal_distances_have_no_direction():
    assert compare({0: 10.0}, {0: 10.0}, cov=0.01).word == "open"


def test_signs_of_many_seeds_are_drawn_by_chance_and_of_few_all_tried():
    gains = np.random.default_rng(0).normal(0.0, 0.05, 30)
    few, many = ({seed: math.exp(gain) for seed, gain in enumerate(gains[:n])} for n in (10, 30))
    signs = np.array(list(itertools.product((1, -1), repeat=10)))
    exact = (np.abs(signs @ gains[:10]) >= abs(gains[:10].sum()) - 1e-12).mean()
    assert compare(few, dict.fromkeys(few, 1.0), cov=0.01).p_flip == pytest.approx(exact)
    found = compare(many, dict.fromkeys(many, 1.0), cov=0.01)
    assert found.p_flip == pytest.approx(found.p_t, abs=0.05)  # of 2**30 signs 8,192
