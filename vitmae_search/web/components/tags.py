"""A filter by tag, kept in the page's address. Tags are a classifier's words: they are shown as text only."""

from __future__ import annotations

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.web.components import page_address
from vitmae_search.web.components.filter_parameters import read_tag
from vitmae_search.web.server.session import library


def tag_of_address(name: str) -> tuple[str | None, float]:
    """The tag that the page's address has.

    Args:
        name: The address's parameter that holds the tag; the one of its confidence, in percent, is `name` +
            "_sure".

    Returns:
        The tag, None for any or one that no photo has, and its least confidence, 0 to 1.
    """
    return read_tag(st.query_params.to_dict(), name)


def draw_tag_filter(name: str, page: str) -> None:
    """A select box of the library's tags with their counts, and a slider of confidence once one is selected.

    In a library without tags nothing is drawn.

    Args:
        name: As for `tag_of_address`.
        page: The address's parameter that holds the number of the page of results.
    """
    counts = library().tag_counts()
    if not counts:
        return
    tag, min_confidence = tag_of_address(name)
    key, sure = f"vs_{name}", f"vs_{name}_sure"
    page_address.show_in(key, tag)
    # The options of a selectbox are shown as text; its label would be Markdown.
    st.selectbox(
        "Tag",
        list(counts),
        format_func=lambda option: f"{display_path(option)} ({counts[option]:,})",
        key=key,
        placeholder="any",
        on_change=page_address.store,
        args=(name, key, page),
    )
    if tag is not None:
        page_address.show_in(sure, round(100 * min_confidence))
        st.slider(
            "At least this sure",
            0,
            100,
            format="%d%%",
            key=sure,
            on_change=page_address.store,
            args=(f"{name}_sure", sure, page),
        )
