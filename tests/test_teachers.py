from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT, TINY_TEACHER

from lab import cli, diffusion, experiment, guides, metrics, models, pairs, sampling, teachers
from lab.config import Use
from lab.data import ImageSpec
from lab.models.taps import Taps
from lab.results import write_whole
from lab.teachers import CallableTeacher, DiscreteDenoiser
from lab.weights import load_student, spec_of_run

SPEC = ImageSpec(data="gaussian", size=8, channels=3, num_classes=0, sigma_data=0.5)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """Small pipelines saved as users have them: DDPM and DDIM U-Nets, a class-conditional DiT, latent diffusion."""
    import diffusers

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("pipelines")
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    for name, scheduler in [("ddpm", diffusers.DDPMScheduler()),
                            ("ddim-v", diffusers.DDIMScheduler(prediction_type="v_prediction")),
                            ("cosine-x0", diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2",
                                                                   prediction_type="sample")),
                            ]:  # fmt: skip
        diffusers.DDPMPipeline(unet=unet, scheduler=scheduler).save_pretrained(root / name)
    dit = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=3, out_channels=6, num_layers=2, sample_size=8,
        num_embeds_ada_norm=5, norm_eps=1e-6,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=3)
    for name, decoder in [("dit", None), ("latent", vae)]:
        made = diffusers.DiTPipeline(transformer=dit, vae=decoder, scheduler=diffusers.DDIMScheduler())
        made.save_pretrained(root / name)
    score = diffusers.ScoreSdeVeScheduler()
    diffusers.ScoreSdeVePipeline(unet=unet, scheduler=score).save_pretrained(root / "sde-ve")
    return root


@pytest.mark.parametrize("name", ["ddpm", "ddim-v", "cosine-x0"])
def test_an_unconditional_pipeline_is_sampled_whatever_its_scheduler(pipelines, name):
    teacher = teachers.load_pipeline(str(pipelines / name), solver="dpmpp2m-5")
    z, _ = diffusion.noise_of([1, 2], teacher.spec.shape, 0)
    first = teacher.sample(z, None).images
    assert first.shape == (2, 3, 8, 8) and torch.isfinite(first).all()
    assert torch.equal(teacher.sample(z, None).images, first), "an ODE teacher is deterministic"
    one = teacher.sample(z[1:], None).images
    torch.testing.assert_close(one, first[1:], atol=1e-4, rtol=1e-4)
    assert teacher.spec.num_classes == 0 and teacher.evaluations == 5


def test_a_class_conditional_dit_pipeline_is_a_teacher_with_classes(pipelines):
    teacher = teachers.load_pipeline(str(pipelines / "dit"), solver="dpmpp2m-4")
    assert teacher.spec.shape == (3, 8, 8) and teacher.spec.num_classes == 5
    z, y = diffusion.noise_of([1, 2, 3], teacher.spec.shape, 5)
    images = teacher.sample(z, y).images
    assert torch.isfinite(images).all()
    other = teacher.sample(z, (y + 1) % 5).images
    assert not torch.allclose(images, other)


def test_guidance_takes_two_passes_and_a_label_of_no_class(pipelines):
    source = str(pipelines / "dit")
    plain, guided = (teachers.load_pipeline(source, solver="heun-3", guidance=scale) for scale in (1.0, 3.0))
    assert (plain.evaluations, guided.evaluations) == (5, 10)
    x, y, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0, 4]), torch.tensor([0.7, 5.0])
    told, free = plain.denoise(x, sigma, y), plain.denoise(x, sigma, torch.full_like(y, 5))
    torch.testing.assert_close(guided.denoise(x, sigma, y), free + 3 * (told - free), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="has no label of no class, so guidance must be 1, got 3"):
        teachers.load_pipeline(str(pipelines / "ddpm"), guidance=3)


