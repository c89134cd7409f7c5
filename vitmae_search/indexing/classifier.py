"""From photos of the library to tags in the catalogue: read ahead, classify, record.

Incremental as indexing is: a classifier sees each content once, and to run again is to resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import CatalogWriter, Taggable
from vitmae_search.embedding import GuardedClassifier, fingerprint
from vitmae_search.errors import (
    PhotoError,
    PhotoTooLarge,
    PluginError,
    UnreadablePhoto,
    VitmaeSearchError,
    clear_frames,
)
from vitmae_search.indexing.batcher import Batches, Outcome, batch_size_for
from vitmae_search.indexing.progress import Cancelled, ProgressTeller, record_in_run, recorded
from vitmae_search.photos import decode, decode_target, digest, read_photo
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.records import ClassifyReport, Failure, IndexProgress


@dataclass(frozen=True, slots=True)
class TagOptions:
    """What is asked of a classifier.

    At most `top` tags a photo, none below `min_confidence` (0 to 1); only photos in the folder `under`;
    `again` also those that it has seen. `decode` is one of `photos.DECODE_MODES`. `batch_size` None is
    `batch_size_for`'s. `source` says where the classifier came from (see `CatalogWriter.ensure_classifier`).
    """

    source: str
    top: int = 3
    min_confidence: float = 0.2
    under: str | None = None
    again: bool = False
    decode: str = "scaled"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top={self.top}: at least 1")
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence={self.min_confidence}: from 0 to 1")


def classify_photos(
    catalog: CatalogWriter,
    options: TagOptions,
    *,
    open_classifier: Callable[[], GuardedClassifier],
    workers: int | None = None,
    on_progress: Callable[[IndexProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    run_key: str | None = None,
) -> ClassifyReport:
    """Give the library's photos tags; those that this classifier has seen before keep theirs.

    A classifier that says other things (other weights, labels, `top` or `min_confidence`) is another one:
    it sees all photos, and its tags take the place of those from the same source. A photo that cannot be
    read is reported and tried again at the next run. After `cancelled` or Ctrl-C finished batches are kept.
    Raises the classifier's error where it cannot classify at all, and `StorageError`.
    """
    run = _ClassifyRun(catalog, options, workers or default_workers(), on_progress, cancelled, run_key)
    arguments = {
        "model": options.source,
        "top": options.top,
        "min_confidence": options.min_confidence,
        "folder": options.under,
    }
    return recorded(catalog, run_key, "classify", arguments, lambda: run.run(open_classifier))


class Tagger:
    """From a row of probabilities to the tags that are kept, the surest first."""

    def __init__(self, labels: tuple[str, ...], top: int, min_confidence: float) -> None:
        self._names = list(dict.fromkeys(labels))
        columns = {name: column for column, name in enumerate(self._names)}
        self._columns = np.array([columns[label] for label in labels])
        self._top, self._least = top, min_confidence

    def __call__(self, probabilities: NDArray[np.float32]) -> list[tuple[str, float]]:
        """(number of labels,) to (tag, confidence). Classes of one name add up; equals keep their order."""
        sums = np.bincount(self._columns, weights=probabilities, minlength=len(self._names))
        best = np.argsort(-sums, kind="stable")[: self._top]
        # Rounding may carry a sum a hair above 1.
        found = [(self._names[i], min(1.0, float(sums[i]))) for i in best]
        return [(name, confidence) for name, confidence in found if confidence >= self._least]


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A content that was read: what `prepare` gave, or why there is nothing."""

    job: Taggable
    pixels: NDArray[Any] | None = None
    error: PhotoError | PluginError | None = None


class _Reader:
    """The work for one content; called by many threads."""

    def __init__(self, classifier: GuardedClassifier, shrink_to: int | None) -> None:
        self._prepare, self._shrink_to = classifier.prepare, shrink_to

    def __call__(self, job: Taggable) -> _Read:
        read = self._read(job)
        if read.error is not None:
            clear_frames(read.error)
        return read

    def _read(self, job: Taggable) -> _Read:
        path = job.files[0].path
        try:
            path, data = _read_content(job)
            image = decode(data, path=path, shrink_to=self._shrink_to).image
            del data
            return _Read(job, self._prepare(image))
        except (PhotoError, PluginError) as error:
            return _Read(job, error=error)
        except MemoryError:
            return _Read(job, error=PhotoTooLarge(path, "too large for this machine's memory"))


