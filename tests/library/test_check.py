"""Damage that only a comparison of catalogue and index file can show."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from vitmae_search.embedding import Projection
from vitmae_search.library import Library

PHOTOS = 12


@pytest.fixture
def folder(tmp_path: Path, write_photo: Callable[[Path, int], Path]) -> Path:
    for seed in range(PHOTOS):
        write_photo(tmp_path / "photos" / f"{seed}.jpg", seed)
    return tmp_path / "library"


def stored(folder: Path) -> dict[tuple[str, int], bytes]:
    with closing(sqlite3.connect(folder / "catalogue.sqlite3")) as catalogue:
        rows = catalogue.execute(
            "SELECT digest, space_id, vector FROM embeddings JOIN contents USING (content_id)"
        )
        return {(digest, space_id): vector for digest, space_id, vector in rows}


def negate_a_component(folder: Path, space_id: int) -> None:
    """The vector is still of length 1, so that the catalogue by itself looks whole."""
    with closing(sqlite3.connect(folder / "catalogue.sqlite3")) as catalogue, catalogue:
        number, blob = catalogue.execute(
            "SELECT embedding_id, vector FROM embeddings WHERE space_id = ?", (space_id,)
        ).fetchone()
        vector = np.frombuffer(blob, "<f4").copy()
        vector[np.abs(vector).argmax()] *= -1
        statement = "UPDATE embeddings SET vector = ? WHERE embedding_id = ?"
        catalogue.execute(statement, (vector.tobytes(), number))


def test_a_damaged_vector_is_deleted_and_made_again(folder: Path) -> None:
    with Library.open(folder, embedder="color_layout") as library:
        library.index(folder.parent / "photos")
    before = stored(folder)
    negate_a_component(folder, 1)
    assert stored(folder) != before
    with Library.open(folder) as library:
        assert not library.check().ok
        report = library.check(repair=True)
        assert report.ok
        assert any("deleted 1 vectors" in line for line in report.repaired)
        assert len(stored(folder)) == PHOTOS - 1
        library.index(folder.parent / "photos")
        assert library.check().ok
    assert stored(folder) == before


def test_no_derived_vector_is_made_of_a_damaged_one(folder: Path) -> None:
    random = np.random.default_rng(0)
    projection = Projection((random.normal(size=(7, 268)),), (np.zeros(7),), "whitening")
    with Library.open(folder, embedder="color_layout") as library:
        library.index(folder.parent / "photos")
        library.index(folder.parent / "photos")
    with Library.open(folder, embedder="color_layout", projection=projection) as library:
        library.index(folder.parent / "photos")
    before = stored(folder)
    assert len(before) == 2 * PHOTOS
    negate_a_component(folder, 1)
    with Library.open(folder) as library:
        assert library.check(repair=True).ok
        library.index(folder.parent / "photos")
        assert library.check().ok
    after = stored(folder)
    assert after.keys() == before.keys()
    for key, vector in before.items():
        np.testing.assert_allclose(np.frombuffer(after[key], "<f4"), np.frombuffer(vector, "<f4"), atol=1e-6)
