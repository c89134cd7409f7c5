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
from vitmae_search.photos.square_crops import Square, squares
from vitmae_search.records import ScanProblem, Stamp

_TOLD = 512  # photos between two words about the progress
_FORMAT = 1

OnPacked = Callable[[int, int], None]
"""Called with the photos done and the photos in all."""


@dataclass(frozen=True, slots=True)
class PackedPhotos:
    """`images` (N, side, side, 3) uint8, memory-mapped, in the order of the sorted paths.

    `signature` stands for the files (names, sizes, times) and the side; `failures` are (path, reason).
    """

    images: NDArray[np.uint8]
    signature: str
    failures: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.images)

    def picture(self, row: int) -> NDArray[np.uint8]:
        """(side, side, 3) uint8."""
        picture: NDArray[np.uint8] = self.images[row]
        return picture


def pack(
    folder: str | os.PathLike[str],
    cache: str | os.PathLike[str],
    *,
    side: int,
    workers: int | None = None,
    on_progress: OnPacked | None = None,
) -> PackedPhotos:
    """Decode every photo under `folder` to `side` × `side` pixels, or reuse `cache` if nothing changed.

    A photo is scaled so that its shorter side fits and cropped in its middle. One that cannot be decoded
    is left out and listed. `cache` is a folder; a half-made one is made again. `workers` decode, by
    default one a core (see `photos.squares`).
    Raises `TrainingError` where no photo is found, and where the disk has no room for them.
    """
    files = list_photos(folder)
    return pack_files(files, cache, side=side, workers=workers, on_progress=on_progress, source=folder)


def pack_files(
    files: Sequence[Stamp],
    cache: str | os.PathLike[str],
    *,
    side: int,
    source: str | os.PathLike[str],
    whole: Image.Resampling | None = None,
    workers: int | None = None,
    on_progress: OnPacked | None = None,
) -> PackedPhotos:
    """As `pack`, for these files in their order; `source` is what an error names.

    With a filter in `whole` each photo is resized whole, whatever its aspect, as `ViTImageProcessor` does.
    """
    signature = signature_of(files, side, "" if whole is None else f"whole {int(whole)}")
    kept = _open(Path(cache), signature)
    if kept is not None:
        return kept
    Path(cache).mkdir(parents=True, exist_ok=True)
    _require_room(cache, len(files), side)
    with write_atomically(Path(cache) / "images.u8") as stream:
        paths = [stamp.path for stamp in files]
        decoded = squares(paths, side, None if whole is None else int(whole), workers=workers)
        failures = _write_all(paths, decoded, stream, on_progress)
    count = len(files) - len(failures)
    if count == 0:
        raise TrainingError(f"no photo could be read under {display_path(source)}")
    description = {
        "format": _FORMAT,
        "signature": signature,
        "shape": [count, side, side, 3],
        "failures": failures,
    }
    with write_atomically(Path(cache) / "images.json") as stream:
        stream.write(json.dumps(description).encode())
    opened = _open(Path(cache), signature)
    if opened is None:
        raise TrainingError(f"the packed photos in {display_path(cache)} could not be read back")
    return opened


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

    Raises `TrainingError` for none, and for a folder that cannot be entered: that would change the data
    unseen.
    """
    problems: list[ScanProblem] = []
    found = sorted(scan(os.fspath(folder), on_problem=problems.append), key=lambda stamp: stamp.path)
    if problems:
        raise TrainingError(f"{display_path(problems[0].path)} cannot be read: {problems[0].reason}")
    if not found:
        raise TrainingError(f"there are no photos under {display_path(folder)}")
    return found


def signature_of(files: Sequence[Stamp], side: int, how: str = "") -> str:
    """What stands for these files, decoded in this way."""
    hashed = hashlib.sha256(f"{_FORMAT} {side}{how and ' ' + how}".encode())
    for stamp in files:
        hashed.update(os.fsencode(stamp.path) + f"\0{stamp.size}\0{stamp.mtime_ns}\n".encode())
    return hashed.hexdigest()


def _open(cache: Path, signature: str) -> PackedPhotos | None:
    """The packed photos, or None where they are missing, of other photos, or cut short."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        described = json.loads((cache / "images.json").read_bytes())
        if described["signature"] == signature:
            shape = tuple(described["shape"])
            images = np.memmap(cache / "images.u8", dtype=np.uint8, mode="r", shape=shape)
            failures = tuple((path, reason) for path, reason in described["failures"])
            return PackedPhotos(images, signature, failures)
    return None


def _write_all(
    paths: Sequence[str], decoded: Iterable[Square], stream: IO[bytes], on_progress: OnPacked | None
) -> list[tuple[str, str]]:
    """Write the decoded photos to `stream` in order, and return those that failed."""
    failures: list[tuple[str, str]] = []
    for done, (path, result) in enumerate(zip(paths, decoded, strict=True), 1):
        if isinstance(result, str):
            failures.append((path, result))
        else:
            stream.write(result.tobytes())
        if on_progress is not None and (done % _TOLD == 0 or done == len(paths)):
            on_progress(done, len(paths))
    return failures
