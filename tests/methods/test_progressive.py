from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY_STUDENT, TINY_TEACHER

from lab import bench, deploy, diffusion, experiment, metrics, pairs, sampling, teachers
from lab.config import DiTConfig, Recipe, Use
from lab.data import Batch, ImageSpec
from lab.devices.runner import Preset
from lab.methods import Roles, create
from lab.weights import load_student

SPEC = ImageSpec(data="digits", size=8, channels=1, num_classes=10, sigma_data=0.7)
MEAN, SPREAD = 0.3, 0.5
TIMED = DiTConfig(image_size=8, patch=4, depth=2, width=16, heads=2, time=True)
BRIEF = Preset(iters=3, seconds=0.0, warmup_iters=1, warmup_s=0.0, warmup_cap_s=0.01)
OF_TWO = TINY_TEACHER.with_(student=TIMED, methods=(Use("progressive"),), guide="tiny", sampler="ddim-2")


def gaussian(solver: str) -> SimpleNamespace:
    """The exact denoiser of images N(MEAN, SPREAD^2) as a guide that draws by a solver."""

    def D(x, sigma, y):
        s2 = sigma.view(-1, 1, 1, 1) ** 2
        return (SPREAD**2 * x + s2 * MEAN) / (SPREAD**2 + s2)

    class Guide(SimpleNamespace):
        __call__ = staticmethod(D)

    return Guide(name="gaussian", solver=solver, config=SimpleNamespace(num_classes=10))


def prepared(guide: str, sampler: str, **options):
    method = create(Use("progressive", options))
    method.prepare(None, Roles(SPEC, gaussian(guide), sampler=sampler))
    return method


def noisy(method, count: int = 64):
    rng = torch.Generator().manual_seed(0)
    image = MEAN + SPREAD * torch.randn(count, 1, 8, 8, generator=rng)
    return method.inputs(Batch(image, torch.arange(count) % 10), rng)


def end_of(inputs, levels):
    """The student's next level of each sample, (B, 1, 1, 1), and its own."""
    at = (levels[:, None] - inputs.sigma[None].double()).abs().argmin(0)
    return tuple(levels[i].view(-1, 1, 1, 1) for i in (at, at + 1))


