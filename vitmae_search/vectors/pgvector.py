"""`PgVectorDatabase`: collections as tables of PostgreSQL with pgvector, each with an HNSW index.

All tables are in one schema, which can be dropped at any time. A table and its watermark change in the same
transaction. Vectors are stored in half precision.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from vitmae_search.errors import VectorIndexError, VectorStoreDenied, VectorStoreUnavailable
from vitmae_search.records import AttributeFilter, VectorAttributes
from vitmae_search.vectors.file import Origin
from vitmae_search.vectors.protocols import Ids, IsCancelled, Vectors
from vitmae_search.vectors.remote import (
    COMPARED,
    INDEXED,
    NOT_INDEXED,
    StoredVectors,
    Watermark,
    attributes_digest,
    unusable,
    without_secret,
)

log = logging.getLogger(__name__)

SCHEMA = "vitmae_search_vectors"

EXACT_BYTES = 24 << 20
"""So many bytes of vectors are compared in about 30 ms: fewer need no index."""

FILTERED_BYTES = 64 << 20
"""What a filter leaves is compared up to so many bytes: with 160 ms for 38 MB that is faster than the index,
which passes over what the filter leaves out, and it finds all."""

_HNSW_DIMENSIONS = 4000
"""pgvector's limit for half precision."""

_EF_SEARCH = 1000
"""How many candidates the index keeps in one pass, pgvector's most."""

_CANDIDATES, _FILTERED_CANDIDATES = 1500, 800
"""How many of the index's candidates are ordered by their distance, without and with a filter, in as many
passes as that takes."""

_MOST_SCANNED = 200_000
"""How many vectors the index looks at under a filter, before all that pass it are compared instead."""

_SCAN_MEMORY = 64
"""How many times `work_mem` further passes may use. With once, which is 4 MB, they ended after the first."""

_REBUILT_SHARE = 0.15
"""Adding more than this share to an index takes longer than to build it anew."""

_GRAPH_BYTES = 720
"""What building an HNSW index takes in memory for a vector beside its numbers; 700 were measured."""

_BUILD_KILOBYTES = 2 << 20
"""So much memory may be used for building, whatever the server's own setting is."""

_MAKE_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"
_DISK_FULL = "53100"
_EXTENSION_ADVICE = (
    "a superuser makes the extension once: psql --dbname={} --command='CREATE EXTENSION vector'"
)
_DENIED = ("42501", "25006")
"""This user lacks a right; the server can only be read."""

_READ_AT_ONCE = 4096
_NUMBERS = ", ".join(f"{name} float8 NOT NULL" for name in VectorAttributes.NUMBERS)
_COLUMNS = ("id", "vector", "words", *VectorAttributes.NUMBERS, "digest")
_COPY_HEADER, _COPY_END = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0), struct.pack(">h", -1)
_INT8_OID = 20


