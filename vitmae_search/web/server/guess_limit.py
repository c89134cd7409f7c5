"""A limit on wrong passwords: a few at once for each visitor, and some more for all of them together."""

from __future__ import annotations

import ipaddress
import time
from collections import deque
from collections.abc import Callable

WINDOW = 300.0
"""Seconds within which wrong guesses are counted."""

PER_VISITOR, ALL_VISITORS = 5, 50
"""How many wrong guesses are answered within `WINDOW`."""


class GuessLimit:
    """Counts wrong guesses by the visitor's network address; IPv6 by /64, the network that one visitor has.

    Not thread-safe: the event loop alone uses it. At most `ALL_VISITORS` guesses are remembered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guesses: deque[tuple[float, str]] = deque()

    def seconds_to_wait(self, address: str) -> float:
        """How long this visitor must wait before a guess is looked at; 0 is not at all."""
        now = self._clock()
        while self._guesses and self._guesses[0][0] <= now - WINDOW:
            self._guesses.popleft()
        visitor = _visitor(address)
        own = [at for at, of in self._guesses if of == visitor]
        everyone = [at for at, _ in self._guesses]
        ends = [
            guesses[-limit] + WINDOW
            for guesses, limit in ((own, PER_VISITOR), (everyone, ALL_VISITORS))
            if len(guesses) >= limit
        ]
        return max(ends, default=now) - now

    def record_wrong_guess(self, address: str) -> None:
        """Count a guess that was looked at and was wrong."""
        self._guesses.append((self._clock(), _visitor(address)))


def _visitor(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((int(found), 64), strict=False))
