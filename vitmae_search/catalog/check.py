"""Checks and repairs of a catalogue, one kind of damage at a time.

What cannot be trusted is deleted, never guessed: the next index run makes a photo's row and vector again
from the file itself. Only derived vectors are computed here, from their features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

import numpy as np
from sqlalchemy import Connection, and_, delete, exists, func, select, type_coerce, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import NullType

from vitmae_search.catalog import attributes, derived_spaces, spaces
from vitmae_search.catalog.derived_spaces import Projects
from vitmae_search.catalog.dialects import STREAMED, is_postgresql
from vitmae_search.catalog.embeddings import CHUNK_VECTORS, STORED_DTYPE, UNIT_TOLERANCE
from vitmae_search.catalog.odd_values import odd_values
from vitmae_search.catalog.photos import chunks, with_ids
from vitmae_search.catalog.record_batch import remove_orphans
from vitmae_search.catalog.schema import (
    AttributeChangeRow,
    ClassifiedRow,
    ClassifierRow,
    ContentRow,
    EmbeddingRow,
    FailureRow,
    PhotoRow,
    RevisionRow,
    SpaceRow,
    Table,
    TagRow,
    TombstoneRow,
)
from vitmae_search.errors import LibraryDamaged
from vitmae_search.records import Space

_EXAMPLES = 5


def problems(connection: Connection, projects: Projects) -> list[str]:
    """Return what is wrong with the catalogue, one sentence each; see `Catalog.check`.

    Args:
        connection: A connection in a transaction.
        projects: The projections of derived spaces, by digest.
    """
    found = _run_checks(connection, _pages, _references)
    with suppress(LibraryDamaged, DBAPIError):  # a damaged page; the checks of each table say which
        odd = [str(value) for value in odd_values(connection)]
        if odd:
            return found + odd  # the other checks take values for what they should be
    derived = partial(_derived, projects=projects)
    return found + _run_checks(connection, _photos, _contents, _spaces, _tombstones, _vectors, derived)


def _run_checks(connection: Connection, *checks: Callable[[Connection], Iterator[str]]) -> list[str]:
    found: list[str] = []
    for check in checks:
        try:
            found.extend(check(connection))
        except LibraryDamaged as error:  # a damaged page affects one table, and the others can be checked
            found.append(str(error))
    return found


def _pages(connection: Connection) -> Iterator[str]:
    if is_postgresql(connection):
        return  # its server checks pages, references and types as it reads and writes
    for line in connection.exec_driver_sql("PRAGMA integrity_check").scalars():
        if line != "ok":
            yield f"SQLite's integrity check says: {line}."


def _references(connection: Connection) -> Iterator[str]:
    if is_postgresql(connection):
        return
    for table, row, target, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        which = f"Row {row}" if row is not None else "A row"  # tables without row ids have no number
        yield f"{which} of {table} points to a row of {target} that is not there."


def _photos(connection: Connection) -> Iterator[str]:
    lost = photos_without_content(connection)
    if lost:
        yield f"{_with_ids('photo', lost)} without content."


def photos_without_content(connection: Connection) -> Sequence[int]:
    """Return the ids of photos whose content does not exist."""
    has_content = exists().where(ContentRow.content_id == PhotoRow.content_id)
    return connection.execute(select(PhotoRow.photo_id).where(~has_content)).scalars().all()


def _contents(connection: Connection) -> Iterator[str]:
    lost = contents_without_photo(connection)
    if lost:
        yield f"{_with_ids('content', lost)} without a photo."


def contents_without_photo(connection: Connection) -> Sequence[int]:
    """Return the ids of contents that no photo points to."""
    has_photo = exists().where(PhotoRow.content_id == ContentRow.content_id)
    return connection.execute(select(ContentRow.content_id).where(~has_photo)).scalars().all()


def _spaces(connection: Connection) -> Iterator[str]:
    existing = spaces.list_spaces(connection)
    if existing and not any(space.current for space in existing):
        yield "No space is the current one: choose one with `vitmae-search spaces use`."
    for space in existing:
        of_space = select(func.max(EmbeddingRow.revision)).where(EmbeddingRow.space_id == space.space_id)
        newest = connection.execute(of_space).scalar_one()
        if newest is not None and newest > space.revision:
            yield f"Space {space.space_id} is at revision {space.revision} and has a vector of {newest}."
        if not _has_identity(connection, space.space_id, space.revision):
            yield f"Space {space.space_id} is at revision {space.revision}, which has no identity."
        there = spaces.count_vectors(connection, space.space_id)
        if there != space.vectors:
            yield f"Space {space.space_id} says that it has {space.vectors} vectors, and it has {there}."
    for space in spaces_without_parent(connection):
        yield f"Space {space.space_id} is derived from space {space.parent_id}, which is not there."


def spaces_without_parent(connection: Connection) -> list[Space]:
    """Return the derived spaces whose space of features does not exist."""
    existing = spaces.list_spaces(connection)
    return [space for space in existing if space.features_id not in {other.space_id for other in existing}]


def spaces_with_parent(connection: Connection) -> list[Space]:
    """Return the derived spaces whose space of features exists."""
    lost = {space.space_id for space in spaces_without_parent(connection)}
    existing = spaces.list_spaces(connection)
    return [space for space in existing if space.parent_id is not None and space.space_id not in lost]


def _tombstones(connection: Connection) -> Iterator[str]:
    present = tombstoned_but_present(connection)
    if present:
        yield f"{_with_ids('vector', present)} both deleted and there."


def tombstoned_but_present(connection: Connection) -> Sequence[int]:
    """Return the ids of embeddings that exist although they have a tombstone."""
    present = exists().where(EmbeddingRow.embedding_id == TombstoneRow.embedding_id)
    return connection.execute(select(TombstoneRow.embedding_id).where(present)).scalars().all()


def _vectors(connection: Connection) -> Iterator[str]:
    for space in spaces.list_spaces(connection):
        wrong: dict[str, list[int]] = {}
        for kind, numbers in invalid_vectors(connection, space):
            wrong.setdefault(kind, []).extend(numbers)
        for kind, numbers in wrong.items():
            if numbers:
                yield f"Space {space.space_id}: {_with_ids('vector', numbers)} {kind}."


def invalid_vectors(connection: Connection, space: Space) -> Iterator[tuple[str, list[int]]]:
    """Yield problems of stored vectors, each with the ids of the embeddings that have it.

    Args:
        connection: A connection in a transaction.
        space: The space.
    """
    statement = select(EmbeddingRow.embedding_id, EmbeddingRow.vector)
    statement = statement.where(EmbeddingRow.space_id == space.space_id)
    length = space.dimension * STORED_DTYPE.itemsize
    for rows in connection.execute(statement, execution_options=STREAMED).partitions(CHUNK_VECTORS):
        yield f"whose dimension is not {space.dimension}", [row[0] for row in rows if len(row[1]) != length]
        fit = [row for row in rows if len(row[1]) == length]
        ids = np.array([row[0] for row in fit], dtype=np.int64)
        vectors = np.frombuffer(b"".join(row[1] for row in fit), dtype=STORED_DTYPE)
        vectors = vectors.reshape(len(fit), space.dimension)
        finite = np.isfinite(vectors).all(axis=1)
        yield "with a value that is not finite", ids[~finite].tolist()
        off = np.abs(np.linalg.norm(vectors[finite].astype(np.float64), axis=1) - 1) > UNIT_TOLERANCE
        yield "whose norm is not 1", ids[finite][off].tolist()


def _derived(connection: Connection, projects: Projects) -> Iterator[str]:
    for space in spaces_with_parent(connection):
        lacking = derived_spaces.contents_without_vector(connection, space)
        if lacking:
            contents = _with_ids("content", lacking)
            yield f"Space {space.space_id}: {contents} with features and without a vector."
        surplus = derived_spaces.vectors_without_features(connection, space)
        if surplus:
            yield f"Space {space.space_id}: {_with_ids('vector', surplus)} without features."
        project = projects.get(space.projection or "")
        wrong = [] if project is None else list(derived_spaces.mismatched_vectors(connection, space, project))
        if wrong:
            yield f"Space {space.space_id}: {_with_ids('vector', wrong)} that its projection does not give."


def _with_ids(noun: str, numbers: Sequence[int]) -> str:
    examples = ", ".join(str(number) for number in numbers[:_EXAMPLES])
    more = ", …" if len(numbers) > _EXAMPLES else ""
    return f"{len(numbers)} {noun}{'' if len(numbers) == 1 else 's'} (ids {examples}{more})"


def repair(connection: Connection, projects: Projects) -> list[str]:
    """Mend what `problems` finds, and return a sentence for each; see `CatalogWriter.repair`.

    Args:
        connection: A connection in a transaction.
        projects: The projections of derived spaces, by digest.
    """
    before = problems(connection, projects)
    if not before:
        return []
    if not is_postgresql(connection):
        connection.exec_driver_sql("REINDEX")
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # what points to odd rows goes next
    _delete_odd_rows(connection)
    _delete_dangling_rows(connection)
    for space in spaces_without_parent(connection):
        spaces.drop(connection, space.space_id)
    for space in spaces.list_spaces(connection):
        wrong = [number for _, numbers in invalid_vectors(connection, space) for number in numbers]
        delete_with_tombstones(connection, space.space_id, [*wrong, *tombstoned_but_present(connection)])
        _raise_revision(connection, space.space_id)
    remove_orphans(connection, contents_without_photo(connection), {})
    attributes.changed(connection, connection.execute(select(ContentRow.content_id)).scalars(), {})
    _rederive(connection, projects)
    spaces.count_again(connection)
    left = spaces.list_spaces(connection)
    if left and not any(space.current for space in left):
        spaces.use(connection, left[-1].space_id)
    after = set(problems(connection, projects))
    return [f"Mended: {problem}" for problem in before if problem not in after]


def _delete_odd_rows(connection: Connection) -> None:
    """Delete rows with values that cannot be, but for spaces, which are not made again by indexing."""
    for value in set(odd_values(connection)):
        table = Table.metadata.tables[value.table]
        columns = zip(table.primary_key.columns, value.key, strict=True)
        row = and_(*(type_coerce(column, NullType()) == part for column, part in columns))
        if table is EmbeddingRow.__table__:
            space_id = connection.execute(select(EmbeddingRow.space_id).where(row)).scalar_one_or_none()
            if isinstance(space_id, int):
                delete_with_tombstones(connection, space_id, [cast(int, value.key[0])])
        elif table is not SpaceRow.__table__:
            connection.execute(delete(table).where(row))


def _delete_dangling_rows(connection: Connection) -> None:
    for photo_ids in chunks(photos_without_content(connection)):
        connection.execute(delete(PhotoRow).where(PhotoRow.photo_id.in_(photo_ids)))
    for row in (EmbeddingRow, TombstoneRow, FailureRow, RevisionRow, AttributeChangeRow):
        of_a_space = exists().where(SpaceRow.space_id == row.space_id)
        connection.execute(delete(row).where(~of_a_space))
    for result in (TagRow, ClassifiedRow):
        of_a_content = exists().where(ContentRow.content_id == result.content_id)
        by_one = exists().where(ClassifierRow.classifier_id == result.classifier_id)
        connection.execute(delete(result).where(~(of_a_content & by_one)))
    of_a_content = exists().where(ContentRow.content_id == EmbeddingRow.content_id)
    lost = connection.execute(select(EmbeddingRow.embedding_id, EmbeddingRow.space_id).where(~of_a_content))
    by_space: dict[int, list[int]] = {}
    for number, space_id in lost:
        by_space.setdefault(space_id, []).append(number)
    for space_id, numbers in by_space.items():
        delete_with_tombstones(connection, space_id, numbers)


def _rederive(connection: Connection, projects: Projects) -> None:
    for space in spaces_with_parent(connection):
        delete_with_tombstones(
            connection, space.space_id, derived_spaces.vectors_without_features(connection, space)
        )
        project = projects.get(space.projection or "")
        if project is not None:
            delete_with_tombstones(
                connection,
                space.space_id,
                list(derived_spaces.mismatched_vectors(connection, space, project)),
            )
            derived_spaces.derive_missing(connection, space, project)


def delete_with_tombstones(connection: Connection, space_id: int, numbers: Sequence[int]) -> None:
    """Delete vectors. An existing tombstone is renewed, so that every index notices the deletion.

    Args:
        connection: A connection in a transaction.
        space_id: The space that they are in.
        numbers: Their ids.
    """
    for some in chunks(numbers):
        which = with_ids(space_id, some)
        stale = and_(TombstoneRow.embedding_id.in_(some), TombstoneRow.space_id + 0 == space_id)
        connection.execute(delete(TombstoneRow).where(stale))
        spaces.tombstone(connection, space_id, which, spaces.next_revision(connection, space_id))


def _raise_revision(connection: Connection, space_id: int) -> None:
    newest = select(func.max(EmbeddingRow.revision)).where(EmbeddingRow.space_id == space_id)
    latest = connection.execute(newest).scalar_one() or 0
    statement = update(SpaceRow).where(SpaceRow.space_id == space_id, SpaceRow.revision < latest)
    connection.execute(statement.values(revision=latest))
    revision = connection.execute(select(SpaceRow.revision).where(SpaceRow.space_id == space_id)).scalar_one()
    if not _has_identity(connection, space_id, revision):
        spaces.identify_revision(connection, space_id, revision)


def _has_identity(connection: Connection, space_id: int, revision: int) -> bool:
    of_it = exists().where(RevisionRow.space_id == space_id, RevisionRow.revision == revision)
    return revision == 0 or bool(connection.execute(select(of_it)).scalar_one())
