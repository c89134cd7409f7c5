"""Records a batch: the steps of one transaction, in the order in which they depend on each other.

Contents come first, then the photo rows that point to them, then vectors and failures. Contents that lost
their last photo on the way are deleted at the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, delete, exists, insert, or_, select, text, update

from vitmae_search.catalog import attributes, derived_spaces, embeddings, marks, spaces
from vitmae_search.catalog.derived_spaces import Projects
from vitmae_search.catalog.dialects import PATH_DIGEST_SQL, PathIdentity, is_postgresql, upsert
from vitmae_search.catalog.embeddings import UNIT_TOLERANCE
from vitmae_search.catalog.photos import chunks, seconds_of
from vitmae_search.catalog.schema import ContentRow, EmbeddingRow, FailureRow, PhotoRow
from vitmae_search.catalog.spaces import SpaceSummary
from vitmae_search.errors import SpaceError, display_path
from vitmae_search.records import Failure, PhotoMetadata, Stamp


@dataclass(frozen=True, slots=True, eq=False)
class Indexed:
    """A file that was read, ready to be recorded.

    Attributes:
        stamp: Path, size and time of the file.
        digest: SHA-256 of its bytes, hex.
        metadata: May be None if the content is known.
        vector: (D,) float32 of unit length; None if the content has a vector in the space already (a moved
            photo or a copy).
        photo_id: The row to update, or to move to this path; None finds the row by path, or makes one.
        named_at: The date in the file's name.
        row_path: The path that the row had when it was chosen. Where it has another one now, another run took
            it, and it is left alone.
    """

    stamp: Stamp
    digest: str
    metadata: PhotoMetadata | None
    vector: NDArray[np.float32] | None
    photo_id: int | None = None
    named_at: datetime | None = None
    row_path: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """The columns of a content that its photo rows need, and whether they say other things than before."""

    content_id: int
    taken_at: datetime | None
    said_anew: bool = False


def record(
    connection: Connection,
    space: SpaceSummary,
    batch: Sequence[Indexed],
    failures: Sequence[Failure],
    projects: Projects,
) -> tuple[Indexed, ...]:
    """Record a batch in one transaction; see `CatalogWriter.record_batch`.

    Args:
        connection: A connection in a transaction.
        space: The space.
        batch: The photos that were read.
        failures: Files that could not be used.
        projects: The projections of derived spaces, by digest.
    """
    # A path that comes twice (roots that overlap) is one file: the last reading counts.
    items = list({item.stamp.path: item for item in batch}.values())
    _check_vectors(space, items)
    items, refused = _split_recordable(connection, space.space_id, items)
    contents = _ensure_contents(connection, items)
    rows = assign_rows(connection, items, contents)
    revisions = _add_vectors(connection, space, items, contents, projects)
    _clear_failures(connection, space.space_id, items)
    without_photo = _record_failures(connection, space.space_id, failures)
    remove_orphans(connection, rows.orphan_candidates | without_photo, revisions)
    said_anew = {content.content_id for content in contents.values() if content.said_anew}
    attributes.changed(connection, rows.changed | without_photo | said_anew, revisions)
    return tuple(refused)


def _check_vectors(space: SpaceSummary, items: Sequence[Indexed]) -> None:
    named = [item.photo_id for item in items if item.photo_id is not None]
    if len(named) != len(set(named)):
        raise ValueError("two items of a batch name the same photo_id")
    for item in items:
        if item.vector is None:
            continue
        name = display_path(item.stamp.path)
        if item.vector.shape != (space.dimension,):
            raise SpaceError(
                f"{name}: a vector of shape {item.vector.shape} does not belong into space "
                f"{space.space_id}, whose vectors have length {space.dimension}."
            )
        length = float(np.linalg.norm(item.vector.astype(np.float64)))
        if not abs(length - 1) <= UNIT_TOLERANCE:  # written this way, NaN is refused too
            raise SpaceError(f"{name}: the vector's length is {length}, not 1, so it cannot be compared.")


def _split_recordable(
    connection: Connection, space_id: int, items: Sequence[Indexed]
) -> tuple[list[Indexed], list[Indexed]]:
    """Split off the items whose content has no vector in this space, or is unknown and without metadata."""
    digests = {item.digest for item in items}
    described = {item.digest for item in items if item.metadata is not None}
    embedded = {item.digest for item in items if item.vector is not None}
    statement = select(ContentRow.digest, EmbeddingRow.embedding_id).join(
        EmbeddingRow,
        (EmbeddingRow.content_id == ContentRow.content_id) & (EmbeddingRow.space_id == space_id),
        isouter=True,
    )
    for some in chunks(digests):
        for digest, embedding_id in connection.execute(statement.where(ContentRow.digest.in_(some))):
            described.add(digest)
            if embedding_id is not None:
                embedded.add(digest)
    complete = described & embedded
    return [i for i in items if i.digest in complete], [i for i in items if i.digest not in complete]


def _ensure_contents(connection: Connection, items: Sequence[Indexed]) -> dict[str, Content]:
    rows = [
        {
            "digest": item.digest,
            "width": item.metadata.width,
            "height": item.metadata.height,
            "format": item.metadata.format,
            "taken_at": item.metadata.taken_at,
            "camera": _valid_unicode(item.metadata.camera),
            "latitude": item.metadata.latitude,
            "longitude": item.metadata.longitude,
            "taken_from": item.metadata.taken_from,
            "notes": list(item.metadata.notes) or None,
            "lens": _valid_unicode(item.metadata.lens),
            "metadata_revision": item.metadata.revision,
        }
        for item in _in_lock_order(connection, items)
        if item.metadata is not None
    ]
    filtered = ("format", "width", "height", "camera", "lens", "latitude", "longitude")
    said = {row["digest"]: tuple(row[name] for name in filtered) for row in rows}
    before = dict[str, tuple[Any, ...]]()
    known = select(ContentRow.digest, *(getattr(ContentRow, name) for name in filtered))
    for some_digests in chunks(said):
        for digest, *values in connection.execute(known.where(ContentRow.digest.in_(some_digests))):
            before[digest] = tuple(values)
    if rows:
        # A content that was read again may say more than it did to an earlier version.
        statement = upsert(connection, ContentRow)
        renewed = {name: statement.excluded[name] for name in rows[0] if name != "digest"}
        connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=renewed), rows)
    columns = select(ContentRow.digest, ContentRow.content_id, ContentRow.taken_at)
    contents: dict[str, Content] = {}
    for some in chunks({item.digest for item in items}):
        for digest, content_id, taken_at in connection.execute(columns.where(ContentRow.digest.in_(some))):
            said_anew = digest in said and before.get(digest, said[digest]) != said[digest]
            contents[digest] = Content(content_id, taken_at, said_anew)
    return contents


def _in_lock_order(connection: Connection, items: Sequence[Indexed]) -> Sequence[Indexed]:
    """By digest where there are several writers: two that have contents in common then lock them alike."""
    return sorted(items, key=lambda item: item.digest) if is_postgresql(connection) else items


_FILTERED = ("path", "content_id", "size", "moment", "missing")
"""Columns of photos that filters ask for, or that say which photo it is."""


@dataclass(slots=True)
class RowAssignments:
    """The rows to write.

    `orphan_candidates` are the contents that changed rows pointed to before. Filters ask other things of the
    contents in `changed` than before. `edited` has a content and the digest that takes its place, for each
    file that was changed where it lies.
    """

    inserted: list[dict[str, Any]] = field(default_factory=list)
    updated: dict[int, dict[str, Any]] = field(default_factory=dict)
    moving: list[int] = field(default_factory=list)
    overwritten: set[int] = field(default_factory=set)
    edited: list[tuple[int, str]] = field(default_factory=list)
    orphan_candidates: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)


def assign_rows(
    connection: Connection, items: Sequence[Indexed], contents: Mapping[str, Content]
) -> RowAssignments:
    """Give each photo its row: its own, one that moves to its path, or a new one.

    Args:
        connection: A connection in a transaction.
        items: The photos of the batch.
        contents: Their contents, by digest.

    Returns:
        The rows.
    """
    assignments = _find_assignments(items, contents, _existing_rows(connection, items))
    _carry_marks_over(connection, assignments.edited)
    for some in chunks(assignments.overwritten):
        connection.execute(delete(PhotoRow).where(PhotoRow.photo_id.in_(some)))
    statement = update(PhotoRow).where(PhotoRow.photo_id == bindparam("row"))
    if assignments.moving:  # photos may swap their paths, which are unique at any time
        temporary = [
            {"row": photo_id, "temporary_path": b"\0%d" % photo_id} for photo_id in assignments.moving
        ]
        connection.execute(statement.values(path=bindparam("temporary_path")), temporary)
    if assignments.updated:
        names = next(iter(assignments.updated.values()))
        rows = [
            {"row": photo_id, **{f"new_{name}": value for name, value in values.items()}}
            for photo_id, values in assignments.updated.items()
        ]
        connection.execute(statement.values({name: bindparam(f"new_{name}") for name in names}), rows)
    if assignments.inserted:
        connection.execute(insert(PhotoRow), assignments.inserted)
    return assignments


def _carry_marks_over(connection: Connection, edited: Sequence[tuple[int, str]]) -> None:
    """Let what a person says of a photo stay with it when its file is edited."""
    digests: dict[int, str] = {}
    for some in chunks(content_id for content_id, _ in edited):
        statement = select(ContentRow.content_id, ContentRow.digest).where(ContentRow.content_id.in_(some))
        digests.update((row.content_id, row.digest) for row in connection.execute(statement))
    marks.carry_over(connection, [(digests[content_id], digest) for content_id, digest in edited])


def _find_assignments(
    items: Sequence[Indexed], contents: Mapping[str, Content], existing: Mapping[int, Any]
) -> RowAssignments:
    at_path = {row.path: photo_id for photo_id, row in existing.items()}
    named = {item.photo_id for item in items if _has_its_row(item, existing)}
    assignments = RowAssignments()
    for item in items:
        values = _photo_values(item, contents[item.digest])
        row_at_path = at_path.get(values["path"])
        if row_at_path in named and row_at_path != item.photo_id:
            row_at_path = None  # its photo moves away in this batch
        photo_id = item.photo_id if item.photo_id in named else row_at_path
        if photo_id is None:
            assignments.inserted.append(values)
            assignments.changed.add(values["content_id"])
            continue
        if row_at_path is not None and row_at_path != photo_id:
            assignments.overwritten.add(row_at_path)
            assignments.orphan_candidates.add(existing[row_at_path].content_id)
            assignments.changed.add(existing[row_at_path].content_id)
        if any(getattr(existing[photo_id], name) != values[name] for name in _FILTERED):
            assignments.changed |= {existing[photo_id].content_id, values["content_id"]}
        if existing[photo_id].path != values["path"]:
            assignments.moving.append(photo_id)
        elif existing[photo_id].content_id != values["content_id"]:
            assignments.edited.append((existing[photo_id].content_id, item.digest))
        assignments.orphan_candidates.add(existing[photo_id].content_id)
        assignments.updated[photo_id] = values
    return assignments


def _has_its_row(item: Indexed, existing: Mapping[int, Any]) -> bool:
    """Whether the row that an item names is there, and at the path where it was found."""
    row = None if item.photo_id is None else existing.get(item.photo_id)
    return row is not None and (item.row_path is None or row.path == os.fsencode(item.row_path))


def _existing_rows(connection: Connection, items: Sequence[Indexed]) -> dict[int, Any]:
    """Return the rows that the items name, and those at the items' paths."""
    existing: dict[int, Any] = {}
    statement = select(PhotoRow.photo_id, *(getattr(PhotoRow, name) for name in _FILTERED))
    for some in chunks(items):
        paths = [os.fsencode(item.stamp.path) for item in some]
        named = [item.photo_id for item in some if item.photo_id is not None]
        which = or_(PathIdentity(PhotoRow.path).in_(paths), PhotoRow.photo_id.in_(named))
        rows = connection.execute(statement.where(which).order_by(PhotoRow.photo_id).with_for_update())
        existing.update((row.photo_id, row) for row in rows)
    return existing


