"""`RemoteStore`: vectors in a database that follows the catalogue, and is searched instead of files.

A database holds copies that may be rounded, old, or found by an approximation. Therefore more ids are asked
of it than are wanted, and their scores come from the source's own vectors: what it lacks, or has too much,
costs hits, and never shows a wrong score.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Protocol

import numpy as np

from vitmae_search.errors import VectorCacheDamaged, VectorStoreDenied, VectorStoreUnavailable
from vitmae_search.records import AttributeFilter, IndexListing, VectorAttributes
from vitmae_search.vectors.cache import BackgroundWorker, current_origin
from vitmae_search.vectors.exact import check_queries, isin_sorted, sorted_ids, top_k
from vitmae_search.vectors.file import Origin
from vitmae_search.vectors.protocols import Ids, IsCancelled, Matches, Vectors, VectorSource, never_cancel

log = logging.getLogger(__name__)

EVERYTHING = AttributeFilter()

INDEXED = "an HNSW index finds candidates, and the catalogue's vectors score them"
COMPARED = "every vector is compared, which is fast for so few"
NOT_INDEXED = "every vector is compared; the next `index` builds an HNSW index"
"""What `VectorDatabase.index_text` says."""

_EXTRA = 20
"""How many more ids than twice those wanted are asked for."""

_ATTRIBUTES_AT_ONCE = 4096
_CHUNKS_AT_ONCE = 16
"""How many chunks of a source are stored by one change of a collection."""

_SAME_COSINE = 0.999
"""A vector in half precision is nearer to its original than this."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """What a collection has of its source.

    Attributes:
        origin: The space, and the revision that it has.
        count: Vectors in it, about.
    """

    origin: Origin
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class StoredVectors:
    """Vectors as they are sent to a database.

    Attributes:
        ids: (n,) int64.
        vectors: (n, D) float32.
        attributes: n of them.
    """

    ids: Ids
    vectors: Vectors
    attributes: list[VectorAttributes]

    def __len__(self) -> int:
        return len(self.ids)


class Writing(Protocol):
    """The one who changes a collection now. What it does counts from `finish` on."""

    def watermark(self) -> Watermark | None:
        """Return what the collection has; None where there is none."""
        ...

    def start_anew(self, dimension: int) -> None:
        """Make an empty collection, in place of the one that there is."""
        ...

    def expect(self, count: int) -> None:
        """Prepare for so many more vectors, which this change and those after it add."""
        ...

    def put(self, chunks: Iterable[StoredVectors]) -> None:
        """Add vectors, or replace those with the same ids."""
        ...

    def remove(self, ids: Ids) -> None:
        """Remove vectors; ids of none are passed over."""
        ...

    def finish(self, origin: Origin) -> None:
        """Set the watermark."""
        ...


class VectorDatabase(Protocol):
    """What a vector database can do, in collections that `collection_name` names.

    Every method raises `VectorStoreUnavailable` where the database cannot be reached.

    Attributes:
        kind: Its name.
        address: Its address, without a user and a password.
    """

    kind: str
    address: str

    def watermark(self, name: str, *, newest: bool = False) -> Watermark | None:
        """Return what a collection has; None where there is none.

        Args:
            name: The collection.
            newest: Whether to wait for what others wrote just now.
        """
        ...

    def require_usable(self) -> None:
        """Raise `VectorStoreUnavailable` where nothing could be stored."""
        ...

    def writing(self, name: str, *, wait: bool) -> AbstractContextManager[Writing | None]:
        """Change a collection.

        Args:
            name: The collection.
            wait: Whether to wait while another process changes it; else None is given then.
        """
        ...

    def nearest(self, name: str, query: Vectors, count: int, where: AttributeFilter) -> Ids:
        """Return ids of the `count` nearest, best first; fewer only where no more pass the filter.

        Args:
            name: The collection.
            query: (D,) float32.
            count: How many.
            where: Which vectors.
        """
        ...

    def vectors(self, name: str, ids: Ids) -> tuple[Ids, Vectors]:
        """Return those of some ids that are stored, and their (n, D) vectors.

        Args:
            name: The collection.
            ids: (N,) int64.
        """
        ...

    def held(self, name: str, ids: Ids) -> Ids:
        """Return those of some ids that are stored.

        Args:
            name: The collection.
            ids: (N,) int64.
        """
        ...

    def digests(self, name: str) -> Iterator[tuple[Ids, Ids]]:
        """Yield all ids, with the digests of their attributes, in chunks."""
        ...

    def build(self, name: str, cancelled: IsCancelled) -> None:
        """Build the indexes that are worth it and are not there.

        Args:
            name: The collection.
            cancelled: Ends the work, or the waiting for it, early.
        """
        ...

    def index_text(self, name: str) -> str:
        """Say which index there is, in a phrase."""
        ...

    def drop(self, name: str) -> None:
        """Delete a collection."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def collection_name(source: VectorSource) -> str | None:
    """Return the name of a space's collection, or None for a space that never had a vector.

    The identity of the first revision is a part of it: several libraries with the same model can share a
    database.
    """
    first = source.revision_identity(1)
    return (
        None
        if first is None
        else f"v_{blake2b(f'{source.key} {first}'.encode(), digest_size=12).hexdigest()}"
    )


