"""Pictures in patches, at which a visitor points: `web/assets/patch_maps.js` colors the others at once.

All values travel with the page, so that nothing is asked of the server while the pointer moves.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from vitmae_search.library.previews import panel_png
from vitmae_search.web.components.assets import asset

_mount = st.components.v2.component(
    "vitmae_search_patch_maps",
    html='<div class="patches"></div>',
    css=asset("patch_maps.css"),
    js=asset("elements.js", "patch_maps.js"),
)
_LEVELS = 65535
"""Of the values that are sent, 0 to the largest of 16 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class PatchedPicture:
    """A picture and its grid.

    Attributes:
        picture: (H, W, 3) uint8.
        grid: Rows and columns of patches.
        title: Plain text.
        text: Plain text below it.
        alt: Plain text for who does not see the picture.
        values: (rows, columns), the map that is shown while nothing is pointed at; None for none.
    """

    picture: NDArray[np.uint8]
    grid: tuple[int, int]
    title: str
    text: str
    alt: str
    values: NDArray[np.float32] | None = None


def draw(
    sides: Sequence[PatchedPicture],
    matrix: NDArray[np.float32],
    *,
    key: str,
    unit: str,
    kept: str,
    on_keep: Callable[[str], None],
    map_unit: str = "",
    signed: bool = False,
    row_scale: bool = False,
    pairs: NDArray[np.int64] | None = None,
) -> None:
    """Show one or two pictures.

    Args:
        sides: One picture, whose patches color each other, or two.
        matrix: (P, P'): what a patch of the first picture colors those of the last with.
        key: The component's key in the session.
        unit: What the matrix's values are, for the legend.
        kept: The patch that is kept, as "side-number"; "" for none.
        on_keep: Called with it when the visitor taps a patch.
        map_unit: What the values of the pictures' own maps are.
        signed: Those are added and taken away: 0 is in the middle of the colors.
        row_scale: Each row of the matrix has a color scale of its own, from 0 to its largest value.
        pairs: (N, 2), patches that lines connect.
    """
    values = [side.values for side in sides if side.values is not None]
    high = max((float(np.abs(each).max() if signed else each.max()) for each in values), default=0.0)
    low, top = float(matrix.min()), float(matrix.max())
    levels = np.round((matrix - low) / ((top - low) or 1) * _LEVELS).astype("<u2")
    data = {
        "sides": [_side(side) for side in sides],
        "matrix": base64.b64encode(levels.tobytes()).decode("ascii"),
        "low": low,
        "high": top,
        "unit": unit,
        "mapUnit": map_unit,
        "mapLow": -high if signed else 0.0,
        "mapHigh": high,
        "signed": signed,
        "rowScale": row_scale,
        "pairs": None if pairs is None else pairs.tolist(),
        "kept": kept,
    }

    def keep() -> None:
        state = st.session_state.get(key)
        chosen = None if state is None else state.get("kept")
        on_keep(chosen if isinstance(chosen, str) else "")

    _mount(key=key, data=data, on_kept_change=keep)


def _data_url(picture: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(panel_png(picture)).decode("ascii")


def _side(side: PatchedPicture) -> dict[str, object]:
    rows, columns = side.grid
    return {
        "src": _data_url(side.picture),
        "rows": rows,
        "columns": columns,
        "title": side.title,
        "text": side.text,
        "alt": side.alt,
        "map": None if side.values is None else side.values.ravel().astype(float).tolist(),
    }


def draw_colors(pictures: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    """Show pictures, and their patches' colors beside each.

    Args:
        pictures: A name, the picture (H, W, 3) uint8, and the colors (rows, columns, 3) uint8 of its patches.
    """
    figures = []
    for name, picture, colors in pictures:
        shown = [
            (picture, f"{name} at the model's size"),
            (colors, f"{name}, its squares in the model's colors"),
        ]
        images = "".join(f'<img src="{_data_url(each)}" alt="{escape(alt)}">' for each, alt in shown)
        figures.append(f"<figure><div>{images}</div><figcaption>{escape(name)}</figcaption></figure>")
    st.html(f'<div class="vs-colors">{"".join(figures)}</div>')
