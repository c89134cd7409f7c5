"""A reconstruction as pictures: panels enlarged in whole steps, a heat map of the error, one sheet."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vitmae_search.records import Reconstruction

Panel = NDArray[np.uint8]
Titled = tuple[str, str, Panel]

PAINTED = "Masked"

SHORTEST = 256
_GAP, _LABEL = 12, 30

# From dark to bright, so that it reads in grey as well: the more light, the larger the error.
_HEAT = np.array(
    [
        *((12, 12, 36), (66, 20, 92), (135, 34, 98), (203, 65, 72)),
        *((244, 128, 42), (251, 205, 88), (252, 250, 200)),
    ],
    dtype=np.float64,
)


_ASSETS = Path(__file__).resolve().parents[1] / "assets"

_mount = st.components.v2.component(
    "vitmae_search_panels",
    html='<div class="panels"></div>',
    css=(_ASSETS / "panels.css").read_text(encoding="utf-8"),
    js=(_ASSETS / "panels.js").read_text(encoding="utf-8"),
)


def error_panel(made: Reconstruction) -> Panel:
    """(H, W, 3) uint8, the size of the other panels: each patch in the colour of its error.

    The scale runs from 0 to the largest error among the removed patches; visible ones, which the model
    did not have to guess, are grey.
    """
    top = worst_error(made)
    level = np.clip(made.error / top, 0, 1) if top > 0 else np.zeros_like(made.error)
    colours = heat(level)
    colours[~made.mask] = 128
    height, width = made.original.shape[:2]
    rows, columns = made.error.shape
    return colours.repeat(height // rows, axis=0).repeat(width // columns, axis=1)


def worst_error(made: Reconstruction) -> float:
    """The largest error among the removed patches, 0 where none was removed."""
    return float(made.error[made.mask].max()) if made.mask.any() else 0.0


def heat(level: NDArray[np.floating]) -> Panel:
    """Colours (..., 3) uint8 of levels in [0, 1]."""
    at = np.asarray(level, dtype=np.float64) * (len(_HEAT) - 1)
    stops = np.arange(len(_HEAT))
    channels = [np.interp(at, stops, _HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def legend(made: Reconstruction) -> str:
    """HTML: the colours of the error panel with the values at their ends."""
    stops = ",".join(f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in _HEAT)
    return (
        '<div class="vs-legend"><span>Error of a patch: 0</span>'
        f'<i style="background:linear-gradient(90deg,{stops})"></i><span>{worst_error(made):.3g}</span></div>'
    )


def enlarge(panel: Panel, shortest: int = SHORTEST) -> Panel:
    """By a whole factor, so that every pixel stays a square."""
    factor = max(1, -(-shortest // min(panel.shape[:2])))
    return panel.repeat(factor, axis=0).repeat(factor, axis=1)


def data_url(panel: Panel) -> str:
    """The panel as a PNG in a data: address."""
    return "data:image/png;base64," + base64.b64encode(_png(Image.fromarray(panel))).decode("ascii")


def draw(made: Reconstruction, shown: Sequence[Titled], *, key: str) -> None:
    """Show the panels side by side: (title, explanation, picture) each. Titles are plain text.

    The panel called `PAINTED` can be painted on; `st.session_state[key]["hidden"]` are the numbers of the
    squares that the person then wants hidden.
    """
    tiles = [
        {
            "title": title,
            "text": text,
            # Under the squares that hide it lies the whole picture, so that each can be uncovered.
            "src": data_url(enlarge(made.original if title == PAINTED else panel)),
            "painted": title == PAINTED,
        }
        for title, text, panel in shown
    ]
    mask = made.mask.ravel().astype(int).tolist()
    data = {"panels": tiles, "columns": made.mask.shape[1], "mask": mask}
    _mount(key=key, data=data, on_hidden_change=_noted)


def painted_mask(hidden: object, rows: int, columns: int) -> NDArray[np.bool_]:
    """(rows, columns), True at the numbers in `hidden`, counted row by row; nonsense is ignored."""
    mask = np.zeros(rows * columns, dtype=bool)
    numbers = hidden if isinstance(hidden, list) else []
    mask[[i for i in numbers if isinstance(i, int) and 0 <= i < mask.size]] = True
    return mask.reshape(rows, columns)


def _noted() -> None:
    """Streamlit hands a state back only where a callback is named."""


def sheet_png(panels: Sequence[tuple[str, Panel]]) -> bytes:
    """All panels, titled, left to right on white, as the bytes of a PNG file."""
    large = [(title, enlarge(panel)) for title, panel in panels]
    height = max(panel.shape[0] for _, panel in large)
    width = sum(panel.shape[1] for _, panel in large) + _GAP * (len(large) + 1)
    sheet = Image.new("RGB", (width, height + _LABEL + _GAP), "white")
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(15), _GAP
    for title, panel in large:
        draw.text((left, 7), title, fill="black", font=font)
        sheet.paste(Image.fromarray(panel), (left, _LABEL))
        left += panel.shape[1] + _GAP
    return _png(sheet)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
