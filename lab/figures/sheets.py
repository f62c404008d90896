"""Images of several models as one picture, on the same noise."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lab import jobs
from lab.figures.look import COLOURS, finite
from lab.results import Run
from lab.sheets import read_samples

EMPTY = (205, 205, 205)  # a tile that is not there
INK, FAINT, PAPER = (27, 31, 36), (96, 104, 114), (255, 255, 255)


def side_by_side(
    pictures: Sequence[Run | np.ndarray | None],
    titles: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    *,
    rows: Sequence[int] = range(10),  # which images, by their place in the sheet
    row_titles: Sequence[str] | None = None,  # one for each line of the picture; None = the place
    across: int = 1,  # images of one model beside each other
    zoom: int = 4,  # screen pixels per image pixel, so every pixel stays square and sharp
) -> Image.Image:
    """Sheets of several models as one picture: a column per model, in each line the same noise and class.

    A sheet is a run (its samples.npz), an array (N, C, H, W) uint8, or None for one that is not
    there: it becomes grey tiles. Titles and captions of runs default to label, parameters and FD.
    """
    if not pictures:
        raise ValueError("side_by_side needs at least one sheet, got none")
    sheets = [_images_of(p) for p in pictures]
    there = [s for s in sheets if s is not None]
    side = there[0].shape[-1] if there else 28
    titles = titles if titles is not None else [p.label if isinstance(p, Run) else "" for p in pictures]
    captions = captions if captions is not None else [_caption_of(p) for p in pictures]
    for name, given in [("titles", titles), ("captions", captions)]:
        if len(given) != len(pictures):
            raise ValueError(f"side_by_side got {len(pictures)} sheets and {len(given)} {name}; give one for each")
    lines = [list(rows[i : i + across]) for i in range(0, len(rows), across)]
    if row_titles is None:
        row_titles = [f"{line[0]}" if across == 1 else f"{line[0]}-{line[-1]}" for line in lines]
    blocks = [_block(s, lines, across, zoom, side) for s in sheets]
    return _compose(blocks, titles, captions, row_titles, zoom * side)


def caption(facts: Mapping[str, object]) -> str:
    """Parameters, evaluations where they are several, FD and milliseconds of a table's row, as known, a line each."""
    names = ("params", "params_deployed", "evaluations", "fd", "latency_ms", "speed_up")
    params, deployed, evaluations, fd, ms, speed_up = (finite(facts.get(k)) for k in names)
    lines = []
    if params is not None:
        before = f" ({_count_said(params)} as trained)" if deployed else ""
        lines.append(f"{_count_said(deployed or params)} parameters{before}")
    if evaluations is not None and evaluations > 1:
        lines.append(f"{evaluations:.0f} evaluations")
    if fd is not None:
        lines.append(f"FD {fd:.3g}")
    if ms is not None:
        lines.append(f"{ms:.3g} ms")
    if speed_up is not None and speed_up != 1:
        lines.append(f"{speed_up:.3g}x as fast as its teacher")
    return "\n".join(lines)


def _count_said(params: float) -> str:
    return f"{params / 1e6:.2f} M" if params >= 1e5 else f"{params / 1e3:.1f} k"


def difference(images: np.ndarray, reference: np.ndarray, gain: float = 2.0) -> np.ndarray:
    """Signed difference of two sheets as colours, (N, 3, H, W) uint8: white equal, orange brighter, blue darker.

    Full colour stands for 255 / gain grey levels; colour channels are averaged.
    """
    if images.shape[-2:] != reference.shape[-2:] or len(images) != len(reference):
        raise ValueError(f"two sheets of one shape are needed, got {images.shape} and {reference.shape}")
    d = (images.astype(np.float32).mean(1) - reference.astype(np.float32).mean(1)) * gain / 255
    d = d.clip(-1, 1)[:, None]
    far = np.where(d > 0, _rgb(COLOURS[1]), _rgb(COLOURS[0]))  # (N, 3, H, W)
    return np.rint(255 + (far - 255) * np.abs(d)).astype(np.uint8)


def _images_of(picture: Run | np.ndarray | None) -> np.ndarray | None:
    if isinstance(picture, Run):
        found = read_samples(picture.path / "samples.npz")
        return None if found is None else found.images
    if picture is None:
        return None
    images = np.asarray(picture)
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1] not in (1, 3):
        raise ValueError(f"a sheet must be uint8 (N, 1 or 3, H, W), got {images.dtype} {images.shape}")
    return images


def _caption_of(picture: Run | np.ndarray | None) -> str:
    """What a run's own files say about it."""
    if not isinstance(picture, Run):
        return ""
    cost, metrics = picture.read("cost"), picture.own_metrics()
    facts = dict(cost) if isinstance(cost, dict) else {}
    with contextlib.suppress(KeyError, TypeError):
        facts["fd"] = metrics["values"]["fd"]["value"]
    if not (picture.path / "samples.npz").exists():
        return f"no samples; {jobs.sample_command(picture)}"
    return caption(facts)


def _block(sheet: np.ndarray | None, lines: list[list[int]], across: int, zoom: int, side: int) -> Image.Image:
    """One model's images, enlarged; grey where the sheet has none."""
    gap, tile = 2, zoom * side
    block = Image.new("RGB", (across * (tile + gap) - gap, len(lines) * (tile + gap) - gap), PAPER)
    empty = Image.new("RGB", (tile, tile), EMPTY)
    for row, line in enumerate(lines):
        for column, index in enumerate(line):
            picture = empty
            if sheet is not None and index < len(sheet):
                pixels = sheet[index].transpose(1, 2, 0)
                picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
                picture = picture.resize((tile, tile), Image.Resampling.NEAREST)
            block.paste(picture, (column * (tile + gap), row * (tile + gap)))
    return block


def _compose(blocks: list[Image.Image], titles: Sequence[str], captions: Sequence[str],
             row_titles: Sequence[str], tile: int) -> Image.Image:  # fmt: skip
    """Blocks in a row, with headings above and the lines' titles at the left."""
    big, small, pad = ImageFont.load_default(15), ImageFont.load_default(12), 14
    column = max(blocks[0].width, 132)
    heads = [_wrap(t, big, column) for t in titles]
    notes = [[w for part in c.split("\n") for w in _wrap(part, small, column)] if c else [] for c in captions]
    title_h, note_h = 20 * max(map(len, heads)), 16 * max(map(len, notes))
    left = pad + max([math.ceil(small.getlength(t)) for t in row_titles] + [0]) + pad
    top = pad + title_h + note_h + 8
    picture = Image.new("RGB", (left + len(blocks) * (column + pad), top + blocks[0].height + pad), PAPER)
    draw = ImageDraw.Draw(picture)
    for k, block in enumerate(blocks):
        x = left + k * (column + pad)
        for i, line in enumerate(heads[k]):
            draw.text((x, pad + title_h - 20 * (len(heads[k]) - i)), line, INK, big)
        for i, line in enumerate(notes[k]):
            draw.text((x, pad + title_h + 16 * i + 2), line, FAINT, small)
        picture.paste(block, (x, top))
    for i, title in enumerate(row_titles):
        draw.text((pad, top + i * (tile + 2) + tile // 2), title, FAINT, small, anchor="lm")
    return picture


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width`; a word that is too long is broken where it must."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        while font.getlength(word) > width:
            fits = next(i for i in range(len(word), 0, -1) if i == 1 or font.getlength(word[:i]) <= width)
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return [line for line in lines if line]


def _rgb(color: str) -> np.ndarray:
    """(3, 1, 1) float of #RRGGBB."""
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float32)[:, None, None]
