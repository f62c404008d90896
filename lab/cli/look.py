"""Commands that look at shapes and results: count, ls, choose."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lab.cli.frame import (
    FAILED,
    MISSING,
    OK,
    Answer,
    Parser,
    Usage,
    as_usage,
    command,
    count_of,
    get_run,
    image_of,
    image_options,
    list_of,
    open_store,
    positive,
)
from lab.cli.text import RUN_COLUMNS, table_text

if TYPE_CHECKING:
    import pandas as pd

    from lab.choose import Budget, Recommendation
    from lab.results import Store


COUNTED = {"depth": 4, "width": 64, "heads": 4, "patch": 4}  # of a shape where nothing else is said


def add_count(commands: Any) -> None:
    made = command(
        commands,
        count,
        "count parameters, multiply-adds and bytes of a shape, without training",
        "count --depth 4 --width 64 --heads 4 --patch 4",
        "count d4w64h4p4 fashion",
        takes="[RUN ...]",
    )
    made.add("runs", nargs="*", metavar="RUN", help="count the networks of these runs instead")
    for name, default in COUNTED.items():
        made.add(f"--{name}", type=count_of(0), help=f"default {default}")
    made.add("--mlp", type=count_of(1), help="hidden width of the MLP (default 4 x width)")
    image_options(made)
    made.add("--time", action="store_true", help="with timestep parameters (a denoiser)")


def count(args: argparse.Namespace) -> Answer:
    from lab import cost
    from lab.config import DiTConfig

    told = [name for name in (*COUNTED, "mlp", "size", "channels", "classes") if getattr(args, name) is not None]
    if args.runs and (told or args.time):
        raise Usage(f"--{[*told, 'time'][0]} is of a shape, and {args.runs[0]!r} names a run; leave one of them out")
    configs = {name: get_run(open_store(args), name).config for name in args.runs}
    if not configs:
        shape = {k: usual if getattr(args, k) is None else getattr(args, k) for k, usual in COUNTED.items()}
        made = DiTConfig(**shape, **image_of(args), mlp_hidden=args.mlp, time=args.time)
        configs = {made.shape: made}
    for config in configs.values():
        if wrong := config.check():
            raise Usage("; ".join(wrong))
    value = {name: cost.in_bytes(cost.of_config(config)) for name, config in configs.items()}
    rows = [{"net": name, **counted} for name, counted in value.items()]
    return Answer(value if args.runs else next(iter(value.values())), table_text(rows))


def add_ls(commands: Any) -> None:
    made = command(commands, ls, "list runs with their cost and distances",
                    "ls --sort fd", "ls --columns label,params,macs,fd,fd_low,fd_high --csv > runs.csv")  # fmt: skip
    made.add("--columns", type=list_of(str), help=f"comma separated, or `all` (default {','.join(RUN_COLUMNS)})")
    made.add("--sort", metavar="COLUMN", help="smallest first; -COLUMN (as --sort=-params) for largest first")
    made.add("--hidden", action="store_true", help="also runs that were hidden")
    made.add("--csv", action="store_true", help="comma separated values")


def ls(args: argparse.Namespace) -> Answer:
    from lab.choose import names
    from lab.config import unknown
    from lab.results import as_csv

    store = open_store(args)
    table = store.table()
    if table.empty:
        return Answer([], f"no run in {store.root}; start with `python -m lab run --help`")
    table = table.assign(label=names(table))
    table = table if args.hidden else table[~table["hide"]]
    chosen = list(args.columns or RUN_COLUMNS)
    chosen = list(table.columns) if chosen == ["all"] else chosen
    sort = (args.sort or "").removeprefix("-")
    for name in [*chosen, *([sort] if sort else [])]:
        if name not in table:
            raise Usage(unknown("column", name, table.columns))
    if sort:
        key = table[sort].astype(str) if table[sort].dtype == object else table[sort]
        table = table.loc[key.sort_values(ascending=not args.sort.startswith("-"), na_position="last").index]
    table = table[["run", *(c for c in chosen if c != "run")]] if args.json else table[chosen]
    known = table.notna() & table.ne("")
    table = table.convert_dtypes().astype(object).where(known, None)  # whole numbers as such
    rows = table.to_dict("records")
    return Answer(rows, as_csv(table).rstrip("\n") if args.csv else table_text(rows))


# Options of `choose` that are fields of lab.choose.Budget (a test holds them to it), which needs pandas.
BUDGET_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "params_m": (positive, "largest number of parameters of what is shipped, in millions"),
    "latency_ms": (positive, "longest time for one batch, in milliseconds"),
    "memory_mb": (positive, "most memory of the device while it runs, in megabytes, as its reports say it"),
    "file_mb": (positive, "largest file of the weights that are shipped, in megabytes"),
    "macs_m": (positive, "most multiply-adds for one image by what is shipped, in millions"),
    "device": (str, "the device of the timings, as its reports name it (default: that of the most steady timings)"),
    "runtime": (str, "eager, compiled, ...; default: the fastest for each student"),
    "batch": (count_of(1), "batch size of the timings (default 1)"),
    "threads": (count_of(1), "CPU threads of the timings (default: the most common)"),
    "scope": (str, "core (the network alone, default) or e2e (noise to image)"),
    "precision": (str, "float (default), any (int8 and coarser too, with what their images lose), or one by name"),
    "percentile": (str, "p50 (default), p90 or p99"),
    "metric": (str, "what to choose by (default fd)"),
    "protocol": (str, "how the metric was measured (default: the most common)"),
    "method": (str, "students of this method alone, e.g. teaching_assistant, or plain for those without any"),
}


def add_choose(commands: Any) -> None:
    made = command(
        commands,
        choose,
        "name the best student within a budget, with the reason and what it loses, and the best shape to train next",
        "choose --params-m 0.35 --latency-ms 1",
        "choose --latency-ms 2 --batch 16 --percentile p90 --json",
    )
    budget_options(made)


def budget_options(made: Parser) -> None:
    """An option for each field of a budget; `answer_of` reads them."""
    for name, (kind, about) in BUDGET_OPTIONS.items():
        made.add(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=about)
    made.add("--weak", action="store_true", default=None,
             help="also use timings that throttled or are of grade D (for more than variation) or E")  # fmt: skip
    made.add("--estimated", action="store_true", default=None, help="also use estimates, where there is no timing")


def answer_of(args: argparse.Namespace, store: Store) -> Recommendation:
    """What to ship within the budget that is asked for; one that can't be meant is a usage error."""
    from lab.choose import Budget, recommend

    given = {name: getattr(args, name) for name in [*BUDGET_OPTIONS, "weak", "estimated"]}
    with as_usage():
        budget = Budget(**{name: value for name, value in given.items() if value is not None})
        table, reports = store.table(), store.reports()
        _known_names(table, reports, budget)
        return recommend(table, reports, budget)


