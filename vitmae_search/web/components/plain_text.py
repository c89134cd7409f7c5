"""Text on the page that may hold file names: always as text, never as Markdown.

Streamlit reads Markdown in labels, captions, alerts, toasts and tables, and Markdown fetches pictures.
So names and messages go through `st.html` with every character escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Literal

import streamlit as st

from vitmae_search.errors import LibraryEmpty, VitmaeSearchError

Kind = Literal["info", "good", "problem"]

_ICONS = {"info": "ⓘ", "good": "✓", "problem": "!"}


def notice(message: str, kind: Kind = "info") -> None:
    """One sentence in a quiet box. `message` is plain text."""
    role = "alert" if kind == "problem" else "status"
    st.html(
        f'<div class="vs-notice vs-{kind}" role="{role}"><span class="vs-icon" aria-hidden="true">'
        f"{_ICONS[kind]}</span><span>{escape(message)}</span></div>"
    )


def say_next_time(message: str, kind: Kind = "info") -> None:
    """Keep one sentence for `said_last_time`, where the page is about to be drawn anew."""
    st.session_state["vs_said"] = (message, kind)


def said_last_time() -> None:
    """Show what `say_next_time` kept, once."""
    if said := st.session_state.pop("vs_said", None):
        notice(*said)


def empty_state(title: str, message: str) -> None:
    """What a page says when it has nothing to show yet. Plain text."""
    st.html(
        '<div class="vs-empty"><div class="vs-empty-tiles" aria-hidden="true"><i></i><i></i><i></i></div>'
        f"<h2>{escape(title)}</h2><p>{escape(message)}</p></div>"
    )


def hint(message: str) -> None:
    """Small print. Plain text."""
    st.html(f'<p class="vs-hint">{escape(message)}</p>')


def heading(message: str) -> None:
    """The name of a box. Plain text."""
    st.html(f'<p class="vs-lead">{escape(message)}</p>')


def card(title: str, detail: str, *, badge: str | None = None) -> None:
    """A name, small print under it, and perhaps one word that stands out. Plain text."""
    mark = f' <span class="vs-badge">{escape(badge)}</span>' if badge else ""
    st.html(
        f'<div class="vs-card"><p class="vs-lead">{escape(title)}{mark}</p>'
        f'<p class="vs-hint">{escape(detail)}</p></div>'
    )


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """A list of names and values. Plain text."""
    body = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    st.html(f'<dl class="vs-facts">{body}</dl>')


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table. Plain text; numbers as the caller formats them."""
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows)
    st.html(
        f'<div class="vs-scroll"><table class="vs-table"><thead><tr>{header}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def unexpected() -> None:
    """For a defect of ours; the terminal has the details."""
    notice("Something went wrong on this page. The terminal that runs the app has the details.", "problem")


@contextmanager
def errors_as_notices() -> Iterator[None]:
    """Show what a person can act on as one sentence, in place of what the block would have drawn."""
    try:
        yield
    except LibraryEmpty:
        start_here()
    except VitmaeSearchError as error:
        notice(sentence(error), "problem")


def start_here() -> None:
    """An empty library: the one thing to do first."""
    empty_state(
        "No photos yet",
        "Add a folder of yours first. It is read on this machine, nothing is uploaded, "
        "and the photos themselves are never changed.",
    )
    with st.container(horizontal_alignment="center"):
        if st.button("Add a folder", icon=":material/create_new_folder:", type="primary", key="vs_start"):
            st.switch_page("pages/library.py")


def invite(samples: bool) -> None:
    """Over a library of nothing but samples: what they are good for, and that one's own photos come first."""
    if not samples:
        return
    with st.container(
        border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
    ):
        card(
            "These are sample photos. Your own tell you more.",
            "Each sample comes in ten views (crops, tilts, tones), so a good search with one of them finds "
            "the nine others first.",
        )
        if st.button("Use my photos", icon=":material/create_new_folder:", type="primary", key="vs_own"):
            st.switch_page("pages/library.py")


def sentence(error: BaseException | str) -> str:
    """The message with a capital and a full stop."""
    text = str(error).strip() or type(error).__name__
    if text.split(maxsplit=1)[0].isalpha():  # a word of ours; a file's name stays as it is
        text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else f"{text}."
