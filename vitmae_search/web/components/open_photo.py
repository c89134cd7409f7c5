"""The photo that is open over the results: `?open=ID` in the page's address, a step of the browser's history.

Back closes it, and Forward opens it again. Closed by its cross, it goes one step back where it was opened
from this page, which the browser knows (`grid.js`).
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vitmae_search.records import Hit
from vitmae_search.web.components.detail import show_photo
from vitmae_search.web.components.page_address import update_address
from vitmae_search.web.components.photo_address import is_foreign, library_parameter, named_photo


def open_photo(photo_id: int) -> None:
    """Open a photo: a callback of a grid."""
    update_address(open=str(photo_id), **library_parameter())


def is_dismissed() -> bool:
    """Whether the visitor closed the photo that the address still has open."""
    return "open" in st.query_params and st.session_state.get("vs_dismissed") == st.query_params["open"]


def leave() -> None:
    """Take the photo out of the address: a callback of a grid."""
    update_address(open=None)


def show(hits: Sequence[Hit]) -> None:
    """Show the photo that the address has open, if any.

    Args:
        hits: The hits on the page, of which it may be one.
    """
    if is_dismissed():
        return
    st.session_state.pop("vs_dismissed", None)
    photo = None if is_foreign() else named_photo("open")
    if photo is not None:
        hit = next((hit for hit in hits if hit.photo.photo_id == photo.photo_id), None)
        show_photo(photo.photo_id, *((hit.score, hit.copies) if hit else ()))
