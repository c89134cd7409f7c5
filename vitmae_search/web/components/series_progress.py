"""How far a series of reconstructions is: with a large model it takes a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from vitmae_search.web.components.job_status import duration

QUICK_SECONDS = 1.0
"""A series that takes no longer has no bar."""


@contextmanager
def series_progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar while a series is computed; where the visitor chooses something else, the series ends.

    Args:
        total: How many reconstructions there will be.

    Yields:
        What is called after each.
    """
    place = st.empty()
    started, done = time.monotonic(), 0

    def step() -> None:
        nonlocal done
        done += 1
        passed = time.monotonic() - started
        if passed >= QUICK_SECONDS:
            left = duration(passed / done * max(total - done, 0))
            place.progress(min(done / total, 1.0), text=f"{done} of {total} guesses, {left} left")

    try:
        yield step
    except Exception:  # an error's; a run of the page that ends is none, and the next one draws anew
        place.empty()
        raise
    place.empty()
