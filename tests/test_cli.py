"""The command line: what it prints where, its exit codes, and the sentences of its errors."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_STUDENT
from PIL import Image

from lab import experiment, features, jobs, metrics
from lab.choose import Budget, recommend
from lab.cli import FAILED, MISSING, OK, USAGE, main, measure, parser
from lab.cli.frame import Usage
from lab.cli.look import BUDGET_OPTIONS
from lab.data import ImageSpec, MissingData
from lab.results import Run, Store, write_json, write_whole
from lab.sheets import read_samples

ROOT = Path(__file__).parent.parent
COMMANDS = ["doctor", "fetch", "pairs", "run", "sweep", "eval", "sample", "count", "bench", "export", "pack", "import",
            "ls", "verify", "choose", "report", "predict", "similar", "place"]  # fmt: skip
TINY = ["--teacher", "tiny", "--pairs", "300", "--solver", "dpmpp2m-4", "--depth", "2", "--width", "16", "--heads", "2",
        "--steps", "12", "--batch", "16", "--lr", "5e-3"]  # fmt: skip


@pytest.fixture(scope="session")
def distilled_root(taught_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The taught results folder with one finished student."""
    root = tmp_path_factory.mktemp("distilled") / "results"
    shutil.copytree(taught_root, root)
    experiment.run(TINY_STUDENT, Store(root), measure=False)
    return root


@pytest.fixture
def distilled(distilled_root: Path, tmp_path: Path) -> Store:
    """A copy of it that a test may change."""
    shutil.copytree(distilled_root, tmp_path / "distilled")
    return Store(tmp_path / "distilled")


def lab(store: Store, *args: str) -> int:
    return main([args[0], "--results", str(store.root), *args[1:]])


def student(store: Store):
    return next(r for r in store.runs() if r.recipe.student.family == "dit")


# --- help and start-up ---


