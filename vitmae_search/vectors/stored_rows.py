"""`StoredRows`: a matrix in a file, whose rows are read when they are asked for."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from vitmae_search.errors import VectorCacheDamaged
from vitmae_search.vectors.protocols import Rows, Vectors

_FLOAT = np.dtype("<f4")
_BLOCK_BYTES = 1 << 20
"""What one read takes in: it stays in the CPU's cache until it is used."""


class StoredRows:
    """(N, D) float32, little-endian, in an open file.

    Rows are read, not mapped: a file that was cut, or whose disk fails, then gives an error, where a mapping
    ends the process. The file stays readable when it is replaced or deleted. Safe for threads.
    """

    def __init__(self, file: int, path: Path, offset: int, shape: tuple[int, int]) -> None:
        """Keep a file open for reading.

        Args:
            file: Its descriptor, which is duplicated.
            path: Its name, for errors.
            offset: Where the first row begins, in bytes.
            shape: (N, D).
        """
        self.shape, self._path, self._offset = shape, path, offset
        self._row_bytes = shape[1] * _FLOAT.itemsize
        self._file = os.dup(file)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self._row_bytes

    def __getitem__(self, rows: Rows) -> Vectors:
        """Read the (n, D) float32 of n row numbers.

        Raises:
            VectorCacheDamaged: The file has become shorter, or cannot be read.
        """
        # Rows that follow each other are read at once.
        ends = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
        starts = [0, *ends] if len(rows) else []
        sizes = (np.diff([*starts, len(rows)]) * self._row_bytes).tolist()
        places = (rows[starts] * self._row_bytes + self._offset).tolist()
        data = self._read(sizes, places)
        return np.frombuffer(data, _FLOAT).astype(np.float32).reshape(-1, self.shape[1])

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """Yield all rows in order, as (number of the first row, (n, D) float32).

        Raises:
            VectorCacheDamaged: As for a row.
        """
        step = max(1, _BLOCK_BYTES // self._row_bytes)
        for start in range(0, len(self), step):
            size = min(step, len(self) - start) * self._row_bytes
            block = np.frombuffer(self._read([size], [self._offset + start * self._row_bytes]), _FLOAT)
            yield start, block.reshape(-1, self.shape[1])

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
