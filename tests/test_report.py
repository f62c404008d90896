"""Device reports: what may be stored, and how it is graded."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import conftest
import pytest
from onefile import runner

from lab.config import DiTConfig
from lab.devices import report as reports
from lab.devices.report import check, grade, parse
from lab.results import Store

GOOD: dict[str, Any] = {
    "schema": "device_report.v1", "report_id": "9bffdd2f-eager-b1", "created_utc": "2026-11-23T18:00:00+00:00",
    "provenance": "measured",
    "runner": {"name": "edge-dit-lab", "version": "1.0", "sha256": "ab", "preset": "publishable"},
    "device": {"family": "x86_cpu", "name": "a CPU", "memory_mb": 8000},
    "software": {"os": "Linux", "runtime": "eager", "runtime_version": "2.14"},
    "state": {"power_mode": "performance", "clocks_locked": True, "swap_mb": 0, "throttled": False, "threads": 1,
              "cpu_mhz": {"min": 1000.0, "mean": 1500.0, "max": 2000.0}},
    "model": {"model_id": "a-run", "config": {"depth": 4}, "weights_sha256": "cd", "params": 10, "precision": "fp32"},
    "workload": {"scope": "core", "batch": 1, "height": 28, "width": 28, "nfe": 1},
    "timing": {"unit": "ms", "clock": "wall_sync", "warmup_iters": 50, "iters": 180_000, "sessions": 3,
               "duration_s": 180.0, "p50": 1.0, "p50_ci95": [0.9, 1.1], "p90": 1.2, "p99": 1.5, "min": 0.8, "cv": 0.02,
               "drift": -0.01, "samples_ns": None},
    "memory": {"method": "ru_maxrss", "process_peak_mb": 300.0},
    "energy": {"mj_per_image": 1.0, "net_of_idle": False, "rail": "VDD_IN"},
    "checks": {"output_ok": True},
}  # fmt: skip
changed = functools.partial(conftest.changed, GOOD)
DEVICES = Path(__file__).parent.parent / "results" / "devices"


def timing_of(*sessions: Sequence[int], **changes: Any) -> dict[str, Any]:
    """The timing that runner.py makes of these times in ns, without its interval, which takes seconds."""
    found = runner.spread([*itertools.chain(*sessions)])
    kept = [runner.thin(times, runner.MAX_SAMPLES // len(sessions)) for times in sessions]
    return GOOD["timing"] | found | {
        "iters": sum(map(len, sessions)), "duration_s": round(sum(itertools.chain(*sessions)) / 1e9, 3),
        "sessions": len(sessions), "cv": round(found["std"] / found["mean"], 5),
        "drift": round(runner.drift(sessions), 5), "p50_ci95": None, "samples_ns": [*itertools.chain(*kept)],
    } | changes  # fmt: skip


def times(count: int, spread: float = 0.01, *, slow: float = 0.0, seed: int = 0, each_ms: float = 1.0) -> list[int]:
    """Times of calls of about so long; a share of them takes ten to two hundred times as long."""
    rng = random.Random(seed)
    return [round(each_ms * 1e6 * math.exp(rng.gauss(0, spread)) * (rng.uniform(10, 200) if rng.random() < slow else 1))
            for _ in range(count)]  # fmt: skip


# --- the format ---


def test_a_good_report_passes_and_survives_json() -> None:
    assert check(GOOD) == []
    assert parse(json.dumps(GOOD).encode()) == GOOD


def objects(schema: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object that the schema describes, with its place; conditions (allOf) describe none."""
    if isinstance(schema, dict):
        if "properties" in schema or "object" in (schema.get("type") or ()):
            yield place, schema
        for key, inner in schema.items():
            if key != "allOf":
                yield from objects(inner, f"{place}/{key}")


def test_every_object_of_the_format_is_closed_but_the_models_config() -> None:
    found = dict(objects(reports.schema()))
    free = [place for place, schema in found.items() if schema.get("additionalProperties") is not False]
    assert free == ["/properties/model/properties/config"] and len(found) == 15


@pytest.mark.parametrize("part", [k for k, v in GOOD.items() if isinstance(v, dict)])
def test_an_unknown_field_is_refused_by_name(part: str) -> None:
    assert "surprise" in check(changed(**{f"{part}__surprise": 1}))[0]


@pytest.mark.parametrize("name", reports.schema()["required"])
def test_a_missing_part_is_refused_by_name(name: str) -> None:
    assert name in check({k: v for k, v in GOOD.items() if k != name})[0]


