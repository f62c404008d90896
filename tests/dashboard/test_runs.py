from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from dashboard.conftest import LABEL
from streamlit.testing.v1 import AppTest

from lab import jobs
from lab.config import Recipe
from lab.dashboard import live
from lab.results import Run, Store, write_json

APP = Path(__file__).parents[2] / "app.py"


def page(state: dict[str, object] | None = None, **query: str | list[str]) -> AppTest:
    at = AppTest.from_file(str(APP), default_timeout=60)
    for name, value in query.items():
        at.query_params[name] = value
    for name, value in (state or {}).items():
        at.session_state[name] = value
    at.switch_page("lab/dashboard/runs.py").run()
    assert not at.exception, at.exception
    return at


def text(at: AppTest) -> str:
    elements = [*at.markdown, *at.caption, *at.info, *at.warning, *at.error, *at.code]
    return "\n".join(e.value for e in elements).replace("\\", "")


@pytest.fixture
def store(tmp_path: Path, make_store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    return make_store(tmp_path, students=3)


def unfinished(store: Store) -> Run:
    return next(r for r in store.runs() if r.status().state == "stale")


# --- the table ----------------------------------------------------------------------------------


def test_all_runs_are_listed_the_best_first(demo: Store):
    table = page().dataframe[0].value
    fd = table["fd"].dropna().tolist()
    assert len(table) == 17 and fd == sorted(fd)
    assert set(table["state"]) == {"done", "stale", "unreadable"}


def test_columns_are_chosen_in_the_url(demo: Store):
    at = page(columns=["FD", "Seed"])
    assert at.dataframe[0].value.columns.tolist() == ["name", "fd", "seed"]


def test_words_find_runs(demo: Store):
    at = page()
    at.text_input(key="find").set_value("denoise done").run()
    assert at.dataframe[0].value["method"].tolist() == ["denoise"]


def test_hidden_runs_appear_with_the_switch_alone(store: Store):
    hidden = store.get(LABEL)
    hidden.set_notes(hide=True)
    at = page()
    assert LABEL not in at.dataframe[0].value["name"].tolist()
    at.toggle(key="hidden").set_value(True).run()
    assert LABEL in at.dataframe[0].value["name"].tolist()


def test_a_pinned_run_comes_first(store: Store):
    store.get(LABEL).set_notes(pin=True)
    assert page().dataframe[0].value["name"].iloc[0] == LABEL


# --- side by side -------------------------------------------------------------------------------


def test_rows_of_the_table_are_compared(demo: Store):
    at = page({"runs_table": {"selection": {"rows": [1, 3]}}})
    names = at.dataframe[0].value["name"]
    assert at.multiselect(key="compare").value == [names[1], names[3]]
    assert len(at.get("plotly_chart")) == 1
    lowest = at.dataframe[1].value
    assert lowest["Run"].tolist() == [names[1], names[3]]
    assert (lowest["lowest"] <= lowest["last"]).all()


def test_only_fields_that_differ_are_shown(demo: Store):
    at = page(compare=["d4w64h4p4", "d4w44h4p4"])
    assert at.dataframe[2].value.index.tolist() == ["student.width"]


def test_teacher_and_student_share_no_loss_axis(demo: Store):
    at = page(compare=["d4w64h4p4", "unet32x64x64"])
    assert at.selectbox(key="term").options[:2] == ["denoise/mse", "pairs/l1"]
    assert "so not drawn: d4w64h4p4" in text(at)


def test_a_label_is_saved_and_shown_as_text(store: Store):
    run = store.get(LABEL)
    at = page(compare=LABEL)
    at.text_input(key=f"label-{run.id}").set_value("<b>new</b> *name*")
    at.text_area(key=f"text-{run.id}").set_value("<script>")
    at.checkbox(key=f"pin-{run.id}").set_value(True)
    next(b for b in at.button if b.label == "Save").click().run()
    assert not at.exception
    assert run.notes == {"label": "<b>new</b> *name*", "notes": "<script>", "pin": True, "hide": False}
    assert at.dataframe[0].value["name"].iloc[0] == "<b>new</b> *name*"
    assert not any("<b>new" in m.value for m in at.markdown)


# --- unfinished runs ----------------------------------------------------------------------------


def test_a_stale_run_shows_its_progress_and_the_command_that_goes_on(store: Store):
    run, at = unfinished(store), page()
    assert f"{run.label} stale" in text(at).replace("*", "")
    assert jobs.command(run) in [c.value for c in at.code]
    assert next(b for b in at.button if b.key == f"resume-{run.id}").label == "Resume"


def test_a_run_whose_process_was_killed_can_go_on_at_once(store: Store):
    run = unfinished(store)
    (run.path / "lock").touch()
    write_json(run.path / "status.json", {"state": "running", "steps": 10, "heartbeat": time.time(), "pid": 2**22 + 7})
    at = page()
    assert "Stopped, resumable" in text(at)
    assert {b.key for b in at.button} & {f"resume-{run.id}", f"stop-{run.id}"} == {f"resume-{run.id}"}


def test_an_error_is_shown(store: Store):
    run = unfinished(store)
    write_json(
        run.path / "status.json",
        {"state": "failed", "step": 5, "steps": 10, "error": "Diverged: loss is nan at step 5"},
    )
    assert "Diverged: loss is nan at step 5" in text(page())


def test_a_run_of_another_machine_cannot_be_stopped(store: Store):
    run = unfinished(store)
    (run.path / "lock").write_text("another-machine")
    write_json(
        run.path / "status.json",
        {"state": "running", "step": 5, "steps": 10, "heartbeat": time.time(), "pid": 2**22 + 7},
    )
    (stop,) = [b for b in page().button if b.key == f"stop-{run.id}"]
    assert stop.disabled


def test_stop_asks_the_run_s_own_process(store: Store, monkeypatch: pytest.MonkeyPatch):
    run, asked = unfinished(store), []
    write_json(
        run.path / "status.json", {"state": "running", "step": 5, "steps": 10, "heartbeat": time.time(), "pid": 4242}
    )
    monkeypatch.setattr(jobs, "process_of", lambda run: 4242)
    monkeypatch.setattr(jobs.os, "kill", lambda pid, sign: asked.append((pid, sign.name)))
    at = page()
    next(b for b in at.button if b.key == f"stop-{run.id}").click().run()
    assert asked == [(4242, "SIGTERM")]
    assert "Asked to stop" in at.toast[0].value


def test_resume_starts_the_run_and_a_failed_start_is_quoted(store: Store, monkeypatch: pytest.MonkeyPatch):
    run, started = unfinished(store), []

    def start(run: Run) -> int:
        started.append(run.id)
        (run.path / "process.log").write_text("no such teacher\n")
        return 4242

    monkeypatch.setattr(jobs, "start", start)
    at = page()
    next(b for b in at.button if b.key == f"resume-{run.id}").click().run()
    assert started == [run.id]
    assert "no such teacher" in text(at)


def running(run: Run, step: int) -> None:
    write_json(run.path / "status.json", {"state": "running", "step": step, "steps": 12_500, "pid": 4242,
                                          "heartbeat": time.time()})  # fmt: skip


def test_a_running_run_shows_its_curve_its_newest_grid_its_speed_and_what_is_left(store: Store):
    run = unfinished(store)
    running(run, 8000)
    shots = store.get(LABEL).path / "snapshots"
    shutil.copytree(shots, run.path / "snapshots")
    at = page()
    said = next(p.text for p in at.get("progress") if "images/s" in p.text)
    assert "727 images/s, 7 min to go" in said  # 64 images in 0.088 s, as its log has it; 4,500 updates are left
    assert len(at.get("plotly_chart")) == 1
    ((column,),) = [json.loads(c.proto.json)["columns"] for c in at.get("bidi_component")]
    assert column["caption"] == ["800,000 images seen"] and column["count"] == 16


def test_a_process_that_still_loads_can_be_stopped_and_is_not_started_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    run = unfinished(store)
    monkeypatch.setattr(jobs, "process_of", lambda of: 4242 if of.id == run.id else None)
    at = page()
    assert f"{run.label} starting, process 4242" in text(at).replace("*", "")
    (stop,) = [b for b in at.button if b.key in (f"stop-{run.id}", f"resume-{run.id}")]
    assert stop.label == "Stop" and not stop.disabled


def test_a_refused_start_is_told(store: Store, monkeypatch: pytest.MonkeyPatch):
    run = unfinished(store)

    def start(run: Run) -> int:
        raise ValueError(f"run {run.id} is the work of process 4242")

    monkeypatch.setattr(jobs, "start", start)
    at = page()
    next(b for b in at.button if b.key == f"resume-{run.id}").click().run()
    assert "is the work of process 4242" in at.toast[0].value.replace("\\", "")


# --- sweeps -------------------------------------------------------------------------------------


def swept(store: Store) -> tuple[Path, list[Run]]:
    """A sweep of three: one is done, one runs, one is queued."""
    done, at_work = store.get(LABEL), unfinished(store)
    running(at_work, 8000)
    rows = [{"run": run.id, "state": "queued", "stages": [run.id], "at": {"student.depth": depth}}
            for depth, run in [(8, done), (5, at_work)]]  # fmt: skip
    path = store.root / "sweeps" / "depths.json"
    write_json(path, {"asked": {}, "runs": [*rows, {"run": "", "state": "queued", "stages": []}]})
    return path, [done, at_work]


def test_how_far_a_sweep_is_follows_from_its_runs_folders(store: Store):
    path, (done, at_work) = swept(store)
    members = live.Members(store, store.sweeps()[path])
    assert members.states == {"done": 1, "running": 1, "queued": 1} and members.left == 2
    assert members.named() == {"depth 8": members.begun[done.id], "depth 5": members.begun[at_work.id]}
    share, images_per_s, seconds = members.progress()
    assert share == pytest.approx((1 + 0.64) / 3) and images_per_s == pytest.approx(64 / 0.088)
    assert seconds == pytest.approx((0.36 + 1) * (1100 + 12_500 * 0.088) / 2)  # two runs of 1,100 s each


def test_a_sweep_at_work_has_its_runs_in_one_card_and_stops_as_one(store: Store, monkeypatch: pytest.MonkeyPatch):
    _, (_, at_work) = swept(store)
    asked = []
    monkeypatch.setattr(jobs, "process_of_sweep", lambda of: 4242)
    monkeypatch.setattr(jobs.os, "kill", lambda pid, sign: asked.append((pid, sign.name)))
    at = page()
    assert "Sweep depths running, process 4242" in text(at).replace("*", "")
    assert any(p.text.startswith("3 runs: 1 running, 1 queued, 1 done, 727 images/s") for p in at.get("progress"))
    assert not [b for b in at.button if b.key in (f"stop-{at_work.id}", f"resume-{at_work.id}")]
    assert len(at.get("plotly_chart")) == 1
    at.button(key="stop-sweep-depths").click().run()
    assert asked == [(4242, "SIGTERM")]


def test_a_sweep_without_a_process_goes_on_by_a_button_or_its_command(store: Store, monkeypatch: pytest.MonkeyPatch):
    path, _ = swept(store)
    started = []
    monkeypatch.setattr(jobs, "start_sweep", lambda *of: started.append(of))
    at = page()
    assert "Sweep depths unfinished" in text(at).replace("*", "")
    assert f"LAB_RESULTS={store.root} python -m lab sweep {path}" in [c.value for c in at.code]
    at.button(key="resume-sweep-depths").click().run()
    assert started == [(path, 1)]


def test_a_sweep_that_is_done_is_not_shown(store: Store):
    run = store.get(LABEL)
    write_json(store.root / "sweeps" / "old.json",
               {"asked": {}, "runs": [{"run": run.id, "state": "queued", "stages": [run.id]}]})  # fmt: skip
    assert "Sweep old" not in text(page())


def test_a_sweep_s_file_that_does_not_hold_is_named(store: Store):
    write_json(store.root / "sweeps" / "bad.json", {"asked": {}, "runs": [{"run": "x", "state": "lost", "stages": []}]})
    assert "sweeps/bad.json" in text(page())


def test_a_broken_run_is_named_with_its_reason(demo: Store):
    said = text(page())
    assert "1 file can't be read" in said and "broken-d4w64h4p4-pairs-00000000/recipe.json: a recipe must be" in said


@pytest.mark.parametrize(
    "name", ["status.json", "log.jsonl", "metrics.json", "cost.json", "notes.json", "student.json"]
)
@pytest.mark.parametrize("content", ["", "[1]", '{"state": 5, "values": {"fd": 3}, "label": [], "step": "x"}', "\x00"])
def test_no_broken_file_breaks_the_page(store: Store, name: str, content: str):
    (store.get(LABEL).path / name).write_text(content)
    at = page({"runs_table": {"selection": {"rows": [0, 1, 2, 3, 4]}}})
    assert len(at.dataframe[0].value) == 6


def test_an_empty_folder_offers_the_smoke_run(nothing: Store):
    at = page()
    assert "No run yet" in at.info[0].value
    assert "python -m lab run --data digits" in at.code[0].value


# --- a new run ----------------------------------------------------------------------------------


@pytest.fixture
def form(nothing: Store) -> AppTest:
    at = page()
    at.toggle(key="new").set_value(True).run()
    assert not at.exception, at.exception
    return at


def label(at: AppTest, kind: str, name: str):
    return next(w for w in getattr(at, kind) if w.label == name)


def test_the_form_begins_with_a_recipe_that_can_run(form: AppTest):
    assert not form.warning
    assert any(b.key == "start_new" for b in form.button)


def test_every_field_of_the_recipe_has_a_widget_with_its_comment(form: AppTest):
    widgets = [*form.number_input, *form.text_input, *form.selectbox, *form.checkbox]
    labels = {w.label for w in widgets}
    recipe = json.loads(Recipe().to_json())
    assert (set(recipe) | set(recipe["student"])) - {"student", "methods", "family"} <= labels
    assert label(form, "number_input", "steps").help == "Updates; 0 = build and measure only"


def test_what_is_wrong_stands_beside_the_form(form: AppTest):
    label(form, "number_input", "heads").set_value(3)
    label(form, "text_input", "betas").set_value("[0.9, 2.0]")
    form.run()
    said = text(form)
    assert "width 64 is not a multiple of heads 3" in said and "betas must lie in [0, 1)" in said
    assert not any(b.key == "start_new" for b in form.button)


def test_a_value_of_the_wrong_kind_is_named(form: AppTest):
    label(form, "text_input", "keep").set_value("soon")
    form.run()
    assert "recipe.keep" in text(form)


def test_an_image_size_that_does_not_fit_the_data_is_said(form: AppTest):
    label(form, "number_input", "image_size").set_value(16)
    form.run()
    assert "student.image_size is 16, the images of digits have 8" in text(form)


def test_start_writes_the_recipe_and_starts_a_process(form: AppTest, nothing: Store, monkeypatch: pytest.MonkeyPatch):
    started = []
    monkeypatch.setattr(jobs, "start", lambda run: started.append(run.id) or 4242)
    label(form, "number_input", "steps").set_value(30)
    form.run()
    next(b for b in form.button if b.key == "start_new").click().run()
    assert not form.exception
    (run,) = nothing.runs()
    assert started == [run.id] and run.recipe.steps == 30
    assert run.recipe.methods[0].options  # written out in full, so that the id lasts


def test_values_of_a_field_make_a_sweep_whose_file_says_what_was_asked(
    form: AppTest, nothing: Store, monkeypatch: pytest.MonkeyPatch
):
    started = []
    monkeypatch.setattr(jobs, "start_sweep", lambda *of: started.append(of) or 4242)
    label(form, "multiselect", "Vary").set_value(["seed", "student.heads"])
    form.run()
    label(form, "text_input", "Values of seed").set_value("0, 1, 2")
    label(form, "text_input", "Values of student.heads").set_value("3")
    form.run()
    assert "width 64 is not a multiple of heads 3" in text(form)
    label(form, "text_input", "Values of student.heads").set_value("2, 3, 4")
    form.run()
    assert "6 runs" in text(form) and "Left out: seed 0, heads 3: width 64" in text(form) and not form.warning
    form.button(key="start_sweep").click().run()
    assert not form.exception
    record = nothing.root / "sweeps" / "digits-seed-student-heads.json"
    assert started == [(record, 1)]
    assert nothing.sweeps()[record]["asked"]["axes"] == {"seed": [0, 1, 2], "student.heads": [2, 3, 4]}


def test_another_sweep_s_name_is_refused(form: AppTest, nothing: Store):
    write_json(nothing.root / "sweeps" / "digits-seed.json", {"asked": {}, "runs": []})
    label(form, "multiselect", "Vary").set_value(["seed"])
    form.run()
    assert "there is another sweep called digits-seed" in text(form)


def test_a_run_s_recipe_can_be_the_beginning(store: Store):
    at = page(new="true")
    run = store.get(LABEL)
    label(at, "selectbox", "Begin with the recipe of").set_value(run.id).run()
    assert label(at, "number_input", "depth").value == run.recipe.student.depth
    assert label(at, "number_input", "pairs").value == 100_000
