from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lab.config import (
    ADDED_LATER,
    DiTConfig,
    Recipe,
    RoutedConfig,
    UNetConfig,
    Use,
    check_fields,
    config_from_json,
    config_to_json,
)
from lab.methods import METHODS, create, options_of
from lab.results import ID


def test_a_recipe_survives_json_with_the_same_id():
    recipe = Recipe(
        student=UNetConfig(widths=(16, 32)), methods=(Use("denoise", {"label_drop": 0.2}),), classes=(1, 2), keep=(640,)
    )
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe and again.id == recipe.id


@pytest.mark.parametrize("change", [{"seed": 1}, {"lr": 1e-3}, {"student__depth": 5}, {"methods": (Use("denoise"),)}])
def test_every_change_changes_the_id(change):
    assert Recipe().with_(**change).id != Recipe().id


def test_defaults_are_frozen():
    # Hundreds of runs rest on these ids: a changed default would silently re-use or orphan them.
    teacher = Recipe(student=UNetConfig(), methods=(Use("denoise"),))
    for name, recipe in (("recipe", Recipe()), ("teacher", teacher)):
        uses = tuple(Use(use.method, options_of(create(use))) for use in recipe.methods)
        assert recipe.with_(lr=recipe.default_lr, methods=uses).id == FROZEN[name]


FROZEN = {"recipe": "digits-d4w64h4p4-pairs-fe24d442", "teacher": "digits-unet32x64x64-denoise-b53e1d37"}


def test_an_id_is_one_that_the_store_finds_whatever_the_data_is_called():
    for data in ("folder:/bilder/b\u00e4ume", "folder:/\u5199\u771f", "folder:/a/\u00b2x"):
        assert ID.fullmatch(Recipe(data=data).id)


def test_a_field_added_later_leaves_old_ids_alone(monkeypatch):
    before = Recipe().id
    monkeypatch.setitem(ADDED_LATER, ("recipe", "seed"), 0)  # as if `seed` had been added after the freeze
    without = Recipe().id
    assert without != before and Recipe(seed=1).id != without
    monkeypatch.setitem(ADDED_LATER, ("recipe", "clip"), 9.0)  # holds another value: stays in the hash
    assert Recipe().id == without


def test_unknown_field_names_the_nearest():
    with pytest.raises(ValueError, match="'stepz'; did you mean 'steps'"):
        Recipe.from_json('{"stepz": 3}')


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "must be JSON"),
        ('{"steps": "many"}', "recipe.steps must be a whole number"),
        ('{"steps": true}', "recipe.steps must be a whole number"),
        ('{"seed": 9223372036854775808}', "recipe.seed must lie below 2^63"),
        ('{"methods": "pairs"}', "recipe.methods must be a list, got 'pairs'"),
        ('{"guide": 3}', "recipe.guide must be a text, got 3"),
        ('{"student": {"family": "dot"}}', "did you mean 'dit'"),
        ('{"student": {"family": []}}', r"unknown network family '[]'"),
        ('{"student": null}', "recipe.student must be a JSON object with a `family`, got None"),
        ('{"student": []}', "recipe.student must be a JSON object with a `family`, got []"),
        ('{"student": 3}', "recipe.student must be a JSON object with a `family`, got 3"),
        ('{"student": {"width": 1.5}}', "dit.width must be a whole number"),
        ('{"betas": [0.9]}', "recipe.betas"),
        ("[]", "must be a JSON object"),
    ],
)
def test_bad_recipes_are_refused_in_a_sentence(text, part):
    with pytest.raises(ValueError, match=re.escape(part)):
        Recipe.from_json(text)


