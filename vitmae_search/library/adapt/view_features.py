"""Encode views of photos, and store their features in a folder, so that a stopped run can resume."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import PhotoError, PluginError, VitmaeSearchError
from vitmae_search.indexing.batcher import DEFAULT_BATCH_SIZE, Batcher, Outcome
from vitmae_search.photos import PhotoProcesses, photo_fits_memory
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.photos.views import reduce_for_views
from vitmae_search.records import Failure, Stamp

MakeViews = Callable[[Image.Image, str], Iterable[Image.Image]]
"""From an RGB image and its file's digest to views of it, the image itself first."""

USED, COPY = "used", "copy"

FileOutcome = tuple[str, str]
"""A file's digest, and USED, COPY or why it failed."""


@dataclass(frozen=True, slots=True, eq=False)
class ViewFeatures:
    """Features of views.

    Attributes:
        views: (N, V, F) float16, memory-mapped: V views of each of N photos, in their order.
        digests: Digests of the N photos.
        failures: Files that could not be used.
        copies: Number of files with the content of an earlier one.
    """

    views: NDArray[np.float16]
    digests: tuple[str, ...]
    failures: tuple[Failure, ...]
    copies: int


class ViewStore:
    """Appends features to one file of a folder, and the outcome of each photo to another.

    Attributes:
        outcomes: Those of the first files, in their order.
    """

    def __init__(self, folder: Path, views: int, dimension: int) -> None:
        """Open the store, and drop what a kill left half written.

        Args:
            folder: Made if it is absent.
            views: Views of each photo.
            dimension: Length of a view's features.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._features, self._log = folder / "views.f16", folder / "photos.jsonl"
        self._shape = views, dimension
        self.outcomes: list[FileOutcome] = list(self._complete_lines())
        self._truncate()

    def append(self, outcomes: Sequence[FileOutcome], rows: NDArray[np.float16]) -> None:
        """Append the next files. Features are written first: a line of the log means that they are there.

        Args:
            outcomes: Of the files, in their order.
            rows: (n · V, F) features of those that are used.
        """
        with self._features.open("ab") as stream:
            stream.write(rows.tobytes())
        with self._log.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(outcome) + "\n" for outcome in outcomes)
        self.outcomes += outcomes

    def features(self, files: Sequence[Stamp]) -> ViewFeatures:
        """Return what is stored of `files`, the first of which have been appended."""
        used = [digest for digest, outcome in self.outcomes if outcome == USED]
        shape = len(used), *self._shape
        views = (
            np.memmap(self._features, np.float16, "r", shape=shape) if used else np.empty(shape, np.float16)
        )
        failures = [
            Failure(stamp.path, outcome, stamp.size, stamp.mtime_ns)
            for stamp, (_, outcome) in zip(files, self.outcomes, strict=False)
            if outcome not in (USED, COPY)
        ]
        copies = sum(outcome == COPY for _, outcome in self.outcomes)
        return ViewFeatures(views, tuple(used), tuple(failures), copies)

    def _complete_lines(self) -> Iterator[FileOutcome]:
        """The log up to a line that a kill cut short, or whose features are not stored."""
        rows = self._features.stat().st_size // self._row_bytes if self._features.exists() else 0
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        for line in lines:
            try:
                digest, outcome = json.loads(line)
            except ValueError:
                return
            rows -= outcome == USED
            if rows < 0:
                return
            yield digest, outcome

    def _truncate(self) -> None:
        """Cut both files to the complete photos, so that `append` can go on."""
        used = sum(outcome == USED for _, outcome in self.outcomes)
        with self._features.open("ab") as stream:
            stream.truncate(used * self._row_bytes)
        text = "".join(json.dumps(outcome) + "\n" for outcome in self.outcomes)
        self._log.write_text(text, encoding="utf-8")

    @property
    def _row_bytes(self) -> int:
        views, dimension = self._shape
        return views * dimension * np.dtype(np.float16).itemsize


def encode_views(
    files: Sequence[Stamp],
    embedder: GuardedEmbedder,
    make_views: MakeViews,
    store: ViewStore,
    *,
    shrink_to: int | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    known: Iterable[str] = (),
    on_done: Callable[[int, int], None] | None = None,
    stop_early: Callable[[int], bool] = lambda used: False,
) -> ViewFeatures:
    """Encode the views of those of `files` that `store` does not have yet, each read once.

    A file that cannot be used is a failure; one with the content of an earlier file is a copy.

    Args:
        files: All files, of which the store has the first ones.
        embedder: Encodes the views.
        make_views: Makes the views of a photo; called in worker threads.
        store: Receives the features. It can be used for another call whatever this one raises.
        shrink_to: As for `photos.decode`.
        batch_size: Views in a batch.
        known: Digests of further photos, whose copies are left out.
        on_done: Called after each file with the files done and those that failed.
        stop_early: Called after each file with the photos used so far; true leaves out the other files.

    Raises:
        VitmaeSearchError: The embedder fails for every image.
    """
    processes = PhotoProcesses()
    reader = _Reader(processes, embedder, make_views, shrink_to)
    first = len(store.outcomes)
    paths = (stamp.path for stamp in files[first:])
    workers = default_workers()
    reads = prefetch(paths, reader, workers=workers, ahead=2 * workers, end_work=processes.close)
    seen = {*known, *(digest for digest, _ in store.outcomes if digest)}
    batcher = Batcher[_PhotoViews](embedder.prepare, embedder.embed, batch_size, max_wait=math.inf)
    with closing(batcher), closing(reads):
        writer = _Writer(store, batcher, seen)
        for number, read in enumerate(reads, first + 1):
            writer.add(read)
            if on_done is not None:
                on_done(number, writer.failed)
            if stop_early(writer.used):
                break
        writer.flush()
    return store.features(files)


@dataclass(frozen=True, slots=True, eq=False)
class _ReadPhoto:
    """The prepared views of a file, or the error for which there are none."""

    digest: str
    prepared: list[NDArray[Any]]
    error: str = ""


class _Reader:
    """Reads one file and prepares its views; called by many threads."""

    def __init__(
        self,
        processes: PhotoProcesses,
        embedder: GuardedEmbedder,
        make_views: MakeViews,
        shrink_to: int | None,
    ) -> None:
        self._processes = processes
        self._prepare, self._make_views, self._shrink_to = embedder.prepare, make_views, shrink_to

    def __call__(self, path: str) -> _ReadPhoto:
        try:
            with photo_fits_memory(path):
                loaded = self._processes.load(path, self._shrink_to)
                name = loaded.digest
                small = reduce_for_views(loaded.image, self._shrink_to)
                return _ReadPhoto(name, [self._prepare(view) for view in self._make_views(small, name)])
        except PhotoError as error:
            return _ReadPhoto("", [], error.reason)
        except PluginError as error:
            return _ReadPhoto("", [], str(error))


@dataclass(slots=True, eq=False)
class _PhotoViews:
    """A photo whose views are being embedded. `missing` counts those that are still to come."""

    digest: str
    outcome: str
    missing: int = 0
    vectors: list[NDArray[np.float32]] = field(default_factory=list)


class _Writer:
    """Embeds the views of photos, and appends the photos to the store in their order."""

    def __init__(self, store: ViewStore, batcher: Batcher[_PhotoViews], seen: set[str]) -> None:
        self._store, self._batcher, self._seen = store, batcher, seen
        self._waiting: deque[_PhotoViews] = deque()
        self.used = sum(outcome == USED for _, outcome in store.outcomes)
        self.failed = sum(outcome not in (USED, COPY) for _, outcome in store.outcomes)

    def add(self, read: _ReadPhoto) -> None:
        self.failed += bool(read.error)
        copy = read.digest in self._seen
        self._seen |= {read.digest} - {""}
        photo = _PhotoViews(read.digest, read.error or (COPY if copy else USED))
        self._waiting.append(photo)
        if photo.outcome != USED:
            return
        self.used += 1
        photo.missing = len(read.prepared)
        for pixels in read.prepared:
            self._batcher.add(photo, pixels)
            if self._batcher.due:
                self._write(self._batcher.advance())

    def flush(self) -> None:
        while self._batcher.waiting:
            self._write(self._batcher.advance())
        self._write([])

    def _write(self, batch: Iterable[tuple[_PhotoViews, Outcome | None]]) -> None:
        """Take a batch's vectors, and append the photos that are complete."""
        for photo, vector in batch:
            photo.missing -= 1
            if isinstance(vector, VitmaeSearchError):
                if photo.outcome == USED:
                    self.used, self.failed = self.used - 1, self.failed + 1
                    photo.outcome = str(vector)
            elif vector is not None:
                photo.vectors.append(vector)
        complete = []
        while self._waiting and not self._waiting[0].missing:
            complete.append(self._waiting.popleft())
        if complete:
            rows = [vector for photo in complete if photo.outcome == USED for vector in photo.vectors]
            outcomes = [(photo.digest, photo.outcome) for photo in complete]
            self._store.append(outcomes, np.array(rows, np.float16))