@pytest.mark.parametrize(("like_ours", "change"), [(True, {}), (False, {"norm_eps": 1e-5}), (False, {"embedders": 1})])
def test_a_dit_pipeline_is_our_network_where_it_computes_the_same_and_is_diffusers_elsewhere(like_ours, change):
    import diffusers

    torch.manual_seed(0)
    shape = dict(num_attention_heads=2, attention_head_dim=8, in_channels=3, out_channels=6, num_layers=2,
                 sample_size=8, num_embeds_ada_norm=5, norm_eps=change.get("norm_eps", 1e-6))  # fmt: skip
    net = diffusers.DiTTransformer2DModel(**shape).eval()
    if "embedders" not in change:  # one for all, as in every published checkpoint
        first, second = (block.norm1.emb for block in net.transformer_blocks)
        second.load_state_dict(first.state_dict())
    D = DiscreteDenoiser(net, diffusers.DDIMScheduler().alphas_cumprod, "epsilon")
    assert (D.ours is not None) == like_ours
    x, y, sigma = torch.randn(3, 3, 8, 8), torch.tensor([0, 2, 4]), torch.tensor([0.05, 0.7, 5.0])
    c_in = 1 / (sigma.double().view(-1, 1, 1, 1) ** 2 + 1).sqrt()
    with torch.no_grad():
        expected = net((c_in * x).float(), D.timestep(sigma).float(), class_labels=y).sample[:, :3]
        found = (x - D(x, sigma, y)) / sigma.view(-1, 1, 1, 1)  # epsilon
        assert expected.std() > 0.1
        torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=0)


def test_the_schedule_of_a_pipeline_may_hold_minus_infinity_as_diffusers_writes_it(tmp_path):
    folder = Path(saved(tmp_path / "p"))
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lambda_min_clipped": -math.inf}))
    files = [f"{p.parent.name}/{p.name} {hashlib.sha256(p.read_bytes()).hexdigest()}\n"
             for part in ("scheduler", "unet") for p in sorted((folder / part).glob("*"))]  # fmt: skip
    assert teachers.pipeline_sha256(str(folder)) == hashlib.sha256("".join(files).encode()).hexdigest()


def test_a_pipeline_of_latents_is_refused_with_the_reason(pipelines):
    with pytest.raises(ValueError, match=r"draws latents of its vae \(AutoencoderKL\).*a teacher must draw pixels"):
        teachers.load_pipeline(str(pipelines / "latent"))


def test_other_weights_or_another_schedule_of_a_pipeline_are_other_pairs(pipelines, store, tmp_path):
    folder = tmp_path / "ddpm"
    shutil.copytree(pipelines / "ddpm", folder)
    ids = [pairs.pair_set(store, f"pipeline:{folder}", "dpmpp2m-8").id]
    for file in ("unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        write_whole(folder / file, (folder / file).read_bytes() + b" ")
        ids.append(pairs.pair_set(store, f"pipeline:{folder}", "dpmpp2m-8").id)
    assert len(set(ids)) == 3
    with pytest.raises(ValueError, match="no diffusers pipeline can be read from"):
        pairs.pair_set(store, f"pipeline:{tmp_path}", "dpmpp2m-8")


def test_a_pipeline_without_a_discrete_schedule_is_refused_with_the_reason(pipelines):
    with pytest.raises(ValueError, match=r"ScoreSdeVeScheduler.*needs a discrete schedule"):
        teachers.load_pipeline(str(pipelines / "sde-ve"))


def test_a_folder_that_is_no_pipeline_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match="no diffusers pipeline can be read from"):
        teachers.load_pipeline(str(tmp_path))


