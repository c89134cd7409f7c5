"""Derived spaces: each vector is a projection of the one that the parent has of the same content.

A derived space is complete at the end of every transaction: it has a vector of each content that its
parent has one of, and of no other. The projection itself comes from outside, as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, exists, insert, select
from sqlalchemy.orm import aliased

from vitmae_search.catalog import embeddings, spaces
from vitmae_search.catalog.embeddings import STORED, UNIT_TOLERANCE
from vitmae_search.catalog.photos import chunks
from vitmae_search.catalog.schema import EmbeddingRow, SpaceRow
from vitmae_search.catalog.spaces import Outline
from vitmae_search.errors import SpaceError
from vitmae_search.records import Space

Project = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(N, F) float32 features to (N, D) float32 vectors of unit length, row by row."""

Projects = Mapping[str, Project]
"""By the projection's digest."""

TOLERANCE = 1e-5
"""How far a number of a stored vector may lie from the projection's, which another machine may round so."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a derived space is, beside the features that it is derived from.

    `projection` is the digest of `project`, and `dimension` the length of what that gives.
    """

    fingerprint: str
    projection: str
    project: Project
    dimension: int
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]


def make(connection: Connection, parent_id: int, derivation: Derivation) -> Space:
    """See `CatalogWriter.derive_space`."""
    parent = spaces.of_features(connection, parent_id)
    shared = {name: getattr(parent, name) for name in ("plugin", "model", "decode", "options")}
    own = {
        "parent_id": parent_id,
        "projection": derivation.projection,
        "dimension": derivation.dimension,
        "identity": dict(derivation.identity),
        "provenance": dict(derivation.provenance),
    }
    space = spaces.ensure(connection, derivation.fingerprint, {**shared, **own})
    complete(connection, space, derivation.project)
    return spaces.one(connection, space.space_id)


def follow(
    connection: Connection, parent_id: int, content_ids: Sequence[int], projects: Projects
) -> dict[int, int]:
    """Derive what the parent has just got in all its children; the revisions that this began, by space."""
    revisions: dict[int, int] = {}
    for child in spaces.outlines_of_children(connection, parent_id):
        project = projects.get(child.projection or "")
        if project is None:
            raise SpaceError(f"Space {child.space_id} would fall behind: its projection was not given.")
        revisions[child.space_id] = _derive(connection, child, project, content_ids)
    return revisions


def complete(connection: Connection, space: Space, project: Project) -> None:
    """Derive the vectors that a derived space lacks."""
    lacking = contents_without_vector(connection, space)
    if lacking:
        _derive(connection, space, project, lacking)


def contents_without_vector(connection: Connection, space: Space) -> Sequence[int]:
    """The contents that have features, and no vector in this derived space."""
    mine, features = aliased(EmbeddingRow), aliased(EmbeddingRow)
    has_one = exists().where(mine.content_id == features.content_id, mine.space_id == space.space_id)
    statement = select(features.content_id).where(features.space_id == space.parent_id, ~has_one)
    return connection.execute(statement.order_by(features.embedding_id)).scalars().all()


def vectors_without_features(connection: Connection, space: Space) -> Sequence[int]:
    """The ids of vectors in this derived space whose content has no features."""
    mine, features = aliased(EmbeddingRow), aliased(EmbeddingRow)
    has_some = exists().where(features.content_id == mine.content_id, features.space_id == space.parent_id)
    statement = select(mine.embedding_id).where(mine.space_id == space.space_id, ~has_some)
    return connection.execute(statement.order_by(mine.embedding_id)).scalars().all()


def wrong_vectors(connection: Connection, space: Space, project: Project) -> Iterator[int]:
    """The ids of vectors in this derived space that are not the projection of their features.

    One of another length than its space's is passed over: that is looked for in every space.
    """
    mine, features = aliased(EmbeddingRow), aliased(EmbeddingRow)
    statement = select(mine.embedding_id, mine.vector, features.vector)
    statement = statement.join(features, features.content_id == mine.content_id)
    statement = statement.where(mine.space_id == space.space_id, features.space_id == space.parent_id)
    dimension = _dimension(connection, space)
    fit = (space.dimension * STORED.itemsize, dimension * STORED.itemsize)
    for rows in connection.execute(statement).partitions(embeddings.VECTORS_A_CHUNK):
        rows = [row for row in rows if (len(row[1]), len(row[2])) == fit]
        if rows:
            stored = embeddings.decode([row[1] for row in rows], space.dimension)
            with np.errstate(all="ignore"):  # damaged features may be anything
                due = project(embeddings.decode([row[2] for row in rows], dimension))
            same = (np.abs(stored - due) <= TOLERANCE).all(axis=1)  # so written, NaN is another
            yield from (row[0] for row, right in zip(rows, same, strict=True) if not right)


def _derive(
    connection: Connection, space: Space | Outline, project: Project, content_ids: Iterable[int]
) -> int:
    """Make the vectors of these contents, in place of any that are there; the revision that this began."""
    revision = spaces.next_revision(connection, space.space_id)
    dimension = _dimension(connection, space)
    statement = select(EmbeddingRow.content_id, EmbeddingRow.vector)
    statement = statement.where(EmbeddingRow.space_id == space.parent_id)
    for some in chunks(content_ids):
        rows = connection.execute(statement.where(EmbeddingRow.content_id.in_(some))).all()
        vectors = _projected(space, project, embeddings.decode([row.vector for row in rows], dimension))
        spaces.bury(connection, space.space_id, EmbeddingRow.content_id.in_(some), revision)
        place = {"space_id": space.space_id, "revision": revision}
        pairs = zip(rows, vectors, strict=True)
        made = [place | {"content_id": row.content_id, "vector": embeddings.encode(v)} for row, v in pairs]
        connection.execute(insert(EmbeddingRow), made)
    return revision


def _dimension(connection: Connection, space: Space | Outline) -> int:
    """The length of the features."""
    statement = select(SpaceRow.dimension).where(SpaceRow.space_id == space.parent_id)
    return connection.execute(statement).scalar_one()


def _projected(
    space: Space | Outline, project: Project, features: NDArray[np.float32]
) -> NDArray[np.float32]:
    vectors = project(features)
    if vectors.shape != (len(features), space.dimension):
        due = (len(features), space.dimension)
        raise SpaceError(f"The projection of space {space.space_id} gave {vectors.shape} numbers, not {due}.")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (np.abs(lengths - 1) <= UNIT_TOLERANCE).all():  # so written, NaN is refused too
        raise SpaceError(f"The projection of space {space.space_id} gave vectors whose length is not 1.")
    return vectors
