"""The seam between methods and lab, by toy methods; and that the contract can fail."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from conftest import TINY_STUDENT
from methods import test_contract as contract
from torch import nn

from lab import cost, deploy, experiment, models, sampling
from lab.config import Use
from lab.methods import METHODS, Method, features
from lab.models.dit import Linear
from lab.optim import Optimizer
from lab.weights import load_student


@pytest.fixture(autouse=True)
def toys():
    """Methods that a test defines are gone after it."""
    known = set(METHODS)
    yield
    for name in set(METHODS) - known:
        del METHODS[name]


def uses(*names: str) -> tuple[Use, ...]:
    return tuple(Use(name) for name in ("pairs", *names))


def test_a_search_ships_another_network_than_it_was_asked_for_and_says_what_it_found(taught):
    """S4, S5: half of the blocks are thrown away; everything after reads the run's own files."""

    @dataclass
    class Halve(Method):
        name: ClassVar[str] = "halve"
        paper: ClassVar[str] = "none"

        def finish(self, student: nn.Module) -> nn.Module:
            config = dataclasses.replace(student.config, depth=student.config.depth // 2)
            net = models.build(config)
            net.load_state_dict({k: v for k, v in student.state_dict().items() if k in net.state_dict()})
            return net

        def facts(self, student: nn.Module) -> dict:
            return {"kept": list(range(student.config.depth))}

    run = experiment.run(TINY_STUDENT.with_(methods=uses("halve"), student__depth=4), taught)
    assert (run.recipe.student.depth, run.config.depth) == (4, 2)
    assert run.facts == {"halve": {"kept": [0, 1]}}
    assert run.read("cost")["params"] == sum(p.numel() for p in load_student(run).parameters())
    assert run.read("cost")["params_train"] > run.read("cost")["params"]
    row = taught.table().set_index("run").loc[run.id]
    assert row["depth"] == 2 and row["macs"] == cost.of_config(run.config)["macs"]
    net, z, y = load_student(run), torch.randn(2, 1, 8, 8), torch.tensor([1, 2])
    torch.testing.assert_close(deploy.deploy(net)(z, y), net(z, None, y), atol=1e-5, rtol=1e-4)
    assert sampling.load(run.id, taught).sample(range(3)).shape == (3, 1, 8, 8)


def test_starts_arrive_frozen_with_their_facts_and_are_no_state(taught, monkeypatch):
    """S4: a frozen network inside train-only modules is not saved every minute, and weights are not copied untold."""
    seen = {}

    @dataclass
    class Reads(Method):
        name: ClassVar[str] = "reads"
        paper: ClassVar[str] = "none"
        needs: ClassVar[frozenset[str]] = frozenset({"starts"})

        def prepare(self, student, roles):
            seen["starts"], seen["device"] = roles.starts, roles.device
            seen["copied"] = torch.equal(student.embed.weight, roles.starts[0].net.embed.weight)
            self.own["frozen"], self.own["gate"] = roles.starts[0].net, nn.Linear(2, 2)
            return student

        def loss(self, step):
            return {"gate": self.own["gate"](torch.ones(2)).square().sum()}

    first = experiment.run(TINY_STUDENT, taught, measure=False)
    saved = []

    recipe = TINY_STUDENT.with_(methods=uses("reads"), start=(first.id,), seed=4)
    original = torch.save
    monkeypatch.setattr(torch, "save", lambda value, *rest: (saved.append(value), original(value, *rest)))
    monkeypatch.setattr("lab.recorder.SAVE_EVERY_S", 0.0)
    experiment.run(recipe, taught, measure=False)
    (start,) = seen["starts"]
    assert start.recipe.id == first.id and start.facts == first.facts and not seen["copied"]
    assert not any(p.requires_grad for p in start.net.parameters()) and seen["device"].type == "cpu"
    assert set(saved[-1]["own"]) == {"1.gate.weight", "1.gate.bias"}


def test_the_path_and_the_number_of_a_pair_reach_a_method(taught):
    """S7."""
    seen = []

    @dataclass
    class Paths(Method):
        name: ClassVar[str] = "paths"
        paper: ClassVar[str] = "none"
        needs: ClassVar[frozenset[str]] = frozenset({"path"})

        def path(self, recipe):
            return 2

        def loss(self, step):
            seen.append(step.inputs)
            return {"x": 0.0 * step.prediction.sum()}

    experiment.run(TINY_STUDENT.with_(methods=uses("paths"), steps=1), taught, measure=False)
    (inputs,) = seen
    assert inputs.path.shape == (16, 2, 1, 8, 8) and inputs.index.shape == (16,)
    assert torch.equal(inputs.path[:, -1], inputs.target) or (inputs.path[:, -1] - inputs.target).abs().max() < 1


def test_a_loss_can_ask_by_the_objective_s_distance_and_ask_the_student_again(taught):
    """S9."""
    seen = {}

    @dataclass
    class Again(Method):
        name: ClassVar[str] = "again"
        paper: ClassVar[str] = "none"

        def loss(self, step):
            seen["same"] = torch.equal(step.again(), step.prediction)
            seen["toward"] = step.toward(step.inputs.target)
            return {"x": step.again().square().mean()}

    nets, _ = contract.prepared("again")
    step = contract.look(nets)
    losses = nets.losses(step)
    assert seen["same"] and {f"pairs/{k}": v.item() for k, v in seen["toward"].items()} == {
        k: v.item() for k, v in losses.items() if k.startswith("pairs/")
    }


def test_an_edit_says_which_of_its_parameters_are_matrices():
    """S11."""

    class Factors(nn.Module):
        matrices: ClassVar[dict[str, int]] = {"a": 1}
        lr_scale = 0.5

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.eye(16)), nn.Parameter(torch.ones(16))

        def forward(self, w):
            return self.b[:, None] * (self.a @ w)

    net = models.build(TINY_STUDENT.student)
    edit = Factors()
    net.blocks[0].attn.proj.edit(edit)
    net.blocks[0].attn.proj.weight.requires_grad_(False)
    optimizer = Optimizer([net], TINY_STUDENT)
    optimizer.set_lr(1.0)
    where = {id(p): (name, g["lr"]) for name, part in optimizer.parts.items() for g in part.param_groups
             for p in g["params"]}  # fmt: skip
    assert where[id(edit.a)] == ("muon", 0.5) and where[id(edit.b)] == ("adamw", 0.5)
    assert id(net.blocks[0].attn.proj.weight) not in where and isinstance(net.blocks[0].attn.proj, Linear)


