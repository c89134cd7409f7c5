"""Open the database of a library's catalogue: the file in its folder, or the server that an address names."""

from __future__ import annotations

from pathlib import Path

from vitmae_search.catalog.database import Database, WritableDatabase
from vitmae_search.catalog.migrations import NEWEST, version_of
from vitmae_search.catalog.sqlite import SqliteDatabase, catalogue_file
from vitmae_search.catalog.writable_sqlite import WAIT_SECONDS, JobRowsDatabase, WritableSqliteDatabase
from vitmae_search.errors import LibraryBusy, LibraryEmpty, StorageError, display_path


def open_for_reading(folder: Path, address: str | None) -> Database:
    """Open a catalogue that is there; see `Catalog.open`.

    Args:
        folder: The library's folder.
        address: Of a PostgreSQL database; None is the file in the folder.
    """
    if address is not None:
        from vitmae_search.catalog.postgresql import PostgresqlDatabase  # not loaded for a file

        return PostgresqlDatabase.open(folder, address)
    if _needs_migration(folder):
        try:
            # Only the holder of the lock may change the file, its form included.
            WritableSqliteDatabase(folder).close()
        except LibraryBusy:
            # A writer does so before all else; then it may keep the lock for hours.
            if _needs_migration(folder):
                raise
    return SqliteDatabase(folder)


def database_name(address: str | None) -> str | None:
    """Return a PostgreSQL database's address for people, without a user and a password; None for a file.

    Args:
        address: The address; None is a file.
    """
    if address is None:
        return None
    from vitmae_search.catalog import postgresql

    return postgresql.database_name(postgresql.read_address(address))


def open_for_writing(folder: Path, address: str | None, wait: float = WAIT_SECONDS) -> WritableDatabase:
    """Open a catalogue, which is made or migrated if need be; see `CatalogWriter.open_writer`.

    Args:
        folder: The library's folder.
        address: Of a PostgreSQL database; None is the file in the folder.
        wait: Seconds to wait for another writer of the file.
    """
    if address is not None:
        from vitmae_search.catalog.postgresql import PostgresqlDatabase

        return PostgresqlDatabase.open(folder, address, make=True)
    return WritableSqliteDatabase(folder, wait)


def open_for_job_rows(folder: Path, address: str | None) -> WritableDatabase:
    """Open a catalogue that is there, to change rows of jobs; see `JobTable.open`.

    Args:
        folder: The library's folder.
        address: Of a PostgreSQL database; None is the file in the folder.
    """
    if address is not None:
        from vitmae_search.catalog.postgresql import PostgresqlDatabase

        return PostgresqlDatabase.open(folder, address)
    open_for_reading(folder, None).close()  # of the newest version
    return JobRowsDatabase(folder)


def _needs_migration(folder: Path) -> bool:
    try:
        catalogue_file(folder).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise LibraryEmpty(_nothing_in(folder)) from None
    except OSError as error:
        raise StorageError(f"{display_path(folder)} cannot be read: {error.strerror}.") from error
    database = SqliteDatabase(folder)
    try:
        with database.read_transaction() as connection:
            version = version_of(connection, database.name)
    finally:
        database.close()
    if version == 0:  # its first writer has not got that far
        raise LibraryEmpty(_nothing_in(folder))
    return version < NEWEST


def _nothing_in(folder: Path) -> str:
    return (
        f"{display_path(folder)} has no photos yet. Index a folder first: vitmae-search index FOLDER, or "
        "choose another library with --library."
    )
