"""The app's pages in Streamlit's own test runner, as a visitor comes to them."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Button

from vitmae_search.web.server.app import MAIN_SCRIPT

SEARCH = "../pages/search.py"


def open_app(**query: str) -> AppTest:
    """Open the app at an address of its first page."""
    at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60)
    return _run(at, query)


def open_page(script: str, /, **query: str) -> AppTest:
    """Open the app, go on to a page, and give its address parameters.

    Args:
        script: The page, as `AppTest.switch_page` takes it.
        **query: The parameters.
    """
    at = AppTest.from_file(str(MAIN_SCRIPT), default_timeout=60)
    at.run()
    if script != SEARCH:
        at.switch_page(script)
    return _run(at, query)


def undo_button(at: AppTest) -> Button:
    """The button that takes back the last change."""
    (found,) = (button for button in at.button if button.label == "Undo")
    return found


def _run(at: AppTest, query: dict[str, str]) -> AppTest:
    for name, value in query.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception, at.exception
    return at
