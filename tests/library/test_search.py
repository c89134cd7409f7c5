"""`Library.search`: correct, in pages, filtered, and the same as brute force."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.catalog import Catalog
from vitmae_search.embedding import Projection
from vitmae_search.errors import LibraryEmpty, LibraryError, PhotoError, SpaceError
from vitmae_search.library import Library
from vitmae_search.photos import views
from vitmae_search.records import QueryVariant, ScoreCalibration, SearchFilter
from vitmae_search.search import query
from vitmae_search.vectors import Policy


def test_each_photo_finds_itself_without_a_model(library: Library) -> None:
    for photo in library.photos():
        result = library.search(photo.path, k=3)
        assert result.known
        assert result.hits[0].photo.path == photo.path
        assert result.hits[0].score == pytest.approx(1, abs=1e-5)


@pytest.fixture
def twins(library: Library, photos: Path) -> list[Path]:
    """Fourteen files of one photo's pixels, each a content of its own, in the library."""
    data = (photos / "odd" / "3.jpg").read_bytes()
    paths = [photos / "twins" / f"{i}.jpg" for i in range(14)]
    paths[0].parent.mkdir()
    for i, path in enumerate(paths):
        path.write_bytes(data + bytes([i]))  # what follows the end of a JPEG is not looked at
    assert library.index(photos).added == 14
    return paths


def test_a_photo_finds_itself_before_others_of_the_same_pixels(library: Library, twins: list[Path]) -> None:
    for path in twins:
        hits = library.search(path, k=3).hits
        assert hits[0].photo.path == str(path)
        assert len({hit.photo.path for hit in hits}) == 3
        assert [hit.rank for hit in hits] == [1, 2, 3]
        assert hits[0].score >= hits[1].score >= hits[2].score >= 0.999


def test_as_many_are_found_however_many_of_the_nearest_are_missing(
    library: Library, twins: list[Path], photos: Path
) -> None:
    """More of them than are asked for in reserve."""
    for path in twins[1:]:
        path.unlink()
    assert library.index(photos).missing == 13
    hits = library.search(twins[0], k=5).hits
    assert len(hits) == 5
    assert all(Path(hit.photo.path).is_file() for hit in hits)
    assert len(library.search(twins[0], k=100).hits) == library.count_photos()


def test_a_library_searched_approximately_gives_the_same_scores(library: Library, twins: list[Path]) -> None:
    exact = library.search(twins[0], k=8).hits
    library._vectors.policy = Policy(exact_seconds=0, queries=20)
    assert library.index_info().kind == "exact"
    library._vectors.speed_up(library._catalog().vector_source(1))
    listed = library.index_info()
    assert str(listed).startswith("PCAR128,IVF1,PQ64x4fs: recall@10 1.000, measured on 20 queries")
    assert library._vector_index(library.spaces()[0]).approximate is not None
    assert library.search(twins[0], k=8).hits == exact


def test_pages_of_twins_join_up(library: Library, twins: list[Path]) -> None:
    query = twins[-1]
    whole = library.search(query, k=30).hits
    pages = [hit for offset in range(0, 30, 4) for hit in library.search(query, k=4, offset=offset).hits]
    assert pages == list(whole)
    assert len({hit.photo.path for hit in whole}) == 26


def test_a_photo_that_a_filter_keeps_out_is_not_put_first(
    library: Library, twins: list[Path], photos: Path
) -> None:
    hits = library.search(twins[-1], k=4, where=SearchFilter(under=str(photos / "odd"))).hits
    assert hits[0].photo.path == str(photos / "odd" / "3.jpg")
    assert str(twins[-1]) not in {hit.photo.path for hit in hits}


