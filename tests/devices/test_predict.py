"""Estimated latencies: the work of a net, what cards say, and what a fit learns."""

from __future__ import annotations

import dataclasses
import json
import re
import time

import numpy as np
import pandas as pd
import pytest

from lab import cost
from lab.config import LARGEST_NET, DiTConfig, UNetConfig, config_to_json
from lab.devices import predict
from lab.devices.predict import Card, Measured, Rates
from lab.devices.report import check, grade
from lab.results import Store

CARD = Card(name="bench", family="x86_cpu", memory_mb=8000, peak={"fp32": 100.0, "int8": 400.0}, bandwidth=20.0,
            launch_us=2.0, sources={}, threads=2)  # fmt: skip
SHAPES = [DiTConfig(depth=depth, width=width) for depth, width in
          [(2, 32), (4, 64), (6, 96), (3, 128), (6, 128), (8, 192), (12, 48), (8, 256)]]  # fmt: skip
TRUTH = Rates(launch=1.7, efficiency=0.8, half=20.0, memory=0.6, cache=3.0)


def timings(rates: Rates, noise: float = 0.0, batches: tuple[int, ...] = (1, 16), seed: int = 0) -> list[Measured]:
    """Of every shape, by a device that is exactly the roofline with these rates, times some noise."""
    rng, told = np.random.default_rng(seed), dataclasses.replace(CARD, tuned=predict.Tuned(rates, 1.1, 1, "x", "fp32"))
    return [Measured(config, batch, predict.estimate(told, config, batch).p50 * float(np.exp(noise * rng.normal())))
            for config in SHAPES for batch in batches]  # fmt: skip


# --- work ---


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("config", [
    DiTConfig(), DiTConfig(image_size=4, depth=0, num_classes=0),
    DiTConfig(image_size=8, channels=3, out_channels=6, patch=2, depth=3, width=48, heads=3, mlp_hidden=77),
])  # fmt: skip
def test_the_flops_are_twice_the_multiply_adds_of_the_deployed_net(config: DiTConfig, batch: int) -> None:
    assert predict.work(config, batch).flops == 2 * batch * cost.of_config(config)["macs_deployed"]


def test_weights_are_read_once_whatever_the_batch_and_shrink_with_the_precision() -> None:
    config = DiTConfig()
    weights = {key: sum(op.weights for op in predict.work(config, *key).operations)
               for key in [(1, "fp32"), (16, "fp32"), (1, "fp16"), (1, "int8")]}  # fmt: skip
    in_blocks = 4 * 12 * 64**2
    pixels = 2 * 16 * 64  # embedding and head, which stay in floating point
    assert weights[1, "fp32"] == weights[16, "fp32"] == 4 * (in_blocks + pixels) == 2 * weights[1, "fp16"]
    kept = 4 * 4 * 64**2  # the MLPs' second products, too
    assert weights[1, "int8"] == in_blocks - kept + 4 * (kept + pixels)