def _read_content(job: Taggable) -> tuple[str, bytes]:
    """The first of its files that still holds the content, and its bytes. Raises the first one's error."""
    first: PhotoError | None = None
    for stamp in job.files:
        try:
            data = read_photo(stamp.path)
            if digest(data) == job.digest:
                return stamp.path, data
            raise UnreadablePhoto(stamp.path, "it has changed since it was indexed; index its folder again")
        except PhotoError as error:
            first = first or error
    assert first is not None
    raise first


@dataclass(slots=True)
class _Counts:
    classified: int = 0
    unchanged: int = 0
    failures: list[Failure] = field(default_factory=list)


class _ClassifyRun:
    """One run of one classifier."""

    def __init__(
        self,
        catalog: CatalogWriter,
        options: TagOptions,
        workers: int,
        on_progress: Callable[[IndexProgress], None] | None,
        cancelled: Callable[[], bool] | None,
        run_key: str | None,
    ) -> None:
        self._catalog, self._options, self._workers = catalog, options, workers
        self._cancelled = cancelled or (lambda: False)
        self._teller = ProgressTeller(on_progress, record_in_run(catalog, run_key))
        self._counts = _Counts()
        self._model, self._labels = "", tuple[str, ...]()

    def run(self, open_classifier: Callable[[], GuardedClassifier]) -> ClassifyReport:
        interrupted = False
        try:
            self._teller.tell("scanning", 0)
            with open_classifier() as classifier:
                self._model, self._labels = classifier.model, classifier.labels
                self._classify_all(classifier)
        except (Cancelled, KeyboardInterrupt):
            interrupted = True
        counts = self._counts
        failed = len(counts.failures)
        self._teller.tell("done", counts.classified + failed, counts.classified + failed, failed=failed)
        return ClassifyReport(
            classified=counts.classified,
            unchanged=counts.unchanged,
            failed=failed,
            failures=tuple(counts.failures),
            labels=self._labels,
            seconds=self._teller.seconds,
            model=self._model,
            interrupted=interrupted,
        )

    def _classify_all(self, classifier: GuardedClassifier) -> None:
        options = self._options
        decides = {"top": options.top, "min_confidence": float(options.min_confidence)}
        number = self._catalog.ensure_classifier(
            fingerprint=fingerprint(
                {"classifier": classifier.identity, "tags": decides}, classifier.info, options.decode
            ),
            source=f"{classifier.info.name}: {options.source}",
            model=classifier.model,
        )
        todo = self._catalog.taggable(number, options.under, again=options.again)
        if not options.again:
            self._counts.unchanged = self._catalog.count_classified(number, options.under)
        tagger = Tagger(classifier.labels, options.top, options.min_confidence)
        reader = _Reader(classifier, decode_target(options.decode, classifier.input_size))
        size = options.batch_size or batch_size_for(classifier)
        ahead = size + 2 * self._workers

        def record(batch: Iterable[tuple[_Read, Outcome | None]]) -> None:
            self._record(number, tagger, batch)

        with (
            closing(Batches[_Read](classifier, classifier.classify, size)) as batches,
            closing(prefetch(todo, reader, workers=self._workers, ahead=ahead)) as read,
        ):
            for one in read:
                if self._cancelled():
                    record(batches.finish())
                    raise Cancelled
                broken = None if isinstance(one.error, PhotoError) else one.error
                batches.add(replace(one, pixels=None), one.pixels, broken)
                if batches.due:
                    record(batches.turn())
                self._tell(one, batches.waiting, len(todo))
            while batches.waiting:
                record(batches.turn())

    def _tell(self, one: _Read, waiting: int, total: int) -> None:
        failed = len(self._counts.failures)
        done = self._counts.classified + failed + waiting
        self._teller.tell("classifying", done, total, failed=failed, current=one.job.files[0].path)

    def _record(self, number: int, tagger: Tagger, batch: Iterable[tuple[_Read, Outcome | None]]) -> None:
        """A batch that was classified: one transaction."""
        tagged: list[tuple[int, list[tuple[str, float]]]] = []
        for one, outcome in batch:
            found = one.error or outcome
            assert found is not None
            if isinstance(found, VitmaeSearchError):
                self._counts.failures.append(_failure(one, found))
            else:
                tagged.append((one.job.content_id, tagger(found)))
        if tagged:
            self._catalog.record_tags(number, tagged)
        self._counts.classified += len(tagged)


def _failure(one: _Read, error: VitmaeSearchError) -> Failure:
    stamp = one.job.files[0]
    reason = error.reason if isinstance(error, PhotoError) else str(error)
    return Failure(stamp.path, reason, stamp.size, stamp.mtime_ns)
