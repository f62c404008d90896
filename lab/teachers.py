"""Teachers: anything that turns noise into images by solving an ODE, behind one small protocol.

`load("run:<id>" | alias | "pipeline:<folder or hub id>" | "callable:<name>", store)` gives one; the last is a function
that this process has registered.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lab import compiler, diffusion
from lab.config import JSON, DiTConfig, TeacherName, unknown
from lab.data import ImageSpec
from lab.models.dit import DiT, from_diffusers
from lab.models.layers import EPS
from lab.places import if_there
from lab.results import ID, Store, read_json
from lab.weights import load_student, sha256, spec_of_run

# Parameters. The rule looks at network and machine and not at how much work is left, so that a shard made after a stop
# has the arithmetic of the others.
COMPILE_FROM = 500_000
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass
class Samples:
    """Images of given noises, (B, C, H, W) about [-1, 1], and the estimates on the way if kept."""

    images: Tensor
    path: Tensor | None = None  # (B, keep, C, H, W), from noisy to clean


class Teacher(Protocol):
    """What a pair maker and a method may ask of a teacher."""

    name: str  # who it is, for conditions: the run's id, the pipeline's folder
    spec: ImageSpec
    evaluations: int  # calls of its network for one image
    compiled: bool  # whether its network is, which changes the last digits of its images

    def sample(self, noise: Tensor, y: Tensor | None, *, keep: int = 0) -> Samples:
        """Images of unit-variance noise (B, C, H, W) and classes (B,)."""
        ...


@dataclass
class CallableTeacher:
    """Any function D(x, sigma, y) -> clean image as a teacher, sampled with an ODE solver."""

    denoise: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    spec: ImageSpec
    solver: str = "dpmpp2m-8"
    name: str = "callable"
    compiled: bool = False
    guidance: float = 1.0  # that the function draws with, above 1 by two passes of its network

    @property
    def evaluations(self) -> int:
        return diffusion.evaluations(self.solver) * (1 if self.guidance == 1 else 2)

    def ask(self, x: Tensor, sigma: Tensor, y: Tensor | None) -> Tensor:
        """D(x, sigma, y), (B, C, H, W). Raises ValueError for another shape, which the solver would broadcast."""
        D = self.denoise(x, sigma, y)
        if not isinstance(D, Tensor) or D.shape != x.shape:
            given = tuple(D.shape) if isinstance(D, Tensor) else f"a {type(D).__name__}"
            raise ValueError(
                f"teacher {self.name} must give a tensor of its input's shape {tuple(x.shape)}, got {given}"
            )
        return D

    @torch.inference_mode()
    def sample(self, noise: Tensor, y: Tensor | None, *, keep: int = 0) -> Samples:
        _check_noise(noise, self.spec)
        images, path = diffusion.solve(lambda x, s: self.ask(x, s, y), noise, self.solver, keep=keep)
        return Samples(diffusion.finite(images, f"teacher {self.name}"), path)


class EdmTeacher(CallableTeacher):
    """A denoising network with EDM's scaling; bfloat16 where its owner says so."""

    def __init__(self, net: nn.Module, spec: ImageSpec, *, name: str, solver: str, dtype: str = "float32",
                 compiled: bool = False) -> None:  # fmt: skip
        self.net = diffusion.Denoiser(net.eval().requires_grad_(False), spec.sigma_data)
        if compiled:
            self.net.compile()
        self.dtype = dtype
        super().__init__(self._denoise, spec, solver, name, compiled=compiled)

    def _autocast(self, device: str) -> torch.autocast | nullcontext:
        return torch.autocast(device, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()

    def _denoise(self, x: Tensor, sigma: Tensor, y: Tensor | None) -> Tensor:
        with self._autocast(x.device.type):
            return self.net(x.float(), sigma.float(), y).float()


class OneStepTeacher:
    """A one-step student as the teacher of a smaller one."""

    evaluations, compiled = 1, False

    def __init__(self, net: nn.Module, spec: ImageSpec, *, name: str) -> None:
        self.net, self.spec, self.name = net.eval().requires_grad_(False), spec, name

    @torch.inference_mode()
    def sample(self, noise: Tensor, y: Tensor | None, *, keep: int = 0) -> Samples:
        _check_noise(noise, self.spec)
        if keep:
            raise ValueError(f"teacher {self.name} makes its image in one step; it has no path to keep")
        return Samples(diffusion.finite(self.net(noise, None, y), f"network {self.name}"))


def _check_noise(noise: Tensor, spec: ImageSpec) -> None:
    if tuple(noise.shape[1:]) != spec.shape:
        raise ValueError(f"noise must be (B, {', '.join(map(str, spec.shape))}), got {tuple(noise.shape)}")


def resolve(name: str, store: Store) -> str:
    """A teacher's lasting name, under which only the same images are drawn: an alias becomes run:<id>, and a pipeline
    its place and a mark of its content, pipeline:<absolute folder or hub id>@<hash>. Raises what `load` raises.
    """
    named = TeacherName.parse(name)
    if named.kind == "pipeline":
        source = source_of(named)
        return str(TeacherName("pipeline", source, pipeline_sha256(source)[:8]))
    if named.kind == "callable":
        return registered(name).name
    return f"run:{store.get(named.source).id}"


def spec_of(name: str, store: Store) -> ImageSpec:
    """What a teacher's images are. Raises what `load` raises."""
    named = TeacherName.parse(name)
    if named.kind == "pipeline":
        return load_pipeline(source_of(named)).spec
    return registered(name).spec if named.kind == "callable" else spec_of_run(store.get(named.source))


def digest_of(name: str, store: Store) -> str:
    """What decides a teacher's images: a hash of its weights, of a pipeline's shape and schedule too, or the digest
    that a function was registered with. Raises LookupError for a run without a finished network.
    """
    named = TeacherName.parse(name)
    if named.kind == "pipeline":
        return pipeline_sha256(source_of(named))
    if named.kind == "callable":
        return _entry(name)[1]
    facts = store.get(named.source).read("student")
    if not isinstance(facts, dict):
        raise LookupError(f"teacher {name} has no finished network yet")
    return str(facts["weights_sha256"])


def load(name: str, store: Store, *, solver: str = "dpmpp2m-8", dtype: str = "float32",
         device: str | torch.device = "cpu", thousands: bool = False) -> Teacher:  # fmt: skip
    """A teacher by alias, run:<id>, pipeline:<folder or hub id> or callable:<name>.

    `thousands` says that it will draw so many images that compiling a network of some size pays; without a compiler
    it is drawn uncompiled, with a notice.

    Raises LookupError for an unknown run or a function that is not registered, and ValueError for a pipeline that
    can't be sampled by an ODE solver.
    """
    named = TeacherName.parse(name)
    if named.kind == "pipeline":
        return load_pipeline(source_of(named), solver=solver, device=device)
    if named.kind == "callable":
        teacher = copy.copy(registered(name))
        teacher.solver = solver
        return teacher
    run = store.get(named.source)
    net, spec = load_student(run, device=device), spec_of_run(run)
    if net.config.time:
        pays = thousands and sum(p.numel() for p in net.parameters()) >= COMPILE_FROM
        compiled = pays and compiler.can_compile(device, f"teacher {run.id}")
        return EdmTeacher(net, spec, name=run.id, solver=solver, dtype=dtype, compiled=compiled)
    return OneStepTeacher(net, spec, name=run.id)


# --- functions ----------------------------------------------------------------------------------

_registered: dict[str, tuple[CallableTeacher, str]] = {}  # name -> the teacher under its lasting name, its digest


def register(name: str, teacher: CallableTeacher, *, digest: str) -> str:
    """Make a function's teacher known to this process as `callable:<name>`: to pairs, recipes and metrics.

    `digest` says what the function computes, a sha256 of its weights for one: it decides which pairs are the same.
    Gives the lasting name, `callable:<name>@<hash of the digest>`, under which recipes keep it. The function is called
    with tensors of the device that the work runs on; `spec.data` is the data set that its students are measured
    against. A name given again stands for the later function. Raises ValueError for a name or digest that is none.
    """
    if not ID.fullmatch(name):
        raise ValueError(f"a registered teacher's name must match {ID.pattern}, got {name!r}")
    if not digest:
        raise ValueError(f"teacher {name!r} needs a digest that says which function it is, such as its weights' sha256")
    if not isinstance(teacher, CallableTeacher):
        raise ValueError(f"teacher {name!r} must be a CallableTeacher, got {type(teacher).__name__}")
    teacher = copy.copy(teacher)
    teacher.name = f"callable:{name}@{hashlib.sha256(digest.encode()).hexdigest()[:8]}"
    _registered[name] = (teacher, digest)
    return teacher.name


def registered(name: str) -> CallableTeacher:
    """The teacher of `callable:<name>` or its lasting name; LookupError where this process has not registered it."""
    teacher, _ = _entry(name)
    return teacher


def _entry(name: str) -> tuple[CallableTeacher, str]:
    named = TeacherName.parse(name)
    short, mark = named.source, named.mark
    if short not in _registered:
        raise LookupError(f"teacher {name} is a function that this process doesn't know; call "
                          f"lab.teachers.register({short!r}, ...) in it first")  # fmt: skip
    if mark and _registered[short][0].name != name:
        raise LookupError(f"teacher {name} was registered with another digest here, as {_registered[short][0].name}")
    return _registered[short]


# --- diffusers pipelines ------------------------------------------------------------------------


def source_of(named: TeacherName) -> str:
    """The folder, absolute, or hub id of a pipeline.

    Raises ValueError where what lies there now is not what a lasting name was given to.
    """
    if not named.source.strip():  # "" would be the folder that the lab was started in
        raise ValueError("pipeline: names no pipeline; write its folder or hub id behind the colon")
    folder = if_there(named.source)
    source = str(folder.absolute()) if folder.is_dir() else named.source
    if named.mark and (here := pipeline_sha256(source)[:8]) != named.mark:
        raise ValueError(f"pipeline {source!r} was {named.mark} when this name was given to it and is {here} now; "
                         f"pipeline:{source} names the present one")  # fmt: skip
    return source


def load_pipeline(source: str, *, solver: str = "dpmpp2m-8", device: str | torch.device = "cpu",
                  guidance: float = 1.0) -> CallableTeacher:  # fmt: skip
    """A diffusers pipeline of pixels (unconditional U-Net, class-conditional DiT) as an ODE teacher.

    Whatever scheduler it came with, the network is read as a denoiser D(x, sigma) through the noise
    schedule it was trained on and sampled with our solvers. Raises ValueError with the reason where
    that can't be done: an unknown kind of network or prediction, weights that are not the network's, latents of a VAE,
    images without a square, a network that doesn't answer. The pipeline's own class, which may be one that only its
    maker has, is not looked at.

    With `guidance`, a DiT's images are drawn by classifier-free guidance of that scale; `register` makes such a teacher
    known, for a pipeline's name alone has none.
    """
    net, scheduler = _network(source), _scheduler(source)
    schedule = getattr(scheduler, "alphas_cumprod", None)
    prediction = getattr(scheduler.config, "prediction_type", "epsilon") if scheduler is not None else None
    if schedule is None or prediction not in ("epsilon", "v_prediction", "sample"):
        raise ValueError(
            f"pipeline {source!r} has scheduler {type(scheduler).__name__} with prediction {prediction!r}; "
            "an ODE teacher needs a discrete schedule (alphas_cumprod) and epsilon, v_prediction or sample"
        )
    if len(schedule) < 2:
        raise ValueError(f"pipeline {source!r} has a schedule of {len(schedule)} noise levels (num_train_timesteps or "
                         "trained_betas); an ODE teacher needs at least 2 to lie between")  # fmt: skip
    if not (schedule.double().diff() <= 0).all() or not 0 <= schedule[-1] <= schedule[0] <= 1:
        raise ValueError(f"pipeline {source!r} has a schedule whose alphas_cumprod don't fall from at most 1 to at "
                         f"least 0; it begins with {schedule[0]:g} and ends with {schedule[-1]:g}")  # fmt: skip
    if (most := float(((1 - schedule[-1].double()) / schedule[-1].double()).sqrt())) < diffusion.SIGMA_MAX / 2:
        warnings.warn(f"pipeline {source!r} was trained up to noise level {most:.3g}, and its images are drawn from "
                      f"{diffusion.SIGMA_MAX:g} on: what it says there is a guess; look at some of them",
                      stacklevel=2)  # fmt: skip
    net = net.eval().requires_grad_(False).to(device)
    side = _side(source, net.config.sample_size)
    denoise = DiscreteDenoiser(net, schedule, prediction, device=device, guidance=guidance)
    if guidance != 1 and denoise.null is None:
        raise ValueError(f"pipeline {source!r} has no label of no class, so guidance must be 1, got {guidance}")
    spec = ImageSpec(
        data=f"pipeline:{Path(source).name}", size=side, channels=net.config.in_channels,
        num_classes=denoise.num_classes, class_names=tuple(map(str, range(denoise.num_classes))),
    )  # fmt: skip
    teacher = CallableTeacher(denoise, spec, solver, name=f"pipeline:{source}", guidance=guidance)
    _try(teacher, device)
    return teacher


def _try(teacher: CallableTeacher, device: str | torch.device) -> None:
    """Ask a teacher once, for what its network can't be asked shows nowhere else: a size that its levels don't halve,
    timesteps that are rows of a table. Raises ValueError where it has no answer.
    """
    x, sigma = (torch.ones(2, *shape, device=device) for shape in (teacher.spec.shape, ()))
    y = torch.zeros(2, dtype=torch.int64, device=device) if teacher.spec.num_classes else None
    try:
        with torch.no_grad():
            teacher.ask(x, sigma, y)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{teacher.name} can't be asked for images of {teacher.spec.shape} at any noise level; its "
                         f"network says: {error}") from error  # fmt: skip


