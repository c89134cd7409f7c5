"""A vectors file that another program cuts while it is open costs a rebuild, not the process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors import VectorCache, file
from vitmae_search.vectors.file import VectorsFile


@pytest.mark.parametrize("mapped", [False, True])
def test_a_search_in_a_file_that_was_cut(
    tmp_path: Path, source, unit, mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.add(unit(20_000, 4, seed=1))  # many pages
    VectorCache(tmp_path).save(source)
    monkeypatch.setattr(VectorsFile.__init__, "__kwdefaults__", {"read_bytes": 0 if mapped else 2**28})
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


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cut"
    path.write_bytes(bytes(5000))
    with path.open("rb") as stream, pytest.raises(VectorCacheDamaged, match="cut"):
        file._read_into(stream, np.empty((1000, 4), np.float32), path)
