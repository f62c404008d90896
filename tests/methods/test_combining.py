"""Every two methods in one recipe: they work together, or the recipe is refused with a way out.

`PYTHONPATH=.:tests python tests/methods/test_combining.py` prints the table of all pairs.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from conftest import TINY_DIT, TINY_STUDENT, TINY_TEACHER
from methods.test_contract import SPEC, batch, filled

from lab import cost, deploy, experiment, guides, models
from lab.config import Recipe, Use
from lab.methods import METHODS, Method, Roles, create, finish
from lab.methods.ternary import ternary
from lab.results import Run, Store
from lab.train import Networks
from lab.weights import load_student

ORDERED = sorted(METHODS)
PAIRS = [*itertools.combinations(ORDERED, 2)]
OBJECTIVES = [name for name in ORDERED if METHODS[name].objective]
TIMED = ("denoise", "progressive")  # objectives of students with time
ASKING = ("attention_transfer", "class_expert", "manifold", "masked_features", "multi_in_one", "teaching_assistant")
PLANNING = [name for name in ORDERED if METHODS[name].plan is not Method.plan]
# Why two methods are refused: a part of the sentence. All others work.
REFUSED: dict[frozenset[str], str] = {
    **{frozenset(two): "needs one objective" for two in itertools.combinations(OBJECTIVES, 2)},
    **{frozenset({timed, one}): "set student.time" for timed in TIMED
       for one in ("class_expert", "class_split", "dmd", "drifting")},
    **{frozenset(two): "both plan runs; run the first" for two in itertools.combinations(PLANNING, 2)},
    **{frozenset({"dmd", one}): "a recipe has one guide; leave dmd out" for one in (*ASKING, "class_split")},
    frozenset({"depth_pruning", "dmd"}): "prune first, then set start",
    **{frozenset({"dynamic", one}): f"do {one} first, then set start" for one in ("class_expert", "depth_pruning")},
    frozenset({"class_expert", "class_split"}): "leave class_expert out",
    **{frozenset({"class_split", one}): "leave it out, or set it to keep the shape" for one in ("dynamic", "ternary")},
    frozenset({"attention_transfer", "class_split"}): "set attention_transfer.relation_heads",
}  # fmt: skip
WORKING = [pair for pair in PAIRS if frozenset(pair) not in REFUSED]


def covering(pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Pairs that have every method in one of them: those of two new methods first, then those of one."""
    kept: dict[str, tuple[str, str]] = {}
    for fresh in (2, 1):
        for pair in pairs:
            if len({*pair} - kept.keys()) >= fresh:
                kept |= dict.fromkeys(pair, pair) | kept
    return {*kept.values()}


QUICK = covering(WORKING)  # trained in every run of the suite, the others in slow ones

OPTIONS = {"class_split": {"experts": 2, "recover": 1.0}}  # for its experts to learn in two updates


def recipe_of(*names: str, **changes) -> Recipe:
    """Two updates of these methods, beside a guide and from a start that suit each of them."""
    time = any(name in TIMED for name in names)
    objective = () if any(METHODS[name].objective for name in names) else (Use("pairs"),)
    needs = frozenset().union(*(METHODS[name].needs for name in names))
    guide = "denoiser guide" if time or "denoiser" in needs else "guide"
    start = "denoiser" if time else "student"
    return TINY_STUDENT.with_(
        methods=(*objective, *(Use(name, OPTIONS.get(name, {})) for name in names)),
        student__time=time, steps=2, batch=4,
        guide=guide if needs & {"guide", "denoiser"} else None,
        start=(start,) if needs & {"starts"} or "depth_pruning" in names else (),
        **({} if needs & {"pairs", "path"} or not time else {"teacher": None, "pairs": 0}),
        **({"sampler": "ddim-2"} if "progressive" in names else {}),
    ).with_(**changes)  # fmt: skip


def furnished(taught: Path, root: Path) -> Store:
    """A results folder with a guide and a start of either kind: deeper than the student and as wide, and as it is."""
    shutil.copytree(taught, root)
    store = Store(root)
    deep = dataclasses.replace(TINY_DIT, depth=4)
    for label, recipe, student in [("guide", TINY_STUDENT, deep), ("student", TINY_STUDENT, TINY_DIT),
                                   ("denoiser guide", TINY_TEACHER, dataclasses.replace(deep, time=True)),
                                   ("denoiser", TINY_TEACHER, dataclasses.replace(TINY_DIT, time=True))]:  # fmt: skip
        run = experiment.run(recipe.with_(student=student, steps=2, batch=4, seed=7), store, measure=False)
        run.set_notes(label=label)
    return store


