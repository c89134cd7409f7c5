"""Encode photos, and views of some of them, by several methods in one pass, so as to compare the methods.

Each file is read and decoded once, in worker threads, and its images are dropped once they are encoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import GuardedEmbedder, Prepare
from vitmae_search.errors import PhotoError, PluginError, VitmaeSearchError
from vitmae_search.evaluation import INSTANCE_VIEWS, instance_views
from vitmae_search.indexing.batcher import DEFAULT_BATCH_SIZE, Batcher, Outcome, RunBatch, batch_size_for
from vitmae_search.photos import PhotoProcesses, photo_fits_memory
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.photos.views import reduce_for_views
from vitmae_search.records import Failure, Stamp

OnDone = Callable[[int, int], None]
"""Called with the number of files that are done, and how many of them failed."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way from images to vectors.

    Attributes:
        name: Shown to the person.
        prepare: Turns an RGB image into a model's input or, without a model, into the vector (D,) itself.
            Called in worker threads.
        run: The model, called with batches.
        batch_size: Images in a batch by default.
    """

    name: str
    prepare: Prepare
    run: RunBatch | None = None
    batch_size: int = DEFAULT_BATCH_SIZE

    @classmethod
    def of_embedder(cls, name: str, embedder: GuardedEmbedder) -> Method:
        """Make a method of a plugin's embedder.

        Args:
            name: Shown to the person.
            embedder: Stays the caller's to close.
        """
        return cls(name, embedder.prepare, embedder.embed, batch_size_for(embedder))


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Vectors of a folder's photos.

    Attributes:
        rows: (N,) numbers of the files that all methods could encode, ascending.
        sample: (n,) those of them with views, ascending.
        vectors: For each method (N, D), in the order of `rows`.
        views: For each method (kinds, n, D): the kinds in the order of `INSTANCE_VIEWS`, the photos in that
            of `sample`.
        failures: Files that could not be read or encoded.
        copies: Number of files that were left out because an earlier one has the same content.
    """

    rows: NDArray[np.int64]
    sample: NDArray[np.int64]
    vectors: tuple[NDArray[np.float32], ...]
    views: tuple[NDArray[np.float32], ...]
    failures: tuple[Failure, ...]
    copies: int


def encode(
    files: Sequence[Stamp],
    methods: Sequence[Method],
    *,
    sample: Sequence[int] = (),
    shrink_to: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    on_done: OnDone | None = None,
) -> Encoded:
    """Encode each file, and views of a sample of them, by each method.

    A file that cannot be read, or that one of the methods cannot encode, is a failure of all.

    Args:
        files: The files to encode.
        methods: The ways to encode them.
        sample: Numbers of the files whose views are encoded as well.
        shrink_to: As for `photos.decode`.
        batch_size: Images in a batch; None is each method's own size.
        seed: Of the views.
        on_done: Called after each file.

    Raises:
        VitmaeSearchError: A method fails for every image.
    """
    chosen = sorted(sample)
    layout = _Layout(len(files), chosen)
    processes = PhotoProcesses()
    reader = _Reader(processes, [method.prepare for method in methods], shrink_to, seed)
    requests = ((stamp.path, row in layout.positions) for row, stamp in enumerate(files))
    workers = default_workers()
    reads = prefetch(requests, reader, workers=workers, ahead=2 * workers, end_work=processes.close)
    with ThreadPoolExecutor(1) as executor, closing(reads):  # one thread: one model runs at a time
        encoders = [
            _Encoder(method, layout.count, batch_size or method.batch_size, executor) for method in methods
        ]
        errors, copies = _encode_all(encoders, reads, layout, on_done)
    for encoder in encoders:
        for slot, error in encoder.errors.items():
            errors.setdefault(layout.row(slot), str(error))
    return _gather(files, encoders, chosen, errors, copies)


def photo_views(image: Image.Image, digest: str, shrink_to: int | None, seed: int) -> Iterator[Image.Image]:
    """The views of a photo, in the order of `INSTANCE_VIEWS`. They depend on the content, not on the path.

    Args:
        image: The photo, RGB.
        digest: Of its file.
        shrink_to: As for `photos.decode`.
        seed: What is drawn.
    """
    small = reduce_for_views(image, shrink_to)
    return (view for _, view in instance_views(small, [seed, int(digest[:16], 16)]))


class _Layout:
    """Where vectors lie: those of all files first, then those of the sample's views, kind by kind."""

    def __init__(self, files: int, sample: Sequence[int]) -> None:
        self.files, self.sample = files, sample
        self.positions = {row: position for position, row in enumerate(sample)}
        self.count = files + len(INSTANCE_VIEWS) * len(sample)

    def slots(self, row: int) -> list[int]:
        """The slots of a file and, if it is in the sample, of its views."""
        position = self.positions.get(row)
        if position is None:
            return [row]
        return [row, *range(self.files + position, self.count, len(self.sample))]

    def row(self, slot: int) -> int:
        """The number of the file that a slot belongs to."""
        return slot if slot < self.files else self.sample[(slot - self.files) % len(self.sample)]


