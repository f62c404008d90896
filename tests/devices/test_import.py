"""Reports from elsewhere: a good one is kept and graded, anything else is one sentence and changes nothing."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conftest
import pytest

from lab.choose import Budget, timings
from lab.cli import FAILED, OK, USAGE, main
from lab.config import config_to_json
from lab.devices import incoming
from lab.results import Store

REPORT: dict[str, Any] = {
    "schema": "device_report.v1", "report_id": "9bffdd2f-onnxruntime-b1", "created_utc": "2026-10-23T18:00:00+00:00",
    "provenance": "measured",
    "runner": {"name": "edge-dit-lab", "version": "1.0", "sha256": "ab", "preset": "publishable"},
    "device": {"family": "jetson", "name": "NVIDIA Jetson Orin Nano Developer Kit", "memory_mb": 7620},
    "software": {"os": "Ubuntu 22.04.5 LTS", "runtime": "onnxruntime", "runtime_version": "1.23", "flags": ["fan=pwm"]},
    "state": {"power_mode": "MAXN_SUPER", "clocks_locked": True, "swap_mb": 0, "throttled": False, "threads": 6,
              "temp_c": {"min": -1.5, "mean": 50.0, "max": 52.0}},
    "model": {"model_id": "a-run", "config": {"depth": 4}, "weights_sha256": "cd", "params": 10, "precision": "fp32"},
    "workload": {"scope": "core", "batch": 1, "height": 28, "width": 28, "nfe": 1},
    "timing": {"unit": "ms", "clock": "wall_sync", "warmup_iters": 50, "iters": 180_000, "sessions": 3,
               "duration_s": 180.0, "p50": 1.0, "p50_ci95": [0.9, 1.1], "p90": 1.2, "p99": 1.5, "min": 0.8,
               "mean": 1.0, "std": 0.02, "cv": 0.02, "drift": -0.01, "samples_ns": None},
    "checks": {"output_ok": True},
}  # fmt: skip
changed = functools.partial(conftest.changed, REPORT)


# Every time of three sessions, and the figures that they have.
SINGLE_TIMES = [round(50_000_000 * (0.98 + 0.04 * (k * 389 % 1201) / 1200)) for k in range(3603)]
WITH_TIMES = {f"timing__{name}": value for name, value in {
    "iters": 3603, "duration_s": 180.15, "p50": 50.0, "p50_ci95": [49.9, 50.1], "p90": 50.8, "p99": 50.98,
    "min": 49.0, "mean": 50.0, "std": 0.577831, "cv": 0.01156,
    "samples_ns": SINGLE_TIMES}.items()}  # fmt: skip


def text(**changes: Any) -> bytes:
    return json.dumps(changed(**changes)).encode()


def with_(old: str, new: str) -> bytes:
    """REPORT's JSON with one piece of text exchanged."""
    whole = json.dumps(REPORT)
    assert whole.count(old) == 1
    return whole.replace(old, new).encode()


def written(folder: Path, content: bytes, name: str = "from-a-board.json") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def everything(root: Path) -> dict[str, Any]:
    """Every file of a folder by its bytes, and every folder and file by its time of change."""
    return {
        str(p): (p.lstat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "")
        for p in sorted([root, *root.rglob("*")])
    }


@pytest.fixture
def used(store: Store) -> Store:
    """A results folder with one report in it."""
    store.add_report(changed(report_id="was-there-before", provenance="imported"))
    return store


# --- what may come in ---


def test_a_report_from_a_board_is_kept_as_imported_with_its_grade(used: Store, tmp_path: Path) -> None:
    (found,) = incoming.import_reports([written(tmp_path, text(**WITH_TIMES))], used)
    assert found.new and found.left_out is None and found.run is None
    row = used.reports().set_index("report_id").loc[REPORT["report_id"]]
    assert (row["provenance"], row["grade"], row["timing.p50"]) == ("imported", "A", 50.0)
    assert row["timing.drift"] == -0.01 == found.report["timing"]["drift"]


@pytest.mark.parametrize("few", [{"timing__samples_ns": None}, {"timing__samples_ns": SINGLE_TIMES[:900]}])
def test_a_report_whose_figures_nobody_can_compute_anew_is_kept_as_a_c_at_best(
    few: dict[str, Any], used: Store, tmp_path: Path
) -> None:
    files = [written(tmp_path, text(**WITH_TIMES | few))]
    (found,) = incoming.import_reports(files, used)
    assert found.grade.letter == "C" and "too few of its single times" in str(found.grade)
    row = used.reports().set_index("report_id").loc[REPORT["report_id"]]
    assert (row["grade"], row["grade_reasons"]) == ("C", ("drift is unknown",))  # the table is without single times
    (again,) = incoming.import_reports(files, used)
    assert not again.new and again.grade == found.grade