@pytest.fixture(scope="module")
def store(taught_root, tmp_path_factory):
    torch.set_num_threads(1)
    return furnished(taught_root, tmp_path_factory.mktemp("combining") / "results")


def refusal(recipe: Recipe, store: Store) -> str | None:
    try:
        experiment.plan(recipe, store)
    except ValueError as error:
        return str(error)
    return None


def check_finished(run: Run) -> None:
    """A network that its files rebuild, taught with finite losses, that is shipped as one call."""
    assert run.status().state == "done"
    losses = [value for row in run.log_rows() for key, value in row.items() if "/" in key or key == "grad_norm"]
    assert all(map(math.isfinite, losses)) and (losses or not run.recipe.steps)
    net = load_student(run)
    assert not any(isinstance(m, models.dit.Linear) and len(m.edits) for m in net.modules())
    z, y = torch.randn(3, 1, 8, 8), torch.tensor([0, 4, 9])
    with torch.inference_mode():
        if net.config.time:
            assert net(z, torch.tensor([0.1, 0.0, -0.3]), y).isfinite().all()
        else:
            torch.testing.assert_close(deploy.deploy(net)(z, y), net(z, None, y), atol=1e-5, rtol=1e-4)


def try_pair(names: tuple[str, ...], store: Store, **changes) -> str | None:
    """Why two methods are refused, or None where a run of both came to its end."""
    recipe = recipe_of(*names, **changes)
    if (said := refusal(recipe, store)) is None:
        experiment.run(recipe, store, measure=False)
        for job in experiment.plan(recipe, store):
            check_finished(store.get(job.recipe.id))
    return said


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_two_methods_are_planned_together_or_refused_with_a_way_out(pair, store):
    said, reason = refusal(recipe_of(*pair), store), REFUSED.get(frozenset(pair))
    assert (said is None) == (reason is None), said or f"{' and '.join(pair)} work together; REFUSED says they don't"
    if reason:
        assert reason in said, said
        assert any(name in said for name in pair), said


