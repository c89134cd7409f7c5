"""The walk from a folder to the catalogue: scan, plan, read ahead, embed, record, catch up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from vitmae_search.catalog import CatalogWriter
from vitmae_search.errors import VitmaeSearchError
from vitmae_search.indexing.batcher import batch_size_for
from vitmae_search.indexing.moved_photos import GoneRows
from vitmae_search.indexing.plan import PendingFile, Plan, make_plan
from vitmae_search.indexing.progress import Cancelled, ProgressTeller, record_in_run, recorded
from vitmae_search.indexing.reader import read_ahead
from vitmae_search.indexing.recorder import Counts, OpenTarget, Recorder, Target
from vitmae_search.indexing.walk import FolderWalk, Walked, check_folders
from vitmae_search.photos import PhotoDecoder, ThumbnailStore, decode_target
from vitmae_search.photos.prefetch import default_workers
from vitmae_search.records import IndexProgress, IndexReport, Space
from vitmae_search.vectors import VectorCache

_SAVE_EVERY = 300.0
_LOOK_EVERY = 256


@dataclass(frozen=True, slots=True)
class _Options:
    folders: Sequence[str]
    exclude: Sequence[str]
    retry_failed: bool
    batch_size: int | None
    workers: int
    processes: bool | None


def index_folders(
    catalog: CatalogWriter,
    folders: Sequence[str],
    *,
    open_target: OpenTarget,
    vectors: VectorCache | None = None,
    thumbnails: ThumbnailStore | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    processes: bool | None = None,
    exclude: Sequence[str] = (),
    retry_failed: bool = False,
    on_progress: Callable[[IndexProgress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    run_key: str | None = None,
) -> IndexReport:
    """Bring the catalogue up to date with what is in `folders`. To run again is to resume.

    `open_target` gives the spaces, and a way to the embedder, which is opened where photos are to be read.
    `workers` photos are read at a time (default: as many as suit the machine), in threads of this process
    or, with `processes`, in some of their own (None: where that pays). `vectors` is caught up at the end, and
    every few minutes; `run_key` names the row of `runs` that tells of it.

    After `cancelled` or Ctrl-C the finished batches are kept, and the report says `interrupted`; it counts
    what was dealt with. Raises `LibraryError` for a folder that is not there and never was, `StorageError`
    where the disk is full, and the plugin's error where it cannot embed at all; what was recorded is kept.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: at least 1")
    paths = check_folders(catalog, folders)
    options = _Options(paths, exclude, retry_failed, batch_size, workers or default_workers(), processes)
    run = _IndexRun(catalog, options, vectors, thumbnails, on_progress, cancelled, run_key)
    arguments = {"folders": paths, "exclude": list(exclude)}
    return recorded(catalog, run_key, "index", arguments, lambda: run.run(open_target))


