"""An area of the map in a page's address: `?area=tsne_12345.45678_20000.45100_...`.

The method of the map, and the corners of a polygon on it, in hundred-thousandths of its width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast, get_args

from vitmae_search.errors import LibraryError
from vitmae_search.records import MapMethod
from vitmae_search.web.server.session import library

PROBLEM = "The map that this area was drawn on is not there any more. Draw it anew on the Map page."
MOST_CORNERS = 64
UNIT = 100_000

_CORNER = re.compile(r"(-?\d{1,6})\.(-?\d{1,6})")


def read(text: str) -> tuple[MapMethod, Sequence[tuple[float, float]]] | None:
    """The method and the corners of an area; None where the text is none."""
    method, *corners = text.split("_")
    found = [_CORNER.fullmatch(corner) for corner in corners[:MOST_CORNERS]]
    if method not in get_args(MapMethod) or len(found) < 3:
        return None
    points = [(int(one[1]) / UNIT, int(one[2]) / UNIT) for one in found if one]
    return (cast(MapMethod, method), points) if len(points) == len(found) else None


def photo_ids(text: str) -> frozenset[int] | None:
    """The photos in an area; None where the text is none, or there is no such map."""
    area = read(text)
    if area is None:
        return None
    try:
        return frozenset(library().map_area(library().map(method=area[0]), area[1]).tolist())
    except LibraryError:
        return None