def _network(source: str) -> nn.Module:
    """A pipeline's network with all of its weights. Raises ValueError where it isn't one of pixels that we can ask."""
    import diffusers

    parts, folder = _parts(source), _folder(source)
    part = next((name for name in ("unet", "transformer") if (parts.get(name) or [None])[-1]), "unet")
    name, kinds = str((parts.get(part) or [None])[-1]), {"UNet2DModel", "DiTTransformer2DModel"}
    if name not in kinds:
        raise ValueError(unknown(f"kind of network in pipeline {source!r}", name, kinds))
    said = _said(folder / part / "config.json")
    told, loud = diffusers.utils.logging, diffusers.utils.logging.get_verbosity()
    told.set_verbosity_error()  # pages of the keys that are refused below in a sentence
    try:
        net, keys = getattr(diffusers, name).from_pretrained(folder / part, use_safetensors=True,
                                                             output_loading_info=True)  # fmt: skip
    except Exception as error:  # a stranger's configuration: diffusers raises whatever it trips over
        raise ValueError(f"no diffusers pipeline can be read from {source!r}: {error}") from error
    finally:
        told.set_verbosity(loud)
    if keys["missing_keys"] or keys["unexpected_keys"]:
        _load_renamed(net, source, folder / part)
    for file in _weights(folder / part):
        with safe_open(file, "pt") as found:
            kinds = {name: found.get_slice(name).get_dtype() for name in found.keys()}
        if whole := [name for name, kind in kinds.items() if "F" not in kind]:
            raise ValueError(f"the weights of pipeline {source!r} are no floats: {whole[0]} is {kinds[whole[0]]} in "
                             f"{file.name}; save them as they were before they were quantised")  # fmt: skip
    if said and "sample_size" not in said:  # diffusers would put its own default there
        raise ValueError(f"pipeline {source!r} has no sample_size in {part}/config.json; a teacher's images are "
                         "square, of a size that is told")  # fmt: skip
    kind, takes, gives = net.config.get("class_embed_type"), net.config.in_channels, net.config.out_channels
    if kind is not None:
        raise ValueError(f"pipeline {source!r} is told its class by {kind} embedding (class_embed_type); only a table "
                         "of classes (num_class_embeds) can be asked")  # fmt: skip
    if gives not in (takes, 2 * takes):
        raise ValueError(f"pipeline {source!r} takes {takes} channels and gives {gives}; a teacher gives as many as "
                         "it takes, or twice that for a variance, and isn't conditioned by more channels")  # fmt: skip
    return net


