"""Selected photos: while a switch is on, a tap on a photo of a grid selects it, and a bar acts on them.

The selection is one visitor's and lasts while the page is open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial

import streamlit as st

from vitmae_search.web.components import album_picker, examples, plain_text
from vitmae_search.web.server.session import library

_SWITCH, _IDS = "vs_selecting", "vs_selected_ids"
_STARS = ("no stars", *("★" * stars for stars in range(1, 6)))


def switch() -> None:
    """The switch that begins to select, and ends it."""
    st.toggle("Select", key=_SWITCH, help="Tap photos to select them, then say what to do with them.")


def selected() -> Collection[int] | None:
    """The ids of the selected photos; None while none may be selected."""
    return _ids() if st.session_state.get(_SWITCH) else None


def toggle(photo_id: int) -> None:
    """Select a photo, or no longer: a callback of a grid."""
    _ids().symmetric_difference_update({photo_id})


def bar(
    shown: Callable[[], Iterable[int]],
    *,
    everything: str = "All on this page",
    album: str | None = None,
    query: bool = False,
) -> None:
    """How many photos are selected, and what can be done with them; nothing while none may be selected.

    Args:
        shown: Gives the photos that can be selected at once.
        everything: The label of the button that does so.
        album: The album that is shown, out of which photos can be taken.
        query: Whether the page has a query that photos can become a part of.
    """
    ids = selected()
    if ids is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="vs_selection"):
        st.html(f'<span class="vs-hint" role="status">{len(ids):,} selected</span>', width="content")
        st.button(everything, on_click=lambda: _ids().update(shown()), key="vs_select_all")
        _action("None", "vs_select_none", clear)
        if query:
            _action("More like these", "vs_more", lambda: _ask("more"), ":material/add:")
            _action("Less like these", "vs_less", lambda: _ask("less"), ":material/remove:")
        _marks()
        _album(album)
        undo_button()


def clear() -> None:
    """Select nothing."""
    _ids().clear()


def undo_button() -> None:
    """A button that takes back the last change, and what that is. It takes back no other one.

    Each change has a button of its own: the second half of a double click must not take back one more.
    """
    last = library().last_change
    with st.container(horizontal=True, vertical_alignment="center", width="content", key="vs_undo_and_what"):
        st.button(
            "Undo",
            icon=":material/undo:",
            key=f"vs_undo_{last.change_id if last else 0}",
            help="Takes back the last change, whoever made it.",
            on_click=plain_text.attempt,
            args=(partial(library().undo, last),),
            disabled=last is None,
        )
        if last is not None:
            plain_text.hint(f"Last change: {last.text}.")


def _marks() -> None:
    _action("Favourite", "vs_favourite", partial(_mark, favourite=True), ":material/favorite:")
    _action("No favourite", "vs_no_favourite", partial(_mark, favourite=False), ":material/heart_broken:")
    with st.popover("Rate", icon=":material/star:", disabled=not _ids()):
        for stars, text in reversed(list(enumerate(_STARS))):
            _action(text, f"vs_rate_{stars}", partial(_mark, rating=stars))


def _mark(*, favourite: bool | None = None, rating: int | None = None) -> None:
    library().mark(sorted(_ids()), favourite=favourite, rating=rating)


def _album(shown: str | None) -> None:
    with st.popover("Album", icon=":material/photo_album:", disabled=not _ids()):
        album_picker.draw("vs_album", _ids, disabled=not _ids())
        if shown is not None:
            _action(
                "Take out of this album",
                "vs_album_out",
                lambda: library().remove_from_album(shown, sorted(_ids())),
            )


def _action(label: str, key: str, action: Callable[[], object], icon: str | None = None) -> None:
    """A button for the selected photos."""
    st.button(label, icon=icon, key=key, on_click=plain_text.attempt, args=(action,), disabled=not _ids())


def _ask(kind: examples.Kind) -> None:
    examples.add(kind, sorted(_ids()))
    clear()


def _ids() -> set[int]:
    found: set[int] = st.session_state.setdefault(_IDS, set())
    return found
