from __future__ import annotations

import fcntl
import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_STUDENT

from lab import diffusion, pairs, teachers
from lab.results import write_json, write_whole


@pytest.fixture
def made(taught):
    what = pairs.pair_set(taught, "tiny", TINY_STUDENT.solver)
    return taught, pairs.ensure(taught, what, 300)


def test_the_same_seeds_give_the_same_shard_bit_for_bit(made):
    store, first = made
    digest = pairs.checksum(arrays_of(first))
    first.shard(0).unlink()
    again = pairs.ensure(store, first.what, 300)
    assert pairs.checksum(arrays_of(again)) == digest == again.facts["shards"]["0000"]["sha256"]
    assert again.facts["environment"]["device"] == "cpu"
    assert pairs.verify_checksums(again) == []


def arrays_of(made: pairs.Pairs) -> dict[str, np.ndarray]:
    with np.load(made.shard(0)) as file:
        return dict(file)


def test_a_shard_s_checksum_is_that_of_its_arrays_compressed_or_not(made):
    _, first = made
    arrays, size = arrays_of(first), first.shard(0).stat().st_size
    np.savez(first.shard(0), **arrays)
    assert first.shard(0).stat().st_size > size and pairs.verify_checksums(first) == []
    write_whole(first.shard(0), first.shard(0).read_bytes()[:-100])
    assert len(pairs.verify_checksums(first)) == 1
    write_whole(first.shard(0), b"")
    assert len(pairs.verify_checksums(first)) == 1
    np.savez_compressed(first.shard(0), **arrays | {"labels": arrays["labels"][::-1]})
    assert len(pairs.verify_checksums(first)) == 1


def test_shards_that_are_there_are_not_made_again(made, monkeypatch):
    store, first = made
    monkeypatch.setattr(teachers, "load", lambda *_, **__: pytest.fail("the teacher was asked"))
    assert pairs.ensure(store, first.what, 300).missing(300) == []
    assert first.missing(pairs.SHARD + 1) == [1]


def test_a_shard_that_another_process_made_meanwhile_is_not_made_again(made, monkeypatch):
    store, first = made
    content, load = first.shard(0).read_bytes(), teachers.load
    first.shard(0).unlink()

    def slow(*args, **options):
        write_whole(first.shard(0), content)
        return load(*args, **options)

    monkeypatch.setattr(teachers, "load", slow)
    monkeypatch.setattr(pairs, "make", lambda *_: pytest.fail("made again"))
    assert pairs.ensure(store, first.what, 300).missing(300) == []