def test_the_student_of_a_pipeline_is_of_the_data_that_the_recipe_names(pipelines, store, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(pairs, "SHARD", 256)
    net = dataclasses.replace(TINY_DIT, channels=3, num_classes=0)
    recipe = TINY_STUDENT.with_(teacher=f"pipeline:{pipelines / 'ddpm'}", pairs=16, steps=1, student=net,
                                methods=(Use("pairs", {"perceptual": 0.0}),))  # fmt: skip
    with pytest.raises(ValueError, match=r"student\.channels is 3, the images of digits have 1"):
        experiment.run(recipe, store, measure=False)
    monkeypatch.chdir(tmp_path)
    run = experiment.run(recipe.with_(data="folder:of the pipeline's pictures"), store, measure=False)
    assert spec_of_run(run).data == run.recipe.data == f"folder:{tmp_path}/of the pipeline's pictures"


def test_a_recipe_names_a_pipeline_by_its_place_and_its_content(pipelines, store, tmp_path, monkeypatch):
    folder = tmp_path / "ddpm"
    shutil.copytree(pipelines / "ddpm", folder)
    monkeypatch.chdir(tmp_path)
    name = teachers.resolve("pipeline:ddpm", store)
    assert name == teachers.resolve(f"pipeline:{folder}", store) == teachers.resolve(name, store)
    assert name.startswith(f"pipeline:{folder}@") and teachers.load(name, store).name == f"pipeline:{folder}"
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    write_whole(weights, weights.read_bytes() + b" ")
    assert teachers.resolve("pipeline:ddpm", store) != name
    with pytest.raises(
        ValueError, match=r"pipeline '.*ddpm' was \w{8} when this name was given to it and is \w{8} now"
    ):
        teachers.load(name, store)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_discrete_network_that_is_right_denoises_exactly(prediction):
    # Data N(mu, sd^2): the perfect network for each kind of prediction is known in closed form.
    mu, sd = 0.3, 0.5
    a = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    sigmas = ((1 - a) / a).sqrt()

    class Perfect(torch.nn.Module):
        class config:  # diffusers' name
            num_class_embeds = None

        def forward(self, x, t):
            sigma = torch.exp(torch.from_numpy(_interp(t, sigmas.log()))).view(-1, 1, 1, 1)
            alpha = 1 / (1 + sigma**2).sqrt()
            x0 = (sd**2 * x / alpha + sigma**2 * mu) / (sd**2 + sigma**2)
            eps = (x - alpha * x0) / (alpha * sigma)
            out = {"sample": x0, "epsilon": eps, "v_prediction": alpha * eps - alpha * sigma * x0}[prediction]
            return type("Out", (), {"sample": out})

    D = DiscreteDenoiser(Perfect(), a, prediction)
    x, sigma = torch.randn(4, 1, 3, 3, dtype=torch.float64), torch.tensor([0.05, 0.5, 5.0, 50.0])
    s2 = sigma.double().view(-1, 1, 1, 1) ** 2
    torch.testing.assert_close(D(x, sigma, None), (sd**2 * x + s2 * mu) / (sd**2 + s2), atol=2e-3, rtol=2e-3)


def _interp(t, table):
    import numpy as np

    return np.interp(t.double().numpy(), np.arange(len(table)), table.numpy())


def test_any_function_is_a_teacher():
    teacher = CallableTeacher(lambda x, sigma, y: 0.25 / (0.25 + sigma.view(-1, 1, 1, 1) ** 2) * x, SPEC, "heun-60")
    z = torch.randn(1000, 3, 8, 8)
    images = teacher.sample(z, None).images
    assert float(images.std()) == pytest.approx(0.5, rel=0.02)  # the exact denoiser of N(0, 0.5^2)
    with pytest.raises(ValueError, match=r"noise must be \(B, 3, 8, 8\), got \(2, 3, 9, 9\)"):
        teacher.sample(torch.randn(2, 3, 9, 9), None)


DIGITS = ImageSpec(data="digits", size=8, channels=1, num_classes=10, class_names=tuple("0123456789"), sigma_data=0.5)


def gaussian(x, sigma, y):
    """The exact denoiser of N(class / 10, 0.5^2)."""
    s2, mean = sigma.view(-1, 1, 1, 1) ** 2, y.view(-1, 1, 1, 1) / 10
    return (0.25 * x + s2 * mean) / (0.25 + s2)


@pytest.fixture
def mine(monkeypatch):
    """A recipe whose teacher is a registered function."""
    monkeypatch.setattr(pairs, "SHARD", 256)
    monkeypatch.setattr(teachers, "_registered", {})
    teachers.register("mine", CallableTeacher(gaussian, DIGITS), digest="a gaussian of 0.5")
    return TINY_STUDENT.with_(teacher="callable:mine", pairs=256, steps=60, lr=2e-2, warmup=5)


def test_a_student_learns_from_a_registered_function_end_to_end(store, mine):
    run = experiment.run(mine, store, measure=False)
    assert run.recipe.teacher == teachers.resolve("callable:mine", store) and spec_of_run(run) == DIGITS
    (made,) = (store.root / "pairs").iterdir()
    assert json.loads((made / "pairs.json").read_text())["what"]["teacher_sha256"] == "a gaussian of 0.5"
    theirs = metrics.teacher_images(run.recipe, store, range(64))
    ours, _ = sampling.generate(load_student(run), DIGITS, range(64))
    apart = [(diffusion.from_uint8(x) - diffusion.from_uint8(theirs)).abs().mean() for x in (ours, 0 * ours + 127)]
    assert apart[0] < 0.8 * apart[1], "the student is no nearer to its teacher than a grey image"


def test_another_digest_of_a_function_is_another_run_with_other_pairs(store, mine):
    first = pairs.pair_set(store, "callable:mine", "dpmpp2m-4"), experiment.resolve(mine, store)
    kept = first[1].teacher
    teachers.register("mine", CallableTeacher(gaussian, DIGITS), digest="other weights")
    assert pairs.pair_set(store, "callable:mine", "dpmpp2m-4").id != first[0].id
    assert experiment.resolve(mine, store).id != first[1].id
    with pytest.raises(LookupError, match=f"teacher {kept} was registered with another digest here, as callable:mine@"):
        teachers.load(kept, store)


def test_a_function_that_this_process_has_not_registered_is_one_sentence(store, mine, capsys):
    said = "teacher callable:mine is a function that this process doesn't know; call lab.teachers.register"
    teachers._registered.clear()
    with pytest.raises(ValueError, match=said):
        experiment.run(mine, store, measure=False)
    with pytest.raises(LookupError, match=said):
        pairs.pair_set(store, "callable:mine", "dpmpp2m-4")
    assert cli.main(["pairs", "callable:mine", "--count", "1"]) == cli.MISSING
    assert said in capsys.readouterr().err


def test_a_function_is_held_to_the_recipes_data_and_shape(store, mine):
    with pytest.raises(ValueError, match="data is 'cifar10', but teacher callable:mine draws images of 'digits'"):
        experiment.resolve(mine.with_(data="cifar10"), store)
    with pytest.raises(ValueError, match=r"student\.image_size is 12, the images of digits have 8"):
        experiment.resolve(mine.with_(student__image_size=12), store)


@pytest.mark.parametrize(("name", "digest", "part"), [("Mine", "x", "name must match"), ("mine", "", "needs a digest")])
def test_a_function_without_a_name_or_a_digest_is_not_registered(name, digest, part):
    with pytest.raises(ValueError, match=part):
        teachers.register(name, CallableTeacher(gaussian, DIGITS), digest=digest)


def test_a_teacher_image_depends_on_its_seed_and_not_on_the_batch(taught):
    teacher = teachers.load("tiny", taught, solver="dpmpp2m-4", dtype="float32")
    z, y = diffusion.noise_of(range(6), teacher.spec.shape, 10)
    whole = teacher.sample(z, y).images
    torch.testing.assert_close(teacher.sample(z[4:5], y[4:5]).images, whole[4:5], atol=1e-4, rtol=0)


def test_a_one_step_student_is_a_teacher_of_one_evaluation(taught):
    run = experiment.run(TINY_STUDENT, taught, measure=False)
    teacher = teachers.load(f"run:{run.id}", taught)
    z, y = diffusion.noise_of(range(3), teacher.spec.shape, 10)
    assert teacher.evaluations == 1 and teacher.sample(z, y).images.shape == (3, 1, 8, 8)
    with pytest.raises(ValueError, match="it has no path to keep"):
        teacher.sample(z, y, keep=2)


@pytest.mark.parametrize("time", [False, True])
def test_a_guide_answers_as_its_own_network_does_with_taps(taught, time):
    recipe = TINY_TEACHER.with_(student=dataclasses.replace(TINY_DIT, time=True), steps=2) if time else TINY_STUDENT
    run = experiment.run(recipe, taught, measure=False)
    guide, taps = guides.load(run), Taps(["block1"])
    z, y = diffusion.noise_of(range(3), guide.spec.shape, 10)
    sigma = torch.tensor([0.1, 1.0, 10.0]) if time else None
    net = load_student(run)
    with torch.no_grad():
        plain = diffusion.Denoiser(net, guide.spec.sigma_data)(z, sigma, y) if time else net(z, None, y)
    assert torch.equal(guide(z, sigma, y, taps), plain) and taps["block1"].shape == (3, 4, 16)


def test_a_guide_s_answers_are_made_once_and_read_by_the_number_of_the_pair(taught, monkeypatch):
    run = experiment.run(TINY_STUDENT, taught, measure=False)
    guide = guides.load(run)
    made = pairs.Pairs(taught.root, pairs.pair_set(taught, "tiny", TINY_STUDENT.solver))
    reader = pairs.Reader(made, 300, shape=guide.spec.shape, num_classes=10)
    monkeypatch.setattr(guides, "CHUNK", 100)
    answers = guides.Answers(taught.root, guide, made.what.id)
    assert answers.ensure({"block0"}, 150, reader.inputs, torch.device("cpu"))
    monkeypatch.setattr(guides, "BATCH", 7)  # what is kept is not made again, and so not by other batches
    again = guides.Answers(taught.root, guide, made.what.id)
    assert again.ensure({"block0", "block1"}, 300, reader.inputs, torch.device("cpu"))
    index = torch.tensor([299, 3, 149, 150])
    image, taps = again.at(index, torch.device("cpu"), {"block0", "block1"})
    live = Taps(["block0", "block1"])
    z, y = reader.inputs(index)
    torch.testing.assert_close(image, guide(z, None, y, live), atol=1e-3, rtol=1e-3)
    for name in ("block0", "block1"):
        torch.testing.assert_close(taps[name], live[name], atol=2e-3, rtol=1e-3)
    monkeypatch.setattr(guides.Answers, "_make", lambda *_: pytest.fail("made again"))
    assert again.ensure({"block1"}, 300, reader.inputs, torch.device("cpu")) and again.seconds > 0
    monkeypatch.setattr(guides, "ROOM", 1e12)
    assert not again.ensure({"block1"}, 301, reader.inputs, torch.device("cpu"))


@pytest.mark.parametrize("note", [None, "[]", '{"pairs": 300}', '{"pairs": "300", "seconds": 1}', "{",
                                  '{"pairs": 300, "seconds": null}', '{"pairs": -1, "seconds": 1}'])  # fmt: skip
def test_a_guide_s_answers_that_are_not_whole_are_made_again(store, note):
    guide = guides.Guide("guide", models.build(TINY_DIT), dataclasses.replace(SPEC, channels=1), digest="ab")

    def made():
        answers = guides.Answers(store.root, guide, "pairs")
        assert answers.ensure({"block0"}, 300, ask, torch.device("cpu"))
        return answers, answers.at(torch.arange(300), torch.device("cpu"), {"block0"})[1]["block0"]

    def ask(index):
        return diffusion.noise_of(index.tolist(), guide.spec.shape, 10)

    answers, whole = made()
    assert (whole.flatten(1).std(1) > 0).all()
    if note is None:
        os.truncate(answers.path / "block0.half", 2 * 4 * 16 * 100 + 7)  # a hundred answers and a part of one
        assert answers._facts("block0", (4, 16))["pairs"] == 100
    else:
        (answers.path / "block0.json").write_text(note)
        (answers.path / "block0.half").write_bytes(bytes(2 * 4 * 16 * 300))
    torch.testing.assert_close(made()[1], whole, atol=2e-3, rtol=1e-3)


def test_short_answers_stay_short_where_making_them_again_is_stopped(store):
    guide = guides.Guide("guide", models.build(TINY_DIT), dataclasses.replace(SPEC, channels=1), digest="ab")
    answers = guides.Answers(store.root, guide, "pairs")
    assert answers.ensure((), 300, lambda i: diffusion.noise_of(i.tolist(), (1, 8, 8), 10), torch.device("cpu"))
    os.truncate(answers.path / "prediction.half", 0)

    def stopped(index):
        if len(index) > 1:  # one is asked for the shapes
            raise KeyboardInterrupt
        return diffusion.noise_of(index.tolist(), (1, 8, 8), 10)

    with pytest.raises(KeyboardInterrupt):
        answers.ensure((), 300, stopped, torch.device("cpu"))
    assert answers._facts("prediction", (1, 8, 8))["pairs"] == 0


def test_looking_ahead_asks_the_disk_for_the_next_batch_and_changes_none(taught, monkeypatch):
    guide = guides.load(experiment.run(TINY_STUDENT, taught, measure=False))
    made = pairs.Pairs(taught.root, pairs.pair_set(taught, "tiny", TINY_STUDENT.solver))
    reader = pairs.Reader(made, 300, shape=guide.spec.shape, num_classes=10)
    answers = guides.Answers(taught.root, guide, made.what.id)
    assert answers.ensure(set(), 300, reader.inputs, torch.device("cpu"))
    asked, advise = [], guides._advise
    monkeypatch.setattr(guides, "_advise", lambda file, how, row: asked.append(row) or advise(file, how, row))
    ahead, plain = (reader.stream(batch=8, seed=0, start=5) for _ in range(2))
    ahead = answers.ahead(ahead)
    for _ in range(3):
        mine, batch = next(ahead), next(plain)
        assert torch.equal(mine.index, batch.index) and torch.equal(mine.image, batch.image)
    assert asked[8:16] == mine.index.tolist() and len(asked) == 24  # the last eight: the batch that follows


def test_unknown_teachers_name_the_nearest(taught):
    with pytest.raises(LookupError, match="unknown run 'tinny'; did you mean 'tiny'"):
        teachers.load("tinny", taught)


@pytest.mark.parametrize(("denoise", "got"), [
    (lambda x, sigma, y: x[:, :1], r"\(2, 1, 8, 8\)"), (lambda x, sigma, y: x.mean(0), r"\(3, 8, 8\)"),
    (lambda x, sigma, y: x[:1], r"\(1, 3, 8, 8\)"), (lambda x, sigma, y: torch.cat([x, x], 1), r"\(2, 6, 8, 8\)"),
    (lambda x, sigma, y: (x,), "a tuple"), (lambda x, sigma, y: None, "a NoneType"),
])  # fmt: skip
@pytest.mark.parametrize("solver", ["ddim-1", "heun-3", "dpmpp2m-2"])
def test_a_function_that_gives_another_shape_than_it_is_given_is_refused(denoise, got, solver):
    z, _ = diffusion.noise_of([1, 2], SPEC.shape, 0)
    with pytest.raises(ValueError, match=rf"teacher mine must give .* its input's shape \(2, 3, 8, 8\), got {got}"):
        CallableTeacher(denoise, SPEC, solver, "mine").sample(z, None)


# --- pipelines that are not what they seem ---


def saved(folder, scheduler=None, change=None, **shape):
    """A pipeline of a tiny U-Net with some of its shape, and with its weights changed."""
    import diffusers
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    tiny = dict(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1,
                norm_num_groups=4, attention_head_dim=4, down_block_types=("DownBlock2D",) * 2,
                up_block_types=("UpBlock2D",) * 2)  # fmt: skip
    net = diffusers.UNet2DModel(**tiny | shape)
    diffusers.DDPMPipeline(
        unet=net, scheduler=diffusers.DDPMScheduler() if scheduler is None else scheduler
    ).save_pretrained(folder)
    if change:
        file = folder / "unet" / "diffusion_pytorch_model.safetensors"
        save_file(change(load_file(file)), file)
    return str(folder)


def images_of(source):
    teacher = teachers.load_pipeline(source, solver="dpmpp2m-4")
    return teacher.sample(diffusion.noise_of([1, 2], teacher.spec.shape, 0)[0], None).images


def not_a_number(weights):
    return {name: v * float("nan") if name == "conv_in.weight" else v for name, v in weights.items()}


def test_a_teacher_whose_images_are_not_finite_is_named_and_leaves_no_shard(store, tmp_path):
    what = pairs.pair_set(store, "pipeline:" + saved(tmp_path / "nan", change=not_a_number), "dpmpp2m-4")
    with pytest.raises(ValueError, match=r"teacher pipeline:.*nan.*not finite"):
        pairs.ensure(store, what, 1)
    assert not list((store.root / "pairs").rglob("*.npz"))
    with pytest.raises(ValueError, match="not finite"):
        images_of(saved(tmp_path / "fourier", time_embedding_type="fourier"))  # ln of timestep 0


@pytest.mark.parametrize(
    "schedule",
    [
        {"trained_betas": [0.0] + [0.02] * 99},
        {"trained_betas": [0.0, 0.0] + [0.02] * 99},
        {"beta_start": 0.0},
        {"rescale_betas_zero_snr": True},
    ],
)
def test_a_schedule_may_begin_without_noise_and_end_with_nothing_else(tmp_path, schedule):
    import diffusers

    source = saved(tmp_path / "p", diffusers.DDPMScheduler(**schedule))
    assert torch.isfinite(images_of(source)).all()
    steps = teachers.load_pipeline(source).denoise.timestep(torch.tensor([0.002, 0.5, 80.0]))
    assert torch.isfinite(steps).all() and 0 <= steps[0] < steps[1] < steps[2]


def test_a_schedule_that_does_not_fall_is_refused(tmp_path):
    import diffusers

    with pytest.raises(ValueError, match="alphas_cumprod"):
        images_of(saved(tmp_path / "p", diffusers.DDPMScheduler(trained_betas=[0.1, -0.1, 0.2])))


@pytest.mark.parametrize("steps", [0, 1])
def test_a_schedule_without_two_noise_levels_is_refused(tmp_path, steps):
    import diffusers

    source = saved(tmp_path / "p", diffusers.DDPMScheduler(num_train_timesteps=steps))
    with pytest.raises(ValueError, match=f"has a schedule of {steps} noise levels .*needs at least 2"):
        teachers.load_pipeline(source)


@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_configuration_that_is_no_object_is_not_looked_for_on_the_hub(tmp_path, file):
    import diffusers

    source = saved(tmp_path / "p", diffusers.DDPMScheduler())
    Path(source, file).write_text("[]")
    with pytest.raises(ValueError, match=f"{file} holds no JSON object"):
        teachers.load_pipeline(source)


@pytest.mark.parametrize(("part", "told"), [("unet", "UNet2DModel"), ("unet", 5), ("scheduler", {"a": 1}), ("vae", 5)])
def test_a_part_that_is_not_told_by_library_and_class_is_named(tmp_path, part, told):
    index = Path(saved(tmp_path / "p"), "model_index.json")
    index.write_text(json.dumps(json.loads(index.read_text()) | {part: told}))
    for read in (teachers.load_pipeline, teachers.pipeline_sha256):
        with pytest.raises(ValueError, match=f"model_index.json of pipeline .* says {told!r} of its {part}; a part"):
            read(str(index.parent))


def test_a_schedule_that_ends_far_below_our_highest_noise_is_warned_of(tmp_path, recwarn):
    import diffusers

    images_of(saved(tmp_path / "whole"))
    assert not [w for w in recwarn if "noise level" in str(w.message)]
    short = diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    with pytest.warns(UserWarning, match=r"trained up to noise level 14\.6, and its images are drawn from 80 on"):
        images_of(saved(tmp_path / "short", short))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_no_part_of_a_weights_name(tmp_path, prefix):
    plain, wrapped = (
        images_of(saved(tmp_path / name, change=lambda w, p=p: {p + k: v for k, v in w.items()}))
        for name, p in [("plain", ""), ("wrapped", prefix)]
    )
    assert torch.equal(plain, wrapped)


def test_weights_that_lie_beside_a_networks_own_are_not_read(tmp_path):
    from safetensors.torch import load_file, save_file

    prefixed, beside = (
        saved(tmp_path / name, change=lambda w: {f"module.{k}": v for k, v in w.items()}) for name in ("one", "other")
    )
    folder = tmp_path / "other" / "unet"
    own = load_file(folder / "diffusion_pytorch_model.safetensors")
    save_file({k: torch.zeros_like(v) for k, v in own.items()}, folder / "ema_old.safetensors")
    assert torch.equal(images_of(prefixed), images_of(beside))


@pytest.mark.parametrize(("name", "content", "said"), [
    ("pipeline:", "", "pipeline: names no pipeline"), ("pipeline: ", "", "pipeline: names no pipeline"),
    ("pipeline:{}", "null", "no diffusers pipeline can be read from"),
    ("pipeline:{}", "[]", "unknown kind of network in pipeline .* 'None'"),
])  # fmt: skip
def test_what_is_no_pipeline_is_said_to_be_none(tmp_path, monkeypatch, name, content, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        teachers.load_pipeline(teachers.source_of(teachers.TeacherName.parse(name.format(tmp_path))))


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool])
def test_weights_that_were_quantised_are_refused(tmp_path, kind):
    source = saved(tmp_path, change=lambda w: {k: (v * 100).to(kind) for k, v in w.items()})
    with pytest.raises(ValueError, match=r"are no floats: \S+ is (I8|U8|BOOL) in diffusion_pytorch_model.safetensors;"):
        images_of(source)
    images_of(saved(tmp_path / "half", change=lambda w: {k: v.half() for k, v in w.items()}))