class _IndexRun:
    """One run over some folders."""

    def __init__(
        self,
        catalog: CatalogWriter,
        options: _Options,
        vectors: VectorCache | None,
        thumbnails: ThumbnailStore | None,
        on_progress: Callable[[IndexProgress], None] | None,
        cancelled: Callable[[], bool] | None,
        run_key: str | None,
    ) -> None:
        self._catalog = catalog
        self._options = options
        self._vectors = vectors
        self._thumbnails = thumbnails
        self._cancelled = cancelled or (lambda: False)
        self._teller = ProgressTeller(on_progress, record_in_run(catalog, run_key))
        self._counts = Counts()
        self._walked = Walked()
        self._missing = 0
        self._searched: Space | None = None
        self._saved_at = time.monotonic()

    def run(self, open_target: OpenTarget) -> IndexReport:
        interrupted = False
        try:
            self._teller.tell("scanning", 0)
            target = open_target()
            self._searched = target.searched
            self._walk(target.features)
            self._bring_up_to_date(target)
        except (Cancelled, KeyboardInterrupt):
            interrupted = True
        except VitmaeSearchError:
            with suppress(VitmaeSearchError):  # the first error is the one to tell
                self._save()
            raise
        if self._searched is not None:
            self._teller.tell("finishing", self._counts.done, failed=len(self._counts.failures))
            self._save()
            interrupted = self._speed_up() or interrupted
        report = self._report(interrupted)
        self._teller.tell("done", report.found, report.found, failed=report.failed)
        return report

    def _walk(self, features: Space) -> None:
        hidden = None if self._thumbnails is None else os.fspath(self._thumbnails.folder)
        walk = FolderWalk(self._catalog, self._options.folders, self._options.exclude, hidden)
        for number, stamp in enumerate(walk.stamps(), start=1):
            if number % _LOOK_EVERY == 0:
                self._stop_if_asked()
                self._teller.tell("scanning", number, current=os.path.dirname(stamp.path))
        self._stop_if_asked()
        self._walked = walk.finish(features.space_id)

    def _bring_up_to_date(self, target: Target) -> None:
        walked = self._walked
        plan = make_plan(
            walked.stamps.values(), walked.rows, walked.failures, retry_failed=self._options.retry_failed
        )
        self._settle_known(plan)
        gone = GoneRows(self._catalog, plan.unseen, self._options.folders)
        if plan.pending:
            self._index_all(plan.pending, gone, target)
        left = gone.left()
        if left:
            self._catalog.mark_missing(left)
        self._missing = len(left)
        if plan.unseen_failures:
            self._catalog.clear_failures(plan.unseen_failures)

    def _settle_known(self, plan: Plan) -> None:
        """What needs no reading."""
        self._counts.unchanged += plan.unchanged
        self._counts.failures += plan.failed
        if plan.returned:
            self._catalog.mark_found(plan.returned)
        for device, photo_ids in plan.renumbered.items():
            self._catalog.mark_on_device(photo_ids, device)

    def _index_all(self, files: Sequence[PendingFile], gone: GoneRows, target: Target) -> None:
        embedder = target.open_embedder()
        batch_size = self._options.batch_size or batch_size_for(embedder)
        shrink_to = decode_target(target.features.decode, embedder.input_size)
        decoder = PhotoDecoder(embedder.prepare, self._thumbnails, shrink_to)
        with closing(Recorder(self._catalog, target, embedder, gone, self._counts, batch_size)) as recorder:
            try:
                while files:
                    self._index(files, recorder, decoder, batch_size)
                    files, recorder.again = recorder.again, []
            except Cancelled:
                recorder.finish()
                raise

    def _index(
        self, files: Sequence[PendingFile], recorder: Recorder, decoder: PhotoDecoder, batch_size: int
    ) -> None:
        fetched = read_ahead(
            files,
            recorder.lookup,
            decoder,
            workers=self._options.workers,
            batch_size=batch_size,
            processes=self._options.processes,
        )
        with closing(fetched):
            for one in fetched:
                self._stop_if_asked()
                recorder.take(one)
                self._tell(one.file, recorder.waiting)
                if time.monotonic() - self._saved_at >= _SAVE_EVERY:
                    self._save()
        recorder.flush()

    def _tell(self, file: PendingFile, waiting: int) -> None:
        counts = self._counts
        self._teller.tell(
            "indexing",
            counts.done + waiting,
            len(self._walked.stamps),
            failed=len(counts.failures),
            current=file.stamp.path,
        )

    def _save(self) -> None:
        if self._vectors is not None and self._searched is not None:
            self._vectors.save(self._catalog.vector_source(self._searched.space_id))
        self._saved_at = time.monotonic()

    def _speed_up(self) -> bool:
        """Make searches among many vectors fast again. True if Ctrl-C ended that; nothing else is lost."""
        if self._vectors is not None and self._searched is not None:
            try:
                source = self._catalog.vector_source(self._searched.space_id)
                self._vectors.speed_up(source, self._cancelled)
            except KeyboardInterrupt:
                return True
        return False

    def _stop_if_asked(self) -> None:
        if self._cancelled():
            raise Cancelled

    def _report(self, interrupted: bool) -> IndexReport:
        counts = self._counts
        return IndexReport(
            found=counts.done,
            added=counts.added,
            updated=counts.updated,
            moved=counts.moved,
            unchanged=counts.unchanged,
            missing=self._missing,
            failed=len(counts.failures),
            offline=tuple(dict.fromkeys(self._walked.offline)),
            failures=tuple(sorted(counts.failures, key=lambda failure: os.fsencode(failure.path))),
            problems=tuple(self._walked.problems),
            seconds=self._teller.seconds,
            model="" if self._searched is None else self._searched.model,
            space=None if self._searched is None else self._searched.space_id,
            interrupted=interrupted,
        )
