"""The catalogue of a large library: how long its key queries take, and which of them read whole tables.

    python -m benchmarks.large_catalogue FOLDER [--catalog postgresql://...] [--photos 5000000]

Fills a catalogue with photos that have no files: each with a content and a vector of 16 numbers (not of 256,
so that it fits on the disk), half of them with a tag. A filled one is used again. Then every query is sent
once to warm up and five times for its median, and its plans are the database's own: a table of many rows is
read whole where SQLite says SCAN and PostgreSQL says Seq Scan, and there is no LIMIT that ends it early.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from sqlalchemy import Connection, event, text

from benchmarks.timing import describe_machine, format_figure, markdown_table
from vitmae_search.catalog import Catalog, CatalogWriter, Indexed
from vitmae_search.records import METADATA_REVISION, PhotoMetadata, PhotoOrder, SearchFilter, Stamp

DIMENSION = 16
ROUNDS = 5
PHOTOS_PER_REVISION = 1000
BIG_TABLES = ("photos", "contents", "embeddings", "tags")
FIRST_MOMENT = 1_262_304_000  # 2010
SECONDS_BETWEEN = 60
EVERYTHING = SearchFilter()
EARLY = datetime(2010, 1, 1) + timedelta(days=3)

_VECTOR = np.full(DIMENSION, DIMENSION**-0.5, np.float32).tobytes().hex()

_SAME = {
    "width": "500 + {n} % 7",
    "height": "375",
    "format": "CASE {n} % 10 WHEN 0 THEN 'PNG' ELSE 'JPEG' END",
    "camera": "CASE {n} % 100 WHEN 0 THEN 'Rare Camera' ELSE 'Camera ' || ({n} % 3) END",
    "latitude": "CASE {n} % 3 WHEN 0 THEN {n} % 170 - 85 END",
    "longitude": "CASE {n} % 3 WHEN 0 THEN {n} % 359 - 179 END",
    "moment": f"{FIRST_MOMENT} + {{n}} * {SECONDS_BETWEEN}.0",
    "revision": f"({{n}} - 1) / {PHOTOS_PER_REVISION} + 1",
}

_SQLITE = _SAME | {
    "numbers": "WITH RECURSIVE numbers(n) AS"
    " (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})",
    "from": "numbers",
    "digest": "printf('%08x%056d', {n} * 2654435761 % 4294967296, {n})",
    "path": "CAST(printf('/photos/%03d/%05d/IMG_%07d.jpg', {n} / 100000, {n} / 1000, {n}) AS BLOB)",
    "taken_at": f"strftime('%Y-%m-%d %H:%M:%f000', {FIRST_MOMENT} + {{n}} * {SECONDS_BETWEEN}, 'unixepoch')",
    "vector": f"x'{_VECTOR}'",
    "no": "0",
}

_POSTGRESQL = _SAME | {
    "numbers": "",
    "from": "generate_series(1, {count}) AS numbers(n)",
    "digest": "lpad(to_hex({n}::bigint * 2654435761 % 4294967296), 8, '0') || lpad({n}::text, 56, '0')",
    "path": "convert_to('/photos/' || lpad(({n} / 100000)::text, 3, '0') || '/' ||"
    " lpad(({n} / 1000)::text, 5, '0') || '/IMG_' || lpad({n}::text, 7, '0') || '.jpg', 'UTF8')",
    "taken_at": f"to_timestamp({FIRST_MOMENT} + {{n}} * {SECONDS_BETWEEN}) AT TIME ZONE 'UTC'",
    "vector": f"decode('{_VECTOR}', 'hex')",
    "no": "false",
}

_TABLES = {
    "contents (content_id, digest, width, height, format, taken_at, camera, latitude, longitude, taken_from,"
    " metadata_revision)": "{n}, {digest}, {width}, {height}, {format}, {taken_at}, {camera}, {latitude},"
    f" {{longitude}}, 'exif', {METADATA_REVISION}",
    "photos (photo_id, path, size, mtime_ns, device, content_id, missing, moment, ctime_ns, inode)": "{n},"
    " {path}, 100000 + {n} % 9999, 1000000000, 7, {n}, {no}, {moment}, 1000000000, {n}",
    "embeddings (embedding_id, content_id, space_id, revision, vector)": "{n}, {n}, 1, {revision}, {vector}",
}

Query = Callable[[Catalog], object]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--catalog", "address", help="A PostgreSQL database. [default: a file in FOLDER]")
@click.option("--photos", "count", default=5_000_000, show_default=True)
def main(folder: Path, address: str | None, count: int) -> None:
    """Fill a catalogue in FOLDER, and measure its queries."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    fill(folder, address, count)
    print(f"filled in {time.perf_counter() - start:.0f} s")
    rows = []
    with Catalog.open(folder, address) as catalog:
        for name, query in queries(count).items():
            rows.append(measure(catalog, name, query))
            print("   ", *rows[-1], flush=True)
    with CatalogWriter.open_writer(folder, address) as writer:
        rows += [measure(writer, name, query) for name, query in changes().items()]
    kind = "a file" if address is None else address.split(":")[0]
    print(f"{count:,} photos in {kind}, {describe_machine('sqlalchemy', 'psycopg')}")
    print(markdown_table(["query", "p50, ms", "first, ms", "tables read whole"], rows))


