"""The pack: what is in it, that it is the same every time, and that its runner reports what the lab takes in."""

from __future__ import annotations

import copy
import errno
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from onefile import runner

from lab import cost, export, pack
from lab.cli import MISSING, OK, USAGE, main
from lab.config import DiTConfig
from lab.devices import model_torch, report
from lab.results import Run, Store
from lab.weights import load_student
from tests.devices.conftest import CONFIG, finished

SHORT = ["--iters", "30", "--seconds", "0.05", "--threads", "1"]
ALWAYS = {"README.md", "manifest.json", "runner.py", "model_torch.py", "deployed.safetensors", "model-fp32.onnx",
          "model-fp16.onnx", "reference/z.bin", "reference/y.bin", "reference/image.bin"}  # fmt: skip


def facts(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def ran(folder: Path, *options: str) -> dict:
    """The report of a run of the pack's runner with these options."""
    out = folder.parent / "report.json"
    assert runner.main([*SHORT, *options, "--out", str(out)], folder=folder) == OK
    return report.load(out)


# --- what is in it ---


@pytest.mark.parametrize(("target", "int8"), [("cpu", "int8"), ("rpi", "int8"), ("jetson", "int8-static")])
def test_a_pack_holds_every_form_of_the_network_and_what_runs_it(target: str, int8: str, zips: dict[str, Path]) -> None:
    with zipfile.ZipFile(zips[target]) as archive:
        assert set(archive.namelist()) == ALWAYS | {f"model-{int8}.onnx"}
        assert archive.testzip() is None


def test_the_same_run_gives_the_same_bytes_wherever_it_stands(zips: dict[str, Path], tmp_path: Path) -> None:
    elsewhere = finished(tmp_path / "other-results")
    for target, path in zips.items():
        assert pack.pack(elsewhere, target, tmp_path / "again.zip").path.read_bytes() == path.read_bytes()


def test_a_zip_depends_on_names_and_content_alone() -> None:
    assert pack.zipped({"b": b"2", "a": b"1"}) == pack.zipped({"a": b"1", "b": b"2"}) != pack.zipped({"a": b"2"})


def test_the_manifest_has_the_checksum_of_every_other_file(unpacked: Path) -> None:
    kept = facts(unpacked)["files"]
    there = {str(p.relative_to(unpacked)): p for p in unpacked.rglob("*") if p.is_file()}
    assert set(kept) == set(there) - {"manifest.json"}
    for name, path in ((n, there[n]) for n in kept):
        assert kept[name] == {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}  # fmt: skip


def test_a_pack_says_whose_weights_it_holds(unpacked: Path, finished_run: Run) -> None:
    model = facts(unpacked)["model"]
    assert model["model_id"] == finished_run.id and model["params_deployed"] < model["params"]
    assert model["activations"] == cost.activations(CONFIG)
    assert model["weights_sha256"] == finished_run.read("student")["weights_sha256"]


def test_the_reference_is_what_the_finished_network_draws(unpacked: Path, finished_run: Run) -> None:
    kept = runner.Pack.read(unpacked)
    z = torch.tensor(kept.rows("z", 16)).view(16, 1, 8, 8)
    with torch.no_grad():
        right = load_student(finished_run)(z, None, torch.tensor(kept.rows("y", 16)))
    assert torch.equal(torch.tensor(kept.rows("image", 16)).view_as(right), right)
    assert sorted(set(kept.rows("y", 16))) == list(range(10)) and right.std() > 0.05


def test_a_batch_larger_than_the_reference_has_its_rows_again(unpacked: Path) -> None:
    kept = runner.Pack.read(unpacked)
    assert kept.rows("y", 40)[16:32] == kept.rows("y", 16)
    assert len(kept.rows("image", 40)) == 40 * 64 and kept.rows("image", 40)[16 * 64 : 17 * 64] == kept.rows("image", 1)


def test_every_network_of_a_pack_is_near_the_right_images(unpacked: Path) -> None:
    far = {n["file"]: n["max_abs"] for n in facts(unpacked)["networks"] if n["kind"] == "onnx"}
    assert far["model-fp32.onnx"] < 1e-5 < far["model-fp16.onnx"] < 0.03
    assert 0 < far["model-int8-static.onnx"] < 0.5


def test_a_network_too_far_from_the_right_images_is_left_out_and_named(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pack.TOLERANCES, "int8", (0.0, 0.0))
    made = pack.pack(finished_run, "cpu", tmp_path / "p.zip")
    assert "model-int8.onnx" not in made.files and made.left_out[0].startswith("int8 is left out: its images are")
    with zipfile.ZipFile(made.path) as archive:
        assert "Int8 is left out" in archive.read("README.md").decode()


@pytest.mark.parametrize("config", [
    CONFIG, DiTConfig(image_size=8, num_classes=0, patch=2, depth=1, width=16, heads=4),
    DiTConfig(image_size=8, channels=3, null_class=True, patch=4, depth=1, width=16, heads=1, mlp_hidden=20),
], ids=["classes", "unconditional", "colour and null class"])  # fmt: skip
def test_plain_torch_draws_what_the_finished_network_draws(config: DiTConfig, tmp_path: Path) -> None:
    run = finished(tmp_path / "results", config)
    pack.pack(run, "cpu", tmp_path / "p.zip")
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        archive.extract("deployed.safetensors", tmp_path)
    z = torch.randn(4, config.channels, 8, 8)
    y = torch.tensor([0, 1, 9, 3]) if config.num_classes else None
    with torch.no_grad():
        right = load_student(run)(z, None, y)
    assert torch.allclose(model_torch.Net(tmp_path / "deployed.safetensors")(z, y), right, atol=1e-5)


def test_an_unconditional_network_is_timed_without_classes(tmp_path: Path) -> None:
    run = finished(tmp_path / "results", DiTConfig(image_size=8, num_classes=0, patch=4, depth=1, width=16, heads=2))
    pack.pack(run, "cpu", tmp_path / "p.zip")
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        archive.extractall(tmp_path / "pack")
    assert not (tmp_path / "pack" / "reference" / "y.bin").exists()
    for name in ("onnxruntime", "torch"):
        assert ran(tmp_path / "pack", "--runtime", name)["checks"]["output_ok"]


# --- its README ---


def test_the_readme_of_a_jetson_gives_the_boards_commands(unpacked: Path) -> None:
    said = (unpacked / "README.md").read_text()
    for words in ["sudo nvpmodel -q", "grep POWER_MODEL /etc/nvpmodel.conf", "sudo jetson_clocks",
                  "tegrastats --interval", "/usr/src/tensorrt/bin/trtexec", "python3 runner.py --preset quick",
                  "trtexec --onnx=model-fp16.onnx --stronglyTyped --shapes=z:1x1x8x8,y:1"]:  # fmt: skip
        assert words in said, words
    eleven = said.split("# TensorRT 11.x")[1].splitlines()[1]
    assert eleven.startswith("trtexec --onnx=model-fp16.onnx --shapes") and "stronglyTyped" not in eleven
    assert not re.search(r"nvpmodel -m \d", said), "numbers of modes differ between firmwares"


@pytest.mark.parametrize(("target", "words"), [("rpi", "vcgencmd get_throttled"), ("cpu", "pip install onnxruntime")])
def test_the_readme_of_another_device_gives_its_own_commands(target: str, words: str, zips: dict[str, Path]) -> None:
    with zipfile.ZipFile(zips[target]) as archive:
        said = archive.read("README.md").decode()
    assert words in said and "scaling_governor" in said and "nvpmodel" not in said and said.isascii()


@pytest.mark.parametrize("target", pack.TARGETS)
def test_the_readme_names_every_network_of_the_pack(target: str, zips: dict[str, Path]) -> None:
    with zipfile.ZipFile(zips[target]) as archive:
        said, names = archive.read("README.md").decode(), archive.namelist()
    assert all(f"`{name}`" in said for name in names if name.endswith((".onnx", ".safetensors")))


@pytest.mark.parametrize("target", pack.TARGETS)
def test_commands_of_the_runner_in_the_readme_parse(target: str, zips: dict[str, Path]) -> None:
    with zipfile.ZipFile(zips[target]) as archive:
        said = archive.read("README.md").decode()
    commands = re.findall(r"^python3 runner\.py (.*?)\s+#", said, re.MULTILINE)
    assert len(commands) == 3
    for command in commands[:2]:
        assert runner.parser().parse_args(command.split()).preset in runner.PRESETS


# --- the command that makes it ---


def test_lab_pack_writes_the_zip_and_says_what_to_do(
    finished_run: Run, zips: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, root = tmp_path / "deep" / "p.zip", finished_run.path.parents[1]
    assert main(["pack", finished_run.id, "--target", "rpi", "--out", str(out), "--results", str(root)]) == OK
    assert "python3 runner.py --preset quick" in capsys.readouterr().out
    assert out.read_bytes() == zips["rpi"].read_bytes()
    assert [p.name for p in out.parent.iterdir()] == ["p.zip"]


def test_lab_pack_says_which_precision_is_left_out_and_why(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(pack.TOLERANCES, "int8", (0.0, 0.0))
    options = ["--target", "cpu", "--out", str(tmp_path / "p.zip"), "--results", str(finished_run.path.parents[1])]
    assert main(["pack", finished_run.id, *options]) == OK
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("int8 is left out: its images are") and "allowed are 0 and 0" in said
    assert main(["pack", finished_run.id, *options, "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["left_out"] == [said]
    monkeypatch.undo()
    assert main(["pack", finished_run.id, *options, "--json"]) == OK
    assert json.loads(capsys.readouterr().out)["left_out"] == []


def test_packing_leaves_the_run_as_it_was(finished_run: Run, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished_run.path.rglob("*")}
    pack.pack(finished_run, "cpu", tmp_path / "p.zip")
    assert {p: p.stat().st_mtime_ns for p in finished_run.path.rglob("*")} == before


@pytest.mark.parametrize("config", [
    DiTConfig(image_size=8, patch=4, depth=1, width=16, heads=2, block="time"),
    DiTConfig(image_size=8, patch=4, depth=1, width=16, heads=2, time=True),
], ids=["time block", "denoiser"])  # fmt: skip
def test_a_network_of_another_kind_is_packed_as_a_program(
    config: DiTConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("onnxscript")
    traced = functools.cache(export.traced)  # it takes seconds, and is alike for every file
    monkeypatch.setattr(export, "traced", lambda net, spec: copy.deepcopy(traced(net, spec)))
    monkeypatch.setattr(export, "program", functools.cache(export.program))
    run = finished(tmp_path / "results", config, solver="dpmpp2m-2")
    made = pack.pack(run, "jetson", tmp_path / "p.zip")
    assert (f"ONNX files of {run.label}" in capsys.readouterr().err) == config.time  # which takes long
    assert {"model-fp32.onnx", "model-fp16.onnx", "model.pt2"} <= set(made.files) and not {
        "deployed.safetensors", "model-int8-static.onnx"} & set(made.files)  # fmt: skip
    assert made.left_out[0].startswith("int8-static is left out: int8-static is for networks that lab/int8.py prepares")
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        archive.extractall(tmp_path / "pack")
    for options in (("--runtime", "onnxruntime"), ("--runtime", "torch")):
        found = ran(tmp_path / "pack", *options)
        assert found["checks"]["output_ok"] and found["workload"]["nfe"] == 1 + config.time
        assert "folded conditioning" not in found["software"]["flags"]


def test_a_name_that_is_no_zip_is_wrong_usage(finished_run: Run, capsys: pytest.CaptureFixture) -> None:
    options = ["--target", "cpu", "--out", "p.tar", "--results", str(finished_run.path.parents[1])]
    assert main(["pack", finished_run.id, *options]) == USAGE
    assert "--out must end with .zip, got 'p.tar'" in capsys.readouterr().err


def test_a_run_without_weights_is_missing_data(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = finished(tmp_path / "results")
    (run.path / "student.safetensors").unlink()
    assert main(["pack", run.id, "--target", "cpu", "--results", str(tmp_path / "results")]) == MISSING
    assert "has no finished network" in capsys.readouterr().err


# --- its runner ---


@pytest.mark.parametrize(
    "name", ["README.md", "runner.py", "model-fp32.onnx", "deployed.safetensors", "reference/z.bin"]
)
def test_a_changed_file_is_refused_by_name(name: str, unpacked: Path, capsys: pytest.CaptureFixture) -> None:
    content = bytearray((unpacked / name).read_bytes())
    content[len(content) // 2] ^= 1
    (unpacked / name).write_bytes(content)
    assert runner.main(SHORT, folder=unpacked) == runner.FAILED
    assert f"runner.py: {name} is not the file that was packed" in capsys.readouterr().err


def test_a_missing_file_is_refused_by_name(unpacked: Path, capsys: pytest.CaptureFixture) -> None:
    (unpacked / "model-fp16.onnx").unlink()
    assert runner.main(SHORT, folder=unpacked) == runner.FAILED
    assert "model-fp16.onnx of the pack is missing" in capsys.readouterr().err


def test_a_folder_without_a_pack_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert runner.main(SHORT, folder=tmp_path) == runner.MISSING
    assert "Run it where a pack was unpacked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "runtime", "precision"),
    [
        (["--runtime", "onnxruntime"], "onnxruntime", "fp32"),
        (["--runtime", "onnxruntime", "--precision", "fp16"], "onnxruntime", "fp16"),
        (["--runtime", "onnxruntime", "--precision", "int8-static", "--batch", "20"], "onnxruntime", "int8-static"),
        (["--runtime", "torch"], "eager", "fp32"),
        (["--runtime", "torch", "--precision", "bf16", "--scope", "e2e"], "eager", "bf16"),
        (["--runtime", "onnxruntime", "--scope", "e2e", "--batch", "2"], "onnxruntime", "fp32"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_report_of_the_runner_is_taken_in(options: list[str], runtime: str, precision: str, unpacked: Path) -> None:
    found = ran(unpacked, *options)
    assert (found["software"]["runtime"], found["model"]["precision"]) == (runtime, precision)
    assert found["checks"]["output_ok"] is True and found["runner"]["preset"] == "custom"
    assert found["state"]["threads"] == 1 and found["timing"]["iters"] >= 30 and found["timing"]["first_ms"] > 0
    assert found["workload"]["height"] == 8 and found["memory"]["process_peak_mb"] > 0


def opened(folder: Path) -> runner.OnnxRuntime:
    options = runner.parser().parse_args(["--threads", "1"])
    return runner.OnnxRuntime(runner.Pack.read(folder), folder / "model-fp32.onnx", options)


class Forgetful:
    """A session whose bindings keep none of the values that they are given, as those of onnxruntime 1.23."""

    def __init__(self, session: object) -> None:
        self.session, self.inputs, self.gone = session, {}, []

    def io_binding(self) -> Forgetful:
        self.output = self.session.io_binding()
        return self

    def bind_ortvalue_input(self, name: str, value: object) -> None:
        self.inputs[name] = weakref.ref(value)

    def bind_ortvalue_output(self, name: str, value: object) -> None:
        self.output.bind_ortvalue_output(name, value)

    def run_with_iobinding(self, bound: Forgetful) -> None:
        self.gone += [name for name, value in bound.inputs.items() if value() is None]


@pytest.mark.parametrize("scope", ["core", "e2e"])
def test_what_is_bound_lives_until_the_network_has_run(scope: str, unpacked: Path) -> None:
    pack_, found = runner.Pack.read(unpacked), opened(unpacked)
    found.session = Forgetful(found.session)
    z, y = pack_.rows("z", 2), pack_.rows("y", 2)
    inputs = found.place(z, y)
    call = (lambda: found.run(inputs)) if scope == "core" else found.drawing(z, y)
    for _ in range(2):
        call()
    assert set(found.session.inputs) == {"z", "y"} and found.session.gone == []


class OnGpu(runner.Torch):
    """torch that takes this CPU for a GPU."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.on, self.gpu = "cuda", ("Orin", 7620)

    def place(self, z: object, y: object) -> object:
        self.on, before = "cpu", self.on
        placed = super().place(z, y)
        self.on = before
        return placed


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, torch_cuda: list[str]) -> list[str]:
    """A stand-in for torch's GPU; gives what was asked of it."""
    monkeypatch.setitem(runner.RUNTIMES, "torch", OnGpu)
    monkeypatch.setattr(runner, "Torch", OnGpu)
    return torch_cuda


def test_torch_on_a_gpu_reports_both_clocks_and_waits_in_no_timed_call(unpacked: Path, gpu: list[str]) -> None:
    found = ran(unpacked, "--runtime", "torch")
    timing = found["timing"]
    assert timing["clock"] == "cuda_event" and 1.5 * timing["p50"] < timing["wall"]["p50"]
    assert timing["wall"]["min"] <= timing["wall"]["p50"] <= timing["wall"]["p90"] <= timing["wall"]["p99"]
    assert found["memory"]["allocator_peak_mb"] == 2.5
    assert len(gpu) == 2 and found["checks"]["output_ok"] is True  # the first call, and the one whose images are kept


def test_from_noise_to_bytes_is_timed_by_the_host_alone(unpacked: Path, gpu: list[str], monkeypatch) -> None:
    real = torch.randn
    monkeypatch.setattr(torch, "randn", lambda shape, device: real(shape))
    timing = ran(unpacked, "--runtime", "torch", "--scope", "e2e")["timing"]
    assert timing["clock"] == "wall_sync" and "wall" not in timing and len(gpu) > 30


def test_what_breaks_in_a_runtime_is_quoted(unpacked: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def broken(self: runner.OnnxRuntime, inputs: object) -> None:
        raise Exception("[ONNXRuntimeError] : 6 : no kernel")  # its own errors have no other class in common

    monkeypatch.setattr(runner.OnnxRuntime, "run", broken)
    assert runner.main([*SHORT, "--runtime", "onnxruntime"], folder=unpacked) == runner.FAILED
    assert "runner.py: onnxruntime failed: Exception: [ONNXRuntimeError] : 6 : no kernel" in capsys.readouterr().err


def test_a_report_joins_its_run_by_the_weights(unpacked: Path, finished_run: Run, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    store.add_report(ran(unpacked, "--runtime", "onnxruntime"))
    (row,) = store.reports().to_dict("records")
    assert row["model.weights_sha256"] == finished_run.read("student")["weights_sha256"]
    assert row["model.artifact_sha256"] == facts(unpacked)["files"]["model-fp32.onnx"]["sha256"]


def test_two_timings_have_two_names(unpacked: Path) -> None:
    names = {ran(unpacked, "--runtime", "onnxruntime")["report_id"] for _ in range(2)}
    assert len(names) == 2 and all(report.REPORT_ID.fullmatch(name) for name in names)


def test_wrong_images_fail_and_are_written_down(unpacked: Path, capsys: pytest.CaptureFixture) -> None:
    # Another network under the same name, its checksum put right: what a broken engine would draw.
    kept = facts(unpacked)
    values = np.frombuffer((unpacked / "reference/image.bin").read_bytes(), "<f4") * -1
    (unpacked / "reference/image.bin").write_bytes(values.tobytes())
    kept["files"]["reference/image.bin"]["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()
    (unpacked / "manifest.json").write_text(json.dumps(kept))
    out = unpacked.parent / "report.json"
    assert runner.main([*SHORT, "--runtime", "onnxruntime", "--out", str(out)], folder=unpacked) == runner.FAILED
    assert "the images are WRONG" in capsys.readouterr().out
    found = report.load(out)
    assert found["checks"]["output_ok"] is False and report.grade(found).letter == "D"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "fp99"], "the pack has no onnx network in 'fp99'; it has fp16, fp32, int8-static"),
        (["--runtime", "torch", "--precision", "int8"], "the pack has no torch network in 'int8'"),
        (["--runtime", "trtexec", "--scope", "e2e"], "trtexec can't time scope e2e on device auto"),
        (["--runtime", "onnxruntime", "--device", "cuda"], "onnxruntime can't time scope core on device cuda"),
    ],
)
def test_what_the_pack_cannot_do_is_wrong_usage(options: list[str], words: str, unpacked: Path, capsys) -> None:
    assert runner.main([*SHORT, *options], folder=unpacked) == runner.USAGE
    assert f"runner.py: {words}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("not/there/r.json", "there is no folder {folder}/not/there; make it first"),
        ("", "it is a folder; give --out the name of a file"),
        ("a-file/r.json", "there is no folder {folder}/a-file"),
    ],
)
def test_a_report_that_could_not_be_written_is_refused_before_anything_is_timed(
    out: str, words: str, unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setattr(runner, "by_calls", lambda *_: pytest.fail("it was timed"))
    assert runner.main([*SHORT, "--out", str(tmp_path / out)], folder=unpacked) == runner.USAGE
    said = capsys.readouterr().err
    assert said.startswith("runner.py: can't write the report to ") and words.format(folder=tmp_path) in said
    assert said.count("\n") == 1


def test_a_folder_that_takes_no_file_is_refused_before_anything_is_timed(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner.tempfile, "TemporaryFile", full)
    assert runner.main(SHORT, folder=unpacked) == runner.USAGE
    assert f"can't write the report into {tmp_path}: Read-only file system" in capsys.readouterr().err


def test_a_machine_without_any_runtime_is_told_what_would_do(unpacked: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert runner.main(SHORT, folder=unpacked, machine=runner.Machine(unpacked)) == runner.MISSING
    said = capsys.readouterr().err
    assert all(words in said for words in ("pip install onnxruntime", "pip install torch", "trtexec: part of TensorRT"))


def test_a_publishable_report_of_a_busy_machine_is_refused(unpacked: Path, tmp_path: Path, capsys) -> None:
    busy = tmp_path / "busy" / "proc"
    busy.mkdir(parents=True)
    (busy / "loadavg").write_text("99.0 1 1 1/100 1")
    code = runner.main(["--preset", "publishable"], folder=unpacked, machine=runner.Machine(busy.parent))
    assert code == runner.FAILED and "the load is 99.00" in capsys.readouterr().err


def test_help_of_the_runner_has_examples_that_parse(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        runner.main(["--help"])
    examples = re.findall(r"^  python3 runner\.py (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        runner.parser().parse_args(example.split())


# --- away from the lab ---


@pytest.mark.slow
@pytest.mark.parametrize(("blocked", "runtime"), [(("onnxruntime", "numpy"), "eager"), (("torch",), "onnxruntime")])
def test_torch_without_numpy_or_onnxruntime_without_torch_is_enough(
    blocked: tuple[str, ...], runtime: str, unpacked: Path
) -> None:
    script = (f"import runpy, sys; sys.modules.update(dict.fromkeys({blocked})); sys.argv[0] = 'runner.py';"
              "runpy.run_path('runner.py', run_name='__main__')")  # fmt: skip
    command = [sys.executable, "-I", "-c", script, *SHORT, "--out", "r.json"]
    done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = report.load(unpacked / "r.json")
    assert found["software"]["runtime"] == runtime and found["checks"]["output_ok"] is True
    assert "NumPy" not in done.stderr


@pytest.mark.slow
def test_from_pack_to_imported_report_in_a_venv_with_onnxruntime_alone(
    finished_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = tmp_path / "results"
    shutil.copytree(finished_run.path.parents[1], root)
    assert (
        main(["pack", finished_run.id, "--target", "cpu", "--out", str(tmp_path / "p.zip"), "--results", str(root)])
        == OK
    )
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        archive.extractall(tmp_path / "empty")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    got = subprocess.run([python, "-m", "pip", "install", "-q", "onnxruntime"], capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"onnxruntime can't be had here: {got.stderr.strip()[-200:]}")
    command = [python, "-I", "runner.py", "--preset", "quick", "--threads", "1", "--out", "report.json"]
    done = subprocess.run(command, cwd=tmp_path / "empty", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    capsys.readouterr()
    assert main(["import", str(tmp_path / "empty" / "report.json"), "--results", str(root), "--json"]) == OK
    (row,) = json.loads(capsys.readouterr().out)
    assert row["run"] == finished_run.label and row["state"] == "kept"
    assert list(Store(root).reports()["software.runtime"]) == ["onnxruntime"]
    assert main(["import", str(tmp_path / "empty" / "report.json"), "--results", str(root)]) == OK
