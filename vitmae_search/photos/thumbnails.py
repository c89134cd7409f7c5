"""Thumbnails: small JPEG files named by digest, made once, while a photo is decoded.

WebP files would have three fifths of the bytes, and take ten to twenty-five times as long to encode: longer
than decoding the photo.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO

from PIL import Image

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import StorageError, display_path
from vitmae_search.photos.color import to_srgb

THUMBNAIL_SIDE = 320
"""About the longer side in pixels: larger photos are divided by a whole number, which gives 240 to 479."""
_QUALITY = 85
_MAX_PROFILE_BYTES = 16_384
_CHECKSUM = b"sha256 "
"""Before 64 hex digits, the comment of a stored file: the SHA-256 of the photo's digest and the file's bytes
with zeros for these digits. So a file that was renamed is no other photo's."""
_NO_DIGITS = b"0" * 64
_DIGEST = re.compile(r"[0-9a-f]{64}")


def encode_thumbnail(image: Image.Image) -> bytes:
    """Encode an RGB image as JPEG, its longer side about `THUMBNAIL_SIDE` pixels, never enlarged.

    An `icc_profile` in `image.info` is embedded, so that a browser shows the right colors. In place of a
    large one, such as a scanner's, the colors are converted to sRGB.
    """
    buffer = BytesIO()
    _save(image, buffer)
    return buffer.getvalue()


class ThumbnailStore:
    """A folder of JPEG files `<first two digits>/<digest>.jpg`. A cache: any of them may be deleted.

    Safe in many threads and processes, as a file appears whole or not at all.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, digest: str) -> Path:
        """Return where the thumbnail of a content is, or would be.

        Raises:
            ValueError: `digest` is no SHA-256 in hex.
        """
        if _DIGEST.fullmatch(digest) is None:
            raise ValueError(f"digest={digest!r}: 64 lower-case hexadecimal digits")
        return self.folder / digest[:2] / f"{digest}.jpg"

    def get(self, digest: str) -> bytes | None:
        """Return the JPEG file's bytes; None where there is none, or one that is not as it was written."""
        try:
            data = self.path(digest).read_bytes()
        except OSError:
            return None
        return data if _is_intact(data, digest) else None

    def put(self, digest: str, image: Image.Image) -> None:
        """Make and store a thumbnail, unless there is one.

        Args:
            digest: Of the photo's bytes.
            image: The photo, RGB.

        Raises:
            StorageError: It cannot be written.
        """
        if self.get(digest) is not None:
            return
        target = self.path(digest)
        try:
            try:
                _write(image, target, digest)
            except FileNotFoundError:
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(image, target, digest)
        except OSError as error:
            why = error.strerror or str(error)
            raise StorageError(f"cannot write the thumbnail {display_path(target)}: {why}") from error

    def digests(self) -> Iterator[str]:
        """Yield the digest of every thumbnail that is stored."""
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*.jpg"):
            if _DIGEST.fullmatch(path.stem):
                yield path.stem

    def delete(self, digest: str) -> None:
        """Delete a thumbnail, if there is one.

        Raises:
            StorageError: It cannot be deleted, as in a read-only folder.
        """
        target = self.path(digest)
        try:
            target.unlink(missing_ok=True)
        except OSError as error:
            why = error.strerror or str(error)
            raise StorageError(f"cannot delete the thumbnail {display_path(target)}: {why}") from error


def _write(image: Image.Image, target: Path, digest: str) -> None:
    # Without fsync, which would cost more than making the thumbnail again; `get` detects a torn file.
    with write_atomically(target, durable=False) as file:
        _save(image, file, comment=_CHECKSUM + _NO_DIGITS)
        file.seek(0)
        data = file.read()
        file.seek(data.index(_CHECKSUM + _NO_DIGITS) + len(_CHECKSUM))
        file.write(_checksum(digest, data))


def _checksum(digest: str, data: bytes) -> bytes:
    """The 64 digits for a file with zeros in their place."""
    return hashlib.sha256(digest.encode("ascii") + data).hexdigest().encode("ascii")


def _save(image: Image.Image, stream: IO[bytes], comment: bytes | None = None) -> None:
    """Encode into a stream. Pillow releases Python's lock only when it encodes into a file."""
    factor = round(max(image.size) / THUMBNAIL_SIDE)
    small = image.reduce(factor) if factor > 1 else image
    profile = image.info.get("icc_profile")
    if profile is not None and len(profile) > _MAX_PROFILE_BYTES:
        small, profile = to_srgb(small, profile), None
    small.save(stream, "JPEG", quality=_QUALITY, icc_profile=profile, comment=comment)


def _is_intact(data: bytes, digest: str) -> bool:
    """Whether a file has the checksum that was written into it for this photo."""
    start = data.find(_CHECKSUM) + len(_CHECKSUM)
    digits, end = data[start : start + len(_NO_DIGITS)], start + len(_NO_DIGITS)
    without = data[:start] + _NO_DIGITS + data[end:]
    return _CHECKSUM in data and _checksum(digest, without) == digits
