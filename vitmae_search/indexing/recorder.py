"""From files that were read to rows in the catalogue: embed in batches, record each in one transaction.

A batch is embedded while the last one is recorded and the next one is collected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitmae_search.address import is_address
from vitmae_search.catalog import CatalogWriter, Indexed
from vitmae_search.embedding import GuardedEmbedder, Projection, code_digest
from vitmae_search.errors import AbsentPhoto, MemoryShort, PhotoError, UnreadablePhoto, VitmaeSearchError
from vitmae_search.indexing.batcher import Batcher, Outcome
from vitmae_search.indexing.claims import FileClaims
from vitmae_search.indexing.moved_photos import MissingRows, ReplacedContents
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.indexing.reader import FetchedFile, KnownContent
from vitmae_search.indexing.walk import is_gone
from vitmae_search.photos import date_in_name, decoder_versions
from vitmae_search.records import Failure, PhotoMetadata, Space


@dataclass(frozen=True, slots=True)
class IndexTarget:
    """What an index run embeds with, and the spaces that it brings up to date.

    Attributes:
        open_embedder: Called only if there are photos to read.
        features: The space that the embedder's vectors go to.
        searched: The space that the person chose: `features`, or one derived from it. The report names it,
            and its vector index is saved.
        projections: Those of all spaces derived from `features`, by digest.
        plugin_code: A digest of the plugin's code, empty where it cannot be told.
    """

    open_embedder: Callable[[], GuardedEmbedder]
    features: Space
    searched: Space
    projections: Mapping[str, Projection] = field(default_factory=dict)
    plugin_code: str = ""

    @property
    def tried_with(self) -> str:
        """The versions of all that may make a photo fail: decoders and plugin; see `Failure`."""
        own_code = code_digest("vitmae_search.photos") or ""
        return f"{decoder_versions()}; decoding {own_code[:16]}; plugin {self.plugin_code[:16]}"


@dataclass(slots=True)
class IndexCounts:
    """What a run has done so far, in files. A file that vanished since the walk counts nowhere."""

    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Files that are dealt with."""
        return self.added + self.updated + self.moved + self.unchanged + len(self.failures)


class _Cause(NamedTuple):
    """Why a file failed; see `Failure`."""

    reason: str
    tried_with: str | None


_NewContent = tuple[PhotoMetadata | None, NDArray[np.float32]]
_Change = Literal["added", "updated", "moved", "unchanged"]


def add_to_batch(batcher: Batcher[FetchedFile], fetched: FetchedFile) -> None:
    """Add a file that was read, with its pixels apart.

    Args:
        batcher: Embeds.
        fetched: The file. An error of its photo's is no sign that the plugin is broken.
    """
    error = None if isinstance(fetched.error, PhotoError) else fetched.error
    batcher.add(replace(fetched, pixels=None), fetched.pixels, error)


