"""A photo as `grid.js` draws it: its id, its name and where its thumbnail is."""

from __future__ import annotations

import os

from vitmae_search.errors import display_path
from vitmae_search.records import Photo
from vitmae_search.web.components.photo_address import thumb_url


def photo_name(photo: Photo) -> str:
    """The file's name as one line of text."""
    return display_path(os.path.basename(photo.path))


def photo_tile(photo: Photo) -> dict[str, object]:
    """What the browser is sent of a photo."""
    name = photo_name(photo)
    return {"id": photo.photo_id, "name": name, "label": name, "src": thumb_url(photo)}
