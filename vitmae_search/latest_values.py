"""Values that were used last, kept in memory up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LatestValues(Generic[K, V]):
    """The values that were used last. Safe for threads. The newest one is kept, whatever it takes.

    Args:
        size: What a value takes, such as its bytes.
        limit: What all values may take together, in the units of `size`.
    """

    def __init__(self, size: Callable[[V], int], limit: int) -> None:
        self._size, self._limit, self._total = size, limit, 0
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value of a key; None where it is not kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value, in place of those used longest ago.

        Args:
            key: All that decides the value.
            value: It.
        """
        with self._lock:
            if key in self._values:
                self._total -= self._size(self._values.pop(key))
            self._values[key] = value
            self._total += self._size(value)
            while len(self._values) > 1 and self._total > self._limit:
                self._total -= self._size(self._values.popitem(last=False)[1])

    def get_or_compute(self, key: K, compute: Callable[[], V]) -> V:
        """The value of a key, computed where it is not kept; two threads may compute one value at once.

        Args:
            key: All that decides the value.
            compute: Called without a value; it never returns None.
        """
        value = self.get(key)
        if value is None:
            value = compute()
            self.put(key, value)
        return value
