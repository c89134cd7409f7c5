"""The map as it is drawn: points to move over, with thumbnails, clusters and a legend (`map.js`)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import streamlit as st

from vitmae_search.records import MapGrouping, MapMethod
from vitmae_search.web.components import map_area
from vitmae_search.web.components.assets import asset
from vitmae_search.web.components.filter_parameters import PARAMETERS
from vitmae_search.web.components.grid import reveal_photo, viewer_data
from vitmae_search.web.components.page_address import update_address
from vitmae_search.web.components.photo_address import library_parameter
from vitmae_search.web.server.session import library

_LONGEST = 2000  # characters of an area

_mount = st.components.v2.component(
    "vitmae_search_map",
    html='<div class="map"></div>',
    css=asset("map.css", "part_outline.css", "viewer.css"),
    js=asset("elements.js", "fetch_picture.js", "part_outline.js", "viewer.js", "map_points.js", "map.js"),
)


def draw(method: MapMethod, by: MapGrouping, *, key: str) -> None:
    """Draw the map of the address's filters; what is selected on it goes to the address.

    Args:
        method: How it is laid out.
        by: What it is coloured by.
        key: The component's key in the session.
    """
    parameters = st.query_params.to_dict()
    kept = {name: value for name, value in parameters.items() if name in PARAMETERS and name != "area"}
    asked = {**kept, **library_parameter(), "map": method, "color": by}
    area = parameters.get("area", "")
    found = map_area.read(area)
    data = {
        **viewer_data(),
        "points": f"map/points?{urlencode(asked)}",
        "photos": f"map/photos?{urlencode(library_parameter())}",
        "method": method,
        "area": area if found is not None and found[0] == method else "",
        # What changes the points without changing their address.
        "state": f"{library().identity} {library().status().photos}",
    }
    _mount(key=key, data=data, on_area_change=_on_area(key), on_reveal_change=_on_reveal(key))


def _on_area(key: str) -> Any:
    def change() -> None:
        sent = st.session_state[key].get("area")
        if isinstance(sent, str):
            usable = len(sent) <= _LONGEST and map_area.read(sent) is not None
            update_address(area=sent if usable else None)

    return change


def _on_reveal(key: str) -> Any:
    def change() -> None:
        sent = st.session_state[key].get("reveal")
        if isinstance(sent, int) and not isinstance(sent, bool):
            reveal_photo(sent)

    return change