class Recorder:
    """Embeds and records files, a batch of embedded photos at a time. Close it at the end.

    Attributes:
        to_read_again: Files whose content was deleted between look-up and recording, or was expected from
            a file that turned out to have another.
    """

    def __init__(
        self,
        catalog: CatalogWriter,
        target: IndexTarget,
        batcher: Batcher[FetchedFile],
        missing: MissingRows,
        counts: IndexCounts,
        claims: FileClaims,
    ) -> None:
        """Begin with an empty batch.

        Args:
            catalog: Where batches are recorded.
            target: The spaces.
            batcher: Embeds what is added; closed with this.
            missing: Rows that new paths may take.
            counts: Updated with each batch.
            claims: Released with each batch.
        """
        self._catalog = catalog
        self._space_id = target.features.space_id
        self._projections = target.projections
        self._target = target
        self._missing = missing
        self._counts = counts
        self._claims = claims
        self._replaced = ReplacedContents(catalog, self._space_id)
        self._batcher = batcher
        # By digest: why a content of this run has no vector; None where it has one.
        self._content_failures: dict[str, _Cause | None] = {}
        self.to_read_again: list[PendingFile] = []

    def lookup(self, digests: Sequence[str]) -> dict[str, KnownContent]:
        """Return what is known of digests; called by the reading threads."""
        contents = self._catalog.contents(digests, self._space_id)
        known: dict[str, KnownContent] = {}
        for digest in digests:
            content_id, embedded, described = contents.get(digest, (None, False, True))
            at_hand = embedded or self._replaced.get(digest) is not None
            known[digest] = KnownContent(content_id, at_hand, described)
        return known

    @property
    def waiting(self) -> int:
        """Files that were added and are not recorded yet."""
        return self._batcher.waiting

    def add(self, fetched: FetchedFile) -> None:
        """Add a file. If the batch is due, start to embed it, and record the one before.

        Raises:
            VitmaeSearchError: As `flush`.
        """
        add_to_batch(self._batcher, fetched)
        if self._batcher.due:
            self._record(self._batcher.advance())

    def flush(self) -> None:
        """Embed and record all that is waiting.

        Raises:
            VitmaeSearchError: The plugin's error, where every photo of a batch failed and an ordinary image
                fails, too. Nothing of this batch is recorded.
        """
        while self._batcher.waiting:
            self._record(self._batcher.advance())

    def finish(self) -> None:
        """Record the batch that is being embedded, and start no other."""
        self._record(self._batcher.finish())

    def close(self) -> None:
        """Wait for the batch that is being embedded, and drop what is not recorded."""
        self._batcher.close()

    def _record(self, batch: Sequence[tuple[FetchedFile, Outcome | None]]) -> None:
        """Record a batch that was embedded, in one transaction."""
        contents = self._new_contents(batch)
        rows: list[tuple[FetchedFile, Indexed, _Change]] = []
        failures: list[Failure] = []
        taken: set[int] = set()
        for fetched, _ in batch:
            cause = self._cause(fetched)
            if cause is not None:
                failures += self._failure(fetched, cause)
            elif fetched.known.embedded or fetched.digest in self._content_failures:
                rows.append(self._row(fetched, contents, taken))
            else:
                self.to_read_again.append(fetched.file)
        if rows or failures:
            self._write(rows, failures)
        self._claims.release([fetched.file for fetched, _ in batch])

    def _new_contents(self, batch: Sequence[tuple[FetchedFile, Outcome | None]]) -> dict[str, _NewContent]:
        """Return the embedded contents by digest, and remember why others failed."""
        contents: dict[str, _NewContent] = {}
        for fetched, outcome in batch:
            if fetched.digest is None:
                continue
            if fetched.error is not None:
                self._content_failures[fetched.digest] = self._cause_of(fetched.error)
            elif isinstance(outcome, VitmaeSearchError):
                self._content_failures[fetched.digest] = self._cause_of(outcome)
            elif outcome is not None:
                self._content_failures[fetched.digest] = None
                contents[fetched.digest] = (fetched.metadata, outcome)
        return contents

    def _cause(self, fetched: FetchedFile) -> _Cause | None:
        """Why this file has no vector; None where it has, or will have one."""
        if fetched.error is not None:
            return self._cause_of(fetched.error)
        return None if fetched.digest is None else self._content_failures.get(fetched.digest)

    def _cause_of(self, error: VitmaeSearchError) -> _Cause:
        reason = error.reason if isinstance(error, PhotoError) else str(error)
        blameless = isinstance(error, UnreadablePhoto | MemoryShort)
        return _Cause(reason, None if blameless else self._target.tried_with)

    def _failure(self, fetched: FetchedFile, cause: _Cause) -> list[Failure]:
        stamp = fetched.file.stamp
        if _may_be_gone(fetched.error, stamp.path) and is_gone(stamp.path):
            return []  # it vanished since the walk; the next run sees where it went
        row = fetched.file.known
        if row is not None:
            self._replaced.save(row.photo_id)
            if fetched.known.content_id == row.content_id:  # so that the row is not taken for another file's
                self._catalog.record_stamps({row.photo_id: stamp})
                self._catalog.mark_found([row.photo_id])
        failure = Failure(
            stamp.path, cause.reason, stamp.size, stamp.mtime_ns, stamp.ctime_ns, cause.tried_with
        )
        return [failure]

    def _row(
        self, fetched: FetchedFile, contents: Mapping[str, _NewContent], taken: set[int]
    ) -> tuple[FetchedFile, Indexed, _Change]:
        """Return the row to write for a file with a vector. `taken` receives the id of a row that moves."""
        digest, known, row = fetched.digest, fetched.known, fetched.file.known
        assert digest is not None
        metadata, vector = contents.get(digest) or self._replaced.get(digest) or (fetched.metadata, None)
        change: _Change
        photo_id = row_path = None
        if row is None:
            change = "added"
            moved = None if known.content_id is None else self._missing.find(known.content_id, taken)
            if moved is not None:
                photo_id, row_path = moved
                change = "moved"
                taken.add(photo_id)
        else:
            photo_id, row_path = row.photo_id, row.stamp.path
            if known.content_id != row.content_id:
                self._replaced.save(photo_id)
                change = "updated"
            else:
                change = "unchanged" if row.embedded else "added"
        stamp = fetched.file.stamp
        indexed = Indexed(stamp, digest, metadata, vector, photo_id, date_in_name(stamp.path), row_path)
        return fetched, indexed, change

    def _write(
        self, rows: Sequence[tuple[FetchedFile, Indexed, _Change]], failures: Sequence[Failure]
    ) -> None:
        refused = self._catalog.record_batch(
            self._space_id, [row for _, row, _ in rows], failures, self._projections
        )
        refused_paths = {row.stamp.path for row in refused}
        for fetched, row, change in rows:
            if row.stamp.path in refused_paths:
                self.to_read_again.append(fetched.file)
                continue
            setattr(self._counts, change, getattr(self._counts, change) + 1)
            if change == "moved" and row.photo_id is not None and fetched.known.content_id is not None:
                self._missing.mark_moved(fetched.known.content_id, row.photo_id)
        self._counts.failures += failures


def _may_be_gone(error: VitmaeSearchError | None, path: str) -> bool:
    """Whether it is worth asking; a storage has said so itself, and is not asked for what it denies."""
    return isinstance(error, AbsentPhoto if is_address(path) else UnreadablePhoto)
