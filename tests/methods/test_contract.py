"""What every method must hold to; a new file in lab/methods is covered by being there."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import shutil
import typing

import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT, TINY_TEACHER, stop_at
from safetensors.torch import load_file

from lab import compiler, deploy, experiment, guides, models, recorder
from lab.config import Recipe, Use
from lab.data import Batch, ImageSpec
from lab.methods import METHODS, Finished, Method, Roles, create, finish, options_of
from lab.models.dit import Linear
from lab.results import Store
from lab.train import Networks, Stopped
from lab.weights import load_student

SPEC = ImageSpec(data="digits", size=8, channels=1, num_classes=10, sigma_data=0.7)
GUIDE = dataclasses.replace(TINY_DIT, depth=4, width=32)  # deeper and wider than the student
PATH = 3
OPTIONS = {"class_split": {"experts": 2, "recover": 0.5}}  # a run for each expert


def batch() -> Batch:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(4, 1, 8, 8, generator=rng) * 2 - 1
    path = torch.rand(4, PATH, 1, 8, 8, generator=rng) * 2 - 1
    return Batch(image, torch.arange(4), torch.randn(4, 1, 8, 8, generator=rng), path, torch.arange(4))


def recipe_of(name: str) -> Recipe:
    """A recipe in which a method works: with an objective, a teacher, a guide and a start where it needs them."""
    cls = METHODS[name]
    time = name in ("denoise", "progressive")
    uses = (*(() if cls.objective else (Use("pairs"),)), Use(name, OPTIONS.get(name, {})))
    needs = cls.needs | METHODS[uses[0].method].needs
    recipe = TINY_STUDENT.with_(methods=uses, student__time=time)
    if not needs & {"pairs", "path"}:
        recipe = recipe.with_(teacher=None, pairs=0)
    return recipe.with_(sampler="ddim-2") if name == "progressive" else recipe


def filled(net: torch.nn.Module) -> torch.nn.Module:
    """A network none of whose weights are zero, so that every part of it speaks."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return net


def prepared(name: str, dtype: str = "float32") -> tuple[Networks, Roles]:
    recipe = recipe_of(name)
    methods = [create(use) for use in recipe.methods]
    needs = frozenset().union(*(m.needs for m in methods))
    guide = guide_of(methods, recipe, needs) if needs & {"guide", "denoiser"} else None
    starts = [Finished(recipe, filled(models.build(recipe.student)).eval())] if "starts" in needs else []
    student, roles = filled(models.build(recipe.student)), Roles(SPEC, guide, starts, sampler=recipe.drawn_by)
    for method in methods:
        student = method.prepare(student, roles)
    return Networks(student, methods, SPEC.sigma_data, guide, bfloat16=dtype == "bfloat16"), roles


def guide_of(methods: list[Method], recipe: Recipe, needs: frozenset[str]) -> guides.Guide:
    """Wider than the student, or as wide where a method compares blocks as they are."""
    student = guides.by_shape("student", recipe.student).net
    for width in (GUIDE.width, recipe.student.width):
        shape = dataclasses.replace(GUIDE, width=width, time=recipe.student.time or "denoiser" in needs)
        guide = guides.Guide("guide", filled(models.build(shape)), SPEC)
        with contextlib.suppress(ValueError):
            for method in methods:
                method.taps(student, guide)
            return guide
    raise AssertionError("no guide fits")


def look(nets: Networks, progress: float = 0.0, steps: int = 1):
    rng = torch.Generator().manual_seed(0)
    return nets.look(nets.objective.inputs(batch(), rng), progress=progress, rng=rng)


EVERY = pytest.mark.parametrize("name", sorted(METHODS))


@EVERY
def test_a_method_builds_from_nothing_and_survives_json(name):
    method = create(Use(name))
    assert method.paper, f"{name} must name its source"
    again = create(Use(name, json.loads(json.dumps(options_of(method)))))
    assert options_of(again) == options_of(method)
    recipe = Recipe(methods=(Use(name, options_of(method)),))
    assert Recipe.from_json(recipe.to_json()).id == recipe.id


