"""The claims of arXiv 2502.14226 and of its neighbours, beside what the results folder says of each. No torch here.

    found = claims.table(Store())
    print(found[["claim", "ours", "status", "why"]])

A status is one of STATUSES; where runs are too few to decide it is "not tested", with what is missing.
"""

from __future__ import annotations

import dataclasses

import pandas as pd

from lab import jobs
from lab.claims import neighbours, paper
from lab.claims.evidence import DIFFERS, HOLDS, OUR_READING, PARTLY, STATUSES, UNTESTED, Claim, Evidence, Finding
from lab.results import Run, Store
from lab.verdicts import ENOUGH, LEVEL, MARGIN_COVS

__all__ = ["CLAIMS", "DIFFERS", "HOLDS", "OUR_READING", "PARTLY", "RULE", "STATUSES", "UNTESTED", "Claim", "Evidence",
           "Finding", "table"]  # fmt: skip
CLAIMS = (*paper.CLAIMS, *neighbours.CLAIMS)
RULE = (
    f"One paired seed tells a direction alone, two to {ENOUGH - 1} a direction and an interval. From {ENOUGH} on there "
    f"is a verdict: it helps or hurts where the paired t test (after Holm) and the sign-flip test both fall under "
    f"{LEVEL:g}; else it makes no difference where the whole change is surely within {MARGIN_COVS:g} times the "
    "spread of plain seeds of its size; else it is open. Seeds that go on from one and the same run count as one "
    "training."
)
COLUMNS = ("name", "paper", "claim", "source", "reading", "published", "status", "ours", "value", "low", "high", "runs",
           "why", "command", "details")  # fmt: skip


def table(store: Store, runs: pd.DataFrame | None = None, reports: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row for each claim, with the columns COLUMNS; `runs` and `reports` where they are read already.

    ours, value, low, high: our figure in words and as a number with its 95 % interval, nan where there is none. runs:
    ids; command: what makes them again, a run a line, or the first of them where there is none. details: rows of what
    stands behind the figure.
    """
    evidence = Evidence(store, runs, reports)
    rows = []
    for claim in CLAIMS:
        plain = {f.name: getattr(claim, f.name) for f in dataclasses.fields(claim)} | {"claim": claim.text}
        found = vars(claim.judge(evidence))
        again = "\n".join(jobs.command(Run(store.root / "runs" / run)) for run in found["runs"])
        rows.append(plain | found | {"command": again or jobs.on(store.root, claim.command)})
    return pd.DataFrame(rows, columns=list(COLUMNS))
