"""Setting right what `check` finds, as far as the rest of the catalogue tells how.

What cannot be trusted is deleted, never guessed: a photo or vector that is gone is made anew by the next
index run, from the file itself. Derived vectors alone are made here, from their features.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, exists, func, select, update

from vitmae_search.catalog import derived_spaces, spaces
from vitmae_search.catalog.check import (
    contents_without_photo,
    photos_without_content,
    problems,
    undead_vectors,
    with_parent,
    without_parent,
    wrong_vectors,
)
from vitmae_search.catalog.derived_spaces import Projects
from vitmae_search.catalog.photos import chunks
from vitmae_search.catalog.record_batch import remove_orphans
from vitmae_search.catalog.schema import (
    ClassifiedRow,
    ClassifierRow,
    ContentRow,
    EmbeddingRow,
    FailureRow,
    PhotoRow,
    SpaceRow,
    TagRow,
    TombstoneRow,
)


def repair(connection: Connection, projects: Projects) -> list[str]:
    """See `CatalogWriter.repair`."""
    before = problems(connection, projects)
    if not before:
        return []
    connection.exec_driver_sql("REINDEX")
    _remove_what_belongs_to_nothing(connection)
    for space in without_parent(connection):
        spaces.drop(connection, space.space_id)
    for space in spaces.listing(connection):
        wrong = [number for _, numbers in wrong_vectors(connection, space) for number in numbers]
        _bury(connection, space.space_id, [*wrong, *undead_vectors(connection)])
        _raise_revision(connection, space.space_id)
    remove_orphans(connection, contents_without_photo(connection), {})
    _derive_again(connection, projects)
    left = spaces.listing(connection)
    if left and not any(space.current for space in left):
        spaces.use(connection, left[-1].space_id)
    after = set(problems(connection, projects))
    return [f"Mended: {problem}" for problem in before if problem not in after]


def _remove_what_belongs_to_nothing(connection: Connection) -> None:
    for photo_ids in chunks(photos_without_content(connection)):
        connection.execute(delete(PhotoRow).where(PhotoRow.photo_id.in_(photo_ids)))
    for row in (EmbeddingRow, TombstoneRow, FailureRow):
        of_a_space = exists().where(SpaceRow.space_id == row.space_id)
        connection.execute(delete(row).where(~of_a_space))
    for said in (TagRow, ClassifiedRow):
        of_a_content = exists().where(ContentRow.content_id == said.content_id)
        by_one = exists().where(ClassifierRow.classifier_id == said.classifier_id)
        connection.execute(delete(said).where(~(of_a_content & by_one)))
    of_a_content = exists().where(ContentRow.content_id == EmbeddingRow.content_id)
    lost = connection.execute(select(EmbeddingRow.embedding_id, EmbeddingRow.space_id).where(~of_a_content))
    by_space: dict[int, list[int]] = {}
    for number, space_id in lost:
        by_space.setdefault(space_id, []).append(number)
    for space_id, numbers in by_space.items():
        _bury(connection, space_id, numbers)


def _derive_again(connection: Connection, projects: Projects) -> None:
    for space in with_parent(connection):
        _bury(connection, space.space_id, derived_spaces.vectors_without_features(connection, space))
        project = projects.get(space.projection or "")
        if project is not None:
            _bury(connection, space.space_id, list(derived_spaces.wrong_vectors(connection, space, project)))
            derived_spaces.complete(connection, space, project)


def _bury(connection: Connection, space_id: int, numbers: Sequence[int]) -> None:
    """Delete vectors; a tombstone that one has already is renewed, so that every index hears of it."""
    for some in chunks(numbers):
        which = EmbeddingRow.embedding_id.in_(some)
        connection.execute(
            delete(TombstoneRow).where(TombstoneRow.embedding_id.in_(some), TombstoneRow.space_id == space_id)
        )
        spaces.bury(connection, space_id, which, spaces.next_revision(connection, space_id))


def _raise_revision(connection: Connection, space_id: int) -> None:
    newest = select(func.max(EmbeddingRow.revision)).where(EmbeddingRow.space_id == space_id)
    latest = connection.execute(newest).scalar_one() or 0
    mine = update(SpaceRow).where(SpaceRow.space_id == space_id, SpaceRow.revision < latest)
    connection.execute(mine.values(revision=latest))
