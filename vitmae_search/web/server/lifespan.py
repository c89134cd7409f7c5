"""What runs beside the server: preloading for the first visitor, and offloading idle models.

As the server starts, the catalogue's counts are read and the vector index is opened. Once a page has been
shown, the model is loaded, which takes seconds and memory that a server without visitors need not spend. A
model that has not been used for a while gives a GPU's memory back (`offload_when_idle`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vitmae_search.errors import VitmaeSearchError
from vitmae_search.settings import settings
from vitmae_search.web.server.session import library, open_libraries

MODEL_DELAY = 1.0
"""Seconds from the first page until the model is loaded: first the CPU makes that page's thumbnails."""

CHECKS_PER_TIMEOUT = 10
"""Idle checks per timeout; offload may be up to 10 % late."""

log = logging.getLogger(__name__)

_page_shown, _server_ended = threading.Event(), threading.Event()


@asynccontextmanager
async def lifespan(_app: object) -> AsyncIterator[None]:
    """Start the background threads with the server; at its end, their current step is not waited for."""
    _server_ended.clear()
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
    """Called at the end of each page: there is a visitor, so the model is worth loading."""
    _page_shown.set()


def preload() -> None:
    """Load what a visit needs, step by step. Errors are only logged: the page meets and shows them itself."""
    try:
        opened = library()
        opened.status()
        opened.tag_counts()
        opened.preload()
        _page_shown.wait()
        if not _server_ended.wait(MODEL_DELAY):
            opened.preload(model=True)
    except VitmaeSearchError as error:
        log.info("Nothing was made ready: %s", error)
    except Exception:  # a plugin may raise anything
        log.info("Nothing was made ready", exc_info=True)


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
