"""A space's vectors: as stored, by id, and in the order of its revisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select, tuple_
from sqlalchemy.engine import Connection

from vitmae_search.catalog.database import Database
from vitmae_search.catalog.photos import chunks
from vitmae_search.catalog.schema import EmbeddingRow, SpaceRow, TombstoneRow
from vitmae_search.errors import LibraryDamaged, SpaceError

STORED = np.dtype("<f4")
"""Little-endian float32 on every machine, so that a library can be carried to another."""

VECTORS_A_CHUNK = 4096

UNIT_TOLERANCE = 1e-3
"""How far a vector's length may lie from 1: rounding is 1e-7, a forgotten normalisation is far off."""


def encode(vector: NDArray[np.float32]) -> bytes:
    """A (D,) vector as it is stored."""
    return np.ascontiguousarray(vector, dtype=STORED).tobytes()


def decode(blobs: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """Stored vectors as (N, D) float32. `LibraryDamaged` where one has another length."""
    if any(len(blob) != dimension * STORED.itemsize for blob in blobs):
        raise LibraryDamaged("A stored vector has the wrong length: run `vitmae-search check` to see which.")
    return np.frombuffer(b"".join(blobs), dtype=STORED).reshape(len(blobs), dimension).astype(np.float32)


def of_content(connection: Connection, space_id: int, content_id: int) -> NDArray[np.float32] | None:
    """See `Catalog.vector`."""
    statement = select(EmbeddingRow.vector).where(
        EmbeddingRow.space_id == space_id, EmbeddingRow.content_id == content_id
    )
    blob = connection.execute(statement).scalar_one_or_none()
    return None if blob is None else decode([blob], len(blob) // STORED.itemsize)[0]


def of_ids(
    connection: Connection, space_id: int, dimension: int, embedding_ids: Sequence[int]
) -> NDArray[np.float32]:
    """See `Catalog.vectors`."""
    found = _blobs(connection, space_id, embedding_ids)
    absent = next((number for number in embedding_ids if number not in found), None)
    if absent is not None:
        raise SpaceError(f"Space {space_id} has no vector {absent}; it may have been deleted just now.")
    return decode([found[number] for number in embedding_ids], dimension)


def _blobs(connection: Connection, space_id: int, embedding_ids: Sequence[int]) -> dict[int, bytes]:
    """The stored vectors of those of the ids that are there."""
    statement = select(EmbeddingRow.embedding_id, EmbeddingRow.vector)
    statement = statement.where(EmbeddingRow.space_id == space_id)
    found: dict[int, bytes] = {}
    for ids in chunks(embedding_ids):
        for row in connection.execute(statement.where(EmbeddingRow.embedding_id.in_(ids))):
            found[row.embedding_id] = row.vector
    return found


class SpaceVectors:
    """One space's vectors, for an index to catch up from.

    Each read is a short transaction of its own, also each chunk, so that a slow reader keeps nobody
    waiting. While a writer is at work a chunk may therefore hold what came after `revision()` was asked;
    it is given again by a catch-up from there. `key` is the space's fingerprint.
    """

    def __init__(self, database: Database, space_id: int, key: str, dimension: int) -> None:
        self._database = database
        self._space_id = space_id
        self.key = key
        self.dimension = dimension

    @property
    def history(self) -> str:
        """When the space was made: ids and revisions of another catalogue's space mean other things."""
        statement = select(SpaceRow.created_at).where(SpaceRow.space_id == self._space_id)
        with self._database.reading() as connection:
            return connection.execute(statement).scalar_one().isoformat()

    def revision(self) -> int:
        """The revision of the last change; 0 before the first."""
        statement = select(SpaceRow.revision).where(SpaceRow.space_id == self._space_id)
        with self._database.reading() as connection:
            return int(connection.execute(statement).scalar_one())

    def added_since(self, revision: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """What was added after `revision` and is still there: chunks of (n,) ids and (n, D) vectors."""
        last = (revision + 1, -1)
        position = tuple_(EmbeddingRow.revision, EmbeddingRow.embedding_id)
        statement = select(EmbeddingRow.embedding_id, EmbeddingRow.revision, EmbeddingRow.vector)
        statement = statement.where(EmbeddingRow.space_id == self._space_id)
        statement = statement.order_by(EmbeddingRow.revision, EmbeddingRow.embedding_id)
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(statement.where(position > last).limit(VECTORS_A_CHUNK)).all()
            if not rows:
                return
            last = (rows[-1].revision, rows[-1].embedding_id)
            ids = np.array([row.embedding_id for row in rows], dtype=np.int64)
            yield ids, decode([row.vector for row in rows], self.dimension)

    def removed_since(self, revision: int) -> NDArray[np.int64]:
        """(N,) ids, ascending, that were removed after `revision`, whenever they had been added."""
        statement = select(TombstoneRow.embedding_id).where(
            TombstoneRow.space_id == self._space_id, TombstoneRow.revision > revision
        )
        with self._database.reading() as connection:
            rows = connection.execute(statement.order_by(TombstoneRow.embedding_id))
            return np.fromiter(rows.scalars(), dtype=np.int64)

    def stored(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Those of `ids` that are still there, and their (n, D) vectors, row by row."""
        with self._database.reading() as connection:
            found = _blobs(connection, self._space_id, ids.tolist())
        here = np.array([i for i in ids.tolist() if i in found], dtype=np.int64)
        return here, decode([found[i] for i in here.tolist()], self.dimension)