@EVERY
def test_an_option_that_came_later_leaves_ids_alone(name):
    cls = METHODS[name]
    for key, value in cls.added_later.items():
        assert key in typing.get_type_hints(cls)
        assert create(Use(name)) == create(Use(name, {key: value}))
        assert key not in options_of(create(Use(name, {key: value})))


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_loss_is_finite_and_reaches_the_student_and_not_the_guide(name, dtype):
    nets, roles = prepared(name, dtype)
    step = look(nets)
    assert step.prediction.dtype == torch.float32
    assert all(tap.dtype == torch.float32 for tap in [*step.taps.kept.values(), *step.guide_taps.kept.values()])
    losses = nets.losses(step)
    assert losses and all(v.ndim == 0 and v.dtype == torch.float32 and torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    for part in [nets.student.head, *nets.student.blocks]:
        trained = [p for p in part.parameters() if p.requires_grad]
        assert not trained or any(p.grad is not None and p.grad.abs().max() > 0 for p in trained)
    assert any(p.requires_grad for p in nets.student.parameters())
    if roles.guide:
        assert all(p.grad is None for p in roles.guide.net.parameters())


@EVERY
def test_what_it_trains_and_throws_away_gets_a_gradient(name):
    nets, _ = prepared(name)
    sum(nets.losses(look(nets)).values()).backward()
    for method in nets.methods:
        for key, p in method.own.named_parameters():
            assert not p.requires_grad or p.grad is not None, f"{name}.own.{key} is never trained"


@EVERY
def test_finishing_gives_a_network_that_its_config_builds_and_leaves_the_live_one_alone(name):
    nets, _ = prepared(name)
    before = copy.deepcopy(nets.student.state_dict())
    net = finish(nets.student, nets.methods)
    config = dataclasses.replace(recipe_of(name).student)
    for method in nets.methods:
        config = method.ships(config)
    assert config == net.config  # as a later stage of a plan expects
    again = models.build(net.config)
    again.load_state_dict(net.state_dict(), strict=True)
    assert not [m for m in net.modules() if isinstance(m, Linear) and len(m.edits)]
    assert all(torch.equal(v, before[k]) for k, v in nets.student.state_dict().items())
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.1, -0.3]) if net.config.time else None
    y = torch.tensor([3, 7])
    with torch.no_grad():
        assert torch.equal(again.eval()(x, t, y), net(x, t, y))
    assert json.loads(json.dumps({m.name: m.facts(net) for m in nets.methods}))


# --- whole runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_guide(taught_root, tmp_path_factory):
    """A results folder with a teacher and its pairs, a guide for each kind of student, and a run to start from."""
    store = Store(tmp_path_factory.mktemp("contract") / "results")
    shutil.copytree(taught_root, store.root)
    torch.set_num_threads(1)
    one_step = TINY_STUDENT.with_(student=GUIDE, steps=4)
    as_wide = one_step.with_(student__width=TINY_DIT.width)
    many = TINY_TEACHER.with_(student=dataclasses.replace(GUIDE, time=True), steps=2)
    same = TINY_STUDENT.with_(steps=4, seed=9)
    for name, recipe in [("one-step guide", one_step), ("as wide", as_wide), ("denoiser", many), ("same shape", same)]:
        experiment.run(recipe, store, measure=False).set_notes(label=name)
    return store


@functools.cache
def whole_recipe(name: str, store: Store) -> Recipe:
    """The first guide and start with which it has no complaint."""
    recipe, wrong = recipe_of(name), []
    for guide in (None, "one-step guide", "as wide", "denoiser"):
        for start in ((), ("same shape",), ("one-step guide",)):
            with_both = recipe.with_(guide=guide, start=start)
            if not (said := experiment.check(with_both, store)):
                return with_both
            wrong.append(said)
    raise AssertionError(f"{name} works with no guide and start: {wrong}")


def weights(run):
    return load_file(run.path / "student.safetensors")


