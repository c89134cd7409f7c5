"""Changes of what the library knows of folders, each confirmed: forgotten, moved, rid of what is gone."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from vitmae_search.errors import VitmaeSearchError, display_path
from vitmae_search.records import Root
from vitmae_search.web.components import plain_text
from vitmae_search.web.components.typed_folder import full_path
from vitmae_search.web.server.session import library


def draw_forget(root: Root, *, disabled: bool) -> None:
    """A button that removes a folder from the library.

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
        _confirm_forget(root)


def draw_relocate(root: Root, *, disabled: bool) -> None:
    """A button for a folder that has another path now.

    Args:
        root: The folder.
        disabled: Whether it cannot be pressed now.
    """
    if st.button(
        "It has another path now",
        icon=":material/drive_file_move:",
        key=f"vs_relocate_{root.root_id}",
        disabled=disabled,
        help="A drive under another name, or a folder that was moved or renamed. No file is read.",
    ):
        _ask_path(root)


def draw_prune(missing: int, *, disabled: bool) -> None:
    """A button that removes photos which are gone from disk; nothing where there are none.

    Args:
        missing: How many there are.
        disabled: Whether it cannot be pressed now.
    """
    if missing and st.button(
        "Remove missing photos from the library",
        icon=":material/cleaning_services:",
        key="vs_prune",
        disabled=disabled,
    ):
        _confirm_prune(missing)


@st.dialog("Forget this folder?")
def _confirm_forget(root: Root) -> None:
    plain_text.card(display_path(root.path), "")
    plain_text.hint(
        f"{_photos(root.photos)} and what is known of them (fingerprints, tags, thumbnails) leave the "
        "library. No photo file is touched. To bring them back, index the folder again."
    )
    if st.button("Forget it", type="primary", key="vs_forget_yes", on_click=_forget, args=(root,)):
        st.rerun()


@st.dialog("Where is this folder now?")
def _ask_path(root: Root) -> None:
    plain_text.card(display_path(root.path), "")
    st.text_input("Its full path now", key="vs_relocate_to", placeholder=root.path)
    plain_text.hint("Its photos keep their fingerprints, tags, ratings and albums. No file is touched.")
    if st.button("Change the path", type="primary", key="vs_relocate_yes", on_click=_relocate, args=(root,)):
        st.rerun()


@st.dialog("Remove missing photos?")
def _confirm_prune(missing: int) -> None:
    plain_text.hint(
        f"{_photos(missing)}, gone from disk, {'leaves' if missing == 1 else 'leave'} the library, with "
        "fingerprints and thumbnails. Those of a drive that is away are not missing, and stay. Ratings and "
        "albums come back with a photo."
    )
    if st.button("Remove them", type="primary", key="vs_prune_yes", on_click=_prune, args=(missing,)):
        st.rerun()


def _forget(root: Root) -> None:
    def forget() -> str:
        photos = library().forget(root.path).photos
        return f"{display_path(root.path)} is forgotten, with {_photos(photos)}."

    _do(forget)


def _relocate(root: Root) -> None:
    def relocate() -> str:
        target = full_path(st.session_state.get("vs_relocate_to", "").strip() or ".")
        count = library().relocate(root.path, target)
        return f"{_photos(count)} of {display_path(root.path)} are in {display_path(target)} now."

    _do(relocate)


def _prune(missing: int) -> None:
    _do(lambda: f"{_photos(library().prune(missing).photos)} left the library.")


def _do(change: Callable[[], str]) -> None:
    """A button's callback: the page that is drawn next says what was done, or why not."""
    try:
        plain_text.queue_notice(change(), "good")
    except VitmaeSearchError as error:
        plain_text.queue_notice(plain_text.as_sentence(error), "problem")


def _photos(count: int) -> str:
    return f"{count:,} photo{'' if count == 1 else 's'}"
