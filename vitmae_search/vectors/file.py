"""The index files: replaced atomically or appended to, and verified before they are used.

::

    page of 4096 bytes: kind (8) | length, uint32 LE | header, JSON | SHA-256 of all before (32) | zeros
    body

The header says what the body holds and how many bytes it has. A vectors file has two such pages, of which
the one that was saved last counts, and then rows in blocks (`stored_rows`): new rows are written behind the
old ones and synced, and then a header that counts them replaces the older one. Ids are verified on opening.
Verifying the vectors takes a second for a gigabyte, so `VectorsFile.verify_checksum` does that later.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from vitmae_search.atomic import lock, write_atomically
from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors.exact import check_vectors, validated_ids
from vitmae_search.vectors.protocols import Ids, IsCancelled, Vectors, VectorSource, never_cancel
from vitmae_search.vectors.stored_rows import BlockLayout, RowWriter, StoredRows, write_all

VECTORS, PAYLOAD = b"VSVECT05", b"VSVECT04"
"""The two kinds of file, by their first bytes."""

_PAGE = 4096
_START = len(VECTORS) + 4
_DIGEST = 32
_CHECKSUM = "payload_sha256"
READ_BYTES = 2**28
"""Vectors of up to so many bytes are read into memory; of larger ones, what a search needs."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a file was written from: a space at a revision.

    Attributes:
        key: The space's fingerprint.
        dimension: Numbers in a vector.
        revision: The space's revision.
        identity: Identity of that revision; None is no revision's.
    """

    key: str
    dimension: int
    revision: int
    identity: str | None

    @classmethod
    def at(cls, source: VectorSource, revision: int) -> Origin:
        """Return the origin of a file that is written now.

        Args:
            source: The space.
            revision: The revision that the file will have.
        """
        return cls(source.key, source.dimension, revision, source.revision_identity(revision))

    def belongs_to(self, source: VectorSource) -> bool:
        """Return whether `source` has, or had, this revision: what changed since can be added."""
        return self.identity is not None and self == Origin.at(source, self.revision)


@dataclass(frozen=True, slots=True)
class _Header:
    """The first page: `body_bytes` follow it; `more` is free for each kind of file."""

    origin: Origin
    body_bytes: int
    more: dict[str, Any]


class VectorsFile:
    """An open vectors file: ids in memory, vectors in memory or in the file.

    It stays readable when the file is appended to, replaced or deleted.

    Attributes:
        path: The file.
        origin: The space, and the revision that the file has.
        ids: (N,) int64.
        vectors: (N, D) float32.
        removed: How many of the rows had been removed at this revision.
        whole_revision: What was removed up to this revision is not in the file.
    """

    def __init__(self, path: Path, source: VectorSource, *, read_bytes: int = READ_BYTES) -> None:
        """Open a file and verify its header and ids.

        Args:
            path: The file.
            source: The space that it must have been written from; it may be older.
            read_bytes: Vectors of more bytes stay in the file.

        Raises:
            OSError: It is not there, or cannot be read.
            VectorCacheDamaged: It is damaged, or belongs to another space.
        """
        self.path = path
        with open(path, "rb") as file:
            self._header = _read_header(file, path, source, VECTORS)
            self.origin, more = self._header.origin, self._header.more
            self.removed, self.whole_revision = int(more["removed"]), int(more["whole_revision"])
            self._stored = StoredRows(file.fileno(), path, _layout(self.origin), int(more["count"]))
        self.ids = self._stored.stored_ids(more["last_ids_sha256"])
        self.vectors: Vectors | StoredRows = self._stored
        if self._stored.nbytes <= read_bytes:
            self.vectors = np.empty(self._stored.shape, np.float32)
            for start, block in self._stored.blocks():
                self.vectors[start : start + len(block)] = block
        self._verified = False

    def is_whole(self) -> bool:
        """Whether the vectors can be read: they are in memory, or the file has its length still."""
        return isinstance(self.vectors, np.ndarray) or self._stored.is_whole()

    def removed_ids(self, source: VectorSource) -> Ids:
        """Return ids in the file, and perhaps some more, that were removed at its revision or later."""
        since = self.whole_revision if self.removed else self.origin.revision
        return source.removed_since(since)

    def verify_checksum(self, cancelled: IsCancelled = never_cancel) -> bool:
        """Read all vectors once and compare them with their checksums.

        Returns:
            True if they fit; False if they do not, or if `cancelled` returned True.
        """
        if not self._verified:
            blocks = self._stored.fitting_blocks(self._header.more["last_vectors_sha256"])
            with suppress(VectorCacheDamaged):  # it was cut
                self._verified = all(fits and not cancelled() for fits in blocks)
        return self._verified

    def append(self, origin: Origin, removed: int, chunks: Iterable[tuple[Ids, Vectors]]) -> bool:
        """Append rows to the file: whoever reads it finds all of them or none, also after a crash.

        The rows are written behind those that count, and then the older one of the file's two headers. This
        object keeps the rows that it has.

        Args:
            origin: The revision that the file then has.
            removed: How many rows of the file have been removed at this revision.
            chunks: (n,) ids with (n, D) vectors, float32, finite, of unit length.

        Returns:
            False if the file must be written anew: it has changed since it was opened, or cannot be locked.

        Raises:
            OSError: The rows cannot be written; the old ones are kept.
            VectorCacheDamaged: The file is damaged where it ends.
            VectorIndexError: The vectors are not as above; the old ones are kept.
        """
        with open(self.path, "r+b", buffering=0) as file:
            if not lock(file) or not self._is_unchanged(file):
                return False
            more = self._header.more
            writer = RowWriter(file.fileno(), self._stored.layout, len(self._stored))
            if writer.last_digests != (more["last_ids_sha256"], more["last_vectors_sha256"]):
                raise VectorCacheDamaged(f"{self.path}: the last block does not fit its checksum.")
            try:
                _write_rows(writer, chunks, origin.dimension)
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    file.truncate(self._stored.layout.end(len(self._stored)))
                raise
            page = _vectors_page(origin, writer, removed, self.whole_revision, more["saved"] + 1)
            write_all(file.fileno(), page, (more["saved"] + 1) % 2 * _PAGE)
            os.fsync(file.fileno())
        return True

    def _is_unchanged(self, file: IO[bytes]) -> bool:
        """Whether `file` is the one that was read, with the header that it had then."""
        _, header = _newest_header(file, self.path)
        return self._stored.is_in(file.fileno()) and header == self._header


def _layout(origin: Origin) -> BlockLayout:
    return BlockLayout(2 * _PAGE, origin.dimension)


def _vectors_page(origin: Origin, writer: RowWriter, removed: int, whole_revision: int, saved: int) -> bytes:
    last_ids, last_vectors = writer.last_digests
    more = {
        "count": writer.count,
        "removed": removed,
        "whole_revision": whole_revision,
        "saved": saved,
        "last_ids_sha256": last_ids,
        "last_vectors_sha256": last_vectors,
    }
    return _page(VECTORS, _Header(origin, _layout(origin).end(writer.count) - 2 * _PAGE, more))


def _write_rows(writer: RowWriter, chunks: Iterable[tuple[Ids, Vectors]], dimension: int) -> None:
    for ids, vectors in chunks:
        check_vectors(ids, vectors, dimension)
        writer.write(validated_ids(ids), vectors)


def write_vectors_file(path: Path, origin: Origin, chunks: Iterable[tuple[Ids, Vectors]]) -> None:
    """Replace a vectors file atomically: a reader finds the old file or the new one, whole.

    Args:
        path: The file.
        origin: What it is written for.
        chunks: (n,) ids with (n, D) vectors, float32, finite, of unit length.

    Raises:
        OSError: The file cannot be written; the old one is kept.
        VectorIndexError: The vectors are not as above; the old file is kept.
    """
    with _open_replacement(path) as file:
        file.write(bytes(2 * _PAGE))
        file.flush()
        writer = RowWriter(file.fileno(), _layout(origin))
        _write_rows(writer, chunks, origin.dimension)
        file.seek(0)
        file.write(_vectors_page(origin, writer, 0, origin.revision, 0))


def write_payload_file(path: Path, origin: Origin, payload: Any, more: dict[str, Any]) -> None:
    """Replace a file atomically by a header and a payload.

    Args:
        path: The file.
        origin: What it is written for.
        payload: Any buffer of bytes.
        more: A JSON object for the header.
    """
    data = memoryview(payload).cast("B")
    more = more | {_CHECKSUM: hashlib.sha256(data).hexdigest()}
    with _open_replacement(path) as file:
        file.write(_page(PAYLOAD, _Header(origin, data.nbytes, more)))
        file.write(data)


def read_payload_file(path: Path, source: VectorSource) -> tuple[Origin, dict[str, Any], bytes]:
    """Read and verify what `write_payload_file` wrote.

    Args:
        path: The file.
        source: The space that it must have been written from; it may be older.

    Returns:
        The origin, the header's JSON object, and the payload.

    Raises:
        OSError: It is not there, or cannot be read.
        VectorCacheDamaged: It differs in any bit from what was written, or belongs to another space.
    """
    with open(path, "rb") as file:
        header = _read_header(file, path, source, PAYLOAD)
        file.seek(_PAGE)
        payload = file.read()
    if hashlib.sha256(payload).hexdigest() != header.more[_CHECKSUM]:
        raise VectorCacheDamaged(f"{path}: the checksum does not fit.")
    return header.origin, header.more, payload


def read_origin(path: Path, source: VectorSource, kind: bytes) -> tuple[Origin, dict[str, Any]]:
    """Read and verify the header only.

    Args:
        path: The file.
        source: The space that it must have been written from; it may be older.
        kind: `VECTORS` or `PAYLOAD`.

    Returns:
        The origin, and the header's JSON object.

    Raises:
        OSError: It is not there, or cannot be read.
        VectorCacheDamaged: The header is damaged, or of the other kind, or belongs to another space.
    """
    with open(path, "rb") as file:
        header = _read_header(file, path, source, kind)
    return header.origin, header.more


def _page(kind: bytes, header: _Header) -> bytes:
    text = json.dumps(asdict(header), sort_keys=True).encode()
    head = kind + len(text).to_bytes(4, "little") + text
    return (head + hashlib.sha256(head).digest()).ljust(_PAGE, b"\0")


def _read_header(file: IO[bytes], path: Path, source: VectorSource, kind: bytes) -> _Header:
    """Read the header and verify it, the file's kind, size and space."""
    found, header = _newest_header(file, path)
    if found != kind:
        raise VectorCacheDamaged(f"{path}: another kind of index file, or one of an earlier version.")
    if not header.origin.belongs_to(source):
        raise VectorCacheDamaged(f"{path}: written from another space, or another past of the catalogue.")
    body = os.fstat(file.fileno()).st_size - (2 * _PAGE if kind == VECTORS else _PAGE)
    # Behind the rows of a vectors file there may be some that are appended now, or were not to the end.
    if body < header.body_bytes or (kind == PAYLOAD and body > header.body_bytes):
        raise VectorCacheDamaged(f"{path}: {body} bytes where {header.body_bytes} belong.")
    return header


