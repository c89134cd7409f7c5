"""What a run of `index` says of the cluster that reads and embeds for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vitmae_search.embedding import GuardedEmbedder
from vitmae_search.errors import LibraryError
from vitmae_search.photos import ThumbnailStore
from vitmae_search.records import Space

if TYPE_CHECKING:
    from vitmae_search.indexing.cluster.reader import ClusterReader


NEEDS_RAY = "--ray needs the package ray, which is not installed: pip install 'vitmae-search[ray]'"

RAY_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a thread that still reads when all ends would start a new cluster
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # how Ray will behave, and what it warns about until then
}
"""Variables that Ray reads as it is imported, and its processes as they start: it is to say little, and
to start nothing by itself."""


def require_ray() -> None:
    """Raise `LibraryError` where Ray is not installed."""
    if find_spec("ray") is None:
        raise LibraryError(NEEDS_RAY)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """A Ray cluster, and how its workers embed.

    Attributes:
        address: As for `joined`.
        device: "auto", "cpu", "cuda" or "mps", of the workers.
        open_embedder: Opens the embedder of a space of features, and raises where it makes other vectors;
            pickles.
    """

    address: str
    device: str
    open_embedder: Callable[[Space], GuardedEmbedder]

    @contextmanager
    def reader(
        self,
        features: Space,
        thumbnails: ThumbnailStore | None,
        folders: Sequence[str],
        batch_size: int | None,
        check: Callable[[], None],
    ) -> Iterator[ClusterReader]:
        """Join the cluster for the time of a `with` block.

        Args:
            features: The space of the vectors.
            thumbnails: Where thumbnails go.
            folders: Those that the files are in, as far as they are there.
            batch_size: Photos in a batch; None is what suits the embedder.
            check: See `ClusterReader`.

        Raises:
            LibraryError: As `joined`.
            DeviceError: As `WorkerShape.on`.
        """
        from vitmae_search.indexing.cluster.connection import joined
        from vitmae_search.indexing.cluster.reader import ClusterReader, WorkerShape
        from vitmae_search.indexing.cluster.worker import EmbeddingTask

        with joined(self.address) as size:
            shape = WorkerShape.on(size, self.device)
            task = EmbeddingTask(
                self.open_embedder,
                features,
                thumbnails,
                tuple(folders),
                batch_size,
                decoders=shape.cpus,
                at_hand=frozenset(),
            )
            yield ClusterReader(task, shape, check)
