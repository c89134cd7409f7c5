"""Queries about photos, contents and failures. Each takes a connection that is in a transaction."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
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
    or_,
    select,
    true,
    update,
)

from vitmae_search.address import absolute_path
from vitmae_search.catalog import places
from vitmae_search.catalog.database import fetch_tuples
from vitmae_search.catalog.dialects import (
    KEY_BYTES,
    PathIdentity,
    PathKey,
    PositionOf,
    is_postgresql,
    listed,
)
from vitmae_search.catalog.schema import (
    AlbumPhotoRow,
    ContentRow,
    EmbeddingRow,
    FailureRow,
    MarkRow,
    PhotoRow,
    TagRow,
)
from vitmae_search.records import (
    METADATA_REVISION,
    Failure,
    Orientation,
    Photo,
    PhotoMetadata,
    PhotoOrder,
    SearchFilter,
    Stamp,
    VideoFrame,
)

T = TypeVar("T")

MAX_IDS_PER_QUERY = 1000

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
    ContentRow.taken_from,
    ContentRow.notes,
    ContentRow.lens,
    ContentRow.metadata_revision,
    PhotoRow.named_at,
).join(ContentRow, ContentRow.content_id == PhotoRow.content_id)

_CONTENTS = (
    select(ContentRow.digest, ContentRow.content_id, EmbeddingRow.embedding_id, ContentRow.metadata_revision)
    .outerjoin(
        EmbeddingRow,
        (EmbeddingRow.content_id == ContentRow.content_id) & (EmbeddingRow.space_id == bindparam("space")),
    )
    .where(ContentRow.digest.in_(bindparam("digests", expanding=True)))
)
_CONTENT_ID = select(ContentRow.content_id).where(ContentRow.digest == bindparam("digest"))
"""Built once, because it runs for every file that is read."""

_FAILURE = select(
    FailureRow.path,
    FailureRow.reason,
    FailureRow.size,
    FailureRow.mtime_ns,
    FailureRow.ctime_ns,
    FailureRow.tried_with,
)


_ORIENTATIONS: dict[Orientation, ColumnElement[bool]] = {
    "landscape": ContentRow.width > ContentRow.height,
    "portrait": ContentRow.width < ContentRow.height,
    "square": ContentRow.width == ContentRow.height,
}


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A photo row, as the indexer compares it with the disk.

    Attributes:
        photo_id: The row.
        stamp: Path, size and time when the file was last read.
        content_id: Its content.
        missing: Whether it was not on disk at the last run.
        embedded: Whether its content has a vector in the space that was asked for.
    """

    photo_id: int
    stamp: Stamp
    content_id: int
    missing: bool
    embedded: bool


_MANY = 2000
"""Contents that are looked up and sorted in a few milliseconds."""


def chunks(items: Iterable[T], size: int = MAX_IDS_PER_QUERY) -> Iterator[list[T]]:
    """Yield `items` in lists of at most `size`: SQLite limits the variables of one statement.

    Args:
        items: What to split.
        size: Most items in a list.
    """
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def folder_range(folder: str) -> tuple[bytes, bytes]:
    """Return the half-open range [first, second) of all paths inside the folder."""
    path = os.fsencode(absolute_path(folder))
    separator = os.sep.encode()
    # POSIX allows a path with two leading slashes; the walk gives one only.
    inside = (separator + path.lstrip(separator) if path.startswith(separator) else path).rstrip(separator)
    return inside + separator, inside + bytes([separator[0] + 1])


def seconds_of(local: datetime) -> float:
    """Return a local time as `moment` counts it: the seconds since 1970 if it were UTC."""
    return local.replace(tzinfo=UTC).timestamp()


def in_folder(folder: str) -> ColumnElement[bool]:
    """Return the condition that a photo is inside a folder, at any depth."""
    return between(PhotoRow.path, *folder_range(folder))


def _in_any_folder(
    connection: Connection, folders: Sequence[str], order: PhotoOrder | None
) -> ColumnElement[bool]:
    """Return the condition that a photo is inside one of the folders.

    Where many are, and photos come in an order, an expression keeps the paths' index from being used.
    """
    inside = or_(*map(in_folder, folders))
    if order in (None, "name") or not _are_wide(connection, [inside]):
        return inside
    path = func.coalesce(PhotoRow.path, b"")
    return or_(*(between(path, *folder_range(folder)) for folder in folders))


