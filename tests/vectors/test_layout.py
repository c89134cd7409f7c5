"""Layouts: what lies near, what stays where it is, and what the files survive."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from vitmae_search.vectors.layout import (
    FEWEST_FOR_TSNE,
    Layout,
    LayoutCancelled,
    fit_pca,
    fit_tsne,
    place,
)

needs_tsne = pytest.mark.skipif(
    importlib.util.find_spec("openTSNE") is None, reason="openTSNE is not installed"
)


def blobs(count: int, seed: int = 0, blobs: int = 4, dimension: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around a few directions, and which direction each belongs to."""
    directions = np.random.default_rng(99).normal(size=(blobs, dimension))
    random = np.random.default_rng(seed)
    which = np.arange(count) % blobs
    vectors = directions[which] + 0.3 * random.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), which


def share_of_neighbours(coordinates: np.ndarray, which: np.ndarray) -> float:
    """How often the nearest other point on the map is of the same direction."""
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return float((which[distances.argmin(axis=1)] == which).mean())


def test_pca_is_that_of_numpy():
    vectors, _ = blobs(200)
    layout = fit_pca(np.arange(200), vectors)
    centred = vectors - vectors.mean(axis=0)
    expected = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    signs = np.sign((expected * layout.coordinates).sum(axis=0))
    np.testing.assert_allclose(layout.coordinates, expected * signs, atol=1e-4)
    assert set(layout.clusters[:4].tolist()) == set(layout.clusters.tolist()) or len(layout.centres) > 4


@needs_tsne
def test_tsne_puts_neighbours_beside_each_other_and_draws_the_same_map_again():
    vectors, which = blobs(120)
    steps = []
    layout = fit_tsne(np.arange(120), vectors, on_step=lambda done, total: steps.append((done, total)))
    assert share_of_neighbours(layout.coordinates, which) == 1.0
    assert steps[0] == (0, 750)
    assert steps[-1][0] > 700
    np.testing.assert_array_equal(fit_tsne(np.arange(120), vectors).coordinates, layout.coordinates)


@pytest.mark.parametrize("method", ["pca", pytest.param("tsne", marks=needs_tsne)])
def test_new_vectors_are_placed_beside_their_like_and_the_others_stay(method):
    vectors, which = blobs(120)
    new, which_new = blobs(12, seed=1)
    fit = fit_pca if method == "pca" else fit_tsne
    layout = fit(np.arange(120), vectors)
    more = place(layout, np.arange(200, 212), new, lambda ids: vectors[ids])
    np.testing.assert_array_equal(more.coordinates[:120], layout.coordinates)
    assert more.ids.tolist() == [*range(120), *range(200, 212)]
    assert more.fitted.tolist() == [True] * 120 + [False] * 12
    if method == "tsne":
        nearest = np.linalg.norm(more.coordinates[120:, None] - layout.coordinates[None], axis=2).argmin(
            axis=1
        )
        assert (which[nearest] == which_new).all()


@pytest.mark.parametrize("method", ["pca", pytest.param("tsne", marks=needs_tsne)])
@pytest.mark.parametrize("count", [0, 1, 2, FEWEST_FOR_TSNE - 1, FEWEST_FOR_TSNE + 1])
def test_few_vectors_have_a_map_too(method, count):
    vectors, _ = blobs(12)
    fit = fit_pca if method == "pca" else fit_tsne
    layout = fit(np.arange(count), vectors[:count])
    layout = place(layout, np.arange(count, 12), vectors[count:], lambda ids: vectors[ids])
    assert layout.coordinates.shape == (12, 2)
    assert np.isfinite(layout.coordinates).all()


@needs_tsne
def test_equal_vectors_have_a_map_too():
    vectors = np.repeat(blobs(2)[0], 30, axis=0)
    assert np.isfinite(fit_tsne(np.arange(60), vectors).coordinates).all()


@needs_tsne
def test_tsne_stops_when_it_is_told():
    vectors, _ = blobs(60)
    asked = iter([False, False, *[True] * 1000])
    with pytest.raises(LayoutCancelled):
        fit_tsne(np.arange(60), vectors, cancelled=lambda: next(asked))


def test_a_layout_is_read_as_it_was_written():
    vectors, _ = blobs(30)
    layout = fit_pca(np.arange(30), vectors).only(np.arange(5, 20))
    read = Layout.from_bytes(layout.to_bytes())
    for name in Layout.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(read, name), getattr(layout, name))
    assert read.ids.tolist() == list(range(5, 20))
