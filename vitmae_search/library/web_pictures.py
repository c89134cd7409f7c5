"""Pictures from the web, where the person's settings allow them."""

from __future__ import annotations

from vitmae_search.errors import LibraryError
from vitmae_search.photos import web_picture
from vitmae_search.settings import WEB_PICTURES, settings


def fetch(address: str) -> bytes:
    """The file of a picture at an address; see `Library.fetch_picture`."""
    if not settings().web_pictures:
        raise LibraryError(
            f"pictures are not fetched from the web; {WEB_PICTURES}=on in the environment changes that"
        )
    return web_picture.fetch_picture(address)
