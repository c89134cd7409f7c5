"""A vectors file that another program cuts while it is open costs a rebuild, not the process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors import VectorCache
from vitmae_search.vectors import cache as cache_module
from vitmae_search.vectors.stored_rows import BlockLayout, RowWriter, StoredRows


@pytest.mark.parametrize("in_file", [False, True])
def test_a_search_in_a_file_that_was_cut(
    tmp_path: Path, source, unit, in_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.add(unit(20_000, 4, seed=1))  # many pages
    VectorCache(tmp_path).save(source)
    monkeypatch.setattr(cache_module, "_READ_AFTER", 100 if in_file else 0)
    cache = VectorCache(tmp_path)
    queries = unit(3, 4, seed=2)
    expected = cache.open(source).search(queries, 5)
    os.truncate(cache.path(source.key), 4096)
    found = cache.open(source).search(queries, 5)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
    assert cache.save(source)
    again = VectorCache(tmp_path).open(source).search(queries, 5)
    np.testing.assert_array_equal(again[0].ids, expected[0].ids)


def test_a_file_that_is_cut_during_a_search(tmp_path: Path, source, unit) -> None:
    source.add(unit(20_000, 4, seed=1))
    VectorCache(tmp_path).save(source)
    cache = VectorCache(tmp_path)
    opened = cache.open(source)
    expected = opened.search(unit(3, 4, seed=2), 5)
    os.truncate(cache.path(source.key), 8192)
    with pytest.raises(VectorCacheDamaged, match="was cut while it was searched; search again"):
        opened.search(unit(3, 4, seed=2), 5)
    found = cache.open(source).search(unit(3, 4, seed=2), 5)
    np.testing.assert_array_equal(found[0].ids, expected[0].ids)


@pytest.mark.parametrize("removed", [False, True])
def test_vectors_are_read_when_a_space_was_searched_some_times(
    tmp_path: Path, source, unit, removed: bool
) -> None:
    source.add(unit(9000, 4, seed=1))
    VectorCache(tmp_path).save(source)
    if removed:  # what the file does not know yet
        source.remove([5])
        source.add(unit(10, 4, seed=3))
    cache, queries, read, found = VectorCache(tmp_path), unit(3, 4, seed=2), [], []
    for _ in range(5):
        found.append(cache.open(source).search(queries, 5))
        read.append(isinstance(cache._snapshots[source.key].file.vectors, np.ndarray))
    assert read == [False, False, False, True, True]
    for again in found:
        for one, other in zip(found[0], again, strict=True):
            np.testing.assert_array_equal(one.ids, other.ids)
            np.testing.assert_array_equal(one.scores, other.scores)


def test_rows_in_a_file_are_those_of_the_matrix(tmp_path: Path, unit) -> None:
    vectors, path = unit(9000, 96, seed=1), tmp_path / "rows"
    layout = BlockLayout(6, 96)
    with path.open("w+b") as stream:
        for some in (slice(0, 100), slice(100, 5000), slice(5000, 9000)):
            RowWriter(stream.fileno(), layout, some.start).write(np.arange(9000)[some], vectors[some])
        stored = StoredRows(stream.fileno(), path, layout, 9000)
    path.unlink()
    for rows in ([], [2999], [0, 1, 2, 7, 8, 5, 5, 4], [4094, 4095, 4096, 8191, 8192], range(9000)):
        np.testing.assert_array_equal(stored[np.array(rows, np.int64)], vectors[list(rows)])
    blocks = list(stored.blocks())
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), vectors)
    assert [start for start, _ in blocks] == np.cumsum([0, *(len(b) for _, b in blocks)])[:-1].tolist()
