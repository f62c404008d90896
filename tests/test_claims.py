from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from test_arms import GAINS, GET, run, seeds, timed

from lab import claims
from lab.claims.evidence import Evidence, because, of_words, too_few
from lab.cli import main, parser
from lab.results import Store, table_of, write_json

COMMITTED = Path(__file__).parent.parent / "results"
NONE = Store(Path("/nonexistent")).reports()
OTHER = {"shape": "d8w24h4p4", "depth": 8.0, "width": 24.0}  # a second plain shape of the size
SLOWER = [1 / gain for gain in GAINS]


def of(name: str, rows: list[dict[str, object]], path: Path, calibration: object = None) -> dict[str, object]:
    if calibration:
        write_json(path / "benchmarks" / "arms.json", calibration)
    (claim,) = [claim for claim in claims.CLAIMS if claim.name == name]
    return vars(claim.judge(Evidence(Store(path), table_of(rows), NONE)))


def taught(factors: list[float], *, later: list[float] | None = None) -> tuple[list[dict], object]:
    """Plain, and an assistant's students at equal images; `later` at equal time too, with the guide's share."""
    plain, ta = seeds(), seeds("teaching_assistant", factors)
    rows = [*plain, *ta]
    for steps in (12500, 16500) if later else ():
        rows += seeds(factors=later, steps=steps)
    return rows, timed((plain[0], 1.0, 0.0), (ta[0], 2.0, 40.0))


def geometric(mine: list[float], others: list[float]) -> float:
    """The geometric mean of the ratios."""
    return math.prod(a / b for a, b in zip(mine, others)) ** (1 / len(mine))


@pytest.mark.parametrize(("words", "whole", "status"), [
    (["helps", "helps"], True, claims.HOLDS), (["helps"], False, claims.PARTLY),
    (["helps", "hurts"], True, claims.PARTLY),
    (["hurts", "no difference"], True, claims.DIFFERS), (["hurts", "open"], True, claims.UNTESTED),
    ([], True, claims.UNTESTED),
])  # fmt: skip
def test_a_claim_of_help_holds_where_every_verdict_says_so_and_none_is_missing(words, whole, status):
    assert of_words(words, whole=whole) == status


def test_an_assistant_that_helps_at_equal_images_and_equal_time_makes_the_claim_hold(tmp_path: Path):
    later = [0.95, 0.96, 0.95, 0.95, 0.97, 0.96]
    rows, calibration = taught(GAINS, later=later)
    found = of("teaching-assistant", rows, tmp_path, calibration)
    assert found["status"] == claims.HOLDS and found["why"] == ""
    assert found["value"] == pytest.approx(geometric(GAINS, later)) and found["low"] < found["high"] < 1
    assert {one["compute"] for one in found["details"]} == {"equal images", "wall-clock", "with the guide"}
    assert len(found["runs"]) == 4 * 6


def test_without_equal_time_it_holds_in_part_and_the_reason_names_what_is_missing(tmp_path: Path):
    found = of("teaching-assistant", taught(GAINS)[0], tmp_path)
    assert found["status"] == claims.PARTLY and "wall-clock, with the guide: its updates are not timed" in found["why"]


def test_an_assistant_that_hurts_is_told_so(tmp_path: Path):
    assert of("teaching-assistant", taught(SLOWER)[0], tmp_path)["status"] == claims.DIFFERS


@pytest.mark.parametrize(("count", "said"), [(1, "1 of 6 paired seeds tell a direction alone"),
                                             (3, "3 of 6 paired seeds tell a direction and an interval")])  # fmt: skip
def test_few_seeds_leave_a_claim_untested_whatever_they_say(count: int, said: str, tmp_path: Path):
    found = of("multi-in-one", [*seeds(), *seeds("multi_in_one", GAINS[:count])], tmp_path)
    assert found["status"] == claims.UNTESTED and said in found["why"] and "0.9" in found["ours"]
    assert math.isnan(found["low"]) == (count == 1)
    assert too_few(3).endswith("a sign-flip test of 3 can't fall under 0.25")


