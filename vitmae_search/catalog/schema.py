"""The catalogue's tables, as classes of columns. `migrations` creates them; a test compares the two.

Rows are read and written with SQLAlchemy Core, without a session or objects: that is fast enough for
libraries of hundreds of thousands of photos.

Ids that leave the catalogue (in URLs and index files) are AUTOINCREMENT, because SQLite would otherwise use
the id of a deleted row again. `docs/library-format.md` describes every column.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import sqlalchemy
from sqlalchemy import (
    JSON,
    REAL,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from vitmae_search.catalog.dialects import PATH_DIGEST_SQL, PATH_KEY_SQL, POSTGRESQL

APPLICATION_ID = 0x56694D53
"""SQLite's `application_id` of a catalogue ("ViMS"); files of other programs are refused."""

_INT64 = 2**63

T = TypeVar("T")

_JSON = JSON(none_as_null=True)


class WideInteger(TypeDecorator[int]):
    """An integer of any size; SQLite stores one that does not fit into 64 bits as text.

    A file may have a date after the year 2262, whose nanoseconds overflow, and `st_dev` is unsigned.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the column.

        Args:
            dialect: SQLAlchemy's dialect.
        """
        return dialect.type_descriptor(Numeric() if dialect.name == POSTGRESQL else BigInteger())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """Convert an integer for the database.

        Args:
            value: The value.
            dialect: SQLAlchemy's dialect.
        """
        if dialect.name == POSTGRESQL:
            return value
        return value if value is None or -_INT64 <= value < _INT64 else f"n{value}"

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """Convert a value from the database.

        Args:
            value: The value.
            dialect: SQLAlchemy's dialect.
        """
        if dialect.name == POSTGRESQL:
            return None if value is None else int(value)
        return int(value[1:]) if isinstance(value, str) else value


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment, stored as UTC without its zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC without a zone.

        Args:
            value: The value.
            dialect: SQLAlchemy's dialect.
        """
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Attach the UTC zone.

        Args:
            value: The value.
            dialect: SQLAlchemy's dialect.
        """
        return None if value is None else value.replace(tzinfo=UTC)


_TYPES: dict[Any, TypeEngine[Any]] = {
    bool: Boolean(),
    bytes: LargeBinary(),
    datetime: DateTime(),
    # PostgreSQL's REAL and INTEGER have four bytes. SQLite's texts are in the order of their bytes.
    float: REAL().with_variant(Double(), POSTGRESQL),
    int: Integer().with_variant(BigInteger(), POSTGRESQL),
    str: String().with_variant(Text(collation="C"), POSTGRESQL),
}


