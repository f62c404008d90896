from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import jobs
from lab.config import Recipe
from lab.results import Run, Store, write_json

PYTHON = sys.executable  # which some tests put another program in the place of
HOLD = """
import fcntl, sys, time
lock = open(sys.argv[1], "a+")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Store(tmp_path).open(Recipe(steps=1000))
    status(run, "running", os.getpid())
    return run


def status(run: Run, state: str, pid: int) -> None:
    write_json(
        run.path / "status.json", {"state": state, "step": 100, "steps": 1000, "heartbeat": time.time(), "pid": pid}
    )


def write_log(run: Run, lines: list[str]) -> None:
    (run.path / "log.jsonl").write_text("\n".join(lines))


def row(step: int) -> str:
    return json.dumps({"step": step, "images": step * 64, "seconds": step * 0.1, "pairs/l1": 0.1})


def test_progress_is_the_log_s_not_the_minute_old_status_s(run: Run):
    write_log(run, [row(s) for s in range(50, 401, 50)])
    now = jobs.progress(run)
    assert (now.step, now.images, now.share) == (400, 25_600, 0.4)
    assert now.images_per_s == pytest.approx(640)
    assert now.eta_s == pytest.approx(60)


def test_a_speed_needs_two_lines(run: Run):
    write_log(run, [row(50)])
    assert jobs.progress(run).images_per_s is None
    assert jobs.progress(run).eta_s is None


def test_a_log_cut_off_or_spoilt_is_read_as_far_as_it_goes(run: Run):
    endless = '{"step": 1%s, "images": 1, "seconds": 1}' % ("0" * 400)
    spoilt = [endless, "7", "[]", '{"step": 1}', '{"step": NaN, "images": 1, "seconds": 1}']
    write_log(run, [*spoilt, row(50), row(100), row(150)[:20]])
    assert [r["step"] for r in jobs.tail(run.path / "log.jsonl")] == [50, 100]


def test_only_the_end_of_a_long_log_is_read(run: Run):
    write_log(run, [row(s) for s in range(10_000)])
    rows = jobs.tail(run.path / "log.jsonl")
    assert rows[-1]["step"] == 9_999 and 10 < len(rows) < 200


def test_a_run_without_log_has_no_progress_to_show(run: Run):
    assert jobs.progress(run).images == 0


def test_a_pid_that_does_not_hold_the_lock_is_not_the_run_s(run: Run):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (run.path / "lock").touch()
        status(run, "running", other.pid)
        assert jobs.process_of(run) is None
        with pytest.raises(LookupError, match="no process on this machine works on run"):
            jobs.stop(run)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("pid", [0, 1, -1, "12", None, 2**40])
def test_no_strange_pid_is_ever_asked(run: Run, pid: object):
    (run.path / "lock").touch()
    status(run, "running", pid)
    assert jobs.process_of(run) is None


def test_the_process_that_holds_the_lock_is_found_and_ends(run: Run):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path / "lock")], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        status(run, "running", holder.pid)
        assert jobs.stop(run) == holder.pid
        assert holder.wait(10) == -15
    finally:
        holder.kill()
        holder.wait()


def test_a_started_run_is_its_own_process_and_writes_where_the_run_lies(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\necho "$LAB_RESULTS $@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    status(run, "stopped", 0)
    pid = jobs.start(run)
    deadline = time.time() + 10
    while jobs.at_work(run.path / "process.log") == pid and time.time() < deadline:
        time.sleep(0.01)
    assert jobs.last_words(run) == f"{tmp_path.resolve()} -m lab run {run.path.resolve() / 'recipe.json'}"


@pytest.mark.parametrize("state", ["running", "done"])
def test_a_run_that_runs_or_is_done_is_not_started(run: Run, state: str):
    status(run, state, 0)
    with pytest.raises(ValueError, match=f"is {state}; only one that is queued"):
        jobs.start(run)


def test_a_killed_run_is_started_again_at_once(run: Run, monkeypatch: pytest.MonkeyPatch):
    (run.path / "lock").touch()
    asked = []
    monkeypatch.setattr(jobs, "process", lambda words, *_: asked.append(words) or subprocess.Popen(["true"]))
    jobs.start(run)
    assert asked == [["run", str(run.path.resolve() / "recipe.json")]]


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What is started does nothing for a minute."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(jobs, "_children", started := {})
    yield
    for child in started.values():
        child.kill()
        child.wait()


def test_a_process_that_still_loads_is_found_by_another_server_and_not_started_twice(
    run: Run, sleeper: None, monkeypatch: pytest.MonkeyPatch
):
    status(run, "stopped", 4242)
    pid, (child,) = jobs.start(run), jobs._children.values()
    monkeypatch.setattr(jobs, "_children", {})  # a server that began later
    assert jobs.at_work(run.path / "process.log") == jobs.process_of(run) == pid
    with pytest.raises(ValueError, match=f"is the work of process {pid}"):
        jobs.start(run)
    assert jobs.stop(run) == pid and child.wait(10) == -15
    assert jobs.process_of(run) is None


def test_a_process_that_has_said_how_it_ended_works_no_more(run: Run, sleeper: None):
    status(run, "stopped", 0)
    pid = jobs.start(run)
    assert jobs.process_of(run) == pid
    status(run, "stopped", pid)
    assert jobs.process_of(run) is None


def test_a_sweep_is_found_by_its_log_and_then_by_its_lock(sleeper: None, tmp_path: Path):
    record = tmp_path / "sweeps" / "some.json"
    pid = jobs.start_sweep(record, 2)
    assert jobs.process_of_sweep(record) == pid
    with pytest.raises(ValueError, match=f"sweep some is the work of process {pid}"):
        jobs.start_sweep(record, 2)
    record.with_suffix(".lock").write_text(str(pid))  # it has let go of it
    assert jobs.process_of_sweep(record) is None
    holder = subprocess.Popen([PYTHON, "-c", HOLD, str(record.with_suffix(".lock"))],
                              stdout=subprocess.PIPE)  # fmt: skip
    try:
        holder.stdout.readline()
        record.with_suffix(".lock").write_text(str(holder.pid))
        assert jobs.stop_sweep(record) == holder.pid and holder.wait(10) == -15
    finally:
        holder.kill()
        holder.wait()


def test_last_words_show_a_progress_bar_s_last_state(run: Run):
    (run.path / "process.log").write_bytes(b"one\n 10%\r 20%\r 30%\nlast\n\n")
    assert jobs.last_words(run) == "one\n 30%\nlast"
    assert jobs.last_words(run, 1) == "last"


def test_the_command_names_another_results_folder(run: Run):
    root = run.path.parent.parent
    assert jobs.command(run) == f"LAB_RESULTS={root} python -m lab run {run.path / 'recipe.json'}"
    home = Run(jobs.HERE / "results" / "runs" / "x-1")
    assert jobs.command(home) == "python -m lab run results/runs/x-1/recipe.json"


def test_every_line_that_is_the_lab_s_names_the_folder_and_no_other_line_does(tmp_path: Path):
    root = tmp_path / "my results"
    said = jobs.on(root, "python -m lab ls\npython benchmarks/measure.py\nunzip student.zip")
    named = f"LAB_RESULTS='{root}'"
    assert said == f"{named} python -m lab ls\n{named} python benchmarks/measure.py\nunzip student.zip"
    assert jobs.on(jobs.HERE / "results", "python -m lab ls") == "python -m lab ls"


def test_the_command_of_samples_names_the_file_that_is_looked_for(run: Run):
    assert jobs.sample_command(run) == jobs.command(run)  # there are no weights to draw with
    (run.path / "student.safetensors").touch()
    root = run.path.parent.parent
    said = f"LAB_RESULTS={root} python -m lab sample {run.id} --out {run.path}"
    assert jobs.sample_command(run) == f"{said}/samples.npz"


# --- other commands -----------------------------------------------------------------------------


def ended(log: Path) -> None:
    until = time.monotonic() + 240
    while jobs.at_work(log):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_command_works_on_the_given_folder_and_says_when_it_is_done(tmp_path: Path):
    log = tmp_path / "new" / "ls.log"
    jobs.begin(["ls"], log, tmp_path / "results")
    jobs.begin(["no-such-command"], log, tmp_path / "results")  # no change while it is at work
    ended(log)
    assert jobs.failed(log) is None and f"no run in {tmp_path / 'results'}" in log.read_text()


def test_what_a_command_failed_by_is_its_last_line(tmp_path: Path):
    log = tmp_path / "export.log"
    assert jobs.failed(log) is None and jobs.at_work(log) is None
    jobs.begin(["choose", "--precision", "int9"], log, tmp_path)
    ended(log)
    assert "unknown precision 'int9'" in jobs.failed(log)
