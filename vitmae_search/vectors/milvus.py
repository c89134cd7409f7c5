"""`MilvusDatabase`: collections of Milvus, the large ones with an HNSW index.

Milvus has no transactions. A change is therefore repeatable (vectors are upserted, which replaces them), and
the watermark, a row of a collection of its own, is written last: a crash in between repeats work. A
collection that is stored anew gets a new name, and takes the old one's place with the watermark.

Each watermark is a new row with the next number, and older ones are deleted after it. To replace a row,
Milvus would delete it and add another with the same key: its users report that both, or none, were found.

A collection is filled while every vector of it is compared. Its graph is built once it is filled: Milvus
would otherwise build one for each small part, and again for what it joins of them.

Who writes reads the newest watermark, which takes 0.2 s or more. Who searches does not: an old one only leads
to a look at the newest.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from vitmae_search.errors import VectorIndexError, VectorStoreUnavailable
from vitmae_search.records import AttributeFilter, VectorAttributes
from vitmae_search.vectors.file import Origin
from vitmae_search.vectors.protocols import Ids, IsCancelled, Vectors
from vitmae_search.vectors.remote import (
    COMPARED,
    INDEXED,
    NOT_INDEXED,
    StoredVectors,
    Watermark,
    attributes_digest,
    unusable,
    without_secret,
)

if TYPE_CHECKING:
    from pymilvus import MilvusClient

WATERMARKS = "vitmae_search_revisions"

_COMPARED: dict[str, Any] = {"index_type": "FLAT", "metric_type": "IP"}
_GRAPH: dict[str, Any] = {
    "index_type": "HNSW",
    "metric_type": "IP",
    "params": {"M": 16, "efConstruction": 200},
}
_COMPARED_BYTES = 64 << 20
"""So many bytes of vectors are compared in some 10 ms: fewer need no graph."""

_EF, _FILTERED_EF = 400, 1600
"""How thoroughly the index is searched: a filter hides most of what the graph leads to."""

_MOST = 16_384
"""Milvus returns no more."""

_MOST_WORDS = 4096
_AT_ONCE = 1000
_MOST_COMPARED = 1024
"""Milvus builds no index for fewer vectors, and compares them one by one."""

_STUCK_SECONDS = 3600.0
_SECONDS = 60.0
_FILLED_SECONDS = 600.0
"""What is done with all of a collection takes some seconds for each million vectors."""

_FIRST_SECONDS = 10.0
_STRONG, _BOUNDED, _OWN_WRITES = "Strong", "Bounded", "Session"
_TEXT_FIELDS, _INTEGER_FIELDS = (
    ("entry", "name", "key", "identity", "collection"),
    ("number", "dimension", "revision", "vectors"),
)


class MilvusDatabase:
    """A `VectorDatabase` in a Milvus server, or in a file of milvus-lite.

    Attributes:
        kind: "Milvus".
        address: Host and port, or the file.
    """

    kind = "Milvus"

    def __init__(self, address: str) -> None:
        """Prepare a connection; none is made yet.

        Args:
            address: `milvus://user:password@host:port/database`, or `milvus:///path/of/a/file.db`.

        Raises:
            VectorIndexError: The address cannot be read, or pymilvus is not installed.
        """
        try:
            url = make_url(address)
            file = None if url.host else "/" + (url.database or "")
            self.address = f"milvus://{file or f'{url.host}:{url.port or 19530}'}"
        except (ArgumentError, ValueError):  # its message may hold the address
            raise VectorIndexError(
                "the address of the vectors cannot be read; it has the form milvus://host:port"
            ) from None
        try:
            import pymilvus  # noqa: F401  whether it is installed
        except ImportError as error:
            raise VectorIndexError(
                "vectors in Milvus need its client; run: pip install 'vitmae-search[milvus]'"
            ) from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises
        self._secret = url.password
        self._options: dict[str, Any] = {"uri": file or f"http://{url.host}:{url.port or 19530}"}
        if file is None:
            self._options |= {"user": url.username or "", "password": url.password or ""}
            self._options |= {"db_name": url.database or "", "timeout": _FIRST_SECONDS}
        else:
            self._options["timeout"] = _SECONDS  # a server starts for the file, which a full machine delays
        self._file = file
        self._lock = threading.Lock()
        self._client: MilvusClient | None = None
        self._loaded: set[str] = set()
        self._collections: dict[str, str] = {}

    def watermark(self, name: str, *, newest: bool = False) -> Watermark | None:
        """Return what a collection has; None where there is none.

        Args:
            name: The collection.
            newest: Whether to wait for what others wrote just now.
        """
        with self._connected() as client:
            return _as_watermark(self._row(client, name, _STRONG if newest else _OWN_WRITES))

    def require_usable(self) -> None:
        """Raise `VectorStoreUnavailable` where the server cannot be reached."""
        with self._connected() as client:
            client.list_collections()

    @contextmanager
    def writing(self, name: str, *, wait: bool) -> Iterator[_CollectionWriting | None]:
        """Change a collection. Several processes may: what they do is the same.

        Args:
            name: The collection.
            wait: Has no meaning here.
        """
        with self._connected() as client:
            yield _CollectionWriting(client, name, self._row(client, name))

    def nearest(self, name: str, query: Vectors, count: int, where: AttributeFilter) -> Ids:
        """Return ids of the `count` nearest that pass a filter, best first; 16,384 at most.

        Args:
            name: The collection.
            query: (D,) float32.
            count: How many.
            where: Which vectors.
        """
        condition = _condition(where)
        count = min(count, _MOST)
        with self._connected() as client:
            collection = self._collections.get(name)
            # Another process may have stored it anew, under another name.
            if collection is None or not client.has_collection(collection, timeout=_FIRST_SECONDS):
                row = self._row(client, name)
                if row is None:
                    return np.empty(0, np.int64)
                collection = row["collection"]
            found = client.search(
                collection,
                data=[query.tolist()],
                anns_field="vector",
                limit=count,
                filter=condition,
                search_params={"params": {"ef": max(count, _FILTERED_EF if condition else _EF)}},
                consistency_level=_BOUNDED,
                timeout=_SECONDS,
            )
            if condition and len(found[0]) < count:
                # Few pass, or it has passed over some: the catalogue's vectors decide among all that do.
                passing = _query(client, collection, condition, ["id"], _BOUNDED, limit=_MOST)
                return np.array([one["id"] for one in passing], np.int64)
        return np.array([hit["id"] for hit in found[0]], np.int64)

    def vectors(self, name: str, ids: Ids) -> tuple[Ids, Vectors]:
        """Return those of some ids that are stored, and their vectors.

        Args:
            name: The collection.
            ids: (N,) int64.
        """
        rows: list[dict[str, Any]] = []
        with self._connected() as client:
            row = self._row(client, name)
            for start in range(0, len(ids) if row is not None else 0, _AT_ONCE):
                assert row is not None
                some = f"id in {ids[start : start + _AT_ONCE].tolist()}"
                rows += _query(client, row["collection"], some, ["id", "vector"])
        here = np.array([one["id"] for one in rows], np.int64)
        return here, np.array([one["vector"] for one in rows], np.float32).reshape(len(rows), -1)

    def held(self, name: str, ids: Ids) -> Ids:
        """Return those of some ids that are stored.

        Args:
            name: The collection.
            ids: (N,) int64.
        """
        found: list[int] = []
        with self._connected() as client:
            row = self._row(client, name)
            for start in range(0, len(ids) if row is not None else 0, _MOST):
                assert row is not None
                some = f"id in {ids[start : start + _MOST].tolist()}"
                found += [one["id"] for one in _query(client, row["collection"], some, ["id"])]
        return np.array(found, np.int64)

    def digests(self, name: str) -> Iterator[tuple[Ids, Ids]]:
        """Yield all ids, with the digests of their attributes, in chunks."""
        with self._connected() as client:
            row = self._row(client, name)
            if row is None:
                return
            iterator = client.query_iterator(
                row["collection"],
                batch_size=_AT_ONCE,
                filter="id >= 0",
                output_fields=["id", "digest"],
                consistency_level=_STRONG,
                timeout=_SECONDS,
            )
            while rows := iterator.next():
                ids, digests = ([one[field] for one in rows] for field in ("id", "digest"))
                yield np.array(ids, np.int64), np.array(digests, np.int64)
            iterator.close()

    def build(self, name: str, cancelled: IsCancelled) -> None:
        """Let Milvus close what is open, and wait until it has built a graph, if the collection is large.

        Searches of others fail for some seconds, once, until the graph is known to Milvus.

        Args:
            name: The collection.
            cancelled: Ends the waiting; the server goes on.
        """
        with self._connected() as client:
            row = self._row(client, name)
            if row is None:
                return
            collection = row["collection"]
            client.flush(collection, timeout=_FILLED_SECONDS)
            if not _has_graph(client, collection):
                if not _is_worth_a_graph(row):
                    return
                self._begin_graph(client, collection)
            waiting, since = -1, time.monotonic()
            while not cancelled() and time.monotonic() - since < _STUCK_SECONDS:
                left = self._without_graph(client, collection)
                if left < _MOST_COMPARED:
                    return
                if left != waiting:
                    waiting, since = left, time.monotonic()
                time.sleep(0.5)

    def index_text(self, name: str) -> str:
        """Say which index there is, in a phrase."""
        with self._connected() as client:
            row = self._row(client, name)
            if row is None or not _has_graph(client, row["collection"]):
                return NOT_INDEXED if row is not None and _is_worth_a_graph(row) else COMPARED
            left = self._without_graph(client, row["collection"])
        if left >= _MOST_COMPARED:
            return f"an HNSW index is built: of {left:,} vectors it lacks, many are not found until then"
        return INDEXED

    def drop(self, name: str) -> None:
        """Delete a collection and its watermark."""
        with self._connected() as client:
            _delete_rows(client, self._rows(client, name))
            _drop_collections(client, name)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            client, self._client = self._client, None
            self._forget()
        if client is not None and self._file is None:  # a file is shared by all that opened it
            client.close()

    def _row(self, client: MilvusClient, name: str, consistency: str = _STRONG) -> dict[str, Any] | None:
        """The newest watermark whose collection is there, and ready to be searched."""
        self._collections.pop(name, None)
        for row in self._rows(client, name, consistency):
            if client.has_collection(row["collection"], timeout=_FIRST_SECONDS):
                self._load(client, row["collection"])
                self._collections[name] = row["collection"]
                return row
        return None

    def _rows(self, client: MilvusClient, name: str, consistency: str = _STRONG) -> list[dict[str, Any]]:
        """The watermarks of a space, newest first; none where nothing was ever stored."""
        if WATERMARKS not in self._loaded and not client.has_collection(WATERMARKS, timeout=_FIRST_SECONDS):
            return []
        self._load(client, WATERMARKS)
        return _newest_first(client, name, consistency)

    def _begin_graph(self, client: MilvusClient, collection: str) -> None:
        """Put a graph in place of comparing every vector, which goes first: a field has one index."""
        client.release_collection(collection, timeout=_FILLED_SECONDS)
        client.drop_index(collection, "vector", timeout=_FILLED_SECONDS)
        self._loaded.discard(collection)
        self._load(client, collection)

    def _without_graph(self, client: MilvusClient, collection: str) -> int:
        """How many vectors are not searched by a graph yet: it is built, and then loaded.

        What Milvus calls pending also counts what it joins into larger parts, for long after a first filling.
        Until then the smaller parts are searched by their graphs.
        """
        told = client.describe_index(collection, "vector", timeout=_SECONDS)
        unbuilt = int(told.get("total_rows") or 0) - int(told.get("indexed_rows") or 0)
        if self._file is not None:  # milvus-lite does not say what it has loaded
            return max(0, unbuilt)
        parts = client.list_loaded_segments(collection, timeout=_SECONDS)
        rows = [int(part.num_rows) for part in parts if not part.index_id and part.level_name != "L0"]
        return max(unbuilt, sum(count for count in rows if count >= _MOST_COMPARED))

    def _forget(self) -> None:
        """Look anew at what there is."""
        self._loaded.clear()
        self._collections.clear()

    def _load(self, client: MilvusClient, collection: str) -> None:
        if collection not in self._loaded:
            if not client.list_indexes(collection, timeout=_SECONDS):  # or a kill has left it without one
                _create_index(client, collection, _GRAPH)
            client.load_collection(collection, timeout=_FILLED_SECONDS)
            self._loaded.add(collection)

    @contextmanager
    def _connected(self) -> Iterator[MilvusClient]:
        from grpc import RpcError
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException

        try:
            with self._lock:
                if self._client is None:
                    self._client = MilvusClient(**self._options)
                client = self._client
            yield client
        except (MilvusException, RpcError) as error:
            self._forget()
            reason = without_secret(getattr(error, "message", None) or str(error), self._secret)
            raise VectorStoreUnavailable(unusable(self.address, reason)) from None


class _CollectionWriting:
    """See `Writing`."""

    def __init__(self, client: MilvusClient, name: str, row: dict[str, Any] | None) -> None:
        self._client, self._name, self._row = client, name, row
        self._collection: str = "" if row is None else row["collection"]

    def watermark(self) -> Watermark | None:
        """Return what the collection has; None where there is none."""
        return _as_watermark(self._row)

    def start_anew(self, dimension: int) -> None:
        """Make an empty collection, which takes the place of the one that there is when it is finished."""
        self._collection = f"{self._name}_{uuid.uuid4().hex[:8]}"
        _create_collection(self._client, self._collection, dimension)

    def expect(self, count: int) -> None:
        """Nothing: Milvus builds its indexes afterwards by itself."""

    def put(self, chunks: Iterable[StoredVectors]) -> None:
        """Add vectors, or replace those with the same ids."""
        for chunk in chunks:
            for start in range(0, len(chunk), _AT_ONCE):
                rows = _rows(chunk, slice(start, start + _AT_ONCE))
                self._client.upsert(self._collection, rows, timeout=_SECONDS)

    def remove(self, ids: Ids) -> None:
        """Remove vectors; ids of none are passed over."""
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE].tolist()
            self._client.delete(self._collection, ids=some, timeout=_SECONDS)

    def finish(self, origin: Origin) -> None:
        """Set the watermark, and drop what is not used any more."""
        client = self._client
        if not client.has_collection(WATERMARKS, timeout=_FIRST_SECONDS):
            _create_watermarks(client)
        counted = _query(client, self._collection, "", ["count(*)"])
        older = _newest_first(client, self._name)
        row = {
            "entry": uuid.uuid4().hex,
            "number": older[0]["number"] + 1 if older else 1,
            "name": self._name,
            "key": origin.key,
            "dimension": origin.dimension,
            "revision": origin.revision,
            "identity": origin.identity or "",
            "vectors": counted[0]["count(*)"],
            "collection": self._collection,
            "vector": [0.0, 1.0],
        }
        client.insert(WATERMARKS, [row], timeout=_SECONDS)
        _delete_rows(client, older)
        _drop_collections(client, self._name, but=self._collection)


def _create_collection(client: MilvusClient, collection: str, dimension: int) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    schema.add_field("words", DataType.ARRAY, element_type=DataType.INT64, max_capacity=_MOST_WORDS)
    for name in VectorAttributes.NUMBERS:
        schema.add_field(name, DataType.DOUBLE)
    schema.add_field("digest", DataType.INT64)
    client.create_collection(collection, schema=schema, consistency_level=_BOUNDED, timeout=_SECONDS)
    _create_index(client, collection, _COMPARED)
    client.load_collection(collection, timeout=_SECONDS)


def _create_index(client: MilvusClient, collection: str, kind: dict[str, Any]) -> None:
    """Let Milvus build an index in the background."""
    index = client.prepare_index_params()
    index.add_index("vector", **kind)
    client.create_index(collection, index, sync=False, timeout=_SECONDS)


def _has_graph(client: MilvusClient, collection: str) -> bool:
    told = client.describe_index(collection, "vector", timeout=_SECONDS)
    return bool(told["index_type"] == _GRAPH["index_type"])


def _is_worth_a_graph(row: dict[str, Any]) -> bool:
    """Whether comparing every vector takes long."""
    return bool(4 * row["vectors"] * row["dimension"] > _COMPARED_BYTES)


def _create_watermarks(client: MilvusClient) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for name in _TEXT_FIELDS:
        schema.add_field(name, DataType.VARCHAR, max_length=256, is_primary=name == "entry")
    for name in _INTEGER_FIELDS:
        schema.add_field(name, DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)  # Milvus has no collection without one
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection(
        WATERMARKS, schema=schema, index_params=index, consistency_level=_STRONG, timeout=_SECONDS
    )


def _newest_first(client: MilvusClient, name: str, consistency: str = _STRONG) -> list[dict[str, Any]]:
    """The watermarks of a space. Two writers may have given the same number."""
    fields = [*_TEXT_FIELDS, *_INTEGER_FIELDS]
    rows = _query(client, WATERMARKS, f'name == "{name}"', fields, consistency)
    return sorted(rows, key=lambda row: (row["number"], row["entry"]), reverse=True)


def _delete_rows(client: MilvusClient, rows: list[dict[str, Any]]) -> None:
    if rows:
        client.delete(WATERMARKS, ids=[row["entry"] for row in rows], timeout=_SECONDS)


def _drop_collections(client: MilvusClient, name: str, but: str = "") -> None:
    """Delete the collections of a space, those that a crash left included."""
    for collection in client.list_collections(timeout=_SECONDS):
        if collection.startswith(f"{name}_") and collection != but:
            client.drop_collection(collection, timeout=_SECONDS)


def _rows(chunk: StoredVectors, some: slice) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "vector": vector,
            "words": list(attributes.words[:_MOST_WORDS]),
            "digest": attributes_digest(attributes),
            **dict(zip(VectorAttributes.NUMBERS, attributes.numbers, strict=True)),
        }
        for number, vector, attributes in zip(
            chunk.ids[some].tolist(), chunk.vectors[some].tolist(), chunk.attributes[some], strict=True
        )
    ]


def _query(
    client: MilvusClient,
    collection: str,
    condition: str,
    fields: list[str],
    consistency: str = _STRONG,
    **more: Any,
) -> list[dict[str, Any]]:
    return list(
        client.query(
            collection,
            filter=condition,
            output_fields=fields,
            consistency_level=consistency,
            **more,
            timeout=_SECONDS,
        )
    )


def _condition(where: AttributeFilter) -> str:
    parts = [f"array_contains_any(words, {list(group)})" for group in where.any_of]
    parts += [f"{name} >= {float(value)!r}" for name, value in where.at_least]
    parts += [f"{name} <= {float(value)!r}" for name, value in where.at_most]
    return " and ".join(parts)


def _as_watermark(row: dict[str, Any] | None) -> Watermark | None:
    if row is None:
        return None
    origin = Origin(row["key"], row["dimension"], row["revision"], row["identity"])
    return Watermark(origin, row["vectors"])
