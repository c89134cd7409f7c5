-- A catalogue of version 16. Never edited: it stands for the files that people have.
PRAGMA application_id = 1449741651;
PRAGMA user_version = 16;
BEGIN TRANSACTION;
CREATE TABLE album_photos (
        album VARCHAR NOT NULL REFERENCES albums (name) ON DELETE CASCADE ON UPDATE CASCADE,
        digest VARCHAR NOT NULL,
        PRIMARY KEY (album, digest)
    ) WITHOUT ROWID
    ;
CREATE TABLE albums (name VARCHAR NOT NULL PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE changes (
        change_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        text VARCHAR NOT NULL,
        before JSON NOT NULL
    );
CREATE TABLE claims (
        space_id INTEGER NOT NULL,
        path_digest BLOB NOT NULL,
        holder VARCHAR NOT NULL REFERENCES leases (holder) ON DELETE CASCADE,
        PRIMARY KEY (space_id, path_digest)
    ) WITHOUT ROWID
    ;
CREATE TABLE classified (
        content_id INTEGER NOT NULL REFERENCES contents (content_id) ON DELETE CASCADE,
        classifier_id INTEGER NOT NULL REFERENCES classifiers (classifier_id),
        PRIMARY KEY (content_id, classifier_id)
    ) WITHOUT ROWID
    ;
INSERT INTO "classified" VALUES(1,1);
CREATE TABLE classifiers (
        classifier_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        fingerprint VARCHAR NOT NULL UNIQUE,
        source VARCHAR NOT NULL,
        model VARCHAR NOT NULL
    );
INSERT INTO "classifiers" VALUES(1,'f','colours','colours');
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
    , taken_from VARCHAR, notes JSON, lens VARCHAR, metadata_revision INTEGER);
INSERT INTO "contents" VALUES(1,'77af778b51abd4a3c51c5ddd97204a9c3ae614ebccb75a606c3b6865aed6744e',40,30,'JPEG','2021-05-01 12:00:00.000000','Canon EOS',48.5,NULL,'EXIF',NULL,NULL,NULL);
INSERT INTO "contents" VALUES(2,'cd6357efdd966de8c0cb2f876cc89ec74ce35f0968e11743987084bd42fb8944',40,30,'JPEG',NULL,NULL,48.5,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "contents" VALUES(3,'10f7127b980b0b06ef157749f8a02cca1c606d22642729dcb2d24dbbf2bf30df',40,30,'JPEG','2023-01-02 03:04:05.000006','NIKON D5',48.5,NULL,'EXIF',NULL,NULL,NULL);
CREATE TABLE embeddings (
        embedding_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        content_id INTEGER NOT NULL REFERENCES contents (content_id),
        space_id INTEGER NOT NULL REFERENCES spaces (space_id),
        revision INTEGER NOT NULL,
        vector BLOB NOT NULL,
        UNIQUE (content_id, space_id)
    );
INSERT INTO "embeddings" VALUES(1,1,1,1,X'0000803F000000000000000000000000');
INSERT INTO "embeddings" VALUES(2,2,1,2,X'000000000000803F0000000000000000');
INSERT INTO "embeddings" VALUES(4,3,1,3,X'00000000000000000000803F00000000');
INSERT INTO "embeddings" VALUES(5,1,2,1,X'0000000000000000000000000000803F');
CREATE TABLE failures (
        failure_id INTEGER PRIMARY KEY NOT NULL,
        path BLOB NOT NULL,
        space_id INTEGER NOT NULL REFERENCES spaces (space_id),
        reason VARCHAR NOT NULL,
        size BIGINT NOT NULL,
        mtime_ns BIGINT NOT NULL, ctime_ns BIGINT, tried_with VARCHAR,
        UNIQUE (path, space_id)
    );
INSERT INTO "failures" VALUES(1,X'2F702F6261642E6A7067',1,'truncated',5,6,NULL,NULL);
CREATE TABLE leases (
        holder VARCHAR NOT NULL PRIMARY KEY,
        ends_at DATETIME NOT NULL
    ) WITHOUT ROWID
    ;
CREATE TABLE marks (
        digest VARCHAR NOT NULL PRIMARY KEY,
        favourite BOOLEAN NOT NULL,
        rating INTEGER NOT NULL,
        keep BOOLEAN NOT NULL
    ) WITHOUT ROWID
    ;
CREATE TABLE pair_decisions (
        digest VARCHAR NOT NULL,
        other VARCHAR NOT NULL,
        decision VARCHAR NOT NULL,
        PRIMARY KEY (digest, other)
    ) WITHOUT ROWID
    ;
CREATE TABLE photos (
        photo_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        path BLOB NOT NULL UNIQUE,
        size BIGINT NOT NULL,
        mtime_ns BIGINT NOT NULL,
        device BIGINT NOT NULL,
        content_id INTEGER NOT NULL REFERENCES contents (content_id),
        missing BOOLEAN NOT NULL,
        moment REAL NOT NULL
    , named_at DATETIME, ctime_ns BIGINT, inode BIGINT);
INSERT INTO "photos" VALUES(1,X'2F702F612E6A7067',100,1700000000000000000,7,1,0,1700000000.0,NULL,NULL,NULL);
INSERT INTO "photos" VALUES(2,X'2F702F622E6A7067',100,1700000000000000000,7,1,0,1700000000.0,NULL,NULL,NULL);
INSERT INTO "photos" VALUES(3,X'2F702F636166E92E6A7067',100,1700000000000000000,7,2,0,1700000000.0,NULL,NULL,NULL);
INSERT INTO "photos" VALUES(5,X'2F702F676F6E652E6A7067',100,1700000000000000000,7,3,1,1700000000.0,NULL,NULL,NULL);
CREATE TABLE revisions (
        space_id INTEGER NOT NULL REFERENCES spaces (space_id),
        revision INTEGER NOT NULL,
        identity VARCHAR NOT NULL, made_at DATETIME,
        PRIMARY KEY (space_id, revision)
    ) WITHOUT ROWID
    ;
INSERT INTO "revisions" VALUES(1,3,'03c61d09873491a5',NULL);
INSERT INTO "revisions" VALUES(2,1,'4b8e4e403e6b9339',NULL);
CREATE TABLE roots (
        root_id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        path BLOB NOT NULL UNIQUE,
        device BIGINT,
        offline BOOLEAN NOT NULL
    );
INSERT INTO "roots" VALUES(1,X'2F70',7,0);
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
    , machine VARCHAR, cancel_requested_at DATETIME);
