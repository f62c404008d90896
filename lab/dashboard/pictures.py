"""Image sheets in a page: sharp pixels at any zoom, captions as text, swipe and blink of two models.

One PNG per model is sent; the browser cuts it into tiles. Everything that a person wrote (labels,
notes) reaches the page as text content, never as HTML.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import streamlit as st

from lab import sheets
from lab.results import Run, Stamp, stamp

SHEET_COLUMNS = 8  # tiles beside each other in the PNG that is sent


@dataclass(frozen=True)
class Column:
    """One model: its sheet and what stands above it."""

    title: str
    caption: str = ""  # one line per fact
    images: np.ndarray | None = field(default=None, repr=False)  # (N, C, H, W) uint8; None = not there
    command: str = ""  # what makes a sheet that is not there


def show(columns: Sequence[Column], lines: Sequence[Sequence[int]], titles: Sequence[str], *, zoom: int,
         mode: str = "grid", key: str) -> None:  # fmt: skip
    """Draw columns (models) by lines (which tiles); `mode` is grid, swipe or blink (the first two columns)."""
    there = [c.images for c in columns if c.images is not None]
    side = there[0].shape[-1] if there else 28
    _component(
        key=key,
        data={
            "mode": mode, "side": side, "zoom": zoom, "sheetColumns": SHEET_COLUMNS,
            "lines": [{"title": t, "tiles": [int(i) for i in line]} for t, line in zip(titles, lines, strict=True)],
            "columns": [_sent(c) for c in columns],
        },
    )  # fmt: skip


def _sent(column: Column) -> dict[str, object]:
    plain = {"title": column.title, "caption": column.caption.split("\n") if column.caption else [],
             "command": column.command, "src": "", "count": 0, "rows": 1}  # fmt: skip
    if column.images is not None:
        encoded = base64.b64encode(sheets.png(column.images, SHEET_COLUMNS)).decode()
        plain |= {"src": f"data:image/png;base64,{encoded}", "count": len(column.images),
                  "rows": math.ceil(len(column.images) / SHEET_COLUMNS)}  # fmt: skip
    return plain


# --- what the pages read of a run ---------------------------------------------------------------


def samples(run: Run) -> sheets.Samples | None:
    """A run's samples on the common seeds, read again when the file has changed; None where there are none."""
    path = run.path / "samples.npz"
    return _samples(str(path), stamp(path)) if path.exists() else None


def neighbours(run: Run, sheet: sheets.Samples | None) -> sheets.Neighbours | None:
    """What is kept beside each image of a run's sheet; None where there is nothing of these weights and noises."""
    student = run.read("student")
    if sheet is None or not isinstance(student, dict):
        return None
    stamps = stamp(run.path / "neighbours.json"), stamp(run.path / "neighbours.png")
    return _neighbours(str(run.path), stamps, student["weights_sha256"], sheet.seeds.tobytes(), sheet)


