"""Several pictures as a query: more like some, less like others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.errors import LibraryError, SpaceError
from vitmae_search.library import Library
from vitmae_search.records import Photo
from vitmae_search.search import combine
from vitmae_search.search.examples import LESS


@pytest.fixture(scope="module")
def library(pieces: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """A hundred pieces of five real photos, embedded with the bundled model."""
    with Library.open(tmp_path_factory.mktemp("examples") / "library") as opened:
        opened.index(pieces)
        yield opened


def kind(photo: Photo) -> str:
    return Path(photo.path).stem.split("-")[0]


def share(library: Library, of: str, more: list[int], less: list[int]) -> float:
    hits = library.search_examples(more, less, k=10, stacks=False).hits
    return sum(kind(hit.photo) == of for hit in hits) / len(hits)


def by_kind(library: Library) -> dict[str, list[Photo]]:
    found: dict[str, list[Photo]] = {}
    for photo in sorted(library.photos(), key=lambda photo: photo.path):
        found.setdefault(kind(photo), []).append(photo)
    return found


def test_more_pictures_of_a_photo_find_more_of_its_pieces(library: Library) -> None:
    pieces = by_kind(library)
    draw = np.random.default_rng(0)
    one, three = [], []
    for name, photos in pieces.items():
        for _ in range(10):
            ids = [photos[i].photo_id for i in draw.choice(len(photos), 3, replace=False)]
            one.append(share(library, name, ids[:1], []))
            three.append(share(library, name, ids, []))
    assert np.mean(three) > np.mean(one) + 0.05


def test_less_like_a_wrong_hit_brings_fewer_of_its_photo_and_loses_none_wanted(library: Library) -> None:
    pieces = by_kind(library)
    wanted, unwanted = [], []
    for name, photos in pieces.items():
        for photo in photos[::3]:
            hits = library.similar(photo.photo_id, k=60, stacks=False).hits
            wrong = next(hit.photo for hit in hits if kind(hit.photo) != name)
            more, less = [photo.photo_id], [wrong.photo_id]
            before = share(library, name, more, []), share(library, kind(wrong), more, [])
            after = share(library, name, more, less), share(library, kind(wrong), more, less)
            wanted.append(after[0] - before[0])
            unwanted.append(after[1] - before[1])
    assert np.mean(unwanted) < -0.05
    assert np.mean(wanted) >= 0


def test_scores_are_what_is_promised(library: Library) -> None:
    a, b, c = library.photos()[:3]
    catalog = library._catalog()
    space = catalog.current_space()
    assert space is not None
    vectors = [catalog.vector(space.space_id, photo.content_id) for photo in (a, b, c)]
    hits = library.search_examples([(a.photo_id, 3.0), b.photo_id], [(c.photo_id, 2.0)], stacks=False).hits
    query = (3 * vectors[0] + vectors[1]) / 4 - LESS * 2 * vectors[2]
    query /= np.linalg.norm(query)
    for hit in hits:
        assert hit.photo.photo_id not in {a.photo_id, b.photo_id, c.photo_id}
        vector = catalog.vector(space.space_id, hit.photo.content_id)
        assert hit.score == pytest.approx(float(query @ vector), abs=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_weight_of_another_unit_is_the_same_query(library: Library) -> None:
    a, b = (photo.photo_id for photo in library.photos()[:2])
    one = library.search_examples([(a, 1.0), (b, 2.0)]).hits
    other = library.search_examples([(a, 10.0), (b, 20.0)]).hits
    assert [hit.photo for hit in one] == [hit.photo for hit in other]


def test_files_bytes_images_and_ids_go_together(library: Library, pieces: Path) -> None:
    file = pieces / "coffee-07.png"
    with Image.open(pieces / "coffee-08.png") as image:
        found = library.search_examples([file, (pieces / "coffee-06.png").read_bytes(), image.copy()], k=100)
    assert found.examples == 3
    assert not found.known
    assert str(file) in {hit.photo.path for hit in found.hits}  # a file is itself a hit, an id is not


def test_one_example_is_a_search(library: Library, pieces: Path) -> None:
    with Image.open(pieces / "china-03.png") as image:
        turned = image.transpose(Image.Transpose.ROTATE_90)
    found = library.search_examples([turned])
    alone = library.search(turned)
    assert (found.hits, found.variant, found.calibration) == (alone.hits, alone.variant, alone.calibration)
    assert found.calibration is not None


def test_calibrated_scores_are_for_one_picture(library: Library) -> None:
    a, b = (photo.photo_id for photo in library.photos()[:2])
    assert library.search_examples([a, b]).calibration is None
    assert library.search_examples([a], min_score="alike").calibration is not None
    with pytest.raises(SpaceError, match="for one picture, not for several"):
        library.search_examples([a, b], min_score="alike")


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_is_above_0(library: Library, weight: float) -> None:
    with pytest.raises(LibraryError, match="above 0"):
        library.search_examples([(library.photos()[0].photo_id, weight)])


def test_nothing_to_be_like_is_said(library: Library) -> None:
    with pytest.raises(LibraryError, match="at least one picture"):
        library.search_examples([], [library.photos()[0].photo_id])


def test_pictures_that_cancel_each_other_out_are_said() -> None:
    vector = np.array([1.0, 0.0], np.float32)
    with pytest.raises(LibraryError, match="cancel each other out"):
        combine([vector], [vector], [1.0], [1 / LESS])
