"""What the repository says about itself is so."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from conftest import TINY_STUDENT

from lab import cost, experiment, models
from lab.config import DiTConfig, Recipe, Use
from lab.data import ImageSpec
from lab.doctor import required
from lab.guides import Guide
from lab.methods import METHODS, Inputs, Roles, Step
from lab.models.taps import Taps
from lab.results import Store

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CARD = {"torch", "streamlit", "plotly", "jupyterlab", "diffusers", "pandas", "torch-fidelity"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def methods_table() -> str:
    """The README's table of methods, from the code."""
    rows = [f"| `{name}` | {cls.paper} | {cls.__doc__.splitlines()[0]} |" for name, cls in sorted(METHODS.items())]
    return "\n".join(["| method | paper | what it does |", "|---|---|---|", *rows])


def test_the_readme_lists_the_methods_that_there_are():
    found = re.search(r"<!-- methods.*?-->\n(.*?)\n<!-- /methods -->", README, re.DOTALL)[1]
    assert found == methods_table(), f"put this table into README.md:\n{methods_table()}"


def test_the_tree_in_the_readme_exists_and_is_whole():
    tree = README.split("## The tree")[1].split("```")[1]
    named = [line.split()[0] for line in tree.splitlines() if line.strip()]
    assert not [name for name in named if not (ROOT / name).exists()]
    parts = {f"lab/{p.name}/" if p.is_dir() else f"lab/{p.name}" for p in (ROOT / "lab").iterdir()
             if not p.name.startswith(("_", ".")) and p.name != "assets"}  # fmt: skip
    assert parts <= set(named), f"README.md does not name {', '.join(sorted(parts - set(named)))}"


def test_commands_in_the_readme_parse():
    from lab.cli import parser

    commands = re.findall(r"^python -m lab (.*?)(?:  +#.*)?$", README, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        parser().parse_args(command.split())


def test_requirements_hold_the_packages_of_the_card_with_lower_bounds():
    lines = required(ROOT / "requirements.txt")
    assert {re.match(r"[\w-]+", line)[0] for line in lines} >= CARD
    assert not [line for line in lines if ">=" not in line]


def test_sentences_and_tables_of_the_findings_are_those_of_the_results():
    findings, store = runpy.run_path(str(ROOT / "benchmarks" / "findings.py")), Store(ROOT / "results")
    said = findings["sentences"](store)
    assert said.count("\n- ") >= 5 and findings["within"](README, said) == README, findings["COMMAND"]
    assert (ROOT / "results" / "FINDINGS.md").read_text() == findings["tables"](store), findings["COMMAND"]


def test_links_of_the_readme_lead_somewhere():
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    for path, heading in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", prose):
        assert (ROOT / path).exists(), path
        if heading:
            there = {h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.M)}
            assert heading in there, f"{path} has no heading {heading}"


def test_a_word_of_the_glossary_is_used_after_it_or_is_told_where_it_comes_first():
    before, glossary = README.split("## Words")[0], README.split("## Words")[1].split("\n## ")[0]
    words = re.findall(r"^\| (\w+) \| \w", glossary, re.M)[1:]
    assert len(words) == 10
    first = {word: found.start() for word in words if (found := re.search(rf"\b{word}", before))}
    assert first and all(before[at - 2 : at] == "**" for at in first.values()), first


@pytest.fixture
def readme_method():
    """The README's method, registered while the test runs."""
    source = README.split("### A method of your own")[1].split("```python\n")[1].split("```")[0]
    exec(compile(source, "README.md", "exec", dont_inherit=True), space := {"__name__": "last_block"})
    yield space["LastBlock"], source
    del METHODS["last_block"]


def test_the_method_in_the_readme_takes_ten_lines_and_its_loss_reaches_the_student_alone(readme_method):
    cls, source = readme_method
    assert len([line for line in source.split('"""')[2].splitlines() if line.strip()]) == 10

    method = cls()
    student, large = (models.build(DiTConfig(image_size=8, depth=d, width=w, heads=2)) for d, w in [(1, 16), (3, 32)])
    guide = Guide("large", large, ImageSpec(data="digits", size=8, channels=1, num_classes=10))
    student = method.prepare(student, Roles(guide.spec, guide))
    mine, its = (Taps(names) for names in method.taps(student, guide))
    x, y = torch.randn(4, 1, 8, 8), torch.arange(4)
    inputs = Inputs(x=x, sigma=None, y=y, target=x, weight=torch.ones(4))
    step = Step(inputs, student(x, None, y, mine), mine, guide(x, None, y, its), its, 0.0, torch.Generator())
    loss = method.loss(step)["last_block"]
    loss.backward()
    assert loss.isfinite() and loss > 0 and student.embed.weight.grad.abs().sum() > 0
    assert method.own["map"].weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in large.parameters())