@dataclass(frozen=True, slots=True, eq=False)
class _ReadPhoto:
    """A file that was read: `prepared` has the photo and its views for each method, or there is an error."""

    digest: str = ""
    prepared: list[list[NDArray[Any]]] = field(default_factory=list)
    error: PhotoError | PluginError | None = None


class _Reader:
    """Reads and prepares one file; called by many threads."""

    def __init__(
        self, processes: PhotoProcesses, prepares: Sequence[Prepare], shrink_to: int | None, seed: int
    ) -> None:
        self._processes = processes
        self._prepares, self._shrink_to, self._seed = prepares, shrink_to, seed

    def __call__(self, request: tuple[str, bool]) -> _ReadPhoto:
        path, with_views = request
        try:
            with photo_fits_memory(path):
                loaded = self._processes.load(path, self._shrink_to)
                name, image = loaded.digest, loaded.image
                prepared = [[prepare(image)] for prepare in self._prepares]
                for view in photo_views(image, name, self._shrink_to, self._seed) if with_views else ():
                    for own, prepare in zip(prepared, self._prepares, strict=True):
                        own.append(prepare(view))
                return _ReadPhoto(name, prepared)
        except (PhotoError, PluginError) as error:
            return _ReadPhoto(error=error)


class _Encoder:
    """Encodes by one method: `vectors` (slots, D), and `errors` by slot."""

    def __init__(self, method: Method, slots: int, batch_size: int, executor: Executor) -> None:
        self._slots = slots
        self._batcher: Batcher[int] | None = None
        if method.run is not None:
            self._batcher = Batcher(
                method.prepare, method.run, batch_size, max_wait=math.inf, executor=executor
            )
        self.vectors = np.empty((slots, 0), np.float32)
        self.errors: dict[int, VitmaeSearchError] = {}

    def add(self, slots: Sequence[int], prepared: Sequence[NDArray[Any]]) -> None:
        for slot, pixels in zip(slots, prepared, strict=True):
            if self._batcher is None:
                self._store([(slot, pixels)])
                continue
            self._batcher.add(slot, pixels)
            if self._batcher.due:
                self._store(self._batcher.advance())

    def flush(self) -> None:
        while self._batcher is not None and self._batcher.waiting:
            self._store(self._batcher.advance())

    def _store(self, batch: Iterable[tuple[int, Outcome | None]]) -> None:
        for slot, outcome in batch:
            assert outcome is not None
            if isinstance(outcome, VitmaeSearchError):
                self.errors[slot] = outcome
                continue
            if not self.vectors.shape[1]:
                self.vectors = np.zeros((self._slots, len(outcome)), np.float32)
            self.vectors[slot] = outcome


def _encode_all(
    encoders: Sequence[_Encoder], reads: Iterable[_ReadPhoto], layout: _Layout, on_done: OnDone | None
) -> tuple[dict[int, str], set[int]]:
    """Give each file's images to the encoders; return why files failed, and which are copies, by number."""
    errors: dict[int, str] = {}
    copies: set[int] = set()
    seen: set[str] = set()
    for row, read in enumerate(reads):
        if read.error is not None:
            errors[row] = read.error.reason if isinstance(read.error, PhotoError) else str(read.error)
        elif read.digest in seen:
            copies.add(row)
        else:
            seen.add(read.digest)
            for encoder, prepared in zip(encoders, read.prepared, strict=True):
                encoder.add(layout.slots(row), prepared)
        if on_done is not None:
            on_done(row + 1, len(errors))
    for encoder in encoders:
        encoder.flush()
    return errors, copies


def _gather(
    files: Sequence[Stamp],
    encoders: Sequence[_Encoder],
    sample: Sequence[int],
    errors: Mapping[int, str],
    copies: set[int],
) -> Encoded:
    """Leave out what failed, and copies."""
    rows = np.array([row for row in range(len(files)) if row not in errors and row not in copies], np.int64)
    in_rows = np.isin(sample, rows)
    failures = [
        Failure(files[row].path, reason, files[row].size, files[row].mtime_ns)
        for row, reason in sorted(errors.items())
    ]
    return Encoded(
        rows=rows,
        sample=np.array(sample, np.int64)[in_rows],
        vectors=tuple(_select(encoder.vectors[: len(files)], rows) for encoder in encoders),
        views=tuple(
            _select(_by_kind(encoder.vectors[len(files) :], len(sample)), np.flatnonzero(in_rows), axis=1)
            for encoder in encoders
        ),
        failures=tuple(failures),
        copies=len(copies),
    )


def _select(vectors: NDArray[np.float32], rows: NDArray[np.int64], axis: int = 0) -> NDArray[np.float32]:
    """Select along an axis, without a copy where all are selected: it may take a hundred megabytes."""
    return vectors if len(rows) == vectors.shape[axis] else vectors.take(rows, axis)


def _by_kind(vectors: NDArray[np.float32], sampled: int) -> NDArray[np.float32]:
    """(kinds · n, D) to (kinds, n, D)."""
    return vectors.reshape(len(INSTANCE_VIEWS), sampled, vectors.shape[1])
