"""What is told of a library's space, and of a photo in it: neighbours, hubs, what another space changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.embedding import Projection
from vitmae_search.errors import SpaceError
from vitmae_search.library import Library, space_inspection

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower")
K = 4


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, real_photos: Mapping[str, Path]) -> Iterator[Library]:
    """Six photos, each with two crops, in the bundled model's space: features and a projection of them."""
    folder = tmp_path_factory.mktemp("space")
    photos = folder / "photos"
    photos.mkdir()
    for name in NAMES:
        with Image.open(real_photos[name]) as picture:
            image = picture.convert("RGB").resize((240, 200))
        for number, box in enumerate([(0, 0, 240, 200), (20, 10, 240, 200), (0, 0, 200, 180)]):
            image.crop(box).save(photos / f"{name}-{number}.png")
    with Library.open(folder / "library") as opened:
        assert opened.index(photos).added == 18
        yield opened


def scores_of(library: Library, space: int) -> tuple[list[str], np.ndarray]:
    found = library.embeddings(space=space)
    scores = found.vectors @ found.vectors.T
    np.fill_diagonal(scores, -np.inf)
    return list(found.paths), scores


def test_a_photo_among_its_neighbours(library: Library) -> None:
    paths, scores = scores_of(library, 2)
    order = np.argsort(-scores, axis=1)[:, :K]
    for own in (0, 9):
        found = library.neighbourhood(library.photo_ids([paths[own]])[0], k=K)
        assert [each.photo.path for each in found.neighbours] == [paths[row] for row in order[own]]
        assert found.distances == pytest.approx(1 - scores[own, order[own]], abs=1e-5)
        having = {paths[row] for row in range(18) if own in order[row]}
        assert {each.photo.path for each in found.reverse} == having
        assert found.occurrences == len(having)
        kth = np.sort(1 - scores, axis=1)[:, :K]
        assert found.usual[:, 2] == pytest.approx(np.median(kth, axis=0), abs=1e-5)
        assert found.percentiles == pytest.approx((kth < kth[own] - 1e-6).mean(axis=0))
    assert library.neighbourhood(paths[0], k=K).photo is not None
    assert found._repr_png_().startswith(b"\x89PNG")


def test_an_upload_that_the_library_has_is_not_its_own_neighbour(library: Library) -> None:
    first = library.photos()[0]
    data = Path(first.path).read_bytes()
    found, stored = library.neighbourhood(data, k=K), library.neighbourhood(first.photo_id, k=K)
    assert found.photo == first
    ids = [each.photo.photo_id for each in found.neighbours]
    hits = [hit.photo.photo_id for hit in library.search(data, k=K + 1).hits]
    assert ids == [each for each in hits if each != first.photo_id]
    assert found.distances.tolist() == stored.distances.tolist()
    assert found.occurrences == stored.occurrences


def test_a_picture_from_elsewhere(library: Library, real_photos: Mapping[str, Path]) -> None:
    with Image.open(real_photos["coins"]) as picture:
        picture = picture.convert("RGB")
    found = library.neighbourhood(picture, k=K)
    assert found.photo is None
    hits = library.search(picture, k=K, variants=False).hits
    assert [each.photo.photo_id for each in found.neighbours] == [hit.photo.photo_id for hit in hits]
    assert found.distances == pytest.approx([1 - hit.score for hit in hits], abs=1e-4)
    change = library.compare_neighbours(picture, k=K, views=True)
    assert (change.views, change.without_views) == ({}, "the picture is not in the library")