@pytest.mark.parametrize("pair", [
    pytest.param(pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in WORKING
], ids="-".join)  # fmt: skip
def test_two_methods_work_together_to_the_end(pair, store):
    assert try_pair(pair, store) is None


@pytest.mark.slow
@pytest.mark.parametrize("pair", WORKING, ids="-".join)
def test_the_order_in_which_a_recipe_names_two_methods_does_not_matter(pair, store):
    assert try_pair(pair[::-1], store, seed=1) is None


# --- sums ---------------------------------------------------------------------------------------


def look(*names: str) -> dict[str, float]:
    """The terms of one update of these methods, of networks that are the same every time."""
    methods = [create(Use(name)) for name in ("pairs", *names)]
    torch.manual_seed(0)
    student = filled(models.build(TINY_DIT))
    guide = guides.Guide("guide", filled(models.build(dataclasses.replace(TINY_DIT, depth=4))), SPEC)
    for method in methods:
        student = method.prepare(student, Roles(SPEC, guide))
    nets, rng = Networks(student, methods, SPEC.sigma_data, guide), torch.Generator().manual_seed(0)
    step = nets.look(nets.objective.inputs(batch(), rng), progress=0.0, rng=rng)
    return {key: value.item() for key, value in nets.losses(step).items()}


def test_feature_losses_sum_and_each_has_the_terms_that_it_has_alone():
    names = ("teaching_assistant", "attention_transfer", "manifold", "masked_features")
    together, share = look(*names), 1.0
    for name in names:
        alone = look(name)
        share *= alone["pairs/l1"] / look()["pairs/l1"]
        mine = {key: value for key, value in alone.items() if key.startswith(f"{name}/")}
        assert mine and {key: together[key] for key in mine} == pytest.approx(mine, rel=1e-5)
    assert together["pairs/l1"] == pytest.approx(share * look()["pairs/l1"], rel=1e-5)  # what they leave it, multiplied


def test_factors_a_quantiser_and_a_feature_loss_train_in_one_recipe(store):
    run = experiment.run(recipe_of("reparam", "ternary", "manifold"), store, measure=False)
    check_finished(run)
    assert {key.split("/")[0] for key in run.log_rows()[-1] if "/" in key} == {"pairs", "manifold"}
    net = load_student(run)
    assert all(len(layer.weight.unique()) <= 3 for layer in net.linears())
    assert run.facts["reparam"]["rank"].keys() <= {*run.facts["ternary"]["layers"]}
    assert run.read("student")["params_train"] > sum(p.numel() for p in net.parameters())


# --- plans --------------------------------------------------------------------------------------


def test_prune_then_distil_then_make_ternary_is_one_plan(store):
    recipe = recipe_of("depth_pruning", "reparam", "ternary", guide=None)
    search, recovery, last = (job.recipe for job in experiment.plan(recipe, store))
    assert [use.method for use in search.methods] == ["pairs", "depth_pruning"]
    assert [use.method for use in recovery.methods] == ["pairs", "masked_features", "reparam"]
    assert [use.method for use in last.methods] == ["pairs", "reparam", "ternary"]
    assert (recovery.start, last.start) == ((search.id,), (recovery.id,))
    assert (search.guide, recovery.guide, last.guide) == (None, store.get("student").id, None)

    run = experiment.run(recipe, store, measure=False)
    check_finished(run)
    assert run.config == dataclasses.replace(TINY_DIT, depth=1, adaln_norm=True)
    assert all(len(layer.weight.unique()) <= 3 for layer in load_student(run).linears())


def test_what_depth_pruning_adds_gives_way_to_what_the_recipe_says():
    """Of masked_features and of the guide."""
    recipe = recipe_of("depth_pruning", "masked_features", guide="guide")
    recipe = recipe.with_(methods=(*recipe.methods[:-1], Use("masked_features", {"output": 0.5})))
    search, recovery = create(recipe.methods[1]).plan(recipe)
    assert recovery.methods == (Use("pairs"), Use("masked_features", {"output": 0.5})) and recovery.guide == "guide"
    assert [use.method for use in search.methods] == ["pairs", "depth_pruning"] and search.guide is None


def test_the_search_leaves_editors_of_weights_out(store):
    recipe = recipe_of("depth_pruning", "ternary")
    recipe = recipe.with_(methods=(Use("pairs"), Use("depth_pruning", {"phase": "search"}), Use("ternary")))
    assert "leave ternary to a run that starts from this one" in refusal(recipe, store)


def test_an_assistant_of_a_denoiser_is_taught_by_the_same_objective(store):
    recipe = recipe_of("denoise", "teaching_assistant", guide=None)
    first, second = (job.recipe for job in experiment.plan(recipe, store))
    assert [use.method for use in first.methods] == ["denoise"] and second.guide == first.id


# --- the order at the end -----------------------------------------------------------------------


def test_a_finished_network_is_folded_then_pruned_and_the_quantiser_saw_the_product():
    """Fold, prune, quantise: the kept blocks are ternary values of what the factors multiply out to."""
    methods = {name: create(Use(name)) for name in ("reparam", "ternary", "depth_pruning")}
    student = filled(models.build(TINY_DIT))
    for method in methods.values():
        student = method.prepare(student, Roles(SPEC))
    for group in student.blocks:
        group.gates.logits.data = torch.tensor([0.0, 0.1])  # the second of two
        for linear in group.modules():
            if isinstance(linear, models.dit.Linear):
                linear.edits[-2].B.data.normal_()  # an adapter of the search, which is dropped
    edits = student.blocks[0].inner[1].mlp.fc1.edits
    product = edits[0].merged(student.blocks[0].inner[1].mlp.fc1.weight)
    expected = (edits[-1].alpha * ternary(product)).detach()
    net = finish(student, [*methods.values()])
    assert methods["depth_pruning"].facts(net)["kept"] == [1] and net.config.depth == 1
    assert torch.equal(net.blocks[0].mlp.fc1.weight, expected) and len(expected.unique()) == 3
    assert net.blocks[0].mlp.fc1.weight.shape == (64, 16)  # the factors' inner width is gone
    assert cost.of_config(net.config)["params"] == sum(p.numel() for p in net.parameters())


# --- the table ----------------------------------------------------------------------------------


def table(store: Store) -> str:
    """All pairs as Markdown: `+` where both work together, else the number of the reason below."""
    reasons: list[str] = []

    def cell(one: str, other: str) -> str:
        if one == other:
            return ""
        if (said := try_pair(tuple(sorted((one, other))), store)) is None:
            return "+"
        if said not in reasons:
            reasons.append(said)
        return str(1 + reasons.index(said))

    rows = [f"| {one} | " + " | ".join(cell(one, other) for other in ORDERED[: at + 1]) + " |" for at, one in
            enumerate(ORDERED)]  # fmt: skip
    head = ["| | " + " | ".join(ORDERED) + " |", "|---" * (1 + len(ORDERED)) + "|"]
    return "\n".join([*head, *rows, "", *(f"{n}. {said}" for n, said in enumerate(reasons, 1))])


def _taught(root: Path) -> Path:
    from lab import pairs

    store = Store(root)
    store.name_teacher("tiny", experiment.run(TINY_TEACHER, store, measure=False).id)
    pairs.ensure(store, pairs.pair_set(store, "tiny", TINY_STUDENT.solver), TINY_STUDENT.pairs)
    return root


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(table(furnished(_taught(Path(folder) / "taught"), Path(folder) / "results")))
