"""Guides: a finished run's frozen network that is asked beside the student, on the same inputs.

What a guide says to the noise of a pair is the same at every visit, so it is worked out once and kept, in half
precision, under results/.cache/guides: every student that learns from the same pairs reads it there.

B batch, N pairs, C channels.
"""

from __future__ import annotations

import math
import mmap
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lab import diffusion, models, schema
from lab.config import JSON, NetConfig
from lab.data import Batch, ImageSpec
from lab.models.taps import Taps
from lab.results import Run, read_json, write_json
from lab.weights import load_student, spec_of_run

BATCH = 256  # of the guide where its answers are made; part of their arithmetic
CHUNK = 4096  # pairs between two notes of how far it is
PREDICTION = "prediction"  # beside the taps' names
ROOM = 1.2  # free space on disk, over what the answers take, from which they are kept
# What lies beside a file of answers: how many pairs they are to, and how long the passes took that made them.
NOTE = {"type": "object", "required": ["pairs", "seconds"],
        "properties": {"pairs": {"type": "integer", "minimum": 0}, "seconds": {"type": "number", "minimum": 0}}
        }  # fmt: skip


class Guide:
    """A frozen network, called as the loop calls the student: a denoiser with EDM's scaling, a one-step net plain."""

    def __init__(self, name: str, net: nn.Module, spec: ImageSpec, *, digest: str = "",
                 solver: str = diffusion.SOLVER) -> None:  # fmt: skip
        self.name, self.spec, self.digest, self.solver = name, spec, digest, solver  # the last: how a denoiser draws
        self.net = net.eval().requires_grad_(False)
        self.config: NetConfig = net.config
        self.tap_names: frozenset[str] = net.tap_names
        self._denoiser = diffusion.Denoiser(net, spec.sigma_data) if self.config.time else None

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: Tensor | None, y: Tensor | None, taps: Taps | None = None) -> Tensor:
        """(B, C, H, W), (B,) or None, (B,) or None -> its clean image (B, C, H, W) float32; fills the wanted taps."""
        if self._denoiser is not None:
            return self._denoiser(x, sigma, y, taps).float()
        return self.net(x, None, y, taps).float()

    def compile(self) -> None:
        self.net.compile()


def load(run: Run, device: str | torch.device = "cpu") -> Guide:
    """A run's network as a guide. Raises LookupError where it has none yet."""
    net = load_student(run, device=device)
    return Guide(run.id, net, spec_of_run(run), digest=str(run.read("student")["weights_sha256"]),
                 solver=run.recipe.drawn_by)  # fmt: skip


def by_shape(name: str, config: NetConfig) -> Guide:
    """A guide without weights or arithmetic, by which a method is asked what it would look at."""
    with torch.device("meta"):
        net = models.build(config)
    return Guide(name, net, ImageSpec(data="", size=config.image_size, channels=config.channels, num_classes=0))


