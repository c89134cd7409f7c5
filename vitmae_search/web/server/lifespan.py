"""What runs beside the server: preloading for the first visitor, and offloading idle models.

As the server starts, the catalogue's counts are read and the vector index is opened. Once a page has been
shown, the model is loaded, which takes seconds and memory that a server without visitors need not spend. A
model that has not been used for a while gives a GPU's memory back (`offload_when_idle`).
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from vitmae_search.errors import VitmaeSearchError
from vitmae_search.settings import settings
from vitmae_search.web.server.session import chosen_folder, open_libraries, open_library

MODEL_DELAY = 1.0
"""Seconds from the first page until the model is loaded: first the CPU makes that page's thumbnails."""

CHECKS_PER_TIMEOUT = 10
"""Idle checks per timeout; offload may be up to 10 % late."""

log = logging.getLogger(__name__)

_page_shown, _server_ended = threading.Event(), threading.Event()
_lock = threading.Lock()
_with_model: set[Path] = set()
"""Libraries, but for the first, whose model was loaded or is being loaded."""


@asynccontextmanager
async def lifespan(_app: object) -> AsyncIterator[None]:
    """Start the background threads with the server; at its end, their current step is not waited for."""
    _server_ended.clear()
    _with_model.clear()
    threading.Thread(target=preload, name="preload", daemon=True).start()
    stopped, seconds = threading.Event(), 60 * settings().idle_minutes
    if seconds:
        idle = threading.Thread(target=offload_when_idle, args=(seconds, stopped), name="idle", daemon=True)
        idle.start()
    try:
        yield
    finally:
        stopped.set()
        _server_ended.set()
        _page_shown.set()


def page_shown() -> None:
    """Called at the end of each page: there is a visitor, so the model is worth loading.

    That is the first library's; another one's is loaded once a page of it has been shown.
    """
    _page_shown.set()
    folder = chosen_folder()
    with _lock:
        if folder == settings().libraries[0] or folder in _with_model:
            return
        _with_model.add(folder)
    threading.Thread(target=_preload_model, args=(folder,), name="preload model", daemon=True).start()


def preload() -> None:
    """Load what a visit needs, step by step. Errors are only logged: the page meets and shows them itself."""
    first, *others = settings().libraries
    ready = _preload_counts(first)
    for folder in others:
        _preload_counts(folder)
    gc.freeze()  # collections pass over what stays: else each holds up all pages for a tenth of a second
    if ready:
        _page_shown.wait()
        _preload_model(first)
        gc.freeze()


@contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except VitmaeSearchError as error:
        log.info("Nothing was made ready: %s", error)
    except Exception:  # a plugin may raise anything
        log.info("Nothing was made ready", exc_info=True)


def _preload_counts(folder: Path) -> bool:
    """Open a library and its vector index; whether that was possible."""
    with _logged():
        opened = open_library(folder)
        opened.status()
        opened.tag_counts()
        opened.preload()
        return True
    return False


def _preload_model(folder: Path) -> None:
    with _logged():
        if not _server_ended.wait(MODEL_DELAY):
            open_library(folder).preload(model=True)


def offload_when_idle(seconds: float, stopped: threading.Event) -> None:
    """Offload models that have not been used for a while, again and again; the next search loads them back.

    Args:
        seconds: How long a model may be unused.
        stopped: Ends the loop once it is set.
    """
    while not stopped.wait(seconds / CHECKS_PER_TIMEOUT):
        for opened in open_libraries():
            if opened.offload(after=seconds):
                log.info("Nothing was asked for %.0f minutes: the model is offloaded", seconds / 60)