def _photo_values(item: Indexed, content: Content) -> dict[str, Any]:
    stamp = item.stamp
    date = content.taken_at or item.named_at
    return {
        "path": os.fsencode(stamp.path),
        "size": stamp.size,
        "mtime_ns": stamp.mtime_ns,
        "device": stamp.device,
        "ctime_ns": stamp.ctime_ns,
        "inode": stamp.inode,
        "content_id": content.content_id,
        "missing": False,
        "moment": _local_seconds(stamp.mtime_ns) if date is None else seconds_of(date),
        "named_at": item.named_at,
    }


def _local_seconds(mtime_ns: int) -> float:
    """A file's time as `moment` counts it."""
    seconds = mtime_ns / 1e9
    try:
        return seconds + time.localtime(seconds).tm_gmtoff
    except (OverflowError, ValueError, OSError):  # a year that the system's calendar does not have
        return seconds


def _add_vectors(
    connection: Connection,
    space: SpaceSummary,
    items: Sequence[Indexed],
    contents: dict[str, Content],
    projects: Projects,
) -> dict[int, int]:
    """Store new vectors in this space and in those derived from it; return the revisions begun, by space."""
    space_id = space.space_id
    offered = {contents[i.digest].content_id: i.vector for i in items if i.vector is not None}
    statement = select(EmbeddingRow.content_id).where(EmbeddingRow.space_id == space_id)
    for some in chunks(list(offered)):
        for content_id in connection.execute(statement.where(EmbeddingRow.content_id.in_(some))).scalars():
            del offered[content_id]
    if not offered:
        return {}
    revision = spaces.next_revision(connection, space_id)
    rows = [
        {
            "content_id": number,
            "space_id": space_id,
            "revision": revision,
            "vector": embeddings.encode(vector),
        }
        for number, vector in offered.items()
    ]
    connection.execute(insert(EmbeddingRow), rows)
    spaces.change_number(connection, space_id, len(rows))
    return {space_id: revision} | derived_spaces.derive_for_contents(
        connection, space_id, list(offered), projects
    )