def test_the_same_report_twice_is_no_change(used: Store, tmp_path: Path) -> None:
    file = written(tmp_path, text())
    incoming.import_reports([file], used)
    before = everything(used.root)
    (found,) = incoming.import_reports([file], used)
    assert not found.new and everything(used.root) == before


def test_a_report_that_was_measured_here_is_known_again(used: Store, tmp_path: Path) -> None:
    used.add_report(REPORT)
    (found,) = incoming.import_reports([used.root / "devices" / f"{REPORT['report_id']}.json"], used)
    assert not found.new and set(used.reports()["provenance"]) == {"measured", "imported"}


def test_files_in_memory_come_in_by_the_same_rules(used: Store) -> None:
    good, bad = ("a.json", text()), ("b.json", b"{")
    before = everything(used.root)
    with pytest.raises(ValueError, match=r"b\.json is not JSON.*\nnone of the 2 files was stored"):
        incoming.import_contents([good, bad], used)
    assert everything(used.root) == before
    assert [found.new for found in incoming.import_contents([good], used)] == [True]
    assert [found.new for found in incoming.import_contents([good, good], used)] == [False, False]


def test_two_files_of_one_report_are_kept_once(used: Store, tmp_path: Path) -> None:
    files = [written(tmp_path, text(), f"{i}.json") for i in range(2)]
    assert [found.new for found in incoming.import_reports(files, used)] == [True, False]


