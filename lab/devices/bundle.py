"""runner.py: the modules of runner/ as the one file that a pack carries to a board, where there is no lab.

They are set one after the other into one namespace. Equal modules give equal bytes, wherever they are bundled.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent / "runner"
PACKAGE = "lab.devices.runner"
# Each after those that it imports.
MODULES = ("errors", "preset", "texts", "jetson", "machine", "quiet", "summary", "watch", "calls", "turns", "memory",
           "pack", "found", "in_process", "trtexec", "report", "command")  # fmt: skip
GUARD = """\
# Before 3.8 this line is the one that Python shows as wrong, so it says itself what would be right.
if (python := sys.version_info) < (3, 10):  # runner.py needs Python 3.10 or newer: apt-get install python3.10
    sys.exit(f"runner.py needs Python 3.10 or newer, this is {python[0]}.{python[1]}; try: python3.10 runner.py")
"""
MAIN = """\
if __name__ == "__main__":
    sys.exit(main())
"""


@functools.cache
def bundled() -> bytes:
    """The file's bytes."""
    return bundle({name: (FOLDER / f"{name}.py").read_text(encoding="utf-8") for name in ("__init__", *MODULES)})


@functools.cache
def sha256() -> str:
    """Of the file, so that a report made by the modules says which protocol made it, as a board's does."""
    return hashlib.sha256(bundled()).hexdigest()


def bundle(sources: dict[str, str]) -> bytes:
    """The sources of modules, in order, as one file under the docstring of the first, which gives no code.

    Raises ValueError where two of them give one name to two things, or one imports another in a way that would leave
    a name without its thing.
    """
    (_, head), *modules = sources.items()
    plain: set[str] = set()  # import X
    named: dict[str, set[str]] = {}  # from X import Y
    owners: dict[str, str] = {}
    parts = []
    for name, text in modules:
        tree = ast.parse(text)
        imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        for node in imports:
            module, names = getattr(node, "module", None), {alias.name for alias in node.names}
            if module == PACKAGE or any(alias.asname for alias in node.names):
                raise ValueError(f"{name}.py can't be bundled: in one file `{ast.unparse(node)}` has no meaning")
            if module is None:
                plain |= names
            elif not module.startswith(f"{PACKAGE}."):
                named.setdefault(module, set()).update(names)
        for defined in _defined(tree):
            if (other := owners.setdefault(defined, name)) != name:
                raise ValueError(f"{name}.py can't be bundled: {other}.py gives the name {defined} to something else")
        body = text.splitlines()[imports[-1].end_lineno :]
        parts.append("\n".join([f"# {ast.get_docstring(tree)}", *body]).strip())
    if twice := sorted(owners.keys() & (plain | set().union(*named.values()))):
        raise ValueError(f"{owners[twice[0]]}.py can't be bundled: another module imports the name {twice[0]}")
    named.pop("__future__")
    lines = [f"import {module}" for module in sorted(plain)]
    lines += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(named.items())]
    top = f'"""{ast.get_docstring(ast.parse(head))}\n"""\n\nfrom __future__ import annotations\n\n' + "\n".join(lines)
    return "\n\n\n".join([top, GUARD.strip(), *parts, MAIN]).encode()


def _defined(tree: ast.Module) -> set[str]:
    """The names that a module's own functions, classes and constants have."""
    constants = [part for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign)) for part in ast.walk(node)]
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))} | {
        part.id for part in constants if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}  # fmt: skip
