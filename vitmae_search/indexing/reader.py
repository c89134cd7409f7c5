"""Read pending files ahead of the model: digest each, look it up, and decode what is not known.

Torch-free. Each reading thread has a child process, in which files are read and decoded (see
`photos.decode_pool`): a photo at which its decoder crashes, or that takes too long, costs itself alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from vitmae_search.address import is_address
from vitmae_search.errors import DamagedPhoto, PluginError, clear_frames
from vitmae_search.indexing.decode_journal import DecodeJournal
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.indexing.stored_files import StoredFiles, raise_if_unreachable
from vitmae_search.photos import PhotoDecoder, is_stored_photo
from vitmae_search.photos.decode_pool import DecodePool
from vitmae_search.photos.decode_worker import DecodedFile, DecodeHandler, FileError, PlainImage
from vitmae_search.photos.prefetch import prefetch
from vitmae_search.photos.worker_process import WorkerDied
from vitmae_search.records import PhotoMetadata

_GROUP_SIZE = 8
_GROUP_BYTES = 1 << 24
"""Limits of the files that are read and looked up together; their bytes are in memory meanwhile."""


@dataclass(frozen=True, slots=True)
class KnownContent:
    """What is known of a digest before its file is decoded.

    Attributes:
        content_id: The catalogue's id for this content, None where it has none.
        embedded: Whether the vector is at hand, so that the file need not be decoded.
        described: Whether all that this version reads of a photo was read of it; else it is decoded for that.
    """

    content_id: int | None
    embedded: bool
    described: bool = True


UNKNOWN_CONTENT = KnownContent(None, False)
Prepare = Callable[[Image.Image], NDArray[Any]]
Lookup = Callable[[Sequence[str]], Mapping[str, KnownContent]]
"""From digests to what is known of them; those that it leaves out are `UNKNOWN_CONTENT`."""


@dataclass(frozen=True, slots=True, eq=False)
class FetchedFile:
    """A pending file that was read.

    It has `pixels` and `metadata` if its content is to be embedded, or an `error`. It has no pixels where the
    vector is at hand (`known.embedded`), or where another file of this run brings the same content.

    Attributes:
        file: The file as it was planned.
        digest: SHA-256 of its bytes in hex, None where they could not be read.
        known: What was known of the digest.
        metadata: From the decoded file.
        pixels: What the plugin's `prepare` gave.
        error: Why this file cannot be used.
    """

    file: PendingFile
    digest: str | None
    known: KnownContent
    metadata: PhotoMetadata | None = None
    pixels: NDArray[Any] | None = None
    error: FileError | None = None


def read_ahead(
    files: Iterable[PendingFile],
    lookup: Lookup,
    decoder: PhotoDecoder,
    *,
    count: int,
    workers: int,
    batch_size: int,
    journal: DecodeJournal | None = None,
) -> Generator[FetchedFile, None, None]:
    """Yield each file, in order, read in parallel. Closing the generator ends what has begun.

    Args:
        files: The files to read.
        lookup: Called by the worker threads, with the digests of several files at a time.
        decoder: How files are decoded.
        count: About how many files they are.
        workers: Number of worker threads, each with a process.
        batch_size: About how many files are read ahead.
        journal: Names what is being decoded.
    """
    # Small groups for few files, so that none waits long for the last one.
    group_size = max(1, min(_GROUP_SIZE, count // (16 * workers)))
    ahead = batch_size // group_size + 2 * workers
    pool = DecodePool(partial(DecodeHandler, decoder), partial(DecodeHandler, replace(decoder, prepare=None)))
    stored = StoredFiles()
    groups = group_files(stored.ahead_of(files), group_size)
    reader = PhotoReader(lookup, pool, decoder.prepare, journal, stored)
    fetched = prefetch(groups, reader, workers=workers, ahead=ahead, end_work=pool.close)
    with closing(stored), closing(fetched):
        for group in fetched:
            yield from group


def group_files(
    files: Iterable[PendingFile], max_files: int, max_bytes: int = _GROUP_BYTES
) -> Iterator[list[PendingFile]]:
    """Yield the files in groups, in order.

    Args:
        files: The files to group.
        max_files: Most files in a group.
        max_bytes: Most bytes in a group of more than one file.
    """
    group: list[PendingFile] = []
    size = 0
    for file in files:
        if group and (len(group) == max_files or size + file.stamp.size > max_bytes):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.stamp.size
    if group:
        yield group


@dataclass(frozen=True, slots=True)
class _Death:
    """How a process ended, at a photo.

    Attributes:
        reason: Why this photo fails, if it is to blame.
        certain: Whether it is: it took too long. A process may also be killed for another's sake.
        digest: Of the photo, where it was read.
    """

    reason: str
    certain: bool
    digest: str | None


class PhotoReader:
    """Reads groups of files; called by many threads.

    Each unknown content is decoded once, for the first file that brings it.
    """

    def __init__(
        self,
        lookup: Lookup,
        pool: DecodePool,
        prepare: Prepare | None,
        journal: DecodeJournal | None = None,
        stored: StoredFiles | None = None,
    ) -> None:
        """Begin with no content seen.

        Args:
            lookup: Called with the digests of several files at a time.
            pool: Its workers have a `DecodeHandler`.
            prepare: For images that the workers could not prepare.
            journal: Names what is being decoded.
            stored: Reads the files that are on a storage.
        """
        self._journal = journal
        self._stored = stored or StoredFiles()
        self._lookup = lookup
        self._pool = pool
        self._prepare = prepare
        self._seen_digests: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, files: Sequence[PendingFile]) -> list[FetchedFile]:
        """Read the files, and decode those with an unknown content.

        Where the worker's process dies, what it decoded before is kept, and the photo that it was at is tried
        once more, alone. If it dies again, or took too long, this photo has an error. Raises only what ends
        the whole run (`StorageError`, `StorageUnreachable`, bugs).
        """
        fetched: list[FetchedFile] = []
        alone = False
        while len(fetched) < len(files):
            rest = files[len(fetched) :][: 1 if alone else None]
            paths = [file.stamp.path for file in rest]
            with nullcontext() if self._journal is None else self._journal.decoding(paths):
                found, death = self._fetch(rest)
            fetched += found
            if death is None or len(found) == len(rest):
                alone = False
            elif alone or death.certain:
                fetched.append(self._failed(rest[len(found)], death))
                alone = False
            else:
                alone = True
        return fetched

    def _fetch(self, files: Sequence[PendingFile]) -> tuple[list[FetchedFile], _Death | None]:
        """Read, look up, decode. Where the process dies, return the files before the one that it was at."""
        new_digests: set[str] = set()
        digests: list[str | FileError] = []
        known: Mapping[str, KnownContent] = {}
        wanted: list[bool] = []
        died: WorkerDied | None = None
        try:
            worker = self._pool.worker()
            paths = [file.stamp.path for file in files]
            if any(map(is_address, paths)):
                contents = [
                    self._stored.take(file) if is_stored_photo(file.stamp.path) else None for file in files
                ]
                digests = worker.call("read", paths, contents)
                for path, digest in zip(paths, digests, strict=True):
                    raise_if_unreachable(path, digest)
            else:
                digests = worker.call("read", paths)
            known = self._lookup([digest for digest in digests if isinstance(digest, str)])
            wanted = [
                isinstance(digest, str)
                and _is_to_be_decoded(known.get(digest, UNKNOWN_CONTENT))
                and self._first_to_read(digest, new_digests)
                for digest in digests
            ]
            decoded = worker.call("decode", wanted)
        except WorkerDied as error:
            died, decoded = error, error.answers if wanted else []
        fetched: list[FetchedFile] = []
        answers = iter(decoded)
        for file, digest, want in zip(files, digests, wanted, strict=False):
            answer = next(answers, None) if want else None
            if want and answer is None:
                break
            fetched.append(self._fetched_file(file, digest, known, answer))
        if died is None:
            return fetched, None
        with self._lock:
            self._seen_digests -= new_digests - {file.digest for file in fetched}
        at = digests[len(fetched)] if len(fetched) < len(wanted) else None
        certain = died.out_of_time and bool(wanted)
        return fetched, _Death(died.reason, certain, at if isinstance(at, str) else None)

    def _failed(self, file: PendingFile, death: _Death) -> FetchedFile:
        if death.digest is not None:  # copies of this file fail for the same reason
            with self._lock:
                self._seen_digests.add(death.digest)
        error = DamagedPhoto(file.stamp.path, death.reason)
        return FetchedFile(file, death.digest, UNKNOWN_CONTENT, error=error)

    def _first_to_read(self, digest: str, new_digests: set[str]) -> bool:
        """Whether this content is to be decoded here: no other file had it before."""
        with self._lock:
            first = digest not in self._seen_digests
            self._seen_digests.add(digest)
        if first:
            new_digests.add(digest)
        return first

    def _fetched_file(
        self,
        file: PendingFile,
        digest: str | FileError,
        known: Mapping[str, KnownContent],
        decoded: DecodedFile | FileError | None,
    ) -> FetchedFile:
        if not isinstance(digest, str):
            clear_frames(digest)
            return FetchedFile(file, None, UNKNOWN_CONTENT, error=digest)
        content = known.get(digest, UNKNOWN_CONTENT)
        if content.embedded:
            # It was decoded for its metadata alone, and keeps its vector whatever came of that.
            if isinstance(decoded, Exception):
                clear_frames(decoded)
            return FetchedFile(file, digest, content, decoded[0] if isinstance(decoded, tuple) else None)
        if isinstance(decoded, tuple):
            metadata, pixels = decoded
            try:
                if isinstance(pixels, PlainImage):
                    assert self._prepare is not None
                    pixels = self._prepare(pixels.image())
                return FetchedFile(file, digest, content, metadata, pixels)
            except PluginError as error:
                decoded = error
        if decoded is not None:
            clear_frames(decoded)
        return FetchedFile(file, digest, content, error=decoded)


def _is_to_be_decoded(known: KnownContent) -> bool:
    return not (known.embedded and known.described)
