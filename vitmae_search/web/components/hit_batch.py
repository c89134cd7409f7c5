"""The hits of a search, batch after batch, as a grid and its route ask for them.

The address of further hits says what the page's own says, so that whoever answers needs to know nothing of
the page: a server that was started anew, or another copy of the app.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from vitmae_search.records import SearchResult
from vitmae_search.web.components.grid import hit_tiles
from vitmae_search.web.components.photo_address import library_parameter
from vitmae_search.web.components.search_request import ASKED, read_count, read_search

LONGEST = 2000
"""Hits that one may scroll through."""


def address_of_more(parameters: Mapping[str, str], found: SearchResult, offset: int) -> str | None:
    """Where the hits after a batch are; None where none follow.

    Args:
        parameters: Those of the page's address.
        found: The batch.
        offset: Hits before this batch.
    """
    return _address(parameters, found, offset, lined=found.first_unlike is not None)


def next_hits(
    parameters: Mapping[str, str], offset: int, *, lined: bool
) -> tuple[list[dict[str, object]], str | None] | None:
    """The tiles of a batch, and where those after it are.

    Args:
        parameters: Those of the page's address.
        offset: Hits before this batch.
        lined: Whether the line between photos that are alike and others was drawn above.

    Returns:
        None where the address asks for no search, or for what is not there.
    """
    asked = read_search(parameters) if 0 <= offset <= LONGEST else None
    if asked is None:
        return None
    found = asked.run({**asked.options, "offset": offset})
    tiles = hit_tiles(found, line=not lined)
    lined = lined or found.first_unlike is not None
    return tiles, _address(parameters, found, offset, lined=lined)


def _address(parameters: Mapping[str, str], found: SearchResult, offset: int, *, lined: bool) -> str | None:
    size = read_count(parameters)
    after = offset + size
    if len(found.hits) < size or after > LONGEST:
        return None
    asked = {name: parameters[name] for name in ASKED if name in parameters}
    place = {"offset": str(after), **({"lined": "1"} if lined else {})}
    return f"hits?{urlencode({**asked, **place, **library_parameter()}, errors='surrogateescape')}"
