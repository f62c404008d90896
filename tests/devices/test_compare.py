"""Reports side by side: whose they are, ratios, precisions, and shapes that are slower than their size."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from lab.config import DiTConfig, config_to_json
from lab.devices import compare, predict
from lab.devices.compare import Ratio
from lab.devices.predict import Card
from lab.results import Run, Store, reports_of, table_of

CARD = Card(name="bench", family="x86_cpu", memory_mb=8000, peak={"fp32": 100.0, "int8": 400.0}, bandwidth=20.0,
            launch_us=8.0, sources={}, threads=2)  # fmt: skip


def report(name: str = "a", ms: float = 1.0, width: float = 0.02, **changes: object) -> dict[str, object]:
    """A row of the store's reports."""
    return {
        "report_id": f"{name}-{ms}-{sorted(changes.items())}", "created_utc": "2026-11-20T10:00:00Z",
        "provenance": "measured", "grade": "C", "grade_reasons": ("preset quick, not publishable",),
        "device.name": "bench", "device.family": "x86_cpu", "state.power_mode": None, "state.threads": 2,
        "software.runtime": "onnxruntime", "model.precision": "fp32", "workload.batch": 1, "workload.scope": "core",
        "workload.nfe": 1, "model.model_id": f"run-{name}", "model.weights_sha256": f"hash-{name}", "model.params": 1e5,
        "model.macs": 1e6, "timing.p50": ms, "timing.p50_ci95": [ms * (1 - width), ms * (1 + width)],
        "timing.p90": ms * 1.1, "timing.p99": ms * 1.5, "checks.output_ok": True, "checks.max_abs_vs_ref": 1e-6,
    } | changes  # fmt: skip


RUNS = table_of([{"run": "toy-a", "label": "toy-a", "shape": "small", "method": "pairs", "data": "toy",
                  "weights_sha256": "hash-a"}])  # fmt: skip


def rows(*reports: dict[str, object]) -> pd.DataFrame:
    return compare.named(reports_of(reports), RUNS)


# --- names ---


def test_a_report_is_named_by_the_run_that_has_its_weights_else_by_its_own_model() -> None:
    found = rows(report("a"), report("b"))
    assert found["name"].tolist() == ["small", "run-b"]
    assert found["run"].tolist() == ["toy-a", ""] and found["data"].tolist() == ["toy", ""]
    assert found["form"].tolist() == ["onnxruntime fp32"] * 2


def test_a_gpu_beside_the_cpu_of_one_chip_is_another_form() -> None:
    chip = {"device.name": "M2, 8 CPUs", "software.runtime": "eager"}
    found = rows(report(**chip), report(ms=0.5, **chip, **{"device.gpu": "Apple GPU"}),
                 report(**{"device.name": "H100", "device.gpu": "H100"}))  # fmt: skip
    assert found["form"].tolist() == ["eager fp32", "eager on GPU fp32", "onnxruntime fp32"]
    assert compare.precisions(found[:2])["verdict"].tolist() == ["reference", "reference"]
    assert compare.differences(*found[:2].to_dict("records"))["condition"].tolist() == ["GPU"]


def test_a_board_in_two_power_modes_is_two_devices() -> None:
    jetson = {"device.family": "jetson", "device.name": "Orin"}
    found = rows(report(**jetson, **{"state.power_mode": "15W"}), report(**jetson, **{"state.power_mode": "25W"}),
                 report(**{"state.power_mode": "performance"}))  # fmt: skip
    assert found["device"].tolist() == ["Orin, 15W", "Orin, 25W", "bench"]


def test_columns_that_no_report_has_are_there_and_empty() -> None:
    found = rows(report())
    assert found["energy.mj_per_image"].isna().all()
    assert compare.named(reports_of([]), RUNS).empty


def test_of_a_condition_the_best_graded_then_the_newest_report_counts() -> None:
    found = rows(report(ms=1.0, grade="C"), report(ms=2.0, grade="B"),
                 report(ms=3.0, grade="B", created_utc="2026-11-21T10:00:00Z"))  # fmt: skip
    assert compare.best(found, ["name", "form"])["timing.p50"].tolist() == [3.0]
    found = rows(report(ms=2.0, grade="B", **{"runner.preset": "publishable"}), report(ms=1.0, grade="C"),
                 report(ms=3.0, grade="B", created_utc="2026-11-21T10:00:00Z"))  # fmt: skip
    assert compare.best(found, ["name", "form"])["timing.p50"].tolist() == [2.0]  # the longer of one grade


# --- two reports ---


