"""What a person says of photos: favourite, rating, keep, and albums. It belongs to a content, by its digest.

Each function takes a connection that is in a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, false, func, or_, select, update

from vitmae_search.catalog import undo
from vitmae_search.catalog.dialects import listed, upsert
from vitmae_search.catalog.schema import (
    AlbumPhotoRow,
    AlbumRow,
    ContentRow,
    MarkRow,
    PairDecisionRow,
    PhotoRow,
)
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.records import Marks

HIGHEST_RATING = 5

_NOTHING = {"favourite": False, "rating": 0, "keep": False}


def digests_of(connection: Connection, photo_ids: Iterable[int]) -> list[str]:
    """Return the digests of photos' contents, each once; ids that no photo has are passed over.

    Args:
        connection: A connection in a transaction.
        photo_ids: The photos.
    """
    statement = select(ContentRow.digest).join(PhotoRow, PhotoRow.content_id == ContentRow.content_id)
    statement = statement.where(PhotoRow.photo_id.in_(listed(photo_ids, integers=True))).distinct()
    return list(connection.execute(statement.order_by(ContentRow.digest)).scalars())


def of_digests(connection: Connection, digests: Iterable[str]) -> dict[str, Marks]:
    """Return what is said of contents, by digest; those of which nothing is said are left out.

    Args:
        connection: A connection in a transaction.
        digests: The contents' digests.
    """
    wanted = listed(digests)
    albums: dict[str, list[str]] = {}
    statement = select(AlbumPhotoRow.digest, AlbumPhotoRow.album).where(AlbumPhotoRow.digest.in_(wanted))
    for digest, album in connection.execute(statement.order_by(AlbumPhotoRow.album)):
        albums.setdefault(digest, []).append(album)
    columns = (MarkRow.digest, MarkRow.favourite, MarkRow.rating, MarkRow.keep)
    found = {
        row.digest: Marks(row.favourite, row.rating, row.keep)
        for row in connection.execute(select(*columns).where(MarkRow.digest.in_(wanted)))
    }
    return {
        digest: Marks(mark.favourite, mark.rating, mark.keep, tuple(albums.get(digest, ())))
        for digest, mark in ({digest: Marks() for digest in albums} | found).items()
    }


def mark(connection: Connection, photo_ids: Iterable[int], values: Mapping[str, Any], text: str) -> int:
    """Say something of photos; see `CatalogWriter.mark`.

    Args:
        connection: A connection in a transaction.
        photo_ids: The photos.
        values: The columns that change.
        text: What the change does, in words.
    """
    digests = digests_of(connection, photo_ids)
    if digests and values:
        undo.record(connection, text, [undo.snapshot(connection, MarkRow, digest=digests)])
        statement = upsert(connection, MarkRow).on_conflict_do_update(
            index_elements=["digest"], set_=dict(values)
        )
        connection.execute(statement, [{"digest": digest, **_NOTHING, **values} for digest in digests])
        empty = and_(MarkRow.favourite == false(), MarkRow.rating == 0, MarkRow.keep == false())
        connection.execute(delete(MarkRow).where(empty))
    return len(digests)


def albums(connection: Connection) -> dict[str, int]:
    """Return the albums, A to Z, and how many photos on disk each has; copies count once."""
    on_disk = exists().where(
        ContentRow.digest == AlbumPhotoRow.digest,
        PhotoRow.content_id == ContentRow.content_id,
        PhotoRow.missing == false(),
    )
    count = select(func.count()).where(AlbumPhotoRow.album == AlbumRow.name, on_disk).scalar_subquery()
    rows = connection.execute(select(AlbumRow.name, count).order_by(AlbumRow.name))
    return {name: int(number) for name, number in rows}


def add_to_album(connection: Connection, name: str, photo_ids: Iterable[int], *, make: bool = True) -> int:
    """Put photos into an album; see `CatalogWriter.add_to_album`.

    Args:
        connection: A connection in a transaction.
        name: The album.
        photo_ids: The photos.
        make: Make the album if there is none.
    """
    if not make:
        require_album(connection, name)
    digests = digests_of(connection, photo_ids)
    before = [] if name in albums(connection) else [undo.snapshot(connection, AlbumRow, name=[name])]
    before.append(undo.snapshot(connection, AlbumPhotoRow, album=[name], digest=digests))
    undo.record(connection, f"{len(digests)} photos into the album {display_path(name)}", before)
    connection.execute(upsert(connection, AlbumRow).values(name=name).on_conflict_do_nothing())
    rows = [{"album": name, "digest": digest} for digest in digests]
    if rows:
        connection.execute(upsert(connection, AlbumPhotoRow).on_conflict_do_nothing(), rows)
    return len(digests)


def remove_from_album(connection: Connection, name: str, photo_ids: Iterable[int]) -> int:
    """Take photos out of an album; see `CatalogWriter.remove_from_album`.

    Args:
        connection: A connection in a transaction.
        name: The album.
        photo_ids: The photos.
    """
    require_album(connection, name)
    digests = digests_of(connection, photo_ids)
    before = [undo.snapshot(connection, AlbumPhotoRow, album=[name], digest=digests)]
    undo.record(connection, f"{len(digests)} photos out of the album {display_path(name)}", before)
    inside = AlbumPhotoRow.digest.in_(listed(digests))
    connection.execute(delete(AlbumPhotoRow).where(AlbumPhotoRow.album == name, inside))
    return len(digests)


def rename_album(connection: Connection, name: str, new_name: str) -> None:
    """Rename an album; see `CatalogWriter.rename_album`.

    Args:
        connection: A connection in a transaction.
        name: The album.
        new_name: The name that it gets.
    """
    require_album(connection, name)
    if new_name in albums(connection):
        raise LibraryError(f"there is an album {display_path(new_name)!r} already")
    names = [name, new_name]
    before = [undo.snapshot(connection, AlbumRow, name=names)]
    before.append(undo.snapshot(connection, AlbumPhotoRow, album=names))
    undo.record(connection, f"the album {display_path(name)} renamed", before)
    connection.execute(update(AlbumRow).where(AlbumRow.name == name).values(name=new_name))


def delete_album(connection: Connection, name: str) -> None:
    """Delete an album; see `CatalogWriter.delete_album`.

    Args:
        connection: A connection in a transaction.
        name: The album.
    """
    require_album(connection, name)
    before = [undo.snapshot(connection, AlbumRow, name=[name])]
    before.append(undo.snapshot(connection, AlbumPhotoRow, album=[name]))
    undo.record(connection, f"the album {display_path(name)} deleted", before)
    connection.execute(delete(AlbumRow).where(AlbumRow.name == name))


def require_album(connection: Connection, name: str) -> None:
    """Raise `LibraryError` if there is no album of this name.

    Args:
        connection: A connection in a transaction.
        name: The album.
    """
    there = albums(connection)
    if name not in there:
        names = ", ".join(map(display_path, there)) or "none"
        raise LibraryError(f"there is no album {display_path(name)!r}; there are: {names}")


def carry_over(connection: Connection, changed: Sequence[tuple[str, str]]) -> None:
    """Give contents what is said of those that they take the place of, in files that were edited.

    Args:
        connection: A connection in a transaction.
        changed: The old digest and the new one of each file.
    """
    for old, new in changed:
        columns = (MarkRow.favourite, MarkRow.rating, MarkRow.keep)
        for row in connection.execute(select(*columns).where(MarkRow.digest == old)).all():
            values = {"digest": new, **row._mapping}
            connection.execute(upsert(connection, MarkRow).values(values).on_conflict_do_nothing())
        names = select(AlbumPhotoRow.album).where(AlbumPhotoRow.digest == old)
        for name in connection.execute(names).scalars().all():
            connection.execute(
                upsert(connection, AlbumPhotoRow).values(album=name, digest=new).on_conflict_do_nothing()
            )
        _carry_over_pairs(connection, old, new)


def _carry_over_pairs(connection: Connection, old: str, new: str) -> None:
    columns = (PairDecisionRow.digest, PairDecisionRow.other, PairDecisionRow.decision)
    of_old = or_(PairDecisionRow.digest == old, PairDecisionRow.other == old)
    for one, other, decision in connection.execute(select(*columns).where(of_old)).all():
        partner = other if one == old else one
        if partner != new:
            first, second = sorted((new, partner))
            values = {"digest": first, "other": second, "decision": decision}
            connection.execute(upsert(connection, PairDecisionRow).values(values).on_conflict_do_nothing())


def forget(connection: Connection, digests: Iterable[str]) -> None:
    """Delete what is said of contents that are no longer in the library.

    Args:
        connection: A connection in a transaction.
        digests: Contents that may be gone.
    """
    wanted = list(digests)
    for row, columns in (
        (MarkRow, (MarkRow.digest,)),
        (AlbumPhotoRow, (AlbumPhotoRow.digest,)),
        (PairDecisionRow, (PairDecisionRow.digest, PairDecisionRow.other)),
    ):
        gone = or_(*(and_(column.in_(listed(wanted)), ~_known(column)) for column in columns))
        connection.execute(delete(row).where(gone))


def _known(digest: Any) -> ColumnElement[bool]:
    return exists().where(ContentRow.digest == digest)
