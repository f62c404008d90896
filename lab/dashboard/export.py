"""A file to deploy, and how far its images are from the network's own."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import streamlit as st

from lab import choose, jobs, precisions
from lab.choose import number
from lab.dashboard import frame
from lab.devices import compare
from lab.pack_readme import COREML_NOTE, coreml, trtexec
from lab.results import Run, Stamp, stamp

TITLE = "Export"
ORDER = 60
ICON = ":material/deployed_code:"
URL = "/export"

# Eager and compiled torch have no files.
FORMS = {name: known for name, known in precisions.FORMS.items() if name not in ("eager", "compiled")}
TARGETS = {
    "jetson": "NVIDIA Jetson, by trtexec or torch", "rpi": "Raspberry Pi, by onnxruntime",
    "cpu": "any computer, by onnxruntime or torch",
}  # fmt: skip
GREY_LEVELS = 127.5  # of a distance in [-1, 1]


# --- a command at work --------------------------------------------------------------------------


@st.fragment(run_every="1s")
def wait(log: Path, doing: str) -> None:
    """Until the command of this log has ended; then the page is drawn anew."""
    if not jobs.at_work(log):
        st.rerun(scope="app")
    st.status(f"{doing} It goes on if this page is closed.", state="running")


def begin(words: list[str], log: Path) -> None:
    jobs.begin(words, log, view.store.root)


def make(label: str, words: list[str], log: Path, doing: str, *, first: bool) -> None:
    """A button for a command, or the command while it is at work; what went wrong stands below."""
    if jobs.at_work(log):
        wait(log, doing)
        return
    kind, icon = ("primary", ":material/build:") if first else ("secondary", ":material/refresh:")
    st.button(label, on_click=begin, args=(words, log), type=kind, icon=icon, key=f"make-{log.stem}")
    if wrong := jobs.failed(log):
        st.error(frame.plain(wrong))


# --- the file -----------------------------------------------------------------------------------


def parity(artefact: Mapping[str, Any]) -> None:
    """How far the file's images are from the finished network's, and how large it is."""
    largest, mean = artefact["max_abs"], artefact["mean_abs"]
    cells = [("Largest difference", number(largest), f"{largest * GREY_LEVELS:.2g} of 255"),
             ("Mean difference", number(mean), f"{mean * GREY_LEVELS:.2g} of 255")]  # fmt: skip
    if artefact.get("perceptual") is not None:
        cells.append(("Perceptual distance", number(artefact["perceptual"]), None))
    cells.append(("File", f"{artefact['bytes'] / 1e6:.3f} MB", f"made in {artefact['seconds']:.2g} s"))
    with st.grid(min_column_width=150):
        for title, value, note in cells:
            st.metric(title, value, note, delta_color="off", delta_arrow="off", border=True)
    equal = "No pixel of an 8-bit image can differ by more than one level." if largest * GREY_LEVELS < 1 else (
        "These are not the same images: look at them before you ship them.")  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in artefact["versions"].items())
    st.caption(frame.plain(
        f"{equal} Of {artefact['images']} images on the common noises, against the finished network in float32, values "
        f"in [-1, 1]" + (f"; perceptual by {by}" if (by := artefact.get("perceptual_by")) else "") + ". "
        f"Weights {artefact['weights_sha256'][:12]}, made {artefact['created_utc'][:10]}"
        + (f" with {versions}." if versions else ".") + also(artefact)
    ))  # fmt: skip


def also(artefact: Mapping[str, Any]) -> str:
    """What a file of this kind says more: the operators that it asks for, how much of it is of few bits."""
    opsets = [f"{name} {version}" for name, version in artefact.get("opset", {}).items()]
    said = f" ONNX opset {' and '.join(opsets)}." if opsets else ""
    share = artefact.get("int8_macs")
    said += f" {share:.0%} of the multiply-adds are of 8 bits." if share else ""
    ternary = artefact.get("ternary_weights")
    return said + (f" {ternary:,} weights take two bits each." if ternary else "")


def downloads(folder: Path, files: Mapping[str, Any]) -> None:
    with st.container(horizontal=True):
        for name, known in files.items():
            path = folder / name
            if path.exists():
                st.download_button(f"{name} ({known['bytes'] / 1e6:.3f} MB)", path.read_bytes, name, key=f"get-{path}",
                                   on_click="ignore", icon=":material/download:")  # fmt: skip


@st.cache_data(max_entries=32, show_spinner=False)
def operations(path: str, stamp: Stamp) -> tuple[list[tuple[str, str]], str]:
    """(kind, name) of every operation of a graph, in order; and a sentence where they can't be read."""
    try:
        if path.endswith(".xml"):
            layers = ElementTree.parse(path).getroot().iter("layer")
            plain = [(layer.get("type", ""), layer.get("name", "")) for layer in layers]
            return [(kind, name) for kind, name in plain if kind != "Const"], ""
        import onnx

        nodes = onnx.load(path).graph.node
    except ImportError:
        return [], "The operations of an ONNX file are read with onnx; pip install onnx"
    except Exception as broken:  # a cut file is protobuf's own DecodeError, which is nothing but an Exception
        return [], f"{Path(path).name} can't be read: {broken}"
    return [(f"{n.domain}.{n.op_type}".lstrip("."), n.name) for n in nodes], ""


