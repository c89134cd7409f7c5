"""Instance retrieval: the kinds of change, and the ranks, ties included."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitmae_search.evaluation import (
    INSTANCE_VIEWS,
    SAME_PHOTO,
    instance_recall,
    instance_views,
    raw_pixels,
    unit_rows,
)

NAMES = [name for name, _ in INSTANCE_VIEWS]


@pytest.fixture(scope="module")
def images(real_photos: dict[str, Path]) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in real_photos.values()]


@pytest.fixture(scope="module")
def views(images: list[Image.Image]) -> dict[str, Image.Image]:
    """The views of a picture in colour."""
    return dict(instance_views(images[0], seed=3))


def test_the_kinds_have_names_of_their_own(views: dict[str, Image.Image]) -> None:
    assert list(views) == NAMES
    assert len(set(NAMES)) == len(NAMES)
    assert set(SAME_PHOTO) < set(NAMES)
    assert len({view.tobytes() for view in views.values()}) == len(NAMES)


def test_equal_seeds_give_equal_views(images: list[Image.Image], views: dict[str, Image.Image]) -> None:
    before = images[0].tobytes()
    again, other = dict(instance_views(images[0], seed=3)), dict(instance_views(images[0], seed=5))
    assert [again[name].tobytes() for name in NAMES] == [views[name].tobytes() for name in NAMES]
    differ = {name for name in NAMES if other[name].tobytes() != views[name].tobytes()}
    assert differ == {"crop-40", "crop-80", "corner-crop", "recoloured", "filter", "sticker"}
    assert images[0].tobytes() == before


def test_the_changes_are_as_large_as_they_say(
    images: list[Image.Image], views: dict[str, Image.Image]
) -> None:
    width, height = images[0].size
    for name, area in (("crop-40", 0.4), ("crop-80", 0.8), ("corner-crop", 0.35**2)):
        crop = views[name]
        assert crop.width * crop.height == pytest.approx(area * width * height, rel=0.01)
        assert crop.width / crop.height == pytest.approx(width / height, rel=0.01)
    assert views["rotated+15-corners"].getpixel((0, 0)) == (0, 0, 0)
    assert np.asarray(views["rotated+15"]).shape == np.asarray(views["rotated-15"]).shape
    change = np.abs(np.asarray(views["recoloured"], float) - np.asarray(images[0], float)).mean()
    assert change > 10
    jpeg = np.abs(np.asarray(views["jpeg-20"], float) - np.asarray(images[0], float)).mean()
    assert 0.5 < jpeg < 10
    assert max(views["jpeg-5-small"].size) == min(240, max(width, height))
    assert views["rotated+90"].size == views["rotated-90"].size == (height, width)
    assert views["screenshot-black"].height / views["screenshot-black"].width == pytest.approx(
        19.5 / 9, rel=0.01
    )


def test_a_corner_crop_is_of_any_corner(images: list[Image.Image]) -> None:
    image = images[0]
    width, height = (round(0.35 * side) for side in image.size)
    corners = {
        image.crop((x, y, x + width, y + height)).tobytes()
        for x in (0, image.width - width)
        for y in (0, image.height - height)
    }
    assert {dict(instance_views(image, seed))["corner-crop"].tobytes() for seed in range(30)} == corners


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_tiny_pictures_have_views_too(size: tuple[int, int]) -> None:
    for _, view in instance_views(Image.new("RGB", size, "navy"), seed=0):
        assert (view.mode, min(view.size) >= 1) == ("RGB", True)


def test_the_views_can_be_sent_to_another_process() -> None:
    assert [name for name, _ in pickle.loads(pickle.dumps(INSTANCE_VIEWS))] == NAMES


def test_real_pixels_find_a_recompressed_photo_and_not_every_rotation(images: list[Image.Image]) -> None:
    gallery = np.stack([raw_pixels(image) for image in images])
    kinds: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    for seed, image in enumerate(images):
        for name, view in instance_views(image, seed):
            kinds[name].append(raw_pixels(view))
    recall = {name: instance_recall(gallery, np.stack(rows)).recall(1) for name, rows in kinds.items()}
    assert recall["jpeg-20"] == 1
    assert recall["mirrored"] < 1
    assert recall["screenshot-black"] < 1


def brute_force(gallery: np.ndarray, queries: np.ndarray, k: int, draws: np.random.Generator) -> np.ndarray:
    """Hits of one search with ties in a random order: (N,) of 0 and 1."""
    order = draws.permutation(len(gallery))
    scores = np.round((unit_rows(queries) @ unit_rows(gallery).T)[:, order], 5)
    first = order[np.argsort(-scores, axis=1, kind="stable")[:, :k]]
    return (first == np.arange(len(queries))[:, None]).any(axis=1)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_hits_are_those_of_a_search_with_ties_in_any_order(k: int) -> None:
    draws = np.random.default_rng(k)
    gallery = draws.integers(-1, 2, (40, 3)).astype(np.float32)  # few directions, so many ties
    queries = (gallery[:30] + draws.integers(-1, 2, (30, 3))).astype(np.float32)
    expected = np.mean([brute_force(gallery, queries, k, draws) for _ in range(4000)], axis=0)
    found = instance_recall(gallery, queries)
    assert (found.equal > 0).any()
    np.testing.assert_allclose(found.hits(k), expected, atol=0.05)
    assert found.recall(k) == pytest.approx(expected.mean(), abs=0.01)


def test_perfect_and_worst_scores() -> None:
    rows = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    assert instance_recall(rows, 5 * rows).recall(1) == 1
    assert instance_recall(rows, -rows).recall(10) == 0
    blind = np.ones((3000, 16), np.float32)
    assert instance_recall(blind, blind).recall(1) == pytest.approx(1 / 3000)
    assert instance_recall(blind, blind).recall(10) == pytest.approx(10 / 3000)
    noise = np.random.default_rng(1).standard_normal((3000, 16)).astype(np.float32)
    assert instance_recall(rows, noise).recall(10) == pytest.approx(10 / 3000, abs=0.01)


@pytest.mark.parametrize(
    ("gallery", "queries"), [((3, 4), (4, 4)), ((3, 4), (0, 4)), ((3, 4), (3, 5)), ((3,), (3,))]
)
def test_rows_that_do_not_belong_together_are_refused(
    gallery: tuple[int, ...], queries: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="queries"):
        instance_recall(np.ones(gallery, np.float32), np.ones(queries, np.float32))
