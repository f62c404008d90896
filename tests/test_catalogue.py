from __future__ import annotations

import dataclasses
from pathlib import Path

from lab.catalogue import methods

SOURCE = '''
"""Draw nearer.

Not this."""
@dataclass
class Near(Base):
    """Match one thing.

    And more."""
    name: ClassVar[str] = "near"
    paper: ClassVar[str] = "arXiv 1"
    needs: ClassVar[frozenset[str]] = frozenset({"guide"})
    weight: float = 0.5  # of the term
    parts: tuple[str, ...] = ("a",)
'''


def test_a_file_tells_idea_needs_and_options_with_those_of_what_it_derives_from(tmp_path: Path):
    (tmp_path / "near.py").write_text(SOURCE)
    (tmp_path / "shared.py").write_text("class Base(Method):\n    depth: int = 12  # blocks\n")
    (near,) = methods(tmp_path).values()
    assert (near.name, near.paper, near.idea, near.about) == ("near", "arXiv 1", "Match one thing.", "Draw nearer.")
    assert near.needs == {"guide"} and not near.objective
    assert [(o.name, o.kind, o.default, o.meaning) for o in near.options] == [
        ("depth", "int", "12", "blocks"), ("weight", "float", "0.5", "of the term"),
        ("parts", "tuple[str, ...]", "('a',)", ""),
    ]  # fmt: skip


def test_every_registered_method_is_read_as_it_is():
    from lab.methods import METHODS

    found = methods()
    assert set(found) == set(METHODS)
    for name, cls in METHODS.items():
        entry, fields = found[name], dataclasses.fields(cls)
        assert (entry.paper, entry.objective, entry.needs) == (cls.paper, cls.objective, cls.needs)
        assert entry.idea == cls.__doc__.splitlines()[0] and entry.about
        assert [option.name for option in entry.options] == [field.name for field in fields]
        assert [eval(option.default) for option in entry.options] == [field.default for field in fields]