def test_the_same_as_brute_force_over_the_stored_vectors(library: Library, tmp_path: Path) -> None:
    with Catalog.open(tmp_path / "library") as catalog:
        (space,) = catalog.spaces()
        photos = catalog.photos()
        vectors = {photo.path: catalog.vector(space.space_id, photo.content_id) for photo in photos}
    paths = list(vectors)
    matrix = np.stack([vectors[path] for path in paths])
    for asked in paths:
        scores = matrix @ vectors[asked]
        hits = library.search(asked, k=len(paths)).hits
        assert [hit.photo.path for hit in hits] == [paths[i] for i in np.argsort(-scores, kind="stable")]
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1], atol=1e-6)


def test_pages_join_up(library: Library) -> None:
    query = library.photos()[0].path
    whole = library.search(query, k=12).hits
    pages = [hit for offset in range(0, 15, 5) for hit in library.search(query, k=5, offset=offset).hits]
    assert pages == list(whole)
    assert [hit.rank for hit in whole] == list(range(1, 13))


def test_similar_leaves_the_photo_itself_out(library: Library) -> None:
    photo = library.photos()[4]
    hits = library.similar(photo.photo_id, k=20).hits
    assert len(hits) == 11
    assert photo.photo_id not in {hit.photo.photo_id for hit in hits}
    assert [hit.rank for hit in hits] == list(range(1, 12))
    assert hits[5:8] == library.similar(photo.photo_id, k=3, offset=5).hits


def test_a_filter_gives_the_best_of_those_that_pass(library: Library, photos: Path) -> None:
    query = photos / "even" / "2.jpg"
    where = SearchFilter(under=str(photos / "odd"))
    hits = library.search(query, k=4, where=where).hits
    every = [hit.photo.path for hit in library.search(query, k=12).hits if "/odd/" in hit.photo.path]
    assert [hit.photo.path for hit in hits] == every[:4]
    assert library.search(query, where=SearchFilter(camera="none such")).hits == ()


def test_missing_photos_are_no_hits(library: Library, photos: Path) -> None:
    gone = photos / "even" / "4.jpg"
    data = gone.read_bytes()
    gone.unlink()
    assert library.index(photos).missing == 1
    hits = library.search(data, k=12).hits
    assert len(hits) == 11
    assert str(gone) not in {hit.photo.path for hit in hits}


def test_pixels_bytes_and_path_give_the_same_result(library: Library, photos: Path) -> None:
    path = photos / "odd" / "7.jpg"
    with Image.open(path) as image:
        pixels = library.search(image.copy(), k=5)
    data, file = library.search(path.read_bytes(), k=5), library.search(path, k=5)
    assert (pixels.known, data.known, file.known) == (False, True, True)
    assert pixels.hits == data.hits == file.hits


def test_the_same_unknown_picture_is_embedded_once(
    library: Library, photos: Path, tmp_path: Path, batches: list[int]
) -> None:
    with Image.open(photos / "odd" / "3.jpg") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    first = library.search(tmp_path / "mirrored.png", k=4)
    assert batches == [1, 3]  # as it is, and its turns
    second = library.search((tmp_path / "mirrored.png").read_bytes(), k=4, offset=4)
    assert (first.known, second.known, batches) == (False, False, [1, 3])
    whole = library.search(tmp_path / "mirrored.png", k=8).hits
    assert first.hits + second.hits == whole
    (tmp_path / "mirrored.png").write_bytes((photos / "odd" / "3.jpg").read_bytes() + b"x")
    library.search(tmp_path / "mirrored.png", k=1, variants=False)
    assert batches == [1, 3, 1]  # by content, not by name


def test_cached_query_vectors_are_kept_by_space_and_dropped_when_old(library: Library) -> None:
    (space,) = library.spaces()
    kept = query.QueryCache(capacity=2)
    vectors = {QueryVariant(): np.ones(3, np.float32)}
    for name in ("a", "b", "c"):
        kept.put(space, name, vectors)
    assert [kept.get(space, name) == vectors for name in ("a", "b", "c")] == [False, True, True]
    assert kept.get(replace(space, fingerprint="other"), "c") == {}


