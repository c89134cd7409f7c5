"""The steps that bring a catalogue's SQLite file from one schema version to the next.

A released step is never edited: a change of the schema is a new step at the end. Each step runs in one
transaction together with its number (`PRAGMA user_version`), so a crash leaves the file at the step before.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from vitmae_search.catalog.schema import APPLICATION_ID
from vitmae_search.errors import LibraryDamaged, LibraryTooNew

_CORE = (
    """
    CREATE TABLE roots (
        root_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        path BLOB NOT NULL UNIQUE,
        device BIGINT,
        offline BOOLEAN NOT NULL
    )
    """,
    """
    CREATE TABLE contents (
        content_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        digest VARCHAR NOT NULL UNIQUE,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        format VARCHAR NOT NULL,
        taken_at DATETIME,
        camera VARCHAR,
        latitude REAL,
        longitude REAL
    )
    """,
    """
    CREATE TABLE photos (
        photo_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        path BLOB NOT NULL UNIQUE,
        size BIGINT NOT NULL,
        mtime_ns BIGINT NOT NULL,
        device BIGINT NOT NULL,
        content_id INTEGER NOT NULL REFERENCES contents (content_id),
        missing BOOLEAN NOT NULL,
        moment REAL NOT NULL
    )
    """,
    "CREATE INDEX photos_content ON photos (content_id, missing)",
    "CREATE INDEX photos_moment ON photos (missing, moment)",
    """
    CREATE TABLE spaces (
        space_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        fingerprint VARCHAR NOT NULL UNIQUE,
        plugin VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        dimension INTEGER NOT NULL,
        decode VARCHAR NOT NULL,
        options JSON NOT NULL,
        identity JSON NOT NULL,
        provenance JSON NOT NULL,
        revision INTEGER NOT NULL,
        current BOOLEAN NOT NULL,
        dropped BOOLEAN NOT NULL,
        created_at DATETIME NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX spaces_current ON spaces (current) WHERE current",
    """
    CREATE TABLE embeddings (
        embedding_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        content_id INTEGER NOT NULL REFERENCES contents (content_id),
        space_id INTEGER NOT NULL REFERENCES spaces (space_id),
        revision INTEGER NOT NULL,
        vector BLOB NOT NULL,
        UNIQUE (content_id, space_id)
    )
    """,
    "CREATE INDEX embeddings_revision ON embeddings (space_id, revision)",
    """
    CREATE TABLE tombstones (
        embedding_id INTEGER PRIMARY KEY NOT NULL,
        space_id INTEGER NOT NULL REFERENCES spaces (space_id),
        revision INTEGER NOT NULL
    )
    """,
    "CREATE INDEX tombstones_revision ON tombstones (space_id, revision)",
    """
    CREATE TABLE failures (
        failure_id INTEGER PRIMARY KEY NOT NULL,
        path BLOB NOT NULL,
        space_id INTEGER NOT NULL REFERENCES spaces (space_id),
        reason VARCHAR NOT NULL,
        size BIGINT NOT NULL,
        mtime_ns BIGINT NOT NULL,
        UNIQUE (path, space_id)
    )
    """,
)

_RUNS_AND_FILTERS = (
    """
    CREATE TABLE runs (
        run_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        "key" VARCHAR NOT NULL UNIQUE,
        kind VARCHAR NOT NULL,
        arguments JSON NOT NULL,
        state VARCHAR NOT NULL,
        host VARCHAR NOT NULL,
        pid INTEGER NOT NULL,
        process_created REAL NOT NULL,
        started_at DATETIME NOT NULL,
        heartbeat_at DATETIME NOT NULL,
        ended_at DATETIME,
        progress JSON NOT NULL,
        report JSON,
        error VARCHAR
    )
    """,
    "CREATE INDEX contents_taken_at ON contents (taken_at)",
    "CREATE INDEX contents_camera ON contents (camera)",
)

