"""The Search page: from a picture to the photos that look most like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import streamlit as st

from vitmae_search.records import (
    Box,
    Hit,
    PhotoOrder,
    SearchResult,
    Space,
    WholePhoto,
)
from vitmae_search.web.components import (
    beside,
    examples,
    export_menu,
    filter_bar,
    filters,
    hit_batch,
    job_status,
    page_address,
    plain_text,
    query_picker,
    region_box,
    saved_search,
    selection,
    spaces,
    words,
)
from vitmae_search.web.components.filter_parameters import Filters, read_order
from vitmae_search.web.components.grid import hit_grid
from vitmae_search.web.components.search_request import COUNTS, SearchOptions, SearchRequest, read_count
from vitmae_search.web.server.session import has_only_samples, library

# In which order the hits of a page are shown.
HIT_SORT = {"best": "Best first", **filter_bar.SORT}


def page() -> None:
    """Choose a picture, or see what it found."""
    plain_text.show_queued_notice()
    status = library().status()
    if not status.photos:
        _nothing_yet()
        return
    query = _query()
    if query is None:
        if has_only_samples(status):
            plain_text.sample_banner()
        words.draw("Say what is in the photo", visible=True)
        query_picker.pick_query("Find photos that look like this one")
    else:
        show_results(query)


def _query() -> query_picker.QueryState | None:
    """What the address asks for: a picture, words, or both."""
    named, asked = query_picker.current_query(), words.of_address()
    if named is None and (not asked or query_picker.names_picture()):
        return None
    return replace(named or query_picker.QueryState(), words=asked)


def _nothing_yet() -> None:
    if not job_status.running_jobs():
        plain_text.empty_library()
        return
    plain_text.empty_state("Your photos are being read", "The first ones can be searched in a moment.")
    job_status.show_running(rerun_if=lambda: library().count_photos() > 0)


def show_results(query: query_picker.QueryState) -> None:
    """The grid of hits, with filters and pages."""
    summary = query_picker.query_header(query, _title(query))
    active = filters.of_address()
    k = _controls(query, active)
    if active.problem:
        plain_text.notice(active.problem, "problem")
        return
    above = st.container()  # filled last: what takes longer must not keep the results waiting
    region_box.draw(query)
    examples.draw()
    page = query_picker.page_number("page")
    found = _search(query, k, (page - 1) * k, active)
    with summary:
        plain_text.hint(_summary(found))
    if found.coverage is not None:
        plain_text.notice(found.coverage.text)
    if found.region is not None and not found.region.by_patches and beside.of_address() is None:
        plain_text.notice(found.region.text)
    if not found.hits and beside.of_address() is None:
        plain_text.notice("No other photo fits. Widen the filters, or go back a page.")
    selected = selection.selected()
    selection.bar(lambda: [hit.photo.photo_id for hit in found.hits], query=True)
    order = read_order(st.query_params.to_dict())

    other = beside.of_address()
    # Another order is one of the hits that are shown, so further ones do not come by themselves.
    scrolls = order is None and other is None and found.region is None
    more = _address_of_more(found, (page - 1) * k) if scrolls else None

    def grid(result: SearchResult, key: str, both: frozenset[int] = frozenset()) -> None:
        hit_grid(
            result if order is None else replace(result, hits=tuple(sorted_hits(result.hits, order))),
            key=key,
            line=order is None,
            more=more,
            label=f"Search results, {HIT_SORT[order or 'best'].lower()}",
            on_similar=query_picker.set_query_photo,
            start=" ".join(
                [query.key, *(st.query_params.get(name, "") for name in ("more", "less")), f"{page}"]
            ),
            first=page == 1,
            selected=selected,
            on_select=selection.toggle,
            explained=_is_one_picture(query) and (result.region is None or result.region.by_patches),
            both=both,
        )

    second: SearchResult | None = None
    if other is not None:
        with plain_text.errors_as_notices():
            second = _search(query, k, (page - 1) * k, active, other)
    if second is None:
        grid(found, "vs_hits")
    else:
        beside.draw(found, second, grid)
    query_picker.page_buttons("page", page, len(found.hits) == k and more is None, f"Page {page}")
    if found.hits:
        export_menu.draw(active.where, found.hits)
    with above:
        whole = _whole(query, found.space) if page == 1 else None
        if whole is not None:
            _show_whole(whole, found)


def _is_one_picture(query: query_picker.QueryState) -> bool:
    """Whether the picture alone is searched for, without words or further pictures."""
    return not query.words and not any(map(examples.of_address, examples.PARAMETERS))


def sorted_hits(hits: Sequence[Hit], order: PhotoOrder) -> list[Hit]:
    """The hits in another order than that of their scores.

    Args:
        hits: The hits.
        order: The order.
    """
    match order:
        case "name":
            return sorted(hits, key=lambda hit: hit.photo.path)
        case "largest":
            return sorted(hits, key=lambda hit: hit.photo.size, reverse=True)
    dates = {hit.photo.photo_id: hit.photo.date[0] or datetime.min for hit in hits}
    return sorted(hits, key=lambda hit: dates[hit.photo.photo_id], reverse=order == "newest")


def _whole(query: query_picker.QueryState, space: Space) -> WholePhoto | None:
    """The photo that an upload is a part of; looked for once for each upload and state of the library."""
    if query.upload is None or region_box.is_open() or not _is_one_picture(query):
        return None
    key = (query.key, space.fingerprint, space.revision)
    if st.session_state.get("vs_whole_key") != key:
        with query_picker.name_upload_in_errors(query):
            st.session_state["vs_whole_found"] = library().find_whole(query.upload.data)
        st.session_state["vs_whole_key"] = key
    found: WholePhoto | None = st.session_state["vs_whole_found"]
    return found


def _show_whole(whole: WholePhoto, found: SearchResult) -> None:
    plain_text.heading("The picture is a part of this photo")
    label = "The photo that the picture is a part of"
    alone = replace(found, hits=(whole.hit,))
    hit_grid(
        alone,
        key="vs_whole",
        label=label,
        on_similar=query_picker.set_query_photo,
        line=False,
    )


def _search(
    query: query_picker.QueryState, k: int, offset: int, active: Filters, other: Space | None = None
) -> SearchResult:
    """What is found in the current space, or in the one beside it."""
    request = SearchRequest.of(query, active, st.query_params.to_dict())
    asked: SearchOptions = {**request.options, "k": k, "offset": offset}
    if other is not None:
        asked["space"] = other.space_id
    box = region_box.of_address()
    if box is not None and query.picture:
        return _search_region(query, box, asked)
    if asked["min_score"] is not None:
        if not request.is_one_picture:
            if other is None:
                plain_text.notice(
                    "How alike photos are is known for one picture alone, so all hits are shown."
                )
        elif other is not None and not beside.knows(other, active.min_score):
            asked["min_score"] = None
            title = spaces.title(other)
            plain_text.notice(
                f"How alike photos are was not measured for {title}, so all its hits are shown."
            )
    with st.spinner("Looking…"), query_picker.name_upload_in_errors(query):
        return request.run(asked)


def _address_of_more(found: SearchResult, offset: int) -> str | None:
    """Where the grid gets the hits after those of the page."""
    return hit_batch.address_of_more(st.query_params.to_dict(), found, offset)


def _search_region(query: query_picker.QueryState, box: Box, asked: SearchOptions) -> SearchResult:
    alone = _is_one_picture(query) and asked["min_score"] is None
    if not alone and "space" not in asked:  # it is said once
        plain_text.notice(
            "A part is searched for alone: words, other pictures and how alike hits are do not count."
        )
    shown = st.empty()

    def show(done: int, total: int) -> None:
        shown.progress(done / max(1, total), text=f"Looked through {done} of {total} photos…")

    with query_picker.name_upload_in_errors(query):
        found = library().search_region(
            query.picture,
            box,
            k=asked["k"],
            space=asked.get("space"),
            where=asked["where"],
            offset=asked["offset"],
            on_progress=show,
        )
    shown.empty()
    return found


def _title(query: query_picker.QueryState) -> str:
    return (
        "Photos that fit"
        if query.words and query.photo is None and query.upload is None
        else "Photos most like"
    )


def _summary(found: SearchResult) -> str:
    if found.region is not None and found.region.by_patches:
        return f"{found.region.text} It took {found.seconds:.1f} s."
    if found.words and not found.examples:
        return f"Compared with {found.space.vectors:,} pictures, in {found.seconds * 1000:.0f} ms."
    how = "its stored fingerprint" if found.known else "a fingerprint made just now"
    done = f" The best fit is the picture {found.variant.text}." if found.variant.text else ""
    return f"Compared with {found.space.vectors:,} pictures by {how}, in {found.seconds * 1000:.0f} ms.{done}"


def _controls(query: query_picker.QueryState, active: Filters) -> int:
    """New search, filters, and hits a page, which is returned."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="vs_controls"):
        st.button("New search", icon=":material/arrow_back:", on_click=query_picker.clear_query, key="vs_new")
        words.draw("And these words" if query.photo or query.upload else "Words", visible=False, width=260)
        with st.popover("More filters", icon=":material/tune:"):
            filters.draw(active)
            beside.choose()
        page_address.show_in("vs_count", _count())
        st.selectbox(
            "Photos a page",
            COUNTS,
            format_func=lambda count: f"{count} a page",
            key="vs_count",
            on_change=page_address.store,
            args=("k", "vs_count", "page"),
            label_visibility="collapsed",
            width=140,
        )
        region_box.switch(query)
        selection.switch()
        saved_search.draw(query, active)
    filter_bar.draw(active, sort=HIT_SORT, first_sort="best", key="vs_bar")
    return _count()


def _count() -> int:
    return read_count(st.query_params.to_dict())


if __name__ == "__main__":
    st.title("Search", anchor=False)
    with plain_text.errors_as_notices():
        page()
