"""Joining a Ray cluster, where Ray is installed, with errors that say what to do, and without its noise."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from vitmae_search.errors import LibraryError, StorageError, display_path
from vitmae_search.photos.prefetch import default_workers

LOCAL, RUNNING = "local", "auto"

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_OBJECT_STORE_BYTES = 256 << 20
"""Memory of a local cluster for blocks under way; a block of results is some hundred kilobytes."""
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS_FRAME = 4


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """What a cluster has.

    Attributes:
        cpus: All CPUs.
        gpus: All GPUs.
        nodes_with_gpu: CPUs and GPUs of each node that has any GPU.
    """

    cpus: int
    gpus: int
    nodes_with_gpu: tuple[tuple[int, int], ...] = ()


@contextmanager
def joined(address: str) -> Iterator[ClusterSize]:
    """Be a driver of a cluster: what was started there for it ends with it.

    Args:
        address: "local" starts a cluster on this machine, of which others learn nothing; "auto" joins the
            one that runs here; else HOST:PORT of a cluster that this machine is a node of.

    Raises:
        LibraryError: There is no such cluster, or it does not fit.
    """
    import ray

    if ray.is_initialized():
        raise LibraryError("this process uses Ray already; call ray.shutdown() first")
    folder = tempfile.mkdtemp(prefix="ray-") if address == LOCAL else None
    try:
        _connect(address, folder)
        try:
            nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
            yield _size_of(nodes)
        finally:
            with suppress(Exception):  # a cluster that is gone needs no good-bye
                ray.shutdown()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _connect(address: str, folder: str | None) -> None:
    import ray

    options: dict[str, Any] = {
        "configure_logging": True,
        "logging_level": logging.CRITICAL,
        "log_to_driver": False,
    }
    if folder is not None:
        options |= {
            "address": "local",
            "num_cpus": default_workers(),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": folder,
        }
    else:
        if address != RUNNING:
            _require_reachable(address)
        options["address"] = address
    handlers = _signal_handlers()
    try:
        with _without_stderr():
            ray.init(**options)
        _hush()
    except (ConnectionError, RuntimeError, ValueError, SystemExit, OSError) as error:
        with suppress(Exception):
            ray.shutdown()
        raise _explained(address, error) from error
    finally:
        for number, handler in handlers.items():  # Ray puts one of its own in their place
            signal.signal(number, handler)


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Leave out what Ray's libraries say as they start, such as that they were asked to say little."""
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _hush() -> None:
    """Have what Ray prints of nodes and tasks, on stdout, go to the log: results and progress go there."""
    with suppress(ImportError, AttributeError):
        from ray._private import worker

        def to_log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
            log.info("%s", "\n".join(map(str, data.get("lines", ()))))

        worker.print_to_stdstream = to_log


def _signal_handlers() -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


def _require_reachable(address: str) -> None:
    """Raise `LibraryError` where nothing at an address speaks HTTP/2. Ray itself waits for minutes."""
    host, colon, port = address.rpartition(":")
    if address.startswith("ray://") or not (colon and host and port.isdigit()):
        raise LibraryError(
            f"--ray {display_path(address)}: name HOST:PORT of the cluster's head, such as 10.0.0.1:6379 "
            "(this machine has to be a node of it), or auto, or local"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as connection:
            connection.settimeout(_CONNECT_SECONDS)
            connection.sendall(_HTTP2_GREETING)
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LibraryError(f"no Ray cluster answers at {display_path(address)}: {reason}") from error
    if len(answer) < 4 or answer[3] != _SETTINGS_FRAME:
        raise LibraryError(f"what answers at {display_path(address)} is no Ray cluster")


def _explained(address: str, error: BaseException) -> LibraryError:
    text = " ".join(str(error).split())
    if "Version mismatch" in text:
        return LibraryError(
            f"the cluster's versions differ from this machine's, which Ray does not allow: {text[:300]}"
        )
    if isinstance(error, ConnectionError) and address == RUNNING:
        return LibraryError("no Ray cluster runs on this machine; `ray start --head` starts one")
    if isinstance(error, OSError) and address == LOCAL:
        return StorageError(f"Ray cannot be started on this machine: {text[:300]}")
    return LibraryError(
        f"the Ray cluster {display_path(address)} cannot be used from here: {text[:300]} (this machine has "
        "to be a node of it: `ray start --address=HOST:PORT`)"
    )


def _size_of(nodes: list[dict[str, Any]]) -> ClusterSize:
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    counts = [(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in alive]
    with_gpu = tuple((cpus, gpus) for cpus, gpus in counts if gpus)
    return ClusterSize(sum(cpus for cpus, _ in counts), sum(gpus for _, gpus in counts), with_gpu)
