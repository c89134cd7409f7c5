"""What all visitors of one server process share: the open `Library`, and the pictures they brought along."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vitmae_search.settings import settings

if TYPE_CHECKING:
    from vitmae_search.library import Library
    from vitmae_search.records import LibraryStatus

PREVIEW_SIDE = 320
UPLOADS_KEPT = 32
UPLOAD_BYTES_KEPT = 256 * 2**20

_lock = threading.Lock()
_libraries: dict[Path, Library] = {}


def library() -> Library:
    """The library that the environment names, opened once a process and shared by threads."""
    from vitmae_search.library import Library

    found = settings()
    with _lock:
        if found.library not in _libraries:
            _libraries[found.library] = Library.open(
                found.library, plugin_folders=[found.plugins], device=found.device, background=True
            )
        return _libraries[found.library]


def open_libraries() -> list[Library]:
    """What `library` opened."""
    with _lock:
        return list(_libraries.values())


def close_libraries() -> None:
    """Close what `library` opened; the next call opens it afresh."""
    with _lock:
        while _libraries:
            _libraries.popitem()[1].close()


def only_samples(status: LibraryStatus) -> bool:
    """Whether the library holds the demo's photos and none of the person's own."""
    from vitmae_search.library import is_sample_folder

    return bool(status.roots) and all(is_sample_folder(root.path) for root in status.roots)


@dataclass(frozen=True)
class Upload:
    """A picture that a person brought: its bytes as they came, and the name it had."""

    token: str
    name: str
    data: bytes

    @cached_property
    def preview(self) -> bytes:
        """A small WebP of it, made once: each filter and each page of results shows it again.

        Raises `PhotoError`.
        """
        from vitmae_search.library.previews import preview

        return preview(self.data, PREVIEW_SIDE)


class Uploads:
    """The latest uploads, in memory, so that reload, bookmarks and the back button find them.

    A token is the same for the same bytes, and cannot be guessed from them. Safe for threads.
    """

    def __init__(self, kept: int = UPLOADS_KEPT, bytes_kept: int = UPLOAD_BYTES_KEPT) -> None:
        self._kept, self._bytes_kept = kept, bytes_kept
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._items: OrderedDict[str, Upload] = OrderedDict()

    def add(self, name: str, data: bytes) -> str:
        """Keep `data` and return its token; the oldest uploads give way."""
        token = hmac.new(self._secret, hashlib.sha256(data).digest(), "sha256").hexdigest()[:32]
        with self._lock:
            self._items[token] = Upload(token, name, data)
            self._items.move_to_end(token)
            while len(self._items) > 1 and self._too_much():
                self._items.popitem(last=False)
        return token

    def get(self, token: str) -> Upload | None:
        """The upload, or None once it has given way or the server was started again."""
        with self._lock:
            return self._items.get(token)

    def _too_much(self) -> bool:
        held = sum(len(upload.data) for upload in self._items.values())
        return len(self._items) > self._kept or held > self._bytes_kept


uploads = Uploads()
