"""What every runtime must do in every precision, whichever file it stands in."""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import importlib
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from conftest import TINY_STUDENT

from lab import artefacts, bench, diffusion, experiment, export, models, runtimes
from lab.bench import TOLERANCES
from lab.config import FAMILIES, DiTConfig, NetConfig, Recipe, why_not_plain
from lab.data import ImageSpec
from lab.models.blocks import BLOCKS
from lab.results import Run, Store
from lab.runtimes import Session
from lab.runtimes import openvino as openvino_file
from lab.runtimes.base import Parts, part_of
from lab.teachers import EdmTeacher
from lab.weights import load_student, save_student, spec_of_run

BATCH = 4
FORMS = [(r.name, p) for r in runtimes.RUNTIMES.values() for p in r.precisions]
# Compiling takes 10 s and more for each network and batch.
EVERY = [pytest.param(f, marks=pytest.mark.slow if f[0] == "compiled" else (), id="-".join(f)) for f in FORMS]
TORCH = ["eager", pytest.param("compiled", marks=pytest.mark.slow)]
FILES = [name for name, runtime in runtimes.RUNTIMES.items() if runtime.exports]
# An int8 activation is coarsened by the range of the whole batch, where no calibration fixed it before.
BATCH_COUPLED = {("onnxruntime", "int8")}