def test_check_lists_everything_that_is_wrong_at_once():
    recipe = Recipe(student=DiTConfig(width=100, heads=3, image_size=27), lr=0.0, schedule="linaer", keep=(100,))
    wrong = "\n".join(check_fields(recipe))
    for part in ["width 100 is not a multiple of heads 3; nearest: 99, 102", "image_size 27", "lr must be above 0",
                 "did you mean 'linear'", "keep names 100 images"]:  # fmt: skip
        assert part in wrong


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"batch": 0, "keep": (100,)}, "batch must be at least 1, got 0"),
        ({"seed": 2**50}, "seed must be from 0 to 2147483647"),
        ({"seed": -1}, "seed must be from 0"),
        ({"student__out_channels": 3}, "out_channels must be channels (1), or twice that"),
        ({"student__out_channels": -1}, "out_channels must be channels (1)"),
        ({"student__out_channels": 2}, "student.out_channels is 2, but no method learns a variance"),
        ({"student__num_classes": 10**9}, "num_classes must be at most 100,000, got 1,000,000,000"),
        ({"student": RoutedConfig(experts=10**9)}, "experts must be at most 100, got 1,000,000,000"),
        ({"student": RoutedConfig(num_classes=10**9)}, "num_classes must be at most 100,000, got 1,000,000,000"),
        ({"classes": (0, 10)}, "classes must be some of 0 to 9, got [0, 10]"),
        ({"classes": (3, 3, 5)}, "classes must name each class once, got [3, 3, 5] with 3 repeated"),
        ({"classes": ()}, "classes must be some of 0 to 9, got []"),
        ({"classes": (-1,), "student__num_classes": 0}, "classes must be whole numbers from 0 on, got [-1]"),
    ],
)
def test_a_field_out_of_range_is_named(change, part):
    assert any(part in said for said in check_fields(Recipe().with_(**change)))


def test_an_unconditional_student_may_see_some_classes_only():
    assert check_fields(Recipe(classes=(3,)).with_(student__num_classes=0)) == []


def test_config_json_carries_its_family():
    for config in (DiTConfig(depth=3), UNetConfig(layers=2)):
        assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_the_committed_runs_keep_their_ids():
    folders = sorted((Path(__file__).parent.parent / "results" / "runs").iterdir())
    assert len(folders) >= 13
    for folder in folders:
        assert Recipe.from_json((folder / "recipe.json").read_text()).id == folder.name


def test_a_method_s_option_that_came_later_leaves_old_ids_alone(monkeypatch):
    before = Recipe(methods=(Use("pairs", options_of(create(Use("pairs")))),))
    kept = {k: v for k, v in before.methods[0].options.items() if k != "perceptual_from"}
    monkeypatch.setattr(METHODS["pairs"], "added_later", {"perceptual_from": 0.0})
    assert options_of(create(Use("pairs"))) == kept
    assert options_of(create(Use("pairs", {"perceptual_from": 0.5}))) == kept | {"perceptual_from": 0.5}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_recipe_is_read_as_editors_write_it(tmp_path, encoding):
    (tmp_path / "a.json").write_text('{"seed": 3, "data": "folder:/d\u00e9j\u00e0"}', encoding)
    assert Recipe.read(tmp_path / "a.json") == Recipe(seed=3, data="folder:/d\u00e9j\u00e0")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"data": "d\u00e9"}'.encode("cp1252"), "not UTF-8"),
        (b'{"seed": 1, "seed": 2}', "seed stands there more than once"),
        (b'{"student": {"depth": 1, "depth": 2}}', "depth stands there more than once"),
        (b'{"methods": [{"method": "pairs", "options": {"l1": NaN}}]}', "it holds NaN, which is no finite number"),
        (b'{"lr": 1e999}', "it holds 1e999, which is no finite number"),
        (b'{"seed": 1,}', "must be JSON"),
        (b"", "must be JSON"),
        (b"[" * 100_000, "must be JSON"),
        (b'{"seed": 1}'.decode().encode("utf-16")[:-1], "not UTF-8"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_refused_by_its_files_name(tmp_path, content, said):
    (tmp_path / "mine.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"mine.json.*{said}"):
        Recipe.read(tmp_path / "mine.json")


@pytest.mark.parametrize("seed", [-1, 2**31, 2**32, 2**40])
def test_a_seed_that_would_be_another_one_is_refused(seed):
    assert any("seed" in wrong for wrong in check_fields(Recipe(seed=seed)))
    assert not any("seed" in wrong for wrong in check_fields(Recipe(seed=2**31 - 1)))


@pytest.mark.parametrize("more", [{"layers": 0}, {"layers": -3}, {"layers": 101}, {"num_classes": -5}])
def test_a_u_net_of_no_layers_or_fewer_than_no_classes_is_refused(more: dict[str, int]):
    (wrong,) = UNetConfig(**more).check()
    assert wrong.startswith("layers of a U-Net must be from 1 to 100 and num_classes at least 0, got ")
