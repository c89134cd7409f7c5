"""Classify the library's photos: read ahead, run a classifier in batches, and record tags in the catalogue.

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
    PluginError,
    StorageUnreachable,
    UnreadablePhoto,
    VitmaeSearchError,
    clear_frames,
)
from vitmae_search.indexing.batcher import Batcher, Outcome, batch_size_for
from vitmae_search.indexing.job import Cancelled, ProgressReporter, progress_writer, run_job
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.indexing.stored_files import StoredFiles, raise_if_unreachable
from vitmae_search.photos import (
    PHOTO_PROCESSES,
    PhotoProcesses,
    decode_target,
    digest,
    is_stored_photo,
    photo_fits_memory,
)
from vitmae_search.photos.prefetch import default_workers, prefetch
from vitmae_search.records import ClassifyReport, Failure, JobProgress, Stamp


@dataclass(frozen=True, slots=True)
class TagOptions:
    """How photos are classified.

    Attributes:
        source: Where the classifier came from; see `CatalogWriter.ensure_classifier`.
        top: Most tags of a photo.
        min_confidence: Least confidence of a tag, 0 to 1.
        under: Only photos in this folder.
        again: Whether to classify photos again that this classifier has seen.
        decode: One of `photos.DECODE_MODES`.
        batch_size: Photos in a batch; None is `batch_size_for` the classifier.
    """

    source: str
    top: int = 3
    min_confidence: float = 0.2
    under: str | None = None
    again: bool = False
    decode: str = "scaled"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse values out of range, with a ValueError."""
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
    on_progress: Callable[[JobProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    run_key: str | None = None,
) -> ClassifyReport:
    """Give the library's photos tags; those that this classifier has seen before keep theirs.

    A classifier that says other things (other weights, labels, `top` or `min_confidence`) is another one:
    it sees all photos, and its tags replace those from the same source. A photo that cannot be read is
    reported and tried again at the next run. After `cancelled` or Ctrl-C finished batches are kept.

    Args:
        catalog: Has the photos, and where tags are recorded.
        options: How photos are classified.
        open_classifier: Opens the classifier, which is closed at the end.
        workers: How many photos are read at a time; None is `default_workers()`.
        on_progress: Called at each step.
        cancelled: Asked often; true stops the run.
        run_key: Key of the run's row in the catalogue.

    Raises:
        PluginError: The classifier cannot classify at all.
        StorageError: The catalogue cannot be written.
    """
    reporter = ProgressReporter(on_progress, progress_writer(catalog, run_key))

    def run(stop: Callable[[], bool]) -> ClassifyReport:
        job = _ClassifyJob(catalog, options, workers or default_workers(), reporter, stop)
        return job.run(open_classifier)

    arguments = {
        "model": options.source,
        "top": options.top,
        "min_confidence": options.min_confidence,
        "folder": options.under,
    }
    return run_job(catalog, run_key, "classify", arguments, run, cancelled)


class Tagger:
    """Chooses tags by their probabilities, the surest first."""

    def __init__(self, labels: tuple[str, ...], top: int, min_confidence: float) -> None:
        """Sum up classes of one name.

        Args:
            labels: Names of the classes.
            top: Most tags.
            min_confidence: Least confidence of a tag, 0 to 1.
        """
        self._names = list(dict.fromkeys(labels))
        columns = {name: column for column, name in enumerate(self._names)}
        self._columns = np.array([columns[label] for label in labels])
        self._top, self._min_confidence = top, min_confidence

    def __call__(self, probabilities: NDArray[np.float32]) -> list[tuple[str, float]]:
        """(number of labels,) to (tag, confidence) pairs. Equal ones keep the order of the labels."""
        sums = np.bincount(self._columns, weights=probabilities, minlength=len(self._names))
        best = np.argsort(-sums, kind="stable")[: self._top]
        # Rounding may carry a sum a little above 1.
        found = [(self._names[i], min(1.0, float(sums[i]))) for i in best]
        return [(name, confidence) for name, confidence in found if confidence >= self._min_confidence]


@dataclass(frozen=True, slots=True, eq=False)
class _ReadContent:
    """A content that was read: what `prepare` gave, or an error."""

    content: Taggable
    pixels: NDArray[Any] | None = None
    error: PhotoError | PluginError | None = None


class _Reader:
    """Reads and prepares one content; called by many threads."""

    def __init__(
        self,
        processes: PhotoProcesses,
        stored: StoredFiles,
        classifier: GuardedClassifier,
        shrink_to: int | None,
    ) -> None:
        self._processes = processes
        self._stored = stored
        self._prepare, self._shrink_to = classifier.prepare, shrink_to

    def __call__(self, content: Taggable) -> _ReadContent:
        read = self._read(content)
        if read.error is not None:
            clear_frames(read.error)
        return read

    def _read(self, content: Taggable) -> _ReadContent:
        try:
            with photo_fits_memory(content.files[0].path):
                path, data = self._read_bytes(content)
                image = self._processes.decode(data, path=path, shrink_to=self._shrink_to).image
                del data
                return _ReadContent(content, self._prepare(image))
        except (PhotoError, PluginError) as error:
            return _ReadContent(content, error=error)

    def _read_bytes(self, content: Taggable) -> tuple[str, bytes]:
        """Path and bytes of the first file that still holds the content. Raises the first file's error."""
        first: PhotoError | StorageUnreachable | None = None
        for stamp in content.files:
            try:
                data = self._read_file(stamp)
                if digest(data) == content.digest:
                    return stamp.path, data
                changed = "it has changed since it was indexed; index its folder again"
                raise UnreadablePhoto(stamp.path, changed)
            except (PhotoError, StorageUnreachable) as error:
                first = first or error
        assert first is not None
        raise first

    def _read_file(self, stamp: Stamp) -> bytes:
        if is_stored_photo(stamp.path):
            found = self._stored.take(PendingFile(stamp))
            if isinstance(found, PhotoError):
                raise found
            return found
        try:
            return PHOTO_PROCESSES.read(stamp.path)
        except PhotoError as error:
            raise_if_unreachable(stamp.path, error)
            raise


@dataclass(slots=True)
class _Counts:
    classified: int = 0
    unchanged: int = 0
    failures: list[Failure] = field(default_factory=list)


class _ClassifyJob:
    """One run of one classifier."""

    def __init__(
        self,
        catalog: CatalogWriter,
        options: TagOptions,
        workers: int,
        reporter: ProgressReporter,
        cancelled: Callable[[], bool],
    ) -> None:
        self._catalog, self._options, self._workers = catalog, options, workers
        self._reporter, self._cancelled = reporter, cancelled
        self._counts = _Counts()
        self._model, self._labels = "", tuple[str, ...]()

    def run(self, open_classifier: Callable[[], GuardedClassifier]) -> ClassifyReport:
        """Classify; finished batches are kept when a cancellation or Ctrl-C ends the run."""
        interrupted = False
        try:
            self._reporter.report("scanning", 0)
            with open_classifier() as classifier:
                self._model, self._labels = classifier.model, classifier.labels
                self._classify_all(classifier)
        except (Cancelled, KeyboardInterrupt):
            interrupted = True
        counts = self._counts
        failed = len(counts.failures)
        done = counts.classified + failed
        self._reporter.report("done", done, done, failed=failed)
        return ClassifyReport(
            classified=counts.classified,
            unchanged=counts.unchanged,
            failed=failed,
            failures=tuple(counts.failures),
            labels=self._labels,
            seconds=self._reporter.seconds,
            model=self._model,
            interrupted=interrupted,
        )

    def _classify_all(self, classifier: GuardedClassifier) -> None:
        options = self._options
        classifier_id = self._ensure_classifier(classifier)
        contents = self._catalog.taggable(classifier_id, options.under, again=options.again)
        if not options.again:
            self._counts.unchanged = self._catalog.count_classified(classifier_id, options.under)
        tagger = Tagger(classifier.labels, options.top, options.min_confidence)
        processes, stored = PhotoProcesses(), StoredFiles()
        reader = _Reader(processes, stored, classifier, decode_target(options.decode, classifier.input_size))
        batch_size = options.batch_size or batch_size_for(classifier)
        ahead = batch_size + 2 * self._workers

        def record(batch: Iterable[tuple[_ReadContent, Outcome | None]]) -> None:
            self._record(classifier_id, tagger, batch)

        first_files = stored.ahead_of(PendingFile(content.files[0]) for content in contents)
        in_step = (content for content, _ in zip(contents, first_files, strict=True))
        reads = prefetch(in_step, reader, workers=self._workers, ahead=ahead, end_work=processes.close)
        with (
            closing(Batcher[_ReadContent](classifier.prepare, classifier.classify, batch_size)) as batcher,
            closing(stored),
            closing(reads),
        ):
            try:
                for read in reads:
                    if self._cancelled():
                        record(batcher.finish())
                        raise Cancelled
                    error = None if isinstance(read.error, PhotoError) else read.error
                    batcher.add(replace(read, pixels=None), read.pixels, error)
                    if batcher.due:
                        record(batcher.advance())
                    self._report_progress(read, batcher.waiting, len(contents))
            except StorageUnreachable:
                while batcher.waiting:
                    record(batcher.advance())
                raise
            while batcher.waiting:
                record(batcher.advance())

    def _ensure_classifier(self, classifier: GuardedClassifier) -> int:
        """The catalogue's id of this classifier with these options."""
        options = self._options
        tag_options = {"top": options.top, "min_confidence": float(options.min_confidence)}
        identity = {"classifier": classifier.identity, "tags": tag_options}
        return self._catalog.ensure_classifier(
            fingerprint=fingerprint(identity, classifier.info, options.decode),
            source=f"{classifier.info.name}: {options.source}",
            model=classifier.model,
        )

    def _report_progress(self, read: _ReadContent, waiting: int, total: int) -> None:
        failed = len(self._counts.failures)
        done = self._counts.classified + failed + waiting
        path = read.content.files[0].path
        self._reporter.report("classifying", done, total, failed=failed, current=path)

    def _record(
        self, classifier_id: int, tagger: Tagger, batch: Iterable[tuple[_ReadContent, Outcome | None]]
    ) -> None:
        """Record a batch that was classified, in one transaction."""
        tagged: list[tuple[int, list[tuple[str, float]]]] = []
        for read, outcome in batch:
            found = read.error or outcome
            assert found is not None
            if isinstance(found, VitmaeSearchError):
                self._counts.failures.append(_failure(read, found))
            else:
                tagged.append((read.content.content_id, tagger(found)))
        if tagged:
            self._catalog.record_tags(classifier_id, tagged)
        self._counts.classified += len(tagged)


def _failure(read: _ReadContent, error: VitmaeSearchError) -> Failure:
    stamp = read.content.files[0]
    reason = error.reason if isinstance(error, PhotoError) else str(error)
    return Failure(stamp.path, reason, stamp.size, stamp.mtime_ns)