def graph(folder: Path) -> None:
    """The operations of the file, counted and in order."""
    path = next((folder / name for name in ("model.onnx", "model.xml") if (folder / name).exists()), None)
    if path is None:
        return
    found, wrong = operations(str(path), stamp(path))
    if wrong:
        st.info(frame.plain(wrong))
        return
    counts = Counter(kind for kind, _ in found)
    with st.expander(f"The graph: {len(found)} operations of {len(counts)} kinds"):
        st.markdown(", ".join(f"{frame.plain(kind)} {n}" for kind, n in counts.most_common()))
        table = pd.DataFrame(found, columns=["operation", "name"])
        st.dataframe(table, key="operations", height=300, alt="Every operation in order")


def folded(run: Run, artefact: Mapping[str, Any] | None) -> None:
    """What deployment takes away: parameters, multiply-adds and bytes, as trained and as folded."""
    cost = run.read("cost")
    if not isinstance(cost, dict):
        return
    rows = []
    for title, name, scale, unit in [("Parameters", "params", 1e6, "M"), ("Multiply-adds per image", "macs", 1e6, "M"),
                                     ("File in half precision", "file_mb", 1, "MB")]:  # fmt: skip
        trained, deployed = cost.get(name), cost.get(f"{name}_deployed")
        if trained and deployed:
            rows.append((title, f"{number(trained / scale)} {unit}", f"{number(deployed / scale)} {unit}",
                         f"{1 - deployed / trained:.0%} less"))  # fmt: skip
    if artefact:
        rows.append(("This file", "", f"{number(artefact['bytes'] / 1e6)} MB", ""))
    if rows:
        st.subheader("What folding takes away", anchor=False)
        frame.small_table(["", "as trained", "as deployed", ""], rows)
        st.caption("A one-step student's conditioning depends on the class alone: it is folded into a table of rows, "
                   "and the embeddings and adaLN layers are gone. The images stay the same to 1e-5.")  # fmt: skip


def known_times(run: Run, runtime: str, precision: str) -> None:
    """What is known of this form's speed, and the command that finds out."""
    st.subheader("How fast is it?", anchor=False)
    if runtime == "torch-export":
        st.caption("A program to hand on is not run here: time what was made of it, where it runs.")
        return
    rows = compare.named(view.reports, frame.all_runs())
    rows = compare.at(rows, run=run.id, software__runtime=runtime, model__precision=precision) if len(rows) else rows
    if len(rows):
        rows = compare.best(rows, ["device", "workload.batch", "state.threads", "workload.scope"]).head(8)
        known = []
        for row in rows.to_dict("records"):
            said = [row["device"], f"batch {row['workload.batch']:.0f}", row["workload.scope"]]
            if pd.notna(row["state.threads"]):
                said.insert(2, choose.threads_said(row["state.threads"]))
            guess = " estimated" if choose.is_estimate(row) else ""
            known.append((", ".join(said), number(row["timing.p50"]) + guess, row["grade"]))
        frame.small_table(["Timed on", "p50 ms", "grade"], known)
    else:
        st.caption("It was not timed yet. On this machine:")
    command = f"python -m lab bench {run.id} --runtime {runtime} --precision {precision}"
    frame.show_command(command)


