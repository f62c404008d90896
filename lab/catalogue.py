"""What the files of lab/methods say of themselves, read without importing them: that would load torch.

for name, entry in methods().items():
    print(name, entry.idea, [option.name for option in entry.options])
"""

from __future__ import annotations

import ast
import io
import tokenize
from dataclasses import dataclass
from pathlib import Path

from lab.options import KINDS

FOLDER = Path(__file__).parent / "methods"


@dataclass(frozen=True)
class Option:
    """An option of a method, as its dataclass has it."""

    name: str
    kind: str  # as annotated: tuple[str, ...]; with the range of a number: float, at least 0
    default: str  # as written
    meaning: str  # the comment beside it; "" where its name says all


@dataclass(frozen=True)
class Entry:
    """A registered method."""

    name: str
    paper: str
    idea: str  # the first line of its docstring
    about: str  # the first paragraph of its file's
    objective: bool  # it draws the inputs and has the main loss
    needs: frozenset[str]  # some of methods.base.NEEDS
    options: tuple[Option, ...]


def methods(folder: Path = FOLDER) -> dict[str, Entry]:
    """Every method of a folder by its name, in the order of the names."""
    classes, files = {}, {}
    for path in sorted(folder.glob("*.py")):
        source = path.read_text()
        tree = ast.parse(source, path)
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                classes[node.name], files[node.name] = node, (tree, _comments(source))
    found = [_entry(of, classes, files) for of in classes]
    return {entry.name: entry for entry in sorted(found, key=lambda entry: entry.name) if entry.name}


def _comments(source: str) -> dict[int, str]:
    """Line -> its comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _entry(of: str, classes: dict[str, ast.ClassDef], files: dict[str, tuple[ast.Module, dict[int, str]]]) -> Entry:
    """What a class says, after what those say that it derives from."""
    said: dict[str, ast.expr] = {}
    options: dict[str, Option] = {}
    for name in _line(of, classes):
        for node in classes[name].body:
            if not isinstance(node, ast.AnnAssign):
                continue
            field, kind = ast.unparse(node.target), ast.unparse(node.annotation)
            if kind.startswith("ClassVar"):
                said[field] = node.value
            else:
                meaning = files[name][1].get(node.lineno, "")
                default = ast.unparse(node.value) if node.value else ""
                options[field] = Option(field, KINDS.get(kind, kind), default, meaning)
    needs = said.get("needs")
    return Entry(
        _value(said.get("name"), ""), _value(said.get("paper"), ""),
        (ast.get_docstring(classes[of]) or "").split("\n")[0],
        " ".join((ast.get_docstring(files[of][0]) or "").split("\n\n")[0].split()),
        _value(said.get("objective"), False),
        frozenset(_value(needs.args[0], ())) if isinstance(needs, ast.Call) and needs.args else frozenset(),
        tuple(options.values()),
    )  # fmt: skip


def _line(of: str, classes: dict[str, ast.ClassDef]) -> list[str]:
    """A class after those that it derives from, of the classes that are known."""
    above = [base.id for base in classes[of].bases if isinstance(base, ast.Name) and base.id in classes]
    return [*(name for base in above for name in _line(base, classes)), of]


def _value(node: ast.expr | None, default: object) -> object:
    return default if node is None else ast.literal_eval(node)
