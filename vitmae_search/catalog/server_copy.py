"""Copy a catalogue's file into an empty database on a PostgreSQL server, row by row, ids included."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, insert, select
from sqlalchemy import Table as CoreTable

from vitmae_search.catalog.dialects import MAKE_DATABASE
from vitmae_search.catalog.schema import Table
from vitmae_search.errors import LibraryError

_ROWS_TOGETHER = 1000


def copy_rows(source: Connection, target: Connection, name: str) -> dict[str, int]:
    """Copy all tables; see `CatalogWriter.copy_to`.

    Args:
        source: A connection to the file, in a transaction.
        target: A connection to the server, in a transaction, to an empty catalogue.
        name: The database's name for messages.

    Returns:
        How many rows each table has.
    """
    tables = Table.metadata.sorted_tables  # those that others refer to come first
    filled = next((table for table in tables if target.execute(select(table.c[0]).limit(1)).first()), None)
    if filled is not None:
        raise LibraryError(f"{name} has a catalogue already. Name an empty database: {MAKE_DATABASE}")
    return {table.name: _copy_table(source, target, table) for table in tables}


def _copy_table(source: Connection, target: Connection, table: CoreTable) -> int:
    count = 0
    rows = source.execute(select(table).order_by(*table.primary_key.columns))
    for some in rows.mappings().partitions(_ROWS_TOGETHER):
        target.execute(insert(table), [dict(row) for row in some])
        count += len(some)
    numbered: Any = table.autoincrement_column
    if numbered is not None:
        # Ids of rows that were deleted are not used again, there either.
        given = source.exec_driver_sql(
            "SELECT seq FROM sqlite_sequence WHERE name = ?", (table.name,)
        ).scalar()
        last = max(int(given or 0), int(source.execute(select(func.max(numbered))).scalar() or 0))
        if last:
            sequence = func.pg_get_serial_sequence(table.name, numbered.name)
            target.execute(select(func.setval(sequence, last)))
    target.exec_driver_sql(f"ANALYZE {table.name}")  # without, the first queries read whole tables
    return count
