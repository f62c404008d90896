"""Commands about networks that share out the classes (method class_split): similar, place."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.cli.frame import Answer, Usage, as_usage, command, count_of, get_run, list_of, open_store, positive
from lab.cli.text import table_text

if TYPE_CHECKING:
    from torch import nn

    from lab.data import ImageSpec
    from lab.results import Run

MB = 1e6


def add_similar(commands: Any) -> None:
    made = command(commands, similar, "show which classes a network draws alike, and share them out among experts",
                    "similar 12x64 --experts 4", "similar 12x64 --experts 2 --json", takes="RUN")  # fmt: skip
    made.add("run", metavar="RUN", help="a one-step DiT that is told the class: an id, a start of one or a label")
    made.add("--experts", type=count_of(1), default=4, help="groups of classes, as equal as they go (default 4)")


def similar(args: argparse.Namespace) -> Answer:
    from lab.methods import class_split

    run, net, spec = _network(args)
    with as_usage():
        if why := class_split.why_not_cut("class_split", run.config):
            raise ValueError(f"{run.label}: {why}")
        means = class_split.class_means(net)
        table = class_split.clusters(means, args.experts)
    apart = class_split.apart(means)
    rows = []
    for y, (distances, expert) in enumerate(zip(apart, table)):
        near = [k for k in distances.argsort().tolist() if k != y][:1]
        rows.append({"class": _name(spec, y), "nearest": _name(spec, near[0]) if near else "",
                     "apart": distances[near[0]].item() if near else None, "expert": expert})  # fmt: skip
    option = f"class_split.table={','.join(map(str, table))}"
    value = {"run": run.id, "classes": [_name(spec, y) for y in range(len(table))], "apart": apart.tolist(),
             "table": table, "option": option}  # fmt: skip
    text = (f"{table_text(rows)}\n\napart: distance of mean features, 1 = that of a mean pair of classes\n"
            f"{args.experts} experts of like classes: --method pairs,class_split --option "
            f"class_split.experts={args.experts} --option {option}")  # fmt: skip
    return Answer(value, text)


def add_place(commands: Any) -> None:
    made = command(commands, place, "put the experts of a routed network on devices, each under its card's memory",
                    "place r4d12w40h2x10p4m52 --devices raspberry-pi-5,jetson-orin-nano-7w",
                    "place r4d12w40h2x10p4m52 --devices raspberry-pi-5,raspberry-pi-5 --room-mb 1,1 --out parts",
                    takes="RUN --devices CARDS")  # fmt: skip
    made.add("run", metavar="RUN", help="what class_split joined: an id, a start of one or a label")
    made.add("--devices", type=list_of(str), required=True, metavar="CARDS", help="cards, comma separated; a card may "
             "stand there twice")  # fmt: skip
    made.add("--room-mb", type=list_of(positive), metavar="MB", help="of each device, what the experts may take of it "
             "(default: the memory on its card)")  # fmt: skip
    made.add("--out", metavar="FOLDER", help="write a folder for each device, with its ONNX files")


def place(args: argparse.Namespace) -> Answer:
    from lab.devices.predict import card_of
    from lab.methods import class_split

    store = open_store(args)
    with as_usage():
        cards = [card_of(key, store.root) for key in args.devices]
    room = args.room_mb or tuple(float(card.memory_mb) for card in cards)
    if len(room) != len(cards):
        raise Usage(f"--room-mb names {len(room)} devices, --devices {len(cards)}; give one number for each")
    run, net, spec = _network(args)
    if run.config.family != "routed":
        raise Usage(f"{run.label} is of family {run.config.family} and has no experts to place; method class_split "
                    "makes a routed network of it")  # fmt: skip
    files = class_split.part_files(net, spec)
    sizes = [len(file) / MB for file in files]
    places = class_split.assign(sizes, room, " MB")
    written = class_split.export_parts(net, files, places, Path(args.out)) if args.out else []
    params = [sum(p.numel() for p in expert.parameters()) for expert in net.experts]
    groups = [", ".join(_name(spec, y) for y in group) for group in run.config.groups]
    rows = [{"expert": at, "classes": groups[at], "params": params[at], "mb": sizes[at], "device": device,
             "card": cards[device].title} for at, device in enumerate(places)]  # fmt: skip
    devices = [{"device": at, "card": card.title, "experts": places.count(at), "room_mb": room[at],
                "mb": sum(size for size, device in zip(sizes, places) if device == at)}
               for at, card in enumerate(cards)]  # fmt: skip
    request = {"params": max(params), "mb": max(sizes)}
    total = {"params": sum(params), "mb": sum(sizes)}
    value = {"run": run.id, "experts": rows, "devices": devices, "request": request, "total": total,
             "folders": [str(path) for path in written]}  # fmt: skip
    said = (f"an image asks one expert, at most {request['params']:,} parameters and {request['mb']:.3g} MB; all "
            f"{len(rows)} together have {total['params']:,} and {total['mb']:.3g} MB")  # fmt: skip
    return Answer(value, "\n".join([table_text(rows), "", table_text(devices), "", said, *value["folders"]]))


def _network(args: argparse.Namespace) -> tuple[Run, nn.Module, ImageSpec]:
    from lab.weights import load_student, spec_of_run

    run = get_run(open_store(args), args.run)
    return run, load_student(run), spec_of_run(run)


def _name(spec: ImageSpec, y: int) -> str:
    return spec.class_names[y] if y < len(spec.class_names) else str(y)
