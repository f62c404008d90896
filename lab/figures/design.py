"""The design space: distance over depth at a fixed number of parameters, and over heads at a fixed shape."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lab.choose import number
from lab.figures.look import COLOURS, GUESS, SHAPES, TEMPLATE, axis_of, error_bars, safe
from lab.figures.words import axis_title, upright
from lab.principles import NEAR

# What tells a recipe from another one but for its seed, in `Store.table()` and what is made of it.
RECIPE = ["data", "classes", "teacher", "guide", "solver", "pairs", "start", "steps", "images", "unfinished",
          "train_batch", "optimizer", "lr", "betas", "warmup", "schedule", "clip", "ema", "dtype", "family", "shape",
          "method", "options"]  # fmt: skip


def over_seeds(rows: pd.DataFrame, what: str = "fd") -> pd.DataFrame:
    """Trainings that differ in their seed alone as one row, seen after as many images: `what` is their mean,
    `<what>_least` and `<what>_most` its range where there are several, `seeds` how many, `runs` their ids.
    """
    rows = rows[rows[what].notna()]
    if rows.empty:
        return rows.assign(**{f"{what}_least": np.nan, f"{what}_most": np.nan, "seeds": 0, "runs": None})
    known = rows[[name for name in RECIPE if name in rows]].itertuples(index=False, name=None)
    found = []
    for _, mine in rows.groupby(["\n".join(map(str, recipe)) for recipe in known], sort=False):
        several = len(mine) > 1
        found.append(mine.iloc[0].to_dict() | {
            what: mine[what].mean(), f"{what}_least": mine[what].min() if several else np.nan,
            f"{what}_most": mine[what].max() if several else np.nan, "seeds": len(mine), "runs": tuple(mine["run"]),
        })  # fmt: skip
    return pd.DataFrame(found)


def budgets(params: pd.Series) -> pd.Series:
    """The budget of each size: sizes that lie NEAR one another are of one, which is called by their median."""
    logs = np.log(params.sort_values())
    group, least, of = -1, -np.inf, {}
    for place, size in logs.items():
        if size > least + 2 * np.log1p(NEAR):
            group, least = group + 1, size
        of[place] = group
    groups = pd.Series(of, dtype=float).reindex(params.index)
    return params.groupby(groups).transform("median").map(_rounded)


def _rounded(size: float) -> float:
    """To one figure where that is near enough, else to two."""
    one = float(f"{size:.1g}")
    return one if abs(np.log(size / one)) <= np.log1p(NEAR) else float(f"{size:.2g}")


def iso(rows: pd.DataFrame, suggested: Mapping[str, object] | None = None) -> go.Figure:
    """Distance over depth, a line through the best of each depth for every budget of parameters; rows of `over_seeds`.
    A budget has one entry in the legend, which stands for all its lines.

    Dashed lines with hollow points are of checkpoints on the way, dotted ones with small points of trainings on fewer
    images than the most. Bars are the range over seeds. `suggested` is a shape that nobody trained (name, depth, fd
    with its interval): a star, called estimated.
    """
    rows = rows.assign(budget=budgets(rows["params"]))
    figure = go.Figure()
    for k, (budget, of_budget) in enumerate(rows.groupby("budget")):
        colour, shape, said = COLOURS[k % len(COLOURS)], SHAPES[k % len(SHAPES)], f"{budget / 1e6:g} M parameters"
        sets = sorted(of_budget.groupby(["unfinished", "images"]), key=lambda pair: (pair[0][0], -pair[0][1]))
        for first, ((unfinished, images), mine) in enumerate(sets):
            best = mine.loc[mine.groupby("depth")["fd"].idxmin()].sort_values("depth")
            fewer = not unfinished and images < rows["images"].max()
            if len(best) > 1:
                figure.add_scatter(
                    x=best["depth"], y=best["fd"], mode="lines", legendgroup=said, showlegend=False, hoverinfo="skip",
                    line=dict(color=colour, width=2, dash="dash" if unfinished else "dot" if fewer else "solid"),
                )  # fmt: skip
            spread = mine.rename(columns={"fd_low": "_", "fd_high": "__", "fd_least": "fd_low", "fd_most": "fd_high"})
            figure.add_scatter(
                x=mine["depth"], y=mine["fd"], mode="markers", name=said, legendgroup=said, showlegend=not first,
                error_y=error_bars(spread, "fd", colour), customdata=mine[["run"]].to_numpy(), hoverinfo="text",
                hovertext=[_said(row) for row in mine.to_dict("records")],
                marker=dict(color=colour, symbol=shape + "-open" * bool(unfinished), size=7 if fewer else 10,
                            line=dict(width=1.5)),
            )  # fmt: skip
    if suggested is not None:
        _suggest(figure, suggested)
    values = rows["fd"]
    if len(rows) and suggested is not None:
        values = pd.concat([values, pd.Series([suggested["fd"]])], ignore_index=True)
    depths = sorted(set(rows["depth"]))
    if suggested is not None and min(abs(np.log(suggested["depth"] / depth)) for depth in depths) > 0.2:  # room for it
        depths = sorted([*depths, suggested["depth"]])
    figure.update_xaxes(title="depth (blocks)", type="log", tickvals=depths, ticktext=[f"{d:.0f}" for d in depths])
    figure.update_yaxes(title=_distance(rows), **axis_of(values.to_frame("fd"), "fd", log=True))
    return figure.update_layout(template=TEMPLATE, height=420, showlegend=True)


def heads(rows: pd.DataFrame) -> go.Figure | None:
    """Distance over heads, a line for each shape that was trained with several; None where none was.

    Rows of `over_seeds`; bars are the range over seeds.
    """
    figure = go.Figure()
    groups = rows.groupby(["depth", "width", "mlp_hidden", "images", "unfinished"], sort=True)
    varied = [(key, mine.sort_values("heads")) for key, mine in groups if mine["heads"].nunique() > 1]
    if not varied:
        return None
    for k, ((depth, width, _, images, unfinished), mine) in enumerate(varied):
        colour, shape = COLOURS[k % len(COLOURS)], SHAPES[k % len(SHAPES)]
        spread = mine.rename(columns={"fd_low": "_", "fd_high": "__", "fd_least": "fd_low", "fd_most": "fd_high"})
        figure.add_scatter(
            x=mine["heads"], y=mine["fd"], mode="lines+markers", customdata=mine[["run"]].to_numpy(),
            name=f"{depth:.0f}x{width:.0f}, {_seen(images)}" + ", on the way" * bool(unfinished),
            error_y=error_bars(spread, "fd", colour), hoverinfo="text",
            hovertext=[_said(row) for row in mine.to_dict("records")],
            line=dict(color=colour, width=2, dash="dash" if unfinished else "solid"),
            marker=dict(color=colour, symbol=shape + "-open" * bool(unfinished), size=10),
        )  # fmt: skip
    counts = sorted({count for _, mine in varied for count in mine["heads"]})
    figure.update_xaxes(title="heads, at a fixed shape", type="log", tickvals=counts,
                        ticktext=[f"{count:.0f}" for count in counts])  # fmt: skip
    drawn = pd.concat([mine for _, mine in varied])
    figure.update_yaxes(title=_distance(drawn), **axis_of(drawn, "fd", log=True))
    return figure.update_layout(template=TEMPLATE, height=300, showlegend=True)


def _suggest(figure: go.Figure, shape: Mapping[str, object]) -> None:
    low, high = float(shape["fd"]) - float(shape["fd_low"]), float(shape["fd_high"]) - float(shape["fd"])
    figure.add_scatter(
        x=[shape["depth"]], y=[shape["fd"]], mode="markers", name=f"{safe(str(shape['name']))}, {GUESS}",
        error_y=dict(type="data", symmetric=False, array=[high], arrayminus=[low], color=COLOURS[3], thickness=1.2),
        hovertext=[f"<b>{safe(str(shape['name']))}</b>, trained by nobody<br>FD {number(shape['fd'])} "
                   f"({number(shape['fd_low'])} to {number(shape['fd_high'])}), {GUESS}"], hoverinfo="text",
        marker=dict(symbol="star-open-dot", size=15, color=COLOURS[3], line=dict(width=1.5)),
    )  # fmt: skip


def _distance(rows: pd.DataFrame) -> str:
    """The title of an axis of distances."""
    return upright(axis_title(rows, "fd"))


def _seen(images: float) -> str:
    """400 k or 1.2 M images."""
    return f"{images / 1e6:g} M images" if images >= 1e6 else f"{images / 1e3:g} k images"


def _said(row: Mapping[str, object]) -> str:
    """A shape, its distance and where that is from."""
    lines = [f"<b>{safe(str(row['name']))}</b>", f"{row['depth']:.0f} blocks, {row['width']:.0f} wide, "
             f"{row['heads']:.0f} heads", f"{number(row['params'] / 1e6)} M parameters as trained"]  # fmt: skip
    if row["seeds"] > 1:
        lines.append(f"FD {number(row['fd'])}, the mean of {row['seeds']} seeds "
                     f"({number(row['fd_least'])} to {number(row['fd_most'])})")  # fmt: skip
    else:
        lines.append(f"FD {number(row['fd'])}, one training")
    lines.append(f"after {_seen(row['images'])}" + ", on the way" * bool(row["unfinished"]))
    if pd.notna(row.get("teacher_value")):
        lines.append(f"{number(row['fd'] / row['teacher_value'])} times its teacher's")
    return "<br>".join(lines)
