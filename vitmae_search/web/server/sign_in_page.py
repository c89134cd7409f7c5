"""The page that asks for the password, and the one that signs out. They load nothing.

A link `/sign-in#TOKEN` fills the password in: the part behind `#` stays in the browser, so that no proxy and
no log sees it.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path

from starlette.responses import HTMLResponse

_ICON = base64.b64encode((Path(__file__).resolve().parents[1] / "assets" / "icon.png").read_bytes()).decode()

_STYLE = """
:root { color-scheme: light dark; --back: #fbfaf8; --card: #fff; --text: #22262a; --line: #dcd8d0;
  --button: #2b6e63; --problem: #a8341f; }
@media (prefers-color-scheme: dark) { :root { --back: #151817; --card: #1f2423; --text: #e6e8e5;
  --line: #343b39; --button: #3d9484; --problem: #f08a76; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.25rem;
  background: var(--back); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
main { width: 100%; max-width: 23rem; padding: 1.75rem; border: 1px solid var(--line); border-radius: .9rem;
  background: var(--card); }
header { display: flex; align-items: center; gap: .7rem; margin-bottom: 1.1rem; }
h1 { margin: 0; font-size: 1.25rem; font-weight: 650; }
p { margin: 0 0 1rem; }
label { display: block; margin-bottom: .35rem; font-weight: 600; }
input, button { width: 100%; padding: .65rem .8rem; border-radius: .6rem; font: inherit; }
input { border: 1px solid var(--line); background: var(--back); color: inherit; }
button { margin-top: 1rem; border: 0; background: var(--button); color: #fff; font-weight: 600;
  cursor: pointer; }
input:focus-visible, button:focus-visible { outline: 2px solid var(--button); outline-offset: 2px; }
[role=alert] { color: var(--problem); margin: 1rem 0 0; }
"""

_SCRIPT = """
const token = decodeURIComponent(location.hash.slice(1));
if (token) {
  history.replaceState(null, "", location.pathname + location.search);
  document.getElementById("password").value = token;
  document.querySelector("form").requestSubmit();
}
"""


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with "no-referrer" a browser sends forms with "Origin: null"
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_digest(_STYLE)}; script-src {_digest(_SCRIPT)}; img-src data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}


def sign_in_page(to: str, problem: str = "", status: int = 200) -> HTMLResponse:
    """The page that asks for the password.

    Args:
        to: The address within the app where the visitor wants to go.
        problem: Why the last try failed.
        status: The HTTP status.
    """
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    form = (
        '<form method="post">'
        f'<input type="hidden" name="to" value="{escape(to)}">'
        '<label for="password">Password</label>'
        '<input id="password" name="password" type="password" autocomplete="current-password" required '
        f"autofocus>{alert}<button>Sign in</button></form>"
    )
    return _page("Sign in", form + f"<script>{_SCRIPT}</script>", status)


def sign_out_page() -> HTMLResponse:
    """The page with the button that signs out."""
    form = '<form method="post"><p>Sign out in this browser?</p><button>Sign out</button></form>'
    return _page("Sign out", form, 200)


def follow_link_page() -> HTMLResponse:
    """A page that opens its own address again.

    A browser that follows another site's link withholds the cookie (`SameSite=Strict`), also of a visitor who
    has signed in. It sends it with the second request, which comes from this page.
    """
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0">'
        '<title>vitmae-search</title></head><body><a href="">Open vitmae-search</a></body></html>',
        headers=_HEADERS,
    )


def _page(title: str, content: str, status: int) -> HTMLResponse:
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · vitmae-search</title>"
        f'<link rel="icon" href="data:image/png;base64,{_ICON}"><style>{_STYLE}</style></head><body><main>'
        f'<header><img src="data:image/png;base64,{_ICON}" alt="" width="36" height="36">'
        f"<h1>vitmae-search</h1></header>{content}</main></body></html>",
        status,
        headers=_HEADERS,
    )
