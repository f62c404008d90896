"""Real images: digits, Fashion-MNIST, CIFAR-10, or any folder of pictures.

A data set is one function in DATASETS that gives uint8 images and labels of a split. Images live in
memory as uint8 (N, C, H, W) and leave as float in [-1, 1].
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import math
import os
import re
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lab.config import unknown
from lab.diffusion import from_uint8
from lab.places import at_home, if_there
from lab.results import UNREADABLE, write_whole

if TYPE_CHECKING:
    from PIL import Image

ASSETS = Path(__file__).parent / "assets"
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
DEBIAN_MEND = "apt-get install --reinstall dataset-fashion-mnist"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
FASHION_CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat",
                   "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")  # fmt: skip
SPLITS = {
    **dict.fromkeys(("train", "training", "trains", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tests", "tst", "holdout", "heldout"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development", "eval", "evaluation"), "val"),
}
# What else stands in the names of splits: train_set, testset, training-data, val2017.
BESIDE_SPLITS = re.compile(r"[^a-z]+|(dataset|set|data|images?|imgs?|pictures?|photos?|split)(?![a-z])")
DIM = 80  # of 255; 14 bits in 16 are at most 63, and photographs of the night have lamps
FEW = 0.01  # of a folder's pictures may be of one colour, such as a tile of the sea, without a word
DECODING = 3  # of pictures; another number where the same file gives other pixels than before
TRANSPOSED = (None, None, 0, 3, 1, 5, 4, 6, 2)  # PIL's Transpose of each orientation that EXIF knows, 1 to 8
# A PNG's pixels of these kinds are read as 8 bits each, its transparent value (t) is told as it stands in the file.
PNG_LEVELS = {"L;2": lambda t: t * 85, "L;4": lambda t: t * 17, "RGB;16B": lambda t: tuple(c >> 8 for c in t)}
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer",
                 "dog", "frog", "horse", "ship", "truck")  # fmt: skip
CLASS_NAMES = {"digits": tuple("0123456789"), "fashion-mnist": FASHION_CLASSES, "cifar10": CIFAR_CLASSES}


class MissingData(LookupError):
    """A data set that is not on this machine; the message says how to get it."""


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """What an image of a data set is; travels with every teacher and student."""

    data: str
    size: int
    channels: int
    num_classes: int
    class_names: tuple[str, ...] = ()
    sigma_data: float = 0.5  # standard deviation of the training images in [-1, 1]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size


@dataclass
class Images:
    """One split in memory."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64
    class_names: tuple[str, ...]
    skipped: list[str] = field(default_factory=list)  # files of a folder that are no images, or in no class


@dataclass
class Batch:
    """What an objective's `inputs` draws from."""

    image: Tensor  # (B, C, H, W) float in [-1, 1]
    y: Tensor | None  # (B,) int64
    noise: Tensor | None = None  # (B, C, H, W) unit noise, for pairs
    path: Tensor | None = None  # (B, K, C, H, W) the teacher's estimates, noisy to clean
    index: Tensor | None = None  # (B,) int64  numbers of the pairs in their set

    def to(self, device: torch.device | str) -> Batch:
        moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return Batch(**moved)


def cache_dir() -> Path:
    """Where downloads and decoded folders lie: LAB_DATA, or ~/.cache/edge-dit-lab, or among temporary files."""
    if told := os.environ.get("LAB_DATA"):
        return at_home(told, "LAB_DATA")
    try:
        return Path.home() / ".cache" / "edge-dit-lab"
    except RuntimeError:  # no HOME, and a user without a name, as in many containers
        return Path(tempfile.gettempdir()) / "edge-dit-lab"


