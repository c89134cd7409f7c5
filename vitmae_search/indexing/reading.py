"""How the files of a run are read ahead: in threads, or in a process for each of them."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import PluginError
from vitmae_search.indexing.decode_pool import DecodingProcesses
from vitmae_search.indexing.plan import Job
from vitmae_search.indexing.reader import Fetched, Lookup, PhotoReader, prefetch
from vitmae_search.photos import PhotoDecoder

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
