"""Changes of the application that a test makes in the process of a command.

`rollback_journal` makes it take any folder for a network drive. The others break what keeps a library whole,
to prove that the harness would notice.
"""

from __future__ import annotations


def rollback_journal() -> None:
    """Use the journal of network drives."""
    from vitmae_search.catalog import writable_sqlite

    writable_sqlite.on_network_drive = lambda folder: True


def commit_before_the_vectors() -> None:
    """Commit photo rows first, and their vectors in a second transaction."""
    from vitmae_search.catalog import record_batch

    add_vectors = record_batch._add_vectors

    def in_two_halves(connection, *arguments):
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return add_vectors(connection, *arguments)

    record_batch._add_vectors = in_two_halves


def rename_without_sync() -> None:
    """Rename files into place that are not yet on disk."""
    import os

    os.fsync = lambda handle: None


def no_identity() -> None:
    """Tell the revisions of a space apart by their number alone."""
    from vitmae_search.catalog import spaces

    spaces.secrets.token_hex = lambda size=16: "0" * 32


def reader_heals_nothing() -> None:
    """Leave it to writers to undo an unfinished change."""
    from vitmae_search.catalog import sqlite

    sqlite.undo_unfinished_change = lambda file: None


def approximate_search() -> None:
    """Build an approximate index for few vectors, too."""
    from vitmae_search.vectors import cache
    from vitmae_search.vectors.protocols import Policy

    cache.Policy = lambda: Policy(exact_seconds=0)
