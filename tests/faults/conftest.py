"""The process that forks commands, and how much is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.faults.fork_server import ForkServer
from tests.faults.scenarios import Home

T = TypeVar("T")
Amount = Callable[[T, T, T], T]


@pytest.fixture(scope="session")
def amount(pytestconfig: pytest.Config) -> Amount[int]:
    """`amount(a, b, c)` is a in `make test`, b in `make torture`, c in `make torture SIZE=full`."""
    size = ["test", "small", "full"].index(pytestconfig.getoption("torture"))
    return lambda *amounts: amounts[size]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Runs commands."""
    with ForkServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, server: ForkServer) -> Home:
    """A folder for photos and a library."""
    return Home(tmp_path / "home", server)
