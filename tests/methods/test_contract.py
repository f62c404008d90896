"""What every method must hold to; a new file in lab/methods is covered by being there."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from conftest import TINY_DIT

from lab import models
from lab.config import Recipe, Use
from lab.data import Batch, ImageSpec
from lab.methods import METHODS, create, finish, options_of
from lab.models.dit import Linear
from lab.train import answer

SPEC = ImageSpec(data="digits", size=8, channels=1, num_classes=10, sigma_data=0.7)
ASKING = sorted(name for name, cls in METHODS.items() if cls.asks)


def batch():
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(4, 1, 8, 8, generator=rng) * 2 - 1
    return Batch(image, torch.arange(4), torch.randn(4, 1, 8, 8, generator=rng))


def prepared(name: str):
    config = dataclasses.replace(TINY_DIT, time=name == "denoise")
    method = create(Use(name))
    torch.manual_seed(0)
    return method, method.prepare(models.build(config), SPEC, None, [])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_builds_from_nothing_and_survives_json(name):
    method = create(Use(name))
    assert method.paper, f"{name} must name its source"
    again = create(Use(name, json.loads(json.dumps(options_of(method)))))
    assert options_of(again) == options_of(method)
    recipe = Recipe(methods=(Use(name, options_of(method)),))
    assert Recipe.from_json(recipe.to_json()).id == recipe.id


@pytest.mark.parametrize("name", ASKING)
def test_its_loss_is_a_dict_of_finite_scalars_with_gradient(name):
    method, student = prepared(name)
    rng = torch.Generator().manual_seed(0)
    question = method.question(batch(), rng)
    step = answer(question, student, None, (set(), set()), sigma_data=0.7, progress=0.0, rng=rng)
    losses = method.loss(step)
    assert losses and all(v.ndim == 0 and torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    assert student.head.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", sorted(METHODS))
def test_finishing_gives_a_plain_network_and_leaves_the_live_one_alone(name):
    method, student = prepared(name)
    before = copy.deepcopy(student.state_dict())
    plain = finish(student, [method])
    assert plain.state_dict().keys() == models.build(student.config).state_dict().keys()
    assert not [m for m in plain.modules() if isinstance(m, Linear) and len(m.edits)]
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_runs_it_plans_are_all_different(name):
    recipe = Recipe(methods=(Use(name),))
    ids = [r.id for r in create(Use(name)).plan(recipe)]
    assert len(set(ids)) == len(ids) >= 1
