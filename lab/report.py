"""A budget's answer as one HTML file to hand on, which opens offline, asks for nothing and reads on a phone. No torch.

    store = Store()
    Path("report.html").write_text(html(store, recommend(store.table(), store.reports(), Budget(params_m=0.35))))

It says what the pages say, by the functions that they use. Names and notes in a results folder may be anybody's: all
text is escaped, and the file's own policy lets no other script run than plotly and the lines that draw its charts.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import string
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from lab import arms, choose, claims, figures, sheets
from lab.choose import COSTS, METRICS, Recommendation, number
from lab.config import JSON
from lab.results import Run, Store, faults_said, now
from lab.verdicts import ENOUGH, counted

TEMPLATE = Path(__file__).parent / "assets" / "report.html"
ACROSS, DOWN = 5, 4  # images of each network
CHART_PX = 560  # high, as its legend is on a phone
# Plotly is 4.8 MB of text and 1.5 MB packed, which every browser since 2023 unpacks by itself.
DRAW = """
const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), letter => letter.charCodeAt(0));
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
new Response(unpacked).text().then(code => {
  document.head.append(Object.assign(document.createElement("script"), {textContent: code}));
  for (const place of document.querySelectorAll(".chart")) {
    const figure = JSON.parse(place.nextElementSibling.textContent);
    place.textContent = "";
    Plotly.newPlot(place, figure.data, figure.layout, {responsive: true, displayModeBar: false});
  }
});
"""
NOT_DRAWN = "Here is a chart where scripts may run; its figures stand in the table below."

Cell = str | Sequence[str]  # lines: the first is the cell's, the others are small


def html(store: Store, answer: Recommendation, *, commit: str = "") -> str:
    """The whole file; `commit` is that of the code that writes it. Raises LookupError where nothing is measured."""
    if answer.best is None:
        why = " ".join([answer.reason, *answer.left_out])
        raise LookupError(f"there is nothing to report from {store.root}: {why}")
    table, reports = choose.complete(store.table()), store.reports()
    code, packed = _plotly()
    title = escape(choose.sentence(answer))
    body = [
        f"<h1>{title}</h1>",
        *_samples(store, answer),
        *_tradeoff(answer),
        *_answer(answer),
        *_verdicts(store, table),
        *_claims(store, table, reports),
        *_conditions(store, answer, reports),
        _lines([
            faults_said(store.unread()),
            f"The same answer: {choose.command(table, reports, answer.budget)}",
            f"Written {now()} by Edge DiT Lab" + (f", commit {commit}." if commit else "."),
        ]),
    ]  # fmt: skip
    return string.Template(TEMPLATE.read_text()).substitute(
        title=title, body="\n".join(body), script=DRAW, policy=_policy(code, DRAW),
        plotly=packed,
    )  # fmt: skip


@functools.cache
def _plotly() -> tuple[str, str]:
    """Its code, and that packed."""
    code = get_plotlyjs()
    return code, base64.b64encode(gzip.compress(code.encode(), mtime=0)).decode()


def _policy(*scripts: str) -> str:
    """A Content-Security-Policy under which these scripts run, no other one does, and nothing is ever asked for."""
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in scripts]
    # Plotly styles by attributes, makes code for WebGL where points are many, and saves pictures by way of a blob.
    return (f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
            f"script-src {' '.join(hashes)} 'unsafe-eval'")  # fmt: skip


# --- parts --------------------------------------------------------------------------------------


def _shown(answer: Recommendation) -> dict[str, dict[str, JSON]]:
    """The networks that are shown, each once: what it is -> its row."""
    named = {"": answer.teacher, "the pick": answer.pick, "the next": answer.runner_up,
             "the best": answer.best}  # fmt: skip
    found: dict[str, dict[str, JSON]] = {}
    for what, row in named.items():
        if row and row["run"] not in {other["run"] for other in found.values()}:
            found["Its teacher" if row is answer.teacher else f"{row['name']}, {what}"] = row
    return found


def _samples(store: Store, answer: Recommendation) -> Iterator[str]:
    """Images of the pick beside those of its teacher and of its rivals, of the same noises and classes."""
    grids, first = [], None
    for what, row in _shown(answer).items():
        found = sheets.read_samples(store.root / "runs" / row["run"] / "samples.npz")
        first = first or found
        picture = ""
        if found is None:
            said = "It has no sheet of samples."
        elif any(getattr(found, name).tolist() != getattr(first, name).tolist() for name in ("seeds", "classes")):
            said = "Its samples are of other noises or classes."
        else:
            content = base64.b64encode(sheets.png(found.images[: ACROSS * DOWN], ACROSS)).decode()
            picture = f'<img src="data:image/png;base64,{content}" alt="Images by {escape(what)}">'
            said = figures.caption(row).replace("\n", ", ")
        told = f"<strong>{escape(what)}</strong><br>{escape(said)}"
        grids.append(f"<figure>{picture}<figcaption>{told}</figcaption></figure>")
    yield f'<div class="grids">{"".join(grids)}</div>'
    if first is not None:
        seeds = first.seeds[: ACROSS * DOWN]
        yield _lines([f"The same noise and class in each: seeds {seeds[0]} to {seeds[-1]}, row by row, none picked."])


def _tradeoff(answer: Recommendation) -> Iterator[str]:
    """The chart of the first page, and the students of its front in a table."""
    rows, metric = answer.candidates, answer.budget.metric
    x = choose.against(rows)
    yield f"<h2>{escape(METRICS[metric].title)} against {escape(COSTS[x].title.lower())}</h2>"
    yield _chart(figures.recommended(answer).update_layout(height=CHART_PX))
    costs = ("latency_ms", "params_m")
    yield _table(["No other beats", choose.short(metric), *(COSTS[name].title for name in costs)], [
        ((row["name"], row["method"], row["why_not"]),
         _within(row[metric], row[f"{metric}_low"], row[f"{metric}_high"]),
         *("" if pd.isna(row[name]) else COSTS[name].say(row[name]) for name in costs))
        for row in rows[choose.front_of(rows, x, metric)].sort_values(x).to_dict("records")
    ])  # fmt: skip
    yield _lines([choose.SIZES_SAID,
                  figures.conditions(pd.concat([rows, answer.teachers]), answer.left_out, metric)])  # fmt: skip


def _answer(answer: Recommendation) -> Iterator[str]:
    """Why this one, what it loses, how sure that is, and what one step more or less would change."""
    yield "<h2>Why, what it loses, and how sure that is</h2>"
    yield _lines([answer.reason, answer.loses, answer.sure, answer.bend])
    if answer.pick:
        yield _table(["The sentence", "means"], choose.in_short(answer))
    if len(answer.marginal):
        rows = [(f"{row.change} {COSTS[row.limit].title.lower()} to {COSTS[row.limit].say(row.to)} {row.note}".rstrip(),
                 row.name, number(row.value)) for row in answer.marginal.itertuples(index=False)]  # fmt: skip
        yield _table(["If you", "you ship", choose.short(answer.budget.metric)], rows)


def _verdicts(store: Store, table: pd.DataFrame) -> Iterator[str]:
    """Every method that has a plain twin, with its interval; those of too few seeds to decide behind a fold."""
    found = arms.verdicts(table, arms.calibration(store))
    found = found[found["seeds"].gt(0)].sort_values(["compute", "ratio"])
    if found.empty:
        return
    yield "<h2>Does a method help?</h2>"
    decided = found["seeds"].ge(ENOUGH)
    if decided.any():
        yield _verdict_table(found[decided])
    if few := int((~decided).sum()):
        yield f"<details><summary>{few} compared by fewer than {ENOUGH} seeds: a direction, no verdict</summary>"
        yield f"{_verdict_table(found[~decided])}</details>"
    yield _lines([f"Below 1 is better; the small figures are the 95 % interval. {claims.RULE}"])


def _verdict_table(rows: pd.DataFrame) -> str:
    return _table(["Method", "times plain's distance", "verdict"], [
        ((row.method, f"{row.size} on {row.images:,.0f} images, {row.compute}"),
         _within(row.ratio, row.low, row.high), (row.word, counted(row.seeds, row.trained)))
        for row in rows.itertuples()
    ])  # fmt: skip


def _claims(store: Store, table: pd.DataFrame, reports: pd.DataFrame) -> Iterator[str]:
    """What the papers claim, and what these results say of it."""
    yield "<h2>What the papers claim</h2>"
    yield _table(["Claim", "here", ""], [
        ((row["claim"], ", ".join(filter(None, (row["paper"], row["published"], row["reading"])))),
         row["status"], row["ours"] or row["why"])
        for row in claims.table(store, table, reports).to_dict("records")
    ])  # fmt: skip


def _conditions(store: Store, answer: Recommendation, reports: pd.DataFrame) -> Iterator[str]:
    """On what, by which software and from which seeds the figures of the networks shown were made."""
    by_id = reports.drop_duplicates("report_id").set_index("report_id").to_dict("index") if len(reports) else {}
    yield "<h2>How these figures were made</h2>"
    yield _table(["Network", "trained and timed"], [
        ((what, row["run"], f"weights {(row['weights_sha256'] or '')[:12]}"),
         (_trained(Run(store.root / "runs" / row["run"]), row), _timed(row, by_id)))
        for what, row in _shown(answer).items()
    ])  # fmt: skip


def _trained(run: Run, row: dict[str, JSON]) -> str:
    sittings = (run.read("env") or {}).get("sittings") or [{}]
    last = sittings[-1]
    said = [f"Trained from seed {row['seed']:.0f} on {last.get('device', 'an unknown device')}"]
    said += [choose.threads_said(last["threads"])] if last.get("threads") else []
    said += [f"{name} {last[name]}" for name in ("torch", "python") if last.get(name)]
    said += [f"commit {last['commit'][:12]}"] if last.get("commit") else []
    said += [f"{len(sittings)} sittings"] if len(sittings) > 1 else []
    return ", ".join(said) + "."


def _timed(row: dict[str, JSON], reports: dict[str, dict[str, JSON]]) -> str:
    report = reports.get(row.get("report_id"))
    if report is None:
        return ""
    said = [report["device.name"], report["software.os"], f"{report['software.runtime']} "
            f"{report['software.runtime_version']}", f"preset {report['runner.preset']}",
            report["created_utc"]]  # fmt: skip
    return f"Timed ({choose.timing_said(row)}) on {', '.join(said)}."


# --- HTML ---------------------------------------------------------------------------------------


def _lines(sentences: Iterable[str]) -> str:
    return "\n".join(f"<p>{escape(said)}</p>" for said in sentences if said)


def _within(value: float, low: float, high: float) -> Sequence[str]:
    """A figure, and below it its interval where that is known."""
    return (number(value), "" if pd.isna(low) else f"{number(low)} to {number(high)}")


def _table(head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    cells = ["".join(f"<td>{_cell(cell)}</td>" for cell in row) for row in rows]
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    return "\n".join(['<div class="wide"><table>', *(f"<tr>{row}</tr>" for row in [top, *cells]), "</table></div>"])


def _cell(cell: Cell) -> str:
    first, *others = [cell] if isinstance(cell, str) else cell
    return escape(first) + "".join(f"<br><small>{escape(line)}</small>" for line in others if line)


def _chart(figure: go.Figure) -> str:
    content = figure.to_json().replace("<", "\\u003c")  # so that no text in it can end the element
    return f'<div class="chart"><p>{NOT_DRAWN}</p></div><script type="application/json">{content}</script>'
