"""An unpacked pack: a network in several forms, its noises and images, checksums."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.devices.runner.errors import Broken, Missing, Usage

PACK_FORMAT = "edge-dit-pack.v1"


@dataclass(frozen=True)
class Pack:
    """An unpacked pack: a network in several forms, its noises and images, and what it is."""

    folder: Path
    facts: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Pack:
        try:
            facts = json.loads((folder / "manifest.json").read_text())
        except (OSError, ValueError) as error:
            raise Missing(f"no readable manifest.json beside {Path(__file__).name}: {error}. Run it where a pack was "
                          "unpacked; `python -m lab pack` makes one") from None  # fmt: skip
        if not isinstance(facts, dict) or "format" not in facts:
            raise Broken("manifest.json is none of a pack's; unpack it again")
        if facts["format"] != PACK_FORMAT:
            raise Broken(f"manifest.json is of format {facts['format']!r}, this runner reads {PACK_FORMAT!r}")
        if not _is_whole(facts):
            raise Broken("manifest.json lacks what a pack's has; unpack it again")
        return cls(folder, facts)

    def verify(self) -> None:
        """Raises Broken if a file is not the one that was packed."""
        for name, packed in self.facts["files"].items():
            path = self.folder / name
            if not path.is_file():
                raise Broken(f"{name} of the pack is missing; unpack it again")
            if hashlib.sha256(path.read_bytes()).hexdigest() != packed["sha256"]:
                raise Broken(f"{name} is not the file that was packed, its sha256 differs; copy and unpack it again")

    def network(self, kind: str, precision: str) -> dict[str, Any]:
        """The file that holds the network for a kind of runtime (onnx, torch) in a precision."""
        for found in self.facts["networks"]:
            if found["kind"] == kind and precision in found["precisions"]:
                return found
        known = sorted({p for found in self.facts["networks"] if found["kind"] == kind for p in found["precisions"]})
        raise Usage(f"the pack has no {kind} network in {precision!r}; it has {', '.join(known)}")

    @property
    def shape(self) -> list[int]:
        """(C, H, W) of the noise."""
        return self.facts["reference"]["z"]["shape"][1:]

    @property
    def image_shape(self) -> list[int]:
        return self.facts["reference"]["image"]["shape"][1:]

    def rows(self, name: str, batch: int) -> array | None:
        """The first `batch` noises (z), classes (y) or images of the reference; over again where it has fewer."""
        if (kept := self.facts["reference"].get(name)) is None:  # y of an unconditional network
            return None
        values = array({"float32": "f", "int64": "q"}[kept["dtype"]])
        values.frombytes((self.folder / kept["file"]).read_bytes())
        if sys.byteorder == "big":
            values.byteswap()
        size = math.prod(kept["shape"][1:])
        found = array(values.typecode)
        for row in range(batch):
            start = row % kept["shape"][0] * size
            found.extend(values[start : start + size])
        return found


def _is_whole(facts: dict[str, Any]) -> bool:
    """Whether a manifest has what the runner asks of it, in the kinds that it takes."""
    try:
        files, shapes = facts["files"], [facts["reference"][name]["shape"] for name in ("z", "image")]
        return (
            all(isinstance(file["sha256"], str) and file["bytes"] > 0 for file in files.values())
            and all(n["file"] in files and isinstance(n["kind"], str) and n["precisions"] for n in facts["networks"])
            and all(len(shape) == 4 for shape in shapes)
            and isinstance(facts["model"], dict)
            and isinstance(facts["tolerances"], dict)
        )
    except (AttributeError, KeyError, TypeError):
        return False