def fault(name: str) -> tuple[str, str] | None:
    """What keeps a published data set from being read here, and the command that mends it; None where it is whole.

    Nothing is fetched. The files that are here are read whole: a download that was cut off is no data set.
    """
    if name not in PUBLISHED:
        return None
    folder, files, mend = PUBLISHED[name]()
    broken = [file for file, whole in files.items() if not whole]
    if not broken:
        return None
    if not any(file.exists() for file in files):
        return f"not on this machine (cache: {cache_dir()})", mend
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return f"absent or broken in {folder}: {broken[0].name}{more}", mend


def _fashion_mnist_files() -> tuple[Path, dict[Path, bool], str]:
    """Where Fashion-MNIST lies or would, whether each of its files is whole, and what mends it."""
    if DEBIAN_FASHION.exists():  # packed anew, so torchvision's checksums don't hold; gzip has its own
        names = [f"{stem}-{kind}-ubyte.gz" for stem in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        return DEBIAN_FASHION, {(f := DEBIAN_FASHION / name): _idx(f) is not None for name in names}, DEBIAN_MEND
    from torchvision.datasets import FashionMNIST

    folder = cache_dir() / "FashionMNIST" / "raw"
    return folder, _by_checksum(folder, FashionMNIST.resources), "python -m lab fetch fashion-mnist"


def _cifar10_files() -> tuple[Path, dict[Path, bool], str]:
    from torchvision.datasets import CIFAR10

    folder = cache_dir() / CIFAR10.base_folder
    files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    return folder, _by_checksum(folder, files), "python -m lab fetch cifar10"


def _by_checksum(folder: Path, files: Iterable[Sequence[str]]) -> dict[Path, bool]:
    from torchvision.datasets.utils import check_integrity

    return {folder / name: check_integrity(folder / name, md5) for name, md5 in files}


PUBLISHED = {"fashion-mnist": _fashion_mnist_files, "cifar10": _cifar10_files}


# --- the data sets ------------------------------------------------------------------------------


def digits(split: str, size: int | None = None, channels: int | None = None) -> Images:
    """1,797 handwritten digits of 8x8 (UCI, in lab/assets); every sixth one is the test split."""
    with np.load(ASSETS / "digits.npz") as file:
        images, labels = file["images"], file["labels"]
    test = np.arange(len(labels)) % 6 == 5
    chosen = test if split == "test" else ~test
    return Images(
        torch.from_numpy(images[chosen])[:, None],
        torch.from_numpy(labels[chosen].astype(np.int64)),
        CLASS_NAMES["digits"],
    )


def fashion_mnist(split: str, size: int | None = None, channels: int | None = None) -> Images:
    """70,000 garments of 28x28 (arXiv 1708.07747): Debian's package, else torchvision's copy."""
    folder = DEBIAN_FASHION
    if not folder.exists():
        folder, files, _ = _fashion_mnist_files()
        if broken := [file for file, whole in files.items() if not whole]:
            for file in broken:
                # torchvision leaves what it once unpacked as it is, and then doesn't look at the packed file
                file.with_suffix("").unlink(missing_ok=True)
            _download("FashionMNIST", "apt-get install dataset-fashion-mnist", broken)
    stem = "train" if split == "train" else "t10k"
    images, labels = (_read_idx(folder / f"{stem}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return Images(torch.from_numpy(images[:, None].copy()), torch.from_numpy(labels.astype(np.int64)), FASHION_CLASSES)


def cifar10(split: str, size: int | None = None, channels: int | None = None) -> Images:
    """60,000 colour photographs of 32x32, by torchvision (download with checksum)."""
    folder, files, _ = _cifar10_files()
    if broken := [file for file, whole in files.items() if not whole]:
        _download("CIFAR10", f"put {folder.name} there, or use folder:<path> on the pictures", broken)
    from torchvision.datasets import CIFAR10

    data = CIFAR10(cache_dir(), train=split == "train")
    return Images(torch.from_numpy(data.data).permute(0, 3, 1, 2), torch.tensor(data.targets), CIFAR_CLASSES)


def _download(name: str, other_way: str, broken: list[Path]) -> None:
    """Fetch what torchvision's checksums don't find whole."""
    import torchvision

    half = [file.name for file in broken if file.exists()]
    state = f"not whole on this machine ({', '.join(half)} broken)" if half else "not on this machine"
    try:
        getattr(torchvision.datasets, name)(cache_dir(), download=True)
    except Exception as error:  # urllib, checksum and disk errors all mean: not here
        raise MissingData(
            f"{name} is {state} and the download failed ({error}). Either give a network "
            f"connection, or: {other_way}. Looked in {cache_dir()}."
        ) from error


def _read_idx(path: Path) -> np.ndarray:
    """Raises MissingData for a file that is absent or broken."""
    found = _idx(path)
    if found is None:
        mend = DEBIAN_MEND if path.parent == DEBIAN_FASHION else "delete it and `python -m lab fetch fashion-mnist`"
        raise MissingData(f"{path} is absent or broken; {mend} brings it back")
    return found


def _idx(path: Path) -> np.ndarray | None:
    """The uint8 array of a gzipped IDX file (yann.lecun.com/exdb/mnist); None if it is absent or not whole."""
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error):
        return None
    sizes = [int.from_bytes(content[at : at + 4], "big") for at in range(4, 4 + 4 * sum(content[3:4]), 4)]
    start = 4 + 4 * len(sizes)
    if not sizes or len(content) != start + math.prod(sizes):
        return None
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def folder(path: str, split: str, size: int | None = None, channels: int | None = None) -> Images:
    """Any folder of pictures, shorter side resized and centre cropped; labels from its sub-folders.

    With sub-folders for the splits (SPLITS) those are read, and the one to train on says the classes; else every
    tenth picture is the test split. A sub-folder without a picture is no class. What is left out, because it is
    no picture or lies beside the classes, is named in `skipped` and warned of; a folder with no picture at
    all is an error, and so is one to train on whose pictures are all of one colour.
    """
    root = if_there(path)
    if not path or not root.is_dir():  # "" would be the folder that the lab was started in
        raise MissingData(f"image folder {path!r} does not exist or is no folder")
    splits, names = _own_splits(root), folder_classes(root)
    if not splits:
        _tell_split_like(root, names)
    base = splits.get(split, root) if splits else root
    mine = {_printed(d): d for d in _folders(base)}
    files = [(f, i) for i, name in enumerate(names) if name in mine for f in _below(mine[name])]
    beside = [f for name, d in mine.items() if name not in names for f in _below(d)]
    if names:
        beside = [*_files(base.iterdir()), *beside]
    else:
        files = [(f, 0) for f in _files(base.iterdir())]
    if splits:
        beside += _files(root.iterdir())
        beside += [f for d in _folders(root) if d not in splits.values() for f in _below(d)]
    loaded = _decode(files, size or 32, channels or 3, title=_printed(base))
    if not len(loaded.images):
        raise MissingData(f"image folder {str(base)!r} holds no readable picture; looked at {len(files)} files")
    loaded.class_names = names
    _tell_single_colours(root, files, loaded, training=split == "train")
    _tell_dim(root, loaded.images)
    loaded.skipped += map(str, beside)
    if loaded.skipped:
        warnings.warn(left_out(root, loaded.skipped), stacklevel=2)
    if splits:
        return loaded
    test = torch.arange(len(loaded.images)) % 10 == 9
    chosen = test if split == "test" else ~test
    if not chosen.any():
        raise MissingData(f"image folder {str(base)!r} has {len(test)} picture{'s' * (len(test) > 1)}, and the test "
                          "split is every tenth; put more there, or make folders train and test in it")  # fmt: skip
    return Images(loaded.images[chosen], loaded.labels[chosen], names, loaded.skipped)


def _files(paths: Iterable[Path]) -> list[Path]:
    """Files, and links to nothing, which are to be named; what begins with a dot is hidden."""
    return sorted(f for f in paths if not f.name.startswith(".") and not f.is_dir())


def _folders(root: Path) -> list[Path]:
    return sorted(d for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))


def _below(folder: Path) -> list[Path]:
    """All files of a folder and of those in it, through links too; a folder that can't be opened stands for its own."""
    closed: list[Path] = []
    found: list[Path] = []
    # A link to a folder that it lies in would bring all of it, of other classes too.
    seen = {os.path.realpath(above) for above in (*folder.absolute().parents, *Path(os.path.realpath(folder)).parents)}
    for at, inner, names in os.walk(folder, followlinks=True, onerror=lambda e: closed.append(Path(e.filename))):
        if (real := os.path.realpath(at)) in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += _files(Path(at, name) for name in names)
    return sorted([*found, *closed])


def _own_splits(root: Path) -> dict[str, Path]:
    """train and test -> their folders, by any usual name; {} where the sub-folders are classes (bus, car, train).

    What is called val is the test split where no other is. Raises ValueError where two folders are one split, and
    where all are splits of which one is missing.
    """
    folders = _folders(root)
    if {"train", "test"} <= {d.name for d in folders}:
        return {"train": root / "train", "test": root / "test"}
    words = [BESIDE_SPLITS.sub(" ", d.name.lower()).split() for d in folders]
    shared = set.intersection(*map(set, words)) if len(words) > 1 else set()  # seg_train, seg_test
    found: dict[str | None, list[Path]] = {}
    for d, said in zip(folders, words):
        found.setdefault(SPLITS.get("".join(word for word in said if word not in shared)), []).append(d)
    test = "test" if "test" in found else "val"
    if not {"train", test} <= {*found}:
        if found and None not in found:
            names, lacking = ", ".join(map(_printed, folders)), "test on" if "train" in found else "train on"
            raise ValueError(f"folder:{root}: all in it is called like a split ({names}) and none like one to "
                             f"{lacking}; add one, or read a folder of it (folder:{folders[0]})")  # fmt: skip
        return {}
    for kind in ("train", test):
        if len(same := found[kind]) > 1:
            names = " and ".join(map(_printed, same))
            raise ValueError(f"folder:{root}: {names} are both a {kind} split; rename one")
    return {"train": found["train"][0], "test": found[test][0]}


def _printed(path: Path) -> str:
    """A name that can be printed: bytes that are no UTF-8, such as the Latin-1 of old archives, are written out."""
    return os.fsencode(path.name).decode(errors="backslashreplace")


def lasting(name: str) -> str:
    """A data set's name that means the same wherever it is read: a folder's path is absolute."""
    if not name.startswith("folder:"):
        return name
    return f"folder:{if_there(name.removeprefix('folder:')).absolute()}"


def folder_classes(root: Path) -> tuple[str, ...]:
    """Names of an image folder's classes: its sub-folders that hold a picture that can be read."""
    folders = _folders(_own_splits(root).get("train", root))
    return tuple(_printed(d) for d in folders if any(_picture(f, 8, 1) is not None for f in _below(d)))


def class_names(name: str) -> tuple[str, ...]:
    """Names of a data set's classes, of which no picture but a folder's first ones is read; () where none are known."""
    root = if_there(name.removeprefix("folder:"))
    if name.startswith("folder:"):
        return folder_classes(root) if root.is_dir() else ()
    return CLASS_NAMES.get(name, ())


def class_number(label: str, names: Sequence[str]) -> int:
    """The class that a person means by a name, in any case, or where no name is that, by a number.

    A name comes first, for folders 0 to 11 are sorted 0, 1, 10. Raises ValueError for what is neither.
    """
    same = [label] if label in names else [name for name in names if name.lower() == label.lower()]
    if len(same) > 1:
        raise ValueError(f"class {label!r} is any of {', '.join(same)}; write one as it is")
    if same:
        return names.index(same[0])
    numbers = {str(i): i for i in range(len(names))}
    if label not in numbers:
        raise ValueError(unknown("class", label, {*names, *numbers}))
    return numbers[label]


def left_out(root: Path, skipped: Sequence[str], shown: int = 3) -> str:
    """How many files of a folder are not used, and the first few of them."""
    first = ", ".join(_inside(root, f) for f in skipped[:shown])
    more = ", ..." if len(skipped) > shown else ""
    return (f"folder:{root}: {len(skipped)} file{'s' * (len(skipped) > 1)} left out, no readable picture or not "
            f"in a class's folder: {first}{more}")  # fmt: skip


def _inside(root: Path, file: Path | str) -> str:
    return os.fsencode(os.path.relpath(file, root)).decode(errors="backslashreplace")


def _tell_split_like(root: Path, names: Sequence[str]) -> None:
    """Warn where the folders that are taken as classes may be splits of which no name says so.

    Raises ValueError where the only one holds splits, as an archive that was unpacked into a folder of its own does.
    """
    classes = [d for d in _folders(root) if _printed(d) in names]
    if len(classes) == 1 and (inner := _own_splits(classes[0])):
        found = ", ".join(map(_printed, inner.values()))
        raise ValueError(f"folder:{root}: {names[0]} is all in it and holds splits ({found}); read folder:{classes[0]}")
    inside = [frozenset(map(_printed, _folders(d))) for d in classes]
    if len(classes) > 1 and len(shared := frozenset.intersection(*inside)) > 1:
        warnings.warn(f"folder:{root}: {', '.join(names)} are taken as classes, and each holds "
                      f"{', '.join(sorted(shared))}; where these are the classes and those are splits, call them train "
                      "and test", stacklevel=3)  # fmt: skip


def _tell_dim(root: Path, images: Tensor) -> None:
    """Warn where no picture of several has a bright pixel: 12 or 14 bits that stand in 16 are read so."""
    if len(images) > 1 and (brightest := int(images.max())) < DIM:
        warnings.warn(f"folder:{root}: no pixel of {len(images):,} pictures is brighter than {brightest} of 255; if "
                      "they hold fewer bits than their files say, such as 12 in 16, write them anew",
                      stacklevel=3)  # fmt: skip


def _tell_single_colours(root: Path, files: Sequence[tuple[Path, int]], found: Images, *, training: bool) -> None:
    """Warn of pictures that are one colour all over, as broken exports are, where they are more than a few or a class.

    Raises ValueError where there is no other to train on.
    """
    flat = (found.images.amax((2, 3)) == found.images.amin((2, 3))).all(1)  # (N,)
    classes = [name for k, name in enumerate(found.class_names) if k in found.labels and flat[found.labels == k].all()]
    if not classes and flat.sum() <= FEW * len(flat):
        return
    skipped = set(found.skipped)
    read = [file for file, _ in files if str(file) not in skipped]
    said = (f"folder:{root}: {flat.sum():,} of {len(flat):,} pictures are one colour all over, such as "
            f"{_inside(root, read[flat.int().argmax()])}")  # fmt: skip
    if training and flat.all():
        raise ValueError(f"{said}; there is nothing to learn from them")
    whole = f" (all of {', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})" if classes else ""
    warnings.warn(f"{said}{whole}; a network learns to draw them as any other", stacklevel=3)


def _decode(files: list[tuple[Path, int]], size: int, channels: int, *, title: str) -> Images:
    """Decoded pictures; kept in the cache by names and contents, for a second load is common."""
    key = hashlib.sha256(repr((size, channels, DECODING)).encode())
    for file, label in files:
        key.update(os.fsencode(file) + f"|{label}|{_content(file)}\n".encode())
    cached = cache_dir() / "folders" / f"{key.hexdigest()[:24]}.npz"
    with contextlib.suppress(*UNREADABLE), np.load(cached) as kept:
        pixels, labels, skipped = kept["images"], kept["labels"], [str(s) for s in kept["skipped"]]
        whole = pixels.dtype == np.uint8 and pixels.shape == (len(files) - len(skipped), channels, size, size)
        if whole and labels.shape == pixels.shape[:1]:  # and no file of other arrays
            return Images(torch.from_numpy(pixels), torch.from_numpy(labels), (), skipped)
    images, labels, skipped = [], [], []
    for file, label in tqdm(files, desc=f"reading {title}", unit="files", disable=len(files) < 2000):
        picture = _picture(file, size, channels)
        if picture is None:
            skipped.append(str(file))
        else:
            images.append(picture)
            labels.append(label)
    stacked = np.stack(images) if images else np.empty((0, channels, size, size), np.uint8)
    found = Images(torch.from_numpy(stacked), torch.tensor(labels, dtype=torch.int64), (), skipped)
    if images:
        buffer = io.BytesIO()
        np.savez(buffer, images=stacked, labels=np.array(labels, np.int64), skipped=np.array(skipped, str))
        try:
            write_whole(cached, buffer.getvalue())
        except OSError as error:  # a home that can't be written, a full disk
            warnings.warn(f"the pictures of {title} are read anew each time, for they can't be kept ({error}); name "
                          "another folder by LAB_DATA", stacklevel=2)  # fmt: skip
    return found


def _may_be_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and os.path.isfile(file)  # a pipe or a device would never end


def _content(file: Path) -> str:
    """SHA-256 of a picture's file; "" where there is nothing to read. Size and time may be those of the one before
    it (`cp -p`, archives with one time for all), and to read a file takes a tenth of decoding it.
    """
    with contextlib.suppress(OSError):
        if _may_be_picture(file):
            with open(file, "rb") as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()
    return ""


def _picture(file: Path, size: int, channels: int) -> np.ndarray | None:
    """(C, size, size) uint8, or None if the file is no picture that can be read.

    Transparent pixels are on white. Of grey pictures with more than 8 bits those are read whose range is known.
    """
    from PIL import Image, ImageOps

    if not _may_be_picture(file):
        return None
    try:
        with Image.open(file) as opened:
            raw = opened.tile[0][3] if opened.format == "PNG" else None  # forgotten by the load
            opened.load()  # which turns a TIFF upright, and takes the tag away
            turn = opened.getexif().get(0x0112)  # exif_transpose writes all tags anew, of which one may be odd
            if raw in PNG_LEVELS and (clear := opened.info.get("transparency")) is not None:
                opened.info["transparency"] = PNG_LEVELS[raw](clear)
            picture = _eight_bits(opened)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("L" if channels == 1 else "RGB")
            if turn in range(2, 9):
                picture = picture.transpose(Image.Transpose(TRANSPOSED[turn]))
            picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    except Exception:  # decoders of strangers' files raise whatever they trip over, and one file must not end the rest
        return None
    return np.asarray(picture).reshape(size, size, -1).transpose(2, 0, 1).copy()


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A grey picture of more than 8 bits in 8. Raises ValueError where its values don't say what is white."""
    from PIL import Image

    tags = getattr(picture, "tag_v2", {})
    if 2 in tags.get(339, ()) and max(tags.get(258, (8,))) <= 16:
        raise ValueError("values with a sign")
    if picture.mode not in ("F", "I") and not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture, np.float64)
    low, high = values.min(), values.max()
    if picture.mode == "F" and 0 <= low <= high <= 1:
        white = 1
    elif picture.mode != "F" and low >= 0 and (high == 0 or 4096 <= high < 2**16):  # below: 10 or 12 bits in 16
        white = 2**16 - 1
    else:
        raise ValueError(f"grey values from {low:g} to {high:g} of mode {picture.mode}")
    if tags.get(262) == 0:  # a TIFF's WhiteIsZero, which PIL minds in 8 bits alone
        values = white - values
    if "transparency" in picture.info:
        values[values == picture.info["transparency"]] = white
    return Image.fromarray((values / white * 255).round().astype(np.uint8))


