"""Addresses of photos: the page's own, and those that pictures are loaded from.

An id means a photo of one library only, so the page's address names the library beside it:
`?photo=12&library=3fa9c1d2`. The identity is one that the library's catalogue drew at random
(`Library.identity`). An address without it, which the app never makes, is taken to be of this library.

Addresses of pictures are relative to the page, since a proxy may serve the app under a path.
"""

from __future__ import annotations

import streamlit as st

from vitmae_search.records import Photo
from vitmae_search.settings import settings
from vitmae_search.web.server.session import library


def photo_parameters(photo_id: int) -> dict[str, str]:
    """The parameters of a page's address that name a photo as its query."""
    return {"photo": str(photo_id), **library_parameter()}


def library_parameter() -> dict[str, str]:
    """The parameter of an address that names the library; none while it has nothing to be named by."""
    identity = library().identity
    return {} if identity is None else {"library": identity}


def is_foreign() -> bool:
    """Whether the page's address names another library."""
    named = st.query_params.get("library")
    return named is not None and not library().has_identity(named)


def named_photo(name: str) -> Photo | None:
    """The photo whose id a parameter of the page's address holds; None where there is none."""
    text = st.query_params.get(name, "")
    return library().photo(int(text)) if text.isdecimal() and len(text) < 19 else None


def thumb_url(photo: Photo, named: str | None = None) -> str:
    """Where a thumbnail is. It changes with the content, so that a browser may cache it for ever.

    Args:
        photo: The photo.
        named: What `library_in_thumb_urls` says, where many addresses are made.
    """
    named = library_in_thumb_urls() if named is None else named
    return f"thumb/{photo.photo_id}?v={photo.digest[:12]}{named}"


def library_in_thumb_urls() -> str:
    """The parameter that names the library in addresses of thumbnails: only where there are several."""
    return _of_library() if len(settings().libraries) > 1 else ""


def photo_url(photo: Photo) -> str:
    """Where a photo is, at full size; to be opened in a window of its own, too."""
    return f"photo/{photo.photo_id}?v={photo.digest[:12]}{_of_library()}"


def _of_library() -> str:
    identity = library().identity
    return f"&library={identity}" if identity else ""
