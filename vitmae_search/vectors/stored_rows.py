"""`StoredRows`: a matrix in a file, whose rows are read when they are asked for; `RowWriter` appends to it.

The file has blocks of 4,096 rows::

    SHA-256 of the ids (32) | SHA-256 of the vectors (32) | 4096 ids, int64 LE | 4096 vectors, D float32 LE

A block gets its checksums once it is full. Those of the last one are the file's header's, which also says how
many rows there are: what lies behind them does not count.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import numpy as np

from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors.protocols import Ids, Rows, Vectors

FLOAT, ID = np.dtype("<f4"), np.dtype("<i8")
BLOCK_ROWS = 4096
_DIGEST = hashlib.sha256().digest_size
_READ_BYTES = 1 << 20
"""What one read takes in: it stays in the CPU's cache until it is used."""

Number = TypeVar("Number", int, Rows)


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """Where rows are in a file of blocks.

    Attributes:
        start: Where the first block begins, in bytes.
        dimension: Numbers in a vector.
    """

    start: int
    dimension: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a vector."""
        return self.dimension * FLOAT.itemsize

    def block_place(self, row: Number) -> Number:
        """Where the block of a row begins."""
        block_bytes = 2 * _DIGEST + BLOCK_ROWS * (ID.itemsize + self.row_bytes)
        return self.start + row // BLOCK_ROWS * block_bytes

    def id_place(self, row: int) -> int:
        """Where a row's id is."""
        return self.block_place(row) + 2 * _DIGEST + row % BLOCK_ROWS * ID.itemsize

    def vector_place(self, row: Number) -> Number:
        """Where a row's vector is."""
        vectors = 2 * _DIGEST + BLOCK_ROWS * ID.itemsize
        return self.block_place(row) + vectors + row % BLOCK_ROWS * self.row_bytes

    def end(self, rows: int) -> int:
        """Where a file of so many rows ends."""
        return self.vector_place(rows - 1) + self.row_bytes if rows else self.start


