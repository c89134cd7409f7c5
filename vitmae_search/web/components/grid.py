"""The grid of photos: one component, so that a page of a hundred is a single message of a few kilobytes.

The pictures come from `thumb/{id}`, loaded as they scroll into view. A tap on a photo opens it in the viewer
(`viewer.js`), which fills the window; the lens in its corner searches for more like it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple
from functools import partial
from typing import Any

import streamlit as st

from vitmae_search.records import Hit, Photo, SearchResult
from vitmae_search.web.components import plain_text
from vitmae_search.web.components.assets import asset
from vitmae_search.web.components.file_manager import can_reveal, reveal
from vitmae_search.web.components.photo_address import (
    is_foreign,
    library_parameter,
    named_photo,
)
from vitmae_search.web.components.photo_facts import hit_facts
from vitmae_search.web.components.photo_tile import photo_name, photo_tiles
from vitmae_search.web.server.session import library

_mount = st.components.v2.component(
    "vitmae_search_grid",
    html='<ul class="grid"></ul>',
    css=asset("grid.css", "part_outline.css", "viewer.css"),
    js=asset("elements.js", "fetch_picture.js", "part_outline.js", "viewer.js", "grid.js"),
)


TRIGGERS = ("pick", "similar", "reveal")
"""What `grid.js` sends with a photo's id."""

PhotoAction = Callable[[int], None]
"""Called with a photo's id, before the page is drawn anew."""


def photo_grid(
    photos: Sequence[Photo],
    *,
    key: str,
    label: str,
    on_pick: PhotoAction,
    more: str | None = None,
    start: str = "",
    first: bool = True,
    selected: Collection[int] | None = None,
    notes: Mapping[int, str] | None = None,
) -> None:
    """A grid of small tiles to pick a photo from.

    Args:
        photos: The photos.
        key: The component's key in the session.
        label: What the grid shows, for screen readers.
        on_pick: Called with the photo that the visitor taps.
        more: The address of those that follow (`server.routes`), which are asked for as one nears the end.
        start: As for `hit_grid`.
        first: As for `hit_grid`.
        selected: As for `hit_grid`.
        notes: Short texts below photos, by their ids.
    """
    notes = notes or {}
    tiles = [
        {**tile, "note": notes.get(photo.photo_id, "")}
        for photo, tile in zip(photos, photo_tiles(photos), strict=True)
    ]
    data = {"photos": tiles, "label": label, "small": True, "more": more}
    marked = None if selected is None else sorted(selected)
    _draw({**data, "start": start, "first": first, "selected": marked}, key, pick=on_pick)


def browse_grid(
    photos: Sequence[Photo],
    *,
    key: str,
    label: str,
    more: str | None,
    total: int,
    start: str,
    selected: Collection[int] | None = None,
    on_select: PhotoAction | None = None,
) -> None:
    """A grid whose photos open in the viewer; more like one are looked for on the Search page.

    Args:
        photos: The photos.
        key: The component's key in the session.
        label: What the grid shows, for screen readers.
        more: As for `photo_grid`.
        total: How many there are with those that follow.
        start: As for `hit_grid`.
        selected: As for `hit_grid`.
        on_select: As for `hit_grid`.
    """
    data: dict[str, object] = {
        "photos": photo_tiles(photos),
        "label": label,
        "small": False,
        "more": more,
        "total": total,
    }
    marked = None if selected is None else sorted(selected)
    select = {} if on_select is None else {"pick": on_select}
    shown = {**data, "elsewhere": True, "start": start, "first": True, "selected": marked}
    _draw_with_viewer(shown, key, **select)