DATASETS: dict[str, Callable[..., Images]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
}


def load(name: str, split: str = "train", *, size: int | None = None, channels: int | None = None) -> Images:
    """A split of a data set by name; `folder:<path>` takes size (default 32) and channels (3).

    Raises ValueError for an unknown name and MissingData (a LookupError) where it can't be had.
    """
    if split not in ("train", "test"):
        raise ValueError(unknown("split", split, ["train", "test"]))
    if name.startswith("folder:"):
        return folder(name.removeprefix("folder:"), split, size, channels)
    if name not in DATASETS:
        raise ValueError(unknown("data set", name, [*DATASETS, "folder:<path>"]))
    found = DATASETS[name](split, size, channels)
    side = found.images.shape[-1]
    if size not in (None, side):
        raise ValueError(f"{name} has images of {side}x{side}, the recipe's net takes {size}x{size}")
    if channels not in (None, found.images.shape[1]):
        raise ValueError(f"{name} has {found.images.shape[1]} channels, the recipe's net takes {channels}")
    return found


def spec_of(name: str, images: Images) -> ImageSpec:
    """What a data set's images are, with the standard deviation EDM scales by."""
    x = images.images.double() / 127.5 - 1 if images.images.numel() < 1e8 else from_uint8(images.images)
    return ImageSpec(
        data=name,
        size=images.images.shape[-1],
        channels=images.images.shape[1],
        num_classes=len(images.class_names),
        class_names=images.class_names,
        sigma_data=round(float(x.std()), 4),
    )