def test_get_is_beaten_at_a_budget_by_the_best_arm_of_its_size(tmp_path: Path):
    worse = [1.30, 1.26, 1.24, 1.28, 1.31, 1.27]
    get = seeds(factors=worse, **GET)
    rows = [*seeds(), run(**OTHER), *seeds("manifold", GAINS), *get]
    found = of("better-than-get", rows, tmp_path, timed((rows[0], 1.0, 0.0), (rows[7], 1.0, 0.0), (get[0], 1.01, 0.0)))
    assert found["status"] == claims.HOLDS and found["value"] == pytest.approx(geometric(GAINS, worse))
    assert "manifold at 0.1 M" in found["ours"] and {one["twin"] for one in found["details"]} == {"GET"}
    larger = [run(params=3e5, shape=f"d{d}w60h4p4", depth=float(d), width=60.0) for d in (4, 6)]
    diverged = [row | {"lr": 0.05, "fd": 9 * row["fd"], "run": f"{row['run']}-fast"} for row in get]
    rows = [row | {"lr": 0.01} for row in rows]
    again = of("better-than-get", [*rows, *diverged], tmp_path)
    assert again["value"] == pytest.approx(of("better-than-get", rows, tmp_path)["value"])  # its best rate counts
    partly = of("better-than-get", [*rows, *larger], tmp_path)
    assert partly["status"] == claims.PARTLY and "0.3 M: none of 6 paired seeds" in partly["why"]


def test_the_shapes_trade_all_three_where_the_nearest_of_a_size_is_surely_not_the_fastest(monkeypatch, tmp_path: Path):
    from lab import choose

    frame = pd.DataFrame([
        {"params": 1e5 * n, "shape": f"{n}{d}", "name": f"{d}-{n}", "family": "dit", "images": 400.0, "run": f"{d}{n}",
         "fd": fd / n, "fd_low": 0.97 * fd / n, "fd_high": 1.03 * fd / n, "latency_ms": ms * n,
         "latency_low": 0.97 * ms * n, "latency_high": 1.03 * ms * n}
        for n in (1, 3) for d, fd, ms in (("deep", 1.4, 2.0), ("wide", 1.9, 1.0))
    ])  # fmt: skip
    monkeypatch.setattr(choose, "candidates", lambda *_: frame)
    found = of("trade-off", seeds(), tmp_path)
    assert found["status"] == claims.HOLDS and found["value"] == pytest.approx(1.9 / 1.4 * 3)
    frame.loc[frame["name"] == "wide-3", ["fd", "fd_low"]] = 0.4, 0.39  # the widest is best of the larger size
    assert of("trade-off", seeds(), tmp_path)["status"] == claims.PARTLY


# --- the neighbours -----------------------------------------------------------------------------


def student(name: str, method: str, **columns: object) -> dict[str, object]:
    return run(method.rpartition("+")[2], **columns) | {"run": name, "label": f"the {name}", "method": method}


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch):
    def set_to(**by_run: dict[str, object]) -> None:
        monkeypatch.setattr(Evidence, "facts", lambda self, run, method: by_run.get(run, {}))

    return set_to


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch):
    def set_to(**ms: float) -> None:
        monkeypatch.setattr(Evidence, "latency_ms", lambda self, batch: pd.Series(ms).reindex(self.table["run"]))

    return set_to


@pytest.mark.parametrize(("ms", "steps", "status"), [(0.5, 30, claims.HOLDS), (0.6, 30, claims.PARTLY),
                                                      (0.5, 300, claims.PARTLY)])  # fmt: skip
