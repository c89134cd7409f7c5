"""Reading ahead: worker threads read, digest, decode and prepare photos while the model embeds.

Torch-free. Decoding and hashing release Python's lock, and so threads use a few cores; for many, each has a
process to do the work.

How the files of a run are read ahead: in threads, or in a process for each of them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil
from numpy.typing import NDArray

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import DamagedPhoto, PluginError, let_go
from vitmae_search.indexing.decode_pool import DecodingProcess, DecodingProcesses, ProcessDied
from vitmae_search.indexing.plan import Job
from vitmae_search.photos.decode_worker import Decoded, Decoding, FileError, PhotoDecoder
from vitmae_search.records import PhotoMetadata

J = TypeVar("J")
R = TypeVar("R")

_MOST_WORKERS = 32
_WORKER_BYTES = 1 << 30
"""What one may need for a photo of 100 megapixels that is decoded exactly."""


def default_workers() -> int:
    """One for each core that this process may use, as far as the machine's memory goes."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fitting = int(psutil.virtual_memory().total) // _WORKER_BYTES
    return max(1, min(_MOST_WORKERS, allowed, fitting))


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a digest before it is decoded.

    `content_id` is the catalogue's, None where it has none; `embedded` says that the vector is at hand.
    """

    content_id: int | None
    embedded: bool


NOTHING = Known(None, False)
Lookup = Callable[[Sequence[str]], Mapping[str, Known]]
"""What is known of digests; `NOTHING` of those that it leaves out."""


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
    error: FileError | None = None


class PhotoReader:
    """The work for some jobs; called by many threads.

    `lookup` says what is known of digests. Each unknown content is decoded once, for the first job that
    brings it. With `processes` each thread has one that does the work.
    """

    def __init__(
        self, lookup: Lookup, decoder: PhotoDecoder, processes: DecodingProcesses | None = None
    ) -> None:
        self._lookup = lookup
        self._decoder = decoder
        self._processes = processes
        self._claimed: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, jobs: Sequence[Job]) -> list[Fetched]:
        """Read and, if need be, decode. Raises only what concerns the whole run (`StorageError`, bugs).

        A photo at which its process dies, even alone, is a failure.
        """
        claimed: set[str] = set()
        try:
            return self._fetch(jobs, claimed)
        except ProcessDied:
            with self._lock:
                self._claimed -= claimed
        return [self._alone(job) for job in jobs]

    def _alone(self, job: Job) -> Fetched:
        claimed: set[str] = set()
        try:
            return self._fetch([job], claimed)[0]
        except ProcessDied:
            why = "decoding it ended the process that did: a crash, or no memory"
            # With the digest, if it was claimed: copies that others have read wait for it.
            return Fetched(job, next(iter(claimed), None), NOTHING, error=DamagedPhoto(job.stamp.path, why))

    def _fetch(self, jobs: Sequence[Job], claimed: set[str]) -> list[Fetched]:
        """`claimed` is given the digests whose first job is one of these. Raises `ProcessDied`, too."""
        process = None if self._processes is None else self._processes.own()
        if self._processes is None or process is None:
            return self._fetch_with(Decoding(self._decoder), jobs, claimed)
        try:
            return self._fetch_with(process, jobs, claimed)
        except ProcessDied:
            self._processes.drop()
            raise

    def _fetch_with(
        self, decoding: Decoding | DecodingProcess, jobs: Sequence[Job], claimed: set[str]
    ) -> list[Fetched]:
        found = decoding.read([job.stamp.path for job in jobs])
        known = self._lookup([name for name in found if isinstance(name, str)])
        wanted = [
            isinstance(name, str) and not known.get(name, NOTHING).embedded and self._claim(name, claimed)
            for name in found
        ]
        decoded = decoding.decode(wanted)
        fetched = []
        for job, name, want in zip(jobs, found, wanted, strict=True):
            if not isinstance(name, str):
                fetched.append(Fetched(job, None, NOTHING, error=name))
            else:
                content = known.get(name, NOTHING)
                fetched.append(_fetched(job, name, content, next(decoded) if want else None))
        for error in (one.error for one in fetched if one.error is not None):
            let_go(error)
        return fetched

    def _claim(self, name: str, claimed: set[str]) -> bool:
        with self._lock:
            first = name not in self._claimed
            self._claimed.add(name)
        if first:
            claimed.add(name)
        return first


def _fetched(job: Job, name: str, known: Known, decoded: Decoded | FileError | None) -> Fetched:
    if isinstance(decoded, tuple):
        return Fetched(job, name, known, *decoded)
    return Fetched(job, name, known, error=decoded)


def prefetch(
    jobs: Iterable[J], work: Callable[[J], R], *, workers: int, ahead: int
) -> Generator[R, None, None]:
    """`map(work, jobs)` in worker threads, in order, at most `ahead` jobs begun and not yet taken.

    What `work` raises comes out at its place. Close the iterator to cancel what has not begun; it waits
    for what has.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


log = logging.getLogger(__name__)

_FEW = 4
"""Workers that Python's lock has room for: each holds it for up to a sixth of the time."""
_WORTH = 64
"""Small files for each process that make up for half a second of starting. A megabyte is as three more."""
_BUNDLE = 8
_BUNDLE_BYTES = 1 << 24
"""Files that are looked up together. Whoever reads them has their bytes in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Reads for `embedder` in `workers` threads, about a batch of `batch_size` ahead.

    Each has a process to decode in where `processes` says so; None leaves that to their number, and the
    files'.
    """

    decoder: PhotoDecoder
    embedder: GuardedEmbedder
    workers: int
    batch_size: int
    processes: bool | None = None

    def fetch(self, jobs: Sequence[Job], lookup: Lookup) -> Generator[Fetched, None, None]:
        """The jobs' files, in order; `lookup` is `PhotoReader`'s. Closing it waits for what has begun."""
        processes = self._processes(jobs)
        most = max(1, min(_BUNDLE, len(jobs) // (16 * self.workers)))  # so that none waits long for the last
        reader = PhotoReader(lookup, self.decoder, processes)
        ahead = self.batch_size // most + 2 * self.workers
        read = prefetch(bundles(jobs, most), reader, workers=self.workers, ahead=ahead)
        with nullcontext() if processes is None else closing(processes), closing(read):
            for fetched in read:
                yield from fetched

    def _processes(self, jobs: Sequence[Job]) -> DecodingProcesses | None:
        work = len(jobs) + 3 * sum(job.stamp.size for job in jobs) / 1e6
        pays = self.workers > _FEW and work >= _WORTH * self.workers
        if not (pays if self.processes is None else self.processes):
            return None
        try:
            return DecodingProcesses(self.decoder, self.embedder.shape, self.embedder.dtype)
        except PluginError as error:
            log.warning("photos are decoded in threads: %s", error)
            return None


def bundles(jobs: Sequence[Job], most: int, most_bytes: int = _BUNDLE_BYTES) -> Iterator[list[Job]]:
    """The jobs in order, at most so many together, and of so many bytes where they are more than one."""
    bundle: list[Job] = []
    size = 0
    for job in jobs:
        if bundle and (len(bundle) == most or size + job.stamp.size > most_bytes):
            yield bundle
            bundle, size = [], 0
        bundle.append(job)
        size += job.stamp.size
    if bundle:
        yield bundle
