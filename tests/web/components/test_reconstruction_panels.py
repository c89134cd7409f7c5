"""The panels of a reconstruction: painted masks."""

from __future__ import annotations

import pytest

from vitmae_search.web.components import reconstruction_panels


@pytest.mark.parametrize("hidden", [[0, 4], [4, 0, 4], [0, 4, 6, -1, "x", None, 1.5]])
def test_painted_squares_are_counted_row_by_row_and_nonsense_is_ignored(hidden: list[object]) -> None:
    assert reconstruction_panels.painted_mask(hidden, 2, 3).tolist() == [
        [True, False, False],
        [False, True, False],
    ]


@pytest.mark.parametrize("hidden", [[], None, "01", {"0": 1}])
def test_nothing_painted_hides_nothing(hidden: object) -> None:
    assert not reconstruction_panels.painted_mask(hidden, 2, 3).any()
