"""A results folder made of files alone, as the pages read it: no training, no torch."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from lab import sheets
from lab.config import DiTConfig, Recipe, UNetConfig, Use, config_to_json
from lab.counts import of_dit
from lab.results import Run, Store, write_json, write_whole

APP = Path(__file__).parents[2] / "app.py"
EXTRACTOR = "fashion-mnist-cnn-1a2b3c4d"
REFERENCE = "fashion-mnist train, 60,000 images"
SHAPES = [  # about 0.1 M, 0.3 M and 1 M parameters, deep-thin to shallow-wide
    (8, 32, 2), (4, 44, 4), (3, 52, 4), (2, 64, 4),
    (10, 48, 4), (6, 56, 4), (4, 64, 4), (2, 96, 4),
    (12, 80, 4), (8, 96, 4), (6, 112, 4), (4, 128, 8),
    (16, 64, 4), (3, 144, 8),
]  # fmt: skip
LABEL = "the small one"


def make_store(path: Path | str, students: int = 14) -> Store:
    """A store of `students` students, one teacher, device reports, one unfinished and one unreadable run.

    The first student has a label. Beyond the shapes above they differ by seed, so `students` may be 2,000.
    """
    store = Store(path)
    teacher = _teacher(store)
    for k in range(students):
        depth, width, heads = SHAPES[k % len(SHAPES)]
        net = DiTConfig(patch=4, depth=depth, width=width, heads=heads)
        _student(store, net, seed=k // len(SHAPES), label=LABEL if k == 0 else "")
    store.name_teacher("fashion-teacher", teacher.id)
    _unfinished(store)
    write_whole(store.root / "runs" / "broken-d4w64h4p4-pairs-00000000" / "recipe.json", '{"data": "fashion-mn')
    return store


def add_student(
    store: Store, *, depth: int = 4, width: int = 64, heads: int = 4, seed: int = 100, label: str = "",
    fields: dict[str, object] | None = None, **metrics: object,
) -> Run:  # fmt: skip
    """One more finished student; `fields` are of its recipe, `metrics` replace some of metrics.json (samples=...)."""
    net = DiTConfig(depth=depth, width=width, heads=heads)
    return _student(store, net, seed=seed, label=label, fields=fields, **metrics)


def report(run: Run, *, ms: float, runtime: str = "eager", batch: int = 1, threads: int = 2, scope: str = "core",
           device: str = "test bench CPU", nfe: int = 1, throttled: bool | None = False, output_ok: bool = True,
           cv: float = 0.02, clocks_locked: bool = True, precision: str = "fp32",
           samples_ns: list[int] | None = None) -> dict[str, object]:  # fmt: skip
    """A device report of a run, whole by the schema."""
    student, cost = run.read("student"), run.read("cost")
    key = f"{run.id}-{runtime}-{precision}-{batch}-{threads}-{scope}-{device}-{ms}"
    return {
        "schema": "device_report.v1", "report_id": hashlib.sha256(key.encode()).hexdigest()[:16],
        "created_utc": "2026-11-20T10:00:00Z", "provenance": "measured", "source": None,
        "runner": {"name": "lab-runner", "version": "1", "sha256": "0" * 64, "preset": "quick"},
        "device": {"family": "x86_cpu", "name": device, "soc": None, "gpu": None, "memory_mb": 8000,
                   "unified_memory": False, "cooling": None},
        "software": {"os": "Linux", "l4t": None, "jetpack": None, "cuda": None, "python": "3.11", "torch": "2.14.1",
                     "runtime": runtime, "runtime_version": "2.14.1", "flags": [], "op_coverage_pct": None},
        "state": {"power_mode": None, "power_cap_w": None, "clocks_locked": clocks_locked, "gpu_mhz": None,
                  "cpu_mhz": None, "emc_mhz": None, "temp_c": None, "power_w": None, "power_rail": None,
                  "idle_power_w": None, "swap_mb": 0.0, "load_avg": 0.1, "threads": threads, "throttled": throttled},
        "model": {"model_id": run.id, "config": student["config"], "weights_sha256": student["weights_sha256"],
                  "artifact_sha256": None, "params": cost["params"], "macs": cost["macs"], "file_mb": cost["file_mb"],
                  "precision": precision},
        "workload": {"scope": scope, "batch": batch, "height": 28, "width": 28, "nfe": nfe},
        "timing": {"unit": "ms", "clock": "wall_sync", "load_ms": 12.0, "build_ms": None, "first_ms": 9.0,
                   "warmup_iters": 60, "warmup_converged": True, "iters": 2000, "duration_s": 2.04 * ms, "sessions": 1,
                   "p50": ms, "p50_ci95": [ms * 0.98, ms * 1.03], "p90": ms * 1.1, "p99": ms * 1.4, "min": ms * 0.9,
                   "mean": ms * 1.02, "std": ms * cv, "cv": cv, "drift": 0.001, "samples_ns": samples_ns},
        "memory": {"method": "rss", "weights_mb": cost["file_mb"], "allocator_peak_mb": None, "process_peak_mb": 300.0,
                   "system_delta_mb": None},
        "energy": None,
        "checks": {"output_ok": output_ok, "max_abs_vs_ref": 1e-6, "image_sha256": "0" * 64},
    }  # fmt: skip


def add_report(store: Store, plain: dict[str, object]) -> None:
    write_json(store.root / "devices" / f"{plain['report_id']}.json", plain)


def _teacher(store: Store) -> Run:
    recipe = Recipe(data="fashion-mnist", student=UNetConfig(), methods=(Use("denoise"),), steps=4800, batch=128)
    run = store.open(recipe)
    _files(run, params=1_100_000, macs=22_000_000, evaluations=8, fd=1.45, kid=0.06, accuracy=0.93, students_only=False)
    for scope, extra in [("core", 1.0), ("e2e", 1.05)]:
        add_report(store, report(run, ms=38.0 * extra, nfe=8, scope=scope))
        add_report(store, report(run, ms=26.0 * extra, nfe=8, scope=scope, runtime="compiled"))
        add_report(store, report(run, ms=210.0 * extra, nfe=8, scope=scope, batch=16))
    return run


def _student(store: Store, net: DiTConfig, *, seed: int, label: str, fields: dict[str, object] | None = None,
             **metrics: object) -> Run:  # fmt: skip
    recipe = Recipe(
        data="fashion-mnist",
        teacher="fashion-teacher",
        pairs=100_000,
        student=net,
        steps=12_500,
        seed=seed,
        **fields or {},
    )
    run = store.open(recipe)
    params = net.depth * 12 * net.width**2 + 40 * net.width
    macs = 50 * params
    # Deep nets of a size draw better and run slower, with diminishing returns; the seed moves both a little.
    fd = 1.7 + 1.0 * (params / 300_000) ** -0.45 + 0.35 / net.depth + 0.02 * ((seed * 7 + net.depth) % 5)
    ms = 0.12 + 0.11 * net.depth + params / 1.6e6 + 0.001 * (seed % 7)
    _files(
        run, params=params, macs=macs, evaluations=1, fd=fd, kid=fd / 20, accuracy=0.97 - fd / 40, students_only=True
    )
    if metrics:
        run.write("metrics", run.read("metrics") | metrics)
    if label:
        run.set_notes(label=label)
    for runtime, speed in [("eager", 1.0), ("compiled", 0.45)]:
        add_report(store, report(run, ms=ms * speed, runtime=runtime))
        add_report(store, report(run, ms=ms * speed * 1.2, runtime=runtime, scope="e2e"))
        add_report(store, report(run, ms=ms * speed * 5, runtime=runtime, batch=16))
    return run


def _unfinished(store: Store) -> Run:
    """A run that was killed at two thirds."""
    recipe = Recipe(
        data="fashion-mnist", teacher="fashion-teacher", pairs=100_000, student=DiTConfig(depth=5), steps=12_500
    )
    run = store.open(recipe)
    write_json(
        run.path / "status.json",
        {
            "state": "running",
            "step": 8000,
            "steps": 12_500,
            "seconds": 700.0,
            "started": "2026-11-20T08:00:00+00:00",
            "heartbeat": time.time() - 3600,
            "pid": 999_999_999,
            "error": "",
        },
    )
    _log(run, steps=8000, batch=64, term="pairs/l1")
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"step": 8050, "ima')  # cut off by the kill
    return run


def _files(run: Run, *, params: int, macs: int, evaluations: int, fd: float, kid: float, accuracy: float,
           students_only: bool) -> None:  # fmt: skip
    recipe = run.recipe
    weights = hashlib.sha256(run.id.encode()).hexdigest()
    term = "pairs/l1" if students_only else "denoise/mse"
    write_json(
        run.path / "status.json",
        {
            "state": "done",
            "step": recipe.steps,
            "steps": recipe.steps,
            "seconds": 1100.0,
            "started": "2026-11-20T08:00:00+00:00",
            "heartbeat": time.time() - 7200,
            "pid": 999_999_999,
            "error": "",
        },
    )
    file_mb = round(2 * params / 1e6 + 0.01, 3)
    deployed = {}
    if counts := of_dit(recipe.student):  # a student ships less than it was trained with
        params, macs = counts["params"], counts["macs"]
        deployed = {name: counts[name] for name in ("params_deployed", "macs_deployed")}
        file_mb = round(2 * params / 1e6 + 0.01, 3)
        deployed["file_mb_deployed"] = round(2 * deployed["params_deployed"] / 1e6 + 0.01, 3)
    run.write(
        "student",
        {
            "config": config_to_json(recipe.student),
            "weights_sha256": weights,
            "weights_dtype": "float16",
            "file_mb": file_mb,
            "spec": {"data": recipe.data, "size": 28, "channels": 1, "num_classes": 10, "class_names": []},
        },
    )
    run.write(
        "cost",
        {
            "params": params,
            "params_train": params,
            "macs": macs,
            "evaluations": evaluations,
            "macs_image": macs * evaluations,
            "file_mb": file_mb,
            **deployed,
        },
    )
    run.write("env", {"sittings": [{"started": "2026-11-20T08:00:00+00:00", "device": "cpu", "threads": 2}]})
    values = {
        "fd": {"value": fd, "reference": REFERENCE, "ci95": [fd - 0.04, fd + 0.04]},
        "kid": {"value": kid, "reference": REFERENCE},
        "precision": {"value": 0.8 - fd / 50, "reference": REFERENCE},
        "recall": {"value": 0.6 - fd / 50, "reference": REFERENCE},
        "class_accuracy": {"value": accuracy, "reference": "classes asked for"},
    }
    if students_only:
        values["fd_teacher"] = {"value": fd * 0.6, "reference": "teacher samples, 10,000 images"}
        values["teacher_l1"] = {"value": 0.02 * fd, "reference": "the teacher's image of the same noise"}
    run.write("metrics", {"weights_sha256": weights, "extractor": EXTRACTOR, "samples": 10_000, "seed": 100_000,
                          "seconds": 70.0, "values": values, "checkpoints": {}})  # fmt: skip
    _pictures(run, blur=fd)
    _log(run, steps=recipe.steps, batch=recipe.batch, term=term)


def _pictures(run: Run, blur: float) -> None:
    """64 blobs whose width says the class and whose grain says the run."""
    classes = np.arange(64) % 10
    rng = np.random.default_rng(0)  # the same noises for all runs
    grain = rng.normal(size=(64, 28, 28)) * 12 * blur
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    bodies = [np.exp(-((x / (0.25 + 0.06 * c)) ** 4) - (y / (0.9 - 0.05 * c)) ** 4) for c in classes]
    images = np.clip(220 * np.stack(bodies) + grain * np.stack(bodies), 0, 255).astype(np.uint8)[:, None]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=images, classes=classes, seeds=np.arange(64))
    write_whole(run.path / "samples.npz", buffer.getvalue())
    write_whole(run.path / "samples.png", sheets.png(images, 8))
    for k, images_seen in enumerate([6400, 80_000, 800_000]):
        noisy = np.clip(images[:16] / (3 - k) + (2 - k) * 30, 0, 255).astype(np.uint8)
        write_whole(run.path / "snapshots" / f"{images_seen}.png", sheets.png(noisy, 8))


def add_neighbours(run: Run, to_teacher: list[float] | None, nearest: list[float]) -> None:
    """What lies beside each of the 64 images, with given distances; the real images are grey, 100, 110 and 120."""
    near = [[d, d + 1, d + 2] for d in nearest]
    taught = {"teacher": "run:x", "solver": "dpmpp2m-8", "by": "fashion-mnist-cnn-5e6f7a8b", "distance": to_teacher}
    run.write("neighbours", {
        "weights_sha256": run.read("student")["weights_sha256"], "seeds": list(range(64)),
        "teacher": None if to_teacher is None else taught,
        "nearest": {"by": EXTRACTOR, "reference": REFERENCE, "index": [[k, k + 1, k + 2] for k in range(64)],
                    "distance": near, "test": {"median": 0.99, "images": 1000}},
    })  # fmt: skip
    real = np.tile(np.array([100, 110, 120], np.uint8), 64)[:, None, None, None] * np.ones((1, 1, 28, 28), np.uint8)
    write_whole(run.path / "neighbours.png", sheets.png(real, 24))


def _log(run: Run, *, steps: int, batch: int, term: str) -> None:
    lines = []
    for step in range(50, steps + 1, max(50, steps // 60)):
        lines.append(json.dumps({"step": step, "images": step * batch, "seconds": step * 0.088, "lr": 5e-3,
                                 term: 0.5 / step**0.25, "grad_norm": 0.4}))  # fmt: skip
    write_whole(run.path / "log.jsonl", "\n".join(lines) + "\n")


# --- pages ---------------------------------------------------------------------------------------


def open_page(name: str, *, timeout: float = 120, **query: str | list[str]) -> AppTest:
    """A page by its file's name, at an address with these parameters."""
    at = AppTest.from_file(str(APP), default_timeout=timeout)
    for key, value in query.items():
        at.query_params[key] = value
    at.switch_page(f"lab/dashboard/{name}.py").run()
    assert not at.exception, at.exception
    return at


