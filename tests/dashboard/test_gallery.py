from __future__ import annotations

import json
from pathlib import Path

import pytest
from dashboard.conftest import EXTRACTOR, LABEL, add_neighbours, add_report, add_student, report
from streamlit.testing.v1 import AppTest

from lab.results import Run, Store

APP = Path(__file__).parents[2] / "app.py"


def page(**query: str | list[str]) -> AppTest:
    at = AppTest.from_file(str(APP), default_timeout=30)
    for name, value in query.items():
        at.query_params[name] = value
    at.switch_page("lab/dashboard/gallery.py").run()
    assert not at.exception, at.exception
    return at


def shown(at: AppTest) -> list[dict]:
    """What the browser is told to draw."""
    return [json.loads(c.proto.json) for c in at.get("bidi_component")]


def titles(at: AppTest) -> list[str]:
    return [c["title"] for c in shown(at)[0]["columns"]]


def test_the_teacher_stands_first_and_students_from_small_to_large_beside_it(demo: Store):
    (data,) = shown(page())
    first, *students = data["columns"]
    assert first["title"].endswith("(teacher)") and len(students) == 3
    assert all(any(line.endswith("x as fast as its teacher") for line in s["caption"]) for s in students)
    assert all(c["src"].startswith("data:image/png;base64,") for c in data["columns"])


def test_a_student_is_compared_with_its_teacher_on_as_many_threads(
    tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch
):
    store = make_store(tmp_path, students=2)
    monkeypatch.setenv("LAB_RESULTS", str(store.root))
    before = shown(page())[0]["columns"]
    add_report(store, report(store.get(LABEL), ms=0.01, threads=1))  # faster, but its teacher is not timed so
    after = shown(page())[0]["columns"]
    assert [c["caption"] for c in after] == [c["caption"] for c in before]


def test_lines_are_noises_with_seed_and_class(demo: Store):
    (data,) = shown(page())
    assert data["lines"][3] == {"title": "seed 3\nclass 3", "tiles": [3]}
    assert len(data["lines"]) == 20


def test_a_class_alone_leaves_its_noises(demo: Store):
    at = page()
    at.selectbox(key="class").set_value("4").run()
    assert [line["tiles"][0] for line in shown(at)[0]["lines"]] == [4, 14, 24, 34, 44, 54]


def test_models_and_view_are_read_from_the_url(demo: Store):
    at = page(models=["d4w64h4p4", "d6w56h4p4"], gallery="Swipe", zoom="6")
    (data,) = shown(at)
    assert (data["mode"], data["zoom"]) == ("swipe", 6)
    assert titles(at) == ["d4w64h4p4", "d6w56h4p4"]


def test_swipe_takes_any_two_of_the_chosen(demo: Store):
    at = page(gallery="Blink")
    names = at.multiselect(key="models").value
    at.selectbox(key="a").set_value(names[2]).run()
    assert titles(at) == [names[2], names[1]]


def test_one_model_cannot_be_swiped(demo: Store):
    at = page(models=["d4w64h4p4"], gallery="Swipe")
    assert "two models" in at.info[0].value and not shown(at)


def test_differences_stand_beside_the_first_model_s_own_images(demo: Store):
    plain, differences = shown(page())[0], shown(page(gallery="Difference"))[0]
    assert differences["columns"][0]["src"] == plain["columns"][0]["src"]
    assert all(a["src"] != b["src"] for a, b in zip(differences["columns"][1:], plain["columns"][1:]))
    assert all("mean difference" in c["caption"][-1] for c in differences["columns"][1:])


def test_the_slider_shows_what_a_run_drew_then(demo: Store):
    at = page(gallery="Watch it learn")
    late = shown(at)[1]["columns"][0]
    at.select_slider(key="moment").set_value(6400).run()
    early = shown(at)[1]["columns"][0]
    assert early["caption"] == ["6,400 images seen"] and late["caption"] == ["800,000 images seen"]
    assert early["src"] != late["src"]
    assert len(at.get("plotly_chart")) == 1


def test_a_page_of_six_models_is_small(demo: Store):
    at = page()
    at.multiselect(key="models").set_value(at.multiselect(key="models").options[:6]).run()
    assert sum(len(c.proto.json) for c in at.get("bidi_component")) < 1_500_000


def test_a_model_without_samples_is_grey_with_its_command(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch):
    store = make_store(tmp_path, students=2)
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    run = add_student(store, depth=3, width=48)
    (run.path / "student.safetensors").touch()
    (run.path / "samples.npz").write_bytes(b"cut off")
    (data,) = shown(page(models=["d8w32h2p4", "d3w48h4p4", LABEL]))
    (gone,) = [c for c in data["columns"] if not c["src"]]
    assert gone["command"].startswith(f"LAB_RESULTS={tmp_path} python -m lab sample {run.id} --out ")
    assert gone["command"].endswith(f"{run.path / 'samples.npz'}")