def hit_grid(
    found: SearchResult,
    *,
    key: str,
    label: str,
    on_similar: PhotoAction,
    line: bool = True,
    more: str | None = None,
    start: str = "",
    first: bool = True,
    selected: Collection[int] | None = None,
    on_select: PhotoAction | None = None,
    explained: bool = False,
    both: Collection[int] = (),
) -> None:
    """A grid of search results with their scores, and a line where they are no longer alike.

    Args:
        found: The results.
        key: The component's key in the session.
        label: What the grid shows, for screen readers.
        on_similar: Called with the photo that the visitor asks for more like.
        line: Draw the line.
        more: As for `photo_grid`.
        start: Names what is shown. Where it changes, the window is moved to the first photo.
        first: Whether it is the first page: then the window is moved to the top of the page.
        selected: Given while photos are selected: the ids of those that are, which get a frame.
        on_select: Called with the photo that the visitor taps while photos are selected.
        explained: The viewer offers to say why a photo matched.
        both: Contents that are marked, as another space found them, too.
    """
    tiles = hit_tiles(found, line=line)
    for tile, hit in zip(tiles, found.hits, strict=True):
        if hit.photo.content_id in both:
            tile |= {"note": f"{tile['note']} · both", "label": f"{tile['label']}, in both"}
    data: dict[str, object] = {
        "photos": tiles,
        "label": label,
        "small": False,
        "more": more,
        "start": start,
        "first": first,
    }
    data["selected"] = None if selected is None else sorted(selected)
    data["explained"] = found.space.space_id if explained else None
    select = {} if on_select is None else {"pick": on_select}
    _draw_with_viewer(data, key, similar=on_similar, **select)


def hit_tiles(found: SearchResult, *, line: bool) -> list[dict[str, object]]:
    """What the browser is sent of search results.

    Args:
        found: The results.
        line: Whether to draw the line where they are no longer alike.
    """
    tiles = _hit_tiles(found.hits)
    for tile, hit in zip(tiles, found.hits, strict=True):
        tile["stack"] = _hit_tiles(hit.stacked)
    if line and found.first_unlike is not None:
        tiles[found.first_unlike]["line"] = "From here on no longer alike"
    return tiles


def _hit_tiles(hits: Sequence[Hit]) -> list[dict[str, object]]:
    tiles = photo_tiles(hit.photo for hit in hits)
    for tile, hit in zip(tiles, hits, strict=True):
        note = f"{hit.score:.3f}"
        tile |= {"note": note, "similar": True, "label": _hit_label(hit), "facts": hit_facts(hit)}
        if hit.box is not None:
            tile["box"] = astuple(hit.box)
    return tiles


def _hit_label(hit: Hit) -> str:
    return f"{photo_name(hit.photo)}, rank {hit.rank}, score {hit.score:.3f}"


def _draw_with_viewer(data: dict[str, object], key: str, **actions: PhotoAction) -> None:
    """Draw a grid whose photos open in the viewer."""
    _draw({**data, **viewer_data()}, key, **actions, reveal=reveal_photo)


def viewer_data() -> dict[str, object]:
    """What `viewer.js` is told. The address may name a photo that is not in the grid."""
    foreign = is_foreign()
    opened = None if foreign else named_photo("open")
    return {
        "viewer": True,
        "opened": None if opened is None else photo_tiles([opened])[0],
        "named": None if foreign else st.query_params.get("library"),
        "local": can_reveal(),
        **library_parameter(),
    }


def reveal_photo(photo_id: int) -> None:
    """Show a photo in the file manager, where the visitor is at the machine itself."""
    photo = library().photo(photo_id)
    if photo is not None and can_reveal() and not reveal(photo.file):
        plain_text.queue_notice("The file manager could not be opened.", "problem")


def _draw(data: dict[str, object], key: str, **actions: PhotoAction) -> None:
    """Mount the component; `actions` are called by the name of their trigger."""

    def call(trigger: str) -> None:
        photo_id = _photo_id(st.session_state[key].get(trigger))
        if trigger in actions and photo_id is not None:
            actions[trigger](photo_id)

    # Streamlit accepts a component's trigger only if it has a callback.
    callbacks: dict[str, Any] = {f"on_{name}_change": partial(call, name) for name in TRIGGERS}
    _mount(key=key, data=data, **callbacks)


def _photo_id(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
