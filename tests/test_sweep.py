"""Sweeps: which recipes a file means, and that each is done once whatever happens to the others."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import TINY_DIT, TINY_STUDENT

from lab import cost, experiment, locks, sweep
from lab.cli import FAILED, OK, USAGE, main
from lab.cluster import OnRay, Orders, Sent, on_node, pack, unpack
from lab.config import Recipe, Use
from lab.results import Busy, Run, Store
from lab.sweep import Entry, Space, here, iso

ROOT = Path(__file__).parent.parent
# A denoiser needs no teacher: as little as a run can be.
BASE = Recipe(
    data="digits", student=dataclasses.replace(TINY_DIT, time=True), methods=(Use("denoise"),), steps=2, batch=8,
    optimizer="adamw",
)  # fmt: skip
DIVERGES = BASE.with_(lr=1e30, steps=40, warmup=0, clip=0)


class InProcess:
    """A place that does runs in this process, one at a time, and remembers which."""

    def __init__(self, store: Store, stop_after: int | None = None) -> None:
        self.store, self.at_once, self.did, self.stop_after = store, 1, [], stop_after

    def submit(self, entry: Entry, stages: list[Recipe]) -> Future[str]:
        self.did.append(entry.run)
        future: Future[str] = Future()
        try:
            experiment.run(entry.recipe, self.store, measure=False)
            future.set_result("")
        except Exception as error:
            future.set_result(str(error))
        if len(self.did) == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)
        return future

    def progress(self) -> float:
        return 0.0

    def stop(self) -> None:
        pass


def plain(recipe: Recipe) -> dict[str, Any]:
    return json.loads(recipe.to_json())


def of_list(*recipes: Recipe | dict[str, Any], name: str = "some") -> sweep.Sweep:
    return sweep.read(json.dumps([plain(r) if isinstance(r, Recipe) else r for r in recipes]), name)


def record(store: Store, name: str = "some") -> dict[str, Any]:
    return json.loads((store.root / "sweeps" / f"{name}.json").read_text())


# --- the space ----------------------------------------------------------------------------------


def test_a_grid_is_every_combination_and_its_last_axis_changes_fastest():
    space = Space(BASE, {"student.depth": [2, 4], "seed": [0, 1, 2]})
    found = space.grid()
    assert [(r.student.depth, r.seed) for r in found] == [(2, 0), (2, 1), (2, 2), (4, 0), (4, 1), (4, 2)]
    assert found[0] == BASE and len({r.id for r in found}) == 6


def test_axes_reach_options_of_a_method_and_objects_change_what_they_name():
    base = Recipe(teacher="t", pairs=300)
    space = Space(base, {"methods.pairs.l1": [0.5], "student": [{"depth": 3, "width": 32}]})
    (recipe,) = space.grid()
    assert recipe.methods == (Use("pairs", {"l1": 0.5}),)
    assert recipe.student == dataclasses.replace(base.student, depth=3, width=32)


@pytest.mark.parametrize(
    ("axis", "named"),
    [("sede", "seed"), ("student.dept", "depth"), ("methods.pair.l1", "pairs"), ("start.a.b", "student.depth")],
)
def test_an_axis_that_is_no_field_is_named(axis: str, named: str):
    with pytest.raises(ValueError, match=named):
        Space(Recipe(), {axis: [1]}).grid()


def test_a_sample_is_of_different_points_and_the_same_for_a_seed():
    space = Space(BASE, {"student.depth": list(range(1, 9)), "seed": list(range(10**7))})
    first, again, other = (space.sample(20, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len({r.id for r in first}) == 20
    assert len(Space(BASE, {"seed": [0, 1]}).sample(5)) == 2


def test_shapes_out_of_budget_are_dropped_before_anything_is_built(monkeypatch: pytest.MonkeyPatch):
    from lab import models

    monkeypatch.setattr(models, "build", lambda config: pytest.fail("a network was built"))
    space = Space(Recipe(), {"student.width": [64, 66, 4096], "student.depth": [4, 100_000]})
    (recipe,) = space.within(params_m=(0.3, 0.35), macs_m=20).grid()
    assert (recipe.student.width, recipe.student.depth) == (64, 4)
    assert not space.within(params_deployed_m=(0.3, 0.35)).grid()  # a third of them is gone there
    with pytest.raises(ValueError, match="params_m"):
        space.within(params=1)
    with pytest.raises(ValueError, match="least and the most"):
        space.within(params_m=(2, 1))


@pytest.mark.parametrize("budget", [100_000, 300_000, 1_000_000])
def test_shapes_of_a_budget_are_within_three_percent_of_it(budget: int):
    shapes = iso(budget, [1, 2, 3, 4, 6, 8, 12, 16, 24], heads=(4, 2))
    assert len(shapes) >= 8
    for shape in shapes:
        assert abs(cost.of_config(shape)["params"] - budget) <= 0.03 * budget and not shape.check()
        assert shape.width % 8 == 0 and shape.width % shape.heads == 0 and shape.width // shape.heads >= 8
        assert shape.hidden % 8 == 0 and 2 * shape.width <= shape.hidden <= 6 * shape.width
    assert shapes == iso(budget, [1, 2, 3, 4, 6, 8, 12, 16, 24], heads=(4, 2))


def test_a_shape_of_a_budget_is_that_nearest_the_usual_ratio():
    assert [(s.width, s.hidden) for s in iso(300_000, [2, 4, 12])] == [(88, 352), (64, 240), (40, 104)]
    assert iso(300_000, [2])[0].mlp_hidden is None  # as the committed one is written
    assert iso(100_000, [16]) == []


# --- the file -----------------------------------------------------------------------------------


def test_a_space_in_a_file_is_its_grid_with_what_was_dropped():
    text = {"base": plain(BASE), "axes": {"student.depth": [2, 900], "seed": [0, 1]}, "within": {"params_m": 0.1}}
    found = sweep.read(json.dumps(text), "grid")
    assert [e.at for e in found.entries] == [{"student.depth": 2, "seed": 0}, {"student.depth": 2, "seed": 1}]
    assert [d["at"]["student.depth"] for d in found.dropped] == [900, 900]
    unseeded, seeded = (
        sweep.read(json.dumps(text | {"sample": {"n": 1} | seed}), "drawn") for seed in ({}, {"seed": 0})
    )
    assert [e.at for e in unseeded.entries] == [e.at for e in seeded.entries] and unseeded.total == 1
    sampled = sweep.read(json.dumps(text | {"sample": {"n": 1, "seed": 3}}), "drawn")
    assert sampled.total == 1 and sampled.entries[0].at["student.depth"] == 2


@pytest.mark.parametrize(("plain_text", "said"), [
    ("[]", "sweep f has no recipe"),
    (json.dumps({"base": {}, "axes": {"seed": [4, 5]}, "within": {"params_m": 1e-6}}),
     r"every point of sweep f is out of budget \(2\); of seed=4, params_m is \S+, wanted is 0 to 1e-06"),
])  # fmt: skip
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_sweep_of_nothing_says_why(store: Store, tmp_path: Path, capsys, plain_text: str, said: str, more: list[str]):
    file = tmp_path / "f.json"
    file.write_text(plain_text)
    assert main(["sweep", str(file), "--results", str(store.root), *more]) == USAGE
    assert re.search(said, capsys.readouterr().err.replace("\n", " "))


def test_shapes_of_budgets_in_a_file_are_an_axis():
    text = {"base": plain(Recipe()), "iso": {"params_m": [0.1, 0.3], "depths": [4, 6]}, "axes": {"seed": [0, 1]}}
    found = sweep.read(json.dumps(text), "iso")
    assert [(e.recipe.student.depth, e.recipe.seed) for e in found.entries] == [(d, s) for d in (4, 6, 4, 6)
                                                                                for s in (0, 1)]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "JSON"), ("3", "list of recipes"), ('{"axes": {}}', "base"), ('{"base": {}, "axs": {}}', "axes"),
     ('{"base": {}, "axes": {"seed": []}}', "at least one"), ('{"base": {}, "axes": {"sed": [1]}}', "seed"),
     ('{"base": {}, "axes": {"seed": 1}}', "axis seed must be a list of at least one value, got 1"),
     ('{"base": {}, "axes": {"seed": [1], "methods.pair.l1": [1]}}', "axis methods.pair.l1: unknown method"),
     ('{"base": {}, "within": {"self": 1}}', "unknown limit 'self'"),
     (f'{{"base": {{}}, "axes": {{"seed": {[*range(999)]}, "steps": {[*range(999)]}}}}}', "the axes have 998,001"),
     ('{"base": {}, "axes": {"seed": [1]}, "sample": {}}', "sample.n must be a whole number from 1 to"),
     *((f'{{"base": {{}}, "{how}": {{"{count}": {value}}}}}', f"{how}.{count} must be a whole number from 1 to 10,000")
       for how, count in (("sample", "n"), ("search", "trials"))
       for value in ("0", "-1", "1.0", '"1"', "null", "true", "[1]", "1" + 30 * "0")),
     *((f'{{"base": {{}}, "search": {{"trials": 1, "seed": {value}}}}}', "search.seed must be a whole number from 0")
       for value in ("-1", "0.5", "null", "4294967296")),
     *((f'{{"base": {{}}, "search": {{"trials": 1, "device": {value}}}}}', "search.device must be the name")
       for value in ("5", '["orin"]', "false")),
     ('{"base": {}, "axes": {"seed": [NaN]}}', "it holds NaN, which is no finite number"),
     ('[{"recipe": {}, "label": "\\ud800"}]', "it holds half a character"),
     ('{"base": {}, "sample": {"n": 1}, "search": {"trials": 1}}', "either"),
     ('{"base": {}, "iso": {"depths": [1]}}', "params_m"),
     ('{"base": {}, "iso": {"params_m": 0.0001, "depths": [2, 4]}}', "no shape of depths"),
     ('{"base": {}, "iso": {"params_m": 0.1, "depths": [4]}, "axes": {"student.depth": [2]}}', "and so does the axis"),
     *((f'{{"base": {{}}, "iso": {{"params_m": {value}, "depths": [1]}}}}', "iso.params_m must be millions")
       for value in ('"0.3"', "null", "0", "-1", "true", "1e300", "[0.1, {}]")),
     *((f'{{"base": {{}}, "iso": {{"params_m": 0.1, "depths": [4], "heads": {value}}}}}', "iso.heads must be whole")
       for value in ("0", "-4", '"2"', "[4, 0]", "2.0", "null", "1e9")),
     *((f'{{"base": {{}}, "iso": {{"params_m": 0.1, "depths": {value}}}}}', "iso.depths must be whole")
       for value in ('"2"', "[2, null]", "-1", "true", "100000")),
     *((f'{{"base": {{}}, "within": {{"params_m": {value}}}}}', "params_m must be the most")
       for value in ("null", '"1"', "{}", "true", "[1]", "[null, 1]", "[2, 1]", "1" + 400 * "0")),
     ("[" * 100_000, "nested too deeply"), ('{"base":' * 100_000, "nested too deeply")],
)  # fmt: skip
def test_a_file_that_is_no_sweep_is_refused_in_a_sentence(text: str, said: str):
    with pytest.raises(ValueError, match=said):
        sweep.read(text, "some")


BROAD = {"base": plain(BASE), "axes": {"student.width": [16, 4 * 10**17], "student.block": ["time"]},
         "within": {"params_m": 1}}  # fmt: skip


@pytest.mark.parametrize(("asked", "good", "said"), [
    ({"student.depth": ["x", 2, 3]}, 2, "dit.depth must be a whole number, got 'x'"),
    ({"seed": [1, "x", {"a": 1}, None]}, 1, "recipe.seed must be a whole number, got 'x'"),
    ({"student": [None, {"depth": 3}], "student.depth": [1, 2]}, 2, "recipe.student must be a JSON object"),
    ({"student.depth": [1, 2], "student": [{"family": "unet"}, {"width": 32}]}, 2, "unknown field 'depth'"),
    ({"methods.denoise.x": [1], "methods": [["denoise"], 5, [{"x": 1}]]}, 1, "unknown field of recipe.methods"),
    ({"methods": ["denoise", ["denoise"]]}, 1, "recipe.methods must be a list, got 'denoise'"),
    (BROAD, 1, "a network of shape d2w400000000000000000h2p4time can't be counted"),
])  # fmt: skip
@pytest.mark.parametrize("how", ["grid", "sample"])
def test_a_point_that_is_no_recipe_stops_no_other_wherever_it_stands(asked: Any, good: int, said: str, how: str):
    text = asked if asked is BROAD else {"base": plain(BASE), "axes": asked}
    found = sweep.read(json.dumps(text | ({"sample": {"n": 9}} if how == "sample" else {})), "some")
    assert [entry.state for entry in found.entries].count("queued") == good and not found.dropped
    assert any(said in entry.why for entry in found.entries if entry.state == "refused")
    assert all((entry.recipe is None) == bool(entry.why) and entry.at for entry in found.entries)


def test_an_axis_of_whole_students_and_one_of_their_fields_may_stand_in_any_order():
    axes = {"student.depth": [1, 2], "student": [{"width": 32}, {"width": 64}]}
    for names in (axes, reversed(axes)):
        found = Space(BASE, {name: axes[name] for name in names}).grid()
        assert sorted((r.student.depth, r.student.width) for r in found) == [(1, 32), (1, 64), (2, 32), (2, 64)]


def test_what_is_wrong_with_a_file_is_told_with_its_name(store: Store, tmp_path: Path, capsys):
    file = tmp_path / "mine.json"
    file.write_text('{"base": {}, "axes": {"seed": 1}}')
    assert main(["sweep", str(file), "--results", str(store.root), "--dry-run"]) == USAGE
    assert f"{file}: axis seed must be a list of at least one value, got 1\n" in capsys.readouterr().err


# --- doing it -----------------------------------------------------------------------------------


def test_one_that_cannot_be_or_fails_stops_no_other(store: Store):
    bad = [{"recipe": {"stepps": 1}, "label": "typing"}, BASE.with_(batch=0), DIVERGES]
    found = of_list(*bad, BASE)
    assert sweep.carry_out(found, store, InProcess(store))
    assert [e.state for e in found.entries] == ["refused", "refused", "failed", "done"]
    for entry, said in zip(found.entries, ["stepps", "batch must be", "loss is"]):
        assert said in entry.why
    rows = record(store)["runs"]
    assert [r["state"] for r in rows] == ["refused", "refused", "failed", "done"]
    assert rows[3]["run"] == found.entries[3].run and Run(store.root / "runs" / rows[3]["run"]).said().state == "done"


def test_finished_runs_are_skipped_and_the_failed_tried_again(store: Store):
    place = InProcess(store)
    sweep.carry_out(of_list(BASE, DIVERGES), store, place)
    again = InProcess(store)
    found = of_list(BASE, BASE.with_(seed=1), DIVERGES)
    sweep.carry_out(found, store, again)
    assert again.did == [found.entries[1].run, found.entries[2].run]
    assert [e.state for e in found.entries] == ["done", "done", "failed"]


def test_an_entry_may_name_the_run_of_an_earlier_one(store: Store):
    first = experiment.resolve(BASE, store)
    later = BASE.with_(start=(first.id,), seed=5)
    found = of_list(BASE, later)
    sweep.carry_out(found, store, InProcess(store))
    assert [e.state for e in found.entries] == ["done", "done"]


def test_label_and_notes_are_written_where_nobody_has_said_anything(store: Store):
    told = {"recipe": plain(BASE), "label": "tiny", "notes": "of a sweep"}
    sweep.carry_out(of_list(told), store, InProcess(store))
    (run,) = store.runs()
    assert (run.label, run.notes["notes"]) == ("tiny", "of a sweep")
    run.set_notes(label="mine")
    sweep.carry_out(of_list(told), store, InProcess(store))
    assert run.label == "mine"


def test_notes_that_can_not_be_read_stop_no_other_and_are_told(store: Store):
    first, second = ({"recipe": plain(BASE.with_(seed=seed)), "label": f"tiny {seed}"} for seed in (0, 1))
    run = store.open(experiment.resolve(BASE.with_(seed=0), store))
    (run.path / "notes.json").write_text("<<<<<<< HEAD")
    found = of_list(first, second)
    assert sweep.carry_out(found, store, InProcess(store))
    assert [e.state for e in found.entries] == ["done", "done"] and not found.entries[1].why
    assert "notes.json can't be read" in found.entries[0].why


def test_an_interrupt_keeps_what_is_finished_and_the_same_sweep_goes_on(store: Store):
    before = signal.getsignal(signal.SIGINT)  # of a shell's background job it is ignored
    recipes = [BASE.with_(seed=seed) for seed in range(3)]
    found = of_list(*recipes)
    assert not sweep.carry_out(found, store, InProcess(store, stop_after=1))
    assert [r["state"] for r in record(store)["runs"]] == ["done", "queued", "queued"]
    place = InProcess(store)
    assert sweep.carry_out(of_list(*recipes), store, place) and len(place.did) == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_the_record_of_a_sweep_is_a_sweep_that_goes_on(store: Store):
    recipes = [BASE.with_(seed=seed) for seed in range(2)]
    sweep.carry_out(of_list(recipes[0]), store, InProcess(store))
    found = of_list(*recipes)
    found.write(store)
    again = sweep.read((store.root / "sweeps" / "some.json").read_text(), "some")
    assert again.asked == found.asked
    place = InProcess(store)
    assert sweep.carry_out(again, store, place) and len(place.did) == 1


@pytest.mark.parametrize("asked", [
    [plain(BASE.with_(seed=5))], {"base": plain(BASE.with_(seed=5))},
    {"base": plain(BASE.with_(seed=5)), "axes": {"student.depth": [2]}, "search": {"trials": 1}},
])  # fmt: skip
def test_a_record_is_never_written_over_by_another_file(store: Store, tmp_path: Path, capsys, asked: Any):
    sweep.carry_out(of_list(BASE), store, place := InProcess(store))
    path = store.root / "sweeps" / "some.json"
    before = path.read_text()
    with pytest.raises(ValueError, match=r"some\.json lists the runs of another file, .*; --name gives"):
        sweep.carry_out(sweep.read(json.dumps(asked), "some"), store, place)
    file = tmp_path / "some.json"
    file.write_text(json.dumps(asked))
    for more in ([], ["--dry-run"]):
        assert main(["sweep", str(file), "--results", str(store.root), *more]) == USAGE
        assert "--name" in capsys.readouterr().err
    assert path.read_text() == before and len(place.did) == 1
    assert sweep.carry_out(of_list(BASE, BASE.with_(seed=5)), store, place)  # one recipe more: the file goes on
    for spoiled in ("<<<<<<< HEAD", '{"asked": []}'):
        path.write_text(spoiled)
        with pytest.raises(ValueError, match=r"some\.json can't be read, .*; mend it or move it away"):
            sweep.carry_out(of_list(BASE), store, place)
        assert path.read_text() == spoiled and len(place.did) == 2


def test_a_sweep_is_done_by_one_process_at_a_time(store: Store):
    found, place = of_list(BASE), InProcess(store)
    lock = store.root / "sweeps" / "some.lock"
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as held:
        locks.take(held)
        print(4242, end="", file=held, flush=True)
        with pytest.raises(Busy, match="sweep some is the work of process 4242"):
            sweep.carry_out(found, store, place)
    assert not place.did and sweep.carry_out(found, store, place)
    assert lock.read_text() == str(os.getpid())


def test_a_search_looks_at_three_things_and_goes_on_from_its_file(store: Store, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("optuna")
    distance = {1: 3.0, 2: 2.0, 3: 2.5}
    monkeypatch.setattr(Run, "read", _with_distance(Run.read, distance))
    text = {"base": plain(BASE), "axes": {"student.depth": [1, 2, 3, 900]}, "within": {"params_m": 0.1}}
    first = sweep.read(json.dumps(text | {"search": {"trials": 4, "seed": 0}}), "found")
    assert sweep.carry_out(first, store, InProcess(store))
    assert len(first.entries) == 4 and all(e.recipe.student.depth < 900 for e in first.entries)
    more = sweep.read(json.dumps(text | {"search": {"trials": 12, "seed": 0}}), "found")
    assert sweep.carry_out(more, store, InProcess(store))
    assert len(more.entries) == 8
    spoilt = text | {"axes": {"student.depth": [1, "x"]}, "search": {"trials": 6, "seed": 0}}
    last = sweep.read(json.dumps(spoilt), "found")
    assert sweep.carry_out(last, store, InProcess(store))
    assert {e.state for e in last.entries} == {"done", "refused"} and len(last.entries) == 6
    front = {Run(store.root / "runs" / r).recipe.student.depth for r in record(store, "found")["front"]}
    assert front <= {1, 2} and front  # three blocks are dearer than two, and worse
    fd, params, macs = more.search.values(store.root, more.entries[0])
    assert fd in distance.values() and {"params": params, "macs": macs} == cost.of_config(
        more.entries[0].recipe.student
    )


def _with_distance(read: Any, distance: dict[int, float]) -> Any:
    def found(run: Run, name: str) -> Any:
        return (
            {
                "values": {"fd": {"value": distance[run.recipe.student.depth]}},
                "weights_sha256": read(run, "student")["weights_sha256"],
            }
            if name == "metrics"
            else read(run, name)
        )

    return found


# --- processes ----------------------------------------------------------------------------------


def test_a_sweep_runs_processes_and_tells_what_went_wrong(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "two.json"
    told = [{"recipe": plain(BASE), "label": "tiny"}, plain(DIVERGES), {"steps": "many"}]
    file.write_text(json.dumps(told))
    words = ["sweep", str(file), "--results", str(store.root), "--no-measure", "--threads", "1"]
    assert main([*words, "--dry-run", "--json"]) == FAILED
    assert [r["state"] for r in json.loads(capsys.readouterr().out)] == ["queued", "queued", "refused"]
    assert not store.runs()
    assert main([*words, "--json"]) == FAILED
    said = json.loads(capsys.readouterr().out)
    assert said["states"] == {"done": 1, "failed": 1, "refused": 1}
    assert "loss is" in said["runs"][1]["why"] and "steps" in said["runs"][2]["why"]
    assert store.get("tiny").said().state == "done"
    file.write_text(json.dumps(told[:1]))
    assert main(words) == OK


def test_a_run_that_another_process_does_is_waited_for_and_not_done_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(here, "LOOK_S", 0.01)
    recipe = experiment.resolve(BASE, store)
    run = store.open(recipe)
    with run.working():
        run.set_status(state="running")
        place = here.Here(store)
        future = place.submit(Entry(BASE), [recipe])
        assert not concurrent.futures.wait([future], 0.3).done
        run.set_status(state="done")
    assert future.result(60) == "" and not (run.path / "log.jsonl").exists()
    assert f"run {run.id} is the work of process {os.getpid()}; waiting for it" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)  # processes that each load torch
def test_ctrl_c_has_the_run_save_its_state_and_the_same_command_goes_on(store: Store, tmp_path: Path):
    long = BASE.with_(steps=3000, seed=1)
    file = tmp_path / "long.json"
    file.write_text(json.dumps([plain(BASE), plain(long), plain(BASE.with_(seed=2))]))
    words = [sys.executable, "-m", "lab", "sweep", str(file), "--results", str(store.root), "--no-measure",
             "--threads", "1"]  # fmt: skip
    run = Run(store.root / "runs" / experiment.resolve(long, store).id)
    child = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        until = time.monotonic() + 400
        while not (run.said().state == "running" and (run.path / "log.jsonl").exists()):
            assert time.monotonic() < until and child.poll() is None
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)  # to the sweep alone, which hands it on
        assert child.wait(200) == FAILED
    finally:
        child.kill()
    assert "goes on" in child.stderr.read()
    assert run.status().state == "stopped" and 0 < run.status().step < 3000 and (run.path / "state.pt").exists()
    assert [r["state"] for r in record(store, "long")["runs"]] == ["done", "stopped", "queued"]
    assert subprocess.run(words, cwd=ROOT, capture_output=True).returncode == OK
    assert [r["state"] for r in record(store, "long")["runs"]] == ["done"] * 3
    assert len(run.read("env")["sittings"]) == 2


# --- what travels -------------------------------------------------------------------------------


def test_a_packed_run_arrives_whole_in_place_of_an_unfinished_one(store: Store, tmp_path: Path):
    run = experiment.run(BASE, store, measure=False)
    (run.path / "snapshots" / "9.tmp").write_text("half")
    packed = pack([run.path])
    there = Store(tmp_path / "there")
    begun = there.open(run.recipe)
    (begun.path / "old.txt").write_text("from an earlier sitting")
    assert unpack(packed, there.root / "runs") == [run.id]
    assert sorted(p.name for p in (there.root / "runs").iterdir()) == [run.id]
    assert begun.said().state == "done" and not (begun.path / "old.txt").exists()
    same = {p.relative_to(run.path) for p in run.path.rglob("*") if p.is_file()} - {
        Path("lock"),
        Path("snapshots/9.tmp"),
    }
    assert {p.relative_to(begun.path) for p in begun.path.rglob("*") if p.is_file()} == same
    (begun.path / "notes.json").write_text('{"label": "kept"}')
    unpack(packed, there.root / "runs")  # finished is finished
    assert begun.label == "kept"


@pytest.mark.parametrize(
    "name", ["../out", "/etc/passwd", "run/../../out", "file", "RUN/file", "run/..\\out", "run/link"]
)
def test_nothing_of_a_parcel_with_a_strange_name_or_a_link_is_taken(name: str, tmp_path: Path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        good = tarfile.TarInfo("run/recipe.json")
        tar.addfile(good, io.BytesIO())
        bad = tarfile.TarInfo(name)
        bad.type, bad.linkname = (tarfile.SYMTYPE, "/etc/passwd") if name.endswith("link") else (tarfile.REGTYPE, "")
        tar.addfile(bad, io.BytesIO())
    with pytest.raises(ValueError, match="no plain file"):
        unpack(buffer.getvalue(), tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir()) and not (tmp_path / "out").exists()


def test_a_run_on_a_node_finds_its_teacher_its_pairs_and_the_run_that_it_begins_with(
    taught: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # caches of the node
    first = experiment.resolve(TINY_STUDENT, taught)
    teacher = pack([taught.get("tiny").path])
    orders = Orders(measure=False, shared=str(taught.root), commit="0123")
    sent = on_node(first.to_json(), orders, teacher)
    assert (sent.state, sent.why) == ("done", "")
    second = dataclasses.replace(first, start=(first.id,), steps=4)
    later = on_node(second.to_json(), orders, teacher, sent)
    assert (later.state, later.why) == ("done", "")
    assert unpack(later.packed, taught.root / "runs") == [second.id]
    lost = on_node(second.to_json(), orders, teacher, Sent("failed", "it was too hot", b""))
    assert lost.state == "failed" and "too hot" in lost.why and not lost.packed
    with pytest.raises(LookupError, match="pairs"):
        on_node(first.to_json(), dataclasses.replace(orders, shared="/nowhere"), teacher)


class AsRay:
    """What the lab asks of Ray, done at once in this process."""

    def __init__(self) -> None:
        self.tasks: list[str] = []  # ids of the runs that were sent
        self.put = lambda value: value

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **resources: float) -> Callable[[Any], Any]:
        assert resources["num_cpus"] == 1 and resources["max_retries"] > 0
        return lambda function: SimpleNamespace(remote=lambda *args: self._do(function, args))

    def _do(self, function: Any, args: tuple[Any, ...]) -> Any:
        self.tasks.append(Recipe.from_json(args[0]).id)
        future: Future[Sent] = Future()
        future.set_result(function(*(a.future().result() if hasattr(a, "future") else a for a in args)))
        return SimpleNamespace(future=lambda: future)


def test_two_entries_that_share_an_earlier_run_have_it_made_once(
    taught: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", as_ray := AsRay())
    uses = [(Use("pairs"), Use("teaching_assistant", {"depth": 3, "width": 16, "output": w})) for w in (0.5, 1.0)]
    found = of_list(*(TINY_STUDENT.with_(methods=methods, steps=4) for methods in uses), DIVERGES)
    place = OnRay(taught, orders=Orders(measure=False, shared=str(taught.root)))
    assert sweep.carry_out(found, taught, place)
    assert [e.state for e in found.entries] == ["done", "done", "failed"], [e.why for e in found.entries]
    assert found.entries[0].stages[0] == found.entries[1].stages[0]
    assert len(as_ray.tasks) == len(set(as_ray.tasks)) == 4
    assert all(Run(taught.root / "runs" / i).said().state == "done" for e in found.entries[:2] for i in e.stages)
    again = of_list(*(e.recipe for e in found.entries[:2]))
    assert sweep.carry_out(again, taught, place) and len(as_ray.tasks) == 4


def ports() -> dict[str, int]:
    """Ports for a node's agents: where Ray has to wait for those they choose, a slow machine does not start in time."""
    names = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    with contextlib.ExitStack() as open_now:
        sockets = [open_now.enter_context(socket.socket()) for _ in names]
        for one in sockets:
            one.bind(("", 0))
        return {name: one.getsockname()[1] for name, one in zip(names, sockets)}


