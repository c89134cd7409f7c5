"""What all visitors of one server process share: the open `Library`, and the pictures they uploaded."""

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
    """The library that the environment names, opened once in a process and shared by all threads."""
    from vitmae_search.library import Library

    found = settings()
    with _lock:
        if found.library not in _libraries:
            _libraries[found.library] = Library.open(
                found.library, plugin_folders=[found.plugins], device=found.device, background=True
            )
        return _libraries[found.library]


def open_libraries() -> list[Library]:
    """The libraries that `library` opened."""
    with _lock:
        return list(_libraries.values())


def close_libraries() -> None:
    """Close the libraries that `library` opened; its next call opens one anew."""
    with _lock:
        while _libraries:
            _libraries.popitem()[1].close()


def has_only_samples(status: LibraryStatus) -> bool:
    """Whether the library holds the demo's photos and none of the person's own."""
    from vitmae_search.library import is_sample_folder

    return bool(status.roots) and all(is_sample_folder(root.path) for root in status.roots)


@dataclass(frozen=True)
class Upload:
    """A picture that a visitor uploaded: its file's bytes and name."""

    token: str
    name: str
    data: bytes

    @cached_property
    def preview(self) -> bytes:
        """A small WebP of it, made once: the page shows it again at each rerun.

        Raises `PhotoError`.
        """
        from vitmae_search.library.previews import preview

        return preview(self.data, PREVIEW_SIDE)


class Uploads:
    """The latest uploads, in memory, so that reload, bookmarks and the back button find them. Thread-safe.

    Each has a token, which is the same for equal bytes, and cannot be guessed from them.
    """

    def __init__(self, kept: int = UPLOADS_KEPT, bytes_kept: int = UPLOAD_BYTES_KEPT) -> None:
        self._kept, self._bytes_kept = kept, bytes_kept
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._items: OrderedDict[str, Upload] = OrderedDict()

    def add(self, name: str, data: bytes) -> str:
        """Keep an upload; the oldest ones are dropped if there are too many, or too many bytes.

        Args:
            name: The file's name.
            data: Its bytes.

        Returns:
            Its token.
        """
        token = hmac.new(self._secret, hashlib.sha256(data).digest(), "sha256").hexdigest()[:32]
        with self._lock:
            self._items[token] = Upload(token, name, data)
            self._items.move_to_end(token)
            while len(self._items) > 1 and self._over_limit():
                self._items.popitem(last=False)
        return token

    def get(self, token: str) -> Upload | None:
        """The upload with this token; None if it was dropped, or the server was started anew."""
        with self._lock:
            return self._items.get(token)

    def _over_limit(self) -> bool:
        held = sum(len(upload.data) for upload in self._items.values())
        return len(self._items) > self._kept or held > self._bytes_kept


uploads = Uploads()
