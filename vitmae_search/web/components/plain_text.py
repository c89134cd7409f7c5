"""Text on the page that may hold file names: always as text, never as Markdown.

Streamlit reads Markdown in labels, captions, alerts, toasts and tables, and Markdown can load pictures from
other sites. So names and messages go through `st.html` with every character escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Literal

import streamlit as st

from vitmae_search.errors import (
    LibraryEmpty,
    LibraryUnreachable,
    VectorStoreUnavailable,
    VitmaeSearchError,
)
from vitmae_search.web.components import database_wait

Kind = Literal["info", "good", "problem"]

_ICONS = {"info": "i", "good": "✓", "problem": "!"}


def notice(message: str, kind: Kind = "info") -> None:
    """Show one sentence in a box.

    Args:
        message: Plain text.
        kind: Its color and icon; screen readers interrupt for a "problem".
    """
    role = "alert" if kind == "problem" else "status"
    st.html(
        f'<div class="vs-notice vs-{kind}" role="{role}"><span class="vs-icon" aria-hidden="true">'
        f"{_ICONS[kind]}</span><span>{escape(message)}</span></div>"
    )


def queue_notice(message: str, kind: Kind = "info") -> None:
    """Keep a notice for `show_queued_notice`, where the page is about to be drawn anew.

    Args:
        message: Plain text.
        kind: As for `notice`.
    """
    st.session_state["vs_queued_notice"] = (message, kind)


def show_queued_notice() -> None:
    """Show what `queue_notice` kept, once."""
    if queued := st.session_state.pop("vs_queued_notice", None):
        notice(*queued)


def unexpected_error() -> None:
    """The notice for a defect of ours; the terminal has the details."""
    notice("Something went wrong on this page. The terminal that runs the app has the details.", "problem")


@contextmanager
def errors_as_notices() -> Iterator[None]:
    """Show an error that a person can act on as a notice, in place of what the block would have drawn."""
    try:
        yield
    except LibraryEmpty:
        empty_library()
    except VitmaeSearchError as error:
        notice(as_sentence(error), "problem")
        if isinstance(error, LibraryUnreachable | VectorStoreUnavailable):
            hint("This page comes back by itself as soon as it answers.")
            database_wait.draw(vectors=isinstance(error, VectorStoreUnavailable))


def attempt(action: Callable[[], object]) -> None:
    """Do what a button is for: a callback. An error becomes a notice at the top of the page.

    What it needs of the page's fields it must read from the session's state: when the page was drawn last,
    they may have had other values than at the click.
    """
    try:
        action()
    except VitmaeSearchError as error:
        queue_notice(as_sentence(error), "problem")


def as_sentence(error: BaseException | str) -> str:
    """A message with a capital letter at its start and a full stop at its end."""
    text = str(error).strip() or type(error).__name__
    if text.split(maxsplit=1)[0].isalpha():  # a word; a file's name stays as it is
        text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else f"{text}."


def hint(message: str) -> None:
    """Small print. Plain text."""
    # The margin is here and not in page.css, which a browser may apply later than it draws this.
    st.html(f'<p class="vs-hint" style="margin: 0">{escape(message)}</p>')


def command(line: str) -> None:
    """A line to copy: a click selects all of it. `st.code` loads 1.5 MB of a highlighter for the same."""
    st.html(f'<pre class="vs-command" title="A click selects it">{escape(line)}</pre>')


def heading(message: str) -> None:
    """The title of a box. Plain text."""
    st.html(f'<p class="vs-lead">{escape(message)}</p>')


def card(title: str, detail: str, *, badge: str | None = None) -> None:
    """A title with small print below it.

    Args:
        title: Plain text.
        detail: Plain text.
        badge: One word that stands out beside the title.
    """
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
    """A table of plain text.

    Args:
        head: The columns' titles.
        rows: The cells, numbers as the caller formats them.
    """
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows)
    st.html(
        f'<div class="vs-scroll"><table class="vs-table"><thead><tr>{header}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def empty_state(title: str, message: str) -> None:
    """What a page shows while it has no contents.

    Args:
        title: Plain text.
        message: Plain text: what to do first.
    """
    st.html(
        '<div class="vs-empty"><div class="vs-empty-tiles" aria-hidden="true"><i></i><i></i><i></i></div>'
        f"<h2>{escape(title)}</h2><p>{escape(message)}</p></div>"
    )


def empty_library() -> None:
    """The empty state of a library without photos, with a button to add a folder."""
    empty_state(
        "No photos yet",
        "Add a folder of yours first. It is read on this machine, nothing is uploaded, "
        "and the photos themselves are never changed.",
    )
    with st.container(horizontal_alignment="center"):
        if st.button("Add a folder", icon=":material/create_new_folder:", type="primary", key="vs_start"):
            st.switch_page("../pages/library.py")


def sample_banner() -> None:
    """Over a library of nothing but samples: what they are good for, and a button to add one's own photos."""
    with st.container(
        border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
    ):
        card(
            "These are sample photos. Your own tell you more.",
            "Each sample comes in ten views (crops, tilts, tones), so a good search with one of them finds "
            "the nine others first.",
        )
        if st.button("Use my photos", icon=":material/create_new_folder:", type="primary", key="vs_own"):
            st.switch_page("../pages/library.py")