def test_a_students_one_step_ends_where_its_guides_own_two_do():
    inputs, levels = noisy(prepared("ddim-4", "ddim-2")), diffusion.sigmas_of("ddim-4")
    s, end = end_of(inputs, levels[::2])
    between = torch.where(s > 10, levels[1], levels[3])
    x = inputs.x.double()
    for before, after in [(s, between), (between, end)]:  # Euler's steps of dx/dsigma = (x - D) / sigma
        x = x + (after - before) * (x - gaussian("")(x, before.flatten(), None)) / before
    landed = diffusion.ddim_step(inputs.x.double(), inputs.target.double(), s, end)
    torch.testing.assert_close(landed, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sampler", ["ddim-1", "ddim-2", "ddim-4"])
def test_a_guide_that_is_right_at_every_level_is_followed_along_its_ode(sampler):
    inputs, levels = noisy(prepared("dpmpp2m-8", sampler, path=128)), diffusion.sigmas_of(sampler)
    s, end = end_of(inputs, levels)
    scale = ((SPREAD**2 + end**2) / (SPREAD**2 + s**2)).sqrt()  # the exact solution from s to end
    exact = MEAN + (inputs.x.double() - MEAN) * scale
    landed = diffusion.ddim_step(inputs.x.double(), inputs.target.double(), s, end)
    torch.testing.assert_close(landed, exact, atol=2e-3, rtol=2e-3)
    rough = noisy(prepared("dpmpp2m-8", sampler, path=4 * (len(levels) - 1)))
    worse = diffusion.ddim_step(rough.x.double(), rough.target.double(), s, end)
    assert (worse - exact).abs().mean() > 4 * (landed - exact).abs().mean()


def test_a_student_learns_at_its_own_levels_alone_each_as_often():
    inputs = noisy(prepared("ddim-8", "ddim-4"), count=4000)
    seen, counts = inputs.sigma.unique(return_counts=True)
    torch.testing.assert_close(seen.flip(0).double(), diffusion.sigmas_of("ddim-4")[:-1], rtol=1e-6, atol=0)
    assert counts.min() > 900
    torch.testing.assert_close(inputs.weight, 1 / inputs.sigma**2 + 1 / 0.7**2, rtol=1e-4, atol=0)  # SNR + 1


@pytest.mark.parametrize(("changes", "part"), [
    ({"student__time": False, "sampler": None}, "progressive trains a net with time; set student.time to true"),
    ({"sampler": None}, "set sampler to ddim-4, say, got dpmpp2m-8"),
    ({"sampler": "heun-2"}, "set sampler to ddim-4, say, got heun-2"),
    ({"sampler": "ddim-0"}, "unknown solver 'ddim-0'"),
])  # fmt: skip
def test_a_recipe_that_it_can_not_do_is_refused_before_any_work(changes, part, taught):
    assert any(part in wrong for wrong in experiment.check(OF_TWO.with_(**changes), taught))


def test_a_sampler_is_of_students_that_denoise(taught):
    wrong = experiment.check(TINY_STUDENT.with_(sampler="ddim-2"), taught)
    assert wrong == ["sampler is ddim-2, and a one-step student has nothing to solve; leave it out"]


@pytest.mark.parametrize(("guide", "sampler", "part"), [
    ("ddim-3", "ddim-2", "guide gaussian draws by ddim-3, which ddim-2 does not divide; take 4"),
    ("ddim-2", "ddim-2", "guide gaussian draws by ddim-2"), ("heun-18", "ddim-3", "path is 8 steps"),
])  # fmt: skip
def test_a_guide_whose_steps_the_student_does_not_divide_is_refused(guide, sampler, part):
    with pytest.raises(ValueError, match=part):
        prepared(guide, sampler)


def test_a_run_of_two_evaluations_counts_them_everywhere(taught, monkeypatch):
    monkeypatch.setattr(metrics, "evaluate", functools.partial(metrics.evaluate, samples=64))
    run = experiment.run(OF_TWO.with_(teacher="tiny"), taught)
    cost, found = run.read("cost"), run.read("metrics")
    assert cost["evaluations"] == 2 and cost["macs_image"] == 2 * cost["macs"]
    assert found["solver"] == "ddim-2" and {"fd", "fd_teacher", "teacher_l1"} <= set(found["values"])
    assert "dpmpp2m-8" in found["values"]["fd_teacher"]["reference"]  # the teacher draws as it always does
    row = taught.table().set_index("run").loc[run.id]
    assert (row["evaluations"], row["sampler"], row["solver"]) == (2, "ddim-2", "dpmpp2m-8")
    assert bench.measure(run, taught, preset=BRIEF)["workload"]["nfe"] == 2
    assert bench.measure(run, taught, preset=BRIEF, solver="heun-2")["workload"]["nfe"] == 3

    z, y = diffusion.noise_of(range(3), SPEC.shape, 10)
    net, student = load_student(run), sampling.load(run.id, taught)
    denoiser = diffusion.Denoiser(net, student.spec.sigma_data)
    with torch.inference_mode():
        expected, _ = diffusion.solve(lambda x, s: denoiser(x.float(), s.float(), y), z, "ddim-2")
        deployed = deploy.deploy(net, student.spec, run.recipe.drawn_by)(z, y)
    torch.testing.assert_close(student(z, y), expected.clamp(-1, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(deployed, expected, atol=1e-5, rtol=0)


def test_a_student_of_few_evaluations_makes_pairs_by_its_own_sampler_alone(taught):
    run = experiment.run(OF_TWO, taught, measure=False)
    with pytest.raises(ValueError, match=f"teacher {run.id} draws by ddim-2; set solver to that, got heun-5"):
        pairs.pair_set(taught, run.id, "heun-5")
    made = pairs.Pairs(taught.root, pairs.pair_set(taught, run.id, "ddim-2"))
    image, y, _ = pairs.make(made, teachers.load(run.id, taught, solver="ddim-2"), range(4))
    drawn = sampling.load(run.id, taught).sample(made.seeds(range(4)), y)
    assert torch.equal(image, drawn)


@pytest.mark.slow
def test_on_digits_few_evaluations_come_nearer_to_the_whole_path_than_those_of_the_guide_do(store):
    """A DiT of many steps, then students of 4, 2 and 1 evaluations one from the other, in seconds each."""
    shape = DiTConfig(image_size=8, patch=2, depth=2, width=32, heads=2, time=True)
    kept = dict(data="digits", batch=64, student=shape)
    many = experiment.run(Recipe(methods=(Use("denoise"),), steps=600, **kept), store, measure=False)
    seeds, y = range(256), torch.arange(256) % 10

    def drawn(run, solver):
        images, _ = sampling.generate(load_student(run), sampling.load(run.id, store).spec, seeds, y=y, solver=solver)
        return diffusion.from_uint8(images)

    whole, before, found = drawn(many, "dpmpp2m-8"), many, {}
    for n in (4, 2, 1):
        recipe = Recipe(methods=(Use("progressive"),), guide=before.id, start=(before.id,), sampler=f"ddim-{n}",
                        lr=4e-3, steps=200, **kept)  # fmt: skip
        before = experiment.run(recipe, store, measure=False)
        found[n] = drawn(before, f"ddim-{n}")
        gap, without = ((x - whole).abs().mean() for x in (found[n], drawn(many, f"ddim-{n}")))
        accuracy = metrics.class_accuracy(diffusion.to_uint8(found[n]), y, "digits")
        assert gap < 0.5 * without and accuracy > 0.5, (n, gap, without, accuracy)
    assert min((found[a] - found[b]).abs().mean() for a, b in [(4, 2), (4, 1), (2, 1)]) > 0.005
