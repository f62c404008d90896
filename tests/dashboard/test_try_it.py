from __future__ import annotations

import base64
import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from lab import experiment, pairs
from lab.config import DiTConfig, Recipe, UNetConfig, Use
from lab.results import Store

APP = Path(__file__).parents[2] / "app.py"
MACHINE = experiment.Compute(compile=False)


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a digits teacher of a few updates and one student of it."""
    torch.set_num_threads(1)
    store = Store(tmp_path_factory.mktemp("drawn"))
    net = UNetConfig(image_size=8, widths=(8, 16), attention=(), groups=4)
    recipe = Recipe(data="digits", student=net, methods=(Use("denoise"),), steps=2, batch=8, optimizer="adamw")
    teacher = experiment.run(recipe, store, compute=MACHINE, measure=False)
    store.name_teacher("tiny", teacher.id)
    net = DiTConfig(image_size=8, patch=4, depth=1, width=16, heads=2)
    recipe = Recipe(data="digits", teacher="tiny", pairs=64, solver="dpmpp2m-2", student=net, steps=2, batch=8)
    pairs.ensure(store, pairs.pair_set(store, "tiny", recipe.solver), recipe.pairs)
    experiment.run(recipe, store, compute=MACHINE, measure=False)
    return store.root


@pytest.fixture
def store(drawn_root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    from lab.dashboard import drawing

    monkeypatch.setenv("LAB_RESULTS", str(drawn_root))
    # A person is shown times of a second; here their number tells nothing.
    monkeypatch.setattr(drawing, "LOOK", drawing.LOOK | {"seconds": 0.05, "warmup_s": 0.02})
    return Store(drawn_root)


def page(**query: str) -> AppTest:
    at = AppTest.from_file(str(APP), default_timeout=60)
    for name, value in query.items():
        at.query_params[name] = value
    at.switch_page("lab/dashboard/try_it.py").run()
    assert not at.exception, at.exception
    return at


def generate(at: AppTest) -> AppTest:
    at.button[0].click().run()
    assert not at.exception, at.exception
    return at


def shown(at: AppTest) -> list[dict]:
    return [json.loads(c.proto.json) for c in at.get("bidi_component")]


def test_a_student_draws_and_is_timed_cold_and_warm(store: Store):
    at = generate(page(also_teacher="false"))
    (data,) = shown(at)
    assert [c["title"] for c in data["columns"]] == ["d1w16h2p4"]
    assert sum(len(line["tiles"]) for line in data["lines"]) == 16
    assert [m.label for m in at.metric] == ["Cold start", "Warm", "Per image"]
    assert all(m.value.endswith((" ms", " s")) for m in at.metric)
    assert "fastest" in at.caption[0].value and "90 % within" in at.caption[0].value


def test_the_teacher_stands_beside_it_with_the_speed_up(store: Store):
    at = generate(page(count="2"))
    assert [c["title"] for c in shown(at)[0]["columns"]] == ["d1w16h2p4", "unet8x16 (teacher)"]
    (speed_up,) = [m for m in at.metric if m.label == "Speed-up"]
    assert speed_up.value.endswith("x") and "times (" in speed_up.help


def test_image_k_depends_on_its_seed_alone(store: Store):
    four = shown(generate(page(also_teacher="false", count="4", seed="0", draw_class="3")))[0]["columns"][0]["src"]
    again = shown(generate(page(also_teacher="false", count="4", seed="0", draw_class="3")))[0]["columns"][0]["src"]
    other = shown(generate(page(also_teacher="false", count="4", seed="1", draw_class="3")))[0]["columns"][0]["src"]
    assert four == again != other


def test_the_code_to_copy_runs_and_draws_the_same_classes(store: Store):
    at = page(count="3", seed="5", draw_class="7")
    names: dict[str, object] = {}
    exec(at.code[0].value, names)
    assert names["images"].shape == (3, 1, 8, 8)
    assert at.code[1].value.endswith("--count 3 --seed 5 --class 7 --device cpu --out samples.png")


def test_the_code_names_the_runtime_that_was_named(store: Store):
    at = page(count="2", runtime_here="eager", precision_here="bf16", threads_here="1")
    names: dict[str, object] = {}
    exec(at.code[0].value, names)
    assert names["drawn"].form == "eager bf16" and names["images"].shape == (2, 1, 8, 8)


def test_the_runtime_that_drew_is_said_with_its_reason(store: Store):
    at = generate(page(count="2", threads_here="1"))
    said = at.caption[0].value.replace("\\", "")
    assert "d1w16h2p4 by " in said and " fp32, 1 thread: fastest of " in said
    assert "unet8x16 by eager fp32, 1 thread: the only one here for such a network" in said
    student, teacher = shown(at)[0]["columns"]
    assert student["caption"][1].endswith(" fp32") and teacher["caption"][1] == "eager fp32"


def test_a_runtime_and_a_precision_can_be_named(store: Store):
    pytest.importorskip("onnxruntime")
    at = page(also_teacher="false", count="2")
    at.selectbox(key="runtime_here").set_value("onnxruntime").run()
    assert at.selectbox(key="precision_here").options[0] == "fp32"
    at.selectbox(key="precision_here").set_value("int8").run()
    generate(at)
    assert shown(at)[0]["columns"][0]["caption"][1] == "onnxruntime int8" and len(at.metric) == 3
    assert "as asked for" in at.caption[0].value.replace("\\", "")


def test_a_precision_that_the_next_runtime_lacks_gives_way(store: Store):
    at = page(runtime_here="onnxruntime", precision_here="w4a32")
    assert at.selectbox(key="precision_here").value == "w4a32"
    at.selectbox(key="runtime_here").set_value("eager").run()
    assert not at.exception and at.selectbox(key="precision_here").value == "fp32"


def test_a_missing_package_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "openvino" else find(n, *a))
    at = generate(page(runtime_here="openvino", also_teacher="false"))
    assert at.error[0].value.replace("\\", "") == "runtime openvino needs openvino; pip install openvino"
    assert not shown(at) and not at.exception


def test_a_runtime_that_can_not_run_the_network_says_so(store: Store):
    at = generate(page(model="unet8x16", runtime_here="packed"))
    assert "runs ternary networks" in at.error[0].value.replace("\\", "")


def test_the_page_knows_the_runtimes_that_there_are():
    from lab import runtimes
    from lab.dashboard import drawing

    assert {name: runtime.precisions for name, runtime in runtimes.RUNTIMES.items()} == drawing.FORMS


def test_the_number_of_threads_is_put_back(store: Store):
    torch.set_num_threads(1)
    generate(page(count="1", threads_here="2", also_teacher="false"))
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there_is_said(store: Store):
    at = generate(page(device_here="cuda", also_teacher="false"))
    assert "no CUDA device" in at.error[0].value and not shown(at)


def test_out_of_memory_names_a_smaller_number(store: Store, monkeypatch: pytest.MonkeyPatch):
    from lab import diffusion

    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(diffusion, "noise_of", full)
    at = generate(page(count="12", also_teacher="false"))
    assert "Out of memory with 12 images at once" in at.error[0].value and "Try 6" in at.error[0].value


def test_images_that_are_not_finite_are_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil

    from lab.weights import load_student, save_student, spec_of_run

    shutil.copytree(store.root, tmp_path / "copy")
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path / "copy"))
    run = next(r for r in Store(tmp_path / "copy").runs() if "pairs" in r.id)
    net = load_student(run)
    for weights in net.parameters():  # finite, but not what they make
        weights.data.fill_(6e4)
    save_student(run, net, spec_of_run(run))
    at = generate(page(also_teacher="false"))
    assert "NaN or infinite" in at.error[0].value


def test_weights_that_were_changed_are_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil

    shutil.copytree(store.root, tmp_path / "copy")
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path / "copy"))
    run = next(r for r in Store(tmp_path / "copy").runs() if "pairs" in r.id)
    run.write("student", run.read("student") | {"weights_sha256": "0" * 64})
    assert "does not have the sha256" in generate(page(also_teacher="false")).error[0].value.replace("\\", "")


def test_changed_settings_are_said_to_be_newer_than_the_picture(store: Store):
    at = generate(page(count="2", also_teacher="false"))
    at.number_input(key="seed").set_value(9).run()
    assert "settings have changed" in at.warning[0].value
    assert len(shown(at)) == 1


def test_the_teacher_can_be_drawn_with_too(store: Store):
    at = page(model="unet8x16")
    assert not at.checkbox  # it has no teacher itself
    assert [c["title"] for c in shown(generate(at))[0]["columns"]] == ["unet8x16"]


def test_runs_without_weights_are_not_offered(demo: Store):
    at = page()
    assert "No finished network" in at.info[0].value and "python -m lab run" in at.code[0].value


def test_an_empty_folder_says_what_to_do(nothing: Store):
    assert "No finished network" in page().info[0].value


def test_a_broken_run_does_not_break_the_page(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil

    shutil.copytree(store.root, tmp_path / "copy")
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path / "copy"))
    runs = Store(tmp_path / "copy").runs()
    (next(r for r in runs if "denoise" in r.id).path / "recipe.json").write_text("{")
    at = page()
    assert at.selectbox(key="model").options == ["d1w16h2p4"]
    assert dataclasses.is_dataclass(Store(tmp_path / "copy").runs()[0].status())


# --- waiting and walking ------------------------------------------------------------------------


def test_the_student_s_image_is_shown_before_its_teacher_is_loaded(store: Store, monkeypatch: pytest.MonkeyPatch):
    from lab.dashboard import drawing, pictures

    order, show, generate_ = [], pictures.show, drawing.generate
    monkeypatch.setattr(pictures, "show", lambda columns, *a, **how: (
        order.append([c.title for c in columns]), show(columns, *a, **how))[1])  # fmt: skip
    monkeypatch.setattr(drawing, "generate", lambda run, *a, **how: (
        order.append(run.config.family), generate_(run, *a, **how))[1])  # fmt: skip
    at = page(count="2")
    order.clear()  # of the samples that stand before anything is drawn
    generate(at)
    assert order == [["d1w16h2p4"], "dit", "unet", ["d1w16h2p4", "unet8x16 (teacher)"]]
    assert len(shown(at)) == 1 and at.caption[0].value.startswith("First images ")


def test_the_kept_samples_stand_until_something_is_drawn(store: Store):
    at = page(also_teacher="false")
    (before,), (after,) = shown(at), shown(generate(at))
    assert [c["caption"] for c in before["columns"]] == [["kept when it was trained"]]
    kept, drawn = (np.asarray(Image.open(io.BytesIO(base64.b64decode(found["columns"][0]["src"].split(",")[1]))), int)
                   for found in (before, after))  # fmt: skip
    assert kept.shape == drawn.shape and np.abs(kept - drawn).max() <= 1  # the same noises and classes


def test_the_first_images_are_those_that_are_timed_later(store: Store):
    from lab.dashboard import drawing

    run = next(r for r in store.runs() if "pairs" in r.id)
    at_once = drawing.at_once(run, range(4), [0, 1, 2, 3])
    later = drawing.generate(run, range(4), [0, 1, 2, 3], store.reports()).images
    assert at_once.shape == (4, 1, 8, 8)
    assert abs(at_once.astype(int) - later.astype(int)).max() <= 1  # of 255: another runtime may round another way


def test_the_imports_begin_when_the_page_opens(store: Store):
    from lab.dashboard import drawing

    drawing.imports.clear()
    page()
    assert drawing.imports().is_alive() or drawing.imports().ms > 0
    drawing.imports().join()
    assert "lab.fastest" in sys.modules


def test_a_walk_shows_a_picture_of_every_chosen_student_where_the_sliders_stand(store: Store):
    at = page(walk="true")
    data = shown(at)[-1]
    assert [m["name"] for m in data["models"]] == ["d1w16h2p4"]  # its teacher draws in several steps
    assert data["models"][0]["shape"] == [1, 8, 8] and data["at"] == {"noise": 0.0, "label": 0.0}
    assert data["ends"] == {"noise": ["noise 0", "noise 1"], "label": ["0", "1"]}
    pixels = base64.b64decode(data["models"][0]["pixels"])
    ways = np.frombuffer(pixels, np.uint8).reshape(2, data["steps"] + 1, 64)  # along the noises, along the classes
    assert (ways[0, 0] == ways[1, 0]).all() and (ways[0, 0] != ways[0, -1]).any()
    at.number_input(key="walk_seed_0").set_value(5).run()
    assert shown(at)[-1]["models"][0]["pixels"] != data["models"][0]["pixels"]


def test_the_ways_that_are_drawn_cross_where_the_sliders_stand():
    from lab.dashboard import walking

    places = walking.crossing((0.25, 0.5))
    assert len(places) == 2 * (walking.STEPS + 1) and places.count((0.25, 0.5)) == 2
    assert {label for _, label in places[: walking.STEPS + 1]} == {0.5}
    assert {noise for noise, _ in places[walking.STEPS + 1 :]} == {0.25}


def test_a_walk_without_a_model_asks_for_one(store: Store):
    at = page(walk="true")
    at.multiselect(key="walk_models").set_value([]).run()
    assert "at least one student" in at.info[-1].value and len(shown(at)) == 1  # the kept samples