@pytest.fixture
def real_library(tmp_path: Path, real_photos: dict[str, Path]) -> Iterator[Library]:
    """A library of real photos, searched with the plugin that needs no torch."""
    (tmp_path / "real").mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket", "china", "flower"):
        with Image.open(real_photos[name]) as image:
            image.convert("RGB").save(tmp_path / "real" / f"{name}.jpg", quality=95)
    with Library.open(tmp_path / "real-library", embedder="color_layout") as opened:
        opened.index(tmp_path / "real")
        yield opened


@pytest.mark.parametrize("name", ["coffee", "china", "chelsea"])
@pytest.mark.parametrize(
    ("change", "variant"),
    [
        (views.phone_screenshot, QueryVariant(trimmed=True)),
        (partial(views.phone_screenshot, color=(255, 255, 255)), QueryVariant(trimmed=True)),
        (partial(views.margin, width=0.3), QueryVariant(trimmed=True)),
        (partial(views.quarter_turn, turns=1), QueryVariant(turned=270)),
        (partial(views.quarter_turn, turns=2), QueryVariant(turned=180)),
        (partial(views.quarter_turn, turns=3), QueryVariant(turned=90)),
        (lambda image: views.margin(views.quarter_turn(image)), QueryVariant(trimmed=True, turned=270)),
    ],
)
def test_a_changed_photo_is_found_and_the_result_says_by_which_variant(
    real_library: Library,
    real_photos: dict[str, Path],
    name: str,
    change: views.View,
    variant: QueryVariant,
) -> None:
    with Image.open(real_photos[name]) as image:
        changed = views.recompress(change(image.convert("RGB")), quality=70)
    found = real_library.search(changed, k=6)
    assert (Path(found.hits[0].photo.path).stem, found.variant) == (name, variant)
    plain = real_library.search(changed, k=6, variants=False)
    assert plain.variant == QueryVariant()
    assert plain.hits[0].score < found.hits[0].score
    where = SearchFilter(under=str(Path(found.hits[0].photo.path).parent))
    assert real_library.search(changed, k=6, where=where).hits == found.hits


def test_a_photo_that_is_gone_from_disk_does_not_choose_the_variant(
    real_library: Library, tmp_path: Path
) -> None:
    gone = tmp_path / "real" / "coffee.jpg"
    with Image.open(gone) as image:
        turned = views.quarter_turn(image.convert("RGB"))
    assert real_library.search(turned).variant.turned == 270
    gone.unlink()
    assert real_library.index(tmp_path / "real").missing == 1
    assert real_library.search(turned).variant == QueryVariant()


def test_a_library_photo_is_compared_by_its_stored_vector_alone(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "upright_variants", None)
    monkeypatch.setattr(query, "embed_images", None)
    photo = library.photos()[0]
    assert library.search(photo.path).variant == QueryVariant()
    assert library.similar(photo.photo_id).variant == QueryVariant()


def calibrated(library: Library, calibration: ScoreCalibration) -> None:
    """Search in a space whose vectors are the same as before, with this calibration."""
    width = library.spaces()[0].dimension
    identity = Projection([np.eye(width)], [np.zeros(width)], "head", calibration=calibration)
    assert library.derive_space(identity).calibration == calibration


def test_a_detail_is_found_in_the_photo_that_it_was_cut_from(
    real_library: Library, real_photos: dict[str, Path]
) -> None:
    with Image.open(real_photos["china"]) as image:
        detail = views.crop(image.convert("RGB"), area=0.35**2, position=(0.2, 0.5))
    whole = real_library.find_whole(detail)
    assert whole is not None
    assert Path(whole.hit.photo.path).stem == "china"
    assert whole.correlation > 0.65
    hits = real_library.search(detail).hits
    assert hits[whole.hit.rank - 1] == whole.hit
    assert real_library.find_whole(real_library.photos()[0].path) is None  # it is in the library
    assert real_library.find_whole(detail, where=SearchFilter(camera="none")) is None
    with Image.open(real_photos["moon"]) as image:
        assert real_library.find_whole(image) is None