def fill(folder: Path, address: str | None, count: int) -> None:
    """Record photos by the database's own means, unless it has them.

    Args:
        folder: The library's folder.
        address: Of a PostgreSQL database; None is a file in the folder.
        count: How many photos.
    """
    with CatalogWriter.open_writer(folder, address) as writer:
        writer.add_root("/photos", device=7)
        writer.ensure_space(
            fingerprint="0" * 64,
            plugin="benchmark",
            model="benchmark",
            dimension=DIMENSION,
            decode="full",
            options={},
            identity={},
            provenance={},
        )
        if writer.count_photos(missing=None):
            return
        with writer._transaction() as connection:
            _insert(connection, _SQLITE if address is None else _POSTGRESQL, count)
        if address is not None:  # the server's autovacuum does it some minutes later
            engine = writer._database._engine.execution_options(isolation_level="AUTOCOMMIT")  # type: ignore[attr-defined]
            with engine.connect() as connection:
                for table in BIG_TABLES:
                    connection.execute(text(f"VACUUM ANALYZE {table}"))


def _insert(connection: Connection, dialect: dict[str, str], count: int) -> None:
    terms = {name: term.format(n="n", count=count) for name, term in dialect.items()}
    for table, values in _TABLES.items():
        _insert_into(connection, terms, table, values.format(n="n", **terms))
    connection.execute(text("INSERT INTO classifiers VALUES (1, 'f', 'benchmark', 'benchmark')"))
    columns = "tags (content_id, classifier_id, rank, tag, confidence)"
    _insert_into(connection, terms, columns, "n, 1, 1, 'word ' || (n % 50), 0.5", "n % 2 = 0")
    last = (count - 1) // PHOTOS_PER_REVISION + 1
    identity = "1, n, CAST(n AS TEXT)"
    _insert_into(connection, terms, "revisions (space_id, revision, identity)", identity, f"n <= {last}")
    connection.execute(text(f"UPDATE spaces SET revision = {last}, vectors = {count}"))
    if connection.dialect.name == "postgresql":
        for table in ("content", "photo", "embedding"):
            sequence = f"pg_get_serial_sequence('{table}s', '{table}_id')"
            connection.execute(text(f"SELECT setval({sequence}, {count})"))


def _insert_into(
    connection: Connection, terms: dict[str, str], table: str, values: str, where: str = "n > 0"
) -> None:
    start = time.perf_counter()
    rows = f"{terms['numbers']} SELECT {values} FROM {terms['from']} WHERE {where}"
    connection.execute(text(f"INSERT INTO {table} {rows}"))
    print(f"    {table.split()[0]} in {time.perf_counter() - start:.0f} s", flush=True)