class Field(Generic[T]):
    """A column in the annotations of a table; of the class it is SQLAlchemy's `Column`."""

    def __get__(self, instance: None, owner: type[Table]) -> Column[T]:
        """Say so to type checkers: the tables' own columns take its place.

        Args:
            instance: None, as there are no objects of tables.
            owner: The table.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class _Told:
    """What is said of a column beside its annotation."""

    kind: TypeEngine[Any] | None
    constraints: tuple[ForeignKey, ...]
    options: dict[str, Any]


def _column(kind: TypeEngine[Any] | None = None, *, refers: ForeignKey | None = None, **options: Any) -> Any:
    """A column of another type than the annotation has in `_TYPES`, or of which more is to be said.

    Args:
        kind: The type.
        refers: The column of another table that it refers to.
        **options: As of SQLAlchemy's `Column`.
    """
    return _Told(kind, () if refers is None else (refers,), options)


class _Declared(type):
    """Makes a SQLAlchemy table of a class, and columns of its annotations; one with None may be NULL.

    It is what SQLAlchemy's ORM would make, whose import takes a tenth of a second at each start.
    """

    metadata = MetaData()
    __table__: sqlalchemy.Table
    __tablename__: str

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        super().__init__(name, bases, namespace)
        if bases:
            columns = [_made(name, hint, namespace.get(name)) for name, hint in get_type_hints(cls).items()]
            told = namespace.get("__table_args__", ())
            items = [item for item in told if not isinstance(item, dict)]
            options = next((item for item in told if isinstance(item, dict)), {})
            cls.__table__ = sqlalchemy.Table(cls.__tablename__, cls.metadata, *columns, *items, **options)
            for column in columns:
                setattr(cls, column.name, column)

    def __clause_element__(cls) -> sqlalchemy.Table:
        """Return what SQLAlchemy takes in place of the class."""
        return cls.__table__


def _made(name: str, hint: Any, told: _Told | None) -> Column[Any]:
    (python,) = get_args(hint)
    choices = get_args(python) if isinstance(python, UnionType) else (python,)
    told = told or _Told(None, (), {})
    kind = _TYPES[choices[0]] if told.kind is None else told.kind
    return Column(name, kind, *told.constraints, nullable=NoneType in choices, **told.options)


class Table(metaclass=_Declared):
    """Base of all tables."""


def _where(condition: str, on_postgresql: str | None = None) -> dict[str, Any]:
    """The condition of a partial index.

    Args:
        condition: As SQLite writes it.
        on_postgresql: As PostgreSQL does, where that is different.
    """
    # As the argument `postgresql_where` it would load that dialect, which a file does not need.
    return {"sqlite_where": text(condition), "info": {"postgresql_where": on_postgresql or condition}}


def _unique_path(table: str, *others: str) -> tuple[UniqueConstraint | Index, ...]:
    """What makes the paths of a table unique, with others of its columns, and puts them in order.

    Args:
        table: The table.
        *others: The columns.
    """
    digest: list[Any] = [text(PATH_DIGEST_SQL), *others]
    return (
        UniqueConstraint("path", *others).ddl_if(dialect="sqlite"),
        Index(f"{table}_path", *digest, unique=True).ddl_if(dialect=POSTGRESQL),
        Index(f"{table}_path_order", text(PATH_KEY_SQL)).ddl_if(dialect=POSTGRESQL),
    )


class RootRow(Table):
    """A folder that was indexed."""

    __tablename__ = "roots"
    __table_args__ = (*_unique_path("roots"), {"sqlite_autoincrement": True})

    root_id: Field[int] = _column(primary_key=True)
    path: Field[bytes]
    device: Field[int | None] = _column(WideInteger())
    offline: Field[bool]


class ContentRow(Table):
    """A distinct digest, with what its pixels and tags say.

    `taken_at` is local time, without a zone, and `taken_from` the kind of tag that says so. `notes` are
    phrases about what could not be read. `metadata_revision` is that of the version which read all this, NULL
    before there was one.
    """

    __tablename__ = "contents"
    __table_args__ = (
        Index("contents_camera", "camera"),
        Index("contents_lens", "lens"),
        Index("contents_place", "latitude", "longitude", **_where("latitude IS NOT NULL")),
        {"sqlite_autoincrement": True},
    )

    content_id: Field[int] = _column(primary_key=True)
    digest: Field[str] = _column(unique=True)
    width: Field[int]
    height: Field[int]
    format: Field[str]
    taken_at: Field[datetime | None]
    camera: Field[str | None]
    latitude: Field[float | None]
    longitude: Field[float | None]
    taken_from: Field[str | None]
    notes: Field[list[str] | None] = _column(_JSON)
    lens: Field[str | None]
    metadata_revision: Field[int | None]


class PhotoRow(Table):
    """A photo, which is a file.

    Paths are bytes: names need not be UTF-8, and the paths inside a folder are a range. `moment` orders
    photos in time, in seconds since 1970: when it was taken, or else `named_at`, the date in the file's name,
    or else when the file was changed. All are local times, read as if they were UTC.
    """

    __tablename__ = "photos"
    __table_args__ = (
        *_unique_path("photos"),
        Index("photos_content", "content_id", "missing"),
        Index("photos_inode", "inode"),
        Index("photos_shown", "moment", **_where("missing = 0", "NOT missing")),
        Index("photos_size", "size", **_where("missing = 0", "NOT missing")),
        Index("photos_missing", "missing", "content_id", **_where("missing = 1", "missing")),
        {"sqlite_autoincrement": True},
    )

    photo_id: Field[int] = _column(primary_key=True)
    path: Field[bytes]
    size: Field[int] = _column(WideInteger())
    mtime_ns: Field[int] = _column(WideInteger())
    device: Field[int] = _column(WideInteger())
    content_id: Field[int] = _column(refers=ForeignKey("contents.content_id"))
    missing: Field[bool]
    moment: Field[float]
    named_at: Field[datetime | None]
    ctime_ns: Field[int | None] = _column(WideInteger())
    inode: Field[int | None] = _column(WideInteger())


class SpaceRow(Table):
    """An embedding space. `revision` rises with each transaction that changes its vectors.

    `vectors` is how many it has: to count millions takes a second, and each search asks for its space.

    A dropped space keeps its row and its tombstones: if the same fingerprint comes back, the revision
    continues, so that an old index file is not mistaken for a new one.

    A derived space has a parent, whose vectors are its features, and the digest of a projection.
    """

    __tablename__ = "spaces"
    __table_args__ = (
        Index("spaces_current", "current", unique=True, **_where("current")),
        {"sqlite_autoincrement": True},
    )

    space_id: Field[int] = _column(primary_key=True)
    fingerprint: Field[str] = _column(unique=True)
    plugin: Field[str]
    model: Field[str]
    dimension: Field[int]
    decode: Field[str]
    options: Field[dict[str, Any]] = _column(_JSON)
    identity: Field[dict[str, Any]] = _column(_JSON)
    provenance: Field[dict[str, Any]] = _column(_JSON)
    revision: Field[int]
    current: Field[bool]
    dropped: Field[bool]
    created_at: Field[datetime] = _column(UtcDateTime())
    parent_id: Field[int | None] = _column(refers=ForeignKey("spaces.space_id"))
    projection: Field[str | None]
    vectors: Field[int] = _column(server_default="0")


class RevisionRow(Table):
    """A revision of a space. `identity` is drawn at random, so no revision of another history has it.

    A catalogue that is put back from a backup counts on from the backup's revision, and would otherwise take
    an index file of the lost revisions for one of its own. `made_at` is NULL for those of before version 15.
    """

    __tablename__ = "revisions"
    __table_args__ = ({"sqlite_with_rowid": False},)

    space_id: Field[int] = _column(refers=ForeignKey("spaces.space_id"), primary_key=True)
    revision: Field[int] = _column(primary_key=True)
    identity: Field[str]
    made_at: Field[datetime | None] = _column(UtcDateTime())


class EmbeddingRow(Table):
    """The vector of a content in a space: little-endian float32, of unit length. Index files use its id."""

    __tablename__ = "embeddings"
    __table_args__ = (
        UniqueConstraint("content_id", "space_id"),
        Index("embeddings_revision", "space_id", "revision"),
        {"sqlite_autoincrement": True},
    )

    embedding_id: Field[int] = _column(primary_key=True)
    content_id: Field[int] = _column(refers=ForeignKey("contents.content_id"))
    space_id: Field[int] = _column(refers=ForeignKey("spaces.space_id"))
    revision: Field[int]
    vector: Field[bytes]


class TombstoneRow(Table):
    """An embedding that was deleted, and the revision of its space that deleted it."""

    __tablename__ = "tombstones"
    __table_args__ = (Index("tombstones_revision", "space_id", "revision"),)

    embedding_id: Field[int] = _column(primary_key=True, autoincrement=False)
    space_id: Field[int] = _column(refers=ForeignKey("spaces.space_id"))
    revision: Field[int]


class AttributeChangeRow(Table):
    """The last revision of its space at which what filters ask of a vector changed, without the vector.

    A photo was moved, copied or tagged, or more was read of it.
    """

    __tablename__ = "attribute_changes"
    __table_args__ = (Index("attribute_changes_revision", "space_id", "revision"),)

    embedding_id: Field[int] = _column(
        refers=ForeignKey("embeddings.embedding_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    space_id: Field[int] = _column(refers=ForeignKey("spaces.space_id"))
    revision: Field[int]


class FailureRow(Table):
    """A file that has no vector in one space, and why."""

    __tablename__ = "failures"
    __table_args__ = _unique_path("failures", "space_id")

    failure_id: Field[int] = _column(primary_key=True)
    path: Field[bytes]
    space_id: Field[int] = _column(refers=ForeignKey("spaces.space_id"))
    reason: Field[str]
    size: Field[int] = _column(WideInteger())
    mtime_ns: Field[int] = _column(WideInteger())
    ctime_ns: Field[int | None] = _column(WideInteger())
    tried_with: Field[str | None]


class ClassifierRow(Table):
    """A classifier that gave tags. `fingerprint` covers all that decides them; `source` is its origin.

    A classifier of the same source with another fingerprint (it was trained again, or gives more tags)
    replaces it photo by photo.
    """

    __tablename__ = "classifiers"
    __table_args__ = ({"sqlite_autoincrement": True},)

    classifier_id: Field[int] = _column(primary_key=True)
    fingerprint: Field[str] = _column(unique=True)
    source: Field[str]
    model: Field[str]


class ClassifiedRow(Table):
    """A content that a classifier has seen, whether or not it got a tag."""

    __tablename__ = "classified"
    __table_args__ = ({"sqlite_with_rowid": False},)

    content_id: Field[int] = _column(
        refers=ForeignKey("contents.content_id", ondelete="CASCADE"), primary_key=True
    )
    classifier_id: Field[int] = _column(refers=ForeignKey("classifiers.classifier_id"), primary_key=True)


class TagRow(Table):
    """A word for a content, and how sure the classifier is (0 to 1). `rank` 1 is its surest."""

    __tablename__ = "tags"
    __table_args__ = (Index("tags_tag", "tag", "confidence", "content_id"), {"sqlite_with_rowid": False})

    content_id: Field[int] = _column(
        refers=ForeignKey("contents.content_id", ondelete="CASCADE"), primary_key=True
    )
    classifier_id: Field[int] = _column(refers=ForeignKey("classifiers.classifier_id"), primary_key=True)
    rank: Field[int] = _column(primary_key=True)
    tag: Field[str]
    confidence: Field[float]


class MarkRow(Table):
    """What a person says of a content. A content without a row is no favourite, without a rating, not kept.

    Marks, albums and decisions name contents by their digests, so that nothing which deletes a content and
    makes it again (a prune, a repair, a file that could not be read for a while) loses them.
    """

    __tablename__ = "marks"
    __table_args__ = ({"sqlite_with_rowid": False},)

    digest: Field[str] = _column(primary_key=True)
    favourite: Field[bool]
    rating: Field[int]
    keep: Field[bool]


class AlbumRow(Table):
    """A named set of contents, which may be empty."""

    __tablename__ = "albums"
    __table_args__ = ({"sqlite_with_rowid": False},)

    name: Field[str] = _column(primary_key=True)


class AlbumPhotoRow(Table):
    """A content in an album."""

    __tablename__ = "album_photos"
    __table_args__ = (Index("album_photos_digest", "digest"), {"sqlite_with_rowid": False})

    album: Field[str] = _column(
        refers=ForeignKey("albums.name", ondelete="CASCADE", onupdate="CASCADE"), primary_key=True
    )
    digest: Field[str] = _column(primary_key=True)


class SavedSearchRow(Table):
    """A query with its filters, under a name."""

    __tablename__ = "saved_searches"
    __table_args__ = ({"sqlite_with_rowid": False},)

    name: Field[str] = _column(primary_key=True)
    query: Field[dict[str, Any]] = _column(_JSON)


class PairDecisionRow(Table):
    """What a person decided of two contents that look alike: "different" or "ignored". `digest` < `other`."""

    __tablename__ = "pair_decisions"
    __table_args__ = (Index("pair_decisions_other", "other"), {"sqlite_with_rowid": False})

    digest: Field[str] = _column(primary_key=True)
    other: Field[str] = _column(primary_key=True)
    decision: Field[str]


class ChangeRow(Table):
    """A change to the tables above that can be undone: what it changed, as it was before."""

    __tablename__ = "changes"
    __table_args__ = ({"sqlite_autoincrement": True},)

    change_id: Field[int] = _column(primary_key=True)
    text: Field[str]
    before: Field[list[dict[str, Any]]] = _column(_JSON)


class RunRow(Table):
    """A long job. Its process is identified by id and creation time, because ids are used again."""

    __tablename__ = "runs"
    __table_args__ = ({"sqlite_autoincrement": True},)

    run_id: Field[int] = _column(primary_key=True)
    key: Field[str] = _column(unique=True)
    kind: Field[str]
    arguments: Field[dict[str, Any]] = _column(_JSON)
    state: Field[str]
    host: Field[str]
    pid: Field[int]
    process_created: Field[float]
    started_at: Field[datetime] = _column(UtcDateTime())
    heartbeat_at: Field[datetime] = _column(UtcDateTime())
    ended_at: Field[datetime | None] = _column(UtcDateTime())
    progress: Field[dict[str, Any]] = _column(_JSON)
    report: Field[dict[str, Any] | None] = _column(_JSON)
    error: Field[str | None]
    machine: Field[str | None]
    cancel_requested_at: Field[datetime | None] = _column(UtcDateTime())


class LeaseRow(Table):
    """A run that claims files, and until when its claims hold unless it renews them. PostgreSQL's alone."""

    __tablename__ = "leases"
    __table_args__ = ({"sqlite_with_rowid": False},)

    holder: Field[str] = _column(primary_key=True)
    ends_at: Field[datetime] = _column(UtcDateTime())


class ClaimRow(Table):
    """A file that a run is about to read for a space: other runs leave it alone. PostgreSQL's alone."""

    __tablename__ = "claims"
    __table_args__ = (Index("claims_holder", "holder"), {"sqlite_with_rowid": False})

    space_id: Field[int] = _column(primary_key=True, autoincrement=False)
    path_digest: Field[bytes] = _column(primary_key=True)
    holder: Field[str] = _column(refers=ForeignKey("leases.holder", ondelete="CASCADE"))


class SharedValueRow(Table):
    """A small file that all processes with a catalogue on a server need; unused where it is a file."""

    __tablename__ = "shared_values"

    name: Field[str] = _column(primary_key=True)
    label: Field[str]
    value: Field[bytes]
    made_at: Field[datetime] = _column(UtcDateTime())
