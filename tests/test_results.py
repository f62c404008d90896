from __future__ import annotations

import csv
import dataclasses
import errno
import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY_STUDENT, artefact_facts, student_facts

from lab import doctor, experiment
from lab.config import DiTConfig, GETConfig, Recipe, Use, config_to_json
from lab.counts import of_dit
from lab.methods import METHODS
from lab.results import GLANCE_S, OBJECTIVES, STALE_S, TABLE, Busy, Run, Store, as_csv, report_columns, write_whole

ROOT = Path(__file__).parent.parent


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_whole(path, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "new")
    assert path.read_text() == "old"


def test_a_run_is_found_by_id_start_end_label_and_alias(taught):
    run = experiment.run(TINY_STUDENT, taught, measure=False)
    run.set_notes(label="the small one")
    for name in [run.id, f"run:{run.id}", run.id[:-2], run.id[-8:], "the small one"]:
        assert taught.get(name).id == run.id
    assert taught.get("tiny").recipe.student.family == "unet"
    with pytest.raises(LookupError, match="'digits' fits 2 runs"):
        taught.get("digits")
    with pytest.raises(LookupError, match="unknown run 'the smal one'; did you mean 'the small one'"):
        taught.get("the smal one")


def test_broken_folders_never_break_the_table(taught):
    runs = taught.root / "runs"
    good = next(runs.iterdir()).name
    broken = {"cut": '{"steps": 1', "foreign": '{"stepz": 1}', "list": "[]", "netless": '{"student": null}'}
    for name, recipe in broken.items():
        write_whole(runs / name / "recipe.json", recipe)
    write_whole(runs / "UPPER" / "recipe.json", "{}")  # no id of ours
    truncated = taught.open(Recipe()).id
    for file in ("status.json", "metrics.json", "cost.json", "notes.json", "student.json"):
        write_whole(runs / truncated / file, '{"values": {"fd"')
    table = taught.table().set_index("run")
    assert set(table.index) == {good, truncated, *broken}
    assert set(table.index[table["state"] == "unreadable"]) == {truncated, *broken}
    assert "stepz" in table.loc["foreign", "error"]
    assert table.loc[truncated, "error"] == "status.json: it is no JSON object"
    with pytest.raises(LookupError, match=rf"run {truncated} can't be read, status\.json: it is no JSON object; mend"):
        taught.get(truncated)
    assert [name for name in taught.faults() if truncated in name] == [
        f"runs/{truncated}/{name}.json" for name in ("status", "notes", "cost", "student", "metrics")]  # fmt: skip
    told = {f.found for f in doctor.examine(taught) if f.check == "unreadable"}
    assert told == {f"{name}: {wrong}" for name, wrong in taught.faults().items()} and len(told) == 9


def test_a_run_that_changes_is_read_anew_whoever_wrote_its_file(taught):
    run = taught.open(TINY_STUDENT)

    def row() -> dict:
        return taught.table().set_index("run").loc[run.id].to_dict()

    nameless = f"d2w16h2p4 pairs {run.id[-8:]}"
    assert (row()["state"], row()["label"]) == ("queued", nameless)
    run.set_notes(label="a")
    assert row()["label"] == "a"
    path, was = run.path / "notes.json", (run.path / "notes.json").stat()
    stamp = taught.stamp()
    assert taught.stamp() == stamp
    path.write_text(path.read_text().replace('"a"', '"b"'))  # in its place, as long, and as old, as it was
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert row()["label"] == "b" and taught.stamp() != stamp
    path.unlink()
    assert row()["label"] == nameless
    taught.name_teacher("another", run.id)
    assert row()["role"] == "teacher" and row()["aliases"] == ["another"]
    shutil.rmtree(run.path)
    assert run.id not in set(taught.table()["run"])
    assert taught.open(TINY_STUDENT).id == run.id and row()["label"] == nameless


def test_what_a_caller_does_to_a_table_is_not_in_the_next_one(taught):
    run = taught.open(TINY_STUDENT.with_(keep=(16,)))
    table = taught.table().set_index("run")
    table.loc[run.id, "keep"].append(32)
    table.loc[run.id, "state"] = "done"
    again = taught.table().set_index("run").loc[run.id]
    assert again["keep"] == [16] and again["state"] == "queued"