def _known_names(table: pd.DataFrame, reports: pd.DataFrame, budget: Budget) -> None:
    """Raises ValueError for a device, runtime, method or protocol that nothing in the results folder has."""
    from lab.choose import devices, protocols
    from lab.config import unknown

    known = {"method": [*table["method_short"]], "protocol": [*protocols(table, budget.metric)],
             "device": [*devices(reports), *reports["device.name"]],
             "runtime": ["fastest", *reports["software.runtime"]] if len(reports) else []}  # fmt: skip
    for name, names in known.items():
        given = getattr(budget, name)
        if given is not None and any(names) and given not in names:
            raise ValueError(unknown(name, given, sorted({one for one in names if one})))


def choose(args: argparse.Namespace) -> Answer:
    """The same answer as the page; 1 if nothing fits, 3 if nothing is measured."""
    from lab.results import faults_said

    store = open_store(args)
    found = answer_of(args, store)
    code = OK if found.pick else FAILED if found.best else MISSING
    text = found.text
    if len(found.marginal):
        text += "\n\n" + table_text(found.marginal.drop(columns="run").to_dict("records"))
    untrained, words = _untrained(store, found.budget)
    unread = store.unread()
    value = found.to_json() | {"untrained": untrained, "unread": unread}
    return Answer(value, "\n\n".join(filter(None, [text, words, faults_said(unread)])), code)


def _untrained(store: Store, budget: Budget) -> tuple[dict[str, Any], str]:
    """The best shape that nobody trained, as JSON and as text; where none can be told, why."""
    from lab.principles import suggest

    try:
        found = suggest(store.table(), store.reports(), store, budget)
    except ValueError as error:
        return {"why_not": str(error)}, f"No estimate of a shape to train next: {error}."
    prices = "\n\n" + table_text(found.prices.to_dict("records")) if len(found.prices) else ""
    return found.to_json(), found.text + prices
