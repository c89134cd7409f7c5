"""Photos that were turned are found with the default model, and little is embedded for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vitmae_search.embedding import Projection
from vitmae_search.library import Library
from vitmae_search.photos import views

LEFT_OUT = ("coffee", "rocket")


@pytest.fixture(scope="module")
def folder(real_photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of real photos, with the default model."""
    folder = tmp_path_factory.mktemp("turned")
    (folder / "photos").mkdir()
    for name, path in real_photos.items():
        if name not in LEFT_OUT:
            opened(path).save(folder / "photos" / f"{name}.jpg", quality=95)
    with Library.open(folder / "library", device="cpu") as library:
        library.index(folder / "photos")
    return folder


@contextmanager
def forgotten_turns(folder: Path) -> Iterator[None]:
    """The library's copy of its projection has no turns meanwhile."""
    (path,) = (folder / "library" / "projections").glob("*.safetensors")
    before = path.read_bytes()
    assert Projection.read(path).turns is not None
    replace(Projection.read(path), turns=None).save(path)
    yield
    path.write_bytes(before)


@pytest.fixture
def library(folder: Path) -> Iterator[Library]:
    with Library.open(folder / "library", device="cpu") as opened:
        yield opened


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def turned(path: Path, turns: int) -> Image.Image:
    return views.recompress(views.quarter_turn(opened(path), turns=turns), quality=80)


def test_every_turned_photo_is_found_by_about_one_more_pass(
    library: Library, folder: Path, batches: list[int]
) -> None:
    paths = sorted((folder / "photos").glob("*.jpg"))
    for path in paths:
        for turns in (1, 2, 3):
            found = library.search(turned(path, turns), k=1)
            assert Path(found.hits[0].photo.path) == path
            assert found.variant.turned in (0, 360 - 90 * turns)  # a blurred or round one is like itself
    assert sum(batches) < 2.6 * 3 * len(paths)  # with all turns it would be more than 4


def test_nothing_is_turned_of_pictures_that_the_library_lacks(
    library: Library, real_photos: dict[str, Path], batches: list[int]
) -> None:
    for name in LEFT_OUT:
        assert library.search(views.recompress(opened(real_photos[name]), quality=80)).variant.turned == 0
    assert batches == [1, 1]


def test_another_page_of_the_results_embeds_nothing(
    library: Library, folder: Path, tmp_path: Path, batches: list[int]
) -> None:
    turned(folder / "photos" / "chelsea.jpg", 1).save(tmp_path / "turned.png")
    first, second = (library.search(tmp_path / "turned.png", k=4, offset=offset) for offset in (0, 4))
    assert (first.variant.turned, second.variant.turned, batches) == (270, 270, [1, 1])


def test_a_library_of_before_turns_were_fitted_takes_them_from_the_model(
    folder: Path, batches: list[int]
) -> None:
    with forgotten_turns(folder):
        with Library.open(folder / "library", device="cpu") as library:
            found = library.search(turned(folder / "photos" / "chelsea.jpg", 1), k=1)
        assert (Path(found.hits[0].photo.path).stem, batches) == ("chelsea", [1, 1])


def test_without_turns_all_three_are_embedded(
    folder: Path, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Projection, "guess_turned", lambda self, vectors: None)
    with Library.open(folder / "library", device="cpu") as library:
        found = library.search(turned(folder / "photos" / "chelsea.jpg", 1), k=1)
    assert (Path(found.hits[0].photo.path).stem, batches) == ("chelsea", [1, 3])