def attributes_digest(attributes: VectorAttributes) -> int:
    """Return a number that tells whether attributes have changed."""
    data = np.array(attributes.words, "<i8").tobytes() + np.array(attributes.numbers, "<f8").tobytes()
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little", signed=True)


class RemoteIndex:
    """A collection that is searched; see `FilteringIndex`."""

    def __init__(self, database: VectorDatabase, name: str | None, source: VectorSource) -> None:
        """Search a collection.

        Args:
            database: Where it is.
            name: Its name; None for one without vectors.
            source: The space, whose vectors give the scores.
        """
        self._database, self._name, self._source = database, name, source

    def __len__(self) -> int:
        held = None if self._name is None else self._database.watermark(self._name)
        return 0 if held is None else held.count

    def search(
        self, queries: Vectors, k: int, *, allowed: Ids | None = None, excluded: Ids | None = None
    ) -> list[Matches]:
        """Find the k nearest vectors of each query; see `VectorIndex.search`.

        Args:
            queries: (Q, D) float32.
            k: Most matches of one query, at least 1.
            allowed: Search these ids only; the source has their vectors.
            excluded: Leave these ids out.
        """
        check_queries(queries, k, self._source.dimension)
        if allowed is not None:
            among = sorted_ids(allowed)
            return self._among(queries, k, among if excluded is None else np.setdiff1d(among, excluded))
        if excluded is None:
            return self.search_where(queries, k, EVERYTHING, lambda ids: np.sort(ids))
        return self.search_where(queries, k, EVERYTHING, lambda ids: np.setdiff1d(ids, excluded))

    def search_where(
        self, queries: Vectors, k: int, where: AttributeFilter, passing: Callable[[Ids], Ids]
    ) -> list[Matches]:
        """Find the k nearest vectors that pass a filter; see `FilteringIndex.search_where`.

        Args:
            queries: (Q, D) float32.
            k: Most matches of one query, at least 1.
            where: All vectors pass it that should, and some that should not.
            passing: Returns those of a few ids that pass indeed, ascending.
        """
        check_queries(queries, k, self._source.dimension)
        if self._name is None or not all(where.any_of):
            return [Matches(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
        found = [self._passing(query, k, where, passing) for query in queries]
        ids, vectors = self._source.stored(np.unique(np.concatenate(found)))
        rows = [np.flatnonzero(isin_sorted(ids, own)) for own in found]
        return [top_k(ids[own], vectors[own], query, k) for own, query in zip(rows, queries, strict=True)]

    def _passing(self, query: Vectors, k: int, where: AttributeFilter, passing: Callable[[Ids], Ids]) -> Ids:
        """At least `k` ids that pass, or all there are, ascending."""
        assert self._name is not None
        count = 2 * k + _EXTRA
        while True:
            found = self._database.nearest(self._name, query, count, where)
            ids = passing(found)
            if len(ids) >= k or len(found) < count:
                return ids
            count *= 4

    def _among(self, queries: Vectors, k: int, ids: Ids) -> list[Matches]:
        """Compare with these vectors of the source, some at a time."""
        best = [(np.empty(0, np.int64), np.empty((0, self._source.dimension), np.float32))] * len(queries)
        for start in range(0, len(ids), _ATTRIBUTES_AT_ONCE):
            here, vectors = self._source.stored(ids[start : start + _ATTRIBUTES_AT_ONCE])
            for number, query in enumerate(queries):
                both = np.concatenate([best[number][0], here]), np.concatenate([best[number][1], vectors])
                kept = np.flatnonzero(np.isin(both[0], top_k(*both, query, k).ids))
                best[number] = both[0][kept], both[1][kept]
        return [top_k(*some, query, k) for some, query in zip(best, queries, strict=True)]


class RemoteStore:
    """A `VectorStore` in a vector database."""

    noun = "stored copy of the vectors"

    def __init__(self, database: VectorDatabase, *, background: bool = False) -> None:
        """Keep vectors in a database.

        Args:
            database: The database.
            background: Follow the catalogue in a thread, and meanwhile search what is there.
        """
        self._database = database
        self._told_denied = False
        self._background = BackgroundWorker(self._maintain) if background else None

    def open(self, source: VectorSource) -> RemoteIndex:
        """Return an index that has caught up with `source`, or in the app one that does so now.

        Raises:
            VectorStoreUnavailable: The database cannot be reached.
        """
        name = collection_name(source)
        if name is not None:
            held = self._database.watermark(name)
            filled = held is not None and held.origin.revision > 0
            if held is None or not filled:
                self._follow(source, wait=True)
            elif self._background is None:
                self._follow_if_allowed(source)
            elif held.origin != current_origin(source):
                self._background.add(source)
        return RemoteIndex(self._database, name, source)

    def save(self, source: VectorSource) -> bool:
        """Follow the source to its last revision. Return False where the database cannot be reached."""
        try:
            self._follow(source, wait=True)
        except VectorStoreUnavailable as error:
            log.warning("The photos are recorded; their vectors follow later: %s", error)
            return False
        return True

    def speed_up(self, source: VectorSource, cancelled: IsCancelled = never_cancel) -> None:
        """Build the indexes that are worth it.

        Args:
            source: The vectors.
            cancelled: Ends the work early.
        """
        name = collection_name(source)
        if name is None:
            return
        try:
            self._database.build(name, cancelled)
        except VectorStoreUnavailable as error:
            log.warning("Searches are slower until the vectors' index is built: %s", error)

    def verify(self, source: VectorSource) -> bool:
        """Compare ids, vectors and attributes with the source. Return False where nothing is stored.

        Raises:
            VectorCacheDamaged: The database holds what the source does not.
            VectorStoreUnavailable: It cannot be reached, or could not store anything.
        """
        name = collection_name(source)
        held = None if name is None else self._database.watermark(name, newest=True)
        if name is None or held is None or not held.origin.belongs_to(source):
            self._database.require_usable()
            return False
        self._compare(name, held.origin, source)
        return True

    def contradicted(self, source: VectorSource) -> Ids:
        """Return no ids: rounded copies cannot say which of two vectors is right."""
        return np.empty(0, np.int64)

    def describe(self, source: VectorSource) -> IndexListing:
        """Say where the vectors are, how they are searched, and how far they are behind the catalogue."""
        name, place = collection_name(source), self._database.address
        try:
            held = None if name is None else self._database.watermark(name, newest=True)
            if name is None or held is None or not held.origin.belongs_to(source):
                return IndexListing(
                    self._database.kind, 0, 0, None, f"{place}; nothing is stored there yet", 0
                )
            text = self._database.index_text(name)
        except VectorStoreUnavailable as error:
            return IndexListing(self._database.kind, 0, 0, None, str(error), None)
        revision = held.origin.revision
        behind = source.revision() - revision
        lag = f"{behind:,} changes behind the catalogue" if behind else "up to date with the catalogue"
        return IndexListing(self._database.kind, held.count, 0, None, f"{place}; {lag}; {text}", revision)

    def discard(self, source: VectorSource) -> None:
        """Delete the space's collection, if the database can be reached."""
        name = collection_name(source)
        try:
            if name is not None:
                self._database.drop(name)
        except VectorStoreUnavailable as error:
            log.warning("The vectors of a space stay in the database: %s", error)

    def reopened(self) -> RemoteStore:
        """Close this store's thread and return a new one of the same database."""
        if self._background is not None:
            self._background.close()
        return RemoteStore(self._database, background=self._background is not None)

    def close(self) -> None:
        """End the background thread, if there is one, and close the connections."""
        if self._background is not None:
            self._background.close()
        self._database.close()

    def _maintain(self, source: VectorSource, cancelled: Callable[[], bool]) -> None:
        if self._follow_if_allowed(source, wait=True):
            self.speed_up(source, cancelled)

    def _follow_if_allowed(self, source: VectorSource, *, wait: bool = False) -> bool:
        """Follow the source; return False where this user may only read, and searches what is there."""
        try:
            self._follow(source, wait=wait)
        except VectorStoreDenied as error:
            if not self._told_denied:
                log.warning("Searches may miss the newest photos until another user stores them: %s", error)
            self._told_denied = True
            return False
        return True

    def _follow(self, source: VectorSource, *, wait: bool) -> None:
        """Bring the collection up to the source's last revision."""
        name = collection_name(source)
        if name is None:
            return
        # Read first: what is written from now on is given again by the next call, which accepts it twice.
        wanted = current_origin(source)
        held = self._database.watermark(name)
        if held is not None and held.origin == wanted:
            return
        begun = self._begun(name, source, wait=wait)
        if begun is None or begun[0].revision >= wanted.revision:
            return
        since, anew = begun
        added = source.added_since(since.revision)
        if not (anew or since.revision):
            added = self._lacking(name, added)
        last = False
        while not last:
            chunks = list(islice(added, _CHUNKS_AT_ONCE))
            last = len(chunks) < _CHUNKS_AT_ONCE
            with self._database.writing(name, wait=True) as writing:
                now = None if writing is None else writing.watermark()
                if writing is None or now is None or now.origin != since:
                    return  # another process has gone on
                writing.put(_with_attributes(source, chunks))
                if last:
                    changed = source.attributes_changed_since(since.revision)
                    writing.put(_with_attributes(source, map(source.stored, changed)))
                    writing.remove(source.removed_since(since.revision))
                    writing.finish(wanted)

    def _begun(self, name: str, source: VectorSource, *, wait: bool) -> tuple[Origin, bool] | None:
        """What the collection has, and whether it was made anew: it had nothing, or what another history has.

        None if another process changes it now.
        """
        nothing = Origin.at(source, 0)
        with self._database.writing(name, wait=wait) as writing:
            if writing is None:
                return None
            held = writing.watermark()
            if held is not None and held.origin.belongs_to(source):
                writing.expect(source.count_added_since(held.origin.revision))
                return held.origin, False
            writing.start_anew(source.dimension)
            writing.finish(nothing)
            return nothing, True

    def _lacking(self, name: str, added: Iterable[tuple[Ids, Vectors]]) -> Iterator[tuple[Ids, Vectors]]:
        """What was added to the source, without what a first filling that broke off has stored already."""
        for ids, vectors in added:
            lacking = ~isin_sorted(ids, np.sort(self._database.held(name, ids)))
            yield ids[lacking], vectors[lacking]

    def _compare(self, name: str, origin: Origin, source: VectorSource) -> None:
        """Raise `VectorCacheDamaged` unless the collection has what the source has at `origin`."""
        place = f"{self._database.kind} at {self._database.address}"
        renewed = np.concatenate([np.empty(0, np.int64), *source.attributes_changed_since(origin.revision)])
        found = [np.empty(0, np.int64)]
        for ids, digests in self._database.digests(name):
            found.append(ids)
            now = np.array([attributes_digest(one) for one in source.attributes(ids)], np.int64)
            if len(
                np.setdiff1d(ids[now != digests], np.append(renewed, source.removed_since(origin.revision)))
            ):
                raise VectorCacheDamaged(f"{place}: filters by other attributes than the catalogue has.")
        stored = np.sort(np.concatenate(found))
        new = {int(i) for ids, _ in source.added_since(origin.revision) for i in ids}
        seen = [np.empty(0, np.int64)]
        for ids, vectors in source.added_since(0):
            here, copies = self._database.vectors(name, ids)
            order = np.argsort(here)
            here, copies = here[order], copies[order]
            missing = [i for i in np.setdiff1d(ids, here).tolist() if i not in new]
            own = vectors[np.argsort(ids)][isin_sorted(np.sort(ids), here)]
            if missing or (len(own) and float((own * copies).sum(axis=1).min()) < _SAME_COSINE):
                raise VectorCacheDamaged(f"{place}: has other vectors than the catalogue.")
            seen.append(here)
        gone = source.removed_since(origin.revision)
        if len(np.setdiff1d(stored, np.concatenate([*seen, gone]))):
            raise VectorCacheDamaged(f"{place}: holds vectors that the catalogue lacks.")


def _with_attributes(source: VectorSource, chunks: Iterable[tuple[Ids, Vectors]]) -> Iterator[StoredVectors]:
    for ids, vectors in chunks:
        if len(ids):
            yield StoredVectors(ids, vectors, source.attributes(ids))


def without_secret(text: str, *secrets: str | None) -> str:
    """Return the first line of a message, without passwords.

    Args:
        text: A message of a database's client.
        *secrets: What must not be shown.
    """
    line = next((part.strip() for part in text.splitlines() if part.strip()), "no reason is given")
    for secret in filter(None, secrets):
        line = line.replace(secret, "***")
    return re.sub(r"(?<=://)[^/@\s]*@", "", line)[:300]


_REACH = "see that the database runs and can be reached, and that it lets this user in"


def unusable(address: str, reason: str, advice: str = _REACH) -> str:
    """Return the sentence about a database that cannot be used.

    Args:
        address: Its address, without a user and a password.
        reason: What its client says, without them.
        advice: What to do about it.
    """
    return (
        f"the vectors at {address} cannot be used ({reason}): {advice}, or search without --vectors and "
        "VITMAE_SEARCH_VECTORS"
    )