def text(at: AppTest) -> str:
    """What a page says beside its charts and tables."""
    return " ".join(e.value for e in [*at.markdown, *at.caption, *at.warning, *at.info]).replace("\\", "")


# --- fixtures -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each AppTest looks through every installed package for components, which takes longer than most pages."""
    monkeypatch.setattr(manifest_scanner, "scan_component_manifests", lambda: [])


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A store of so many students, made once."""
    return functools.cache(lambda students: make_store(tmp_path_factory.mktemp("made"), students).root)


@pytest.fixture(name="make_store")
def _make_store(made: Callable[[int], Path]) -> Callable[..., Store]:
    """`make_store(path, students=14)` for tests that change the store."""

    def copied(path: Path, students: int = 14) -> Store:
        return Store(shutil.copytree(made(students), path, dirs_exist_ok=True))

    return copied


@pytest.fixture(scope="session")
def demo_root(made: Callable[[int], Path]) -> Path:
    """A store that tests only read."""
    return made(14)


@pytest.fixture
def demo(demo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store above, named by LAB_RESULTS as the app reads it."""
    monkeypatch.setenv("LAB_RESULTS", str(demo_root))
    return Store(demo_root)


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty results folder, named by LAB_RESULTS."""
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path / "results"))
    return Store(tmp_path / "results")


@pytest.fixture
def untimed(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three students and their teacher, of whose speed nothing is known."""
    store = make_store(tmp_path, students=3)
    for path in (store.root / "devices").glob("*.json"):
        path.unlink()
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    return store
