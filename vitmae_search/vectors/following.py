"""How an index follows its source: from the revision that it has to the last one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from vitmae_search.errors import VectorIndexError
from vitmae_search.vectors.exact import ExactIndex
from vitmae_search.vectors.file import Origin, VectorsFile
from vitmae_search.vectors.protocols import Ids, Vectors, VectorSource

if TYPE_CHECKING:
    from vitmae_search.vectors.approximate import ApproximateIndex

log = logging.getLogger(__name__)


class Diverged(VectorIndexError):
    """The cache and its source do not share a history (the catalogue was replaced, say)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An index that nobody changes any more, what it has caught up with, and the file that it began as.

    Its approximate index may be older: an exact search covers what that lacks.
    """

    exact: ExactIndex
    origin: Origin
    file: VectorsFile | None = None
    approximate: ApproximateIndex | None = None

    @property
    def saved(self) -> int:
        """The revision of its file; -1 where it has none."""
        return -1 if self.file is None else self.file.origin.revision


def origin_of(source: VectorSource) -> Origin:
    """The space of `source`, at its last revision."""
    return Origin(source.key, source.history, source.dimension, source.revision())


def caught_up(begun: Snapshot, source: VectorSource, wanted: Origin) -> Snapshot | None:
    """`begun`, changed until it has what `source` has; None where it must be rebuilt.

    It looks one revision back, at a chunk: where the catalogue was put back from a backup and then went
    another way, the last change that both should have differs, though the revision may not.
    """
    if wanted.revision < begun.origin.revision:
        return None
    exact, since = begun.exact.copy(), begun.origin.revision
    exact.remove(source.removed_since(max(0, since - 1)))
    try:
        add_new(exact, islice(source.added_since(max(0, since - 1)), 1))
        if since < wanted.revision:
            add_new(exact, source.added_since(since))
    except VectorIndexError as error:
        log.warning("The vector index is rebuilt from the catalogue: %s", error)
        return None
    return replace(begun, exact=exact, origin=wanted)


def add_new(index: ExactIndex, chunks: Iterable[tuple[Ids, Vectors]]) -> Ids:
    """Add what a source gives; return all of the (N,) ids.

    An id that is there already must have the very same vector: it was read by an earlier catch-up that
    ran beside the writer.
    """
    seen = [np.empty(0, np.int64)]
    for ids, vectors in chunks:
        known = index.contains(ids)
        if known.any() and not _same(index.vectors(ids[known]), vectors[known]):
            raise Diverged("an id has another vector than in the catalogue.")
        index.add(ids[~known], vectors[~known])
        seen.append(ids)
    return np.concatenate(seen)


def _same(a: Vectors, b: Vectors) -> bool:
    return a.shape == b.shape and bool((a.view(np.uint32) == np.ascontiguousarray(b).view(np.uint32)).all())
