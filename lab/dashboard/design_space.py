"""Which depth, width and heads suit a budget, by what was trained, and the shape to try next."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pandas as pd
import streamlit as st

from lab import choose, figures, principles
from lab.choose import Budget, number
from lab.dashboard import frame
from lab.results import Store

TITLE = "Design space"
ORDER = 24
ICON = ":material/stacked_line_chart:"
URL = "/design_space"

PLAIN = "plain"
MOST_COUNTS = 3  # numbers of images seen that are drawn: those of the most shapes
TWO_SHAPES = "\n".join(f"{frame.FIRST_RUN.splitlines()[-1]} --depth {d} --width {w}" for d, w in [(2, 48), (8, 24)])
COLUMNS = ("name", "depth", "width", "heads", "params", "params_m", "images", "unfinished", "seeds", "fd", "fd_least",
           "fd_most", "fd_low", "fd_high", "latency_ms", "lr", "runs")  # fmt: skip


@dataclass(frozen=True)
class Shapes:
    """The trained shapes that may be compared, or why there are none."""

    rows: pd.DataFrame  # of figures.over_seeds, at each number of images seen
    most: pd.DataFrame  # every training at the number of images at which the most shapes are known
    left_out: list[str] = field(default_factory=list)
    why_not: str = ""


@dataclass(frozen=True)
class Learned:
    """What they say; `why_not` what they do not, and why."""

    effects: pd.DataFrame  # of principles.effects, with `kind`: on distance and on latency
    suggestion: principles.Suggestion | None
    why_not: list[str]


# As resources: a page runs as a script, whose classes can't be pickled. Nothing changes what is kept.
@st.cache_resource(max_entries=8, show_spinner=False)
def trained(stamp: int, root: str, budget: Budget, _runs: pd.DataFrame, _reports: pd.DataFrame) -> Shapes:
    """The shapes of a budget's method, whatever its limits."""
    store, nothing = Store(root), pd.DataFrame()
    of = _runs[_runs["role"].eq("student") & _runs["method_short"].eq(budget.method) & _runs["fd"].notna()]
    if of.empty:
        return Shapes(nothing, nothing, why_not=f"no student of {budget.method} is measured")
    seen, left_out, teachers = {}, [], _runs[_runs["role"] == "teacher"].assign(unfinished=False)
    for images in counts(of):
        at = principles.at_images(_runs[_runs["role"] == "student"], store, images)
        rows = choose.candidates(pd.concat([at, teachers], ignore_index=True), _reports, budget)
        seen[images], said = principles.alike(rows, budget.method)
        left_out += [line for line in said if line not in left_out]
    rows = figures.over_seeds(pd.concat(seen.values()))
    why_not = "no one-step DiT of plain blocks is measured" if rows.empty else ""
    return Shapes(rows, seen[principles.most_images(of)], left_out, why_not)


@st.cache_resource(max_entries=16, show_spinner="Fitting the shapes ...")
def learned(stamp: int, root: str, budget: Budget, _most: pd.DataFrame, _runs: pd.DataFrame, _reports: pd.DataFrame
            ) -> Learned:  # fmt: skip
    effects, why_not, suggestion = [pd.DataFrame()], [], None
    for what, said in [("fd", "distance"), ("latency_ms", "latency")]:
        try:
            effects.append(principles.effects(principles.fit(_most, what)).assign(kind=said))
        except ValueError as error:
            why_not.append(f"effects on {said}: {error}")
    try:
        suggestion = principles.suggest(_runs, _reports, Store(root), budget)
    except ValueError as error:
        why_not.append(f"a shape to try next: {error}")
    return Learned(pd.concat(effects), suggestion, why_not)


def counts(students: pd.DataFrame) -> list[int]:
    """Numbers of images at which shapes are known, finished or on the way: those of the most shapes."""
    seen = pd.DataFrame([(int(n), row.shape) for row in students[["images", "keep", "shape"]].itertuples(index=False)
                         for n in {row.images, *(row.keep or ())}], columns=["images", "shape"])  # fmt: skip
    most = seen.drop_duplicates()["images"].value_counts().index[:MOST_COUNTS]
    return sorted({*most, principles.most_images(students)})


def answer(shapes: Shapes, budget: Budget, pick: dict[str, object] | None) -> str:
    """The answer in one sentence: the best shape trained within the limits, and the best that nobody trained."""
    images = shapes.most["images"].iloc[0]
    rows = shapes.rows[shapes.rows["images"].eq(images)]
    for name, limit in budget.limits.items():
        rows = rows[rows[name] <= limit]
    units = {"params_m": "M parameters", "latency_ms": "ms"}
    within = " and ".join(f"{limit:g} {units[name]}" for name, limit in budget.limits.items())
    within = f"within {within}" if within else "of any size"
    said = f"No shape {within} was trained on {images:,.0f} images"
    if len(rows):
        best = rows.loc[rows["fd"].idxmin()]
        times = best["fd"] / best["teacher_value"]
        worth = f"{number(times)} times its teacher's distance, " if pd.notna(times) else ""
        said = (f"**{frame.plain(best['name'])}** is the best of {rows['shape'].nunique()} shapes trained {within} "
                f"({worth}FD {number(best['fd'])} after {images:,.0f} images)")  # fmt: skip
    if pick is None:
        return f"{said}."
    least = rows["fd"].min() if len(rows) else float("inf")
    name = f"**{frame.plain(pick['name'])}**"
    hope = (f"none that nobody trained should be better, the next is {name}" if pick["fd"] >= least
            else f"of those that nobody trained {name} should do best")  # fmt: skip
    return (f"{said}; {hope}: FD {number(pick['fd'])} ({number(pick['fd_low'])} to {number(pick['fd_high'])}), "
            "*estimated*.")  # fmt: skip


