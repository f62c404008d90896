import dataclasses
import io
import json
import re
import shutil
import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from conftest import TINY_STUDENT, TINY_TEACHER
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.linalg import sqrtm

from lab import data, diffusion, experiment, features, metrics, results
from lab.data import MissingData
from lab.results import Run, Store
from lab.weights import load_student, sha256

DIGITS, SECOND = features.name("digits"), features.name("digits", "second")
SMALL = 64  # samples, in tests


@pytest.fixture
def digits() -> torch.Tensor:
    return data.load("digits", "train").images


@pytest.fixture(scope="module")
def measured_root(taught_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of `taught_root` with a student that was measured."""
    torch.set_num_threads(1)
    store = Store(shutil.copytree(taught_root, tmp_path_factory.mktemp("metrics") / "results"))
    student = experiment.run(dataclasses.replace(TINY_STUDENT, keep=(96,)), store, measure=False)
    student.set_notes(label="student")
    metrics.evaluate(student, store, samples=SMALL)
    return store.root


@pytest.fixture
def taught(measured_root: Path, tmp_path: Path) -> Store:
    """A copy of it that a test may change."""
    return Store(shutil.copytree(measured_root, tmp_path / "taught"))


@pytest.fixture
def student(taught: Store) -> Run:
    return taught.get("student")


@pytest.fixture
def gaussians() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 400, 6, generator=rng, dtype=torch.float64)
    return a, 0.5 + b @ torch.randn(6, 6, generator=rng, dtype=torch.float64)


# --- distances ---


def test_the_frechet_distance_is_the_textbook_formula(gaussians) -> None:
    a, b = (x.numpy() for x in gaussians)
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert metrics.fd(*gaussians) == pytest.approx(expected, rel=1e-8)


def test_the_form_of_the_bootstrap_is_the_same_distance(gaussians) -> None:
    a, b = (x.numpy() for x in gaussians)
    half = metrics._square_root(np.cov(b, rowvar=False))
    again = metrics._fd_to(b.mean(0), half, a.mean(0), np.cov(a, rowvar=False))
    assert again == pytest.approx(metrics.fd(*gaussians), rel=1e-8)


def test_equal_sets_are_at_distance_zero(digits) -> None:
    x = metrics.extract(digits[:300], DIGITS)
    assert metrics.fd(x, x) == pytest.approx(0, abs=1e-6)
    assert metrics.precision_recall(x, x) == (1.0, 1.0)


def test_the_interval_holds_the_value_and_narrows_with_more_samples() -> None:
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(2000, 8, generator=rng, dtype=torch.float64)
    widths = []
    for count in (100, 2000):
        x = 0.3 + torch.randn(count, 8, generator=rng, dtype=torch.float64)
        value = metrics.fd(x, real)
        low, high = metrics.fd_interval(x, real, value)
        assert low < value < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_the_interval_covers_what_other_samples_give() -> None:
    # Four fifths: with 100 draws an interval meant for 95 % may miss a few of 30 by chance.
    rng = torch.Generator().manual_seed(1)
    real = torch.randn(3000, 4, generator=rng, dtype=torch.float64)
    sets = [0.5 + torch.randn(500, 4, generator=rng, dtype=torch.float64) for _ in range(30)]
    typical = np.mean([metrics.fd(x, real) for x in sets])
    hits = 0
    for x in sets:
        low, high = metrics.fd_interval(x, real, metrics.fd(x, real), draws=50)
        hits += low <= typical <= high
    assert hits >= 24


def test_our_distances_are_those_of_torch_fidelitys_own_entry(digits) -> None:
    a, b = digits[:200], digits[200:500]
    ours = metrics.distances(a, b, DIGITS, draws=2)["values"]
    theirs = torch_fidelity.calculate_metrics(
        input1=metrics.Rows(a), input2=metrics.Rows(b), feature_extractor=DIGITS, fid=True, kid=True, prc=True,
        kid_subsets=metrics.KID_SUBSETS, kid_subset_size=100, cuda=False, save_cpu_ram=True, cache=False, verbose=False,
    )  # fmt: skip
    assert ours["fd"]["value"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert ours["kid"]["value"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours["precision"]["value"] == pytest.approx(theirs["precision"])
    assert ours["recall"]["value"] == pytest.approx(theirs["recall"])


def test_a_distance_names_its_conditions(digits) -> None:
    found = metrics.distances(digits[:50], digits[50:150], DIGITS, draws=2)
    assert (found["extractor"], found["samples"]) == (DIGITS, 50)
    assert "100" in found["values"]["fd"]["reference"]
    assert "subsets of 25" in found["values"]["kid"]["reference"]


def test_images_of_the_wrong_kind_are_refused(digits) -> None:
    with pytest.raises(ValueError, match="images_b must be at least 8 uint8 images"):
        metrics.distances(digits[:50], digits[:50].float(), DIGITS)


def test_features_do_not_depend_on_the_batch(digits) -> None:
    x = metrics.extract(digits[:50], DIGITS, batch=50)
    assert torch.allclose(metrics.extract(digits[:50], DIGITS, batch=7), x, atol=1e-5)
    assert x.dtype == torch.float64


def test_more_noise_is_a_larger_distance(digits) -> None:
    rng, found = torch.Generator().manual_seed(0), []
    real = metrics.extract(digits, DIGITS)
    for scale in (0, 20, 60):
        noisy = digits[:500] + scale * torch.randn(500, 1, 8, 8, generator=rng)
        found.append(metrics.fd(metrics.extract(noisy.clamp(0, 255).to(torch.uint8), DIGITS), real))
    assert found == sorted(found)


def test_class_accuracy_sees_right_and_wrong_classes() -> None:
    test = data.load("digits", "test")
    assert metrics.class_accuracy(test.images, test.labels, "digits") > 0.95
    assert metrics.class_accuracy(test.images, (test.labels + 1) % 10, "digits") < 0.05


# --- extractors ---


def test_data_with_a_net_of_its_own_is_measured_by_it() -> None:
    assert metrics.extractor_of("digits") == DIGITS
    assert metrics.extractor_of("cifar10") == metrics.extractor_of("folder:/x") == "inception-v3-compat"


def test_an_extractor_may_be_registered_twice() -> None:
    metrics.register(DIGITS)
    metrics.register(DIGITS)
    with pytest.raises(LookupError, match="no feature extractor 'digits-cnn-00000000' here"):
        metrics.register("digits-cnn-00000000")


def test_missing_inception_weights_say_how_to_get_them(monkeypatch) -> None:
    def offline(*args: object, **settings: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline)
    with pytest.raises(MissingData, match=r"weights-inception-2015-12-05-6726825d.pth.*put the file into"):
        metrics.create("inception-v3-compat", "cpu")


# --- runs ---


def test_a_student_is_measured_with_every_value_and_its_conditions(taught: Store, student: Run) -> None:
    found = metrics.evaluate(student, taught, samples=SMALL, force=True)
    assert json.loads((student.path / "metrics.json").read_text()) == found
    assert found["weights_sha256"] == student.read("student")["weights_sha256"]
    assert (found["extractor"], found["samples"], found["seed"]) == (DIGITS, SMALL, diffusion.EVAL_SEED)
    assert set(found["values"]) == {"fd", "kid", "precision", "recall", "class_accuracy", "fd_teacher", "teacher_l1",
                                    "teacher_perceptual"}  # fmt: skip
    assert all(v["reference"] and np.isfinite(v["value"]) for v in found["values"].values())
    assert found["values"]["fd"]["reference"] == "train split of digits, 1,498 images"
    low, high = found["values"]["fd"]["ci95"]
    assert low <= found["values"]["fd"]["value"] <= high
    assert features.name("digits", "perceptual") in found["values"]["teacher_perceptual"]["reference"]


def test_the_table_shows_the_values_and_their_conditions(taught: Store, student: Run) -> None:
    found = metrics.evaluate(student, taught, samples=SMALL)
    row = taught.table().set_index("run").loc[student.id]
    assert row["fd"] == found["values"]["fd"]["value"]
    assert (row["extractor"], row["samples"], row["eval_seed"]) == (DIGITS, SMALL, diffusion.EVAL_SEED)


def test_a_kept_checkpoint_has_its_own_distance(taught: Store, student: Run) -> None:
    found = metrics.evaluate(student, taught, samples=SMALL)
    assert set(found["checkpoints"]) == {"96"}
    assert found["checkpoints"]["96"]["fd"]["value"] != found["values"]["fd"]["value"]


FC1 = "blocks.0.mlp.fc1.weight"  # (64, 16) of a student


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({FC1: lambda v: v.to(torch.int8)}, f"{FC1} is int8 (64, 16), and the network's is a float"),
        ({FC1: lambda v: v.double()}, f"{FC1} is float64 (64, 16), and the network's is a float of 16 or 32 bits"),
        ({FC1: lambda v: v.T.contiguous()}, f"{FC1} is a float of 16 or 32 bits (16, 64), and the network's is"),
        ({FC1: lambda v: v * np.inf}, f"values of {FC1} are not finite numbers"),
        ({FC1: lambda v: None}, f"{FC1} is absent, and the network's is a float of 16 or 32 bits (64, 16)"),
        ({"more": lambda v: torch.zeros(1)}, "more is a float of 16 or 32 bits (1,), and the network's is absent"),
    ],
)
@pytest.mark.parametrize("images", [None, 96])
def test_weights_that_are_not_the_networks_are_refused_by_file_and_tensor(
    student: Run, images: int | None, change: dict, said: str
) -> None:
    path = student.path / (f"at-{images}.safetensors" if images else "student.safetensors")
    (name, act), tensors = *change.items(), load_file(path)
    tensors |= {name: act(tensors.get(name))}
    save_file({k: v for k, v in tensors.items() if v is not None}, path)
    if not images:
        student.write("student", student.read("student") | {"weights_sha256": sha256(path)})
    with pytest.raises(ValueError, match=re.escape(f"{path.name} of run {student.id}: {said}")):
        load_student(student, images=images)


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda path: path.write_bytes(b"cut off"), r"at-96\.safetensors of run .* is no safetensors file: "),
    (lambda path: save_file({k: v * np.nan for k, v in load_file(path).items()}, path), "are not finite numbers"),
])  # fmt: skip
def test_a_checkpoint_that_can_not_be_drawn_with_is_left_out_by_name(
    taught: Store, student: Run, spoil: Callable, said: str
) -> None:
    spoil(student.path / "at-96.safetensors")
    (student.path / "at-last.safetensors").touch()  # of no run
    with pytest.warns(UserWarning, match=f"the checkpoint at 96 images is left out: .*{said}"):
        found = metrics.evaluate(student, taught, samples=SMALL, force=True)
    assert found["checkpoints"] == {} and found["values"]


def test_a_teacher_is_not_measured_against_a_teacher(taught: Store) -> None:
    found = metrics.evaluate(taught.get("tiny"), taught, samples=16)
    assert not [name for name in found["values"] if "teacher" in name]
    assert found["solver"] == TINY_TEACHER.solver


def test_digits_are_measured_on_a_thousand_images() -> None:
    assert metrics.SAMPLES.get("digits", metrics.DEFAULT_SAMPLES) == 1_000
    assert metrics.SAMPLES.get("fashion-mnist", metrics.DEFAULT_SAMPLES) == 10_000


def test_measuring_again_does_nothing_unless_asked(taught: Store, student: Run, monkeypatch) -> None:
    first = metrics.evaluate(student, taught, samples=SMALL)
    monkeypatch.setattr(metrics, "generate", lambda *a, **k: pytest.fail("images were drawn again"))
    assert metrics.evaluate(student, taught, samples=SMALL) == first
    with pytest.raises(pytest.fail.Exception):
        metrics.evaluate(student, taught, samples=SMALL, force=True)


def test_metrics_of_other_conditions_are_not_written_over_unasked(taught: Store, student: Run) -> None:
    first = metrics.evaluate(student, taught, samples=SMALL)
    with pytest.raises(ValueError, match=f"with samples {SMALL}; --force replaces that by samples {SMALL + 1},"):
        metrics.evaluate(student, taught, samples=SMALL + 1)
    assert student.read("metrics") == first
    student.write("metrics", first | {"weights_sha256": "0" * 64})  # of weights that are gone: nothing is lost
    assert metrics.evaluate(student, taught, samples=16)["samples"] == 16


def test_the_teachers_images_are_made_once(taught: Store, student: Run, monkeypatch) -> None:
    first = metrics.evaluate(student, taught, samples=SMALL)
    monkeypatch.setattr(metrics, "draw", lambda *a, **k: pytest.fail("the teacher was sampled again"))
    again = metrics.evaluate(student, taught, samples=SMALL, force=True)
    assert again["values"] == first["values"]


def test_a_spoilt_cache_is_made_again(tmp_path) -> None:
    path, made = tmp_path / "real-0.npz", torch.arange(12.0).view(3, 4)

    def kept(make=lambda: made) -> torch.Tensor:
        return metrics._kept(path, "features", 3, make)

    assert torch.equal(kept(), made)
    whole, others = path.read_bytes(), []
    for arrays in ({"images": np.zeros((3, 4))}, {"features": np.zeros((2, 4))}, {"features": np.zeros(())}):
        np.savez(file := io.BytesIO(), **arrays)
        others.append(file.getvalue())
    for content in (b"", b"PK", whole[:100], whole[:-30], whole.replace(b"\x93NUMPY", b"\x93mumpy"), *others):
        path.write_bytes(content)
        assert torch.equal(kept(), made)
        assert path.read_bytes() == whole
    kept(lambda: pytest.fail("a whole cache was made again"))


def test_the_teachers_images_are_those_of_the_same_noise_and_class(taught: Store) -> None:
    from lab.sampling import generate
    from lab.weights import load_student, spec_of_run

    teacher, seeds = taught.get("tiny"), range(500, 506)
    recipe = dataclasses.replace(TINY_STUDENT, teacher=f"run:{teacher.id}")
    expected, _ = generate(load_student(teacher), spec_of_run(teacher), seeds, solver=recipe.solver)
    assert torch.equal(metrics.teacher_images(recipe, taught, seeds), expected)


def test_a_teacher_of_other_weights_is_not_taken_from_the_cache(taught: Store, student: Run) -> None:
    metrics.evaluate(student, taught, samples=SMALL)
    made = set((taught.root / ".cache").glob("teacher-*"))
    other = experiment.run(dataclasses.replace(TINY_TEACHER, seed=1), taught, measure=False)
    recipe = dataclasses.replace(student.recipe, teacher=f"run:{other.id}")
    metrics.teacher_images(recipe, taught, range(8))
    assert len(set((taught.root / ".cache").glob("teacher-*")) - made) == 1


def test_a_net_of_some_classes_is_asked_for_those_and_measured_against_those(taught: Store) -> None:
    recipe = dataclasses.replace(TINY_TEACHER, classes=(3, 7), steps=0)
    run = experiment.run(recipe, taught, measure=False)
    y = metrics.labels(run.recipe, data.spec_of("digits", data.load("digits")), range(40))
    assert set(y.tolist()) == {3, 7}
    _, reference = metrics.real_features(run.recipe, taught, DIGITS)
    both = torch.isin(data.load("digits").labels, torch.tensor([3, 7])).sum().item()
    assert reference == f"train split of digits of classes 3, 7, {both} images"


def test_of_some_classes_each_is_asked_for_as_often() -> None:
    recipe = dataclasses.replace(TINY_TEACHER, classes=(2, 5, 8))
    y = metrics.labels(recipe, data.spec_of("digits", data.load("digits")), range(1500))
    assert set(y.unique().tolist()) == {2, 5, 8} and y.bincount(minlength=10)[[2, 5, 8]].min() > 440


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"seed": 1_000_000}, "seed must be from 100000 to 299000 for 1000 samp"),
        ({"samples": 200_001}, "samples must be from 8 to 200000, got 200001"),
    ],
)
def test_noises_of_training_and_of_the_reference_measure_nothing(student: Run, asked, said) -> None:
    with pytest.raises(ValueError, match=said):
        metrics.conditions(student, **asked)


def test_an_unconditional_net_on_labelled_data_has_no_class_accuracy(taught: Store) -> None:
    student = dataclasses.replace(TINY_TEACHER.student, num_classes=0)
    run = experiment.run(dataclasses.replace(TINY_TEACHER, student=student, steps=1), taught, measure=False)
    found = metrics.evaluate(run, taught, samples=16)
    assert "class_accuracy" not in found["values"]
    assert "fd" in found["values"]


# --- a second extractor ---


def test_a_second_extractor_measures_beside_the_first(taught: Store, student: Run) -> None:
    first = metrics.evaluate(student, taught, samples=SMALL)
    second = metrics.evaluate(student, taught, samples=SMALL, extractor=SECOND)
    assert student.read("metrics") == first and student.read(f"metrics-{SECOND}") == second
    assert second["extractor"] == SECOND and set(second["values"]) == {"fd", "kid", "precision", "recall"}
    assert second["values"]["fd"]["value"] != first["values"]["fd"]["value"]
    assert taught.table().set_index("run").loc[student.id, "fd"] == first["values"]["fd"]["value"]
    assert metrics.verify(student, taught, kept=f"metrics-{SECOND}").ok and metrics.verify(student, taught).ok


def test_an_extractor_is_named_by_how_its_name_begins() -> None:
    assert metrics.extractor_named("digits-vit", "digits") == SECOND
    assert metrics.extractor_named("digits-cnn", "digits") == DIGITS
    assert metrics.kept_in(DIGITS, "digits") == "metrics"
    for text, count in (("digits", 2), ("fashion-mnist-vit", 0)):
        with pytest.raises(ValueError, match=f"'{text}' begins the names of {count} extractors for digits; there are"):
            metrics.extractor_named(text, "digits")


def test_both_extractors_see_more_noise_as_a_larger_distance(digits) -> None:
    rng = torch.Generator().manual_seed(0)
    noisy = [(digits[:500] + scale * torch.randn(500, 1, 8, 8, generator=rng)).clamp(0, 255).to(torch.uint8)
             for scale in (0, 20, 60)]  # fmt: skip
    for extractor in (DIGITS, SECOND):
        real = metrics.extract(digits, extractor)
        found = [metrics.fd(metrics.extract(x, extractor), real) for x in noisy]
        assert found == sorted(found) and found[2] > 2 * found[0]


# --- verify ---


def test_committed_weights_give_the_stored_distance_again(taught: Store, student: Run) -> None:
    metrics.evaluate(student, taught, samples=SMALL)
    found = metrics.verify(student, taught)
    assert found.ok
    assert found.difference < 1e-6


def test_a_stored_distance_that_is_not_true_is_found(taught: Store, student: Run) -> None:
    stored = metrics.evaluate(student, taught, samples=SMALL)
    fd = stored["values"]["fd"]
    fd |= {"value": 0.95 * fd["value"], "ci95": [0.95 * end for end in fd["ci95"]]}
    student.write("metrics", stored)
    found = metrics.verify(student, taught)
    assert not found.ok
    assert found.difference == pytest.approx(1 / 0.95 - 1, rel=1e-3)


def test_metrics_of_other_weights_are_refused(taught: Store, student: Run) -> None:
    stored = metrics.evaluate(student, taught, samples=SMALL)
    student.write("metrics", stored | {"weights_sha256": "0" * 64})
    with pytest.raises(ValueError, match="was made with weights_sha256 000"):
        metrics.verify(student, taught)


def test_a_run_without_metrics_has_nothing_to_verify(taught: Store, student: Run) -> None:
    (student.path / "metrics.json").unlink()
    with pytest.raises(LookupError, match="has no metrics yet"):
        metrics.verify(student, taught)


# --- comparing ---


def test_rows_of_equal_conditions_can_be_compared() -> None:
    row = {"label": "a", "data": "digits", "fd": 1.0, "extractor": DIGITS, "samples": 64, "fd_reference": "train"}
    assert results.same_conditions(row, row | {"label": "b", "fd": 2.0}) is None


@pytest.mark.parametrize(("name", "other"), [("samples", 128), ("extractor", "x"), ("eval_seed", 7),
                                             ("fd_reference", "test"), ("data", "cifar10")])  # fmt: skip
def test_rows_of_other_conditions_say_what_differs(name: str, other: object) -> None:
    row = {"label": "a", "data": "digits", "fd": 1.0, "extractor": DIGITS, "samples": 64, "eval_seed": 1,
           "fd_reference": "train"}  # fmt: skip
    said = results.same_conditions(row, row | {"label": "b", name: other})
    assert said == f"fd can't be compared: {name} is {row[name]} for a and {other} for b"


def test_a_row_without_the_metric_says_so() -> None:
    row = {"label": "a", "fd": 1.0}
    assert results.same_conditions(row, {"label": "b", "fd": float("nan")}) == "b has no fd"


def test_missing_real_images_leave_a_finished_run_that_says_so(taught: Store, monkeypatch) -> None:
    def gone(*args: object, **settings: object) -> None:
        raise MissingData("fashion-mnist is not on this machine")

    monkeypatch.setattr(metrics, "real_features", gone)
    run = experiment.run(TINY_STUDENT, taught)
    assert run.status().state == "done"
    assert run.status().error == "not measured: fashion-mnist is not on this machine"


def test_a_distance_to_fewer_pictures_than_neighbours_is_refused_with_the_count(store: Store, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    (tmp_path / "p").mkdir()
    for i in range(3):
        Image.linear_gradient("L").rotate(9 * i).save(tmp_path / "p" / f"{i}.png")
    recipe = dataclasses.replace(TINY_TEACHER, data=f"folder:{tmp_path / 'p'}")
    with pytest.raises(MissingData, match="p has 3 training images"):
        metrics.real_features(recipe, store, DIGITS)


def test_a_folders_reference_tells_other_pictures_of_the_same_name_apart(store: Store, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    (tmp_path / "p").mkdir()
    recipe = dataclasses.replace(TINY_TEACHER, data=f"folder:{tmp_path / 'p'}")
    names = []
    for turn in range(2):
        for i in range(20):
            Image.linear_gradient("L").rotate(9 * i + 180 * turn).save(tmp_path / "p" / f"{i:02d}.png")
        names.append(metrics.real_features(recipe, store, DIGITS)[1])
    assert names[0] != names[1] and all(
        re.fullmatch(r"train split of folder:.*, 18 images \(\w{8}\)", n) for n in names
    )
