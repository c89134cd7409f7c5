"""The picture that a visitor searches with or looks at: how it is picked, kept and shown.

It is kept in the page's address, so that reload, bookmarks and the back button work: `?photo=ID` is a photo
of the library (see `photo_address`), `?upload=TOKEN` a picture that the visitor uploaded. A search may have
words in its place or beside it (see `words`).
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html import escape
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vitmae_search.errors import PhotoError, VitmaeSearchError, display_path
from vitmae_search.library.previews import UPLOAD_SUFFIXES, can_decode_raw
from vitmae_search.records import Photo, SearchFilter, Words
from vitmae_search.settings import settings
from vitmae_search.web.components import filters, plain_text, tags
from vitmae_search.web.components.browse_batch import next_batch
from vitmae_search.web.components.filter_parameters import PARAMETERS
from vitmae_search.web.components.grid import photo_grid
from vitmae_search.web.components.mask_parameters import KEPT_WITH_PICTURE
from vitmae_search.web.components.photo_address import (
    is_foreign,
    named_photo,
    photo_parameters,
    thumb_url,
)
from vitmae_search.web.components.photo_tile import photo_name
from vitmae_search.web.server.session import Upload, library, uploads

KEPT = ("k", "sort", "beside", filters.STACKS, *PARAMETERS, *KEPT_WITH_PICTURE)
"""The parameters of the address that are kept from one query to the next."""
FOREIGN = "This address is of a photo in another library, which is not open here. Choose a photo of this one."

_SIDE = 112
"""Of the small picture, in pixels of the page."""


@dataclass(frozen=True, slots=True)
class QueryState:
    """The picture that the page's address names, a photo or an upload; and words, or words alone."""

    photo: Photo | None = None
    upload: Upload | None = None
    words: str = ""

    @property
    def name(self) -> str:
        """The file's name and the words, as one line of text."""
        words = f"“{display_path(self.words)}”" if self.words else ""
        return " and ".join(filter(None, [self._file_name, words]))

    @property
    def _file_name(self) -> str:
        if self.photo is not None:
            return photo_name(self.photo)
        return display_path(self.upload.name) if self.upload else ""

    @property
    def wanted(self) -> list[int | bytes | Words]:
        """The picture and the words, as `Library.search_examples` takes them."""
        picture: list[int | bytes | Words] = (
            [] if self.photo is None and self.upload is None else [self.picture]
        )
        return [*picture, *([Words(self.words)] if self.words else [])]

    @property
    def picture(self) -> int | bytes:
        """What `Library.reconstruct` takes."""
        if self.photo is not None:
            return self.photo.photo_id
        return self.upload.data if self.upload else b""

    @property
    def key(self) -> str:
        """Names the query's content; equal keys are equal queries."""
        words = f" words {self.words}" if self.words else ""
        if self.photo is not None:
            return f"photo {self.photo.photo_id} {self.photo.digest}{words}"
        return f"upload {self.upload.token}{words}" if self.upload else words


def current_query() -> QueryState | None:
    """The picture that the address names. None where it names none, or one that is gone, with a notice."""
    if "photo" in st.query_params:
        if is_foreign():
            plain_text.notice(FOREIGN, "problem")
            return None
        photo = named_photo("photo")
        if photo is not None:
            return QueryState(photo=photo)
        plain_text.notice("That photo is not in the library any more. Choose another one.", "problem")
    elif "upload" in st.query_params:
        upload = uploads.get(st.query_params["upload"])
        if upload is not None:
            return QueryState(upload=upload)
        plain_text.notice("That picture was not kept. Choose it again, or another one.")
    return None


def read_picture(parameters: Mapping[str, str]) -> QueryState | None:
    """The picture that an address names; None where it names none, or one that is gone.

    Raises:
        VitmaeSearchError: The catalogue, which may have the upload, does not answer.
    """
    text = parameters.get("photo", "")
    photo = library().photo(int(text)) if text.isdecimal() and len(text) < 19 else None
    upload = uploads.get(parameters["upload"]) if "upload" in parameters and photo is None else None
    return None if photo is None and upload is None else QueryState(photo=photo, upload=upload)


def names_picture() -> bool:
    """Whether the address names a picture, even one that is gone."""
    return "photo" in st.query_params or "upload" in st.query_params


def parameters() -> dict[str, str]:
    """The parameters of the address that name the picture, for the address of another page."""
    named = ("photo", "upload", "library", "model")
    return {name: value for name, value in st.query_params.to_dict().items() if name in named}


def set_query_photo(photo_id: int) -> None:
    """Make a photo of the library the query; filters and the number of photos a page stay."""
    st.query_params.from_dict({**_kept(KEPT), **photo_parameters(photo_id)})


def _kept(names: Collection[str]) -> dict[str, str]:
    return {name: value for name, value in st.query_params.to_dict().items() if name in names}


def clear_query() -> None:
    """Go back to picking a query; a model that was chosen stays, and what is hidden on Reconstructions."""
    st.query_params.from_dict(_kept(KEPT_WITH_PICTURE))


@contextmanager
def name_upload_in_errors(query: QueryState) -> Iterator[None]:
    """Put the name of an upload into errors about it: it has no path."""
    try:
        yield
    except PhotoError as error:
        if query.upload is None or error.path is not None:
            raise
        raise PhotoError(query.upload.name, error.reason) from error


