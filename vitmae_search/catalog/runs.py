"""The table of jobs (`runs`): whether a job's process is still alive, and whether it is asked to end."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from vitmae_search.catalog.dialects import Now
from vitmae_search.catalog.machine import this_machine
from vitmae_search.catalog.schema import RunRow
from vitmae_search.errors import LibraryError, mask_credentials
from vitmae_search.records import JobRecord, JobState

STALE_AFTER = timedelta(minutes=2)
"""A job on another machine, whose processes cannot be seen from here, counts as interrupted after this time
without a heartbeat. Several heartbeats may fail meanwhile, as where the server is started anew."""

_CREATION_TOLERANCE_SECONDS = 2.0
"""Two readings of a process's creation time may differ by this much when the clock is adjusted."""


def list_latest(connection: Connection, limit: int) -> list[JobRecord]:
    """Return the latest jobs, newest first; see `Catalog.runs`.

    Args:
        connection: A connection in a transaction.
        limit: Most rows to return; None for all.
    """
    rows = connection.execute(select(*_COLUMNS).order_by(RunRow.run_id.desc()).limit(limit))
    return [_as_run(row) for row in rows]


def find(connection: Connection, key: str) -> JobRecord | None:
    """Return the job with this key, or None; see `Catalog.run`.

    Args:
        connection: A connection in a transaction.
        key: The job's key.
    """
    row = connection.execute(select(*_COLUMNS).where(RunRow.key == key)).one_or_none()
    return None if row is None else _as_run(row)


def start_run(connection: Connection, key: str, kind: str, arguments: Mapping[str, Any]) -> JobRecord:
    """Record that this process began a job; see `CatalogWriter.start_run`.

    Args:
        connection: A connection in a transaction.
        key: The job's key.
        kind: The job's kind, such as "index".
        arguments: What the job was started with; JSON. Credentials in it are masked.
    """
    import psutil  # imported here because searching does not need it and it takes a while

    if find(connection, key) is not None:
        raise LibraryError(f"There is a run {key} already.")
    now = datetime.now(UTC)
    values = {
        "key": key,
        "kind": kind,
        "arguments": {name: _masked(value) for name, value in arguments.items()},
        "state": "running",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_created": psutil.Process().create_time(),
        "machine": this_machine(),
        "started_at": now,
        "heartbeat_at": Now(),
        "progress": {},
    }
    connection.execute(insert(RunRow).values(values))
    made = find(connection, key)
    assert made is not None
    return made


def _masked(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return mask_credentials(value) if isinstance(value, str) else value


def update_run(connection: Connection, key: str, **values: Any) -> None:
    """Change a job's row and its heartbeat.

    Args:
        connection: A connection in a transaction.
        key: The job's key.
        values: Columns and their new values.

    Raises:
        LibraryError: There is no such job.
    """
    if isinstance(values.get("error"), str):
        values["error"] = mask_credentials(values["error"])
    statement = update(RunRow).where(RunRow.key == key)
    if connection.execute(statement.values(heartbeat_at=Now(), **values)).rowcount == 0:
        raise LibraryError(f"There is no run {key}.")


def request_cancel(connection: Connection, key: str) -> None:
    """Ask a running job to end; see `JobTable.request_cancel`.

    Args:
        connection: A connection in a transaction.
        key: The job's key.
    """
    running = RunRow.key == key, RunRow.state == "running", RunRow.cancel_requested_at.is_(None)
    connection.execute(update(RunRow).where(*running).values(cancel_requested_at=Now()))


def cancel_requested(connection: Connection, key: str) -> bool:
    """Return whether a job was asked to end; see `JobTable.cancel_requested`.

    Args:
        connection: A connection in a transaction.
        key: The job's key.
    """
    asked = select(RunRow.cancel_requested_at).where(RunRow.key == key)
    return connection.execute(asked).scalar() is not None


_COLUMNS = (*RunRow.__table__.columns, Now().label("now"))


def _as_run(row: Row[Any]) -> JobRecord:
    state: JobState = row.state
    return JobRecord(
        run_id=row.run_id,
        key=row.key,
        kind=row.kind,
        arguments=row.arguments,
        state="interrupted" if state == "running" and not _is_alive(row) else state,
        host=row.host,
        pid=row.pid,
        started_at=row.started_at,
        ended_at=row.ended_at,
        progress=row.progress,
        report=row.report,
        error=row.error,
        heartbeat_at=row.heartbeat_at,
        cancel_requested_at=row.cancel_requested_at,
    )


def _is_alive(row: Row[Any]) -> bool:
    import psutil  # as in `start_run`

    if not _is_here(row):
        return bool(row.now.replace(tzinfo=UTC) - row.heartbeat_at < STALE_AFTER)
    try:
        process = psutil.Process(row.pid)
        same = abs(process.create_time() - row.process_created) < _CREATION_TOLERANCE_SECONDS
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _is_here(row: Row[Any]) -> bool:
    """Whether the job's process can be seen from here. Earlier versions recorded the host's name only."""
    if row.machine is None:
        return bool(row.host == socket.gethostname())
    return bool(row.machine == this_machine())
