"""A filter by tag. Tags are a classifier's words, so they are shown as text only."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.web.server.session import library


def tag_filter(key: str, on_change: Callable[[], None]) -> tuple[str | None, float]:
    """A select box of the library's tags with their counts, and a slider of confidence once one is selected.

    Args:
        key: The tag is kept in the session under this key, the confidence, in percent, under `key` + "_sure".
        on_change: Called when either changes.

    Returns:
        The tag, None for any, and its least confidence, 0 to 1. In a library without tags nothing is drawn.
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
