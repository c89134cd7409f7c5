"""Vectors of photos, and of views of some of them, from several methods in one pass over the files.

Each file is read and decoded once, in worker threads; nothing of its size is kept beyond its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import PhotoError, PhotoTooLarge, PluginError, VitmaeSearchError
from vitmae_search.evaluation import INSTANCE_VIEWS, instance_views
from vitmae_search.indexing.batcher import LEAST_BATCH, Outcome, batch_size_for, embed_rows, still_works
from vitmae_search.photos import decode, digest, read_photo
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.records import Failure, Stamp

OnDone = Callable[[int, int], None]
"""Called with the files that are done, and how many of them failed."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way from pictures to vectors: `prepare` in worker threads, then `embed` on a batch.

    `embed` gives each prepared picture's (D,) vector, or the error that it alone gives; a call has
    `batch_size` of them where nobody says otherwise.
    """

    name: str
    prepare: Callable[[Image.Image], NDArray[Any]]
    embed: Callable[[Sequence[NDArray[Any]]], Sequence[Outcome]]
    batch_size: int = LEAST_BATCH

    @classmethod
    def of_features(cls, name: str, feature: Callable[[Image.Image], NDArray[np.float32]]) -> Method:
        """A plain function of the picture."""
        return cls(name, feature, list)

    @classmethod
    def of_embedder(cls, name: str, embedder: GuardedEmbedder) -> Method:
        """A plugin. What fails for every picture is raised, and blamed on no photo."""

        def embed(rows: Sequence[NDArray[Any]]) -> list[Outcome]:
            outcomes = embed_rows(embedder, rows)
            errors = [outcome for outcome in outcomes if isinstance(outcome, VitmaeSearchError)]
            if errors and len(errors) == len(rows) and not still_works(embedder):
                raise errors[0]
            return outcomes

        return cls(name, embedder.prepare, embed, batch_size_for(embedder))


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """`rows` (N,) are the files that could be used, rising; `sample` (n,) those of them with views, rising.

    For each method, in their order, `vectors` (N, D) belong to `rows`, and `views` (kinds, n, D) to `sample`,
    the kinds in the order of `INSTANCE_VIEWS`. `copies` counts files with the content of an earlier one, that
    are left out.
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
    """Encode each file, and the views of those whose numbers are in `sample`, by each method.

    `shrink_to` is the decoder's (see `photos.decode`). A file that cannot be used, or whose vector one of
    the methods cannot make, is a failure and left out by all. Raises what a method raises for every picture.
    """
    chosen = sorted(sample)
    slots = _Slots(len(files), chosen)
    columns = [_Column(method, slots.count, batch_size or method.batch_size) for method in methods]
    reader = _Reader([method.prepare for method in methods], shrink_to, seed)
    jobs = ((stamp.path, row in slots.places) for row, stamp in enumerate(files))
    workers = default_workers()
    reads = prefetch(jobs, reader, workers=workers, ahead=2 * workers)
    errors, copies = _fill(columns, reads, slots, on_done)
    for column in columns:
        column.flush()
        for slot, error in column.errors.items():
            errors.setdefault(slots.row(slot), str(error))
    return _gathered(files, columns, chosen, errors, copies)


class _Slots:
    """Where vectors lie: first those of all files, then, kind by kind, those of the sample's views."""

    def __init__(self, files: int, sample: Sequence[int]) -> None:
        self.files, self.sample = files, sample
        self.places = {row: place for place, row in enumerate(sample)}
        self.count = files + len(INSTANCE_VIEWS) * len(sample)

    def of(self, row: int) -> list[int]:
        """That of the file itself, and those of its views where it has any."""
        place = self.places.get(row)
        return [row, *(() if place is None else range(self.files + place, self.count, len(self.sample)))]

    def row(self, slot: int) -> int:
        """The file that a slot belongs to."""
        return slot if slot < self.files else self.sample[(slot - self.files) % len(self.sample)]


def _fill(
    columns: Sequence[_Column], reads: Iterable[_Read], slots: _Slots, on_done: OnDone | None
) -> tuple[dict[int, str], set[int]]:
    """Hand each file's pictures to the columns. Gives errors by row, and the rows that are copies."""
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
            for column, pictures in zip(columns, read.prepared, strict=True):
                column.add(slots.of(row), pictures)
        if on_done is not None:
            on_done(row + 1, len(errors))
    return errors, copies