def test_a_killed_run_is_stale_in_the_table_though_no_file_changed(worked_on, store: Store):
    _, process = worked_on
    assert store.table()["state"].tolist() == ["running"]
    process.kill()
    process.wait()
    assert store.table()["state"].tolist() == ["stale"]


def test_a_results_folder_of_no_name_is_that_beside_the_package(monkeypatch):
    monkeypatch.setenv("LAB_RESULTS", "/elsewhere")
    assert str(Store().root) == "/elsewhere"
    monkeypatch.setenv("LAB_RESULTS", "")
    assert Store().root.name == "results" and (Store().root.parent / "lab").is_dir()


def test_an_empty_folder_is_an_empty_table(tmp_path):
    store = Store(tmp_path / "nothing")
    assert store.table().empty and store.runs() == [] and store.teachers() == {}


def test_tables_have_all_columns_with_their_types_whatever_they_hold(tmp_path):
    full, empty, broken = Store(ROOT / "results"), Store(tmp_path / "nothing"), Store(tmp_path)
    write_whole(tmp_path / "runs" / "cut" / "recipe.json", "{")
    run = broken.open(Recipe())
    value = {"value": 1.0, "reference": "x"}
    run.write("metrics", {"weights_sha256": "0", "extractor": "x", "samples": 8, "seed": 0,
                          "values": {"kid": value | {"run": 1}, "odd": value, "run": value}})  # fmt: skip
    run.write("notes", {"label": "3", "hide": True, "run": ["x"], "state": {}})
    for columns, tables in [(TABLE, [store.table() for store in (full, empty, broken)]),
                            (report_columns(), [store.reports() for store in (full, empty)])]:  # fmt: skip
        for table in tables:
            assert {name: str(table[name].dtype) for name in columns} == columns
            assert list(table)[: len(columns)] == list(columns)
    row = broken.table().set_index("run").loc[run.id]
    assert (row["label"], row["hide"], row["kid"], row["guide"]) == ("3", True, 1.0, "") and row[["fd"]].isna().all()
    assert "odd" not in row and row["state"] == "queued"
    assert broken.table().set_index("run").loc["cut", "aliases"] is None


def test_a_heart_that_stopped_beating_reads_as_stale(taught):
    run = taught.open(TINY_STUDENT)
    run.set_status(state="running")
    assert run.status().state == "running"
    plain = json.loads((run.path / "status.json").read_text())
    run.write("status", plain | {"heartbeat": time.time() - STALE_S - 1})
    assert run.status().state == "stale" and run.status().resumable


