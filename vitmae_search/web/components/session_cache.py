"""What was computed for one visitor, kept in the session, so that a rerun does not compute it again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import streamlit as st

from vitmae_search.latest_values import LatestValues

T = TypeVar("T")


def cached(name: str, key: Hashable, compute: Callable[[], T], size: Callable[[T], int], limit: int) -> T:
    """The value for a key, computed where the session does not have it.

    Args:
        name: Of the cache, in the session.
        key: All that decides the value.
        compute: Called without a value.
        size: What a value takes.
        limit: What all values may take together, in the units of `size`; the newest one is always kept.
    """
    values: LatestValues[Hashable, T] = st.session_state.setdefault(name, LatestValues(size, limit))
    return values.get_or_compute(key, compute)
