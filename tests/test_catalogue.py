from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lab import options
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
    weight: Weight = 0.5  # of the term
    parts: tuple[str, ...] = ("a",)
'''


def test_a_file_tells_idea_needs_and_options_with_those_of_what_it_derives_from(tmp_path: Path):
    (tmp_path / "near.py").write_text(SOURCE)
    (tmp_path / "shared.py").write_text("class Base(Method):\n    depth: int = 12  # blocks\n")
    (near,) = methods(tmp_path).values()
    assert (near.name, near.paper, near.idea, near.about) == ("near", "arXiv 1", "Match one thing.", "Draw nearer.")
    assert near.needs == {"guide"} and not near.objective
    assert [(o.name, o.kind, o.default, o.meaning) for o in near.options] == [
        ("depth", "int", "12", "blocks"), ("weight", "float, at least 0", "0.5", "of the term"),
        ("parts", "tuple[str, ...]", "('a',)", ""),
    ]  # fmt: skip


def test_an_option_takes_the_numbers_of_its_kind():
    @dataclasses.dataclass
    class Options:
        rate: options.Positive = 1.0
        share: options.Share = 0.5
        some: options.SomeShare = 0.5
        count: options.Count = 1
        name: str = "-1"

    options.check(Options(rate=1e-9, share=0.0, some=1.0, count=1))
    for wrong, said in [({"rate": 0.0}, "rate must be above 0, got 0.0"), ({"count": 0}, "count must be at least 1"),
                        ({"share": 1.01}, "share must be at least 0 and at most 1, got 1.01"),
                        ({"some": 0.0}, "some must be above 0 and at most 1, got 0.0"),
                        ({"rate": float("nan")}, "rate must be above 0, got nan")]:  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(said)):
            options.check(Options(**wrong))
    assert options.KINDS["SomeShare"] == "float, above 0 and at most 1" and options.KINDS["Count"] == "int, at least 1"


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
