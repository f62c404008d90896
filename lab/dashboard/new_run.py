"""A form for a new run or sweep, made from the fields of recipe, network and methods."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from lab import jobs
from lab.config import (
    DTYPES,
    FAMILIES,
    JSON,
    OPTIMIZERS,
    SCHEDULES,
    DiTConfig,
    Recipe,
    TeacherName,
    Use,
    config_to_json,
)
from lab.dashboard import frame, live
from lab.results import Run, Store

DATA = ("digits", "fashion-mnist", "cifar10")
MOST_WRONG = 5  # of a sweep's faults that are shown


@st.cache_resource(show_spinner="Loading the methods ...")
def laboratory() -> tuple[types.ModuleType, types.ModuleType]:
    """lab.experiment and lab.methods: they load torch, so only an open form asks for them."""
    from lab import experiment, methods

    return experiment, methods


@st.cache_data(max_entries=16, show_spinner=False)
def image_of(root: str, data: str, teacher: str | None) -> dict[str, int] | None:
    """image_size, channels and num_classes of a recipe's images; None where they can't be known before the run."""
    from lab import data as data_sets
    from lab import weights

    try:
        if teacher and TeacherName.parse(teacher).is_run:
            spec = weights.spec_of_run(Store(root).get(teacher))
        elif teacher or data.startswith("folder:"):
            return None
        else:
            spec = data_sets.spec_of(data, data_sets.load(data))
    except (LookupError, ValueError, OSError):
        return None
    return {"image_size": spec.size, "channels": spec.channels, "num_classes": spec.num_classes}


def comments(cls: type) -> dict[str, str]:
    """The comment beside each field of a dataclass, inherited ones too: the same words in code and form."""
    sources = "\n".join(inspect.getsource(base) for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base))
    found = re.findall(r"^ +(\w+): [^#\n]*#\s*(.+)$", sources, re.MULTILINE)
    return {name: said[0].upper() + said[1:] for name, said in found}


def field(name: str, hint: Any, value: JSON, help: str | None, key: str,
          choices: tuple[str, ...] | None = None) -> JSON:  # fmt: skip
    """A widget for one field of a dataclass; gives the value as JSON."""
    if choices is not None:
        options = list(dict.fromkeys([*choices, *([value] if isinstance(value, str) else [])]))
        index = options.index(value) if value in options else None
        return st.selectbox(
            name, options, index, key=key, help=help, accept_new_options=name in ("data", "teacher"), placeholder="none"
        )
    if hint is bool:
        return st.checkbox(name, bool(value), key=key, help=help)
    if hint is int:
        return int(st.number_input(name, value=int(value), step=1, key=key, help=help))
    if hint is float:
        step = 10.0 ** math.floor(math.log10(abs(value))) if value else 0.1
        return float(st.number_input(name, value=float(value), step=step, format="%g", key=key, help=help))
    if hint is str:
        return st.text_input(name, str(value), key=key, help=help)
    text = st.text_input(name, json.dumps(value), key=key, help=f"{help or name} (as JSON: null, [1, 2], ...)")
    try:
        return json.loads(text or "null")
    except ValueError:
        return text


def fields(
    cls: type,
    values: Mapping[str, JSON],
    key: str,
    choices: Mapping[str, tuple[str, ...]] = types.MappingProxyType({}),
    leave_out: tuple[str, ...] = (),
) -> dict[str, JSON]:
    """Widgets for all fields of a dataclass, four in a row."""
    hints, said, made = typing.get_type_hints(cls), comments(cls), {}
    names = [f.name for f in dataclasses.fields(cls) if f.name not in leave_out]
    grid = st.grid(min_column_width=170)
    for name in names:
        few = typing.get_args(hints[name]) if typing.get_origin(hints[name]) is typing.Literal else choices.get(name)
        with grid:
            made[name] = field(name, hints[name], values.get(name), said.get(name), f"{key}-{name}", few)
    return made


def first_values(store: Store, base: str | None) -> dict[str, Any]:
    """The recipe that the form begins with: a run's, or a small student of the first teacher, or a small teacher."""
    if base:
        return json.loads(Run(store.root / "runs" / base).recipe.to_json())
    for alias in store.teachers():
        try:
            return json.loads(Recipe(data=store.get(alias).recipe.data, teacher=alias, pairs=4096).to_json())
        except (LookupError, OSError, ValueError):
            continue  # an alias whose run is gone or unreadable
    return json.loads(Recipe(methods=(Use("denoise"),), student=DiTConfig(time=True), steps=500).to_json())


