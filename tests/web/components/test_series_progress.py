"""The bar of a series of reconstructions that takes long."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from vitmae_search.web.components import series_progress


def half_of_a_series() -> None:
    import streamlit as st

    from vitmae_search.web.components.series_progress import series_progress

    with series_progress(4) as step:
        step()
        step()
        st.stop()  # as where the visitor chooses something else


def a_series_that_fails() -> None:
    from vitmae_search.web.components.series_progress import series_progress

    try:
        with series_progress(4) as step:
            step()
            raise ValueError
    except ValueError:  # as where the page says so in a sentence, and goes on
        pass


def a_whole_series() -> None:
    from vitmae_search.web.components.series_progress import series_progress

    with series_progress(1) as step:
        step()


@pytest.mark.parametrize(("quick", "said"), [(0.0, ["2 of 4 guesses, 0 s left"]), (60.0, [])])
def test_a_series_says_how_far_it_is_if_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, quick: float, said: list[str]
) -> None:
    monkeypatch.setattr(series_progress, "QUICK_SECONDS", quick)
    at = AppTest.from_function(half_of_a_series).run()
    assert not at.exception
    assert [bar.proto.text for bar in at.get("progress")] == said
    for ended in (a_whole_series, a_series_that_fails):
        at = AppTest.from_function(ended).run()
        assert not at.exception
        assert not at.get("progress")
