"""Reading ahead: worker threads read, digest, decode and prepare photos while the model embeds.

Torch-free. Decoding and hashing release Python's lock, so threads use all cores.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray

from vitmae_search.embedding.contract import Prepare
from vitmae_search.errors import PhotoError, PhotoTooLarge, PluginError
from vitmae_search.indexing.plan import Job
from vitmae_search.photos import ThumbnailStore, decode, digest, read_photo
from vitmae_search.records import PhotoMetadata

J = TypeVar("J")
R = TypeVar("R")

_MOST_WORKERS = 8


def default_workers() -> int:
    """One for each core, within reason."""
    return max(1, min(_MOST_WORKERS, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a digest before it is decoded.

    `content_id` is the catalogue's, None where it has none; `embedded` says that the vector is at hand.
    """

    content_id: int | None
    embedded: bool


@dataclass(frozen=True, slots=True, eq=False)
class Fetched:
    """A file that was read. One of three.

    `pixels` (what `prepare` gave) and `metadata` of a content that is to be embedded; neither, where the
    vector is at hand (`known.embedded`) or where an earlier file of this run has the same content; or
    `error`, which is this photo's alone.
    """

    job: Job
    digest: str | None
    known: Known
    metadata: PhotoMetadata | None = None
    pixels: NDArray[Any] | None = None
    error: PhotoError | PluginError | None = None


class PhotoReader:
    """The work for one job; called by many threads.

    `lookup` says what is known of a digest. Each unknown content is decoded once, for the first job that
    brings it. `shrink_to` is the decoder's (see `photos.decode`).
    """

    def __init__(
        self,
        lookup: Callable[[str], Known],
        prepare: Prepare,
        thumbnails: ThumbnailStore | None,
        shrink_to: int | None,
    ) -> None:
        self._lookup = lookup
        self._prepare = prepare
        self._thumbnails = thumbnails
        self._shrink_to = shrink_to
        self._claimed: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, job: Job) -> Fetched:
        """Read and, if need be, decode. Raises only what concerns the whole run (`StorageError`, bugs)."""
        name, known = None, Known(None, False)
        try:
            data = read_photo(job.stamp.path)
            name = digest(data)
            known = self._lookup(name)
            if known.embedded or not self._claim(name):
                return Fetched(job, name, known)
            photo = decode(data, path=job.stamp.path, shrink_to=self._shrink_to)
            del data
            if self._thumbnails is not None:
                self._thumbnails.put(name, photo.image)
            return Fetched(job, name, known, photo.metadata, self._prepare(photo.image))
        except (PhotoError, PluginError) as error:
            return Fetched(job, name, known, error=error)
        except MemoryError:
            too_large = PhotoTooLarge(job.stamp.path, "too large for this machine's memory")
            return Fetched(job, name, known, error=too_large)

    def _claim(self, name: str) -> bool:
        with self._lock:
            first = name not in self._claimed
            self._claimed.add(name)
            return first


def prefetch(
    jobs: Iterable[J], work: Callable[[J], R], *, workers: int, ahead: int
) -> Generator[R, None, None]:
    """`map(work, jobs)` in worker threads, in order, at most `ahead` jobs begun and not yet taken.

    What `work` raises comes out at its place. Close the iterator to cancel what has not begun; it waits
    for what has.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="prefetch") as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
