"""Who is let in with a password, and without one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from vitmae_search.web.server.access_guard import AccessGuard
from vitmae_search.web.server.guess_limit import ALL_VISITORS, PER_VISITOR, WINDOW, GuessLimit
from vitmae_search.web.server.sign_in_cookies import SignInCookies

PASSWORD = "correct horse"
STREAM = "ws://127.0.0.1:8501/_stcore/stream"
PAGE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


def app(password: str | None = PASSWORD, **options: Any) -> Starlette:
    """An app that answers "inside" to everything, and echoes on its websocket."""

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async def inside(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"inside {len(await request.body())}")

    methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
    routes = [WebSocketRoute("/_stcore/stream", echo), Route("/{path:path}", inside, methods=methods)]
    return Starlette(
        routes=routes,
        middleware=[Middleware(AccessGuard, password=password, **options)],  # type: ignore[arg-type]
    )


def browser(password: str | None = PASSWORD, address: str = "127.0.0.1", **options: Any) -> TestClient:
    base_url = f"http://{address}:8501"
    return TestClient(app(password, **options), base_url, follow_redirects=False)


def sign_in(client: TestClient, password: str = PASSWORD, to: str = "/", base: str = "") -> Any:
    return client.post(f"{base}/sign-in", data={"password": password, "to": to})


EVERYTHING = [
    ("GET", "/"),
    ("GET", "/library"),
    ("GET", "/static/js/index.js"),
    ("GET", "/_stcore/health"),
    ("GET", "/_stcore/host-config"),
    ("PUT", "/_stcore/upload_file/a/b"),
    ("GET", "/photo/1"),
    ("GET", "/thumb/1?v=123456789abc"),
    ("POST", "/"),
    ("OPTIONS", "/photo/1"),
    ("GET", "/sign-in/"),
    ("GET", "//sign-in"),
    ("GET", "/sign-in/../photo/1"),
    ("GET", "/sign-out"),
    ("POST", "/sign-out"),
]


@pytest.mark.parametrize(("method", "path"), EVERYTHING)
def test_nothing_is_reached_without_the_password(method: str, path: str) -> None:
    client = browser()
    assert client.request(method, path).status_code == 401
    page = client.request(method, path, headers=PAGE)
    assert page.status_code in (303, 401)
    assert "inside" not in page.text
    for cookie in ("vitmae_search_8501=", "vitmae_search_8501=a.b.c", f"vitmae_search_8501={PASSWORD}"):
        assert client.request(method, path, headers={"Cookie": cookie}).status_code == 401


@pytest.mark.parametrize("cookie", [None, "vitmae_search_8501=x.y.z"])
def test_the_websocket_needs_the_cookie_too(cookie: str | None) -> None:
    headers = {} if cookie is None else {"Cookie": cookie}
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
        browser().websocket_connect(STREAM, headers=headers).__enter__()


def test_after_the_password_all_is_as_ever() -> None:
    client = browser()
    asked = client.get("/library?photo=3", headers=PAGE)
    assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?to=/library%3Fphoto%3D3")
    form = client.get(asked.headers["location"])
    assert form.status_code == 200
    assert 'value="/library?photo=3"' in form.text
    answer = sign_in(client, to="/library?photo=3")
    assert (answer.status_code, answer.headers["location"]) == (303, "/library?photo=3")
    assert client.get("/library").text == "inside 0"
    assert client.put("/_stcore/upload_file/a/b", content=b"x" * 100_000).text == "inside 100000"
    with client.websocket_connect(STREAM) as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"
    assert client.get("/sign-in").headers["location"] == "/#"


def test_the_cookie_names_no_secret_and_is_for_this_app_alone() -> None:
    client = browser(base_path="/photos")
    cookie = sign_in(client, to="/photos/", base="/photos").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/photos;" in cookie
    assert "Secure" not in cookie  # over http a browser would not keep it
    assert PASSWORD not in cookie
    value = client.cookies["vitmae_search_8501"]
    assert sign_in(browser()).headers["set-cookie"] != cookie
    changed = value[:-1] + ("A" if value[-1] != "A" else "B")
    other = browser(base_path="/photos")
    assert other.get("/photos/", headers={"Cookie": f"vitmae_search_8501={changed}"}).status_code == 401
    # Of another start of the server, with the same password.
    assert other.get("/photos/", headers={"Cookie": f"vitmae_search_8501={value}"}).status_code == 401


def test_over_https_the_cookie_is_secure() -> None:
    client = TestClient(app(), "https://127.0.0.1:8501", follow_redirects=False)
    assert "Secure" in sign_in(client).headers["set-cookie"]


@pytest.mark.parametrize(
    "wrong", ["", "correct hors", "correct horse ", "Correct horse", "\udcff", "x" * 5000]
)
def test_a_wrong_password_is_said_to_be_wrong(wrong: str) -> None:
    client = browser()
    answer = sign_in(client, wrong.encode("utf-8", "surrogateescape").decode("latin-1"))
    assert answer.status_code == 401
    assert "That is not the password" in answer.text
    assert "set-cookie" not in answer.headers
    assert client.get("/").status_code == 401


def test_passwords_of_any_letters() -> None:
    assert sign_in(browser("passwört für alle"), "passwört für alle").status_code == 303


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "/photos\r\nSet-Cookie: a=b",
        "/photos\x00",
        "javascript:alert(1)",
        "evil",
        "",
        "/elsewhere",
    ],
)
def test_signing_in_leads_nowhere_but_into_the_app(to: str) -> None:
    client = browser(base_path="/photos")
    answer = sign_in(client, to=to, base="/photos")
    assert answer.headers["location"] == "/photos/"
    assert "a=b" not in str(answer.headers)
    assert sign_in(browser(), to="//evil.example").headers["location"] == "/"


def test_the_form_shows_what_it_was_given_as_text() -> None:
    page = browser().get("/sign-in", params={"to": '/"><script>alert(1)</script>'})
    assert "<script>alert" not in page.text
    assert "script-src 'sha256-" in page.headers["content-security-policy"]


def test_a_form_that_is_no_form_is_refused() -> None:
    client = browser()
    assert client.post("/sign-in", content=b"password=" + b"x" * 20_000).status_code == 413
    assert client.post("/sign-in", content=b"&".join(b"a=b" for _ in range(500))).status_code == 401
    assert client.post("/sign-in", content=bytes(range(256))).status_code == 401
    assert client.post("/sign-in", files={"password": b"correct horse"}).status_code == 401
    assert client.delete("/sign-in").status_code == 405


def test_a_link_from_another_site_opens_the_page_for_who_has_signed_in() -> None:
    client = browser()
    page = client.get("/library", headers={**PAGE, "Sec-Fetch-Site": "cross-site"})
    assert page.status_code == 200
    assert 'http-equiv="refresh" content="0"' in page.text


def test_signing_out_ends_the_cookie_wherever_it_is() -> None:
    client = browser()
    sign_in(client)
    stolen = {"Cookie": f"vitmae_search_8501={client.cookies['vitmae_search_8501']}"}
    with client.websocket_connect(STREAM) as websocket:
        websocket.send_text("before")
        assert websocket.receive_text() == "before"
        assert client.get("/sign-out").status_code == 200
        assert client.get("/").text == "inside 0"  # looking at the page does nothing yet
        answer = client.post("/sign-out")
        assert answer.headers["location"] == "/sign-in"
        assert "Max-Age=0" in answer.headers["set-cookie"]
        websocket.send_text("after")
        with pytest.raises(WebSocketDisconnect):
            websocket.receive_text()
    assert client.get("/").status_code == 401
    assert browser_with(client.app, stolen).get("/").status_code == 401


def browser_with(served: Any, headers: dict[str, str]) -> TestClient:
    return TestClient(served, "http://127.0.0.1:8501", headers=headers)


def test_other_cookies_of_the_same_host_do_no_harm() -> None:
    client = browser()
    sign_in(client)
    own = f"vitmae_search_8501={client.cookies['vitmae_search_8501']}"
    other = {"Cookie": f'bad name=1; [x]=2; "quoted; {own}; vitmae_search_9000=x'}
    assert browser_with(client.app, other).get("/").status_code == 200


def test_guesses_are_few() -> None:
    client = browser()
    for _ in range(PER_VISITOR):
        assert sign_in(client, "wrong").status_code == 401
    answer = sign_in(client, PASSWORD)
    assert answer.status_code == 429
    assert "Try again in 5 minutes" in answer.text
    assert 0 < int(answer.headers["retry-after"]) <= WINDOW + 1
    assert "set-cookie" not in answer.headers


def test_guesses_of_one_visitor_leave_others_alone_for_a_while() -> None:
    now = [0.0]
    limit = GuessLimit(clock=lambda: now[0])
    for _ in range(PER_VISITOR):
        assert limit.seconds_to_wait("192.0.2.1") == 0
        limit.record_wrong_guess("192.0.2.1")
        now[0] += 1
    assert limit.seconds_to_wait("192.0.2.1") == WINDOW - PER_VISITOR
    assert limit.seconds_to_wait("::ffff:192.0.2.1") == WINDOW - PER_VISITOR
    assert limit.seconds_to_wait("192.0.2.2") == 0
    for number in range(PER_VISITOR):  # one network has 2 ** 64 addresses
        limit.record_wrong_guess(f"2001:db8::{number}")
    assert limit.seconds_to_wait("2001:db8::ffff") > 0
    assert limit.seconds_to_wait("2001:db8:0:1::") == 0
    for number in range(ALL_VISITORS):
        limit.record_wrong_guess(f"198.51.100.{number}")
    assert limit.seconds_to_wait("203.0.113.1") > 0
    now[0] += WINDOW
    assert limit.seconds_to_wait("203.0.113.1") == 0


def test_a_sign_in_does_not_last_for_ever() -> None:
    cookies = SignInCookies(max_age=-1)
    assert not cookies.is_valid(cookies.issue())
    assert not SignInCookies().is_valid(SignInCookies().issue())


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("server", "answered"),
    [
        (("127.0.0.1", 8501), True),
        (("127.9.9.9", 8501), True),
        (("::1", 8501), True),
        (("::ffff:127.0.0.1", 8501), True),
        (("/run/app.sock", None), True),
        (("192.168.1.5", 8501), False),
        (("172.17.0.2", 8501), False),
        (("fe80::1%eth0", 8501), False),
        (("2001:db8::1", 8501), False),
        (("0.0.0.0", 8501), False),
        (("photos.example", 8501), False),
        (None, False),
    ],
)
def test_without_a_password_only_this_machine_is_answered(kind: str, server: Any, answered: bool) -> None:
    reached: list[str] = []
    sent: list[Any] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "path": "/", "headers": [], "server": server, "method": "GET"}
    asyncio.run(AccessGuard(inside)(scope, None, send))  # type: ignore[arg-type]
    assert reached == ([kind] if answered else [])
    if not answered:
        assert sent[0]["type"] == "websocket.close" or sent[0]["status"] == 403


def test_without_a_password_there_is_no_sign_in() -> None:
    assert browser(None).get("/sign-in").text == "inside 0"
