"""Tags: what classifiers say of contents. Each function takes a connection that is in a transaction."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, false, func, insert, select

from vitmae_search.catalog import attributes, photos
from vitmae_search.catalog.dialects import listed, upsert
from vitmae_search.catalog.photos import chunks, in_folder
from vitmae_search.catalog.schema import ClassifiedRow, ClassifierRow, ContentRow, PhotoRow, TagRow
from vitmae_search.records import Stamp, Tag

Tagged = tuple[int, Sequence[tuple[str, float]]]
"""A content id and its tags with their confidence, the most confident first; there may be none."""


@dataclass(frozen=True, slots=True)
class Taggable:
    """A content on disk, for a classifier: its digest in hex, and the files that have it, by path."""

    content_id: int
    digest: str
    files: tuple[Stamp, ...]


def ensure_classifier(connection: Connection, fingerprint: str, source: str, model: str) -> int:
    """Return the classifier with this fingerprint; see `CatalogWriter.ensure_classifier`.

    Args:
        connection: A connection in a transaction.
        fingerprint: The fingerprint, hex.
        source: Where the classifier came from: a path or a name.
        model: The model's name for people.
    """
    # SQLite stores valid text only, and a folder's name may be anything.
    values = {"source": source.encode("utf-8", "backslashreplace").decode("utf-8"), "model": model}
    statement = upsert(connection, ClassifierRow).values(fingerprint=fingerprint, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["fingerprint"], set_=values))
    made = select(ClassifierRow.classifier_id).where(ClassifierRow.fingerprint == fingerprint)
    return int(connection.execute(made).scalar_one())


def record(connection: Connection, classifier_id: int, batch: Sequence[Tagged]) -> None:
    """Record a classifier's tags; see `CatalogWriter.record_tags`.

    Args:
        connection: A connection in a transaction.
        classifier_id: The classifier.
        batch: Contents with their tags.
    """
    tags_by_content = dict(batch)
    _check(tags_by_content)
    there: list[int] = []
    for ids in chunks(tags_by_content):
        here = select(ContentRow.content_id).where(ContentRow.content_id.in_(ids))
        there += connection.execute(here).scalars()
        _delete_tags(connection, _of_same_source(classifier_id), ids)
    rows = [
        {
            "content_id": content_id,
            "classifier_id": classifier_id,
            "rank": rank,
            "tag": tag,
            "confidence": float(confidence),
        }
        for content_id in there
        for rank, (tag, confidence) in enumerate(tags_by_content[content_id], start=1)
    ]
    if there:
        seen = [{"content_id": number, "classifier_id": classifier_id} for number in there]
        connection.execute(insert(ClassifiedRow), seen)
    if rows:
        connection.execute(insert(TagRow), rows)
    attributes.changed(connection, there, {})


def of_content(connection: Connection, content_id: int) -> list[Tag]:
    """Return the tags of a content; see `Catalog.tags`.

    Args:
        connection: A connection in a transaction.
        content_id: The content.
    """
    statement = select(TagRow.tag, TagRow.confidence, ClassifierRow.model)
    statement = statement.join(ClassifierRow, ClassifierRow.classifier_id == TagRow.classifier_id)
    statement = statement.where(TagRow.content_id == content_id)
    rows = connection.execute(statement.order_by(TagRow.classifier_id, TagRow.rank))
    return [Tag(*row) for row in rows]


def counts(connection: Connection) -> dict[str, int]:
    """Return every tag and its number of photos; see `Catalog.tag_counts`."""
    found = Counter(_contents_by_tag(connection))
    for copies, contents in photos.copies_on_disk(connection).items():
        for tag, number in _contents_by_tag(connection, contents).items():
            found[tag] += (copies - 1) * number
    return dict(sorted(((tag, n) for tag, n in found.items() if n), key=lambda row: (-row[1], row[0])))


def _contents_by_tag(connection: Connection, among: Sequence[int] | None = None) -> dict[str, int]:
    """How many contents have each tag, whichever classifier says so."""
    one = connection.execute(select(func.count()).select_from(ClassifierRow)).scalar_one() == 1
    number = func.count() if one else func.count(TagRow.content_id.distinct())
    statement = select(TagRow.tag, number).group_by(TagRow.tag)
    if among is not None:
        statement = statement.where(TagRow.content_id.in_(listed(among, integers=True)))
    return {row[0]: int(row[1]) for row in connection.execute(statement)}


def taggable(connection: Connection, classifier_id: int, under: str | None, *, again: bool) -> list[Taggable]:
    """Return contents for a classifier; see `Catalog.taggable`.

    Args:
        connection: A connection in a transaction.
        classifier_id: The classifier.
        under: Only photos inside this folder, at any depth.
        again: Include contents that this classifier has seen.
    """
    columns = (PhotoRow.path, PhotoRow.size, PhotoRow.mtime_ns, PhotoRow.device)
    statement = select(PhotoRow.content_id, ContentRow.digest, *columns)
    statement = statement.join(ContentRow, ContentRow.content_id == PhotoRow.content_id)
    statement = statement.where(PhotoRow.missing == false())
    if under:
        statement = statement.where(in_folder(under))
    if not again:
        statement = statement.where(~_seen_by(classifier_id))
    return _grouped(connection, statement.order_by(PhotoRow.content_id, PhotoRow.path))


def count_tagged(connection: Connection, classifier_id: int, under: str | None) -> int:
    """Count contents that a classifier has seen; see `Catalog.count_classified`.

    Args:
        connection: A connection in a transaction.
        classifier_id: The classifier.
        under: Only photos inside this folder, at any depth.
    """
    statement = select(func.count(PhotoRow.content_id.distinct()))
    statement = statement.where(PhotoRow.missing == false(), _seen_by(classifier_id))
    if under:
        statement = statement.where(in_folder(under))
    return int(connection.execute(statement).scalar_one())


def _seen_by(classifier_id: int) -> ColumnElement[bool]:
    return exists().where(
        ClassifiedRow.content_id == PhotoRow.content_id, ClassifiedRow.classifier_id == classifier_id
    )


def _grouped(connection: Connection, statement: Any) -> list[Taggable]:
    found: dict[int, tuple[str, list[Stamp]]] = {}
    for content_id, digest, path, *stat in connection.execute(statement):
        found.setdefault(content_id, (digest, []))[1].append(Stamp(os.fsdecode(path), *stat))
    return [Taggable(number, digest, tuple(files)) for number, (digest, files) in found.items()]


def _of_same_source(classifier_id: int) -> Select[Any]:
    source = select(ClassifierRow.source).where(ClassifierRow.classifier_id == classifier_id)
    return select(ClassifierRow.classifier_id).where(ClassifierRow.source == source.scalar_subquery())


def _delete_tags(connection: Connection, classifiers: Select[Any], content_ids: Sequence[int]) -> None:
    for row in (TagRow, ClassifiedRow):
        of_classifiers = row.classifier_id.in_(classifiers)
        connection.execute(delete(row).where(row.content_id.in_(content_ids), of_classifiers))


def _check(tags_by_content: Mapping[int, Sequence[tuple[str, float]]]) -> None:
    for tags in tags_by_content.values():
        if len({tag for tag, _ in tags}) != len(tags):
            raise ValueError("a content has the same tag twice")
        if not all(tag and 0 <= confidence <= 1 for tag, confidence in tags):
            raise ValueError("a tag must be text, and its confidence from 0 to 1")