@pytest.mark.parametrize("part", ["unet", "scheduler"])
def test_a_part_of_another_class_by_the_index_is_another_pipeline(tmp_path, part):
    source = saved(tmp_path / "p")
    index = tmp_path / "p" / "model_index.json"
    before, told = teachers.pipeline_sha256(source), json.loads(index.read_text())
    index.write_text(json.dumps(told | {part: ["diffusers", "LCMScheduler"]}))
    assert teachers.pipeline_sha256(source) != before
    index.write_text(json.dumps(told | {"note": ["a", "b"]}))
    assert teachers.pipeline_sha256(source) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: {k: v for k, v in w.items() if not k.startswith("conv_out")}, "lack conv_out.bias"),
        (lambda w: w | {"more.weight": torch.zeros(1)}, "unknown more.weight"),
        (lambda w: w | {"conv_out.bias": torch.zeros(5)}, "conv_out.bias"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused_by_name(tmp_path, change, named):
    with pytest.raises(ValueError, match=named):
        teachers.load_pipeline(saved(tmp_path / "p", change=change))


@pytest.mark.parametrize(("takes", "gives"), [(5, 1), (3, 1), (2, 1), (6, 3), (4, 3), (1, 3)])
def test_a_network_conditioned_by_channels_is_refused(tmp_path, takes, gives):
    with pytest.raises(ValueError, match=f"takes {takes} channels and gives {gives}"):
        teachers.load_pipeline(saved(tmp_path / "p", in_channels=takes, out_channels=gives))


def test_a_network_that_learned_a_variance_gives_twice_its_channels(tmp_path):
    assert images_of(saved(tmp_path / "p", in_channels=1, out_channels=2)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("told", [[8, 8], "8"])
def test_a_square_is_told_in_several_ways(tmp_path, told):
    source = saved(tmp_path / "p")
    file = tmp_path / "p" / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": told}))
    assert teachers.load_pipeline(source).spec.size == 8


@pytest.mark.parametrize("told", [None, [8, 16], [], 0, "large"])
def test_a_size_that_is_no_square_is_refused(tmp_path, told):
    source = saved(tmp_path / "p")
    file = tmp_path / "p" / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sample_size": told}))
    with pytest.raises(ValueError, match="sample_size"):
        teachers.load_pipeline(source)


def test_a_size_that_is_not_told_is_not_taken_for_diffusers_default(pipelines, tmp_path):
    source = tmp_path / "dit"
    shutil.copytree(pipelines / "dit", source)
    file = source / "transformer" / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "sample_size"}))
    with pytest.raises(ValueError, match=r"has no sample_size in transformer/config\.json"):
        teachers.load_pipeline(str(source))


