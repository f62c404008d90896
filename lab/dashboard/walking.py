"""Two sliders and a picture of every chosen model, which follows them at the browser's own pace.

From the place where the sliders stand, both ways are drawn to their ends and sent: along the noises and along the
classes. Whoever moves one slider sees pictures that are there; when it rests, those ways that cross the new place are
asked for.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

import numpy as np
import streamlit as st

STEPS = 32  # of a slider, from end to end
Place = tuple[float, float]  # the shares of the way between the noises and between the classes


def place(key: str) -> Place:
    """Where the sliders of this key rest."""
    held = (st.session_state.get(key) or {}).get("place") or {}
    return held.get("noise", 0.0), held.get("label", 0.0)


def crossing(at: Place) -> list[Place]:
    """Every step of both ways through a place: first along the noises, then along the classes."""
    shares = [k / STEPS for k in range(STEPS + 1)]
    return [(share, at[1]) for share in shares] + [(at[0], share) for share in shares]


def show(draw: Sequence[Callable[[Sequence[Place]], np.ndarray]], names: Sequence[str], captions: Sequence[str],
         ends: dict[str, tuple[str, str]], *, zoom: int, key: str) -> None:  # fmt: skip
    """The models' pictures with the sliders; `draw` gives uint8 (N, C, H, W) of places, `ends` names what lies there.

    No `label` among `ends`: no slider for classes.
    """
    at = place(key)
    images = [model(crossing(at)) for model in draw]
    _component(
        key=key,
        data={"at": {"noise": at[0], "label": at[1]}, "steps": STEPS, "zoom": zoom,
              "ends": {axis: list(said) for axis, said in ends.items()},
              "models": [{"name": name, "caption": caption, "shape": list(drawn.shape[1:]),
                          "pixels": base64.b64encode(np.ascontiguousarray(drawn).tobytes()).decode()}
                         for name, caption, drawn in zip(names, captions, images, strict=True)]},
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
const REST_MS = 120;  // without a movement: then the ways through the new place are asked for
const kept = new WeakMap();

function el(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function paint(canvas, model, index) {
  const [channels, height, width] = model.shape, plane = height * width, first = index * channels * plane;
  const picture = new ImageData(width, height);
  for (let k = 0; k < plane; k++) {
    for (let c = 0; c < 3; c++) picture.data[4 * k + c] = model.bytes[first + k + plane * Math.min(c, channels - 1)];
    picture.data[4 * k + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function build(root, data, state) {
  state.sliders = {};
  const bars = [];
  for (const axis of ["noise", "label"].filter((name) => data.ends[name])) {
    const bar = el("div", "bar"), slider = el("input"), [from, to] = data.ends[axis];
    Object.assign(slider, { type: "range", min: 0, max: 1, step: 1 / data.steps, value: data.at[axis] });
    slider.setAttribute("aria-label", `${axis === "noise" ? "Noise" : "Class"}: from ${from} to ${to}`);
    slider.oninput = () => state.moved();
    state.sliders[axis] = slider;
    bar.append(el("span", "", from), slider, el("span", "", to));
    bars.push(bar);
  }
  state.canvases = data.models.map((model) => {
    const box = el("div"), canvas = el("canvas");
    [canvas.height, canvas.width] = model.shape.slice(1);
    canvas.style.width = `${canvas.width * data.zoom}px`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${model.name} where the sliders stand`);
    box.append(el("div", "title", model.name), el("span", "caption", model.caption), canvas);
    state.boxes.push(box);
    return canvas;
  });
  const models = el("div", "models");
  models.append(...state.boxes.splice(0));
  root.replaceChildren(...bars, models);
}

export default function ({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".walk");
  const state = kept.get(root) ?? { boxes: [] };
  kept.set(root, state);
  const form = JSON.stringify([data.ends, data.zoom, data.models.map((m) => [m.name, m.caption, m.shape])]);
  if (form !== state.form) build(root, data, state);
  state.form = form;
  for (const model of data.models) model.bytes = Uint8Array.from(atob(model.pixels), (byte) => byte.charCodeAt(0));

  const standing = () => {
    const of = (axis) => (state.sliders[axis] ? Number(state.sliders[axis].value) : 0);
    return { noise: of("noise"), label: of("label") };
  };
  const step = (share) => Math.round(share * data.steps);
  const draw = () => {
    const { noise, label } = standing();
    let index = null;  // of the ways that are here
    if (label === data.at.label) index = step(noise);
    else if (noise === data.at.noise) index = data.steps + 1 + step(label);
    if (index === null) return;
    data.models.forEach((model, k) => paint(state.canvases[k], model, index));
    root.dataset.frames = Number(root.dataset.frames ?? 0) + 1;
  };
  state.moved = () => {
    draw();
    clearTimeout(state.rest);
    state.rest = setTimeout(() => setStateValue("place", standing()), REST_MS);
  };
  root.dataset.at = `${data.at.noise} ${data.at.label}`;
  draw();
  return () => clearTimeout(state.rest);
}
"""

_component = st.components.v2.component("lab_walk", html='<div class="walk"></div>', css=_CSS, js=_JS)