class Answers:
    """What a guide says to the noises of a set of pairs, on disk: one file a tap, and one of its images."""

    def __init__(self, root: Path, guide: Guide, pairs: str) -> None:
        self.guide = guide
        self.path = root / ".cache" / "guides" / f"{guide.digest[:16]}-{pairs}"[:200]
        self.seconds = 0.0  # of one pass over the pairs, which would make all that are read here
        self._kept: dict[str, np.memmap] = {}

    def ensure(self, names: Iterable[str], count: int, ask: Callable[[Tensor], tuple[Tensor, Tensor | None]],
               device: torch.device) -> bool:  # fmt: skip
        """The answers to the first `count` pairs, made where they are missing; False where the disk has no room.

        `ask(index)` gives the noise (B, C, H, W) and classes (B,) of pairs by number. Stop it at any time; the next
        call goes on after the last whole chunk.
        """
        names = sorted({*names, PREDICTION})
        shapes = self._shapes(names, ask, device)
        found = {n: self._facts(n, shapes[n]) for n in names}
        todo = {n: facts["pairs"] for n, facts in found.items() if facts["pairs"] < count}
        missing = sum(2 * math.prod(shapes[n]) * (count - done) for n, done in todo.items())
        self.path.mkdir(parents=True, exist_ok=True)
        if missing * ROOM > shutil.disk_usage(self.path).free:
            return False
        if todo:
            self._make(todo, shapes, count, ask, device)
        self._kept = {n: self._file(n, shapes[n], count) for n in names}
        for file in self._kept.values():
            _advise(file, "MADV_RANDOM")  # else the system reads megabytes around every answer
        self.seconds = max(self._facts(n, shapes[n])["seconds"] for n in names)
        return True

    def at(self, index: Tensor, device: torch.device, taps: Iterable[str]) -> tuple[Tensor, Taps]:
        """Images (B, C, H, W) and some taps, in float32, for pairs by number."""
        rows = index.cpu().numpy()
        found = {n: torch.from_numpy(self._kept[n][rows]).to(device).float() for n in (PREDICTION, *taps)}
        return found.pop(PREDICTION), Taps.of(found)

    def ahead(self, stream: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, each after the disk was asked for the answers to the one that follows."""
        batch = next(stream, None)
        while batch is not None:
            following = next(stream, None)
            for number in following.index.tolist() if following is not None else ():
                for file in self._kept.values():
                    _advise(file, "MADV_WILLNEED", number)
            yield batch
            batch = following

    def _make(self, todo: dict[str, int], shapes: dict[str, tuple[int, ...]], count: int, ask: Callable,
              device: torch.device) -> None:  # fmt: skip
        first, kept = min(todo.values()), {n: self._facts(n, shapes[n]) for n in todo}
        for name, facts in kept.items():  # before a short file is lengthened, and looks whole
            write_json(self.path / f"{name}.json", facts)
        files = {n: self._file(n, shapes[n], count) for n in todo}
        taps_wanted = [n for n in todo if n != PREDICTION]
        with tqdm(total=count, initial=first, desc=f"guide {self.guide.name[-40:]}", unit="pairs") as bar:
            for start in range(first, count, CHUNK):
                began, stop = time.monotonic(), min(start + CHUNK, count)
                for at in range(start, stop, BATCH):
                    index = torch.arange(at, min(at + BATCH, stop))
                    z, y = ask(index)
                    taps = Taps(taps_wanted)
                    found = {PREDICTION: self.guide(z.to(device), None, y if y is None else y.to(device), taps)}
                    for name, file in files.items():
                        value = found[name] if name in found else taps[name]
                        file[at : at + len(index)] = value.to(torch.float16).cpu().numpy()
                    bar.update(len(index))
                spent = time.monotonic() - began
                for name, file in files.items():
                    file.flush()
                    done = max(stop, kept[name]["pairs"])
                    kept[name] = {"pairs": done, "seconds": round(kept[name]["seconds"] + spent, 3)}
                    write_json(self.path / f"{name}.json", kept[name])

    def _shapes(self, names: list[str], ask: Callable, device: torch.device) -> dict[str, tuple[int, ...]]:
        z, y = ask(torch.arange(1))
        taps = Taps(names)
        image = self.guide(z.to(device), None, y if y is None else y.to(device), taps)
        return {n: tuple((image if n == PREDICTION else taps[n]).shape[1:]) for n in names}

    def _facts(self, name: str, shape: tuple[int, ...]) -> dict[str, JSON]:
        """How many pairs a file has the answers to, at most those that it is long enough for, and the seconds it took;
        none where its note is not what `_make` writes.
        """
        note, path = read_json(self.path / f"{name}.json"), self.path / f"{name}.half"
        if not path.is_file() or schema.fault(note, NOTE, {"$defs": {}}):
            return {"pairs": 0, "seconds": 0.0}
        return {"pairs": min(note["pairs"], path.stat().st_size // (2 * math.prod(shape))), "seconds": note["seconds"]}

    def _file(self, name: str, shape: tuple[int, ...], count: int) -> np.memmap:
        """(count, ...) float16, lengthened where it was made for fewer."""
        path, size = self.path / f"{name}.half", 2 * math.prod(shape) * count
        with open(path, "ab") as file:
            if file.tell() < size:
                file.truncate(size)
        return np.memmap(path, np.float16, "r+", shape=(count, *shape))


def _advise(file: np.memmap, how: str, row: int | None = None) -> None:
    """Tell the system how a file, or one row of it, will be read, where it can be told."""
    if (advice := getattr(mmap, how, None)) is None:
        return
    size = file.nbytes // len(file)
    start = 0 if row is None else row * size // mmap.PAGESIZE * mmap.PAGESIZE
    file._mmap.madvise(advice, start, file.nbytes - start if row is None else (row + 1) * size - start)