def pick_query(label: str) -> None:
    """Let the visitor upload a picture, under this label, or pick a photo of the library."""
    st.html(f'<style>.st-key-vs_upload {{ --vs-upload: "{_what_may_be_uploaded()}"; }}</style>')
    st.file_uploader(label, type=UPLOAD_SUFFIXES, key="vs_upload", on_change=_store_upload)
    if settings().web_pictures:
        _pick_address()
    if library().status().photos:
        _browse()


def _what_may_be_uploaded() -> str:
    raw = ", RAW included" if can_decode_raw() else ""
    return f"Any photo{raw}, up to {int(st.get_option('server.maxUploadSize'))} MB"


def _store_upload() -> None:
    """A callback, since a page's address is best changed before the page is drawn."""
    file = st.session_state.get("vs_upload")
    if file is not None:
        _set_upload(uploads.add(file.name, file.getvalue()))


def _set_upload(token: str) -> None:
    st.query_params.from_dict({**_kept(KEPT_WITH_PICTURE), "upload": token})


def _pick_address() -> None:
    """A field for the address of a picture on the web, which this machine then fetches."""
    with st.form("vs_web"), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Or the address of a picture on the web",
            key="vs_web_address",
            placeholder="https://",
            max_chars=2000,
            help="This machine fetches it from there. Your photos are sent nowhere.",
        )
        st.form_submit_button("Fetch", icon=":material/cloud_download:", on_click=_store_fetched)


def _store_fetched() -> None:
    address = st.session_state["vs_web_address"].strip()
    if not address:
        return
    try:
        data = library().fetch_picture(address)
    except VitmaeSearchError as error:
        plain_text.queue_notice(plain_text.as_sentence(error), "problem")
        return
    name = address.partition("?")[0].rstrip("/").rpartition("/")[2] or "picture"
    _set_upload(uploads.add(name[:200], data))


def _browse() -> None:
    st.subheader("Or start from one of yours", anchor=False)
    with st.container(width=320):
        tags.draw_tag_filter("browse_tag", "browse")
    tag, min_confidence = tags.tag_of_address("browse_tag")
    where = SearchFilter(tag=tag, min_confidence=min_confidence)
    total = library().count_photos(where)
    if not total:
        plain_text.notice("No photo has this tag with that confidence.")
    asked = {"tag": tag, "tag_sure": str(round(100 * min_confidence))} if tag else {}
    photos, more = next_batch(where, "newest", asked)
    label = "Photos of the library, newest first"
    photo_grid(photos, key="vs_browse", label=label, on_pick=set_query_photo, more=more, start=f"{asked}")


def page_number(name: str, last: int | None = None) -> int:
    """The number of the current page of results, from 1.

    Args:
        name: The address's parameter that holds it.
        last: The last page there is, None where that is not known.
    """
    text = st.query_params.get(name, "1")
    page = max(1, int(text)) if text.isdecimal() and len(text) < 9 else 1
    return page if last is None else min(page, max(1, last))


def page_buttons(name: str, page: int, more: bool, label: str) -> None:
    """Buttons to the page before and after; nothing where there is only one page.

    Args:
        name: The address's parameter that holds the page's number.
        page: The current page, from 1.
        more: Whether another page follows.
        label: Plain text between the buttons.
    """
    if page == 1 and not more:
        return
    with st.container(horizontal=True, horizontal_alignment="center", vertical_alignment="center"):
        _page_button("Back", ":material/chevron_left:", name, page - 1, disabled=page == 1)
        st.html(f'<span class="vs-page">{escape(label)}</span>', width="content")
        _page_button("More", ":material/chevron_right:", name, page + 1, disabled=not more)


def _page_button(label: str, icon: str, name: str, target: int, *, disabled: bool) -> None:
    st.button(
        label,
        icon=icon,
        key=f"vs_{name}_{label}",
        disabled=disabled,
        on_click=_go_to_page,
        args=(name, target),
    )


def _go_to_page(name: str, target: int) -> None:
    st.query_params[name] = str(target)


def query_header(query: QueryState, title: str) -> DeltaGenerator:
    """The query, small, with what the page does with it.

    It is drawn before anything is computed, with room for the summary of the result, so that what is below it
    does not move under the pointer.

    Args:
        query: The picture.
        title: Plain text before the picture's name.

    Returns:
        Where the summary goes, once it is known.
    """
    source = ""
    with suppress(PhotoError):  # what is computed of it says so
        source = picture_url(query)
    # A browser has this height from the start. With page.css, a little later, long names may have more.
    height: int | Literal["content"] = _SIDE if source else "content"
    with st.container(
        horizontal=True, vertical_alignment="center", key="vs_query", height=height, border=False
    ):
        if source:
            image = f'<img src="{escape(source)}" width="{_SIDE}" height="{_SIDE}" alt="">'
            st.html(f'<div class="vs-query">{image}</div>', width="content")
        with st.container(gap=None):
            st.html(
                f'<div class="vs-query-name"><p class="vs-lead" style="margin: 0">{escape(title)}</p>'
                f'<p class="vs-name" style="margin: 0 0 4px">{escape(query.name)}</p></div>'
            )
            return st.container(key="vs_query_summary")


def picture_url(query: QueryState) -> str:
    """Where the picture is, small."""
    if query.photo is not None:
        return thumb_url(query.photo)
    if query.upload is None:
        return ""
    return "data:image/webp;base64," + base64.b64encode(query.upload.preview).decode("ascii")