@st.fragment
def form(store: Store, table: pd.DataFrame) -> None:
    """A form made from the fields of recipe, network and methods; what is wrong with them stands below."""
    experiment, methods = laboratory()
    readable = table[table["state"] != "unreadable"]
    names = dict(zip(readable["run"], readable["name"]))
    base = st.selectbox("Begin with the recipe of", list(names), None, key="new_base", format_func=names.get,
                        placeholder="a small default")  # fmt: skip
    made = first_values(store, base)
    key = f"new-{base}"

    left, right = st.columns(2)
    with left:
        made["data"] = field(
            "data", str, made["data"], "digits, fashion-mnist, cifar10 or folder:<path>", f"{key}-data", DATA
        )
    with right:
        about = "An alias, run:<id> or pipeline:<folder>; none = learn from the data"
        made["teacher"] = field("teacher", str, made["teacher"], about, f"{key}-teacher", tuple(store.teachers()))
    image = image_of(str(store.root), made["data"] or "", made["teacher"])
    key += f"-{made['data']}-{made['teacher']}"

    st.markdown("**Network**")
    student = made["student"]
    family = st.segmented_control(
        "family", list(FAMILIES), default=student["family"], required=True, key=f"{key}-family"
    )
    values = config_to_json(FAMILIES[family]()) | (student if student["family"] == family else {}) | (image or {})
    made["student"] = {"family": family} | fields(FAMILIES[family], values, f"{key}-{family}")

    st.markdown("**Methods**")
    given = {use["method"]: use["options"] for use in made["methods"]}
    known = [m for m in given if m in methods.METHODS]
    chosen = st.multiselect(
        "methods", sorted(methods.METHODS), known, key=f"{key}-methods", label_visibility="collapsed"
    )
    made["methods"] = []
    for name in chosen:
        cls = methods.METHODS[name]
        st.caption(f"{name}: {frame.plain((cls.__doc__ or '').splitlines()[0])} {frame.plain(cls.paper)}")
        options = dataclasses.asdict(methods.create(Use(name))) | given.get(name, {})
        made["methods"].append({"method": name, "options": fields(cls, options, f"{key}-{name}")})

    st.markdown("**Training**")
    made |= fields(Recipe, made, key, {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "dtype": DTYPES},
                   leave_out=("data", "teacher", "student", "methods"))  # fmt: skip
    if axes := varied(made, key):
        sweep_verdict(store, made, axes)
    else:
        verdict(experiment, store, made)


def verdict(experiment: types.ModuleType, store: Store, made: Mapping[str, Any]) -> None:
    """What is wrong with a recipe, or its id, its command and the button that starts it."""
    try:
        recipe = Recipe.from_json(json.dumps(made))
        wrong = experiment.check(recipe, store)
    except ValueError as error:
        recipe, wrong = None, [str(error)]
    if wrong:
        st.warning("\n".join(f"- {frame.plain(said)}" for said in wrong))
        return
    planned = experiment.plan(recipe, store)
    run = Run(store.root / "runs" / planned[-1].recipe.id)
    first = f", after {len(planned) - 1} other runs" if len(planned) > 1 else ""
    st.caption(f"{recipe.images:,} images in {recipe.steps:,} updates{first}; its id will be {frame.plain(run.id)}.")
    if run.path.exists() and not run.status().resumable:
        st.info(f"This run is there already, {run.status().state}: equal recipes are the same run.")
    elif st.button("Start this run", type="primary", icon=":material/play_arrow:", key="start_new"):
        for job in planned:
            store.open(job.recipe)
        if live.act(jobs.start, run):
            st.rerun(scope="app")
    st.download_button(
        "Save the recipe", recipe.to_json() + "\n", f"{run.id}.json", "application/json", on_click="ignore"
    )


# --- a sweep ------------------------------------------------------------------------------------


def varied(made: Mapping[str, Any], key: str) -> dict[str, list[JSON]]:
    """The fields of which several values are tried, as axes of a sweep; {} for a single run."""
    now = {name: value for name, value in made.items() if name not in ("data", "teacher", "student", "methods")}
    now |= {f"student.{name}": value for name, value in made["student"].items() if name != "family"}
    now |= {f"methods.{use['method']}.{name}": value for use in made["methods"]
            for name, value in use["options"].items()}  # fmt: skip
    chosen = st.multiselect("Vary", list(now), key=f"{key}-vary", placeholder="nothing: a single run",
                            help="A sweep: a run for every combination of the values")  # fmt: skip
    found = {}
    with st.grid(min_column_width=170):
        for name in chosen:
            text = st.text_input(f"Values of {name}", json.dumps(now[name]), key=f"{key}-vary-{name}",
                                 help="As JSON with commas between: 2, 4, 8")  # fmt: skip
            try:
                found[name] = json.loads(f"[{text}]")
            except ValueError:
                found[name] = [text]
    return found


def sweep_verdict(store: Store, made: Mapping[str, Any], axes: Mapping[str, list[JSON]]) -> None:
    """What is wrong with a sweep's runs, or how many they are and the button that starts them."""
    from lab import experiment, sweep

    usual = re.sub(r"[^a-z0-9]+", "-", f"{made['data']} {' '.join(axes)}".lower()).strip("-")
    name = st.text_input("Name of the sweep", usual, key=f"sweep-{usual}")
    try:
        planned = sweep.read(json.dumps({"base": made, "axes": axes}), name)
        no_net = [f"{live.point(plain['at'])}: {plain['why']}" for plain in planned.dropped]
        wrong = [] if planned.entries else no_net
        wrong += [f"{live.point(entry.at)}: {said}" for entry in planned.entries
                  for said in ([entry.why] if entry.why else experiment.check(entry.recipe, store))]  # fmt: skip
    except ValueError as error:
        wrong = [str(error)]
    record = store.root / "sweeps" / f"{name}.json"
    if not wrong and record.exists() and store.sweeps().get(record, {}).get("asked") != planned.asked:
        wrong = [f"there is another sweep called {name}"]
    if wrong:
        st.warning("\n".join(f"- {frame.plain(said)}" for said in wrong[:MOST_WRONG]))
        return
    images = sum(entry.recipe.images for entry in planned.entries)
    left_out = f" Left out: {'; '.join(no_net[:MOST_WRONG])}." if no_net else ""
    st.caption(frame.plain(f"{len(planned.entries)} runs, {images:,} images in all.{left_out}"))
    at_once = live.workers("new")
    if st.button("Start this sweep", type="primary", icon=":material/play_arrow:", key="start_sweep"):
        if not record.exists():
            planned.write(store)
        if live.act(jobs.start_sweep, record, at_once):
            st.rerun(scope="app")