def test_the_last_recipe_of_a_plan_may_join_runs_of_some_classes_without_an_objective(taught):
    """S1, S15: two experts of half of the classes each, then a composite that is only built and measured."""

    @dataclass
    class Join(Method):
        name: ClassVar[str] = "join"
        paper: ClassVar[str] = "none"
        needs: ClassVar[frozenset[str]] = frozenset({"starts"})

        def plan(self, recipe):
            if recipe.start:
                return [recipe]
            half = TINY_STUDENT.with_(steps=2)
            experts = [half.with_(classes=tuple(range(5))), half.with_(classes=tuple(range(5, 10)))]
            return [*experts, dataclasses.replace(recipe, start=("stage:0", "stage:1"))]

        def prepare(self, student, roles):
            student.load_state_dict(roles.starts[1].net.state_dict())
            return student

    run = experiment.run(TINY_STUDENT.with_(methods=(Use("join"),), steps=0, teacher=None, pairs=0), taught)
    assert [taught.get(name).recipe.classes for name in run.recipe.start] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]
    assert run.status().state == "done" and run.read("metrics")["values"]["fd"]["value"] > 0
    assert torch.equal(load_student(run).head.weight, load_student(taught.get(run.recipe.start[1])).head.weight)


# --- the contract can fail ----------------------------------------------------------------------


def test_a_loss_without_a_gradient_breaks_the_contract():
    @dataclass
    class Detached(Method):
        name: ClassVar[str] = "detached"
        paper: ClassVar[str] = "none"
        objective: ClassVar[bool] = True
        needs: ClassVar[frozenset[str]] = frozenset({"pairs"})
        inputs = METHODS["pairs"].inputs

        def distance(self, step, target):
            return {"l1": (step.prediction.detach() - target).abs().mean()}

    with pytest.raises((AssertionError, RuntimeError)):
        contract.test_its_loss_is_finite_and_reaches_the_student_and_not_the_guide("detached", "float32")


def test_a_network_that_its_config_does_not_build_breaks_the_contract_and_is_not_saved(taught):
    @dataclass
    class Grows(Method):
        name: ClassVar[str] = "grows"
        paper: ClassVar[str] = "none"

        def prepare(self, student, roles):
            student.blocks[0].extra = nn.Linear(2, 2)
            return student

    with pytest.raises(RuntimeError, match="extra"):
        contract.test_finishing_gives_a_network_that_its_config_builds_and_leaves_the_live_one_alone("grows")
    with pytest.raises(ValueError, match=r"can't be built again from its config: blocks\.0\.extra"):
        experiment.run(TINY_STUDENT.with_(methods=uses("grows"), steps=1), taught, measure=False)


def test_a_finish_that_touches_the_live_student_breaks_the_contract():
    @dataclass
    class Touches(Method):
        name: ClassVar[str] = "touches"
        paper: ClassVar[str] = "none"

        def prepare(self, student, roles):
            self._live = student
            return student

        def finish(self, student):
            with torch.no_grad():
                self._live.head.bias.add_(1.0)
            return student

    with pytest.raises(AssertionError):
        contract.test_finishing_gives_a_network_that_its_config_builds_and_leaves_the_live_one_alone("touches")


def test_a_module_that_no_loss_reaches_breaks_the_contract():
    @dataclass
    class Idle(Method):
        name: ClassVar[str] = "idle"
        paper: ClassVar[str] = "none"
        needs: ClassVar[frozenset[str]] = frozenset({"guide"})

        def prepare(self, student, roles):
            self.own["idle"] = features.projection(2, 3)
            return student

    with pytest.raises(AssertionError, match=r"idle\.own\.idle\.weight is never trained"):
        contract.test_what_it_trains_and_throws_away_gets_a_gradient("idle")
