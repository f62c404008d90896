"""Figures in a sentence that say what they mean when one points at them, taps on them, or comes to them by Tab."""

from __future__ import annotations

import html
from collections.abc import Sequence

import streamlit as st

from lab.choose import Figure

# The box stands below the whole sentence, not at the figure: at the right edge of a phone it would be cut off.
_STYLE = """<style>
.figures { position: relative; font-size: 1.2rem; line-height: 1.5; }
.figures abbr { text-decoration: underline dotted; text-underline-offset: 0.25em; cursor: help; outline-offset: 2px; }
.figures [role=tooltip] { display: none; position: absolute; left: 0; top: 100%; z-index: 10; max-width: 34rem;
  font-size: 0.85rem; line-height: 1.4; padding: 0.5rem 0.7rem; border-radius: 0.4rem; border: 1px solid GrayText;
  background: Canvas; color: CanvasText; }
.figures abbr:hover + [role=tooltip], .figures abbr:focus + [role=tooltip] { display: block; }
</style>"""


def sentence(figures: Sequence[Figure], *, last: str = "; ") -> None:
    """Figures one after the other, the last after `last`; what each means stands in its box."""
    said = [f'<abbr tabindex="0" aria-label="{html.escape(f"{f.said}: {f.meaning}")}">'
            f'{html.escape(_whole(f.said))}</abbr><span role="tooltip">{html.escape(f.meaning)}</span>'
            for f in figures]  # fmt: skip
    st.html(f'{_STYLE}<div class="figures">{", ".join(said[:-1])}{last if said[:-1] else ""}{said[-1]}</div>')


def _whole(said: str) -> str:
    """A figure whose sign does not stand alone at the start of a line."""
    return said.replace(" %", "\N{NO-BREAK SPACE}%")
