"""Buttons below a view: its numbers as JSON, and its figure as PNG. Both are made when they are pressed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import streamlit as st

from vitmae_search.inspection.figures import figure_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(
    name: str, numbers: Callable[[], Mapping[str, Any]], figure: Callable[[], Figure] | None = None
) -> None:
    """The buttons.

    Args:
        name: Of the files, without a suffix.
        numbers: Gives what is shown as JSON values.
        figure: Draws it; None where it is no figure.
    """
    with st.container(horizontal=True):
        st.download_button(
            "Numbers (JSON)",
            lambda: json.dumps(numbers(), indent=1),
            f"{name}.json",
            mime="application/json",
            icon=":material/download:",
            key=f"vs_numbers_{name}",
            on_click="ignore",
        )
        if figure is not None:
            drawn = figure
            st.download_button(
                "Figure (PNG)",
                lambda: figure_png(drawn()),
                f"{name}.png",
                mime="image/png",
                icon=":material/download:",
                key=f"vs_picture_{name}",
                on_click="ignore",
            )