def _clear_failures(connection: Connection, space_id: int, items: Sequence[Indexed]) -> None:
    """Delete failures of recorded files: in this space, and elsewhere if the file changed since."""
    for some in chunks(items):
        stamps = {os.fsencode(i.stamp.path): (i.stamp.size, i.stamp.mtime_ns) for i in some}
        columns = (FailureRow.failure_id, FailureRow.path, FailureRow.space_id, FailureRow.size)
        statement = select(*columns, FailureRow.mtime_ns).where(PathIdentity(FailureRow.path).in_(stamps))
        over = [
            row.failure_id
            for row in connection.execute(statement)
            if row.space_id == space_id or stamps[row.path] != (row.size, row.mtime_ns)
        ]
        if over:
            connection.execute(delete(FailureRow).where(FailureRow.failure_id.in_(over)))


_RENEWED = ("reason", "size", "mtime_ns", "ctime_ns", "tried_with")


def _record_failures(connection: Connection, space_id: int, failures: Sequence[Failure]) -> set[int]:
    """Write failure rows, and return the contents that lost a photo to them."""
    if not failures:
        return set()
    rows = [
        {
            "path": os.fsencode(failure.path),
            "space_id": space_id,
            "reason": _valid_unicode(failure.reason),
            "size": failure.size,
            "mtime_ns": failure.mtime_ns,
            "ctime_ns": failure.ctime_ns,
            "tried_with": failure.tried_with,
        }
        for failure in failures
    ]
    statement = upsert(connection, FailureRow)
    renewed = {name: statement.excluded[name] for name in _RENEWED}
    path: Any = text(PATH_DIGEST_SQL) if is_postgresql(connection) else "path"
    statement = statement.on_conflict_do_update(index_elements=[path, "space_id"], set_=renewed)
    connection.execute(statement, rows)
    return _remove_failed_photos(connection, space_id, failures)