@pytest.fixture
def drawable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A digits student whose network can draw, and whose sheet is not kept."""
    from dataclasses import asdict

    import torch

    from lab import experiment
    from lab.config import DiTConfig, Recipe, Use
    from lab.data import ImageSpec

    torch.set_num_threads(1)
    store = Store(tmp_path)
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    net = DiTConfig(image_size=8, patch=4, depth=1, width=16, heads=2)
    for seed in (0, 1):
        recipe = Recipe(data="digits", student=net, methods=(Use("denoise"),), seed=seed)
        run = store.open(recipe.with_(student__num_classes=10))
        torch.manual_seed(seed)
        built = experiment.models.build(net)
        torch.nn.init.normal_(built.head.weight, std=0.1)
        experiment.save_student(run, built, ImageSpec(data="digits", size=8, channels=1, num_classes=10))
        run.set_status(state="done")
        assert asdict(run.status())["state"] == "done"
    return store


def test_a_model_without_images_is_drawn_here_by_a_runtime_that_is_named(drawable: Store):
    at = page()
    assert [c["src"] for c in shown(at)[0]["columns"]] == ["", ""]
    assert "No images are kept of" in at.caption[0].value
    at.button[0].click().run()
    assert not at.exception and not at.error
    assert all(c["count"] == 64 for c in shown(at)[0]["columns"])
    (said,) = [c.value for c in at.caption if "was drawn here by" in c.value]
    assert said.count("was drawn here by") == 2 and "fp32" in said.replace("\\", "")
    assert not at.button  # nothing is left to draw


def test_other_noises_are_drawn_here_and_say_so(drawable: Store):
    at = page(noise="200")
    (before,) = shown(at)
    assert before["columns"][0]["command"].endswith("--seed 200 --out samples-200.png")
    at.button[0].click().run()
    (data,) = shown(at)
    assert data["lines"][0]["title"].startswith("seed 200") and data["columns"][0]["src"]


def test_what_can_not_be_drawn_here_is_a_sentence(drawable: Store):
    run = drawable.runs()[0]
    run.write("student", run.read("student") | {"weights_sha256": "0" * 64})
    at = page()
    at.button[0].click().run()
    assert not at.exception and "does not have the sha256" in at.error[0].value.replace("\\", "")
    assert sum(bool(c["src"]) for c in shown(at)[0]["columns"]) == 1


def test_kept_sheets_need_no_drawing(demo: Store):
    assert not page().button


@pytest.fixture
def neighbours(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two students and their teacher with what lies beside their images: image 7 is nearest to the teacher's, 9 is
    farthest from it, 11 is nearest to a real one.
    """
    store = make_store(tmp_path, students=3)
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    for k, run in enumerate(r for r in store.runs() if (r.path / "student.json").exists()):
        teacher = run.recipe.teacher is None
        if not teacher and run.recipe.student.width == 52:
            continue  # one student has none
        to_teacher, nearest = [0.2 + k] * 64, [1.0 + k] * 64
        to_teacher[7], to_teacher[9], nearest[11] = 0.1 + k, 0.4 + k, 0.5
        add_neighbours(run, None if teacher else to_teacher, nearest)
    return store


def plain(at: AppTest) -> str:
    return " ".join(c.value for c in at.caption).replace("\\", "")


def test_lines_stand_in_order_of_the_distance_to_the_teacher(neighbours: Store):
    at = page(order="closest to the teacher")
    (near,) = shown(at)
    assert near["lines"][0]["tiles"] == [7] and near["lines"][1]["tiles"] == [0]
    far = shown(page(order="farthest from the teacher"))[0]["lines"]
    assert far[0]["tiles"] == [9] and far[0]["title"].startswith("seed 9\nclass 9\n")
    low, high = (float(line["title"].split("\n")[-1]) for line in (near["lines"][0], far[0]))
    assert high - low == pytest.approx(0.3, abs=0.02)  # the mean of the two students that have one


def test_a_distance_says_what_it_is_and_of_which_models(neighbours: Store):
    at = page(order="closest to the teacher")
    said = plain(at)
    assert "mean perceptual distance (fashion-mnist-cnn-5e6f7a8b)" in said and "by run:x, dpmpp2m-8" in said
    assert "Not in it: " in said and "d3w52h4p4" in said.split("Not in it: ")[1]
    captions = {c["title"]: c["caption"] for c in shown(at)[0]["columns"]}
    assert "from its teacher's images (mean of those shown)" in captions[LABEL][-1]
    assert not any("from its teacher" in line for line in captions["d3w52h4p4"])


def test_each_image_is_followed_by_the_real_ones_nearest_to_it(neighbours: Store):
    from base64 import b64decode

    from lab import sheets

    at = page(gallery="Nearest real images", models=[LABEL, "d3w52h4p4"], order="closest to a real image")
    with_real, without = shown(at)[0]["columns"]
    assert shown(at)[0]["lines"][0] == {"title": "seed 11\nclass 1\n0.5", "tiles": [44, 45, 46, 47]}
    tiles = sheets.untile(sheets.read_png(b64decode(with_real["src"].partition(",")[2])), 28)
    kept = neighbours.get(LABEL)
    assert (tiles[44] == sheets.read_samples(kept.path / "samples.npz").images[11]).all()
    assert [int(t.max()) for t in tiles[45:48]] == [100, 110, 120]
    assert with_real["caption"][-1].endswith("from the nearest (median of those shown)")
    assert not without["src"] and without["command"]
    assert EXTRACTOR in plain(at) and "not by pixels" in plain(at) and "lies 0.99 from its nearest one" in plain(at)


