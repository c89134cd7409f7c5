"""The grid of photos: one component, so that a page of a hundred is one message of a few kilobytes.

The pictures come from `/thumb/{id}`, loaded as they scroll into view. A tap on a photo opens it large;
the lens in its corner searches for more like it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.records import Hit, Photo

_ASSETS = Path(__file__).resolve().with_name("assets")

_mount = st.components.v2.component(
    "vitmae_search_grid",
    html='<ul class="grid"></ul>',
    css=(_ASSETS / "grid.css").read_text(encoding="utf-8"),
    js=(_ASSETS / "grid.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the person did in this run: the photo to open, or the photo to search by."""

    open: int | None
    similar: int | None


def photo_name(photo: Photo) -> str:
    """The file's name as one line of text."""
    return display_path(os.path.basename(photo.path))


def thumb_url(photo: Photo) -> str:
    """The digest's start makes the address change with the content, so a browser may keep it for ever."""
    return f"/thumb/{photo.photo_id}?v={photo.digest[:12]}"


def photo_grid(photos: Sequence[Photo], *, key: str, label: str, small: bool = False) -> int | None:
    """A grid to pick from. Returns the id of the photo that was picked in this run."""
    tiles = [_tile(photo) for photo in photos]
    return _draw(tiles, key=key, label=label, small=small).open


def hit_grid(hits: Sequence[Hit], *, key: str, label: str) -> Chosen:
    """A grid of search results with their scores."""
    tiles = [
        {**_tile(hit.photo), "note": f"{hit.score:.3f}", "similar": True, "label": _hit_label(hit)}
        for hit in hits
    ]
    return _draw(tiles, key=key, label=label, small=False)


def _tile(photo: Photo) -> dict[str, object]:
    name = photo_name(photo)
    return {"id": photo.photo_id, "name": name, "label": name, "src": thumb_url(photo)}


def _hit_label(hit: Hit) -> str:
    return f"{photo_name(hit.photo)}, rank {hit.rank}, score {hit.score:.3f}"


def _draw(tiles: list[dict[str, object]], *, key: str, label: str, small: bool) -> Chosen:
    result = _mount(
        key=key,
        data={"photos": tiles, "label": label, "small": small},
        on_open_change=_noted,
        on_similar_change=_noted,
    )
    return Chosen(_photo_id(result.get("open")), _photo_id(result.get("similar")))


def _noted() -> None:
    """Streamlit hands a trigger back only where a callback is named."""


def _photo_id(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
