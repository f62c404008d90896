from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import changed
from dashboard.conftest import add_report, report
from devices.conftest import finished
from streamlit.testing.v1 import AppTest

from lab import jobs, pack, program, runtimes
from lab.counts import of_dit
from lab.precisions import PRECISIONS
from lab.results import Run, Store
from lab.runtimes import openvino

APP = Path(__file__).parents[2] / "app.py"
LIMIT_S = 250


@pytest.fixture(scope="session")
def exported_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished student that nobody trained, and its ONNX file."""
    torch.set_num_threads(1)
    run = finished(tmp_path_factory.mktemp("exported"))
    run.write("cost", of_dit(run.config) | {"file_mb": 0.02, "file_mb_deployed": 0.012})
    runtimes.get("onnxruntime").export(run, "fp32")
    return run.path.parent.parent


@pytest.fixture
def store(exported_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of it that a test may change."""
    shutil.copytree(exported_root, tmp_path / "copy")
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path / "copy"))
    return Store(tmp_path / "copy")


@pytest.fixture
def run(store: Store) -> Run:
    return store.runs()[0]


def page(**query: str) -> AppTest:
    at = AppTest.from_file(str(APP), default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = value
    at.switch_page("lab/dashboard/export.py").run()
    assert not at.exception, at.exception
    return at


def text(at: AppTest) -> str:
    elements = [*at.title, *at.subheader, *at.markdown, *at.caption, *at.info, *at.warning, *at.error]
    return "\n".join(e.value for e in elements).replace("\\", "")


def press(at: AppTest, label: str) -> AppTest:
    next(b for b in at.button if b.label == label).click().run()
    until = time.monotonic() + LIMIT_S
    while at.get("status"):
        assert time.monotonic() < until, "it is still at work"
        time.sleep(1.0)  # a look at the page takes time from the work
        at.run()
    assert not at.exception, at.exception
    return at


def downloads(at: AppTest) -> list[str]:
    """What is offered but for what every page ends with."""
    return [b.label for b in at.get("download_button")][:-2]


def test_a_file_that_is_there_shows_how_equal_it_is(store: Store) -> None:
    at = page()
    shown = {m.label: (m.value, m.delta) for m in at.metric}
    assert float(shown["Largest difference"][0]) < 1e-4 and "of 255" in shown["Largest difference"][1]
    assert set(shown) == {"Largest difference", "Mean difference", "Perceptual distance", "File"}
    assert "No pixel of an 8-bit image can differ by more than one level. Of 64 images" in text(at)
    assert downloads(at)[0].startswith("model.onnx (")
    assert at.code[0].value.endswith("--runtime onnxruntime --precision fp32")


def test_the_operator_sets_of_a_file_stand_beside_it(store: Store) -> None:
    assert "ONNX opset ai.onnx 20 and com.microsoft 1." in text(page())


def test_a_program_of_torch_export_comes_with_the_way_to_core_ml(store: Store) -> None:
    at = page(export_runtime="torch-export")
    assert "was not tried here" in text(at) and "is not run here" in text(at)
    (code,) = [c.value for c in at.code if "coremltools" in c.value]
    assert "torch.zeros(1, 1, 8, 8)" in code and '"y": np.array([0], np.int32)' in code
    assert not [c.value for c in at.code if "lab bench" in c.value]


def test_the_graph_is_counted_and_listed_in_order(store: Store) -> None:
    at = page()
    operations = at.dataframe[0].value
    assert {"operation", "name"} == set(operations) and operations["name"].iloc[-1] == "image"
    assert operations["operation"].str.contains("LayerNormalization").sum() == 5  # two blocks and the head
    assert "LayerNormalization 5" in text(at)


def test_what_folding_takes_away_stands_in_numbers(store: Store) -> None:
    said = text(page())
    assert "| Parameters | 0.0109 M | 0.00926 M | 15% less |" in said
    assert "| File in half precision | 0.0200 MB | 0.0120 MB | 40% less |" in said


def test_runtime_and_precision_are_read_from_the_url(store: Store) -> None:
    at = page(export_runtime="openvino", export_openvino="bf16")
    assert "for openvino, bf16" in text(at)
    at.selectbox(key="export_runtime").set_value("onnxruntime").run()
    assert not at.exception and "for onnxruntime, fp32" in text(at)
    assert "for onnxruntime, int8" in text(page(export_onnxruntime="int8"))


def test_a_file_is_made_by_a_process_and_then_shown(store: Store, run: Run) -> None:
    at = page(export_onnxruntime="fp16")
    assert "Largest difference" not in {m.label for m in at.metric}
    press(at, "Make the file")
    assert "Largest difference" in {m.label for m in at.metric} and not at.error
    assert ("onnxruntime", "fp16") in run.artefacts()
    assert any(b.label == "Make it again" for b in at.button)


def test_what_keeps_a_file_from_being_made_is_one_sentence(store: Store) -> None:
    at = press(page(export_runtime="packed"), "Make the file")
    assert len(at.error) == 1 and "runs ternary networks" in at.error[0].value


@pytest.mark.slow
def test_a_missing_package_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A process that finds no openvino, as where it is not installed.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'openvino' else found(name, *a)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    at = press(page(export_runtime="openvino"), "Make the file")
    assert "runtime openvino needs openvino; pip install openvino" in at.error[0].value.replace("\\", "")


@pytest.mark.slow
def test_a_pack_is_made_downloaded_and_told_how_to_use(store: Store, run: Run) -> None:
    at = page(target="cpu")
    assert not any(label.startswith("Download the pack") for label in downloads(at))
    press(at, "Make the pack")
    assert not at.error and downloads(at)[-1].startswith("Download the pack (")
    (path,) = (run.path / "export").glob("*-cpu.zip")
    with zipfile.ZipFile(path) as archive:
        assert {"runner.py", "README.md", "manifest.json"} <= set(archive.namelist())
    assert "runner.py" in text(at)
    commands = "\n".join(c.value for c in at.code)
    assert f"lab pack {run.id} --target cpu" in commands and "runner.py --preset publishable" in commands
    assert "trtexec" not in commands


def test_a_jetson_gets_the_commands_of_both_versions_of_trtexec(store: Store) -> None:
    (said,) = [c.value for c in page().code if "trtexec" in c.value]
    ten, eleven = [line for line in said.splitlines() if line.startswith("trtexec")]
    assert "--onnx=model-fp16.onnx" in ten and "--shapes=z:1x1x8x8,y:1" in ten
    assert "--stronglyTyped" in ten and "--stronglyTyped" not in eleven


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_code_to_copy_runs_on_the_file(
    store: Store, run: Run, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runtimes.get(runtime).export(run, "fp32")
    code = next(c.value for c in page(export_runtime=runtime).code if c.value.startswith("import numpy"))
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(code, names)
    image = np.asarray(names["image"])
    assert image.size == 64 and np.isfinite(image).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_code_to_copy_computes_in_the_precision_that_was_chosen(store: Store, precision: str) -> None:
    hint = f'"INFERENCE_PRECISION_HINT": "{openvino.HINTS[precision]}"'
    code = [c.value for c in page(export_runtime="openvino", export_openvino=precision).code]
    assert any(hint in c and "import openvino" in c for c in code)


def test_facts_without_their_file_say_so(store: Store, run: Run) -> None:
    (run.path / "export" / "onnxruntime-fp32" / "model.onnx").unlink()
    at = page()
    assert "The file itself is not here" in text(at) and "Largest difference" in {m.label for m in at.metric}
    assert any(b.label == "Make the file" for b in at.button)


def test_facts_of_other_weights_are_not_shown(store: Store, run: Run) -> None:
    run.write("student", run.read("student") | {"weights_sha256": "0" * 64})
    assert not page().metric


def test_images_that_are_not_the_same_are_called_so(store: Store, run: Run) -> None:
    path = run.path / "export" / "onnxruntime-fp32" / "artefact.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_abs": 0.3, "perceptual": None}))
    said = text(page())
    assert "These are not the same images" in said and "Perceptual" not in said