def test_the_parts_together_are_the_whole() -> None:
    work = predict.work(DiTConfig(), 2, "int8")
    assert list(work.parts())[:3] == ["table", "embed", "blocks.0.norm1"] and list(work.parts())[-1] == "head"
    assert sum(flops for flops, _ in work.parts().values()) == pytest.approx(work.flops)
    assert sum(bytes_ for _, bytes_ in work.parts().values()) == pytest.approx(work.bytes)
    assert sum(predict.parts(CARD, DiTConfig()).values()) > 0


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        (DiTConfig(time=True), {}, "d4w64h4p4 can't be predicted: .* this network is a denoiser"),
        (UNetConfig(), {}, "of family unet"),
        (DiTConfig(width=65), {}, "width 65 is not a multiple of heads 4"),
        (DiTConfig(), {"precision": "fp8"}, "unknown precision 'fp8'"),
        (DiTConfig(), {"batch": 0}, "batch must be at least 1, got 0"),
    ],
)
def test_what_can_not_be_predicted_is_a_sentence(config: DiTConfig, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        predict.work(config, **options)


@pytest.mark.parametrize(
    "plain",
    [
        {"family": "dit", "image_size": 999_999_999_999_999, "patch": 2},  # whose patches would be looked for
        {"depth": 100_000_000},
        {"image_size": 2, "patch": 1, "width": 4, "heads": 1, "channels": 1, "out_channels": -2},  # divides by zero
        {"width": 65},
        {"time": True},
    ],
)
def test_a_net_of_a_report_that_no_device_could_run_has_no_estimate_and_takes_no_time(plain: dict[str, object]) -> None:
    start = time.monotonic()
    assert predict.config_in(plain) is None
    assert time.monotonic() - start < 1


def test_the_largest_net_that_is_read_is_gone_through_at_once() -> None:
    config = predict.config_in({"image_size": LARGEST_NET["image_size"], "depth": LARGEST_NET["depth"]})
    start = time.monotonic()
    assert predict.work(config).ops > LARGEST_NET["depth"]
    assert time.monotonic() - start < 2


# --- cards ---


@pytest.mark.parametrize("key", predict.cards())
def test_every_card_gives_an_estimate_and_the_source_of_each_figure(key: str) -> None:
    card = predict.card_of(key)
    assert {f"peak.{p}" for p in card.peak} | {"bandwidth", "launch_us"} == set(card.sources)
    found = predict.estimate(card, DiTConfig())
    assert 0 < found.low < found.p50 < found.high < 100


def test_more_power_is_never_slower() -> None:
    modes = [predict.card_of(f"jetson-orin-nano-{watts}w") for watts in (7, 15, 25)]
    for config in SHAPES:
        found = [predict.estimate(card, config, precision="fp16").p50 for card in modes]
        assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bandwidth": 0}, "x.bandwidth must be a number above 0, got 0"),
        ({"peak": {"fp32": "fast"}}, "x.peak.fp32 must be a number above 0, got 'fast'"),
        ({"peak": {"fp64": 1.0}}, "x.peak.fp64 has no source"),
        ({"clock": 1}, "unknown field of x 'clock'"),
        ({"names": "Pi ("}, "x.names is 'Pi (', no pattern: missing )"),
    ],
)
def test_a_card_with_a_wrong_figure_is_refused_by_name(change: dict[str, object], words: str) -> None:
    plain = json.loads(predict.CARDS_FILE.read_text())["raspberry-pi-5"]
    with pytest.raises(ValueError, match=re.escape(words)):
        predict.card_from_json(plain | change, "x")


def test_a_fitted_card_comes_back_from_its_file(store: Store) -> None:
    sources = {"peak.fp32": "a", "peak.int8": "b", "bandwidth": "c", "launch_us": "d"}
    fitted = predict.fit(dataclasses.replace(CARD, sources=sources), timings(TRUTH), runtime="eager")
    path = predict.save_card(fitted, store.root)
    assert path.name == "bench-2-threads.json" and predict.card_of("bench-2-threads", store.root) == fitted
    with pytest.raises(ValueError, match="unknown device card 'bench'"):
        predict.card_of("bench", store.root)


# --- the fit ---


def test_a_fit_predicts_shapes_that_it_has_not_seen() -> None:
    seen, unseen = timings(TRUTH)[::2], timings(TRUTH)[1::2]
    fitted = predict.fit(CARD, seen)
    errors = [abs(predict.estimate(fitted, t.config, t.batch).p50 / t.ms - 1) for t in unseen]
    assert np.median(errors) < 0.05
    before = [abs(predict.estimate(CARD, t.config, t.batch).p50 / t.ms - 1) for t in unseen]
    assert np.median(errors) < np.median(before) / 2


def test_the_interval_widens_with_the_noise_and_holds_most_of_other_timings() -> None:
    calm, loud = (predict.fit(CARD, timings(TRUTH, noise)) for noise in (0.02, 0.2))
    assert loud.tuned.spread > 1.25 * calm.tuned.spread
    anew = timings(TRUTH, 0.2, seed=1)
    inside = [e.low <= t.ms <= e.high for t in anew for e in [predict.estimate(loud, t.config, t.batch)]]
    assert np.mean(inside) >= 0.75


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_rates_stay_above_0_even_where_the_timings_fit_no_roofline(factor: float) -> None:
    odd = [dataclasses.replace(t, ms=factor) for t in timings(TRUTH, batches=(1,))]  # the same time for every shape
    rates = predict.fit(CARD, odd).tuned.rates
    assert min(dataclasses.astuple(rates)) > 0 and np.isfinite(dataclasses.astuple(rates)).all()