def digest(images: Images) -> str:
    """SHA-256 of the pixels: a folder of the same name may hold others tomorrow."""
    return hashlib.sha256(images.images.contiguous().numpy()).hexdigest()


def choose_classes(images: Images, classes: tuple[int, ...] | None) -> Images:
    """Only the images of some classes; labels keep their numbers."""
    if classes is None:
        return images
    chosen = torch.isin(images.labels, torch.tensor(classes))
    return Images(images.images[chosen], images.labels[chosen], images.class_names, images.skipped)


# --- batches ------------------------------------------------------------------------------------


def order(count: int, batch: int, seed: int, step: int) -> Tensor:
    """The indices of batch number `step`, a function of (seed, step) alone; (batch,) int64.

    Epochs are permutations of `count` items; a batch may straddle two of them.
    """
    position = torch.arange(step * batch, (step + 1) * batch)
    epochs = position // count
    index = torch.empty_like(position)
    for epoch in epochs.unique().tolist():
        inside = epochs == epoch
        index[inside] = _permutation(count, seed, epoch)[position[inside] % count]
    return index


def few_classes(members: Sequence[Tensor], classes: int, batch: int, seed: int, step: int) -> Tensor:
    """The indices of batch number `step` of so many classes in like parts, a function of (seed, step) alone; (batch,)
    int64. `members` are the indices of each class, (n,); they are drawn with replacement, so there are no epochs.
    """
    rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
    chosen = [members[k] for k in torch.randperm(len(members), generator=rng)[:classes]]
    parts = torch.arange(batch).tensor_split(len(chosen))
    return torch.cat([of[torch.randint(len(of), (len(part),), generator=rng)] for of, part in zip(chosen, parts)])


_permutations: dict[tuple[int, int, int], Tensor] = {}


def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    key = (count, seed, epoch)
    if key not in _permutations:
        while len(_permutations) > 2:  # the last epoch and this one; dicts keep their order
            _permutations.pop(next(iter(_permutations)))
        rng = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        _permutations[key] = torch.randperm(count, generator=rng)
    return _permutations[key]


def stream(images: Images, *, batch: int, seed: int, start: int = 0) -> Iterator[Batch]:
    """Endless batches of real images from batch number `start` on; resumable at any step."""
    labelled = bool(images.class_names)
    step = start
    while True:
        index = order(len(images.images), batch, seed, step)
        yield Batch(from_uint8(images.images[index]), images.labels[index] if labelled else None)
        step += 1
