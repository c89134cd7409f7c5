"""Decoding single photos where it can be killed: for the app, and wherever no pool of `DecodePool` runs.

Processes are kept for the next photo. They run none of a plugin's code.
"""

from __future__ import annotations

import atexit
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from vitmae_search.errors import DamagedPhoto, PhotoError, StorageError
from vitmae_search.photos.browsers import browsers_show_alike, encode_webp
from vitmae_search.photos.decode import DecodedPhoto, decode
from vitmae_search.photos.decode_worker import PlainImage
from vitmae_search.photos.prefetch import default_workers
from vitmae_search.photos.read import digest, is_stored_photo, photo_fits_memory, read_photo
from vitmae_search.photos.thumbnails import THUMBNAIL_SIDE, ThumbnailStore, encode_thumbnail
from vitmae_search.photos.worker_process import WorkerDied, WorkerProcess, reserve_memory
from vitmae_search.records import PhotoMetadata, VideoFrame

R = TypeVar("R")

_CPU_SECONDS = 30
_WALL_SECONDS = 120
"""Limits for one photo: somebody waits."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedPhoto:
    """A photo's file that was read and decoded.

    Attributes:
        digest: Of its bytes.
        image: RGB and upright.
    """

    digest: str
    image: Image.Image


class PhotoProcesses:
    """Processes that call functions on photos. Safe for threads; as many run as there are cores."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(max(2, default_workers()))
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._closed = False

    def decode(
        self, data: bytes, *, path: str | os.PathLike[str] | None = None, shrink_to: int | None = None
    ) -> DecodedPhoto:
        """Decode the bytes of a photo, as `photos.decode` does.

        Args:
            data: The file's bytes.
            path: For error messages.
            shrink_to: As for `photos.decode`.

        Raises:
            PhotoError: As of `photos.decode`; `DamagedPhoto` where it ends its process, or takes too long.
        """
        plain, metadata = self.call(_decode, data, path, shrink_to, path=path)
        return DecodedPhoto(plain.image(), metadata)

    def load(self, path: str, shrink_to: int | None = None) -> LoadedPhoto:
        """Read and decode a photo's file.

        Args:
            path: The file.
            shrink_to: As for `photos.decode`.

        Raises:
            PhotoError: It cannot be read or decoded.
        """
        name, plain = self.call(_load, _picture(path), path, shrink_to, path=path)
        return LoadedPhoto(name, plain.image())

    def read(self, path: str) -> bytes:
        """Read a photo's file, as `read_photo` does, which decodes a video for a frame.

        Raises:
            PhotoError: It cannot be read.
        """
        return read_photo(path) if VideoFrame.of(path) is None else self.call(read_photo, path, path=path)

    def thumbnail(self, path: str, store: ThumbnailStore) -> bytes:
        """Make the thumbnail of a photo's file, and store it under the digest of what was read.

        Args:
            path: The file.
            store: Where it is stored, if it can be written.

        Raises:
            PhotoError: The file cannot be read or decoded.
        """
        return self.call(_thumbnail, _picture(path), path, store, path=path)

    def preview(self, picture: str | bytes, side: int) -> bytes:
        """A photo as upright WebP.

        Args:
            picture: A file's path, or a file's bytes.
            side: Pixels of the longer side at most.

        Raises:
            PhotoError: It cannot be read or decoded.
        """
        path = picture if isinstance(picture, str) else None
        picture = picture if path is None else _picture(path)
        return self.call(_preview, picture, path, side, path=path)

    def is_shown_by_browsers(self, picture: str | bytes) -> bool:
        """Whether browsers show a photo's file, or its bytes, as it is decoded here (`browsers_show_alike`).

        Raises:
            PhotoError: It cannot be read.
        """
        path = picture if isinstance(picture, str) else None
        return self.call(_is_shown_by_browsers, picture if path is None else _picture(path), path=path)

    def call(
        self, function: Callable[..., R], *arguments: Any, path: str | os.PathLike[str] | None = None
    ) -> R:
        """Call a function in a process; once more in a new one where that dies.

        Args:
            function: A function of a module, which is imported there.
            *arguments: Its arguments, which pickle.
            path: For error messages.

        Raises:
            PhotoError: What the function raises; or its process died twice, or took too long.
        """
        with self._places:
            for tries in (1, 2):
                try:
                    answer = self._call(function, arguments)
                    break
                except WorkerDied as died:
                    if tries == 2 or died.out_of_time or self._closed:
                        raise DamagedPhoto(path, died.reason) from died
        if isinstance(answer, PhotoError):
            raise answer
        result: R = answer
        return result

    def close(self) -> None:
        """End all processes, whatever they do; no other is started."""
        self._closed = True
        self.end_all()

    def end_all(self) -> None:
        """End all processes, whatever they do."""
        with self._lock:
            processes = [*self._idle, *self._busy]
            self._idle.clear()
        for process in processes:
            process.close()

    def forget(self) -> None:
        """Leave the processes to the process that this one was forked from."""
        self.__init__()  # type: ignore[misc]

    def _call(self, function: Callable[..., R], arguments: tuple[Any, ...]) -> Any:
        process = self._take()
        reusable = False
        try:
            answer = process.call("call", function, arguments)[0]
            reusable = True
        finally:
            with self._lock:
                self._busy.discard(process)
                reusable = reusable and not self._closed
                if reusable:
                    self._idle.append(process)
            if not reusable:  # after Ctrl-C, too: its answer may still come
                process.close()
        return answer

    def _take(self) -> WorkerProcess:
        with self._lock:
            if self._closed:
                raise WorkerDied
            process = self._idle.pop() if self._idle else None
            if process is not None:
                self._busy.add(process)
                return process
        try:
            started = WorkerProcess(_FACTORY, _CPU_SECONDS, _WALL_SECONDS)
        except OSError as error:
            raise WorkerDied(f"no process can be started to decode it: {error.strerror}") from error
        with self._lock:
            self._busy.add(started)
        return started