@EVERY
def test_a_run_of_it_stops_resumes_bit_for_bit_rebuilds_and_deploys(name, with_guide, monkeypatch):
    recipe = whole_recipe(name, with_guide)
    monkeypatch.setattr(recorder, "SNAPSHOTS", 2)
    whole = experiment.run(recipe.with_(seed=3), with_guide, measure=False)
    expected = weights(whole)
    net = load_student(whole)
    assert net.config == whole.config
    for run in {with_guide.get(job.recipe.id).path for job in experiment.plan(recipe.with_(seed=3), with_guide)}:
        for path in sorted(run.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()

    monkeypatch.setattr(recorder, "SAVE_EVERY_S", 0.0)
    stop_at(monkeypatch, 5)
    with pytest.raises(Stopped):
        experiment.run(recipe.with_(seed=3), with_guide, measure=False)
    again = experiment.run(recipe.with_(seed=3), with_guide, measure=False)
    found = weights(again)
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)
    student = again.read("student")
    assert student["params_train"] >= sum(p.numel() for p in net.parameters() if p.requires_grad)
    z, y = torch.randn(3, 1, 8, 8), torch.tensor([0, 4, 9])
    if not net.config.time:
        with torch.inference_mode():
            torch.testing.assert_close(deploy.deploy(net)(z, y), net(z, None, y), atol=1e-5, rtol=1e-4)


@EVERY
@pytest.mark.slow
@pytest.mark.skipif(compiler.missing() is not None, reason=f"needs {compiler.missing()}")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_compiled_run_of_it_learns_the_same(name, dtype, with_guide, monkeypatch):
    """By the graphs of forward and backward, where a method can break a compilation; their C++ takes half a minute for
    each, so that one method stands for all.
    """
    if name != "teaching_assistant":
        compile = torch.nn.Module.compile
        monkeypatch.setattr(torch.nn.Module, "compile", lambda net, **given: compile(net, backend="aot_eager", **given))
    recipe = whole_recipe(name, with_guide).with_(dtype=dtype, steps=4, seed=5)
    torch._dynamo.reset()
    plain = experiment.run(recipe, with_guide, measure=False)
    expected = plain.log_rows()
    shutil.rmtree(plain.path)
    rows = experiment.run(recipe, with_guide, measure=False, compute=experiment.Compute(compile=True)).log_rows()
    assert len(rows) == len(expected)
    for found, right in zip(rows[-1:], expected[-1:]):  # a run that only joins others logs nothing
        for key in right:
            if "/" in key:
                assert found[key] == pytest.approx(right[key], rel=0.1 if dtype == "bfloat16" else 0.02, abs=1e-3)


@EVERY
def test_what_it_plans_is_resolved_whole_before_any_of_it_runs(name, with_guide):
    recipe = whole_recipe(name, with_guide)
    if plans := METHODS[name].plan is not Method.plan:
        recipe = recipe.with_(guide=None)
    jobs = experiment.plan(recipe, with_guide)
    ids = [job.recipe.id for job in jobs]
    assert len(set(ids)) == len(ids) >= 1 + plans
    assert all(job.spec.shape == (1, 8, 8) for job in jobs)
    assert [job.recipe.id for job in experiment.plan(recipe, with_guide)] == ids


@pytest.mark.parametrize("name", sorted(n for n, m in METHODS.items() if "guide" in m.needs))
def test_where_it_can_not_work_it_says_why_before_any_work(name, with_guide):
    before = sorted(p for p in with_guide.root.rglob("*") if ".cache" not in p.parts)
    base = whole_recipe(name, with_guide)
    cases = {
        "unknown run 'nobody'": base.with_(guide="nobody"),
        "the student a one-step net: they can't be asked the same": base.with_(guide="denoiser"),
        f"guide is {base.guide}, but no method of this recipe asks it": base.with_(methods=(Use("pairs"),)),
        "student's num_classes is 0": base.with_(student__num_classes=0),
        "is a denoiser and the student a one-step net": base.with_(guide="tiny"),
    }
    for part, recipe in cases.items():
        with pytest.raises(ValueError, match=part):
            experiment.run(recipe, with_guide, measure=False)
    assert sorted(p for p in with_guide.root.rglob("*") if ".cache" not in p.parts) == before
