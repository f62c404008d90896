"""Time this machine for real: reports for every committed student, and where their time goes. Each step goes on.

    python benchmarks/measure.py --dry-run                # what there is to do, and about how long it takes
    python benchmarks/measure.py                          # on a quiet machine; give it again after a stop
    python benchmarks/measure.py --steps forms,blocks --batch 1 --threads 1 --seconds 0.1   # a look only

forms     students on the front and the teacher: every batch, number of threads, runtime and precision; quick
best      of each of those networks, one image at a time, the fastest form and number of threads whose images are
          right, in floating point and, where it is faster, in a coarse precision; publishable (--best-batch for more)
others    all other committed students by the two runtimes that were fastest in float32; quick
blocks    every student part by part beside what the machine allows (results/devices/blocks)
inside    students on the front part by part, as onnxruntime and OpenVINO tell it (results/devices/blocks, too)
predict   how well the roofline foretells students that it was not fitted on (results/benchmarks/predict.json)

What has a report of this machine under the same conditions is not timed again. Precisions without instructions on this
machine are left out with a sentence.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import predict as held_out
from networks import front, one_step, teachers
from tqdm.auto import tqdm

from lab import bench, choose, runtimes
from lab.devices import predict, report, runner
from lab.devices.runner import Preset
from lab.results import Run, Store

STEPS = ("forms", "best", "others", "blocks", "inside", "predict")
INSIDE = [(name, precision) for name in ("onnxruntime", "openvino") for precision in ("fp32", "int8")]
BLOCK_BATCHES = (1, 16)
SLOW_ON_CPUS = ("fp16",)  # no CPU here computes in it: a runtime widens every number first
ABOUT_S = {"quick": 10.0, "compiled": 45.0, "teacher": 60.0, "publishable": 240.0, "blocks": 3.0}
# A teacher's image is all its evaluations: a hundred of its larger batches take a quarter of an hour.
SLOW = Preset(iters=10, seconds=5.0, warmup_iters=2)
SLOW_FROM = 16  # images at once
TRIES = 3  # of a timing that comes out unstable


@dataclass(frozen=True)
class Form:
    """How a network is run."""

    runtime: str
    precision: str

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


@dataclass(frozen=True)
class Job:
    """One timing that is wanted."""

    run: Run
    form: Form
    batch: int
    threads: int
    preset: Preset


class Left:
    """Sentences on what can't be timed, each said once."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def add(self, why: str) -> None:
        if why not in self.said:
            self.said.append(why)
            tqdm.write(f"left out: {why}")


# --- what there is to time ----------------------------------------------------------------------


def forms(store: Store, threads: Iterable[int], left: Left, *, measure: bool = True) -> list[Form]:
    """Every runtime that is here with the precisions that this machine has instructions for.

    `measure`: what the machine can do is measured where no card says it.
    """
    slow: dict[str, str] = {}
    for count in threads:
        if card := bench.card_here(store, count) if measure else bench.known_card(store, count):
            slow |= bench.slow_precisions(card)
    found = []
    for name, runtime in runtimes.RUNTIMES.items():
        if why := runtime.missing():
            left.add(why)
            continue
        if name == "packed":
            continue  # for ternary networks, of which none is committed
        found += [Form(name, p) for p in runtime.precisions if p not in slow and p not in SLOW_ON_CPUS]
    for why in slow.values():
        left.add(why)
    return found


def every_form(store: Store, found: list[Form], args: argparse.Namespace, preset: Preset) -> Iterator[Job]:
    for batch in args.batch:
        for threads in args.threads:
            for run in [*front(store), *teachers(store)]:
                slow = run.recipe.student.time and batch >= SLOW_FROM and preset == runner.PRESETS["quick"]
                yield from (Job(run, form, batch, threads, SLOW if slow else preset) for form in found)


def best_forms(store: Store, args: argparse.Namespace, preset: Preset) -> Iterator[Job]:
    """The fastest right way to run each network in floating point, then, where it is faster still, in a coarse one."""
    reports, coarse = here(store.reports()), []
    for batch in args.best_batch:
        for run in [*front(store), *teachers(store)]:
            times = {(f, n): ms for n in args.threads for f, ms in times_of(reports, run, batch, n).items()}
            exact = [way for way in times if way[0].precision in choose.FLOATING]
            ways = dict.fromkeys(min(ways, key=times.__getitem__) for ways in (exact, times) if ways)
            jobs = [Job(run, form, batch, threads, preset) for form, threads in ways]
            yield from jobs[:1]
            coarse += jobs[1:]
    yield from coarse


def other_students(store: Store, args: argparse.Namespace, preset: Preset) -> Iterator[Job]:
    first = {run.id for run in front(store)}
    found = [Form(name, "fp32") for name in two_fastest(store, args.threads)]
    for batch in args.batch:
        for threads in args.threads:
            for run in one_step(store):
                if run.id not in first:
                    yield from (Job(run, form, batch, threads, preset) for form in found)


