"""Queries about photos, contents and failures. Each takes a connection that is in a transaction."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Select,
    and_,
    bindparam,
    exists,
    false,
    func,
    select,
    true,
)

from vitmae_search.catalog.schema import ContentRow, EmbeddingRow, FailureRow, PhotoRow, TagRow
from vitmae_search.records import Failure, Photo, PhotoMetadata, SearchFilter, Stamp

T = TypeVar("T")

IDS_A_QUERY = 1000

_PHOTO: Any = select(
    PhotoRow.photo_id,
    PhotoRow.path,
    PhotoRow.size,
    PhotoRow.mtime_ns,
    PhotoRow.missing,
    PhotoRow.content_id,
    ContentRow.digest,
    ContentRow.width,
    ContentRow.height,
    ContentRow.format,
    ContentRow.taken_at,
    ContentRow.camera,
    ContentRow.latitude,
    ContentRow.longitude,
).join(ContentRow, ContentRow.content_id == PhotoRow.content_id)

_CONTENTS = (
    select(ContentRow.digest, ContentRow.content_id, EmbeddingRow.embedding_id)
    .outerjoin(
        EmbeddingRow,
        (EmbeddingRow.content_id == ContentRow.content_id) & (EmbeddingRow.space_id == bindparam("space")),
    )
    .where(ContentRow.digest.in_(bindparam("digests", expanding=True)))
)
_CONTENT_ID = select(ContentRow.content_id).where(ContentRow.digest == bindparam("digest"))
"""Made once: it is asked for every file that is read."""

_FAILURE = select(FailureRow.path, FailureRow.reason, FailureRow.size, FailureRow.mtime_ns)


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A photo row, as the indexer compares it with the disk.

    `stamp` is what `stat` said when it was last read; `embedded` is true where its content has a vector
    in the space that was asked for.
    """

    photo_id: int
    stamp: Stamp
    content_id: int
    missing: bool
    embedded: bool


