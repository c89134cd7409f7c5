"""From files that were read to rows in the catalogue: one batch, one `embed`, one transaction.

A batch is embedded while the last one is recorded and the next one is collected.

What an index run embeds with, and the spaces that it brings up to date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import CatalogWriter, Indexed
from vitmae_search.embedding import GuardedEmbedder, Projection
from vitmae_search.errors import PhotoError, PluginError, UnreadablePhoto, VitmaeSearchError
from vitmae_search.indexing.batcher import Batches, Outcome
from vitmae_search.indexing.moved_photos import GoneRows, KeptVectors
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.indexing.reader import FetchedFile, KnownContent
from vitmae_search.indexing.walk import is_gone
from vitmae_search.records import Failure, PhotoMetadata, Space


@dataclass(frozen=True, slots=True)
class Target:
    """The run plans by `features` and records there what the embedder gives, which is opened at need.

    `searched` is the space that the person is after: `features`, or one derived from it. It is the report's,
    and the one whose index file is kept. `projections` are those of all spaces derived from `features`, by
    digest.
    """

    open_embedder: Callable[[], GuardedEmbedder]
    features: Space
    searched: Space
    projections: Mapping[str, Projection] = field(default_factory=dict)


OpenTarget = Callable[[], Target]


_Content = tuple[PhotoMetadata | None, NDArray[np.float32]]
_Kind = Literal["added", "updated", "moved", "unchanged"]


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

    Call `close` at the end. `again` holds jobs to read anew: their content was deleted between lookup and
    recording, or is brought by a file that comes later, if that has not changed meanwhile.
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
        self._gone = gone
        self._counts = counts
        self._kept = KeptVectors(catalog, self._space_id)
        self._batches = Batches[FetchedFile](embedder, embedder.embed, batch_size)
        self._reasons: dict[str, str | None] = {}  # by digest of this run; None: it has its vector
        self.again: list[PendingFile] = []

    def lookup(self, digests: Sequence[str]) -> dict[str, KnownContent]:
        """What is known of digests; called by the reading threads."""
        contents = self._catalog.contents(digests, self._space_id)
        known = {
            digest: KnownContent(content_id, embedded) for digest, (content_id, embedded) in contents.items()
        }
        for digest in digests:
            if digest not in known or not known[digest].embedded:
                content_id = known[digest].content_id if digest in known else None
                known[digest] = KnownContent(content_id, self._kept.get(digest) is not None)
        return known

    @property
    def waiting(self) -> int:
        """Files that were taken and are not recorded yet."""
        return self._batches.waiting

    def take(self, fetched: FetchedFile) -> None:
        """Add a file. Where a batch is due, it is begun, and the one before recorded; see `flush`."""
        broken = None if isinstance(fetched.error, PhotoError) else fetched.error
        self._batches.add(replace(fetched, pixels=None), fetched.pixels, broken)
        if self._batches.due:
            self._record(self._batches.turn())

    def flush(self) -> None:
        """Embed and record all that is waiting.

        Where not one photo of a batch could be embedded and the plugin fails on an ordinary image as well,
        raises the plugin's error: nothing of this batch is recorded then.
        """
        while self._batches.waiting:
            self._record(self._batches.turn())

    def finish(self) -> None:
        """Record the batch that is being embedded, and begin with no other."""
        self._record(self._batches.finish())

    def close(self) -> None:
        """Wait for the batch that is being embedded, and forget what is not recorded."""
        self._batches.close()

    def _record(self, batch: Sequence[tuple[FetchedFile, Outcome | None]]) -> None:
        """A batch that was embedded: one transaction."""
        contents = self._contents(batch)
        items: list[tuple[FetchedFile, Indexed, _Kind]] = []
        failures: list[Failure] = []
        promised: set[int] = set()
        for one, _ in batch:
            reason = self._reason(one)
            if reason is not None:
                failures += self._failure(one, reason)
            elif one.known.embedded or one.digest in self._reasons:
                items.append(self._item(one, contents, promised))
            else:
                self.again.append(one.file)
        if items or failures:
            self._write(items, failures)

    def _contents(self, batch: Sequence[tuple[FetchedFile, Outcome | None]]) -> dict[str, _Content]:
        """The new contents of the batch by digest; the reasons of those that failed are remembered."""
        contents: dict[str, _Content] = {}
        for one, outcome in batch:
            if one.digest is None or (outcome is None and one.error is None):
                continue
            if one.error is not None:
                self._reasons[one.digest] = _said(one.error)
            elif isinstance(outcome, VitmaeSearchError):
                self._reasons[one.digest] = str(outcome)
            elif outcome is not None:
                self._reasons[one.digest] = None
                contents[one.digest] = (one.metadata, outcome)
        return contents

    def _reason(self, one: FetchedFile) -> str | None:
        """Why this file has no vector; None where it has, or will."""
        if one.error is not None:
            return _said(one.error)
        return self._reasons.get(one.digest) if one.digest is not None else None

    def _failure(self, one: FetchedFile, reason: str) -> list[Failure]:
        stamp = one.file.stamp
        if isinstance(one.error, UnreadablePhoto) and is_gone(stamp.path):
            self._counts.vanished += 1  # since the walk: the next run sees where it went
            return []
        if one.file.known is not None:
            self._kept.keep(one.file.known.photo_id)
        return [Failure(stamp.path, reason, stamp.size, stamp.mtime_ns)]

    def _item(
        self, one: FetchedFile, contents: Mapping[str, _Content], promised: set[int]
    ) -> tuple[FetchedFile, Indexed, _Kind]:
        digest, known, row = one.digest, one.known, one.file.known
        assert digest is not None
        metadata, vector = contents.get(digest) or self._kept.get(digest) or (None, None)
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
        return one, Indexed(one.file.stamp, digest, metadata, vector, photo_id), kind

    def _write(
        self, items: Sequence[tuple[FetchedFile, Indexed, _Kind]], failures: Sequence[Failure]
    ) -> None:
        rows = [row for _, row, _ in items]
        refused = self._catalog.record_batch(self._space_id, rows, failures, self._projections)
        left = {row.stamp.path for row in refused}
        for one, row, kind in items:
            if row.stamp.path in left:
                self.again.append(one.file)
                continue
            setattr(self._counts, kind, getattr(self._counts, kind) + 1)
            if kind == "moved" and row.photo_id is not None and one.known.content_id is not None:
                self._gone.taken(one.known.content_id, row.photo_id)
        self._counts.failures += failures


def _said(error: PhotoError | PluginError) -> str:
    return error.reason if isinstance(error, PhotoError) else str(error)
