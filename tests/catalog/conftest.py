"""A real catalogue in a fresh folder, and short ways to say what goes into it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog, CatalogWriter, Derivation, Indexed
from vitmae_search.records import Failure, Photo, PhotoMetadata, Space, Stamp

DIMENSION = 8


class Make:
    """Makes what a batch holds. A content is named by a word, which decides its digest and vector."""

    dimension = DIMENSION

    def digest(self, word: str) -> str:
        return hashlib.sha256(word.encode("utf-8", "surrogatepass")).hexdigest()

    def vector(self, word: str) -> NDArray[np.float32]:
        seed = int(self.digest(word)[:8], 16)
        vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
        return vector / np.linalg.norm(vector)

    def stamp(self, path: str, *, size: int = 1, mtime_ns: int = 1) -> Stamp:
        return Stamp(path, size, mtime_ns, device=7)

    def item(
        self,
        path: str,
        word: str,
        *,
        photo_id: int | None = None,
        known: bool = False,
        taken_at: datetime | None = None,
        camera: str | None = None,
        size: int = 1,
        mtime_ns: int = 1,
    ) -> Indexed:
        return Indexed(
            self.stamp(path, size=size, mtime_ns=mtime_ns),
            self.digest(word),
            None if known else PhotoMetadata(40, 30, "JPEG", taken_at, camera),
            None if known else self.vector(word),
            photo_id,
        )

    def photo_at(self, catalog: Catalog, path: str) -> Photo | None:
        return next((photo for photo in catalog.photos(missing=None) if photo.path == path), None)

    def failure(self, path: str, reason: str = "truncated", *, size: int = 1, mtime_ns: int = 1) -> Failure:
        return Failure(path, reason, size, mtime_ns)

    def space(
        self,
        writer: CatalogWriter,
        name: str = "first",
        dimension: int = DIMENSION,
        derivation: Derivation | None = None,
    ) -> Space:
        return writer.ensure_space(
            fingerprint=self.digest(name),
            plugin="vitmae",
            model=name,
            dimension=dimension,
            decode="scaled",
            options={"pooling": "cls"},
            identity={"weights": name},
            provenance={"device": "cpu"},
            derivation=derivation,
        )


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "library"


@pytest.fixture
def writer(folder: Path) -> Iterator[CatalogWriter]:
    with CatalogWriter.open_writer(folder) as catalog:
        yield catalog


@pytest.fixture
def space(writer: CatalogWriter, make: Make) -> int:
    return make.space(writer).space_id
