"""Near-duplicates of a whole library: the groups, the best photo of each, and what a person decided."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vitmae_search.catalog import Catalog
from vitmae_search.photos import ThumbnailStore
from vitmae_search.photos.sharpness import sharpness
from vitmae_search.records import (
    DuplicateGroup,
    DuplicatePhoto,
    DuplicateReport,
    Marks,
    Photo,
    SearchFilter,
    Space,
)
from vitmae_search.search.duplicates import Labels, connected, groups_around_best, members

_CHUNK = 8192
LOSSLESS = frozenset({"PNG", "TIFF", "BMP", "DNG", "RAW", "JPEG2000"})
"""Formats of which a photo is rather kept than a JPEG of the same size."""
PREVIEWED = (0.25, 0.5, 0.75, 0.9)
"""Other least scores that groups are counted for: this share nearer to 1 than the chosen one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """All contents of a space that pass a filter, and what is connected among them at some scores."""

    ids: NDArray[np.int64]
    labels: Mapping[float, Labels]


@dataclass(slots=True)
class DuplicateFinder:
    """Finds the groups of a library, and keeps the comparison of all its vectors for the next question.

    Safe for threads; one of them compares at a time.
    """

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _key: object = None
    _compared: _Compared | None = None

    def find(
        self,
        catalog: Catalog,
        space: Space,
        thumbnails: ThumbnailStore,
        where: SearchFilter,
        score: float,
        *,
        ignored: bool,
        cancelled: Callable[[], bool],
    ) -> DuplicateReport:
        """Find the groups; see `Library.duplicates`.

        Args:
            catalog: Has photos, vectors and decisions.
            space: The space.
            thumbnails: By which the sharpest of equally large photos is found.
            where: Which photos are compared.
            score: The least score of two near-duplicates.
            ignored: Include groups that were ignored.
            cancelled: Asked again and again; once it returns True the rest is left out.
        """
        started = time.perf_counter()
        ids = catalog.searchable_ids(space.space_id, where)
        scores = [score, *(score + share * (1 - score) for share in PREVIEWED)]
        with self._lock:
            key = (space.fingerprint, space.revision, ids.tobytes(), tuple(scores))
            if self._compared is None or key != self._key:
                vectors = space_vectors(catalog, space, ids)
                labels = connected(vectors, scores, cancelled)
                self._compared = _Compared(ids, dict(zip(scores, labels, strict=True)))
                self._key = None if cancelled() else key
            compared = self._compared
        found = _Groups(catalog, space, thumbnails, score).of(compared, ignored=ignored)
        preview = {other: len(members(labels)) for other, labels in compared.labels.items()}
        seconds = time.perf_counter() - started
        return DuplicateReport(
            tuple(found), score, space.space_id, len(ids), preview, seconds, thumbnail=thumbnails.get
        )


