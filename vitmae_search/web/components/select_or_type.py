"""A select box that also takes what a visitor types."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st


def select_or_type(
    label: str,
    options: Sequence[str],
    *,
    key: str,
    option_label: Callable[[str], str],
    placeholder: str,
    help: str,  # noqa: A002  Streamlit's own name for it
) -> str | None:
    """One of the options, or a value that the visitor typed; at first the first option.

    The browser sends back the label that it shows, and Streamlit takes a label for a typed value unless it
    belongs to an option of this very run of the page. So every label that was shown is remembered, and the
    selected value is always among the options.

    Args:
        label: The box's title.
        options: The values.
        key: The value is kept in the session under this key.
        option_label: The text that the box shows for a value.
        placeholder: Shown while nothing is selected.
        help: Shown beside the title.
    """
    values: dict[str, str] = st.session_state.setdefault(f"{key}_labels", {})  # by label
    selected = st.session_state.get(key)
    if selected in values and selected not in options:
        st.session_state[key] = selected = values[selected]
    listed = [*options] if selected is None or selected in options else [*options, selected]
    values.update({option_label(option): option for option in listed})
    return st.selectbox(
        label,
        listed,
        index=0 if options else None,
        format_func=option_label,
        key=key,
        placeholder=placeholder,
        accept_new_options=True,
        help=help,
    )