def test_pruning_is_held_against_the_whole_networks_time_and_training(ms, steps, status, timings, tmp_path: Path):
    timings(whole=1.0, short=ms)
    rows = [student("whole", "pairs", steps=1000), student("search", "pairs+depth_pruning", steps=30, start=["whole"]),
            student("short", "pairs+masked_features", steps=steps, start=["search"], factor=1.2)]  # fmt: skip
    found = of("tinyfusion", rows, tmp_path)
    assert found["status"] == status and found["value"] == pytest.approx(1 / ms)
    assert f"at {(steps + 30) / 1000:.0%} of its images; 1.20 times the whole's distance" in found["ours"]
    assert found["runs"] == ("whole", "search", "short")
    timings(whole=1.0)
    untimed = of("tinyfusion", rows, tmp_path)
    assert untimed["status"] == claims.UNTESTED and untimed["ours"].startswith("not timed, at ")


def test_a_packed_file_is_held_against_float32(tmp_path: Path):
    found = of("terdit", [student("three", "pairs+ternary", file_mb=0.04)], tmp_path)
    assert found["status"] == claims.PARTLY and found["value"] == pytest.approx(10.0)
    assert of("terdit", [student("three", "pairs+ternary", file_mb=0.02)], tmp_path)["status"] == claims.HOLDS
    two = [student(name, "pairs+ternary", file_mb=0.2, params_deployed=8e4) for name in ("three", "other")]
    reports = pd.DataFrame({column: pd.Series(dtype=NONE[column].dtype) for column in NONE}).reindex(range(2))
    reports["model.model_id"], reports["model.precision"] = ["three", "other"], ["ternary", "fp32"]
    reports["model.file_mb"] = [0.04, 0.001]
    (claim,) = [claim for claim in claims.CLAIMS if claim.name == "terdit"]
    assert claim.judge(Evidence(Store(tmp_path), table_of(two), reports)).value == pytest.approx(8.0)


def test_a_request_costs_one_expert_and_the_sum_is_said_too(timings, facts, tmp_path: Path):
    timings(whole=2.0, joined=1.0)
    facts(joined={"params_request": 50_000})
    rows = [student("whole", "pairs"), student("expert", "pairs+class_expert", start=["whole"]),
            student("joined", "class_split", start=["expert"], params=2e5, images=0.0)]  # fmt: skip
    found = of("ed-vit", rows, tmp_path)
    assert found["value"] == pytest.approx(2.0) and "2.00 times as fast" in found["ours"]
    assert "all experts together 2.00 times its size" in found["ours"] and found["status"] == claims.PARTLY


def test_the_size_of_a_small_student_is_no_credit_to_the_transfer(tmp_path: Path):
    rows = [student("big", "pairs", params=1e6), *seeds(), *seeds("attention_transfer", GAINS)]
    for row in rows[7:]:
        row |= {"guide": "run:big", "method": "pairs+attention_transfer"}
    found = of("mtd", rows, tmp_path)
    assert found["status"] == claims.HOLDS and found["value"] == pytest.approx(0.9)
    assert of("mtd", rows[:8], tmp_path)["status"] == claims.PARTLY


@pytest.mark.parametrize(("macs", "status"), [(100.0, claims.HOLDS), (110.0, claims.DIFFERS)])
def test_factors_are_free_where_what_is_shipped_is_as_large_as_plain(macs: float, status: str, tmp_path: Path):
    plain = run(macs=100.0, file_mb=0.2, params_train=1e5)
    found = of("reparam", [plain, run("reparam", macs=macs, file_mb=0.2, params_train=2e5)], tmp_path)
    assert found["status"] == status and "2.00 times as many in training" in found["ours"]


def test_time_in_the_attention_takes_fewer_parameters_and_a_better_distance(tmp_path: Path):
    block = {"shape": "d4w40h4p4m96time", "params": 0.8e5}
    rows = [*seeds(), *seeds(factors=GAINS, **block)]
    for row in rows[6:]:
        row["run"] += "time"
    assert of("diffit", rows, tmp_path)["status"] == claims.HOLDS
    assert of("diffit", rows[:7], tmp_path)["status"] == claims.UNTESTED
    for row in rows:  # plain's adaLN folds away, too: what is shipped counts as well
        row["params_deployed"] = 0.7e5 if row["run"].endswith("time") else 0.6e5
    found = of("diffit", rows, tmp_path)
    assert found["status"] == claims.PARTLY and "(1.17 as shipped)" in found["ours"]