def test_a_dry_run_keeps_nothing(used: Store, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    before = everything(used.root)
    file = str(written(tmp_path, text()))
    assert main(["import", file, "--results", str(used.root), "--dry-run"]) == OK
    assert "would be kept" in capsys.readouterr().out and everything(used.root) == before


def test_a_login_shell_among_the_busy_processes_is_no_formula(used: Store, tmp_path: Path) -> None:
    (found,) = incoming.import_reports([written(tmp_path, text(state__top_processes=["-bash", "python3"]))], used)
    assert found.new


@pytest.mark.parametrize(("provenance", "letter"), [("published", "E"), ("estimated", "F")])
def test_what_was_not_measured_does_not_become_so_by_importing(
    provenance: str, letter: str, used: Store, tmp_path: Path
) -> None:
    file = written(tmp_path, text(provenance=provenance, source={"citation": "M\u00fcller et al., 2026"}))
    (found,) = incoming.import_reports([file], used)
    assert found.grade.letter == letter and found.left_out
    assert set(used.reports()["provenance"]) == {provenance, "imported"}


def test_a_report_joins_the_run_with_its_weights(used: Store, tmp_path: Path) -> None:
    from lab.config import Recipe

    run = used.open(Recipe())
    run.write("student", conftest.student_facts(run.recipe.student, weights_sha256="cd"))
    run.set_notes(label="small one")
    (found,) = incoming.import_reports([written(tmp_path, text())], used)
    assert found.run == "small one"


def test_a_report_of_another_network_than_its_weights_are_of_is_refused(used: Store, tmp_path: Path) -> None:
    from lab.config import Recipe

    run = used.open(Recipe())
    net = run.recipe.student
    run.write("student", conftest.student_facts(net, weights_sha256="cd"))
    told = config_to_json(net) | {"depth": 8, "width": 256}
    before = everything(used.root)
    with pytest.raises(ValueError, match=f"{run.label}, and model.config says depth '8', not {net.depth}, width '256'"):
        incoming.import_reports([written(tmp_path, text(model__config=told))], used)
    assert everything(used.root) == before


DOUBTFUL = {
    "throttled": ({"state__throttled": True}, "the device was throttled"),
    "swapping": ({"state__swap_mb": 64.0}, "64 MB of swap were in use"),
    "wrong output": ({"checks__output_ok": False}, "the output is wrong"),
    "unknown mode": ({"state__power_mode": None}, "a jetson has several"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_doubtful_report_is_kept_graded_down_and_left_out_of_recommendations(
    name: str, used: Store, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    changes, words = DOUBTFUL[name]
    budget = Budget(device=f"{REPORT['device']['name']}, {REPORT['state']['power_mode']}", threads=6)
    faster = {"report_id": "the-doubtful-one", "timing__p50": 0.95, "timing__samples_ns": None}
    file = written(tmp_path, text(**faster, **changes))
    assert main(["import", str(file), "--results", str(used.root), "--json"]) == OK
    (row,) = json.loads(capsys.readouterr().out)
    assert row["grade"] == "D" and row["left_out"] and words in "; ".join(row["reasons"])
    reports = used.reports()
    assert set(reports["report_id"]) == {"was-there-before", "the-doubtful-one"}
    assert set(timings(reports, budget)["report_id"]) == {"was-there-before"}


def test_a_report_that_only_varies_is_graded_down_and_may_be_used_where_there_is_no_better(
    used: Store, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shaky = {"report_id": "the-shaky-one", "timing__p50": 0.95, "timing__samples_ns": None,
             "timing__cv": 0.2, "timing__std": 0.2}  # fmt: skip
    assert main(["import", str(written(tmp_path, text(**shaky))), "--results", str(used.root), "--json"]) == OK
    (row,) = json.loads(capsys.readouterr().out)
    assert row["grade"] == "D" and not row["left_out"] and row["reasons"] == ["the times vary by 20.0% (CV), above 10%"]
    budget = Budget(device=f"{REPORT['device']['name']}, {REPORT['state']['power_mode']}", threads=6)
    reports = used.reports()
    assert set(timings(reports, budget)["report_id"]) == {"was-there-before"}
    alone = reports[reports["report_id"] == "the-shaky-one"]
    assert set(timings(alone, budget)["report_id"]) == {"the-shaky-one"}


# --- what may not ---

ESCAPE = "\x1b]0;owned\x07\x1b[31m"
HOSTILE: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "empty": (b"", "is not JSON: it is empty"),
    "blank": (b" \n\t ", "is not JSON: it is empty"),
    "binary": (bytes(range(256)) * 8, "is not JSON: it is not UTF-8 text, byte 128 is 0x80"),
    "zeros": (b"\0" * 500, "is not JSON"),
    "an image": (b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "is not JSON: it is not UTF-8 text, byte 0 is 0x89"),
    "a zip": (b"PK\x03\x04" + bytes(30), "is not JSON"),
    "UTF-16": (json.dumps(REPORT).encode("utf-16"), "it is not UTF-8 text"),
    "UTF-32": (json.dumps(REPORT).encode("utf-32"), "it is not UTF-8 text"),
    "UTF-16 without a mark": (json.dumps(REPORT).encode("utf-16-le"), "is not JSON"),
    "a byte order mark": (b"\xef\xbb\xbf" + text(), "is not JSON: Unexpected UTF-8 BOM"),
    "Latin-1": (with_("a-run", "a-r\u00fcn").decode().encode("latin-1"), "it is not UTF-8 text"),
    "an overlong slash": (text().replace(b"a-run", b"a\xc0\xafrun"), "it is not UTF-8 text"),
    "half a file": (text()[:400], "is not JSON"),
    "two reports": (text() + text(), "is not JSON: Extra data"),
    "a list": (b"[1, 2]", "a report is a JSON object, got list"),
    "a number": (b"3", "a report is a JSON object, got int"),
    "null": (b"null", "a report is a JSON object, got NoneType"),
    "Python": (b"{'schema': 'device_report.v1'}", "is not JSON"),
    "HTML": (b"<script>alert(1)</script>", "is not JSON"),
    "a pickle": (b"cos\nsystem\n(S'true'\ntR.", "is not JSON"),
    "deep lists": (b"[" * 100_000, "is nested too deeply"),
    "deep lists, closed": (b"[" * 60_000 + b"]" * 60_000, "is nested too deeply"),
    "a deep config": (with_('{"depth": 4}', '{"a":' * 40 + "1" + "}" * 40), "is nested too deeply"),
    "100 MB": (lambda: b" " * 100_000_000, "is larger than 1 MB"),
    "2 MB of config": (lambda: with_('"depth": 4', f'"depth": "{"4" * 2_000_000}"'), "is larger than 1 MB"),
    "50,000 values": (text(model__config={"a": list(range(50_000))}), "holds 50050 values, at most 5000 are kept"),
    "an image of 1e15 pixels a side": (
        text(model__config={"family": "dit", "image_size": 999_999_999_999_999, "patch": 2}),
        "model.config.image_size is 1e+15, at most 65,536 is read",
    ),
    "a hundred million blocks": (
        text(model__config={"depth": 100_000_000}),
        "model.config.depth is 1e+08, at most 1,000 is read",
    ),
    "a long text": (text(device__name="N" * 5000), "device.name has 5000 characters, at most 200 are kept"),
    "100,000 flags": (text(software__flags=["a"] * 100_000), "values, at most 5000 are kept"),
    "NaN": (with_('"p99": 1.5', '"p99": NaN'), "NaN is no JSON number"),
    "Infinity": (with_('"p99": 1.5', '"p99": Infinity'), "Infinity is no JSON number"),
    "minus Infinity": (with_('"drift": -0.01', '"drift": -Infinity'), "-Infinity is no JSON number"),
    "1e999": (with_('"p99": 1.5', '"p99": 1e999'), "timing.p99 is not a finite number"),
    "1e999 in the config": (with_('{"depth": 4}', '{"depth": -1e999}'), "model.config.depth is not a finite number"),
    "ten thousand digits": (with_('"params": 10', f'"params": {"9" * 10_000}'), "a whole number of 10000 digits"),
    "four hundred digits": (with_('"swap_mb": 0', f'"swap_mb": {"9" * 400}'), "a whole number of 400 digits"),
    "a huge float": (text(state__swap_mb=1e300), "state.swap_mb is beyond 1e+15"),
    "a time of nothing": (text(timing__p50=1e-300), "timing.min is 0.8 ms, above timing.p50 of 1e-300 ms"),
    "only times of nothing": (
        text(timing__p50=1e-300, timing__min=None, timing__p50_ci95=None, timing__samples_ns=None),
        "timing.p50 is 1e-300 ms; a call takes between a nanosecond (1e-06 ms) and a day",
    ),
    "a time of years": (text(timing__p99=1e11), "timing.p99 is 1e+11 ms"),
    "a time of zero": (text(timing__p50=0), "timing.p50: 0 is less than or equal to the minimum of 0"),
    "a negative time": (text(timing__min=-1.0), "timing.min is negative: -1"),
    "a median that its times do not have": (
        text(timing__samples_ns=[9_000_000] * 5),
        "timing.p50 of 1 ms is not among its own times, which are 9 to 9 ms",
    ),
    "a median that its times have not": (
        text(**WITH_TIMES | {"timing__p50": 49.5}),
        "timing.p50 is 49.5 ms, but that of its 3603 times is 50 ms",
    ),
    "a spread that its times have not": (
        text(**WITH_TIMES | {"timing__std": 0.05, "timing__cv": 0.001}),
        "timing.std is 0.05 ms, but that of its 3603 times is 0.577831 ms",
    ),
    "fewer calls than times": (
        text(**WITH_TIMES | {"timing__iters": 3000, "timing__duration_s": 150.0}),
        "timing.samples_ns holds 3603 times, and timing.iters says that 3000 were taken",
    ),
    "a spread that does not follow": (text(timing__cv=0.001), "timing.cv is 0.001, but std 0.02 over mean 1 is not"),
    "p50 above p90": (text(timing__p90=0.95), "timing.p50 is 1 ms, above timing.p90 of 0.95 ms"),
    "a range of quartiles below zero": (text(timing__iqr=-0.1), "timing.iqr is negative: -0.1"),
    "quartiles further apart than all times": (text(timing__iqr=0.5), "timing.iqr is 0.5 ms, more than the 0.4 ms"),
    "a wall clock that is too quick": (
        text(timing__clock="cuda_event", timing__wall={"p50": 0.5}),
        "timing.wall.p50 is 0.5 ms, less than the 1 ms of the work within it",
    ),
    "a negative wall clock": (
        text(timing__clock="cuda_event", timing__wall={"p50": 2.0, "mean": -1.0}),
        "timing.wall.mean is negative: -1",
    ),
    "energy that is net of more than all": (
        text(energy={"mj_per_image": 1.0, "mj_per_image_net": 2.0, "net_of_idle": False, "rail": "VDD_IN"}),
        "energy.mj_per_image_net is 2 mJ, above the gross 1 mJ",
    ),
    "a negative energy": (text(energy={"mj_per_image": 1.0, "mj_per_image_net": -2.0}), "mj_per_image_net is negative"),
    "escape codes in a process": (
        text(state__top_processes=["sh", f"top{ESCAPE}"]),
        "state.top_processes.1 holds the character U+001B",
    ),
    "a link as a process": (text(state__top_processes=["[sh](http://a.b)"]), "processes.0 holds the character U+005B"),
    "a version of markup": (text(software__cudnn="<b>9</b>"), "software.cudnn holds the character U+003C"),
    "a version in two lines": (text(software__tensorrt="10\n9"), "software.tensorrt holds the character U+000A"),
    "a room on the sun": (text(state__ambient_c=5500), "state.ambient_c: 5500 is greater than the maximum of 85"),
    "5,000 raw times": (text(timing__samples_ns=[1_000_000] * 5000), "timing.samples_ns"),
    "a raw time as text": (text(timing__samples_ns=["1"]), "timing.samples_ns.0: '1' is not of type 'integer'"),
    "a key twice": (with_('"p99": 1.5', '"p99": 1.5, "p99": 0.1'), "the key 'p99' stands twice in one object"),
    "a key twice at the top": (text()[:-1] + b', "report_id": "0123456789"}', "the key 'report_id' stands twice"),
    "a typed grade": (text(grade="A"), "Additional properties are not allowed ('grade' was unexpected)"),
    "another format": (text(schema="device_report.v2"), "schema: 'device_report.v1' was expected"),
    "no model": (json.dumps({k: v for k, v in REPORT.items() if k != "model"}).encode(), "'model' is a required"),
    "a path upwards": (text(report_id="../../teachers"), "report_id: '../../teachers' does not match"),
    "an absolute path": (text(report_id="/etc/cron.d/owned"), "report_id: '/etc/cron.d/owned' does not match"),
    "a Windows path": (text(report_id="..\\..\\teachers"), "report_id"),
    "a hidden file": (text(report_id=".hidden-one"), "report_id: '.hidden-one' does not match"),
    "a NUL in the name": (text(report_id="abcdefgh\0.json"), "report_id: 'abcdefgh\\x00.json' does not match"),
    "a newline after the name": (text(report_id="abcdefgh\n"), "report_id must match"),
    "an id of other digits": (text(report_id="\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668"), "report_id"),
    "a taken id": (text(report_id="was-there-before", timing__p50=1.05), "another report is already called"),
    "escape codes": (text(device__name=f"Orin{ESCAPE}"), "device.name holds the character U+001B (no printable one)"),
    "escape codes in a key": (text(model__config={ESCAPE: 1}), "holds the character U+001B"),
    "escape codes in an unknown key": (with_('"depth": 4}', f'"depth": 4}}, {json.dumps(ESCAPE)}: 1'), "unexpected"),
    "text that runs backwards": (text(device__name="Orin \u202egnp.exe"), "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
    "text of no width": (text(model__model_id="a\u200b-run"), "model.model_id holds the character U+200B"),
    "a look-alike": (text(device__name="NVIDI\u0410 Jetson"), "U+0410 (CYRILLIC CAPITAL LETTER A)"),
    "piled up accents": (text(source={"citation": "e" + "\u0301" * 40}), "source.citation holds the character U+0301"),
    "half a character": (with_("a-run", "a-\\ud800-run"), "model.model_id holds the character U+D800"),
    "a line break": (text(device__name="Orin\nGrade: A"), "device.name holds the character U+000A"),
    "markup": (text(device__name="<img src=x onerror=alert(1)>"), "device.name holds the character U+003C"),
    "a link in a caption": (text(software__os="[Linux](http://example.org)"), "software.os holds the character U+005B"),
    "a formula": (text(software__flags=["$\\rule{9em}{9em}$"]), "software.flags.0 holds the character U+0024"),
    "a cell that calls a program": (
        text(device__name="=HYPERLINK(0,1)"),
        "device.name begins with '=', which a spreadsheet would take for a formula; begin it with a letter or a digit",
    ),
    "a sum as a name": (text(model__model_id="+1+cmd|' /C calc'!A0"), "model.model_id begins with '+'"),
    "a difference as a version": (text(software__runtime_version=" -2+3"), "software.runtime_version begins with '-'"),
    "a lookup as a system": (text(software__os="@SUM(1,2)"), "software.os begins with '@'"),
    "a wide sign": (text(source={"citation": "\uff1d1+1"}), "source.citation begins with '\\uff1d'"),
    "a tab before a name": (text(device__name="\t=1+1"), "device.name holds the character U+0009"),
    "yesterday": (text(created_utc="yesterday"), "created_utc must be a date and time"),
    "local time": (text(created_utc="2026-10-23T18:00:00+09:00"), "created_utc must be UTC"),
    "a week's date": (text(created_utc="2026-W40-1"), "created_utc must be UTC"),
    "the far future": (text(created_utc="9999-12-31T23:59:59Z"), "created_utc lies in the future"),
    "true for a number": (text(timing__p99=True), "timing.p99: True is not of type 'number', 'null'"),
    "a fraction of a batch": (text(workload__batch=1.5), "workload.batch"),
    "a batch of none": (text(workload__batch=0), "workload.batch"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gets_one_sentence_and_changes_nothing(
    name: str, used: Store, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content, words = HOSTILE[name]
    file = written(tmp_path, content if isinstance(content, bytes) else content())
    before = everything(used.root)
    assert main(["import", str(file), "--results", str(used.root)]) == FAILED
    shown = capsys.readouterr()
    assert shown.out == "" and words in shown.err
    assert shown.err.startswith("lab import: ") and shown.err.count("\n") == 1 and len(shown.err) < 700
    assert shown.err.isascii() and shown.err.strip().isprintable()
    assert everything(used.root) == before


def a_link(folder: Path) -> Path:
    path = folder / "link.json"
    path.symlink_to(written(folder, text()))
    return path


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.json")
    return folder / "pipe.json"


def a_folder(folder: Path) -> Path:
    (folder / "folder.json").mkdir()
    return folder / "folder.json"


def a_coloured_name(folder: Path) -> Path:
    return written(folder, b"{", "\x1b[31mred.json")


def a_link_to_nothing(folder: Path) -> Path:
    (folder / "link.json").symlink_to(folder / "absent")
    return folder / "link.json"


PLACES = {
    a_link: "can't read report 'link.json': it is a link; give the file itself",
    a_link_to_nothing: "can't read report 'link.json': it is a link; give the file itself",
    a_pipe: "can't read report 'pipe.json': it is no plain file",
    a_folder: "can't read report 'folder.json': it is a folder",
    a_coloured_name: "\\x1b[31mred.json is not JSON",
    lambda _: Path("/dev/zero"): "can't read report 'zero': it is no plain file",
}


@pytest.mark.parametrize("make", PLACES, ids=[make.__name__ for make in PLACES])
def test_only_a_plain_file_is_read(make: Callable, used: Store, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, before = make(tmp_path), everything(used.root)
    assert main(["import", str(path), "--results", str(used.root)]) == FAILED
    said = capsys.readouterr().err
    assert PLACES[make] in said and said.strip().isprintable() and everything(used.root) == before


def test_a_file_that_is_not_there_is_wrong_usage(used: Store, capsys: pytest.CaptureFixture) -> None:
    assert main(["import", "absent.json", "--results", str(used.root)]) == USAGE
    assert "there is no file 'absent.json'" in capsys.readouterr().err


def test_one_bad_file_among_good_ones_keeps_all_out(used: Store, tmp_path: Path, capsys) -> None:
    files = [written(tmp_path, text(), "good.json"), written(tmp_path, b"{", "bad.json")]
    before = everything(used.root)
    assert main(["import", *map(str, files), "--results", str(used.root)]) == FAILED
    said = capsys.readouterr().err
    assert "bad.json is not JSON" in said and "none of the 2 files was stored" in said
    assert everything(used.root) == before


def test_two_reports_of_one_name_in_one_call_are_refused(used: Store, tmp_path: Path) -> None:
    files = [written(tmp_path, text(), "a.json"), written(tmp_path, text(timing__p50=1.05), "b.json")]
    before = everything(used.root)
    with pytest.raises(ValueError, match="another report is already called"):
        incoming.import_reports(files, used)
    assert everything(used.root) == before


def test_a_stored_report_that_cannot_be_read_is_not_overwritten(used: Store, tmp_path: Path) -> None:
    there = used.root / "devices" / f"{REPORT['report_id']}.json"
    there.write_text("{ cut off")
    with pytest.raises(ValueError, match="another report is already called"):
        incoming.import_reports([written(tmp_path, text())], used)
    assert there.read_text() == "{ cut off"


def test_reports_come_in_without_torch() -> None:
    script = "import lab.devices.incoming, sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_there_are_enough_hostile_files() -> None:
    assert len(HOSTILE) + len(PLACES) >= 30
