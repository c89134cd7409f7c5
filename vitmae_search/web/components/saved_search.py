"""Saved searches on the page: one is saved from the page's address, and is an address again."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from vitmae_search.records import SavedSearch
from vitmae_search.web.components import examples, selection
from vitmae_search.web.components.filter_parameters import Filters, place_text, size_text
from vitmae_search.web.components.photo_address import library_parameter
from vitmae_search.web.components.query_picker import QueryState
from vitmae_search.web.server.session import library


def draw(query: QueryState, active: Filters) -> None:
    """A button that saves the search under a name; photos of the library can be saved, uploads cannot.

    Args:
        query: The page's query.
        active: Its filters.
    """
    with st.popover("Save", icon=":material/bookmark:", disabled=query.photo is None):
        name = st.text_input("Name of this search", max_chars=200, key="vs_save_name")
        if query.photo is None:
            return
        more = ((query.photo.photo_id, 1.0), *examples.weighted("more"))
        less = tuple(examples.weighted("less"))
        search = SavedSearch(name, more, less, active.where, active.min_score)
        st.button(
            "Save", key="vs_save", on_click=selection.change, args=(lambda: library().save_search(search),)
        )


def address(saved: SavedSearch) -> str:
    """The address that asks for a saved search: of the Search page, or of Browse where it is a filter."""
    where = saved.where
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
        "photo": str(saved.more[0][0]) if saved.more else None,
        "more": examples.text_of(saved.more[1:]) or None,
        "less": examples.text_of(saved.less) or None,
    }
    given = {name: value for name, value in values.items() if value is not None}
    page = "./" if saved.more else "./browse"
    return f"{page}?{urlencode({**given, **library_parameter()})}"
