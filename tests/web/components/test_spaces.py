"""Spaces on the Library page: features, derived spaces, and which one searches use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from vitmae_search.embedding import Projection
from vitmae_search.library import Library
from vitmae_search.web.components.spaces import grouped_by_features
from vitmae_search.web.server.app import MAIN_SCRIPT
from vitmae_search.web.server.session import close_libraries, library

KIND = "![x](http://127.0.0.1:9/p.png)<img src=x onerror=alert(1)>"


def projection(width: int, kind: str, seed: int) -> Projection:
    weights = np.random.default_rng(seed).normal(size=(8, width)).astype(np.float32)
    return Projection((weights,), (np.zeros(8, np.float32),), kind, {})


@pytest.fixture
def derived(
    tmp_path: Path, write_photo: Callable[[Path, int], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Library]:
    """Features 1 and 2, a whitening of each, then a second projection of 1, which is the current space."""
    for seed in range(3):
        write_photo(tmp_path / "photos" / f"{seed}.jpg", seed)
    for options in ({}, {"histogram": "false"}):
        with Library.open(tmp_path / "library", embedder="color_layout", options=options) as made:
            made.index([tmp_path / "photos"])
    monkeypatch.setenv("VITMAE_SEARCH_LIBRARY", str(tmp_path / "library"))
    opened = library()
    widths = {space.space_id: space.dimension for space in opened.spaces()}
    for seed, (parent, kind) in enumerate(((1, "whitening"), (2, "whitening"), (1, KIND))):
        opened.derive_space(projection(widths[parent], kind, seed), parent=parent)
    yield opened
    close_libraries()


def visit() -> AppTest:
    at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60).run()
    at.switch_page("../pages/library.py").run()
    assert not at.exception, at.exception
    return at


def cards(at: AppTest) -> list[str]:
    blocks = [str(block.proto.body) for block in at.get("html")]
    return [unescape(block) for block in blocks if "vs-card" in block and "numbers each" in block]


def keys(at: AppTest) -> set[str]:
    return {button.key for button in at.button if button.key and not button.disabled}


def test_derived_spaces_follow_their_features(derived: Library) -> None:
    spaces = derived.spaces()
    assert [(space.space_id, space.parent_id) for space in grouped_by_features(spaces)] == [
        (1, None),
        (3, 1),
        (5, 1),
        (2, None),
        (4, 2),
    ]
    shown = cards(visit())
    assert len(shown) == 5
    for card, space in zip(shown, grouped_by_features(spaces), strict=True):
        made = f"Made of the features of space {space.parent_id}:" if space.parent_id else "Features:"
        assert f"{space.space_id}. color_layout · {space.model}" in card
        assert f"{made} 3 pictures, {space.dimension} numbers each" in card
        assert (">current<" in card) == space.current
    assert "whitening" in shown[1]
    assert "whitening" not in shown[0]


def test_features_are_dropped_after_what_is_made_of_them(derived: Library) -> None:
    at = visit()
    assert {"vs_drop_3", "vs_drop_4"} <= keys(at)
    assert not {"vs_drop_1", "vs_drop_2", "vs_drop_5"} & keys(at)
    at.button(key="vs_drop_4").click().run()
    assert "in space 2" in unescape(" ".join(str(block.proto.body) for block in at.get("html")))
    at.button(key="vs_drop_yes").click().run()
    assert [space.space_id for space in derived.spaces()] == [1, 2, 3, 5]
    assert "vs_drop_2" in keys(at)


def test_a_space_that_somebody_uses_meanwhile_is_not_dropped(derived: Library) -> None:
    at = visit()
    at.button(key="vs_drop_4").click().run()
    derived.use_space(4)  # by somebody else
    at.button(key="vs_drop_yes").click().run()
    said = unescape(" ".join(str(block.proto.body) for block in at.get("html")))
    assert "Space 4 was not dropped: it is the one that searches use now. Use another one first." in said
    assert [space.space_id for space in derived.spaces()] == [1, 2, 3, 4, 5]
    derived.drop_space(4)
    assert 4 not in {space.space_id for space in derived.spaces()}


def test_searches_use_the_space_that_was_chosen(derived: Library) -> None:
    at = visit()
    at.button(key="vs_use_4").click().run()
    assert [space.space_id for space in derived.spaces() if space.current] == [4]
    assert derived.similar(1).space.space_id == 4


def test_a_projections_kind_is_text(derived: Library) -> None:
    at = visit()
    assert any(KIND in card for card in cards(at))
    assert not any("<img src=x" in str(block.proto.body) for block in at.get("html"))
    for kind in ("markdown", "caption", "error", "warning", "info", "success", "table", "toast"):
        assert not any("onerror" in str(block.proto) for block in at.get(kind))


def test_the_page_says_how_far_the_index_is(
    derived: Library, write_photo: Callable[[Path, int], Path], tmp_path: Path
) -> None:
    derived.search(tmp_path / "photos" / "0.jpg")
    at = visit()
    assert "is behind the library" not in notices(at)
    assert "How far the index is" in [expander.label for expander in at.expander]
    write_photo(tmp_path / "photos" / "9.jpg", 9)
    derived.index([tmp_path / "photos"])
    assert "is behind the library" not in notices(visit())
    for file in (derived.folder / "vectors").glob("*.vectors"):
        file.unlink()
    assert "What searches use is behind the library: 4 to add, since " in notices(visit())


def notices(at: AppTest) -> str:
    return " ".join(text for block in at.get("html") if "vs-notice" in (text := str(block.proto.body)))