def _newest_header(file: IO[bytes], path: Path) -> tuple[bytes, _Header]:
    """The kind of a file, and its header; of two headers the newer one that is whole."""
    file.seek(0)
    pages, found = [file.read(_PAGE), file.read(_PAGE)], []
    for page in pages:
        with suppress(VectorCacheDamaged):
            found.append(_parse_page(page, path))
        if found and found[0][0] != VECTORS:
            return found[0]
    if not found:
        return _parse_page(pages[0], path)  # says what is wrong
    return max(found, key=lambda one: int(one[1].more["saved"]))


def _parse_page(page: bytes, path: Path) -> tuple[bytes, _Header]:
    kind, length = page[: len(VECTORS)], int.from_bytes(page[len(VECTORS) : _START], "little")
    if kind not in (VECTORS, PAYLOAD) or _START + length + _DIGEST > len(page):
        raise VectorCacheDamaged(f"{path}: not a vector index of this version.")
    head, rest = page[: _START + length], page[_START + length :]
    if hashlib.sha256(head).digest() + bytes(len(rest) - _DIGEST) != rest:
        raise VectorCacheDamaged(f"{path}: the header is damaged.")
    read = json.loads(head[_START:])
    return kind, _Header(Origin(**read["origin"]), read["body_bytes"], read["more"])


def _open_replacement(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path)
