"""From files to prepared pixels, many at a time: in this process, or in one of its own.

Reading ahead in threads is bound by Python's lock, which a small photo needs for about a sixth of its time,
so that threads cannot use more than a few cores for such.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.errors import PhotoError, PhotoTooLarge, PluginError
from vitmae_search.photos import subprocess_worker
from vitmae_search.photos.decode import decode
from vitmae_search.photos.read import digest, read_photo
from vitmae_search.photos.thumbnails import ThumbnailStore
from vitmae_search.records import PhotoMetadata

FileError = PhotoError | PluginError
"""What concerns one file alone."""
Decoded = tuple[PhotoMetadata, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class PhotoDecoder:
    """How photos are decoded; pickles if `prepare` does.

    `prepare` makes an upright RGB picture an array of one shape; `shrink_to` is `photos.decode`'s.
    """

    prepare: Callable[[Image.Image], NDArray[Any]]
    thumbnails: ThumbnailStore | None
    shrink_to: int | None

    def read(self, path: str) -> tuple[str, bytes] | FileError:
        """Digest and bytes of a file."""
        try:
            data = read_photo(path)
            return digest(data), data
        except PhotoError as error:
            return error
        except MemoryError:
            return _too_large(path)

    def decode(self, path: str, name: str, data: bytes) -> Decoded | FileError:
        """Metadata and what `prepare` gives of bytes with digest `name`; a thumbnail is kept on the way.

        Raises only what concerns the whole run (`StorageError`, bugs).
        """
        try:
            photo = decode(data, path=path, shrink_to=self.shrink_to)
            if self.thumbnails is not None:
                self.thumbnails.put(name, photo.image)
            return photo.metadata, self.prepare(photo.image)
        except (PhotoError, PluginError) as error:
            return error
        except MemoryError:
            return _too_large(path)


class Decoding:
    """Some files after others, each some in two steps. Used by one thread."""

    def __init__(self, decoder: PhotoDecoder) -> None:
        self._decoder = decoder
        self._read: deque[tuple[str, tuple[str, bytes] | FileError]] = deque()

    def read(self, paths: Sequence[str]) -> list[str | FileError]:
        """Read files, which are in memory until `decode`; the digest of each."""
        self._read = deque((path, self._decoder.read(path)) for path in paths)
        return [found[0] if isinstance(found, tuple) else found for _, found in self._read]

    def decode(self, wanted: Sequence[bool]) -> Iterator[Decoded | FileError]:
        """Decode those of the files just read that are wanted; see `PhotoDecoder.decode`."""
        for want in wanted:
            path, found = self._read.popleft()
            if want and isinstance(found, tuple):
                yield self._decoder.decode(path, *found)


def _too_large(path: str) -> PhotoTooLarge:
    return PhotoTooLarge(path, "too large for this machine's memory")


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """The other end of `indexing.processes`, until `requests` ends. Both are binary streams.

    First comes a `PhotoDecoder`, for which goes True. Then, in turn, a list of paths, for which goes a list
    of digests or errors, and a list of whether each is wanted, for which goes, one by one, its metadata or
    error; after metadata the pixels' bytes as they are in memory. Where the run cannot go on, `Failed` goes,
    and that is the end.
    """

    try:
        decoding = Decoding(pickle.load(requests))  # noqa: S301  our parent's
        _say(True, answers)
        while True:
            answers.flush()
            _say(decoding.read(pickle.load(requests)), answers)  # noqa: S301
            answers.flush()
            for decoded in decoding.decode(pickle.load(requests)):  # noqa: S301
                if isinstance(decoded, tuple):
                    metadata, pixels = decoded
                    _say(metadata, answers)
                    answers.write(np.ascontiguousarray(pixels).data.cast("B"))
                else:
                    _say(decoded, answers)
    except (EOFError, BrokenPipeError):
        return
    except BaseException as error:
        with suppress(OSError):
            answers.write(_pickled(error))
            answers.flush()


def _say(answer: object, answers: IO[bytes]) -> None:
    pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)


def _pickled(error: BaseException) -> bytes:
    """As `Failed`, whatever the exception is made of."""
    try:
        whole = pickle.dumps(Failed(error))
        pickle.loads(whole)  # noqa: S301  some pickle well, and cannot be made again
        return whole
    except Exception:
        return pickle.dumps(Failed(RuntimeError(repr(error))))


@dataclass(frozen=True, slots=True)
class Failed:
    """What ended the process."""

    error: BaseException


def main() -> None:
    """Serve on stdin and stdout; what a plugin prints goes to stderr."""
    serve(*subprocess_worker.pipes())
