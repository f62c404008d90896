"""Timing runs of the store: what a report says, and what a sweep leaves out."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import FOOTPRINT, TINY_STUDENT

from lab import bench, deploy, experiment, runtimes
from lab.bench import machine, parts, timing
from lab.config import DiTConfig, Recipe, Use
from lab.devices import predict, runner
from lab.devices.report import check
from lab.devices.runner import Preset
from lab.diffusion import SOLVER
from lab.results import Run, Store
from lab.runtimes.base import TorchSession
from lab.runtimes.eager import Eager

BRIEF = Preset(iters=6, seconds=0.0, warmup_iters=1, warmup_s=0.0, warmup_cap_s=0.05)


@pytest.fixture(scope="module")
def trained(taught_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a one-step student and its teacher; the tests here write their reports elsewhere."""
    import shutil

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("bench") / "results"
    shutil.copytree(taught_root, root)
    store = Store(root)
    experiment.run(TINY_STUDENT, store, measure=False).set_notes(label="student")
    return store


@pytest.fixture
def student(trained: Store) -> Run:
    return trained.get("student")


@pytest.fixture
def teacher(trained: Store) -> Run:
    return trained.get("tiny")


# --- one timing ---


@pytest.mark.parametrize("scope", bench.SCOPES)
def test_a_timing_is_stored_as_a_report_that_passes_the_check(store: Store, student: Run, scope: str) -> None:
    report = bench.measure(student, store, batch=3, threads=1, scope=scope, preset=BRIEF)
    assert check(report) == []
    assert json.loads((store.root / "devices" / f"{report['report_id']}.json").read_text()) == report
    assert report["workload"] == {"scope": scope, "batch": 3, "height": 8, "width": 8, "nfe": 1}
    assert report["state"]["threads"] == 1 and report["timing"]["iters"] == 6
    assert report["checks"]["output_ok"] is True and report["checks"]["max_abs_vs_ref"] < 1e-5
    assert report["timing"]["load_ms"] > 0 and report["timing"]["first_ms"] > 0
    assert report["timing"]["build_ms"] is None  # eager builds nothing
    assert len(report["state"]["top_processes"]) <= runner.machine.BUSIEST and "cudnn" in report["software"]


def test_a_report_joins_its_run_by_the_hash_of_the_weights(store: Store, student: Run) -> None:
    bench.measure(student, store, preset=BRIEF)
    row = store.reports().iloc[0]
    assert row["model.weights_sha256"] == student.read("student")["weights_sha256"]
    assert row["model.model_id"] == student.id and row["runner.preset"] == "custom" and row["grade"] in "CD"


def test_a_denoiser_is_timed_as_its_whole_sampler(store: Store, teacher: Run) -> None:
    report = bench.measure(teacher, store, solver="heun-3", preset=BRIEF)
    assert report["workload"]["nfe"] == 5 and "solver=heun-3" in report["software"]["flags"]


def test_the_end_to_end_image_starts_at_fresh_noise_each_time(student: Run) -> None:
    session = runtimes.get("eager").open(student.path)
    call = bench.call_of(session, "e2e", 2)
    first, second = call(), call()
    assert first.dtype == np.uint8 and first.shape == (2, 1, 8, 8) and not np.array_equal(first, second)


def test_the_process_keeps_its_own_thread_count(store: Store, student: Run) -> None:
    torch.set_num_threads(2)
    assert bench.measure(student, store, threads=1, preset=BRIEF)["state"]["threads"] == 1
    assert torch.get_num_threads() == 2
    assert bench.measure(student, store, preset=BRIEF)["state"]["threads"] == 2