def test_a_manifold_that_costs_nothing_must_still_help(tmp_path: Path):
    assert of("manifold", [*seeds(), *seeds("manifold", GAINS)], tmp_path)["status"] == claims.HOLDS
    found = of("manifold", [*seeds(), *seeds("manifold", SLOWER)], tmp_path)
    assert found["status"] == claims.PARTLY and found["value"] > 1


def test_the_work_left_out_is_held_against_the_time_of_slices(facts, tmp_path: Path):
    facts(less={"work": 0.48})
    rows = [student("less", "denoise+dynamic")]
    assert of("dydit", rows, tmp_path)["status"] == claims.UNTESTED
    write_json(tmp_path / "benchmarks" / "dynamic.json", {"run": "less", "ms": {"complete": 180.0, "slices": 100.0}})
    found = of("dydit", rows, tmp_path)
    assert (
        found["status"] == claims.HOLDS and found["value"] == pytest.approx(1.8) and "-52% of the work" in found["ours"]
    )


# --- the table ----------------------------------------------------------------------------------


def test_an_empty_folder_leaves_every_claim_untested_with_what_is_missing_and_a_command(tmp_path: Path):
    found = claims.table(Store(tmp_path))
    assert len(found) == len(claims.CLAIMS) == found["name"].nunique() and set(found["status"]) == {claims.UNTESTED}
    assert found["why"].ne("").all() and found["ours"].eq("").all() and not any(found["runs"])


def test_commands_of_claims_parse_and_their_scripts_exist():
    for claim in claims.CLAIMS:
        for command in claim.command.split(" && "):
            program, *rest = command.removeprefix("python ").split()
            if program == "-m":
                parser().parse_args(rest[1:])
            else:
                assert (COMMITTED.parent / program).exists(), claim.name


def test_no_number_of_the_paper_is_quoted():
    mine = [claim for claim in claims.CLAIMS if claim.paper == claims.paper.PAPER]
    assert len(mine) == 6 and not any(claim.published or any(map(str.isdigit, claim.text)) for claim in mine)


def test_reasons_are_said_once_with_all_their_places():
    assert because({"a": "x", "b": "y", "c": "x"}) == "a, c: x; b: y"


@pytest.fixture(scope="module")
def judged() -> pd.DataFrame:
    return claims.table(Store(COMMITTED))


@pytest.fixture
def once(judged: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command would judge anew is what was judged once."""

    def known(store: Store) -> pd.DataFrame:
        assert store.root == COMMITTED
        return judged

    monkeypatch.setattr(claims, "table", known)


def test_the_command_tells_the_same_as_the_table_within_100_columns(
    once: None, judged: pd.DataFrame, capsys: pytest.CaptureFixture
):
    assert main(["claims", "--results", str(COMMITTED), "--json"]) == 0
    told = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    found = judged.set_index("name")
    assert {name: row["status"] for name, row in told.items()} == found["status"].to_dict()
    assert all((COMMITTED / "runs" / run).is_dir() for runs in found["runs"] for run in runs)
    assert main(["claims", "--results", str(COMMITTED)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100 and all(any(line.startswith(name) for line in lines) for name in found.index)


def test_the_command_tells_one_claim_whole_and_names_the_nearest_of_an_unknown_one(
    once: None, capsys: pytest.CaptureFixture
):
    assert main(["claims", "depth-width", "--results", str(COMMITTED)]) == 0
    said = capsys.readouterr().out
    assert "recipe.json" in said and "our reading" in said
    assert main(["claims", "depth"]) == 2
    assert "did you mean 'depth-width'" in capsys.readouterr().err


def test_verdicts_are_a_table_within_100_columns(capsys: pytest.CaptureFixture):
    assert main(["verdicts", "--results", str(COMMITTED)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["method", "size", "images", "compute"] and max(map(len, lines)) <= 100