def _remove_failed_photos(connection: Connection, space_id: int, failures: Sequence[Failure]) -> set[int]:
    """Delete failed files' photo rows, save of unchanged files that another space has features of.

    A file that was not at fault (it could not be read, say) keeps its row, as long as it has the same size
    and date: another ctime may then be that of its permissions.
    """
    failed = {os.fsencode(failure.path): failure for failure in failures}
    here = [space_id, *(child.space_id for child in spaces.child_summaries(connection, space_id))]
    elsewhere = exists().where(
        EmbeddingRow.content_id == PhotoRow.content_id, EmbeddingRow.space_id.not_in(here)
    )
    columns = (
        *(PhotoRow.photo_id, PhotoRow.path, PhotoRow.content_id),
        *(PhotoRow.size, PhotoRow.mtime_ns, PhotoRow.ctime_ns),
    )
    gone: dict[int, int] = {}
    for some in chunks(list(failed)):
        statement = select(*columns, elsewhere.label("elsewhere"))
        statement = statement.where(PathIdentity(PhotoRow.path).in_(some))
        for row in connection.execute(statement):
            failure = failed[row.path]
            unchanged = (failure.size, failure.mtime_ns) == (row.size, row.mtime_ns)
            if failure.tried_with is not None:
                unchanged = unchanged and row.elsewhere and row.ctime_ns in (None, failure.ctime_ns)
            if not unchanged:
                gone[row.photo_id] = row.content_id
    for photo_ids in chunks(list(gone)):
        connection.execute(delete(PhotoRow).where(PhotoRow.photo_id.in_(photo_ids)))
    return set(gone.values())


