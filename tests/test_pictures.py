from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from lab import figures, sheets
from lab.config import DiTConfig, Recipe, Use
from lab.figures import sheets as of_sheets
from lab.results import Run, Store


def sheet(level: int, count: int = 20, channels: int = 1) -> np.ndarray:
    return np.full((count, channels, 8, 8), level, np.uint8)


def log(*losses: float, term: str = "pairs/l1") -> list[dict[str, float]]:
    return [
        {"step": 50 * k, "images": 3200 * k, "seconds": 4.0 * k, "lr": 1e-3, term: v} for k, v in enumerate(losses, 1)
    ]


def run_of(tmp_path: Path, **changes: object) -> Run:
    return Store(tmp_path).open(Recipe().with_(**changes))


def test_a_log_of_equal_size_and_time_is_read_anew_by_the_pages(tmp_path):
    from lab.dashboard import pictures

    run = run_of(tmp_path)
    path = run.path / "log.jsonl"
    for step in (1, 2):
        path.write_text(f'{{"step": {step}}}\n')
        os.utime(path, (1e9, 1e9))
        assert pictures.log_of(run) == [{"step": step}]


# --- side by side -------------------------------------------------------------------------------


def test_every_pixel_of_an_image_is_a_square_of_its_own_value():
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    picture = np.asarray(figures.side_by_side([images], ["a"], rows=[2], row_titles=[""], zoom=5))
    block = np.kron(images[2, 0], np.ones((5, 5), np.uint8))
    places = np.argwhere((np.lib.stride_tricks.sliding_window_view(picture[..., 0], (40, 40)) == block).all((2, 3)))
    assert len(places) == 1


def test_models_stand_in_columns_and_noises_in_lines():
    small = figures.side_by_side([sheet(10)], [""], rows=range(2))
    wide = figures.side_by_side([sheet(10), sheet(200)], ["", ""], rows=range(2))
    tall = figures.side_by_side([sheet(10)], [""], rows=range(4))
    assert wide.width > small.width and wide.height == small.height
    assert tall.height == small.height + 2 * (4 * 8 + 2) and tall.width == small.width


def test_images_across_share_a_line():
    one, four = (figures.side_by_side([sheet(10)], [""], rows=range(16), across=n, zoom=8) for n in (1, 4))
    assert four.height < one.height / 3 and four.width > one.width


def test_a_missing_sheet_is_grey_tiles_of_the_same_size():
    there = figures.side_by_side([sheet(0), sheet(0)], ["", ""])
    gone = figures.side_by_side([sheet(0), None], ["", ""])
    assert gone.size == there.size
    assert (np.asarray(gone) == figures.EMPTY).all(-1).sum() == 10 * 32 * 32


def test_an_image_beyond_the_sheet_is_grey():
    picture = figures.side_by_side([sheet(0, count=2)], [""], rows=range(3))
    assert (np.asarray(picture) == figures.EMPTY).all(-1).sum() == 32 * 32


def test_a_run_brings_its_own_images_title_and_caption(tmp_path: Path):
    run = run_of(tmp_path)
    np.savez(run.path / "samples.npz", images=sheet(7), classes=np.arange(20) % 10, seeds=np.arange(20))
    run.set_notes(label="mine")
    run.write("cost", {"params": 300_000})
    run.write("metrics", {"weights_sha256": "cd", "extractor": "x", "samples": 8, "seed": 0,
                          "values": {"fd": {"value": 2.5, "reference": "x"}}})  # fmt: skip
    ours = np.asarray(figures.side_by_side([run]))
    same = np.asarray(figures.side_by_side([sheet(7)], ["mine"], ["0.30 M parameters\nFD 2.5"]))
    assert (ours == same).all()


def test_a_run_without_samples_names_the_command(tmp_path: Path):
    run = run_of(tmp_path)
    (run.path / "student.safetensors").touch()
    assert run.id in of_sheets._caption_of(run) and "python -m lab sample" in of_sheets._caption_of(run)
    assert figures.side_by_side([run]).width > 0


def test_colour_images_keep_their_colours():
    red = sheet(0, channels=3)
    red[:, 0] = 255
    assert (np.asarray(figures.side_by_side([red], [""], rows=[0])) == [255, 0, 0]).all(-1).sum() == 32 * 32


