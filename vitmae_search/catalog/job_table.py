"""`JobTable`: what running jobs and other processes tell each other while the library's lock is held."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vitmae_search.catalog import runs
from vitmae_search.catalog.database import WritableDatabase
from vitmae_search.catalog.databases import open_for_job_rows


class JobTable:
    """The table of jobs, opened by a process that need not hold the library's lock.

    Each change is of one row, and waits for others' only some seconds. Methods may be called from several
    threads.
    """

    def __init__(self, database: WritableDatabase) -> None:
        self._database = database

    @classmethod
    def open(cls, folder: Path, address: str | None = None) -> JobTable:
        """Open the table of a catalogue that is there.

        Args:
            folder: The library's folder.
            address: Of a PostgreSQL database; None is the file in the folder.

        Raises:
            LibraryError: As `Catalog.open`.
        """
        return cls(open_for_job_rows(Path(folder), address))

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def beat(self, key: str) -> None:
        """Record that a job is alive."""
        self._database.change(lambda connection: runs.update_run(connection, key))

    def update_run(self, key: str, progress: Mapping[str, Any]) -> None:
        """Record a job's progress, and that it is alive.

        Args:
            key: The job's key.
            progress: How far it is; JSON.
        """
        self._database.change(lambda connection: runs.update_run(connection, key, progress=dict(progress)))

    def request_cancel(self, key: str) -> None:
        """Ask a running job to end; nothing changes if it was asked before, or has ended."""
        self._database.change(lambda connection: runs.request_cancel(connection, key))

    def cancel_requested(self, key: str) -> bool:
        """Return whether somebody asked a job to end."""
        with self._database.read_transaction() as connection:
            return runs.cancel_requested(connection, key)
