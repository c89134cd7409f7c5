"""What `app.py` builds the server of: routes, middleware, and the handler of unexpected errors."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from vitmae_search.errors import mask_credentials
from vitmae_search.settings import catalog_address, password, settings
from vitmae_search.web.components import plain_text
from vitmae_search.web.server.access_guard import AccessGuard
from vitmae_search.web.server.addresses import KnownAddresses
from vitmae_search.web.server.api import api_routes
from vitmae_search.web.server.connections import NoDelay
from vitmae_search.web.server.frontend import FrontendCache
from vitmae_search.web.server.host_guard import HostGuard
from vitmae_search.web.server.lifespan import lifespan
from vitmae_search.web.server.map_routes import map_routes
from vitmae_search.web.server.openapi import openapi_route
from vitmae_search.web.server.reconstruction_routes import reconstruction_routes
from vitmae_search.web.server.routes import photo_routes
from vitmae_search.web.server.session import shared_values
from vitmae_search.web.server.sign_in_cookies import SharedSignInCookies, SignInCookies

__all__ = ["MAIN_SCRIPT", "lifespan", "middleware", "on_script_error", "routes"]

MAIN_SCRIPT = Path(__file__).resolve().with_name("main.py")


def middleware() -> list[Middleware]:
    """The middleware, outermost first."""
    base_path, secret = _base_path(), password()
    return [
        Middleware(NoDelay),
        Middleware(HostGuard, allowed_hosts=settings().allowed_hosts, allow_addresses=secret is not None),
        Middleware(AccessGuard, password=secret, base_path=base_path, cookies=_cookies(secret)),
        Middleware(FrontendCache, base_path=base_path),
        Middleware(KnownAddresses, base_path=base_path),
    ]


def _cookies(secret: str | None) -> SignInCookies:
    """Those of this server alone, or of all copies of the app with one catalogue on a server."""
    if secret is None or catalog_address() is None:
        return SignInCookies()
    return SharedSignInCookies(secret, shared_values)


def routes() -> list[BaseRoute]:
    """The routes beside Streamlit's own."""
    base_path = _base_path()
    return [
        *photo_routes(base_path),
        *map_routes(base_path),
        *reconstruction_routes(base_path),
        *api_routes(base_path),
        openapi_route(base_path),
    ]


def _base_path() -> str:
    """What all addresses begin with, "/photos": Streamlit's option `server.baseUrlPath`; "" is nothing."""
    path = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{path}" if path else ""


def on_script_error(error: Exception) -> bool:
    """Handle a defect of ours: the traceback goes to the log, one sentence to the page. True is "handled"."""
    details = mask_credentials("".join(traceback.format_exception(error)))
    logging.getLogger(__name__).error("A page failed\n%s", details)
    plain_text.unexpected_error()
    return True
