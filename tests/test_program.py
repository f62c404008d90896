"""A deployed student as a program of torch.export."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from devices.conftest import finished

from lab import artefacts, deploy, export, program
from lab.config import DiTConfig
from lab.data import ImageSpec
from lab.models.dit import DiT
from lab.pack_readme import coreml
from lab.results import Run

LAB = Path(program.__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    return finished(tmp_path_factory.mktemp("program"))


def test_the_file_draws_the_networks_images_in_any_batch(run: Run) -> None:
    facts = artefacts.read(folder := program.TARGET.export(run))
    assert list(facts["files"]) == ["README.md", "model.pt2"]
    assert facts["max_abs"] < 1e-5 and facts["versions"].keys() == {"torch"}
    assert facts["runtime"] == "torch-export" and facts["weights_sha256"] == run.read("student")["weights_sha256"]
    draw, size = program._own_images(folder), facts["spec"]["size"]
    for batch in (1, 3, 70):
        z, y = np.random.default_rng(batch).standard_normal((batch, 1, size, size), np.float32), np.arange(batch) % 10
        np.testing.assert_allclose(draw(z, y), artefacts.reference(run, z, y), atol=1e-5)


def test_an_unconditional_network_is_a_program_of_noise_alone() -> None:
    config = DiTConfig(image_size=8, num_classes=0, patch=4, depth=1, width=16, heads=2)
    net = deploy.deploy(DiT(config))
    made = export.program(net, ImageSpec(data="toy", size=8, channels=1, num_classes=0))
    z = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(made.module()(z), net(z), atol=1e-5, rtol=0)


def test_its_readme_gives_python_that_converts_it_up_to_core_mls_own_call(run: Run) -> None:
    folder = program.TARGET.export(run)
    said = (folder / "README.md").read_text()
    assert "it was not tried here" in said and "load no strangers' ones" in said
    (code,) = [part.split("```")[0] for part in said.split("```python\n")[1:]]
    ours = code.split("model = ct.convert")[0].replace("import coremltools as ct", "ct = None")
    names: dict[str, Any] = {}
    exec(ours.replace("model.pt2", str(folder / "model.pt2")), names)
    y = torch.tensor([0])
    torch.testing.assert_close(names["program"].module()(names["z"], y), names["network"](names["z"], y))
    ast.parse(coreml((3, 8, 8), classes=False))


def test_another_precision_is_a_sentence(run: Run) -> None:
    with pytest.raises(ValueError, match="unknown precision of torch-export 'fp16'"):
        program.TARGET.export(run, "fp16")


def test_the_lab_loads_no_program_but_one_that_it_has_made_itself() -> None:
    calls = [(path.name, node) for path in LAB.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call)]  # fmt: skip
    loads = ("export.load", "jit.load")
    found = [(name, ast.unparse(call)) for name, call in calls if ast.unparse(call.func).endswith(loads)]
    # On a board the one of a pack, which its owner has made, after its checksums.
    assert sorted(found) == [("model_torch.py", "torch.export.load(path)"),
                             ("program.py", "torch.export.load(folder / FILE)")]  # fmt: skip