def own(reports: pd.DataFrame) -> pd.DataFrame:
    """The lab's own reports of this machine."""
    if reports.empty:
        return reports
    mine = (reports["device.name"] == runner.HERE.device()["name"]) & (reports["provenance"] == "measured")
    return reports[mine & (reports["workload.scope"] == "core")]


def here(reports: pd.DataFrame) -> pd.DataFrame:
    """The lab's own reports of this machine whose images are right."""
    mine = own(reports)
    return mine if mine.empty else mine[mine["checks.output_ok"] == True]  # noqa: E712


def times_of(reports: pd.DataFrame, run: Run, batch: int, threads: int) -> dict[Form, float]:
    """Milliseconds of a run by form under these conditions, of the quick reports: the best graded, the newest of those.

    Quick ones alone, so that a publishable one that is there already changes no choice when the command is given again.
    """
    if reports.empty:
        return {}
    mine = reports[(reports["model.weights_sha256"] == run.read("student")["weights_sha256"])
                   & (reports["workload.batch"] == batch) & (reports["state.threads"] == threads)
                   & (reports["runner.preset"] != "publishable")]  # fmt: skip
    worst_first = mine.sort_values("created_utc").sort_values("grade", ascending=False, kind="stable")
    return {Form(row["software.runtime"], row["model.precision"]): row["timing.p50"]
            for row in worst_first.to_dict("records")}  # fmt: skip


def two_fastest(store: Store, threads: Iterable[int]) -> list[str]:
    """The two runtimes with the lowest median time in float32, each student's times taken relative to its best."""
    reports, shares = here(store.reports()), {}
    for count in threads:
        for run in front(store):
            times = {f.runtime: ms for f, ms in times_of(reports, run, 1, count).items() if f.precision == "fp32"}
            for name, ms in times.items():
                shares.setdefault(name, []).append(ms / min(times.values()))
    return sorted(shares, key=lambda name: statistics.median(shares[name]))[:2]


# --- doing it -----------------------------------------------------------------------------------


def do(jobs: list[Job], store: Store, title: str, left: Left) -> None:
    """Time what has no report yet, then, round by round, what came out unstable: a neighbour's load on a shared machine
    lasts for seconds or minutes, so that the same timing at once would fare no better.

    Raises Refused where a publishable timing finds no quiet.
    """
    grades: dict[str, int] = {}
    for tries in range(1, TRIES + 1):
        with tqdm(jobs, desc=title if tries == 1 else f"{title}, round {tries}", unit="timings") as bar:
            for job in bar:
                if runtimes.RUNTIMES[job.form.runtime].why_not(job.run.config, job.form.precision):
                    continue
                known = of_form(store.reports(), job)
                if wrong(known):
                    left.add(f"{job.form} of {job.run.label}: its images are wrong, so that one timing is enough")
                if wrong(known) or settled(known, job, tries):
                    continue
                bar.set_postfix_str(f"{job.run.label[-24:]} {job.form} b{job.batch} t{job.threads}")
                try:
                    for new in bench.sweep([job.run], store, runtimes=[job.form.runtime], batches=[job.batch],
                                           precisions=[job.form.precision], threads=[job.threads], preset=job.preset,
                                           force=tries > 1):  # fmt: skip
                        letter = report.grade(new).letter
                        grades[letter] = grades.get(letter, 0) + 1
                except runner.Refused:
                    raise
                except Exception as error:  # a runtime's own kinds too: hours of other timings are still to come
                    said = next(iter(str(error).splitlines()), "")
                    left.add(f"{job.form} of {job.run.label}: {type(error).__name__}: {said}")
    print(f"{title}: " + (", ".join(f"{n} of grade {g}" for g, n in sorted(grades.items())) or "nothing new"))


def of_form(reports: pd.DataFrame, job: Job) -> pd.DataFrame:
    """This machine's own reports of the job's weights in its form, of any batch, threads and preset."""
    mine = own(reports)
    if mine.empty:
        return mine
    return mine[(mine["model.weights_sha256"] == job.run.read("student")["weights_sha256"])
                & (mine["software.runtime"] == job.form.runtime)
                & (mine["model.precision"] == job.form.precision)]  # fmt: skip


def wrong(known: pd.DataFrame) -> bool:
    """Whether a form draws wrong images: at no batch will it ever be used."""
    return not known.empty and bool((known["checks.output_ok"] == False).any())  # noqa: E712


def settled(known: pd.DataFrame, job: Job, tries: int) -> bool:
    """Whether a job needs no timing in this round: a steady one is there, or as many as rounds."""
    if known.empty:
        return False
    mine = known[(known["workload.batch"] == job.batch) & (known["state.threads"] == job.threads)
                 & (known["runner.preset"] == job.preset.known_as)]  # fmt: skip
    allowed = 1 if job.preset.name == "publishable" else tries  # three minutes each, whatever they say
    return len(mine) >= allowed or bool(mine["grade"].isin(predict.TRUSTED).any())