@pytest.fixture(scope="module")
def runs(taught_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A one-step student, an unconditional one and a denoiser, all with weights that show in the image."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("runtimes") / "results"
    shutil.copytree(taught_root, root)
    store = Store(root)
    unconditional = TINY_STUDENT.with_(student__num_classes=0)
    found = {
        "student": experiment.run(TINY_STUDENT, store, measure=False),
        "unconditional": experiment.run(unconditional, store, measure=False),
    }
    for run in found.values():
        give_weight(run)
    for name in [*found]:
        found[f"ternary {name}"] = Run(shutil.copytree(found[name].path, root / "ternary" / found[name].id))
        make_ternary(found[f"ternary {name}"])
    return found | {"denoiser": store.get("tiny")}


def give_weight(run: Run, seed: int = 0) -> None:
    """As after a long training: after a dozen steps from zero, adaLN lets nothing of the blocks through."""
    net, rng = load_student(run), torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data = p.data + 0.15 * torch.randn(p.shape, generator=rng)
    net.head.weight.data *= 0.3  # images of about [-1, 1]
    if net.label is not None:
        net.label.weight.data *= 4  # a class that shows
    save_student(run, net, spec_of_run(run))


def make_ternary(run: Run) -> None:
    """Every matrix of the blocks with the values -a, 0 and a alone."""
    net = load_student(run)
    for name, linear in net.named_modules():
        if isinstance(linear, torch.nn.Linear) and "blocks." in name:
            w = linear.weight.data
            linear.weight.data = w.abs().mean() * (w / w.abs().mean()).round().clamp(-1, 1)
    save_student(run, net, spec_of_run(run), facts={"ternary": {}})


def of_form(name: str, runtime: str) -> str:
    """The run that a runtime is tried on: one of them takes ternary networks alone."""
    return f"ternary {name}" if runtime == "packed" else name


def opened(form: tuple[str, str], run: Run, **options: object) -> Session:
    name, precision = form
    try:
        runtime = runtimes.get(name)
        path = runtime.export(run, precision)
    except LookupError as why:
        pytest.skip(str(why))
    return runtime.open(path, precision=precision, **options)


def inputs(run: Run, batch: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    z, _ = diffusion.noise_of(range(batch), spec_of_run(run).shape, 0)
    return z.numpy(), np.arange(batch) % 10


@pytest.fixture(scope="module", params=EVERY)
def form(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def session(form: tuple[str, str], student: Run) -> Session:
    return opened(form, student, threads=1)


@pytest.fixture(scope="module")
def student(form: tuple[str, str], runs: dict[str, Run]) -> Run:
    return runs[of_form("student", form[0])]


def test_its_images_are_those_of_the_network(form: tuple[str, str], session: Session, student: Run) -> None:
    z, y = inputs(student, 64)
    expected = artefacts.reference(student, z, y)
    found = session(z, y)
    assert found.dtype == np.float32 and found.shape == z.shape and expected.std() > 0.2
    largest, mean = (1e-5, 1e-5) if form[1] == "fp32" else TOLERANCES[form[1]]
    mean = 0.002 if "int8" in form[1] else mean  # so small a net is hurt so little, if its table stays float
    assert np.abs(found - expected).max() <= largest and np.abs(found - expected).mean() <= mean


def test_the_images_of_another_class_or_noise_would_not_pass(runs: dict[str, Run]) -> None:
    z, y = inputs(runs["student"], 64)
    right = artefacts.reference(runs["student"], z, y)
    others = [artefacts.reference(runs["student"], z, (y + 1) % 10), np.roll(right, 1, 0), np.zeros_like(right)]
    assert min(np.abs(other - right).mean() for other in others) > max(mean for _, mean in TOLERANCES.values())


def test_an_image_does_not_depend_on_the_batch_around_it(
    form: tuple[str, str], session: Session, runs: dict[str, Run]
) -> None:
    z, y = inputs(runs["student"], 64)
    whole = session(z, y)
    for part in (1, 4):
        largest = TOLERANCES[form[1]][0] if form in BATCH_COUPLED or form[1] == "bf16" else 1e-5
        assert np.abs(session(z[:part], y[:part]) - whole[:part]).max() <= largest


def test_the_parts_give_what_the_whole_gives(session: Session, runs: dict[str, Run]) -> None:
    z, y = inputs(runs["student"])
    with session:
        placed = session.place(z, y)
        session.build(placed)
        found = session.fetch(session.run(placed))
    np.testing.assert_array_equal(found, session(z, y))


def test_an_image_that_was_fetched_stays_as_it_is(session: Session, runs: dict[str, Run]) -> None:
    z, y = inputs(runs["student"])
    first = session(z, y)
    kept = first.copy()
    session(-z, y)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z, y: (z[:, :, :-1], y), r"noise must be \(B, 1, 8, 8\), got \(4, 1, 7, 8\)"),
        (lambda z, y: (z[0], y), r"noise must be \(B, 1, 8, 8\), got \(1, 8, 8\)"),
        (lambda z, y: (z[:0], y[:0]), r"noise must be .* got \(0, 1, 8, 8\)"),
        (lambda z, y: (z, y + 8), r"class 10 is out of range; this network has classes 0 to 9"),
        (lambda z, y: (z, y - 1), r"class -1 is out of range"),
        (lambda z, y: (z, y[:2]), r"classes must be 4 whole numbers, one for every image, got int64 \(2,\)"),
        (lambda z, y: (z, y / 2), r"classes must be 4 whole numbers"),
        (lambda z, y: (z, None), r"wants a class for every image, 0 to 9"),
    ],
)
def test_wrong_inputs_are_refused_in_a_sentence(
    session: Session, runs: dict[str, Run], change: Callable[..., tuple], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        session(*change(*inputs(runs["student"])))


def test_threads_are_pinned_while_it_works_and_the_process_keeps_its_own(session: Session) -> None:
    torch.set_num_threads(2)
    with session:
        assert session.threads == 1
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", TORCH)
def test_torch_takes_as_many_threads_as_its_session_says(name: str, runs: dict[str, Run]) -> None:
    torch.set_num_threads(2)
    with opened((name, "fp32"), runs["student"], threads=1):
        assert torch.get_num_threads() == 1


def test_an_unconditional_network_takes_no_class(form: tuple[str, str], runs: dict[str, Run]) -> None:
    run = runs[of_form("unconditional", form[0])]
    session = opened(form, run)
    z, y = inputs(run)
    assert np.abs(session(z) - artefacts.reference(run, z, None)).mean() <= TOLERANCES[form[1]][1]
    with pytest.raises(ValueError, match="unconditional"):
        session(z, y)


@pytest.mark.parametrize("name", TORCH)
def test_a_denoisers_session_is_its_whole_sampler(name: str, runs: dict[str, Run]) -> None:
    run = runs["denoiser"]
    session = opened((name, "fp32"), run, solver="heun-3")
    z, y = inputs(run)
    teacher = EdmTeacher(load_student(run), spec_of_run(run), name="", solver="heun-3", dtype="float32")
    assert session.evaluations == 5 and "deployed" not in session.flags
    np.testing.assert_allclose(
        session(z, y), teacher.sample(torch.from_numpy(z), torch.from_numpy(y)).images, atol=1e-3
    )


# --- networks of every kind ---

SMALL = {"image_size": 8, "patch": 4, "depth": 1, "width": 16, "heads": 2, "widths": (8, 16), "attention": (1,),
         "groups": 4, "iterations": 2, "tied": 2}  # fmt: skip
FEW = {"dit": "dpmpp2m-2", "unet": "ddim-1"}  # evaluations by family, each of them traced


def small(kind: type, **more: object) -> NetConfig:
    names = {f.name for f in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in SMALL.items() if name in names} | more)


