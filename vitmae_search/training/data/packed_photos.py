"""A folder of photos as one memory-mapped uint8 array, decoded once and then read at disk speed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.atomic import write_atomically
from vitmae_search.errors import TrainingError, display_path
from vitmae_search.photos import scan
from vitmae_search.photos.square_photos import Square, decode_squares
from vitmae_search.records import ScanProblem, Stamp

_PIXELS_FILE, _DESCRIPTION_FILE = "images.u8", "images.json"
_FORMAT = 1
_PROGRESS_EVERY = 512
"""Photos between two progress reports."""

OnPacked = Callable[[int, int], None]
"""Called with the number of photos done and of all photos."""


@dataclass(frozen=True, slots=True)
class PackedPhotos:
    """The decoded photos of a folder.

    Attributes:
        images: (N, side, side, 3) uint8, memory-mapped, in the order of the sorted paths.
        signature: Digest of the files' paths, sizes and times, and of the way they were decoded.
        failures: (path, reason) of photos that could not be decoded and are left out.
    """

    images: NDArray[np.uint8]
    signature: str
    failures: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, row: int) -> NDArray[np.uint8]:
        """The photo of this row, (side, side, 3) uint8."""
        image: NDArray[np.uint8] = self.images[row]
        return image


def pack(
    folder: str | os.PathLike[str],
    cache: str | os.PathLike[str],
    *,
    side: int,
    workers: int | None = None,
    on_progress: OnPacked | None = None,
) -> PackedPhotos:
    """Decode every photo under `folder`, or reuse `cache` if nothing has changed.

    A photo is scaled until its shorter side fits, and its centre is cropped. Photos that cannot be decoded
    are left out and listed.

    Args:
        folder: Searched recursively.
        cache: Folder for the packed photos; an incomplete one is made again.
        side: Height and width of the decoded photos, in pixels.
        workers: Decoding processes; None for one on each core.
        on_progress: Called while photos are decoded.

    Raises:
        TrainingError: There are no photos, the folder cannot be read, or the disk has too little room.
    """
    files = list_photos(folder)
    return pack_files(files, cache, side=side, workers=workers, on_progress=on_progress, source=folder)


def pack_files(
    files: Sequence[Stamp],
    cache: str | os.PathLike[str],
    *,
    side: int,
    source: str | os.PathLike[str],
    whole_resample: Image.Resampling | None = None,
    workers: int | None = None,
    on_progress: OnPacked | None = None,
) -> PackedPhotos:
    """As `pack`, for these files in their order.

    Args:
        files: The photos.
        cache: As for `pack`.
        side: As for `pack`.
        source: The folder that error messages name.
        whole_resample: Resize the whole photo with this filter, whatever its aspect ratio, as
            `ViTImageProcessor` does, in place of scaling and cropping it.
        workers: As for `pack`.
        on_progress: As for `pack`.

    Raises:
        TrainingError: No photo could be decoded, or the disk has too little room.
    """
    signature = files_signature(files, side, "" if whole_resample is None else f"whole {int(whole_resample)}")
    cached = _open_cache(Path(cache), signature)
    if cached is not None:
        return cached
    Path(cache).mkdir(parents=True, exist_ok=True)
    _require_room(cache, len(files), side)
    with write_atomically(Path(cache) / _PIXELS_FILE) as stream:
        paths = [stamp.path for stamp in files]
        decoded = decode_squares(paths, side, whole_resample, workers=workers)
        failures = _write_pixels(paths, decoded, stream, on_progress)
    count = len(files) - len(failures)
    if count == 0:
        raise TrainingError(f"no photo could be read under {display_path(source)}")
    description = {
        "format": _FORMAT,
        "signature": signature,
        "shape": [count, side, side, 3],
        "failures": failures,
    }
    with write_atomically(Path(cache) / _DESCRIPTION_FILE) as stream:
        stream.write(json.dumps(description).encode())
    packed = _open_cache(Path(cache), signature)
    if packed is None:
        raise TrainingError(f"the packed photos in {display_path(cache)} could not be read back")
    return packed


def _require_room(cache: str | os.PathLike[str], count: int, side: int) -> None:
    needed, free = count * side * side * 3, shutil.disk_usage(cache).free
    if needed > free:
        raise TrainingError(
            f"{count} photos of {side} pixels need {needed / 1e9:.1f} GB when packed, and "
            f"{display_path(cache)} has {free / 1e9:.1f} GB left: choose another output folder or a smaller "
            "--stored-side or, for pretraining, --cache none"
        )


def list_photos(folder: str | os.PathLike[str]) -> list[Stamp]:
    """The stamp of every photo under `folder`, sorted by path.

    Raises:
        TrainingError: There are no photos, or a subfolder cannot be read, which would silently change the
            training data.
    """
    problems: list[ScanProblem] = []
    found = sorted(scan(os.fspath(folder), on_problem=problems.append), key=lambda stamp: stamp.path)
    if problems:
        raise TrainingError(f"{display_path(problems[0].path)} cannot be read: {problems[0].reason}")
    if not found:
        raise TrainingError(f"there are no photos under {display_path(folder)}")
    return found


def files_signature(files: Sequence[Stamp], side: int, decode_mode: str = "") -> str:
    """A digest of files and of the way they are decoded.

    Args:
        files: Their paths, sizes and times count.
        side: Height and width of the decoded photos, in pixels.
        decode_mode: Names any way of decoding but the default one.
    """
    suffix = f" {decode_mode}" if decode_mode else ""
    digest = hashlib.sha256(f"{_FORMAT} {side}{suffix}".encode())
    for stamp in files:
        digest.update(os.fsencode(stamp.path) + f"\0{stamp.size}\0{stamp.mtime_ns}\n".encode())
    return digest.hexdigest()


def _open_cache(cache: Path, signature: str) -> PackedPhotos | None:
    """The packed photos, or None where they are missing, truncated, or of other photos."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        description = json.loads((cache / _DESCRIPTION_FILE).read_bytes())
        if description["signature"] == signature:
            shape = tuple(description["shape"])
            images = np.memmap(cache / _PIXELS_FILE, dtype=np.uint8, mode="r", shape=shape)
            failures = tuple((path, reason) for path, reason in description["failures"])
            return PackedPhotos(images, signature, failures)
    return None


def _write_pixels(
    paths: Sequence[str], decoded: Iterable[Square], stream: IO[bytes], on_progress: OnPacked | None
) -> list[tuple[str, str]]:
    """Write the decoded photos in order, and return (path, reason) of those that failed."""
    failures: list[tuple[str, str]] = []
    for done, (path, result) in enumerate(zip(paths, decoded, strict=True), 1):
        if isinstance(result, str):
            failures.append((path, result))
        else:
            stream.write(result.tobytes())
        if on_progress is not None and (done % _PROGRESS_EVERY == 0 or done == len(paths)):
            on_progress(done, len(paths))
    return failures
