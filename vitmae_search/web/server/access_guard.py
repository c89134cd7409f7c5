"""Asks for the password before anything is shown, on HTTP and on the websocket alike.

Without a password the app answers on this machine only, whatever address the server was told to listen on.
With one, the sign-in page is all that a visitor without the cookie can reach.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
from urllib.parse import parse_qs, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitmae_search.errors import VitmaeSearchError
from vitmae_search.web.server.guess_limit import GuessLimit
from vitmae_search.web.server.sign_in_cookies import MAX_AGE, SignInCookies
from vitmae_search.web.server.sign_in_page import follow_link_page, sign_in_page, sign_out_page

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
COOKIE_PREFIX = "vitmae_search_"
"""Begins the cookie's name. The port ends it, since a browser keeps one set of cookies for all ports, or what
all copies of an app have in common."""

_FORM_BYTES = 8192
_THIS_MACHINE_ONLY = (
    "This app has no password, so it answers only on its own machine. "
    "Start it with --password-file or --token to open it from others.\n"
)
_SIGNED_OUT = "Sign in first: open the app's address in a browser.\n"
_WRONG = "That is not the password."
_NOT_READY = "The library's database does not answer just now. Try again in a moment.\n"

log = logging.getLogger(__name__)


class AccessGuard:
    """ASGI middleware: with a password, lets visitors in who have given it; without, this machine's own.

    Args:
        app: What is protected.
        password: The password; None is none.
        base_path: What the app's addresses begin with, "/photos"; "" is nothing.
        cookies: Of visitors who have signed in.
        guesses: The limit on wrong passwords.
    """

    def __init__(
        self,
        app: ASGIApp,
        password: str | None = None,
        base_path: str = "",
        cookies: SignInCookies | None = None,
        guesses: GuessLimit | None = None,
    ) -> None:
        self._app, self._base_path = app, base_path
        self._digest = None if password is None else _sha256(password)
        self._cookies = cookies or SignInCookies()
        self._guesses = guesses or GuessLimit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, ask for the password, or refuse.

        Args:
            scope: The ASGI connection.
            receive: As ASGI has it.
            send: As ASGI has it.
        """
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif self._digest is None:
            if _is_on_this_machine(scope):
                await self._app(scope, receive, send)
            else:
                await _refuse(scope, receive, send, PlainTextResponse(_THIS_MACHINE_ONLY, 403))
        elif not await self._is_ready():
            await _refuse(scope, receive, send, PlainTextResponse(_NOT_READY, 503, {"Retry-After": "5"}))
        elif scope["type"] == "websocket":
            if self._is_signed_in(scope):
                await self._app(scope, self._until_signed_out(scope, receive, send), send)
            else:
                await _refuse(scope, receive, send, PlainTextResponse(_SIGNED_OUT, 401))
        else:
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer: ASGIApp
        if scope["path"] == self._base_path + SIGN_IN:
            answer = await self._sign_in(request)
        elif "authorization" in request.headers and self._is_api(scope):
            answer = self._check_token(request) or self._app
        elif not self._is_signed_in(scope):
            answer = self._ask(request)
        elif scope["path"] == self._base_path + SIGN_OUT:
            answer = await self._sign_out(request)
        else:
            answer = self._app
        await answer(scope, receive, send)

    def _ask(self, request: Request) -> Response:
        """Lead a person to the sign-in page; anything else gets a sentence."""
        mode = request.headers.get("sec-fetch-mode", "navigate")
        is_page = mode == "navigate" and "text/html" in request.headers.get("accept", "")
        if request.method != "GET" or not is_page:
            return PlainTextResponse(_SIGNED_OUT, 401, {"Cache-Control": "no-store"})
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return follow_link_page()
        query = request.url.query
        address = quote(request.scope["path"]) + (f"?{query}" if query else "")
        return _redirect(f"{self._base_path}{SIGN_IN}?to={quote(address, safe='/')}")

    async def _sign_in(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            to = self._inside(request.query_params.get("to", ""))
            # "#" ends what a link with a token has behind it.
            return _redirect(f"{to}#") if self._is_signed_in(request.scope) else sign_in_page(to)
        if request.method != "POST":
            return PlainTextResponse("Only GET and POST.\n", 405, {"Allow": "GET, POST"})
        form = await _form(request)
        if form is None:
            return PlainTextResponse("This form is too large.\n", 413)
        return self._check(request, form.get("password", ""), self._inside(form.get("to", "")))

    def _check(self, request: Request, password: str, to: str) -> Response:
        wait, right = self._guess(request, password)
        if wait > 0:
            answer: Response = sign_in_page(to, _too_many(wait), 429)
            answer.headers["Retry-After"] = str(int(wait) + 1)
            return answer
        if not right:
            return sign_in_page(to, _WRONG, 401)
        answer = _redirect(to)
        self._set_cookie(request, answer, self._cookies.issue(), MAX_AGE)
        return answer

    def _guess(self, request: Request, password: str) -> tuple[float, bool]:
        """For how many seconds no password is looked at, and whether this one is right."""
        # Nothing waits between the look at the limit and the count, so that no guesses slip in between.
        address = request.client.host if request.client else ""
        wait = self._guesses.seconds_to_wait(address)
        if wait > 0:
            return wait, False
        assert self._digest is not None
        right = hmac.compare_digest(_sha256(password), self._digest)
        if not right:
            self._guesses.record_wrong_guess(address)
        return 0, right

    def _is_api(self, scope: Scope) -> bool:
        return str(scope["path"]).startswith(f"{self._base_path}/api/")

    def _check_token(self, request: Request) -> Response | None:
        """Refuse a program's header `Authorization: Bearer PASSWORD`; None lets it in."""
        scheme, _, password = request.headers["authorization"].partition(" ")
        headers = {"Cache-Control": "no-store", "WWW-Authenticate": "Bearer"}
        if scheme.lower() != "bearer":
            return JSONResponse({"error": "Authorization should be: Bearer PASSWORD"}, 401, headers)
        wait, right = self._guess(request, password.encode("latin-1").decode("utf-8", "surrogateescape"))
        if wait > 0:
            headers["Retry-After"] = str(int(wait) + 1)
            return JSONResponse({"error": _too_many(wait)}, 429, headers)
        return None if right else JSONResponse({"error": _WRONG}, 401, headers)

    async def _is_ready(self) -> bool:
        """Learn what other copies of the app did; whether it is known by now who has signed in."""
        if not self._cookies.is_current():
            try:
                await run_in_threadpool(self._cookies.refresh)
            except VitmaeSearchError as error:
                log.warning("who has signed in is not known: %s", error)
                return self._cookies.name is not None
        return True

    async def _sign_out(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            return sign_out_page()
        try:
            await run_in_threadpool(self._cookies.revoke, self._cookie(request.scope))
        except VitmaeSearchError as error:
            return PlainTextResponse(f"You are signed out of this copy of the app alone: {error}\n", 503)
        answer = _redirect(f"{self._base_path}{SIGN_IN}")
        self._set_cookie(request, answer, "", 0)
        return answer

    def _set_cookie(self, request: Request, answer: Response, value: str, max_age: int) -> None:
        answer.set_cookie(
            self._cookie_name(request.scope),
            value,
            max_age=max_age,
            path=self._base_path or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def _cookie_name(self, scope: Scope) -> str:
        _, port = scope.get("server") or ("", None)
        return f"{COOKIE_PREFIX}{self._cookies.name or port or 0}"

    def _cookie(self, scope: Scope) -> str:
        return HTTPConnection(scope).cookies.get(self._cookie_name(scope), "")

    def _is_signed_in(self, scope: Scope) -> bool:
        return self._cookies.is_valid(self._cookie(scope))

    def _until_signed_out(self, scope: Scope, receive: Receive, send: Send) -> Receive:
        """What a websocket receives, until its visitor signs out or the sign-in is too old."""

        async def receive_signed_in() -> Message:
            message = await receive()
            if await self._is_ready() and self._is_signed_in(scope):
                return message
            await send({"type": "websocket.close", "code": 1008, "reason": "signed out"})
            return {"type": "websocket.disconnect", "code": 1008}

        return receive_signed_in

    def _inside(self, to: str) -> str:
        """`to`, if it is an address within the app, else the app's first page."""
        first = f"{self._base_path}/"
        # A browser takes "//host" and "/\\host" for another site's address.
        is_inside = to.startswith(first) and to.isascii() and to.isprintable()
        return to if is_inside and "\\" not in to and not to.startswith("//") else first


def _is_on_this_machine(scope: Scope) -> bool:
    """Whether the connection came in on the loopback interface, or on a socket without an address."""
    host, port = scope.get("server") or ("", 0)
    if port is None:
        return True
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of a form; None if it is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _FORM_BYTES:
            return None
    try:
        fields = parse_qs(body.decode("ascii"), errors="surrogateescape", max_num_fields=8)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


async def _refuse(scope: Scope, receive: Receive, send: Send, answer: Response) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "not signed in"})
    else:
        await answer(scope, receive, send)


def _redirect(address: str) -> Response:
    headers = {"Location": address, "Cache-Control": "no-store"}
    return Response(status_code=303, headers=headers)


def _sha256(password: str) -> bytes:
    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).digest()


def _too_many(wait: float) -> str:
    return f"Too many wrong passwords. Try again in {_duration(wait)}."


def _duration(seconds: float) -> str:
    minutes = int(-(-seconds // 60))
    return "a minute" if minutes == 1 else f"{minutes} minutes"
