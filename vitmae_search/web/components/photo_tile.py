"""Photos as `grid.js` draws them: id, name, and where the thumbnail is."""

from __future__ import annotations

import os
from collections.abc import Iterable

from vitmae_search.errors import display_path
from vitmae_search.records import Photo
from vitmae_search.web.components.listed_digests import remember_listed
from vitmae_search.web.components.photo_address import library_in_thumb_urls, thumb_url
from vitmae_search.web.server.session import library


def photo_name(photo: Photo) -> str:
    """The file's name as one line of text; of a video's frame with its time."""
    name, frame = display_path(os.path.basename(photo.file)), photo.frame
    return name if frame is None else f"{name} {frame.time}"


def photo_tiles(photos: Iterable[Photo]) -> list[dict[str, object]]:
    """What the browser is sent of photos."""
    named, listed = library_in_thumb_urls(), list(photos)
    remember_listed(library().folder, listed)
    return [_tile(photo, named) for photo in listed]


def _tile(photo: Photo, named: str) -> dict[str, object]:
    name = photo_name(photo)
    tile: dict[str, object] = {
        "id": photo.photo_id,
        "name": name,
        "label": name,
        "src": thumb_url(photo, named),
    }
    return tile if photo.frame is None else {**tile, "seconds": photo.frame.seconds}
