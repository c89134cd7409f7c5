"""What runs on a cluster's nodes: it opens the embedder once, and turns files into vectors and errors.

A photo that fails is a result, not a failed task: Ray repeats only what a lost process or node leaves undone.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import LibraryError, VitmaeSearchError, display_path
from vitmae_search.indexing.batcher import Batcher, Outcome, batch_size_for
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.indexing.reader import FetchedFile, KnownContent, read_ahead
from vitmae_search.indexing.recorder import add_to_batch
from vitmae_search.photos import PhotoDecoder, ThumbnailStore, decode_target
from vitmae_search.photos.decode_pool import launch_workers
from vitmae_search.photos.decode_worker import FileError
from vitmae_search.records import PhotoMetadata, Space, Stamp

WHOLE_RUN = -1
"""In place of a file's number: an error that ends the run."""

_AT_HAND = KnownContent(None, embedded=True)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingTask:
    """What a run embeds with, and what it reads; pickles.

    Attributes:
        open_embedder: Opens the embedder of a space of features; raises where it makes other vectors.
        features: That space.
        thumbnails: Where thumbnails go, on nodes that see the library's folder.
        folders: Those that the files are in; every node has to see them.
        batch_size: Photos in a batch; None is `batch_size_for` the embedder.
        decoders: Processes that decode, for each worker.
        at_hand: Digests of contents that need not be embedded.
    """

    open_embedder: Callable[[Space], GuardedEmbedder]
    features: Space
    thumbnails: ThumbnailStore | None
    folders: tuple[str, ...]
    batch_size: int | None
    decoders: int
    at_hand: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedFile:
    """What came of one file, with `vector` or `error`; neither where its vector is at hand.

    Attributes:
        digest: SHA-256 of its bytes in hex, None where they could not be read.
        metadata: From the decoded file.
        vector: Its features, (D,) float32.
        error: Why it cannot be used.
    """

    digest: str | None
    metadata: PhotoMetadata | None
    vector: NDArray[np.float32] | None
    error: FileError | None


class PhotoWorker:
    """An actor that embeds blocks of files. Its own errors are results, too, which Ray does not repeat."""

    def __init__(self, version: str, task: bytes) -> None:
        """Open the embedder.

        Args:
            version: The version of vitmae-search that the run began with.
            task: A pickled `EmbeddingTask`, which only that version need understand.
        """
        self._error: VitmaeSearchError | None = None
        try:
            if version != installed_version():
                raise LibraryError(
                    f"node {socket.gethostname()} has vitmae-search {installed_version()}, and this "
                    f"machine {version}; install the same version on all nodes"
                )
            self._open(pickle.loads(task))  # noqa: S301 - from the process that runs this one
        except VitmaeSearchError as error:
            self._error = error

    def _open(self, task: EmbeddingTask) -> None:
        for folder in task.folders:
            if not os.path.isdir(folder):
                raise LibraryError(
                    f"node {socket.gethostname()} has no folder {display_path(folder)}; all nodes have to "
                    "see the photos under the same paths"
                )
        launch_workers("vitmae_search.embedding.guard_prepare")  # while the model is loaded
        self._task = task
        self._embedder = task.open_embedder(task.features)
        shrink_to = decode_target(task.features.decode, self._embedder.input_size)
        self._decoder = PhotoDecoder(self._embedder.prepare, self._thumbnails(), shrink_to)
        self._batch_size = task.batch_size or batch_size_for(self._embedder)

    def _thumbnails(self) -> ThumbnailStore | None:
        """The store, unless this node does not see the library: the app makes those thumbnails later."""
        store = self._task.thumbnails
        return store if store is not None and os.path.isdir(store.folder.parent) else None

    def __call__(self, block: Any) -> Any:
        """Embed a block of files.

        Args:
            block: A `pyarrow.Table` with `number`, int64, and `stamp`, a pickled `Stamp`.

        Returns:
            A table with `number`, and `result`, a pickled `EmbeddedFile`; in its place a row `WHOLE_RUN` with
            a pickled `VitmaeSearchError`, where the run cannot go on.
        """
        numbers = block.column("number").to_pylist()
        stamps: list[Stamp] = [
            pickle.loads(stamp)  # noqa: S301 - from the process that runs this one
            for stamp in block.column("stamp").to_pylist()
        ]
        try:
            if self._error is not None:
                raise self._error
            number_of = {stamp.path: number for number, stamp in zip(numbers, stamps, strict=True)}
            results = [
                (number_of[fetched.file.stamp.path], _result(fetched, outcome))
                for fetched, outcome in self._embed([PendingFile(stamp) for stamp in stamps])
            ]
        except VitmaeSearchError as error:
            return result_table([(WHOLE_RUN, error)])
        return result_table(results)

    def _embed(self, files: Sequence[PendingFile]) -> Iterator[tuple[FetchedFile, Outcome | None]]:
        """Read ahead and embed, as a run on one machine does."""
        batcher = Batcher[FetchedFile](self._embedder.prepare, self._embedder.embed, self._batch_size)
        files_read = read_ahead(
            files,
            self._lookup,
            self._decoder,
            count=len(files),
            workers=self._task.decoders,
            batch_size=self._batch_size,
        )
        try:
            for fetched in files_read:
                add_to_batch(batcher, fetched)
                if batcher.due:
                    yield from batcher.advance()
            while batcher.waiting:
                yield from batcher.advance()
        finally:
            files_read.close()
            batcher.close()

    def _lookup(self, digests: Sequence[str]) -> Mapping[str, KnownContent]:
        return {digest: _AT_HAND for digest in digests if digest in self._task.at_hand}


def _result(fetched: FetchedFile, outcome: Outcome | None) -> EmbeddedFile:
    failed = isinstance(outcome, VitmaeSearchError)
    error: Any = outcome if failed else fetched.error
    vector = None if failed or outcome is None else np.array(outcome)
    return EmbeddedFile(fetched.digest, fetched.metadata, vector, error)


def installed_version() -> str:
    """The version of vitmae-search where this is called; "0" for a checkout that was not installed."""
    try:
        return metadata.version("vitmae-search")
    except metadata.PackageNotFoundError:
        return "0"


def result_table(results: Sequence[tuple[int, EmbeddedFile | VitmaeSearchError]]) -> Any:
    """A `pyarrow.Table` of what came of files, by their numbers."""
    import pyarrow as pa

    return pa.table(
        {
            "number": pa.array([number for number, _ in results], pa.int64()),
            "result": pa.array([pickle.dumps(result) for _, result in results], pa.large_binary()),
        }
    )