def test_a_ratio_spans_what_both_intervals_allow_and_claims_no_more() -> None:
    slow, near, quick = (rows(report(ms=ms)).iloc[0] for ms in (2.0, 1.02, 1.0))
    found = compare.ratio(slow, quick)
    assert (found.value, found.longer) == (2.0, True)
    assert found.low == pytest.approx(1.96 / 1.02) and found.high == pytest.approx(2.04 / 0.98)
    assert compare.ratio(near, quick).longer is None
    assert compare.ratio_said(near, quick).endswith("neither is shown to be faster.")
    assert compare.ratio_said(slow, quick).endswith("the second is faster.")
    assert compare.ratio_said(quick, slow).endswith("the first is faster.")


def test_without_an_interval_nothing_is_claimed() -> None:
    a, b = (rows(report(ms=ms, **{"timing.p50_ci95": None})).iloc[0] for ms in (9.0, 1.0))
    assert compare.ratio(a, b).longer is None and "no interval" in compare.ratio_said(a, b)


def test_what_two_reports_do_not_share_is_named() -> None:
    a, b = rows(report(), report(**{"workload.batch": 16, "state.threads": None})).to_dict("records")
    found = compare.differences(a, b)
    assert found.values.tolist() == [["batch", "1", "16"], ["threads", "2", "not known"]]
    assert compare.differences(a, a).empty


# --- precisions ---


def test_a_precision_pays_only_where_its_interval_excludes_it_being_slower() -> None:
    found = compare.precisions(rows(
        report(ms=1.0), report(ms=0.5, **{"model.precision": "int8"}), report(ms=1.01, **{"model.precision": "fp16"}),
        report(ms=2.0, **{"model.precision": "w4a32"}),
        report(ms=0.4, **{"model.precision": "bf16", "software.runtime": "openvino"}),
    )).set_index("model.precision")  # fmt: skip
    assert found["verdict"].to_dict() == {"fp32": "reference", "fp16": "not shown to pay", "int8": "pays",
                                          "w4a32": "does not pay", "bf16": ""}  # fmt: skip
    assert found.loc["int8", "speed_up"] == pytest.approx(2.0) and math.isnan(found.loc["bf16", "speed_up"])


def test_a_wrong_image_never_pays() -> None:
    wrong = report(ms=0.1, **{"model.precision": "int8", "checks.output_ok": False, "grade": "D"})
    (row,) = compare.precisions(rows(report(), wrong)).to_dict("records")[1:]
    assert row["verdict"] == "draws wrong images"
    assert compare.pays_said(row).startswith("int8 in onnxruntime draws wrong images")


def test_a_remark_says_what_the_images_lose() -> None:
    known = {"artefact.max_abs": 0.2, "artefact.mean_abs": 0.01, "artefact.perceptual": 0.003, "artefact.images": 64}
    quick = report(ms=0.5, **{"model.precision": "int8", **known})
    reference, row = compare.precisions(rows(report(), quick)).to_dict("records")
    assert compare.pays_said(reference) == ""
    said = compare.pays_said(row)
    assert said.startswith("int8 in onnxruntime pays: 2.00 times (1.92 to 2.08) as fast as fp32.")
    assert said.endswith("0.200 at most (of [-1, 1], 64 noises, perceptual distance 0.00300).")
    doubtful = compare.precisions(rows(report(), report(ms=0.5, grade="D", **{"model.precision": "int8"})))
    assert "graded D" in compare.pays_said(doubtful.iloc[1].to_dict())


# --- size ---


def shaped(depth: int, width: int, ms: float | None = None, factor: float = 1.0) -> dict[str, object]:
    config = DiTConfig(depth=depth, width=width)
    params = depth * 18.0 * width**2
    ms = ms if ms is not None else factor * 1e-4 * params**0.7
    return report(config.shape, ms, **{"model.config": config_to_json(config), "model.params": params,
                                       "model.macs": 50 * params})  # fmt: skip


SHAPES = [shaped(2, 32), shaped(2, 64), shaped(4, 96), shaped(8, 128), shaped(16, 32, factor=2.0)]


@pytest.mark.parametrize("by", list(compare.SIZES))
def test_the_shape_that_is_slow_for_its_size_comes_first_and_says_why(by: str) -> None:
    table = compare.sizes(rows(*SHAPES), by, CARD)
    assert table["shape"].iloc[0] == "d16w32h4p4" and table["than_size"].iloc[0] > compare.SLOWER
    assert np.log(table["than_size"]).sum() == pytest.approx(0, abs=1e-9)
    said = compare.slow_said(table.iloc[0].to_dict(), by)
    assert said.startswith("run-d16w32h4p4 takes") and "(overhead)" in said and "operations" in said
    shares = table[list(predict.CAUSES)].sum(axis=1)
    assert shares.tolist() == pytest.approx([1.0] * len(table))