@pytest.mark.parametrize(("given", "words"), [
    ({"pictures": []}, "at least one"),
    ({"pictures": [np.zeros((2, 1, 8, 8))]}, "must be uint8"),
    ({"pictures": [np.zeros((8, 8), np.uint8)]}, "must be uint8"),
    ({"pictures": [None], "titles": ["a", "b"]}, "1 sheets and 2 titles"),
])  # fmt: skip
def test_a_wrong_sheet_is_refused_in_a_sentence(given: dict[str, object], words: str):
    with pytest.raises(ValueError, match=words):
        figures.side_by_side(**given)


def test_a_long_title_is_broken_into_the_column():
    font = ImageFont.load_default(12)
    lines = of_sheets._wrap("a verylongwordthatdoesnotfitintothecolumn b", font, 80)
    assert all(font.getlength(line) <= 80 for line in lines)
    assert "".join(lines).replace(" ", "") == "averylongwordthatdoesnotfitintothecolumnb"


def test_a_caption_says_only_what_is_known():
    assert figures.caption({"params": 1_100_000, "fd": float("nan"), "latency_ms": None}) == "1.10 M parameters"
    assert figures.caption({"params": 11_240, "fd": 2.96, "latency_ms": 0.84, "speed_up": 31.0}).split("\n") == [
        "11.2 k parameters", "FD 2.96", "0.84 ms", "31x as fast as its teacher"]  # fmt: skip
    assert figures.caption({"params": 303_384, "params_deployed": 213_144}) == "0.21 M parameters (0.30 M as trained)"
    assert figures.caption({}) == ""


def test_equal_sheets_differ_in_white_alone_and_signs_have_their_colours():
    assert (figures.difference(sheet(90), sheet(90)) == 255).all()
    brighter, darker = (
        figures.difference(sheet(250), sheet(0))[0, :, 0, 0],
        figures.difference(sheet(0), sheet(250))[0, :, 0, 0],
    )
    assert brighter[0] > brighter[2] and darker[2] > darker[0]  # orange and blue
    with pytest.raises(ValueError, match="two sheets of one shape"):
        figures.difference(sheet(0), sheet(0, count=3))


# --- curves -------------------------------------------------------------------------------------


def test_the_lowest_point_is_marked_not_the_last():
    figure = figures.learning_curves({"a": log(0.5, 0.1, 0.3)})
    lowest = [t for t in figure.data if t.mode == "markers"]
    assert [(t.x[0], t.y[0]) for t in lowest] == [(6400, 0.1)]


def test_a_long_log_keeps_its_ends_and_its_spike_in_2000_points():
    losses = np.linspace(1, 0.5, 20_000)
    losses[7_777] = 9.0
    line = figures.learning_curves({"a": log(*losses)}).data[0]
    assert len(line.x) == 2000
    assert line.y[0] == 1 and line.y[-1] == 0.5 and 9.0 in line.y


def test_few_points_are_all_kept():
    assert figures.lttb(np.arange(5.0), np.arange(5.0), 10).tolist() == [0, 1, 2, 3, 4]


def test_loss_terms_add_up_unless_one_is_named():
    rows = [{"step": 1, "images": 64, "seconds": 1.0, "pairs/l1": 0.2, "manifold/patch": 0.3, "grad_norm": 4.0}]
    assert figures.curve(rows, "images", None)[1].tolist() == [0.5]
    assert figures.curve(rows, "images", "grad_norm")[1].tolist() == [4.0]


def test_sums_of_different_terms_share_no_axis():
    logs = {"student": log(0.3), "teacher": log(0.9, term="denoise/mse")}
    with pytest.raises(ValueError, match="different loss terms: denoise/mse and pairs/l1"):
        figures.learning_curves(logs)
    assert len(figures.learning_curves(logs, term="pairs/l1").data) == 2  # the line and its lowest point


def test_spoilt_lines_of_a_log_are_left_out():
    rows = [*log(0.5), 7, {"images": 9}, {"images": "x", "pairs/l1": 1}, {"images": 10, "pairs/l1": float("nan")},
            {"images": 11, "pairs/l1": None}, {"images": 12, "pairs/l1": 0.0}]  # fmt: skip
    assert figures.curve(rows, "images", None)[0].tolist() == [3200]
    assert not figures.learning_curves({"a": [7]}).data