def test_the_letter_of_a_grade_cannot_be_typed_in() -> None:
    assert "grade" in check(changed(grade="A"))[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timing__p90": 0.5}, "timing.p50 is 1 ms, above timing.p90 of 0.5 ms"),
        ({"timing__p90": None, "timing__p99": 0.5}, "above timing.p99"),
        ({"timing__p50_ci95": [1.1, 1.2]}, "does not hold p50"),
        ({"timing__p50": 0}, "timing.p50"),
        ({"timing__p50": "1"}, "timing.p50"),
        ({"timing__samples_ns": [1] * 4097}, "timing.samples_ns"),
        (
            {
                "timing__samples_ns": [1_000_000, 0],
                "timing__iters": 2,
                "timing__sessions": 1,
                "timing__duration_s": 0.002,
            },
            "timing.samples_ns holds a time of 0 ns",
        ),
        ({"timing__iters": None}, "timing.iters"),
        ({"checks__output_ok": None}, "checks.output_ok"),
        ({"report_id": "../../etc/passwd"}, "report_id"),
        ({"report_id": "nine-chars\n"}, "report_id"),
        ({"created_utc": "yesterday"}, "created_utc"),
        ({"state__cpu_mhz": {"min": 2.0, "max": 1.0}}, "state.cpu_mhz"),
        ({"provenance": "published"}, "source"),
        ({"energy__mj_per_image_net": 1.5}, "energy.mj_per_image_net is 1.5 mJ, above the gross 1 mJ"),
        ({"energy__mj_per_image_net": 0.5, "energy__net_of_idle": True}, "beside a gross energy.mj_per_image"),
        ({"energy": {"mj_per_image_net": 0.5, "rail": "VDD_IN"}}, "beside a gross energy.mj_per_image"),
        ({"state__ambient_c": 451}, "state.ambient_c"),
        ({"state__top_processes": list("abcdef")}, "state.top_processes"),
        ({"state__top_processes": ["python3 train.py --token " + "x" * 60]}, "state.top_processes.0"),
        ({"timing__iqr": 0.5}, "timing.iqr is 0.5 ms, more than the 0.4 ms between its min and p90"),
        ({"timing__wall": {"p50": 1.4}}, "timing.clock is wall_sync itself"),
        ({"timing__clock": "cuda_event", "timing__wall": {"p50": 0.9}}, "timing.wall.p50 is 0.9 ms, less than the 1"),
        ({"timing__clock": "cuda_event", "timing__wall": {"p50": 2, "p90": 1.5}}, "above timing.wall.p90 of 1.5 ms"),
        ({"timing__clock": "cuda_event", "timing__wall": {"p90": 1.5}}, "'p50' is a required property"),
        ({"timing__clock": "cuda_event", "timing__wall": {"p50": 2, "max": 9}}, "timing.wall: Additional properties"),
        ({"timing__duration_s": 0.1}, "timing.duration_s is 0.1 s, less than the 176.471 s of its 180,000 calls"),
        (
            {"timing__duration_s": 172_800},
            "timing.duration_s is 172800 s, more than the 183.673 s of its 180,000 calls",
        ),
        ({"timing__iters": 2, "timing__duration_s": None}, "timing.iters is 2, less than a call for each of 3"),
        ({"timing__mean": 0.7, "timing__duration_s": None}, "timing.mean is 0.7 ms, below timing.min of 0.8 ms"),
        ({"timing__mean": float("inf")}, "timing.mean is not a finite number"),
        ({"model__config": {"a": [1.0, float("nan")]}}, "model.config.a.1 is not a finite number"),
    ],
)
def test_what_cannot_be_true_is_refused_with_its_place(changes: dict[str, Any], words: str) -> None:
    wrong = check(changed(**changes))
    assert len(wrong) == 1 and words in wrong[0]
    assert len(wrong[0]) < 300


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[1, 2]", "a report is a JSON object, got list"),
        (b"[" * 100_000, "nested too deeply"),
        (json.dumps(GOOD).replace('{"depth": 4}', '{"a":' * 900 + "1" + "}" * 900).encode(), "nested too deeply"),
        (json.dumps(GOOD).replace('{"depth": 4}', '{"a":' * 40 + "1" + "}" * 40).encode(), "nested too deeply"),
        (b" " * 1_000_001, "larger than 1 MB"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (json.dumps(GOOD).replace('"p99": 1.5', '"p99": 1e999').encode(), "timing.p99 is not a finite number"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is not JSON"),
    ],
)
def test_a_hostile_file_gets_one_sentence(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse(content, "from-a-board.json")
    assert "from-a-board.json" in str(caught.value) and len(str(caught.value)) < 2000


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"can't read report 'no\.json': No such file"):
        reports.load(tmp_path / "no.json")