def test_a_deep_thin_net_has_more_overhead_and_a_wide_one_more_arithmetic() -> None:
    table = compare.sizes(rows(*SHAPES), "params_m", CARD).set_index("shape")
    assert table.loc["d16w32h4p4", "overhead"] > table.loc["d8w128h4p4", "overhead"]
    assert table.loc["d16w32h4p4", "arithmetic"] < table.loc["d8w128h4p4", "arithmetic"]


def test_without_a_card_the_residual_of_size_stands_alone() -> None:
    table = compare.sizes(rows(*SHAPES), "params_m", None)
    assert table["roofline"].isna().all() and table["than_size"].notna().all()
    assert compare.slow_said(table.iloc[0].to_dict(), "params_m").endswith("M parameters say.")


def test_two_sizes_make_no_line_and_other_nets_no_shape() -> None:
    assert compare.sizes(rows(*SHAPES[:2]), "params_m", CARD)["by_size"].isna().all()
    foreign = report("x", **{"model.config": {"family": "unet"}}), report("y", **{"model.config": {"depth": "no"}})
    assert compare.sizes(rows(*foreign), "params_m", CARD).empty


ORIN = {"device.name": "NVIDIA Jetson Orin Nano Developer Kit", "device.family": "jetson", "device.gpu": "Orin",
        "state.power_mode": "15W"}  # fmt: skip
PI = {"device.name": "Raspberry Pi 5 Model B Rev 1.0", "device.family": "rpi", "state.threads": 4,
      "state.power_mode": "governor performance"}  # fmt: skip
LAPTOP = {"device.name": "12th Gen Intel(R) Core(TM) i5-1240P, 16 CPUs", "state.threads": 4}


@pytest.mark.parametrize(("device", "key"), [
    (ORIN, "jetson-orin-nano-15w"), (ORIN | {"state.power_mode": "25W", "state.threads": None}, "jetson-orin-nano-25w"),
    (PI, "raspberry-pi-5"), (LAPTOP, "laptop-i5-1240p"), ({"device.name": "Jetson Orin Nano 8 GB"} | {
        k: ORIN[k] for k in ("device.gpu", "state.power_mode")}, "jetson-orin-nano-15w"),
])  # fmt: skip
def test_a_card_of_the_lab_is_found_by_what_a_board_calls_itself(device: dict[str, object], key: str) -> None:
    assert compare.card_for(predict.cards().values(), report(**device)) == predict.card_of(key)
    learned = predict.measured(pd.DataFrame([shaped(4, 64) | device]), predict.card_of(key), "onnxruntime")
    assert len(learned) == 1


@pytest.mark.parametrize("device", [
    ORIN | {"state.power_mode": None}, ORIN | {"device.gpu": None}, ORIN | {"device.name": "NVIDIA Jetson AGX Orin"},
    PI | {"device.name": "Raspberry Pi 500"}, PI | {"state.threads": 1}, LAPTOP | {"device.name": "i5-1240PX"},
])  # fmt: skip
def test_a_card_says_nothing_of_another_mode_device_processor_or_number_of_threads(device: dict[str, object]) -> None:
    assert compare.card_for(predict.cards().values(), report(**device)) is None


def test_the_card_that_was_measured_of_a_machine_comes_first() -> None:
    mine = dataclasses.replace(CARD, name=LAPTOP["device.name"], threads=4)
    assert compare.card_for([*predict.cards().values(), mine], report(**LAPTOP)) is mine
    assert compare.card_for([CARD], report()) is CARD
    assert compare.card_for([CARD], report(**{"state.threads": 1})) is None


def test_a_roofline_above_what_was_measured_is_called_so() -> None:
    table = compare.sizes(rows(*SHAPES), "params_m", CARD)
    row = table.iloc[0].to_dict()
    said = compare.slow_said(row | {"roofline": row["ms"] * 2, "than_roofline": 0.5}, "params_m")
    assert "more than it takes" in said and "0.500 times" not in said
    said = compare.slow_said(row | {"roofline": row["ms"] / 2, "than_roofline": 2.0}, "params_m")
    assert "; it takes 2.00 times the roofline's " in said


# --- the parts of a net ---


def block(part: str, ms: float, roof: float, limit: str, **changes: object) -> dict[str, object]:
    """A row of the store's blocks."""
    return {"model.model_id": "toy-a", "created_utc": "2026-11-20T10:00:00+00:00", "device.name": "bench",
            "workload.batch": 1, "state.threads": 2, "software.runtime": "eager", "model.precision": "fp32",
            "part": part, "ms": ms, "roofline_ms": roof, "limit": limit,
            } | changes  # fmt: skip


BLOCKS = [block("table", 0.1, 0.0, "overhead"), block("blocks.0.norm1", 0.1, 0.01, "overhead"),
          block("blocks.0.attention", 0.4, 0.05, "overhead"), block("blocks.1.attention", 0.4, 0.05, "overhead"),
          block("blocks.1.norm2", 0.1, 0.01, "overhead"), block("blocks.1.mlp", 0.4, 0.3, "arithmetic"),
          block("head", 0.1, 0.01, "overhead")]  # fmt: skip


