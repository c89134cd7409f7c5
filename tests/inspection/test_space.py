"""Neighbours and hubs agree with brute force, also where photos are sampled."""

from __future__ import annotations

import numpy as np
import pytest

from vitmae_search.inspection import neighbour_graph as graphs
from vitmae_search.inspection.neighbour_graph import neighbour_graph, reverse_neighbours
from vitmae_search.inspection.space import participation_ratio, spectrum_of, usual_distances

K = 7


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit(np.random.default_rng(1).normal(size=(1500, 24)) + 0.4)


@pytest.fixture(scope="module")
def nearest_by_force(vectors: np.ndarray) -> np.ndarray:
    scores = vectors.astype(np.float64) @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1)[:, :K]


def test_neighbours_are_those_of_brute_force_in_blocks(
    vectors: np.ndarray, nearest_by_force: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_QUERIES", 100)
    monkeypatch.setattr(graphs, "_VECTORS", 130)
    found = neighbour_graph(vectors, K)
    assert np.array_equal(found.neighbours, nearest_by_force)
    counts = np.bincount(nearest_by_force.ravel(), minlength=1500)
    assert np.array_equal(found.occurrences(), counts)
    assert np.array_equal(found.usual, counts)
    deviations = counts - counts.mean()
    assert found.skewness() == pytest.approx((deviations**3).mean() / counts.std() ** 3)
    assert usual_distances(found).shape == (K, 5)
    drawn = neighbour_graph(vectors, K, sample=200)
    assert np.array_equal(drawn.neighbours, nearest_by_force[drawn.queries])
    assert (len(drawn.usual), drawn.usual.sum()) == (200, 200 * K)


def test_skewness_of_a_sample_is_that_of_all(vectors: np.ndarray) -> None:
    whole = neighbour_graph(vectors, K).skewness()
    sampled = neighbour_graph(vectors, K, sample=500)
    counts = sampled.counts()
    naive = ((counts - counts.mean()) ** 3).mean() / counts.std() ** 3
    assert abs(sampled.skewness() - whole) < 0.25 * whole
    assert abs(naive - whole) > abs(sampled.skewness() - whole)


@pytest.mark.parametrize("pools", [(), (64, 256)])
def test_reverse_neighbours_are_all_there_are(
    vectors: np.ndarray, nearest_by_force: np.ndarray, pools: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_POOLS", pools)
    hub = int(np.bincount(nearest_by_force.ravel()).argmax())
    for own in (0, 7, hub):
        rows, scores = reverse_neighbours(vectors, vectors[own], K, own)
        assert set(rows.tolist()) == set(np.flatnonzero((nearest_by_force == own).any(axis=1)).tolist())
        assert (np.diff(scores) <= 0).all()


def test_a_vector_in_the_middle_of_all_is_a_hub() -> None:
    around = np.eye(40)[:, :39] * 0.8
    ring = unit(np.concatenate([around[:39], np.full((1, 39), 1.0)]))
    found = neighbour_graph(ring, 1)
    assert found.occurrences()[39] == 39
    assert found.skewness() > 5


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_vectors(count: int) -> None:
    found = neighbour_graph(np.eye(3, dtype=np.float32)[:count], 5)
    assert (found.k, found.complete) == (max(0, count - 1), True)
    assert np.isfinite(found.skewness())
    assert usual_distances(found).shape == (max(0, count - 1), 5)


def test_the_effective_dimension_counts_directions() -> None:
    draws = np.random.default_rng(0)
    flat = np.zeros((4000, 20))
    flat[:, :5] = draws.normal(size=(4000, 5))
    spectrum, mean_cosine = spectrum_of(unit(flat))
    assert participation_ratio(spectrum) == pytest.approx(5, abs=0.1)
    assert spectrum.sum() == pytest.approx(1)
    assert abs(mean_cosine) < 0.01
    same, cosine = spectrum_of(np.tile(unit(np.ones((1, 8))), (10, 1)))
    assert cosine == pytest.approx(1)
    assert np.isfinite(participation_ratio(same))