def snapshot(title: str, images: int, path: Path) -> Column:
    """The 16 images of a snapshot that a run took while it trained, after so many images."""
    try:
        picture = sheets.read_png(path.read_bytes())
        return Column(title, f"{images:,} images seen", sheets.untile(picture, picture.shape[0] // 2))
    except (OSError, ValueError):
        return Column(title, f"the snapshot at {images:,} images can't be read")


def log_of(run: Run) -> list[dict[str, float]]:
    """A run's log, read again when it has grown."""
    return _log(str(run.path), stamp(run.path / "log.jsonl"))


@st.cache_data(max_entries=128, show_spinner=False)
def _samples(path: str, stamp: Stamp) -> sheets.Samples | None:
    return sheets.read_samples(Path(path))


@st.cache_data(max_entries=32, show_spinner=False)
def _neighbours(
    path: str, stamps: tuple[Stamp, Stamp], weights: str, seeds: bytes, _sheet: sheets.Samples
) -> sheets.Neighbours | None:
    return sheets.read_neighbours(Path(path), _sheet, weights)


@st.cache_data(max_entries=64, show_spinner=False)
def _log(path: str, stamp: Stamp) -> list[dict[str, float]]:
    return Run(Path(path)).log_rows()


# --- the component ------------------------------------------------------------------------------

_CSS = """
.pictures { font-family: var(--st-font); color: var(--st-text-color); font-size: 0.85rem; }
.scroll { overflow: auto; max-height: 80vh; }
table { border-collapse: separate; border-spacing: 0; }
thead th { position: sticky; top: 0; z-index: 2; background: var(--st-background-color); vertical-align: top;
  text-align: left; font-weight: 400; padding: 0 10px 6px 0; min-width: 150px; max-width: 240px; }
tbody th { position: sticky; left: 0; z-index: 1; background: var(--st-background-color); font-weight: 400;
  text-align: left; padding-right: 10px; white-space: nowrap; opacity: 1; }
thead th:first-child { left: 0; z-index: 3; min-width: 0; }
tbody th small, .caption { opacity: 0.72; display: block; line-height: 1.35; }
td { padding: 0 10px 3px 0; }
.title { font-weight: 600; overflow-wrap: anywhere; }
.line { display: flex; gap: 3px; }
.tile { flex: none; image-rendering: pixelated; background-repeat: no-repeat; border-radius: 2px; }
.missing { background: repeating-linear-gradient(45deg, #bbb8, #bbb8 6px, #9998 6px, #9998 12px); }
code { font-family: var(--st-code-font); font-size: 0.75rem; overflow-wrap: anywhere; user-select: all;
  background: var(--st-secondary-background-color); padding: 1px 4px; border-radius: 3px; display: block; }
tbody tr:hover .tile { outline: 2px solid var(--st-primary-color); }
.bar { display: flex; gap: 12px; align-items: center; flex-wrap: wrap; padding: 2px 2px 10px; }
.bar input[type=range] { flex: 1 1 160px; max-width: 420px; accent-color: var(--st-primary-color); min-width: 0; }
.names { display: flex; gap: 24px; flex-wrap: wrap; padding-bottom: 8px; }
.names > div { border-left: 4px solid var(--st-border-color); padding-left: 8px; max-width: 300px; }
.names > .shown { border-color: var(--st-primary-color); }
.stack { position: relative; width: max-content; touch-action: pan-y; cursor: ew-resize; }
.stack .over { position: absolute; inset: 0; }
.stack .line { padding-bottom: 3px; }
.stack .edge { position: absolute; top: 0; bottom: 0; width: 2px; background: var(--st-primary-color); }
.blinking { cursor: default; }
@media (max-width: 640px) { thead th { min-width: 0; } } /* two models beside each other on a phone */
button { font: inherit; color: inherit; background: var(--st-secondary-background-color); padding: 4px 12px;
  border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius, 6px); cursor: pointer; }
"""

_JS = """
const BLINK_MS = 700;

function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function heading(column) {
  const box = el("div");
  box.append(el("div", "title", column.title));
  for (const fact of column.caption) box.append(el("span", "caption", fact));
  if (!column.src && column.command) {
    box.append(el("span", "caption", "not there yet; made by"), el("code", "", column.command));
  }
  return box;
}

function tile(data, column, index, title) {
  const node = el("div", "tile"), px = data.side * data.zoom;
  node.style.width = node.style.height = px + "px";
  node.setAttribute("role", "img");
  if (!column.src || index >= column.count) {
    node.classList.add("missing");
    node.setAttribute("aria-label", `${column.title}, ${title}: not there`);
    return node;
  }
  const x = index % data.sheetColumns, y = Math.floor(index / data.sheetColumns);
  node.style.backgroundImage = `url(${column.src})`;
  node.style.backgroundSize = `${data.sheetColumns * px}px ${column.rows * px}px`;
  node.style.backgroundPosition = `${-x * px}px ${-y * px}px`;
  node.setAttribute("aria-label", `${column.title}, ${title}`);
  return node;
}

function lineOf(data, column, line) {
  const box = el("div", "line");
  for (const index of line.tiles) box.append(tile(data, column, index, line.title));
  return box;
}

function grid(data) {
  const table = el("table"), head = el("thead"), body = el("tbody"), names = el("tr");
  names.append(el("th"));
  for (const column of data.columns) {
    const th = el("th");
    th.scope = "col";
    th.append(heading(column));
    names.append(th);
  }
  head.append(names);
  for (const line of data.lines) {
    const row = el("tr"), th = el("th"), [first, ...rest] = line.title.split("\\n");
    th.scope = "row";
    th.append(el("span", "", first));
    if (rest.length) th.append(el("small", "", rest.join(" ")));
    row.append(th);
    for (const column of data.columns) {
      const td = el("td");
      td.append(lineOf(data, column, line));
      row.append(td);
    }
    body.append(row);
  }
  table.append(head, body);
  const scroll = el("div", "scroll");
  scroll.append(table);
  return [scroll];
}

function layer(data, column, className) {
  const box = el("div", className);
  for (const line of data.lines) box.append(lineOf(data, column, line));
  return box;
}

function pair(data) {
  const [a, b] = data.columns;
  const names = el("div", "names"), left = heading(a), right = heading(b);
  names.append(left, right);
  const stack = el("div", "stack"), over = layer(data, b, "over");
  stack.append(layer(data, a, ""), over);
  const scroll = el("div", "scroll");
  scroll.append(stack);
  return { names, left, right, stack, over, scroll };
}

function swipe(data, kept) {
  const { names, left, right, stack, over, scroll } = pair(data);
  const edge = el("div", "edge"), bar = el("div", "bar"), range = el("input");
  stack.append(edge);
  Object.assign(range, { type: "range", min: 0, max: 100, step: 0.5 });
  range.setAttribute("aria-label", `left of the edge ${data.columns[0].title}, right of it ${data.columns[1].title}`);
  const move = (percent) => {
    kept.swipe = Math.min(100, Math.max(0, percent));
    range.value = kept.swipe;
    edge.style.left = `calc(${kept.swipe}% - 1px)`;
    over.style.clipPath = `inset(0 0 0 ${kept.swipe}%)`;
    left.className = kept.swipe > 0 ? "shown" : "";
    right.className = kept.swipe < 100 ? "shown" : "";
  };
  range.oninput = () => move(Number(range.value));
  stack.onpointermove = (event) => {
    if (event.pointerType === "mouse" ? event.buttons === 0 : false) return;
    const box = stack.getBoundingClientRect();
    move((100 * (event.clientX - box.left)) / box.width);
  };
  stack.onpointerdown = stack.onpointermove;
  bar.append(el("span", "", data.columns[0].title), range, el("span", "", data.columns[1].title));
  move(kept.swipe ?? 50);
  return [names, bar, scroll];
}

function blink(data, kept) {
  const { names, left, right, stack, over, scroll } = pair(data);
  stack.classList.add("blinking");
  const bar = el("div", "bar"), pause = el("button"), other = el("button", "", "Show the other");
  const said = el("strong");
  said.setAttribute("aria-live", "off");
  kept.paused ??= matchMedia("(prefers-reduced-motion: reduce)").matches;
  const draw = () => {
    over.style.visibility = kept.second ? "visible" : "hidden";
    left.className = kept.second ? "" : "shown";
    right.className = kept.second ? "shown" : "";
    said.textContent = data.columns[kept.second ? 1 : 0].title;
    pause.textContent = kept.paused ? "Blink" : "Pause";
  };
  const flip = () => { kept.second = !kept.second; draw(); };
  pause.onclick = () => { kept.paused = !kept.paused; draw(); };
  other.onclick = () => { kept.paused = true; flip(); };
  kept.timer = setInterval(() => { if (!kept.paused) flip(); }, BLINK_MS);
  bar.append(pause, other, el("span", "", "now shown:"), said);
  draw();
  return [names, bar, scroll];
}

const kept = new WeakMap();

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".pictures");
  const state = kept.get(root) ?? {};
  kept.set(root, state);
  clearInterval(state.timer);
  const scrolled = root.querySelector(".scroll");
  const at = scrolled ? [scrolled.scrollLeft, scrolled.scrollTop] : [0, 0];
  const draw = { grid, swipe, blink }[data.mode];
  root.replaceChildren(...draw(data, state));
  root.querySelector(".scroll").scrollTo(...at);
  return () => clearInterval(state.timer);
}
"""

_component = st.components.v2.component("lab_pictures", html='<div class="pictures"></div>', css=_CSS, js=_JS)