def test_parts_are_added_up_by_kind_and_a_sentence_says_what_they_wait_for() -> None:
    table = compare.parts(pd.DataFrame(BLOCKS), "bench", 1, 2)
    assert table.set_index("kind")["ms"].to_dict() == pytest.approx(
        {"ends": 0.2, "norms": 0.2, "attention": 0.8, "MLP": 0.4})  # fmt: skip
    assert compare.parts_said("small", table) == (
        "small: 50% of 1.60 ms go to attention, and 75% pass where neither arithmetic nor memory is busy: starting "
        "operations holds it up. At its best the machine would need 0.430 ms, 27% of that.")  # fmt: skip
    whole = compare.parts(pd.DataFrame(BLOCKS).assign(whole_ms=0.86), "bench", 1, 2)
    assert compare.parts_said("small", whole).endswith(
        "That is what its parts add up to, timed one by one; a call in one go takes 0.860 ms. At its best the machine "
        "would need 0.430 ms, 50% of that.")  # fmt: skip


@pytest.mark.parametrize("other", [
    {"device.name": "board"}, {"workload.batch": 16}, {"state.threads": 1}, {"ms": "long"},
    {"software.runtime": "openvino"}, {"model.precision": "int8"}, {"part": None},
    {"created_utc": "2026-11-19T10:00:00+00:00"},
])  # fmt: skip
def test_parts_of_other_conditions_older_ones_and_broken_ones_do_not_count(other: dict[str, object]) -> None:
    table = compare.parts(pd.DataFrame([*BLOCKS, block("head", 9.0, 9.0, "memory") | other]), "bench", 1, 2)
    assert table["ms"].sum() == pytest.approx(1.6)
    assert compare.parts(pd.DataFrame(), "bench", 1, 2).empty


def test_the_forms_whose_parts_are_known_are_listed_eager_first() -> None:
    other = {"software.runtime": "onnxruntime", "model.precision": "int8"}
    rows = [*BLOCKS, block("head", 1.0, 1.0, "memory", **other),
            block("head", 1.0, 1.0, "memory", **other | {"state.threads": 1, "model.precision": "fp32"})]  # fmt: skip
    assert list(compare.parted(pd.DataFrame(rows), "bench", 1, 2)) == ["eager fp32", "onnxruntime int8"]
    assert compare.parted(pd.DataFrame(), "bench", 1, 2) == {}


# --- what nobody measured here ---


def test_estimates_are_rows_of_grade_f_and_what_has_none_is_a_sentence(store: Store) -> None:
    from lab.config import Recipe

    run = store.open(Recipe(steps=0))
    cards = [predict.card_of(key) for key in ("jetson-orin-nano-15w", "laptop-i5-1240p")]
    made, skipped = compare.estimates(cards, {"small": run}, reports_of([]), precision="fp16")
    (row,) = compare.as_rows(made, table_of([])).to_dict("records")
    assert (row["grade"], row["provenance"], row["device"]) == ("F", "estimated", "Jetson Orin Nano 8 GB, 15W")
    assert row["low"] < row["timing.p50"] < row["high"]
    assert len(skipped) == 1 and skipped[0].startswith("small on Intel Core i5-1240P") and "fp16" in skipped[0]


def test_an_estimate_is_of_the_network_that_is_shipped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruned run's recipe has the depth that it was trained with."""
    from lab.config import Recipe

    deep = Recipe(steps=0).with_(student__depth=12)
    pruned, short = deep.with_(seed=1), deep.with_(student__depth=4)
    runs = {name: store.open(recipe) for name, recipe in (("deep", deep), ("pruned", pruned), ("short", short))}
    shipped = {runs["pruned"].id: short.student}
    monkeypatch.setattr(Run, "config", property(lambda run: shipped.get(run.id, run.recipe.student)))
    made, _ = compare.estimates([predict.card_of("raspberry-pi-5")], runs, reports_of([]))
    deep_ms, pruned_ms, short_ms = (report["timing"]["p50"] for report in made)
    assert pruned_ms == short_ms < 0.6 * deep_ms


def test_every_published_figure_has_its_source_and_is_of_grade_e() -> None:
    note, table = compare.published()
    assert "comparable" in note and len(table) >= 10
    assert table[["system", "device", "said", "task", "source"]].map(bool).all(axis=None)
    assert set(table["grade"]) == {"E"} and set(table["provenance"]) == {"published"}
    assert (table["ms"].dropna() > 0).all() and table["url"].dropna().str.startswith("https://").all()


def test_a_ratio_says_itself() -> None:
    assert str(Ratio(2.0, 1.9, 2.1)) == "2.00 times (1.90 to 2.10)"
