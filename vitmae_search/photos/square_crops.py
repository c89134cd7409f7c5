"""Photos as square pictures of one size, decoded by all cores. Torch-free, so that a process starts at once.

Decoding a small photo is mostly Python, of which threads do one at a time: many are decoded in processes.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vitmae_search.errors import PhotoError
from vitmae_search.photos import subprocess_worker
from vitmae_search.photos.decode import decode
from vitmae_search.photos.read import read_photo

Square = NDArray[np.uint8] | str
"""(side, side, 3) uint8, or why there is none."""

_AT_ONCE = 64  # photos a request: 64 · 224² · 3 bytes are 10 MB
_AHEAD = 2  # requests for each worker
_MANY = 2000  # photos from which on processes are worth their start


def square(path: str, side: int, whole: int | None = None) -> Square:
    """The photo's middle or, with a filter of Pillow's in `whole`, all of it, whatever its aspect."""
    try:
        image = decode(read_photo(path), path=path, shrink_to=side).image
    except PhotoError as error:
        return error.reason
    if whole is None:
        return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))
    return np.asarray(image.resize((side, side), Image.Resampling(whole)))


def squares(
    paths: Sequence[str], side: int, whole: int | None = None, *, workers: int | None = None
) -> Iterator[Square]:
    """`square` of each, in order, by `workers` (default: one a core): processes if there are many photos."""
    workers = workers or os.cpu_count() or 1
    own = _Processes() if workers > 1 and len(paths) >= _MANY else None

    def work(part: Sequence[str]) -> list[Square]:
        asked = None if own is None else own.ask((part, side, whole))
        return [square(path, side, whole) for path in part] if asked is None else asked

    parts = (paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE))
    try:
        with ThreadPoolExecutor(workers) as pool:
            while some := list(islice(parts, workers * _AHEAD)):
                for done in pool.map(work, some):
                    yield from done
    finally:
        if own is not None:
            own.close()


def main() -> None:
    """What a process does: answer requests until there are no more."""
    requests, answers = subprocess_worker.pipes()
    with suppress(EOFError, BrokenPipeError):
        while True:
            paths, side, whole = pickle.load(requests)  # noqa: S301  our own process's
            pickle.dump([square(path, side, whole) for path in paths], answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


class _Processes:
    """One for each thread that asks."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []

    def ask(self, request: tuple[Sequence[str], int, int | None]) -> list[Square] | None:
        """The answer of the calling thread's; None where it does not start, or ended."""
        try:
            process = self._process()
            assert process.stdin is not None
            assert process.stdout is not None
            pickle.dump(request, process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            answer: list[Square] = pickle.load(process.stdout)  # noqa: S301  our own process's
            return answer
        except (OSError, EOFError, pickle.UnpicklingError):
            return None

    def close(self) -> None:
        for process in self._all:
            subprocess_worker.end(process)

    def _process(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = subprocess_worker.start("vitmae_search.photos.square_crops")
            self._all.append(process)
        return process
