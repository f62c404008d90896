"""What the benchmarks keep of what they measured, and whose measurements they take."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from lab.devices import runner
from lab.results import Store

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
