"""Quality of a run's committed weights: distances by torch-fidelity, each with its conditions.

Data with nets of its own has two extractors: one by which all is measured and chosen, and a second of another
architecture that nothing is tuned to, which says whether a ranking holds (`evaluate` with `extractor`).

Every value of metrics.json names what it is measured against; extractor, number of samples and seed
stand beside them. Images are drawn from the fp16 weights that are kept, on seeds that no training
and no sheet uses. A distance of 1,000 samples is larger than one of 10,000: values of different
conditions are not comparable (lab.results.same_conditions).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity import registry, utils
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric
from tqdm.auto import tqdm

from lab import data, diffusion, features, pairs, perceptual, teachers
from lab.config import JSON, Recipe
from lab.data import ImageSpec, MissingData
from lab.results import UNREADABLE, Run, Store, write_whole
from lab.sampling import draw, generate
from lab.weights import load_student, spec_of_run

SAMPLES = {"digits": 1_000}  # the set has 1,498 training images
DEFAULT_SAMPLES = 10_000
TEACHER_IMAGES = 2_048  # of the evaluation's seeds that student and teacher are compared on, image by image
KID_SUBSETS, KID_SUBSET = 50, 1_000  # torch-fidelity's subset size, or half of a smaller set
PRC_IMAGES = 10_000  # of each set; 60,000 would need 14 GB
PRC_BATCH = 2_500
FEWEST = 4  # images of a reference: precision and recall look at the third neighbour of each
DRAWS = 100  # of the bootstrap
TOLERANCE = 0.02  # relative difference that `verify` accepts
INCEPTION = "inception-v3-compat"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
LAYER = {INCEPTION: "2048"}  # of torch-fidelity's extractors; ours have one, "features"


# --- features -----------------------------------------------------------------------------------


class ClassifierFeatures(FeatureExtractorBase):
    """A metric net of lab/assets as torch-fidelity's feature extractor; its name says which."""

    def __init__(
        self, name: str, features_list: list[str], **_: object
    ) -> None:  # torch-fidelity hands over all it has
        super().__init__(name, features_list)
        self.net = features.load(*features.measuring()[name])

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("features",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(B, C, H, W) uint8 -> ((B, D) float64,)."""
        return (self.net.features(diffusion.from_uint8(x)).double(),)


class Rows(Dataset):
    """uint8 images one by one; torch-fidelity refuses a tensor and a TensorDataset."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def extractor_of(name: str) -> str:
    """The extractor that measures a data set: its own net, or Inception for natural images."""
    return features.name(name) if name in features.known() else INCEPTION


def extractor_named(text: str, name: str) -> str:
    """The extractor of a data set's images whose name begins so: one of its own nets, or Inception.

    Raises ValueError with those that there are.
    """
    known = [extractor for extractor, (whose, _) in features.measuring().items() if whose == name] + [INCEPTION]
    found = [extractor for extractor in known if extractor.startswith(text)]
    if len(found) != 1:
        raise ValueError(f"{text!r} begins the names of {len(found)} extractors for {name}; "
                         f"there are {', '.join(known)}")  # fmt: skip
    return found[0]


def kept_in(extractor: str, name: str) -> str:
    """The file of a run that holds what an extractor says about images of a data set, without its .json."""
    return "metrics" if extractor == extractor_of(name) else f"metrics-{extractor}"


def register(extractor: str) -> None:
    """Make an extractor known to torch-fidelity; the same name twice is no change.

    Raises LookupError for a net that is not in lab/assets.
    """
    if extractor in registry.FEATURE_EXTRACTORS_REGISTRY:
        return
    ours = features.measuring()
    if extractor not in ours:
        raise LookupError(f"no feature extractor {extractor!r} here; known: {', '.join([*ours, INCEPTION])}")
    registry.register_feature_extractor(extractor, ClassifierFeatures)


def create(extractor: str, device: torch.device | str) -> FeatureExtractorBase:
    """A ready extractor. Raises MissingData where Inception's weights can't be had."""
    register(extractor)
    layers = [LAYER.get(extractor, "features")]
    folder = perceptual.weights_dir() if extractor == INCEPTION else None
    try:
        return utils.create_feature_extractor(extractor, layers, cuda=_cuda(device), verbose=False)
    except OSError as error:  # urllib's errors too
        raise MissingData(
            f"extractor {extractor} needs {INCEPTION_FILE} (torch-fidelity, release v0.2.0) and its download failed "
            f"({error}). Either give a network connection, or put the file into {folder}"
        ) from error


def extract(images: Tensor, extractor: str, *, batch: int = 256, device: torch.device | str = "cpu", title: str = ""
            ) -> Tensor:  # fmt: skip
    """Features (N, D) float64 of uint8 images (N, C, H, W), by torch-fidelity."""
    net = create(extractor, device)
    if extractor == INCEPTION and images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    found = []
    with tqdm(total=len(images), desc=title, unit="images", disable=not title) as bar:
        for chunk in images.split(8 * batch):
            part = utils.get_featuresdict_from_dataset(Rows(chunk), net, batch, _cuda(device), True, False)
            found.append(part[net.features_list[0]].double())
            bar.update(len(chunk))
    return torch.cat(found)


def _cuda(device: torch.device | str) -> bool:
    return torch.device(device).type == "cuda"  # torch-fidelity knows CPU and CUDA


# --- distances ----------------------------------------------------------------------------------


def fd(a: Tensor, b: Tensor) -> float:
    """Frechet distance of the Gaussians of two sets of features (Heusel et al. 2017, Eq. 6); (N, D), (M, D)."""
    statistics = [fid_features_to_statistics(x) for x in (a, b)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


def kid(a: Tensor, b: Tensor) -> float:
    """Kernel distance of two sets of features (arXiv 1801.01401), the mean over random subsets."""
    found = kid_features_to_metric(a, b, kid_subsets=KID_SUBSETS, kid_subset_size=_kid_subset(a, b), verbose=False)
    return found[KEY_METRIC_KID_MEAN]


def _kid_subset(a: Tensor, b: Tensor) -> int:
    return min(KID_SUBSET, (min(len(a), len(b)) + 1) // 2)


def precision_recall(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Share of generated `a` near real `b`, and of `b` near `a` (arXiv 1904.06991); at most PRC_IMAGES of each."""
    found = prc_features_to_metric(_some(a), _some(b), save_cpu_ram=True, prc_batch_size=PRC_BATCH, verbose=False)
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


def _some(x: Tensor) -> Tensor:
    """At most PRC_IMAGES rows; drawn by a fixed seed, for a folder's pictures lie class by class."""
    if len(x) <= PRC_IMAGES:
        return x
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:PRC_IMAGES]]


def fd_interval(a: Tensor, b: Tensor, value: float, *, draws: int = DRAWS, seed: int = 0) -> list[float]:
    """95 % interval of the Frechet distance by resampling the generated features `a`.

    A resample repeats some images and so lies farther from `b` than `a` does; the draws are therefore
    moved so that their mean is `value`, and only their spread is used.
    """
    rng = np.random.default_rng(seed)
    x, real = a.numpy(), b.numpy()
    mu, half = real.mean(0), _square_root(np.cov(real, rowvar=False))
    found = []
    for _ in range(draws):
        weight = np.bincount(rng.integers(len(x), size=len(x)), minlength=len(x))
        mean = weight @ x / len(x)
        centred = x - mean
        sigma = centred.T @ (centred * weight[:, None]) / (len(x) - 1)
        found.append(_fd_to(mu, half, mean, sigma))
    low, high = np.quantile(found, [0.025, 0.975]) - np.mean(found) + value
    return [max(float(low), 0.0), float(high)]


def _fd_to(mu: np.ndarray, half: np.ndarray, mean: np.ndarray, sigma: np.ndarray) -> float:
    """The same distance in symmetric form, with `half` the root of the reference's covariance: 10x faster."""
    shared = np.sqrt(np.linalg.eigvalsh(half @ sigma @ half).clip(0)).sum()
    return float(((mean - mu) ** 2).sum() + np.trace(sigma) + (half**2).sum() - 2 * shared)


def _square_root(sigma: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(sigma)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def _values(a: Tensor, b: Tensor, reference: str, *, draws: int = DRAWS) -> dict[str, JSON]:
    """fd with its interval, kid, precision and recall of generated features `a` against `b`."""
    precision, recall = precision_recall(a, b)
    near = f"{reference}, {min(len(a), PRC_IMAGES):,} against {min(len(b), PRC_IMAGES):,}, 3rd neighbour"
    subsets = f"{reference}, {KID_SUBSETS} subsets of {_kid_subset(a, b):,}"
    return _fd_value(a, b, reference, draws=draws) | {
        "kid": {"value": kid(a, b), "reference": subsets},
        "precision": {"value": precision, "reference": near},
        "recall": {"value": recall, "reference": near},
    }


def _fd_value(a: Tensor, b: Tensor, reference: str, *, draws: int = DRAWS) -> dict[str, JSON]:
    value = fd(a, b)
    return {"fd": {"value": value, "reference": reference, "ci95": fd_interval(a, b, value, draws=draws)}}


def distances(images_a: Tensor, images_b: Tensor, extractor: str, *, batch: int = 256,
              device: torch.device | str = "cpu", draws: int = DRAWS) -> dict[str, JSON]:  # fmt: skip
    """fd, kid, precision and recall of uint8 images (N, C, H, W) against others, with their conditions.

    The form of metrics.json: {"extractor", "samples", "values": {name: {"value", "reference", ...}}}.
    """
    for name, images in [("images_a", images_a), ("images_b", images_b)]:
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) < 8:
            raise ValueError(f"{name} must be at least 8 uint8 images (N, C, H, W), "
                             f"got {tuple(images.shape)} {images.dtype}")  # fmt: skip
    a, b = (extract(x, extractor, batch=batch, device=device) for x in (images_a, images_b))
    values = _values(a, b, f"given set of {len(b):,} images", draws=draws)
    return {"extractor": extractor, "samples": len(a), "values": values}


@torch.inference_mode()
def class_accuracy(images: Tensor, classes: Tensor, name: str, *, batch: int = 500) -> float:
    """Share of uint8 images that the metric net of data set `name` takes for the class they were asked to be."""
    net = features.load(name)
    right = [net(diffusion.from_uint8(x)).argmax(1) == y for x, y in zip(images.split(batch), classes.split(batch))]
    return torch.cat(right).double().mean().item()


# --- what a run is measured against -------------------------------------------------------------


def _kept(path: Path, name: str, count: int, make: Callable[[], Tensor]) -> Tensor:
    """The array of a cache file, `count` long, made and written on first use, and again where the file is deleted,
    spoilt or another's.
    """
    with contextlib.suppress(*UNREADABLE), np.load(path) as file:
        if file[name].shape[:1] == (count,):
            return torch.from_numpy(file[name])
    made, buffer = make(), io.BytesIO()
    np.savez_compressed(buffer, **{name: made.numpy()})
    write_whole(path, buffer.getvalue())
    return made


def _cache(store: Store, *key: object) -> Path:
    return store.root / ".cache" / f"{key[0]}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.npz"


def real_features(recipe: Recipe, store: Store, extractor: str, *, batch: int = 256,
                  device: torch.device | str = "cpu") -> tuple[Tensor, str]:  # fmt: skip
    """Features of the whole training split (N, D), and its name with its count.

    Kept under results/.cache by the images' content. Raises MissingData where the images can't be had.
    """
    size, channels = recipe.student.image_size, recipe.student.channels
    chosen = data.choose_classes(data.load(recipe.data, "train", size=size, channels=channels), recipe.classes)
    images = chosen.images
    if len(images) < FEWEST:
        raise MissingData(f"{recipe.data} has {len(images)} training images{_some_classes(recipe)}; a distance is "
                          f"taken to {FEWEST} or more")  # fmt: skip
    digest = data.digest(chosen)
    path = _cache(store, "real", extractor, tuple(images.shape), digest)

    def make() -> Tensor:
        return extract(images, extractor, batch=batch, device=device, title=f"features of {recipe.data}").float()

    name = f"train split of {recipe.data}{_some_classes(recipe)}, {len(images):,} images"
    if recipe.data.startswith("folder:"):  # whose pictures may be others tomorrow
        name += f" ({digest[:8]})"
    return _kept(path, "features", len(images), make).double(), name


def _some_classes(recipe: Recipe) -> str:
    return "" if recipe.classes is None else f" of classes {', '.join(map(str, recipe.classes))}"


def labels(recipe: Recipe, spec: ImageSpec, seeds: range) -> Tensor | None:
    """The class of every seed, (N,), for a recipe of some classes only; None: as the seeds draw them."""
    if recipe.classes is None:
        return None
    # Of as many classes as there are, for all to be equally frequent, as in the reference.
    _, drawn = diffusion.noise_of(seeds, spec.shape, len(recipe.classes) if spec.num_classes else 0)
    return None if drawn is None else torch.tensor(recipe.classes)[drawn]


def teacher_images(recipe: Recipe, store: Store, seeds: range, *, batch: int = 250,
                   device: torch.device | str = "cpu") -> Tensor:  # fmt: skip
    """The recipe's teacher on some seeds with the recipe's solver, uint8 (N, C, H, W); kept under results/.cache."""
    what = pairs.pair_set(store, recipe.teacher, recipe.solver)
    what = replace(what, first_seed=seeds.start, classes=recipe.classes)

    def make() -> Tensor:
        teacher = teachers.load(
            what.teacher, store, solver=what.solver, dtype=what.dtype, device=device, thousands=True
        )
        y = labels(recipe, teacher.spec, seeds)
        images, _ = draw(teacher, seeds, y=y, batch=batch, device=device, title="images of the teacher")
        return images

    return _kept(_cache(store, "teacher", what.id, len(seeds)), "images", len(seeds), make)


# --- a run --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a run is measured: the conditions, and where."""

    extractor: str
    samples: int
    seed: int
    batch: int
    device: torch.device | str

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.samples)


def evaluate(run: Run, store: Store, *, samples: int | None = None, seed: int = diffusion.EVAL_SEED,
             extractor: str | None = None, batch: int = 250, device: torch.device | str = "cpu", force: bool = False
             ) -> dict[str, JSON]:  # fmt: skip
    """Measure a run's committed weights and write metrics.json; gives its content.

    `samples` None is 10,000, or 1,000 for digits. An `extractor` beside the data's own gives distance, precision and
    recall alone, in a file of its own (`kept_in`). Metrics of these weights under these conditions that
    are there already are returned as they are, unless `force`. Raises LookupError where the weights,
    the real images or the extractor's own weights are not there, ValueError where metrics of these weights
    under other conditions would be written over.
    """
    began = time.monotonic()
    recipe, spec, net = run.recipe, spec_of_run(run), load_student(run, device=device)
    head = conditions(run, samples=samples, seed=seed, extractor=extractor)
    kept = kept_in(head["extractor"], recipe.data)
    setting = Setting(extractor=head["extractor"], samples=head["samples"], seed=seed, batch=batch, device=device)
    found = measured(run, head, force=force)
    if found is not None:
        if kept == "metrics":
            _not_missing(run)
        return found
    create(setting.extractor, device)  # before the long work: its weights may be missing
    real, reference = real_features(recipe, store, setting.extractor, batch=batch, device=device)
    images, y = _draw(run, net, setting)
    generated = extract(images, setting.extractor, batch=batch, device=device)
    metrics = head | {"seconds": 0.0, "values": _values(generated, real, reference)}
    if kept == "metrics":
        metrics["values"] |= _class_value(recipe, net, images, y)
        if recipe.teacher:
            metrics["values"] |= _teacher_values(recipe, store, spec, images, generated, setting)
        metrics["checkpoints"] = _checkpoints(run, real, reference, setting)
    metrics["seconds"] = round(time.monotonic() - began, 1)
    run.write(kept, metrics)
    if kept == "metrics":
        _not_missing(run)
    return metrics


def conditions(run: Run, *, samples: int | None = None, seed: int = diffusion.EVAL_SEED, extractor: str | None = None
               ) -> dict[str, JSON]:  # fmt: skip
    """What `evaluate` would measure a run under: weights, extractor, samples, seed, and a denoiser's solver."""
    recipe, student = run.recipe, run.read("student")
    if not isinstance(student, dict):
        raise LookupError(f"run {run.id} has no finished network; its state is {run.status().state!r}")
    count = SAMPLES.get(recipe.data, DEFAULT_SAMPLES) if samples is None else samples
    most = diffusion.REFERENCE_SEED - diffusion.EVAL_SEED
    if not 8 <= count <= most:
        raise ValueError(f"samples must be from 8 to {most}, got {count}")
    if not diffusion.EVAL_SEED <= seed <= diffusion.REFERENCE_SEED - count:
        raise ValueError(f"seed must be from {diffusion.EVAL_SEED} to {diffusion.REFERENCE_SEED - count} for {count} "
                         f"samples, got {seed}: the other noises serve training, sheets and the reference")  # fmt: skip
    head = {"weights_sha256": student["weights_sha256"], "extractor": extractor or extractor_of(recipe.data),
            "samples": count, "seed": seed}  # fmt: skip
    return head | ({"solver": recipe.drawn_by} if run.config.time else {})


def measured(run: Run, head: Mapping[str, JSON], *, force: bool = False) -> dict[str, JSON] | None:
    """The metrics that a run has under these conditions, None where it is to be measured.

    Raises ValueError where its weights are measured under others, which would be written over, unless `force`.
    """
    found = run.read(kept_in(head["extractor"], run.recipe.data))
    if force or not isinstance(found, dict) or found.get("weights_sha256") != head["weights_sha256"]:
        return None
    if other := [name for name in head if found.get(name) != head[name]]:
        was, now = (", ".join(f"{name} {of.get(name)}" for name in other) for of in (found, head))
        raise ValueError(f"run {run.id} is measured already with {was}; --force replaces that by {now}, and the two "
                         "are not comparable")  # fmt: skip
    return found


def _not_missing(run: Run) -> None:
    """Forget why a finished run could not be measured before."""
    status = run.status()
    if status.state == "done" and status.error:
        run.set_status(error="")


def _draw(run: Run, net: nn.Module, setting: Setting) -> tuple[Tensor, Tensor | None]:
    """The run's images on the evaluation's seeds, uint8 (N, C, H, W), and their classes (N,)."""
    spec, recipe = spec_of_run(run), run.recipe
    return generate(net, spec, setting.seeds, y=labels(recipe, spec, setting.seeds), solver=recipe.drawn_by,
                    batch=setting.batch, device=setting.device, title=f"images of {run.id[-32:]}",
                    name=run.id)  # fmt: skip


def _class_value(recipe: Recipe, net: nn.Module, images: Tensor, y: Tensor | None) -> dict[str, JSON]:
    """class_accuracy, for nets that are told a class and data with a classifier."""
    if y is None or not net.config.num_classes or recipe.data not in features.known():
        return {}
    real = features.facts(recipe.data)["test_accuracy"]
    reference = f"class asked for, by {features.name(recipe.data)}, which is right on {real:.1%} of the test split"
    return {"class_accuracy": {"value": class_accuracy(images, y, recipe.data), "reference": reference}}


def _teacher_values(recipe: Recipe, store: Store, spec: ImageSpec, images: Tensor, generated: Tensor,
                    setting: Setting) -> dict[str, JSON]:  # fmt: skip
    """fd_teacher to fresh samples; teacher_l1 and teacher_perceptual to the image of the same noise and class."""
    seeds = range(diffusion.REFERENCE_SEED, diffusion.REFERENCE_SEED + setting.samples)
    fresh = teacher_images(recipe, store, seeds, batch=setting.batch, device=setting.device)
    theirs = extract(fresh, setting.extractor, batch=setting.batch, device=setting.device)
    who = f"{recipe.teacher}, {recipe.solver}"
    reference = f"{who}, {len(fresh):,} images from seed {seeds.start}"
    values: dict[str, JSON] = {"fd_teacher": {"value": fd(generated, theirs), "reference": reference}}
    same = teacher_images(recipe, store, setting.seeds[:TEACHER_IMAGES], batch=setting.batch, device=setting.device)
    mine = images[: len(same)]
    reference = f"{who}, same noise and class, {len(same):,} images in [-1, 1]"
    l1 = (diffusion.from_uint8(mine) - diffusion.from_uint8(same)).abs().mean().item()
    values["teacher_l1"] = {"value": l1, "reference": reference}
    reference = f"{reference}, {perceptual.name(spec)}"
    values["teacher_perceptual"] = {"value": _perceptual(spec, mine, same, setting), "reference": reference}
    return values


@torch.inference_mode()
def _perceptual(spec: ImageSpec, a: Tensor, b: Tensor, setting: Setting) -> float:
    distance = perceptual.load(spec)
    parts = [
        distance(*(diffusion.from_uint8(x).to(setting.device) for x in both)).cpu()
        for both in zip(a.split(setting.batch), b.split(setting.batch))
    ]
    return torch.cat(parts).double().mean().item()


def _checkpoints(run: Run, real: Tensor, reference: str, setting: Setting) -> dict[str, JSON]:
    """images seen -> fd of the checkpoints that the run kept on its way."""
    found: dict[str, JSON] = {}
    for seen in sorted(n for n in run.recipe.keep if (run.path / f"at-{n}.safetensors").exists()):
        try:
            images, _ = _draw(run, load_student(run, images=seen, device=setting.device), setting)
        except ValueError as error:  # the run's own network is not measured by it
            warnings.warn(f"the checkpoint at {seen:,} images is left out: {error}", stacklevel=2)
            continue
        generated = extract(images, setting.extractor, batch=setting.batch, device=setting.device)
        found[str(seen)] = _fd_value(generated, real, reference)
    return found


# --- a check ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Verification:
    """A stored distance beside the one that the committed weights give now."""

    run: str
    stored: float
    recomputed: float
    difference: float  # relative to the stored one
    ok: bool  # within TOLERANCE
    extractor: str
    samples: int
    seed: int


def verify(run: Run, store: Store, *, kept: str = "metrics", batch: int = 256, device: torch.device | str = "cpu"
           ) -> Verification:  # fmt: skip
    """Draw the run's images again from its committed weights and compare the distance with metrics.json, or `kept_in`.

    Raises LookupError for a run without metrics, ValueError where weights or extractor are not those of
    the stored figure.
    """
    metrics = run.read(kept)
    if not isinstance(metrics, dict) or "fd" not in metrics.get("values", {}):
        raise LookupError(f"run {run.id} has no {kept} yet; measure it first")
    net, recipe = load_student(run, device=device), run.recipe
    _same_makers(run, metrics, extractor_of(recipe.data) if kept == "metrics" else kept.removeprefix("metrics-"))
    setting = Setting(extractor=metrics["extractor"], samples=metrics["samples"], seed=metrics["seed"],
                      batch=batch, device=device)  # fmt: skip
    real, _ = real_features(recipe, store, setting.extractor, batch=batch, device=device)
    images, _ = _draw(run, net, setting)
    again = fd(extract(images, setting.extractor, batch=batch, device=device), real)
    stored = metrics["values"]["fd"]["value"]
    difference = abs(again - stored) / max(abs(stored), 1e-9)
    return Verification(run=run.id, stored=stored, recomputed=again, difference=difference, ok=difference <= TOLERANCE,
                        extractor=setting.extractor, samples=setting.samples, seed=setting.seed)  # fmt: skip


def _same_makers(run: Run, metrics: Mapping[str, JSON], extractor: str) -> None:
    """Raises ValueError where the stored figure belongs to other weights or another extractor."""
    weights = run.read("student")["weights_sha256"]
    for name, stored, now in [("weights_sha256", metrics["weights_sha256"], weights),
                              ("extractor", metrics["extractor"], extractor)]:  # fmt: skip
        if stored != now:
            raise ValueError(f"metrics.json of run {run.id} was made with {name} {stored}, here it is {now}")
