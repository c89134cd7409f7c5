"""A page whose database is away: it asks for it now and then, and is drawn anew once it is there."""

from __future__ import annotations

import streamlit as st

from vitmae_search.errors import LibraryUnreachable, VectorStoreUnavailable, VitmaeSearchError
from vitmae_search.web.server.session import library

_SECONDS = 3


def draw(*, vectors: bool) -> None:
    """Wait, and show nothing, until a database answers that did not.

    Args:
        vectors: That it is the one with the vectors; else it is the catalogue's.
    """
    seen_away = False

    def look() -> None:
        nonlocal seen_away
        if not _answers(vectors=vectors):
            seen_away = True
        elif seen_away:  # else something was wrong that would be wrong again
            st.rerun()

    st.fragment(look, run_every=_SECONDS)()


def _answers(*, vectors: bool) -> bool:
    try:
        if vectors:
            return library().index_info().revision is not None
        _ = library().identity
    except (LibraryUnreachable, VectorStoreUnavailable):
        return False
    except VitmaeSearchError:
        return True
    return True
