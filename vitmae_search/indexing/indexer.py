"""Index folders: walk, plan, read ahead, embed, record, and bring the vector index up to date."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import DamagedPhoto, PhotoError, StorageUnreachable, VitmaeSearchError
from vitmae_search.indexing.batcher import Batcher, batch_size_for, vector_batcher
from vitmae_search.indexing.cluster.job import ClusterOptions
from vitmae_search.indexing.decode_journal import DEATHS_REASON, MAX_DEATHS, DecodeJournal
from vitmae_search.indexing.job import (
    Cancelled,
    ProgressReporter,
    progress_writer,
    raise_if_cancelled,
    run_job,
)
from vitmae_search.indexing.moved_photos import MissingRows
from vitmae_search.indexing.plan import PendingFile, Plan, make_plan
from vitmae_search.indexing.reader import UNKNOWN_CONTENT, FetchedFile, read_ahead
from vitmae_search.indexing.recorder import IndexCounts, IndexTarget, Recorder
from vitmae_search.indexing.videos import expand_videos
from vitmae_search.indexing.walk import FolderWalk, WalkResult, resolve_folders
from vitmae_search.photos import PhotoDecoder, ThumbnailStore, decode_target, suffix_of
from vitmae_search.photos.decode_pool import launch_workers
from vitmae_search.photos.prefetch import default_workers
from vitmae_search.records import IndexReport, JobProgress, Space
from vitmae_search.vectors import VectorStore

_SAVE_INTERVAL = 300.0
"""Seconds between two saves of the vector index within a run."""
_FILES_PER_CHECK = 256
"""Files of the walk between two reports of its progress, and two looks whether the run is cancelled."""


def index_folders(
    catalog: CatalogWriter,
    folders: Sequence[str],
    *,
    open_target: Callable[[], IndexTarget],
    vectors: VectorStore | None = None,
    thumbnails: ThumbnailStore | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exclude: Sequence[str] = (),
    retry_failed: bool = False,
    rescan: bool = False,
    videos: bool = False,
    cluster: ClusterOptions | None = None,
    on_progress: Callable[[JobProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    run_key: str | None = None,
) -> IndexReport:
    """Bring the catalogue up to date with the photos in `folders`. To run again is to resume.

    After `cancelled` or Ctrl-C finished batches are kept, and the report says `interrupted`; it counts what
    was dealt with.

    Args:
        catalog: Where photos and vectors are recorded.
        folders: Paths of the folders.
        open_target: Gives the spaces, and a way to open the embedder if there are photos to read.
        vectors: Vector indexes, brought up to date at the end and every few minutes.
        thumbnails: Where thumbnails are stored.
        batch_size: Photos in a batch; None is `batch_size_for` the embedder.
        workers: How many photos are read at a time, each in a process; None is `default_workers()`.
        exclude: Patterns of names and paths to skip; see `photos.scan`.
        retry_failed: Whether to read files again that failed and would fail again.
        rescan: Whether to read all files, also those that seem unchanged.
        videos: Whether to index frames of videos; see `FolderWalk`.
        cluster: A Ray cluster that reads and embeds; None is this process.
        on_progress: Called at each step.
        cancelled: Asked often; true stops the run.
        run_key: Key of the run's row in the catalogue.

    Raises:
        LibraryError: A folder is absent and was never indexed.
        StorageError: The disk is full; what was recorded is kept.
        PluginError: The plugin cannot embed at all; what was recorded is kept.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least 1")
    paths = resolve_folders(catalog, folders)
    workers = workers or default_workers()
    options = _Options(paths, exclude, retry_failed, rescan, videos, batch_size, workers, cluster)
    reporter = ProgressReporter(on_progress, progress_writer(catalog, run_key))

    def run(stop: Callable[[], bool]) -> IndexReport:
        return _IndexJob(catalog, options, vectors, thumbnails, reporter, stop).run(open_target)

    arguments = {"folders": paths, "exclude": list(exclude)}
    return run_job(catalog, run_key, "index", arguments, run, cancelled)


@dataclass(frozen=True, slots=True)
class _Options:
    folders: Sequence[str]
    exclude: Sequence[str]
    retry_failed: bool
    rescan: bool
    videos: bool
    batch_size: int | None
    workers: int
    cluster: ClusterOptions | None