def between(path: Any, low: bytes, high: bytes) -> ColumnElement[bool]:
    """Return the condition that a path is in a half-open range.

    Args:
        path: A column of paths.
        low: The first path of the range.
        high: The first path after the range.
    """
    # Within the length of keys they compare as paths do.
    key = PathKey(path) if max(len(low), len(high)) <= KEY_BYTES else path
    return and_(key >= low, key < high)


def filter_conditions(
    connection: Connection, where: SearchFilter, *, order: PhotoOrder | None = None
) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter, for photos joined with contents. Empty texts do not filter.

    Args:
        connection: A connection in a transaction.
        where: The filter.
        order: The order whose first photos are asked for. Where many photos pass, walking in that order meets
            them sooner than all of them are found and sorted.
    """
    conditions: list[ColumnElement[bool]] = []
    if where.under:
        # On disk a name may be composed (é as one character) or decomposed (e and an accent).
        forms = {where.under, *(unicodedata.normalize(form, where.under) for form in ("NFC", "NFD"))}
        conditions.append(_in_any_folder(connection, sorted(forms), order))
    conditions += _range_conditions(connection, where, order)
    for column, part in ((ContentRow.camera, where.camera), (ContentRow.lens, where.lens)):
        if part:
            conditions.append(_holds(connection, column, part, order))
    conditions += places.conditions(connection, where)
    if where.tag:
        tagged = select(TagRow.content_id).where(TagRow.tag == where.tag)
        tagged = tagged.where(TagRow.confidence >= where.min_confidence)
        conditions.append(PhotoRow.content_id.in_(tagged))
    return conditions + _other_conditions(where)


def _range_conditions(
    connection: Connection, where: SearchFilter, order: PhotoOrder | None
) -> list[ColumnElement[bool]]:
    """Return the conditions of dates and sizes.

    Where many photos are in a range, an expression keeps its index from being used: all of them are read
    sooner than these are looked up. Dates keep theirs where photos come in an order, which is mostly theirs.
    """
    dates, sizes = _ranges(where)
    if order is None and _are_wide(connection, dates):
        dates = _ranges(where, moment=func.coalesce(PhotoRow.moment, 0))[0]
    if order != "largest" and _are_wide(connection, sizes):
        sizes = _ranges(where, size=func.coalesce(PhotoRow.size, 0))[1]
    return dates + sizes


def _ranges(
    where: SearchFilter, moment: Any = PhotoRow.moment, size: Any = PhotoRow.size
) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """The conditions of dates, and those of sizes."""
    dates = [] if where.after is None else [moment >= seconds_of(where.after)]
    dates += [] if where.before is None else [moment <= seconds_of(where.before)]
    sizes = [] if where.min_bytes is None else [size >= where.min_bytes]
    sizes += [] if where.max_bytes is None else [size <= where.max_bytes]
    return dates, sizes


def _are_wide(connection: Connection, conditions: list[ColumnElement[bool]]) -> bool:
    """Whether a good part of the photos on disk passes the conditions of a range."""
    if not conditions:
        return False
    newest = connection.execute(select(func.max(PhotoRow.photo_id))).scalar_one() or 0
    least = max(_MANY, newest // 5)
    some = select(PhotoRow.photo_id).where(PhotoRow.missing == false(), *conditions).limit(least).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar_one() == least


def on_disk(connection: Connection, where: SearchFilter) -> ColumnElement[bool]:
    """Return the condition that a photo is on disk, for queries that read the rows of most of them.

    SQLite would walk through an index of those on disk, by date or size, and look each one up, which takes
    five times as long as to read the table. It is of use where few have such dates or sizes.

    Args:
        connection: A connection in a transaction.
        where: The filter.
    """
    if any(part and not _are_wide(connection, part) for part in _ranges(where)):
        return PhotoRow.missing == false()
    return func.coalesce(PhotoRow.missing, true()) == false()  # an expression, which no index has


def _holds(connection: Connection, column: Any, part: str, order: PhotoOrder | None) -> ColumnElement[bool]:
    """Return the condition that a name holds a text."""
    found = names_with(connection, column, part)
    if order is not None and _are_many(connection, column.in_(found)):
        column = func.coalesce(column, "")  # an expression, so that its index does not decide the order
    condition: ColumnElement[bool] = column.in_(found)
    return condition


def names_with(connection: Connection, column: Any, part: str) -> list[str]:
    """Return the distinct names that hold a text, in upper or lower case.

    SQLite ignores case in ASCII only. The distinct names are few, so Python compares them.

    Args:
        connection: A connection in a transaction.
        column: The column of the names, which must be indexed.
        part: The text.
    """
    return [name for name in _names(connection, column) if part.casefold() in name.casefold()]


def _names(connection: Connection, column: Any) -> list[str]:
    """Return the distinct names of an indexed column, by one look-up each: DISTINCT reads the index."""
    names = select(func.min(column).label("name")).cte("names", recursive=True)
    following = select(func.min(column)).where(column > names.c.name).correlate(names).scalar_subquery()
    names = names.union_all(select(following).where(names.c.name.is_not(None)))
    return [name for name in connection.execute(select(names.c.name)).scalars() if name]


def _are_many(connection: Connection, condition: ColumnElement[bool]) -> bool:
    """Whether so many contents pass that a walk through all photos soon meets some."""
    some = select(ContentRow.content_id).where(condition).limit(_MANY).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar_one() == _MANY


def _other_conditions(where: SearchFilter) -> list[ColumnElement[bool]]:
    """Return the conditions of file type, shape and marks."""
    conditions: list[ColumnElement[bool]] = []
    if where.format:
        conditions.append(ContentRow.format == where.format)
    if where.orientation:
        conditions.append(_ORIENTATIONS[where.orientation])
    if where.favourite:
        conditions.append(_of_digests(select(MarkRow.digest).where(MarkRow.favourite == true())))
    if where.min_rating:
        conditions.append(_of_digests(select(MarkRow.digest).where(MarkRow.rating >= where.min_rating)))
    if where.photo_ids is not None:
        conditions.append(PhotoRow.photo_id.in_(listed(sorted(where.photo_ids), integers=True)))
    if where.album:
        conditions.append(_of_digests(select(AlbumPhotoRow.digest).where(AlbumPhotoRow.album == where.album)))
    return conditions


def _of_digests(digests: Select[Any]) -> ColumnElement[bool]:
    """Return the condition that a photo's content is one of these."""
    contents = select(ContentRow.content_id).where(ContentRow.digest.in_(digests))
    return PhotoRow.content_id.in_(contents.correlate(None))


