"""Ternary students as packed files: how large, how equal, how they reach a choice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_STUDENT
from safetensors.torch import load_file, save_file
from test_bench import BRIEF
from torch import nn

from lab import artefacts, bench, choose, deploy, experiment, models, packing, runtimes
from lab.choose import Budget
from lab.config import DiTConfig, Use
from lab.devices import compare
from lab.metrics import extractor_of
from lab.results import Run, Store
from lab.weights import load_student, opened

PACKED = runtimes.RUNTIMES["packed"]
TINY = DiTConfig(image_size=8, patch=2, depth=2, width=12, heads=2, mlp_hidden=30)  # no multiple of 4


def ternary_student(config: DiTConfig) -> nn.Module:
    """A network as method ternary finishes it: one scale a matrix of the blocks, all numbers in half precision."""
    torch.manual_seed(0)
    net = models.build(dataclasses.replace(config, adaln_norm=True)).eval().requires_grad_(False)
    for p in net.parameters():
        p += 0.05 * torch.randn_like(p)
    for layer in net.linears():
        alpha = layer.weight.abs().mean()
        layer.weight.copy_(alpha * (layer.weight / alpha).round().clamp(-1, 1))
    for p in net.parameters():
        p.copy_(p.half())
    return net


def through_file(net: nn.Module, folder: Path, empty: nn.Module) -> nn.Module:
    (folder / "net.safetensors").write_bytes(packing.file_bytes(net))
    return packing.load(folder / "net.safetensors", empty)


# --- a layer, a network --------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [4, 6, 9])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_product_equals_the_plain_one(rows: int, bias: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    plain = nn.Linear(5, rows, bias=bias)
    plain.weight.data = 0.3 * torch.randint(-1, 2, (rows, 5), generator=rng)
    net = packing.packed(nn.Sequential(plain))
    x = torch.randn(3, 5, generator=rng)
    torch.testing.assert_close(net(x), plain(x))
    assert net[0].packed.shape == (-(-rows // 4), 5) and net[0].packed.dtype == torch.uint8


def test_thirds_of_the_rows_may_have_scales_of_their_own_and_no_row_may() -> None:
    q = torch.tensor([[1.0, -1.0], [0.0, 1.0]]).repeat(3, 1)
    scale = torch.tensor([0.1, 0.5, 0.7]).repeat_interleave(2)
    found, alpha = packing.ternary_parts(scale[:, None] * q)
    assert torch.equal(found, q) and alpha.tolist() == pytest.approx([0.1, 0.5, 0.7])
    assert packing.ternary_parts(torch.arange(1.0, 7.0)[:, None] * q) is None
    assert packing.ternary_parts(torch.tensor([[0.1, 0.2], [0.1, 0.0]])) is None


def test_a_deployed_network_keeps_three_values_in_every_group_of_rows(tmp_path: Path) -> None:
    student = ternary_student(TINY)
    net = deploy.deploy(student)
    again = through_file(packing.packed(net), tmp_path, deploy.deploy(models.build(student.config)))
    for at, block in enumerate(net.blocks):
        for name in ("qkv", "proj", "fc1", "fc2"):
            layer, weight = again.get_submodule(f"blocks.{at}.{name}"), block.get_submodule(name).weight
            assert len(layer.alpha) == (3 if name == "qkv" else 1)  # attention's scale stands in q
            q = packing.unpack(layer.packed, layer.out_features)
            for rows, digits, alpha in zip(weight.chunk(len(layer.alpha)), q.chunk(len(layer.alpha)), layer.alpha):
                assert digits.unique().tolist() == [-1, 0, 1] and torch.equal(alpha * digits, rows)


def test_packing_changes_no_image_and_half_precision_of_the_rest_hardly_any(tmp_path: Path) -> None:
    student = ternary_student(TINY)
    z, y = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 10
    right = student(z, None, y)
    for form in (deploy.deploy, deploy.OneStep):
        packed = packing.packed(form(student))
        torch.testing.assert_close(packed(z, y), right, atol=1e-6, rtol=1e-5)
        again = through_file(packed, tmp_path, form(models.build(student.config)))
        largest = (again(z, y) - right).abs().max()  # as trained, all numbers are of half precision already
        assert right.std() > 0.1 and largest < (1e-5 if form is deploy.OneStep else 3e-3)


@pytest.mark.parametrize(("depth", "width"), [(4, 40), (12, 64)])
def test_a_file_takes_two_bits_a_ternary_weight_and_the_rest(depth: int, width: int) -> None:
    net = deploy.deploy(ternary_student(DiTConfig(depth=depth, width=width, heads=4)))
    packed = packing.packed(net)
    count = packing.count(packed)
    assert count == depth * 12 * width**2
    rest = sum(p.numel() for p in net.parameters()) - count
    size = len(packing.file_bytes(packed))
    assert size == pytest.approx(count * 2 / 8 + rest * 2, rel=0.02)
    assert len(deploy.file_bytes(net)) > 3.5 * size and len(deploy.file_bytes(net, torch.float32)) > 7 * size


def test_only_ternary_networks_and_packed_files_are_taken(tmp_path: Path) -> None:
    plain, zeros = (nn.Sequential(nn.Linear(3, 4)) for _ in range(2))
    nn.init.zeros_(zeros[0].weight)  # as of a network that did not train
    for net in (plain, zeros):
        with pytest.raises(ValueError, match="no matrix of this network has the values -a, 0 and a"):
            packing.packed(net)
    deploy.save(deploy.deploy(ternary_student(TINY)), tmp_path / "deployed.safetensors")
    (tmp_path / "text.safetensors").write_bytes(b"text")
    for name, part in [("deployed", "holds no packed network"), ("text", "no safetensors file")]:
        with pytest.raises(ValueError, match=part):
            packing.load(tmp_path / f"{name}.safetensors", plain)
    net = deploy.deploy(ternary_student(TINY))
    (tmp_path / "whole.safetensors").write_bytes(packing.file_bytes(packing.packed(net)))
    flat, said = opened(tmp_path / "whole.safetensors")
    for change in ({"uint8": flat["uint8"][1:]}, {"uint8": flat["uint8"].to(torch.int8)}):
        save_file(flat | change, tmp_path / "changed.safetensors", said)
        with pytest.raises(ValueError, match=r"changed\.safetensors does not hold the network's .* numbers of uint8"):
            packing.load(tmp_path / "changed.safetensors", deploy.deploy(ternary_student(TINY)))


# --- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(taught_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A plain student, and one whose MLP's first layer trained as a product that a quantiser saw."""
    import shutil

    torch.set_num_threads(1)
    store = Store(shutil.copytree(taught_root, tmp_path_factory.mktemp("packed") / "results"))
    uses = (Use("pairs"), Use("reparam"), Use("ternary"))
    for label, recipe in [("plain", TINY_STUDENT), ("ternary", TINY_STUDENT.with_(methods=uses, optimizer="adamw"))]:
        run = experiment.run(recipe, store, measure=False)
        run.set_notes(label=label)
        run.write("metrics", {
            "weights_sha256": run.read("student")["weights_sha256"], "extractor": extractor_of("digits"),
            "samples": 1000, "seed": 100_000, "values": {"fd": {"value": 2.0, "reference": "digits train"}},
        })  # fmt: skip
    return store