# --- how to use it ------------------------------------------------------------------------------


def python_code(runtime: str, precision: str, shape: tuple[int, int, int], classes: bool) -> str:
    """A file of this runtime opened and run, without the lab."""
    z = f"z = np.random.default_rng(0).standard_normal((1, {', '.join(map(str, shape))}), dtype=np.float32)"
    inputs = '{"z": z, "y": np.array([0], np.int64)}' if classes else '{"z": z}'
    how = {
        "onnxruntime": ("import onnxruntime",
                        'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])',
                        f"(image,) = session.run(None, {inputs})"),
        "openvino": ("import openvino",
                     f'settings = {{"INFERENCE_PRECISION_HINT": "{precisions.HINTS.get(precision)}"}}\n'
                     'network = openvino.Core().compile_model("model.xml", "CPU", settings)',
                     f'image = network({inputs})["image"]'),
    }  # fmt: skip
    package, opened, ran = how[runtime]
    return "\n".join(["import numpy as np", package, "", opened, z, f"{ran}  # (1, C, H, W), about [-1, 1]"])


def usage(run: Run, runtime: str, precision: str, shape: tuple[int, int, int], classes: bool) -> None:
    """Ready commands for the file."""
    st.subheader("Use it", anchor=False)
    if runtime == "torch-export":
        z = f"torch.randn(1, {', '.join(map(str, shape))})"
        st.code('import torch\n\nnetwork = torch.export.load("model.pt2").module()  # load no strangers\' files\n'
                f"image = network({z}{', torch.tensor([0])' if classes else ''})", language="python")  # fmt: skip
        st.markdown(f"For iPhone and Mac, by Core ML Tools. {COREML_NOTE}")
        st.code(coreml(shape, classes=classes), language="python", wrap_lines=True)
        return
    if runtime == "packed":
        st.code("import lab\n\nfrom lab import runtimes\n\n"
                f'packed = runtimes.get("packed")\nsession = packed.open(packed.export(lab.load("{run.id}").run))',
                language="python")  # fmt: skip
        return
    st.code(python_code(runtime, precision, shape, classes), language="python", wrap_lines=True)
    if runtime == "openvino":
        sizes, hint = f"z[1,{','.join(map(str, shape))}]" + ",y[1]" * classes, precisions.HINTS[precision]
        st.markdown("Timed by OpenVINO's own tool:")
        st.code(f"benchmark_app -m model.xml -d CPU -hint latency -nstreams 1 -infer_precision {hint} "
                f'-shape "{sizes}"', language="bash", wrap_lines=True)  # fmt: skip
    else:
        st.caption("A file for ONNX Runtime may hold operators that it alone has. For TensorRT take the files of the "
                   "device pack.")  # fmt: skip


