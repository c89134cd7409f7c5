"""Photos in folders of the operating system: the disks of this machine, and what is mounted on it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from vitmae_search.errors import PhotoTooLarge, UnreadablePhoto
from vitmae_search.photos.scan import scan
from vitmae_search.records import file_of
from vitmae_search.regular_file import open_regular_file


class LocalFiles:
    """The operating system's files; a `FileSystem`."""

    scan = staticmethod(scan)

    def read(self, path: str | os.PathLike[str], max_bytes: int) -> bytes:
        """Read a whole regular file.

        Args:
            path: The file.
            max_bytes: Largest size that is read.

        Raises:
            UnreadablePhoto: It is absent, not permitted or a folder, or the disk has an error.
            PhotoTooLarge: It has more than `max_bytes`.
        """
        try:
            with open_regular_file(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size > max_bytes:
                    raise PhotoTooLarge.of_bytes(path, size, max_bytes)
                data = file.read(max_bytes + 1)  # it may have grown since
        except OSError as error:
            raise UnreadablePhoto(path, error.strerror or str(error)) from error
        except ValueError as error:  # a null byte in the name
            raise UnreadablePhoto(path, str(error)) from error
        if len(data) > max_bytes:
            raise PhotoTooLarge.of_bytes(path, len(data), max_bytes)
        return data

    def sizes(self, stem: str, suffixes: Sequence[str]) -> dict[str, int]:
        """The sizes of files that differ in their suffix; of those that are there.

        Args:
            stem: Their path without it.
            suffixes: Those that are looked for.
        """
        found = {}
        for path in (stem + suffix for suffix in suffixes):
            with suppress(OSError, ValueError):
                status = os.stat(path)
                if stat.S_ISREG(status.st_mode):
                    found[path] = status.st_size
        return found

    def is_gone(self, path: str) -> bool:
        """Whether there is no such file; False where that is not known, as in a folder without access."""
        try:
            os.lstat(file_of(path))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False

    def is_folder(self, path: str) -> bool:
        """Whether there is such a folder."""
        return os.path.isdir(path)

    def why_no_folder(self, path: str) -> str:
        """What to say where there is none."""
        if os.path.exists(path):
            return "is a file; name the folder that it is in"
        return "is not there; check the name, or attach its drive"

    def identity(self, path: str) -> int | None:
        """The device (`st_dev`) of a path or, where nothing is there, of the nearest folder above it.

        A link is followed, also where what it points to is absent. None: that cannot be told.
        """
        place = os.path.realpath(path)
        while not os.path.lexists(place) and os.path.dirname(place) != place:
            place = os.path.dirname(place)
        try:
            return os.stat(place).st_dev
        except OSError:
            return None