def blocks(store: Store, args: argparse.Namespace) -> list[tuple[Run, int, int]]:
    return [(run, batch, threads) for batch in args.block_batch for threads in args.threads for run in one_step(store)]


def inside(store: Store, args: argparse.Namespace, left: Left, calls: int, *, quiet: bool = True) -> None:
    """Parts of the students on the front by each runtime's own account."""
    jobs = list(itertools.product(front(store), args.block_batch, args.threads, INSIDE))
    for run, batch, threads, (name, precision) in tqdm(jobs, desc="inside", unit="forms"):
        if why := runtimes.RUNTIMES[name].missing():
            left.add(why)
            continue
        if quiet:
            wait()
        bench.keep_blocks(run, store, runtime=name, precision=precision, batch=batch, threads=threads, calls=calls)


def wait() -> None:
    """Until the last timing's own load has gone; raises Refused where that is not all of it."""
    if not runner.wait_until_quiet():
        raise runner.Refused("the machine is busy, so that no times would be kept")


def predicted(store: Store, out: Path) -> None:
    """The same as benchmarks/predict.py."""
    try:
        held_out.measured(store, out)
    except LookupError as error:
        print(error)


def say_plan(store: Store, args: argparse.Namespace, found: list[Form]) -> None:
    front_, all_ = [*front(store), *teachers(store)], one_step(store)
    cells = len(args.batch) * len(args.threads)
    compiled = sum(form.runtime == "compiled" for form in found)
    large = sum(batch >= SLOW_FROM for batch in args.batch) * len(args.threads)
    forms_s = cells * len(front_) * (compiled * ABOUT_S["compiled"] + (len(found) - compiled) * ABOUT_S["quick"])
    forms_s += len(teachers(store)) * large * 2 * ABOUT_S["teacher"]  # eager and compiled: it has no file
    kept = len(store.reports())
    rest = len(all_) - len(front(store))
    print(f"{len(all_)} students, {len(front_)} networks on the front with their teachers, {len(found)} forms: "
          f"{', '.join(map(str, found))}; {kept} reports are there")  # fmt: skip
    best, others, parts = 2 * len(front_) * len(args.best_batch), 2 * rest * cells, len(blocks(store, args))
    plan = {"forms": (len(front_) * cells * len(found), forms_s), "best": (best, best * ABOUT_S["publishable"]),
            "others": (others, others * ABOUT_S["quick"]), "blocks": (parts, parts * ABOUT_S["blocks"])}  # fmt: skip
    for name in args.steps:
        if name in plan:
            count, seconds = plan[name]
            print(f"{name}: at most {count} timings, about {seconds / 60:.0f} minutes")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--results", help="results folder")
    made.add_argument("--steps", type=lambda text: text.split(","), default=list(STEPS), help="comma separated")
    made.add_argument("--batch", type=numbers, default=[1, 16, 64])
    made.add_argument("--best-batch", type=numbers, default=[1])
    made.add_argument("--block-batch", type=numbers, default=list(BLOCK_BATCHES))
    made.add_argument("--threads", type=numbers, default=[1, 2])
    made.add_argument("--seconds", type=float, help="of each timing, instead of the presets': for a look only")
    made.add_argument("--out", type=Path, default=Path("results/benchmarks/predict.json"), help="of step predict")
    made.add_argument("--dry-run", action="store_true", help="say what there is to do")
    args = made.parse_args()
    if unknown := [step for step in args.steps if step not in STEPS]:
        made.error(f"unknown step {unknown[0]!r}; known: {', '.join(STEPS)}")
    store, left, s = Store(args.results), Left(), args.seconds
    brief = None if s is None else Preset(iters=3, seconds=s, warmup_iters=2, warmup_s=min(s, 3.0), warmup_cap_s=2 * s)
    quick, publishable = (brief or runner.PRESETS[name] for name in ("quick", "publishable"))
    found = forms(store, args.threads, left, measure=not args.dry_run)
    say_plan(store, args, found)
    if args.dry_run:
        return 0
    wanted = {"forms": lambda: every_form(store, found, args, quick),
              "best": lambda: best_forms(store, args, publishable),
              "others": lambda: other_students(store, args, quick)}  # fmt: skip
    for step in args.steps:
        try:
            if step in wanted:
                do(list(wanted[step]()), store, step, left)
            elif step == "blocks":
                for run, batch, threads in tqdm(blocks(store, args), desc=step, unit="students"):
                    if s is None:
                        wait()
                    bench.keep_blocks(run, store, batch=batch, threads=threads, calls=200 if s is None else 3)
            elif step == "inside":
                inside(store, args, left, calls=200 if s is None else 3, quiet=s is None)
            else:
                predicted(store, args.out)
        except runner.Refused as error:
            print(f"{step}: {error}; give the same command again then", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