@pytest.fixture
def ternary(trained: Store) -> Run:
    return trained.get("ternary")


def test_what_was_folded_is_what_is_packed(ternary: Run) -> None:
    net = load_student(ternary)
    folder = PACKED.export(ternary)
    assert {*load_file(folder / "model.safetensors")} == {"float16", "float32", "uint8"}
    session = PACKED.open(folder)
    for at, block in enumerate(net.blocks):
        q, alpha = packing.ternary_parts(block.mlp.fc1.weight)  # W2 W1 of reparam, quantised: one plain matrix
        layer = session.net.blocks[at].fc1
        assert torch.equal(layer.packed, packing.pack(q)) and torch.equal(layer.alpha, alpha)


def test_a_file_says_how_equal_it_is_and_how_many_weights_are_ternary(ternary: Run) -> None:
    facts = artefacts.read(PACKED.export(ternary))
    assert facts["ternary_weights"] == 2 * 12 * 16**2
    assert facts["bytes"] < ternary.read("cost")["file_mb_deployed"] * 1e6 / 2
    assert facts["images"] == 64 and 0 < facts["max_abs"] < 1e-3


def test_it_is_timed_and_reaches_devices_and_choice_with_the_size_of_its_file(trained: Store) -> None:
    new = bench.sweep([trained.get(name) for name in ("plain", "ternary")], trained, runtimes=("eager", "packed"),
                      precisions=("fp32", "ternary"), threads=(1,), preset=BRIEF)  # fmt: skip
    assert sorted((r["model"]["model_id"] == trained.get("ternary").id, r["software"]["runtime"]) for r in new) == [
        (False, "eager"), (True, "eager"), (True, "packed")]  # fmt: skip
    table, reports = trained.table(), trained.reports()
    size = artefacts.read(PACKED.export(trained.get("ternary")))["bytes"]
    row = reports[reports["model.precision"] == "ternary"].iloc[0]
    assert row["artefact.bytes"] == size and row["model.file_mb"] == pytest.approx(size / 1e6)
    assert row["checks.output_ok"] and row["checks.max_abs_vs_ref"] < 1e-3
    named = compare.named(reports, table).set_index(["name", "software.runtime"])["file_mb"]
    assert named["ternary", "packed"] == size / 1e6 < named["ternary", "eager"]

    found = choose.candidates(table, reports, Budget(runtime="packed", weak=True)).set_index("name")
    assert found["file_mb"]["ternary"] == size / 1e6 and np.isnan(found["latency_ms"]["plain"])
    small = choose.recommend(table, reports, Budget(file_mb=1.01 * size / 1e6, weak=True))
    assert (small.pick["name"], small.pick["runtime"], small.pick["timed_dtype"]) == ("ternary", "packed", "ternary")
    assert small.pick["file_mb"] == size / 1e6


def test_a_student_that_is_not_ternary_is_refused_in_a_sentence(trained: Store) -> None:
    plain = trained.get("plain")
    why = "runtime packed runs ternary networks, and plain was not trained by method ternary"
    with pytest.raises(ValueError, match=why):
        PACKED.export(plain)
    with pytest.raises(ValueError, match=f"runtime packed can't run plain: {why}"):
        bench.measure(plain, trained, runtime="packed", precision="ternary", preset=BRIEF)


def test_a_file_of_other_weights_is_made_again(ternary: Run, tmp_path: Path) -> None:
    path = PACKED.export(ternary) / "model.safetensors"
    before = path.stat().st_mtime_ns
    assert PACKED.export(ternary).joinpath("model.safetensors").stat().st_mtime_ns == before
    path.write_bytes(b"")
    assert json.loads((PACKED.export(ternary) / "artefact.json").read_text())["bytes"] == path.stat().st_size > 0
