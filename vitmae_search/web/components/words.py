"""Words as the query, or as a part of it, where the model knows words: `?words=a+red+bicycle`."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from vitmae_search.records import LONGEST_TEXT
from vitmae_search.web.components import page_address
from vitmae_search.web.components.photo_address import library_parameter
from vitmae_search.web.server.session import library

PARAMETER = "words"
_KEY = "vs_words"


def of_address() -> str:
    """The words that the page's address has, "" for none."""
    return read_words(st.query_params.to_dict())


def read_words(parameters: Mapping[str, str]) -> str:
    """The words that an address has, "" for none."""
    return " ".join(parameters.get(PARAMETER, "").split())[:LONGEST_TEXT]


def are_known() -> bool:
    """Whether the current space's model knows words."""
    return library().text_space() is not None


def draw(label: str, *, visible: bool, width: int | None = None) -> None:
    """A box for words; nothing where the model does not know any, and the address has none.

    Args:
        label: What it asks for.
        visible: Whether the label is above the box, or in it.
        width: In pixels; None is the page's.
    """
    words = of_address()
    if not words and not are_known():
        return
    page_address.show_in(_KEY, words)
    st.text_input(
        label,
        key=_KEY,
        on_change=_store,
        max_chars=LONGEST_TEXT,
        placeholder="a red bicycle" if visible else label,
        label_visibility="visible" if visible else "collapsed",
        icon=":material/search:",
        width="stretch" if width is None else width,
    )


def _store() -> None:
    words = " ".join(str(st.session_state[_KEY] or "").split())
    page_address.update_address(words=words or None, page=None, **library_parameter())