def test_a_published_figure_may_leave_its_hashes_out() -> None:
    published = changed(provenance="published", source={"citation": "somebody, 2026"}, model__weights_sha256=None,
                        timing__iters=None, timing__sessions=None,
                        timing__p99=None, checks__output_ok=None)  # fmt: skip
    assert check(published) == []
    assert grade(published).letter == "E"


def test_two_clocks_of_one_timing_pass() -> None:
    wall = {"p50": 1.2, "p90": 1.3, "p99": 1.9, "min": 1.0, "mean": 1.2, "std": 0.1, "iqr": 0.1}
    assert check(changed(timing__clock="cuda_event", timing__wall=wall, timing__iqr=0.4)) == []


WALL = {"p50": 2.0, "mean": 2.0}  # of 180,000 calls: 360 s


@pytest.mark.parametrize(("lasted", "changes", "holds"), [
    (360.0, {"wall": WALL}, True), (180.0, {"wall": WALL}, True), (370.0, {"wall": WALL}, False),
    (170.0, {"wall": WALL}, False), (370.0, {"wall": None}, True), (1.0, {"clock": "unknown"}, False),
    (86_400.0, {"clock": "unknown"}, True), (400.0, {"clock": "wall_sync", "cv": 0.9}, True),
    (0.0, {"iters": 3}, False), (0.0, {"iters": 3, "p50": 0.0001, "min": None, "p50_ci95": None}, True),
])  # fmt: skip
def test_a_timing_lasts_as_long_as_its_calls(lasted: float, changes: dict[str, Any], holds: bool) -> None:
    timing = GOOD["timing"] | {"clock": "cuda_event", "duration_s": lasted} | changes
    assert (not check(changed(timing=timing))) == holds == (reports.fault(changed(timing=timing)) is None)


def test_trtexec_pauses_between_calls_and_others_may_count_more_than_the_calls() -> None:
    long = {"timing__clock": "cuda_event", "timing__wall": WALL, "timing__duration_s": 1000.0}
    for other in ({"software__runtime": "tensorrt"}, {"provenance": "published", "source": {"citation": "x"}}):
        assert check(changed(**long)) and not check(changed(**long, **other))
    (said,) = check(changed(**long | {"timing__duration_s": 2.0e5}, software__runtime="tensorrt"))
    assert said == "timing.duration_s is 200000 s, more than the 180360 s of its 180,000 calls"


def test_what_was_known_before_the_timing_passes() -> None:
    before = {"state__ambient_c": -12.5, "state__top_processes": ["firefox"], "software__cudnn": "9.3.0",
              "software__tensorrt": None}  # fmt: skip
    assert check(changed(**before)) == []


@pytest.mark.parametrize("energy", [{"mj_per_image_net": 0.4}, {"mj_per_image_net": None}, {"net_of_idle": True}])
def test_energy_gross_and_net_passes_in_each_way_that_it_can_be_told(energy: dict[str, Any]) -> None:
    assert check(changed(energy=GOOD["energy"] | energy)) == []


# --- figures and the times they are of ---

WHOLE = timing_of(times(1500))
THINNED = timing_of(times(20_000))


def test_as_many_times_are_kept_as_the_runner_and_the_format_say() -> None:
    limit = reports.schema()["properties"]["timing"]["properties"]["samples_ns"]["maxItems"]
    assert reports.MAX_SAMPLES == runner.MAX_SAMPLES == limit


@pytest.mark.parametrize("slow", [0.0, 0.002, 0.05])
@pytest.mark.parametrize("counts", [(10,), (1500,), (20_000,), (1200, 1300, 1100), (8000, 8100, 8050), (9000, 30, 40)])
def test_what_the_runner_makes_of_any_times_passes(counts: tuple[int, ...], slow: float) -> None:
    drifting = [[round(t * (1 + 0.1 * k / count)) for k, t in enumerate(times(count, 0.05, slow=slow, seed=count))]
                for count in counts]  # fmt: skip
    assert check(changed(timing=timing_of(*drifting))) == []