def test_what_is_known_of_its_speed_stands_beside_it(store: Store, run: Run) -> None:
    assert "It was not timed yet" in text(page())
    add_report(store, changed(report(run, ms=0.4, runtime="onnxruntime"), model__config={"family": "dit"}))
    assert "| test bench CPU, batch 1, 2 threads, core | 0.400 | C |" in text(page())


def test_an_unreadable_graph_is_a_sentence(store: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.path / "export" / "openvino-fp32"
    shutil.copytree(run.path / "export" / "onnxruntime-fp32", folder)
    facts = json.loads((folder / "artefact.json").read_text())
    (folder / "model.onnx").rename(folder / "model.xml")
    (folder / "artefact.json").write_text(json.dumps(facts | {"runtime": "openvino", "files": {
        "model.xml": facts["files"]["model.onnx"]}}))  # fmt: skip
    assert "model.xml can't be read" in text(page(export_runtime="openvino"))


def test_a_cut_onnx_file_is_a_sentence(store: Store, run: Run) -> None:
    path = run.path / "export" / "onnxruntime-fp32" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.onnx can't be read" in text(page())


def test_students_without_weights_are_not_offered(demo: Store) -> None:
    at = page()
    assert "No finished one-step student to export yet" in at.info[0].value
    assert "python -m lab run " in at.code[0].value


def test_an_empty_folder_prints_the_command(nothing: Store) -> None:
    assert "python -m lab run " in page().code[0].value


@pytest.mark.parametrize("content", ["", "[1]", '{"config": 5}', '{"config": {"image_size": "x"}}'])
def test_a_broken_student_does_not_break_the_page(store: Store, run: Run, content: str) -> None:
    (run.path / "student.json").write_text(content)
    assert "No finished one-step student" in page().info[0].value


def test_two_thousand_runs_are_listed(store: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.dashboard import frame

    table = store.table()
    many = table.loc[table.index.repeat(2000)].reset_index(drop=True)
    many["label"] = [f"n{k}" for k in range(len(many))]
    monkeypatch.setattr(Store, "table", lambda self: many)
    frame.clear()
    at = page()
    frame.clear()
    assert len(at.selectbox(key="export_student").options) == 2000


def test_the_forms_and_targets_of_the_page_are_those_of_the_lab() -> None:
    spec = importlib.util.find_spec("lab.dashboard.export")
    names: dict[str, object] = {}
    source = Path(spec.origin).read_text().split("# --- a command at work")[0]
    exec(compile(source, spec.origin, "exec"), names)
    known = {name: runtime.precisions for name, runtime in runtimes.RUNTIMES.items() if runtime.exports}
    known[program.NAME] = program.PRECISIONS
    assert names["FORMS"] == known and set(names["TARGETS"]) == set(pack.TARGETS)
    assert all(PRECISIONS[p].said for precisions in known.values() for p in precisions)


def test_the_page_loads_no_torch(store: Store) -> None:
    script = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        f"at = AppTest.from_file({str(APP)!r}, default_timeout=120)\n"
        "at.switch_page('lab/dashboard/export.py').run()\n"
        "assert not at.exception and at.title[0].value.startswith('A file to deploy')\n"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=APP.parent, env=os.environ, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_work_of_one_page_is_seen_by_another(store: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "at_work", lambda log: log.name == "onnxruntime-int8.log")
    assert page(export_onnxruntime="int8").get("status") and not page(export_onnxruntime="fp16").get("status")
