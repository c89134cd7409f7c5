"""Saved searches: a query with its filters, under a name. Its photos are named by their digests.

Each function takes a connection that is in a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, select

from vitmae_search.catalog import undo
from vitmae_search.catalog.dialects import listed, upsert
from vitmae_search.catalog.schema import ContentRow, PhotoRow, SavedSearchRow
from vitmae_search.errors import LibraryError, display_path
from vitmae_search.records import GeoBox, GeoCircle, SavedSearch, SearchFilter

_DATES = ("after", "before")
_PLACES: dict[str, type[GeoBox] | type[GeoCircle]] = {"box": GeoBox, "near": GeoCircle}


def save(connection: Connection, search: SavedSearch) -> None:
    """Save a search in place of another one of its name; see `CatalogWriter.save_search`.

    Args:
        connection: A connection in a transaction.
        search: The search.
    """
    query = {
        "more": _to_digests(connection, search.more),
        "less": _to_digests(connection, search.less),
        "where": _filter_json(search.where),
        "min_score": search.min_score,
        **({"words": search.words} if search.words else {}),
    }
    before = undo.snapshot(connection, SavedSearchRow, name=[search.name])
    undo.record(connection, f"the search {display_path(search.name)} saved", [before])
    statement = upsert(connection, SavedSearchRow).values(name=search.name, query=query)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"query": query}))


def remove(connection: Connection, name: str) -> None:
    """Delete a saved search; see `CatalogWriter.delete_search`.

    Args:
        connection: A connection in a transaction.
        name: Its name.
    """
    before = undo.snapshot(connection, SavedSearchRow, name=[name])
    if not before["rows"]:
        raise LibraryError(f"there is no saved search {display_path(name)!r}")
    undo.record(connection, f"the search {display_path(name)} deleted", [before])
    connection.execute(delete(SavedSearchRow).where(SavedSearchRow.name == name))


def list_all(connection: Connection) -> list[SavedSearch]:
    """Return the saved searches, A to Z."""
    statement = select(SavedSearchRow.name, SavedSearchRow.query).order_by(SavedSearchRow.name)
    return [
        SavedSearch(
            row.name,
            _to_photos(connection, row.query["more"]),
            _to_photos(connection, row.query["less"]),
            _filter(row.query["where"]),
            row.query["min_score"],
            tuple((str(text), float(weight)) for text, weight in row.query.get("words", ())),
        )
        for row in connection.execute(statement).all()
    ]


def _to_digests(connection: Connection, photos: Iterable[tuple[int, float]]) -> list[tuple[str, float]]:
    weights = dict(photos)
    statement = select(PhotoRow.photo_id, ContentRow.digest)
    statement = statement.join(ContentRow, ContentRow.content_id == PhotoRow.content_id)
    rows = connection.execute(statement.where(PhotoRow.photo_id.in_(listed(weights, integers=True))))
    return [(digest, weights[photo_id]) for photo_id, digest in rows]


def _to_photos(connection: Connection, digests: Sequence[tuple[str, float]]) -> tuple[tuple[int, float], ...]:
    """One photo of each content that still has one, preferably one on disk."""
    statement = select(ContentRow.digest, PhotoRow.photo_id)
    statement = statement.join(PhotoRow, PhotoRow.content_id == ContentRow.content_id)
    statement = statement.where(ContentRow.digest.in_(listed(digest for digest, _ in digests)))
    last_on_disk = statement.order_by(PhotoRow.missing.desc(), PhotoRow.path.desc())
    found = {row.digest: row.photo_id for row in connection.execute(last_on_disk)}
    return tuple((found[digest], weight) for digest, weight in digests if digest in found)


def _filter_json(where: SearchFilter) -> dict[str, Any]:
    """The fields that are not at their default."""
    values = {name: value for name, value in asdict(where).items() if value != getattr(SearchFilter(), name)}
    if where.photo_ids is not None:
        values["photo_ids"] = sorted(where.photo_ids)
    return {name: value.isoformat() if name in _DATES else value for name, value in values.items()}


def _filter(values: dict[str, Any]) -> SearchFilter:
    """The filter; fields that this version does not know are left out."""
    names = {field.name for field in fields(SearchFilter)}
    known: dict[str, Any] = {name: value for name, value in values.items() if name in names}
    known |= {name: datetime.fromisoformat(known[name]) for name in _DATES if name in known}
    if known.get("photo_ids") is not None:
        known["photo_ids"] = frozenset(known["photo_ids"])
    known |= {name: kind(**known[name]) for name, kind in _PLACES.items() if name in known}
    return SearchFilter(**known)
