"""What every page has, whatever it shows.

Keys and their list, pictures that are pasted or dropped anywhere (`frame.js`), and a sentence for while the
server does not answer.
"""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from vitmae_search.errors import VitmaeSearchError
from vitmae_search.settings import settings
from vitmae_search.web.components.assets import asset
from vitmae_search.web.server.session import COOKIE, library

_mount = st.components.v2.component(
    "vitmae_search_frame",
    html='<div class="frame"></div>',
    css=asset("frame.css"),
    js=asset("fetch_picture.js", "frame.js"),
)


def draw() -> None:
    """Draw what is seen only while the server is away (`page.css`), and run the script."""
    with st.container(key="vs_frame"):
        st.html(
            '<div class="vs-away" role="status">The program that shows these pages does not answer. Perhaps '
            "it was stopped: start vitmae-search app again. The page goes on by itself then.</div>"
        )
        chosen = None
        if len(settings().libraries) > 1:
            with suppress(VitmaeSearchError):  # the page says so
                chosen = {"name": COOKIE, "identity": library().identity}
        _mount(key="vs_frame_script", data={"library": chosen})
