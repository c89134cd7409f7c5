"""A reconstruction's panels side by side, of which one can be painted on, with a heat map of the error.

The panels are enlarged and encoded by `library.previews`, which also makes the sheet for the download; the
HTML round them, the painting and the heat map's colours are of this module.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from vitmae_search.library.previews import panel_png
from vitmae_search.records import Reconstruction

Panel = NDArray[np.uint8]
TitledPanel = tuple[str, str, Panel]
"""Title, explanation, and (H, W, 3) RGB pixels."""

PAINTABLE = "Masked"
"""The title of the panel that can be painted on."""

# From dark to bright, so that the map can be read in grey as well: the brighter, the larger the error.
_HEAT_COLORS = np.array(
    [
        *((12, 12, 36), (66, 20, 92), (135, 34, 98), (203, 65, 72)),
        *((244, 128, 42), (251, 205, 88), (252, 250, 200)),
    ],
    dtype=np.float64,
)
_VISIBLE_GREY = 128

_ASSETS = Path(__file__).resolve().parents[1] / "assets"

_mount = st.components.v2.component(
    "vitmae_search_panels",
    html='<div class="panels"></div>',
    css=(_ASSETS / "panels.css").read_text(encoding="utf-8"),
    js=(_ASSETS / "panels.js").read_text(encoding="utf-8"),
)


def draw(made: Reconstruction, shown: Sequence[TitledPanel], *, key: str) -> None:
    """Show panels side by side. `st.session_state[key]["hidden"]` then has what the visitor painted.

    Args:
        made: The reconstruction that the panels are of.
        shown: The panels. The one titled `PAINTABLE` can be painted on.
        key: The component's key in the session. Its "hidden" are the numbers of the patches that the visitor
            wants hidden, row by row.
    """
    tiles = [
        {
            "title": title,
            "text": text,
            # The whole picture lies under the squares that hide its patches, so that each can be uncovered.
            "src": data_url(made.original if title == PAINTABLE else panel),
            "painted": title == PAINTABLE,
        }
        for title, text, panel in shown
    ]
    mask = made.mask.ravel().astype(int).tolist()
    data = {"panels": tiles, "columns": made.mask.shape[1], "mask": mask}
    _mount(key=key, data=data, on_hidden_change=_do_nothing)


def _do_nothing() -> None:
    """Streamlit returns a component's state only if it has a callback."""


def data_url(panel: Panel) -> str:
    """The panel, enlarged, as a PNG in a data: address."""
    return "data:image/png;base64," + base64.b64encode(panel_png(panel)).decode("ascii")


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


def error_panel(made: Reconstruction) -> Panel:
    """(H, W, 3) uint8, the size of the other panels: each patch in the color of its error.

    The scale runs from 0 to the largest error among the removed patches; visible ones, which the model
    did not have to guess, are grey.
    """
    largest = largest_error(made)
    level = np.clip(made.error / largest, 0, 1) if largest > 0 else np.zeros_like(made.error)
    colors = heat(level)
    colors[~made.mask] = _VISIBLE_GREY
    height, width = made.original.shape[:2]
    rows, columns = made.error.shape
    return colors.repeat(height // rows, axis=0).repeat(width // columns, axis=1)


def largest_error(made: Reconstruction) -> float:
    """The largest error among the removed patches, 0 where none was removed."""
    return float(made.error[made.mask].max()) if made.mask.any() else 0.0


def heat(level: NDArray[np.floating]) -> Panel:
    """Colors (..., 3) uint8 of levels in [0, 1]."""
    at = np.asarray(level, dtype=np.float64) * (len(_HEAT_COLORS) - 1)
    stops = np.arange(len(_HEAT_COLORS))
    channels = [np.interp(at, stops, _HEAT_COLORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def legend(made: Reconstruction) -> str:
    """HTML: the colors of the error panel with the values at their ends."""
    stops = ",".join(f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in _HEAT_COLORS)
    return (
        '<div class="vs-legend"><span>Error of a patch: 0</span>'
        f'<i style="background:linear-gradient(90deg,{stops})"></i>'
        f"<span>{largest_error(made):.3g}</span></div>"
    )