def device_pack(run: Run, shape: tuple[int, int, int], classes: bool) -> None:
    """The zip for a board: made here, downloaded, and what to type there."""
    st.subheader("Device pack", anchor=False)
    target = st.segmented_control("For", list(TARGETS), default="jetson", required=True, key="target",
                                  bind="query-params")  # fmt: skip
    st.caption(f"{target}: {TARGETS[target]}. Networks, noises and images to compare with, checksums, runner.py and a "
               "README; it needs nothing of the lab.")  # fmt: skip
    weights = run.read("student")["weights_sha256"]
    # The weights are in the name, so that a zip of other ones is not taken for theirs.
    path = run.path.resolve() / "export" / f"{run.id}-{weights[:8]}-{target}.zip"
    words = ["pack", run.id, "--target", target, "--out", str(path)]
    make("Make it again" if path.exists() else "Make the pack", words, path.with_suffix(".log"), "Packing.",
         first=not path.exists())  # fmt: skip
    if path.exists() and not jobs.at_work(path.with_suffix(".log")):
        label = f"Download the pack ({path.stat().st_size / 1e6:.2f} MB)"
        st.download_button(label, path.read_bytes, path.name, "application/zip", on_click="ignore",
                           icon=":material/download:", key="get_pack")  # fmt: skip
        files = packed_files(str(path), stamp(path))
        st.caption(frame.plain(f"In it: {', '.join(files)}."))
    frame.show_command(f"python -m lab pack {run.id} --target {target} --out student.zip")
    st.markdown("On the board:")
    st.code("unzip student.zip -d student && cd student && python3 runner.py --preset publishable", language="bash",
            wrap_lines=True)  # fmt: skip
    if target == "jetson":
        ten, eleven = trtexec("model-fp16.onnx", shape, classes=classes)
        st.markdown("Or by TensorRT itself. The precision stands in the file, so one file serves both versions:")
        lines = ["# TensorRT 10.x (JetPack 6 and 7)", ten, "# 11.x: typing is always strong, the flag is gone", eleven]
        st.code("\n".join(lines), language="bash", wrap_lines=True)
    st.markdown("And the report it wrote, here again (or on the page Devices):")
    frame.show_command("python -m lab import report-*.json")


@st.cache_data(max_entries=16, show_spinner=False)
def packed_files(path: str, stamp: Stamp) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return ["nothing that can be read; make it again"]


# --- the page -----------------------------------------------------------------------------------


def students(runs: pd.DataFrame) -> dict[str, str]:
    """Name -> run of every finished one-step student with weights here, pinned ones first, then by FD."""
    if runs.empty:
        return {}
    able = runs[runs["state"].eq("done") & runs["family"].eq("dit") & ~runs["time"]]
    able = able.sort_values(["pin", "fd"], ascending=[False, True], kind="stable")
    whole = [(view.store.root / "runs" / run / "student.safetensors").exists() for run in able["run"]]
    return dict(zip(able["name"][whole], able["run"][whole]))


def shape_of(run: Run) -> tuple[tuple[int, int, int], bool]:
    """(C, H, W) and whether it wants a class."""
    net = run.config
    return (net.channels, net.image_size, net.image_size), net.num_classes > 0


view = frame.view()
st.title("A file to deploy, and proof that it is equal", anchor=False)
names = students(view.runs)
if not names:
    frame.empty("No finished one-step student to export yet. This makes a small one on the embedded digits:",
                frame.FIRST_RUN)  # fmt: skip
with st.container(border=True), st.grid(3, min_column_width=150):
    name = st.selectbox("Student", list(names), key="export_student", bind="query-params")
    runtime = st.selectbox("Runtime", list(FORMS), key="export_runtime", bind="query-params")
    # One key for each runtime: their precisions differ.
    precision = st.selectbox("Precision", FORMS[runtime], key=f"export_{runtime}", bind="query-params")
run = Run(view.store.root / "runs" / names[name])
shape, classes = shape_of(run)

st.subheader(f"{frame.plain(name)} for {runtime}, {precision}", anchor=False)
st.caption(f"{precisions.PRECISIONS[precision].said.capitalize()}.")
folder = run.path.resolve() / "export" / f"{runtime}-{precision}"
artefact = run.artefacts().get((runtime, precision))
there = artefact is not None and all((folder / file).exists() for file in artefact["files"])
words = ["export", run.id, "--runtime", runtime, "--precision", precision]
if artefact:
    parity(artefact)
if there:
    downloads(folder, artefact["files"])
elif artefact:
    st.info("The file itself is not here, only what was found when it was made: files are not kept with the results.")
label, forced = ("Make it again", ["--force"]) if there else ("Make the file", [])
make(label, [*words, *forced], folder.with_name(f"{folder.name}.log"), "Making the file and drawing images with it.",
     first=not there)  # fmt: skip
frame.show_command(command := f"python -m lab {' '.join(words)}")
frame.footer(pd.DataFrame(run.artefacts().values()), command, "export")
if there:
    graph(folder)
left, right = st.columns(2, gap="large")
with left:
    folded(run, artefact)
with right:
    known_times(run, runtime, precision)
usage(run, runtime, precision, shape, classes)
device_pack(run, shape, classes)
