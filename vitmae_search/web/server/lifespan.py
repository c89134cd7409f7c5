"""What the first visitor would wait for, made ready in the background, and what the last one leaves.

As the server starts: the counts of the catalogue and the vector index. Once a page has been seen: the model,
which takes seconds and memory that a server without visitors need not spend. A model that nobody asks
anything any more gives a GPU's memory back (`offload_when_idle`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vitmae_search.errors import VitmaeSearchError
from vitmae_search.settings import settings
from vitmae_search.web.server.session import library, open_libraries

PAUSE = 1.0
"""Seconds for the first page's thumbnails, before the model takes the processor."""

LOOKS = 10
"""How often it is looked in the time that a model may be idle, which may so be a tenth longer."""

log = logging.getLogger(__name__)

_seen, _ended = threading.Event(), threading.Event()


@asynccontextmanager
async def lifespan(_app: object) -> AsyncIterator[None]:
    """Begins with the server. Whatever is going on when it ends is left to itself."""
    _ended.clear()
    threading.Thread(target=warm, name="warm-up", daemon=True).start()
    stopped, seconds = threading.Event(), 60 * settings().idle_minutes
    if seconds:
        idle = threading.Thread(target=offload_when_idle, args=(seconds, stopped), name="idle", daemon=True)
        idle.start()
    try:
        yield
    finally:
        stopped.set()
        _ended.set()
        _seen.set()


def page_seen() -> None:
    """Somebody is there."""
    _seen.set()


def warm() -> None:
    """Make ready what a visit needs, step by step. What goes wrong is for the page to say."""
    try:
        ready = library()
        ready.status()
        ready.tag_counts()
        ready.warm()
        _seen.wait()
        if not _ended.wait(PAUSE):
            ready.warm(model=True)
    except VitmaeSearchError as error:
        log.info("Nothing was made ready: %s", error)
    except Exception:  # a plugin may raise anything; the visitor's own request meets it again
        log.info("Nothing was made ready", exc_info=True)


def offload_when_idle(seconds: float, stopped: threading.Event) -> None:
    """Until `stopped`: let models rest that nobody asked anything for so long. The next search wakes them."""
    while not stopped.wait(seconds / LOOKS):
        for one in open_libraries():
            if one.offload(idle_seconds=seconds):
                log.info("Nothing was asked for %.0f minutes: the model rests", seconds / 60)