def test_an_unknown_axis_is_named():
    with pytest.raises(ValueError, match="unknown x axis of learning curves 'epochs'"):
        figures.learning_curves({}, x="epochs")


def test_a_label_is_text_in_a_figure_not_markup():
    figure = figures.learning_curves({"<b>x</b> %{y}": log(0.5, 0.4)})
    assert "<b>" not in figure.to_json() and "%{y}<" not in figure.data[1].hovertemplate.split("<extra>")[1]


def test_terms_come_before_rate_and_norm():
    assert figures.terms({"a": [{"step": 1, "lr": 1, "grad_norm": 2, "b/x": 3}], "c": [{"b/y": 1}, 5]}) == [
        "b/x", "b/y", "grad_norm", "lr"]  # fmt: skip


# --- what differs -------------------------------------------------------------------------------


def test_only_fields_that_differ_are_listed(tmp_path: Path):
    a = run_of(tmp_path)
    b = run_of(tmp_path, student=DiTConfig(depth=6), lr=0.01, methods=(Use("pairs", {"l2": 1.0}),))
    found = figures.config_difference([a, b])
    mine, theirs = found.columns
    assert dict(zip(found.index, found[theirs])) == {"student.depth": "6", "lr": "0.01", "pairs.l2": "1.0"}
    assert found.loc["pairs.l2", mine] == ""
    assert figures.config_difference([a]).empty


def test_runs_of_one_label_keep_their_own_column_and_a_broken_one_is_left_out(tmp_path: Path):
    runs = [run_of(tmp_path, seed=seed) for seed in range(3)]
    for run in runs:
        run.set_notes(label="same")
    (runs[2].path / "recipe.json").write_text('{"data"')
    assert figures.config_difference(runs).columns.tolist() == ["same", runs[1].id]


# --- samples ------------------------------------------------------------------------------------


def test_samples_come_back_as_they_were_written(tmp_path: Path):
    np.savez(tmp_path / "s.npz", images=sheet(3), classes=np.arange(20), seeds=np.arange(20))
    assert (sheets.read_samples(tmp_path / "s.npz").images == 3).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": np.array(["boot"] * 20)},
        {"classes": np.zeros((20, 1), int)},
        {"classes": np.zeros(20)},
        {"classes": np.array(0)},
        {"seeds": np.array(["1"] * 20)},
        {"seeds": np.zeros((20, 2), int)},
        {"images": np.zeros((20, 1, 0, 0), np.uint8)},
        {"images": np.zeros((0, 1, 8, 8), np.uint8), "classes": np.arange(0), "seeds": np.arange(0)},
    ],
)
def test_samples_of_another_kind_are_none(tmp_path: Path, wrong: dict[str, np.ndarray]):
    np.savez(tmp_path / "s.npz", **{"images": sheet(3), "classes": np.arange(20), "seeds": np.arange(20)} | wrong)
    assert sheets.read_samples(tmp_path / "s.npz") is None


@pytest.mark.parametrize("content", ["nothing", "text", "cut", "spoilt", "header", "pickle", "wrong"])
def test_unreadable_samples_are_none(tmp_path: Path, content: str):
    path = tmp_path / "s.npz"
    if content == "text":
        path.write_text(json.dumps({}))
    elif content == "cut":
        np.savez(path, images=sheet(3), classes=np.arange(20), seeds=np.arange(20))
        path.write_bytes(path.read_bytes()[:300])
    elif content == "spoilt":
        np.savez_compressed(path, images=sheet(3), classes=np.arange(20), seeds=np.arange(20))
        whole = path.read_bytes()
        path.write_bytes(whole[:60] + b"\xff" * 40 + whole[100:])
    elif content == "header":  # whose checksum is right
        with zipfile.ZipFile(path, "w") as file:
            for name, array in (("images", sheet(3)), ("classes", np.arange(20)), ("seeds", np.arange(20))):
                np.save(told := io.BytesIO(), array)
                file.writestr(f"{name}.npy", told.getvalue().replace(b"}", b"[", 1))
    elif content == "pickle":
        np.savez(path, images=np.array([{}]), classes=np.arange(1), seeds=np.arange(1))
    elif content == "wrong":
        np.savez(path, images=sheet(3), classes=np.arange(4), seeds=np.arange(20))
    assert sheets.read_samples(path) is None