def test_photos_that_go_and_come_back(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / Path(photo.path).name for photo in library.photos()[:5]]
    pictures = [Path(photo.path).read_bytes() for photo in library.photos()[:5]]
    for path, picture in zip(paths, pictures, strict=True):
        path.write_bytes(picture)

    def near(opened: Library, path: Path) -> set[str]:
        found = opened.neighbourhood(path, k=5)
        return {Path(each.photo.path).name for each in (*found.neighbours, *found.reverse)}

    with Library.open(tmp_path / "library") as opened:
        opened.index(folder)
        paths[0].unlink()
        gone = opened.compare_neighbours(paths[0], k=2, views=True)
        assert "is not on disk any more" in gone.without_views
        assert len(gone.after.neighbours) == 2
        opened.index(folder)
        assert near(opened, paths[2]) == {paths[number].name for number in (1, 3, 4)}
        assert len(opened.neighbourhood(paths[0], k=2).neighbours) == 2
        assert "not among the photos" in opened.compare_neighbours(paths[0], k=2, views=True).without_views
        paths[0].write_bytes(pictures[0])
        paths[1].unlink()
        opened.index(folder)  # as many as before, and others
        assert near(opened, paths[2]) == {paths[number].name for number in (0, 3, 4)}
        for path in (paths[0], *paths[2:]):
            path.unlink()
        opened.index(folder)
        nothing = opened.space_statistics(k=K)
        assert (nothing.photos, nothing.norms, nothing.hubs) == (0, None, ())
        assert nothing._repr_png_().startswith(b"\x89PNG")
        assert opened.neighbourhood(paths[0], k=K)._repr_png_().startswith(b"\x89PNG")


def test_lengths_are_computed_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    with Library.open(library.folder) as other:
        first = other.space_statistics(k=K).norms
        monkeypatch.setattr(Projection, "norms", None)
        assert np.array_equal(other.space_statistics(k=K).norms, first)


def test_a_space_as_a_whole(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    _, scores = scores_of(library, 2)
    counts = np.bincount(np.argsort(-scores, axis=1)[:, :K].ravel(), minlength=18)
    whole = library.space_statistics(k=K)
    assert sorted(whole.occurrences) == sorted(counts)
    assert (whole.most, whole.hubs[0].occurrences) == (counts.max(), counts.max())
    assert whole.never == pytest.approx((counts == 0).mean())
    assert whole.mean_cosine == pytest.approx(scores[np.isfinite(scores)].mean(), abs=1e-4)
    assert whole.norms is not None
    assert (np.diff(whole.norms) >= 0).all()
    assert library.space_statistics("features", k=K).norms is None
    assert whole._repr_png_().startswith(b"\x89PNG")
    monkeypatch.setattr(space_inspection, "COMPLETE", 10)
    monkeypatch.setattr(space_inspection, "SAMPLE", 12)
    with Library.open(library.folder) as other:
        sampled = other.space_statistics(k=K)
        one = other.neighbourhood(sampled.hubs[0].photo.photo_id, k=K)
        exact = library.neighbourhood(sampled.hubs[0].photo.photo_id, k=K)
    assert (sampled.sampled, sampled.photos) == (12, 18)
    assert one.occurrences == exact.occurrences == sampled.hubs[0].occurrences


def test_whitening_spreads_vectors(library: Library) -> None:
    before, after = (library.space_statistics(each, k=K) for each in ("features", "whitened"))
    assert after.effective_dimension > before.effective_dimension
    assert after.mean_cosine < before.mean_cosine
    assert after.title == "space 1, whitened"


def test_what_changes_for_a_photo(library: Library) -> None:
    photo = library.photos()[0]
    found = library.compare_neighbours(photo.photo_id, k=K, views=True)
    _, before = scores_of(library, 1)
    paths, _ = scores_of(library, 2)
    own = paths.index(photo.path)
    for each in found.after.neighbours:
        assert each.other_rank == 1 + (before[own] > before[own, paths.index(each.photo.path)]).sum()
    stays = {each.photo.path for each in found.before.neighbours}
    assert found.shared == sum(each.photo.path in stays for each in found.after.neighbours)
    assert len(found.views) == 19
    assert found.views["jpeg-20"] == (1, 1)
    assert found._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(SpaceError):
        library.compare_neighbours(photo.photo_id, 99)
