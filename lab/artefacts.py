"""Files that runtimes read instead of a run's weights: made once, beside what is known of them.

results/runs/<id>/export/<runtime>-<precision>/   the files, and artefact.json: of which weights they were
made, with what, how large they are, and how far their images are from the finished network's.
A folder stands there whole or not at all; other weights, or a changed file, and it is made again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from lab import deploy, diffusion, perceptual
from lab.config import JSON, NetConfig, config_from_json, config_to_json
from lab.data import ImageSpec
from lab.results import Run, look, now, read_json, write_json
from lab.weights import load_student, sha256, spec_of_run

FORMAT = 3  # raised when the same weights give other files
FACTS = "artefact.json"
Images = Callable[[np.ndarray, np.ndarray | None], np.ndarray]  # z, y -> images


def ensure(run: Run, runtime: str, precision: str, *, write: Callable[[nn.Module, ImageSpec, Path], None],
           open: Callable[[Path], Images], versions: Mapping[str, str],
           more: Callable[[Path], Mapping[str, JSON]] = lambda folder: {}, force: bool = False,
           solver: str = diffusion.SOLVER) -> Path:  # fmt: skip
    """The folder of a run's files for a runtime and precision, made where it is missing or stale.

    `write` puts the files of the deployed network into a folder, `open` makes images with them; what `more` says of
    them is kept, too. The solver is a denoiser's. Raises LookupError for a run without weights.
    """
    spec, digest = spec_of_run(run), run.read("student")["weights_sha256"]
    folder = folder_of(run, runtime, precision)
    if not force and fresh(run, runtime, precision, solver):
        return folder
    made = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    # A denoiser's whole sampler is one graph, to trace which may take minutes; no exporter says how far it is.
    said = tqdm(bar_format="{desc} [{elapsed}]", disable=not run.config.time)
    at = f"{runtime}-{precision} of {run.label}, {solver} as one graph"
    try:
        said.set_description_str(f"{at}: writing the file, which may take minutes")
        start = time.perf_counter()
        net = deploy.deploy(load_student(run), spec, solver)
        write(net, spec, made)
        seconds = time.perf_counter() - start
        files = {p.name: {"sha256": sha256(p), "bytes": p.stat().st_size} for p in sorted(made.iterdir())}
        facts = {
            "format": FORMAT, "run": run.id, "runtime": runtime, "precision": precision, "weights_sha256": digest,
            "files": files, "bytes": sum(f["bytes"] for f in files.values()), "seconds": round(seconds, 3),
            "created_utc": now(), "versions": dict(versions), "config": config_to_json(net.config),
            "spec": asdict(spec) | {"class_names": list(spec.class_names)},
            **({"solver": solver} if net.config.time else {}), **more(made),
        }  # fmt: skip
        write_json(made / FACTS, facts)  # what `open` reads
        said.set_description_str(f"{at}: comparing its images with the network's")
        write_json(made / FACTS, facts | distances(run, spec, open(made), solver))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)
        said.set_description_str(f"{at}: done")
    finally:
        said.close()
        shutil.rmtree(made, ignore_errors=True)
    return folder


def folder_of(run: Run, runtime: str, precision: str) -> Path:
    """Where the files of a run for a runtime and precision lie, or would."""
    return run.path / "export" / f"{runtime}-{precision}"


def fresh(run: Run, runtime: str, precision: str, solver: str = diffusion.SOLVER) -> bool:
    """Whether the files there are of the run's weights, and of a denoiser's solver, unchanged."""
    folder, student = folder_of(run, runtime, precision), run.read("student")
    facts = look(folder / FACTS, "artefact")[0]  # one that does not hold is made anew
    if facts is None or student is None or facts.get("format") != FORMAT:
        return False
    if facts.get("weights_sha256") != student["weights_sha256"] or facts.get("solver", solver) != solver:
        return False
    return all((folder / n).exists() and sha256(folder / n) == f["sha256"] for n, f in facts["files"].items())


def read(folder: Path) -> dict[str, JSON]:
    """What is known of a folder's files. Raises LookupError where nothing was exported."""
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict):
        raise LookupError(f"{folder.name} holds no exported network; `python -m lab export` makes one")
    return facts


def shape_of(facts: Mapping[str, JSON]) -> tuple[NetConfig, ImageSpec]:
    """The network and the images that an artefact's facts describe."""
    return config_from_json(facts["config"]), ImageSpec(**facts["spec"] | {
        "class_names": tuple(facts["spec"]["class_names"])})  # fmt: skip


# --- how far its images are from the right ones --------------------------------------------------


@torch.inference_mode()
def reference(run: Run, z: np.ndarray, y: np.ndarray | None, device: str = "cpu", solver: str = diffusion.SOLVER
              ) -> np.ndarray:  # fmt: skip
    """The images of a run's finished network in float32, before anything is folded or coarsened; the solver is a
    denoiser's.
    """
    net, spec = load_student(run, device=device), spec_of_run(run)
    draw = deploy.Sampler(net, spec.sigma_data, solver) if net.config.time else deploy.OneStep(net)
    classes = None if y is None else torch.from_numpy(y).to(device)
    return draw(torch.from_numpy(z).to(device), classes).float().cpu().numpy()


def distances(run: Run, spec: ImageSpec, images: Images, solver: str = diffusion.SOLVER) -> dict[str, JSON]:
    """Largest, mean and perceptual distance to the finished network's images on the 64 common noises.

    Raises RuntimeError for images that are no numbers.
    """
    z = diffusion.noise_of(diffusion.SHEET_SEEDS, spec.shape, 0)[0].numpy()
    y = diffusion.sheet_classes(len(z), run.config.num_classes)
    y = None if y is None else y.numpy()
    found, right = images(z, y), reference(run, z, y, solver=solver)
    if not np.isfinite(found).all():
        raise RuntimeError(f"what was exported of run {run.id} gives images that are not finite; nothing was kept")
    apart = perceptual.load(spec)(torch.from_numpy(found), torch.from_numpy(right))
    return {"images": len(z), "max_abs": float(np.abs(found - right).max()),
            "mean_abs": float(np.abs(found - right).mean()), "perceptual": float(apart.mean()),
            "perceptual_by": perceptual.name(spec)}  # fmt: skip