def find_one(connection: Connection, condition: ColumnElement[bool]) -> Photo | None:
    """Return the photo that meets a condition which at most one photo can meet, or None.

    Args:
        connection: A connection in a transaction.
        condition: An SQL condition.
    """
    row = connection.execute(_PHOTO.where(condition)).one_or_none()
    return None if row is None else _as_photo(row)


def by_id(connection: Connection, photo_ids: Sequence[int]) -> dict[int, Photo]:
    """Return photos by their ids; ids of none are left out.

    Args:
        connection: A connection in a transaction.
        photo_ids: The ids.
    """
    return {
        row.photo_id: _as_photo(row)
        for some in chunks(photo_ids)
        for row in connection.execute(_PHOTO.where(PhotoRow.photo_id.in_(some)))
    }


def ids_at(connection: Connection, paths: Sequence[str]) -> dict[str, int]:
    """Return photos' ids by path; see `Catalog.photo_ids_at`.

    Args:
        connection: A connection in a transaction.
        paths: Absolute paths.
    """
    return {
        os.fsdecode(path): photo_id
        for some in chunks(map(os.fsencode, paths))
        for path, photo_id in connection.execute(
            select(PhotoRow.path, PhotoRow.photo_id).where(PathIdentity(PhotoRow.path).in_(some))
        )
    }


def list_photos(
    connection: Connection, where: SearchFilter, offset: int, limit: int | None, missing: bool | None
) -> list[Photo]:
    """Return photos, newest first; see `Catalog.photos`.

    Args:
        connection: A connection in a transaction.
        where: The filter.
        offset: Rows to skip.
        limit: Most rows to return; None for all.
        missing: False for photos on disk, True for missing ones, None for both.
    """
    newest_first = PhotoRow.moment.desc(), PhotoRow.photo_id.desc()
    chosen = joined(select(PhotoRow.photo_id), where).correlate(None)
    chosen = _filtered(
        chosen, connection, where, missing, order=None if limit is None else "newest"
    ).order_by(*newest_first)
    # Skipped rows are counted in the index only, without reading them.
    page = PhotoRow.photo_id.in_(chosen.offset(offset).limit(limit))
    return [_as_photo(row) for row in connection.execute(_PHOTO.where(page).order_by(*newest_first))]