def queries(count: int) -> dict[str, Query]:
    """The queries of the pages, of searches, of `index`, and of vector indexes that follow.

    Args:
        count: How many photos there are.
    """
    middle = count // 2
    some = np.arange(middle, middle + 40)
    rare = SearchFilter(camera="rare")
    folder = SearchFilter(under=f"/photos/{middle // 100_000:03}/{middle // 1000:05}")
    folders = [f"/photos/000/{number:05}" for number in range(3)]
    tag, days = SearchFilter(tag="word 4"), SearchFilter(before=EARLY)
    return {
        "browse, newest first": _browse(),
        "browse, oldest first": _browse(order="oldest"),
        "browse, name first": _browse(order="name"),
        "browse, largest first": _browse(order="largest"),
        "browse, after the middle": _browse(after=middle),
        "browse, a folder": _browse(folder),
        "browse, a camera of 1 %": _browse(rare),
        "browse, a tag of 2 %": _browse(tag),
        "browse, three days": _browse(days),
        "a photo by its id": lambda catalog: catalog.photo(middle),
        "copies of a photo": lambda catalog: catalog.copies(middle),
        "40 hits: photos": lambda catalog: catalog.photos_of(some),
        "40 hits: vectors": lambda catalog: catalog.vectors(1, some),
        "40 hits: which pass a filter": lambda catalog: catalog.searchable_among(1, rare, some),
        "ids of a folder of 1,000": lambda catalog: catalog.searchable_ids(1, folder),
        "ids of a camera of 1 %": lambda catalog: catalog.searchable_ids(1, rare),
        "rows of three folders of 1,000": lambda catalog: [list(catalog.known_files(f, 1)) for f in folders],
        "100 files by inode": lambda catalog: catalog.photos_by_inode(range(middle, middle + 100)),
        "a batch's digests": lambda catalog: catalog.contents([f"{n:064}" for n in range(64)], 1),
        "failures of a folder": lambda catalog: catalog.failures(1, "/photos/001"),
        "photos without a file": lambda catalog: catalog.hidden_ids(1),
        "vectors since the last revision": lambda catalog: _follow(catalog, count // PHOTOS_PER_REVISION - 1),
        "first 4,096 vectors of all": lambda catalog: _follow(catalog, 0),
        "tags of a photo": lambda catalog: catalog.tags(middle),
        "is there any tag": lambda catalog: catalog.has_any("tag"),
        "jobs": lambda catalog: catalog.runs(),
        "count: all": lambda catalog: catalog.count_photos(),
        "count: a camera of 1 %": lambda catalog: catalog.count_photos(rare),
        "count: by folder": lambda catalog: catalog.count_by("folder"),
        "count: by month": lambda catalog: catalog.count_by("month"),
        "count: by format": lambda catalog: catalog.count_by("format"),
        "count: by tag": lambda catalog: catalog.tag_counts(),
        "status": lambda catalog: catalog.status(),
    }


def _browse(
    where: SearchFilter = EVERYTHING, order: PhotoOrder = "newest", after: int | None = None
) -> Query:
    return lambda catalog: catalog.browse(where, order, after=after, limit=120)


def changes() -> dict[str, Query]:
    """What writers do."""

    def record(catalog: Catalog) -> None:
        assert isinstance(catalog, CatalogWriter)
        now = time.time_ns()
        vector = np.frombuffer(bytes.fromhex(_VECTOR), np.float32)
        metadata = PhotoMetadata(40, 30, "JPEG", None, None)
        stamps = [Stamp(f"/photos/new/{now}-{n}.jpg", 1, now, device=7) for n in range(64)]
        batch = [Indexed(stamp, f"{now:032x}{n:032}", metadata, vector) for n, stamp in enumerate(stamps)]
        catalog.record_batch(1, batch)

    def mark(catalog: Catalog) -> None:
        assert isinstance(catalog, CatalogWriter)
        catalog.mark([7], {"favourite": True}, "a favourite")

    return {"record 64 new photos": record, "mark a favourite": mark}


def _follow(catalog: Catalog, revision: int) -> object:
    return list(islice(catalog.vector_source(1).added_since(revision), 1))


def measure(catalog: Catalog, name: str, query: Query) -> list[str]:
    """A row of the table: the median in milliseconds, the first time, and the tables that are read whole.

    Args:
        catalog: The catalogue, opened.
        name: What the query is called.
        query: Calls the catalogue's methods.
    """
    with _statements(catalog) as sent:
        first = _seconds(catalog, query)
    plans = list(_plans(catalog, sent))
    taken = statistics.median(_seconds(catalog, query) for _ in range(ROUNDS))
    whole = sorted({table for plan in plans for table in _read_whole(plan)})
    return [name, format_figure(1000 * taken), format_figure(1000 * first), ", ".join(whole) or "none"]


def _seconds(catalog: Catalog, query: Query) -> float:
    cache = getattr(catalog._database, "_cache", None)
    if cache is not None:
        cache.entries.clear()
    start = time.perf_counter()
    query(catalog)
    return time.perf_counter() - start


@contextmanager
def _statements(catalog: Catalog) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are sent meanwhile, with their values."""
    sent: list[tuple[str, Any]] = []

    def note(connection: Connection, cursor: object, statement: str, values: Any, *rest: object) -> None:
        if re.match(r"\s*(SELECT|WITH)\b", statement):
            sent.append((statement, values))

    engine = catalog._database._engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _plans(catalog: Catalog, sent: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Each statement with the lines of its plan."""
    with catalog._database.read_transaction() as connection:
        sqlite = connection.dialect.name == "sqlite"
        for statement, values in {repr(pair): pair for pair in sent}.values():
            explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
            rows = connection.exec_driver_sql(f"{explain} {statement}", values)
            yield statement, [str(row[-1]) for row in rows]


def _read_whole(plan: tuple[str, list[str]]) -> Iterator[str]:
    statement, lines = plan
    names = "|".join(BIG_TABLES)
    for line in lines:
        found = re.search(rf"(?:^SCAN|Seq Scan on) ({names})\b(.*)", line)
        if found and not ("INDEX" in found[2] and "LIMIT" in statement):
            yield found[1] + (" (index)" if "INDEX" in found[2] else "")


if __name__ == "__main__":
    main()
