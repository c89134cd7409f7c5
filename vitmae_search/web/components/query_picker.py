"""What the person asks with, kept in the page's address, so that reload, bookmarks and the back button work.

`?photo=ID` is a photo of the library, `?upload=TOKEN` a picture that was brought along.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape

import streamlit as st

from vitmae_search.errors import PhotoError, display_path
from vitmae_search.records import Photo, SearchFilter
from vitmae_search.web.components import plain_text
from vitmae_search.web.components.grid import photo_grid, photo_name, thumb_url
from vitmae_search.web.components.tags import tag_filter
from vitmae_search.web.server.session import Upload, library, uploads

SUFFIXES = ["jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "heic", "heif"]
BROWSE_PAGE = 24


@dataclass(frozen=True, slots=True)
class Asked:
    """The picture of this page's address: one of the two is set."""

    photo: Photo | None = None
    upload: Upload | None = None

    @property
    def name(self) -> str:
        if self.photo is not None:
            return photo_name(self.photo)
        return display_path(self.upload.name) if self.upload else ""

    @property
    def picture(self) -> int | bytes:
        """What `Library.reconstruct` takes."""
        if self.photo is not None:
            return self.photo.photo_id
        return self.upload.data if self.upload else b""

    @property
    def key(self) -> str:
        if self.photo is not None:
            return f"photo {self.photo.photo_id} {self.photo.digest}"
        return f"upload {self.upload.token}" if self.upload else ""


def asked() -> Asked | None:
    """The picture that the address names, or None; one that is gone is said and dropped."""
    if "photo" in st.query_params:
        text = st.query_params["photo"]
        photo = library().photo(int(text)) if text.isdecimal() and len(text) < 19 else None
        if photo is not None:
            return Asked(photo=photo)
        plain_text.notice("That photo is not in the library any more. Choose another one.", "problem")
    elif "upload" in st.query_params:
        upload = uploads.get(st.query_params["upload"])
        if upload is not None:
            return Asked(upload=upload)
        plain_text.notice("That picture was not kept. Choose it again, or another one.")
    return None


@contextmanager
def named(asked: Asked) -> Iterator[None]:
    """An upload has no path, so errors about it get its name."""
    try:
        yield
    except PhotoError as error:
        if asked.upload is None or error.path is not None:
            raise
        raise PhotoError(asked.upload.name, error.reason) from error


def ask_photo(photo_id: int, **others: str) -> None:
    """Ask with a photo of the library from now on."""
    st.query_params.from_dict({**others, "photo": str(photo_id)})


def forget() -> None:
    """Ask with nothing: back to choosing."""
    st.query_params.clear()


def choose(intro: str) -> None:
    """Upload a picture, or pick one of the library's. Either goes into the address."""
    st.file_uploader(intro, type=SUFFIXES, key="vs_upload", on_change=_take_upload)
    if library().status().photos:
        _browse()


def _take_upload() -> None:
    """A callback, because a page's address is best changed before it is drawn."""
    file = st.session_state.get("vs_upload")
    if file is not None:
        st.query_params.from_dict({"upload": uploads.add(file.name, file.getvalue())})


def _browse() -> None:
    st.subheader("Or start from one of yours", anchor=False)
    with st.container(width=320):
        tag, sure = tag_filter("vs_browse_tag", _first_of_browse)
    where = SearchFilter(tag=tag, min_confidence=sure)
    total = library().count_photos(where)
    if not total:
        plain_text.notice("No photo has this tag with that confidence.")
    pages = max(1, -(-total // BROWSE_PAGE))
    page = page_number("browse", pages)
    photos = library().photos(where, offset=(page - 1) * BROWSE_PAGE, limit=BROWSE_PAGE)
    label = "Photos of the library, newest first"
    photo_grid(photos, key="vs_browse", label=label, on_pick=ask_photo, small=True)
    turn_page("browse", page, page < pages, f"Page {page} of {pages:,}")


def _first_of_browse() -> None:
    st.query_params.pop("browse", None)


def page_number(name: str, last: int | None = None) -> int:
    """The page that the address names, from 1."""
    text = st.query_params.get(name, "1")
    page = max(1, int(text)) if text.isdecimal() and len(text) < 9 else 1
    return page if last is None else min(page, max(1, last))


def turn_page(name: str, page: int, more: bool, label: str) -> None:
    """Two buttons that change the page in the address; nothing where there is only one page."""
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


def header(asked: Asked, lead: str, detail: str) -> None:
    """The picture that was asked with, small, and what the page does with it."""
    st.html(
        f'<div class="vs-asked"><img src="{_small(asked)}" alt=""><div>'
        f'<p class="vs-lead">{escape(lead)}</p><p class="vs-name">{escape(asked.name)}</p>'
        f'<p class="vs-hint">{escape(detail)}</p></div></div>'
    )


def _small(asked: Asked) -> str:
    if asked.photo is not None:
        return escape(thumb_url(asked.photo))
    data = asked.upload.preview if asked.upload else b""
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")
