"""What a library holds, read with `sqlite3` alone, and what a search in it must therefore find.

Nothing of the application is used here: neither its queries, nor its index files.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 2e-6
"""Vectors may differ in the last bits by the batch in which they were made."""


@dataclass(frozen=True)
class Truth:
    """A library's contents, without the numbers that it gave them.

    Attributes:
        photos: Digest and whether it is missing, by path.
        spaces: Fingerprints, the current one first.
        vectors: By fingerprint and digest.
        failures: Reasons, by path.
        tags: Tags with confidences, by classifier and digest.
        said: Favourites, ratings, albums and decisions on duplicates: rows of their tables.
    """

    photos: dict[str, tuple[str, bool]]
    spaces: list[str]
    vectors: dict[tuple[str, str], NDArray[np.float32]]
    failures: dict[str, str]
    tags: dict[tuple[str, str], list[tuple[str, float]]]
    said: dict[str, list[tuple[Any, ...]]]

    @classmethod
    def of(cls, library: Path) -> Truth:
        """Read a library. What a killed writer left unfinished is undone first, by SQLite."""
        file = library / "catalogue.sqlite3"
        if not file.exists() or not file.stat().st_size:
            return cls({}, [], {}, {}, {}, {})
        with closing(sqlite3.connect(file)) as catalogue:
            if not catalogue.execute("SELECT 1 FROM sqlite_master WHERE name = 'photos'").fetchall():
                return cls({}, [], {}, {}, {}, {})
            return cls(
                _photos(catalogue),
                _spaces(catalogue),
                _vectors(catalogue),
                {os.fsdecode(path): reason for path, reason in catalogue.execute(_FAILURES)},
                _tags(catalogue),
                _said(catalogue),
            )

    def differences(self, other: Truth) -> list[str]:
        """What the other library has that this one lacks, and the other way round; empty if nothing."""
        found = []
        for name in ("photos", "spaces", "failures", "tags", "said"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                found.append(f"{name}: {_first_difference(mine, theirs)}")
        if self.vectors.keys() != other.vectors.keys():
            found.append(f"vectors: {len(self.vectors)} and {len(other.vectors)}, of other contents")
        for key in self.vectors.keys() & other.vectors.keys():
            if not np.allclose(self.vectors[key], other.vectors[key], atol=TOLERANCE):
                found.append(f"vectors: {key} differs")
        return found

    def scores(self, query: str, k: int, fingerprint: str | None = None) -> list[tuple[float, str]]:
        """The k best scores with their digests, by comparing the query with every vector.

        Args:
            query: A digest, whose vector is the query.
            k: How many, at most.
            fingerprint: The space; None is the current one.
        """
        space = fingerprint or self.spaces[0]
        on_disk = {digest for digest, missing in self.photos.values() if not missing}
        vector = self.vectors[space, query].astype(np.float64)
        found = [
            (float(stored.astype(np.float64) @ vector), digest)
            for (owner, digest), stored in self.vectors.items()
            if owner == space and digest in on_disk
        ]
        return sorted(found, key=lambda pair: -pair[0])[:k]

    def searchable(self) -> list[str]:
        """Paths of the photos on disk that have a vector in the current space."""
        return [
            path
            for path, (digest, missing) in sorted(self.photos.items())
            if not missing and self.spaces and (self.spaces[0], digest) in self.vectors
        ]

    def is_as_on_disk(self, path: str) -> bool:
        """Whether a photo's file has the content that the library knows.

        Args:
            path: The photo.
        """
        if not os.path.exists(path):
            return False
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() == self.photos[path][0]


def wrong_hits(truth: Truth, query: str, hits: list[dict[str, Any]], k: int) -> list[str]:
    """What is wrong with the hits of a search, compared with brute force.

    Args:
        truth: The library.
        query: The query's path, which is one of the library's.
        hits: Those of `search --json`.
        k: How many were asked for.
    """
    expected = truth.scores(truth.photos[query][0], k)
    found = []
    if len(hits) != len(expected):
        found.append(f"{len(hits)} hits where {len(expected)} belong")
    scores = {digest: score for score, digest in truth.scores(truth.photos[query][0], 1 << 30)}
    for hit, (score, _) in zip(hits, expected, strict=False):
        digest = truth.photos.get(hit["path"], ("", False))[0]
        own = scores.get(digest, -2.0)
        if max(abs(hit["score"] - score), abs(hit["score"] - own)) > TOLERANCE:
            found.append(
                f"hit {hit['rank']}: {hit['score']}, where {score:.6f} belongs, and its own is {own}"
            )
    return found


_FAILURES = "SELECT path, reason FROM failures"


def _photos(catalogue: sqlite3.Connection) -> dict[str, tuple[str, bool]]:
    rows = catalogue.execute("SELECT path, digest, missing FROM photos JOIN contents USING (content_id)")
    return {os.fsdecode(path): (digest, bool(missing)) for path, digest, missing in rows}


def _spaces(catalogue: sqlite3.Connection) -> list[str]:
    rows = catalogue.execute(
        "SELECT fingerprint FROM spaces WHERE NOT dropped ORDER BY NOT current, fingerprint"
    )
    return [fingerprint for (fingerprint,) in rows]


def _vectors(catalogue: sqlite3.Connection) -> dict[tuple[str, str], NDArray[np.float32]]:
    rows = catalogue.execute(
        "SELECT fingerprint, digest, vector FROM embeddings "
        "JOIN contents USING (content_id) JOIN spaces USING (space_id) WHERE NOT dropped"
    )
    return {(space, digest): np.frombuffer(vector, "<f4") for space, digest, vector in rows}


def _tags(catalogue: sqlite3.Connection) -> dict[tuple[str, str], list[tuple[str, float]]]:
    if not catalogue.execute("SELECT 1 FROM sqlite_master WHERE name = 'classified'").fetchall():
        return {}
    of_it = "JOIN contents USING (content_id) JOIN classifiers USING (classifier_id)"
    found: dict[tuple[str, str], list[tuple[str, float]]] = {
        key: []
        for key in catalogue.execute(f"SELECT classifiers.fingerprint, digest FROM classified {of_it}")
    }
    rows = catalogue.execute(
        f"SELECT classifiers.fingerprint, digest, tag, confidence FROM tags {of_it} ORDER BY rank"
    )
    for classifier, digest, tag, confidence in rows:
        found.setdefault((classifier, digest), []).append((tag, round(confidence, 5)))
    return found


def _said(catalogue: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    tables = ("marks", "albums", "album_photos", "saved_searches", "pair_decisions")
    existing = {name for (name,) in catalogue.execute("SELECT name FROM sqlite_master")}
    return {
        table: sorted(catalogue.execute(f"SELECT * FROM {table}")) for table in tables if table in existing
    }


def _first_difference(mine: Any, theirs: Any) -> str:
    if isinstance(mine, dict):
        for key in sorted(mine.keys() | theirs.keys(), key=repr):
            if mine.get(key) != theirs.get(key):
                return f"{key}: {mine.get(key)} and {theirs.get(key)}"
    return f"{mine} and {theirs}"
