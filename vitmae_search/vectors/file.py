"""Files of cached indexes: replaced as a whole, and looked at before anything trusts them.

::

    page of 4096 bytes: magic (8) | length, uint32 LE | header, JSON | SHA-256 of all before (32) | zeros
    body

The header says what the body holds, and how many bytes of it. In a vectors file these are (N, D) float32,
little-endian, that are mapped and not read, and then N int64 ids, whose checksum is compared at once. The
checksum of the vectors takes a second for a gigabyte: `VectorsFile.intact` compares it when there is time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors.exact import check_vectors, checked_ids
from vitmae_search.vectors.protocols import Asked, Ids, Vectors, never

_MAGIC = b"VSVECT03"
_PAGE = 4096
_START = len(_MAGIC) + 4
_DIGEST = 32
_FLOAT = np.dtype("<f4")
_ID = np.dtype("<i8")
_BLOCK = 1 << 20
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Which space of which catalogue a file was written for, and at which of its revisions."""

    key: str
    history: str
    dimension: int
    revision: int

    def same_space(self, other: Origin) -> bool:
        """Whether ids and revisions of the two mean the same things."""
        return (self.key, self.history, self.dimension) == (other.key, other.history, other.dimension)


@dataclass(frozen=True, slots=True)
class _Header:
    """`more` is the reader's own; `body_bytes` follow the page."""

    origin: Origin
    body_bytes: int
    more: dict[str, Any]


class VectorsFile:
    """A vectors file that was opened: its ids, and its vectors, mapped.

    What is mapped stays as it is when the file is replaced or deleted.
    """

    def __init__(self, path: Path, wanted: Origin) -> None:
        """Open the file at `path`, if it was written for the space of `wanted`, at whatever revision.

        Raises `FileNotFoundError` or another `OSError`, and `VectorCacheDamaged`.
        """
        self.path = path
        with open(path, "rb") as file:
            header = _read_header(file, path, wanted)
            self.origin, self._digest = header.origin, header.more["vectors_sha256"]
            shape = (int(header.more["count"]), wanted.dimension)
            if header.body_bytes != shape[0] * (shape[1] * _FLOAT.itemsize + _ID.itemsize):
                raise VectorCacheDamaged(f"{path}: the header contradicts itself.")
            file.seek(_PAGE + shape[0] * shape[1] * _FLOAT.itemsize)
            ids = file.read()
            if hashlib.sha256(ids).hexdigest() != header.more["ids_sha256"]:
                raise VectorCacheDamaged(f"{path}: the ids are damaged.")
            self.ids: Ids = np.frombuffer(ids, _ID).astype(np.int64)
            self.vectors: Vectors = np.empty(shape, np.float32)
            if shape[0]:  # nothing cannot be mapped
                self.vectors = np.asarray(np.memmap(file, _FLOAT, "r", _PAGE, shape))
            self._handle = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._handle)
            self._intact = False

    def intact(self, cancelled: Asked = never) -> bool:
        """Read all vectors, once, and compare them with their checksum. False as well if `cancelled`."""
        if self._intact:
            return True
        digest, place, end = hashlib.sha256(), _PAGE, _PAGE + self.vectors.nbytes
        while place < end:
            block = os.pread(self._handle, min(_BLOCK, end - place), place)
            if not block or cancelled():
                return False
            digest.update(block)
            place += len(block)
        self._intact = digest.hexdigest() == self._digest
        return self._intact


def write_vectors_file(path: Path, origin: Origin, chunks: Iterable[tuple[Ids, Vectors]]) -> None:
    """Replace `path` atomically by what comes in chunks of (n,) ids and (n, D) vectors.

    Whoever opens it finds the old file or the new one, whole. Raises `OSError`, and `VectorIndexError` for
    vectors that are not float32, finite and of unit length; the old file is still there then.
    """
    digest, seen = hashlib.sha256(), [np.empty(0, _ID)]
    with _replacing(path) as file:
        file.write(bytes(_PAGE))
        for ids, vectors in chunks:
            check_vectors(ids, vectors, origin.dimension)
            data = np.ascontiguousarray(vectors, _FLOAT).data
            digest.update(data)
            file.write(data)
            seen.append(checked_ids(ids).astype(_ID))
        data = np.concatenate(seen).data
        file.write(data)
        more = {
            "count": data.nbytes // _ID.itemsize,
            "vectors_sha256": digest.hexdigest(),
            "ids_sha256": hashlib.sha256(data).hexdigest(),
        }
        file.seek(0)
        file.write(_page(_Header(origin, os.fstat(file.fileno()).st_size - _PAGE, more)))


def write_payload_file(path: Path, origin: Origin, payload: Any, more: dict[str, Any]) -> None:
    """Replace `path` atomically by a header with `more` (JSON) in it, and the bytes of `payload`."""
    data = memoryview(payload).cast("B")
    more = more | {"payload_sha256": hashlib.sha256(data).hexdigest()}
    with _replacing(path) as file:
        file.write(_page(_Header(origin, data.nbytes, more)))
        file.write(data)


def read_payload_file(path: Path, wanted: Origin) -> tuple[Origin, dict[str, Any], bytes]:
    """What `write_payload_file` wrote for the space of `wanted`: origin, `more`, and the payload.

    Raises `FileNotFoundError` or another `OSError`, and `VectorCacheDamaged` for a file that is not, bit for
    bit, one that was written.
    """
    with open(path, "rb") as file:
        header = _read_header(file, path, wanted)
        payload = file.read()
    if hashlib.sha256(payload).hexdigest() != header.more["payload_sha256"]:
        raise VectorCacheDamaged(f"{path}: the checksum does not fit.")
    return header.origin, header.more, payload


def read_origin(path: Path, wanted: Origin) -> tuple[Origin, dict[str, Any]]:
    """What the header alone says; the body is not read. Raises as `VectorsFile` does."""
    with open(path, "rb") as file:
        header = _read_header(file, path, wanted)
    return header.origin, header.more


def _page(header: _Header) -> bytes:
    text = json.dumps(asdict(header), sort_keys=True).encode()
    head = _MAGIC + len(text).to_bytes(4, "little") + text
    return (head + hashlib.sha256(head).digest()).ljust(_PAGE, b"\0")


def _read_header(file: IO[bytes], path: Path, wanted: Origin) -> _Header:
    """The header, once it, the file's size and the space are right; `file` is at the body then."""
    page = file.read(_PAGE)
    length = int.from_bytes(page[len(_MAGIC) : _START], "little")
    if not page.startswith(_MAGIC) or _START + length + _DIGEST > len(page):
        raise VectorCacheDamaged(f"{path}: not a vector index of this version.")
    head, rest = page[: _START + length], page[_START + length :]
    if hashlib.sha256(head).digest() + bytes(len(rest) - _DIGEST) != rest:
        raise VectorCacheDamaged(f"{path}: the header is damaged.")
    read = json.loads(head[_START:])
    header = _Header(Origin(**read["origin"]), read["body_bytes"], read["more"])
    if not header.origin.same_space(wanted):
        raise VectorCacheDamaged(f"{path}: written for another embedding space or catalogue.")
    body = os.fstat(file.fileno()).st_size - len(page)
    if body != header.body_bytes:
        raise VectorCacheDamaged(f"{path}: {body} bytes where {header.body_bytes} belong.")
    return header


def _replacing(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    return write_atomically(path)


def _remove_stale(path: Path) -> None:
    """Delete what killed processes left; a young file may be one that is being written."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()
