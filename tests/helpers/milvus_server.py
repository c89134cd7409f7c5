"""A real Milvus 2.3 server, from the package `milvus`, in a network namespace of its own.

It listens on all addresses, so it is only started where there are none but the loopback's:

    unshare -n python -m tests.helpers.milvus_server FOLDER

That starts a server in FOLDER, runs the contract of vector stores against it, and kills it in mid-run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.vectors.conftest import MemorySource, unit_vectors
from vitmae_search.errors import VectorStoreUnavailable
from vitmae_search.vectors import open_store

DIMENSION = 32
BATCHES, BATCH = 8, 200


class MilvusServer:
    """A server whose data are in a folder; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        from milvus import MilvusServer as Server

        self._server = Server()
        self._server.set_base_dir(str(folder))

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        """End it as a failure of the machine would."""
        process = self._server.server_proc
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        self._server.stop()

    @property
    def address(self) -> str:
        return f"milvus://127.0.0.1:{self._server.listen_port}"


def prepare_network() -> None:
    """Give the namespace its loopback. Raises where there is any other network."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert len(links.splitlines()) == 1, "run this with unshare -n"
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def kill_in_mid_run(server: MilvusServer, folder: Path) -> None:
    """What was acknowledged is there after a kill -9, and the rest follows."""
    source, queries = MemorySource(DIMENSION), unit_vectors(3, DIMENSION, seed=9)
    source.add(unit_vectors(BATCH, DIMENSION))
    store = open_store(server.address, folder)
    assert store.save(source)
    index = store.open(source)
    for batch in range(1, BATCHES):
        source.add(unit_vectors(BATCH, DIMENSION, seed=batch))
    read = source.added_since

    def killed_meanwhile(revision: int):  # type: ignore[no-untyped-def]
        for number, chunk in enumerate(read(revision)):
            if number == 20:
                server.kill()
            yield chunk

    source.added_since = killed_meanwhile  # type: ignore[method-assign]
    assert not store.save(source)
    with pytest.raises(VectorStoreUnavailable, match="see that the database runs"):
        index.search(queries, 3)
    source.added_since = read  # type: ignore[method-assign]
    server.start()
    again = open_store(server.address, folder)
    assert "behind the catalogue" in str(again.describe(source)), again.describe(source)
    assert again.save(source)
    assert again.verify(source)
    ids = np.array(sorted(source.rows), np.int64)
    scores = np.array([source.rows[i][1] for i in ids.tolist()]) @ queries.T
    found = again.open(source).search(queries, 1)
    assert [int(one.ids[0]) for one in found] == ids[scores.argmax(axis=0)].tolist()
    again.close()
    store.close()


def main(folder: Path) -> int:
    prepare_network()
    server = MilvusServer(folder / "server")
    server.start()
    try:
        os.environ["MILVUS_OF_TESTS"] = server.address
        contract = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "milvus"]
        failed = subprocess.run([*contract, "tests/vectors/test_stores.py"]).returncode
        kill_in_mid_run(server, folder)
    finally:
        server.stop()
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