class _IndexJob:
    """One run over some folders. The steps of the walk are its methods, in their order."""

    def __init__(
        self,
        catalog: CatalogWriter,
        options: _Options,
        vectors: VectorStore | None,
        thumbnails: ThumbnailStore | None,
        reporter: ProgressReporter,
        cancelled: Callable[[], bool],
    ) -> None:
        self._catalog = catalog
        self._options = options
        self._vectors = vectors
        self._thumbnails = thumbnails
        self._reporter = reporter
        self._cancelled = cancelled
        self._walked = WalkResult()
        self._frames = 0  # more than their videos
        self._counts = IndexCounts()
        self._newly_missing = 0
        self._searched: Space | None = None
        self._saved_at = time.monotonic()

    def run(self, open_target: Callable[[], IndexTarget]) -> IndexReport:
        """Index; what is done when an error, a cancellation or Ctrl-C ends the run is kept."""
        interrupted = False
        try:
            self._reporter.report("scanning", 0)
            target = open_target()
            self._searched = target.searched
            self._update_catalog(target)
        except (Cancelled, KeyboardInterrupt):
            interrupted = True
        except VitmaeSearchError:
            with suppress(VitmaeSearchError):  # the first error is the one to report
                self._save_vector_index()
            raise
        if self._searched is not None:
            self._reporter.report("finishing", self._counts.done, failed=len(self._counts.failures))
            self._save_vector_index()
            interrupted = self._tune_vector_index() or interrupted
        report = self._report(interrupted)
        self._reporter.report("done", report.found, report.found, failed=report.failed)
        return report

    def _update_catalog(self, target: IndexTarget) -> None:
        """Walk the folders, plan what to do, and do it."""
        self._walked = self._walk_folders(target.features)
        plan = make_plan(
            self._walked.stamps.values(),
            self._walked.rows,
            self._walked.failures,
            tried_with=target.tried_with if self._walked.failures else "",
            retry_failed=self._options.retry_failed,
            rescan=self._options.rescan,
        )
        self._record_known_files(plan)
        before = len(plan.pending)
        broken = expand_videos(
            plan, self._walked.rows, rescan=self._options.rescan, on_video=self._report_video
        )
        self._frames = len(plan.pending) - before
        missing = MissingRows(self._catalog, plan.unseen, self._options.folders)
        if plan.pending:
            self._index_files(plan.pending, missing, target, broken)
        self._record_missing_files(plan, missing)

    def _report_video(self, path: str) -> None:
        raise_if_cancelled(self._cancelled)
        self._reporter.report("scanning", len(self._walked.stamps), current=path)

    def _walk_folders(self, features: Space) -> WalkResult:
        own_folder = None if self._thumbnails is None else os.fspath(self._thumbnails.folder)
        walk = FolderWalk(
            self._catalog,
            self._options.folders,
            self._options.exclude,
            own_folder,
            self._options.videos,
        )
        for number, stamp in enumerate(walk.stamps(), start=1):
            if number % _FILES_PER_CHECK == 0:
                raise_if_cancelled(self._cancelled)
                self._reporter.report("scanning", number, current=os.path.dirname(stamp.path))
        raise_if_cancelled(self._cancelled)
        return walk.finish(features.space_id)

    def _record_known_files(self, plan: Plan) -> None:
        """Count and record the files that need not be read."""
        self._counts.unchanged += plan.unchanged + self._walked.other_names
        self._counts.failures += plan.failed
        if plan.returned:
            self._catalog.mark_found(plan.returned)
        self._catalog.record_stamps(plan.restamped)

    def _index_files(
        self,
        pending: Sequence[PendingFile],
        missing: MissingRows,
        target: IndexTarget,
        broken: Mapping[str, PhotoError],
    ) -> None:
        """Read, embed and record files, and again those whose content was deleted meanwhile.

        Args:
            pending: The files.
            missing: Rows whose file is gone.
            target: The spaces.
            broken: Why files cannot be used, where that is known.
        """
        if self._options.cluster is not None:
            self._index_on_cluster(self._options.cluster, pending, missing, target, broken)
            return
        launch_workers("vitmae_search.embedding.guard_prepare")  # while the model is loaded
        embedder = target.open_embedder()
        batch_size = self._options.batch_size or batch_size_for(embedder)
        batcher = Batcher[FetchedFile](embedder.prepare, embedder.embed, batch_size)
        shrink_to = decode_target(target.features.decode, embedder.input_size)
        decoder = PhotoDecoder(embedder.prepare, self._thumbnails, shrink_to)
        with (
            closing(DecodeJournal(self._catalog.folder)) as journal,
            closing(Recorder(self._catalog, target, batcher, missing, self._counts)) as recorder,
        ):
            pending = _record_broken(pending, broken, recorder)
            suspects = [file for file in pending if file.stamp.path in journal.suspects]
            pending = [file for file in pending if file.stamp.path not in journal.suspects]
            try:
                while pending:
                    self._read_and_record(pending, recorder, decoder, batch_size, journal)
                    pending, recorder.to_read_again = recorder.to_read_again, []
                self._index_suspects(suspects, recorder, decoder, journal)
            except (Cancelled, KeyboardInterrupt):
                recorder.finish()
                raise
            except StorageUnreachable:
                recorder.flush()
                raise

    def _index_on_cluster(
        self,
        cluster: ClusterOptions,
        pending: Sequence[PendingFile],
        missing: MissingRows,
        target: IndexTarget,
        broken: Mapping[str, PhotoError],
    ) -> None:
        """As `_index_files`, with files that are read and embedded on a cluster."""
        batcher: Batcher[FetchedFile] = vector_batcher(target.features.dimension, self._options.batch_size)
        check = partial(raise_if_cancelled, self._cancelled)
        folders = tuple(filter(os.path.isdir, self._options.folders))
        with (
            cluster.reader(
                target.features, self._thumbnails, folders, self._options.batch_size, check
            ) as reader,
            closing(Recorder(self._catalog, target, batcher, missing, self._counts)) as recorder,
        ):
            pending = _record_broken(pending, broken, recorder)
            try:
                while pending:
                    contents = {file.known.content_id for file in pending if file.known is not None}
                    at_hand = self._catalog.digests_at_hand(
                        contents | missing.contents, target.features.space_id
                    )
                    self._record(reader.read(pending, recorder.lookup, at_hand), recorder)
                    pending, recorder.to_read_again = recorder.to_read_again, []
            except (Cancelled, KeyboardInterrupt, VitmaeSearchError):
                recorder.flush()  # its vectors are here already
                raise

    def _index_suspects(
        self,
        suspects: Sequence[PendingFile],
        recorder: Recorder,
        decoder: PhotoDecoder,
        journal: DecodeJournal,
    ) -> None:
        """Read what an earlier run was reading when it was ended: one at a time, each recorded at once."""
        for file in sorted(suspects, key=lambda file: journal.suspects[file.stamp.path]):
            path = file.stamp.path
            if journal.suspects.get(path, 0) >= MAX_DEATHS and not self._options.retry_failed:
                error = DamagedPhoto(path, DEATHS_REASON)
                recorder.add(FetchedFile(file, None, UNKNOWN_CONTENT, error=error))
                recorder.flush()
                journal.suspects.pop(path)
            else:
                self._read_and_record([file], recorder, decoder, 1, journal)
        if recorder.to_read_again:
            pending, recorder.to_read_again = recorder.to_read_again, []
            self._read_and_record(pending, recorder, decoder, 1, journal)

    def _read_and_record(
        self,
        pending: Sequence[PendingFile],
        recorder: Recorder,
        decoder: PhotoDecoder,
        batch_size: int,
        journal: DecodeJournal,
    ) -> None:
        fetched_files = read_ahead(
            pending,
            recorder.lookup,
            decoder,
            workers=self._options.workers,
            batch_size=batch_size,
            journal=journal,
        )
        self._record(fetched_files, recorder)

    def _record(self, fetched_files: Generator[FetchedFile, None, None], recorder: Recorder) -> None:
        """Record files as they come, and what is left at the end."""
        with closing(fetched_files):
            for fetched in fetched_files:
                raise_if_cancelled(self._cancelled)
                recorder.add(fetched)
                self._report_progress(fetched.file, recorder.waiting)
                if time.monotonic() - self._saved_at >= _SAVE_INTERVAL:
                    self._save_vector_index()
        recorder.flush()

    def _report_progress(self, file: PendingFile, waiting: int) -> None:
        self._reporter.report(
            "indexing",
            self._counts.done + waiting,
            len(self._walked.stamps) + self._walked.other_names + self._frames,
            failed=len(self._counts.failures),
            current=file.stamp.path,
        )

    def _record_missing_files(self, plan: Plan, missing: MissingRows) -> None:
        """Mark rows whose file neither the walk nor a moved photo came by."""
        newly_missing = missing.newly_missing()
        if newly_missing:
            self._catalog.mark_missing(newly_missing)
        self._newly_missing = len(newly_missing)
        if plan.unseen_failures:
            self._catalog.clear_failures(plan.unseen_failures)

    def _save_vector_index(self) -> None:
        if self._vectors is not None and self._searched is not None:
            self._vectors.save(self._catalog.vector_source(self._searched.space_id))
        self._saved_at = time.monotonic()

    def _tune_vector_index(self) -> bool:
        """Make searches among many vectors fast again. True if Ctrl-C ended that; nothing else is lost."""
        if self._vectors is not None and self._searched is not None:
            try:
                source = self._catalog.vector_source(self._searched.space_id)
                self._vectors.speed_up(source, self._cancelled)
            except KeyboardInterrupt:
                return True
        return False

    def _report(self, interrupted: bool) -> IndexReport:
        counts = self._counts
        return IndexReport(
            found=counts.done,
            added=counts.added,
            updated=counts.updated,
            moved=counts.moved,
            unchanged=counts.unchanged,
            missing=self._newly_missing,
            failed=len(counts.failures),
            offline=tuple(dict.fromkeys(self._walked.offline)),
            failures=tuple(sorted(counts.failures, key=lambda failure: os.fsencode(failure.path))),
            problems=tuple(self._walked.problems),
            seconds=self._reporter.seconds,
            model="" if self._searched is None else self._searched.model,
            space=None if self._searched is None else self._searched.space_id,
            interrupted=interrupted,
            left_out=tuple(sorted(self._walked.left_out, key=os.fsencode)),
            not_looked_at=dict(Counter(sorted(map(suffix_of, self._walked.others)))),
        )


def _record_broken(
    pending: Sequence[PendingFile], broken: Mapping[str, PhotoError], recorder: Recorder
) -> list[PendingFile]:
    """Record the files that are known to be of no use, and return the others."""
    for file in (file for file in pending if file.stamp.path in broken):
        recorder.add(FetchedFile(file, None, UNKNOWN_CONTENT, error=broken[file.stamp.path]))
    recorder.flush()
    return [file for file in pending if file.stamp.path not in broken]
