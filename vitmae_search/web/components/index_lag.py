"""How far what searches use has come behind the catalogue, on the Library page."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vitmae_search.records import IndexLag, Space
from vitmae_search.web.components import job_status, plain_text


def draw(spaces: Sequence[Space], lags: Sequence[IndexLag]) -> None:
    """Say in a table what each space's index has, and above it where searches lack photos.

    Args:
        spaces: The library's spaces.
        lags: How far each one's index is.
    """
    current = next((space.space_id for space in spaces if space.current), None)
    searched = next((lag for lag in lags if lag.space == current), None)
    if searched is not None and searched.advice is not None:
        plain_text.notice(f"{_state(searched)}. {_advice(searched)}.")
    with st.expander("How far the index is"):
        plain_text.hint(
            "Photos are recorded in the library first. The index that searches use follows it: a search "
            "in a space, or the next indexing, brings it up to date."
        )
        rows = [_row(lag, is_searched=lag.space == current) for lag in lags]
        plain_text.table(("Space", "Photos", "Fingerprints", "In the index", "Behind"), rows)


def _state(lag: IndexLag) -> str:
    if lag.to_add is None:
        return "What searches use does not answer"
    return f"What searches use is behind the library: {_behind(lag)}"


def _row(lag: IndexLag, *, is_searched: bool) -> tuple[str, ...]:
    indexed = "?" if lag.to_add is None else f"{lag.index.vectors:,}"
    never = lag.index.revision == 0 and not is_searched
    behind = "made when it is first searched" if never else _behind(lag)
    return f"{lag.space}", f"{lag.photos:,}", f"{lag.vectors:,}", indexed, behind


def _behind(lag: IndexLag) -> str:
    since = "" if lag.since is None else f", since {job_status.local_time(lag.since)}"
    return lag.behind + since


def _advice(lag: IndexLag) -> str:
    if lag.to_add is None and lag.advice is not None:
        return lag.advice[:1].upper() + lag.advice[1:]
    return "The next search brings it up to date, and so does the next indexing"