class PgVectorDatabase:
    """A `VectorDatabase` in PostgreSQL.

    Attributes:
        kind: "pgvector".
        address: Host, port and database.
    """

    kind = "pgvector"

    def __init__(self, address: str) -> None:
        """Prepare connections to a database; none is made yet.

        Args:
            address: `postgresql://user:password@host:port/database`, as SQLAlchemy reads it.

        Raises:
            VectorIndexError: The address cannot be read, or psycopg is not installed.
        """
        try:
            url = make_url(address).set(drivername="postgresql+psycopg")
            self._secrets = (url.password, *map(str, url.query.values()))
            shown = "/".join(filter(None, [f"{url.host or ''}:{url.port or 5432}", url.database]))
            self.address = f"postgresql://{shown}"
            self._engine = create_engine(
                url,
                pool_pre_ping=True,
                pool_size=8,
                hide_parameters=True,
                connect_args={"connect_timeout": 10, "application_name": "vitmae-search"},
            )
        except (ArgumentError, ValueError):  # its message may hold the address
            raise VectorIndexError(
                "the address of the vectors cannot be read; it has the form postgresql://user@host/database"
            ) from None
        except ImportError as error:
            raise VectorIndexError(
                "vectors in PostgreSQL need psycopg; run: pip install 'vitmae-search[postgresql]'"
            ) from error

    def watermark(self, name: str, *, newest: bool = False) -> Watermark | None:
        """Return what a collection has; None where there is none.

        Args:
            name: The collection.
            newest: Has no meaning here: it always is.
        """
        with self._transaction() as connection:
            return _watermark(connection, name)

    def require_usable(self) -> None:
        """Raise `VectorStoreUnavailable` where nothing could be stored, as without the extension."""
        with self._transaction() as connection, connection.begin_nested() as trial:
            connection.exec_driver_sql(_MAKE_EXTENSION)
            trial.rollback()

    @contextmanager
    def writing(self, name: str, *, wait: bool) -> Iterator[_TableWriting | None]:
        """Change a table in one transaction, under a lock.

        Args:
            name: The collection.
            wait: Whether to wait while another process changes it; else None is given then.
        """
        with self._transaction() as connection:
            lock = f"{SCHEMA}.{name}"
            if wait:
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock,))
            else:
                taken = connection.exec_driver_sql(
                    "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (lock,)
                ).scalar_one()
                if not taken:
                    yield None
                    return
            yield _TableWriting(connection, name)

    def nearest(self, name: str, query: Vectors, count: int, where: AttributeFilter) -> Ids:
        """Return ids of the `count` nearest that pass a filter, best first.

        The index is used for large collections, and where a filter leaves much of one, as PostgreSQL expects.
        It may find too few that pass; all that pass are then compared.

        Args:
            name: The collection.
            query: (D,) float32.
            count: How many.
            where: Which vectors.
        """
        condition, values = _condition(where)
        few = FILTERED_BYTES // (2 * len(query))
        with self._transaction() as connection:
            if not _exists(connection, name):
                return np.empty(0, np.int64)
            indexed = count <= few and _is_indexed(connection, name)
            if indexed and (not condition or _expected(connection, name, condition, values) > few):
                found = _nearest_by_index(connection, name, query, count, condition, values)
                if len(found) == count:
                    return found
            _set(connection, "enable_indexscan", "off")
            sql = f"SELECT id FROM {SCHEMA}.{name} {condition} ORDER BY vector <#> %s::halfvec LIMIT %s"
            return _ids(connection, sql, (*values, _text(query), count))

    def vectors(self, name: str, ids: Ids) -> tuple[Ids, Vectors]:
        """Return those of some ids that are stored, and their vectors.

        Args:
            name: The collection.
            ids: (N,) int64.
        """
        sql = f"SELECT id, vector::real[] FROM {SCHEMA}.{name} WHERE id = ANY(%s)"
        with self._transaction() as connection:
            rows = connection.exec_driver_sql(sql, (ids.tolist(),)).all() if _exists(connection, name) else []
        here = np.array([row[0] for row in rows], np.int64)
        return here, np.array([row[1] for row in rows], np.float32).reshape(len(rows), -1)

    def held(self, name: str, ids: Ids) -> Ids:
        """Return those of some ids that are stored.

        Args:
            name: The collection.
            ids: (N,) int64.
        """
        with self._transaction() as connection:
            if not _exists(connection, name):
                return ids[:0]
            sql = f"SELECT id FROM {SCHEMA}.{name} WHERE id = ANY(%s)"
            return _ids(connection, sql, (ids.tolist(),))

    def digests(self, name: str) -> Iterator[tuple[Ids, Ids]]:
        """Yield all ids, with the digests of their attributes, in the order of ids."""
        sql = f"SELECT id, digest FROM {SCHEMA}.{name} WHERE id > %s ORDER BY id LIMIT %s"
        last = -1
        while True:
            with self._transaction() as connection:
                known = _exists(connection, name)
                rows = connection.exec_driver_sql(sql, (last, _READ_AT_ONCE)).all() if known else []
            if not rows:
                return
            last = rows[-1][0]
            yield np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.int64)

    def build(self, name: str, cancelled: IsCancelled) -> None:
        """Build the HNSW index and those for filters, where the collection is large enough.

        Searches go on meanwhile; who adds vectors waits.

        Args:
            name: The collection.
            cancelled: Has no meaning here: the server builds at a stretch.
        """
        with self._transaction() as connection:
            held = _watermark(connection, name)
            if held is None or not is_worth_an_index(held) or _is_indexed(connection, name):
                return
            table = f"{SCHEMA}.{name}"
            connection.exec_driver_sql(f"CREATE INDEX ON {table} USING gin (words) WITH (fastupdate = off)")
            for column in ("first_moment", "last_moment", "most_bytes", "latitude"):
                connection.exec_driver_sql(f"CREATE INDEX ON {table} ({column})")
            _build_hnsw(connection, name, held)
            connection.exec_driver_sql(f"ANALYZE {table}")

    def index_text(self, name: str) -> str:
        """Say which index there is, in a phrase."""
        with self._transaction() as connection:
            if _is_indexed(connection, name):
                return INDEXED
            held = _watermark(connection, name)
        return NOT_INDEXED if held is not None and is_worth_an_index(held) else COMPARED

    def drop(self, name: str) -> None:
        """Delete a table and its watermark."""
        with self._transaction() as connection:
            if _is_prepared(connection):
                _drop_table(connection, name)
                connection.exec_driver_sql(f"DELETE FROM {SCHEMA}.watermarks WHERE name = %s", (name,))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise self._translated(error.orig or error) from None
        except Exception as error:  # psycopg's own errors in a COPY are not wrapped
            if type(error).__module__.startswith("psycopg"):
                raise self._translated(error) from None
            raise

    def _translated(self, error: BaseException) -> VectorStoreUnavailable:
        reason = without_secret(str(error), *self._secrets)
        if getattr(error, "sqlstate", None) not in _DENIED:
            return VectorStoreUnavailable(unusable(self.address, reason))
        of_extension = re.search(r"\bvector\b", reason)  # in any language; tables have other names
        database = self._engine.url.database or "DATABASE"
        advice = _EXTENSION_ADVICE.format(database) if of_extension else "their owner can GRANT it"
        return VectorStoreDenied(unusable(self.address, reason, advice))


