"""The Albums page: favourites, ratings, albums and saved searches, and many photos at once."""

from __future__ import annotations

from functools import partial
from html import escape

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.records import SearchFilter
from vitmae_search.web.components import page_address, plain_text, query_picker, saved_search, selection
from vitmae_search.web.components.grid import photo_grid
from vitmae_search.web.components.photo_address import library_parameter
from vitmae_search.web.server.session import library

PAGE_SIZE = 48
STARS = ["any rating", *("★" * stars + " or more" for stars in range(1, 5)), "★★★★★"]


def page() -> None:
    """Photos that pass the filters, with what can be done with many of them; then albums and searches."""
    plain_text.show_queued_notice()
    if not library().status().photos:
        plain_text.empty_library()
        return
    where = _filter()
    _controls(where)
    total = library().count_photos(where)
    pages = max(1, -(-total // PAGE_SIZE))
    number = query_picker.page_number("page", pages)
    photos = library().photos(where, offset=(number - 1) * PAGE_SIZE, limit=PAGE_SIZE)
    plain_text.hint("1 photo" if total == 1 else f"{total:,} photos")
    selected = selection.selected()
    selection.bar(lambda: [photo.photo_id for photo in photos], album=where.album)
    photo_grid(
        photos,
        key="vs_album_photos",
        label="Photos that pass the filters, newest first",
        on_pick=_search_for if selected is None else selection.toggle,
        start=f"{where} {number}",
        first=number == 1,
        selected=selected,
    )
    if st.session_state.pop("vs_album_search", False):
        st.switch_page("../pages/search.py", query_params=st.session_state.pop("vs_album_query"))
    query_picker.page_buttons("page", number, number < pages, f"Page {number} of {pages:,}")
    _albums()
    _saved_searches()


def _filter() -> SearchFilter:
    stars = st.query_params.get("rating", "")
    album = st.query_params.get("album")
    return SearchFilter(
        favourite=st.query_params.get("favourites") == "on",
        min_rating=int(stars) if stars in set("12345") else 0,
        album=album if album in library().albums() else None,
    )


def _controls(where: SearchFilter) -> None:
    albums = library().albums()
    with st.container(horizontal=True, vertical_alignment="bottom", key="vs_album_controls"):
        page_address.show_in("vs_only_favourites", where.favourite)
        st.toggle("Favourites", key="vs_only_favourites", on_change=_store_favourites)
        page_address.show_in("vs_stars", where.min_rating)
        st.selectbox(
            "Rating",
            range(6),
            format_func=STARS.__getitem__,
            key="vs_stars",
            on_change=_store_stars,
            width=180,
        )
        page_address.show_in("vs_album", where.album)
        st.selectbox(
            "Album",
            list(albums),
            format_func=lambda name: f"{display_path(name)} ({albums[name]:,})",
            key="vs_album",
            placeholder="any",
            on_change=page_address.store,
            args=("album", "vs_album", "page"),
            width=260,
        )
        selection.switch()


def _store_favourites() -> None:
    page_address.update_address(
        favourites="on" if st.session_state["vs_only_favourites"] else None, page=None
    )


def _store_stars() -> None:
    page_address.update_address(rating=str(st.session_state["vs_stars"] or "") or None, page=None)


def _search_for(photo_id: int) -> None:
    st.session_state["vs_album_search"] = True
    st.session_state["vs_album_query"] = {"photo": str(photo_id), **library_parameter()}


def _albums() -> None:
    albums = library().albums()
    if not albums:
        return
    plain_text.heading("Albums")
    # Keys have names: with numbers, the second half of a double click would act on the next album.
    for name, photos in albums.items():
        with st.container(horizontal=True, vertical_alignment="center"):
            plain_text.hint(f"{display_path(name)}, {photos:,} photos")
            st.button(
                "Show", key=f"vs_show_{name}", on_click=page_address.update_address, kwargs={"album": name}
            )
            with st.popover("Rename"):
                st.text_input("New name", key=f"vs_rename_{name}", max_chars=200)
                st.button(
                    "Rename",
                    key=f"vs_rename_now_{name}",
                    on_click=plain_text.attempt,
                    args=(partial(_rename, name),),
                )
            st.button(
                "Delete",
                key=f"vs_delete_{name}",
                on_click=plain_text.attempt,
                args=(partial(library().delete_album, name),),
            )


def _rename(name: str) -> None:
    library().rename_album(name, st.session_state[f"vs_rename_{name}"])


def _saved_searches() -> None:
    found = library().saved_searches()
    if not found:
        return
    plain_text.heading("Saved searches")
    for saved in found:
        with st.container(horizontal=True, vertical_alignment="center"):
            address = escape(saved_search.address(saved), quote=True)
            st.html(
                f'<a href="{address}" target="_self">{escape(display_path(saved.name))}</a>', width="content"
            )
            st.button(
                "Delete",
                key=f"vs_unsave_{saved.name}",
                on_click=plain_text.attempt,
                args=(partial(library().delete_search, saved.name),),
            )


if __name__ == "__main__":
    st.title("Albums", anchor=False)
    with plain_text.errors_as_notices():
        page()