def test_a_home_is_meant_by_a_tilde_in_options(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert main(["ls", "--results", "~/mine"]) == 0
    assert str(tmp_path / "mine") in capsys.readouterr().out
    assert main(["ls", "--results=~/none"]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert left.value.code == 0
    assert f"  python -m lab {command}" in shown and "Example" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_parse(command: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    examples = [line.split(" > ")[0].split()[3:] for line in capsys.readouterr().out.splitlines()
                if line.startswith("  python -m lab ")]  # fmt: skip
    assert examples
    for example in examples:
        assert parser().parse_args(example).command == command


def test_help_loads_neither_torch_nor_pandas():
    code = ("import sys\nfrom lab.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass\n"
            "assert not {'torch', 'pandas'} & set(sys.modules)")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as left:
        main(["traim"])
    assert left.value.code == USAGE
    assert "traim" in capsys.readouterr().err


# --- what would be done ---


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["pairs", "tiny", "--count", "5000", "--solver", "dpmpp2m-4"], "make 1 shard of 4096 pairs"),
        (["pairs", "tiny", "--count", "300", "--solver", "dpmpp2m-4"], "nothing"),
        (["eval"], "measure it"),
        (["sample", "tiny", "--count", "4", "--out", "drawn.png"], "write drawn.png"),
        (["bench", "d2w16h2p4", "--batch", "1,4"], "time it"),
        (["export", "d2w16h2p4", "--precision", "fp32,int8"], "make it"),
        (["pack", "d2w16h2p4", "--target", "rpi"], "rpi.zip"),
        (["fetch", "digits"], "nothing, it is here"),
        (["fetch", "cifar10"], "download it: not on this machine"),
        (["fetch", "lpips", "inception"], "download "),
    ],
)
def test_a_command_that_works_says_what_it_would_do_and_does_nothing(
    args, said, distilled: Store, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert lab(distilled, *args, "--dry-run", "--json") == OK
    rows = json.loads(capsys.readouterr().out)
    assert rows and all(said in row["would"] for row in rows)
    assert lab(distilled, *args, "--dry-run") == OK and "nothing was done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_every_command_that_works_has_a_dry_run():
    read_only = {"doctor", "count", "ls", "verify", "choose", "predict", "similar", "place"}
    for command in {*COMMANDS} - read_only:
        asked = {"pairs": ["t", "--count", "1"], "sample": ["r"], "export": ["r"], "pack": ["r", "--target", "cpu"],
                 "fetch": ["digits"], "import": ["f"], "sweep": ["f"]}.get(command, [])  # fmt: skip
        assert parser().parse_args([command, *asked, "--dry-run"]).dry_run


# --- exit codes and errors ---


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--keep", "a"], "argument --keep: must be whole numbers separated by commas, got 'a'"),
        (["--betas", "0.9,x"], "argument --betas: must be numbers separated by commas, got '0.9,x'"),
    ],
)
def test_a_list_that_can_not_be_read_says_what_is_accepted(option, said, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as left:
        main(["run", *option])
    assert left.value.code == USAGE and said in capsys.readouterr().err


def test_an_unknown_run_is_a_usage_error_that_names_the_nearest(distilled: Store, capsys: pytest.CaptureFixture):
    assert lab(distilled, "eval", "tinny") == USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("lab eval: unknown run 'tinny'; did you mean 'tiny'?") and "Traceback" not in shown.err


def test_missing_data_has_an_exit_code_of_its_own(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert lab(store_made(store), "fetch", f"folder:{tmp_path / 'nowhere'}") == MISSING
    assert "does not exist" in capsys.readouterr().err


def test_weights_that_are_not_there_are_missing_data(distilled: Store, capsys: pytest.CaptureFixture):
    (student(distilled).path / "student.safetensors").unlink()
    assert lab(distilled, "sample", student(distilled).id) == MISSING
    assert "has no finished network" in capsys.readouterr().err


def test_a_fault_of_the_lab_is_no_missing_data(distilled: Store, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(Store, "table", lambda _: {}["run"])
    assert lab(distilled, "ls") == FAILED
    assert "KeyError: 'run'; LAB_DEBUG=1 shows where" in capsys.readouterr().err


def test_lab_debug_shows_the_traceback(distilled: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAB_DEBUG", "1")
    with pytest.raises(Exception, match="unknown run"):
        lab(distilled, "eval", "tinny")


def test_a_results_folder_that_is_not_there_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["ls", "--results", str(tmp_path / "none")]) == USAGE
    assert "does not exist" in capsys.readouterr().err


def store_made(store: Store) -> Store:
    store.root.mkdir(parents=True, exist_ok=True)
    return store


@pytest.mark.parametrize(
    "command", [["fetch"], ["run", "--dry-run", "--method", "denoise", "--unet", "8,16", "--data"]]
)
def test_files_of_a_folder_that_are_left_out_are_told_in_one_line(command, store, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    (tmp_path / "shots" / "cats").mkdir(parents=True)
    for name in ("cats/a.png", "cats/b.png", "loose.png"):
        Image.linear_gradient("L").save(tmp_path / "shots" / name)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        monkeypatch.setattr(warnings, "showwarning", lambda *said: print(warnings.formatwarning(*said[:4]), end=""))
        assert lab(store_made(store), *command, f"folder:{tmp_path / 'shots'}") == OK
    lines = [line for line in capsys.readouterr().err.splitlines() if "loose.png" in line]
    assert lines[0] == (f"lab: folder:{tmp_path / 'shots'}: 1 file left out, no readable picture or not in a class's "
                        "folder: loose.png")  # fmt: skip


# --- run ---


def test_a_dry_run_prints_id_and_cost_and_makes_nothing(taught: Store, capsys: pytest.CaptureFixture):
    before = sorted(taught.root.rglob("*"))
    assert lab(taught, "run", *TINY, "--dry-run", "--json") == OK
    planned = json.loads(capsys.readouterr().out)
    assert planned["id"].startswith("digits-d2w16h2p4-pairs-") and planned["state"] == "queued"
    assert planned["images"] == 12 * 16 and planned["shards_to_make"] == 0
    assert planned["cost"]["params"] > 0
    assert sorted(taught.root.rglob("*")) == before


def test_a_dry_run_fetches_no_data(store: Store, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", lambda _: pytest.fail("a data set was fetched"))
    assert lab(store_made(store), "run", "--data", "cifar10", "--dry-run") == MISSING
    assert "cifar10 is not on this machine" in capsys.readouterr().err


def test_options_and_file_give_the_same_run(taught: Store, tmp_path: Path, capsys: pytest.CaptureFixture):
    write_whole(tmp_path / "r.json", TINY_STUDENT.to_json())
    assert lab(taught, "run", *TINY, "--dry-run", "--json") == OK
    by_options = json.loads(capsys.readouterr().out)["id"]
    assert lab(taught, "run", str(tmp_path / "r.json"), "--dry-run", "--json") == OK
    assert json.loads(capsys.readouterr().out)["id"] == by_options


def test_options_change_fields_of_a_file(taught: Store, tmp_path: Path, capsys: pytest.CaptureFixture):
    write_whole(tmp_path / "r.json", TINY_STUDENT.to_json())
    changes = ["--lr", "0.01", "--mlp", "40", "--option", "pairs.l2=0.5", "--seed", "3"]
    assert lab(taught, "run", str(tmp_path / "r.json"), *changes, "--dry-run", "--json") == OK
    recipe = json.loads(capsys.readouterr().out)["recipe"]
    assert (recipe["lr"], recipe["seed"], recipe["student"]["mlp_hidden"]) == (0.01, 3, 40)
    assert recipe["methods"][0]["options"]["l2"] == 0.5 and recipe["steps"] == TINY_STUDENT.steps


def test_a_finished_run_is_not_done_again(distilled: Store, capsys: pytest.CaptureFixture):
    run = student(distilled)
    kept = (run.path / "student.safetensors").stat().st_mtime_ns
    assert lab(distilled, "run", run.id, "--json", "--no-measure") == OK
    assert json.loads(capsys.readouterr().out)["state"] == "done"
    assert (run.path / "student.safetensors").stat().st_mtime_ns == kept


def test_a_run_can_be_named_as_a_teacher(distilled: Store, capsys: pytest.CaptureFixture):
    assert lab(distilled, "run", student(distilled).id, "--name-teacher", "small", "--no-measure") == OK
    assert distilled.teachers()["small"] == student(distilled).id


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([*TINY, "--width", "18", "--heads", "4"], "width 18 is not a multiple of heads 4"),
        ([*TINY, "--method", "prs"], "did you mean 'pairs'"),
        ([*TINY, "--method", "pairs,denoise"], "got 2: pairs, denoise"),
        ([*TINY, "--option", "pairs.l3=1"], "unknown option of method pairs 'l3'"),
        ([*TINY, "--option", "l1=1"], "--option must be METHOD.NAME=VALUE"),
        ([*TINY, "--option", "denoise.label_drop=0"], "--option names method 'denoise'"),
        ([*TINY, "--solver", "euler-3"], "unknown solver"),
        (["--teacher", "tiny"], "set pairs to how many"),
        (["--teacher", "tinny", "--pairs", "3"], "did you mean 'tiny'"),
        (["--teacher", "pipeline:x", "--pairs", "3"], "pipeline:x does not say which images it was trained on"),
        ([*TINY, "--betas", "0.9"], "recipe.betas must be a list of 2, got [0.9]"),
        ([*TINY, "--option", "pairs.l1=0", "--option", "pairs.perceptual_from=0.2"], "leaves no loss before it"),
        ([*TINY, "--name-teacher", "My Teacher"], "a teacher's alias must match"),
        (["absent.json"], "no recipe file 'absent.json'"),
        (["tiny", "--unet", "8,8"], "--unet belongs to a recipe that is made here, tiny is one already"),
        (["tiny", "--time"], "--time belongs to a recipe"),
        ([*TINY, "--size", "16"], "--size is for folder: data that nobody teaches; tiny decides it"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused_with_the_reason(args, said, taught: Store, capsys: pytest.CaptureFixture):
    assert lab(taught, "run", *args) == USAGE
    assert said in capsys.readouterr().err
    assert len(taught.runs()) == 1  # the teacher: no work was done before


def test_pairs_of_no_teacher_are_not_looked_for(taught: Store, capsys: pytest.CaptureFixture):
    asked = ["--data", "digits", "--method", "denoise", "--unet", "16,32", "--pairs", "100", "--dry-run", "--json"]
    assert lab(taught, "run", *asked) == OK
    assert json.loads(capsys.readouterr().out)["pairs"] is None


def test_a_run_that_could_not_be_measured_says_so_until_it_is(taught: Store, monkeypatch, capsys):
    def missing(*_: object, **__: object) -> None:
        raise MissingData("digits are on another machine")

    with monkeypatch.context() as patched:
        patched.setattr(metrics, "evaluate", missing)
        assert lab(taught, "run", *TINY) == MISSING
    run = student(taught)
    said = capsys.readouterr().out
    assert "not measured: digits are on another machine" in said and f"python -m lab eval {run.id}" in said
    run.write("metrics", {"weights_sha256": run.read("student")["weights_sha256"], "samples": 1000, "seed": 100_000,
                          "extractor": metrics.extractor_of("digits"), "values": {}})  # fmt: skip
    assert lab(taught, "eval", run.id) == OK and lab(taught, "run", *TINY) == OK
    assert run.status().state == "done" and run.status().error == ""


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(taught: Store):
    # A process of its own, because only a real signal ends the loop between two updates.
    options = ["--steps", "100000", "--threads", "1", "--no-compile", "--no-measure"]
    command = [sys.executable, "-m", "lab", "run", "--results", str(taught.root), *TINY, *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    logs = taught.root / "runs"
    waited = time.monotonic() + 60
    while not any(p.stat().st_size for p in logs.glob("digits-d2*/log.jsonl")) and time.monotonic() < waited:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    folder = next(logs.glob("digits-d2*"))
    assert process.returncode == FAILED and out == ""
    besides = "--no-measure --no-compile --threads 1"
    assert f"go on with: {jobs.command(Run(folder))} {besides}\n" in err and "Traceback" not in err
    assert (folder / "state.pt").exists()


def test_a_second_extractor_is_kept_beside_the_first_and_says_whether_it_ranks_alike(distilled: Store, capsys):
    asked = ("eval", student(distilled).id, "tiny", "--samples", "16")
    assert lab(distilled, *asked) == OK and lab(distilled, *asked, "--extractor", "digits-vit") == OK
    said = capsys.readouterr().out.splitlines()[-1]
    first, second = (features.name("digits", purpose) for purpose in ("metric", "second"))
    values = {name: [distilled.get(run).read(name)["values"]["fd"]["value"] for run in asked[1:3]]
              for name in ("metrics", f"metrics-{second}")}  # fmt: skip
    alike = len({a < b for a, b in values.values()}) == 1
    assert said == f"{second} puts {int(alike)} of 1 pairs of these runs in the same order as {first}"
    assert lab(distilled, *asked, "--extractor", "digits-vgg") == USAGE
    assert f"there are {first}, {second}, inception" in capsys.readouterr().err


def test_eval_refuses_to_write_over_a_committed_distance_before_any_work(measured: Store, monkeypatch, capsys):
    kept = student(measured).read("metrics")
    student(measured).write("metrics", kept | {"extractor": metrics.extractor_of("digits")})
    monkeypatch.setattr(metrics, "evaluate", lambda *_, **__: pytest.fail("a run was measured"))
    assert lab(measured, "eval", "--samples", "200") == USAGE
    assert "is measured already with samples 1000; --force replaces that by samples 200" in capsys.readouterr().err


# --- tables and pictures ---


def test_ls_prints_one_row_per_run(distilled: Store, capsys: pytest.CaptureFixture):
    assert lab(distilled, "ls") == OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["label", "role", "state"]
    assert len(lines) == 1 + len(distilled.runs())


def test_ls_and_count_give_deployed_sizes_beside_the_trained_ones(distilled: Store, capsys: pytest.CaptureFixture):
    sizes = {"params", "params_deployed", "file_mb", "file_mb_deployed", "macs_image", "macs_deployed"}
    assert lab(distilled, "ls", "--json") == OK
    (listed,) = [row for row in json.loads(capsys.readouterr().out) if row["run"] == student(distilled).id]
    assert sizes <= set(listed) and listed["params_deployed"] < listed["params"]
    assert lab(distilled, "count", student(distilled).id, "--json") == OK
    counted = json.loads(capsys.readouterr().out)[student(distilled).id]
    assert counted["params_deployed"] == listed["params_deployed"] == counted["bytes_fp16_deployed"] / 2
    assert counted["macs_deployed"] == listed["macs_deployed"] < counted["macs"]


def test_ls_sorts_numbers_as_numbers_and_down_with_a_minus(distilled: Store, capsys: pytest.CaptureFixture):
    sorted_params = []
    for order in ("params", "-params"):
        assert lab(distilled, "ls", f"--sort={order}", "--columns", "params", "--json") == OK
        sorted_params.append([row["params"] for row in json.loads(capsys.readouterr().out)])
    assert sorted_params[0] == sorted(sorted_params[0]) == sorted_params[1][::-1]
    assert len(set(sorted_params[0])) > 1


def test_json_holds_null_where_a_value_is_missing(distilled: Store, capsys: pytest.CaptureFixture):
    assert lab(distilled, "ls", "--columns", "classes,teacher", "--json") == OK
    rows = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {row["teacher"] is None for row in rows} == {True, False}


def test_an_unknown_column_names_the_nearest(distilled: Store, capsys: pytest.CaptureFixture):
    assert lab(distilled, "ls", "--columns", "parms") == USAGE
    assert "did you mean 'params'" in capsys.readouterr().err


def test_an_empty_store_says_how_to_begin(store: Store, capsys: pytest.CaptureFixture):
    assert lab(store_made(store), "ls") == OK
    assert "python -m lab run --help" in capsys.readouterr().out


def test_sample_writes_the_common_images(distilled: Store, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "drawn" / "s.npz"
    assert lab(distilled, "sample", student(distilled).id, "--out", str(out), "--json") == OK
    with np.load(out) as drawn, np.load(student(distilled).path / "samples.npz") as kept:
        assert np.array_equal(drawn["images"], kept["images"]) and np.array_equal(drawn["classes"], kept["classes"])


def test_the_command_of_a_missing_sheet_makes_the_file_that_is_looked_for(distilled: Store):
    run = student(distilled)
    before = read_samples(run.path / "samples.npz").images
    (run.path / "samples.npz").unlink()
    words = shlex.split(jobs.sample_command(run))
    assert lab(distilled, *words[words.index("lab") + 1 :]) == OK
    assert np.array_equal(read_samples(run.path / "samples.npz").images, before)


def test_more_images_than_there_are_seeds_are_refused_at_once(distilled: Store, capsys: pytest.CaptureFixture):
    asked = ("sample", student(distilled).id, "--dry-run", "--count")
    assert lab(distilled, *asked, "4294967296") == OK
    assert lab(distilled, *asked, "4294967297") == USAGE
    assert (
        "noise seeds go up to 4294967295, and 4294967297 images from 0 on would need 4294967296"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("asked", "drawn"), [("2", 2), ("10", 1), ("Cat", 3), ("cat", 4), ("DOG", 5), ("4", 4)])
def test_a_class_is_meant_by_name_before_it_is_by_number(asked: str, drawn: int):
    spec = ImageSpec(data="x", size=8, channels=1, num_classes=6, class_names=("0", "10", "2", "Cat", "cat", "dog"))
    student = SimpleNamespace(spec=spec, net=SimpleNamespace(config=SimpleNamespace(num_classes=6)))
    assert measure._classes(SimpleNamespace(label=asked), student, 2) == [drawn] * 2
    with pytest.raises(Usage, match="any of Cat, cat"):
        measure._classes(SimpleNamespace(label="CAT"), student, 2)


@pytest.mark.parametrize(("asked", "meant"), [("2", [4]), ("10,1", [2, 1]), ("4", [6])])
def test_run_means_a_class_by_name_before_it_means_it_by_number(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    asked: str,
    meant: list,
):
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "cache"))
    for number in range(12):  # sorted as names: 0, 1, 10, 11, 2, ...
        (tmp_path / "set" / str(number)).mkdir(parents=True)
        Image.linear_gradient("L").save(tmp_path / "set" / str(number) / "a.png")
    told = ["--data", f"folder:{tmp_path / 'set'}", "--method", "denoise", "--unet", "8,16", "--size", "8"]
    assert lab(store, "run", *told, "--classes", asked, "--dry-run", "--json") == OK
    assert json.loads(capsys.readouterr().out)["recipe"]["classes"] == meant


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("boot", "unknown class 'boot'"),
        ("10", "unknown class '10'"),
        ("3,3,5", "classes must name each class once, got [3, 3, 5] with 3 repeated"),
    ],
)
def test_run_refuses_unknown_classes_and_one_named_twice(
    distilled: Store, capsys: pytest.CaptureFixture, classes: str, said: str
):
    assert lab(distilled, "run", *TINY, "--classes", classes, "--dry-run") == USAGE
    assert said in capsys.readouterr().err


def test_sample_refuses_an_unknown_class(distilled: Store, capsys: pytest.CaptureFixture):
    assert lab(distilled, "sample", "tiny", "--class", "boot") == USAGE
    assert "unknown class 'boot'" in capsys.readouterr().err


def test_a_network_that_is_told_no_class_claims_none(taught: Store, tmp_path: Path, capsys: pytest.CaptureFixture):
    run = experiment.run(TINY_STUDENT.with_(student__num_classes=0), taught, measure=False)
    assert lab(taught, "sample", run.id, "--class", "9") == USAGE
    assert "is told no class (its num_classes is 0); leave --class out" in capsys.readouterr().err
    out = tmp_path / "s.npz"
    assert lab(taught, "sample", run.id, "--count", "4", "--out", str(out), "--json") == OK
    assert json.loads(capsys.readouterr().out)["classes"] is None
    with np.load(out) as drawn:
        assert set(drawn) == {"images", "seeds"}


def test_count_agrees_with_the_network(distilled: Store, capsys: pytest.CaptureFixture):
    shape = ["--depth", "2", "--width", "16", "--heads", "2", "--patch", "4", "--size", "8"]
    assert lab(distilled, "count", *shape, "--json") == OK
    counted = json.loads(capsys.readouterr().out)
    assert lab(distilled, "count", student(distilled).id, "--json") == OK
    assert json.loads(capsys.readouterr().out) == {student(distilled).id: counted}


def test_pairs_are_made_once(taught: Store, capsys: pytest.CaptureFixture):
    assert lab(taught, "pairs", "tiny", "--count", "300", "--solver", "dpmpp2m-4", "--json") == OK
    made = json.loads(capsys.readouterr().out)
    assert made["made_now"] == 0 and made["pairs"] >= 300 and Path(made["folder"]).is_dir()


def test_export_says_where_how_large_and_how_far_off(distilled: Store, capsys: pytest.CaptureFixture):
    pytest.importorskip("onnxruntime")
    options = ["--runtime", "onnxruntime", "--precision", "fp32,int8"]
    assert lab(distilled, "export", student(distilled).id, *options, "--json") == OK
    exact, coarse = json.loads(capsys.readouterr().out)
    assert Path(exact["folder"]) == student(distilled).path / "export" / "onnxruntime-fp32"
    assert exact["bytes"] == (Path(exact["folder"]) / "model.onnx").stat().st_size and coarse["bytes"] > 0
    assert exact["max_abs"] < 1e-5 and coarse["precision"] == "int8"
    assert exact["opset"] == {"ai.onnx": 20, "com.microsoft": 1} and 0 < coarse["int8_macs"] < 1
    assert lab(distilled, "export", student(distilled).id, *options) == OK
    assert "int8" in capsys.readouterr().out


def test_a_program_of_torch_export_is_a_file_like_the_others(distilled: Store, capsys: pytest.CaptureFixture):
    assert lab(distilled, "export", student(distilled).id, "--runtime", "torch-export", "--json") == OK
    (made,) = json.loads(capsys.readouterr().out)
    assert set(made["files"]) == {"model.pt2", "README.md"} and made["max_abs"] < 1e-5


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["tiny", "--precision", "int8-static"], "this network is of family unet"),
        (["d2w16h2p4", "--runtime", "torch-export", "--precision", "int8"], "torch-export has none of the precisions"),
        (["d2w16h2p4", "--runtime", "eager"], "there is nothing to export"),
        (["d2w16h2p4", "--runtime", "onyx"], "'onyx'. Known: onnxruntime, openvino, packed, torch-export"),
        (["d2w16h2p4", "--precision", "fp7"], "has none of the precisions fp7"),
    ],
)
def test_an_export_that_can_not_be_is_a_usage_error(args, said, distilled: Store, capsys: pytest.CaptureFixture):
    pytest.importorskip("onnxruntime")
    assert lab(distilled, "export", *args) == USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", [("eval", "--samples", "20"), ("bench",)])
def test_a_run_of_damaged_weights_is_named_and_the_others_are_measured(distilled, capsys, command):
    found, teacher = student(distilled), distilled.get("tiny")
    write_whole(found.path / "student.safetensors", b"damaged")
    assert lab(distilled, *command, found.id, teacher.id, "--json") == FAILED
    out, err = capsys.readouterr()
    assert f"{found.label} is left out: student.safetensors of run {found.id} does not have the sha256" in err
    measured = json.loads(out)
    assert [r["model"]["model_id"] for r in measured] == [teacher.id] if command == ("bench",) else [*measured] == [
        teacher.id]  # fmt: skip
    if command[0] == "eval":  # a second timing takes long
        assert lab(distilled, *command, found.id, teacher.id) == FAILED
        assert f"left out, for their networks can't be loaded: {found.label}\n" in capsys.readouterr().out
    assert lab(distilled, *command, found.id) == FAILED
    assert "does not have the sha256" in capsys.readouterr().err


# --- verify and doctor ---


def test_verify_holds_on_an_untouched_store(distilled: Store, capsys: pytest.CaptureFixture):
    assert lab(distilled, "verify", "--quick", "--json") == OK
    rows = json.loads(capsys.readouterr().out)
    assert {row["check"] for row in rows} == {"weights", "checksums"} and {row["state"] for row in rows} == {"holds"}


def test_a_run_that_can_not_be_read_is_named_by_verify_and_stops_no_other(distilled: Store, capsys):
    write_whole(distilled.root / "runs" / "spoilt" / "recipe.json", "")
    (distilled.root / "runs" / "spoilt" / "student.json").write_bytes(
        (student(distilled).path / "student.json").read_bytes()
    )
    assert lab(distilled, "verify", "--quick", "--json") == MISSING
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states.pop("runs/spoilt/recipe.json") == "not made" and set(states.values()) == {"holds"}
    assert lab(distilled, "eval", "--dry-run", "--json") == OK
    assert "spoilt" not in capsys.readouterr().out


@pytest.mark.parametrize("told", ["option", "environment"])
def test_a_results_folder_that_is_a_file_is_refused(told, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "notes.txt").touch()
    if told == "environment":
        monkeypatch.setenv("LAB_RESULTS", str(tmp_path / "notes.txt"))
    assert main(["ls", *(["--results", str(tmp_path / "notes.txt")] if told == "option" else [])]) == USAGE
    assert "notes.txt' is a file" in capsys.readouterr().err


def test_verify_fails_on_changed_weights(distilled: Store, capsys: pytest.CaptureFixture):
    path = student(distilled).path / "student.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert lab(distilled, "verify", "--quick") == FAILED
    assert "2 of 3 checks hold, 1 differ" in capsys.readouterr().out
    path.unlink()
    assert lab(distilled, "verify", "--quick") == MISSING
    assert "2 of 3 checks hold, 1 could not be made" in capsys.readouterr().out


def test_verify_compares_a_changed_shard_by_value(distilled: Store, capsys: pytest.CaptureFixture):
    shard = next((distilled.root / "pairs").glob("*/0000.npz"))
    with np.load(shard) as kept:
        arrays = dict(kept)
    arrays["images"] = 255 - arrays["images"]
    np.savez(shard, **arrays)
    assert lab(distilled, "verify", "--quick", "--json") == FAILED
    rows = {row["check"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert rows["checksums"] == rows["shard 0000"] == "differs" and rows["labels 0000"] == "holds"
    # Shards of another environment may differ in the last place.
    facts = shard.with_name("pairs.json")
    kept = json.loads(facts.read_text())
    kept["shards"]["0000"]["environment"]["torch"] = "0.1"
    write_json(facts, kept)
    arrays["images"], arrays["labels"] = 255 - arrays["images"], arrays["labels"][::-1]
    np.savez(shard, **arrays)
    assert lab(distilled, "verify", "--quick", "--json") == FAILED
    rows = {row["check"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert rows["checksums"] == "notice" and rows["shard 0000"] == "holds" and rows["labels 0000"] == "differs"
    write_whole(shard, shard.read_bytes()[:-100])
    assert lab(distilled, "verify", "--quick") == FAILED
    assert "can't be read" in capsys.readouterr().out


def test_verify_makes_the_first_pairs_again_where_no_shard_is_left(distilled: Store, capsys: pytest.CaptureFixture):
    for shard in (distilled.root / "pairs").glob("*/*.npz"):
        shard.unlink()
    lab(distilled, "verify", "--json")
    rows = {row["check"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert rows["pairs made again"] == "holds" and "checksums" not in rows
    reference = next((distilled.root / "pairs").glob("*/reference.npy"))
    np.save(reference, 255 - np.load(reference))
    assert lab(distilled, "verify", "--json") == FAILED
    rows = {row["check"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert rows["pairs made again"] == "differs"


def changed_what(**changes):
    def change(kept):
        what = {k: v for k, v in kept["what"].items() if changes.get(k, 0) is not None}
        return json.dumps(kept | {"what": what | {k: v for k, v in changes.items() if v is not None}})

    return change


@pytest.mark.parametrize(("change", "said"), [
    (lambda _: "{", "no JSON object"), (lambda _: "", "no JSON object"), (lambda _: "[]", "not object"),
    (changed_what(colour="red"), "what.colour is no field of it"), (changed_what(solver=None), "solver is missing"),
    (changed_what(classes="all"), "what.classes is 'all'"), (changed_what(first_seed=0), "is of the folder"),
    (changed_what(teacher="nobody"), "'nobody'"), (changed_what(classes=None), ""),
])  # fmt: skip
def test_verify_names_a_pairs_json_that_does_not_hold_beside_all_other_rows(distilled, capsys, change, said):
    facts = next((distilled.root / "pairs").glob("*/pairs.json"))
    facts.write_text(change(json.loads(facts.read_text())))
    assert lab(distilled, "verify", "--quick", "--json") == (FAILED if said else OK)
    rows = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in rows] == ["weights", "weights", "pairs.json" if said else "checksums"]
    assert rows[-1]["name"] == facts.parent.name and said in rows[-1]["note"]
    assert [row["state"] for row in rows] == ["holds", "holds", "differs" if said else "holds"]


@pytest.mark.parametrize("content", [b"", b"PK", None])
def test_verify_names_a_reference_that_can_not_be_read(distilled, capsys, content):
    reference = next((distilled.root / "pairs").glob("*/reference.npy"))
    np.save(reference, np.load(reference)[:5])
    if content is not None:
        reference.write_bytes(content)
    assert lab(distilled, "verify", "--json") == FAILED
    rows = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["pairs made again"]["state"] == "differs" and str(reference) in rows["pairs made again"]["note"]
    assert rows["weights"]["state"] == rows["checksums"]["state"] == "holds"


def test_doctor_names_what_is_missing_and_the_mend(distilled: Store, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert lab(distilled, "doctor", "--json") == OK
    found = {f["check"]: f for f in json.loads(capsys.readouterr().out)}
    assert found["torch"]["state"] == "fine" and "2 finished" in found["results"]["found"]
    assert found["cifar10"]["mend"] == "python -m lab fetch cifar10"
    for name in ("lpips", "inception"):
        row = found[f"{name} weights"]
        assert row["state"] == "note" and row["mend"] == f"python -m lab fetch {name}"


def test_doctor_notes_that_no_compiler_is_here_and_that_none_is_needed(distilled: Store, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert lab(distilled, "doctor", "--json") == OK
    found = {f["check"]: f for f in json.loads(capsys.readouterr().out)}["compiler"]
    assert found["state"] == "note" and "works without it" in found["found"] and "install" in found["mend"]


# --- predict ---


def test_a_shape_of_other_images_than_the_run_s_is_estimated_as_it_was_asked_for(distilled: Store, capsys):
    run = student(distilled)
    asked = [run.config.shape, "--device", "raspberry-pi-5", "--json"]
    estimates = []
    for size in ("8", "64"):
        assert lab(distilled, "predict", *asked, "--size", size, "--channels", "1", "--classes", "10") == OK
        estimates.append(json.loads(capsys.readouterr().out)[0])
    (here, large) = estimates
    assert here["model"]["model_id"] == run.id and large["model"]["model_id"] != run.id
    assert large["timing"]["p50"] > 2 * here["timing"]["p50"]
    assert lab(distilled, "predict", run.id, "--size", "64", "--device", "raspberry-pi-5") == USAGE
    assert "image_size of" in capsys.readouterr().err


def test_a_run_is_counted_as_it_is(distilled: Store, capsys):
    assert lab(distilled, "count", student(distilled).id, "--depth", "3") == USAGE
    assert "--depth is of a shape" in capsys.readouterr().err


def test_predict_says_an_interval_for_a_shape_on_a_card(store: Store, capsys: pytest.CaptureFixture):
    assert lab(store, "predict", "d4w64h4p4", "--device", "raspberry-pi-5", "--batch", "1,16", "--json") == OK
    one, sixteen = json.loads(capsys.readouterr().out)
    assert one["provenance"] == "estimated" and one["device"]["name"] == "Raspberry Pi 5"
    low, high = one["timing"]["p50_ci95"]
    assert 0 < low < one["timing"]["p50"] < high < sixteen["timing"]["p50_ci95"][1]
    assert store.reports().empty


def test_predict_keeps_an_estimate_of_a_run_once_where_asked_to(distilled: Store, capsys: pytest.CaptureFixture):
    run = student(distilled)
    asked = [run.id, "--device", "jetson-orin-nano-7w", "--precision", "fp16", "--keep"]
    assert [lab(distilled, "predict", *asked) for _ in range(2)] == [OK, OK]
    assert "estimated, grade F: from its card alone" in capsys.readouterr().out
    (report,) = distilled.reports().to_dict("records")
    assert report["grade"] == "F" and report["state.power_mode"] == "7W"
    assert report["model.weights_sha256"] == run.read("student")["weights_sha256"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("d4w64h4p4", "--device", "jetson"), "unknown device card 'jetson'"),
        (("d4w65h4p4", "--device", "raspberry-pi-5"), "width 65 is not a multiple of heads 4"),
        (("d4w64", "--device", "raspberry-pi-5"), "unknown run 'd4w64'"),
        (("d4w64h4p4", "--device", "raspberry-pi-5", "--precision", "bf16"), "has no peak for bf16; its card has fp16"),
        (("d4w64h4p4", "--device", "raspberry-pi-5", "--runtime", "eager"), "no other shape was timed with eager"),
        (("tiny", "--device", "raspberry-pi-5"), "this network is of family unet"),
    ],
)
def test_predict_refuses_with_a_sentence(distilled: Store, capsys: pytest.CaptureFixture, args, words: str):
    assert lab(distilled, "predict", *args) == USAGE
    assert words in capsys.readouterr().err


# --- choose ---


def test_choose_takes_every_field_of_a_budget():
    assert {*BUDGET_OPTIONS, "weak", "estimated"} == {f.name for f in dataclasses.fields(Budget)}


def test_choose_without_a_measured_student_is_missing_data(distilled: Store, capsys: pytest.CaptureFixture):
    assert lab(distilled, "choose", "--params-m", "1") == MISSING
    assert "Nothing to choose from" in capsys.readouterr().out


def test_choose_gives_the_recommendation_of_the_page(measured: Store, capsys: pytest.CaptureFixture):
    assert lab(measured, "choose", "--params-m", "1", "--json") == OK
    said = json.loads(capsys.readouterr().out)
    found = recommend(measured.table(), measured.reports(), Budget(params_m=1.0))
    assert said["headline"] == found.headline and said["pick"]["run"] == student(measured).id


def test_choose_says_what_comes_nearest_where_nothing_fits(measured: Store, capsys: pytest.CaptureFixture):
    assert lab(measured, "choose", "--params-m", "0.001") == FAILED
    assert "Nearest on parameters" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["device", "runtime", "method", "protocol"])
def test_choose_refuses_a_name_that_nothing_has(measured: Store, capsys: pytest.CaptureFixture, option: str):
    assert lab(measured, "predict", student(measured).id, "--device", "raspberry-pi-5", "--keep") == OK
    capsys.readouterr()
    assert lab(measured, "choose", f"--{option}", "no such") == USAGE
    assert f"unknown {option} 'no such'" in (said := capsys.readouterr().err) and "Known: none" not in said
    assert lab(measured, "choose", "--method", "plain") in (OK, FAILED)


@pytest.mark.parametrize("args", [
    ("count", "--heads", "0"), ("predict", "d4w64h0p4"), ("predict", "d4w64h4p0"), ("predict", "d4w64h3p4"),
    ("bench", "--batch", ""), ("bench", "--threads", ","), ("bench", "--runtime", ""), ("ls", "--columns", ""),
    ("predict", "d4w64h4p4", "--batch", ""), ("run", "--method", ""),
    ("pairs", "tiny", "--count", "1000000000000000", "--dry-run"),
])  # fmt: skip
def test_values_that_can_not_be_meant_are_refused_in_a_sentence(taught: Store, capsys: pytest.CaptureFixture, args):
    try:
        code = lab(taught, *args)
    except SystemExit as exit:  # argparse's
        code = exit.code
    said = capsys.readouterr().err
    assert code == USAGE and "Error" not in said and any(words in said for words in (
        "heads must be at least 1", "patch must be at least 1", "not a multiple of heads", "at least one, got",
        "a set has at most 4,"))  # fmt: skip


def test_choose_refuses_an_unknown_metric(measured: Store, capsys: pytest.CaptureFixture):
    assert lab(measured, "choose", "--metric", "fid") == USAGE
    assert "unknown metric 'fid'" in capsys.readouterr().err


@pytest.fixture
def measured(distilled: Store) -> Store:
    """With a distance that stands in the student's metrics.json."""
    student(distilled).write("metrics", {
        "weights_sha256": student(distilled).read("student")["weights_sha256"], "extractor": "digits-cnn-00000000",
        "samples": 1000, "seed": 100_000, "seconds": 1.0,
        "values": {"fd": {"value": 2.5, "reference": "digits train, 1,498 images", "ci95": [2.4, 2.6]}},
    })  # fmt: skip
    student(distilled).write("cost", {"params": 10_944, "macs": 31_232, "macs_image": 31_232, "file_mb": 0.024})
    return distilled


def test_several_wide_columns_share_a_line():
    from lab.cli.judge import WIDTH, wrapped

    rows = [{"method": "features " * 20, "size": "4x40", "verdict": "no plain run of as many images " * 4}]
    lines = wrapped(rows).splitlines()
    assert max(map(len, lines)) <= WIDTH and len(lines) > 4
    assert " ".join(" ".join(lines).split()).count("features") == 20  # nothing is lost
