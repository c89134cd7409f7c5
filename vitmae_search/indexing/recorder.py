"""From files that were read to rows in the catalogue: one batch, one `embed`, one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import CatalogWriter, Indexed
from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import PhotoError, PluginError, UnreadablePhoto, VitmaeSearchError
from vitmae_search.indexing.embed import embed_rows, still_works
from vitmae_search.indexing.moves import GoneRows, KeptVectors
from vitmae_search.indexing.plan import Job
from vitmae_search.indexing.prefetch import Fetched, Known
from vitmae_search.indexing.roots import is_gone
from vitmae_search.indexing.target import Target
from vitmae_search.records import Failure, PhotoMetadata

_Content = tuple[PhotoMetadata | None, NDArray[np.float32]]
_Kind = Literal["added", "updated", "moved", "unchanged"]

_LIGHT = 256
"""Files without pixels (copies, moves) that may wait for the batch to fill."""


@dataclass(slots=True)
class Counts:
    """What a run did so far, in files. `vanished` between the walk and the reading count nowhere else."""

    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    vanished: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.added + self.updated + self.moved + self.unchanged + len(self.failures)


class Recorder:
    """Collects what was read and records it in batches of `batch_size` embedded photos.

    `again` holds the jobs whose content was deleted between lookup and recording: read them anew.
    """

    def __init__(
        self,
        catalog: CatalogWriter,
        target: Target,
        embedder: GuardedEmbedder,
        gone: GoneRows,
        counts: Counts,
        batch_size: int,
    ) -> None:
        self._catalog = catalog
        self._space_id = target.features.space_id
        self._projections = target.projections
        self._embedder = embedder
        self._gone = gone
        self._counts = counts
        self.batch_size = batch_size
        self._kept = KeptVectors(catalog, self._space_id)
        self._pending: list[Fetched] = []
        self._pixels = 0
        self._reasons: dict[str, str | None] = {}  # by digest of this run; None: it has its vector
        self.again: list[Job] = []

    def lookup(self, digest: str) -> Known:
        """What is known of a digest; called by the reading threads."""
        content_id = self._catalog.content_id(digest)
        if content_id is not None and self._catalog.vector(self._space_id, content_id) is not None:
            return Known(content_id, True)
        return Known(content_id, self._kept.get(digest) is not None)

    @property
    def waiting(self) -> int:
        """Files that were taken and are not recorded yet."""
        return len(self._pending)

    def take(self, fetched: Fetched) -> None:
        """Add a file. Where that fills a batch, it is embedded and recorded; see `flush`."""
        self._pending.append(fetched)
        self._pixels += fetched.pixels is not None
        if self._pixels >= self.batch_size or len(self._pending) >= self.batch_size + _LIGHT:
            self.flush()

    def flush(self) -> None:
        """Embed and record what is waiting.

        Where not one photo of the batch could be embedded and the plugin fails on an ordinary image as
        well, raises the plugin's error: nothing of this batch is recorded then.
        """
        pending, self._pending, self._pixels = self._pending, [], 0
        batch = self._embed(pending)
        items: list[tuple[Fetched, Indexed, _Kind]] = []
        failures: list[Failure] = []
        promised: set[int] = set()
        for one in pending:
            reason = self._reason(one)
            if reason is not None:
                failures += self._failure(one, reason)
            elif one.known.embedded or one.digest in self._reasons:
                items.append(self._item(one, batch, promised))
            else:
                self._pending.append(one)  # the file that is read for this content is still to come
        if items or failures:
            self._record(items, failures)

    def _embed(self, pending: Sequence[Fetched]) -> dict[str, _Content]:
        """The new contents of the batch by digest; the reasons of those that failed are remembered."""
        batch: dict[str, _Content] = {}
        rows = [one for one in pending if one.pixels is not None]
        errors = [one.error for one in pending if one.error is not None]
        plugin_errors: list[VitmaeSearchError] = [e for e in errors if not isinstance(e, PhotoError)]
        outcomes = embed_rows(self._embedder, [_pixels(one) for one in rows])
        for one, outcome in zip(rows, outcomes, strict=True):
            assert one.digest is not None
            if isinstance(outcome, VitmaeSearchError):
                self._reasons[one.digest] = str(outcome)
                plugin_errors.append(outcome)
            else:
                self._reasons[one.digest] = None
                batch[one.digest] = (one.metadata, outcome)
        if plugin_errors and not batch and not still_works(self._embedder):
            raise plugin_errors[0]
        for one in pending:
            if one.error is not None and one.digest is not None:
                self._reasons[one.digest] = _said(one.error)
        return batch

    def _reason(self, one: Fetched) -> str | None:
        """Why this file has no vector; None where it has, or will."""
        if one.error is not None:
            return _said(one.error)
        return self._reasons.get(one.digest) if one.digest is not None else None

    def _failure(self, one: Fetched, reason: str) -> list[Failure]:
        stamp = one.job.stamp
        if isinstance(one.error, UnreadablePhoto) and is_gone(stamp.path):
            self._counts.vanished += 1  # since the walk: the next run sees where it went
            return []
        if one.job.known is not None:
            self._kept.keep(one.job.known.photo_id)
        return [Failure(stamp.path, reason, stamp.size, stamp.mtime_ns)]

    def _item(
        self, one: Fetched, batch: Mapping[str, _Content], promised: set[int]
    ) -> tuple[Fetched, Indexed, _Kind]:
        digest, known, row = one.digest, one.known, one.job.known
        assert digest is not None
        metadata, vector = batch.get(digest) or self._kept.get(digest) or (None, None)
        if row is None:
            photo_id = None if known.content_id is None else self._gone.find(known.content_id, promised)
            kind: _Kind = "added" if photo_id is None else "moved"
            if photo_id is not None:
                promised.add(photo_id)
        else:
            photo_id = row.photo_id
            if known.content_id != row.content_id:
                self._kept.keep(photo_id)
                kind = "updated"
            else:
                kind = "unchanged" if row.embedded else "added"
        return one, Indexed(one.job.stamp, digest, metadata, vector, photo_id), kind

    def _record(self, items: Sequence[tuple[Fetched, Indexed, _Kind]], failures: Sequence[Failure]) -> None:
        rows = [row for _, row, _ in items]
        refused = self._catalog.record_batch(self._space_id, rows, failures, self._projections)
        left = {row.stamp.path for row in refused}
        for one, row, kind in items:
            if row.stamp.path in left:
                self.again.append(one.job)
                continue
            setattr(self._counts, kind, getattr(self._counts, kind) + 1)
            if kind == "moved" and row.photo_id is not None and one.known.content_id is not None:
                self._gone.taken(one.known.content_id, row.photo_id)
        self._counts.failures += failures


def _pixels(one: Fetched) -> NDArray[Any]:
    assert one.pixels is not None
    return one.pixels


def _said(error: PhotoError | PluginError) -> str:
    return error.reason if isinstance(error, PhotoError) else str(error)
