"""What the benchmark's figures rest on: true answers, recall, and kinds that answer what they were asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import vector_data, vector_indexes
from benchmarks.vector_data import (
    QUERIES,
    K,
    SearchData,
    clustered_vectors,
    kth_scores,
    load_or_make,
    mixed_vectors,
    recall_at_k,
    unit_rows,
)
from benchmarks.vector_indexes import IndexKind, LibraryIndex, index_kinds
from benchmarks.vector_search import HEADER, Measurement, measure_filters, time_queries_interleaved


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SearchData:
    return load_or_make("clusters", clustered_vectors(64), 3000, tmp_path_factory.mktemp("data"))


def test_true_answers_do_not_depend_on_chunks(data: SearchData, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.sort(data.queries @ data.vectors.T, axis=1)[:, -K]
    assert np.allclose(data.kth, expected, atol=1e-6)
    monkeypatch.setattr(vector_data, "_CHUNK", 7)
    assert np.allclose(kth_scores(data.vectors, data.queries), expected, atol=1e-6)
    rows = np.arange(0, 3000, 3)
    among = np.sort(data.queries @ data.vectors[rows].T, axis=1)[:, -K]
    assert np.allclose(kth_scores(data.vectors, data.queries, rows), among, atol=1e-6)


def test_recall_counts_what_is_missing_and_forgives_ties() -> None:
    kth = np.array([0.5], np.float32)
    found = np.array([[0.9, 0.8, 0.5, 0.5]], np.float32)
    assert recall_at_k(found, kth) == 1.0
    found[0, 3] = 0.4
    assert recall_at_k(found, kth) == 0.75
    found[0, 2] = -np.inf
    assert recall_at_k(found, kth) == 0.5


def test_an_id_found_twice_counts_once(data: SearchData) -> None:
    scores = data.scores(data.queries[0], np.array([3, 3, 5]))
    assert np.isfinite(scores).sum() == 2


def test_vectors_are_the_same_each_time_and_queries_are_not_among_them(
    data: SearchData, tmp_path: Path
) -> None:
    again = load_or_make("clusters", clustered_vectors(64), 3000, tmp_path)
    assert np.array_equal(again.vectors, data.vectors)
    assert np.array_equal(again.queries, data.queries)
    assert len(data.queries) == QUERIES
    for rows in (data.vectors, data.queries, data.more):
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert (data.queries @ data.vectors.T).max() < 0.99, "a query is stored, or nearly"


def test_held_out_mixtures_come_from_photos_of_their_own() -> None:
    base = unit_rows(np.eye(20, dtype=np.float32) + 1e-4)
    draw = mixed_vectors(base)
    near = [draw(200, np.random.default_rng(0), held_out) @ base.T for held_out in (False, True)]
    assert near[0].argmax(axis=1).max() < 18
    assert near[1].argmax(axis=1).min() >= 18


def _here(kind: IndexKind) -> bool:
    return kind.module is None


def test_each_kind_finds_answers_and_has_a_row(
    data: SearchData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        vector_indexes, "available_cores", lambda: 1
    )  # threads that wait for each other take a minute
    ours = LibraryIndex(data.vectors, tmp_path / "ours")
    rows = [Measurement(kind) for kind in [*filter(_here, index_kinds(len(data.vectors), slow=False)), ours]]
    for row in rows:
        row.build(data, tmp_path)
    time_queries_interleaved(rows, data)
    for row in rows:
        row.time_updates(data)
        cells = dict(zip(HEADER, row.cells(data), strict=True))
        assert sorted(row.queried) == list(range(QUERIES))
        assert float(cells["recall@10, held out"]) > 0.3, row.kind.name
        if row.kind.exact or row.kind is ours:
            assert float(cells["recall@10, held out"]) == float(cells["recall@10, with noise"]) == 1
    assert {row.kind.name for row in rows if row.removing is None} == {
        "NumPy product",
        "RaBitQ, SQ8 refines 200",
    }


def test_filters_are_measured_among_what_they_leave(data: SearchData, tmp_path: Path) -> None:
    rows = measure_filters(LibraryIndex(data.vectors, tmp_path), data)
    assert [row[1] for row in rows] == ["1500", "150", "10"]
    assert {row[-1] for row in rows} == {"1.000"}
