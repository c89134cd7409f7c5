"""Choosing a tag: a filter with counts. Tags are a classifier's words, so they are shown as text only."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.web.server.session import library


def tag_filter(key: str, on_change: Callable[[], None]) -> tuple[str | None, float]:
    """A tag, or None for any, and its least confidence. Draws nothing in a library without tags.

    The tag is kept in the session as `key`, the confidence, in percent, as `key` and "_sure".
    """
    counts = library().tag_counts()
    if st.session_state.get(key) not in counts:
        st.session_state[key] = None
    if not counts:
        return None, 0.0
    # The options of a selectbox are shown as text; its label would be Markdown.
    tag = st.selectbox(
        "Tag",
        list(counts),
        format_func=lambda name: f"{display_path(name)} ({counts[name]:,})",
        key=key,
        placeholder="any",
        on_change=on_change,
    )
    if tag is None:
        return None, 0.0
    percent = st.slider(
        "At least this sure", 0, 100, 0, format="%d%%", key=f"{key}_sure", on_change=on_change
    )
    return tag, percent / 100
