"""What holds of every storage of objects that dies while its photos are indexed."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from vitmae_search import Library
from vitmae_search.address import bucket_of
from vitmae_search.errors import StorageUnreachable, UnreachablePhoto
from vitmae_search.photos import read_photo


def index_until_killed(library: Library, where: str, kill: Callable[[], None], done: int) -> int:
    """Index a folder of a storage that is killed in mid-run, and check what is said and lost.

    Args:
        library: An empty library.
        where: The address of a folder that has a photo `a.jpg`.
        kill: Kills the storage; called once.
        done: After so many photos.

    Returns:
        How many photos the library has then.
    """
    killed: list[bool] = []

    def kill_once(progress: object) -> None:
        phase, count = getattr(progress, "phase", ""), getattr(progress, "done", 0)
        if phase == "indexing" and count >= done and not killed:
            killed.append(True)
            kill()

    with pytest.raises(StorageUnreachable) as caught:
        library.index(where, on_progress=kill_once)
    assert str(caught.value) == (
        f"{bucket_of(where)} cannot be read now: its storage cannot be reached. What was done is kept; "
        "run the same command again to go on."
    )
    assert library.status().missing == 0
    kept = library.status().photos
    with pytest.raises(UnreachablePhoto):
        read_photo(f"{where}/a.jpg")
    return kept


def nobody_listens() -> str:
    """The address of an endpoint at which there is no server."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"