class _TableWriting:
    """See `Writing`. All is one transaction, which ends with the context that gave it."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection, self._name = connection, name
        self._table = f"{SCHEMA}.{name}"

    def watermark(self) -> Watermark | None:
        """Return what the table has; None where there is none."""
        return _watermark(self._connection, self._name)

    def start_anew(self, dimension: int) -> None:
        """Make an empty table, in place of the one that there is."""
        run = self._connection.exec_driver_sql
        run(_MAKE_EXTENSION)
        run(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        run(
            f"CREATE TABLE IF NOT EXISTS {SCHEMA}.watermarks (name text PRIMARY KEY, key text NOT NULL, "
            "dimension int NOT NULL, revision bigint NOT NULL, identity text, vectors bigint NOT NULL)"
        )
        _drop_table(self._connection, self._name)
        run(
            f"CREATE TABLE {self._table} (id bigint PRIMARY KEY, vector halfvec({dimension}) NOT NULL, "
            f"words bigint[] NOT NULL, {_NUMBERS}, digest bigint NOT NULL)"
        )
        if dimension <= 3500:  # such a vector fits on a page: comparing needs no look into another table
            run(f"ALTER TABLE {self._table} ALTER COLUMN vector SET STORAGE PLAIN")

    def expect(self, count: int) -> None:
        """Drop the index before many more come; `build` makes it again.

        To add them to it one by one would take longer.
        """
        held = self.watermark()
        if held is not None and count > _REBUILT_SHARE * held.count:
            self._connection.exec_driver_sql(f"DROP INDEX IF EXISTS {self._table}_hnsw")

    def put(self, chunks: Iterable[StoredVectors]) -> None:
        """Add vectors, or replace those with the same ids. Into an empty table they go directly."""
        run = self._connection.exec_driver_sql
        empty = run(f"SELECT NOT EXISTS (SELECT 1 FROM {self._table})").scalar_one()
        if empty:
            self._copy(self._table, chunks)
            return
        run(f"CREATE TEMPORARY TABLE added (LIKE {self._table}) ON COMMIT DROP")
        self._copy("added", chunks)
        columns = ", ".join(_COLUMNS)
        replaced = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
        run(
            f"INSERT INTO {self._table} ({columns}) SELECT {columns} FROM added "
            f"ON CONFLICT (id) DO UPDATE SET {replaced}"
        )
        run("DROP TABLE added")

    def remove(self, ids: Ids) -> None:
        """Remove vectors; ids of none are passed over."""
        self._connection.exec_driver_sql(f"DELETE FROM {self._table} WHERE id = ANY(%s)", (ids.tolist(),))

    def finish(self, origin: Origin) -> None:
        """Set the watermark."""
        self._connection.exec_driver_sql(
            f"INSERT INTO {SCHEMA}.watermarks SELECT %s, %s, %s, %s, %s, count(*) FROM {self._table} "
            "ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, identity = excluded.identity, "
            "vectors = excluded.vectors",
            (self._name, origin.key, origin.dimension, origin.revision, origin.identity),
        )

    def _copy(self, table: str, chunks: Iterable[StoredVectors]) -> None:
        """Send rows in PostgreSQL's binary form."""
        driver: Any = self._connection.connection.driver_connection
        sql = f"COPY {table} ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT binary)"
        with driver.cursor() as cursor, cursor.copy(sql) as copy:
            copy.write(_COPY_HEADER)
            for chunk in chunks:
                copy.write(b"".join(_copy_rows(chunk)))
            copy.write(_COPY_END)


