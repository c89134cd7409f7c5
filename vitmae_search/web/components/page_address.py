"""The page's address as the place where a page keeps its state, so that reload, bookmarks and Back work."""

from __future__ import annotations

from datetime import date

import streamlit as st


def update_address(**changes: str | None) -> None:
    """Change parameters of the page's address, all in one step of the browser's history.

    Args:
        **changes: The new values; None removes a parameter.
    """
    merged = {**st.query_params.to_dict(), **changes}
    st.query_params.from_dict({name: value for name, value in merged.items() if value is not None})


def store(parameter: str, key: str, page: str) -> None:
    """A widget's callback: put its value into the address, and begin at the first page of results.

    Args:
        parameter: The address's parameter that holds the value.
        key: The widget's key in the session.
        page: The parameter that holds the page's number.
    """
    value = st.session_state[key]
    text = value.isoformat() if isinstance(value, date) else str(value or "").strip()
    update_address(**{parameter: text or None, page: None})


def show_in(key: str, value: object) -> None:
    """Let a widget that is about to be drawn show what the address has.

    The value is sent to the browser each time: after Back, Streamlit's page has forgotten its widgets'
    values, and would send their defaults with the next change.

    Args:
        key: The widget's key in the session.
        value: Its value.
    """
    st.session_state[key] = value
