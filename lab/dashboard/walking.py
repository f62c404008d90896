"""Two sliders and a picture of every chosen model: the browser asks for the next one as soon as the last has come."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import streamlit as st

NOWHERE = {"noise": 0.0, "label": 0.0, "n": 0}  # the start of the way; n counts the places asked for


def place(key: str) -> dict[str, float]:
    """Where the sliders of this key stand: the shares of the way between the noises and between the classes."""
    held = st.session_state.get(key)
    return NOWHERE | dict((held or {}).get("place") or {})


def show(images: Sequence[np.ndarray], names: Sequence[str], captions: Sequence[str], at: dict[str, float],
         ends: dict[str, tuple[str, str]], *, zoom: int, key: str) -> None:  # fmt: skip
    """Images uint8 (C, H, W) of the place `at` with their names, and the sliders; `ends` names what each goes between.

    No `label` among `ends`: no slider for classes.
    """
    _component(
        key=key,
        data={"at": at, "ends": {axis: list(said) for axis, said in ends.items()}, "zoom": zoom,
              "models": [{"name": name, "caption": caption, "shape": list(image.shape),
                          "pixels": base64.b64encode(np.ascontiguousarray(image).tobytes()).decode()}
                         for name, caption, image in zip(names, captions, images, strict=True)]},
        on_place_change=lambda: None,
    )  # fmt: skip


_CSS = """
.walk { font-family: var(--st-font); color: var(--st-text-color); font-size: 0.85rem; }
.bar { display: flex; gap: 12px; align-items: center; padding: 2px 2px 8px; }
.bar input { flex: 1 1 160px; min-width: 0; accent-color: var(--st-primary-color); }
.bar span { flex: 0 0 5.5rem; overflow-wrap: anywhere; }
.bar span:first-child { text-align: right; }
.models { display: flex; gap: 14px; flex-wrap: wrap; }
.models canvas { image-rendering: pixelated; display: block; border-radius: 2px; }
.title { font-weight: 600; overflow-wrap: anywhere; }
.caption { opacity: 0.72; display: block; }
"""

_JS = """
const AXES = ["noise", "label"];
const WAIT_MS = 2000;  // after which an answer is given up: a rerun of the page may have swallowed it
const kept = new WeakMap();

function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function paint(canvas, model) {
  const [channels, height, width] = model.shape, bytes = atob(model.pixels), plane = height * width;
  canvas.width = width;
  canvas.height = height;
  const picture = new ImageData(width, height);
  for (let k = 0; k < plane; k++) {
    for (let c = 0; c < 3; c++) picture.data[4 * k + c] = bytes.charCodeAt(k + plane * Math.min(c, channels - 1));
    picture.data[4 * k + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function build(root, data, state) {
  state.sliders = {};
  const bars = [];
  for (const axis of AXES.filter((name) => data.ends[name])) {
    const bar = el("div", "bar"), slider = el("input"), [from, to] = data.ends[axis];
    Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01, value: data.at[axis] });
    slider.setAttribute("aria-label", `${axis === "noise" ? "Noise" : "Class"}: from ${from} to ${to}`);
    slider.oninput = () => state.ask();
    state.sliders[axis] = slider;
    bar.append(el("span", "", from), slider, el("span", "", to));
    bars.push(bar);
  }
  state.pictures = data.models.map((model) => {
    const box = el("div"), canvas = el("canvas");
    canvas.setAttribute("role", "img");
    box.append(el("div", "title", model.name), el("span", "caption", model.caption), canvas);
    return { box, canvas };
  });
  const models = el("div", "models");
  models.append(...state.pictures.map((p) => p.box));
  state.rate = el("p", "caption");
  root.replaceChildren(...bars, models, state.rate);
}

export default function ({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".walk");
  const state = kept.get(root) ?? { n: data.at.n, got: data.at.n, asked: null, frames: [] };
  kept.set(root, state);
  const form = JSON.stringify([data.ends, data.models.map((m) => [m.name, m.caption])]);
  if (form !== state.form) build(root, data, state);
  state.form = form;

  state.ask = () => {
    const now = performance.now(), place = { n: state.n + 1, noise: 0, label: 0 };
    if (state.asked !== null && now - state.asked < WAIT_MS) return;  // one at a time; the last place is asked for next
    for (const [axis, slider] of Object.entries(state.sliders)) place[axis] = Number(slider.value);
    if (state.shown && AXES.every((axis) => state.shown[axis] === place[axis])) return;
    state.asked = now;
    state.n = place.n;
    setStateValue("place", place);
  };

  data.models.forEach((model, k) => {
    const { canvas } = state.pictures[k];
    paint(canvas, model);
    canvas.style.width = `${model.shape[2] * data.zoom}px`;
    canvas.setAttribute("aria-label", `${model.name} at noise ${data.at.noise}, class ${data.at.label}`);
  });
  state.shown = data.at;
  if (data.at.n > state.got) {
    const now = performance.now();
    state.got = data.at.n;
    state.frames = [...state.frames.filter((t) => now - t < 2000), now];
    root.dataset.frames = Number(root.dataset.frames ?? 0) + 1;
    if (state.frames.length > 3) {
      const rate = (1000 * (state.frames.length - 1)) / (now - state.frames[0]);
      state.rate.textContent = `${rate.toFixed(0)} frames a second`;
    }
  }
  if (data.at.n !== state.n) return;
  state.asked = null;
  state.ask();
}
"""

_component = st.components.v2.component("lab_walk", html='<div class="walk"></div>', css=_CSS, js=_JS)
