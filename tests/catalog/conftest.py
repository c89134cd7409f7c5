"""A real catalogue in a fresh folder, and short ways to say what goes into it."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.postgresql_server import PostgresqlServer
from vitmae_search.catalog import Catalog, CatalogWriter, Derivation, Indexed, sqlite
from vitmae_search.records import Failure, Photo, PhotoMetadata, Space, Stamp

DIMENSION = 8


class Make:
    """Makes what a batch holds. A content is named by a word, which decides its digest and vector."""

    dimension = DIMENSION

    def digest(self, word: str) -> str:
        return hashlib.sha256(word.encode("utf-8", "surrogatepass")).hexdigest()

    def vector(self, word: str) -> NDArray[np.float32]:
        seed = int(self.digest(word)[:8], 16)
        vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
        return vector / np.linalg.norm(vector)

    def stamp(self, path: str, *, size: int = 1, mtime_ns: int = 1) -> Stamp:
        return Stamp(path, size, mtime_ns, device=7)

    def item(
        self,
        path: str,
        word: str,
        *,
        photo_id: int | None = None,
        known: bool = False,
        taken_at: datetime | None = None,
        camera: str | None = None,
        size: int = 1,
        mtime_ns: int = 1,
    ) -> Indexed:
        return Indexed(
            self.stamp(path, size=size, mtime_ns=mtime_ns),
            self.digest(word),
            None if known else PhotoMetadata(40, 30, "JPEG", taken_at, camera),
            None if known else self.vector(word),
            photo_id,
        )

    def photo_at(self, catalog: Catalog, path: str) -> Photo | None:
        return next((photo for photo in catalog.photos(missing=None) if photo.path == path), None)

    def failure(self, path: str, reason: str = "truncated", *, size: int = 1, mtime_ns: int = 1) -> Failure:
        return Failure(path, reason, size, mtime_ns, tried_with="these versions")

    def space(
        self,
        writer: CatalogWriter,
        name: str = "first",
        dimension: int = DIMENSION,
        derivation: Derivation | None = None,
    ) -> Space:
        return writer.ensure_space(
            fingerprint=self.digest(name),
            plugin="vitmae",
            model=name,
            dimension=dimension,
            decode="scaled",
            options={"pooling": "cls"},
            identity={"weights": name},
            provenance={"device": "cpu"},
            derivation=derivation,
        )


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "library"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a catalogue on both databases, save for tests of the file itself."""
    if "address" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("sqlite_only"):
        on_server = metafunc.definition.get_closest_marker("postgresql_only")
        metafunc.parametrize("address", ["sqlite"] * (not on_server) + ["postgresql"], indirect=True)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Where the catalogue is: None is the file in the library's folder, else a database of the test's own."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield None
        return
    server, template = request.getfixturevalue("catalogue_template")
    name = server.create(template)
    yield server.address(name)
    server.drop(name)


@pytest.fixture(scope="session")
def catalogue_template(tmp_path_factory, postgresql: PostgresqlServer) -> tuple[PostgresqlServer, str]:
    """A server, and the name of a database with an empty catalogue, of which tests get copies."""
    template = postgresql.create()
    folder = tmp_path_factory.mktemp("template") / "library"
    CatalogWriter.open_writer(folder, postgresql.address(template)).close()
    return postgresql, template


@pytest.fixture
def writer(folder: Path, address: str | None) -> Iterator[CatalogWriter]:
    with CatalogWriter.open_writer(folder, address) as catalog:
        yield catalog


@pytest.fixture
def space(writer: CatalogWriter, make: Make) -> int:
    return make.space(writer).space_id


@pytest.fixture
def shared_folder():
    """A folder that other users can reach, as pytest's own is not."""
    path = Path(tempfile.mkdtemp(prefix="vitmae-catalogue-"))
    path.chmod(0o755)
    yield path
    for each in (path, *path.iterdir()):
        each.chmod(0o755)
    shutil.rmtree(path)


@pytest.fixture
def other_user(tmp_path, shared_folder, make):
    """Reads `shared_folder` in a process for which a read-only folder is one: root may write everywhere.

    Forked, because such a user may not even start this Python; and before the folder has a catalogue, so
    that it shares no open file with us. Everything has been imported by then.
    """
    with CatalogWriter.open_writer(tmp_path / "warm") as writer:
        writer.record_batch(make.space(writer).space_id, [make.item("/p/a.jpg", "cat")])
        with Catalog.open(tmp_path / "warm") as reader:
            answer_of(reader)
    go_out, go_in = os.pipe()
    said_out, said_in = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded": numpy's own are idle
        pid = os.fork()
    if pid == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.read(go_out, 1)
            with Catalog.open(shared_folder) as reader:
                options = sqlite.reader_options(shared_folder / "catalogue.sqlite3")
                answer = f"{options}: {answer_of(reader)}"
        except BaseException as error:
            answer = repr(error)
        os.write(said_in, answer.encode())
        os._exit(0)

    def read() -> str:
        os.write(go_in, b"!")
        return os.read(said_out, 10_000).decode()

    yield read
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for end in (go_out, go_in, said_out, said_in):
        os.close(end)


def answer_of(reader: Catalog) -> str:
    ids = reader.searchable_ids(1)
    vectors = [vectors for _, vectors in reader.vector_source(1).added_since(0)]
    return f"{reader.count_photos()} photos, {len(ids)} ids, {sum(map(len, vectors))} vectors"