def _said(file: Path) -> dict[str, JSON] | None:
    """What a part's configuration says; None where diffusers has a sentence of its own. Raises ValueError for JSON that
    is no object, which diffusers would look for on the hub.
    """
    said = read_json(file, json.loads)  # some hold -Infinity
    if said is not None and not isinstance(said, dict):
        raise ValueError(f"{file} holds no JSON object, and so no configuration; restore it")
    return said


def _load_renamed(net: nn.Module, source: str, folder: Path) -> None:
    """The weights of a network that was saved as torch.compile or DataParallel wrap it.

    Raises ValueError where they are not those of the network: what is absent would be random, a new one each time.
    """
    found = {name: value for file in _weights(folder) for name, value in load_file(file).items()}
    found = {re.sub(r"^((_orig_mod|module)\.)+", "", name): value for name, value in found.items()}
    wanted = net.state_dict()
    for what, names in [("lack", wanted.keys() - found), ("have unknown", found.keys() - wanted)]:
        if names:
            some = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise ValueError(f"the weights of pipeline {source!r} are not its network's: they {what} {some} "
                             f"({len(names)} of {len(wanted)})")  # fmt: skip
    net.load_state_dict(found)


def _weights(folder: Path) -> list[Path]:
    """The files that diffusers loads of a network's folder, in which others may lie: one, or those of its index."""
    whole = folder / "diffusion_pytorch_model.safetensors"
    index = folder / f"{whole.name}.index.json"
    if whole.exists():
        return [whole]
    if index.exists():
        said = read_json(index)
        files = said.get("weight_map") if isinstance(said, dict) else None
        if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
            raise ValueError(f"{index} names no files of weights; restore it")
        return sorted({folder / name for name in files.values()})
    return sorted(folder.glob("*.safetensors"))