def is_worth_an_index(held: Watermark) -> bool:
    """Return whether comparing every vector takes long, and an HNSW index can be built."""
    size = 2 * held.count * held.origin.dimension
    return size > EXACT_BYTES and held.origin.dimension <= _HNSW_DIMENSIONS


def _expected(connection: Connection, name: str, condition: str, values: tuple[Any, ...]) -> int:
    """How many vectors the server expects to pass a filter. To count half a million takes 50 ms."""
    rows = f"SELECT 1 FROM {SCHEMA}.{name} {condition}"
    [plan] = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {rows}", values).scalar_one()
    expected: int = plan["Plan"]["Plan Rows"]
    return expected


def _nearest_by_index(
    connection: Connection, name: str, query: Vectors, count: int, condition: str, values: tuple[Any, ...]
) -> Ids:
    """Ids of the nearest that the HNSW index finds, best first; under a filter perhaps too few."""
    _set(connection, "hnsw.ef_search", _EF_SEARCH)
    _set(connection, "hnsw.iterative_scan", "relaxed_order")
    _set(connection, "hnsw.max_scan_tuples", _MOST_SCANNED)
    _set(connection, "hnsw.scan_mem_multiplier", _SCAN_MEMORY)
    _set(connection, "enable_seqscan", "off")
    _set(connection, "enable_bitmapscan", "off")
    wanted = max(count, _FILTERED_CANDIDATES if condition else _CANDIDATES)
    # "+ 0" is no order that the server believes to have already: else it takes the first `count` that come.
    sql = (
        f"WITH found AS MATERIALIZED (SELECT id, vector <#> %s::halfvec AS distance FROM {SCHEMA}.{name} "
        f"{condition} ORDER BY distance LIMIT %s) SELECT id FROM found ORDER BY distance + 0 LIMIT %s"
    )
    found = _ids(connection, sql, (_text(query), *values, wanted, count))
    _set(connection, "enable_seqscan", "on")
    _set(connection, "enable_bitmapscan", "on")
    return found


def building_bytes(count: int, dimension: int) -> int:
    """How much memory it takes to build an HNSW index. With less it takes several times as long.

    Args:
        count: Number of vectors.
        dimension: Numbers in each.
    """
    return count * (2 * dimension + _GRAPH_BYTES)