def space_vectors(catalog: Catalog, space: Space, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors of embeddings, read in pieces: (N, D).

    Args:
        catalog: Has them.
        space: Their space.
        ids: (N,), the embeddings.
    """
    vectors = np.empty((len(ids), space.dimension), np.float32)
    for start in range(0, len(ids), _CHUNK):
        vectors[start : start + _CHUNK] = catalog.vectors(space.space_id, ids[start : start + _CHUNK])
    return vectors


@dataclass(frozen=True, slots=True)
class _Groups:
    """Makes groups of what is connected."""

    catalog: Catalog
    space: Space
    thumbnails: ThumbnailStore
    score: float

    def of(self, compared: _Compared, *, ignored: bool) -> list[DuplicateGroup]:
        """The groups, those with most photos first; and contents that several files have."""
        connected_rows = members(compared.labels[self.score])
        groups = [
            group
            for some in _batches(connected_rows)
            for group in self._split([compared.ids[rows].tolist() for rows in some])
        ]
        grouped = {shown.photo.content_id for group in groups for shown in group.photos}
        copied = np.intersect1d(compared.ids, self.catalog.copied_ids(self.space.space_id))
        groups += [
            DuplicateGroup((_shown(_on_disk(photos), 1.0, Marks()),))
            for photos in self.catalog.photos_of(copied).values()
            if photos[0].content_id not in grouped
        ]
        shown = [group for group in groups if ignored or not group.ignored]
        return sorted(shown, key=lambda group: (-group.files, group.photos[0].photo.path))

    def _split(self, connected_ids: Sequence[Sequence[int]]) -> Iterator[DuplicateGroup]:
        """Make groups of what is connected, and ask the catalogue once for all of it.

        Args:
            connected_ids: Embeddings that are connected with each other.
        """
        found = self.catalog.photos_of([number for ids in connected_ids for number in ids])
        photos = {number: on_disk for number, some in found.items() if (on_disk := _on_disk(some))}
        digests = [some[0].digest for some in photos.values()]
        marks = self.catalog.marks(digests)
        decisions = self.catalog.pair_decisions(digests)
        apart: dict[str, set[str]] = {}
        for (one, other), decision in decisions.items():
            if decision == "different":
                apart.setdefault(one, set()).add(other)
                apart.setdefault(other, set()).add(one)
        orders = [
            self._best_first({number: photos[number] for number in ids if number in photos}, marks)
            for ids in connected_ids
        ]
        orders = [order for order in orders if len(order) > 1]
        vectors = self.catalog.vectors(self.space.space_id, [number for order in orders for number in order])
        start = 0
        for order in orders:
            rows = {photos[number][0].digest: row for row, number in enumerate(order)}
            rows_apart = {
                row: {rows[other] for other in apart[digest] if other in rows}
                for digest, row in rows.items()
                if digest in apart
            }
            own = vectors[start : start + len(order)]
            start += len(order)
            for group in groups_around_best(own, self.score, rows_apart):
                yield self._group([(photos[order[row]], score) for row, score in group], marks, decisions)

    def _group(
        self,
        group: Sequence[tuple[list[Photo], float]],
        marks: Mapping[str, Marks],
        decisions: Mapping[tuple[str, str], str],
    ) -> DuplicateGroup:
        first = group[0][0][0].digest
        pairs = [tuple(sorted((first, photos[0].digest))) for photos, _ in group[1:]]
        ignored = all(decisions.get((one, other)) == "ignored" for one, other in pairs)
        shown = [_shown(photos, score, marks.get(photos[0].digest, Marks())) for photos, score in group]
        return DuplicateGroup(tuple(shown), ignored)

    def _best_first(self, photos: Mapping[int, list[Photo]], marks: Mapping[str, Marks]) -> list[int]:
        """Contents: the one to keep, then by pixels, format, sharpness, size of the file, and age."""

        def rough(number: int) -> tuple[bool, int, bool]:
            photo = photos[number][0]
            said = marks.get(photo.digest, Marks())
            pixels = photo.metadata.width * photo.metadata.height
            return said.keep, pixels, photo.metadata.format in LOSSLESS

        counts: dict[tuple[bool, int, bool], int] = {}
        for number in photos:
            counts[rough(number)] = counts.get(rough(number), 0) + 1

        def worth(number: int) -> tuple[object, ...]:
            photo = photos[number][0]
            tied = counts[rough(number)] > 1  # only then is its thumbnail looked at
            data = self.thumbnails.get(photo.digest) if tied else None
            return (*rough(number), sharpness(data) if data else 0.0, photo.size, -number)

        return sorted(photos, key=worth, reverse=True)


def _batches(groups: Iterable[NDArray[np.int64]]) -> Iterator[list[NDArray[np.int64]]]:
    """Yield groups of rows, several at once: as many as have some `_CHUNK` rows together."""
    some: list[NDArray[np.int64]] = []
    held = 0
    for rows in groups:
        some.append(rows)
        held += len(rows)
        if held >= _CHUNK:
            yield some
            some, held = [], 0
    if some:
        yield some


def _on_disk(photos: Sequence[Photo]) -> list[Photo]:
    return [photo for photo in photos if not photo.missing]


def _shown(photos: Sequence[Photo], score: float, marks: Marks) -> DuplicatePhoto:
    return DuplicatePhoto(photos[0], score, tuple(photo.path for photo in photos[1:]), marks.keep)