_TAGS = (
    """
    CREATE TABLE classifiers (
        classifier_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        fingerprint VARCHAR NOT NULL UNIQUE,
        source VARCHAR NOT NULL,
        model VARCHAR NOT NULL
    )
    """,
    """
    CREATE TABLE classified (
        content_id INTEGER NOT NULL REFERENCES contents (content_id) ON DELETE CASCADE,
        classifier_id INTEGER NOT NULL REFERENCES classifiers (classifier_id),
        PRIMARY KEY (content_id, classifier_id)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE tags (
        content_id INTEGER NOT NULL REFERENCES contents (content_id) ON DELETE CASCADE,
        classifier_id INTEGER NOT NULL REFERENCES classifiers (classifier_id),
        rank INTEGER NOT NULL,
        tag VARCHAR NOT NULL,
        confidence REAL NOT NULL,
        PRIMARY KEY (content_id, classifier_id, rank)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX tags_tag ON tags (tag, confidence, content_id)",
)

_DERIVED_SPACES = (
    "ALTER TABLE spaces ADD COLUMN parent_id INTEGER REFERENCES spaces (space_id)",
    "ALTER TABLE spaces ADD COLUMN projection VARCHAR",
)

_PARTIAL_INDEXES = (
    # Nearly every photo is on disk, so "missing = 0" selects nothing: an index that begins with it keeps
    # SQLite from the one that would, of paths, dates or cameras.
    "DROP INDEX photos_moment",
    "CREATE INDEX photos_shown ON photos (moment) WHERE missing = 0",
    "CREATE INDEX photos_missing ON photos (missing, content_id) WHERE missing = 1",
)

_REVISIONS = (
    """
    CREATE TABLE revisions (
        space_id INTEGER NOT NULL REFERENCES spaces (space_id),
        revision INTEGER NOT NULL,
        identity VARCHAR NOT NULL,
        PRIMARY KEY (space_id, revision)
    ) WITHOUT ROWID
    """,
    """
    INSERT INTO revisions
    SELECT space_id, revision, lower(hex(randomblob(8))) FROM spaces WHERE revision > 0
    """,
)

_DATES = (
    "ALTER TABLE contents ADD COLUMN taken_from VARCHAR",
    "ALTER TABLE contents ADD COLUMN notes JSON",
    "ALTER TABLE photos ADD COLUMN named_at DATETIME",
    # Dates are filtered by `moment`, which photos without EXIF have, too.
    "DROP INDEX contents_taken_at",
    # A clock that was never set.
    "UPDATE contents SET taken_at = NULL WHERE taken_at < '1800'",
    "UPDATE contents SET taken_from = 'EXIF' WHERE taken_at IS NOT NULL",
    # The file's time becomes local time, as EXIF's is.
    """
    UPDATE photos SET moment = coalesce(
        mtime_ns / 1e9 + strftime('%s', mtime_ns / 1e9, 'unixepoch', 'localtime')
        - strftime('%s', mtime_ns / 1e9, 'unixepoch'),
        moment
    )
    WHERE content_id IN (SELECT content_id FROM contents WHERE taken_at IS NULL)
    AND typeof(mtime_ns) = 'integer'
    """,
)

_CAUSES = (
    "ALTER TABLE photos ADD COLUMN ctime_ns BIGINT",
    "ALTER TABLE photos ADD COLUMN inode BIGINT",
    "CREATE INDEX photos_inode ON photos (inode)",
    "ALTER TABLE failures ADD COLUMN ctime_ns BIGINT",
    "ALTER TABLE failures ADD COLUMN tried_with VARCHAR",
)

_MARKS = (
    """
    CREATE TABLE marks (
        digest VARCHAR NOT NULL PRIMARY KEY,
        favourite BOOLEAN NOT NULL,
        rating INTEGER NOT NULL,
        keep BOOLEAN NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE TABLE albums (name VARCHAR NOT NULL PRIMARY KEY) WITHOUT ROWID",
    """
    CREATE TABLE album_photos (
        album VARCHAR NOT NULL REFERENCES albums (name) ON DELETE CASCADE ON UPDATE CASCADE,
        digest VARCHAR NOT NULL,
        PRIMARY KEY (album, digest)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX album_photos_digest ON album_photos (digest)",
    """
    CREATE TABLE saved_searches (
        name VARCHAR NOT NULL PRIMARY KEY,
        query JSON NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE pair_decisions (
        digest VARCHAR NOT NULL,
        other VARCHAR NOT NULL,
        decision VARCHAR NOT NULL,
        PRIMARY KEY (digest, other)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX pair_decisions_other ON pair_decisions (other)",
    """
    CREATE TABLE changes (
        change_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        text VARCHAR NOT NULL,
        before JSON NOT NULL
    )
    """,
)

_LENSES_AND_PLACES = (
    "ALTER TABLE contents ADD COLUMN lens VARCHAR",
    "ALTER TABLE contents ADD COLUMN metadata_revision INTEGER",
    "CREATE INDEX contents_lens ON contents (lens)",
    "CREATE INDEX contents_place ON contents (latitude, longitude) WHERE latitude IS NOT NULL",
)

_SIZES = ("CREATE INDEX photos_size ON photos (size) WHERE missing = 0",)

_CANCELLATIONS = (
    "ALTER TABLE runs ADD COLUMN machine VARCHAR",
    "ALTER TABLE runs ADD COLUMN cancel_requested_at DATETIME",
)

_CLAIMS = (
    # One writer has nothing to divide: these are used on PostgreSQL alone.
    """
    CREATE TABLE leases (
        holder VARCHAR NOT NULL PRIMARY KEY,
        ends_at DATETIME NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE claims (
        space_id INTEGER NOT NULL,
        path_digest BLOB NOT NULL,
        holder VARCHAR NOT NULL REFERENCES leases (holder) ON DELETE CASCADE,
        PRIMARY KEY (space_id, path_digest)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX claims_holder ON claims (holder)",
)

_SHARED_VALUES = (
    """
    CREATE TABLE shared_values (
        name VARCHAR NOT NULL,
        label VARCHAR NOT NULL,
        value BLOB NOT NULL,
        made_at DATETIME NOT NULL,
        PRIMARY KEY (name)
    )
    """,
)

_MOMENTS_OF_REVISIONS = ("ALTER TABLE revisions ADD COLUMN made_at DATETIME",)

_NUMBERS_OF_VECTORS = (
    "ALTER TABLE spaces ADD COLUMN vectors INTEGER NOT NULL DEFAULT 0",
    """
    UPDATE spaces SET vectors = (SELECT count(*) FROM embeddings WHERE embeddings.space_id = spaces.space_id)
    """,
)

_ATTRIBUTE_CHANGES = (
    """
    CREATE TABLE attribute_changes (
        embedding_id INTEGER NOT NULL PRIMARY KEY REFERENCES embeddings (embedding_id) ON DELETE CASCADE,
        space_id INTEGER NOT NULL REFERENCES spaces (space_id),
        revision INTEGER NOT NULL
    )
    """,
    "CREATE INDEX attribute_changes_revision ON attribute_changes (space_id, revision)",
)

Steps = Sequence[Sequence[str]]

STEPS: Steps = (
    _CORE,
    _RUNS_AND_FILTERS,
    _TAGS,
    _DERIVED_SPACES,
    _PARTIAL_INDEXES,
    _REVISIONS,
    _DATES,
    _CAUSES,
    _MARKS,
    _LENSES_AND_PLACES,
    _SIZES,
    _CANCELLATIONS,
    _CLAIMS,
    _SHARED_VALUES,
    _MOMENTS_OF_REVISIONS,
    _NUMBERS_OF_VECTORS,
    _ATTRIBUTE_CHANGES,
)
"""Step i makes version i + 1."""

NEWEST = len(STEPS)


def version_of(connection: Connection, name: str) -> int:
    """Return the version of the file's schema; 0 for an empty file.

    Args:
        connection: A connection in a transaction.
        name: The file's name for messages.

    Raises:
        LibraryDamaged: It is another program's file.
        LibraryTooNew: A newer version of vitmae-search wrote it.
    """
    application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    objects = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
    if application != APPLICATION_ID:
        if application or version or objects:
            raise LibraryDamaged(
                f"{name} is a SQLite file of another program, which is left alone. Choose another folder "
                "with --library, or move the file away."
            )
        return 0
    if version > NEWEST:
        raise LibraryTooNew(
            f"{name} was written by a newer version of vitmae-search (its format is {version}, and this "
            f"version knows up to {NEWEST}). Upgrade vitmae-search, or choose another folder with --library."
        )
    return version


def migrate(connection: Connection, version: int, steps: Steps = STEPS) -> None:
    """Bring a file up to the last step. Each step is a transaction of its own.

    Args:
        connection: A connection in a transaction.
        version: The version that the file has.
        steps: The steps; step i makes version i + 1.
    """
    for number, statements in enumerate(steps[version:], start=version + 1):
        with connection.begin():
            for statement in statements:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {number}")
