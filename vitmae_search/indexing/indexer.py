"""Index folders: walk, plan, read ahead, embed, record, and bring the vector index up to date."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial

from vitmae_search.catalog import CatalogWriter, KnownFile
from vitmae_search.errors import DamagedPhoto, PhotoError, StorageUnreachable, VitmaeSearchError
from vitmae_search.indexing.batcher import Batcher, batch_size_for, vector_batcher
from vitmae_search.indexing.claims import FileClaims
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
from vitmae_search.photos import PhotoDecoder, ThumbnailStore, decode_target
from vitmae_search.photos.decode_pool import launch_workers
from vitmae_search.photos.prefetch import default_workers
from vitmae_search.records import Failure, IndexReport, JobProgress, Phase, Space, Stamp
from vitmae_search.vectors import VectorStore

_SAVE_INTERVAL = 300.0
"""Seconds between two saves of the vector index within a run."""
_WAIT_FOR_OTHERS = 0.5
"""Seconds between two looks whether other runs are done with the files that they hold."""
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


@dataclass(frozen=True, slots=True)
class _Reading:
    """What files are read and recorded with."""

    recorder: Recorder
    decoder: PhotoDecoder
    batch_size: int
    journal: DecodeJournal
    claims: FileClaims


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
        self._counts.unchanged += self._walked.settled + self._walked.other_names
        plan = self._plan(self._walked.stamps.values(), self._walked.rows, self._walked.failures, target)
        before = len(plan.pending)
        broken = expand_videos(
            plan,
            self._catalog,
            target.features.space_id,
            rescan=self._options.rescan,
            on_video=self._report_video,
        )
        self._frames = len(plan.pending) - before
        missing = MissingRows(self._catalog, plan.unseen, self._options.folders)
        if plan.pending:
            with closing(self._open_claims(target)) as claims:
                self._index_files(plan.pending, missing, target, broken, claims)
        self._record_missing_files(plan, missing)

    def _plan(
        self,
        stamps: Iterable[Stamp],
        rows: Mapping[str, KnownFile],
        failures: Mapping[str, Failure],
        target: IndexTarget,
    ) -> Plan:
        """Plan what to do with files, and record those that need not be read."""
        plan = make_plan(
            stamps,
            rows,
            failures,
            tried_with=target.tried_with if failures else "",
            retry_failed=self._options.retry_failed,
            rescan=self._options.rescan,
        )
        self._counts.unchanged += plan.unchanged
        self._counts.failures += plan.failed
        if plan.returned:
            self._catalog.mark_found(plan.returned)
        self._catalog.record_stamps(plan.restamped)
        return plan

    def _open_claims(self, target: IndexTarget) -> FileClaims:
        space_id = target.features.space_id

        def still_pending(files: Sequence[PendingFile]) -> Sequence[PendingFile]:
            paths = [file.stamp.path for file in files]
            rows = self._catalog.files_at(paths, space_id)
            failures = self._catalog.failures_at(paths, space_id)
            return self._plan([file.stamp for file in files], rows, failures, target).pending

        return FileClaims(self._catalog, space_id, still_pending)

    def _report_video(self, path: str) -> None:
        raise_if_cancelled(self._cancelled)
        self._reporter.report("scanning", self._walked.found, current=path)

    def _walk_folders(self, features: Space) -> WalkResult:
        own_folder = None if self._thumbnails is None else os.fspath(self._thumbnails.folder)
        walk = FolderWalk(
            self._catalog,
            self._options.folders,
            self._options.exclude,
            own_folder,
            space_id=features.space_id,
            videos=self._options.videos,
            rescan=self._options.rescan,
        )
        for number, stamp in enumerate(walk.stamps(), start=1):
            if number % _FILES_PER_CHECK == 0:
                raise_if_cancelled(self._cancelled)
                self._reporter.report("scanning", number, current=os.path.dirname(stamp.path))
        raise_if_cancelled(self._cancelled)
        return walk.finish()

    def _index_files(
        self,
        pending: Sequence[PendingFile],
        missing: MissingRows,
        target: IndexTarget,
        broken: Mapping[str, PhotoError],
        claims: FileClaims,
    ) -> None:
        """Read, embed and record files, and again those whose content was deleted meanwhile.

        Args:
            pending: The files.
            missing: Rows whose file is gone.
            target: The spaces.
            broken: Why files cannot be used, where that is known.
            claims: Say which of the files are this run's.
        """
        if self._options.cluster is not None:
            self._index_on_cluster(self._options.cluster, pending, missing, target, broken, claims)
            return
        launch_workers("vitmae_search.embedding.guard_prepare")  # while the model is loaded
        embedder = target.open_embedder()
        batch_size = self._options.batch_size or batch_size_for(embedder)
        batcher = Batcher[FetchedFile](embedder.prepare, embedder.embed, batch_size)
        shrink_to = decode_target(target.features.decode, embedder.input_size)
        decoder = PhotoDecoder(embedder.prepare, self._thumbnails, shrink_to)
        with (
            closing(DecodeJournal(self._catalog.folder)) as journal,
            closing(Recorder(self._catalog, target, batcher, missing, self._counts, claims)) as recorder,
        ):
            reading = _Reading(recorder, decoder, batch_size, journal, claims)
            pending = _record_broken(pending, broken, recorder)
            try:
                while pending:
                    suspects = [file for file in pending if file.stamp.path in journal.suspects]
                    pending = [file for file in pending if file.stamp.path not in journal.suspects]
                    while pending:
                        self._read_and_record(pending, reading)
                        pending, recorder.to_read_again = recorder.to_read_again, []
                    self._index_suspects(suspects, reading)
                    pending = self._wait_for_others(claims)
                    if pending:
                        journal.take_over()
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
        claims: FileClaims,
    ) -> None:
        """As `_index_files`, with files that are read and embedded on a cluster."""
        batcher: Batcher[FetchedFile] = vector_batcher(target.features.dimension, self._options.batch_size)
        check = partial(raise_if_cancelled, self._cancelled)
        folders = tuple(filter(os.path.isdir, self._options.folders))
        with (
            cluster.reader(
                target.features, self._thumbnails, folders, self._options.batch_size, check
            ) as reader,
            closing(Recorder(self._catalog, target, batcher, missing, self._counts, claims)) as recorder,
        ):
            pending = _record_broken(pending, broken, recorder)
            try:
                while pending:
                    contents = {file.known.content_id for file in pending if file.known is not None}
                    at_hand = self._catalog.digests_at_hand(
                        contents | missing.contents, target.features.space_id
                    )
                    self._record(reader.read(claims.take(pending), recorder.lookup, at_hand), recorder)
                    pending, recorder.to_read_again = recorder.to_read_again, []
                    pending = pending or self._wait_for_others(claims)
            except (Cancelled, KeyboardInterrupt, VitmaeSearchError):
                recorder.flush()  # its vectors are here already
                raise

    def _index_suspects(self, suspects: Sequence[PendingFile], reading: _Reading) -> None:
        """Read what an earlier run was reading when it was ended: one at a time, each recorded at once."""
        recorder, journal = reading.recorder, reading.journal
        alone = replace(reading, batch_size=1)
        for file in sorted(suspects, key=lambda file: journal.suspects[file.stamp.path]):
            path = file.stamp.path
            if journal.suspects.get(path, 0) >= MAX_DEATHS and not self._options.retry_failed:
                error = DamagedPhoto(path, DEATHS_REASON)
                recorder.add(FetchedFile(file, None, UNKNOWN_CONTENT, error=error))
                recorder.flush()
                journal.suspects.pop(path)
            else:
                self._read_and_record([file], alone)
        if recorder.to_read_again:
            pending, recorder.to_read_again = recorder.to_read_again, []
            self._read_and_record(pending, alone)

    def _read_and_record(self, pending: Sequence[PendingFile], reading: _Reading) -> None:
        fetched_files = read_ahead(
            reading.claims.take(pending),
            reading.recorder.lookup,
            reading.decoder,
            count=len(pending),
            workers=self._options.workers,
            batch_size=reading.batch_size,
            journal=reading.journal,
        )
        self._record(fetched_files, reading.recorder)

    def _wait_for_others(self, claims: FileClaims) -> list[PendingFile]:
        """Return the files that other runs held, some time later: by then they are recorded, or are free."""
        files, claims.elsewhere = claims.elsewhere, []
        if files:
            self._report_progress(files[0], 0, "waiting")
            until = time.monotonic() + _WAIT_FOR_OTHERS
            while time.monotonic() < until:
                raise_if_cancelled(self._cancelled)
                time.sleep(0.05)
        return files

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

    def _report_progress(self, file: PendingFile, waiting: int, phase: Phase = "indexing") -> None:
        self._reporter.report(
            phase,
            self._counts.done + waiting,
            self._walked.found + self._frames,
            failed=len(self._counts.failures),
            current=file.stamp.path,
        )

    def _record_missing_files(self, plan: Plan, missing: MissingRows) -> None:
        """Mark rows whose file neither the walk nor a moved photo came by."""
        newly_missing = missing.newly_missing()
        if newly_missing:
            self._newly_missing = self._catalog.mark_unseen(newly_missing)
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
            not_looked_at=dict(sorted(self._walked.others.items())),
        )


def _record_broken(
    pending: Sequence[PendingFile], broken: Mapping[str, PhotoError], recorder: Recorder
) -> list[PendingFile]:
    """Record the files that are known to be of no use, and return the others."""
    for file in (file for file in pending if file.stamp.path in broken):
        recorder.add(FetchedFile(file, None, UNKNOWN_CONTENT, error=broken[file.stamp.path]))
    recorder.flush()
    return [file for file in pending if file.stamp.path not in broken]