@pytest.mark.parametrize("kept", [WHOLE, THINNED], ids=["all", "thinned"])
@pytest.mark.parametrize(
    ("name", "changes"),
    [("p50", {"p50": 0.98}), ("p50", {"p50": 1.005}), ("p90", {"p90": 1.004}), ("p99", {"p99": 1.015}),
     ("std", {"std": 0.005, "cv": 0.005}), ("std", {"std": 0.0, "cv": 0.0}), ("cv", {"std": None, "cv": 0.005}),
     ("min", {"min": 0.98}), ("drift", {"drift": 0.02}), ("drift", {"drift": -0.015})],
)  # fmt: skip
def test_a_figure_that_its_times_contradict_is_refused_in_one_sentence(
    kept: dict[str, Any], name: str, changes: dict[str, Any]
) -> None:
    (said,) = check(changed(timing=kept | changes))
    assert said.startswith(f"timing.{name} is ") and "times" in said and len(said) < 200


@pytest.mark.parametrize(("changes", "words"), [
    ({"p90": 1.0129}, "timing.p90 is 1.0129 ms, but that of its 1500 times is"),
    ({"mean": 1.0002, "std": None, "cv": None}, "timing.mean is 1.0002 ms, but that of its 1500 times is"),
    ({"iqr": 0.0129}, "timing.iqr is 0.0129 ms, but that of its 1500 times is"),
    ({"std": 0.02, "cv": 0.02}, "timing.std is 0.02 ms"), ({"drift": 0.001}, "timing.drift is 0.001, but that of its"),
    ({"iters": 1499}, "timing.samples_ns holds 1500 times, and timing.iters says that 1499 were taken"),
])  # fmt: skip
def test_of_times_that_are_all_kept_every_figure_must_be_theirs(changes: dict[str, Any], words: str) -> None:
    (said,) = check(changed(timing=WHOLE | changes))
    assert words in said


def test_a_drift_is_that_of_the_session_that_drifts_most() -> None:
    rising = [round(t * (1 + 0.06 * k / 8000)) for k, t in enumerate(times(8000, seed=1))]
    kept = timing_of(times(8000), rising, times(8000, seed=2))
    assert check(changed(timing=kept)) == [] and kept["drift"] > 0.03
    for drift in (0.0, -kept["drift"], 0.02):
        assert "timing.drift is" in check(changed(timing=kept | {"drift": drift}))[0]


def test_calls_that_are_rare_and_slow_may_be_missing_among_the_times_that_are_kept() -> None:
    assert check(changed(timing=THINNED | {"std": 0.05, "cv": 0.05})) == []
    assert grade(changed(timing=THINNED | {"std": 0.05, "cv": 0.05})).letter == "C"


@pytest.mark.parametrize("few", [None, [], [1_000_000, 1_010_000], times(1364)])
def test_a_report_with_too_few_single_times_is_a_c_at_best(few: list[int] | None) -> None:
    steady = timing_of(*(times(2000, seed=k, each_ms=30) for k in range(3)))
    assert grade(changed(timing=steady)).letter == "A"
    found = grade(changed(timing=steady | {"samples_ns": few}))
    assert found.letter == "C" and found.reasons == (
        "it keeps too few of its single times to compute its figures anew",)  # fmt: skip


def test_the_reports_of_the_lab_are_those_of_their_times() -> None:
    paths = sorted(DEVICES.glob("*.json"))[::8]
    wrong = {path.name: check(json.loads(path.read_text())) for path in paths}
    assert len(paths) > 50 and not {name: said for name, said in wrong.items() if said}


