"""A DiT that draws in many steps, distilled from a teacher's estimates, and what it then teaches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY_STUDENT, TINY_TEACHER

from lab import cost, diffusion, experiment, pairs, sampling, teachers
from lab.config import DiTConfig, Recipe, Use
from lab.methods import create
from lab.weights import load_student

SWEEPS = Path(__file__).parent.parent / "recipes" / "sweeps"

GUIDED = (Use("denoise"), Use("masked_features", {"features": 0.0}))
GUIDED_ALONE = (Use("denoise"), Use("masked_features", {"features": 0.0, "output": 1.0}))


def many_steps(block: str = "adaln") -> Recipe:
    shape = DiTConfig(image_size=8, patch=4, depth=2, width=16, heads=2, time=True, block=block)
    return TINY_TEACHER.with_(student=shape, methods=GUIDED, guide="tiny", teacher="tiny", sampler="heun-3")


@pytest.mark.parametrize("block", ["adaln", "time"])
def test_a_dit_learns_from_a_u_nets_estimates_and_draws_by_its_sampler(block, taught):
    run = experiment.run(many_steps(block).with_(steps=60, lr=1e-2), taught)
    last = run.log_rows()[-1]
    assert last["masked_features/output"] > 0 and last["denoise/mse"] > 0
    assert run.read("cost")["evaluations"] == 5 and run.read("metrics")["solver"] == "heun-3"
    net, x = load_student(run), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        clean, rough = (net(x, torch.full((2,), t), torch.tensor([1, 7])) for t in (-1.5, 1.0))
    assert (clean - rough).abs().max() > 1e-3  # it heeds the noise level


def test_only_estimates_are_learned_where_they_are_all_that_counts(taught):
    run = experiment.run(many_steps().with_(methods=GUIDED_ALONE), taught, measure=False)
    rows = run.log_rows()
    assert rows and not any(name.startswith("denoise/") for row in rows for name in row)


def test_it_is_a_teacher_of_pairs(taught):
    many = experiment.run(many_steps(), taught, measure=False)
    recipe = TINY_STUDENT.with_(teacher=f"run:{many.id}", solver="heun-3", pairs=32, steps=2)
    student = experiment.run(recipe, taught, measure=False)
    assert student.status().state == "done"
    made = pairs.Pairs(taught.root, pairs.pair_set(taught, many.id, "heun-3"))
    image, y, _ = pairs.make(made, teachers.load(many.id, taught, solver="heun-3"), range(2))
    assert torch.equal(image, sampling.load(many.id, taught).sample(made.seeds(range(2)), y))


def test_its_recipes_are_of_one_shape_each_taught_by_the_one_before():
    entries = [e for name in ("many-step", "few-step") for e in json.loads((SWEEPS / f"{name}.json").read_text())]
    recipes = [Recipe.from_json(json.dumps(entry["recipe"])) for entry in entries]
    assert {recipe.student for recipe in recipes} == {recipes[0].student}
    assert 0.9e6 < cost.of_config(recipes[0].student)["params"] < 1.1e6
    assert [diffusion.evaluations(recipe.drawn_by) for recipe in recipes] == [8, 4, 2, 1]
    for before, recipe in zip(entries, recipes[1:]):
        assert recipe.guide == before["label"] and recipe.start == (before["label"],)
        assert not [create(use).why_not(recipe) for use in recipe.methods if create(use).why_not(recipe)]