def test_a_report_says_whose_memory_it_tells(
    store: Store, student: Run, gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [3000.0, 2900.0]
    monkeypatch.setattr(runner.HERE, "free_mb", lambda: free.pop(0) if len(free) > 1 else free[0])
    memory = bench.measure(student, store, preset=BRIEF)["memory"]
    assert (memory["process_peak_mb"], memory["method"]) == FOOTPRINT
    assert (memory["allocator_peak_mb"], memory["system_delta_mb"]) == (2.5, 100.0)
    assert 0 < memory["weights_mb"] < memory["process_peak_mb"]


def test_an_fp32_session_rounds_nothing_to_tf32(student: Run) -> None:
    torch.backends.cudnn.allow_tf32 = True
    session = runtimes.get("eager").open(student.path)
    with session:
        assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cudnn.allow_tf32 is True


def test_a_cpu_has_no_allocator_to_tell_of(store: Store, student: Run) -> None:
    memory = bench.measure(student, store, preset=BRIEF)["memory"]
    assert memory["allocator_peak_mb"] is None and memory["system_delta_mb"] >= 0


def test_a_machine_with_a_rail_tells_energy_gross_and_net_of_idle(
    store: Store, student: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.measure(student, store, preset=BRIEF)["energy"] is None
    watts, warm_up = [2.0], runner.calls.warm_up
    monkeypatch.setattr(runner.HERE, "power_rail", lambda: "VDD_IN")
    monkeypatch.setattr(runner.HERE, "power_w", lambda: watts[-1])
    monkeypatch.setattr(runner.watch, "SAMPLE_S", 0.01)
    monkeypatch.setattr(runner.calls, "warm_up", lambda *given: watts.append(5.0) or warm_up(*given))
    report = bench.measure(student, store, batch=2, preset=BRIEF)
    ms = report["timing"]["p50"] / 2
    assert check(report) == [] and report["state"]["idle_power_w"] == 2.0
    assert report["energy"] == {"mj_per_image": pytest.approx(5 * ms, abs=1e-6), "net_of_idle": False,
                                "mj_per_image_net": pytest.approx(3 * ms, abs=1e-6), "rail": "VDD_IN"}  # fmt: skip


class OnGpu(TorchSession):
    """A session that takes this CPU for a GPU once its inputs are placed."""

    def place(self, z: np.ndarray, y: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.device = torch.device("cpu")
        placed = super().place(z, y)
        self.device = torch.device("cuda", 0)
        return placed


class GpuRuntime(Eager):
    def open(self, path: Path, **options: object) -> TorchSession:
        return OnGpu(path, **options)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, torch_cuda: list[str]) -> list[str]:
    """A stand-in for torch's GPU behind runtime eager; gives what was asked of it."""
    monkeypatch.setattr(timing, "reference", lambda run, session, batch, device, solver: session(
        *bench.fixed_inputs(session, batch)))  # fmt: skip
    monkeypatch.setitem(runtimes.RUNTIMES, "eager", GpuRuntime())
    return torch_cuda


@pytest.mark.parametrize("name", ["student", "tiny"])
def test_a_gpu_is_timed_by_its_own_clock_with_the_hosts_beside(
    store: Store, trained: Store, gpu: list[str], name: str
) -> None:
    report = bench.measure(trained.get(name), store, solver="heun-2", preset=BRIEF)
    timing = report["timing"]
    assert check(report) == [] and report["checks"]["max_abs_vs_ref"] == 0
    assert timing["clock"] == "cuda_event" and 1.5 * timing["p50"] < timing["wall"]["p50"]
    assert timing["iters"] == 6 and len(gpu) == 3  # the first call, the images and what they are held against


def test_from_noise_to_image_is_timed_by_the_host_alone_on_a_gpu_too(
    store: Store, student: Run, gpu: list[str]
) -> None:
    timing = bench.measure(student, store, scope="e2e", preset=BRIEF)["timing"]
    assert timing["clock"] == "wall_sync" and "wall" not in timing and len(gpu) >= 6


class Broken(TorchSession):
    """Fast and wrong: every image is a constant."""

    value = 0.5

    def run(self, inputs: tuple[torch.Tensor, torch.Tensor | None]) -> torch.Tensor:
        return torch.full_like(inputs[0], self.value)


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_a_fast_but_wrong_engine_is_found_out(
    store: Store, student: Run, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    class Wrong(Eager):
        name = "packed"

        def open(self, path: Path, *, device: str = "cpu", threads: int | None = None, precision: str = "fp32",
                 solver: str = SOLVER) -> TorchSession:  # fmt: skip
            return Broken(path, device=device, threads=threads, precision=precision, solver=solver)

    monkeypatch.setattr(Broken, "value", value)
    monkeypatch.setitem(runtimes.RUNTIMES, "packed", Wrong())
    report = bench.measure(student, store, runtime="packed", preset=BRIEF)
    assert report["checks"]["output_ok"] is False
    assert "the output is wrong" in store.reports()["grade_reasons"].iloc[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runtime": "eagre"}, "unknown runtime 'eagre'; did you mean 'eager'"),
        ({"scope": "code"}, "unknown scope 'code'; did you mean 'core'"),
        ({"preset": "fast"}, "unknown preset 'fast'. Known: quick, publishable"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"solver": "euler-3"}, "unknown solver 'euler-3'"),
    ],
)
def test_a_wrong_name_or_number_is_a_sentence_and_leaves_no_report(
    store: Store, teacher: Run, options: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        bench.measure(teacher, store, **({"preset": BRIEF} | options))
    assert store.reports().empty


def test_a_run_without_weights_is_a_sentence(store: Store) -> None:
    run = store.open(Recipe(student=DiTConfig(image_size=8), methods=(Use("denoise"),)))
    with pytest.raises(LookupError, match="no finished network"):
        bench.measure(run, store, preset=BRIEF)
    with pytest.raises(LookupError, match="no finished network to time; its state is 'queued'"):
        bench.sweep([run], store, preset=BRIEF)


def test_publishable_is_refused_while_the_machine_is_busy(
    store: Store, student: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.Machine, "load", lambda self: 99.0)
    with pytest.raises(runner.Refused, match=r"the load is 99\.00"):
        bench.measure(student, store, preset="publishable")
    assert store.reports().empty


def test_a_batch_that_does_not_fit_is_refused_before_it_is_timed(
    store: Store, student: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(runner.HERE, "free_mb", lambda: 300.0)
    words = r"batch 1000000 does not fit: it needs about [\d,]+ MB \(200 for the runtime, .* 300 MB are free; a batch"
    with pytest.raises(runner.TooLarge, match=words):
        bench.measure(student, store, batch=10**6, preset=BRIEF)
    with pytest.raises(runner.TooLarge, match=words):
        bench.sweep([student], store, batches=(10**6,), preset=BRIEF)
    assert store.reports().empty
    capsys.readouterr()
    assert len(bench.sweep([student], store, batches=(10**6, 1), preset=BRIEF)) == 1  # the others are timed
    said = capsys.readouterr()
    assert re.search(f"student by eager is left out: {words}", said.err) and said.out == ""


def test_a_batch_that_takes_most_of_the_memory_is_warned_of(
    store: Store, student: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.HERE, "free_mb", lambda: 240.0)
    with pytest.warns(UserWarning, match="batch 1 is tight: it needs about 200 of the 240 MB that are free"):
        bench.measure(student, store, preset=BRIEF)


# --- many ---


def test_a_sweep_times_each_combination_once(store: Store, student: Run, teacher: Run) -> None:
    options = {"batches": (1, 2), "scopes": ("core", "e2e"), "preset": BRIEF}
    assert len(bench.sweep([student], store, batches=(2,), preset=BRIEF)) == 1
    assert len(bench.sweep([student, teacher], store, **options)) == 7
    assert bench.sweep([student, teacher, student], store, **options) == []
    table = store.reports()
    assert len(table) == 8 and not table.duplicated(["model.model_id", "workload.batch", "workload.scope"]).any()


def test_other_conditions_are_timed_anew(store: Store, teacher: Run) -> None:
    def count(**options: object) -> int:
        return len(bench.sweep([teacher], store, **({"preset": BRIEF, "solver": "heun-2"} | options)))

    assert [count(), count()] == [1, 0]
    assert count(threads=(1, 2)) == 1  # one thread is what the first two had
    assert count(solver="heun-3") == 1
    assert count(precisions=("bf16",)) == 1
    assert count(force=True) == 1


def test_a_report_of_another_machine_does_not_stand_for_this_one(store: Store, student: Run) -> None:
    report = bench.measure(student, store, preset=BRIEF)
    (store.root / "devices" / f"{report['report_id']}.json").unlink()
    store.add_report(report | {"device": report["device"] | {"name": "another board"}})
    assert len(bench.sweep([student], store, preset=BRIEF)) == 1


def test_a_gpu_is_another_device_than_the_cpu_of_the_same_chip(
    store: Store, student: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.device_facts("mps") == bench.device_facts("cpu") | {"gpu": "Apple GPU"}
    report = bench.measure(student, store, preset=BRIEF)
    path = store.root / "devices" / f"{report['report_id']}.json"
    path.write_text(json.dumps(report | {"device": bench.device_facts("mps")}))
    assert len(bench.sweep([student], store, preset=BRIEF)) == 1


def test_a_runtime_that_reads_files_is_timed_on_the_cpu_whatever_the_device(
    store: Store, student: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    asked = []
    monkeypatch.setattr(timing, "measure", lambda run, store, **options: asked.append(
        (options["runtime"], options["device"])) or {})  # fmt: skip
    bench.sweep([student], store, runtimes=("eager", "onnxruntime"), preset=BRIEF, device="mps")
    assert asked == [("eager", "mps"), ("onnxruntime", "cpu")]


def test_a_report_without_a_number_of_threads_stands_for_nothing_and_breaks_nothing(store: Store, student: Run) -> None:
    report = bench.measure(student, store, preset=BRIEF)
    del report["state"]["threads"]
    (store.root / "devices" / f"{report['report_id']}.json").write_text(json.dumps(report))
    assert len(bench.sweep([student], store, preset=BRIEF)) == 1


def test_a_sweep_with_an_unknown_runtime_times_nothing(store: Store, student: Run) -> None:
    with pytest.raises(ValueError, match="unknown runtime"):
        bench.sweep([student], store, runtimes=("eager", "onyx"), preset=BRIEF)
    assert store.reports().empty


def test_a_runtime_that_reads_files_is_timed_in_every_precision_that_it_has(store: Store, student: Run) -> None:
    pytest.importorskip("onnxruntime")
    made = bench.sweep([student], store, runtimes=("eager", "onnxruntime"), precisions=("fp32", "int8"), preset=BRIEF)
    timed = [(r["software"]["runtime"], r["model"]["precision"]) for r in made]
    assert timed == [("eager", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    assert all(check(r) == [] and r["checks"]["output_ok"] for r in made)
    assert [r["model"]["artifact_sha256"] is None for r in made] == [True, False, False]


def test_a_form_that_a_network_has_not_is_left_out_and_refused_alone(store: Store, student: Run, teacher: Run) -> None:
    pytest.importorskip("onnxruntime")
    options = {"runtimes": ("onnxruntime",), "precisions": ("int8-static",), "preset": BRIEF}
    made = bench.sweep([teacher, student], store, **options)
    assert [r["model"]["model_id"] for r in made] == [student.id]
    with pytest.raises(ValueError, match=r"runtime onnxruntime can't run .*: int8-static is for .*of family unet"):
        bench.sweep([teacher], store, **options)


@pytest.mark.parametrize(
    ("runtimes_", "precisions", "words"),
    [
        (("eager",), ("int8",), "runtime eager has none of the precisions int8; it has fp32, bf16"),
        (("eager",), ("fp32", "int9"), "unknown precision of eager 'int9'. Known: bf16, fp32"),
    ],
)
def test_a_precision_that_no_runtime_has_times_nothing(
    store: Store, student: Run, runtimes_: tuple[str, ...], precisions: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        bench.sweep([student], store, runtimes=runtimes_, precisions=precisions, preset=BRIEF)
    assert store.reports().empty


def test_every_precision_of_every_runtime_has_a_tolerance() -> None:
    assert {p for runtime in runtimes.RUNTIMES.values() for p in runtime.precisions} == set(bench.TOLERANCES)


# --- the machine and the parts of a net ---

CEILING = predict.Card(name="ceiling", family="other", memory_mb=1, peak={"fp32": 100.0, "bf16": 200.0},
                       bandwidth=10.0, launch_us=1.0, sources={})  # fmt: skip


def test_the_parts_in_turn_give_the_image_of_the_net() -> None:
    net = deploy.Deployed(DiTConfig(image_size=8, depth=2, width=16, heads=2)).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    z, y = torch.randn(3, 1, 8, 8), torch.tensor([0, 4, 9])
    with torch.inference_mode():
        *_, (last, image) = bench.steps(net, z, y)
        assert last == "head" and torch.equal(image, net(z, y))


def test_every_part_of_the_net_is_timed_beside_its_own_work(student: Run) -> None:
    found = bench.blocks(student, batch=2, threads=1, calls=5, beside=CEILING)
    table, config = found.table, student.recipe.student
    assert list(table["part"]) == list(predict.work(config, 2).parts())
    assert (table["ms"] > 0).all() and table["share"].sum() == pytest.approx(1) and found.whole_ms > 0
    mlp = table.set_index("part").loc["blocks.0.mlp"]
    assert mlp["flops"] == 2 * 2 * 2 * config.tokens * config.width * config.hidden
    assert mlp["of_peak"] == pytest.approx(mlp["flops"] / (mlp["ms"] * 1e6) / 100.0)
    assert mlp["of_bandwidth"] == pytest.approx(mlp["bytes"] / (mlp["ms"] * 1e6) / 10.0)
    assert set(table["limit"]) == {"overhead"}  # 8x8 images: nothing but calls
    assert 0 < found.of_roofline < 1


def test_a_denoiser_has_no_parts_to_time(teacher: Run) -> None:
    with pytest.raises(ValueError, match="of family unet"):
        bench.blocks(teacher, calls=1, beside=CEILING)


def test_the_card_of_this_machine_is_measured_once_and_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "GEMM", 64)
    monkeypatch.setattr(machine, "COPIED_MB", 1)
    monkeypatch.setattr(machine, "EACH_S", 0.0)
    monkeypatch.setattr(runner.HERE, "load", lambda: 2.0 * runner.HERE.cpus)
    monkeypatch.setattr(runner.HERE, "swap_mb", lambda: 0.0)
    busy = bench.card_here(store, 1)
    assert predict.key_of(busy) not in predict.cards(store.root)  # what a busy machine says is used, not kept
    monkeypatch.setattr(runner.HERE, "load", lambda: 0.0)
    made = bench.card_here(store, 1)
    assert made.name == runner.HERE.device()["name"] and made.threads == 1
    assert made.peak["fp32"] > 0 and made.bandwidth > 0 and "copy of 1 MB" in made.sources["bandwidth"]
    monkeypatch.setattr(machine, "card", None)  # not measured again
    assert bench.card_here(store, 1) == made == predict.card_of(predict.key_of(made), store.root)
    assert store.reports().empty  # a card is no report


def test_the_times_of_the_parts_are_kept_beside_the_reports(
    store: Store, student: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "card_here", lambda store, threads: CEILING)
    monkeypatch.setattr(runner.HERE, "swap_mb", lambda: 0.0)
    monkeypatch.setattr(runner.HERE, "load", lambda: 2.0 * runner.HERE.cpus)
    assert bench.keep_blocks(student, store, batch=2, threads=1, calls=3)["whole_ms"] > 0
    assert store.blocks().empty  # what a busy machine says is used, not kept
    monkeypatch.setattr(runner.HERE, "load", lambda: 0.0)
    look = bench.keep_blocks(student, store, batch=2, threads=1, calls=2)
    made = bench.keep_blocks(student, store, batch=2, threads=1, calls=3)
    assert (look["calls"], made["calls"]) == (2, 3)  # a look does not stand for a measurement
    table, config = store.blocks(), student.recipe.student
    assert list(table["part"]) == list(predict.work(config, 2).parts()) and table["ms"].tolist() == [
        part["ms"] for part in made["parts"]]  # fmt: skip
    row = table.iloc[0]
    assert row["model.weights_sha256"] == student.read("student")["weights_sha256"]
    assert (row["workload.batch"], row["state.threads"], row["model.precision"]) == (2, 1, "fp32")
    assert row["device.name"] == runner.HERE.device()["name"] and 0 < row["of_roofline"] < 1
    assert store.reports().empty  # they are no report
    monkeypatch.setattr(parts, "blocks", None)  # not timed again
    assert bench.keep_blocks(student, store, batch=2, threads=1, calls=3) == json.loads(json.dumps(made))


def test_a_part_too_short_to_measure_is_kept_without_a_share_of_the_peak(
    store: Store, student: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [parts._roofline(name, ms, CEILING, student.recipe.student, 2, "fp32")
            for name, ms in (("embed", 0.0), ("head", 0.25))]  # fmt: skip
    table = pd.DataFrame(rows).assign(share=[0.0, 1.0])
    found = bench.Blocks(table, 0.3, CEILING, 2, "fp32", 1, "2.0")
    monkeypatch.setattr(parts, "blocks", lambda *args, **options: found)
    monkeypatch.setattr(parts, "card_here", lambda store, threads: CEILING)
    monkeypatch.setattr(runner.HERE, "load", lambda: 0.0)
    monkeypatch.setattr(runner.HERE, "swap_mb", lambda: 0.0)
    made = bench.keep_blocks(student, store, batch=2, threads=1, calls=3)
    assert made["parts"][0]["of_peak"] is None and made["parts"][1]["of_peak"] > 0
    kept = store.blocks()
    assert kept["ms"].tolist() == [0.0, 0.25] and kept["of_peak"].isna().tolist() == [True, False]


def test_what_is_no_timing_of_parts_is_left_out(store: Store) -> None:
    contents = ["{", '{"schema": "device_blocks.v1"}', '{"schema": "other", "parts": []}']
    for k, content in enumerate(contents):
        path = store.root / "devices" / "blocks" / f"{k}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert store.blocks().empty


@pytest.mark.parametrize("error", [ImportError, Exception])  # onnxruntime's errors are no RuntimeErrors
def test_the_peak_is_the_quickest_product_that_is_here(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def broken(side: int, threads: int) -> None:
        raise error("not here")

    monkeypatch.setattr(machine, "EACH_S", 0.001)
    monkeypatch.setattr(machine, "SMALL_GEMM", 32)
    monkeypatch.setattr(machine, "GEMM", 64)
    makers = bench.PRODUCTS["fp32"] | {"nobody": broken}
    monkeypatch.setitem(bench.PRODUCTS, "fp32", makers)
    found = bench.product("fp32", 1)
    assert found.by in ("torch", "onnxruntime") and found.side in (32, 64) and found.flops == 2 * found.side**3
    monkeypatch.setitem(bench.PRODUCTS, "fp32", {"nobody": broken})
    assert bench.product("fp32", 1) is None


def test_a_precision_without_instructions_is_left_out_in_a_sentence() -> None:
    slow = dataclasses.replace(CEILING, peak={"fp32": 100.0, "bf16": 3.0, "int8": 200.0})
    assert bench.slow_precisions(CEILING) == {}
    assert bench.slow_precisions(slow) == {"bf16": "bf16 is left out: its products reach 3 GFLOP/s on ceiling, "
                                                   "those of fp32 100"}  # fmt: skip


# --- two against each other ---


def test_more_work_is_found_to_take_longer(student: Run, teacher: Run) -> None:
    slow, fast = (runtimes.get("eager").open(run.path, threads=1) for run in (teacher, student))
    found = bench.compare(slow, fast, preset=BRIEF)
    assert found.faster == "b" and found.ratio > 2


@pytest.fixture(autouse=True)
def threads_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
