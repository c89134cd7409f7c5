"""Where photos lie: the local file system, or an object storage. All that is asked of either is here.

What is local is asked of the operating system alone, and nothing more is imported for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol

from vitmae_search.address import is_address
from vitmae_search.photos.local_files import LocalFiles
from vitmae_search.records import ScanProblem, Stamp

if TYPE_CHECKING:
    from vitmae_search.photos.object_storage import ObjectStorage


class FileSystem(Protocol):
    """What is asked of a place where photos lie. Paths are absolute; those of a storage are addresses."""

    def scan(
        self,
        root: str,
        *,
        exclude: Sequence[str] = (),
        on_problem: Callable[[ScanProblem], None],
        on_other: Callable[[str], None] | None = None,
        on_left_out: Callable[[str], None] | None = None,
        videos: bool = False,
    ) -> Iterator[Stamp]:
        """Yield the stamp of every photo in a folder.

        Args:
            root: The folder.
            exclude: Patterns of what to skip.
            on_problem: Called with what could not be looked into. If it was not, every photo was yielded.
            on_other: Called with the path of each file that is no photo.
            on_left_out: Called with each folder of a system's or another program's that is skipped.
            videos: Yield videos, too, where they can be read.
        """
        ...

    def read(self, path: str | os.PathLike[str], max_bytes: int) -> bytes:
        """Read a whole file.

        Args:
            path: The file.
            max_bytes: Largest size that is read.

        Raises:
            UnreadablePhoto: It is absent or not permitted; `UnreachablePhoto` where none can be read.
            PhotoTooLarge: It has more than `max_bytes`.
        """
        ...

    def sizes(self, stem: str, suffixes: Sequence[str]) -> dict[str, int]:
        """The sizes in bytes of files that differ in their suffix, by path; of those that are there.

        Args:
            stem: Their path without it.
            suffixes: Those that are looked for, with their dots.

        Raises:
            UnreadablePhoto: A storage does not say it.
        """
        ...

    def is_gone(self, path: str) -> bool:
        """Whether there is no such file; False where that is not known."""
        ...

    def is_folder(self, path: str) -> bool:
        """Whether there is such a folder, and it can be looked into as far as is known."""
        ...

    def why_no_folder(self, path: str) -> str:
        """What to say where `is_folder` is False, after the folder's path."""
        ...

    def identity(self, path: str) -> int | None:
        """A number of the device or bucket that a path is on; None where it is not known, or not reached."""
        ...


_LOCAL = LocalFiles()


def file_system(path: str | os.PathLike[str]) -> FileSystem:
    """The file system that a path, or an address, is on.

    Raises:
        LibraryError: The package that reads this storage is not installed.
    """
    text = os.fspath(path)
    return storage_of(text) if is_address(text) else _LOCAL


def storage_of(address: str) -> ObjectStorage:
    """The storage that an address is on.

    Raises:
        LibraryError: The package that reads it is not installed.
    """
    return opened_storage(address.split("://", 1)[0])


@cache
def opened_storage(scheme: str) -> ObjectStorage:
    """The storage of a scheme, which is opened once.

    Raises:
        LibraryError: The package that reads it is not installed.
    """
    from vitmae_search.photos.object_storage import ObjectStorage  # needs fsspec

    return ObjectStorage.of(scheme)


def scan(
    root: str,
    *,
    exclude: Sequence[str] = (),
    on_problem: Callable[[ScanProblem], None],
    on_other: Callable[[str], None] | None = None,
    on_left_out: Callable[[str], None] | None = None,
    videos: bool = False,
) -> Iterator[Stamp]:
    """Yield the stamp of every photo in a folder, wherever it lies; see `FileSystem.scan`.

    Args:
        root: The folder.
        exclude: Patterns of what to skip; see `photos.scan.exclude_filter`.
        on_problem: Called with what could not be looked into.
        on_other: Called with the path of each file that is no photo.
        on_left_out: Called with the path of each folder that is skipped.
        videos: Yield videos, too, where they can be read.
    """
    return file_system(root).scan(
        root,
        exclude=exclude,
        on_problem=on_problem,
        on_other=on_other,
        on_left_out=on_left_out,
        videos=videos,
    )
