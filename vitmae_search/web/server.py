"""What app.py puts round the pages: routes, middleware, and the last word on unexpected errors."""

from __future__ import annotations

import logging
from pathlib import Path

from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from vitmae_search.settings import settings
from vitmae_search.web import notices
from vitmae_search.web.connections import NoDelay
from vitmae_search.web.frontend import Frontend
from vitmae_search.web.middleware import HostGuard
from vitmae_search.web.routes import photo_routes
from vitmae_search.web.warming import lifespan

__all__ = ["MAIN_SCRIPT", "lifespan", "middleware", "on_script_error", "routes"]

MAIN_SCRIPT = Path(__file__).resolve().with_name("main.py")


def middleware() -> list[Middleware]:
    """Outermost first."""
    return [
        Middleware(NoDelay),
        Middleware(HostGuard, allowed_hosts=settings().allowed_hosts),
        Middleware(Frontend),
    ]


def routes() -> list[BaseRoute]:
    return list(photo_routes())


def on_script_error(error: Exception) -> bool:
    """A defect of ours: the traceback goes to the log, one sentence to the page, and nothing more."""
    logging.getLogger(__name__).error("A page failed", exc_info=error)
    notices.unexpected()
    return True