def test_one_process_at_a_time_makes_a_shard(made, monkeypatch):
    store, first = made
    first.shard(0).unlink()

    def making(*_):
        with pytest.raises(BlockingIOError):
            fcntl.flock(os.open(first.path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise KeyboardInterrupt

    monkeypatch.setattr(pairs, "make", making)
    with pytest.raises(KeyboardInterrupt):
        pairs.ensure(store, first.what, 300)
    fcntl.flock(os.open(first.path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again


def test_checksums_that_can_not_be_read_are_never_written_over(made, monkeypatch):
    store, first = made
    first.shard(0).unlink()
    write_whole(first.path / "pairs.json", '{"shards": ')
    monkeypatch.setattr(pairs, "make", lambda *_: pytest.fail("made before it was known where to note it"))
    with pytest.raises(ValueError, match=r"pairs.json can't be read, it is no JSON object"):
        pairs.ensure(store, first.what, 300)
    assert (first.path / "pairs.json").read_text() == '{"shards": '


def test_a_pair_is_the_teachers_image_of_that_seed_alone(made):
    store, first = made
    reader = pairs.Reader(first, 300, shape=(1, 8, 8), num_classes=10)
    batch = reader.batch(torch.tensor([7, 250]))
    z, y = diffusion.noise_of([diffusion.PAIR_SEED + 7, diffusion.PAIR_SEED + 250], (1, 8, 8), 10)
    assert torch.equal(batch.noise, z) and torch.equal(batch.y, y)
    teacher = teachers.load("tiny", store, solver=TINY_STUDENT.solver)
    expected = teacher.sample(z, y).images.clamp(-1, 1)
    torch.testing.assert_close(batch.image, expected, atol=0.02, rtol=0)  # 1/255 of uint8


def test_noise_that_is_kept_equals_noise_drawn_again(made, monkeypatch):
    kept = pairs.Reader(made[1], 300, shape=(1, 8, 8), num_classes=10)
    monkeypatch.setattr(pairs, "NOISE_BYTES", 0)
    drawn = pairs.Reader(made[1], 300, shape=(1, 8, 8), num_classes=10)
    for index in ([3, 299], [299, 4], [3, 4]):
        assert torch.equal(kept.batch(torch.tensor(index)).noise, drawn.batch(torch.tensor(index)).noise)


def reader_of(made: pairs.Pairs, count: int = 300) -> pairs.Reader:
    return pairs.Reader(made, count, shape=(1, 8, 8), num_classes=10)


@pytest.mark.parametrize(("change", "said"), [
    ({"images": lambda a: a / np.float32(127.5) - 1}, "its images are float32, not uint8"),
    ({"images": lambda a: a[:, :, :1]}, r"its images have shape \(4096, 1, 1, 8\), not \(n, 1, 8, 8\)"),
    ({"images": lambda a: a[::-1], "labels": lambda a: a[::-1]}, r"its sha256 is \w{8}, and pairs.json records \w{8}"),
    ({"images": lambda a: 255 - a}, r"its sha256 is \w{8}, and pairs.json records"),
    ({"labels": lambda a: a.astype(float)}, "its labels are float64, not whole numbers"),
    ({"labels": lambda a: a + 90}, r"it has label \d+, and the teacher's go from 0 to 9"),
    ({"images": lambda a: a[:299]}, "it has 299 images, not 300"),
    ({"labels": lambda a: a[:4000]}, "it has 4096 images and 4000 labels"),
    ({"labels": None}, "it has no labels"),
])  # fmt: skip
def test_a_shard_that_is_not_the_one_that_was_made_is_refused_by_name(made, change, said):
    _, first = made
    arrays = arrays_of(first)
    found = {k: change[k](v) if k in change else v for k, v in arrays.items() if change.get(k, 0) is not None}
    np.savez_compressed(first.shard(0), **found)
    with pytest.raises(
        ValueError, match=rf"0000\.npz is no shard of these pairs: {said}.*; move it away, and it is ma"
    ):
        reader_of(first)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY\x01\x00", None])
def test_a_shard_that_can_not_be_read_is_refused_by_name(made, content):
    _, first = made
    write_whole(first.shard(0), first.shard(0).read_bytes()[:2000] if content is None else content)
    with pytest.raises(ValueError, match=r"0000\.npz is no shard of these pairs: it can't be read \(.*; move it away"):
        reader_of(first)
    assert len(pairs.verify_checksums(first)) == 1


def test_a_short_shard_before_the_last_would_shift_all_later_pairs_and_is_refused(made, monkeypatch):
    store, first = made
    first.shard(0).unlink()
    (first.path / "pairs.json").unlink()
    first.reference.unlink()
    monkeypatch.setattr(pairs, "SHARD", 256)
    pairs.ensure(store, first.what, 300)
    assert len(reader_of(first).images) == 300
    (first.path / "pairs.json").unlink()  # no checksum is recorded
    np.savez(first.shard(0), **{k: v[:255] for k, v in arrays_of(first).items()})
    with pytest.raises(ValueError, match=r"0000\.npz is no shard of these pairs: it has 255 images, not 256"):
        reader_of(first)


def test_a_shard_without_a_checksum_is_held_to_the_classes_of_its_seeds(made):
    _, first = made
    write_json(first.path / "pairs.json", first.facts | {"shards": {}})
    assert len(reader_of(first).images) == 300
    arrays = arrays_of(first)
    np.savez(first.shard(0), **{k: v[::-1] for k, v in arrays.items()})
    with pytest.raises(
        ValueError, match=r"0000\.npz is no shard of these pairs: pairs.json does not record it, and \d+"
    ):
        reader_of(first)


@pytest.fixture
def differing(made):
    """Pairs whose first two shards are recorded with other checksums and do not lie here."""
    store, first = made
    first.shard(0).unlink()
    facts = first.facts
    facts["shards"] = {"0000": {"sha256": "0" * 64}, "0001": {"sha256": "0" * 64}}
    write_json(first.path / "pairs.json", facts)
    return store, first


def test_a_differing_checksum_is_a_notice_where_the_images_are_the_references(differing):
    store, first = differing
    said = r"shard 0000 of .* differs from the recorded .*; the first 64 images made here are up to 0 of 255 from ref"
    with pytest.warns(UserWarning, match=said):
        pairs.ensure(store, first.what, 300)
    assert "0000.npz" in pairs.verify_checksums(first)[0]
    assert len(reader_of(first).images) == 300, "this machine's own, which was let pass"
    np.savez(first.shard(0), **arrays_of(first) | {"images": 255 - arrays_of(first)["images"]})
    with pytest.raises(ValueError, match=r"0000\.npz is no shard of these pairs: its sha256 is"):
        reader_of(first)
    first.shard(0).unlink()
    with pytest.warns(UserWarning, match=said):
        pairs.ensure(store, first.what, 300)
    teacher = teachers.load("tiny", store, solver=TINY_STUDENT.solver)
    assert pairs.check_shard(first, teacher, 0) == (0, 0)


@pytest.mark.parametrize("index", [0, 1])
def test_a_differing_shard_is_refused_where_the_images_are_not_the_references(differing, index, monkeypatch):
    store, first = differing
    monkeypatch.setattr(pairs, "SHARD", 256)
    if index:
        write_whole(first.shard(0), b"as recorded")
    write_whole(first.reference, npy(255 - np.load(first.reference)))
    with pytest.raises(ValueError, match=rf"shard 000{index} .* up to \d+ of 255 .*, where 8 are allowed: these are"):
        pairs.ensure(store, first.what, 256 * index + 1)
    assert not first.shard(index).exists()


def test_without_a_reference_the_notice_says_so(differing):
    store, first = differing
    first.reference.unlink()
    with pytest.warns(UserWarning, match=r"differs from the recorded checksum .*; there is no reference.npy to"):
        pairs.ensure(store, first.what, 300)
    assert not first.reference.exists(), "images of another arithmetic are no reference"


def test_the_reference_is_the_first_images_and_is_kept_in_git(made):
    with np.load(made[1].shard(0)) as file:
        assert np.array_equal(np.load(made[1].reference), file["images"][:64])
    ignored = ["git", "-C", Path(__file__).parent, "check-ignore", "-q", "--no-index"]
    names = [f"../results/pairs/one/{name}" for name in (made[1].reference.name, made[1].shard(0).name)]
    assert [subprocess.run([*ignored, name]).returncode for name in names] == [1, 0]


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_a_shard_with_other_images_fails_the_tolerance_check(made):
    store, first = made
    with np.load(first.shard(0)) as file:
        arrays = dict(file) | {"images": 255 - file["images"]}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_whole(first.shard(0), buffer.getvalue())
    teacher = teachers.load("tiny", store, solver=TINY_STUDENT.solver)
    assert pairs.check_shard(first, teacher, 0)[0] > pairs.TOLERANCE


def test_the_path_is_kept_where_asked_for_and_ends_at_the_image(taught):
    what = pairs.pair_set(taught, "tiny", TINY_STUDENT.solver, keep=2)
    teacher = teachers.load("tiny", taught, solver=what.solver)
    image, _, path = pairs.make(pairs.Pairs(taught.root, what), teacher, range(4))
    assert path.shape == (4, 2, 1, 8, 8) and torch.equal(path[:, -1], image)
    assert what.id != pairs.pair_set(taught, "tiny", TINY_STUDENT.solver).id


@pytest.mark.parametrize("solver", ["dpmpp2m-2", "dpmpp2m-9", "heun-5"])
def test_more_estimates_than_a_path_has_are_refused_and_as_many_differ(taught, solver):
    steps = diffusion.solver_of(solver)[1]
    with pytest.raises(ValueError, match=rf"keep 20 asks for more .* of {solver} .* keep at most {steps - 1}$"):
        pairs.pair_set(taught, "tiny", solver, keep=20)
    what = pairs.pair_set(taught, "tiny", solver, keep=steps - 1)
    _, path = diffusion.solve(lambda x, sigma: 0 * x + sigma.view(-1, 1, 1, 1), torch.zeros(1, 1, 2, 2), solver,
                              keep=what.keep)  # fmt: skip
    assert len(path[0].flatten(1).unique(dim=0)) == steps - 1


def test_a_reader_of_some_classes_gives_only_those(made):
    reader = pairs.Reader(made[1], 300, shape=(1, 8, 8), num_classes=10).only((2, 5))
    assert set(reader.batch(torch.arange(len(reader.index))).y.tolist()) == {2, 5}
    stream = reader.stream(batch=4, seed=0)
    next(stream)
    assert torch.equal(next(stream).noise, next(reader.stream(batch=4, seed=0, start=1)).noise)


def test_a_stream_of_few_classes_has_like_parts_of_them_and_goes_on_at_any_step(made):
    reader = pairs.Reader(made[1], 300, shape=(1, 8, 8), num_classes=10).only((2, 5, 7))
    stream = reader.stream(batch=6, seed=1, classes=2)
    batches = [next(stream) for _ in range(12)]
    assert all(sorted(torch.bincount(batch.y).tolist())[-2:] == [3, 3] for batch in batches)
    assert {*torch.cat([batch.y for batch in batches]).tolist()} == {2, 5, 7}
    assert torch.equal(batches[5].index, next(reader.stream(batch=6, seed=1, start=5, classes=2)).index)
    assert torch.equal(reader.labels[batches[0].index], batches[0].y)