@pytest.fixture
def cluster():
    """A head without CPUs and two nodes with one each."""
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **ports()})
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)  # processes that each load torch
def test_runs_on_a_cluster_come_back_whole_though_a_node_dies(cluster: Any, taught: Store, capsys: Any):
    nodes = [cluster.add_node(num_cpus=1, **ports()) for _ in range(2)]
    cluster.wait_for_nodes()
    shutil.copytree(taught.root / "pairs", taught.root.parent / "shared" / "pairs")
    orders = Orders(measure=False, compile=False, shared=str(taught.root.parent / "shared"))
    place = OnRay(taught, address=cluster.address, orders=orders)
    found = of_list(*(TINY_STUDENT.with_(seed=seed, steps=300) for seed in range(8)), DIVERGES, {"steps": []})
    killed = []

    def kill_one(entry: Entry) -> None:
        if entry.state == "done" and not killed:
            killed.append(nodes[0])
            cluster.remove_node(nodes[0], allow_graceful=False)

    try:
        assert sweep.carry_out(found, taught, place, ended=kill_one)
    finally:
        place.close()
    assert killed
    assert [e.state for e in found.entries] == ["done"] * 8 + ["failed", "refused"], [e.why for e in found.entries]
    assert "loss is" in found.entries[8].why
    for entry in found.entries[:8]:
        run = Run(taught.root / "runs" / entry.run)
        assert run.recipe.id == run.id and run.read("student") and (run.path / "samples.npz").exists()
        assert all(s["commit"] for s in run.read("env")["sittings"])
    here = experiment.run(TINY_STUDENT.with_(seed=0, steps=300), Store(taught.root.parent / "taught"), measure=False)
    assert here.id == found.entries[0].run
