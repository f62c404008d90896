"""What the benchmarks keep of what they measured, and whose measurements they take."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import time
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from conftest import TINY_STUDENT

from lab import cost, deploy, experiment, int8
from lab.config import DiTConfig, Recipe, Use
from lab.devices import runner
from lab.results import Store, read_json, write_json

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    """A module of benchmarks/ by name; they import each other by name, as when they are typed."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def test_a_latency_row_of_fewer_samples_does_not_stand_for_one_of_more(benchmark, tmp_path: Path) -> None:
    result = benchmark("latency").Result(tmp_path / "latency.json", {})
    key = {"part": "distance", "shape": "s", "run": "r", "threads": 2, "runtime": "openvino", "precision": "int8"}
    result.rows.append(key | {"samples": 100, "fd": 2.0})
    assert result.has(**key, samples=100) and not result.has(**key, samples=10_000)


def test_a_fan_that_turns_faster_makes_no_other_machine(benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = runner.HERE.device()
    said = []
    for pwm in (83, 120):
        monkeypatch.setattr(runner.HERE, "device", lambda pwm=pwm: facts | {"cooling": f"fan, pwm {pwm} of 255"})
        said.append(benchmark("networks").machine())
    assert said[0] == said[1] and said[0]["device"]["name"] == facts["name"]


def test_no_card_is_measured_for_the_threads_of_another_machine(
    benchmark, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = benchmark("predict")
    row = {"software.runtime": "eager", "model.precision": "fp32", "state.threads": 6.0}
    asked: list[int] = []
    monkeypatch.setattr(predict, "card_here", lambda store, threads: asked.append(threads))
    monkeypatch.setattr(store, "reports", lambda: pd.DataFrame([row | {"device.name": "a board"}]))
    with pytest.raises(LookupError, match="no timing of this machine"):
        predict.measured(store, store.root / "predict.json")
    assert asked == []


def test_a_graph_that_was_measured_under_these_conditions_is_not_measured_again(
    benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs, out, asked = benchmark("graphs"), tmp_path / "graphs.json", []

    def measure(shape: str, runtime: str, how: str, batch: int, preset: runner.Preset, clock) -> dict:
        asked.append((runtime, how, batch))
        return {"shape": shape, "runtime": runtime, "rewriting": how, "batch": batch, "times_faster": 1.1,
                "ci95": [1.0, 1.2], "plain_ms": 2.2, "ms": 2.0, "rounds": 5, "apart": 0.0}  # fmt: skip

    monkeypatch.setattr(graphs, "measure", measure)
    preset = runner.Preset(seconds=1.0)
    graphs.main(["64x4"], [1], preset, time.perf_counter_ns, out)
    graphs.main(["64x4"], [1, 16], preset, time.perf_counter_ns, out)
    assert len(asked) == len(set(asked)) == 2 * sum(len(how) for how in graphs.REWRITINGS.values())
    graphs.main(["64x4"], [1], runner.Preset(seconds=2.0), time.perf_counter_ns, out)
    assert len(asked) > len(set(asked)), "other conditions are measured anew"


def test_a_rewritten_graph_computes_the_plain_ones_images(benchmark) -> None:
    pytest.importorskip("onnxruntime")
    graphs, brief = benchmark("graphs"), runner.Preset(iters=2, seconds=0.01, warmup_iters=1, warmup_s=0.0)
    row = graphs.measure("64x4", "onnxruntime", "open_gelu", 1, brief, time.perf_counter_ns)
    assert row["apart"] < 1e-4 and row["rounds"] >= 2


def test_a_board_without_a_report_is_named_and_the_next_has_its_turn(
    benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    board, out = benchmark("board"), tmp_path / "board.json"

    def there_and_back(run, store, runtime: str, target: str) -> dict:
        if runtime == "torch":
            raise subprocess.CalledProcessError(1, ["python", "runner.py"])
        return {"runtime": runtime, "seconds": {"pack": 1.0}, "grade": "C", "output_ok": True}

    monkeypatch.setattr(board, "there_and_back", there_and_back)
    assert board.main(None, None, ["torch", "onnxruntime"], "cpu", out) == 1
    assert [row["runtime"] for row in read_json(out)["rows"]] == ["onnxruntime"]
    assert "torch: no report came home: `python runner.py` ended with exit code 1" in capsys.readouterr().err


def test_rivals_that_compute_the_same_share_one_speed(benchmark, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clocked, speeds = benchmark("clocked"), iter([100.0, 300.0, 200.0])
    monkeypatch.setattr(clocked, "speed", lambda *_: next(speeds))
    recipe = Recipe(data="digits", methods=(Use("denoise"),))
    same = dataclasses.replace(recipe, seed=3, lr=5e-4, ema=0.9999)
    assert [clocked.plan(one, store, None, tries) for tries in (1, 2) for one in (recipe, same)] == [100, 100, 300, 300]
    assert clocked.plan(dataclasses.replace(recipe, batch=recipe.batch * 2), store, None) == 200.0


@pytest.fixture
def measured(taught: Store) -> Store:
    """A results folder with a measured student."""
    experiment.run(TINY_STUDENT, taught)
    return taught


@pytest.mark.slow
def test_latency_fills_every_part_of_its_file(
    benchmark, measured: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    latency, out = benchmark("latency"), tmp_path / "latency.json"
    monkeypatch.setattr(latency, "FORMS", {"eager": ("fp32",), "onnxruntime": ("fp32", "int8")})
    monkeypatch.setattr(latency.runner, "wait_until_quiet", lambda *_: False)
    argv = ["latency.py", "--results", str(measured.root), "--out", str(out), "--shapes", "64x4", "--threads", "1",
            "--seconds", "0.02", "--samples", "100"]  # fmt: skip
    monkeypatch.setattr("sys.argv", argv)
    latency.main()
    found = read_json(out)
    assert [why for why in found["left_out"] if not why.startswith("plain: torch's ONNX export needs")] == []
    rows = {(row["part"], row["runtime"], row["precision"]) for row in found["rows"] if row["part"] != "plain"}
    both = {("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("eager", "fp32")}
    assert rows == {(part, *form) for part in ("batch1", "batch16") for form in both} | {
        ("fold", "eager", "fp32"), ("distance", "onnxruntime", "int8"),
    }  # fmt: skip
    summary = found["summary"]
    assert summary["batch1"][0]["fastest_fp32"]["times_faster"] > 0
    assert {one["precision"] for one in summary["batch16"]} == {"fp32", "int8"}
    assert summary["fold"][0]["bytes_after"] < summary["fold"][0]["bytes_before"]
    latency.main()
    assert read_json(out)["rows"] == found["rows"], "what is there is not timed again"


@pytest.mark.slow
def test_measure_leaves_reports_and_parts_of_every_student(
    benchmark, measured: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = benchmark("measure")
    some = {name: runtime for name, runtime in measure.runtimes.RUNTIMES.items() if name in ("eager", "packed")}
    monkeypatch.setattr(measure.runtimes, "RUNTIMES", some)
    monkeypatch.setattr(measure.bench.parts, "was_quiet", lambda before: True)  # other tests run beside this one
    argv = ["measure.py", "--results", str(measured.root), "--batch", "1", "--block-batch", "1", "--threads", "1",
            "--seconds", "0.02", "--steps", "forms,best,others,blocks,predict",
            "--out", str(tmp_path / "predict.json")]  # fmt: skip
    monkeypatch.setattr("sys.argv", [*argv, "--dry-run"])
    assert measure.main() == 0 and measured.reports().empty
    monkeypatch.setattr("sys.argv", argv)
    assert measure.main() == 0
    reports = measured.reports()
    assert set(reports["model.model_id"]) == {run.id for run in measured.runs()}, capsys.readouterr().out
    assert set(reports["software.runtime"]) == {"eager"} and set(reports["workload.nfe"]) == {1, 8}
    assert list((measured.root / "devices" / "blocks").rglob("*.json"))
    assert measure.main() == 0 and len(measured.reports()) == len(reports)


def test_the_inside_of_a_runtime_is_kept_beside_the_parts_of_eager(
    benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    measure, networks, store = benchmark("measure"), benchmark("networks"), Store(tmp_path / "results")
    run = networks.random_run(store, DiTConfig(image_size=28, depth=1, width=16, heads=2))
    monkeypatch.setattr(measure, "front", lambda store: [run])
    monkeypatch.setattr(measure, "INSIDE", [("onnxruntime", "fp32")])
    monkeypatch.setattr(measure.bench.parts, "was_quiet", lambda before: True)
    monkeypatch.setattr(measure.bench.machine, "EACH_S", 0.01)  # for each figure of the card
    monkeypatch.setattr(measure.bench.machine, "GEMM", 64)
    monkeypatch.setattr(measure.bench.machine, "SMALL_GEMM", 32)
    monkeypatch.setattr(measure.bench.machine, "COPIED_MB", 1)
    args = Namespace(block_batch=[1, 2], threads=[1])
    measure.inside(store, args, measure.Left(), 2, quiet=False)
    table = store.blocks()
    assert set(table["workload.batch"]) == {1, 2} and set(table["software.runtime"]) == {"onnxruntime"}
    assert table["ms"].ge(0).all() and "blocks.0.attention" in set(table["part"])
    monkeypatch.setattr(measure.bench, "blocks", lambda *_, **__: pytest.fail("measured again"))
    measure.inside(store, args, measure.Left(), 2, quiet=False)


def test_findings_of_an_empty_folder_are_none(benchmark, store: Store) -> None:
    findings = benchmark("findings")
    assert findings.sentences(store) == f"{findings.BEGIN}\n\n{findings.END}"
    assert "## " not in findings.tables(store)


def test_a_finding_that_the_results_do_not_say_is_left_out(
    benchmark, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = benchmark("findings")
    rows = pd.DataFrame({"size": 0.3, "depth": [2, 12], "width": [88, 40], "fd": [1.58, 0.9], "latency_ms": [0.3, 0.6],
                         "speed_up": [200.0, 100.0], "unsteady": [None, True]})  # fmt: skip
    monkeypatch.setattr(findings, "shapes", lambda store: (rows, pd.Series({"fd": 0.2})))
    assert "0.60 ms (unsteady)" in findings.deep_and_thin(store) and "0.30 ms (u" not in findings.deep_and_thin(store)
    assert {"0.90", "1.58", "12", "88"} <= set(findings.deep_and_thin(store).split())
    assert {"100", "4.5", "200", "7.9"} <= set(findings.lost_and_gained(store).split())
    rows["fd"] = [0.9, 1.58]
    assert findings.deep_and_thin(store) == ""

    pair = {"method": "drifting", "compute": "equal images", "seeds": 1, "twin": "4x40 plain", "images": 96000.0,
            "size": "4x40", "runs": ("mine",), "twin_runs": ("plain",), "word": "helps", "trained": 1,
            "low": float("nan")}  # fmt: skip
    weaker = pair | {"ratio": 0.99, "word": "better in direction"}  # of another kind of start, and left out
    for run, fd in [("mine", 0.3), ("plain", 0.4)]:
        write_json(store.root / "runs" / run / "metrics-second.json", {"values": {"fd": {"value": fd}}})
    for ratio, recall, said in [(0.85, 0.52, True), (1.02, 0.52, False), (0.85, 0.44, False)]:
        verdicts, runs = (
            pd.DataFrame([weaker, pair | {"ratio": ratio}]),
            pd.DataFrame({"run": ["mine", "plain"], "recall": [recall, 0.45]}),
        )
        monkeypatch.setattr(findings, "verdicts", lambda _, found=verdicts: found)
        monkeypatch.setattr(type(store), "table", lambda _, found=runs: found)
        sentence = findings.finish(store)
        assert all((part in sentence) == said for part in ("0.85", "0.07", "0.75 at 4x40", "96,000"))
        assert "0.99" not in sentence


def test_neighbours_are_told_best_first_and_apart_from_the_papers_own_methods(benchmark, store: Store, monkeypatch):
    findings = benchmark("findings")
    row = {"compute": "equal images", "seeds": 1, "trained": 1, "low": float("nan"), "high": float("nan"),
           "size": "4x40", "params": 1e5, "word": "better in direction", "ratio": 0.98}  # fmt: skip
    sure = {"seeds": 6, "trained": 6, "low": 0.85, "high": 0.95, "word": "helps", "ratio": 0.9}
    rows = [row | {"method": "manifold"}, row | sure | {"method": "time blocks", "size": "8x56", "params": 3e5},
            row | {"method": "time blocks"}, row | {"method": "manifold", "compute": "wall-clock", "ratio": 0.5},
            *(row | {"method": name, "ratio": 0.5} for name in ("get", "ternary+drifting", "manifold (beta 1)")),
            ]  # fmt: skip
    monkeypatch.setattr(findings, "verdicts", lambda _: pd.DataFrame(rows))
    said = findings.neighbours(store)
    assert "six seeds speak for time blocks**" in said and "0.50" not in said
    assert (
        "`time blocks` has 0.98 at 4x40 (1 seed) and 0.90 at 8x56 (0.85 to 0.95, 6 seeds); `manifold` has 0.98" in said
    )
    monkeypatch.setattr(findings, "verdicts", lambda _: pd.DataFrame(rows[:1]))
    assert "six seeds speak for none**" in findings.neighbours(store)


def test_depth_stops_paying_where_shapes_on_both_sides_of_the_best_are_worse(benchmark, store: Store, monkeypatch):
    findings = benchmark("findings")
    rows = pd.DataFrame({"params": [1e5, 1e5, 1e6], "depth": [16.0, 24.0, 12.0], "width": [20.0, 16.0, 64.0],
                         "heads": [4.0, 2.0, 4.0], "fd": [1.5, 1.6, 0.7], "images": 4e5})  # fmt: skip
    fit = SimpleNamespace(rows=rows, within=0.0009, heads=4.0)
    best = {size: SimpleNamespace(best=level[-1], level=level, inside=size < 1, bracketed=size < 1, aspect=0.94,
                                  low=0.6, high=1.7)
            for size, level in [(0.1, ["8x24 plain 400k", "16x20 plain 400k"]), (1.0, ["12x64"])]}  # fmt: skip
    monkeypatch.setattr(findings, "depths", lambda store: (fit, best))
    said = findings.too_deep(store)
    assert "of 0.1 M 16x20 is the best measured, and 8x24 to 16x20 are not told apart; of 1.0 M 12x64" in said
    assert "12x64 is the best measured, at the edge of those tried. Seeds of one shape spread by 3.0%" in said
    assert "0.94 (0.60 to 1.70)" in said
    assert findings.deep(store)[-2:] == ["| 0.1 | 16x20 1.50; 24x16 1.60 of 2 heads | 0.94 (0.60 to 1.70) | yes |",
                                         "| 1.0 | 12x64 0.70 | not between those | no |"]  # fmt: skip
    best[0.1].bracketed = False
    assert "of 0.1 M" in findings.too_deep(store), "what was measured, wherever the fit has its best"
    assert "0.94" not in findings.too_deep(store)
    best[0.1].inside = False
    assert findings.too_deep(store) == ""


def test_a_form_of_int8_counts_the_multiply_adds_of_the_layers_that_it_coarsens(benchmark) -> None:
    forms, net = benchmark("int8").FORMS, deploy.Deployed(DiTConfig())
    macs, product = cost.of_config(net.config)["macs_deployed"], net.config.tokens * 64**2
    assert forms["plain"].share(net) == 4 * 12 * product / macs
    assert forms["no-last"].share(net) == forms["no-first"].share(net) == 3 * 12 * product / macs
    assert forms["prepared"].share(net) == int8.share(net.config) == 4 * 8 * product / macs
    assert forms["no-first"].coarse(net)[:2] == ["blocks.1.attn.qkv", "blocks.1.attn.proj"]
