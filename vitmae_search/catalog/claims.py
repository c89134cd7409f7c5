"""Which run reads which file, where several runs write to one catalogue at once: on PostgreSQL.

A run claims a file before it reads it, and releases it once it is recorded. Its claims hold as long as its
lease, which it renews; the claims of a process that ended are over with its lease. Times are the server's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import Connection, Interval, delete, literal

from vitmae_search.catalog.dialects import Now, upsert
from vitmae_search.catalog.photos import chunks
from vitmae_search.catalog.schema import ClaimRow, LeaseRow


def claim(
    connection: Connection, holder: str, space_id: int, paths: Iterable[str], lease: timedelta
) -> set[str]:
    """Claim files for a run; see `CatalogWriter.claim`.

    Args:
        connection: A connection in a transaction.
        holder: The run.
        space_id: The space that they are read for.
        paths: The files.
        lease: How long the run's claims hold from now on.
    """
    renew(connection, holder, lease)
    connection.execute(delete(LeaseRow).where(LeaseRow.ends_at < Now()))
    by_digest = {_digest(path): path for path in paths}
    claimed: set[str] = set()
    for some in chunks(sorted(by_digest)):  # sorted, as two runs that claim the same ones wait for each other
        rows = [{"space_id": space_id, "path_digest": digest, "holder": holder} for digest in some]
        statement = upsert(connection, ClaimRow).values(rows)
        # Its own are claimed again.
        statement = statement.on_conflict_do_update(
            index_elements=["space_id", "path_digest"],
            set_={"holder": statement.excluded.holder},
            where=ClaimRow.holder == statement.excluded.holder,
        ).returning(ClaimRow.path_digest)
        claimed |= {by_digest[bytes(digest)] for digest in connection.execute(statement).scalars()}
    return claimed


def renew(connection: Connection, holder: str, lease: timedelta) -> None:
    """Let a run's claims hold for longer; see `CatalogWriter.renew_claims`.

    Args:
        connection: A connection in a transaction.
        holder: The run.
        lease: How long from now on.
    """
    ends_at = Now() + literal(lease, Interval())
    statement = upsert(connection, LeaseRow).values(holder=holder, ends_at=ends_at)
    connection.execute(statement.on_conflict_do_update(index_elements=["holder"], set_={"ends_at": ends_at}))


def release(connection: Connection, holder: str, space_id: int, paths: Iterable[str]) -> None:
    """Give up claims; see `CatalogWriter.release_claims`.

    Args:
        connection: A connection in a transaction.
        holder: The run.
        space_id: The space that the files were read for.
        paths: The files.
    """
    for some in chunks(sorted(map(_digest, paths))):
        own = ClaimRow.holder == holder, ClaimRow.space_id == space_id
        connection.execute(delete(ClaimRow).where(*own, ClaimRow.path_digest.in_(some)))


def release_all(connection: Connection, holder: str) -> None:
    """Give up all claims of a run, which has ended.

    Args:
        connection: A connection in a transaction.
        holder: The run.
    """
    connection.execute(delete(LeaseRow).where(LeaseRow.holder == holder))


def _digest(path: str) -> bytes:
    return hashlib.sha256(os.fsencode(path)).digest()