class StoredRows:
    """(N, D) float32 in the blocks of an open file.

    Rows are read, not mapped: a file that was cut, or whose disk fails, then gives an error, where a mapping
    ends the process. The file stays readable when it is appended to, replaced or deleted. Safe for threads.
    """

    def __init__(self, file: int, path: Path, layout: BlockLayout, count: int) -> None:
        """Keep a file open for reading.

        Args:
            file: Its descriptor, which is duplicated.
            path: Its name, for errors.
            layout: Where rows are.
            count: N.
        """
        self.shape, self.layout, self._path = (count, layout.dimension), layout, path
        self._file = os.dup(file)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.layout.row_bytes

    def __getitem__(self, rows: Rows) -> Vectors:
        """Read the (n, D) float32 of n row numbers.

        Raises:
            VectorCacheDamaged: The file has become shorter, or cannot be read.
        """
        # Rows that follow each other are read at once.
        places = self.layout.vector_place(rows)
        ends = (np.flatnonzero(np.diff(places) != self.layout.row_bytes) + 1).tolist()
        starts = [0, *ends] if len(rows) else []
        sizes = (np.diff([*starts, len(rows)]) * self.layout.row_bytes).tolist()
        data = self._read(sizes, places[starts].tolist())
        return np.frombuffer(data, FLOAT).astype(np.float32).reshape(-1, self.shape[1])

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """Yield all rows in order, as (number of the first row, (n, D) float32).

        Raises:
            VectorCacheDamaged: As for a row.
        """
        step = max(1, _READ_BYTES // self.layout.row_bytes)
        for first in range(0, len(self), BLOCK_ROWS):
            end = min(first + BLOCK_ROWS, len(self))
            for start in range(first, end, step):
                size = min(step, end - start) * self.layout.row_bytes
                data = self._read([size], [self.layout.vector_place(start)])
                yield start, np.frombuffer(data, FLOAT).reshape(-1, self.shape[1])

    def is_whole(self) -> bool:
        """Whether the file has its length still."""
        return os.fstat(self._file).st_size >= self.layout.end(len(self))

    def is_in(self, file: int) -> bool:
        """Whether the descriptor `file` is of the same file."""
        return os.path.sameopenfile(self._file, file)

    def stored_ids(self, last_digest: str) -> Ids:
        """Read all ids and compare them with their checksums.

        Args:
            last_digest: Checksum of those of the last block, if that is not full.

        Raises:
            VectorCacheDamaged: They differ, or cannot be read.
        """
        ids = np.empty(len(self), ID)
        for first in range(0, len(self), BLOCK_ROWS):
            own = ids[first : first + BLOCK_ROWS]
            data = self._read(
                [_DIGEST, own.nbytes], [self.layout.block_place(first), self.layout.id_place(first)]
            )
            expected = data[:_DIGEST] if len(own) == BLOCK_ROWS else bytes.fromhex(last_digest)
            if hashlib.sha256(data[_DIGEST:]).digest() != expected:
                raise VectorCacheDamaged(f"{self._path}: the ids are damaged.")
            own[:] = np.frombuffer(data, ID, offset=_DIGEST)
        return ids.astype(np.int64)

    def fitting_blocks(self, last_digest: str) -> Iterator[bool]:
        """Read all vectors, and yield of each block whether they fit their checksum.

        Args:
            last_digest: Checksum of those of the last block, if that is not full.

        Raises:
            VectorCacheDamaged: The file has become shorter, or cannot be read.
        """
        for first in range(0, len(self), BLOCK_ROWS):
            size = min(BLOCK_ROWS, len(self) - first) * self.layout.row_bytes
            places = [self.layout.block_place(first) + _DIGEST, self.layout.vector_place(first)]
            data = memoryview(self._read([_DIGEST, size], places))
            full = first + BLOCK_ROWS <= len(self)
            expected = data[:_DIGEST] if full else bytes.fromhex(last_digest)
            yield hashlib.sha256(data[_DIGEST:]).digest() == expected

    def _read(self, sizes: Sequence[int], places: Sequence[int]) -> bytes:
        """Read stretches of the file. A search reads a thousand rows: no line of Python runs between them.

        Args:
            sizes: Bytes of each.
            places: Where each begins.
        """
        try:
            data = b"".join(map(os.pread, repeat(self._file), sizes, places))
        except OSError as error:
            raise VectorCacheDamaged(f"{self._path} cannot be read: {error.strerror}.") from error
        if len(data) < sum(sizes):
            raise VectorCacheDamaged(f"{self._path}: it was cut while it was searched; search again.")
        return data


class RowWriter:
    """Writes ids and vectors behind the rows that a file has.

    Attributes:
        count: Rows that the file has.
    """

    def __init__(self, file: int, layout: BlockLayout, count: int = 0) -> None:
        """Go on behind the rows that there are.

        Args:
            file: A descriptor for reading and writing.
            layout: Where rows are.
            count: How many there are, each with its bytes in the file.
        """
        self._file, self._layout, self.count = file, layout, count
        some = count % BLOCK_ROWS
        first = count - some
        self._ids = hashlib.sha256(os.pread(file, some * ID.itemsize, layout.id_place(first)))
        vectors = os.pread(file, some * layout.row_bytes, layout.vector_place(first))
        self._vectors = hashlib.sha256(vectors)

    @property
    def last_digests(self) -> tuple[str, str]:
        """Checksums of the ids and the vectors in the last block, hexadecimal; of none if it is full."""
        return self._ids.hexdigest(), self._vectors.hexdigest()

    def write(self, ids: Ids, vectors: Vectors) -> None:
        """Write rows.

        Args:
            ids: (n,) int64.
            vectors: (n, D) float32.

        Raises:
            OSError: They cannot be written.
        """
        start = 0
        while start < len(ids):
            some = slice(start, start + BLOCK_ROWS - self.count % BLOCK_ROWS)
            self._write_into_block(ids[some].astype(ID), np.ascontiguousarray(vectors[some], FLOAT))
            start = some.stop

    def _write_into_block(self, ids: Ids, vectors: Vectors) -> None:
        self._ids.update(ids.data)
        self._vectors.update(vectors.data)
        write_all(self._file, ids.data.cast("B"), self._layout.id_place(self.count))
        write_all(self._file, vectors.data.cast("B"), self._layout.vector_place(self.count))
        self.count += len(ids)
        if self.count % BLOCK_ROWS == 0:
            digests = self._ids.digest() + self._vectors.digest()
            write_all(self._file, digests, self._layout.block_place(self.count - 1))
            self._ids, self._vectors = hashlib.sha256(), hashlib.sha256()


def write_all(file: int, data: memoryview | bytes, place: int) -> None:
    """Write bytes at a place of a file, all of them.

    Args:
        file: Its descriptor.
        data: The bytes.
        place: Where the first one comes.

    Raises:
        OSError: They cannot be written.
    """
    while data:
        written = os.pwrite(file, data, place)
        data, place = data[written:], place + written
