"""The dialog of one photo: large, with its facts, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.records import Photo, Tag
from vitmae_search.web.components import plain_text
from vitmae_search.web.components.grid import photo_name
from vitmae_search.web.components.photo_address import photo_parameters, photo_url
from vitmae_search.web.components.query_picker import set_query_photo
from vitmae_search.web.server.session import library

_DATE_SOURCES = {"GPS": "from GPS, in UTC", "file name": "from the file's name", "file": "the file's time"}


def _dismiss() -> None:
    st.session_state["vs_dismissed"] = st.query_params.get("open")


@st.dialog("Photo", width="medium", on_dismiss=_dismiss)
def show_photo(photo_id: int, score: float | None = None, copies: tuple[str, ...] = ()) -> None:
    """Open the dialog.

    Args:
        photo_id: The photo.
        score: Its score in the search that found it.
        copies: The paths of its copies.
    """
    photo = library().photo(photo_id)
    if photo is None:
        plain_text.notice("This photo is not in the library any more.", "problem")
        return
    address = escape(photo_url(photo), quote=True)
    st.html(
        f'<a class="vs-large" href="{address}" target="_blank" rel="noopener" title="Open at full size">'
        f'<img src="{address}" alt="{escape(photo_name(photo), quote=True)}"></a>'
    )
    _actions(photo)
    plain_text.facts(photo_facts(photo, score, copies) + tag_facts(library().tags(photo.photo_id)))


def _actions(photo: Photo) -> None:
    with st.container(horizontal=True):
        if st.button("More like this", icon=":material/search:", type="primary", key="vs_detail_similar"):
            set_query_photo(photo.photo_id)
            st.rerun()
        if st.button("What the model sees", icon=":material/grid_view:", key="vs_detail_reconstruct"):
            st.switch_page("../pages/reconstructions.py", query_params=photo_parameters(photo.photo_id))


def photo_facts(photo: Photo, score: float | None, copies: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name, value) of what is known of a photo.

    Args:
        photo: The photo.
        score: Its score in the search that found it.
        copies: The paths of its copies.
    """
    meta = photo.metadata
    rows = [("File", display_path(photo.path))]
    rows += [("Also at", display_path(copy)) for copy in copies]
    if score is not None:
        rows.append(("Score", f"{score:.4f}  (1 is the same picture)"))
    if photo.missing:
        rows.append(("State", "not on disk any more"))
    date, source = photo.date
    if date is not None:
        rows.append(("Taken", f"{date:%d %B %Y, %H:%M} ({_DATE_SOURCES.get(source, source)})"))
    if meta.camera:
        rows.append(("Camera", meta.camera))
    if meta.latitude is not None and meta.longitude is not None:
        rows.append(("Place", _place(meta.latitude, meta.longitude)))
    rows.append(("Size", f"{meta.width} × {meta.height} pixels, {file_size(photo.size)}, {meta.format}"))
    rows += [("Note", note) for note in meta.notes]
    if photo.changed_at is not None:
        rows.append(("Changed", f"{photo.changed_at:%d %B %Y, %H:%M}"))
    return rows


def tag_facts(tags: Sequence[Tag]) -> list[tuple[str, str]]:
    """(name, value): the tags of each classifier with their confidence."""
    texts: dict[str, list[str]] = {}
    for tag in tags:
        texts.setdefault(tag.classifier, []).append(f"{display_path(tag.name)} ({tag.confidence:.0%})")
    # A single classifier need not be named.
    names = ["Tags"] if len(texts) == 1 else [f"Tags by {display_path(name)}" for name in texts]
    return [(name, ", ".join(found)) for name, found in zip(names, texts.values(), strict=True)]


def file_size(size: int) -> str:
    """A size in bytes as people read it: 812 kB, 3.4 MB."""
    if size < 1000:
        return f"{size} bytes"
    for unit in ("kB", "MB", "GB"):
        size_in_unit = size / 1000.0
        if size_in_unit < 999.5 or unit == "GB":
            return f"{size_in_unit:.1f} {unit}" if size_in_unit < 10 else f"{size_in_unit:.0f} {unit}"
        size = round(size_in_unit)
    raise AssertionError


def _place(latitude: float, longitude: float) -> str:
    north, east = ("N" if latitude >= 0 else "S"), ("E" if longitude >= 0 else "W")
    return f"{abs(latitude):.5f}° {north}, {abs(longitude):.5f}° {east}"
