"""The hits of a search, batch after batch, as a grid and its route ask for them.

A page remembers how it searched under a name that it gives the grid; the route calls that again with an
offset. Searches that were not asked for lately are forgotten, and all are when the server is started again:
the grid then ends with the hits that it has, until the page is drawn anew.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from vitmae_search.records import SearchResult
from vitmae_search.web.components.grid import hit_tiles
from vitmae_search.web.components.photo_address import library_parameter

MOST_SEARCHES = 200
LONGEST = 2000
"""Hits that one may scroll through."""

Search = Callable[[int], SearchResult]
"""Searches from an offset on."""


@dataclass(frozen=True, slots=True)
class _Known:
    search: Search
    size: int


_known: OrderedDict[str, _Known] = OrderedDict()
_lock = threading.Lock()


def address_of_more(key: str, search: Search, found: SearchResult, *, size: int, offset: int) -> str | None:
    """Where the hits after a batch are; None where none follow.

    Args:
        key: Names the search: equal keys are equal searches.
        search: Called with the offset of a batch, in another thread, without Streamlit's context.
        found: The batch.
        size: Hits of a batch.
        offset: Hits before this batch.
    """
    name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    with _lock:
        _known[name] = _Known(search, size)
        _known.move_to_end(name)
        while len(_known) > MOST_SEARCHES:
            _known.popitem(last=False)
    return _address(name, found, size, offset, lined=found.first_unlike is not None)


def next_hits(name: str, offset: int, *, lined: bool) -> tuple[list[dict[str, object]], str | None] | None:
    """The tiles of a batch, and where those after it are.

    Args:
        name: The search's name in the address.
        offset: Hits before this batch.
        lined: Whether the line between photos that are alike and others was drawn above.

    Returns:
        None where no such search is known.
    """
    with _lock:
        known = _known.get(name)
        if known is not None:
            _known.move_to_end(name)
    if known is None or not 0 <= offset <= LONGEST:
        return None
    found = known.search(offset)
    tiles = hit_tiles(found, line=not lined)
    lined = lined or found.first_unlike is not None
    return tiles, _address(name, found, known.size, offset, lined=lined)


def _address(name: str, found: SearchResult, size: int, offset: int, *, lined: bool) -> str | None:
    after = offset + size
    if len(found.hits) < size or after > LONGEST:
        return None
    parameters = {"offset": str(after), **({"lined": "1"} if lined else {}), **library_parameter()}
    return f"hits/{name}?{urlencode(parameters)}"