def _scheduler(source: str) -> object | None:
    """A pipeline's scheduler, None where it has none."""
    import diffusers

    name = (_parts(source).get("scheduler") or [None])[-1]
    kind = getattr(diffusers, str(name), None)
    if name is None or kind is None:
        return None
    _said(_folder(source) / "scheduler" / "scheduler_config.json")
    try:
        return kind.from_pretrained(_folder(source) / "scheduler")
    except Exception as error:
        raise ValueError(f"the scheduler {name} of pipeline {source!r} can't be read: {error}") from error


def _side(source: str, told: JSON) -> int:
    """The side of a pipeline's images by its sample_size: a number, or twice the same."""
    sides = {str(side) for side in (told if isinstance(told, (list, tuple)) else [told])}
    if len(sides) != 1 or not re.fullmatch("[1-9][0-9]*", side := sides.pop()):
        raise ValueError(f"pipeline {source!r} has sample_size {told!r}; a teacher's images are square, of a size that "
                         "is told")  # fmt: skip
    return int(side)


def _folder(source: str) -> Path:
    """Where a pipeline lies: its folder, or what the cache has of the hub's, or will have."""
    import diffusers

    folder = Path(source)
    return folder if folder.is_dir() else Path(diffusers.DiffusionPipeline.download(source, use_safetensors=True))


