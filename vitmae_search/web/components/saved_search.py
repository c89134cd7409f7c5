"""Saved searches on the page: one is saved from the page's address, and is an address again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from urllib.parse import urlencode

import streamlit as st

from vitmae_search.records import SavedSearch
from vitmae_search.web.components import examples, plain_text
from vitmae_search.web.components.filter_parameters import Filters, place_text, size_text
from vitmae_search.web.components.photo_address import library_parameter
from vitmae_search.web.components.query_picker import QueryState
from vitmae_search.web.server.session import library


def draw(query: QueryState, active: Filters) -> None:
    """A button that saves the search under a name; photos and words can be saved, uploads cannot.

    Args:
        query: The page's query.
        active: Its filters.
    """
    with st.popover("Save", icon=":material/bookmark:", disabled=query.upload is not None):
        st.text_input("Name of this search", max_chars=200, key="vs_save_name")
        if query.upload is not None:
            return
        photo = () if query.photo is None else ((query.photo.photo_id, 1.0),)
        more = (*photo, *examples.weighted("more"))
        less = tuple(examples.weighted("less"))
        search = SavedSearch(
            "", more, less, active.where, active.min_score, ((query.words, 1.0),) if query.words else ()
        )
        st.button("Save", key="vs_save", on_click=plain_text.attempt, args=(partial(_save, search),))


def _save(search: SavedSearch) -> None:
    library().save_search(replace(search, name=st.session_state["vs_save_name"]))


def address(saved: SavedSearch) -> str:
    """The address that asks for a saved search: of the Search page, or of Browse where it is a filter."""
    where = saved.where
    # Words alone are a query; without them it is the first photo.
    first, others = (None, saved.more) if saved.words or not saved.more else (saved.more[0], saved.more[1:])
    values = {
        "under": where.under,
        "camera": where.camera,
        "after": None if where.after is None else where.after.date().isoformat(),
        "before": None if where.before is None else where.before.date().isoformat(),
        "tag": where.tag,
        "tag_sure": f"{100 * where.min_confidence:.0f}" if where.min_confidence else None,
        "type": where.format,
        "shape": where.orientation,
        "favourites": "on" if where.favourite else None,
        "rating": str(where.min_rating) if where.min_rating else None,
        "album": where.album,
        "lens": where.lens,
        "place": place_text(where),
        "size": size_text(where),
        "alike": saved.min_score if isinstance(saved.min_score, str) else None,
        "words": saved.words[0][0] if saved.words else None,
        "photo": str(first[0]) if first else None,
        "more": examples.text_of(others) or None,
        "less": examples.text_of(saved.less) or None,
    }
    given = {name: value for name, value in values.items() if value is not None}
    page = "./" if saved.wanted else "./browse"
    # A folder's name may be no UTF-8.
    return f"{page}?{urlencode({**given, **library_parameter()}, errors='surrogateescape')}"