def test_the_method_in_the_readme_trains_a_student_beside_a_guide(readme_method, taught: Store):
    large = dataclasses.replace(TINY_STUDENT, student=dataclasses.replace(TINY_STUDENT.student, depth=3, width=32))
    guide = experiment.run(large, taught, measure=False)
    recipe = dataclasses.replace(TINY_STUDENT, guide=guide.id, methods=(Use("pairs"), Use("last_block")))
    done = experiment.run(recipe, taught, measure=False)
    assert done.status().state == "done" and done.config == TINY_STUDENT.student
    losses = [value for row in done.log_rows() for name, value in row.items() if name.startswith("last_block/")]
    assert losses and all(map(math.isfinite, losses))


def test_pyproject_reads_requirements_and_has_the_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert set(project["project"]["optional-dependencies"]) == {"dev", "edge", "ray", "search"}


def test_committed_costs_are_those_of_the_closed_form_trained_and_deployed():
    runs = Store(ROOT / "results").runs()
    wrong = [run.id for run in runs if (found := run.read("cost")) and found != cost.of_run(run)]
    assert runs and not wrong, f"{', '.join(wrong)}: cost.json is not what lab.cost.of_run gives"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.json")), ids=lambda p: p.name)
def test_a_committed_recipe_reads_and_names_known_methods(path: Path):
    recipe = Recipe.from_json(path.read_text())
    assert recipe.student.check() == [] and {use.method for use in recipe.methods} <= set(METHODS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_has_one_parameters_cell_with_smoke(path: Path):
    cells = json.loads(path.read_text())["cells"]
    tagged = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1 and "smoke = False" in "".join(tagged[0]["source"])


def _code_cells(path: Path) -> list[tuple[list[str], str]]:
    """Tags and source of each code cell."""
    cells = json.loads(path.read_text())["cells"]
    return [(c["metadata"].get("tags", []), "".join(c["source"])) for c in cells if c["cell_type"] == "code"]


def test_every_notebook_begins_with_the_same_cell_that_installs_the_lab_where_it_lacks():
    first = {path.name: _code_cells(path)[0] for path in NOTEBOOKS}
    assert all(tags == ["install"] for tags, _ in first.values())
    sources = {source for _, source in first.values()}
    assert len(sources) == 1, f"the install cells of {', '.join(first)} differ"
    assert not [p.name for p in NOTEBOOKS for _, source in _code_cells(p)[1:] if "sys.path" in source]


def test_the_install_cell_does_nothing_where_the_lab_is_here_and_is_a_sentence_where_it_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    source = _code_cells(NOTEBOOKS[0])[0][1]
    assert "%pip install --quiet --editable {around[0]}" in source
    code = source.replace("%pip install --quiet --editable {around[0]}", "asked.append(around[0])")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(ROOT / "notebooks")
    exec(code, {"asked": asked})
    assert not asked and str(ROOT) in sys.path
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(code, {"asked": asked})
    assert asked == [str(ROOT)]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="open this notebook inside a copy of the lab's repository"):
        exec(code, {"asked": asked})


def test_only_the_quickstart_is_committed_with_outputs():
    kept = {p.name for p in NOTEBOOKS for c in json.loads(p.read_text())["cells"] if c.get("outputs")}
    assert kept <= {"00_quickstart.ipynb"}


def test_the_scratch_notebook_imports_nothing_of_the_lab_and_stays_short():
    cells = _code_cells(ROOT / "notebooks" / "01_one_step_from_scratch.ipynb")
    code = "\n".join(source for tags, source in cells if "install" not in tags)
    assert not re.search(r"^\s*(import|from) lab\b", code, re.MULTILINE)
    assert len([line for line in code.splitlines() if line.strip()]) < 80