def pipeline_sha256(source: str) -> str:
    """A hash of what decides a pipeline's images: its network's weights and shape, and its schedule.

    Raises ValueError where there is no such pipeline.
    """
    parts = _parts(source)
    folder = _folder(source)
    digest = hashlib.sha256()
    for part in ("scheduler", "transformer", "unet"):
        kind = parts[part][-1] if isinstance(parts.get(part), (list, tuple)) and parts[part] else None
        if not kind:  # a folder that nothing is loaded from
            continue
        for file in sorted((folder / part).glob("*")):
            if file.suffix in (".json", ".safetensors"):
                digest.update(f"{part}/{file.name} {sha256(file)}\n".encode())
        # The index alone says of what class it is; told where that is another than its own file says.
        said = [read_json(file, json.loads) for file in (folder / part).glob("*config.json")]  # some hold -Infinity
        if kind not in [one.get("_class_name") for one in said if isinstance(one, dict)]:
            digest.update(f"{part} {kind}\n".encode())
    return digest.hexdigest()


def _parts(source: str) -> dict[str, JSON]:
    """A pipeline's model_index.json: part -> [library, class]. Raises ValueError for none, and for one of latents."""
    import diffusers

    if not Path(source).is_dir() and not HUB_ID.fullmatch(source):
        raise ValueError(f"there is no folder {source}, and it is no hub id such as google/ddpm-cifar10-32")
    try:
        parts = dict(diffusers.DiffusionPipeline.load_config(source))
    except (OSError, ValueError, TypeError) as error:  # of JSON that is no object
        raise ValueError(f"no diffusers pipeline can be read from {source!r}: {error}") from error
    for name in ("unet", "transformer", "scheduler", "vae", "vqvae", "movq"):
        if not isinstance(told := parts.get(name), (list, tuple, type(None))):
            raise ValueError(f"model_index.json of pipeline {source!r} says {told!r} of its {name}; a part is told by "
                             "library and class, as in [\"diffusers\", \"UNet2DModel\"]")  # fmt: skip
    for name in ("vae", "vqvae", "movq"):
        if kind := (parts.get(name) or [None])[-1]:
            raise ValueError(f"pipeline {source!r} draws latents of its {name} ({kind}), and pairs are kept as 8-bit "
                             "images, which latents do not survive; a teacher must draw pixels")  # fmt: skip
    return parts