def test_where_no_distances_are_kept_the_command_that_makes_them_is_shown(demo: Store):
    run = demo.get(LABEL)
    (run.path / "student.safetensors").touch()
    try:
        for query in ({"order": "closest to the teacher"}, {"gallery": "Nearest real images"}):
            at = page(models=[LABEL], **query)
            assert "is not kept yet" in at.info[0].value and at.code[0].value.endswith(f" python -m lab eval {run.id}")
    finally:
        (run.path / "student.safetensors").unlink()


def test_a_teacher_alone_has_no_teacher_to_be_compared_with(demo: Store):
    at = page()
    (teacher,) = [n for n in at.multiselect(key="models").value if n + " (teacher)" in titles(at)]
    at = page(models=[teacher], order="closest to the teacher")
    assert "choose a student" in at.info[0].value and not any("lab eval" in c.value for c in at.code)


def test_a_blind_gallery_tells_neither_name_nor_figures(demo: Store):
    open_, blind = shown(page())[0]["columns"], shown(page(blind="true"))[0]["columns"]
    assert [c["title"] for c in blind] == ["A", "B", "C", "D"] and not any(c["caption"] for c in blind)
    assert sorted(c["src"] for c in blind) == sorted(c["src"] for c in open_)


def test_the_blind_order_is_that_of_its_number_and_stays(demo: Store):
    orders = {k: [c["src"] for c in shown(page(blind="true", shuffle=str(k)))[0]["columns"]] for k in range(6)}
    assert len({tuple(o) for o in orders.values()}) > 2
    at = page(blind="true", shuffle="3")
    at.select_slider(key="noises").set_value(5).run()
    assert [c["src"] for c in shown(at)[0]["columns"]] == orders[3]


def test_reveal_names_the_letters_and_a_new_shuffle_hides_them_again(demo: Store):
    sources = {c["title"]: c["src"] for c in shown(page())[0]["columns"]}
    at = page(blind="true", reveal="true", shuffle="2")
    told = shown(at)[0]["columns"]
    assert all(sources[c["title"][3:]] == c["src"] and c["title"][1] == ":" for c in told)
    at.number_input(key="shuffle").set_value(3).run()
    assert titles(at) == ["A", "B", "C", "D"] and not at.toggle(key="reveal").value


def test_blind_models_are_swiped_by_their_letters(demo: Store):
    at = page(blind="true", gallery="Swipe", blind_a="C")
    assert titles(at) == ["C", "B"] and at.selectbox(key="blind_a").options == ["A", "B", "C", "D"]


def test_a_label_reaches_the_page_as_text(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch):
    store = make_store(tmp_path, students=2)
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    label = "<img src=x onerror=alert(1)> $x$ [a](b)"
    add_student(store, depth=3, width=48).set_notes(label=label, pin=True)
    at = page()
    assert label in titles(at)  # set as textContent by the component
    assert "[a](b)" not in at.caption[0].value and r"\[a\]\(b\)" in at.caption[0].value


def test_pinned_runs_are_among_the_first(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch):
    store = make_store(tmp_path, students=6)
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    worst = add_student(store, depth=1, width=16)
    worst.set_notes(pin=True)
    assert titles(page())[1] == "d1w16h4p4"


def test_two_runs_of_one_label_can_both_be_chosen(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch):
    store = make_store(tmp_path, students=4)
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    for run in store.runs():
        if "w44" in run.id or "w52" in run.id:
            run.set_notes(label="twin", pin=True)
    assert len({t for t in titles(page()) if t.startswith("twin")}) == 2


def test_only_an_image_of_another_size_stands_in_the_way(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch):
    store = make_store(tmp_path, students=2)
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    for run in store.runs():
        (run.path / "log.jsonl").unlink(missing_ok=True)
        for _, snapshot in run.snapshots():
            snapshot.write_bytes(b"no png")
    at = page(gallery="Watch it learn")
    assert all("can't be read" in c["columns"][0]["caption"][0] for c in shown(at))
    assert "no readable log" in at.info[0].value


def test_an_empty_folder_says_what_to_do(nothing: Store):
    at = page()
    assert "No finished run" in at.info[0].value
    assert "python -m lab run recipes/" in at.code[0].value


def test_the_unfinished_and_the_broken_run_are_not_shown(demo: Store):
    options = page().multiselect(key="models").options
    unfinished = [r for r in Store(demo.root).runs() if not (r.path / "student.json").exists()]
    assert len(unfinished) == 2 and len(options) == 15
    assert all(isinstance(r, Run) for r in unfinished)
