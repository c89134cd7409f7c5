"""A button that removes an indexed folder from the library, once the visitor has confirmed it."""

from __future__ import annotations

import streamlit as st

from vitmae_search.errors import VitmaeSearchError, display_path
from vitmae_search.records import Root
from vitmae_search.web.components import plain_text
from vitmae_search.web.server.session import library


def draw(root: Root, *, disabled: bool) -> None:
    """The button of one folder.

    Args:
        root: The folder.
        disabled: Whether it cannot be pressed now.
    """
    if st.button(
        "Forget",
        icon=":material/delete:",
        key=f"vs_forget_{root.root_id}",
        disabled=disabled,
        help="Remove the folder from the library. Its photos stay on disk.",
    ):
        _confirm(root)


@st.dialog("Forget this folder?")
def _confirm(root: Root) -> None:
    plain_text.card(display_path(root.path), "")
    plain_text.hint(
        f"{_photos(root.photos)} and what is known of them (fingerprints, tags, thumbnails) leave the "
        "library. No photo file is touched. To bring them back, index the folder again."
    )
    if st.button("Forget it", type="primary", key="vs_forget_yes", on_click=_forget, args=(root,)):
        st.rerun()


def _forget(root: Root) -> None:
    """The button's callback: the page that is drawn next says what was done, or why not."""
    try:
        report = library().forget(root.path)
    except VitmaeSearchError as error:
        plain_text.queue_notice(plain_text.as_sentence(error), "problem")
    else:
        message = f"{display_path(root.path)} is forgotten, with {_photos(report.photos)}."
        plain_text.queue_notice(message, "good")


def _photos(count: int) -> str:
    return f"{count:,} photo{'' if count == 1 else 's'}"
