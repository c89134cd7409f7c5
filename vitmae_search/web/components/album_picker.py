"""A choice of an album, or the name of a new one, with a button that puts photos into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.web.components import plain_text
from vitmae_search.web.server.session import library


def draw(key: str, ids: Callable[[], Iterable[int]], *, disabled: bool = False) -> None:
    """The fields and the button.

    Args:
        key: A prefix of the widgets' keys.
        ids: Gives the photos, when the button is pressed.
        disabled: Whether the button cannot be pressed now.
    """
    known, new = f"{key}_known", f"{key}_new"
    st.selectbox("Album", list(library().albums()), format_func=display_path, index=None, key=known)
    st.text_input("Or a new one", max_chars=200, key=new)

    def add() -> None:
        # Read at the click, which may follow the typing before the page is drawn anew.
        name = st.session_state[new].strip()
        chosen = st.session_state[known]
        library().add_to_album(name or chosen or "", sorted(ids()), make=bool(name))

    st.button("Add", key=f"{key}_add", on_click=plain_text.attempt, args=(add,), disabled=disabled)
