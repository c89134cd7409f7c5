"""A box to choose one of the libraries that the app was started with."""

from __future__ import annotations

import streamlit as st

from vitmae_search.web.components import page_address
from vitmae_search.web.server.session import choose_library, chosen_folder, library_names

_KEY = "vs_library"


def draw() -> None:
    """The box; nothing where there is only one library."""
    names = library_names()
    if len(names) == 1:
        return
    page_address.show_in(_KEY, chosen_folder())
    with st.container(key="vs_library_chooser"):
        # The options of a selectbox are shown as text; its label would be Markdown.
        st.selectbox(
            "Library",
            list(names),
            format_func=names.__getitem__,
            key=_KEY,
            on_change=lambda: choose_library(st.session_state[_KEY]),
            label_visibility="collapsed",
            width=240,
        )