def told(timings: list[Measured]) -> pd.DataFrame:
    """Reports of these timings."""
    return pd.DataFrame([row(**{"timing.p50": t.ms, "workload.batch": t.batch,
                                "model.config": config_to_json(t.config)}) for t in timings])  # fmt: skip


def test_few_timings_or_few_shapes_fit_nothing_for_their_interval_would_be_false() -> None:
    many = timings(TRUTH, batches=(1, 4, 16))
    few_shapes = [t for t in many if t.config in SHAPES[:3]] * 2
    assert predict.fitted(CARD, told(many)).tuned.timings == 24
    for too_few in (many[:1], many[:9], few_shapes):
        assert predict.fitted(CARD, told(too_few)) == CARD
    with pytest.raises(ValueError, match="too little of other shapes was timed with eager fp32 on bench, 2 threads: 9"):
        predict.fitted(CARD, told(many[:9]), runtime="eager")
    with pytest.raises(ValueError, match="no other shape was timed with openvino"):
        predict.fitted(CARD, told(many), runtime="openvino")
    with pytest.raises(ValueError, match=r"unknown runtime 'onnx'\. Known: compiled, eager"):
        predict.fitted(CARD, told(many), runtime="onnx")


def test_a_fit_on_one_precision_says_nothing_about_another() -> None:
    fitted = predict.fit(CARD, timings(TRUTH))
    with pytest.raises(ValueError, match="fitted on fp32, which says nothing about int8"):
        predict.estimate(fitted, DiTConfig(), precision="int8")


def test_nothing_to_fit_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="nothing to fit: no timing of eager fp32 on bench, 2 threads"):
        predict.fit(CARD, [], runtime="eager")
    with pytest.raises(ValueError, match=r"above 0 ms, got 0\.0"):
        predict.fit(CARD, [Measured(DiTConfig(), 1, 0.0)])


# --- reports ---


def row(**changes: object) -> dict[str, object]:
    return {
        "provenance": "measured", "grade": "C", "device.name": "bench", "software.runtime": "eager",
        "model.precision": "fp32", "workload.scope": "core", "workload.nfe": 1, "workload.batch": 4,
        "state.threads": 2, "state.power_mode": None, "timing.p50": 1.5, "model.weights_sha256": "a",
        "model.config": {"family": "dit", "width": 32},
    } | changes  # fmt: skip


@pytest.mark.parametrize("other", [
    {"provenance": "estimated", "grade": "F"}, {"grade": "D"}, {"device.name": "board"},
    {"software.runtime": "openvino"}, {"model.precision": "int8"}, {"workload.scope": "e2e"},
    {"state.threads": 1}, {"workload.nfe": 8},
    {"model.config": None}, {"model.config": {"family": "unet"}},
])  # fmt: skip
def test_a_fit_learns_from_sound_timings_of_the_same_device_and_runtime_alone(other: dict[str, object]) -> None:
    found = predict.measured(pd.DataFrame([row(), row(**other)]), CARD, "eager")
    assert found == [Measured(DiTConfig(width=32), 4, 1.5, "a")]


@pytest.mark.parametrize("card", [CARD, predict.fit(CARD, timings(TRUTH), runtime="openvino")], ids=["card", "fitted"])
def test_an_estimate_is_a_sound_report_of_grade_f_with_its_basis(card: Card, store: Store) -> None:
    report = predict.as_report(card, DiTConfig(), 16, model={"weights_sha256": "a" * 64, "params": 300_000})
    assert check(report) == [] and grade(report).letter == "F"
    assert store.add_report(report) == store.add_report(predict.as_report(card, DiTConfig(), 16, model={
        "weights_sha256": "a" * 64, "params": 300_000}))  # fmt: skip
    (kept,) = store.reports().to_dict("records")
    assert kept["provenance"] == "estimated" and kept["workload.batch"] == 16
    assert ("fitted on 16 timings of openvino" in kept["source.note"]) == (card.tuned is not None)
