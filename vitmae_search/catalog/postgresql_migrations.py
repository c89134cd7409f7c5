"""The steps that bring a catalogue on PostgreSQL from one version of its tables to the next.

Versions are numbered as those of the file (`migrations.py`): the same number is the same tables. PostgreSQL
has had them since version 11. A released step is never edited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from vitmae_search.catalog.dialects import MAKE_DATABASE
from vitmae_search.catalog.schema import Table
from vitmae_search.errors import LibraryDamaged, LibraryError, LibraryTooNew

_LOCK = 0x56694D53
"""Number of the advisory lock that a process holds while it migrates."""

_CORE = (
    """
    CREATE TABLE albums (
        name TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE changes (
        change_id BIGSERIAL NOT NULL,
        text TEXT COLLATE "C" NOT NULL,
        before JSON NOT NULL,
        PRIMARY KEY (change_id)
    )
    """,
    """
    CREATE TABLE classifiers (
        classifier_id BIGSERIAL NOT NULL,
        fingerprint TEXT COLLATE "C" NOT NULL,
        source TEXT COLLATE "C" NOT NULL,
        model TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (classifier_id),
        UNIQUE (fingerprint)
    )
    """,
    """
    CREATE TABLE contents (
        content_id BIGSERIAL NOT NULL,
        digest TEXT COLLATE "C" NOT NULL,
        width BIGINT NOT NULL,
        height BIGINT NOT NULL,
        format TEXT COLLATE "C" NOT NULL,
        taken_at TIMESTAMP WITHOUT TIME ZONE,
        camera TEXT COLLATE "C",
        latitude DOUBLE PRECISION,
        longitude DOUBLE PRECISION,
        taken_from TEXT COLLATE "C",
        notes JSON,
        lens TEXT COLLATE "C",
        metadata_revision BIGINT,
        PRIMARY KEY (content_id),
        UNIQUE (digest)
    )
    """,
    "CREATE INDEX contents_camera ON contents (camera)",
    "CREATE INDEX contents_lens ON contents (lens)",
    "CREATE INDEX contents_place ON contents (latitude, longitude) WHERE latitude IS NOT NULL",
    """
    CREATE TABLE marks (
        digest TEXT COLLATE "C" NOT NULL,
        favourite BOOLEAN NOT NULL,
        rating BIGINT NOT NULL,
        keep BOOLEAN NOT NULL,
        PRIMARY KEY (digest)
    )
    """,
    """
    CREATE TABLE pair_decisions (
        digest TEXT COLLATE "C" NOT NULL,
        other TEXT COLLATE "C" NOT NULL,
        decision TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (digest, other)
    )
    """,
    "CREATE INDEX pair_decisions_other ON pair_decisions (other)",
    """
    CREATE TABLE roots (
        root_id BIGSERIAL NOT NULL,
        path BYTEA NOT NULL,
        device NUMERIC,
        offline BOOLEAN NOT NULL,
        PRIMARY KEY (root_id)
    )
    """,
    "CREATE UNIQUE INDEX roots_path ON roots (sha256(path))",
    "CREATE INDEX roots_path_order ON roots (substr(path, 1, 2000))",
    """
    CREATE TABLE runs (
        run_id BIGSERIAL NOT NULL,
        key TEXT COLLATE "C" NOT NULL,
        kind TEXT COLLATE "C" NOT NULL,
        arguments JSON NOT NULL,
        state TEXT COLLATE "C" NOT NULL,
        host TEXT COLLATE "C" NOT NULL,
        pid BIGINT NOT NULL,
        process_created DOUBLE PRECISION NOT NULL,
        started_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
        heartbeat_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
        ended_at TIMESTAMP WITHOUT TIME ZONE,
        progress JSON NOT NULL,
        report JSON,
        error TEXT COLLATE "C",
        PRIMARY KEY (run_id),
        UNIQUE (key)
    )
    """,
    """
    CREATE TABLE saved_searches (
        name TEXT COLLATE "C" NOT NULL,
        query JSON NOT NULL,
        PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE spaces (
        space_id BIGSERIAL NOT NULL,
        fingerprint TEXT COLLATE "C" NOT NULL,
        plugin TEXT COLLATE "C" NOT NULL,
        model TEXT COLLATE "C" NOT NULL,
        dimension BIGINT NOT NULL,
        decode TEXT COLLATE "C" NOT NULL,
        options JSON NOT NULL,
        identity JSON NOT NULL,
        provenance JSON NOT NULL,
        revision BIGINT NOT NULL,
        current BOOLEAN NOT NULL,
        dropped BOOLEAN NOT NULL,
        created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
        parent_id BIGINT,
        projection TEXT COLLATE "C",
        PRIMARY KEY (space_id),
        UNIQUE (fingerprint),
        FOREIGN KEY (parent_id) REFERENCES spaces (space_id)
    )
    """,
    "CREATE UNIQUE INDEX spaces_current ON spaces (current) WHERE current",
    """
    CREATE TABLE album_photos (
        album TEXT COLLATE "C" NOT NULL,
        digest TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (album, digest),
        FOREIGN KEY (album) REFERENCES albums (name) ON DELETE CASCADE ON UPDATE CASCADE
    )
    """,
    "CREATE INDEX album_photos_digest ON album_photos (digest)",
    """
    CREATE TABLE classified (
        content_id BIGINT NOT NULL,
        classifier_id BIGINT NOT NULL,
        PRIMARY KEY (content_id, classifier_id),
        FOREIGN KEY (content_id) REFERENCES contents (content_id) ON DELETE CASCADE,
        FOREIGN KEY (classifier_id) REFERENCES classifiers (classifier_id)
    )
    """,
    """
    CREATE TABLE embeddings (
        embedding_id BIGSERIAL NOT NULL,
        content_id BIGINT NOT NULL,
        space_id BIGINT NOT NULL,
        revision BIGINT NOT NULL,
        vector BYTEA NOT NULL,
        PRIMARY KEY (embedding_id),
        UNIQUE (content_id, space_id),
        FOREIGN KEY (content_id) REFERENCES contents (content_id),
        FOREIGN KEY (space_id) REFERENCES spaces (space_id)
    )
    """,
    "CREATE INDEX embeddings_revision ON embeddings (space_id, revision)",
    """
    CREATE TABLE failures (
        failure_id BIGSERIAL NOT NULL,
        path BYTEA NOT NULL,
        space_id BIGINT NOT NULL,
        reason TEXT COLLATE "C" NOT NULL,
        size NUMERIC NOT NULL,
        mtime_ns NUMERIC NOT NULL,
        ctime_ns NUMERIC,
        tried_with TEXT COLLATE "C",
        PRIMARY KEY (failure_id),
        FOREIGN KEY (space_id) REFERENCES spaces (space_id)
    )
    """,
    "CREATE UNIQUE INDEX failures_path ON failures (sha256(path), space_id)",
    "CREATE INDEX failures_path_order ON failures (substr(path, 1, 2000))",
    """
    CREATE TABLE photos (
        photo_id BIGSERIAL NOT NULL,
        path BYTEA NOT NULL,
        size NUMERIC NOT NULL,
        mtime_ns NUMERIC NOT NULL,
        device NUMERIC NOT NULL,
        content_id BIGINT NOT NULL,
        missing BOOLEAN NOT NULL,
        moment DOUBLE PRECISION NOT NULL,
        named_at TIMESTAMP WITHOUT TIME ZONE,
        ctime_ns NUMERIC,
        inode NUMERIC,
        PRIMARY KEY (photo_id),
        FOREIGN KEY (content_id) REFERENCES contents (content_id)
    )
    """,
    "CREATE INDEX photos_content ON photos (content_id, missing)",
    "CREATE INDEX photos_inode ON photos (inode)",
    "CREATE INDEX photos_missing ON photos (missing, content_id) WHERE missing",
    "CREATE UNIQUE INDEX photos_path ON photos (sha256(path))",
    "CREATE INDEX photos_path_order ON photos (substr(path, 1, 2000))",
    "CREATE INDEX photos_shown ON photos (moment) WHERE NOT missing",
    "CREATE INDEX photos_size ON photos (size) WHERE NOT missing",
    """
    CREATE TABLE revisions (
        space_id BIGINT NOT NULL,
        revision BIGINT NOT NULL,
        identity TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (space_id, revision),
        FOREIGN KEY (space_id) REFERENCES spaces (space_id)
    )
    """,
    """
    CREATE TABLE tags (
        content_id BIGINT NOT NULL,
        classifier_id BIGINT NOT NULL,
        rank BIGINT NOT NULL,
        tag TEXT COLLATE "C" NOT NULL,
        confidence DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (content_id, classifier_id, rank),
        FOREIGN KEY (content_id) REFERENCES contents (content_id) ON DELETE CASCADE,
        FOREIGN KEY (classifier_id) REFERENCES classifiers (classifier_id)
    )
    """,
    "CREATE INDEX tags_tag ON tags (tag, confidence, content_id)",
    """
    CREATE TABLE tombstones (
        embedding_id BIGINT NOT NULL,
        space_id BIGINT NOT NULL,
        revision BIGINT NOT NULL,
        PRIMARY KEY (embedding_id),
        FOREIGN KEY (space_id) REFERENCES spaces (space_id)
    )
    """,
    "CREATE INDEX tombstones_revision ON tombstones (space_id, revision)",
    # Vectors do not get smaller by compression, which would be tried for each that is longer than a row.
    "ALTER TABLE embeddings ALTER COLUMN vector SET STORAGE EXTERNAL",
)

_CANCELLATIONS = (
    'ALTER TABLE runs ADD COLUMN machine TEXT COLLATE "C"',
    "ALTER TABLE runs ADD COLUMN cancel_requested_at TIMESTAMP WITHOUT TIME ZONE",
)

_CLAIMS = (
    """
    CREATE TABLE leases (
        holder TEXT COLLATE "C" NOT NULL,
        ends_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
        PRIMARY KEY (holder)
    )
    """,
    """
    CREATE TABLE claims (
        space_id BIGINT NOT NULL,
        path_digest BYTEA NOT NULL,
        holder TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (space_id, path_digest),
        FOREIGN KEY (holder) REFERENCES leases (holder) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX claims_holder ON claims (holder)",
)

_SHARED_VALUES = (
    """
    CREATE TABLE shared_values (
        name TEXT COLLATE "C" NOT NULL,
        label TEXT COLLATE "C" NOT NULL,
        value BYTEA NOT NULL,
        made_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
        PRIMARY KEY (name)
    )
    """,
)

_MOMENTS_OF_REVISIONS = ("ALTER TABLE revisions ADD COLUMN made_at TIMESTAMP WITHOUT TIME ZONE",)

_NUMBERS_OF_VECTORS = (
    "ALTER TABLE spaces ADD COLUMN vectors BIGINT NOT NULL DEFAULT 0",
    """
    UPDATE spaces SET vectors = (SELECT count(*) FROM embeddings WHERE embeddings.space_id = spaces.space_id)
    """,
)

_ATTRIBUTE_CHANGES = (
    """
    CREATE TABLE attribute_changes (
        embedding_id BIGINT NOT NULL,
        space_id BIGINT NOT NULL,
        revision BIGINT NOT NULL,
        PRIMARY KEY (embedding_id),
        FOREIGN KEY (embedding_id) REFERENCES embeddings (embedding_id) ON DELETE CASCADE,
        FOREIGN KEY (space_id) REFERENCES spaces (space_id)
    )
    """,
    "CREATE INDEX attribute_changes_revision ON attribute_changes (space_id, revision)",
)

STEPS: Mapping[int, Sequence[str]] = {
    11: _CORE,
    12: _CANCELLATIONS,
    13: _CLAIMS,
    14: _SHARED_VALUES,
    15: _MOMENTS_OF_REVISIONS,
    16: _NUMBERS_OF_VECTORS,
    17: _ATTRIBUTE_CHANGES,
}
"""What makes each version from the one before."""

NEWEST = max(STEPS)


def version_of(connection: Connection, name: str) -> int:
    """Return the version of the tables; 0 where there are none.

    Args:
        connection: A connection in a transaction.
        name: The database's name for messages.

    Raises:
        LibraryDamaged: The tables are another program's.
        LibraryTooNew: A newer version of vitmae-search wrote them.
    """
    # In this order, as another process may commit all of them in between, which is seen at once.
    others = [table for table in Table.metadata.tables if _is_there(connection, table)]
    if not _is_there(connection, "catalogue_format"):
        if others:
            raise LibraryDamaged(
                f"{name} has a table {others[0]} of another program, which is left alone. Name an empty "
                "database."
            )
        return 0
    # This transaction may have begun before the row was committed.
    version = int(connection.exec_driver_sql("SELECT version FROM catalogue_format").scalar() or 0)
    if version > NEWEST:
        raise LibraryTooNew(
            f"{name} was written by a newer version of vitmae-search (its format is {version}, and this "
            f"version knows up to {NEWEST}). Upgrade vitmae-search, or name another database."
        )
    return version


def _is_there(connection: Connection, table: str) -> bool:
    return connection.exec_driver_sql("SELECT to_regclass(%s)", (table,)).scalar_one() is not None


def migrate(connection: Connection, name: str, steps: Mapping[int, Sequence[str]] = STEPS) -> None:
    """Bring the tables up to the last step. Only one process does at a time, and others wait.

    Args:
        connection: A connection in a transaction, which is either committed as a whole or not at all.
        name: The database's name for messages.
        steps: What makes each version from the one before.
    """
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    version = version_of(connection, name)
    if version == 0:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise LibraryError(
                f"{name} stores texts as {encoding}. Make a database for UTF-8: {MAKE_DATABASE}"
            )
        connection.exec_driver_sql("CREATE TABLE catalogue_format (version INTEGER NOT NULL)")
        connection.exec_driver_sql("INSERT INTO catalogue_format VALUES (0)")
    for number in sorted(number for number in steps if number > version):
        for statement in steps[number]:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("UPDATE catalogue_format SET version = %s", (number,))