def _gathered(
    files: Sequence[Stamp],
    columns: Sequence[_Column],
    sample: Sequence[int],
    errors: Mapping[int, str],
    copies: set[int],
) -> Encoded:
    rows = np.array([row for row in range(len(files)) if row not in errors and row not in copies], np.int64)
    kept = np.isin(sample, rows)
    failures = [
        Failure(files[row].path, reason, files[row].size, files[row].mtime_ns)
        for row, reason in sorted(errors.items())
    ]
    return Encoded(
        rows=rows,
        sample=np.array(sample, np.int64)[kept],
        vectors=tuple(_kept(column.vectors[: len(files)], rows) for column in columns),
        views=tuple(
            _kept(_views_of(column.vectors[len(files) :], len(sample)), np.flatnonzero(kept), axis=1)
            for column in columns
        ),
        failures=tuple(failures),
        copies=len(copies),
    )


def _kept(vectors: NDArray[np.float32], rows: NDArray[np.int64], axis: int = 0) -> NDArray[np.float32]:
    """No copy where all are kept: of ten thousand photos each would take up to a hundred megabytes."""
    return vectors if len(rows) == vectors.shape[axis] else vectors.take(rows, axis)


def _views_of(vectors: NDArray[np.float32], sampled: int) -> NDArray[np.float32]:
    return vectors.reshape(len(INSTANCE_VIEWS), sampled, vectors.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """For each method the prepared picture and its views; nothing but `error` for a file that failed."""

    digest: str = ""
    prepared: list[list[NDArray[Any]]] = field(default_factory=list)
    error: PhotoError | PluginError | None = None


class _Reader:
    """The work for one file; called by many threads."""

    def __init__(
        self,
        prepares: Sequence[Callable[[Image.Image], NDArray[Any]]],
        shrink_to: int | None,
        seed: int,
    ) -> None:
        self._prepares, self._shrink_to, self._seed = prepares, shrink_to, seed

    def __call__(self, job: tuple[str, bool]) -> _Read:
        path, with_views = job
        try:
            data = read_photo(path)
            name = digest(data)
            image = decode(data, path=path, shrink_to=self._shrink_to).image
            del data
            prepared = [[prepare(image)] for prepare in self._prepares]
            for view in self._views(image, name) if with_views else ():
                for own, prepare in zip(prepared, self._prepares, strict=True):
                    own.append(prepare(view))
            return _Read(name, prepared)
        except (PhotoError, PluginError) as error:
            return _Read(error=error)
        except MemoryError:
            return _Read(error=PhotoTooLarge(path, "too large for this machine's memory"))

    def _views(self, image: Image.Image, name: str) -> Iterator[Image.Image]:
        """Of a picture no larger than a view needs, and drawn from its content: the same in any folder."""
        factor = min(image.size) // (2 * self._shrink_to) if self._shrink_to else 1
        small = image.reduce(factor) if factor > 1 else image
        return (view for _, view in instance_views(small, [self._seed, int(name[:16], 16)]))


class _Column:
    """One method's vectors, (slots, D), filled batch by batch."""

    def __init__(self, method: Method, slots: int, batch_size: int) -> None:
        self.method, self._slots, self._batch_size = method, slots, batch_size
        self._pending: list[tuple[int, NDArray[Any]]] = []
        self.vectors = np.empty((slots, 0), np.float32)
        self.errors: dict[int, VitmaeSearchError] = {}

    def add(self, slots: Sequence[int], pictures: Sequence[NDArray[Any]]) -> None:
        self._pending += zip(slots, pictures, strict=True)
        while len(self._pending) >= self._batch_size:
            self._embed(self._batch_size)

    def flush(self) -> None:
        self._embed(self._batch_size)

    def _embed(self, count: int) -> None:
        batch, self._pending = self._pending[:count], self._pending[count:]
        outcomes = self.method.embed([picture for _, picture in batch])
        for (slot, _), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, VitmaeSearchError):
                self.errors[slot] = outcome
                continue
            if not self.vectors.shape[1]:
                self.vectors = np.zeros((self._slots, len(outcome)), np.float32)
            self.vectors[slot] = outcome
