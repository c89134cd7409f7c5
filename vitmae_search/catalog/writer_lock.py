"""The lock that makes one process at a time the library's writer."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from vitmae_search.errors import LibraryBusy, StorageError, display_path

LOCK_NAME = "writer.lock"
PID_NAME = "writer.pid"


class WriterLock:
    """The lock on `<library>/writer.lock`, held from `acquire` to `release`.

    The operating system frees it when the process ends, however it ends. The file `writer.pid` beside it
    names the process that holds it; that is for messages only.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock  # imported here because readers do not need it and it takes a while

        self.folder = folder
        # Not thread-local: another thread than the one that opened the writer may close it.
        self._lock = FileLock(folder / LOCK_NAME, thread_local=False)

    def acquire(self, wait: float) -> None:
        """Take the lock.

        Args:
            wait: Seconds to wait for another process.

        Raises:
            LibraryBusy: Another process still holds it.
            StorageError: The folder cannot be written.
        """
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=wait, poll_interval=0.05)
        except Timeout:
            raise LibraryBusy(
                f"{display_path(self.folder)} is being written by {self._holder()}. Wait until it is done, "
                "or stop it."
            ) from None
        except OSError as error:
            raise StorageError(
                f"{display_path(self.folder)} cannot be written: {error.strerror or error}."
            ) from error
        with suppress(OSError):
            (self.folder / PID_NAME).write_text(f"{os.getpid()}\n", "ascii")

    def release(self) -> None:
        """Free the lock, if it is held."""
        if self._lock.is_locked:
            with suppress(OSError):
                (self.folder / PID_NAME).unlink(missing_ok=True)
            self._lock.release()

    def _holder(self) -> str:
        try:
            return f"process {int((self.folder / PID_NAME).read_text('ascii'))}"
        except (OSError, ValueError):
            return "another process"
