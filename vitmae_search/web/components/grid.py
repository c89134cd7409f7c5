"""The grid of photos: one component, so that a page of a hundred is a single message of a few kilobytes.

The pictures come from `thumb/{id}`, loaded as they scroll into view. A tap on a photo opens it large;
the lens in its corner searches for more like it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from vitmae_search.errors import display_path
from vitmae_search.records import Hit, Photo, SearchResult
from vitmae_search.web.components.photo_address import thumb_url

_ASSETS = Path(__file__).resolve().parents[1] / "assets"

_mount = st.components.v2.component(
    "vitmae_search_grid",
    html='<ul class="grid"></ul>',
    css=(_ASSETS / "grid.css").read_text(encoding="utf-8"),
    js="\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in ("fetch_picture.js", "grid.js")),
)


def photo_name(photo: Photo) -> str:
    """The file's name as one line of text."""
    return display_path(os.path.basename(photo.path))


PhotoAction = Callable[[int], None]
"""Called with a photo's id, before the page is drawn anew."""


def photo_grid(
    photos: Sequence[Photo],
    *,
    key: str,
    label: str,
    on_pick: PhotoAction,
    start: str,
    first: bool,
    selected: Collection[int] | None = None,
) -> None:
    """A grid of small tiles to pick a photo from.

    Args:
        photos: The photos.
        key: The component's key in the session.
        label: What the grid shows, for screen readers.
        on_pick: Called with the photo that the visitor taps.
        start: As for `hit_grid`.
        first: As for `hit_grid`.
        selected: As for `hit_grid`.
    """
    data = {"photos": [_tile(photo) for photo in photos], "label": label, "small": True}
    marked = None if selected is None else sorted(selected)
    _draw({**data, "start": start, "first": first, "selected": marked}, key, on_open=on_pick)


def hit_grid(
    found: SearchResult,
    *,
    key: str,
    label: str,
    on_open: PhotoAction,
    on_similar: PhotoAction,
    line: bool = True,
    start: str = "",
    first: bool = True,
    on_leave: Callable[[], None] | None = None,
    selected: Collection[int] | None = None,
) -> None:
    """A grid of search results with their scores, and a line where they are no longer alike.

    Args:
        found: The results.
        key: The component's key in the session.
        label: What the grid shows, for screen readers.
        on_open: Called with the photo that the visitor taps.
        on_similar: Called with the photo whose lens the visitor taps.
        line: Draw the line.
        start: Names what is shown. Where it changes, the window is moved to the first photo.
        first: Whether it is the first page: then the window is moved to the top of the page.
        on_leave: Given where an open photo was closed: the browser goes back to before it was opened, or
            calls this where it does not know that step.
        selected: Given while photos are selected: the ids of those that are, which get a frame.
    """
    tiles = [{**_hit_tile(hit), "stack": [_hit_tile(other) for other in hit.stacked]} for hit in found.hits]
    if line and found.first_unlike is not None:
        tiles[found.first_unlike]["line"] = "From here on no longer alike"
    data = {"photos": tiles, "label": label, "small": False, "start": start, "first": first}
    marked = None if selected is None else sorted(selected)
    _draw({**data, "leave": on_leave is not None, "selected": marked}, key, on_open, on_similar, on_leave)


def _tile(photo: Photo) -> dict[str, object]:
    name = photo_name(photo)
    return {"id": photo.photo_id, "name": name, "label": name, "src": thumb_url(photo)}


def _hit_tile(hit: Hit) -> dict[str, object]:
    return {**_tile(hit.photo), "note": f"{hit.score:.3f}", "similar": True, "label": _hit_label(hit)}


def _hit_label(hit: Hit) -> str:
    return f"{photo_name(hit.photo)}, rank {hit.rank}, score {hit.score:.3f}"


def _draw(
    data: dict[str, object],
    key: str,
    on_open: PhotoAction,
    on_similar: PhotoAction | None = None,
    on_leave: Callable[[], None] | None = None,
) -> None:
    def call(action: PhotoAction | None, trigger: str) -> None:
        photo_id = _photo_id(st.session_state[key].get(trigger))
        if action is not None and photo_id is not None:
            action(photo_id)

    # Streamlit accepts a component's trigger only if it has a callback.
    _mount(
        key=key,
        data=data,
        on_open_change=partial(call, on_open, "open"),
        on_similar_change=partial(call, on_similar, "similar"),
        on_leave_change=on_leave or (lambda: None),
    )


def _photo_id(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
