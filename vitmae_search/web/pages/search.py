"""The Search page: from a picture to the photos that look most like it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date, datetime, time

import streamlit as st

from vitmae_search.records import Hit, MinScore, SearchFilter, SearchResult, Space, WholePhoto
from vitmae_search.web.components import job_status, plain_text, query_picker, tags
from vitmae_search.web.components.detail import show_photo
from vitmae_search.web.components.grid import hit_grid
from vitmae_search.web.server.session import has_only_samples, library

COUNTS = [12, 24, 48, 96]
DEFAULT_COUNT = 24
# Streamlit's own range is ten years around today; the first photograph is from 1826.
EARLIEST, LATEST = date(1826, 1, 1), date(2100, 1, 1)


def page() -> None:
    """Choose a picture, or see what it found."""
    status = library().status()
    if not status.photos:
        _nothing_yet()
        return
    query = query_picker.current_query()
    if query is None:
        if has_only_samples(status):
            plain_text.sample_banner()
        query_picker.pick_query("Find photos that look like this one")
    else:
        show_results(query)


def _nothing_yet() -> None:
    if not job_status.running_jobs():
        plain_text.empty_library()
        return
    plain_text.empty_state("Your photos are being read", "The first ones can be searched in a moment.")
    job_status.show_running(rerun_if=lambda: library().count_photos() > 0)


def show_results(query: query_picker.QueryState) -> None:
    """The grid of hits, with filters and pages."""
    header = st.container()
    where, k, min_score = _controls()
    above = st.container()  # filled last: what takes longer must not keep the results waiting
    page = query_picker.page_number("page")
    found = _search(query, k, where, (page - 1) * k, min_score)
    with header:
        query_picker.query_header(query, "Photos most like", _summary(found))
    if found.coverage is not None:
        plain_text.notice(found.coverage.text)
    if not found.hits:
        plain_text.notice("No other photo fits. Widen the filters, or go back a page.")
    opened = hit_grid(found, key="vs_hits", label="Search results, best first", on_similar=_more_like)
    query_picker.page_buttons("page", page, len(found.hits) == k, f"Page {page}")
    with above:
        whole = _whole(query, found.space) if page == 1 else None
        if whole is not None:
            opened = _show_whole(whole, found) or opened
    if opened is not None:
        _open(opened, found.hits if whole is None else (*found.hits, whole.hit))


def _whole(query: query_picker.QueryState, space: Space) -> WholePhoto | None:
    """The photo that an upload is a part of; looked for once for each upload and state of the library."""
    if query.upload is None:
        return None
    key = (query.key, space.fingerprint, space.revision)
    if st.session_state.get("vs_whole_key") != key:
        with query_picker.name_upload_in_errors(query):
            st.session_state["vs_whole_found"] = library().find_whole(query.upload.data)
        st.session_state["vs_whole_key"] = key
    found: WholePhoto | None = st.session_state["vs_whole_found"]
    return found


def _show_whole(whole: WholePhoto, found: SearchResult) -> int | None:
    plain_text.heading("The picture is a part of this photo")
    label = "The photo that the picture is a part of"
    alone = replace(found, hits=(whole.hit,))
    return hit_grid(alone, key="vs_whole", label=label, on_similar=_more_like, line=False)


def _more_like(photo_id: int) -> None:
    query_picker.set_query_photo(photo_id, k=str(_count()))


def _search(
    query: query_picker.QueryState, k: int, where: SearchFilter, offset: int, min_score: MinScore
) -> SearchResult:
    if query.photo is not None:
        return library().similar(query.photo.photo_id, k=k, where=where, offset=offset, min_score=min_score)
    data = query.upload.data if query.upload else b""
    with st.spinner("Looking…"), query_picker.name_upload_in_errors(query):
        return library().search(data, k=k, where=where, offset=offset, min_score=min_score)


def _open(photo_id: int, hits: tuple[Hit, ...]) -> None:
    hit = next((hit for hit in hits if hit.photo.photo_id == photo_id), None)
    if hit is not None:
        show_photo(photo_id, hit.score, hit.copies)


def _summary(found: SearchResult) -> str:
    how = "its stored fingerprint" if found.known else "a fingerprint made just now"
    done = f" The best fit is the picture {found.variant.text}." if found.variant.text else ""
    return f"Compared with {found.space.vectors:,} pictures by {how}, in {found.seconds * 1000:.0f} ms.{done}"


def _controls() -> tuple[SearchFilter, int, MinScore]:
    """New search, filters, hits a page, least score. The count is in the address, the rest in the session."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="vs_controls"):
        st.button("New search", icon=":material/arrow_back:", on_click=query_picker.clear_query, key="vs_new")
        with st.popover("Filters", icon=":material/tune:"):
            where, min_score = _filters()
        k = st.selectbox(
            "Photos a page",
            COUNTS,
            index=COUNTS.index(_count()),
            format_func=lambda count: f"{count} a page",
            key="vs_count",
            on_change=_store_count,
            label_visibility="collapsed",
            width=140,
        )
    return where, int(k), min_score


def _count() -> int:
    text = st.query_params.get("k", "")
    return int(text) if text.isdecimal() and int(text) in COUNTS else DEFAULT_COUNT


def _store_count() -> None:
    st.query_params["k"] = str(st.session_state["vs_count"])
    st.query_params.pop("page", None)


def _filters() -> tuple[SearchFilter, MinScore]:
    under = st.text_input(
        "In this folder", key="vs_under", placeholder="a folder's path", on_change=_first_page
    )
    camera = st.text_input("Camera", key="vs_camera", placeholder="part of its name", on_change=_first_page)
    after, before = _day("Taken from", "vs_after"), _day("Taken until", "vs_before")
    tag, min_confidence = tags.tag_filter("vs_tag", _first_page)
    min_score = _least_score()
    st.button("Clear filters", on_click=_clear_filters, key="vs_clear")
    where = SearchFilter(
        under=os.path.abspath(os.path.expanduser(under.strip())) if under.strip() else None,
        camera=camera.strip() or None,
        after=None if after is None else datetime.combine(after, time.min),
        before=None if before is None else datetime.combine(before, time.max),
        tag=tag,
        min_confidence=min_confidence,
    )
    return where, min_score


def _least_score() -> MinScore:
    """Which hits to show, by what their scores mean; nothing to choose where that was not measured."""
    calibration = next((space.calibration for space in library().spaces() if space.current), None)
    if calibration is None:
        return None
    choices: dict[MinScore, str] = {None: "All photos"}
    if calibration.alike is not None:
        choices["alike"] = "Those that are alike"
    if calibration.same is not None:
        choices["same"] = "The same photo"
    return st.selectbox(
        "How alike", list(choices), format_func=choices.__getitem__, key="vs_min_score", on_change=_first_page
    )


def _day(label: str, key: str) -> date | None:
    return st.date_input(
        label, value=None, min_value=EARLIEST, max_value=LATEST, key=key, on_change=_first_page
    )


def _first_page() -> None:
    st.query_params.pop("page", None)


def _clear_filters() -> None:
    for name in ("vs_under", "vs_camera"):
        st.session_state[name] = ""
    for name in ("vs_after", "vs_before", "vs_tag", "vs_min_score"):
        st.session_state[name] = None
    _first_page()


if __name__ == "__main__":
    st.title("Search", anchor=False)
    with plain_text.errors_as_notices():
        page()
