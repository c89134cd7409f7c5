"""Filters as chips: each says what is on, is removed by its cross, and opens the list that it is chosen from.

The lists come with counts from `counts/{kind}` (`server.routes`) once they are opened. The rail shows those
of folders and dates at the side of a wide page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.records import SearchFilter
from vitmae_search.web.components.assets import asset
from vitmae_search.web.components.filter_choices import SHAPES, stars
from vitmae_search.web.components.filter_parameters import (
    PARAMETERS,
    Filters,
    folder_text,
    in_words,
    place_text,
    place_words,
    size_text,
    size_words,
    span_text,
)
from vitmae_search.web.components.page_address import update_address
from vitmae_search.web.components.photo_address import library_parameter
from vitmae_search.web.server.session import library

SORT = {"newest": "Newest first", "oldest": "Oldest first", "name": "By name", "largest": "Largest first"}
PRESETS = (("7d", "Last 7 days"), ("30d", "Last 30 days"), ("365d", "Last 365 days"))
_LONGEST = 4096  # characters of a parameter's value

_mount = st.components.v2.component(
    "vitmae_search_filter_bar",
    html='<div class="bar" role="group"></div>',
    css=asset("filter_bar.css", "place_map.css"),
    js=asset("elements.js", "place_map.js", "filter_bar.js"),
)


def draw(filters: Filters, *, key: str, sort: Mapping[str, str] | None = None, first_sort: str = "") -> None:
    """The bar of chips.

    Args:
        filters: What the address has.
        sort: The orders to choose from, by their value in the address; None where there is no order.
        first_sort: The order where the address has none.
        key: The component's key in the session.
    """
    facets = [*_facets(filters)]
    facets += [{"title": "Filter", "text": text, "clear": [name]} for name, text in in_words(filters)]
    on = [
        name for name in PARAMETERS if name in st.query_params and (name != "tag_sure" or filters.where.tag)
    ]
    shown = bool(filters.problem) or any(facet.get("text") for facet in facets)
    orders = [] if sort is None else [_order(sort, first_sort)]
    _draw([*facets, *orders], key, clear=on if shown else [], rail=False)


def _order(sort: Mapping[str, str], first: str) -> dict[str, object]:
    order = st.query_params.get("sort", first)
    order = order if order in sort else first
    return {"kind": "sort", "title": "Order", "text": sort[order], "value": order, "options": [*sort.items()]}


def draw_rail(filters: Filters, *, key: str) -> None:
    """The lists of folders and dates, always open.

    Args:
        filters: What the address has.
        key: The component's key in the session.
    """
    _draw(_folder_and_date_facets(filters), key, clear=[], rail=True)


def _folder_and_date_facets(filters: Filters) -> list[dict[str, object]]:
    where, parameters = filters.where, st.query_params
    days = "" if filters.days is None else parameters.get("after", "")
    span = days or ("" if where.after is None else where.after.date().isoformat())
    until = "" if where.before is None else where.before.date().isoformat()
    folder = where.under or parameters.get("under")
    return [
        _facet("folder", "Folder", "under", folder and folder_text(folder), value=folder),
        _facet("month", "Date", "after", span_text(filters), value=f"{span} {until}", presets=PRESETS),
    ]


def _facets(filters: Filters) -> list[dict[str, object]]:
    where = filters.where
    facets = [
        *_folder_and_date_facets(filters),
        _facet("camera", "Camera", "camera", where.camera and display_path(where.camera), value=where.camera),
        *_lens_and_place_facets(where),
        _facet("format", "Type", "type", where.format and display_path(where.format), value=where.format),
        _facet("orientation", "Shape", "shape", SHAPES.get(where.orientation or ""), value=where.orientation),
        _facet("size", "Size", "size", size_words(where), value=size_text(where)),
    ]
    if library().has_any("tag"):
        facets.insert(3, _facet("tag", "Tag", "tag", where.tag and display_path(where.tag), value=where.tag))
    return facets + _mark_facets(where)


def _lens_and_place_facets(where: SearchFilter) -> list[dict[str, object]]:
    """Those of lenses and places, where photos name any."""
    facets = []
    if where.lens or library().has_any("lens"):
        lens = where.lens and display_path(where.lens)
        facets.append(_facet("lens", "Lens", "lens", lens, value=where.lens))
    if place_text(where) or library().has_any("place"):
        facets.append(_facet("place", "Place", "place", place_words(where), value=place_text(where)))
    return facets


def _mark_facets(where: SearchFilter) -> list[dict[str, object]]:
    """Those of favourites, ratings and albums, where there are any."""
    facets = []
    if where.favourite or library().has_any("favourite"):
        text = "Favourites" if where.favourite else None
        facets.append(
            _facet("favourite", "Favourites", "favourites", text, value="on" if where.favourite else None)
        )
    if where.min_rating or library().has_any("rating"):
        text = stars(where.min_rating) if where.min_rating else None
        facets.append(_facet("rating", "Rating", "rating", text, value=str(where.min_rating)))
    if library().albums():
        facets.append(
            _facet("album", "Album", "album", where.album and display_path(where.album), value=where.album)
        )
    return facets


_CLEARS = {"after": ["after", "before"], "tag": ["tag", "tag_sure"]}


def _facet(kind: str, title: str, name: str, text: str | None, **more: object) -> dict[str, object]:
    found = {"kind": kind, "title": title, "name": name, "text": text or None, **more}
    return {**found, "clear": _CLEARS.get(name, [name])}


def _draw(facets: Sequence[object], key: str, *, clear: Sequence[str], rail: bool) -> None:
    kept = {name: value for name, value in st.query_params.to_dict().items() if name in PARAMETERS}
    data = {
        "facets": facets,
        "clear": clear,
        "rail": rail,
        "label": "Filters",
        "query": urlencode({**kept, **library_parameter()}),
        "photos": library().status().photos,  # counts change with it
    }
    _mount(key=key, data=data, on_change_change=_on_change(key))


def _on_change(key: str) -> Callable[[], None]:
    def change() -> None:
        sent = st.session_state[key].get("change")
        changes = sent.items() if isinstance(sent, Mapping) else ()
        known = {
            name: value[:_LONGEST] if isinstance(value, str) else None
            for name, value in changes
            if name in (*PARAMETERS, "sort")
        }
        if known:
            update_address(**known, page=None)

    return change
