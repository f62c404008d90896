"""Noise-image pairs of a teacher: made once, offline, in shards; the noise is kept as its seed.

    results/pairs/<id>/pairs.json      what decides the pairs, and the sha256 of every shard's arrays
    results/pairs/<id>/reference.npy   images of the first 64 pairs, uint8 (64, C, H, W)
    results/pairs/<id>/0000.npz        images uint8 (n, C, H, W), labels (n,), path uint8 where asked for
    results/pairs/<id>/0000.sha256     its checksum where it is this machine's own, other than the recorded one

Shards are a function of teacher, solver and seeds. In the environment that pairs.json records they
come back bit for bit; elsewhere arithmetic may differ in the last place, so a differing checksum
is a notice where the first 64 images are the reference's by value, and an error where they are not.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import platform
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lab import data, diffusion, locks, teachers
from lab.config import JSON, TeacherName
from lab.data import Batch
from lab.results import UNREADABLE, Store, look, now, read_to_change, write_json, write_whole
from lab.schema import shown

SHARD = 4096
BATCH = 256  # of the teacher; part of the shard's arithmetic
NOISE_BYTES = 1 << 30  # up to which a reader keeps the noise in memory
REFERENCE = 64  # images of a set that are kept with pairs.json, when its shards are not
TOLERANCE = 8  # of 255: the largest difference that another machine's arithmetic may make


@dataclass(frozen=True)
class PairSet:
    """What decides a set of pairs; the number of shards made so far does not."""

    teacher: str  # run:<id>, pipeline:<source>@<hash> or callable:<name>@<hash>
    teacher_sha256: str  # of its weights; a pipeline's shape and schedule too (teachers.pipeline_sha256); or its digest
    solver: str
    dtype: str = "float32"  # of the teacher's network, which every machine has; the solver's state is float64
    keep: int = 0  # estimates kept along each path
    first_seed: int = diffusion.PAIR_SEED
    classes: tuple[int, ...] | None = None

    @property
    def id(self) -> str:
        plain = json.dumps(asdict(self), sort_keys=True)
        name = self.teacher.split(":", 1)[1].rsplit("/", 1)[-1]
        return f"{name[-60:].lower().strip('-')}-{self.solver}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


class Pairs:
    """A folder of pairs."""

    def __init__(self, root: Path, what: PairSet) -> None:
        self.what, self.path = what, root / "pairs" / what.id

    @property
    def facts(self) -> dict[str, JSON]:
        return {"what": asdict(self.what), "shards": {}} | read_to_change(self.path / "pairs.json", "pairs")

    def shard(self, index: int) -> Path:
        return self.path / f"{index:04d}.npz"

    def own_checksum(self, index: int) -> Path:
        """Where the checksum of a shard lies that was made here, differs from the recorded one and was let pass."""
        return self.path / f"{index:04d}.sha256"

    @property
    def reference(self) -> Path:
        return self.path / "reference.npy"

    def missing(self, count: int) -> list[int]:
        """The shards that `count` pairs need and that do not lie here. Raises ValueError for more than have a noise."""
        if count > (most := diffusion.MAX_SEED + 1 - self.what.first_seed):
            raise ValueError(f"a set has at most {most:,} pairs, each of a noise of its own; got {count:,}")
        here = {path.name for path in self.path.glob("*.npz")}
        return [i for i in range(-(-count // SHARD)) if self.shard(i).name not in here]

    def seeds(self, index: Tensor | range) -> list[int]:
        return [self.what.first_seed + int(i) for i in index]


def recorded_set(path: Path) -> PairSet:
    """What decides the pairs of a pairs.json.

    Raises ValueError, with the reason as a clause, for a file that can't be read and for one in the folder of others.
    """
    found, wrong = look(path, "pairs")
    if found is None:
        raise ValueError(wrong or "it is not there")
    what = found["what"]
    if absent := {"teacher", "teacher_sha256", "solver"} - what.keys():
        raise ValueError(f"what.{min(absent)} is missing")
    if more := what.keys() - {field.name for field in fields(PairSet)}:
        raise ValueError(f"what.{shown(min(more))[1:-1]} is no field of it")
    made = PairSet(**what | {"classes": tuple(what["classes"]) if what.get("classes") else None})
    if ":" not in made.teacher:
        raise ValueError(f"what.teacher is {shown(made.teacher)}, not a lasting name such as run:<id>")
    TeacherName.parse(made.teacher)
    if made.id != path.parent.name:
        raise ValueError(f"what it says of its pairs is of the folder {made.id}")
    return made


def pair_set(store: Store, teacher: str, solver: str, *, keep: int = 0, dtype: str = "float32") -> PairSet:
    """The pairs of a teacher by alias or lasting name.

    Raises LookupError for a run without a finished network and for a function that is not registered, ValueError for
    an unknown pipeline or solver, or another one than the run's sampler, and for more estimates to keep than it makes.
    """
    lasting = teachers.resolve(teacher, store)
    digest = teachers.digest_of(lasting, store)
    _, steps = diffusion.solver_of(solver)
    own = store.get(lasting).recipe.sampler if lasting.startswith("run:") else None
    if own not in (None, solver):
        raise ValueError(f"teacher {teacher} draws by {own}; set solver to that, got {solver}")
    if keep >= steps:
        raise ValueError(f"keep {keep} asks for more estimates than a path of {solver} has, which takes {steps} steps; "
                         f"keep at most {steps - 1}")  # fmt: skip
    return PairSet(lasting, digest, solver, dtype, keep)


def ensure(store: Store, what: PairSet, count: int, *, device: str | torch.device = "cpu") -> Pairs:
    """At least `count` pairs on disk: makes the shards that are missing, one whole file at a time.

    Stop it at any time; the next call goes on with the first shard that is not there. Processes that want the same
    pairs share the work. Raises ValueError for a pairs.json that can't be read, and where the teacher's images here
    are not those that the recorded checksums and the reference belong to.
    """
    pairs = Pairs(store.root, what)
    missing = pairs.missing(count)
    if not missing:
        return pairs
    teacher = teachers.load(what.teacher, store, solver=what.solver, dtype=what.dtype, device=device, thousands=True)
    done, told = -(-count // SHARD) - len(missing), False
    with tqdm(total=-(-count // SHARD) * SHARD, initial=done * SHARD, desc="pairs", unit="pairs", smoothing=0.1) as bar:
        for index in missing:
            with _held(pairs.path):
                if pairs.shard(index).exists():  # another process made it meanwhile
                    bar.update(SHARD)
                    continue
                facts = pairs.facts  # before the work, for it may not be readable
                arrays = _make_shard(pairs, teacher, index, bar, device)
                digest = checksum(arrays)
                if _note_shard(pairs, facts, index, digest, here := environment(device, teacher)):
                    _keep_reference(pairs, index, arrays["images"])
                    pairs.own_checksum(index).unlink(missing_ok=True)
                else:
                    if not told:  # once: where one shard differs, so do most
                        _tell_difference(pairs, facts, index, here, gap_to_reference(pairs, teacher, device))
                        told = True
                    write_whole(pairs.own_checksum(index), digest + "\n")
                buffer = io.BytesIO()
                np.savez_compressed(buffer, **arrays)
                write_whole(pairs.shard(index), buffer.getvalue())
    return pairs


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, after the process that has it: pairs.json is read, changed and written under it."""
    folder.mkdir(parents=True, exist_ok=True)
    if locks.fcntl is None:  # Windows, which can't open a folder either
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        locks.take(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _make_shard(pairs: Pairs, teacher: teachers.Teacher, index: int, bar: tqdm, device: str | torch.device
                ) -> dict[str, np.ndarray]:  # fmt: skip
    images, labels, paths = [], [], []
    for start in range(index * SHARD, (index + 1) * SHARD, BATCH):
        image, y, path = make(pairs, teacher, range(start, start + BATCH), device)
        images.append(image)
        labels.append(y if y is not None else torch.zeros(BATCH, dtype=torch.int64))
        paths.append(path)
        bar.update(BATCH)
    arrays = {"images": torch.cat(images).numpy(), "labels": torch.cat(labels).numpy().astype(np.int32)}
    if pairs.what.keep:
        arrays["path"] = torch.cat(paths).numpy()
    return arrays


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a shard's arrays as numpy writes them without compression, whose bytes depend on the library at hand;
    its time stamp is fixed, so equal arrays are equal bytes.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def make(pairs: Pairs, teacher: teachers.Teacher, index: range, device: str | torch.device = "cpu"
         ) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """Pairs by number: images (B, C, H, W) uint8, classes (B,), path (B, keep, C, H, W) uint8."""
    z, y = diffusion.noise_of(pairs.seeds(index), teacher.spec.shape, teacher.spec.num_classes)
    samples = teacher.sample(z.to(device), None if y is None else y.to(device), keep=pairs.what.keep)
    path = None if samples.path is None else diffusion.to_uint8(samples.path).cpu()
    return diffusion.to_uint8(samples.images).cpu(), y, path


def environment(device: str | torch.device, teacher: teachers.Teacher) -> dict[str, str]:
    """What the arithmetic of a shard depends on."""
    return {
        "torch": torch.__version__.split("+")[0], "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(), "threads": str(torch.get_num_threads()),
        "device": torch.device(device).type, "compiled": "yes" if teacher.compiled else "no",
    }  # fmt: skip


def recorded_with(facts: dict[str, JSON], index: int) -> JSON:
    """The environment of a recorded shard; of older ones only the first's is known, which need not be theirs."""
    return facts["shards"].get(f"{index:04d}", {}).get("environment") or facts.get("environment")


def _note_shard(pairs: Pairs, facts: dict[str, JSON], index: int, digest: str, here: dict[str, str]) -> bool:
    """Record a shard's checksum where none is; whether the recorded one is this shard's."""
    recorded = facts["shards"].get(f"{index:04d}")
    if recorded is None:
        facts["shards"][f"{index:04d}"] = {"sha256": digest, "made": now(), "environment": here}
        facts.setdefault("environment", here)
        facts |= {"shard_size": SHARD, "batch": BATCH}
        write_json(pairs.path / "pairs.json", facts)
    return recorded is None or recorded["sha256"] == digest


def _keep_reference(pairs: Pairs, index: int, images: np.ndarray) -> None:
    """The first shard's first images, with which another machine's are compared."""
    if index or pairs.reference.exists():
        return
    buffer = io.BytesIO()
    np.save(buffer, images[:REFERENCE])
    write_whole(pairs.reference, buffer.getvalue())


def gap_to_reference(pairs: Pairs, teacher: teachers.Teacher, device: str | torch.device = "cpu") -> int | None:
    """The largest difference, of 255, between the first pairs made here and those kept; None where none are kept.

    Raises ValueError for a file that holds none.
    """
    if not pairs.reference.exists():
        return None
    try:
        with open(pairs.reference, "rb") as file:
            stored = torch.from_numpy(np.lib.format.read_array(file))
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise ValueError(f"{pairs.reference} can't be read ({error}); restore it or move it away") from error
    if stored.dtype != torch.uint8 or tuple(stored.shape) != (REFERENCE, *teacher.spec.shape):
        raise ValueError(f"{pairs.reference} is {stored.dtype} of shape {tuple(stored.shape)}, not torch.uint8 of "
                         f"{(REFERENCE, *teacher.spec.shape)}; restore it or move it away")  # fmt: skip
    again, _, _ = make(pairs, teacher, range(BATCH), device)
    return int((again[: len(stored)].int() - stored.int()).abs().max())


def _tell_difference(pairs: Pairs, facts: dict[str, JSON], index: int, here: dict[str, str], gap: int | None) -> None:
    """A notice that a shard is not the recorded one bit for bit; ValueError where it isn't by value either."""
    differs = (f"shard {index:04d} of {pairs.what.id} differs from the recorded checksum (made here with {here}, "
               f"recorded with {recorded_with(facts, index)})")  # fmt: skip
    if gap is None:
        warnings.warn(f"{differs}; there is no {pairs.reference.name} to compare its images with", stacklevel=3)
        return
    apart = f"the first {REFERENCE} images made here are up to {gap} of 255 from {pairs.reference.name}"
    if gap > TOLERANCE:
        raise ValueError(f"{differs}, and {apart}, where {TOLERANCE} are allowed: these are not the recorded pairs. "
                         f"Move {pairs.path} away to make new ones")  # fmt: skip
    warnings.warn(f"{differs}; {apart}, within the {TOLERANCE} that are allowed", stacklevel=3)


def check_shard(pairs: Pairs, teacher: teachers.Teacher, index: int) -> tuple[int, int]:
    """The largest difference, of 255, between a shard on disk and its first BATCH pairs made again on this machine; and
    how many of all its labels are not those of its seeds. Raises ValueError for a broken file.
    """
    whole = range(index * SHARD, (index + 1) * SHARD)
    again, _, _ = make(pairs, teacher, whole[:BATCH])
    _, y = diffusion.noise_of(pairs.seeds(whole), teacher.spec.shape, teacher.spec.num_classes)
    arrays = arrays_of(pairs.shard(index))
    if wrong := _shard_fault(arrays, SHARD, teacher.spec.shape, teacher.spec.num_classes, pairs.what.keep):
        raise ValueError(wrong)
    images, labels = torch.from_numpy(arrays["images"][:BATCH]), torch.from_numpy(arrays["labels"])
    wrong = labels != (torch.zeros(SHARD) if y is None else y)
    return int((again.int() - images.int()).abs().max()), int(wrong.sum())


def verify_checksums(pairs: Pairs) -> list[str]:
    """One sentence for every shard on disk that is not the recorded one."""
    recorded = pairs.facts["shards"]
    return [
        f"{path.name} of {pairs.what.id} does not have its recorded sha256"
        for path in sorted(pairs.path.glob("*.npz"))
        if recorded.get(path.stem, {}).get("sha256") != _checksum_of(path)
    ]


def _checksum_of(path: Path) -> str | None:
    """The `checksum` of a shard on disk; None for a broken file."""
    try:
        return checksum(arrays_of(path))
    except ValueError:
        return None


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a shard on disk. Raises ValueError for a broken file, with the reason as a clause."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file), np.load(path) as arrays:  # np.load takes other files too
            return dict(arrays)
    except UNREADABLE as error:
        raise ValueError(f"it can't be read ({error})") from error


def _shard_fault(arrays: Mapping[str, np.ndarray], rows: int, shape: tuple[int, int, int], num_classes: int, keep: int
                 ) -> str | None:  # fmt: skip
    """What a shard's arrays are not, as a clause; None for at least so many pairs of that shape."""
    shapes = {"images": shape, "labels": ()} | ({"path": (keep, *shape)} if keep else {})
    for name, wanted in shapes.items():
        if name not in arrays:
            return f"it has no {name}"
        found = arrays[name]
        kind = np.integer if name == "labels" else np.uint8
        if not np.issubdtype(found.dtype, kind):
            return f"its {name} are {found.dtype}, not {'whole numbers' if name == 'labels' else 'uint8'}"
        if found.shape[1:] != wanted or found.ndim != 1 + len(wanted):
            return f"its {name} have shape {found.shape}, not {('n', *wanted)}".replace("'", "")
        if len(found) < rows:
            return f"it has {len(found)} {name}, not {rows}"
    if len({len(arrays[name]) for name in shapes}) > 1:
        return f"it has {len(arrays['images'])} images and {len(arrays['labels'])} labels"
    last, labels = max(num_classes, 1) - 1, arrays["labels"]
    if len(outside := labels[(labels < 0) | (labels > last)]):
        return f"it has label {outside[0]}, and the teacher's go from 0 to {last}"
    return None


class Reader:
    """The first `count` pairs in memory (uint8) with the noise drawn again from the seeds.

    Raises ValueError for a shard that is broken or not the one that was made.
    """

    def __init__(self, pairs: Pairs, count: int, *, shape: tuple[int, int, int], num_classes: int) -> None:
        self.pairs, self.shape, self.num_classes = pairs, shape, num_classes
        self.images, self.labels = torch.empty(count, *shape, dtype=torch.uint8), torch.empty(count, dtype=torch.int64)
        self.path = torch.empty(count, keep, *shape, dtype=torch.uint8) if (keep := pairs.what.keep) else None
        recorded = pairs.facts["shards"]
        for index in range(-(-count // SHARD)):
            here = slice(index * SHARD, min((index + 1) * SHARD, count))
            arrays = self._shard(index, here.stop - here.start, recorded)
            for name, into in [("images", self.images), ("labels", self.labels), ("path", self.path)]:
                if into is not None:
                    into[here] = torch.from_numpy(arrays[name][: here.stop - here.start])
        self.index = torch.arange(count)
        self._noise: Tensor | None = None  # (count, C, H, W), filled as it is drawn, where that takes little memory
        if 4 * count * math.prod(shape) <= NOISE_BYTES:
            self._noise, self._drawn = torch.empty(count, *shape), torch.zeros(count, dtype=torch.bool)

    def _shard(self, index: int, rows: int, recorded: Mapping[str, JSON]) -> dict[str, np.ndarray]:
        """A shard's arrays, held to what they have to be and to their checksum."""
        path, own = self.pairs.shard(index), self.pairs.own_checksum(index)
        try:
            arrays = arrays_of(path)
            wrong = _shard_fault(arrays, rows, self.shape, self.num_classes, self.pairs.what.keep)
        except ValueError as error:
            wrong = str(error)
        if not wrong and path.stem not in recorded:  # no checksum says whose it is, and its classes do
            _, y = diffusion.noise_of(self.pairs.seeds(range(index * SHARD, index * SHARD + len(arrays["labels"]))),
                                      self.shape, self.num_classes)  # fmt: skip
            if y is not None and (off := int((y.numpy() != arrays["labels"]).sum())):
                wrong = f"pairs.json does not record it, and {off} of its labels are not those of its seeds"
        elif not wrong:
            allowed = {recorded[path.stem]["sha256"], own.read_text().strip() if own.exists() else ""}
            if (digest := checksum(arrays)) not in allowed:
                wrong = f"its sha256 is {digest[:8]}, and pairs.json records {recorded[path.stem]['sha256'][:8]}"
        if wrong:
            raise ValueError(f"{path} is no shard of these pairs: {wrong}; move it away, and it is made again")
        return arrays

    def only(self, classes: tuple[int, ...] | None) -> Reader:
        """Restrict the pairs to some classes."""
        if classes is not None:
            self.index = self.index[torch.isin(self.labels, torch.tensor(classes))]
        return self

    def batch(self, index: Tensor) -> Batch:
        chosen = self.index[index]
        return Batch(
            image=diffusion.from_uint8(self.images[chosen]),
            y=self.labels[chosen] if self.num_classes else None,
            noise=self._noises(chosen),
            path=None if self.path is None else diffusion.from_uint8(self.path[chosen]),
            index=chosen,
        )

    def inputs(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Noise (B, C, H, W) and classes (B,) of pairs by number, whatever the reader is restricted to."""
        return self._noises(index), self.labels[index] if self.num_classes else None

    def _noises(self, chosen: Tensor) -> Tensor:
        """Drawing again from seeds is 2 to 4 % of a small student's update, so each is drawn once where they fit."""
        if self._noise is None:
            return self._draw(chosen)
        new = chosen[~self._drawn[chosen]]
        if len(new):
            self._noise[new] = self._draw(new)
            self._drawn[new] = True
        return self._noise[chosen]

    def _draw(self, chosen: Tensor) -> Tensor:
        return diffusion.noise_of(self.pairs.seeds(chosen), self.shape, self.num_classes)[0]

    def stream(self, *, batch: int, seed: int, start: int = 0, classes: int = 0) -> Iterator[Batch]:
        """Endless batches from batch number `start` on, each of so many classes if told; resumable at any step."""
        labels = self.labels[self.index]
        members = [(labels == k).nonzero()[:, 0] for k in labels.unique()] if classes else []
        step = start
        while True:
            if classes:
                yield self.batch(data.few_classes(members, classes, batch, seed, step))
            else:
                yield self.batch(data.order(len(self.index), batch, seed, step))
            step += 1
