"""A second space that answers the same query beside the current one, kept in the address as `?beside=3`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import streamlit as st

from vitmae_search.records import MinScore, SearchResult, Space
from vitmae_search.web.components import page_address, plain_text, spaces
from vitmae_search.web.server.session import library

PARAMETER = "beside"


def of_address() -> Space | None:
    """The space that the address names; None where it names none, or one that is searched anyway."""
    text = st.query_params.get(PARAMETER, "")
    return next((one for one in library().spaces() if str(one.space_id) == text and not one.current), None)


def knows(space: Space, min_score: MinScore) -> bool:
    """Whether it was measured which score of a space "same" or "alike" means.

    Args:
        space: The space.
        min_score: The word; a number is one in any space.
    """
    measured = {} if space.calibration is None else asdict(space.calibration)
    return not isinstance(min_score, str) or measured.get(min_score) is not None


def choose() -> None:
    """A box to choose the second space with; nothing where there is only one."""
    others = [str(space.space_id) for space in library().spaces() if not space.current]
    if not others:
        return
    titles = {str(space.space_id): spaces.title(space) for space in library().spaces()}
    chosen = of_address()
    page_address.show_in("vs_beside", "" if chosen is None else str(chosen.space_id))
    st.selectbox(
        "Beside it, search in",
        ["", *others],
        format_func=lambda one: titles.get(one, "no other space"),
        key="vs_beside",
        on_change=page_address.store,
        args=(PARAMETER, "vs_beside", "page"),
    )


DrawGrid = Callable[[SearchResult, str, frozenset[int]], None]
"""Draws the hits of a result under a key; the contents that two spaces have are marked."""


def draw(first: SearchResult, second: SearchResult, grid: DrawGrid) -> None:
    """Two columns of hits, each under its space's name and how much of the library that covers.

    Args:
        first: Of the current space.
        second: Of the other one.
        grid: Draws the hits.
    """
    both = first.shared_with(second)
    hits = sum(hit.photo.content_id in both for hit in first.hits)
    plain_text.hint(f"{hits} of {len(first.hits)} hits are in both.")
    for column, found, key in zip(st.columns(2), (first, second), ("vs_hits", "vs_beside_hits"), strict=True):
        with column:
            plain_text.heading(spaces.title(found.space))
            if found.coverage is not None:
                plain_text.hint(f"{found.coverage.covered}.")
            if found.region is not None and not found.region.by_patches:
                plain_text.hint(found.region.text)
            if not found.hits:
                plain_text.notice("No other photo fits.")
            grid(found, key, both)
