"""The file of a cached index: one file, replaced as a whole, verified before FAISS sees a byte.

::

    magic (8) | header length, uint32 LE | header, JSON | SHA-256 of all before (32) | payload

The header has the key, history, dimension, count, revision, and the payload's length and SHA-256. FAISS's own
files have no checksum, most bit flips in them load silently, and `faiss.write_index` truncates in place.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors.flat import FlatIndex

_MAGIC = b"VSVECT01"
_LENGTH = 4
_DIGEST = 32
_LONGEST_HEADER = 1 << 16
_STALE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Header:
    key: str
    history: str
    dimension: int
    count: int
    revision: int
    payload_bytes: int
    payload_sha256: str


def write_index_file(path: Path, key: str, history: str, index: FlatIndex, revision: int) -> None:
    """Replace `path` atomically: whoever opens it finds the old file or the new one, whole.

    Raises `OSError`; the old file is still there then.
    """
    payload = index.to_bytes()
    digest = hashlib.sha256(payload.data).hexdigest()
    header = _Header(key, history, index.dimension, len(index), revision, payload.nbytes, digest)
    text = json.dumps(asdict(header), sort_keys=True).encode()
    head = _MAGIC + len(text).to_bytes(_LENGTH, "little") + text
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    with write_atomically(path) as file:
        file.write(head + hashlib.sha256(head).digest())
        file.write(payload.data)


def read_index_file(path: Path, key: str, history: str, dimension: int) -> tuple[FlatIndex, int]:
    """The index at `path` and its revision.

    Raises `FileNotFoundError` or another `OSError`, and `VectorCacheDamaged` for a file that is not,
    bit for bit, one that was written for this key, history and dimension.
    """
    with open(path, "rb") as file:
        header = _read_header(file.read(len(_MAGIC) + _LENGTH), file.read, path)
        if (header.key, header.history, header.dimension) != (key, history, dimension):
            raise VectorCacheDamaged(f"{path}: written for another embedding space or catalogue.")
        payload = np.frombuffer(file.read(), np.uint8)
    if payload.nbytes != header.payload_bytes:
        raise VectorCacheDamaged(f"{path}: {payload.nbytes} bytes where {header.payload_bytes} belong.")
    if hashlib.sha256(payload.data).hexdigest() != header.payload_sha256:
        raise VectorCacheDamaged(f"{path}: the checksum does not fit.")
    index = FlatIndex.from_bytes(payload, dimension)
    if len(index) != header.count:
        raise VectorCacheDamaged(f"{path}: {len(index)} vectors where {header.count} belong.")
    return index, header.revision


def _read_header(start: bytes, read: Callable[[int], bytes], path: Path) -> _Header:
    length = int.from_bytes(start[len(_MAGIC) :], "little")
    if not start.startswith(_MAGIC) or length > _LONGEST_HEADER:
        raise VectorCacheDamaged(f"{path}: not a vector index of this version.")
    text, digest = read(length), read(_DIGEST)
    if hashlib.sha256(start + text).digest() != digest:
        raise VectorCacheDamaged(f"{path}: the header is damaged.")
    return _Header(**json.loads(text))


def _remove_stale(path: Path) -> None:
    """Delete what killed processes left; a young file may be one that is being written."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()
