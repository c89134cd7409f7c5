"""The index files: replaced atomically, and verified before they are used.

::

    page of 4096 bytes: magic (8) | length, uint32 LE | header, JSON | SHA-256 of all before (32) | zeros
    body

The header says what the body holds and how many bytes it has. In a vectors file the body is (N, D) float32,
little-endian, and then N int64 ids, whose checksum is verified on opening. Verifying the vectors takes a
second for a gigabyte, so `VectorsFile.verify_checksum` does that later.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors.exact import check_vectors, validated_ids
from vitmae_search.vectors.protocols import Ids, IsCancelled, Vectors, VectorSource, never_cancel
from vitmae_search.vectors.stored_rows import StoredRows

_MAGIC = b"VSVECT04"
_PAGE = 4096
_START = len(_MAGIC) + 4
_DIGEST = 32
VECTORS, PAYLOAD = "vectors_sha256", "payload_sha256"
"""The two kinds of file, each by the checksum that its header has."""

_FLOAT = np.dtype("<f4")
_ID = np.dtype("<i8")
_BLOCK = 1 << 20
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

    It stays readable when the file is replaced or deleted.
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
            header = _read_header(file, path, source, VECTORS)
            self.origin, self._digest = header.origin, header.more[VECTORS]
            shape = (int(header.more["count"]), source.dimension)
            if header.body_bytes != shape[0] * (shape[1] * _FLOAT.itemsize + _ID.itemsize):
                raise VectorCacheDamaged(f"{path}: the header contradicts itself.")
            file.seek(_PAGE + shape[0] * shape[1] * _FLOAT.itemsize)
            ids = file.read()
            if hashlib.sha256(ids).hexdigest() != header.more["ids_sha256"]:
                raise VectorCacheDamaged(f"{path}: the ids are damaged.")
            self.ids: Ids = np.frombuffer(ids, _ID).astype(np.int64)
            self.vectors: Vectors | StoredRows = StoredRows(file.fileno(), path, _PAGE, shape)
            if self.vectors.nbytes <= read_bytes:
                self.vectors = np.empty(shape, np.float32)
                _read_into(file, self.vectors, path)
            self._handle = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._handle)
            self._verified = False

    def is_whole(self) -> bool:
        """Whether the vectors can be read: they are in memory, or the file has its length still."""
        in_memory = isinstance(self.vectors, np.ndarray)
        return in_memory or os.fstat(self._handle).st_size >= _PAGE + self.vectors.nbytes

    def verify_checksum(self, cancelled: IsCancelled = never_cancel) -> bool:
        """Read all vectors once and compare them with their checksum.

        Returns:
            True if they fit; False if they do not, or if `cancelled` returned True.
        """
        if self._verified:
            return True
        digest, place, end = hashlib.sha256(), _PAGE, _PAGE + self.vectors.nbytes
        while place < end:
            block = os.pread(self._handle, min(_BLOCK, end - place), place)
            if not block or cancelled():
                return False
            digest.update(block)
            place += len(block)
        self._verified = digest.hexdigest() == self._digest
        return self._verified


def _read_into(file: IO[bytes], vectors: Vectors, path: Path) -> None:
    if not len(vectors):
        return
    file.seek(_PAGE)
    data, place = vectors.data.cast("B"), 0
    while place < len(data):
        count = file.readinto(data[place:])  # type: ignore[attr-defined]
        if not count:
            raise VectorCacheDamaged(f"{path}: it was cut while it was read.")
        place += count


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
    digest, seen = hashlib.sha256(), [np.empty(0, _ID)]
    with _open_replacement(path) as file:
        file.write(bytes(_PAGE))
        for ids, vectors in chunks:
            check_vectors(ids, vectors, origin.dimension)
            data = np.ascontiguousarray(vectors, _FLOAT).data
            digest.update(data)
            file.write(data)
            seen.append(validated_ids(ids).astype(_ID))
        data = np.concatenate(seen).data
        file.write(data)
        more = {
            "count": data.nbytes // _ID.itemsize,
            VECTORS: digest.hexdigest(),
            "ids_sha256": hashlib.sha256(data).hexdigest(),
        }
        file.seek(0)
        file.write(_page(_Header(origin, os.fstat(file.fileno()).st_size - _PAGE, more)))


def write_payload_file(path: Path, origin: Origin, payload: Any, more: dict[str, Any]) -> None:
    """Replace a file atomically by a header and a payload.

    Args:
        path: The file.
        origin: What it is written for.
        payload: Any buffer of bytes.
        more: A JSON object for the header.
    """
    data = memoryview(payload).cast("B")
    more = more | {PAYLOAD: hashlib.sha256(data).hexdigest()}
    with _open_replacement(path) as file:
        file.write(_page(_Header(origin, data.nbytes, more)))
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
        payload = file.read()
    if hashlib.sha256(payload).hexdigest() != header.more[PAYLOAD]:
        raise VectorCacheDamaged(f"{path}: the checksum does not fit.")
    return header.origin, header.more, payload


def read_origin(path: Path, source: VectorSource, kind: str) -> tuple[Origin, dict[str, Any]]:
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


def _page(header: _Header) -> bytes:
    text = json.dumps(asdict(header), sort_keys=True).encode()
    head = _MAGIC + len(text).to_bytes(4, "little") + text
    return (head + hashlib.sha256(head).digest()).ljust(_PAGE, b"\0")


def _read_header(file: IO[bytes], path: Path, source: VectorSource, kind: str) -> _Header:
    """Read the header and verify it, the file's kind, size and space. `file` then stands at the body."""
    page = file.read(_PAGE)
    length = int.from_bytes(page[len(_MAGIC) : _START], "little")
    if not page.startswith(_MAGIC) or _START + length + _DIGEST > len(page):
        raise VectorCacheDamaged(f"{path}: not a vector index of this version.")
    head, rest = page[: _START + length], page[_START + length :]
    if hashlib.sha256(head).digest() + bytes(len(rest) - _DIGEST) != rest:
        raise VectorCacheDamaged(f"{path}: the header is damaged.")
    read = json.loads(head[_START:])
    header = _Header(Origin(**read["origin"]), read["body_bytes"], read["more"])
    if kind not in header.more:
        raise VectorCacheDamaged(f"{path}: another kind of index file.")
    if not header.origin.belongs_to(source):
        raise VectorCacheDamaged(f"{path}: written from another space, or another past of the catalogue.")
    body = os.fstat(file.fileno()).st_size - len(page)
    if body != header.body_bytes:
        raise VectorCacheDamaged(f"{path}: {body} bytes where {header.body_bytes} belong.")
    return header


def _open_replacement(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path)
