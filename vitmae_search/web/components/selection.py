"""Selected photos: while a switch is on, a tap on a photo of a grid selects it, and a bar acts on them.

The selection is one visitor's and lasts while the page is open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import streamlit as st

from vitmae_search.web.components import examples

_SWITCH, _IDS = "vs_selecting", "vs_selected_ids"


def switch() -> None:
    """The switch that begins to select, and ends it."""
    st.toggle("Select", key=_SWITCH, help="Tap photos to select them, then say what to do with them.")


def selected() -> Collection[int] | None:
    """The ids of the selected photos; None while none may be selected."""
    return _ids() if st.session_state.get(_SWITCH) else None


def toggle(photo_id: int) -> None:
    """Select a photo, or no longer: a callback of a grid."""
    _ids().symmetric_difference_update({photo_id})


def bar(shown: Iterable[int]) -> None:
    """How many photos are selected, and what can be done with them; nothing while none may be selected.

    Args:
        shown: The photos on the page, which can be selected at once.
    """
    ids = selected()
    if ids is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="vs_selection"):
        st.html(f'<span class="vs-hint" role="status">{len(ids):,} selected</span>', width="content")
        st.button("All on this page", on_click=_ids().update, args=(list(shown),), key="vs_select_all")
        st.button("None", on_click=clear, key="vs_select_none", disabled=not ids)
        _query_buttons(ids)


def clear() -> None:
    """Select nothing."""
    _ids().clear()


def _query_buttons(ids: Collection[int]) -> None:
    st.button(
        "More like these",
        icon=":material/add:",
        on_click=_ask,
        args=("more",),
        key="vs_more",
        disabled=not ids,
    )
    st.button(
        "Less like these",
        icon=":material/remove:",
        on_click=_ask,
        args=("less",),
        key="vs_less",
        disabled=not ids,
    )


def _ask(kind: examples.Kind) -> None:
    examples.add(kind, sorted(_ids()))
    clear()


def _ids() -> set[int]:
    found: set[int] = st.session_state.setdefault(_IDS, set())
    return found