# --- stored ones ---


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        (None, "it is no JSON object"),
        ([1], "it is no JSON object"),
        ({"schema": "device_report.v1"}, "report_id is missing"),
        ({"schema": "device_report.v2"}, "its schema is 'device_report.v2', not 'device_report.v1'"),
        (changed(timing=5), "timing is '5', not object"),
        (changed(timing={}), "timing.unit is missing"),
        (changed(timing__p50="fast"), "timing.p50 is 'fast', not number"),
        (changed(timing__p50=float("nan")), "timing.p50 is 'nan', not number"),
        (changed(timing__p50=True), "timing.p50 is 'True', not number"),
        (changed(timing__p50=0), "timing.p50 is '0', not above 0"),
        (
            changed(timing__p50=1e9),
            "timing.p50 is 1e+09 ms; a call takes between a nanosecond (1e-06 ms) and a day",
        ),
        (changed(timing__p90=-1.0), "timing.p90 is negative: -1"),
        (changed(memory__process_peak_mb=-5.0), "memory.process_peak_mb is negative: -5"),
        (
            changed(created_utc="zzz"),
            "created_utc must be a date and time as in 2026-11-23T18:00:00+00:00, got 'zzz'",
        ),
        (
            changed(timing__duration_s=0.1),
            "timing.duration_s is 0.1 s, less than the 176.471 s of its 180,000 calls",
        ),
        (changed(state__cpu_mhz={"min": 2.0, "max": 1.0}), "state.cpu_mhz has min 2 above max 1"),
        (changed(timing__iters=10**19), "timing.iters is '10000000000000000000', not integer or null"),
        (
            changed(provenance=["measured"]),
            "provenance is '[\"measured\"]', not one of measured, imported, published, estimated",
        ),
        (changed(software__more=1), "software.'more' is no field of it"),
        (changed(timing__p50_ci95=[1.0]), "timing.p50_ci95 has 1 values"),
        (changed(timing__samples_ns=["x"]), "timing.samples_ns.0 is 'x', not integer"),
        (changed(timing__wall={"p50": "fast"}), "timing.wall.p50 is 'fast', not number"),
        (changed(state__cpu_mhz=[1]), "state.cpu_mhz is '[1]', not object or null"),
        (changed(device__name=None), "device.name is 'None', not string"),
    ],
)
def test_what_keeps_a_stored_report_from_being_read_is_a_sentence(plain: Any, words: str) -> None:
    assert reports.fault(plain) == words


def test_a_stored_report_bears_the_name_of_its_file() -> None:
    assert reports.fault(GOOD) is None and reports.fault(GOOD, GOOD["report_id"]) is None
    assert "is not its file's name" in reports.fault(GOOD, "another")


def test_broken_files_are_named_and_never_break_the_table(store: Store) -> None:
    store.add_report(GOOD)
    contents = {"cut": '{"schema": "device_rep', "list": "[]", "numbers": json.dumps(changed(timing=5))}
    for name, content in contents.items():
        (store.root / "devices" / f"{name}.json").write_text(content)
    found, faults = store.read_reports()
    assert found["report_id"].tolist() == [GOOD["report_id"]] and store.reports().equals(found)
    assert faults == {"cut.json": "it is no JSON object", "list.json": "it is no JSON object",
                      "numbers.json": "timing is '5', not object"}  # fmt: skip


def test_a_report_that_changes_or_goes_is_read_anew(store: Store) -> None:
    path = store.root / "devices" / f"{store.add_report(GOOD)}.json"
    found = store.reports()
    found["timing.p50_ci95"].iloc[0].append(7)
    assert store.reports()["timing.p50_ci95"].tolist() == [GOOD["timing"]["p50_ci95"]]
    path.write_text(json.dumps(changed(timing__p50=1.01)))
    assert store.reports()["timing.p50"].tolist() == [1.01]
    path.write_text("{")
    assert store.read_reports()[1] == {path.name: "it is no JSON object"}
    path.unlink()
    assert store.reports().empty and store.read_reports()[1] == {}


def test_one_report_is_given_whole_with_its_raw_times(store: Store) -> None:
    store.add_report(GOOD)
    assert store.report(GOOD["report_id"]) == GOOD
    for name in ("no-such-report", "../../runs/x", ""):
        with pytest.raises(LookupError, match="there is no device report"):
            store.report(name)


def test_a_report_says_how_far_the_images_of_its_file_are_off(store: Store) -> None:
    from lab.results import write_json

    run = store.root / "runs" / "a-run"
    student = conftest.student_facts(DiTConfig())
    facts = conftest.artefact_facts(student, precision="int8")
    write_json(run / "student.json", student)
    made = facts | {"files": {"m": {"sha256": "ef", "bytes": 9}}}
    write_json(run / "export" / "onnxruntime-int8" / "artefact.json", made)
    write_json(run / "export" / "openvino-int8" / "artefact.json", facts | {"weights_sha256": "other", "files": {}})
    write_json(run / "export" / "cut" / "artefact.json", {"files": 5})
    coarse = changed(model__precision="int8")
    cases = {
        "by-runtime": {"software__runtime": "onnxruntime"},
        "by-file": {"software__runtime": "tensorrt", "model__artifact_sha256": "ef"},
        "an-estimate": {"software__runtime": "unknown", "provenance": "estimated"},
        "other-file": {"software__runtime": "tensorrt"},
        "other-weights": {"software__runtime": "onnxruntime", "model__weights_sha256": "zz"},
        "other-run": {"software__runtime": "onnxruntime", "model__model_id": "../a-run"},
    }
    for name, changes in cases.items():
        write_json(store.root / "devices" / f"{name}.json", conftest.changed(coarse, report_id=name, **changes))
    known = store.reports().set_index("report_id")["artefact.mean_abs"].dropna()
    assert known.to_dict() == {"by-runtime": 0.01, "by-file": 0.01, "an-estimate": 0.01}


