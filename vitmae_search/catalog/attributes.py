"""Attributes of vectors, for vector databases that filter by themselves, and filters on them.

A photo passes a filter of the catalogue only if its vector's attributes pass the filter here. The other way
round does not hold: a circle is searched as its box, and the photos of one content are taken together. So
what a vector database finds is asked of the catalogue once more.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

from sqlalchemy import Connection, false, literal, select

from vitmae_search.catalog import places, spaces
from vitmae_search.catalog.dialects import upsert
from vitmae_search.catalog.photos import chunks, folder_range, names_with, seconds_of, with_ids
from vitmae_search.catalog.schema import AttributeChangeRow, ContentRow, EmbeddingRow, PhotoRow, TagRow
from vitmae_search.records import AttributeFilter, Orientation, SearchFilter, VectorAttributes

_ON_DISK = "on disk"
_CONFIDENCES = 10
"""A tag has one word for each tenth of confidence."""

_PHOTOS = (
    select(
        EmbeddingRow.embedding_id,
        PhotoRow.content_id,
        PhotoRow.path,
        PhotoRow.moment,
        PhotoRow.size,
        ContentRow.camera,
        ContentRow.lens,
        ContentRow.format,
        ContentRow.width,
        ContentRow.height,
        ContentRow.latitude,
        ContentRow.longitude,
    )
    .join(PhotoRow, PhotoRow.content_id == EmbeddingRow.content_id)
    .join(ContentRow, ContentRow.content_id == PhotoRow.content_id)
    .where(PhotoRow.missing == false())
)


def changed(connection: Connection, content_ids: Iterable[int], revisions: dict[int, int]) -> None:
    """Begin a revision of each space that has vectors of these contents, as filters ask other things of them.

    Vectors that this transaction added are passed over: whoever follows reads them anyway.

    Args:
        connection: A connection in a transaction.
        content_ids: The contents of photos that were added, moved, changed, tagged or deleted.
        revisions: Revisions that this transaction has begun, by space id; it is changed.
    """
    for some in chunks(sorted(set(content_ids))):
        theirs = EmbeddingRow.content_id.in_(some)
        where = select(EmbeddingRow.space_id, EmbeddingRow.revision).where(theirs).distinct()
        held = {(row.space_id, row.revision) for row in connection.execute(where)}
        for space_id in sorted({space for space, begun in held if revisions.get(space) != begun}):
            if space_id not in revisions:
                revisions[space_id] = spaces.next_revision(connection, space_id)
            columns = (EmbeddingRow.embedding_id, EmbeddingRow.space_id, literal(revisions[space_id]))
            older = EmbeddingRow.revision < revisions[space_id]
            rows = select(*columns).where(theirs, EmbeddingRow.space_id == space_id, older)
            statement = upsert(connection, AttributeChangeRow).from_select(
                ["embedding_id", "space_id", "revision"], rows
            )
            again = {"revision": statement.excluded.revision}
            connection.execute(statement.on_conflict_do_update(index_elements=["embedding_id"], set_=again))


def contents_of(connection: Connection, photo_ids: Iterable[int]) -> set[int]:
    """Return the contents of photos.

    Args:
        connection: A connection in a transaction.
        photo_ids: The photos.
    """
    found: set[int] = set()
    for some in chunks(photo_ids):
        statement = select(PhotoRow.content_id).where(PhotoRow.photo_id.in_(some))
        found |= set(connection.execute(statement).scalars())
    return found


@functools.lru_cache(maxsize=1 << 16)
def word(kind: str, value: str | bytes = b"") -> int:
    """Return the digest of an attribute: 64 bits, with a sign.

    Args:
        kind: What it is of: "folder", "camera" and so on.
        value: Which one.
    """
    text = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    digest = blake2b(text, digest_size=8, person=kind.encode()).digest()
    return int.from_bytes(digest, "little", signed=True)


def of_vectors(connection: Connection, space_id: int, embedding_ids: Sequence[int]) -> list[VectorAttributes]:
    """Return the attributes of vectors, one by one; `VectorAttributes()` for one without a photo on disk.

    Args:
        connection: A connection in a transaction.
        space_id: The space.
        embedding_ids: The vectors.
    """
    photos: dict[int, list[Any]] = {}
    for some in chunks(embedding_ids):
        for row in connection.execute(_PHOTOS.where(with_ids(space_id, some))):
            photos.setdefault(row.embedding_id, []).append(row)
    tags: dict[int, set[int]] = {}
    for some in chunks({rows[0].content_id for rows in photos.values()}):
        tagged = select(TagRow.content_id, TagRow.tag, TagRow.confidence)
        for content_id, tag, confidence in connection.execute(tagged.where(TagRow.content_id.in_(some))):
            tags.setdefault(content_id, set()).add(_tag(tag, int(confidence * _CONFIDENCES)))
    none = VectorAttributes()
    return [
        _attributes(photos[i], tags.get(photos[i][0].content_id, set())) if i in photos else none
        for i in embedding_ids
    ]


def _attributes(photos: Sequence[Any], tags: Iterable[int]) -> VectorAttributes:
    first = photos[0]
    words = {word(_ON_DISK), word("format", first.format), word("shape", _shape(first)), *tags}
    words.add(word("no place" if first.latitude is None else "place"))
    words.update(word(kind, name) for kind in ("camera", "lens") if (name := getattr(first, kind)))
    for photo in photos:
        words.update(_folders(os.path.dirname(photo.path)))
    moments, sizes = [photo.moment for photo in photos], [photo.size for photo in photos]
    place = [float(first.latitude), float(first.longitude)] if first.latitude is not None else [1e15, 1e15]
    numbers = min(moments), max(moments), float(min(sizes)), float(max(sizes)), *place
    return VectorAttributes(tuple(sorted(words)), numbers)


def _shape(photo: Any) -> Orientation:
    if photo.width == photo.height:
        return "square"
    return "landscape" if photo.width > photo.height else "portrait"


@functools.lru_cache(maxsize=1 << 12)
def _folders(folder: bytes) -> tuple[int, ...]:
    """The words of a folder and of all that it lies in."""
    parent = os.path.dirname(folder)
    own = word("folder", folder.rstrip(os.sep.encode()))
    return (own,) if parent == folder else (*_folders(parent), own)


def _tag(tag: str, tenth: int) -> int:
    return word("tag", f"{tenth} {tag}")


def are_enough_for(where: SearchFilter) -> bool:
    """Return whether a filter asks for nothing that people say of photos: marks, albums and lists of photos.

    What passes such a filter changes with the revisions of a space alone (`changed`).
    """
    return not (where.favourite or where.min_rating or where.album or where.photo_ids is not None)


def filter_of(connection: Connection, where: SearchFilter) -> AttributeFilter | None:
    """Return a filter on attributes that lets all vectors pass which `where` does, and few others.

    Args:
        connection: A connection in a transaction.
        where: The filter.

    Returns:
        None where it asks for what people say of photos: marks, albums and lists of photos change at any
        time and are short, so the catalogue says which vectors these are.
    """
    if not are_enough_for(where):
        return None
    groups = [[word(_ON_DISK)]] if where.empty else []
    if where.under:
        forms = {where.under, *(unicodedata.normalize(form, where.under) for form in ("NFC", "NFD"))}
        groups.append([word("folder", folder_range(form)[0].rstrip(os.sep.encode())) for form in forms])
    for column, part in ((ContentRow.camera, where.camera), (ContentRow.lens, where.lens)):
        if part:
            groups.append([word(column.key, name) for name in names_with(connection, column, part)])
    if where.tag:
        least = int(where.min_confidence * _CONFIDENCES)
        groups.append([_tag(where.tag, tenth) for tenth in range(least, _CONFIDENCES + 1)])
    if where.format:
        groups.append([word("format", where.format)])
    if where.orientation:
        groups.append([word("shape", where.orientation)])
    if where.has_place is not None:
        groups.append([word("place" if where.has_place else "no place")])
    at_least, at_most = _ranges(where)
    return AttributeFilter(tuple(tuple(sorted(group)) for group in groups), tuple(at_least), tuple(at_most))


def _ranges(where: SearchFilter) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """What numbers are at least, and what they are at most."""
    at_least: list[tuple[str, float]] = []
    at_most: list[tuple[str, float]] = []
    if where.after is not None:
        at_least.append(("last_moment", seconds_of(where.after)))
    if where.before is not None:
        at_most.append(("first_moment", seconds_of(where.before)))
    if where.min_bytes is not None:
        at_least.append(("most_bytes", where.min_bytes))
    if where.max_bytes is not None:
        at_most.append(("least_bytes", where.max_bytes))
    for box in (where.box, None if where.near is None else places.around(where.near)):
        if box is not None:
            at_least.append(("latitude", box.south))
            at_most.append(("latitude", box.north))
            if box.west <= box.east:  # else it crosses the antimeridian
                at_least.append(("longitude", box.west))
                at_most.append(("longitude", box.east))
    return at_least, at_most
