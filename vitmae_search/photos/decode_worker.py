"""From files to prepared pixels: what a worker of the decode pool does for indexing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from vitmae_search.errors import PhotoError, PluginError, StorageError
from vitmae_search.photos.decode import decode
from vitmae_search.photos.read import digest, photo_fits_memory, read_photo
from vitmae_search.photos.thumbnails import ThumbnailStore
from vitmae_search.photos.worker_process import reserve_memory
from vitmae_search.records import PhotoMetadata

FileError = PhotoError | PluginError
"""An error that concerns one file alone."""


@dataclass(frozen=True, slots=True, eq=False)
class PlainImage:
    """An RGB image as it travels between processes.

    Attributes:
        size: Width and height in pixels.
        pixels: Three bytes each.
        info: As of the image: its color profile, if it has one.
    """

    size: tuple[int, int]
    pixels: bytes
    info: dict[str | tuple[int, int], Any]

    @classmethod
    def of(cls, image: Image.Image) -> PlainImage:
        """Take the pixels of an RGB image."""
        return cls(image.size, image.tobytes(), image.info)

    def image(self) -> Image.Image:
        """The image again."""
        image = Image.frombytes("RGB", self.size, self.pixels)
        image.info = self.info
        return image


DecodedFile = tuple[PhotoMetadata, NDArray[Any] | PlainImage]
"""The metadata of a photo, and its prepared pixels, or the image where nothing prepares them."""


@dataclass(frozen=True, slots=True, eq=False)
class PhotoDecoder:
    """How photos are decoded and prepared; pickles if `prepare` does.

    Attributes:
        prepare: Turns an upright RGB image into an array of one fixed shape. None leaves that to the caller.
        thumbnails: Where thumbnails are stored on the way, if at all.
        shrink_to: As for `photos.decode`.
    """

    prepare: Callable[[Image.Image], NDArray[Any]] | None
    thumbnails: ThumbnailStore | None
    shrink_to: int | None

    def read(self, path: str) -> tuple[str, bytes] | FileError:
        """Return the digest and the bytes of a file."""
        try:
            with photo_fits_memory(path):
                data = read_photo(path)
                return digest(data), data
        except PhotoError as error:
            return error

    def decode(self, path: str, digest: str, data: bytes) -> DecodedFile | FileError:
        """Decode and prepare a file's bytes, and store its thumbnail, which is made again where that fails.

        Args:
            path: For error messages.
            digest: Of `data`; names the thumbnail.
            data: The file's bytes.
        """
        try:
            with photo_fits_memory(path):
                photo = decode(data, path=path, shrink_to=self.shrink_to, reserve=reserve_memory)
                if self.thumbnails is not None:
                    with suppress(StorageError):
                        self.thumbnails.put(digest, photo.image)
                prepare = PlainImage.of if self.prepare is None else self.prepare
                return photo.metadata, prepare(photo.image)
        except (PhotoError, PluginError) as error:
            return error


class DecodeHandler:
    """Reads groups of files in two steps: their digests first, then the pixels of those that are wanted.

    A handler of `DecodePool`, for one thread or one child process.
    """

    def __init__(self, decoder: PhotoDecoder) -> None:
        self._decoder = decoder
        self._files: deque[tuple[str, tuple[str, bytes] | FileError]] = deque()

    def read(
        self, paths: Sequence[str], contents: Sequence[bytes | FileError | None] | None = None
    ) -> list[str | FileError]:
        """Read files into memory, where they stay until `decode`; return the digest of each.

        Args:
            paths: The files.
            contents: What was read already of each, or why it could not be; None for those to be read here.
        """
        found = contents or [None] * len(paths)
        self._files = deque(
            (path, self._decoder.read(path) if data is None else _with_digest(data))
            for path, data in zip(paths, found, strict=True)
        )
        return [found[0] if isinstance(found, tuple) else found for _, found in self._files]

    def decode(self, wanted: Sequence[bool]) -> Iterator[DecodedFile | FileError]:
        """Decode those of the files just read whose flag in `wanted` is set; see `PhotoDecoder.decode`."""
        for want in wanted:
            path, found = self._files.popleft()
            if want and isinstance(found, tuple):
                yield self._decoder.decode(path, *found)


def _with_digest(content: bytes | FileError) -> tuple[str, bytes] | FileError:
    return (digest(content), content) if isinstance(content, bytes) else content