INSERT INTO "runs" VALUES(4,'0a1b','index','{"folders": ["/p"]}','done','host',12,1700000000.0,'2024-01-01 00:00:00.000000','2024-01-01 00:01:00.000000','2024-01-01 00:01:00.000000','{"done": 4}','{"added": 4}',NULL,NULL,NULL);
CREATE TABLE saved_searches (
        name VARCHAR NOT NULL PRIMARY KEY,
        query JSON NOT NULL
    ) WITHOUT ROWID
    ;
CREATE TABLE shared_values (
        name VARCHAR NOT NULL,
        label VARCHAR NOT NULL,
        value BLOB NOT NULL,
        made_at DATETIME NOT NULL,
        PRIMARY KEY (name)
    );
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
    , parent_id INTEGER REFERENCES spaces (space_id), projection VARCHAR, vectors INTEGER NOT NULL DEFAULT 0);
INSERT INTO "spaces" VALUES(1,'a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e','vitmae','first',4,'scaled','{}','{}','{}',3,1,0,'2024-01-01 00:00:00.000000',NULL,NULL,3);
INSERT INTO "spaces" VALUES(2,'16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4','vitmae','second',4,'scaled','{}','{}','{}',1,0,0,'2024-01-01 00:00:00.000000',NULL,NULL,1);
CREATE TABLE tags (
        content_id INTEGER NOT NULL REFERENCES contents (content_id) ON DELETE CASCADE,
        classifier_id INTEGER NOT NULL REFERENCES classifiers (classifier_id),
        rank INTEGER NOT NULL,
        tag VARCHAR NOT NULL,
        confidence REAL NOT NULL,
        PRIMARY KEY (content_id, classifier_id, rank)
    ) WITHOUT ROWID
    ;
INSERT INTO "tags" VALUES(1,1,1,'red',0.75);
CREATE TABLE tombstones (
        embedding_id INTEGER PRIMARY KEY NOT NULL,
        space_id INTEGER NOT NULL REFERENCES spaces (space_id),
        revision INTEGER NOT NULL
    );
INSERT INTO "tombstones" VALUES(3,1,3);
CREATE INDEX photos_content ON photos (content_id, missing);
CREATE UNIQUE INDEX spaces_current ON spaces (current) WHERE current;
CREATE INDEX embeddings_revision ON embeddings (space_id, revision);
CREATE INDEX tombstones_revision ON tombstones (space_id, revision);
CREATE INDEX contents_camera ON contents (camera);
CREATE INDEX tags_tag ON tags (tag, confidence, content_id);
CREATE INDEX photos_shown ON photos (moment) WHERE missing = 0;
CREATE INDEX photos_missing ON photos (missing, content_id) WHERE missing = 1;
CREATE INDEX photos_inode ON photos (inode);
CREATE INDEX album_photos_digest ON album_photos (digest);
CREATE INDEX pair_decisions_other ON pair_decisions (other);
CREATE INDEX contents_lens ON contents (lens);
CREATE INDEX contents_place ON contents (latitude, longitude) WHERE latitude IS NOT NULL;
CREATE INDEX photos_size ON photos (size) WHERE missing = 0;
CREATE INDEX claims_holder ON claims (holder);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('roots',1);
INSERT INTO "sqlite_sequence" VALUES('contents',3);
INSERT INTO "sqlite_sequence" VALUES('photos',9);
INSERT INTO "sqlite_sequence" VALUES('spaces',2);
INSERT INTO "sqlite_sequence" VALUES('embeddings',5);
INSERT INTO "sqlite_sequence" VALUES('runs',4);
INSERT INTO "sqlite_sequence" VALUES('classifiers',1);
COMMIT;
