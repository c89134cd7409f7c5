"""What a filter can be chosen from, with counts: folders, months, cameras, lenses, places, file types, ….

The counts are of the photos that pass all other filters of the address.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from vitmae_search.errors import display_path
from vitmae_search.records import PhotoKind, SearchFilter
from vitmae_search.web.components.filter_parameters import read_filters
from vitmae_search.web.server.session import library

SIZES = {"0-1": "Up to 1 MB", "1-5": "1 to 5 MB", "5-20": "5 to 20 MB", "20-": "20 MB or more"}
PLACES = {"on": "With a place", "off": "Without a place"}
SHAPES = {"landscape": "Landscape", "portrait": "Portrait", "square": "Square"}


_NAMES: Mapping[PhotoKind, Mapping[str, str]] = {
    "favourite": {"on": "Favourites only"},
    "orientation": SHAPES,
    "place": PLACES,
    "size": SIZES,
}


_FIELDS: Mapping[PhotoKind, tuple[str, ...]] = {
    "folder": ("under",),
    "month": ("after", "before"),
    "camera": ("camera",),
    "lens": ("lens",),
    "place": ("box", "near", "has_place"),
    "size": ("min_bytes", "max_bytes"),
    "tag": ("tag", "min_confidence"),
    "format": ("format",),
    "orientation": ("orientation",),
    "favourite": ("favourite",),
    "rating": ("min_rating",),
    "album": ("album",),
}
"""The fields of a filter that say something of each kind."""


def choices(kind: PhotoKind, parameters: Mapping[str, str]) -> list[tuple[object, ...]]:
    """The choices of a filter.

    Args:
        kind: Which filter.
        parameters: The address's parameters. Of folders, "inside" names the one whose sub-folders are listed;
            without it these are the indexed folders.

    Returns:
        (value, text, count) of each; of a folder also whether it has sub-folders, and what separates them.
    """
    where = without(kind, read_filters(parameters).where)
    counts = library().count_by(kind, where)
    if kind == "folder":
        return _folders(counts, parameters.get("inside"))
    if kind == "rating":
        return [
            (str(least), stars(least), sum(counts.get(str(n), 0) for n in range(least, 6)))
            for least in range(1, 6)
        ]
    names = _NAMES.get(kind, {})
    return [(value, names.get(value, display_path(value)), count) for value, count in counts.items()]


def without(kind: PhotoKind, where: SearchFilter) -> SearchFilter:
    """The filter without what it says of this kind.

    Args:
        kind: The kind.
        where: The filter.
    """
    return replace(where, **{name: getattr(SearchFilter(), name) for name in _FIELDS[kind]})


def stars(least: int) -> str:
    """A least rating, 1 to 5, in words."""
    return "★" * least + (" or more" if least < 5 else "")


def _folders(counts: Mapping[str, int], inside: str | None) -> list[tuple[object, ...]]:
    """The folders directly inside one, with the photos below each."""
    if inside is None:
        tops = [root.path for root in library().status().roots]
        tops = [top for top in tops if not any(_is_below(top, other) for other in tops)]
    else:
        tops = sorted({_child(folder, inside) for folder in counts if _is_below(folder, inside)})
    found: list[tuple[object, ...]] = []
    for top in tops:
        if not _is_text(top):
            continue
        below = {folder: count for folder, count in counts.items() if folder == top or _is_below(folder, top)}
        if below:
            name = display_path(os.path.basename(top) or top)
            found.append((top, name, sum(below.values()), any(folder != top for folder in below), os.sep))
    return found


def _is_below(folder: str, other: str) -> bool:
    return folder != other and folder.startswith(other.rstrip(os.sep) + os.sep)


def _child(folder: str, parent: str) -> str:
    """The folder directly inside `parent` that `folder` is, or is below."""
    start = len(parent.rstrip(os.sep)) + 1
    return folder[:start] + folder[start:].split(os.sep, 1)[0]


def _is_text(path: str) -> bool:
    """Whether an address can hold the path: names on disk may hold bytes that are no UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
