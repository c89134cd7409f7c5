"""The table of embeddings: encoding, lookup, and `SpaceVectors`, the feed that vector indexes follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select, tuple_
from sqlalchemy.engine import Connection

from vitmae_search.catalog import attributes
from vitmae_search.catalog.database import Database
from vitmae_search.catalog.photos import chunks, with_ids
from vitmae_search.catalog.schema import AttributeChangeRow, EmbeddingRow, RevisionRow, SpaceRow, TombstoneRow
from vitmae_search.errors import LibraryDamaged, SpaceError
from vitmae_search.records import VectorAttributes

STORED_DTYPE = np.dtype("<f4")
"""Little-endian float32 on every machine, so that a library can be carried to another."""

CHUNK_VECTORS = 4096

UNIT_TOLERANCE = 1e-3
"""Tolerance of a vector's norm: rounding is 1e-7, a missing normalisation is far off."""


def encode(vector: NDArray[np.float32]) -> bytes:
    """Return a (D,) vector as it is stored."""
    return np.ascontiguousarray(vector, dtype=STORED_DTYPE).tobytes()


def decode(blobs: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """Return stored vectors as (N, D) float32.

    Args:
        blobs: Vectors as stored.
        dimension: Numbers in a vector.

    Raises:
        LibraryDamaged: A vector has another dimension.
    """
    size = dimension * STORED_DTYPE.itemsize
    if not all(isinstance(blob, bytes) and len(blob) == size for blob in blobs):
        raise LibraryDamaged(
            "A stored vector has the wrong dimension: run `vitmae-search check` to see which."
        )
    return (
        np.frombuffer(b"".join(blobs), dtype=STORED_DTYPE).reshape(len(blobs), dimension).astype(np.float32)
    )


def of_content(connection: Connection, space_id: int, content_id: int) -> NDArray[np.float32] | None:
    """Return the vector of a content, or None; see `Catalog.vector`.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
        content_id: The content.
    """
    statement = select(EmbeddingRow.vector).where(
        EmbeddingRow.space_id == space_id, EmbeddingRow.content_id == content_id
    )
    blob = connection.execute(statement).scalar_one_or_none()
    if blob is None:
        return None
    size = len(blob) if isinstance(blob, bytes) else 0
    vector: NDArray[np.float32] = decode([blob], size // STORED_DTYPE.itemsize)[0]
    return vector


def of_ids(
    connection: Connection, space_id: int, dimension: int, embedding_ids: Sequence[int]
) -> NDArray[np.float32]:
    """Return the vectors of these ids; see `Catalog.vectors`.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
        dimension: Numbers in a vector.
        embedding_ids: The embeddings.
    """
    found = _blobs(connection, space_id, embedding_ids)
    absent = next((number for number in embedding_ids if number not in found), None)
    if absent is not None:
        raise SpaceError(f"Space {space_id} has no vector {absent}; it may have been deleted just now.")
    return decode([found[number] for number in embedding_ids], dimension)


def _count_added(connection: Connection, space_id: int, revision: int) -> int:
    statement = select(func.count()).where(
        EmbeddingRow.space_id == space_id, EmbeddingRow.revision > revision
    )
    return int(connection.execute(statement).scalar_one())


def _blobs(connection: Connection, space_id: int, embedding_ids: Sequence[int]) -> dict[int, bytes]:
    """Return the stored vectors of those ids that exist."""
    statement = select(EmbeddingRow.embedding_id, EmbeddingRow.vector)
    found: dict[int, bytes] = {}
    for ids in chunks(embedding_ids):
        for row in connection.execute(statement.where(with_ids(space_id, ids))):
            found[row.embedding_id] = row.vector
    return found


@dataclass(frozen=True, slots=True)
class RevisionChanges:
    """What changed in a space after a revision.

    Attributes:
        added: Vectors that were added, and are still stored.
        removed: Vectors that were removed, whenever they were added.
        since: When the first of these changes was made; None where there are none, or it is not known.
    """

    added: int
    removed: int
    since: datetime | None


class SpaceVectors:
    """One space's vectors in the order of its revisions, for a vector index to catch up from.

    Each read is a short transaction, and so is each chunk, so a slow reader blocks nobody. While a writer
    is at work a chunk may hold vectors added after `revision()` was read; a catch-up from there gives them
    again.

    Attributes:
        key: The space's fingerprint.
        dimension: Numbers in a vector.
    """

    def __init__(self, database: Database, space_id: int, key: str, dimension: int) -> None:
        self._database = database
        self._space_id = space_id
        self.key = key
        self.dimension = dimension

    def revision(self) -> int:
        """Return the revision of the last change; 0 before the first."""
        statement = select(SpaceRow.revision).where(SpaceRow.space_id == self._space_id)
        with self._database.single_read() as connection:
            return int(connection.execute(statement).scalar_one())

    def revision_identity(self, revision: int) -> str | None:
        """Return the identity of a revision; "" for 0, which has no vectors, and None if it never was."""
        if revision == 0:
            return ""
        statement = select(RevisionRow.identity).where(
            RevisionRow.space_id == self._space_id, RevisionRow.revision == revision
        )
        with self._database.single_read() as connection:
            return connection.execute(statement).scalar_one_or_none()

    def changes_since(self, revision: int) -> RevisionChanges:
        """Count what an index at a revision lacks and has too much, and say since when."""
        removed = select(func.count()).where(
            TombstoneRow.space_id == self._space_id, TombstoneRow.revision > revision
        )
        first = (
            select(RevisionRow.made_at)
            .where(RevisionRow.space_id == self._space_id, RevisionRow.revision > revision)
            .order_by(RevisionRow.revision)
            .limit(1)
        )
        with self._database.read_transaction() as connection:
            more = _count_added(connection, self._space_id, revision)
            fewer = int(connection.execute(removed).scalar_one())
            since = connection.execute(first).scalar_one_or_none()
        return RevisionChanges(more, fewer, since if more or fewer else None)

    def count_added_since(self, revision: int) -> int:
        """Return how many vectors `added_since` yields."""
        with self._database.single_read() as connection:
            return _count_added(connection, self._space_id, revision)

    def added_since(self, revision: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield what was added after `revision` and is still stored, as (n,) ids and (n, D) vectors."""
        last = (revision + 1, -1)
        position = tuple_(EmbeddingRow.revision, EmbeddingRow.embedding_id)
        statement = select(EmbeddingRow.embedding_id, EmbeddingRow.revision, EmbeddingRow.vector)
        statement = statement.where(EmbeddingRow.space_id == self._space_id)
        statement = statement.order_by(EmbeddingRow.revision, EmbeddingRow.embedding_id)
        while True:
            with self._database.read_transaction() as connection:
                rows = connection.execute(statement.where(position > last).limit(CHUNK_VECTORS)).all()
            if not rows:
                return
            last = (rows[-1].revision, rows[-1].embedding_id)
            ids = np.array([row.embedding_id for row in rows], dtype=np.int64)
            yield ids, decode([row.vector for row in rows], self.dimension)

    def removed_since(self, revision: int) -> NDArray[np.int64]:
        """Return the ids that were removed after `revision`, whenever they were added: (N,), ascending."""
        statement = select(TombstoneRow.embedding_id).where(
            TombstoneRow.space_id == self._space_id, TombstoneRow.revision > revision
        )
        with self._database.single_read() as connection:
            rows = connection.execute(statement.order_by(TombstoneRow.embedding_id))
            return np.fromiter(rows.scalars(), dtype=np.int64)

    def attributes_changed_since(self, revision: int) -> Iterator[NDArray[np.int64]]:
        """Yield ids of vectors whose attributes changed after `revision`, without the vectors: (n,) each."""
        last = (revision + 1, -1)
        position = tuple_(AttributeChangeRow.revision, AttributeChangeRow.embedding_id)
        statement = select(AttributeChangeRow.embedding_id, AttributeChangeRow.revision)
        statement = statement.where(AttributeChangeRow.space_id == self._space_id).order_by(
            AttributeChangeRow.revision, AttributeChangeRow.embedding_id
        )
        while True:
            with self._database.read_transaction() as connection:
                rows = connection.execute(statement.where(position > last).limit(CHUNK_VECTORS)).all()
            if not rows:
                return
            last = (rows[-1].revision, rows[-1].embedding_id)
            yield np.array([row.embedding_id for row in rows], dtype=np.int64)

    def stored(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return those of `ids` that are still stored, and their (n, D) vectors, row by row."""
        with self._database.read_transaction() as connection:
            found = _blobs(connection, self._space_id, ids.tolist())
        here = np.array([i for i in ids.tolist() if i in found], dtype=np.int64)
        return here, decode([found[i] for i in here.tolist()], self.dimension)

    def attributes(self, ids: NDArray[np.int64]) -> list[VectorAttributes]:
        """Return what filters may ask of vectors, one by one."""
        with self._database.read_transaction() as connection:
            return attributes.of_vectors(connection, self._space_id, ids.tolist())
