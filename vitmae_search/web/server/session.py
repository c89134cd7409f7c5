"""What all visitors of one server process share: the open libraries, and the pictures they uploaded."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from vitmae_search.errors import LibraryDenied, display_path
from vitmae_search.settings import catalog_address, settings

if TYPE_CHECKING:
    from vitmae_search.library import Library, SharedValues
    from vitmae_search.records import LibraryStatus

PREVIEW_SIDE = 320
UPLOADS_KEPT = 32
UPLOAD_BYTES_KEPT = 256 * 2**20
SHARED_UPLOADS_KEPT = 128
SHARED_UPLOAD_BYTES_KEPT = 512 * 2**20
_SHARED_UPLOAD = "upload/"

CHOSEN = "vs_chosen_library"
"""Where a visitor's session keeps the folder of the chosen library."""

COOKIE = "vs_library"
"""The cookie in which a browser keeps the chosen library's identity; `_` and the port may follow."""

_PORT = re.compile(r"https?://[^/?#]*:(\d+)(?:[/?#]|$)")

_requested: ContextVar[Path | None] = ContextVar("requested library", default=None)
_lock = threading.Lock()
_libraries: dict[Path, Library] = {}


def library() -> Library:
    """The library that this visitor or this request is about: of several the chosen one, else the first.

    Each is opened once in a process and shared by all threads.
    """
    return open_library(chosen_folder())


def open_library(folder: Path) -> Library:
    """A library by its folder, opened once in a process."""
    from vitmae_search.library import Library

    with _lock:
        if folder not in _libraries:
            found = settings()
            _libraries[folder] = Library.open(
                folder, plugin_folders=[found.plugins], device=found.device, background=True
            )
        return _libraries[folder]


def chosen_folder() -> Path:
    """The folder of the library that this visitor or this request is about.

    Of several that the app was started with, it is the one that the address names by its identity, else the
    one that was chosen before in this session, else in this browser, else the first.
    """
    folders = settings().libraries
    if len(folders) == 1:
        return folders[0]
    requested = _requested.get()
    if requested is not None:
        return requested
    if get_script_run_ctx(suppress_warning=True) is None:
        return folders[0]
    named, state = st.query_params.get("library"), st.session_state
    if named is not None and state.get("vs_named_library") != named:
        state["vs_named_library"] = named
        found = _folder_of(named)
        if found is not None:
            state[CHOSEN] = found
    if CHOSEN not in state:
        state[CHOSEN] = _folder_in_cookies(st.context.cookies, st.context.url or "") or folders[0]
    kept: Path = state[CHOSEN]
    return kept if kept in folders else folders[0]


def choose_library(folder: Path) -> None:
    """Let this visitor's pages be about a library from now on; the address of another one is cleared."""
    st.session_state[CHOSEN] = folder
    identity = open_library(folder).identity
    st.session_state["vs_named_library"] = identity
    st.query_params.from_dict({} if identity is None else {"library": identity})


@contextmanager
def requested_library(identity: str | None) -> Iterator[None]:
    """Within the block, `library` is the one with this identity, which a request names; None is the first."""
    from vitmae_search.library import one_version

    several = identity is not None and len(settings().libraries) > 1
    with one_version(), requested_folder(_folder_of(identity or "") if several else None):
        yield


@contextmanager
def requested_folder(folder: Path | None) -> Iterator[None]:
    """Within the block, `library` is the one in this folder; None is the first."""
    token = _requested.set(folder)
    try:
        yield
    finally:
        _requested.reset(token)


def library_names() -> dict[Path, str]:
    """The libraries that the app was started with, by folder: the folder's name, or more of its path."""
    folders = settings().libraries
    alike = Counter(folder.name for folder in folders)
    return {
        folder: display_path(folder.name if alike[folder.name] == 1 else folder) or display_path(folder)
        for folder in folders
    }


def folder_named(name: str) -> Path | None:
    """The folder of the library with this name (as `library_names` has it) or identity; None of neither."""
    named = {text: folder for folder, text in library_names().items()}
    return named.get(name) or _folder_of(name)