# --- grades ---


@pytest.mark.parametrize(
    ("letter", "changes", "words"),
    [
        ("A", {"timing": timing_of(*(times(1100, seed=k, each_ms=55) for k in range(3)))}, "three sessions"),
        ("B", {"timing": timing_of(times(1100, each_ms=55))}, "1 of 3 sessions"),
        ("C", {"runner__preset": "quick"}, "preset quick"),
        ("C", {"runner__preset": "custom"}, "preset custom"),
        ("C", {"timing__cv": 0.05}, "5.0% (CV)"),
        ("C", {"timing__drift": -0.05}, "drift by -5.0%"),
        ("C", {"timing__cv": None}, "cv is unknown"),
        ("C", {"timing__iters": 3000, "timing__duration_s": 3.0}, "1000 calls a session"),
        ("C", {"timing__duration_s": 120.0, "timing__iters": 120_000}, "40 s a session, publishable are 60"),
        ("C", {"timing__duration_s": None}, "unknown how long it was timed"),
        ("C", {"state__clocks_locked": False}, "the clocks were not fixed"),
        ("C", {"state__clocks_locked": None}, "unknown whether the clocks"),
        ("C", {"state__throttled": None}, "unknown whether it was throttled"),
        ("C", {"state__power_mode": None}, "the power mode is unknown"),
        ("D", {"state__power_mode": None, "device__family": "jetson"}, "a jetson has several"),
        ("D", {"state__power_mode": None, "device__family": "rpi"}, "a rpi has several"),
        ("D", {"state__throttled": True}, "throttled"),
        ("D", {"state__swap_mb": 12.5}, "12.5 MB of swap"),
        ("D", {"timing__cv": 0.11}, "11.0% (CV), above 10%"),
        ("D", {"checks__output_ok": False}, "the output is wrong"),
        ("F", {"provenance": "estimated"}, "estimated"),
    ],
)
def test_a_grade_follows_from_the_report_and_says_why(letter: str, changes: dict[str, Any], words: str) -> None:
    report = changed(**changes)
    assert check(report) == []
    found = grade(report)
    assert found.letter == letter and words in "; ".join(found.reasons)


def test_all_reasons_of_a_grade_are_given() -> None:
    found = grade(changed(state__throttled=True, state__swap_mb=1.0, timing__cv=0.2))
    assert len(found.reasons) == 3


def test_a_grade_of_a_broken_report_is_no_crash() -> None:
    assert grade({"state": "good", "timing": None}).letter == "C"


# --- the store ---


def test_the_same_report_twice_is_no_change(store: Store) -> None:
    assert store.add_report(GOOD) == store.add_report(changed(timing__p50=1.01)) == GOOD["report_id"]
    assert list(store.reports()["timing.p50"]) == [1.0]


def test_a_wrong_report_changes_nothing(store: Store) -> None:
    with pytest.raises(ValueError, match=r"above timing\.p90"):
        store.add_report(changed(timing__p90=0.1))
    assert store.reports().empty and not (store.root / "devices").exists()


def test_the_table_of_reports_has_the_grade_and_no_raw_times(store: Store) -> None:
    store.add_report(GOOD)
    store.add_report(changed(report_id="another-one", runner__preset="quick"))
    table = store.reports().set_index("report_id")
    assert table["grade"].to_dict() == {"9bffdd2f-eager-b1": "A", "another-one": "C"}
    assert table["grade_reasons"]["another-one"] == ("preset quick, not publishable",)
    assert "timing.samples_ns" not in table and table["model.config"].iloc[0] == {"depth": 4}


def test_a_broken_file_among_the_reports_hides_none_of_the_others(store: Store) -> None:
    store.add_report(GOOD)
    (store.root / "devices" / "cut.json").write_text('{"schema": "device_report.v1", "timi')
    (store.root / "devices" / "odd.json").write_text('{"schema": "device_report.v1", "timing": 3}')
    assert "9bffdd2f-eager-b1" in set(store.reports()["report_id"])


def test_reports_are_checked_and_graded_without_torch() -> None:
    script = "import lab.results, lab.devices.report as r, sys; r.check({}); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
