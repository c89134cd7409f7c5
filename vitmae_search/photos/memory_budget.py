"""How much memory decoding may take at a time: what a photo needs is known from its header."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SHARE_OF_MEMORY = 0.5
"""What photos that are being decoded may take of the memory that this process may use."""
UNCOUNTED_BYTES = 32_000_000
"""What a worker may take without asking: photos of cameras and phones, as they are decoded for a model."""

BYTES_PER_PIXEL: Mapping[str, int] = {
    "PNG": 9,
    "WEBP": 18,
    "GIF": 9,
    "TIFF": 12,
    "BMP": 8,
    "AVIF": 16,
    "HEIF": 12,
    "JXL": 12,
    "RAW": 12,
}
"""Most that was measured while a photo was decoded and turned, rounded up; wide samples are allowed for."""
BROKEN_JPEG_BYTES = 14
"""Bytes a pixel while it is found out what a JPEG that breaks off lacks: it is decoded twice."""


def jpeg_bytes_per_pixel(bands: int, shrunk: int, *, progressive: bool) -> float:
    """Return what decoding a JPEG takes for each pixel of the file.

    Args:
        bands: Its color components.
        shrunk: 1, 2, 4 or 8: how many times smaller it is decoded.
        progressive: Whether all coefficients are in memory, two bytes each, until the last scan was read.
    """
    decoded = 8 if bands < 4 else 12
    return decoded / shrunk**2 + (2 * bands if progressive else 0)


class MemoryBudget:
    """Bytes that photos may take while they are decoded, all together. Safe for threads."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._used = 0
        self._changed = threading.Condition()

    def acquire(self, count: int) -> bool:
        """Wait until so many bytes are free, and take them; False for more than there can ever be."""
        if count > self.total:
            return False
        with self._changed:
            self._changed.wait_for(lambda: self._used + count <= self.total)
            self._used += count
        return True

    def release(self, count: int) -> None:
        """Give back what `acquire` took."""
        with self._changed:
            self._used -= count
            self._changed.notify_all()


def memory_limit() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its control group's."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *_group_limits(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))])


def _group_limits(root: Path, own: Path) -> list[int]:
    """The limits of this process's control group and of those around it, of either version, in bytes."""
    limits: list[int] = []
    with suppress(OSError):
        for line in own.read_text("utf-8", "replace").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            folder = root / controllers
            file = "memory.limit_in_bytes" if controllers else "memory.max"
            path = folder / name.lstrip("/")
            for group in (path, *path.parents):
                with suppress(OSError, ValueError):  # "max" is no limit
                    limits.append(int((group / file).read_text("ascii")))
                if group == folder:
                    break
    return limits


BUDGET = MemoryBudget(int(SHARE_OF_MEMORY * memory_limit()))
"""The one of this process."""
