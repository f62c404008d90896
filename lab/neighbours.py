"""What lies beside each image of a run's sheet: its teacher's image, and the nearest real ones.

Written once into the run's folder, so that a page sorts and shows them without torch or data (lab.sheets reads it):

    neighbours.json   of which weights; each image's perceptual distance to the teacher's image of its noise and class;
                      the nearest training images' places in the split and distances
    neighbours.png    those training images, NEAREST of one image of the sheet beside each other

The perceptual distance is that of the loss (lab.perceptual). The nearest images are those in the space of the metric's
extractor, by Euclidean distance; how far a real image of the test split lies from its nearest one says what is near.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lab import data, diffusion, metrics, perceptual, sheets, teachers
from lab.config import JSON, Recipe
from lab.results import Run, Store, write_whole
from lab.sampling import draw
from lab.weights import spec_of_run

NEAREST = 3
TEST_IMAGES = 1_000  # of the test split, whose distance to the training images is the yardstick
DIGITS = 6  # that are kept of a distance


def ensure(run: Run, store: Store, *, force: bool = False, device: torch.device | str = "cpu") -> dict[str, JSON]:
    """Make neighbours.json and neighbours.png of a finished run's sheet; gives the content of the first.

    Those of these weights and noises are returned as they are, unless `force`. Raises LookupError where the sheet, the
    teacher, the real images or the extractor's own weights are not there.
    """
    sheet, student = sheets.read_samples(run.path / "samples.npz"), run.read("student")
    if sheet is None or not isinstance(student, dict):
        raise LookupError(f"run {run.id} has no sheet to compare; `python -m lab sample {run.id} --out "
                          f"{run.path / 'samples.npz'}` draws one")  # fmt: skip
    if not force and sheets.read_neighbours(run.path, sheet, student["weights_sha256"]) is not None:
        return run.read("neighbours")
    recipe, images = run.recipe, torch.from_numpy(sheet.images)
    nearest, real = _nearest(recipe, store, images, device)
    facts = {
        "weights_sha256": student["weights_sha256"], "seeds": sheet.seeds.tolist(),
        "teacher": _to_teacher(run, store, sheet, device), "nearest": nearest,
    }  # fmt: skip
    # The picture first: whoever reads the JSON may count on it.
    write_whole(run.path / "neighbours.png", sheets.png(real.numpy(), 8 * NEAREST))
    run.write("neighbours", facts)
    return facts


@torch.inference_mode()
def _to_teacher(run: Run, store: Store, sheet: sheets.Samples, device: torch.device | str) -> dict[str, JSON] | None:
    """The distance of every image to its teacher's; None for a teacher, and where there is no such distance."""
    recipe, spec = run.recipe, spec_of_run(run)
    if not recipe.teacher:
        return None
    try:
        by = perceptual.name(spec)
    except LookupError:
        return None
    teacher = teachers.load(recipe.teacher, store, solver=recipe.solver, device=device)
    y = None if (sheet.classes < 0).any() else torch.from_numpy(sheet.classes).long()
    theirs, _ = draw(teacher, sheet.seeds.tolist(), y=y, device=device)
    mine = torch.from_numpy(sheet.images)
    apart = perceptual.load(spec)(*(diffusion.from_uint8(x).to(device) for x in (mine, theirs)))
    return {"teacher": recipe.teacher, "solver": recipe.solver, "by": by, "distance": _rounded(apart)}


def _nearest(recipe: Recipe, store: Store, images: Tensor, device: torch.device | str
             ) -> tuple[dict[str, JSON], Tensor]:  # fmt: skip
    """Of every image the NEAREST training images, near to far; and these images, (N x NEAREST, C, H, W) uint8."""
    extractor = metrics.extractor_of(recipe.data)
    size, channels = recipe.student.image_size, recipe.student.channels
    splits = {name: data.choose_classes(data.load(recipe.data, name, size=size, channels=channels), recipe.classes)
              for name in ("train", "test")}  # fmt: skip
    real, reference = metrics.real_features(recipe, store, extractor, device=device)
    drawn, test = (metrics.extract(x, extractor, device=device) for x in (images, splits["test"].images[:TEST_IMAGES]))
    distance, index = torch.cdist(drawn, real).topk(NEAREST, largest=False)
    usual = torch.cdist(test, real).amin(1).median()
    facts = {"by": extractor, "reference": reference, "index": index.tolist(), "distance": _rounded(distance),
             "test": {"median": _rounded(usual), "images": len(test)}}  # fmt: skip
    return facts, splits["train"].images[index.flatten()]


def _rounded(x: Tensor) -> JSON:
    return torch.round(x.cpu().double(), decimals=DIGITS).tolist()  # in this order: an Apple GPU has no float64