def _build_hnsw(connection: Connection, name: str, held: Watermark) -> None:
    sql = "SELECT setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem'"
    most = max(_BUILD_KILOBYTES, connection.exec_driver_sql(sql).scalar_one())
    wanted = (building_bytes(held.count, held.origin.dimension) >> 10) + (64 << 10)
    if wanted > most:
        log.warning(
            "An index of %s vectors is built in %s MB of memory, and PostgreSQL may use %s: it takes many "
            "times as long. If the server has more, set its maintenance_work_mem to '%sMB'.",
            *(f"{number:,}" for number in (held.count, wanted >> 10, most >> 10)),
            wanted >> 10,
        )
    _set(connection, "maintenance_work_mem", f"{min(wanted, most)}kB")
    sql = f"CREATE INDEX {name}_hnsw ON {SCHEMA}.{name} USING hnsw (vector halfvec_ip_ops)"
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(sql)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _DISK_FULL:
            raise
        # Several processes build in shared memory, of which a container has little; one needs none.
        _set(connection, "max_parallel_maintenance_workers", 0)
        connection.exec_driver_sql(sql)


def _copy_rows(chunk: StoredVectors) -> Iterator[bytes]:
    """The rows of a binary COPY: for each field its length and its bytes, the most significant first."""
    dimension = chunk.vectors.shape[1]
    halves = chunk.vectors.astype(">f2")
    head = struct.pack(">h", len(_COLUMNS))
    vector_head = struct.pack(">iHH", 4 + 2 * dimension, dimension, 0)
    for number, half, attributes in zip(chunk.ids.tolist(), halves, chunk.attributes, strict=True):
        yield head + struct.pack(">iq", 8, number) + vector_head + half.tobytes()
        yield _copy_array(attributes.words)
        yield struct.pack(">" + "id" * len(attributes.numbers), *_pairs(attributes.numbers))
        yield struct.pack(">iq", 8, attributes_digest(attributes))


def _copy_array(words: Sequence[int]) -> bytes:
    if not words:
        return struct.pack(">iiii", 12, 0, 0, _INT8_OID)
    head = struct.pack(">iiiiii", 20 + 12 * len(words), 1, 0, _INT8_OID, len(words), 1)
    return head + struct.pack(">" + "iq" * len(words), *_pairs(words))


def _pairs(values: Iterable[float]) -> Iterator[float]:
    for value in values:
        yield 8
        yield value


def _condition(where: AttributeFilter) -> tuple[str, tuple[Any, ...]]:
    parts = ["words && %s::bigint[]" for _ in where.any_of]
    parts += [f"{name} >= %s" for name, _ in where.at_least] + [f"{name} <= %s" for name, _ in where.at_most]
    values = [list(group) for group in where.any_of]
    numbers = [value for _, value in (*where.at_least, *where.at_most)]
    return ("WHERE " + " AND ".join(parts) if parts else ""), (*values, *numbers)


def _text(vector: Vectors) -> str:
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def _set(connection: Connection, name: str, value: object) -> None:
    connection.exec_driver_sql("SELECT set_config(%s, %s, true)", (name, str(value)))


def _ids(connection: Connection, sql: str, values: tuple[Any, ...]) -> Ids:
    return np.fromiter(connection.exec_driver_sql(sql, values).scalars(), np.int64)


def _exists(connection: Connection, table: str) -> bool:
    found = connection.exec_driver_sql("SELECT to_regclass(%s)::text", (f"{SCHEMA}.{table}",)).scalar_one()
    return found is not None


def _is_prepared(connection: Connection) -> bool:
    return _exists(connection, "watermarks")


def _is_indexed(connection: Connection, name: str) -> bool:
    return _exists(connection, f"{name}_hnsw")


def _drop_table(connection: Connection, name: str) -> None:
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {SCHEMA}.{name}")


def _watermark(connection: Connection, name: str) -> Watermark | None:
    if not _is_prepared(connection) or not _exists(connection, name):
        return None
    sql = f"SELECT key, dimension, revision, identity, vectors FROM {SCHEMA}.watermarks WHERE name = %s"
    row = connection.exec_driver_sql(sql, (name,)).one_or_none()
    return None if row is None else Watermark(Origin(*row[:4]), row[4])