def heads_commands(rows: pd.DataFrame) -> str:
    """What trains the shape of the least distance with other numbers of heads."""
    best = rows.loc[rows["fd"].idxmin()]
    counts = [h for h in (1, 2, 4, 8) if best["width"] % h == 0 and h != best["heads"]]
    return "\n".join(f"python -m lab run {best['run']} --heads {h}" for h in counts)


def curves(rows: pd.DataFrame, pick: dict[str, object] | None, key: str) -> None:
    st.plotly_chart(figures.iso(rows, pick), key=key, config={"displaylogo": False},
                    alt=f"Distance over depth at fixed sizes, of {len(rows)} shapes")  # fmt: skip


def beside(rows: pd.DataFrame, found: Learned) -> None:
    """Effects and heads."""
    if len(found.effects):
        shown = found.effects.assign(label=found.effects["change"])
        st.plotly_chart(figures.factors(shown, "times the distance, or the latency"), key="effects",
                        config={"displaylogo": False}, alt="What a change of size, depth or width does")  # fmt: skip
        st.caption("What one change does at the middle of the shapes, with 95 % intervals. Below 1 is better.")
    drawn = figures.heads(rows)
    if drawn is not None:
        st.plotly_chart(drawn, key="heads", config={"displaylogo": False}, alt="Distance over heads")
    elif commands := heads_commands(rows):
        with st.expander("No shape was trained with several numbers of heads yet", icon=":material/terminal:"):
            frame.show_command(commands)


def details(shapes: Shapes, found: Learned) -> None:
    """How sure, what a step more buys, and every shape."""
    with st.expander("How sure, what a step more would buy, and every shape", icon=":material/query_stats:"):
        if found.suggestion:
            for line in found.suggestion.text.split("\n"):
                st.markdown(frame.plain(line))
            if len(found.suggestion.prices):
                rows = [(f"{p.change} {choose.COSTS[p.limit].title.lower()} to {choose.COSTS[p.limit].say(p.to)}",
                         p.name, f"{number(p.value)} ({-p.gain:+.2g})", f"{number(p.low)} to {number(p.high)}")
                        for p in found.suggestion.prices.rename(columns={"from": "at"}).itertuples()]  # fmt: skip
                frame.small_table(["If you", "the best untrained is", "FD, estimated", "times the pick's"], rows)
        st.dataframe(shapes.rows[list(COLUMNS)].sort_values(["params", "depth"]), hide_index=True, key="shapes",
                     alt="Every shape with its distance, and its range over seeds")  # fmt: skip
        st.caption(frame.plain(figures.conditions(shapes.rows, shapes.left_out)))


view = frame.view()
st.title("Which shape suits a budget?", anchor=False)
if view.measured.empty:
    frame.empty("No finished and measured run yet. These make a teacher and two shapes of one size on the embedded "
                "digits:", f"{frame.FIRST_RUN.splitlines()[0]}\n{TWO_SHAPES}")  # fmt: skip
conditions = frame.conditions(view, "fd")
start = choose.start(view.runs, view.reports, conditions)
with st.container(border=True):
    with st.grid(4, min_column_width=150):
        size = st.number_input("Max parameters (M)", 0.0, value=start.params_m, step=0.05, format="%g",
                               key="space_params", bind="query-params", placeholder="no limit",
                               help="Of what is shipped. 0 lifts the limit")  # fmt: skip
        speed = st.number_input("Max latency (ms)", 0.0, value=None, step=0.1, format="%g", key="space_ms",
                                bind="query-params", placeholder="no limit",
                                help="Predicted from the shapes timed here. 0 lifts the limit")  # fmt: skip
        frame.method_control(view)
    with st.expander("Timing conditions", icon=":material/tune:"):
        frame.conditions_controls(view)
conditions = frame.conditions(view, "fd")
conditions = choose.settle(view.runs, view.reports,
                           dataclasses.replace(conditions, method=conditions.method or PLAIN))  # fmt: skip
budget = dataclasses.replace(conditions, params_m=size or None, latency_ms=speed or None)
# A metric that was changed in its place touches no folder.
stamp = hash((view.stamp, int(pd.util.hash_pandas_object(view.runs[["run", "fd", "params"]]).sum())))
root = str(view.store.root)
shapes = trained(stamp, root, conditions, view.runs, view.reports)
if shapes.why_not:
    frame.empty(f"There is nothing to compare: {shapes.why_not}. These train two shapes of one size:", TWO_SHAPES)
sentence, (left, right) = st.empty(), st.columns([3, 2], gap="medium")
picture = left.empty()
if st.session_state.get("fitted") != (stamp, budget):  # what was trained is seen while the fit is worked out
    sentence.markdown(answer(shapes, budget, None))
    with picture.container():
        curves(shapes.rows, None, "iso_trained")
found = learned(stamp, root, budget, shapes.most, view.runs, view.reports)
st.session_state["fitted"] = (stamp, budget)
pick = found.suggestion.pick if found.suggestion else None
sentence.markdown(answer(shapes, budget, pick))
with picture.container():
    curves(shapes.rows, pick, "iso")
    st.caption("A line is one budget of parameters, as trained: deep and thin at the right, shallow and wide at the "
               "left. Solid: finished after the most images; dotted: after fewer; dashed: on the way, at a rate that "
               "had not fallen yet. Bars are the range over seeds; a point without one is a single training. The star "
               "is estimated.")  # fmt: skip
with right:
    beside(shapes.rows, found)
if found.why_not:
    st.caption(frame.plain(f"Not shown: {'; '.join(found.why_not)}."))
details(shapes, found)
frame.footer(shapes.rows[list(COLUMNS)], choose.command(frame.all_runs(), view.reports, budget), "design_space")