HOLD = """
import sys, time
from pathlib import Path
from lab.results import Run
run = Run(Path(sys.argv[1]))
with run.working():
    run.set_status(state="running")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def worked_on(store: Store):
    """A run and the process that works on it."""
    run = store.open(Recipe())
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield run, process
    process.kill()
    process.wait()


def test_a_killed_run_reads_as_stale_at_once_and_can_go_on(worked_on):
    run, process = worked_on
    assert run.status().state == "running"
    process.kill()
    process.wait()
    assert run.status().state == "stale" and run.status().resumable
    with run.working():
        assert run.status().state == "running"  # by this process, which has not said so yet


def test_a_run_that_ended_between_two_glances_is_not_called_stale(worked_on, monkeypatch):
    run, process = worked_on
    process.kill()
    process.wait()
    monkeypatch.setattr(Run, "_abandoned", lambda run: run.set_status(state="done") is None)
    assert run.status().state == "done"


def test_a_free_lock_of_another_machine_says_nothing(worked_on):
    run, process = worked_on
    process.kill()
    process.wait()
    (run.path / "lock").write_text("another-machine")
    assert run.status().state == "running"


def test_whoever_looks_at_a_run_keeps_nobody_from_working_on_it(store: Store):
    run = store.open(Recipe())
    (run.path / "lock").touch()
    with open(run.path / "lock") as glance:
        fcntl.flock(glance, fcntl.LOCK_SH)
        threading.Timer(GLANCE_S / 4, fcntl.flock, (glance, fcntl.LOCK_UN)).start()
        with run.working():
            pass
        fcntl.flock(glance, fcntl.LOCK_SH)
        with pytest.raises(Busy), run.working():
            pass


def test_a_cut_off_log_line_is_left_out_and_a_rewind_forgets_what_comes_after(taught):
    run = taught.open(TINY_STUDENT)
    for step in (1, 2, 3):
        run.log(step=step, loss=step / 2)
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert [r["step"] for r in run.log_rows()] == [1, 2, 3]
    run.rewind_log(2)
    run.log(step=3, loss=0.0)
    assert [r["step"] for r in run.log_rows()] == [1, 2, 3]


@pytest.mark.parametrize(("name", "value", "ci95", "said"), [
    ("fd", -1.0, None, "value is -1.0, not above 0"), ("fd", 0, None, "value is 0, not above 0"),
    ("fd_teacher", -0.1, None, "value is -0.1, not above 0"), ("teacher_l1", -0.1, None, "value is -0.1, below 0"),
    ("class_accuracy", 1.5, None, "value is 1.5, above 1"), ("recall", -0.1, None, "value is -0.1, below 0"),
    ("fd", 3.0, [1.0, 2.0], " is 3.0, outside its ci95 of 1.0 to 2.0"), ("fd", 1.5, [2.0, 1.0], "outside its ci95"),
    ("fd", 1.5, [-1.0, 2.0], "ci95.0 is -1.0, below 0"),
])  # fmt: skip
@pytest.mark.parametrize("place", ["values", "checkpoints.1000"])
def test_a_value_that_no_measurement_gives_makes_its_run_unreadable(store: Store, name, value, ci95, said, place):
    run, other = (store.open(Recipe(student=DiTConfig(image_size=8), seed=seed)) for seed in (0, 1))
    good = {"fd": {"value": 2.0, "reference": "x", "ci95": [1.5, 2.5]}, "kid": {"value": -1e-4, "reference": "x"},
            "precision": {"value": 1, "reference": "x"}, "teacher_l1": {"value": 0.0, "reference": "x"}}  # fmt: skip
    kept = {"values": good, "checkpoints": {"1000": {"fd": good["fd"]}}}
    head = {"weights_sha256": "cd", "extractor": "x", "samples": 8, "seed": 0}
    for each in (run, other):
        each.write("metrics", head | kept)
    assert store.faults() == {}
    (kept["values"] if place == "values" else kept["checkpoints"]["1000"])[name] = {
        "value": value, "reference": "x", "ci95": ci95}  # fmt: skip
    run.write("metrics", head | kept)
    [(file, wrong)] = store.faults().items()
    assert file == f"runs/{run.id}/metrics.json" and wrong.startswith(f"{place}.{name}")
    assert said in wrong.replace("'", "")
    states = store.table().set_index("run")["state"]
    assert (states[run.id], states[other.id]) == ("unreadable", "queued")


def test_metrics_of_other_weights_are_named_and_their_run_is_not_measured(store: Store):
    net = DiTConfig(image_size=8)
    run = store.open(Recipe(student=net))
    values = {"fd": {"value": 2.0, "reference": "x", "ci95": [1.5, 2.5]}}
    head = {"extractor": "x", "samples": 8, "seed": 0, "values": values}
    run.write("student", student_facts(net))
    run.write("metrics", head | {"weights_sha256": "cd"})
    assert store.faults() == {} and store.table().loc[0, "fd"] == 2.0 and run.own_metrics()["values"] == values
    for name in ("metrics", "metrics-y"):
        run.write(name, head | {"weights_sha256": "ab"})
    row = store.table().iloc[0]
    assert pd.isna(row["fd"]) and row["extractor"] == row["fd_reference"] == "" and row["state"] == "queued"
    assert run.own_metrics() is None and store.get(run.id).id == run.id
    said = f"its metrics are of other weights; python -m lab eval {run.id}"
    assert store.faults() == {f"runs/{run.id}/metrics.json": f"{said} measures it",
                              f"runs/{run.id}/metrics-y.json": f"{said} --extractor y measures it"}  # fmt: skip
    assert said in "".join(f.found for f in doctor.examine(store) if f.check == "unreadable")


NET = DiTConfig(image_size=8, patch=2, depth=2, width=16, heads=2, num_classes=10)
COST = {"params": 10548, "macs": 120320, "evaluations": 2, "macs_image": 240640, "params_deployed": 9060,
        "macs_deployed": 116736, "params_train": 9, "file_mb": 0.1}  # fmt: skip


@pytest.mark.parametrize(("file", "changes", "said"), [
    ("student", {"width": 32}, "config.width is 32, and 16 in recipe.json"),
    ("student", {"heads": 4}, "config.heads is 4, and 2 in recipe.json"),
    ("student", {"num_classes": 3}, "config.num_classes is 3, and 10 in recipe.json"),
    ("student", {"time": True}, "config.time is True, and False in recipe.json"),
    ("student", {"mlp_hidden": 8}, "config.mlp_hidden is 8, and None in recipe.json"),
    ("student", {"depth": 3}, "config.depth is 3, above the 2 of recipe.json"),
    ("student", {"family": "get"}, "config.family is get, and dit in recipe.json"),
    ("student", {"depth": 1}, "5700 is the params of the d1w16h2p2 of student.json, and 10548 is it in cost.json"),
    ("cost", {"params": 11797}, "params is 11797, and 10548 of the d2w16h2p2 of student.json"),
    ("cost", {"macs": 129633, "macs_image": 259266}, "macs is 129633, and 120320 of the d2w16h2p2 of student.json"),
    ("cost", {"params_deployed": 1}, "params_deployed is 1, and 9060 of the d2w16h2p2 of student.json"),
    ("cost", {"macs_deployed": 1}, "macs_deployed is 1, and 116736 of the d2w16h2p2 of student.json"),
    ("cost", {"macs_image": 120320}, "macs_image is 120320, and 240640 of the d2w16h2p2 of student.json"),
])  # fmt: skip
def test_a_network_or_a_cost_that_is_not_the_recipe_s_makes_the_run_unreadable(store: Store, file, changes, said):
    run, other = (store.open(Recipe(data="digits", student=NET, seed=seed)) for seed in (0, 1))
    for each in (run, other):
        each.write("student", student_facts(NET))
        each.write("cost", COST)
    assert store.faults() == {}
    plain = run.read(file)
    (plain["config"] if file == "student" else plain).update(changes)
    if changes.get("family"):
        plain["config"] = config_to_json(GETConfig(image_size=8, patch=2, depth=2, width=16, heads=2))
    run.write(file, plain)
    assert store.faults() == {f"runs/{run.id}/{file}.json": said}
    assert store.table().set_index("run")["state"].to_dict() == {run.id: "unreadable", other.id: "queued"}


@pytest.mark.parametrize("changes", [{"depth": 1}, {"block": "dynamic"}, {"adaln_norm": True}])
def test_what_a_method_may_change_of_a_network_is_no_fault(store: Store, changes):
    run = store.open(Recipe(data="digits", student=NET))
    run.write("student", student_facts(dataclasses.replace(NET, **changes)))
    assert store.faults() == {} and store.table()["state"].tolist() == ["queued"]


@pytest.mark.parametrize("changes", [{"steps": 1}, {"seed": 7}, {"teacher": "run:x"}, {"student": {"depth": 2}}])
def test_a_recipe_that_is_not_the_one_of_its_folder_makes_the_run_unreadable(store: Store, changes):
    run, other = (store.open(Recipe(seed=seed)) for seed in (0, 1))
    (run.path / "recipe.json").write_text(json.dumps(json.loads(run.recipe.to_json()) | changes))
    assert run.recipe.id != run.id
    said = f"it is that of {run.recipe.id}, and no longer this run's"
    assert store.faults() == {f"runs/{run.id}/recipe.json": said}
    assert store.table().set_index("run")["state"].to_dict() == {run.id: "unreadable", other.id: "queued"}
    with pytest.raises(LookupError, match=r"can't be read, recipe\.json: it is that of digits-"):
        store.get(run.id)


def test_notes_live_outside_the_recipe(taught):
    run = taught.open(TINY_STUDENT)
    before = run.recipe.id
    run.set_notes(label="a", pin=True)
    run.set_notes(notes="b")
    assert run.notes == {"label": "a", "notes": "b", "pin": True, "hide": False}
    assert run.recipe.id == before and taught.table().set_index("run").loc[run.id, "label"] == "a"


def test_notes_that_can_not_be_read_are_never_written_over(taught):
    run = taught.open(TINY_STUDENT)
    write_whole(run.path / "notes.json", "<<<<<<< HEAD")
    with pytest.raises(ValueError, match=r"notes\.json can't be read, it is no JSON object; mend it"):
        run.set_notes(pin=True)
    assert not run.notes["pin"] and (run.path / "notes.json").read_text() == "<<<<<<< HEAD"


def test_a_file_that_can_not_be_opened_is_said_to_be_so(taught):
    (taught.open(TINY_STUDENT).path / "notes.json").mkdir()
    with pytest.raises(ValueError, match=r"notes\.json can't be read, it can't be opened \(Is a directory\); mend it"):
        taught.open(TINY_STUDENT).set_notes(pin=True)


def test_a_results_folder_in_the_home_of_nobody_is_named(monkeypatch):
    monkeypatch.setenv("LAB_RESULTS", "~nobody_of_this_name/results")
    with pytest.raises(ValueError, match="LAB_RESULTS is '~nobody_of_this_name/results', and no such home is known"):
        Store()


@pytest.mark.parametrize(("text", "said"), [
    ('{"pin": true, "pin": false}', "pin stands there more than once"),
    ('{"a": {"\\ud800": 1, "\\ud800": 2}}', r"\ud800 stands there more than once"),
    ('{"label": "\\ud800"}', "it holds half a character, which no page and no terminal can show"),
])  # fmt: skip
def test_a_file_that_others_would_read_otherwise_is_unreadable_by_name(taught, text, said):
    run = taught.open(TINY_STUDENT)
    write_whole(run.path / "notes.json", text)
    assert taught.faults() == {f"runs/{run.id}/notes.json": said}


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize("name", ["status", "notes", "student", "cost", "metrics", "env", "neighbours", "metrics-x"])
def test_a_number_that_is_none_makes_its_file_unreadable_wherever_it_stands(store: Store, name, number):
    run = store.open(TINY_STUDENT)
    write_whole(run.path / f"{name}.json", f'{{"added": [{{"later": {number}}}]}}')
    said = f"it holds {number}, which is no finite number"
    assert store.faults() == {f"runs/{run.id}/{name}.json": said}
    if name == "notes":
        with pytest.raises(ValueError, match=rf"notes\.json can't be read, {said}"):
            run.set_notes(pin=True)


def test_a_number_that_is_none_is_named_in_a_recipe_and_in_what_belongs_to_no_run(store: Store):
    run = store.open(TINY_STUDENT)
    files = ("teachers.json", "pairs/x/pairs.json", "sweeps/x.json", "devices/blocks/x.json", "devices/report-x.json")
    for place in (*files, f"runs/{run.id}/recipe.json"):
        write_whole(store.root / place, '{"added": NaN}')
    said = "it holds NaN, which is no finite number"
    assert store.faults() == dict.fromkeys((*files, f"runs/{run.id}/recipe.json"), said)


@pytest.mark.parametrize("name", ["params", "params_train", "evaluations", "params_deployed"])
def test_a_network_of_no_parameters_and_no_evaluation_is_a_fault(taught, name):
    run = taught.runs()[0]
    run.write("cost", run.read("cost") | {name: 0})
    assert taught.faults()[f"runs/{run.id}/cost.json"] == f"{name} is '0', below 1"


def test_an_alias_must_name_a_run(taught):
    with pytest.raises(LookupError):
        taught.name_teacher("x", "nobody")
    with pytest.raises(ValueError, match="alias must match"):
        taught.name_teacher("../x", taught.runs()[0].id)


def test_a_teachers_name_goes_on_to_mean_the_same_run(taught):
    teacher, run = taught.runs()[0], taught.open(TINY_STUDENT)
    run.set_notes(label="small one")
    other = taught.open(TINY_STUDENT.with_(seed=7))
    other.set_notes(label="other")
    for alias, said in [("tiny", f"teacher 'tiny' is {teacher.label}"), ("other", f"the label of {other.id}")]:
        with pytest.raises(ValueError, match=re.escape(said)):
            taught.name_teacher(alias, run.id)
    taught.name_teacher("tiny", teacher.id)  # as it is
    assert taught.teachers() == {"tiny": teacher.id}


def test_aliases_that_can_not_be_read_are_never_written_over(taught):
    write_whole(taught.root / "teachers.json", "<<<<<<< HEAD")
    with pytest.raises(ValueError, match=r"teachers\.json can't be read, it is no JSON object; mend it"):
        taught.name_teacher("x", taught.runs()[0].id)
    assert taught.teachers() == {} and (taught.root / "teachers.json").read_text() == "<<<<<<< HEAD"


def test_a_run_that_taught_another_is_its_teacher_whatever_its_aliases_say(taught):
    def roles() -> dict[str, str]:
        return dict(taught.table()[["shape", "role"]].itertuples(index=False))

    taught.open(dataclasses.replace(TINY_STUDENT, teacher=f"run:{taught.runs()[0].id}"))
    before = roles()
    assert sorted(before.values()) == ["student", "teacher"]
    write_whole(taught.root / "teachers.json", "<<<<<<< HEAD")
    assert roles() == before


def test_a_run_is_found_by_its_shape_where_only_one_has_it(store: Store):
    four, six = (store.open(Recipe(student=DiTConfig(image_size=8, depth=depth))) for depth in (4, 6))
    assert store.get(six.recipe.student.shape).id == six.id
    other = store.open(four.recipe.with_(seed=1))
    with pytest.raises(LookupError, match="'d4w64h4p4' fits 2 runs"):
        store.get("d4w64h4p4")
    other.set_notes(label="d4w64h4p4")  # what a person says goes before what an id holds
    assert store.get("d4w64h4p4").id == other.id


def test_a_name_of_several_runs_is_refused_with_a_few_of_them_and_what_tells_them_apart(store: Store):
    nets = [store.open(Recipe(student=DiTConfig(image_size=8, depth=4), seed=seed)) for seed in range(8)]
    assert len({run.label for run in nets}) == 8 and store.get(nets[3].label).id == nets[3].id
    for run in nets[:2]:
        run.set_notes(label="4x64")
    for name, several in [("4x64", 2), ("d4w64h4p4", 8), (nets[0].id[:-8], 8)]:
        with pytest.raises(LookupError, match=f"fits {several} runs") as refused:
            store.get(name)
        told = [f"{run.label} ({run.id}), seed {k}" in str(refused.value) for k, run in enumerate(nets)]
        assert told[:2] == [True, True] if several == 2 else 2 < sum(told) < 6
        assert (several == 2) is ("lab ls" not in str(refused.value))
    write_whole(nets[0].path / "cost.json", "broken")  # it is named like the others, by what can be read
    with pytest.raises(LookupError, match=rf"'4x64' fits 2 runs: .*\({nets[0].id}\).*\({nets[1].id}\), .*seed 1"):
        store.get("4x64")
    (nets[0].path / "cost.json").unlink()
    nets[1].set_notes(label="4x64 plain 400k")  # a label that begins another is no part of it
    assert store.get("4x64").id == nets[0].id


def test_what_a_run_ships_is_in_its_own_files(store: Store):
    asked = DiTConfig(image_size=8, depth=4)
    run = store.open(Recipe(student=asked, methods=(Use("pairs"), Use("teaching_assistant"))))
    assert run.config == asked and run.facts == {}
    cut = dataclasses.replace(asked, depth=3)
    run.write("student", student_facts(cut, facts={"depths": [0, 1, 3]}))
    run.write("cost", {"params": (params := of_dit(cut)["params"]), "params_train": 100})
    row = store.table().iloc[0]
    assert run.config == cut and run.facts == {"depths": [0, 1, 3]}
    assert (row["depth"], row["shape"], row["params"], row["params_train"]) == (3, cut.shape, params, 100)
    assert (row["method"], row["method_short"]) == ("pairs+teaching_assistant", "teaching_assistant")


def test_objectives_are_those_of_the_methods():
    assert set(OBJECTIVES) == {name for name, method in METHODS.items() if method.objective}


def test_files_that_are_still_being_made_are_not_shown(taught):
    run = experiment.run(TINY_STUDENT, taught, measure=False)
    facts = artefact_facts(run.read("student"), runtime="r")
    for folder in ("r-fp32.123.tmp", "r-fp32"):
        assert run.artefacts() == {}
        write_whole(run.path / "export" / folder / "artefact.json", json.dumps(facts))
    assert run.artefacts() == {("r", "fp32"): facts}


# --- file systems and what they do to files ---


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_worked_on_with_a_notice(store: Store, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    run = store.open(Recipe())
    with pytest.warns(UserWarning, match="without locks"), run.working():
        run.set_status(state="running")
    assert run.status().state == "running", "the heart tells, for no lock does"


def test_a_system_without_fcntl_imports_the_lab_and_works(store: Store):
    script = ("import sys; sys.modules['fcntl'] = None\nimport lab.cli, lab.results, lab.pairs\n"
              "from lab.config import Recipe\nfrom pathlib import Path\n"
              f"run = lab.results.Store({str(store.root)!r}).open(Recipe())\nwith run.working(): print(run.id)\n"
              "with lab.pairs._held(Path(run.path)): pass")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == Recipe().id, done.stderr


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(Path(f"/proc/self/fd/{handle}").read_text()))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("named"), replace(*names)))
    write_whole(tmp_path / "a", "content")
    assert done == ["content", "named"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_whole(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"


def test_lines_of_a_log_that_are_none_are_passed_over_and_counted(store: Store):
    run = store.open(Recipe())
    run.log(step=1, loss=0.5)
    with open(run.path / "log.jsonl", "ab") as file:
        file.write(b'\xff\xfe\n5\n[1]\n"a"\nnull\n{"step": "2"}\n{"step": 3, "lo\n' + b"[" * 100_000 + b"\n\0\0\0\n")
        file.write(b'{"step": 1, "loss": NaN}\n{"step": 1, "loss": 1e999}\n{"step": 1%s}\n' % (b"0" * 400))
        file.write(b'{"step": -1, "loss": 0.5}\n{"step": 1.5, "loss": 0.5}\n')
    run.log(step=2, loss=0.25)
    rows, wrong = run.read_log()
    assert [r["step"] for r in rows] == [r["step"] for r in run.log_rows()] == [1, 2] and wrong == 14
    with pytest.warns(UserWarning, match=r"14 lines of .*log.jsonl"):
        run.rewind_log(1)
    assert run.read_log() == ([{"step": 1, "loss": 0.5}], 0)


def test_a_home_is_meant_by_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LAB_RESULTS", "~/x")
    assert Store().root == Store("~/x").root == doctor._root(None) == doctor._root("~/x") == tmp_path / "x"


# --- what a spreadsheet makes of it ---


@pytest.mark.parametrize("typed", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\uff1d1", "\t=1"])
def test_what_people_typed_leaves_as_text_in_a_csv(store: Store, typed: str):
    run = store.open(Recipe(student=DiTConfig(image_size=8)))
    run.set_notes(label=typed, notes=typed)
    row = next(csv.DictReader(io.StringIO(as_csv(store.table()))))
    assert (row["label"], row["notes"]) == (f"'{typed}", f"'{typed}") and row["lr"] == row["fd"] == ""
    assert as_csv(pd.DataFrame({"ms": [-1.5], "name": ["a"]})) == "ms,name\n-1.5,a\n"
    assert store.table()["label"].tolist() == [typed]  # nowhere else is it another text


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_a_line_within_a_cell_of_a_csv_begins_no_row(end: str):
    text = as_csv(pd.DataFrame({"label": [f"a{end}=1+1"], "n": [1]}))
    assert text == 'label,n\n"a\n=1+1",1\n'
