"""A set of rows' ids that takes a bit for each id: of fifty million rows, six megabytes."""

from __future__ import annotations


class IdSet:
    """A set of ids of one table, which are positive and dense."""

    def __init__(self) -> None:
        """Begin empty."""
        self._bits = bytearray()
        self._count = 0

    def add(self, number: int) -> None:
        """Add an id; one that is in the set already changes nothing."""
        byte, bit = number >> 3, 1 << (number & 7)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits) + len(self._bits) // 8))
        if not self._bits[byte] & bit:
            self._bits[byte] |= bit
            self._count += 1

    def __contains__(self, number: int) -> bool:
        """Whether an id is in the set."""
        byte = number >> 3
        return byte < len(self._bits) and bool(self._bits[byte] & (1 << (number & 7)))

    def __len__(self) -> int:
        """How many ids are in the set."""
        return self._count