class _Caller:
    """What the processes run."""

    def call(self, function: Callable[..., R], arguments: tuple[Any, ...]) -> Iterator[R | PhotoError]:
        try:
            yield function(*arguments)
        except PhotoError as error:
            yield error


_FACTORY = pickle.dumps(_Caller)

PHOTO_PROCESSES = PhotoProcesses()
"""Those of this process, for whoever has one photo."""
atexit.register(PHOTO_PROCESSES.end_all)
os.register_at_fork(after_in_child=PHOTO_PROCESSES.forget)


def _decode(data: bytes, path: str | None, shrink_to: int | None) -> tuple[PlainImage, PhotoMetadata]:
    with photo_fits_memory(path):
        photo = decode(data, path=path, shrink_to=shrink_to, reserve=reserve_memory)
        return PlainImage.of(photo.image), photo.metadata


def _picture(path: str) -> str | bytes:
    """What a process is given of a photo: its path or, of a photo on a storage, its bytes.

    Of a frame it is the path as well: the process decodes the video, and asks for what it needs of it.
    """
    return read_photo(path) if is_stored_photo(path) else path


def _bytes_of(picture: str | bytes) -> bytes:
    return picture if isinstance(picture, bytes) else read_photo(picture)


def _load(picture: str | bytes, path: str, shrink_to: int | None) -> tuple[str, PlainImage]:
    with photo_fits_memory(path):
        data = _bytes_of(picture)
        image = decode(data, path=path, shrink_to=shrink_to, reserve=reserve_memory).image
        return digest(data), PlainImage.of(image)


def _thumbnail(picture: str | bytes, path: str, store: ThumbnailStore) -> bytes:
    with photo_fits_memory(path):
        data = _bytes_of(picture)
        image = decode(data, path=path, shrink_to=THUMBNAIL_SIDE, reserve=reserve_memory).image
    name = digest(data)  # the file may have changed since it was indexed
    with suppress(StorageError):
        store.put(name, image)
    return store.get(name) or encode_thumbnail(image)


def _preview(picture: str | bytes, path: str | None, side: int) -> bytes:
    with photo_fits_memory(path):
        data = _bytes_of(picture)
        image = decode(data, path=path, shrink_to=side, reserve=reserve_memory).image
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return encode_webp(image)


def _is_shown_by_browsers(picture: str | bytes) -> bool:
    return browsers_show_alike(_bytes_of(picture))
