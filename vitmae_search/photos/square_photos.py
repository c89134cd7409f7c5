"""Photos as square images of one size, decoded on all cores, for training.

Torch-free, so that the processes that decode start quickly.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vitmae_search.errors import PhotoError
from vitmae_search.photos.decode import decode
from vitmae_search.photos.decode_pool import DecodePool
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.photos.read import read_photo
from vitmae_search.photos.worker_process import WorkerDied, reserve_memory

Square = NDArray[np.uint8] | str
"""(side, side, 3) uint8, or the reason why there is none."""

_CHUNK = 64  # photos in a request: 64 × 224² × 3 bytes are 10 MB
_CHUNKS_AHEAD = 2  # requests for each worker


def decode_square(path: str, side: int, resample: Image.Resampling | None = None) -> Square:
    """Decode one photo to a square.

    Args:
        path: The photo's file.
        side: Side of the square in pixels.
        resample: None crops the middle of the photo. A filter resizes the whole photo with it, whatever its
            aspect ratio.
    """
    try:
        image = decode(read_photo(path), path=path, shrink_to=side, reserve=reserve_memory).image
    except PhotoError as error:
        return error.reason
    if resample is None:
        return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))
    return np.asarray(image.resize((side, side), resample))


def decode_squares(
    paths: Sequence[str],
    side: int,
    resample: Image.Resampling | None = None,
    *,
    workers: int | None = None,
) -> Generator[Square, None, None]:
    """Decode many photos in parallel, in processes; yield their squares in order.

    A photo at which its process dies, even alone, has a reason in place of its square.

    Args:
        paths: The photos' files.
        side: Side of the squares in pixels.
        resample: As for `decode_square`.
        workers: How many photos are decoded at a time; None is `default_workers()`.
    """
    workers = workers or default_workers()
    pool = DecodePool(partial(_SquareHandler, side, resample))
    chunks = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
    ahead = workers * _CHUNKS_AHEAD
    decoded = prefetch(chunks, partial(_decode, pool), workers=workers, ahead=ahead, end_work=pool.close)
    with closing(decoded):
        for chunk in decoded:
            yield from chunk


class _SquareHandler:
    """What the workers of the decode pool run."""

    def __init__(self, side: int, resample: Image.Resampling | None) -> None:
        self._side, self._resample = side, resample

    def decode(self, paths: Sequence[str]) -> Iterator[Square]:
        return (decode_square(path, self._side, self._resample) for path in paths)


def _decode(pool: DecodePool, paths: Sequence[str]) -> list[Square]:
    """Decode together; where the process dies, each photo alone."""
    try:
        return pool.worker().call("decode", paths)
    except WorkerDied:
        return [_decode_alone(pool, path) for path in paths]


def _decode_alone(pool: DecodePool, path: str) -> Square:
    try:
        found: Square = pool.worker().call("decode", [path])[0]
        return found
    except WorkerDied as died:
        return died.reason