def chunks(items: Iterable[T], size: int = IDS_A_QUERY) -> Iterator[list[T]]:
    """`items` in lists of at most `size`: SQLite limits the variables of one statement."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def folder_range(folder: str) -> tuple[bytes, bytes]:
    """All paths inside `folder` are ≥ the first and < the second, and no others are."""
    path = os.fsencode(os.path.abspath(folder))
    separator = os.sep.encode()
    # POSIX lets a path begin with two slashes; the walk never gives one.
    inside = (separator + path.lstrip(separator) if path.startswith(separator) else path).rstrip(separator)
    return inside + separator, inside + bytes([separator[0] + 1])


def inside(folder: str) -> ColumnElement[bool]:
    """The condition that a photo lies inside `folder`, at any depth."""
    low, high = folder_range(folder)
    return and_(PhotoRow.path >= low, PhotoRow.path < high)


def passing(connection: Connection, where: SearchFilter) -> list[ColumnElement[bool]]:
    """The conditions of a filter, on photos joined with contents. Empty texts do not filter."""
    conditions: list[ColumnElement[bool]] = []
    if where.under:
        conditions.append(inside(where.under))
    if where.after is not None:
        conditions.append(ContentRow.taken_at >= where.after.replace(tzinfo=None))
    if where.before is not None:
        conditions.append(ContentRow.taken_at <= where.before.replace(tzinfo=None))
    if where.camera:
        # SQLite ignores case in ASCII only. The distinct cameras are few, so Python compares them.
        part = where.camera.casefold()
        cameras = connection.execute(select(ContentRow.camera).distinct()).scalars()
        matching = [name for name in cameras if name and part in name.casefold()]
        conditions.append(ContentRow.camera.in_(matching))
    if where.tag:
        tagged = select(TagRow.content_id).where(TagRow.tag == where.tag)
        tagged = tagged.where(TagRow.confidence >= where.min_confidence)
        conditions.append(PhotoRow.content_id.in_(tagged))
    return conditions


def one(connection: Connection, condition: ColumnElement[bool]) -> Photo | None:
    """The one photo that a condition allows."""
    row = connection.execute(_PHOTO.where(condition)).one_or_none()
    return None if row is None else _as_photo(row)


def listing(
    connection: Connection, where: SearchFilter, offset: int, limit: int | None, missing: bool | None
) -> list[Photo]:
    """See `Catalog.photos`."""
    newest_first = PhotoRow.moment.desc(), PhotoRow.photo_id.desc()
    chosen = _joined(select(PhotoRow.photo_id), where).correlate(None)
    chosen = _filtered(chosen, connection, where, missing).order_by(*newest_first)
    # The rows that are passed over are counted in the index alone, and never read.
    page = PhotoRow.photo_id.in_(chosen.offset(offset).limit(limit))
    return [_as_photo(row) for row in connection.execute(_PHOTO.where(page).order_by(*newest_first))]


def count(connection: Connection, where: SearchFilter, missing: bool | None) -> int:
    """See `Catalog.count_photos`."""
    statement = _joined(select(func.count()).select_from(PhotoRow), where)
    return int(connection.execute(_filtered(statement, connection, where, missing)).scalar_one())


def copies(connection: Connection, content_id: int) -> list[Photo]:
    """See `Catalog.copies`."""
    statement = _PHOTO.where(PhotoRow.content_id == content_id)
    rows = connection.execute(statement.order_by(PhotoRow.missing, PhotoRow.path))
    return [_as_photo(row) for row in rows]


def of_embeddings(connection: Connection, embedding_ids: Sequence[int]) -> dict[int, list[Photo]]:
    """See `Catalog.photos_of`."""
    found: dict[int, list[Photo]] = {}
    statement = _PHOTO.join(EmbeddingRow, EmbeddingRow.content_id == PhotoRow.content_id)
    statement = statement.add_columns(EmbeddingRow.embedding_id)
    statement = statement.order_by(PhotoRow.missing, PhotoRow.path)
    for some in chunks(embedding_ids):
        for row in connection.execute(statement.where(EmbeddingRow.embedding_id.in_(some))):
            found.setdefault(row.embedding_id, []).append(_as_photo(row))
    return {number: found[number] for number in embedding_ids if number in found}


def searchable(where: SearchFilter, space_id: int, conditions: list[ColumnElement[bool]]) -> Select[Any]:
    """Embeddings with at least one photo on disk that meets the conditions of `passing`."""
    contents = _joined(select(PhotoRow.content_id), where).where(PhotoRow.missing == false(), *conditions)
    statement = select(EmbeddingRow.embedding_id).where(
        EmbeddingRow.space_id == space_id, EmbeddingRow.content_id.in_(contents)
    )
    return statement.order_by(EmbeddingRow.embedding_id)


def hidden(space_id: int) -> Select[Any]:
    """Embeddings with no photo on disk."""
    # The missing are few, so they come first; those with a copy on disk are shown.
    missing = select(PhotoRow.content_id).where(PhotoRow.missing == true())
    on_disk = exists().where(PhotoRow.content_id == EmbeddingRow.content_id, PhotoRow.missing == false())
    statement = select(EmbeddingRow.embedding_id).where(
        EmbeddingRow.space_id == space_id, EmbeddingRow.content_id.in_(missing), ~on_disk
    )
    return statement.order_by(EmbeddingRow.embedding_id)


def ids(connection: Connection, statement: Select[Any]) -> NDArray[np.int64]:
    """The one column of `statement`."""
    return np.fromiter(connection.execute(statement).scalars(), dtype=np.int64)


def content_id(connection: Connection, digest: str) -> int | None:
    """See `Catalog.content_id`."""
    return connection.execute(_CONTENT_ID, {"digest": digest}).scalar_one_or_none()


def contents(connection: Connection, digests: Iterable[str], space_id: int) -> dict[str, tuple[int, bool]]:
    """See `Catalog.contents`."""
    return {
        digest: (number, embedded is not None)
        for some in chunks(digests)
        for digest, number, embedded in connection.execute(_CONTENTS, {"digests": some, "space": space_id})
    }


def known_rows(connection: Connection, root: str, space_id: int | None) -> CursorResult[Any]:
    """The rows of `Catalog.known_files`, not yet fetched, for `as_known`."""
    embedded: ColumnElement[bool] = false()
    if space_id is not None:
        embedded = exists().where(
            EmbeddingRow.content_id == PhotoRow.content_id, EmbeddingRow.space_id == space_id
        )
    statement = select(
        PhotoRow.photo_id,
        PhotoRow.path,
        PhotoRow.size,
        PhotoRow.mtime_ns,
        PhotoRow.device,
        PhotoRow.content_id,
        PhotoRow.missing,
        embedded.label("embedded"),
    )
    return connection.execute(statement.where(inside(root)).order_by(PhotoRow.path))


def as_known(row: Any) -> KnownFile:
    """One of `known_rows`."""
    photo_id, path, size, mtime_ns, device, content_id, missing, embedded = row
    stamp = Stamp(os.fsdecode(path), size, mtime_ns, device)
    return KnownFile(photo_id, stamp, content_id, missing, bool(embedded))


def failures(connection: Connection, space_id: int | None, under: str | None) -> list[Failure]:
    """See `Catalog.failures`."""
    statement = _FAILURE.order_by(FailureRow.path, FailureRow.failure_id)
    if space_id is not None:
        statement = statement.where(FailureRow.space_id == space_id)
    if under:
        low, high = folder_range(under)
        statement = statement.where(FailureRow.path >= low, FailureRow.path < high)
    latest = {row.path: row for row in connection.execute(statement)}
    return [Failure(os.fsdecode(row.path), row.reason, row.size, row.mtime_ns) for row in latest.values()]


def _joined(statement: Select[Any], where: SearchFilter) -> Select[Any]:
    """With the contents, where the filter asks about them."""
    if where.after is None and where.before is None and not where.camera:
        return statement
    return statement.join(ContentRow, ContentRow.content_id == PhotoRow.content_id)


def _filtered(statement: Any, connection: Connection, where: SearchFilter, missing: bool | None) -> Any:
    if missing is not None:
        statement = statement.where(PhotoRow.missing == missing)
    return statement.where(*passing(connection, where))


def _as_photo(row: Any) -> Photo:
    return Photo(
        photo_id=row.photo_id,
        path=os.fsdecode(row.path),
        size=row.size,
        mtime_ns=row.mtime_ns,
        missing=row.missing,
        content_id=row.content_id,
        digest=row.digest,
        metadata=PhotoMetadata(
            width=row.width,
            height=row.height,
            format=row.format,
            taken_at=row.taken_at,
            camera=row.camera,
            latitude=row.latitude,
            longitude=row.longitude,
        ),
    )