def test_an_index_of_weights_that_names_no_files_is_named(tmp_path):
    source = saved(tmp_path / "p", change=lambda weights: {f"module.{k}": v for k, v in weights.items()})
    unet = tmp_path / "p" / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model-1.safetensors")
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text('{"metadata": {}}')
    with pytest.raises(ValueError, match=r"index\.json|no diffusers pipeline can be read"):
        teachers.load_pipeline(source)


@pytest.mark.parametrize("shape", [{"time_embedding_type": "learned", "num_train_timesteps": 1000}, {"sample_size": 5}])
def test_a_network_that_can_not_answer_is_refused_before_it_draws(tmp_path, shape):
    side = shape.get("sample_size", 8)
    said = (
        rf"pipeline:.*here can't be asked for images of \(1, {side}, {side}\) at any noise level; its network says: \w+"
    )
    with pytest.raises(ValueError, match=said):
        teachers.load_pipeline(saved(tmp_path / "here", **shape))


@pytest.mark.parametrize("kind", ["timestep", "identity"])
def test_a_class_that_is_no_number_of_a_table_is_refused(tmp_path, kind):
    with pytest.raises(ValueError, match="class_embed_type"):
        teachers.load_pipeline(saved(tmp_path / "p", class_embed_type=kind))


@pytest.mark.parametrize("kind", ["MyPipeline", ["pipeline", "MyPipeline"]])
def test_a_pipeline_class_of_ones_own_is_not_needed(tmp_path, kind):
    source = saved(tmp_path / "p")
    index = tmp_path / "p" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": kind}))
    assert torch.equal(images_of(source), images_of(saved(tmp_path / "theirs")))


@pytest.mark.parametrize("source", ["/no/such/folder", "./here", "a/b/c", "~/x"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(source):
    with pytest.raises(ValueError, match="there is no folder"):
        teachers.load_pipeline(source)
