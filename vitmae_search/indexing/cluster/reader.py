"""Stream files to a cluster's workers, and what they came to back to the process that records it.

Files go in rounds of a hundred thousand, so that memory does not grow with a library, in blocks of a few
batches each. Ray runs a block again where its process or node is lost. What is still missing after a round is
sent once more, one file at a time: a file at which processes end then is one that failed.
"""

from __future__ import annotations

import logging
import pickle
import queue
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from vitmae_search.errors import DamagedPhoto, DeviceError, LibraryError, VitmaeSearchError
from vitmae_search.indexing.cluster.connection import ClusterSize
from vitmae_search.indexing.cluster.worker import (
    WHOLE_RUN,
    EmbeddedFile,
    EmbeddingTask,
    PhotoWorker,
    installed_version,
)
from vitmae_search.indexing.plan import PendingFile
from vitmae_search.indexing.reader import UNKNOWN_CONTENT, FetchedFile, KnownContent, Lookup, group_files

ROUND_FILES = 100_000
BLOCK_FILES = 128
"""Most files of a round, and of a block. A block is what is done again when a process is lost."""
_BLOCK_BYTES = 1 << 30
_BLOCKS_PER_WORKER = 4
"""At least so many where there are few files, so that all workers have some until the end."""
_RETRIES = 5
"""How often Ray runs a block again."""
_QUEUED_TABLES = 4
_POLL_SECONDS = 0.2
RESOURCES_SECONDS = 30.0
"""How long a cluster may take to run a first task, until it counts as having no room."""
_LOST = "processes of the cluster that read it ended each time, as by too little memory"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerShape:
    """What a worker asks of a cluster, and how many may run.

    Attributes:
        cpus: CPUs of each, one for each decoding process.
        gpus: GPUs of each, 0 or 1.
        most: How many may run at a time.
    """

    cpus: int
    gpus: int
    most: int

    @classmethod
    def on(cls, size: ClusterSize, device: str) -> WorkerShape:
        """One worker for each CPU, or for each GPU with its share of its node's CPUs.

        Args:
            size: The cluster.
            device: "auto" uses GPUs where there are any, "cuda" insists.

        Raises:
            DeviceError: There is no GPU.
            LibraryError: There is no CPU.
        """
        if device.startswith("cuda") and not size.gpus:
            raise DeviceError("no node of the cluster has a GPU; --device cpu does without")
        if size.gpus and (device == "auto" or device.startswith("cuda")):
            cpus = min(max(1, cpus // gpus) for cpus, gpus in size.nodes_with_gpu)
            return cls(cpus, 1, 2 * size.gpus)
        if not size.cpus:
            raise LibraryError("no node of the cluster has a CPU to run anything on")
        return cls(1, 0, 2 * size.cpus)  # with room for nodes that come later


@dataclass(slots=True)
class _Round:
    """Files under way, by number; those that remain at the end were lost."""

    files: dict[int, PendingFile]
    seen: set[str] = field(default_factory=set)
    failed: str = ""


class ClusterReader:
    """Has files read and embedded on a cluster that this process joined."""

    def __init__(
        self, task: EmbeddingTask, shape: WorkerShape, check: Callable[[], None], seconds: float = 0.0
    ) -> None:
        """Begin nothing yet.

        Args:
            task: What workers do.
            shape: What they ask for.
            check: Called a few times a second while results are waited for; what it raises ends the reading.
            seconds: How long to wait for room in the cluster; 0 is `RESOURCES_SECONDS`.
        """
        self._task, self._shape, self._check = task, shape, check
        self._seconds = seconds or RESOURCES_SECONDS

    def read(
        self, files: Iterable[PendingFile], lookup: Lookup, at_hand: frozenset[str]
    ) -> Generator[FetchedFile, None, None]:
        """Yield each file, as it comes back, with its vector as `pixels`.

        Args:
            files: The files.
            lookup: From digests to what is known of them now.
            at_hand: Digests whose contents need not be embedded.

        Raises:
            VitmaeSearchError: The embedder cannot be opened on a node or does not work, or the cluster is
                lost. What was yielded before is right.
        """
        self._require_room()
        task = pickle.dumps(replace(self._task, at_hand=at_hand))
        seen: set[str] = set()  # of the whole reading: a copy is recorded with what its first file brought
        rest = iter(files)
        while some := list(islice(rest, ROUND_FILES)):
            part = _Round(dict(enumerate(some)), seen)
            sent = len(part.files)
            yield from self._send(part, BLOCK_FILES, task, lookup)
            if part.files:
                log.info("processes of the cluster lost %d files: %s", len(part.files), part.failed)
                if len(part.files) == sent and sent > 1:
                    raise LibraryError(f"nothing came back from the cluster: {part.failed or _LOST}")
                yield from self._send(part, 1, task, lookup)
                yield from self._lost(part)

    def _lost(self, part: _Round) -> Iterator[FetchedFile]:
        for file in part.files.values():
            yield FetchedFile(file, None, UNKNOWN_CONTENT, error=DamagedPhoto(file.stamp.path, _LOST))

    def _send(
        self, part: _Round, most: int, task: bytes, lookup: Lookup
    ) -> Generator[FetchedFile, None, None]:
        """Send the files of a round, and yield and remove from it what comes back."""
        blocks = list(self._blocks(part.files, most))
        for table in _Stream(self._dataset(blocks, task), self._check, part):
            results: list[tuple[int, Any]] = [
                (number, pickle.loads(result))  # noqa: S301 - from a process that runs for this one
                for number, result in zip(
                    table.column("number").to_pylist(), table.column("result").to_pylist(), strict=True
                )
            ]
            error = next((result for number, result in results if number == WHOLE_RUN), None)
            if isinstance(error, VitmaeSearchError):
                raise error
            known = lookup([result.digest for _, result in results if result.digest is not None])
            for number, result in results:
                file = part.files.pop(number, None)
                if file is not None:  # else Ray gave it twice
                    yield _fetched(file, result, known.get(result.digest, UNKNOWN_CONTENT), part.seen)

    def _blocks(self, files: dict[int, PendingFile], most: int) -> Iterator[Any]:
        import pyarrow as pa

        numbers = {file.stamp.path: number for number, file in files.items()}
        even = -(-len(files) // (_BLOCKS_PER_WORKER * self._shape.most))
        for group in group_files(list(files.values()), max(1, min(most, even)), _BLOCK_BYTES):
            yield pa.table(
                {
                    "number": pa.array([numbers[file.stamp.path] for file in group], pa.int64()),
                    "stamp": pa.array([pickle.dumps(file.stamp) for file in group], pa.large_binary()),
                }
            )

    def _dataset(self, blocks: list[Any], task: bytes) -> Any:
        import ray.data

        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = -1  # of lost processes; other errors come back as results
        # An actor pool that may shrink to one and grow by half cannot wait for nodes that are gone.
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=self._shape.most)
        with warnings.catch_warnings():
            # Without a limit Ray repeats for ever what ends its process. This option goes in Ray 2.64.
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            return ray.data.from_arrow(blocks).map_batches(
                PhotoWorker,
                fn_constructor_args=(installed_version(), task),
                compute=pool,
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=self._shape.cpus,
                num_gpus=self._shape.gpus,
                max_task_retries=_RETRIES,
            )

    def _require_room(self) -> None:
        """Raise `LibraryError` where a cluster runs no task for us, or has not our version."""
        import ray

        ask = ray.remote(num_cpus=self._shape.cpus, num_gpus=self._shape.gpus)(installed_version)
        answer = ask.remote()
        until = time.monotonic() + self._seconds
        while not ray.wait([answer], timeout=_POLL_SECONDS)[0]:
            self._check()
            if time.monotonic() > until:
                ray.cancel(answer, force=True)
                gpu = f" and {self._shape.gpus} GPU" if self._shape.gpus else ""
                raise LibraryError(
                    f"the cluster has had no {self._shape.cpus} CPU{gpu} free for {self._seconds:.0f} s; "
                    "wait for what runs there, or add a node, and run the same command again"
                )
        try:
            found = ray.get(answer)
        except Exception as error:  # whatever a node without our package raises
            raise _explained(error) from error
        if found != installed_version():
            raise LibraryError(
                f"the cluster has vitmae-search {found}, and this machine {installed_version()}; "
                "install the same version on all nodes"
            )


def _fetched(file: PendingFile, result: EmbeddedFile, known: KnownContent, seen: set[str]) -> FetchedFile:
    """A file as `read_ahead` gives it: a content that the catalogue has, or another file brought, once."""
    metadata, vector = result.metadata, result.vector
    if known.embedded:
        vector, metadata = None, None if known.described else metadata
        return FetchedFile(file, result.digest, known, metadata)
    if result.digest is not None and vector is not None:
        if result.digest in seen:
            metadata, vector = None, None
        seen.add(result.digest)
    return FetchedFile(file, result.digest, known, metadata, vector, result.error)


class _Stream:
    """Iterates over a dataset's tables in a thread, so that the caller may stop while it waits for one."""

    def __init__(self, dataset: Any, check: Callable[[], None], part: _Round) -> None:
        self._dataset, self._check, self._part = dataset, check, part
        self._tables: queue.Queue[Any] = queue.Queue(_QUEUED_TABLES)
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        thread = threading.Thread(target=self._run, name="cluster-results", daemon=True)
        thread.start()
        try:
            while True:
                self._check()
                try:
                    table = self._tables.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                if table is None:
                    return
                if isinstance(table, BaseException):
                    if _is_loss(table):  # all that was under way; the round says what is missing
                        self._part.failed = _first_line(table)
                        return
                    raise _explained(table) from table
                yield table
        finally:
            self._stopped.set()

    def _run(self) -> None:
        last: Any = None
        try:
            for table in self._dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                if not self._put(table):
                    return
        except BaseException as error:
            last = error
        with suppress(queue.Full):
            self._put(last)

    def _put(self, table: Any) -> bool:
        """Hand a table over; False where nobody waits any more."""
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._tables.put(table, timeout=_POLL_SECONDS)
                return True
        return False


def _is_loss(error: BaseException) -> bool:
    import ray.exceptions

    return isinstance(error, ray.exceptions.ObjectLostError | ray.exceptions.ActorDiedError) and (
        "vitmae_search" not in _missing_module(error)
    )


def _missing_module(error: BaseException) -> str:
    text = str(error)
    at = text.find("No module named")
    return text[at : at + 60] if at >= 0 else ""


def _explained(error: BaseException) -> VitmaeSearchError:
    """One sentence for what Ray raises; the log has it all."""
    log.info("the cluster failed", exc_info=error)
    missing = _missing_module(error)
    if missing:
        return LibraryError(
            f"a node of the cluster lacks a package ({missing.splitlines()[0]}); install the same version of "
            "vitmae-search on all nodes"
        )
    return LibraryError(
        f"the cluster could not go on: {_first_line(error)}; what was recorded is kept, and the same "
        "command goes on from there"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