def count(connection: Connection, where: SearchFilter, missing: bool | None) -> int:
    """Count photos; see `Catalog.count_photos`.

    Args:
        connection: A connection in a transaction.
        where: The filter.
        missing: False for photos on disk, True for missing ones, None for both.
    """
    statement = joined(select(func.count()).select_from(PhotoRow), where)
    return int(connection.execute(_filtered(statement, connection, where, missing)).scalar_one())


def copies(connection: Connection, content_id: int) -> list[Photo]:
    """Return all photos of a content; see `Catalog.copies`.

    Args:
        connection: A connection in a transaction.
        content_id: The content.
    """
    statement = _PHOTO.where(PhotoRow.content_id == content_id)
    rows = connection.execute(statement.order_by(PhotoRow.missing, PhotoRow.path))
    return [_as_photo(row) for row in rows]


def with_ids(space_id: int, embedding_ids: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition of embeddings that have one of some ids and are in a space.

    Args:
        space_id: The space.
        embedding_ids: At most `MAX_IDS_PER_QUERY`.
    """
    # For more than a few ids SQLite would go through all embeddings of the space by its index. It has none
    # for a sum.
    return and_(EmbeddingRow.embedding_id.in_(embedding_ids), EmbeddingRow.space_id + 0 == space_id)


def by_embedding(connection: Connection, embedding_ids: Sequence[int]) -> dict[int, list[Photo]]:
    """Return the photos of embeddings; see `Catalog.photos_of`.

    Args:
        connection: A connection in a transaction.
        embedding_ids: The embeddings.
    """
    found: dict[int, list[Photo]] = {}
    statement = _PHOTO.join(EmbeddingRow, EmbeddingRow.content_id == PhotoRow.content_id)
    statement = statement.add_columns(EmbeddingRow.embedding_id)
    statement = statement.order_by(PhotoRow.missing, PhotoRow.path)
    for some in chunks(embedding_ids):
        for row in connection.execute(statement.where(EmbeddingRow.embedding_id.in_(some))):
            found.setdefault(row.embedding_id, []).append(_as_photo(row))
    return {number: found[number] for number in embedding_ids if number in found}


def with_photo_on_disk(connection: Connection, where: SearchFilter, space_id: int) -> Select[Any]:
    """Return a query for embeddings with at least one photo on disk that passes the filter, in any order.

    Args:
        connection: A connection in a transaction.
        where: The filter.
        space_id: The space.
    """
    shown = on_disk(connection, where) if any(_ranges(where)) else PhotoRow.missing == false()
    contents = joined(select(PhotoRow.content_id), where)
    contents = contents.where(shown, *filter_conditions(connection, where))
    return select(EmbeddingRow.embedding_id).where(
        EmbeddingRow.space_id == space_id, EmbeddingRow.content_id.in_(contents)
    )


def among(
    embedding_ids: Sequence[int], where: SearchFilter, space_id: int, conditions: list[ColumnElement[bool]]
) -> Select[Any]:
    """Return a query for those of a few embeddings that have a photo on disk which passes the filter.

    Args:
        embedding_ids: At most `MAX_IDS_PER_QUERY`.
        where: The filter.
        space_id: The space.
        conditions: The conditions of `filter_conditions`.
    """
    statement = select(EmbeddingRow.embedding_id).distinct()
    statement = statement.join(PhotoRow, PhotoRow.content_id == EmbeddingRow.content_id)
    return joined(statement, where).where(
        with_ids(space_id, embedding_ids),
        PhotoRow.missing == false(),
        *conditions,
    )


def with_copies(space_id: int) -> Select[Any]:
    """Return a query for embeddings of contents that several photos on disk have."""
    copied = select(PhotoRow.content_id).where(PhotoRow.missing == false())
    copied = copied.group_by(PhotoRow.content_id).having(func.count() > 1)
    statement = select(EmbeddingRow.embedding_id).where(
        EmbeddingRow.space_id == space_id, EmbeddingRow.content_id.in_(copied)
    )
    return statement.order_by(EmbeddingRow.embedding_id)


def without_photo_on_disk(space_id: int) -> Select[Any]:
    """Return a query for embeddings without a photo on disk."""
    # Missing photos are few, so start from them; contents with a copy on disk are not hidden.
    missing = select(PhotoRow.content_id).where(PhotoRow.missing == true())
    on_disk = exists().where(PhotoRow.content_id == EmbeddingRow.content_id, PhotoRow.missing == false())
    statement = select(EmbeddingRow.embedding_id).where(
        EmbeddingRow.space_id == space_id, EmbeddingRow.content_id.in_(missing), ~on_disk
    )
    return statement.order_by(EmbeddingRow.embedding_id)


def count_uncovered(connection: Connection, space_id: int, features_id: int) -> dict[bytes, int]:
    """Count photos on disk that a space has no vector of and that did not fail in it, by folder.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
        features_id: The space that has its features.
    """
    # Usually nothing is left out, as two counts say, which read indexes alone: a content has one vector.
    contents = connection.execute(select(func.count()).select_from(ContentRow)).scalar_one()
    embedded = select(func.count()).select_from(EmbeddingRow).where(EmbeddingRow.space_id == space_id)
    if connection.execute(embedded).scalar_one() == contents:
        return {}
    covered = exists().where(
        EmbeddingRow.content_id == ContentRow.content_id, EmbeddingRow.space_id == space_id
    )
    uncovered = select(ContentRow.content_id).where(~covered)
    failed = exists().where(FailureRow.path == PhotoRow.path, FailureRow.space_id == features_id)
    statement = select(PhotoRow.path).where(
        PhotoRow.missing == false(), PhotoRow.content_id.in_(uncovered), ~failed
    )
    folders = (os.path.dirname(path) for path in connection.execute(statement).scalars())
    return dict(Counter(folders))


def copies_on_disk(connection: Connection) -> dict[int, list[int]]:
    """Return the contents that have not exactly one photo on disk, by how many they have.

    They are few in most libraries, so that what is counted of photos is counted of contents, but for these.

    Args:
        connection: A connection in a transaction.
    """
    number = func.count()
    several = select(PhotoRow.content_id, number).where(PhotoRow.missing == false())
    several = several.group_by(PhotoRow.content_id).having(number > 1)
    found: dict[int, list[int]] = {}
    for content_id, copies in fetch_tuples(connection, several):
        found.setdefault(copies, []).append(content_id)
    on_disk = count(connection, SearchFilter(), missing=False)
    on_disk -= sum((copies - 1) * len(ids) for copies, ids in found.items())
    if on_disk < connection.execute(select(func.count()).select_from(ContentRow)).scalar_one():
        there = exists().where(PhotoRow.content_id == ContentRow.content_id, PhotoRow.missing == false())
        found[0] = list(connection.execute(select(ContentRow.content_id).where(~there)).scalars())
    return found


def fetch_ids(connection: Connection, statement: Select[Any]) -> NDArray[np.int64]:
    """Run a query and return its only column: (N,) int64.

    Args:
        connection: A connection in a transaction.
        statement: A query with one integer column.
    """
    return np.fromiter(chain.from_iterable(fetch_tuples(connection, statement)), dtype=np.int64)


def content_id(connection: Connection, digest: str) -> int | None:
    """Return the id of a content by its digest, or None.

    Args:
        connection: A connection in a transaction.
        digest: SHA-256, hex.
    """
    return connection.execute(_CONTENT_ID, {"digest": digest}).scalar_one_or_none()


def digests(connection: Connection) -> set[str]:
    """Return the digests of all contents."""
    return set(connection.execute(select(ContentRow.digest)).scalars())


def contents(
    connection: Connection, digests: Iterable[str], space_id: int
) -> dict[str, tuple[int, bool, bool]]:
    """Return ids of known digests, and what is known of each; see `Catalog.contents`.

    Args:
        connection: A connection in a transaction.
        digests: SHA-256 digests, hex.
        space_id: The space.
    """
    return {
        digest: (number, embedded is not None, (revision or 0) >= METADATA_REVISION)
        for some in chunks(digests)
        for digest, number, embedded, revision in connection.execute(
            _CONTENTS, {"digests": some, "space": space_id}
        )
    }


def digests_at_hand(connection: Connection, content_ids: Iterable[int], space_id: int) -> set[str]:
    """Return digests of contents of which nothing more need be read; see `Catalog.digests_at_hand`.

    Args:
        connection: A connection in a transaction.
        content_ids: The contents.
        space_id: The space.
    """
    return {
        digest
        for some in chunks(content_ids)
        for digest in connection.execute(
            select(ContentRow.digest)
            .join(EmbeddingRow, EmbeddingRow.content_id == ContentRow.content_id)
            .where(
                ContentRow.content_id.in_(some),
                EmbeddingRow.space_id == space_id,
                ContentRow.metadata_revision >= METADATA_REVISION,
            )
        ).scalars()
    }


def known_rows(connection: Connection, root: str, space_id: int | None) -> CursorResult[Any]:
    """Run the query of `Catalog.known_files`; `to_known_file` converts its rows.

    Args:
        connection: A connection in a transaction.
        root: The folder.
        space_id: The space that `embedded` is about; None makes it false.
    """
    order: list[Any] = [PathKey(PhotoRow.path)]
    if is_postgresql(connection):  # keys are the first bytes of paths there
        order.append(PhotoRow.path)
    return connection.execute(_known(space_id).where(in_folder(root)).order_by(*order))


def _known(space_id: int | None) -> Select[Any]:
    """Return a query for the rows that `to_known_file` converts; see `known_rows` for `space_id`."""
    embedded: ColumnElement[bool] = false()
    if space_id is not None:
        embedded = exists().where(
            EmbeddingRow.content_id == PhotoRow.content_id, EmbeddingRow.space_id == space_id
        )
    columns: Any = select(
        PhotoRow.photo_id,
        PhotoRow.path,
        PhotoRow.size,
        PhotoRow.mtime_ns,
        PhotoRow.device,
        PhotoRow.ctime_ns,
        PhotoRow.inode,
        PhotoRow.content_id,
        PhotoRow.missing,
    )
    return columns.add_columns(embedded.label("embedded"))  # type: ignore[no-any-return]


def files_at(connection: Connection, paths: Iterable[str], space_id: int | None) -> dict[str, KnownFile]:
    """Return photo rows by path; see `Catalog.files_at`.

    Args:
        connection: A connection in a transaction.
        paths: Absolute paths.
        space_id: The space that `embedded` is about; None makes it false.
    """
    statement = _known(space_id)
    files = (
        to_known_file(row)
        for some in chunks(map(os.fsencode, paths))
        for row in connection.execute(statement.where(PathIdentity(PhotoRow.path).in_(some))).all()
    )
    return {file.stamp.path: file for file in files}


def to_known_file(row: Any) -> KnownFile:
    """Convert one row of `known_rows`."""
    photo_id, path, size, mtime_ns, device, ctime_ns, inode, content_id, missing, embedded = row
    stamp = Stamp(os.fsdecode(path), size, mtime_ns, device, ctime_ns, inode)
    return KnownFile(photo_id, stamp, content_id, missing, bool(embedded))


def mark_unseen(connection: Connection, rows: Iterable[KnownFile]) -> int:
    """Mark photos as missing; see `CatalogWriter.mark_unseen`.

    Args:
        connection: A connection in a transaction.
        rows: The rows, as they were at the walk.
    """
    marked = 0
    columns = select(PhotoRow.photo_id, PhotoRow.path, PhotoRow.size, PhotoRow.mtime_ns)
    for some in chunks(rows):
        seen = {
            row.photo_id: (os.fsencode(row.stamp.path), row.stamp.size, row.stamp.mtime_ns) for row in some
        }
        here = columns.where(PhotoRow.photo_id.in_(seen)).order_by(PhotoRow.photo_id).with_for_update()
        same = [photo_id for photo_id, *now in connection.execute(here) if tuple(now) == seen[photo_id]]
        connection.execute(update(PhotoRow).where(PhotoRow.photo_id.in_(same)).values(missing=True))
        marked += len(same)
    return marked


def ids_in(connection: Connection, root: str) -> Iterator[int]:
    """Return ids of photo rows; see `Catalog.file_ids`.

    Args:
        connection: A connection in a transaction.
        root: The folder.
    """
    return iter(connection.scalars(select(PhotoRow.photo_id).where(in_folder(root))))


def files_by_id(connection: Connection, photo_ids: Iterable[int], space_id: int | None) -> list[KnownFile]:
    """Return photo rows by path; see `Catalog.files_by_id`.

    Args:
        connection: A connection in a transaction.
        photo_ids: Their ids.
        space_id: The space that `embedded` is about; None makes it false.
    """
    statement = _known(space_id)
    files = [
        to_known_file(row)
        for some in chunks(photo_ids)
        for row in connection.execute(statement.where(PhotoRow.photo_id.in_(some)))
    ]
    return sorted(files, key=lambda file: os.fsencode(file.stamp.path))


def frames(connection: Connection, video: str, space_id: int | None) -> list[KnownFile]:
    """Return the rows of a video's frames; see `Catalog.frames`.

    Args:
        connection: A connection in a transaction.
        video: The video's path.
        space_id: The space that `embedded` is about; None makes it false.
    """
    first = os.fsencode(video) + b"#t="
    inside = between(PhotoRow.path, first, first[:-1] + bytes([first[-1] + 1]))
    files = map(to_known_file, connection.execute(_known(space_id).where(inside)))
    return [file for file in files if VideoFrame.of(file.stamp.path) is not None]


def by_inode(connection: Connection, inodes: Iterable[int]) -> list[KnownFile]:
    """Return rows of photos on disk; see `Catalog.photos_by_inode`.

    Args:
        connection: A connection in a transaction.
        inodes: The inodes.
    """
    statement = _known(None).where(PhotoRow.missing == false())
    return [
        to_known_file(row)
        for some in chunks(inodes)
        for row in connection.execute(statement.where(PhotoRow.inode.in_(some)))
    ]


def frame_paths(connection: Connection, root: str) -> list[str]:
    """Return the paths of photos on disk that are frames of videos, in their order.

    Args:
        connection: A connection in a transaction.
        root: Only those inside this folder.
    """
    statement = select(PhotoRow.path).where(in_folder(root), ~PhotoRow.missing)
    statement = statement.where(PositionOf(PhotoRow.path, b"#t=") > 0).order_by(PhotoRow.path)
    paths = map(os.fsdecode, connection.scalars(statement))
    return [path for path in paths if VideoFrame.of(path) is not None]


def failures(connection: Connection, space_id: int | None, under: str | None) -> list[Failure]:
    """Return failures by path; see `Catalog.failures`.

    Args:
        connection: A connection in a transaction.
        space_id: The space; None for all, each file once.
        under: Only files inside this folder.
    """
    statement = _FAILURE.order_by(FailureRow.path, FailureRow.failure_id)
    if space_id is not None:
        statement = statement.where(FailureRow.space_id == space_id)
    if under:
        statement = statement.where(between(FailureRow.path, *folder_range(under)))
    latest = {row.path: row for row in connection.execute(statement)}
    return [_as_failure(row) for row in latest.values()]


def failures_at(connection: Connection, paths: Iterable[str], space_id: int) -> dict[str, Failure]:
    """Return failures by path; see `Catalog.failures_at`.

    Args:
        connection: A connection in a transaction.
        paths: Absolute paths.
        space_id: The space.
    """
    statement = _FAILURE.where(FailureRow.space_id == space_id)
    failures = (
        _as_failure(row)
        for some in chunks(map(os.fsencode, paths))
        for row in connection.execute(statement.where(PathIdentity(FailureRow.path).in_(some)))
    )
    return {failure.path: failure for failure in failures}


def _as_failure(row: Any) -> Failure:
    return Failure(os.fsdecode(row.path), row.reason, row.size, row.mtime_ns, row.ctime_ns, row.tried_with)


def needs_contents(where: SearchFilter) -> bool:
    """Return whether the conditions of a filter need the contents."""
    return bool(where.camera or where.lens or where.format or where.orientation) or places.asked(where)


def joined(statement: Select[Any], where: SearchFilter) -> Select[Any]:
    """Join the contents if the filter needs them.

    Args:
        statement: A query of photos.
        where: The filter.
    """
    if not needs_contents(where):
        return statement
    return statement.join(ContentRow, ContentRow.content_id == PhotoRow.content_id)


def _filtered(
    statement: Any,
    connection: Connection,
    where: SearchFilter,
    missing: bool | None,
    *,
    order: PhotoOrder | None = None,
) -> Any:
    if missing is not None:
        statement = statement.where(PhotoRow.missing == missing)
    return statement.where(*filter_conditions(connection, where, order=order))


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
            taken_from=row.taken_from,
            notes=tuple(row.notes or ()),
            lens=row.lens,
            revision=row.metadata_revision or 0,
        ),
        named_at=row.named_at,
    )