def _folder_in_cookies(cookies: Mapping[str, str], url: str) -> Path | None:
    """The library that this browser keeps (`frame.js`) for the app at an address; others have other ports."""
    port = _PORT.match(url)
    return _folder_of(cookies.get(f"{COOKIE}_{port[1]}" if port else COOKIE, ""))


def _folder_of(identity: str) -> Path | None:
    return next(
        (folder for folder in settings().libraries if open_library(folder).has_identity(identity)), None
    )


def open_libraries() -> list[Library]:
    """The libraries that `library` opened."""
    with _lock:
        return list(_libraries.values())


def close_libraries() -> None:
    """Close the libraries that `library` opened; its next call opens one anew."""
    with _lock:
        while _libraries:
            _libraries.popitem()[1].close()


def shared_values() -> SharedValues | None:
    """What this process shares with other copies of the app; None where the catalogue is a file."""
    return None if catalog_address() is None else open_library(settings().libraries[0]).shared_values()


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

    Each has a token, which is the same for equal bytes, and cannot be guessed from them. Where the catalogue
    is on a server it has them too, for other copies of the app, unless this copy may only read it.
    """

    def __init__(
        self,
        kept: int = UPLOADS_KEPT,
        bytes_kept: int = UPLOAD_BYTES_KEPT,
        shared: Callable[[], SharedValues | None] = lambda: None,
    ) -> None:
        """Nothing is kept yet.

        Args:
            kept: How many uploads are kept.
            bytes_kept: How many bytes all of them may have.
            shared: Gives what copies of the app share.
        """
        self._kept, self._bytes_kept, self._shared = kept, bytes_kept, shared
        self._secret = secrets.token_bytes(32)
        self._shared_secret: bytes | None = None
        self._lock = threading.Lock()
        self._items: OrderedDict[str, Upload] = OrderedDict()

    def add(self, name: str, data: bytes) -> str:
        """Keep an upload; the oldest ones are dropped if there are too many, or too many bytes.

        Args:
            name: The file's name.
            data: Its bytes.

        Returns:
            Its token.

        Raises:
            VitmaeSearchError: The catalogue does not answer.
        """
        shared = self._shared()
        token = hmac.new(self._key(shared), hashlib.sha256(data).digest(), "sha256").hexdigest()[:32]
        self._keep(Upload(token, name, data))
        if shared is not None:
            with suppress(LibraryDenied):  # its user may only read: this copy has it
                shared.put(_SHARED_UPLOAD + token, data, name)
                shared.keep_newest(_SHARED_UPLOAD, SHARED_UPLOADS_KEPT, SHARED_UPLOAD_BYTES_KEPT)
        return token

    def get(self, token: str) -> Upload | None:
        """The upload with this token; None if it was dropped, or the server was started anew.

        Raises:
            VitmaeSearchError: The catalogue does not answer.
        """
        with self._lock:
            if token in self._items:
                return self._items[token]
        shared = self._shared()
        found = None if shared is None else shared.get(_SHARED_UPLOAD + token[:64])
        if found is not None:
            self._keep(Upload(token, found.label, found.data))
        return self._items.get(token)

    def _keep(self, upload: Upload) -> None:
        with self._lock:
            self._items[upload.token] = upload
            self._items.move_to_end(upload.token)
            while len(self._items) > 1 and self._over_limit():
                self._items.popitem(last=False)

    def _key(self, shared: SharedValues | None) -> bytes:
        """What tokens are made with; the same for all copies."""
        if shared is None:
            return self._secret
        if self._shared_secret is None:
            try:
                self._shared_secret = shared.put_if_absent("upload key", self._secret)
            except LibraryDenied:  # there is none yet, and its user may only read
                return self._secret
        return self._shared_secret

    def _over_limit(self) -> bool:
        held = sum(len(upload.data) for upload in self._items.values())
        return len(self._items) > self._kept or held > self._bytes_kept


uploads = Uploads(shared=shared_values)
