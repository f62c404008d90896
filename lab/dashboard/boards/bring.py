"""A report from a board: the way to one in steps with their commands, and its upload."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from lab import choose
from lab.dashboard import frame
from lab.devices import bundle
from lab.devices.incoming import import_contents


def guide(runs: pd.DataFrame) -> None:
    """The way from a student to a report of a board, in steps with their commands."""
    students = runs[runs["state"].eq("done") & runs["family"].eq("dit") & ~runs["time"]] if len(runs) else runs
    run = students["run"].iloc[0] if len(students) else "RUN"
    if students.empty:
        st.markdown("**0. A student to time.** There is none yet; this makes a small one on the embedded digits.")
        frame.show_command(frame.FIRST_RUN)
    st.markdown("**1. Here: pack a student** for the board (jetson, rpi or cpu). The zip holds its networks, the "
                "images that they must draw, and runner.py, which times them.")  # fmt: skip
    frame.show_command(f"python -m lab pack {run} --target jetson --out student.zip")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(
            "lab/dashboard/export.py", label="Make the pack on the page Export", icon=":material/deployed_code:"
        )
        st.download_button("Download runner.py to read it", bundle.bundled, "runner.py", "text/x-python",
                           on_click="ignore", key="get_runner", icon=":material/download:",
                           help="One file of the standard library; it runs inside a pack")  # fmt: skip
    st.markdown("**2. On the board: unpack it and read README.md**, which says how to set power mode and clocks. It "
                "needs Python 3.10 and one of onnxruntime, torch or trtexec, and sends nothing anywhere.")  # fmt: skip
    st.code("unzip student.zip -d student && cd student", language="bash", wrap_lines=True)
    st.markdown("**3. On the board: time it.** A first look takes seconds with --preset quick; grades A and B need "
                "publishable, some minutes on a quiet board.")  # fmt: skip
    st.code("python3 runner.py --preset publishable", language="bash", wrap_lines=True)
    st.markdown("**4. Here again: import the report**, below or in a terminal.")
    frame.show_command("python -m lab import report-*.json")
    st.caption("This machine itself is timed by `python -m lab bench`.")


def bring() -> None:
    """Upload of reports; each is checked, graded and kept, or refused with a sentence."""
    with st.form("bring", clear_on_submit=True):
        st.file_uploader("Reports that runner.py wrote", type="json", accept_multiple_files=True, key="brought")
        st.form_submit_button("Check, grade and keep", on_click=take, icon=":material/upload_file:")
    for kind, lines in st.session_state.get("arrivals", []):
        said = "\n".join([frame.plain(lines[0]), "", *(f"- {frame.plain(line)}" for line in lines[1:])])
        {"error": st.error, "warning": st.warning, "success": st.success}[kind](said)
    st.caption("A report that was throttled, swapped or drew wrong images is kept, graded D with the reason, and no "
               "recommendation rests on it. A report that is here already is no change. Of several files all are kept, "
               "or none.")  # fmt: skip


def take() -> None:
    """Import what was uploaded; what became of each file is shown when the page is drawn again."""
    files = st.session_state.get("brought") or []
    try:
        found = import_contents([(file.name, file.getvalue()) for file in files], frame.store())
    except (OSError, ValueError) as error:
        st.session_state["arrivals"] = [("error", line.split("; ")) for line in str(error).splitlines()]
        return
    said = []
    for arrival in found:
        report, weak = arrival.report, arrival.grade.letter in choose.WEAK
        ms, device = report["timing"]["p50"], report["device"]["name"]
        state = "kept" if arrival.new else "it is here already, nothing changed"
        end = "; left out of recommendations" if arrival.left_out else ""
        whose = f"; it joins {arrival.run}" if arrival.run else "; no run here has these weights, so it joins none yet"
        what = f"{arrival.file}: {ms:g} ms p50 on {device}; {state}{end}{whose}. Grade {arrival.grade.letter}:"
        said.append(("warning" if weak else "success", [what, *arrival.grade.reasons]))
    st.session_state["arrivals"] = said or [("error", ["No file was chosen."])]