KINDS: dict[str, NetConfig] = {
    **{family: small(kind) for family, kind in FAMILIES.items()},
    **{f"dit-{block}": small(DiTConfig, block=block) for block in BLOCKS if block != DiTConfig.block},
    **{f"denoiser-{block}": small(DiTConfig, block=block, time=True, null_class=True) for block in BLOCKS},
    "unconditional": small(DiTConfig, block="time", num_classes=0), "heads": small(DiTConfig, head_dim=12),
}  # fmt: skip
TRACED_LONG = ("denoiser-time", "denoiser-dynamic")  # their blocks and their sampler are traced in other kinds, too


def of_kinds() -> Iterator[ParameterSet]:
    """Every kind in every form but the packed; what takes longest, and is like what others prove, in slow runs."""
    for (name, config), form in itertools.product(KINDS.items(), EVERY):
        runtime, precision = form.values[0]
        if runtime != "packed":
            files = runtime in FILES and not runtimes.RUNTIMES[runtime].why_not(config, precision)
            long = files and (name in TRACED_LONG or (precision == "int8" and runtime == "openvino" and name != "dit"))
            marks = [*form.marks, *([pytest.mark.slow] if long else [])]
            yield pytest.param(name, (runtime, precision), marks=marks, id=f"{name}-{form.id}")


