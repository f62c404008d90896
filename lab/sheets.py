"""Contact sheets: many small images as one PNG. No torch here."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lab.results import UNREADABLE, look


def tile(images: np.ndarray, columns: int) -> np.ndarray:
    """(N, C, H, W) uint8 -> one picture (rows H, columns W, C), filled row by row, white where empty."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    full = np.full((rows * columns, c, h, w), 255, np.uint8)
    full[:n] = images
    return full.reshape(rows, columns, c, h, w).transpose(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)


def untile(picture: np.ndarray, size: int) -> np.ndarray:
    """The images (N, C, size, size) of a sheet; the inverse of `tile` for a full one."""
    h, w = picture.shape[:2]
    tiles = picture.reshape(h // size, size, w // size, size, -1).transpose(0, 2, 4, 1, 3)
    return tiles.reshape(-1, tiles.shape[2], size, size)


def to_png(picture: np.ndarray) -> bytes:
    """(H, W, 1 or 3) uint8 as PNG."""
    out = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(out, "PNG", optimize=True)
    return out.getvalue()


def png(images: np.ndarray, columns: int) -> bytes:
    """(N, C, H, W) uint8 as one PNG."""
    return to_png(tile(images, columns))


def read_png(content: bytes) -> np.ndarray:
    """(H, W, 1 or 3) uint8."""
    picture = np.asarray(Image.open(io.BytesIO(content)))
    return picture[..., None] if picture.ndim == 2 else picture[..., :3]


@dataclass(frozen=True)
class Samples:
    """A run's samples.npz: the images on the common seeds."""

    images: np.ndarray  # (N, C, H, W) uint8
    classes: np.ndarray  # (N,); -1 of a network that is told none
    seeds: np.ndarray  # (N,)


def read_samples(path: Path) -> Samples | None:
    """The samples of a file, or None where there is no such file or it can't be read."""
    try:
        with np.load(path) as file:
            classes = file["classes"] if "classes" in file else np.full(file["images"].shape[:1], -1)
            found = Samples(file["images"], classes, file["seeds"])
    except UNREADABLE:
        return None
    images = found.images
    whole = images.ndim == 4 and images.dtype == np.uint8 and images.shape[1] in (1, 3) and images.size > 0
    told = all(of.shape == images.shape[:1] and of.dtype.kind in "iu" for of in (found.classes, found.seeds))
    return found if whole and told else None


@dataclass(frozen=True)
class Neighbours:
    """A run's neighbours.json and .png, one entry for each image of its sheet (lab.neighbours makes them)."""

    to_teacher: np.ndarray | None  # (N,) perceptual distance to the teacher's image; None of a teacher
    teacher: str  # whose images, and by which solver; "" where to_teacher is None
    by: str  # which perceptual distance
    real: np.ndarray  # (N, K, C, H, W) uint8, the nearest training images, near to far
    index: np.ndarray  # (N, K) their places in the split
    distance: np.ndarray  # (N, K) Euclidean, in the extractor's space
    extractor: str
    reference: str  # the split and its count
    usual: float  # median distance of a real image of the test split to its nearest training image
    usual_of: int  # images of the test split


def read_neighbours(folder: Path, sheet: Samples, weights_sha256: str) -> Neighbours | None:
    """The neighbours of a sheet; None where there are none of these weights and noises, or they can't be read."""
    facts, _ = look(folder / "neighbours.json", "neighbours")
    if not facts or facts["weights_sha256"] != weights_sha256 or facts["seeds"] != sheet.seeds.tolist():
        return None
    try:
        picture = read_png((folder / "neighbours.png").read_bytes())
        near, taught = facts["nearest"], facts["teacher"] or {}
        index, distance = np.array(near["index"]), np.array(near["distance"], float)
        count, *shape = sheet.images.shape
        real = untile(picture, shape[-1])[: index.size].reshape(count, index.shape[1], *shape)
        to_teacher = np.array(taught["distance"], float).reshape(count) if taught else None
        return Neighbours(
            to_teacher, f"{taught['teacher']}, {taught['solver']}" if taught else "", taught.get("by", ""), real,
            index, distance.reshape(index.shape), near["by"], near["reference"],
            float(near["test"]["median"]), near["test"]["images"],
        )  # fmt: skip
    except (OSError, ValueError, IndexError):  # a picture of others, or lists of other lengths
        return None
