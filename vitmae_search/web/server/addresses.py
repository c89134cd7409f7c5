"""The addresses of the app's pages, below its base path; all others get status 404.

Streamlit sends its page for any address, with status 200, and shows the first page there.
"""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGES = ("browse", "map", "reconstructions", "albums", "duplicates", "library", "training", "plugins")
"""The addresses that `web.server.main` gives its pages; the first page is at `/`."""

_PATHS = frozenset({"/", *(f"/{page}" for page in PAGES)})


class KnownAddresses:
    """ASGI middleware: in place of a page at an unknown address sends a sentence, with status 404.

    Args:
        app: The app.
        base_path: What its addresses begin with, "/photos"; "" is nothing.
    """

    def __init__(self, app: ASGIApp, base_path: str = "") -> None:
        self._app, self._base_path = app, base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and replace the answer if it is a page at no page's address.

        Args:
            scope: The ASGI connection.
            receive: As ASGI has it.
            send: As ASGI has it.
        """
        if scope["type"] != "http" or self._is_page_address(scope["path"]):
            await self._app(scope, receive, send)
            return
        first = f"{self._base_path}/"
        answer = PlainTextResponse(f"There is nothing at this address. The app begins at {first}\n", 404)
        replaced = False

        async def send_known(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start":
                replaced = _is_page(message)
                if replaced:
                    await answer(scope, receive, send)
            if not replaced:
                await send(message)

        await self._app(scope, receive, send_known)

    def _is_page_address(self, path: str) -> bool:
        below = path.removeprefix(self._base_path)
        return path.startswith(self._base_path) and (below.rstrip("/") or "/") in _PATHS


def _is_page(message: Message) -> bool:
    kind: bytes = dict(message["headers"]).get(b"content-type", b"")
    return bool(message["status"] == 200) and kind.startswith(b"text/html")