class DiscreteDenoiser:
    """D(x; sigma) of a network trained on a discrete variance-preserving schedule (EDM, Table 1, "iDDPM")."""

    def __init__(self, net: nn.Module, alphas_cumprod: Tensor, prediction: str, *,
                 device: str | torch.device = "cpu", guidance: float = 1.0) -> None:  # fmt: skip
        self.net, self.prediction, self.guidance = net, prediction, guidance
        self.wide = diffusion.widest(torch.device(device))
        a = alphas_cumprod.cpu().double()
        # (T,), rising with the timestep. A schedule may begin without noise, and ln(0) is no place to interpolate from.
        self.log_sigmas = ((1 - a) / a).sqrt().clamp(min=diffusion.SIGMA_MIN / 2).log().to(self.wide).to(device)
        self.ours: DiT | None = None
        self.null: int | None = None  # the label of no class, behind the others
        if isinstance(net, DiT):
            self.num_classes, self.ours = net.config.num_classes, net
            self.null = self.num_classes if net.config.null_class else None
        elif type(net).__name__ == "DiTTransformer2DModel":
            self.num_classes = self.null = net.config.num_embeds_ada_norm
            self.ours = _as_ours(net, device)
            self.net = self.ours or net
        else:
            self.num_classes = net.config.num_class_embeds or 0

    def timestep(self, sigma: Tensor) -> Tensor:
        """The (fractional) timestep of a noise level, by linear interpolation in ln(sigma)."""
        wanted, table = sigma.to(self.wide).log(), self.log_sigmas
        high = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
        low = high - 1
        w = ((wanted - table[low]) / (table[high] - table[low])).clamp(0, 1)
        return low + w

    def __call__(self, x: Tensor, sigma: Tensor, y: Tensor | None) -> Tensor:
        s = sigma.to(self.wide).view(-1, 1, 1, 1)
        c_in = 1 / (s**2 + 1).sqrt()
        scaled, t = (c_in * x).float(), self.timestep(sigma).float()
        if self.guidance == 1:
            out = self._raw(scaled, t, y)
        else:
            out = diffusion.guided(self._raw, scaled, t, y, null=self.null, scale=self.guidance,
                                   channels=min(3, x.shape[1]))  # fmt: skip
        out = out[:, : x.shape[1]].to(self.wide)
        if self.prediction == "epsilon":
            return x - s * out
        if self.prediction == "v_prediction":
            return c_in**2 * x - s * c_in * out
        return out

    def _raw(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """(B, C, H, W), (B,), (B,) -> what the network says, (B, C or 2 C, H, W)."""
        if self.ours is not None:
            return self.ours(x, t, y)
        return self.net(x, t, **({"class_labels": y} if self.num_classes else {})).sample


def _as_ours(net: nn.Module, device: str | torch.device) -> DiT | None:
    """diffusers' DiT as our network, which is quicker; None where ours does not compute the same."""
    theirs = net.config
    like = {"norm_eps": EPS, "norm_elementwise_affine": False, "attention_bias": True, "upcast_attention": False,
            "activation_fn": "gelu-approximate"}  # fmt: skip
    if any(theirs.get(name) != value for name, value in like.items()):
        return None
    config = DiTConfig(
        image_size=theirs.sample_size, channels=theirs.in_channels, out_channels=theirs.out_channels, time=True,
        num_classes=theirs.num_embeds_ada_norm, null_class=True, patch=theirs.patch_size, depth=theirs.num_layers,
        heads=theirs.num_attention_heads, width=theirs.num_attention_heads * theirs.attention_head_dim,
    )  # fmt: skip
    if config.check():
        return None
    ours = DiT(config)
    try:
        ours.load_state_dict(from_diffusers(net.state_dict()))
    except ValueError:  # every block was trained with embedders of its own
        return None
    if not torch.allclose(ours.positions, net.pos_embed.pos_embed.cpu(), atol=1e-6):
        return None
    return ours.eval().requires_grad_(False).to(device)
