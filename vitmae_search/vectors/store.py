"""`VectorStore`: what holds a library's vector indexes, and which one an address means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vitmae_search.errors import VectorIndexError
from vitmae_search.records import IndexListing
from vitmae_search.vectors.cache import VectorCache
from vitmae_search.vectors.protocols import Ids, IsCancelled, VectorIndex, VectorSource, never_cancel

if TYPE_CHECKING:
    from vitmae_search.vectors.remote import VectorDatabase

SCHEMES = ("postgresql", "milvus")
"""How the address of a vector database begins."""


class VectorStore(Protocol):
    """The vector indexes of a library's spaces. All that is in it can be made again from the catalogue.

    It follows a source from the revision that it has to the last one. Safe to use from many threads.

    Attributes:
        noun: What it holds of a space, as messages say it: "index file".
    """

    noun: str

    def open(self, source: VectorSource) -> VectorIndex:
        """Return an index to search.

        Raises:
            VectorStoreUnavailable: The vector database cannot be reached.
        """
        ...

    def save(self, source: VectorSource) -> bool:
        """Follow the source to its last revision. Return False where that has to wait."""
        ...

    def speed_up(self, source: VectorSource, cancelled: IsCancelled = never_cancel) -> None:
        """Build or update what makes searches fast, filters included, where it is worth it.

        Args:
            source: The vectors.
            cancelled: Ends the work early.
        """
        ...

    def verify(self, source: VectorSource) -> bool:
        """Compare what is stored with the source. Return False where nothing is.

        Raises:
            VectorCacheDamaged: It holds what the source does not.
            VectorStoreUnavailable: It is in a database that cannot be reached, or that cannot store anything.
        """
        ...

    def contradicted(self, source: VectorSource) -> Ids:
        """Return ids of vectors that changed in the source without a new revision, (N,) int64."""
        ...

    def describe(self, source: VectorSource) -> IndexListing:
        """Say which index a space is searched with, and why."""
        ...

    def discard(self, source: VectorSource) -> None:
        """Delete what is stored of a space, as far as that is possible."""
        ...

    def reopened(self) -> VectorStore:
        """Close this store and return a new one of the same place, with nothing in memory."""
        ...

    def close(self) -> None:
        """End its threads and connections."""
        ...


def open_store(address: str | None, folder: Path, *, background: bool = False) -> VectorStore:
    """Open the store at an address. Nothing is read, written or connected to yet.

    Args:
        address: `postgresql://…`, `milvus://…`, or None for FAISS and files in `folder`.
        folder: Where the files are.
        background: Follow and speed up in a thread for each space that is opened, until `close`.

    Raises:
        VectorIndexError: No vector database has such an address, or its client is not installed.
    """
    if not address:
        return VectorCache(folder, background=background)
    scheme = re.match(r"[a-z]*(?=(\+psycopg)?://)", address)
    if scheme is not None and scheme[0] in SCHEMES:
        from vitmae_search.vectors.remote import RemoteStore

        return RemoteStore(_database(scheme[0], address), background=background)
    known = " or ".join(f"{name}://" for name in SCHEMES)
    # The address itself is not shown: it may hold a password.
    raise VectorIndexError(f"an address of vectors begins with {known}; without one they are in files")


def _database(scheme: str, address: str) -> VectorDatabase:
    if scheme == "milvus":
        from vitmae_search.vectors.milvus import MilvusDatabase

        return MilvusDatabase(address)
    from vitmae_search.vectors.pgvector import PgVectorDatabase

    return PgVectorDatabase(address)
