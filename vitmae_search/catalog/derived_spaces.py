"""Derived spaces: each vector is a projection of the parent's vector of the same content.

At the end of every transaction a derived space is complete: it has a vector of each content that its parent
has one of, and no others. The projection is passed in as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, exists, insert, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from vitmae_search.catalog import embeddings, spaces
from vitmae_search.catalog.dialects import STREAMED
from vitmae_search.catalog.embeddings import STORED_DTYPE, UNIT_TOLERANCE
from vitmae_search.catalog.photos import chunks
from vitmae_search.catalog.schema import EmbeddingRow, SpaceRow
from vitmae_search.catalog.spaces import SpaceSummary
from vitmae_search.errors import SpaceError
from vitmae_search.records import Space

Project = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(N, F) float32 features to (N, D) float32 vectors of norm 1, row by row."""

Projects = Mapping[str, Project]
"""Projections by their digest."""

TOLERANCE = 1e-5
"""Tolerance of a stored number against its projection, which another machine may round differently."""


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a derived space is made with, besides its features.

    Attributes:
        fingerprint: Digest of `identity`.
        projection: Digest of the projection.
        project: The projection itself.
        dimension: Numbers in a projected vector.
        identity: What the vectors depend on; JSON.
        provenance: How the projection was made; JSON.
    """

    fingerprint: str
    projection: str
    project: Project
    dimension: int
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]


def derive_space(connection: Connection, parent_id: int, derivation: Derivation) -> Space:
    """Make a derived space complete, and the space itself if there is none; see `CatalogWriter.derive_space`.

    Args:
        connection: A connection in a transaction.
        parent_id: The space of features.
        derivation: What the new space is.
    """
    spaces.lock(connection, parent_id)
    parent = spaces.get_features_space(connection, parent_id)
    shared = {name: getattr(parent, name) for name in ("plugin", "model", "decode", "options")}
    own = {
        "parent_id": parent_id,
        "projection": derivation.projection,
        "dimension": derivation.dimension,
        "identity": dict(derivation.identity),
        "provenance": dict(derivation.provenance),
    }
    space = spaces.ensure(connection, derivation.fingerprint, {**shared, **own})
    if "calibration" in derivation.provenance:  # what scores mean may be measured after the space was made
        spaces.update_provenance(connection, space, {"calibration": derivation.provenance["calibration"]})
    derive_missing(connection, space, derivation.project)
    return spaces.get(connection, space.space_id)


def derive_for_contents(
    connection: Connection, parent_id: int, content_ids: Sequence[int], projects: Projects
) -> dict[int, int]:
    """Derive the vectors of contents in all spaces that are derived from this one.

    Args:
        connection: A connection in a transaction.
        parent_id: The space of features.
        content_ids: Contents that the parent has just got features of.
        projects: The projections of derived spaces, by digest.

    Returns:
        The revisions that this began, by space id.

    Raises:
        SpaceError: The projection of a derived space is not among `projects`.
    """
    revisions: dict[int, int] = {}
    for child in spaces.child_summaries(connection, parent_id):
        project = projects.get(child.projection or "")
        if project is None:
            raise SpaceError(f"Space {child.space_id} would fall behind: its projection was not given.")
        revisions[child.space_id] = _derive(connection, child, project, content_ids)
    return revisions


def derive_missing(connection: Connection, space: Space, project: Project) -> None:
    """Derive the vectors that a derived space does not have yet.

    Args:
        connection: A connection in a transaction.
        space: The space.
        project: The projection: (N, F) float32 features to (N, D) unit vectors.
    """
    lacking = contents_without_vector(connection, space)
    if lacking:
        _derive(connection, space, project, lacking)


def contents_without_vector(connection: Connection, space: Space) -> Sequence[int]:
    """Return contents that have features but no vector in this derived space.

    Args:
        connection: A connection in a transaction.
        space: The space.
    """
    projected, features = _aliases()
    has_one = exists().where(
        projected.content_id == features.content_id, projected.space_id == space.space_id
    )
    statement = select(features.content_id).where(features.space_id == space.parent_id, ~has_one)
    return connection.execute(statement.order_by(features.embedding_id)).scalars().all()


def vectors_without_features(connection: Connection, space: Space) -> Sequence[int]:
    """Return ids of vectors in this derived space whose content has no features.

    Args:
        connection: A connection in a transaction.
        space: The space.
    """
    projected, features = _aliases()
    has_some = exists().where(
        features.content_id == projected.content_id, features.space_id == space.parent_id
    )
    statement = select(projected.embedding_id).where(projected.space_id == space.space_id, ~has_some)
    return connection.execute(statement.order_by(projected.embedding_id)).scalars().all()


def mismatched_vectors(connection: Connection, space: Space, project: Project) -> Iterator[int]:
    """Yield ids of vectors in this derived space that differ from the projection of their features.

    Vectors of a wrong dimension are skipped: the check of all spaces reports them.

    Args:
        connection: A connection in a transaction.
        space: The space.
        project: The projection: (N, F) float32 features to (N, D) unit vectors.
    """
    projected, features = _aliases()
    statement = select(projected.embedding_id, projected.vector, features.vector)
    statement = statement.join(features.content_id.table, features.content_id == projected.content_id)
    statement = statement.where(projected.space_id == space.space_id, features.space_id == space.parent_id)
    dimension = _dimension(connection, space)
    fit = (space.dimension * STORED_DTYPE.itemsize, dimension * STORED_DTYPE.itemsize)
    found = connection.execute(statement, execution_options=STREAMED)
    for rows in found.partitions(embeddings.CHUNK_VECTORS):
        rows = [row for row in rows if (len(row[1]), len(row[2])) == fit]
        if rows:
            stored = embeddings.decode([row[1] for row in rows], space.dimension)
            with np.errstate(all="ignore"):  # damaged features may be anything
                due = project(embeddings.decode([row[2] for row in rows], dimension))
            same = (np.abs(stored - due) <= TOLERANCE).all(axis=1)  # written this way, NaN differs
            yield from (row[0] for row, right in zip(rows, same, strict=True) if not right)


def _aliases() -> tuple[ReadOnlyColumnCollection[str, Any], ReadOnlyColumnCollection[str, Any]]:
    """The columns of embeddings twice: of projections, and of features."""
    return EmbeddingRow.__table__.alias().c, EmbeddingRow.__table__.alias().c


def _derive(
    connection: Connection, space: Space | SpaceSummary, project: Project, content_ids: Iterable[int]
) -> int:
    """Replace the vectors of these contents by new projections, and return the revision of the change."""
    revision = spaces.next_revision(connection, space.space_id)
    dimension = _dimension(connection, space)
    statement = select(EmbeddingRow.content_id, EmbeddingRow.vector)
    statement = statement.where(EmbeddingRow.space_id == space.parent_id)
    for some in chunks(content_ids):
        rows = connection.execute(statement.where(EmbeddingRow.content_id.in_(some))).all()
        vectors = _project_checked(space, project, embeddings.decode([row.vector for row in rows], dimension))
        spaces.tombstone(connection, space.space_id, EmbeddingRow.content_id.in_(some), revision)
        key = {"space_id": space.space_id, "revision": revision}
        pairs = zip(rows, vectors, strict=True)
        made = [key | {"content_id": row.content_id, "vector": embeddings.encode(v)} for row, v in pairs]
        connection.execute(insert(EmbeddingRow), made)
        spaces.change_number(connection, space.space_id, len(made))
    return revision


def _dimension(connection: Connection, space: Space | SpaceSummary) -> int:
    """Return the dimension of the features."""
    statement = select(SpaceRow.dimension).where(SpaceRow.space_id == space.parent_id)
    return connection.execute(statement).scalar_one()


def _project_checked(
    space: Space | SpaceSummary, project: Project, features: NDArray[np.float32]
) -> NDArray[np.float32]:
    vectors = project(features)
    if vectors.shape != (len(features), space.dimension):
        due = (len(features), space.dimension)
        raise SpaceError(f"The projection of space {space.space_id} gave {vectors.shape} numbers, not {due}.")
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not (np.abs(norms - 1) <= UNIT_TOLERANCE).all():  # written this way, NaN is refused too
        raise SpaceError(f"The projection of space {space.space_id} gave vectors whose norm is not 1.")
    return vectors
