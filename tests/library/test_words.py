"""Searching by words, with a model that knows them: alone, with pictures, and where the model knows none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import color_words_plugin
from vitmae_search.embedding import Projection
from vitmae_search.errors import LibraryError, NoText, PluginNotFound, SpaceError
from vitmae_search.library import Library
from vitmae_search.library.embedders import split_model
from vitmae_search.records import SavedSearch, SearchResult, Words

COLORS = ("red", "lime", "blue", "yellow", "black")


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    shutil.copy(str(color_words_plugin.__file__), folder / "color_words.py")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for color in COLORS:
        Image.new("RGB", (40, 30), color).save(folder / f"{color}.png")
    return folder


@pytest.fixture
def library(tmp_path: Path, plugins: Path, photos: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", model="color_words:colors", plugin_folders=[plugins]) as opened:
        opened.index(photos)
        yield opened


def names(found: SearchResult) -> list[str]:
    return [Path(hit.photo.path).stem for hit in found.hits]


def photo_id(library: Library, name: str) -> int:
    return next(photo.photo_id for photo in library.photos() if Path(photo.path).stem == name)


@pytest.mark.parametrize("color", COLORS)
def test_words_find_what_they_describe(library: Library, color: str) -> None:
    found = library.search_text(f"a {color} bicycle")
    assert names(found)[0] == color
    assert len(found.hits) == len(COLORS)
    assert found.hits[0].score == pytest.approx(1, abs=1e-5)
    assert (found.known, found.examples, found.words, found.calibration) == (False, 0, 1, None)


def test_pages_and_scores(library: Library) -> None:
    every = library.search_text("red")
    assert library.search_text("red", k=2, offset=1).hits == every.hits[1:3]
    least = every.hits[1].score
    assert library.search_text("red", min_score=least).hits == every.hits[:2]
    with pytest.raises(SpaceError, match="nor for words"):
        library.search_text("red", min_score="same")


def test_words_and_pictures_together(library: Library) -> None:
    red = photo_id(library, "red")
    mixed = library.search_examples([red, Words("lime")])
    assert names(mixed)[0] == "yellow"  # which is both in equal parts
    assert "red" not in names(mixed)
    assert (mixed.examples, mixed.words) == (1, 1)
    assert names(library.search_examples([red, (Words("lime"), 9.0)]))[0] == "lime"
    picture = Image.new("RGB", (9, 9), "yellow")
    without = library.search_examples([picture], less=[(Words("lime"), 4.0)])
    assert names(without)[0] == "red"


def test_the_model_runs_once_for_a_text(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    first = library.search_text("blue")

    def fail(*arguments: object) -> None:
        raise AssertionError("the model ran again")

    monkeypatch.setattr("vitmae_search.embedding.GuardedEmbedder.embed_text", fail)
    assert library.search_text(" blue\n", k=5).hits == first.hits


@pytest.mark.parametrize("text", ["", " \n", "x" * 1001])
def test_blank_and_endless_words_are_refused(library: Library, text: str) -> None:
    with pytest.raises(LibraryError, match="words to search for have 1 to 1000 characters"):
        library.search_text(text)


def test_a_derived_space_searches_its_features(library: Library) -> None:
    features = next(iter(library.spaces()))
    derived = library.derive_space(
        Projection([np.eye(8, 48, dtype=np.float32)], [np.zeros(8, np.float32)], "whitening"), use=True
    )
    assert derived.current or library.spaces()[-1].current
    found = library.search_text("red")
    assert found.space.space_id == features.space_id
    assert names(found)[0] == "red"
    text_space = library.text_space()
    assert text_space is not None
    assert text_space.space_id == features.space_id


def test_a_model_without_words_says_which_space_has_some(
    library: Library, tmp_path: Path, photos: Path, plugins: Path
) -> None:
    words = library.spaces()[0].space_id
    with Library.open(tmp_path / "library", embedder="color_layout", plugin_folders=[plugins]) as other:
        other.index(photos)
        assert other.text_space() is None
        with pytest.raises(NoText, match=f"'color-layout' does not know words; search in space {words}"):
            other.search_text("red")
        assert names(other.search_text("red", space=words))[0] == "red"
        assert other.text_space(words) is not None


def test_a_library_without_words_names_a_model_that_has_some(tmp_path: Path, photos: Path) -> None:
    with Library.open(tmp_path / "plain", embedder="color_layout") as library:
        assert library.text_space() is None
        library.index(photos)
        with pytest.raises(NoText, match="--model hub:openai/clip-vit-base-patch32"):
            library.search_text("red")


def test_a_saved_search_keeps_its_words(library: Library) -> None:
    red = photo_id(library, "red")
    library.save_search(SavedSearch("mixed", ((red, 1.0),), words=(("lime", 2.0),)))
    saved = library.saved_search("mixed")
    assert saved.words == (("lime", 2.0),)
    assert names(library.search_examples(saved.wanted)) == names(
        library.search_examples([red, (Words("lime"), 2.0)])
    )


def test_a_plugin_before_a_model(tmp_path: Path, library: Library) -> None:
    assert library.spaces()[0].plugin == "color_words"
    assert split_model(None, "hub:openai/clip-vit-base-patch32") == ("hub", "openai/clip-vit-base-patch32")
    assert split_model("vitmae", "a:b") == ("vitmae", "a:b")
    assert split_model(None, "https://example.org/x") == (None, "https://example.org/x")
    strange = tmp_path / "hub:folder"
    strange.mkdir()
    assert split_model(None, str(strange)) == (None, str(strange))
    with (
        Library.open(tmp_path / "other", model="nobody:model") as other,
        pytest.raises(PluginNotFound, match="nobody"),
    ):
        other.index(tmp_path)
