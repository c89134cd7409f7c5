"""The photos of the library in an order, batch after batch, as a grid and its route ask for them."""

from __future__ import annotations

from urllib.parse import urlencode

from vitmae_search.records import Photo, PhotoOrder, SearchFilter
from vitmae_search.web.components.photo_address import library_parameter
from vitmae_search.web.server.session import library

BATCH = 120
"""Photos that a grid asks for at once."""


def next_batch(
    where: SearchFilter, order: PhotoOrder, parameters: dict[str, str], after: int | None = None
) -> tuple[list[Photo], str | None]:
    """A batch of photos.

    Args:
        where: Which photos.
        order: Their order.
        parameters: The address's parameters that say both, for the address of the batch after this one.
        after: The photo that the batch before ended with.

    Returns:
        The photos, and the address of those that follow; None where there are none.
    """
    photos = library().browse(where, order=order, after=after, limit=BATCH + 1)
    shown = photos[:BATCH]
    if len(photos) <= BATCH:
        return shown, None
    wanted = {**parameters, **library_parameter(), "sort": order, "after_photo": str(shown[-1].photo_id)}
    return shown, f"photos?{urlencode(wanted)}"
