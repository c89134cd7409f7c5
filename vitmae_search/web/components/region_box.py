"""A part of the query's picture: a box is drawn on it, and kept in the address, `?part=0.2,0.1,0.5,0.4`.

While a box is being chosen and none is drawn yet, the address has `?part=choose`.
"""

from __future__ import annotations

import math
from dataclasses import astuple

import streamlit as st

from vitmae_search.errors import LibraryError
from vitmae_search.library.region_search import read_box
from vitmae_search.records import Box
from vitmae_search.web.components import page_address, plain_text
from vitmae_search.web.components.assets import asset
from vitmae_search.web.components.query_picker import QueryState, picture_url

PARAMETER = "part"
CHOOSE = "choose"
FIRST = Box(0.25, 0.25, 0.5, 0.5)
"""The box that one begins with."""
HINT = (
    "Draw a box on the picture: photos are looked through for this part. It can be moved, and resized by its "
    "corners; with the keyboard by arrows, with Shift and arrows, and Enter."
)

_mount = st.components.v2.component(
    "vitmae_search_region",
    html='<div class="region"></div>',
    css=asset("region.css"),
    js=asset("elements.js", "region.js"),
)


def of_address() -> Box | None:
    """The box that the page's address has; None where it has none, or none that is one."""
    try:
        return read_box([float(text) for text in st.query_params.get(PARAMETER, "").split(",")], (1, 1))
    except (ValueError, LibraryError):
        return None


def is_open() -> bool:
    """Whether a box is drawn or being chosen."""
    return PARAMETER in st.query_params


def switch(query: QueryState) -> None:
    """The button that begins with a box, or goes back to the whole picture; nothing without a picture."""
    if not query.picture:
        return
    if is_open():
        st.button("Whole picture", icon=":material/crop_free:", key="vs_region_off", on_click=_close)
    else:
        help_text = "Draw a box on the picture, and look for what is in it."
        st.button("Part of it", icon=":material/crop:", key="vs_region_on", on_click=_open, help=help_text)


def draw(query: QueryState) -> None:
    """The query's picture with the box; nothing while none is chosen.

    Args:
        query: The picture.
    """
    if not is_open() or not query.picture:
        return
    box = of_address()
    data = {
        "src": picture_url(query),
        "name": query.name,
        "box": [round(value, 4) for value in astuple(box or FIRST)],
        "searched": box is not None,
    }
    _mount(key="vs_region", data=data, on_box_change=_store)
    plain_text.hint(HINT)


def _open() -> None:
    page_address.update_address(**{PARAMETER: CHOOSE, "page": None})


def _close() -> None:
    page_address.update_address(**{PARAMETER: None, "page": None})


def _store() -> None:
    """A callback: the box that was drawn goes into the address."""
    numbers = st.session_state["vs_region"].get("box")
    if isinstance(numbers, list) and len(numbers) == 4 and all(map(_is_number, numbers)):
        text = ",".join(f"{number:.4g}" for number in numbers)
        page_address.update_address(**{PARAMETER: text, "page": None})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
