"""A reconstruction on the page: the completed photo, large, and raw panels, of which one can be painted on.

All of them are made and encoded by `library.previews`, which also makes the sheet for the download; the HTML
round them and the painting are of this module.
"""

from __future__ import annotations

import base64

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from vitmae_search.library.previews import (
    HEAT_COLORS,
    completed_webp,
    error_map,
    largest_error,
    panel_png,
)
from vitmae_search.records import Reconstruction
from vitmae_search.web.components.assets import asset

_mount = st.components.v2.component(
    "vitmae_search_panels",
    html='<div class="panels"></div>',
    css=asset("panels.css"),
    js=asset("elements.js", "panels.js"),
)


def draw(made: Reconstruction, *, soften: bool, key: str) -> None:
    """Show a reconstruction. `st.session_state[key]["hidden"]` then has what the visitor painted.

    Args:
        made: The reconstruction.
        soften: Smooth the steps between neighbouring guesses in the completed photo.
        key: The component's key in the session. Its "hidden" are the numbers of the patches that the visitor
            wants hidden, row by row.
    """
    mask = made.mask.ravel().astype(int).tolist()
    data = {"panels": _tiles(made, soften), "columns": made.mask.shape[1], "mask": mask}
    _mount(key=key, data=data, on_hidden_change=_do_nothing)


def _tiles(made: Reconstruction, soften: bool) -> list[dict[str, object]]:
    """What the browser draws, in its order, each with its kind, title, text, alternative text and picture."""
    hidden, every = int(made.mask.sum()), int(made.mask.size)
    height, width = made.original.shape[:2]
    seams = " Seams between two guesses are softened." if soften and hidden else ""
    guessed = f"{hidden} of {every} squares are the model's guesses; the others are the photo.{seams}"
    return [
        {
            "kind": "completed",
            "title": "The photo, completed",
            "text": guessed,
            "alt": f"The photo as the model completed it: {guessed}",
            "src": _data_url("image/webp", completed_webp(made, soften=soften)),
        },
        {
            "kind": "painted",
            "title": "What the model saw",
            "text": f"{every - hidden} of {every} squares. Tap to hide or show.",
            "alt": f"What the model saw: {every - hidden} of {every} squares of the photo, the others grey",
            # The whole picture lies under the squares that hide it, so that each can be uncovered.
            "src": _data_url("image/png", panel_png(made.original)),
        },
        {
            "kind": "raw",
            "title": "Original",
            "text": f"The photo at the model's size, {width} × {height} pixels.",
            "alt": "The original photo at the model's size",
            "src": _data_url("image/png", panel_png(made.original)),
        },
        {
            "kind": "raw",
            "title": "All squares guessed",
            "text": "What it paints everywhere, also where it saw the photo.",
            "alt": "The model's guess of every square, those that it saw included",
            "src": _data_url("image/png", panel_png(made.reconstruction)),
        },
        {
            "kind": "raw",
            "title": "Error of each square",
            "text": "Bright: guessed worst. Grey: was shown.",
            "alt": "A map of the error of each guessed square, brighter where the guess is worse",
            "src": _data_url("image/png", panel_png(error_map(made))),
        },
    ]


def _do_nothing() -> None:
    """Streamlit returns a component's state only if it has a callback."""


def _data_url(media_type: str, data: bytes) -> str:
    """A file's bytes as a data: address."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def painted_mask(hidden: object, rows: int, columns: int) -> NDArray[np.bool_]:
    """The mask that a visitor painted.

    Args:
        hidden: The numbers of the hidden patches, row by row, from the browser: whatever is none is ignored.
        rows: Rows of patches.
        columns: Columns of patches.

    Returns:
        (rows, columns), True where a patch is hidden.
    """
    mask = np.zeros(rows * columns, dtype=bool)
    numbers = hidden if isinstance(hidden, list) else []
    mask[[i for i in numbers if isinstance(i, int) and 0 <= i < mask.size]] = True
    return mask.reshape(rows, columns)


def legend(made: Reconstruction) -> str:
    """HTML: the colors of the error panel with the values at their ends."""
    stops = ",".join(f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in HEAT_COLORS)
    return (
        '<div class="vs-legend"><span>Error of a square: 0</span>'
        f'<i style="background:linear-gradient(90deg,{stops})"></i>'
        f"<span>{largest_error(made):.3g}</span></div>"
    )