def _valid_unicode(text: str | None) -> str | None:
    """Replace what is not valid Unicode, which databases refuse and a camera may have written."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


def remove_photos(connection: Connection, photo_ids: Sequence[int]) -> None:
    """Delete photos; see `CatalogWriter.remove_photos`.

    Args:
        connection: A connection in a transaction.
        photo_ids: The photos.
    """
    orphan_candidates: set[int] = set()
    for ids in chunks(photo_ids):
        which = PhotoRow.photo_id.in_(ids)
        orphan_candidates |= set(connection.execute(select(PhotoRow.content_id).where(which)).scalars())
        connection.execute(delete(PhotoRow).where(which))
    revisions: dict[int, int] = {}
    remove_orphans(connection, orphan_candidates, revisions)
    attributes.changed(connection, orphan_candidates, revisions)


def remove_orphans(connection: Connection, content_ids: Iterable[int], revisions: dict[int, int]) -> None:
    """Delete those contents that have no photo left, with their vectors in all spaces.

    Args:
        connection: A connection in a transaction.
        content_ids: The contents.
        revisions: Revisions that this transaction has begun, by space id; it is changed.
    """
    orphans = ~exists().where(PhotoRow.content_id == ContentRow.content_id)
    for ids in chunks(content_ids):
        statement = select(ContentRow.content_id).where(ContentRow.content_id.in_(ids), orphans)
        gone = connection.execute(statement).scalars().all()
        if not gone:
            continue
        removed = EmbeddingRow.content_id.in_(gone)
        where = select(EmbeddingRow.space_id).where(removed).distinct()
        for space_id in connection.execute(where).scalars().all():
            if space_id not in revisions:
                revisions[space_id] = spaces.next_revision(connection, space_id)
            spaces.tombstone(connection, space_id, removed, revisions[space_id])
        connection.execute(delete(ContentRow).where(ContentRow.content_id.in_(gone)))
