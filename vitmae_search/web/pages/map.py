"""The Map page: all photos of the library as points, those that look alike near each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape
from urllib.parse import urlencode

import streamlit as st

from vitmae_search.errors import VitmaeSearchError
from vitmae_search.records import MapGrouping, MapMethod
from vitmae_search.web.components import (
    album_picker,
    filter_bar,
    filters,
    job_status,
    map_area,
    map_points,
    map_view,
    page_address,
    plain_text,
)
from vitmae_search.web.components.filter_parameters import PARAMETERS, Filters
from vitmae_search.web.components.photo_address import library_parameter, photo_parameters
from vitmae_search.web.server.session import library

METHODS: dict[MapMethod, str] = {"pca": "Overview (PCA)", "tsne": "Neighbours (t-SNE)"}
COLORS: dict[MapGrouping, str] = {
    "cluster": "Clusters",
    "folder": "Folders",
    "date": "Dates",
    "tag": "Tags",
}
EXPLAINED = {
    "pca": "Photos that look alike lie near each other, along the two axes in which all of them differ most.",
    "tsne": "Each photo lies beside those that are most like it. How far apart groups are says little.",
}


def page() -> None:
    """The controls, the map, and what can be done with a selection."""
    plain_text.show_queued_notice()
    if not library().status().photos:
        plain_text.empty_library()
        return
    method = map_points.method_of(st.query_params.get("map", ""))
    by = map_points.grouping_of(st.query_params.get("color", ""))
    _controls(method, by)
    active = filters.of_address()
    filter_bar.draw(active, key="vs_bar")
    if active.problem and active.problem != map_area.PROBLEM:
        plain_text.notice(active.problem, "problem")
        return
    job_status.show_outcome(of_maps=True)
    making = job_status.show_running(which=job_status.running_maps)
    if not library().has_map(method) and method == "tsne":
        if not making:
            _offer_tsne()
        method = "pca"
    if active.where.photo_ids is not None:
        _selected(active)
    elif st.query_params.get("area"):
        plain_text.notice(map_area.PROBLEM)
    else:
        plain_text.hint(EXPLAINED[method])
    map_view.draw(method, by, key="vs_map")
    if method == "tsne" and not making:
        _offer_again()


def _controls(method: MapMethod, by: MapGrouping) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="vs_map_controls"):
        page_address.show_in("vs_map_method", method)
        st.segmented_control(
            "How photos are laid out",
            list(METHODS),
            format_func=METHODS.__getitem__,
            key="vs_map_method",
            on_change=_store_method,
            label_visibility="collapsed",
        )
        choices = [choice for choice in COLORS if choice != "tag" or library().tag_counts() or by == "tag"]
        page_address.show_in("vs_map_color", by)
        st.selectbox(
            "Colours",
            choices,
            format_func=lambda choice: f"Colours: {COLORS[choice].lower()}",
            key="vs_map_color",
            on_change=page_address.store,
            args=("color", "vs_map_color", "page"),
            label_visibility="collapsed",
            width=200,
        )


def _store_method() -> None:
    """Another layout is another map: what was in view or selected means nothing on it."""
    page_address.update_address(map=st.session_state["vs_map_method"] or "pca", at=None, area=None)


def _offer_tsne() -> None:
    count = f"{library().status().photos:,}"
    plain_text.notice(
        f"This map of {count} photos was not made yet. It takes seconds for a thousand photos and minutes "
        "for a hundred thousand; until then you see the other one."
    )
    st.button("Make this map", icon=":material/scatter_plot:", key="vs_map_make", on_click=_start)


def _offer_again() -> None:
    st.button(
        "Lay this map out anew",
        key="vs_map_again",
        on_click=_start,
        help="Photos that were indexed after it was made were placed on it without moving the others.",
    )


def _start() -> None:
    try:
        job_status.watch_job(library().start_map_job("tsne"))
    except VitmaeSearchError as error:
        plain_text.queue_notice(plain_text.as_sentence(error), "problem")


def _selected(active: Filters) -> None:
    """How many photos the area has, and what can be done with them."""
    ids = sorted(photo.photo_id for photo in library().photos(active.where))
    kept = {name: value for name, value in st.query_params.to_dict().items() if name in PARAMETERS}
    with st.container(horizontal=True, vertical_alignment="center", key="vs_map_selection"):
        st.html(f'<span class="vs-hint" role="status">{len(ids):,} selected</span>', width="content")
        if not ids:
            return
        _link("Browse these", "browse", {**kept, **library_parameter()})
        query = {**kept, **photo_parameters(_middle(active, ids))}
        _link("Search among these", "", query)
        with st.popover("Album", icon=":material/photo_album:"):
            album_picker.draw("vs_map_album", lambda: ids)
        _action("Favourite", "vs_map_favourite", ids)
        _link("Export as CSV", "map/area.csv", {**kept, **library_parameter()}, download=True)
        st.button("None", key="vs_map_none", on_click=page_address.update_address, kwargs={"area": None})


def _middle(active: Filters, ids: Sequence[int]) -> int:
    """The selected photo to begin a search with: the middle one of the cluster that most of them are in."""
    area = map_area.read(st.query_params.get("area", ""))
    if area is None:
        return ids[0]
    clusters = library().map(active.where, method=area[0]).clusters
    return clusters[0].photo_id if clusters else ids[0]


def _action(label: str, key: str, ids: Sequence[int]) -> None:
    st.button(
        label,
        icon=":material/favorite:",
        key=key,
        on_click=plain_text.attempt,
        args=(partial(library().mark, ids, favourite=True),),
    )


def _link(label: str, page: str, parameters: dict[str, str], *, download: bool = False) -> None:
    address = escape(f"./{page}?{urlencode(parameters)}", quote=True)
    more = " download" if download else ""
    st.html(
        f'<a class="vs-action" href="{address}" target="_self"{more}>{escape(label)}</a>', width="content"
    )


if __name__ == "__main__":
    st.title("Map", anchor=False)
    with plain_text.errors_as_notices():
        page()
