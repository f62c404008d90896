"""Images of finished networks and of teachers, by seed. No file is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lab import diffusion, teachers
from lab.data import ImageSpec
from lab.results import Run, Store
from lab.weights import load_student, spec_of_run


def generate(net: nn.Module, spec: ImageSpec, seeds: Sequence[int], *, y: Tensor | None = None,
             solver: str = "dpmpp2m-8", batch: int = 256, device: torch.device | str = "cpu", title: str = "",
             name: str = "as it is now") -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """uint8 images (N, C, H, W) and classes (N,) of a finished network on seeds; y None = drawn by seed.

    A denoiser is sampled with `solver`; an unconditional net is not told its class.
    Raises ValueError, by `name`, for images that are not finite.
    """
    teacher: teachers.Teacher = teachers.OneStepTeacher(net, spec, name=name)
    if net.config.time:
        teacher = teachers.EdmTeacher(net, spec, name=name, solver=solver)
    told = bool(net.config.num_classes)
    return draw(teacher, seeds, y=y, told=told, batch=batch, device=device, title=title)


@torch.inference_mode()
def draw(teacher: teachers.Teacher, seeds: Sequence[int], *, y: Tensor | None = None, told: bool = True,
         batch: int = 256, device: torch.device | str = "cpu", title: str = ""
         ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """uint8 images (N, C, H, W) and classes (N,) of a teacher on seeds, with a progress bar under `title`."""
    images, classes = [], []
    with tqdm(total=len(seeds), desc=title, unit="images", smoothing=0.1, disable=not title) as bar:
        for start in range(0, len(seeds), batch):
            z, drawn = diffusion.noise_of(seeds[start : start + batch], teacher.spec.shape, teacher.spec.num_classes)
            chosen = drawn if y is None else y[start : start + batch]
            on_device = chosen.to(device) if chosen is not None and told else None
            images.append(diffusion.to_uint8(teacher.sample(z.to(device), on_device).images).cpu())
            classes.append(chosen)
            bar.update(len(z))
    return torch.cat(images), None if classes[0] is None else torch.cat(classes)


# --- by name ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Student:
    """A finished network as a function: images = student(z, y)."""

    run: Run
    spec: ImageSpec
    net: nn.Module
    device: torch.device

    @torch.inference_mode()
    def __call__(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] of unit noise z (B, C, H, W) and classes y (B,); a teacher solves its ODE.

        Raises ValueError for noise of another shape and for classes that are missing or out of range.
        """
        told = bool(self.net.config.num_classes)
        y = _classes(y, len(z), self.spec.num_classes) if told else None
        teacher: teachers.Teacher = teachers.OneStepTeacher(self.net, self.spec, name=self.run.id)
        if self.net.config.time:
            teacher = teachers.EdmTeacher(self.net, self.spec, name=self.run.id, solver=self.run.recipe.drawn_by)
        return teacher.sample(z.to(self.device), y if y is None else y.to(self.device)).images.clamp(-1, 1)

    def sample(self, seeds: Sequence[int], y: Tensor | Sequence[int] | int | None = None) -> Tensor:
        """uint8 images (N, C, H, W) on noise seeds; y: classes (N,), one class for all, or None = drawn by seed."""
        told = bool(self.net.config.num_classes)
        chosen = None if y is None or not told else _classes(y, len(seeds), self.spec.num_classes)
        images, _ = generate(self.net, self.spec, seeds, y=chosen, solver=self.run.recipe.drawn_by, device=self.device,
                             name=self.run.id)  # fmt: skip
        return images


def _classes(y: Tensor | Sequence[int] | int | None, count: int, num_classes: int) -> Tensor:
    """Classes as (count,) int64; one number stands for all."""
    if y is None:
        raise ValueError(f"this network draws classes: give y of shape ({count},) with values 0 to {num_classes - 1}")
    y = torch.as_tensor(y, dtype=torch.int64)
    y = y.expand(count) if y.ndim == 0 else y
    if y.shape != (count,):
        raise ValueError(f"y must be of shape ({count},), one class for each noise; got {tuple(y.shape)}")
    if count and not 0 <= int(y.min()) <= int(y.max()) < num_classes:
        raise ValueError(f"classes lie in 0 to {num_classes - 1}, got {int(y.min())} to {int(y.max())}")
    return y


def load(name: str, store: Store | None = None, device: torch.device | str = "cpu") -> Student:
    """A run's finished network by id, start of an id, label or teacher's alias.

    Raises LookupError naming the nearest runs, or where the run has no network yet.
    """
    run = (store or Store()).get(name)
    return Student(run, spec_of_run(run), load_student(run, device=device), torch.device(device))


def sample(name: str, seeds: Sequence[int] = range(16), y: Tensor | Sequence[int] | int | None = None,
           store: Store | None = None, device: torch.device | str = "cpu") -> Tensor:  # fmt: skip
    """uint8 images (N, C, H, W) of a run on noise seeds, e.g. `lab.sample("d4w64h4p4", range(8), y=9)`."""
    return load(name, store, device).sample(seeds, y)