def test_a_clear_hit_needs_no_turns(
    real_library: Library, real_photos: dict[str, Path], batches: list[int]
) -> None:
    with Image.open(real_photos["coffee"]) as image:
        grey = views.recompress(image.convert("RGB"), quality=30)
    calibrated(real_library, ScoreCalibration(0.9, 0.5, 500))
    assert real_library.search(grey).hits[0].score > 0.9
    assert batches == [1]
    real_library.search(Image.radial_gradient("L").convert("RGB"))
    assert batches == [1, 2, 3]  # its corners are filled


def test_hits_below_the_least_score_are_left_out(library: Library) -> None:
    photo = library.photos()[3]
    every = library.similar(photo.photo_id, k=11)
    scores = [hit.score for hit in every.hits]
    middle = (scores[4] + scores[5]) / 2
    assert library.similar(photo.photo_id, k=11, min_score=middle).hits == every.hits[:5]
    assert library.similar(photo.photo_id, k=3, offset=3, min_score=middle).hits == every.hits[3:5]
    assert library.search(photo.path, k=12, min_score=middle).hits[1:] == tuple(
        replace(hit, rank=hit.rank + 1) for hit in every.hits[:5]
    )
    for word in ("same", "alike"):
        with pytest.raises(SpaceError, match=f"which score means '{word}' in space 1"):
            library.search(photo.path, min_score=word)  # type: ignore[arg-type]
    assert every.calibration is None
    assert every.first_unlike is None
    calibrated(library, ScoreCalibration(scores[1], middle, 500))
    assert library.similar(photo.photo_id, k=11, min_score="alike").hits == every.hits[:5]
    assert library.similar(photo.photo_id, k=11, min_score="same").hits == every.hits[:2]
    found = library.similar(photo.photo_id, k=11)
    assert (found.hits, found.first_unlike) == (every.hits, 5)
    assert library.similar(photo.photo_id, k=11, offset=6).first_unlike == 0
    spaces = len(library.spaces())
    calibrated(library, ScoreCalibration(None, middle, 900))  # measured anew, of the same projection
    assert len(library.spaces()) == spaces
    with pytest.raises(SpaceError, match="which score means 'same'"):
        library.similar(photo.photo_id, min_score="same")


def test_an_empty_library_says_what_to_do(tmp_path: Path) -> None:
    with Library.open(tmp_path / "none") as library:
        with pytest.raises(LibraryEmpty, match="vitmae-search index"):
            library.search(b"")
        assert library.status().photos == 0
        assert library.photos() == []
        assert library.spaces() == []
        assert library.failures() == []
    assert not (tmp_path / "none").exists()


def test_invalid_filters_are_refused(library: Library, photos: Path) -> None:
    with pytest.raises(PhotoError):
        library.search(b"not a picture")
    with pytest.raises(PhotoError):
        library.search(photos / "nothing.jpg")
    with pytest.raises(LibraryError, match="999"):
        library.similar(999)
    with pytest.raises(SpaceError):
        library.search(photos / "odd" / "1.jpg", space=99)


def test_threads_search_while_photos_are_indexed(library: Library, photos: Path, write_photo) -> None:  # type: ignore[no-untyped-def]
    query = photos / "even" / "0.jpg"
    problems: list[BaseException] = []
    stop = threading.Event()

    def ask() -> None:
        try:
            while not stop.is_set():
                hits = library.search(query, k=50).hits
                assert hits[0].photo.path == str(query)
                assert len({hit.photo.photo_id for hit in hits}) == len(hits) >= 12
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(3):
            for seed in range(5):
                write_photo(photos / "new" / f"{round_}-{seed}.jpg", 1000 + 10 * round_ + seed)
            assert library.index(photos).added == 5
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not problems
    assert len(library.search(query, k=50).hits) == 27
