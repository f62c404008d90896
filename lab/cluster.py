"""Runs as tasks of a Ray cluster; the only place in the lab that knows of Ray.

A run folder comes back from a node as a tar in memory, and is put into the results whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lab import experiment
from lab.config import Recipe
from lab.results import ID, Run, Store
from lab.sweep import Entry, is_done

RETRIES = 3  # of a task whose node has died
LEFT_BEHIND = ("lock", "process.log", "process.pid", "export")  # of a run folder that travels


@dataclass(frozen=True)
class Sent:
    """What a task gives back: the state of its run, what went wrong, and the run's folder as a tar."""

    state: str
    why: str
    packed: bytes


@dataclass(frozen=True)
class Orders:
    """How runs are done on a node."""

    device: str = "auto"
    threads: int = 1
    compile: bool | None = None
    measure: bool = True
    shared: str = ""  # a results folder that every node sees, whose pairs are read; "": pairs are made on the node
    commit: str = ""  # of the code that was sent


class OnRay:
    """Runs as tasks of a Ray cluster: each in a results folder of its own, which comes back as bytes.

    What a run needs travels with it: its teacher, guide and starts, and what there is of it so far. An earlier stage
    is a task of its own whose result the later ones take, so Ray orders them. A task whose node dies is begun again
    elsewhere. Where the sweep is stopped, what runs at work have done may be lost; those that have come back are here.
    """

    def __init__(self, store: Store, *, address: str | None = None, cpus: int = 1, orders: Orders = Orders(),
                 search: bool = False, at_once: int = 0) -> None:  # fmt: skip
        import ray

        self.ray, self.store = ray, store
        self.mine = not ray.is_initialized()
        if self.mine:
            code = {"py_modules": [str(Path(__file__).parent)]}  # nodes have torch, but not this version of the lab
            ray.init(address=address, runtime_env=code, log_to_driver=False, logging_level="warning")
        room = int(ray.cluster_resources().get("CPU", 1) // cpus) or 1
        self.at_once = at_once or (room if search else sys.maxsize)  # a search learns from those that have ended
        self.orders = ray.put(dataclasses.replace(orders, threads=cpus, commit=orders.commit or experiment.commit()))
        self.task = ray.remote(num_cpus=cpus, max_retries=RETRIES)(on_node)
        self.tasks: dict[str, Any] = {}  # run -> what its task will give
        self.kits: dict[tuple[str, ...], Any] = {}
        self.stopped = False

    def submit(self, entry: Entry, stages: Sequence[Recipe]) -> Future[str]:
        todo = [stage for stage in stages if not is_done(self.store, stage.id)]
        earlier = []
        for stage in todo:
            if stage.id not in self.tasks:
                kit = self._kit(stage, {s.id for s in todo} - {stage.id})
                self.tasks[stage.id] = self.task.remote(stage.to_json(), self.orders, kit, *earlier)
            earlier.append(self.tasks[stage.id])
        futures = [task.future() for task in earlier]
        return _joined(futures, self._receive)

    def _kit(self, recipe: Recipe, besides: set[str]) -> Any:
        """The folders that a run reads, packed once for all that read the same."""
        names = [recipe.teacher, getattr(recipe, "guide", None), *recipe.start, recipe.id]
        ids = []
        for name in filter(None, names):
            with contextlib.suppress(LookupError):  # a pipeline, or a stage that comes from another task
                ids.append(self.store.get(name).id)
        needed = tuple(sorted(set(ids) - besides))
        if needed not in self.kits:
            self.kits[needed] = self.ray.put(pack([self.store.root / "runs" / i for i in needed]))
        return self.kits[needed]

    def _receive(self, sent: Sent) -> str:
        if sent.packed:
            unpack(sent.packed, self.store.root / "runs")
        return sent.why

    def progress(self) -> float:
        return 0.0

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            for task in self.tasks.values():
                self.ray.cancel(task)

    def close(self) -> None:
        if self.mine:
            self.ray.shutdown()


def _joined(futures: Sequence[Future[Sent]], receive: Callable[[Sent], str]) -> Future[str]:
    """One future for several: done when all are, with what the last one's `receive` said."""
    joined: Future[str] = Future()
    left, lock, said = len(futures), threading.Lock(), {}

    def on_end(index: int, future: Future[Sent]) -> None:
        nonlocal left
        try:
            why = receive(future.result())
        except BaseException as error:
            found = getattr(error, "cause", None) or error  # Ray wraps what a task raised in its own words
            why = f"{type(found).__name__}: {found}".split("\n")[0]
        with lock:
            said[index] = why
            left -= 1
            if not left:
                joined.set_result(next((said[i] for i in sorted(said) if said[i]), ""))

    for index, future in enumerate(futures):
        future.add_done_callback(lambda f, index=index: on_end(index, f))
    return joined


def on_node(text: str, orders: Orders, kit: bytes, *earlier: Sent) -> Sent:
    """Do one run in a results folder that lives as long as this; what it came to, packed."""
    recipe = Recipe.from_json(text)
    if lost := next((sent for sent in earlier if sent.state != "done"), None):
        return Sent("failed", f"an earlier run of its plan ended: {lost.why}", b"")
    with tempfile.TemporaryDirectory(prefix="lab-sweep-") as folder:
        store = Store(folder)
        for packed in [kit, *(sent.packed for sent in earlier)]:
            unpack(packed, store.root / "runs")
        _share_caches(store.root, orders.shared)
        compute, why = experiment.Compute(device=orders.device, threads=orders.threads, compile=orders.compile), ""
        try:
            experiment.run(recipe, store, compute=compute, measure=orders.measure)
        except (Exception, KeyboardInterrupt) as error:  # its sentence goes back, and the folder with the traceback
            why = f"{type(error).__name__}: {error}"
        run = Run(store.root / "runs" / recipe.id)
        if not run.path.exists():
            return Sent("failed", why, b"")
        if isinstance(env := run.read("env"), dict):
            run.write("env", {"sittings": [s | {"commit": s["commit"] or orders.commit} for s in env["sittings"]]})
        return Sent(run.said().state, why, pack([run.path]))


def _share_caches(root: Path, shared: str) -> None:
    """Pairs, and what figures are measured against, are of use to the next run on this node."""
    kept = Path(tempfile.gettempdir()) / f"lab-node-{os.getuid()}"
    if shared and not Path(shared, "pairs").is_dir():
        raise LookupError(f"there is no folder {shared}/pairs on this node")
    for name in ("pairs", ".cache"):
        target = Path(shared, name) if shared and name == "pairs" else kept / name
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        (root / name).symlink_to(target.resolve(), target_is_directory=True)


def pack(folders: Sequence[Path]) -> bytes:
    """Run folders as a tar in memory, without locks, logs of processes and exports."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                inner = path.relative_to(folder)
                if path.is_file() and not path.is_symlink() and inner.parts[0] not in LEFT_BEHIND:
                    if path.suffix != ".tmp":
                        tar.add(path, f"{folder.name}/{inner.as_posix()}", recursive=False)
    return buffer.getvalue()


def unpack(packed: bytes, folder: Path) -> list[str]:
    """Put the run folders of a tar into `folder`, each whole or not at all, in place of an unfinished one.

    Gives their ids. Raises ValueError for anything but plain files under an id, before the folder has changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".arriving-") as part:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            for member in tar:
                _check_member(member)
                path = Path(part, member.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())
        names = sorted(os.listdir(part))
        for name in names:
            if Run(folder / name).said().state == "done":
                continue
            if (folder / name).exists():
                os.replace(folder / name, Path(part, f".before-{name}"))
            os.replace(Path(part, name), folder / name)
    return names


def _check_member(member: tarfile.TarInfo) -> None:
    """Raises ValueError for a link, a device, or a name that leads out of its run's folder."""
    path = PurePosixPath(member.name)
    inside = len(path.parts) > 1 and ID.fullmatch(path.parts[0]) and ".." not in path.parts and "\\" not in member.name
    if not member.isfile() or not inside:
        raise ValueError(f"{member.name!r} is no plain file of a run's folder; nothing of it was taken")
