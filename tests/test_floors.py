"""Who may import whom: the lab is built in floors, and imports go down."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS: dict[int, list[str]] = {
    6: ["app", "lab.__init__", "lab.__main__", "lab.cli", "lab.dashboard"],
    5: ["lab.experiment", "lab.sweep", "lab.cluster", "lab.doctor"],
    4: ["lab.plan", "lab.train", "lab.recorder", "lab.optim", "lab.metrics", "lab.neighbours", "lab.bench",
        "lab.fastest", "lab.runtimes", "lab.footprint", "lab.pack", "lab.devices.runner", "lab.devices.model_torch"],
    3: ["lab.methods", "lab.sampling", "lab.walk", "lab.export", "lab.int8", "lab.program", "lab.artefacts"],
    2: ["lab.teachers", "lab.guides", "lab.pairs", "lab.cost", "lab.deploy", "lab.weights", "lab.packing"],
    1: ["lab.data", "lab.diffusion", "lab.ddpm", "lab.features", "lab.models", "lab.perceptual"],
    0: ["lab.config", "lab.counts", "lab.schema", "lab.results", "lab.choose", "lab.principles", "lab.verdicts",
        "lab.arms", "lab.catalogue", "lab.claims", "lab.figures", "lab.report", "lab.sheets", "lab.jobs", "lab.locks",
        "lab.compiler", "lab.devices.__init__", "lab.devices.report", "lab.devices.incoming", "lab.devices.predict",
        "lab.devices.compare", "lab.devices.bundle", "lab.pack_readme", "lab.precisions", "lab.options", "lab.places"],
}  # fmt: skip
FLOOR_0 = [
    name for name in FLOORS[0] if (at := ROOT / name.replace(".", "/")).is_dir() or at.with_suffix(".py").exists()
]
# Folders of methods, runtimes and pages: these never import one another, only what they share.
APART = ("lab.methods", "lab.runtimes", "lab.dashboard")
SHARED = ("lab.methods.features", "lab.methods.assistant")  # no method, what several need


def files() -> list[Path]:
    return [ROOT / "app.py", *sorted((ROOT / "lab").rglob("*.py"))]


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def floor(name: str) -> int | None:
    """The floor of a module, by the longest prefix that FLOORS holds."""
    placed = [(len(prefix), level) for level, prefixes in FLOORS.items() for prefix in prefixes
              if name == prefix or name.startswith(f"{prefix}.")]  # fmt: skip
    return max(placed)[1] if placed else None


def imports(tree: ast.AST) -> list[str]:
    """The modules of the lab that a file imports, as their files are called; type-only imports left out."""
    typed = {id(n) for i in ast.walk(tree) if isinstance(i, ast.If) and ast.unparse(i.test) == "TYPE_CHECKING"
             for n in ast.walk(i)}  # fmt: skip
    found = []
    for node in ast.walk(tree):
        if id(node) in typed:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [m for name in found if name.split(".")[0] == "lab" and (m := as_file(name)) is not None]


def as_file(name: str) -> str | None:
    """`lab.config.Recipe` -> lab.config, `lab.models` -> lab.models.__init__; a lazy public name has no file."""
    while name != "lab":
        path = ROOT / name.replace(".", "/")
        if path.with_suffix(".py").exists():
            return name
        if (path / "__init__.py").exists():
            return f"{name}.__init__"
        name = name.rpartition(".")[0]
    return None


def complaints(name: str, tree: ast.AST) -> list[str]:
    """One sentence for every import of a file that does not go down."""
    mine, wrong = floor(name), []
    for other in imports(tree):
        theirs = floor(other)
        if theirs is not None and theirs > mine:
            wrong.append(f"{shown(name)} (floor {mine}) imports {shown(other)} (floor {theirs})")
        for folder in APART:
            if name.startswith(f"{folder}.") and other.startswith(f"{folder}.") and stands_alone(other):
                wrong.append(f"{shown(name)} imports {shown(other)}: files of {folder} stand apart")
    return wrong


def stands_alone(name: str) -> bool:
    """Whether a file is a method, a runtime or a page (which has a TITLE), not what those share."""
    if name.rpartition(".")[2] in ("__init__", "base") or name in SHARED:
        return False
    return not name.startswith("lab.dashboard.") or "\nTITLE" in (ROOT / shown(name)).read_text()


def shown(name: str) -> str:
    return name.replace(".", "/") + ".py"


def test_every_file_stands_on_a_floor():
    lost = [shown(module(path)) for path in files() if floor(module(path)) is None]
    assert not lost, f"give {', '.join(lost)} a floor in tests/test_floors.py"


def test_imports_go_down_only():
    wrong = [said for path in files() for said in complaints(module(path), ast.parse(path.read_text()))]
    assert not wrong, "\n".join(wrong)


def test_an_import_upwards_is_found_and_named():
    tree = ast.parse("def f():\n    from lab.train import train")
    (said,) = complaints("lab.methods.ternary", tree)
    assert said == "lab/methods/ternary.py (floor 3) imports lab/train.py (floor 4)"


def test_an_import_between_two_methods_is_found():
    (said,) = complaints("lab.methods.denoise", ast.parse("from lab.methods.pairs import Pairs"))
    assert said.startswith("lab/methods/denoise.py imports lab/methods/pairs.py")


def test_pages_import_floor_0_at_their_head():
    """A page that needs torch imports it inside the cached function that uses it."""
    wrong = []
    for path in [ROOT / "app.py", *sorted((ROOT / "lab" / "dashboard").rglob("*.py"))]:
        body = ast.parse(path.read_text()).body
        head = ast.Module([node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
        wrong += [f"{shown(module(path))} imports {shown(o)}" for o in imports(head)
                  if floor(o) != 0 and not o.startswith("lab.dashboard")]  # fmt: skip
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [*FLOOR_0, "lab.cli"])
def test_no_torch_is_loaded_by(name: str):
    code = f"import {name}, sys; assert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"import {name}: {done.stderr[-500:]}"


def test_the_public_names_are_there():
    import lab

    for name in lab.__all__:
        assert getattr(lab, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        lab.lode  # noqa: B018