def solver_of(config: NetConfig) -> str:
    return FEW[config.family if config.time else "dit"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a network of this kind whose weights show in the image."""
    torch.manual_seed(0)
    config = KINDS[request.param]
    net = models.build(config)
    for p in net.parameters():
        p.data += 0.05 * torch.randn_like(p)
    run = Store(tmp_path_factory.mktemp("kinds")).open(Recipe(student=config, solver=solver_of(config)))
    save_student(run, net, ImageSpec(data="digits", size=8, channels=1, num_classes=config.num_classes))
    return run


@pytest.fixture(scope="module")
def traced_once() -> Iterator[None]:
    """Tracing takes seconds, and a network is traced alike for every precision."""
    known, trace = {}, export.traced

    def traced(net: torch.nn.Module, spec: ImageSpec) -> object:
        if net.config not in known:
            known[net.config] = trace(net, spec)
        return copy.deepcopy(known[net.config])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "traced", traced)
        yield


@pytest.mark.usefixtures("traced_once")
@pytest.mark.parametrize(("kind", "form"), of_kinds(), indirect=["kind"])
def test_a_network_of_any_kind_draws_its_images_or_is_refused_in_a_sentence(kind: Run, form: tuple[str, str]) -> None:
    name, precision = form
    runtime, config, few = runtimes.RUNTIMES[name], kind.config, solver_of(kind.config)
    if why := runtime.why_not(config, precision):
        branches = name == "compiled" and config.family == "routed"
        assert branches or (precision == "int8-static" and why_not_plain(config) in why)
        with pytest.raises(ValueError, match=re.escape(why)):
            runtime.export(kind, precision)
        return
    try:
        path = runtimes.get(name).export(kind, precision, solver=few)
    except LookupError as why:
        pytest.skip(str(why))
    session = runtime.open(path, precision=precision, threads=1, solver=few)
    z, y = inputs(kind)
    y = y if config.num_classes else None
    right, found = artefacts.reference(kind, z, y, solver=few), session(z, y)
    largest, mean = (1e-4, 1e-5) if precision == "fp32" else TOLERANCES[precision]
    assert session.evaluations == (diffusion.evaluations(few) if config.time else 1)
    assert right.std() > 0.03 and found.shape == right.shape
    assert np.abs(found - right).max() <= largest and np.abs(found - right).mean() <= min(mean, right.std() / 5)
    if runtime.exports and config.time:
        with pytest.raises(ValueError, match=f"was made with solver {few}, not heun-2"):
            runtime.open(path, precision=precision, solver="heun-2")


def test_packed_takes_a_ternary_network_of_any_kind_and_no_other(kind: Run, tmp_path: Path) -> None:
    runtime = runtimes.get("packed")
    with pytest.raises(ValueError, match="was not trained by method ternary"):
        runtime.export(kind)
    run = Run(shutil.copytree(kind.path, tmp_path / kind.id))
    make_ternary(run)
    few = solver_of(run.config)
    session = runtime.open(runtime.export(run, solver=few), threads=1, solver=few)
    z, y = inputs(run)
    y = y if run.config.num_classes else None
    right, found = artefacts.reference(run, z, y, solver=few), session(z, y)
    assert right.std() > 0.03 and session.weights_mb < run.read("student")["file_mb"]
    assert np.abs(found - right).max() <= min(TOLERANCES["ternary"][0], right.std() / 10)


def test_one_step_students_run_in_their_deployed_form(session: Session) -> None:
    assert "deployed" in session.flags


@pytest.mark.parametrize("name", runtimes.names())
def test_an_unknown_precision_is_refused(name: str, runs: dict[str, Run]) -> None:
    with pytest.raises(ValueError, match=rf"unknown precision of runtime {name} 'fp7'"):
        opened((name, "fp7"), runs["student"])


def test_bf16_is_near_fp32_and_not_the_same(runs: dict[str, Run]) -> None:
    z, y = inputs(runs["student"])
    exact, coarse = (opened(("eager", p), runs["student"])(z, y) for p in ("fp32", "bf16"))
    assert 0 < np.abs(exact - coarse).max() < 0.1


@pytest.mark.parametrize("precision", runtimes.RUNTIMES["openvino"].precisions)
def test_openvino_computes_in_the_precision_that_is_reported_or_refuses(
    precision: str, runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    asked = openvino_file.HINTS[precision]
    session = opened(("openvino", precision), runs["student"])  # skips by the runtime's own sentence
    session(*inputs(runs["student"]))
    compiled = session.requests[BATCH].get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == asked
    monkeypatch.setattr(openvino.CompiledModel, "get_property", lambda *_: openvino.Type.f16)
    with pytest.raises(LookupError, match=rf"^{precision} of runtime openvino .* computes in {asked}; .* takes f16"):
        session(*inputs(runs["student"], 2))


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from lab import bench, runtimes
backend, folder = runtimes.get("openvino"), Path(sys.argv[1])
first = backend.open(folder, threads=1)
second = backend.open(folder, threads=1)
for session in (first, second):
    session.build(session.place(*bench.fixed_inputs(session, 1)))
del first, session
del second
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_two_networks_of_openvino_is_handled(runs: dict[str, Run]) -> None:
    pytest.importorskip("openvino")
    folder = runtimes.get("openvino").export(runs["student"], "fp32")
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, folder], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_bf16_by_openvino_is_refused_where_the_processor_has_none(runs: dict[str, Run]) -> None:
    pytest.importorskip("openvino")
    if "BF16" in openvino_file.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor computes in bfloat16")
    with pytest.raises(LookupError, match="bf16 of runtime openvino needs a processor that computes in bf16"):
        runtimes.get("openvino").export(runs["student"], "bf16")
    assert not (runs["student"].path / "export" / "openvino-bf16").exists()


@pytest.mark.parametrize("form", [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("onnxruntime", "int8-static"),
                                  ("openvino", "fp32"), ("openvino", "int8")], ids="-".join)  # fmt: skip
def test_the_parts_of_a_call_are_those_of_eager_and_together_the_call(
    form: tuple[str, str], runs: dict[str, Run]
) -> None:
    name, precision = form
    for run in (runs["student"], runs["unconditional"]):
        opened(form, run)  # skips where it is not here
        z, y = inputs(run, 64)
        y = y if run.recipe.student.num_classes else None
        folder = artefacts.folder_of(run, name, precision)
        found = runtimes.get(name).parts(folder, z, y, precision=precision, threads=1, calls=20)
        eager = runtimes.get("eager").open(run.path)
        said = [part for part, _ in bench.steps(eager.net, *eager.place(z, y))]
        assert list(found.seconds) == said and min(found.seconds.values()) >= 0
        # seconds of one call, not of all 20, nor microseconds; a busy machine and the watching itself take time, too
        assert 0.1 * found.whole < sum(found.seconds.values()) < 10 * found.whole
        short = ("norm1", "sum2") if name == "onnxruntime" else ()  # OpenVINO counts in whole microseconds
        assert min(found.seconds[f"blocks.0.{half}"] for half in ("attention", "mlp", *short)) > 0


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("blocks.3.attn.shift_q", "blocks.3.norm1"), ("blocks.0.attn.tokens.in", "blocks.0.attention"),
        ("blocks.0.attn.tokens", "blocks.0.sum1"), ("blocks.12.mlp.fc1/MatMulAddFusion", "blocks.12.mlp"),
        ("blocks.1.attn.qkv_quant", "blocks.1.attention"), ("blocks.1.mlp.fc2.+", "blocks.1.mlp"),
        ("positions.+", "embed"), ("table.split", "table"), ("image.tiled", "head"), ("MVN_91", None),
    ],
)  # fmt: skip
def test_a_name_of_the_graph_says_its_part_whatever_a_runtime_appends(name: str, part: str | None) -> None:
    assert part_of(name) == part


def test_an_operation_without_a_name_of_ours_stands_under_the_part_that_follows() -> None:
    config = DiTConfig(image_size=8, patch=4, depth=1, width=16, heads=2)
    call = {"embed": 1.0, "MVN_1": 2.0, "table.rows": 4.0, "blocks.0.attn.shift": 8.0, "head.+": 16.0, "x": 32.0}
    found = Parts.of(config, [call.items()], [64.0])
    assert {k: v for k, v in found.seconds.items() if v} == {
        "table": 4.0, "embed": 1.0, "blocks.0.norm1": 10.0, "head": 48.0}  # fmt: skip
    assert found.whole == 64.0


# --- files ---


@pytest.mark.parametrize("name", FILES)
def test_an_artefact_says_of_what_it_was_made_and_how_far_it_is_off(name: str, runs: dict[str, Run]) -> None:
    run, precision = runs[of_form("student", name)], runtimes.RUNTIMES[name].precisions[0]
    session = opened((name, precision), run)
    folder = run.path / "export" / f"{name}-{precision}"
    facts = json.loads((folder / "artefact.json").read_text())
    assert facts["weights_sha256"] == run.read("student")["weights_sha256"] and facts["images"] == 64
    assert 0 <= facts["perceptual"] < 1e-5 and facts["perceptual_by"].startswith("digits-cnn-")
    largest = 1e-5 if precision == "fp32" else TOLERANCES[precision][0]
    assert facts["mean_abs"] <= facts["max_abs"] < largest and name in facts["versions"]
    assert {p.name for p in folder.iterdir()} == {*facts["files"], "artefact.json"}
    assert facts["bytes"] == sum((folder / n).stat().st_size for n in facts["files"])
    assert session.artefact_sha256 in [f["sha256"] for f in facts["files"].values()]


@pytest.mark.parametrize("name", FILES)
def test_files_are_made_once_and_again_for_other_weights_or_when_they_were_changed(
    name: str, runs: dict[str, Run], tmp_path: Path
) -> None:
    source, runtime = runs[of_form("student", name)], runtimes.RUNTIMES[name]
    run = Run(shutil.copytree(source.path, tmp_path / source.id, ignore=shutil.ignore_patterns("export")))
    if why := runtime.missing():
        pytest.skip(why)

    def made() -> str:
        return (runtime.export(run, runtime.precisions[0]) / "artefact.json").read_text()

    first = made()
    assert made() == first
    largest = max(json.loads(first)["files"], key=lambda n: json.loads(first)["files"][n]["bytes"])
    (run.path / "export" / f"{name}-{runtime.precisions[0]}" / largest).write_bytes(b"")
    assert json.loads(made())["files"][largest]["bytes"] > 0
    facts = run.path / "export" / f"{name}-{runtime.precisions[0]}" / "artefact.json"
    for files in (["x"], {largest: None}):
        facts.write_text(json.dumps(json.loads(first) | {"files": files}))
        assert json.loads(made())["files"].keys() == json.loads(first)["files"].keys()
    give_weight(run, seed=1)
    if name == "packed":
        make_ternary(run)
    assert json.loads(made())["weights_sha256"] == run.read("student")["weights_sha256"]


def test_an_export_that_breaks_leaves_nothing(runs: dict[str, Run]) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        artefacts.ensure(runs["student"], "none", "fp32", write=broken, open=broken, versions={})
    assert not list((runs["student"].path / "export").glob("none*"))


def test_the_export_of_a_denoiser_says_what_is_being_done_and_that_of_a_student_is_quiet(
    runs: dict[str, Run], capsys: pytest.CaptureFixture
) -> None:
    said = []

    def write(net: torch.nn.Module, spec: ImageSpec, folder: Path) -> None:
        said.append(capsys.readouterr().err)
        (folder / "model").touch()

    def open_(folder: Path) -> artefacts.Images:
        said.append(capsys.readouterr().err)
        return lambda z, y: artefacts.reference(run, z, y, solver="heun-3")

    for kind in ("denoiser", "student"):
        run = runs[kind]
        artefacts.ensure(run, "none", "fp32", write=write, open=open_, versions={}, solver="heun-3")
        said.append(capsys.readouterr().err)
    writing, comparing, done, *quiet = said
    assert f"none-fp32 of {runs['denoiser'].label}, heun-3 as one graph: writing the file" in writing
    assert "comparing its images" in comparing and "done" in done and quiet == ["", "", ""]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_without_an_artefact_is_a_sentence(name: str, tmp_path: Path) -> None:
    if why := runtimes.RUNTIMES[name].missing():
        pytest.skip(why)
    with pytest.raises(LookupError, match=r"holds no exported network; `python -m lab export` makes one"):
        runtimes.RUNTIMES[name].open(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_another_device_is_refused(name: str, runs: dict[str, Run]) -> None:
    with pytest.raises(ValueError, match=rf"runtime {name} runs on the CPU here, not on 'cuda'"):
        opened((name, runtimes.RUNTIMES[name].precisions[0]), runs[of_form("student", name)], device="cuda")


# --- finding them ---


def test_an_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown runtime 'eagre'; did you mean 'eager'\? Known: .*compiled, eager"):
        runtimes.get("eagre")


def test_a_runtime_that_is_not_here_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LookupError, match=r"^runtime compiled needs a C\+\+ compiler"):
        runtimes.get("compiled")


@pytest.mark.parametrize("name", [name for name in FILES if name != "packed"])
def test_a_missing_package_is_one_sentence_with_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(LookupError, match=rf"^runtime {name} needs onnx and {name}.*; pip install onnx {name}"):
        runtimes.get(name)


def test_every_file_of_the_folder_is_a_runtime_of_its_name() -> None:
    folder = Path(runtimes.__file__).parent
    files = {f.stem for f in folder.glob("*.py")} - {"__init__", "base"}
    assert set(runtimes.names()) == files


# --- onnxruntime ---


class Forgetful:
    """A binding of onnxruntime 1.23: it keeps none of the values that it is given."""

    def __init__(self, session: object) -> None:
        self.bound, self.inputs = session.io_binding(), {}

    def bind_ortvalue_input(self, name: str, value: object) -> None:
        self.inputs[name] = weakref.ref(value)

    def bind_ortvalue_output(self, name: str, value: object) -> None:
        self.bound.bind_ortvalue_output(name, value)


def test_bound_inputs_live_as_long_as_what_was_placed(runs: dict[str, Run]) -> None:
    session = opened(("onnxruntime", "fp32"), runs["student"])
    session.session = SimpleNamespace(io_binding=functools.partial(Forgetful, session.session),
                                      get_outputs=session.session.get_outputs)  # fmt: skip
    placed = session.place(*inputs(runs["student"]))
    gc.collect()
    assert [name for name, value in placed[0].inputs.items() if value() is None] == []


def test_onnxruntimes_own_errors_are_runtime_errors_in_a_sentence(runs: dict[str, Run], tmp_path: Path) -> None:
    session = opened(("onnxruntime", "fp32"), runs["student"])
    bound, image, kept = session.place(*inputs(runs["student"]))
    bound.clear_binding_inputs()
    with pytest.raises(RuntimeError, match=r"^onnxruntime \S+ can't run the network: "):
        session.run((bound, image, kept))
    folder = shutil.copytree(runs["student"].path / "export" / "onnxruntime-fp32", tmp_path / "cut")
    (folder / "model.onnx").write_bytes(b"cut")
    with pytest.raises(RuntimeError, match=r"^onnxruntime \S+ can't open cut/model\.onnx: "):
        runtimes.get("onnxruntime").open(folder)


def test_the_apple_gpu_is_waited_for(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    session, waited = opened(("eager", "fp32"), runs["student"]), []
    placed = session.place(*inputs(runs["student"]))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(True))
    session.device = torch.device("mps")
    session.run(placed)
    assert waited == [True]
